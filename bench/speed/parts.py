"""What a step costs, where the time goes, how exact it is. Figures of one machine in one run."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from statistics import median

import numpy as np

from higcore import fit, half_inverse
from higcore.half_inverse import SQUARING

from ..experiments import EXPERIMENTS
from ..paper import tables
from . import cores, crossovers, fields, figures, peers, race, shared, sweeps
from .contestants import experiment
from .profile import profile

# Experiment -> training steps before it is timed.
RACES = {
    "toy": 20,
    "oscillators": 20,
    "linear-chain": 20,
    "dipole": 20,
    "dipole-cnn": 20,
    "poisson-paper": 1,
}
LOOP_RACES = {"pendulum-loop": 20}  # whose network is inside: it has no stages to be profiled
# Where J has fewer rows than columns, as the damped rivals' formulas want it, and not too many.
CONTESTS = ("oscillators", "linear-chain", "dipole", "dipole-cnn")
TABLE_3 = (("hig", 32), ("hig", 64), ("hig", 128), ("adam", 256), ("adam", 512), ("adam", 1024))


def raced(kind):
    """Experiments that a kind of step is raced on, with their training steps."""
    known = RACES | LOOP_RACES
    return known if kind == "half" else {name: known[name] for name in CONTESTS if name in known}


def rivals(say, keep, earlier, names, kinds=tuple(peers.KINDS)):
    """Step times of everything that is installed; table and picture.

    What ``earlier``, the same of an earlier race, holds of others is kept.
    """
    for label, reason in peers.absent().items():
        say(f"absent: {label}: {reason}")
    parts = ("rivals", "raced", *peers.KINDS)
    found = {part: earlier[part] for part in parts if part in earlier}
    for kind in kinds:
        chosen = {name: steps for name, steps in raced(kind).items() if not names or name in names}
        race.all_rivals(kind, chosen, of_kind(found, kind), say, lambda: keep(found))
    results = {}
    for kind in peers.KINDS:
        part = of_kind(found, kind)
        part["rivals"] = {n: part["rivals"][n] for n in raced(kind) if n in part["rivals"]}
        suffix = "" if kind == "half" else f", {kind} step"
        results |= {name + suffix: records for name, records in part["rivals"].items()}
    text = "\n\n".join(f"{name}\n{tables.race(records)}" for name, records in results.items())
    return found | {"absent": peers.absent()}, text, figures.race(results)


def of_kind(found, kind):
    """What is raced of a kind, {"rivals": ..., "raced": ...}: half's is the file itself."""
    part = found if kind == "half" else found.setdefault(kind, {})
    part.setdefault("rivals", {})
    part.setdefault("raced", {})
    return part


def profiles(say, keep):
    """Where the time of a step goes, with the arithmetic floor."""
    found = {}
    for name, train_steps in RACES.items():
        say(f"profile of {name}")
        found[name] = profile(experiment(name), 5 if "poisson" in name else 60, train_steps)
        keep({"stages": found})
    text = "\n\n".join(f"{name}\n{tables.profile(stages)}" for name, stages in found.items())
    return {"stages": found}, text, figures.profiles(found)


def crossover(say, keep):
    """Which method is the fastest from which size on."""
    found = crossovers.crossovers(say, lambda found: keep({"seconds": found}))
    auto = crossovers.auto_choices()
    damped = crossovers.auto_choices(tau=math.inf)
    text = "\n\n".join(
        f"{case}\n{tables.by_size(methods, damped if 'lanczos' in methods else auto)}"
        for case, methods in found.items()
    )
    return {"seconds": found, "auto": auto}, text, figures.crossovers(found)


def growth(say, keep):
    """Cost and memory against the width of the network and against the batch."""
    found = {"solver_sweep": sweeps.solver_sweep(say), "memory": sweeps.memory_beside_gram(say)}
    found["width"] = sweeps.width_sweep(say, lambda rows: keep(found | {"width": rows}))
    found["batch"] = sweeps.batch_sweep(say, lambda rows: keep(found | {"batch": rows}))
    found["slopes"] = slopes(found)
    text = "\n\n".join(
        [
            "network against width, m = 512\n" + tables.nested(found["width"], "parameters"),
            "Poisson against batch\n" + tables.nested(found["batch"], "m"),
            "seconds of the solver sweep\n" + tables.nested(found["solver_sweep"], "batch"),
            "slopes in log-log\n" + tables.nested({"slope": found["slopes"]}),
        ]
    )
    return found, text, figures.growth(found)


def slopes(found):
    """Exponents of growth, fitted over the whole range; of the step over the wider half.

    The narrower networks cost less than the decomposition, which does not grow.
    """
    widths = list(found["width"].items())
    large = dict(widths[len(widths) // 2 :])
    return {
        "step against parameters": sweeps.slope({t: r["hig_seconds"] for t, r in large.items()}),
        **{
            f"solver sweep of {name} against batch": sweeps.slope(points)
            for name, points in found["solver_sweep"].items()
        },
        "memory beside K against batch": sweeps.slope(found["memory"]),
    }


def own(say, keep):
    """Step times of table 3, first-step latency, peak memory and accuracy; no picture."""
    problem = EXPERIMENTS["oscillators"].problem()
    known = EXPERIMENTS["oscillators"].settings
    settings = {f"{name} b {batch}": known[name]._replace(batch=batch) for name, batch in TABLE_3}
    say("step times of table 3")
    found = {"step_seconds": step_medians(problem, settings)}
    say("first steps")
    found["first_step_seconds"] = {
        "cold cache": first_step(cold=True),
        "warm cache": first_step(cold=False),
    }
    keep(found)
    say("peak memory")
    found["peak_memory_mb"] = {
        f"{name} b {batch}": {"peak MB": peak_memory(batch, name)}
        for name, batch in (*TABLE_3, ("hig", 1024))
    }
    for name in ("oscillators", "dipole"):
        say(f"accuracy on {name}")
        found[f"relative_error_of_step_{name}"] = accuracy(EXPERIMENTS[name])
    text = "\n\n".join(f"{name}\n{tables.nested(rows)}" for name, rows in found.items())
    return found, text, None


PARTS = {
    "profile": profiles,
    "crossovers": crossover,
    "sweeps": growth,
    "own": own,
    "ranks": shared.by_ranks,
    "fields": fields.by_method,
    "cores": cores.by_cores,
}


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


def accuracy(experiment, at=(0, 32, 128, 512), taus=(1e-4, 1e-5, 1e-6, 1e-10)):
    """Largest relative error of the step against the float64 SVD, on Jacobians met in training.

    ``{method: {tau: error}}``; a squaring method is not asked for a tau that it cannot resolve.
    The cutoff is put into the widest gap between singular values near tau, whose smallest half
    width is the last row: where a mode lies on the cutoff, rounding decides if it is kept.
    """
    names = (*ROUTES, "gap at the cutoff")
    rows = {name: {f"tau {tau:g}": 0.0 for tau in taus} for name in names}
    rows["gap at the cutoff"] = dict.fromkeys(rows["gap at the cutoff"], np.inf)
    problem, setting, run = experiment.problem(), experiment.settings["hig"], None
    for steps in at:
        if steps:
            run = fit(problem, setting.optimizer, batch=setting.batch, steps=steps, resume=run)
        theta = run.theta if run else problem.network.init(np.random.default_rng([0, 1]))
        linear = problem.linearise(theta, problem.batch(steps, setting.batch))
        sigma = np.linalg.svd(linear.jacobian().dense(), compute_uv=False)
        for tau in taus:
            clear, gap = widest_gap(sigma / sigma[0], tau)
            found, column = step_errors(linear, clear), f"tau {tau:g}"
            for name, error in found.items():
                rows[name][column] = max(rows[name][column], error, key=_worst)
            rows["gap at the cutoff"][column] = min(rows["gap at the cutoff"][column], gap)
    return rows


def widest_gap(ratios, tau):
    """The middle of the widest gap of descending ratios within a factor 2 of tau; half its width.

    Relative to the middle; tau itself and infinity if nothing is near.
    """
    near = np.flatnonzero((ratios > tau / 2) & (ratios < 2 * tau))
    if len(near) < 2:
        return tau, np.inf
    upper, lower = ratios[near[:-1]], ratios[near[1:]]
    k = np.argmax(upper / lower)
    middle = float(np.sqrt(upper[k] * lower[k]))
    return middle, float(1 - lower[k] / middle)


def step_errors(linear, tau):
    """Relative error of every route's step; NaN where the route cannot resolve tau."""
    J, g = linear.jacobian(), linear.loss_gradient
    reference, _ = half_inverse(J, g, tau=tau, method="svd")
    able = [name for name in ROUTES if tau >= 3e-7 or name == "qr"]
    steps = {name: ROUTES[name](J, g, tau) for name in able}
    size = np.linalg.norm(reference)
    errors = {name: float(np.linalg.norm(step - reference) / size) for name, step in steps.items()}
    return dict.fromkeys(ROUTES, np.nan) | errors


def _worst(error):
    """NaN, an error that was not asked for, stays."""
    return np.inf if np.isnan(error) else error


def _float32_svd(J, g, tau):
    """The paper's way: everything in single precision."""
    U, s, Vt = np.linalg.svd(J.dense().astype(np.float32), full_matrices=False)
    power = np.where(s > tau * s[0], s, np.inf) ** np.float32(-0.5)
    return Vt.T @ (power * (U.T @ g.reshape(-1).astype(np.float32)))


def _route(method):
    return lambda J, g, tau: half_inverse(J, g, tau=tau, method=method)[0]


ROUTES = {method: _route(method) for method in (*SQUARING, "qr")} | {"svd float32": _float32_svd}
