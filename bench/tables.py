"""Text tables for terminals and Markdown."""

from __future__ import annotations

import json
from statistics import median

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


def nested(rows):
    """A table of ``{row: {column: number}}``."""
    columns = list(next(iter(rows.values())))
    cells = [[label, *(f"{row[c]:.3g}" for c in columns)] for label, row in rows.items()]
    return markdown(("", *columns), cells)


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
