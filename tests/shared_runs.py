"""Runs on the ranks of MPI against those of one process: ``mpiexec -n 2 python shared_runs.py``.

The first rank prints, as JSON, how far theta of every run is from that of one process, relative to
its length.
"""

import json
import sys
from dataclasses import replace

import numpy as np
from mpi4py import MPI

from bench.experiments import EXPERIMENTS, LOOPS
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
)

STEPS = 20
OPTIMIZERS = {
    "hig": HIG(tau=1e-3),
    "hig, by QR": HIG(tau=1e-3, method="qr"),
    "gn": GaussNewton(tau=1e-3),
    "lm": LevenbergMarquardt(),
    "adaptive": AdaptiveHIG(),
    "lanczos": AdaptiveHIG(method="lanczos", tolerance=1e-12),
    "sip": ScaleInvariantPhysics(),
    "adam": Adam(),
    "sgd": SGD(lr=0.01),
    "adagrad": Adagrad(lr=0.01),
    "adadelta": Adadelta(lr=0.01),
    "rmsprop": RMSprop(lr=1e-4),
}


def small(problem, train=40, test=10):
    """A problem with little data."""
    data = problem.train[:train] if hasattr(problem.train, "beside") and hasattr(problem.train, "x") else problem.train
    return replace(problem, train=data, test=problem.test[:test])


def problems():
    chosen = {**EXPERIMENTS, "friction": LOOPS["friction"]}
    return {name: small(experiment.problem()) for name, experiment in chosen.items()}


def main(names=""):
    comm = MPI.COMM_WORLD
    found = {}
    for pname, problem in problems().items():
        if names and pname not in names.split(","): continue
        for oname, optimizer in OPTIMIZERS.items():
            if oname == "sip" and problem.solver is None: continue
            options = {"batch": 7, "steps": STEPS, "seed": 1}
            import time
            t=time.time()
            one = fit(problem, optimizer, **options)
            t1=time.time()-t
            t=time.time()
            many = fit(problem.shared(comm), optimizer, **options)
            t2=time.time()-t
            a, b = one.theta, many.theta
            same = comm.allgather(b.tobytes())
            d=np.linalg.norm(a - b) / np.linalg.norm(a)
            if comm.rank == 0:
                print(f"{pname:14s} {oname:12s} {d:.1e} {'' if all(s==same[0] for s in same) else 'DIFFER'} {one.status} {many.status} {t1:.2f} {t2:.2f}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
