"""Figures of a single step, on request: they cost about as much again as the step."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

from ..backend import Array
from ..linearisation import Linearisation, weighted
from ..losses import curvature_of
from .table import Table


class StepDiagnostics(NamedTuple):
    r"""One row a step; None where the optimizer has no such figure.

    ``rank``, ``sigma_max``, ``condition`` (sigma_max over the smallest kept singular value) and
    ``gap_to_cutoff`` are of the truncated Jacobian; ``damping``, ``gain`` and ``held_out`` those of
    a `HalfInverseInfo`, of a trial that may have been refused; ``step_norm`` is :math:`\|d\|` of
    the update
    theta <- theta - d. With L the mean loss of a sample on the step's own batch, h its curvature in
    y, and J d the tangent along d,

    .. math::

        predicted = \nabla L \cdot d - h |J d|^2 / 2, \qquad actual = L(\theta) - L(\theta - d),

    the former less :math:`w |d|^2 / 2` if there is a penalty on theta, with the gradient from the
    adjoint, as in training, so that a wrong one shows.

    Near 1, their ``ratio`` says that the solver is linear over the step and lr may grow; far below
    1, or negative, that the step is too long. With a small lr, 0.01, it must be 1 to about three
    digits; otherwise a derivative is wrong.
    """

    step: int
    loss: float
    step_norm: float
    predicted_decrease: float
    actual_decrease: float
    rank: int | None = None
    sigma_max: float | None = None
    condition: float | None = None
    gap_to_cutoff: float | None = None
    damping: float | None = None
    gain: float | None = None
    held_out: float | None = None

    @property
    def ratio(self) -> float:
        """Actual over predicted decrease."""
        predicted = self.predicted_decrease
        return self.actual_decrease / predicted if predicted else float("nan")


class Diagnostics(Table[StepDiagnostics]):
    """List of `StepDiagnostics`, one for each step that was diagnosed; prints like a `History`."""

    kind = StepDiagnostics
    shown: ClassVar = {
        "step": ">7", "loss": ">10.3e", "step_norm": ">9.3g", "predicted_decrease": ">18.3g",
        "actual_decrease": ">15.3g", "ratio": ">9.3g", "rank": ">5", "condition": ">9.3g",
        "gap_to_cutoff": ">13.3g", "damping": ">9.3g", "gain": ">9.3g", "held_out": ">9.3g",
    }  # fmt: skip


def _bent(at, change, Jd):
    """h |J d|^2, 0 for a loss that says no curvature, and w |d|^2 of a penalty on theta."""
    of_theta = at.ridge * (change * change).sum() if at.ridge else 0.0
    if curvature_of(at.problem.loss, at.output, at.batch.target) is None:
        return of_theta
    Jd = weighted(Jd, at.roots)
    return at.unit_curvature * (Jd * Jd).sum() + of_theta


def diagnose(number: int, at: Linearisation, change: Array, info: Any) -> StepDiagnostics:
    """The `StepDiagnostics` of update ``number``, theta - change, linearised ``at`` theta."""
    Jd = at.tangent(change)  # (b, |y|)
    predicted = float((at.gradient() * change).sum() - _bent(at, change, Jd) / 2)
    spectrum: dict[str, Any] = {}
    if hasattr(info, "sigma_min"):
        names = ("sigma_max", "condition", "gap_to_cutoff")
        spectrum = {name: float(getattr(info, name)) for name in names}
        spectrum["rank"] = int(info.rank)
        spectrum |= {name: getattr(info, name, None) for name in ("damping", "gain", "held_out")}
    return StepDiagnostics(
        step=number,
        loss=at.loss,
        step_norm=float((change * change).sum()) ** 0.5,
        predicted_decrease=predicted / (at.scale * len(Jd)),  # of the mean, whatever L is
        actual_decrease=at.loss - at.at(at.theta - change).loss,
        **spectrum,
    )
