"""What ``==`` means between things that hold arrays: equal content; it never raises."""

from __future__ import annotations

import dataclasses
import functools
import types
from typing import Any

import numpy as np

from .backend import Array

# Compared by their own ==, that is by identity: their attributes do not say what they do.
OPAQUE = (type, types.FunctionType, types.BuiltinFunctionType, types.ModuleType)


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
    if hasattr(one, "dtype") and type(one).__module__.partition(".")[0] in ("numpy", "cupy"):
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
