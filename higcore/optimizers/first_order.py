"""First-order optimizers, as Keras defines them (the baselines of the paper's table 2).

An optimizer has ``init(theta) -> state``, a dict of arrays and numbers, and
``update(linearisation, state) -> (step, state, info)``; the caller does theta <- theta - step.
It never changes the state it is given, so an update that is not taken leaves nothing behind.
G is the gradient dL/dtheta.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..backend import Array, array_module
from ..protocols import GradientSource, OptimizerState
from ..validation import check_array, check_real_field


@dataclass(frozen=True)
class SGD:
    """Gradient descent (eq. 1): step = lr G."""

    lr: float = 0.01

    def __post_init__(self) -> None:
        _check(self, "lr")

    def init(self, theta: Array) -> OptimizerState:
        """Return the empty state."""
        return {}

    def update(
        self, linearisation: GradientSource, state: OptimizerState
    ) -> tuple[Array, OptimizerState, None]:
        """Return (step, state, None)."""
        return self.lr * linearisation.gradient(), state, None


@dataclass(frozen=True)
class Adagrad:
    """A <- A + G^2, step = lr G / sqrt(A + eps) (Duchi et al. 2011)."""

    lr: float = 0.001
    initial_accumulator: float = 0.1
    epsilon: float = 1e-7

    def __post_init__(self) -> None:
        _check(self, "lr", "initial_accumulator", "epsilon")

    def init(self, theta: Array) -> OptimizerState:
        """Return A = initial_accumulator."""
        return {"accumulator": _zeros(theta) + theta.dtype.type(self.initial_accumulator)}

    def update(
        self, linearisation: GradientSource, state: OptimizerState
    ) -> tuple[Array, OptimizerState, None]:
        """Return (step, state, None)."""
        G = linearisation.gradient()
        A = state["accumulator"] + G * G
        return self.lr * G / (A + self.epsilon) ** 0.5, {"accumulator": A}, None


@dataclass(frozen=True)
class Adadelta:
    """Steps in units of past steps (Zeiler 2012).

    A <- rho A + (1 - rho) G^2, step' = sqrt(D + eps) / sqrt(A + eps) G,
    D <- rho D + (1 - rho) step'^2, step = lr step'.
    """

    lr: float = 0.001
    rho: float = 0.95
    epsilon: float = 1e-7

    def __post_init__(self) -> None:
        _check(self, "lr", "rho", "epsilon")

    def init(self, theta: Array) -> OptimizerState:
        """Return A = D = 0."""
        return {"gradient_square": _zeros(theta), "step_square": _zeros(theta)}

    def update(
        self, linearisation: GradientSource, state: OptimizerState
    ) -> tuple[Array, OptimizerState, None]:
        """Return (step, state, None)."""
        G, rho = linearisation.gradient(), self.rho
        A = rho * state["gradient_square"] + (1 - rho) * G * G
        step = (state["step_square"] + self.epsilon) ** 0.5 / (A + self.epsilon) ** 0.5 * G
        D = rho * state["step_square"] + (1 - rho) * step * step
        return self.lr * step, {"gradient_square": A, "step_square": D}, None


@dataclass(frozen=True)
class RMSprop:
    """A <- rho A + (1 - rho) G^2, step = lr G / sqrt(A + eps) (Hinton et al. 2012)."""

    lr: float = 0.001
    rho: float = 0.9
    epsilon: float = 1e-7

    def __post_init__(self) -> None:
        _check(self, "lr", "rho", "epsilon")

    def init(self, theta: Array) -> OptimizerState:
        """Return A = 0."""
        return {"gradient_square": _zeros(theta)}

    def update(
        self, linearisation: GradientSource, state: OptimizerState
    ) -> tuple[Array, OptimizerState, None]:
        """Return (step, state, None)."""
        G = linearisation.gradient()
        A = self.rho * state["gradient_square"] + (1 - self.rho) * G * G
        return self.lr * G / (A + self.epsilon) ** 0.5, {"gradient_square": A}, None


@dataclass(frozen=True)
class Adam:
    """Bias-corrected moments of the gradient (Kingma and Ba 2015).

    M <- beta_1 M + (1 - beta_1) G, V <- beta_2 V + (1 - beta_2) G^2,
    step = lr sqrt(1 - beta_2^n) / (1 - beta_1^n) M / (sqrt(V) + eps) in update n = 1, 2, ...
    """

    lr: float = 0.001
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-7

    def __post_init__(self) -> None:
        _check(self, "lr", "beta_1", "beta_2", "epsilon")

    def init(self, theta: Array) -> OptimizerState:
        """Return M = V = 0, n = 0."""
        return {"mean": _zeros(theta), "square": _zeros(theta), "updates": 0}

    def update(
        self, linearisation: GradientSource, state: OptimizerState
    ) -> tuple[Array, OptimizerState, None]:
        """Return (step, state, None)."""
        G = linearisation.gradient()
        n = state["updates"] + 1
        M = self.beta_1 * state["mean"] + (1 - self.beta_1) * G
        V = self.beta_2 * state["square"] + (1 - self.beta_2) * G * G
        rate = self.lr * (1 - self.beta_2**n) ** 0.5 / (1 - self.beta_1**n)
        return rate * M / (V**0.5 + self.epsilon), {"mean": M, "square": V, "updates": n}, None


def _zeros(theta):
    check_array("theta", theta, ("t",))
    return array_module(theta=theta).zeros_like(theta)


def _check(optimizer, *names):
    for name in names:
        decay = name in ("rho", "beta_1", "beta_2")
        high = 1 - 1e-12 if decay else float("inf")
        check_real_field(optimizer, name, 0.0, high, open_low=name in ("lr", "epsilon"))
