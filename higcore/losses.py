"""Losses of one sample: value and gradient side by side.

A loss object has ``value(y, target) -> (b,)`` and ``gradient(y, target) -> (b, |y|)``, the
derivative of each sample's value with respect to its own y. Batch averages are `Problem`'s.
"""

from __future__ import annotations

from dataclasses import dataclass

from .validation import check_real


@dataclass(frozen=True)
class SquaredError:
    """l(y, t) = factor * sum_j (y_j - t_j)^2; factor 1 for the oscillators, 1/2 in eq. 4."""

    factor: float = 1.0

    def __post_init__(self):
        check_real("factor", self.factor, 0.0, open_low=True)

    def value(self, y, target):
        """Return l of each sample, (b,), for y and target (b, |y|)."""
        return self.factor * ((y - target) ** 2).sum(axis=1)

    def gradient(self, y, target):
        """Return dl/dy of each sample, (b, |y|)."""
        return 2 * self.factor * (y - target)
