"""When a run is evaluated, by what it is judged, and that its best state is never lost."""

import dataclasses
import errno
import math
import os
from fractions import Fraction

import numpy as np
import pytest
import strict_cupy
from hypothesis import given, settings
from hypothesis import strategies as st
from test_checkpoint import CHAIN, Drift, bits, describe
from test_device import Poisoned

from bench.experiments import Oscillators
from higcore import (
    HIG,
    SGD,
    Adam,
    AdaptiveHIG,
    Batch,
    Checkpoints,
    FreshData,
    Problem,
    fit,
    load_checkpoint,
    save_checkpoint,
)
from higcore.backend import to_host
from higcore.losses import SquaredError
from nets import MLP
from solvers import ScaledOutputs

X = np.linspace(0.1, 1.0, 12)[:, None]
EVERY = [1, 2, 0.4, 0.3, (7, "steps"), (0.8, "epochs")]


@pytest.fixture
def problem():
    return CHAIN.problem(seed=5)


def line(train=0.5, test=0.5):
    """y_k = w_k x + b_k, to be a constant on the training data, and another on the test data."""
    data = (Batch(X, X, np.full((12, 2), float(target))) for target in (train, test))
    return Problem(MLP((1, 2)), ScaledOutputs(1.0), SquaredError(), *data)


def towards(target):
    return Batch(X, X, np.full((12, 2), float(target)))


def rows(result):
    return [row.step for row in result.history]


def whole_intervals(length, steps):
    """The steps that make an interval whole, and both ends of the run."""
    return sorted(
        {0, steps} | {math.ceil(k * length) for k in range(math.floor(steps / length) + 1)}
    )


# When


@pytest.mark.parametrize(
    ("every", "expected"),
    [
        (1, [0, 5, 10, 12]),
        (2, [0, 10, 12]),
        (2.0, [0, 10, 12]),
        (np.float32(0.5), [0, 3, 5, 8, 10, 12]),
        (0.2, [*range(13)]),
        (0.01, [*range(13)]),
        (1e-9, [*range(13)]),
        (0.3, [0, 2, 3, 5, 6, 8, 9, 11, 12]),
        (1.4, [0, 7, 12]),
        ((7, "steps"), [0, 7, 12]),
        ([np.int64(4), "steps"], [0, 4, 8, 12]),
        ((0.4, "epochs"), [0, 2, 4, 6, 8, 10, 12]),
        ((1e9, "seconds"), [0, 12]),
        ((1e-9, "seconds"), [*range(13)]),
    ],
    ids=str,
)
def test_rows_of_a_history(every, expected, problem):
    result = fit(problem, Adam(), batch=8, steps=12, evaluate_every=every)
    assert rows(result) == expected
    assert [row.epoch for row in result.history] == [step / 5 for step in expected]


@given(st.fractions(Fraction(1, 30), 3, max_denominator=30), st.integers(1, 12), st.booleans())
@settings(max_examples=40)
def test_an_evaluation_is_made_where_an_interval_is_whole(number, batch, as_pair):
    """0.1 of 30 steps is 3 though 0.1 in binary is more: fractions come as floats."""
    every = (float(number), "epochs") if as_pair else float(number)
    result = fit(line(), SGD(1e-3), batch=batch, steps=13, evaluate_every=every)
    assert rows(result) == whole_intervals(number * math.ceil(12 / batch), 13)


def test_epochs_of_fresh_data_are_cut_too(problem):
    fresh = dataclasses.replace(
        problem, train=FreshData(lambda rng, size: problem.test[:size], count=24)
    )
    assert rows(fit(fresh, Adam(), batch=8, steps=7, evaluate_every=(2, "steps"))) == [
        0,
        2,
        4,
        6,
        7,
    ]


class Ticking:
    """Adam whose every update takes 3/8 of a second of a clock of its own."""

    def __init__(self, monkeypatch):
        self.now, self.adam = 0.0, Adam(0.01)
        monkeypatch.setattr("higcore.training.updates.time.perf_counter", lambda: self.now)

    def __repr__(self):
        return "Ticking"

    def init(self, theta):
        return self.adam.init(theta)

    def update(self, at, state):
        self.now += 0.375
        return self.adam.update(at, state)


@pytest.mark.parametrize("kind", ["on_step", "on_epoch"])
def test_seconds_between_evaluations(kind, problem, monkeypatch, tmp_path):
    """And a run that is resumed from anywhere is the uninterrupted one, seconds included."""
    options = {"batch": 8, "steps": 18, "evaluate_every": (1, "seconds")}
    path, saved = tmp_path / "run.npz", []

    def save(result):
        save_checkpoint(path, result)
        saved.append(load_checkpoint(path))

    whole = fit(problem, Ticking(monkeypatch), **options, **{kind: [save]})
    assert rows(whole) == [0, 3, 6, 8, 11, 14, 16, 18]
    assert [row.seconds for row in whole.history] == [0.375 * step for step in rows(whole)]
    for part in saved:
        resumed = fit(problem, Ticking(monkeypatch), resume=part, **options)
        assert resumed.history == whole.history
        assert resumed.best == whole.best


@pytest.mark.parametrize("every", EVERY, ids=str)
@pytest.mark.parametrize("cut", range(1, 12))
def test_a_run_that_was_cut_goes_on_with_the_same_bits(every, cut, problem):
    """At every step within an epoch; the row that the cut made is left out."""
    options = {"batch": 8, "evaluate_every": every, "validation": problem.test[:5]}
    whole = fit(problem, Adam(0.01), steps=12, **options)
    part = fit(problem, Adam(0.01), steps=cut, **options)
    resumed = fit(problem, Adam(0.01), steps=12, resume=part, **options)
    if cut in rows(whole) or part.best.step != cut:
        assert bits(resumed) == bits(whole)
        assert resumed.best == whole.best
    else:  # a row more
        assert np.array_equal(resumed.theta, whole.theta)
        assert resumed.best.loss <= min(part.best.loss, whole.best.loss)


@pytest.mark.parametrize(
    ("every", "error", "message"),
    [
        (0, ValueError, r"^evaluate_every must be a finite number in \(0, inf\], got 0$"),
        (-0.5, ValueError, "^evaluate_every must be a finite number"),
        (math.nan, ValueError, "^evaluate_every must be a finite number"),
        (True, TypeError, "^evaluate_every must be a real number, got True"),
        ("daily", TypeError, "^evaluate_every must be a real number, got 'daily'"),
        ((2,), TypeError, r"^evaluate_every must be a real number, got \(2,\)"),
        ((0.5, "steps"), TypeError, "^evaluate_every must be an integer, got 0.5"),
        ((0, "steps"), ValueError, "^evaluate_every must be at least 1, got 0"),
        ((0, "seconds"), ValueError, "^evaluate_every must be a finite number"),
        (
            (1, "hours"),
            ValueError,
            "^the unit in evaluate_every must be one of 'steps', 'epochs', 's",
        ),
        (("steps", 5), ValueError, "^the unit in evaluate_every must be one of .*; got 5"),
    ],
)
def test_intervals_that_are_none(every, error, message, problem):
    with pytest.raises(error, match=message):
        fit(problem, Adam(), batch=8, steps=1, evaluate_every=every)


# By what


def test_patience_and_the_best_state_go_by_the_validation_loss():
    """The line rises: away from the validation data from the start, and nearer to the test data."""
    options = {"batch": 4, "steps": 60, "theta": np.zeros(4)}
    by_test = fit(line(test=90), Drift(-0.1), patience=2, **options)
    assert (by_test.status, by_test.best.step) == ("budget", 60)
    assert {row.validation_loss for row in by_test.history} == {None}
    result = fit(line(test=90), Drift(-0.1), patience=2, validation=towards(-1), **options)
    assert (result.status, result.best.step) == ("stagnated", 0)
    assert "because the validation loss did not improve in 2 evaluations" in result.message
    assert rows(result) == [0, 3, 6]
    judged = [row.validation_loss for row in result.history]
    assert judged == sorted(judged)
    assert judged[-1] == line().evaluate(result.theta, towards(-1))
    tested = [row.test_loss for row in result.history]
    assert tested == [row.test_loss for row in by_test.history[:3]]


def test_a_validation_loss_that_explodes_ends_the_run():
    near = dataclasses.replace(line(), test=towards(1e9))
    result = fit(near, Drift(-50.0), batch=4, steps=60, theta=np.zeros(4), validation=towards(1e-3))
    assert result.status == "diverged"
    assert result.message.startswith("Stopped because the validation loss is ")
    assert result.best.step == 0


def test_validation_data_are_looked_at():
    for wrong, error, message in (
        (3, TypeError, "validation must be a Batch, got int"),
        (FreshData(None), TypeError, "validation must be a Batch, got FreshData"),
        (Batch(X, X, X[:3]), ValueError, r"validation.target must have shape \(12, 2\), got"),
        (towards(math.nan), ValueError, "validation.target holds 24 non-finite"),
        (towards(1)[:0], ValueError, "validation.x is empty"),
        (
            Batch(*(array.astype(np.float32) for array in towards(1))),
            TypeError,
            "arrays must share one dtype, but train.x is float64, validation.x is float32",
        ),
    ):
        with pytest.raises(error, match=message):
            fit(line(), Adam(), batch=4, steps=1, validation=wrong)


def test_other_validation_data_are_not_resumed():
    options = {"batch": 4, "steps": 9}
    run = fit(line(), Adam(), validation=towards(1), **options)
    for validation in (None, towards(2)):
        with pytest.raises(ValueError, match=r"^resume was made for validation_data sha256"):
            fit(line(), Adam(), validation=validation, resume=run, **options)
    run = fit(line(), Adam(), **options)
    older = {k: v for k, v in run.identity.items() if k not in ("validation_data", "shuffle")}
    with pytest.raises(
        ValueError, match=r"^resume was made for validation_data None, this run has s"
    ):
        fit(
            line(), Adam(), validation=towards(2), **options,
            resume=dataclasses.replace(run, identity=older),
        )  # fmt: skip


def test_the_validation_loss_is_printed_where_there_is_one():
    options = {"batch": 4, "steps": 3}
    assert "validation" not in str(fit(line(), Adam(), **options).history)
    shown = fit(line(), Adam(), validation=towards(1), **options).history
    assert str(shown).splitlines()[0].endswith("test loss validation loss")
    assert "validation_loss" in shown.to_dict()


# The best state


def judged_best(problem, result):
    """That the best state is one of the lowest row, and that its parameters have that loss."""
    lowest = min(result.history, key=lambda row: row.judged_loss)
    assert (result.best.step, result.best.loss) == (lowest.step, lowest.judged_loss)
    assert result.best.epoch == lowest.epoch
    assert problem.evaluate(result.best.theta) == result.best.loss
    return True


class Sudden:
    """SGD of which the steps from ``first`` on are something else."""

    def __init__(self, first, does):
        self.first, self.does = first, does

    def init(self, theta):
        return {"updates": 0}

    def update(self, at, state):
        updates, step = state["updates"] + 1, 3e-3 * at.gradient()
        if updates >= self.first:
            step = self.does(step)
        return step, {"updates": updates}, None


def raise_it(error):
    raise error


ENDS = {
    "budget": {"optimizer": Sudden(13, lambda step: -step)},
    "diverged": {"problem": line(), "optimizer": Sudden(13, lambda step: step + 1e4)},
    "non-finite": {"optimizer": Sudden(13, lambda step: step * math.nan)},
    "raised": {"optimizer": Sudden(13, lambda step: raise_it(KeyError("k")))},
    "interrupted": {"optimizer": Sudden(13, lambda step: raise_it(KeyboardInterrupt()))},
    "stagnated": {"optimizer": Sudden(13, lambda step: -step), "patience": 2},
    "stopped": {"optimizer": Adam(0.05), "on_step": [lambda result: result.steps == 13]},
}


@pytest.mark.parametrize("status", ENDS)
def test_the_best_state_of_a_run_that_ended_otherwise(status, problem, tmp_path):
    path = tmp_path / "best.npz"
    options = {"problem": problem, "batch": 8, "steps": 30} | ENDS[status]
    result = fit(on_epoch=[Checkpoints(path, keep="best")], **options)
    assert result.status == status
    problem = options["problem"]
    assert judged_best(problem, result)
    u, y = problem.predict(result.best.theta, problem.test)
    assert len(u) == len(y) == len(problem.test.x)
    kept = load_checkpoint(path)
    assert kept.best == result.best
    assert np.array_equal(kept.theta, result.best.theta)
    assert kept.steps == result.best.step


@pytest.mark.parametrize("optimizer", [Adam(0.05), HIG(), AdaptiveHIG()])
def test_the_best_state_of_a_run_that_goes_up_and_down(optimizer, problem):
    result = fit(problem, optimizer, batch=8, steps=43, evaluate_every=(1, "steps"))
    assert judged_best(problem, result)


def test_the_best_state_is_a_copy(problem):
    theta = problem.network.init(np.random.default_rng(0))
    start = theta.copy()
    result = fit(problem, Drift(1.0), batch=8, steps=9, theta=theta)
    theta[:] = 7
    assert result.best.step == 0
    assert np.array_equal(result.best.theta, start)


def test_an_equal_loss_is_no_better():
    result = fit(line(), Drift(0.0), batch=4, steps=9)
    assert result.best.step == 0


def test_a_run_without_an_evaluation_has_none(problem):
    spoiled = dataclasses.replace(problem, loss=SquaredError())
    seen = []
    fit(spoiled, Adam(), batch=8, steps=1, on_epoch=[lambda run: seen.append(run.best)])
    assert seen[0].step == 0
    object.__setattr__(spoiled, "test", Batch(*(np.nan * a for a in problem.test)))
    result = fit(spoiled, Adam(), batch=8, steps=1)
    assert (result.status, result.best) == ("non-finite", None)


@pytest.mark.parametrize("kind", ["on_step", "on_epoch"])
def test_the_best_state_in_checkpoints(kind, problem, tmp_path):
    """Wherever the run was saved it is there, and the resumed run ends with the same."""
    options = {"batch": 8, "steps": 22, "evaluate_every": 0.4}
    saved, path = [], tmp_path / "run.npz"

    def save(result):
        save_checkpoint(path, result)
        saved.append(load_checkpoint(path))
        assert saved[-1] == result
        assert describe(saved[-1].best) == describe(result.best)

    optimizer = Sudden(13, lambda step: -step)
    whole = fit(problem, optimizer, **options, **{kind: [save]})
    assert 0 < whole.best.step < 18
    for part in saved:
        assert fit(problem, optimizer, resume=part, **options).best == whole.best


def test_it_is_moved_with_its_run_and_said_in_figures(problem, monkeypatch):
    result = fit(problem, Adam(), batch=8, steps=5)
    assert result.to_dict()["best"] == {"loss": result.best.loss, "epoch": 1.0, "step": 5}
    with strict_cupy.installed(monkeypatch):
        there = result.on("gpu")
        assert type(there.best.theta) is strict_cupy.ndarray
        assert there.on("cpu") == result
    with pytest.raises(TypeError, match="unhashable"):
        hash(result.best)


def test_the_best_state_on_a_device(monkeypatch):
    """Also if the device went back to its last finite state; and nobody waits for the copy."""
    experiment = Oscillators(Poisoned(steps=8), (6,), samples=48, test_samples=8)
    options = {"batch": 4, "steps": 300, "evaluate_every": (10, "steps")}
    host = fit(experiment.problem(), Adam(lr=0.05), **options)
    with strict_cupy.installed(monkeypatch):
        problem = experiment.problem().on("gpu")
        there = fit(problem, Adam(lr=0.05), validation=problem.test, **options)
        assert there.status == host.status == "non-finite"
        assert type(there.best.theta) is strict_cupy.ndarray
        assert there.best.step == host.best.step
        assert np.allclose(to_host(there.best.theta), host.best.theta, rtol=1e-9)
        assert math.isfinite(problem.evaluate(there.best.theta))


# The file of the best state


def rising(problem, **options):
    return fit(problem, Sudden(13, lambda step: -step), batch=8, **options)


def test_a_file_of_the_best_state_is_left_alone_by_worse_ones(problem, tmp_path):
    path, seen = tmp_path / "best.npz", []
    save = Checkpoints(path, keep="best")
    result = rising(
        problem, steps=30, on_epoch=[save, lambda run: seen.append(load_checkpoint(path).steps)]
    )
    assert seen == [0, 5, 10, 10, 10, 10, 10]
    again = rising(problem, steps=40, resume=result, on_epoch=[Checkpoints(path, keep="best")])
    assert again.best == result.best
    assert load_checkpoint(path).steps == result.best.step


def test_a_run_goes_on_from_the_file_of_its_best_state(problem, tmp_path):
    path = tmp_path / "best.npz"
    whole = rising(problem, steps=30, on_epoch=[Checkpoints(path, keep="best")])
    resumed = rising(problem, steps=30, resume=load_checkpoint(path))
    assert bits(resumed) == bits(whole)
    assert resumed.best == whole.best


def test_a_best_state_at_the_end_is_saved_too(problem, tmp_path):
    """In the row that a run within an epoch ends with, of which callbacks hear at the end only."""
    save = Checkpoints(tmp_path / "best.npz", keep="best")
    result = fit(problem, Sudden(99, None), batch=8, steps=7, on_step=[save])
    assert result.best.step == 7
    assert load_checkpoint(save.path).best == result.best


def test_both_kinds_of_files(problem, tmp_path):
    best, last = (Checkpoints(tmp_path / f"{keep}.npz", 0, keep) for keep in ("best", "last"))
    result = rising(problem, steps=30, on_epoch=[best, last])
    assert load_checkpoint(last.path) == result
    assert load_checkpoint(best.path).best == load_checkpoint(last.path).best == result.best
    assert load_checkpoint(best.path).steps < load_checkpoint(last.path).steps == 30


def test_a_best_state_that_could_not_be_written_is_tried_again(problem, tmp_path, monkeypatch):
    result = fit(problem, Adam(), batch=8, steps=5)
    save, replace = Checkpoints(tmp_path / "best.npz", keep="best"), os.replace
    monkeypatch.setattr(os, "replace", lambda *_: raise_it(OSError(errno.ENOSPC, "full")))
    save(result)
    assert not save.path.exists()
    monkeypatch.setattr(os, "replace", replace)
    save(result)
    assert load_checkpoint(save.path) == result
    save.path.unlink()
    save(result)
    assert not save.path.exists()
