"""Coupled oscillators, nonlinear as in the paper and linear as in the authors' book."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from higcore import HIG, Adam, Batch, GaussNewton, Problem
from higcore.losses import SquaredError
from nets import MLP
from solvers import OscillatorChain

from .setting import Setting, settings


def uniform_states(rng, count, size, dtype):
    """Start states uniform in [0, 1) that are their own targets and the network's input."""
    return Batch(*[rng.random((count, size)).astype(dtype)] * 3)


@dataclass(frozen=True)
class Oscillators:
    """Control of two nonlinear oscillators (3.1, B.2): bring any start state back to itself.

    The network sees the target, which is the start state; 4 numbers uniform in [0, 1).
    """

    solver: OscillatorChain = field(default_factory=OscillatorChain)
    hidden: tuple[int, ...] = (20, 20, 20)
    activation: str = "relu"
    samples: int = 4096
    test_samples: int = 4096
    name: str = "oscillators"

    @property
    def settings(self):
        """Table 2 of the paper."""
        return settings(
            Setting(128, HIG(lr=1.0, tau=1e-6)),
            Setting(128, GaussNewton(lr=1.0, tau=1e-6, paper=True)),
            Setting(512, Adam(lr=3e-4)),
            adaptive=128,
        )

    def problem(self, seed=0, dtype=np.float64):
        """Return the `Problem` with the data of a seed."""
        rng = np.random.default_rng([seed, 0])
        size = self.solver.state_size
        network = MLP((size, *self.hidden, self.solver.control_size), self.activation)
        train = uniform_states(rng, self.samples, size, dtype)
        test = uniform_states(rng, self.test_samples, size, dtype)
        return Problem(network, self.solver, SquaredError(), train, test, name=self.name)

    def picture(self, problem, theta, figure=None):
        """Figure 2a: the first test sample under its control."""
        from . import pictures  # matplotlib: not for training

        one = problem.test[:1]
        control, _ = problem.network.forward(theta, one.net_input)
        states = problem.solver.trajectory(one.x, control)[0]
        times = np.arange(len(states)) * problem.solver.dt
        title = f"controlled oscillators, loss {problem.evaluate(theta, one):.1e} (circles: target)"
        seen = times, states, control[0], one.target[0]
        return pictures.oscillator_trajectory(*seen, title, figure)


@dataclass(frozen=True)
class LinearChain(Oscillators):
    """The linear oscillators of the same authors' book (physicsbaseddeeplearning.org).

    The book prints the loss of the training samples after each epoch, so they are the test set.
    """

    solver: OscillatorChain = field(
        default_factory=lambda: OscillatorChain(
            steps=24, dt=0.5, cubic=0.0, linear=0.2, control=(0.0, 1.0)
        )
    )
    activation: str = "tanh"
    name: str = "linear-chain"

    @property
    def settings(self):
        """The book's; its truncation 1e-10 cuts nothing in single precision."""
        return settings(
            Setting(32, HIG(lr=1.0, tau=1e-10)),
            Setting(32, GaussNewton(lr=1.0, tau=1e-6, paper=True)),
            Setting(256, Adam(lr=1e-3)),
            adaptive=128,
        )

    def problem(self, seed=0, dtype=np.float64):
        """Return the `Problem` with the data of a seed."""
        problem = super().problem(seed, dtype)
        return replace(problem, test=problem.train)
