"""What a run says: statuses with their sentences, callbacks, diagnostics, printing, logging."""

import dataclasses
import json
import logging
import math
import re
import sys
import time
import types

import numpy as np
import pytest
from parallel_runs import Fixed

from bench.experiments import Oscillators
from higcore import (
    HIG,
    SGD,
    Adam,
    History,
    Problem,
    TrainingError,
    fit,
    half_inverse,
    load_checkpoint,
    save_checkpoint,
)
from higcore.spectral import tridiagonal
from higcore.training.result import MESSAGES, UNSUCCESSFUL, Epoch, is_lost
from higcore.training.table import spread
from solvers import OscillatorChain

SMALL = Oscillators(OscillatorChain(steps=12), (6,), samples=40, test_samples=16)


@pytest.fixture
def problem():
    return SMALL.problem(seed=5)


def broken(*args, **kwargs):
    raise np.linalg.LinAlgError("no convergence")


def interrupting(result):
    if result.steps == 3:
        raise KeyboardInterrupt


CASES = {
    "budget": ({"steps": 3}, r"the budget of 3 steps was spent\."),
    "stopped": ({"steps": 9, "on_step": [lambda r: r.steps == 3]}, "a callback asked for it"),
    "interrupted": ({"steps": 9, "on_step": [interrupting]}, "last complete state"),
    "stagnated": (
        {"steps": 90, "patience": 2, "optimizer": Fixed(0.0)},
        r"did not improve in 2 evaluations\. It may have converged",
    ),
    "diverged": (
        {"steps": 90, "batch": 40, "optimizer": Fixed(3.0)},
        r"the test loss is .*; it began with .*\. Try a smaller lr or a larger tau",
    ),
    "non-finite": (
        {"steps": 9, "optimizer": Fixed(math.nan)},
        "the step holds .* try a smaller lr",
    ),
    "failed": (
        {"steps": 9, "optimizer": HIG(method="svd")},
        r"failed for good \(no convergence\)\. .* try another method or a larger tau",
    ),
    "raised": (
        {"steps": 9, "on_step": [broken], "optimizer": Adam()},
        r"a callback raised LinAlgError after 1 steps: no convergence\. .* error is the traceback",
    ),
}
assert set(CASES) | {"running"} == set(MESSAGES)


@pytest.mark.parametrize("status", CASES)
def test_every_status_has_a_sentence_and_is_thrown_on_request(status, problem, monkeypatch):
    options, sentence = CASES[status]
    optimizer = options.get("optimizer", Adam())
    options = {"batch": 8} | {k: v for k, v in options.items() if k != "optimizer"}
    if status == "failed":
        monkeypatch.setattr("higcore.spectral.svd.scipy.linalg.svd", broken)
    result = fit(problem, optimizer, **options)
    assert result.status == status
    assert re.search(sentence, result.message), result.message
    assert result.message.endswith(".")
    assert np.isfinite(result.theta).all()
    assert status in repr(result)
    expected = {"interrupted": KeyboardInterrupt} | dict.fromkeys(UNSUCCESSFUL, TrainingError)
    if status not in expected:
        assert fit(problem, optimizer, throw=True, **options).status == status
        return
    with pytest.raises(expected[status], match=sentence) as raised:
        fit(problem, optimizer, throw=True, **options)
    assert np.array_equal(raised.value.result.theta, result.theta)


def test_a_lost_run():
    assert is_lost(math.nan, 1.0)
    assert is_lost(math.inf, 1.0)
    assert is_lost(2e6, 1.0)
    assert not is_lost(5e5, 1.0)
    assert not is_lost(1.0, 0.0)  # such a loss has no scale
    assert not is_lost(60.0, -0.001)


class Sick:
    """A chain whose ``solve`` does something else at one of its calls."""

    def __init__(self, chain, call, does):
        self.chain, self.left, self.does = chain, call, does

    def __getattr__(self, name):
        return getattr(self.chain, name)

    def solve(self, x, u):
        self.left -= 1
        return self.does() if self.left == 0 else self.chain.solve(x, u)


def press(times):
    """Ctrl-C, over and over in that many calls."""
    calls = iter(range(times))

    def callback(*_):
        if next(calls, None) is not None:
            raise KeyboardInterrupt

    return callback


def same_run(one, other):
    """Equal in every bit but for the times."""
    rows = [[row._replace(seconds=0.0) for row in run.history] for run in (one, other)]
    return np.array_equal(one.theta, other.theta) and rows[0] == rows[1]


@pytest.mark.parametrize("steps", [1, 5, 7])
def test_ctrl_c_in_the_last_evaluation_loses_nothing(steps, problem):
    """After 1 and 7 steps it stands within an epoch of 5."""
    press_late = press(1)
    late = [lambda run: press_late() if run.steps == steps else None]
    result = fit(problem, HIG(), batch=8, steps=steps, on_epoch=late)
    assert (result.status, result.steps) == ("interrupted", steps)
    whole = fit(problem, HIG(), batch=8, steps=12)
    assert same_run(fit(problem, HIG(), batch=8, steps=12, resume=result), whole)


def test_ctrl_c_twice_before_the_first_evaluation(problem, monkeypatch):
    start = problem.network.init(np.random.default_rng([0, 1]))
    monkeypatch.setattr(Problem, "evaluate", press(2))
    result = fit(problem, HIG(), batch=8, steps=12)
    monkeypatch.undo()
    assert (result.status, result.steps, result.epochs) == ("interrupted", 0, 0.0)
    assert np.array_equal(result.theta, start)
    assert "0 steps, 0 epochs, 0.0 s; test loss nan" in re.sub(r"[\d.]+ s;", "0.0 s;", str(result))
    again = fit(problem, HIG(), batch=8, steps=12, resume=result)
    assert same_run(again, fit(problem, HIG(), batch=8, steps=12))


@pytest.mark.parametrize("cut", [1, 4, 5, 6, 11])
def test_a_resumed_run_has_the_history_of_an_uninterrupted_one(cut, problem):
    options = {"batch": 8, "patience": 2, "evaluate_every": 2}
    whole = fit(problem, Fixed(1e-3), steps=90, **options)
    part = fit(problem, Fixed(1e-3), steps=cut, **options)
    rest = fit(problem, Fixed(1e-3), steps=90, resume=part, **options)
    assert same_run(rest, whole)
    assert (rest.status, rest.train_loss) == (whole.status, whole.train_loss)


def test_no_number_before_the_first_step(problem):
    sick = dataclasses.replace(
        problem, solver=Sick(problem.solver, 2, lambda: np.nan * np.ones((16, 4)))
    )
    result = fit(sick, Adam(), batch=8, steps=3)
    assert (result.status, result.steps) == ("non-finite", 0)
    assert "the test loss is nan before any step" in result.message
    assert "in the solver, with check_solver" in result.message


@pytest.mark.parametrize("status", UNSUCCESSFUL)
def test_what_went_wrong_is_logged(status, problem, monkeypatch, caplog):
    options = {"batch": 8} | CASES[status][0]
    if status == "failed":
        monkeypatch.setattr("higcore.spectral.svd.scipy.linalg.svd", broken)
    result = fit(problem, **options)
    assert [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING] == [
        result.message
    ]


def test_patience_counts_from_the_best(problem):
    result = fit(problem, SGD(lr=1e-3), batch=8, epochs=6, patience=2)
    assert result.status == "budget"  # it improves a little all the time
    assert fit(problem, Fixed(0.0), batch=8, epochs=9, patience=3).epochs == 3


def test_fallbacks_are_counted_said_and_logged_once(problem, monkeypatch, caplog):
    monkeypatch.setattr(tridiagonal, "_diagonalise", lambda *args: tridiagonal.UNSETTLED)
    with caplog.at_level(logging.WARNING, "higcore"):
        result = fit(problem, HIG(), batch=8, steps=7)
    assert result.status == "budget"
    assert result.fallbacks == 7
    assert "In 7 of the steps a decomposition failed and a safer one took its" in result.message
    assert "tridiagonal failed (implicit QL did not converge), used gram" in result.message
    assert len(caplog.records) == 1
    assert caplog.records[0].message.startswith("step 1: tridiagonal failed")


def test_callbacks_after_every_step(problem):
    steps, losses = [], []

    def watch(result):
        steps.append(result.steps)
        losses.append(result.train_loss)
        assert result.status == "running"
        assert isinstance(result.state.epoch_loss, float)

    result = fit(problem, HIG(), batch=8, steps=7, on_step=[watch])
    assert steps == [1, 2, 3, 4, 5, 6, 7]
    assert result.history[1].train_loss == pytest.approx(losses[4])


@pytest.mark.parametrize("kind", ["on_step", "on_epoch"])
@pytest.mark.parametrize("how", ["true", "numpy true", "stop iteration"])
def test_ways_to_stop(kind, how, problem):
    called = []

    def callback(result):
        called.append(result.steps)
        if result.steps >= 5:
            if how == "stop iteration":
                raise StopIteration
            return True if how == "true" else np.True_
        return "nothing that stops"

    result = fit(problem, Adam(), batch=8, steps=50, **{kind: [callback, lambda r: None]})
    assert result.status == "stopped"
    assert result.steps == called[-1] == 5


def test_callbacks_of_steps_are_off_the_clock_and_change_nothing(problem):
    def slow(result):
        time.sleep(0.02)

    plain = fit(problem, HIG(), batch=8, steps=10)
    watched = fit(problem, HIG(), batch=8, steps=10, on_step=[slow], diagnostics=True)
    assert watched.seconds < 0.2
    assert np.array_equal(plain.theta, watched.theta)


def test_diagnostics(problem):
    """Against figures found another way: the SVD of J, and differences of the loss."""
    result = fit(problem, HIG(lr=0.3), batch=8, steps=6, diagnostics=True)
    assert [row.step for row in result.diagnostics] == [1, 2, 3, 4, 5, 6]
    theta = problem.network.init(np.random.default_rng([0, 1]))
    at = problem.linearise(theta, problem.batch(0, 8))
    row = result.diagnostics[0]
    step, info = half_inverse(at.jacobian(), at.loss_gradient, method="svd")
    sigma = np.linalg.svd(at.jacobian().dense(), compute_uv=False)
    kept = sigma[sigma > 1e-6 * sigma[0]]
    assert row.rank == len(kept) == info.rank
    assert row.condition == pytest.approx(kept[0] / kept[-1], rel=1e-4)
    assert row.gap_to_cutoff == pytest.approx(info.gap_to_cutoff, rel=1e-3)
    assert row.step_norm == pytest.approx(0.3 * np.linalg.norm(step), rel=1e-4)
    assert row.loss == at.loss
    Jd = (at.jacobian().dense() @ (0.3 * step)).reshape(8, -1)
    predicted = (at.loss_gradient * Jd).sum() - (Jd**2).sum() / 8
    assert row.predicted_decrease == pytest.approx(predicted, rel=1e-4)
    after = problem.linearise(theta - 0.3 * step, problem.batch(0, 8)).loss
    assert row.actual_decrease == pytest.approx(at.loss - after, rel=1e-4)


@pytest.mark.parametrize("batch_mean", [True, False])
@pytest.mark.parametrize("optimizer", [Adam(lr=1e-5), HIG(lr=1e-5)])
def test_short_steps_go_as_predicted(optimizer, batch_mean, problem):
    problem = dataclasses.replace(problem, batch_mean=batch_mean)
    result = fit(problem, optimizer, batch=8, steps=3, diagnostics=True)
    for row in result.diagnostics:
        assert row.actual_decrease == pytest.approx(row.predicted_decrease, rel=0.5, abs=1e-12)
        assert row.step_norm > 0
    if not isinstance(optimizer, HIG):
        assert result.diagnostics[0].rank is None


def test_diagnostics_survive_a_checkpoint(problem, tmp_path):
    part = fit(problem, HIG(), batch=8, steps=3, diagnostics=True)
    save_checkpoint(tmp_path / "run.npz", part)
    loaded = load_checkpoint(tmp_path / "run.npz")
    assert loaded.diagnostics == part.diagnostics
    assert isinstance(loaded.history, History)
    resumed = fit(problem, HIG(), batch=8, steps=6, diagnostics=True, resume=loaded)
    whole = fit(problem, HIG(), batch=8, steps=6, diagnostics=True)
    assert resumed.diagnostics == whole.diagnostics
    assert fit(problem, HIG(), batch=8, steps=6, resume=loaded).diagnostics == part.diagnostics


def test_diagnostics_print_as_a_table(problem):
    rows = fit(problem, HIG(), batch=8, steps=30, diagnostics=True).diagnostics
    lines = str(rows).splitlines()
    assert re.sub(" +", " ", lines[0].strip()).startswith("step loss step norm predicted decrease")
    assert len(lines) <= 15
    assert len({len(line) for line in lines}) == 1
    first = rows[0]
    assert first.ratio == first.actual_decrease / first.predicted_decrease
    assert lines[1].split()[5] == f"{first.ratio:.3g}"
    assert math.isnan(first._replace(predicted_decrease=0.0).ratio)
    adam = fit(problem, Adam(), batch=8, steps=2, diagnostics=True).diagnostics
    assert len(str(adam).splitlines()[1].split()) == 6  # an optimizer without rank, ...


def test_diagnostics_need_tangents(problem):
    names = ("state_size", "control_size", "output_size", "solve", "forward", "backward", "rows")
    bare = types.SimpleNamespace(**{name: getattr(problem.solver, name) for name in names})
    untold = dataclasses.replace(problem, solver=bare)
    assert fit(untold, HIG(), batch=8, steps=2).steps == 2
    with pytest.raises(TypeError, match=r"problem\.solver, a SimpleNamespace, has no tangent"):
        fit(untold, HIG(), batch=8, steps=2, diagnostics=True)


def test_history_prints_as_a_table(problem):
    history = fit(problem, Adam(), batch=8, epochs=30).history
    lines = str(history).splitlines()
    assert lines[0].split() == ["epoch", "step", "seconds", "train", "loss", "test", "loss"]
    assert len(lines) <= 15
    assert lines[1].split()[:2] == ["0", "0"]
    assert lines[-1].split()[0] == "30"
    assert len({len(line) for line in lines}) == 1


def test_spread_keeps_both_ends():
    assert spread([1, 2, 3], 5) == [1, 2, 3]
    for n in (6, 100, 12345):
        kept = spread(range(n), 5)
        assert kept[0] == 0
        assert kept[-1] == n - 1
        assert len(kept) <= 7


def test_plain_dicts(problem):
    result = fit(problem, HIG(), batch=8, epochs=2, diagnostics=True)
    record = json.loads(json.dumps(result.to_dict()))
    assert record["status"] == "budget"
    assert record["history"]["step"] == [0, 5, 10]
    assert record["history"]["test_loss"][-1] == record["test_loss"] == result.test_loss
    assert record["info"]["rank"] == result.state.info.rank
    assert record["diagnostics"]["step"] == list(range(1, 11))
    assert record["identity"]["batch"] == 8
    assert fit(problem, Adam(), batch=8, steps=1).to_dict()["info"] is None


@dataclasses.dataclass(frozen=True)
class Remarks:
    """What an optimizer of a user's own may say of its step."""

    rank: object
    sigma_max: object = np.float32(2)
    sigma_min: object = np.float32(1)
    condition: object = np.float32(2)
    gap_to_cutoff: object = np.float64(0.5)
    modes: object = None


class Talkative(Fixed):
    def update(self, at, state):
        return 0 * at.theta, state, Remarks(np.int64(3), modes=np.ones(3))


def test_what_an_optimizer_says_in_numpy_is_plain_in_records(problem, tmp_path):
    result = fit(problem, Talkative(0.0), batch=8, steps=2, diagnostics=True)
    info = json.loads(json.dumps(result.to_dict()))["info"]
    assert (info["rank"], info["gap_to_cutoff"], "modes" in info) == (3, 0.5, False)
    save_checkpoint(tmp_path / "run.npz", result)
    assert load_checkpoint(tmp_path / "run.npz").diagnostics == result.diagnostics


def test_pandas(problem, monkeypatch):
    result = fit(problem, Adam(), batch=8, epochs=2)
    history = result.history
    monkeypatch.setitem(sys.modules, "pandas", types.SimpleNamespace(DataFrame=dict))
    assert history.to_pandas()["step"] == [0, 5, 10]
    row = result.to_pandas()
    assert row["test_loss"] == [result.test_loss]
    assert (row["batch"], row["solver"]) == ([8], [repr(problem.solver)])
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="to_pandas needs pandas: pip install pandas"):
        history.to_pandas()


def test_pandas_itself(problem):
    pandas = pytest.importorskip("pandas")
    frame = fit(problem, Adam(), batch=8, epochs=2).history.to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame.columns) == list(Epoch._fields)
    runs = [fit(problem, Adam(), batch=8, epochs=2, seed=seed).to_pandas() for seed in (0, 1)]
    assert list(pandas.concat(runs)["seed"]) == [0, 1]


def test_evaluations_are_logged_and_nothing_is_printed(problem, caplog, capfd):
    with caplog.at_level(logging.INFO, "higcore"):
        fit(problem, HIG(), batch=8, epochs=2)
    assert [r.message.split(":")[0] for r in caplog.records] == [
        "epoch 0, step 0", "epoch 1, step 5", "epoch 2, step 10",
    ]  # fmt: skip
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"on_step": print}, "on_step must be a list of callables"),
        ({"on_step": [1]}, r"on_step must be a list of callables, got \[1\]"),
        ({"patience": 0}, "patience must be at least 1, got 0"),
        ({"patience": 1.5}, "patience must be an integer"),
    ],
)
def test_bad_arguments(options, message, problem):
    with pytest.raises((TypeError, ValueError), match=message):
        fit(problem, Adam(), batch=8, steps=1, **options)


def test_problem_is_left_alone(problem):
    assert isinstance(problem, Problem)
    before = [array.copy() for array in (*problem.train, *problem.test)]
    fit(problem, HIG(), batch=8, steps=3, diagnostics=True)
    for was, now in zip(before, (*problem.train, *problem.test), strict=True):
        assert np.array_equal(was, now)
