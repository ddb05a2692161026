"""Problem and fit: budgets, seeds, clock, interrupts, non-finite values, bad input."""

import dataclasses
import re
import time

import numpy as np
import pytest

from bench.experiments import Oscillators
from higcore import HIG, Adam, Batch, FreshData, Problem, fit
from higcore.losses import SquaredError
from nets import MLP
from solvers import OscillatorChain

SMALL = Oscillators(OscillatorChain(steps=12, dt=0.5), (6,), "tanh", 40, 24, "toy-chain")


@pytest.fixture
def problem():
    return SMALL.problem(seed=5)


def test_hig_trains_and_adam_trains(problem):
    for optimizer in (HIG(), Adam(lr=0.01)):
        result = fit(problem, optimizer, batch=8, epochs=20)
        assert result.test_loss < 0.3 * result.history[0].test_loss
        assert result.status == "budget"
        assert str(result).startswith("Stopped because the budget of 20 epochs was spent. 100 ste")


def test_same_seed_same_bits(problem):
    runs = [fit(problem, HIG(), batch=8, epochs=3, seed=s) for s in (1, 1, 2)]
    assert np.array_equal(runs[0].theta, runs[1].theta)
    assert not np.array_equal(runs[0].theta, runs[2].theta)
    same = [SMALL.problem(seed=s).train.x for s in (5, 5, 6)]
    assert np.array_equal(same[0], same[1])
    assert not np.array_equal(same[0], same[2])


def test_budgets(problem):
    assert fit(problem, HIG(), batch=8, steps=7).steps == 7
    assert fit(problem, HIG(), batch=8, epochs=1.4).steps == 7
    result = fit(problem, HIG(), batch=8, steps=3, seconds=1e9, epochs=1e9)
    assert result.steps == 3
    assert "3 steps" in result.message
    timed = fit(problem, Adam(), batch=8, seconds=0.2)
    assert 0.2 <= timed.seconds < 2
    assert "0.2 seconds" in timed.message


def test_history_and_batches(problem):
    result = fit(problem, HIG(), batch=16, steps=8)
    assert [row.step for row in result.history] == [0, 3, 6, 8]
    assert [round(row.epoch, 2) for row in result.history] == [0, 1, 2, 2.67]
    assert result.best_test_loss == min(row.test_loss for row in result.history)
    assert result.history[-1].test_loss == problem.evaluate(result.theta)
    sizes = [len(problem.batch(step, 16).x) for step in range(6)]
    assert sizes == [16, 16, 8, 16, 16, 8]
    assert np.array_equal(problem.batch(4, 16).x, problem.train.x[16:32])


def test_evaluation_and_callbacks_are_off_the_clock(problem):
    def slow(result):
        time.sleep(0.2)

    result = fit(problem, HIG(), batch=40, steps=5, on_epoch=[slow])
    assert result.seconds < 0.2 * 5


def test_callbacks_see_the_run_and_can_stop_it(problem):
    seen = []

    def stop_at_ten(result):
        seen.append(result.steps)
        return result.steps >= 10

    result = fit(problem, HIG(), batch=8, epochs=50, on_epoch=[stop_at_ten])
    assert seen == [0, 5, 10]
    assert result.status == "stopped"


def test_evaluate_in_chunks(problem, monkeypatch):
    theta = problem.network.init(np.random.default_rng(0))
    whole = problem.evaluate(theta)
    monkeypatch.setattr("higcore.problem.EVALUATION_CHUNK", 7)
    assert problem.evaluate(theta) == pytest.approx(whole, rel=1e-12)


@dataclasses.dataclass(frozen=True)
class Spoiled:
    """HIG whose step number ``at`` is spoiled."""

    at: int
    how: str

    def init(self, theta):
        return {"count": 0}

    def update(self, linearisation, state):
        step, _, info = HIG().update(linearisation, {})
        count = state["count"] + 1
        if count == self.at and self.how == "interrupt":
            raise KeyboardInterrupt
        if count == self.at:
            step = step * float(self.how)
        return step, {"count": count}, info


@pytest.mark.parametrize("how", ["nan", "inf"])
def test_a_non_finite_step_never_reaches_theta(problem, how):
    good = fit(problem, Spoiled(99, how), batch=8, steps=6)
    result = fit(problem, Spoiled(7, how), batch=8, steps=20)
    assert result.status == "non-finite"
    assert "the step holds" in result.message
    assert result.steps == 6
    assert np.array_equal(result.theta, good.theta)


def test_divergence_ends_the_run_with_finite_parameters(problem):
    result = fit(problem, Adam(lr=1e5), batch=8, steps=500)
    assert result.status in ("non-finite", "budget")
    assert np.isfinite(result.theta).all()
    huge = dataclasses.replace(problem, train=Batch(*(1e200 * a for a in problem.train)))
    result = fit(huge, HIG(), batch=8, steps=5)
    assert result.status == "non-finite"
    assert result.steps == 0
    assert "try a smaller lr" in result.message


def test_interrupt_keeps_the_last_complete_state(problem):
    good = fit(problem, Spoiled(99, "1"), batch=8, steps=6)
    result = fit(problem, Spoiled(7, "interrupt"), batch=8, steps=20)
    assert result.status == "interrupted"
    assert np.array_equal(result.theta, good.theta)
    assert result.history[-1].step == 6


def test_progress_prints_plain_lines_off_a_terminal(problem, capsys, monkeypatch):
    monkeypatch.setattr("higcore.training.progress.PLAIN_INTERVAL", 0.0)
    fit(problem, HIG(), batch=8, steps=5, progress=True)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 5
    assert re.match(r"HIG          100 %, \d+ s left, loss .*, test loss", lines[-1])
    assert "rank" in lines[-1]


def test_progress_bar_on_a_terminal(problem, capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    fit(problem, Adam(), batch=8, seconds=0.4, progress=True)
    assert "test loss" in capsys.readouterr().err


def test_float32_training(problem):
    single = SMALL.problem(seed=5, dtype=np.float32)
    result = fit(single, HIG(tau=1e-3), batch=8, epochs=10)
    assert result.theta.dtype == np.float32
    assert result.test_loss < 0.3 * result.history[0].test_loss


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "one of seconds, steps, epochs must be given"),
        ({"seconds": 0}, "seconds must be a finite number"),
        ({"seconds": float("nan")}, "seconds must be a finite number"),
        ({"epochs": -1}, "epochs must be a finite number"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"steps": 1.5}, "steps must be an integer"),
        ({"steps": 1, "batch": 0}, "batch must be at least 1, got 0"),
        ({"steps": 1, "batch": 41}, "batch must be at most the number of training samples, 40; g"),
        ({"steps": 1, "seed": -1}, "seed must be at least 0"),
        ({"steps": 1, "evaluate_every": 0}, "evaluate_every must be a finite number"),
        ({"steps": 1, "resume": "run.npz"}, "resume must be a Result, such as load_checkpoint"),
        ({"steps": 1, "on_epoch": print}, "on_epoch must be a list of callables"),
        ({"steps": 1, "theta": np.zeros(3)}, r"theta must have shape \(114,\), got \(3,\)"),
        ({"steps": 1, "theta": np.full(114, np.nan)}, "theta holds 114 non-finite value"),
        ({"steps": 1, "theta": np.zeros(114, int)}, "theta must be a float32 or float64 array"),
        ({"steps": 1, "theta": np.zeros(114, np.float32)}, "arrays must share one dtype"),
        ({"steps": 1, "theta": [0.0] * 114}, "theta must be a NumPy or CuPy array, got list"),
    ],
)
def test_bad_arguments_of_fit(problem, options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        fit(problem, HIG(), **({"batch": 8} | options))


def test_fit_wants_an_optimizer(problem):
    with pytest.raises(TypeError, match="optimizer must have init and update, got 'hig'"):
        fit(problem, "hig", batch=8, steps=1)


def test_a_non_finite_jacobian_ends_the_run(problem, monkeypatch):
    honest = OscillatorChain.rows
    monkeypatch.setattr(OscillatorChain, "rows", lambda self, tape: honest(self, tape) * np.inf)
    result = fit(problem, HIG(), batch=8, steps=3)
    assert result.status == "non-finite"
    assert "J holds NaN or Inf" in result.message
    assert result.steps == 0


def test_a_failed_decomposition_ends_the_run_with_a_sentence(problem, monkeypatch):
    def broken(*args, **kwargs):
        raise np.linalg.LinAlgError("no convergence")

    monkeypatch.setattr("higcore.spectral.svd.scipy.linalg.svd", broken)
    result = fit(problem, HIG(method="svd"), batch=8, steps=3)
    assert result.status == "failed"
    assert "no convergence" in result.message
    assert np.isfinite(result.theta).all()


def test_fit_wants_a_problem():
    with pytest.raises(TypeError, match="problem must be a Problem, got str"):
        fit("oscillators", HIG(), batch=8, steps=1)


def make_problem(**changes):
    x = np.zeros((3, 4))
    data = {"x": x, "net_input": x, "target": x} | changes.pop("data", {})
    train = changes.pop("train", None) or Batch(**data)
    parts = {
        "network": MLP((4, 12)),
        "solver": OscillatorChain(steps=12),
        "loss": SquaredError(),
        "train": train,
        "test": Batch(x, x, x),
    }
    return Problem(**(parts | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network": MLP((4, 11))}, "network has 11 outputs but solver takes 12 control values"),
        ({"data": {"x": np.zeros((3, 5))}}, r"train.x must have shape \(samples, 4\)"),
        ({"data": {"net_input": np.zeros((3, 5))}}, r"train.net_input must have shape \(3, 4\)"),
        ({"data": {"target": np.zeros((2, 4))}}, r"train.target must have shape \(3, 4\)"),
        ({"data": {"target": np.zeros((3, 4), int)}}, "train.target must be a float32 or float64"),
        ({"data": {"target": np.full((3, 4), np.nan)}}, "train.target holds 12 non-finite"),
        ({"data": {"x": [[0.0] * 4]}}, "train.x must be a NumPy or CuPy array, got list"),
        ({"data": {"x": np.zeros((3, 4), np.float32)}}, "arrays must share one dtype"),
        ({"test": Batch(*[np.zeros((0, 4))] * 3)}, "test.x is empty"),
        ({"train": (1, 2, 3)}, "train must be a Batch or FreshData, got tuple"),
        ({"test": FreshData(None)}, "test must be a Batch, got FreshData"),
        ({"test": Batch(*[np.zeros((1, 4), np.float32)] * 3)}, "arrays must share one dtype"),
    ],
)
def test_bad_problems(changes, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make_problem(**changes)


def test_bad_loss_factor():
    with pytest.raises(ValueError, match="factor must be"):
        SquaredError(factor=0.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": -1}, "seed must be at least 0"),
        ({"count": 0}, "count must be at least 1"),
        ({"device": "tpu"}, "device must be one of 'cpu', 'gpu'; got 'tpu'"),
    ],
)
def test_bad_fresh_data(options, message):
    with pytest.raises(ValueError, match=message):
        FreshData(lambda rng, size: None, **options)
