"""The ill-conditioned toy of section 2.1."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from higcore import HIG, Adam, Batch, GaussNewton, Problem
from higcore.backend import to_host
from higcore.losses import SquaredError
from nets import MLP
from solvers import ScaledOutputs

from .setting import Setting, settings


@dataclass(frozen=True)
class Toy:
    """Fit (sin 6x, cos 9x) with the second output scaled by gamma (2.1, B.1, eq. 4)."""

    solver: ScaledOutputs = field(default_factory=ScaledOutputs)
    samples: int = 1024
    hig_lr: float = 1.0
    name: str = "toy"

    @property
    def settings(self):
        """Those of B.1."""
        return settings(
            Setting(256, HIG(lr=self.hig_lr, tau=1e-6)),
            Setting(256, GaussNewton(lr=1.0, tau=1e-4, paper=True)),
            Setting(256, Adam(lr=0.3)),
            adaptive=self.samples,
        )

    def problem(self, seed=0, dtype=np.float64):
        """Return the `Problem` with the data of a seed; the test set is drawn anew."""
        rng = np.random.default_rng([seed, 0])
        train, test = self._draw(rng, dtype), self._draw(rng, dtype)
        return Problem(MLP((1, 7, 2)), self.solver, SquaredError(0.5), train, test, name=self.name)

    def _draw(self, rng, dtype):
        x = rng.uniform(-1, 1, (self.samples, 1)).astype(dtype)
        return Batch(x, x, np.concatenate([np.sin(6 * x), np.cos(9 * x)], axis=1))

    def picture(self, problem, theta):
        """The fitted curves."""
        from . import pictures  # matplotlib: not for training

        grid = np.linspace(-1, 1, 401, dtype=theta.dtype)[:, None]
        control, _ = problem.network.forward(theta, grid)
        return pictures.toy_fit(grid[:, 0], problem.solver.solve(grid, control))

    def recorder(self, problem):
        """Callback that records what figure 1 shows."""
        return ToyRecorder(problem)


class ToyRecorder:
    """Mean and standard deviation of each hidden neuron over the data, and errors of the output.

    ``output_path`` is the error of one sample, ``component_error`` the root mean square over the
    data, output by output.
    """

    def __init__(self, problem, sample=0):
        self.problem, self.sample = problem, sample
        kinds = ("epoch", "neuron_mean", "neuron_std", "output_path", "component_error")
        self.data = {kind: [] for kind in kinds}

    def __call__(self, result):
        self.data["epoch"].append(result.epochs)
        _, tape = self.problem.network.forward(result.theta, self.problem.train.net_input)
        neurons = to_host(tape[1])
        self.data["neuron_mean"].append(np.round(neurons.mean(axis=0), 5).tolist())
        self.data["neuron_std"].append(np.round(neurons.std(axis=0), 5).tolist())
        train = self.problem.train
        errors = to_host(self.problem.predict(result.theta, train)[1] - train.target)
        self._append("output_path", errors[self.sample])
        self._append("component_error", (errors**2).mean(axis=0) ** 0.5)

    def _append(self, kind, values):
        self.data[kind].append([float(f"{v:.5g}") for v in values])
