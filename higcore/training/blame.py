"""Whose code an exception came from, told by the frames that it went through."""

from __future__ import annotations

import functools
import inspect
import textwrap
import traceback
from collections.abc import Iterator
from contextlib import suppress
from types import CodeType
from typing import Any

import numpy as np

from ..linearisation import Linearisation
from ..model import NetworkThenSolver
from ..problem import NETWORK, SOLVER, FreshData, Problem
from ..protocols import Optimizer
from ..sharing.model import SharedModel
from ..sharing.ranks import Ranks
from ..spectral.spectrum import DecompositionError
from .updates import Updates

DECOMPOSITION = "a decomposition"
CALLERS = {part.__module__ for part in (Linearisation, NetworkThenSolver, SharedModel, Ranks)}
PACKAGES = ("higcore", "nets", "solvers")
NETWORK_METHODS = (*NETWORK, "tangent", "part")
LOSS = ("value", "gradient", "curvatures", "target_size")
SIGHT = ("width", "look", "value", "tangent", "pull")
STEPPER = ("step", "tangent", "adjoint", "jacobian", "pull", "rate", "rate_tangent")
TEXT_SHOWN = 300  # characters of an exception's own text


def origin(error: BaseException, problem: Problem, optimizer: Optimizer) -> str:
    """Whose code raised, as the subject of a sentence; "" if that cannot be told.

    An exception is that of the first part it comes from, whatever the part calls. What is raised
    beneath no part is `DECOMPOSITION` if one of this library's failed, or else of the optimizer.
    """
    owners = _owners(problem)
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    for frame in frames:
        if frame.f_code in owners:
            return owners[frame.f_code]
    modules = [frame.f_globals.get("__name__", "") for frame in frames]
    ours = [name for name in modules if name.startswith("higcore.")]
    innermost = [name for name in ours if name != "higcore.validation"][-1:]  # whose door it was
    if innermost and innermost[0] in CALLERS:
        return ""  # it calls all parts: one that leaves no frame, as compiled code
    failed = isinstance(error, (DecompositionError, np.linalg.LinAlgError))
    if failed and innermost != [Updates.__module__]:  # which call the optimizer
        return DECOMPOSITION
    called = {frame.f_code for frame in frames}
    return "the optimizer" if called & {*codes(optimizer, ("update",))} else ""


def is_own_check(error: Exception) -> bool:
    """Whether this library refused what it was given, or Python a call that it made."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    package = frame.f_globals.get("__name__", "").partition(".")[0]
    return type(error) in (TypeError, ValueError) and package in PACKAGES


def clause(error: BaseException, who: str, steps: int) -> str:
    """What was raised, by whom, when, and its text."""
    name, text = type(error).__name__, ""
    raised = f"{who} raised {name}" if who else f"{name} was raised"
    with suppress(Exception):  # of the str of somebody's own class
        text = textwrap.shorten(str(error), TEXT_SHOWN).rstrip(".")
    return f"{raised} after {steps} steps{': ' if text else ''}{text}"


def _owners(problem: Problem) -> dict[CodeType, str]:
    """The parts of a problem by the code of what is called of them."""
    found = _owners_in_model(problem.network)
    if problem.solver is not None:
        found = dict.fromkeys(codes(problem.network, NETWORK_METHODS), "the network")
        found |= dict.fromkeys(codes(problem.solver, (*SOLVER, "tangent")), "the solver")
    found |= dict.fromkeys(codes(problem.loss, LOSS), "the loss")
    if isinstance(problem.train, FreshData):
        found |= dict.fromkeys(codes(problem.train, ("take", "draw")), "draw")
    return found


def _owners_in_model(model: Any) -> dict[CodeType, str]:
    """A model that is none of this library's, and network and stepper inside another."""
    if type(model).__module__.partition(".")[0] not in PACKAGES:
        return dict.fromkeys(codes(model, (*NETWORK_METHODS, "predict", "jacobian")), "the model")
    network, stepper = getattr(model, "network", None), getattr(model, "stepper", None)
    found = dict.fromkeys(codes(network, (*NETWORK_METHODS, "pull")), "the network")
    for name in ("sees", "observe"):
        found |= dict.fromkeys(codes(getattr(model, name, None), SIGHT), f"{name} of the rollout")
    return found | dict.fromkeys(codes(stepper, STEPPER), "the stepper")


def codes(part: Any, names: tuple[str, ...]) -> Iterator[CodeType]:
    """The code of those attributes that are functions of Python, or made of one."""
    for name in names:
        with suppress(Exception):  # what a part of somebody's own may not have, or refuse
            call = getattr(part, name)
            while isinstance(call, functools.partial):
                call = call.func
            for function in (call, type(call).__call__, inspect.unwrap(call)):
                if isinstance(code := getattr(function, "__code__", None), CodeType):
                    yield code
