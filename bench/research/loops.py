"""The problems with the network in the time loop, each beside what it should beat."""

from __future__ import annotations

import time
from contextlib import suppress
from statistics import median

import numpy as np
from matplotlib.figure import Figure
from scipy.optimize import least_squares

from higcore import Batch, fit

from .. import records
from ..experiments import Setting
from ..experiments.loops import LOOPS
from ..experiments.setting import compile_step
from ..paper.tables import markdown
from ..style import STYLES

OPTIMIZERS = ("adaptive", "hig", "lm", "adam")
BATCH_OF_OPEN_LOOP = 128
EVALUATIONS = 40
DISTURBANCE = 0.1  # of a start, which only feedback sees


def compare(name, seed, seconds):
    """Train with all optimizers for so long; return curves and figures, and AdaptiveHIG's run."""
    experiment, curves = LOOPS[name], {}
    problem = experiment.problem(seed)
    for label in OPTIMIZERS:
        result = trained(problem, experiment.settings[label], seed, seconds)
        curves[label] = records.curve(result)
        if label == "adaptive":
            found, adaptive = BESIDE[name](experiment, problem, result, seed, seconds), result
    curves |= found.pop("curves", {})
    return {"curves": curves, "figures": found}, adaptive


def trained(problem, setting, seed, seconds):
    """A run, for which compiling counts nothing."""
    compile_step(problem, setting, seed)
    options = {"batch": setting.batch, "seed": seed, "seconds": seconds}
    options["evaluate_every"] = (seconds / EVALUATIONS, "seconds")
    return fit(problem, setting.optimizer, **options, progress=True)


def law_and_scipy(experiment, problem, result, seed, seconds):
    """How far off the law is where velocities were met, and SciPy on the same data."""
    seen = problem.model.trajectory(result.theta, problem.train)[:, :, 1]
    velocity = np.linspace(*np.quantile(seen, (0.01, 0.99)), 200, dtype=seen.dtype)
    learned = problem.model.network.forward(result.theta, velocity[:, None])[0][:, 0]
    error = float(abs(learned - experiment.law(velocity)).max())
    theta = problem.model.init(np.random.default_rng([seed, 1]))
    return {"law_error": error, "curves": {"SciPy": scipy(problem, theta, seconds)}}


def scipy(problem, theta, seconds):
    """The curve of `least_squares` (trust region) on all data, with this library's J."""
    curve = {"seconds": [0.0], "test_loss": [problem.evaluate(theta)]}
    clock = {"spent": 0.0, "since": time.perf_counter()}

    def at_new_point(theta):
        clock["spent"] += time.perf_counter() - clock["since"]
        curve["seconds"].append(records.short(clock["spent"]))
        curve["test_loss"].append(records.short(problem.evaluate(theta)))
        if clock["spent"] > seconds:
            raise TimeIsUp
        clock["since"] = time.perf_counter()
        return problem.linearise(theta, problem.train).jacobian().dense()

    def residuals(theta):
        y = problem.predict(theta, problem.train)[1]
        return (y - problem.train.target).ravel()

    with suppress(TimeIsUp):
        least_squares(residuals, theta, at_new_point, ftol=None, xtol=1e-15, gtol=1e-15)
    return curve


class TimeIsUp(Exception):
    """`least_squares` asks nobody when to end."""


def open_and_closed(experiment, problem, result, seed, seconds):
    """Loss at the end from disturbed starts: with feedback, and said in advance."""
    setting = Setting(BATCH_OF_OPEN_LOOP, experiment.settings["adaptive"].optimizer)
    blind = experiment.open_loop(seed)
    said = trained(blind, setting, seed, seconds)
    x = problem.test.x
    disturbed = x + DISTURBANCE * np.random.default_rng([seed, 3]).standard_normal(x.shape)
    rest = np.zeros_like(x)
    states = problem.model.trajectory(result.theta, Batch(disturbed, disturbed, rest))
    return {
        "feedback": float((states[:, -1] ** 2).sum(axis=1).mean()),
        "open_loop": blind.evaluate(said.theta, Batch(disturbed, x, rest)),
        "open_loop_undisturbed": blind.evaluate(said.theta),
    }


def over_four_spans(experiment, problem, result, seed, seconds):
    """Relative errors at the end of the first and of the last of four spans."""
    _, (coarse, corrected) = experiment.errors(problem, result.theta, 1000 + seed)
    ends = {"one_span": experiment.steps, "four_spans": -1}
    return {
        f"{name}_{end}": float(errors[at])
        for name, errors in (("coarse", coarse), ("corrected", corrected))
        for end, at in ends.items()
    }


def left_alone(experiment, problem, result, seed, seconds):
    """Loss where nobody acts, and after twice the span; how fast neighbours part unforced."""
    return {
        "unforced": experiment.loss_unforced(problem),
        "twice_the_span": experiment.loss_later(problem, result.theta),
        "exponent": experiment.exponent(problem, seed),
    }


BESIDE = {
    "friction": law_and_scipy,
    "feedback": open_and_closed,
    "burgers": over_four_spans,
    "kuramoto-sivashinsky": left_alone,
}


def table(seeds):
    """Median and worst of the last test losses, then of the figures."""
    runs = list(seeds.values())
    losses = {
        label: [run["curves"][label]["test_loss"][-1] for run in runs]
        for label in runs[0]["curves"]
    }
    figures = {name: [run["figures"][name] for run in runs] for name in runs[0]["figures"]}
    rows = [
        (name, f"{median(values):.2e}", f"{max(values):.2e}")
        for name, values in (losses | figures).items()
    ]
    return markdown(("last test loss, and figures", "median", "worst"), rows)


def picture(seeds, title):
    """Test loss against training seconds, a line a seed."""
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    ax = figure.subplots()
    for number, run in enumerate(seeds.values()):
        for (color, dash), (label, curve) in zip(STYLES, run["curves"].items(), strict=False):
            name = None if number else label
            ax.loglog(curve["seconds"][1:], curve["test_loss"][1:], dash, color=color, label=name)
    ax.set_xlabel("training time [s]")
    ax.set_ylabel("mean test loss")
    figure.legend(loc="outside right center", frameon=False)
    figure.suptitle(title, fontsize=11)
    return figure
