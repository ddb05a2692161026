"""The experiments as the paper states them, and that each optimizer runs on each of them."""

import dataclasses

import numpy as np
import pytest

from bench.experiments import EXPERIMENTS, VARIANTS, Dipole, Poisson
from higcore import (
    HIG,
    Adam,
    LevenbergMarquardt,
    ScaleInvariantPhysics,
    dot_test,
    fit,
    half_inverse,
)
from higcore.optimizers.sip import inverted_control_step
from solvers import OscillatorChain, Poisson2D, QuantumDipole, ScaledOutputs

PARAMETERS = {
    "toy": 30,
    "oscillators": 2956,
    "linear-chain": 1444,
    "poisson": 24896,
    "dipole": 9484,
    "dipole-cnn": 21984,
}
SMALL = {
    "linear-chain": dataclasses.replace(EXPERIMENTS["linear-chain"], samples=64),
    "toy": EXPERIMENTS["toy"],
    "oscillators": dataclasses.replace(
        EXPERIMENTS["oscillators"], solver=OscillatorChain(steps=12, dt=0.5), samples=64
    ),
    "poisson": Poisson(Poisson2D((3, 4)), hidden=(9,), samples=64, test_samples=8),
    "dipole": Dipole(QuantumDipole(8, 12, 0.2), samples=32, test_samples=8),
    "dipole-cnn": Dipole(QuantumDipole(16, 12), convolutional=True, samples=32, test_samples=8),
}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_parameter_counts(name):
    problem = EXPERIMENTS[name].problem(0)
    assert problem.network.size == PARAMETERS[name]
    assert problem.name == name
    assert problem.train.count == {"toy": 1024, "dipole": 1024, "dipole-cnn": 1024}.get(name, 4096)


def test_variants_of_the_paper():
    assert VARIANTS["poisson"]["paper"].problem(0).network.size == 41408
    well = VARIANTS["toy"]["well-conditioned"].problem(0)
    assert well.solver.gamma == 1
    turned = VARIANTS["dipole"]["complex"].problem(0).train.target
    assert np.abs(turned[:, 14:]).max() > 0.1
    assert np.abs(EXPERIMENTS["dipole"].problem(0).train.target[:, 14:]).max() == 0
    assert np.allclose(np.linalg.norm(turned, axis=1), 1)


def test_fresh_data_is_a_function_of_seed_and_step():
    experiment = SMALL["poisson"]
    a, b = experiment.problem(3), experiment.problem(3)
    assert np.array_equal(a.batch(5, 8).x, b.batch(5, 8).x)
    assert not np.array_equal(a.batch(5, 8).x, a.batch(6, 8).x)
    assert not np.array_equal(a.batch(5, 8).x, experiment.problem(4).batch(5, 8).x)
    source = a.batch(0, 8)
    assert np.array_equal(source.net_input, source.target)
    paper = dataclasses.replace(experiment, source="fourier").problem(0).batch(0, 16).target
    assert np.abs(paper.mean(axis=1)).max() < 1e-14


@pytest.mark.parametrize("name", SMALL)
def test_every_optimizer_takes_finite_steps(name):
    experiment = SMALL[name]
    problem = experiment.problem(1)
    for label, setting in experiment.settings.items():
        result = fit(problem, setting.optimizer, batch=16, steps=3)
        # With the paper's settings these two may diverge; theta is not spoilt.
        assert result.status == "budget" or label in ("gn", "sgd"), (label, result.message)
        assert result.steps >= 1
        assert np.isfinite(result.theta).all()


@pytest.mark.parametrize("name", SMALL)
def test_pictures(name):
    experiment = SMALL[name]
    problem = experiment.problem(0)
    figure = experiment.picture(problem, problem.network.init(np.random.default_rng(0)))
    assert len(figure.axes) >= 1
    figure.canvas.draw()


def test_the_toy_uses_the_small_side():
    """30 parameters against 512 rows: J^T J (30, 30) is decomposed, and equals the definition."""
    problem = EXPERIMENTS["toy"].problem(0)
    theta = problem.network.init(np.random.default_rng(0))
    at = problem.linearise(theta, problem.batch(0, 256))
    J, g = at.jacobian(), at.loss_gradient
    assert J.shape == (512, 30)
    step, info = half_inverse(J, g, tau=1e-4)
    reference, _ = half_inverse(J, g, tau=1e-4, method="svd")
    assert info.method == "tridiagonal"
    assert np.linalg.norm(step - reference) < 2e-8 * np.linalg.norm(reference)


def test_recorders():
    toy = EXPERIMENTS["toy"]
    problem = toy.problem(0)
    recorder = toy.recorder(problem)
    result = fit(problem, HIG(), batch=256, epochs=3, on_epoch=[recorder])
    assert recorder.data["epoch"] == [0, 1, 2, 3]
    _, tape = problem.network.forward(result.theta, problem.train.net_input)
    assert np.allclose(recorder.data["neuron_mean"][-1], tape[1].mean(axis=0), atol=1e-5)
    assert np.allclose(recorder.data["neuron_std"][-1], tape[1].std(axis=0), atol=1e-5)
    dipole = SMALL["dipole"]
    problem = dipole.problem(0)
    recorder = dipole.recorder(problem)
    fit(problem, HIG(), batch=16, epochs=2, on_epoch=[recorder])
    assert len(recorder.data["low_energy_loss"]) == len(recorder.data["high_energy_loss"]) == 3


def test_levenberg_marquardt_on_a_whole_data_set():
    """Without noise from batches it converges faster than anything else."""
    problem = SMALL["oscillators"].problem(0)
    marquardt = fit(problem, LevenbergMarquardt(), batch=64, steps=15)
    adam = fit(problem, Adam(lr=1e-2), batch=64, steps=15)
    assert marquardt.history[-1].train_loss < 0.05 * adam.history[-1].train_loss


@pytest.mark.parametrize(("relative", "shrinks_by"), [(10.0, 1 / 3), (1e-2, 0.65), (1e-4, 0.99)])
def test_a_levenberg_marquardt_step_against_numpy(relative, shrinks_by):
    problem = SMALL["oscillators"].problem(0)
    theta = problem.network.init(np.random.default_rng(0))
    at = problem.linearise(theta, problem.batch(0, 8))
    J, g = at.jacobian().dense(), at.loss_gradient.reshape(-1)
    step, state, _ = LevenbergMarquardt(damping=relative).update(
        at, {"damping": 0.0, "growth": 2.0}
    )
    h = 2 / 8  # curvature of the mean squared error
    damping = relative * h * (J**2).sum(axis=1).max()
    expected = np.linalg.solve(h * J.T @ J + damping * np.eye(len(theta)), J.T @ g)
    assert np.allclose(step, expected)
    predicted = g @ J @ step - h / 2 * np.sum((J @ step) ** 2)
    gain = (at.loss - at.at(theta - step).loss) / predicted
    assert state["damping"] == pytest.approx(damping * max(1 / 3, 1 - (2 * gain - 1) ** 3))
    assert state["damping"] == pytest.approx(damping * shrinks_by, rel=0.01)


def test_levenberg_marquardt_stays_where_nothing_decreases():
    problem = SMALL["oscillators"].problem(0)
    theta = problem.network.init(np.random.default_rng(0))
    at = problem.linearise(theta, problem.batch(0, 8))
    at.at = lambda theta: dataclasses.make_dataclass("Worse", ["loss", "finite"])(np.inf, False)
    step, state, _ = LevenbergMarquardt(tries=3).update(at, {"damping": 1.0, "growth": 2.0})
    assert np.array_equal(step, np.zeros_like(theta))
    assert state["damping"] == 2 * 4 * 8


def test_a_sip_gradient_against_numpy():
    problem = SMALL["oscillators"].problem(0)
    theta = problem.network.init(np.random.default_rng(0))
    at = problem.linearise(theta, problem.batch(0, 8))
    seen = {}

    class Spy:
        def init(self, theta):
            return {}

        def update(self, linearisation, state):
            seen["gradient"] = linearisation.gradient()
            return 0 * theta, state, None

    sip = ScaleInvariantPhysics(lr=0.1)
    object.__setattr__(sip, "adam", Spy())
    sip.update(at, {})
    S, residual = at.solver_rows(), at.loss_gradient * 8 / 2  # the gradient is 2/b times it
    du = np.stack([np.linalg.pinv(S[i], rcond=1e-5) @ residual[i] for i in range(8)])
    expected = at.network_gradient(2 * du / 8)
    assert np.allclose(seen["gradient"], expected)


@pytest.mark.parametrize("batch_mean", [True, False])
def test_sip_inverts_a_linear_solver_exactly(batch_mean, rng):
    problem = dataclasses.replace(SMALL["poisson"].problem(0), batch_mean=batch_mean)
    at = problem.linearise(problem.network.init(rng), problem.batch(0, 5))
    u = at.control - inverted_control_step(at)
    assert np.abs(problem.solver.solve(at.batch.x, u) - at.batch.target).max() < 1e-10


def test_levenberg_marquardt_over_many_full_batches_of_a_rank_deficient_problem():
    problem = EXPERIMENTS["toy"].problem(0)
    result = fit(problem, LevenbergMarquardt(), batch=1024, steps=80)
    assert result.status == "budget"
    losses = [row.test_loss for row in result.history]
    assert losses[-1] < 0.5 * losses[0]


def test_toy_derivatives(rng):
    solver = ScaledOutputs(0.3)
    x, u = rng.standard_normal((4, 1)), rng.standard_normal((4, 2))
    v, w = rng.standard_normal((4, 2)), rng.standard_normal((4, 2))
    tangent, adjoint = (lambda v: solver.tangent(x, u, v)), (lambda w: solver.adjoint(x, u, w))
    assert dot_test(tangent, adjoint, v, w) < 1e-15
    y, S = solver.jacobian(x, u)
    assert np.array_equal(y, u * [1, 0.3])
    assert np.array_equal(S, np.broadcast_to(np.diag([1, 0.3]), (4, 2, 2)))
    with pytest.raises(ValueError, match=r"u must have shape \(4, 2\)"):
        solver.solve(x, x)
    with pytest.raises(ValueError, match="gamma must be a finite number"):
        ScaledOutputs(float("nan"))


@pytest.mark.parametrize("name", SMALL)
def test_jacobian_of_every_experiment_against_central_differences(name, rng):
    problem = SMALL[name].problem(0)
    theta = problem.network.init(rng)
    batch = problem.batch(0, 4)
    J = problem.linearise(theta, batch).jacobian().dense()
    h, scale = 1e-5, np.abs(J).max()
    for k in rng.choice(len(theta), 12, replace=False):
        e = np.zeros_like(theta)
        e[k] = h
        ahead, behind = (problem.predict(theta + s * e, batch)[1] for s in (1, -1))
        column = ((ahead - behind) / (2 * h)).reshape(-1)
        assert np.abs(J[:, k] - column).max() < 1e-7 * scale
