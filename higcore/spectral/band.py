r"""f(K) z through a band matrix: K = Q B Q^T, and f(B) = B^(-p) as a sum of banded solves.

The reduction (`reduction`) is rich in products of large matrices. On the band no eigenvalue is
needed where nothing is cut: with a = min(lambda), b = max(lambda) from a few Lanczos steps,

    B^(-p) w ~ c_0 w + sum_j c_j (B + s_j I)^(-1) w           (`rational`, about 40 solves).

Modes up to the cutoff are counted by the signs of the pivots of B - cutoff^2 I (Sylvester's law of
inertia). A few of them are found by inverse Lanczos iteration and projected out; with many, or any
doubt about the few, the band is chased on to a tridiagonal matrix, whose eigenvalues come cheaply.

Accuracy: as `gram`, about eps / tau^2 in the step, and 1e-12 from the fractions.
Cost: 4/3 n^3 operations for the reduction (2 n^3 on a GPU), n width^2 for each solve. The band is
small, n width numbers: on a GPU, K is reduced there and the band solved on the host.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any

import numpy as np
import scipy.sparse.linalg as sla
from scipy.linalg import blas

from ..backend import Array, module_of, to_host
from ..device.threads import computed_once, run_threaded
from ..kernels import lazy_njit
from . import panels
from .filters import Filter
from .inplace import call
from .reduction import Chase, chase_to_tridiagonal, reduce_to_band
from .spectrum import (
    EPS,
    SQUARED_RESOLUTION,
    DecompositionError,
    HalfInverseInfo,
    check_gram,
    gap,
    info_of,
    require,
)
from .tridiagonal import Diagonal, diagonalise

NAME = "band"
WORKSPACE = 3.8, 3.6  # numbers held at the peak over n^2, K included: on the host, on a device

WIDE, NARROW, WIDE_FROM = 64, 32, 1500  # widths of the band; measured
MANY = 32  # modes below the cutoff from which the tridiagonal matrix is cheaper
LANCZOS_FROM = 128  # rows from which Lanczos is worth its overhead


class NotApplicable(Exception):
    """Fractions are not worth it, or not safe; the tridiagonal matrix decides."""


@dataclass(frozen=True, eq=False)
class Band:
    """K = Q B Q^T: the reflectors of Q, the band of B, and w = Q^T z.

    What one f needs of the eigenvalues is kept for the next.
    """

    reduction: Any  # of `reduction`, or of `panels`
    B: np.ndarray
    w: np.ndarray
    trace: float
    xp: ModuleType
    known: dict[float, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)

    def apply(self, f: Filter) -> tuple[Array, HalfInverseInfo]:
        """Return f(S) / S of K applied to z, and what is to be said of it."""
        try:
            w, info = self._by_fractions(f)
        except NotApplicable as reason:
            w, info = self._through_tridiagonal(f, reason)
        return self.reduction.rotate(self.xp.asarray(w), True), info

    def of(self, z: Array) -> Band:
        """Return it for another z (n,); what is known of B stays known."""
        w = to_host(self.reduction.rotate(z.copy(), False))
        other = replace(self, w=w)
        if "largest" in self.__dict__:
            other.__dict__["largest"] = self.largest
        if "chased" in self.__dict__:
            chase, T = self.chased
            other.__dict__["chased"] = chase, T.of(chase.rotate(w.copy(), False))
        return other

    @computed_once
    def largest(self) -> float:
        """Largest eigenvalue of B."""
        if self.B.shape[1] < LANCZOS_FROM:
            raise NotApplicable("few rows")
        largest: float = _largest(self.B)
        return largest

    @computed_once
    def chased(self) -> tuple[Chase, Diagonal]:
        """B as a tridiagonal matrix, diagonalised for w."""
        w = self.w.copy()
        chase = chase_to_tridiagonal(self.B, w)
        return chase, diagonalise(*chase[:2], w, self.trace)

    def lowest(self, cutoff: float) -> tuple[np.ndarray, np.ndarray]:
        """Eigenvalues up to cutoff^2 and the one above them, ascending, and the vectors of all."""
        if cutoff not in self.known:
            self.known[cutoff] = _lowest(self.B, cutoff * cutoff, self.largest)
        return self.known[cutoff]

    def _by_fractions(self, f):
        """f(S) / S of B applied to w: the few modes up to the cutoff one by one, the others by
        partial fractions."""
        largest = self.largest
        cutoff = f.cutoff(largest**0.5, SQUARED_RESOLUTION)
        values, vectors = self.lowest(cutoff)
        below, sigma = len(values) - 1, np.sqrt(np.maximum(values, 0.0))
        low = vectors[:, :below]
        along = low.T @ self.w
        fractions = _fractions(f, float(values[below]), largest)
        w = _sum_of_solves(self.B, self.w - low @ along, fractions)
        weights = f.over_sigma(np, np.append(sigma[:below], largest**0.5), SQUARED_RESOLUTION)
        w += low @ (weights[:below] * along)
        detail = f"{len(fractions.poles)} poles, {below} modes projected out"
        rank, least, distance = len(w) - below, float(values[below]) ** 0.5, gap(sigma, cutoff)
        return w, HalfInverseInfo(NAME, rank, largest**0.5, least, cutoff, distance, detail=detail)

    def _through_tridiagonal(self, f, reason):
        """The same on the band, which is chased on to a tridiagonal matrix."""
        chase, T = self.chased
        detail = f"{reason}: chased to a tridiagonal matrix"
        cutoff = f.cutoff(float(T.sigma.max()), SQUARED_RESOLUTION)
        return chase.rotate(T.apply(f), True), info_of(NAME, T.sigma, cutoff, detail)


def decompose(K: Array, z: Array) -> Band:
    """Reduce K (n, n) to a band for z (n,), both float64.

    K, C-contiguous, is overwritten; on the host it need only be defined on and above the diagonal.
    """
    check_gram(K, z)
    xp, trace, norm_z = module_of(K), float(K.trace()), np.linalg.norm(to_host(z))
    width = _width(len(K))
    reduction = reduce_to_band(K.T, width) if xp is np else panels.reduce_to_band(xp, K, width)
    B = reduction.band()
    w = to_host(reduction.rotate(z.copy(), False))
    tolerance = 100 * len(K) * EPS
    require(abs(B[0].sum() - trace) <= tolerance * abs(trace), "the band misses the trace of K")
    require(abs(np.linalg.norm(w) - norm_z) <= tolerance * norm_z, "Q is not orthogonal")
    return Band(reduction, B, w, trace, xp)


def _width(n):
    return min(WIDE if n >= WIDE_FROM else NARROW, max(n // 8, 1))


def _lowest(band, level, largest):
    """Eigenvalues up to ``level`` and the one above them, and their eigenvectors, if few."""
    below = _count_below(band, level)
    if below > MANY:
        raise NotApplicable(f"{below} modes below the cutoff")
    values, vectors = _smallest(band, below + 1, largest, definite=below == 0)
    if (values <= level).sum() != below:
        raise NotApplicable("eigenvalues at the cutoff do not agree with their number")
    return values, vectors


def _fractions(f, least, largest):
    try:
        return f.fractions(least, largest)
    except DecompositionError as error:
        raise NotApplicable(str(error)) from error


def _sum_of_solves(band, w, fractions):
    """(c_0 + sum_j c_j (B + s_j I)^(-1)) w; the solves are spread over the cores."""
    terms = [fractions.constant * w, *fractions.residues]

    def solve(j):
        terms[j + 1] *= _solve(_cholesky(band, fractions.poles[j]), w)

    run_threaded(solve, range(len(fractions.poles)))
    if len(fractions.poles):
        _check_solve(band, fractions.poles[0], w)
    total = sum(terms)
    require(np.isfinite(total).all(), "a banded solve gave NaN or Inf")
    return total


def _check_solve(band, pole, w):
    """The worst conditioned solve must reproduce its right-hand side."""
    x = _solve(_cholesky(band, pole), w)
    residual = np.linalg.norm(_multiply(band, x) + pole * x - w)
    size = np.abs(band).max() * np.linalg.norm(x)
    require(residual <= 100 * band.shape[1] * EPS * size, "a banded solve misses its equation")


def _largest(band):
    """Largest eigenvalue of B, by Lanczos iteration."""
    return float(_lanczos(band, 1, which="LA", return_eigenvectors=False)[0])


def _smallest(band, count, largest, definite):
    """The ``count`` smallest eigenvalues (ascending) and eigenvectors, by inverse Lanczos."""
    n = band.shape[1]
    shift = 0.0 if definite else n * EPS * largest
    factor = _cholesky(band, shift)
    inverse = sla.LinearOperator((n, n), matvec=lambda x: _solve(factor, x), dtype=float)
    values, vectors = _lanczos(band, count, sigma=-shift, OPinv=inverse, which="LM")
    order = np.argsort(values)
    return values[order], vectors[:, order]


def _lanczos(band, count, **options):
    n = band.shape[1]
    B = sla.LinearOperator((n, n), matvec=lambda x: _multiply(band, x), dtype=float)
    start = np.random.default_rng(0).standard_normal(n)
    try:
        return sla.eigsh(B, count, v0=start, maxiter=100, **options)
    except sla.ArpackError as error:
        raise NotApplicable("Lanczos iteration did not converge") from error


def _multiply(band, x):
    return blas.dsbmv(len(band) - 1, 1.0, band, x, lower=1)


def _cholesky(band, shift):
    """Cholesky factor of B + shift I as a band; runs without the interpreter lock."""
    factor = band.copy(order="F")
    factor[0] += shift
    rows, n = band.shape
    if call("dpbtrf", "L", n, rows - 1, factor, rows) != 0:
        raise NotApplicable("K is not positive definite to rounding")
    return factor


def _solve(factor, w):
    """(B + shift I)^(-1) w by the factor of `_cholesky`; runs without the interpreter lock."""
    rows, n = factor.shape
    x = w.copy()
    call("dpbtrs", "L", n, rows - 1, 1, factor, rows, x, n)
    return x


def _count_below(band, level):
    """Number of eigenvalues of B below ``level``."""
    try:
        _cholesky(band, -level)
    except NotApplicable:
        return int(_negative_pivots(band.T.copy(order="C"), level))
    return 0


@lazy_njit(sums_in_any_order=True)
def _negative_pivots(columns, level):
    """Negative pivots of L D L^T = B - level I; columns [j, d] = B[j + d, j] is overwritten."""
    n, width = columns.shape[0], columns.shape[1] - 1
    count = 0
    for j in range(n):
        pivot = columns[j, 0] - level
        if pivot < 0.0:
            count += 1
        if pivot == 0.0:  # the level is an eigenvalue of a leading part: pass it on either side
            pivot = level * 1e-16
        for i in range(1, min(width, n - 1 - j) + 1):
            scale = columns[j, i] / pivot
            for k in range(i, min(width, n - 1 - j) + 1):
                columns[j + i, k - i] -= scale * columns[j, k]
    return count
