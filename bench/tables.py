"""Text tables for terminals and Markdown."""

from __future__ import annotations


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
            f"{r['test_loss']:.2e}",
            f"{r['best_test_loss']:.2e}",
            r["status"],
        )
        for label, r in records.items()
    ]
    return markdown(header, rows)
