"""Chain of nonlinearly coupled oscillators under a scalar control (paper, 3.1 and B.2)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from higcore.backend import Array, empty, module_of
from higcore.kernels import RangeKernel
from higcore.validation import check_cotangents, check_count, check_like, check_real

from . import rk4
from .base import TapedSolver, check_tape, several
from .march import StepFunctions
from .stepper import StepOf


def acceleration(width, physics, q, u, a):
    """a_i = c_i u - q_i - f(q_i - q_(i-1)) - f(q_i - q_(i+1)),  f(d) = cubic d^3 + linear d."""
    control, cubic, linear = physics
    n = q.shape[0]
    for j in range(n):
        for i in range(width):
            a[j, i] = control[j] * u[i] - q[j, i]
    for j in range(n - 1):
        for i in range(width):
            d = q[j, i] - q[j + 1, i]
            force = (cubic * d * d + linear) * d
            a[j, i] -= force
            a[j + 1, i] += force


def acceleration_tangent(width, physics, q, dq, du, da):
    """da = a_q dq + a_u du; a spring's stiffness is f'(d) = 3 cubic d^2 + linear."""
    control, cubic, linear = physics
    n = q.shape[0]
    for j in range(n):
        for i in range(width):
            da[j, i] = control[j] * du[i] - dq[j, i]
    for j in range(n - 1):
        for i in range(width):
            d = q[j, i] - q[j + 1, i]
            dforce = (3.0 * cubic * d * d + linear) * (dq[j, i] - dq[j + 1, i])
            da[j, i] -= dforce
            da[j + 1, i] += dforce


def acceleration_adjoint(width, physics, q, a_bar, q_bar, u_bar):
    """q_bar = a_q^T a_bar (a_q is symmetric), u_bar += a_u^T a_bar."""
    control, cubic, linear = physics
    n = q.shape[0]
    for j in range(n):
        for i in range(width):
            q_bar[j, i] = -a_bar[j, i]
            u_bar[i] += control[j] * a_bar[j, i]
    for j in range(n - 1):
        for i in range(width):
            d = q[j, i] - q[j + 1, i]
            force_bar = (3.0 * cubic * d * d + linear) * (a_bar[j, i] - a_bar[j + 1, i])
            q_bar[j, i] -= force_bar
            q_bar[j + 1, i] += force_bar


def _solve(lo, hi, control, cubic, linear, h, U, X, *scratch):
    physics = control, cubic, linear
    rk4.solve(lo, hi, acceleration, physics, h, U, X, *scratch)


def _tangent(lo, hi, control, cubic, linear, h, U, dU, X, dX, *scratch):
    physics = control, cubic, linear
    rk4.tangent(lo, hi, acceleration, acceleration_tangent, physics, h, U, dU, X, dX, *scratch)


def _sweep(lo, hi, first, last, control, cubic, linear, h, U, X, X_bar, U_bar, *scratch):
    physics = control, cubic, linear
    rk4.sweep(
        lo, hi, first, last, acceleration, acceleration_adjoint, physics, h, U, X, X_bar, U_bar,
        *scratch,
    )  # fmt: skip


def _parts(numbers):
    """(control, cubic, linear) and the step, of the numbers of `StepFunctions`."""
    return (numbers[3:], numbers[1], numbers[2]), numbers[0]


def _advance(width, numbers, x, u, work):
    physics, h = _parts(numbers)
    q, a, _, _ = work
    rk4.stages(width, acceleration, physics, h, x, u[0], q, a)
    rk4.advance(width, h, x, a)


def _linearise(width, numbers, x, u, work):
    physics, h = _parts(numbers)
    q, a, _, _ = work
    rk4.stages(width, acceleration, physics, h, x, u[0], q, a)


def _pull(width, numbers, work, x_bar, u_bar):
    physics, h = _parts(numbers)
    q, _, a_bar, q_bar = work
    rk4.pull_step(width, acceleration_adjoint, physics, h, q, x_bar, u_bar[0], a_bar, q_bar)


SHORT = 1024  # steps of samples, some 50 us
SOLVE, TANGENT, SWEEP = RangeKernel(_solve), RangeKernel(_tangent), RangeKernel(_sweep)


@dataclass(frozen=True)
class OscillatorChain(TapedSolver):
    r"""Oscillators on a line, coupled to their neighbours, pushed by one control signal.

    .. math::
        \ddot q_i = -q_i - f(q_i - q_{i-1}) - f(q_i - q_{i+1}) + c_i u(t),
        \qquad f(d) = \text{cubic}\, d^3 + \text{linear}\, d

    integrated by the classical Runge-Kutta scheme, u constant over each step. These are the
    equations of motion of the paper's eq. 8 with cubic = 4 alpha (its eq. 20 prints one sign
    differently); the default cubic = 1 and the control on the last oscillator are those of the
    authors' code. Everything is in the paper's dimensionless units.

    Parameters
    ----------
    oscillators : int
        Number n of oscillators; the state (q_1..q_n, p_1..p_n) has |y| = 2n entries.
    steps : int
        Number of time steps, and of control values |u|.
    dt : float
        Time step.
    cubic, linear : float
        Coefficients of the coupling force.
    control : tuple of float
        The vector c of length n that says how the control acts on each oscillator.

    Notes
    -----
    ``x`` is the start state (b, 2n), ``u`` the control (b, steps), both float32 or both float64.
    Memory is linear in the batch: (steps + 1) 2n numbers a sample for the stored march and
    r steps for r cotangents pulled back.
    """

    oscillators: int = 2
    steps: int = 96
    dt: float = 0.125
    cubic: float = 1.0
    linear: float = 0.0
    control: tuple[float, ...] = (0.0, 3.0)

    def __post_init__(self) -> None:
        check_count("oscillators", self.oscillators)
        check_count("steps", self.steps)
        check_real("dt", self.dt, 0.0, open_low=True)
        check_real("cubic", self.cubic)
        check_real("linear", self.linear)
        if not isinstance(self.control, tuple):
            raise TypeError(f"control must be a tuple of numbers, got {self.control!r}")
        for c in self.control:
            check_real("control", c)
        if len(self.control) != self.oscillators:
            raise ValueError(
                f"control must have one entry for each of the {self.oscillators} oscillators, "
                f"got {len(self.control)}"
            )

    @property
    def state_size(self) -> int:
        """|x| and |y|: positions and momenta."""
        return 2 * self.oscillators

    output_size = state_size

    @property
    def control_size(self) -> int:
        """|u|: one control value a step."""
        return self.steps

    @property
    def tape_size(self) -> int:  # type: ignore[override]  # a plain attribute in `Solver`
        """Numbers a sample on the tape: all states, and the control."""
        return (self.steps + 1) * self.state_size + self.steps

    def forward(self, x: Array, u: Array) -> tuple[Array, tuple[Array, Array]]:
        """Return the final state y (b, 2n) and the tape that `backward` and `rows` need."""
        xp = self.check_inputs(x, u)
        march, u_t = self._march(xp, x, u)
        return xp.ascontiguousarray(march[-1].T), (march, u_t)

    def tangent(self, x: Array, u: Array, du: Array) -> Array:
        """Return dy (b, 2n), the derivative of the final state along du (b, steps)."""
        xp = self.check_inputs(x, u)
        check_like("du", du, u.shape, u=u)
        return self.tangent_of_both(x, u, xp.zeros_like(x), du)

    def tangent_of_both(self, x: Array, u: Array, dx: Array, du: Array) -> Array:
        """Return dy (b, 2n) along dx (b, 2n) and du (b, steps)."""
        xp = module_of(x)
        march, u_t = self._march(xp, x, u)
        dx_t = empty(xp, march[0].shape, x.dtype)
        dx_t[:] = dx.T
        du_t = xp.ascontiguousarray(du.T)
        physics = self._physics(xp, x.dtype)
        TANGENT(len(x), *physics, u_t, du_t, march, dx_t, scratch=self._tangent_scratch)
        return xp.ascontiguousarray(dx_t.T)

    def backward(self, tape: tuple[Array, Array], y_bar: Array) -> Array:
        """Pull cotangents back to the control: y_bar (b, 2n) or (b, r, 2n) to u_bar alike."""
        self._check_tape(tape)
        check_cotangents("y_bar", y_bar, tape[1].shape[1], self.state_size, tape=tape[0])
        u_bar, _ = self._sweep(tape, several(y_bar))
        return u_bar.reshape(*y_bar.shape[:-1], self.steps)

    def rows(self, tape: tuple[Array, Array]) -> Array:
        """Return S (b, 2n, steps), S[i] = dy_i/du_i, by one sweep over all 2n cotangents."""
        self._check_tape(tape)
        march, _ = tape
        xp = module_of(march)
        identity = xp.eye(self.state_size, dtype=march.dtype)
        return self._sweep(tape, xp.broadcast_to(identity, (march.shape[-1], *identity.shape)))[0]

    def stepper(self) -> StepOf:
        """Return the physics of one step, for a `Rollout` with the network inside the time loop."""
        return StepOf(replace(self, steps=1))

    def step_functions(self) -> StepFunctions | None:
        """Return the physics of one step as functions that a kernel calls; None of a subclass."""
        if type(self) is not OscillatorChain:
            return None
        numbers = self.dt, self.cubic, self.linear, *self.control
        return StepFunctions(_advance, _linearise, _pull, numbers, self._step_work)

    def _step_work(self, width):
        """Positions and accelerations of the stages, and their cotangents."""
        stages = (4, self.oscillators, width)
        return stages, stages, stages, (self.oscillators, width)

    def trajectory(self, x: Array, u: Array) -> Array:
        """Return the states at all times, (b, steps + 1, 2n), start included."""
        march, _ = self.forward(x, u)[1]
        return march.transpose(2, 0, 1)

    def pull_both(self, x: Array, u: Array, y_bar: Array) -> tuple[Array, Array]:
        """Return x_bar (b, r, 2n) and u_bar (b, r, steps) of cotangents y_bar (b, r, 2n)."""
        u_bar, x_bar = self._sweep(self.forward(x, u)[1], y_bar)
        return x_bar, u_bar

    def _march(self, xp, x, u):
        """All states (steps + 1, 2n, b), and u.T (steps, b): samples last, as kernels want them."""
        march = empty(xp, (self.steps + 1, self.state_size, len(x)), x.dtype)
        march[0] = x.T
        u_t = xp.ascontiguousarray(u.T)
        physics, alone = self._physics(xp, x.dtype), self._is_short(len(x))
        SOLVE(len(x), *physics, u_t, march, scratch=self._scratch, alone=alone)
        return march, u_t

    def _sweep(self, tape, cotangents):
        """(b, r, 2n) cotangents to those of control (b, r, steps) and start state (b, r, 2n)."""
        march, u_t = tape
        xp = module_of(march)
        b, r, _ = cotangents.shape
        x_bar = empty(xp, (r, self.state_size, b), march.dtype)
        x_bar[:] = cotangents.transpose(1, 2, 0)
        u_bar = empty(xp, (r, self.steps, b), march.dtype)
        physics = self._physics(xp, march.dtype)
        SWEEP(
            b, *physics, u_t, march, x_bar, u_bar,
            scratch=self._sweep_scratch, cotangents=r, alone=self._is_short(b * r),
        )  # fmt: skip
        return xp.ascontiguousarray(u_bar.transpose(2, 0, 1)), x_bar.transpose(2, 0, 1)

    def _is_short(self, count):
        """Whether to wake another thread takes longer than the marches of so many samples."""
        return self.steps * count <= SHORT

    def _check_tape(self, tape):
        check_tape(tape, (self.steps + 1, self.state_size, "b"), (self.steps, "b"))

    def _physics(self, xp, dtype):
        scalar = np.dtype(dtype).type
        control = xp.asarray(self.control, dtype)
        return control, scalar(self.cubic), scalar(self.linear), scalar(self.dt)

    def _scratch(self, width, _):
        """State, control, positions and accelerations of the stages of ``width`` samples."""
        stages = (4, self.oscillators, width)
        return (self.state_size, width), (1, width), stages, stages

    def _tangent_scratch(self, width, _):
        return 2 * self._scratch(width, _)

    def _sweep_scratch(self, width, r):
        stages = (4, self.oscillators, width)
        adjoints = (r, self.state_size, width), (1, width), stages, (self.oscillators, width)
        return *self._scratch(width, r), *adjoints
