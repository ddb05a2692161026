"""The parts of the methods: reductions, simple fractions, inertia, triangles of J, fall-backs."""

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse.linalg
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import half_inverse_by_svd

from bench.experiments import Oscillators
from higcore import HIG, fit, half_inverse
from higcore.backend import to_host
from higcore.spectral import (
    band,
    bidiagonal,
    eigen,
    inplace,
    panels,
    qr,
    rational,
    reduction,
    tridiagonal,
)
from higcore.spectral.filters import TruncatedPower
from higcore.spectral.spectrum import DecompositionError

EPS = 2.0**-52
SHAPES = [(1, 1), (2, 1), (3, 2), (7, 3), (16, 16), (40, 1), (65, 8), (130, 32), (200, 64)]


def symmetric(n, rng, decades=0.0):
    """K (n, n) with eigenvalues of both signs, or graded over some decades and positive."""
    Q = np.linalg.qr(rng.standard_normal((n, n)))[0]
    values = np.logspace(0, -decades, n) if decades else rng.standard_normal(n)
    K = (Q * values) @ Q.T
    return (K + K.T) / 2


def dense_band(lower):
    """The symmetric matrix of a lower band (width + 1, n)."""
    n = lower.shape[1]
    return sum(
        np.diag(lower[d, : n - d], -d) + (np.diag(lower[d, : n - d], d) if d else 0)
        for d in range(min(len(lower), n))
    )


def in_place(xp, K, width):
    """`reduction.reduce_to_band` with the arguments of `panels.reduce_to_band`."""
    return reduction.reduce_to_band(np.asfortranarray(K), width)


def ratios(K, Q, B):
    """LAPACK's test ratios: |K - Q B Q^T| / (n |K| eps) and |I - Q^T Q| / (n eps)."""
    n = len(K)
    backward = np.linalg.norm(K - Q @ B @ Q.T) / (n * np.linalg.norm(K) * EPS)
    return backward, np.linalg.norm(np.eye(n) - Q.T @ Q) / (n * EPS)


@pytest.mark.parametrize(("n", "width"), SHAPES)
@pytest.mark.parametrize("decades", [0.0, 14.0])
@pytest.mark.parametrize("reduce", [in_place, panels.reduce_to_band])
def test_reduction_to_a_band(reduce, n, width, decades, rng):
    K = symmetric(n, rng, decades)
    found = reduce(np, K.copy(), width)
    Q = np.column_stack([found.rotate(e, True) for e in np.eye(n)])
    transposed = np.column_stack([found.rotate(e, False) for e in np.eye(n)])
    assert max(ratios(K, Q, dense_band(found.band()))) < 50
    assert np.abs(transposed - Q.T).max() < 50 * n * EPS


@pytest.mark.parametrize(("n", "width"), SHAPES)
def test_chase_of_a_band_to_a_tridiagonal_matrix(n, width, rng):
    lower = np.asfortranarray(rng.standard_normal((width + 1, n)))
    B, W = dense_band(lower), []
    for e in np.eye(n):
        chase = reduction.chase_to_tridiagonal(lower, e)
        W.append(e)  # P^T e
    P = np.column_stack([chase.rotate(e, True) for e in np.eye(n)])
    T = np.diag(chase.diagonal)
    T = T + np.diag(chase.off_diagonal, 1) + np.diag(chase.off_diagonal, -1)
    assert max(ratios(B, P, T)) < 50
    assert np.abs(np.column_stack(W) - P.T).max() < 50 * n * EPS


def test_the_plain_chase_is_the_compiled_one(rng):
    columns = np.zeros((12, 7))
    columns[:, :4] = rng.standard_normal((12, 4))
    results = []
    for run in (reduction._chase, reduction._chase.__wrapped__):
        given_columns, w = columns.copy(), np.arange(12.0)
        reflectors, scales = np.zeros((40, 3)), np.zeros(40)
        run(given_columns, 3, w, reflectors, scales)
        results.append((given_columns[:, :2], w, reflectors, scales))
    for compiled, plain in zip(*results, strict=True):
        assert np.allclose(compiled, plain, atol=1e-13)


@given(st.floats(0, 1), st.floats(0, 13.5), st.floats(-20, 20))
@settings(max_examples=60)
def test_fractions_are_the_power_on_all_of_the_interval(p, decades, shift):
    low, high = 10.0 ** (shift - decades), 10.0**shift
    found = rational.power_fractions(p, low, high)
    x = np.exp(np.linspace(np.log(low), np.log(high), 1001))
    assert np.abs(found(x) * x**p - 1).max() < 2e-12 + 4 * EPS * len(found.poles)
    assert len(found.poles) <= 64
    assert (found.poles >= 0).all()


def test_fractions_that_do_not_suffice_are_refused(monkeypatch):
    rational._unit_power.cache_clear()
    monkeypatch.setattr(rational, "MOST_POLES", 12)
    monkeypatch.setattr(rational.np, "log10", lambda x: 0.0)
    with pytest.raises(DecompositionError, match=r"no good fractions for x\^-0.75"):
        rational.power_fractions(0.75, 1e-10, 1.0)


@pytest.mark.parametrize("level", [-3.0, -0.5, 0.0, 0.1, 0.7, 2.0, 9.0])
def test_inertia_counts_the_eigenvalues_below(level, rng):
    for width in (1, 4, 20):
        lower = np.asfortranarray(rng.standard_normal((width + 1, 60)))
        eigenvalues = np.linalg.eigvalsh(dense_band(lower))
        assert band._count_below(lower, level) == (eigenvalues < level).sum()


def cut(n, low, rng, tau=1e-5):
    """K (n, n), z and K^(-3/4) z, with the modes ``low`` under the cutoff."""
    sigma = np.concatenate([np.logspace(0, -3.5, n - len(low)), np.asarray(low, float)])
    U = np.linalg.qr(rng.standard_normal((n, n)))[0]
    z = rng.standard_normal(n)
    keep = sigma > tau
    exact = U[:, keep] @ (sigma[keep] ** -1.5 * (U[:, keep].T @ z))
    K = (U * sigma**2) @ U.T
    return (K + K.T) / 2, z, exact


@pytest.mark.parametrize(
    ("low", "detail"),
    [
        ([], "0 modes projected out"),
        ([9e-6], "1 modes projected out"),
        ([0.0] * 7, "7 modes projected out"),
        ([1e-6, 3e-6, 1e-9, 0.0], "4 modes projected out"),
        ([1e-7] * 33, "33 modes below the cutoff: chased to a tridiagonal matrix"),
    ],
)
@pytest.mark.parametrize("n", [150, 310])
def test_band_takes_the_way_that_the_cut_asks_for(n, low, detail, rng):
    K, z, exact = cut(n, low, rng)
    rule = TruncatedPower(-0.5, 1e-5)
    for upper in (K, np.triu(K) + np.tril(np.full_like(K, np.nan), -1)):  # one triangle is enough
        found, info = band.decompose(upper.copy(), z).apply(rule)
        assert np.linalg.norm(found - exact) < 1e-7 * np.linalg.norm(exact)
        assert info.rank == n - len(low)
        assert info.detail.endswith(detail)
    _, reference = eigen.decompose(K.copy(), z).apply(rule)
    assert info.sigma_max == pytest.approx(reference.sigma_max, rel=1e-12)
    assert info.cutoff == pytest.approx(reference.cutoff, rel=1e-12)
    assert info.gap_to_cutoff == pytest.approx(reference.gap_to_cutoff, rel=2e-2)


@pytest.mark.parametrize("kappa", [1.0, -1.0])
def test_band_at_the_ends_of_kappa(kappa, rng):
    """No pole for the gradient, J^T g; the one solve with K itself for Gauss-Newton."""
    J, g = rng.standard_normal((140, 150)), rng.standard_normal(140)
    step, info = half_inverse(J, g, kappa=kappa, method="band")
    assert info.detail == f"{0 if kappa == 1 else 1} poles, 0 modes projected out"
    assert np.allclose(step, half_inverse_by_svd(J, g, kappa, 1e-6), rtol=1e-8)


def test_lanczos_that_does_not_converge_is_no_failure(rng, monkeypatch):
    def broken(*args, **options):
        raise scipy.sparse.linalg.ArpackNoConvergence("none", np.empty(0), np.empty((0, 0)))

    K, z, exact = cut(150, [], rng)
    monkeypatch.setattr(band.sla, "eigsh", broken)
    found, info = band.decompose(K, z).apply(TruncatedPower(-0.5, 1e-5))
    assert info.detail == "Lanczos iteration did not converge: chased to a tridiagonal matrix"
    assert np.linalg.norm(found - exact) < 1e-7 * np.linalg.norm(exact)


def test_few_rows_go_straight_to_the_tridiagonal_matrix(rng):
    decomposed = band.decompose(symmetric(20, rng, 3.0), np.ones(20))
    _, info = decomposed.apply(TruncatedPower(-0.5, 1e-5))
    assert info.detail == "few rows: chased to a tridiagonal matrix"


@pytest.mark.parametrize("method", ["band", "tridiagonal"])
@pytest.mark.parametrize("n", [60, 300, 700])
def test_equal_eigenvalues_settle(method, n, rng):
    """Rounding of a multiple of the identity is no reason to give up."""
    K = symmetric(n, rng, 1e-13)
    z = rng.standard_normal(n)
    decompose = {"band": band, "tridiagonal": tridiagonal}[method].decompose
    found, info = decompose(K, z).apply(TruncatedPower(-0.5, 1e-5))
    assert np.linalg.norm(found - z) < 1e-11 * np.linalg.norm(z)
    assert info.rank == n


# Injected failures of the band method, and what its successor says of them.
FAILURES = {
    "raises": ("_cholesky", lambda *args: (_ for _ in ()).throw(np.linalg.LinAlgError("no"))),
    "nan": ("_sum_of_solves", lambda lower, w, fractions: np.full_like(w, np.nan)),
    "wrong": ("_solve", lambda factor, w: 1.01 * w),
    "scaled": ("reduce_to_band", lambda K, width: HONEST(1.01 * K, width)),
}
HONEST = reduction.reduce_to_band


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failing_band_falls_back_and_says_so(failure, rng, monkeypatch):
    J, g = rng.standard_normal((140, 150)), rng.standard_normal(140)
    monkeypatch.setattr(band, *FAILURES[failure])
    step, info = half_inverse(J, g, method="band")
    assert info.method == "tridiagonal"
    assert info.fallback.startswith("band failed (")
    assert np.allclose(step, half_inverse_by_svd(J, g, -0.5, 1e-6), rtol=1e-8)


def test_doubt_about_the_few_is_no_failure(rng, monkeypatch):
    """Lanczos iteration that finds other eigenvalues than were counted is not believed."""
    K, z, exact = cut(150, [1e-6, 1e-7], rng)
    honest = band._count_below
    monkeypatch.setattr(band, "_count_below", lambda *args: honest(*args) + 1)
    found, info = band.decompose(K, z).apply(TruncatedPower(-0.5, 1e-5))
    assert "do not agree with their number: chased" in info.detail
    assert np.linalg.norm(found - exact) < 1e-7 * np.linalg.norm(exact)


@pytest.mark.parametrize("shape", [(12, 40), (40, 12), (20, 20), (1, 9), (9, 1)])
def test_blocks_of_any_size_make_the_same_triangle(shape, rng):
    J = rng.standard_normal(shape)
    small = min(shape)
    parts = J.T if small == shape[0] else J
    plain = np.linalg.qr(parts, mode="r")
    for size in (1, 2, 5, max(shape)):
        blocks = ((0, parts[lo : lo + size]) for lo in range(0, len(parts), size))
        R = qr._triangle(np, blocks, small)
        assert np.allclose(np.abs(np.triu(R)), np.abs(plain), atol=1e-13)
        assert np.allclose(R.T @ R, parts.T @ parts, atol=1e-12)


def test_parts_that_begin_further_on(rng, xp):
    blocks = [(first, rng.standard_normal((k, 9 - first))) for first, k in ((0, 5), (4, 7), (8, 2))]
    whole = np.concatenate([np.pad(part, ((0, 0), (first, 0))) for first, part in blocks])
    R = to_host(qr._triangle(xp, ((first, xp.asarray(part)) for first, part in blocks), 9))
    assert np.allclose(R, np.triu(R), atol=1e-15)
    assert np.allclose(R.T @ R, whole.T @ whole, atol=1e-12)


@pytest.mark.parametrize("tau", [1e-8, 1e-10])
@pytest.mark.parametrize("shape", [(60, 90), (90, 60)])
def test_qr_resolves_what_squaring_cannot(tau, shape, rng):
    """Error eps / tau at most, where J itself is only known to eps max(S)."""
    k = min(shape)
    sigma = np.logspace(0, -14, k)
    sigma = sigma[np.abs(sigma / tau - 1) > 0.2]
    U = np.linalg.qr(rng.standard_normal((shape[0], len(sigma))))[0]
    V = np.linalg.qr(rng.standard_normal((shape[1], len(sigma))))[0]
    J, g = (U * sigma) @ V.T, rng.standard_normal(shape[0])
    step, info = half_inverse(J, g, tau=tau, method="qr")
    exact = V[:, sigma > tau] @ (sigma[sigma > tau] ** -0.5 * (U.T @ g)[sigma > tau])
    assert info.rank == (sigma > tau).sum()
    assert np.linalg.norm(step - exact) <= 4 * EPS / tau * np.linalg.norm(exact)


@pytest.fixture(scope="module")
def trained():
    """A stacked Jacobian of the oscillators met in training, and g."""
    problem = Oscillators(samples=256, test_samples=16).problem(seed=4)
    theta = fit(problem, HIG(), batch=64, steps=40, seed=4).theta
    at = problem.linearise(theta, problem.train[:64])
    return at.jacobian(), at.loss_gradient


def test_qr_agrees_with_the_svd_at_tau_1e_10(trained):
    J, g = trained
    step, info = half_inverse(J, g, tau=1e-10, method="qr")
    reference, truth = half_inverse(J, g, tau=1e-10, method="svd")
    assert info.rank == truth.rank
    assert truth.gap_to_cutoff > 0.1
    assert np.linalg.norm(step - reference) <= 1e-8 * np.linalg.norm(reference)


def test_squaring_beats_a_float32_svd(trained):
    """By a factor of 5 at least, wherever it is used."""
    J, g = trained
    dense, g = J.dense(), g.reshape(-1)
    for tau in (1e-4, 1e-5, 1e-6):
        reference = half_inverse_by_svd(dense, g, -0.5, tau)
        single = dense.astype(np.float32), g.astype(np.float32)
        U, s, Vt = scipy.linalg.svd(single[0], full_matrices=False)
        keep = s > tau * s[0]
        coarse = Vt[keep].T @ (s[keep] ** -0.5 * (U[:, keep].T @ single[1]))
        for method in ("gram", "tridiagonal", "band"):
            step, _ = half_inverse(J, g, tau=tau, method=method)
            assert 5 * np.linalg.norm(step - reference) < np.linalg.norm(coarse - reference)


def test_leading_dimensions_of_parts():
    A = np.zeros((5, 4), order="F")
    assert inplace.leading(A[2:, 1:]) == 5
    with pytest.raises(ValueError, match="contiguous columns"):
        inplace.leading(np.zeros((5, 4)))


def test_lapack_complaints_are_returned():
    work = np.zeros(4)
    assert inplace.call("dgeqrt", -1, 1, 1, np.zeros((1, 1)), 1, np.zeros((1, 1)), 1, work) == -1


def test_a_failing_qr_falls_back_to_the_svd(rng, monkeypatch):
    J, g = rng.standard_normal((6, 9)), rng.standard_normal(6)
    reference = half_inverse_by_svd(J, g, -0.5, 1e-9)
    monkeypatch.setattr(qr, "call", lambda *args: -4)
    step, info = half_inverse(J, g, tau=1e-9)
    assert (info.method, info.fallback) == (
        "svd",
        "qr failed (dtpqrt failed with info = -4), used svd",
    )
    assert np.allclose(step, reference)


@pytest.mark.parametrize("shape", [(6, 9), (9, 6)])
def test_a_wrong_svd_of_the_triangle_is_noticed(shape, rng, monkeypatch):
    """Where it is what is left, because implicit QR did not converge."""
    J, g = rng.standard_normal(shape), rng.standard_normal(shape[0])
    honest, calls = scipy.linalg.svd, []

    def first_one_wrong(A, **options):
        U, sigma, Vt = honest(A, **options)
        calls.append(A.shape)
        return U, sigma * (1.001 if len(calls) == 1 else 1.0), Vt

    monkeypatch.setattr(bidiagonal, "_diagonalise", lambda *args: bidiagonal.UNSETTLED)
    monkeypatch.setattr("higcore.spectral.svd.scipy.linalg.svd", first_one_wrong)
    step, info = half_inverse(J, g, method="qr")
    assert info.fallback == "qr failed (the SVD of J does not reproduce J^T g), used svd"
    assert np.allclose(step, half_inverse_by_svd(J, g, -0.5, 1e-6))
