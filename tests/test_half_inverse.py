"""half_inverse: every method against NumPy's SVD, identities, fall-backs and bad input."""

import math

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import half_inverse_by_svd

from bench.experiments import Oscillators
from higcore import HIG, NonFiniteError, StackedJacobian, fit, half_inverse
from higcore.backend import to_host
from higcore.half_inverse import choose_method
from higcore.spectral import eigen, svd, tridiagonal
from higcore.spectral.spectrum import SQUARED_RESOLUTION
from nets import MLP

SQUARING = ["gram", "tridiagonal", "band"]
METHODS = ["svd", "qr", *SQUARING]
EPS = 2.0**-52


def matrix_with(spectrum, m, t, rng):
    """An (m, t) matrix with the given singular values and random singular vectors."""
    k = len(spectrum)
    U = np.linalg.qr(rng.standard_normal((m, k)))[0]
    V = np.linalg.qr(rng.standard_normal((t, k)))[0]
    return U @ (np.asarray(spectrum)[:, None] * V.T)


def relative_error(step, reference):
    return np.linalg.norm(step - reference) / max(np.linalg.norm(reference), 1e-300)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("m", "t"), [(12, 30), (30, 12), (9, 9), (1, 7), (7, 1), (1, 1)])
@pytest.mark.parametrize("kappa", [-1.0, -0.75, -0.5, 0.0, 0.3, 1.0])
def test_every_method_is_the_definition(method, m, t, kappa, rng, xp):
    J, g = rng.standard_normal((m, t)), rng.standard_normal(m)
    step, info = half_inverse(xp.asarray(J), xp.asarray(g), kappa=kappa, method=method)
    assert relative_error(to_host(step), half_inverse_by_svd(J, g, kappa, 1e-6)) < 1e-9
    assert info.method == method
    assert info.fallback is None
    assert info.rank == min(m, t)
    assert info.sigma_max == pytest.approx(np.linalg.norm(J, 2))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("truncation", ["relative", "absolute"])
def test_truncations_and_beta(method, truncation, rng):
    spectrum = [8.0, 4.0, 2.0, 1e-1, 1e-2, 1e-3]
    J, g = matrix_with(spectrum, 6, 11, rng), rng.standard_normal(6)
    options = {"tau": 0.05, "beta": -0.5, "kappa": -0.5}
    step, info = half_inverse(J, g, truncation=truncation, method=method, **options)
    reference = half_inverse_by_svd(J, g, -0.5, 0.05, truncation == "relative", -0.5)
    assert relative_error(step, reference) < 1e-10
    cutoff = 0.4 if truncation == "relative" else 0.05
    assert info.cutoff == pytest.approx(cutoff)
    assert info.rank == (3 if truncation == "relative" else 4)
    assert info.gap_to_cutoff == pytest.approx(min(abs(s - cutoff) for s in spectrum) / cutoff)


@pytest.mark.parametrize("method", SQUARING)
@pytest.mark.parametrize("tau", [1e-4, 1e-5, 1e-6])
@pytest.mark.parametrize("modes", [60, 300])
def test_accuracy_on_graded_spectra(method, tau, modes, rng):
    """Error at most eps / tau^2 where the spectrum has a gap of 20 % around the cutoff."""
    spectrum = np.logspace(0, -8, modes)
    spectrum = spectrum[np.abs(spectrum / tau - 1) > 0.2]
    J, g = matrix_with(spectrum, modes, modes + 50, rng), rng.standard_normal(modes)
    step, info = half_inverse(J, g, tau=tau, method=method)
    assert info.rank == (spectrum > tau).sum()
    assert relative_error(step, half_inverse_by_svd(J, g, -0.5, tau)) <= EPS / tau**2


@pytest.fixture(scope="module")
def met_in_training():
    """Jacobians of the oscillators before training and after 40 and 120 steps."""
    problem = Oscillators(samples=256, test_samples=32).problem(seed=3)
    cases, theta = [], None
    for steps in (1, 40, 80):
        theta = fit(problem, HIG(), batch=64, steps=steps, seed=3, theta=theta).theta
        at = problem.linearise(theta, problem.train[:128])
        cases.append((at.jacobian(), at.loss_gradient))
    return cases


@pytest.mark.parametrize("method", SQUARING)
@pytest.mark.parametrize("tau", [1e-4, 1e-5, 1e-6])
def test_accuracy_on_jacobians_met_in_training(method, tau, met_in_training):
    for J, g in met_in_training:
        step, info = half_inverse(J, g, tau=tau, method=method)
        dense = J.dense()
        reference = half_inverse_by_svd(dense, g.reshape(-1), -0.5, tau)
        assert info.fallback is None
        assert relative_error(step, reference) <= EPS / tau**2


TAU = 1e-5  # of `test_any_spectrum`
near_the_cutoff = st.one_of(st.floats(0.5, 0.9), st.floats(1.1, 2.0)).map(lambda x: x * TAU)
spectra = st.one_of(
    st.lists(st.floats(0.1, 10.0), min_size=1, max_size=12),  # flat
    st.integers(1, 12).map(lambda n: list(np.logspace(0, -14, n))),  # graded to 1e-14
    st.tuples(st.integers(1, 6), st.integers(0, 6)).map(
        lambda n: [2.0] * n[0] + [1e-2] * n[1]
    ),  # repeated
    st.lists(st.sampled_from([0.0, 0.0, 1.0, 3.0]), min_size=1, max_size=12),  # rank deficient
    st.lists(near_the_cutoff, min_size=1, max_size=11).map(lambda s: [1.0, *s]),  # clustered there
    st.integers(1, 12).map(lambda n: [0.0] * n),  # rank 0
    st.integers(0, 11).map(lambda n: [3.0] + [0.0] * n),  # rank 1
)


@given(
    spectra,
    st.integers(0, 8),
    st.sampled_from([1, 15]),
    st.booleans(),
    st.sampled_from(METHODS),
    st.floats(-1, 1),
    st.integers(0, 2**31),
)
@settings(max_examples=400)
def test_any_spectrum(spectrum, extra, copies, tall, method, kappa, seed):
    """Shapes, ranks and spectra at will, small and large enough for every short cut.

    The tolerance is that of squaring at TAU, with modes no closer to it than 10 %.
    """
    rng = np.random.default_rng(seed)
    scale = max(spectrum) or 1.0
    spectrum = [s for s in spectrum * copies if not 0.95 < s / (TAU * scale) < 1.05]
    k = len(spectrum)
    m, t = (k + extra, k) if tall else (k, k + extra)
    J, g = matrix_with(spectrum, m, t, rng), rng.standard_normal(m)
    step, info = half_inverse(J, g, kappa=kappa, tau=TAU, method=method)
    reference = half_inverse_by_svd(J, g, kappa, TAU)
    size = np.linalg.norm(g) * max([s**kappa for s in spectrum if s > TAU * scale] + [0.0])
    assert np.isfinite(step).all()
    assert np.linalg.norm(step - reference) <= 1e-5 * size + 1e-14
    assert info.rank == sum(s > TAU * scale for s in spectrum)
    assert info.fallback is None


@pytest.mark.parametrize("method", ["auto", *METHODS])
@pytest.mark.parametrize("shape", [(4, 7), (7, 4)])
def test_zero_jacobian_gives_a_zero_step(method, shape, xp):
    J, g = xp.zeros(shape), xp.ones(shape[0])
    step, info = half_inverse(J, g, method=method, beta=-0.5)
    assert np.array_equal(to_host(step), np.zeros(shape[1]))
    assert info.rank == 0
    assert info.gap_to_cutoff == math.inf


@pytest.mark.parametrize("method", METHODS)
def test_identities(method, rng):
    J, g = rng.standard_normal((8, 20)), rng.standard_normal(8)
    Q = np.linalg.qr(rng.standard_normal((8, 8)))[0]

    def H(J, g, **options):
        return half_inverse(J, g, method=method, **options)[0]

    assert np.allclose(H(J, g, kappa=1.0), J.T @ g)
    assert np.allclose(H(J, g, kappa=-1.0), np.linalg.pinv(J) @ g)
    for kappa in (-1.0, -0.5, 0.4):
        assert np.allclose(H(3.7 * J, g, kappa=kappa), 3.7**kappa * H(J, g, kappa=kappa))
        assert np.allclose(H(Q @ J, g, kappa=kappa), H(J, Q.T @ g, kappa=kappa))
    assert np.allclose(H(J, g, beta=0.7), np.linalg.norm(J, 2) ** 0.7 * H(J, g))
    # eq. 14-17: the half-inverse step is the steepest descent of the norm |J^(3/4) theta|.
    U, s, Vt = np.linalg.svd(J, full_matrices=False)
    lhs = (U * s**0.75) @ (Vt @ H(J, g))  # J^(3/4) step
    assert np.allclose(lhs, (U * s**0.25) @ (U.T @ g))  # J^(1/4) g


def test_stacked_and_dense_jacobian_agree(rng):
    net = MLP((3, 6, 5))
    theta = net.init(rng)
    _, tape = net.forward(theta, rng.standard_normal((4, 3)))
    J = StackedJacobian(net, theta, tape, rng.standard_normal((4, 2, 5)))
    g = rng.standard_normal((4, 2))
    with pytest.raises(ValueError, match=r"g must have shape \(4, 2\), got \(2, 4\)"):
        half_inverse(J, g.T.copy())
    for method in METHODS:
        a, _ = half_inverse(J, g, method=method)
        b, _ = half_inverse(J.dense(), g.reshape(-1), method=method)
        assert np.allclose(a, b, rtol=1e-9)


def test_auto_squares_only_where_it_is_accurate(rng):
    J, g = rng.standard_normal((5, 9)), rng.standard_normal(5)
    assert half_inverse(J, g, tau=1e-6)[1].method == "tridiagonal"
    assert half_inverse(J, g, tau=1e-8)[1].method == "qr"
    assert half_inverse(J, g, tau=1e-4, truncation="absolute")[1].method == "tridiagonal"
    assert half_inverse(1e6 * J, g, tau=1e-4, truncation="absolute")[1].method == "qr"


def test_auto_follows_its_rule():
    assert choose_method("auto", 512, 2956, 1e-6, True) == "tridiagonal"
    assert choose_method("auto", 4096, 2956, 1e-6, True) == "tridiagonal"
    assert choose_method("auto", 4096, 41408, 1e-6, True) == "band"
    assert choose_method("auto", 4096, 30, 1e-6, True) == "tridiagonal"
    assert choose_method("auto", 1024, 41408, 1e-6, False) == "tridiagonal"
    assert choose_method("auto", 1025, 41408, 1e-6, False) == "band"
    assert choose_method("auto", 4096, 41408, 1e-8, False) == "qr"
    for method in METHODS:
        assert choose_method(method, 4096, 2956, 0.0, True) == method
        assert choose_method(method, 4096, 2956, 0.0, False) == method


def test_tau_below_the_noise_of_squaring_is_warned_about(rng):
    J, g = rng.standard_normal((5, 9)), rng.standard_normal(5)
    with pytest.warns(UserWarning, match="below what method 'gram' resolves"):
        _, info = half_inverse(J, g, tau=0.0, method="gram")
    assert info.cutoff == pytest.approx(SQUARED_RESOLUTION * info.sigma_max)


def test_result_has_the_dtype_of_the_jacobian(rng):
    J, g = rng.standard_normal((5, 9)), rng.standard_normal(5)
    reference = half_inverse_by_svd(J, g, -0.5, 1e-6)
    for method in METHODS:
        step, _ = half_inverse(J.astype(np.float32), g.astype(np.float32), method=method)
        assert step.dtype == np.float32
        assert relative_error(step, reference) < 1e-5


def test_arguments_are_left_alone(rng):
    J, g = rng.standard_normal((6, 9)), rng.standard_normal(6)
    J0, g0 = J.copy(), g.copy()
    for method in METHODS:
        half_inverse(J, g, method=method)
        assert np.array_equal(J, J0)
        assert np.array_equal(g, g0)


def test_extreme_scales(rng):
    J, g = matrix_with([1.0, 0.5, 1e-3], 3, 8, rng), rng.standard_normal(3)
    for scale in (1e-100, 1e100):
        for method in METHODS:
            step, info = half_inverse(scale * J, g, method=method)
            assert relative_error(step, scale**-0.5 * half_inverse_by_svd(J, g, -0.5, 1e-6)) < 1e-9
            assert info.fallback is None


@pytest.mark.parametrize("failure", ["raises", "nan", "wrong"])
def test_failed_decompositions_fall_back_and_say_so(failure, rng, monkeypatch):
    J, g = rng.standard_normal((6, 9)), rng.standard_normal(6)
    reference = half_inverse_by_svd(J, g, -0.5, 1e-6)

    def broken(K):
        if failure == "raises":
            raise np.linalg.LinAlgError("no convergence")
        eigenvalues, U = scipy.linalg.eigh(K)
        return eigenvalues * (np.nan if failure == "nan" else 1.001), U

    monkeypatch.setattr(eigen, "_eigh", broken)
    monkeypatch.setattr(tridiagonal, "_diagonalise", lambda *args: tridiagonal.UNSETTLED)
    step, info = half_inverse(J, g)
    assert info.method == "qr"
    assert info.fallback.startswith("tridiagonal failed (implicit QL did not converge), used gram;")
    assert "gram failed" in info.fallback
    assert relative_error(step, reference) < 1e-9
    step, info = half_inverse(J, g, method="gram")
    assert info.fallback.startswith("gram failed")


def test_a_wrong_reduction_is_noticed(rng, monkeypatch):
    J, g = rng.standard_normal((6, 9)), rng.standard_normal(6)
    honest = tridiagonal.reduce

    def broken(K):
        reflectors, diagonal, off_diagonal, scales = honest(K)
        return reflectors, 1.01 * diagonal, off_diagonal, scales

    monkeypatch.setattr(tridiagonal, "reduce", broken)
    assert half_inverse(J, g)[1].fallback.startswith("tridiagonal failed (eigenvalues miss")


def test_svd_falls_back_to_qr_iteration(rng, monkeypatch):
    honest = scipy.linalg.svd

    def broken(*args, lapack_driver="gesdd", **kwargs):
        if lapack_driver == "gesdd":
            raise np.linalg.LinAlgError("SVD did not converge")
        return honest(*args, lapack_driver=lapack_driver, **kwargs)

    monkeypatch.setattr(svd.scipy.linalg, "svd", broken)
    J, g = rng.standard_normal((6, 9)), rng.standard_normal(6)
    reference = half_inverse_by_svd(J, g, -0.5, 1e-6)
    assert relative_error(half_inverse(J, g, method="svd")[0], reference) < 1e-9


@pytest.mark.parametrize("seed", range(5))
def test_rotations_buffer_grows(seed, monkeypatch):
    """More rotations than foreseen must not be lost."""
    rng = np.random.default_rng(seed)
    n = 40
    d, e, w = rng.standard_normal(n), rng.standard_normal(n - 1), rng.standard_normal(n)
    T = np.diag(d) + np.diag(e, 1) + np.diag(e, -1)
    honest, rooms = tridiagonal._diagonalise, []

    def cramped(d, e, w, rotations, *rest):
        rooms.append(len(rotations))
        return honest(d, e, w, rotations[: len(rotations) // 8], *rest)

    monkeypatch.setattr(tridiagonal, "_diagonalise", cramped)
    eigenvalues, rotated, *recorded = tridiagonal._eigenvalues(d, e, w)
    assert len(rooms) > 1
    assert np.allclose(np.sort(eigenvalues), np.linalg.eigvalsh(T))
    rotated *= eigenvalues
    tridiagonal.play_back(rotated, *recorded)
    assert np.allclose(rotated, T @ w)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("method", ["auto", *METHODS])
def test_non_finite_input_is_refused(value, method, rng):
    J, g = rng.standard_normal((4, 6)), rng.standard_normal(4)
    bad_J, bad_g = J.copy(), g.copy()
    bad_J[1, 2], bad_g[3] = value, value
    with pytest.raises(NonFiniteError, match="J holds NaN or Inf"):
        half_inverse(bad_J, g, method=method)
    with pytest.raises(NonFiniteError, match="g holds 1 non-finite value"):
        half_inverse(J, bad_g, method=method)
