"""The Poisson equation with random sources, on the paper's grid and on those of real fields."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

import numpy as np

from higcore import HIG, Adam, Batch, FreshData, GaussNewton, Problem
from higcore.losses import SquaredError
from nets import MLP, ConvNet2d
from solvers import Poisson2D

from .setting import Setting, settings


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
    adaptive_batch: int = 518
    name: str = "poisson"

    @property
    def settings(self):
        """Step sizes of the code, or of figure 3 for the paper's variant."""
        return settings(
            Setting(64, HIG(lr=self.hig_lr, tau=1e-5)),
            Setting(64, GaussNewton(lr=self.hig_lr, tau=1e-5, paper=True)),
            Setting(64, Adam(lr=self.adam_lr)),
            adaptive=self.adaptive_batch,
        )

    def network(self):
        """Dense: every point of the potential sees all of the source."""
        size = self.solver.control_size
        return MLP((size, *self.hidden, size))

    def problem(self, seed=0, dtype=np.float64):
        """Return the `Problem`; batches are drawn from (seed, step), the test set from seed."""
        draw = partial(self.draw, dtype=dtype)
        return Problem(
            self.network(),
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

    def picture(self, problem, theta, figure=None):
        """Figure 3a: a source, the potential inferred, the exact one, and the residual."""
        from . import pictures  # matplotlib: not for training

        one = problem.test[:1]
        phi, y = problem.predict(theta, one)
        fields = {
            "source ρ": one.target[0],
            "potential φ, inferred": phi[0],
            "potential φ, exact": problem.solver.potential(one.target)[0],
            "Δφ - ρ of the inferred": y[0] - one.target[0],
        }
        shape = problem.solver.shape
        return pictures.poisson_fields({k: v.reshape(shape) for k, v in fields.items()}, figure)


@dataclass(frozen=True)
class PoissonField(Poisson):
    """The same equation resolved by more points, and a convolutional network that keeps the grid.

    The domain is that of the 8 x 8 points, of side 9, and the sources are the paper's smooth ones.
    They are fresh in every step, as there: to draw them takes a thirtieth of a step, and there is
    no set to keep or to overfit. J has 4096 rows a sample at 64 x 64 points: first-order optimizers
    never make it, AdaptiveHIG needs its products alone, and what makes it takes ``few`` samples.

    Parameters
    ----------
    hidden : tuple of int
        Features of the convolutions, of 3 x 3 taps.
    steps : tuple of int
        How far apart their taps are. The potential at a point depends on the source everywhere, so
        they must see across the grid.
    """

    solver: Poisson2D = field(default_factory=lambda: Poisson2D(64, 9 / 65))
    hidden: tuple[int, ...] = (8, 8, 8, 8, 8, 8, 8)
    steps: tuple[int, ...] = (1, 2, 4, 8, 16, 4, 2)
    source: str = "fourier"
    test_samples: int = 128
    few: int = 1
    adaptive_batch: int = 16
    adam_lr: float = 0.01
    name: str = "poisson-64"

    @property
    def settings(self):
        """Adam's step size was looked for, roughly; what takes rows has ``few`` samples."""
        few = Setting(self.few, HIG(lr=self.hig_lr, tau=1e-5))
        gn = Setting(self.few, GaussNewton(lr=self.hig_lr, tau=1e-5, paper=True))
        found = settings(few, gn, Setting(64, Adam(lr=self.adam_lr)), adaptive=self.adaptive_batch)
        return found | {"sip": found["sip"]._replace(batch=self.few)}

    def network(self):
        """Convolutions from the source to the potential, a field each."""
        return ConvNet2d(self.solver.shape, 1, self.hidden, 3, steps=self.steps)


FIELDS = {
    "poisson-32": PoissonField(
        Poisson2D(32, 9 / 33), (8,) * 6, steps=(1, 2, 4, 8, 4, 2), few=4, name="poisson-32"
    ),
    "poisson-64": PoissonField(),
}


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
