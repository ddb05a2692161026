"""Singular vectors of a triangle, applied: any spectrum and any size, and what does not settle."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import half_inverse_by_svd
from test_filters import SIDES, by_svd, error, matrix_with, random_filter

from higcore import half_inverse
from higcore.linearisation import DenseJacobian
from higcore.spectral import bidiagonal, qr
from higcore.spectral.filters import Damped, SmoothPower, TruncatedPower
from higcore.spectral.spectrum import DecompositionError

EPS = 2.0**-52
SPECTRA = {
    "random": lambda n: np.random.default_rng(n).uniform(0.1, 1.0, n),
    "graded": lambda n: np.logspace(0, -14, n),
    "clustered": lambda n: (
        np.repeat([1.0, 1e-5], [n - n // 2, n // 2]) * (1 + 1e-13 * np.arange(n))
    ),
    "repeated": np.ones,
    "half of them zero": lambda n: np.where(np.arange(n) < n // 2, 0.0, 1.0),
    "rank one": lambda n: np.where(np.arange(n) < 1, 1.0, 0.0),
    "beyond squares": lambda n: 1e-180 * np.logspace(0, -14, n),
}


def triangle_with(sigma, rng):
    """A triangle (n, n) with the given singular values."""
    n = len(sigma)
    P, G = (np.linalg.qr(rng.standard_normal((n, n)))[0] for _ in range(2))
    return np.asfortranarray(np.triu(np.linalg.qr((P * sigma) @ G)[1]))


def check(R, rng):
    """S, V and U^T q of a decomposition against R; V is orthogonal."""
    n = len(R)
    q, w = rng.standard_normal((2, n))
    found = bidiagonal.decompose(R, q)
    size = np.linalg.norm(R, 2)
    bound = 20 * n * EPS
    sigma = np.linalg.svd(R, compute_uv=False)
    assert np.abs(np.sort(found.sigma)[::-1] - sigma).max() <= bound * size
    V = np.column_stack([found.combine(e) for e in np.eye(n)])
    assert np.abs(V.T @ V - np.eye(n)).max() <= bound
    assert np.abs(found.along(w) - V.T @ w).max() <= bound * np.linalg.norm(w)
    unit = 1.0 / (size or 1.0)
    assert np.abs(np.linalg.norm(unit * R @ V, axis=0) - unit * found.sigma).max() <= bound
    through = found.combine(unit * found.sigma * found.coefficients)
    assert np.abs(through - unit * R.T @ q).max() <= bound * np.linalg.norm(q)
    return found


@pytest.mark.parametrize("spectrum", SPECTRA)
@pytest.mark.parametrize("n", [1, 2, 3, 7, 31, 64, 65, 130])
def test_any_spectrum_and_any_size(spectrum, n, rng):
    check(triangle_with(SPECTRA[spectrum](n), rng), rng)


@pytest.mark.parametrize("n", [1, 2, 9, 40])
def test_triangles_of_zeros(n, rng):
    for R in (np.zeros((n, n)), np.diag(np.ones(n - 1), 1), np.diag(np.arange(n) % 2.0)):
        found = check(np.asfortranarray(R), rng)
        assert (found.sigma == 0).sum() == n - np.linalg.matrix_rank(R)


@given(
    st.integers(2, 60), st.floats(-30, 30), st.floats(0, 3), st.integers(0, 3), st.integers(0, 99)
)
@settings(max_examples=80, deadline=None)
def test_bidiagonal_triangles_graded_either_way(n, decades, beside, zeros, seed):
    """The reduction leaves them as they are: the sweeps meet every grading, and zeros within."""
    rng = np.random.default_rng(seed)
    d = np.logspace(0, decades, n) / max(1.0, 10.0**decades)
    e = beside * d[1:] * rng.choice([-1.0, 1.0], n - 1)
    d[rng.integers(0, n, zeros)] = 0.0
    for R in (np.diag(d) + np.diag(e, 1), (np.diag(d) + np.diag(e, 1)).T):
        found = check(np.asfortranarray(R), rng)
        assert found.used <= 4 * n


@pytest.mark.parametrize("shape", SIDES)
@pytest.mark.parametrize("zeros", [0, 7])
def test_one_triangle_takes_one_filter_and_one_g_after_the_other(shape, zeros):
    rng, k = np.random.default_rng(sum(shape)), min(shape)
    sigma = 10.0 ** rng.uniform(-3, 0, k) * (np.arange(k) >= zeros)
    J, (first, other) = matrix_with(sigma, *shape, rng), rng.standard_normal((2, shape[0]))
    through = qr._of_rows if shape[0] <= shape[1] else qr._of_columns
    triangle = through(DenseJacobian(J), first)
    for kind in 4 * [TruncatedPower, SmoothPower, Damped]:
        f = random_filter(rng, kind)
        if zeros and kind is SmoothPower:  # 0^(1 + kappa) of rounding errors
            f = SmoothPower(0.5, f.tau)
        if zeros and kind is Damped:  # and a penalty that hardly holds them
            f = dataclasses.replace(f, mu=min(f.mu, 0.4))
        for g in (first, other):
            step, info = triangle.of(g).apply(f)
            f_without = dataclasses.replace(f, beta=0.0) if kind is TruncatedPower else f
            assert error(step, by_svd(J, g, f_without)) < (1e-6 if zeros else 1e-9), f
            assert info.detail is None
        v = rng.standard_normal(shape[1])
        if through is qr._of_columns:
            assert error(triangle.of_image(v).apply(f)[0], by_svd(J, J @ v, f_without)) < 1e-6


def test_nan_is_no_endless_loop():
    for n in (1, 2, 5, 70):
        for where in (0, n // 2, n - 1):
            R = np.asfortranarray(np.triu(np.ones((n, n))))
            R[where, where] = np.nan
            with pytest.raises(DecompositionError):
                bidiagonal.decompose(R, np.ones(n))


def test_no_room_for_the_rotations_makes_more_of_it(rng, monkeypatch):
    n = 12
    d, e, q = np.ones(n), -np.ones(n - 1), rng.standard_normal(n)
    honest, rooms = bidiagonal._diagonalise, []

    def cramped(d, above, right, rotations, sweeps, floor):
        rooms.append(len(rotations))
        room = rotations[: len(rotations) // 8] if len(rooms) < 4 else rotations
        return honest(d, above, right, room, sweeps, floor)

    whole = bidiagonal._singular_values(d, e, q)
    monkeypatch.setattr(bidiagonal, "_diagonalise", cramped)
    found = bidiagonal._singular_values(d, e, q)
    assert rooms == [n * n, 2 * n * n, 4 * n * n, 8 * n * n]
    assert np.array_equal(found[0], whole[0])
    assert np.array_equal(found[1], whole[1])


# What is broken -> what is said of it.
FAILURES = {
    "_diagonalise": (lambda *args: bidiagonal.UNSETTLED, "implicit QR did not converge"),
    "call": (lambda name, *args: -3, "dgebrd failed with info = -3"),
    "_singular_values": (
        lambda d, *rest: (1.001 * d, *HONEST(d, *rest)[1:]),
        "V S U^T q is not R^T q",
    ),
    "_reflect_right": (lambda *args: 1.001 * RIGHT(*args), "V S U^T q is not R^T q"),
}
HONEST, RIGHT = bidiagonal._singular_values, bidiagonal._reflect_right


@pytest.mark.parametrize("shape", [(6, 9), (9, 6)])
@pytest.mark.parametrize("broken", FAILURES)
def test_what_does_not_settle_is_left_to_the_svd_of_the_triangle(broken, shape, rng, monkeypatch):
    J, g = rng.standard_normal(shape), rng.standard_normal(shape[0])
    function, said = FAILURES[broken]
    monkeypatch.setattr(bidiagonal, broken, function)
    step, info = half_inverse(J, g, method="qr")
    assert (info.method, info.fallback) == ("qr", None)
    assert info.detail == f"{said}: singular vectors of the triangle"
    assert np.allclose(step, half_inverse_by_svd(J, g, -0.5, 1e-6))
