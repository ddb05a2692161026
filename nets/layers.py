"""Layers as stateless objects: forward, backward, tangent and rows stand side by side.

`Dense`, and `Conv` of any number of axes, whose `Conv1d` is the one of signals.

A layer knows where its parameters lie in the flat vector theta. Shapes: b samples, r cotangents
a sample, n_in inputs, n_out outputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from higcore.backend import Array, module_of
from higcore.rows import OuterProductRows

from .activations import ACTIVATIONS, Activation, Bounded
from .parts import in_parts
from .windows import beside, correlate, padded, shifts, turned, windows


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

    A layer that uses one W (fan_in, features) at P positions, such as `Conv`, differs from this
    one, of P = 1, by what each position sees of the input: ``patches`` and its transpose. It may
    have faster ways to the three products with them.
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

    def product(self, a: Array, weights: Array) -> Array:
        """patches(a) W, (b, features) or (b, P, features)."""
        return self.patches(a) @ weights  # (b, P, fan_in) x (fan_in, features)

    def weights_bar(self, a: Array, delta: Array) -> Array:
        """Its transpose in W, (fan_in, features), for delta (b P, features)."""
        return self.patches(a).reshape(-1, self.fan_in).T @ delta  # (fan_in, b P) x (b P, features)

    def pull(self, delta: Array, weights: Array, leading: tuple[int, ...]) -> Array:
        r"""Its transpose in a, (\*leading, n_in), for delta (.. P, features)."""
        return self.scatter(delta @ weights.T, leading)  # (.. P, features) x (features, fan_in)

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
        z = self.product(a, weights) + bias
        return self.activation.value(z).reshape(len(a), self.n_out)

    def tangent(self, theta: Array, dtheta: Array, a: Array, a_out: Array, da: Array) -> Array:
        """da_out = act'(z) * (patches(a) dW + patches(da) W + dc)."""
        weights, _ = self.parameters(theta)
        dweights, dbias = self.parameters(dtheta)
        dz = self.product(a, dweights) + self.product(da, weights) + dbias
        return self.activation.slope(a_out) * dz.reshape(len(a), self.n_out)

    def backward(
        self, theta: Array, theta_bar: Array, a: Array, a_out: Array, a_out_bar: Array
    ) -> Array:
        """Write W_bar and c_bar into theta_bar, return a_bar: a_out_bar (b, n_out) -> (b, n_in)."""
        weights_bar, bias_bar = self.parameters(theta_bar)
        weights_bar[:], bias_bar[:], a_bar = self.bars(theta, a, a_out, a_out_bar)
        return a_bar

    def bars(
        self, theta: Array, a: Array, a_out: Array, a_out_bar: Array
    ) -> tuple[Array, Array, Array]:
        """W_bar (fan_in, features), c_bar (features,) and a_bar (b, n_in)."""
        weights, _ = self.parameters(theta)
        delta = (a_out_bar * self.activation.slope(a_out)).reshape(-1, self.features)
        a_bar = self.pull(delta, weights, (len(a),))
        return self.weights_bar(a, delta), delta.sum(axis=0), a_bar

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
        return self.pull(delta.reshape(-1, self.features), weights, delta.shape[:2])


class Conv(Dense):
    """a_out[p] = act(sum_k a[p + k step] W_k + c): a convolution along one axis or several.

    A field is flat (n_1, .., n_d, channels), row-major; W (width^d channels, features) acts on the
    patches of ``width`` points along each axis, ``step`` apart. A valid convolution has P_j =
    n_j - (width - 1) step positions along an axis; a ``padded`` one as many as there are points,
    with zeros around the field. The first layer of a network takes its input as
    (channels, n_1, .., n_d) if ``channels_first``.

    All patches are made for rows alone. The passes make ``width`` copies of the input, of some
    samples at a time, and sum over the taps of the other axes.
    """

    def __init__(
        self,
        grid: Sequence[int],
        channels: int,
        features: int,
        width: int,
        activation: str | Activation | Bounded,
        start: int,
        channels_first: bool = False,
        padded: bool = False,
        step: int = 1,
    ) -> None:
        self.settings = (
            tuple(grid), channels, features, width, activation, start, channels_first, padded, step
        )  # fmt: skip
        self.grid, self.channels, self.width, self.step = tuple(grid), channels, width, step
        self.channels_first, self.axes = channels_first, len(self.grid)
        reach = (width - 1) * step
        self.padding = (reach // 2, reach - reach // 2) if padded else (0, 0)
        self.grid_out: tuple[int, ...] = tuple(n + sum(self.padding) - reach for n in grid)
        positions, taps = math.prod(self.grid_out), width**self.axes
        self.n_in, self.n_out = math.prod(grid) * channels, positions * features
        fan_in = taps * channels
        self._place((positions, fan_in, features), fan_in + taps * features, activation, start)

    @property
    def weights_shape(self) -> tuple[int, ...]:
        """(width, .., channels, features), as many widths as axes."""
        return (*(self.width,) * self.axes, self.channels, self.features)

    def field(self, a: Array) -> Array:
        """(b, n_1, .., n_d, channels) with its zeros around."""
        if self.channels_first:
            order = (0, *range(2, self.axes + 2), 1)
            return padded(a.reshape(-1, self.channels, *self.grid).transpose(order), *self.padding)
        return padded(a.reshape(-1, *self.grid, self.channels), *self.padding)

    def flat(self, field: Array, leading: tuple[int, ...]) -> Array:
        r"""Transpose of it without the zeros: (.., n_1, .., n_d, channels) -> (\*leading, n_in)."""
        if self.channels_first:
            field = field.transpose(0, self.axes + 1, *range(1, self.axes + 1))
        return field.reshape(*leading, self.n_in)

    def patches(self, a: Array) -> Array:
        """(b, P, width^d channels): the neighbouring points that each position sees."""
        seen = list(windows(beside(self.field(a), self.width, self.step), self.width, self.step))
        return seen[0] if len(seen) == 1 else module_of(a).concatenate(seen, axis=2)

    def scatter(self, patches: Array, leading: tuple[int, ...]) -> Array:
        r"""Sum cotangents (.., width^d channels) of all positions into (\*leading, n_in)."""
        before, after = self.padding
        taps = patches.reshape(-1, *self.grid_out, self.width**self.axes, self.channels)
        shape = tuple(before + n + after for n in self.grid)
        out = module_of(patches).zeros((len(taps), *shape, self.channels), patches.dtype)
        for k, window in enumerate(shifts(shape, self.width, self.step)):
            out[(slice(None), *window)] += taps[..., k, :]
        inner = (slice(before, before + n) for n in self.grid)
        return self.flat(out[(slice(None), *inner)], leading)

    def product(self, a: Array, weights: Array) -> Array:
        """patches(a) W (b, P, features), with no patches."""
        return correlate(self.field(a), weights, self.width, self.step)

    def weights_bar(self, a: Array, delta: Array) -> Array:
        """Its transpose in W (fan_in, features)."""
        seen = windows(beside(self.field(a), self.width, self.step), self.width, self.step)
        # (width channels, b P) x (b P, features)
        parts = [view.reshape(-1, view.shape[2]).T @ delta for view in seen]
        return parts[0] if len(parts) == 1 else module_of(a).concatenate(parts)

    def pull(self, delta: Array, weights: Array, leading: tuple[int, ...]) -> Array:
        r"""Its transpose in a (\*leading, n_in): a convolution with the kernels turned round."""
        if self.axes == 1:  # a signal of few points has more zeros around it than points
            return super().pull(delta, weights, leading)
        field = delta.reshape(-1, *self.grid_out, self.features)
        reach = (self.width - 1) * self.step
        around = padded(field, *(reach - zeros for zeros in self.padding))
        back = turned(weights, self.width, self.axes)
        found = correlate(around, back, self.width, self.step)
        return self.flat(found.reshape(-1, *self.grid, self.channels), leading)

    def forward(self, theta: Array, a: Array) -> Array:
        """As of `Dense`, some samples at a time; so are the other passes."""

        def of(part):
            return Dense.forward(self, theta, a[part])

        return self._joined(of, (len(a), self.n_out), theta, a)

    def tangent(self, theta: Array, dtheta: Array, a: Array, a_out: Array, da: Array) -> Array:
        def of(part):
            return Dense.tangent(self, theta, dtheta, a[part], a_out[part], da[part])

        return self._joined(of, (len(a), self.n_out), theta, dtheta, a, da)

    def bars(
        self, theta: Array, a: Array, a_out: Array, a_out_bar: Array
    ) -> tuple[Array, Array, Array]:
        found: dict[int, tuple[Array, Array]] = {}  # what is to be summed, by first sample

        def of(part):
            here = a[part], a_out[part], a_out_bar[part]
            weights_bar, bias_bar, a_bar = Dense.bars(self, theta, *here)
            found[part.start] = weights_bar, bias_bar
            return a_bar

        a_bar = self._joined(of, (len(a), self.n_in), theta, a_out_bar)
        in_order = [found[first] for first in sorted(found)]
        weights_bar, bias_bar = (sum(parts[1:], parts[0]) for parts in zip(*in_order, strict=True))
        return weights_bar, bias_bar, a_bar

    def pull_rows(self, theta: Array, a: Array, a_out: Array, pulled: Array, delta: Array) -> Array:
        weights, _ = self.parameters(theta)
        rows = delta.reshape(-1, self.positions * self.features)

        def of(part):
            few = rows[part]
            return self.pull(few.reshape(-1, self.features), weights, (len(few),))

        found = self._joined(of, (len(rows), self.n_in), theta, delta)
        return found.reshape(*delta.shape[:2], self.n_in)

    def _joined(
        self, of: Callable[[slice], Array], shape: tuple[int, int], *arrays: Array
    ) -> Array:
        """The results ``of`` slices of samples as one array; a signal's patches go at once."""
        numbers = 0 if self.axes == 1 else self._numbers_of_sample()
        return in_parts(of, shape, numbers, arrays)

    def _numbers_of_sample(self):
        """Those of the taps side by side, of the input or of cotangents."""
        reach = (self.width - 1) * self.step
        around = math.prod(n + reach for n in self.grid)
        return around * self.width * max(self.channels, self.features)


class Conv1d(Conv):
    """a_out[p] = act(sum_k a[p + k] W_k + c): a valid convolution over P = points - width + 1.

    A signal is flat (points, channels), row-major; see `Conv`.
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
        super().__init__((points,), channels, features, width, activation, start, channels_first)
        self.settings = points, channels, features, width, activation, start, channels_first
        self.points = points
