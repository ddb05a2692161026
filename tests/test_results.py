"""Small things a user asks of batches, results and the progress line."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from bench.experiments import EXPERIMENTS
from higcore import Adam, Batch, fit
from higcore.training import progress
from higcore.training.progress import progress_line


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
