r"""q(x), such as x^(-p), as a sum of simple fractions, so that q(B) w is a sum of solves.

x^(-p), 0 <= p <= 1, is a Stieltjes function, an integral over s > 0 of s^(-p) / (s + x): real poles
-s_j < 0 and a constant approximate it well on any [low, high] of the positive axis,

    q(x) ~ c_0 + sum_j c_j / (x + s_j).

So is 1 / (h x + lambda x^mu), 0 <= mu <= 1, and others that have no singularity but on the negative
axis fare as well.

Poles: those of Zolotarev's best approximation of x^(-1/2), closed in elliptic functions, for an
interval wider than [low, high] at both ends, since other powers put their poles further out (8 to
16 times is best for all p). Coefficients: least squares on Chebyshev points of log x, of the
relative error. About 40 poles give 1e-12 where high / low = 1e8; the rate of convergence is that of
Zolotarev's. A quadrature of the integral with equal steps in log s needs 180.

References
----------
Hale, Higham and Trefethen, Computing A^alpha, log(A) and related matrix functions by contour
integrals, SIAM J. Numer. Anal. 46 (2008): the poles for x^(-1/2).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.special import ellipj, ellipkm1

from ..backend import Array
from .spectrum import require

WIDENING = 12.0
MOST_POLES = 80
WIDER = 1e-8  # relative error of ends that come from Lanczos iteration


class PartialFractions(NamedTuple):
    """q(x) ~ constant + sum_j residues[j] / (x + poles[j]), and its largest relative error."""

    constant: float
    poles: np.ndarray
    residues: np.ndarray
    error: float

    def __call__(self, x: Array) -> Array:
        """Value at the points x (k,)."""
        return self.constant + (self.residues / (x[:, None] + self.poles)).sum(axis=1)


def power_fractions(
    p: float, low: float, high: float, tolerance: float = 1e-12
) -> PartialFractions:
    """The `PartialFractions` of x^(-p) on [low, high] with the fewest poles that suffice."""
    if p == 0:
        return PartialFractions(1.0, np.empty(0), np.empty(0), 0.0)
    if p == 1:
        return PartialFractions(0.0, np.zeros(1), np.ones(1), 0.0)
    constant, poles, residues, error = _unit_power(p, math.floor(math.log2(low / high)), tolerance)
    at_high = high**-p
    return PartialFractions(constant * at_high, poles * high, residues * at_high * high, error)


@functools.lru_cache(maxsize=64)
def _unit_power(p, exponent, tolerance):
    """Those on [2^exponent, 1]; in training, steps ask for the same ones again and again."""
    return fractions_of(lambda x: x**-p, 2.0**exponent, 1.0, f"x^-{p:g}", tolerance)


def fractions_of(
    q: Callable[[Array], Array], low: float, high: float, what: str, tolerance: float = 1e-12
) -> PartialFractions:
    """Those of q(x) > 0 on [low, high]; an error says ``what`` it is."""
    low, high = low * (1 - WIDER), high * (1 + WIDER)
    at_high = q(np.array(high))
    likely = (8 + 3 * int(np.log10(high / low))) * np.log10(tolerance) / -12
    for count in range(max(round(likely), 4), MOST_POLES + 1, 4):
        found = _fit(lambda x: q(high * x) / at_high, low / high, count)
        if found.error <= tolerance:
            break
    require(found.error <= 1e3 * tolerance, f"no good fractions for {what} ({found.error:.0e})")
    constant, poles, residues, error = found  # of x / high
    return PartialFractions(constant * at_high, poles * high, residues * at_high * high, error)


def _fit(q, low, count):
    """Least squares of the relative error on [low, 1]."""
    poles = _zolotarev(low / WIDENING**2, count) * WIDENING
    x = np.exp(np.log(low) * _chebyshev(20 * count))
    sizes = q(poles) * poles  # with which the columns are of the size of q
    basis = np.column_stack([np.ones(len(x)), sizes / (x[:, None] + poles)]) / q(x)[:, None]
    coefficients = np.linalg.lstsq(basis, np.ones(len(x)), rcond=1e-15)[0]
    error = float(np.abs(basis @ coefficients - 1).max())
    return PartialFractions(coefficients[0], poles, coefficients[1:] * sizes, error)


def _chebyshev(count):
    """Points in (0, 1), dense at both ends."""
    return 0.5 - 0.5 * np.cos(np.pi * (np.arange(count) + 0.5) / count)


def _zolotarev(low, count):
    """Poles for x^(-1/2) on [low, 1]: low (sn / cn)^2 at the midpoints of a quarter period."""
    at = (np.arange((count + 1) // 2) + 0.5) / count
    sn, cn, _, _ = ellipj(at * ellipkm1(low), 1 - low)
    lower = low * (sn / cn) ** 2
    # The upper half mirrors the lower one, s -> low / s, where ellipj would lose digits.
    return np.concatenate([lower, (low / lower)[::-1][count % 2 :]])
