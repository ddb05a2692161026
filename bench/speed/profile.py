"""Where the time of a HIG step goes, and the arithmetic floor under each stage."""

from __future__ import annotations

import time
from contextlib import contextmanager

import numpy as np
from scipy.linalg.blas import dgemm

from higcore import StackedJacobian, fit
from higcore.backend import is_host, synchronize, thread_policy
from higcore.half_inverse import AUTO_SQUARES_FROM, SQUARING, choose_method
from higcore.kernels import RangeKernel
from higcore.spectral import qr
from higcore.spectral.filters import TruncatedPower

STAGES = (
    "network", "solver", "sweep", "row pull-back", "Gram", "decomposition", "pull-down", "update",
)  # fmt: skip


def profile(experiment, repeats=40, train_steps=20):
    """Return ``{stage: {"seconds", "operations", "floor_seconds"}}`` at trained parameters.

    Medians over ``repeats``; the floor is the number of operations over the rate of large matrix
    products, measured here.
    """
    problem, setting = experiment.problem(), experiment.settings["hig"]
    theta = fit(problem, setting.optimizer, batch=setting.batch, steps=train_steps).theta
    data = problem.batch(0, setting.batch)
    n = min(setting.batch * problem.solver.output_size, problem.network.size)
    with thread_policy(2 * setting.batch * problem.network.size, n):
        rows = [timed_stages(problem, theta, data, setting.optimizer.tau) for _ in range(repeats)]
    seconds = dict(zip(STAGES, np.median(rows, axis=0).tolist(), strict=True))
    squares = setting.optimizer.tau >= AUTO_SQUARES_FROM
    operations = stage_operations(problem, setting.batch, squares)
    rate = matrix_product_rate()
    return {
        stage: {
            "seconds": seconds[stage],
            "operations": operations[stage],
            "floor_seconds": operations[stage] / rate,
        }
        for stage in STAGES
    }


def timed_stages(problem, theta, data, tau):
    """Seconds of every stage of one step, done one by one as `half_inverse` does them."""
    marks = [time.perf_counter()]

    def mark(value):
        synchronize(theta)
        marks.append(time.perf_counter())
        return value

    control, net_tape = mark(problem.network.forward(theta, data.net_input))
    y, tape = mark(problem.solver.forward(data.x, control))
    S = mark(problem.solver.rows(tape))
    J = StackedJacobian(problem.network, theta, net_tape, S)
    mark(J.blocks)
    g = problem.loss.gradient(y, data.target).reshape(-1) / len(y)
    m, t = J.shape
    method, f = choose_method("auto", m, t, tau, is_host(theta)), TruncatedPower(-0.5, tau)
    if method == "qr":  # no Gram matrix, and the pull-down is part of it
        mark(None)
        step = mark(qr.decompose(J, g).apply(f)[0])
        mark(None)
    else:
        K = mark(J.gram(mirrored=False) if m <= t else J.gram_of_parameters())
        g = g if m <= t else J.rmatvec(g)
        weights, _ = mark(SQUARING[method].decompose(K, g).apply(f))
        step = mark(J.rmatvec(weights) if m <= t else weights)
    mark(theta - 1e-3 * step)
    return np.diff(marks)


def stage_operations(problem, b, squares):
    """Floating-point operations that every stage cannot do without, by formula or by count.

    Without squaring there is no Gram matrix; QR takes 2 m^2 t operations and the SVD of the
    triangle 4 m^3 for its values and one set of vectors.
    """
    shapes, t, r = problem.network.factor_shapes, problem.network.size, problem.solver.output_size
    m = b * r
    solver, sweep = solver_operations(problem)
    if m <= t:
        # A symmetric product is half of a product; rows of convolutions are taken explicitly.
        widths = [n_out if p == 1 else (n_in + 1) * n_out for p, n_in, n_out in shapes]
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
