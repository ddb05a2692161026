"""One live line on a terminal, a plain line every ten seconds elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from .run import Run

BAR_INTERVAL, PLAIN_INTERVAL = 0.1, 10.0  # seconds

Show: TypeAlias = "Callable[[float, Run], None]"  # (share of the budget, run)


@contextmanager
def progress_line(enabled: bool, label: str, done: float = 0.0) -> Iterator[Show]:
    """Yield ``show(share, run)``, to be called after every step; it does nothing if disabled.

    ``done`` is the share of the budget that an earlier run has spent.
    """
    if not enabled:
        yield lambda share, run: None
    elif sys.stderr.isatty():
        with _bar(label, done) as show:
            yield show
    else:
        yield _at_most_every(PLAIN_INTERVAL, lambda share, run: _write(label, share, run))


@contextmanager
def _bar(label, done):
    try:
        from tqdm import tqdm
    except ImportError:
        raise ImportError(
            "progress=True needs tqdm on a terminal: pip install 'higcore[bench]'"
        ) from None
    form = "{desc:<12} {percentage:3.0f}% |{bar:20}| {elapsed} < {remaining} {postfix}"
    options = {"desc": label, "bar_format": form, "dynamic_ncols": True}
    with tqdm(total=1.0, initial=min(done, 1.0), **options) as bar:

        def show(share, run):
            bar.set_postfix_str(_summary(run), refresh=False)
            bar.n = min(share, 1.0)
            bar.refresh()

        yield _at_most_every(BAR_INTERVAL, show)


def _at_most_every(interval, show):
    last = time.monotonic()

    def call(share, run):
        nonlocal last
        if time.monotonic() - last > interval:
            last = time.monotonic()
            show(share, run)

    return call


def _write(label, share, run):
    share = min(share, 1.0)
    remaining = run.state.seconds * (1 - share) / share
    line = f"{label:<12} {100 * share:3.0f} %, {remaining:.0f} s left, {_summary(run)}\n"
    sys.stderr.write(line)


def _summary(run):
    last = run.history[-1]
    parts = [f"test loss {last.test_loss:.2e}"]
    if last.train_loss is not None:
        parts.insert(0, f"loss {last.train_loss:.2e}")
    parts.append(f"{run.state.steps} steps")
    rank = getattr(run.state.info, "rank", None)
    if rank is not None:
        parts.append(f"rank {rank}")
    if run.step_times:
        parts.append(f"{1e3 * run.step_times[-1]:.1f} ms a step")
    return ", ".join(parts)
