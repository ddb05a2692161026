"""Arrays on a device: the same numbers, no stray copy, no needless wait, nothing left behind.

All of it runs on `strict_cupy`, which needs no GPU; where there is one, tests marked gpu run the
same on CuPy.
"""

import dataclasses
import gc
import importlib
import sys
import time
import types

import numpy as np
import pytest
import strict_cupy
from oracles import half_inverse_by_svd

from bench.experiments import (
    EXPERIMENTS,
    OPTIMIZERS,
    Dipole,
    LinearChain,
    Oscillators,
    Poisson,
    Toy,
)
from higcore import (
    HIG,
    Adam,
    GaussNewton,
    MemoryEstimate,
    StackedJacobian,
    fit,
    half_inverse,
    memory_estimate,
)
from higcore.backend import array_module, to_device, to_host
from higcore.device import gpu
from higcore.spectral.spectrum import DecompositionError, failures_of
from nets import MLP
from solvers import OscillatorChain, QuantumDipole

SMALL = {
    "toy": Toy(samples=48),
    "oscillators": Oscillators(OscillatorChain(steps=8), (6,), samples=48, test_samples=8),
    "linear-chain": LinearChain(hidden=(6,), samples=48, test_samples=8),
    "poisson": Poisson(hidden=(5,), samples=48, test_samples=8),
    "dipole": Dipole(QuantumDipole(6, steps=7), samples=48, test_samples=8),
    "dipole-cnn": Dipole(
        QuantumDipole(16, steps=7), convolutional=True, samples=48, test_samples=8
    ),
}
assert set(SMALL) == set(EXPERIMENTS)


@pytest.fixture(params=["strict", pytest.param("cupy", marks=pytest.mark.gpu)])
def device(request, monkeypatch):
    """A device's array module: the stand-in, or CuPy."""
    if request.param == "cupy":
        yield importlib.import_module("cupy")
        return
    with strict_cupy.installed(monkeypatch) as stand_in:
        yield stand_in


@pytest.fixture
def strict(monkeypatch):
    with strict_cupy.installed(monkeypatch) as stand_in:
        yield stand_in


def test_the_stand_in_has_no_name_that_cupy_lacks():
    cupy = pytest.importorskip("cupy")
    for name in strict_cupy.NAMES:
        assert hasattr(cupy, name), name
    for name in strict_cupy.LINALG_NAMES:
        assert hasattr(cupy.linalg, name), name
    for name in [*strict_cupy.ATTRIBUTES, *strict_cupy.METHODS]:
        assert hasattr(cupy.ndarray, name), name


def test_the_stand_in_is_strict(strict):
    array, bare = strict.ones(3), np.ones(3)
    for careless in (
        lambda: array + bare,
        lambda: bare * array,
        lambda: np.sum(array),
        lambda: np.asarray(array),
        lambda: np.linalg.norm(array),
        lambda: strict.where(array > 0, array, bare),
        lambda: array.__setitem__(0, bare[:1]),
    ):
        with pytest.raises(TypeError):
            careless()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_training_is_that_of_the_host(name, optimizer, device):
    """Two epochs and a bit, on both."""
    setting = SMALL[name].settings[optimizer].optimizer
    if hasattr(setting, "tau"):  # with a smaller one, rounding errors alone would be magnified
        setting = dataclasses.replace(setting, tau=1e-2)
    problem, results = SMALL[name].problem(), {}
    for where in ("cpu", "gpu"):
        results[where] = fit(problem.on(where), setting, batch=16, steps=8)
    assert type(results["gpu"].theta).__module__.startswith("cupy")
    assert results["gpu"].status == results["cpu"].status
    theta, expected = to_host(results["gpu"].theta), results["cpu"].theta
    magnified = {"adaptive": 1e-4, "hig": 1e-5, "gn": 1e-5, "lm": 1e-5}  # by inverses; not cut, 1st
    digits = magnified.get(optimizer, 1e-9)
    assert np.abs(theta - expected).max() <= digits * np.abs(expected).max()
    losses = [[row.test_loss for row in results[where].history] for where in ("cpu", "gpu")]
    assert losses[1] == pytest.approx(losses[0], rel=10 * digits, nan_ok=True)


@pytest.mark.parametrize("optimizer", ["hig", "adam"])
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_single_precision(name, optimizer, device):
    problem, results = SMALL[name].problem(dtype=np.float32), []
    setting = SMALL[name].settings[optimizer].optimizer
    if optimizer == "hig":
        setting = HIG(lr=0.1, tau=1e-2)
    for where in ("cpu", "gpu"):
        theta = fit(problem.on(where), setting, batch=16, steps=3).theta
        assert theta.dtype == np.float32
        results.append(to_host(theta))
    assert np.allclose(*results, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_one_update_to_ten_digits(name, device):
    """At tau 1e-2, where squaring costs none of them."""
    problem = SMALL[name].problem()
    theta = problem.network.init(np.random.default_rng(1))
    at = problem.linearise(theta, problem.batch(0, 16))
    expected, _ = half_inverse(at.jacobian(), at.loss_gradient, tau=1e-2, method="svd")
    there = problem.on("gpu")
    at = there.linearise(to_device(theta, "gpu"), there.batch(0, 16))
    for method in ("svd", "qr", "gram", "tridiagonal", "band"):
        step, info = half_inverse(at.jacobian(), at.loss_gradient, tau=1e-2, method=method)
        assert info.fallback is None
        assert np.linalg.norm(to_host(step) - expected) <= 1e-10 * np.linalg.norm(expected)


@pytest.mark.parametrize("smallest", [1e-3, 1e-9], ids=["nothing cut", "much cut"])
def test_band_with_many_rows(smallest, device, rng):
    """Enough rows for poles, and for the chase."""
    m = 300
    U, V = (np.linalg.qr(rng.standard_normal((n, m)))[0] for n in (m, 400))
    spectrum = np.logspace(0, np.log10(smallest), m)
    spectrum = spectrum[abs(spectrum / 1e-5 - 1) > 0.1]
    J = (U[:, : len(spectrum)] * spectrum) @ V[:, : len(spectrum)].T
    g = rng.standard_normal(m)
    step, info = half_inverse(device.asarray(J), device.asarray(g), tau=1e-5, method="band")
    assert info.fallback is None
    assert ("poles" if smallest > 1e-5 else "chased") in info.detail
    expected = half_inverse_by_svd(J, g, -0.5, 1e-5)
    assert np.linalg.norm(to_host(step) - expected) < 1e-6 * np.linalg.norm(expected)


class CUSOLVERError(RuntimeError):
    __module__ = "cupy_backends.cuda.libs.cusolver"


@pytest.mark.parametrize("failure", ["flag", "error", "nan", "wrong"])
def test_failed_decompositions_on_a_device_fall_back_and_say_so(failure, strict, rng, monkeypatch):
    honest = strict.linalg.eigh

    def broken(K):
        if failure == "flag":
            if strict_cupy.failures_raise:  # or cuSOLVER's flag would not be looked at
                raise np.linalg.LinAlgError("devInfo = 3")
            return K[0] * 0, K
        if failure == "error":
            raise CUSOLVERError("CUSOLVER_STATUS_INVALID_VALUE")
        values, U = honest(K)
        return values * (np.nan if failure == "nan" else 1.001), U

    monkeypatch.setattr(strict.linalg, "eigh", broken)
    J, g = rng.standard_normal((6, 9)), rng.standard_normal(6)
    step, info = half_inverse(strict.asarray(J), strict.asarray(g), method="gram")
    assert info.method == "qr"
    assert info.fallback.startswith("gram failed (")
    expected = half_inverse_by_svd(J, g, -0.5, 1e-6)
    assert np.linalg.norm(to_host(step) - expected) < 1e-9 * np.linalg.norm(expected)
    assert not strict_cupy.failures_raise  # put back


def test_other_errors_are_not_taken_for_failures(strict):
    with pytest.raises(RuntimeError, match="mine"), failures_of(strict):
        raise RuntimeError("mine")
    with pytest.raises(DecompositionError, match="CUSOLVERError: x"), failures_of(strict):
        raise CUSOLVERError("x")


def waits(problem, optimizer, **options):
    before = strict_cupy.waits
    fit(problem, optimizer, **options)
    return strict_cupy.waits - before


def test_no_wait_within_an_epoch(strict):
    """How often a first-order run waits depends on its epochs, not on its steps."""
    problem = SMALL["dipole"].problem().on("gpu")
    few, many = (waits(problem, Adam(), epochs=3, batch=batch) for batch in (16, 4))
    assert few == many


def test_waits_of_a_half_inverse_step(strict):
    problem = SMALL["oscillators"].problem().on("gpu")
    few, many = (waits(problem, HIG(), epochs=2, batch=batch) for batch in (48, 4))
    assert (many - few) / (2 * (12 - 1)) <= 12  # a step


class Poisoned(OscillatorChain):
    """An oscillator chain whose output is NaN where the control is large."""

    def forward(self, x, u):
        y, tape = super().forward(x, u)
        xp = array_module(y=y)
        return xp.where(abs(u).max(axis=1)[:, None] > self.dt * 11, np.nan, y), tape


@pytest.mark.parametrize("optimizer", [Adam(lr=0.05), GaussNewton(lr=0.03, tau=1e-2, paper=True)])
def test_the_last_finite_state_is_found_again(optimizer, device):
    """Where the host stops at once, the device goes back and stops at the same state."""
    experiment = Oscillators(Poisoned(steps=8), (6,), samples=48, test_samples=8)
    results = []
    for where in ("cpu", "gpu"):
        problem = experiment.problem().on(where)
        results.append(fit(problem, optimizer, batch=4, steps=300, evaluate_every=4))
    host, there = results
    assert host.status == there.status == "non-finite"
    assert there.message == host.message
    assert 1 < there.steps == host.steps
    assert np.allclose(to_host(there.theta), host.theta, rtol=1e-9)


@dataclasses.dataclass(frozen=True)
class Falling:
    """A descent that falls back in some of its steps."""

    at: tuple

    def init(self, theta):
        return {"updates": 0}

    def update(self, linearisation, state):
        n = state["updates"] + 1
        info = types.SimpleNamespace(fallback=f"update {n}" if n in self.at else None)
        return 0.05 * linearisation.gradient(), {"updates": n}, info


@pytest.mark.parametrize("at", [range(1, 99), (2,), (2, 40, 60), (40, 41, 60), (60, 61)])
def test_what_was_counted_before_a_step_back_is_counted_once(at, device, caplog):
    """The loss is NaN in step 48; the device looks after steps 36 and 72, and goes back."""
    experiment = Oscillators(Poisoned(steps=8), (6,), samples=48, test_samples=8)
    options = {"batch": 4, "steps": 900, "evaluate_every": 3, "diagnostics": True}
    host, there = (
        fit(experiment.problem().on(where), Falling(tuple(at)), **options)
        for where in ("cpu", "gpu")
    )
    assert host.status == there.status == "non-finite"
    assert host.steps == there.steps == 47
    assert there.fallbacks == host.fallbacks == sum(k < 48 for k in at)
    assert there.message == host.message
    first = [r for r in caplog.records if r.message == f"step {min(at)}: update {min(at)}"]
    assert len(first) == (2 if min(at) < 48 else 1)  # said once by each run that got there
    assert [row.step for row in there.diagnostics] == list(range(1, 48))
    assert 0 < there.seconds_per_step < there.seconds
    assert there.first_step_seconds < there.seconds


def test_a_run_that_ends_within_an_epoch_is_looked_at_too(strict):
    """Its last updates were not waited for; the end of the run does."""
    experiment = Oscillators(Poisoned(steps=8), (6,), samples=48, test_samples=8)
    problem = experiment.problem().on("gpu")
    result = fit(problem, Adam(lr=0.05), batch=4, steps=35, evaluate_every=100)
    host = fit(experiment.problem(), Adam(lr=0.05), batch=4, steps=35)
    assert result.status == host.status == "non-finite"
    assert result.steps == host.steps < 35
    assert 0 < result.seconds_per_step < result.seconds
    assert np.allclose(to_host(result.theta), host.theta, rtol=1e-9)


def test_ctrl_c_on_a_device_keeps_a_finite_state(device, monkeypatch):
    problem = SMALL["oscillators"].problem().on("gpu")
    honest, calls = OscillatorChain.backward, []

    def interrupting(self, tape, y_bar):
        calls.append(1)
        if len(calls) == 9:
            raise KeyboardInterrupt
        return honest(self, tape, y_bar)

    monkeypatch.setattr(OscillatorChain, "backward", interrupting)
    result = fit(problem, Adam(), batch=4, epochs=5)
    assert result.status == "interrupted"
    assert result.steps == result.history[-1].step == 8


def test_step_times_leave_out_the_compilation(device, monkeypatch):
    honest, calls = OscillatorChain.backward, []

    def slow_at_first(self, tape, y_bar):
        if not calls:
            time.sleep(0.5)
        calls.append(1)
        return honest(self, tape, y_bar)

    monkeypatch.setattr(OscillatorChain, "backward", slow_at_first)
    result = fit(SMALL["oscillators"].problem().on("gpu"), Adam(), batch=16, steps=9)
    assert result.first_step_seconds > 0.5
    assert result.seconds_per_step < 0.05


def test_resume_on_a_device(device):
    problem = SMALL["dipole"].problem().on("gpu")
    whole = fit(problem, Adam(), batch=16, steps=9)
    part = fit(problem, Adam(), batch=16, steps=4).on("cpu")
    assert isinstance(part.theta, np.ndarray)
    resumed = fit(problem, Adam(), batch=16, steps=9, resume=part.on("gpu"))
    assert resumed.identity == fit(problem.on("cpu"), Adam(), batch=16, steps=1).identity
    assert np.array_equal(to_host(resumed.theta), to_host(whole.theta))


def test_what_an_earlier_run_counted_is_not_lost_when_a_resumed_one_goes_back(device):
    problem = Oscillators(Poisoned(steps=8), (6,), samples=48, test_samples=8).problem().on("gpu")
    optimizer = Falling((2, 3, 40))
    options = {"batch": 4, "evaluate_every": 3, "diagnostics": True}
    part = fit(problem, optimizer, steps=38, **options)
    rest = fit(problem, optimizer, steps=900, resume=part, **options)
    assert (rest.status, rest.steps, part.fallbacks, rest.fallbacks) == ("non-finite", 47, 2, 3)
    assert [row.step for row in rest.diagnostics] == list(range(1, 48))


@pytest.mark.parametrize("kind", ["on_step", "on_epoch"])
def test_resume_on_a_device_from_a_callback(kind, device):
    """At the last step of an epoch, before and after its evaluation."""
    problem, saved = SMALL["dipole"].problem().on("gpu"), []
    whole = fit(problem, Adam(), batch=16, steps=9, **{kind: [saved.append]})
    (part,) = (result for result in saved if result.steps == 3)
    resumed = fit(problem, Adam(), batch=16, steps=9, resume=part)
    assert np.array_equal(to_host(resumed.theta), to_host(whole.theta))
    rows = [[row._replace(seconds=0.0) for row in run.history] for run in (resumed, whole)]
    assert rows[0] == rows[1]
    assert [row.step for row in rows[0]] == [0, 3, 6, 9]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_run_leaves_nothing_behind(name, strict):
    gc.collect()
    before = strict_cupy.used_bytes()
    problem = SMALL[name].problem().on("gpu")
    data = strict_cupy.used_bytes()
    for optimizer in ("hig", "adam"):
        result = fit(problem, SMALL[name].settings[optimizer].optimizer, batch=16, steps=4)
        gc.collect()
        states = [v for v in result.state.optimizer.values() if hasattr(v, "nbytes")]
        kept = 2 * result.theta.nbytes + sum(v.nbytes for v in states)  # the last and the best
        assert strict_cupy.used_bytes() - data <= kept
        del result, states
    del problem
    gc.collect()
    assert strict_cupy.used_bytes() == before


@pytest.mark.parametrize("method", ["gram", "tridiagonal", "band"])
def test_estimate_of_memory_against_the_peak(method, strict):
    """The stand-in sees arrays, not what a decomposition takes inside: the estimate is above."""
    problem = Oscillators(hidden=(20, 20), test_samples=1, samples=64).problem().on("gpu")
    at = problem.linearise(
        to_device(problem.network.init(np.random.default_rng(0)), "gpu"), problem.batch(0, 64)
    )
    with strict_cupy.memory() as device_memory:
        before = strict_cupy.used_bytes()
        half_inverse(at.jacobian(), at.loss_gradient, method=method)
        peak = device_memory.peak - before
    estimate = memory_estimate(problem, 64, method=method).total
    assert 0.4 * estimate < peak < estimate


def test_a_full_device_names_a_batch_that_fits(strict):
    problem = Oscillators(hidden=(20, 20), test_samples=1, samples=256).problem().on("gpu")
    gc.collect()
    before = strict_cupy.used_bytes()
    estimate = memory_estimate(problem, 256, tau=1e-6).total
    with strict_cupy.memory(before + estimate // 2), pytest.raises(MemoryError) as refused:
        fit(problem, HIG(), batch=256, steps=2)
    assert "a step on a batch of 256 ran out of memory (out of memory allocating" in str(
        refused.value
    )
    best = int(str(refused.value).rpartition("a batch of ")[2].split()[0])
    assert 16 <= best <= 128
    assert refused.value.__context__ is None  # which would hold the arrays of its frames
    del refused
    gc.collect()
    assert strict_cupy.used_bytes() == before
    with strict_cupy.memory(before + estimate // 2):
        assert fit(problem, HIG(), batch=best, steps=2).steps == 2


def test_a_full_device_in_half_inverse(strict, rng):
    J, g = strict.asarray(rng.standard_normal((200, 300))), strict.asarray(rng.standard_normal(200))
    limit = strict_cupy.used_bytes() + 8 * 200 * 200 // 2
    with strict_cupy.memory(limit), pytest.raises(MemoryError, match="'gram' ran out of memory"):
        half_inverse(J, g, method="gram")


@pytest.mark.parametrize("method", ["gram", "tridiagonal", "band"])
def test_tiles_on_a_device_make_all_of_the_gram_matrix(method, strict, rng):
    """A device reads both triangles."""
    net = MLP((4, 20, 8))
    theta, x, S, g = (
        strict.asarray(array)
        for array in (net.init(rng), *map(rng.standard_normal, ((40, 4), (40, 3, 8), (40, 3))))
    )
    _, tape = net.forward(theta, x)
    whole, tiled = (StackedJacobian(net, theta, tape, S, tile) for tile in (None, 7))
    step, info = half_inverse(tiled, g, method=method)
    assert info.fallback is None
    expected = to_host(half_inverse(whole, g, method=method)[0])
    assert np.allclose(to_host(step), expected, rtol=1e-6, atol=1e-9)


def test_memory_estimate_knows_the_device(strict):
    problem = SMALL["poisson"].problem()
    host, there = (memory_estimate(problem.on(d), 16, method="gram") for d in ("cpu", "gpu"))
    assert isinstance(there, MemoryEstimate)
    assert there.total > host.total  # cuSOLVER's workspace


@pytest.fixture
def fake_driver(monkeypatch):
    """Sets what the driver knows, and which CuPy there is."""

    def install(version, cupy=None, numba_cuda=True, missing=None):
        monkeypatch.setattr(gpu, "driver_version", lambda: version)
        monkeypatch.setitem(sys.modules, "cupy", cupy)
        for library in ("cublas", "cusolver"):
            module = f"cupy_backends.cuda.libs.{library}"
            monkeypatch.setitem(sys.modules, module, None if library == missing else gpu)
        found = object() if numba_cuda else None
        monkeypatch.setattr(gpu.importlib.util, "find_spec", lambda name: found)

    return install


def fake_cupy(built_for=12040, devices=1):
    class CUDARuntimeError(RuntimeError):
        pass

    def count():
        if devices is None:
            raise CUDARuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected")
        return devices

    properties = {"name": b"NVIDIA H100 80GB HBM3", "major": 9, "minor": 0}
    runtime = types.SimpleNamespace(
        CUDARuntimeError=CUDARuntimeError,
        runtimeGetVersion=lambda: built_for,
        getDeviceCount=count,
        getDevice=lambda: 0,
        getDeviceProperties=lambda device: properties,
    )
    return types.SimpleNamespace(cuda=types.SimpleNamespace(runtime=runtime))


@pytest.mark.parametrize(
    ("version", "options", "message"),
    [
        (None, {}, "no NVIDIA driver was found"),
        ((11, 4), {}, "the NVIDIA driver knows CUDA 11.4, and 12.0 is needed"),
        ((12, 4), {}, r"CuPy is not installed; pip install 'higcore\[cuda12\]'"),
        ((13, 1), {}, r"CuPy is not installed; pip install 'higcore\[cuda13\]'"),
        (
            (12, 4),
            {"cupy": fake_cupy(13000)},
            r"built for CUDA 13.0, and the driver knows 12.4; pip uninstall cupy-cuda13x and "
            r"pip install 'higcore\[cuda12\]'",
        ),
        ((12, 4), {"cupy": fake_cupy(devices=0)}, "the NVIDIA driver shows no device"),
        ((12, 4), {"cupy": fake_cupy(devices=None)}, r"no usable device \(cudaErrorNoDevice"),
        (
            (12, 4),
            {"cupy": fake_cupy(), "missing": "cusolver"},
            r"a library of CUDA is not installed .*; pip install 'higcore\[cuda12\]'",
        ),
        (
            (13, 0),
            {"cupy": fake_cupy(), "numba_cuda": False},
            r"numba-cuda is not installed; pip install 'higcore\[cuda13\]'",
        ),
    ],
)
def test_what_keeps_a_gpu_from_being_used(version, options, message, fake_driver):
    fake_driver(version, **options)
    with pytest.raises(RuntimeError, match="device 'gpu' cannot be used: .*" + message):
        gpu.choose_device("gpu")
    device, reason = gpu.choose_device("auto")
    assert device == "cpu"
    assert reason.startswith("no GPU: ")


def test_a_usable_gpu_is_preferred_and_named(fake_driver):
    fake_driver((12, 4), fake_cupy())
    expected = ("gpu", "NVIDIA H100 80GB HBM3, compute capability 9.0")
    assert gpu.choose_device("auto") == gpu.choose_device("gpu") == expected
    assert gpu.choose_device("cpu") == ("cpu", "the CPU was asked for")
    with pytest.raises(ValueError, match="device must be one of 'auto', 'cpu', 'gpu'; got 'tpu'"):
        gpu.choose_device("tpu")


def test_the_driver_is_asked_for_its_version(monkeypatch):
    def ask(number):
        number._obj.value = 13010
        return 0

    library = types.SimpleNamespace(cuDriverGetVersion=ask)
    monkeypatch.setattr(gpu.ctypes, "CDLL", lambda name: library)
    assert gpu.driver_version() == (13, 1)

    def missing(name):
        raise OSError(name)

    monkeypatch.setattr(gpu.ctypes, "CDLL", missing)
    assert gpu.driver_version() is None
