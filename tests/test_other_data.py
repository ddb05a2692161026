"""A run that goes on with other data on purpose, and nothing else that differs."""

import dataclasses

import numpy as np
import pytest
from test_checkpoint import CHAIN, bits, other_values

from higcore import HIG, Adam, AdaptiveHIG, FreshData, fit, load_checkpoint, save_checkpoint

HINT = "; other_data=True goes on with other data$"


@pytest.fixture
def problem():
    return CHAIN.problem(seed=5)


def with_other(problem, part):
    return dataclasses.replace(problem, **{part: other_values(getattr(problem, part))})


@pytest.mark.parametrize("optimizer", [Adam(0.01), HIG(), AdaptiveHIG(average=4)])
@pytest.mark.parametrize("cut", [5, 7])
def test_state_and_clock_go_on(optimizer, cut, problem, tmp_path):
    """As if the data had been changed in the middle of a run."""
    wider = dataclasses.replace(problem, train=CHAIN.problem(seed=6).train)
    path = tmp_path / "run.npz"
    save_checkpoint(path, fit(problem, optimizer, batch=8, steps=cut))
    part = load_checkpoint(path)
    options = {"batch": 8, "steps": 12, "resume": part}
    with pytest.raises(ValueError, match="^resume was made for train_data sha256 .*" + HINT):
        fit(wider, optimizer, **options)
    result = fit(wider, optimizer, other_data=True, **options)
    assert result.steps == 12
    assert result.seconds > part.seconds
    theta, state = part.theta, part.state.optimizer
    for step in range(cut, 12):
        at = wider.linearise(theta, wider.batch(step, 8))
        change, state, _ = optimizer.update(at, state)
        theta = theta - change
    assert np.array_equal(result.theta, theta)
    assert result.identity["train_data"] != part.identity["train_data"]
    again = fit(wider, optimizer, batch=8, steps=14, resume=result)  # of the new data now
    assert again.steps == 14


def test_history_and_best_go_on_where_the_same_data_judge(problem):
    part = fit(problem, Adam(0.01), batch=8, steps=10)
    result = fit(
        with_other(problem, "train"), Adam(0.01), batch=8, steps=20, resume=part, other_data=True
    )
    assert [row.step for row in result.history] == [0, 5, 10, 15, 20]
    assert result.history[:3] == part.history
    assert result.best.loss <= part.best.loss
    held = dataclasses.replace(part, best=part.best._replace(loss=0.0))
    kept = fit(
        with_other(problem, "train"), Adam(0.01), batch=8, steps=20, resume=held, other_data=True
    )
    assert kept.best == held.best


@pytest.mark.parametrize("judges", ["test", "validation"])
def test_history_and_best_begin_anew_where_others_judge(judges, problem):
    """Also what was summed up of training losses, in a run that ended within an epoch."""
    validation = problem.test[:9] if judges == "validation" else None
    options = {"batch": 8, "patience": 3}
    part = fit(problem, Adam(0.01), steps=7, validation=validation, **options)
    held = dataclasses.replace(part, best=part.best._replace(loss=0.0))
    later = with_other(problem, "test") if judges == "test" else problem
    validation = validation and other_values(validation)
    result = fit(
        later, Adam(0.01), steps=12, resume=held, other_data=True, validation=validation, **options
    )
    assert [row.step for row in result.history] == [7, 10, 12]
    assert result.history[0].train_loss is None
    assert result.best.loss == min(row.judged_loss for row in result.history)
    assert np.array_equal(result.theta, fit(problem, Adam(0.01), batch=8, steps=12).theta)


def test_of_the_same_data_it_is_the_uninterrupted_run(problem):
    whole = fit(problem, Adam(), batch=8, steps=12)
    part = fit(problem, Adam(), batch=8, steps=10)
    resumed = fit(problem, Adam(), batch=8, steps=12, resume=part, other_data=True)
    assert bits(resumed) == bits(whole)


def test_data_of_another_number(problem):
    fewer = dataclasses.replace(problem, train=problem.train[:24])
    part = fit(problem, Adam(), batch=8, steps=10)
    options = {"batch": 8, "epochs": 5, "resume": part}
    with pytest.raises(ValueError, match="^resume was made for samples 40, this run has 24" + HINT):
        fit(fewer, Adam(), **options)
    result = fit(fewer, Adam(), other_data=True, **options)
    assert (result.steps, result.epochs) == (15, 5.0)


def test_fresh_data_and_a_batch(problem):
    fresh = FreshData(lambda rng, size: problem.test[:size], seed=3, count=40)
    part = fit(problem, Adam(), batch=8, steps=4)
    result = fit(
        dataclasses.replace(problem, train=fresh), Adam(), batch=8, steps=9, resume=part,
        other_data=True,
    )  # fmt: skip
    back = fit(problem, Adam(), batch=8, steps=12, resume=result, other_data=True)
    assert (result.steps, back.steps) == (9, 12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": 4}, "batch 8, this run has 4"),
        ({"seed": 1}, "seed 0, this run has 1"),
        ({"shuffle": True}, "shuffle False, this run has True"),
        ({"optimizer": HIG()}, "optimizer Adam.* has HIG.*"),
        ({"problem": CHAIN.problem(5, np.float32)}, "dtype float64, this run has float32"),
    ],
)
def test_all_else_is_refused_as_ever(options, message, problem):
    part = fit(problem, Adam(), batch=8, steps=4)
    same = {"problem": with_other(problem, "train"), "optimizer": Adam(), "batch": 8, "steps": 9}
    for other_data in (True, False):
        with pytest.raises(ValueError, match=f"^resume was made for {message}$"):
            fit(**same | options, resume=part, other_data=other_data)


def test_it_says_how_to_resume(problem):
    with pytest.raises(ValueError, match="other_data=True says how to resume; it needs resume="):
        fit(problem, Adam(), batch=8, steps=9, other_data=True)
    with pytest.raises(TypeError, match="other_data must be True or False, got 'yes'"):
        fit(problem, Adam(), batch=8, steps=9, other_data="yes")


def test_a_run_that_does_not_say_which_it_is_is_refused_all_the_same(problem):
    part = dataclasses.replace(fit(problem, Adam(), batch=8, steps=4), identity={})
    with pytest.raises(ValueError, match="resume does not say which run it is from"):
        fit(problem, Adam(), batch=8, steps=9, resume=part, other_data=True)
