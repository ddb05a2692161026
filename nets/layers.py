"""Layers as stateless objects: forward, backward, tangent and rows stand side by side.

A layer knows where its parameters lie in the flat vector theta. Shapes: b samples, r cotangents
a sample, n_in inputs, n_out outputs.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from higcore.backend import Array, module_of
from higcore.rows import OuterProductRows

from .activations import ACTIVATIONS, Activation, Bounded


class Layer(Protocol):
    """What `Network` asks of a layer; `Dense` says what each method does.

    ``size`` is the number of parameters, ``n_in`` and ``n_out`` are the widths of input and output,
    ``factor_shape`` is (P, n_in, n_out) of the weights: positions at which they are used, and their
    shape.

    Optional: ``named_parameters(theta) -> {name: view of theta}``, all parameters of the layer,
    for `Network.parameters` and `Network.flat`.
    """

    @property
    def size(self) -> int: ...
    @property
    def n_in(self) -> int: ...
    @property
    def n_out(self) -> int: ...
    @property
    def factor_shape(self) -> tuple[int, int, int]: ...
    def init(self, rng: np.random.Generator, theta: Array, /) -> None: ...
    def forward(self, theta: Array, a: Array, /) -> Array: ...
    def tangent(
        self, theta: Array, dtheta: Array, a: Array, a_out: Array, da: Array, /
    ) -> Array: ...
    def backward(
        self, theta: Array, theta_bar: Array, a: Array, a_out: Array, a_out_bar: Array, /
    ) -> Array: ...
    def rows(self, theta: Array, a: Array, a_out: Array, pulled: Array, /) -> OuterProductRows: ...
    def pull_rows(
        self, theta: Array, a: Array, a_out: Array, pulled: Array, delta: Array, /
    ) -> Array: ...


class Dense:
    """a_out = act(a W + c) with W (n_in, n_out) and bias c (n_out,).

    A layer that uses one W (fan_in, features) at P positions, such as `Conv1d`, differs from this
    one, of P = 1, by what each position sees of the input: ``patches`` and its transpose.
    ``activation`` is "tanh", "relu", "linear", or an object with ``value(z)`` and ``slope(a)``.
    """

    def __init__(
        self, n_in: int, n_out: int, activation: str | Activation | Bounded, start: int
    ) -> None:
        self.settings: tuple = (n_in, n_out, activation, start)
        self.n_in, self.n_out = n_in, n_out
        self._place((1, n_in, n_out), n_in + n_out, activation, start)

    def _place(self, factor_shape, fans, activation, start):
        self.factor_shape: tuple[int, int, int] = factor_shape
        self.positions, self.fan_in, self.features = factor_shape
        self.fans, self.start = fans, start
        self.activation = ACTIVATIONS[activation] if isinstance(activation, str) else activation
        self.size: int = (self.fan_in + 1) * self.features

    def __repr__(self) -> str:
        return f"{type(self).__name__}{self.settings}"

    def patches(self, a: Array) -> Array:
        """a (b, n_in) -> what W multiplies, (b, fan_in), or (b, P, fan_in) of several positions."""
        return a

    def scatter(self, patches: Array, leading: tuple[int, ...]) -> Array:
        r"""Transpose of `patches`: cotangents (.., fan_in) of positions -> (\*leading, n_in)."""
        return patches.reshape(*leading, self.n_in)

    def parameters(self, theta: Array) -> tuple[Array, Array]:
        """Views of theta (t,): W (fan_in, features) and c (features,)."""
        split = self.start + self.fan_in * self.features
        weights = theta[self.start : split].reshape(self.fan_in, self.features)
        return weights, theta[split : split + self.features]

    def named_parameters(self, theta: Array) -> dict[str, Array]:
        """The same views by name, the weights of a convolution as (width, channels, features)."""
        weights, bias = self.parameters(theta)
        return {"weights": weights.reshape(self.weights_shape), "bias": bias}

    @property
    def weights_shape(self) -> tuple[int, ...]:
        """What people expect of W."""
        return self.fan_in, self.features

    def init(self, rng: np.random.Generator, theta: Array) -> None:
        """Write weights uniform in +-sqrt(6 / (fan_in + fan_out)) (Glorot) and zero biases."""
        weights, bias = self.parameters(theta)
        limit = np.sqrt(6.0 / self.fans)
        weights[:] = rng.uniform(-limit, limit, weights.shape)
        bias[:] = 0

    def forward(self, theta: Array, a: Array) -> Array:
        """a (b, n_in) -> a_out (b, n_out)."""
        weights, bias = self.parameters(theta)
        z = self.patches(a) @ weights + bias  # (b, P, fan_in) x (fan_in, features)
        return self.activation.value(z).reshape(len(a), self.n_out)

    def tangent(self, theta: Array, dtheta: Array, a: Array, a_out: Array, da: Array) -> Array:
        """da_out = act'(z) * (patches(a) dW + patches(da) W + dc)."""
        weights, _ = self.parameters(theta)
        dweights, dbias = self.parameters(dtheta)
        dz = self.patches(a) @ dweights + self.patches(da) @ weights + dbias
        return self.activation.slope(a_out) * dz.reshape(len(a), self.n_out)

    def backward(
        self, theta: Array, theta_bar: Array, a: Array, a_out: Array, a_out_bar: Array
    ) -> Array:
        """Write W_bar and c_bar into theta_bar, return a_bar: a_out_bar (b, n_out) -> (b, n_in)."""
        weights, _ = self.parameters(theta)
        weights_bar, bias_bar = self.parameters(theta_bar)
        delta = (a_out_bar * self.activation.slope(a_out)).reshape(-1, self.features)
        # (fan_in, b P) x (b P, features)
        weights_bar[:] = self.patches(a).reshape(-1, self.fan_in).T @ delta
        bias_bar[:] = delta.sum(axis=0)
        return self.scatter(delta @ weights.T, (len(a),))  # (b P, features) x (features, fan_in)

    def rows(self, theta: Array, a: Array, a_out: Array, pulled: Array) -> OuterProductRows:
        """Factors of this layer's rows of J, from S pulled back to its output, (b, r, n_out)."""
        b, r, _ = pulled.shape
        delta = pulled
        if self.activation != ACTIVATIONS["linear"]:  # S itself needs no copy
            delta = pulled * self.activation.slope(a_out)[:, None, :]
        delta = delta.reshape(b, r, self.positions, self.features)
        inputs = self.patches(a).reshape(b, self.positions, self.fan_in)
        return OuterProductRows(inputs, delta, self.start)

    def pull_rows(self, theta: Array, a: Array, a_out: Array, pulled: Array, delta: Array) -> Array:
        """S at the layer's input: delta (b, r, P, features) -> (b, r, n_in)."""
        weights, _ = self.parameters(theta)
        # (b r P, features) x (features, fan_in)
        return self.scatter(delta.reshape(-1, self.features) @ weights.T, delta.shape[:2])


class Conv1d(Dense):
    """a_out[p] = act(sum_k a[p + k] W_k + c): a valid convolution over P = points - width + 1.

    A signal is flat (points, channels), row-major; W (width channels, features) acts on the
    patches of ``width`` neighbouring points. The first layer of a network takes its input as
    (channels, points) if ``channels_first``.
    """

    def __init__(
        self,
        points: int,
        channels: int,
        features: int,
        width: int,
        activation: str | Activation | Bounded,
        start: int,
        channels_first: bool = False,
    ) -> None:
        self.settings = points, channels, features, width, activation, start, channels_first
        self.points, self.channels, self.width = points, channels, width
        self.channels_first = channels_first
        positions, fan_in = points - width + 1, width * channels
        self.n_in, self.n_out = points * channels, positions * features
        self._place((positions, fan_in, features), fan_in + width * features, activation, start)

    @property
    def weights_shape(self) -> tuple[int, ...]:
        """(width, channels, features)."""
        return self.width, self.channels, self.features

    def patches(self, a: Array) -> Array:
        """(b, P, width channels): the neighbouring points that each position sees."""
        signal = a.reshape(len(a), self.points, self.channels)
        if self.channels_first:
            signal = a.reshape(len(a), self.channels, self.points).transpose(0, 2, 1)
        shifts = [signal[:, k : k + self.positions] for k in range(self.width)]
        return module_of(a).concatenate(shifts, axis=2)

    def scatter(self, patches: Array, leading: tuple[int, ...]) -> Array:
        r"""Sum cotangents (.., width channels) of all positions into (\*leading, n_in)."""
        shifts = patches.reshape(*leading, self.positions, self.width, self.channels)
        out = module_of(patches).zeros((*leading, self.points, self.channels), patches.dtype)
        for k in range(self.width):
            out[..., k : k + self.positions, :] += shifts[..., k, :]
        if self.channels_first:
            out = out.swapaxes(-1, -2)
        return out.reshape(*leading, self.n_in)
