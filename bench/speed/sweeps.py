"""How cost and memory grow: with the width of the network, and with the batch."""

from __future__ import annotations

import tracemalloc

import numpy as np

from higcore import HIG, memory_estimate, profile

from . import race
from .contestants import experiment
from .crossovers import timed

WIDTHS = (20, 70, 220, 700, 2200, 7000)  # 3e3 to 1e8 parameters
POISSON_BATCHES = (4, 8, 16, 32, 64, 128, 256)  # m = 64 b, to 16384
SWEEP_BATCHES = (128, 512, 2048, 8192)
MEMORY_BATCHES = (32, 64, 128, 256, 512)


def width_sweep(report, keep, widths=WIDTHS, batch=128):
    """HIG and Adam on wider and wider networks through the oscillators, m = 4 batch.

    Memory is what a process takes at its peak beyond what it held before its first step; compare
    ``dense_jacobian_mb``.
    """
    rows = {}
    for width in widths:
        name = f"wide-{width}"
        problem = experiment(name).problem()
        labels = ["higcore", "higcore adam"]
        found = race.run(name, batch, labels, report, train_steps=0, with_reference=False)
        hig, adam = found["higcore"], found["higcore adam"]
        rows[problem.network.size] = {
            "hig_seconds": hig["median"],
            "adam_seconds": adam["median"],
            "decomposition_seconds": decomposition_seconds(problem, batch),
            "hig_extra_mb": hig["peak_memory_mb"] - hig["memory_before_mb"],
            "estimated_mb": memory_estimate(problem, batch).total / 1e6,
            "dense_jacobian_mb": 8e-6 * 4 * batch * problem.network.size,
        }
        keep(rows)
    return rows


def decomposition_seconds(problem, batch, repeats=5):
    """Median seconds of the decomposition alone, at the first parameters."""
    still = HIG(lr=1e-6)  # theta hardly moves
    return profile(problem, still, batch=batch, steps=repeats, after=1).parts["decomposition"]


def first_parameters(problem):
    """Random parameters."""
    return problem.network.init(np.random.default_rng([0, 1]))


def batch_sweep(report, keep, batches=POISSON_BATCHES, name="poisson-paper"):
    """One HIG step of a fixed network against the batch, with time and peak memory."""
    rows = {}
    for batch in batches:
        found = race.run(name, batch, ["higcore"], report, train_steps=0, with_reference=False)
        problem, record = experiment(name).problem(), found["higcore"]
        rows[batch * problem.solver.output_size] = {
            "seconds": record["median"],
            "extra_mb": record["peak_memory_mb"] - record["memory_before_mb"],
            "estimated_mb": memory_estimate(problem, batch).total / 1e6,
        }
        keep(rows)
    return rows


def solver_sweep(report, names=("oscillators", "dipole"), batches=SWEEP_BATCHES):
    """Seconds of the sweep over all cotangents, ``{name: {batch: seconds}}``."""
    rows = {}
    for name in names:
        report(f"solver sweep of {name}")
        problem = experiment(name).problem()
        solver = problem.solver
        rows[name] = {}
        for batch in batches:
            part = problem.train[:1].x.repeat(batch, axis=0)
            _, tape = solver.forward(part, np.zeros((batch, solver.control_size)))
            rows[name][batch] = timed(lambda tape=tape, solver=solver: solver.rows(tape))
    return rows


def memory_beside_gram(report, batches=MEMORY_BATCHES):
    """Peak MB that NumPy allocates in all of a step but K and its decomposition, by batch.

    The network is wide enough that K is (m, m); rows are made, and J^T c is taken.
    """
    rows = {}
    problem = experiment("wide-220").problem()
    theta = first_parameters(problem)
    for batch in batches:
        report(f"memory beside K, batch {batch}")
        tracemalloc.start()
        at = problem.linearise(theta, problem.batch(0, batch))
        J = at.jacobian()
        J.rmatvec(at.loss_gradient.reshape(-1))
        rows[batch] = tracemalloc.get_traced_memory()[1] / 1e6
        tracemalloc.stop()
    return rows


def slope(points):
    """Slope of a straight line through log-log points ``{x: y}``, by least squares."""
    x, y = (np.log([float(v) for v in values]) for values in (points.keys(), points.values()))
    return float(np.polyfit(x, y, 1)[0])


def steepest(points):
    """The steepest slope between neighbours; ``points`` in ascending order."""
    pairs = list(points.items())
    return max(slope(dict(pairs[k : k + 2])) for k in range(len(pairs) - 1))
