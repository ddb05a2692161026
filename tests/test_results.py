"""Small things a user asks of batches, results and the progress line."""

import dataclasses
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from bench.experiments import EXPERIMENTS, LOOPS
from higcore import Adam, Batch, fit
from higcore.training import progress
from higcore.training.progress import progress_line
from nets import export_numpy


def test_a_batch_is_a_tuple_and_a_slice_of_it_a_batch():
    batch = Batch(*(np.full((5, 2), value) for value in range(3)))
    assert batch[1] is batch.net_input
    assert batch[-1] is batch.target
    assert batch[1:3].count == 2
    assert [array[0, 0] for array in batch[1:3]] == [0, 1, 2]


def test_the_test_loss_after_some_seconds():
    run = fit(EXPERIMENTS["toy"].problem(), Adam(), batch=256, epochs=3)
    times = [row.seconds for row in run.history]
    losses = [row.test_loss for row in run.history]
    assert [run.test_loss_after(time) for time in times] == losses
    assert run.test_loss_after((times[1] + times[2]) / 2) == losses[1]


def test_a_progress_bar_without_tqdm(monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with pytest.raises(ImportError, match="needs tqdm on a terminal: pip install"):
        progress_line(True, "Adam").__enter__()


def test_a_progress_bar_that_begins_in_the_middle(monkeypatch):
    """What remains is told from the rate of this run, not of what an earlier one has done."""
    made = {}
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    bar = SimpleNamespace(close=lambda: None)
    monkeypatch.setattr("tqdm.tqdm", lambda **options: made.update(options) or bar)
    with progress_line(True, "Adam", 0.25):
        assert (made["initial"], made["total"]) == (0.25, 1.0)


def test_a_plain_line_past_the_end(monkeypatch, capsys):
    run = fit(EXPERIMENTS["toy"].problem(), Adam(), batch=256, steps=1)
    monkeypatch.setattr(progress, "PLAIN_INTERVAL", -1.0)
    with progress_line(True, "Adam") as show:
        show(1.2, lambda: run)
    assert capsys.readouterr().err.startswith("Adam         100 %, 0 s left, loss")


def test_what_is_printed_of_a_run_that_only_got_worse():
    problem = EXPERIMENTS["toy"].problem()
    said = str(fit(problem, Adam(lr=10.0), batch=256, epochs=2))
    assert "No state was better than the first" in said
    assert "check_solver" in said
    assert "No state" not in str(fit(problem, Adam(), batch=256, epochs=2))


def test_what_is_printed_where_other_data_judge():
    problem = EXPERIMENTS["toy"].problem()
    run = fit(problem, Adam(), batch=256, epochs=2, validation=problem.train[:100])
    assert f"best validation loss {run.best.loss:.3e} in epoch {run.best.epoch:.4g}." in str(run)


def test_a_class_in_place_of_an_instance_is_named():
    problem = EXPERIMENTS["toy"].problem()
    for name in ("network", "solver", "loss"):
        kind = type(getattr(problem, name))
        sentence = rf"{name} must be an instance, {kind.__name__}\(\), not the class"
        with pytest.raises(TypeError, match=sentence):
            dataclasses.replace(problem, **{name: kind})


def test_a_rollout_is_no_network_to_be_exported(tmp_path):
    loop = LOOPS["feedback"].problem().network
    with pytest.raises(TypeError, match="got Rollout; its attribute network may be one"):
        export_numpy(tmp_path / "loop.py", loop, np.zeros(loop.size))
