"""First-order optimizers, as Keras defines them (the baselines of the paper's table 2).

An optimizer has ``init(theta) -> state``, a dict of arrays and numbers, and
``update(linearisation, state) -> (step, state, info)``; the caller does theta <- theta - step.
It never changes the state it is given, so an update that is not taken leaves nothing behind.
G is the gradient dL/dtheta, which holds the factor of the loss and, where L is a mean, 1/b: SGD's
lr goes with one over these. The others divide by the size of G, so that only their epsilon, and
Adagrad's initial accumulator, are in its units.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from ..backend import Array, module_of
from ..protocols import GradientSource, OptimizerState
from ..validation import check_array, check_real_field

POSITIVE, DECAY = ("lr", "epsilon"), ("rho", "beta_1", "beta_2")
CHECKED = (*POSITIVE, *DECAY, "initial_accumulator")

POSITIVE, DECAY = ("lr", "epsilon"), ("rho", "beta_1", "beta_2")
CHECKED = (*POSITIVE, *DECAY, "initial_accumulator")


@dataclass(frozen=True)
class FirstOrder:
    """What the optimizers share; each gives its ``start``, and its equation as ``step``."""

    lr: float = 0.001

    def __post_init__(self) -> None:
        for name in (field.name for field in fields(self) if field.name in CHECKED):
            high = 1 - 1e-12 if name in DECAY else float("inf")
            check_real_field(self, name, 0.0, high, open_low=name in POSITIVE)

    def init(self, theta: Array) -> OptimizerState:
        """Return the state before the first update."""
        check_array("theta", theta, ("t",))
        return self.start(module_of(theta).zeros_like(theta))

    def update(
        self, linearisation: GradientSource, state: OptimizerState
    ) -> tuple[Array, OptimizerState, None]:
        """Return (step, state, None)."""
        return *self.step(linearisation.gradient(), state), None

    def start(self, zero: Array) -> OptimizerState:
        """The state before the first update, of arrays like ``zero`` (t,)."""
        return {}

    def step(self, G: Array, state: OptimizerState) -> tuple[Array, OptimizerState]:
        """The step and the next state for a gradient G (t,)."""
        raise NotImplementedError


@dataclass(frozen=True)
class SGD(FirstOrder):
    """Gradient descent (eq. 1): step = lr G; lr goes with 1/c for c times the loss."""

    lr: float = 0.01

    def step(self, G: Array, state: OptimizerState) -> tuple[Array, OptimizerState]:
        return self.lr * G, state


@dataclass(frozen=True)
class Adagrad(FirstOrder):
    """A <- A + G^2, step = lr G / sqrt(A + eps) (Duchi et al. 2011).

    A = initial_accumulator at first.
    """

    initial_accumulator: float = 0.1
    epsilon: float = 1e-7

    def start(self, zero: Array) -> OptimizerState:
        return {"accumulator": zero + zero.dtype.type(self.initial_accumulator)}

    def step(self, G: Array, state: OptimizerState) -> tuple[Array, OptimizerState]:
        A = state["accumulator"] + G * G
        return self.lr * G / (A + self.epsilon) ** 0.5, {"accumulator": A}


@dataclass(frozen=True)
class Adadelta(FirstOrder):
    """Steps in units of past steps (Zeiler 2012), A = D = 0 at first.

    A <- rho A + (1 - rho) G^2, step' = sqrt(D + eps) / sqrt(A + eps) G,
    D <- rho D + (1 - rho) step'^2, step = lr step'.
    """

    rho: float = 0.95
    epsilon: float = 1e-7

    def start(self, zero: Array) -> OptimizerState:
        return {"gradient_square": zero, "step_square": zero.copy()}

    def step(self, G: Array, state: OptimizerState) -> tuple[Array, OptimizerState]:
        rho, D = self.rho, state["step_square"]
        A = rho * state["gradient_square"] + (1 - rho) * G * G
        step = (D + self.epsilon) ** 0.5 / (A + self.epsilon) ** 0.5 * G
        D = rho * D + (1 - rho) * step * step
        return self.lr * step, {"gradient_square": A, "step_square": D}


@dataclass(frozen=True)
class RMSprop(FirstOrder):
    """A <- rho A + (1 - rho) G^2, step = lr G / sqrt(A + eps) (Hinton et al. 2012).

    A = 0 at first.
    """

    rho: float = 0.9
    epsilon: float = 1e-7

    def start(self, zero: Array) -> OptimizerState:
        return {"gradient_square": zero}

    def step(self, G: Array, state: OptimizerState) -> tuple[Array, OptimizerState]:
        A = self.rho * state["gradient_square"] + (1 - self.rho) * G * G
        return self.lr * G / (A + self.epsilon) ** 0.5, {"gradient_square": A}


@dataclass(frozen=True)
class Adam(FirstOrder):
    """Bias-corrected moments of the gradient (Kingma and Ba 2015), M = V = 0 at first.

    M <- beta_1 M + (1 - beta_1) G, V <- beta_2 V + (1 - beta_2) G^2,
    step = lr sqrt(1 - beta_2^n) / (1 - beta_1^n) M / (sqrt(V) + eps) in update n = 1, 2, ...
    """

    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-7

    def start(self, zero: Array) -> OptimizerState:
        return {"mean": zero, "square": zero.copy(), "updates": 0}

    def step(self, G: Array, state: OptimizerState) -> tuple[Array, OptimizerState]:
        n = state["updates"] + 1
        M = self.beta_1 * state["mean"] + (1 - self.beta_1) * G
        V = self.beta_2 * state["square"] + (1 - self.beta_2) * G * G
        rate = self.lr * (1 - self.beta_2**n) ** 0.5 / (1 - self.beta_1**n)
        return rate * M / (V**0.5 + self.epsilon), {"mean": M, "square": V, "updates": n}
