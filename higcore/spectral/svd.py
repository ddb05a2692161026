"""J^kappa by the singular value decomposition: the definition (eq. 6), and the slowest way.

Accuracy: nothing is squared, so singular values down to about 1e-15 max(S) are resolved and the
step carries an error of about eps / tau. Cost: O(m t min(m, t)), with J and its factors in memory.
"""

from __future__ import annotations

from types import ModuleType

import numpy as np
import scipy.linalg

from ..backend import Array, is_host
from .modes import EPS, Modes, Truncation, require


def noise(shape: tuple[int, int]) -> float:
    """Smallest s / max(S) that this method can tell from zero."""
    return EPS * max(shape)


def apply(
    xp: ModuleType, J: Array, g: Array, kappa: float, truncation: Truncation, noise: float
) -> tuple[Array, Modes]:
    """Return V S^kappa U^T g (t,) over the kept modes, and the `Modes`; J (m, t), g (m,), float64.

    ``noise`` is the smallest s / max(S) that counts as different from zero.
    """
    _, sigma, Vt, z = decompose(xp, J, g)
    weights = truncation.power(xp, sigma, kappa, noise) * z
    return Vt.T @ weights, truncation.modes(sigma, noise)


def decompose(xp: ModuleType, J: Array, g: Array) -> tuple[Array, Array, Array, Array]:
    """Return U, S, V^T and z = U^T g, after a check that they reproduce J^T g."""
    if not J.any():  # some versions of cuSOLVER return NaN
        k = min(J.shape)
        return xp.eye(len(J), k), xp.zeros(k), xp.eye(k, J.shape[1]), g[:k]
    U, sigma, Vt = _svd(J) if is_host(J) else xp.linalg.svd(J, full_matrices=False)
    z = U.T @ g
    residual = xp.linalg.norm(Vt.T @ (sigma * z) - J.T @ g)
    bound = 100 * max(J.shape) * EPS * float(xp.linalg.norm(J)) * float(xp.linalg.norm(g))
    require(residual <= bound, "the SVD of J does not reproduce J^T g")
    return U, sigma, Vt, z


def _svd(J):
    # SciPy's BLAS keeps all threads in a training step; NumPy's has one (backend.thread_policy).
    try:
        return scipy.linalg.svd(J, full_matrices=False, check_finite=False)
    except np.linalg.LinAlgError:  # divide and conquer gave up; QR iteration is slower, surer
        return scipy.linalg.svd(J, full_matrices=False, check_finite=False, lapack_driver="gesvd")
