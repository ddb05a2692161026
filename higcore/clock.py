"""Training seconds."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Clock:
    """Seconds since its making, on top of those of an earlier run, less the paused ones."""

    def __init__(self, earlier: float) -> None:
        self.zero = time.perf_counter() - earlier

    def read(self) -> float:
        """Seconds on the clock."""
        return time.perf_counter() - self.zero

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stop the clock for the block."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.zero += time.perf_counter() - begin
