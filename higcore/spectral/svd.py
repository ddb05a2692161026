"""V f(S) U^T g by the singular value decomposition: the definition (eq. 6), and the slowest way.

Accuracy: nothing is squared, so singular values down to about 1e-15 max(S) are resolved and the
step carries an error of about eps / tau. Cost: O(m t min(m, t)), with J and its factors in memory.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.linalg

from ..backend import Array, is_host, module_of
from .filters import Filter
from .spectrum import EPS, HalfInverseInfo, info_of, require

NAME = "svd"
WORKSPACE = 5  # numbers held at the peak over m t: J, its singular vectors, and LAPACK's copies


class SingularVectors(NamedTuple):
    """U, S, V^T and U^T g; ``resolution`` is the smallest s / max(S) that can be told from 0."""

    U: Array
    sigma: Array
    Vt: Array
    coefficients: Array
    resolution: float

    def apply(self, f: Filter) -> tuple[Array, HalfInverseInfo]:
        """Return V f(S) U^T g (t,), and what is to be said of it."""
        weights = self.sigma * f.over_sigma(module_of(self.U), self.sigma, self.resolution)
        cutoff = f.cutoff(float(self.sigma.max()), self.resolution)
        step = self.combine(weights * self.coefficients)
        return step, info_of(NAME, self.sigma, cutoff)

    def of(self, g: Array) -> SingularVectors:
        """Return it for another g (m,)."""
        return self._replace(coefficients=self.U.T @ g)

    def along(self, w: Array) -> Array:
        """Return V^T w for w (t,)."""
        return self.Vt @ w

    def combine(self, x: Array) -> Array:
        """Return V x (t,) for x (k,)."""
        return self.Vt.T @ x


def decompose(J: Array, g: Array) -> SingularVectors:
    """Decompose J (m, t) for g (m,), both float64, and check that this reproduces J^T g."""
    xp, resolution = module_of(J), EPS * max(J.shape)
    if not J.any():  # some versions of cuSOLVER return NaN
        k = min(J.shape)
        return SingularVectors(
            xp.eye(len(J), k), xp.zeros(k), xp.eye(k, J.shape[1]), g[:k], resolution
        )
    U, sigma, Vt = _svd(J) if is_host(J) else xp.linalg.svd(J, full_matrices=False)
    z = U.T @ g
    residual = xp.linalg.norm(Vt.T @ (sigma * z) - J.T @ g)
    bound = 100 * max(J.shape) * EPS * float(xp.linalg.norm(J)) * float(xp.linalg.norm(g))
    require(residual <= bound, "the SVD of J does not reproduce J^T g")
    return SingularVectors(U, sigma, Vt, z, resolution)


def _svd(J):
    # SciPy's BLAS keeps all threads in a training step; NumPy's has one (backend.thread_policy).
    try:
        return scipy.linalg.svd(J, full_matrices=False, check_finite=False)
    except np.linalg.LinAlgError:  # divide and conquer gave up; QR iteration is slower, surer
        return scipy.linalg.svd(J, full_matrices=False, check_finite=False, lapack_driver="gesvd")
