"""Training: `fit`, what it returns, and what keeps a run alive."""

from .checkpoint import Checkpoints, load_checkpoint, save_checkpoint
from .diagnostics import StepDiagnostics
from .fit import fit
from .profile import Profile, profile
from .result import Best, Epoch, History, Result, TrainingError

__all__ = [
    "Best",
    "Checkpoints",
    "Epoch",
    "History",
    "Profile",
    "Result",
    "StepDiagnostics",
    "TrainingError",
    "fit",
    "load_checkpoint",
    "profile",
    "save_checkpoint",
]
