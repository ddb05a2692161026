"""Estimates against what is really allocated, tiles, and refusals that say what would fit."""

import dataclasses
import platform
import re
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from click.testing import CliRunner

from bench.__main__ import main
from bench.experiments import EXPERIMENTS, FIELDS, LOOPS, Oscillators
from higcore import (
    HIG,
    AdaptiveHIG,
    DoesNotFitError,
    GaussNewton,
    LevenbergMarquardt,
    StackedJacobian,
    fit,
    half_inverse,
    memory_estimate,
)
from higcore.backend import short_of_memory
from higcore.device.memory import largest_batch
from higcore.half_inverse import choose_method
from higcore.optimizers import memory
from higcore.optimizers.memory import fitting_tile

SMALL = Oscillators(samples=128, test_samples=16)


def peak_bytes(problem, batch, method, tile=None):
    """What NumPy allocates in one step, at most."""
    theta = problem.network.init(np.random.default_rng(0))
    data = problem.batch(0, batch)
    tracemalloc.start()
    at = problem.linearise(theta, data)
    half_inverse(at.jacobian(tile), at.loss_gradient, method=method)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


@pytest.mark.parametrize(
    ("name", "batch"), [("oscillators", 64), ("poisson", 4), ("dipole", 8), ("dipole-cnn", 8)]
)
@pytest.mark.parametrize("method", ["gram", "tridiagonal", "band"])
def test_the_estimate_holds_and_is_not_wild(name, batch, method):
    problem = EXPERIMENTS[name].problem()
    peak_bytes(problem, 2, method)  # compile, or that is what is measured
    peak = peak_bytes(problem, batch, method)
    estimate = memory_estimate(problem, batch, method=method).total
    assert 0.9 * peak < estimate < 4 * peak


@pytest.mark.parametrize(
    ("name", "batch"),
    [("poisson", 256), ("poisson-32", 16), ("dipole", 64), ("oscillators", 256), ("friction", 64)],
)
def test_the_estimate_of_products_holds_and_is_not_wild(name, batch):
    problem = (EXPERIMENTS | FIELDS | LOOPS)[name].problem()
    optimizer = AdaptiveHIG(method="lanczos", products=25)
    learner = problem.model if problem.solver is None else problem.network
    theta = learner.init(np.random.default_rng(0))

    def peak(samples):
        data, state = problem.batch(0, samples), optimizer.init(theta)
        tracemalloc.start()
        optimizer.update(problem.linearise(theta, data), state)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(2)  # compile
    estimate = memory_estimate(problem, batch, method="lanczos", products=25).total
    assert 0.9 * peak(batch) < estimate < 4 * peak(batch)


def test_estimates_grow_with_the_batch_and_shrink_with_the_tile():
    problem = SMALL.problem()
    totals = [memory_estimate(problem, b).total for b in (1, 8, 64, 128, 1024, 8192)]
    assert totals == sorted(totals)
    whole, tiled = memory_estimate(problem, 128), memory_estimate(problem, 128, tile=8)
    assert tiled.parts["row factors"] < 0.2 * whole.parts["row factors"]
    assert whole.total == sum(whole.parts.values())
    assert whole.beside_gram_matrix == whole.total - whole.parts["tridiagonal of K"]
    assert re.search(r"row factors +1\.\d MB", str(whole))


def jacobian_parts(rng, b=13, outputs=3):
    problem = SMALL.problem()
    network = problem.network
    theta = network.init(rng)
    _, tape = network.forward(theta, rng.standard_normal((b, 4)))
    return network, theta, tape, rng.standard_normal((b, outputs, 96))


@pytest.mark.parametrize("tile", [1, 2, 5, 12, 13, 99])
def test_tiles_of_any_size_are_the_whole(tile, rng):
    parts = jacobian_parts(rng)
    whole, tiled = StackedJacobian(*parts), StackedJacobian(*parts, tile=tile)
    K, v = whole.gram(), rng.standard_normal(whole.shape[1])
    g = rng.standard_normal(whole.shape[0])
    assert np.abs(tiled.gram() - K).max() <= 1e-13 * np.abs(K).max()
    assert np.allclose(np.triu(tiled.gram(mirrored=False)), np.triu(K), rtol=1e-12, atol=1e-13)
    assert np.allclose(tiled.matvec(v), whole.matvec(v), rtol=1e-12, atol=1e-12)
    assert np.allclose(tiled.rmatvec(g), whole.rmatvec(g), rtol=1e-12, atol=1e-12)
    assert np.isclose(tiled.norm_squared(), whole.norm_squared())
    for method in ("qr", "gram", "tridiagonal", "band"):
        step, reference = (half_inverse(J, g, method=method)[0] for J in (tiled, whole))
        assert np.allclose(step, reference, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("tile", [None, 5])  # None: all products are of J with itself
@pytest.mark.parametrize("size", [1, 2**12, 2**30])
def test_chunks_of_any_size_are_the_whole(size, tile, rng, monkeypatch):
    parts = jacobian_parts(rng)
    J, K = StackedJacobian(*parts, tile=tile), StackedJacobian(*parts).gram()
    monkeypatch.setattr("higcore.rows.CHUNK_BYTES", size)
    assert np.abs(J.gram() - K).max() <= 1e-13 * np.abs(K).max()


def same_products(parts):
    """J' J'^T of the parts of a J' and the rows where they begin; the first one has all rows."""
    total = 0.0
    for first, part in parts:
        whole = np.pad(part, ((first, 0), (0, 0)))
        total = total + whole @ whole.T
    return total


@pytest.mark.parametrize("columns", [1, 7, 100])
@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("b", [1, 4, 13, 40])  # fewer samples than inputs of a layer, and more
def test_narrow_parts_leave_out_what_a_rotation_of_theta_does(b, outputs, columns, rng):
    J = StackedJacobian(*jacobian_parts(rng, b, outputs))
    dense, parts = J.dense(), list(J.narrow_parts(columns))
    assert np.allclose(same_products(parts), dense @ dense.T, atol=1e-10)
    units = sum(min(block.units, b) * block.n_out for block in J.blocks)
    assert sum(part.shape[1] for _, part in parts) == units
    if b > 1 and columns == 1:
        assert max(first for first, _ in parts) == (min(b, 21) - 1) * outputs
    g = rng.standard_normal(len(dense))
    step, _ = half_inverse(J, g, tau=1e-2, method="qr")
    assert np.allclose(step, half_inverse(J, g, tau=1e-2, method="svd")[0], rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("columns", [1, 7, 100, 10**6])
def test_parts_of_j_put_together(columns, rng):
    J = StackedJacobian(*jacobian_parts(rng))
    dense = J.dense()
    assert np.array_equal(np.concatenate(list(J.row_parts(max(1, columns // 50)))), dense)
    assert np.allclose(same_products(J.narrow_parts(columns)), dense @ dense.T, atol=1e-10)
    assert np.allclose(J.gram_of_parameters(), dense.T @ dense, atol=1e-10)


def test_a_limit_makes_tiles_and_the_same_steps():
    problem = SMALL.problem()
    limit = memory_estimate(problem, 128, tile=20).total
    assert fitting_tile(problem, 128, memory_limit=limit) == 20
    free = fit(problem, HIG(), batch=128, steps=3)
    tight = fit(problem, HIG(memory_limit=limit), batch=128, steps=3)
    assert np.allclose(free.theta, tight.theta, rtol=1e-7, atol=1e-9)


def test_too_little_memory_says_which_batch_fits():
    problem = SMALL.problem()
    with pytest.raises(MemoryError, match=r"batch of 128 needs .* GB and .* are there") as refused:
        fit(problem, HIG(memory_limit=4e6), batch=128, steps=1)
    fits = int(re.search(r"a batch of (\d+) fits", str(refused.value))[1])
    assert 0 < fits < 128
    assert fitting_tile(problem, fits, memory_limit=4e6) is not None
    with pytest.raises(MemoryError):
        fitting_tile(problem, fits + 1, memory_limit=4e6)


def test_memory_that_others_free_between_two_looks_is_no_error(monkeypatch):
    looks = []

    def short_twice(needed, array, limit=None):
        looks.append(needed)
        return 1e6 if len(looks) <= 2 else None

    monkeypatch.setattr(memory, "short_of_memory", short_twice)
    with pytest.raises(MemoryError, match="a batch of 128 fits"):
        fitting_tile(SMALL.problem(), 128)
    assert len(looks) > 2


@pytest.mark.parametrize("method", ["svd", "qr", "gram", "tridiagonal", "band"])
def test_a_decomposition_that_does_not_fit_is_refused_before_it_starts(method, rng):
    J, g = rng.standard_normal((60, 90)), rng.standard_normal(60)
    with pytest.raises(MemoryError, match=f"method '{method}' needs") as refused:
        half_inverse(J, g, method=method, memory_limit=5e4)
    fits = int(re.search(r"a batch of (\d+) fits", str(refused.value))[1])
    step, _ = half_inverse(J[:fits], g[:fits], method=method, memory_limit=5e4)
    assert step.shape == (90,)


class OwnNetwork:
    """A user's network: what `Problem` asks for, and nothing else."""

    def __init__(self, network):
        names = ("size", "input_size", "output_size", "init", "forward", "backward", "rows")
        self.__dict__.update({name: getattr(network, name) for name in names})


def test_networks_that_do_not_say_their_shapes_train_as_before():
    for name in ("oscillators", "toy"):  # fewer rows than parameters, and more
        problem = EXPERIMENTS[name].problem()
        own = dataclasses.replace(problem, network=OwnNetwork(problem.network))
        runs = [fit(p, HIG(), batch=64, steps=2) for p in (problem, own)]
        assert np.array_equal(runs[0].theta, runs[1].theta)


def test_running_out_of_memory_all_the_same_halves_the_batch(monkeypatch):
    """Where the network does not say its shapes, half of the batch is the best guess."""
    problem = SMALL.problem()
    own = dataclasses.replace(problem, network=OwnNetwork(problem.network))

    def full(*args, **options):
        raise MemoryError

    monkeypatch.setattr(StackedJacobian, "gram", full)
    with pytest.raises(MemoryError, match="a batch of 32 fits"):
        fit(own, HIG(), batch=64, steps=1)


def test_small_needs_are_never_short():
    assert short_of_memory(1e6, np.zeros(1)) is None
    assert short_of_memory(1e18, np.zeros(1)) < 1e15
    assert short_of_memory(10, np.zeros(1), limit=3) == 3


def test_largest_by_halving():
    assert [largest_batch(lambda n, top=top: n <= top, 10) for top in (0, 1, 9, 10, 99)] == [
        0,
        1,
        9,
        10,
        10,
    ]


def test_command_line(monkeypatch, tmp_path):
    monkeypatch.setitem(EXPERIMENTS, "oscillators", SMALL)
    shown = CliRunner().invoke(main, ["memory", "oscillators", "--batch", "64"])
    assert shown.exit_code == 0, shown.output
    assert "tridiagonal of K" in shown.output
    tiled = CliRunner().invoke(
        main, ["memory", "oscillators", "--batch", "128", "--memory-limit", "0.0085"]
    )
    assert "samples at a time to stay under the limit" in tiled.output
    options = ["--batch", "128", "--memory-limit", "0.004", "--steps", "1", "--out", str(tmp_path)]
    refused = CliRunner().invoke(main, ["train", "oscillators", *options])
    assert refused.exit_code == 2
    assert "fits" in refused.output


def linearised(problem, batch=64):
    return problem.linearise(
        problem.network.init(np.random.default_rng(0)), problem.batch(0, batch)
    )


class Estimates:
    """Records the methods of the estimates that a step asks for."""

    def __init__(self, monkeypatch):
        self.methods, self.honest = [], memory._estimate
        monkeypatch.setattr(memory, "_estimate", self)

    def __call__(self, *args):
        found = self.honest(*args)
        self.methods.append(found.method)
        return found


@pytest.mark.parametrize(
    ("tau", "method"), [(1e-9, "qr"), (1e-7, "tridiagonal"), (1e-4, "tridiagonal")]
)
def test_an_absolute_tau_is_estimated_for_the_method_that_the_step_takes(tau, method, monkeypatch):
    """J is about 1e-3 here: 1e-7 is large, which a relative tau would not be."""
    problem = SMALL.problem()
    problem = dataclasses.replace(problem, solver=Weak(problem.solver))
    optimizer = HIG(tau=tau, truncation="absolute")
    estimates, at = Estimates(monkeypatch), linearised(problem)
    step, _, info = optimizer.update(at, {})
    assert info.method == estimates.methods[-1] == method
    reference, known = half_inverse(at.jacobian(), at.loss_gradient, tau=tau, truncation="absolute")
    assert known.method == method
    assert np.array_equal(step, reference)


class Weak:
    """A solver in other units: y is 1e-4 times as large."""

    def __init__(self, solver):
        self.solver, self.sweeps = solver, 0

    def __getattr__(self, name):
        return getattr(self.solver, name)

    def forward(self, x, u):
        y, tape = self.solver.forward(x, u)
        return 1e-4 * y, tape

    def rows(self, tape):
        self.sweeps += 1
        return 1e-4 * self.solver.rows(tape)


def test_an_absolute_tau_under_a_limit():
    """`qr` needs all row factors, the squaring methods do not; both name a batch that fits."""
    problem = SMALL.problem()
    tiled, whole = (memory_estimate(problem, 128, method="tridiagonal", tile=n) for n in (8, 128))
    assert memory_estimate(problem, 128, method="qr").total > 1.5 * whole.total
    for limit in (tiled.total, whole.total):
        squares = HIG(tau=1e-3, truncation="absolute", memory_limit=limit)
        assert fit(problem, squares, batch=128, steps=1).steps == 1
        optimizer = HIG(tau=1e-9, truncation="absolute", memory_limit=limit)
        with pytest.raises(MemoryError, match="a step on a batch of 128 needs") as refused:
            fit(problem, optimizer, batch=128, steps=1)
        fits = int(re.search(r"a batch of (\d+) fits", str(refused.value))[1])
        assert 8 < fits < 128
        assert fit(problem, optimizer, batch=fits, steps=1).steps == 1


def test_the_size_of_j_takes_no_second_sweep():
    problem = SMALL.problem()
    solver = Weak(problem.solver)
    at = linearised(dataclasses.replace(problem, solver=solver))
    whole = memory_estimate(problem, 64, method="qr").total
    tiles = memory_estimate(problem, 64, method="tridiagonal", tile=8).total
    for tau, limit in ((1e-9, whole), (1e-4, tiles)):
        solver.sweeps = 0
        HIG(tau=tau, truncation="absolute", memory_limit=limit).update(at, {})
        assert solver.sweeps == 1


def test_the_rule_of_a_device_holds_for_estimate_and_step(xp, monkeypatch):
    monkeypatch.setitem(choose_method.__globals__, "BAND_FROM_ON_DEVICE", 100)
    problem = SMALL.problem()
    if xp is not np:
        problem = problem.on("gpu")
    theta = xp.asarray(problem.network.init(np.random.default_rng(0)))
    estimates = Estimates(monkeypatch)
    at = problem.linearise(theta, problem.batch(0, 64))
    for optimizer in (HIG(), HIG(tau=1e-4, truncation="absolute")):
        _, _, info = optimizer.update(at, {})
        assert info.method == estimates.methods[-1] == ("tridiagonal" if xp is np else "band")


def test_a_limit_makes_tiles_for_levenberg_marquardt_and_the_same_steps():
    problem = SMALL.problem()
    limit = memory_estimate(problem, 128, method="cholesky", tile=20).total
    assert fitting_tile(problem, 128, method="cholesky", memory_limit=limit) == 20
    free = fit(problem, LevenbergMarquardt(), batch=128, steps=3)
    tight = fit(problem, LevenbergMarquardt(memory_limit=limit), batch=128, steps=3)
    assert np.allclose(free.theta, tight.theta, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("says_its_shapes", [True, False])
def test_too_little_memory_for_levenberg_marquardt_says_which_batch_fits(says_its_shapes):
    problem = SMALL.problem()
    if not says_its_shapes:
        problem = dataclasses.replace(problem, network=OwnNetwork(problem.network))
    optimizer = LevenbergMarquardt(memory_limit=4e6)
    with pytest.raises(DoesNotFitError, match=r"needs .* GB and .* are there") as refused:
        fit(problem, optimizer, batch=128, steps=1)
    fits = int(re.search(r"a batch of (\d+) fits", str(refused.value))[1])
    assert 8 < fits < 128
    assert fit(problem, optimizer, batch=fits, steps=1).steps == 1
    with pytest.raises(DoesNotFitError):
        fit(problem, optimizer, batch=fits + 1, steps=1)


@pytest.mark.parametrize(("name", "batch"), [("oscillators", 128), ("toy", 256), ("dipole", 16)])
def test_the_estimate_for_levenberg_marquardt_holds_and_is_not_wild(name, batch):
    problem, optimizer = EXPERIMENTS[name].problem(), LevenbergMarquardt()
    theta = problem.network.init(np.random.default_rng(0))
    optimizer.update(problem.linearise(theta, problem.batch(0, 4)), optimizer.init(theta))
    tracemalloc.start()
    at = problem.linearise(theta, problem.batch(0, batch))
    optimizer.update(at, optimizer.init(theta))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    estimate = memory_estimate(problem, batch, method="cholesky").total
    assert 0.9 * peak < estimate < 4 * peak


@pytest.mark.parametrize(
    ("optimizer", "options"),
    [
        (LevenbergMarquardt(), {"method": "cholesky"}),
        (HIG(method="band"), {"method": "band"}),
        (GaussNewton(tau=1e-9), {"method": "qr"}),
        (GaussNewton(tau=1e-4), {"method": "tridiagonal"}),
        (HIG(tau=1e-2, truncation="absolute"), {"method": "qr"}),  # the most that it may take
        (HIG(method="gram", truncation="absolute"), {"method": "gram"}),
    ],
    ids=repr,
)
def test_the_batch_that_fits_is_that_of_the_optimizer(optimizer, options, monkeypatch):
    problem = SMALL.problem()
    there = 2e6
    monkeypatch.setattr(memory, "available_memory", lambda array: there * memory.SAFETY_MARGIN)
    error = memory.ran_out_of_memory(problem, 128, optimizer, "full")
    fits = int(re.search(r"a batch of (\d+) fits", str(error))[1])
    assert 0 < fits < 64
    assert memory_estimate(problem, fits, **options).total <= there
    assert memory_estimate(problem, fits + 1, **options).total > there


FAULTS = """
import resource, sys
import numpy as np
from higcore.device.memory import keep_what_is_freed

if sys.argv[1] == "kept":
    keep_what_is_freed()
for size in 100 * [2**21, 2**22]:  # as the steps of a run
    arrays = [np.ones(size, np.uint8) for _ in range(3)]
    del arrays
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="others have other allocators")
def test_what_a_step_frees_is_there_for_the_next_one():
    """By the pages that the system had to give; a page has 4 kB."""
    faults = [
        int(subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True).stdout)
        for how in ("given back", "kept")
    ]
    assert faults[1] < faults[0] - 50 * 2**20 // 4096
