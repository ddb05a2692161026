"""Which library the arrays belong to, moving them on purpose, and who gets the threads."""

from __future__ import annotations

import functools
import math
import os
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import threadpoolctl

CACHE_LINE = 64  # bytes
CPU_COUNT = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def array_module(**arrays):
    """Return the module, ``numpy`` or ``cupy``, that all the named arrays belong to.

    Parameters
    ----------
    **arrays
        The arrays under the names that an error message should use.

    Raises
    ------
    TypeError
        If an argument is no array, or if NumPy and CuPy arrays are mixed.

    Examples
    --------
    >>> array_module(theta=np.zeros(3)).__name__
    'numpy'
    """
    owner = {name: type(array).__module__.partition(".")[0] for name, array in arrays.items()}
    for name, module in owner.items():
        if module not in ("numpy", "cupy") or not hasattr(arrays[name], "shape"):
            kind = type(arrays[name]).__name__
            raise TypeError(f"{name} must be a NumPy or CuPy array, got {kind}")
    first, *others = owner
    for name in others:
        if owner[name] != owner[first]:
            raise TypeError(
                f"{first} is a {owner[first]} array but {name} is a {owner[name]} array; "
                "move one of them with to_device or to_host"
            )
    return sys.modules[owner[first]]


def is_host(array):
    """True for a NumPy array."""
    return isinstance(array, np.ndarray)


def to_host(array):
    """Return ``array`` as a NumPy array (itself if it is one already)."""
    return array if is_host(array) else array.get()


def to_device(array, device):
    """Return ``array`` on ``device``, ``"cpu"`` or ``"gpu"``; a copy only if it has to move."""
    if device == "cpu":
        return to_host(array)
    import cupy

    return cupy.asarray(array)


def choose_device(device="auto"):
    """Resolve ``"auto" | "cpu" | "gpu"`` to ``("cpu" or "gpu", reason)``.

    Raises
    ------
    RuntimeError
        If ``"gpu"`` is asked for and cannot be used; the message says why.
    """
    if device == "cpu":
        return "cpu", "the CPU was asked for"
    obstacle = _gpu_obstacle()
    if device == "gpu" and obstacle:
        raise RuntimeError(f"device 'gpu' cannot be used: {obstacle}")
    return ("cpu", obstacle) if obstacle else ("gpu", "a CUDA device and CuPy are present")


def _gpu_obstacle():
    try:
        import cupy
    except ImportError:
        return "CuPy is not installed (pip install 'higcore[cuda12]' or 'higcore[cuda13]')"
    try:
        cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        return f"CuPy finds no usable CUDA device ({error})"
    return None


def empty(xp, shape, dtype):
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


def available_memory(xp=np, limit=None):
    """Bytes that may be taken now: ``limit``, or what the machine or the CUDA device has free."""
    if limit is not None:
        return limit
    if xp is not np:
        return xp.cuda.runtime.memGetInfo()[0] + xp.get_default_memory_pool().free_bytes()
    return min(_free_memory(), _free_in_container())


def _free_memory():
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return 1024 * next(int(row.split()[1]) for row in lines if row.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return math.inf  # not Linux: the operating system will say


def _free_in_container():
    try:
        limit, used = (Path(f"/sys/fs/cgroup/memory.{x}").read_text() for x in ("max", "current"))
        return int(limit) - int(used)
    except (OSError, ValueError):  # no container, or one without a limit
        return math.inf


@functools.cache
def _numpy_blas():
    """Controller of the OpenBLAS copy inside the NumPy wheel; empty where BLAS is shared."""
    controller = threadpoolctl.ThreadpoolController()
    files = [c["filepath"] for c in controller.info()]
    own = [f for f in files if "numpy.libs" in f or f"numpy{os.sep}.dylibs" in f]
    return controller.select(filepath=own)


@contextmanager
def thread_policy():
    """Keep the two BLAS copies of a NumPy + SciPy installation out of each other's way.

    The wheels carry one OpenBLAS each, whose idle threads spin. In a training step NumPy only
    multiplies small matrices, so its copy gets one thread; the Gram matrix and its decomposition
    go through SciPy's copy, which keeps all cores.
    """
    with _numpy_blas().limit(limits=1):
        yield
