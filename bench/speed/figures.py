"""Pictures of `bench speed`. Every function takes its results and returns a matplotlib Figure."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from higcore.half_inverse import BAND_FROM, LANCZOS_FROM

from ..style import STYLES


def race(results):
    """Seconds a step of all contestants, an experiment a panel, the fastest on top."""
    figure = Figure(figsize=(12, 3.3 * -(-len(results) // 2)), layout="constrained")
    panels = figure.subplots(-(-len(results) // 2), 2, squeeze=False)
    for ax, (name, found) in zip(panels.flat, results.items(), strict=False):
        ran = sorted((r["median"], k, r) for k, r in found.items() if "median" in r)[::-1]
        colors = [STYLES[1][0] if label == "higcore" else STYLES[0][0] for _, label, _ in ran]
        bars = ax.barh([label for _, label, _ in ran], [1e3 * s for s, _, _ in ran], color=colors)
        ax.bar_label(bars, [times(r) for _, _, r in ran], fontsize=8)
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter("{x:g}")
        ax.xaxis.set_minor_formatter("")
        ax.margins(x=0.15)
        ax.set_title(f"{name}: ms a step, times higcore", fontsize=10)
        ax.tick_params("y", labelsize=8)
        ax.grid(axis="y", visible=False)
    for ax in panels.flat[len(results) :]:
        ax.set_visible(False)
    return figure


def times(record):
    """A median in units of higcore's, where it took the step itself."""
    return f" {record['times_higcore']:.3g}x" if "times_higcore" in record else ""


def profiles(found):
    """Time of every stage and the arithmetic floor under it, an experiment a panel."""
    figure = Figure(figsize=(12, 2.6 * -(-len(found) // 2)), layout="constrained")
    panels = figure.subplots(-(-len(found) // 2), 2, squeeze=False)
    for ax, (name, stages) in zip(panels.flat, found.items(), strict=False):
        labels, at = list(stages)[::-1], np.arange(len(stages))
        for key, shift, color in (("seconds", 0.2, 0), ("floor_seconds", -0.2, 1)):
            values = [1e3 * stages[stage][key] for stage in labels]
            label = "measured" if key == "seconds" else "arithmetic floor"
            ax.barh(at + shift, values, 0.38, color=STYLES[color][0], label=label)
        ax.set_yticks(at, labels, fontsize=8)
        ax.set_title(f"{name}: ms of a step", fontsize=10)
        ax.grid(axis="y", visible=False)
    panels[0, 0].legend(frameon=False, fontsize=8)
    for ax in panels.flat[len(found) :]:
        ax.set_visible(False)
    return figure


def crossovers(found):
    """Seconds of every method against size, and from where ``auto`` takes the band."""
    figure = Figure(figsize=(13, 8), layout="constrained")
    for k, (case, methods) in enumerate(found.items(), 1):
        ax = figure.add_subplot(2, 3, k)
        for (method, times), (color, dash) in zip(methods.items(), STYLES, strict=False):
            ax.plot(
                list(times), list(times.values()), color=color, ls=dash, marker=".", label=method
            )
        for method, first in (("band", BAND_FROM), ("lanczos", LANCZOS_FROM)):
            if method in methods:
                ax.axvline(first, color="#999999", lw=1, label=f"auto: {method} from here on")
        _log_axes(ax, "rows n", "seconds")
        ax.set_title(case, fontsize=10)
        ax.legend(frameon=False, fontsize=8)
    return figure


def growth(found):
    """Cost and memory against parameters, batch of Poisson, and batch of the solver sweeps."""
    figure = Figure(figsize=(13, 7), layout="constrained")
    panels = figure.subplots(2, 2)
    width, batch = found["width"], found["batch"]
    times = {
        "HIG step": "hig_seconds", "Adam step": "adam_seconds",
        "decomposition alone": "decomposition_seconds",
    }  # fmt: skip
    sizes = {
        "HIG step": "hig_extra_mb", "estimate": "estimated_mb", "dense J": "dense_jacobian_mb",
    }  # fmt: skip
    _lines(panels[0, 0], width, times, "parameters", "seconds", "m = 512 rows, oscillators")
    _lines(panels[0, 1], width, sizes, "parameters", "MB", "extra peak memory, m = 512")
    names = {"seconds": "seconds", "peak memory [GB]": "gb", "estimate [GB]": "estimate"}
    rows = {
        m: {"seconds": r["seconds"], "gb": r["extra_mb"] / 1e3, "estimate": r["estimated_mb"] / 1e3}
        for m, r in batch.items()
    }
    _lines(panels[1, 0], rows, names, "rows m", "", "Poisson, 41408 parameters")
    for (name, points), (color, dash) in zip(found["solver_sweep"].items(), STYLES, strict=False):
        panels[1, 1].plot(
            list(points), list(points.values()), color=color, ls=dash, marker=".", label=name
        )
    _log_axes(panels[1, 1], "batch", "seconds")
    panels[1, 1].set_title("solver sweep over all cotangents", fontsize=10)
    panels[1, 1].legend(frameon=False, fontsize=8)
    return figure


def _lines(ax, rows, columns, xlabel, ylabel, title):
    for (label, key), (color, dash) in zip(columns.items(), STYLES, strict=False):
        values = [row[key] for row in rows.values()]
        ax.plot(list(rows), values, color=color, ls=dash, marker=".", label=label)
    _log_axes(ax, xlabel, ylabel)
    ax.set_title(title, fontsize=10)
    ax.legend(frameon=False, fontsize=8)


def _log_axes(ax, xlabel, ylabel):
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
