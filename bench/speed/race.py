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
SAME_STEP = 1e-6  # the most that a contestant's first step may be off, but where half is raced
DAMPING = 0.1  # over the largest diagonal entry of h J J^T: who tries a step before, takes it
CUTOFF = 1e-3  # over max(S), of the pseudo-inverse: Sven's default


class Contestant:
    """A process of `contestants`; if ``exact``, one that takes another step is none."""

    def __init__(self, label, name, batch, folder, device="cpu", exact=False):
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
        if exact:
            self._require_same_step()

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

    def _require_same_step(self):
        error = self.record["error"]
        if not error <= SAME_STEP:
            self.stop()
            raise RuntimeError(f"{self.label} takes another step, by {error:.1e} of its length")

    def stop(self):
        """End the process."""
        self.process.kill()
        self.process.communicate()
        self.errors.close()


def run(
    name, batch, labels, report, *,
    kind="half", train_steps=20, with_reference=True, device="cpu",
):  # fmt: skip
    """Race the labels to a step of one kind on one experiment; return ``{label: record}``.

    ``report(text)`` is told what happens. A contestant that fails is recorded with its error. So is
    one that takes another step, but for the kind ``half``, where single precision has its own.
    """
    found, running = {}, []
    with tempfile.TemporaryDirectory() as folder:
        _prepare(Path(folder), name, batch, train_steps, with_reference, kind)
        try:
            for label in labels:
                report(f"{name}: first step of {label}")
                try:
                    exact = kind != "half"
                    running.append(Contestant(label, name, batch, folder, device, exact))
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


def _prepare(folder, name, batch, train_steps, with_reference, kind):
    """Save the parameters at which all step, which step, and that by the definition in float64."""
    chosen = experiment(name)
    problem, setting = chosen.problem(), chosen.settings["hig"]
    theta = problem.network.init(np.random.default_rng([0, 1]))
    if train_steps:
        theta = fit(problem, setting.optimizer, batch=setting.batch, steps=train_steps).theta
    np.save(folder / "theta.npy", theta)
    at = problem.linearise(theta, problem.batch(0, batch))
    rule = rule_of(kind, at, setting.optimizer.tau)
    (folder / "rule.json").write_text(json.dumps(rule))
    if with_reference:
        np.save(folder / "reference.npy", reference(at, rule))


def rule_of(kind, at, tau):
    """Which step of a kind is raced at a `Linearisation`: keywords of `peers.make_step`."""
    if kind == "half":
        return {"tau": tau}
    if kind == "inverse":
        return {"tau": CUTOFF, "kappa": -1.0}
    h = float(at.curvature)
    largest = h * float(at.jacobian().row_norms_squared().max())
    return {"damping": DAMPING * largest, "curvature": h}


def reference(at, rule):
    """The step by the SVD of J in float64."""
    if "damping" not in rule:
        return half_inverse(at.jacobian(), at.loss_gradient, method="svd", **rule)[0]
    U, s, Vt = np.linalg.svd(at.jacobian().dense(), full_matrices=False)
    damped = s / (rule["curvature"] * s**2 + rule["damping"])
    return Vt.T @ (damped * (U.T @ at.loss_gradient.reshape(-1)))


def all_rivals(kind, experiments, found, report, keep):
    """Race everything that is installed to a kind of step, on some experiments.

    ``found``, ``{"rivals": {name: {label: record}}, "raced": {name: where and when}}``, is added
    to, and ``keep()`` called after every experiment, so that an interruption loses only one.
    """
    known = peers.KINDS[kind]
    labels = ["higcore", *peers.installed(known)]
    packages = sorted({package for _, package in known.values()})
    for name, train_steps in experiments.items():
        batch = experiment(name).settings["hig"].batch
        results = run(name, batch, labels, report, kind=kind, train_steps=train_steps)
        found["rivals"][name] = compared(results)
        found["raced"][name] = records.environment(*packages)
        keep()


def compared(found):
    """The records of a race, each with its median in units of higcore's."""
    ours = found.get("higcore", {}).get("median")
    for record in found.values():
        if ours and "median" in record:
            record["times_higcore"] = record["median"] / ours
    return found
