r"""Reduction of a symmetric matrix to a band, and of the band to a tridiagonal matrix.

First stage, K = Q B Q^T: the columns left of the band are reflected to zero in panels as wide as
the band; a panel's reflectors I - V T V^T change the rest of the matrix, A, by

    A <- A - V X^T - X V^T,   X = W - V (T^T (V^T W)) / 2,   W = A V T,

which is almost all of the work, 4/3 n^3 operations, in products of large matrices. The one-stage
reduction (LAPACK's dsytrd) does half of it in matrix-vector products, at the speed of memory.

Second stage, B = P T P^T: each column's entries below the subdiagonal are reflected to zero, and
the bulge that this makes is chased down the band; 6 n^2 width operations.

References
----------
Bischof, Lang and Sun, A framework for symmetric band reduction, ACM TOMS 26 (2000).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy.linalg.blas import dgemm

from ..kernels import lazy_njit
from .inplace import call, leading
from .spectrum import require


class BandReduction(NamedTuple):
    """K = Q B Q^T.

    ``factored`` (n, n) holds B in its lower band and the reflectors V below it; ``scales`` the
    triangles T (k, k) of the panels, k = width but for the last.
    """

    factored: np.ndarray
    scales: list[np.ndarray]
    width: int

    def band(self) -> np.ndarray:
        """The lower band of B as (width + 1, n), column by column: [d, j] is B[j + d, j]."""
        n = len(self.factored)
        band = np.zeros((self.width + 1, n), order="F")
        for d in range(min(self.width + 1, n)):
            band[d, : n - d] = self.factored.diagonal(-d)
        return band

    def rotate(self, w: np.ndarray, forward: bool) -> np.ndarray:
        """Q w if ``forward``, else Q^T w; w (n,) is overwritten and returned."""
        panels = list(enumerate(self.scales))
        for p, scales in reversed(panels) if forward else panels:
            first = p * self.width
            V = self.factored[first + self.width :, first:]
            rows, k, part = len(V), len(scales), w[first + self.width :, None]
            work = np.empty(k)
            side = "N" if forward else "T"
            info = call(
                "dgemqrt", "L", side, rows, 1, k, k, V, leading(V), scales, k, part, rows, work
            )
            require(info == 0, f"dgemqrt failed with info = {info}")
        return w


def reduce_to_band(K: np.ndarray, width: int) -> BandReduction:
    """Return the `BandReduction` of K (n, n), Fortran-ordered; its lower half is lost."""
    scales = []
    for first in range(0, len(K) - width, width):
        V, T = _factor_panel(K[first + width :, first : first + width])
        scales.append(T)
        _update_both_sides(K[first + width :, first + width :], V, T)
    return BandReduction(K, scales, width)


def _factor_panel(panel):
    """QR of a panel (rows, width) in place; V (rows, k) written out and T (k, k)."""
    rows, width = panel.shape
    k = min(rows, width)
    T, work = np.zeros((k, k), order="F"), np.empty(k * width)
    info = call("dgeqrt", rows, width, k, panel, leading(panel), T, k, work)
    require(info == 0, f"dgeqrt failed with info = {info}")
    V = np.asfortranarray(np.tril(panel[:, :k], -1))
    V[range(k), range(k)] = 1.0
    return V, T


def _update_both_sides(A, V, T):
    """A <- (I - V T V^T)^T A (I - V T V^T) on the lower triangle; A (r, r), V (r, k)."""
    r, k = V.shape
    VT = dgemm(1.0, V, T)
    W = np.empty((r, k), order="F")
    call("dsymm", "L", "L", r, k, 1.0, A, leading(A), VT, r, 0.0, W, r)
    TVW = dgemm(1.0, T, dgemm(1.0, V, W, trans_a=1), trans_a=1)
    X = dgemm(-0.5, V, TVW, beta=1.0, c=W, overwrite_c=1)
    call("dsyr2k", "L", "N", r, k, -1.0, V, r, X, r, 1.0, A, leading(A))


class Chase(NamedTuple):
    """B = P T P^T: T's diagonals, and the reflectors of P in order."""

    diagonal: np.ndarray
    off_diagonal: np.ndarray
    reflectors: np.ndarray
    scales: np.ndarray
    width: int

    def rotate(self, w: np.ndarray, forward: bool) -> np.ndarray:
        """P w if ``forward``, else P^T w; w (n,) is overwritten and returned."""
        if len(self.scales):
            _rotate(w, self.reflectors, self.scales, self.width, forward)
        return w


def chase_to_tridiagonal(band: np.ndarray, w: np.ndarray) -> Chase:
    """Return the `Chase` of a band (width + 1, n) and turn w (n,) into P^T w."""
    width, n = len(band) - 1, band.shape[1]
    if width <= 1:
        off = band[1, : n - 1].copy() if width else np.empty(0)
        return Chase(band[0].copy(), off, np.empty((0, 1)), np.empty(0), 1)
    columns = np.zeros((n, 2 * width + 1))  # room for the bulge
    columns[:, : width + 1] = band.T
    count = sum(-(-(n - 1 - j) // width) for j in range(n - 2))
    reflectors, scales = np.empty((count, width)), np.empty(count)
    _chase(columns, width, w, reflectors, scales)
    return Chase(columns[:, 0].copy(), columns[: n - 1, 1].copy(), reflectors, scales, width)


@lazy_njit(sums_in_any_order=True)
def _chase(columns, width, w, reflectors, scales):
    """Reduce ``columns``, [j, d] = B[j + d, j], to tridiagonal form, and apply P^T to w.

    One sweep a column j. In a sweep the reflector I - scale v v^T of the rows p .. p + rows works
    on the diagonal block D there from both sides, and on the block E below it from the right; then
    the next reflector zeroes E's first column and works on the others from the left.
    """
    n = columns.shape[0]
    y = np.empty(width)
    count = 0
    for j in range(n - 2):
        p, rows = j + 1, min(width, n - j - 1)
        v = reflectors[count]
        scales[count] = _reflector(columns[j, 1 : 1 + rows], v)
        while True:
            scale = scales[count]
            dot = 0.0
            for i in range(rows):
                dot += v[i] * w[p + i]
            for i in range(rows):
                w[p + i] -= scale * dot * v[i]

            for i in range(rows):  # y = D v, D symmetric and stored as its lower half
                y[i] = 0.0
            for c in range(rows):
                column = columns[p + c]
                dot = column[0] * v[c]
                for i in range(1, rows - c):
                    dot += column[i] * v[c + i]
                    y[c + i] += column[i] * v[c]
                y[c] += dot
            dot = 0.0
            for i in range(rows):
                dot += y[i] * v[i]
            for i in range(rows):
                y[i] = scale * (y[i] - 0.5 * scale * dot * v[i])
            for c in range(rows):  # D -= v y^T + y v^T
                column = columns[p + c]
                for i in range(rows - c):
                    column[i] -= v[c + i] * y[c] + y[c + i] * v[c]

            below = min(width, n - p - rows)
            count += 1
            if below <= 0:
                break
            for i in range(below):  # y = scale E v
                y[i] = 0.0
            for c in range(rows):
                for i in range(below):
                    y[i] += scale * v[c] * columns[p + c, rows - c + i]
            for i in range(below):
                columns[p, rows + i] -= y[i]
            v_next = reflectors[count]
            scales[count] = _reflector(columns[p, rows : rows + below], v_next)
            for c in range(1, rows):  # E <- H_next (E - y v^T), column by column
                column = columns[p + c, rows - c : rows - c + below]
                dot = 0.0
                for i in range(below):
                    column[i] -= y[i] * v[c]
                    dot += column[i] * v_next[i]
                for i in range(below):
                    column[i] -= scales[count] * dot * v_next[i]
            p, rows, v = p + rows, below, v_next


def _reflector(x, v):
    """v = (1, ...) and the scale for which (I - scale v v^T) x = (beta, 0, ...), written to x."""
    tail = 0.0
    for i in range(1, len(x)):
        tail += x[i] * x[i]
    v[0] = 1.0
    beta = -math.copysign(math.sqrt(x[0] * x[0] + tail), x[0]) if tail > 0.0 else x[0]
    inverse = 1.0 / (x[0] - beta) if tail > 0.0 else 0.0
    scale = (beta - x[0]) / beta if tail > 0.0 else 0.0
    x[0] = beta
    for i in range(1, len(x)):
        v[i] = x[i] * inverse
        x[i] = 0.0
    return scale


@lazy_njit(sums_in_any_order=True)
def _rotate(w, reflectors, scales, width, forward):
    """w <- P w if forward, else P^T w: the reflectors of `_chase` backwards, or forwards."""
    n = len(w)
    count = len(scales) - 1 if forward else 0
    for sweep in range(n - 2):
        j = n - 3 - sweep if forward else sweep
        blocks = -(-(n - 1 - j) // width)
        for block in range(blocks):
            p = j + 1 + (blocks - 1 - block if forward else block) * width
            rows = min(width, n - p)
            v = reflectors[count]
            dot = 0.0
            for i in range(rows):
                dot += v[i] * w[p + i]
            for i in range(rows):
                w[p + i] -= scales[count] * dot * v[i]
            count += -1 if forward else 1
