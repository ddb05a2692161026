"""Which library the arrays belong to, moving them on purpose, and the memory where they live."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
from numpy.typing import DTypeLike

from .threads import thread_policy as thread_policy  # where scripts have it from
from .validation import Array as Array
from .validation import array_module as array_module
from .validation import check_choice

CACHE_LINE = 64  # bytes
ALWAYS_THERE = 2**28  # bytes


def is_host(array: Array) -> bool:
    """True for a NumPy array."""
    return isinstance(array, np.ndarray)


def module_of(array: Array) -> ModuleType:
    """As `array_module`, of an array that a door has let in: a look-up, which checks nothing."""
    return np if isinstance(array, np.ndarray) else sys.modules["cupy"]


def to_host(array: Array) -> Array:
    """Return ``array`` as a NumPy array (itself if it is one already)."""
    return array if array_module(array=array) is np else array.get()


def to_device(array: Array, device: str) -> Array:
    """Return ``array`` on ``device``, ``"cpu"`` or ``"gpu"``; a copy only if it has to move."""
    check_choice("device", device, ("cpu", "gpu"))
    if device == "cpu":
        return to_host(array)
    array_module(array=array)
    try:
        import cupy
    except ImportError as error:
        from . import gpu

        raise RuntimeError(f"device 'gpu' cannot be used: {gpu.obstacle()}") from error
    return cupy.asarray(array)


def empty(xp: ModuleType, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """Uninitialised array; on the host it starts on a cache line.

    Kernels split the last axis between threads at multiples of 8 samples. If rows are not aligned,
    two threads write to one cache line at every split, and run slower than one would.
    """
    if xp is not np:
        return xp.empty(shape, dtype)
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    buffer = np.empty(size + CACHE_LINE, np.uint8)
    start = -buffer.ctypes.data % CACHE_LINE
    return buffer[start : start + size].view(dtype).reshape(shape)


def short_of_memory(needed: float, array: Array, limit: float | None = None) -> float | None:
    """Return None if ``needed`` bytes can be had where ``array`` lives, else how many can.

    ``limit`` is what may be used; by default what the machine or the CUDA device has free, which
    is not even asked for small needs.
    """
    if limit is None and needed < ALWAYS_THERE:
        return None
    there = available_memory(array) if limit is None else limit
    return there if needed > there else None


def available_memory(array: Array) -> float:
    """Bytes that can be had where ``array`` lives."""
    if is_host(array):
        return min(_free_memory(), _free_in_container())
    from . import gpu

    return gpu.available_memory()


def synchronize(array: Array) -> None:
    """Wait until the device on which ``array`` lives has done what it was asked; no host waits."""
    if not is_host(array):
        from . import gpu

        gpu.synchronize()


def release_memory(array: Array) -> None:
    """Give back what the memory pool of a device keeps for later; the host keeps nothing."""
    if not is_host(array):
        from . import gpu

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
