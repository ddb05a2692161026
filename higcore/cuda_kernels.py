"""CUDA side of `higcore.kernels`: one thread a sample, or one a sample and cotangent.

Imported only when a GPU array shows up.
"""

from __future__ import annotations

import functools
import warnings

import numpy as np
from numba import cuda
from numba.core.errors import NumbaPerformanceWarning

from .gpu import current_stream
from .kernels import dtype_of

THREADS = 64  # a block: few, so that a small batch is spread over many multiprocessors
CONFIGURED = 64  # grids of a kernel that are kept


def launcher(body):
    """Return ``launch(n, args, scratch, cotangents)``; see `kernels.RangeKernel`."""
    device_body = cuda.jit(device=True)(body)

    @functools.cache
    def kernel(count, shapes, dtype, is_sweep):
        return cuda.jit(kernel_source(device_body, count, shapes, dtype, is_sweep))

    @functools.lru_cache(maxsize=CONFIGURED)
    def configured(blocks, stream, *how):
        """A kernel with its grid. Numba warns of small grids; a small batch has no larger one."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NumbaPerformanceWarning)
            return kernel(*how)[blocks, THREADS, cuda.external_stream(stream) if stream else 0]

    def launch(n, args, scratch, cotangents):
        is_sweep = cotangents is not None
        shapes = scratch(1, 1 if is_sweep else None)
        r = cotangents if is_sweep else 1
        how = len(args), shapes, dtype_of(args).type, is_sweep
        configured(-(-n * r // THREADS), current_stream(), *how)(n, r, *map(_on_device, args))

    return launch


def kernel_source(body, count, shapes, dtype, is_sweep):
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
    scope = {"cuda": cuda, "np": np, "body": body, "dtype": dtype, **constants}
    exec("\n".join(lines), scope)
    return scope["kernel"]


def _on_device(argument):
    """An array as Numba sees it, without waiting for the device; scalars as they are.

    Left to itself Numba synchronises with the stream of every array that it is handed. There is
    no need: the kernel is launched on that stream.
    """
    if not hasattr(argument, "__cuda_array_interface__"):
        return argument
    return cuda.as_cuda_array(argument, sync=False)
