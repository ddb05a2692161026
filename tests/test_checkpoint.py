"""Runs that survive: saved, killed, loaded and resumed with the bits of an uninterrupted run."""

import copy
import dataclasses
import errno
import io
import logging
import math
import os
import re
import subprocess
import sys
import tracemalloc
from pathlib import Path

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_experiments import SMALL

from bench.experiments import OPTIMIZERS, Oscillators
from higcore import (
    HIG,
    SGD,
    Adam,
    Batch,
    Checkpoints,
    FreshData,
    HalfInverseInfo,
    NonFiniteError,
    Problem,
    Result,
    fit,
    load_checkpoint,
    save_checkpoint,
)
from higcore.losses import SquaredError
from higcore.training.identity import describe as in_words
from higcore.training.result import Best, Epoch, State
from nets import MLP, ConvNet1d, Network
from nets.layers import Conv1d, Dense
from solvers import OscillatorChain, ScaledOutputs

ROOT = Path(__file__).resolve().parent.parent
CHAIN = Oscillators(OscillatorChain(steps=12, dt=0.5), (6,), "tanh", 40, 24, "toy-chain")


@pytest.fixture
def problem():
    return CHAIN.problem(seed=5)


@pytest.fixture
def run(problem):
    return fit(problem, Adam(), batch=8, steps=7)


def describe(value):
    """Every type, shape and bit of a result as text; the order of dict entries does not count."""
    if isinstance(value, dict):
        return str(sorted((name, describe(item)) for name, item in value.items()))
    if isinstance(value, Result):
        return str([describe(getattr(value, f.name)) for f in dataclasses.fields(value)])
    if isinstance(value, (State, Best)):
        return str([*map(describe, value)])
    if isinstance(value, np.ndarray):
        return f"{value.dtype.str} {value.shape} {value.tobytes()}"
    return repr(value)


def bits(result):
    """All of a result that must not depend on interruptions: all but times, and which was last."""
    rows = [row._replace(seconds=0.0) for row in result.history]
    names = ("status", "batch", "identity", "theta", "steps", "message")
    return [describe(getattr(result, n)) for n in names] + [
        describe(result.state.optimizer), describe(result.state.info), describe(rows),
        describe(result.state.epoch_loss), result.state.epoch_steps,
    ]  # fmt: skip


@pytest.mark.parametrize("cut", ["after an epoch", "within an epoch"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", SMALL)
def test_resumed_equals_uninterrupted(name, optimizer, cut, tmp_path):
    experiment, path = SMALL[name], tmp_path / "run.npz"
    problem, optimizer = experiment.problem(3), experiment.settings[optimizer].optimizer
    if isinstance(optimizer, SGD):
        optimizer = SGD(lr=1e-3)  # with the experiment's, Poisson diverges at once
    options = {"batch": problem.train.count // 4, "seed": 2}
    whole = fit(problem, optimizer, steps=11, **options)
    if cut == "after an epoch":  # the file is written in the middle of the run
        callbacks = [Checkpoints(path, every=0), lambda result: result.steps == 4]
        fit(problem, optimizer, steps=11, on_epoch=callbacks, **options)
        assert load_checkpoint(path).status == "stopped"
    else:
        save_checkpoint(path, fit(problem, optimizer, steps=6, **options))
    part = load_checkpoint(path)
    resumed = fit(problem, optimizer, steps=11, resume=part, **options)
    assert resumed.seconds > part.seconds
    if cut == "within an epoch":  # its last row divides the training losses of the epoch
        rows = [row for row in resumed.history if row.step != 6]
        rows[2] = rows[2]._replace(train_loss=whole.history[2].train_loss)
        resumed = dataclasses.replace(resumed, history=rows)
    assert bits(resumed) == bits(whole)


@dataclasses.dataclass(frozen=True)
class Drift:
    """An optimizer whose every step is the same number; the loss grows, or stays."""

    change: float

    def init(self, theta):
        return {}

    def update(self, at, state):
        return self.change + 0 * at.theta, state, None


def assert_same_run(one, other):
    assert bits(one) == bits(other)
    assert one.train_loss == other.train_loss
    assert [row.train_loss for row in one.history] == [row.train_loss for row in other.history]


@pytest.mark.parametrize("kind", ["on_step", "on_epoch"])
@pytest.mark.parametrize("evaluate_every", [1, 2])
@pytest.mark.parametrize(("optimizer", "end"), [
    (HIG(), {"steps": 22}), (Adam(), {"steps": 10}), (Adam(), {"epochs": 3.4}),
    (Drift(1e-3), {"steps": 60, "patience": 2}), (Drift(40.0), {"steps": 60}),
], ids=["hig", "ends there", "within", "stagnated", "diverged"])  # fmt: skip
def test_a_run_resumed_from_a_callback_is_the_uninterrupted_one(
    optimizer, end, evaluate_every, kind, problem, tmp_path
):
    """Wherever the callback saved: before the row of an epoch, or before what follows from it."""
    options = {"batch": 8, "evaluate_every": evaluate_every} | end
    saved = []

    def save(result):
        saved.append(tmp_path / f"{len(saved)}.npz")
        save_checkpoint(saved[-1], result)

    whole = fit(problem, optimizer, **options, **{kind: [save]})
    assert len(saved) == (whole.steps if kind == "on_step" else len(whole.history))
    for path in saved:
        part = load_checkpoint(path)
        assert part.status == "running"
        assert_same_run(fit(problem, optimizer, resume=part, **options), whole)


@pytest.mark.parametrize("kind", ["on_step", "on_epoch"])
@pytest.mark.parametrize("how", ["stopped", "interrupted"])
@pytest.mark.parametrize("at", [5, 6, 10])
def test_a_run_resumed_where_a_callback_ended_it(how, kind, at, problem):
    """Its last row may be the second without improvement, which nobody had looked at."""

    def end(result):
        if result.steps == at:
            if how == "interrupted":
                raise KeyboardInterrupt
            return True

    options = {"batch": 8, "steps": 60, "patience": 2}
    whole = fit(problem, Drift(1e-3), **options)
    assert (whole.status, whole.steps) == ("stagnated", 10)
    part = fit(problem, Drift(1e-3), **options, **{kind: [end]})
    ended = kind == "on_step" or at != 6
    assert (part.status, part.steps) == ((how, at) if ended else ("stagnated", 10))
    if ended:
        assert_same_run(fit(problem, Drift(1e-3), resume=part, **options), whole)


def test_a_run_that_stagnated_goes_on_if_it_is_asked_to(problem):
    """As does one that is given a patience only when it is resumed."""
    run = fit(problem, Drift(1e-3), batch=8, steps=60, patience=2)
    again = fit(problem, Drift(1e-3), batch=8, steps=60, patience=2, resume=run)
    assert (again.status, again.steps) == ("stagnated", 15)
    run = fit(problem, Drift(1e-3), batch=8, steps=20)
    again = fit(problem, Drift(1e-3), batch=8, steps=60, patience=2, resume=run)
    assert (again.status, again.steps) == ("stagnated", 25)


def test_a_run_that_diverged_can_be_saved_and_resumed(problem, tmp_path):
    run = fit(problem, Adam(lr=1e150), batch=8, steps=50)
    assert run.status == "non-finite"
    save_checkpoint(tmp_path / "run.npz", run)
    loaded = load_checkpoint(tmp_path / "run.npz")
    assert bits(loaded) == bits(run)


FLOATS = st.floats(allow_nan=True)
ARRAYS = hnp.arrays(
    st.sampled_from(["f2", "f4", "f8", "i1", "i8", "u8", "?", "c8", "c16", ">f8"]),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | FLOATS | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.text().filter(str.isprintable)
INFOS = st.builds(HalfInverseInfo, st.text(), st.integers(), *[FLOATS] * 4, st.none() | st.text())
STATES = st.builds(
    State,
    hnp.arrays(
        st.sampled_from([np.float32, np.float64]),
        st.integers(1, 20),
        elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
    ),
    st.dictionaries(NAMES, ARRAYS | ARRAYS.map(np.transpose) | PLAIN, max_size=4),
    st.integers(),
    FLOATS,
    FLOATS,
    st.integers(),
    st.none() | INFOS,
)
EPOCHS = st.builds(
    Epoch, FLOATS, st.integers(), FLOATS, st.none() | FLOATS, FLOATS, st.none() | FLOATS
)
RESULTS = st.builds(
    Result,
    STATES,
    st.lists(EPOCHS, max_size=4),
    st.integers(),
    st.dictionaries(st.text(), st.text() | st.integers(), max_size=3),
    st.text(),
    st.text(),
    FLOATS,
    FLOATS,
)


@given(RESULTS, st.none() | st.tuples(FLOATS, FLOATS, st.integers()))
def test_round_trip(tmp_path_factory, result, best):
    if best is not None:
        result = dataclasses.replace(result, best=Best(result.theta[::-1] / 2, *best))
    path = tmp_path_factory.getbasetemp() / "round-trip.npz"
    save_checkpoint(path, result)
    loaded = load_checkpoint(path)
    assert describe(loaded) == describe(result)


def test_numpy_scalars_of_an_optimizer_come_back_as_arrays(run, tmp_path):
    state = run.state._replace(optimizer={"rate": np.float32(0.1), "count": np.int64(3)})
    save_checkpoint(tmp_path / "run.npz", dataclasses.replace(run, state=state))
    loaded = load_checkpoint(tmp_path / "run.npz").state.optimizer
    assert {k: (v.dtype, v.shape, v.item()) for k, v in loaded.items()} == {
        "rate": (np.float32, (), np.float32(0.1).item()),
        "count": (np.int64, (), 3),
    }


@pytest.mark.parametrize(
    ("optimizer", "error", "message"),
    [
        ({"m": (1, 2)}, TypeError, "'m' in the optimizer's state is a tuple; a checkpoint holds"),
        ({"m": [np.zeros(2)]}, TypeError, "'m' in the optimizer's state is a list"),
        ({"m": {1: 2.0}}, TypeError, "'m' in the optimizer's state is a dict"),
        ({"m": object()}, TypeError, "'m' in the optimizer's state is a object"),
        ({"a\0b": 1}, TypeError, "must be printable text, got 'a\\\\x00b'"),
        ({7: 1}, TypeError, "must be printable text, got 7"),
        ({"m": np.array([{}])}, ValueError, "array 'optimizer.m' has dtype object; a checkpoint"),
        ({"m": np.array(["a"])}, ValueError, "array 'optimizer.m' has dtype <U1"),
    ],
)
def test_what_could_not_be_loaded_is_not_saved(run, tmp_path, optimizer, error, message):
    path = tmp_path / "run.npz"
    save_checkpoint(path, run)
    with pytest.raises(error, match=message):
        save_checkpoint(
            path, dataclasses.replace(run, state=run.state._replace(optimizer=optimizer))
        )
    assert bits(load_checkpoint(path)) == bits(run)


def test_bad_results_are_not_saved(run, tmp_path):
    path = tmp_path / "run.npz"
    spoiled = run.state._replace(theta=run.theta * np.nan)
    with pytest.raises(NonFiniteError, match="theta holds 114 non-finite value"):
        save_checkpoint(path, dataclasses.replace(run, state=spoiled))
    with pytest.raises(ValueError, match=r"batch is of type .*str.*, not .*int"):
        save_checkpoint(path, dataclasses.replace(run, batch="8"))
    with pytest.raises(TypeError, match="result must be a Result, such as fit returns, got None"):
        save_checkpoint(path, None)
    assert not path.exists()


def test_no_second_copy_of_the_arrays_is_made(run, tmp_path):
    state = run.state._replace(theta=np.ones(4_000_000))  # 32 MB
    save_checkpoint(tmp_path / "run.npz", run)
    tracemalloc.start()
    best = run.best._replace(theta=state.theta)
    save_checkpoint(tmp_path / "run.npz", dataclasses.replace(run, state=state, best=best))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 24e6  # NumPy writes parts of 16 MiB


ABSCISSA = np.arange(1.0, 4.0)[:, None] / 4  # of one sample a batch: no sum, so no order of it
LINE = Batch(ABSCISSA, ABSCISSA, np.hstack([ABSCISSA**2, 1 - ABSCISSA]))


@dataclasses.dataclass(frozen=True)
class Momentum:
    """An optimizer whose state holds arrays, numbers and lists; it rounds alike everywhere."""

    def init(self, theta):
        return {"velocity": np.zeros_like(theta), "updates": 0, "rates": [0.5, None, {"of": "G"}]}

    def update(self, at, state):
        velocity = state["velocity"] / 2 + at.gradient() / 8
        return velocity, state | {"velocity": velocity, "updates": state["updates"] + 1}, None


def fit_a_line(**options):
    problem = Problem(MLP((1, 2)), ScaledOutputs(0.5), SquaredError(), LINE, LINE[:2], name="line")
    theta = np.array([0.5, -0.25, 0.125, 1.0])
    start = {} if "resume" in options else {"theta": theta}
    return fit(problem, Momentum(), batch=1, diagnostics=True, **start, **options)


INFO = HalfInverseInfo("band", 3, 2.0, 0.5, 2e-6, math.inf, "tridiagonal failed", "3 poles")
WRITTEN = {"format-2": {}, "format-3": {"validation": LINE[2:]}}  # and what `fit` was given


@pytest.mark.parametrize("name", WRITTEN)
def test_a_checkpoint_that_was_written_before_is_read_and_resumed(name):
    """Files in tests/data are kept as they are: nothing may turn them into unreadable ones."""
    loaded, options = load_checkpoint(ROOT / f"tests/data/{name}.npz"), WRITTEN[name]
    made = fit_a_line(steps=4, **options)
    made = dataclasses.replace(made, state=made.state._replace(info=INFO))
    assert loaded.identity.items() <= made.identity.items()
    since = made.identity.keys() - loaded.identity.keys()
    assert since == {"ridge"} if name == "format-3" else since > {"ridge"}
    assert loaded.best == (None if name == "format-2" else made.best)
    assert bits(dataclasses.replace(loaded, identity=made.identity)) == bits(made)
    assert (loaded.fallbacks, loaded.error) == (1, "Traceback")
    assert [row.step for row in loaded.diagnostics] == [1, 2, 3, 4]
    assert 0 < loaded.first_step_seconds <= loaded.seconds == loaded.history[-1].seconds
    resumed = fit_a_line(steps=8, resume=loaded, **options)
    whole = fit_a_line(steps=8, **options)
    assert resumed.theta.tobytes() == whole.theta.tobytes()
    assert describe(resumed.state.optimizer) == describe(whole.state.optimizer)
    assert resumed.best == whole.best  # of format 2, a later state than it holds
    rows = [[row._replace(seconds=0.0) for row in run.history] for run in (resumed, whole)]
    assert len(rows[0]) == len(rows[1]) == 4
    for one, other in zip(*rows, strict=True):
        assert one._replace(train_loss=None) == other._replace(train_loss=None)
    assert [row.step for row in resumed.diagnostics] == [*range(1, 9)]


class Plain:
    """A network of a user's own, without a repr, around one of ours."""

    def __init__(self, network):
        self.network = network

    def __getattr__(self, name):
        return getattr(self.network, name)


@dataclasses.dataclass(frozen=True)
class Pushed(OscillatorChain):
    """A solver with a part whose repr is an address."""

    push: object = None


CHANGES = {
    "network MLP((4, 6, 12), activation='tanh'), this run has MLP((4, 7, 12), activation='tanh'); "
    "for parameters 114, this run has 131": {"network": MLP((4, 7, 12))},
    "activation='tanh'), this run has MLP((4, 6, 12), activation='relu')": {
        "network": MLP((4, 6, 12), "relu")
    },
    "network MLP((4, 6, 12), activation='tanh'), this run has Plain; for parameters 114, this run "
    "has 131": {"network": Plain(MLP((4, 7, 12)))},
    "solver OscillatorChain(oscillators=2, steps=12, dt=0.5, cubic=1.0, linear=0.0, "
    "control=(0.0, 3.0)), this run has OscillatorChain(oscillators=2, steps=12, dt=0.25, ": {
        "solver": OscillatorChain(steps=12, dt=0.25)
    },
    "loss SquaredError(factor=1.0), this run has SquaredError(factor=0.5)": {
        "loss": SquaredError(0.5)
    },
    "batch_mean True, this run has False": {"batch_mean": False},
    "problem toy-chain, this run has other": {"name": "other"},
}


@pytest.mark.parametrize("message", CHANGES)
def test_another_problem_is_not_resumed(problem, run, message):
    other = dataclasses.replace(problem, **CHANGES[message])
    with pytest.raises(ValueError, match="^resume was made for .*" + re.escape(message)):
        fit(other, Adam(), batch=8, steps=9, resume=run)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": 4}, "^resume was made for batch 8, this run has 4$"),
        ({"seed": 1}, "^resume was made for seed 0, this run has 1$"),
        ({"optimizer": Adam(lr=0.5)}, r"for optimizer Adam\(lr=0.001, .* has Adam\(lr=0.5"),
        ({"optimizer": HIG()}, r"for optimizer Adam\(lr=0.001, .*, this run has HIG\(lr=1.0"),
        ({"problem": CHAIN.problem(5, np.float32)}, "for dtype float64, this run has float32$"),
        (
            {"problem": dataclasses.replace(CHAIN, samples=41).problem(5)},
            "^resume was made for samples 40, this run has 41; other_data=True goes on",
        ),
    ],
)
def test_another_run_is_not_resumed(problem, run, options, message):
    same = {"problem": problem, "optimizer": Adam(), "batch": 8, "steps": 9, "resume": run}
    assert fit(**same).steps == 9
    with pytest.raises(ValueError, match=message):
        fit(**same | options)


class Spring(OscillatorChain):
    """A solver whose author wrote no repr, with plain attributes and others."""

    __repr__ = object.__repr__

    def __init__(self, **attributes):
        super().__init__(steps=12, dt=0.5)
        self.__dict__ |= {"push": len, "_calls": np.random.default_rng().random()} | attributes


def dense(activation, widths=(4, 6, 12)):
    first = Dense(*widths[:2], activation, 0)
    return Network([first, Dense(*widths[1:], "linear", first.size)])


@pytest.mark.parametrize(
    ("part", "was", "now", "message"),
    [
        (
            "network", dense("tanh"), dense("relu"),
            "Network([Dense(4, 6, 'tanh', 0), Dense(6, 12, 'linear', 30)]), this run has "
            "Network([Dense(4, 6, 'relu', 0), Dense(6, 12, 'linear', 30)])",
        ),
        ("solver", Spring(k=1.0), Spring(k=50.0), "k=1.0), this run has Spring(.*k=50.0)"),
        ("solver", Spring(k=True), Spring(k=None), "k=True), this run has Spring(.*k=None)"),
        ("solver", Spring(k="a"), Spring(k=("a", [2])), "this run has Spring(.*k=('a', (2)))"),
        (
            "solver", Spring(k=np.arange(4)), Spring(k=np.arange(4) + 1),
            "k=int64 (4,) sha256 .*), this run has Spring(.*k=int64 (4,) sha256 ",
        ),
    ],
)  # fmt: skip
def test_parts_of_ones_own_are_told_apart(problem, part, was, now, message):
    run = fit(dataclasses.replace(problem, **{part: was}), Adam(), batch=8, steps=1)
    options = {"batch": 8, "steps": 2, "resume": run}
    same = dataclasses.replace(problem, **{part: copy.deepcopy(was)})
    assert fit(same, Adam(), **options).steps == 2
    pattern = re.escape(message).replace(r"\.\*", ".*")
    with pytest.raises(ValueError, match=f"^resume was made for {part} .*{pattern}"):
        fit(dataclasses.replace(problem, **{part: now}), Adam(), **options)


def test_what_a_part_is_in_words():
    assert in_words(Plain(np.float32(0.5))) == "Plain(network=0.5)"
    assert in_words(Plain(np.array([{}]))).startswith("Plain(network=object (1,) sha256 ")
    assert in_words(Plain((1, len))) == in_words(object.__new__(Plain)) == "Plain"
    assert in_words(Plain(np.eye(3)[:, 1])) == in_words(Plain(np.eye(3)[1]))
    assert in_words(object()) == "object"
    assert repr(Conv1d(8, 2, 3, 3, "relu", 0, True)) == "Conv1d(8, 2, 3, 3, 'relu', 0, True)"
    own_layer = dense("tanh")
    own_layer.layers[0] = Plain(1)
    assert repr(own_layer).startswith("Network([Plain(network=1), Dense(")


def other_values(batch):
    return Batch(batch.x, batch.net_input, batch.target + 1e-9)


@pytest.mark.parametrize("part", ["train", "test"])
def test_other_data_of_the_same_size_are_not_resumed(problem, run, part):
    other = dataclasses.replace(problem, **{part: other_values(getattr(problem, part))})
    message = (
        f"^resume was made for {part}_data sha256 [0-9a-f]{{16}}, "
        "this run has sha256 [0-9a-f]{16}"
        "; other_data=True goes on with other data$"
    )
    with pytest.raises(ValueError, match=message):
        fit(other, Adam(), batch=8, steps=9, resume=run)


def test_other_fresh_data_are_not_resumed(problem):
    def fresh(seed, shift=0.0):
        def draw(rng, size):
            return Batch(*(rng.random((size, 4)) + shift for _ in range(3)))

        data = FreshData(draw, seed, count=40)
        return dataclasses.replace(problem, train=data)

    options = {"batch": 8, "steps": 9, "resume": fit(fresh(0), Adam(), batch=8, steps=7)}
    assert fit(fresh(0), Adam(), **options).steps == 9
    with pytest.raises(
        ValueError, match=r"^resume was made for data_seed 0, this run has 1; for t"
    ):
        fit(fresh(1), Adam(), **options)
    with pytest.raises(ValueError, match=r"^resume was made for train_data sha256"):
        fit(fresh(0, 1.0), Adam(), **options)


def test_checkpoints_that_do_not_know_their_data_are_resumed(problem, run, tmp_path):
    """Those of format 2 from before the data belonged to the identity."""
    known = {k: v for k, v in run.identity.items() if not k.endswith(("_data", "data_seed"))}
    assert len(known) == len(run.identity) - 4
    save_checkpoint(tmp_path / "run.npz", dataclasses.replace(run, identity=known))
    loaded = load_checkpoint(tmp_path / "run.npz")
    whole = fit(problem, Adam(), batch=8, steps=9)
    assert bits(fit(problem, Adam(), batch=8, steps=9, resume=loaded))[3:7] == bits(whole)[3:7]
    with pytest.raises(ValueError, match=r"^resume was made for batch 8"):
        fit(problem, Adam(), batch=4, steps=9, resume=loaded)


def test_a_run_that_does_not_say_which_it_is_is_not_resumed(problem, run):
    with pytest.raises(ValueError, match="resume does not say which run it is from; begin a new"):
        fit(problem, Adam(), batch=8, steps=9, resume=dataclasses.replace(run, identity={}))


def test_resume_has_its_own_theta(problem, run):
    with pytest.raises(ValueError, match="theta cannot be given together with resume"):
        fit(problem, Adam(), batch=8, steps=9, resume=run, theta=run.theta)


def test_the_identity_knows_no_addresses(problem):
    network, solver = Plain(MLP((4, 6, 12))), Pushed(steps=12, dt=0.5, push=Plain(None))
    own = dataclasses.replace(problem, network=network, solver=solver)
    identity = fit(own, HIG(), batch=8, steps=1).identity
    assert identity["network"] == "Plain"
    assert identity["solver"].endswith("push=<test_checkpoint.Plain object>)")
    assert "0x" not in str(identity)


def test_the_identity_of_a_convolutional_network(problem):
    network = ConvNet1d(4, 1, [3], 3, 12)
    run = fit(dataclasses.replace(problem, network=network), HIG(), batch=8, steps=1)
    assert run.identity["parameters"] == network.size
    assert run.identity["network"].startswith("ConvNet1d")


class Clock:
    """Stands in for `time.monotonic`."""

    def __init__(self, monkeypatch):
        self.now = 1000.0
        monkeypatch.setattr("higcore.training.checkpoint.time.monotonic", lambda: self.now)


def test_the_callback_saves_at_intervals(problem, tmp_path, monkeypatch):
    clock, path = Clock(monkeypatch), tmp_path / "new" / "folder" / "run.npz"
    save, saved = Checkpoints(path, every=30.0), []
    assert path.parent.is_dir()

    def tick(result):
        clock.now += 10
        assert save(result) is None
        saved.append(load_checkpoint(path).steps if path.exists() else None)

    fit(problem, HIG(), batch=8, epochs=7, on_epoch=[tick])
    assert saved == [None, None, 10, 10, 10, 25, 25, 25]


def test_a_full_disk_does_not_end_the_run(run, tmp_path, monkeypatch, caplog):
    clock, path = Clock(monkeypatch), tmp_path / "run.npz"
    save, replace = Checkpoints(path, every=5), os.replace

    def full(*_):
        raise OSError(errno.ENOSPC, "full")

    def call(at, replaced_by, warnings):
        clock.now = 1000.0 + at
        monkeypatch.setattr(os, "replace", replaced_by)
        save(run)
        assert len(caplog.records) == warnings

    call(6, full, 1)
    call(8, replace, 1)  # not yet
    assert not path.exists()
    call(12, full, 1)  # known already
    call(18, replace, 1)
    assert bits(load_checkpoint(path)) == bits(run)
    call(24, full, 2)
    assert bits(load_checkpoint(path)) == bits(run)
    first = caplog.records[0]
    assert (first.name, first.levelno) == ("higcore", logging.WARNING)
    assert "run.npz' could not be written (No space left on device): it takes" in first.getMessage()


def test_other_mistakes_do_end_the_run(run, tmp_path):
    save = Checkpoints(tmp_path / "run.npz", every=0)
    with pytest.raises(TypeError, match="printable text"):
        save(dataclasses.replace(run, state=run.state._replace(optimizer={1: 2})))
    with pytest.raises(ValueError, match="every must be a finite number"):
        Checkpoints(tmp_path / "run.npz", every=-1)
    with pytest.raises(IsADirectoryError, match=r"is a folder, not a file such as 'run.npz'"):
        Checkpoints(tmp_path)


class FullDisk(io.FileIO):
    """A file on a disk that has room for some bytes more."""

    room = 0

    def write(self, data):
        taken = min(FullDisk.room, memoryview(data).nbytes)
        if not taken:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        FullDisk.room -= taken
        return super().write(memoryview(data).cast("B")[:taken])


@pytest.mark.parametrize("room", [0, 1, 100, 1000, 3000, 5000])
def test_a_disk_that_is_full_after_some_bytes(run, room, tmp_path, monkeypatch):
    """The last bytes that fit are taken by a short write, as a real disk does."""
    path = tmp_path / "run.npz"
    save_checkpoint(path, run)
    assert path.stat().st_size > 5000
    monkeypatch.setattr(FullDisk, "room", room)
    monkeypatch.setattr(
        "higcore.training.files.open",
        lambda name, mode: io.BufferedRandom(FullDisk(name, mode)),
        raising=False,
    )
    later = dataclasses.replace(run, state=run.state._replace(theta=run.theta + 1))
    message = r"it takes about \d+ bytes, and \d+ are free on its disk; the previous file is kept"
    with pytest.raises(OSError, match=message):
        save_checkpoint(path, later)
    assert bits(load_checkpoint(path)) == bits(run)
    assert [file.name for file in tmp_path.iterdir()] == ["run.npz"]
    FullDisk.room = 10**6
    save_checkpoint(path, later)
    assert bits(load_checkpoint(path)) == bits(later)


LIMITED = """
import dataclasses, resource, signal, sys
from higcore import load_checkpoint, save_checkpoint
path, limit = sys.argv[1], int(sys.argv[2])
run = load_checkpoint(path)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
try:
    save_checkpoint(path, dataclasses.replace(run, batch=9))
except OSError as error:
    print(error)
"""


def test_a_limit_on_the_size_of_files(run, tmp_path):
    """The kernel itself refuses to write on."""
    path = tmp_path / "run.npz"
    save_checkpoint(path, run)
    command = [sys.executable, "-c", LIMITED, str(path), str(path.stat().st_size - 50)]
    output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "run.npz' could not be written (File too large): it takes about" in output
    assert bits(load_checkpoint(path)) == bits(run)
    assert [file.name for file in tmp_path.iterdir()] == ["run.npz"]


def test_runs_survive_being_killed(tmp_path):
    """A few trials of what ``python tests/survival.py`` does 200 times."""
    command = [sys.executable, "tests/survival.py", "--trials", "15", "--folder", str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.match(r"15 kills, (\d+) of them in the middle of a write, (\d+) saves", done.stdout)
    assert int(found[1]) > 0
    assert int(found[2]) >= 15
    assert done.stdout.endswith("0 corrupt, 0 lost beyond the last interval\n")
