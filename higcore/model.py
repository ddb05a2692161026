"""What is trained, as a function of its parameters: a network, then a solver; and other models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from .backend import Array, module_of
from .linearisation import StackedJacobian, check_output
from .protocols import Network, Samples, Solver


class Model:
    """y = model(theta, batch), where it is more than a network and then a solver.

    A subclass, such as `solvers.Rollout`, has the numbers ``size`` (t parameters), ``state_size``,
    ``input_size`` and ``output_size`` (widths of x, of the network's input and of y) and gives

    - ``init(rng, dtype) -> theta`` (t,),
    - ``forward(theta, batch) -> (y, tape)``, y (b, |y|),
    - ``backward(theta, tape, y_bar) -> theta_bar`` (t,), summed over samples,
    - ``tangent(theta, tape, dtheta) -> dy`` (b, |y|),
    - ``rows(theta, tape, S) -> list of OuterProductRows``, for cotangents S (b, r, |y|),

    and, for estimates of memory and for row factors in tiles, ``factor_shapes`` and
    ``part(tape, samples) -> tape``, as a `higcore.protocols.Network` has them, and numbers a
    sample: ``tape_size`` that the tape holds, ``passing_size`` that a pass back takes beside it.
    """

    tape_size: int = 0
    passing_size: int = 0
    size: int
    state_size: int
    input_size: int
    output_size: int

    @property
    def kept_size(self) -> int:
        """Numbers a sample of the tape alone, where no J is made."""
        return self.tape_size

    def predict(self: Any, theta: Array, batch: Samples) -> tuple[Any, Array]:
        """Return what controls there are, here None, and y (b, |y|)."""
        return None, self.forward(theta, batch)[0]

    def jacobian(
        self: Any, theta: Array, tape: Any, y: Array, tile: int | None = None
    ) -> StackedJacobian:
        """Return J: a network that ends in y itself, so that S_i is the identity."""
        xp, (b, size) = module_of(y), y.shape
        S = xp.broadcast_to(xp.eye(size, dtype=y.dtype), (b, size, size))
        return StackedJacobian(self, theta, tape, S, tile)


class Passed(NamedTuple):
    """The tape of a network and then a solver."""

    x: Array
    control: Array
    network: Any
    solver: Any


class NetworkThenSolver:
    """y = solver(x, network(theta, input)): u is found once, before the physics begins."""

    def __init__(self, network: Network, solver: Solver) -> None:
        self.network, self.solver = network, solver

    @property
    def factor_shapes(self) -> Any:
        """Those of the network; AttributeError if it has none, as they are optional."""
        network: Any = self.network
        return network.factor_shapes

    @property
    def size(self) -> int:
        """Number t of parameters."""
        return self.network.size

    @property
    def input_size(self) -> int:
        """Width of the network's input."""
        return self.network.input_size

    @property
    def state_size(self) -> int:
        """|x|."""
        return self.solver.state_size

    @property
    def output_size(self) -> int:
        """|y|."""
        return self.solver.output_size

    @property
    def kept_size(self) -> int:
        """Numbers a sample that the solver keeps for a pass back."""
        kept: int = getattr(self.solver, "tape_size", 0)  # which is optional in a `Solver`
        return kept

    @property
    def tape_size(self) -> int:
        """The same with S and what S is made in."""
        return self.kept_size + 2 * self.output_size * self.solver.control_size

    def predict(self, theta: Array, batch: Samples) -> tuple[Array, Array]:
        """Return u (b, |u|) and y (b, |y|); no tape is made."""
        u, _ = self.network.forward(theta, batch.net_input)
        y = self.solver.solve(batch.x, u)
        check_output("solve", y, u, self.solver)
        return u, y

    def forward(self, theta: Array, batch: Samples) -> tuple[Array, Passed]:
        """Return y (b, |y|) and the tapes of both."""
        u, net_tape = self.network.forward(theta, batch.net_input)
        y, tape = self.solver.forward(batch.x, u)
        check_output("forward", y, u, self.solver)
        return y, Passed(batch.x, u, net_tape, tape)

    def tangent(self, theta: Array, tape: Passed, dtheta: Array) -> Array:
        """Return dy (b, |y|)."""
        network: Any = self.network  # `tangent` is optional in a `Network`
        solver: Any = self.solver  # and in a `Solver`
        du = network.tangent(theta, tape.network, dtheta)
        return solver.tangent(tape.x, tape.control, du)

    def backward(self, theta: Array, tape: Passed, y_bar: Array) -> Array:
        """Return theta_bar (t,): one pass back through the solver, then the network."""
        return self.network_gradient(theta, tape, self.solver.backward(tape.solver, y_bar))

    def network_gradient(self, theta: Array, tape: Passed, u_bar: Array) -> Array:
        """Return (du/dtheta)^T u_bar (t,), u_bar (b, |u|): one pass back through the network."""
        return self.network.backward(theta, tape.network, u_bar)

    def control(self, tape: Passed) -> Array:
        """Return u (b, |u|)."""
        return tape.control

    def solver_rows(self, tape: Passed) -> Array:
        """Return S (b, |y|, |u|), S[i] = dy_i/du_i."""
        return self.solver.rows(tape.solver)

    def jacobian(
        self, theta: Array, tape: Passed, y: Array, tile: int | None = None
    ) -> StackedJacobian:
        """Return J, for which the network pulls the rows of the solver back."""
        return StackedJacobian(self.network, theta, tape.network, self.solver_rows(tape), tile)


class WithControl:
    """A solver whose y is followed by the control that led to it: (y, u), (b, |y| + |u|).

    So a loss may look at both; see `Problem.penalised`.
    """

    def __init__(self, solver: Solver) -> None:
        self.solver = solver
        self.state_size: int = solver.state_size
        self.control_size: int = solver.control_size
        self.output_size: int = solver.output_size + solver.control_size
        self.tape_size: int = getattr(solver, "tape_size", 0) + solver.control_size

    def __repr__(self) -> str:
        return f"WithControl({self.solver!r})"

    def solve(self, x: Array, u: Array) -> Array:
        """Return y and u (b, |y| + |u|)."""
        return _beside(self.solver.solve(x, u), u)

    def forward(self, x: Array, u: Array) -> tuple[Array, Any]:
        """Return the same, and the solver's tape."""
        y, tape = self.solver.forward(x, u)
        return _beside(y, u), tape

    @property
    def tangent(self) -> Callable[[Array, Array, Array], Array]:
        """(x, u, du) -> (dy, du); AttributeError where the solver has none, as it is optional."""
        solver: Any = self.solver
        of_solver = solver.tangent
        return lambda x, u, du: _beside(of_solver(x, u, du), du)

    def backward(self, tape: Any, y_bar: Array) -> Array:
        """Return u_bar (b, |u|) of y_bar (b, |y| + |u|), or r of both a sample."""
        wide = self.solver.output_size
        return self.solver.backward(tape, y_bar[..., :wide]) + y_bar[..., wide:]

    def rows(self, tape: Any) -> Array:
        """Return S over the identity (b, |y| + |u|, |u|)."""
        S = self.solver.rows(tape)
        xp, (b, _, size) = module_of(S), S.shape
        identity = xp.broadcast_to(xp.eye(size, dtype=S.dtype), (b, size, size))
        return xp.concatenate([S, identity], axis=1)


def _beside(y, u):
    return module_of(y).concatenate([y, u], axis=1)
