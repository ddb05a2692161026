r"""f(A) z from products with J alone, by Lanczos iteration: neither K nor rows of J are needed.

A is the smaller of J J^T and J^T J, and z is g or J^T g. An orthonormal basis Q_k (n, k) of the
Krylov space z, A z, .., A^(k-1) z, made one product with J and one with J^T at a time, holds

    A Q_k = Q_k T_k + beta_k q_(k+1) e_k^T,        f(A) z ~ |z| Q_k f(T_k) e_1,

with T_k tridiagonal. The space is the same for every f, as another lambda is.

Error: with f(x) = c + sum_j r_j / (x + p_j), the approximation is that of (A + p_j) x_j = z for
every pole, which leaves a residual of |z| prod_i beta_i / d_i, d_i the pivots of T_k + p_j. Nothing
cancels in it, and as A has no eigenvalue below 0, what it does to the step is bounded:

    |error of the step| <= sum_j |r_j| residual_j / p_j            where A is J^T J
                        <= sum_j |r_j| residual_j / (2 sqrt(p_j))  where A is J J^T

for an f that does not depend on max(S), or for the one of the space, which a smooth cut is relative
to. The iteration ends when that is ``tolerance`` of the step, or after ``products``, as a truncated
Newton method does: the step is then that of the space, and the record says how good it is. Where A
is J^T J and f damps with mu = 0, no other vector of the space is better for the model.

Cost: a product with J and one with J^T for each of k vectors, 4 n k^2 operations to keep them
orthogonal to rounding (each twice against all before it), k n numbers of memory. Some tens to
hundreds of products; it takes a damped f or a smooth cut: of a sharp one they would be thousands.

References
----------
Golub and Van Loan, Matrix Computations, 4th ed., 10.1-10.3; Frommer, Kahl, Lippert and Rittich,
2-norm error bounds and estimates for Lanczos approximations to linear systems and rational matrix
functions, SIAM J. Matrix Anal. Appl. 34 (2013).
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.linalg import eigh_tridiagonal

from ..backend import Array
from .filters import FRACTIONS, Filter, TruncatedPower
from .rational import PartialFractions
from .spectrum import EPS, SQUARED_RESOLUTION, DecompositionError, HalfInverseInfo, info_of, require

NAME = "lanczos"
TOLERANCE, MOST = 1e-2, 300
BLOCK = 16  # vectors of the basis that are held in one array
OF_FRACTIONS = 0.1  # their relative error over the tolerance, of which twice is in the bound
HEADROOM = 2.0  # of the largest eigenvalue, which grows a little from one vector to the next


class Krylov:
    """The space of J and g, as far as a function of the singular values has needed it."""

    def __init__(self, J: Any, g: Array, tolerance: float, most: int) -> None:
        self.J, self.tolerance = J, tolerance
        self.by_rows: bool = J.shape[0] <= J.shape[1]
        self.most = min(most, *J.shape)
        z = g if self.by_rows else J.rmatvec(g).astype(np.float64, copy=False)
        self.size = float(J.xp.linalg.norm(z))
        self.blocks: list[Array] = []
        self.alphas: list[float] = []
        self.betas: list[float] = []
        self.complete = self.size == 0  # whether the space holds all of f(A) z
        if not self.complete:
            self._append(z / self.size)

    def of(self, g: Array) -> Krylov:
        """Return that of another g (m,), whose space is its own."""
        return Krylov(self.J, g, self.tolerance, self.most)

    def apply(self, f: Filter) -> tuple[Array, HalfInverseInfo]:
        """Return V f(S) U^T g (t,), and what is to be said of it."""
        if isinstance(f, TruncatedPower):
            raise ValueError(f"method {NAME!r} applies damped filters and smooth cuts, no {f.name}")
        if self.size == 0:
            info = info_of(NAME, np.zeros(1), 0.0)
            return self.J.xp.zeros(self.J.shape[1]), info
        y, sigma, error = self._converged(f)
        c = self.size * self._combined(y)
        cutoff = f.cutoff(float(sigma.max()), SQUARED_RESOLUTION)
        told = f"an error of {error:.0e} at most" if error < 1 else "not converged"
        info = info_of(NAME, sigma, cutoff, f"{len(sigma)} products, {told}")
        return (self.J.rmatvec(c) if self.by_rows else c), replace(info, error=error)

    def _converged(self, f):
        """f(T) e_1, the singular values of the space, and the bound of its relative error."""
        fractions = None
        while True:
            k = len(self.alphas)
            if k == 0 or fractions is not None:
                self._grow(max(4, k // 16))
            sigma, W = self._ritz()
            y = W @ (f.over_sigma(np, sigma, SQUARED_RESOLUTION) * W[0])
            if fractions is None or sigma.max() ** 2 > fractions[0]:
                fractions = self._fractions(f, HEADROOM * float(sigma.max()) ** 2)
            length = np.linalg.norm(sigma * (y @ W)) if self.by_rows else np.linalg.norm(y)
            error = self._bound(fractions[1], float(length))
            if self.complete or error <= self.tolerance or len(sigma) >= self.most:
                return y, sigma, error

    def _grow(self, count):
        """So many vectors more, as far as there are."""
        for _ in range(min(count, self.most - len(self.alphas))):
            if self.complete:
                return
            self._one_more()

    def _one_more(self):
        """A q_k = beta_(k-1) q_(k-1) + alpha_k q_k + beta_k q_(k+1)."""
        q = self._last()
        w = self._times(q)
        alpha = float(q @ w)
        for _ in range(2):
            for block in self._filled():
                w = w - (block @ w) @ block
        beta = float(self.J.xp.linalg.norm(w))
        require(np.isfinite(beta), "a product with J gave NaN or Inf")
        self.alphas.append(alpha)
        largest = max(self.alphas) + max(self.betas, default=0.0)
        self.complete = beta <= len(w) ** 0.5 * EPS * largest
        self.betas.append(0.0 if self.complete else beta)
        if not self.complete:
            self._append(w / beta)

    def _times(self, q):
        """A q."""
        J = self.J
        Aq = J.matvec(J.rmatvec(q)) if self.by_rows else J.rmatvec(J.matvec(q))
        return Aq.astype(np.float64, copy=False)

    def _ritz(self):
        """T = W diag(sigma^2) W^T."""
        k = len(self.alphas)
        values, W = eigh_tridiagonal(np.array(self.alphas), np.array(self.betas[: k - 1]))
        largest = float(values.max())
        require(
            values.min() >= -1e-6 * largest, "J v and J^T w do not belong to one J: see dot_test"
        )
        return np.sqrt(np.maximum(values, 0.0)), W

    def _fractions(self, f, largest):
        """Up to where they hold, and those of f."""
        least, tolerance = SQUARED_RESOLUTION**2 * largest, OF_FRACTIONS * self.tolerance
        try:
            return largest, f.fractions(least, largest, min(max(tolerance, FRACTIONS), 1e-2))
        except DecompositionError:  # none are as good as that: what is known of the error is little
            return math.inf, None

    def _bound(self, fractions: PartialFractions | None, length: float) -> float:
        """Of the error of the step over its ``length``, that of f(T) e_1."""
        if self.complete:
            return 0.0
        if fractions is None:
            return math.inf
        poles = fractions.poles
        to_step = 0.5 / np.sqrt(poles) if self.by_rows else 1 / poles
        residuals = residuals_of(self.alphas, self.betas, poles)
        error = float((abs(fractions.residues) * to_step * residuals).sum())
        return error / length + 2 * fractions.error

    def _append(self, q):
        used = len(self.alphas) % BLOCK
        if used == 0:
            self.blocks.append(self.J.xp.empty((BLOCK, len(q))))
        self.blocks[-1][used] = q

    def _last(self):
        return self.blocks[-1][len(self.alphas) % BLOCK]

    def _filled(self):
        """The basis, some vectors at a time, without room for more."""
        yield from self.blocks[:-1]
        yield self.blocks[-1][: len(self.alphas) % BLOCK + 1]

    def _combined(self, y):
        """Q y."""
        xp, k = self.J.xp, len(y)
        y = xp.asarray(y)
        parts = zip(range(0, k, BLOCK), self.blocks, strict=False)
        return sum(y[lo : lo + BLOCK] @ block[: min(BLOCK, k - lo)] for lo, block in parts)


def residuals_of(alphas: list[float], betas: list[float], poles: np.ndarray) -> np.ndarray:
    """|(A + p) x - z| / |z| of the x in the space for poles p (j,): prod beta_i / d_i.

    Inf where p is so small that rounding leaves T + p indefinite.
    """
    pivots = alphas[0] + poles
    found = betas[0] / pivots
    for alpha, before, beta in zip(alphas[1:], betas, betas[1:], strict=False):
        pivots = alpha + poles - before**2 / pivots
        pivots[pivots <= 0] = np.nan
        found *= beta / pivots
    return np.where(np.isnan(found), np.inf, found)


def decompose(J: Any, g: Array, tolerance: float = TOLERANCE, most: int = MOST) -> Krylov:
    """Return the `Krylov` space of J (m, t) and g (m,), of one vector."""
    return Krylov(J, g, tolerance, most)
