"""Half-inverse gradients on plain arrays. See README.md for the whole picture."""

import warnings as _warnings
from types import ModuleType as _Module

from .device.memory import DoesNotFitError
from .examination import (
    check_loss,
    check_network,
    check_solver,
    check_stepper,
    dot_test,
    taylor_test,
)
from .half_inverse import HalfInverseInfo, half_inverse
from .linearisation import Linearisation, StackedJacobian
from .model import Model
from .optimizers import (
    HIG,
    SGD,
    Adadelta,
    Adagrad,
    Adam,
    AdaptiveHIG,
    GaussNewton,
    LevenbergMarquardt,
    RMSprop,
    ScaleInvariantPhysics,
    Scheduled,
)
from .optimizers.memory import MemoryEstimate, memory_estimate
from .problem import Batch, FreshData, Problem
from .training import (
    Best,
    Checkpoints,
    Epoch,
    History,
    Profile,
    Result,
    StepDiagnostics,
    TrainingError,
    fit,
    load_checkpoint,
    profile,
    save_checkpoint,
)
from .validation import NonFiniteError
from .version import __version__ as __version__

__all__ = [
    "HIG",
    "SGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdaptiveHIG",
    "Batch",
    "Best",
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
    "Model",
    "NonFiniteError",
    "Problem",
    "Profile",
    "RMSprop",
    "Result",
    "ScaleInvariantPhysics",
    "Scheduled",
    "StackedJacobian",
    "StepDiagnostics",
    "TrainingError",
    "check_loss",
    "check_network",
    "check_solver",
    "check_stepper",
    "dot_test",
    "fit",
    "half_inverse",
    "load_checkpoint",
    "memory_estimate",
    "profile",
    "save_checkpoint",
    "taylor_test",
]


def __getattr__(name: str) -> _Module:
    """``higcore.gpu``, the name that ``higcore.device.gpu`` had."""
    if name != "gpu":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .device import gpu

    message = "higcore.gpu is now higcore.device.gpu"
    _warnings.warn(message, DeprecationWarning, stacklevel=2)
    return gpu
