"""The public checks must accept right derivatives and reject wrong ones."""

import numpy as np
import pytest

from higcore import dot_test, taylor_test


def test_dot_test_accepts_a_transpose_and_rejects_the_rest(rng):
    A = rng.standard_normal((5, 3))
    v, w = rng.standard_normal(3), rng.standard_normal(5)
    assert dot_test(lambda v: A @ v, lambda w: A.T @ w, v, w) < 1e-14
    assert dot_test(lambda v: A @ v, lambda w: -A.T @ w, v, w) > 1e-3
    assert dot_test(lambda v: A @ v, lambda w: (A + 1e-6).T @ w, v, w) > 1e-9


def test_dot_test_of_the_zero_operator():
    zero = np.zeros(2)
    assert dot_test(lambda v: 0 * v, lambda w: 0 * w, np.ones(2), np.ones(2)) == 0
    assert dot_test(lambda v: 0 * v, lambda w: w, np.ones(2), np.ones(2)) > 0
    assert dot_test(lambda v: v, lambda w: w, zero, zero) == 0
    assert np.isnan(dot_test(lambda v: v * np.nan, lambda w: 0 * w, np.ones(2), np.ones(2)))


def test_dot_test_names_a_wrong_shape():
    with pytest.raises(ValueError, match=r"adjoint\(w\) must have shape \(3,\)"):
        dot_test(lambda v: v[:2], lambda w: w, np.ones(3), np.ones(2))


def test_taylor_test_sees_a_wrong_derivative(rng):
    v, d = rng.standard_normal(4), rng.standard_normal(4)
    right = taylor_test(np.exp, lambda v, d: np.exp(v) * d, v, d)
    wrong = taylor_test(np.exp, lambda v, d: 1.01 * np.exp(v) * d, v, d)
    assert len(right) == 4
    assert all(abs(order - 2) < 0.05 for order in right)
    assert wrong[-1] < 1.5


def test_taylor_test_needs_a_halving():
    with pytest.raises(ValueError, match="halvings must be at least 1"):
        taylor_test(np.exp, lambda v, d: d, np.ones(1), np.ones(1), halvings=0)
