"""CUDA side of `higcore.kernels`: one thread a sample. Imported only when a GPU array shows up."""

from __future__ import annotations

import numpy as np
from numba import cuda

THREADS = 128  # a block


def launcher(body):
    """Return ``launch(n, *args)``, which runs ``body(i, i + 1, *args)`` in thread i < n."""
    body = cuda.jit(device=True)(body)

    @cuda.jit
    def kernel(n, *args):
        i = cuda.grid(1)
        if i < n:
            body(np.uint64(i), np.uint64(i + 1), *args)  # unsigned, as on the CPU

    def launch(n, *args):
        kernel[(n + THREADS - 1) // THREADS, min(n, THREADS)](n, *args)

    return launch
