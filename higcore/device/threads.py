"""How many threads there may be, and who gets them: our own workers, and two copies of BLAS."""

from __future__ import annotations

import contextvars
import functools
import math
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import threadpoolctl

from ..validation import check_count, check_real

LARGE_PRODUCT = 5e8  # operations, some 10 ms of a core
ROWS_FOR_THREADS = 500  # two threads: dipole, 448 rows, 17 ms a step instead of 14; 512 rows, even
PACKAGES = ("numpy", "scipy")  # whose wheels carry one copy of OpenBLAS each
ASKED_FOR = ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS")  # limits in the environment


def cores() -> int:
    """Return how many threads our own work may take: the least of all limits there are.

    They are the cores that the process may run on (its affinity), the quota of its container,
    ``NUMBA_NUM_THREADS`` and ``OMP_NUM_THREADS``, and the threads that BLAS may take, which
    `threadpoolctl.threadpool_limits` sets, and ``OPENBLAS_NUM_THREADS`` and its like.
    """
    return max(1, min(_affinity(), _quota(), _asked_for(), _blas_threads()))


def _all_cores() -> int:
    return os.cpu_count() or 1


def _affinity() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else _all_cores()


@functools.cache
def _quota(folder: Path = Path("/sys/fs/cgroup")) -> int:
    """Whole cores that a container may use; many, where there is none or it has no limit."""
    try:
        if (folder / "cpu.max").exists():
            allowed, period = (folder / "cpu.max").read_text().split()
        else:  # the older hierarchy
            files = ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")
            allowed, period = ((folder / name).read_text() for name in files)
        share = int(allowed) / int(period)  # without a limit of "max", a ValueError, or -1
    except (OSError, ValueError):
        return _all_cores()
    return max(1, math.ceil(share)) if share >= 0 else _all_cores()


@functools.cache
def _asked_for() -> int:
    """The least number of threads that the environment names; OMP_NUM_THREADS may be a list."""
    first = (os.environ.get(name, "").partition(",")[0].strip() for name in ASKED_FOR)
    return min((int(n) for n in first if n.isdecimal() and int(n) > 0), default=_all_cores())


def _blas_threads() -> int:
    return max((_limit(package).allowed() for package in PACKAGES), default=1)


# Whoever forks holds it, so that no other thread is within OpenBLAS then to set a limit: the child
# would wait for OpenBLAS's own lock for ever.
_setting_limits = threading.Lock()


class _Limit:
    """One thread for a copy of BLAS while anybody, in any thread, asks for it."""

    def __init__(self, package: str) -> None:
        controller = threadpoolctl.ThreadpoolController()
        files = [c["filepath"] for c in controller.info()]
        own = [f for f in files if f"{package}.libs" in f or f"{package}{os.sep}.dylibs" in f]
        self.blas = controller.select(filepath=own)  # empty where BLAS is shared
        self.counted = self.blas if own else controller.select(user_api="blas")
        self.users: list[int] = []  # the threads that asked, by number
        self.before = 1  # threads, before the first of them

    def allowed(self) -> int:
        """Threads that BLAS may take but for our own limit; many, if no BLAS is seen."""
        return self.before if self.users else self._now()

    def _now(self):
        found = (library.num_threads for library in self.counted.lib_controllers)
        return min((n for n in found if n), default=_all_cores())

    def is_held_here(self) -> bool:
        """Whether the thread that asks is within a block of its own."""
        return threading.get_ident() in self.users

    @contextmanager
    def held(self) -> Iterator[None]:
        """The limit holds for the block, and until the last of the overlapping ones ends."""
        with _setting_limits:
            if not self.users:
                self.before = self._now()
                self._set(1)
            self.users.append(threading.get_ident())
        try:
            yield
        finally:
            with _setting_limits:
                self.users.remove(threading.get_ident())
                if not self.users:
                    self._set(self.before)

    def _set(self, count):
        """The limit of all threads is set by whichever thread is here, be it the last to leave.

        From version 3.8 on, threadpoolctl lets no thread but the first one set it, for its own
        limits do not count their users.
        """
        for library in self.blas.lib_controllers:
            release = getattr(library, "clear_controlling_thread", lambda force: None)
            release(force=True)
            library.set_num_threads(count)
            release(force=True)

    def after_fork(self) -> None:
        """Only the thread that forked goes on in the child; others will not leave their blocks."""
        held = bool(self.users)
        self.users = [user for user in self.users if user == threading.get_ident()]
        if held and not self.users:
            self._set(self.before)


_limits: dict[str, _Limit] = {}


def _limit(package):
    if package not in _limits:
        _limits[package] = _Limit(package)
    return _limits[package]


def thread_policy(operations: float = 0, rows: int | None = None) -> AbstractContextManager[None]:
    """Keep the BLAS copies and the threads of the solvers out of each other's way.

    NumPy's and SciPy's wheels carry one OpenBLAS each, whose threads spin for some 20 ms after
    their last work, longer than a whole step may take: whatever another pool does then runs as on
    half the cores. So

    - NumPy's copy, which multiplies small matrices in most training steps, gets one thread, unless
      a product takes so many ``operations`` that the spinning does not count (`LARGE_PRODUCT`);
    - SciPy's copy, which decomposes a matrix of so many ``rows``, keeps all cores if there are
      enough rows to win more than the spinning costs (`ROWS_FOR_THREADS`).

    A limit belongs to the process: where blocks overlap in several threads, it ends with the last.
    """
    check_real("operations", operations, 0.0)
    if rows is not None:
        check_count("rows", rows, 0)
    return _all_held(_needed(operations, rows))


def blas_limits(operations: float = 0, rows: int | None = None) -> AbstractContextManager[None]:
    """`thread_policy` of numbers that need no check, for a block within those of its thread."""
    return _all_held([limit for limit in _needed(operations, rows) if not limit.is_held_here()])


def _needed(operations, rows):
    few = rows is not None and rows < ROWS_FOR_THREADS
    packages = {"numpy": operations < LARGE_PRODUCT, "scipy": few}
    return [_limit(package) for package, small in packages.items() if small]


@contextmanager
def _all_held(limits):
    with ExitStack() as stack:
        for limit in limits:
            stack.enter_context(limit.held())
        yield


class computed_once(functools.cached_property):
    """`functools.cached_property` without the lock that up to Python 3.11 all objects share.

    A child that is forked while another thread holds it would wait for ever. Two threads that come
    first may both compute the value.
    """

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self
        value = instance.__dict__[self.attrname] = self.func(instance)
        return value


def run_threaded(function: Callable[[int], object], items: Sequence[int]) -> None:
    """Call ``function`` with every item, on all `cores`; it should spend its time without the GIL.

    `numpy.errstate` of the caller holds in all threads. The caller's thread is one of them.
    """
    left = iter(items)

    def work() -> None:
        for item in left:  # a range's iterator hands every item to one thread
            function(item)

    context = contextvars.copy_context()
    workers = min(cores(), len(items)) if len(items) > 1 else 1
    jobs = [_pool().submit(context.copy().run, work) for _ in range(workers - 1)]
    try:
        work()
    finally:
        for job in jobs:
            job.result()


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count())


def _after_fork() -> None:
    """Threads do not survive a fork: the child makes its own."""
    _setting_limits.release()
    _pool.cache_clear()
    for limit in _limits.values():
        limit.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_setting_limits.acquire,
        after_in_parent=_setting_limits.release,
        after_in_child=_after_fork,
    )
