"""Half-inverse gradients, and Gauss-Newton, which is the same with kappa = -1."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..backend import Array
from ..device.threads import computed_once
from ..half_inverse import METHODS, HalfInverseInfo, check_memory_limit, filtered
from ..linearisation import Linearisation
from ..protocols import OptimizerState
from ..spectral.filters import TruncatedPower, check_truncated_power
from ..validation import check_choice, check_real_field
from .memory import plan_step


@dataclass(frozen=True)
class HIG:
    """Half-inverse gradients: step = lr max(S)^beta V S^kappa U^T g (eq. 7 and 21-22).

    The parameters are those of `half_inverse`; ``lr`` is the paper's eta. ``update`` returns a
    `HalfInverseInfo` as its third value. With a ``memory_limit`` (bytes; by default what the
    machine has free) that the row factors of the batch exceed, they are made in tiles of samples,
    as large as it allows; if not even that is enough, `MemoryError` says which batch would fit.
    """

    lr: float = 1.0
    tau: float = 1e-6
    kappa: float = -0.5
    beta: float = 0.0
    truncation: str = "relative"
    method: str = "auto"
    memory_limit: float | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        check_real_field(self, "lr", 0.0, open_low=True)
        check_truncated_power(self)
        check_choice("method", self.method, METHODS)
        check_memory_limit(self.memory_limit)

    @computed_once
    def filter(self) -> TruncatedPower:
        """max(S)^beta s^kappa, truncated."""
        return TruncatedPower(self.kappa, self.tau, self.truncation, self.beta)

    def init(self, theta: Array) -> OptimizerState:
        """Return the empty state."""
        return {}

    def update(
        self, linearisation: Linearisation, state: OptimizerState
    ) -> tuple[Array, OptimizerState, HalfInverseInfo]:
        """Return (step, state, info)."""
        method, J = plan_step(linearisation, self.method, self.filter, self.memory_limit)
        g = linearisation.loss_gradient
        step, info = filtered(J, g, self.filter, method, self.memory_limit)
        step *= self.lr
        return step, state, info


@dataclass(frozen=True)
class GaussNewton(HIG):
    """Gauss-Newton with a truncated pseudo-inverse (eq. 3): `HIG` with kappa = -1."""

    kappa: float = -1.0
