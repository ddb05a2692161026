"""First- and second-order optimizers against formulas written out here."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
from oracles import central_difference_jacobian, half_inverse_by_svd, mlp, oscillators

from higcore import (
    HIG,
    SGD,
    Adadelta,
    Adagrad,
    Adam,
    Batch,
    GaussNewton,
    Problem,
    RMSprop,
)
from higcore.losses import SquaredError
from nets import MLP
from solvers import OscillatorChain


def steps_of(optimizer, gradients):
    """The steps an optimizer takes when it sees these gradients one after the other."""
    state, steps = optimizer.init(np.zeros(gradients.shape[1])), []
    for G in gradients:
        at = SimpleNamespace(gradient=lambda G=G: G)
        step, state, info = optimizer.update(at, state)
        assert info is None
        steps.append(step)
    return np.array(steps)


@pytest.fixture
def gradients(rng):
    return rng.standard_normal((6, 5)) * 10.0 ** rng.integers(-3, 2, (6, 5))


def test_sgd(gradients):
    assert np.allclose(steps_of(SGD(lr=0.1), gradients), 0.1 * gradients)


def test_adagrad(gradients):
    accumulated = 0.1 + np.cumsum(gradients**2, axis=0)
    expected = 0.2 * gradients / np.sqrt(accumulated + 1e-7)
    assert np.allclose(steps_of(Adagrad(lr=0.2), gradients), expected)


def test_rmsprop(gradients):
    mean_square, expected = np.zeros(5), []
    for G in gradients:
        mean_square = 0.9 * mean_square + 0.1 * G**2
        expected.append(0.01 * G / np.sqrt(mean_square + 1e-7))
    assert np.allclose(steps_of(RMSprop(lr=0.01), gradients), expected)


def test_adadelta(gradients):
    E_g, E_x, expected = np.zeros(5), np.zeros(5), []
    for G in gradients:
        E_g = 0.95 * E_g + 0.05 * G**2
        delta = np.sqrt(E_x + 1e-7) / np.sqrt(E_g + 1e-7) * G
        E_x = 0.95 * E_x + 0.05 * delta**2
        expected.append(0.5 * delta)
    assert np.allclose(steps_of(Adadelta(lr=0.5), gradients), expected)


def test_adam(gradients):
    m, v, expected = np.zeros(5), np.zeros(5), []
    for n, G in enumerate(gradients, start=1):
        m = 0.9 * m + 0.1 * G
        v = 0.999 * v + 0.001 * G**2
        rate = 0.02 * np.sqrt(1 - 0.999**n) / (1 - 0.9**n)
        expected.append(rate * m / (np.sqrt(v) + 1e-7))
    assert np.allclose(steps_of(Adam(lr=0.02), gradients), expected)


@pytest.mark.parametrize("number", [0.1, np.float64(0.1)], ids=["Python's", "NumPy's"])
@pytest.mark.parametrize("kind", [SGD, Adagrad, Adadelta, RMSprop, Adam])
def test_float32_stays_float32(kind, number):
    """NumPy's own float64 scalars would make float64 of a float32 array."""
    optimizer = kind(*[number] * len(dataclasses.fields(kind)))
    theta = np.zeros(3, np.float32)
    at = SimpleNamespace(gradient=lambda: np.ones(3, np.float32))
    step, state, _ = optimizer.update(at, optimizer.init(theta))
    step, state, _ = optimizer.update(at, state)
    assert step.dtype == np.float32
    assert all(v.dtype == np.float32 for v in state.values() if hasattr(v, "dtype"))


@pytest.mark.parametrize(
    "optimizer",
    [
        HIG(lr=0.7, tau=1e-3),
        HIG(tau=1e-3, truncation="absolute", beta=-0.5),
        HIG(kappa=0.25, tau=0.0, method="svd"),
        GaussNewton(lr=0.3, tau=1e-3, paper=True),
    ],
    ids=repr,
)
def test_a_second_order_step_against_differences_and_numpys_svd(optimizer, rng):
    """The whole step from an oracle that shares nothing: central differences, NumPy's SVD."""
    sizes, chain = (4, 6, 8), OscillatorChain(steps=8, dt=0.4)
    x = rng.random((6, 4))
    data = Batch(x, x.copy(), rng.random((6, 4)))
    problem = Problem(MLP(sizes, "tanh"), chain, SquaredError(), data, data)
    theta = problem.network.init(rng)

    def output(theta):
        u = mlp(theta, data.net_input, sizes, "tanh")
        return np.stack([oscillators(a, b, chain) for a, b in zip(data.x, u, strict=True)])

    J = central_difference_jacobian(output, theta)
    g = (2 * (output(theta) - data.target) / 6).reshape(-1)
    reference = optimizer.lr * half_inverse_by_svd(
        J, g, optimizer.kappa, optimizer.tau, optimizer.truncation == "relative", optimizer.beta
    )
    step, state, info = optimizer.update(problem.linearise(theta, data), {})
    assert state == {}
    assert info.rank > 0
    assert np.linalg.norm(step - reference) < 1e-6 * np.linalg.norm(reference)


def test_gauss_newton_is_kappa_minus_one():
    assert GaussNewton().kappa == -1
    assert HIG().kappa == -0.5
