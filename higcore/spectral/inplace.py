"""BLAS and LAPACK on parts of a Fortran-ordered array, in place.

SciPy's wrappers copy a part of a larger array before they work on it; a blocked factorisation of K
would copy the whole remaining matrix once a panel. The compiled routines behind the wrappers take a
leading dimension; SciPy publishes their addresses for C code in `scipy.linalg.cython_blas` and
`scipy.linalg.cython_lapack`, and `call` uses those.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from scipy.linalg import cython_blas, cython_lapack

_api = ctypes.pythonapi
_api.PyCapsule_GetName.restype = ctypes.c_char_p
_api.PyCapsule_GetName.argtypes = [ctypes.py_object]
_api.PyCapsule_GetPointer.restype = ctypes.c_void_p
_api.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]

Argument: TypeAlias = np.ndarray | int | float | str

KINDS: dict[type, Callable[[Any], Any]] = {
    int: ctypes.c_int,
    float: ctypes.c_double,
    str: lambda s: ctypes.c_char(s.encode()),
}


def call(name: str, *arguments: Argument) -> int:
    """Call a double-precision routine with the arguments of its Fortran documentation.

    Arrays (float64, columns contiguous) go by address and are followed by their leading dimension,
    see `leading`; int, float and one-letter str go by reference. LAPACK's ``info`` is appended by
    this function and returned.
    """
    function, is_lapack = _routine(name, len(arguments))
    info = ctypes.c_int(0)
    function(*map(_reference, arguments), *([ctypes.byref(info)] if is_lapack else []))
    return info.value


def leading(array: np.ndarray) -> int:
    """Leading dimension of a part of a Fortran-ordered array: numbers from column to column."""
    _check_columns(array)
    return max(array.strides[1] // array.itemsize, 1)


def _check_columns(array):
    """Of any other array, the routines would read and write what lies beside it."""
    contiguous = len(array) <= 1 or array.strides[0] == array.itemsize
    if array.dtype != np.float64 or not contiguous:
        raise ValueError(
            f"array must be float64 with contiguous columns, got {array.dtype} with strides "
            f"{array.strides} of shape {array.shape}"
        )


def _reference(argument):
    if isinstance(argument, np.ndarray):
        _check_columns(argument)
        return ctypes.c_void_p(argument.ctypes.data)
    return ctypes.byref(KINDS[type(argument)](argument))


@functools.cache
def _routine(name, count):
    is_lapack = name in cython_lapack.__pyx_capi__
    capsule = (cython_lapack if is_lapack else cython_blas).__pyx_capi__[name]
    address = _api.PyCapsule_GetPointer(capsule, _api.PyCapsule_GetName(capsule))
    prototype = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * (count + is_lapack))
    return prototype(address), is_lapack
