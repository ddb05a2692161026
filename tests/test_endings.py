"""The last state of a run is saved, however the run ends; and callbacks hear of the end."""

import dataclasses
import errno
import logging
import math
import os

import numpy as np
import pytest
import strict_cupy

from bench.experiments import Oscillators
from higcore import (
    HIG,
    SGD,
    Adam,
    Checkpoints,
    DoesNotFitError,
    TrainingError,
    fit,
    load_checkpoint,
    save_checkpoint,
)
from solvers import OscillatorChain

CHAIN = Oscillators(OscillatorChain(steps=12, dt=0.5), (6,), "tanh", 40, 24)


@pytest.fixture
def problem():
    return CHAIN.problem(seed=5)


@pytest.fixture
def save(tmp_path):
    """Saves every hour: never, in a run of a second."""
    return Checkpoints(tmp_path / "run.npz", every=3600)


class Sudden:
    """SGD of which some steps are something else."""

    def __init__(self, does):
        self.does = does

    def init(self, theta):
        return {"updates": 0}

    def update(self, at, state):
        updates, step = state["updates"] + 1, 1e-3 * at.gradient()
        return self.does.get(updates, lambda step: step)(step), {"updates": updates}, None


def raising(error):
    def does(step):
        raise error

    return does


def stop(result):
    return result.steps == 6


ENDS = {
    "budget": {"steps": 7},
    "stopped": {"steps": 9, "on_step": [stop]},
    "interrupted": {"optimizer": Sudden({8: raising(KeyboardInterrupt())})},
    "raised": {"optimizer": Sudden({8: raising(KeyError("k"))})},
    "failed": {"optimizer": HIG(method="svd")},
    "non-finite": {"optimizer": Sudden({8: lambda step: step * math.nan})},
    "stagnated": {"optimizer": SGD(lr=1e-30), "patience": 2},
}


@pytest.mark.parametrize("kind", ["on_step", "on_epoch"])
@pytest.mark.parametrize("status", ENDS)
def test_the_end_of_a_run_is_saved(status, kind, problem, save, monkeypatch):
    options = {"optimizer": Adam(), "batch": 8, "steps": 30} | ENDS[status]
    options[kind] = [*options.get(kind, []), save]
    if status == "failed":
        honest, calls = np.linalg.svd, []

        def svd(*args, **options):
            calls.append(1)
            if len(calls) > 7:
                raise np.linalg.LinAlgError("no convergence")
            return honest(args[0], full_matrices=False)

        monkeypatch.setattr("higcore.spectral.svd.scipy.linalg.svd", svd)
    result = fit(problem, **options)
    assert result.status == status
    assert result.steps > 5
    assert load_checkpoint(save.path) == result


def test_the_last_seconds_of_a_run_can_be_resumed(problem, save):
    part = fit(problem, Adam(), batch=8, steps=7, on_epoch=[save])
    resumed = fit(problem, Adam(), batch=8, steps=12, resume=load_checkpoint(save.path))
    whole = fit(problem, Adam(), batch=8, steps=12)
    assert part.steps == 7
    assert np.array_equal(resumed.theta, whole.theta)
    assert [row.step for row in resumed.history] == [0, 5, 10, 12]


@pytest.mark.parametrize(
    ("error", "seen"), [(MemoryError("full"), DoesNotFitError), (SystemExit(3), SystemExit)]
)
def test_what_goes_through_fit_leaves_the_last_state(error, seen, problem, save):
    optimizer = Sudden({8: raising(error)})
    with pytest.raises(seen):
        fit(problem, optimizer, batch=8, steps=12, on_epoch=[save])
    part = load_checkpoint(save.path)
    assert (part.status, part.steps) == ("running", 7)
    identity = fit(problem, SGD(lr=1e-3), batch=8, steps=1).identity
    state = part.state._replace(optimizer={})
    part = dataclasses.replace(part, identity=identity, state=state)
    whole = fit(problem, SGD(lr=1e-3), batch=8, steps=12)
    resumed = fit(problem, SGD(lr=1e-3), batch=8, steps=12, resume=part)
    assert np.array_equal(resumed.theta, whole.theta)


@pytest.mark.parametrize("optimizer", [
    Sudden({1: lambda step: step * math.nan}), Sudden({1: raising(KeyError("k"))}),
    Sudden({1: raising(KeyboardInterrupt())}), Sudden({1: raising(SystemExit())}),
    Sudden({7: lambda step: step + 40.0}),
], ids=["non-finite", "raised", "interrupted", "exit", "diverged"])  # fmt: skip
def test_what_is_of_no_use_does_not_replace_what_was_saved(optimizer, problem, save):
    """A run without a step, or one that is lost, in the place of an earlier run."""
    before = fit(problem, Adam(), batch=8, steps=3)
    save_checkpoint(save.path, before)
    try:
        result = fit(problem, optimizer, batch=8, steps=12, on_epoch=[save])
        assert result.status != "budget"
    except SystemExit:
        pass
    assert load_checkpoint(save.path) == before


def test_a_full_disk_at_the_end_costs_no_run(problem, save, monkeypatch, caplog):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    save.every = 0
    result = fit(problem, Adam(), batch=8, steps=7, on_epoch=[save])
    assert result.status == "budget"
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warnings) == 2  # once during the run, and once at the end
    assert all(line.startswith("The run was not saved: ") for line in warnings)


class Diary:
    """A callback of one's own, which has no hash."""

    __hash__ = None

    def __init__(self, error=None):
        self.lines, self.error = [], error

    def __eq__(self, other):
        return True

    def __call__(self, result):
        self.lines.append((result.status, result.steps))

    def finish(self, result):
        self.lines.append((result.status, result.steps, result.history[-1].step))
        if self.error:
            raise self.error


def test_the_end_is_told_once_and_last(problem):
    diary, other = Diary(), Diary()
    fit(problem, Adam(), batch=8, steps=6, on_step=[diary, other], on_epoch=[diary])
    assert diary.lines[-3:] == [("running", 6), ("running", 6), ("budget", 6, 6)]
    assert len(diary.lines) == 6 + 3 + 1
    assert other.lines[-1] == ("budget", 6, 6)


def test_a_bad_argument_has_no_end(problem):
    """Also where it is a resumed run's, which stands where the earlier one ended."""
    diary, part = Diary(), fit(problem, Sudden({}), batch=8, steps=3)
    refused = Sudden({k: lambda step: problem.check_batch("batch", 3) for k in (1, 4)})
    known = {name: said for name, said in part.identity.items() if name != "optimizer_parts"}
    part = dataclasses.replace(part, identity=known)
    for resume in (None, part):
        with pytest.raises(TypeError, match="batch must be a Batch, got int"):
            fit(problem, refused, batch=8, steps=6, on_epoch=[diary], resume=resume)
    assert diary.lines == [("running", 0)]


def test_on_a_device_the_state_that_is_left_is_finite(save, monkeypatch):
    """The loss is NaN from step 7 on, and nobody looked up to step 9, which runs out of memory."""
    does = {7: lambda step: step * math.nan, 9: raising(MemoryError("full"))}
    with strict_cupy.installed(monkeypatch):
        problem = CHAIN.problem(seed=5).on("gpu")
        with pytest.raises(DoesNotFitError):
            fit(problem, Sudden(does), batch=8, steps=20, on_epoch=[save])
    assert load_checkpoint(save.path).steps == 5


def test_an_attribute_of_that_name_is_left_alone(problem):
    def callback(result):
        return False

    callback.finish = "later"
    assert fit(problem, Adam(), batch=8, steps=2, on_step=[callback]).status == "budget"


def test_what_is_raised_at_the_end(problem, caplog):
    late, other = Diary(KeyError("k")), Diary()
    result = fit(problem, Adam(), batch=8, steps=6, on_epoch=[late, other])
    assert (result.status, result.steps) == ("raised", 6)
    assert "because a callback raised KeyError after 6 steps" in result.message
    assert "in finish\n" in result.error
    assert other.lines[-1] == ("raised", 6, 6)
    assert result.message in [r.getMessage() for r in caplog.records]
    with pytest.raises(TrainingError) as raised:
        fit(problem, Adam(), batch=8, steps=6, on_epoch=[late], throw=True)
    assert raised.value.__cause__ is late.error


def test_a_bad_end_stays_what_it_is(problem, caplog):
    late = Diary(KeyError("k"))
    result = fit(problem, SGD(lr=1e-30), batch=8, epochs=9, patience=2, on_epoch=[late])
    assert result.status == "stagnated"
    assert "a callback raised KeyError" in caplog.records[-1].getMessage()


def test_ctrl_c_at_the_end_keeps_the_run(problem):
    late = Diary(KeyboardInterrupt())
    result = fit(problem, Adam(), batch=8, steps=6, on_epoch=[late])
    assert (result.status, result.steps) == ("interrupted", 6)
