"""What methods that square share: K of the smaller side of J, and the way from f(K) z to a step.

With K = J J^T = U S^2 U^T,  V f(S) U^T g = J^T c,  c = U f(S) / S U^T g. With fewer parameters than
rows, K = J^T J = V S^2 V^T, and the step is V f(S) / S V^T J^T g.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from ..backend import Array, is_host
from .filters import Filter
from .spectrum import SQUARED_RESOLUTION, HalfInverseInfo, info_of
from .units import root_of_trace

Jacobian: TypeAlias = Any  # one of `linearisation`


def gram(J: Jacobian) -> Array:
    """Return K, float64, the smaller of J J^T and J^T J."""
    m, t = J.shape
    if m <= t:
        return J.gram(mirrored=not is_host(J.where))  # the host reads one triangle of K
    return J.gram_of_parameters()


class Squared(NamedTuple):
    """K decomposed for g, or for J^T g, and J; K is that of a method of `half_inverse`."""

    J: Jacobian
    K: Any

    def apply(self, f: Filter) -> tuple[Array, HalfInverseInfo]:
        """Return V f(S) U^T g (t,), and what is to be said of it."""
        c, info = self.K.apply(f)
        m, t = self.J.shape
        return (self.J.rmatvec(c) if m <= t else c), info

    def of(self, g: Array) -> Squared:
        """Return it for another g (m,)."""
        return self._replace(K=self.K.of(_of_smaller_side(self.J, g)))


class Zero(NamedTuple):
    """J = 0, of which cuSOLVER's eigenvalues are NaN."""

    J: Jacobian
    method: str

    def apply(self, f: Filter) -> tuple[Array, HalfInverseInfo]:
        """Return a step of 0 and a rank of 0."""
        info = info_of(self.method, np.zeros(1), f.cutoff(0.0, SQUARED_RESOLUTION))
        return self.J.xp.zeros(self.J.shape[1]), info

    def of(self, g: Array) -> Zero:
        """Return itself, which is so for every g (m,)."""
        return self


def decompose(module: ModuleType, J: Jacobian, K: Array, g: Array) -> Squared | Zero:
    """Decompose K, that of J, for g (m,), by the module of a method; K may be overwritten."""
    if root_of_trace(K) == 0:
        return Zero(J, module.NAME)
    return Squared(J, module.decompose(K, _of_smaller_side(J, g)))


def _of_smaller_side(J, g):
    """What K's function is applied to."""
    m, t = J.shape
    return g if m <= t else J.rmatvec(g)
