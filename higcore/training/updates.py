"""The updates of a run, none of which leaves NaN or Inf behind, and the clock that times them."""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from statistics import median
from typing import Any, NamedTuple

from ..backend import Array, is_host
from ..problem import Problem
from ..protocols import Optimizer
from ..validation import NonFiniteError, check_finite
from .diagnostics import Diagnostics, diagnose
from .progress import tell
from .result import Result, State

STEP_TIMES_KEPT = 10_000  # the median step time is that of so many latest steps


class Clock:
    """Seconds since its making, on top of those of an earlier run, less the paused ones."""

    def __init__(self, earlier: float) -> None:
        self.zero = time.perf_counter() - earlier

    def read(self) -> float:
        return time.perf_counter() - self.zero

    @contextmanager
    def paused(self) -> Iterator[None]:
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.zero += time.perf_counter() - begin


class Finite(NamedTuple):
    """A state that is known to be finite, and what was counted up to it."""

    state: State
    fallbacks: int
    recorded: int  # rows of the diagnostics


class Updates:
    """The state of a run, the updates that move it, and what is counted of them.

    On a host, all that comes out of an update is looked at before it is kept. A device is not
    waited for: there, everything is added up, NaN and Inf stay in the sum, and `confirm` looks at
    it. If it is not finite, the updates since the last state known to be are made again, one by one
    as on a host, up to the one that is to blame.

    ``earlier`` is the run that they go on from: of a new one, a `Result` without a history.
    """

    state: State
    sum_on_device: Array

    def __init__(
        self, problem: Problem, optimizer: Optimizer, earlier: Result, diagnosed: bool
    ) -> None:
        self.problem, self.optimizer = problem, optimizer
        self.earlier, self.batch = earlier, earlier.batch
        self.clock = Clock(earlier.seconds)
        self.first_step_seconds = earlier.first_step_seconds
        self.step_times: deque[float] = deque(maxlen=STEP_TIMES_KEPT)
        self.fallbacks = earlier.fallbacks
        self.first_fallback = "in the run before" if earlier.fallbacks else ""
        self.diagnosed, self.diagnostics = diagnosed, Diagnostics(earlier.diagnostics)
        self.trust(earlier.state)

    def advance(self) -> None:
        """Make an update; a device is waited for in the first one, or if the optimizer waits."""
        if is_host(self.state.theta):
            self.step_times.append(self.make_checked())
        elif not self.first_step_seconds:
            self.make_checked()
        else:
            try:
                self.make(self.add_to_sum)
            except NonFiniteError:
                self.make_again(self.state.steps + 1)

    def confirm(self) -> None:
        """Wait for a device, and make sure that all updates since the last time were finite."""
        made = self.state.steps - self.finite.state.steps
        if is_host(self.state.theta) or not made:
            return
        if not math.isfinite(float(self.sum_on_device)):
            self.make_again(self.state.steps)
            return
        now = self.problem.ranks.agreed(self.clock.read())
        self.step_times.extend([(now - self.finite.state.seconds) / made] * made)
        self.trust(self.state._replace(seconds=now))

    def make_again(self, steps: int) -> None:
        """From the last state known to be finite, make the updates up to ``steps`` carefully.

        Batches are a function of the step, so all of it comes out as it did before.
        """
        self.go_back()
        while self.state.steps < steps:
            self.step_times.append(self.make_checked())

    def make_checked(self) -> float:
        """Make an update and look at all of it before it is kept; return the seconds it took."""
        begin = self.clock.read()
        self.make(check_finite)
        self.trust(self.state)
        return self.state.seconds - begin

    def make(self, watch: Callable[[str, Array], None]) -> None:
        """Make an update; ``watch`` is shown what comes out of it by name before it is kept."""
        old = self.state
        at = self.problem.linearise(old.theta, self.problem.batch(old.steps, self.batch))
        loss = at.loss if is_host(old.theta) else at.mean_loss
        watch("the training loss", at.mean_loss)
        watch("the loss gradient", at.loss_gradient)
        change, optimizer_state, info = self.optimizer.update(at, old.optimizer)
        new = State(
            old.theta - change, optimizer_state, old.steps + 1, 0.0, old.epoch_loss + loss,
            old.epoch_steps + 1, info,
        )  # fmt: skip
        watch("the step", change)
        watch("theta after the step", new.theta)
        for name, array in new.optimizer_arrays.items():
            watch(f"the optimizer's {name}", array)
        self.state = new._replace(seconds=self.problem.ranks.agreed(self.clock.read()))
        self.first_step_seconds = self.first_step_seconds or self.state.seconds
        self.count_fallback(info)
        if self.diagnosed:
            with self.clock.paused():
                self.diagnostics.append(diagnose(self.state.steps, at, change, info))

    def add_to_sum(self, name: str, array: Array) -> None:
        """Add up on the device, without waiting for it."""
        self.sum_on_device = self.sum_on_device + array.sum()

    def count_fallback(self, info: Any) -> None:
        """Count a step whose ``info`` tells of a fall-back; the first one is logged."""
        if reason := getattr(info, "fallback", None):
            self.fallbacks += 1
            if not self.first_fallback:
                self.first_fallback = reason
                tell(logging.WARNING, "step %d: %s", self.state.steps, reason)

    def trust(self, state: State) -> None:
        """Take a state that is known to be finite as the one to go back to."""
        self.state, self.sum_on_device = state, 0.0
        self.finite = Finite(state, self.fallbacks, len(self.diagnostics))

    def go_back(self) -> None:
        """Return to the last state known to be finite, and to what was counted then."""
        self.state, self.fallbacks, recorded = self.finite
        self.sum_on_device = 0.0
        del self.diagnostics[recorded:]

    def seconds_per_step(self, latest: int) -> float:
        """Median over the latest steps, 0 before the first one."""
        times = list(islice(reversed(self.step_times), latest))
        return median(times) if times else 0.0
