"""OscillatorChain: order and values against SciPy, derivatives by dot, Taylor and complex step."""

import numpy as np
import pytest
from oracles import complex_step_jacobian, oscillator_force, oscillators
from scipy.integrate import solve_ivp

from higcore import dot_test, taylor_test
from solvers import OscillatorChain

CHAINS = [
    OscillatorChain(),
    OscillatorChain(3, steps=7, dt=0.2, cubic=0.7, linear=0.3, control=(1.0, -0.5, 2.0)),
    OscillatorChain(1, steps=5, control=(2.0,)),
    OscillatorChain(2, steps=24, dt=0.5, cubic=0.0, linear=0.2, control=(0.0, 1.0)),
]
SMALL = CHAINS[1:]


def sample(chain, rng, b, xp=np):
    x = rng.standard_normal((b, chain.state_size))
    u = rng.standard_normal((b, chain.steps))
    return xp.asarray(x), xp.asarray(u)


@pytest.mark.parametrize("chain", SMALL, ids=repr)
def test_solve_is_textbook_rk4(chain, rng, kernel_mode):
    x, u = sample(chain, rng, 3)
    reference = [oscillators(*pair, chain) for pair in zip(x, u, strict=True)]
    assert np.abs(chain.solve(x, u) - reference).max() < 1e-12


def test_compiled_equals_plain_to_rounding(rng, monkeypatch):
    chain = CHAINS[1]
    x, u = sample(chain, rng, 37)  # not a multiple of the chunk
    compiled = chain.jacobian(x, u)
    from higcore.kernels import RangeKernel

    monkeypatch.setattr(RangeKernel, "__call__", RangeKernel.plain)
    for fast, plain in zip(compiled, chain.jacobian(x, u), strict=True):
        assert np.abs(fast - plain).max() < 1e-13 * np.abs(plain).max()


@pytest.mark.parametrize("b", [1, 15, 16, 17, 31, 32, 33, 64, 100, 129])
def test_a_sample_does_not_depend_on_its_batch(b, rng):
    chain = CHAINS[1]
    x, u = sample(chain, rng, b)
    y, S = chain.jacobian(x, u)
    for i in {0, b // 2, b - 1}:
        y_alone, S_alone = chain.jacobian(x[i : i + 1], u[i : i + 1])
        assert np.allclose(y[i], y_alone[0], rtol=1e-13, atol=1e-13)
        assert np.allclose(S[i], S_alone[0], rtol=1e-12, atol=1e-12)


def test_order_four_against_dop853(rng):
    x, span = np.array([0.3, -0.2, 0.5, 0.1]), 3.0
    controls = np.array([0.4, -0.7, 0.2])  # constant on each unit of time

    def exact():
        state = x
        for k, value in enumerate(controls):

            def slope(t, s, value=value):
                force = oscillator_force(s[:2], value, OscillatorChain())
                return np.concatenate([s[2:], force])

            exact = solve_ivp(slope, (k, k + 1), state, method="DOP853", rtol=1e-12, atol=1e-12)
            state = exact.y[:, -1]
        return state

    reference = exact()
    errors = []
    for per_unit in (10, 20, 40, 80):
        chain = OscillatorChain(steps=3 * per_unit, dt=span / (3 * per_unit))
        u = np.repeat(controls, per_unit)[None]
        errors.append(np.abs(chain.solve(x[None], u)[0] - reference).max())
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert np.abs(orders - 4).max() < 0.1


@pytest.mark.parametrize("chain", CHAINS, ids=repr)
def test_dot_test_of_200_pairs(chain, rng, xp):
    x, u = sample(chain, rng, 3, xp)
    for _ in range(200):
        v = xp.asarray(rng.standard_normal(u.shape))
        w = xp.asarray(rng.standard_normal((3, chain.output_size)))
        mismatch = dot_test(
            lambda v: chain.tangent(x, u, v), lambda w: chain.adjoint(x, u, w), v, w
        )
        assert mismatch < 1e-12


@pytest.mark.parametrize("chain", SMALL, ids=repr)
def test_plain_derivatives_by_dot_test(chain, rng, monkeypatch):
    from higcore.kernels import RangeKernel

    monkeypatch.setattr(RangeKernel, "__call__", RangeKernel.plain)
    x, u = sample(chain, rng, 2)
    v, w = rng.standard_normal(u.shape), rng.standard_normal((2, chain.output_size))
    tangent, adjoint = (lambda v: chain.tangent(x, u, v)), (lambda w: chain.adjoint(x, u, w))
    assert dot_test(tangent, adjoint, v, w) < 1e-12


@pytest.mark.parametrize("chain", CHAINS[:2], ids=repr)
def test_taylor_orders(chain, rng):
    x, u = sample(chain, rng, 3)
    direction = rng.standard_normal(u.shape)
    orders = taylor_test(
        lambda u: chain.solve(x, u), lambda u, d: chain.tangent(x, u, d), u, direction, step=1e-3
    )
    assert all(abs(order - 2) < 0.05 for order in orders)


@pytest.mark.parametrize("chain", SMALL, ids=repr)
def test_jacobian_is_the_complex_step_jacobian(chain, rng, kernel_mode):
    x, u = sample(chain, rng, 2)
    y, S = chain.jacobian(x, u)
    assert np.array_equal(y, chain.solve(x, u))
    for i in range(2):
        reference = complex_step_jacobian(lambda u, i=i: oscillators(x[i], u, chain), u[i])
        assert np.abs(S[i] - reference).max() < 1e-12 * np.abs(reference).max()


def test_jacobian_rows_are_adjoints(rng):
    chain = CHAINS[1]
    x, u = sample(chain, rng, 5)
    S = chain.jacobian(x, u)[1]
    w = rng.standard_normal((5, chain.output_size))
    assert np.allclose(np.einsum("by,byu->bu", w, S), chain.adjoint(x, u, w), atol=1e-12)


def test_energy_of_the_free_chain_is_kept(rng):
    chain = OscillatorChain(steps=2000, dt=0.01)
    x = rng.standard_normal((1, 4))
    states = chain.trajectory(x, np.zeros((1, 2000)))[0]
    q, p = states[:, :2], states[:, 2:]
    energy = (q**2 + p**2).sum(axis=1) / 2 + chain.cubic / 4 * (q[:, 0] - q[:, 1]) ** 4
    assert np.ptp(energy) < 1e-7 * energy[0]


def test_float32_stays_float32(rng):
    chain = CHAINS[1]
    x, u = (a.astype(np.float32) for a in sample(chain, rng, 4))
    y, S = chain.jacobian(x, u)
    y64, S64 = chain.jacobian(x.astype(float), u.astype(float))
    assert y.dtype == S.dtype == np.float32
    assert np.abs(y - y64).max() < 1e-4 * np.abs(y64).max()
    assert np.abs(S - S64).max() < 1e-4 * np.abs(S64).max()


def test_memory_is_linear_in_the_batch():
    import tracemalloc

    chain, peaks = OscillatorChain(), []
    for b in (256, 1024):
        x, u = np.zeros((b, 4)), np.zeros((b, 96))
        tracemalloc.start()
        chain.jacobian(x, u)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 4.2 * peaks[0]
