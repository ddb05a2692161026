"""How much memory there is where arrays live, and what is said where it is not enough."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np

from ..validation import Array
from . import gpu

LARGEST_LEARNT = 2**25 - 2**16  # bytes; glibc learns from blocks of up to 32 MiB
NEGLIGIBLE = 2**28  # bytes, which any machine has: not asked for
SAFETY_MARGIN = 1.5  # of a step that ran out of memory: how much more it needs than estimated

T = TypeVar("T")


class DoesNotFitError(MemoryError):
    """A step needs more memory than there is; the message names a batch that fits.

    ``reason`` is why an allocation failed, None if that was foreseen and nothing allocated.
    """

    def __init__(self, message: str, reason: str | None = None) -> None:
        super().__init__(message)
        self.reason = reason


def needs(needed: float, there: float) -> str:
    """What is said of a need that was foreseen."""
    return f"needs {needed / 1e9:.3g} GB and {there / 1e9:.3g} GB are there"


def ran_out(reason: str) -> str:
    """What is said of one that was not."""
    return f"ran out of memory ({reason})"


def within_memory(call: Callable[[], T], explain: Callable[[str], Exception]) -> T:
    """Return ``call()``, or raise ``explain(reason)`` if an allocation in it fails.

    That is raised after the failure was left behind: nothing then holds the arrays of the frames
    that it went through.
    """
    try:
        return call()
    except MemoryError as error:
        if isinstance(error, DoesNotFitError) and error.reason is None:  # it was foreseen
            raise
        reason = getattr(error, "reason", str(error).strip()) or "an allocation failed"
    raise explain(reason)


@functools.cache
def keep_what_is_freed() -> None:
    """Let the allocator keep what a step frees, for the next step to take.

    Arrays of a few megabytes would go back to the system at the end of every step, and come page by
    page, cleared, in the next. glibc keeps blocks as large as the largest that was ever freed, and
    twice as much in all: one such block, which nobody touches, teaches it. Elsewhere, nothing.
    """
    np.empty(LARGEST_LEARNT, np.uint8)


def largest_batch(fits: Callable[[int], bool], top: int) -> int:
    """The largest n in [0, top] that fits, by halving; what is larger than what does not fit, does
    not either, and 0 does.
    """
    low = 0
    while low < top:
        middle = (low + top + 1) // 2
        low, top = (middle, top) if fits(middle) else (low, middle - 1)
    return low


def short_of_memory(needed: float, array: Array, limit: float | None = None) -> float | None:
    """Return None if ``needed`` bytes can be had where ``array`` lives, else how many can.

    ``limit`` is what may be used; by default what the machine or the CUDA device has free, which
    is not even asked for small needs.
    """
    if limit is None and needed < NEGLIGIBLE:
        return None
    there = available_memory(array) if limit is None else limit
    return there if needed > there else None


def available_memory(array: Array) -> float:
    """Bytes that can be had where ``array`` lives."""
    if isinstance(array, np.ndarray):
        return min(_free_memory(), _free_in_container())
    return gpu.available_memory()


def release_memory(array: Array) -> None:
    """Give back what the memory pool of a device keeps for later; the host keeps nothing."""
    if not isinstance(array, np.ndarray):
        gpu.release_memory()


def _free_memory() -> float:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return 1024 * next(int(row.split()[1]) for row in lines if row.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return math.inf  # not Linux: the operating system will say


def _free_in_container() -> float:
    try:
        limit, used = (Path(f"/sys/fs/cgroup/memory.{x}").read_text() for x in ("max", "current"))
        return int(limit) - int(used)
    except (OSError, ValueError):  # no container, or one without a limit
        return math.inf
