"""What a run leaves: its state, its history, and why it stopped, in sentences that help."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from ..backend import Array, same_fields, to_device
from ..protocols import OptimizerState
from .diagnostics import Diagnostics
from .table import Table, to_pandas

# What every status means and, where something went wrong, what to try.
MESSAGES = {
    "running": "Still running.",
    "budget": "Stopped because the budget of {reason} was spent.",
    "stopped": "Stopped because a callback asked for it.",
    "interrupted": "Interrupted from the keyboard; this is the last complete state.",
    "stagnated": (
        "Stopped because the {reason}. It may have converged: look at the history; else try a "
        "smaller tau, where there is one, which lets more modes move, or another lr or batch."
    ),
    "diverged": (
        "Stopped because the {reason}. Try a smaller lr or a larger tau, or start from "
        "the parameters of a few epochs with Adam; a wrong derivative does this too: check_solver."
    ),
    "failed": (
        "Stopped because a decomposition failed for good ({reason}). theta is the state before "
        "it; try another method or a larger tau."
    ),
    "non-finite": (
        "Stopped because {reason}. theta is the last state with a finite step. At the first step, "
        "look for NaN in the data and in the solver, with check_solver; later, try a smaller lr or "
        "a larger tau."
    ),
    "raised": (
        "Stopped because {reason}. theta is the last complete state, from which the run can be "
        "resumed; the result's error is the traceback."
    ),
}
UNSUCCESSFUL = ("stagnated", "diverged", "failed", "non-finite", "raised")
FELL_BACK = (
    " In {count} of the steps a decomposition failed and a safer one took its place (the first "
    "time: {reason}); if it happens often, name a method that works, or try a larger tau."
)
DIVERGED = 1e6  # times the first test loss


class Epoch(NamedTuple):
    """One row of a history.

    ``seconds`` are training seconds, test evaluation not counted; ``train_loss`` is the mean over
    the steps since the row before, None in the first row; ``validation_loss`` is None unless `fit`
    was given validation data.
    """

    epoch: float
    step: int
    seconds: float
    train_loss: float | None
    test_loss: float
    validation_loss: float | None = None

    @property
    def judged_loss(self) -> float:
        """What patience and the best state go by: the validation loss or else the test loss."""
        return self.test_loss if self.validation_loss is None else self.validation_loss


class History(Table[Epoch]):
    """List of `Epoch`: one before the first step, one after each evaluation, one at the end.

    Prints as a table of about a dozen rows, spread evenly in the logarithm of the row.
    """

    kind = Epoch
    shown: ClassVar = {
        "epoch": ">10.6g", "step": ">9", "seconds": ">9.4g", "train_loss": ">11.4e",
        "test_loss": ">11.4e", "validation_loss": ">15.4e",
    }  # fmt: skip


class Best(NamedTuple):
    """The state of a run whose judged loss was the lowest of all its evaluations.

    ``theta`` (t,) are its parameters, ``loss`` its validation loss or, without validation data, its
    test loss; ``epoch`` and ``step`` say when it was.
    """

    theta: Array
    loss: float
    epoch: float
    step: int

    def __eq__(self, other: object) -> bool:
        """Whether all entries are equal, arrays by dtype and values."""
        return same_fields(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other


class State(NamedTuple):
    """What one step replaces, as a whole: an interrupt finds either the old or the new one."""

    theta: Array
    optimizer: OptimizerState
    steps: int = 0
    seconds: float = 0.0
    epoch_loss: float = 0.0  # sum over the steps since the last recorded epoch
    epoch_steps: int = 0
    info: Any = None

    def __eq__(self, other: object) -> bool:
        """Whether all entries are equal, arrays by dtype and values, NaN to NaN."""
        return same_fields(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    @property
    def optimizer_arrays(self) -> dict[str, Array]:
        """What the optimizer's state holds beside numbers and text."""
        return {name: v for name, v in self.optimizer.items() if hasattr(v, "shape")}


@dataclass(frozen=True, repr=False, eq=False)
class Result:
    """A run: its last complete state, its history, and why it stopped.

    ``print`` says it in a few lines; `to_dict` gives plain numbers and text. ``==`` compares all
    of it, times included, arrays by dtype and values, NaN equal to NaN; there is no hash.

    Attributes
    ----------
    state : State
        theta (t,), the optimizer's state, steps, training seconds, and what the last update said
        of itself (such as `HalfInverseInfo`).
    history : History
        A row before the first step, one after each epoch, one at the end.
    batch : int
        Samples a step.
    identity : dict
        Problem, network, solver, loss, dtype, optimizer, batch and seed, each a short text or a
        number; a resumed run must agree in all of them.
    status : str
        "budget", "stopped", "interrupted", "stagnated", "diverged", "non-finite", "failed",
        "raised", or "running" in a callback.
    message : str
        The status in a sentence, with what to try if it is a bad one.
    first_step_seconds : float
        From the call of `fit` to the end of the first step, compilation included.
    seconds_per_step : float
        Median over the latest steps.
    fallbacks : int
        Steps in which a decomposition failed and another took its place.
    diagnostics : Diagnostics
        A row of `StepDiagnostics` for every step in which `fit` was asked for it.
    error : str
        The traceback of the exception that ended the run as "raised" or "failed", else "".
    best : Best or None
        The state with the lowest validation loss or, without validation data, test loss, whatever
        became of the run; None before the first evaluation.
    """

    state: State
    history: History
    batch: int
    identity: dict[str, Any] = field(default_factory=dict)
    status: str = "running"
    message: str = MESSAGES["running"]
    first_step_seconds: float = 0.0
    seconds_per_step: float = 0.0
    fallbacks: int = 0
    diagnostics: Diagnostics = field(default_factory=Diagnostics)
    error: str = ""
    best: Best | None = None

    __eq__ = same_fields

    @property
    def _last_row(self) -> Epoch:
        """Of the history, which is empty if Ctrl-C came before the first evaluation."""
        return self.history[-1] if self.history else Epoch(0.0, 0, 0.0, None, math.nan)

    @property
    def theta(self) -> Array:
        """Parameters after the last complete step, (t,)."""
        return self.state.theta

    @property
    def steps(self) -> int:
        """Updates done."""
        return self.state.steps

    @property
    def seconds(self) -> float:
        """Training seconds: compilation counted, test evaluation and callbacks not."""
        return self.state.seconds

    @property
    def epochs(self) -> float:
        """Epochs done at the last evaluation, as a fraction."""
        return self._last_row.epoch

    @property
    def train_loss(self) -> float | None:
        """Mean training loss since the last evaluation, or before it if there was no step since."""
        if self.state.epoch_steps:
            return self.state.epoch_loss / self.state.epoch_steps
        return self._last_row.train_loss

    @property
    def test_loss(self) -> float:
        """Mean test loss at the last evaluation."""
        return self._last_row.test_loss

    @property
    def best_test_loss(self) -> float:
        """Smallest mean test loss of all evaluations."""
        return min((row.test_loss for row in self.history), default=math.nan)

    def test_loss_after(self, seconds: float) -> float:
        """Test loss at the last evaluation within the given training seconds."""
        return [row.test_loss for row in self.history if row.seconds <= seconds][-1]

    def on(self, device: str) -> Result:
        """The same run with its arrays on ``device``, ``"cpu"`` or ``"gpu"``, to go on there."""
        state = self.state
        moved = {name: to_device(array, device) for name, array in state.optimizer_arrays.items()}
        theta, optimizer = to_device(self.theta, device), state.optimizer | moved
        state, best = state._replace(theta=theta, optimizer=optimizer), self.best
        best = best and best._replace(theta=to_device(best.theta, device))
        return dataclasses.replace(self, state=state, best=best)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the arrays, as plain numbers, text, lists and dicts; JSON takes it."""
        info = self.state.info
        is_record = dataclasses.is_dataclass(info) and not isinstance(info, type)
        return self._figures() | {
            "batch": self.batch,
            "identity": self.identity,
            "error": self.error,
            "best": _plain(self.best._asdict()) if self.best else None,
            "info": _plain(dataclasses.asdict(info)) if is_record else None,
            "history": self.history.to_dict(),
            "diagnostics": self.diagnostics.to_dict(),
        }

    def to_pandas(self) -> Any:
        """One row: what was trained, and the figures of the run; for `pandas.concat` of many."""
        row = self.identity | self._figures()
        return to_pandas({name: [value] for name, value in row.items()})

    def plot(self, path: str | Path | None = None) -> Any:
        """Draw the losses against seconds and steps and, if they were recorded, the diagnostics.

        Returns the matplotlib Figure; with a ``path``, such as "run.png", saves it there, too.
        ImportError without matplotlib, which the extra ``plot`` installs.
        """
        from . import plots  # matplotlib: not for training

        figure = plots.run_picture(self.history.to_dict(), self.diagnostics.to_dict())
        optimizer = str(self.identity.get("optimizer", "")).partition("(")[0]
        name = ", ".join(filter(None, (self.identity.get("problem"), optimizer)))
        figure.suptitle(f"{name or 'a run'}, batch {self.batch}", fontsize=11)
        if path is not None:
            plots.save(figure, path)
        return figure

    def _figures(self) -> dict[str, Any]:
        names = ("status", "message", "steps", "seconds", "epochs", "test_loss", "best_test_loss",
                 "first_step_seconds", "seconds_per_step", "fallbacks")  # fmt: skip
        return {name: getattr(self, name) for name in names}

    def __str__(self) -> str:
        best, losses = self.best, f"test loss {self.test_loss:.3e}"
        if best and self.history and self.history[-1].validation_loss is not None:
            losses += f", best validation loss {best.loss:.3e} in epoch {best.epoch:.4g}."
        else:
            losses += f", best {self.best_test_loss:.3e}."
        if best and best.step == 0 < self.steps:
            losses += (
                " No state was better than the first: if no lr helps, a derivative may be wrong; "
                "check_solver, check_network, check_loss."
            )
        spent = f"{self.steps} steps, {self.epochs:.4g} epochs, {self.seconds:.1f} s"
        return f"{self.message} {spent}; {losses}"

    def __repr__(self) -> str:
        return f"<Result {self.status}: {self.steps} steps, test loss {self.test_loss:.3e}>"


class TrainingError(RuntimeError):
    """What `fit` raises with ``throw=True`` when a run ends badly; ``result`` is what there is."""

    def __init__(self, result: Result) -> None:
        super().__init__(result.message)
        self.result = result

    def __reduce__(self) -> tuple[Any, ...]:
        """By the result, not by the message: pickle calls the class with what stands here."""
        return type(self), (self.result,), self.__dict__


def _plain(values):
    """Those of the values that JSON takes, NumPy's scalars as Python's."""
    found = {k: v.item() if isinstance(v, np.generic) else v for k, v in values.items()}
    return {k: v for k, v in found.items() if isinstance(v, (bool, int, float, str, type(None)))}


def is_lost(loss: float, first: float) -> bool:
    """Whether a test loss is no number, or so far above the first one that the run is lost.

    A loss that begins at 0 or below it has no scale to compare with.
    """
    return not math.isfinite(loss) or loss > DIVERGED * first > 0
