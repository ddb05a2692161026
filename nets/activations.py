"""Elementwise activations: value, and derivative written in terms of the value."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from higcore.backend import Array, module_of


class Activation(NamedTuple):
    """``value(z)`` and ``slope(a)``, the derivative at the z for which a = value(z)."""

    value: Callable[[Array], Array]
    slope: Callable[[Array], Array]


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
