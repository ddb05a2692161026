"""higcore's own optimizers on the clock of the peers."""

from __future__ import annotations

from higcore import AdaptiveHIG, LevenbergMarquardt, fit

NEVER = 10**9  # epochs: the clock evaluates


def adaptive(problem, batch, seed, clock):
    """AdaptiveHIG without any setting."""
    run(problem, AdaptiveHIG(), batch, seed, clock)


def lm(problem, batch, seed, clock):
    """Levenberg-Marquardt on the batch alone."""
    run(problem, LevenbergMarquardt(), batch, seed, clock)


def run(problem, optimizer, batch, seed, clock):
    """Train by `fit`; a step before, whose result is thrown away, compiles."""
    begun = {"batch": batch, "seed": seed, "evaluate_every": NEVER}
    fit(problem, optimizer, steps=1, **begun)
    clock.start(clock.theta)
    fit(problem, optimizer, steps=NEVER, on_step=[lambda run: clock.tick(run.theta)], **begun)
