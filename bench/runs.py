"""Run an experiment and leave its files behind."""

from __future__ import annotations

import json
import time
from pathlib import Path

from higcore import fit, load_checkpoint, save_checkpoint

from . import figures, records
from .experiments import EXPERIMENTS

CHECKPOINT_INTERVAL = 30.0  # seconds between checkpoints of a run


def train(experiment, problem, setting, *, seed, device, out=None, stem="run", **options):
    """Train and return (result, record); with ``out``, leave checkpoint, JSON and pictures there.

    Files appear as ``out/stem.npz`` (during the run too), ``.json``, ``-loss.png`` and
    ``-picture.png``, also when the run is interrupted.
    """
    recorder = experiment.recorder(problem) if hasattr(experiment, "recorder") else None
    callbacks = [recorder] if recorder else []
    if out:
        callbacks.append(_Checkpoints(Path(out) / f"{stem}.npz"))
    result = fit(
        problem, setting.optimizer, batch=setting.batch, seed=seed, on_epoch=callbacks, **options
    )
    record = records.summary(problem, setting, result, seed, device)
    record["curve"] = records.curve(result)
    if recorder:
        record["recorded"] = recorder.data
    if out:
        _leave_files(Path(out), stem, experiment, problem, result, record)
    return result, record


class _Checkpoints:
    """Callback that saves the run at most every `CHECKPOINT_INTERVAL` seconds."""

    def __init__(self, path):
        self.path, self.last = path, time.monotonic()
        path.parent.mkdir(parents=True, exist_ok=True)

    def __call__(self, result):
        if time.monotonic() - self.last > CHECKPOINT_INTERVAL:
            save_checkpoint(self.path, result)
            self.last = time.monotonic()


def _leave_files(out, stem, experiment, problem, result, record):
    save_checkpoint(out / f"{stem}.npz", result)
    records.write_json(out / f"{stem}.json", record | records.environment())
    label, title = record["optimizer"], f"{problem.name}, batch {record['batch']}"
    figures.save(figures.loss_curves({label: record["curve"]}, title), out / f"{stem}-loss.png")
    figures.save(experiment.picture(problem.on("cpu"), result.theta), out / f"{stem}-picture.png")


def figure_1(folder):
    """Loss, saturation and output path of every optimizer of the ill-conditioned toy."""
    found = [json.loads(path.read_text()) for path in _found(folder, "toy", "-*-seed*.json")]
    latest = {record["optimizer"]: record for record in found if record["problem"] == "toy"}
    curves = {label: record["curve"] for label, record in latest.items()}
    recorded = {label: record["recorded"] for label, record in latest.items()}
    return figures.toy_training(curves, recorded, "ill-conditioned toy, gamma = 0.01")


def figure_2a(folder):
    """The trajectory of the first test sample, from the first HIG run in a folder."""
    return _picture(folder, "oscillators")


def figure_2b(folder):
    """Loss curves of one run of every optimizer found in a folder."""
    return loss_curves(folder, "oscillators")


def figure_4a(folder):
    """|psi|^2 and control of the first test sample, from the first HIG run in a folder."""
    return _picture(folder, "dipole")


def loss_curves(folder, name):
    """Loss curves of one run of every optimizer of an experiment found in a folder."""
    curves = {}
    for path in _found(folder, name, "-*-seed*.json"):
        record = json.loads(path.read_text())
        if record["problem"] == name:
            curves.setdefault(f"{record['optimizer']}, b {record['batch']}", record["curve"])
    return figures.loss_curves(curves, f"{name}: optimizers with the paper's settings")


def _picture(folder, name):
    path = _found(folder, name, "-hig-seed*.npz")[0]
    seed = int(path.stem.rpartition("seed")[2])
    experiment = EXPERIMENTS[name]
    return experiment.picture(experiment.problem(seed), load_checkpoint(path).theta)


def _found(folder, name, pattern):
    paths = sorted(folder.glob(name + pattern))
    if not paths:
        raise ValueError(
            f"--runs {str(folder)!r} holds no {name + pattern}; make one with: "
            f"python -m bench train {name} --out {folder}"
        )
    return paths
