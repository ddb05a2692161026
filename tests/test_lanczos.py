"""f(K) g by products with J alone: its error and its bound, its space, what it falls back on."""

import math
from typing import ClassVar

import numpy as np
import pytest
from test_filters import by_svd, error, matrix_with

from bench.experiments import EXPERIMENTS
from higcore import (
    AdaptiveHIG,
    Batch,
    Problem,
    fit,
    load_checkpoint,
    memory_estimate,
    save_checkpoint,
)
from higcore.backend import to_host
from higcore.half_inverse import LANCZOS_FROM, choose_method, decompose
from higcore.linearisation import DenseJacobian
from higcore.losses import Huber, SquaredError
from higcore.optimizers import adaptive
from higcore.optimizers.matrix_free import MatrixFreeJacobian
from higcore.optimizers.memory import plan_step
from higcore.spectral import lanczos
from higcore.spectral.filters import Damped, SmoothPower, TruncatedPower
from nets import MLP
from solvers import OscillatorChain, Rollout

SIDES = [(40, 71), (71, 40)]


class Counting(DenseJacobian):
    """Counts its products."""

    products = 0

    def matvec(self, v):
        self.products += 1
        return super().matvec(v)


def filters(J):
    """Damped ones and smooth cuts, from strong to weak."""
    scale = float((J * J).sum())
    damped = [Damped(d, mu, 0.5, scale) for d in (1.0, 1e-2, 1e-4) for mu in (0.0, 0.375)]
    return [*damped, SmoothPower(-0.5, 1e-1), SmoothPower(-1.0, 1e-2), SmoothPower(0.3, 1e-2)]


@pytest.mark.parametrize("tolerance", [1e-1, 1e-2, 1e-9])
@pytest.mark.parametrize("shape", SIDES)
def test_the_error_is_no_larger_than_asked_for_and_than_told(shape, tolerance, rng, xp):
    """At every tolerance, against the definition; rounding is left where nothing else is."""
    J = matrix_with(10.0 ** rng.uniform(-2, 0, min(shape)), *shape, rng)
    g = rng.standard_normal(shape[0])
    for f in filters(J):
        space = lanczos.decompose(DenseJacobian(xp.asarray(J)), xp.asarray(g), tolerance)
        step, info = space.apply(f)
        found = error(step, by_svd(J, g, f))
        assert found <= tolerance + 1e-11
        assert found <= 1.1 * info.error + 1e-11  # of the step it gives, with the max(S) it knows
        assert (info.method, info.fallback) == ("lanczos", None)


@pytest.mark.parametrize("shape", SIDES)
def test_one_space_serves_every_f(shape, rng):
    """A larger damping needs no more products; a smaller one those that are missing."""
    J = Counting(matrix_with(10.0 ** rng.uniform(-2, 0, min(shape)), *shape, rng))
    g = rng.standard_normal(shape[0])
    space = decompose(J, g, "lanczos", tolerance=1e-4)
    first, _ = space.apply(Damped(1e-2))
    used = J.products
    for damping in (1e-1, 1e-2, 1.0):
        step, _ = space.apply(Damped(damping))
        assert error(step, by_svd(J.J, g, Damped(damping))) < 1e-4
    assert J.products == used < min(shape)
    assert error(space.apply(Damped(1e-5))[0], by_svd(J.J, g, Damped(1e-5))) < 1e-4
    assert J.products > used
    assert error(space.apply(Damped(1e-2))[0], first) < 1e-4


def test_residuals_of_shifted_systems_come_from_the_tridiagonal_matrix(rng):
    """|(A + p) x - z| / |z| with x of the space, by dense algebra."""
    J, g = rng.standard_normal((30, 50)), rng.standard_normal(30)
    space = lanczos.decompose(DenseJacobian(J), g)
    space._grow(9)
    poles = np.array([1e-3, 1.0, 100.0])
    Q = np.concatenate(space.blocks)[:9]
    assert np.allclose(Q @ Q.T, np.eye(9), atol=1e-14)
    K = J @ J.T
    for pole, told in zip(
        poles, lanczos.residuals_of(space.alphas, space.betas, poles), strict=True
    ):
        A = K + pole * np.eye(30)
        x = Q.T @ np.linalg.solve(Q @ A @ Q.T, Q @ g)
        assert told == pytest.approx(np.linalg.norm(A @ x - g) / np.linalg.norm(g), rel=1e-10)


@pytest.mark.parametrize("products", [1, 2, 7, 16, 17, 33])
@pytest.mark.parametrize("shape", SIDES)
def test_what_a_few_products_give_is_the_best_of_their_space(shape, products, rng):
    """The Galerkin solution of (A + lambda I) x = z in a space made by other means."""
    J, g = rng.standard_normal(shape), rng.standard_normal(shape[0])
    space = decompose(DenseJacobian(J), g, "lanczos", tolerance=0.0, products=products)
    step, info = space.apply(Damped(0.5))
    by_rows = shape[0] < shape[1]
    A, z = (J @ J.T, g) if by_rows else (J.T @ J, J.T @ g)
    V = krylov(A, z, products)
    x = V @ np.linalg.solve(V.T @ A @ V + 0.5 * np.eye(products), V.T @ z)
    assert info.rank == products
    assert error(step, J.T @ x if by_rows else x) < 1e-9


def krylov(A, z, count):
    """An orthonormal basis of z, A z, A^2 z, .., one Arnoldi step at a time."""
    V = (z / np.linalg.norm(z))[:, None]
    while V.shape[1] < count:
        V = np.linalg.qr(np.column_stack([V, A @ V[:, -1]]))[0]
    return V


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("shape", SIDES)
def test_any_units_and_both_precisions(shape, dtype, rng):
    J = matrix_with(10.0 ** rng.uniform(-1, 0, min(shape)), *shape, rng).astype(dtype)
    g = rng.standard_normal(shape[0])
    usual, _ = decompose(DenseJacobian(J), g, "lanczos", tolerance=1e-9).apply(Damped(0.1))
    assert usual.dtype == dtype
    assert error(usual, by_svd(J, g, Damped(0.1))) < (1e-8 if dtype is np.float64 else 1e-6)
    for e in (-60, 60) if dtype is np.float32 else (-600, 600):
        other = decompose(DenseJacobian(np.ldexp(J, e)), g, "lanczos", tolerance=1e-9)
        step, info = other.apply(Damped(0.1, exponent=2 * e))
        assert error(np.ldexp(step.astype(float), e), usual) < 1e-6
        assert info.sigma_max == pytest.approx(np.ldexp(1.0, e) * np.linalg.norm(J, 2), rel=1e-3)


def test_spaces_that_end_early(rng):
    """A J of three modes needs three products, one of zeros, or a g of zeros, none."""
    J, g = matrix_with(np.array([1.0, 0.5, 0.1]), 40, 50, rng), rng.standard_normal(40)
    step, info = decompose(DenseJacobian(J), g, "lanczos", tolerance=1e-12).apply(Damped(1e-3))
    assert error(step, by_svd(J, g, Damped(1e-3))) < 1e-10
    assert info.rank <= 4
    for J0, g0 in ((0 * J, g), (J, 0 * g)):
        step, info = decompose(DenseJacobian(J0), g0, "lanczos").apply(Damped(1e-3))
        assert not step.any()
        assert info.fallback is None


class Wrong(DenseJacobian):
    """Its J^T w is that of another J, or NaN after some products."""

    def __init__(self, J, other):
        super().__init__(J)
        self.other = other

    def rmatvec(self, w):
        return self.other.T @ w


def test_products_that_cannot_be_trusted_give_way_to_the_matrix(rng):
    J, g = rng.standard_normal((20, 31)), rng.standard_normal(20)
    decomposed = decompose(Wrong(J, -J), g, "lanczos")
    _, info = decomposed.apply(Damped(0.1))
    assert info.method == "tridiagonal"
    assert "J v and J^T w do not belong to one J" in info.fallback
    broken = Wrong(J, J)
    decomposed = decompose(broken, g, "lanczos")
    broken.other = J * np.nan
    step, info = decomposed.apply(Damped(0.1))
    assert info.method == "svd"  # which needs no J^T w
    assert info.fallback.startswith("lanczos failed (a product with J gave NaN or Inf), used")
    assert error(step, by_svd(J, g, Damped(0.1))) < 1e-10


def test_a_sharp_cut_is_refused(rng):
    space = decompose(DenseJacobian(rng.standard_normal((4, 6))), rng.standard_normal(4), "lanczos")
    with pytest.raises(ValueError, match="'lanczos' applies damped filters and smooth cuts, no tr"):
        space.apply(TruncatedPower())


def weighted_problem():
    """Curvature that is no number, and rows whose root it is."""
    x = np.random.default_rng(3).random((12, 4))
    data, loss = Batch(x, x, x + 2.0), Huber(0.3)
    return Problem(MLP((4, 6, 12)), OscillatorChain(steps=12), loss, data, data)


def loop_problem():
    """No solver behind the network."""
    x = np.random.default_rng(4).random((12, 4))
    loop = Rollout(MLP((4, 5, 1)), OscillatorChain().stepper(), steps=7)
    return Problem(loop, None, SquaredError(), Batch(x, x, x), Batch(x, x, x))


PROBLEMS = {name: e.problem for name, e in EXPERIMENTS.items()} | {
    "weighted": weighted_problem, "loop": loop_problem,
}  # fmt: skip


@pytest.mark.parametrize("name", PROBLEMS)
def test_two_passes_are_the_jacobian(name, rng):
    problem = PROBLEMS[name]()
    theta = problem.model.init(rng) if problem.solver is None else problem.network.init(rng)
    at = problem.linearise(theta, problem.batch(0, 3))
    for unit in (False, True):
        J = MatrixFreeJacobian(at, unit)
        rows = J.with_rows()
        v, w = rng.standard_normal(J.shape[1]), rng.standard_normal(J.shape[0])
        assert error(J.matvec(v), rows.matvec(v)) < 1e-11
        assert error(J.rmatvec(w), rows.rmatvec(w)) < 1e-11
        assert J.shape == rows.shape
        other = J.scaled(5)
        assert error(other.matvec(v), J.matvec(v) / 32) == 0
        assert error(other.with_rows().rmatvec(w), J.rmatvec(w) / 32) < 1e-11
        assert other.norm_squared() == J.norm_squared() / 1024


def test_the_norm_is_right_in_the_mean(rng):
    problem = EXPERIMENTS["poisson"].problem()
    at = problem.linearise(problem.network.init(rng), problem.batch(0, 64))
    J = MatrixFreeJacobian(at)
    assert J.norm_squared() == MatrixFreeJacobian(at).norm_squared()
    assert J.norm_squared() == pytest.approx(J.with_rows().norm_squared(), rel=0.2)


class Watched(AdaptiveHIG):
    """Keeps what its steps were taken from."""

    seen: ClassVar[list] = []

    def _trial(self, model, state):
        trial = super()._trial(model, state)
        Watched.seen.append((model, self._penalty(model, state)))
        return trial


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_steps_of_training_against_the_tridiagonal_ones(name):
    """Twenty Jacobians and dampings that training meets, at what was asked for and at 1e-8."""
    Watched.seen.clear()
    problem = EXPERIMENTS[name].problem(1)
    batch = max(2, 64 // problem.output_size)
    fit(problem, Watched(method="tridiagonal", average=7), batch=batch, steps=20, seed=1)
    assert len(Watched.seen) >= 20
    for model, f in Watched.seen[:20]:
        J = MatrixFreeJacobian(model.at, unit=True)
        g = model.asked - model.at.unit_curvature * J.matvec(model.carried)
        wanted, told = model.decomposed.apply(f)
        found, info = decompose(J, g, "lanczos").apply(f)
        if error(found, wanted) > lanczos.TOLERANCE:  # of modes at its resolution K knows little
            exact, _ = decompose(J.with_rows(), g, "svd").apply(f)
            assert error(found, wanted) <= 50 * error(wanted, exact)
        assert (info.method, info.fallback) == ("lanczos", None)
        # Closer they come where no mode is at the resolution of what squares, as with mu = 0.
        strong = Damped(max(f.damping, 1e-5 * f.curvature * told.sigma_max**2), 0, f.curvature)
        wanted, _ = model.decomposed.apply(strong)
        found, _ = decompose(J, g, "lanczos", tolerance=1e-8).apply(strong)
        assert error(found, wanted) <= 1e-8


def test_it_is_one_more_method_of_adaptive_hig(tmp_path):
    """A run goes on bit for bit from its checkpoint, and its loss falls."""
    problem = EXPERIMENTS["poisson"].problem()
    options = {"batch": 8, "seed": 3}
    optimizer = AdaptiveHIG(method="lanczos", products=20)
    whole = fit(problem, optimizer, steps=6, **options)
    half = fit(problem, optimizer, steps=3, **options)
    save_checkpoint(tmp_path / "run.npz", half)
    again = fit(
        problem, optimizer, steps=6, resume=load_checkpoint(tmp_path / "run.npz"), **options
    )
    assert np.array_equal(again.theta, whole.theta)
    assert whole.state.info.method == "lanczos"
    assert whole.test_loss < 0.7 * whole.history[0].test_loss


def test_it_gives_the_steps_of_the_matrix(monkeypatch):
    """To convergence, with momentum, and without the bend, which unfinished steps do not have."""
    monkeypatch.setattr(adaptive, "MOST_BENT", 0.0)
    monkeypatch.setattr(adaptive, "RAMP_OF_PRODUCTS", adaptive.RAMP)
    monkeypatch.setattr(MatrixFreeJacobian, "norm_squared", lambda J: J.with_rows().norm_squared())
    problem = EXPERIMENTS["poisson"].problem()
    thetas = [
        fit(problem, AdaptiveHIG(damping=1.0, mu=0.0, **options), batch=2, steps=4, seed=3).theta
        for options in ({"method": "tridiagonal"}, {"method": "lanczos", "tolerance": 1e-12})
    ]
    assert error(thetas[1], thetas[0]) < 1e-9


def test_auto_takes_it_where_nothing_is_cut_and_k_is_much_work():
    n = LANCZOS_FROM
    for m, t, tau, method in (
        (n, 10 * n, math.inf, "lanczos"),
        (n - 1, 10 * n, math.inf, "band"),
        (n, 10 * n, 1.0, "band"),
        (10 * n, n, math.inf, "lanczos"),
        (n, n // 2, math.inf, "tridiagonal"),
        (100 * n, n // 2, math.inf, "lanczos"),  # J^T J takes m t^2
    ):
        assert choose_method("auto", m, t, tau, True) == method


def test_auto_takes_it_where_k_does_not_fit(rng):
    problem = EXPERIMENTS["poisson"].problem()
    at = problem.linearise(problem.network.init(rng), problem.batch(0, 32))
    limit = 60e6  # K and its decomposition take 100 MB
    assert plan_step(at, "auto", Damped(1.0), None)[0] == "tridiagonal"
    method, J = plan_step(at, "auto", Damped(1.0), limit)
    assert (method, type(J)) == ("lanczos", MatrixFreeJacobian)
    for name, f in (("tridiagonal", Damped(1.0)), ("auto", TruncatedPower())):
        with pytest.raises(MemoryError, match=r"a batch of [0-9]+ fits"):
            plan_step(at, name, f, limit)
    with pytest.raises(
        MemoryError, match=r"not even one sample fits: AdaptiveHIG\(method='lanczos'"
    ):
        plan_step(at, "auto", TruncatedPower(), 1e5)


def test_memory_of_a_step_is_linear_in_the_batch():
    problem = EXPERIMENTS["poisson"].problem()
    small, large = (
        memory_estimate(problem, b, tau=math.inf, method="lanczos").total for b in (1000, 2000)
    )
    assert large - small < 1000 * 8 * 5000
    assert large < memory_estimate(problem, 2000).total / 10


def test_products_live_where_the_model_lives(xp, rng):
    problem = EXPERIMENTS["toy"].problem()
    at = problem.linearise(problem.network.init(rng), problem.batch(0, 16))
    arrays = at.batch.x, at.batch.net_input, at.batch.target
    theta, batch = xp.asarray(at.theta), Batch(*map(xp.asarray, arrays))
    there = problem.linearise(theta, batch)
    J, expected = MatrixFreeJacobian(there), MatrixFreeJacobian(at)
    g = there.loss_gradient.reshape(-1)
    step, _ = decompose(J, g, "lanczos", tolerance=1e-9).apply(Damped(0.1))
    wanted, _ = decompose(expected, to_host(g), "lanczos", tolerance=1e-9).apply(Damped(0.1))
    assert error(step, wanted) < 1e-9


def test_passes_that_fail_give_way_to_rows(monkeypatch, rng):
    """A model whose tangent is wrong still has the rows of its layers."""
    problem = EXPERIMENTS["toy"].problem()
    at = problem.linearise(problem.network.init(rng), problem.batch(0, 16))
    g = at.loss_gradient.reshape(-1)
    wanted, _ = decompose(MatrixFreeJacobian(at), g, "lanczos", tolerance=1e-9).apply(Damped(0.1))
    monkeypatch.setattr(MatrixFreeJacobian, "matvec", lambda J, v: np.full(J.shape[0], np.nan))
    step, info = decompose(MatrixFreeJacobian(at), g, "lanczos").apply(Damped(0.1))
    assert info.method == "tridiagonal"
    assert info.fallback == "lanczos failed (a product with J gave NaN or Inf), used tridiagonal"
    assert error(step, wanted) < 1e-7


def test_what_is_unfinished_is_finished_by_momentum_that_comes_soon():
    problem = EXPERIMENTS["poisson"].problem()
    at = problem.linearise(problem.network.init(np.random.default_rng(0)), problem.batch(0, 4))
    optimizer, ones = AdaptiveHIG(), np.ones_like(at.theta)
    state = optimizer.init(at.theta) | {"steps": 10, "last": ones, "reach": 1e6}
    for method, part in (("lanczos", 0.5), ("tridiagonal", 0.05)):
        model = AdaptiveHIG(method=method)._model(at, state)
        assert model.carried[0] == pytest.approx(0.98 * part)
        assert model.truncated == (method == "lanczos")
