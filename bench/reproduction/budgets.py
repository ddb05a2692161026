"""How long the runs of the figures are."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Budget:
    """Training seconds of a run of each kind, on one core, and how many seeds each has.

    Parameters
    ----------
    toy, oscillators, poisson, dipole, dipole_cnn : float
        Runs of an experiment.
    grid : float
        First-order optimizers on the oscillators over learning rates and batches (figures 5, 6).
    poisson_matrix, poisson_adaptive : float
        HIG and AdaptiveHIG on Poisson, whose steps take seconds.
    seeds : int
        0, 1, ... of every run.
    steps : int, optional
        The most steps of any run.
    """

    name: str
    toy: float
    oscillators: float
    grid: float
    poisson: float
    poisson_matrix: float
    poisson_adaptive: float
    dipole: float
    dipole_cnn: float
    seeds: int = 3
    steps: int | None = None


# All figures in under two hours on two cores, and the paper's hour of a run.
SHORT = Budget(
    "short", toy=8, oscillators=36, grid=10, poisson=36, poisson_matrix=120, poisson_adaptive=60,
    dipole=30, dipole_cnn=30,
)  # fmt: skip
PAPER = Budget(
    "paper", toy=120, oscillators=3600, grid=3600, poisson=14400, poisson_matrix=14400,
    poisson_adaptive=14400, dipole=3600, dipole_cnn=3600,
)  # fmt: skip
BUDGETS = {budget.name: budget for budget in (SHORT, PAPER)}
