"""A step of AdaptiveHIG on fields, from products with J alone and, where it fits, with K."""

from __future__ import annotations

from ..paper import tables
from . import race

# Experiment -> batch, and the methods that fit into 24 GB.
STEPS = {"poisson-32": (16, ("lanczos", "tridiagonal")), "poisson-64": (64, ("lanczos",))}


def by_method(say, keep):
    """Median seconds of a step, and what a process takes at its peak beyond what it held before."""
    found = {}
    for name, (batch, methods) in STEPS.items():
        labels = [f"higcore {method}" for method in methods]
        raced = race.run(name, batch, labels, say, train_steps=0, with_reference=False)
        found |= {f"{name}, b {batch}, {label.split()[1]}": _row(raced[label]) for label in labels}
        keep({"steps": found})
    return {"steps": found}, tables.nested(found), None


def _row(record):
    peak = record["peak_memory_mb"]
    return {
        "seconds": record["median"],
        "extra MB": peak - record["memory_before_mb"],
        "peak MB of the process": peak,
    }
