"""Ctrl-C during a run: asked for between two steps, so that it never lands inside one."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

SAID = b"\nEnding after this step; press Ctrl-C again to end at once.\n"


class Interrupts:
    """A handler of SIGINT that remembers the first Ctrl-C and raises at those that follow.

    Of several processes that make one run, those that do not ``decide`` leave it to the one.
    """

    def __init__(self, decides: bool = True) -> None:
        self.pending, self.decides = False, decides

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if not self.decides:
            return
        if self.pending:
            signal.default_int_handler(number, frame)
        self.pending = True
        with suppress(OSError):  # no logging here: it may be what was interrupted
            os.write(2, SAID)


@contextmanager
def held_back(decides: bool = True) -> Iterator[Interrupts]:
    """Hold Ctrl-C back for the block, which looks whether one is ``pending``.

    A handler of somebody else's is left alone, and a thread that is not the main one meets no
    Ctrl-C. A block inside another one shares its handler, and so both end.
    """
    installed = signal.getsignal(signal.SIGINT)
    if isinstance(installed, Interrupts):
        yield installed
    elif (
        installed is not signal.default_int_handler
        or threading.current_thread() is not threading.main_thread()
    ):
        yield Interrupts()
    else:
        handler = Interrupts(decides)
        signal.signal(signal.SIGINT, handler)
        try:
            yield handler
        finally:
            signal.signal(signal.SIGINT, installed)
