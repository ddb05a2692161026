"""Ctrl-C at random moments: ``python tests/interrupts.py [trials]``; 300 by default, none lost.

Every trial starts a run that a timer interrupts, in turn with every optimizer and every method.
However it ends, the state must be that of the uninterrupted run after as many steps, to the last
bit, and going on from it must end as that one did, with the same rows in the history.
"""

import os
import signal
import sys
import threading
import time
from collections import Counter
from itertools import islice

import numpy as np

from bench.experiments import EXPERIMENTS
from higcore import HIG, AdaptiveHIG, GaussNewton, LevenbergMarquardt, ScaleInvariantPhysics, fit

from higcore import SGD, Adadelta, Adagrad, Adam, RMSprop  # isort: skip
from higcore.half_inverse import METHODS
from higcore.training import interrupts
from higcore.training.result import Result

STEPS, BATCH = 24, 24
OPTIMIZERS = [
    *(HIG(method=method, tau=1e-4) for method in METHODS),
    *(GaussNewton(method=method, tau=1e-4, paper=True) for method in METHODS),
    LevenbergMarquardt(), ScaleInvariantPhysics(), SGD(1e-4), Adagrad(), Adadelta(), RMSprop(),
    Adam(), AdaptiveHIG(),
]  # fmt: skip


def small_problem():
    """The oscillators with few samples: eight steps an epoch, some milliseconds each."""
    problem = EXPERIMENTS["oscillators"].problem()
    return type(problem)(
        problem.network, problem.solver, problem.loss, problem.train[: 8 * BATCH],
        problem.test[:64],
    )  # fmt: skip


class Reference:
    """An uninterrupted run: theta after every step, and the history."""

    def __init__(self, problem, optimizer):
        self.thetas, self.durations = [], []
        options = {"batch": BATCH, "steps": STEPS}
        self.run = fit(problem, optimizer, on_step=[self.keep], **options)
        self.first = fit(problem, optimizer, batch=BATCH, steps=1).history[0]

    def keep(self, result):
        """Called after every step."""
        self.thetas.append(result.theta)
        self.durations.append(result.seconds)

    def lost(self, problem, optimizer, stopped: Result) -> str:
        """What is wrong with an interrupted run and the one that goes on from it; "" if nothing."""
        if stopped.steps and not np.array_equal(stopped.theta, self.thetas[stopped.steps - 1]):
            return "another state"
        if stopped.status == "budget" and stopped.steps == STEPS:
            return ""
        if stopped.status != "interrupted":
            return f"status {stopped.status}"
        whole = fit(problem, optimizer, batch=BATCH, steps=STEPS, resume=stopped)
        if not np.array_equal(whole.theta, self.run.theta):
            return "other bits after going on"
        same = [row._replace(seconds=0.0) for row in whole.history] == [
            row._replace(seconds=0.0) for row in self.run.history
        ]
        return "" if same else "another history"


def interrupted(problem, optimizer, delay: float) -> Result:
    """A run that meets a Ctrl-C after some seconds."""
    sent = []

    def send():
        os.kill(os.getpid(), signal.SIGINT)
        sent.append(time.perf_counter())

    timer = threading.Timer(delay, send)
    try:
        timer.start()
        result = fit(problem, optimizer, batch=BATCH, steps=STEPS)
        ended = time.perf_counter()
        timer.cancel()
        timer.join()
    except KeyboardInterrupt:  # it came a moment after the run
        return interrupted(problem, optimizer, 0.7 * delay)
    if not sent:  # the run was quicker
        return interrupted(problem, optimizer, 0.7 * delay)
    if result.status == "budget":
        raise AssertionError(f"no notice of Ctrl-C {ended - sent[0]:.1e} s before the end")
    return result


def trials(count: int):
    """Yield (optimizer, what was lost, status) of every trial."""
    problem, rng, references = small_problem(), np.random.default_rng(0), {}
    for k, optimizer in zip(range(count), islice(OPTIMIZERS * count, count), strict=True):
        if (name := repr(optimizer)) not in references:
            references[name] = Reference(problem, optimizer)
        reference = references[name]
        whole = reference.durations[-1] - reference.durations[0] / 2
        stopped = interrupted(problem, optimizer, float(rng.uniform(0.0, whole)))
        yield k, optimizer, reference.lost(problem, optimizer, stopped), stopped.status


def main() -> int:
    """Run the trials and print what was found."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's "&" has it ignored
    interrupts.SAID = b""  # that many times it is no news
    found, statuses = Counter(), Counter()
    for k, optimizer, lost, status in trials(count):
        statuses[status] += 1
        found["lost" if lost else "kept"] += 1
        if lost:
            print(f"trial {k}, {optimizer}: {lost}", flush=True)
    print(f"{count} interrupts: {dict(found)}, {dict(statuses)}")
    return int(found["lost"] > 0)


if __name__ == "__main__":
    raise SystemExit(main())
