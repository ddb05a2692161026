"""Fully connected network on one flat parameter vector."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from higcore.backend import array_module
from higcore.validation import check_array, check_choice, check_count, check_same_dtype

from .activations import ACTIVATIONS
from .layers import Dense


class MLP:
    """Dense layers with one activation between them and a linear output.

    .. math:: a_l = act(a_{l-1} W_l + c_l), \\qquad u = a_{L-1} W_L + c_L

    Parameters
    ----------
    sizes : sequence of int
        Layer widths, input and output included: ``(4, 20, 20, 20, 96)``.
    activation : {"tanh", "relu", "linear"}
        Applied after every layer but the last.

    Attributes
    ----------
    size : int
        Number t of parameters. theta (t,) holds W_1 (row-major), c_1, W_2, c_2, ...

    Notes
    -----
    Stateless: theta goes in, arrays come out, on the device and in the dtype of the arrays.
    The ``tape`` of `forward` is the list of all layers' inputs and the output.

    Examples
    --------
    >>> net = MLP((4, 20, 20, 20, 96), activation="relu")
    >>> net.size
    2956
    """

    def __init__(self, sizes, activation="tanh"):
        check_choice("activation", activation, ACTIVATIONS)
        if len(sizes) < 2:
            raise ValueError(f"sizes must list at least input and output width, got {sizes!r}")
        for n in sizes:
            check_count("sizes", n)
        self.sizes, self.activation = tuple(int(n) for n in sizes), activation
        self.layers, start = [], 0
        for k, (n_in, n_out) in enumerate(pairwise(self.sizes), start=2):
            is_last = k == len(self.sizes)
            self.layers.append(Dense(n_in, n_out, "linear" if is_last else activation, start))
            start += self.layers[-1].size
        self.size = start

    def __repr__(self):
        return f"MLP({self.sizes}, activation={self.activation!r})"

    @property
    def input_size(self):
        """Width of the input."""
        return self.sizes[0]

    @property
    def output_size(self):
        """Width of the output, |u|."""
        return self.sizes[-1]

    def init(self, rng, dtype=np.float64):
        """Return theta (t,): Glorot-uniform weights, zero biases.

        W is uniform in +-sqrt(6 / (n_in + n_out)) (Glorot and Bengio 2010), drawn from
        ``rng``, a `numpy.random.Generator`, on the CPU.
        """
        theta = np.empty(self.size, dtype)
        for layer in self.layers:
            layer.init(rng, theta)
        return theta

    def forward(self, theta, x):
        """Return u (b, |u|) and the tape, for theta (t,) and inputs x (b, sizes[0])."""
        array_module(theta=theta, x=x)
        check_array("theta", theta, (self.size,))
        check_array("x", x, ("b", self.input_size))
        check_same_dtype(theta=theta, x=x)
        tape = [x]
        for layer in self.layers:
            tape.append(layer.forward(theta, tape[-1]))
        return tape[-1], tape

    def tangent(self, theta, tape, dtheta):
        """Return du (b, |u|), the derivative of u along dtheta (t,)."""
        array_module(theta=theta, dtheta=dtheta)
        check_array("dtheta", dtheta, (self.size,))
        da = array_module(x=tape[0]).zeros_like(tape[0])
        for layer, (a, a_out) in zip(self.layers, pairwise(tape), strict=True):
            da = layer.tangent(theta, dtheta, a, a_out, da)
        return da

    def backward(self, theta, tape, u_bar):
        """Return theta_bar (t,), the sum over samples of (du/dtheta)^T u_bar, u_bar (b, |u|)."""
        xp = array_module(theta=theta, u_bar=u_bar)
        check_array("u_bar", u_bar, (len(tape[0]), self.output_size))
        theta_bar, a_bar = xp.empty_like(theta), u_bar
        for layer, (a, a_out) in zip(reversed(self.layers), _reversed_pairs(tape), strict=True):
            a_bar = layer.backward(theta, theta_bar, a, a_out, a_bar)
        return theta_bar

    def rows(self, theta, tape, S):
        """Pull the rows of the solver's Jacobian back through the network.

        Parameters
        ----------
        S : array (b, |y|, |u|)
            dy_i/du_i of every sample.

        Returns
        -------
        list of OuterProductRows
            The rows of J = dy/dtheta, layer by layer, as factors.
        """
        array_module(theta=theta, S=S)
        check_array("S", S, (len(tape[0]), "|y|", self.output_size))
        blocks, rows = [], S
        for layer, (a, a_out) in zip(reversed(self.layers), _reversed_pairs(tape), strict=True):
            blocks.append(layer.rows(a, a_out, rows))
            if layer is not self.layers[0]:
                rows = layer.pull_rows(theta, blocks[-1].delta)
        return blocks[::-1]


def _reversed_pairs(tape):
    return reversed(list(pairwise(tape)))
