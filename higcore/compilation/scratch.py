"""Scratch arrays of a kernel: their shapes, and the dtype that they share with its arguments."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np

Shapes: TypeAlias = Sequence[tuple[int, ...]]
Scratch: TypeAlias = Callable[[int, int | None], Shapes]  # (samples, cotangents) -> shapes


def no_scratch(samples: int, cotangents: int | None) -> Shapes:
    """The shapes of no arrays."""
    return ()


def dtype_of(args: Iterable[Any]) -> np.dtype:
    """The dtype of the first array among the arguments of a kernel."""
    return next(a.dtype for a in args if getattr(a, "shape", ()))
