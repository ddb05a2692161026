"""Units for J and g in which their squares neither overflow nor vanish.

J = 2^e J' and g = 2^f g', powers of two, which change no digit. What is of ordinary size is left
as it is, and K or a norm, which a method needs anyway, tells whether it is: that costs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias, TypeVar

import numpy as np

from ..backend import Array, module_of
from ..validation import NonFiniteError, check_finite

# Sizes from 2^-n to 2^n are ordinary: even |K^-1 g|^2 is a number then, for a K cut at its noise.
ORDINARY = {np.dtype(np.float32): 50, np.dtype(np.float64): 200}

OF_ZERO = -10_000  # an exponent below those of all numbers, products of them included

T = TypeVar("T")
Jacobian: TypeAlias = Any  # one of `linearisation`, which imports this module


def is_ordinary(size: float, dtype: np.dtype) -> bool:
    """True for a size whose powers are numbers too; not for NaN. The dtype is that of J."""
    largest = 2.0 ** ORDINARY[dtype]
    return 1 / largest < size < largest


def exponents_of(sizes: np.ndarray) -> np.ndarray:
    """e with 2^(e-1) <= size < 2^e for sizes of parts of J; that of 0 is `OF_ZERO`."""
    if not np.isfinite(sizes).all():
        raise NonFiniteError("J holds NaN or Inf; every entry must be finite")
    return np.where(sizes > 0, np.frexp(sizes)[1], OF_ZERO)


def largest_exponent(exponents: Iterable[int]) -> int:
    """The largest of `exponents_of`, 0 if they are all of zeros."""
    largest = max(exponents)
    return largest if largest > OF_ZERO / 2 else 0


def norm(J: Jacobian) -> float:
    """The Frobenius norm of J, of ordinary size."""
    return math.sqrt(J.norm_squared())


def root_of_trace(K: Array) -> float:
    """The norm by K = J J^T; finite only if K is, for K_ij is at most the mean of K_ii and K_jj."""
    return math.sqrt(float(K.trace()))


def in_reach(
    J: Jacobian, make: Callable[[Jacobian], T], size: Callable[[T], float]
) -> tuple[Jacobian, T, float, int]:
    """Return (J', make(J'), ``size`` of that, e), J = 2^e J', with the size, |J'|, ordinary.

    If that of J itself is, J' is J; if J is 0, so is J'.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        made = make(J)
        found = size(made)
    if is_ordinary(found, J.dtype):
        return J, made, found, 0
    del made  # before the next one takes as much memory
    exponent = J.exponent()
    J = J.scaled(exponent)
    made = make(J)
    return J, made, size(made), exponent


def unit_vector(name: str, vector: Array) -> tuple[Array, int]:
    """Return (g', f), g = 2^f g', float64 and flat, f = 0 if g is of ordinary size, or 0."""
    flat = vector.reshape(-1).astype(np.float64, copy=False)
    largest = float(abs(flat).max())
    if not math.isfinite(largest):
        check_finite(name, vector)
    if largest == 0 or is_ordinary(largest, flat.dtype):
        return flat, 0
    exponent = math.frexp(largest)[1]
    return module_of(flat).ldexp(flat, -exponent), exponent


def times_power_of_two(array: Array, exponent: float) -> Array:
    """``array`` 2^exponent, in place where it may be; Inf or 0 only where that is the result."""
    if exponent == 0:
        return array
    exponent = min(max(exponent, -3000.0), 3000.0)  # beyond, all is Inf or 0
    whole = math.floor(exponent)
    array *= 2.0 ** (exponent - whole)
    return module_of(array).ldexp(array, whole)
