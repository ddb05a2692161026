"""What a step costs, where the time goes, how exact it is. Figures of one machine in one run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from statistics import median

import numpy as np

from higcore import StackedJacobian, fit, half_inverse
from higcore.backend import thread_policy
from higcore.second_order import HIG

STAGES = ("network", "solver", "sweep", "rows", "half-inverse", "update")


def timed_step(problem, theta, batch, optimizer):
    """One HIG step, stage by stage, as `fit` does it; return seconds of each stage."""
    marks = [time.perf_counter()]

    def mark(value):
        marks.append(time.perf_counter())
        return value

    control, net_tape = mark(problem.network.forward(theta, batch.net_input))
    y, tape = mark(problem.solver.forward(batch.x, control))
    S = mark(problem.solver.rows(tape))
    J = mark(StackedJacobian(problem.network, theta, net_tape, S))
    g = problem.loss.gradient(y, batch.target) / len(y)
    step, _ = mark(half_inverse(J, g, tau=optimizer.tau, method=optimizer.method))
    mark(theta - optimizer.lr * step)
    return np.diff(marks)


def stage_medians(problem, optimizer, batch, repeats=60):
    """Median seconds of each stage over ``repeats`` steps at a trained theta."""
    theta = fit(problem, optimizer, batch=batch, steps=20).theta
    with thread_policy():
        rows = [
            timed_step(problem, theta, problem.train[:batch], optimizer) for _ in range(repeats)
        ]
    return dict(zip(STAGES, np.median(rows, axis=0).tolist(), strict=True))


def step_medians(problem, settings, repeats=3, steps=60):
    """Median seconds of a step of each setting, runs taken in turn; with the spread of the runs."""
    times = {label: [] for label in settings}
    for _ in range(repeats):
        for label, setting in settings.items():
            result = fit(problem, setting.optimizer, batch=setting.batch, steps=steps)
            times[label].append(result.seconds_per_step)
    return {
        label: {"median": median(t), "min": min(t), "max": max(t)} for label, t in times.items()
    }


def first_step(cold):
    """Seconds from the start of a process to the end of its first training step."""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | ({"NUMBA_CACHE_DIR": folder} if cold else {})
        begin = time.time()
        run = _python("-c", FIRST_STEP, environment=environment)
    return {"process start to first step": float(run.stdout) - begin}


def peak_memory(batch, optimizer="hig"):
    """Peak resident MB of a whole training process of 40 steps."""
    with tempfile.TemporaryDirectory() as folder:
        options = ("--steps", "40", "--batch", str(batch), "--optimizer", optimizer)
        return _train(folder, os.environ, *options)["peak_memory_mb"]


def _train(folder, environment, *options):
    command = ("-m", "bench", "train", "oscillators", "--json", "--out", folder)
    run = _python(*command, *options, environment=environment)
    return json.loads(run.stdout.splitlines()[-1])


def _python(*arguments, environment):
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True)


FIRST_STEP = """
import time
from bench.experiments import EXPERIMENTS
from higcore import fit
experiment = EXPERIMENTS["oscillators"]
setting = experiment.settings["hig"]
fit(experiment.problem(), setting.optimizer, batch=setting.batch, steps=1)
print(time.time())
"""


def accuracy(problem, batch=128, at=(0, 32, 128, 512), taus=(1e-4, 1e-5, 1e-6)):
    """Largest relative error of the step against the float64 SVD, on Jacobians met in training."""
    errors = {f"{name} {tau:g}": 0.0 for name in ROUTES for tau in taus}
    run = None
    for steps in at:
        run = fit(problem, HIG(), batch=batch, steps=steps, resume=run) if steps else None
        theta = run.theta if run else problem.network.init(np.random.default_rng([0, 1]))
        linear = problem.linearise(theta, problem.batch(steps, batch))
        J, g = linear.jacobian(), linear.loss_gradient
        for tau in taus:
            reference, _ = half_inverse(J, g, tau=tau, method="svd")
            for name, route in ROUTES.items():
                error = np.linalg.norm(route(J, g, tau) - reference) / np.linalg.norm(reference)
                errors[f"{name} {tau:g}"] = max(errors[f"{name} {tau:g}"], float(error))
    return errors


def _float32_svd(J, g, tau):
    """The paper's way: everything in single precision."""
    U, s, Vt = np.linalg.svd(J.dense().astype(np.float32), full_matrices=False)
    power = np.where(s > tau * s[0], s, np.inf) ** np.float32(-0.5)
    return Vt.T @ (power * (U.T @ g.reshape(-1).astype(np.float32)))


ROUTES = {
    "gram": lambda J, g, tau: half_inverse(J, g, tau=tau, method="gram")[0],
    "tridiagonal": lambda J, g, tau: half_inverse(J, g, tau=tau, method="tridiagonal")[0],
    "svd float32": _float32_svd,
}
