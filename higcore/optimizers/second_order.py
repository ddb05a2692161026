"""Half-inverse gradients, and Gauss-Newton, which is the same with kappa = -1 and a length."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..backend import Array
from ..device.threads import computed_once
from ..half_inverse import METHODS, HalfInverseInfo, check_memory_limit, filtered
from ..linearisation import Linearisation, StackedJacobian
from ..protocols import OptimizerState
from ..spectral.filters import TruncatedPower, check_truncated_power
from ..spectral.ridge import Ridged
from ..validation import check_choice, check_flag, check_real, check_real_field
from .memory import plan_step


@dataclass(frozen=True)
class HIG:
    """Half-inverse gradients: step = lr max(S)^beta V S^kappa U^T g (eq. 7 and 21-22).

    The parameters are those of `half_inverse`; ``lr`` is the paper's eta. ``update`` returns a
    `HalfInverseInfo` as its third value. With a ``memory_limit`` (bytes; by default what the
    machine has free) that the row factors of the batch exceed, they are made in tiles of samples,
    as large as it allows; if not even that is enough, `MemoryError` says which batch would fit.

    Notes
    -----
    With a penalty on theta (`Problem.regularised`) J and g are those of `spectral.ridge.Ridged`:
    with rows of theta below those of the batch and singular values sqrt(s^2 + w / h), to which tau
    and beta refer. That takes a curvature of the loss; the mean, if there is one for each entry.

    Without one the loss needs no curvature. The step is linear in g, which holds its factor and,
    where L is a mean, 1/b. For the same step lr goes

    - with 1/c, if the loss is multiplied by c;
    - with b, from a sum to a mean;
    - for a mean, with between b^(3/4) and b, if the batch grows: J has more rows, which make its
      singular values larger by the root of b where they see the same modes, and come with modes of
      their own where they do not.
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
        return self._step(method, J, J.column(linearisation.loss_gradient), state)

    def _step(
        self, method: str, J: StackedJacobian | Ridged, g: Array, state: OptimizerState
    ) -> tuple[Array, OptimizerState, HalfInverseInfo]:
        step, info = filtered(J, g, self.filter, method, self.memory_limit)
        step *= self.lr
        return step, state, info


@dataclass(frozen=True)
class GaussNewton(HIG):
    r"""Gauss-Newton with a truncated pseudo-inverse: the least of the quadratic model of the loss.

    .. math:: step = lr \; (\sqrt h J)^+ \frac{g}{\sqrt h}, \qquad
        \text{which minimises} \quad L - g \cdot J d + \tfrac12 \textstyle\sum h \, (J d)^2

    for lr = 1, with the curvature h of L in y. Where network and solver are linear and the loss is
    a `SquaredError`, one step of a full batch is all, whatever the batch, the loss's factor and
    weights are and whether L is a mean or a sum. With a penalty on theta (`Problem.regularised`),
    whose rows are below those of J, that is ridge regression; a w up to tau^2 h max(S)^2 is cut. A
    batch with fewer rows than parameters says nothing of most of theta, and then all of that goes
    to 0 at once: with batches take a small lr, or an optimizer that damps.

    The authors' step leaves the curvature out, and is `HIG` with kappa = -1 (eq. 3),

    .. math:: step = lr \; J^+ g .

    It is that of ``paper=True``, with which ``lr`` is to go with 1/h: where L is a mean over b
    samples and h = 2 / b, the other one goes b / 2 times as far.

    Parameters
    ----------
    lr, tau, beta, truncation, method, memory_limit
        As for `HIG`.
    kappa : float
        Exponent of the singular values.
    paper : bool
        Whether to take the authors' step, for which the loss needs no curvature.

    Notes
    -----
    Where h is one number, J is decomposed as it is and the step divided by h, so that ``tau`` cuts
    the same modes with and without ``paper``; else the rows of J are multiplied by the roots of h.
    """

    kappa: float = -1.0
    paper: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_flag("paper", self.paper)
        object.__setattr__(self, "paper", bool(self.paper))

    def update(
        self, linearisation: Linearisation, state: OptimizerState
    ) -> tuple[Array, OptimizerState, HalfInverseInfo]:
        """Return (step, state, info)."""
        if self.paper:
            return super().update(linearisation, state)
        h = linearisation.unit_curvature
        check_real("the curvature of a loss", h, 0.0, open_low=True)
        method, J = plan_step(linearisation, self.method, self.filter, self.memory_limit, unit=True)
        return self._step(method, J, J.column(linearisation.unit_gradient) / h, state)
