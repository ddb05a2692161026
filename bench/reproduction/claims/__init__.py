"""What the paper claims, and what our runs say of it."""

from __future__ import annotations

from ..budgets import Budget
from .chains import of_ablations, of_oscillators, of_toy
from .claim import Claim
from .fields import of_dipole, of_poisson, of_settings_of_dipole


def claims(budget: Budget) -> list[Claim]:
    """All claims, in the order of the paper, measured on the runs of a budget."""
    parts = (of_toy, of_oscillators, of_poisson, of_dipole, of_settings_of_dipole, of_ablations)
    return [claim for part in parts for claim in part(budget)]
