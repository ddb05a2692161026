"""K^power by the eigen-decomposition of a Gram matrix: K = U diag(lambda) U^T.

Accuracy: squaring halves the digits. With tau relative to max(S), the step carries an error of
about eps / tau^2, and singular values under 4 sqrt(eps) max(S) are noise.
Cost: about 9 n^3 operations for an n x n matrix, most of them to form the eigenvectors.
"""

from __future__ import annotations

from types import ModuleType

import scipy.linalg
from scipy.linalg.blas import dsymv

from ..backend import Array, is_host
from .modes import EPS, Modes, Truncation, check_gram, require

NOISE = 4 * EPS**0.5


def apply(
    xp: ModuleType, K: Array, z: Array, power: float, truncation: Truncation
) -> tuple[Array, Modes]:
    """Return K^power z over the kept modes, and the `Modes`; S = sqrt(lambda).

    K (n, n) and z (n,) are float64; K may be overwritten, and on the host only what is on and
    above its diagonal is read. A mode is judged by its singular value.
    """
    check_gram(K, z)
    Kz = dsymv(1.0, K.T, z, lower=1) if is_host(K) else K @ z
    eigh = _eigh if is_host(K) else xp.linalg.eigh
    eigenvalues, U = eigh(K)
    coefficients = U.T @ z
    scale = float(abs(eigenvalues).max()) or 1.0
    residual = xp.linalg.norm((U @ (eigenvalues * coefficients) - Kz) / scale)
    bound = 100 * len(K) * EPS * float(xp.linalg.norm(z))
    require(residual <= bound, "the eigen-decomposition of K does not reproduce K g")
    sigma = xp.sqrt(xp.maximum(eigenvalues, 0.0))
    weights = truncation.power(xp, sigma, 2 * power, NOISE) * coefficients
    return U @ weights, truncation.modes(sigma, NOISE)


def _eigh(K):
    return scipy.linalg.eigh(K.T, overwrite_a=True, check_finite=False, driver="evd")
