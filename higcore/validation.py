"""Argument checks whose messages name the argument, what came and what is expected."""

from __future__ import annotations

import math
import numbers
from collections.abc import Collection, Sequence

import numpy as np

from .backend import Array, array_module

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


class NonFiniteError(ValueError):
    """An array that must be finite holds NaN or Inf."""


def check_array(name: str, array: Array, shape: Sequence[int | str]) -> None:
    """Raise unless ``array`` is a float32 or float64 array that fits ``shape``.

    An entry of ``shape`` is an int (exact) or a str (any size >= 1, named in the message).
    """
    array_module(**{name: array})
    if array.dtype not in FLOATS:
        raise TypeError(f"{name} must be a float32 or float64 array, got dtype {array.dtype}")
    fits = len(array.shape) == len(shape) and all(
        isinstance(want, str) or want == have
        for want, have in zip(shape, array.shape, strict=False)
    )
    if fits and 0 not in array.shape:
        return
    expected = "(" + ", ".join(str(n) for n in shape) + ("," if len(shape) == 1 else "") + ")"
    if not fits:
        raise ValueError(f"{name} must have shape {expected}, got {array.shape}")
    raise ValueError(f"{name} is empty: shape {array.shape}, expected {expected} with sizes >= 1")


def check_finite(name: str, array: Array) -> None:
    """Raise `NonFiniteError` if ``array`` holds NaN or Inf; costs one pass over it."""
    xp = array_module(**{name: array})
    if not bool(xp.isfinite(array).all()):
        if array.size == 1:
            raise NonFiniteError(f"{name} is {float(array.reshape(()))}; it must be finite")
        bad = int((~xp.isfinite(array)).sum())
        raise NonFiniteError(
            f"{name} holds {bad} non-finite value(s) (NaN or Inf) of {array.size}; "
            "every entry must be finite"
        )


def check_same_dtype(**arrays: Array) -> None:
    """Raise unless all named arrays share one dtype."""
    dtypes = {name: array.dtype for name, array in arrays.items()}
    if len(set(dtypes.values())) > 1:
        listing = ", ".join(f"{name} is {dtype}" for name, dtype in dtypes.items())
        raise TypeError(f"arrays must share one dtype, but {listing}")


def check_choice(name: str, value: object, known: Collection[str]) -> None:
    """Raise unless ``value`` is one of the strings in ``known``; the message lists them."""
    if not isinstance(value, str) or value not in known:
        listing = ", ".join(repr(k) for k in known)
        raise ValueError(f"{name} must be one of {listing}; got {value!r}")


def check_real(
    name: str,
    value: object,
    low: float = -math.inf,
    high: float = math.inf,
    *,
    open_low: bool = False,
) -> None:
    """Raise unless ``value`` is a finite real number in [low, high], or (low, high] if open_low."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a real number, got {value!r}")
    bracket = "(" if open_low else "["
    number = float(value)
    inside = (low < number if open_low else low <= number) and number <= high
    if not (math.isfinite(number) and inside):
        raise ValueError(
            f"{name} must be a finite number in {bracket}{low:g}, {high:g}], got {value!r}"
        )


def check_count(name: str, value: object, minimum: int = 1) -> None:
    """Raise unless ``value`` is an integer >= minimum."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if value < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {value}")
