"""Which library the arrays belong to, moving them on purpose, and the memory where they live."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import DTypeLike

from .threads import thread_policy as thread_policy  # where scripts have it from

# A NumPy array, or a CuPy array where one came in. CuPy has no annotations and is mostly not
# installed where a program is checked, and NumPy's are of NumPy alone: so this says what is meant,
# and shapes and dtypes are said by the docstrings and checked when a program runs.
Array: TypeAlias = Any

CACHE_LINE = 64  # bytes
ALWAYS_THERE = 2**28  # bytes
HOST_KINDS = {np.ndarray, np.memmap}  # others have shapes, products or masks of their own


def array_module(**arrays: Array) -> ModuleType:
    """Return the module, ``numpy`` or ``cupy``, that all the named arrays belong to.

    Parameters
    ----------
    **arrays
        The arrays under the names that an error message should use.

    Raises
    ------
    TypeError
        If an argument is no array, or of a class derived from NumPy's other than `numpy.memmap`,
        such as numpy.matrix or a masked array; or if NumPy and CuPy arrays are mixed.

    Examples
    --------
    >>> array_module(theta=np.zeros(3)).__name__
    'numpy'
    """
    if set(map(type, arrays.values())) <= HOST_KINDS:  # many calls a step
        return np
    owner = {name: _owner(name, array) for name, array in arrays.items()}
    first, *others = owner
    for name in others:
        if owner[name] != owner[first]:
            raise TypeError(
                f"{first} is a {owner[first]} array but {name} is a {owner[name]} array; "
                "move one of them with to_device or to_host"
            )
    return sys.modules[owner[first]]


def _owner(name, array):
    """ "numpy" or "cupy". Compiled code goes by the shape of a plain array; a matrix keeps none."""
    kind = type(array)
    if kind in HOST_KINDS:
        return "numpy"
    if kind.__name__ == "ndarray" and kind.__module__.partition(".")[0] == "cupy":
        return "cupy"
    advice = ""
    if isinstance(array, np.ma.MaskedArray):
        advice = "; fill in what is masked, with its method filled"
    elif isinstance(array, np.ndarray):
        advice = "; numpy.asarray makes a plain array of it"
    raise TypeError(f"{name} must be a NumPy or CuPy array, got {kind.__name__}{advice}")


def is_host(array: Array) -> bool:
    """True for a NumPy array."""
    return isinstance(array, np.ndarray)


def to_host(array: Array) -> Array:
    """Return ``array`` as a NumPy array (itself if it is one already)."""
    array_module(array=array)
    return array.get() if hasattr(array, "get") else array


def to_device(array: Array, device: str) -> Array:
    """Return ``array`` on ``device``, ``"cpu"`` or ``"gpu"``; a copy only if it has to move."""
    from .validation import check_choice  # which imports this module

    array_module(array=array)
    check_choice("device", device, ("cpu", "gpu"))
    if device == "cpu":
        return to_host(array)
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
