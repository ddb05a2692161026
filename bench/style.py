"""How pictures look, and how they are saved."""

from __future__ import annotations

import matplotlib as mpl

from higcore.training import plots
from higcore.training.plots import save as save

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
STYLES = [
    *plots.STYLES,
    ("#8a6d1d", ":"),
    ("#5e3c99", "-"),
    ("#777777", "--"),
    ("#d81b60", "-."),
    ("#00838f", ":"),
    ("#000000", "-"),
    ("#e69f00", "--"),
]
