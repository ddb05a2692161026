"""NaN and Inf wherever they may turn up: a sentence, never a hang, never another result."""

import dataclasses
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import poison
import pytest

from bench.experiments import EXPERIMENTS, OPTIMIZERS
from higcore import LevenbergMarquardt, NonFiniteError, StackedJacobian, fit
from higcore.device.threads import run_threaded
from higcore.losses import ComponentError, Infidelity, SquaredError
from nets import MLP, ConvNet1d, ConvNet2d
from nets.activations import ACTIVATIONS

ROOT = Path(__file__).resolve().parent.parent
BAD = [np.nan, np.inf, -np.inf]
MODE = np.array([1.0, 0.0, 0.0, 0.0])


def test_poisoned_runs():
    """A few trials of what ``python tests/poison.py`` does 300 times."""
    command = [sys.executable, "tests/poison.py", "--trials", "60", "--seed", "7"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.match(r"60 trials: (\d+) refused, (\d+) harmless, (\d+) noticed; ", done.stdout)
    assert int(found[1]) > 40
    assert done.stdout.endswith("; 0 silent, 0 raised, 0 hung, 0 crashed\n")


PLAIN = poison.Trial(0, "toy", "adam", "auto", "float64", "step", np.nan, 2)


def judge(trial):
    return poison.verdict(trial, np.random.default_rng(0))[0]


def test_the_trials_see_what_is_wrong(monkeypatch):
    """Without its own checks the library fails them, and an error that escapes is told apart."""
    unread = PLAIN._replace(place="x")  # the toy's solver does not use x
    assert [judge(PLAIN), judge(unread)] == ["refused", "harmless"]
    with monkeypatch.context() as patch:
        patch.setattr("higcore.training.updates.check_finite", lambda name, array: None)
        assert judge(PLAIN) == "silent"
    with monkeypatch.context() as patch:
        patch.setattr("higcore.training.run.NonFiniteError", ZeroDivisionError)
        assert judge(PLAIN) == "raised"
    with monkeypatch.context() as patch:
        patch.setattr(poison.Poison, "spoil", lambda self, array: array)
        assert judge(PLAIN) == "silent"


SABOTAGED = """
import os, sys, time
import poison

def verdict(trial, rng):
    if trial.number == 1:
        time.sleep(60)
    if trial.number == 2:
        os.abort()
    return honest(trial, rng)

honest, poison.verdict, poison.PATIENCE = poison.verdict, verdict, 3.0
poison.work(*map(int, sys.argv[2].split(",")), int(sys.argv[4]))
"""


def test_a_hang_and_a_crash_are_those_of_their_trial(monkeypatch):
    """The trials behind them are still made."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, [ROOT, ROOT / "tests"])))
    python = [sys.executable, "-c", SABOTAGED]
    numbers, words, sentences = zip(*poison.work_elsewhere(0, 4, 0, python), strict=True)
    assert numbers == (0, 1, 2, 3)
    assert words[1:3] == ("hung", "crashed")
    assert "Timeout" in sentences[1]
    assert not {words[0], words[3]} & set(poison.DEFECTS)


NETS = [MLP((4, 5, 3), activation) for activation in ACTIVATIONS]
NETS += [ConvNet1d(2, 2, [3], 2, 3, activation) for activation in ACTIVATIONS]
NETS += [ConvNet2d(2, 1, [3], 2, 3, activation) for activation in ACTIVATIONS]


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("net", NETS, ids=repr)
def test_networks_let_everything_through(net, value, rng):
    """Inf may saturate, tanh(inf) = 1 and relu(-inf) = 0; but then its pull-back is inf * 0."""
    theta, x = net.init(rng), rng.standard_normal((3, 4))
    x[1, 2] = value
    with np.errstate(invalid="ignore"):
        u, tape = net.forward(theta, x)
        assert np.isfinite(u[[0, 2]]).all()
        assert not np.isnan(value) or np.isnan(u[1]).all()
        assert not np.isfinite(net.backward(theta, tape, np.ones((3, 3)))).all()
        J = StackedJacobian(net, theta, tape, np.ones((3, 2, 3)))
        assert np.array_equal(
            np.isfinite(J.gram().diagonal()), [True] * 2 + [False] * 2 + [True] * 2
        )


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("loss", [SquaredError(), Infidelity(), ComponentError(MODE)], ids=repr)
def test_losses_let_everything_through(loss, value):
    y, target = np.full((2, 4), 0.5), np.full((2, 4), 0.5)
    y[1, 0] = value
    with np.errstate(invalid="ignore"):
        assert np.array_equal(np.isfinite(loss.value(y, target)), [True, False])
        assert np.isfinite(loss.gradient(y, target)[0]).all()
        assert not np.isfinite(loss.gradient(y, target)[1]).all()


@pytest.mark.parametrize("value", [*BAD, 1e200])
@pytest.mark.parametrize("name", ["adam", "adadelta", "adagrad", "rmsprop", "sgd"])
def test_a_bad_gradient_shows_in_the_step_or_the_state(name, value):
    """1e200 overflows where it is squared: the step may vanish then, but the state is Inf."""
    optimizer = EXPERIMENTS["toy"].settings[name].optimizer
    at = SimpleNamespace(gradient=lambda: np.array([1.0, value]))
    with np.errstate(invalid="ignore", over="ignore"):
        step, state, _ = optimizer.update(at, optimizer.init(np.zeros(2)))
    arrays = [step, *(v for v in state.values() if hasattr(v, "shape"))]
    assert all(np.isfinite(array[0]) for array in arrays)
    squares_nothing = name == "sgd" and value == 1e200
    assert squares_nothing or not all(np.isfinite(array[1]) for array in arrays)


@pytest.mark.parametrize("name", ["damping", "growth"])
@pytest.mark.parametrize("value", BAD)
def test_a_bad_damping_is_not_used(name, value):
    problem = poison.task("toy", "float64")
    theta = problem.network.init(np.random.default_rng(0))
    at, state = problem.linearise(theta, problem.batch(0, 8)), {"damping": 1.0, "growth": 2.0}
    with pytest.raises(NonFiniteError, match=f"the optimizer's {name} is -?(nan|inf)"):
        LevenbergMarquardt().update(at, state | {name: value})


@pytest.mark.parametrize("value", BAD)
def test_a_bad_gram_matrix_is_not_solved_with(value, monkeypatch):
    problem, optimizer = poison.task("toy", "float64"), LevenbergMarquardt()
    theta = problem.network.init(np.random.default_rng(0))
    at, honest = problem.linearise(theta, problem.batch(0, 8)), StackedJacobian.gram
    expected, _, _ = optimizer.update(at, optimizer.init(theta))

    def spoiled(J, mirrored):
        K = honest(J, mirrored)
        K[3, 5] = value
        return K

    monkeypatch.setattr(StackedJacobian, "gram", spoiled)
    step, _, _ = optimizer.update(at, optimizer.init(theta))
    assert np.allclose(step, expected, rtol=1e-6)


@dataclasses.dataclass(frozen=True)
class BadLoss(SquaredError):
    """On a batch of 8, a value that is not finite beside a gradient that is, or the other way."""

    spoiled: str = ""
    bad: float = 0.0

    def value(self, y, target):
        return super().value(y, target) + self.noise("loss", y)

    def gradient(self, y, target):
        return super().gradient(y, target) + self.noise("loss gradient", y)

    def noise(self, name, y):
        return self.bad if len(y) == 8 and self.spoiled == name else 0.0


@pytest.mark.parametrize("optimizer", ["adam", "hig", "lm"])
@pytest.mark.parametrize("spoiled", ["loss", "loss gradient"])
@pytest.mark.parametrize("value", BAD)
def test_a_bad_loss_is_said_before_the_optimizer_sees_it(optimizer, spoiled, value):
    problem = poison.task("toy", "float64")
    problem = dataclasses.replace(problem, loss=BadLoss(1.0, spoiled, value))
    run = fit(problem, EXPERIMENTS["toy"].settings[optimizer].optimizer, batch=8, steps=2)
    assert (run.status, run.steps) == ("non-finite", 0)
    assert re.search(f"the (training )?{spoiled} (is|holds)", run.message), run.message


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("value", BAD)
def test_start_parameters_are_looked_at(optimizer, value):
    problem = poison.task("toy", "float64")
    theta = problem.network.init(np.random.default_rng(0))
    theta[3] = value
    setting = EXPERIMENTS["toy"].settings[optimizer].optimizer
    with pytest.raises(NonFiniteError, match="theta holds 1 non-finite value"):
        fit(problem, setting, batch=8, steps=1, theta=theta)
    run = fit(problem, setting, batch=8, steps=1)
    spoiled = dataclasses.replace(run, state=run.state._replace(theta=theta))
    with pytest.raises(NonFiniteError, match="theta holds 1 non-finite value"):
        fit(problem, setting, batch=8, steps=2, resume=spoiled)


def test_threads_take_over_what_is_ignored(monkeypatch):
    monkeypatch.setattr(
        "higcore.device.threads.cores", lambda: 2
    )  # threads even on a machine of one core

    def overflow(n):
        np.array([np.inf]) - np.array([np.inf])

    with warnings.catch_warnings(), np.errstate(invalid="ignore"):
        warnings.simplefilter("error")
        run_threaded(overflow, range(4))
    with pytest.raises(FloatingPointError), np.errstate(invalid="raise"):
        run_threaded(overflow, range(4))
