r"""V f(S) U^T g through a triangle of J, block by block: nothing is squared, J is never whole.

With as many parameters as rows or more, J^T = Q R with R (m, m), of which only R is computed, from
some columns of J at a time. R^T = U S W^T has the left singular vectors and values of J, and

    V f(S) U^T g = J^T c,   c = U f(S) / S U^T g.

With more rows, [J, g] = Q [R, Q^T g] is reduced from some rows at a time, and R and Q^T g take the
place of J and g in the definition.

Accuracy: as `svd`, about eps / tau in the step: Householder's QR commits errors of eps max(S), and
no route that starts from float64 entries can do better on a general J.
Cost: 2 m^2 t operations (2 t^2 m with more rows) and the SVD of R; memory for J is one block, as
large as R.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np

from ..backend import Array, is_host
from . import svd
from .filters import Filter
from .inplace import call
from .spectrum import HalfInverseInfo, require
from .svd import SingularVectors

Jacobian: TypeAlias = Any  # one of `linearisation`: rows and columns in parts, and J^T w

NAME = "qr"
WORKSPACE = 9.0, 9.0  # numbers held at the peak over n^2: on the host, on a device
PANELS = ((250, 8), (1000, 16))  # columns factored at a time, up to so many in all; measured
WIDEST = 32


class TriangleOfRows(NamedTuple):
    """With as many parameters as rows or more: the singular vectors of R^T, and J."""

    J: Jacobian
    vectors: SingularVectors

    def apply(self, f: Filter) -> tuple[Array, HalfInverseInfo]:
        """Return J^T c, c = U f(S) / S U^T g, and what is to be said of it."""
        U, sigma, _, coefficients, resolution = self.vectors
        c = U @ (f.over_sigma(self.J.xp, sigma, resolution) * coefficients)
        return self.J.rmatvec(c), self.vectors.info(f, NAME)

    def of(self, g: Array) -> TriangleOfRows:
        """Return it for another g (m,)."""
        return self._replace(vectors=self.vectors.of(g))


class TriangleOfColumns(NamedTuple):
    """With more rows: the singular vectors of R, for the first entries of Q^T g, and J."""

    J: Jacobian
    vectors: SingularVectors

    def apply(self, f: Filter) -> tuple[Array, HalfInverseInfo]:
        """Return V f(S) U^T Q^T g, and what is to be said of it."""
        step, _ = self.vectors.apply(f)
        return step, self.vectors.info(f, NAME)

    def of(self, g: Array) -> TriangleOfColumns:
        r"""Return it for another g (m,).

        Q is not kept. R = U S V^T, so U^T Q^T g = S^-1 V^T J^T g, to eps / s in a mode s of S, as
        V f(S) U^T g has it anyway.
        """
        _, sigma, Vt, _, resolution = self.vectors
        told = sigma > resolution * sigma.max()
        inverse = self.J.xp.where(told, 1.0 / self.J.xp.where(told, sigma, 1.0), 0.0)
        coefficients = inverse * (Vt @ self.J.rmatvec(g))
        return self._replace(vectors=self.vectors._replace(coefficients=coefficients))

    def of_image(self, v: Array) -> TriangleOfColumns:
        """Return it for J v, v (t,): U^T Q^T J v = S V^T v, where `of` would square J."""
        coefficients = self.vectors.sigma * (self.vectors.Vt @ v)
        return self._replace(vectors=self.vectors._replace(coefficients=coefficients))


def decompose(J: Jacobian, g: Array) -> TriangleOfRows | TriangleOfColumns:
    """Decompose an operator J (m, t) for g (m,)."""
    m, t = J.shape
    if t < m:
        R = _triangle(J.xp, _with_gradient(J, g), t + 1)
        return TriangleOfColumns(J, svd.decompose(R[:t, :t], R[:t, t], longest=m))
    R = _triangle(J.xp, (part.T for part in J.column_parts(m)), m)
    return TriangleOfRows(J, svd.decompose(R.T, g, longest=t))


def _with_gradient(J, g):
    """Yield [J, g] (k, t + 1), about t rows at a time."""
    first = 0
    for part in J.row_parts(J.part_samples):
        yield J.xp.column_stack([part, g[first : first + len(part)]])
        first += len(part)


def _triangle(xp, parts, n):
    """R (n, n) of the QR factorisation of all parts (k, n) stacked."""
    R = xp.zeros((n, n), order="F")
    for part in parts:
        part = part.astype(np.float64, copy=False)
        require(xp.isfinite(part.sum()), "J holds NaN or Inf")
        R = _fold_in(R, part) if is_host(R) else xp.linalg.qr(xp.concatenate([R, part]), "r")
    return R


def _fold_in(R, part):
    """R of [R; part], in place; LAPACK's QR of a triangle on top of a rectangle."""
    part = np.array(part, order="F")  # a copy: it is overwritten
    k, n = part.shape
    panel = min(next((width for most, width in PANELS if n <= most), WIDEST), n)
    T, work = np.empty((panel, n), order="F"), np.empty(panel * n)
    info = call("dtpqrt", k, n, 0, panel, R, n, part, k, T, panel, work)
    require(info == 0, f"dtpqrt failed with info = {info}")
    return R
