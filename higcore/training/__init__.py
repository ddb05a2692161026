"""Training: `fit`, what it returns, and what keeps a run alive."""

from .checkpoint import Checkpoints, load_checkpoint, save_checkpoint
from .diagnostics import StepDiagnostics
from .fit import fit
from .result import Epoch, History, Result, TrainingError

__all__ = [
    "Checkpoints",
    "Epoch",
    "History",
    "Result",
    "StepDiagnostics",
    "TrainingError",
    "fit",
    "load_checkpoint",
    "save_checkpoint",
]
