"""Steps that are said for one sample, in plain Python: compiled, alone and within a march."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from higcore.backend import Array, empty, module_of
from higcore.compilation.readings import plain_function
from higcore.kernels import RangeKernel
from higcore.validation import check_callable, check_count

from .march import StepFunctions
from .stepper import Stepper

Scalar = Callable[..., None]
SHORT = 1024  # steps of samples, some 50 us


@functools.lru_cache(maxsize=64)
def plain_step(function: Scalar, function_tangent: Scalar) -> tuple[Scalar, Scalar]:
    """A step and its tangent that need neither numbers nor scratch."""

    def step(numbers, x, u, out, own):
        function(x, u, out)

    def tangent(numbers, x, u, dx, du, out, own):
        function_tangent(x, u, dx, du, out)

    return step, tangent


def product(width, columns, bar, out):
    """out = sum over j of columns[:, j] bar[j], lane by lane."""
    for c in range(out.shape[0]):
        for i in range(width):
            out[c, i] = 0.0
        for j in range(bar.shape[0]):
            for i in range(width):
                out[c, i] += columns[c, j, i] * bar[j, i]


@functools.lru_cache(maxsize=64)
def march_functions(step: Scalar, tangent: Scalar, n: int, k: int) -> tuple[Scalar, Scalar, Scalar]:
    """Advance, linearise and pull of `StepFunctions`.

    ``work`` is what one sample needs, x, u, dx, du, the next x and own, and A and B of all, column
    by column: columns (n + k, n, width), and pulled (n, width).
    """

    def load_sample(i, x, u, x_i, u_i):
        for j in range(n):
            x_i[j] = x[j, i]
        for j in range(k):
            u_i[j] = u[j, i]

    def advance(width, numbers, x, u, work):
        x_i, u_i, _, _, x_next, own, _, _ = work
        for i in range(width):
            load_sample(i, x, u, x_i, u_i)
            step(numbers, x_i, u_i, x_next, own)
            for j in range(n):
                x[j, i] = x_next[j]

    def linearise(width, numbers, x, u, work):
        x_i, u_i, dx, du, along, own, columns, _ = work
        for j in range(n):
            dx[j] = 0.0
        for j in range(k):
            du[j] = 0.0
        for i in range(width):
            load_sample(i, x, u, x_i, u_i)
            step(numbers, x_i, u_i, along, own)
            for c in range(n + k):
                if c < n:
                    dx[c] = 1.0
                else:
                    du[c - n] = 1.0
                tangent(numbers, x_i, u_i, dx, du, along, own)
                for j in range(n):
                    columns[c, j, i] = along[j]
                if c < n:
                    dx[c] = 0.0
                else:
                    du[c - n] = 0.0

    def pull(width, numbers, work, x_bar, u_bar):
        _, _, _, _, _, _, columns, pulled = work
        product(width, columns[n:], x_bar, u_bar)
        product(width, columns, x_bar, pulled)
        for j in range(n):
            for i in range(width):
                x_bar[j, i] = pulled[j, i]

    return advance, linearise, pull


@functools.lru_cache(maxsize=64)
def array_kernels(step: Scalar, tangent: Scalar) -> tuple[RangeKernel, RangeKernel]:
    """The same over all samples of arrays (b, n), for what is no march."""

    def steps(lo, hi, x, u, out, numbers, own):
        for i in range(lo, hi):
            step(numbers, x[i], u[i], out[i], own)

    def tangents(lo, hi, x, u, dx, du, out, numbers, own, x_next):
        for i in range(lo, hi):
            step(numbers, x[i], u[i], x_next, own)
            tangent(numbers, x[i], u[i], dx[i], du[i], out[i], own)

    return RangeKernel(steps), RangeKernel(tangents)


class OneSample(NamedTuple):
    """A step and its tangent for one sample, and what they are to be handed.

    ``step(numbers, x, u, out, own)`` and, after it,
    ``tangent(numbers, x, u, dx, du, out, own)``, with scratch own (``own``, n).
    """

    step: Scalar
    tangent: Scalar
    state_size: int
    control_size: int
    numbers: tuple[float, ...]
    own: int

    def functions(self) -> StepFunctions:
        """What the compiled march calls."""
        functions = march_functions(self.step, self.tangent, self.state_size, self.control_size)
        return StepFunctions(*functions, self.numbers, self._work)

    def _work(self, width):
        n, k = self.state_size, self.control_size
        return (n,), (k,), (n,), (k,), (n,), self._own, (n + k, n, width), (n, width)

    def advanced(self, x: Array, u: Array) -> Array:
        """The next state (b, n)."""
        steps, _ = array_kernels(self.step, self.tangent)
        return self._run(steps, (self._own,), x, u)

    def along(self, x: Array, u: Array, dx: Array, du: Array) -> Array:
        """Its tangent (b, n)."""
        _, tangents = array_kernels(self.step, self.tangent)
        return self._run(tangents, (self._own, (self.state_size,)), x, u, dx, du)

    @property
    def _own(self):
        return self.own, self.state_size

    def _run(self, kernel, scratch, *arrays):
        xp, (b, n) = module_of(arrays[0]), arrays[0].shape
        out, dtype = empty(xp, (b, n), arrays[0].dtype), arrays[0].dtype
        numbers = xp.asarray(self.numbers, dtype)
        kernel(
            b,
            *map(xp.ascontiguousarray, arrays),
            out,
            numbers,
            scratch=lambda *_: scratch,
            alone=b <= SHORT,
        )
        return out


def is_scalar(function: object) -> bool:
    """Whether a function of the user's is for one sample: it asks for an argument ``out``."""
    plain = plain_function(function)
    out = inspect.signature(plain).parameters.get("out") if plain else None
    return out is not None and out.default is out.empty


def check_scalar(name: str, function: Scalar, *widths: int) -> None:
    """Raise unless a function for one sample is one, keeps to its arrays and writes all of ``out``.

    Compiled code would read and write beyond their ends. It is called once, as plain Python, with
    arrays of these widths, the last of which is out; what is no number there does not count.
    """
    if plain_function(function) is None:
        raise TypeError(f"{name} must be a plain function, which can be compiled; got {function!r}")
    *arguments, out = (np.full(width, 0.5) for width in widths)
    found = []
    for before in (np.nan, 0.0):
        out[:] = before
        try:
            with np.errstate(all="ignore"):
                function(*arguments, out)
        except (ArithmeticError, ValueError):  # such as the logarithm of a negative number
            return
        except IndexError as error:
            shapes = ", ".join(f"({width},)" for width in widths)
            raise ValueError(
                f"{name} must keep to its arrays, of shapes {shapes}, got: {error}"
            ) from error
        found.append(out.copy())
    left = np.flatnonzero(np.isnan(found[0]) & (found[1] == 0.0))
    if len(left):
        raise ValueError(f"{name} must write all of out, got nothing for out[{left[0]}]")


@dataclass(frozen=True)
class ScalarStepper(Stepper):
    """A step that is said for one sample, in plain Python, and compiled.

    Parameters
    ----------
    next_state : callable
        (x, u, out): write step(x, u) to out, for arrays x (|x|,), u (|u|,), out (|x|,).
    next_tangent : callable
        (x, u, dx, du, out): write its derivative along dx and du.
    state_size, control_size : int
        |x| and |u|.

    Notes
    -----
    Numba compiles both for the host and for CUDA: loops, numbers and the functions of ``math``, and
    what else they call that is such a function. They make no arrays, and an index beyond the end of
    one is not found out.

    Examples
    --------
    >>> def next_state(x, u, out):
    ...     out[0] = 0.9 * x[0] + u[0]
    >>> def next_tangent(x, u, dx, du, out):
    ...     out[0] = 0.9 * dx[0] + du[0]
    >>> ScalarStepper(next_state, next_tangent, 1, 1).step(np.array([[2.0]]), np.array([[1.0]]))
    array([[2.8]])
    """

    next_state: Scalar
    next_tangent: Scalar
    state_size: int
    control_size: int

    def __post_init__(self) -> None:
        check_callable("next_state", self.next_state)
        check_callable("next_tangent", self.next_tangent)
        check_count("state_size", self.state_size)
        check_count("control_size", self.control_size)
        n, k = self.state_size, self.control_size
        check_scalar("next_state", self.next_state, n, k, n)
        check_scalar("next_tangent", self.next_tangent, n, k, n, k, n)

    @property
    def scalar(self) -> StepFunctions | None:
        """What the compiled march of a `Rollout` calls; None for a subclass."""
        return self._one.functions() if type(self) is ScalarStepper else None

    def step(self, x: Array, u: Array) -> Array:
        """Return x_next (b, |x|)."""
        return self._one.advanced(x, u)

    def tangent(self, x: Array, u: Array, dx: Array, du: Array) -> Array:
        """Return dx_next (b, |x|)."""
        return self._one.along(x, u, dx, du)

    @property
    def _one(self) -> OneSample:
        functions = plain_step(self.next_state, self.next_tangent)
        return OneSample(*functions, self.state_size, self.control_size, (0.0,), 1)
