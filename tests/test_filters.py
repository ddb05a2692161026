"""f(J) g for any f: every method against the definition, again and again, and its corners."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from higcore import half_inverse
from higcore.backend import to_host
from higcore.half_inverse import decompose
from higcore.linearisation import DenseJacobian
from higcore.spectral import band, cholesky, rational
from higcore.spectral.filters import Damped, SmoothPower, TruncatedPower
from higcore.spectral.spectrum import SQUARED_RESOLUTION, DecompositionError

SQUARING = ["gram", "tridiagonal", "band"]
METHODS = ["svd", "qr", *SQUARING]
SIDES = [(20, 31), (31, 20), (150, 163), (163, 150)]  # the larger ones for the poles of "band"
EPS = 2.0**-52


def matrix_with(sigma, m, t, rng):
    """J (m, t) with the given singular values."""
    U, V = (np.linalg.qr(rng.standard_normal((size, len(sigma))))[0] for size in (m, t))
    return (U * sigma) @ V.T


def f_of(f, s):
    """f(s), of the singular values of one J, from the formulas of its docstring."""
    if isinstance(f, TruncatedPower):
        keep = s > (f.tau * s[0] if f.relative else f.tau)
        return np.where(keep, s[0] ** f.beta * np.where(keep, s, 1.0) ** f.kappa, 0.0)
    if isinstance(f, SmoothPower):
        return s**f.kappa * s**2 / (s**2 + (f.tau * s[0]) ** 2)
    at = np.maximum(s, SQUARED_RESOLUTION * s[0]) if f.mu else s
    return s / (f.curvature * at**2 + f.damping * (at**2 / f.scale) ** f.mu)


def by_svd(J, g, f):
    """V f(S) U^T g."""
    U, s, Vt = np.linalg.svd(np.asarray(J, float), full_matrices=False)
    return Vt.T @ (f_of(f, s) * (U.T @ g))


def random_filter(rng, kind):
    if kind is Damped:
        damping, h, scale = 10.0 ** rng.uniform(-4, 2, 3)
        return Damped(damping, rng.choice([0.0, rng.uniform(), 0.75]), h, scale)
    if kind is SmoothPower:
        return SmoothPower(rng.uniform(-1, 1), 10.0 ** rng.uniform(-4, -1))
    tau, relative = 10.0 ** rng.uniform(-5, 0), rng.choice(["relative", "absolute"])
    return TruncatedPower(rng.uniform(-1, 1), tau, str(relative), rng.uniform(-1, 1))


def error(step, reference):
    return np.linalg.norm(to_host(step) - reference) / max(np.linalg.norm(reference), 1e-300)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("shape", SIDES)
@pytest.mark.parametrize("method", METHODS)
def test_one_decomposition_takes_one_filter_after_the_other(method, shape, dtype, xp):
    """Whatever came before, each step is that of the definition, and the first one is the last."""
    rng = np.random.default_rng(sum(shape))
    sigma = 10.0 ** rng.uniform(-3, 0, min(shape))
    J, g = matrix_with(sigma, *shape, rng).astype(dtype), rng.standard_normal(shape[0])
    decomposition = decompose(DenseJacobian(xp.asarray(J)), xp.asarray(g), method)
    filters = [random_filter(rng, kind) for kind in 4 * [Damped, TruncatedPower, SmoothPower]]
    steps = [decomposition.apply(f) for f in [*filters, filters[0]]]
    for f, (step, info) in zip(filters, steps, strict=False):
        assert step.dtype == dtype
        assert error(step, by_svd(J, g, f)) < (1e-8 if dtype is np.float64 else 1e-5), f
        assert (info.method, info.fallback) == (method, None)
    assert np.array_equal(to_host(steps[0][0]), to_host(steps[-1][0]))
    assert steps[0][1] == steps[-1][1]


@pytest.mark.parametrize("zeros", [0, 40])  # of which "band" projects none, or gives up fractions
@pytest.mark.parametrize("shape", SIDES)
@pytest.mark.parametrize("method", [*METHODS, "cholesky"])
def test_one_decomposition_takes_one_g_after_the_other(method, shape, zeros, xp):
    rng, k = np.random.default_rng(sum(shape)), min(shape)
    sigma = 10.0 ** rng.uniform(-3, 0, k) * (np.arange(k) >= min(zeros, k // 2))
    J, first, *others = matrix_with(sigma, *shape, rng), *rng.standard_normal((4, shape[0]))
    decomposition = decompose(DenseJacobian(xp.asarray(J)), xp.asarray(first), method)
    tolerance = 1e-6 if zeros else 1e-8
    f, g = Damped(0.01, 0.0 if method == "cholesky" else 0.4), others[0]
    early = decomposition.of(xp.asarray(2.0**300 * g))  # before any f
    before, _ = decomposition.apply(f)
    assert error(early.apply(f)[0] / 2.0**300, by_svd(J, g, f)) < tolerance
    for g in others:
        other = decomposition.of(xp.asarray(g))
        step, info = other.apply(f)
        assert error(step, by_svd(J, g, f)) < tolerance
        assert (info.method, info.fallback) == (method, None)
        assert error(other.of(xp.asarray(first)).apply(f)[0], to_host(before)) < tolerance
    assert np.array_equal(to_host(decomposition.apply(f)[0]), to_host(before))


@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.floats(0, 5),
    st.integers(0, 5),
    st.sampled_from(METHODS),
    st.integers(0, 2**31),
)
@settings(max_examples=150)
def test_damping_on_any_spectrum(m, t, decades, zeros, method, seed):
    """Graded, with modes of zero, which mu > 0 counts as at the resolution."""
    rng, k = np.random.default_rng(seed), min(m, t)
    sigma = np.logspace(0, -decades, k) * (np.arange(k) < max(k - zeros, 1))
    J, g = matrix_with(sigma, m, t, rng), rng.standard_normal(m)
    decomposition = decompose(DenseJacobian(J), g, method)
    for mu in (0.0, rng.uniform(0, 0.5)):
        f = Damped(10.0 ** rng.uniform(-3, 3), mu)
        step, _ = decomposition.apply(f)
        # |d| is at most |g| / (2 sqrt(lambda)) for mu = 0, and |g| / lambda for mu = 1/2
        size = np.linalg.norm(g) / min(f.damping**0.5, f.damping)
        assert np.linalg.norm(step - by_svd(J, g, f)) < 1e-5 * size


@pytest.mark.parametrize("method", [*METHODS, "cholesky"])
@pytest.mark.parametrize("shape", SIDES)
def test_corners_of_damping(method, shape, rng, xp):
    m, t = shape
    J, g = matrix_with(np.linspace(0.5, 2.0, min(shape)), m, t, rng), rng.standard_normal(m)
    decomposition = decompose(DenseJacobian(xp.asarray(J)), xp.asarray(g), method)

    def d(*args, **options):
        return to_host(decomposition.apply(Damped(*args, **options))[0])

    dense = J.T @ np.linalg.solve(0.3 * J @ J.T + 0.07 * np.eye(m), g)
    assert error(d(0.07, curvature=0.3), dense) < 1e-10
    assert error(1e12 * d(1e12), J.T @ g) < 1e-10
    assert error(d(1e-12), np.linalg.pinv(J) @ g) < 1e-10
    if method != "cholesky":
        assert error(1e12 * d(1e12, 0.75), half_inverse(J, g)[0]) < 1e-10
        assert error(1e12 * d(1e12, 0.75, scale=16.0), 8 * half_inverse(J, g)[0]) < 1e-10
        assert error(d(1e-12, 0.75), np.linalg.pinv(J) @ g) < 1e-10


@pytest.mark.parametrize("mu", [0.0, 0.4])
@pytest.mark.parametrize("shape", SIDES)
@pytest.mark.parametrize("method", [*METHODS, "cholesky"])
def test_the_decrease_that_the_model_predicts(method, shape, mu, rng, xp):
    if method == "cholesky" and mu:
        return
    sigma = np.logspace(0, -3, min(shape))
    J, g = matrix_with(sigma, *shape, rng), rng.standard_normal(shape[0])
    decomposition = decompose(DenseJacobian(xp.asarray(J)), xp.asarray(2.0**300 * g), method)
    f = Damped(0.01, mu, 0.5)
    step, _, predicted = decomposition.apply_and_predict(f)
    d = to_host(step) / 2.0**300
    assert error(d, by_svd(J, g, f)) < 1e-9
    Jd = J @ d
    assert predicted / 2.0**600 == pytest.approx(g @ Jd - 0.25 * Jd @ Jd, rel=1e-9)
    penalty = g @ Jd - 0.5 * Jd @ Jd  # twice, because d is where the gradient vanishes
    assert predicted / 2.0**600 == pytest.approx((g @ Jd + penalty) / 2, rel=1e-9)


@pytest.mark.parametrize("scale", [1e-170, 1e170])
@pytest.mark.parametrize("method", ["tridiagonal", "qr", "cholesky"])
def test_damping_in_units_beyond_all_numbers(method, scale, rng):
    J, g = matrix_with(np.linspace(0.5, 2.0, 9), 9, 14, rng), rng.standard_normal(9)
    decomposition = decompose(DenseJacobian(scale * J), g, method)
    unit = 2 * decomposition.exponent
    assert unit != 0
    damping = 0.3 * (scale * 2.0**-decomposition.exponent) ** 2
    step, _ = decomposition.apply(Damped(damping, exponent=unit))
    assert error(step * scale, by_svd(J, g, Damped(0.3))) < 1e-10
    if method != "cholesky":
        step, _ = decomposition.apply(Damped(damping, 0.5, 1.0, damping / 0.3, unit))
        assert error(step * scale, by_svd(J, g, Damped(0.3, 0.5))) < 1e-10


def test_units_of_the_damping_are_those_it_says(rng):
    J, g = rng.standard_normal((9, 12)), rng.standard_normal(9)
    decomposition = decompose(DenseJacobian(J), g, "tridiagonal")
    step, _ = decomposition.apply(Damped(0.5, 0.5, scale=3.0))
    other, _ = decomposition.apply(Damped(0.125, 0.5, scale=0.75, exponent=2))
    assert np.array_equal(step, other)


@pytest.mark.parametrize("method", [*METHODS, "cholesky"])
@pytest.mark.parametrize("shape", [(4, 7), (7, 4)])
def test_a_zero_jacobian(method, shape, xp):
    decomposition = decompose(DenseJacobian(xp.zeros(shape)), xp.ones(shape[0]), method)
    for f in (Damped(2.0), Damped(2.0, 0.5), SmoothPower()):
        step, info = decomposition.apply(f)
        assert np.array_equal(to_host(step), np.zeros(shape[1]))
        assert info.rank == 0


def graded(n, rng, zeros=0):
    sigma = np.append(np.logspace(0, -3, n - zeros), np.zeros(zeros))
    return matrix_with(sigma, n, n + 9, rng), rng.standard_normal(n)


@pytest.mark.parametrize("zeros", [0, 3])
def test_band_takes_damping_by_fractions(zeros, rng):
    J, g = graded(150, rng, zeros)
    decomposition = decompose(DenseJacobian(J), g, "band")
    for f in (Damped(0.01, curvature=2.0), Damped(0.01, 0.3), SmoothPower(-0.5, 1e-2)):
        step, info = decomposition.apply(f)
        assert error(step, by_svd(J, g, f)) < 1e-8
        assert info.detail.endswith(f" poles, {zeros} modes projected out")
        assert info.detail.startswith("1 poles") == (f == Damped(0.01, curvature=2.0))


@pytest.mark.parametrize("mu", [0.0, 0.3])
def test_band_keeps_the_modes_that_a_power_would_drop(mu, rng):
    """Of any z, also one with a part that J^T would take away."""
    (J, _), z, f = graded(150, rng, zeros=5), rng.standard_normal(150), Damped(0.01, mu)
    U, s, _ = np.linalg.svd(J)
    s = np.maximum(s, SQUARED_RESOLUTION * s[0])
    exact = U @ ((U.T @ z) / (s**2 + f.damping * s ** (2 * mu)))
    c, info = band.decompose(J @ J.T, z).apply(f)
    assert error(c, exact) < 1e-8
    assert info.detail.endswith("5 modes projected out")


def recorded(name, function, calls):
    def record(*args, **options):
        calls.append(name)
        return function(*args, **options)

    return record


def test_band_asks_lanczos_once_and_chases_once(rng, monkeypatch):
    calls = []
    for name in ("_largest", "_smallest", "chase_to_tridiagonal"):
        monkeypatch.setattr(band, name, recorded(name, getattr(band, name), calls))
    for zeros in (0, 40):
        J, g = graded(180, rng, zeros)
        decomposition = decompose(DenseJacobian(J), g, "band")
        for damping in (0.1, 0.2, 0.4):
            step, _ = decomposition.apply(Damped(damping, 0.5))
            assert error(step, by_svd(J, g, Damped(damping, 0.5))) < 1e-6
        decomposition.of(g).apply(Damped(0.1, 0.5))
    assert calls == ["_largest", "_smallest", "_largest", "chase_to_tridiagonal"]


def test_band_without_good_fractions_is_chased_on(rng, monkeypatch):
    monkeypatch.setattr(rational, "MOST_POLES", 10)
    monkeypatch.setattr(rational.np, "log10", lambda x: 0.0)
    J, g = graded(150, rng)
    step, info = decompose(DenseJacobian(J), g, "band").apply(Damped(0.01, 0.5))
    assert info.detail.startswith("no good fractions for damping with mu = 0.5")
    assert info.detail.endswith("chased to a tridiagonal matrix")
    assert error(step, by_svd(J, g, Damped(0.01, 0.5))) < 1e-9


@given(st.floats(0.15, 1), st.floats(-8, 8), st.floats(0, 13), st.floats(-20, 20))
@settings(max_examples=60)
def test_fractions_of_damping_on_all_of_the_interval(mu, damping, decades, shift):
    f = Damped(10.0**damping, mu, scale=10.0**shift)
    low, high = 10.0 ** (shift - decades), 10.0**shift
    x = np.exp(np.linspace(np.log(low), np.log(high), 1001))
    exact = 1 / (x + f.damping * (x / f.scale) ** mu)
    assert np.abs(f.fractions(low, high)(x) / exact - 1).max() < 2e-9


def test_cholesky_refuses_by_name_what_it_does_not_do(rng):
    decomposition = decompose(DenseJacobian(rng.standard_normal((3, 5))), np.ones(3), "cholesky")
    for f, name in [
        (TruncatedPower(), "a truncated power"),
        (SmoothPower(), "a smooth power"),
        (Damped(1.0, 0.5), "a damped with mu = 0.5"),
    ]:
        with pytest.raises(ValueError, match=f"damping with mu = 0 alone, not {name}"):
            decomposition.apply(f)


@pytest.mark.parametrize("shape", [(6, 9), (9, 6)])
@pytest.mark.parametrize("failure", ["info", "wrong"])
def test_a_factorisation_that_fails_gives_way_for_good(shape, failure, rng, monkeypatch):
    """Also for a later damping, of a K that is made anew."""
    J, g = rng.standard_normal(shape), rng.standard_normal(shape[0])
    decomposition = decompose(DenseJacobian(J), g, "cholesky")
    assert decomposition.apply(Damped(0.5))[1].method == "cholesky"
    honest = cholesky.dposv

    def broken(*args, **options):
        c, x, info = honest(*args, **options)
        return (c, x, 3) if failure == "info" else (c, 1.001 * x, info)

    monkeypatch.setattr(cholesky, "dposv", broken)
    step, info = decomposition.apply(Damped(0.25))
    assert info.method == decomposition.method == "tridiagonal"
    assert info.fallback.startswith("cholesky failed (")
    assert error(step, by_svd(J, g, Damped(0.25))) < 1e-10
    monkeypatch.undo()
    _, again = decomposition.apply(Damped(0.5, 0.5))
    assert again.fallback == info.fallback


def test_a_later_filter_that_fails_gives_way(rng, monkeypatch):
    J, g = graded(150, rng)
    decomposition = decompose(DenseJacobian(J), g, "band")
    decomposition.apply(Damped(0.1, 0.5))
    monkeypatch.setattr(band, "_solve", lambda factor, w: 1.01 * w)
    step, info = decomposition.apply(Damped(0.2, 0.5))
    assert info.method == "tridiagonal"
    assert "a banded solve misses its equation" in info.fallback
    assert error(step, by_svd(J, g, Damped(0.2, 0.5))) < 1e-9


def test_another_g_after_a_failure_is_decomposed_by_the_safer_method(rng, monkeypatch):
    J, g = graded(150, rng)
    decomposition = decompose(DenseJacobian(J), g, "band")
    monkeypatch.setattr(band, "_solve", lambda factor, w: 1.01 * w)
    other, f = decomposition.of(2 * g), Damped(0.2, 0.5)
    step, info = other.apply(f)
    assert info.method == other.method == "tridiagonal"
    assert decomposition.method == "band"
    assert error(step, by_svd(J, 2 * g, f)) < 1e-9
    last = other.of(g)
    assert last.method == "tridiagonal"
    assert last.apply(f)[1].fallback == info.fallback


def test_when_all_methods_fail_it_says_so(rng, monkeypatch):
    decomposition = decompose(DenseJacobian(rng.standard_normal((3, 5))), np.ones(3), "svd")
    monkeypatch.setattr(
        type(decomposition._decomposed), "apply", lambda self, f: (np.full(5, np.nan), None)
    )
    with pytest.raises(DecompositionError, match="method 'svd' gave NaN or Inf"):
        decomposition.apply(Damped(1.0))


@pytest.mark.parametrize("field", ["damping", "curvature", "scale", "mu"])
@pytest.mark.parametrize("value", [-1.0, np.nan, np.inf])
def test_a_damping_that_is_none_is_refused(field, value):
    with pytest.raises(ValueError, match=f"{field} must"):
        dataclasses.replace(Damped(1.0), **{field: value})
