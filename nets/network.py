"""A stack of layers on one flat parameter vector: forward, tangent, backward and rows."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType

import numpy as np
from numpy.typing import DTypeLike

from higcore.backend import Array
from higcore.rows import OuterProductRows
from higcore.training.identity import describe
from higcore.validation import Shape, check_arrays, check_dtype

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
        check_arrays(theta=(theta, (self.size,)), x=(x, ("b", self.input_size)))
        tape = [x]
        for layer in self.layers:
            tape.append(layer.forward(theta, tape[-1]))
        return tape[-1], tape

    def tangent(self, theta: Array, tape: list[Array], dtheta: Array) -> Array:
        """Return du (b, |u|), the derivative of u along dtheta (t,)."""
        xp = self._check(theta, tape, dtheta=(dtheta, (self.size,)))
        da = xp.zeros_like(tape[0])
        for layer, a, a_out in self._passes(tape):
            da = layer.tangent(theta, dtheta, a, a_out, da)
        return da

    def backward(self, theta: Array, tape: list[Array], u_bar: Array) -> Array:
        """Return theta_bar (t,), the sum over samples of (du/dtheta)^T u_bar, u_bar (b, |u|)."""
        xp = self._check(theta, tape, u_bar=(u_bar, ("b", self.output_size)))
        theta_bar, a_bar = xp.empty_like(theta), u_bar
        for layer, a, a_out in reversed(self._passes(tape)):
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
        self._check(theta, tape, S=(S, ("b", "|y|", self.output_size)))
        blocks, pulled = [], S
        for layer, a, a_out in reversed(self._passes(tape)):
            blocks.append(layer.rows(theta, a, a_out, pulled))
            if layer is not self.layers[0]:
                pulled = layer.pull_rows(theta, a, a_out, pulled, blocks[-1].delta)
        return blocks[::-1]

    def _passes(self, tape):
        """(layer, its input, its output), the first layer first."""
        return list(zip(self.layers, tape[:-1], tape[1:], strict=True))

    def _check(self, theta: Array, tape: list[Array], **other: tuple[Array, Shape]) -> ModuleType:
        """The array module, or raise unless all are of these layers, and of as many samples."""
        if not isinstance(tape, list) or len(tape) != len(self.layers) + 1:
            raise TypeError("tape must be what forward returned beside u")
        x = tape[0], ("b", self.input_size)
        return check_arrays(theta=(theta, (self.size,)), tape=x, **other, same_dtype=False)
