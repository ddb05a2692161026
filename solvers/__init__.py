"""Physics solvers with hand-written tangents and adjoints."""

from .base import Solver, TapedSolver
from .dipole import QuantumDipole
from .oscillators import OscillatorChain
from .poisson import Poisson2D
from .toy import ScaledOutputs

__all__ = [
    "OscillatorChain",
    "Poisson2D",
    "QuantumDipole",
    "ScaledOutputs",
    "Solver",
    "TapedSolver",
]
