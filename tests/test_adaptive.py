"""AdaptiveHIG: its step against the definition, its corners, its rules, and what it survives."""

import dataclasses
import math

import numpy as np
import pytest

from bench.experiments import EXPERIMENTS, FIELDS, VARIANTS
from bench.research.variants import Straight
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
from higcore.backend import to_host
from higcore.half_inverse import decompose
from higcore.losses import SquaredError
from higcore.optimizers import adaptive
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
    state |= {} if last is None else {"last": last}
    return optimizer._trial(optimizer._model(at, state), state)


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
    optimizer = Straight(mu=mu, momentum=0.9, method="svd")  # which resolves all modes
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


@pytest.mark.parametrize("method", ["auto", "qr"])
@pytest.mark.parametrize("size", [4, 64])
def test_the_correction_is_for_the_second_derivative_along_the_step(size, method):
    """y'' by differences around theta, and the solve by dense algebra."""
    problem = oscillators()
    at = at_start(problem, size)
    J, _, h = parts_of(at)
    damping = 0.3 * h * (J**2).sum()
    options = {"mu": 0.0, "momentum": 0.0, "method": method}
    straight, found = (trial(at, kind(**options), damping) for kind in (Straight, AdaptiveHIG))
    assert found.predicted == straight.predicted
    e, d = 1e-3, straight.step
    y = [problem.predict(at.theta + k * e * d, at.batch)[1].reshape(-1) for k in (-1, 0, 1)]
    half_curved = (y[0] - 2 * y[1] + y[2]) / (2 * e * e)
    K = h * J.T @ J + damping * np.eye(J.shape[1])
    correction = np.linalg.solve(K, J.T @ (h * half_curved))
    assert np.linalg.norm(correction) > 1e-3 * np.linalg.norm(d)
    assert np.allclose(
        found.step - d, correction, rtol=0, atol=0.1 * np.linalg.norm(correction)
    )  # y'' from one side, at a tenth of the step: the third derivative shows


def test_a_bent_step_errs_by_a_power_more():
    """Towards targets at a distance e, a straight step errs by e^2, a bent one by e^3."""
    at = at_start(oscillators(), 4)
    way = np.random.default_rng(1).standard_normal(at.output.shape)
    errors = []
    for e in (2e-4, 1e-4):
        target = at.output + e * way
        near = at.problem.linearise(at.theta, dataclasses.replace(at.batch, target=target))
        for kind in (Straight, AdaptiveHIG):
            optimizer = kind(mu=0.0, momentum=0.0, reach=FAR, damping=1e-13, method="svd")
            state = optimizer.init(at.theta) | {"reach": FAR}
            step = optimizer._trial(optimizer._model(near, state), state).step
            errors.append(np.linalg.norm(near.at(at.theta - step).output - target))
    straight, bent = errors[0] / errors[2], errors[1] / errors[3]
    assert 3 < straight < 5.5
    assert 6 < bent < 11


def test_a_correction_that_is_no_small_part_is_left_out():
    at, far = at_start(oscillators()), 1e-9
    steps = [trial(at, kind(), far).step for kind in (Straight, AdaptiveHIG)]
    assert np.array_equal(*steps)


class BlindToSome(SquaredError):
    """The last two outputs do not matter."""

    def value(self, y, target):
        return super().value(y[:, :2], target[:, :2])

    def gradient(self, y, target):
        return super().gradient(y, target) * np.array([1.0, 1.0, 0.0, 0.0])


def test_what_the_loss_does_not_see_need_not_be_corrected(rng):
    problem = oscillators()
    step = 0.1 * rng.standard_normal(problem.network.size)
    bends = []
    for loss in (problem.loss, BlindToSome()):
        at = at_start(dataclasses.replace(problem, loss=loss))
        model = AdaptiveHIG()._model(at, AdaptiveHIG().init(at.theta) | {"reach": FAR})
        bends.append(model.bend(step, model.J.matvec(step)).reshape(-1, 4))
    assert np.array_equal(bends[1][:, :2], bends[0][:, :2])
    assert bends[0][:, 2:].any()
    assert not bends[1][:, 2:].any()


def test_where_y_is_straight_nothing_bends(rng):
    problem = dataclasses.replace(oscillators(), network=MLP((4, 12)), solver=Straightforward())
    at = at_start(problem)
    model = AdaptiveHIG()._model(at, AdaptiveHIG().init(at.theta) | {"reach": FAR})
    step = rng.standard_normal(problem.network.size)
    assert model.bend(step, model.J.matvec(step)) is None  # rounding errors


@pytest.mark.parametrize("fails", [lambda *_: 1 / 0, lambda *_: (None, np.full((16, 4), np.nan))])
def test_a_step_is_straight_where_y_beside_it_cannot_be_told(fails, monkeypatch):
    at = at_start(oscillators())
    straight = trial(at, Straight(), 0.1).step
    monkeypatch.setattr(Problem, "predict", fails)
    assert np.array_equal(trial(at, AdaptiveHIG(), 0.1).step, straight)


def test_a_batch_that_refuses_a_step_is_asked_for_a_shorter_one(monkeypatch):
    """Of the same decomposition, and without the momentum."""
    problem, optimizer, made = oscillators(), Straight(), []
    at = at_start(problem)
    far = optimizer.init(at.theta) | {"steps": 300, "last": np.full_like(at.theta, 1.0), "reach": 9}
    monkeypatch.setattr(
        adaptive,
        "decompose",
        lambda *args, **more: made.append(decompose(*args, **more)) or made[-1],
    )
    damping = 0.3 * at.curvature
    step, state, info = optimizer.update(at, far | {"damping": damping})
    assert len(made) == 1
    assert info.gain > 0
    refusals = round(math.log(info.damping / damping, 4))
    assert refusals > 0
    assert info.damping == pytest.approx(4**refusals * damping)
    alone = optimizer._model(at, far | {"carrying": 0})
    same = optimizer._trial(alone, far | {"damping": info.damping})
    assert np.allclose(step, same.step, rtol=0, atol=1e-9 * abs(step).max())
    assert np.array_equal(state["last"], step)
    assert state["steps"] == 301


def test_after_some_refusals_the_next_batch_is_asked(monkeypatch):
    at, optimizer = at_start(oscillators()), AdaptiveHIG()
    monkeypatch.setattr(adaptive, "loss_at", lambda at, theta: math.inf)
    step, state, info = optimizer.update(at, optimizer.init(at.theta) | {"damping": 1.0})
    assert not step.any()
    assert state["damping"] == 4.0**optimizer.tries
    assert info.damping == 4.0 ** (optimizer.tries - 1)
    assert state["steps"] == 1


class Straightforward(Solver):
    """y are the first four controls."""

    state_size, control_size, output_size = 4, 12, 4

    def solve(self, x, u):
        return u[:, :4] + 0.0

    def tangent(self, x, u, du):
        return du[:, :4]


def test_corners_of_the_family():
    at = at_start(oscillators(), 4)
    J, g, h = parts_of(at)
    size = h * (J**2).sum()
    U, s, Vt = np.linalg.svd(J, full_matrices=False)

    def step(mu, damping):
        return trial(at, Straight(mu=mu, momentum=0.0), damping).step

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
        assert np.allclose(run.theta, runs[0].theta, rtol=0, atol=1e-6)


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
        steps.append(np.linalg.norm(optimizer._trial(optimizer._model(where, state), state).step))
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


def course(losses):
    state = dict(STATE)
    for loss in losses:
        state = next_state(state, made_up(1.0, before=loss, after=loss))
        state["steps"] += 1
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
    others = optimizer._others(at, dict(after) | {"steps": 4})
    assert after["loss_of_others"] == pytest.approx(problem.evaluate(mean_of_five, others))
    far = optimizer.update(at, state | {"sum": 5 * (good + noise) - at.theta})
    assert np.linalg.norm(far[0]) < 0.5 * np.linalg.norm(0.95 * noise)
    assert not far[1]["sum"].any()


# Samples that judge


@pytest.mark.parametrize("wanted", [1, 7, 40])
@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("first", range(8))
def test_samples_beside_some_batches(first, steps, wanted, xp):
    """As many as wanted or left, in none of the batches, and spread over what is left."""
    x = xp.asarray(np.arange(30.0)[:, None])
    data, steps = Batch(x, x, x), range(first, first + steps)
    others = to_host(data.beside(steps, 8, wanted).x)[:, 0]
    batches = np.concatenate([to_host(data.take(step, 8).x)[:, 0] for step in steps])
    free = 30 - 8 * len(steps)
    assert len(np.unique(others)) == len(others) == min(wanted, free)
    assert not np.isin(others, batches).any()
    gaps = np.diff((others - others[0]) % 30)
    assert len(others) < 3 or gaps.max() - gaps.min() <= 1


def changes_of_judges(problem, optimizer, size, steps):
    """How often other samples judge; none is in a batch that it judges, their loss is known."""
    theta, held, changes = problem.network.init(np.random.default_rng(0)), None, 0
    state = optimizer.init(theta)
    for step in range(steps):
        at = problem.linearise(theta, problem.batch(step, size))
        found = state | {"batch": size}
        others = optimizer._others(at, found)
        assert not (others.x[:, None] == at.batch.x).all(axis=2).any()
        assert found["loss_of_others"] == pytest.approx(problem.evaluate(theta, others), rel=1e-9)
        changes += held is None or not np.array_equal(held.x, others.x)
        held = others
        change, state, _ = optimizer.update(at, state)
        theta = theta - change
    return changes


@pytest.mark.parametrize(
    ("count", "size"), [(64, 16), (30, 2), (80, 8), (24, 12), (9, 8), (30, 20)]
)
@pytest.mark.parametrize("wanted", [4, 16, 64])
def test_others_stay_for_some_steps(count, size, wanted):
    """None of them is in a batch of these steps, and their loss at theta is always known."""
    problem, optimizer = oscillators(count), AdaptiveHIG(others=wanted, average=3)
    changes = changes_of_judges(problem, optimizer, size, 12)
    steps = min(max(count // (4 * size), 1), 8)
    assert changes == math.ceil(12 / steps)


def test_a_batch_of_all_samples_has_no_others():
    x = np.zeros((4, 1))
    assert Batch(x, x, x).beside(range(1), 4, 2) is None


def draw(rng, size):
    return Batch(*[rng.random((size, 4))] * 3)


def test_fresh_others_are_those_of_the_next_step():
    data = FreshData(draw, seed=5, count=64)
    assert data.beside(range(2, 4), 8, 8) == data.take(4, 8)


@pytest.mark.parametrize(
    "experiment",
    [*EXPERIMENTS.values(), *FIELDS.values(), VARIANTS["poisson"]["paper"]],
    ids=lambda experiment: experiment.name,
)
def test_batches_of_the_experiments_are_those_it_chooses(experiment):
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
    rows = fit(oscillators(), Straight(), batch=16, steps=5, diagnostics=True).diagnostics
    assert all(row.damping > 0 and row.held_out > 0 and math.isfinite(row.gain) for row in rows)
    taken = [row for row in rows if row.step_norm]
    assert taken[0].gain == pytest.approx(taken[0].ratio, rel=1e-6)
    assert "held out" in str(rows)
