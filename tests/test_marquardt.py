"""Levenberg-Marquardt: what may change its damping, and what must not."""

import dataclasses
import tracemalloc

import numpy as np
import pytest

from bench.experiments import EXPERIMENTS
from higcore import Batch, GaussNewton, LevenbergMarquardt, Problem, fit
from higcore.losses import Infidelity, SquaredError
from nets import MLP
from solvers import OscillatorChain, Poisson2D, QuantumDipole

B = 16
STATES = [{"damping": 0.0, "growth": 2.0}, {"damping": 0.3, "growth": 4.0}]


def start_of(problem, dtype=float):
    return problem.network.init(np.random.default_rng([0, 1]), dtype)


def oscillators(solved=0, dtype=float):
    """Four batches, of which the first ``solved`` are at the parameters that `fit` begins with."""
    rng, chain, net = np.random.default_rng(3), OscillatorChain(steps=12), MLP((4, 8, 12))
    x, target = rng.random((2, 4 * B, 4)).astype(dtype)
    theta = net.init(np.random.default_rng([0, 1]), dtype)
    target[: solved * B] = chain.solve(x, net.forward(theta, x)[0])[: solved * B]
    test = Batch(x[B:], x[B:], target[B:])
    return Problem(net, chain, SquaredError(), Batch(x, x, target), test)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_batch_that_is_solved_already_does_not_stop_the_others(dtype):
    result = fit(oscillators(solved=1, dtype=dtype), LevenbergMarquardt(), batch=B, epochs=3)
    without = fit(oscillators(dtype=dtype), LevenbergMarquardt(), batch=B, epochs=3)
    losses, others = ([row.test_loss for row in r.history] for r in (result, without))
    assert losses[1] < 0.3 * losses[0]
    assert min(losses) < 2 * min(others)
    assert result.state.optimizer["damping"] < 1


def at_start(problem, batch=0):
    theta = start_of(problem, problem.sample.x.dtype)
    return problem.linearise(theta, problem.batch(batch, B))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("state", STATES)
def test_a_loss_of_zero(state, dtype):
    """The same batch size as here: the last bits of y depend on it."""
    problem = oscillators(dtype=dtype)
    at = at_start(problem)
    data = dataclasses.replace(problem.train[:B], target=problem.predict(at.theta, at.batch)[1])
    at = problem.linearise(at.theta, data)
    assert at.loss == 0
    step, found, _ = LevenbergMarquardt().update(at, state)
    assert not step.any()
    assert found == state


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("state", STATES)
def test_a_batch_solved_to_rounding(state, dtype):
    problem = oscillators(dtype=dtype)
    at = at_start(problem)
    y = problem.predict(at.theta, at.batch)[1]
    noise = 10 * np.finfo(dtype).eps * np.random.default_rng(0).choice([-1, 0, 1], y.shape)
    data = dataclasses.replace(problem.train[:B], target=y * (1 + noise).astype(dtype))
    _, found, _ = LevenbergMarquardt().update(problem.linearise(at.theta, data), state)
    assert found == state


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_an_infidelity_at_rounding(dtype):
    """1 - 1 is known to eps, not to eps times itself."""
    dipole, net = QuantumDipole(6, 8), MLP((8, 8))
    x = np.tile(dipole.eigenstate(1), (B, 1)).astype(dtype)
    theta = start_of(Problem(net, dipole, Infidelity(), *[Batch(x, x, x)] * 2), dtype)
    y = dipole.solve(x, net.forward(theta, x)[0])
    y += np.random.default_rng(0).standard_normal(y.shape).astype(dtype) * 3 * np.finfo(dtype).eps
    problem = Problem(net, dipole, Infidelity(), *[Batch(x, x, y)] * 2)
    for state in STATES:
        _, found, _ = LevenbergMarquardt().update(problem.linearise(theta, problem.train), state)
        assert found == state


class Offset(SquaredError):
    """A loss whose own size hides what it falls by."""

    def value(self, y, target):
        return super().value(y, target) + 1e16


@pytest.mark.parametrize("state", STATES)
def test_a_large_constant_in_the_loss(state):
    at = at_start(dataclasses.replace(oscillators(), loss=Offset()))
    _, found, _ = LevenbergMarquardt().update(at, state)
    assert found == state


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("damping", [0.0, 1e-9, 1e-3, 1.0])
def test_a_loss_that_is_at_its_minimum_but_not_zero(damping, dtype, rng):
    x, target = rng.standard_normal((2, 8 * B, 9)).astype(dtype)
    data = Batch(x, x, target)
    problem = Problem(MLP((9, 9), "linear"), Poisson2D(3), SquaredError(), data, data)
    # A linear problem with more rows than parameters: Gauss-Newton is there at once.
    theta = fit(problem, GaussNewton(), batch=8 * B, steps=3).theta
    at, state = problem.linearise(theta, data), {"damping": damping, "growth": 2.0}
    assert at.loss > 1
    step, found, _ = LevenbergMarquardt().update(at, state)
    assert found == state
    assert np.linalg.norm(step) <= 1e-3 * np.linalg.norm(theta)


def worse(loss):
    """What stands for the linearisation at a trial point."""
    return lambda theta: dataclasses.make_dataclass("Worse", ["loss", "finite"])(loss, True)


@pytest.mark.parametrize("tries", [10, 11, 30])
@pytest.mark.parametrize("damping", [0.0, 1e-3, 1e5])
def test_a_damping_that_does_not_help_however_large_stays_as_it_was(damping, tries):
    at, state = at_start(oscillators()), {"damping": damping, "growth": 2.0}
    at.at = worse(1e9)
    step, found, _ = LevenbergMarquardt(tries=tries).update(at, state)
    assert not step.any()
    assert found == state


class Fragile:
    """A part that raises where ``beyond`` its arguments; all else is that of the part inside."""

    def __init__(self, part, name, beyond, error):
        self.part, self.name, self.beyond, self.error = part, name, beyond, error

    def __getattr__(self, name):
        whole = getattr(self.part, name)
        if name != self.name:
            return whole

        def fragile(*args):
            if self.beyond(*args):
                raise self.error("out of range")
            return whole(*args)

        return fragile


ERRORS = [np.linalg.LinAlgError, FloatingPointError, ValueError, RuntimeError, ZeroDivisionError]
ERRORS += [AssertionError, RecursionError]


def fragile(place, error):
    """The oscillators, linearised where all is well; away from there, a part fails."""
    problem = oscillators()
    theta = start_of(problem)
    u, y = problem.predict(theta, problem.train[:B])
    name, part = {
        "network": ("forward", lambda p, x: np.abs(p - theta).max() > 0.02),
        "solver": ("forward", lambda x, u_there: np.abs(u_there - u).max() > 0.05),
        "loss": ("value", lambda y_there, target: np.abs(y_there - y).max() > 0.05),
    }[place]
    broken = {place: Fragile(getattr(problem, place), name, part, error)}
    return dataclasses.replace(problem, **broken).linearise(theta, problem.train[:B])


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("place", ["network", "solver", "loss"])
def test_a_trial_that_raises_is_a_step_too_long(place, error, caplog):
    at, state = fragile(place, error), {"damping": 0.0, "growth": 2.0}
    with caplog.at_level("INFO", "higcore"):
        step, found, _ = LevenbergMarquardt().update(at, state)
    assert at.at(at.theta - step).loss < at.loss
    assert f"a step was too long: {error.__name__}: out of range" in caplog.text
    whole = at_start(oscillators())
    _, usual, _ = LevenbergMarquardt().update(whole, state)
    assert found["damping"] > usual["damping"]


def test_a_trial_that_raises_is_as_good_as_an_infinite_loss():
    state = {"damping": 1e-3, "growth": 2.0}
    raises, infinite = fragile("loss", ValueError), at_start(oscillators())
    honest = infinite.at

    def at(theta):
        there = honest(theta)
        if np.abs(there.output - infinite.output).max() > 0.05:
            return dataclasses.make_dataclass("Infinite", ["loss", "finite"])(np.inf, False)
        return there

    infinite.at = at
    steps = [LevenbergMarquardt().update(place, state) for place in (raises, infinite)]
    assert np.array_equal(steps[0][0], steps[1][0])
    assert steps[0][1] == steps[1][1]


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt, SystemExit])
def test_a_trial_does_not_swallow_what_is_not_about_the_step(error):
    with pytest.raises(error):
        LevenbergMarquardt().update(fragile("solver", error), {"damping": 0.0, "growth": 2.0})


def test_parameters_at_which_everything_raises_are_no_trial():
    problem = oscillators()
    broken = Fragile(problem.solver, "forward", lambda x, u: True, ValueError)
    problem = dataclasses.replace(problem, solver=broken)
    run = fit(problem, LevenbergMarquardt(), batch=B, steps=1)
    assert run.status == "raised"
    assert "the solver raised ValueError after 0 steps: out of range" in run.message


def test_a_damping_grows_with_the_tries_it_had():
    at, state = at_start(oscillators()), {"damping": 1.0, "growth": 2.0}
    at.at = worse(1e9)
    _, found, _ = LevenbergMarquardt(tries=3).update(at, state)
    assert found == {"damping": 64.0, "growth": 2.0, "exponent": 0}


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_damping_that_is_far_too_large_comes_down(dtype):
    """Of another batch, say. Steps that rounding hides would leave it there for ever."""
    problem = oscillators(dtype=dtype)
    at, state = at_start(problem), {"damping": 1e30, "growth": 2.0}
    dampings = []
    for _ in range(60):
        step, state, _ = LevenbergMarquardt().update(at, state)
        at = at.at(at.theta - step)
        dampings.append(state["damping"])
    assert dampings[-1] < 10
    assert at.loss < 0.5 * at_start(problem).loss


def test_progress_that_rounding_hides_is_made_without_a_word_on_damping():
    at, state = at_start(oscillators()), {"damping": 0.3, "growth": 2.0}
    at.output = 1e15 * at.output  # of which rounding would leave nothing
    step, found, _ = LevenbergMarquardt().update(at, state)
    assert step.any()
    assert found == state


@pytest.mark.parametrize(("hidden", "b"), [(8, 4), (2, 32)])  # fewer rows than parameters, and more
@pytest.mark.parametrize("relative", [1e-2, 1.0])
def test_a_step_is_the_definition(relative, hidden, b):
    problem = dataclasses.replace(oscillators(), network=MLP((4, hidden, 12)))
    at = problem.linearise(start_of(problem), problem.batch(0, b))
    J, g, h = at.jacobian().dense(), at.loss_gradient.reshape(-1), at.curvature
    assert (len(J) > J.shape[1]) == (b == 32)
    K = h * J @ J.T
    damping = relative * K.diagonal().max()
    for _ in range(10):
        expected = J.T @ np.linalg.solve(K + damping * np.eye(len(K)), g)
        if at.at(at.theta - expected).loss < at.loss:
            break
        damping *= 2  # once; the next factors are 4, 8, ...
    step, _, _ = LevenbergMarquardt(damping=damping / K.diagonal().max()).update(at, STATES[0])
    assert np.linalg.norm(step - expected) < 1e-10 * np.linalg.norm(expected)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("tile", [None, 3])
@pytest.mark.parametrize("name", ["oscillators", "dipole-cnn", "toy"])
def test_the_largest_row_is_the_largest_of_the_diagonal(name, tile, dtype):
    problem = EXPERIMENTS[name].problem(dtype=dtype)
    at = problem.linearise(start_of(problem, dtype), problem.batch(0, 7))
    J = at.jacobian(tile)
    digits = 1e-12 if dtype is np.float64 else 1e-6  # K of explicit rows, which are float32
    assert J.row_norms_squared() == pytest.approx(J.gram().diagonal(), rel=digits)


def test_many_rows_of_few_parameters_make_no_matrix_of_the_rows():
    problem, optimizer = EXPERIMENTS["toy"].problem(), LevenbergMarquardt()
    at = problem.linearise(start_of(problem), problem.batch(0, 1024))
    optimizer.update(at, optimizer.init(at.theta))
    tracemalloc.start()
    optimizer.update(at, optimizer.init(at.theta))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * at.output.size**2 / 10


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_tiles_of_row_factors_give_the_same_step(dtype, monkeypatch):
    at = at_start(oscillators(dtype=dtype))
    whole, state, _ = LevenbergMarquardt().update(at, STATES[1])
    monkeypatch.setattr("higcore.optimizers.memory.fitting_tile", lambda *args, **options: 3)
    tiled, same, _ = LevenbergMarquardt().update(at, STATES[1])
    assert np.allclose(tiled, whole, rtol=1e-3 if dtype is np.float32 else 1e-9)
    assert same["damping"] == pytest.approx(state["damping"], rel=1e-3)
