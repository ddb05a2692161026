"""Which library the arrays belong to, and moving them on purpose."""

from __future__ import annotations

import sys
from types import ModuleType

import numpy as np
from numpy.typing import DTypeLike

from .device.memory import available_memory as available_memory  # where scripts have them from
from .device.memory import release_memory as release_memory
from .device.memory import short_of_memory as short_of_memory
from .device.threads import thread_policy as thread_policy
from .validation import Array as Array
from .validation import array_module as array_module
from .validation import check_choice

CACHE_LINE = 64  # bytes


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
        from .device import gpu

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


def synchronize(array: Array) -> None:
    """Wait until the device on which ``array`` lives has done what it was asked; no host waits."""
    if not is_host(array):
        from .device import gpu

        gpu.synchronize()
