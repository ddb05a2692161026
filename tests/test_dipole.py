"""QuantumDipole: unitarity, reversal, dense solves, and every derivative."""

import numpy as np
import pytest
from oracles import central_difference_jacobian

from higcore import dot_test, taylor_test
from higcore.kernels import RangeKernel
from solvers import QuantumDipole

DIPOLES = [QuantumDipole(), QuantumDipole(points=7, steps=9, dt=0.1), QuantumDipole(3, 4, 0.2, 1.0)]
SMALL = DIPOLES[1:]


def sample(dipole, rng, b, xp=np):
    x = rng.standard_normal((b, dipole.state_size))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return xp.asarray(x), xp.asarray(rng.standard_normal((b, dipole.steps)))


def complex_state(y):
    n = y.shape[-1] // 2
    return y[..., :n] + 1j * y[..., n:]


def oracle(x, u, dipole):
    """Crank-Nicolson with dense complex solves, one sample; returns the final complex state."""
    n, dx = dipole.interior, dipole.spacing
    laplacian = (np.diag(np.ones(n - 1), 1) + np.diag(np.ones(n - 1), -1) - 2 * np.eye(n)) / dx**2
    psi = complex_state(x)
    for control in u:
        H = -laplacian + control * np.diag(dx * np.arange(1, n + 1))
        half = 0.5j * dipole.dt * H
        psi = np.linalg.solve(np.eye(n) + half, (np.eye(n) - half) @ psi)
    return psi


@pytest.mark.parametrize("dipole", DIPOLES, ids=repr)
def test_steps_are_dense_solves(dipole, rng):
    x, u = sample(dipole, rng, 3)
    reference = np.stack([oracle(*pair, dipole) for pair in zip(x, u, strict=True)])
    assert np.abs(complex_state(dipole.solve(x, u)) - reference).max() < 1e-12


def test_plain_kernels_are_dense_solves(rng, monkeypatch):
    monkeypatch.setattr(RangeKernel, "__call__", RangeKernel.plain)
    for dipole in SMALL:
        x, u = sample(dipole, rng, 2)
        reference = np.stack([oracle(*pair, dipole) for pair in zip(x, u, strict=True)])
        assert np.abs(complex_state(dipole.solve(x, u)) - reference).max() < 1e-12


def test_norm_drift_and_time_reversal(rng):
    dipole = QuantumDipole()
    x, u = sample(dipole, rng, 5)
    states = dipole.trajectory(x, u)
    norms = np.linalg.norm(states, axis=2)
    assert np.abs(norms - norms[:, :1]).max() < 1e-12
    conjugate = np.concatenate([np.ones(14), -np.ones(14)])
    back = dipole.solve(states[:, -1] * conjugate, u[:, ::-1].copy()) * conjugate
    assert np.abs(back - x).max() < 1e-11
    assert np.array_equal(states[:, -1], dipole.solve(x, u))


def test_eigenstates_only_turn_their_phase():
    dipole = QuantumDipole(steps=10)
    for k in (1, 2, 3, 14):
        state = dipole.eigenstate(k)[None]
        assert np.linalg.norm(state) == pytest.approx(1)
        energy = 4 / dipole.spacing**2 * np.sin(np.pi * k / 30) ** 2
        half = 0.5j * dipole.dt * energy
        final = complex_state(dipole.solve(state, np.zeros((1, 10))))
        expected = ((1 - half) / (1 + half)) ** 10 * complex_state(state)
        assert np.abs(final - expected).max() < 1e-12
    overlaps = np.stack([dipole.eigenstate(k) for k in range(1, 15)])
    assert np.abs(overlaps @ overlaps.T - np.eye(14)).max() < 1e-14


@pytest.mark.parametrize("dipole", DIPOLES, ids=repr)
def test_dot_test_of_200_pairs(dipole, rng, xp):
    x, u = sample(dipole, rng, 3, xp)
    for _ in range(200):
        v, w = xp.asarray(rng.standard_normal(u.shape)), xp.asarray(rng.standard_normal(x.shape))
        mismatch = dot_test(
            lambda v: dipole.tangent(x, u, v), lambda w: dipole.adjoint(x, u, w), v, w
        )
        assert mismatch < 1e-12


@pytest.mark.parametrize("dipole", SMALL, ids=repr)
def test_plain_derivatives_by_dot_test(dipole, rng, monkeypatch):
    monkeypatch.setattr(RangeKernel, "__call__", RangeKernel.plain)
    x, u = sample(dipole, rng, 2)
    v, w = rng.standard_normal(u.shape), rng.standard_normal(x.shape)
    tangent, adjoint = (lambda v: dipole.tangent(x, u, v)), (lambda w: dipole.adjoint(x, u, w))
    assert dot_test(tangent, adjoint, v, w) < 1e-12


@pytest.mark.parametrize("dipole", SMALL, ids=repr)
def test_taylor_orders(dipole, rng):
    x, u = sample(dipole, rng, 3)
    direction = rng.standard_normal(u.shape)
    orders = taylor_test(
        lambda u: dipole.solve(x, u), lambda u, d: dipole.tangent(x, u, d), u, direction
    )
    assert all(abs(order - 2) < 0.05 for order in orders)


@pytest.mark.parametrize("dipole", SMALL, ids=repr)
def test_jacobian_is_that_of_central_differences(dipole, rng, kernel_mode):
    x, u = sample(dipole, rng, 2)
    y, S = dipole.jacobian(x, u)
    assert np.array_equal(y, dipole.solve(x, u))
    for i in range(2):

        def final(u, i=i):
            psi = oracle(x[i], u, dipole)
            return np.concatenate([psi.real, psi.imag])

        reference = central_difference_jacobian(final, u[i])
        assert np.abs(S[i] - reference).max() < 1e-7 * np.abs(reference).max()


@pytest.mark.parametrize("b", [1, 7, 8, 9, 16, 17, 40])
def test_a_sample_does_not_depend_on_its_batch(b, rng):
    dipole = SMALL[0]
    x, u = sample(dipole, rng, b)
    y, S = dipole.jacobian(x, u)
    for i in {0, b // 2, b - 1}:
        y_alone, S_alone = dipole.jacobian(x[i : i + 1], u[i : i + 1])
        assert np.allclose(y[i], y_alone[0], atol=1e-13)
        assert np.allclose(S[i], S_alone[0], atol=1e-13)


def test_float32_stays_float32(rng):
    dipole = QuantumDipole()
    x, u = (a.astype(np.float32) for a in sample(dipole, rng, 2))
    y, S = dipole.jacobian(x, u)
    reference = dipole.jacobian(x.astype(float), u.astype(float))
    assert y.dtype == S.dtype == np.float32
    assert np.abs(y - reference[0]).max() < 1e-4
    assert np.abs(S - reference[1]).max() < 1e-4


def test_one_sample_and_one_cotangent_leave_the_input_alone(rng):
    """Arrays with axes of length one are contiguous in every order."""
    dipole = QuantumDipole(5, steps=4)
    x, u, y_bar = (rng.standard_normal((1, n)) for n in (6, 4, 6))
    before = y_bar.copy()
    first = dipole.adjoint(x, u, y_bar)
    assert np.array_equal(y_bar, before)
    assert np.array_equal(first, dipole.adjoint(x, u, y_bar))
    assert QuantumDipole(3, steps=4).jacobian(x[:, :2], u)[1].shape == (1, 2, 4)
