"""Pictures. Every function takes plain data and returns a matplotlib Figure."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from higcore.training.plots import draw_diagnostics, draw_losses

from ..style import STYLES
from .choices import test_losses


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
    if len(runs) > 4:
        handles = axes[0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside right center", frameon=False, fontsize=8)
    else:
        axes[0].legend(frameon=False)
    _clip_diverged(axes[0], runs.values())
    figure.suptitle(title, fontsize=11)
    return figure


def _clip_diverged(ax, curves):
    """Keep a curve that blew up from squeezing the others: show up to 30 times the start."""
    start = max(curve["test_loss"][0] for curve in curves)
    values = [v for curve in curves for v in curve["test_loss"] if v]  # JSON: null if not finite
    ax.set_ylim(min(values) / 2, min(max(values), 30 * start) * 1.5)


def toy_training(curves, recorded, title):
    """Figure 1: loss, saturation of a neuron, and the path of one output to its target (star).

    ``curves`` and ``recorded`` map labels to curves and to the data of a `ToyRecorder`. The neuron
    shown is the one whose output varies least at the end.
    """
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    for (label, curve), style in zip(curves.items(), STYLES * len(curves), strict=False):
        left.plot(curve["epoch"], curve["test_loss"], style[1], color=style[0], label=label)
        neuron(middle, recorded[label], style)
        output_path(right, recorded[label], style)
    _clip_diverged(left, curves.values())
    left.set_yscale("log")
    left.legend(frameon=False)
    left.set_xlabel("epochs")
    left.set_ylabel("mean test loss")
    figure.suptitle(title, fontsize=11)
    return figure


def neuron(ax, recorded, style):
    """Mean and standard deviation over the data of the neuron that varies least at the end."""
    mean, std = np.array(recorded["neuron_mean"]), np.array(recorded["neuron_std"])
    k, (color, dash) = int(std[-1].argmin()), style
    low, high = mean[:, k] - std[:, k], mean[:, k] + std[:, k]
    ax.plot(recorded["epoch"], mean[:, k], dash, color=color)
    ax.fill_between(recorded["epoch"], low, high, color=color, alpha=0.2)
    ax.set_xlabel("epochs")
    ax.set_ylabel("most saturated neuron: mean, std")


def output_path(ax, recorded, style):
    """The error of one output in the course of training, to its target (star)."""
    path, (color, dash) = np.array(recorded["output_path"]), style
    ax.plot(path[:, 0], path[:, 1], dash, color=color, lw=1)
    ax.plot(*path[-1], "o", color=color, ms=4)
    ax.plot(0, 0, "k*", ms=10)
    ax.set_xlabel("error of $y^1$")
    ax.set_ylabel("error of $y^2$")


def diagnostics(rows, title):
    """The figures of a run's steps; ``rows`` are columns by name, from JSON."""
    figure = Figure(figsize=(12, 3.2), layout="constrained")
    draw_diagnostics(figure, rows)
    figure.suptitle(title, fontsize=11)
    return figure


def losses(history, title):
    """Training and test loss of one run against seconds and steps."""
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    draw_losses(figure, history)
    figure.suptitle(title, fontsize=11)
    return figure


CHOICES = {
    "batch": "b (batch)", "batch, lr with it": "b, η with $b^{3/4}$", "lr": "η (lr)",
    "tau": "τ (tau)", "kappa": "κ (kappa)", "mu": "μ (mu)", "momentum": "m (momentum)",
}  # fmt: skip
TWOFOLD = ("batch", "batch, lr with it", "lr", "reach", "others")
BASES = dict.fromkeys(TWOFOLD, 2) | {"tau": 10}  # of logarithmic axes


def choices(found, setting, title):
    """Test loss at the end against each parameter, median and range over seeds."""
    figure = Figure(figsize=(2.8 * len(found), 3.4), layout="constrained")
    used = {"batch": setting.batch, "batch, lr with it": setting.batch} | vars(setting.optimizer)
    panels = figure.subplots(1, len(found), sharey=True)
    for ax, (name, runs) in zip(panels, found.items(), strict=True):
        _choice(ax, runs, used[name])
        if name in BASES:
            ax.set_xscale("log", base=BASES[name])
        if BASES.get(name) == 2:
            ax.xaxis.set_major_formatter("{x:g}")
        ax.set_yscale("log")
        ax.set_xlabel(CHOICES.get(name, name))
    panels[0].set_ylabel("test loss")
    panels[0].legend(fontsize=8)
    figure.suptitle(title, fontsize=11)
    return figure


def _choice(ax, runs, used):
    """The panel of one parameter; a run that failed counts as infinite, and a cross says so."""
    values, color = np.array([float(value) for value in runs]), STYLES[1][0]
    losses = np.array([sorted(test_losses(by_seed)) for by_seed in runs.values()])
    middle = np.median(losses, axis=1)
    start = np.median([run["curve"]["test_loss"][0] for run in runs[f"{used:g}"].values()])
    ax.axhline(start, color="#777777", ls=":", label="before training")
    ax.fill_between(values, losses[:, 0], losses[:, -1], color=color, alpha=0.15, lw=0)
    ax.plot(values, middle, marker="o", mfc="white", color=color, label="median of seeds")
    ax.plot(used, middle[values == used], "o", color=color, label="value in use")
    failed = np.isinf(losses[:, -1])
    ax.plot(values[failed], np.full(failed.sum(), start), "x", color="k", label="a seed failed")
