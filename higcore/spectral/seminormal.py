r"""f(K) g, K = J J^T, to the accuracy of J itself, where J is not too ill-conditioned: no triangle.

With partial fractions of f(s) / s in s^2 (`rational`), the step is one of shifted systems,

    V f(S) U^T g = J^T c,   c = c_0 g + sum_j c_j x_j,   (K + p_j I) x_j = g.

K = Q T Q^T is reduced to a tridiagonal matrix as in `tridiagonal`, which commits errors of
eps max(K). They matter to shifts p_j that are small, and there they are corrected: by the residual
of the equation, formed from J and not from K,

    x_j <- x_j + Q (T + p_j)^(-1) Q^T (g - J (J^T x_j) - p_j x_j).

One correction leaves the square of the relative error that it found, two its cube. These are the
corrected seminormal equations for minimal norms. In them x itself stays inexact, to eps cond(J)^2,
but J^T x does not: its rounding errors e, eps cond(J) |J^T x| in size, change the residual by J e
and the next J^T x by J^T (K + p)^(-1) J e, which is no more than e. So J^T c has an error of
eps cond(J), as through a triangle of J.

Accuracy: about eps max(S) / min(S) in the step, and 1e-12 from the fractions; shifts above
max(S) min(S) need no correction for that. The min(S) that is told is T's: eps cond(J)^2.
Cost: K, 4/3 n^3 operations for T, and 4 m t, or less by J's factors, for every correction of every
small shift, of which a power has some twenty, in matrix products; another f or g costs only these.
A triangle of J takes 2 m^2 t.

References
----------
Bjorck, Stability analysis of the method of seminormal equations for linear least squares problems,
Linear Algebra Appl. 88/89 (1987).
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np
from scipy.linalg import lapack

from ..backend import Array, is_host
from ..kernels import lazy_njit
from .filters import Filter
from .inplace import call
from .spectrum import EPS, DecompositionError, HalfInverseInfo, gap, require
from .squared import gram
from .tridiagonal import reduce, reflect

Jacobian: TypeAlias = Any  # one of `linearisation`

LEAST_ROWS = 16  # below, a triangle takes no longer
WORST = 2e-8  # min(S) / max(S) from which T knows min(S) to a digit
LARGEST = 0.1  # relative, of that error and of corrections, each of which is the next one's factor
DONE = 1e-2  # of eps cond(J), the size from which a correction is not made again
MOST_CORRECTIONS = 8


class ShiftedSystems(NamedTuple):
    """J, K = Q T Q^T by reflectors and diagonals, min(S) and max(S), g (m,) and w = Q^T g."""

    J: Jacobian
    reflectors: np.ndarray
    scales: np.ndarray
    diagonal: np.ndarray
    off_diagonal: np.ndarray
    sigma_min: float
    sigma_max: float
    g: np.ndarray
    w: np.ndarray

    def apply(self, f: Filter, method: str) -> tuple[Array, HalfInverseInfo]:
        """Return V f(S) U^T g (t,), and what is to be said of it.

        Raises `DecompositionError` where f cuts modes, or has no good fractions.
        """
        largest, least = self.sigma_max, self.sigma_min * (1 - self._spoilt())
        resolution = EPS * self.J.shape[1]
        fractions, ends = f.fractions(least**2, largest**2), np.array([least, largest])
        same = np.allclose(fractions(ends**2), f.over_sigma(np, ends, resolution), 1e-6, 0.0)
        require(same, "f cuts modes, or is another one of the smallest")
        constant, poles, residues, _ = fractions
        y = self._solve(poles, self.w[:, None])
        total = y @ residues
        small = poles < largest * least
        if small.any():
            total += self._corrections(poles[small], y[:, small], largest / least) @ residues[small]
        reflect(self.reflectors, self.scales, total, True)
        c = constant * self.g + total
        cutoff = f.cutoff(largest, resolution)
        return self.J.rmatvec(c), HalfInverseInfo(
            method,
            rank=len(c),
            sigma_max=self.sigma_max,
            sigma_min=self.sigma_min,
            cutoff=cutoff,
            gap_to_cutoff=gap(np.array([self.sigma_min]), cutoff),
            detail=f"{len(poles)} poles, {small.sum()} of them corrected",
        )

    def _spoilt(self):
        """What squaring may have changed the smallest mode by, and solutions, relative to them."""
        return min(len(self.g) * EPS * (self.sigma_max / self.sigma_min) ** 2, LARGEST)

    def of(self, g: Array) -> ShiftedSystems:
        """Return it for another g (m,)."""
        return self._replace(g=g, w=_along(self.reflectors, self.scales, g))

    def _corrections(self, poles, y, condition):
        """What is missing in y (n, k), (K + poles) Q y = g, by what J says of the residuals."""
        corrections, first = np.zeros_like(y), 0.0
        for _ in range(MOST_CORRECTIONS):
            x = self._rotate(y + corrections, "N")
            residuals = self.g[:, None] - self.J.gram_product(x) - poles * x
            dy = self._solve(poles, self._rotate(residuals, "T"))
            corrections += dy
            size = _largest_ratio(dy, y)
            first = first or size
            require(size <= self._spoilt(), "a correction is too large")
            if first * size <= DONE * EPS * condition:  # the size of the next ones
                return corrections
        raise DecompositionError("corrections do not get small")

    def _solve(self, shifts, w):
        """(T + shifts_j)^(-1) w_j for w (n, k), or for one w (n, 1), as (n, k)."""
        x = np.empty((len(w), len(shifts)))
        x[:] = w
        T, floor = (self.diagonal, self.off_diagonal), self.sigma_min**2 / 2
        _solve_shifted(*T, shifts, floor, x, np.empty_like(x))
        return x

    def _rotate(self, x, side):
        """Q x if ``side`` is "N", Q^T x if it is "T", as a new array (n, k)."""
        x = np.array(x, order="F")
        n, k = x.shape
        work = np.empty(64 * k + 65 * 64)
        info = call(
            "dormtr", "L", "L", side, n, k, self.reflectors, n, self.scales, x, n, work, len(work)
        )  # fmt: skip
        require(info == 0, f"dormtr failed with info = {info}")
        return x


def decompose(J: Jacobian, g: Array) -> ShiftedSystems:
    """Reduce K = J J^T of an operator J (m, t), m <= t, for g (m,), on the host.

    Raises `DecompositionError` where J is too ill-conditioned.
    """
    require(is_host(J.where) and J.shape[0] >= LEAST_ROWS, "few rows, or not on the host")
    K = gram(J)
    trace = float(K.trace())
    require(np.isfinite(trace), "K holds NaN or Inf")
    reflectors, diagonal, off_diagonal, scales = reduce(K)
    missed = abs(diagonal.sum() - trace)
    require(missed <= 100 * len(g) * EPS * trace, "T misses the trace of K")
    least, largest = _extremes(diagonal, off_diagonal)
    require(least > WORST**2 * largest, "J is too ill-conditioned to be squared")
    w = _along(reflectors, scales, g)
    return ShiftedSystems(
        J, reflectors, scales, diagonal, off_diagonal, least**0.5, largest**0.5, g, w
    )


def _extremes(diagonal, off_diagonal):
    """The least and the largest eigenvalue of T: where nothing is cut, no other is asked for.

    By bisection, or by QL where rounding of equal ones leads bisection astray.
    """
    T = diagonal, off_diagonal
    found = [lapack.dstebz(*T, 2, 0.0, 0.0, k, k, 0.0, "E") for k in (1, len(diagonal))]
    if all(info == 0 for *_, info in found):
        return tuple(float(values[0]) for _, values, *_ in found)
    values, info = lapack.dsterf(*T)
    require(info == 0, f"dsterf failed with info = {info}")
    return float(values[0]), float(values[-1])


def _along(reflectors, scales, g):
    """Q^T g."""
    w, norm = g.copy(), np.linalg.norm(g)
    reflect(reflectors, scales, w, False)
    off_length = abs(np.linalg.norm(w) - norm)
    require(off_length <= 100 * len(g) * EPS * norm, "Q is not orthogonal")
    return w


def _largest_ratio(dy, y):
    """The largest |dy_j| / |y_j|; NaN if there is one."""
    sizes = np.linalg.norm(y, axis=0)
    return float((np.linalg.norm(dy, axis=0) / np.where(sizes > 0, sizes, 1.0)).max())


@lazy_njit
def _solve_shifted(diagonal, off_diagonal, shifts, floor, x, pivots):
    """x <- (T + shifts)^(-1) x by T + shift I = L D L^T, all shifts side by side.

    T + shift I is positive definite: no pivot is exchanged, and none is below its least eigenvalue.
    That of T is above the ``floor``, which keeps rounding errors from making a pivot 0.
    """
    n, k = x.shape
    for j in range(k):
        pivots[0, j] = max(diagonal[0] + shifts[j], floor)
    for i in range(1, n):
        for j in range(k):
            factor = off_diagonal[i - 1] / pivots[i - 1, j]
            pivots[i, j] = max(diagonal[i] + shifts[j] - factor * off_diagonal[i - 1], floor)
            x[i, j] -= factor * x[i - 1, j]
    for j in range(k):
        x[n - 1, j] /= pivots[n - 1, j]
    for i in range(n - 2, -1, -1):
        for j in range(k):
            x[i, j] = (x[i, j] - off_diagonal[i] * x[i + 1, j]) / pivots[i, j]
