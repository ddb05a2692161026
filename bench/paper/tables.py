"""Text tables for terminals and Markdown."""

from __future__ import annotations

import json
import math
from statistics import median

from .choices import test_losses

REPORT_TIMES = (20, 60, 180, 300)  # training seconds


def markdown(header, rows):
    """Return an aligned Markdown table; cells are strings."""
    columns = list(zip(header, *rows, strict=True))
    widths = [max(len(cell) for cell in column) for column in columns]

    def line(cells):
        return "| " + " | ".join(c.ljust(w) for c, w in zip(cells, widths, strict=True)) + " |"

    rule = "|" + "|".join("-" * (w + 2) for w in widths) + "|"
    return "\n".join([line(header), rule, *map(line, rows)])


def runs_table(records):
    """One line a run: what it did and how low it came."""
    header = ("run", "batch", "steps", "epochs", "s", "ms/step", "test loss", "best", "status")
    rows = [
        (
            label,
            str(r["batch"]),
            str(r["steps"]),
            f"{r['epochs']:.0f}",
            f"{r['seconds']:.0f}",
            f"{1e3 * r['seconds_per_step']:.1f}",
            _number(r["test_loss"]),
            _number(r["best_test_loss"]),
            r["status"],
        )
        for label, r in records.items()
    ]
    return markdown(header, rows)


def _or_inf(value):
    """A loss that was not finite is null in JSON."""
    return float("inf") if value is None else value


def _number(value):
    return "-" if value is None else f"{value:.2e}"


def nested(rows, corner=""):
    """A table of ``{row: {column: number}}``."""
    columns = list(next(iter(rows.values())))
    cells = [
        [str(label), *(_short(row[c]) for c in map(str, columns))]
        for label, row in ((k, {str(c): v for c, v in r.items()}) for k, r in rows.items())
    ]
    return markdown((corner, *map(str, columns)), cells)


def _short(number):
    return "-" if number != number else f"{number:.3g}"


def race(found):
    """One line a contestant of `race.run`, the fastest first."""
    header = (
        "contestant",
        "ms/step",
        "min - max",
        "times ours",
        "first step s",
        "peak MB",
        "error",
    )
    ran = {label: r for label, r in found.items() if "median" in r}
    rows = [
        (
            label,
            f"{1e3 * r['median']:.3g}",
            f"{1e3 * r['min']:.3g} - {1e3 * r['max']:.3g}",
            f"{r.get('times_higcore', math.nan):.3g}",
            f"{r['first_step_seconds']:.3g}",
            f"{r['peak_memory_mb']:.0f}",
            f"{r['error']:.1e}",
        )
        for label, r in sorted(ran.items(), key=lambda item: item[1]["median"])
    ]
    failed = [(label, r["failed"], *[""] * 5) for label, r in found.items() if "failed" in r]
    return markdown(header, rows + failed)


def profile(stages):
    """Milliseconds of every stage, their floor, and the share of the whole."""
    total = sum(row["seconds"] for row in stages.values())
    rows = {
        stage: {
            "ms": 1e3 * row["seconds"],
            "floor ms": 1e3 * row["floor_seconds"],
            "% of step": 100 * row["seconds"] / total,
        }
        for stage, row in stages.items()
    }
    floor = sum(row["floor ms"] for row in rows.values())
    return nested(rows | {"together": {"ms": 1e3 * total, "floor ms": floor, "% of step": 100.0}})


def by_size(methods, auto):
    """Milliseconds of every method by size, and what ``auto`` takes."""
    sizes = [str(n) for n in next(iter(methods.values()))]
    rows = [
        (method, *(f"{1e3 * seconds:.3g}" for seconds in times.values()))
        for method, times in methods.items()
    ]
    chosen = {str(n): method for n, method in auto.items()}
    return markdown(("ms", *sizes), [*rows, ("auto takes", *(chosen[n] for n in sizes))])


def choices(found):
    """One line a value: the runs of `choices.choices` over their seeds."""
    header = ("", "value", "test loss", "lowest", "highest", "steps", "rank", "status")
    return markdown(header, [
        (name, value, *_over_seeds(by_seed))
        for name, runs in found.items()
        for value, by_seed in runs.items()
    ])  # fmt: skip


def _over_seeds(by_seed):
    losses, runs = test_losses(by_seed), list(by_seed.values())
    loss = (_number(of(losses)) for of in (median, min, max))
    steps, rank = runs[0]["curve"]["step"][-1], runs[0]["rank"]
    return (*loss, str(steps), str(rank), ", ".join(sorted({run["status"] for run in runs})))


def report(folder):
    """Median over seeds of the test loss after REPORT_TIMES, for the runs saved in a folder."""
    header = ("experiment", "optimizer", "batch", "seeds", "ms/step", "steps", "at the end")
    header += tuple(f"after {t} s" for t in REPORT_TIMES)
    rows = []
    for path in sorted(folder.glob("*.json")):
        saved = json.loads(path.read_text())
        for by_seed in saved.get("runs", {}).values():
            group = list(by_seed.values()) if "curve" not in by_seed else [by_seed]
            rows.append(_report_row(path.stem, group))
    return markdown(header, rows)


def _report_row(label, group):
    losses = [
        [loss_after(record["curve"], seconds) for record in group] for seconds in REPORT_TIMES
    ]
    cells = [_number(None if None in at else median(at)) for at in losses]
    middle = {
        key: median(_or_inf(record[key]) for record in group)
        for key in ("seconds_per_step", "steps", "test_loss")
    }
    return (
        label,
        group[0]["optimizer"],
        str(group[0]["batch"]),
        str(len(group)),
        f"{1e3 * middle['seconds_per_step']:.1f}",
        f"{middle['steps']:.0f}",
        _number(middle["test_loss"]),
        *cells,
    )


def loss_after(curve, seconds):
    """The last test loss of a curve within some training seconds; None if the run was shorter."""
    if curve["seconds"][-1] < 0.99 * seconds:
        return None
    pairs = zip(curve["seconds"], curve["test_loss"], strict=True)
    return [loss for at, loss in pairs if at <= 1.01 * seconds][-1]
