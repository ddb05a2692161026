r"""The singular vectors of a triangle on one side, applied to vectors and never formed.

Householder reflections reduce R^T = P B G^T, B upper bidiagonal (LAPACK's dgebrd). Implicit QR
(Golub and Kahan's sweeps) then diagonalises B = X S Y^T, X and Y products of plane rotations, so

    R = U S V^T,   V = P X,   U = G Y.

Where R is a triangle of J, f(J) g needs V on both of its ends, or U^T once and V: the rotations of
X are written down and played forwards and backwards, as `tridiagonal` does it; those of Y are
applied to one vector as they are found. Nothing is squared, and no singular vector is formed, for
which a decomposition takes more than for all that is left.

Accuracy: every transformation is orthogonal, and what is set to zero is below eps max(S): an error
of eps max(S) in B, as in every singular value of a general R. Where B graded as it is would give
the small ones to more digits, R does not have them.
Cost: 8/3 n^3 operations for the reduction, half of them at the speed of memory, and about 0.9 n^2
rotations on either side; memory n^2 numbers for the reflectors and 2 n^2 for the rotations.

References
----------
Golub and Van Loan, Matrix Computations, 4th ed., 8.6.2-8.6.3; Demmel and Kahan, Accurate singular
values of bidiagonal matrices, SIAM J. Sci. Stat. Comput. 11 (1990): shifts, and none where B is
singular.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..kernels import lazy_njit
from .inplace import call, leading
from .spectrum import EPS, require
from .tridiagonal import FULL, PATIENCE, UNSETTLED, play, play_back, reflect

MOST_SWEEPS = 10  # a singular value, on average; 1.5 are typical, 2.6 the most that was seen
DEFLATE = EPS / 16  # of B off its diagonal, under this times max |B|, is zero; see `tridiagonal`


class RightVectors(NamedTuple):
    """R = U S V^T: S, U^T q of one q, and V as reflectors and rotations."""

    sigma: np.ndarray
    coefficients: np.ndarray
    reflectors: np.ndarray
    scales: np.ndarray
    rotations: np.ndarray
    sweeps: np.ndarray
    used: int

    def along(self, w: np.ndarray) -> np.ndarray:
        """Return V^T w = X^T P^T w for w (n,)."""
        w = np.concatenate([[0.0], w])
        reflect(self.reflectors, self.scales, w, False)
        w = w[:0:-1].copy()
        play(w, self.rotations, self.sweeps, self.used)
        return w[::-1]

    def combine(self, x: np.ndarray) -> np.ndarray:
        """Return V x = P X x for x (n,)."""
        x = x[::-1].copy()
        play_back(x, self.rotations, self.sweeps, self.used)
        x = np.concatenate([[0.0], x[::-1]])
        reflect(self.reflectors, self.scales, x, True)
        return x[1:]


def decompose(R: np.ndarray, q: np.ndarray) -> RightVectors:
    """Decompose R (n, n) for q (n,), both float64."""
    reflectors, diagonal, above, scales, G_scales = _reduce(R)
    right = _reflect_right(reflectors, G_scales, q)
    # To unit size, or the squares in a rotation could overflow or vanish.
    scale = max(np.abs(diagonal).max(), np.abs(above).max(initial=0.0)) or 1.0
    d, right, *rotations = _singular_values(diagonal / scale, above / scale, right)
    require(rotations[-1] >= 0, "implicit QR did not converge")
    coefficients = np.where(d < 0, -right, right)
    found = RightVectors(np.abs(scale * d), coefficients, reflectors, scales, *rotations)
    residual = np.linalg.norm(found.combine(found.sigma * coefficients) - R.T @ q)
    bound = 100 * len(q) * EPS * np.linalg.norm(R) * np.linalg.norm(q)
    require(residual <= bound, "V S U^T q is not R^T q")
    return found


def _reduce(R):
    """R^T = P B G^T: reflectors, B's diagonals, the scales of P and of G.

    The first row of the reflectors (n + 1, n) is not used: with it those of P begin one row below
    the diagonal, as those of a tridiagonal reduction do.
    """
    n = len(R)
    reflectors = np.zeros((n + 1, n), order="F")
    reflectors[1:] = R.T
    A, work = reflectors[1:], np.empty(64 * n)
    diagonal, above, scales, G_scales = (np.empty(size) for size in (n, n, n, n))
    info = call(
        "dgebrd", n, n, A, leading(A), diagonal, above, scales, G_scales, work, len(work)
    )  # fmt: skip
    require(info == 0, f"dgebrd failed with info = {info}")
    return reflectors, diagonal, above[: n - 1], scales, G_scales


def _reflect_right(reflectors, scales, q):
    """G^T q, by the reflectors that are the rows of a reduction."""
    n, C, work = len(q), q.copy(), np.empty(65 * 64 + 64)
    A = reflectors[1:]
    info = call("dormbr", "P", "L", "T", n, 1, n, A, leading(A), scales, C, n, work, len(work))
    require(info == 0, f"dormbr failed with info = {info}")
    return C


def _singular_values(diagonal, above, right):
    """Those of B with their signs, Y^T right, the rotations of X, and the sweeps they belong to."""
    n = len(diagonal)
    sweeps = np.empty((MOST_SWEEPS * n, 2), np.int64)
    room, used = n * n, FULL
    while used == FULL:
        d, e, rotated = diagonal.copy(), above.copy(), right.copy()
        rotations = np.empty((room, 2))
        used = _diagonalise(d, e, rotated, rotations, sweeps, DEFLATE)
        room *= 2
    return d, rotated, rotations, sweeps, used


@lazy_njit
def _diagonalise(d, e, right, rotations, sweeps, floor):
    """Implicit QR on the upper bidiagonal (d, e): d becomes +-S, right becomes Y^T right.

    A sweep is one step of QR on B^T B - shift^2, never formed: rotations from the right and from
    the left in turn chase the entry that the first one puts below the diagonal down and out. Those
    from the left are written down, (cos, sin) as applied to X^T w, and the sweeps as
    `tridiagonal.play` takes them, which counts rows from the last. Returns the number of sweeps,
    `UNSETTLED` if there is no room for them, `FULL` if there is no room for more rotations.
    Entries up to ``floor`` count as zero, and up to 32 times that off the diagonal for a singular
    value that does not settle.
    """
    n = len(d)
    used = 0
    count = 0
    last = n - 1
    tries = 0
    while last > 0:
        zero = floor if tries < PATIENCE else 32.0 * floor
        first = last
        least = abs(d[last])
        while first > 0 and abs(e[first - 1]) > zero:
            first -= 1
            least = min(least, abs(d[first]))
        if first == last:
            last -= 1
            tries = 0
            continue
        if used == len(sweeps):
            return UNSETTLED
        tries += 1
        if count + n > len(rotations):
            return FULL
        # Without a shift a singular B gives up its zero to the last row, in one sweep.
        f = d[first]
        if least > floor:
            shift = _smaller_singular_value(d[last - 1], e[last - 1], d[last])
            f = (abs(f) - shift) * ((1.0 if f > 0.0 else -1.0) + shift / f)
        g = e[first]
        for i in range(first, last):
            r = np.sqrt(f * f + g * g)
            c = f / r if r > 0.0 else 1.0
            s = g / r if r > 0.0 else 0.0
            if i > first:
                e[i - 1] = r
            f = c * d[i] + s * e[i]
            e[i] = c * e[i] - s * d[i]
            g = s * d[i + 1]
            d[i + 1] *= c
            carried = right[i]
            right[i] = c * carried + s * right[i + 1]
            right[i + 1] = c * right[i + 1] - s * carried

            r = np.sqrt(f * f + g * g)
            c = f / r if r > 0.0 else 1.0
            s = g / r if r > 0.0 else 0.0
            d[i] = r
            f = c * e[i] + s * d[i + 1]
            d[i + 1] = c * d[i + 1] - s * e[i]
            if i < last - 1:
                g = s * e[i + 1]
                e[i + 1] *= c
            rotations[count, 0] = c
            rotations[count, 1] = s
            count += 1
        e[last - 1] = f
        sweeps[used, 0] = n - 1 - first
        sweeps[used, 1] = n - 1 - last
        used += 1
    return used


def _smaller_singular_value(f, g, h):
    """That of [[f, g], [0, h]], without squares that overflow or cancel (LAPACK's dlas2)."""
    f, g, h = abs(f), abs(g), abs(h)
    small, large = min(f, h), max(f, h)
    if small == 0.0:
        return 0.0
    top = max(large, g)
    plus, minus, g = (large + small) / top, (large - small) / top, g / top
    return 2.0 * small * (large / top) / (np.sqrt(plus**2 + g**2) + np.sqrt(minus**2 + g**2))
