"""Where the time of a HIG step goes, and the arithmetic floor under each stage."""

from __future__ import annotations

import time
from contextlib import contextmanager

import numpy as np
from scipy.linalg.blas import dgemm

import higcore
from higcore.half_inverse import AUTO_SQUARES_FROM
from higcore.kernels import RangeKernel

STAGES = (
    "network", "solver", "sweep", "row pull-back", "Gram", "decomposition", "pull-down", "update",
)  # fmt: skip


def profile(experiment, repeats=40, train_steps=20):
    """Return ``{stage: {"seconds", "operations", "floor_seconds"}}`` at trained parameters.

    Medians over ``repeats``; the floor is the number of operations over the rate of large matrix
    products, measured here.
    """
    problem, (batch, optimizer) = experiment.problem(), experiment.settings["hig"]
    seconds = stage_seconds(problem, optimizer, batch, repeats, train_steps)
    operations = stage_operations(problem, batch, optimizer.tau >= AUTO_SQUARES_FROM)
    rate = matrix_product_rate()
    return {
        stage: {
            "seconds": seconds[stage],
            "operations": operations[stage],
            "floor_seconds": operations[stage] / rate,
        }
        for stage in STAGES
    }


def stage_seconds(problem, optimizer, batch, repeats, train_steps):
    """Seconds of every stage of a step; what is none of the others, such as the loss, in the last.

    Without a squaring there is no Gram matrix.
    """
    found = higcore.profile(problem, optimizer, batch=batch, steps=repeats, after=train_steps)
    *stages, last = STAGES
    seconds = {stage: found.parts.get(stage, 0.0) for stage in stages}
    return seconds | {last: found.total - sum(seconds.values())}


def stage_operations(problem, b, squares):
    """Floating-point operations that every stage cannot do without, by formula or by count.

    Without squaring there is no Gram matrix; QR takes 2 m^2 t operations and the SVD of the
    triangle 4 m^3 for its values and one set of vectors.
    """
    shapes, t, r = problem.network.factor_shapes, problem.network.size, problem.solver.output_size
    m = b * r
    solver, sweep = solver_operations(problem)
    if m <= t:
        # A symmetric product is half of a product. Of convolutions the cheaper of two ways.
        widths = [n * min(p * (1 + p / r) if p > 1 else 1, k + 1) for p, k, n in shapes]
        gram, pull_down = m * m * sum(widths), sum(p * 2 * b * n * (k + r) for p, k, n in shapes)
    else:
        gram, pull_down = m * t * t, 0
    n = min(m, t)
    decomposition = 4 / 3 * n**3 if squares else 2 * n * n * max(m, t) + 4 * n**3
    return {
        "network": 2 * b * sum(p * n_in * n_out for p, n_in, n_out in shapes),
        "solver": b * solver,
        "sweep": b * sweep,
        "row pull-back": 2 * m * sum(p * n_in * n_out for p, n_in, n_out in shapes[1:]),
        "Gram": gram if squares else 0,
        "decomposition": decomposition,
        "pull-down": pull_down,
        "update": 2 * t,
    }


class _Counter:
    """A number that only counts what is done with it; all entries of an array may be the same."""

    def __init__(self):
        self.operations = 0

    def _count(self, *_):
        self.operations += 1
        return self

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = _count
    __truediv__ = __rtruediv__ = __neg__ = _count


def solver_operations(problem):
    """Operations of one sample's forward march and of its sweep, counted in the kernels' source."""
    solver = problem.solver
    x = np.zeros((1, solver.state_size))
    with _counting() as forward:
        _, tape = solver.forward(x, np.zeros((1, solver.control_size)))
    with _counting() as sweep:
        solver.rows(tape)
    return forward.operations, sweep.operations


@contextmanager
def _counting():
    """Every kernel first runs as plain Python on counting numbers, then as it always does."""
    counter, call = _Counter(), RangeKernel.__call__

    def counted(kernel, n, *args, **options):
        counters = [
            np.full(a.shape, counter, object) if getattr(a, "shape", ()) else a for a in args
        ]
        kernel.plain(n, *counters, **options)
        call(kernel, n, *args, **options)

    RangeKernel.__call__ = counted
    try:
        yield counter
    finally:
        RangeKernel.__call__ = call


def matrix_product_rate(n=2000, repeats=7):
    """Operations a second of a product of two large matrices, the fastest of some."""
    A = np.asfortranarray(np.random.default_rng(0).random((n, n)))
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        dgemm(1.0, A, A)
        seconds.append(time.perf_counter() - begin)
    return 2 * n**3 / min(seconds)
