"""One live line on a terminal, a plain line every ten seconds elsewhere."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager

PLAIN_INTERVAL = 10.0  # seconds


@contextmanager
def progress_line(enabled, label):
    """Yield ``show(share, run)``, to be called after every step; it does nothing if disabled."""
    if not enabled:
        yield lambda share, run: None
    elif sys.stderr.isatty():
        with _bar(label) as show:
            yield show
    else:
        yield _plain(label)


@contextmanager
def _bar(label):
    try:
        from tqdm import tqdm
    except ImportError:
        raise ImportError(
            "progress=True needs tqdm on a terminal: pip install 'higcore[bench]'"
        ) from None
    form = "{desc:<12} {percentage:3.0f}% |{bar:20}| {elapsed} < {remaining} {postfix}"
    with tqdm(total=1.0, desc=label, bar_format=form, dynamic_ncols=True) as bar:

        def show(share, run):
            if time.monotonic() - show.last > 0.1:
                show.last = time.monotonic()
                bar.set_postfix_str(_summary(run), refresh=False)
                bar.n = min(share, 1.0)
                bar.refresh()

        show.last = 0.0
        yield show


def _plain(label):
    def show(share, run):
        if time.monotonic() - show.last > PLAIN_INTERVAL:
            show.last = time.monotonic()
            print(f"{label:<12} {100 * share:3.0f} %  {_summary(run)}", file=sys.stderr)

    show.last = time.monotonic()
    return show


def _summary(run):
    parts = [f"test loss {run.history[-1].test_loss:.2e}", f"{run.state.steps} steps"]
    rank = getattr(run.state.info, "rank", None)
    if rank is not None:
        parts.append(f"rank {rank}")
    return ", ".join([*parts, f"{1e3 * run.step_times[-1]:.1f} ms a step"])
