"""Time to a loss: every peer trains in a process of its own, one after the other."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from statistics import median

from matplotlib.figure import Figure

from ..paper.tables import markdown
from ..style import STYLES
from .peers import PEERS

LEVELS = (1e-3, 1e-5, 1e-7)
COMPILING = 60  # seconds that a peer may take beside its training


def contest(name, labels, seeds, seconds, tuning, found, keep, say):
    """Choose each peer's setting on a seed of its own, then train it with every seed.

    ``tuning`` is (seed, seconds). ``found``, ``{label: record}``, is added to, and what it holds is
    not run again; ``keep()`` is called after every run.
    """
    for label in labels:
        if label in found:
            continue
        tried = {}
        for setting in PEERS[label].grid if len(PEERS[label].grid) > 1 else ():
            say(f"{name}, {label}: tries {setting}")
            tried[json.dumps(setting)] = run(label, name, *tuning, setting)
        best = min(tried, key=lambda setting: lowest(tried[setting]), default="{}")
        tried = {setting: lowest(record) for setting, record in tried.items()}
        found[label] = {"setting": json.loads(best), "tried": tried, "seeds": {}}
        keep()
    for seed in map(str, seeds):
        for label in labels:
            if seed not in found[label]["seeds"]:
                say(f"{name}, seed {seed}: {label} {found[label]['setting']}")
                found[label]["seeds"][seed] = trained(found[label], label, name, seed, seconds)
                keep()


def trained(peer, label, name, seed, seconds):
    """The record of a run with the setting of a peer, unless none of its settings led anywhere."""
    tried = peer["tried"].values()
    if tried and all(loss is None or math.isinf(loss) for loss in tried):
        return {"failed": "no setting of the grid did"}
    return run(label, name, seed, seconds, peer["setting"])


def run(label, name, seed, seconds, setting):
    """The record of one process, or why there is none."""
    command = [sys.executable, "-m", "bench.research.contestant"]
    command += [label, name, str(seed), str(seconds), json.dumps(setting)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=2 * seconds + COMPILING
        )
    except subprocess.TimeoutExpired:
        return {"failed": "took too long"}
    if done.returncode:
        return {"failed": done.stderr.strip().rpartition("\n")[2]}
    return json.loads(done.stdout.splitlines()[-1])


def lowest(record):
    """The lowest test loss of a run, infinite if it failed."""
    losses = record.get("curve", {}).get("test_loss", ())
    return min((loss for loss in losses if loss is not None), default=math.inf)


def time_to(record, level):
    """Seconds until the test loss is at a level for the first time, infinite if it never is."""
    curve = record.get("curve", {"seconds": (), "test_loss": ()})
    pairs = zip(curve["seconds"], curve["test_loss"], strict=True)
    return min((at for at, loss in pairs if loss is not None and loss <= level), default=math.inf)


def table(found):
    """One line a peer: its setting, the time to some losses, the last loss; medians of seeds."""
    header = ("", "setting", *(f"s to {level:g}" for level in LEVELS))
    rows = []
    for label, peer in found.items():
        runs = list(peer["seeds"].values())
        times = (median(time_to(record, level) for record in runs) for level in LEVELS)
        setting = ", ".join(f"{name} {value:g}" for name, value in peer["setting"].items())
        cells = ("-" if math.isinf(time) else f"{time:.2g}" for time in times)
        rows.append((label, setting, *cells, f"{median(map(lowest, runs)):.1e}", steps(runs)))
    return markdown((*header, "lowest", "steps"), rows)


def steps(runs):
    """The steps of the first run, or why there are none."""
    return str(runs[0]["curve"]["step"][-1]) if "curve" in runs[0] else runs[0]["failed"]


def picture(found, title):
    """Test loss against training seconds, a line a seed."""
    figure = Figure(figsize=(8, 4.6), layout="constrained")
    ax = figure.subplots()
    for (label, peer), (color, dash) in zip(found.items(), STYLES * len(found), strict=False):
        for number, record in enumerate(peer["seeds"].values()):
            curve = record.get("curve", {"seconds": [], "test_loss": []})
            losses = [math.nan if loss is None else loss for loss in curve["test_loss"]]
            name = None if number else label
            ax.plot(curve["seconds"], losses, dash, color=color, lw=1.2, alpha=0.8, label=name)
    ax.set_xscale("log")
    ax.set_yscale("log")
    starts = [line.get_ydata()[0] for line in ax.lines if len(line.get_ydata())]
    ax.set_ylim(top=10 * max(starts, default=1))
    ax.set_xlabel("training time [s]")
    ax.set_ylabel("mean test loss")
    figure.legend(loc="outside right center", frameon=False, fontsize=8)
    figure.suptitle(title, fontsize=11)
    return figure
