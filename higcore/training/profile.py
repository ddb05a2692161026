"""Where the time of a training step goes, part by part."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from statistics import median
from types import CodeType, FrameType
from typing import Any

from ..backend import synchronize
from ..linearisation import StackedJacobian
from ..problem import Problem
from ..protocols import Optimizer
from ..sharing.ranks import Ranks
from ..validation import check_count
from .blame import codes
from .fit import fit
from .result import Result, TrainingError
from .updates import Updates

DECOMPOSITION, REST = "decomposition", "update"
PARTS = (
    "data", "network", "solver", "loss", "sweep", "row pull-back", "Gram", DECOMPOSITION,
    "pull-down", "solver backward", "network backward", "tangents", "exchange", REST,
)  # fmt: skip
EXCHANGES = ("agreed", "any_of", "_meet", "gathered", "summed", "exchange")  # of ranks
METHODS = ("higcore.half_inverse", "higcore.spectral")  # modules of decompositions


@dataclass(frozen=True)
class Profile:
    """Seconds of each part of a training step; ``print`` shows a table.

    Attributes
    ----------
    parts : dict
        Name of a part -> seconds, the median over the steps, of those that the optimizer needs.
        ``sweep`` is S of the solver, ``row pull-back`` the row factors of the network,
        ``pull-down`` J^T c, ``exchange`` what ranks that share the samples tell each other and
        wait for, and ``update`` all else: what the optimizer computes itself, the update
        of theta, and the checks that all is finite.
    batch : int
        Samples a step.
    """

    parts: dict[str, float]
    batch: int

    @property
    def total(self) -> float:
        """Sum of the parts."""
        return sum(self.parts.values())

    def __str__(self) -> str:
        rows = [*self.parts.items(), ("together", self.total)]
        return "\n".join(
            f"{name:14s} {1e3 * seconds:10.3f} ms {seconds / self.total:6.1%}"
            for name, seconds in rows
        )


def profile(
    problem: Problem,
    optimizer: Optimizer,
    *,
    batch: int | None = None,
    steps: int = 20,
    after: int = 3,
    seed: int = 0,
) -> Profile:
    """Train for some steps and return the `Profile` of one: which part takes how long.

    Parameters
    ----------
    problem, optimizer, batch, seed
        As for `fit`, which makes the steps.
    steps : int
        How many are timed.
    after : int
        Steps before these, the first of which compiles.

    Returns
    -------
    Profile
        ``print`` it; ``.parts``, ``.total``.

    Raises
    ------
    TypeError, ValueError, DoesNotFitError
        As `fit`.
    TrainingError
        If the run ends before a step is timed; the exception's ``result`` holds it.

    Notes
    -----
    A method of network, solver, loss or data counts with all that it calls; one that is no
    function of Python, as compiled code, or has a decorator in common with another without
    `functools.wraps`, counts as ``update``. A device is waited for at both ends of a part. To look
    at every call adds some tenths of a microsecond to each.
    """
    check_count("steps", steps)
    check_count("after", after, 0)
    if not isinstance(problem, Problem):
        raise TypeError(f"problem must be a Problem, got {type(problem).__name__}")
    problem = replace(problem, test=problem.sample[:1])  # its loss is of no interest
    stopwatch, before = Stopwatch(problem), None

    def train(until: int) -> Result:
        result = fit(problem, optimizer, batch=batch, steps=until, seed=seed, resume=before)
        if result.status == "interrupted":
            raise KeyboardInterrupt
        return result

    if after:
        before = train(after)
    with stopwatch.running():
        result = train(after + steps)
    timed = stopwatch.steps[: result.steps - (before.steps if before else 0)]
    if not timed:
        raise TrainingError(result)
    met = [name for name in PARTS if any(name in step for step in timed)]
    return Profile({k: median(step.get(k, 0.0) for step in timed) for k in met}, result.batch)


class Stopwatch:
    """Reads the clock where a step enters and leaves a part; ``steps`` hold the seconds of each.

    Parts of the problem count with all that they call. Of the library's own, what they call of
    another part counts there.
    """

    def __init__(self, problem: Problem) -> None:
        self.where, network, solver = problem.sample.x, problem.network, problem.solver
        of_problem = (
            ("data", problem, "batch"),
            ("network", network, "forward"),
            ("solver", solver, "forward"),
            ("loss", problem.loss, "value"),
            ("loss", problem.loss, "gradient"),
            ("sweep", solver, "rows"),
            ("row pull-back", network, "rows"),
            ("solver backward", solver, "backward"),
            ("network backward", network, "backward"),
            ("tangents", solver, "tangent"),
            ("tangents", network, "tangent"),
        )
        of_library = (
            ("Gram", StackedJacobian, "gram"),
            ("Gram", StackedJacobian, "gram_of_parameters"),
            ("pull-down", StackedJacobian, "rmatvec"),
            ("tangents", StackedJacobian, "matvec"),
            *(("exchange", Ranks, name) for name in EXCHANGES),
            (REST, Updates, "make"),
        )
        self.parts: dict[CodeType, str | None] = {
            code: name for name, of, method in of_library for code in codes(of, (method,))
        }
        self.opaque: set[CodeType] = set()
        for name, of, method in of_problem:
            for code in codes(of, (method,)):
                shared = code in self.opaque and self.parts[code] != name  # as by a decorator
                self.parts[code] = None if shared else name
                self.opaque.add(code)
        self.since, self.inside = 0.0, list[FrameType]()
        self.steps: list[dict[str, float]] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        """Look at all that this thread calls meanwhile."""
        before = sys.getprofile()
        sys.setprofile(self.look)
        try:
            yield
        finally:
            sys.setprofile(before)

    def look(self, frame: FrameType, event: str, _: Any) -> None:
        """What `sys.setprofile` calls at every call and return."""
        if event == "call" and self.enters(frame):
            self.read()
            self.inside.append(frame)
        elif event == "return" and self.inside and frame is self.inside[-1]:
            self.read()
            self.inside.pop()

    def enters(self, frame: FrameType) -> bool:
        """Whether a function that is called is another part of a step."""
        name = self.part(frame)
        if not self.inside:
            if name == REST:
                self.steps.append({})
            return name == REST
        within = self.inside[-1]
        return within.f_code not in self.opaque and name not in (None, self.part(within))

    def part(self, frame: FrameType) -> str | None:
        """The part that a function is, None if it is none."""
        code = frame.f_code
        if code not in self.parts:
            ours = frame.f_globals.get("__name__", "").startswith(METHODS)
            self.parts[code] = DECOMPOSITION if ours else None
        return self.parts[code]

    def read(self) -> None:
        """Add the seconds since the last reading to the part that they were spent in."""
        synchronize(self.where)
        now = time.perf_counter()
        if self.inside:
            name, step = self.part(self.inside[-1]) or REST, self.steps[-1]
            step[name] = step.get(name, 0.0) + now - self.since
        self.since = now
