"""Checks of arguments belong to public doors: each looks once, and what is behind it is trusted."""

import itertools
import sys

import numpy as np
import pytest
import strict_cupy

from bench.experiments import EXPERIMENTS
from higcore import HIG, Batch, Problem, validation
from higcore.backend import array_module, module_of
from higcore.losses import SquaredError
from higcore.rows import OuterProductRows
from higcore.validation import check_array, check_arrays, check_like
from nets import MLP
from solvers import OscillatorChain

MOST = 25  # calls into higcore.validation in one step


def calls_within(file, action):
    """Names of the functions of a file that run in ``action()``, one for each time."""
    found = []

    def look(frame, event, _):
        if event == "call" and frame.f_code.co_filename == file:
            found.append(frame.f_code.co_name)

    sys.setprofile(look)
    try:
        action()
    finally:
        sys.setprofile(None)
    return found


def test_checks_of_one_step_are_few(rng):
    problem = EXPERIMENTS["oscillators"].problem()
    theta, optimizer = problem.network.init(rng), HIG()
    state = optimizer.init(theta)

    def step():
        optimizer.update(problem.linearise(theta, problem.batch(0, 128)), state)

    step()
    found = calls_within(validation.__file__, step)
    assert 0 < len(found) <= MOST, found


def test_layers_check_nothing(rng):
    net, x = MLP((4, 6, 5)), rng.random((3, 4))
    theta = net.init(rng)
    _, tape = net.forward(theta, x)
    S = rng.random((3, 2, 5))
    for call in (
        lambda: net.forward(theta, x),
        lambda: net.tangent(theta, tape, theta),
        lambda: net.backward(theta, tape, S[:, 0]),
        lambda: net.rows(theta, tape, S),
    ):
        assert calls_within(validation.__file__, call) == ["check_arrays"]


def outcome(call):
    try:
        return call()
    except (TypeError, ValueError) as error:
        return type(error), str(error)


FIRST = [np.ones((3, 4)), np.ones((3, 4), np.float32), np.ones((0, 4)), np.ones((3, 4), int)]
FIRST += [np.ones((3, 4, 1)), np.ma.ones((3, 4)), [[1.0]], None]
SECOND = [np.ones((3, 5)), np.ones((2, 5)), np.ones((3, 4)), np.ones(3), np.ones((3, 5), ">f8")]
SECOND += [np.ones((3, 5), np.float32), np.ones((3, 5)).view(np.matrix), np.ones((3, 0))]
SHAPES = [(("b", 4), ("b", 5)), (("b", "n"), ("b", "m")), (("b", "b"), ("c", np.int64(5)))]


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # numpy.matrix itself
@pytest.mark.parametrize("same_dtype", [True, False])
@pytest.mark.parametrize("shapes", SHAPES, ids=str)
def test_a_quick_look_says_what_the_examination_says(shapes, same_dtype):
    found = set()
    for x, u in itertools.product(FIRST, SECOND):
        given = {"x": (x, shapes[0]), "u": (u, shapes[1])}
        quick = outcome(lambda given=given: check_arrays(**given, same_dtype=same_dtype))
        assert quick == outcome(lambda given=given: validation._examine(given, same_dtype))
        found.add(quick)
    assert len(found) > 5
    assert np in found


def test_a_size_holds_for_the_arrays_that_follow():
    x, u = np.ones((3, 4)), np.ones((2, 5))
    with pytest.raises(ValueError, match=r"u must have shape \(3, 5\), got \(2, 5\)"):
        check_arrays(x=(x, ("b", 4)), u=(u, ("b", 5)))
    with pytest.raises(ValueError, match=r"x must have shape \(b, 3\), got \(3, 4\)"):
        check_arrays(x=(x, ("b", 3)), u=(u, ("b", 5)))
    check_array("K", x, ("n", "n"))  # in the shape of one array, any
    check_like("du", u + 1, ("b", "|u|"), u=u)


def test_a_look_up_of_the_module(monkeypatch, tmp_path):
    assert module_of(np.ones(2)) is np
    assert module_of(np.memmap(tmp_path / "a.bin", float, "w+", shape=(2,))) is np
    with strict_cupy.installed(monkeypatch) as cupy:
        array = cupy.asarray(np.ones((3, 4)))
        assert module_of(array) is array_module(array=array) is cupy
        assert check_arrays(x=(array, ("b", 4))) is cupy
        with pytest.raises(TypeError, match="x is a cupy array but u is a numpy array"):
            check_arrays(x=(array, ("b", 4)), u=(np.ones((3, 4)), ("b", 4)))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (np.ma.asarray, "a must be a NumPy or CuPy array, got MaskedArray"),
        (np.ndarray.tolist, "a must be a NumPy or CuPy array, got list"),
        (lambda a: a.view(np.recarray), "a must be a NumPy or CuPy array, got recarray"),
        (strict_cupy.ndarray, "a is a cupy array but delta is a numpy array"),
    ],
)
def test_factors_of_a_layer_of_ones_own_are_looked_at(kind, message, monkeypatch):
    with strict_cupy.installed(monkeypatch), pytest.raises(TypeError, match=message):
        OuterProductRows(kind(np.ones((5, 1, 3))), np.ones((5, 2, 1, 6)), 0)


X = np.random.default_rng(0).random((5, 4))


class Net(MLP):
    """One of a user's own, for what it returns."""

    def forward(self, theta, x):
        u, tape = super().forward(theta, x)
        return self.spoil(u), tape


class Chain(OscillatorChain):
    def forward(self, x, u):
        y, tape = super().forward(x, u)
        return self.spoil_y(y), tape

    def rows(self, tape):
        return self.spoil_S(super().rows(tape))


class Loss(SquaredError):
    def gradient(self, y, target):
        return self.spoil(super().gradient(y, target))


def as_it_is(array):
    return array


def step_with(u=as_it_is, y=as_it_is, S=as_it_is, g=as_it_is):
    """A HIG step of parts that spoil what they return."""
    net, chain, loss = (
        type(kind.__name__, (kind,), {name: staticmethod(f) for name, f in own.items()})
        for kind, own in (
            (Net, {"spoil": u}), (Chain, {"spoil_y": y, "spoil_S": S}), (Loss, {"spoil": g}),
        )
    )  # fmt: skip
    data = Batch(X, X, X)
    problem = Problem(net((4, 6, 12)), chain(steps=12), loss(), data, data)
    theta = problem.network.init(np.random.default_rng(0))
    return HIG().update(problem.linearise(theta, data), {})[0]


def fewer(array):
    return array[:-1]


@pytest.mark.parametrize(
    ("spoiled", "message"),
    [
        ({"u": fewer}, r"u must have shape \(5, 12\), got \(4, 12\)"),
        ({"u": np.ma.asarray}, "u must be a NumPy or CuPy array, got MaskedArray"),
        ({"u": np.float32}, "arrays must share one dtype, but x is float64, u is float32"),
        (
            {"y": np.asmatrix},
            "of the solver, whose output_size is 4, must be a NumPy or CuPy array, got matrix",
        ),
        (
            {"y": lambda y: y[:, :3]},
            r"y = forward\(x, u\) of .*must have shape \(5, 4\), got \(5, 3\)",
        ),
        ({"S": fewer}, r"S must have shape \(5, \|y\|, 12\), got \(4, 4, 12\)"),
        ({"S": lambda S: S[..., :-1]}, r"S must have shape \(b, \|y\|, 12\), got \(5, 4, 11\)"),
        ({"S": lambda S: S.view(np.recarray)}, "S must be a NumPy or CuPy array, got recarray"),
        ({"g": fewer}, r"of the loss must have shape \(5, 4\), got \(4, 4\)"),
        (
            {"g": lambda g: g + 0j},
            "of the loss must be a float32 or float64 array, got dtype complex128",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # numpy.matrix itself
def test_what_a_part_of_a_users_own_returns_is_looked_at_within_a_step(spoiled, message):
    assert np.isfinite(step_with()).all()
    with pytest.raises((TypeError, ValueError), match=message):
        step_with(**spoiled)
