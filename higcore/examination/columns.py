"""The Jacobian by differences, and the units in which its outputs are measured."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .differences import largest

ROUGH = 0.05  # relative uncertainty from which differences are no judge
CANCELLING = 1e-3  # of the largest output or unit: what small numbers made of large ones count


@dataclass
class Columns:
    """Columns (b, n, k) of the Jacobian of a `Differentiable`, by differences.

    ``rounding`` (n,) is what rounding alone adds to the uncertainty, ``truncation`` the relative
    error that is always allowed, ``of`` the number of all columns.
    """

    numbers: np.ndarray
    value: np.ndarray
    uncertainty: np.ndarray
    rounding: np.ndarray
    truncation: float
    of: int

    @property
    def complete(self):
        """True if these are all columns."""
        return len(self.numbers) == self.of

    @property
    def share(self):
        """How many these are, to be said in a table."""
        return "" if self.complete else f", {len(self.numbers)} of {self.of} columns"

    @cached_property
    def size(self):
        """The largest derivative of each output (n,)."""
        return largest(self.value)

    @cached_property
    def unsure(self):
        """How uncertain a derivative of each output is (n,), by the median of those not zero."""
        active = (self.value != 0) | (self.uncertainty > self.rounding[:, None])
        active |= ~active.any(axis=(0, 2), keepdims=True)
        return np.nanmedian(np.where(active, self.uncertainty, np.nan), axis=(0, 2))

    def spread_noise(self):
        """Let none be surer than is typical of its output: noise may be small by chance."""
        self.uncertainty = np.maximum(self.uncertainty, self.unsure[:, None])

    @cached_property
    def untold(self):
        """Outputs (n,) of whose derivatives the differences do not tell enough."""
        return self.unsure > ROUGH * self.size

    @cached_property
    def rough(self):
        """Those of the ``untold`` whose differences mean nothing: not rounding makes them so."""
        return self.untold & (self.unsure > 2 * self.rounding)

    @cached_property
    def units(self):
        """A derivative of each output (n,) that counts as one: the largest, or as far as known.

        An output counts as little as differences know of it, and so never hides another one. One
        without a derivative to be seen may still have the rounding of what cancels.
        """
        units = np.maximum(self.size, self.unsure / self.truncation)
        top = units.max() or 1.0
        unseen = self.untold | (self.size == 0)
        return np.where(unseen, np.maximum(units, CANCELLING * top), units)

    def doubt(self, outputs):
        """Why these of the outputs cannot be judged: the first of them, and what it is like."""
        j = outputs.nonzero()[0][0]
        why = "too rough or too noisy" if self.rough[j] else "hidden by the rounding of its values"
        return f"{self.size[j]:.1g} +- {self.unsure[j]:.1g} by differences: {why}"
