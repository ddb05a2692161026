"""One contestant a process: it takes steps when told to, and says what they cost.

``python -m bench.speed.contestants LABEL PROBLEM BATCH FOLDER DEVICE`` takes a first step and
answers with a line of JSON: its latency, error and memory. Then it reads lines with a number of
steps from standard input, takes them, and answers with their seconds and the peak memory. A process
of its own gives every contestant its own memory peak and thread pools, and it waits without using a
processor while others run.

LABEL is ``higcore``, ``higcore adam``, ``higcore lanczos``, or another method of AdaptiveHIG,
``higcore cpu``, or a rival of `peers`; all but ``higcore cpu`` compute on DEVICE, ``cpu`` or
``gpu``. FOLDER holds theta.npy, the parameters at which all step, rule.json, the keywords of
`peers.make_step` that say which step, and reference.npy, the step by the SVD of J in float64, if
there is one.
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np

from higcore import half_inverse
from higcore.backend import synchronize, thread_policy, to_device, to_host
from higcore.half_inverse import OF_DAMPED
from higcore.optimizers import Adam, AdaptiveHIG, LevenbergMarquardt

from .. import records
from ..experiments import EXPERIMENTS, VARIANTS, Oscillators
from ..experiments.loops import TIMED
from ..experiments.poisson import FIELDS
from . import peers

SETTLE_SECONDS = 0.25


def experiment(name):
    """The experiment of a name; ``poisson-paper`` is a variant, ``wide-700`` a wide network."""
    if name.startswith("wide-"):
        return Oscillators(hidden=(int(name[5:]),) * 3, test_samples=16, name=name)
    variants = {v.name: v for known in VARIANTS.values() for v in known.values()}
    return (EXPERIMENTS | variants | TIMED | FIELDS)[name]


def higcore_step(problem, **power):
    """The step as `higcore.fit` takes it: linearise, half-invert, update."""

    def step(theta, batch):
        at = problem.linearise(theta, batch)
        found, _ = half_inverse(at.jacobian(), at.loss_gradient, **power)
        return found

    return step


def damped_step(problem, damping):
    """One step of Levenberg-Marquardt with a damping, tried on the batch as in training."""
    optimizer = LevenbergMarquardt()

    def step(theta, batch):
        state = optimizer.init(theta) | {"damping": damping}
        return optimizer.update(problem.linearise(theta, batch), state)[0]

    return step


def adam_step(problem):
    """One step of Adam with its state."""
    optimizer, state = Adam(lr=1e-6), None

    def step(theta, batch):
        nonlocal state
        state = state or optimizer.init(theta)
        found, state = optimizer.update(problem.linearise(theta, batch), state)[:2]
        return found

    return step


def adaptive_step(problem, method):
    """The first step of AdaptiveHIG, which has no momentum yet."""
    optimizer = AdaptiveHIG(method=method)

    def step(theta, batch):
        return optimizer.update(problem.linearise(theta, batch), optimizer.init(theta))[0]

    return step


def make_step(label, problem, rule, device="cpu"):
    """The ``step(theta, batch) -> (t,)`` of a label."""
    if label == "higcore adam":
        return adam_step(problem)
    if (method := label.partition(" ")[2]) in OF_DAMPED and label.startswith("higcore"):
        return adaptive_step(problem, method)
    if not label.startswith("higcore"):
        return peers.make_step(label, problem, **rule, device=device)
    if "damping" in rule:
        return damped_step(problem, rule["damping"])
    return higcore_step(problem, **rule)


def main(label, name, batch, folder, device="cpu"):
    """Serve the protocol of the module's docstring."""
    started = time.perf_counter()
    chosen, folder = experiment(name), Path(folder)
    # JAX and PyTorch move NumPy arrays to a device of their own.
    place = device if label.split()[0] in ("higcore", "cupy") and label != "higcore cpu" else "cpu"
    problem = chosen.problem().on(place)
    theta = to_device(np.load(folder / "theta.npy"), place)
    data = problem.batch(0, int(batch))
    before = records.peak_memory_mb()
    step = make_step(label, problem, json.loads((folder / "rule.json").read_text()), device)
    size, batch = problem.size, int(batch)
    # As `fit` does; the rivals keep the threads that their libraries take.
    policy = thread_policy(2 * batch * size, min(batch * problem.output_size, size))
    with policy if label.startswith("higcore") else nullcontext():
        found = step(theta, data)
        synchronize(theta)
        first = time.perf_counter() - started
        memory = {"memory_before_mb": before} | peak_memory(label, place)
        answer({"first_step_seconds": first, "error": relative_error(found, folder)} | memory)
        for line in sys.stdin:
            if int(line) > 1:
                settle(step, theta, data)
            seconds = [timed(step, theta, data) for _ in range(int(line))]
            answer({"seconds": seconds} | peak_memory(label, place))


def settle(step, theta, data):
    """Let the threads of the contestant before fall asleep, and the caches fill with our own data.

    Thread pools spin for up to a quarter of a second after their last work.
    """
    time.sleep(SETTLE_SECONDS)
    begin = time.perf_counter()
    while time.perf_counter() - begin < SETTLE_SECONDS:
        step(theta, data)


def relative_error(found, folder):
    """|found - reference| / |reference|, None without a reference."""
    path = folder / "reference.npy"
    if not path.exists():
        return None
    reference, found = np.load(path), to_host(found)
    return float(np.linalg.norm(found - reference) / np.linalg.norm(reference))


def timed(step, theta, data):
    """Seconds of one step and of the update of theta."""
    begin = time.perf_counter()
    _ = theta - 1e-3 * step(theta, data)
    synchronize(theta)
    return time.perf_counter() - begin


def peak_memory(label, place):
    """Peak resident MB, and on a device what the label's own allocator took from it at its peak."""
    found = {"peak_memory_mb": records.peak_memory_mb()}
    if place == "gpu":
        import cupy

        found["peak_device_mb"] = cupy.get_default_memory_pool().total_bytes() / 1e6
    return found


def answer(record):
    """One line of JSON on standard output, at once."""
    print(json.dumps(record), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
