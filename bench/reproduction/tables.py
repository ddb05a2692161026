"""The tables of the paper, as Markdown."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from higcore import half_inverse

from ..experiments import EXPERIMENTS
from ..paper.tables import markdown
from .measurements import GROWTHS, PAPER, measurements
from .plans import METHODS_2B
from .runs import record_of

METHODS = {"gradient descent": 1.0, "Gauss-Newton": -1.0, "HIG": -0.5}  # method -> kappa
NORMS = {"‖δ‖": 0.0, "‖J δ‖": 1.0, "‖J^(3/4) δ‖": 0.75}  # norm -> exponent of S
OWN = dict(zip(METHODS, NORMS, strict=True))
TAU = 1e-6  # what is cut has no length in two of the norms, and is left out of all
DIRECTIONS = 2000


def table_1(directions: int = DIRECTIONS) -> str:
    """How near each method's step is to steepest descent in each norm.

    The decrease g.J δ of a step δ of unit norm, over the largest that any step can have, which is
    the dual norm of J^T g; and the largest of random steps of the same norm, one half of them near
    the method's own. A method is steepest descent in the norm in which it has 1.
    """
    header = ("", *(f"in {norm}" for norm in NORMS), "best random step in its norm")
    rows = []
    for name, shares in steepest(directions).items():
        cells = (f"{shares[norm]:.4f}" for norm in NORMS)
        rows.append((name, *cells, f"{shares['random']:.4f}"))
    return markdown(header, rows)


def steepest(directions: int = DIRECTIONS) -> dict[str, dict[str, float]]:
    """The numbers of table 1, on the oscillators with new parameters and four samples."""
    problem = EXPERIMENTS["oscillators"].problem()
    theta = problem.network.init(np.random.default_rng([0, 1]))
    at = problem.linearise(theta, problem.batch(0, 4))
    J, g, rng, found = at.jacobian(), at.loss_gradient, np.random.default_rng(0), {}
    _, S, Vt = np.linalg.svd(J.dense(), full_matrices=False)
    S, Vt = S[S / S[0] > TAU], Vt[S / S[0] > TAU]
    gradient = Vt @ at.gradient()  # all in coordinates along V, in which the norms are sums
    for name, kappa in METHODS.items():
        step = Vt @ half_inverse(J, g, kappa=kappa, tau=TAU)[0]
        found[name] = {norm: _share(step, S**p, gradient) for norm, p in NORMS.items()}
        weights = S ** NORMS[OWN[name]]
        tried = rng.standard_normal((directions, len(S))) / weights
        tried[::2] = step + 0.1 * tried[::2] * _length(step, weights) / len(S) ** 0.5
        found[name]["random"] = max(_share(other, weights, gradient) for other in tried)
    return found


def _length(step: Any, weights: Any) -> Any:
    return np.linalg.norm(weights * step)


def _share(step: Any, weights: Any, gradient: Any) -> float:
    """Decrease of a step of unit norm over the largest possible, the dual norm of the gradient."""
    decrease = gradient @ step / _length(step, weights)
    return float(decrease / np.linalg.norm(gradient / weights))


def table_2() -> str:
    """The settings of figure 2b, as the experiment has them."""
    settings = EXPERIMENTS["oscillators"].settings
    known = [name for name in METHODS_2B if name != "adaptive"]
    rows = [
        ("b", *(str(settings[name].batch) for name in known)),
        ("η", *(_eta(settings[name].optimizer) for name in known)),
        ("τ", *(_value(settings[name].optimizer, "tau") for name in known)),
    ]
    names = (type(settings[name].optimizer).__name__ for name in known)
    return markdown(("", *names), rows)


def _eta(optimizer: Any) -> str:
    is_gauss_newton = type(optimizer).__name__ == "GaussNewton"  # which the paper gives none
    return "-" if is_gauss_newton and optimizer.lr == 1.0 else _value(optimizer, "lr")


def _value(optimizer: Any, name: str) -> str:
    value = getattr(optimizer, name, None)
    return "-" if value is None else f"{value:g}"


def costs_table(number: int, folder: Path) -> str:
    """Table 3, 4 or 5: the paper's figures, ours, and those of a dense J and its SVD."""
    header = ("", "b", *(f"{what}: {whose}" for what in COLUMNS for whose in ("paper", *WHOSE)))
    _, paper = PAPER[number]
    runs = measurements(number)
    rows = [
        (optimizer, str(batch), *_cells(paper[optimizer, batch], record_of(run, folder)))
        for (optimizer, batch), run in runs.items()
    ]
    return markdown(header, rows) + (f"\n\n{_growths(folder)}" if number == 3 else "")


def _growths(folder: Path) -> str:
    records = {over: record_of(run, folder) for over, run in GROWTHS.items()}
    parts = [_growth(over, record) for over, record in records.items() if record]
    return f"Seconds of a step of ours grow as {' and '.join(parts) or '(missing)'}."


def _growth(over: str, record: dict[str, Any]) -> str:
    points = (f"{size}: {seconds:.3g} s" for size, seconds in record["step_seconds"].items())
    return f"{over}^{record['exponent']:.2f} ({', '.join(points)})"


COLUMNS = {"MB": "memory_mb", "step s": "step_seconds", "Jacobian s": "jacobian_seconds"}
WHOSE = {"ours": "ours", "dense SVD": "dense"}


def _cells(paper: tuple[float, ...], record: dict[str, Any] | None) -> Iterator[str]:
    for value, key in zip(paper, COLUMNS.values(), strict=True):
        yield f"{value:g}"
        for part in WHOSE.values():
            costs = (record or {}).get(part)
            yield f"{costs[key]:.3g}" if costs else ("-" if record else "missing")
