"""Elementwise activations: value, and derivative written in terms of the value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from higcore.backend import Array, module_of
from higcore.validation import check_reals


class Activation(NamedTuple):
    """``value(z)`` and ``slope(a)``, the derivative at the z for which a = value(z)."""

    value: Callable[[Array], Array]
    slope: Callable[[Array], Array]


@dataclass(frozen=True)
class Bounded:
    """a = low + (high - low) (1 + tanh z) / 2, which stays within its bounds.

    ``low`` and ``high`` are numbers, or tuples of one for each output.
    """

    low: float | tuple[float, ...]
    high: float | tuple[float, ...]

    def box(self, like: Array) -> list[Array]:
        """low, high and their distance, as arrays of the kind of another one."""
        box = self.low, self.high, np.subtract(self.high, self.low).tolist()
        return [module_of(like).asarray(side, dtype=like.dtype) for side in box]

    def value(self, z: Array) -> Array:
        """a at z."""
        xp, (low, high, width) = module_of(z), self.box(z)
        a = low + width * ((1 + xp.tanh(z)) / 2)
        return xp.minimum(xp.maximum(a, low), high)  # where rounding would leave the box

    def slope(self, a: Array) -> Array:
        """da/dz = 2 (a - low) (high - a) / (high - low)."""
        low, high, width = self.box(a)
        return 2 * ((a - low) / width) * (high - a)


def bounded(bounds: object, size: int) -> Bounded:
    """`Bounded` of bounds (low, high), each a number or ``size`` of them."""
    if not isinstance(bounds, (tuple, list)) or len(bounds) != 2:
        raise TypeError(f"bounds must be a tuple (low, high), got {bounds!r}")
    named = zip(("low", "high"), bounds, strict=True)
    low, high = (check_reals(f"{name} of bounds", value, size) for name, value in named)
    if not np.less(low, high).all():
        raise ValueError(f"bounds must have low < high for every output, got {low} and {high}")
    return Bounded(low, high)


def _tanh(z):
    return module_of(z).tanh(z)


def _tanh_slope(a):
    return 1 - a * a


def _relu(z):
    return module_of(z).maximum(z, 0)


def _relu_slope(a):
    return (a > 0).astype(a.dtype)


def _linear(z):
    return z


def _linear_slope(a):
    return module_of(a).ones_like(a)


ACTIVATIONS = {
    "tanh": Activation(_tanh, _tanh_slope),
    "relu": Activation(_relu, _relu_slope),
    "linear": Activation(_linear, _linear_slope),
}
