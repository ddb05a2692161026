"""The figures of the paper: functions of `found.Found`, which return a matplotlib Figure.

Lines are medians over the seeds, bands reach from the lowest to the highest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from ..paper.figures import neuron, output_path
from ..style import STYLES
from .found import Found, over_seeds
from .runs import Training

INSIDE = 3  # curves whose names have room in a panel
SHORT = 20  # letters of names that have room for two columns under a panel
UNDER = (-0.1, -0.25)  # the axes, in their own units
BEYOND = 1e99  # any loss that is shown
WIDTH = 7.0  # inches; fonts are such that a column of 5.5 inches can be read
FONTS = {"font.size": 9, "axes.labelsize": 8, "xtick.labelsize": 7, "ytick.labelsize": 7,
         "axes.titlesize": 8, "legend.fontsize": 6.5, "lines.linewidth": 1.3}  # fmt: skip
AXES = {"seconds": "training time [s]", "epoch": "epochs"}


def draw(number: int | str, found: Found) -> Any:
    """Figure ``number`` of the paper, or the levels, of the runs that were found."""
    with mpl.rc_context(FONTS):
        return DRAWN[number](found)


def parts(*heights: float) -> tuple[Any, list[Any]]:
    """A figure, and its parts one below the other, of so many inches."""
    figure = Figure(figsize=(WIDTH, sum(heights)), layout="constrained")
    rows = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)
    return figure, list(rows[:, 0])


def curves(
    ax: Any, found: Found, panel: str, axis: str, log: bool = False, after: bool = False
) -> None:
    """Test losses of a panel's runs; ``after`` puts a run behind the one that it goes on from."""
    common, labels = found.labels(panel)
    tops, ends = [], []
    for run, (color, dash) in zip(found.panels[panel], STYLES * 2, strict=False):
        records = list(found.by_run[run].values())
        if not records:
            ax.plot([], [], dash, color=color, label=labels[run])
            continue
        curve = over_seeds(records, axis, log)
        x = curve.x + (_before(found, run, axis) if after else 0.0)
        ax.plot(x, curve.median, dash, color=color, label=labels[run])
        high = np.minimum(curve.high, BEYOND)  # where a seed failed the band goes on to the top
        ax.fill_between(x, curve.low, high, color=color, alpha=0.15, lw=0)
        tops.append(records[0]["curve"]["test_loss"][0])
        ends.append(x[-1])
    ax.set_yscale("log")
    if log:
        ax.set_xscale("log")
    ax.set_xlabel(AXES[axis])
    ax.set_title(_joined(panel, common), loc="left")
    _limit(ax, tops)


def _joined(panel: str, common: str) -> str:
    return panel + (" " if panel.endswith(")") else ", ") + common if common else panel


def _before(found: Found, run: Training, axis: str) -> float:
    """Where the runs ended that a run goes on from, one after the other."""
    if run.start is None:
        return 0.0
    records = found.by_run[run.start].values() if run.start in found.by_run else ()
    ends = [record["curve"][axis][-1] for record in records]
    return (float(np.median(ends)) if ends else 0.0) + _before(found, run.start, axis)


def _limit(ax: Any, tops: list[float]) -> None:
    """Keep a curve that blew up from squeezing the others."""
    if tops and (lows := _lows(ax)):
        ax.set_ylim(min(lows) / 2, 5 * max(tops))


def _lows(ax: Any) -> list[float]:
    """The lowest finite value of each line of an axes."""
    found = (y[np.isfinite(y)] for y in (line.get_ydata() for line in ax.lines) if len(y))
    return [float(y.min()) for y in found if len(y)]


def legend(part: Any, ax: Any, columns: int = 1) -> None:
    """The names of an axes' curves on the right of, or below, a part of a figure."""
    handles = ax.get_legend_handles_labels()
    place = "outside right center" if columns == 1 else "outside lower center"
    part.legend(*handles, loc=place, ncols=columns, frameon=False)


def beside(part: Any, found: Found, panel: str, log: bool = False, after: bool = False) -> None:
    """A panel against seconds and against epochs, side by side."""
    axes = part.subplots(1, 2, sharey=True)
    for ax, axis in zip(axes, AXES, strict=True):
        curves(ax, found, panel, axis, log, after)
    axes[1].set_title("", loc="left")
    axes[0].set_ylabel("mean test loss")
    legend(part, axes[0], 3)


def grid(
    found: Found, columns: int, axes: Iterable[str] = ("seconds",), height: float = 2.3
) -> Any:
    """All panels in rows of so many, against seconds and perhaps against epochs below."""
    panels, axes = list(found.panels), list(axes)
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(WIDTH, height * rows * len(axes)), layout="constrained")
    drawn = figure.subplots(rows * len(axes), columns, squeeze=False)
    for k, panel in enumerate(panels):
        for below, axis in enumerate(axes):
            ax = drawn[k // columns * len(axes) + below, k % columns]
            curves(ax, found, panel, axis)
            if below:
                ax.set_title("", loc="left")
            if len(found.panels[panel]) > INSIDE and axis == axes[-1]:
                names = ax.get_legend_handles_labels()[1]
                columns_under = 2 if max(map(len, names)) < SHORT else 1
                ax.legend(
                    frameon=False, loc="upper left", bbox_to_anchor=UNDER, ncols=columns_under
                )
            elif not below and len(found.panels[panel]) <= INSIDE:
                ax.legend(frameon=False, loc="best")
    for row in drawn:
        row[0].set_ylabel("mean test loss")
    for ax in drawn.flat:
        ax.set_visible(bool(ax.lines))  # the last row may have places left
    return figure


def picture(part: Any, found: Found, run: Training) -> None:
    """What the best network of a run does with the first test sample."""
    part.text(0.01, 0.99, "a)", va="top", fontsize=FONTS["axes.titlesize"])
    network = found.network(run)
    if network is None:
        ax = part.subplots()
        ax.axis("off")
        ax.text(0.5, 0.5, f"missing: the network of\n{found.name(run)}", ha="center", va="center")
        return
    seed, theta = network
    run.experiment.picture(run.experiment.problem(seed), theta, part)


def figure_1(found: Found) -> Any:
    """The toy: loss, a neuron's output over the data, the path of one output."""
    figure, rows = parts(*[2.4] * len(found.panels))
    for part, panel in zip(rows, found.panels, strict=True):
        left, middle, right = part.subplots(1, 3)
        curves(left, found, panel, "seconds")
        left.set_ylabel("mean test loss")
        for run, style in zip(found.panels[panel], STYLES, strict=False):
            for record in list(found.by_run[run].values())[:1]:
                neuron(middle, record["recorded"], style)
                output_path(right, record["recorded"], style)
        middle.set_ylabel("output of a neuron")
        legend(part, left, 3)
    return figure


def figure_2(found: Found) -> Any:
    """Oscillators: a trajectory; all optimizers; batches of Adam, Gauss-Newton, HIG."""
    figure, (first, second, third) = parts(2.8, 3.0, 3.0)
    picture(first, found, found.panels["a)"][0])
    beside(second, found, "b)")
    panels = [panel for panel in found.panels if panel.startswith("c)")]
    axes = third.subplots(1, len(panels), sharey=True)
    for ax, panel in zip(axes, panels, strict=True):
        curves(ax, found, panel, "seconds")
        ax.legend(frameon=False)
    axes[0].set_ylabel("mean test loss")
    axes[0].set_ylim(bottom=min(low for ax in axes for low in _lows(ax)) / 2)
    return figure


def figure_3(found: Found) -> Any:
    """Poisson: source and potential; learning rates; HIG from Adam's network."""
    figure, (first, second, third) = parts(2.0, 3.0, 2.8)
    picture(first, found, found.panels["a)"][0])
    beside(second, found, "b)", log=True)
    beside(third, found, "c)", after=True)
    return figure


def figure_4(found: Found) -> Any:
    """Dipole: a transition; learning rates; low- and high-energy losses."""
    figure, (first, second, third) = parts(3.2, 3.0, 2.6)
    picture(first, found, found.panels["a)"][0])
    beside(second, found, "b)")
    components(third, found, "c)")
    return figure


def components(part: Any, found: Found, panel: str) -> None:
    """Low-energy (solid) and high-energy (dotted) losses of the first seed that is there."""
    axes = part.subplots(1, 2, sharey=True)
    common, labels = found.labels(panel)
    for run, (color, _) in zip(found.panels[panel], STYLES, strict=False):
        for record in list(found.by_run[run].values())[:1]:
            seen, curve = record["recorded"], record["curve"]
            seconds = np.interp(seen["epoch"], curve["epoch"], curve["seconds"])
            for end, dash in (("low", "-"), ("high", ":")):
                label, losses = f"{labels[run]}: {end} energy", seen[f"{end}_energy_loss"]
                for ax, x in zip(axes, (seconds, seen["epoch"]), strict=True):
                    ax.plot(x, losses, dash, color=color, label=label)
    for ax, label in zip(axes, AXES.values(), strict=True):
        ax.set_yscale("log")
        ax.set_xlabel(label)
    axes[0].set_ylabel("mean component loss")
    axes[0].set_title(_joined(panel, common), loc="left")
    legend(part, axes[0], 2)


def figure_7(found: Found) -> Any:
    """Poisson over epochs: figure 3b; HIG from Adam's network, and Adam from that of HIG."""
    figure, (first, second) = parts(2.8, 2.6)
    for part, panel in ((first, "a)"), (second, "b)")):
        ax = part.subplots()
        curves(ax, found, panel, "epoch", log=True)
        ax.set_ylabel("mean test loss")
        legend(part, ax, 3)
    ax.set_xlabel("epochs, each from its own start")
    return figure


def _rows(columns: int, *axes: str) -> Callable[[Found], Any]:
    return lambda found: grid(found, columns, axes)


BOTH = tuple(AXES)
DRAWN: dict[int | str, Callable[[Found], Any]] = {
    1: figure_1, 2: figure_2, 3: figure_3, 4: figure_4, 5: _rows(3, "seconds"),
    6: _rows(3, *BOTH), 7: figure_7, 8: _rows(3, *BOTH), 9: _rows(2, *BOTH),
    10: _rows(3, *BOTH), 11: _rows(3, *BOTH), 12: _rows(2, *BOTH), 13: _rows(2, *BOTH),
    "levels": _rows(2, *BOTH),
}  # fmt: skip
