"""Fully connected network."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from higcore.validation import check_choice, check_counts

from .activations import ACTIVATIONS, bounded
from .layers import Dense
from .network import Network


class MLP(Network):
    """Dense layers with one activation between them and a linear, or a bounded, output.

    .. math:: a_l = act(a_{l-1} W_l + c_l), \\qquad u = a_{L-1} W_L + c_L

    Parameters
    ----------
    sizes : sequence of int
        Layer widths, input and output included: ``(4, 20, 20, 20, 96)``.
    activation : {"tanh", "relu", "linear"}
        Applied after every layer but the last.
    bounds : (low, high), optional
        What u must stay between, each a number or a sequence (|u|,): then
        u = low + (high - low) (1 + tanh z) / 2 for the z of the last layer.

    Notes
    -----
    theta (t,) holds W_1 (row-major), c_1, W_2, c_2, ...; see `Network`.

    Examples
    --------
    >>> net = MLP((4, 20, 20, 20, 96), activation="relu")
    >>> net.size
    2956
    >>> MLP((4, 20, 2), bounds=(0, [1, 2]))
    MLP((4, 20, 2), activation='tanh', bounds=(0.0, (1.0, 2.0)))
    """

    def __init__(
        self,
        sizes: Sequence[int],
        activation: str = "tanh",
        bounds: tuple[Any, Any] | None = None,
    ) -> None:
        check_choice("activation", activation, ACTIVATIONS)
        check_counts("sizes", sizes)
        if len(sizes) < 2:
            raise ValueError(f"sizes must list at least input and output width, got {sizes!r}")
        self.sizes, self.activation = tuple(int(n) for n in sizes), activation
        self.bounds = None if bounds is None else bounded(bounds, self.sizes[-1])
        layers, start, output = [], 0, self.bounds or "linear"
        for k, (n_in, n_out) in enumerate(pairwise(self.sizes), start=2):
            is_last = k == len(self.sizes)
            layers.append(Dense(n_in, n_out, output if is_last else activation, start))
            start += layers[-1].size
        super().__init__(layers)

    def __repr__(self) -> str:
        bounds = f", bounds={self.bounds.low, self.bounds.high}" if self.bounds else ""
        return f"MLP({self.sizes}, activation={self.activation!r}{bounds})"
