"""`fit`: the arguments of a run, checked before anything is done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..backend import Array, module_of, release_memory
from ..device.memory import within_memory
from ..device.threads import thread_policy
from ..optimizers.memory import ran_out_of_memory
from ..problem import Problem
from ..protocols import Optimizer
from ..validation import check_array, check_count, check_finite, check_real
from .identity import check_same_run, identity
from .interrupts import Interrupts, held_back
from .progress import progress_line
from .result import MESSAGES, UNSUCCESSFUL, History, Result, State, TrainingError
from .run import Callback, Run
from .updates import Updates


def fit(
    problem: Problem,
    optimizer: Optimizer,
    *,
    batch: int | None = None,
    seconds: float | None = None,
    steps: int | None = None,
    epochs: float | None = None,
    seed: int = 0,
    theta: Array | None = None,
    resume: Result | None = None,
    evaluate_every: int = 1,
    patience: int | None = None,
    on_step: Sequence[Callback] = (),
    on_epoch: Sequence[Callback] = (),
    diagnostics: bool = False,
    progress: bool = False,
    throw: bool = False,
) -> Result:
    """Train ``problem.network`` through ``problem.solver`` and return a `Result`.

    One step: take the next batch, linearise, ask the optimizer for a step, theta <- theta - step.

    Parameters
    ----------
    problem : Problem
        What is trained.
    optimizer : object
        ``init`` and ``update``; see `higcore.optimizers`.
    batch : int, optional
        Samples a step; by default what ``optimizer.batch_for(problem)`` says, where it has one.
    seconds, steps, epochs : number, optional
        Budgets, counted from the start of the run (of the original one when resumed); the first
        that is spent ends it, and at least one is needed. Epochs may be fractions.
    seed : int
        Seed of the initial parameters.
    theta : array (t,), optional
        Initial parameters instead of random ones.
    resume : Result, optional
        Go on from there; with the same problem, optimizer and batch the bits are those of an
        uninterrupted run. Others are refused: parts of your own are compared by their repr or, if
        their class has none, by its name and their public attributes that are numbers, text,
        lists or tuples of them, or arrays; numbers in it by value, 1 being 1.0; data by their
        bytes.
    evaluate_every : int
        Epochs between evaluations of the test loss.
    patience : int, optional
        End the run as stagnated after so many evaluations without a new best test loss.
    on_step, on_epoch : sequence of callables
        Each is called with the running `Result`: after every step, and after every evaluation, the
        first of which is made before any step. Returning True or raising StopIteration ends the
        run, and so does any other exception, as "raised". Their time is not counted. A callback
        with a method ``finish`` is handed the `Result` at the end by it, as `Checkpoints` is.
    diagnostics : bool
        Record `StepDiagnostics` of every step: rank, condition, gap to the cutoff, norm of the
        step, predicted and actual decrease. Costs about as much again as the step, off the clock.
    progress : bool
        A bar with loss, rank, step time and what remains of the budget on a terminal (needs tqdm),
        a line every ten seconds elsewhere.
    throw : bool
        Raise instead of returning a Result whose status is "stagnated", "diverged", "non-finite",
        "failed", "raised" (`TrainingError`, from the exception that ended the run if one did) or
        "interrupted" (KeyboardInterrupt); the exception's ``result`` holds it.

    Returns
    -------
    Result
        ``print`` it; ``.theta``, ``.history``, ``.status``, ``.message``.

    Raises
    ------
    TypeError, ValueError
        For bad arguments, before any work; and if this library refuses, before there is a step to
        lose, what a part of the problem returns or the optimizer asks for.
    DoesNotFitError
        If a step takes more memory than there is (a MemoryError); the message names a batch size
        that fits.
    TrainingError
        Only with ``throw=True``.

    Notes
    -----
    A loss, Jacobian or step with NaN or Inf ends the run with status "non-finite" and never
    reaches theta. A test loss a million times the first one, or none at all, ends it with status
    "diverged". Ctrl-C ends it with status "interrupted"; the last complete state is returned. An
    exception of the network, the solver, the loss, the data, the optimizer or a callback ends it
    with status "raised"; the message says what was raised and by which of them, ``error`` is the
    traceback. Only MemoryError, SystemExit and the like go through. The logger ``higcore`` is told
    of every evaluation (info) and of what went wrong (warning).
    """
    budget = {"seconds": seconds, "steps": steps, "epochs": epochs}
    _check_parts(problem, optimizer, diagnostics, {"on_step": on_step, "on_epoch": on_epoch})
    batch = _batch_of(problem, optimizer) if batch is None else batch
    _check_numbers(problem, batch, budget, seed, evaluate_every, patience)
    with held_back() as interrupts:
        earlier = _beginning(problem, optimizer, batch, seed, theta, resume)
        updates = Updates(problem, optimizer, earlier, diagnostics)
        run = Run(updates, budget, evaluate_every, patience, tuple(on_step), tuple(on_epoch))
        result = _complete(run, interrupts, progress)
    if interrupts.pending and result.status != "interrupted":  # in the last evaluation
        message = f"{MESSAGES['interrupted']} {result.message}"
        result = replace(result, status="interrupted", message=message)
    cause, run.cause = run.cause, None  # whose frames hold the run
    if throw:
        _raise_if_bad(result, cause)
    return result


def _complete(run: Run, interrupts: Interrupts, progress: bool) -> Result:
    """The `Result` of a run, with threads, memory and warnings as a run needs them."""
    problem, optimizer, batch = run.problem, run.updates.optimizer, run.updates.batch
    size = problem.network.size
    policy = thread_policy(2 * batch * size, min(batch * problem.solver.output_size, size))
    # Overflow is met by the finiteness checks, not by warnings.
    quiet = np.errstate(over="ignore", invalid="ignore")
    shown = progress_line(progress, type(optimizer).__name__, run.spent()[0])
    try:
        with quiet, policy, shown as show:
            return within_memory(
                lambda: run.complete(show, interrupts),
                lambda reason: ran_out_of_memory(problem, batch, optimizer, reason),
            )
    finally:
        release_memory(run.updates.state.theta)


def _raise_if_bad(result, cause):
    if result.status in UNSUCCESSFUL:
        raise TrainingError(result) from cause
    if result.status == "interrupted":
        interrupt = KeyboardInterrupt(result.message)
        interrupt.result = result  # type: ignore[attr-defined]  # as the docstring of `fit` says
        raise interrupt


def _check_parts(problem, optimizer, diagnostics, callbacks):
    if not isinstance(problem, Problem):
        raise TypeError(f"problem must be a Problem, got {type(problem).__name__}")
    if isinstance(optimizer, type) or not all(hasattr(optimizer, m) for m in ("init", "update")):
        raise TypeError(f"optimizer must have init and update, got {optimizer!r}")
    for name, value in callbacks.items():
        if not isinstance(value, (tuple, list)) or not all(map(callable, value)):
            raise TypeError(f"{name} must be a list of callables, got {value!r}")
    for name in ("network", "solver") if diagnostics else ():
        if not hasattr(part := getattr(problem, name), "tangent"):
            raise TypeError(
                f"diagnostics=True predicts the decrease by tangents, and problem.{name}, a "
                f"{type(part).__name__}, has no tangent"
            )


def _batch_of(problem, optimizer):
    """The batch size that an optimizer chooses."""
    if not hasattr(optimizer, "batch_for"):
        name = type(optimizer).__name__
        raise TypeError(
            f"batch must be given for {name}, such as batch=128; it chooses none itself"
        )
    return optimizer.batch_for(problem)


def _check_numbers(problem, batch, budget, seed, evaluate_every, patience):
    problem.steps_per_epoch(batch)
    for name in ("seconds", "epochs"):
        if budget[name] is not None:
            check_real(name, budget[name], 0.0, open_low=True)
    for name, value in {"steps": budget["steps"], "patience": patience}.items():
        if value is not None:
            check_count(name, value)
    check_count("seed", seed, 0)
    check_count("evaluate_every", evaluate_every)
    if all(value is None for value in budget.values()):
        raise ValueError("one of seconds, steps, epochs must be given as the budget of the run")


def _beginning(problem, optimizer, batch, seed, theta, resume):
    """What the run goes on from: ``resume``, or a `Result` that has nothing but a state."""
    run = identity(problem, optimizer, batch, seed)
    if resume is None:
        if theta is None:
            rng = np.random.default_rng([seed, 1])  # stream 0 of a seed is for drawing data
            x = problem.sample.x
            theta = module_of(x).asarray(problem.network.init(rng, x.dtype))
        _check_theta(problem, theta)
        return Result(State(theta, optimizer.init(theta)), History(), int(batch), run)
    if not isinstance(resume, Result):
        raise TypeError(f"resume must be a Result, such as load_checkpoint returns, got {resume!r}")
    if theta is not None:
        raise ValueError("theta cannot be given together with resume, which has its own")
    check_same_run(resume.identity, run)
    _check_theta(problem, resume.theta)
    return replace(resume, batch=int(batch), identity=run)


def _check_theta(problem, theta):
    check_array("theta", theta, (problem.network.size,))
    problem.check_like_train("theta", theta)
    check_finite("theta", theta)
