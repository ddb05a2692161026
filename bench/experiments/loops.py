"""Problems with the network inside the time loop: a law, a controller, a correction, and chaos."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from higcore import HIG, Adam, Batch, Problem
from higcore.losses import SquaredError
from nets import MLP, Network
from nets.layers import Conv1d
from solvers import (
    AtTimes,
    BurgersStepper,
    OscillatorChain,
    Rollout,
    RungeKutta4,
    Seen,
)

from .chaos import Chaos
from .setting import Setting, of_loops


def pendulum(x, u, out):
    """Angle and velocity of a pendulum of unit length and gravity, slowed down by u."""
    out[0] = x[1]
    out[1] = -math.sin(x[0]) - u[0]


def pendulum_tangent(x, u, dx, du, out):
    """Derivative of `pendulum` along dx and du."""
    out[0] = dx[1]
    out[1] = -math.cos(x[0]) * dx[0] - du[0]


@dataclass(frozen=True)
class Friction:
    """Learn the friction of a pendulum from where it was seen, with errors, at some times.

    The law is 0.2 v + 0.3 tanh(5 v): air, and a bearing. The network sees the velocity and is
    asked at every step; angle and velocity are observed after each eighth of the steps, with an
    error of ``noise``. The test trajectories have none.
    """

    steps: int = 40
    noise: float = 0.01
    samples: int = 256
    test_samples: int = 256
    name: str = "friction"

    @property
    def settings(self):
        """HIG's and Adam's are a first guess; nothing was tuned."""
        return of_loops(Setting(64, HIG(lr=1.0, tau=1e-4)), Setting(64, Adam(lr=0.003)))

    def law(self, velocity):
        """What is to be learned."""
        return 0.2 * velocity + 0.3 * np.tanh(5 * velocity)

    def rollout(self, network):
        """The pendulum with a network for its friction."""
        stepper = RungeKutta4(pendulum, pendulum_tangent, 2, 1, dt=0.1)
        every = max(1, self.steps // 8)
        times = AtTimes(range(every, self.steps + 1, every))
        return Rollout(network, stepper, self.steps, sees=Seen((1,)), observe=times)

    def problem(self, seed=0, dtype=np.float64):
        """Return the `Problem` with the data of a seed."""
        rng = np.random.default_rng([seed, 0])
        loop = self.rollout(MLP((1, 16, 16, 1)))
        train = self._draw(rng, loop, self.samples, self.noise, dtype)
        test = self._draw(rng, loop, self.test_samples, 0.0, dtype)
        return Problem(loop, None, SquaredError(), train, test, name=self.name)

    def _draw(self, rng, loop, count, noise, dtype):
        x = rng.uniform(-2, 2, (count, 2))
        states = [x]
        for _ in range(self.steps):
            states.append(loop.stepper.step(states[-1], self.law(states[-1][:, 1:])))
        seen = loop.observe.value(np.stack(states))
        seen = seen + noise * rng.standard_normal(seen.shape)
        return Batch(x.astype(dtype), x.astype(dtype), seen.astype(dtype))

    def picture(self, problem, theta):
        """The law that was learned, and where the velocities were."""
        from . import pictures  # matplotlib: not for training

        loop = problem.model
        seen = loop.trajectory(theta, problem.train)[:, :, 1].ravel()
        velocity = np.linspace(seen.min(), seen.max(), 200, dtype=theta.dtype)
        learned = loop.network.forward(theta, velocity[:, None])[0][:, 0]
        return pictures.law(velocity, learned, self.law(velocity), seen)


@dataclass(frozen=True)
class Feedback:
    """Bring two coupled oscillators to rest from any start, seeing them all the time.

    The network sees the state at every step and pushes the second oscillator for the next one. The
    loss is what is left of the state at the last five of twelve observed times.
    """

    chain: OscillatorChain = field(
        default_factory=lambda: OscillatorChain(linear=0.5, control=(0.0, 1.0))
    )
    samples: int = 1024
    test_samples: int = 1024
    name: str = "feedback"

    @property
    def settings(self):
        """HIG's and Adam's are a first guess; nothing was tuned."""
        return of_loops(Setting(32, HIG(lr=0.5, tau=1e-4)), Setting(128, Adam(lr=0.002)))

    def problem(self, seed=0, dtype=np.float64):
        """Return the `Problem` with the data of a seed."""
        steps = self.chain.steps
        times = AtTimes([round(steps * share) for share in (2 / 3, 3 / 4, 5 / 6, 11 / 12, 1)])
        loop = Rollout(MLP((4, 20, 20, 1)), self.chain.stepper(), steps, observe=times)
        train, test = self.data(seed, loop.output_size, dtype)
        return Problem(loop, None, SquaredError(), train, test, name=self.name)

    def data(self, seed, outputs, dtype=np.float64):
        """Start states uniform in [-1, 1)^4 for training and test, with rest as the target."""
        rng = np.random.default_rng([seed, 0])
        for count in (self.samples, self.test_samples):
            x = rng.uniform(-1, 1, (count, self.chain.state_size)).astype(dtype)
            yield Batch(x, x, np.zeros((count, outputs), dtype))

    def open_loop(self, seed=0):
        """The same task for a network that sees the start alone, and says all pushes at once."""
        network = MLP((4, 20, 20, 20, self.chain.steps))
        train, test = self.data(seed, self.chain.state_size)
        return Problem(network, self.chain, SquaredError(), train, test, name="open-loop")

    def picture(self, problem, theta):
        """The first test sample, as it is brought to rest."""
        from . import pictures  # matplotlib: not for training

        one, loop = problem.test[:1], problem.model
        states = loop.trajectory(theta, one)[0]
        control = problem.predict(theta, one)[0][0, :, 0]
        times = np.arange(len(states)) * self.chain.dt
        title = f"brought to rest by what is seen, loss {problem.evaluate(theta, one):.1e}"
        return pictures.oscillator_trajectory(times, states, control, 0 * states[-1], title)


@dataclass(frozen=True)
class Burgers:
    """Correct the fluxes of a coarse solver so that it goes the way of a fine one.

    The solver is in the loop (Um, Brand, Fei, Holl and Thuerey 2020): the network sees what its
    own corrections led to. A fine solver of eight times the cells and steps shows the way; the
    network, the same at every cell, sees four cells around a flux. The loss is the mean squared
    distance from the fine solution after ``steps``, from starts at all times of four such spans.
    """

    coarse: BurgersStepper = field(default_factory=BurgersStepper)
    steps: int = 10
    refinement: int = 8
    samples: int = 256
    test_samples: int = 64
    name: str = "burgers"

    @property
    def settings(self):
        """HIG's and Adam's are a first guess; nothing was tuned."""
        return of_loops(Setting(16, HIG(lr=0.5, tau=1e-4)), Setting(16, Adam(lr=0.003)))

    @property
    def spans(self):
        """How many times the trained span the solution is followed."""
        return 4

    def network(self):
        """Three convolutions, 4-16-16-1 at every cell."""
        points = self.coarse.cells + 3
        layers, start = [], 0
        for n_in, n_out, width, activation in (
            (1, 16, 4, "tanh"), (16, 16, 1, "tanh"), (16, 1, 1, "linear"),
        ):  # fmt: skip
            layers.append(Conv1d(points, n_in, n_out, width, activation, start))
            start += layers[-1].size
            points -= width - 1
        return Network(layers)

    def rollout(self, steps):
        """The coarse solver with a network in it."""
        n = self.coarse.cells
        around = [(i - 1) % n for i in range(n + 3)]  # periodic: cells i - 1 to i + 2 for flux i
        return Rollout(self.network(), self.coarse, steps, sees=Seen(around))

    def problem(self, seed=0, dtype=np.float64):
        """Return the `Problem` with the data of a seed."""
        rng = np.random.default_rng([seed, 0])
        train, test = (
            self._pieces(rng, self.fine(rng, count), dtype)
            for count in (self.samples, self.test_samples)
        )
        n = self.coarse.cells
        loss = SquaredError(1 / n)
        return Problem(self.rollout(self.steps), None, loss, train, test, name=self.name)

    def _pieces(self, rng, states, dtype):
        """One span of each solution (steps + 1, b, n), from a random time on."""
        last, samples = len(states) - 1 - self.steps, np.arange(states.shape[1])
        first = rng.integers(0, last + 1, len(samples))
        x, target = states[first, samples], states[first + self.steps, samples]
        return Batch(x.astype(dtype), x.astype(dtype), target.astype(dtype))

    def fine(self, rng, count):
        """Means over coarse cells of fine solutions at all coarse times, (times, count, n)."""
        k = self.refinement
        c = self.coarse
        fine = BurgersStepper(k * c.cells, c.dt / k, c.length, c.viscosity, c.speed)
        x, none, found = self._starts(rng, count, fine), 0.0, []
        for _ in range(self.spans * self.steps + 1):
            found.append(x.reshape(count, c.cells, k).mean(axis=2))
            for _ in range(k):
                x = fine.step(x, none)
        return np.stack(found)

    def _starts(self, rng, count, fine):
        """Four waves of random phases, the slow ones larger; at most 1.5 high."""
        places = (np.arange(fine.cells) + 0.5) * 2 * np.pi / fine.cells
        waves = np.arange(1, 5)
        height = rng.standard_normal((count, 4)) / waves
        phase = rng.uniform(0, 2 * np.pi, (count, 4))
        x = (height[:, :, None] * np.sin(waves[:, None] * places + phase[:, :, None])).sum(axis=1)
        return x * np.minimum(1, 1.5 / abs(x).max(axis=1, keepdims=True))

    def errors(self, problem, theta, seed=1000):
        """Relative errors over all spans, of the coarse solver and of the corrected one."""
        states = self.fine(np.random.default_rng([seed, 3]), self.test_samples)
        states = states.astype(theta.dtype)
        start = Batch(states[0], states[0], states[-1])
        corrected = self.rollout(self.spans * self.steps).trajectory(theta, start).swapaxes(0, 1)
        coarse = [states[0]]
        for _ in range(len(states) - 1):
            coarse.append(self.coarse.step(coarse[-1], 0.0))
        size = np.linalg.norm(states, axis=2)
        return states, [
            (np.linalg.norm(found - states, axis=2) / size).mean(axis=1)
            for found in (np.stack(coarse), corrected)
        ]

    def picture(self, problem, theta):
        """Errors over four times the span that was trained, and one solution at its end."""
        from . import pictures  # matplotlib: not for training

        states, errors = self.errors(problem, theta)
        one = Batch(*[states[0, :1]] * 3)
        corrected = self.rollout(len(states) - 1).trajectory(theta, one)[0, -1]
        coarse = one.x
        for _ in range(len(states) - 1):
            coarse = self.coarse.step(coarse, 0.0)
        curves = {"fine": states[-1, 0], "coarse": coarse[0], "corrected": corrected}
        times = np.arange(len(states)) * self.coarse.dt
        return pictures.corrected_solver(times, errors, curves, self.steps * self.coarse.dt)


@dataclass(frozen=True)
class PendulumLoop:
    """A step to be timed: 3-16-16-1 sees state and time of a pendulum for 40 steps."""

    steps: int = 40
    name: str = "pendulum-loop"

    @property
    def settings(self):
        """A batch, and a cutoff that squaring resolves."""
        return of_loops(Setting(64, HIG(lr=0.1, tau=1e-4)), Setting(64, Adam(lr=0.003)))

    def problem(self, seed=0, dtype=np.float64):
        """Bring the pendulum to rest."""
        stepper = RungeKutta4(pendulum, pendulum_tangent, 2, 1, dt=0.1)
        loop = Rollout(MLP((3, 16, 16, 1)), stepper, self.steps, sees=Seen(time=True))
        x = np.random.default_rng([seed, 0]).uniform(-1, 1, (1024, 2)).astype(dtype)
        data = Batch(x, x, np.zeros_like(x))
        return Problem(loop, None, SquaredError(), data, data, name=self.name)


TIMED = {"pendulum-loop": PendulumLoop()}
LOOPS = {
    "friction": Friction(),
    "feedback": Feedback(),
    "burgers": Burgers(),
    "kuramoto-sivashinsky": Chaos(),
}
