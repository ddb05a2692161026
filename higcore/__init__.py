"""Half-inverse gradients on plain arrays. See README.md for the whole picture."""

__version__ = "0.1.0"

from .checkpoint import Checkpoints, load_checkpoint, save_checkpoint
from .checks import check_network, check_solver, dot_test, taylor_test
from .damped import LevenbergMarquardt
from .diagnostics import StepDiagnostics
from .half_inverse import DoesNotFitError, HalfInverseInfo, half_inverse
from .linearisation import Linearisation, StackedJacobian
from .memory import MemoryEstimate, memory_estimate
from .optimizers import SGD, Adadelta, Adagrad, Adam, RMSprop
from .problem import Batch, FreshData, Problem
from .result import Epoch, History, Result, TrainingError
from .second_order import HIG, GaussNewton, ScaleInvariantPhysics
from .training import fit
from .validation import NonFiniteError

__all__ = [
    "HIG",
    "SGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "Batch",
    "Checkpoints",
    "DoesNotFitError",
    "Epoch",
    "FreshData",
    "GaussNewton",
    "HalfInverseInfo",
    "History",
    "LevenbergMarquardt",
    "Linearisation",
    "MemoryEstimate",
    "NonFiniteError",
    "Problem",
    "RMSprop",
    "Result",
    "ScaleInvariantPhysics",
    "StackedJacobian",
    "StepDiagnostics",
    "TrainingError",
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
