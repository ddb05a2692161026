"""``==`` between things that hold arrays: equal content, NaN equal to NaN; it never raises."""

import copy
import functools
import math
import threading
from dataclasses import replace as changed

import numpy as np
import pytest
import strict_cupy

from bench.experiments import Dipole, Oscillators, Poisson
from higcore import (
    HIG,
    Adam,
    Batch,
    FreshData,
    HalfInverseInfo,
    History,
    fit,
    load_checkpoint,
    save_checkpoint,
)
from higcore.backend import same
from higcore.losses import ComponentError, Infidelity, SquaredError
from higcore.problem import Shuffled
from higcore.training.result import Epoch, State
from nets import MLP
from solvers import OscillatorChain, QuantumDipole

CHAIN = Oscillators(OscillatorChain(steps=12, dt=0.5), (6,), "tanh", 40, 24)
RESULT = fit(CHAIN.problem(), HIG(), batch=8, steps=7, diagnostics=True)
NAN = np.array([1.0, math.nan])


def draw(rng, size):
    return Batch(*[rng.random((size, 4))] * 3)


def info(gap=math.nan, rank=3):
    return HalfInverseInfo("gram", rank, 2.0, 1.0, 0.1, gap)


def batch(x=NAN, target=NAN):
    return Batch(x.copy(), np.ones(2), target.copy())


def state(theta=NAN, **optimizer):
    return State(theta.copy(), {"mean": np.zeros(2), "rate": float("nan")} | optimizer)


def rows(loss="nan"):
    return History([Epoch(0.0, 0, 0.0, None, float(loss))])


MADE = {  # each makes the same thing anew
    "batch": batch,
    "state": state,
    "history": rows,
    "info": lambda: info(float("nan")),
    "component": lambda: ComponentError(np.ones(4)),
    "fresh": lambda: FreshData(draw, 3),
    "fresh, partial": lambda: FreshData(functools.partial(draw, size=3)),
    "fresh, method": lambda: Poisson(samples=8, test_samples=4).problem(2).train,
    "oscillators": CHAIN.problem,
    "poisson": Poisson(samples=8, test_samples=4).problem,
    "dipole-cnn": Dipole(QuantumDipole(16, 7), convolutional=True, samples=8).problem,
    "best": lambda: copy.deepcopy(RESULT.best),
    "shuffled": lambda: Shuffled(NAN.copy(), np.ones(2), NAN.copy(), seed=3),
    "result": lambda: copy.deepcopy(RESULT),
}
OTHERS = {
    "value": (batch(), batch(target=np.array([1.0, 2.0]))),
    "dtype": (batch(), batch(NAN.astype(np.float32))),
    "shape": (batch(), batch(NAN[:1])),
    "no array": (batch(), Batch(None, [1.0], "targets")),
    "state": (state(), state(mean=np.ones(2))),
    "keys": (state(), state(more=1)),
    "loss": (rows(), rows("1")),
    "longer": (rows(), rows() + rows()),
    "rank": (info(), info(rank=4)),
    "mode": (ComponentError(np.ones(4)), ComponentError(np.ones(6))),
    "seed": (FreshData(draw, 3), FreshData(draw, 4)),
    "draw": (FreshData(draw, 3), FreshData(lambda rng, size: draw(rng, size), 3)),
    "network": (CHAIN.problem(), changed(CHAIN.problem(), network=MLP((4, 6, 12), "relu"))),
    "train": (CHAIN.problem(1), CHAIN.problem(2)),
    "loss function": (CHAIN.problem(), changed(CHAIN.problem(), loss=SquaredError(2))),
    "theta": (RESULT, changed(RESULT, state=RESULT.state._replace(theta=RESULT.theta + 1))),
    "steps": (RESULT, changed(RESULT, state=RESULT.state._replace(steps=8))),
    "batch": (RESULT, changed(RESULT, batch=9)),
    "best": (RESULT, changed(RESULT, best=RESULT.best._replace(theta=RESULT.theta + 1))),
    "order": (Shuffled(NAN, NAN, NAN, seed=1), Shuffled(NAN, NAN, NAN, seed=2)),
    "shuffled": (Shuffled(NAN, NAN, NAN), Batch(NAN, NAN, NAN)),
    "kind": (CHAIN.problem(), RESULT),
}  # fmt: skip


@pytest.mark.parametrize("name", MADE)
def test_equal_content_is_equal(name):
    one, other = MADE[name](), MADE[name]()
    assert one is not other
    assert one == other
    assert not one != other  # noqa: SIM202  both operators are asked
    assert one != 3


@pytest.mark.parametrize("name", OTHERS)
def test_other_content_is_not(name):
    one, other = OTHERS[name]
    assert not one == other  # noqa: SIM201
    assert one != other
    assert other != one


@pytest.mark.parametrize("name", ["info", "fresh", "fresh, partial", "fresh, method"])
def test_equal_things_have_equal_hashes(name):
    assert hash(MADE[name]()) == hash(MADE[name]())


@pytest.mark.parametrize(
    "name", ["batch", "state", "history", "component", "oscillators", "result"]
)
def test_what_holds_arrays_has_no_hash(name):
    with pytest.raises(TypeError, match="unhashable type"):
        hash(MADE[name]())


def test_a_run_that_was_saved_is_the_same_run(tmp_path):
    save_checkpoint(tmp_path / "run.npz", RESULT)
    assert load_checkpoint(tmp_path / "run.npz") == RESULT


class Lazy:
    @functools.cached_property
    def size(self):
        return 3


def test_what_a_part_computed_meanwhile_does_not_count():
    used, lazy = CHAIN.problem(), Lazy()
    fit(used, Adam(), batch=8, steps=1)
    assert lazy.size == used.sample.count - 37
    assert "sample" in vars(used)
    assert "size" in vars(lazy)
    assert used == CHAIN.problem()
    assert same(lazy, Lazy())


def test_on_a_device(monkeypatch):
    with strict_cupy.installed(monkeypatch):
        problem = CHAIN.problem()
        assert problem.on("gpu") == problem.on("gpu")
        assert problem.on("gpu").on("cpu") == problem
        assert problem.on("gpu") != problem  # what runs elsewhere is not the same
        assert problem != problem.on("gpu")


def test_jacobians_are_told_apart_by_identity():
    """They are computed, and hold the parts they are computed from: == asks for neither."""
    problem = CHAIN.problem()
    at = [problem.linearise(RESULT.theta, problem.batch(0, 8)) for _ in range(2)]
    assert at[0] == at[0]
    assert at[0] != at[1]
    assert at[0].jacobian() != at[1].jacobian()
    assert len({*at}) == 2


class Holder:
    """A part of a user's own."""

    def __init__(self, **parts):
        vars(self).update(parts)


class Refusing:
    def __eq__(self, other):
        raise ValueError("ask me not")

    __hash__ = None


def holding_itself():
    part = Holder()
    part.part = part
    return part


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        (Holder(a=NAN, b=[1, (2.0, NAN)]), Holder(a=NAN.copy(), b=[1, (2.0, NAN.copy())]), True),
        (Holder(a=1), Holder(a=1, b=2), False),
        (Holder(), Holder(), True),
        (Holder(f=len), Holder(f=abs), False),
        (Holder(f=lambda: 1), Holder(f=lambda: 1), False),
        (Holder(kind=HIG), Holder(kind=Adam), False),
        (Holder(kind=Infidelity), Holder(kind=SquaredError), False),
        (Holder(lock=threading.Lock()), Holder(lock=threading.Lock()), False),
        (Holder(part=Refusing()), Holder(part=Refusing()), False),
        (holding_itself(), holding_itself(), False),
        (np.float64(3), 3, True),
        (np.array([Refusing()]), np.array([Refusing()]), False),
        (np.array(["a"]), np.array(["a"]), True),
        (math.nan, float("nan"), True),
        ({"a": NAN}, {"a": NAN.copy()}, True),
        (1, "1", False),
    ],
)  # fmt: skip
def test_parts_of_ones_own(one, other, equal):
    assert same(one, other) is equal
    assert same(other, one) is equal
    assert same(one, one)
