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
from .spectrum import unchecked

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
    """Return the `ArrayReduction` of K (n, n), which is left alone.

    What is left of K after every panel is an array of its own, so that products find it contiguous.
    Nothing is waited for; a failure shows in the trace of B.
    """
    A, panels, columns = K, [], []
    with unchecked(xp):
        for first in range(width, len(K), width):
            V, T, R = _factor(xp, A[width:, :width])
            panels.append(Panel(first, V, T))
            columns.append(xp.concatenate([A[:width, :width], R]))
            A = _reflected(xp, A, width, V, T)
    columns.append(A)
    return ArrayReduction(panels, _lower_band(columns, width, len(K)))


def _lower_band(columns, width, n):
    """Lower band (width + 1, n) on the host, from the block columns of B, diagonal block on top."""
    lower = np.zeros((min(width, n - 1) + 1, n), order="F")
    at = 0
    for block in map(to_host, columns):
        for j in range(block.shape[1]):
            part = block[j : j + len(lower), j]
            lower[: len(part), at + j] = part
        at += block.shape[1]
    return lower


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


def _reflected(xp, A, width, V, T):
    """(I - V T V^T)^T B (I - V T V^T), B = A[width:, width:], as a new array; V (r, k)."""
    VT = xp.concatenate([xp.zeros((width, V.shape[1])), V @ T])
    W = (A @ VT)[width:]  # = B V T: a product with B itself would first copy it
    X = W - V @ (T.T @ (V.T @ W)) / 2
    # One product of (r, 2k) x (2k, r), then B is read once.
    change = xp.concatenate([V, X], axis=1) @ xp.concatenate([-X, -V], axis=1).T
    change += A[width:, width:]
    return change
