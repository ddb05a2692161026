"""Pictures and tables of `study`: what each change did to the loss."""

from __future__ import annotations

import json
from statistics import median

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from ..paper.tables import markdown

KINDS = {"seconds": "equal training time", "steps": "equal steps"}
MEASURES = {"median": median, "worst": max}
MOST = 1e3  # beyond, all colors are the same


def losses(by_seed, kind):
    """The test loss of each seed after the seconds or the steps; infinite where training failed."""
    ends = [record[kind] for record in by_seed.values() if kind in record]
    return [np.inf if end["test_loss"] is None else end["test_loss"] for end in ends]


def table(found):
    """One line a value: losses after the seconds and after the steps, and the steps in time."""
    header = ("", "value")
    header += tuple(f"{kind}: {measure}" for kind in KINDS for measure in MEASURES)
    rows = []
    for axis, values in found.items():
        for value, by_seed in values.items():
            taken = median(record["seconds"]["steps"] for record in by_seed.values())
            rows.append((axis, value, *cells(by_seed), f"{taken:.0f}"))
    return markdown((*header, "steps in time"), rows)


def cells(by_seed):
    """Median and worst after the seconds, and after the steps."""
    known = [(losses(by_seed, kind), of) for kind in KINDS for of in MEASURES.values()]
    return [f"{of(found):.1e}" if found else "-" for found, of in known]


def changes(folder, kind):
    """Median and worst loss of every variant over that of AdaptiveHIG, problem by problem."""
    paths = sorted(folder.glob("study-*.json"))
    studies = {path.stem.partition("-")[2]: json.loads(path.read_text()) for path in paths}
    labels = {}  # in the order of the longest file
    for saved in sorted(studies.values(), key=lambda saved: -len(str(saved["study"]))):
        for axis, values in saved["study"].items():
            labels |= {(axis, value): None for value in values}
    figure = Figure(figsize=(11, 1.5 + 0.21 * len(labels)), layout="constrained")
    for ax, (name, of) in zip(figure.subplots(1, 2, sharey=True), MEASURES.items(), strict=True):
        ratios = np.full((len(labels), len(studies)), np.nan)
        for column, saved in enumerate(studies.values()):
            ratios[:, column] = list(over_own(saved["study"], labels, kind, of))
        panel(ax, ratios, list(studies))
        ax.set_title(f"{name} of the seeds", fontsize=10)
    figure.axes[0].set_yticks(range(len(labels)), [f"{a}: {v}" for a, v in labels], fontsize=8)
    figure.suptitle(f"test loss over that of AdaptiveHIG as it is, {KINDS[kind]}", fontsize=11)
    return figure


def over_own(study, labels, kind, of):
    """A column: the loss of every label over AdaptiveHIG's own, NaN where there is none."""
    own = of(losses(study["beside"]["adaptive"], kind)) if "beside" in study else np.nan
    for axis, value in labels:
        found = losses(study.get(axis, {}).get(value, {}), kind)
        yield of(found) / own if found else np.nan


def panel(ax, ratios, problems):
    """Ratios as colors, and as numbers where they are not 1."""
    shown = np.clip(ratios, 1 / MOST, MOST)
    ax.imshow(shown, norm=LogNorm(1 / MOST, MOST), cmap="RdBu_r", aspect="auto", alpha=0.7)
    ax.grid(False)
    for (row, column), ratio in np.ndenumerate(ratios):
        if not np.isnan(ratio):
            text = "failed" if np.isinf(ratio) else f"{ratio:.2g}"
            color = "white" if abs(np.log10(shown[row, column])) > 0.75 * np.log10(MOST) else "k"
            ax.text(column, row, text, color=color, ha="center", va="center", fontsize=7)
    ax.set_xticks(range(len(problems)), problems, rotation=30, ha="right", fontsize=8)
