"""Poisson2D against its known eigenvalues, order, dot tests and a dense matrix."""

import numpy as np
import pytest

from bench.experiments.poisson import smooth_noise
from higcore import dot_test
from solvers import Poisson2D

GRIDS = [Poisson2D(), Poisson2D((3, 5), (0.5, 2.0)), Poisson2D(1), Poisson2D((1, 4))]


def oracle_matrix(solver):
    """The Laplacian from one-dimensional second differences and Kronecker products."""
    parts = []
    for n, h in zip(solver.shape, solver.spacings, strict=True):
        parts.append(
            (np.diag(np.ones(n - 1), 1) + np.diag(np.ones(n - 1), -1) - 2 * np.eye(n)) / h**2
        )
    n1, n2 = solver.shape
    return np.kron(parts[0], np.eye(n2)) + np.kron(np.eye(n1), parts[1])


@pytest.mark.parametrize("solver", GRIDS, ids=repr)
def test_stencil_and_rows_are_the_matrix(solver, rng, xp):
    x = rng.standard_normal((4, solver.state_size))
    y, S = solver.jacobian(xp.asarray(x), xp.asarray(x))
    y, S = (a if xp is np else a.get() for a in (y, S))
    matrix = oracle_matrix(solver)
    assert np.abs(y - x @ matrix.T).max() < 1e-12 * np.abs(matrix).max()
    assert np.array_equal(S, np.broadcast_to(matrix, S.shape))


@pytest.mark.parametrize("solver", GRIDS, ids=repr)
def test_eigenvalues(solver):
    """sin waves are eigenvectors with eigenvalue -sum 4/h^2 sin^2(pi k / (2 (n + 1)))."""
    (n1, n2), (h1, h2) = solver.shape, solver.spacings
    for k1 in range(1, n1 + 1):
        for k2 in range(1, n2 + 1):
            w1 = np.sin(np.pi * k1 * np.arange(1, n1 + 1) / (n1 + 1))
            w2 = np.sin(np.pi * k2 * np.arange(1, n2 + 1) / (n2 + 1))
            value = -4 * np.sin(np.pi * k1 / (2 * n1 + 2)) ** 2 / h1**2
            value -= 4 * np.sin(np.pi * k2 / (2 * n2 + 2)) ** 2 / h2**2
            wave = np.outer(w1, w2).reshape(1, -1)
            assert np.abs(solver.solve(wave, wave) - value * wave).max() < 1e-12 * abs(value)


def test_order_two_in_space():
    errors = []
    for n in (15, 31, 63, 127):
        h = 1 / (n + 1)
        grid = h * np.arange(1, n + 1)
        u = (np.sin(np.pi * grid)[:, None] * (grid * (1 - grid))[None] ** 2).reshape(1, -1)
        second = -(np.pi**2) * np.sin(np.pi * grid)[:, None] * (grid * (1 - grid))[None] ** 2
        second += np.sin(np.pi * grid)[:, None] * (2 - 12 * grid + 12 * grid**2)[None]
        y = Poisson2D(n, h).solve(u, u)
        errors.append(np.abs(y - second.reshape(1, -1)).max())
    assert np.abs(np.log2(np.array(errors[:-1]) / errors[1:]) - 2).max() < 0.05


@pytest.mark.parametrize("solver", GRIDS[:2], ids=repr)
def test_dot_test_of_200_pairs(solver, rng, xp):
    x = xp.asarray(rng.standard_normal((3, solver.state_size)))
    for _ in range(200):
        v, w = (xp.asarray(rng.standard_normal(x.shape)) for _ in range(2))
        mismatch = dot_test(
            lambda v: solver.tangent(x, x, v), lambda w: solver.adjoint(x, x, w), v, w
        )
        assert mismatch < 1e-12


def test_noise_has_zero_mean_and_unit_deviation():
    noise = smooth_noise(np.random.default_rng(0), 5, (8, 6))
    assert np.abs(noise.mean(axis=(1, 2))).max() < 1e-14
    assert np.abs(noise.std(axis=(1, 2)) - 1).max() < 1e-14


@pytest.mark.parametrize("solver", [*GRIDS, Poisson2D(32, 9 / 33)], ids=repr)
def test_the_potential_is_the_solution(solver, rng, xp):
    y = rng.standard_normal((3, solver.output_size))
    u = solver.potential(xp.asarray(y))
    u = u if xp is np else u.get()
    reference = np.linalg.solve(oracle_matrix(solver), y.T).T
    assert np.abs(u - reference).max() < 1e-12 * np.abs(reference).max()
    assert np.array_equal(solver.potential(xp.asarray(y[0])).shape, (solver.output_size,))


def test_the_potential_in_float32(rng):
    solver = Poisson2D(32, 9 / 33)
    y = rng.standard_normal((2, 1024))
    u, single = solver.potential(y), solver.potential(y.astype(np.float32))
    assert single.dtype == np.float32
    assert np.abs(single - u).max() < 1e-5 * np.abs(u).max()


def test_the_potential_of_something_else_is_refused():
    with pytest.raises(ValueError, match=r"y must have shape \(b, 64\)"):
        Poisson2D().potential(np.ones((2, 63)))
