"""MLP: values against a written-out network, every derivative by dot, Taylor and complex step."""

import numpy as np
import pytest
from oracles import central_difference_jacobian, complex_step_jacobian, mlp

from higcore import HIG, Batch, Problem, StackedJacobian, check_network, dot_test, fit, taylor_test
from higcore.backend import same
from higcore.losses import SquaredError
from nets import MLP, ConvNet1d
from solvers import ScaledOutputs

SHAPES = [(4, 20, 20, 20, 96), (1, 7, 2), (3, 5), (2, 1, 1, 3)]
ACTIVATIONS = ["tanh", "relu", "linear"]


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("sizes", SHAPES)
def test_forward_is_the_formula(sizes, activation, rng, xp):
    net = MLP(sizes, activation)
    theta, x = rng.standard_normal(net.size), rng.standard_normal((6, sizes[0]))
    u, _ = net.forward(xp.asarray(theta), xp.asarray(x))
    u = u if xp is np else u.get()
    assert np.abs(u - mlp(theta, x, sizes, activation)).max() < 1e-12 * np.abs(u).max()


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_dot_test_of_200_pairs(activation, rng, xp):
    net = MLP((3, 8, 5, 4), activation)
    theta = xp.asarray(rng.standard_normal(net.size))
    x = xp.asarray(rng.standard_normal((7, 3)))
    _, tape = net.forward(theta, x)
    for _ in range(200):
        v, w = xp.asarray(rng.standard_normal(net.size)), xp.asarray(rng.standard_normal((7, 4)))
        mismatch = dot_test(
            lambda v: net.tangent(theta, tape, v), lambda w: net.backward(theta, tape, w), v, w
        )
        assert mismatch < 1e-12


def test_taylor_orders(rng):
    net = MLP((3, 8, 5, 4), "tanh")
    x, theta = rng.standard_normal((7, 3)), rng.standard_normal(net.size)
    orders = taylor_test(
        lambda p: net.forward(p, x)[0],
        lambda p, d: net.tangent(p, net.forward(p, x)[1], d),
        theta,
        rng.standard_normal(net.size),
    )
    assert all(abs(order - 2) < 0.05 for order in orders)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("sizes", SHAPES[1:])
def test_rows_are_the_complex_step_jacobian(sizes, activation, rng):
    net = MLP(sizes, activation)
    theta, x = rng.standard_normal(net.size), rng.standard_normal((3, sizes[0]))
    _, tape = net.forward(theta, x)
    identity = np.broadcast_to(np.eye(sizes[-1]), (3, sizes[-1], sizes[-1]))
    J = StackedJacobian(net, theta, tape, np.array(identity)).dense()
    reference = complex_step_jacobian(lambda p: mlp(p, x, sizes, activation), theta)
    assert np.abs(J - reference).max() < 1e-12 * np.abs(reference).max()


def test_glorot_uniform_and_zero_bias(rng):
    net = MLP((30, 50, 20))
    theta = net.init(rng)
    for layer in net.layers:
        weights, bias = layer.parameters(theta)
        limit = np.sqrt(6 / (layer.n_in + layer.n_out))
        assert (bias == 0).all()
        assert 0.95 * limit < np.abs(weights).max() <= limit
        assert abs(weights.std() - limit / np.sqrt(3)) < 0.05 * limit


def test_float32_stays_float32(rng):
    net = MLP((3, 4, 2))
    theta = net.init(rng, np.float32)
    u, tape = net.forward(theta, rng.standard_normal((5, 3)).astype(np.float32))
    assert u.dtype == net.backward(theta, tape, u).dtype == np.float32


BOUNDS = [(-0.5, 2), (-0.1, [0.3, 0.5, 100, 7]), ([0, 1, 2, 3], [1e-3, 1.1, 4, 1000])]


@pytest.mark.parametrize("bounds", BOUNDS)
def test_bounded_output_and_rows_are_the_formula(bounds, rng, xp):
    sizes, (low, high) = (3, 8, 4), map(np.asarray, bounds)
    net, theta, x = MLP(sizes, bounds=bounds), rng.standard_normal(52 + 16), rng.random((5, 3))
    assert net.size == len(theta)

    def formula(p):
        return low + (high - low) * (1 + np.tanh(mlp(p, x, sizes, "tanh"))) / 2

    on = [xp.asarray(array) for array in (theta, x, rng.standard_normal((5, 2, 4)))]
    u, tape = net.forward(*on[:2])
    J, S = StackedJacobian(net, on[0], tape, on[2]).dense(), host(on[2])
    assert np.abs(host(u) - formula(theta)).max() < 1e-12 * np.abs(formula(theta)).max()
    du = complex_step_jacobian(formula, theta).reshape(5, 4, -1)
    reference = (S @ du).reshape(10, -1)
    assert np.abs(host(J) - reference).max() < 1e-12 * np.abs(reference).max()


def host(array):
    return array if isinstance(array, np.ndarray) else array.get()


@pytest.mark.parametrize("bounds", BOUNDS)
def test_a_bounded_network_passes_the_checks(bounds, xp):
    x = xp.asarray(np.random.default_rng(1).standard_normal((3, 3)))
    for net in (MLP((3, 8, 4), bounds=bounds), ConvNet1d(3, 1, [2], 2, 4, bounds=bounds)):
        report = check_network(net, x=x, show=False)
        report.raise_if_failed()


def test_dot_and_taylor_of_a_bounded_network(rng):
    net, x = MLP((3, 8, 4), bounds=BOUNDS[1]), rng.standard_normal((7, 3))
    theta = rng.standard_normal(net.size)
    _, tape = net.forward(theta, x)
    for _ in range(50):
        v, w = rng.standard_normal(net.size), rng.standard_normal((7, 4))
        mismatch = dot_test(
            lambda v: net.tangent(theta, tape, v), lambda w: net.backward(theta, tape, w), v, w
        )
        assert mismatch < 1e-12
    orders = taylor_test(
        lambda p: net(p, x),
        lambda p, d: net.tangent(p, net.forward(p, x)[1], d),
        theta,
        rng.standard_normal(net.size),
        step=1e-3,
    )
    assert all(abs(order - 2) < 0.05 for order in orders)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_no_parameters_leave_the_bounds(dtype, rng):
    low, high = rng.uniform(-1, 0, 200), rng.uniform(0, 1, 200)
    net = MLP((1, 200), bounds=(low, high))
    x = np.linspace(-30, 30, 999, dtype=dtype)[:, None]
    theta = np.append(np.ones(200), np.zeros(200)).astype(dtype)
    u, tape = net.forward(theta, x)
    assert u.dtype == dtype
    assert (u >= low.astype(dtype)).all()
    assert (u <= high.astype(dtype)).all()
    assert np.abs(u[0] - low).max() < 2 * np.finfo(dtype).eps
    assert np.abs(u[-1] - high).max() < 2 * np.finfo(dtype).eps
    assert (net.layers[0].activation.slope(u) >= 0).all()
    assert np.isfinite(net.backward(theta, tape, u)).all()


def test_bounds_are_told_and_none_is_as_before(rng):
    net, free = MLP((3, 2), bounds=(0, (1, 2))), MLP((3, 2), bounds=None)
    assert repr(net) == "MLP((3, 2), activation='tanh', bounds=(0.0, (1.0, 2.0)))"
    assert repr(free) == repr(MLP((3, 2))) == "MLP((3, 2), activation='tanh')"
    assert repr(ConvNet1d(3, 1, [2], 2, 4)) == "ConvNet1d(3, 1, (2,), 2, 4, 'tanh')"
    assert "bounds=(0.0, 1.0)" in repr(ConvNet1d(3, 1, [2], 2, 4, bounds=(0, 1)))
    assert same(net, MLP((3, 2), bounds=[0.0, np.array([1, 2])]))
    assert not same(net, MLP((3, 2), bounds=(0, 1)))
    assert not same(net, free)
    assert same(free.layers, MLP((3, 2)).layers)


def test_a_run_with_other_bounds_is_another_run(rng):
    solver, x = ScaledOutputs(), rng.random((8, 1))
    data = Batch(x, x, rng.random((8, 2)))

    def run(bounds, **options):
        network = MLP((1, 3, 2), bounds=bounds)
        problem = Problem(network, solver, SquaredError(), data, data)
        return fit(problem, HIG(), batch=4, steps=options.pop("steps", 3), **options)

    halfway, whole = run((0, 1)), run((0, 1), steps=6)
    assert (run((0.0, [1.0, 1.0]), steps=6).theta == whole.theta).all()
    assert (run((0, 1), steps=6, resume=halfway).theta == whole.theta).all()
    for other in (None, (0, 2)):
        with pytest.raises(ValueError, match=r"resume was made for network MLP\(.* bounds="):
            run(other, steps=6, resume=halfway)


@pytest.mark.parametrize(
    "network", [MLP((5, 4, 3)), ConvNet1d(6, 2, [3], 3, 4), ConvNet1d(6, 2, [3, 2], 2, 4)]
)
def test_pull_is_the_derivative_in_the_input(network, rng):
    theta, x = 0.5 * rng.standard_normal(network.size), rng.standard_normal((3, network.input_size))
    _, tape = network.forward(theta, x)
    u_bar = rng.standard_normal((3, 2, network.output_size))
    pulled = network.pull(theta, tape, u_bar)
    for i in range(3):
        S = central_difference_jacobian(lambda v: network.forward(theta, v[None])[0], x[i])
        assert np.allclose(pulled[i], u_bar[i] @ S, atol=1e-8)
