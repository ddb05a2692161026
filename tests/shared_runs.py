"""What ranks of MPI find together against one process: ``mpiexec -n 3 python shared_runs.py``.

Every ``check_...`` is made by all ranks at once; with names, those alone. To be run as a module of
mpi4py, so that a rank on which a check fails ends the others.
"""

import logging
import os
import signal
import sys
import time
import warnings
from dataclasses import replace

import numpy as np
import pytest
from mpi4py import MPI
from threadpoolctl import threadpool_limits

from bench.experiments.dipole import Dipole
from bench.experiments.loops import Friction
from bench.experiments.oscillators import LinearChain, Oscillators
from bench.experiments.poisson import Poisson
from bench.experiments.toy import Toy
from higcore import (
    HIG,
    SGD,
    Adadelta,
    Adagrad,
    Adam,
    AdaptiveHIG,
    GaussNewton,
    LevenbergMarquardt,
    RMSprop,
    ScaleInvariantPhysics,
    fit,
    half_inverse,
    load_checkpoint,
    profile,
    save_checkpoint,
)
from higcore.losses import Huber
from higcore.optimizers.memory import fitting_tile
from higcore.sharing.ranks import ALONE, Ranks
from solvers import OscillatorChain, Poisson2D, QuantumDipole

COMM = MPI.COMM_WORLD
FIRST, LAST = COMM.rank == 0, COMM.rank == COMM.size - 1
LITTLE = 1.9e5  # bytes: less than a batch of 12 takes
BAR = 1e-12  # of theta after 20 steps, relative
SMALL = {"samples": 24, "test_samples": 10}
LANCZOS = AdaptiveHIG(method="lanczos", mu=0.0, momentum=0.0, damping=1.0, products=20)
# From K and J^T w: each bit is that of one process.
SAME_BITS = {
    "hig": HIG(lr=0.02, tau=1e-6),
    "hig, by QR": HIG(lr=0.02, tau=1e-8, method="qr"),
    "hig, all eigenvectors": HIG(lr=0.02, tau=1e-4, method="gram"),
    "gn": GaussNewton(lr=0.02, tau=1e-3),
    "lm": LevenbergMarquardt(),
    "adaptive": AdaptiveHIG(),
}
# From sums over samples, which ranks take in another order.
NEAR = {
    "lanczos": LANCZOS,
    "sip": ScaleInvariantPhysics(),
    "adam": Adam(),
    "sgd": SGD(lr=1e-4),
    "adagrad": Adagrad(lr=0.01),
    "adadelta": Adadelta(lr=0.01),
    "rmsprop": RMSprop(lr=1e-4),
}


def oscillators():
    return Oscillators(OscillatorChain(steps=24), **SMALL).problem()


def problems():
    """A small one of every kind."""
    box, longer = QuantumDipole(points=8, steps=24), QuantumDipole(points=18, steps=12)
    yield Toy(samples=24).problem()
    yield oscillators()
    yield LinearChain(OscillatorChain(steps=6, dt=0.5, cubic=0.0, linear=0.2), **SMALL).problem()
    yield Dipole(box, **SMALL).problem()
    yield Dipole(longer, convolutional=True, name="dipole-cnn", **SMALL).problem()
    yield Poisson(Poisson2D(4), hidden=(20,), **SMALL).problem()
    yield Friction(**SMALL).problem()


def trained(problem, optimizer, **options):
    result = fit(problem, optimizer, **{"batch": 12, "steps": 20, "seed": 1} | options)
    assert result.status == "budget", result
    return result


def distance(one, other):
    return float(np.linalg.norm(other.theta - one.theta) / np.linalg.norm(one.theta))


def compare(problem, optimizer, bar=0.0, **options):
    """Train on one process and on all, to the same theta, history and state."""
    one = trained(problem, optimizer, **options)
    many = trained(problem.shared(COMM), optimizer, **options)
    found = distance(one, many)
    assert found <= bar, (problem.name, optimizer, found)
    assert len(set(COMM.allgather(many.theta.tobytes()))) == 1
    rows = zip(one.history, many.history, strict=True)
    assert all(abs(a.test_loss - b.test_loss) <= 1e-9 * a.test_loss for a, b in rows)


def check_every_optimizer_on_every_problem():
    """In batches of 12 of 24 samples, and of 10, which on three ranks are 4, 2 and 4."""
    for problem in problems():
        steps = 3 if problem.name == "dipole-cnn" else 20  # which takes the longest
        for optimizer in SAME_BITS.values():
            # Two steps: in the third batch, of 4, are single samples, multiplied in another way.
            compare(problem, optimizer, batch=10, steps=2)
            compare(problem, optimizer, steps=steps)
        for name, optimizer in NEAR.items():
            if problem.solver is not None or name != "sip":
                compare(problem, optimizer, BAR)


def check_batches_that_do_not_divide():
    """Odd ones, fewer samples than ranks, one sample, and a last batch of one."""
    problem = oscillators()
    for batch in (7, 2, 1, 23):
        compare(problem, HIG(lr=0.1, tau=0.03), BAR, batch=batch)
        compare(problem, Adam(), BAR, batch=batch)
    compare(Friction(steps=8, **SMALL).problem(), HIG(lr=0.1, tau=0.03), BAR, batch=7)


def check_lanczos_is_as_far_as_one_bit_of_theta():
    """By default it magnifies rounding, on one process as well."""
    problem, optimizer = oscillators(), AdaptiveHIG(method="lanczos")
    theta = problem.network.init(np.random.default_rng(1), np.float64)
    one, beside = (trained(problem, optimizer, theta=t) for t in (theta, theta * (1 + 2**-52)))
    many = trained(problem.shared(COMM), optimizer, theta=theta)
    assert distance(one, many) < 100 * distance(one, beside) < 1e-4


def check_penalties_and_other_losses():
    problem = oscillators()
    robust = replace(problem, loss=Huber(0.1))
    for kind in (problem.regularised(1e-3), problem.penalised(1e-3), robust):
        compare(kind, LevenbergMarquardt())
        compare(kind, AdaptiveHIG())
        compare(kind, LANCZOS, BAR)
        compare(kind, Adam(), BAR)
    compare(problem.regularised(1e-3), HIG(tau=1e-4))
    compare(problem, HIG(tau=1e-4), shuffle=True, validation=problem.test[:5], diagnostics=True)


def check_all_products_with_J():
    """Whole and in tiles, as it is, scaled and weighted, in both precisions."""
    rng = np.random.default_rng(0)
    box = QuantumDipole(points=18, steps=12)
    for experiment, dtype in (
        (Oscillators(OscillatorChain(steps=24), **SMALL), np.float64),
        (Dipole(box, convolutional=True, **SMALL), np.float32),
        (Friction(**SMALL), np.float64),
    ):
        problem = experiment.problem(dtype=dtype)
        theta = problem.network.init(rng, dtype)
        both = [p.linearise(theta, p.batch(0, 14)) for p in (problem, problem.shared(COMM))]
        roots = np.sqrt(rng.random(both[0].output.shape)).astype(dtype)
        for tile in (None, 3):
            one, many = (at.jacobian(tile) for at in both)
            assert type(many).__name__ == "SharedJacobian"
            assert many.tile == one.tile
            same_products(one, many, tile, rng)
            same_products(one.scaled(3), many.scaled(3), tile, rng)
            same_products(one.weighted(roots), many.weighted(roots), tile, rng)
        one, many = one.in_tiles(None), many.in_tiles(None)
        g = rng.random(one.shape[0])
        steps = [half_inverse(J, g, tau=1e-2)[0] for J in (one, many)]
        assert np.allclose(*steps, rtol=0, atol=(0 if dtype == np.float64 else 1e-2))


def same_products(one, many, tile, rng):
    """The same bits, but for vectors times J in tiles, and in single precision."""
    v, w = rng.random(one.shape[1]), rng.random(one.shape[0])
    is_double = one.dtype == np.float64
    precision = 100 * float(np.finfo(one.dtype).eps)
    products = {
        "matvec": lambda J: J.matvec(v),
        "rmatvec": lambda J: J.rmatvec(w),
        "gram": lambda J: J.gram(),
        "half of it": lambda J: np.triu(J.gram(mirrored=False)),
        "norms": lambda J: J.row_norms_squared(),
        "dense": lambda J: J.dense(),
        "S": lambda J: J.S,
    }
    for name, product in products.items():
        reference, found = product(one), product(many)
        same_bits = is_double and (tile is None or "matvec" not in name)
        bar = 0.0 if same_bits else precision * abs(reference).max()
        assert abs(reference - found).max() <= bar, (name, tile)
    assert one.exponent() == many.exponent()


def check_memory_is_shared_and_agreed_on():
    """A limit under which K is made in tiles; and ranks with the same cores ask for their sum."""
    problem = oscillators()
    assert fitting_tile(problem, 12, tau=1e-2, memory_limit=LITTLE) in range(1, 12)
    compare(problem, HIG(tau=1e-2, memory_limit=LITTLE), 1e-9)
    assert problem.shared(COMM).ranks.beside in (1, COMM.size)  # the launcher may bind them


class Picky(OscillatorChain):
    """Refuses one start state."""

    refused, error = 2.0, ArithmeticError

    def forward(self, x, u):
        if (x[:, 0] == self.refused).any():
            raise self.error("no such state")
        return super().forward(x, u)


def check_what_one_rank_raises_all_raise():
    """And say what one process says, whose samples it may be."""
    problem = oscillators()
    picky = replace(problem, solver=Picky(steps=24))
    for k, batch in ((0, 24), (23, 24), (17, 12)):  # of the first step, and of a later one
        for Picky.error in (ArithmeticError, ValueError):
            Picky.refused = problem.train.x[k, 0]
            one, many = (fit(p, Adam(), batch=batch, steps=5) for p in (picky, picky.shared(COMM)))
            assert one.status == many.status == "raised"
            assert one.steps == many.steps == (0 if batch == 24 else 1)
            assert one.message == many.message
            assert "the solver raised" in many.message
            assert ", in forward" in many.error  # where it was, on whichever rank
    # A trial step at which one rank's samples raise is too long, and no more than that.
    Picky.refused = 2.0
    compare(picky, LevenbergMarquardt())


def check_what_is_raised_outside_of_a_batch():
    """By one rank alone, wherever the others are."""

    class Stumbling(Adam):
        def update(self, linearisation, state):
            if LAST and state["updates"] == 3:
                raise LookupError("this rank alone")
            return super().update(linearisation, state)

    result = fit(oscillators().shared(COMM), Stumbling(), batch=12, steps=9)
    assert result.status == "raised"
    assert result.steps == 3
    assert "the optimizer raised LookupError" in result.message
    assert "this rank alone" in result.message
    with pytest.raises(ValueError, match="batch must be at most"):
        fit(oscillators().shared(COMM), Adam(), batch=100, steps=1)


def check_ranks_that_come_apart_are_told():
    problem = oscillators().shared(COMM)
    theta = problem.network.init(np.random.default_rng(1), np.float64)
    theta[0] += LAST
    with pytest.raises(RuntimeError, match="hold other numbers"):
        problem.linearise(theta, problem.batch(0, 8))

    def of_the_shared_problem(result):
        problem.evaluate(result.theta)

    class AtTheEnd:
        def __call__(self, result):
            pass

        def finish(self, result):
            problem.evaluate(result.theta)

    with pytest.raises(RuntimeError, match="as a callback"):
        fit(problem, Adam(), batch=12, steps=2, on_step=[AtTheEnd()])
    result = fit(problem, Adam(), batch=12, steps=2, on_step=[of_the_shared_problem])
    assert result.status == "raised"
    assert "as a callback" in result.message


def check_callbacks_are_those_of_the_first_rank():
    problem, called = oscillators().shared(COMM), []

    def stop(result):
        called.append(result.steps)
        return result.steps == 4

    result = fit(problem, Adam(), batch=12, steps=9, on_step=[stop])
    assert result.status == "stopped"
    assert result.steps == 4
    assert called == ([1, 2, 3, 4] if FIRST else [])

    def stumble(result):
        raise OSError("No space left on device")

    result = fit(problem, Adam(), batch=12, steps=9, on_step=[stumble])
    assert result.status == "raised"
    assert "No space left" in result.message

    class Late:
        def __call__(self, result):
            pass

        def finish(self, result):
            raise OSError("too late")

    result = fit(problem, Adam(), batch=12, steps=2, on_epoch=[Late()] if FIRST else [])
    assert result.status == "raised"
    assert "too late" in result.message


def check_clock_and_interrupts_are_those_of_the_first_rank():
    problem = oscillators().shared(COMM)
    result = fit(problem, Adam(), batch=12, seconds=0.2, evaluate_every=(0.05, "seconds"))
    assert len(set(COMM.allgather((result.steps, result.seconds, len(result.history))))) == 1

    def interrupt(result):
        if result.steps == 3:
            os.kill(os.getpid(), signal.SIGINT)

    result = fit(problem, Adam(), batch=12, steps=9, on_step=[interrupt])
    assert result.status == "interrupted"
    assert result.steps in (3, 4)

    class Interrupted(Adam):
        def update(self, linearisation, state):
            if not FIRST and state["updates"] == 3:
                os.kill(os.getpid(), signal.SIGINT)
            return super().update(linearisation, state)

    result = fit(problem, Interrupted(), batch=12, steps=9)
    assert result.status == ("budget" if COMM.size > 1 else "interrupted")


def check_a_profile_has_what_ranks_exchange():
    found = profile(oscillators().shared(COMM), HIG(tau=1e-4), batch=12, steps=4)
    assert {"network", "solver", "sweep", "Gram", "exchange"} <= {*found.parts}
    assert "exchange" not in profile(oscillators(), HIG(tau=1e-4), batch=12, steps=2).parts


def check_the_first_rank_alone_speaks():
    heard = []
    handler = logging.Handler()
    handler.emit = lambda record: heard.append(record.getMessage())
    log = logging.getLogger("higcore")
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            fit(oscillators().shared(COMM), HIG(tau=1e-9, method="gram"), batch=12, steps=2)
    finally:
        log.removeHandler(handler)
        log.setLevel(logging.WARNING)
    assert bool(heard) == bool(warned) == FIRST
    log.warning("once a rank, after a run")


def check_checkpoints_of_ranks_and_of_one_process(folder="."):
    """A run that begins on ranks goes on alone, and the other way round, as one that was whole."""
    problem, optimizer, path = oscillators(), HIG(tau=1e-4), os.path.join(folder, "run.npz")
    shared = problem.shared(COMM)
    whole = trained(problem, optimizer, batch=12)
    for first, then in ((problem, shared), (shared, problem), (shared, shared)):
        begun = trained(first, optimizer, steps=9)
        if FIRST:
            save_checkpoint(path, begun)
        COMM.Barrier()
        found = trained(then, optimizer, resume=load_checkpoint(path))
        COMM.Barrier()
        assert np.array_equal(found.theta, whole.theta)


def check_one_rank_is_one_process():
    """And a process alone has no ranks."""
    assert oscillators().ranks is ALONE
    alone = oscillators().shared(MPI.COMM_SELF)
    assert isinstance(alone.ranks, Ranks)
    assert alone.ranks.count == 1
    one, many = (trained(p, HIG()) for p in (oscillators(), alone))
    assert np.array_equal(one.theta, many.theta)


def main(*names):
    checks = {name: check for name, check in globals().items() if name.startswith("check_")}
    with threadpool_limits(1):  # or one process would decompose K on two threads
        for name in names or checks:
            begin = time.perf_counter()
            checks[name]()
            if FIRST:
                print(f"{time.perf_counter() - begin:6.2f} s {name}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
