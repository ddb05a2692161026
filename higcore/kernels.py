"""One plain-Python function over a range of samples, run three ways.

A kernel body has the signature ``body(lo, hi, *args, *scratch)`` and works on the samples
``lo <= i < hi``; the sample index is the last axis of every array. A sweep that pulls r cotangents
a sample back has ``body(lo, hi, first, last, *args, *scratch)`` and works on the cotangents
``first <= k < last`` of these samples. That one choice serves everybody:

- plain Python calls ``body(0, n, [0, r,] ...)``: the oracle in the tests;
- Numba compiles a loop over chunks of samples, one range a thread. The innermost loops run over
  neighbouring samples, so they vectorise (lo and hi arrive unsigned for that: take care not to
  mix them with signed integers, which makes a float);
- on a GPU, thread i r + k calls ``body(i, i + 1, [k, k + 1,] ...)``: neighbouring threads touch
  neighbouring addresses, and even a small batch has many threads.

A body allocates nothing. What it needs between its first and its last line is scratch, which it
indexes from 0, whatever lo and first are: a worker thread's own few rows, which stay in its core's
cache, or a GPU thread's registers and local memory. Arguments are arrays and scalars, no tuples.
Functions that it calls are decorated with `numba.extending.register_jitable`, which leaves them
callable from plain Python.
"""

from __future__ import annotations

import contextvars
import functools
import hashlib
import inspect
import os
import types
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias

import numpy as np

from .backend import CPU_COUNT, empty, is_host

# Samples worked on together: one or two AVX-512 registers of float64; the scratch stays in cache.
MIN_CHUNK, MAX_CHUNK = 8, 16

Shapes: TypeAlias = Sequence[tuple[int, ...]]
Scratch: TypeAlias = Callable[[int, int | None], Shapes]  # (samples, cotangents) -> shapes


def no_scratch(samples: int, cotangents: int | None) -> Shapes:
    """The shapes of no arrays."""
    return ()


class RangeKernel:
    """Run ``body(lo, hi, *args, *scratch)`` over ``n`` samples on the device where ``args`` live.

    Parameters
    ----------
    body : callable
        Plain Python function; see the module's docstring.
    together : int, optional
        Samples worked on together, where one sample has many lanes and its scratch is large: that
        of a chunk should fit into a core's first cache. By default 8 to 16.

    Notes
    -----
    Threads are Python threads that run compiled code without the interpreter lock. Unlike an
    OpenMP pool they sleep between calls, so they take no time from the BLAS threads.
    """

    def __init__(self, body: Callable[..., None], together: int | None = None) -> None:
        self.body, self.together = body, together

    def plain(
        self, n: int, *args: Any, scratch: Scratch = no_scratch, cotangents: int | None = None
    ) -> None:
        """Run the uncompiled body; slow, and the definition of what the others compute."""
        ranges = () if cotangents is None else (0, cotangents)
        shapes = scratch(n, cotangents)
        self.body(0, n, *ranges, *args, *(np.empty(s, dtype_of(args)) for s in shapes))

    def __call__(
        self, n: int, *args: Any, scratch: Scratch = no_scratch, cotangents: int | None = None
    ) -> None:
        """Run the body for all samples.

        Parameters
        ----------
        n : int
            Number of samples.
        *args : arrays and scalars
            What the body takes between its ranges and its scratch.
        scratch : callable, optional
            (samples, cotangents) -> shapes of the scratch arrays for so many worked on together;
            their dtype is that of the first array in ``args``.
        cotangents : int, optional
            Number r of cotangents of a sweep.
        """
        if any(not is_host(a) for a in args if hasattr(a, "shape") and a.shape):
            self._cuda(n, args, scratch, cotangents)
            return
        chunk = self.together or min(MAX_CHUNK, max(MIN_CHUNK, -(-n // CPU_COUNT)))
        workers = min(CPU_COUNT, -(-n // chunk))
        bounds = [chunk * round(k * n / workers / chunk) for k in range(workers)] + [n]
        shapes = scratch(chunk, cotangents)
        ranges = () if cotangents is None else (np.uint64(0), np.uint64(cotangents))

        def run(k):
            own = [empty(np, shape, dtype_of(args)) for shape in shapes]
            self._compiled(bounds[k], bounds[k + 1], chunk, *ranges, *args, *own)

        jobs = [_pool().submit(run, k) for k in range(1, workers)]
        run(0)
        for job in jobs:
            job.result()

    @functools.cached_property
    def _compiled(self):
        import numba

        body = numba.extending.register_jitable(self.body)
        fingerprint = _fingerprint(self.body)

        @numba.njit(nogil=True, cache=True)
        def loop(lo, hi, chunk, *args):
            fingerprint  # noqa: B018  part of the cache key: Numba itself looks at this file only
            for start in range(lo, hi, chunk):
                # Unsigned: a sample index that might be negative would be wrapped around, and a
                # loop with such an address is not vectorised.
                body(np.uint64(start), np.uint64(min(hi, start + chunk)), *args)

        return loop

    @functools.cached_property
    def _cuda(self):
        from . import cuda_kernels

        return cuda_kernels.launcher(self.body)


def dtype_of(args: Iterable[Any]) -> np.dtype:
    """The dtype of the first array among the arguments of a kernel."""
    return next(a.dtype for a in args if getattr(a, "shape", ()))


def lazy_njit(
    function: Callable[..., Any] | None = None, *, sums_in_any_order: bool = False
) -> Callable[..., Any]:
    """Numba-compile ``function`` for the CPU at its first call, so that imports stay light.

    The compiled code is cached on disk and runs without the interpreter lock; the plain function
    stays reachable as ``.__wrapped__``. ``sums_in_any_order`` lets sums be reordered and products
    fused into them, without which a loop that sums up does not vectorise. Plain functions of the
    same module may be called.
    """
    if function is None:
        return functools.partial(lazy_njit, sums_in_any_order=sums_in_any_order)

    @functools.cache
    def compiled():
        import numba

        fast = {"reassoc", "contract"} if sums_in_any_order else False
        for helper in _reachable(function):
            if helper is not function and helper.__module__ == function.__module__:
                numba.extending.register_jitable(fastmath=fast)(helper)
        return numba.njit(nogil=True, cache=True, fastmath=fast)(function)

    @functools.wraps(function)
    def call(*args):
        return compiled()(*args)

    return call


def run_threaded(function: Callable[[int], object], items: Sequence[int]) -> None:
    """Call ``function`` with every item, on all cores; it should spend its time without the GIL.

    `numpy.errstate` of the caller holds in all threads.
    """
    if CPU_COUNT == 1 or len(items) == 1:
        for item in items:
            function(item)
    else:
        context = contextvars.copy_context()
        list(_pool().map(lambda item: context.copy().run(function, item), items))


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(CPU_COUNT)


if hasattr(os, "register_at_fork"):  # threads do not survive a fork: the child makes its own
    os.register_at_fork(after_in_child=_pool.cache_clear)


def _fingerprint(function):
    """Hash of every source file whose functions ``function`` can reach through its globals."""
    digest = hashlib.sha256()
    for file in sorted({_source_file(f) for f in _reachable(function)}):
        with open(file, "rb") as stream:
            digest.update(stream.read())
    return digest.hexdigest()


def _source_file(function: Callable[..., Any]) -> str:
    file = inspect.getsourcefile(function)
    if file is None:
        raise ValueError(
            f"{function.__name__} must be defined in a file, whose content tells whether compiled "
            "code on the disk is that of the function"
        )
    return file


def _reachable(function, seen=None):
    seen = {} if seen is None else seen
    seen[function] = None
    names = function.__code__.co_names
    scope = [function.__globals__.get(name) for name in names]
    modules = [m for m in scope if isinstance(m, types.ModuleType) and m is not np]
    scope += [getattr(module, name, None) for module in modules for name in names]
    for value in scope:
        if isinstance(value, types.FunctionType) and value not in seen:
            _reachable(value, seen)
    return list(seen)
