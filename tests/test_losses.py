"""Losses: values by their formulas, gradients by Taylor."""

import numpy as np
import pytest

from higcore import taylor_test
from higcore.losses import ComponentError, Infidelity, SquaredError


def states(rng, b, n=5):
    psi = rng.standard_normal((b, 2 * n))
    return psi / np.linalg.norm(psi, axis=1, keepdims=True)


def complex_state(y):
    n = y.shape[-1] // 2
    return y[..., :n] + 1j * y[..., n:]


def loss_cases(rng):
    mode = np.concatenate([states(rng, 1)[0, :5], np.zeros(5)])
    return [
        SquaredError(),
        SquaredError(0.5),
        Infidelity(),
        ComponentError(mode / np.linalg.norm(mode)),
    ]


def test_values(rng):
    y, target = states(rng, 4), states(rng, 4)
    a, b = complex_state(y), complex_state(target)
    assert np.allclose(SquaredError(0.5).value(y, target), 0.5 * (np.abs(a - b) ** 2).sum(axis=1))
    overlap = (a.conj() * b).sum(axis=1)
    assert np.allclose(Infidelity().value(y, target), 1 - np.abs(overlap) ** 2)
    mode = states(rng, 1)[0]
    c = complex_state(mode)
    expected = (np.abs(a.conj() @ c) - np.abs(c.conj() @ b.T)) ** 2
    assert np.allclose(ComponentError(mode).value(y, target), expected)


def test_gradients_by_taylor(rng):
    y, target = states(rng, 4), states(rng, 4)
    direction = rng.standard_normal(y.shape)
    for loss in loss_cases(rng):
        orders = taylor_test(
            lambda y, loss=loss: loss.value(y, target),
            lambda y, d, loss=loss: (loss.gradient(y, target) * d).sum(axis=1),
            y,
            direction,
            step=1e-3,
        )
        assert all(abs(order - 2) < 0.05 for order in orders), loss


def test_float32_stays_float32(rng):
    y, target = (states(rng, 4).astype(np.float32) for _ in range(2))
    mode = target[0].copy()
    for loss in (SquaredError(np.float64(0.5)), Infidelity(), ComponentError(mode)):
        assert loss.value(y, target).dtype == loss.gradient(y, target).dtype == np.float32


def test_infidelity_ignores_the_phase(rng):
    y = states(rng, 3)
    turned = np.exp(0.7j) * complex_state(y)
    target = np.concatenate([turned.real, turned.imag], axis=1)
    assert np.abs(Infidelity().value(y, target)).max() < 1e-14


def test_component_gradient_without_the_component():
    mode = np.array([1.0, 0.0, 0.0, 0.0])
    y = np.array([[0.0, 1.0, 0.0, 0.0]])
    loss = ComponentError(mode)
    assert np.array_equal(loss.gradient(y, mode[None]), np.zeros((1, 4)))
    assert loss.value(y, mode[None]) == pytest.approx(1)
