"""What a step costs on many ranks: a model of its stages, checked here, and read for a cluster."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from threadpoolctl import threadpool_limits

import higcore
from higcore.device.threads import cores

from ..experiments import EXPERIMENTS
from ..paper.tables import markdown
from ..style import STYLES
from .crossovers import PRODUCTS, applied, gram_matrix, timed

BATCHES = {"oscillators": 512, "dipole": 64}  # at which it is checked
READ_FOR, RANKS = (10**5, 10**6), (1, 4, 16, 64, 256, 1024)  # rows; ranks
LARGE = 2048  # rows of the K whose decomposition is timed for larger ones
SHARED = ("network", "solver", "loss", "sweep", "row pull-back", "Gram")
GROWTH = {"Gram": 2, "decomposition": 3}  # powers of the samples; of the others 1
NUMBER = 8  # bytes


class Link(NamedTuple):
    """What ranks are joined by: bytes a second into a rank, seconds of a message."""

    bandwidth: float = 1e9
    latency: float = 2e-6

    def gathered(self, numbers: float, ranks: int) -> float:
        """Seconds until all ranks have so many numbers, of which each has its part."""
        if ranks == 1:
            return 0.0
        return NUMBER * numbers * (1 - 1 / ranks) / self.bandwidth + self.messages(ranks)

    def messages(self, ranks: int) -> float:
        """Seconds of the messages of a collective, however short."""
        return self.latency * math.log2(ranks)


class Costs(NamedTuple):
    """What a step of some samples takes one core, and how large what it exchanges is.

    Parameters
    ----------
    samples, outputs, parameters : int
        b, |y|, t.
    factors : int
        Numbers of the row factors of a sample.
    stages : dict
        Stage -> seconds, for b samples.
    product : float
        Seconds of a product with J and one with J^T, by a tangent and a backward pass.
    rate : float
        Operations a second of the decomposition of a large K, 4/3 m^3 in all.
    """

    samples: int
    outputs: int
    parameters: int
    factors: int
    stages: dict[str, float]
    product: float
    rate: float


def by_matrix(costs: Costs, samples: int, ranks: int, link: Link, busy: int) -> dict[str, float]:
    """Seconds of the stages of a step with K, of which ``busy`` ranks at a time have a core.

    Samples are shared, and K in parts; the row factors and K are gathered by all, and every rank
    decomposes K.
    """
    m, grown = samples * costs.outputs, samples / costs.samples
    share = _share(samples, ranks, busy)
    found = {
        stage: seconds * grown ** GROWTH.get(stage, 1) * (share if stage in SHARED else 1.0)
        for stage, seconds in costs.stages.items()
    }
    if samples > costs.samples:
        found["decomposition"] = 4 / 3 * m**3 / costs.rate
    found["decomposition"] *= ranks / busy  # which all do
    exchanged = m * (1 + m / 2) + samples * costs.factors
    return found | {"exchange": link.gathered(exchanged, ranks) + 3 * link.messages(ranks)}


def by_products(
    costs: Costs, samples: int, ranks: int, link: Link, busy: int, products: int = PRODUCTS
) -> dict[str, float]:
    """Seconds of a Lanczos step: products are shared, and each gathers J v and sums J^T w."""
    m, grown = samples * costs.outputs, samples / costs.samples
    share = _share(samples, ranks, busy)
    n = min(m, costs.parameters)
    passes = ("network", "solver", "loss")
    return {
        "forward": sum(costs.stages.get(stage, 0.0) for stage in passes) * grown * share,
        "products": products * costs.product * grown * share,
        "basis": 4 * n * products**2 / costs.rate * ranks / busy,  # which all keep
        "exchange": products
        * (link.gathered(m, ranks) + link.gathered(2 * costs.parameters, ranks)),
    }


def gigabytes(costs: Costs, samples: int, products: int = PRODUCTS) -> dict[str, float]:
    """What a rank holds beside its samples: K and the row factors, or the basis."""
    m = samples * costs.outputs
    return {
        "K": NUMBER * (m * m + samples * costs.factors) / 1e9,
        "products": NUMBER * products * min(m, costs.parameters) / 1e9,
    }


def _share(samples, ranks, busy):
    """Of one core's work on all samples, what the rank with the most takes, and those beside it."""
    return math.ceil(samples / ranks) / samples * ranks / busy


def measured_costs(name: str, batch: int) -> Costs:
    """Measure the stages of a step on one core."""
    experiment = EXPERIMENTS[name]
    problem, optimizer = experiment.problem(), experiment.settings["hig"].optimizer
    theta = problem.network.init(np.random.default_rng([0, 1]))
    with threadpool_limits(1):
        parts = higcore.profile(problem, optimizer, batch=batch, steps=10, after=3).parts
        at = problem.linearise(theta, problem.batch(0, batch))
        v, w = np.ones_like(theta), np.ones_like(at.output)
        product = timed(lambda: (at.tangent(v), at.pulled_back(w)))
        seconds = timed(applied("tridiagonal", gram_matrix(LARGE, 1e-3), np.ones(LARGE)))
    factors = sum(block.a[0].size + block.delta[0].size for block in at.jacobian().blocks)
    return Costs(
        batch, problem.output_size, problem.size, factors, parts, product,
        4 / 3 * LARGE**3 / seconds,
    )  # fmt: skip


def step_on_ranks(name: str, batch: int, ranks: int, steps: int = 40) -> float:
    """Median seconds of a step of HIG that so many ranks share, each with a core if there are."""
    own = set(sorted(os.sched_getaffinity(0))[:ranks])
    train = f"-m bench train {name} --shared --batch {batch} --steps {steps} --device cpu --json"
    with tempfile.TemporaryDirectory() as folder:
        command = [_mpiexec(), "-n", str(ranks), sys.executable, *train.split(), "--out", folder]
        done = subprocess.run(
            command, capture_output=True, text=True, check=True,
            preexec_fn=lambda: os.sched_setaffinity(0, own),
        )  # fmt: skip
    return float(json.loads(done.stdout.splitlines()[-1])["seconds_per_step"])


def _mpiexec() -> str:
    beside = Path(sys.executable).with_name("mpiexec")
    found = str(beside) if beside.exists() else shutil.which("mpiexec")
    if found is None:
        raise ValueError("there is no mpiexec; pip install mpich, or load an MPI")
    return found


def scale(report, keep, link, ranks=(1, 2, 3, 4), batches=None):
    """Check the model on some ranks here, and read it for more of them and larger batches."""
    found = {"link": link._asdict(), "checked": {}, "read": {}}
    for name, batch in (batches or BATCHES).items():
        report(f"{name}: stages of a step on one core")
        costs = measured_costs(name, batch)
        found["checked"][name] = {}
        for count in ranks:
            report(f"{name}: a step on {count} ranks")
            stages = by_matrix(costs, batch, count, link, min(count, cores()))
            found["checked"][name][count] = {
                "measured": step_on_ranks(name, batch, count),
                "predicted": sum(stages.values()),
                "stages": stages,
            }
        found["read"][name] = {m: _read(costs, m, link) for m in READ_FOR}
        keep(found)
    return found


def _read(costs, m, link):
    samples = m // costs.outputs
    routes = {"K": by_matrix, "products": by_products}
    return {"gigabytes": gigabytes(costs, samples)} | {
        route: {count: step(costs, samples, count, link, count) for count in RANKS}
        for route, step in routes.items()
    }


def table(found) -> str:
    """What was measured beside what was predicted; the largest stage where nobody measured."""
    checked = [
        (name, str(count), f"{1e3 * row['measured']:.3g}", f"{1e3 * row['predicted']:.3g}")
        for name, rows in found["checked"].items()
        for count, row in rows.items()
    ]
    read = [
        (name, f"{int(m):.0e}", route, str(count), _seconds(stages), _largest(stages),
         f"{rows['gigabytes'][route]:.3g}")
        for name, by_rows in found["read"].items()
        for m, rows in by_rows.items()
        for route in ("K", "products")
        for count, stages in rows[route].items()
        if int(count) in (1, 64, 1024)
    ]  # fmt: skip
    return "\n\n".join([
        markdown(("a step of HIG", "ranks", "ms", "predicted"), checked),
        markdown(("a step", "rows m", "by", "ranks", "s", "most of it", "GB a rank"), read),
    ])  # fmt: skip


def _seconds(stages):
    return f"{sum(stages.values()):.3g}"


def _largest(stages):
    name = max(stages, key=stages.get)
    return f"{name}, {100 * stages[name] / sum(stages.values()):.0f} %"


def picture(found) -> Figure:
    """The check, and seconds of a step against ranks by both routes."""
    figure = Figure(figsize=(10, 7), layout="constrained")
    axes = figure.subplots(len(found["checked"]), 2, squeeze=False)
    for row, name in zip(axes, found["checked"], strict=True):
        _draw_check(row[0], name, found["checked"][name])
        _draw_read(row[1], name, found["read"][name])
    return figure


def _draw_check(ax, name, rows):
    ranks = [int(count) for count in rows]
    for key, (color, dash) in zip(("measured", "predicted"), STYLES, strict=False):
        seconds = [1e3 * row[key] for row in rows.values()]
        ax.plot(ranks, seconds, dash, color=color, marker="o", label=key)
    ax.set(xlabel="ranks", ylabel="ms a step", xticks=ranks, ylim=(0, None))
    ax.set_title(f"{name}, with K", loc="left")
    ax.legend(frameon=False)


def _draw_read(ax, name, by_rows):
    lines = [(m, route) for m in by_rows for route in ("K", "products")]
    for (m, route), (color, dash) in zip(lines, STYLES, strict=False):
        counts = [int(count) for count in by_rows[m][route]]
        seconds = [sum(stages.values()) for stages in by_rows[m][route].values()]
        ax.plot(counts, seconds, dash, color=color, label=f"{int(m):.0e} rows, {route}")
    ax.set(xlabel="ranks", ylabel="s a step, predicted", xscale="log", yscale="log")
    ax.set_title(name, loc="left")
    ax.legend(frameon=False, fontsize=8)
