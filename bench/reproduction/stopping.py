"""How processes that compute runs end: when asked to, and when whoever asked them is gone."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

_asked: Any = None  # the Event of this process's pool; None in any other process


@contextmanager
def processes(workers: int) -> Iterator[ProcessPoolExecutor]:
    """A pool of new processes; what ends the block early is told to them, and they save and end."""
    context = multiprocessing.get_context("spawn")
    asked = context.Event()
    with ProcessPoolExecutor(workers, context, _prepare, (asked,)) as pool:
        try:
            yield pool
        except BaseException:
            asked.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _prepare(asked):
    """Leave Ctrl-C to the parent, and die with it: nobody would wait for the results."""
    global _asked
    _asked = asked
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent():
    multiprocessing.parent_process().join()
    os._exit(1)


def is_asked_to_stop() -> bool:
    """Whether the process that wants the runs is ending."""
    return _asked is not None and _asked.is_set()
