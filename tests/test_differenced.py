"""A solver made of a function alone: S against exact derivatives, and what is said of its error."""

import warnings

import numpy as np
import pytest
from oracles import oscillators

from higcore import (
    HIG,
    Adam,
    Batch,
    GaussNewton,
    LevenbergMarquardt,
    NonFiniteError,
    Problem,
    check_solver,
    dot_test,
    fit,
)
from higcore.backend import module_of, same
from higcore.losses import SquaredError
from higcore.training.identity import describe
from nets import MLP
from solvers import DifferencedSolver, OscillatorChain, Poisson2D, ScaledOutputs, differenced

CHAIN = OscillatorChain(steps=6)
INNER = [CHAIN, Poisson2D((3, 2)), ScaledOutputs(), OscillatorChain(3, steps=2, control=(1, 2, 0))]
ACCURACY = {np.dtype(np.float64): 1e-8, np.dtype(np.float32): 3e-3}


def of(inner, **options):
    sizes = inner.state_size, inner.control_size, inner.output_size
    return DifferencedSolver(inner.solve, *sizes, **options)


def inputs(solver, rng, b=3, dtype=np.float64, xp=np):
    sizes = solver.state_size, solver.control_size
    return [xp.asarray(rng.standard_normal((b, n)).astype(dtype)) for n in sizes]


def wave(x, u):
    """Smooth, any array kind, complex or not: y = (x_0 u_0 u_1^2, u_1 / (1 + u_0^2), u_2 ^ 3)."""
    xp = module_of(u)
    columns = [x[:, 0] * u[:, 0] * u[:, 1] ** 2, u[:, 1] / (1 + u[:, 0] ** 2), u[:, 2] ** 3]
    return xp.stack(columns, axis=1)


def slopes(x, u):
    """dy/du of `wave`."""
    S, (a, b, c), x = np.zeros((len(u), 3, 3)), u.T, x[:, 0]
    S[:, 0, 0], S[:, 0, 1] = x * b**2, 2 * x * a * b
    S[:, 1, 0], S[:, 1, 1] = -2 * a * b / (1 + a**2) ** 2, 1 / (1 + a**2)
    S[:, 2, 2] = 3 * c**2
    return S


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("inner", INNER, ids=repr)
def test_central_differences_are_the_exact_derivative(inner, dtype, rng, xp):
    solver, (x, u) = of(inner), inputs(inner, rng, dtype=dtype, xp=xp)
    y, S = solver.jacobian(x, u)
    exact_y, exact = inner.jacobian(x, u)
    assert type(S) is type(u)
    assert S.dtype == dtype
    assert bool((y == exact_y).all())
    assert float(abs(S - exact).max()) < ACCURACY[S.dtype] * float(abs(exact).max())


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_complex_steps_are_exact_to_rounding(dtype, rng, xp):
    solver = DifferencedSolver(wave, 1, 3, 3, "complex")
    x, u = inputs(solver, rng, dtype=dtype, xp=xp)
    S = solver.jacobian(x, u)[1]
    exact = slopes(*(array if xp is np else array.get() for array in (x, u)))
    assert S.dtype == dtype
    assert float(abs(S - xp.asarray(exact.astype(dtype))).max()) < 30 * np.finfo(dtype).eps


def test_complex_steps_through_a_march(rng):
    """Runge-Kutta in plain NumPy, of one sample after the other."""

    def march(x, u):
        return np.stack([oscillators(*sample, CHAIN) for sample in zip(x, u, strict=True)])

    solver, (x, u) = DifferencedSolver(march, 4, 6, 4, "complex"), inputs(CHAIN, rng)
    exact = CHAIN.jacobian(x, u)[1]
    assert abs(solver.jacobian(x, u)[1] - exact).max() < 1e-13 * abs(exact).max()


@pytest.mark.parametrize("method", ["central", "complex"])
@pytest.mark.parametrize("at_once", [1, 50, 10**9])
def test_any_number_of_controls_at_a_time(method, at_once, rng, monkeypatch):
    calls = []

    def counted(x, u):
        calls.append(len(u))
        return wave(x, u)

    solver = DifferencedSolver(counted, 1, 3, 3, method)
    x, u = inputs(solver, rng)
    expected = solver.rows((x, u))
    assert calls == [18 if method == "central" else 9]
    monkeypatch.setattr(differenced, "AT_ONCE", at_once)
    assert abs(solver.rows((x, u)) - expected).max() < 1e-9
    assert len(calls) - 1 == (1 if at_once > 50 else 3)
    assert sum(calls[1:]) == calls[0]


def test_the_function_may_hand_its_arrays_to_other_libraries(rng):
    """DLPack does not export what is read-only."""
    seen = []

    def looked_at(x, u):
        seen.append(all(array.flags.writeable and array.flags.c_contiguous for array in (x, u)))
        return wave(x, u)

    for b in (1, 3):
        for method in ("central", "complex"):
            DifferencedSolver(looked_at, 1, 3, 3, method).rows((np.ones((b, 1)), np.ones((b, 3))))
    assert len(seen) == 4
    assert all(seen)


@pytest.mark.parametrize("method", ["central", "complex"])
def test_it_passes_the_checks(method):
    solver = DifferencedSolver(wave, 1, 3, 3, method)
    report = check_solver(solver, show=False)
    report.raise_if_failed()
    for inner in INNER[:3]:
        check_solver(of(inner), show=False).raise_if_failed()


def test_tangent_and_adjoint_are_transposes(rng):
    solver = of(CHAIN)
    x, u = inputs(solver, rng)
    for _ in range(20):
        v, w = rng.standard_normal(u.shape), rng.standard_normal((3, 4))
        tangent, adjoint = (
            lambda v: solver.tangent(x, u, v), lambda w: solver.adjoint(x, u, w)
        )  # fmt: skip
        assert dot_test(tangent, adjoint, v, w) < 1e-12


def test_samples_that_mix_are_found():
    solver = DifferencedSolver(lambda x, u: u - u.mean(axis=0), 2, 2, 2)
    report = check_solver(solver, show=False)
    assert "depends on what else is in the batch" in str(report)


@pytest.mark.parametrize(
    "optimizer",
    [HIG(tau=1e-3), GaussNewton(0.1, 1e-2), LevenbergMarquardt(), Adam(lr=1e-2)],
    ids=lambda optimizer: type(optimizer).__name__,
)
def test_training_takes_nearly_the_same_steps(optimizer, rng):
    x = rng.random((16, 4))
    data, chain, losses = (
        Batch(x, x.copy(), rng.random((16, 4))),
        OscillatorChain(steps=8, dt=0.4),
        [],
    )
    for solver in (chain, of(chain)):
        problem = Problem(MLP((4, 6, 8)), solver, SquaredError(), data, data, name="chain")
        result = fit(problem, optimizer, batch=8, steps=10)
        losses.append(result.test_loss)
    assert losses[0] < 0.95 * result.history[0].test_loss
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


@pytest.mark.parametrize("method", ["central", "complex"])
def test_small_errors_are_estimated(method, rng):
    solver = DifferencedSolver(wave, 1, 3, 3, method)
    x, u = inputs(solver, rng)
    exact = slopes(x, u)
    error = abs(solver.rows((x, u)) - exact).max(axis=(0, 2)) / abs(exact).max(axis=(0, 2))
    estimate = solver.error_estimate(x, u)
    assert estimate.shape == (3,)
    assert (estimate < 1e-8).all()
    assert (error < 10 * estimate + 1e-14).all()


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_estimates_stay_where_the_arrays_are(dtype, rng, xp):
    estimate = of(CHAIN).error_estimate(*inputs(CHAIN, rng, dtype=dtype, xp=xp))
    assert type(estimate) is type(xp.asarray(np.ones(1)))
    assert estimate.dtype == dtype
    assert float(estimate.max()) < 1e-3


def test_the_estimate_is_the_difference_of_two_steps():
    """y = u^3: S = 3 u^2 + h^2, and 4 h^2 with twice the step."""
    solver = DifferencedSolver(lambda x, u: u**3, 1, 1, 1, step=0.01)
    x, u = np.ones((2, 1)), np.array([[1.0], [2.0]])
    assert solver.rows((x, u)).ravel() == pytest.approx([3.0001, 12.0001], rel=1e-10)
    assert solver.error_estimate(x, u) == pytest.approx([0.0003 / 12.0004], rel=1e-6)


def jump(x, u):
    return np.where(u > 0.5, u + 0.01, u)


def noise(x, u):
    return u + 1e-7 * np.sin(1e9 * u)


def stairs(x, u):
    return np.round(u, 6)


@pytest.mark.parametrize("solve", [jump, noise, stairs])
def test_a_solve_that_jumps_or_is_noisy_is_warned_of(solve, rng):
    u = np.column_stack([np.full(20, 0.5), rng.random(20)])
    with pytest.warns(RuntimeWarning, match=r"S by differences may be off by .* of output \d"):
        estimate = DifferencedSolver(solve, 2, 2, 2).error_estimate(u, u)
    assert estimate.max() > 1e-3


def test_a_complex_step_that_loses_the_imaginary_part_is_warned_of(rng):
    solver = DifferencedSolver(lambda x, u: u * u.conj() + u, 2, 2, 2, "complex")
    with pytest.warns(RuntimeWarning, match="S by differences may be off by"):
        solver.error_estimate(*inputs(solver, rng))


def test_an_output_that_does_not_depend_on_u_has_no_error(rng):
    solver = DifferencedSolver(lambda x, u: x, 2, 2, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (solver.error_estimate(*inputs(solver, rng)) == 0).all()


def test_a_step_for_each_control_in_its_units(rng):
    """Controls of 1e-9, 1 and 1e9, on which y depends by their sines."""
    units = np.array([1e-9, 1.0, 1e9])
    solve = DifferencedSolver(lambda x, u: np.sin(u / units), 1, 3, 3, step=1e-5 * units)
    u = rng.random((4, 3)) * units
    S = solve.rows((np.ones((4, 1)), u))
    exact = np.cos(u / units) / units
    assert np.abs(S[:, range(3), range(3)] / exact - 1).max() < 1e-8
    assert solve.error_estimate(np.ones((4, 1)), u).max() < 1e-8


@pytest.mark.parametrize("method", ["central", "complex"])
def test_a_domain_that_ends_close_by(method):
    solver = DifferencedSolver(lambda x, u: np.log(u), 1, 1, 1, method)
    x, u = np.ones((1, 1)), np.array([[1e-9]])
    if method == "complex":
        assert solver.rows((x, u)) == pytest.approx(1e9)
        return
    with np.errstate(invalid="ignore"), pytest.raises(NonFiniteError, match="S by differences of"):
        solver.rows((x, u))


def test_complex_numbers_must_come_back(rng):
    solver = DifferencedSolver(lambda x, u: u.real, 2, 2, 2, "complex")
    with pytest.raises(TypeError, match="solve must give complex y for complex u, got dtype float"):
        solver.rows(inputs(solver, rng))


@pytest.mark.parametrize(
    ("solve", "message"),
    [
        (lambda x, u: u[0], r"y = solve\(x, u\) must have shape \(12, 2\), got \(2,\)"),
        (lambda x, u: u[:2], r"y = solve\(x, u\) must have shape \(12, 2\), got \(2, 2\)"),
        (lambda x, u: u.tolist(), r"y = solve\(x, u\) must be a NumPy or CuPy array, got list"),
        (lambda x, u: u.astype(np.float32), r"x is float64, y = solve\(x, u\) is float32"),
        (lambda x, u: None, r"y = solve\(x, u\) must be a NumPy or CuPy array, got NoneType"),
    ],
)
def test_what_the_function_returns_is_looked_at(solve, message, rng):
    solver = DifferencedSolver(solve, 2, 2, 2)
    with pytest.raises((TypeError, ValueError), match=message):
        solver.rows(inputs(solver, rng))
    with pytest.raises((TypeError, ValueError), match=message.replace("12", "3")):
        solver.solve(*inputs(solver, rng))


def test_it_is_told_by_its_function_and_numbers():
    solver = DifferencedSolver(wave, 1, 3, 3)
    assert repr(solver).startswith("DifferencedSolver(<function wave at ")
    assert describe(solver) == "DifferencedSolver(<function wave>, 1, 3, 3, 'central')"
    assert repr(solver).endswith(", 1, 3, 3, 'central')")
    assert repr(DifferencedSolver(wave, 1, 3, 3, step=1)).endswith("'central', step=1.0)")
    assert same(solver, DifferencedSolver(wave, 1, 3, 3))
    assert not same(solver, DifferencedSolver(slopes, 1, 3, 3))
