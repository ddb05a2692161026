"""Chaos brought to rest: the Kuramoto-Sivashinsky equation under a network in the time loop."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from higcore import HIG, Adam, Batch, Problem
from higcore.losses import SquaredError
from nets import MLP
from solvers import KuramotoSivashinsky, Rollout

from .setting import Setting, of_loops

WAVES = 4  # of which a start state before the spin-up is made


@dataclass(frozen=True)
class Chaos:
    """Bring the field to rest from wherever on its attractor it is, and whatever it does there.

    Rest is a solution, and an unstable one: the fastest wave grows e-fold in less than five units
    of time. The network sees the field once a unit of time, and says how strong each of eight
    actuators is until the next time. The loss is half the sum of squares at the end.

    Parameters
    ----------
    ring : KuramotoSivashinsky
        Its intervals are the steps of the loop. 32 points resolve a length of 22 to 1e-5.
    strongest : float
        The most that an actuator can do, in either direction.
    spin_up : float
        Time that random waves are given to get to the attractor, before they are start states.
    """

    ring: KuramotoSivashinsky = field(
        default_factory=lambda: KuramotoSivashinsky(32, dt=0.2, steps=5, intervals=30)
    )
    strongest: float = 0.5
    hidden: tuple[int, ...] = (32, 32)
    spin_up: float = 150.0
    samples: int = 1024
    test_samples: int = 512
    name: str = "kuramoto-sivashinsky"

    @property
    def settings(self):
        """HIG's and Adam's are the best of a small grid on seed 10."""
        return of_loops(Setting(32, HIG(lr=1.0, tau=1e-3)), Setting(128, Adam(lr=0.01)))

    def rollout(self, intervals):
        """The field and a network that acts on it, for so many intervals."""
        n, box = self.ring.points, (-self.strongest, self.strongest)
        network = MLP((n, *self.hidden, self.ring.actuators), bounds=box)
        return Rollout(network, self.ring.stepper(), intervals)

    def problem(self, seed=0, dtype=np.float64):
        """Return the `Problem` with the data of a seed."""
        rng = np.random.default_rng([seed, 0])
        train, test = (self._draw(rng, n, dtype) for n in (self.samples, self.test_samples))
        loop = self.rollout(self.ring.intervals)
        return Problem(loop, None, SquaredError(0.5), train, test, name=self.name)

    def _draw(self, rng, count, dtype):
        """Fields on the attractor, each of a march of its own."""
        phase = rng.uniform(0, 2 * np.pi, (count, WAVES, 1))
        waves = np.arange(1, WAVES + 1)[:, None]
        angle = 2 * np.pi / self.ring.length * self.ring.positions
        x = np.cos(waves * angle + phase).sum(axis=1)
        x = self.unforced(x, round(self.spin_up / self.span)).astype(dtype)
        return Batch(x, x, np.zeros_like(x))

    @property
    def span(self):
        """Time between two looks at the field."""
        return self.ring.steps * self.ring.dt

    def unforced(self, x, intervals):
        """Fields (b, n) after so many intervals that nobody acts in."""
        nothing = np.zeros((len(x), self.ring.actuators), x.dtype)
        one = self.ring.stepper()
        for _ in range(intervals):
            x = one.step(x, nothing)
        return x

    def loss_unforced(self, problem):
        """The test loss without a control."""
        y = self.unforced(problem.test.x, self.ring.intervals)
        return float(problem.loss.value(y, problem.test.target).mean())

    def exponent(self, problem, seed=0):
        """The largest Lyapunov exponent: how fast neighbours part, unforced, mean of test fields.

        The direction in which they do is found during one span of the loop, and followed for
        another.
        """
        x = problem.test.x
        still = np.zeros((len(x), self.ring.control_size), x.dtype)
        dx = np.random.default_rng([seed, 3]).standard_normal(x.shape).astype(x.dtype)
        dx -= dx.mean(axis=1, keepdims=True)  # the mean stays as it is
        growth = []
        for _ in range(2):
            dx /= np.linalg.norm(dx, axis=1, keepdims=True)
            dx = self.ring.tangent_of_both(x, still, dx, still)
            x = self.ring.solve(x, still)
            growth.append(np.log(np.linalg.norm(dx, axis=1)).mean())
        return float(growth[1] / (self.ring.intervals * self.span))

    def loss_later(self, problem, theta):
        """The test loss after twice the span that was trained: does it stay at rest?"""
        loop = self.rollout(2 * self.ring.intervals)
        return replace(problem, network=loop).evaluate(theta)

    def picture(self, problem, theta):
        """The first test field, left alone and controlled, for twice the span that was trained."""
        from . import pictures  # matplotlib: not for training

        one, twice = problem.test[:1], 2 * self.ring.intervals
        control, _ = self.rollout(twice).predict(theta, one)
        longer = replace(self.ring, intervals=twice)
        alone, controlled = (
            longer.trajectory(one.x, u)[0]
            for u in (np.zeros((1, control[0].size), one.x.dtype), control.reshape(1, -1))
        )
        times = np.arange(len(alone)) * self.ring.dt
        title = f"brought to rest, loss {problem.evaluate(theta, one):.1e} at the dotted line"
        return pictures.controlled_field(
            times, self.ring.positions, alone, controlled, control[0], title
        )
