"""Some samples at a time, so that what a layer makes on the way stays in cache, on all cores."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from higcore.backend import Array, is_host, module_of
from higcore.device.threads import blas_limits, run_threaded

NUMBERS_ON_HOST = 2**18  # that a part may make: 2 MB, a core's cache
NUMBERS_ON_DEVICE = 2**27  # 1 GB, which is many threads' worth


def in_parts(
    of: Callable[[slice], Array], shape: tuple[int, int], numbers: int, arrays: Sequence[Array]
) -> Array:
    """The array ``of`` all samples, (samples, n), made by slices of them if they are many.

    ``numbers`` is how many a sample makes on the way; the result has the dtype that ``arrays`` have
    together. On the host the slices go to all cores, with a BLAS of one thread each. They do not
    depend on how many cores there are.
    """
    host, samples = is_host(arrays[0]), shape[0]
    few = max(1, (NUMBERS_ON_HOST if host else NUMBERS_ON_DEVICE) // max(1, numbers))
    if few >= samples:
        return of(slice(0, samples))
    out = module_of(arrays[0]).empty(shape, np.result_type(*(array.dtype for array in arrays)))

    def write(first):
        part = slice(first, min(first + few, samples))
        out[part] = of(part)

    firsts = range(0, samples, few)
    if not host:
        for first in firsts:
            write(first)
        return out
    with blas_limits():
        run_threaded(write, firsts)
    return out
