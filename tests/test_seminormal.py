"""K corrected by products with J: as exact as a triangle of J, for any f that cuts nothing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import half_inverse_by_svd
from test_filters import by_svd, error, f_of, matrix_with, random_filter

from higcore import StackedJacobian, half_inverse
from higcore.half_inverse import decompose
from higcore.linearisation import DenseJacobian
from higcore.spectral import qr, seminormal
from higcore.spectral.filters import Damped, SmoothPower, TruncatedPower
from higcore.spectral.spectrum import DecompositionError
from nets import MLP, ConvNet1d

EPS = 2.0**-52
M, T = 80, 131
NETS = [MLP((3, 7, 5)), ConvNet1d(3, 1, [4], 2, 5)]


def by_definition(sigma, f, rng):
    """J (M, T) with these singular values, g, and V f(S) U^T g by the factors J is made of."""
    U, V = (np.linalg.qr(rng.standard_normal((size, len(sigma))))[0] for size in (M, T))
    g = rng.standard_normal(M)
    return (U * sigma) @ V.T, g, V @ (f_of(f, sigma) * (U.T @ g))


@given(
    st.floats(0, 7.5),
    st.sampled_from([TruncatedPower, Damped, SmoothPower]),
    st.sampled_from(["graded", "clustered", "random"]),
    st.integers(0, 2**31),
)
@settings(max_examples=100, deadline=None)
def test_any_filter_to_the_accuracy_of_j(decades, kind, spectrum, seed):
    """About eps cond(J), where K alone would give eps cond(J)^2; a cut goes by the triangle."""
    rng = np.random.default_rng(seed)
    at = {
        "graded": np.linspace(0, 1, M),
        "clustered": np.repeat([0.0, 0.5, 1.0], [30, 30, M - 60]),
        "random": np.sort(np.append([0.0, 1.0], rng.uniform(0, 1, M - 2))),
    }[spectrum]
    f, sigma = random_filter(rng, kind), 10.0 ** (-decades * at)
    if kind is TruncatedPower and rng.uniform() < 0.8:
        f = TruncatedPower(rng.uniform(-1, 1), 1e-12)
    cutoff = f.cutoff(1.0, 0.0)
    if (abs(sigma / (cutoff or 1e-300) - 1) < 1e-6).any():  # rounding decides about the mode
        return
    J, g, exact = by_definition(sigma, f, rng)
    step, info = half_inverse_like(J, g, f)
    condition = 10.0 ** min(decades, -np.log10(cutoff) if cutoff else decades)
    largest = np.linalg.norm(g) * f_of(f, sigma).max()
    assert np.linalg.norm(step - exact) <= (40 * EPS * condition + 4e-12) * largest
    assert (info.method, info.fallback) == ("qr", None)
    if decades < 6 and sigma[-1] > 1.2 * cutoff and kind is not SmoothPower:
        assert "corrected" in info.detail
        assert info.sigma_min == pytest.approx(sigma[-1], rel=1e-3)
    assert info.rank == (sigma > max(cutoff, EPS * T)).sum()


def half_inverse_like(J, g, f):
    return decompose(DenseJacobian(J), g, "qr").apply(f)


@pytest.mark.parametrize("decades", [3, 5, 6, 6.8, 7.6])
@pytest.mark.parametrize("kappa", [-1.0, -0.5, 0.0, 0.5, 1.0])
def test_as_exact_as_the_triangle(decades, kappa, rng):
    """But for the fractions, whose error may be 1e-12."""
    f = TruncatedPower(kappa, 1e-10)
    errors = {"corrected": 0.0, "triangle": 0.0}
    for _ in range(3):
        J, g, exact = by_definition(np.logspace(0, -decades, M), f, rng)
        found = seminormal.decompose(DenseJacobian(J), g).apply(f, "qr")[0]
        triangle = qr._of_rows(DenseJacobian(J), g).apply(f)[0]
        for name, step in (("corrected", found), ("triangle", triangle)):
            errors[name] = max(errors[name], error(step, exact))
    of_fractions = 2e-12 + 1e-3 * EPS * 10**decades
    assert errors["corrected"] <= 2 * errors["triangle"] + of_fractions
    squared = decompose(DenseJacobian(J), g, "tridiagonal").apply(f)[0]
    assert kappa > -0.4 or error(squared, exact) > 20 * errors["corrected"]


@pytest.mark.parametrize("tile", [None, 5])
@pytest.mark.parametrize("net", NETS, ids=repr)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_products_with_j_and_its_transpose(net, tile, dtype, rng):
    theta = net.init(rng).astype(dtype)
    _, tape = net.forward(theta, rng.standard_normal((9, 3)).astype(dtype))
    J = StackedJacobian(net, theta, tape, rng.standard_normal((9, 2, 5)).astype(dtype), tile)
    dense = J.dense().astype(float)
    for k in (1, 3, 50):  # 50: more than go through a layer at a time
        x = rng.standard_normal((18, k))
        exact = dense @ (dense.T @ x)
        for found in (J.gram_product(x), DenseJacobian(J.dense()).gram_product(x)):
            assert found.dtype == float
            assert np.allclose(
                found, exact, rtol=0, atol=(1e-12 if dtype is np.float64 else 1e-4) * 18
            )


def conditioned(decades, rng):
    return matrix_with(np.logspace(0, -decades, M), M, T, rng), rng.standard_normal(M)


def test_a_triangle_only_where_it_is_needed_and_once(rng, monkeypatch):
    made, honest = [], qr._triangle
    monkeypatch.setattr(qr, "_triangle", lambda *args: made.append(1) or honest(*args))
    J, g = conditioned(3, rng)
    decomposition = decompose(DenseJacobian(J), g, "qr")
    for f in (TruncatedPower(-0.5, 1e-5), Damped(1e-4), Damped(1e-3, 0.4), SmoothPower(-1.0, 1e-3)):
        assert error(decomposition.apply(f)[0], by_svd(J, g, f)) < 1e-11
        assert error(decomposition.of(2 * g).apply(f)[0], 2 * by_svd(J, g, f)) < 1e-11
    assert not made
    for f in (TruncatedPower(-0.5, 1e-2), TruncatedPower(-0.5, 2e-3), TruncatedPower(1.0, 0.1)):
        step, info = decomposition.apply(f)
        assert error(step, by_svd(J, g, f)) < 1e-11
        assert info.detail is None
        assert error(decomposition.of(3 * g).apply(f)[0], 3 * by_svd(J, g, f)) < 1e-11
    assert len(made) == 1


@pytest.mark.parametrize("decades", [8.2, 9, 15])
def test_an_ill_conditioned_j_goes_through_the_triangle(decades, rng):
    J, g = conditioned(decades, rng)
    with pytest.raises(DecompositionError, match=r"too ill-conditioned|correction is too large"):
        seminormal.decompose(DenseJacobian(J), g).apply(TruncatedPower(-0.5, 1e-15), "qr")
    assert half_inverse(J, g, tau=1e-10)[1].detail is None


def test_a_penalty_that_counts_the_smallest_modes_as_larger_ones(rng):
    """Modes under `SQUARED_RESOLUTION`, which no fraction of damping with mu > 0 knows of."""
    J, g = conditioned(7.5, rng)
    decomposition = decompose(DenseJacobian(J), g, "qr")
    assert "corrected" in decomposition.apply(TruncatedPower(-0.5, 1e-10))[1].detail
    assert "corrected" in decomposition.apply(Damped(1e-10))[1].detail
    step, info = decomposition.apply(Damped(1e-10, 0.5))
    assert info.detail is None
    assert error(step, by_svd(J, g, Damped(1e-10, 0.5))) < 1e-7


@pytest.mark.parametrize("info", [0, 7])
def test_bisection_that_goes_astray(info, rng, monkeypatch):
    J, g = conditioned(4, rng)
    _, before = half_inverse(J, g, tau=1e-10)
    honest = seminormal.lapack.dsterf
    monkeypatch.setattr(seminormal.lapack, "dstebz", lambda d, *rest: (0, d, d, d, 2))
    monkeypatch.setattr(seminormal.lapack, "dsterf", lambda d, e: (honest(d, e)[0], info))
    step, after = half_inverse(J, g, tau=1e-10)
    assert error(step, half_inverse_by_svd(J, g, -0.5, 1e-10)) < 1e-11
    assert (after.detail is None) == bool(info)
    assert after.sigma_max == pytest.approx(before.sigma_max, rel=1e-13)
    assert after.sigma_min == pytest.approx(before.sigma_min, rel=1e-6)
    assert after.rank == M


def test_zero_and_one_right_hand_side(rng):
    J, _ = conditioned(3, rng)
    step, info = half_inverse(J, np.zeros(M), tau=1e-10)
    assert np.array_equal(step, np.zeros(T))
    assert "corrected" in info.detail
    assert half_inverse(np.zeros((M, T)), np.ones(M), tau=1e-10)[1].rank == 0


# What is broken -> how. None of it may be seen in the step.
REDUCE, REFLECT = seminormal.reduce, seminormal.reflect
HONEST = seminormal._solve_shifted, DenseJacobian.gram_product, seminormal.call


def _scaled_solve(*args):
    HONEST[0](*args)
    args[4][:] *= 1.01


BROKEN = {
    "solve": (seminormal, "_solve_shifted", _scaled_solve),
    "product": (DenseJacobian, "gram_product", lambda self, x: 1.01 * HONEST[1](self, x)),
    "rotation": (seminormal, "call", lambda name, *args: HONEST[2](name, *args) or -5),
    "nan": (DenseJacobian, "gram_product", lambda self, x: np.nan * x),
    "reduction": (seminormal, "reduce", lambda K: REDUCE(1.01 * K)),
    "reflectors": (
        seminormal,
        "reflect",
        lambda V, scales, *rest: REFLECT(V, 1.01 * scales, *rest),
    ),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_what_is_broken_is_noticed(broken, rng, monkeypatch):
    J, g = conditioned(4, rng)
    monkeypatch.setattr(*BROKEN[broken])
    step, info = half_inverse(J, g, tau=1e-10)
    assert (info.method, info.fallback, info.detail) == ("qr", None, None)
    assert error(step, half_inverse_by_svd(J, g, -0.5, 1e-10)) < 1e-11


@pytest.mark.parametrize("broken", ["reduction", "reflectors"])
def test_what_is_broken_is_noticed_without_a_correction(broken, rng, monkeypatch):
    J, g = conditioned(4, rng)
    f, decomposition = Damped(10.0), decompose(DenseJacobian(J), g, "qr")
    assert decomposition.apply(f)[1].detail == "1 poles, 0 of them corrected"
    monkeypatch.setattr(*BROKEN[broken])
    step, info = decompose(DenseJacobian(J), g, "qr").apply(f)
    assert info.detail is None
    assert error(step, by_svd(J, g, f)) < 1e-11


def test_corrections_that_do_not_get_small(rng, monkeypatch):
    """By a product that is another one every time, if by less than K may be wrong."""
    J, g = conditioned(5, rng)
    noise = np.random.default_rng(0)

    def noisy(self, x):
        return HONEST[1](self, x) * (1 + 1e-5 * noise.standard_normal(x.shape))

    monkeypatch.setattr(DenseJacobian, "gram_product", noisy)
    found = seminormal.decompose(DenseJacobian(J), g)
    with pytest.raises(DecompositionError, match="corrections do not get small"):
        found.apply(TruncatedPower(-0.5, 1e-10), "qr")
