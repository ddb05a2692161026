"""The compiled march of a Rollout is the march in array code, and both are complex numbers'."""

import functools
import math
import pickle
import subprocess
import sys
import textwrap
import types
from pathlib import Path

import numba
import numpy as np
import pytest
import strict_cupy
from oracles import complex_step_jacobian, mlp, oscillators

from higcore import HIG, Batch, Problem, check_stepper, dot_test, fit, taylor_test
from higcore.backend import to_host
from higcore.device import threads
from higcore.kernels import RangeKernel, no_scratch, uncompiled
from higcore.losses import SquaredError
from nets import MLP, Network
from nets import scalar as scalar_networks
from nets.layers import Dense
from solvers import AtTimes, OscillatorChain, Rollout, RungeKutta4, ScalarStepper, Seen
from solvers import rollout as rollout_module

STEPS = 5


def rate(x, u, out):
    out[0] = x[1]
    out[1] = u[0] - math.sin(x[0])


def rate_tangent(x, u, dx, du, out):
    out[0] = dx[1]
    out[1] = du[0] - math.cos(x[0]) * dx[0]


def next_state(x, u, out):
    out[0] = x[0] + 0.3 * x[1] * x[0] + 0.1 * u[1]
    out[1] = x[1] - 0.2 * u[0] * x[2] * x[1]
    out[2] = 0.9 * x[2] + 0.2 * u[0] * u[1]


def next_tangent(x, u, dx, du, out):
    out[0] = dx[0] + 0.3 * (dx[1] * x[0] + x[1] * dx[0]) + 0.1 * du[1]
    out[1] = dx[1] - 0.2 * (du[0] * x[2] * x[1] + u[0] * (dx[2] * x[1] + x[2] * dx[1]))
    out[2] = 0.9 * dx[2] + 0.2 * (du[0] * u[1] + u[0] * du[1])


PENDULUM = RungeKutta4(rate, rate_tangent, 2, 1, 0.3)
THREE = ScalarStepper(next_state, next_tangent, 3, 2)
CHAIN = OscillatorChain(3, dt=0.3, cubic=0.7, linear=0.3, control=(1.0, -0.5, 2.0)).stepper()
SEES = Seen((1, 0, 1), time=True, given=2)
LOOPS = {
    "pendulum": Rollout(MLP((2, 4, 1)), PENDULUM, STEPS),
    "sight and times": Rollout(
        MLP((6, 5, 4, 1)), PENDULUM, STEPS, sees=SEES, observe=AtTimes((2, -1, 0), (1,))
    ),
    "controls in y": Rollout(MLP((3, 4, 2)), THREE, STEPS, controls=True),
    "bounded": Rollout(MLP((3, 4, 2), bounds=((-1.0, 0.0), 0.5)), THREE, STEPS),
    "relu": Rollout(MLP((3, 5, 2), "relu"), THREE, STEPS),
    "linear": Rollout(MLP((6, 1), "linear"), CHAIN, STEPS, observe=AtTimes((1, 5))),
    "oscillators": Rollout(MLP((6, 5, 1)), CHAIN, STEPS),
}


@pytest.fixture(params=LOOPS)
def loop(request):
    return LOOPS[request.param]


@pytest.fixture
def plainly(monkeypatch):
    """Calls a function with the march in array code."""

    def call(function):
        with monkeypatch.context() as patch:
            patch.setattr(rollout_module, "LARGEST_COMPILED", 0)
            return function()

    return call


def draw(loop, rng, b=3, dtype=float):
    x, given = (0.5 * rng.standard_normal((b, n)) for n in (loop.state_size, loop.input_size))
    arrays = x, given, rng.standard_normal((b, loop.output_size))
    theta = 0.5 * rng.standard_normal(loop.size)
    return Batch(*(array.astype(dtype) for array in arrays)), theta.astype(dtype)


def problem_of(loop, data):
    return Problem(loop, None, SquaredError(), data, data)


def linearised(loop, rng, b=3, dtype=float):
    data, theta = draw(loop, rng, b, dtype)
    with uncompiled():
        return problem_of(loop, data).linearise(theta, data)


def all_of(at):
    """States, controls, y, gradient, rows and Gram matrix."""
    again = at.at(at.theta)
    J = again.jacobian()
    tape = again._tape
    return tape.X, tape.U, again.output, again.gradient(), J.dense(), J.gram()


def close(one, other, tolerance):
    return all(
        a.dtype == b.dtype and abs(a - b).max() <= tolerance * max(abs(b).max(), 1e-3)
        for a, b in zip(one, other, strict=True)
    )


def test_the_uncompiled_functions_are_array_code(loop, rng, plainly):
    assert loop.compiled is not None
    at = linearised(loop, rng)
    with uncompiled() as met:
        plain = all_of(at)
    assert {"march", "sweep"} <= met
    assert close(plain, plainly(lambda: all_of(at)), 1e-12)


@pytest.mark.parametrize("b", [1, 3, 37])
def test_compiled_is_array_code(b, loop, rng, plainly):
    at = linearised(loop, rng, b)
    assert close(all_of(at), plainly(lambda: all_of(at)), 1e-12)


def test_in_single_precision(rng, plainly):
    at = linearised(LOOPS["controls in y"], rng, dtype=np.float32)
    assert at.output.dtype == np.float32
    assert close(all_of(at), plainly(lambda: all_of(at)), 2e-5)


def written_out(loop, theta, x, given):
    """States and controls of one sample, for real or complex theta."""
    states, controls = [x + 0 * theta[0]], []
    for s in range(loop.steps):
        x = states[-1]
        z = [x[list(loop.sees.state)] if loop.sees.state else x, [s / loop.steps] * loop.sees.time]
        z = np.concatenate([*z, given[: loop.sees.given]])
        controls.append(mlp(theta, z[None], loop.network.sizes, loop.network.activation)[0])
        states.append(stepped(loop.stepper, x, controls[-1]))
    return np.array(states), np.array(controls)


def stepped(stepper, x, u):
    if stepper is CHAIN:
        return oscillators(x, u, CHAIN.solver)
    if stepper is THREE:
        out = 0 * x
        next_state(x, u, out)
        return out
    f = lambda x: np.array([x[1], u[0] - np.sin(x[0])])  # noqa: E731
    k1 = f(x)
    k2 = f(x + 0.15 * k1)
    k3 = f(x + 0.15 * k2)
    return x + 0.05 * (k1 + 2 * k2 + 2 * k3 + f(x + 0.3 * k3))


@pytest.mark.parametrize("name", [name for name in LOOPS if name != "bounded"])
def test_against_complex_numbers(name, rng):
    loop = LOOPS[name]
    at = linearised(loop, rng)
    theta, (x, given, _) = at.theta, at.batch
    r = loop.output_size
    for i in range(3):

        def y(theta, i=i):
            states, controls = written_out(loop, theta, x[i], given[i])
            seen = states[list(loop.observe.times)]
            seen = seen if loop.observe.components is None else seen[:, loop.observe.components]
            return np.concatenate([seen.ravel(), controls.ravel() if loop.controls else []])

        assert abs(at.output[i] - y(theta)).max() < 1e-13
        J, expected = at.jacobian().dense()[i * r : (i + 1) * r], complex_step_jacobian(y, theta)
        assert abs(J - expected).max() < 1e-11 * abs(expected).max()


def test_dot_and_taylor(loop, rng):
    """The tangent is array code, so that it shares nothing with the compiled pass back."""
    at = linearised(loop, rng)
    v, w = rng.standard_normal(loop.size), rng.standard_normal(at.output.shape)
    pull = lambda w: loop.backward(at.theta, at._tape, w)  # noqa: E731
    assert dot_test(at.tangent, pull, v, w) < 1e-11
    value = lambda theta: loop.forward(theta, at.batch)[0]  # noqa: E731
    along = lambda theta, d: at.at(theta).tangent(d)  # noqa: E731
    orders = taylor_test(value, along, at.theta, v / np.linalg.norm(v), step=1e-3)
    assert min(orders) > 1.9


def test_tiles_and_segments_of_samples(loop, rng, monkeypatch):
    at = linearised(loop, rng, 7)
    J, w = at.jacobian(), rng.standard_normal(7 * loop.output_size)
    expected = J.gram(), J.rmatvec(w), at.gradient()
    monkeypatch.setattr(rollout_module, "APPLICATIONS", 2 * STEPS)
    tiled = J.in_tiles(2)
    assert close((tiled.gram(), tiled.rmatvec(w), at.gradient()), expected, 1e-12)


@pytest.mark.parametrize("cores", [1, 5])
def test_any_number_of_threads_gives_the_same_bits(cores, rng, monkeypatch):
    at = linearised(LOOPS["pendulum"], rng, 70)
    found = []
    for count in (2, cores):
        monkeypatch.setattr(threads, "cores", lambda n=count: n)
        found.append(all_of(at))
    assert all(map(np.array_equal, *found))


@pytest.mark.parametrize("name", ["sight and times", "controls in y", "oscillators"])
def test_on_a_device(name, rng, monkeypatch):
    loop = LOOPS[name]
    data, _ = draw(loop, rng, 8)
    expected = fit(problem_of(loop, data), HIG(0.02), batch=4, steps=3).theta
    with strict_cupy.installed(monkeypatch):
        result = fit(problem_of(loop, data).on("gpu"), HIG(0.02), batch=4, steps=3)
        assert result.status == "budget", result.message
        theta = to_host(result.theta)
    assert np.allclose(theta, expected, rtol=1e-6, atol=1e-8)


def test_a_run_resumes_to_the_bit_and_a_loop_is_pickled(rng, tmp_path):
    loop = LOOPS["sight and times"]
    data, theta = draw(loop, rng, 12)
    problem = problem_of(pickle.loads(pickle.dumps(loop)), data)
    whole = fit(problem_of(loop, data), HIG(0.02), batch=6, steps=6, theta=theta)
    half = fit(problem, HIG(0.02), batch=6, steps=3, theta=theta)
    assert np.array_equal(fit(problem, HIG(0.02), batch=6, steps=6, resume=half).theta, whole.theta)


SIMULATED = """
    import numpy as np
    from test_compiled_march import LOOPS, RangeKernel, all_of, linearised

    def simulated(self, n, *args, scratch=(), cotangents=None, alone=False):
        started.add(self.body.__name__)
        self._cuda(n, args, scratch, cotangents)

    started = set()
    for name in ("sight and times", "controls in y", "bounded", "oscillators"):
        for dtype in (np.float64, np.float32):
            results = []
            for run in (RangeKernel.plain, simulated):
                RangeKernel.__call__ = run
                results.append(all_of(linearised(LOOPS[name], np.random.default_rng(0), 2, dtype)))
            for a, b in zip(*results, strict=True):
                assert a.dtype == b.dtype
                assert np.array_equal(a, b), (name, a, b)
    assert started == {"march", "sweep"}, started
    print("same bits")
"""


def test_under_the_cuda_simulator():
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(SIMULATED)],
        env={
            "NUMBA_ENABLE_CUDASIM": "1",
            "PYTHONPATH": ":".join([str(Path(__file__).parent), *sys.path]),
        },
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.stdout.strip() == "same bits", run.stderr


@pytest.mark.parametrize("name", ["sight and times", "oscillators"])
def test_compiles_to_ptx(name, rng, monkeypatch):
    pytest.importorskip("numba_cuda")
    from numba import cuda
    from numba.cuda import dispatcher

    from higcore.device import cuda_kernels

    launches = {}

    def record(kernel, n, *args, scratch=no_scratch, cotangents=None, alone=False):
        shapes = scratch(1, None if cotangents is None else 1)
        launches[kernel] = (n, cotangents or 1, *args), shapes, cotangents is not None
        kernel.plain(n, *args, scratch=scratch, cotangents=cotangents)

    monkeypatch.setattr(RangeKernel, "__call__", record)
    all_of(linearised(LOOPS[name], rng))
    device = types.SimpleNamespace(compute_capability=(9, 0))
    monkeypatch.setattr(dispatcher, "get_current_device", lambda: device)
    for kernel, (args, shapes, is_sweep) in launches.items():
        body = cuda.jit(device=True)(kernel.body)
        source = cuda_kernels.kernel_source(body, len(args) - 2, shapes, np.float64, is_sweep)
        ptx, _ = cuda.compile_ptx(source, numba.types.void(*map(numba.typeof, args)), cc=(9, 0))
        assert ".entry" in ptx


def test_tanh_to_some_rounding_errors(rng):
    z = np.concatenate([rng.uniform(-25, 25, 4000), 10.0 ** rng.uniform(-12, 1, 4000)])
    z = np.concatenate([z, [0.0, 19.0, 30.0, -30.0, np.inf, -np.inf, np.nan]])
    found = z.copy()
    scalar_networks.tanh(len(z), found)
    assert np.isnan(found[-1])
    expected = np.tanh(z)
    assert (abs(found - expected)[:-1] <= 2e-15 * abs(expected)[:-1]).all()
    assert abs(found[:-1]).max() <= 1


@pytest.mark.parametrize("activation", ["tanh", "relu", "linear"])
def test_what_is_no_number_stays_none(activation):
    loop = Rollout(MLP((2, 3, 1), activation), PENDULUM, 2)
    states = loop.trajectory(np.ones(loop.size), Batch(*[np.full((1, 2), np.nan)] * 3))
    assert np.isnan(states).all()


class Sine:
    def value(self, z):
        return np.sin(z)

    def slope(self, a):
        return np.sqrt(1 - a * a)


class Logged(MLP):
    def forward(self, theta, x):
        u, tape = super().forward(theta, x)
        return u, tape


def subclass(cls):
    return type("Own", (cls,), {})


ARRAY_CODE = {
    "a network with passes of its own": lambda: Rollout(Logged((2, 1)), PENDULUM, STEPS),
    "a step of one's own": lambda: Rollout(
        MLP((2, 1)), subclass(RungeKutta4)(rate, rate_tangent, 2, 1, 0.3), STEPS
    ),
    "another step": lambda: Rollout(
        MLP((3, 2)), subclass(ScalarStepper)(next_state, next_tangent, 3, 2), STEPS
    ),
    "a chain of one's own": lambda: Rollout(
        MLP((4, 1)), subclass(OscillatorChain)().stepper(), STEPS
    ),
    "a layer with an activation of one's own": lambda: Rollout(
        Network([Dense(2, 1, Sine(), 0)]), PENDULUM, STEPS
    ),
    "more parameters than a kernel is good for": lambda: Rollout(
        MLP((2, 1100, 1)), PENDULUM, STEPS
    ),
    "sight of one's own": lambda: Rollout(MLP((2, 1)), PENDULUM, STEPS, sees=subclass(Seen)()),
}


@pytest.mark.parametrize("case", ARRAY_CODE)
def test_the_rest_is_array_code(case, rng):
    loop = ARRAY_CODE[case]()
    assert loop.compiled is None
    at = linearised(loop, rng)
    v, w = rng.standard_normal(loop.size), rng.standard_normal(at.output.shape)
    assert dot_test(at.tangent, lambda w: loop.backward(at.theta, at._tape, w), v, w) < 1e-11


@pytest.mark.parametrize("stepper", [PENDULUM, THREE, CHAIN], ids=lambda s: type(s).__name__)
def test_a_step_for_one_sample_is_examined_as_any_other(stepper):
    report = check_stepper(stepper, show=False)
    assert report, str(report)


def broken(x, u, out):
    out[2] = x[0]


def half(x, u, out):
    out[0] = x[0]


def half_tangent(x, u, dx, du, out):
    out[0] = dx[0]


def of_arrays(x, u):
    return x


MISTAKES = {
    r"next_state must keep to its arrays, of shapes \(2,\), \(1,\), \(2,\), got: index 2": (
        lambda: ScalarStepper(broken, half_tangent, 2, 1)
    ),
    r"next_state must write all of out, got nothing for out\[1\]": (
        lambda: ScalarStepper(half, half_tangent, 2, 1)
    ),
    r"rate_tangent must write all of out, got nothing for out\[1\]": (
        lambda: RungeKutta4(rate, half_tangent, 2, 1, 0.1)
    ),
    "rate and rate_tangent must both have an argument out": (
        lambda: RungeKutta4(of_arrays, rate_tangent, 2, 1, 0.1)
    ),
    "next_state must be a plain function, which can be compiled; got functools.partial": (
        lambda: ScalarStepper(functools.partial(half), half_tangent, 2, 1)
    ),
    "next_state must be": lambda: ScalarStepper(3, half_tangent, 2, 1),
    "state_size must be at least 1": lambda: ScalarStepper(half, half_tangent, 0, 1),
}


@pytest.mark.parametrize("sentence", MISTAKES)
def test_mistakes_are_named(sentence):
    with pytest.raises((TypeError, ValueError), match=sentence):
        MISTAKES[sentence]()


def test_a_step_without_a_value_at_the_trial_is_taken():
    def next_state(x, u, out):
        out[0] = math.log(x[0] - 1.0) + u[0]

    def next_tangent(x, u, dx, du, out):
        out[0] = dx[0] / (x[0] - 1.0) + du[0]

    stepper = ScalarStepper(next_state, next_tangent, 1, 1)
    found = stepper.step(np.array([[3.0]]), np.array([[0.5]]))
    assert np.allclose(found, math.log(2.0) + 0.5)


def test_parameters_of_another_size_are_refused(rng):
    loop = LOOPS["pendulum"]
    data, theta = draw(loop, rng)
    with pytest.raises(ValueError, match="theta must have shape"):
        loop.forward(theta[:-1], data)


def test_what_the_kernels_would_read_beyond_is_refused(rng):
    class Short(AtTimes):
        def pull(self, X, y_bar):
            return super().pull(X, y_bar)[1:]

    loop = Rollout(MLP((2, 4, 1)), PENDULUM, STEPS, observe=Short())
    at = linearised(loop, rng)
    with pytest.raises(ValueError, match=r"X_bar = pull\(X, y_bar\) of observe must have shape"):
        at.gradient()
    longer = linearised(Rollout(MLP((2, 4, 1)), PENDULUM, STEPS + 1), rng)
    with pytest.raises(ValueError, match="tape must have shape"):
        LOOPS["pendulum"].backward(at.theta, longer._tape, np.ones((3, 2)))
