"""J as two passes of the model, for methods that need products with it alone."""

from __future__ import annotations

import numpy as np

from ..backend import Array
from ..device.threads import computed_once
from ..linearisation import Linearisation, Products, StackedJacobian
from ..spectral.units import exponents_of, largest_exponent
from ..validation import check_like


class MatrixFreeJacobian(Products):
    r"""J, or sqrt(h) J (m, t), of a `Linearisation`: neither its rows nor S are ever held.

    J v is one tangent pass through the model, J^T w one backward pass; memory is that of a forward
    pass, linear in the batch. The squared Frobenius norm is an estimate, |J^T z|^2 with a random
    sign for every row z_i, whose mean it is: ``norm_squared`` (Hutchinson).

    Parameters
    ----------
    at : Linearisation
        Where.
    unit : bool
        Whether rows are multiplied by the roots of the curvature, as those of ``unit_jacobian``.
    exponent : int
        What all is multiplied by is 2^exponent.
    """

    def __init__(self, at: Linearisation, unit: bool = False, exponent: int = 0) -> None:
        self.at, self.unit, self._exponent = at, unit, exponent
        self.where = at.output
        self.samples, self.outputs = at.output.shape
        self.shape = at.output.size, at.theta.size
        self.dtype = at.theta.dtype

    def matvec(self, v: Array) -> Array:
        """Return J v (m,), float64, for v (t,)."""
        dy = self.at.tangent(v.astype(self.dtype, copy=False))
        check_like("dy = tangent(...)", dy, self.where.shape, y=self.where)
        return self._scaled(self._weighted(dy)).reshape(-1)

    def rmatvec(self, w: Array) -> Array:
        """Return J^T w (t,), float64, for w (m,)."""
        y_bar = self._weighted(w.reshape(self.where.shape)).astype(self.dtype, copy=False)
        return self._scaled(self.at.pulled_back(y_bar))

    def _weighted(self, rows):
        roots = self.at.roots if self.unit else None
        return rows if roots is None else rows * roots

    def _scaled(self, product):
        product = product.astype(np.float64, copy=False)
        return self.xp.ldexp(product, self._exponent) if self._exponent else product

    @computed_once
    def _norm_squared(self) -> float:
        signs = np.random.default_rng(0).choice((-1.0, 1.0), self.shape[0])
        pulled = self.rmatvec(self.xp.asarray(signs))
        return float(pulled @ pulled)

    def norm_squared(self) -> float:
        """Return an estimate of the squared Frobenius norm, the same at every call."""
        estimate: float = self._norm_squared
        return estimate

    def exponent(self) -> int:
        """Return e with a norm of about 2^e, 0 if J is 0."""
        return largest_exponent([int(exponents_of(np.array(self.norm_squared()))) // 2])

    def scaled(self, exponent: int) -> MatrixFreeJacobian:
        """Return 2^-exponent J."""
        return MatrixFreeJacobian(self.at, self.unit, self._exponent - exponent)

    def with_rows(self) -> StackedJacobian:
        """Return the same J with row factors, for methods that need them."""
        J = self.at.unit_jacobian() if self.unit else self.at.jacobian()
        return J.scaled(-self._exponent) if self._exponent else J
