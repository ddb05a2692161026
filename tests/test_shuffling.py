"""Samples in another order in every epoch: all of them, reproducible, and resumable anywhere."""

import dataclasses
import math

import numpy as np
import pytest
import strict_cupy
from hypothesis import given
from hypothesis import strategies as st
from test_adaptive import changes_of_judges
from test_checkpoint import CHAIN, assert_same_run, bits
from test_device import waits

from higcore import HIG, Adam, AdaptiveHIG, Batch, FreshData, fit, load_checkpoint, save_checkpoint
from higcore.backend import to_host
from higcore.problem import Shuffled


@pytest.fixture
def problem():
    return CHAIN.problem(seed=5)


def numbered(count, seed=0):
    """Samples that are their own numbers."""
    x = np.arange(float(count))[:, None]
    return Shuffled(x, x + 0.25, x + 0.5, seed=seed)


def numbers(batch):
    """Which samples they are; the three arrays must agree."""
    x, net_input, target = (to_host(array)[:, 0] for array in batch)
    assert np.array_equal(net_input, x + 0.25)
    assert np.array_equal(target, x + 0.5)
    return x.astype(int).tolist()


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 9), st.integers(0, 5))
def test_an_epoch_has_every_sample_once(count, size, seed, epoch):
    size = min(size, count)
    data, steps = numbered(count, seed), math.ceil(count / size)
    batches = [numbers(data.take(epoch * steps + k, size)) for k in range(steps)]
    assert [len(batch) for batch in batches[:-1]] == [size] * (steps - 1)
    order = [k for batch in batches for k in batch]
    assert sorted(order) == list(range(count))
    expected = np.random.default_rng([seed, 3, epoch]).permutation(count)
    assert order == expected.tolist()  # so it depends neither on the batch nor on earlier epochs


def test_epochs_and_seeds_have_orders_of_their_own():
    orders = [numbers(numbered(40, seed).take(epoch, 40)) for seed in (1, 2) for epoch in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4


@given(st.data(), st.integers(2, 40), st.integers(1, 40))
def test_samples_beside_some_batches(data, count, size):
    """As many as wanted or left, in none of the batches, and spread over what is left."""
    size = min(size, count)
    first, steps = data.draw(st.integers(0, 99)), data.draw(st.integers(1, 8))
    wanted, shuffled = data.draw(st.integers(1, 40)), numbered(count, 3)
    held = {k for step in range(first, first + steps) for k in numbers(shuffled.take(step, size))}
    free = [k for k in range(count) if k not in held]
    others = shuffled.beside(range(first, first + steps), size, wanted)
    if not free:
        assert others is None
        return
    found = numbers(others)
    assert len(found) == len(set(found)) == min(wanted, len(free))
    places = [free.index(k) for k in found]  # which fails for one that is held
    gaps = np.diff(places)
    assert len(gaps) == 0 or (gaps.min() > 0 and gaps.max() - gaps.min() <= 1)
    assert places[0] + len(free) - places[-1] <= math.ceil(len(free) / len(found))


def test_beside_across_the_border_of_epochs():
    """The last batch of an epoch and the first of the next are of two orders."""
    data = numbered(30, 1)
    held = {*numbers(data.take(2, 10)), *numbers(data.take(3, 10))}
    assert {*numbers(data.beside(range(2, 4), 10, 30))} == {*range(30)} - held
    assert 0 < 30 - len(held) < 20  # some are in both


def test_on_a_device(monkeypatch):
    with strict_cupy.installed(monkeypatch):
        there = numbered(30, 2).on("gpu")
        assert (type(there), there.seed) == (Shuffled, 2)
        before = strict_cupy.waits
        batches = there.take(4, 8), there.beside(range(3, 6), 8, 5)
        assert strict_cupy.waits == before
        assert type(batches[0].x) is strict_cupy.ndarray
        here = numbered(30, 2)
        assert [numbers(b) for b in batches] == [
            numbers(here.take(4, 8)), numbers(here.beside(range(3, 6), 8, 5)),
        ]  # fmt: skip
        assert there.on("cpu") == here


def test_equality_and_seeds():
    assert numbered(5, 1) == numbered(5, 1)
    assert numbered(5, 1) != numbered(5, 2)
    assert numbered(5, 1) != numbered(5, 1)[:]
    assert type(numbered(5)[1:3]) is Batch
    with pytest.raises(ValueError, match="seed must be at least 0, got -1"):
        numbered(5, -1)


# In `fit`


@pytest.mark.parametrize("optimizer", [Adam(), HIG(), AdaptiveHIG(average=4)])
def test_resumed_at_any_step_it_is_the_uninterrupted_run(optimizer, problem, tmp_path):
    options = {"batch": 16, "steps": 10, "seed": 3, "shuffle": True}  # 16, 16 and 8 samples
    saved, path = [], tmp_path / "run.npz"

    def save(result):
        save_checkpoint(path, result)
        saved.append(load_checkpoint(path))

    whole = fit(problem, optimizer, on_step=[save], **options)
    assert len(saved) == 10
    for part in saved:
        resumed = fit(problem, optimizer, resume=part, **options)
        assert_same_run(resumed, whole)
        assert resumed.best == whole.best


def test_it_is_trained_on_the_shuffled_batches(problem):
    """And without shuffle=True on none other than before."""
    theta = problem.network.init(np.random.default_rng(0))
    data, optimizer = Shuffled(*problem.train, seed=3), Adam(0.01)
    for shuffle in (True, False):
        expected, state = theta, optimizer.init(theta)
        for step in range(7):
            batch = data.take(step, 16) if shuffle else problem.batch(step, 16)
            change, state, _ = optimizer.update(problem.linearise(expected, batch), state)
            expected = expected - change
        options = {"batch": 16, "steps": 7, "seed": 3, "theta": theta, "shuffle": shuffle}
        assert np.array_equal(fit(problem, optimizer, **options).theta, expected)


def test_seeds_shuffle_alike_or_otherwise(problem):
    theta = problem.network.init(np.random.default_rng(0))
    runs = [
        fit(problem, Adam(), batch=8, steps=9, seed=seed, theta=theta, shuffle=True)
        for seed in (1, 1, 2)
    ]
    assert bits(runs[0]) == bits(runs[1])
    assert not np.array_equal(runs[0].theta, runs[2].theta)


@pytest.mark.parametrize(("count", "size"), [(40, 16), (40, 3), (40, 8), (40, 20)])
def test_others_are_in_no_batch_that_they_judge(count, size, problem):
    shuffled = dataclasses.replace(problem, train=Shuffled(*problem.train, seed=1))
    optimizer = AdaptiveHIG(others=16, average=3)
    changes = changes_of_judges(shuffled, optimizer, size, 20)
    window = min(max(count // (4 * size), 1), 8)
    assert changes == math.ceil(20 / window)


def test_a_shuffled_run_on_a_device(monkeypatch):
    """Has the bits of the host's batches, and waits no more often for more batches."""
    host = fit(CHAIN.problem(5), Adam(), batch=16, epochs=3, shuffle=True)
    with strict_cupy.installed(monkeypatch):
        problem = CHAIN.problem(5).on("gpu")
        there = fit(problem, Adam(), batch=16, epochs=3, shuffle=True)
        assert np.allclose(to_host(there.theta), host.theta, rtol=1e-9)
        assert there.identity == host.identity
        few, many = (waits(problem, Adam(), batch=b, epochs=3, shuffle=True) for b in (20, 4))
        assert few == many


def test_another_order_is_not_resumed(problem):
    options = {"batch": 8, "steps": 9}
    for was, now in ((False, True), (True, False)):
        run = fit(problem, Adam(), shuffle=was, **options)
        with pytest.raises(
            ValueError, match=f"^resume was made for shuffle {was}, this run has {now}$"
        ):
            fit(problem, Adam(), shuffle=now, resume=run, **options)
        with pytest.raises(
            ValueError, match=f"^resume was made for shuffle {was}, this run has {now}$"
        ):
            fit(problem, Adam(), shuffle=now, resume=run, other_data=True, **options)
    run = fit(problem, Adam(), shuffle=True, **options)
    with pytest.raises(ValueError, match=r"^resume was made for seed 0, this run has 1$"):
        fit(problem, Adam(), shuffle=True, seed=1, resume=run, **options)


def test_an_earlier_run_was_not_shuffled(problem):
    """Its identity does not say so: there was no such thing."""
    options = {"batch": 8, "steps": 9}
    run = fit(problem, Adam(), batch=8, steps=4)
    older = {k: v for k, v in run.identity.items() if k != "shuffle"}
    run = dataclasses.replace(run, identity=older)
    assert fit(problem, Adam(), resume=run, **options).steps == 9
    with pytest.raises(ValueError, match=r"^resume was made for shuffle False, this run has True$"):
        fit(problem, Adam(), resume=run, shuffle=True, **options)


def test_fresh_data_refuse_it(problem):
    fresh = FreshData(lambda rng, size: pytest.fail("drawn"), count=40)
    theirs = dataclasses.replace(problem)
    object.__setattr__(theirs, "train", fresh)
    with pytest.raises(
        ValueError, match="shuffle=True has no use with FreshData, whose samples are"
    ):
        fit(theirs, Adam(), batch=8, steps=1, shuffle=True)
    with pytest.raises(TypeError, match="shuffle must be True or False, got 1"):
        fit(problem, Adam(), batch=8, steps=1, shuffle=1)
