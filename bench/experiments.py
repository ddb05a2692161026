"""The experiments: one frozen dataclass each, with the settings of the paper and its code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import numpy as np

from higcore import (
    HIG,
    SGD,
    Adadelta,
    Adagrad,
    Adam,
    Batch,
    GaussNewton,
    Problem,
    RMSprop,
)
from higcore.losses import SquaredError
from nets import MLP
from solvers import OscillatorChain

OPTIMIZERS = {
    "hig": HIG,
    "gn": GaussNewton,
    "adam": Adam,
    "adadelta": Adadelta,
    "adagrad": Adagrad,
    "rmsprop": RMSprop,
    "sgd": SGD,
}


class Setting(NamedTuple):
    """An optimizer with its parameters, and the batch size that goes with it."""

    batch: int
    optimizer: object


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
    # Table 2 of the paper.
    settings: ClassVar[Mapping[str, Setting]] = {
        "hig": Setting(128, HIG(lr=1.0, tau=1e-6)),
        "gn": Setting(128, GaussNewton(lr=1.0, tau=1e-6)),
        "adam": Setting(512, Adam(lr=3e-4)),
        "adadelta": Setting(512, Adadelta(lr=0.1)),
        "adagrad": Setting(512, Adagrad(lr=0.1)),
        "rmsprop": Setting(512, RMSprop(lr=1e-4)),
        "sgd": Setting(512, SGD(lr=0.1)),
    }

    def problem(self, seed=0, dtype=np.float64):
        """Return the `Problem` with the data of a seed."""
        rng = np.random.default_rng([seed, 0])  # stream 1 of a seed draws the parameters
        size = self.solver.state_size
        network = MLP((size, *self.hidden, self.solver.control_size), self.activation)
        train, test = (
            Batch(*[rng.random((count, size)).astype(dtype)] * 3)
            for count in (self.samples, self.test_samples)
        )
        return Problem(network, self.solver, SquaredError(), train, test, name="oscillators")


EXPERIMENTS = {"oscillators": Oscillators()}
