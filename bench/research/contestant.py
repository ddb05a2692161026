"""One peer in a process of its own: trains for some seconds and prints its curve.

``python -m bench.research.contestant LABEL PROBLEM SEED SECONDS SETTING``, SETTING a JSON object.
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np

from ..records import short
from ..speed.contestants import experiment
from .peers import PEERS

RATIO = 1.1  # between the times of evaluations


class Clock:
    """Counts training seconds, and evaluates the test loss off the clock now and then."""

    def __init__(self, problem, theta, seconds):
        self.problem, self.theta, self.seconds = problem, theta, seconds
        self.created = time.perf_counter()
        self.steps, self.next, self.ticking = 0, 0.01, 0.0
        self.curve = {"seconds": [0.0], "step": [0], "test_loss": [self.loss(theta)]}

    def loss(self, theta):
        """The mean loss of the test data."""
        return short(float(self.problem.evaluate(np.asarray(theta), self.problem.test)))

    def start(self, theta):
        """All is compiled."""
        self.theta = np.array(theta)
        self.compiling = time.perf_counter() - self.created
        self.resumed = time.perf_counter()

    def tick(self, theta):
        """Count a step; whether the time is up."""
        spent = self.ticking + time.perf_counter() - self.resumed
        self.steps += 1
        if spent >= min(self.next, self.seconds):
            for name, value in zip(
                self.curve, (short(spent), self.steps, self.loss(theta)), strict=True
            ):
                self.curve[name].append(value)
            self.next = RATIO * spent
            self.ticking, self.resumed = spent, time.perf_counter()
        return spent >= self.seconds


def main(label, name, seed, seconds, setting):
    """Train and print one JSON object."""
    chosen, peer = experiment(name), PEERS[label]
    problem = chosen.problem(int(seed))
    theta = problem.network.init(np.random.default_rng([int(seed), 1]))
    clock = Clock(problem, theta, float(seconds))
    train, batch = peer.function(label), chosen.settings[peer.batch].batch
    train(problem, batch, int(seed), clock, **json.loads(setting))
    print(json.dumps({"compiling_seconds": short(clock.compiling), "curve": clock.curve}))


if __name__ == "__main__":
    main(*sys.argv[1:])
