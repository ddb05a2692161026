"""Numbers out of run files, one for each seed, for the claims of the paper to be judged by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..budgets import Budget
from ..found import last_losses, loss_at
from ..runs import Training, record_of


class Missing(Exception):
    """A run that a claim is judged by has no file."""


class Evidence:
    """The runs of a budget in a folder; each method returns an array with a number for each seed.

    A loss of a run that failed is infinite.
    """

    def __init__(self, budget: Budget, folder: Path, any_code: bool = False) -> None:
        self.budget, self.folder, self.any_code = budget, folder, any_code

    def records(self, run: Training) -> list[dict[str, Any]]:
        """The records of all seeds."""
        planned = [run.with_seed(seed) for seed in range(self.budget.seeds)]
        found = [record_of(each, self.folder, self.any_code) for each in planned]
        if None in found:
            raise Missing(planned[found.index(None)].stem())
        return [record for record in found if record]

    def recorded(self, run: Training, name: str) -> list[Any]:
        """What was recorded under a name in the course of a run, of all seeds."""
        found = [record["recorded"].get(name) for record in self.records(run)]
        if None in found:
            raise Missing(f"{run.stem()}, with {name}")
        return found

    def first(self, run: Training) -> np.ndarray:
        """Test loss before any step."""
        return np.array([record["curve"]["test_loss"][0] for record in self.records(run)])

    def last(self, run: Training) -> np.ndarray:
        """Test loss at the end."""
        return last_losses(self.records(run))

    def lowest(self, run: Training) -> np.ndarray:
        """The lowest test loss of a run."""
        return np.array([np.nanmin(_losses(record)) for record in self.records(run)])

    def best(self, runs: list[Training]) -> np.ndarray:
        """The last loss of whichever of some runs ends lowest, seed by seed."""
        return np.min([self.last(run) for run in runs], axis=0)

    def worst(self, runs: list[Training]) -> np.ndarray:
        """The last loss of whichever of some runs ends highest, seed by seed."""
        return np.max([self.last(run) for run in runs], axis=0)

    def reduced(self, run: Training) -> np.ndarray:
        """Last test loss over the first."""
        return self.last(run) / self.first(run)

    def at_step_of(self, run: Training, other: Training) -> np.ndarray:
        """Loss of a run at the step at which another one ended."""
        pairs = zip(self.records(run), self.records(other), strict=True)
        return np.array([loss_at(a, "step", b["curve"]["step"][-1]) for a, b in pairs])

    def after_steps(self, run: Training, steps: float) -> np.ndarray:
        """Loss of a run after so many steps."""
        return np.array([_at_step(record, steps) for record in self.records(run)])

    def after_equal_steps(self, runs: list[Training]) -> np.ndarray:
        """Losses (runs, seeds) after as many steps as all runs of a seed make."""
        records = [self.records(run) for run in runs]
        ends = np.min([[r["curve"]["step"][-1] for r in each] for each in records], axis=0)
        return np.array([list(map(_at_step, each, ends)) for each in records])

    def early(self, run: Training, share: float) -> np.ndarray:
        """Loss of a run after a share of its seconds."""
        records = self.records(run)
        return np.array([loss_at(r, "seconds", share * r["curve"]["seconds"][-1]) for r in records])

    def share_of_time_to(self, run: Training, levels: np.ndarray) -> np.ndarray:
        """Share of a run's seconds until its loss is at a level; infinite if it never is."""
        pairs = zip(self.records(run), levels, strict=True)
        return np.array([_time_to(record, level) for record, level in pairs])

    def share_between(self, run: Training, low: float, high: float) -> np.ndarray:
        """Share of a run's seconds with a loss between two levels."""
        found = []
        for record in self.records(run):
            seconds = np.array(record["curve"]["seconds"])
            inside = (_losses(record) > low) & (_losses(record) < high)
            found.append((np.diff(seconds) * inside[1:]).sum() / seconds[-1])
        return np.array(found)

    def kept_slope(self, run: Training) -> np.ndarray:
        """Slope of log loss over log time in the last factor of 3 in time, over that before."""
        shares = (1 / 9, 1 / 3, 1)
        earlier, later = np.diff(np.log([self.early(run, share) for share in shares]), axis=0)
        return later / earlier

    def exponent(self, growth: Any) -> np.ndarray:
        """With which power of what is varied the seconds of a step grow."""
        record = record_of(growth, self.folder, self.any_code)
        if record is None:
            raise Missing(growth.stem())
        return np.array([record["exponent"]])

    def step_seconds(self, run: Training) -> np.ndarray:
        """Median seconds of a step."""
        return np.array([record["seconds_per_step"] for record in self.records(run)])

    def unstable(self, run: Training) -> np.ndarray:
        """1 where training failed, or ended ten times as high as it had been, else 0."""
        return (self.last(run) > 10 * self.lowest(run)).astype(float)

    def smallest_deviation(self, run: Training) -> np.ndarray:
        """Standard deviation over the data of the neuron that varies least at the end."""
        return np.array([min(column[-1]) for column in self.recorded(run, "neuron_std")])

    def component_error(self, run: Training, component: int) -> np.ndarray:
        """Root mean square error of an output's component at the end, over that at the start."""
        errors = self.recorded(run, "component_error")
        return np.array([error[-1][component] / error[0][component] for error in errors])

    def rise_of_low_energy(self, run: Training) -> np.ndarray:
        """The lowest low-energy loss before the high-energy one is halved, over the largest after.

        Of 1 or more there is no rise.
        """
        return np.array([_rise(record["recorded"]) for record in self.records(run)])

    def imbalance(self, run: Training) -> np.ndarray:
        """The largest ratio of the two energies' losses until both are a tenth of their start."""
        return np.array([_imbalance(record["recorded"]) for record in self.records(run)])


def _at_step(record: dict[str, Any], step: float) -> float:
    return float(loss_at(record, "step", step))


def _losses(record: dict[str, Any]) -> np.ndarray:
    return np.array([np.inf if v is None else v for v in record["curve"]["test_loss"]])


def _time_to(record: dict[str, Any], level: float) -> float:
    reached = np.flatnonzero(_losses(record) <= level)
    seconds = record["curve"]["seconds"]
    return float(seconds[reached[0]] / seconds[-1]) if len(reached) else np.inf


def _imbalance(recorded: dict[str, Any]) -> float:
    pair = np.array([recorded[f"{name}_energy_loss"] for name in ("low", "high")])
    early = (pair > 0.1 * pair[:, :1]).any(axis=0)
    return float(np.exp(np.abs(np.log(pair[0] / pair[1]))[early].max()))


def _rise(recorded: dict[str, Any]) -> float:
    low, high = (np.array(recorded[f"{name}_energy_loss"]) for name in ("low", "high"))
    halved = np.flatnonzero(high < 0.5 * high[0])
    end = halved[0] + 1 if len(halved) else len(low)
    lowest = int(low[:end].argmin())
    return float(low[lowest] / low[lowest:end].max())
