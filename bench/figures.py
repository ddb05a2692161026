"""Pictures. Every function takes plain data and returns a matplotlib Figure."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from .records import replacing

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
]


def save(figure, path):
    """Write a PNG, complete or not at all."""
    with replacing(path) as partial:
        figure.savefig(partial)


def loss_curves(runs, title):
    """Test loss against training seconds and against epochs; ``runs`` maps labels to curves."""
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for (label, curve), (color, dash) in zip(runs.items(), STYLES * len(runs), strict=False):
        for ax, key in zip(axes, ("seconds", "epoch"), strict=True):
            ax.plot(curve[key], curve["test_loss"], color=color, linestyle=dash, label=label)
    for ax, label in zip(axes, ("training time [s]", "epochs"), strict=True):
        ax.set_xlabel(label)
        ax.set_yscale("log")
    axes[1].set_xscale("symlog", linthresh=1)
    axes[1].set_xlim(left=0)
    axes[0].set_ylabel("mean test loss")
    axes[0].legend(frameon=False)
    _clip_diverged(axes[0], runs.values())
    figure.suptitle(title, fontsize=11)
    return figure


def _clip_diverged(ax, curves):
    """Keep a curve that blew up from squeezing the others: show up to 30 times the start."""
    start = max(curve["test_loss"][0] for curve in curves)
    values = [v for curve in curves for v in curve["test_loss"] if v and np.isfinite(v)]
    ax.set_ylim(min(values) / 2, min(max(values), 30 * start) * 1.5)


def oscillator_trajectory(times, states, control, target, title):
    """Figure 2a: positions and momenta of one controlled run, the control behind them.

    Parameters
    ----------
    times : array (steps + 1,)
    states : array (steps + 1, 2n)
        Positions q_1..q_n, then momenta p_1..p_n.
    control : array (steps,)
        u(t), constant over each step.
    target : array (2n,)
        Wanted final state, drawn as open circles.
    """
    figure = Figure(figsize=(8, 4), layout="constrained")
    ax = figure.subplots()
    behind = ax.twinx()
    behind.fill_between(
        times, np.append(control, control[-1]), step="post", color="#9ec3e6", alpha=0.5
    )
    behind.set_ylabel("control u(t)", color="#4a7fb0")
    behind.spines["right"].set_visible(True)
    behind.grid(False)
    ax.set_zorder(behind.get_zorder() + 1)
    ax.patch.set_visible(False)
    n = states.shape[1] // 2
    for j in range(2 * n):
        symbol, dash = ("q", "-") if j < n else ("p", "--")
        color = STYLES[j % n % len(STYLES)][0]
        ax.plot(times, states[:, j], dash, color=color, label=f"${symbol}_{j % n + 1}$")
        ax.plot(times[-1], target[j], "o", mfc="none", color=color, ms=8, clip_on=False)
    ax.set_xlabel("time t")
    ax.set_ylabel("position q, momentum p")
    figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=2 * n, frameon=False)
    ax.set_title(title, fontsize=11)
    return figure
