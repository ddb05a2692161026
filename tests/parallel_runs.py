"""Runs in worker processes, a tenth of which fail, once in each kind of pool.

``python tests/parallel_runs.py`` makes 200 runs in a `multiprocessing.Pool` and 200 in a
`ProcessPoolExecutor`, with ``throw=True``. Whatever a worker raises comes back pickled: if that
cannot be undone, a Pool waits for ever and an executor breaks and loses all other runs. Every run
must give what it gives in this process: its bits, or its error with its result. The test suite
makes a few such runs; 400 take less than a minute.
"""

import argparse
import dataclasses
import logging
import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress

import numpy as np

from bench.experiments import Oscillators
from higcore import HIG, SGD, DoesNotFitError, Result, TrainingError, fit
from solvers import OscillatorChain

CHAIN = Oscillators(OscillatorChain(steps=4), (3,), samples=8, test_samples=4)
WORKERS = 4


@dataclasses.dataclass(frozen=True)
class Fixed:
    """An optimizer whose every step is the same number."""

    change: float

    def init(self, theta):
        return {}

    def update(self, at, state):
        return self.change + 0 * at.theta, state, None


@dataclasses.dataclass(frozen=True)
class Raising(Fixed):
    """An optimizer that does not know what to do."""

    def update(self, at, state):
        raise LookupError("no step")


FAILING = {  # status, or error, of an optimizer's runs
    "non-finite": Fixed(float("nan")),
    "diverged": Fixed(1e3),
    "stagnated": Fixed(0.0),
    "raised": Raising(0.0),
    "DoesNotFitError": HIG(memory_limit=1.0),
}


def optimizer_of(number, every):
    """The optimizer of a run, and how it ends; each ``every``-th one fails."""
    if number % every:
        return (HIG(lr=1e-3) if number % 2 else SGD(lr=1e-3)), "budget"
    names = list(FAILING)
    name = names[number // every % len(names)]
    return FAILING[name], name


def run(number, every):
    """A run of a few steps."""
    logging.getLogger("higcore").setLevel(logging.ERROR)  # no warnings of those that fail
    optimizer, ending = optimizer_of(number, every)
    patience = 2 if ending == "stagnated" else None
    options = {"batch": 4, "epochs": 3, "seed": number, "throw": True}
    return fit(CHAIN.problem(), optimizer, patience=patience, **options)


def outcome(get):
    """What ``get()`` returns or raises, as (how it ended, parameters)."""
    try:
        result = get()
    except TrainingError as error:
        result = error.result
        if str(error) != result.message:
            return "a message of its own", None
    except DoesNotFitError as error:
        return "DoesNotFitError", np.array([float(error.reason is None)])
    except Exception as error:  # a timeout, a broken pool: whatever is not of the run
        return type(error).__name__, None
    return (result.status, result.theta) if isinstance(result, Result) else (repr(result), None)


def in_pool(jobs, deadline):
    """Outcomes of the jobs in a `multiprocessing.Pool`."""
    pool = multiprocessing.get_context("spawn").Pool(WORKERS)
    try:
        waiting = [pool.apply_async(run, job) for job in jobs]
        return [outcome(lambda one=one: one.get(left(deadline))) for one in waiting]
    finally:
        with suppress(AssertionError):  # if its thread for results died, of what it could not read
            pool.terminate()


def in_executor(jobs, deadline):
    """Outcomes of the jobs in a `ProcessPoolExecutor`."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(WORKERS, mp_context=spawn) as pool:
        waiting = [pool.submit(run, *job) for job in jobs]
        return [outcome(lambda one=one: one.result(left(deadline))) for one in waiting]


def left(deadline):
    """Seconds up to the deadline."""
    return max(0.0, deadline - time.monotonic())


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--every", type=int, default=10, help="Each so many-th run fails.")
    parser.add_argument("--patience", type=float, default=300.0, help="Seconds for one pool.")
    options = parser.parse_args()
    jobs = [(number, options.every) for number in range(options.runs)]
    expected = [outcome(lambda job=job: run(*job)) for job in jobs]
    for job, (ended, _) in zip(jobs, expected, strict=True):
        assert ended == optimizer_of(*job)[1], (job, ended)
    bad = 0
    for pool in (in_pool, in_executor):
        found = pool(jobs, time.monotonic() + options.patience)
        hung = sum(ended == "TimeoutError" for ended, _ in found)
        pairs = zip(found, expected, strict=True)
        lost = sum(a != b or not np.array_equal(x, y) for (a, x), (b, y) in pairs) - hung
        failed = sum(ended != "budget" for ended, _ in expected)
        print(
            f"{pool.__name__}: {len(jobs)} runs, {failed} of them failed: {hung} hung, {lost} lost",
            flush=True,
        )
        bad += hung + lost
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
