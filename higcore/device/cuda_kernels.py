"""CUDA side of `higcore.kernels`: one thread a sample, or one a sample and cotangent.

Imported only when a GPU array shows up.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import cuda
from numba.core.errors import NumbaPerformanceWarning

from ..compilation.scratch import Scratch, Shapes, dtype_of
from .gpu import current_stream

THREADS = 64  # a block: few, so that a small batch is spread over many multiprocessors
CONFIGURED = 64  # grids of a kernel that are kept


def launcher(
    body: Callable[..., None],
) -> Callable[[int, tuple[Any, ...], Scratch, int | None], None]:
    """Return ``launch(n, args, scratch, cotangents)``; see `kernels.RangeKernel`."""
    device_body = cuda.jit(device=True)(body)

    @functools.cache
    def kernel(count, shapes, dtype, is_sweep):
        return cuda.jit(kernel_source(device_body, count, shapes, dtype, is_sweep))

    @functools.lru_cache(maxsize=CONFIGURED)
    def configured(blocks, stream, count, shapes, dtype, is_sweep):
        """A kernel with its grid. Numba warns of small grids; a small batch has no larger one."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NumbaPerformanceWarning)
            run = kernel(count, shapes, dtype, is_sweep)
            return run[blocks, THREADS, cuda.external_stream(stream) if stream else 0]

    def launch(n, args, scratch, cotangents):
        is_sweep = cotangents is not None
        shapes = scratch(1, 1 if is_sweep else None)
        r = cotangents if is_sweep else 1
        blocks = -(-n * r // THREADS)
        dtype: Any = dtype_of(args).type
        run = configured(blocks, current_stream(), len(args), shapes, dtype, is_sweep)
        run(n, r, *map(_on_device, args))

    return launch


def kernel_source(
    body: Callable[..., None], count: int, shapes: Shapes, dtype: type[np.generic], is_sweep: bool
) -> Callable[..., None]:
    """A kernel of ``count`` arguments beside n and r, as a plain function.

    Numba launches no kernel with a variable number of arguments, and shapes of a thread's own
    arrays must be constants: only then are they kept in registers. So the function is written out
    here, with as many names as it needs.
    """
    args = [f"a{k}" for k in range(count)]
    local = [f"scratch{k}" for k in range(len(shapes))]
    ranges = ["np.uint64(i)", "np.uint64(i + 1)"]  # unsigned, as on the CPU
    ranges += ["np.uint64(k)", "np.uint64(k + 1)"] if is_sweep else []
    lines = [
        f"def kernel(n, r, {', '.join(args)}):",
        "    lane = cuda.grid(1)",
        "    if lane < n * r:",
        "        i, k = lane // r, lane % r",
        *(f"        {name} = cuda.local.array(shape_{name}, dtype)" for name in local),
        f"        body({', '.join([*ranges, *args, *local])})",
    ]
    constants = {f"shape_{name}": shape for name, shape in zip(local, shapes, strict=True)}
    scope: dict[str, Any] = {"cuda": cuda, "np": np, "body": body, "dtype": dtype, **constants}
    exec("\n".join(lines), scope)
    kernel: Callable[..., None] = scope["kernel"]
    return kernel


def _on_device(argument):
    """An array as Numba sees it, without waiting for the device; scalars as they are.

    Left to itself Numba synchronises with the stream of every array that it is handed. There is
    no need: the kernel is launched on that stream.
    """
    if not hasattr(argument, "__cuda_array_interface__"):
        return argument
    return cuda.as_cuda_array(argument, sync=False)
