"""The Kuramoto-Sivashinsky equation with actuators: a chaotic field on a ring."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np

from higcore.backend import Array, is_host, module_of
from higcore.device.threads import blas_limits, run_threaded
from higcore.validation import (
    check_arrays,
    check_cotangents,
    check_count,
    check_like,
    check_real,
)

from .base import TapedSolver, several
from .stepper import StepOf

GAMMA = 1 - 0.5**0.5
DELTA = 1 - 1 / (2 * GAMMA)
LONGEST = 13.0  # step; from 4 / GAMMA on, a wave that grows would have no inverse
AT_ONCE = 2**14  # numbers in one array of a sweep on the host: they stay in a core's cache


@dataclass(frozen=True)
class KuramotoSivashinsky(TapedSolver):
    r"""y_t = -y_xx - y_xxxx - y y_x + sum_k u_k b_k(x), periodic, from a start state to an end.

    The linear part of the rate is implicit, the rest N explicit, in the two stages of second order
    of Ascher, Ruuth and Spiteri's (2,2,2),

    .. math::

        Y &= (1 - \gamma h \mathcal L)^{-1} \bigl(y + \gamma h N(y)\bigr),
        \qquad \mathcal L = -\partial_x^2 - \partial_x^4, \\
        y^+ &= (1 - \gamma h \mathcal L)^{-1} \bigl(y + (1 - \gamma) h \mathcal L Y
        + \delta h N(y) + (1 - \delta) h N(Y)\bigr), \\
        N(y) &= -\tfrac12 \partial_x (y^2) + \sum_k u_k b_k, \qquad
        \gamma = 1 - \sqrt{\tfrac12}, \quad \delta = 1 - \tfrac1{2 \gamma}.

    Derivatives in x are those of the trigonometric interpolant, so with states as rows a step is a
    few products with symmetric or antisymmetric matrices (n, n): G is the inverse above, K =
    (1 - gamma) h L G, D the derivative:

    .. code-block:: text

        forward   Y    = (y + gamma h N(y)) G
                  y+   = (y + delta h N(y) + (1 - delta) h N(Y)) G + Y K
        tangent   dN   = -(y dy) D + du B,   and the same with dN and dY
        adjoint   mu   = y+_bar G
                  Ybar = y+_bar K + (1 - delta) h Y (mu D)
                  nu   = Ybar G
                  ybar = mu + nu + y ((delta h mu + gamma h nu) D)
                  ubar += h (mu + gamma nu) B^T

    with products of fields point by point. On a CPU, these matrices take as long as Fourier
    transforms of 32 points, and four times as long as those of 128.

    Parameters
    ----------
    points : int
        n = |x| = |y|, equally spaced. Unforced on a length of 22, 32 suffice to resolve the field.
    length : float
        Of the ring. Rest is unstable where it is more than 2 pi; at 22 the field is chaotic.
    dt : float
        Time step h, at most 13. On the attractor on a ring of 22, an error of 1 % in 10 units of
        time with 1/4, of 0.3 % with 1/8.
    steps : int
        Time steps for which a control does not change.
    intervals : int
        Such spans, one after the other.
    actuators : int
        How many bumps b_k there are, equally spaced, the first one at x = 0.
    width : float
        Their standard deviation w: b_k(x) = exp((cos(2 pi (x - x_k) / length) - 1) / s^2) with
        s = 2 pi w / length, less its mean.

    Notes
    -----
    ``x`` is the start state (b, n), ``u`` (b, intervals actuators) all amplitudes of the first
    interval, then those of the next; both float32 or both float64. The mean of y never changes, as
    the actuators only move what is there.

    Memory: (intervals steps + 1) n numbers a sample for the stored march, r (n + |u|) for r
    cotangents pulled back, and on the host less than a MB a core. `rows` pulls all n back together.

    References
    ----------
    Ascher, Ruuth and Spiteri, Implicit-explicit Runge-Kutta methods for time-dependent partial
    differential equations, Appl. Numer. Math. 25 (1997) 151.

    Examples
    --------
    >>> ring = KuramotoSivashinsky(points=32, intervals=3)
    >>> x, u = np.zeros((1, 32)), np.ones((1, 24))
    >>> y, S = ring.jacobian(x, u)
    >>> y.shape, S.shape
    ((1, 32), (1, 32, 24))
    """

    points: int = 64
    length: float = 22.0
    dt: float = 0.125
    steps: int = 8
    intervals: int = 20
    actuators: int = 8
    width: float = 1.0

    def __post_init__(self) -> None:
        check_count("points", self.points, 4)
        check_real("length", self.length, 0.0, open_low=True)
        check_real("dt", self.dt, 0.0, LONGEST, open_low=True)
        check_count("steps", self.steps)
        check_count("intervals", self.intervals)
        check_count("actuators", self.actuators)
        check_real("width", self.width, 0.0, open_low=True)

    @property
    def state_size(self) -> int:
        """|x| and |y|: one value a point."""
        return self.points

    output_size = state_size

    @property
    def control_size(self) -> int:
        """|u|: one amplitude for each interval and actuator."""
        return self.intervals * self.actuators

    @property
    def tape_size(self) -> int:  # type: ignore[override]  # a plain attribute in `Solver`
        """Numbers a sample on the tape: all states, and the control."""
        return (self._all_steps + 1) * self.points + self.control_size

    @property
    def positions(self) -> np.ndarray:
        """The points (n,)."""
        return self.length / self.points * np.arange(self.points)

    @property
    def bumps(self) -> np.ndarray:
        """B (actuators, n): b_k at the points; each has the mean 0."""
        centres = self.length / self.actuators * np.arange(self.actuators)
        angle = 2 * np.pi / self.length * (self.positions - centres[:, None])
        bumps = np.exp((np.cos(angle) - 1) / (2 * np.pi * self.width / self.length) ** 2)
        centred: np.ndarray = bumps - bumps.mean(axis=1, keepdims=True)
        return centred

    def forward(self, x: Array, u: Array) -> tuple[Array, tuple[Array, Array]]:
        """Return the final state y (b, n) and the tape that `backward` and `rows` need."""
        march = self._march(self.check_inputs(x, u), x, u)
        return march[-1].copy(), (march, u)

    def tangent(self, x: Array, u: Array, du: Array) -> Array:
        """Return dy (b, n), the derivative of the final state along du (b, |u|)."""
        xp = self.check_inputs(x, u)
        check_like("du", du, u.shape, u=u)
        return self.tangent_of_both(x, u, xp.zeros_like(x), du)

    def tangent_of_both(self, x: Array, u: Array, dx: Array, du: Array) -> Array:
        """Return dy (b, n) along dx (b, n) and du (b, |u|)."""
        ring = self._ring(module_of(x), x.dtype)
        y, dy = x, dx
        with blas_limits():
            for push, dpush in zip(self._pushes(u, ring), self._pushes(du, ring), strict=True):
                for _ in range(self.steps):
                    dy = ring.step_tangent(y, push, dy, dpush)
                    y = ring.step(y, push)
        return dy

    def backward(self, tape: tuple[Array, Array], y_bar: Array) -> Array:
        """Pull cotangents back to the control: y_bar (b, n) or (b, r, n) to u_bar alike."""
        self._check_tape(tape)
        check_cotangents("y_bar", y_bar, len(tape[1]), self.points, tape=tape[0])
        _, u_bar = self._sweep(tape, several(y_bar))
        return u_bar.reshape(*y_bar.shape[:-1], self.control_size)

    def rows(self, tape: tuple[Array, Array]) -> Array:
        """Return S (b, n, |u|), S[i] = dy_i/du_i, by one sweep over all n cotangents."""
        self._check_tape(tape)
        _, u = tape
        xp, n = module_of(u), self.points
        return self._sweep(tape, xp.broadcast_to(xp.eye(n, dtype=u.dtype), (len(u), n, n)))[1]

    def stepper(self) -> StepOf:
        """Return one interval, for a `Rollout` with the network inside the time loop."""
        return OneInterval(replace(self, intervals=1))

    def trajectory(self, x: Array, u: Array) -> Array:
        """Return the states at all times, (b, intervals steps + 1, n), start included."""
        return self._march(self.check_inputs(x, u), x, u).swapaxes(0, 1)

    def pull_both(self, x: Array, u: Array, y_bar: Array) -> tuple[Array, Array]:
        """Return x_bar (b, r, n) and u_bar (b, r, |u|) of cotangents y_bar (b, r, n)."""
        x_bar, u_bar = self._sweep((self._march(module_of(x), x, u), u), y_bar)
        return x_bar, u_bar

    @property
    def _all_steps(self) -> int:
        return self.intervals * self.steps

    def _ring(self, xp, dtype):
        """A step, with its matrices on the device of ``xp``."""
        G, K, D = (xp.asarray(M, dtype) for M in matrices(self.points, self.length, self.dt))
        return Ring(self.dt, G, K, D, xp.asarray(self.bumps, dtype))

    def _pushes(self, u, ring):
        """The force (b, n) of each interval's control."""
        return [u[:, k : k + self.actuators] @ ring.B for k in self._offsets()]

    def _offsets(self):
        """Where each interval's amplitudes begin in u."""
        return range(0, self.control_size, self.actuators)

    def _march(self, xp, x, u):
        """All states (intervals steps + 1, b, n)."""
        march = xp.empty((self._all_steps + 1, *x.shape), x.dtype)
        march[0] = x
        ring, s = self._ring(xp, x.dtype), 0
        with blas_limits():  # threads would wait for each other longer than such products take
            for push in self._pushes(u, ring):
                for _ in range(self.steps):
                    march[s + 1] = ring.step(march[s], push)
                    s += 1
        return march

    def _sweep(self, tape, y_bar):
        """Cotangents of start state (b, r, n) and control (b, r, |u|) of y_bar (b, r, n)."""
        (march, u), (b, r, n) = tape, y_bar.shape
        ring, xp = self._ring(module_of(u), u.dtype), module_of(u)
        x_bar, u_bar = xp.empty((b, r, n), u.dtype), xp.empty((b, r, u.shape[1]), u.dtype)
        size = max(1, AT_ONCE // (r * n)) if is_host(u) else b

        def sweep(lo):
            some = slice(lo, lo + size)
            of_some = ring, march[:, some], u[some], y_bar[some], u_bar[some]
            x_bar[some] = self._sweep_back(*of_some)

        with blas_limits():
            run_threaded(sweep, range(0, b, size))
        return x_bar, u_bar

    def _sweep_back(self, ring, march, u, y_bar, u_bar):
        """x_bar (b, r, n); u_bar (b, r, |u|) is written to."""
        s, pushes = self._all_steps, self._pushes(u, ring)
        for push, k in zip(reversed(pushes), reversed(self._offsets()), strict=True):
            push_bar = 0
            for _ in range(self.steps):
                s -= 1
                y_bar, of_push = ring.step_adjoint(march[s], push, y_bar)
                push_bar = push_bar + of_push
            u_bar[:, :, k : k + self.actuators] = push_bar @ ring.B.T
        return y_bar

    def _check_tape(self, tape):
        if not isinstance(tape, tuple) or len(tape) != 2:
            raise TypeError("tape must be what forward of this solver returned beside y")
        march, u = tape
        states = (self._all_steps + 1, "b", self.points)
        check_arrays(march=(march, states), u=(u, ("b", self.control_size)))


@dataclass(frozen=True)
class OneInterval(StepOf):
    """One interval of many steps, so that A and B cost more than the calls that they save."""

    largest_closed: ClassVar[int] = 0


@dataclass(frozen=True, eq=False)
class Ring:
    """One step of the states (b, n), or of their tangents and of r cotangents each, (b, r, n).

    ``push`` (b, n) is the force of the actuators, G, K, D (n, n) and B (actuators, n) as in
    `KuramotoSivashinsky`.
    """

    h: float
    G: Any
    K: Any
    D: Any
    B: Any

    def step(self, y: Array, push: Array) -> Array:
        """y+ (b, n)."""
        h, N = self.h, self.rate(y, push)
        Y = self.stage(y, N)
        explicit = DELTA * h * N + (1 - DELTA) * h * self.rate(Y, push)
        return (y + explicit) @ self.G + Y @ self.K

    def step_tangent(self, y: Array, push: Array, dy: Array, dpush: Array) -> Array:
        """dy+ (b, n) along dy and dpush (b, n)."""
        h, dN = self.h, dpush - (y * dy) @ self.D
        Y, dY = self.stage(y, self.rate(y, push)), self.stage(dy, dN)
        explicit = DELTA * h * dN + (1 - DELTA) * h * (dpush - (Y * dY) @ self.D)
        return (dy + explicit) @ self.G + dY @ self.K

    def step_adjoint(self, y: Array, push: Array, next_bar: Array) -> tuple[Array, Array]:
        """y_bar and push_bar (b, r, n) of next_bar (b, r, n)."""
        h, Y = self.h, self.stage(y, self.rate(y, push))
        mu = next_bar @ self.G
        nu = (next_bar @ self.K + (1 - DELTA) * h * Y[:, None] * (mu @ self.D)) @ self.G
        push_bar = h * (mu + GAMMA * nu)
        through_rate = y[:, None] * ((DELTA * h * mu + GAMMA * h * nu) @ self.D)
        return mu + nu + through_rate, push_bar

    def rate(self, y: Array, push: Array) -> Array:
        """N(y) (b, n)."""
        return push - (y * y) @ self.D / 2

    def stage(self, y: Array, N: Array) -> Array:
        """Y (b, n)."""
        return (y + GAMMA * self.h * N) @ self.G


@lru_cache(maxsize=16)  # asked for at every step of a loop
def matrices(n: int, length: float, h: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """G, K and D (n, n) for states that are rows, in float64 and not to be written to."""
    k = 2 * np.pi / length * np.fft.rfftfreq(n, 1 / n)
    linear = k**2 - k**4
    inverse = 1 / (1 - GAMMA * h * linear)
    slope = 1j * k
    if n % 2 == 0:
        slope[-1] = 0  # the derivative of the fastest wave is 0 at the points
    found = []
    for symbol in (inverse, (1 - GAMMA) * h * linear * inverse, slope):
        M = np.fft.irfft(symbol * np.fft.rfft(np.eye(n)), n)  # row i: what becomes of point i
        M.setflags(write=False)
        found.append(M)
    return found[0], found[1], found[2]
