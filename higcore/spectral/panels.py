r"""Reduction of a symmetric matrix to a band as array code: what a GPU runs, on NumPy arrays too.

The mathematics is that of `reduction`, K = Q B Q^T by panels, A <- A - V X^T - X V^T, here with the
whole of A instead of one triangle: 2 n^3 operations in place of 4/3 n^3, all but the QR of the
panels in products of large matrices, at which a GPU is best.

The triangle T of a panel's reflectors I - V T V^T follows from V alone, since their product is
orthogonal: T^(-1) = striu(V^T V) + diag(1 / tau).
"""

from __future__ import annotations

from types import ModuleType
from typing import NamedTuple

import numpy as np

from ..backend import Array, to_host

NO_REFLECTION = 1e200  # stands for 1 / tau of a reflector that is the identity, tau = 0


class Panel(NamedTuple):
    """Reflectors I - V T V^T of the rows from ``first`` on; V (rows, k), T (k, k)."""

    first: int
    V: Array
    T: Array


class ArrayReduction(NamedTuple):
    """K = Q B Q^T; ``lower`` (width + 1, n) is the band of B on the host, as LAPACK keeps it."""

    panels: list[Panel]
    lower: np.ndarray

    def band(self) -> np.ndarray:
        """The lower band of B as (width + 1, n): [d, j] is B[j + d, j]."""
        return self.lower

    def rotate(self, w: Array, forward: bool) -> Array:
        """Q w if ``forward``, else Q^T w; w (n,) is overwritten and returned."""
        for panel in reversed(self.panels) if forward else self.panels:
            T = panel.T if forward else panel.T.T
            w[panel.first :] -= panel.V @ (T @ (panel.V.T @ w[panel.first :]))
        return w


def reduce_to_band(xp: ModuleType, K: Array, width: int) -> ArrayReduction:
    """Return the `ArrayReduction` of K (n, n), which is lost."""
    n, panels = len(K), []
    for left in range(0, n - width, width):
        first = left + width
        V, T, R = _factor(xp, K[first:, left:first])
        K[first : first + len(R), left:first] = R
        _update_both_sides(xp, K[first:, first:], V, T)
        panels.append(Panel(first, V, T))
    lower = xp.zeros((min(width, n - 1) + 1, n))
    for d in range(len(lower)):
        lower[d, : n - d] = K.diagonal(-d)
    return ArrayReduction(panels, to_host(lower).copy(order="F"))


def _factor(xp, panel):
    """Reflectors V (rows, k), T (k, k) of the QR of a panel (rows, width), and R (k, width)."""
    raw, tau = xp.linalg.qr(panel, mode="raw")
    k = len(tau)
    V = xp.tril(raw.T[:, :k], -1)
    V[:k] += xp.eye(k)
    reflects = tau != 0
    inverse_scales = xp.where(reflects, 1 / xp.where(reflects, tau, 1.0), NO_REFLECTION)
    T = xp.linalg.inv(xp.triu(V.T @ V, 1) + xp.diag(inverse_scales))
    return V, T, xp.triu(raw.T[:k])


def _update_both_sides(xp, A, V, T):
    """A <- (I - V T V^T)^T A (I - V T V^T), the whole of it; A (r, r), V (r, k)."""
    W = A @ (V @ T)
    X = W - V @ (T.T @ (V.T @ W)) / 2
    # One product of (r, 2k) x (2k, r) reads and writes A once.
    A -= xp.concatenate([V, X], axis=1) @ xp.concatenate([X, V], axis=1).T
