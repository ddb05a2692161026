"""Poisson on grids of a field's size: products with J from passes alone, what training takes."""

import tracemalloc

import numpy as np
import pytest
from click.testing import CliRunner

from bench import __main__ as command_line
from bench.experiments import FIELDS
from bench.experiments.poisson import PoissonField
from higcore import HIG, Adam, dot_test, fit, memory_estimate, taylor_test
from higcore.backend import to_host
from higcore.device.memory import DoesNotFitError
from nets import ConvNet2d
from solvers import Poisson2D

SMALL = PoissonField(Poisson2D(8, 1.0), (4, 4), steps=(1, 2), test_samples=8, few=2)


@pytest.mark.parametrize(
    ("name", "points", "size"), [("poisson-32", 32, 3073), ("poisson-64", 64, 3657)]
)
def test_the_fields(name, points, size):
    problem = FIELDS[name].problem(0)
    assert problem.name == name
    assert problem.network.size == size
    assert problem.output_size == problem.network.output_size == points**2
    assert problem.solver.spacings[0] * (points + 1) == pytest.approx(9)  # the paper's domain
    source = problem.batch(0, 2).target
    assert np.abs(source.mean(axis=1)).max() < 1e-13
    assert np.array_equal(source, problem.batch(0, 2).net_input)
    assert not np.array_equal(source, problem.batch(1, 2).target)


def test_points_see_each_other_across_the_grid():
    """The taps reach as far as half the grid from the middle."""
    for experiment in FIELDS.values():
        assert 2 * (sum(experiment.steps) + 1) >= experiment.solver.shape[0]


@pytest.mark.parametrize("name", SMALL.settings)
def test_every_setting_runs(name):
    setting = SMALL.settings[name]
    result = fit(SMALL.problem(10), setting.optimizer, batch=setting.batch, steps=2, seed=10)
    assert result.status == "budget" or name in ("gn", "sgd"), result.message
    assert np.isfinite(result.theta).all()


def test_adam_learns(monkeypatch):
    monkeypatch.setattr(Poisson2D, "rows", lambda *_: pytest.fail("S was formed"))
    problem = SMALL.problem(10)
    result = fit(problem, Adam(lr=0.01), batch=32, steps=150, seed=10)
    nothing = 0.5 * (problem.test.target**2).sum(axis=1).mean()  # the loss of a potential of 0
    assert result.test_loss < 0.1 * nothing


def test_products_of_network_and_solver(xp, monkeypatch):
    """J v and J^T w, as a Krylov method asks for them: no S, no rows."""
    monkeypatch.setattr(Poisson2D, "rows", lambda *_: pytest.fail("S was formed"))
    monkeypatch.setattr(ConvNet2d, "rows", lambda *_: pytest.fail("rows were formed"))
    problem = SMALL.problem(10)
    rng, model = np.random.default_rng(10), problem.model
    batch = problem.batch(0, 3)
    batch = type(batch)(*map(xp.asarray, batch))
    theta = xp.asarray(problem.network.init(rng))
    _, tape = model.forward(theta, batch)
    for _ in range(20):
        v, w = xp.asarray(rng.standard_normal(len(theta))), xp.asarray(rng.standard_normal((3, 64)))
        mismatch = dot_test(
            lambda v: model.tangent(theta, tape, v), lambda w: model.backward(theta, tape, w), v, w
        )
        assert mismatch < 1e-12
    orders = taylor_test(
        lambda p: to_host(model.forward(p, batch)[0]),
        lambda p, d: to_host(model.tangent(p, model.forward(p, batch)[1], d)),
        theta,
        v,
        step=1e-3,
    )
    assert all(abs(order - 2) < 0.05 for order in orders)


def test_adam_takes_little_memory():
    """At 32 x 32: the fields between layers, twice; neither patches nor S (8.4 MB a sample)."""
    experiment = FIELDS["poisson-32"]
    problem, b = experiment.problem(10), 32
    field, S = 8 * b * 1024 * 8, 8 * b * 1024**2
    theta = problem.network.init(np.random.default_rng(10))
    tracemalloc.start()
    try:
        at = problem.linearise(theta, problem.batch(0, b))
        at.gradient()
        at.tangent(theta)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < (len(experiment.hidden) + 4) * field + 3e7 < S / 4


def test_rows_that_do_not_fit_are_refused_before_they_are_made(monkeypatch):
    monkeypatch.setattr(Poisson2D, "rows", lambda *_: pytest.fail("S was formed"))
    problem = FIELDS["poisson-64"].problem(10)
    assert memory_estimate(problem, 8).total > 1e10
    with pytest.raises(DoesNotFitError, match="a step on a batch of 8 needs"):
        fit(problem, HIG(memory_limit=2e9), batch=8, steps=1)


def test_the_estimate_holds_what_rows_take():
    problem, b = SMALL.problem(10), 4
    theta, batch = problem.network.init(np.random.default_rng(10)), problem.batch(0, 4)
    estimate = memory_estimate(problem, b, method="gram")
    at = problem.linearise(theta, batch)
    tracemalloc.start()
    try:
        assert len(at.jacobian().blocks) == 3
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < estimate.beside_gram_matrix < 20 * peak


def test_train_on_the_command_line(tmp_path, monkeypatch):
    monkeypatch.setitem(FIELDS, "poisson-64", SMALL)
    arguments = ["train", "poisson-64", "--optimizer", "adam", "--batch", "4", "--steps", "2"]
    run = CliRunner().invoke(command_line.main, [*arguments, "--out", str(tmp_path)])
    assert run.exit_code == 0, run.output
    assert (tmp_path / "poisson-64-adam-seed0-picture.png").stat().st_size > 1000


@pytest.mark.parametrize("optimizer", [Adam(), HIG(lr=0.1, tau=1e-2)], ids=["adam", "hig"])
def test_training_on_a_device_is_that_of_the_host(optimizer, xp):
    problem = SMALL.problem(10)
    here = fit(problem, optimizer, batch=3, steps=4)
    there = fit(problem.on("cpu" if xp is np else "gpu"), optimizer, batch=3, steps=4)
    assert (type(there.theta) is np.ndarray) is (xp is np)
    theta, digits = to_host(there.theta), 1e-5 if isinstance(optimizer, HIG) else 1e-9
    assert np.abs(theta - here.theta).max() <= digits * np.abs(here.theta).max()
