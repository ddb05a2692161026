"""A run in progress: steps, evaluations, and everything that may end it."""

from __future__ import annotations

import logging
import math
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from statistics import median
from typing import Any

from .backend import Array, is_host
from .blame import DECOMPOSITION, clause, is_own_check, origin
from .callbacks import Callback, asked_to_stop, finishers
from .clock import Clock
from .diagnostics import diagnose
from .interrupts import Interrupts, held_back, is_interrupt
from .linearisation import Linearisation
from .problem import Problem
from .progress import Show, tell
from .protocols import Optimizer
from .result import (
    FELL_BACK,
    MESSAGES,
    UNSUCCESSFUL,
    Diagnostics,
    Epoch,
    History,
    Result,
    State,
    is_lost,
)
from .validation import NonFiniteError, check_finite

STEP_TIMES_KEPT = 10_000  # the median step time looks at this many latest steps
CUT_SHORT = ("running", "interrupted", "stopped", "raised")  # by something beside the run
STEP_TIMES_SEEN = 101  # and in a callback, which may be called every millisecond, at these


class _Stop(Exception):
    """Ends a run with a status and its reason."""


def require_finite(arrays: dict[str, Array]) -> None:
    """Raise `NonFiniteError` for the first of the named arrays that is not finite."""
    for name, array in arrays.items():
        check_finite(name, array)


@dataclass
class Run:
    """A run in progress; `fit` makes it and says what the fields mean."""

    problem: Problem
    optimizer: Optimizer
    batch: int
    budget: dict[str, float | None]
    evaluate_every: int
    patience: int | None
    clock: Clock
    state: State
    identity: dict[str, Any]
    on_step: Sequence[Callback] = ()
    on_epoch: Sequence[Callback] = ()
    diagnosed: bool = False
    diagnostics: Diagnostics = field(default_factory=Diagnostics)
    history: History = field(default_factory=History)
    cut_short: bool = False  # whether the last row was perhaps never looked at
    best: int = 0  # row of the history with the smallest test loss
    first_step_seconds: float = 0.0
    fallbacks: int = 0
    first_fallback: str = ""
    step_times: deque[float] = field(default_factory=lambda: deque(maxlen=STEP_TIMES_KEPT))

    def __post_init__(self) -> None:
        self.total: Array = 0.0
        self.cause: Exception | None = None  # of a run that an exception ended
        self.begun = self.state.steps
        self.keep(self.state)

    def take_over(self, earlier: Result) -> None:
        """Go on with what an earlier `Result` counted and recorded."""
        self.history.extend(earlier.history)
        if self.state.epoch_steps and self.history[-1].step == self.state.steps:
            self.history.pop()  # the last row of a run that ended within an epoch
        self.cut_short = earlier.status in CUT_SHORT
        losses = [row.test_loss for row in self.history]
        self.best = losses.index(min(losses)) if losses else 0
        self.first_step_seconds, self.fallbacks = earlier.first_step_seconds, earlier.fallbacks
        self.first_fallback = "in the run before" if earlier.fallbacks else ""
        self.diagnostics.extend(earlier.diagnostics)
        self.keep(self.state)

    def complete(self, show: Show) -> Result:
        """Train and return the `Result`, whatever ends it; ``show(share, run)`` at every step."""
        with held_back() as interrupts:
            try:
                result = self.finish(*self.ending(lambda: self.train(show, interrupts)))
            except BaseException:  # what goes through leaves its last state behind, if it has one
                self.state = self.settled
                if self.state.steps > self.begun:
                    self.hand_over(self.result())
                raise
            return self.hand_over(result)

    def ending(self, action: Callable[[], object]) -> tuple[str, str]:
        """What ended ``action()``, as status and reason; ("", "") if nothing did.

        Arguments that turn out to be bad ones before there is anything to lose are raised.
        """
        try:
            action()
        except _Stop as stop:
            return stop.args
        except NonFiniteError as error:
            return "non-finite", str(error)
        except MemoryError:  # `fit` says which batch would fit
            raise
        except KeyboardInterrupt:
            return "interrupted", ""
        except Exception as error:
            if is_interrupt(error):  # what compiled code made of one
                return "interrupted", ""
            if self.state.steps == self.begun and is_own_check(error):
                raise
            return self.blame(error, origin(error, self.problem, self.optimizer))
        return "", ""

    def blame(self, error: Exception, who: str) -> tuple[str, str]:
        """Status and reason of a run that an exception ended; the first one is kept."""
        if self.cause is None:
            self.cause = error
        if who == DECOMPOSITION:
            return "failed", str(error)
        return "raised", clause(error, who, self.state.steps)

    def train(self, show: Show, interrupts: Interrupts) -> None:
        """Step until something raises `_Stop`, or worse."""
        self.catch_up()
        while not (spent := self.spent_budget()):
            interrupts.raise_pending()
            self.advance()
            if self.on_step:
                with self.clock.paused():
                    self.call(self.on_step)
            if self.is_time_to_evaluate():
                self.record()
            show(self.largest_share(), self.result)
        raise _Stop("budget", spent)

    def catch_up(self) -> None:
        """Do what an uninterrupted run would have had to do before its next step."""
        if not self.history:
            # Compiling the forward pass counts as training time; evaluating the test set does not.
            self.problem.predict(self.state.theta, self.problem.sample[:1])
            self.record()
        elif self.history[-1].step < self.state.steps and self.is_time_to_evaluate():
            self.record()  # saved by a callback after the last step of an epoch
        elif self.cut_short:
            self.look_back()  # perhaps saved, or ended, by a callback of an evaluation

    def is_time_to_evaluate(self) -> bool:
        """Whether the steps so far make whole epochs, as many as `fit` was told."""
        interval = self.problem.steps_per_epoch(self.batch) * self.evaluate_every
        return self.state.steps % interval == 0

    def call(self, callbacks: Sequence[Callback]) -> None:
        """Hand the run so far to callbacks, which may ask to stop."""
        if callbacks and self.ask(lambda result: asked_to_stop(callbacks, result), self.result()):
            raise _Stop("stopped", "")

    def ask(self, callback: Callback, result: Result) -> object:
        """What a callback answers; whatever it raises ends the run as raised by it."""
        try:
            return callback(result)
        except Exception as error:
            raise _Stop(*self.blame(error, "a callback")) from error

    def hand_over(self, result: Result) -> Result:
        """Give the end of the run to the callbacks that wait for it; the `Result` after that."""
        for finish in finishers((*self.on_step, *self.on_epoch)):
            status, reason = self.ending(partial(self.ask, finish, result))
            if status:
                spoiled = self.result(status, reason)
                tell(logging.WARNING, "%s", spoiled.message)
                result = spoiled if result.status in ("budget", "stopped") else result
        return result

    def advance(self) -> None:
        """One update. A device is not waited for, but in the first one and where `update` does."""
        if is_host(self.state.theta) or not self.first_step_seconds:
            self.step(require_finite)
            self.keep(self.state)
            return
        try:
            self.step(self.add_up)
        except NonFiniteError:
            self.retrace(self.state.steps + 1)

    def step(self, look: Callable[[dict[str, Array]], None]) -> None:
        """One update; ``look`` is shown what came out of it, by name, before any of it is kept."""
        old, begin = self.state, self.clock.read()
        at = self.problem.linearise(old.theta, self.problem.batch(old.steps, self.batch))
        on_host = is_host(old.theta)
        loss = at.loss if on_host else at.mean_loss
        look({"the training loss": at.mean_loss, "the loss gradient": at.loss_gradient})
        change, optimizer_state, info = self.optimizer.update(at, old.optimizer)
        theta = old.theta - change
        arrays = {k: v for k, v in optimizer_state.items() if hasattr(v, "shape")}
        look({"the step": change, "theta after the step": theta})
        look({f"the optimizer's {name}": array for name, array in arrays.items()})
        now = self.clock.read()
        self.state = State(
            theta, optimizer_state, old.steps + 1, now, old.epoch_loss + loss, old.epoch_steps + 1,
            info,
        )  # fmt: skip
        if on_host:
            self.step_times.append(now - begin)
        self.first_step_seconds = self.first_step_seconds or now
        self.note(at, change, info)

    def note(self, at: Linearisation, change: Array, info: Any) -> None:
        """Count a fall-back, and diagnose the step if that was asked for."""
        if reason := getattr(info, "fallback", None):
            self.fallbacks += 1
            if not self.first_fallback:
                self.first_fallback = reason
                tell(logging.WARNING, "step %d: %s", self.state.steps, reason)
        if self.diagnosed:
            with self.clock.paused():
                self.diagnostics.append(diagnose(self.state.steps, at, change, info))

    def keep(self, state: State) -> None:
        """Take a state that is known to be finite as the one to go back to."""
        self.state = self.settled = state
        self.settled_fallbacks = self.fallbacks

    def add_up(self, arrays: dict[str, Array]) -> None:
        """Keep the sum of everything on the device: NaN and Inf stay in it until `settle` looks."""
        self.total = sum((array.sum() for array in arrays.values()), self.total)

    def settle(self) -> None:
        """Wait for a device, and make sure that all updates since the last time were finite."""
        if is_host(self.state.theta) or self.state.steps == self.settled.steps:
            return
        if not math.isfinite(float(self.total)):
            self.retrace(self.state.steps)
        now, steps = self.clock.read(), self.state.steps - self.settled.steps
        if steps > 0:
            self.step_times.extend([(now - self.settled.seconds) / steps] * steps)
        self.keep(self.state._replace(seconds=now))
        self.total = 0.0

    def retrace(self, steps: int) -> None:
        """From the last state known to be finite, go carefully up to the update that is not.

        Batches are a function of the step, so all of it comes out as it did before; what was
        counted on the way is counted again.
        """
        self.state, self.total, self.fallbacks = self.settled, 0.0, self.settled_fallbacks
        self.diagnostics = Diagnostics(d for d in self.diagnostics if d.step <= self.state.steps)
        while self.state.steps < steps:
            begin = self.clock.read()
            self.step(require_finite)
            self.step_times.append(self.state.seconds - begin)
            self.keep(self.state)

    def record(self, within: bool = False) -> None:
        """Append the losses to the history and call the callbacks, off the clock.

        Of a row ``within`` the epochs between two evaluations, the last one, the sum of training
        losses is kept for a run that goes on.
        """
        self.settle()
        with self.clock.paused():
            state = self.state
            train = float(state.epoch_loss) / state.epoch_steps if state.epoch_steps else None
            epoch = state.steps / self.problem.steps_per_epoch(self.batch)
            test = self.problem.evaluate(state.theta)
            self.history.append(Epoch(epoch, state.steps, state.seconds, train, test))
            if not within:
                self.keep(state._replace(epoch_loss=0.0, epoch_steps=0))
            line = "epoch %.6g, step %d: train %s, test %.4e"
            tell(logging.INFO, line, epoch, state.steps, train, test)
            self.call(self.on_epoch)
            self.look_back()

    def look_back(self) -> None:
        """End the run if its history says that it is lost, or gets nowhere."""
        row, first, latest = self.history[-1], self.history[0], len(self.history) - 1
        if not math.isfinite(first.test_loss):
            raise _Stop("non-finite", f"the test loss is {first.test_loss:g} before any step")
        if is_lost(row.test_loss, first.test_loss):
            raise _Stop("diverged", f"is {row.test_loss:.3g}; it began with {first.test_loss:.3g}")
        if row.test_loss < self.history[self.best].test_loss:
            self.best = latest
        if self.patience and latest - self.best >= self.patience:
            raise _Stop("stagnated", f"{self.patience} evaluations")

    def shares(self) -> dict[str, float]:
        """Name and spent share of each budget."""
        epochs = self.state.steps / self.problem.steps_per_epoch(self.batch)
        spent = {"seconds": self.state.seconds, "steps": self.state.steps, "epochs": epochs}
        return {f"{v:g} {k}": spent[k] / v for k, v in self.budget.items() if v is not None}

    def largest_share(self) -> float:
        """Share of the budget that is nearest to its end."""
        return max(self.shares().values())

    def spent_budget(self) -> str:
        """Name of a budget that is spent, or ""."""
        return next((name for name, share in self.shares().items() if share >= 1), "")

    def finish(self, status: str, reason: str) -> Result:
        """The `Result` at the end, with a last row of the history unless Ctrl-C comes again."""
        last, why = self.ending(self.last_row)
        good = ("budget", "stopped") if last == "raised" else ("budget",)
        if last and (status in good or last in ("non-finite", "interrupted")):
            status, reason = last, why
        result = self.result(status, reason)
        if status in UNSUCCESSFUL:
            tell(logging.WARNING, "%s", result.message)
        return result

    def last_row(self) -> None:
        """Make sure that the state is finite, and that the history ends with it."""
        self.settle()
        if not self.history or self.history[-1].step < self.state.steps:
            self.record(within=not self.is_time_to_evaluate())

    def result(self, status: str = "running", reason: str = "") -> Result:
        """The run so far as a `Result`."""
        seen = len(self.step_times) if status != "running" else STEP_TIMES_SEEN
        times = list(islice(reversed(self.step_times), seen))
        message = MESSAGES[status].format(reason=reason)
        if self.fallbacks and status != "running":
            message += FELL_BACK.format(count=self.fallbacks, reason=self.first_fallback)
        return Result(
            self.state._replace(epoch_loss=float(self.state.epoch_loss)),
            History(self.history),
            self.batch,
            self.identity,
            status,
            message,
            self.first_step_seconds,
            median(times) if times else 0.0,
            self.fallbacks,
            Diagnostics(self.diagnostics),
            "".join(traceback.format_exception(self.cause)) if self.cause else "",
        )
