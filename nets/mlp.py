"""Fully connected network."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from higcore.validation import check_choice, check_counts

from .activations import ACTIVATIONS
from .layers import Dense
from .network import Network


class MLP(Network):
    """Dense layers with one activation between them and a linear output.

    .. math:: a_l = act(a_{l-1} W_l + c_l), \\qquad u = a_{L-1} W_L + c_L

    Parameters
    ----------
    sizes : sequence of int
        Layer widths, input and output included: ``(4, 20, 20, 20, 96)``.
    activation : {"tanh", "relu", "linear"}
        Applied after every layer but the last.

    Notes
    -----
    theta (t,) holds W_1 (row-major), c_1, W_2, c_2, ...; see `Network`.

    Examples
    --------
    >>> net = MLP((4, 20, 20, 20, 96), activation="relu")
    >>> net.size
    2956
    """

    def __init__(self, sizes: Sequence[int], activation: str = "tanh") -> None:
        check_choice("activation", activation, ACTIVATIONS)
        check_counts("sizes", sizes)
        if len(sizes) < 2:
            raise ValueError(f"sizes must list at least input and output width, got {sizes!r}")
        self.sizes, self.activation = tuple(int(n) for n in sizes), activation
        layers, start = [], 0
        for k, (n_in, n_out) in enumerate(pairwise(self.sizes), start=2):
            is_last = k == len(self.sizes)
            layers.append(Dense(n_in, n_out, "linear" if is_last else activation, start))
            start += layers[-1].size
        super().__init__(layers)

    def __repr__(self) -> str:
        return f"MLP({self.sizes}, activation={self.activation!r})"
