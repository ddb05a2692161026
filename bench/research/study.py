"""Train with every variant and seed, one process a core, and keep what was reached."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from multiprocessing import get_context
from typing import NamedTuple

import numpy as np

from higcore import fit
from higcore.device.threads import cores
from higcore.half_inverse import products_pay

from .. import records
from ..experiments import EXPERIMENTS, Setting
from ..experiments.setting import compile_step
from .variants import AXES, Continued, scalable, scaled

THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


class Budget(NamedTuple):
    """Training seconds and steps of a run; both are reached, and reported."""

    seconds: float
    steps: int


# On one core. A variant with dearer steps takes the same seconds, and the same steps.
BUDGETS = {
    "toy": Budget(1.5, 600),
    "oscillators": Budget(4.0, 200),
    "linear-chain": Budget(1.5, 150),
    "poisson": Budget(12.0, 16),
    "dipole": Budget(7.0, 70),
    "dipole-cnn": Budget(6.0, 60),
}


def variants(name):
    """The axes with the values that mean something for an experiment."""
    problem, batch = EXPERIMENTS[name].problem(), EXPERIMENTS[name].settings["adaptive"].batch
    most = problem.train.count / batch
    known_by_products = products_pay(batch * problem.output_size, problem.size)

    def applies(variant):
        larger = max(variant.batch, 8.0 if variant.growth else 1.0)
        return larger <= max(most, 1.0) and (scalable(problem) or not variant.scaled)

    return {
        axis: {value: variant for value, variant in known.items() if applies(variant)}
        for axis, known in AXES.items()
        if axis != "products" or known_by_products
    }


def study(name, axes, seeds, budget, found, keep, show):
    """Run what ``found``, ``{axis: {value: {seed: record}}}``, does not hold yet, and add it.

    All variants of a seed come before the next seed; ``show(runs, count)`` goes through the runs as
    they end, ``keep()`` is called after each.
    """
    todo = {}  # AdaptiveHIG as it is has a place on every axis
    for seed in map(str, seeds):
        for axis, known in axes.items():
            for value, variant in known.items():
                by_seed = found.setdefault(axis, {}).setdefault(value, {})
                if seed not in by_seed:
                    todo.setdefault((variant, seed), []).append(by_seed)
    workers, context = cores(), get_context("spawn")
    with one_thread_each(), ProcessPoolExecutor(workers, context) as pool:
        running = {pool.submit(train, name, *run, budget): run for run in todo}
        try:
            for done in show(as_completed(running), len(running)):
                for by_seed in todo[running[done]]:
                    by_seed[running[done][1]] = done.result()
                keep()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


@contextmanager
def one_thread_each():
    """What processes that start meanwhile find in their environment, before they load a BLAS."""
    before = dict(os.environ)
    os.environ |= dict.fromkeys(THREADS, "1")
    try:
        yield
    finally:
        os.environ.clear()
        os.environ |= before


def train(name, variant, seed, budget):
    """The record of a run: test losses after the seconds and after the steps of a budget."""
    experiment, seed = EXPERIMENTS[name], int(seed)
    problem, setting = experiment.problem(seed), setting_of(experiment, variant)
    compile_step(problem, setting, seed)
    if variant.growth:
        ends = growing(problem, setting, seed, budget)
    elif variant.first:
        ends = after_first(problem, experiment.settings[variant.first], setting, seed, budget)
    elif variant.scaled:
        trained = scaled(problem, problem.network.init(np.random.default_rng([seed, 1])))
        ends = both_ends(trained, setting, seed, budget)
    else:
        ends = both_ends(problem, setting, seed, budget)
    return {kind: of_run(run, problem) for kind, run in ends.items()}


def of_run(run, problem):
    """What is kept of a run: its test loss on a problem, null where training failed."""
    if run.status == "interrupted":  # nothing is kept of it, and the other processes end, too
        raise KeyboardInterrupt
    loss = problem.evaluate(run.theta, problem.test) if run.status == "budget" else None
    return {"test_loss": records.short(loss), "steps": run.steps, "status": run.status}


def setting_of(experiment, variant):
    """A variant's optimizer with its batch, or the experiment's own setting of a name."""
    if isinstance(variant.optimizer, str):
        return experiment.settings[variant.optimizer]
    return Setting(int(variant.batch * experiment.settings["adaptive"].batch), variant.optimizer)


def both_ends(problem, setting, seed, budget):
    """A run to the end of its seconds and to that of its steps, one after the other."""
    arguments = {"batch": setting.batch, "seed": seed}
    first = fit(problem, setting.optimizer, **arguments, **budget._asdict())
    kinds = ("steps", "seconds") if first.steps == budget.steps else ("seconds", "steps")
    rest = {kinds[1]: getattr(budget, kinds[1])}
    second = first
    if first.status == "budget":
        second = fit(problem, setting.optimizer, **arguments, **rest, resume=first)
    return dict(zip(kinds, (first, second), strict=True))


def growing(problem, setting, seed, budget):
    """Runs of three parts, each with twice the batch of the one before."""
    ends = {}
    for kind, whole in budget._asdict().items():
        optimizer, batch, theta = setting.optimizer, setting.batch, None
        part = {kind: whole / 3 if kind == "seconds" else whole // 3}
        for _ in range(3):
            run = fit(problem, optimizer, batch=batch, seed=seed, theta=theta, **part)
            if run.status != "budget":
                break
            batch, theta = 2 * batch, run.theta
            epochs = {"steps": 1000 * problem.steps_per_epoch(batch)}  # `fit` begins one, too
            optimizer = Continued(state=run.state.optimizer | epochs)
        ends[kind] = run
    return ends


def after_first(problem, first, setting, seed, budget):
    """Half of the seconds with another optimizer; its steps are not to be compared."""
    half = {"seconds": budget.seconds / 2, "seed": seed}
    begun = fit(problem, first.optimizer, batch=first.batch, **half)
    run = fit(problem, setting.optimizer, batch=setting.batch, theta=begun.theta, **half)
    return {"seconds": run}
