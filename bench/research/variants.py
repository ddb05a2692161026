"""What `study` compares: AdaptiveHIG with one part changed, with several, and other optimizers."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from higcore import AdaptiveHIG, Batch
from higcore.losses import SquaredError
from higcore.optimizers.adaptive import losses


class Variant(NamedTuple):
    """An optimizer, or the name of one of the experiment's, and what else is unlike a plain run.

    ``batch`` multiplies the batch that AdaptiveHIG chooses; ``first`` names an optimizer that has
    half of the time before; ``growth`` doubles the batch after each third; ``scaled`` trains on
    outputs divided by their errors at the start.
    """

    optimizer: AdaptiveHIG | str = AdaptiveHIG()
    batch: float = 1.0
    first: str = ""
    growth: bool = False
    scaled: bool = False


@dataclass(frozen=True)
class Ramped(AdaptiveHIG):
    """Another number of steps until the momentum is whole."""

    ramp: int = 200

    def _momentum(self, state, method):
        if not state["carrying"]:
            return 0.0
        return self.momentum * min(state["steps"] / self.ramp, 1.0) if self.ramp else self.momentum


@dataclass(frozen=True)
class Rule(AdaptiveHIG):
    """Other factors of lambda."""

    better: float = 0.7
    worse: float = 1.3
    refused: float = 4.0

    def _factor(self, trial):
        if trial.gain is None:
            return 1.0
        if not trial.good:
            return self.refused
        return self.better if trial.after < trial.before else self.worse


@dataclass(frozen=True)
class BySize(AdaptiveHIG):
    """The more the loss of the others changes, the more lambda does: by its third power."""

    def _factor(self, trial):
        if trial.gain is None or not trial.good or not trial.before > 0:
            return super()._factor(trial)
        return min(max((trial.after / trial.before) ** 3, 0.5), 2.0)


@dataclass(frozen=True)
class ByGain(AdaptiveHIG):
    """The gain ratio on the batch decides, by Nielsen's rule, and no others."""

    def _factor(self, trial):
        if trial.gain is None:
            return 1.0
        return max(1 / 3, 1 - (2 * min(trial.gain, 2.0) - 1) ** 3) if trial.good else 2.0


@dataclass(frozen=True)
class Strict(AdaptiveHIG):
    """A step that is not better for the others is not taken."""

    def _judged(self, trial, at, others, state):
        trial = super()._judged(trial, at, others, state)
        if trial.gain is None or trial.after < trial.before:
            return trial
        return trial._replace(gain=-math.inf)


@dataclass(frozen=True)
class Greedy(AdaptiveHIG):
    """Lambda falls where the step is better for the others than half of it is."""

    def _judged(self, trial, at, others, state):
        trial = super()._judged(trial, at, others, state)
        if not trial.good or others is None:
            return trial
        (half,) = losses(at, others, at.theta - trial.step / 2)
        return trial._replace(before=half)


@dataclass(frozen=True)
class Limited(AdaptiveHIG):
    """No step is longer than a part of theta."""

    part: float = 0.02

    def _trial(self, model, state):
        trial, at = super()._trial(model, state), model.at
        length, most = np.linalg.norm(trial.step), self.part * np.linalg.norm(at.theta)
        if length <= most:
            return trial
        step = most / length * trial.step
        Jd, h = model.J.matvec(step), at.unit_curvature
        return trial._replace(step=step, predicted=float((model.g - h / 2 * Jd) @ Jd))


@dataclass(frozen=True)
class Straight(AdaptiveHIG):
    """No correction for the way y bends."""

    def _bent(self, model, f, step, Jd):
        return 0.0


@dataclass(frozen=True)
class Once(AdaptiveHIG):
    """A batch that refuses a step is not asked for another."""

    tries = 1


@dataclass(frozen=True)
class Continued(AdaptiveHIG):
    """Goes on from the state of another run, with another batch."""

    state: dict | None = None

    def init(self, theta):
        return self.state | {"batch": 0, "sum": 0 * theta, "first_judged": -1}


class ScaledOutputs:
    """A solver whose outputs are multiplied by weights (|y|,)."""

    def __init__(self, solver, weights):
        self.solver, self.weights = solver, weights
        self.state_size, self.control_size = solver.state_size, solver.control_size
        self.output_size = solver.output_size

    def solve(self, x, u):
        return self.solver.solve(x, u) * self.weights

    def forward(self, x, u):
        y, tape = self.solver.forward(x, u)
        return y * self.weights, tape

    def backward(self, tape, y_bar):
        return self.solver.backward(tape, y_bar * self.weights)

    def rows(self, tape):
        return self.solver.rows(tape) * self.weights[:, None]


def scaled(problem, theta):
    """The problem with every output over its root mean square error at theta."""
    _, y = problem.predict(theta, problem.train)
    weights = 1 / np.sqrt(((y - problem.train.target) ** 2).mean(axis=0))

    def data(batch):
        return Batch(batch.x, batch.net_input, batch.target * weights)

    return replace(
        problem,
        solver=ScaledOutputs(problem.solver, weights),
        train=data(problem.train),
        test=data(problem.test),
    )


def scalable(problem):
    """Whether errors of single outputs add up to the loss, and the data are known at the start."""
    return isinstance(problem.loss, SquaredError) and isinstance(problem.train, Batch)


FAR = 1e6  # a reach that shortens nothing
NEVER = 10**9
OWN = AdaptiveHIG()
PLAIN = {"momentum": 0.0, "reach": FAR, "average": NEVER}  # nothing but the rule for lambda

# What is changed -> value -> variant. Variant() is AdaptiveHIG as it is.
AXES = {
    "mu": {
        "0": Variant(AdaptiveHIG(mu=0.0)), "1/4": Variant(AdaptiveHIG(mu=0.25)), "3/8": Variant(),
        "1/2": Variant(AdaptiveHIG(mu=0.5)), "3/4": Variant(AdaptiveHIG(mu=0.75)),
    },
    "momentum": {
        "0": Variant(AdaptiveHIG(momentum=0.0)),
        "0.9": Variant(AdaptiveHIG(momentum=0.9)), "0.98": Variant(),
        "0.99": Variant(AdaptiveHIG(momentum=0.99)),
    },
    "products": {
        "30": Variant(AdaptiveHIG(products=30)), "60": Variant(),
        "120": Variant(AdaptiveHIG(products=120)),
    },
    "ramp": {
        "0": Variant(Ramped(ramp=0)), "200": Variant(),
        "800": Variant(Ramped(ramp=800)),
    },
    "rule": {
        "0.7, 1.2": Variant(Rule(worse=1.2)), "0.7, 1.3": Variant(),
        "0.7, 1.43": Variant(Rule(worse=1 / 0.7)), "size": Variant(BySize()),
        "gain": Variant(ByGain()), "strict": Variant(Strict()), "greedy": Variant(Greedy()),
    },
    "refused": {
        "x 2": Variant(Rule(refused=2.0)), "x 4": Variant(), "x 16": Variant(Rule(refused=16.0)),
        "x 4, next batch": Variant(Once()),
    },
    "others": {
        "32": Variant(AdaptiveHIG(others=32)), "128": Variant(),
        "256": Variant(AdaptiveHIG(others=256)), "1024": Variant(AdaptiveHIG(others=1024)),
    },
    "reach": {
        "0.05": Variant(AdaptiveHIG(reach=0.05)), "0.2": Variant(),
        "any": Variant(AdaptiveHIG(reach=FAR)),
    },
    "first lambda": {
        "1e-4": Variant(AdaptiveHIG(damping=1e-4)), "0.01": Variant(),
        "1": Variant(AdaptiveHIG(damping=1.0)),
    },
    "average": {
        "never": Variant(AdaptiveHIG(average=NEVER)), "20": Variant(AdaptiveHIG(average=20)),
        "100": Variant(), "500": Variant(AdaptiveHIG(average=500)),
    },
    "batch": {
        "/ 4": Variant(batch=0.25), "/ 2": Variant(batch=0.5), "x 1": Variant(),
        "x 2": Variant(batch=2.0), "x 4": Variant(batch=4.0), "grows": Variant(growth=True),
    },
    "step": {
        "as it is": Variant(), "|d| < 0.02 |theta|": Variant(Limited()),
        "straight": Variant(Straight()), "outputs scaled": Variant(scaled=True),
        "Adam first": Variant(first="adam"),
    },
    "together": {
        "lambda's rule alone": Variant(AdaptiveHIG(**PLAIN)),
        "and momentum": Variant(replace(OWN, **PLAIN | {"momentum": OWN.momentum})),
        "and reach": Variant(replace(OWN, **PLAIN | {"reach": OWN.reach})),
        "both": Variant(replace(OWN, average=NEVER)),
        "all": Variant(),
        "mu 0, momentum 0": Variant(AdaptiveHIG(mu=0.0, momentum=0.0)),
        "mu 0, momentum 0.9": Variant(AdaptiveHIG(mu=0.0, momentum=0.9)),
    },
    "beside": {
        "adaptive": Variant(), "LM": Variant("lm"), "HIG": Variant("hig"),
        "Adam": Variant("adam"),
    },
}  # fmt: skip
