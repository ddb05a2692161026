"""A run in progress: steps, evaluations, and everything that may end it."""

from __future__ import annotations

import logging
import math
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from typing import NamedTuple, TypeAlias

import numpy as np

from ..problem import Batch
from ..sharing.ranks import is_of_all
from ..validation import NonFiniteError
from .blame import DECOMPOSITION, clause, is_own_check, origin
from .diagnostics import Diagnostics
from .interrupts import Interrupts
from .progress import Show, tell
from .result import FELL_BACK, MESSAGES, UNSUCCESSFUL, Best, Epoch, History, Result, is_lost
from .updates import STEP_TIMES_KEPT, Updates

CUT_SHORT = ("running", "interrupted", "stopped", "raised")  # by something beside the run
STEP_TIMES_SEEN = 101  # in a callback, which may be called every millisecond

Callback: TypeAlias = Callable[[Result], object]  # True asks to stop


class Interval(NamedTuple):
    """Between two evaluations: so many "steps", "epochs" or training "seconds"."""

    number: float | Fraction
    unit: str


class Ended(Exception):
    """Ends a run with a status and its reason."""


@dataclass
class Run:
    """A run in progress; `fit` makes it and says what the fields mean."""

    updates: Updates
    budget: dict[str, float | None]
    evaluate_every: Interval
    patience: int | None
    validation: Batch | None = None
    on_step: Sequence[Callback] = ()
    on_epoch: Sequence[Callback] = ()

    def __post_init__(self) -> None:
        updates = self.updates
        self.problem, self.clock, self.earlier = updates.problem, updates.clock, updates.earlier
        self.ranks = self.problem.ranks
        self.steps_per_epoch = self.problem.steps_per_epoch(updates.batch)
        self.history, state = History(self.earlier.history), self.earlier.state
        self.best = self.earlier.best
        if self.evaluate_every.unit == "epochs":
            steps = self.evaluate_every.number * self.steps_per_epoch
            self.evaluate_every = Interval(steps, "steps")
        if state.epoch_steps and self.history[-1].step == state.steps:
            self.history.pop()  # the last row of a run that ended within an epoch
        self.cause: Exception | None = None  # of a run that an exception ended

    # Steps

    @property
    def steps(self) -> int:
        return self.updates.state.steps

    def complete(self, show: Show, interrupts: Interrupts) -> Result:
        """Train and return the `Result`, whatever ends it; ``show(share, run)`` at every step."""
        try:
            result = self.finish(*self.ending(lambda: self.train(show, interrupts)))
        except BaseException as error:
            if not isinstance(error, Exception):  # which the other ranks are not told of
                self.ranks.end_all()
            # What goes through leaves its last state behind, if it has one.
            self.updates.go_back()
            if self.steps > self.earlier.steps:
                self.hand_over(self.result())
            raise
        return self.hand_over(result)

    def train(self, show: Show, interrupts: Interrupts) -> None:
        """Step until something raises `Ended`, or worse."""
        self.catch_up()
        while self.spent()[0] < 1:
            if interrupts.pending:
                raise Ended("interrupted", "")
            self.updates.advance()
            with self.clock.paused():
                self.call(self.on_step)
            if self.is_time_to_evaluate():
                self.evaluate()
            show(self.spent()[0], self.result)
        raise Ended("budget", self.spent()[1])

    def catch_up(self) -> None:
        """Do what an uninterrupted run would have had to do before its next step."""
        if not self.history:
            # Compiling the forward pass counts as training time; evaluating the test set does not.
            self.problem.predict(self.updates.state.theta, self.problem.sample[:1])
            self.evaluate()
        elif self.history[-1].step < self.steps and self.is_time_to_evaluate():
            self.evaluate()  # saved by a callback after the last step of an epoch
        elif self.earlier.status in CUT_SHORT:
            self.end_if_hopeless()  # perhaps saved, or ended, by a callback of an evaluation

    def spent(self) -> tuple[float, str]:
        """The largest share of a budget that is spent, and what that budget is."""
        epochs = self.steps / self.steps_per_epoch
        spent = {"seconds": self.updates.state.seconds, "steps": self.steps, "epochs": epochs}
        given = {name: value for name, value in self.budget.items() if value is not None}
        share, name = max((spent[name] / value, name) for name, value in given.items())
        return share, f"{given[name]:g} {name}"

    # Evaluations

    def is_time_to_evaluate(self) -> bool:
        """Whether the last step made an interval whole, of those that `fit` was told."""
        number, unit = self.evaluate_every
        if unit == "seconds":
            then = self.history[-1].seconds if self.history else -number
            return self.updates.state.seconds // number > then // number
        return self.steps // number > (self.steps - 1) // number

    def evaluate(self, within: bool = False) -> None:
        """Append the losses to the history and call the callbacks, off the clock.

        Of a row ``within`` the epochs between two evaluations, the last one, the sum of training
        losses is kept for a run that goes on.
        """
        self.updates.confirm()
        with self.clock.paused():
            state, epoch = self.updates.state, self.steps / self.steps_per_epoch
            train = float(state.epoch_loss) / state.epoch_steps if state.epoch_steps else None
            row = Epoch(epoch, state.steps, state.seconds, train, *self.losses())
            self.keep_if_best(row)
            self.history.append(row)
            if not within:
                self.updates.trust(state._replace(epoch_loss=0.0, epoch_steps=0))
            line = "epoch %.6g, step %d: train %s, test %.4e"
            tell(logging.INFO, line, epoch, state.steps, train, row.test_loss)
            self.call(self.on_epoch)
            self.end_if_hopeless()

    def losses(self) -> Iterator[float]:
        """Test loss and, where there are data for it, validation loss."""
        theta = self.updates.state.theta
        yield self.problem.evaluate(theta)
        if self.validation is not None:
            yield self.problem.evaluate(theta, self.validation)

    def keep_if_best(self, row: Epoch) -> None:
        """Keep a copy of the parameters if no row before was judged to be as good."""
        loss, best = row.judged_loss, self.best
        if math.isfinite(loss) and (best is None or loss < best.loss):
            self.best = Best(self.updates.state.theta.copy(), loss, row.epoch, row.step)

    def end_if_hopeless(self) -> None:
        """End the run if its history says that it is lost, or gets nowhere."""
        names = ("test_loss",) if self.validation is None else ("test_loss", "validation_loss")
        for name in names:
            first, latest = (getattr(self.history[k], name) for k in (0, -1))
            label = name.replace("_", " ")
            if not math.isfinite(first):
                raise Ended("non-finite", f"the {label} is {first:g} before any step")
            if is_lost(latest, first):
                raise Ended("diverged", f"{label} is {latest:.3g}; it began with {first:.3g}")
        if self.patience is None:
            return
        losses = [getattr(row, name) for row in self.history]
        since_best = len(losses) - 1 - losses.index(min(losses))
        if since_best >= self.patience:
            raise Ended("stagnated", f"{label} did not improve in {self.patience} evaluations")

    # Callbacks

    def call(self, callbacks: Sequence[Callback]) -> None:
        """Hand the run so far to all of the callbacks; one that asks to stop ends it."""
        self.ranks.together(lambda: self.ask(callbacks if self.ranks.is_first else ()))

    def ask(self, callbacks: Sequence[Callback]) -> None:
        """The same on the one rank that does."""
        result = self.result() if callbacks else self.earlier
        asked = [self.asks_to_stop(callback, result) for callback in callbacks]
        if any(asked):
            raise Ended("stopped", "")

    def asks_to_stop(self, callback: Callback, result: Result) -> bool:
        """Whether a callback does; whatever else it raises ends the run as raised by it."""
        try:
            answer = callback(result)
        except StopIteration:
            return True
        except Exception as error:
            if is_of_all(error):  # which the callback did not raise alone
                raise
            raise Ended(*self.blame(error, "a callback")) from error
        return isinstance(answer, (bool, np.bool_)) and bool(answer)

    def hand_over(self, result: Result) -> Result:
        """Give the end of the run to the callbacks that wait for it; the `Result` after that."""
        found = self.ranks.together(
            lambda: self.hand_to_callbacks(result) if self.ranks.is_first else result
        )
        status, message = self.ranks.agreed((found.status, found.message))
        return found if status == found.status else replace(found, status=status, message=message)

    def hand_to_callbacks(self, result: Result) -> Result:
        """The same on the one rank that does."""
        once = {id(callback): callback for callback in (*self.on_step, *self.on_epoch)}
        waiting = [getattr(callback, "finish", None) for callback in once.values()]
        for finish in filter(callable, waiting):
            status, reason = self.ending_of_one(partial(self.asks_to_stop, finish, result))
            if status:
                spoiled = self.result(status, reason)
                tell(logging.WARNING, "%s", spoiled.message)
                result = spoiled if result.status in ("budget", "stopped") else result
        return result

    # What ends it

    def ending(self, action: Callable[[], object]) -> tuple[str, str]:
        """What ended ``action()``, as status and reason; ("", "") if nothing did.

        Arguments that turn out to be bad ones before there is anything to lose are raised.
        """
        try:
            return self.ending_of_one(lambda: self.ranks.together(action))
        except NonFiniteError as error:
            return "non-finite", str(error)
        except MemoryError:  # `fit` says which batch would fit
            raise
        except Exception as error:
            if isinstance(error, SystemError) and isinstance(error.__cause__, KeyboardInterrupt):
                self.ranks.end_all()
                return "interrupted", ""  # what compiled code makes of one
            by_others = self.ranks.any_of(not is_own_check(error))  # where its frames are
            if self.steps == self.earlier.steps and not by_others:
                raise
            who = origin(error, self.problem, self.updates.optimizer)
            return self.blame(error, self.ranks.any_of(who))

    def ending_of_one(self, action: Callable[[], object]) -> tuple[str, str]:
        """The same of what one rank does alone; other exceptions go through.

        A Ctrl-C that was not held back ends all ranks at once, as they cannot meet any more.
        """
        try:
            action()
        except Ended as end:
            return end.args
        except KeyboardInterrupt:
            self.ranks.end_all()
            return "interrupted", ""
        return "", ""

    def blame(self, error: Exception, who: str) -> tuple[str, str]:
        """Status and reason of a run that an exception ended; the first one is kept."""
        if self.cause is None:
            self.cause = error
        if who == DECOMPOSITION:
            return "failed", str(error)
        return "raised", clause(error, who, self.steps)

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
        self.updates.confirm()
        if not self.history or self.history[-1].step < self.steps:
            self.evaluate(within=not self.is_time_to_evaluate())

    def result(self, status: str = "running", reason: str = "") -> Result:
        """The run so far as a `Result`."""
        updates, running = self.updates, status == "running"
        message = MESSAGES[status].format(reason=reason)
        if updates.fallbacks and not running:
            message += FELL_BACK.format(count=updates.fallbacks, reason=updates.first_fallback)
        return Result(
            updates.state._replace(epoch_loss=float(updates.state.epoch_loss)),
            History(self.history),
            updates.batch,
            self.earlier.identity,
            status,
            message,
            updates.first_step_seconds,
            updates.seconds_per_step(STEP_TIMES_SEEN if running else STEP_TIMES_KEPT),
            updates.fallbacks,
            Diagnostics(updates.diagnostics),
            "".join(traceback.format_exception(self.cause)) if self.cause else "",
            self.best,
        )
