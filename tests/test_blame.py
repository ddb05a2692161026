"""Exceptions of other people's code: the run ends with its last state, and says whose they were."""

import dataclasses
import functools
import logging
import pickle
import types

import numpy as np
import pytest
import strict_cupy

from bench.experiments import Oscillators
from higcore import (
    HIG,
    Adam,
    Batch,
    DoesNotFitError,
    FreshData,
    LevenbergMarquardt,
    ScaleInvariantPhysics,
    TrainingError,
    fit,
    half_inverse,
    load_checkpoint,
    save_checkpoint,
)
from higcore.losses import SquaredError
from higcore.spectral.spectrum import DecompositionError
from nets import MLP
from solvers import OscillatorChain

CHAIN = Oscillators(OscillatorChain(steps=12, dt=0.5), (6,), "tanh", 40, 24)
STEPS = 12  # two epochs of 5 steps, and a bit
PARTS = {
    "network": ("forward", "backward", "rows"),
    "solver": ("solve", "forward", "backward", "rows"),
    "loss": ("value", "gradient"),
}
CALLS = [(part, name, at) for part, names in PARTS.items() for name in names for at in (1, 4, 7, 8)]
CALLS = [call for call in CALLS if call[1] != "solve" or call[2] < 5]  # it is of evaluations alone
ERRORS = [
    np.linalg.LinAlgError("Singular matrix"),
    FloatingPointError("underflow encountered in exp"),
    ZeroDivisionError("division by zero"),
    ValueError("u must be positive"),
    KeyError("k"),
    DecompositionError("no convergence"),
    AssertionError(),
    RecursionError("maximum recursion depth exceeded"),
    StopIteration("no more data"),
]


@pytest.fixture
def problem():
    return CHAIN.problem(seed=5)


class Failing:
    """A part of a problem that raises ``error`` at the call number ``at`` of ``name``, and on."""

    def __init__(self, part, name, at, error):
        self.part, self.name, self.left, self.error = part, name, at, error

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return self.call if name == vars(self).get("name") else getattr(self.part, name)

    def call(self, *arguments):
        self.left -= 1
        if self.left < 0:
            raise self.error
        return getattr(self.part, self.name)(*arguments)


def failing(problem, part, name, at, error):
    return dataclasses.replace(problem, **{part: Failing(getattr(problem, part), name, at, error)})


def optimizer_for(name):
    return HIG() if name == "rows" else Adam()


def same_rows(one, other):
    rows = [[row._replace(seconds=0.0) for row in run.history] for run in (one, other)]
    return rows[0] == rows[1]


def assert_is_the_run(result, problem, optimizer):
    """Its state is the one after so many steps, and it can be resumed with the bits of a whole."""
    if result.steps:
        good = fit(problem, optimizer, batch=8, steps=result.steps)
        assert np.array_equal(result.theta, good.theta)
    resumed = fit(
        problem, optimizer, batch=8, steps=STEPS, resume=as_of(problem, optimizer, result)
    )
    whole = fit(problem, optimizer, batch=8, steps=STEPS)
    assert np.array_equal(resumed.theta, whole.theta)
    assert same_rows(resumed, whole)


def as_of(problem, optimizer, result):
    """The result with the identity of the problem whose part is well again."""
    identity = fit(problem, optimizer, batch=8, steps=1).identity
    return dataclasses.replace(result, identity=identity)


@pytest.mark.parametrize(("part", "name", "at"), CALLS)
def test_whatever_a_part_raises_ends_the_run_with_its_state(part, name, at, problem, caplog):
    error = np.linalg.LinAlgError("Singular matrix")
    sick, optimizer = failing(problem, part, name, at, error), optimizer_for(name)
    result = fit(sick, optimizer, batch=8, steps=STEPS)
    who = f"the {part} raised LinAlgError after {result.steps} steps: Singular matrix. "
    assert result.status == "raised"
    assert result.message.startswith(f"Stopped because {who}")
    assert "decomposition" not in result.message
    assert result.error.startswith("Traceback (most recent call last):")
    assert "in call\n" in result.error
    assert result.error.endswith("LinAlgError: Singular matrix\n")
    assert result.message in [r.message for r in caplog.records if r.levelno == logging.WARNING]
    assert_is_the_run(result, problem, optimizer)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_whatever_it_is(error, problem):
    result = fit(failing(problem, "solver", "backward", 6, error), Adam(), batch=8, steps=STEPS)
    text = f": {error}" if str(error) else ""
    expected = f"the solver raised {type(error).__name__} after 6 steps{text}. theta is the last"
    assert (result.status, result.steps) == ("raised", 6)
    assert expected in result.message
    sick = failing(problem, "solver", "backward", 6, error)
    with pytest.raises(TrainingError, match="the solver raised") as raised:
        fit(sick, Adam(), batch=8, steps=STEPS, throw=True)
    assert raised.value.__cause__ is error
    assert np.array_equal(raised.value.result.theta, result.theta)
    assert pickle.loads(pickle.dumps(raised.value)).result.error == raised.value.result.error


class Mute(Exception):
    def __str__(self):
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (Mute(), "the solver raised Mute after 6 steps. theta"),
        (
            ValueError("two\n  lines."),
            "the solver raised ValueError after 6 steps: two lines. theta",
        ),
        (ValueError("{braces}"), "the solver raised ValueError after 6 steps: {braces}. theta"),
        (ValueError("long " * 500), "long long [...]. theta"),
    ],
    ids=["mute", "lines", "braces", "long"],
)
def test_its_text_makes_a_sentence(error, text, problem):
    result = fit(failing(problem, "solver", "backward", 6, error), Adam(), batch=8, steps=STEPS)
    assert text in result.message
    assert len(result.message) < 600


def draw(rng, size, left):
    left.append(1)
    if len(left) > 8:
        raise OSError("the file of samples is gone")
    return Batch(*[rng.random((size, 4))] * 3)


def short_of_samples(rng, size, left):
    left.append(1)
    return Batch(*[rng.random((size - (len(left) > 8), 4))] * 3)


@pytest.mark.parametrize(
    ("drawing", "text"),
    [
        (draw, "draw raised OSError after 7 steps: the file of samples is gone. "),
        (
            short_of_samples,
            "draw raised ValueError after 7 steps: draw must return 8 samples, got 7",
        ),
    ],
)
def test_data(drawing, text, problem):
    data = FreshData(functools.partial(drawing, left=[]), count=40)
    result = fit(dataclasses.replace(problem, train=data), Adam(), batch=8, steps=STEPS)
    assert (result.status, result.steps) == ("raised", 7)
    assert f"because {text}" in result.message


class Stepping:
    """An optimizer of one's own that does something else in an update."""

    def __init__(self, at, does):
        self.at, self.does = at, does

    def init(self, theta):
        return {"updates": 0}

    def update(self, at, state):
        if state["updates"] == self.at:
            self.does()
        return 0.01 * at.gradient(), {"updates": state["updates"] + 1}, None


def divide():
    return 1 / 0


def invert():
    return np.linalg.inv(np.zeros((2, 2)))


@pytest.mark.parametrize(("does", "name"), [(divide, "ZeroDivision"), (invert, "LinAlg")])
def test_an_optimizer_of_ones_own(does, name, problem):
    result = fit(problem, Stepping(6, does), batch=8, steps=STEPS)
    assert (result.status, result.steps) == ("raised", 6)
    assert f"because the optimizer raised {name}Error after 6 steps: " in result.message
    assert f"in {does.__name__}\n" in result.error


def broken(*args, **kwargs):
    raise np.linalg.LinAlgError("no convergence")


@pytest.mark.parametrize(
    ("optimizer", "name"),
    [
        (HIG(method="svd"), "higcore.spectral.svd.scipy.linalg.svd"),
        (ScaleInvariantPhysics(), "higcore.optimizers.sip.np.linalg.pinv"),
        (Stepping(3, lambda: half_inverse(np.eye(3), np.ones(3), method="svd")),
         "higcore.spectral.svd.scipy.linalg.svd"),
    ],
    ids=["svd", "sip", "own"],
)  # fmt: skip
def test_a_decomposition_of_the_library_fails_for_good(optimizer, name, problem, monkeypatch):
    monkeypatch.setattr(name, broken)
    result = fit(problem, optimizer, batch=8, steps=STEPS)
    assert result.status == "failed"
    assert "a decomposition failed for good (no convergence)" in result.message
    assert result.error.endswith("LinAlgError: no convergence\n")
    with pytest.raises(TrainingError) as raised:
        fit(problem, optimizer, batch=8, steps=STEPS, throw=True)
    assert isinstance(raised.value.__cause__, np.linalg.LinAlgError)


def test_a_decomposition_within_a_solver_is_the_solvers(problem, monkeypatch):
    class Solved(OscillatorChain):
        def backward(self, tape, y_bar):
            half_inverse(np.eye(3), np.ones(3), method="svd")
            return super().backward(tape, y_bar)

    monkeypatch.setattr("higcore.spectral.svd.scipy.linalg.svd", broken)
    sick = dataclasses.replace(problem, solver=Solved(steps=12, dt=0.5))
    result = fit(sick, Adam(), batch=8, steps=STEPS)
    assert result.status == "raised"
    assert "the solver raised LinAlgError after 0 steps: no convergence" in result.message


class Callable:
    """What a solver's method may be in place of a function."""

    def __init__(self, function):
        self.function = function

    def __call__(self, *arguments):
        return self.function(*arguments)


def wrapped(function):
    @functools.wraps(function)
    def call(*arguments):
        return function(*arguments)

    return call


@pytest.mark.parametrize("how", [lambda f: f, functools.partial, Callable, wrapped])
def test_a_solver_made_of_functions(how, problem):
    names = ("state_size", "control_size", "output_size", "solve", "forward", "backward", "rows")
    calls = {name: getattr(problem.solver, name) for name in names}

    def backward(tape, y_bar):
        raise ArithmeticError("no")

    solver = types.SimpleNamespace(**calls | {"backward": how(backward)})
    result = fit(dataclasses.replace(problem, solver=solver), Adam(), batch=8, steps=STEPS)
    assert "because the solver raised ArithmeticError after 0 steps: no. " in result.message


def test_what_leaves_no_frame_is_nobodys(problem):
    """Such as compiled code; the traceback is there all the same."""
    names = ("state_size", "control_size", "output_size", "solve", "backward")
    calls = {name: getattr(problem.solver, name) for name in names}
    solver = types.SimpleNamespace(
        forward=lambda x, u: (problem.solver.solve(x, u), "tape"), rows={}.__getitem__, **calls
    )
    result = fit(dataclasses.replace(problem, solver=solver), HIG(), batch=8, steps=STEPS)
    assert "because KeyError was raised after 0 steps: 'tape'. " in result.message
    assert "self.solver.rows(tape.solver)" in result.error


@pytest.mark.parametrize("kind", ["on_step", "on_epoch"])
@pytest.mark.parametrize(
    "error", [NameError("name 'lenght' is not defined"), ValueError("x"), MemoryError("full")]
)
def test_a_callback_costs_no_run(error, kind, problem):
    seen = []

    def careless(result):
        if result.steps == 10:
            raise error

    callbacks = {kind: [careless, lambda result: seen.append(result.steps)]}
    result = fit(problem, Adam(), batch=8, steps=STEPS, **callbacks)
    assert (result.status, result.steps) == ("raised", 10)
    assert f"because a callback raised {type(error).__name__} after 10 steps: " in result.message
    assert "in careless\n" in result.error
    assert 10 not in seen
    assert_is_the_run(result, problem, Adam())


def test_what_a_callback_computes_is_the_callbacks(problem):
    """Also if it is a solver that raises, or an array that is not finite."""
    for wrong in (np.ones((16, 3)), np.full((16, 4), np.nan)):  # nothing is written
        sick = lambda result, x=wrong: save_checkpoint(  # noqa: E731
            "x.npz", dataclasses.replace(result, state=result.state._replace(theta=x))
        )
        result = fit(problem, Adam(), batch=8, steps=STEPS, on_step=[sick])
        assert "because a callback raised " in result.message
    sick = lambda result: problem.predict(result.theta[:3], problem.test)  # noqa: E731
    result = fit(problem, Adam(), batch=8, steps=STEPS, on_step=[sick])
    assert "because a callback raised ValueError after 1 steps: theta must have" in result.message


class Wrong(OscillatorChain):
    """A solver whose output changes its width after some calls."""

    def forward(self, x, u):
        y, tape = super().forward(x, u)
        CALLED.append(1)
        return (y[:, :3] if len(CALLED) > self.oscillators * 4 else y), tape


CALLED = []


@pytest.mark.parametrize("first", [True, False])
def test_what_does_not_fit_is_an_argument_before_the_first_step_and_an_event_later(first, problem):
    CALLED[:] = [1] * (99 if first else 0)
    wrong = dataclasses.replace(problem, solver=Wrong(steps=12, dt=0.5))
    if first:
        with pytest.raises(ValueError, match=r"y = solve.* of the solver, .* must have shape"):
            fit(wrong, Adam(), batch=8, steps=STEPS)
        return
    result = fit(wrong, Adam(), batch=8, steps=STEPS)
    assert result.status == "raised"
    assert result.steps > 0
    assert "because ValueError was raised after " in result.message
    assert "y = forward(x, u) of the solver" in result.message


class Bare:
    """A loss without a curvature."""

    def __init__(self):
        self.value, self.gradient = SquaredError().value, SquaredError().gradient


def test_what_an_optimizer_asks_for_is_an_argument(problem):
    bare = dataclasses.replace(problem, loss=Bare())
    with pytest.raises(TypeError, match="loss must have a curvature"):
        fit(bare, LevenbergMarquardt(), batch=8, steps=STEPS)
    solver = OscillatorChain(steps=12, dt=0.5)
    names = ("state_size", "control_size", "output_size", "solve", "backward", "rows")
    calls = {name: getattr(solver, name) for name in names}
    odd = types.SimpleNamespace(forward=lambda x: x, **calls)
    with pytest.raises(TypeError, match="takes 1 positional argument but 2 were given"):
        fit(dataclasses.replace(problem, solver=odd), Adam(), batch=8, steps=STEPS)


@pytest.mark.parametrize(
    ("error", "kind"), [(MemoryError("full"), DoesNotFitError), (SystemExit(3), SystemExit)]
)
def test_what_goes_through(error, kind, problem):
    with pytest.raises(kind):
        fit(failing(problem, "solver", "backward", 6, error), Adam(), batch=8, steps=STEPS)


@pytest.mark.parametrize("steps", [4, 5])
def test_a_test_set_that_cannot_be_evaluated_at_the_end(steps, problem):
    """``solve`` is called of every evaluation alone: once, and before it for a sample."""
    sick = failing(problem, "solver", "solve", 2, OSError("gone"))
    result = fit(sick, Adam(), batch=8, steps=steps)
    assert (result.status, result.steps) == ("raised", steps)
    assert [row.step for row in result.history] == [0]
    assert_is_the_run(result, problem, Adam())


def test_the_first_exception_is_the_one_that_is_told(problem):
    """After it the last evaluation may fail in another way."""
    sick = failing(problem, "solver", "solve", 2, OSError("the second"))
    sick = failing(sick, "loss", "gradient", 3, KeyError("the first"))
    result = fit(sick, Adam(), batch=8, steps=STEPS)
    assert result.message.startswith("Stopped because the loss raised KeyError after 3 steps")
    assert result.error.endswith("KeyError: 'the first'\n")


def test_a_stop_does_not_hide_an_exception_but_ctrl_c_does(problem):
    def stop(result):
        return result.steps == 3

    def press(result):
        if result.steps == 3:
            raise KeyboardInterrupt

    for callback, status in ((stop, "raised"), (press, "interrupted")):
        sick = failing(problem, "solver", "solve", 2, OSError("gone"))
        assert fit(sick, Adam(), batch=8, steps=STEPS, on_step=[callback]).status == status


def test_the_traceback_is_saved(problem, tmp_path):
    sick = failing(problem, "solver", "backward", 6, ZeroDivisionError("division by zero"))
    result = fit(sick, Adam(), batch=8, steps=STEPS)
    save_checkpoint(tmp_path / "run.npz", result)
    loaded = load_checkpoint(tmp_path / "run.npz")
    assert loaded.error == result.error == result.to_dict()["error"]
    assert (loaded.status, loaded.message) == ("raised", result.message)
    assert_is_the_run(loaded, problem, Adam())


def test_a_run_that_ends_well_has_no_traceback(problem):
    assert fit(problem, Adam(), batch=8, steps=3).error == ""


def test_on_a_device(monkeypatch):
    problem = CHAIN.problem(seed=5)
    host = fit(failing(problem, "solver", "backward", 6, KeyError("k")), Adam(), batch=8, steps=9)
    with strict_cupy.installed(monkeypatch):
        sick = failing(problem.on("gpu"), "solver", "backward", 6, KeyError("k"))
        there = fit(sick, Adam(), batch=8, steps=9).on("cpu")
    assert there.message == host.message
    assert np.allclose(there.theta, host.theta, rtol=1e-9)
    assert isinstance(there.theta, np.ndarray)
    assert MLP((4, 6, 12)).size == len(there.theta)
