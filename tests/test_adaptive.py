"""AdaptiveHIG: its step against the definition, its corners, its rules, and what it survives."""

import dataclasses
import math

import numpy as np
import pytest

from bench.experiments import EXPERIMENTS
from higcore import (
    HIG,
    Adam,
    AdaptiveHIG,
    Batch,
    FreshData,
    Problem,
    fit,
    load_checkpoint,
    save_checkpoint,
)
from higcore.losses import SquaredError
from higcore.optimizers.adaptive import Trial, next_numbers, shortened
from higcore.spectral.spectrum import SQUARED_RESOLUTION, HalfInverseInfo
from nets import MLP
from solvers import OscillatorChain, Solver

FAR = 1e6  # a reach that shortens nothing


def oscillators(samples=64, batch_mean=True, factor=1.0, dtype=float):
    x = np.random.default_rng(3).random((samples, 4)).astype(dtype)
    data, net = Batch(x, x, x), MLP((4, 8, 12))
    loss, chain = SquaredError(factor), OscillatorChain(steps=12)
    return Problem(net, chain, loss, data, data, batch_mean=batch_mean)


def at_start(problem, size=16):
    theta = problem.network.init(np.random.default_rng(0), problem.sample.x.dtype)
    return problem.linearise(theta, problem.batch(0, size))


def trial(at, optimizer, damping, last=None, steps=0):
    """The trial of a state that is as given."""
    state = optimizer.init(at.theta) | {"damping": damping, "reach": FAR, "steps": steps}
    return optimizer._trial(at, state if last is None else state | {"last": last})


def parts_of(at):
    """J, g, h as the definition has them."""
    return at.jacobian().dense(), at.loss_gradient.reshape(-1), at.curvature


def least(J, g, h, damping, mu, carried):
    """The least of the model by a dense least-squares solve, mode by mode of a full basis.

    |sqrt(h) J d - g / sqrt(h)|^2 + |sqrt(damping) P (d - carried)|^2, P the root of the penalty.
    """
    _, s, Vt = np.linalg.svd(J, full_matrices=False)
    told = np.maximum(s, SQUARED_RESOLUTION * s[0])  # modes are not told apart below
    penalty = (told**2 / (J**2).sum()) ** (mu / 2)
    rows = np.vstack([np.sqrt(h) * J, np.sqrt(damping) * penalty[:, None] * Vt])
    wanted = [g / np.sqrt(h), np.sqrt(damping) * penalty * (Vt @ carried)]
    seen = np.linalg.lstsq(rows, np.concatenate(wanted), rcond=1e-15)[0]
    return seen + carried - Vt.T @ (Vt @ carried)  # what J does not see is carried on


@pytest.mark.parametrize("size", [4, 64])  # fewer rows than parameters, and more
@pytest.mark.parametrize("mu", [0.0, 0.375, 0.75])
@pytest.mark.parametrize("relative", [1e-6, 1e-2, 1.0])
def test_the_step_is_the_least_of_its_model(size, mu, relative, rng):
    at = at_start(oscillators(), size)
    J, g, h = parts_of(at)
    optimizer = AdaptiveHIG(mu=mu, momentum=0.9, method="svd")  # which resolves all modes
    last = rng.standard_normal(J.shape[1])
    damping = relative * h * (J**2).sum()
    found = trial(at, optimizer, damping, last, steps=100)
    wanted = least(J, g, h, damping, mu, 0.45 * last)  # half of the ramp
    _, s, Vt = np.linalg.svd(J)
    told = Vt[: (s > 1e-5 * s[0]).sum()]  # the smallest modes of so many rows are rounding errors
    unseen = Vt[len(s) :]
    for part in (told, unseen):
        assert np.allclose(
            part @ found.step, part @ wanted, rtol=0, atol=1e-7 * abs(told @ wanted).max()
        )
    Jd = J @ found.step
    assert found.predicted == pytest.approx(g @ Jd - h / 2 * Jd @ Jd, rel=1e-9)


def test_corners_of_the_family():
    at = at_start(oscillators(), 4)
    J, g, h = parts_of(at)
    size = h * (J**2).sum()
    U, s, Vt = np.linalg.svd(J, full_matrices=False)

    def step(mu, damping):
        return trial(at, AdaptiveHIG(mu=mu, momentum=0.0), damping).step

    def close(found, wanted, digits=1e-10):
        return np.abs(found - wanted).max() <= digits * np.abs(wanted).max()

    damping = 0.1 * size
    K = h * J @ J.T + damping * np.eye(len(J))
    assert close(step(0.0, damping), J.T @ np.linalg.solve(K, g))  # Levenberg-Marquardt
    assert close(step(0.0, 10 * size) * 10 * size, J.T @ g, 0.2)  # towards the gradient
    hig = Vt.T @ (s**-0.5 * (U.T @ g)) * ((J**2).sum()) ** 0.75  # lambda times the step
    assert close(step(0.75, 10 * size) * 10 * size, hig, 0.2)
    gauss_newton = np.linalg.pinv(J) @ g / h
    assert close(step(0.0, 1e-12 * size), gauss_newton, 1e-3)


def test_a_step_does_not_depend_on_the_scale_of_the_loss():
    """Whether L is a mean or a sum, and the factor of the loss."""
    runs = [
        fit(oscillators(batch_mean=mean, factor=factor), AdaptiveHIG(), batch=16, steps=6)
        for mean, factor in ((True, 1.0), (False, 1.0), (True, 0.5), (False, 300.0))
    ]
    for run in runs[1:]:
        assert np.allclose(run.theta, runs[0].theta, rtol=0, atol=1e-7)


def test_no_sample_asks_for_more_than_the_reach(rng):
    g = rng.standard_normal((5, 3)) * np.array([1e-3, 0.1, 1.0, 10.0, 0.0])[:, None]
    found = shortened(g, 0.5)
    lengths = np.linalg.norm(found, axis=1)
    assert (lengths <= 0.5 * (1 + 1e-12)).all()
    assert np.array_equal(found[0], g[0])
    assert not found[4].any()
    assert np.allclose(found[3] / lengths[3], g[3] / np.linalg.norm(g[3]))


def test_one_sample_far_off_does_not_rule_the_step():
    problem = oscillators()
    at = at_start(problem)
    target = at.batch.target.copy()
    target[0] += 1e4
    off = problem.linearise(at.theta, dataclasses.replace(at.batch, target=target))
    optimizer, steps = AdaptiveHIG(), []
    for where in (at, off):
        state = optimizer.init(at.theta) | {"damping": 0.1, "reach": 0.1}
        steps.append(np.linalg.norm(optimizer._trial(where, state).step))
    assert steps[1] < 3 * steps[0]


# The rules, on made-up trials

INFO = HalfInverseInfo("gram", 1, 1.0, 1.0, 0.0, math.inf)
STATE = AdaptiveHIG().init(np.zeros(1))


def made_up(gain, before=1.0, after=1.0):
    return Trial(np.zeros(1), 1.0, 8.0, 0, INFO, gain, before, after)


def next_state(state, trial):
    return state | next_numbers(state, trial, AdaptiveHIG()._factor(trial))


@pytest.mark.parametrize(
    ("gain", "after", "damping"),
    [
        (1.0, 0.9, 5.6), (1e-3, 0.9, 5.6), (1.0, 1.1, 10.4), (1.0, 1.0, 10.4), (0.0, 0.5, 32.0),
        (-1.0, 0.5, 32.0), (math.nan, 0.5, 32.0), (-math.inf, 0.5, 32.0), (1.0, math.inf, 32.0),
        (1.0, math.nan, 32.0), (None, 1.0, 8.0),
    ],
)  # fmt: skip
def test_what_becomes_of_lambda(gain, after, damping):
    found = next_state(STATE, made_up(gain, after=after))
    assert found["damping"] == pytest.approx(damping)
    assert found["steps"] == 1


def course(losses):
    state = dict(STATE)
    for loss in losses:
        state = next_state(state, made_up(1.0, before=loss, after=loss))
    return state


def test_momentum_is_given_up_for_good_where_the_loss_climbs():
    falling, climbing = [1e-3**k for k in np.linspace(0, 1, 60)], [1e-3] * 20 + [0.1] * 20
    assert course(falling)["carrying"]
    assert course([*falling, 5e-3])["carrying"]  # one bad batch
    assert not course(climbing)["carrying"]
    assert not course([*climbing, *[1e-9] * 100])["carrying"]
    assert course([0.0, -1.0, 1.0])["carrying"]  # a loss that has no logarithm


def test_a_momentum_that_leads_up_is_dropped():
    problem, optimizer = oscillators(), AdaptiveHIG()
    at = at_start(problem)
    state = optimizer.init(at.theta) | {"steps": 300, "last": np.full_like(at.theta, 1e3)}
    step, state, info = optimizer.update(at, state)
    assert not step.any()
    assert not state["last"].any()
    assert info.gain is None
    assert state["damping"] == info.damping


def test_theta_becomes_the_mean_where_that_is_better():
    """Steps that circle round the least: their mean is nearer to it than they are."""
    problem, optimizer = oscillators(), AdaptiveHIG(average=5)
    good = fit(problem, AdaptiveHIG(), batch=16, steps=60).theta
    noise = np.random.default_rng(0).standard_normal(len(good))
    at = problem.linearise(good + 0.05 * noise, problem.batch(0, 16))
    mean_of_five = good + 1e-4 * noise
    state = optimizer.init(good) | {"steps": 4, "damping": 1e9, "exponent": 0}
    step, after, _ = optimizer.update(at, state | {"sum": 5 * mean_of_five - at.theta})
    assert np.allclose(at.theta - step, mean_of_five, atol=0.05)
    assert not after["sum"].any()
    assert not after["last"].any()
    far = optimizer.update(at, state | {"sum": 5 * (good + noise) - at.theta})
    assert np.linalg.norm(far[0]) < 0.5 * np.linalg.norm(0.95 * noise)
    assert not far[1]["sum"].any()


# Samples that judge


@pytest.mark.parametrize("count", [1, 7, 40])
@pytest.mark.parametrize("step", range(8))
def test_samples_that_follow_a_batch(step, count):
    x = np.arange(30.0)[:, None]
    data = Batch(x, x, x)
    batch, others = data.take(step, 8).x, data.following(step, 8, count).x
    assert len(others) <= count
    assert len(np.unique(others)) == len(others)
    assert not np.isin(others, batch).any()
    ahead = np.concatenate([data.take(step + k, 8).x for k in (1, 2, 3)])
    assert np.array_equal(others[:count], ahead[: len(others)])
    assert len(others) >= min(count, 22)


def test_a_batch_of_all_samples_has_no_others():
    x = np.zeros((4, 1))
    assert Batch(x, x, x).following(0, 4, 2) is None


def draw(rng, size):
    return Batch(*[rng.random((size, 4))] * 3)


def test_fresh_others_are_those_of_the_next_step():
    data = FreshData(draw, seed=5, count=64)
    assert data.following(3, 8, 8) == data.take(4, 8)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_batches_of_the_experiments_are_those_it_chooses(name):
    experiment = EXPERIMENTS[name]
    chosen = AdaptiveHIG().batch_for(experiment.problem())
    assert experiment.settings["adaptive"].batch == chosen


def test_fit_asks_for_a_batch():
    assert fit(oscillators(), AdaptiveHIG(), steps=1).batch == 64
    for optimizer in (HIG(), Adam()):
        with pytest.raises(TypeError, match=f"batch must be given.*{type(optimizer).__name__}"):
            fit(oscillators(), optimizer, steps=1)


# Runs


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_training(dtype):
    result = fit(oscillators(dtype=dtype), AdaptiveHIG(), batch=16, steps=150)
    assert result.status == "budget"
    assert result.test_loss < 5e-3 * result.history[0].test_loss
    assert result.theta.dtype == dtype


def test_fresh_data():
    x = draw(np.random.default_rng(1), 64)
    net, chain = MLP((4, 8, 12)), OscillatorChain(steps=12)
    problem = Problem(net, chain, SquaredError(), FreshData(draw, 0, 64), x)
    result = fit(problem, AdaptiveHIG(), batch=16, steps=60)
    assert result.test_loss < 1e-2 * result.history[0].test_loss


def test_a_run_that_goes_on_has_the_bits_of_one_that_was_not_interrupted(tmp_path):
    problem, optimizer = oscillators(), AdaptiveHIG(average=7)
    whole = fit(problem, optimizer, batch=16, steps=40)
    part = fit(problem, optimizer, batch=16, steps=23)
    save_checkpoint(tmp_path / "a.npz", part)
    loaded = load_checkpoint(tmp_path / "a.npz")
    assert loaded.state.info == part.state.info
    resumed = fit(problem, optimizer, batch=16, steps=40, resume=loaded)
    assert np.array_equal(resumed.theta, whole.theta)
    for name, value in whole.state.optimizer.items():
        assert np.array_equal(resumed.state.optimizer[name], value), name


class Bursting(Solver):
    """y = u^3, and nothing, or an exception, where a control is large."""

    state_size, control_size, output_size = 1, 1, 1

    def __init__(self, raises):
        self.raises = raises

    def solve(self, x, u):
        large = abs(u) > 1.5
        if self.raises and large.any():
            raise FloatingPointError("too large a control")
        return np.where(large, np.nan, u**3)

    def tangent(self, x, u, du):
        return 3 * u**2 * du


@pytest.mark.parametrize("raises", [False, True])
def test_a_solver_that_fails_for_large_controls(raises):
    x = np.linspace(-1, 1, 64)[:, None]
    data = Batch(x, x, 1.2 * np.sin(3 * x))
    problem = Problem(MLP((1, 10, 1)), Bursting(raises), SquaredError(), data, data)
    result = fit(problem, AdaptiveHIG(damping=1e-12, reach=1e9), batch=16, steps=120)
    assert result.status == "budget"
    assert result.test_loss < 0.3 * result.history[0].test_loss


def test_a_loss_of_zero_stays():
    problem = oscillators()
    at = at_start(problem, 64)
    y = problem.predict(at.theta, at.batch)[1]
    data = dataclasses.replace(problem.train, target=y)
    solved = dataclasses.replace(problem, train=data, test=data)
    result = fit(solved, AdaptiveHIG(), batch=64, steps=5, theta=at.theta)
    assert np.array_equal(result.theta, at.theta)


def test_diagnostics_show_damping_gain_and_the_others():
    rows = fit(oscillators(), AdaptiveHIG(), batch=16, steps=5, diagnostics=True).diagnostics
    assert all(row.damping > 0 and row.held_out > 0 and math.isfinite(row.gain) for row in rows)
    taken = [row for row in rows if row.step_norm]
    assert taken[0].gain == pytest.approx(taken[0].ratio, rel=1e-6)
    assert "held out" in str(rows)
