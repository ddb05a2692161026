"""What is told of a run while it goes on, and at its end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from .result import Result

Callback: TypeAlias = Callable[[Result], object]  # True asks to stop


def asked_to_stop(callbacks: Sequence[Callback], result: Result) -> bool:
    """Call all of the callbacks; True if one returned True or raised StopIteration."""
    stop = False
    for callback in callbacks:
        try:
            answer = callback(result)
        except StopIteration:
            answer = True
        stop |= isinstance(answer, (bool, np.bool_)) and bool(answer)
    return stop


def finishers(callbacks: Sequence[Callback]) -> list[Callable[[Result], Any]]:
    """The method ``finish`` of those callbacks that have it, each once."""
    once = {id(callback): callback for callback in callbacks}.values()
    methods = [getattr(callback, "finish", None) for callback in once]
    return [method for method in methods if callable(method)]
