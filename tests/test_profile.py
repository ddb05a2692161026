"""`profile`: every part is found, all of a step is in one of them, and nothing else is."""

import dataclasses
import functools
import sys
import threading
import time

import numpy as np
import pytest
import strict_cupy

from bench.experiments import Oscillators
from higcore import (
    HIG,
    Adam,
    AdaptiveHIG,
    FreshData,
    LevenbergMarquardt,
    Profile,
    TrainingError,
    profile,
)
from higcore.losses import SquaredError
from higcore.training.updates import Updates
from nets import MLP
from solvers import OscillatorChain

SMALL = Oscillators(OscillatorChain(steps=6, dt=0.5), (5,), "tanh", 24, 8, "chain")
OF_ALL = {"data", "network", "solver", "loss", "update"}
OF_ROWS = OF_ALL | {"sweep", "row pull-back", "decomposition", "pull-down"}
NAP = 0.02


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        (Adam(), OF_ALL | {"solver backward", "network backward"}),
        (HIG(method="gram"), OF_ROWS | {"Gram"}),
        (HIG(method="qr"), OF_ROWS | {"Gram"}),
        (LevenbergMarquardt(), OF_ROWS | {"Gram", "tangents"}),
        (AdaptiveHIG(), OF_ROWS | {"Gram", "tangents"}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_parts_of_a_step(optimizer, expected):
    found = profile(SMALL.problem(), optimizer, batch=8, steps=4)
    assert set(found.parts) == expected
    assert min(found.parts.values()) >= 0
    assert found.batch == 8


def napping(cls, *methods):
    """A class whose methods of these names sleep first."""

    def slow(method):
        def sleeping(self, *arguments):
            time.sleep(NAP)
            return method(self, *arguments)

        return sleeping

    return type(cls.__name__, (cls,), {name: slow(getattr(cls, name)) for name in methods})


class Loss(SquaredError):
    def value(self, y, target):
        time.sleep(NAP)
        return super().value(y, target)


CASES = [
    ("network", {"network": napping(MLP, "forward")((4, 5, 6))}),
    ("solver", {"solver": napping(OscillatorChain, "forward")(steps=6)}),
    ("sweep", {"solver": napping(OscillatorChain, "rows")(steps=6)}),
    ("row pull-back", {"network": napping(MLP, "rows")((4, 5, 6))}),
    ("loss", {"loss": Loss()}),
]


def with_parts(**parts):
    return dataclasses.replace(SMALL.problem(), **parts)


@pytest.mark.parametrize(("part", "changes"), CASES, ids=[part for part, _ in CASES])
def test_time_is_told_where_it_is_spent(part, changes):
    found = profile(with_parts(**changes), HIG(), batch=8, steps=3).parts
    assert found.pop(part) >= NAP
    assert max(found.values()) < NAP


def test_all_that_a_part_calls_is_its_own():
    class Sweeping(OscillatorChain):
        def rows(self, tape):
            return self.backward(tape, np.broadcast_to(np.eye(4), (tape[0].shape[-1], 4, 4)))

        def backward(self, tape, y_bar):
            time.sleep(NAP)
            return super().backward(tape, y_bar)

    found = profile(with_parts(solver=Sweeping(steps=6)), HIG(), batch=8, steps=3).parts
    assert found["sweep"] >= NAP
    assert "solver backward" not in found


def test_drawing_data_counts_and_evaluating_them_does_not():
    problem = SMALL.problem()

    def draw(rng, size):
        time.sleep(NAP)
        return problem.train[rng.integers(0, 24, size)]

    fresh = dataclasses.replace(problem, train=FreshData(draw, count=24))
    found = profile(fresh, Adam(), batch=8, steps=3)
    assert found.parts["data"] >= NAP
    assert found.total < 2 * NAP


def decorated(method, wraps):
    def same_code(self, *arguments):
        return method(self, *arguments)

    return functools.wraps(method)(same_code) if wraps else same_code


@pytest.mark.parametrize("wraps", [True, False])
def test_methods_of_one_decorator_are_told_apart_if_it_says_what_it_wraps(wraps):
    body = {name: decorated(getattr(MLP, name), wraps) for name in ("forward", "rows")}
    network = type("Decorated", (MLP,), body)((4, 5, 6))
    found = profile(with_parts(network=network), HIG(), batch=8, steps=2).parts
    assert ("network" in found) is ("row pull-back" in found) is wraps


def test_the_profiler_that_was_there_is_put_back():
    def mine(*_):
        pass

    sys.setprofile(mine)
    try:
        profile(SMALL.problem(), Adam(), batch=8, steps=1)
        assert sys.getprofile() is mine
    finally:
        sys.setprofile(None)
    with pytest.raises(ValueError, match="batch must be at most"):
        profile(SMALL.problem(), Adam(), batch=99)
    assert sys.getprofile() is None


def test_runs_in_other_threads_are_their_own():
    found = []
    thread = threading.Thread(target=lambda: found.append(profile(SMALL.problem(), HIG(), batch=8)))
    thread.start()
    profile(SMALL.problem(), Adam(), batch=8)
    thread.join()
    assert "row pull-back" in found[0].parts


def test_a_run_that_ends_too_early_is_raised():
    with pytest.raises(TrainingError, match="the training loss is nan"):
        profile(SMALL.problem(), Adam(lr=1e300), batch=8)
    found = profile(SMALL.problem(), Adam(lr=1e300), batch=8, after=0)
    assert "network" in found.parts  # of the one step that was made


def test_ctrl_c_is_not_caught(monkeypatch):
    """Neither before the clock runs nor then."""
    made, honest = [], Updates.make

    def make(self, watch):
        made.append(1)
        if len(made) == last:
            raise KeyboardInterrupt
        honest(self, watch)

    monkeypatch.setattr(Updates, "make", make)
    for last in (2, 6):
        made.clear()
        with pytest.raises(KeyboardInterrupt):
            profile(SMALL.problem(), Adam(), batch=8)
        assert len(made) == last


def test_on_a_device(monkeypatch):
    with strict_cupy.installed(monkeypatch):
        found = profile(SMALL.problem().on("gpu"), HIG(), batch=8, steps=2).parts
    assert set(found) >= OF_ROWS


def test_the_table():
    text = str(Profile({"network": 0.001, "decomposition": 0.003}, 8))
    assert text.splitlines() == [
        "network             1.000 ms  25.0%",
        "decomposition       3.000 ms  75.0%",
        "together            4.000 ms 100.0%",
    ]
