"""`fit`: the arguments of a run, checked before anything is done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np

from ..backend import Array, module_of, release_memory
from ..device.memory import within_memory
from ..device.threads import thread_policy
from ..optimizers.memory import ran_out_of_memory
from ..optimizers.sip import check_takes_ridge
from ..problem import Batch, FreshData, Problem, Shuffled
from ..protocols import Optimizer
from ..validation import (
    check_array,
    check_choice,
    check_count,
    check_finite,
    check_flag,
    check_optimizer,
    check_real,
)
from .identity import JUDGES, check_same_run, differences, identity
from .interrupts import Interrupts, held_back
from .progress import progress_line
from .result import MESSAGES, UNSUCCESSFUL, History, Result, State, TrainingError
from .run import Callback, Interval, Run
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
    other_data: bool = False,
    shuffle: bool = False,
    validation: Batch | None = None,
    evaluate_every: float | tuple[float, str] = 1,
    patience: int | None = None,
    on_step: Sequence[Callback] = (),
    on_epoch: Sequence[Callback] = (),
    diagnostics: bool = False,
    progress: bool = False,
    throw: bool = False,
) -> Result:
    """Train the model of a problem, a network through a solver, and return a `Result`.

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
        bytes. What an optimizer holds, other optimizers and what can be called, is compared
        alike; of a function it is the name, the defaults and the values that it closes over.
    other_data : bool
        Let ``resume`` be of other data: parameters, optimizer's state, steps and seconds go on. If
        they are those that judge, the validation or else the test data, history and best begin
        anew. All else must agree as ever.
    shuffle : bool
        Take the samples of a Batch in another order in every epoch, a function of (seed, epoch)
        alone; by default in the order that they have, as the paper does.
    validation : Batch, optional
        Data that are not trained on: patience and ``Result.best`` go by their loss in place of the
        test loss, and each row of the history has it.
    evaluate_every : number or (number, unit)
        Between two evaluations: so many epochs, which may be a fraction, or "steps", "epochs" or
        training "seconds", such as ``(100, "steps")``. Each ends with the step that makes it whole.
    patience : int, optional
        End the run as stagnated after so many evaluations without a new best loss.
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
        ``print`` it; ``.theta``, ``.best.theta``, ``.history``, ``.status``, ``.message``.

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
    reaches theta. A test loss (or validation loss) a million times the first one, or none at all,
    ends it with status "diverged". Ctrl-C ends it with status "interrupted"; the last complete
    state is returned. An exception of the network, the solver, the loss, the data, the optimizer or
    a callback ends it with status "raised"; the message says what was raised and by which of them,
    ``error`` is the traceback. Only MemoryError, SystemExit and the like go through. The logger
    ``higcore`` is told of every evaluation (info) and of what went wrong (warning).
    """
    budget = {"seconds": seconds, "steps": steps, "epochs": epochs}
    _check_parts(problem, optimizer, diagnostics, {"on_step": on_step, "on_epoch": on_epoch})
    batch = _batch_of(problem, optimizer) if batch is None else batch
    _check_numbers(problem, batch, budget, seed, patience)
    interval = _interval(evaluate_every)
    _check_validation(problem, validation)
    problem = _in_order(problem, shuffle, seed)
    ranks = problem.ranks
    with held_back(ranks.is_first) as interrupts:
        agreed = identity(problem, optimizer, batch, seed, validation)
        earlier = _beginning(problem, optimizer, theta, resume, agreed, other_data)
        updates = Updates(problem, optimizer, earlier, diagnostics)
        callbacks = tuple(on_step), tuple(on_epoch)
        run = Run(updates, budget, interval, patience, validation, *callbacks)
        result = _complete(run, interrupts, progress)
    pending = ranks.agreed(interrupts.pending)  # in the last evaluation
    if pending and result.status != "interrupted":
        message = f"{MESSAGES['interrupted']} {result.message}"
        result = replace(result, status="interrupted", message=message)
    cause, run.cause = run.cause, None  # whose frames hold the run
    if throw:
        _raise_if_bad(result, cause)
    return result


def _complete(run: Run, interrupts: Interrupts, progress: bool) -> Result:
    """The `Result` of a run, with threads, memory and warnings as a run needs them."""
    problem, optimizer, batch = run.problem, run.updates.optimizer, run.updates.batch
    size = problem.size
    policy = thread_policy(2 * batch * size, min(batch * problem.output_size, size))
    # Overflow is met by the finiteness checks, not by warnings.
    quiet = np.errstate(over="ignore", invalid="ignore")
    shown = progress_line(
        progress and problem.ranks.is_first, type(optimizer).__name__, run.spent()[0]
    )
    try:
        with problem.ranks.at_work(), quiet, policy, shown as show:
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
    check_optimizer("optimizer", optimizer)
    if problem.solver is None and getattr(optimizer, "needs_solver", False):
        raise TypeError(
            f"{type(optimizer).__name__} inverts a solver behind the network, and the network of "
            f"a {type(problem.network).__name__} is inside; take another optimizer"
        )
    check_takes_ridge(optimizer, problem.ridge)
    for name, value in callbacks.items():
        if not isinstance(value, (tuple, list)) or not all(map(callable, value)):
            raise TypeError(f"{name} must be a list of callables, got {value!r}")
    for name in ("network", "solver") if diagnostics else ():
        part = getattr(problem, name)
        if part is not None and not hasattr(part, "tangent"):
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


def _check_numbers(problem, batch, budget, seed, patience):
    problem.steps_per_epoch(batch)
    for name in ("seconds", "epochs"):
        if budget[name] is not None:
            check_real(name, budget[name], 0.0, open_low=True)
    for name, value in {"steps": budget["steps"], "patience": patience}.items():
        if value is not None:
            check_count(name, value)
    check_count("seed", seed, 0)
    if all(value is None for value in budget.values()):
        raise ValueError("one of seconds, steps, epochs must be given as the budget of the run")


def _interval(evaluate_every):
    """The `Interval` that is meant; a number alone counts epochs."""
    is_pair = isinstance(evaluate_every, (tuple, list)) and len(evaluate_every) == 2
    number, unit = evaluate_every if is_pair else (evaluate_every, "epochs")
    check_choice("the unit in evaluate_every", unit, ("steps", "epochs", "seconds"))
    if unit == "steps":
        check_count("evaluate_every", number)
        return Interval(int(number), unit)
    check_real("evaluate_every", number, 0.0, open_low=True)
    number = float(number)
    if unit == "seconds":
        return Interval(number, unit)
    # 0.1 of 30 steps is three, though in binary it is a little more.
    return Interval(Fraction(number).limit_denominator() or Fraction(number), unit)


def _check_validation(problem, validation):
    if validation is None:
        return
    problem.check_batch("validation", validation)
    problem.check_like_train("validation.x", validation.x)
    for name, array in zip(("x", "net_input", "target"), validation, strict=True):
        check_finite(f"validation.{name}", array)


def _in_order(problem, shuffle, seed):
    """The problem with its training data in the order that is asked for."""
    check_flag("shuffle", shuffle)
    if not shuffle:
        return problem
    if isinstance(problem.train, FreshData):
        raise ValueError(
            "shuffle=True has no use with FreshData, whose samples are new in every step; "
            "leave it out"
        )
    x, net_input, target = problem.train
    return replace(problem, train=Shuffled(x, net_input, target, seed))


def _beginning(problem, optimizer, theta, resume, run, other_data):
    """What the run goes on from: ``resume``, or a `Result` that has nothing but a state."""
    check_flag("other_data", other_data)
    if resume is None:
        if other_data:
            raise ValueError("other_data=True says how to resume; it needs resume=")
        if theta is None:
            rng = np.random.default_rng([run["seed"], 1])  # stream 0 of a seed draws data
            x = problem.sample.x
            theta = module_of(x).asarray(problem.network.init(rng, x.dtype))
        _check_theta(problem, theta)
        return Result(State(theta, optimizer.init(theta)), History(), run["batch"], run)
    if not isinstance(resume, Result):
        raise TypeError(f"resume must be a Result, such as load_checkpoint returns, got {resume!r}")
    if theta is not None:
        raise ValueError("theta cannot be given together with resume, which has its own")
    check_same_run(resume.identity, run, other_data)
    _check_theta(problem, resume.theta)
    if set(differences(resume.identity, run)) & {*JUDGES}:  # whose losses compare with no others
        state = resume.state._replace(epoch_loss=0.0, epoch_steps=0)
        resume = replace(resume, state=state, history=History(), best=None)
    return replace(resume, batch=run["batch"], identity=run)


def _check_theta(problem, theta):
    check_array("theta", theta, (problem.size,))
    problem.check_like_train("theta", theta)
    check_finite("theta", theta)
