"""What a network inside a time loop sees of a state, and what of the trajectory is y."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from higcore.backend import Array, module_of
from higcore.validation import check_count, check_flag

FROM_THE_END = -(2**62)  # how far below 0 a number that counts from the end may be


@dataclass(frozen=True)
class Seen:
    """z = what a network sees: components of the state, the time, and what each sample is given.

    Parameters
    ----------
    state : sequence of int, optional
        The components of x that it sees, by default all.
    time : bool
        Whether it sees the share of the march that is over, s / steps.
    given : int
        How many numbers it sees that do not change, the width of the batch's ``net_input``.

    Notes
    -----
    An object of one's own has ``given`` and the three methods; ``pull`` is the transpose of the
    derivative of ``look`` in x.
    """

    state: Sequence[int] | None = None
    time: bool = False
    given: int = 0

    def __post_init__(self) -> None:
        check_flag("time", self.time)
        check_count("given", self.given, 0)
        if self.state is not None:
            object.__setattr__(self, "state", _numbers("state", self.state, 0))

    def width(self, n: int) -> int:
        """|z| for states of n components."""
        return len(self.components(n)) + int(self.time) + self.given

    def look(self, x: Array, share: Array, given: Array) -> Array:
        """Return z (b, |z|) for x (b, n), the share of the march (b, 1) and what is given."""
        parts = [x if self.state is None else x[:, self.components(x.shape[1])]]
        parts += [share] * self.time + [given] * (self.given > 0)
        return parts[0] if len(parts) == 1 else module_of(x).concatenate(parts, axis=1)

    def pull(self, x: Array, z_bar: Array) -> Array:
        """Return x_bar (b, r, n) of z_bar (b, r, |z|)."""
        if self.state is None:
            return z_bar[:, :, : x.shape[1]]
        x_bar = module_of(x).zeros((*z_bar.shape[:2], x.shape[1]), z_bar.dtype)
        for position, component in enumerate(self.state):
            x_bar[:, :, component] += z_bar[:, :, position]
        return x_bar

    def components(self, n: int) -> list[int]:
        """Those of a state of n components that are seen."""
        if self.state is None:
            return list(range(n))
        if beyond := [component for component in self.state if component >= n]:
            raise ValueError(f"state must list components below {n}, those of x; got {beyond[0]}")
        return list(self.state)


@dataclass(frozen=True)
class AtTimes:
    """y = components of the states at some steps, one step after the other.

    Parameters
    ----------
    times : sequence of int
        0 is the start, ``steps`` the end, and -1, too; by default the end alone.
    components : sequence of int, optional
        Those of x, by default all.

    Notes
    -----
    A function of the trajectory of one's own has the four methods; ``tangent`` is the derivative of
    ``value``, ``pull`` its transpose. X (steps + 1, b, n) holds the states.
    """

    times: Sequence[int] = (-1,)
    components: Sequence[int] | None = None

    def __post_init__(self) -> None:
        for name in ("times", "components"):
            if (chosen := getattr(self, name)) is not None:
                object.__setattr__(self, name, _numbers(name, chosen, FROM_THE_END))

    def width(self, steps: int, n: int) -> int:
        """|y|."""
        for name, numbers, limit in (
            ("times", self.times, steps + 1),
            ("components", self.components or (), n),
        ):
            if beyond := [number for number in numbers if not -limit <= number < limit]:
                raise ValueError(f"{name} must lie below {limit}, got {beyond[0]}")
        return len(self.times) * len(self._chosen(n))

    def value(self, X: Array) -> Array:
        """Return y (b, |y|)."""
        chosen = X[list(self.times)][:, :, self._chosen(X.shape[2])]  # (times, b, components)
        return module_of(X).ascontiguousarray(chosen.swapaxes(0, 1)).reshape(X.shape[1], -1)

    def tangent(self, X: Array, dX: Array) -> Array:
        """Return dy (b, |y|) along dX."""
        return self.value(dX)

    def pull(self, X: Array, y_bar: Array) -> Array:
        """Return X_bar (steps + 1, b, r, n) of y_bar (b, r, |y|)."""
        (steps, b, n), r = X.shape, y_bar.shape[1]
        X_bar = module_of(X).zeros((steps, b, r, n), y_bar.dtype)
        chosen = self._chosen(n)
        parts = y_bar.reshape(b, r, len(self.times), len(chosen))
        for k, time in enumerate(self.times):
            for j, component in enumerate(chosen):
                X_bar[time, :, :, component] += parts[:, :, k, j]
        return X_bar

    def _chosen(self, n):
        return list(range(n)) if self.components is None else list(self.components)


def _numbers(name, chosen, least):
    """A list of integers as a tuple of Python's."""
    if isinstance(chosen, str) or not hasattr(chosen, "__len__") or len(chosen) == 0:
        raise TypeError(f"{name} must be a list of integers, at least one, got {chosen!r}")
    for number in chosen:
        check_count(name, number, least)
    return tuple(map(int, chosen))
