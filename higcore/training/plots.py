"""Pictures of a run; matplotlib is imported when one is asked for, and nowhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from .files import file_path, replacing

# Dark to light and solid to dotted, so that the curves stay apart in black and white.
STYLES = [("#0b3c8c", "-"), ("#c1440e", "--"), ("#2f7d32", "-.")]
PANELS = {
    "loss": "loss of the batch",
    "step_norm": "norm of the step",
    "condition": "condition of the kept modes",
    "ratio": "actual / predicted decrease",
}


def run_picture(history: dict[str, list[Any]], diagnostics: dict[str, list[Any]]) -> Any:
    """A Figure of the losses and, below them, of the diagnostics if there are any.

    Both are columns by name, such as `Table.to_dict` returns.
    """
    diagnosed = bool(diagnostics["step"])
    figure = new_figure(12 if diagnosed else 9, 7 if diagnosed else 3.8)
    upper, *lower = figure.subfigures(1 + diagnosed, 1, squeeze=False)[:, 0]
    draw_losses(upper, history)
    for part in lower:
        draw_diagnostics(part, diagnostics)
    return figure


def new_figure(width: float, height: float) -> Any:
    """An empty matplotlib Figure; sizes in inches."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError("plot needs matplotlib: pip install 'higcore[plot]'") from None
    return Figure(figsize=(width, height), layout="constrained")


def save(figure: Any, path: str | Path) -> None:
    """Write a picture of the kind that the path ends in, complete or not at all."""
    kinds, suffix = figure.canvas.get_supported_filetypes(), file_path(path).suffix
    if suffix[1:].lower() not in kinds:
        raise ValueError(f"path must end in a kind of picture, such as .png, got {str(path)!r}")
    with replacing(path) as partial:
        figure.savefig(partial)


def draw_losses(figure: Any, columns: dict[str, list[Any]]) -> None:
    """All losses of a history against training seconds and against steps, where they are known."""
    axes = figure.subplots(1, 2, sharey=True)
    losses = {name: _numbers(columns[name]) for name in columns if name.endswith("_loss")}
    losses = {name: values for name, values in losses.items() if np.isfinite(values).any()}
    labels = {"seconds": "training time [s]", "step": "steps"}
    for ax, (key, label) in zip(axes, labels.items(), strict=True):
        for (name, values), (color, dash) in zip(losses.items(), STYLES, strict=False):
            title = name.replace("_", " ")
            ax.plot(columns[key], values, dash, marker=".", ms=4, color=color, label=title)
        ax.set_xlabel(label)
    if not any((values <= 0).any() for values in losses.values()):
        axes[0].set_yscale("log")
    axes[0].set_ylabel("mean loss")
    if losses:
        axes[0].legend(frameon=False)


def draw_diagnostics(figure: Any, columns: dict[str, list[Any]]) -> None:
    """Loss, norm of the step, condition, and actual over predicted decrease against the step.

    The ratio is 1 where the solver is linear over the step; it is cut at -1 and 3.
    """
    rows = {name: _numbers(values) for name, values in columns.items()}
    with np.errstate(divide="ignore", invalid="ignore"):  # a step of 0 predicts and does nothing
        ratio = rows["actual_decrease"] / rows["predicted_decrease"]
    rows["ratio"] = np.clip(ratio, -1, 3)
    for ax, (name, label) in zip(figure.subplots(1, len(PANELS)), PANELS.items(), strict=True):
        ax.plot(rows["step"], rows[name], color=STYLES[0][0])
        ax.set_yscale("linear" if name == "ratio" else "log")
        ax.set_xlabel("step")
        ax.set_title(label, fontsize=10)
    ax.axhline(1, color="#777777", ls=":")
    ax.set_ylim(-1.1, 3.1)


def _numbers(values: list[Any]) -> np.ndarray:
    """A column as float64; None, for what is not known, as NaN."""
    return np.array(values, dtype=float)
