"""f(K) z by the eigen-decomposition of a Gram matrix: K = U diag(lambda) U^T, S = sqrt(lambda).

Accuracy: squaring halves the digits. With tau relative to max(S), the step carries an error of
about eps / tau^2, and singular values under 4 sqrt(eps) max(S) are noise.
Cost: about 9 n^3 operations for an n x n matrix, most of them to form the eigenvectors.
"""

from __future__ import annotations

from typing import NamedTuple

import scipy.linalg
from scipy.linalg.blas import dsymv

from ..backend import Array, is_host, module_of
from .filters import Filter
from .spectrum import (
    EPS,
    SQUARED_RESOLUTION,
    HalfInverseInfo,
    check_gram,
    info_of,
    require,
)

NAME = "gram"
WORKSPACE = 3.1, 5.1  # numbers held at the peak over n^2, K included: on the host, on a device


class EigenVectors(NamedTuple):
    """U, S and U^T z."""

    U: Array
    sigma: Array
    coefficients: Array

    def apply(self, f: Filter) -> tuple[Array, HalfInverseInfo]:
        """Return U f(S) / S U^T z, and what is to be said of it."""
        xp = module_of(self.U)
        weights = f.over_sigma(xp, self.sigma, SQUARED_RESOLUTION)
        cutoff = f.cutoff(float(self.sigma.max()), SQUARED_RESOLUTION)
        return self.U @ (weights * self.coefficients), info_of(NAME, self.sigma, cutoff)

    def of(self, z: Array) -> EigenVectors:
        """Return it for another z (n,)."""
        return self._replace(coefficients=self.U.T @ z)


def decompose(K: Array, z: Array) -> EigenVectors:
    """Decompose K (n, n) for z (n,), both float64.

    K may be overwritten, and on the host only what is on and above its diagonal is read.
    """
    check_gram(K, z)
    xp = module_of(K)
    Kz = dsymv(1.0, K.T, z, lower=1) if is_host(K) else K @ z
    eigenvalues, U = _eigh(K) if is_host(K) else xp.linalg.eigh(K)
    coefficients = U.T @ z
    scale = float(abs(eigenvalues).max()) or 1.0
    residual = xp.linalg.norm((U @ (eigenvalues * coefficients) - Kz) / scale)
    bound = 100 * len(K) * EPS * float(xp.linalg.norm(z))
    require(residual <= bound, "the eigen-decomposition of K does not reproduce K g")
    return EigenVectors(U, xp.sqrt(xp.maximum(eigenvalues, 0.0)), coefficients)


def _eigh(K):
    return scipy.linalg.eigh(K.T, overwrite_a=True, check_finite=False, driver="evd")
