"""The curvature of a loss in its three kinds, and what the optimizers make of it."""

import numpy as np
import pytest

from bench.research.variants import ScaledOutputs
from higcore import (
    HIG,
    Adam,
    AdaptiveHIG,
    Batch,
    FreshData,
    GaussNewton,
    LevenbergMarquardt,
    Problem,
    ScaleInvariantPhysics,
    fit,
    load_checkpoint,
    save_checkpoint,
)
from higcore.losses import Huber, Infidelity, SquaredError, WeightedSamples, curvature_of
from higcore.optimizers.damped import noise_of_loss
from higcore.optimizers.sip import inverted_control_step
from higcore.training.identity import canonical, describe
from nets import MLP
from solvers import OscillatorChain, Poisson2D, Solver

WEIGHTS = np.array([1.0, 30.0, 0.2, 4.0])
WHOLE = 40  # samples
WITH_CURVATURE = [
    GaussNewton(tau=1e-3),
    GaussNewton(lr=0.5, tau=1e-3, truncation="relative", method="svd"),
    LevenbergMarquardt(),
    AdaptiveHIG(method="svd"),  # which does not square, so that rounding stays small
    AdaptiveHIG(mu=0.0, momentum=0.0, method="svd"),
    ScaleInvariantPhysics(),
]


def oscillators(loss, solver=None, scales=1.0, batch_mean=True, samples=WHOLE):
    """A chain that is to be brought to rest; outputs and targets in other units, if scaled."""
    rng = np.random.default_rng(3)
    x, target = rng.random((2, samples, 4))
    if isinstance(loss, WeightedSamples):
        target = np.hstack([target, rng.uniform(0.1, 3, (samples, 1))])
    data = Batch(x, x, target * scales)
    net, solver = MLP((4, 8, 12)), solver or OscillatorChain(steps=12)
    return Problem(net, solver, loss, data, data, batch_mean=batch_mean)


def start_of(problem):
    return problem.network.init(np.random.default_rng(0))


def steps_of(problem, optimizer, number, size):
    """The parameters after some updates."""
    theta = start_of(problem)
    state = optimizer.init(theta)
    for k in range(number):
        at = problem.linearise(theta, problem.batch(k, size))
        step, state, _ = optimizer.update(at, state)
        theta = theta - step
    return theta


def close(found, expected, tolerance=1e-10):
    return np.linalg.norm(found - expected) <= tolerance * np.linalg.norm(expected)


@pytest.mark.parametrize("batch_mean", [True, False])
@pytest.mark.parametrize("optimizer", WITH_CURVATURE, ids=repr)
def test_weights_are_outputs_in_other_units(optimizer, batch_mean):
    roots = np.sqrt(WEIGHTS)
    by_hand = oscillators(
        SquaredError(0.7), ScaledOutputs(OscillatorChain(steps=12), roots), roots, batch_mean
    )
    problem = oscillators(SquaredError(0.7, weights=WEIGHTS), batch_mean=batch_mean)
    start = start_of(problem)
    for number in (1, 2):
        moved = steps_of(problem, optimizer, number, 8) - start
        expected = steps_of(by_hand, optimizer, number, 8) - start
        assert expected.any()
        assert close(moved, expected)


@pytest.mark.parametrize(
    "optimizer",
    [GaussNewton(tau=1e-3), AdaptiveHIG(reach=1e6, momentum=0.0, method="svd")],
    ids=repr,
)
def test_a_whole_weight_is_a_sample_so_many_times(optimizer):
    problem = oscillators(SquaredError(), batch_mean=False, samples=6)
    x, _, target = problem.train
    times = np.array([1, 2, 3, 1, 2, 1])
    more = Batch(*(np.repeat(array, times, axis=0) for array in problem.train))
    heavy = Batch(x, x, np.hstack([target, times[:, None]]))
    again = Problem(problem.network, problem.solver, SquaredError(), more, more, batch_mean=False)
    loss = WeightedSamples(SquaredError())
    problem = Problem(problem.network, problem.solver, loss, heavy, heavy, batch_mean=False)
    start = start_of(problem)
    moved = steps_of(problem, optimizer, 1, 6) - start
    expected = steps_of(again, optimizer, 1, times.sum()) - start
    assert expected.any()
    assert close(moved, expected, 1e-9)


class Straight(Solver):
    """y = u A, of full rank."""

    state_size, control_size, output_size = 2, 5, 5
    A = np.eye(5) + 0.3 * np.random.default_rng(1).standard_normal((5, 5))

    def solve(self, x, u):
        return u @ self.A

    def adjoint(self, x, u, y_bar):
        return y_bar @ self.A.T


def linear(loss, b, batch_mean):
    """A linear least-squares problem that has a solution."""
    rng, net, solver = np.random.default_rng(b), MLP((6, 5), "linear"), Straight()
    x, net_input = rng.standard_normal((b, 2)), rng.standard_normal((b, 6))
    y = solver.solve(x, net.forward(net.init(rng), net_input)[0])
    if isinstance(loss, WeightedSamples):
        y = np.hstack([y, rng.uniform(0.1, 9, (b, 1))])
    data = Batch(x, net_input, y)
    return Problem(net, solver, loss, data, data, batch_mean=batch_mean)


LOSSES = [
    SquaredError(),
    SquaredError(0.5),
    SquaredError(7.0, weights=[1.0, 0.1, 3.0, 20.0, 1.0]),
    WeightedSamples(SquaredError(0.3, weights=[1.0, 0.1, 3.0, 20.0, 1.0])),
    WeightedSamples(SquaredError()),
    Huber(1e9),
]


@pytest.mark.parametrize("batch_mean", [True, False])
@pytest.mark.parametrize("b", [1, 3, 17, 64])
@pytest.mark.parametrize("loss", LOSSES, ids=repr)
def test_one_step_of_gauss_newton_solves_what_is_linear(loss, b, batch_mean):
    problem = linear(loss, b, batch_mean)
    theta = start_of(problem)
    result = fit(problem, GaussNewton(lr=1.0), batch=b, steps=1, theta=theta)
    assert problem.evaluate(theta) > 0.01
    assert result.test_loss <= 1e-20 * problem.evaluate(theta)


def test_the_step_of_the_paper_is_the_half_inverse_with_kappa_minus_one():
    problem = oscillators(SquaredError())
    at = problem.linearise(start_of(problem), problem.batch(0, 8))
    paper, _, _ = GaussNewton(lr=0.4, tau=1e-4, paper=True).update(at, {})
    as_hig, _, _ = HIG(lr=0.4, tau=1e-4, kappa=-1.0).update(at, {})
    assert np.array_equal(paper, as_hig)
    whole, _, _ = GaussNewton(lr=0.4, tau=1e-4).update(at, {})
    assert close(whole, paper / (2 / 8))


@pytest.mark.parametrize("truncation", ["relative", "absolute"])
def test_tau_cuts_the_same_modes_for_one_curvature(truncation):
    problem = oscillators(SquaredError(1e-3))
    at = problem.linearise(start_of(problem), problem.batch(0, 8))
    ranks = [
        GaussNewton(tau=1e-2, truncation=truncation, paper=paper).update(at, {})[2].rank
        for paper in (True, False)
    ]
    assert ranks[0] == ranks[1] < 32


def test_a_gauss_newton_step_with_huber_is_one_of_reweighted_least_squares():
    loss = Huber(0.3, 0.8)
    problem = oscillators(loss)
    theta, batch = start_of(problem), problem.batch(0, 6)
    at = problem.linearise(theta, batch)
    J, error = at.jacobian().dense(), (at.output - batch.target).reshape(-1)
    assert 2 < (abs(error) > 0.3).sum() < 22
    roots = np.sqrt(np.where(abs(error) < 0.3, 1, 0.3 / abs(error)))
    expected = np.linalg.lstsq(roots[:, None] * J, roots * error, rcond=1e-6)[0]
    step, _, _ = GaussNewton(tau=1e-6, method="svd").update(at, {})
    assert close(step, expected, 1e-8)


def test_a_control_is_inverted_for_each_kind_of_curvature():
    """SIP solves a linear solver in one step of the control, whatever the loss weighs."""
    for loss in LOSSES:
        at = linear(loss, 7, True)
        at = at.linearise(start_of(at), at.train)
        du = inverted_control_step(at)
        assert np.allclose(Straight.A.T @ (at.control - du).T, at.batch.target[:, :5].T)


def test_what_rounding_may_hide_sample_by_sample():
    problem = oscillators(WeightedSamples(SquaredError(weights=WEIGHTS)), samples=3)
    at, rounding = linearised(problem), 0.1
    expected = rounding * at.loss
    for y, g, c in zip(at.output, at.loss_gradient, at.curvature, strict=True):
        error = rounding * abs(y).max()
        expected += error * abs(g).sum() + error**2 / 2 * c.sum()
    assert noise_of_loss(at, rounding) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("tile", [None, 3])
def test_rows_times_roots(tile):
    problem = oscillators(WeightedSamples(SquaredError(0.3, weights=WEIGHTS)), samples=8)
    at = linearised(problem)
    c = (at.batch.target[:, -1:] * WEIGHTS * 2 * 0.3 / 8).reshape(-1)
    J, g = at.jacobian().dense(), at.loss_gradient.reshape(-1)
    unit = at.unit_jacobian(tile)
    assert unit.tile == (tile or 8)
    assert np.allclose(unit.dense(), np.sqrt(c)[:, None] * J, rtol=1e-13)
    assert np.allclose(at.unit_gradient.reshape(-1), g / np.sqrt(c), rtol=1e-13)
    assert np.allclose(unit.gram(), np.sqrt(c)[:, None] * (J @ J.T) * np.sqrt(c), rtol=1e-12)
    assert at.unit_curvature == 1
    assert np.allclose(at.curvature.reshape(-1), c, rtol=1e-13)


def linearised(problem):
    """The linearisation of a problem on all its data."""
    return problem.linearise(start_of(problem), problem.train)


class Blind(SquaredError):
    """A loss that says of its outputs what it was told to say."""

    said = None

    @property
    def curvature(self):
        return self.said


def test_where_there_is_no_curvature_nothing_is_asked_for():
    loss = Blind()
    object.__setattr__(loss, "said", [2.0, 0.0, 2.0, 2.0])
    at = linearised(oscillators(loss, samples=5))
    assert at.loss_gradient[:, 1].all()
    assert not at.unit_gradient[:, 1].any()
    assert not at.unit_jacobian().dense().reshape(5, 4, -1)[:, 1].any()
    assert not at.over_roots(at.output)[:, 1].any()
    for optimizer in WITH_CURVATURE:
        step, _, _ = optimizer.update(at, optimizer.init(at.theta))
        assert np.isfinite(step).all()


def test_a_plain_number_is_left_alone():
    at = linearised(oscillators(SquaredError(0.3), samples=5))
    assert at.roots is None
    assert at.unit_gradient is at.loss_gradient
    assert at.unit_curvature == at.curvature == 2 * 0.3 / 5
    assert np.array_equal(at.unit_jacobian().dense(), at.jacobian().dense())
    assert np.array_equal(at.unit_rows(), at.solver_rows())


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ([1.0, 2.0], r"here \(4,\) or \(5, 4\); got \(2,\)"),
        (np.ones((5, 1)), r"here \(4,\) or \(5, 4\); got \(5, 1\)"),
        ([1.0, -2.0, 1.0, 1.0], "must be finite and >= 0"),
        ([1.0, np.inf, 1.0, 1.0], "must be finite and >= 0"),
        (-1.0, r"the curvature of a loss must be a finite number in \[0, inf\], got -1.0"),
        (np.nan, r"the curvature of a loss must be a finite number in \[0, inf\], got nan"),
    ],
    ids=str,
)
def test_a_curvature_that_makes_no_sense(said, message):
    loss = Blind()
    object.__setattr__(loss, "said", said)
    y = np.ones((5, 4))
    with pytest.raises(ValueError, match=message):
        curvature_of(loss, y, y)


def test_gauss_newton_does_not_divide_by_zero():
    loss = Blind()
    object.__setattr__(loss, "said", 0.0)
    at = linearised(oscillators(loss, samples=5))
    with pytest.raises(ValueError, match=r"the curvature of a loss must be .* in \(0, inf\]"):
        GaussNewton().update(at, {})


class Heights:
    """A loss without a curvature."""

    def value(self, y, target):
        return (y - target).sum(axis=1)

    def gradient(self, y, target):
        return 1 + 0 * y


def test_a_loss_that_says_no_curvature_has_none_with_weights_either():
    problem = oscillators(WeightedSamples(Heights()), samples=5)
    at = linearised(problem)
    with pytest.raises(TypeError, match="loss must have a curvature for this optimizer"):
        GaussNewton().update(at, {})
    step, _, _ = GaussNewton(paper=True, tau=1e-3).update(at, {})
    assert step.any()
    assert len(fit(problem, HIG(lr=1e-3), batch=5, steps=1, diagnostics=True).diagnostics) == 1


@pytest.mark.parametrize("loss", LOSSES, ids=repr)
def test_the_predicted_decrease_of_what_is_linear_is_the_actual_one(loss):
    result = fit(linear(loss, 9, True), HIG(lr=0.01), batch=9, steps=3, diagnostics=True)
    assert [round(row.ratio, 6) for row in result.diagnostics] == [1, 1, 1]


def with_outliers(loss):
    """A curve of which every tenth sample is far off; the test data are not."""
    rng = np.random.default_rng(5)

    def samples(n, off):
        x = rng.uniform(-1, 1, (n, 1))
        target = np.hstack([np.sin(4 * x), np.cos(3 * x), x, x * x, x])
        target[::10] += off * rng.choice([-1, 2], (len(target[::10]), 5))
        return Batch(np.hstack([x, x]), x, target)

    return Problem(MLP((1, 9, 5)), Straight(), loss, samples(256, 5.0), samples(128, 0.0))


@pytest.mark.parametrize(
    "optimizer", [LevenbergMarquardt(), AdaptiveHIG(), GaussNewton(lr=0.3, tau=1e-2)], ids=repr
)
def test_outliers_pull_less_with_huber(optimizer):
    ends = {}
    for loss in (SquaredError(), Huber(0.1)):
        problem = with_outliers(loss)
        theta = fit(problem, optimizer, batch=256, steps=60).theta
        ends[loss] = problem.evaluate(theta, loss=SquaredError())
    robust, plain = ends[Huber(0.1)], ends[SquaredError()]
    assert robust < 0.1 * plain


@pytest.mark.parametrize(
    "optimizer",
    [Adam(), HIG(lr=0.01, tau=1e-2), GaussNewton(lr=0.1, tau=1e-2), *WITH_CURVATURE[2:]],
    ids=lambda o: type(o).__name__,
)
@pytest.mark.parametrize(
    "loss", [WeightedSamples(Huber(0.2)), SquaredError(weights=WEIGHTS)], ids=repr
)
def test_a_run_with_weights_resumes_in_every_bit(optimizer, loss, tmp_path):
    problem = oscillators(loss)
    whole = fit(problem, optimizer, batch=8, steps=6)
    half = fit(problem, optimizer, batch=8, steps=3)
    save_checkpoint(tmp_path / "half.npz", half)
    rest = fit(problem, optimizer, batch=8, steps=6, resume=load_checkpoint(tmp_path / "half.npz"))
    assert np.array_equal(rest.theta, whole.theta)
    assert rest.test_loss == whole.test_loss < np.inf


def draw(rng, size):
    x = rng.random((size, 4))
    return Batch(x, x, np.hstack([x, rng.random((size, 1))]))


@pytest.mark.parametrize("optimizer", [HIG(tau=1e-3), AdaptiveHIG(), Adam(lr=0.01)], ids=repr)
def test_weights_come_with_fresh_samples(optimizer):
    loss, test = WeightedSamples(SquaredError()), draw(np.random.default_rng(1), 16)
    problem = Problem(MLP((4, 8, 12)), OscillatorChain(steps=12), loss, FreshData(draw), test)
    result = fit(problem, optimizer, batch=8, steps=30)
    assert result.test_loss < problem.evaluate(start_of(problem))


@pytest.mark.parametrize("arrays", [True, False])
def test_float32_stays_float32(arrays):
    of_numpy = Blind()
    object.__setattr__(of_numpy, "said", np.float64(2.0))
    loss = WeightedSamples(SquaredError(weights=WEIGHTS)) if arrays else of_numpy
    problem = oscillators(loss, samples=8)
    data = Batch(*(array.astype(np.float32) for array in problem.train))
    problem = Problem(problem.network, problem.solver, loss, data, data)
    theta = start_of(problem).astype(np.float32)
    at = problem.linearise(theta, data)
    assert at.unit_gradient.dtype == at.unit_rows().dtype == np.float32
    for optimizer in WITH_CURVATURE:
        step, _, _ = optimizer.update(at, optimizer.init(theta))
        assert (theta - step).dtype == np.float32


def test_every_array_stays_where_it_is(xp):
    for loss in (SquaredError(weights=WEIGHTS), Huber(), WeightedSamples(Infidelity())):
        y = xp.asarray(np.random.default_rng(0).random((3, 4)))
        wider = isinstance(loss, WeightedSamples)
        target = xp.concatenate([y, y[:, :1]], axis=1) if wider else 2 * y
        found = loss.value(y, target), loss.gradient(y, target), curvature_of(loss, y, target)
        assert all(type(array) is type(y) for array in found)


OLD = "GaussNewton(lr=1.0, tau=1e-06, kappa=-1.0, beta=0.0, truncation='relative', method='auto')"


def test_earlier_checkpoints_are_of_the_paper_and_without_weights():
    assert canonical(OLD) == canonical(describe(GaussNewton(paper=True)))
    assert canonical(OLD) != canonical(describe(GaussNewton()))
    assert describe(SquaredError()) == "SquaredError(factor=1.0)"
    assert canonical(describe(SquaredError(1, weights=[1]))) != "SquaredError(factor=1)"
    assert canonical("Mine(factor=1.0)") == canonical("Mine(factor=1.0, weights=None)")


def test_poisson_is_solved_in_one_step():
    rng, net = np.random.default_rng(0), MLP((9, 9), "linear")
    x = rng.standard_normal((20, 9))
    y = Poisson2D(3).solve(x, net.forward(net.init(rng), x)[0])
    problem = Problem(net, Poisson2D(3), SquaredError(), *[Batch(x, x, y)] * 2)
    theta = start_of(problem)
    result = fit(problem, GaussNewton(), batch=20, steps=1, theta=theta)
    assert result.test_loss <= 1e-20 * problem.evaluate(theta)
