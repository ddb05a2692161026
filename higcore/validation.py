"""Argument checks whose messages name the argument, what came and what is expected."""

from __future__ import annotations

import math
import numbers
import sys
from collections.abc import Collection, Sequence
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np

# A NumPy array, or a CuPy array where one came in. CuPy has no annotations and is mostly not
# installed where a program is checked, and NumPy's are of NumPy alone: so this says what is meant,
# and shapes and dtypes are said by the docstrings and checked when a program runs.
Array: TypeAlias = Any
Shape: TypeAlias = Sequence[int | str]
HOST_KINDS = {np.ndarray, np.memmap}  # others have shapes, products or masks of their own
FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


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


class NonFiniteError(ValueError):
    """An array that must be finite holds NaN or Inf."""


def check_arrays(*, same_dtype: bool = True, **given: tuple[Array, Shape]) -> ModuleType:
    """Return the module of the arrays at a public door, or raise naming what is wrong with one.

    Parameters
    ----------
    same_dtype : bool
        Whether they must share one dtype. Each must be float32 or float64 in any case.
    **given
        Arrays with their shapes, under the names that an error message should use. An entry of a
        shape is as for `check_array`; a str is the same size in all arrays that follow.

    Examples
    --------
    >>> check_arrays(x=(np.ones((3, 4)), ("b", 4)), u=(np.ones((3, 2)), ("b", 2))).__name__
    'numpy'
    """
    fits, dtypes = True, set()
    sizes: dict[int | str, int] = {}
    for array, shape in given.values():  # one quick look, as there are many doors in a step
        fits = fits and type(array) in HOST_KINDS and len(shape) == array.ndim and array.size > 0
        if fits:
            dtypes.add(array.dtype)
            for n, m in zip(shape, array.shape, strict=True):
                fits = fits and (n == m or (type(n) is str and sizes.setdefault(n, m) == m))
    if fits and dtypes.issubset(FLOATS) and (len(dtypes) == 1 or not same_dtype):
        return np
    return _examine(given, same_dtype)


def _examine(given: dict[str, tuple[Array, Shape]], same_dtype: bool) -> ModuleType:
    """`check_arrays` array by array: of another library, or one of them must be named."""
    arrays = {name: array for name, (array, _) in given.items()}
    xp = array_module(**arrays)
    sizes: dict[int | str, int] = {}
    for name, (array, shape) in given.items():
        check_array(name, array, [sizes.get(n, n) for n in shape])
        sizes.update(zip(shape, array.shape, strict=True))
    if same_dtype:
        check_same_dtype(**arrays)
    return xp


def check_array(name: str, array: Array, shape: Shape) -> None:
    """Raise unless ``array`` is a float32 or float64 array that fits ``shape``.

    An entry of ``shape`` is an int (exact) or a str (any size >= 1, named in the message).
    """
    if type(array) is not np.ndarray:
        array_module(**{name: array})
    if array.dtype not in FLOATS:
        swapped = array.dtype.newbyteorder() in FLOATS
        advice = "; astype puts its bytes in this machine's order" if swapped else ""
        raise TypeError(
            f"{name} must be a float32 or float64 array, got dtype {array.dtype}{advice}"
        )
    fits = len(array.shape) == len(shape)
    for n, m in zip(shape, array.shape, strict=False):
        fits = fits and (n == m or type(n) is str)
    if fits and 0 not in array.shape:
        return
    expected = f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"
    if not fits:
        raise ValueError(f"{name} must have shape {expected}, got {array.shape}")
    raise ValueError(f"{name} is empty: shape {array.shape}, expected {expected} with sizes >= 1")


def check_like(name: str, array: Array, shape: Shape, **model: Array) -> None:
    """As `check_array`; ``array`` must also live where the one ``model`` does, in its dtype."""
    ((other, known),) = model.items()
    given: dict[str, Any] = {other: (known, known.shape), name: (array, shape)}
    check_arrays(**given)


def check_cotangents(name: str, array: Array, b: int, size: int, **model: Array) -> None:
    """As `check_like` for cotangents (b, size), or r of them a sample, (b, r, size).

    Compiled sweeps trust these sizes: beyond the end of an array they would read other memory.
    """
    several = len(getattr(array, "shape", ())) == 3
    check_like(name, array, (b, "r", size) if several else (b, size), **model)


def check_index(name: str, index: Array, **model: Array) -> None:
    """Raise unless ``index`` chooses rows of the one ``model``: integers (k,), or a mask (n,).

    CuPy would take an index beyond the end for another one.
    """
    array_module(**{name: index}, **model)
    n = len(*model.values())
    if index.ndim != 1:
        raise ValueError(f"{name} must have one axis, got shape {index.shape}")
    if index.dtype.kind == "b" and len(index) != n:
        raise ValueError(f"{name} must be one True or False for each of {n}, got {len(index)}")
    if index.dtype.kind not in "biu":
        raise TypeError(f"{name} must hold integers, or True and False, got dtype {index.dtype}")
    if index.dtype.kind != "b" and len(index):
        for worst in (int(index.min()), int(index.max())):
            if not -n <= worst < n:
                raise ValueError(f"{name} must be in [{-n}, {n - 1}], got {worst}")


def all_finite(array: Array) -> bool:
    """Whether an array holds neither NaN nor Inf; waits for a device."""
    if type(array) is not np.ndarray:
        return bool(array_module(array=array).isfinite(array).all())
    # The sum of squares is asked in a third of the time, and overflows in no usual step.
    quick = array.dtype in FLOATS and math.isfinite(np.vdot(array, array))
    return quick or bool(np.isfinite(array).all())


def check_finite(name: str, array: Array) -> None:
    """Raise `NonFiniteError` if an array, or a number, holds NaN or Inf; costs one pass over it."""
    if isinstance(array, (int, float, np.generic)):
        array = np.asarray(array)
    xp = array_module(**{name: array})
    if not all_finite(array):
        if array.size == 1:
            raise NonFiniteError(f"{name} is {float(array.reshape(()))}; it must be finite")
        bad = int((~xp.isfinite(array)).sum())
        raise NonFiniteError(
            f"{name} holds {bad} non-finite value(s) (NaN or Inf) of {array.size}; "
            "every entry must be finite"
        )


def check_same_dtype(*, advice: str = "", **arrays: Array) -> None:
    """Raise unless all named arrays share one dtype; ``advice`` says what to do about it."""
    if len({array.dtype for array in arrays.values()}) > 1:
        listing = ", ".join(f"{name} is {array.dtype}" for name, array in arrays.items())
        raise TypeError(f"arrays must share one dtype, but {listing}{advice}")


def check_choice(name: str, value: object, known: Collection[str]) -> None:
    """Raise unless ``value`` is one of the strings in ``known``; the message lists them."""
    if not isinstance(value, str) or value not in known:
        listing = ", ".join(repr(k) for k in known)
        raise ValueError(f"{name} must be one of {listing}; got {value!r}")


def check_real(
    name: str,
    value: object,
    low: float = -math.inf,
    high: float = math.inf,
    *,
    open_low: bool = False,
) -> None:
    """Raise unless ``value`` is a finite real number in [low, high], or (low, high] if open_low."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a real number, got {value!r}")
    number = float(value)
    inside = (low < number if open_low else low <= number) and number <= high
    if not (math.isfinite(number) and inside):
        interval = f"{'(' if open_low else '['}{low:g}, {high:g}]"
        raise ValueError(f"{name} must be a finite number in {interval}, got {value!r}")


def check_real_field(
    part: object,
    name: str,
    low: float = -math.inf,
    high: float = math.inf,
    *,
    open_low: bool = False,
) -> None:
    """`check_real` for a field of a frozen dataclass, which is made a number of Python's.

    NumPy makes float64 arrays of float32 ones that are multiplied by its own float64 scalars.
    """
    value = getattr(part, name)
    check_real(name, value, low, high, open_low=open_low)
    object.__setattr__(part, name, value if type(value) in (int, float) else float(value))


def check_reals(
    name: str,
    values: Any,
    size: int,
    low: float = -math.inf,
    high: float = math.inf,
    *,
    open_low: bool = False,
) -> float | tuple[float, ...]:
    """Return a number, or ``size`` of them, as Python's; raise unless `check_real` takes each."""
    listed = isinstance(values, (Sequence, np.ndarray)) and not isinstance(values, str)
    if not listed or getattr(values, "ndim", 1) != 1:
        check_real(name, values, low, high, open_low=open_low)
        return float(values)
    if len(values) != size:
        raise ValueError(f"{name} must be one number or {size} of them, got {len(values)}")
    for value in values:
        check_real(name, value, low, high, open_low=open_low)
    return tuple(map(float, values))


def check_count(name: str, value: object, minimum: int = 1) -> None:
    """Raise unless ``value`` is an integer >= minimum."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if value < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {value}")


def check_counts(name: str, values: object) -> None:
    """Raise unless ``values`` is a list, a tuple or a 1-D array of integers >= 1."""
    if isinstance(values, str) or not isinstance(values, (Sequence, np.ndarray)):
        raise TypeError(f"{name} must be a list or tuple of integers, got {values!r}")
    for value in values:
        check_count(name, value)


def check_flag(name: str, value: object) -> None:
    """Raise unless ``value`` is True or False."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False, got {value!r}")


def check_callable(name: str, value: object) -> None:
    """Raise unless ``value`` can be called."""
    if not callable(value):
        raise TypeError(f"{name} must be callable, got {value!r}")


def is_optimizer(value: object) -> bool:
    """Whether ``value`` has what an optimizer has; a class of optimizers is none."""
    return hasattr(value, "init") and hasattr(value, "update") and not isinstance(value, type)


def check_optimizer(name: str, value: object) -> None:
    """Raise unless ``value`` is an optimizer."""
    if not is_optimizer(value):
        raise TypeError(f"{name} must have init and update, got {value!r}")


def check_dtype(name: str, dtype: Any) -> None:
    """Raise unless ``dtype`` is one of those that everything here is computed in."""
    try:
        known = dtype is not None and np.dtype(dtype) in FLOATS
    except TypeError:  # NumPy has no such dtype
        known = False
    if not known:
        raise TypeError(f"{name} must be float32 or float64, got {dtype!r}")


def check_has(name: str, thing: object, wanted: Sequence[str], advice: str) -> None:
    """Raise unless ``thing`` is an object with all the attributes that are wanted of it."""
    if isinstance(thing, type):
        kind = thing.__name__
        raise TypeError(f"{name} must be an instance, {kind}(), not the class {kind}")
    if missing := [attribute for attribute in wanted if not hasattr(thing, attribute)]:
        raise TypeError(
            f"{name} must have {', '.join(wanted)}; {type(thing).__name__} lacks "
            f"{', '.join(missing)} ({advice})"
        )
