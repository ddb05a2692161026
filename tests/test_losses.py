"""Losses: values by their formulas, gradients by Taylor."""

import numpy as np
import pytest

from higcore import taylor_test
from higcore.losses import (
    ComponentError,
    Huber,
    Infidelity,
    SquaredError,
    WeightedSamples,
    curvature_of,
)


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
        SquaredError(0.5, weights=rng.uniform(0, 3, 10)),
        Huber(0.3, 2.0),
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


def test_weights_of_outputs(rng):
    y, target = rng.standard_normal((2, 4, 3))
    loss = SquaredError(0.5, weights=[1, 0.0, 30])
    expected = [0.5 * (a**2 + 30 * c**2) for a, _, c in y - target]
    assert np.allclose(loss.value(y, target), expected)
    assert np.array_equal(loss.curvature, [1.0, 0.0, 30.0])
    assert np.allclose(loss.gradient(y, target), (y - target) * loss.curvature)
    given = [(1, 0, 30), np.array([1.0, 0.0, 30.0]), np.array([1, 0, 30], np.float32)]
    assert all(SquaredError(0.5, weights=weights) == loss for weights in given)
    assert {SquaredError(0.5, weights=weights) for weights in given} == {loss}
    assert loss != SquaredError(0.5)
    assert repr(loss) == "SquaredError(factor=0.5, weights=(1.0, 0.0, 30.0))"
    assert eval(repr(loss)) == loss
    ones = SquaredError(0.5, weights=[1, 1, 1])
    assert np.array_equal(ones.value(y, target), SquaredError(0.5).value(y, target))


def test_a_wide_huber_is_a_squared_error_bit_for_bit(rng):
    y, target = 10 * rng.standard_normal((2, 6, 3))
    for dtype, width in ((np.float64, 1e300), (np.float32, 1e30), (np.float32, 1e300)):
        wide, square = Huber(width, 0.3), SquaredError(0.3)
        pair = y.astype(dtype), target.astype(dtype)
        assert np.array_equal(wide.value(*pair), square.value(*pair))
        assert np.array_equal(wide.gradient(*pair), square.gradient(*pair))
        assert (wide.curvatures(*pair) == dtype(square.curvature)).all()
        for array in (wide.value(*pair), wide.gradient(*pair), wide.curvatures(*pair)):
            assert array.dtype == dtype


def test_huber_is_linear_beyond_its_width(rng):
    y = np.array([[0.5, 3.0, -3.0]])
    loss, target = Huber(2.0, 0.5), np.zeros((1, 3))
    assert loss.value(y, target) == 0.5 * (0.25 + 2 * (2 * 4 * 1.0))
    assert np.array_equal(loss.gradient(y, target), [[0.5, 2.0, -2.0]])
    assert np.allclose(loss.curvatures(y, target), [[1.0, 2 / 3, 2 / 3]])


def test_the_parabola_of_huber_touches_and_is_above(rng):
    y, other, target = 3 * rng.standard_normal((3, 200, 1))
    loss = Huber(0.8, 1.7)
    value, slope, c = (f(y, target) for f in (loss.value, loss.gradient, loss.curvatures))
    parabola = value + (slope * (other - y) + c / 2 * (other - y) ** 2)[:, 0]
    assert (loss.value(other, target) <= parabola + 1e-12).all()


def test_weights_of_samples(rng):
    y, target = rng.standard_normal((2, 4, 3))
    weights = np.array([[1.0], [0.0], [2.5], [7.0]])
    both = np.hstack([target, weights])
    for inner in (SquaredError(0.5), SquaredError(weights=[1.0, 2.0, 0.0]), Huber(0.2)):
        loss = WeightedSamples(inner)
        assert np.array_equal(loss.value(y, both), weights[:, 0] * inner.value(y, target))
        assert np.array_equal(loss.gradient(y, both), weights * inner.gradient(y, target))
        expected = np.broadcast_to(weights * curvature_of(inner, y, target), y.shape)
        assert np.array_equal(loss.curvatures(y, both), expected)
        assert loss.target_size(3) == 4
    twice = WeightedSamples(WeightedSamples(SquaredError()))
    assert twice.target_size(3) == 5
    expected = weights[:, 0] ** 2 * SquaredError().value(y, target)
    assert np.allclose(twice.value(y, np.hstack([both, weights])), expected, rtol=1e-14)
