r"""(h K + lambda I)^(-1) z by a Cholesky factor, anew for every lambda: Levenberg-Marquardt's way.

Accuracy: about eps h max(S)^2 / lambda in the step, as every method that squares.
Cost: n^3 / 3 operations for each lambda, in products of large matrices, where `tridiagonal` takes
4/3 n^3 in matrix-vector products for all of them. On a device, an LU factor by its own library.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from scipy.linalg.blas import dsymv
from scipy.linalg.lapack import dposv

from ..backend import Array, is_host, module_of
from .filters import Damped, Filter
from .spectrum import EPS, HalfInverseInfo, check_gram, require

NAME = "cholesky"
WORKSPACE = 2.1, 4.1  # numbers held at the peak over n^2, K included: on the host, on a device


class Gram(NamedTuple):
    """K as it is, of which a copy is factored for each f, and z."""

    K: Array
    z: Array

    def apply(self, f: Filter) -> tuple[Array, HalfInverseInfo]:
        """Return (h K + lambda I)^(-1) z, and a record in which no singular value is known."""
        if not isinstance(f, Damped) or f.mu:
            what = f"a {f.name}" + (f" with mu = {f.mu:g}" if isinstance(f, Damped) else "")
            raise ValueError(f"method {NAME!r} applies damping with mu = 0 alone, not {what}")
        shift = f.damping / f.curvature
        x = _solve(self.K, shift, self.z)
        self._check(x, shift)
        unknown = math.nan
        info = HalfInverseInfo(NAME, len(x), unknown, unknown, 0.0, math.inf)
        return x / f.curvature, info

    def of(self, z: Array) -> Gram:
        """Return it for another z (n,)."""
        return self._replace(z=z)

    def _check(self, x, shift):
        K, xp = self.K, module_of(x)
        Kx = dsymv(1.0, K.T, x, lower=1) if is_host(K) else K @ x
        residual = xp.linalg.norm(Kx + shift * x - self.z)
        size = (float(K.trace()) + shift) * float(xp.linalg.norm(x))
        require(residual <= 100 * len(K) * EPS * size, "a solution misses its equation")


def decompose(K: Array, z: Array) -> Gram:
    """Keep K (n, n) and z (n,), both float64; on the host only K's upper triangle is read."""
    check_gram(K, z)
    return Gram(K, z)


def _solve(K, shift, z):
    """(K + shift I)^(-1) z."""
    shifted = K.copy()
    shifted.reshape(-1)[:: len(K) + 1] += shift  # the diagonal
    if not is_host(K):
        return module_of(K).linalg.solve(shifted, z)
    _, x, info = dposv(shifted.T, z, lower=1, overwrite_a=1)  # transposed: as LAPACK reads it
    require(info == 0, f"K + lambda I is not positive definite to rounding (dposv: {info})")
    return x
