"""A price of the control: rows and a curvature of its own, and no longer targets."""

import numpy as np
import pytest
from oracles import central_difference_jacobian

from higcore import (
    HIG,
    Adam,
    AdaptiveHIG,
    Batch,
    GaussNewton,
    LevenbergMarquardt,
    Problem,
    ScaleInvariantPhysics,
    check_loss,
    check_solver,
    fit,
)
from higcore.losses import Huber, Penalised, SquaredError, WeightedSamples
from higcore.model import WithControl
from nets import MLP
from solvers import OscillatorChain, Rollout, Solver

CHAIN = OscillatorChain(steps=6, dt=0.4)


def problem_of(loss, rng, inside=False, weights=0):
    x = rng.random((12, 4))
    data = Batch(x, x, rng.random((12, 4 + weights)))
    network, solver = MLP((4, 5, 6)), CHAIN
    if inside:
        network, solver = Rollout(MLP((4, 5, 1)), CHAIN.stepper(), 6), None
    return Problem(network, solver, loss, data, data)


@pytest.fixture(params=[False, True], ids=["before", "inside"])
def inside(request):
    return request.param


LOSSES = [(SquaredError(), 0), (SquaredError(weights=[1, 2, 3, 4]), 0), (Huber(0.1), 0),
          (WeightedSamples(SquaredError()), 1)]  # fmt: skip


@pytest.mark.parametrize(("loss", "weights"), LOSSES, ids=lambda v: type(v).__name__)
def test_the_loss_is_the_other_one_and_the_price(loss, weights, inside, rng):
    problem = problem_of(loss, rng, inside, weights)
    priced, theta = problem.penalised(0.3), rng.standard_normal(problem.size)
    u, _ = problem.predict(theta, problem.test)
    price = 0.3 * (u.reshape(12, -1) ** 2).sum(axis=1).mean()
    assert priced.evaluate(theta) == pytest.approx(problem.evaluate(theta) + price)
    assert problem.penalised(0.0).evaluate(theta) == pytest.approx(problem.evaluate(theta))
    slope = central_difference_jacobian(lambda t: np.array([priced.evaluate(t)]), theta)[0]
    gradient = priced.linearise(theta, priced.test).gradient()
    assert abs(gradient - slope).max() < 1e-7 * abs(slope).max()


def test_rows_against_differences(inside, rng):
    problem = problem_of(SquaredError(), rng, inside).penalised(0.3)
    theta, one = rng.standard_normal(problem.size), problem.test[:1]
    J = problem.linearise(theta, one).jacobian().dense()
    expected = central_difference_jacobian(lambda t: problem.predict(t, one)[1][0], theta)
    assert abs(J - expected).max() < 1e-7 * abs(expected).max()


def test_the_solver_and_the_loss_pass_their_checks(rng):
    assert check_solver(WithControl(CHAIN), show=False)
    loss = Penalised(SquaredError(weights=[1, 2]), 0.3, 3)
    assert check_loss(loss, rng.random((4, 5)), rng.random((4, 2)), show=False)


class Linear(Solver):
    """y = u A^T."""

    state_size, control_size, output_size = 1, 3, 2
    A = np.array([[1.0, 2.0, 0.5], [0.0, 1.0, -1.0]])

    def solve(self, x, u):
        return u @ self.A.T

    def adjoint(self, x, u, y_bar):
        return y_bar @ self.A


@pytest.mark.parametrize("batch_mean", [True, False])
def test_gauss_newton_solves_ridge_regression_in_one_step(batch_mean, rng):
    """Against the normal equations of NumPy."""
    x, target = rng.standard_normal((9, 4)), rng.standard_normal((9, 2))
    network = MLP((4, 3), "linear")
    data = Batch(np.ones((9, 1)), x, target)
    problem = Problem(network, Linear(), SquaredError(), data, data, batch_mean=batch_mean)
    priced = problem.penalised(0.2)
    theta = fit(priced, GaussNewton(tau=1e-10), batch=9, steps=1).theta
    inputs = np.hstack([x, np.ones((9, 1))])  # u = inputs theta, row-major
    to_u = np.kron(inputs, np.eye(3))
    to_y = np.kron(inputs, Linear.A)
    expected = np.linalg.solve(to_y.T @ to_y + 0.2 * to_u.T @ to_u, to_y.T @ target.ravel())
    assert np.allclose(theta, expected, rtol=1e-9, atol=1e-11)


OPTIMIZERS = [HIG(0.1), LevenbergMarquardt(), AdaptiveHIG(), Adam(0.01)]


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda o: type(o).__name__)
def test_every_optimizer_pays_less(optimizer, inside, rng):
    problem = problem_of(SquaredError(), rng, inside)
    cheap, dear = (
        fit(p, optimizer, batch=12, steps=60).theta for p in (problem, problem.penalised(1.0))
    )
    effort = [(problem.predict(theta, problem.test)[0] ** 2).sum() for theta in (cheap, dear)]
    assert effort[1] < effort[0]


def test_sip_takes_it(rng):
    problem = problem_of(SquaredError(), rng).penalised(0.1)
    run = fit(problem, ScaleInvariantPhysics(), batch=12, steps=20)
    assert run.test_loss < run.history[0].test_loss


def test_bad_weights(rng):
    with pytest.raises(ValueError, match="weight must be a finite number in"):
        problem_of(SquaredError(), rng).penalised(-1.0)
