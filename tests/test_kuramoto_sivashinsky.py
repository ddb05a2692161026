"""KuramotoSivashinsky against sums of waves, SciPy's integrator and what is known of it."""

import dataclasses

import numpy as np
import pytest
from oracles import complex_step_jacobian
from scipy.integrate import solve_ivp

from higcore import Batch, Problem, check_solver, check_stepper, dot_test, taylor_test
from higcore.losses import SquaredError
from nets import MLP
from solvers import KuramotoSivashinsky, Rollout
from solvers import kuramoto_sivashinsky as module

RINGS = [
    KuramotoSivashinsky(16, length=12.0, steps=3, intervals=2, actuators=4),
    KuramotoSivashinsky(15, length=15.0, dt=0.3, steps=1, intervals=3, actuators=2, width=0.7),
]


def sample(ring, rng, b, xp=np):
    """Smooth fields of mean 0, and controls."""
    waves = rng.standard_normal((2, b, 3)) @ sines(ring)
    u = rng.standard_normal((b, ring.control_size))
    return xp.asarray(waves[0]), xp.asarray(u)


def sines(ring):
    angle = 2 * np.pi / ring.length * ring.positions
    return np.stack([np.sin(m * angle + m**2) for m in (1, 2, 3)])


def bump(ring, k):
    """b_k, a sum over one actuator's periods of exp(-2 sin^2) written as such."""
    distance = ring.positions - k * ring.length / ring.actuators
    sine = np.sin(np.pi * distance / ring.length)
    shape = np.exp(-2 * sine**2 / (2 * np.pi * ring.width / ring.length) ** 2)
    return shape - shape.mean()


def operators(ring):
    """Matrices (n, n) of the linear part and of d/dx, as sums of cosines and of sines."""
    numbers = np.arange(ring.points) - (ring.points - 1) // 2
    k = 2 * np.pi / ring.length * numbers[:, None, None]
    phase = k * (ring.positions[:, None] - ring.positions)
    L, D = (k**2 - k**4) * np.cos(phase), -k * np.sin(phase)
    return L.mean(axis=0), D.mean(axis=0)


def rate(ring, y, control):
    """(linear part, the rest) of y_t at the points; y (n,) may be complex."""
    L, D = operators(ring)
    push = sum(control[j] * bump(ring, j) for j in range(ring.actuators))
    return L @ y, push - D @ y**2 / 2


def by_stages(ring, x, u):
    """The two stages with the slopes kept apart, each implicit equation solved as a matrix."""
    n, h, g = ring.points, ring.dt, 1 - 2**-0.5
    L, _ = operators(ring)
    y = x + 0 * u[0]
    for k in np.repeat(np.arange(ring.intervals), ring.steps):
        control = u[k * ring.actuators : (k + 1) * ring.actuators]
        explicit = [rate(ring, y, control)[1]]
        Y = np.linalg.solve(np.eye(n) - g * h * L, y + g * h * explicit[0])
        explicit.append(rate(ring, Y, control)[1])
        weights = -(2**-0.5), 1 + 2**-0.5
        known = y + h * (1 - g) * L @ Y + h * sum(map(np.multiply, weights, explicit))
        y = np.linalg.solve(np.eye(n) - g * h * L, known)
    return y


def exact(ring, x, u):
    """The same system of ordinary differential equations, integrated by SciPy."""
    span, y = ring.steps * ring.dt, x
    for k in range(ring.intervals):
        control = u[k * ring.actuators : (k + 1) * ring.actuators]

        def slope(t, y, control=control):
            return sum(rate(ring, y, control))

        y = solve_ivp(slope, (0, span), y, method="BDF", rtol=1e-9, atol=1e-10).y[:, -1]
    return y


@pytest.mark.parametrize("ring", RINGS, ids=repr)
def test_the_checks_say_all_right(ring):
    for report in (check_solver(ring, show=False), check_stepper(ring.stepper(), show=False)):
        assert report, str(report)


@pytest.mark.parametrize("ring", RINGS, ids=repr)
def test_values_and_jacobian_are_those_of_the_stages(ring, rng, xp):
    x, u = sample(ring, rng, 2)
    y, S = (a if xp is np else a.get() for a in ring.jacobian(xp.asarray(x), xp.asarray(u)))
    for i in range(2):
        assert np.abs(y[i] - by_stages(ring, x[i], u[i])).max() < 1e-12
        reference = complex_step_jacobian(lambda u, i=i: by_stages(ring, x[i], u), u[i])
        assert np.abs(S[i] - reference).max() < 1e-12 * np.abs(reference).max()


@pytest.mark.parametrize("ring", RINGS, ids=repr)
def test_derivatives_in_the_start_state(ring, rng):
    x, u = sample(ring, rng, 2)
    identity = np.broadcast_to(np.eye(ring.points), (2, ring.points, ring.points))
    x_bar, u_bar = ring.pull_both(x, u, identity)
    assert np.abs(u_bar - ring.jacobian(x, u)[1]).max() < 1e-13
    for i in range(2):
        reference = complex_step_jacobian(lambda x, i=i: by_stages(ring, x, 1 * u[i]), x[i])
        assert np.abs(x_bar[i] - reference).max() < 1e-12 * np.abs(reference).max()


def test_order_two_against_scipy(rng):
    ring = dataclasses.replace(RINGS[0], steps=1)
    x, u = sample(ring, rng, 1)
    errors = []
    for steps in (8, 16, 32, 64):
        finer = dataclasses.replace(ring, dt=1 / steps, steps=steps)
        errors.append(np.abs(finer.solve(x, u)[0] - exact(finer, x[0], u[0])).max())
    assert np.abs(np.log2(np.array(errors[:-1]) / errors[1:]) - 2).max() < 0.1
    assert errors[-1] < 1e-3


@pytest.mark.parametrize("ring", RINGS, ids=repr)
def test_dot_test_of_50_pairs(ring, rng, xp):
    x, u = sample(ring, rng, 3, xp)
    for _ in range(50):
        v = xp.asarray(rng.standard_normal(u.shape))
        w = xp.asarray(rng.standard_normal(x.shape))
        mismatch = dot_test(lambda v: ring.tangent(x, u, v), lambda w: ring.adjoint(x, u, w), v, w)
        assert mismatch < 1e-12


@pytest.mark.parametrize("ring", RINGS, ids=repr)
def test_taylor_orders(ring, rng):
    x, u = sample(ring, rng, 3)
    v = rng.standard_normal(u.shape)
    orders = taylor_test(
        lambda u: ring.solve(x, u), lambda u, d: ring.tangent(x, u, d), u, v, step=1e-2
    )
    assert all(abs(order - 2) < 0.05 for order in orders)


def test_a_small_wave_grows_as_it_should():
    """exp((k^2 - k^4) t): waves longer than 2 pi grow, the others die away."""
    ring = KuramotoSivashinsky(32, dt=0.01, steps=100, intervals=1)
    for m in (1, 2, 3, 4, 5):
        k = 2 * np.pi * m / ring.length
        wave = 1e-7 * np.cos(k * ring.positions)[None]
        grown = ring.solve(wave, np.zeros((1, ring.actuators)))
        assert np.abs(grown - np.exp(k**2 - k**4) * wave).max() < 2e-4 * np.abs(grown).max()


def test_the_mean_stays_whatever_the_actuators_do(rng):
    for ring in RINGS:
        x, u = sample(ring, rng, 3)
        states = ring.trajectory(x + 0.7, u)
        assert np.abs(states.mean(axis=2) - 0.7).max() < 1e-13


def test_what_is_shifted_or_mirrored_stays_so(rng):
    ring = RINGS[0]
    x, u = sample(ring, rng, 2)
    controls = u.reshape(2, ring.intervals, ring.actuators)
    turned = np.roll(controls, 1, axis=2).reshape(u.shape)
    y = ring.solve(x, u)
    shifted = ring.solve(np.roll(x, ring.points // ring.actuators, axis=1), turned)
    assert np.allclose(shifted, np.roll(y, ring.points // ring.actuators, axis=1), atol=1e-13)
    opposite = -np.arange(ring.points), -np.arange(ring.actuators)  # y(x) -> -y(-x)
    mirrored = ring.solve(-x[:, opposite[0]], -controls[:, :, opposite[1]].reshape(u.shape))
    assert np.allclose(mirrored, -y[:, opposite[0]], atol=1e-13)
    still = 0 * u
    assert np.allclose(
        ring.solve(np.roll(x, 3, axis=1), still), np.roll(ring.solve(x, still), 3, axis=1)
    )


def test_energy_grows_by_what_long_waves_bring_and_short_ones_take(rng):
    """d/dt mean(y^2) / 2 = mean(y_x^2) - mean(y_xx^2): y y_x brings nothing."""
    ring = KuramotoSivashinsky(64, dt=1e-3, steps=1, intervals=2)
    x = np.array([[1.0, -0.8, 0.5]]) @ sines(ring)
    states = ring.trajectory(x, np.zeros((1, ring.control_size)))[0]
    energy = (states**2).mean(axis=1) / 2
    waves = 2 * np.abs(np.fft.rfft(states[1]) / ring.points) ** 2
    k = 2 * np.pi / ring.length * np.arange(len(waves))
    assert (energy[2] - energy[0]) / 2e-3 == pytest.approx(np.sum((k**2 - k**4) * waves), rel=1e-4)


def test_unforced_it_goes_on_and_forgets_where_it_was(rng):
    """Bounded, not at rest, and neighbours part: on a ring of 22 it is chaotic."""
    ring = KuramotoSivashinsky(32, dt=0.25, steps=800, intervals=1)
    x = rng.standard_normal((1, 3)) @ sines(ring)
    states = ring.trajectory(np.concatenate([x, x + 1e-6 * sines(ring)[:1]]), np.zeros((2, 8)))
    late = states[0, 400:]
    assert 0.5 < np.sqrt((late**2).mean()) < 2
    assert np.abs(late).max() < 5
    apart = np.linalg.norm(states[1] - states[0], axis=1)
    assert apart[-1] > 100 * apart[0]


def test_samples_are_swept_in_parts_and_do_not_see_each_other(rng, monkeypatch):
    ring = RINGS[0]
    x, u = sample(ring, rng, 7)
    y, S = ring.jacobian(x, u)
    monkeypatch.setattr(module, "AT_ONCE", 2 * ring.points**2)
    assert np.allclose(ring.jacobian(x, u)[1], S, rtol=1e-13, atol=1e-15)
    alone = ring.jacobian(x[4:5], u[4:5])
    assert np.allclose(alone[0][0], y[4], rtol=1e-13, atol=1e-13)
    assert np.allclose(alone[1][0], S[4], rtol=1e-12, atol=1e-14)


def test_float32_stays_float32(rng):
    ring = RINGS[0]
    x, u = sample(ring, rng, 4)
    y, S = ring.jacobian(x.astype(np.float32), u.astype(np.float32))
    y64, S64 = ring.jacobian(x, u)
    assert y.dtype == S.dtype == np.float32
    assert np.abs(y - y64).max() < 1e-5 * np.abs(y64).max()
    assert np.abs(S - S64).max() < 1e-5 * np.abs(S64).max()


def test_the_tape_is_counted_and_examined(rng):
    ring = RINGS[0]
    x, u = sample(ring, rng, 2)
    _, tape = ring.forward(x, u)
    assert sum(array.size for array in tape) == 2 * ring.tape_size
    with pytest.raises(ValueError, match=r"march must have shape \(4, b, 16\)"):
        dataclasses.replace(ring, intervals=1).rows(tape)
    with pytest.raises(TypeError, match="tape must be what forward"):
        ring.backward(tape[0], x)
    with pytest.raises(ValueError, match=r"y_bar must have shape \(2, 16\)"):
        ring.backward(tape, u)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"points": 3}, "points must be at least 4, got 3"),
        ({"length": 0.0}, "length must be"),
        ({"dt": float("nan")}, "dt must be"),
        ({"dt": 14.0}, "dt must be"),
        ({"width": -1.0}, "width must be"),
        ({"actuators": 0}, "actuators must be"),
        ({"steps": 1.5}, "steps must be"),
        ({"intervals": 0}, "intervals must be"),
    ],
)
def test_bad_arguments(given, message):
    with pytest.raises((ValueError, TypeError), match=message):
        KuramotoSivashinsky(**given)


def test_in_a_loop_few_cotangents_go_back_step_by_step(rng, monkeypatch):
    """An interval has many steps, so A and B are made only where all |x| cotangents are asked."""
    ring = RINGS[0]
    loop = Rollout(MLP((16, 5, 4)), ring.stepper(), 3)
    x, _ = sample(ring, rng, 3)
    data = Batch(x, x, 0 * x)
    at = Problem(loop, None, SquaredError(), data, data).linearise(loop.init(rng), data)
    calls, jacobian = [], type(ring.stepper()).jacobian
    monkeypatch.setattr(
        type(ring.stepper()), "jacobian", lambda *given: calls.append(1) or jacobian(*given)
    )
    gradient = at.gradient()
    assert not calls
    J, g = at.jacobian(), at.loss_gradient
    assert np.allclose(J.dense().T @ g.reshape(-1), gradient, rtol=1e-11, atol=1e-13)
    assert len(calls) == 1
