"""RangeKernel: compiled, plain and simulated CUDA runs of one source; the cache key."""

import subprocess
import sys
import textwrap
import types as types_module

import numpy as np
import pytest

from higcore import StackedJacobian, kernels
from higcore.kernels import RangeKernel
from nets import MLP
from solvers import OscillatorChain, dipole, oscillators, rk4


def square(lo, hi, x, y):
    for i in range(lo, hi):
        y[i] = x[i] * x[i]


def test_every_sample_is_done_once():
    kernel = RangeKernel(square)
    for n in (1, 15, 16, 17, 63, 64, 65, 1000):
        x = np.arange(n, dtype=float)
        fast, plain = np.full(n, -1.0), np.full(n, -1.0)
        kernel(n, x, fast)
        kernel.plain(n, x, plain)
        assert np.array_equal(fast, x * x)
        assert np.array_equal(plain, x * x)


def test_the_fingerprint_covers_the_files_a_kernel_calls_into():
    files = {f.__module__ for f in kernels._reachable(oscillators.SWEEP.body)}
    assert {"solvers.oscillators", "solvers.rk4"} <= files
    assert rk4.advance_adjoint in kernels._reachable(oscillators.SWEEP.body)


def test_kernels_under_the_cuda_simulator():
    """One thread a sample gives what the plain function gives, to the last bit."""
    script = """
        import numpy as np
        from numba import cuda
        from solvers import OscillatorChain, QuantumDipole
        from higcore.kernels import RangeKernel

        rng = np.random.default_rng(0)
        for solver in (OscillatorChain(2, steps=3), QuantumDipole(5, steps=3)):
            x, u = rng.standard_normal((3, solver.state_size)), rng.standard_normal((3, 3))
            results = []
            for run in (RangeKernel.plain, lambda self, n, *args: self._cuda(n, *args)):
                RangeKernel.__call__ = run
                found = *solver.jacobian(x, u), solver.tangent(x, u, u), solver.solve(x, u)
                results.append(found)
            for a, b in zip(*results):
                assert np.array_equal(a, b), (a, b)
        print("same bits")
    """
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(script)],
        env={"NUMBA_ENABLE_CUDASIM": "1", "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.stdout.strip() == "same bits", run.stderr


def test_kernels_compile_to_ptx(monkeypatch):
    """Device code for compute capability 8.0 and 9.0, where the CUDA tool-chain is installed."""
    pytest.importorskip("numba_cuda")
    from numba import cuda, float64, int64, types
    from numba.cuda import dispatcher

    def array(ndim):
        return types.Array(float64, ndim, "C")

    chain = (array(1), float64, float64, float64)
    box = (float64, float64, array(1))
    bodies = [
        (oscillators.SOLVE, (*chain, *map(array, (2, 3, 3, 3)))),
        (oscillators.SWEEP, (*chain, *map(array, (2, 3, 3, 3, 3, 3, 2, 3)))),
        (dipole.SOLVE, (*box, *map(array, (2, 4, 2, 3, 3)))),
        (dipole.SWEEP, (*box, *map(array, (2, 4, 2, 3, 3, 3, 3, 3)))),
    ]
    for capability in ((8, 0), (9, 0)):
        device = types_module.SimpleNamespace(compute_capability=capability)
        monkeypatch.setattr(dispatcher, "get_current_device", lambda device=device: device)
        for kernel, arguments in bodies:
            signature = types.void(int64, int64, *arguments)
            ptx, _ = cuda.compile_ptx(kernel.body, signature, device=True, cc=capability)
            assert f".target sm_{capability[0]}{capability[1]}" in ptx


@pytest.mark.parametrize("cores", [1, 2, 5, 16])
def test_any_number_of_cores_gives_the_same_bits(cores, rng, monkeypatch):
    chain, x, u = OscillatorChain(steps=9), rng.random((70, 4)), rng.random((70, 9))
    net = MLP((4, 6, 9))
    theta = net.init(rng)
    _, tape = net.forward(theta, x)
    found = []
    for count in (2, cores):
        monkeypatch.setattr(kernels, "CPU_COUNT", count)
        kernels._pool.cache_clear()
        _, S = chain.jacobian(x, u)
        found.append((S, StackedJacobian(net, theta, tape, S).gram()))
    kernels._pool.cache_clear()
    assert np.array_equal(found[0][0], found[1][0])
    assert np.array_equal(found[0][1], found[1][1])


def test_threads_get_every_item(monkeypatch):
    for count in (1, 3):
        monkeypatch.setattr(kernels, "CPU_COUNT", count)
        seen = []
        kernels.run_threaded(seen.append, range(20))
        assert sorted(seen) == list(range(20))
        with pytest.raises(ZeroDivisionError):
            kernels.run_threaded(lambda n: 1 / n, range(3))
