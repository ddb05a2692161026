"""Train with every variant and seed, one a core, and keep what was reached."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from higcore import fit
from higcore.half_inverse import products_pay

from .. import records
from ..experiments import EXPERIMENTS, Setting
from ..experiments.setting import compile_step
from ..reproduction.commands import make_shown
from ..reproduction.runs import digest, record_of
from ..reproduction.sources import fingerprint
from .variants import AXES, Continued, Variant, scalable, scaled


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


@dataclass(frozen=True)
class Trial:
    """A variant on an experiment with a seed, as a run that leaves a file."""

    experiment: str
    variant: Variant
    budget: Budget
    seed: int

    @property
    def seconds(self) -> float:
        """About what it takes: it goes on to the end of its steps, too."""
        return 1.5 * self.budget.seconds

    def needs(self) -> list[Any]:
        """Runs that must be there before this one: none."""
        return []

    def described(self) -> dict[str, Any]:
        """The configuration as plain data."""
        return {
            "experiment": repr(EXPERIMENTS[self.experiment]),
            "variant": repr(self.variant),
            "budget": self.budget._asdict(),
            "seed": self.seed,
        }

    def stem(self) -> str:
        """How its file begins."""
        return f"study-{self.experiment}-seed{self.seed}-{digest(self)}"

    def code(self) -> str:
        """Fingerprint of the code that computes it."""
        experiment = EXPERIMENTS[self.experiment]
        parts = {type(part).__module__ for part in (experiment, experiment.solver)}
        return fingerprint(frozenset(parts | {"bench.research.study"}))

    def compute(self, folder: Path) -> dict[str, Any]:
        """Test losses after the seconds and after the steps, on one core."""
        with threadpool_limits(1):
            return train(self.experiment, self.variant, self.seed, self.budget)


def study(name, axes, seeds, budget, found, folder, place):
    """Run what ``found``, ``{axis: {value: {seed: record}}}``, does not hold yet, and add it.

    Returns what failed. All variants of a seed come before the next seed; where this is ended
    early, ``found`` has what is there then.
    """
    todo = {}  # AdaptiveHIG as it is has a place on every axis
    for seed in seeds:
        for axis, known in axes.items():
            for value, variant in known.items():
                by_seed = found.setdefault(axis, {}).setdefault(value, {})
                if str(seed) not in by_seed:
                    todo.setdefault(Trial(name, variant, budget, seed), []).append(by_seed)
    try:
        return make_shown(list(todo), folder, place)
    finally:
        for trial, places in todo.items():
            if record := record_of(trial, folder):
                ends = {kind: record[kind] for kind in budget._fields if kind in record}
                for by_seed in places:
                    by_seed[str(trial.seed)] = ends


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
    if run.status == "interrupted":  # nothing is kept of it
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
