"""Control of a quantum dipole, with a dense and with a convolutional network."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from higcore import HIG, Adam, Batch, GaussNewton, Problem
from higcore.backend import array_module
from higcore.losses import ComponentError, Infidelity
from nets import MLP, ConvNet1d
from solvers import QuantumDipole

from .setting import Setting, settings


@dataclass(frozen=True)
class Dipole:
    """Steer the ground state into a mix of the first two excited states (3.3, B.4).

    Parameters
    ----------
    complex_targets : bool
        Mix with complex coefficients (the paper's "linear combination") instead of real ones (the
        code); both are standard normal, then normalised.
    convolutional : bool
        Six convolutions and a dense layer instead of three hidden dense layers.
    """

    solver: QuantumDipole = field(default_factory=QuantumDipole)
    complex_targets: bool = False
    convolutional: bool = False
    samples: int = 1024
    test_samples: int = 1024
    name: str = "dipole"

    @property
    def settings(self):
        """Those of B.4: figures 4c and 8-11."""
        if self.convolutional:
            hig = Setting(16, HIG(lr=0.7, tau=1e-4))
            gn, adam = Setting(16, GaussNewton(tau=1e-4, paper=True)), Setting(256, Adam(lr=2e-4))
        else:
            hig = Setting(16, HIG(lr=0.5, tau=1e-5))
            gn = Setting(16, GaussNewton(lr=0.5, tau=1e-5, paper=True))
            adam = Setting(256, Adam(lr=5e-4))
        return settings(hig, gn, adam, adaptive=32)

    def network(self):
        """28-20-20-20-384 tanh (9484 parameters), or the convolutional one (21984)."""
        if self.convolutional:
            return ConvNet1d(self.solver.interior, 2, [20] * 6, 3, self.solver.steps)
        return MLP((self.solver.state_size, 20, 20, 20, self.solver.steps))

    def problem(self, seed=0, dtype=np.float64):
        """Return the `Problem` with the data of a seed."""
        rng = np.random.default_rng([seed, 0])
        train, test = (self._draw(rng, n, dtype) for n in (self.samples, self.test_samples))
        return Problem(self.network(), self.solver, Infidelity(), train, test, name=self.name)

    def _draw(self, rng, count, dtype):
        weights = rng.standard_normal((count, 2, 1))
        if self.complex_targets:
            weights = weights + 1j * rng.standard_normal((count, 2, 1))
        n = self.solver.interior
        modes = np.stack([self.solver.eigenstate(k)[:n] for k in (2, 3)])
        psi = (weights * modes).sum(axis=1)
        psi /= np.linalg.norm(psi, axis=1, keepdims=True)
        target = np.concatenate([psi.real, psi.imag], axis=1).astype(dtype)
        start = np.tile(self.solver.eigenstate(1).astype(dtype), (count, 1))
        return Batch(start, target, target)

    def component_losses(self, problem, theta):
        """Low- and high-energy test loss of figure 4c."""
        modes = {"low_energy_loss": 2, "high_energy_loss": 3}
        return {
            name: problem.evaluate(theta, loss=ComponentError(self._mode(k, theta)))
            for name, k in modes.items()
        }

    def _mode(self, k, theta):
        xp = array_module(theta=theta)
        return xp.asarray(self.solver.eigenstate(k), theta.dtype)

    def picture(self, problem, theta, figure=None):
        """Figure 4a: |psi(t, x)|^2 of the first test sample, and its control."""
        from . import pictures  # matplotlib: not for training

        one = problem.test[:1]
        control, _ = problem.network.forward(theta, one.net_input)
        states = problem.solver.trajectory(one.x, control)[0]
        n = problem.solver.interior
        target = one.target[0, :n] ** 2 + one.target[0, n:] ** 2
        return pictures.dipole_density(
            np.arange(len(states)) * problem.solver.dt,
            problem.solver.positions,
            states[:, :n] ** 2 + states[:, n:] ** 2,
            control[0],
            target,
            f"transition of the first test sample, loss {problem.evaluate(theta, one):.1e}",
            figure,
        )

    def recorder(self, problem):
        """Callback that records the low- and high-energy losses (figure 4c)."""
        return ComponentRecorder(self, problem)


class ComponentRecorder:
    """Low- and high-energy losses after the epochs that `fit` evaluates."""

    def __init__(self, experiment, problem):
        self.experiment, self.problem = experiment, problem
        self.data = {"epoch": [], "low_energy_loss": [], "high_energy_loss": []}

    def __call__(self, result):
        self.data["epoch"].append(result.epochs)
        losses = self.experiment.component_losses(self.problem, result.theta)
        for name, value in losses.items():
            self.data[name].append(float(f"{value:.5g}"))
