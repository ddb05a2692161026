"""A solver made of a function alone, its derivatives by differences."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from higcore.backend import Array, array_module, module_of, to_host
from higcore.validation import (
    check_callable,
    check_choice,
    check_count,
    check_finite,
    check_like,
    check_reals,
)

from .base import Solver

METHODS = ("central", "complex")
AT_ONCE = 2**22  # numbers in x, u and y of one call: 32 MB in float64; a solver may need much more
DOUBTFUL = 1e-3  # relative error of S from which `error_estimate` warns


class DifferencedSolver(Solver):
    r"""y = solve(x, u) of a function without derivatives: S by differences, control by control.

    .. math:: S_{jk} = \frac{y_j(u + h_k e_k) - y_j(u - h_k e_k)}{2 h_k}
       \qquad\text{or}\qquad S_{jk} = \frac{\mathrm{Im}\, y_j(u + i h_k e_k)}{h_k}

    It is slow: a step of any optimizer, Adam's too, solves for 2 |u| b samples more, or for |u| b
    complex ones. A derivative by hand or by an autograd library costs as much as some solves.

    Parameters
    ----------
    solve : callable
        x (b, |x|), u (b, |u|) -> y (b, |y|), sample by sample, for any b: it is handed all
        samples with all controls that are moved, one below the other, as far as these arrays take
        about 32 MB. It must not write into x and u.
    state_size, control_size, output_size : int
        |x|, |u| and |y|.
    method : {"central", "complex"}
        ``"central"`` differences of the solvers here are good to 1e-8 and better in float64, to
        1e-2 and better in float32. The ``"complex"`` step is exact to rounding and takes half the
        samples; it needs a ``solve`` that is analytic in u and written for complex arrays: no
        abs, no comparisons, no conjugates, no kernel compiled for real numbers.
    step : float or sequence (|u|,), optional
        h of each control, in units of u. By default eps^(1/3) max(1, |u_k|), for the complex
        step eps^2 max(1, |u_k|): name your own where controls are far smaller than 1.

    Notes
    -----
    `error_estimate` says how good S is; `check_solver` says all else, such as whether samples mix.

    Examples
    --------
    >>> solver = DifferencedSolver(lambda x, u: x * np.sin(u), 2, 2, 2)
    >>> x, u = np.ones((1, 2)), np.array([[0.0, 1.0]])
    >>> y, S = solver.jacobian(x, u)
    >>> bool(abs(S[0] - np.diag(np.cos(u[0]))).max() < 1e-9)
    True
    """

    state_size: int = 0
    control_size: int = 0
    output_size: int = 0

    def __init__(
        self,
        solve: Callable[[Array, Array], Array],
        state_size: int,
        control_size: int,
        output_size: int,
        method: str = "central",
        step: float | Sequence[float] | None = None,
    ) -> None:
        check_callable("solve", solve)
        sizes = {"state_size": state_size, "control_size": control_size, "output_size": output_size}
        for name, value in sizes.items():
            check_count(name, value)
        check_choice("method", method, METHODS)
        if step is not None:
            step = check_reals("step", step, control_size, 0.0, open_low=True)
        self.function, self.method, self.step = solve, method, step
        self.state_size, self.control_size = state_size, control_size
        self.output_size = output_size

    def __repr__(self) -> str:
        sizes = f"{self.state_size}, {self.control_size}, {self.output_size}"
        step = "" if self.step is None else f", step={self.step}"
        return f"DifferencedSolver({self.function!r}, {sizes}, {self.method!r}{step})"

    def solve(self, x: Array, u: Array) -> Array:
        """Return y (b, |y|)."""
        self.check_inputs(x, u)
        return self._outputs(x, u)

    def rows(self, tape: Any) -> Array:
        """Return S (b, |y|, |u|) for the tape (x, u)."""
        x, u = tape
        self.check_inputs(x, u)
        return self._jacobian(x, u, self.method, self._steps(u, self.method))

    def error_estimate(self, x: Array, u: Array) -> Array:
        """Return the relative error of S, output by output (|y|,), of which large ones are warned.

        It is the largest difference to S by central differences with twice the step, of the complex
        step to S by central differences, in units of the output's largest derivative. Large errors
        come of a ``solve`` that jumps or is noisy, of a step that is too large for how it bends, or
        so small that rounding is all that is left. Costs 4 or 3 |u| b solves.

        Warns
        -----
        RuntimeWarning
            If an error is more than 1e-3; for another step or, if none helps, another solver.
        """
        xp = self.check_inputs(x, u)
        S = self._jacobian(x, u, self.method, self._steps(u, self.method))
        longer = self._steps(u, "central") * (2 if self.method == "central" else 1)
        other = self._jacobian(x, u, "central", longer)
        error, sizes = abs(S - other), xp.maximum(abs(S), abs(other))
        size = sizes.max(axis=(0, 2))
        relative = error.max(axis=(0, 2)) / xp.where(size > 0, size, 1)
        _warn_of(relative)
        return relative

    def _steps(self, u, method):
        """h (b, |u|) of every control."""
        xp, eps = module_of(u), float(np.finfo(u.dtype).eps)
        if self.step is not None and method == self.method:
            return xp.broadcast_to(xp.asarray(self.step, dtype=u.dtype), u.shape)
        power = 1 / 3 if method == "central" else 2
        return eps**power * xp.maximum(abs(u), 1)

    def _jacobian(self, x, u, method, h):
        """S (b, |y|, |u|) with steps h (b, |u|), as many controls at a time as `AT_ONCE` allows."""
        xp, columns = module_of(u), _central if method == "central" else _complex
        S = xp.empty((len(u), self.output_size, self.control_size), u.dtype)
        for some in self._controls(len(u)):
            moves = xp.eye(self.control_size, dtype=u.dtype)[some, None] * h  # (n, b, |u|)
            S[:, :, some] = columns(self._of_copies, x, u, moves).transpose(1, 2, 0)
        check_finite("S by differences of solve", S)
        return S

    def _controls(self, b):
        """Controls that are moved at a time, as slices."""
        numbers = 2 * b * (self.state_size + self.control_size + self.output_size)
        count = max(1, AT_ONCE // numbers)
        return [slice(k, k + count) for k in range(0, self.control_size, count)]

    def _of_copies(self, x, u):
        """y (.., b, |y|) for controls u (.., b, |u|), by one call of the function."""
        copies = module_of(x).empty((*u.shape[:-1], self.state_size), x.dtype)
        copies[...] = x  # for solve to keep: a view of x could not go to other libraries
        y = self._outputs(copies.reshape(-1, self.state_size), u.reshape(-1, self.control_size))
        return y.reshape(*u.shape[:-1], self.output_size)

    def _outputs(self, x, u):
        """y (b, |y|) of the function, looked at; complex where u is."""
        y, name = self.function(x, u), "y = solve(x, u)"
        array_module(x=x, **{name: y})
        is_complex = u.dtype.kind == "c"
        if is_complex and y.dtype.kind != "c":
            raise TypeError(
                f"solve must give complex y for complex u, got dtype {y.dtype}; "
                "method='central' takes real ones"
            )
        check_like(name, y.imag if is_complex else y, (len(x), self.output_size), x=x)
        return y


def _central(outputs, x, u, moves):
    """Columns (n, b, |y|) of S by differences, for moves (n, b, |u|) of one control each."""
    both = module_of(u).stack([u + moves, u - moves])
    y = outputs(x, both)
    width = (both[0] - both[1]).sum(axis=2)  # as far apart as rounding put them
    return (y[0] - y[1]) / width[:, :, None]


def _complex(outputs, x, u, moves):
    """As `_central`, by steps along the imaginary axis."""
    return outputs(x, u + 1j * moves).imag / moves.sum(axis=2)[:, :, None]


def _warn_of(relative):
    worst = float(relative.max())
    if worst > DOUBTFUL:
        warnings.warn(
            f"S by differences may be off by {worst:.0e} of the largest derivative of output "
            f"{int(to_host(relative).argmax())}: solve jumps, is noisy or bends within a step; "
            "another step= may help",
            RuntimeWarning,
            stacklevel=3,
        )
