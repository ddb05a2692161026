"""What the commands do: make the runs that are missing, then draw, print or judge."""

from __future__ import annotations

import sys
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from higcore.training.files import replacing

from .budgets import BUDGETS
from .executors import Place
from .make import Work, make
from .plans import PLANS, runs_of
from .stopping import processes

BAR = "{n_fmt} of {total_fmt} runs |{bar:20}| {elapsed}{postfix}"
OVERHEAD = 1.25  # evaluations, compilation and data against training seconds, measured


def figures(numbers, budget, seeds, place, no_runs, folder, out, say):
    """Make the runs of some figures and draw them; returns what failed."""
    budget = BUDGETS[budget] if isinstance(budget, str) else budget
    budget = replace(budget, seeds=seeds or budget.seeds)
    failed = {} if no_runs else make_shown(runs_of(numbers, budget), folder, place)
    name_failed(failed, say)
    for number in numbers:
        for line in drawn(number, budget, folder, out, no_runs):
            say(line)
    return failed


def table(numbers, folder, out, say):
    """Measure what is missing of some tables, print and save them; returns what failed."""
    from .measurements import GROWTHS, measurements
    from .tables import costs_table, table_1, table_2

    runs = [run for n in numbers if n > 2 for run in measurements(n).values()]
    runs += GROWTHS.values() if 3 in numbers else []
    failed = make_shown(runs, folder, Place(processes, 1))  # a busy core would spoil the times
    name_failed(failed, say)
    for number in numbers:
        made = {1: table_1, 2: table_2}
        text = made[number]() if number in made else costs_table(number, folder)
        write_text(out / f"table-{number}.md", f"{text}\n")
        say(f"Table {number}\n\n{text}\n")
    return failed


def claims(budget, seeds, no_runs, folder, out, say):
    """Judge the paper's claims by the runs that are there, and write it down."""
    from .claims import claims
    from .claims.claim import report as judged
    from .claims.evidence import Evidence

    budget = BUDGETS[budget]
    budget = replace(budget, seeds=seeds or budget.seeds)
    text = judged(budget, Evidence(budget, folder, no_runs), claims(budget)) + "\n"
    path = out / "REPRODUCTION.md"
    write_text(path, text)
    say(text.split("\n\n")[2])
    say(f"Saved {path}")


def report(results, out, say):
    """Build the page of what is in ``results``."""
    from .report import page

    path = out / "report.html"
    write_text(path, page(results))
    say(f"Saved {path}")


def write_text(path, text):
    """Write ``text`` to ``path``: complete or not at all."""
    with replacing(path, len(text.encode())) as partial:
        partial.write_text(text)


def name_failed(failed, say):
    """A sentence for each run that failed."""
    for run, reason in failed.items():
        say(f"Failed twice: {run.stem()}: {reason}")


def drawn(number, budget, folder, out, any_code=False):
    """Draw a figure of what is there; yields sentences."""
    from .. import style
    from .drawing import draw
    from .found import Found

    found = Found(PLANS[number](budget), budget.seeds, folder, any_code)
    figure = draw(number, found)
    stem = out / f"figure-{number}"
    for end in (".png", ".pdf"):
        style.save(figure, stem.with_suffix(end))
        figure.set_layout_engine("none")  # it stays as it was laid out first
    yield f"Figure {number}: {stem}.png and .pdf"
    for missing in found.missing:
        yield f"  missing: {missing}"


def make_shown(runs, folder, place):
    """`make.make` with one line that says what is left."""
    from tqdm import tqdm

    count = len(Work(runs, folder).waiting)
    if not count:
        return {}
    with closing(tqdm(total=count, unit="run", dynamic_ncols=True, bar_format=BAR)) as bar:
        return make(runs, Path(folder), *place, show=Display(bar, place.workers))


class Display:
    """A bar of runs, and the minutes that are left by what the budget says."""

    def __init__(self, bar, workers):
        self.bar, self.workers, self.begun, self.drawn = bar, workers, {}, 0.0

    def __call__(self, work):
        now = time.monotonic()
        for run in work.running.values():
            self.begun.setdefault(run, now)
        seconds = sum(self.still(run, now) for run in work.left()) / self.workers
        text = f"about {seconds / 60:.0f} min left"
        failed = f", {len(work.failed)} failed" if work.failed else ""
        self.bar.set_postfix_str(text + failed, refresh=False)
        if new := len(work.made) + len(work.failed) - self.bar.n:
            self.bar.update(new)
        if now - self.drawn > (1 if sys.stderr.isatty() else 60):
            self.drawn = now
            self.bar.refresh()

    def still(self, run, now):
        """Seconds that a run takes from now on."""
        return max(0.0, OVERHEAD * run.seconds - now + self.begun.get(run, now))
