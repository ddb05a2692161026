"""Which library the arrays belong to, moving them on purpose, and what ``==`` means there."""

from __future__ import annotations

import dataclasses
import functools
import math
import sys
import types
from types import ModuleType
from typing import Any

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
LIBRARIES = ("numpy", "cupy")
# Compared by their own ==, that is by identity: their attributes do not say what they do.
OPAQUE = (type, types.FunctionType, types.BuiltinFunctionType, types.ModuleType)


def is_host(array: Array) -> bool:
    """True for a NumPy array."""
    return isinstance(array, np.ndarray)


def is_array(value: object) -> bool:
    """True for an array, or a scalar, of NumPy or CuPy."""
    return hasattr(value, "dtype") and type(value).__module__.partition(".")[0] in LIBRARIES


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
    size = math.prod(shape) * np.dtype(dtype).itemsize
    buffer = np.empty(size + CACHE_LINE, np.uint8)
    start = -buffer.ctypes.data % CACHE_LINE
    return buffer[start : start + size].view(dtype).reshape(shape)


def synchronize(array: Array) -> None:
    """Wait until the device on which ``array`` lives has done what it was asked; no host waits."""
    if not is_host(array):
        from .device import gpu

        gpu.synchronize()


def same(one: object, other: object) -> bool:
    """Whether two things have equal content: arrays entry by entry, NaN equal to NaN.

    Arrays of another dtype or on another device are not equal. Two objects of a class that does not
    say what equality is are equal if all their attributes are; functions, if they are the same one.
    """
    try:
        return bool(_same(one, other))
    except Exception:  # raised by the == of somebody's part, or because a part holds itself
        return False


def same_fields(one: Any, other: object) -> bool:
    """The ``==`` of a record: the same class, and all fields are the `same`."""
    return same(one, other) if type(one) is type(other) else NotImplemented


def _same(one, other):
    if one is other:
        return True
    one, other = (v.item() if isinstance(v, np.generic) else v for v in (one, other))
    if type(one) is not type(other):
        return one == other
    if is_array(one):
        return _same_arrays(one, other)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(_same, one, other))
    parts = one if isinstance(one, dict) else _attributes(one)
    if parts is None:
        return one == other or (one != one and other != other)  # NaN
    others = other if isinstance(other, dict) else _attributes(other)
    return parts.keys() == others.keys() and all(_same(parts[k], others[k]) for k in parts)


def _same_arrays(one: Array, other: Array) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return bool(((one == other) | ((one != one) & (other != other))).all())  # or both NaN


def _attributes(thing):
    """What makes up an object, by name; None for what has an == to be asked."""
    if isinstance(thing, OPAQUE):
        return None
    if dataclasses.is_dataclass(thing):
        return {f.name: getattr(thing, f.name) for f in dataclasses.fields(thing) if f.compare}
    if isinstance(thing, types.MethodType):
        return {"method": thing.__func__, "of": thing.__self__}
    if isinstance(thing, functools.partial):
        return {"function": thing.func, "arguments": thing.args, "keywords": thing.keywords}
    cls, attributes = type(thing), getattr(thing, "__dict__", None)
    if attributes is None or cls.__eq__ is not object.__eq__:
        return None
    made = functools.cached_property  # which are there once they were asked for
    return {k: v for k, v in attributes.items() if not isinstance(getattr(cls, k, None), made)}
