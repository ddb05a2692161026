"""The march of a `Rollout` and the pass back as one kernel each: network and step, all steps.

Where the step is a `StepFunctions` and the network a ``nets.scalar.ScalarNetwork``, nothing but
their functions has to be called, sample by sample, and no array is made on the way. What is
computed is what `rollout` says in arrays; the pass back is that of ordinary backpropagation, for
r cotangents a sample:

    lambda_s = A_s^T lambda_(s+1) + O_s^T N_s^T u_bar_s + (dy/dx_s)^T y_bar,  u_bar_s = B_s^T lambda_(s+1)

The inputs of all layers and the deltas on the way through N_s^T are the factors of the rows of J. A
single control is pulled back through the network once, for all cotangents.

Unlike in other kernels, the sample index is not the last of the arrays of all steps: these are the
arrays of a `Rollout`. Scratch ends in an axis of the samples that are worked on together.
"""  # noqa: E501

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from higcore.backend import Array, empty, module_of
from higcore.kernels import RangeKernel
from higcore.rows import OuterProductRows

from .observed import Seen

TIME, GIVEN_FROM = -1, -2  # what a network sees, where it is no component of x
TOGETHER = 32  # samples: 16 take a quarter more of a core's time
SHORT = 2**17  # parameters used, that is products, of a march: to wake another thread takes longer


class StepFunctions(NamedTuple):
    """A step as functions that a kernel calls, on ``width`` samples side by side.

    Parameters
    ----------
    advance : callable
        (width, numbers, x, u, work): x (n, width) <- step(x, u), for controls u (k, width).
    linearise : callable
        (width, numbers, x, u, work): leave in ``work`` what `pull` needs of the step at x and u.
    pull : callable
        (width, numbers, work, x_bar, u_bar): x_bar (n, width) <- A^T x_bar, u_bar = B^T x_bar.
    numbers : tuple of float
        Constants of the physics; handed over as an array of the dtype of x.
    work : callable
        width -> shapes of the scratch arrays in the tuple ``work``.
    """

    advance: Callable[..., None]
    linearise: Callable[..., None]
    pull: Callable[..., None]
    numbers: tuple[float, ...]
    work: Callable[[int], Sequence[tuple[int, ...]]]


def look(width, lo, sight, share, x, GIVEN, z):
    """z = what the network sees: components of x, the share of the march, what is given."""
    for p in range(sight.shape[0]):
        component = sight[p]
        for i in range(width):
            if component >= 0:
                z[p, i] = x[component, i]
            elif component == TIME:
                z[p, i] = share
            else:
                z[p, i] = GIVEN[lo + i, GIVEN_FROM - component]


def look_adjoint(width, sight, z_bar, x_bar):
    """Transpose of `look` in x, added to x_bar."""
    for p in range(sight.shape[0]):
        if sight[p] >= 0:
            for i in range(width):
                x_bar[sight[p], i] += z_bar[p, i]


def load(width, source, target):
    """Copy some samples of source (width, rows) to target (rows, width)."""
    for j in range(target.shape[0]):
        for i in range(width):
            target[j, i] = source[i, j]


def add(width, source, target):
    """Add some samples of source (width, rows) to target (rows, width)."""
    for j in range(target.shape[0]):
        for i in range(width):
            target[j, i] += source[i, j]


def store(width, source, target):
    """Copy source (rows, width) to some samples of target (width, rows)."""
    for i in range(width):
        for j in range(source.shape[0]):
            target[i, j] = source[j, i]


def store_inputs(width, layers, a, target):
    """The inputs of every layer, and 1 for its bias, to target (width, sum of n_in + 1)."""
    first = 0
    for layer in range(layers.shape[0]):
        n_in = layers[layer, 0]
        begin = first + layer
        store(width, a[first : first + n_in], target[:, begin : begin + n_in])
        for i in range(width):
            target[i, begin + n_in] = 1.0
        first += n_in


def scale(width, u_bar, unit, d):
    """d (rows, width) = u_bar (width,) times what was pulled back of a control of 1."""
    for j in range(d.shape[0]):
        for i in range(width):
            d[j, i] = u_bar[i] * unit[j, i]


@functools.lru_cache(maxsize=64)
def kernels(
    forward: Callable[..., None],
    network_pull: Callable[..., None],
    advance: Callable[..., None],
    linearise: Callable[..., None],
    pull: Callable[..., None],
) -> tuple[RangeKernel, RangeKernel]:
    """The march and the pass back of these functions; compiled when they first run."""

    def march(lo, hi, X, U, GIVEN, theta, numbers, layers, box, sight, *scratch):
        x, a = scratch[:2]
        width = hi - lo
        u = a[a.shape[0] - U.shape[2] :]
        load(width, X[0, lo:hi], x)
        for s in range(U.shape[0]):
            look(width, lo, sight, s / U.shape[0], x, GIVEN, a)
            forward(width, layers, box, theta, a)
            store(width, u, U[s, lo:hi])
            advance(width, numbers, x, u, scratch[2:])
            store(width, x, X[s + 1, lo:hi])

    def sweep(
        lo, hi, first, last, X, LAMBDA, DIRECT, INPUTS, DELTA,
        GIVEN, theta, numbers, layers, box, sight, *scratch,
    ):  # fmt: skip
        x, x_bars, a, d, u_bar, unit = scratch[:6]
        width, steps, inputs = hi - lo, X.shape[0] - 1, sight.shape[0]
        outputs = a.shape[0] - layers[layers.shape[0] - 1, 1]
        u = a[outputs:]
        for k in range(first, last):
            load(width, LAMBDA[steps, lo:hi, k], x_bars[k - first])
        for s in range(steps - 1, -1, -1):
            load(width, X[s, lo:hi], x)
            look(width, lo, sight, s / steps, x, GIVEN, a)
            forward(width, layers, box, theta, a)
            linearise(width, numbers, x, u, scratch[6:])
            if u_bar.shape[0] == 1:
                for i in range(width):
                    unit[outputs, i] = 1.0
                network_pull(width, layers, box, theta, a, unit)
            if first == 0:
                store_inputs(width, layers, a, INPUTS[lo:hi, s])
            for k in range(first, last):
                x_bar = x_bars[k - first]
                pull(width, numbers, scratch[6:], x_bar, u_bar)
                if DIRECT.shape[3] > 0:
                    add(width, DIRECT[lo:hi, k, s], u_bar)
                if u_bar.shape[0] == 1:
                    scale(width, u_bar[0], unit, d)
                else:
                    for j in range(u_bar.shape[0]):
                        for i in range(width):
                            d[outputs + j, i] = u_bar[j, i]
                    network_pull(width, layers, box, theta, a, d)
                store(width, d[inputs:], DELTA[lo:hi, k, s])
                look_adjoint(width, sight, d, x_bar)
                add(width, LAMBDA[s, lo:hi, k], x_bar)

    return RangeKernel(march, most=TOGETHER), RangeKernel(sweep, most=TOGETHER)


class CompiledMarch:
    """The march of a network and a step that a kernel can call.

    Parameters
    ----------
    network : ScalarNetwork
        As ``nets.Network.scalar`` gives it.
    step : StepFunctions
        As ``Stepper.scalar`` gives it.
    sees : Seen
        What the network sees.
    state_size : int
        n = |x|.
    """

    def __init__(self, network: Any, step: StepFunctions, sees: Seen, state_size: int) -> None:
        self.network, self.step, self.n = network, step, state_size
        self.k: int = network.layers[-1][1]
        self.size: int = sum((n_in + 1) * n_out for n_in, n_out, *_ in network.layers)
        given = range(GIVEN_FROM, GIVEN_FROM - sees.given, -1)
        self.sight = [*sees.components(state_size), *[TIME] * sees.time, *given]
        functions = network.forward, network.pull, step.advance, step.linearise, step.pull
        self.march, self.sweep = kernels(*functions)

    def states(self, steps: int, theta: Array, x: Array, given: Array) -> tuple[Array, Array]:
        """Return X (steps + 1, b, n) and U (steps, b, k) from start states x (b, n)."""
        xp, b = module_of(x), len(x)
        X = empty(xp, (steps + 1, b, self.n), x.dtype)
        U = empty(xp, (steps, b, self.k), x.dtype)
        X[0] = x
        shared = self._shared(xp, theta, given)
        alone = steps * b * self.size <= SHORT
        self.march(b, X, U, *shared, scratch=self._march_scratch, alone=alone)
        return X, U

    def rows(
        self, theta: Array, X: Array, given: Array, Lambda: Array, direct: Array
    ) -> list[OuterProductRows]:
        """Return the row factors of all layers, for cotangents of the march.

        ``Lambda`` (steps + 1, b, r, n) are those of the states, ``direct`` (b, r, steps, k), or
        (b, r, steps, 0), those of the controls.
        """
        xp = module_of(X)
        steps, (b, r) = len(X) - 1, Lambda.shape[1:3]
        widths = [shape[:2] for shape in self.network.layers]
        inputs = empty(xp, (b, steps, sum(n_in + 1 for n_in, _ in widths)), X.dtype)
        delta = empty(xp, (b, r, steps, sum(n_out for _, n_out in widths)), X.dtype)
        arrays = [xp.ascontiguousarray(array) for array in (X, Lambda, direct)]
        shared = self._shared(xp, theta, given)
        alone = steps * b * (r + 1) * self.size <= SHORT
        self.sweep(
            b, *arrays, inputs, delta, *shared,
            scratch=self._sweep_scratch, cotangents=r, alone=alone,
        )  # fmt: skip
        return self._by_layer(inputs, delta)

    def _by_layer(self, inputs: Array, delta: Array) -> list[OuterProductRows]:
        blocks: list[OuterProductRows] = []
        first = begin = 0
        for n_in, n_out, start, _ in self.network.layers:
            a, d = inputs[:, :, first : first + n_in + 1], delta[..., begin : begin + n_out]
            blocks.append(OuterProductRows(a, d, start, bias=0))  # its 1 is in a
            first, begin = first + n_in + 1, begin + n_out
        return blocks

    def _shared(self, xp, theta, given):
        """What both kernels are handed beside the arrays of the march."""
        numbers, box = (xp.asarray(v, theta.dtype) for v in (self.step.numbers, self.network.box))
        whole = (xp.asarray(v, np.int64) for v in (self.network.layers, self.sight))
        layers, sight = whole
        given, theta = xp.ascontiguousarray(given), xp.ascontiguousarray(theta)
        return given, theta, numbers, layers, box, sight

    def _march_scratch(self, width, _):
        """State, the network's numbers, and what the step works with."""
        return (self.n, width), (self.network.rows, width), *self.step.work(width)

    def _sweep_scratch(self, width, r):
        network, states = (self.network.rows, width), (self.n, width)
        shapes = states, (r, *states), network, network, (self.k, width), network
        return *shapes, *self.step.work(width)
