r"""f of [J; sqrt(c) I] by a decomposition of J alone: rows of theta, which belong to no sample.

With J_c = [J; sqrt(c) I] (m + t, t) = U_c R V^T, R = sqrt(S^2 + c), and F(x) = f(r) / r at
r = sqrt(x + c),

    V f(R) U_c^T [a; p] = F(J^T J) (J^T a + q) = J^T F(K) a + F(0) q + J^T G(K) J q,

    q = sqrt(c) p,   G(x) = (F(x) - F(0)) / x,   K = J J^T:

J^T G(K) J is F(J^T J) - F(0), whichever side of J is the smaller. So K is decomposed as without
the penalty, and applied to two vectors in place of one, with a product J q in addition. Only
`lanczos`, whose spaces are those of a vector, makes two of them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from ..backend import Array
from ..device.threads import computed_once
from . import cholesky, qr, svd
from .filters import Damped, Filter, Shifted, ShiftedSlope
from .spectrum import EPS, SQUARED_RESOLUTION, HalfInverseInfo

Jacobian: TypeAlias = Any  # one of `linearisation`


@dataclass(frozen=True, eq=False)
class Ridged:
    r"""[J; sqrt(c) I] for a loss L + w/2 |theta|^2, c = w / h with the curvature h of L in y.

    .. math:: J_c = \begin{pmatrix} J \\ \sqrt{w/h}\, I \end{pmatrix}, \qquad
              g_c = \begin{pmatrix} g \\ \sqrt{w h}\, \theta \end{pmatrix}, \qquad
              J_c^\top g_c = J^\top g + w \theta, \qquad h J_c^\top J_c = h J^\top J + w :

    to the rows of theta L has the same curvature as to those of samples, so that

    .. math:: -g_c \cdot J_c d + \tfrac h2 |J_c d|^2

    is the whole of the model of a step d.

    Parameters
    ----------
    data : Jacobian
        J (m, t), the rows of samples.
    root : float
        sqrt(c).
    pull : array (t,)
        sqrt(w h) theta, float64.
    """

    data: Jacobian
    root: float
    pull: Array

    @property
    def dtype(self) -> np.dtype:
        """That of J."""
        dtype: np.dtype = self.data.dtype
        return dtype

    @property
    def xp(self) -> Any:
        """The array module of J."""
        return self.data.xp

    def with_rows(self) -> Ridged:
        """Return the same for methods that need the rows of J."""
        return replace(self, data=self.data.with_rows())

    def column(self, a: Array, share: float = 1.0) -> Array:
        """Return [a; share pull] (m + t,) for a (m,) or (b, |y|)."""
        return self.xp.concatenate([a.reshape(-1), share * self.pull])

    def matvec(self, v: Array) -> Array:
        """Return [J v; sqrt(c) v] (m + t,)."""
        return self.xp.concatenate([self.data.matvec(v), self.root * v])


@dataclass(frozen=True, eq=False)
class OverRidge:
    """J decomposed for a (m,), and c; [a; p] is what f of J and sqrt(c) I is applied to."""

    J: Ridged
    of_data: Any  # has ``apply`` and ``of``
    a: Array
    p: Array
    method: str

    @property
    def resolution(self) -> float:
        """The smallest s / max(S) that the method tells from 0."""
        if self.method in (svd.NAME, qr.NAME):
            return float(EPS * max(self.J.data.shape))
        return float(SQUARED_RESOLUTION)

    @computed_once
    def q(self) -> Array:
        """sqrt(c) p (t,)."""
        return self.J.root * self.p

    @computed_once
    def Jq(self) -> Array:
        """J q (m,)."""
        return self.J.data.matvec(self.q)

    @computed_once
    def of_Jq(self) -> Any:
        """J decomposed for J q."""
        if hasattr(self.of_data, "of_image"):
            return self.of_data.of_image(self.q)
        return self.of_data.of(self.Jq)

    def apply(self, f: Filter) -> tuple[Array, HalfInverseInfo]:
        """Return V f(R) U_c^T [a; p] (t,), and what is to be said of it.

        That is how many modes of J are kept, and the sizes of their r.
        """
        c = self.J.root**2
        if self.method == cholesky.NAME and isinstance(f, Damped) and not f.mu:
            step, info = self._damped(f, c)
        else:
            F, G = Shifted(f, c), ShiftedSlope(f, c)
            (of_a, info), (of_q, beside) = self.of_data.apply(F), self.of_Jq.apply(G)
            info = replace(info, error=_larger(info.error, beside.error))
            step = of_a + of_q + F.at_zero(info.sigma_max, self.resolution) * self.q
        sizes = {name: getattr(info, name) for name in ("sigma_max", "sigma_min", "cutoff")}
        return step, replace(info, **{k: (s * s + c) ** 0.5 for k, s in sizes.items()})

    def _damped(self, f, c):
        """F = 1 / (h x + h c + lambda), of which G is a multiple: one vector is enough."""
        F = replace(f, damping=f.damping + f.curvature * c)
        at_zero = 1 / F.damping
        step, info = self.of_data.of(self.a - f.curvature * at_zero * self.Jq).apply(F)
        return step + at_zero * self.q, info

    def of(self, g: Array) -> OverRidge:
        """Return it for another [a; p] (m + t,)."""
        a, p = g[: len(self.a)], g[len(self.a) :]
        return OverRidge(self.J, self.of_data.of(a), a, p, self.method)


def _larger(one, other):
    """The larger of two bounds of errors, of two vectors that a step is made of; None for none."""
    return None if one is None or other is None else max(one, other)
