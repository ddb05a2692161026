"""A penalty on theta: every step against a dense decomposition of all rows, and every loss."""

import dataclasses

import numpy as np
import pytest
from oracles import central_difference_jacobian

from higcore import (
    HIG,
    SGD,
    Adam,
    AdaptiveHIG,
    Batch,
    GaussNewton,
    LevenbergMarquardt,
    Problem,
    ScaleInvariantPhysics,
    fit,
    load_checkpoint,
    memory_estimate,
    save_checkpoint,
)
from higcore.backend import to_host
from higcore.half_inverse import decompose, filtered
from higcore.linearisation import DenseJacobian
from higcore.losses import Huber, SquaredError, WeightedSamples
from higcore.optimizers import memory
from higcore.optimizers.adaptive import CAP
from higcore.spectral.filters import Damped, ShiftedSlope, SmoothPower, TruncatedPower
from higcore.spectral.ridge import Ridged
from higcore.spectral.spectrum import SQUARED_RESOLUTION
from higcore.training.identity import check_same_run, identity
from nets import MLP
from solvers import OscillatorChain, Rollout, Solver

LOSS = SquaredError(0.7)
METHODS = ["svd", "qr", "gram", "tridiagonal", "band"]
W = 0.03


def matrix_with(sigma, m, t, rng):
    """J (m, t) with the given singular values."""
    U, V = (np.linalg.qr(rng.standard_normal((size, len(sigma))))[0] for size in (m, t))
    return (U * sigma) @ V.T


def applied(f, J, g):
    """V f(S) U^T g of any J, f a function of all singular values."""
    U, s, Vt = np.linalg.svd(J, full_matrices=False)
    return Vt.T @ (f(s) * (U.T @ g))


def power(kappa, tau, beta=0.0):
    """f of a TruncatedPower with a relative tau."""
    return lambda s: np.where(s > tau * s[0], s[0] ** beta * s**kappa, 0.0)


def damped(lam, mu, h, scale):
    """f of a Damped."""
    return lambda s: s / (h * s**2 + lam * (s**2 / scale) ** mu)


FILTERS = {
    "half": (TruncatedPower(-0.5, 1e-6, beta=0.7), power(-0.5, 1e-6, 0.7)),
    "gradient": (TruncatedPower(1.0, 1e-6), power(1.0, 1e-6)),
    "newton": (TruncatedPower(-1.0, 1e-6), power(-1.0, 1e-6)),
    "cut": (TruncatedPower(-0.5, 0.1), power(-0.5, 0.1)),
    "absolute": (TruncatedPower(-1.0, 0.0125, "absolute"), lambda s: (s > 0.0125) / s),
    "marquardt": (Damped(0.1, 0.0, 0.3), damped(0.1, 0.0, 0.3, 1.0)),
    "adaptive": (Damped(0.1, 0.375, 0.3, 2.0), damped(0.1, 0.375, 0.3, 2.0)),
    "smooth": (SmoothPower(-0.5, 0.1), lambda s: s**1.5 / (s**2 + (0.1 * s[0]) ** 2)),
}


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("shape", [(14, 31), (31, 14), (150, 163), (163, 150)], ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_against_the_svd_of_all_rows(method, shape, name, rng):
    """c = 0.01^2, at which "cut" and "absolute" cut the null space, and some of what J sees."""
    f, f_of = FILTERS[name]
    (m, t), root = shape, 0.01
    J = matrix_with(10.0 ** rng.uniform(-2.5, 0.5, min(shape)), m, t, rng)
    a, pull = rng.standard_normal(m), rng.standard_normal(t)
    ridged = Ridged(DenseJacobian(J), root, pull)
    decomposition = decompose(ridged, ridged.column(a), method)
    for column in (ridged.column(a), ridged.column(-2 * a, 0.5)):
        step, info = decomposition.of(column).apply(f)
        explicit = np.vstack([J, root * np.eye(t)])
        expected = applied(f_of, explicit, column)
        assert np.linalg.norm(step - expected) < 1e-9 * np.linalg.norm(expected)
        assert (info.method, info.fallback) == (method, None)
        assert info.sigma_max == pytest.approx(np.linalg.norm(explicit, 2))


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("shape", [(140, 163), (163, 140)], ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_modes_that_are_noise(method, shape, name, rng):
    """Singular values of 0, and of the size at which a method that squares sees noise."""
    f, f_of = FILTERS[name]
    small = np.append(10.0 ** rng.uniform(-9, -7, 20), np.zeros(30))
    J = matrix_with(np.append(10.0 ** rng.uniform(-1, 0, 90), small), *shape, rng)
    pull = rng.standard_normal(shape[1])
    ridged = Ridged(DenseJacobian(J), 0.01, pull)
    column = ridged.column(rng.standard_normal(shape[0]))
    step, info = decompose(ridged, column, method).apply(f)
    expected = applied(f_of, np.vstack([J, 0.01 * np.eye(shape[1])]), column)
    assert np.linalg.norm(step - expected) < 1e-9 * np.linalg.norm(expected)
    assert info.fallback is None


def test_the_slope_is_flat_where_squares_are_noise():
    """Against F'(0) of F = (x + c)^(-3/4): x this small is not what it was, and divides by it."""
    G, c = ShiftedSlope(TruncatedPower(-0.5, 1e-6), 1e-4), 1e-4
    found = G.over_sigma(np, np.array([0.0, 1e-12, 1e-9, 1e-8, 1.0]), SQUARED_RESOLUTION)
    assert np.allclose(found[:-1], -0.75 * c**-1.75, rtol=1e-4)


@pytest.mark.parametrize("exponent", [-300, 300])
def test_units_that_have_no_squares(exponent, rng):
    J, root = matrix_with(10.0 ** rng.uniform(-2, 0, 6), 6, 9, rng), 0.01
    a, pull = rng.standard_normal(6), rng.standard_normal(9)
    for f, f_of in (FILTERS["half"], FILTERS["newton"]):
        at = Ridged(DenseJacobian(np.ldexp(J, exponent)), np.ldexp(root, exponent), pull)
        step, _ = decompose(at, at.column(a), "gram").apply(f)
        explicit = np.vstack([J, root * np.eye(9)])
        expected = applied(f_of, explicit, at.column(a))
        scale = 2.0 ** (exponent * (f.kappa + f.beta))
        assert np.allclose(step, scale * expected, rtol=1e-9)


@pytest.mark.parametrize("method", ["svd", "qr"])
def test_the_methods_that_do_not_square_tell_a_small_root(method, rng):
    """c = (1e-10)^2, which a method that squares would cut: with a tau below it moves theta."""
    J, pull = matrix_with([1.0, 0.5], 2, 4, rng), rng.standard_normal(4)
    ridged = Ridged(DenseJacobian(J), 1e-10, pull)
    column = ridged.column(np.ones(2))
    step, _ = filtered(ridged, column, TruncatedPower(-1.0, 1e-12), method)
    expected = applied(power(-1.0, 1e-12), np.vstack([J, 1e-10 * np.eye(4)]), column)
    assert np.linalg.norm(step - expected) < 1e-4 * np.linalg.norm(expected)


@pytest.mark.parametrize("shape", [(12, 9), (9, 12)], ids=str)
@pytest.mark.parametrize("name", ["newton", "half", "marquardt", "adaptive"])
@pytest.mark.parametrize("method", ["svd", "qr"])
def test_the_methods_that_do_not_square_do_not(method, name, shape, rng):
    """c = (1e-5)^2 with a modest a: eps / c would be 2e-6."""
    f, f_of = FILTERS[name]
    if isinstance(f, Damped):
        f = dataclasses.replace(f, damping=1e-12, scale=1.0, curvature=1.0)
        f_of = damped(1e-12, f.mu, 1.0, 1.0)
    J = matrix_with(10.0 ** np.linspace(-7, 0, 9), *shape, rng)
    ridged = Ridged(DenseJacobian(J), 1e-5, rng.standard_normal(shape[1]))
    column = ridged.column(1e-3 * rng.standard_normal(shape[0]))
    step, _ = decompose(ridged, column, method).apply(f)
    expected = applied(f_of, np.vstack([J, 1e-5 * np.eye(shape[1])]), column)
    assert np.linalg.norm(step - expected) < 1e-8 * np.linalg.norm(expected)


def test_a_small_tau_is_no_reason_to_warn_where_no_mode_is_small(rng):
    J, f = matrix_with([1.0, 0.5], 2, 4, rng), TruncatedPower(-0.5, 1e-12)
    ridged = Ridged(DenseJacobian(J), 1e-3, np.ones(4))
    column = ridged.column(np.ones(2))
    filtered(ridged, column, f, "gram")
    with pytest.warns(UserWarning, match="below what method 'gram' resolves"):
        filtered(dataclasses.replace(ridged, root=1e-10), column, f, "gram")


# Optimizers


def oscillators(loss=LOSS, batch_mean=True, dtype=float, extra=0, xp=np):
    x = np.random.default_rng(3).random((40, 4 + extra)).astype(dtype)
    data = Batch(xp.asarray(x[:, :4].copy()), xp.asarray(x[:, :4].copy()), xp.asarray(x))
    solver = OscillatorChain(steps=6, dt=0.4)
    return Problem(MLP((4, 5, 6)), solver, loss, data, data, batch_mean=batch_mean)


def at_start(problem, size):
    theta = problem.network.init(np.random.default_rng(0), problem.sample.x.dtype)
    return problem.linearise(theta, problem.batch(0, size))


def system(at, roots=False):
    """J_c, g_c and h, row by row; with roots, in units in which h is 1."""
    J, g, h = at.jacobian().dense(), at.loss_gradient.reshape(-1), at.curvature
    if np.ndim(h) and roots:
        root = np.sqrt(h).reshape(-1)
        J, g, h = root[:, None] * J, g / root, 1.0
    h = np.mean(h)
    J_c = np.vstack([J, np.sqrt(W / h) * np.eye(len(at.theta))])
    return J_c, np.concatenate([g, np.sqrt(W * h) * at.theta]), h


LOSSES = {
    "squared": (SquaredError(0.7), 0), "outputs": (SquaredError(weights=[1, 2, 3, 4]), 0),
    "huber": (Huber(0.1), 0), "samples": (WeightedSamples(SquaredError()), 1),
}  # fmt: skip


@pytest.fixture(params=LOSSES)
def problem(request):
    loss, extra = LOSSES[request.param]
    return oscillators(loss, extra=extra).regularised(W)


SIZES = [4, 40]  # fewer rows than the 61 parameters, and more


def close(found, expected, tolerance=1e-8):
    return np.linalg.norm(found - expected) < tolerance * np.linalg.norm(expected)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("method", METHODS)
def test_hig_and_gauss_newton(method, size, problem):
    at = at_start(problem, size)
    cases = [
        (HIG(0.3, method=method, beta=0.4), power(-0.5, 1e-6, 0.4), False),
        (GaussNewton(0.3, method=method, paper=True), power(-1, 1e-6), False),
    ]
    for optimizer, f, roots in cases:
        J, g, _ = system(at, roots)
        assert close(optimizer.update(at, {})[0], 0.3 * applied(f, J, g))
    J, g, h = system(at, roots=True)
    step = GaussNewton(method=method).update(at, {})[0]
    assert close(step, np.linalg.lstsq(J, g / h, rcond=1e-6)[0])


@pytest.mark.parametrize("size", SIZES)
def test_levenberg_marquardt(size, problem):
    at, optimizer = at_start(problem, size), LevenbergMarquardt()
    state = optimizer.init(at.theta) | {"damping": 5.0}
    step, after, _ = optimizer.update(at, state)
    J, g, h = system(at, roots=True)
    expected = np.linalg.solve(h * J.T @ J + 5.0 * np.eye(J.shape[1]), J.T @ g)
    assert close(step, expected)
    gain = at.scale * size * (at.loss - at.at(at.theta - expected).loss)
    gain /= g @ J @ expected - h / 2 * (J @ expected) @ (J @ expected)
    assert after["damping"] == pytest.approx(5.0 * max(1 / 3, 1 - (2 * gain - 1) ** 3))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("mu", [0.0, 0.375, 0.75])
@pytest.mark.parametrize("method", ["qr", "tridiagonal", "band"])
def test_adaptive_hig(method, mu, size, problem, rng):
    at = at_start(problem, size)
    optimizer = AdaptiveHIG(mu=mu, method=method, momentum=0.5)
    last = 0.1 * rng.standard_normal(len(at.theta))
    state = optimizer.init(at.theta) | {"damping": 0.05, "reach": 1e6, "steps": 200, "last": last}
    model = optimizer._model(at, state)
    f = optimizer._penalty(model, state)
    seen, _ = model.decomposed.apply(f)
    J, g, h = system(at, roots=True)
    scale = (J[: at.output.size] ** 2).sum()
    assert f.damping < CAP * h * scale
    rest = g - h * J @ (0.5 * last)
    expected = applied(damped(0.05, mu, h, scale), J, rest)
    assert close(seen, expected)
    trial = optimizer._trial(model, state)
    Jd = J @ (expected + 0.5 * last)
    assert trial.predicted == pytest.approx(g @ Jd - h / 2 * Jd @ Jd)


def test_the_way_y_bends_is_no_matter_of_theta():
    """The correction solves the same system for H y''(d, d) / 2, and 0 in the rows of theta."""
    at, optimizer = at_start(oscillators().regularised(W), 8), AdaptiveHIG()
    state = optimizer.init(at.theta) | {"damping": 1.0, "reach": 1e6}
    model = optimizer._model(at, state)
    step, _ = model.decomposed.apply(optimizer._penalty(model, state))
    bend = model.bend(step, model.J.matvec(step))
    assert abs(bend[: at.output.size]).max() > 0
    assert not bend[at.output.size :].any()


def test_the_reach_is_of_samples_alone():
    """However large theta is, no sample asks for less."""
    plain = at_start(oscillators(), 8)
    theta = plain.theta
    heavy = oscillators().regularised(1e6).linearise(theta, plain.batch)
    reaches = [AdaptiveHIG().update(at, AdaptiveHIG().init(theta))[1]["reach"]
               for at in (plain, heavy)]  # fmt: skip
    assert reaches[0] == reaches[1]


@pytest.mark.parametrize("optimizer", [HIG(), AdaptiveHIG(), LevenbergMarquardt()])
def test_a_penalty_that_is_next_to_nothing_is_nothing(optimizer):
    plain = oscillators()
    steps = [optimizer.update(at, optimizer.init(at.theta))[0]
             for at in (at_start(p, 8) for p in (plain, plain.regularised(1e-15)))]  # fmt: skip
    assert close(steps[1], steps[0], 1e-4)


@pytest.mark.parametrize("batch_mean", [True, False])
def test_losses_and_gradient(batch_mean, problem, rng):
    problem = dataclasses.replace(problem, batch_mean=batch_mean)
    theta, batch = rng.standard_normal(problem.size), problem.test[:10]
    at, plain = problem.linearise(theta, batch), dataclasses.replace(problem, ridge=0.0)
    share = W / 2 * theta @ theta / (1 if batch_mean else 10)
    assert problem.evaluate(theta, batch) == pytest.approx(plain.evaluate(theta, batch) + share)
    assert at.loss == pytest.approx(problem.evaluate(theta, batch))
    assert problem.evaluate(theta, batch, problem.loss) == plain.evaluate(theta, batch)
    total = 1 if batch_mean else 10
    slope = central_difference_jacobian(lambda t: np.array([problem.evaluate(t, batch)]), theta)
    assert close(at.gradient(), total * slope[0], 1e-6)
    assert np.allclose(SGD(1.0).update(at, {})[0], at.gradient())


def test_it_adds_to_a_price_of_the_control_in_a_loop(rng):
    x = rng.random((12, 4))
    data, chain = Batch(x, x, x), OscillatorChain(steps=6, dt=0.4)
    network = Rollout(MLP((4, 5, 1)), chain.stepper(), 6)
    base = Problem(network, None, SquaredError(), data, data)
    problem = base.penalised(0.3).regularised(0.01).regularised(W - 0.01)
    at = at_start(problem, 12)
    J, g, _ = system(at)
    assert close(HIG().update(at, {})[0], applied(power(-0.5, 1e-6), J, g))
    slope = central_difference_jacobian(lambda t: np.array([problem.evaluate(t)]), at.theta)[0]
    assert close(at.gradient(), slope, 1e-6)
    run = fit(problem, AdaptiveHIG(), batch=12, steps=20)
    assert run.test_loss < 0.5 * run.history[0].test_loss


class Linear(Solver):
    """y = u A^T."""

    state_size, control_size, output_size = 1, 3, 2
    A = np.array([[1.0, 2.0, 0.5], [0.0, 1.0, -1.0]])

    def solve(self, x, u):
        return u @ self.A.T

    def adjoint(self, x, u, y_bar):
        return y_bar @ self.A


def linear_problem(rng, batch_mean=True, samples=9):
    """A linear problem with a penalty, and its solution by the normal equations of all rows."""
    x, target = rng.standard_normal((samples, 4)), rng.standard_normal((samples, 2))
    data = Batch(np.ones((samples, 1)), x, target)
    loss = SquaredError(0.7)
    problem = Problem(MLP((4, 3), "linear"), Linear(), loss, data, data, batch_mean=batch_mean)
    rows = np.kron(np.hstack([x, np.ones((samples, 1))]), Linear.A)  # theta row-major
    h = 1.4 / (samples if batch_mean else 1)
    J = np.vstack([np.sqrt(h) * rows, np.sqrt(W) * np.eye(15)])
    wanted = np.concatenate([np.sqrt(h) * target.ravel(), np.zeros(15)])
    return problem.regularised(W), np.linalg.lstsq(J, wanted, rcond=None)[0]


@pytest.mark.parametrize("batch_mean", [True, False])
@pytest.mark.parametrize("samples", [5, 9, 30])
@pytest.mark.parametrize("method", METHODS)
def test_gauss_newton_is_ridge_regression_in_one_step(method, samples, batch_mean, rng):
    problem, solution = linear_problem(rng, batch_mean, samples)
    run = fit(problem, GaussNewton(method=method), batch=samples, steps=1, diagnostics=True)
    assert np.allclose(run.theta, solution, rtol=1e-10, atol=1e-10)
    assert run.diagnostics[0].ratio == pytest.approx(1)


FAR = 1e6  # a reach that shortens nothing: here no sample's error ends at 0
ENDS = [(HIG(0.2), 1500), (GaussNewton(0.5), 60), (LevenbergMarquardt(), 40),
        (AdaptiveHIG(reach=FAR), 100), (Adam(0.02), 3000)]  # fmt: skip


@pytest.mark.parametrize(("optimizer", "steps"), ENDS, ids=lambda v: type(v).__name__)
def test_a_run_ends_at_the_ridge_solution(optimizer, steps, rng):
    problem, solution = linear_problem(rng)
    run = fit(problem, optimizer, batch=9, steps=steps, evaluate_every=100)
    assert np.allclose(run.theta, solution, atol=1e-4)
    assert run.test_loss == pytest.approx(problem.evaluate(solution), rel=1e-6)


OPTIMIZERS = [HIG(0.1), GaussNewton(0.3), LevenbergMarquardt(), AdaptiveHIG(), Adam(0.01)]


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda o: type(o).__name__)
def test_the_same_bits_after_a_checkpoint(optimizer, tmp_path):
    problem = oscillators().regularised(W)
    whole = fit(problem, optimizer, batch=8, steps=12)
    save_checkpoint(tmp_path / "half.npz", fit(problem, optimizer, batch=8, steps=6))
    half = load_checkpoint(tmp_path / "half.npz")
    resumed = fit(problem, optimizer, batch=8, steps=12, resume=half)
    assert np.array_equal(resumed.theta, whole.theta)
    assert resumed.history[-1].train_loss == whole.history[-1].train_loss
    for other in (problem.regularised(0.1), oscillators()):
        with pytest.raises(ValueError, match=r"resume was made for ridge 0\.03"):
            fit(other, optimizer, batch=8, steps=12, resume=half)


def test_earlier_checkpoints_are_of_no_penalty():
    was = identity(oscillators(), HIG(), 8, 0)
    del was["ridge"]
    check_same_run(was, identity(oscillators(), HIG(), 8, 0))
    with pytest.raises(ValueError, match=r"ridge 0\.0, this run has 0\.03"):
        check_same_run(was, identity(oscillators().regularised(W), HIG(), 8, 0))


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda o: type(o).__name__)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_every_backend(optimizer, dtype, xp):
    expected = fit(oscillators(dtype=dtype).regularised(W), optimizer, batch=8, steps=4)
    found = fit(oscillators(dtype=dtype, xp=xp).regularised(W), optimizer, batch=8, steps=4)
    assert found.theta.dtype == dtype
    tolerance = 1e-8 if dtype is np.float64 else 2e-3
    assert np.allclose(to_host(found.theta), expected.theta, rtol=tolerance, atol=tolerance)
    assert found.test_loss == pytest.approx(expected.test_loss, rel=tolerance)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_on_every_backend(method, xp):
    rng = np.random.default_rng(7)
    for shape in (5, 9), (9, 5), (140, 150):
        J = matrix_with(10.0 ** rng.uniform(-2, 0, min(shape)), *shape, rng)
        ridged = Ridged(
            DenseJacobian(xp.asarray(J)), 0.01, xp.asarray(rng.standard_normal(shape[1]))
        )
        column = ridged.column(xp.asarray(rng.standard_normal(shape[0])))
        explicit = np.vstack([J, 0.01 * np.eye(shape[1])])
        for name in ("half", "cut", "marquardt", "adaptive"):
            f, f_of = FILTERS[name]
            step, _ = decompose(ridged, column, method).apply(f)
            assert close(to_host(step), applied(f_of, explicit, to_host(column)), 1e-9)


@pytest.mark.parametrize("name", ["marquardt", "adaptive", "smooth"])
@pytest.mark.parametrize("shape", [(40, 60), (60, 40)], ids=str)
def test_products_alone(name, shape, rng):
    """Lanczos iteration, for J^T a and for J q; to its tolerance, and to the end."""
    f, f_of = FILTERS[name]
    J = matrix_with(10.0 ** rng.uniform(-2, 0, 40), *shape, rng)
    ridged = Ridged(DenseJacobian(J), 0.1, rng.standard_normal(shape[1]))
    column = ridged.column(rng.standard_normal(shape[0]))
    expected = applied(f_of, np.vstack([J, 0.1 * np.eye(shape[1])]), column)
    for tolerance in (1e-2, 1e-6, 0.0):
        step, info = decompose(ridged, column, "lanczos", tolerance=tolerance).apply(f)
        assert info.fallback is None
        assert close(step, expected, max(10 * tolerance, 1e-8))
        assert info.error <= tolerance


@pytest.mark.parametrize("size", SIZES)
def test_adaptive_hig_by_products_alone(size, problem):
    """With momentum, and down to a fall-back that needs rows."""
    at, last = at_start(problem, size), np.linspace(-0.1, 0.1, 61)
    steps = []
    for method in ("lanczos", "tridiagonal"):
        optimizer = AdaptiveHIG(method=method, tolerance=0.0, momentum=0.5)
        state = optimizer.init(at.theta) | {"damping": 0.05, "reach": 1e6, "steps": 200}
        model = optimizer._model(at, state | {"last": last})
        f = Damped(0.05, 0.375, at.unit_curvature)
        steps.append(model.carried + model.decomposed.apply(f)[0])
    assert close(steps[0], steps[1], 1e-7)
    rows = model.J.with_rows()
    assert close(rows.matvec(last), model.J.matvec(last))


@pytest.mark.parametrize("optimizer", [HIG(), LevenbergMarquardt()])
def test_in_tiles(optimizer, monkeypatch):
    """Products with J then go through the network, and K through its rows a part at a time."""
    at = at_start(oscillators().regularised(W), 8)
    whole = optimizer.update(at, optimizer.init(at.theta))[0]
    monkeypatch.setattr(memory, "fitting_tile", lambda *_, **__: 3)
    assert close(optimizer.update(at, optimizer.init(at.theta))[0], whole)


@pytest.mark.parametrize("method", METHODS)
def test_a_network_without_a_derivative_goes_to_zero(method):
    """J = 0: the penalty is all there is."""
    problem, _ = linear_problem(np.random.default_rng(0))
    problem = dataclasses.replace(problem, loss=SquaredError(weights=[0.0, 0.0]))
    at = problem.linearise(np.arange(1.0, 16.0), problem.train)
    assert close(GaussNewton(method=method).update(at, {})[0], at.theta, 1e-12)


def test_memory_is_told():
    plain = oscillators()
    parts = [memory_estimate(p, 8).parts["parameters"] for p in (plain, plain.regularised(W))]
    assert parts[1] - parts[0] == 8 * 12 * plain.size
    of_K = [memory_estimate(p, 8, method="lanczos").parts["lanczos of K"]
            for p in (plain, plain.regularised(W))]  # fmt: skip
    assert of_K[1] == 2 * of_K[0]


class NoCurvature:
    def value(self, y, target):
        return ((y - target) ** 2).sum(axis=1)

    def gradient(self, y, target):
        return 2 * (y - target)


def test_what_is_refused():
    for weight in (0.0, -1.0, np.inf, True):
        with pytest.raises((TypeError, ValueError), match="weight must be"):
            oscillators().regularised(weight)
    with pytest.raises(ValueError, match="ridge must be"):
        dataclasses.replace(oscillators(), ridge=-1.0)
    with pytest.raises(TypeError, match="no place for a penalty on theta"):
        fit(oscillators().regularised(W), ScaleInvariantPhysics(), batch=8, steps=1)
    at = at_start(oscillators().regularised(W), 8)
    with pytest.raises(TypeError, match="no place for a penalty on theta"):
        ScaleInvariantPhysics().update(at, ScaleInvariantPhysics().init(at.theta))


def test_what_is_refused_before_the_data_are_seen():
    """`fit` says it of an optimizer, whatever else is wrong."""
    with pytest.raises(TypeError, match="no place for a penalty on theta"):
        fit(oscillators().regularised(W), ScaleInvariantPhysics(), batch=None, steps=None)


def test_a_loss_without_a_curvature():
    blind = oscillators(NoCurvature())
    fit(blind, HIG(), batch=8, steps=1)
    fit(blind.regularised(W), Adam(), batch=8, steps=1)
    with pytest.raises(TypeError, match="a curvature for the penalty on theta"):
        fit(blind.regularised(W), HIG(), batch=8, steps=1)
