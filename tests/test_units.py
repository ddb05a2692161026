"""J and g in extreme units: the half-inverse scales with them, and nothing in between overflows."""

import math

import numpy as np
import pytest
from oracles import half_inverse_by_svd

from higcore import (
    Batch,
    LevenbergMarquardt,
    NonFiniteError,
    Problem,
    StackedJacobian,
    fit,
    half_inverse,
)
from higcore.backend import to_host
from higcore.linearisation import DenseJacobian
from higcore.losses import SquaredError
from higcore.optimizers.sip import inverted_control_step
from higcore.rows import gram_definition
from nets import MLP, ConvNet1d, ConvNet2d
from solvers import OscillatorChain, Poisson2D, Solver

METHODS = ("svd", "qr", "gram", "tridiagonal", "band")
RULES = [
    (-0.5, 0.0, "relative"),
    (-1.0, 0.0, "absolute"),
    (1.0, -0.5, "relative"),
    (0.3, 0.7, "absolute"),
]
EXPONENTS = {np.float64: (-1000, -664, -300, 300, 664, 1015), np.float32: (-120, -60, 60, 120)}
OF_G = {np.float64: (0, -600, 600), np.float32: (0, -80, 80)}


def times_power_of_two(array, exponent, dtype):
    """``array`` 2^exponent, rounded once to the dtype."""
    whole = math.floor(exponent)
    with np.errstate(over="ignore"):
        return np.ldexp(array.astype(float) * 2.0 ** (exponent - whole), whole).astype(dtype)


def in_other_units(make, g, e, f, method, rule, tolerance, xp=np):
    """Compare the step of 2^e J and 2^f g with that of J and g; J = make(0) of ordinary size."""
    (kappa, beta, truncation), tau = rule, 1e-3
    options = {"kappa": kappa, "beta": beta, "truncation": truncation, "method": method}
    reference, usual = half_inverse(make(0), g, tau=tau, **options)
    tau = float(np.ldexp(tau, e)) if truncation == "absolute" else tau
    with np.errstate(over="ignore"):  # of the step itself
        step, info = half_inverse(make(e), xp.ldexp(g, f), tau=tau, **options)
    shift = e * (kappa + beta) + f
    expected = times_power_of_two(to_host(reference), shift, reference.dtype)
    numbers, step = np.isfinite(expected), to_host(step)
    assert step.dtype == reference.dtype
    assert np.array_equal(np.isfinite(step), numbers)
    size = np.abs(expected[numbers], dtype=float).max(initial=0.0)
    smallest = float(np.finfo(step.dtype).smallest_subnormal)
    error = np.abs(step[numbers].astype(float) - expected[numbers]).max(initial=0.0)
    assert error <= tolerance * size + 4 * smallest
    assert (info.rank, info.fallback, info.method) == (usual.rank, None, usual.method)
    assert info.gap_to_cutoff == pytest.approx(usual.gap_to_cutoff, rel=1e-2)
    for name in ("sigma_max", "sigma_min", "cutoff"):
        expected = np.ldexp(getattr(usual, name), e)
        assert getattr(info, name) == pytest.approx(expected, rel=1e-4, abs=1e-323)


@pytest.mark.parametrize("dtype", EXPONENTS)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("shape", [(12, 30), (30, 12)])
def test_an_array(shape, rule, method, dtype, rng):
    J, g = (rng.standard_normal(s).astype(dtype) for s in (shape, shape[:1]))
    for e in EXPONENTS[dtype]:
        for f in OF_G[dtype]:
            in_other_units(lambda e: np.ldexp(J, e), g, e, f, method, rule, 1e-5)


@pytest.mark.parametrize("shape", [(150, 160), (160, 150)])
@pytest.mark.parametrize("e", [-1000, -230, 230, 1000])
def test_a_band_with_fractions(e, shape, rng):
    J, g = rng.standard_normal(shape), rng.standard_normal(shape[0])
    in_other_units(lambda e: np.ldexp(J, e), g, e, 0, "band", RULES[0], 1e-9)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(5, 8), (8, 5)])
def test_an_array_on_a_device(shape, method, xp, rng):
    J, g = xp.asarray(rng.standard_normal(shape)), xp.asarray(rng.standard_normal(shape[0]))
    for e in (-700, 700):
        in_other_units(lambda e: xp.ldexp(J, e), g, e, -600, method, RULES[0], 1e-9, xp)


NETWORKS = [MLP((16, 6, 5)), ConvNet1d(8, 2, [3, 4], 3, 5), MLP((16, 2, 5), "relu")]
NETWORKS += [ConvNet2d(4, 1, [2], 2, 5, padded=False)]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("tile", [None, 7])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("net", NETWORKS, ids=repr)
def test_a_stacked_jacobian(net, method, tile, dtype, rng):
    theta, x = net.init(rng, dtype), rng.standard_normal((20, 16)).astype(dtype)
    S, g = (rng.standard_normal(s).astype(dtype) for s in ((20, 2, 5), (20, 2)))
    _, tape = net.forward(theta, x)
    tolerance = 1e-7 if dtype is np.float64 else 1e-2
    for e in EXPONENTS[dtype][1:-1]:
        for rule in RULES[:2]:
            in_other_units(
                lambda e: StackedJacobian(net, theta, tape, np.ldexp(S, e), tile),
                g, e, OF_G[dtype][1], method, rule, tolerance,
            )  # fmt: skip


@pytest.mark.parametrize("tile", [None, 7])
@pytest.mark.parametrize(
    "net", [MLP((16, 6, 5), "relu"), ConvNet1d(8, 2, [3], 3, 5, "linear")], ids=repr
)
@pytest.mark.parametrize("e", [-900, -550, 550, 900])
@pytest.mark.parametrize("d", [-90, -1, 0, 1, 90])
def test_inputs_and_solver_in_opposite_units(d, e, net, tile, rng):
    """J may be ordinary, and its factors may not: their squares are not numbers."""
    theta, x = net.init(rng), np.ldexp(rng.standard_normal((20, 16)), e)
    x[0] = 0.5  # one sample in other units than all others
    S, g = np.ldexp(rng.standard_normal((20, 2, 5)), -e + d), rng.standard_normal((20, 2))
    J = StackedJacobian(net, theta, net.forward(theta, x)[1], S, tile)
    exponent = J.exponent()
    dense = np.ldexp(J.dense(), -exponent)
    expected = half_inverse_by_svd(dense, g.reshape(-1), -0.5, 1e-3) * 2 ** (-0.5 * exponent)
    for method in METHODS:
        step, info = half_inverse(J, g, method=method, tau=1e-3)
        assert np.abs(step - expected).max() <= 1e-6 * np.abs(expected).max()
        assert info.fallback is None


@pytest.mark.parametrize("net", NETWORKS, ids=repr)
def test_scaled_and_balanced_factors_are_those_of_the_same_jacobian(net, rng):
    theta, x = net.init(rng), rng.standard_normal((6, 16))
    J = StackedJacobian(net, theta, net.forward(theta, x)[1], rng.standard_normal((6, 2, 5)))
    scaled, dense = J.scaled(3), J.dense()
    v, w, plain = rng.standard_normal(net.size), rng.standard_normal(12), np.empty((12, 12))
    assert np.allclose(8 * scaled.dense(), dense)
    assert np.allclose(8 * scaled.matvec(v), dense @ v)
    assert np.allclose(8 * scaled.rmatvec(w), dense.T @ w)
    assert np.allclose(64 * scaled.gram(), dense @ dense.T)
    gram_definition(scaled.blocks, scaled.blocks, plain)
    assert np.allclose(64 * plain, dense @ dense.T)
    assert np.isclose(64 * scaled.norm_squared(), np.sum(dense**2))
    triangle = np.zeros((12, 12))
    for first, part in scaled.narrow_parts(7):
        triangle[first:, first:] += 64 * part @ part.T
    assert np.allclose(triangle, dense @ dense.T)
    assert all(np.abs(block.a).max() <= 1 for block in scaled.blocks)
    assert scaled.exponent() == J.exponent() - 3


@pytest.mark.parametrize("method", METHODS)
def test_powers_of_two_change_no_digit(method, rng):
    J, g = rng.standard_normal((6, 9)), rng.standard_normal(6)
    step, info = half_inverse(J, g, kappa=-1.0, method=method)
    for e in (-700, -20, 20, 700):
        found, scaled = half_inverse(np.ldexp(J, e), g, kappa=-1.0, method=method)
        assert np.array_equal(np.ldexp(found, e), step)
        assert np.ldexp(scaled.sigma_max, -e) == info.sigma_max


@pytest.mark.parametrize("method", METHODS)
def test_the_ends_of_all_numbers(method, rng):
    J, g = rng.integers(-9, 9, (6, 9)).astype(float), rng.standard_normal(6)
    reference, _ = half_inverse(J, g, method=method)
    step, info = half_inverse(np.ldexp(J, -1074), g, method=method)
    assert np.allclose(np.ldexp(step, -537), reference, rtol=1e-12, atol=1e-14)
    assert info.rank == 6
    step, _ = half_inverse(np.ldexp(J, 1020), g, method=method)
    assert np.allclose(np.ldexp(step, 510), reference, rtol=1e-12, atol=1e-14)
    whole = rng.integers(1, 9, 6).astype(float)
    step, _ = half_inverse(J, np.ldexp(whole, -1074), method=method, kappa=-1.0)
    expected, _ = half_inverse(J, whole, method=method, kappa=-1.0)
    assert np.abs(np.ldexp(step, 1074) - expected).max() <= 1  # one denormal number
    step, _ = half_inverse(J, np.ldexp(whole, 1020), method=method, kappa=-1.0)
    assert np.allclose(np.ldexp(step, -1020), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("method", METHODS)
def test_a_step_beyond_the_numbers_of_its_dtype_is_inf(method, rng):
    """1e35 and a larger prefactor; NumPy says so, as it does wherever a result overflows."""
    J, g = rng.standard_normal((6, 9)).astype(np.float32), np.ones(6, np.float32)
    with pytest.warns(RuntimeWarning, match="overflow"):
        step, info = half_inverse(1e-30 * J, 1e30 * g, kappa=-1.0, method=method)
    assert np.isinf(step).all()
    assert info.rank == 6
    step, info = half_inverse(1e-30 * J, 1e30 * g, kappa=-1.0, beta=2.0, method=method)
    assert np.isfinite(step).all()
    assert step.any()


@pytest.mark.parametrize("method", METHODS)
def test_an_absolute_cutoff_beyond_all_singular_values(method, rng):
    J, g = rng.standard_normal((150, 160)), rng.standard_normal(150)
    for e, tau in ((0, 1e200), (-1030, 1.0), (-700, 1e250)):
        options = {"truncation": "absolute", "tau": tau, "method": method}
        step, info = half_inverse(np.ldexp(J, e), g, **options)
        assert not step.any()
        assert (info.rank, info.cutoff, info.gap_to_cutoff) == (0, tau, pytest.approx(1.0))


def test_auto_knows_an_absolute_cutoff_in_all_units(rng):
    J, g = rng.standard_normal((6, 9)), rng.standard_normal(6)
    for e in (-700, 0, 700):
        for tau, method in ((1e-8, "qr"), (1e-4, "tridiagonal")):
            tau = float(np.ldexp(tau, e))
            _, info = half_inverse(np.ldexp(J, e), g, truncation="absolute", tau=tau)
            assert info.method == method


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("e", [-700, 700])
def test_bad_numbers_in_extreme_units(e, value, method, rng):
    J, g = np.ldexp(rng.standard_normal((6, 9)), e), rng.standard_normal(6)
    J[2, 3] = value
    with pytest.raises(NonFiniteError, match="J holds NaN or Inf"):
        half_inverse(J, g, method=method)
    net = NETWORKS[0]
    theta, x = net.init(rng), rng.standard_normal((3, 16))
    S = np.ldexp(rng.standard_normal((3, 2, 5)), e)
    S[1, 1, 1] = value
    with np.errstate(invalid="ignore"), pytest.raises(NonFiniteError, match="J holds NaN or Inf"):
        half_inverse(StackedJacobian(net, theta, net.forward(theta, x)[1], S), g, method=method)


@pytest.mark.parametrize("method", METHODS)
def test_zero_is_zero_whatever_the_inputs(method, rng):
    net = MLP((16, 5), "linear")
    theta, x = net.init(rng), np.ldexp(rng.standard_normal((3, 16)), 900)
    J = StackedJacobian(net, theta, net.forward(theta, x)[1], np.zeros((3, 2, 5)))
    step, info = half_inverse(J, np.ones(6), method=method)
    assert not step.any()
    assert (info.rank, info.sigma_max) == (0, 0.0)


def test_float32_norms_are_those_of_float64(rng):
    """Squares of 1e-30 are no float32 numbers."""
    J = rng.standard_normal((7, 9)).astype(np.float32)
    for e in (-100, 100):
        expected = np.linalg.norm(np.ldexp(J.astype(float), e)) ** 2
        assert np.isclose(
            DenseJacobian(np.ldexp(J, e)).norm_squared(), expected, rtol=1e-12, atol=0
        )
        net = NETWORKS[0]
        theta, x = net.init(rng, np.float32), np.zeros((3, 16), np.float32)
        S = np.ldexp(rng.standard_normal((3, 2, 5)).astype(np.float32), e)
        stacked = StackedJacobian(net, theta, net.forward(theta, x)[1], S)
        expected = np.linalg.norm(stacked.dense().astype(float)) ** 2
        assert np.isclose(stacked.norm_squared(), expected, rtol=1e-6, atol=0)


class ScaledPoisson(Solver):
    """y = 2^shift Laplacian(u), sample by sample."""

    def __init__(self, shift):
        self.inner = Poisson2D(4)
        self.factors = np.ldexp(1.0, np.asarray(shift))[:, None]
        self.state_size = self.control_size = self.output_size = self.inner.state_size

    def solve(self, x, u):
        return self.factors[: len(u)] * self.inner.solve(x, u)

    def adjoint(self, x, u, y_bar):
        return self.inner.adjoint(x, u, self.factors[: len(u)] * y_bar)


class Rescaled:
    """A solver whose y is 2^e times as large."""

    def __init__(self, solver, e):
        self.solver, self.e = solver, e

    def __getattr__(self, name):
        return getattr(self.solver, name)

    def solve(self, x, u):
        return np.ldexp(self.solver.solve(x, u), self.e)

    def forward(self, x, u):
        y, tape = self.solver.forward(x, u)
        return np.ldexp(y, self.e), tape

    def rows(self, tape):
        return np.ldexp(self.solver.rows(tape), self.e)


def oscillators(e, dtype=float):
    """A loss that stays the same, of a y and a target that are 2^e times as large."""
    x, target = np.random.default_rng(1).random((2, 32, 4)).astype(dtype)
    data = Batch(x, x, np.ldexp(target, e))
    solver, loss = Rescaled(OscillatorChain(steps=12), e), SquaredError(2.0 ** (-2 * e))
    return Problem(MLP((4, 6, 12)), solver, loss, data, data)


@pytest.mark.parametrize(
    ("e", "dtype"), [(n, np.float64) for n in (-450, -250, 250, 450)] + [(-55, np.float32)]
)
def test_levenberg_marquardt_does_not_depend_on_units(e, dtype):
    usual, scaled = (
        fit(oscillators(shift, dtype), LevenbergMarquardt(), batch=16, steps=12) for shift in (0, e)
    )
    assert usual.history[-1].test_loss < 0.3 * usual.history[0].test_loss
    tolerance = 1e-6 if dtype is np.float64 else 1e-2
    assert np.allclose(scaled.theta, usual.theta, rtol=tolerance, atol=tolerance)
    state = scaled.state.optimizer
    damping = np.ldexp(state["damping"], state["exponent"])
    assert damping == pytest.approx(usual.state.optimizer["damping"], rel=1e-1)
    assert state["exponent"] != 0


def test_a_damping_in_other_units_is_the_same_damping():
    """From one step to the next J may leave what is ordinary; lambda does not change with it."""
    problem = oscillators(250)
    at = problem.linearise(problem.network.init(np.random.default_rng(0)), problem.train)
    steps = []
    for exponent in (0, 100, -100):
        state = {"damping": np.ldexp(0.5, -exponent), "growth": 2.0, "exponent": exponent}
        steps.append(LevenbergMarquardt().update(at, state)[0])
    assert np.array_equal(steps[0], steps[1])
    assert np.array_equal(steps[0], steps[2])
    other = LevenbergMarquardt().update(at, {"damping": 5.0, "growth": 2.0})[0]
    assert not np.allclose(steps[0], other, rtol=1e-2)


UNITS = [([0] * 4, 1.0), ([-900, 900, -1000, 990], 1.0)]
UNITS += [([-600, 600, 3, 0], factor) for factor in (1e-100, 1e100)]


@pytest.mark.parametrize(("shift", "factor"), UNITS)
def test_sip_inverts_a_linear_solver_in_any_units(shift, factor, rng):
    solver = ScaledPoisson(shift)
    x, rho = rng.standard_normal((2, 4, 16))
    data = Batch(x, x, solver.factors * rho)
    problem = Problem(MLP((16, 16), "linear"), solver, SquaredError(factor), data, data)
    with np.errstate(over="ignore"):  # of the loss itself
        at = problem.linearise(problem.network.init(rng), data)
    u = at.control - inverted_control_step(at)
    assert np.abs(solver.inner.solve(x, u) - rho).max() < 1e-10


@pytest.mark.parametrize("net", NETWORKS, ids=repr)
@pytest.mark.parametrize("e", [-700, 700])
def test_a_stacked_jacobian_on_a_device(e, net, xp, rng):
    theta, x = net.init(rng), rng.standard_normal((20, 16))
    S, g = rng.standard_normal((20, 2, 5)), xp.asarray(rng.standard_normal((20, 2)))
    theta, x, S = map(xp.asarray, (theta, x, S))
    _, tape = net.forward(theta, x)
    for method in METHODS:
        for tile in (None, 7):
            in_other_units(
                lambda e, tile=tile: StackedJacobian(net, theta, tape, xp.ldexp(S, e), tile),
                g, e, -600, method, RULES[0], 1e-7, xp,
            )  # fmt: skip
