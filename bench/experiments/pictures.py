"""What was learned: pictures of one sample. Plain arrays in, a matplotlib Figure out."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from ..style import STYLES

SAMPLES, PANELS = 2000, 8  # at most, where outputs are drawn against targets


def oscillator_trajectory(times, states, control, target, title, figure=None):
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
    figure : Figure or SubFigure, optional
        Where to draw, as in the others here.
    """
    figure = figure or Figure(figsize=(8, 4), layout="constrained")
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
    figure.legend(
        *ax.get_legend_handles_labels(), loc="outside lower center", ncols=2 * n, frameon=False
    )
    ax.set_title(title, fontsize=10)
    return figure


def toy_fit(x, y):
    """The two outputs against sin 6x and cos 9x."""
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    ax = figure.subplots()
    wanted = (np.sin(6 * x), np.cos(9 * x))
    for k, ((color, _), name) in enumerate(zip(STYLES, ("sin 6x", "cos 9x"), strict=False)):
        ax.plot(x, wanted[k], ":", color=color, label=name)
        ax.plot(x, y[:, k], "-", color=color, label=f"$y^{k + 1}$ of the network")
    ax.set_xlabel("x")
    ax.set_ylabel("y")
    figure.legend(
        *ax.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False
    )
    return figure


def predictions(y, target, title):
    """Outputs (b, |y|) against their targets, a panel each, of `PANELS` of them if there are more.

    Where both are equal there is a line.
    """
    outputs = np.unique(np.linspace(0, y.shape[1] - 1, min(PANELS, y.shape[1])).astype(int))
    columns = min(4, len(outputs))
    rows = -(-len(outputs) // columns)
    figure = Figure(figsize=(3.2 * columns, 3.1 * rows + 0.3), layout="constrained")
    for k, j in enumerate(outputs):
        ax = figure.add_subplot(rows, columns, k + 1)
        ends = target[:, j].min(), target[:, j].max()
        ax.plot(ends, ends, color=STYLES[1][0], linestyle=STYLES[1][1])
        ax.plot(target[:, j], y[:, j], ".", color=STYLES[0][0], ms=3, alpha=0.6)
        ax.set_title(f"$y_{{{j + 1}}}$", fontsize=10)
    figure.supxlabel("target", fontsize=10)
    figure.supylabel("output", fontsize=10)
    figure.suptitle(title, fontsize=11)
    return figure


def poisson_fields(fields, figure=None):
    """Figure 3a: named fields side by side, each with its own colour scale."""
    figure = figure or Figure(figsize=(3.1 * len(fields), 3), layout="constrained")
    for ax, (name, values) in zip(figure.subplots(1, len(fields)), fields.items(), strict=True):
        limit = np.abs(values).max()
        image = ax.imshow(values, cmap="RdBu_r", vmin=-limit, vmax=limit, origin="lower")
        figure.colorbar(image, ax=ax, shrink=0.8, location="bottom")
        ax.set_title(name)
        ax.set_xticks([])
        ax.set_yticks([])
        ax.grid(False)
    return figure


def dipole_density(times, positions, density, control, target, title, figure=None):
    """Figure 4a: |psi(t, x)|^2 with the control under it and the wanted density beside it.

    Parameters
    ----------
    times : array (steps + 1,)
    positions : array (n,)
    density : array (steps + 1, n)
    control : array (steps,)
    target : array (n,)
    """
    figure = figure or Figure(figsize=(9, 5), layout="constrained")
    (top, side), (bottom, corner) = figure.subplots(
        2, 2, width_ratios=(5, 1), height_ratios=(3, 1), sharex="col", sharey="row"
    )
    corner.axis("off")
    image = top.pcolormesh(times, positions, density.T, shading="gouraud", cmap="magma")
    top.grid(False)
    top.set_ylabel("position x")
    figure.colorbar(image, ax=top, label=r"$|\psi|^2$", location="left", shrink=0.8)
    side.plot(density[-1], positions, color=STYLES[0][0], label="reached")
    side.plot(target, positions, "o", mfc="none", color=STYLES[1][0], label="wanted")
    corner.legend(*side.get_legend_handles_labels(), loc="center", frameon=False, fontsize=8)
    side.set_xlabel(r"$|\psi(T)|^2$")
    bottom.fill_between(times, np.append(control, control[-1]), step="post", color="#9ec3e6")
    bottom.set_xlabel("time t")
    bottom.set_ylabel("control u(t)")
    figure.suptitle(title, fontsize=11)
    return figure


def law(argument, learned, true, seen):
    """A law that was learned against the true one, and how often its arguments were met."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    ax = figure.subplots()
    often = ax.twinx()
    often.hist(seen, bins=60, color="#9ec3e6", alpha=0.5)
    often.set_ylabel("times met in training", color="#4a7fb0")
    often.grid(False)
    ax.set_zorder(often.get_zorder() + 1)
    ax.patch.set_visible(False)
    (color, dash), (other, other_dash) = STYLES[:2]
    ax.plot(argument, true, dash, color=color, label="true")
    ax.plot(argument, learned, other_dash, color=other, label="learned")
    ax.set_xlabel("velocity")
    ax.set_ylabel("friction")
    error = abs(learned - true)
    ax.set_title(f"largest error {error.max():.1e}, of {abs(true).max():.2g}", fontsize=11)
    ax.legend(frameon=False)
    return figure


def corrected_solver(times, errors, curves, trained):
    """Errors of a coarse and a corrected solver against time, and solutions at the end."""
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    for (color, dash), name, error in zip(STYLES, ("coarse", "corrected"), errors, strict=False):
        left.semilogy(times[1:], error[1:], dash, color=color, label=name)
    left.axvline(trained, color="#777777", lw=1, ls=":")
    left.annotate(" trained span", (trained, left.get_ylim()[0]), fontsize=8, va="bottom")
    left.set_xlabel("time t")
    left.set_ylabel("relative error against the fine solver")
    left.legend(frameon=False)
    styles = (("#777777", "-"), *STYLES[:2])
    for (color, dash), (name, values) in zip(styles, curves.items(), strict=True):
        right.plot(np.arange(len(values)), values, dash, color=color, label=name)
    right.set_xlabel("cell")
    right.set_ylabel(f"solution at t = {times[-1]:g}")
    right.legend(frameon=False)
    return figure


def controlled_field(times, positions, alone, controlled, control, title):
    """A field left alone, the same one controlled, and the control, against time.

    Parameters
    ----------
    times : array (steps + 1,)
    positions : array (n,)
    alone, controlled : array (steps + 1, n)
    control : array (intervals, actuators)
        Constant over each interval. The first half of the intervals is the trained span.
    title : str
    """
    figure = Figure(figsize=(9, 6), layout="constrained")
    top, middle, bottom = figure.subplots(3, 1, sharex=True, height_ratios=(3, 3, 2))
    levels = np.abs(alone).max() * np.linspace(-1, 1, 24)  # even: around 0 there is one colour
    for ax, field, name in ((top, alone, "left alone"), (middle, controlled, "controlled")):
        image = ax.contourf(times, positions, field.T, levels, cmap="RdBu_r", extend="both")
        ax.set_ylabel(f"{name}: x")
    figure.colorbar(image, ax=(top, middle), label="y", shrink=0.8, format="%.1f")
    edges = np.linspace(times[0], times[-1], len(control) + 1)
    limit, actuators = np.abs(control).max(), np.arange(control.shape[1] + 1) + 0.5
    pushes = bottom.pcolormesh(edges, actuators, control.T, cmap="PuOr", vmin=-limit, vmax=limit)
    figure.colorbar(pushes, ax=bottom, label="u", shrink=0.9)
    bottom.set_ylabel("actuator")
    bottom.set_xlabel("time t")
    for ax in (top, middle, bottom):
        ax.axvline(times[-1] / 2, color="#333333", lw=1, ls=":")
        ax.grid(False)
    figure.suptitle(title, fontsize=11)
    return figure
