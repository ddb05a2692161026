"""A run of a figure: everything that decides what it computes, and the files that it leaves."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .sources import fingerprint

COMPUTES = "bench.reproduction.training"


@dataclass(frozen=True)
class Training:
    """One training run.

    Parameters
    ----------
    experiment : object
        One of `bench.experiments`, a frozen dataclass.
    optimizer : object
        With its settings, a frozen dataclass.
    batch : int
        Samples a step.
    seconds : float
        Training seconds; the run ends after them, or after ``steps`` if these are given and fewer.
    seed : int
        Of data and parameters.
    dtype : {"float64", "float32"}
        Of data and parameters.
    start : Training, optional
        The run whose best network this one begins with.
    recorded : bool
        Whether what the experiment's recorder sees is kept: neurons, components of the loss.
    evaluations : int
        How many there are in all, spread evenly over the seconds; there are never more than
        `training.LONGEST` seconds between two.
    """

    experiment: Any
    optimizer: Any
    batch: int
    seconds: float
    steps: int | None = None
    seed: int = 0
    dtype: str = "float64"
    start: Training | None = None
    recorded: bool = False
    evaluations: int = 60

    def with_seed(self, seed: int) -> Training:
        """The same run of another seed, from a start of that seed."""
        return replace(self, seed=seed, start=self.start and self.start.with_seed(seed))

    def needs(self) -> list[Training]:
        """Runs that must be there before this one."""
        return [self.start] if self.start else []

    def described(self) -> dict[str, Any]:
        """The configuration as plain data."""
        found = {name: getattr(self, name) for name in self.__dataclass_fields__}
        found |= {name: repr(found[name]) for name in ("experiment", "optimizer")}
        return found | {"start": self.start and self.start.described()}

    def stem(self) -> str:
        """How its files begin."""
        name = type(self.optimizer).__name__.lower()
        return f"{self.experiment.name}-{name}-seed{self.seed}-{digest(self)}"

    def code(self) -> str:
        """Fingerprint of the code that computes it."""
        return fingerprint(frozenset(self._modules()))

    def _modules(self) -> set[str]:
        parts = (self.experiment, self.experiment.solver, self.optimizer)
        own = {type(part).__module__ for part in parts} | {COMPUTES}
        return own | (self.start._modules() if self.start else set())

    def compute(self, folder: Path) -> dict[str, Any]:
        """Train, and return what is to be kept of it; `make.make_one` writes that down."""
        from .training import train  # the libraries, where there is something to compute

        return train(self, folder)


def digest(run: Any) -> str:
    """Twelve digits that tell a configuration from all others."""
    text = json.dumps(run.described(), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def file_of(run: Any, folder: Path) -> Path:
    """The JSON file of a run; what it ended with lies beside it, as .npz."""
    return folder / f"{run.stem()}.json"


def record_of(run: Any, folder: Path, any_code: bool = False) -> dict[str, Any] | None:
    """What the file of a run says, None if there is none or other code wrote it; or any code."""
    path = file_of(run, folder)
    try:
        record = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return None
    is_ours = any_code or record.get("code") == run.code()
    return record if is_ours and record.get("configuration") == run.described() else None
