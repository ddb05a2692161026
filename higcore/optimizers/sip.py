"""Scale-invariant physics: invert the solver, not the network."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from ..backend import Array, module_of, to_host
from ..linearisation import Linearisation
from ..protocols import OptimizerState
from ..validation import check_finite, check_real_field
from .first_order import Adam


def check_takes_ridge(optimizer: object, ridge: float) -> None:
    """Raise if there is a penalty on theta for which an optimizer has no place."""
    if ridge and not getattr(optimizer, "takes_ridge", True):
        raise TypeError(
            f"{type(optimizer).__name__} teaches the network a control, in the units of u, and has "
            f"no place for a penalty on theta in those of L, here ridge = {ridge:g}; take another "
            "optimizer, or `penalised`"
        )


@dataclass(frozen=True)
class ScaleInvariantPhysics:
    """SIP: invert the solver sample by sample, then teach the network the inverted control.

    du_i = pinv(sqrt(h) S_i) g_i / sqrt(h), with h the curvature of L in y, is the Gauss-Newton step
    of sample i's control alone, which solves a linear solver exactly. Adam then takes a step on the
    proxy loss mean_i |u_i - (u_i - du_i)|^2, the target u_i - du_i held constant, so that the
    network's cotangent is 2 du_i / b (Holl, Koltun and Thuerey 2021; the paper's inversion
    approach). A penalty on theta has no place in it, and is refused.

    Parameters
    ----------
    lr : float
        Adam's learning rate.
    rcond : float
        Singular values of S_i up to rcond times the largest are not inverted.
    """

    needs_solver: ClassVar[bool] = True
    takes_ridge: ClassVar[bool] = False
    lr: float = 0.001
    rcond: float = 1e-5
    adam: Adam = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_real_field(self, "lr", 0.0, open_low=True)
        check_real_field(self, "rcond", 0.0, 1.0)
        object.__setattr__(self, "adam", Adam(lr=self.lr))

    def init(self, theta: Array) -> OptimizerState:
        """Return Adam's state."""
        return self.adam.init(theta)

    def update(
        self, linearisation: Linearisation, state: OptimizerState
    ) -> tuple[Array, OptimizerState, None]:
        """Return (step, state, None)."""
        check_takes_ridge(self, linearisation.ridge)
        du = inverted_control_step(linearisation, self.rcond)
        return self.adam.update(_Proxy(linearisation, du), state)


def inverted_control_step(linearisation: Linearisation, rcond: float = 1e-5) -> Array:
    """Return du (b, |u|), the Gauss-Newton step of every sample's control by itself."""
    S, g = linearisation.unit_rows(), linearisation.unit_gradient
    check_finite("the solver's Jacobian", S)
    xp, on_host = module_of(S), to_host(S)
    mantissa, exponent = math.frexp(linearisation.unit_curvature)
    # In units of every sample's own, powers of two, no power of a size over- or underflows.
    of_S, of_g = (
        np.frexp(abs(a).reshape(len(a), -1).max(axis=1))[1] for a in (on_host, to_host(g))
    )
    # On the host in any case: CuPy would decompose one small matrix after the other.
    inverses = xp.asarray(np.linalg.pinv(np.ldexp(on_host, -of_S[:, None, None]), rcond=rcond))
    g = xp.ldexp(g, xp.asarray(-of_g)[:, None]) / mantissa
    du = (inverses @ g[:, :, None])[:, :, 0]
    return xp.ldexp(du, xp.asarray(of_g - of_S - exponent)[:, None])


@dataclass(frozen=True)
class _Proxy:
    """What SIP shows Adam in place of the linearisation: the gradient of the proxy loss."""

    linearisation: Linearisation
    du: Array

    def gradient(self) -> Array:
        return self.linearisation.network_gradient(2 * self.du / len(self.du))
