"""MLP: values against a written-out network, every derivative by dot, Taylor and complex step."""

import numpy as np
import pytest
from oracles import complex_step_jacobian, mlp

from higcore import StackedJacobian, dot_test, taylor_test
from nets import MLP

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
