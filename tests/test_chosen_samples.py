# ruff: noqa: E501  one case a line
"""Samples of a Batch by indices and masks, and fresh batches drawn from one."""

import dataclasses

import numpy as np
import pytest
import strict_cupy

from higcore import HIG, Batch, FreshData, Problem, fit
from higcore.losses import SquaredError
from nets import MLP
from solvers import ScaledOutputs

N = 7


def numbered(xp=np):
    """Sample i is (i, 10 i, 100 i)."""
    i = xp.arange(float(N))[:, None]
    return Batch(i, 10 * i, 100 * i)


CHOICES = {
    "indices": ([0, 3, 3, 6], [0, 3, 3, 6]),
    "from the end": ([-1, -7, 2], [6, 0, 2]),
    "none": ([], []),
    "mask": ([True, False, False, True, True, False, False], [0, 3, 4]),
}


@pytest.mark.parametrize("kind", [np.int64, np.uint8, np.int32])
@pytest.mark.parametrize("case", CHOICES)
def test_samples_are_those_that_are_asked_for(case, kind, xp):
    chosen, expected = CHOICES[case]
    if case == "from the end" and kind is np.uint8:
        pytest.skip("holds no negative numbers")
    index = np.array(chosen, bool if case == "mask" else kind)
    found = numbered(xp)[xp.asarray(index)]
    for k, array in enumerate(found):
        values = array.get() if hasattr(array, "get") else array
        assert type(array) is type(numbered(xp).x)
        assert values[:, 0].tolist() == [10**k * i for i in expected]


def test_fields_and_slices_are_as_before():
    batch = numbered()
    assert batch[0] is batch.x
    assert batch[np.int64(2)] is batch[np.array(1) + 1] is batch.target
    assert batch[2:4] == batch[np.array([2, 3])]


WRONG = [
    (np.array([0, N]), ValueError, "index must be in [-7, 6], got 7"),
    (np.array([-8, 0]), ValueError, "index must be in [-7, 6], got -8"),
    (np.array([0.0, 1.0]), TypeError, "index must hold integers, or True and False, got dtype float64"),
    (np.array([True, False]), ValueError, "index must be one True or False for each of 7, got 2"),
    (np.array([[0, 1]]), ValueError, "index must have one axis, got shape (1, 2)"),
    (np.ma.array([0, 1]), TypeError, "index must be a NumPy or CuPy array, got MaskedArray"),
    (["a"], TypeError, "list"),
]  # fmt: skip


@pytest.mark.parametrize(("index", "error", "message"), WRONG, ids=[m for _, _, m in WRONG])
def test_what_chooses_nothing_is_refused(index, error, message):
    with pytest.raises(error) as refused:
        numbered()[index]
    assert message in str(refused.value)


def test_indices_live_where_the_samples_live(monkeypatch):
    with strict_cupy.installed(monkeypatch) as cupy:
        with pytest.raises(TypeError, match="index is a cupy array but x is a numpy array"):
            numbered()[cupy.asarray(np.array([0]))]
        with pytest.raises(TypeError, match="index is a numpy array but x is a cupy array"):
            numbered(cupy)[np.array([0])]


def draw(rng, size):
    return rng.integers(0, N, size)


def test_fresh_batches_are_drawn_from_a_source():
    data = FreshData(draw, seed=3, count=N, source=numbered())
    taken = data.take(5, 4)
    expected = draw(np.random.default_rng([3, 2, 5]), 4)
    assert taken == numbered()[expected]
    assert data.take(5, 4) == taken
    assert data.take(6, 4) != taken
    beside = data.beside(range(5, 6), 4, 8)
    assert beside.count == 8
    assert beside[:4] == data.take(6, 4)


def test_a_source_goes_to_a_device_batch_by_batch(monkeypatch):
    with strict_cupy.installed(monkeypatch) as cupy:
        there = FreshData(draw, source=numbered()).on("gpu").take(0, 4)
        assert isinstance(there.x, cupy.ndarray)
        assert there.on("cpu") == FreshData(draw, source=numbered()).take(0, 4)


def test_data_of_another_source_are_other_data():
    one, same = (FreshData(draw, source=numbered()) for _ in range(2))
    assert one == same
    assert one != FreshData(draw, source=numbered()[:5])
    assert one != FreshData(draw)


def test_training_on_a_source():
    x = np.linspace(-1, 1, 64)[:, None]
    data = Batch(x, x, np.hstack([np.sin(6 * x), np.cos(9 * x)]))
    fresh = FreshData(lambda rng, size: rng.permutation(64)[:size], count=64, source=data)
    problem = Problem(MLP((1, 7, 2)), ScaledOutputs(), SquaredError(), fresh, data)
    result = fit(problem, HIG(), batch=32, epochs=20)
    assert result.test_loss < 0.5 * result.history[0].test_loss
    half = fit(problem, HIG(), batch=32, epochs=10)
    assert (
        fit(problem, HIG(), batch=32, epochs=20, resume=half).theta.tobytes()
        == result.theta.tobytes()
    )
    other = dataclasses.replace(problem, train=dataclasses.replace(fresh, source=data[::-1]))
    with pytest.raises(ValueError, match="resume was made for"):
        fit(other, HIG(), batch=32, epochs=20, resume=half)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"source": (1, 2, 3)}, TypeError, "source must be a Batch, got tuple"),
        ({"draw": lambda rng, size: numbered()[:size]}, TypeError, "draw must return an array of indices, as there is a source to choose from, got Batch"),
        ({"draw": lambda rng, size: [0] * size}, TypeError, "to choose from, got list"),
        ({"draw": lambda rng, size: np.arange(3)}, ValueError, "draw must return 2 samples, got 3"),
        ({"draw": lambda rng, size: np.array([0, 9])}, ValueError, "index must be in [-7, 6], got 9"),
        ({"draw": draw, "source": None}, TypeError, "draw must return a Batch, got ndarray"),
    ],
)  # fmt: skip
def test_bad_draws(options, error, message):
    with pytest.raises(error) as refused:
        FreshData(**{"draw": draw, "source": numbered()} | options).take(0, 2)
    assert message in str(refused.value)
