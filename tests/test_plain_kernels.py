"""What Numba compiles gives the same as the plain Python it was made of."""

import numpy as np
import pytest

from higcore import StackedJacobian, half_inverse, rows
from higcore.kernels import RangeKernel
from higcore.spectral import band, bidiagonal, reduction, seminormal, tridiagonal
from nets import MLP, ConvNet1d

COMPILED = [
    (module, name)
    for module in (rows, band, bidiagonal, reduction, seminormal, tridiagonal)
    for name, member in vars(module).items()
    if hasattr(member, "__wrapped__") and member.__module__ == module.__name__
]
METHODS = ["qr", "gram", "tridiagonal", "band"]
NETS = [MLP((3, 7, 5)), ConvNet1d(3, 1, [4], 2, 5)]


@pytest.fixture
def plain(monkeypatch):
    """Makes all of them plain."""

    def switch():
        for module, name in COMPILED:
            monkeypatch.setattr(module, name, getattr(module, name).__wrapped__)

    return switch


def test_all_of_them_are_found():
    assert {name for _, name in COMPILED} == {
        "_add_hadamard", "_chase", "_diagonalise", "_mirror", "_negative_pivots", "_rotate",
        "_solve_shifted", "play", "play_back", "reflect",
    }  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("net", NETS, ids=repr)
def test_a_half_inverse_step(net, method, rng, plain):
    theta = net.init(rng)
    _, tape = net.forward(theta, rng.standard_normal((9, 3)))
    S, g, results = rng.standard_normal((9, 2, 5)), rng.standard_normal((9, 2)), []
    for switch in (lambda: None, plain):
        switch()
        J = StackedJacobian(net, theta, tape, S)
        step, info = half_inverse(J, g, tau=1e-4, method=method)
        assert info.fallback is None
        results.append((step, J.gram()))
    for compiled, same in zip(*results, strict=True):
        assert np.allclose(compiled, same, rtol=1e-8, atol=1e-12)


def test_a_graded_matrix(rng, plain):
    """Shifts of both signs, an end that is large, and no room for the rotations."""
    d, e, w = 10.0 ** -np.arange(12.0), 0.1 * 10.0 ** -np.arange(11.0), rng.standard_normal(12)
    for diagonal, off in ((d, e), (d[::-1], e[::-1]), (-d, e)):
        found = []
        for function in (tridiagonal._diagonalise, tridiagonal._diagonalise.__wrapped__):
            own = diagonal.copy(), np.append(off, 0.0), w.copy()
            sweeps, rotations = np.empty((480, 2), np.int64), np.empty((480, 2))
            rest = sweeps, tridiagonal.DEFLATE
            assert function(*(x.copy() for x in own), rotations[:1], *rest) == tridiagonal.FULL
            used = function(*own, rotations, *rest)
            count = (sweeps[:used, 0] - sweeps[:used, 1]).sum()
            found.append((*own, sweeps[:used], rotations[:count]))
        for compiled, same in zip(*found, strict=True):
            assert np.allclose(compiled, same, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("zeros", [0, 3])
def test_a_bidiagonal_matrix(zeros, rng):
    """With and without a shift, and no room for the rotations or the sweeps."""
    d, e, q = 10.0 ** -np.arange(12.0), 0.1 * 10.0 ** -np.arange(11.0), rng.standard_normal(12)
    for diagonal, above in ((d, e), (d[::-1], e[::-1]), (-d, e), (np.ones(12), -np.ones(11))):
        diagonal = diagonal * (np.arange(12) >= zeros)
        found = []
        for function in (bidiagonal._diagonalise, bidiagonal._diagonalise.__wrapped__):
            own = diagonal.copy(), above.copy(), q.copy()
            sweeps, rotations = np.empty((120, 2), np.int64), np.empty((480, 2))
            zero = bidiagonal.DEFLATE
            copies = [x.copy() for x in own]
            assert function(*copies, rotations[:1], sweeps, zero) == bidiagonal.FULL
            copies = [x.copy() for x in own]
            assert function(*copies, rotations, sweeps[:1], zero) == bidiagonal.UNSETTLED
            used = function(*own, rotations, sweeps, zero)
            count = (sweeps[:used, 0] - sweeps[:used, 1]).sum()
            found.append((own[0], own[2], sweeps[:used], rotations[:count]))
        for compiled, same in zip(*found, strict=True):
            assert np.allclose(compiled, same, rtol=1e-9, atol=1e-15)


def test_shifted_systems(rng):
    d, e, shifts = rng.uniform(2, 3, 9), rng.uniform(-1, 1, 8), np.array([0.0, 0.5, 1e3])
    T = np.diag(d) + np.diag(e, 1) + np.diag(e, -1)
    w = rng.standard_normal((9, 3))
    for function in (seminormal._solve_shifted, seminormal._solve_shifted.__wrapped__):
        x = w.copy()
        function(d, e, shifts, 1e-9, x, np.empty((9, 3)))
        for j, shift in enumerate(shifts):
            assert np.allclose((T + shift * np.eye(9)) @ x[:, j], w[:, j], rtol=1e-13)
        x = np.ones((2, 1))  # of a singular T
        function(np.ones(2), np.ones(1), np.zeros(1), 1e-9, x, np.empty((2, 1)))
        assert np.isfinite(x).all()


def test_squares_that_vanish():
    """Rotations by 0 / 0 are not made; without a floor for what counts as zero, it may give up."""
    found = []
    for function in (tridiagonal._diagonalise, tridiagonal._diagonalise.__wrapped__):
        d, e, w = np.zeros(3), np.array([1e-170, 1.0, 0.0]), np.array([1.0, 2.0, 3.0])
        used = function(d, e, w, np.empty((9, 2)), np.empty((120, 2), np.int64), 0.0)
        assert used == tridiagonal.UNSETTLED or np.allclose(np.sort(d), [-1, 0, 1])
        assert np.isfinite([d, w]).all()
        found.append((d, w))
    assert np.array_equal(*found)
    d, e, w = np.zeros(3), np.array([1e-170, 1.0, 0.0]), np.ones(3)
    sweeps = np.empty((120, 2), np.int64)
    used = tridiagonal._diagonalise(d, e, w, np.empty((9, 2)), sweeps, tridiagonal.DEFLATE)
    assert used > 0
    assert np.allclose(np.sort(d), [-1, 0, 1])


def test_an_eigenvalue_that_does_not_settle(monkeypatch):
    monkeypatch.setattr(tridiagonal, "MAX_SWEEPS", 0)
    arrays = np.ones(3), np.ones(3), np.ones(3), np.empty((9, 2)), np.empty((9, 2), np.int64)
    assert tridiagonal._diagonalise.__wrapped__(*arrays, 1e-18) == tridiagonal.UNSETTLED


@pytest.mark.parametrize("level", [-1.0, 0.0, 0.3, 1.0, 4.0])
def test_inertia(level, rng):
    lower = rng.standard_normal((4, 30))
    lower[0] = np.abs(lower[0])
    lower[0, 0] = 1.0  # at level 1 the first pivot is zero
    expected = band._count_below(np.asfortranarray(lower), level)
    assert band._negative_pivots.__wrapped__(lower.T.copy(), level) == expected


def cubes(lo, hi, x, y):
    for i in range(lo, hi):
        y[i] = x[i] ** 3


def test_the_loop_over_chunks():
    x, y = np.arange(37.0), np.zeros(37)
    RangeKernel(cubes)._loop().py_func(0, 37, 8, x, y)
    assert np.array_equal(y, x**3)
