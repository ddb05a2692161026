"""What is said of a run while it goes on; that nobody listens any more is never worth a run.

That is one live line on a terminal, a plain line every ten seconds elsewhere, and the logger.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from typing import TypeAlias

from .result import Result

BAR_INTERVAL, PLAIN_INTERVAL = 0.1, 10.0  # seconds
BAR = "{desc:<12} {percentage:3.0f}% |{bar:20}| {elapsed} < {remaining} {postfix}"

Show: TypeAlias = Callable[[float, Callable[[], Result]], None]  # (share of the budget, the run)


def tell(level: int, message: str, *arguments: object) -> None:
    """Tell the logger ``higcore``; a handler that raises, as of a closed stream, is passed over."""
    with suppress(Exception):
        logging.getLogger("higcore").log(level, message, *arguments, stacklevel=2)


@contextmanager
def progress_line(enabled: bool, label: str, done: float = 0.0) -> Iterator[Show]:
    """Yield ``show(share, run)``, to be called after every step; it does nothing if disabled.

    ``run()`` is the `Result` so far, asked for only when it is time to show it. ``done`` is
    the share of the budget that an earlier run has spent.
    """
    if not enabled:
        yield lambda share, run: None
        return
    with closing(_Display(label, done)) as display:
        yield display.show


class _Display:
    """A bar, or lines, until showing it fails, as on a closed standard error."""

    def __init__(self, label: str, done: float) -> None:
        self.label, self.bar, self.failed = label, None, False
        self.interval, self.last = PLAIN_INTERVAL, time.monotonic()
        if _on_terminal():
            self.interval, tqdm = BAR_INTERVAL, _tqdm()
            options = {"desc": label, "bar_format": BAR, "dynamic_ncols": True}
            self.bar = self.attempt(lambda: tqdm(total=1.0, initial=min(done, 1.0), **options))

    def show(self, share, run):
        """Draw anew if it is time to."""
        if not self.failed and time.monotonic() - self.last > self.interval:
            self.last = time.monotonic()
            self.attempt(lambda: self.draw(min(share, 1.0), run()))

    def draw(self, share, result):
        summary = _summary(result)
        if self.bar is None:
            remaining = result.seconds * (1 - share) / share
            line = f"{self.label:<12} {100 * share:3.0f} %, {remaining:.0f} s left, {summary}"
            sys.stderr.write(f"{line}\n")
            return
        self.bar.set_postfix_str(summary, refresh=False)
        self.bar.n = share
        self.bar.refresh()

    def close(self):
        if self.bar is not None:
            self.attempt(self.bar.close)

    def attempt(self, call):
        """Call; the first failure is told to the logger and is the last."""
        try:
            return call()
        except Exception as error:
            if not self.failed:
                tell(logging.WARNING, "Progress is no longer shown: %r", error)
            self.failed = True


def _on_terminal():
    try:
        return sys.stderr.isatty()
    except Exception:  # there is none, or it is closed
        return False


def _tqdm():
    try:
        from tqdm import tqdm
    except ImportError:
        raise ImportError(
            "progress=True needs tqdm on a terminal: pip install 'higcore[bench]'"
        ) from None
    return tqdm


def _summary(result):
    last = result.history[-1]
    parts = {
        "loss {:.2e}": last.train_loss,
        "test loss {:.2e}": last.test_loss,
        "{} steps": result.steps,
        "rank {}": getattr(result.state.info, "rank", None),
        "{:.1f} ms a step": 1e3 * result.seconds_per_step or None,
    }
    return ", ".join(form.format(value) for form, value in parts.items() if value is not None)
