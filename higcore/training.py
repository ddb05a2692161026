"""The training loop: budgets, clock, history, and a result that says why it stopped."""

from __future__ import annotations

import math
import re
import time
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from .backend import array_module, is_host, release_memory, thread_policy, to_device
from .half_inverse import within_memory
from .memory import ran_out_of_memory
from .problem import Problem
from .progress import progress_line
from .spectral.modes import DecompositionError
from .validation import NonFiniteError, check_array, check_count, check_finite, check_real

STEP_TIMES_KEPT = 10_000  # the median step time looks at this many latest steps

MESSAGES = {
    "running": "Still running.",
    "budget": "Stopped because the budget of {reason} was spent.",
    "stopped": "Stopped because a callback asked for it.",
    "interrupted": "Interrupted from the keyboard; this is the last complete state.",
    "failed": (
        "Stopped because a decomposition failed for good ({reason}). theta is the state before "
        "it; try another method or a larger tau."
    ),
    "non-finite": (
        "Stopped because {reason}. theta is the last state with a finite step; "
        "try a smaller lr or a larger tau, or look for NaN in the solver."
    ),
}


class Epoch(NamedTuple):
    """One row of a history.

    ``seconds`` are training seconds, test evaluation not counted; ``train_loss`` is the mean over
    the steps since the row before, None in the first row.
    """

    epoch: float
    step: int
    seconds: float
    train_loss: float | None
    test_loss: float


class State(NamedTuple):
    """What one step replaces, as a whole: an interrupt finds either the old or the new one."""

    theta: Any
    optimizer: dict
    steps: int = 0
    seconds: float = 0.0
    epoch_loss: float = 0.0  # sum over the steps since the last recorded epoch
    epoch_steps: int = 0
    info: Any = None


@dataclass(frozen=True)
class Result:
    """A run: its last complete state, its history, and why it stopped.

    Attributes
    ----------
    state : State
        theta (t,), the optimizer's state, steps, training seconds, and what the last update said
        of itself (such as `HalfInverseInfo`).
    history : list of Epoch
        A row before the first step, one after each epoch, one at the end.
    batch : int
        Samples a step.
    identity : dict
        Problem, network, solver, loss, dtype, optimizer, batch and seed, each a short text or a
        number; a resumed run must agree in all of them.
    status : str
        "budget", "stopped", "interrupted", "non-finite", "failed", or "running" in a callback.
    message : str
        The status in a sentence.
    first_step_seconds : float
        From the call of `fit` to the end of the first step, compilation included.
    seconds_per_step : float
        Median over the latest steps.
    """

    state: State
    history: list
    batch: int
    identity: dict = field(default_factory=dict)
    status: str = "running"
    message: str = MESSAGES["running"]
    first_step_seconds: float = 0.0
    seconds_per_step: float = 0.0

    @property
    def theta(self):
        """Parameters after the last complete step, (t,)."""
        return self.state.theta

    @property
    def steps(self):
        """Updates done."""
        return self.state.steps

    @property
    def seconds(self):
        """Training seconds: compilation counted, test evaluation and callbacks not."""
        return self.state.seconds

    @property
    def epochs(self):
        """Epochs done, as a fraction."""
        return self.history[-1].epoch

    @property
    def test_loss(self):
        """Mean test loss at the end."""
        return self.history[-1].test_loss

    @property
    def best_test_loss(self):
        """Smallest mean test loss of all evaluations."""
        return min(row.test_loss for row in self.history)

    def on(self, device):
        """The same run with its arrays on ``device``, ``"cpu"`` or ``"gpu"``, to go on there."""
        arrays = {k: v for k, v in self.state.optimizer.items() if hasattr(v, "shape")}
        moved = {name: to_device(array, device) for name, array in arrays.items()}
        theta = to_device(self.theta, device)
        state = self.state._replace(theta=theta, optimizer=self.state.optimizer | moved)
        return replace(self, state=state)

    def test_loss_after(self, seconds):
        """Test loss at the last evaluation within the given training seconds."""
        return [row.test_loss for row in self.history if row.seconds <= seconds][-1]

    def __str__(self):
        return (
            f"{self.message} {self.steps} steps, {self.epochs:.4g} epochs, {self.seconds:.1f} s; "
            f"test loss {self.test_loss:.3e}, best {self.best_test_loss:.3e}."
        )


def fit(
    problem,
    optimizer,
    *,
    batch,
    seconds=None,
    steps=None,
    epochs=None,
    seed=0,
    theta=None,
    resume=None,
    evaluate_every=1,
    on_epoch=(),
    progress=False,
):
    """Train ``problem.network`` through ``problem.solver`` and return a `Result`.

    One step: take the next batch, linearise, ask the optimizer for a step, theta <- theta - step.

    Parameters
    ----------
    problem : Problem
        What is trained.
    optimizer : object
        ``init`` and ``update``; see `higcore.optimizers` and `higcore.second_order`.
    batch : int
        Samples a step.
    seconds, steps, epochs : number, optional
        Budgets, counted from the start of the run (of the original one when resumed); the first
        that is spent ends it, and at least one is needed. Epochs may be fractions.
    seed : int
        Seed of the initial parameters.
    theta : array (t,), optional
        Initial parameters instead of random ones.
    resume : Result, optional
        Go on from there; with the same problem, optimizer and batch the bits are those of an
        uninterrupted run.
    evaluate_every : int
        Epochs between evaluations of the test loss.
    on_epoch : sequence of callables
        Each is called with the running `Result` after every evaluation, the first one before any
        step; returning True ends the run.
    progress : bool
        Show a progress line (needs tqdm).

    Returns
    -------
    Result

    Raises
    ------
    TypeError, ValueError
        For bad arguments, before any work.
    DoesNotFitError
        If a step takes more memory than there is (a MemoryError); the message names a batch size
        that fits.

    Notes
    -----
    A loss, Jacobian or step with NaN or Inf ends the run with status "non-finite" and never
    reaches theta. Ctrl-C ends it with status "interrupted"; the last complete state is returned.
    """
    _check(problem, optimizer, batch, seconds, steps, epochs, seed, evaluate_every, on_epoch)
    identity = _identity(problem, optimizer, batch, seed)
    if resume is None:
        clock, state = _Clock(0.0), _initial_state(problem, optimizer, seed, theta)
    else:
        _check_resume(problem, resume, theta, identity)
        clock, state = _Clock(resume.seconds), resume.state
    budget = {"seconds": seconds, "steps": steps, "epochs": epochs}
    run = _Run(problem, optimizer, int(batch), budget, evaluate_every, clock, state, identity)
    if resume:
        run.history.extend(resume.history)
        run.first_step_seconds = resume.first_step_seconds
    label = type(optimizer).__name__
    # Overflow is met by the finiteness checks, not by warnings.
    quiet = np.errstate(over="ignore", invalid="ignore")
    size = problem.network.size
    policy = thread_policy(2 * batch * size, min(batch * problem.solver.output_size, size))
    try:
        with quiet, policy, progress_line(progress, label) as show:
            return within_memory(
                lambda: run.complete(on_epoch, show),
                lambda reason: ran_out_of_memory(problem, batch, optimizer, reason),
            )
    finally:
        release_memory(run.state.theta)


def _check(problem, optimizer, batch, seconds, steps, epochs, seed, evaluate_every, on_epoch):
    if not isinstance(problem, Problem):
        raise TypeError(f"problem must be a Problem, got {type(problem).__name__}")
    if isinstance(optimizer, type) or not all(hasattr(optimizer, m) for m in ("init", "update")):
        raise TypeError(f"optimizer must have init and update, got {optimizer!r}")
    if not isinstance(on_epoch, (tuple, list)) or not all(map(callable, on_epoch)):
        raise TypeError(f"on_epoch must be a list of callables, got {on_epoch!r}")
    problem.steps_per_epoch(batch)
    for name, value in {"seconds": seconds, "epochs": epochs}.items():
        if value is not None:
            check_real(name, value, 0.0, open_low=True)
    if steps is not None:
        check_count("steps", steps)
    check_count("seed", seed, 0)
    check_count("evaluate_every", evaluate_every)
    if seconds is None and steps is None and epochs is None:
        raise ValueError("one of seconds, steps, epochs must be given as the budget of the run")


def _initial_state(problem, optimizer, seed, theta):
    if theta is None:
        xp = array_module(train=problem.sample.x)
        rng = np.random.default_rng([seed, 1])  # stream 0 of a seed is for drawing data
        theta = xp.asarray(problem.network.init(rng, problem.sample.x.dtype))
    _check_theta(problem, theta)
    return State(theta, optimizer.init(theta))


def _check_theta(problem, theta):
    check_array("theta", theta, (problem.network.size,))
    problem.check_like_train("theta", theta)
    check_finite("theta", theta)


def _check_resume(problem, resume, theta, identity):
    if not isinstance(resume, Result):
        raise TypeError(f"resume must be a Result, such as load_checkpoint returns, got {resume!r}")
    if theta is not None:
        raise ValueError("theta cannot be given together with resume, which has its own")
    _check_same_run(resume.identity, identity)
    _check_theta(problem, resume.theta)


def _require_finite(arrays):
    """Raise `NonFiniteError` for the first of the named arrays that is not finite."""
    for name, array in arrays.items():
        check_finite(name, array)


def _identity(problem, optimizer, batch, seed):
    """What a run and the one it resumes must agree in."""
    return {
        "problem": problem.name,
        "network": _describe(problem.network),
        "parameters": int(problem.network.size),
        "solver": _describe(problem.solver),
        "loss": _describe(problem.loss),
        "batch_mean": bool(problem.batch_mean),
        "samples": int(problem.train.count),
        "dtype": str(problem.sample.x.dtype),
        "optimizer": _describe(optimizer),
        "batch": int(batch),
        "seed": int(seed),
    }


def _describe(part):
    """The repr without memory addresses; of a class that has none of its own, the name."""
    if type(part).__repr__ is object.__repr__:
        return type(part).__name__
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(part))


def _check_same_run(was, now):
    if not was:
        raise ValueError(
            "resume does not say which run it is from, as checkpoints of format 1 do not; "
            "begin a new run from its parameters: fit(..., theta=resume.theta)"
        )
    differing = [
        f"{name} {was.get(name)}, this run has {value}"
        for name, value in now.items()
        if was.get(name) != value
    ]
    if differing:
        raise ValueError("resume was made for " + "; for ".join(differing))


class _Clock:
    """Seconds since its making, on top of those of an earlier run, less the paused ones."""

    def __init__(self, earlier):
        self.zero = time.perf_counter() - earlier

    def read(self):
        return time.perf_counter() - self.zero

    @contextmanager
    def paused(self):
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.zero += time.perf_counter() - begin


@dataclass
class _Run:
    """A run in progress."""

    problem: Problem
    optimizer: Any
    batch: int
    budget: dict
    evaluate_every: int
    clock: _Clock
    state: State
    identity: str
    history: list = field(default_factory=list)
    first_step_seconds: float = 0.0
    step_times: deque = field(default_factory=lambda: deque(maxlen=STEP_TIMES_KEPT))

    def __post_init__(self):
        self.settled, self.total = self.state, 0.0

    def complete(self, callbacks, show):
        """Train and return the `Result`, also after Ctrl-C."""
        try:
            status, reason = self.train(callbacks, show)
        except KeyboardInterrupt:
            status, reason = "interrupted", ""
        return self.finish(callbacks, status, reason)

    def train(self, callbacks, show):
        """Step until something ends the run; return the status and its reason."""
        if not self.history:
            # Compiling the forward pass counts as training time; evaluating the test set does not.
            self.problem.predict(self.state.theta, self.problem.sample[:1])
            if self.record(callbacks):
                return "stopped", ""
        interval = self.problem.steps_per_epoch(self.batch) * self.evaluate_every
        while not (spent := self.spent_budget()):
            try:
                self.advance()
                if self.state.steps % interval == 0 and self.record(callbacks):
                    return "stopped", ""
            except NonFiniteError as error:
                return "non-finite", str(error)
            except (DecompositionError, np.linalg.LinAlgError) as error:
                return "failed", str(error)
            show(self.largest_share(), self)
        return "budget", spent

    def advance(self):
        """One update. A device is not waited for, but in the first one and where `update` does."""
        if is_host(self.state.theta) or not self.first_step_seconds:
            self.step(_require_finite)
            return
        try:
            self.step(self.add_up)
        except NonFiniteError:
            self.retrace(self.state.steps + 1)

    def step(self, look):
        """One update; ``look`` is shown what came out of it, by name, before any of it is kept."""
        old, begin = self.state, self.clock.read()
        batch = self.problem.batch(old.steps, self.batch)
        at = self.problem.linearise(old.theta, batch)
        look({"the training loss": at.mean_loss, "the loss gradient": at.loss_gradient})
        change, optimizer_state, info = self.optimizer.update(at, old.optimizer)
        theta = old.theta - change
        arrays = {k: v for k, v in optimizer_state.items() if hasattr(v, "shape")}
        look({"the step": change, "theta after the step": theta})
        look({f"the optimizer's {name}": array for name, array in arrays.items()})
        now = self.clock.read()
        self.state = State(
            theta, optimizer_state, old.steps + 1, now,
            old.epoch_loss + at.mean_loss, old.epoch_steps + 1, info,
        )  # fmt: skip
        if is_host(theta) or not self.first_step_seconds:
            self.step_times.append(now - begin)
        self.first_step_seconds = self.first_step_seconds or now

    def add_up(self, arrays):
        """Keep the sum of everything on the device: NaN and Inf stay in it until `settle` looks."""
        self.total = sum((array.sum() for array in arrays.values()), self.total)

    def settle(self):
        """Wait for a device, and make sure that all updates since the last time were finite."""
        if is_host(self.state.theta) or self.state.steps == self.settled.steps:
            return
        if not math.isfinite(float(self.total)):
            self.retrace(self.state.steps)
        now, steps = self.clock.read(), self.state.steps - self.settled.steps
        if steps > 0:
            self.step_times.extend([(now - self.settled.seconds) / steps] * steps)
        self.settled, self.total = self.state._replace(seconds=now), 0.0
        self.state = self.settled

    def retrace(self, steps):
        """From the last state known to be finite, go carefully up to the update that is not.

        Batches are a function of the step, so all of it comes out as it did before.
        """
        self.state, self.total = self.settled, 0.0
        while self.state.steps < steps:
            self.step(_require_finite)
            self.settled = self.state

    def record(self, callbacks=()):
        """Append the losses to the history and call the callbacks, off the clock.

        Returns True if a callback asks to stop.
        """
        self.settle()
        with self.clock.paused():
            state = self.state
            train = float(state.epoch_loss) / state.epoch_steps if state.epoch_steps else None
            epoch = state.steps / self.problem.steps_per_epoch(self.batch)
            test = self.problem.evaluate(state.theta)
            self.history.append(Epoch(epoch, state.steps, state.seconds, train, test))
            self.state = state._replace(epoch_loss=0.0, epoch_steps=0)
            return any([callback(self.result()) for callback in callbacks])  # noqa: C419  call all

    def shares(self):
        """Name and spent share of each budget."""
        epochs = self.state.steps / self.problem.steps_per_epoch(self.batch)
        spent = {"seconds": self.state.seconds, "steps": self.state.steps, "epochs": epochs}
        return {f"{v:g} {k}": spent[k] / v for k, v in self.budget.items() if v is not None}

    def largest_share(self):
        """Share of the budget that is nearest to its end."""
        return max(self.shares().values())

    def spent_budget(self):
        """Name of a budget that is spent, or ""."""
        return next((name for name, share in self.shares().items() if share >= 1), "")

    def finish(self, callbacks, status, reason):
        """The `Result` at the end, with a last row of the history."""
        try:
            self.settle()
        except NonFiniteError as error:
            status, reason = "non-finite", str(error)
        if not self.history or self.history[-1].step < self.state.steps:
            self.record(callbacks)
        return self.result(status, reason)

    def result(self, status="running", reason=""):
        """The run so far as a `Result`."""
        return Result(
            self.state,
            list(self.history),
            self.batch,
            self.identity,
            status,
            MESSAGES[status].format(reason=reason),
            self.first_step_seconds,
            median(self.step_times) if self.step_times else 0.0,
        )
