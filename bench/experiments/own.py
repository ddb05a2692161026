"""Problems of one's own on the command line, as MODULE:NAME."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from higcore import HIG, Adam, AdaptiveHIG, GaussNewton, Problem

from .setting import Setting, settings

BATCH = 64
WANTED = "a higcore.Problem, a function (seed, dtype) -> Problem, or an object with a `problem`"


@dataclass(frozen=True)
class Own:
    """A problem of one's own as an experiment.

    Parameters
    ----------
    make : callable
        (seed, dtype) -> Problem, or with fewer of these arguments.
    source : str
        MODULE:NAME.
    given : object
        May have ``settings``, which take the place of defaults, and ``picture(problem, theta)``.
    """

    make: Callable[..., Problem]
    source: str
    given: Any = None

    @property
    def name(self):
        """How its files begin."""
        return self.source.rpartition(".")[2].replace(":", "-")

    @property
    def settings(self):
        """Every optimizer with the library's defaults, first-order ones on batches of 64."""
        problem = self.problem()
        batch = min(BATCH, problem.train.count)
        first = Setting(batch, HIG()), Setting(batch, GaussNewton()), Setting(batch, Adam())
        defaults = settings(*first, adaptive=AdaptiveHIG().batch_for(problem))
        return defaults | getattr(self.given, "settings", {})

    def problem(self, seed=0, dtype=None):
        """Return the `Problem`; a ``dtype`` that is asked for must be that of its data."""
        known = {"seed": seed, "dtype": np.dtype(dtype or np.float64)}
        taken = {name: known[name] for name in _arguments(self.source, self.make)}
        try:
            problem = self.make(**taken)
        except Exception as error:
            raise ValueError(f"{self.source} raised {_said(error)}") from error
        if not isinstance(problem, Problem):
            kind = type(problem).__name__
            raise TypeError(f"{self.source} must return a higcore.Problem, got {kind}")
        found = problem.sample.x.dtype
        if dtype is not None and found != dtype:
            raise ValueError(
                f"dtype is {np.dtype(dtype)}, but the data of {self.source} are {found}"
            )
        return problem

    def picture(self, problem, theta):
        """The picture of its own or, if there is none, every output against its target."""
        if hasattr(self.given, "picture"):
            return self.given.picture(problem, theta)
        from . import pictures  # matplotlib: not for training

        some = problem.test[: pictures.SAMPLES]
        _, y = problem.predict(theta, some)
        title = f"{problem.name}: test samples, loss {problem.evaluate(theta, some):.1e}"
        return pictures.predictions(y, some.target, title)


def load(text):
    """The experiment of MODULE:NAME; the module is imported, first from the current directory."""
    module, _, name = text.partition(":")
    if not all(map(str.isidentifier, (*module.split("."), name))) or module.endswith(".py"):
        wanted = "MODULE:NAME, such as swing:problem for the `problem` of swing.py"
        raise ValueError(f"PROBLEM must be {wanted}; got {text!r}")
    given = _attribute(_imported(module), name)
    make = getattr(given, "problem", given)
    if isinstance(make, Problem):
        return Own(lambda: make, text, given)
    if isinstance(given, type) or not callable(make):
        kind = "a class" if isinstance(given, type) else type(given).__name__
        raise TypeError(f"{text} must be {WANTED}; got {kind}")
    return Own(lru_cache(2)(make), text, given)  # of a seed: for the defaults, and for training


def _imported(module):
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if f"{module}.".startswith(f"{error.name}."):
            raise ValueError(f"there is no module {error.name} in {here}") from error
        raise ValueError(f"importing {module} raised {_said(error)}") from error
    except Exception as error:
        raise ValueError(f"importing {module} raised {_said(error)}") from error


def _attribute(module, name):
    if hasattr(module, name):
        return getattr(module, name)
    own = [k for k, v in vars(module).items() if getattr(v, "__module__", "") == module.__name__]
    own += [k for k, v in vars(module).items() if isinstance(v, Problem)]
    listing = f"; it has {', '.join(own)}" if own else ""
    raise ValueError(f"{module.__name__} ({_place(module.__file__)}) has no {name!r}{listing}")


def _arguments(source, make):
    """Those of seed and dtype that a function takes."""
    taken = inspect.signature(make).parameters
    needed = [k for k, v in taken.items() if v.default is v.empty and v.kind < v.VAR_POSITIONAL]
    if not {"seed", "dtype"}.issuperset(needed):
        raise TypeError(f"{source} must take (seed, dtype) or less, got one of {', '.join(needed)}")
    return [name for name in ("seed", "dtype") if name in taken]


def _said(error):
    """An exception's name and text, and the last line of the user's own that it passed."""
    text, here = f"{type(error).__name__}: {error}", os.getcwd()
    if isinstance(error, SyntaxError):
        return text  # which says where
    frames = traceback.extract_tb(error.__traceback__)
    files = [(frame.filename, frame.lineno) for frame in frames]
    own = [place for place in files if place[0].startswith(here) and "-packages" not in place[0]]
    file, line = (own or files)[-1]
    return f"{text} ({_place(file)}, line {line})"


def _place(file):
    return Path(file).name if file else "no file"
