"""Stages of a step on 1, 2, 4, ... cores: ``python -m bench.speed.cores`` times those that it has.

By Amdahl's law a stage of which the share s is serial takes s + (1 - s) / n of its time on n cores.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import mean

from ..paper import tables
from .rounds import in_turn

COUNTS = (1, 2, 4, 8, 16)
STEPS_OF = (
    ("oscillators", "hig"), ("oscillators", "adam"), ("dipole", "hig"), ("dipole", "adam"),
    ("dipole-cnn", "hig"), ("poisson", "hig"),
)  # fmt: skip
ROUNDS, STEPS, TRAIN_STEPS = 3, 40, 20
TOGETHER = "together"


def by_cores(say, keep):
    """Median seconds of each stage on so many cores, and its serial share; processes in turn."""
    if not hasattr(os, "sched_setaffinity"):
        raise ValueError("--cores must be able to keep a process on some cores; this system cannot")
    counts = [count for count in COUNTS if count <= len(os.sched_getaffinity(0))]
    found = in_turn(counts, _timed, _table, ROUNDS, lambda text: say(f"{text} cores"), keep)
    text = "\n\n".join(f"{name}\n{tables.nested(rows, 'cores')}" for name, rows in found.items())
    return {"seconds": found}, text, None


def _timed(count):
    """What a process with so many cores prints."""
    with _kept_on(count):
        command = [sys.executable, "-m", "bench.speed.cores"]
        run = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(run.stdout.splitlines()[-1])


@contextmanager
def _kept_on(count: int) -> Iterator[None]:
    """Processes that are started within it have so many cores."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(cores)[:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def _table(rows):
    """Medians by cores, and the serial share of each stage in percent."""
    alone = rows["1"]
    shares = {
        stage: [
            serial_share(row[stage] / alone[stage], int(n)) for n, row in rows.items() if n != "1"
        ]
        for stage in alone
        if alone[stage] > 0
    }
    serial = {
        stage: 100 * mean(shares[stage]) if shares.get(stage) else float("nan") for stage in alone
    }
    return rows | {"serial, %": serial}


def serial_share(ratio, count):
    """S of ratio = s + (1 - s) / count: above 1 where more cores take longer."""
    return (count * ratio - 1) / (count - 1)


def main():
    """Print seconds of the stages of all steps, with whatever cores this process has."""
    from ..experiments import EXPERIMENTS
    from .profile import stage_seconds

    found = {}
    for name, label in STEPS_OF:
        problem, (batch, optimizer) = EXPERIMENTS[name].problem(), EXPERIMENTS[name].settings[label]
        steps = 3 if name.startswith("poisson") else STEPS
        seconds = stage_seconds(problem, optimizer, batch, steps, min(TRAIN_STEPS, steps))
        found[f"{name}, {label}"] = seconds | {TOGETHER: sum(seconds.values())}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
