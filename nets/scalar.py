"""Dense layers as plain functions over samples side by side, for a kernel that holds a network.

What stands in `layers` as array code stands here once more as loops that a kernel can call, see
`higcore.kernels`; the tests hold the two together. Arrays end in an axis of ``width`` samples:
a (rows, width) holds the input of the network and then the output of every layer, d the cotangents
of the same numbers. ``layers`` (layers, 4) has a row (n_in, n_out, start, kind) for each of them,
``box`` (2, |u|) low and high of an output that is bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from .activations import ACTIVATIONS, Bounded
from .layers import Dense

LINEAR, TANH, RELU, BOUNDED = range(4)
KINDS = {ACTIVATIONS["linear"]: LINEAR, ACTIVATIONS["tanh"]: TANH, ACTIVATIONS["relu"]: RELU}


class ScalarNetwork(NamedTuple):
    """A network as functions that a kernel calls, and what they are to be handed.

    ``forward(width, layers, box, theta, a)`` and ``pull(width, layers, box, theta, a, d)``;
    ``layers`` and ``box`` are tuples, ``rows`` those of a and d.
    """

    forward: Callable[..., None]
    pull: Callable[..., None]
    layers: tuple[tuple[int, int, int, int], ...]
    box: tuple[tuple[float, ...], tuple[float, ...]]
    rows: int


def scalar_network(layers: Sequence[Any]) -> ScalarNetwork | None:
    """The `ScalarNetwork` of dense layers, a bounded one at the end; None if there are others."""
    last, shapes, box = layers[-1], [], ((0.0,), (0.0,))
    for layer in layers:
        if type(layer) is not Dense:
            return None
        kind = KINDS.get(layer.activation)
        if type(layer.activation) is Bounded and layer is last:
            kind, box = BOUNDED, _wide(layer.activation, layer.n_out)
        if kind is None:
            return None
        shapes.append((layer.n_in, layer.n_out, layer.start, kind))
    rows = layers[0].n_in + sum(layer.n_out for layer in layers)
    return ScalarNetwork(forward, pull, tuple(shapes), box, rows)


def _wide(bounds, size):
    """Low and high, a number for each output."""
    sides = (bounds.low, bounds.high)
    return tuple(side if isinstance(side, tuple) else (side,) * size for side in sides)


def forward(width, layers, box, theta, a):
    """From the network's input in the first rows of a to the output in the last."""
    first = 0
    for layer in range(layers.shape[0]):
        n_in, n_out, start, kind = _row(layers, layer)
        out = a[first + n_in : first + n_in + n_out]
        affine(width, n_in, n_out, theta[start:], a[first:], out)
        activate(width, kind, box, out)
        first += n_in


def pull(width, layers, box, theta, a, d):
    """From u_bar in the last rows of d to z_bar in the first, and delta of every layer between."""
    first = d.shape[0] - layers[layers.shape[0] - 1, 1]
    for layer in range(layers.shape[0] - 1, -1, -1):
        n_in, n_out, start, kind = _row(layers, layer)
        delta = d[first : first + n_out]
        times_slope(width, kind, box, a[first : first + n_out], delta)
        first -= n_in
        affine_adjoint(width, n_in, n_out, theta[start:], delta, d[first:])


def _row(layers, layer):
    return layers[layer, 0], layers[layer, 1], layers[layer, 2], layers[layer, 3]


def affine(width, n_in, n_out, theta, a, z):
    """z = W^T a + c, with W (n_in, n_out) and c (n_out,) in theta."""
    for j in range(n_out):
        bias = theta[n_in * n_out + j]
        for i in range(width):
            z[j, i] = bias
        for p in range(n_in):
            weight = theta[p * n_out + j]
            for i in range(width):
                z[j, i] += weight * a[p, i]


def affine_adjoint(width, n_in, n_out, theta, delta, a_bar):
    """a_bar = W delta."""
    for p in range(n_in):
        for i in range(width):
            a_bar[p, i] = 0.0
        for j in range(n_out):
            weight = theta[p * n_out + j]
            for i in range(width):
                a_bar[p, i] += weight * delta[j, i]


def activate(width, kind, box, z):
    """z <- act(z)."""
    if kind in (TANH, BOUNDED):
        for j in range(z.shape[0]):
            tanh(width, z[j])
    if kind == RELU:
        for j in range(z.shape[0]):
            for i in range(width):
                z[j, i] = 0.0 if z[j, i] <= 0.0 else z[j, i]  # NaN stays
    if kind == BOUNDED:
        for j in range(z.shape[0]):
            low, high = box[0, j], box[1, j]
            for i in range(width):
                value = low + (high - low) * ((1.0 + z[j, i]) / 2.0)
                value = low if value < low else value  # where rounding would leave the box
                z[j, i] = high if value > high else value


def times_slope(width, kind, box, a, delta):
    """delta <- act'(z) delta, of the value a = act(z)."""
    for j in range(a.shape[0]):
        if kind == TANH:
            for i in range(width):
                delta[j, i] *= 1.0 - a[j, i] * a[j, i]
        if kind == RELU:
            for i in range(width):
                delta[j, i] *= 1.0 if a[j, i] > 0.0 else 0.0
        if kind == BOUNDED:
            low, high = box[0, j], box[1, j]
            for i in range(width):
                delta[j, i] *= 2.0 * ((a[j, i] - low) / (high - low)) * (high - a[j, i])


def tanh(width, z):
    """z <- tanh z to some rounding errors, without a branch or a call, so that it vectorises.

    sinh and cosh of z / 64 by their series, doubled five times and once more in the quotient: an
    error that both share cancels there, and tanh 2x = 2 sinh cosh / (cosh^2 + sinh^2) adds none.
    """
    for i in range(width):
        x = z[i]
        x = 20.0 if x > 20.0 else (-20.0 if x < -20.0 else x)  # there tanh is 1; NaN stays
        x = x / 64.0
        y = x * x
        s = 1.0 / 362880.0 + y * (1.0 / 39916800.0 + y / 6227020800.0)
        s = x * (1.0 + y * (1.0 / 6.0 + y * (1.0 / 120.0 + y * (1.0 / 5040.0 + y * s))))
        c = 1.0 / 40320.0 + y * (1.0 / 3628800.0 + y / 479001600.0)
        c = 1.0 + y * (0.5 + y * (1.0 / 24.0 + y * (1.0 / 720.0 + y * c)))
        s, c = 2.0 * s * c, c * c + s * s
        s, c = 2.0 * s * c, c * c + s * s
        s, c = 2.0 * s * c, c * c + s * s
        s, c = 2.0 * s * c, c * c + s * s
        s, c = 2.0 * s * c, c * c + s * s
        t = 2.0 * s * c / (c * c + s * s)
        z[i] = 1.0 if t > 1.0 else (-1.0 if t < -1.0 else t)  # not beyond it by rounding
