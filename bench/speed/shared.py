"""What a step shares among ranks of MPI, timed on one core each: ``python -m bench.speed.shared``.

Sweep: the Jacobians S of the solver. Rows: S pulled back through the network, and the row factors
gathered. K: the Gram matrix, and its parts exchanged. The march before them is timed beside.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from statistics import median

from ..experiments import EXPERIMENTS
from ..paper import tables
from .rounds import in_turn

BATCHES = {"oscillators": 512, "dipole": 64}
RANKS = (1, 2)
ROUNDS, REPEATS = 3, 15
STAGES = ("march", "sweep", "rows", "K")


def by_ranks(say, keep):
    """Seconds of each stage on one rank and on two; processes are started in turn."""
    found = in_turn(RANKS, _timed, _table, ROUNDS, lambda text: say(f"{text} ranks"), keep)
    text = "\n\n".join(
        f"{name}, batch {BATCHES[name]}\n{tables.nested(rows, 'ranks')}"
        for name, rows in found.items()
    )
    return {"seconds": found}, text, None


def _timed(ranks):
    """What so many ranks print."""
    command = ["mpiexec", "-n", str(ranks), sys.executable, "-m", "bench.speed.shared"]
    folder = os.path.dirname(sys.executable)
    environment = os.environ | {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(run.stdout.splitlines()[-1])


def _table(rows):
    """Medians by ranks, with the three stages of J together, and how much faster."""
    rows = {
        ranks: row | {"J and K": sum(row[stage] for stage in STAGES[1:])}
        for ranks, row in rows.items()
    }
    one, many = (rows[str(ranks)] for ranks in RANKS)
    return rows | {"times faster": {stage: one[stage] / many[stage] for stage in one}}


def main():
    """Time the stages on this rank's core; the first rank prints medians, of the slowest rank."""
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[comm.rank % len(cores)]})
    found = {name: _stages(comm, name) for name in BATCHES}
    if comm.rank == 0:
        print(json.dumps(found))


def _stages(comm, name):
    import numpy as np
    from threadpoolctl import threadpool_limits

    problem = EXPERIMENTS[name].problem()
    theta = problem.network.init(np.random.default_rng([0, 1]), np.float64)
    batch = problem.batch(0, BATCHES[name])
    ours = problem.shared(comm) if comm.size > 1 else problem
    seconds = {stage: [] for stage in STAGES}
    with threadpool_limits(1):
        for _ in range(REPEATS + 1):  # the first one compiles
            made = None
            for stage, make in (
                ("march", lambda _: ours.linearise(theta, batch)),
                ("sweep", lambda at: at.jacobian()),
                ("rows", lambda J: J.blocks and J),
                ("K", lambda J: J.gram(mirrored=False)),
            ):
                comm.Barrier()
                begin = time.perf_counter()
                made = make(made)
                comm.Barrier()
                seconds[stage].append(time.perf_counter() - begin)
    return {stage: median(values[1:]) for stage, values in seconds.items()}


if __name__ == "__main__":
    main()
