"""Physics solvers with hand-written tangents and adjoints, or with differences."""

from .base import Solver, TapedSolver
from .burgers import BurgersStepper
from .differenced import DifferencedSolver
from .dipole import QuantumDipole
from .kuramoto_sivashinsky import KuramotoSivashinsky
from .observed import AtTimes, Seen
from .oscillators import OscillatorChain
from .poisson import Poisson2D
from .rollout import Rollout
from .runge_kutta import RungeKutta4
from .scalar import ScalarStepper
from .stepper import Stepper
from .toy import ScaledOutputs

__all__ = [
    "AtTimes",
    "BurgersStepper",
    "DifferencedSolver",
    "KuramotoSivashinsky",
    "OscillatorChain",
    "Poisson2D",
    "QuantumDipole",
    "Rollout",
    "RungeKutta4",
    "ScalarStepper",
    "ScaledOutputs",
    "Seen",
    "Solver",
    "Stepper",
    "TapedSolver",
]
