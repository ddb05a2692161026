"""Layers as stateless objects: forward, backward, tangent and rows stand side by side.

A layer knows where its parameters lie in the flat vector theta. Shapes: b samples, r cotangents
a sample, n_in inputs, n_out outputs.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from higcore.backend import Array, module_of
from higcore.rows import OuterProductRows

from .activations import ACTIVATIONS


class Layer(Protocol):
    """What `Network` asks of a layer; `Dense` and `Conv1d` say it in full."""

    @property
    def size(self) -> int:
        """Number of parameters."""

    @property
    def n_in(self) -> int:
        """Width of the input."""

    @property
    def n_out(self) -> int:
        """Width of the output."""

    @property
    def factor_shape(self) -> tuple[int, int, int]:
        """(P, n_in, n_out) of the weights: positions at which they are used, and their shape."""

    def init(self, rng: np.random.Generator, theta: Array, /) -> None:
        """Write initial parameters into theta (t,)."""

    def forward(self, theta: Array, a: Array, /) -> Array:
        """a (b, n_in) -> a_out (b, n_out)."""

    def tangent(self, theta: Array, dtheta: Array, a: Array, a_out: Array, da: Array, /) -> Array:
        """da_out (b, n_out) along dtheta (t,) and da (b, n_in)."""

    def backward(
        self, theta: Array, theta_bar: Array, a: Array, a_out: Array, a_out_bar: Array, /
    ) -> Array:
        """Write the layer's part of theta_bar (t,), return a_bar (b, n_in)."""

    def rows(self, theta: Array, a: Array, a_out: Array, pulled: Array, /) -> OuterProductRows:
        """The layer's rows of J, from S pulled back to its output, (b, r, n_out)."""

    def pull_rows(
        self, theta: Array, a: Array, a_out: Array, pulled: Array, delta: Array, /
    ) -> Array:
        """S pulled back to the layer's input, (b, r, n_in), from the ``delta`` of `rows`."""


class Dense:
    """a_out = act(a W + c) with W (n_in, n_out) and bias c (n_out,)."""

    def __init__(self, n_in: int, n_out: int, activation: str, start: int) -> None:
        self.settings = n_in, n_out, activation, start
        self.n_in, self.n_out, self.start = n_in, n_out, start
        self.activation = ACTIVATIONS[activation]
        self.size = (n_in + 1) * n_out
        self.factor_shape = (1, n_in, n_out)

    def __repr__(self) -> str:
        return f"{type(self).__name__}{self.settings}"

    def parameters(self, theta: Array) -> tuple[Array, Array]:
        """Views of theta (t,): W (n_in, n_out) and c (n_out,)."""
        return _views(theta, self.start, self.n_in, self.n_out)

    def init(self, rng: np.random.Generator, theta: Array) -> None:
        """Write Glorot-uniform weights and zero biases into theta."""
        _glorot(rng, *self.parameters(theta), self.n_in + self.n_out)

    def forward(self, theta: Array, a: Array) -> Array:
        """a (b, n_in) -> a_out (b, n_out)."""
        weights, bias = self.parameters(theta)
        return self.activation.value(a @ weights + bias)

    def tangent(self, theta: Array, dtheta: Array, a: Array, a_out: Array, da: Array) -> Array:
        """da_out = act'(z) * (a dW + da W + dc)."""
        weights, _ = self.parameters(theta)
        dweights, dbias = self.parameters(dtheta)
        return self.activation.slope(a_out) * (a @ dweights + da @ weights + dbias)

    def backward(
        self, theta: Array, theta_bar: Array, a: Array, a_out: Array, a_out_bar: Array
    ) -> Array:
        """Write W_bar and c_bar into theta_bar, return a_bar: a_out_bar (b, n_out) -> (b, n_in)."""
        weights, _ = self.parameters(theta)
        weights_bar, bias_bar = self.parameters(theta_bar)
        delta = a_out_bar * self.activation.slope(a_out)
        weights_bar[:] = a.T @ delta  # (n_in, b) x (b, n_out)
        bias_bar[:] = delta.sum(axis=0)
        return delta @ weights.T  # (b, n_out) x (n_out, n_in)

    def rows(self, theta: Array, a: Array, a_out: Array, pulled: Array) -> OuterProductRows:
        """Factors of this layer's rows of J, from S pulled back to its output, (b, r, n_out)."""
        delta = pulled
        if self.activation != ACTIVATIONS["linear"]:  # S itself needs no copy
            delta = pulled * self.activation.slope(a_out)[:, None, :]
        return OuterProductRows(a[:, None, :], delta[:, :, None, :], self.start)

    def pull_rows(self, theta: Array, a: Array, a_out: Array, pulled: Array, delta: Array) -> Array:
        """S at the layer's input: delta (b, r, 1, n_out) -> (b, r, n_in)."""
        weights, _ = self.parameters(theta)
        b, r, _, n_out = delta.shape
        return (delta.reshape(b * r, n_out) @ weights.T).reshape(b, r, self.n_in)


class Conv1d:
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
        activation: str,
        start: int,
        channels_first: bool = False,
    ) -> None:
        self.settings = points, channels, features, width, activation, start, channels_first
        self.points, self.channels, self.features, self.width = points, channels, features, width
        self.positions = points - width + 1
        self.n_in, self.n_out = points * channels, self.positions * features
        self.fan_in, self.start = width * channels, start
        self.activation = ACTIVATIONS[activation]
        self.channels_first = channels_first
        self.size = (self.fan_in + 1) * features
        self.factor_shape = (self.positions, self.fan_in, features)

    def __repr__(self) -> str:
        return f"{type(self).__name__}{self.settings}"

    def parameters(self, theta: Array) -> tuple[Array, Array]:
        """Views of theta (t,): W (width channels, features) and c (features,)."""
        return _views(theta, self.start, self.fan_in, self.features)

    def init(self, rng: np.random.Generator, theta: Array) -> None:
        """Write Glorot-uniform weights and zero biases into theta."""
        fans = self.fan_in + self.width * self.features
        _glorot(rng, *self.parameters(theta), fans)

    def forward(self, theta: Array, a: Array) -> Array:
        """a (b, n_in) -> a_out (b, n_out)."""
        weights, bias = self.parameters(theta)
        z = self._patches(a) @ weights + bias  # (b, P, width channels) x (width channels, features)
        return self.activation.value(z).reshape(len(a), self.n_out)

    def tangent(self, theta: Array, dtheta: Array, a: Array, a_out: Array, da: Array) -> Array:
        """da_out = act'(z) * (patches(a) dW + patches(da) W + dc)."""
        weights, _ = self.parameters(theta)
        dweights, dbias = self.parameters(dtheta)
        dz = self._patches(a) @ dweights + self._patches(da) @ weights + dbias
        return self.activation.slope(a_out) * dz.reshape(len(a), self.n_out)

    def backward(
        self, theta: Array, theta_bar: Array, a: Array, a_out: Array, a_out_bar: Array
    ) -> Array:
        """Write W_bar and c_bar into theta_bar, return a_bar: a_out_bar (b, n_out) -> (b, n_in)."""
        weights, _ = self.parameters(theta)
        weights_bar, bias_bar = self.parameters(theta_bar)
        delta = (a_out_bar * self.activation.slope(a_out)).reshape(-1, self.features)
        weights_bar[:] = self._patches(a).reshape(-1, self.fan_in).T @ delta
        bias_bar[:] = delta.sum(axis=0)
        return self._scatter(delta @ weights.T, (len(a),))

    def rows(self, theta: Array, a: Array, a_out: Array, pulled: Array) -> OuterProductRows:
        """Factors of this layer's rows of J, from S pulled back to its output, (b, r, n_out)."""
        b, r, _ = pulled.shape
        delta = pulled * self.activation.slope(a_out)[:, None, :]
        delta = delta.reshape(b, r, self.positions, self.features)
        return OuterProductRows(self._patches(a), delta, self.start)

    def pull_rows(self, theta: Array, a: Array, a_out: Array, pulled: Array, delta: Array) -> Array:
        """S at the layer's input: delta (b, r, P, features) -> (b, r, n_in)."""
        weights, _ = self.parameters(theta)
        return self._scatter(delta.reshape(-1, self.features) @ weights.T, delta.shape[:2])

    def _patches(self, a):
        """(b, P, width channels): the neighbouring points that each position sees."""
        signal = a.reshape(len(a), self.points, self.channels)
        if self.channels_first:
            signal = a.reshape(len(a), self.channels, self.points).transpose(0, 2, 1)
        shifts = [signal[:, k : k + self.positions] for k in range(self.width)]
        return module_of(a).concatenate(shifts, axis=2)

    def _scatter(self, patches, leading):
        """Transpose of `_patches`: sum cotangents (..., P, width channels) into (..., n_in)."""
        shifts = patches.reshape(*leading, self.positions, self.width, self.channels)
        out = module_of(patches).zeros((*leading, self.points, self.channels), patches.dtype)
        for k in range(self.width):
            out[..., k : k + self.positions, :] += shifts[..., k, :]
        if self.channels_first:
            out = out.swapaxes(-1, -2)
        return out.reshape(*leading, self.n_in)


def _views(theta: Array, start: int, n_in: int, n_out: int) -> tuple[Array, Array]:
    split = start + n_in * n_out
    return theta[start:split].reshape(n_in, n_out), theta[split : split + n_out]


def _glorot(rng, weights, bias, fans):
    """Fill with uniform +-sqrt(6 / (fan_in + fan_out)) and zeros (Glorot and Bengio 2010)."""
    limit = np.sqrt(6.0 / fans)
    weights[:] = rng.uniform(-limit, limit, weights.shape)
    bias[:] = 0
