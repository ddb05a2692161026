"""Kinds of arrays at every public door: any strides give the same numbers, others are refused.

What compiled code is told of an array is its shape; whatever gives another shape to a slice or a
product than an array would must not come that far.
"""

import numpy as np
import pytest

from higcore import (
    HIG,
    Adam,
    AdaptiveHIG,
    Batch,
    FreshData,
    LevenbergMarquardt,
    Problem,
    ScaleInvariantPhysics,
    StackedJacobian,
    fit,
    half_inverse,
)
from higcore.losses import ComponentError, Infidelity, SquaredError
from higcore.rows import OuterProductRows
from higcore.spectral import band, eigen, tridiagonal
from nets import MLP, ConvNet1d
from solvers import OscillatorChain, Poisson2D, QuantumDipole, ScaledOutputs

METHODS = ("svd", "qr", "gram", "tridiagonal", "band")
RNG = np.random.default_rng(5)
X, T, U = RNG.random((5, 4)), RNG.random((5, 4)), RNG.standard_normal((5, 12))
NET, CONV, CHAIN = MLP((4, 6, 12)), ConvNet1d(2, 2, [3], 2, 12), OscillatorChain(steps=12)
S, G = RNG.standard_normal((5, 3, 12)), RNG.standard_normal((5, 3))
DOORS = {}  # name -> (function, names of its arguments in messages, good arguments)


def door(name, function, **arguments):
    DOORS[name] = function, tuple(arguments), tuple(arguments.values())


def stacked(net, theta, x, S, tile=None):
    return StackedJacobian(net, theta, net.forward(theta, x)[1], S, tile)


def solver_doors(solver, x, u):
    name, y = type(solver).__name__, RNG.standard_normal((5, solver.output_size))
    several = RNG.standard_normal((5, 2, solver.output_size))
    door(f"{name}.solve", solver.solve, x=x, u=u)
    door(f"{name}.jacobian", solver.jacobian, x=x, u=u)
    door(f"{name}.tangent", solver.tangent, x=x, u=u, du=u[::-1].copy())
    door(f"{name}.adjoint", solver.adjoint, x=x, u=u, y_bar=y)
    tape = solver.forward(x, u)[1]
    door(f"{name}.backward", lambda y_bar: solver.backward(tape, y_bar), y_bar=several)


def network_doors(net):
    name, theta = type(net).__name__, net.init(np.random.default_rng(0))
    dtheta, w = theta[::-1].copy(), G.reshape(-1)
    tape = net.forward(theta, X)[1]
    door(f"{name}.forward", lambda theta, x: net.forward(theta, x)[0], theta=theta, x=X)
    door(f"{name}.tangent", lambda v: net.tangent(theta, tape, v), dtheta=dtheta)
    door(f"{name}.backward", lambda u_bar: net.backward(theta, tape, u_bar), u_bar=U)
    for tile in (None, 2):
        J = stacked(net, theta, X, S, tile)
        door(f"{name}.matvec {tile}", J.matvec, v=dtheta)
        door(f"{name}.rmatvec {tile}", J.rmatvec, w=w)
        door(
            f"{name}.gram {tile}",
            lambda theta, x, S, tile=tile: stacked(net, theta, x, S, tile).gram(),
            theta=theta, x=X, S=S,
        )  # fmt: skip
        door(
            f"{name}.half_inverse {tile}",
            lambda S, g, tile=tile: half_inverse(stacked(net, theta, X, S, tile), g)[0],
            S=S, g=G,
        )  # fmt: skip


def first(array, size):
    """Some samples, as an array of the same kind."""
    return array[:size].view(type(array)) if array.ndim else array


def fit_with(optimizer, fresh):
    def run(x, target, theta):
        data = Batch(x, x, target)
        draw = FreshData(lambda rng, size: Batch(*(first(a, size) for a in data)), count=5)
        problem = Problem(NET, CHAIN, SquaredError(), draw if fresh else data, Batch(X, X, T))
        return fit(problem, optimizer, batch=3, steps=2, theta=theta).theta

    return run


for given in (
    (CHAIN, X, U),
    (QuantumDipole(4, 12), X, U),
    (Poisson2D((2, 6)), U, U),
    (ScaledOutputs(), X[:, :1].copy(), U[:, :2].copy()),
):
    solver_doors(*given)
network_doors(NET)
network_doors(CONV)
for shape in ((20, 30), (30, 20)):
    for method in METHODS:
        door(
            f"half_inverse {shape} {method}",
            lambda J, g, method=method: half_inverse(J, g, method=method)[0],
            J=RNG.standard_normal(shape), g=RNG.standard_normal(shape[0]),
        )  # fmt: skip
for loss in (SquaredError(), Infidelity(), ComponentError(np.eye(4)[0])):
    door(f"{loss}.value", loss.value, y=X, target=T)
    door(f"{loss}.gradient", loss.gradient, y=X, target=T)
door("mode", lambda mode: ComponentError(mode).gradient(X, T), mode=np.eye(4)[1])
for optimizer in (HIG(), AdaptiveHIG(), LevenbergMarquardt(), ScaleInvariantPhysics(), Adam()):
    for fresh in (False, True):
        arrays = {"x": X, "target": T, "theta": NET.init(np.random.default_rng(0))}
        door(f"fit {type(optimizer).__name__} {fresh}", fit_with(optimizer, fresh), **arrays)


def memory_map(folder, array, fortran=False):
    """A read-only map of a file that holds the array."""
    file = folder / f"{len(list(folder.iterdir()))}.bin"
    array.T.tofile(file) if fortran else array.tofile(file)
    shape = array.shape[::-1] if fortran else array.shape
    found = np.memmap(file, array.dtype, "r", shape=shape)
    return found.T if fortran else found


def beside_nan(array):
    """Every second entry of a larger array whose others are NaN."""
    every_second = (slice(1, None, 2),) * array.ndim
    room = np.full([2 * n for n in array.shape], np.nan)
    room[every_second] = array
    return room[every_second]


def backwards(array):
    """Negative strides."""
    turned = (slice(None, None, -1),) * array.ndim
    return array[turned].copy()[turned]


def unaligned(array):
    found = np.empty(array.nbytes + 1, np.uint8)[1:].view(array.dtype).reshape(array.shape)
    found[...] = array
    return found


def read_only(array):
    array = array.T.copy().T
    array.flags.writeable = False
    return array


SAME = {
    "memory map": memory_map,
    "memory map, Fortran": lambda folder, array: memory_map(folder, array, True),
    "Fortran": lambda _, array: np.asfortranarray(array),
    "beside NaN": lambda _, array: beside_nan(array),
    "backwards": lambda _, array: backwards(array),
    "unaligned": lambda _, array: unaligned(array),
    "read-only": lambda _, array: read_only(array),
}


def arrays_in(found):
    return found if isinstance(found, tuple) else (found,)


@pytest.mark.parametrize("kind", SAME)
@pytest.mark.parametrize("name", DOORS)
def test_the_same_numbers_by_other_strides(name, kind, tmp_path):
    function, _, good = DOORS[name]
    expected = arrays_in(function(*good))
    found = arrays_in(function(*(SAME[kind](tmp_path, array) for array in good)))
    for a, b in zip(expected, found, strict=True):
        assert np.abs(a - b).max() <= 1e-10 * np.abs(a).max()  # NaN would not be


@pytest.mark.parametrize("name", DOORS)
def test_one_sample_repeated_by_a_stride_of_zero(name):
    function, _, good = DOORS[name]
    repeated = [np.broadcast_to(array[:1], array.shape) for array in good]
    expected = arrays_in(function(*(array.copy() for array in repeated)))
    for a, b in zip(expected, arrays_in(function(*repeated)), strict=True):
        assert np.abs(a - b).max() <= 1e-10 * np.abs(a).max()


class Length(np.ndarray):
    """An array with a unit, as a user might write it."""


REFUSED = {
    "matrix": lambda a: a.reshape(len(a), -1).view(np.matrix),
    "MaskedArray": lambda a: np.ma.masked_less(a, 0.3),
    "recarray": lambda a: a.view(np.recarray),
    "Length": lambda a: a.view(Length),
    "float64": lambda a: a.flat[0],
    "dtype >f8": lambda a: a.astype(">f8"),
}


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.parametrize("name", DOORS)
@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # numpy.matrix itself
def test_others_are_refused_by_name(name, kind):
    function, names, good = DOORS[name]
    for k, argument in enumerate(names):
        given = [REFUSED[kind](array) if j == k else array for j, array in enumerate(good)]
        with pytest.raises(TypeError, match=f"{argument} must be a .* array, got {kind}"):
            function(*given)


@pytest.mark.parametrize(("module", "name"), [("cupy", "poly1d"), ("cupyx.sparse", "ndarray")])
def test_devices_have_other_kinds_too(module, name):
    kind = type(name, (), {"__module__": module, "shape": (3, 4), "dtype": np.dtype(float)})
    with pytest.raises(TypeError, match=f"J must be a NumPy or CuPy array, got {name}"):
        half_inverse(kind(), np.ones(3))


def test_advice_for_kinds_that_numpy_makes(rng):
    with pytest.raises(TypeError, match=r"got matrix; numpy\.asarray makes a plain"):
        half_inverse(np.eye(3).view(np.matrix), np.ones(3))
    with pytest.raises(TypeError, match="got MaskedArray; fill in what is masked"):
        half_inverse(np.ma.masked_less(np.eye(3), 0.5), np.ones(3))
    with pytest.raises(TypeError, match="got dtype >f8; astype puts"):
        half_inverse(np.eye(3).astype(">f8"), np.ones(3))


class Turned(SquaredError):
    """A user's loss that mistakes samples for components, or says so in a matrix."""

    def gradient(self, y, target):
        g = super().gradient(y, target)
        return g.T if self.factor == 1 else g.view(Length)


@pytest.mark.parametrize(
    "optimizer", [HIG(), AdaptiveHIG(), LevenbergMarquardt(), Adam(), ScaleInvariantPhysics()]
)
@pytest.mark.parametrize(
    ("factor", "error", "message"),
    [
        (1.0, ValueError, r"g = gradient\(y, target\) of the loss must have shape \(5, 4\)"),
        (2.0, TypeError, r"g = gradient\(y, target\) of the loss must be a .* got Length"),
    ],
)
def test_the_gradient_of_a_loss_of_ones_own(factor, error, message, optimizer):
    data = Batch(X, X, T)
    problem = Problem(NET, CHAIN, Turned(factor), data, data)
    with pytest.raises(error, match=message):
        fit(problem, optimizer, batch=5, steps=1)


@pytest.mark.parametrize("method", [eigen, tridiagonal, band])
def test_decompositions_by_themselves(method, rng):
    K, z = np.eye(40), rng.standard_normal(40)
    for bad, message in (
        ((K[:, :39], z), r"K must have shape \(40, 40\), got \(40, 39\)"),
        ((K, z[:39]), r"z must have shape \(40,\), got \(39,\)"),
        ((K, z.astype(np.float32)), "z must be a float64 array, got dtype float32"),
        ((K.astype(np.float32), z), "K must be a float64 array, got dtype float32"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            method.decompose(*bad)


@pytest.mark.parametrize(
    ("a", "delta"),
    [
        ((5, 2, 3), (4, 1, 2, 6)),
        ((5, 2, 3), (5, 1, 3, 6)),
        ((5, 3), (5, 1, 6)),
        ((5,), (5, 1, 1, 6)),
    ],
)
def test_factors_that_do_not_fit_each_other(a, delta):
    with pytest.raises(ValueError, match=r"a must have shape \(b, P, n_in\) and delta \(b, r"):
        OuterProductRows(np.ones(a), np.ones(delta), 0)


class Careless(MLP):
    """A network whose derivatives have the wrong number of samples, or too few parameters."""

    def rows(self, theta, tape, S):
        blocks = super().rows(theta, tape, S)
        last = blocks[-1]
        blocks[-1] = OuterProductRows(last.a[:1], last.delta.reshape(1, -1, 1, 12), last.start)
        return blocks

    def tangent(self, theta, tape, dtheta):
        return super().tangent(theta, tape, dtheta)[:-1]

    def backward(self, theta, tape, u_bar):
        return super().backward(theta, tape, u_bar)[:-1]


@pytest.mark.parametrize("tile", [None, 2])
def test_what_a_network_gives_is_looked_at_before_compiled_code_reads_it(tile):
    net = Careless((4, 6, 12))
    J = stacked(net, net.init(np.random.default_rng(0)), X, S, tile)
    with pytest.raises(ValueError, match=r"rows of the network must have \(samples, rows\)"):
        half_inverse(J, G)
    if tile:
        with pytest.raises(ValueError, match=r"theta_bar = backward.* must have shape \(114,\)"):
            J.rmatvec(G.reshape(-1))
        with pytest.raises(ValueError, match=r"du = tangent.* must have shape \(5, 12\)"):
            J.matvec(np.ones(114))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("net", [MLP((4, 2, 5), "relu"), MLP((4, 6, 12))], ids=repr)
def test_tiles_of_float32_factors(net, method, rng):
    """A network answers in float32, but what compiled code is told of is float64."""
    theta = net.init(rng, np.float32)
    x = rng.random((40, 4)).astype(np.float32)
    S = rng.standard_normal((40, 2, net.output_size)).astype(np.float32)
    g = rng.standard_normal((40, 2)).astype(np.float32)
    whole, tiled = (stacked(net, theta, x, S, tile) for tile in (None, 7))
    assert tiled.rmatvec(g.reshape(-1).astype(float)).dtype == np.float64
    steps = [half_inverse(J, g, method=method, tau=1e-3)[0] for J in (whole, tiled)]
    assert steps[1].dtype == np.float32
    assert np.linalg.norm(steps[1] - steps[0]) <= 1e-4 * np.linalg.norm(steps[0])


@pytest.mark.parametrize(
    ("solver", "other", "x"),
    [
        (OscillatorChain(steps=12), OscillatorChain(steps=5), X),
        (OscillatorChain(steps=5), OscillatorChain(steps=12), X),
        (QuantumDipole(4, 12), QuantumDipole(4, 5), X),
        (QuantumDipole(4, 5), QuantumDipole(4, 12), X),
        (QuantumDipole(4, 12), QuantumDipole(6, 12), RNG.random((5, 8))),
    ],
)
def test_a_tape_of_another_solver_is_refused(solver, other, x):
    _, tape = other.forward(x, U[:, : other.steps].copy())
    with pytest.raises(ValueError, match="an array of the tape must have shape"):
        solver.rows(tape)
    with pytest.raises(ValueError, match="an array of the tape must have shape"):
        solver.backward(tape, X)
    with pytest.raises(TypeError, match="tape must be what forward of this solver returned"):
        solver.rows(None)


def test_a_tape_of_two_batches_is_refused():
    march, u = CHAIN.forward(X, U)[1]
    with pytest.raises(ValueError, match="tape must be of one batch"):
        CHAIN.backward((march, u[:, :3].copy()), X)
