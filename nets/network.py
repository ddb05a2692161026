"""A stack of layers on one flat parameter vector: forward, tangent, backward and rows."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import DTypeLike

from higcore.backend import Array, array_module
from higcore.identity import describe
from higcore.rows import OuterProductRows
from higcore.validation import check_array, check_dtype, check_same_dtype

from .layers import Layer


class Network:
    """Layers applied one after the other; `MLP` and `ConvNet1d` say which.

    Attributes
    ----------
    layers : list
        Objects with ``size``, ``n_in``, ``n_out``, ``factor_shape``, ``init``, ``forward``,
        ``tangent``, ``backward``, ``rows`` and ``pull_rows``; see `nets.layers`, and
        docs/your-own-physics.md for layers of your own.
    size : int
        Number t of parameters; theta (t,) holds those of the first layer first.

    Notes
    -----
    Stateless: theta goes in, arrays come out, on the device and in the dtype of the arrays.
    The ``tape`` of `forward` is the list of all layers' inputs and the output.
    """

    def __init__(self, layers: Sequence[Layer]) -> None:
        self.layers = layers
        self.size = sum(layer.size for layer in layers)

    def __repr__(self) -> str:
        return f"{type(self).__name__}([{', '.join(map(describe, self.layers))}])"

    @property
    def input_size(self) -> int:
        """Width of the input."""
        return self.layers[0].n_in

    @property
    def output_size(self) -> int:
        """Width of the output, |u|."""
        return self.layers[-1].n_out

    @property
    def factor_shapes(self) -> list[tuple[int, int, int]]:
        """(P, n_in, n_out) of every layer: positions at which its weights are used, and widths."""
        return [layer.factor_shape for layer in self.layers]

    def init(self, rng: np.random.Generator, dtype: DTypeLike = np.float64) -> Array:
        """Return theta (t,): Glorot-uniform weights, zero biases.

        Weights are uniform in +-sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio 2010), drawn from
        ``rng``, a `numpy.random.Generator`, on the CPU.
        """
        if not isinstance(rng, np.random.Generator):
            raise TypeError(f"rng must be a numpy.random.Generator, got {rng!r}")
        check_dtype("dtype", dtype)
        theta = np.empty(self.size, dtype)
        for layer in self.layers:
            layer.init(rng, theta)
        return theta

    def forward(self, theta: Array, x: Array) -> tuple[Array, list[Array]]:
        """Return u (b, |u|) and the tape, for theta (t,) and inputs x (b, input_size)."""
        array_module(theta=theta, x=x)
        check_array("theta", theta, (self.size,))
        check_array("x", x, ("b", self.input_size))
        check_same_dtype(theta=theta, x=x)
        tape = [x]
        for layer in self.layers:
            tape.append(layer.forward(theta, tape[-1]))
        return tape[-1], tape

    def tangent(self, theta: Array, tape: list[Array], dtheta: Array) -> Array:
        """Return du (b, |u|), the derivative of u along dtheta (t,)."""
        self._check_tape(theta, tape)
        array_module(theta=theta, dtheta=dtheta)
        check_array("dtheta", dtheta, (self.size,))
        da = array_module(x=tape[0]).zeros_like(tape[0])
        for layer, (a, a_out) in zip(self.layers, pairwise(tape), strict=True):
            da = layer.tangent(theta, dtheta, a, a_out, da)
        return da

    def backward(self, theta: Array, tape: list[Array], u_bar: Array) -> Array:
        """Return theta_bar (t,), the sum over samples of (du/dtheta)^T u_bar, u_bar (b, |u|)."""
        self._check_tape(theta, tape)
        xp = array_module(theta=theta, u_bar=u_bar)
        check_array("u_bar", u_bar, (len(tape[0]), self.output_size))
        theta_bar, a_bar = xp.empty_like(theta), u_bar
        for layer, (a, a_out) in zip(reversed(self.layers), _reversed_pairs(tape), strict=True):
            a_bar = layer.backward(theta, theta_bar, a, a_out, a_bar)
        return theta_bar

    def part(self, tape: list[Array], samples: slice) -> list[Array]:
        """Return the tape of a slice of the samples."""
        return [a[samples] for a in tape]

    def rows(self, theta: Array, tape: list[Array], S: Array) -> list[OuterProductRows]:
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
        self._check_tape(theta, tape)
        array_module(theta=theta, S=S)
        check_array("S", S, (len(tape[0]), "|y|", self.output_size))
        blocks, rows = [], S
        for layer, (a, a_out) in zip(reversed(self.layers), _reversed_pairs(tape), strict=True):
            blocks.append(layer.rows(theta, a, a_out, rows))
            if layer is not self.layers[0]:
                rows = layer.pull_rows(theta, a, a_out, rows, blocks[-1].delta)
        return blocks[::-1]

    def _check_tape(self, theta, tape):
        if not isinstance(tape, list) or len(tape) != len(self.layers) + 1:
            raise TypeError("tape must be what forward returned beside u")
        array_module(theta=theta, tape=tape[0])
        check_array("theta", theta, (self.size,))


def _reversed_pairs(tape):
    return reversed(list(pairwise(tape)))
