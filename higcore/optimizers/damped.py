"""Optimizers that choose a damping for every step, by what the step before it was worth."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import numpy as np
import scipy.linalg

from ..backend import Array, is_host
from ..half_inverse import check_memory, check_memory_limit
from ..linearisation import Jacobian, Linearisation
from ..protocols import OptimizerState
from ..spectral.spectrum import EPS, TruncatedPower, failures_of, in_range
from ..spectral.units import in_reach, root_of_trace, times_power_of_two, unit_vector
from ..validation import check_count, check_finite, check_real_field
from .memory import plan_step

log = logging.getLogger("higcore")

ROUNDING = 100  # relative error of y over eps; up to 72 in the experiments in float32


@dataclass(frozen=True)
class LevenbergMarquardt:
    r"""Damped Gauss-Newton that looks before it leaps.

    .. math:: step = J^T (h J J^T + \lambda I)^{-1} g

    with h the curvature of L in y, is tried on the same batch. With the gain ratio rho, actual
    over predicted decrease, a step with rho > 0 is taken and lambda multiplied by
    max(1/3, 1 - (2 rho - 1)^3); else lambda grows by 2, 4, 8, ... until one is (Nielsen 1999).
    A trial at which network, solver or loss raise, or are not finite, counts as one without a
    decrease. A batch that is solved already, or at its minimum, says nothing about lambda: where
    rounding cannot tell the predicted decrease from 0, or growing does not help either, it stays
    as it was.

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
        model = self._model(linearisation)
        total = linearisation.scale * len(linearisation.control)  # L over its mean per sample
        rounding = ROUNDING * float(np.finfo(linearisation.output.dtype).eps)
        noise = _noise_of_loss(linearisation, model.curvature, rounding)
        largest = float(model.K.diagonal().max()) or 1.0
        # Under the floor K + lambda I may be singular to rounding; over the cap nothing moves.
        floor, cap = 10 * len(model.K) * EPS * largest, largest / (10 * rounding)
        damping = in_range(state["damping"], state.get("exponent", 0) - model.exponent)
        damping, growth = min(max(damping or self.damping * largest, floor), cap), state["growth"]
        for _ in range(self.tries):
            step, predicted = model.step(damping)
            decrease = total * (linearisation.loss - _loss_after(linearisation, step))
            telling = predicted > noise
            if predicted > 0 and decrease > 0:
                if telling:
                    gain = min(decrease / predicted, 2.0)  # beyond 2 the rule only shrinks by 1/3
                    state = model.state(damping * max(1 / 3, 1 - (2 * gain - 1) ** 3))
                return step, state, None
            damping, growth = damping * growth, 2 * growth
            if not telling or damping > cap:
                return 0 * linearisation.theta, state, None
        return 0 * linearisation.theta, model.state(damping), None

    def _model(self, linearisation):
        """The `_DampedModel` at a point, within the limit of memory."""
        _, whole = plan_step(
            linearisation, self.method, TruncatedPower(-1.0, 0.0), self.memory_limit
        )
        check_memory(whole, self.method, self.memory_limit)
        J, K, exponent = in_reach(whole, lambda J: J.gram(), root_of_trace)
        curvature = linearisation.curvature
        K *= curvature
        check_finite("the Gram matrix", K)
        g, shift = unit_vector("the loss gradient", linearisation.loss_gradient)
        return _DampedModel(J, K, g, curvature, 2 * exponent, shift)


class _DampedModel(NamedTuple):
    """L - g.(J d) + h |J d|^2 / 2, and the steps d that it gives for a damping.

    K = h J J^T and lambda are in units of 2^exponent, J in those of its root, g in 2^shift.
    """

    J: Jacobian
    K: Array
    g: Array
    curvature: float
    exponent: int
    shift: int

    def step(self, damping: float) -> tuple[Array, float]:
        """J^T (K + damping I)^(-1) g, and the decrease that the model predicts for it."""
        J, K, g = self.J, self.K, self.g
        weights = _solve_damped(J.xp, K, damping, g)
        step = times_power_of_two(J.rmatvec(weights), self.shift - self.exponent // 2)
        Kw = K @ weights  # = h J d = g - damping w
        predicted = float(Kw @ g + damping * (Kw @ weights)) / (2 * self.curvature)
        return step.astype(J.dtype, copy=False), in_range(predicted, 2 * self.shift)

    def state(self, damping: float) -> OptimizerState:
        """That of the optimizer, with the next damping."""
        return {"damping": damping, "growth": 2.0, "exponent": self.exponent}


def _loss_after(linearisation, step):
    """The loss at theta - step, Inf if that is no place to go to.

    A network, solver or loss that raises there says so in its own way: far away a matrix may be
    singular, or a number out of range. Where it works, it works at a shorter step.
    """
    try:
        trial = linearisation.at(linearisation.theta - step)
        return trial.loss if trial.finite else math.inf
    except MemoryError:
        raise
    except Exception as error:
        log.info("a step was too long: %s: %s", type(error).__name__, error)
        return math.inf


def _noise_of_loss(linearisation, curvature, rounding):
    """How much of L a relative rounding error of y, of every sample, and of L itself may be."""
    y, g = (
        array.astype(np.float64, copy=False)
        for array in (linearisation.output, linearisation.loss_gradient)
    )
    error = rounding * abs(y).max(axis=1)  # (b,)
    change = error * (abs(g).sum(axis=1) + curvature / 2 * y.shape[1] * error)
    total = linearisation.scale * len(y) * linearisation.loss
    return float(change.sum()) + rounding * abs(total)


def _solve_damped(xp, K, damping, g):
    """(K + damping I)^(-1) g, symmetric positive definite."""
    shifted = K.copy()
    shifted.reshape(-1)[:: len(K) + 1] += damping  # the diagonal
    if is_host(K):  # transposed: as LAPACK reads it, no further copies
        return scipy.linalg.solve(shifted.T, g, assume_a="pos", overwrite_a=True)
    with failures_of(xp):
        return xp.linalg.solve(shifted, g)
