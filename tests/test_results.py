"""Small things a user asks of batches, results and the progress line."""

import sys

import numpy as np
import pytest

from higcore import Adam, Batch, fit
from higcore.progress import progress_line


def test_a_batch_is_a_tuple_and_a_slice_of_it_a_batch():
    batch = Batch(*(np.full((5, 2), value) for value in range(3)))
    assert batch[1] is batch.net_input
    assert batch[-1] is batch.target
    assert batch[1:3].count == 2
    assert [array[0, 0] for array in batch[1:3]] == [0, 1, 2]


def test_the_test_loss_after_some_seconds():
    from bench.experiments import EXPERIMENTS

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
