"""Which runs each figure of the paper is of: ``{panel: [run]}``, as functions of a budget.

Settings that the paper names are the paper's. Where it shows several learning rates or batches
without naming them, they are the named one, and others around it. Where paper and code differ, the
experiments are the code's; but Poisson is the paper's, to which the learning rates of figure 3
belong: with the code's sources, 50 times as large, HIG climbs from Adam's network.

What may come from the paper's single precision is there in both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from higcore import HIG, SGD, Adadelta, Adagrad, Adam, RMSprop

from ..experiments import EXPERIMENTS, VARIANTS
from .budgets import Budget
from .runs import Training

Panels = dict[str, list[Training]]

GAMMAS = {1: VARIANTS["toy"]["well-conditioned"], 0.01: EXPERIMENTS["toy"]}
METHODS_2B = ("adadelta", "adagrad", "adam", "gn", "hig", "rmsprop", "sgd", "adaptive")
BATCHES = {"adam": (256, 512, 1024), "gn": (32, 64, 128), "hig": (32, 64, 128)}  # as in table 3
# Learning rates of figures 5 and 6: table 2's own, and larger ones, which they show to be unstable.
GRID = {
    "adadelta": (Adadelta, (0.1, 1.0, 10.0)),
    "adagrad": (Adagrad, (0.1, 0.3, 1.0)),
    "sgd": (SGD, (0.1, 0.3, 1.0)),
    "rmsprop": (RMSprop, (1e-4, 1e-3, 1e-2)),
    "adam": (Adam, (3e-4, 1e-3, 3e-3)),
}
BETAS = (0.0, -0.25, -0.5)
KAPPAS = (1.0, 0.5, 0.0, -0.25, -0.5, -0.75, -1.0)
TAUS = (1e-5, 1e-6, 1e-7, 1e-8, 1e-9, 1e-10)


def figure_1(budget: Budget) -> Panels:
    """Adam, Gauss-Newton and HIG on the toy, well- and ill-conditioned."""
    return {
        f"γ = {gamma:g}": [toy(experiment, name, budget) for name in ("adam", "gn", "hig")]
        for gamma, experiment in GAMMAS.items()
    }


def toy(experiment: Any, name: str, budget: Budget) -> Training:
    """A run of the toy."""
    batch, optimizer = experiment.settings[name]
    run = Training(experiment, optimizer, batch, budget.toy, budget.steps)
    return replace(run, recorded=True, evaluations=400)


def oscillators(name: str, budget: Budget, batch: int | None = None, **changed: object) -> Training:
    """A run of table 2, or with another batch or setting."""
    experiment = EXPERIMENTS["oscillators"]
    known, optimizer = experiment.settings[name]
    if changed:
        optimizer = replace(optimizer, **changed)
    return Training(experiment, optimizer, batch or known, budget.oscillators, budget.steps)


def figure_2(budget: Budget) -> Panels:
    """Oscillators: one trajectory, all optimizers, batches."""
    over_batches = {
        f"c) {LABELS[name]}": [oscillators(name, budget, batch) for batch in batches]
        for name, batches in BATCHES.items()
    }
    over_batches["c) GN, float32"] = [in_single(run) for run in over_batches["c) GN"]]
    return {
        "a)": [oscillators("hig", budget)],
        "b)": [oscillators(name, budget) for name in METHODS_2B],
        **over_batches,
    }


LABELS = {"adam": "Adam", "gn": "GN", "hig": "HIG"}


def poisson(name: str, budget: Budget, lr: float | None = None) -> Training:
    """A run of the Poisson problem."""
    experiment = VARIANTS["poisson"]["paper"]
    batch, optimizer = experiment.settings[name]
    if lr is not None:
        optimizer = replace(optimizer, lr=lr)
    seconds = {"hig": budget.poisson_matrix, "adaptive": budget.poisson_adaptive}
    return Training(experiment, optimizer, batch, seconds.get(name, budget.poisson), budget.steps)


def figure_3(budget: Budget) -> Panels:
    """Poisson: fields, learning rates, HIG from the network of Adam."""
    adam = [poisson("adam", budget, lr) for lr in (1e-4, 3e-4, 1e-3)]
    hig = [poisson("hig", budget, lr) for lr in (0.01, 0.02, 0.04)]
    then = replace(hig[1], start=adam[0])
    return {
        "a)": [then],
        "b)": [*adam, *hig, poisson("adaptive", budget)],
        "c)": [adam[0], then],
    }


def figure_7(budget: Budget) -> Panels:
    """Poisson over epochs; Adam from the network of the HIGs of figure 3c."""
    third = figure_3(budget)
    adam, hig = third["c)"]
    return {"a)": third["b)"], "b)": [adam, hig, replace(adam, start=hig)]}


def dipole(
    name: str, budget: Budget, batch: int = 16, convolutional: bool = False, **changed: float
) -> Training:
    """A run of the quantum dipole."""
    experiment = EXPERIMENTS["dipole-cnn" if convolutional else "dipole"]
    known, optimizer = experiment.settings[name]
    if name == "adaptive":
        batch = known
    seconds = budget.dipole_cnn if convolutional else budget.dipole
    run = Training(experiment, replace(optimizer, **changed), batch, seconds, budget.steps)
    return replace(run, recorded=not convolutional and run.batch == 16 and _in_4c(run.optimizer))


def _in_4c(optimizer):
    return optimizer in (Adam(lr=1e-4), HIG(lr=0.5, tau=1e-5))


def figure_4(budget: Budget) -> Panels:
    """Dipole: one transition, learning rates, low- and high-energy losses."""
    adam = [dipole("adam", budget, lr=lr) for lr in (1e-4, 5e-4, 1e-3)]
    hig = [dipole("hig", budget, lr=lr) for lr in (0.25, 0.5, 1.0)]
    return {
        "a)": [hig[1]],
        "b)": [*adam, *hig, dipole("adaptive", budget)],
        "c)": [adam[0], hig[1]],
    }


def figure_5(budget: Budget) -> Panels:
    """Oscillators: Adadelta, Adagrad, SGD, RMSprop over learning rates and batches."""
    names = ("adadelta", "adagrad", "sgd", "rmsprop")
    return {panel: runs for name in names for panel, runs in _grid(name, budget).items()}


def figure_6(budget: Budget) -> Panels:
    """Oscillators: Adam over learning rates and batches."""
    return _grid("adam", budget)


def _grid(name, budget):
    """A panel for each learning rate, a curve for each batch."""
    kind, rates = GRID[name]
    return {
        f"{kind.__name__}, η {lr:g}": [_of_grid(name, budget, lr, b) for b in BATCHES["adam"]]
        for lr in rates
    }


def _of_grid(name, budget, lr, batch):
    """A run of the grid; table 2's own, and those of figure 2c, are there and longer."""
    run = oscillators(name, budget, batch, lr=lr)
    in_figure_2 = run in [run for runs in figure_2(budget).values() for run in runs]
    return run if in_figure_2 else replace(run, seconds=budget.grid)


def figure_8(budget: Budget) -> Panels:
    """Dipole: Adam over learning rates and batches."""
    return {
        f"Adam, η {lr:g}": [dipole("adam", budget, batch, lr=lr) for batch in (16, 64, 256)]
        for lr in (1e-4, 5e-4, 1e-3)
    }


def figure_9(budget: Budget) -> Panels:
    """Dipole: HIG over learning rates, batches and truncations."""
    small = [dipole("hig", budget, tau=tau) for tau in (1e-5, 1e-6, 1e-7)]
    small.append(dipole("adaptive", budget))
    panels = _around_hig(budget, False, (0.25, 0.5, 1.0))
    return panels | {"truncation, float32": [in_single(run) for run in small]}


def figure_10(budget: Budget) -> Panels:
    """Dipole with the convolutional network: Adam over learning rates and batches."""
    panels = {
        f"Adam, η {lr:g}": [dipole("adam", budget, batch, True, lr=lr) for batch in (16, 64, 256)]
        for lr in (1e-4, 2e-4, 1e-3)
    }
    panels["Adam, η 0.0002"].append(dipole("adaptive", budget, convolutional=True))
    return panels


def figure_11(budget: Budget) -> Panels:
    """Dipole with the convolutional network: HIG over learning rates, batches, truncations."""
    panels = _around_hig(budget, True, (0.35, 0.7, 1.4))
    panels["batch size"].append(dipole("adaptive", budget, convolutional=True))
    return panels


def _around_hig(budget, convolutional, rates):
    """Learning rate, batch and truncation changed one at a time, around the paper's best."""

    def run(batch=16, **changed):
        return dipole("hig", budget, batch, convolutional, **changed)

    taus = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7)
    return {
        "learning rate": [run(lr=lr) for lr in rates],
        "batch size": [run(batch) for batch in (8, 16, 32)],
        "truncation": [run(tau=tau) for tau in taus],
    }


def figure_12(budget: Budget) -> Panels:
    """Oscillators: the exponent of the largest singular value, and that of all of them."""
    kappas = {kappa: oscillators("hig", budget, kappa=kappa) for kappa in KAPPAS}
    kappas[1.0] = oscillators("hig", budget, kappa=1.0, lr=0.1)  # SGD: table 2's learning rate
    kappas[-1.0] = oscillators("gn", budget)  # the same step, under its name
    return {
        "a)": [oscillators("hig", budget, beta=beta) for beta in BETAS],
        "a) first step of the same length": [as_long(beta, budget) for beta in BETAS],
        "b)": [kappas[kappa] for kappa in KAPPAS],
    }


def figure_13(budget: Budget) -> Panels:
    """Oscillators: truncations of HIG and Gauss-Newton."""
    names = {"HIG": "hig", "GN": "gn"}
    double = {
        label: [oscillators(name, budget, tau=tau) for tau in TAUS] for label, name in names.items()
    }
    return double | {
        f"{label}, float32": list(map(in_single, double[label][1::2])) for label in names
    }


def in_single(run: Training) -> Training:
    """The same run in the paper's precision."""
    return replace(run, dtype="float32")


def levels(budget: Budget) -> Panels:
    """Oscillators and dipole until their losses are where the paper's hour ends."""
    return {
        "oscillators": [oscillators_to_the_end(name, budget) for name in TO_THE_END],
        "dipole": [replace(dipole("hig", budget), seconds=600, recorded=False)],
    }


def oscillators_to_the_end(name: str, budget: Budget) -> Training:
    """A run with the settings of table 2, or the batch that is stable, to see where it ends."""
    batch, seconds = TO_THE_END[name]
    return replace(oscillators(name, budget, batch), seconds=seconds)


# Batch and seconds; of Gauss-Newton's batches the one with which no seed failed in figure 2c.
TO_THE_END = {"adam": (256, 300), "gn": (64, 300), "hig": (128, 1800)}


def as_long(beta: float, budget: Budget) -> Training:
    """HIG with another β, and the η that undoes what it does to the length of the first step."""
    if beta == 0:
        return oscillators("hig", budget)
    return oscillators("hig", budget, beta=beta, lr=float(f"{FIRST_SIGMA**-beta:.2g}"))


FIRST_SIGMA = 54.0  # max(S) of the oscillators at the first step, of seed 11
PLANS: dict[int | str, Callable[[Budget], Panels]] = {
    1: figure_1, 2: figure_2, 3: figure_3, 4: figure_4, 5: figure_5, 6: figure_6, 7: figure_7,
    8: figure_8, 9: figure_9, 10: figure_10, 11: figure_11, 12: figure_12, 13: figure_13,
    "levels": levels,
}  # fmt: skip


def runs_of(numbers: list[int | str], budget: Budget) -> list[Training]:
    """All runs of some figures, each once, with all seeds of the budget."""
    planned = [run for n in numbers for runs in PLANS[n](budget).values() for run in runs]
    return [run.with_seed(seed) for seed in range(budget.seeds) for run in dict.fromkeys(planned)]
