"""What one HIG step will hold in memory, from shapes alone, and how to stay under a limit."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ..backend import is_host
from ..device.memory import (
    SAFETY_MARGIN,
    DoesNotFitError,
    available_memory,
    largest_batch,
    needs,
    ran_out,
    short_of_memory,
)
from ..half_inverse import (
    OF_DAMPED,
    SQUARING,
    check_memory_limit,
    choose_method,
    relative_tau,
    workspace,
)
from ..linearisation import Linearisation, rows_of_part
from ..problem import Problem
from ..protocols import Objective, Optimizer
from ..sharing.ranks import ALONE
from ..spectral import lanczos
from ..spectral.filters import Filter
from ..validation import check_choice, check_count, check_real
from .matrix_free import MatrixFreeJacobian

METHODS_OF_STEPS = (*OF_DAMPED, "cholesky")
NOT_EVEN_ONE = (
    "not even one sample fits: AdaptiveHIG(method='lanczos') and first-order optimizers need no "
    "rows of J"
)
# Of products with J, times the numbers that a network, a solver or y has of itself: the tape of the
# step, that of a pass, and what both make on the way.
OF_A_PASS, OF_A_MARCH, OF_ROWS = 4, 3, 8
OF_RIDGE = 12  # float64 numbers a parameter that a penalty on theta takes, at most
IN_TILES = (*SQUARING, "cholesky")  # methods that take K alone


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes that a step holds at its peak, part by part; ``print`` shows a table.

    Attributes
    ----------
    parts : dict
        Name of a part -> bytes.
    method : str
        The decomposition that was assumed.
    """

    parts: dict[str, int]
    method: str

    @property
    def total(self) -> int:
        """Sum of the parts."""
        return sum(self.parts.values())

    @property
    def beside_gram_matrix(self) -> int:
        """All but K and its decomposition: what grows with the batch, not with its square."""
        return self.total - self.parts[f"{self.method} of K"]

    def __str__(self) -> str:
        rows = [*self.parts.items(), ("together", self.total)]
        return "\n".join(f"{name:20s} {size / 1e6:12.1f} MB" for name, size in rows)


def memory_estimate(
    problem: Objective,
    batch: int,
    *,
    method: str = "auto",
    tau: float = 1e-6,
    tile: int | None = None,
    products: int = lanczos.MOST,
) -> MemoryEstimate:
    r"""Return the `MemoryEstimate` of one HIG step on ``batch`` samples.

    With b samples, r outputs, m = b r rows, t parameters and layers of width n_l used at P_l
    positions, the row factors hold b sum_l P_l (n_(l-1) + r n_l) numbers, where a dense J would
    hold m t, and K holds min(m, t)^2 of them. ``"lanczos"`` holds none of these, but what passes
    through the model take, and vectors of min(m, t) numbers.

    Parameters
    ----------
    problem : Problem
        Network and solver; nothing is computed with them.
    batch : int
        Samples a step.
    method, tau
        As for `half_inverse`; tau relative to max(S), Inf where nothing is cut, as by
        `AdaptiveHIG`. ``"cholesky"`` is what `LevenbergMarquardt` does.
    tile : int, optional
        Samples whose row factors exist at a time; see `StackedJacobian`.
    products : int
        Of ``"lanczos"``, at most.

    Examples
    --------
    >>> from bench.experiments import EXPERIMENTS
    >>> estimate = memory_estimate(EXPERIMENTS["oscillators"].problem(), 128)
    >>> estimate.method
    'tridiagonal'
    """
    if not isinstance(problem, Problem):
        raise TypeError(f"problem must be a Problem, got {type(problem).__name__}")
    check_count("batch", batch)
    check_choice("method", method, METHODS_OF_STEPS)
    if tau != math.inf:
        check_real("tau", tau, 0.0)
    if tile is not None:
        check_count("tile", tile)
    check_count("products", products)
    estimate: MemoryEstimate = _estimated(problem, batch, method, tau, tile, products)
    return estimate


def _estimate(problem, batch, method, tau, tile, products):
    """What a step asks for, of arguments that need no check; each is made once."""
    of_step = batch, method, tau, tile, products
    if of_step not in problem.estimates:
        problem.estimates[of_step] = _estimated(problem, *of_step)
    return problem.estimates[of_step]


def _estimated(problem, batch, method, tau, tile, products):
    """`memory_estimate` of such arguments."""
    sample = problem.sample.x
    model: Any = problem.model  # `factor_shapes` is optional in a `Network`
    t, r = problem.size, problem.output_size
    m = batch * r
    on_host = is_host(sample)
    method = choose_method(method, m, t, tau, on_host)
    # A pair of tiles meets in K; methods that read J itself take the factors of all samples.
    tiles = batch if tile is None or method not in IN_TILES else min(batch, 2 * tile)
    by_passes = method == lanczos.NAME
    held = _by_passes(model, r, batch) if by_passes else _with_rows(model, r, batch, tiles)
    numbers = {"parameters": 3 * t} | held
    parts = {name: sample.dtype.itemsize * count for name, count in numbers.items()}
    if problem.ridge:
        parts["parameters"] += 8 * OF_RIDGE * t
    if t < m and not by_passes:  # some rows of J, whole
        parts["row factors"] += 8 * 2 * t * min(m, rows_of_part(t) + r)
    spaces = 2 if by_passes and problem.ridge else 1
    parts[f"{method} of K"] = spaces * workspace(method, m, t, on_host, products)
    return MemoryEstimate(parts, method)


def _with_rows(model, r, batch, tiles):
    """Numbers of a step with row factors, those of ``tiles`` samples at a time."""
    shapes = model.factor_shapes
    return {
        "network": batch * sum(p * (n_in + n_out) for p, n_in, n_out in shapes),
        "solver": batch * model.tape_size + tiles * getattr(model, "passing_size", 0),
        "row factors": tiles * factor_numbers(shapes, r),
    }


def _by_passes(model, r, batch):
    """Numbers of a step by products with J, whose passes have one cotangent, not r of them."""
    outputs = sum(p * n_out for p, _, n_out in model.factor_shapes)
    passing = getattr(model, "passing_size", 0) // r
    return {
        "network": batch * OF_A_PASS * (model.input_size + outputs),
        "solver": batch * (OF_A_MARCH * model.kept_size + passing + OF_ROWS * r),
        "row factors": 0,
    }


def factor_numbers(shapes: Iterable[tuple[int, int, int]], r: int) -> int:
    """Numbers of one sample's row factors, with what is held while they are made and used."""
    kept = sum(p * (n_in + r * n_out) for p, n_in, n_out in shapes)
    passing = max(2 * p * r * max(n_in, n_out) for p, n_in, n_out in shapes)
    entries = sum(r * (n_in + 1) * n_out for p, n_in, n_out in shapes if p > 1)  # at most
    return kept + passing + entries


def fitting_tile(
    problem: Objective,
    batch: int,
    *,
    method: str = "auto",
    tau: float = 1e-6,
    memory_limit: float | None = None,
    products: int = lanczos.MOST,
) -> int | None:
    """Return None if a step fits into memory, or the largest tile with which it does.

    A network that does not say its ``factor_shapes`` is taken to fit.

    Raises
    ------
    DoesNotFitError
        If no tile is small enough; the message says which batch size would fit.
    """
    check_memory_limit(memory_limit)
    if not hasattr(problem.model, "factor_shapes"):
        return None

    def needed_by(samples, tile):
        return _estimate(problem, samples, method, tau, tile, products).total

    ranks = getattr(problem, "ranks", ALONE)  # optional in an `Objective`
    beside = ranks.beside if memory_limit is None else 1

    def lacking(samples, tile):
        """None, or what each of the ranks that share this memory can have."""
        needed = beside * needed_by(samples, tile)
        there = ranks.agreed(short_of_memory(needed, problem.sample.x, memory_limit))
        return None if there is None else there / beside

    def fits(samples, tile):
        return lacking(samples, tile) is None

    if fits(batch, None):
        return None
    least = 1 if hasattr(problem.network, "part") else None  # which is optional
    there = lacking(batch, least)
    if there is None:
        return largest_batch(lambda tile: fits(batch, tile), batch)
    best = largest_batch(lambda samples: fits(samples, least), batch)
    raise _step_does_not_fit(batch, needs(needed_by(batch, least), there), best)


def plan_step(
    at: Linearisation,
    method: str,
    f: Filter,
    memory_limit: float | None,
    *,
    unit: bool = False,
    products: int = lanczos.MOST,
) -> tuple[str, Any]:
    """Return the method of a step, and J with as many row factors at a time as fit beside it.

    For ``"lanczos"`` it is a `MatrixFreeJacobian`, else a `StackedJacobian`.

    If ``unit``, J is the ``unit_jacobian`` of the `Linearisation`. With a penalty on theta it
    is over rows of theta, of which the choice knows nothing.

    The choice of ``"auto"`` is made here once, for the estimate of memory and for the step. If it
    depends on the size of J, because tau is absolute, J is first taken in the tiles of a method
    that squares, the least that any step needs.
    """
    m, t = at.output.size, at.problem.size

    def choose(tau):
        return choose_method(method, m, t, tau, is_host(at.theta))

    def tile_of(chosen):
        options: dict[str, Any] = {"memory_limit": memory_limit, "products": products}
        return fitting_tile(at.problem, len(at.output), method=chosen, **options)

    chosen = choose(f.tau if f.relative else 1.0)
    try:
        tile = tile_of(chosen)
    except DoesNotFitError:
        if method != "auto" or f.tau < math.inf:
            raise
        chosen = lanczos.NAME  # which holds no K
        tile_of(chosen)
    if chosen == lanczos.NAME:
        return chosen, at.with_ridge(MatrixFreeJacobian(at, unit), unit)
    J = (at.unit_jacobian if unit else at.jacobian)(tile)
    if method == "auto" and not f.relative:
        best = choose(relative_tau(f, J))
        if best != chosen:
            chosen, J = best, J.in_tiles(tile_of(best))
    return chosen, at.with_ridge(J, unit)


def ran_out_of_memory(
    problem: Problem, batch: int, optimizer: Optimizer, reason: str
) -> DoesNotFitError:
    """The `DoesNotFitError` for a step that ran out of memory though the estimate let it pass."""
    best = batch // 2
    if hasattr(problem.model, "factor_shapes"):
        options = _options_of(optimizer)
        there = available_memory(problem.sample.x) / SAFETY_MARGIN
        best = largest_batch(lambda b: memory_estimate(problem, b, **options).total <= there, best)
    return _step_does_not_fit(batch, ran_out(reason), best, reason)


def _step_does_not_fit(
    batch: int, problem: str, best: int, reason: str | None = None
) -> DoesNotFitError:
    fits = f"a batch of {best} fits" if best else NOT_EVEN_ONE
    return DoesNotFitError(f"a step on a batch of {batch} {problem}; {fits}", reason)


def _options_of(optimizer):
    """Method and tau for `memory_estimate`. An absolute tau may have made "auto" take what it does
    for a small one, which takes the most."""
    method, tau = getattr(optimizer, "method", "auto"), getattr(optimizer, "tau", math.inf)
    absolute = getattr(optimizer, "truncation", "relative") == "absolute"
    products = getattr(optimizer, "products", lanczos.MOST)
    return {"method": method, "tau": 0.0 if absolute else tau, "products": products}
