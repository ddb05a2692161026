"""Optimizers that ask for the stacked Jacobian."""

from __future__ import annotations

from dataclasses import dataclass

from .half_inverse import METHODS, TRUNCATIONS, half_inverse
from .validation import check_choice, check_real


@dataclass(frozen=True)
class HIG:
    """Half-inverse gradients: step = lr max(S)^beta V S^kappa U^T g (eq. 7 and 21-22).

    The parameters are those of `half_inverse`; ``lr`` is the paper's eta. ``update`` returns a
    `HalfInverseInfo` as its third value.
    """

    lr: float = 1.0
    tau: float = 1e-6
    kappa: float = -0.5
    beta: float = 0.0
    truncation: str = "relative"
    method: str = "auto"

    def __post_init__(self):
        check_real("lr", self.lr, 0.0, open_low=True)
        check_real("tau", self.tau, 0.0)
        check_real("kappa", self.kappa, -1.0, 1.0)
        check_real("beta", self.beta)
        check_choice("truncation", self.truncation, TRUNCATIONS)
        check_choice("method", self.method, METHODS)

    def init(self, theta):
        """Return the empty state."""
        return {}

    def update(self, linearisation, state):
        """Return (step, state, info)."""
        step, info = half_inverse(
            linearisation.jacobian(),
            linearisation.loss_gradient,
            kappa=self.kappa,
            tau=self.tau,
            truncation=self.truncation,
            beta=self.beta,
            method=self.method,
        )
        return self.lr * step, state, info


@dataclass(frozen=True)
class GaussNewton(HIG):
    """Gauss-Newton with a truncated pseudo-inverse (eq. 3): `HIG` with kappa = -1."""

    kappa: float = -1.0
