"""Run an experiment and leave its files behind."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from higcore import Checkpoints, fit, save_checkpoint
from higcore.backend import to_host

from .. import records
from ..experiments import choose
from ..experiments.setting import compile_step
from ..reproduction.commands import make_shown
from ..reproduction.runs import digest, record_of
from ..reproduction.sources import fingerprint
from ..style import save
from . import figures


def train(
    experiment, problem, setting, *, seed, device, out=None, stem="run", checkpoint=None, comm=None,
    **options,
):  # fmt: skip
    """Train and return (result, record); with ``out``, save the run there from time to time.

    With ``comm``, of MPI, the samples are shared among its ranks.

    ``checkpoint`` is the path that ``resume`` was loaded from: its part of the run may have left a
    JSON file beside it or in ``out``, with what was recorded then.
    """
    recorder = experiment.recorder(problem) if hasattr(experiment, "recorder") else None
    if recorder and checkpoint:
        left = [Path(checkpoint).with_suffix(".json"), Path(out or ".") / f"{stem}.json"]
        recorder.data = recorded_before(options["resume"], left) or recorder.data
    callbacks = [recorder] if recorder else []
    if out:
        callbacks.append(Checkpoints(Path(out) / f"{stem}.npz"))
    shared = problem if comm is None else problem.shared(comm)
    result = fit(
        shared, setting.optimizer, batch=setting.batch, seed=seed, on_epoch=callbacks, **options
    )
    record = records.summary(problem, setting, result, seed, device)
    record["curve"] = records.curve(result)
    record["test_samples"] = sample_losses(problem, result.theta)
    if recorder:
        record["recorded"] = records.thin(recorder.data)
    if result.diagnostics:
        record["diagnostics"] = records.thin(result.to_dict()["diagnostics"])
    return result, record


def sample_losses(problem, theta):
    """Median and largest of the losses whose mean is the test loss."""
    losses = np.full(1, np.nan)
    # Of a run that diverged, or that a part of the problem ended.
    with np.errstate(over="ignore", invalid="ignore"), suppress(Exception):
        _, y = problem.predict(theta, problem.test)
        losses = to_host(problem.loss.value(y, problem.test.target))
    ends = {"median": np.median(losses), "largest": losses.max()}
    return {name: records.short(float(loss)) for name, loss in ends.items()}


def recorded_before(run, paths):
    """What the same run recorded up to now, from the first of the JSON files that is of it."""
    known = {(row.step, records.short(row.test_loss)) for row in run.history}
    for path in filter(Path.is_file, paths):
        with suppress(ValueError, KeyError, TypeError):  # a file of something else
            record = json.loads(path.read_text())
            curve, recorded = record["curve"], record["recorded"]
            rows = zip(curve["step"], curve["test_loss"], strict=True)
            if known.issuperset(row for row in rows if row[0] <= run.steps):
                count = sum(epoch <= run.epochs for epoch in recorded["epoch"])
                return {name: column[:count] for name, column in recorded.items()}
    return None


def leave_files(out, stem, experiment, problem, result, record):
    """Write checkpoint, JSON, loss curve and picture of a run, also of an interrupted one.

    They are ``out/stem.npz``, ``.json``, ``-loss.png``, ``-picture.png`` and, if there are any,
    ``-diagnostics.png``. Returns a sentence if there is no picture of what was learned, else "".
    """
    save_checkpoint(out / f"{stem}.npz", result)
    records.write_json(out / f"{stem}.json", record | records.environment())
    label, title = record["optimizer"], f"{problem.name}, batch {record['batch']}"
    save(figures.losses(result.history.to_dict(), f"{label}, {title}"), out / f"{stem}-loss.png")
    if rows := record.get("diagnostics"):
        save(figures.diagnostics(rows, f"{label}, {title}"), out / f"{stem}-diagnostics.png")
    try:
        picture = experiment.picture(problem.on("cpu"), to_host(result.theta))
    except Exception as error:  # of somebody's own problem
        return f"There is no picture: to draw it raised {type(error).__name__}: {error}"
    save(picture, out / f"{stem}-picture.png")
    return ""


def survey(experiment, optimizers, seeds, path, **budget):
    """Train with each optimizer and seed; keep all runs in one JSON file and one picture.

    Runs that the file already holds stay in it unless they are made again. Yields
    (optimizer, record) after each run.
    """
    for seed in seeds:
        for name in optimizers:
            record = one_of_survey(experiment, name, seed, progress=True, **budget)
            keep_in_survey(experiment, [(name, record | records.environment())], path)
            yield name, record
            if record["status"] == "interrupted":
                return


def one_of_survey(experiment, name, seed, **options):
    """The record of one run; what is recorded on the way is kept of seed 0 only."""
    problem, setting = experiment.problem(seed), experiment.settings[name]
    compile_step(problem, setting, seed)
    _, record = train(experiment, problem, setting, seed=seed, device="cpu", **options)
    del record["peak_memory_mb"]  # of the whole process, not of this run
    if seed:
        record.pop("recorded", None)  # one seed is enough for a picture
    return record


def keep_in_survey(experiment, made, path):
    """Add (optimizer, record) pairs to the file and draw it anew."""
    runs = json.loads(path.read_text())["runs"] if path.exists() else {}
    for name, record in made:
        runs.setdefault(name, {})[str(record["seed"])] = record
    records.write_json(path, {"experiment": experiment.name, "runs": runs})
    save(survey_figure(runs, experiment.name), path.with_suffix(".png"))


@dataclass(frozen=True)
class Surveyed:
    """A run of a survey that is made on one core, beside others, and leaves a file."""

    problem: str
    variant: str | None
    optimizer: str
    seed: int
    budget: tuple[tuple[str, Any], ...]

    def experiment(self):
        """What the names stand for: a problem of one's own cannot be sent to another process."""
        return choose(self.problem, self.variant)

    @property
    def seconds(self):
        """About what it takes; of epochs nobody knows."""
        return dict(self.budget)["seconds"] or 60.0

    def needs(self):
        """Runs that must be there before this one: none."""
        return []

    def described(self):
        """The configuration as plain data."""
        setting = repr(self.experiment().settings[self.optimizer])
        return vars(self) | {"budget": dict(self.budget), "setting": setting}

    def stem(self):
        """How its file begins."""
        name = self.experiment().name
        return f"survey-{name}-{self.optimizer}-seed{self.seed}-{digest(self)}"

    def code(self):
        """Fingerprint of the code that computes it."""
        experiment = self.experiment()
        parts = (
            experiment,
            experiment.problem().solver,
            experiment.settings[self.optimizer].optimizer,
        )
        own = {self.problem.partition(":")[0]} if ":" in self.problem else set()
        return fingerprint(frozenset({type(part).__module__ for part in parts} | {__name__} | own))

    def compute(self, folder):
        """Train, and return what is to be kept of it."""
        with threadpool_limits(1):
            budget = dict(self.budget)
            return one_of_survey(self.experiment(), self.optimizer, self.seed, **budget)


def surveyed(problem, variant, optimizers, seeds, budget):
    """The runs of a survey, seed by seed."""
    known = tuple(budget.items())
    return [Surveyed(problem, variant, name, seed, known) for seed in seeds for name in optimizers]


def survey_at(place, planned, folder, path):
    """Make the runs of a survey side by side; returns pairs as `survey` does, and what failed."""
    failed = make_shown(planned, folder, place)
    made = [(run.optimizer, record_of(run, folder)) for run in planned if run not in failed]
    keep_in_survey(planned[0].experiment(), made, path)
    return made, failed


def survey_figure(runs, title):
    """Loss curves of the first seed of each optimizer; figure 1 for the toy."""
    first = {name: next(iter(by_seed.values())) for name, by_seed in runs.items()}
    labels = {name: f"{record['optimizer']}, b {record['batch']}" for name, record in first.items()}
    curves = {labels[name]: record["curve"] for name, record in first.items()}
    if title.startswith("toy") and all("recorded" in record for record in first.values()):
        recorded = {labels[name]: record["recorded"] for name, record in first.items()}
        return figures.toy_training(curves, recorded, title)
    return figures.loss_curves(curves, title)
