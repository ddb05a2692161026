"""What a worker does with a run: train on one core, save from time to time, go on where it was."""

from __future__ import annotations

import json
import time
from contextlib import suppress

import numpy as np
from threadpoolctl import threadpool_limits

from higcore import fit, load_checkpoint, save_checkpoint

from .. import records
from ..experiments.setting import Setting, compile_step
from .stopping import is_asked_to_stop

SAVED_EVERY = 10.0  # seconds
LONGEST = 5.0  # training seconds between two evaluations: only there a run is saved


def train(run, folder):
    """Train and return the record; the last state lies in an .npz file then."""
    with threadpool_limits(1):  # of BLAS, and so of our own threads, too
        return _train(run, folder)


def _train(run, folder):
    problem = run.experiment.problem(run.seed, np.dtype(run.dtype))
    saved = Saved(folder / f"{run.stem()}-{run.code()}.partial", run, problem)
    compile_step(problem, Setting(run.batch, run.optimizer), run.seed)
    result = fit(
        problem,
        run.optimizer,
        batch=run.batch,
        seconds=run.seconds,
        steps=run.steps,
        seed=run.seed,
        evaluate_every=(min(run.seconds / run.evaluations, LONGEST), "seconds"),
        on_epoch=[saved],
        **saved.beginning(folder),
    )
    if result.status == "interrupted" or is_asked_to_stop():
        raise KeyboardInterrupt
    if result.status == "raised":
        raise RuntimeError(result.error)
    record = records.summary(problem, Setting(run.batch, run.optimizer), result, run.seed, "cpu")
    del record["peak_memory_mb"]  # of a worker that had other runs before
    record["curve"] = records.curve(result)
    if run.recorded:
        record["recorded"] = records.thin(saved.recorder.data)
    save_checkpoint(folder / f"{run.stem()}.npz", result)
    return record


class Saved:
    """Callback that keeps a run and what was recorded of it, and ends the run when asked to."""

    def __init__(self, path, run, problem):
        self.run, self.last = run, time.monotonic()
        self.checkpoint, self.recorded = (path.with_suffix(end) for end in (".npz", ".seen"))
        self.recorder = run.experiment.recorder(problem) if run.recorded else None
        for other in path.parent.glob(f"{run.stem()}-*.*"):  # of code that is no more
            if other not in (self.checkpoint, self.recorded):
                other.unlink()

    def beginning(self, folder):
        """Arguments for `fit`: what was saved of the run, or what it begins with."""
        with suppress(OSError, ValueError):  # there is nothing, or it is damaged
            earlier = load_checkpoint(self.checkpoint)
            if self.recorder:
                self._take_up(json.loads(self.recorded.read_text()), earlier.epochs)
            return {"resume": earlier}
        if self.run.start is None:
            return {}
        best = load_checkpoint(folder / f"{self.run.start.stem()}.npz").best
        return {"theta": best.theta}

    def _take_up(self, seen, epochs):
        """What was recorded up to a checkpoint, which may be older."""
        count = sum(epoch <= epochs for epoch in seen["epoch"])
        self.recorder.data = {name: column[:count] for name, column in seen.items()}

    def __call__(self, result):
        if self.recorder:
            self.recorder(result)
        asked = is_asked_to_stop()
        if asked or time.monotonic() - self.last > SAVED_EVERY:
            self._save(result)
        return asked

    def _save(self, result):
        if self.recorder:
            records.write_json(self.recorded, self.recorder.data)
        save_checkpoint(self.checkpoint, result)
        self.last = time.monotonic()
