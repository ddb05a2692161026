"""What a step costs, beside the dense SVD in the same minutes, and how it grows: tables 3 to 5."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import higcore

from ..speed import race, sweeps
from ..speed.contestants import experiment
from .runs import digest
from .sources import fingerprint

DENSE = "numpy float32 svd"  # the paper's way: a pseudo-inverse from the SVD of a dense J
OURS = {"hig": "higcore", "adam": "higcore adam"}
MODULES = ("bench.reproduction.measurements", "bench.speed.peers.numpy_paper")
JACOBIAN = ("network", "solver", "loss", "sweep", "row pull-back")
GRADIENT = ("network", "solver", "loss", "solver backward", "network backward")
REPEATS = 5


class Measured:
    """What a measurement has of a run that leaves a file; ``seconds`` is about what it takes."""

    def needs(self) -> list[Any]:
        """Runs that must be there before this one: none."""
        return []

    def described(self) -> dict[str, Any]:
        """The configuration as plain data."""
        return dict(vars(self))

    def code(self) -> str:
        """Fingerprint of the code that it measures, and of that which measures."""
        return fingerprint(frozenset(MODULES))


@dataclass(frozen=True)
class Growth(Measured):
    """Seconds of HIG's step over the width of the oscillators' network, or over Poisson's batch.

    The narrowest networks are left out, where the decomposition, which does not see them, is most
    of a step.
    """

    over: str
    seconds: float = 60.0
    seed: int = 0

    def stem(self) -> str:
        """How its file begins."""
        return f"growth-{self.over}-{digest(self)}"

    def compute(self, folder: Path) -> dict[str, Any]:
        """``{"step_seconds": {parameters or rows: seconds}, "exponent": of the two}``."""
        sweep, sizes, key = SWEEPS[self.over]
        rows = sweep(str, lambda rows: None, sizes)
        seconds = {size: row[key] for size, row in rows.items()}
        return {"step_seconds": seconds, "exponent": sweeps.slope(seconds)}


SWEEPS = {
    "parameters": (sweeps.width_sweep, (220, 700, 2200), "hig_seconds"),
    "rows": (sweeps.batch_sweep, (8, 16, 32, 64), "seconds"),
}
GROWTHS = {over: Growth(over) for over in SWEEPS}


@dataclass(frozen=True)
class Measurement(Measured):
    """Memory and seconds of one optimizer's step on one experiment."""

    experiment: str
    optimizer: str
    batch: int
    seconds: float = 30.0
    seed: int = 0

    def stem(self) -> str:
        """How its files begin."""
        return f"step-{self.experiment}-{self.optimizer}-b{self.batch}-{digest(self)}"

    def compute(self, folder: Path) -> dict[str, Any]:
        """``{"ours": costs, "dense": costs}``, the latter of HIG only."""
        labels = [OURS[self.optimizer]] + ([DENSE] if self.optimizer == "hig" else [])
        steps = self._train_steps()
        raced = race.run(
            self.experiment, self.batch, labels, str, train_steps=steps, with_reference=False
        )
        for label, record in raced.items():
            if "failed" in record:
                raise RuntimeError(f"{label}: {record['failed']}")
        ours, *dense = (costs(raced[label]) for label in labels)
        found = {"ours": ours | {"jacobian_seconds": self._jacobian_seconds()}}
        if dense:
            found["dense"] = dense[0] | {"jacobian_seconds": self._dense_seconds()}
        return found

    def _train_steps(self) -> int:
        return 1 if self.experiment.startswith("poisson") else 20

    def _jacobian_seconds(self) -> float:
        """Of J as layer factors; of Adam, of the gradient, as in the paper."""
        chosen = experiment(self.experiment)
        optimizer = chosen.settings[self.optimizer].optimizer
        repeats = REPEATS * self._train_steps()
        parts = higcore.profile(
            chosen.problem(), optimizer, batch=self.batch, steps=repeats, after=repeats
        ).parts
        names = JACOBIAN if self.optimizer == "hig" else GRADIENT
        return sum(parts.get(name, 0.0) for name in names)

    def _dense_seconds(self) -> float:
        """Of all entries of J in single precision."""
        problem = experiment(self.experiment).problem(dtype=np.float32)
        theta = problem.network.init(np.random.default_rng([0, 1]), np.float32)
        batch, seconds = problem.batch(0, self.batch), []
        for _ in range(REPEATS + 1):
            begin = time.perf_counter()
            problem.linearise(theta, batch).jacobian().dense()
            seconds.append(time.perf_counter() - begin)
        return median(seconds[1:])  # the first one compiles


def costs(record: dict[str, Any]) -> dict[str, float]:
    """Memory that a contestant took beside its data, and the median of its steps."""
    memory = record["peak_memory_mb"] - record["memory_before_mb"]
    return {"memory_mb": memory, "step_seconds": record["median"]}


# Table -> (experiment, {(optimizer, batch): the paper's (MB, update s, Jacobian s)}).
PAPER: dict[int, tuple[str, dict[tuple[str, int], tuple[float, float, float]]]] = {
    3: (
        "oscillators",
        {
            ("adam", 256): (11.1, 0.081, 0.070),
            ("adam", 512): (22.2, 0.081, 0.070),
            ("adam", 1024): (44.5, 0.081, 0.070),
            ("hig", 32): (169, 0.087, 0.070),
            ("hig", 64): (676, 0.097, 0.070),
            ("hig", 128): (2640, 0.146, 0.070),
        },
    ),
    4: (
        "poisson-paper",
        {("adam", 64): (1.3, 0.011, 0.010), ("hig", 64): (3560, 13.8, 0.0035)},
    ),
    5: (
        "dipole",
        {
            ("adam", 256): (460, 0.40, 0.39),
            ("adam", 512): (947, 0.50, 0.49),
            ("adam", 1024): (2007, 1.33, 1.32),
            ("hig", 8): (1064, 0.42, 0.40),
            ("hig", 16): (5039, 0.60, 0.53),
        },
    ),
}


def measurements(number: int) -> dict[tuple[str, int], Measurement]:
    """The runs of table 3, 4 or 5, by optimizer and batch."""
    name, rows = PAPER[number]
    found = {(optimizer, batch): Measurement(name, optimizer, batch) for optimizer, batch in rows}
    if name.startswith("poisson"):
        return {row: replace(run, seconds=300.0) for row, run in found.items()}
    return found
