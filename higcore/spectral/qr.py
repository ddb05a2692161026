r"""V f(S) U^T g with the accuracy of J: nothing is lost by squaring, and J is never whole.

With as many parameters as rows or more, and a J that is not too ill-conditioned for it, the systems
that f consists of are solved by K and corrected by products with J: `seminormal`. What is left, an
ill-conditioned J or an f that cuts modes, goes through a triangle of J, block by block. J^T = Q R
with R (m, m), of which only R is computed, from some columns of J at a time. R = W S U^T has the
left singular vectors U of J on its right, and

    V f(S) U^T g = J^T c,   c = U f(S) / S U^T g.

With more rows, [J, g] = Q [R, Q^T g] is reduced from some rows at a time, and R and Q^T g take the
place of J and g in the definition. Either way the singular vectors on the right of R are applied
to vectors by `bidiagonal`, which does not form them; on a GPU, and where that does not converge, it
is `svd` that decomposes R.

Accuracy: as `svd`, about eps / tau in the step: Householder's QR commits errors of eps max(S), and
no route that starts from float64 entries can do better on a general J.
Cost: 2 m^2 t operations (2 t^2 m with more rows) and the reduction of R; of a dense layer of more
inputs than samples a third, or less, since their rotation makes its columns fewer and zeros in them
(`OuterProductRows.narrowed`). Memory for J is one block, as large as R.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from ..backend import Array, is_host
from ..device.threads import computed_once
from . import bidiagonal, seminormal, svd
from .filters import Filter
from .inplace import call, leading
from .spectrum import EPS, DecompositionError, HalfInverseInfo, info_of, require

Jacobian: TypeAlias = Any  # one of `linearisation`: rows and columns in parts, and J^T w
Decomposed: TypeAlias = bidiagonal.RightVectors | svd.SingularVectors

NAME = "qr"
WORKSPACE = 6.0, 9.0  # numbers held at the peak over n^2: on the host, on a device
PANELS = ((250, 8), (1000, 16))  # columns factored at a time, up to so many in all; measured
WIDEST = 32
FEWEST = 128  # columns of J that are worth a call


class TriangleOfRows(NamedTuple):
    """With as many parameters as rows or more: J, its R decomposed, and U^T g."""

    J: Jacobian
    R: Decomposed
    coefficients: Array
    detail: str | None

    def apply(self, f: Filter) -> tuple[Array, HalfInverseInfo]:
        """Return J^T c, c = U f(S) / S U^T g, and what is to be said of it."""
        resolution = EPS * self.J.shape[1]
        weights = f.over_sigma(self.J.xp, self.R.sigma, resolution)
        c = self.R.combine(weights * self.coefficients)
        return self.J.rmatvec(c), _info(self, f, resolution)

    def of(self, g: Array) -> TriangleOfRows:
        """Return it for another g (m,)."""
        return self._replace(coefficients=self.R.along(g))


class TriangleOfColumns(NamedTuple):
    """With more rows: J, its R decomposed, and U^T Q^T g."""

    J: Jacobian
    R: Decomposed
    coefficients: Array
    detail: str | None

    @property
    def resolution(self) -> float:
        """The smallest s / max(S) that can be told from 0."""
        return float(EPS * self.J.shape[0])

    def apply(self, f: Filter) -> tuple[Array, HalfInverseInfo]:
        """Return V f(S) U^T Q^T g, and what is to be said of it."""
        weights = self.R.sigma * f.over_sigma(self.J.xp, self.R.sigma, self.resolution)
        return self.R.combine(weights * self.coefficients), _info(self, f, self.resolution)

    def of(self, g: Array) -> TriangleOfColumns:
        r"""Return it for another g (m,).

        Q is not kept. R = U S V^T, so U^T Q^T g = S^-1 V^T J^T g, to eps / s in a mode s of S, as
        V f(S) U^T g has it anyway.
        """
        sigma = self.R.sigma
        told = sigma > self.resolution * sigma.max()
        inverse = self.J.xp.where(told, 1.0 / self.J.xp.where(told, sigma, 1.0), 0.0)
        coefficients = inverse * self.R.along(self.J.rmatvec(g))
        return self._replace(coefficients=coefficients)

    def of_image(self, v: Array) -> TriangleOfColumns:
        """Return it for J v, v (t,): U^T Q^T J v = S V^T v, where `of` would square J."""
        return self._replace(coefficients=self.R.sigma * self.R.along(v))


def _info(triangle, f, resolution):
    sigma = triangle.R.sigma
    cutoff = f.cutoff(float(sigma.max()), resolution)
    return info_of(NAME, sigma, cutoff, triangle.detail)


@dataclass(frozen=True, eq=False)
class Corrected:
    """With as many parameters as rows or more: K, corrected by J; for some f the triangle."""

    systems: seminormal.ShiftedSystems

    @computed_once
    def triangle(self) -> TriangleOfRows:
        """What takes every f."""
        return _of_rows(self.systems.J, self.systems.g)

    def apply(self, f: Filter) -> tuple[Array, HalfInverseInfo]:
        """Return V f(S) U^T g, and what is to be said of it."""
        try:
            return self.systems.apply(f, NAME)
        except DecompositionError:
            triangle: TriangleOfRows = self.triangle
            return triangle.apply(f)

    def of(self, g: Array) -> Corrected:
        """Return it for another g (m,); a triangle is kept."""
        other = Corrected(self.systems.of(g))
        if "triangle" in self.__dict__:
            other.__dict__["triangle"] = self.triangle.of(g)
        return other


def decompose(J: Jacobian, g: Array) -> Corrected | TriangleOfRows | TriangleOfColumns:
    """Decompose an operator J (m, t) for g (m,)."""
    m, t = J.shape
    if t < m:
        return _of_columns(J, g)
    try:
        return Corrected(seminormal.decompose(J, g))
    except DecompositionError:
        return _of_rows(J, g)


def _of_rows(J: Jacobian, g: Array) -> TriangleOfRows:
    m = J.shape[0]
    parts = ((first, part.T) for first, part in J.narrow_parts(max(m // 4, FEWEST)))
    R = _triangle(J.xp, parts, m)
    found, detail = _decomposed(R, g)
    return TriangleOfRows(J, found, found.along(g), detail)


def _of_columns(J: Jacobian, g: Array) -> TriangleOfColumns:
    t = J.shape[1]
    R = _triangle(J.xp, _with_gradient(J, g), t + 1)
    found, detail = _decomposed(R[:t, :t], R[:t, t])
    return TriangleOfColumns(J, found, found.coefficients, detail)


def _decomposed(R, q):
    """R = U S V^T (n, n) and U^T q; and why by its SVD, where that was not the plan."""
    if not is_host(R):
        return svd.decompose(R, q), None
    try:
        return bidiagonal.decompose(R, q), None
    except DecompositionError as reason:
        return svd.decompose(R, q), f"{reason}: singular vectors of the triangle"


def _with_gradient(J, g):
    """Yield 0 and [J, g] (k, t + 1), about t rows at a time."""
    first = 0
    for part in J.row_parts(J.part_samples):
        yield 0, J.xp.column_stack([part, g[first : first + len(part)]])
        first += len(part)


def _triangle(xp, parts, n):
    """R (n, n) of the QR factorisation of all parts (first, (k, n - first)) stacked.

    The columns of a part before the first are zeros, and it leaves the rows of R there as they are.
    """
    R = xp.zeros((n, n), order="F")
    for first, part in parts:
        part, rest = part.astype(np.float64, copy=False), R[first:, first:]
        require(xp.isfinite(part.sum()), "J holds NaN or Inf")
        if is_host(R):
            _fold_in(rest, part)
        else:
            rest[:] = xp.linalg.qr(xp.concatenate([rest, part]), "r")
    return R


def _fold_in(R, part):
    """R <- R of [R; part]; LAPACK's QR of a triangle on top of a rectangle."""
    part = np.array(part, order="F")  # a copy: it is overwritten
    k, n = part.shape
    panel = min(next((width for most, width in PANELS if n <= most), WIDEST), n)
    T, work = np.empty((panel, n), order="F"), np.empty(panel * n)
    info = call("dtpqrt", k, n, 0, panel, R, leading(R), part, k, T, panel, work)
    require(info == 0, f"dtpqrt failed with info = {info}")
