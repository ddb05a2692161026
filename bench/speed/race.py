"""Contestants step in turn, so that a change of the machine's speed meets all of them alike."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import numpy as np

from higcore import fit, half_inverse

from .. import records
from . import peers
from .contestants import experiment

ROUNDS = 5
TURN_SECONDS = 1.0  # of steps in a turn, at least one and at most STEPS_A_TURN steps
STEPS_A_TURN = 40
PATIENCE = 45.0  # seconds of all its steps after which a contestant gets no more turns


class Contestant:
    """A process of `contestants`, started when it is first asked."""

    def __init__(self, label, name, batch, folder, device="cpu"):
        command = [sys.executable, "-m", "bench.speed.contestants"]
        command += [label, name, str(batch), str(folder), device]
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  closed in stop
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            # or the first JAX process would take three quarters of a GPU's memory from the others
            env=os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"},
        )
        self.label, self.seconds, self.steps = label, [], 1
        self.record = self._read()

    def turn(self):
        """Take some steps, unless this contestant has had its time.

        Who spends all of it on the first step is judged by that step, compilation included.
        """
        first = self.record["first_step_seconds"]
        if sum(self.seconds) + first > PATIENCE:
            self.seconds = self.seconds or [first]
            return
        print(self.steps, file=self.process.stdin, flush=True)
        answer = self._read()
        self.seconds += answer.pop("seconds")
        self.record |= answer
        self.steps = max(1, min(STEPS_A_TURN, int(TURN_SECONDS / median(self.seconds))))

    def _read(self):
        line = self.process.stdout.readline()
        if not line:
            self.errors.seek(0)
            reason = self.errors.read().strip().splitlines()[-1:]
            self.stop()
            raise RuntimeError(f"{self.label} ended: {' '.join(reason)}")
        return json.loads(line)

    def stop(self):
        """End the process."""
        self.process.kill()
        self.process.communicate()
        self.errors.close()


def run(name, batch, labels, report, *, train_steps=20, with_reference=True, device="cpu"):
    """Race the labels on one experiment; return ``{label: record}``.

    ``report(text)`` is told what happens. A contestant that fails is recorded with its error.
    """
    found, running = {}, []
    with tempfile.TemporaryDirectory() as folder:
        _prepare(Path(folder), name, batch, train_steps, with_reference)
        try:
            for label in labels:
                report(f"{name}: first step of {label}")
                try:
                    running.append(Contestant(label, name, batch, folder, device))
                except RuntimeError as error:
                    found[label] = {"failed": str(error)}
            for turn in range(ROUNDS):
                for contestant in list(running):
                    report(f"{name}: round {turn + 1} of {ROUNDS}, {contestant.label}")
                    try:
                        contestant.turn()
                    except RuntimeError as error:
                        found[contestant.label] = {"failed": str(error)}
                        running.remove(contestant)
        finally:
            for contestant in running:
                contestant.stop()
    return found | {c.label: c.record | spread(c.seconds) for c in running if c.seconds}


def spread(seconds):
    """Median, extremes and number of some times."""
    return {
        "median": median(seconds),
        "min": min(seconds),
        "max": max(seconds),
        "steps": len(seconds),
    }


def _prepare(folder, name, batch, train_steps, with_reference):
    """Save the parameters at which all step, and the step by the definition in float64."""
    chosen = experiment(name)
    problem, setting = chosen.problem(), chosen.settings["hig"]
    theta = problem.network.init(np.random.default_rng([0, 1]))
    if train_steps:
        theta = fit(problem, setting.optimizer, batch=setting.batch, steps=train_steps).theta
    np.save(folder / "theta.npy", theta)
    if with_reference:
        at = problem.linearise(theta, problem.batch(0, batch))
        tau = setting.optimizer.tau
        step, _ = half_inverse(at.jacobian(), at.loss_gradient, tau=tau, method="svd")
        np.save(folder / "reference.npy", step)


def all_rivals(report, keep, experiments, earlier):
    """Race everything that is installed on some experiments.

    Returns ``{"rivals": {name: {label: record}}, "raced": {name: where and when}}``. ``keep`` is
    handed that after every experiment, so that an interruption loses only one; what ``earlier``,
    the same of an earlier race, holds of other experiments stays.
    """
    labels = ["higcore", *peers.installed()]
    found = {part: dict(earlier.get(part, {})) for part in ("rivals", "raced")}
    for name, train_steps in experiments.items():
        batch = experiment(name).settings["hig"].batch
        results = run(name, batch, labels, report, train_steps=train_steps)
        found["rivals"][name] = compared(results)
        found["raced"][name] = records.environment("jax", "torch")
        keep(found)
    return found


def compared(found):
    """The records of a race, each with its median in units of higcore's."""
    ours = found.get("higcore", {}).get("median")
    for record in found.values():
        if ours and "median" in record:
            record["times_higcore"] = record["median"] / ours
    return found
