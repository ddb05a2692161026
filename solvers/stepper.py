"""One time step x -> step(x, u) of a physics that a network acts on while it goes on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from higcore.backend import Array, module_of
from higcore.validation import check_array

from .march import StepFunctions

AT_ONCE = 2**17  # numbers of a Jacobian made of tangents at a time, each in some ten arrays


class Stepper:
    """x_(s+1) = step(x_s, u_s), sample by sample: states (b, |x|), controls (b, |u|).

    A subclass has the numbers ``state_size`` and ``control_size`` and gives

    - ``step(x, u) -> x_next`` (b, |x|),

    and one derivative with respect to both arguments:

    - ``tangent(x, u, dx, du) -> dx_next`` = A dx + B du, or
    - ``adjoint(x, u, next_bar) -> (x_bar, u_bar)`` = (A^T next_bar, B^T next_bar), or
    - ``jacobian(x, u) -> (A, B)``, A (b, |x|, |x|) and B (b, |x|, |u|).

    The others follow. Several directions or cotangents a sample come as so many samples, in one
    call, so nothing but (b, |x|) and (b, |u|) has to be thought of. `check_stepper` examines it.

    A and B of all steps are made at once for a pass back, and where |x| <= 64 for one of fewer than
    |x| cotangents, too: with small steps that saves calls. A stepper to which a derivative is worth
    more than a call has a ``largest_closed`` of its own in place of 64.

    Raises
    ------
    TypeError
        When a subclass is defined that gives too little; the message says what is missing.
    """

    if TYPE_CHECKING:  # numbers that a subclass has as attributes or as properties

        @property
        def state_size(self) -> int: ...
        @property
        def control_size(self) -> int: ...

        def step(self, x: Array, u: Array) -> Array: ...

    @property
    def scalar(self) -> StepFunctions | None:
        """The same step as functions that a kernel calls; None, the default, where there are none.

        Then a `Rollout` marches in array code, else compiled, where it can.
        """
        return None

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if not hasattr(cls, "step"):
            raise TypeError(f"stepper {cls.__name__} must give step(x, u) -> x_next (b, |x|)")
        if not any(_gives(cls, name) for name in ("tangent", "adjoint", "jacobian")):
            raise TypeError(
                f"stepper {cls.__name__} must give a derivative beside step: "
                "tangent(x, u, dx, du) -> dx_next, or adjoint(x, u, next_bar) -> (x_bar, u_bar), "
                "or jacobian(x, u) -> (A, B)"
            )

    def tangent(self, x: Array, u: Array, dx: Array, du: Array) -> Array:
        """Return dx_next (b, |x|) = A dx + B du."""
        A, B = self.jacobian(x, u)
        return (A @ dx[:, :, None] + B @ du[:, :, None])[:, :, 0]

    def adjoint(self, x: Array, u: Array, next_bar: Array) -> tuple[Array, Array]:
        """Return x_bar (b, |x|) and u_bar (b, |u|) of cotangents next_bar (b, |x|)."""
        A, B = self.jacobian(x, u)
        return (next_bar[:, None] @ A)[:, 0], (next_bar[:, None] @ B)[:, 0]

    def jacobian(self, x: Array, u: Array) -> tuple[Array, Array]:
        """Return A (b, |x|, |x|) = d x_next / dx and B (b, |x|, |u|) = d x_next / du.

        By default from |x| adjoints or |x| + |u| tangents of every sample, in one call.
        """
        n = self.state_size
        if _gives(type(self), "adjoint"):
            xp = module_of(x)
            identity = xp.broadcast_to(xp.eye(n, dtype=x.dtype), (len(x), n, n))
            return self.pull(x, u, identity)
        size, parts = max(1, AT_ONCE // (n * (n + self.control_size))), []
        for lo in range(0, len(x), size):
            parts.append(self._push_units(x[lo : lo + size], u[lo : lo + size]))
        columns = module_of(x).concatenate(parts).swapaxes(1, 2)  # (b, |x|, |x| + |u|)
        return columns[:, :, :n], columns[:, :, n:]

    def _push_units(self, x, u):
        """Tangents along every direction of x, then of u, (b, |x| + |u|, |x|)."""
        xp, count = module_of(x), self.state_size + self.control_size
        units = xp.tile(xp.eye(count, dtype=x.dtype), (len(x), 1))
        dx, du = units[:, : self.state_size], units[:, self.state_size :]
        x, u = _repeated(xp, count, x, u)
        along = self.tangent(x, u, dx, du)
        check_array("dx_next = tangent(x, u, dx, du)", along, dx.shape)
        return along.reshape(-1, count, self.state_size)

    def pull(self, x: Array, u: Array, next_bar: Array) -> tuple[Array, Array]:
        """Return x_bar (b, r, |x|) and u_bar (b, r, |u|) of r cotangents a sample."""
        if not _gives(type(self), "adjoint"):
            A, B = self.jacobian(x, u)
            return next_bar @ A, next_bar @ B  # (b, r, |x|) x (b, |x|, |x| or |u|)
        b, r, n = next_bar.shape
        x, u = _repeated(module_of(x), r, x, u)
        bars = self.adjoint(x, u, next_bar.reshape(b * r, n))
        if not isinstance(bars, tuple) or len(bars) != 2:
            kind = type(bars).__name__
            raise TypeError(f"adjoint(x, u, next_bar) must return (x_bar, u_bar), got {kind}")
        x_bar, u_bar = bars
        check_array("x_bar of adjoint(x, u, next_bar)", x_bar, x.shape)
        check_array("u_bar of adjoint(x, u, next_bar)", u_bar, u.shape)
        return x_bar.reshape(b, r, n), u_bar.reshape(b, r, -1)


def _repeated(xp, count, *arrays):
    """Every sample so many times, one after the other."""
    return tuple(xp.repeat(array, count, axis=0) for array in arrays)


def _gives(cls, name):
    """True if a subclass has a method of its own in place of the default."""
    return getattr(cls, name) is not getattr(Stepper, name)


@dataclass(frozen=True)
class StepOf(Stepper):
    """The step of a solver that marches: a solver of one step, with derivatives in x as well.

    ``solver`` has ``solve(x, u)``, ``tangent_of_both(x, u, dx, du)`` and
    ``pull_both(x, u, y_bar) -> (x_bar, u_bar)`` for cotangents (b, r, |x|), and may have
    ``step_functions()``, the step as a compiled march calls it.
    """

    solver: Any

    @property
    def state_size(self) -> int:
        """|x|."""
        size: int = self.solver.state_size
        return size

    @property
    def control_size(self) -> int:
        """|u|."""
        size: int = self.solver.control_size
        return size

    @property
    def scalar(self) -> StepFunctions | None:
        """What the compiled march of a `Rollout` calls, None if the solver does not say."""
        found: StepFunctions | None = getattr(self.solver, "step_functions", lambda: None)()
        return found

    def step(self, x: Array, u: Array) -> Array:
        """Return x_next (b, |x|)."""
        return self.solver.solve(x, u)

    def tangent(self, x: Array, u: Array, dx: Array, du: Array) -> Array:
        """Return dx_next (b, |x|)."""
        return self.solver.tangent_of_both(x, u, dx, du)

    def adjoint(self, x: Array, u: Array, next_bar: Array) -> tuple[Array, Array]:
        """Return x_bar (b, |x|) and u_bar (b, |u|)."""
        x_bar, u_bar = self.pull(x, u, next_bar[:, None])
        return x_bar[:, 0], u_bar[:, 0]

    def pull(self, x: Array, u: Array, next_bar: Array) -> tuple[Array, Array]:
        """Return x_bar (b, r, |x|) and u_bar (b, r, |u|), one sweep for all r."""
        x_bar, u_bar = self.solver.pull_both(x, u, next_bar)
        return x_bar, u_bar
