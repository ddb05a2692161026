"""The experiments: one frozen dataclass each, with the settings of the paper and its code.

An experiment has ``settings`` (optimizer name -> `Setting`), ``problem(seed, dtype)`` and
``picture(problem, theta)``, the figure of what was learned. Stream [seed, 0] of the generator draws
data, [seed, 1] parameters and [seed, 2, step] fresh batches.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

import numpy as np

from higcore import (
    HIG,
    SGD,
    Adadelta,
    Adagrad,
    Adam,
    Batch,
    FreshData,
    GaussNewton,
    LevenbergMarquardt,
    Problem,
    RMSprop,
    ScaleInvariantPhysics,
)
from higcore.backend import array_module, to_host
from higcore.losses import ComponentError, Infidelity, SquaredError
from nets import MLP, ConvNet1d
from solvers import OscillatorChain, Poisson2D, QuantumDipole, ScaledOutputs

OPTIMIZERS = ("hig", "gn", "lm", "sip", "adam", "adadelta", "adagrad", "rmsprop", "sgd")


class Setting(NamedTuple):
    """An optimizer with its parameters, and the batch size that goes with it."""

    batch: int
    optimizer: object


def settings(hig, gn, adam, **others):
    """All optimizers of table 2, SIP and Levenberg-Marquardt, around those an experiment names."""
    defaults = {
        "hig": hig,
        "gn": gn,
        "lm": Setting(hig.batch, LevenbergMarquardt()),
        "sip": Setting(adam.batch, ScaleInvariantPhysics(lr=adam.optimizer.lr)),
        "adam": adam,
        "adadelta": Setting(adam.batch, Adadelta(lr=0.1)),
        "adagrad": Setting(adam.batch, Adagrad(lr=0.1)),
        "rmsprop": Setting(adam.batch, RMSprop(lr=1e-4)),
        "sgd": Setting(adam.batch, SGD(lr=0.1)),
    }
    return defaults | others


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
            Setting(128, GaussNewton(lr=1.0, tau=1e-6)),
            Setting(512, Adam(lr=3e-4)),
        )

    def problem(self, seed=0, dtype=np.float64):
        """Return the `Problem` with the data of a seed."""
        rng = np.random.default_rng([seed, 0])
        size = self.solver.state_size
        network = MLP((size, *self.hidden, self.solver.control_size), self.activation)
        train = uniform_states(rng, self.samples, size, dtype)
        test = uniform_states(rng, self.test_samples, size, dtype)
        return Problem(network, self.solver, SquaredError(), train, test, name=self.name)

    def picture(self, problem, theta):
        """Figure 2a: the first test sample under its control."""
        from ..paper import figures

        one = problem.test[:1]
        control, _ = problem.network.forward(theta, one.net_input)
        states = problem.solver.trajectory(one.x, control)[0]
        times = np.arange(len(states)) * problem.solver.dt
        title = f"controlled oscillators, loss {problem.evaluate(theta, one):.1e} (circles: target)"
        return figures.oscillator_trajectory(times, states, control[0], one.target[0], title)


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
            Setting(32, GaussNewton(lr=1.0, tau=1e-6)),
            Setting(256, Adam(lr=1e-3)),
        )

    def problem(self, seed=0, dtype=np.float64):
        """Return the `Problem` with the data of a seed."""
        problem = super().problem(seed, dtype)
        return replace(problem, test=problem.train)


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
            Setting(256, GaussNewton(lr=1.0, tau=1e-4)),
            Setting(256, Adam(lr=0.3)),
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
        from ..paper import figures

        grid = np.linspace(-1, 1, 401, dtype=theta.dtype)[:, None]
        control, _ = problem.network.forward(theta, grid)
        return figures.toy_fit(grid[:, 0], problem.solver.solve(grid, control))

    def recorder(self, problem):
        """Callback that records what figure 1 shows."""
        return ToyRecorder(problem)


class ToyRecorder:
    """Mean and standard deviation of each hidden neuron over the data, and one output's error."""

    def __init__(self, problem, sample=0):
        self.problem, self.one = problem, problem.train[sample : sample + 1]
        self.data = {"epoch": [], "neuron_mean": [], "neuron_std": [], "output_path": []}

    def __call__(self, result):
        self.data["epoch"].append(result.epochs)
        _, tape = self.problem.network.forward(result.theta, self.problem.train.net_input)
        neurons = to_host(tape[1])
        self.data["neuron_mean"].append(np.round(neurons.mean(axis=0), 5).tolist())
        self.data["neuron_std"].append(np.round(neurons.std(axis=0), 5).tolist())
        error = to_host(self.problem.predict(result.theta, self.one)[1][0] - self.one.target[0])
        self.data["output_path"].append([float(f"{v:.5g}") for v in error])


@dataclass(frozen=True)
class Poisson:
    """Learn the potential of a random source on an 8 x 8 grid (3.2, B.3); fresh data every step.

    Parameters
    ----------
    hidden : tuple of int
        (64, 128, 64) in the code (24896 parameters), (64, 256, 64) in the paper (41408).
    source : {"laplacian", "fourier"}
        The code's rho, the Laplacian of smooth noise, or the paper's, the smooth noise itself.
    """

    solver: Poisson2D = field(default_factory=Poisson2D)
    hidden: tuple[int, ...] = (64, 128, 64)
    source: str = "laplacian"
    samples: int = 4096
    test_samples: int = 1024
    hig_lr: float = 0.01
    adam_lr: float = 3e-4
    name: str = "poisson"

    @property
    def settings(self):
        """Step sizes of the code, or of figure 3 for the paper's variant."""
        return settings(
            Setting(64, HIG(lr=self.hig_lr, tau=1e-5)),
            Setting(64, GaussNewton(lr=self.hig_lr, tau=1e-5)),
            Setting(64, Adam(lr=self.adam_lr)),
        )

    def problem(self, seed=0, dtype=np.float64):
        """Return the `Problem`; batches are drawn from (seed, step), the test set from seed."""
        size = self.solver.control_size
        draw = partial(self.draw, dtype=dtype)
        return Problem(
            MLP((size, *self.hidden, size)),
            self.solver,
            SquaredError(0.5),
            FreshData(draw, seed, self.samples),
            draw(np.random.default_rng([seed, 0]), self.test_samples),
            batch_mean=False,
            name=self.name,
        )

    def draw(self, rng, count, dtype):
        """Sources rho, which are at once the network's input and the target."""
        rho = smooth_noise(rng, count, self.solver.shape).reshape(count, -1)
        if self.source == "laplacian":
            rho = self.solver.laplacian(rho)
        return Batch(*[rho.astype(dtype)] * 3)

    def picture(self, problem, theta):
        """Figure 3a: a source, the potential inferred, the exact one, and the residual."""
        from ..paper import figures

        one = problem.test[:1]
        phi, y = problem.predict(theta, one)
        matrix = problem.solver.rows(phi)[0]
        exact = np.linalg.solve(matrix, one.target[0])
        fields = {
            "source rho": one.target[0],
            "potential, inferred": phi[0],
            "potential, exact": exact,
            "Laplacian(inferred) - rho": y[0] - one.target[0],
        }
        shape = problem.solver.shape
        return figures.poisson_fields({k: v.reshape(shape) for k, v in fields.items()})


def smooth_noise(rng, count, shape):
    """Random fields (count, n_1, n_2) of unit standard deviation and zero mean, sample by sample.

    Complex normal Fourier coefficients times 1/k^2 (none for k^2 <= 0.1), real part; k counts
    waves over the grid. The recipe of the noise that the authors' code uses.
    """
    waves = np.meshgrid(*(np.fft.fftfreq(n, 1 / n) for n in shape), indexing="ij")
    k2 = sum(k**2 for k in waves)
    weight = np.where(k2 > 0.1, 1 / np.maximum(k2, 0.1), 0.0)
    coefficients = rng.standard_normal((2, count, *shape))
    noise = np.fft.ifft2((coefficients[0] + 1j * coefficients[1]) * weight).real
    noise /= noise.std(axis=(1, 2), keepdims=True)
    return noise - noise.mean(axis=(1, 2), keepdims=True)


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
            return settings(hig, Setting(16, GaussNewton(tau=1e-4)), Setting(256, Adam(lr=2e-4)))
        hig = Setting(16, HIG(lr=0.5, tau=1e-5))
        return settings(
            hig, Setting(16, GaussNewton(lr=0.5, tau=1e-5)), Setting(256, Adam(lr=5e-4))
        )

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

    def picture(self, problem, theta):
        """Figure 4a: |psi(t, x)|^2 of the first test sample, and its control."""
        from ..paper import figures

        one = problem.test[:1]
        control, _ = problem.network.forward(theta, one.net_input)
        states = problem.solver.trajectory(one.x, control)[0]
        n = problem.solver.interior
        target = one.target[0, :n] ** 2 + one.target[0, n:] ** 2
        return figures.dipole_density(
            np.arange(len(states)) * problem.solver.dt,
            problem.solver.positions,
            states[:, :n] ** 2 + states[:, n:] ** 2,
            control[0],
            target,
            f"transition of the first test sample, loss {problem.evaluate(theta, one):.1e}",
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


EXPERIMENTS = {
    "toy": Toy(),
    "oscillators": Oscillators(),
    "linear-chain": LinearChain(),
    "poisson": Poisson(),
    "dipole": Dipole(),
    "dipole-cnn": Dipole(convolutional=True, name="dipole-cnn"),
}

# Named alternatives to the defaults: where the paper's text differs from its code, or shows two.
VARIANTS = {
    "toy": {
        "well-conditioned": Toy(ScaledOutputs(1.0), name="toy-well-conditioned"),
        "large-step": Toy(hig_lr=6.0, name="toy-large-step"),
    },
    "oscillators": {
        "hamiltonian": Oscillators(OscillatorChain(cubic=4.0), name="oscillators-hamiltonian")
    },
    "poisson": {
        "paper": Poisson(
            hidden=(64, 256, 64), source="fourier", hig_lr=0.02, adam_lr=1e-4, name="poisson-paper"
        )
    },
    "dipole": {"complex": Dipole(complex_targets=True, name="dipole-complex")},
    "dipole-cnn": {
        "complex": Dipole(complex_targets=True, convolutional=True, name="dipole-cnn-complex")
    },
}
