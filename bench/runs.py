"""Run an experiment and leave its files behind."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np

from higcore import fit, load_checkpoint, save_checkpoint

from . import figures, records
from .experiments import EXPERIMENTS

CHECKPOINT_INTERVAL = 30.0  # seconds between checkpoints of a run


def train(problem, setting, *, seed, device, out=None, stem="run", **budget):
    """Train and return (result, record); with ``out``, leave checkpoint, JSON and pictures there.

    Files appear as ``out/stem.npz`` (during the run too), ``.json``, ``-loss.png`` and
    ``-trajectory.png``, also when the run is interrupted.
    """
    callbacks = [_Checkpoints(Path(out) / f"{stem}.npz")] if out else []
    result = fit(
        problem, setting.optimizer, batch=setting.batch, seed=seed, on_epoch=callbacks, **budget
    )
    record = records.summary(problem, setting, result, seed, device)
    if out:
        _leave_files(Path(out), stem, problem, result, record)
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


def _leave_files(out, stem, problem, result, record):
    save_checkpoint(out / f"{stem}.npz", result)
    curve = records.curve(result)
    records.write_json(out / f"{stem}.json", record | {"curve": curve} | records.environment())
    title = f"{problem.name}: {record['optimizer']}, batch {record['batch']}"
    figures.save(figures.loss_curves({record["optimizer"]: curve}, title), out / f"{stem}-loss.png")
    figures.save(trajectory(problem, result.theta), out / f"{stem}-trajectory.png")


def trajectory(problem, theta, sample=0):
    """Figure 2a for one test sample of the oscillators."""
    one = problem.test[sample : sample + 1]
    control, _ = problem.network.forward(theta, one.net_input)
    states = problem.solver.trajectory(one.x, control)[0]
    loss = problem.evaluate(theta, one)
    times = np.arange(len(states)) * problem.solver.dt
    title = f"controlled oscillators, loss of this sample {loss:.1e} (circles: target)"
    return figures.oscillator_trajectory(times, states, control[0], one.target[0], title)


def figure_2a(folder):
    """The trajectory of the first test sample, from the first HIG run in a folder."""
    path = _found(folder, "oscillators-hig-seed*.npz")[0]
    seed = int(path.stem.rpartition("seed")[2])
    return trajectory(EXPERIMENTS["oscillators"].problem(seed), load_checkpoint(path).theta)


def figure_2b(folder):
    """Loss curves of one run of every optimizer found in a folder."""
    curves = {}
    for path in _found(folder, "oscillators-*-seed*.json"):
        record = json.loads(path.read_text())
        curves.setdefault(f"{record['optimizer']}, b {record['batch']}", record["curve"])
    return figures.loss_curves(curves, "oscillators: optimizers with the paper's settings")


def _found(folder, pattern):
    paths = sorted(folder.glob(pattern))
    if not paths:
        raise ValueError(
            f"--runs {str(folder)!r} holds no {pattern}; make one with: "
            "python -m bench train oscillators --out " + str(folder)
        )
    return paths
