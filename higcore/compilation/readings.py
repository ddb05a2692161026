"""What a function that is to be compiled reads beside its arguments, and a fingerprint of it.

Compiled code holds on to the values that globals, attributes of modules, closures and defaults had
when it was compiled. So they belong to its identity, as its own source does and that of every
function it calls: code on the disk may only be used where all of this is as it was, and code in
memory only as long as it stays.

A function that `numba.extending.overload` puts in the place of another cannot be seen from here.
"""

from __future__ import annotations

import enum
import hashlib
import sys
import types
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

# Packages whose version says all of their content; their own names are not followed.
VERSIONED = {"numpy", "numba", "llvmlite", "builtins"}
CONTAINERS = (list, dict, set, np.ndarray)  # their content may change, and they stay the same


class Reading(NamedTuple):
    """A value that ``look()`` gave to compiled code; ``text`` is its content, or None."""

    name: str
    look: Callable[[], Any]
    value: Any
    text: str | None

    def holds(self) -> bool:
        """Whether the value is still there, and the same."""
        now = self.look()
        if now is self.value and not isinstance(now, CONTAINERS):
            return True
        return self.text is not None and content(now) == self.text


class Sources:
    """A function, all functions that it can reach, and what they read.

    Attributes
    ----------
    functions : dict
        Function -> list of its `Reading`.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.functions: dict[Any, list[Reading]] = {}
        reached = [function]
        for called in reached:  # which grows meanwhile
            if called not in self.functions:
                self.functions[called] = list(_readings(called))
                values = (reading.value for reading in self.functions[called])
                reached += filter(None, map(plain_function, values))

    def fingerprint(self) -> str | None:
        """SHA-256 of the code of all functions, their files, and the content of all that they read.

        The files hold decorators, too, which may say how a function is compiled. None if something
        has no content that could be told, such as an object of a class.
        """
        lines = sorted({_file_digest(function) for function in self.functions})
        for function, readings in self.functions.items():
            lines.append(str(content(function.__code__)))
            for reading in readings:
                if reading.text is None:
                    return None
                lines.append(f"{reading.name} = {reading.text}")
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def require_unchanged(self) -> None:
        """Raise unless every function still reads the values that it was first compiled with."""
        for function, readings in self.functions.items():
            for reading in _FIRST.setdefault(function, readings):
                if not reading.holds():
                    name, now = reading.name, reading.look()
                    raise ValueError(
                        f"{name} was {reading.value!r} when {function.__name__} was compiled and "
                        f"is {now!r} now, but compiled code keeps the values that it met; define "
                        "the kernel and the functions it calls anew (or start Python again), or "
                        f"hand {name} over as an argument"
                    )


def _file_digest(function):
    """Of the file that a function comes from; "" for one typed in."""
    try:
        return hashlib.sha256(Path(function.__code__.co_filename).read_bytes()).hexdigest()
    except OSError:
        return ""


# Numba compiles a function that others call once in a process, with the values of that moment.
_FIRST: weakref.WeakKeyDictionary[Any, list[Reading]] = weakref.WeakKeyDictionary()


def plain_function(value: Any) -> types.FunctionType | None:
    """The Python function behind a value that compiled code calls; None if there is none to read.

    Functions of Python's own library, NumPy and Numba are known by their names.
    """
    function = getattr(value, "py_func", value)  # of what numba.njit made
    if isinstance(function, types.FunctionType) and not _is_versioned(function.__module__):
        return function
    return None


def _is_versioned(module):
    package = (module or "").partition(".")[0]
    return package in VERSIONED or package in sys.stdlib_module_names - {"__main__"}


def _readings(function: Any) -> Iterator[Reading]:
    """What one function reads: globals, attributes of modules, closure, defaults."""
    names = dict.fromkeys(_names(function.__code__))
    scope = function.__globals__
    for name in names:
        if name in scope:
            yield from _reading(name, partial(scope.get, name), names)
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    for name, cell in cells:
        yield from _reading(name, partial(getattr, cell, "cell_contents"), names)
    if function.__defaults__:
        yield from _reading("defaults", partial(getattr, function, "__defaults__"), names)


def _reading(name, look, names, seen=()):
    """One value; of a module, all of its attributes that the code names: rather too many."""
    value = look()
    if not isinstance(value, types.ModuleType):
        yield Reading(name, look, value, content(value))
    elif not _is_versioned(value.__name__) and value not in seen:
        for attribute in names:
            if attribute in vars(value):
                inner = partial(vars(value).get, attribute)
                yield from _reading(f"{name}.{attribute}", inner, names, (*seen, value))


def _names(code: types.CodeType) -> Iterator[str]:
    """Names of globals and attributes in a code object and those inside it."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def content(value: Any) -> str | None:
    """A text that is equal for equal content; None where the content cannot be told."""
    if isinstance(value, types.CodeType):  # what it does, not where it stands
        names = value.co_names, value.co_varnames, value.co_freevars, value.co_cellvars
        constants = [*map(content, value.co_consts)]
        return repr((value.co_code, constants, names, value.co_argcount, value.co_flags))
    if isinstance(value, enum.Enum):
        return f"{type(value).__qualname__}.{value.name} {content(value.value)}"
    if value is None or value is ... or type(value) in (bool, int, float, complex, str, bytes):
        return f"{type(value).__name__} {value!r}"
    if isinstance(value, (np.ndarray, np.generic)) and not value.dtype.hasobject:
        array = np.asarray(value)
        digest = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
        order = "C" if array.flags.c_contiguous else "F" if array.flags.f_contiguous else "A"
        return f"{type(value).__name__} {array.dtype.descr} {array.shape} {order} {digest}"
    if isinstance(value, (tuple, list, set, frozenset, dict)):
        return _content_of_items(value)
    return _name(value)


def _content_of_items(value: Any) -> str | None:
    items = value.items() if isinstance(value, dict) else value
    texts = [text for item in items if (text := content(item)) is not None]
    if len(texts) < len(items):
        return None
    ordered = sorted(texts) if isinstance(value, (set, frozenset)) else texts
    fields = getattr(value, "_fields", "")  # of a named tuple
    return f"{type(value).__qualname__}{fields}({', '.join(ordered)})"


def _name(value: Any) -> str | None:
    """What is known by its name: functions, whose content is looked at elsewhere, and types."""
    if plain_function(value) is not None:
        return f"function {value.__name__} {getattr(value, 'targetoptions', '')}"
    if isinstance(value, np.dtype):
        return f"dtype {value.descr}"
    if isinstance(value, type) and issubclass(value, enum.Enum):
        return f"{value.__qualname__}({', '.join(map(str, map(content, value)))})"
    module = getattr(value, "__module__", None) or type(value).__module__
    if not callable(value) or not _is_versioned(module):
        return None
    return f"{module}.{getattr(value, '__qualname__', None) or repr(value)}"
