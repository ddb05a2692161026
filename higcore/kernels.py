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
A division by 0 gives infinity or NaN, as on a GPU: to test the divisor would keep a loop from being
vectorised.
Functions that it calls are plain ones, too, of any module: whatever a body can reach is compiled
with it.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .backend import empty, is_host
from .compilation.readings import Sources
from .compilation.scratch import Scratch, dtype_of, no_scratch
from .device import threads

# Samples worked on together: one or two AVX-512 registers of float64; the scratch stays in cache.
MIN_CHUNK, MAX_CHUNK = 8, 16

_plainly: ContextVar[set[str] | None] = ContextVar("plainly", default=None)


@contextlib.contextmanager
def uncompiled() -> Iterator[set[str]]:
    """Within it, kernels run as the plain Python that defines them; yield the names of those."""
    met: set[str] = set()
    token = _plainly.set(met)
    try:
        yield met
    finally:
        _plainly.reset(token)


@dataclass(unsafe_hash=True, repr=False)
class RangeKernel:
    """Run ``body(lo, hi, *args, *scratch)`` over ``n`` samples on the device where ``args`` live.

    Parameters
    ----------
    body : callable
        Plain Python function; see the module's docstring.
    together : int, optional
        Samples worked on together, where one sample has many lanes and its scratch is large: that
        of a chunk should fit into a core's first cache. By default 8 to ``most``.
    most : int
        The largest number of samples worked on together: more than 16 where short loops over them
        cost more than what they do.

    Raises
    ------
    ValueError
        When called, if a global value that the body or a function that it calls reads is another
        one than when it was compiled.

    Notes
    -----
    Threads are Python threads that run compiled code without the interpreter lock. Unlike an
    OpenMP pool they sleep between calls, so they take no time from the BLAS threads.

    Compiled code is kept on the disk, and belongs to the source of all functions that the body can
    reach and to the values that they read from outside.
    """

    body: Callable[..., None]
    together: int | None = None
    most: int = MAX_CHUNK

    # These are there once the kernel has run.
    _sources: Any = field(default=None, init=False, compare=False)
    _compiled: Any = field(default=None, init=False, compare=False)
    _launch: Any = field(default=None, init=False, compare=False)

    def __reduce__(self) -> tuple[Any, ...]:
        return RangeKernel, (self.body, self.together, self.most)

    def plain(
        self,
        n: int,
        *args: Any,
        scratch: Scratch = no_scratch,
        cotangents: int | None = None,
        alone: bool = False,
    ) -> None:
        """Run the uncompiled body; slow, and the definition of what the others compute."""
        ranges = () if cotangents is None else (0, cotangents)
        shapes = scratch(n, cotangents)
        self.body(0, n, *ranges, *args, *(np.empty(s, dtype_of(args)) for s in shapes))

    def __call__(
        self,
        n: int,
        *args: Any,
        scratch: Scratch = no_scratch,
        cotangents: int | None = None,
        alone: bool = False,
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
        alone : bool
            On the caller's thread alone: for a call that takes no longer than waking another.
        """
        if (met := _plainly.get()) is not None:
            met.add(self.body.__name__)
            self.plain(n, *args, scratch=scratch, cotangents=cotangents)
        elif all(is_host(a) for a in args if getattr(a, "shape", ())):
            self._on_threads(n, args, scratch, cotangents, 1 if alone else threads.cores())
        else:
            self._cuda(n, args, scratch, cotangents)

    def _on_threads(self, n, args, scratch, cotangents, count):
        loop = self._loop()
        chunk = self.together or min(self.most, max(MIN_CHUNK, -(-n // count)))
        workers = min(count, -(-n // chunk))
        bounds = [chunk * round(k * n / workers / chunk) for k in range(workers)] + [n]
        shapes = scratch(chunk, cotangents)
        ranges = () if cotangents is None else (np.uint64(0), np.uint64(cotangents))

        def run(k):
            own = [empty(np, shape, dtype_of(args)) for shape in shapes]
            loop(bounds[k], bounds[k + 1], chunk, *ranges, *args, *own)

        threads.run_threaded(run, range(workers))

    def _loop(self):
        """The compiled loop over chunks; two threads that come first may both make it."""
        if self._compiled is None:
            from .compilation.store import compile_kept

            body = self.body

            def loop(lo, hi, chunk, *args):
                for start in range(lo, hi, chunk):
                    # Unsigned: a sample index that might be negative would be wrapped around, and
                    # a loop with such an address is not vectorised.
                    body(np.uint64(start), np.uint64(min(hi, start + chunk)), *args)

            sources = Sources(loop)
            sources.require_unchanged()
            compiled = compile_kept(loop, sources, body.__name__, divides_by_zero=True)
            self._sources, self._compiled = sources, compiled
        self._sources.require_unchanged()
        return self._compiled

    def _cuda(self, n, args, scratch, cotangents):
        if self._launch is None:
            from .compilation.store import make_callable
            from .device import cuda_kernels

            self._sources = self._sources or Sources(self.body)
            make_callable(self._sources)
            self._launch = cuda_kernels.launcher(self.body)
        self._sources.require_unchanged()
        self._launch(n, args, scratch, cotangents)


def lazy_njit(
    function: Callable[..., Any] | None = None, *, sums_in_any_order: bool = False
) -> Callable[..., Any]:
    """Numba-compile ``function`` for the CPU at its first call, so that imports stay light.

    The compiled code is cached on disk and runs without the interpreter lock; the plain function
    stays reachable as ``.__wrapped__``. ``sums_in_any_order`` lets sums be reordered and products
    fused into them, without which a loop that sums up does not vectorise. It may call plain
    functions, as the body of a `RangeKernel` may.
    """
    if function is None:
        return functools.partial(lazy_njit, sums_in_any_order=sums_in_any_order)

    @functools.cache
    def compiled():
        from .compilation.store import compile_kept

        fastmath = ("reassoc", "contract") if sums_in_any_order else ()
        return compile_kept(function, Sources(function), function.__name__, fastmath)

    @functools.wraps(function)
    def call(*args):
        return compiled()(*args)

    call.compiled = compiled  # type: ignore[attr-defined]  # Numba's dispatcher, for tests
    return call
