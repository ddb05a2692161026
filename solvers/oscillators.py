"""Chain of nonlinearly coupled oscillators under a scalar control (paper, 3.1 and B.2)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba.extending import register_jitable

from higcore.backend import array_module, empty
from higcore.kernels import RangeKernel
from higcore.validation import check_array, check_count, check_real

from . import rk4
from .base import Solver


@register_jitable
def acceleration(lo, hi, physics, q, u, a):
    """a_i = c_i u - q_i - f(q_i - q_(i-1)) - f(q_i - q_(i+1)),  f(d) = cubic d^3 + linear d."""
    control, cubic, linear = physics
    n = q.shape[0]
    for j in range(n):
        for i in range(lo, hi):
            a[j, i] = control[j] * u[i] - q[j, i]
    for j in range(n - 1):
        for i in range(lo, hi):
            d = q[j, i] - q[j + 1, i]
            force = (cubic * d * d + linear) * d
            a[j, i] -= force
            a[j + 1, i] += force


@register_jitable
def acceleration_tangent(lo, hi, physics, q, dq, du, da):
    """da = a_q dq + a_u du; a spring's stiffness is f'(d) = 3 cubic d^2 + linear."""
    control, cubic, linear = physics
    n = q.shape[0]
    for j in range(n):
        for i in range(lo, hi):
            da[j, i] = control[j] * du[i] - dq[j, i]
    for j in range(n - 1):
        for i in range(lo, hi):
            d = q[j, i] - q[j + 1, i]
            dforce = (3.0 * cubic * d * d + linear) * (dq[j, i] - dq[j + 1, i])
            da[j, i] -= dforce
            da[j + 1, i] += dforce


@register_jitable
def acceleration_adjoint(lo, hi, physics, q, a_bar, q_bar, u_bar):
    """q_bar = a_q^T a_bar (a_q is symmetric), u_bar += a_u^T a_bar."""
    control, cubic, linear = physics
    n = q.shape[0]
    for j in range(n):
        for i in range(lo, hi):
            q_bar[j, i] = -a_bar[j, i]
            u_bar[i] += control[j] * a_bar[j, i]
    for j in range(n - 1):
        for i in range(lo, hi):
            d = q[j, i] - q[j + 1, i]
            force_bar = (3.0 * cubic * d * d + linear) * (a_bar[j, i] - a_bar[j + 1, i])
            q_bar[j, i] -= force_bar
            q_bar[j + 1, i] += force_bar


def _solve(lo, hi, control, cubic, linear, h, u, x, q, a):
    physics = control, cubic, linear
    rk4.solve(lo, hi, acceleration, physics, h, u, x, q, a)


def _tangent(lo, hi, control, cubic, linear, h, u, du, x, q, a, dx, dq, da):
    physics = control, cubic, linear
    rk4.tangent(lo, hi, acceleration, acceleration_tangent, physics, h, u, du, x, q, a, dx, dq, da)


def _sweep(lo, hi, control, cubic, linear, h, u, x, q, a, x_bar, a_bar, q_bar, u_bar):
    physics = control, cubic, linear
    rk4.sweep(
        lo, hi, acceleration, acceleration_adjoint, physics, h, u, x, q, a,
        x_bar, a_bar, q_bar, u_bar,
    )  # fmt: skip


SOLVE, TANGENT, SWEEP = RangeKernel(_solve), RangeKernel(_tangent), RangeKernel(_sweep)


@dataclass(frozen=True)
class OscillatorChain(Solver):
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

    def __post_init__(self):
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
    def state_size(self):
        """|x| and |y|: positions and momenta."""
        return 2 * self.oscillators

    @property
    def control_size(self):
        """|u|: one control value a step."""
        return self.steps

    @property
    def output_size(self):
        """|y|, the size of the final state."""
        return self.state_size

    @property
    def tape_size(self):
        """Numbers a sample on the tape: all states, and the control."""
        return (self.steps + 1) * self.state_size + self.steps

    def forward(self, x, u):
        """Return the final state y (b, 2n) and the tape that `backward` and `rows` need."""
        xp = self.check_inputs(x, u)
        b = len(x)
        march = empty(xp, (self.steps + 1, self.state_size, b), x.dtype)
        march[0] = x.T
        u_t = xp.ascontiguousarray(u.T)  # (steps, b): samples last, as the kernels want them
        SOLVE(b, *self._physics(xp, x.dtype), u_t, march, *self._stages(xp, x, 2))
        return xp.ascontiguousarray(march[-1].T), (march, u_t)

    def tangent(self, x, u, du):
        """Return dy (b, 2n), the derivative of the final state along du (b, steps)."""
        xp = self.check_inputs(x, u)
        check_array("du", du, (len(x), self.steps))
        _, (march, u_t) = self.forward(x, u)
        dx = xp.zeros((self.state_size, len(x)), x.dtype)
        q, a, dq, da = self._stages(xp, x, 4)
        du_t = xp.ascontiguousarray(du.T)
        TANGENT(len(x), *self._physics(xp, x.dtype), u_t, du_t, march, q, a, dx, dq, da)
        return xp.ascontiguousarray(dx.T)

    def backward(self, tape, y_bar):
        """Pull cotangents back to the control: y_bar (b, 2n) or (b, r, 2n) to u_bar alike."""
        march, u_t = tape
        xp = array_module(march=march, y_bar=y_bar)
        rows = y_bar if y_bar.ndim == 3 else y_bar[:, None, :]  # (b, r, 2n)
        b, r, _ = rows.shape
        u_bar = empty(xp, (r, self.steps, b), march.dtype)
        x_bar = empty(xp, (r, self.state_size, b), march.dtype)
        x_bar[:] = rows.transpose(1, 2, 0)
        q, a, a_bar = self._stages(xp, x_bar[0].T, 3)
        q_bar = empty(xp, (self.oscillators, b), march.dtype)
        physics = self._physics(xp, march.dtype)
        SWEEP(b, *physics, u_t, march, q, a, x_bar, a_bar, q_bar, u_bar)
        return xp.ascontiguousarray(u_bar.transpose(2, 0, 1)).reshape(*y_bar.shape[:-1], self.steps)

    def rows(self, tape):
        """Return S (b, 2n, steps), S[i] = dy_i/du_i, by one sweep over all 2n cotangents."""
        march, _ = tape
        xp = array_module(march=march)
        identity = xp.eye(self.state_size, dtype=march.dtype)
        return self.backward(tape, xp.broadcast_to(identity, (march.shape[-1], *identity.shape)))

    def trajectory(self, x, u):
        """Return the states at all times, (b, steps + 1, 2n), start included."""
        march, _ = self.forward(x, u)[1]
        return march.transpose(2, 0, 1)

    def _physics(self, xp, dtype):
        scalar = np.dtype(dtype).type
        control = xp.asarray(self.control, dtype)
        return control, scalar(self.cubic), scalar(self.linear), scalar(self.dt)

    def _stages(self, xp, x, count):
        """Uninitialised (4, n, b) scratch arrays."""
        shape = (4, self.oscillators, len(x))
        return tuple(empty(xp, shape, x.dtype) for _ in range(count))
