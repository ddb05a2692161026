"""What `Problem` and `fit` ask of a network, a solver, a loss and an optimizer, for annotations.

Nothing needs to be derived from these classes: an object with these attributes is one of them. The
arguments are handed over by position, so their names are free. What a docstring calls optional is
asked for by some uses only; an object without it is as good in all others.

Letters: b samples, t parameters, r cotangents a sample; a tape is whatever ``forward`` wants to
remember for the passes that follow it.
"""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import DTypeLike

from .rows import OuterProductRows
from .validation import Array

OptimizerState: TypeAlias = dict[str, Any]  # arrays, numbers and text by name; see `checkpoint`


class Network(Protocol):
    """u = network(theta, x), such as `nets.MLP`.

    Optional: ``tangent(theta, tape, dtheta) -> du`` (b, |u|), for diagnostics and row factors in
    tiles; ``factor_shapes`` and ``part(tape, samples) -> tape`` for estimates of memory and the
    tiles that follow from them; ``pull(theta, tape, u_bar) -> x_bar``, (b, r, |u|) to (b, r, n_0),
    within a `solvers.Rollout`; see `nets.Network`.
    """

    @property
    def size(self) -> int:
        """Number t of parameters."""

    @property
    def input_size(self) -> int:
        """Width of the input."""

    @property
    def output_size(self) -> int:
        """|u|."""

    def init(self, rng: np.random.Generator, dtype: DTypeLike, /) -> Array:
        """Initial theta (t,), a NumPy array."""

    def forward(self, theta: Array, x: Array, /) -> tuple[Array, Any]:
        """u (b, |u|), and the tape."""

    def backward(self, theta: Array, tape: Any, u_bar: Array, /) -> Array:
        """(du/dtheta)^T u_bar (t,), summed over samples, for u_bar (b, |u|)."""

    def rows(self, theta: Array, tape: Any, S: Array, /) -> list[OuterProductRows]:
        """The rows of S du/dtheta, S (b, |y|, |u|), layer by layer; for optimizers that need J."""


class Solver(Protocol):
    """y = solver(x, u), sample by sample, such as `solvers.OscillatorChain`.

    Optional: ``tangent(x, u, du) -> dy`` (b, |y|), for diagnostics; ``tape_size``, for estimates
    of memory.
    """

    @property
    def state_size(self) -> int:
        """|x|."""

    @property
    def control_size(self) -> int:
        """|u|."""

    @property
    def output_size(self) -> int:
        """|y|."""

    def solve(self, x: Array, u: Array, /) -> Array:
        """Return y (b, |y|) for x (b, |x|) and u (b, |u|)."""

    def forward(self, x: Array, u: Array, /) -> tuple[Array, Any]:
        """The same y, and the tape."""

    def backward(self, tape: Any, y_bar: Array, /) -> Array:
        """(dy_i/du_i)^T y_bar_i of every sample, (b, |u|), for y_bar (b, |y|)."""

    def rows(self, tape: Any, /) -> Array:
        """S (b, |y|, |u|), S[i] = dy_i/du_i; for optimizers that need J."""


class Stepper(Protocol):
    """x_next = step(x, u), sample by sample, such as that of `solvers.OscillatorChain`.

    `solvers.Stepper` makes all of it from ``step`` and one derivative.
    """

    @property
    def state_size(self) -> int:
        """|x|."""

    @property
    def control_size(self) -> int:
        """|u|."""

    def step(self, x: Array, u: Array, /) -> Array:
        """Return x_next (b, |x|) for x (b, |x|) and u (b, |u|)."""

    def tangent(self, x: Array, u: Array, dx: Array, du: Array, /) -> Array:
        """A dx + B du (b, |x|), with the derivatives A and B of x_next in x and u."""

    def jacobian(self, x: Array, u: Array, /) -> tuple[Array, Array]:
        """A (b, |x|, |x|) and B (b, |x|, |u|), the derivatives of x_next in x and u."""

    def pull(self, x: Array, u: Array, next_bar: Array, /) -> tuple[Array, Array]:
        """x_bar (b, r, |x|) and u_bar (b, r, |u|) of cotangents next_bar (b, r, |x|)."""


class Loss(Protocol):
    """l(y, target) of one sample, such as `higcore.losses.SquaredError`.

    Optional: ``curvature``, the size of the second derivative, a number or an array (|y|,), or
    ``curvatures(y, target) -> (b, |y|)``, for `GaussNewton`, `LevenbergMarquardt`, `AdaptiveHIG`,
    `ScaleInvariantPhysics` and diagnostics; ``target_size(output_size) -> int``, if a target is not
    as wide as y.
    """

    def value(self, y: Array, target: Array, /) -> Array:
        """l of each sample, (b,)."""

    def gradient(self, y: Array, target: Array, /) -> Array:
        """dl/dy of each sample, (b, |y|)."""


class Samples(Protocol):
    """A batch: start states x (b, |x|), network inputs (b, n_0) and targets (b, |y|)."""

    @property
    def x(self) -> Array: ...

    @property
    def net_input(self) -> Array: ...

    @property
    def target(self) -> Array: ...


class Objective(Protocol):
    """What is linearised, such as a `Problem`: a model, a loss, and whether L is a mean.

    Optional: ``ridge``, the weight w of a penalty w/2 |theta|^2 in L.
    """

    @property
    def network(self) -> Any: ...

    @property
    def solver(self) -> Solver | None: ...

    @property
    def model(self) -> Any:
        """What gives y: the network and then the solver, or a `higcore.Model`."""

    @property
    def size(self) -> int:
        """Number t of parameters."""

    @property
    def output_size(self) -> int:
        """|y|."""

    @property
    def loss(self) -> Loss: ...

    @property
    def batch_mean(self) -> bool: ...

    @property
    def sample(self) -> Samples:
        """Training data to look at."""

    def check_batch(self, label: str, batch: Any, /) -> None:
        """Raise unless a batch fits."""


class Optimizer(Protocol):
    """theta <- theta - step, such as `HIG` and `Adam`.

    Optional: ``batch_for(problem) -> int``, the batch size that `fit` takes if none is named.
    """

    def init(self, theta: Array, /) -> OptimizerState:
        """State before the first update."""

    def update(
        self, linearisation: Any, state: OptimizerState, /
    ) -> tuple[Array, OptimizerState, Any]:
        """The step (t,), the next state, and what is to be said of the step, or None.

        It is handed a `Linearisation`, and asks it for what it needs.
        """


class GradientSource(Protocol):
    """What first-order optimizers ask of a `Linearisation`."""

    def gradient(self) -> Array:
        """dL/dtheta (t,)."""
