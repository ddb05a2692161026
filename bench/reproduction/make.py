"""Make the runs that are not there yet, side by side, and try once more what failed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from higcore.device.threads import cores

from .. import records
from .runs import file_of, record_of
from .stopping import processes

ATTEMPTS = 2
Show = Callable[["Work"], None]


def make(
    runs: Iterable[Any],
    folder: Path,
    executor: Callable[[int], AbstractContextManager[Executor]] = processes,
    workers: int | None = None,
    show: Show = lambda work: None,
) -> dict[Any, str]:
    """Make what ``folder`` does not hold, and return what failed twice, with the reason.

    Parameters
    ----------
    runs : iterable
        Configurations, such as `runs.Training`; what they start from is made, too.
    folder : Path
        Where their files are; with workers on other machines, a folder that all of them see.
    executor : callable
        ``executor(workers)`` is entered and is a `concurrent.futures.Executor` then: in the place
        of a pool of processes, the one of a cluster, as in `executors`.
    workers : int
        How many are computed at a time, each on one core; by default as many as there are cores.
    show : callable
        Is handed the `Work` about once a second, and at its end.
    """
    workers, folder = workers or cores(), folder.absolute()  # others may be in another directory
    work = Work(runs, folder)
    folder.mkdir(parents=True, exist_ok=True)
    while work.left():
        with executor(workers) as pool:  # a new one, where a worker's death broke the last
            _go_through(work, pool, workers, show)
    show(work)
    return work.failed


def make_one(run: Any, folder: Path) -> None:
    """Compute a run and write its file, here or wherever the executor takes it."""
    about = {"configuration": run.described(), "code": run.code()}
    record = run.compute(folder)
    records.write_json(file_of(run, folder), about | record | records.environment())
    for pattern in (f"{run.stem()}-*.*", f".{run.stem()}*"):  # what it would have gone on from,
        for partial in folder.glob(pattern):  # and what was being written when a process died
            partial.unlink()


class Work:
    """What is to be made, what is being made, and what failed.

    Attributes
    ----------
    waiting : list
        Runs that nobody makes yet, in the order in which they will be.
    running : dict
        Future -> run.
    failed : dict
        Run -> reason, of what failed for good and of what needs it.
    made : list
        What is there now and was not.
    """

    def __init__(self, runs: Iterable[Any], folder: Path) -> None:
        self.folder = folder
        self.running: dict[Future[None], Any] = {}
        self.failed: dict[Any, str] = {}
        self.made: list[Any] = []
        self.attempts: dict[Any, int] = {}
        self.suspects: set[Any] = set()  # one of which broke a pool: they are made alone
        self.waiting = in_order([run for run in runs if record_of(run, folder) is None], folder)

    def left(self) -> list[Any]:
        """All that is not done, what runs first."""
        return [*self.running.values(), *self.waiting]

    def take(self) -> Any | None:
        """The next run whose needs are met, if there is one that may be made now."""
        undone = set(self.left())
        ready = (run for run in self.waiting if undone.isdisjoint(run.needs()))
        run = next(ready, None)
        together = {run, *self.running.values()} - {None}
        if run is None or (len(together) > 1 and together & self.suspects):
            return None
        self.waiting.remove(run)
        return run

    def done(self, future: Future[None]) -> None:
        """Note how a run ended."""
        run, error = self.running.pop(future), future.exception()
        if error is None:
            self.made.append(run)
            return
        self.attempts[run] = self.attempts.get(run, 0) + 1
        if isinstance(error, BrokenExecutor):
            self.suspects.add(run)
        if self.attempts[run] < ATTEMPTS:
            self.waiting.insert(0, run)
        else:
            self._fail(run, f"{type(error).__name__}: {error}".strip())

    def _fail(self, run: Any, reason: str) -> None:
        self.failed[run] = reason
        for other in [other for other in self.waiting if run in other.needs()]:
            self.waiting.remove(other)
            self._fail(other, f"{run.stem()}, from which it starts, failed")


def in_order(runs: Iterable[Any], folder: Path) -> list[Any]:
    """The runs and what they need and is not there: seed by seed, the longest first."""
    found = set(runs)
    for run in runs:
        needed = (other for other in run.needs() if not is_complete(other, folder))
        found |= set(in_order(needed, folder))
        found.add(run)
    return sorted(found, key=lambda run: (run.seed, -run.seconds, run.stem()))


def is_complete(run: Any, folder: Path) -> bool:
    """Whether another run can begin with the network of this one."""
    has_network = file_of(run, folder).with_suffix(".npz").exists()
    return has_network and record_of(run, folder) is not None


def _go_through(work: Work, pool: Executor, workers: int, show: Show) -> None:
    """Hand over runs, a few at a time, until all are done or the pool is broken."""
    is_broken = False
    while work.left() and not is_broken:
        is_broken = not _hand_over(work, pool, workers)
        show(work)
        ended = wait(work.running, timeout=1.0, return_when=FIRST_COMPLETED).done
        is_broken |= any(isinstance(future.exception(), BrokenExecutor) for future in ended)
        for future in wait(work.running).done if is_broken else ended:  # which ends them all
            work.done(future)


def _hand_over(work: Work, pool: Executor, workers: int) -> bool:
    """Fill the pool; whether it could take all."""
    while len(work.running) < workers and (run := work.take()):
        try:
            work.running[pool.submit(make_one, run, work.folder)] = run
        except BrokenExecutor:
            work.waiting.insert(0, run)
            return False
    return True
