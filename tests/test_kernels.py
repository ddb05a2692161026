"""RangeKernel: compiled, plain and simulated CUDA runs of one source; the cache key."""

import subprocess
import sys
import textwrap
import types
from pathlib import Path

import numba
import numpy as np
import pytest

from higcore import StackedJacobian, kernels
from higcore.device import threads
from higcore.kernels import RangeKernel
from nets import MLP
from solvers import OscillatorChain, QuantumDipole, dipole, oscillators


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


SMALL_SOLVERS = [OscillatorChain(2, steps=3), QuantumDipole(5, steps=3)]


def run_all(solver, dtype, rng):
    """Everything that starts a kernel: march, sweep, tangent, and the march that keeps nothing."""
    x = rng.standard_normal((3, solver.state_size)).astype(dtype)
    u = rng.standard_normal((3, 3)).astype(dtype)
    some = rng.standard_normal((3, 2, solver.output_size)).astype(dtype)  # two cotangents a sample
    y, tape = solver.forward(x, u)
    return y, solver.rows(tape), solver.backward(tape, some), solver.tangent(x, u, u)


def all_kernels():
    modules = [oscillators, dipole]
    return {k for module in modules for k in vars(module).values() if isinstance(k, RangeKernel)}


def test_kernels_under_the_cuda_simulator():
    """One thread a sample and cotangent gives what the plain function gives, to the last bit."""
    script = """
        import numpy as np
        from test_kernels import SMALL_SOLVERS, RangeKernel, all_kernels, run_all

        started = set()

        def simulated(self, n, *args, scratch=(), cotangents=None, alone=False):
            started.add(self)
            self._cuda(n, args, scratch, cotangents)

        for solver in SMALL_SOLVERS:
            for dtype in (np.float64, np.float32):
                results = []
                for run in (RangeKernel.plain, simulated):
                    RangeKernel.__call__ = run
                    results.append(run_all(solver, dtype, np.random.default_rng(0)))
                for a, b in zip(*results, strict=True):
                    assert a.dtype == b.dtype == dtype
                    assert np.array_equal(a, b), (a, b)
        assert started == all_kernels(), started
        print("same bits")
    """
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(script)],
        env={
            "NUMBA_ENABLE_CUDASIM": "1",
            "PYTHONPATH": ":".join([str(Path(__file__).parent), *sys.path]),
        },
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.stdout.strip() == "same bits", run.stderr


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("capability", [(8, 0), (9, 0)])
def test_kernels_compile_to_ptx(capability, dtype, rng, monkeypatch):
    """Every kernel as it is launched, where the CUDA tool-chain is installed."""
    pytest.importorskip("numba_cuda")
    from numba import cuda
    from numba.cuda import dispatcher

    from higcore.device import cuda_kernels

    launches = {}

    def record(kernel, n, *args, scratch=kernels.no_scratch, cotangents=None):
        shapes = scratch(1, None if cotangents is None else 1)
        launches[kernel] = (n, cotangents or 1, *args), shapes, cotangents is not None
        kernel.plain(n, *args, scratch=scratch, cotangents=cotangents)

    monkeypatch.setattr(RangeKernel, "__call__", record)
    for solver in SMALL_SOLVERS:
        run_all(solver, dtype, rng)
    assert set(launches) == all_kernels()

    device = types.SimpleNamespace(compute_capability=capability)
    monkeypatch.setattr(dispatcher, "get_current_device", lambda: device)
    for kernel, (args, shapes, is_sweep) in launches.items():
        body = cuda.jit(device=True)(kernel.body)
        source = cuda_kernels.kernel_source(body, len(args) - 2, shapes, dtype, is_sweep)
        signature = numba.types.void(*map(numba.typeof, args))
        ptx, _ = cuda.compile_ptx(source, signature, cc=capability)
        assert f".target sm_{capability[0]}{capability[1]}" in ptx
        assert ".entry" in ptx
        bits = 8 * np.dtype(dtype).itemsize
        assert f"st.global.f{bits}" in ptx or f"st.f{bits}" in ptx


@pytest.mark.parametrize("cores", [1, 2, 5, 16])
def test_any_number_of_cores_gives_the_same_bits(cores, rng, monkeypatch):
    chain, x, u = OscillatorChain(steps=9), rng.random((70, 4)), rng.random((70, 9))
    net = MLP((4, 6, 9))
    theta = net.init(rng)
    _, tape = net.forward(theta, x)
    found = []
    for count in (2, cores):
        monkeypatch.setattr(threads, "cores", lambda n=count: n)
        _, S = chain.jacobian(x, u)
        found.append((S, StackedJacobian(net, theta, tape, S).gram()))
    assert np.array_equal(found[0][0], found[1][0])
    assert np.array_equal(found[0][1], found[1][1])
