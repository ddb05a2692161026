"""Resident memory over 10 000 updates of a run: ``python tests/memory_growth.py``.

What a step leaves behind would add up: 10 kB of it to 100 MB. Memory is read where `fit` calls its
callbacks, twenty times after a warm-up in which everything is compiled and every cache filled.
What a run keeps by design is small beside it: a row of the history for each reading, and the times
of the latest 10 000 steps.
"""

import argparse
import os
import sys
from pathlib import Path

import numpy as np

from bench.experiments import Oscillators, Poisson
from higcore import HIG, Adam, fit
from solvers import OscillatorChain, Poisson2D

READINGS, WARM_UP = 20, 0.2  # of the readings, and the share of updates before the first
BOUND = 0.01
BATCH = 8
CHAIN = Oscillators(OscillatorChain(steps=24, dt=0.5), (20,), samples=64, test_samples=8)
FRESH = Poisson(Poisson2D(4), (20,), samples=64, test_samples=8)  # new samples in every step
RUNS = {
    "oscillators, HIG": (CHAIN, HIG(lr=0.1, tau=1e-3)),
    "oscillators, Adam": (CHAIN, Adam()),
    "Poisson, fresh data, HIG": (FRESH, HIG(lr=0.01, tau=1e-3)),
    "Poisson, fresh data, Adam": (FRESH, Adam()),
}


def resident_bytes():
    """What Linux says this process holds in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def readings(experiment, optimizer, updates):
    """Resident bytes at equal distances over ``updates`` updates, after a warm-up."""
    problem, found = experiment.problem(), []
    epochs_between = -(-updates // (READINGS * problem.steps_per_epoch(BATCH)))
    total = (1 + WARM_UP) * updates
    run = fit(
        problem,
        optimizer,
        batch=BATCH,
        steps=int(total),
        evaluate_every=epochs_between,
        on_epoch=[lambda run: found.append((run.steps, resident_bytes()))],
    )
    if run.status != "budget":
        raise SystemExit(f"the run measures nothing: {run}")
    return [size for steps, size in found if steps >= total - updates]


def growth(sizes):
    """Relative growth, from the mean of the first quarter of the readings to that of the last."""
    quarter = max(1, len(sizes) // 4)
    first, last = np.mean(sizes[:quarter]), np.mean(sizes[-quarter:])
    return (last - first) / first


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--updates", type=int, default=10_000)
    options = parser.parse_args()
    grown = []
    for name, (experiment, optimizer) in RUNS.items():
        sizes = readings(experiment, optimizer, options.updates)
        grown.append(growth(sizes))
        print(
            f"{name}: {options.updates} updates, {len(sizes)} readings, {sizes[0] / 1e6:.1f} MB "
            f"to {sizes[-1] / 1e6:.1f} MB, grown by {grown[-1]:+.3%}",
            flush=True,
        )
    return int(max(grown) >= BOUND)


if __name__ == "__main__":
    sys.exit(main())
