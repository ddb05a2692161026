"""Put NaN or Inf into one place of a run, at one step, and see what comes of it.

``python tests/poison.py`` makes 300 trials. Each is a short run of a small experiment with one of
the nine optimizers; at its last step one number, somewhere in `PLACES`, becomes NaN, Inf or -Inf.
What comes of it is one of

- refused: the run ends with status "non-finite" or "failed" and a sentence, and parameters and
  optimizer state are, bit for bit, those before the step (but for the number itself where it is
  put into them);
- harmless: nobody read the number, as in an input that a solver does not use, or a triangle of a
  symmetric matrix: every bit is that of the run without it;
- noticed: a decomposition was given up for a safer one that says so, and the step is right;
- silent: anything else. A run went on with other numbers than it should have;
- raised: an error left `fit`, or ended the run as one that nobody had foreseen;
- hung, or crashed: the run did not come back within `PATIENCE` seconds, or took Python with it.

The last four are defects. A subprocess makes many trials; when one of them hangs or crashes, the
next subprocess goes on behind it. The test suite makes 60 trials.
"""

import argparse
import dataclasses
import faulthandler
import functools
import itertools
import json
import os
import subprocess
import sys
import warnings
from collections import Counter
from typing import NamedTuple
from unittest.mock import patch

if __name__ == "__main__":
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # of matrices this small, and side by side with others

import numpy as np
from test_device import SMALL

from bench.experiments import OPTIMIZERS
from higcore import StackedJacobian, fit
from higcore.half_inverse import METHODS, SQUARING

PATIENCE = 20.0  # seconds of one run
BATCH, STEPS = 8, 6  # 48 samples: all steps within the first epoch
VALUES = (float("nan"), float("inf"), float("-inf"))
DEFECTS = ("silent", "raised", "hung", "crashed")

DATA = ("x", "net_input", "target")
ANYWHERE = (*DATA, "theta", "control", "output", "loss gradient", "step")
PLACES = {  # beside those of ANYWHERE
    "hig": ("S", "row factors", "K"),
    "gn": ("S", "row factors", "K"),
    "lm": ("S", "row factors", "K", "state"),
    "adaptive": ("S", "row factors", "K", "state"),
    "sip": ("S", "state"),
    "sgd": ("adjoint",),
}
FIRST_ORDER = ("adjoint", "state")


class Trial(NamedTuple):
    """What is poisoned, where, when and with what."""

    number: int
    experiment: str
    optimizer: str
    method: str
    dtype: str
    place: str
    value: float
    step: int


def draw(number, seed):
    """The trial of a number: everything about it is a function of the two."""
    rng = np.random.default_rng([seed, number])
    for attempt in itertools.count():
        optimizer = str(rng.choice(OPTIMIZERS))
        method = str(rng.choice(METHODS)) if optimizer in ("hig", "gn") else "auto"
        places = ANYWHERE + PLACES.get(optimizer, FIRST_ORDER)
        trial = Trial(
            number,
            str(rng.choice(list(SMALL))),
            optimizer,
            method,
            str(rng.choice(["float64", "float32"])),
            str(rng.choice(places)),
            VALUES[rng.integers(3)],
            int(rng.integers(STEPS)),
        )
        squares = method in SQUARING or optimizer == "lm"
        if (trial.place != "K" or squares) and clean(trial, trial.step + 1).status == "budget":
            return trial, np.random.default_rng([seed, number, attempt])


@functools.cache
def task(experiment, dtype):
    return SMALL[experiment].problem(seed=1, dtype=np.dtype(dtype))


def optimizer_of(trial):
    """The experiment's own, with a tau that every method resolves, in either precision."""
    optimizer = SMALL[trial.experiment].settings[trial.optimizer].optimizer
    if trial.optimizer in ("hig", "gn"):
        return dataclasses.replace(optimizer, method=trial.method, tau=1e-3)
    return optimizer


def clean(trial, steps):
    """The run without poison after some steps."""
    return _clean(*trial[1:5], steps)


@functools.cache
def _clean(experiment, optimizer, method, dtype, steps):
    trial = Trial(0, experiment, optimizer, method, dtype, "", 0.0, 0)
    return run(trial, max(steps, 1), stop=steps == 0)


def run(trial, steps, stop=False):
    problem, stops = task(trial.experiment, trial.dtype), [lambda result: stop]
    return fit(problem, optimizer_of(trial), batch=BATCH, steps=steps, on_epoch=stops)


class Poison:
    """Spoils one number of what passes a place, once, from the call of ``batch`` of a step on."""

    def __init__(self, trial, rng):
        self.trial, self.rng, self.armed, self.done = trial, rng, False, False

    def spoil(self, array):
        """Write the value to a random entry."""
        self.armed, self.done = False, True
        self.index = int(self.rng.integers(array.size))
        np.put(array, self.index, self.trial.value)
        return array

    def spoiled(self, array):
        """A copy of an array, or another number, with the value in it."""
        if not hasattr(array, "shape"):
            self.armed, self.done = False, True
            return self.trial.value
        return self.spoil(array.copy())

    def patches(self, problem, optimizer):
        """The methods that are watched for this place, and what is done to each call of them."""
        network, solver, loss = (type(p) for p in (problem.network, problem.solver, problem.loss))
        place, kind = self.trial.place, type(optimizer)
        watched = {
            "theta": [(network, "forward", self.parameters)],
            "control": [(network, "forward", self.first_of_result)],
            "output": [(solver, "forward", self.first_of_result)],
            "loss gradient": [(loss, "gradient", self.result)],
            "adjoint": [(solver, "backward", self.result)],
            "S": [(solver, "rows", self.result)],
            "row factors": [(network, "rows", self.factors)],
            "K": [(StackedJacobian, n, self.result) for n in ("gram", "gram_of_parameters")],
            "state": [(kind, "update", self.state)],
            "step": [(kind, "update", self.first_of_result)],
        }
        return [(type(problem), "batch", self.data), *watched.get(place, [])]

    def data(self, call, problem, step, size):
        """Of a step; arms what else is watched."""
        batch, place = call(problem, step, size), self.trial.place
        self.armed = step == self.trial.step
        if self.armed and place in DATA:
            batch = dataclasses.replace(batch, **{place: self.spoiled(getattr(batch, place))})
        return batch

    def result(self, call, *args, **options):
        found = call(*args, **options)
        return self.spoiled(found) if self.armed else found

    def first_of_result(self, call, *args):
        first, *rest = call(*args)
        return (self.spoiled(first) if self.armed else first), *rest

    def parameters(self, call, network, theta, x):
        """In place: those of the run itself."""
        if self.armed:
            self.spoil(theta)
        return call(network, theta, x)

    def factors(self, call, *args):
        blocks = call(*args)
        if self.armed:
            block, name = blocks[self.rng.integers(len(blocks))], self.rng.choice(["a", "delta"])
            setattr(block, name, self.spoiled(getattr(block, name)))
        return blocks

    def state(self, call, optimizer, linearisation, state):
        if self.armed:
            name = self.rng.choice(sorted(state))
            state = state | {name: self.spoiled(state[name])}
        return call(optimizer, linearisation, state)


def watching(owner, name, watch):
    """A patch under which ``watch`` is handed every call of a method."""
    method = getattr(owner, name)
    return patch.object(owner, name, functools.partialmethod(_handed, method, watch))


def _handed(self, method, watch, *args, **options):
    return watch(method, self, *args, **options)


def verdict(trial, rng):
    """What comes of a trial, in a word, and in a sentence if there is one."""
    before, after = clean(trial, trial.step), clean(trial, trial.step + 1)
    poison, optimizer = Poison(trial, rng), optimizer_of(trial)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        patches = [
            watching(*p) for p in poison.patches(task(trial.experiment, trial.dtype), optimizer)
        ]
        try:
            for p in patches:
                p.start()
            found = run(trial, trial.step + 1)
        except Exception as error:
            return "raised", f"{type(error).__name__}: {error}"
        finally:
            for p in reversed(patches):
                p.stop()
    if not poison.done:
        return "silent", "the number was never put in: the trial shows nothing"
    return outcome(trial, poison, found, before, after)


def outcome(trial, poison, found, before, after):
    """Compare the poisoned run with the clean ones before and after the step."""
    if found.status == "raised":
        return "raised", found.message
    if found.status in ("non-finite", "failed"):
        theta = before.theta.copy()
        if trial.place == "theta":
            theta[poison.index] = trial.value
        kept = bits(found.theta) == bits(theta) and same_state(found, before)
        return ("refused" if kept else "silent"), found.message
    if bits(found.theta) == bits(after.theta) and same_state(found, after):
        return "harmless", ""
    fallback = getattr(found.state.info, "fallback", None)
    length = np.linalg.norm(after.theta - before.theta)
    right = np.linalg.norm(found.theta - after.theta) <= 1e-3 * length
    return ("noticed" if fallback and right else "silent"), fallback or found.message


def bits(value):
    return value.tobytes() if hasattr(value, "tobytes") else value


def same_state(a, b):
    states = [{k: bits(v) for k, v in r.state.optimizer.items()} for r in (a, b)]
    return states[0] == states[1] and a.steps == b.steps


def work(first, last, seed):
    """Make some trials in this process, and print a line before and after each."""
    for number in range(first, last):
        print(json.dumps([number, "begun", ""]), flush=True)
        trial, rng = draw(number, seed)
        print(json.dumps([number, "drawn", describe(trial)]), flush=True)
        faulthandler.dump_traceback_later(PATIENCE, exit=True)
        word, sentence = verdict(trial, rng)
        faulthandler.cancel_dump_traceback_later()
        print(json.dumps([number, word, f"{describe(trial)}: {sentence}"]), flush=True)


def describe(trial):
    return ", ".join(map(str, trial[1:]))


def work_elsewhere(first, last, seed, python=(sys.executable, __file__)):
    """Make the trials in subprocesses; yield (number, word, sentence) of each."""
    while first < last:
        command = [*python, "--worker", f"{first},{last}", "--seed", str(seed)]
        done = subprocess.run(command, capture_output=True, text=True)
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        yield from (line for line in lines if line[1] not in ("begun", "drawn"))
        if not lines:
            raise SystemExit(done.stderr)
        if done.returncode:
            number, word, sentence = lines[-1]
            if word == "begun":
                raise SystemExit(done.stderr)
            yield number, "hung" if "Timeout" in done.stderr else "crashed", sentence + done.stderr
        first = lines[-1][0] + 1


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--verbose", action="store_true", help="Print every trial.")
    parser.add_argument("--worker", help="FIRST,LAST: make these trials in this process.")
    options = parser.parse_args()
    if options.worker:
        work(*map(int, options.worker.split(",")), options.seed)
        return 0
    counts = Counter()
    for number, word, sentence in work_elsewhere(0, options.trials, options.seed):
        counts[word] += 1
        if options.verbose or word in DEFECTS:
            print(f"{word} ({number}): {sentence}", flush=True)
    shown = ", ".join(f"{counts[word]} {word}" for word in ("refused", "harmless", "noticed"))
    defects = ", ".join(f"{counts[word]} {word}" for word in DEFECTS)
    print(f"{counts.total()} trials: {shown}; {defects}")
    return sum(counts[word] for word in DEFECTS) > 0


if __name__ == "__main__":
    sys.exit(main())
