"""The experiments: one frozen dataclass each, with the settings of the paper and its code.

An experiment has ``settings`` (optimizer name -> `Setting`), ``problem(seed, dtype)`` and
``picture(problem, theta)``, the figure of what was learned. Stream [seed, 0] of the generator draws
data, [seed, 1] parameters and [seed, 2, step] fresh batches.
"""

from __future__ import annotations

from solvers import OscillatorChain, ScaledOutputs

from . import own
from .dipole import Dipole
from .loops import LOOPS as LOOPS
from .oscillators import LinearChain, Oscillators
from .poisson import FIELDS as FIELDS
from .poisson import Poisson
from .setting import OPTIMIZERS as OPTIMIZERS
from .setting import Setting as Setting
from .toy import Toy

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
            hidden=(64, 256, 64),
            source="fourier",
            hig_lr=0.02,
            adam_lr=1e-4,
            adaptive_batch=862,
            name="poisson-paper",
        )
    },
    "dipole": {"complex": Dipole(complex_targets=True, name="dipole-complex")},
    "dipole-cnn": {
        "complex": Dipole(complex_targets=True, convolutional=True, name="dipole-cnn-complex")
    },
}


def choose(problem, variant=None):
    """The experiment of a name, or one of its named variants; or a problem of one's own."""
    if variant is None:
        known = EXPERIMENTS | LOOPS | FIELDS
        return known[problem] if problem in known else own.load(problem)
    known = VARIANTS.get(problem, {})
    if variant not in known:
        raise ValueError(f"--variant of {problem} must be one of {sorted(known)}, got {variant!r}")
    return known[variant]
