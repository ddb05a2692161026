"""What the paper claims, as numbers that may not exceed a bound, and what ours say of it.

Every claim is judged by the same rule (`verdict`): it is held if the number stays within the bound
with every seed; under a condition if it does so in the median of the seeds, or if another number,
named with it, does with every seed; else it is not held.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ...paper.tables import markdown
from ..budgets import Budget
from .evidence import Evidence, Missing

Measure = Callable[[Evidence], np.ndarray]
KINDS = "held", "held under a condition", "not held", "no runs"
HELD, CONDITION, NOT_HELD, NO_RUNS = KINDS


@dataclass(frozen=True)
class Claim:
    """A sentence of the paper and the number that it is judged by.

    Parameters
    ----------
    section, words : str
        Where it stands, and what it says.
    quantity : str
        What is measured, for one seed.
    paper : str
        The paper's value, as far as there is one.
    measure : callable
        `Evidence` -> an array with the quantity of each seed.
    bound : float
        The most that the quantity may be.
    condition : str
        Under which ``otherwise`` is measured in place of ``measure``.
    why : str
        Why it is not held, as far as that was looked into: precision, budget, data or ours.
    """

    section: str
    words: str
    quantity: str
    paper: str
    measure: Measure
    bound: float = 1.0
    condition: str = ""
    otherwise: Measure | None = None
    why: str = ""


def verdict(claim: Claim, evidence: Evidence) -> tuple[str, np.ndarray]:
    """What our runs say of a claim, and the quantity of each seed."""
    try:
        values = _measured(claim.measure, evidence)
        if (values <= claim.bound).all():
            return HELD, values
        if np.median(values) <= claim.bound:
            count = int((values <= claim.bound).sum())
            return f"{CONDITION}: with {count} of {len(values)} seeds", values
        if claim.otherwise and (_measured(claim.otherwise, evidence) <= claim.bound).all():
            return f"{CONDITION}: {claim.condition}", values
    except Missing as run:
        return f"{NO_RUNS}: {run}", np.array([])
    return NOT_HELD, values


def _measured(measure: Measure, evidence: Evidence) -> np.ndarray:
    """What is measured; of two infinite losses or two zeros nothing is known, and not held."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return measure(evidence)


def report(budget: Budget, evidence: Evidence, claims: list[Claim]) -> str:
    """All claims with what was measured, as Markdown."""
    judged = [(claim, *verdict(claim, evidence)) for claim in claims]
    header = ("", "§", "the paper says", "measured", "at most", "paper", "ours", "verdict")
    rows = [
        (str(k), claim.section, claim.words, claim.quantity, f"{claim.bound:.2g}", claim.paper,
         spread(values), found)
        for k, (claim, found, values) in enumerate(judged, 1)
    ]  # fmt: skip
    rows = [tuple(cell.replace("|", "\\|") for cell in row) for row in rows]  # no end of a cell
    kinds = [found.partition(":")[0] for _, found, _ in judged]
    counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in KINDS if kind in kinds)
    reasons = [
        f"- {k}, {claim.words}: {claim.why or 'not looked into.'}"
        for k, (claim, found, _) in enumerate(judged, 1)
        if found == NOT_HELD
    ]
    parts = [f"# Claims of the paper\n\n{_about(budget)}", f"{counts}.", markdown(header, rows)]
    return "\n\n".join([*parts, "## Not held, and why", "\n".join(reasons)])


def spread(values: np.ndarray) -> str:
    """Median, and from lowest to highest."""
    if not len(values):
        return "-"
    return f"{np.median(values):.2g} ({values.min():.2g} to {values.max():.2g})"


def _about(b: Budget) -> str:
    command = f"python -m bench claims --budget {b.name} --seeds {b.seeds}"
    return (
        f"From run files by `{command}`, after `figure all` and `figure levels` with the same "
        f"options. Seconds of a run on one core: toy {b.toy:g}, oscillators {b.oscillators:g} "
        f"({b.grid:g} in figures 5 and 6), Poisson {b.poisson:g} ({b.poisson_matrix:g} with HIG), "
        f"dipole {b.dipole:g}, with the convolutional network {b.dipole_cnn:g}, and longer ones "
        f"where a number says so. Ours are the median of {b.seeds} seeds and, "
        "in brackets, the lowest and the highest. A claim is held if the number is within its "
        "bound with every seed; under a condition if it is in the median of the seeds, or if "
        "another number is that is measured under the condition."
    )
