"""What every solver offers, built from the little that it must give itself."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

from higcore.backend import Array, array_module
from higcore.validation import check_array, check_arrays


class Solver:
    """y = solver(x, u), sample by sample: states x (b, |x|), controls u (b, |u|), y (b, |y|).

    A subclass has the numbers ``state_size``, ``control_size``, ``output_size`` and gives

    - ``solve(x, u) -> y``,
    - ``adjoint(x, u, y_bar) -> u_bar`` = S^T y_bar for cotangents (b, |y|), or
      ``tangent(x, u, du) -> dy`` = S du for directions (b, |u|), or both,

    S[i] = dy_i/du_i. Everything else follows: S itself takes |y| adjoints or |u| tangents, the
    fewer where both are given. What each default costs is said beside it.

    A subclass that has all of S at once gives ``jacobian(x, u) -> (y, S)``, beside these two or in
    place of them: it is then what every default takes S from. One that keeps what a backward sweep
    needs on a tape of its own is a `TapedSolver`.

    Raises
    ------
    TypeError
        When a subclass is defined that gives too little; the message says what is missing.
    """

    tape_size: int = 0

    if TYPE_CHECKING:  # numbers that a subclass has as attributes or as properties

        @property
        def state_size(self) -> int: ...
        @property
        def control_size(self) -> int: ...
        @property
        def output_size(self) -> int: ...

    def __init_subclass__(cls, complete: bool = True, **options: Any) -> None:
        super().__init_subclass__(**options)
        if complete and (missing := _missing(cls)):
            raise TypeError(f"solver {cls.__name__} {missing}")

    def solve(self, x: Array, u: Array) -> Array:
        """Return y (b, |y|); by default what a `forward` of one's own returns beside the tape."""
        return self.forward(x, u)[0]

    def tangent(self, x: Array, u: Array, du: Array) -> Array:
        """Return dy (b, |y|) = S du for directions du (b, |u|); by default from all of S."""
        array_module(x=x, u=u)
        check_array("du", du, (len(x), self.control_size))
        _, S = self.jacobian(x, u)
        return (S @ du[:, :, None])[:, :, 0]  # (b, |y|, |u|) x (b, |u|, 1)

    def adjoint(self, x: Array, u: Array, y_bar: Array) -> Array:
        """Return u_bar (b, |u|) = S^T y_bar for cotangents y_bar (b, |y|)."""
        array_module(x=x, u=u)
        check_array("y_bar", y_bar, (len(x), self.output_size))
        return self.backward(self.forward(x, u)[1], y_bar)

    def jacobian(self, x: Array, u: Array) -> tuple[Array, Array]:
        """Return y (b, |y|) and S (b, |y|, |u|), S[i] = dy_i/du_i."""
        y, tape = self.forward(x, u)
        if _gives(type(self), "rows"):
            return y, self.rows(tape)
        return y, self._from_products(x, u)  # a jacobian of one's own may call this one

    def forward(self, x: Array, u: Array) -> tuple[Array, Any]:
        """Return y (b, |y|) and the tape, (x, u)."""
        self.check_inputs(x, u)
        y = self.solve(x, u)
        check_array("y = solve(x, u)", y, (len(x), self.output_size))
        return y, (x, u)

    def backward(self, tape: Any, y_bar: Array) -> Array:
        """Pull cotangents back: y_bar (b, |y|) or (b, r, |y|) to u_bar alike.

        One adjoint for each of the r cotangents, or all of S if no adjoint is given or the tape is
        one of its own.
        """
        if _gives(type(self), "adjoint") and not _gives(type(self), "forward"):
            x, u = tape
            u_bar = self._adjoints(x, u, several(y_bar))
        else:
            u_bar = several(y_bar) @ self.rows(tape)  # (b, r, |y|) x (b, |y|, |u|)
        return u_bar.reshape(*y_bar.shape[:-1], self.control_size)

    def rows(self, tape: Any) -> Array:
        """Return S (b, |y|, |u|); of `jacobian`, or from |y| adjoints or |u| tangents."""
        if not _gives(type(self), "jacobian"):
            return self._from_products(*tape)
        x, u = tape
        _, S = self.jacobian(x, u)
        check_array("S of y, S = jacobian(x, u)", S, (len(u), self.output_size, self.control_size))
        return S

    def _from_products(self, x, u):
        """S (b, |y|, |u|) from |y| adjoints or |u| tangents: what is there, or the fewer."""
        cls, size = type(self), self.output_size
        by_adjoints = _gives(cls, "adjoint") or _gives(cls, "backward")
        if _gives(cls, "tangent") and (self.control_size < size or not by_adjoints):
            return self._tangents(x, u)
        xp = array_module(u=u)
        cotangents = xp.broadcast_to(xp.eye(size, dtype=u.dtype), (len(u), size, size))
        if _gives(cls, "backward"):
            return self.backward((x, u), cotangents)
        return self._adjoints(x, u, cotangents)

    def _adjoints(self, x, u, y_bar):
        """(b, r, |u|) from cotangents (b, r, |y|), one after the other."""
        u_bar = array_module(u=u).empty((*y_bar.shape[:2], self.control_size), u.dtype)
        for k in range(y_bar.shape[1]):
            column = self.adjoint(x, u, y_bar[:, k].copy())
            check_array("u_bar = adjoint(x, u, y_bar)", column, u.shape)
            u_bar[:, k] = column
        return u_bar

    def _tangents(self, x, u):
        """S (b, |y|, |u|), one column after the other."""
        xp = array_module(u=u)
        S = xp.empty((len(u), self.output_size, self.control_size), u.dtype)
        for k in range(self.control_size):
            du = xp.zeros_like(u)
            du[:, k] = 1
            column = self.tangent(x, u, du)
            check_array("dy = tangent(x, u, du)", column, S.shape[:2])
            S[:, :, k] = column
        return S

    def check_inputs(self, x: Array, u: Array) -> ModuleType:
        """Return the array module of x and u, or raise naming what is wrong with them."""
        return check_arrays(x=(x, ("b", self.state_size)), u=(u, ("b", self.control_size)))


class TapedSolver(Solver, complete=False):
    """A solver that keeps what a backward sweep needs on a tape of its own.

    A subclass gives

    - ``forward(x, u) -> (y, tape)``,
    - ``rows(tape) -> S`` (b, |y|, |u|),
    - for speed ``backward(tape, y_bar) -> u_bar`` for cotangents (b, |y|) or (b, r, |y|), and
      ``tangent(x, u, du) -> dy``,
    - ``tape_size``, the numbers a sample on the tape, for estimates of memory.
    """


def several(y_bar: Array) -> Array:
    """Cotangents (b, |y|) as one for each sample, (b, 1, |y|); (b, r, |y|) as they are."""
    return y_bar if y_bar.ndim == 3 else y_bar[:, None, :]


def check_tape(tape: Any, *shapes: Sequence[int | str]) -> None:
    """Raise unless ``tape`` has arrays of these shapes, the samples last: compiled sweeps do not.

    A tape of another solver, of fewer steps say, would be read beyond its end.
    """
    if not isinstance(tape, tuple) or len(tape) != len(shapes):
        raise TypeError("tape must be what forward of this solver returned beside y")
    for array, shape in zip(tape, shapes, strict=True):
        check_array("an array of the tape", array, shape)
    if len({array.shape[-1] for array in tape}) > 1:
        raise ValueError(f"tape must be of one batch, got shapes {[a.shape for a in tape]}")


def _gives(cls, name):
    """True if a subclass has a method of its own in place of the default."""
    return getattr(cls, name) is not getattr(Solver, name)


def _missing(cls):
    """What keeps the defaults from working, as the end of a sentence; "" if nothing does."""
    if not (_gives(cls, "solve") or _gives(cls, "forward")):
        return "must give solve(x, u) -> y, with y (b, |y|) for x (b, |x|) and u (b, |u|)"
    derivatives = ("adjoint", "tangent", "jacobian", "backward", "rows")
    if not any(_gives(cls, name) for name in derivatives):
        return (
            "must give a derivative beside solve: adjoint(x, u, y_bar) -> u_bar, or "
            "tangent(x, u, du) -> dy, or both, or jacobian(x, u) -> (y, S)"
        )
    if _gives(cls, "forward") and not _gives(cls, "rows"):
        return (
            "makes a tape of its own in forward, so it must give rows(tape) -> S (b, |y|, |u|), "
            "and for speed backward(tape, y_bar) -> u_bar; or give solve in place of forward"
        )
    return ""
