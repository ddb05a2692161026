"""How pictures look, and how they are saved."""

from __future__ import annotations

import matplotlib as mpl

from higcore.training.files import replacing

mpl.rcParams.update(
    {
        "font.size": 10,
        "axes.grid": True,
        "grid.alpha": 0.3,
        "lines.linewidth": 1.6,
        "savefig.dpi": 150,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
)
# Dark to light and solid to dotted, so that the curves stay apart in black and white.
STYLES = [
    ("#0b3c8c", "-"),
    ("#c1440e", "--"),
    ("#2f7d32", "-."),
    ("#8a6d1d", ":"),
    ("#5e3c99", "-"),
    ("#777777", "--"),
    ("#d81b60", "-."),
    ("#00838f", ":"),
    ("#000000", "-"),
    ("#e69f00", "--"),
]


def save(figure, path):
    """Write a PNG, complete or not at all."""
    with replacing(path) as partial:
        figure.savefig(partial)
