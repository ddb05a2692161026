"""A network inside a time loop against a march written out in complex numbers."""

import tracemalloc

import numpy as np
import pytest
import strict_cupy
from oracles import complex_step_jacobian, mlp, oscillators

from higcore import (
    HIG,
    Adam,
    AdaptiveHIG,
    Batch,
    GaussNewton,
    LevenbergMarquardt,
    Problem,
    ScaleInvariantPhysics,
    check_network,
    dot_test,
    fit,
    load_checkpoint,
    memory_estimate,
    save_checkpoint,
    taylor_test,
)
from higcore.backend import to_host
from higcore.losses import SquaredError
from nets import MLP
from solvers import AtTimes, OscillatorChain, QuantumDipole, Rollout, RungeKutta4, Seen, Stepper
from solvers import rollout as rollout_module
from solvers import stepper as stepper_module

STEPS, B = 5, 3


def pendulum(x, u):
    xp = strict_cupy_or_numpy(x)
    return xp.stack([x[:, 1], u[:, 0] - xp.sin(x[:, 0])], axis=1)


def pendulum_tangent(x, u, dx, du):
    xp = strict_cupy_or_numpy(x)
    return xp.stack([dx[:, 1], du[:, 0] - xp.cos(x[:, 0]) * dx[:, 0]], axis=1)


def strict_cupy_or_numpy(x):
    from higcore.backend import module_of

    return np if x.dtype.kind == "c" else module_of(x)


class ByTangent(Stepper):
    """A step of three states and two controls, with its tangent."""

    state_size, control_size = 3, 2

    def step(self, x, u):
        turned = x[:, [1, 2, 0]]
        return x + 0.3 * turned * x + 0.2 * u[:, [0, 1, 0]] * x + 0.1 * u[:, [1, 1, 0]]

    def tangent(self, x, u, dx, du):
        turned, dturned = x[:, [1, 2, 0]], dx[:, [1, 2, 0]]
        return (
            dx + 0.3 * (turned * dx + dturned * x) + 0.1 * du[:, [1, 1, 0]]
            + 0.2 * (u[:, [0, 1, 0]] * dx + du[:, [0, 1, 0]] * x)
        )  # fmt: skip


class ByJacobian(ByTangent):
    """The same, of which the whole derivative is known."""

    tangent = Stepper.tangent

    def jacobian(self, x, u):
        along = [ByTangent.tangent(self, x, u, *d) for d in self._directions(x, u)]
        columns = np.stack(along, axis=2)
        return columns[:, :, :3], columns[:, :, 3:]

    def _directions(self, x, u):
        for k in range(5):
            units = np.tile(np.eye(5, dtype=x.dtype)[k], (len(x), 1))
            yield units[:, :3], units[:, 3:]


class ByAdjoint(ByTangent):
    """The same, with the adjoint alone."""

    tangent = Stepper.tangent

    def adjoint(self, x, u, next_bar):
        x_bar = next_bar * (1 + 0.3 * x[:, [1, 2, 0]] + 0.2 * u[:, [0, 1, 0]])
        x_bar += (0.3 * next_bar * x)[:, [2, 0, 1]]
        weighted = 0.2 * next_bar * x
        first = weighted[:, 0] + weighted[:, 2] + 0.1 * next_bar[:, 2]
        second = weighted[:, 1] + 0.1 * (next_bar[:, 0] + next_bar[:, 1])
        return x_bar, np.stack([first, second], axis=1)


def three_states(stepper):
    return Rollout(MLP((3, 4, 2)), stepper, STEPS)


def seen_and_observed():
    stepper = RungeKutta4(pendulum, pendulum_tangent, 2, 1, 0.3)
    sees = Seen((1, 0, 1), time=True, given=2)
    return Rollout(MLP((6, 5, 4, 1)), stepper, STEPS, sees=sees, observe=AtTimes((2, -1, 0), (1,)))


LOOPS = {
    "pendulum": lambda: Rollout(
        MLP((2, 4, 1)), RungeKutta4(pendulum, pendulum_tangent, 2, 1, 0.3), STEPS
    ),
    "sight and times": seen_and_observed,
    "bounded step of arrays, tangent": lambda: three_states(ByTangent()),
    "jacobian": lambda: three_states(ByJacobian()),
    "adjoint": lambda: three_states(ByAdjoint()),
    "oscillators": lambda: Rollout(
        MLP((4, 5, 1)), OscillatorChain(dt=0.3).stepper(), STEPS, observe=AtTimes((1, 3, 5))
    ),
    "controls in y": lambda: Rollout(MLP((3, 4, 2)), ByTangent(), STEPS, controls=True),
    "dipole": lambda: Rollout(MLP((8, 4, 1)), QuantumDipole(points=6, dt=0.2).stepper(), STEPS),
}


@pytest.fixture(params=LOOPS)
def loop(request):
    return LOOPS[request.param]()


def draw(loop, rng, b=B):
    x = 0.5 * rng.standard_normal((b, loop.state_size))
    given = 0.5 * rng.standard_normal((b, loop.input_size))
    data = Batch(x, given, rng.standard_normal((b, loop.output_size)))
    return data, 0.5 * rng.standard_normal(loop.size)


def problem_of(loop, data):
    return Problem(loop, None, SquaredError(), data, data)


def linearised(loop, rng):
    data, theta = draw(loop, rng)
    return problem_of(loop, data).linearise(theta, data)


def written_out(loop, theta, x, given):
    """The states of all steps of one sample (n,), for real or complex theta."""
    states, controls, sees = [x + 0 * theta[0]], [], loop.sees
    for s in range(loop.steps):
        x = states[-1]
        z = [x[list(sees.state)] if sees.state else x, [s / loop.steps] * sees.time]
        z = np.concatenate([*z, given[: sees.given]])
        u = mlp(theta, z[None], loop.network.sizes, "tanh")[0]
        controls.append(u)
        states.append(next_state(loop.stepper, x, u))
    return np.array(states), np.array(controls)


def next_state(stepper, x, u):
    solver = getattr(stepper, "solver", None)
    if isinstance(solver, OscillatorChain):
        return oscillators(x, u, solver)
    if isinstance(solver, QuantumDipole):
        return crank_nicolson(solver, x, u[0])
    return stepper.step(x[None], u[None])[0]


def crank_nicolson(dipole, x, u):
    """One step as a linear system for real and imaginary parts, where u may be complex."""
    n, half = dipole.interior, dipole.dt / 2
    laplacian = (np.eye(n, k=1) - 2 * np.eye(n) + np.eye(n, k=-1)) / dipole.spacing**2
    H = half * (-laplacian + u * np.diag(dipole.positions))
    one = np.eye(n)
    forward, back = np.block([[one, H], [-H, one]]), np.block([[one, -H], [H, one]])
    return np.linalg.solve(back, forward @ x)


def observed(loop, states, controls):
    times, components = loop.observe.times, loop.observe.components
    chosen = states[list(times)]
    chosen = (chosen if components is None else chosen[:, list(components)]).ravel()
    return np.concatenate([chosen, controls.ravel()]) if loop.controls else chosen


def test_march_and_jacobian_against_complex_numbers(loop, rng):
    at = linearised(loop, rng)
    theta, (x, given, _) = at.theta, at.batch
    for i in range(B):

        def y(theta, i=i):
            return observed(loop, *written_out(loop, theta, x[i], given[i]))

        assert abs(at.output[i] - y(theta)).max() < 1e-13
        rows = slice(i * loop.output_size, (i + 1) * loop.output_size)
        J, expected = at.jacobian().dense()[rows], complex_step_jacobian(y, theta)
        assert abs(J - expected).max() < 1e-11 * abs(expected).max()


def test_products_and_gram_are_those_of_the_dense_matrix(loop, rng):
    at = linearised(loop, rng)
    J, v = at.jacobian(), rng.standard_normal(loop.size)
    w, D = rng.standard_normal(J.shape[0]), J.dense()
    for seen, expected in (
        (at.tangent(v).ravel(), D @ v),
        (J.matvec(v), D @ v),
        (J.rmatvec(w), D.T @ w),
        (loop.backward(at.theta, at._tape, w.reshape(B, -1)), D.T @ w),
        (at.gradient(), D.T @ at.loss_gradient.ravel()),
        (J.gram(), D @ D.T),
        (J.in_tiles(2).gram(), D @ D.T),
        (J.in_tiles(1).matvec(v), D @ v),
        (J.in_tiles(1).rmatvec(w), D.T @ w),
        (J.gram_of_parameters(), D.T @ D),
        (J.row_norms_squared(), (D * D).sum(axis=1)),
    ):
        assert abs(seen - expected).max() < 1e-11 * abs(expected).max()


def test_dot_and_taylor(loop, rng):
    at = linearised(loop, rng)
    v, w = rng.standard_normal(loop.size), rng.standard_normal(at.output.shape)
    pull = lambda w: loop.backward(at.theta, at._tape, w)  # noqa: E731
    assert dot_test(at.tangent, pull, v, w) < 1e-11
    orders = taylor_test(
        lambda theta: loop.forward(theta, at.batch)[0],
        lambda theta, d: at.at(theta).tangent(d),
        at.theta,
        v / np.linalg.norm(v),
        step=1e-2,
    )
    assert min(orders) > 1.9


def test_step_by_step_is_the_closed_loop(loop, rng, monkeypatch):
    at = linearised(loop, rng)
    expected = at.jacobian().dense(), at.gradient()
    monkeypatch.setattr(rollout_module, "LARGEST_CLOSED", 0)
    gradient = at.at(at.theta).gradient()  # of one cotangent a sample
    assert abs(gradient - expected[1]).max() < 1e-12 * abs(expected[1]).max()
    one = at._tape, rng.standard_normal((B, 1, loop.output_size))
    by_step = loop.rows(at.theta, *one)
    monkeypatch.undo()
    for a, b in zip(by_step, loop.rows(at.theta, *one), strict=True):
        assert abs(a.explicit() - b.explicit()).max() < 1e-12 * abs(b.explicit()).max()


def test_segments_of_samples_make_no_difference(loop, rng, monkeypatch):
    at = linearised(loop, rng)
    v = rng.standard_normal(loop.size)
    gradient, along = at.gradient(), at.tangent(v)
    monkeypatch.setattr(rollout_module, "APPLICATIONS", 2 * STEPS)
    assert np.allclose(at.gradient(), gradient)
    assert np.allclose(at.tangent(v), along)


OPTIMIZERS = [
    HIG(0.02),
    GaussNewton(0.02, 1e-2),
    LevenbergMarquardt(),
    AdaptiveHIG(),
    Adam(lr=0.01),
]


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda o: type(o).__name__)
def test_every_optimizer_trains_and_resumes(loop, optimizer, rng, tmp_path):
    data, theta = draw(loop, rng, 12)
    problem, options = problem_of(loop, data), {"batch": 12, "theta": theta}
    whole = fit(problem, optimizer, steps=12, diagnostics=True, **options)
    assert whole.status == "budget"
    assert whole.best_test_loss < whole.history[0].test_loss
    assert np.isfinite([row.ratio for row in whole.diagnostics]).all()
    save_checkpoint(tmp_path / "half.npz", fit(problem, optimizer, steps=6, **options))
    rest = fit(
        problem, optimizer, steps=12, batch=12, resume=load_checkpoint(tmp_path / "half.npz")
    )
    assert np.array_equal(rest.theta, whole.theta)


def test_a_small_step_does_what_is_predicted(rng):
    loop = LOOPS["sight and times"]()
    data, theta = draw(loop, rng, 12)
    result = fit(
        problem_of(loop, data), HIG(lr=1e-4), steps=3, batch=12, theta=theta, diagnostics=True
    )
    assert np.allclose([row.ratio for row in result.diagnostics], 1, atol=1e-3)


def test_a_network_inside_is_not_one_before(rng):
    data, theta = draw(LOOPS["pendulum"](), rng)
    problem = problem_of(LOOPS["pendulum"](), data)
    with pytest.raises(TypeError, match="Rollout has its network inside"):
        ScaleInvariantPhysics().update(problem.linearise(theta, data), {})


@pytest.mark.parametrize("name", [n for n in LOOPS if n not in ("jacobian", "adjoint")])
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda o: type(o).__name__)
def test_on_a_device(name, optimizer, rng, monkeypatch):
    loop = LOOPS[name]()
    data, _ = draw(loop, rng, 8)
    expected = fit(problem_of(loop, data), optimizer, batch=4, steps=3).theta
    with strict_cupy.installed(monkeypatch):
        result = fit(problem_of(loop, data).on("gpu"), optimizer, batch=4, steps=3)
        assert result.status == "budget", result.message
        theta = to_host(result.theta)
    assert np.allclose(theta, expected, rtol=1e-6, atol=1e-8)


def test_float32_stays_float32(loop, rng):
    data, theta = draw(loop, rng)
    data = Batch(*(array.astype(np.float32) for array in data))
    at = problem_of(loop, data).linearise(theta.astype(np.float32), data)
    assert {a.dtype for a in (at.output, at.gradient(), at.jacobian().dense())} == {at.output.dtype}
    assert at.output.dtype == np.float32


def test_predictions_and_trajectories(loop, rng):
    data, theta = draw(loop, rng)
    u, y = problem_of(loop, data).predict(theta, data)
    assert u.shape == (B, STEPS, loop.stepper.control_size)
    states = loop.trajectory(theta, data)
    assert states.shape == (B, STEPS + 1, loop.state_size)
    assert np.array_equal(
        np.stack([observed(loop, *pair) for pair in zip(states, u, strict=True)]), y
    )


def test_memory_is_said_before(rng):
    short, long = (
        Rollout(MLP((2, 4, 1)), RungeKutta4(pendulum, pendulum_tangent, 2, 1, 0.3), steps)
        for steps in (10, 1000)
    )
    data, _ = draw(short, rng)
    parts = [memory_estimate(problem_of(loop, data), 3).parts for loop in (short, long)]
    assert parts[1]["row factors"] > 50 * parts[0]["row factors"]
    assert parts[1]["solver"] == 100 * parts[0]["solver"]


def test_tiles_where_row_factors_do_not_fit(rng):
    loop = LOOPS["oscillators"]()
    data, theta = draw(loop, rng, 12)
    problem = problem_of(loop, data)
    limit = memory_estimate(problem, 12, tile=3).total * 1.0
    whole, tiled = (
        fit(problem, HIG(0.01, 1e-4, memory_limit=m), batch=12, steps=2, theta=theta).theta
        for m in (None, limit)
    )
    assert np.allclose(whole, tiled, rtol=1e-8, atol=1e-10)


def wide(n=80, **options):
    """A state larger than what C is formed for, with its own control for each component."""
    stepper = RungeKutta4(lambda x, u: u - x**3, lambda x, u, dx, du: du - 3 * x**2 * dx, n, n, 0.1)
    return Rollout(MLP((n, 3, n)), stepper, 6, observe=AtTimes((-1,), (0, 1)), **options)


@pytest.mark.parametrize("controls", [False, True])
def test_a_large_state_goes_without_closed_loops(controls, rng, monkeypatch):
    loop = wide(controls=controls)
    data, theta = draw(loop, rng)
    at, v = problem_of(loop, data).linearise(theta, data), rng.standard_normal(loop.size)
    along, gradient = at.tangent(v), at.gradient()
    monkeypatch.setattr(rollout_module, "LARGEST_CLOSED", 100)
    again = at.at(theta)
    assert np.allclose(along, again.tangent(v), rtol=1e-11, atol=1e-12)
    assert np.allclose(gradient, again.gradient(), rtol=1e-11, atol=1e-12)


def test_the_estimate_bounds_what_a_step_takes(rng):
    for loop in (wide(), wide(20), LOOPS["oscillators"]()):
        data, theta = draw(loop, rng, 64)
        problem = problem_of(loop, data)
        fit(problem, HIG(0.01), batch=64, steps=1, theta=theta)
        tracemalloc.start()
        fit(problem, HIG(0.01), batch=64, steps=1, theta=theta)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        estimate = memory_estimate(problem, 64).total
        assert peak / 4 < estimate + 2e6, (peak, estimate)


def test_derivatives_of_steps_come_in_slices(loop, rng, monkeypatch):
    at = linearised(loop, rng)
    expected = at.jacobian().dense()
    monkeypatch.setattr(stepper_module, "AT_ONCE", 40)
    assert np.allclose(at.at(at.theta).jacobian().dense(), expected, rtol=1e-12, atol=1e-14)


def test_sip_is_refused_before_any_work(rng):
    data, _ = draw(LOOPS["pendulum"](), rng)
    with pytest.raises(TypeError, match="ScaleInvariantPhysics inverts a solver"):
        fit(problem_of(LOOPS["pendulum"](), data), ScaleInvariantPhysics(), batch=3, steps=1)


def test_a_rollout_has_its_physics_inside(rng):
    loop = LOOPS["oscillators"]()
    data, _ = draw(loop, rng)
    with pytest.raises(TypeError, match="network is a Rollout, which has its physics inside"):
        Problem(loop, OscillatorChain(steps=loop.output_size), SquaredError(), data, data)
    with pytest.raises(TypeError, match="takes a Batch: check its network by check_network"):
        check_network(loop)


def test_a_step_in_another_dtype_is_named(rng):
    class Doubles(ByTangent):
        def step(self, x, u):
            return super().step(x, u).astype(np.float64)

    data, theta = draw(three_states(ByTangent()), rng)
    single = Batch(*(array.astype(np.float32) for array in data))
    problem = problem_of(three_states(Doubles()), single)
    with pytest.raises(
        TypeError, match=r"x is float32, x_next = step\(x, u\) of the stepper is float64"
    ):
        problem.linearise(theta.astype(np.float32), single)


MISTAKES = {
    "state must be a list of integers": lambda: Seen(3),
    "times must be a list of integers": lambda: AtTimes(()),
    "sees must have given, width": lambda: Rollout(MLP((3, 2)), ByTangent(), 3, sees=(0, 1)),
    "steps must be at least 1": lambda: Rollout(MLP((3, 2)), ByTangent(), 0),
    "network takes 4 inputs but sees 3": lambda: Rollout(MLP((4, 2)), ByTangent(), 3),
    "network has 1 outputs but the stepper takes 2": lambda: Rollout(MLP((3, 1)), ByTangent(), 3),
    "state must list components below 3": lambda: Rollout(
        MLP((1, 2)), ByTangent(), 3, sees=Seen((3,))
    ),
    "times must lie below 4": lambda: Rollout(MLP((3, 2)), ByTangent(), 3, observe=AtTimes((4,))),
    "components must lie below 3": lambda: Rollout(
        MLP((3, 2)), ByTangent(), 3, observe=AtTimes((1,), (3,))
    ),
    "lacks size, input_size": lambda: Rollout(object(), ByTangent(), 3),
    "lacks state_size": lambda: Rollout(MLP((3, 2)), object(), 3),
    "given must be at least 0": lambda: Seen(given=-1),
    "time must be True or False": lambda: Seen(time=1),
}


@pytest.mark.parametrize("sentence", MISTAKES)
def test_mistakes_are_named(sentence):
    with pytest.raises((TypeError, ValueError), match=sentence):
        MISTAKES[sentence]()


def test_a_stepper_must_give_a_derivative():
    with pytest.raises(TypeError, match="must give a derivative beside step"):
        type("Half", (Stepper,), {"step": lambda self, x, u: x})
    with pytest.raises(TypeError, match="must give step"):
        type("None_", (Stepper,), {"jacobian": lambda self, x, u: (x, u)})


def test_a_problem_without_a_solver_takes_a_model():
    data = Batch(*[np.ones((2, 2))] * 3)
    with pytest.raises(TypeError, match=r"lacks state_size, predict, jacobian .*or give a solver"):
        Problem(MLP((2, 2)), None, SquaredError(), data, data)


def test_a_step_that_raises_is_blamed(rng):
    class Fails(ByTangent):
        def step(self, x, u):
            raise ArithmeticError("too cold")

    data, theta = draw(three_states(ByTangent()), rng)
    result = fit(problem_of(three_states(Fails()), data), HIG(), batch=3, steps=2, theta=theta)
    assert "the stepper raised ArithmeticError after 0 steps: too cold" in result.message


@pytest.mark.parametrize("kind", [ByTangent, ByJacobian, ByAdjoint])
def test_derivatives_of_a_stepper_follow_from_one(kind, rng):
    stepper, x, u = kind(), rng.standard_normal((4, 3)), rng.standard_normal((4, 2))
    dx, du, w = (rng.standard_normal((4, k)) for k in (3, 2, 3))
    A, B = stepper.jacobian(x, u)
    for i in range(4):

        def joint(v):
            return stepper.step(v[None, :3], v[None, 3:])

        expected = complex_step_jacobian(joint, np.concatenate([x[i], u[i]]))
        assert np.allclose(np.concatenate([A[i], B[i]], axis=1), expected, atol=1e-14)
    along = np.einsum("ijk,ik->ij", A, dx) + np.einsum("ijk,ik->ij", B, du)
    assert np.allclose(stepper.tangent(x, u, dx, du), along, atol=1e-14)
    x_bar, u_bar = stepper.adjoint(x, u, w)
    assert np.allclose(x_bar, np.einsum("ij,ijk->ik", w, A), atol=1e-14)
    assert np.allclose(u_bar, np.einsum("ij,ijk->ik", w, B), atol=1e-14)


def test_runge_kutta_is_the_classical_one():
    """On x' = a x + u it is the series of the exponential up to h^4."""
    a, h = -0.7, 0.3
    stepper = RungeKutta4(
        lambda x, u: a * x + u, lambda x, u, dx, du: a * dx + du, state_size=1, control_size=1, dt=h
    )
    z = a * h
    growth = 1 + z + z**2 / 2 + z**3 / 6 + z**4 / 24
    pushed = h * (1 + z / 2 + z**2 / 6 + z**3 / 24)
    x, u = np.array([[1.3]]), np.array([[0.4]])
    assert np.allclose(stepper.step(x, u), growth * x + pushed * u, rtol=1e-15)
    A, B = stepper.jacobian(x, u)
    assert np.allclose((A[0, 0, 0], B[0, 0, 0]), (growth, pushed), rtol=1e-14)
