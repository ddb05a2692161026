"""The problems with the network in the time loop, and what is compared there."""

import dataclasses
import json

import numpy as np
import pytest
from click.testing import CliRunner
from pages import blocks_of, run

from bench import __main__ as command_line
from bench.experiments import LOOPS
from bench.experiments.chaos import Chaos
from bench.experiments.loops import TIMED, Burgers, Feedback, Friction
from bench.research import loops
from higcore import AdaptiveHIG, check_stepper, fit
from solvers import BurgersStepper, KuramotoSivashinsky, OscillatorChain

CHAIN = OscillatorChain(steps=40, dt=0.2, linear=0.5, control=(0.0, 1.0))
SMALL = {
    "friction": Friction(steps=16, samples=24, test_samples=8),
    "feedback": Feedback(CHAIN, samples=48, test_samples=8),
    "burgers": Burgers(BurgersStepper(cells=8), steps=4, samples=16, test_samples=4),
    "kuramoto-sivashinsky": Chaos(
        KuramotoSivashinsky(12, 9.0, 0.25, steps=4, intervals=6, actuators=4, width=0.8),
        hidden=(8,),
        spin_up=20.0,
        samples=32,
        test_samples=8,
    ),
}


@pytest.mark.parametrize("name", LOOPS)
def test_each_learns(name, monkeypatch):
    experiment = SMALL[name]
    problem = experiment.problem(10)
    result = fit(problem, AdaptiveHIG(), batch=8, steps=30, seed=10)
    assert result.test_loss < 0.1 * result.history[0].test_loss
    experiment.picture(problem, result.theta)


@pytest.mark.parametrize("name", LOOPS)
def test_every_setting_runs(name):
    problem = SMALL[name].problem(10)
    for label in ("hig", "lm", "adam", "adaptive"):
        setting = SMALL[name].settings[label]
        batch = min(setting.batch, 16)
        assert fit(problem, setting.optimizer, batch=batch, steps=2).status == "budget"


def test_the_data_of_friction_are_of_the_law(rng):
    experiment = dataclasses.replace(SMALL["friction"], noise=0.0)
    problem = experiment.problem(10)

    class Law:
        input_size = output_size = 1
        size = 1
        init = pull = rows = backward = tangent = part = factor_shapes = None

        def forward(self, theta, z):
            return experiment.law(z), None

    _, y = dataclasses.replace(problem, network=experiment.rollout(Law())).predict(
        np.zeros(1), problem.train
    )
    assert np.array_equal(y, problem.train.target)


def test_burgers_stepper():
    assert check_stepper(BurgersStepper(cells=6), show=False)
    x, u = np.random.default_rng(0).standard_normal((2, 3, 6))
    moved = BurgersStepper(cells=6).step(x, u)
    assert np.allclose(moved.sum(axis=1), x.sum(axis=1))  # nothing is lost
    still = BurgersStepper(cells=6).step(np.full((1, 6), 0.7), np.zeros((1, 6)))
    assert np.allclose(still, 0.7)


def test_burgers_on_a_fine_grid_moves_a_wave_as_it_should():
    """Before a shock, u(t, x) = u_0(x - u t): characteristics, from a formula of its own."""
    n, t = 2048, 0.5
    stepper = BurgersStepper(cells=n, dt=0.5 / 1024, viscosity=0.0, speed=0.6)
    places = (np.arange(n) + 0.5) * stepper.spacing
    x = 0.5 * np.sin(places)[None]
    for _ in range(1024):
        x = stepper.step(x, 0.0)
    exact = 0.5 * np.sin(places)
    for _ in range(200):
        exact = 0.5 * np.sin(places - exact * t)
    assert abs(x[0] - exact).max() < 1e-3


def test_chaos_starts_on_the_attractor_and_is_measured(rng):
    """Unforced it is where it was in the mean; the exponent is the known 0.048 on a ring of 22."""
    experiment = dataclasses.replace(LOOPS["kuramoto-sivashinsky"], samples=1, test_samples=64)
    problem = experiment.problem(10)
    start = problem.test.x
    end = experiment.unforced(start, 30)
    assert np.abs(start.mean(axis=1)).max() < 1e-12
    assert np.mean(end**2) == pytest.approx(np.mean(start**2), rel=0.15)
    assert experiment.loss_unforced(problem) == pytest.approx(16 * np.mean(end**2))
    assert 0.03 < experiment.exponent(problem) < 0.07
    still = np.zeros(problem.model.size)
    assert experiment.loss_later(problem, still) == pytest.approx(
        16 * np.mean(experiment.unforced(start, 60) ** 2)
    )


@pytest.mark.parametrize("name", LOOPS)
def test_the_comparison_runs(name, tmp_path, monkeypatch):
    monkeypatch.setitem(LOOPS, name, SMALL[name])
    monkeypatch.setattr(loops, "BATCH_OF_OPEN_LOOP", 16)
    for label in loops.OPTIMIZERS:
        small = SMALL[name].settings[label]._replace(batch=8)
        settings = SMALL[name].settings | {label: small}
        monkeypatch.setattr(type(SMALL[name]), "settings", settings)
    arguments = ["loop", name, "--seconds", "0.3", "--seeds", "1", "--out", str(tmp_path)]
    done = CliRunner().invoke(command_line.main, arguments)
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / f"loop-{name}.json").read_text())
    assert set(found["seeds"]["0"]["curves"]) >= set(loops.OPTIMIZERS)
    assert all(np.isfinite(value) for value in found["seeds"]["0"]["figures"].values())
    assert {p.name for p in tmp_path.glob("*.png")} == {
        f"loop-{name}.png", f"loop-{name}-learned.png",
    }  # fmt: skip


def test_a_step_that_is_raced_is_the_rivals(rng):
    pytest.importorskip("jax")
    from bench.speed.peers import make_step
    from higcore import half_inverse

    problem = TIMED["pendulum-loop"].problem()
    theta, batch = problem.network.init(rng), problem.batch(0, 16)
    at = problem.linearise(theta, batch)
    expected, _ = half_inverse(at.jacobian(), at.loss_gradient, tau=1e-4, method="svd")
    step = make_step("jax float64 svd", problem, tau=1e-4)(theta, batch)
    assert np.linalg.norm(step - expected) < 1e-9 * np.linalg.norm(expected)


def test_the_page_runs(tmp_path):
    blocks = blocks_of("time-loop")
    assert len(blocks) == 5
    assert "test loss" in run(blocks, tmp_path)
