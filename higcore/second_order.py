"""Optimizers that ask for the stacked Jacobian."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import scipy.linalg

from .backend import Array, is_host, module_of, to_host
from .half_inverse import (
    METHODS,
    TRUNCATIONS,
    HalfInverseInfo,
    check_memory,
    check_memory_limit,
    half_inverse,
)
from .linearisation import Linearisation
from .memory import plan_step
from .optimizers import Adam
from .protocols import OptimizerState
from .spectral.modes import EPS, Truncation, failures_of
from .validation import check_choice, check_count, check_finite, check_real_field

log = logging.getLogger("higcore")

ROUNDING = 100  # relative error of y over eps; up to 72 in the experiments in float32


@dataclass(frozen=True)
class HIG:
    """Half-inverse gradients: step = lr max(S)^beta V S^kappa U^T g (eq. 7 and 21-22).

    The parameters are those of `half_inverse`; ``lr`` is the paper's eta. ``update`` returns a
    `HalfInverseInfo` as its third value. With a ``memory_limit`` (bytes; by default what the
    machine has free) that the row factors of the batch exceed, they are made in tiles of samples,
    as large as it allows; if not even that is enough, `MemoryError` says which batch would fit.
    """

    lr: float = 1.0
    tau: float = 1e-6
    kappa: float = -0.5
    beta: float = 0.0
    truncation: str = "relative"
    method: str = "auto"
    memory_limit: float | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        check_real_field(self, "lr", 0.0, open_low=True)
        check_real_field(self, "tau", 0.0)
        check_real_field(self, "kappa", -1.0, 1.0)
        check_real_field(self, "beta")
        check_choice("truncation", self.truncation, TRUNCATIONS)
        check_choice("method", self.method, METHODS)
        check_memory_limit(self.memory_limit)

    def init(self, theta: Array) -> OptimizerState:
        """Return the empty state."""
        return {}

    def update(
        self, linearisation: Linearisation, state: OptimizerState
    ) -> tuple[Array, OptimizerState, HalfInverseInfo]:
        """Return (step, state, info)."""
        rule = Truncation(self.tau, self.truncation == "relative")
        method, J = plan_step(linearisation, self.method, rule, self.memory_limit)
        step, info = half_inverse(
            J,
            linearisation.loss_gradient,
            kappa=self.kappa,
            tau=self.tau,
            truncation=self.truncation,
            beta=self.beta,
            method=method,
            memory_limit=self.memory_limit,
        )
        step *= self.lr
        return step, state, info


@dataclass(frozen=True)
class GaussNewton(HIG):
    """Gauss-Newton with a truncated pseudo-inverse (eq. 3): `HIG` with kappa = -1."""

    kappa: float = -1.0


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
        """Return lambda (0: not chosen yet) and its next growth factor."""
        return {"damping": 0.0, "growth": 2.0}

    def update(
        self, linearisation: Linearisation, state: OptimizerState
    ) -> tuple[Array, OptimizerState, None]:
        """Return (step, state, None); the step is 0 if no damping gave a decrease."""
        for name in ("damping", "growth"):
            check_finite(f"the optimizer's {name}", state[name])
        _, J = plan_step(linearisation, self.method, Truncation(0.0, True), self.memory_limit)
        check_memory(J, self.method, self.memory_limit)
        g = linearisation.loss_gradient.reshape(-1).astype(np.float64, copy=False)
        curvature = _curvature(linearisation)
        total = linearisation.scale * len(linearisation.control)  # L over its mean per sample
        K = J.gram()
        K *= curvature
        check_finite("the Gram matrix", K)
        largest = float(K.diagonal().max()) or 1.0
        rounding = ROUNDING * float(np.finfo(linearisation.output.dtype).eps)
        noise = _noise_of_loss(linearisation, curvature, rounding)
        # Under the floor K + lambda I may be singular to rounding; over the cap nothing moves.
        floor, cap = 10 * len(K) * EPS * largest, largest / (10 * rounding)
        damping = min(max(state["damping"] or self.damping * largest, floor), cap)
        growth = state["growth"]
        for _ in range(self.tries):
            weights = _solve_damped(J.xp, K, damping, g)
            step = J.rmatvec(weights).astype(J.dtype, copy=False)
            # Decrease of the model L - g.(J d) + h |J d|^2 / 2, with h J d = g - damping w.
            Kw = K @ weights  # = h J d
            predicted = float(Kw @ g + damping * (Kw @ weights)) / (2 * curvature)
            decrease = total * (linearisation.loss - _loss_after(linearisation, step))
            telling = predicted > noise
            if predicted > 0 and decrease > 0:
                if telling:
                    gain = min(decrease / predicted, 2.0)  # beyond 2 the rule only shrinks by 1/3
                    damping *= max(1 / 3, 1 - (2 * gain - 1) ** 3)
                    state = {"damping": damping, "growth": 2.0}
                return step, state, None
            damping, growth = damping * growth, 2 * growth
            if not telling or damping > cap:
                return 0 * linearisation.theta, state, None
        return 0 * linearisation.theta, {"damping": damping, "growth": 2.0}, None


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


@dataclass(frozen=True)
class ScaleInvariantPhysics:
    """SIP: invert the solver sample by sample, then teach the network the inverted control.

    du_i = pinv(S_i) g_i / h, with h the curvature of L in y, is the Gauss-Newton step of sample i's
    control alone, which solves a linear solver exactly. Adam then takes a step on the proxy loss
    mean_i |u_i - (u_i - du_i)|^2, the target u_i - du_i held constant, so that the network's
    cotangent is 2 du_i / b (Holl, Koltun and Thuerey 2021; the paper's inversion approach).

    Parameters
    ----------
    lr : float
        Adam's learning rate.
    rcond : float
        Singular values of S_i up to rcond times the largest are not inverted.
    """

    lr: float = 0.001
    rcond: float = 1e-5
    adam: Adam = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_real_field(self, "lr", 0.0, open_low=True)
        check_real_field(self, "rcond", 0.0, 1.0)
        object.__setattr__(self, "adam", Adam(lr=self.lr))

    def init(self, theta: Array) -> OptimizerState:
        """Return Adam's state."""
        return self.adam.init(theta)

    def update(
        self, linearisation: Linearisation, state: OptimizerState
    ) -> tuple[Array, OptimizerState, None]:
        """Return (step, state, None)."""
        du = inverted_control_step(linearisation, self.rcond)
        return self.adam.update(_Proxy(linearisation, du), state)


def inverted_control_step(linearisation: Linearisation, rcond: float = 1e-5) -> Array:
    """Return du (b, |u|), the Gauss-Newton step of every sample's control by itself."""
    S, g = linearisation.solver_rows(), linearisation.loss_gradient
    check_finite("the solver's Jacobian", S)
    xp, on_host = module_of(S), to_host(S)
    mantissa, exponent = math.frexp(_curvature(linearisation))
    # In units of every sample's own, powers of two, no power of a size over- or underflows.
    of_S, of_g = (
        np.frexp(abs(a).reshape(len(a), -1).max(axis=1))[1] for a in (on_host, to_host(g))
    )
    # On the host in any case: CuPy would decompose one small matrix after the other.
    inverses = xp.asarray(np.linalg.pinv(np.ldexp(on_host, -of_S[:, None, None]), rcond=rcond))
    g = xp.ldexp(g, xp.asarray(-of_g)[:, None]) / mantissa
    du = (inverses @ g[:, :, None])[:, :, 0]
    return xp.ldexp(du, xp.asarray(of_g - of_S - exponent)[:, None])


def _curvature(linearisation: Linearisation) -> float:
    """h, that of L in y."""
    loss: Any = linearisation.problem.loss  # `curvature` is optional in a `Loss`
    if not hasattr(loss, "curvature"):
        raise TypeError(f"loss must have a curvature for this optimizer, which {loss!r} has not")
    curvature: float = loss.curvature
    return curvature * linearisation.scale


@dataclass(frozen=True)
class _Proxy:
    """What SIP shows Adam in place of the linearisation: the gradient of the proxy loss."""

    linearisation: Linearisation
    du: Array

    def gradient(self) -> Array:
        return self.linearisation.network_gradient(2 * self.du / len(self.du))
