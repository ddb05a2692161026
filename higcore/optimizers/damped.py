"""Optimizers that choose a damping for every step, by what the step before it was worth."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

import numpy as np

from ..backend import Array
from ..half_inverse import check_memory_limit, decompose
from ..linearisation import Linearisation
from ..protocols import OptimizerState
from ..spectral.filters import Damped
from ..spectral.spectrum import EPS, in_range
from ..validation import check_count, check_finite, check_real_field
from .memory import plan_step

log = logging.getLogger("higcore")

T = TypeVar("T")
S = TypeVar("S")

ROUNDING = 100  # relative error of y over eps; up to 72 in the experiments in float32


@dataclass(frozen=True)
class LevenbergMarquardt:
    r"""Damped Gauss-Newton that looks before it leaps.

    .. math:: step = J^T (h J J^T + \lambda I)^{-1} g

    with h the curvature of L in y, is tried on the same batch; with fewer parameters than rows, as
    (h J^T J + lambda I)^(-1) J^T g. With the gain ratio rho, actual over predicted decrease, a step
    with rho > 0 is taken and lambda multiplied by max(1/3, 1 - (2 rho - 1)^3); else lambda grows by
    2, 4, 8, ... until one is (Nielsen 1999).
    A trial at which network, solver or loss raise, or are not finite, counts as one without a
    decrease. A batch that is solved already, or at its minimum, says nothing about lambda: where
    rounding cannot tell the predicted decrease from 0, or growing does not help either, it stays
    as it was.

    With a penalty w/2 |theta|^2 (`Problem.regularised`) the step is

    .. math:: (h J^\top J + w + \lambda)^{-1} (J^\top g + w \theta)

    by the same factorisation, and L and its predicted decrease hold the penalty.

    h holds what g holds, the factor and weights of the loss and the 1/b of a mean, so that the step
    depends on none of them but the weights. Where h is no single number, the rows of J are
    multiplied by its roots; see `Linearisation`.

    Parameters
    ----------
    damping : float
        First lambda, relative to the largest diagonal entry of h J J^T.
    tries : int
        How often lambda may grow in one update before theta stays as it is.
    memory_limit : float, optional
        Bytes that a step may take, as for `HIG`.

    References
    ----------
    Nielsen, Damping parameter in Marquardt's method, IMM-REP-1999-05, Technical University of
    Denmark.
    """

    damping: float = 1e-3
    tries: int = 10
    memory_limit: float | None = field(default=None, repr=False)
    method: ClassVar[str] = "cholesky"  # for estimates of memory

    def __post_init__(self) -> None:
        check_real_field(self, "damping", 0.0, open_low=True)
        check_count("tries", self.tries)
        check_memory_limit(self.memory_limit)

    def init(self, theta: Array) -> OptimizerState:
        """Return lambda (0: not chosen yet), its next growth factor, and the exponent of its unit.

        That is 0, and lambda a number as it is, unless h J J^T is beyond the range of numbers.
        """
        return {"damping": 0.0, "growth": 2.0, "exponent": 0}

    def update(
        self, linearisation: Linearisation, state: OptimizerState
    ) -> tuple[Array, OptimizerState, None]:
        """Return (step, state, None); the step is 0 if no damping gave a decrease."""
        for name in ("damping", "growth"):
            check_finite(f"the optimizer's {name}", state[name])
        h = linearisation.unit_curvature
        total = linearisation.scale * len(linearisation.output)  # L over its mean per sample
        decomposition, largest = self._decompose(linearisation, h)
        exponent = 2 * decomposition.exponent  # of the unit of lambda
        rounding = ROUNDING * float(np.finfo(linearisation.output.dtype).eps)
        noise = noise_of_loss(linearisation, rounding)
        # Under the floor K + lambda I may be singular to rounding; over the cap nothing moves.
        floor, cap = 10 * decomposition.J.data.shape[0] * EPS * largest, largest / (10 * rounding)
        damping = in_range(state["damping"], state.get("exponent", 0) - exponent)
        damping, growth = min(max(damping or self.damping * largest, floor), cap), state["growth"]
        for _ in range(self.tries):
            f = Damped(damping, curvature=h, exponent=exponent)
            step, _, predicted = decomposition.apply_and_predict(f)
            after = loss_at(linearisation, linearisation.theta - step)
            decrease = total * (linearisation.loss - after)
            telling = predicted > noise
            if predicted > 0 and decrease > 0:
                if telling:
                    gain = min(decrease / predicted, 2.0)  # beyond 2 the rule only shrinks by 1/3
                    state = _state(damping * max(1 / 3, 1 - (2 * gain - 1) ** 3), exponent)
                return step, state, None
            damping, growth = damping * growth, 2 * growth
            if not telling or damping > cap:
                return 0 * linearisation.theta, state, None
        return 0 * linearisation.theta, _state(damping, exponent), None

    def _decompose(self, linearisation, h):
        """The `Decomposition` at a point, within the limit of memory, and max diag h J J^T."""
        f = Damped(1.0, curvature=h)
        _, J = plan_step(linearisation, self.method, f, self.memory_limit, unit=True)
        g = J.column(linearisation.unit_gradient)
        decomposition = decompose(J, g, self.method, self.memory_limit)
        return decomposition, h * float(decomposition.J.data.row_norms_squared().max()) or 1.0


def _state(damping, exponent):
    """That of the optimizer, with the next damping in units of 2^exponent."""
    return {"damping": damping, "growth": 2.0, "exponent": exponent}


def loss_at(at: Linearisation, theta: Array) -> float:
    """Return the mean loss of the batch at another theta (t,), Inf if that is no place to go to."""

    def loss():
        trial = at.at(theta)
        return trial.loss if trial.finite else math.inf

    return or_else(loss, math.inf)


def or_else(call: Callable[[], T], instead: S) -> T | S:
    """Return ``call()``, or ``instead`` where it raises.

    A network, solver or loss that raises says so in its own way: far away a matrix may be singular,
    or a number out of range. Where it works, it works at a shorter step.
    """
    try:
        return call()
    except MemoryError:
        raise
    except Exception as error:
        log.info("a step was too long: %s: %s", type(error).__name__, error)
        return instead


def noise_of_loss(linearisation: Linearisation, rounding: float) -> float:
    """How much of L a relative rounding error of y, of every sample, and of L itself may be."""
    y, g = (
        array.astype(np.float64, copy=False)
        for array in (linearisation.output, linearisation.loss_gradient)
    )
    h: Any = linearisation.curvature
    curvature = h if linearisation.roots is None else h.mean(axis=1)
    error = rounding * abs(y).max(axis=1)  # (b,)
    change = error * (abs(g).sum(axis=1) + curvature / 2 * y.shape[1] * error)
    total = linearisation.scale * len(y) * linearisation.loss
    return float(change.sum()) + rounding * abs(total)
