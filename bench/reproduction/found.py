"""What the files of a figure's runs hold: records by seed, names for legends, medians."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from higcore import load_checkpoint

from .plans import Panels
from .runs import Training, file_of, record_of

METHODS = {"GaussNewton": "GN"}
NOT_THE_PAPERS = {"AdaptiveHIG": "\n(not the paper's)"}
SYMBOLS = {"batch": "b", "lr": "η", "tau": "τ", "kappa": "κ", "beta": "β"}
ALWAYS = ("batch", "lr", "tau")  # the others are named where they are varied
GRID = 300  # points of a median curve


class Found:
    """The runs of a figure in a folder.

    Attributes
    ----------
    panels : dict
        Panel -> runs, as planned, without seeds.
    by_run : dict
        Run -> {seed: record}, of those that are there.
    missing : list of str
        What is not, in words.
    """

    def __init__(self, panels: Panels, seeds: int, folder: Path, any_code: bool = False) -> None:
        self.panels, self.seeds, self.folder, self.any_code = panels, seeds, folder, any_code
        planned = dict.fromkeys(run for runs in panels.values() for run in runs)
        self.by_run = {run: self._records(run) for run in planned}
        self.missing = [
            f"{self.name(run)}: {len(records)} of {seeds} seeds"
            for run, records in self.by_run.items()
            if len(records) < seeds
        ]

    def _records(self, run: Training) -> dict[int, dict[str, Any]]:
        runs = {seed: run.with_seed(seed) for seed in range(self.seeds)}
        found = {seed: record_of(one, self.folder, self.any_code) for seed, one in runs.items()}
        return {seed: record for seed, record in found.items() if record}

    def name(self, run: Training) -> str:
        """A run by all of its settings."""
        precision = ["float32"] if run.dtype == "float32" else []
        parts = [method(run), *settings(run, tuple(SYMBOLS)), *precision]
        return f"{run.experiment.name}: " + ", ".join(parts)

    def network(self, run: Training) -> tuple[int, Any] | None:
        """The first seed whose best network is there, and its parameters."""
        for seed in self.by_run[run]:
            path = file_of(run.with_seed(seed), self.folder).with_suffix(".npz")
            if path.exists() and (best := load_checkpoint(path).best):
                return seed, best.theta
        return None

    def labels(self, panel: str) -> tuple[str, dict[Training, str]]:
        """What all runs of a panel have in common, and what tells each from the others."""
        runs = self.panels[panel]
        parts = {run: [method(run), *settings(run, (*ALWAYS, *varied(run, runs)))] for run in runs}
        shared = set.intersection(*map(set, parts.values())) if len(runs) > 1 else set()
        names = {run: [text for text in own if text not in shared] for run, own in parts.items()}
        common = ", ".join(text for text in parts[runs[0]] if text in shared and text not in panel)
        ends = {run: self._absent(run) + NOT_THE_PAPERS.get(kind(run), "") for run in runs}
        return common, {run: ", ".join(names[run]) + ends[run] for run in runs}

    def _absent(self, run: Training) -> str:
        count = len(self.by_run[run])
        if not count:
            return " (missing)"
        return "" if count == self.seeds else f" ({count} of {self.seeds} seeds)"


def method(run: Training) -> str:
    """What a legend calls the optimizer."""
    after = f" from {METHODS.get(kind(run.start), kind(run.start))}'s network" if run.start else ""
    return METHODS.get(kind(run), kind(run)) + after


def kind(run: Training) -> str:
    """The class of the optimizer."""
    return type(run.optimizer).__name__


def settings(run: Training, names: tuple[str, ...]) -> list[str]:
    """Those of some settings that a run has, such as "τ 1e-06"."""
    known = vars(run.optimizer) | {"batch": run.batch}
    if kind(run) == "GaussNewton" and known["lr"] == 1.0:  # it has none, says table 2
        del known["lr"]
    shown = {name: known.get(name) for name in SYMBOLS if name in names}
    return [f"{SYMBOLS[name]} {value:g}" for name, value in shown.items() if value is not None]


def varied(run: Training, runs: list[Training]) -> list[str]:
    """The settings in which a run differs from others of the same optimizer."""
    kin = [other.optimizer for other in runs if type(other.optimizer) is type(run.optimizer)]
    return [name for name in ("kappa", "beta") if len({getattr(o, name, 0) for o in kin}) > 1]


class Curve(NamedTuple):
    """Median, lowest and highest test loss of the seeds."""

    x: np.ndarray
    median: np.ndarray
    low: np.ndarray
    high: np.ndarray


def over_seeds(records: list[dict[str, Any]], axis: str, log: bool = False) -> Curve:
    """The test loss of some seeds against "seconds" or "epoch"; infinite where training failed."""
    ends = [record["curve"][axis][-1] for record in records]
    good = [end for end, record in zip(ends, records, strict=True) if record["status"] == "budget"]
    end = min(good or ends)
    start = min(end / 3, max(min(record["curve"][axis][1:2] or [end]) for record in records))
    x = np.geomspace(start, end, GRID) if log and start else np.linspace(0, end, GRID)
    losses = np.array([loss_at(record, axis, x) for record in records])
    return Curve(x, np.median(losses, axis=0), losses.min(axis=0), losses.max(axis=0))


def loss_at(record: dict[str, Any], axis: str, x: Any) -> Any:
    """The loss of a run at some places, straight in its logarithm between evaluations."""
    at, losses = np.array(record["curve"][axis]), record["curve"]["test_loss"]
    exponents = np.log10([np.inf if loss is None else loss for loss in losses])
    with np.errstate(invalid="ignore"):  # between a loss and an infinite one
        values = np.interp(x, at, exponents, right=None if _went_well(record) else np.inf)
    return 10.0 ** np.where(np.isnan(values), np.inf, values)


def _went_well(record: dict[str, Any]) -> bool:
    return record["status"] in ("budget", "stopped", "stagnated")


def last_losses(records: list[dict[str, Any]]) -> np.ndarray:
    """The test loss of each seed at its end; infinite where training failed."""
    return np.array([r["test_loss"] if _went_well(r) else np.inf for r in records], dtype=float)
