"""Steps on a GPU: stage by stage, against rivals and the CPU, and against what the device can do.

`measure` does it all, part by part; the parts take their sizes as arguments, so that they can be
tried on small ones. All times are of work that the device was waited for.
"""

from __future__ import annotations

import numpy as np

from higcore import fit, half_inverse, memory_estimate
from higcore.backend import array_module, synchronize, thread_policy, to_device, to_host
from higcore.device.gpu import device_name, driver_version
from higcore.half_inverse import AUTO_SQUARES_FROM, SQUARING

from .. import records
from ..paper import tables
from . import peers, race
from .contestants import experiment, higcore_step
from .crossovers import CASES, applied, gram_matrix, timed
from .profile import solver_operations, stage_operations, stage_seconds

# Experiment -> batch sizes; the first is the paper's.
BATCHES = {
    "toy": (256, 1024),
    "oscillators": (128, 32, 1024),
    "linear-chain": (32, 256),
    "dipole": (16, 128),
    "dipole-cnn": (16, 128),
    "poisson-paper": (64, 16),
}
SIZES = (256, 512, 1024, 2048, 4096, 8192)  # rows of K for the crossovers
POISSON_BATCHES = (64, 128, 256, 512)  # m = 64 b, to 32768
SWEEP_BATCH = 65536


def measure(say, keep, parts=None):
    """Run the named parts, by default all of `PARTS`; return ``{part: figures}``.

    ``keep(found)`` is called after every part. A part that fails is recorded with its error.
    """
    found = {"device": device_facts()}
    for name in parts or PARTS:
        say(name)
        try:
            found[name] = PARTS[name](say)
        except Exception as error:  # a device has many ways to fail
            found[name] = {"failed": f"{type(error).__name__}: {error}"}
            say(f"{name} failed: {error}")
        keep(found)
    return found


def device_facts():
    """Name, driver and versions of what computes."""
    import cupy

    return {
        "name": device_name(),
        "driver_cuda": driver_version(),
        "runtime_cuda": cupy.cuda.runtime.runtimeGetVersion(),
        "memory_gb": cupy.cuda.runtime.memGetInfo()[1] / 1e9,
        "versions": records.versions("numba-cuda", "cupy-cuda12x", "cupy-cuda13x", "jax", "torch"),
    }


def ceilings(say, n=8192):
    """What the device does at best: operations a second of a product, bytes a second of a copy."""
    import cupy

    A = cupy.ones((n, n)) / n
    product, copy = cupy.empty_like(A), cupy.empty_like(A)
    multiply = timed(waited(lambda: cupy.matmul(A, A, out=product), A))
    move = timed(waited(lambda: cupy.multiply(A, 2.0, out=copy), A))
    return {"operations_per_second": 2 * n**3 / multiply, "bytes_per_second": 2 * A.nbytes / move}


def waited(call, array):
    """The call, with the device waited for."""

    def wait():
        call()
        synchronize(array)

    return wait


def steps(say, batches=BATCHES, repeats=20):
    """Every experiment at several batches: seconds of a whole step and of its stages, memory.

    The last column is the share of the rate of a large product that the whole step reaches.
    """
    rows, rate = {}, ceilings(say)["operations_per_second"]
    for name, sizes in batches.items():
        for batch in sizes:
            say(f"{name}, batch {batch}")
            row = rows[f"{name} b {batch}"] = step_row(name, batch, repeats)
            row["of product rate"] = row.pop("operations") / rate / row["step"]
    return rows


def step_row(name, batch, repeats):
    """One experiment at one batch, at trained parameters."""
    chosen = experiment(name)
    problem, setting = chosen.problem().on("gpu"), chosen.settings["hig"]
    tau = setting.optimizer.tau
    theta = fit(problem, setting.optimizer, batch=setting.batch, steps=2).theta
    data, step = problem.batch(0, batch), higcore_step(problem, tau=tau)
    rows = min(batch * problem.solver.output_size, problem.network.size)
    with thread_policy(2 * batch * problem.network.size, rows):
        whole = timed(waited(lambda: step(theta, data), theta), most=repeats)
    row = {"step": whole} | stage_seconds(problem, setting.optimizer, batch, repeats, 3)
    row["peak MB"] = peak_of(lambda: step(theta, data), theta)
    row["estimated MB"] = memory_estimate(problem, batch, tau=tau).total / 1e6
    needed = stage_operations(chosen.problem(), batch, tau >= AUTO_SQUARES_FROM)
    return row | {"operations": sum(needed.values())}


def peak_of(call, array):
    """MB that the device's pool takes for a call, starting from an emptied pool."""
    pool = array_module(array=array).get_default_memory_pool()
    pool.free_all_blocks()
    before = pool.total_bytes()
    call()
    return (pool.total_bytes() - before) / 1e6


def agreement(say, names=tuple(BATCHES), tau=1e-3):
    """Relative difference of one update, GPU against CPU, by the same method, float64."""
    rows = {}
    for name in names:
        problem, batch = experiment(name).problem(), BATCHES[name][0]
        theta = problem.network.init(np.random.default_rng([0, 1]))
        for method in ("qr", *SQUARING):
            here, there = (
                one_update(problem.on(device), to_device(theta, device), batch, tau, method)
                for device in ("cpu", "gpu")
            )
            difference = np.linalg.norm(here - there) / np.linalg.norm(here)
            rows.setdefault(name, {})[method] = float(difference)
    return rows


def one_update(problem, theta, batch, tau, method):
    """The step by a method, on the host."""
    at = problem.linearise(theta, problem.batch(0, batch))
    return to_host(half_inverse(at.jacobian(), at.loss_gradient, tau=tau, method=method)[0])


def rivals(say, names=tuple(BATCHES)):
    """A race on the GPU, with the CPU of this machine among the contestants."""
    labels = ["higcore", "higcore cpu", *peers.installed(peers.GPU_PEERS)]
    return {
        name: race.compared(race.run(name, BATCHES[name][0], labels, say, device="gpu"))
        for name in names
    }


def crossovers(say, sizes=SIZES):
    """Seconds of K^(-3/4) g by every method against the number of rows."""
    rows = {case: {} for case in CASES}
    for n in sizes:
        for case, smallest in CASES.items():
            say(f"n = {n}, {case}")
            K, z = gram_matrix(n, smallest), np.random.default_rng(1).standard_normal(n)
            K, z = (to_device(array, "gpu") for array in (K, z))
            for method in SQUARING:
                rows[case].setdefault(method, {})[n] = timed(applied(method, K, z))
    return rows


def sweep(say, batch=SWEEP_BATCH):
    """The Jacobian sweep of the oscillators on a large batch, beside what it cannot do without.

    Operations are counted in the source, bytes are those of the arrays that are read and written
    once; the share is that of whichever takes the device longer.
    """
    problem = experiment("oscillators").problem()
    solver, rng = problem.solver, np.random.default_rng(0)
    x = to_device(rng.random((batch, solver.state_size)), "gpu")
    u = to_device(rng.standard_normal((batch, solver.control_size)), "gpu")
    _, tape = solver.forward(x, u)
    row = {
        "seconds": timed(waited(lambda: solver.rows(tape), x)),
        "operations": batch * solver_operations(problem)[1],
        "bytes": sum(array.nbytes for array in tape) + solver.rows(tape).nbytes,
    }
    best = ceilings(say)
    floor = {kind: row[kind] / best[f"{kind}_per_second"] for kind in ("operations", "bytes")}
    return {"sweep": row | {"share of ceiling": max(floor.values()) / row["seconds"]}}


def batches(say, sizes=POISSON_BATCHES):
    """The Poisson network on larger and larger batches: seconds and memory of a step."""
    rows = {}
    for batch in sizes:
        say(f"Poisson, batch {batch}")
        try:
            row = step_row("poisson-paper", batch, repeats=3)
        except MemoryError as error:
            say(str(error))
            break
        rows[64 * batch] = {key: row[key] for key in ("step", "peak MB", "estimated MB")}
    return rows


PARTS = {
    "ceilings": ceilings,
    "steps": steps,
    "agreement": agreement,
    "rivals": rivals,
    "crossovers": crossovers,
    "sweep": sweep,
    "batches": batches,
}


def table(found):
    """All parts as text."""
    text = [found["device"]["name"]]
    for name, figures in found.items():
        if "failed" in figures:
            text.append(f"{name}: failed, {figures['failed']}")
        elif name in ("rivals", "crossovers"):
            show = tables.race if name == "rivals" else tables.nested
            text += [f"{name}: {key}\n{show(rows)}" for key, rows in figures.items()]
        elif name in PARTS:
            rows = figures if name != "ceilings" else {"device": figures}
            text.append(f"{name}\n{tables.nested(rows)}")
    return "\n\n".join(text)
