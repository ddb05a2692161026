"""Half-inverse gradients on plain arrays. See README.md for the whole picture."""

from .checkpoint import load_checkpoint, save_checkpoint
from .checks import check_network, check_solver, dot_test, taylor_test
from .half_inverse import HalfInverseInfo, half_inverse
from .linearisation import Linearisation, StackedJacobian
from .memory import MemoryEstimate, memory_estimate
from .optimizers import SGD, Adadelta, Adagrad, Adam, RMSprop
from .problem import Batch, FreshData, Problem
from .second_order import HIG, GaussNewton, LevenbergMarquardt, ScaleInvariantPhysics
from .training import Result, fit
from .validation import NonFiniteError

__version__ = "0.1.0"

__all__ = [
    "HIG",
    "SGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "Batch",
    "FreshData",
    "GaussNewton",
    "HalfInverseInfo",
    "LevenbergMarquardt",
    "Linearisation",
    "MemoryEstimate",
    "NonFiniteError",
    "Problem",
    "RMSprop",
    "Result",
    "ScaleInvariantPhysics",
    "StackedJacobian",
    "check_network",
    "check_solver",
    "dot_test",
    "fit",
    "half_inverse",
    "load_checkpoint",
    "memory_estimate",
    "save_checkpoint",
    "taylor_test",
]
