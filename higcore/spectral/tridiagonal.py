r"""f(K) z through a tridiagonal matrix, with no eigenvector ever formed.

Householder reflections reduce K = Q T Q^T (LAPACK's dsytrd, Q kept as reflectors). Implicit QL
with Wilkinson shifts then diagonalises T = W diag(lambda) W^T, where W is a product of plane
rotations. Because f(K) is wanted on one vector only,

    f(K) z = Q W f(lambda) W^T Q^T z,

each rotation is applied to Q^T z as it is found and written down; afterwards the written rotations
are played back in reverse. That makes the second half of the work O(n^2) instead of the O(n^3)
of forming W (divide and conquer), and Q costs two passes over the reflectors.

Accuracy: as `gram`, every transformation is orthogonal: about eps / tau^2 in the step.
Cost: 4/3 n^3 operations for the reduction and about 0.9 n^2 rotations; memory 2 n^2 numbers beside
K for the rotations. Runs on the host: a small K is sooner copied from a GPU than decomposed there.

References
----------
Golub and Van Loan, Matrix Computations, 4th ed., 8.3.1 (reduction), 8.3.3-8.3.5 (QR; QL mirrored).
"""

from __future__ import annotations

from types import ModuleType
from typing import NamedTuple

import numpy as np
from scipy.linalg import lapack

from ..backend import Array, module_of, to_host
from ..kernels import lazy_njit
from .filters import Filter
from .spectrum import (
    EPS,
    SQUARED_RESOLUTION,
    HalfInverseInfo,
    check_gram,
    info_of,
    require,
)

NAME = "tridiagonal"
WORKSPACE = 3.1, 2.1  # numbers held at the peak over n^2, K included: host, device (K alone)
MAX_SWEEPS = 40  # an eigenvalue; LAPACK allows 30, 1.7 are typical
DEFLATE = EPS / 16  # off-diagonals under this times max |T| are zero; with EPS errors double
UNSETTLED, FULL = -1, -2  # in place of a number of sweeps
PATIENCE = 6  # sweeps after which rounding errors of equal eigenvalues are taken for what they are


class Diagonal(NamedTuple):
    """T = W diag(S^2) W^T: S, W^T w, and the rotations of W; ``backwards`` if T was turned over."""

    sigma: np.ndarray
    rotated: np.ndarray
    rotations: np.ndarray
    sweeps: np.ndarray
    used: int
    backwards: bool

    def apply(self, f: Filter) -> np.ndarray:
        """Return W f(S) / S W^T w."""
        w: np.ndarray = self.rotated * f.over_sigma(np, self.sigma, SQUARED_RESOLUTION)
        play_back(w, self.rotations, self.sweeps, self.used)
        return w[::-1].copy() if self.backwards else w

    def of(self, w: np.ndarray) -> Diagonal:
        """Return it for another w (n,)."""
        rotated = w[::-1].copy() if self.backwards else w.copy()
        play(rotated, self.rotations, self.sweeps, self.used)
        return self._replace(rotated=rotated)


class Tridiagonal(NamedTuple):
    """K = Q T Q^T: the reflectors of Q, and T, diagonalised for Q^T z. ``xp`` is that of K."""

    reflectors: np.ndarray
    scales: np.ndarray
    T: Diagonal
    xp: ModuleType

    def apply(self, f: Filter) -> tuple[Array, HalfInverseInfo]:
        """Return f(S) / S of K applied to z, and what is to be said of it."""
        w = self.T.apply(f)
        reflect(self.reflectors, self.scales, w, True)
        detail = None if self.xp is np else "decomposed on the host"
        cutoff = f.cutoff(float(self.T.sigma.max()), SQUARED_RESOLUTION)
        return self.xp.asarray(w), info_of(NAME, self.T.sigma, cutoff, detail)

    def of(self, z: Array) -> Tridiagonal:
        """Return it for another z (n,)."""
        w = to_host(z).copy()
        reflect(self.reflectors, self.scales, w, False)
        return self._replace(T=self.T.of(w))


def decompose(K: Array, z: Array) -> Tridiagonal:
    """Decompose K (n, n) for z (n,), both float64.

    K, C-contiguous and defined on and above the diagonal, is overwritten on the host.
    """
    check_gram(K, z)
    xp, K, w = module_of(K), to_host(K), to_host(z).copy()
    trace = K.trace()
    reflectors, diagonal, off_diagonal, scales = reduce(K)
    reflect(reflectors, scales, w, False)
    return Tridiagonal(reflectors, scales, diagonalise(diagonal, off_diagonal, w, trace), xp)


def diagonalise(
    diagonal: np.ndarray, off_diagonal: np.ndarray, w: np.ndarray, trace: float
) -> Diagonal:
    """Diagonalise T (n, n), given by its diagonals (n,) and (n - 1,), for w (n,).

    ``trace`` is what T's should be.
    """
    n, norm_w = len(w), np.linalg.norm(w)
    # To unit size, or the squares in a rotation could overflow or vanish.
    scale = max(np.abs(diagonal).max(), np.abs(off_diagonal).max(initial=0.0)) or 1.0
    # QL is accurate and quick when T is graded with its small entries first.
    backwards = bool(abs(diagonal[0]) > abs(diagonal[-1]))
    order = slice(None, None, -1 if backwards else 1)
    T, off = (np.ascontiguousarray((x / scale)[order]) for x in (diagonal, off_diagonal))
    eigenvalues, rotated, rotations, sweeps, used = _eigenvalues(T, off, w[order])
    require(used >= 0, "implicit QL did not converge")
    # Orthogonal similarity keeps the trace and the length of the rotated vector.
    tolerance, missed = 100 * n * EPS, abs(eigenvalues.sum() - trace / scale)
    require(missed <= tolerance * n, "eigenvalues miss the trace of K")
    off_length = abs(np.linalg.norm(rotated) - norm_w)
    require(off_length <= tolerance * norm_w, "Q and W are not orthogonal")
    sigma = np.sqrt(scale * np.maximum(eigenvalues, 0.0))
    return Diagonal(sigma, rotated, rotations, sweeps, used, backwards)


def _eigenvalues(diagonal, off_diagonal, w):
    """Eigenvalues of T, W^T w, the rotations of W, and the sweeps that they belong to."""
    n = len(w)
    sweeps = np.empty((MAX_SWEEPS * n, 2), np.int64)
    room, used = n * n, FULL
    while used == FULL:
        d, e, rotated = diagonal.copy(), np.append(off_diagonal, 0.0), w.copy()
        rotations = np.empty((room, 2))
        used = _diagonalise(d, e, rotated, rotations, sweeps, DEFLATE)
        room *= 2
    return d, rotated, rotations, sweeps, used


def reduce(K: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """K = Q T Q^T: reflectors in K's lower triangle (Fortran order), T's diagonals, scales."""
    if len(K) == 1:
        return K.T, K.diagonal().copy(), np.empty(0), np.empty(0)
    work, info = lapack.dsytrd_lwork(len(K), lower=1)
    require(info == 0, "dsytrd refused its workspace query")
    # K.T is Fortran-contiguous, so LAPACK works in place.
    reflectors, diagonal, off_diagonal, scales, info = lapack.dsytrd(
        K.T, lower=1, lwork=int(work), overwrite_a=1
    )
    require(info == 0, f"dsytrd failed with info = {info}")
    return reflectors, diagonal, off_diagonal, scales


@lazy_njit
def reflect(reflectors: np.ndarray, scales: np.ndarray, w: np.ndarray, forward: bool) -> None:
    """w <- Q w if forward, else Q^T w; Q = H_0 H_1 ..., H_k = I - scale v v^T, v = (1, stored)."""
    n = len(w)
    count = len(scales)
    for step in range(count):
        k = count - 1 - step if forward else step
        dot = w[k + 1]
        for i in range(k + 2, n):
            dot += reflectors[i, k] * w[i]
        dot *= scales[k]
        w[k + 1] -= dot
        for i in range(k + 2, n):
            w[i] -= dot * reflectors[i, k]


@lazy_njit
def _diagonalise(d, e, w, rotations, sweeps, floor):
    """Implicit QL on the tridiagonal (d, e): d becomes lambda, w becomes W^T w.

    e (n,) is overwritten, and ends with room for one number more: to allocate it here would take
    most of the time of compiling. Rotations (cos, sin) and sweeps (first row, last row) are written
    down in order. Returns the number of sweeps, `UNSETTLED` if an eigenvalue does not settle,
    `FULL` if there is no room for more rotations. Off-diagonals up to ``floor`` count as zero, and
    up to 32 times that for an eigenvalue that does not settle.
    """
    n = len(d)
    used = 0
    count = 0
    for k in range(n):
        tries = 0
        while True:
            end = k
            zero = floor if tries < PATIENCE else 32.0 * floor
            while end < n - 1 and abs(e[end]) > zero:
                end += 1
            if end == k:
                break
            if tries == MAX_SWEEPS:
                return UNSETTLED
            tries += 1
            if count + n > len(rotations):
                return FULL
            # Wilkinson's shift: the eigenvalue of the leading 2 x 2 block closer to d[k].
            half = (d[k + 1] - d[k]) / (2.0 * e[k])
            root = np.sqrt(half * half + 1.0)
            bulge = d[end] - d[k] + e[k] / (half + (root if half >= 0.0 else -root))
            c, s, shift = 1.0, 1.0, 0.0
            last = k
            carried = w[end]
            for i in range(end - 1, k - 1, -1):
                f = s * e[i]
                b = c * e[i]
                r = np.sqrt(f * f + bulge * bulge)
                e[i + 1] = r
                if r == 0.0:  # the matrix splits by itself: finish the sweep here
                    d[i + 1] -= shift
                    e[end] = 0.0
                    last = i + 1
                    break
                inverse = 1.0 / r
                s = f * inverse
                c = bulge * inverse
                corner = d[i + 1] - shift
                r = (d[i] - corner) * s + 2.0 * c * b
                shift = s * r
                d[i + 1] = corner + shift
                bulge = c * r - b
                rotations[count, 0] = c
                rotations[count, 1] = s
                count += 1
                w[i + 1] = s * w[i] + c * carried
                carried = c * w[i] - s * carried
            w[last] = carried
            sweeps[used, 0] = end
            sweeps[used, 1] = last
            used += 1
            if last == k:
                d[k] -= shift
                e[k] = bulge
                e[end] = 0.0
    return used


@lazy_njit
def play(w: np.ndarray, rotations: np.ndarray, sweeps: np.ndarray, used: int) -> None:
    """w <- W^T w: the rotations of `_diagonalise` as it does them."""
    count = 0
    for k in range(used):
        end, last = sweeps[k, 0], sweeps[k, 1]
        carried = w[end]
        for i in range(end - 1, last - 1, -1):
            c = rotations[count, 0]
            s = rotations[count, 1]
            count += 1
            w[i + 1] = s * w[i] + c * carried
            carried = c * w[i] - s * carried
        w[last] = carried


@lazy_njit
def play_back(w: np.ndarray, rotations: np.ndarray, sweeps: np.ndarray, used: int) -> None:
    """w <- W w: the rotations of `_diagonalise` transposed, in reverse order."""
    count = 0
    for k in range(used):
        count += sweeps[k, 0] - sweeps[k, 1]
    for k in range(used - 1, -1, -1):
        end, last = sweeps[k, 0], sweeps[k, 1]
        carried = w[last]
        for i in range(last, end):
            count -= 1
            c = rotations[count, 0]
            s = rotations[count, 1]
            w_next = w[i + 1]
            w[i] = c * carried + s * w_next
            carried = c * w_next - s * carried
        w[end] = carried
