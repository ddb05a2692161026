"""Ctrl-C during a run: it ends between two steps, and nothing is lost."""

import logging
import os
import signal
import threading

import interrupts as trials
import numpy as np
import pytest
from test_plain_kernels import COMPILED

from higcore import HIG, Adam, AdaptiveHIG, Problem, Scheduled, fit, half_inverse
from higcore.losses import SquaredError
from higcore.problem import Batch
from higcore.training import interrupts
from nets import MLP
from solvers import ScaledOutputs

KILL = os.getpid(), signal.SIGINT


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    """The sentence is written past Python's standard error; in a shell's "&", SIGINT is ignored."""
    monkeypatch.setattr(interrupts, "SAID", b"")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def problem(rng):
    data = Batch(rng.random((16, 1)), rng.random((16, 1)), rng.random((16, 2)))
    return Problem(MLP((1, 3, 2)), ScaledOutputs(1.0), SquaredError(), data, data)


class Interrupting:
    """Adam that meets Ctrl-C in the middle of its second update, ``times`` times."""

    def __init__(self, times=1):
        self.adam, self.times, self.updates = Adam(), times, 0
        self.init = self.adam.init

    def __repr__(self):
        return "Interrupting"

    def update(self, linearisation, state):
        self.updates += 1
        for _ in range(self.times if self.updates == 2 else 0):
            os.kill(*KILL)
        return self.adam.update(linearisation, state)


def test_random_interrupts_lose_nothing():
    """A few of the trials that `tests/interrupts.py` makes by the hundred."""
    found = list(trials.trials(2 * len(trials.OPTIMIZERS)))
    assert [(k, lost) for k, _, lost, _ in found if lost] == []
    assert "interrupted" in {status for *_, status in found}


def test_the_step_is_ended_first(problem):
    result = fit(problem, Interrupting(), batch=8, steps=9)
    assert (result.status, result.steps) == ("interrupted", 2)
    assert np.array_equal(result.theta, fit(problem, Adam(), batch=8, steps=2).theta)


@pytest.mark.parametrize(
    "optimizer", [AdaptiveHIG(average=3), Scheduled(HIG(), lambda step: 0.5 ** (step / 4))]
)
@pytest.mark.parametrize("at", range(1, 8))
def test_a_run_with_everything_goes_on_as_if_nothing_had_been(optimizer, at, problem):
    """Shuffled, judged by validation data and evaluated within epochs, at every step of two."""

    def press(result):
        if result.steps == at:
            os.kill(*KILL)

    options = {"batch": 5, "shuffle": True, "steps": 9, "evaluate_every": 0.5}
    options["validation"] = problem.train[::3]
    whole = fit(problem, optimizer, **options)
    part = fit(problem, optimizer, on_step=[press], **options)
    assert (part.status, part.steps) == ("interrupted", at)
    assert part.best.loss == min(row.validation_loss for row in part.history)
    resumed = fit(problem, optimizer, resume=part, **options)
    assert np.array_equal(resumed.theta, whole.theta)
    assert resumed.best.loss <= whole.best.loss
    evaluated = [row.step for row in whole.history]
    assert evaluated == [0, 2, 4, 6, 8, 9]
    assert [row.step for row in resumed.history] == evaluated


def test_a_second_one_ends_the_step(problem):
    result = fit(problem, Interrupting(times=2), batch=8, steps=9)
    assert (result.status, result.steps) == ("interrupted", 1)
    assert np.array_equal(result.theta, fit(problem, Adam(), batch=8, steps=1).theta)


def test_in_the_last_evaluation(problem):
    """All steps are done, but whoever pressed it wants the program to end."""

    def press(result):
        if result.steps == 4:
            os.kill(*KILL)

    result = fit(problem, Adam(), batch=8, steps=4, on_epoch=[press])
    assert (result.status, result.steps) == ("interrupted", 4)
    assert "the budget of 4 steps was spent" in result.message
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_run_within_a_run_ends_both(problem):
    inner = []

    def nested(result):
        if result.steps == 2:
            inner.append(fit(problem, Interrupting(), batch=8, steps=9))

    outer = fit(problem, Adam(), batch=8, steps=9, on_step=[nested])
    assert [inner[0].status, outer.status] == ["interrupted", "interrupted"]
    assert [inner[0].steps, outer.steps] == [2, 2]


def test_what_compiled_code_makes_of_one(problem):
    """Numba's boxes may run Python code; an interrupt there is a SystemError."""

    class Boxed(Interrupting):
        def update(self, linearisation, state):
            raise SystemError("returned a result with an exception set") from KeyboardInterrupt()

    assert fit(problem, Boxed(), batch=8, steps=9).status == "interrupted"


def test_a_handler_of_ones_own_is_left_alone(problem):
    seen = []
    before = signal.signal(signal.SIGINT, lambda *args: seen.append(args))
    try:
        result = fit(problem, Interrupting(), batch=8, steps=3)
    finally:
        signal.signal(signal.SIGINT, before)
    assert (result.status, len(seen)) == ("budget", 1)


def test_other_threads_install_no_handler(problem):
    found = []
    thread = threading.Thread(target=lambda: found.append(fit(problem, Adam(), batch=8, steps=3)))
    thread.start()
    thread.join()
    assert found[0].status == "budget"


def test_the_first_one_is_answered_at_once(problem, monkeypatch):
    written = []
    monkeypatch.setattr(os, "write", lambda where, text: written.append((where, text)))
    monkeypatch.setattr(interrupts, "SAID", b"said")
    fit(problem, Interrupting(), batch=8, steps=3)
    assert written == [(2, b"said")]


@pytest.mark.parametrize("failing", [OSError, BrokenPipeError])
def test_nobody_listens(problem, monkeypatch, failing, caplog):
    def closed(*args):
        raise failing

    monkeypatch.setattr(os, "write", closed)
    with caplog.at_level(logging.WARNING, "higcore"):
        assert fit(problem, Interrupting(), batch=8, steps=3).status == "interrupted"


def test_compiled_functions_return_numbers(rng):
    """What returns arrays runs Python code on its way out, where an interrupt becomes another."""
    J, g = rng.standard_normal((200, 300)), np.ones(200)
    for method in ("tridiagonal", "band"):
        half_inverse(J, g, method=method, tau=0.3)
    found = {
        (name, str(signature.return_type))
        for module, name in COMPILED
        for signature in getattr(module, name).compiled().nopython_signatures
    }
    assert {"_diagonalise", "reflect", "_chase", "_negative_pivots"} <= {name for name, _ in found}
    assert {kind for _, kind in found} <= {"none", "int64", "float64"}
