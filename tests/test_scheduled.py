"""Learning rates that change from step to step."""

import copy
import dataclasses
import functools
import math
import pickle
import re
import timeit

import numpy as np
import pytest
from test_checkpoint import CHAIN, bits

from bench.experiments import OPTIMIZERS
from higcore import (
    HIG,
    SGD,
    Adam,
    AdaptiveHIG,
    GaussNewton,
    LevenbergMarquardt,
    ScaleInvariantPhysics,
    Scheduled,
    fit,
    load_checkpoint,
    save_checkpoint,
)
from higcore.optimizers.memory import _options_of

WITH_RATE = [name for name in OPTIMIZERS if hasattr(CHAIN.settings[name].optimizer, "lr")]


@pytest.fixture
def problem():
    return CHAIN.problem(seed=5)


def decay(step, half=4.0):
    return 0.02 * 0.5 ** (step / half)


class Descent:
    """Somebody's own, not even a dataclass."""

    def __init__(self, lr):
        self.lr = lr

    def __repr__(self):
        return f"Descent({self.lr})"

    def batch_for(self, problem):
        return 8

    def init(self, theta):
        return {"updates": 0}

    def update(self, at, state):
        return self.lr * at.gradient(), {"updates": state["updates"] + 1}, "down"


def test_all_with_a_rate_are_tried():
    assert {"hig", "gn", "adam", "sgd", "sip"} <= {*WITH_RATE}
    assert {*OPTIMIZERS} - {*WITH_RATE} == {"lm", "adaptive"}


@pytest.mark.parametrize("name", WITH_RATE)
def test_every_step_has_the_rate_of_its_number(name, problem):
    optimizer = CHAIN.settings[name].optimizer
    result = fit(problem, Scheduled(optimizer, decay), batch=8, steps=7)
    theta = problem.network.init(np.random.default_rng([0, 1]), np.float64)
    state = optimizer.init(theta)
    for step in range(7):
        now = dataclasses.replace(optimizer, lr=decay(step))
        at = problem.linearise(theta, problem.batch(step, 8))
        change, state, _ = now.update(at, state)
        theta = theta - change
    assert np.array_equal(result.theta, theta)
    assert result.state.optimizer["scheduled_updates"] == 7
    assert {*result.state.optimizer} == {*state, "scheduled_updates"}


@pytest.mark.parametrize("name", WITH_RATE)
def test_a_constant_rate_is_the_optimizer(name, problem):
    optimizer = CHAIN.settings[name].optimizer
    plain = fit(problem, optimizer, batch=8, steps=7)
    scheduled = fit(problem, Scheduled(optimizer, lambda step: optimizer.lr), batch=8, steps=7)
    assert np.array_equal(scheduled.theta, plain.theta)
    assert scheduled.state.info == plain.state.info


@pytest.mark.parametrize("name", WITH_RATE)
def test_resumed_at_any_step_it_is_the_uninterrupted_run(name, problem, tmp_path):
    optimizer = Scheduled(CHAIN.settings[name].optimizer, decay)
    saved, path = [], tmp_path / "run.npz"

    def save(result):
        save_checkpoint(path, result)
        saved.append(load_checkpoint(path))

    options = {"batch": 8, "steps": 8}
    whole = fit(problem, optimizer, on_step=[save], **options)
    assert [run.state.optimizer["scheduled_updates"] for run in saved] == [*range(1, 9)]
    for part in saved:
        assert bits(fit(problem, optimizer, resume=part, **options)) == bits(whole)


def test_one_of_somebodys_own(problem):
    optimizer = Scheduled(Descent(5.0), decay)
    result = fit(problem, optimizer, steps=3)
    assert (result.batch, result.state.info) == (8, "down")
    assert optimizer.optimizer.lr == 5.0
    expected = fit(problem, Scheduled(SGD(), decay), batch=8, steps=3)
    assert np.array_equal(result.theta, expected.theta)


def test_a_rate_of_numpys_does_not_change_the_dtype():
    single = CHAIN.problem(seed=5, dtype=np.float32)
    for optimizer in (Descent(1.0), Adam()):
        scheduled = Scheduled(optimizer, lambda step: np.float64(0.01))
        assert fit(single, scheduled, batch=8, steps=2).theta.dtype == np.float32


def test_what_else_is_asked_of_the_optimizer():
    scheduled = Scheduled(HIG(tau=1e-3, method="qr", truncation="absolute"), decay)
    assert (
        _options_of(scheduled)
        == _options_of(scheduled.optimizer)
        == {"method": "qr", "tau": 0.0, "products": 300}
    )
    assert not hasattr(scheduled, "batch_for")
    assert scheduled.kappa == -0.5
    with pytest.raises(AttributeError, match="nothing"):
        _ = scheduled.nothing


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))]
)
def test_copies(copied, problem):
    scheduled = Scheduled(Adam(), decay)
    assert copied(scheduled) == scheduled
    assert hash(copied(scheduled)) == hash(scheduled)


@pytest.mark.parametrize("optimizer", [HIG(), GaussNewton(), Adam(), ScaleInvariantPhysics()])
def test_it_costs_next_to_nothing(optimizer):
    scheduled = Scheduled(optimizer, decay)
    best = min(timeit.repeat(lambda: scheduled.at(3), number=20, repeat=20)) / 20
    assert best < 1e-4


@pytest.mark.parametrize(
    ("optimizer", "lr", "error", "message"),
    [
        (
            LevenbergMarquardt(),
            decay,
            TypeError,
            "a number lr, to be scheduled; LevenbergMarquardt ha",
        ),
        (AdaptiveHIG(), decay, TypeError, "to be scheduled; AdaptiveHIG has none"),
        (Scheduled(SGD(), decay), decay, TypeError, "to be scheduled; Scheduled has none"),
        (SGD, decay, TypeError, "optimizer must have init and update, got <class"),
        ("sgd", decay, TypeError, "optimizer must have init and update, got 'sgd'"),
        (SGD(), 0.1, TypeError, "lr must be callable, got 0.1"),
        (
            SGD(),
            lambda step: step,
            ValueError,
            r"lr\(0\) must be a finite number in \(0, inf\], got 0",
        ),
        (SGD(), lambda step: None, TypeError, r"lr\(0\) must be a real number, got None"),
    ],
)
def test_what_cannot_be_scheduled(optimizer, lr, error, message):
    with pytest.raises(error, match=message):
        Scheduled(optimizer, lr)


def test_a_rate_that_turns_bad_ends_the_run_where_it_is(problem):
    optimizer = Scheduled(Adam(), lambda step: 0.003 - 0.001 * step)
    result = fit(problem, optimizer, batch=8, steps=9)
    assert (result.status, result.steps) == ("raised", 3)
    assert "the optimizer raised ValueError after 3 steps: lr(3) must be a finite" in result.message


def test_the_equation_of_a_schedule_in_float32_and_float64(problem):
    """The rate is a number of Python's, whatever the schedule returns."""
    assert type(Scheduled(SGD(), lambda step: np.float32(0.5)).at(0).lr) is float
    assert math.isclose(Scheduled(Descent(1.0), decay).at(8).lr, 0.005)


# Resuming


def closing_over(half):
    def inner(step):
        return decay(step, half)

    return inner


class Halving:
    """A schedule without a repr."""

    def __init__(self, half):
        self.half = half

    def __call__(self, step):
        return decay(step, self.half)

    def rate(self, step):
        return decay(step, self.half)


SCHEDULES = {
    "closure": closing_over,
    "partial": lambda half: functools.partial(decay, half=half),
    "partial of a closure": lambda half: functools.partial(closing_over(half)),
    "object": Halving,
    "method": lambda half: Halving(half).rate,
    "defaults": lambda half: lambda step, half=half: decay(step, half),
    "within": lambda half: (lambda inner: lambda step: inner(step))(closing_over(half)),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_same_schedule_is_resumed_and_another_one_is_not(name, problem, tmp_path):
    make, options = SCHEDULES[name], {"batch": 8, "steps": 9}
    path = tmp_path / "run.npz"
    save_checkpoint(path, fit(problem, Scheduled(Adam(), make(4.0)), batch=8, steps=4))
    part = load_checkpoint(path)
    whole = fit(problem, Scheduled(Adam(), make(4.0)), **options)
    resumed = fit(problem, Scheduled(Adam(), make(4)), resume=part, **options)
    assert np.array_equal(resumed.theta, whole.theta)
    with pytest.raises(
        ValueError, match=r"^resume was made for optimizer(_parts)? .*4\.0.*, this run has .*5\.0"
    ):
        fit(problem, Scheduled(Adam(), make(5.0)), resume=part, **options)
    with pytest.raises(
        ValueError, match=re.escape("for optimizer Scheduled(optimizer=Adam(lr=0.001, b")
    ):
        fit(problem, Scheduled(Adam(beta_1=0.5), make(4.0)), resume=part, **options)


def test_functions_of_another_name_are_others(problem):
    def other(step):
        return 0.01

    part = fit(problem, Scheduled(Adam(), decay), batch=8, steps=4)
    with pytest.raises(ValueError, match=r"this run has .*other"):
        fit(problem, Scheduled(Adam(), other), batch=8, steps=9, resume=part)
