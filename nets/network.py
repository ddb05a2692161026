"""A stack of layers on one flat parameter vector: forward, tangent, backward and rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from higcore.backend import Array
from higcore.rows import OuterProductRows
from higcore.training.identity import describe
from higcore.validation import Shape, check_arrays, check_dtype

from .layers import Layer
from .scalar import ScalarNetwork, scalar_network

PASSES = ("forward", "backward", "rows", "pull")


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

    Examples
    --------
    >>> from nets import MLP
    >>> network = MLP((4, 8, 2))
    >>> theta = network.init(np.random.default_rng(0))
    >>> network(theta, np.zeros((3, 4))).shape
    (3, 2)
    >>> {name: array.shape for name, array in network.parameters(theta).items()}
    {'weights_1': (4, 8), 'bias_1': (8,), 'weights_2': (8, 2), 'bias_2': (2,)}
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
    def scalar(self) -> ScalarNetwork | None:
        """The same network as functions that a kernel calls, for dense layers; else None.

        None, too, for a subclass that computes in a way of its own.
        """
        own = (getattr(type(self), name) is not getattr(Network, name) for name in PASSES)
        return None if any(own) else scalar_network(self.layers)

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

    def __call__(self, theta: Array, x: Array) -> Array:
        """Return u (b, |u|), for theta (t,) and inputs x (b, input_size): `forward`, no tape."""
        u, _ = self.forward(theta, x)
        return u

    def parameters(self, theta: Array) -> dict[str, Array]:
        """Return theta (t,) by name: ``weights_1``, ``bias_1``, ``weights_2`` ..., views of it.

        Weights are (n_in, n_out), those of a convolution (width, channels, features); the number is
        that of the layer, from 1.

        Raises
        ------
        TypeError
            For a layer of one's own without ``named_parameters``; see `nets.layers.Layer`.
        """
        check_arrays(theta=(theta, (self.size,)))
        return self._named(theta)

    def flat(self, parameters: Mapping[str, Array]) -> Array:
        """Return theta (t,), a new array, of `parameters`: arrays of these names and shapes.

        Raises
        ------
        ValueError, TypeError
            If a name is missing or unknown, a shape another, or dtypes or libraries are mixed.
        """
        places = self._named(np.arange(self.size))  # where in theta each number goes
        _check_names(parameters, places)
        given: dict[str, Any] = {name: (parameters[name], places[name].shape) for name in places}
        xp = check_arrays(**given)
        numbers = xp.concatenate([parameters[name].reshape(-1) for name in places])
        order = np.concatenate([place.reshape(-1) for place in places.values()])
        theta = xp.empty_like(numbers)
        theta[xp.asarray(order)] = numbers
        return theta

    def _named(self, theta: Array) -> dict[str, Array]:
        """`parameters`, of any array (t,)."""
        named: dict[str, Array] = {}
        for k, layer in enumerate(self.layers, start=1):
            if not hasattr(layer, "named_parameters"):
                raise TypeError(
                    f"layer {k}, {describe(layer)}, must have named_parameters(theta) -> "
                    "{name: view of theta}, for parameters and flat"
                )
            own = {f"{name}_{k}": array for name, array in layer.named_parameters(theta).items()}
            if sum(array.size for array in own.values()) != layer.size:
                raise TypeError(
                    f"named_parameters of layer {k}, {describe(layer)}, must give all of its "
                    f"{layer.size} parameters, got shapes {[a.shape for a in own.values()]}"
                )
            named |= own
        return named

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
        blocks, _ = self._rows(theta, tape, S)
        return blocks

    def pull(self, theta: Array, tape: list[Array], u_bar: Array) -> Array:
        """Return x_bar (b, r, input_size), u_bar (b, r, |u|) pulled back to the input.

        What stands before the network, as within a time loop, goes on from there.
        """
        self._check(theta, tape, u_bar=(u_bar, ("b", "r", self.output_size)))
        blocks, pulled = self._rows(theta, tape, u_bar)
        first = self.layers[0]
        return first.pull_rows(theta, tape[0], tape[1], pulled, blocks[0].delta)

    def _rows(
        self, theta: Array, tape: list[Array], S: Array
    ) -> tuple[list[OuterProductRows], Array]:
        """Row factors, layer by layer, and S at the output of the first layer."""
        blocks, pulled = [], S
        for layer, a, a_out in reversed(self._passes(tape)):
            blocks.append(layer.rows(theta, a, a_out, pulled))
            if layer is not self.layers[0]:
                pulled = layer.pull_rows(theta, a, a_out, pulled, blocks[-1].delta)
        return blocks[::-1], pulled

    def _passes(self, tape):
        """(layer, its input, its output), the first layer first."""
        return list(zip(self.layers, tape[:-1], tape[1:], strict=True))

    def _check(self, theta: Array, tape: list[Array], **other: tuple[Array, Shape]) -> ModuleType:
        """The array module, or raise unless all are of these layers, and of as many samples."""
        if not isinstance(tape, list) or len(tape) != len(self.layers) + 1:
            raise TypeError("tape must be what forward returned beside u")
        x = tape[0], ("b", self.input_size)
        return check_arrays(theta=(theta, (self.size,)), tape=x, **other, same_dtype=False)


def _check_names(parameters, known):
    if not isinstance(parameters, Mapping):
        raise TypeError(
            f"parameters must be a dict of arrays by name, got {type(parameters).__name__}"
        )
    missing = [name for name in known if name not in parameters]
    unknown = [name for name in parameters if name not in known]
    if missing or unknown:
        raise ValueError(
            f"parameters must be named {', '.join(known)}; missing: "
            f"{', '.join(missing) or 'none'}, unknown: {', '.join(map(str, unknown)) or 'none'}"
        )
