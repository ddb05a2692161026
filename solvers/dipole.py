r"""A quantum particle in a box under a time-dependent dipole field (paper, 3.3 and B.4).

One Crank-Nicolson step of i psi' = (-Laplacian + u x) psi is

    A psi_(s+1) = (2 I - A) psi_s,    A = I + i (dt/2) H(u_s),

that is psi_(s+1) = 2 phi_s - psi_s with A phi_s = psi_s. A = A^T, so the step U = 2 A^(-1) - I is
symmetric as well as unitary, and everything follows from the same tridiagonal solve:

    tangent   dpsi_(s+1) = 2 A^(-1) (dpsi_s - i (dt/2) du_s x phi_s) - dpsi_s
    adjoint   omega_s    = 2 A^(-1) omega_(s+1) - omega_(s+1),   omega = conj(cotangent),
              u_bar_s    = (dt/2) Im sum_j (2 A^(-1) omega_(s+1))_j x_j phi_s,j

and phi_s = (psi_s + psi_(s+1)) / 2 needs no second solve. The cotangent i w of an imaginary part
has omega -i times that of the real part, so one complex sweep serves two rows of the Jacobian:
Im becomes -Re.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from higcore.backend import Array, empty, module_of
from higcore.kernels import RangeKernel
from higcore.validation import check_cotangents, check_count, check_like, check_real

from . import tridiagonal
from .base import TapedSolver, check_tape, several
from .samples import load, store
from .stepper import StepOf


def factor(width, physics, u, e, g):
    """Inverse pivots g of A for the control u (width,); e is scratch (n, width)."""
    half, kappa, position = physics
    for j in range(e.shape[0]):
        for i in range(width):
            e[j, i] = 2.0 * kappa + half * position[j] * u[i]
    tridiagonal.invert_pivots(width, kappa, e, g)


def crank_nicolson(width, kappa, g, phi, psi):
    """psi <- 2 A^(-1) psi - psi; phi = A^(-1) psi is left for the caller."""
    tridiagonal.solve(width, kappa, g, psi, phi)
    for c in range(2):
        for j in range(psi.shape[1]):
            for i in range(width):
                psi[c, j, i] = 2.0 * phi[c, j, i] - psi[c, j, i]


def load_state(lo, width, source, target):
    """Copy some samples of source (2, n, b) to target (2, n, width)."""
    for c in range(2):
        load(lo, width, source[c], target[c])


def store_state(lo, width, source, target):
    """Copy source (2, n, width) to its samples in target (2, n, b)."""
    for c in range(2):
        store(lo, width, source[c], target[c])


def _solve(lo, hi, half, kappa, position, U, PSI, u, psi, phi, e, g):
    """March PSI[0] through U (steps, b); PSI (slots, 2, n, b) may hold fewer slots than steps."""
    width = hi - lo
    load_state(lo, width, PSI[0], psi)
    for s in range(U.shape[0]):
        load(lo, width, U[s : s + 1], u)
        factor(width, (half, kappa, position), u[0], e, g)
        crank_nicolson(width, kappa, g, phi, psi)
        store_state(lo, width, psi, PSI[(s + 1) % PSI.shape[0]])


def _tangent(lo, hi, half, kappa, position, U, dU, PSI, dPSI, u, psi, phi, e, g, du, source, dpsi):
    """Turn dPSI (2, n, b) of the start state into that of the final one, along dU (steps, b)."""
    width = hi - lo
    load_state(lo, width, dPSI, dpsi)
    for s in range(U.shape[0]):
        load(lo, width, U[s : s + 1], u)
        load(lo, width, dU[s : s + 1], du)
        factor(width, (half, kappa, position), u[0], e, g)
        two_phi(lo, width, PSI, s, psi)
        for j in range(position.shape[0]):
            for i in range(width):
                push = half * du[0, i] * position[j] / 2.0
                source[0, j, i] = dpsi[0, j, i] + push * psi[1, j, i]
                source[1, j, i] = dpsi[1, j, i] - push * psi[0, j, i]
        tridiagonal.solve(width, kappa, g, source, phi)
        for c in range(2):
            for j in range(position.shape[0]):
                for i in range(width):
                    dpsi[c, j, i] = 2.0 * phi[c, j, i] - dpsi[c, j, i]
    store_state(lo, width, dpsi, dPSI)


def two_phi(lo, width, PSI, s, psi):
    """psi = 2 phi_s = psi_s + psi_(s+1) of some samples."""
    for c in range(2):
        for j in range(psi.shape[1]):
            for i in range(width):
                psi[c, j, i] = PSI[s, c, j, lo + i] + PSI[s + 1, c, j, lo + i]


def _sweep(
    lo, hi, first, last, half, kappa, position, U, PSI, OMEGA, U_bar,
    u, psi, e, g, wide, pull, phi, omega, u_bar,
):  # fmt: skip
    """Pull r complex cotangents a sample back: OMEGA (2, n, b r) to U_bar (2, steps, b r).

    OMEGA becomes that of the start state.
    Lane i r + k is cotangent k of sample i, which makes the inner loops long. U_bar[0] belongs to
    the cotangents themselves, U_bar[1] to i times them. ``wide`` and ``pull`` (2, n, lanes) hold,
    for every lane, its sample's inverse pivots and x_j (dt/2) 2 phi_s.
    """
    width, r = hi - lo, last - first
    lanes = width * r
    # Either all cotangents of some samples, or some of one sample: neighbours in any case.
    start = lo * np.uint64(OMEGA.shape[2] // U.shape[1]) + first
    load_state(start, lanes, OMEGA, omega)
    for s in range(U.shape[0] - 1, -1, -1):
        load(lo, width, U[s : s + 1], u)
        factor(width, (half, kappa, position), u[0], e, g)
        two_phi(lo, width, PSI, s, psi)
        for j in range(position.shape[0]):
            scale = half * position[j]  # 2 A^(-1) omega = 2 phi cancels the 1/2 of phi_s
            for i in range(width):
                for lane in range(i * r, i * r + r):
                    wide[0, j, lane] = g[0, j, i]
                    wide[1, j, lane] = g[1, j, i]
                for lane in range(i * r, i * r + r):
                    pull[0, j, lane] = scale * psi[0, j, i]
                    pull[1, j, lane] = scale * psi[1, j, i]
        crank_nicolson(lanes, kappa, wide, phi, omega)
        for lane in range(lanes):
            u_bar[0, lane] = 0.0
            u_bar[1, lane] = 0.0
        for j in range(position.shape[0]):
            for lane in range(lanes):
                real, imag = pull[0, j, lane], pull[1, j, lane]
                u_bar[0, lane] += phi[0, j, lane] * imag + phi[1, j, lane] * real
            for lane in range(lanes):
                real, imag = pull[0, j, lane], pull[1, j, lane]
                u_bar[1, lane] -= phi[0, j, lane] * real - phi[1, j, lane] * imag
        store(start, lanes, u_bar, U_bar[:, s])
    store_state(start, lanes, omega, OMEGA)


SOLVE, TANGENT, SWEEP = RangeKernel(_solve), RangeKernel(_tangent), RangeKernel(_sweep, together=2)


@dataclass(frozen=True)
class QuantumDipole(TapedSolver):
    r"""Crank-Nicolson for i psi' = (-Laplacian + u(t) x) psi in an infinite well.

    Parameters
    ----------
    points : int
        Grid points on [0, length], walls included; n = points - 2 carry the wave function.
    steps : int
        Number of time steps, and of control values |u|.
    dt : float
        Time step.
    length : float
        Width of the well.

    Notes
    -----
    A state is (Re psi_1..psi_n, Im psi_1..psi_n), so |x| = |y| = 2n; states are normalised as
    sum_j |psi_j|^2 = 1, without the grid spacing. hbar = 2m = 1. The control is constant over each
    step. The stored march takes (steps + 1) 2n numbers a sample; `solve` keeps only two states.

    References
    ----------
    von Winckel, Borzi and Volkwein, SIAM J. Sci. Comput. 31 (2009) 4176.
    """

    points: int = 16
    steps: int = 384
    dt: float = 0.05
    length: float = 2.0

    def __post_init__(self) -> None:
        check_count("points", self.points, 3)
        check_count("steps", self.steps)
        check_real("dt", self.dt, 0.0, open_low=True)
        check_real("length", self.length, 0.0, open_low=True)

    @property
    def interior(self) -> int:
        """Number n of points that carry the wave function."""
        return self.points - 2

    @property
    def spacing(self) -> float:
        """Grid spacing dx."""
        return self.length / (self.points - 1)

    @property
    def positions(self) -> np.ndarray:
        """x_j = j dx of the interior points, (n,)."""
        return self.spacing * np.arange(1, self.points - 1)

    @property
    def state_size(self) -> int:
        """|x| = |y| = 2n."""
        return 2 * self.interior

    output_size = state_size

    @property
    def control_size(self) -> int:
        """|u|: one control value a step."""
        return self.steps

    def eigenstate(self, k: int) -> np.ndarray:
        """Return (2n,), the k-th state of the free well (k = 1 is the ground state).

        psi_j = sqrt(2 / (n + 1)) sin(pi k j / (n + 1)): exact for the discrete Laplacian too, with
        energy (4 / dx^2) sin^2(pi k / (2 (n + 1))).
        """
        check_count("k", k)
        if k > self.interior:
            raise ValueError(f"k must be at most {self.interior}, the number of states; got {k}")
        j = np.arange(1, self.points - 1)
        wave = np.sqrt(2 / (self.points - 1)) * np.sin(np.pi * k * j / (self.points - 1))
        return np.concatenate([wave, np.zeros_like(wave)])

    @property
    def tape_size(self) -> int:  # type: ignore[override]  # a plain attribute in `Solver`
        """Numbers a sample on the tape: all states, and the control."""
        return (self.steps + 1) * self.state_size + self.steps

    def forward(self, x: Array, u: Array) -> tuple[Array, tuple[Array, Array]]:
        """Return the final state y (b, 2n) and the tape that `backward` and `rows` need."""
        psi, u_t = self._march(self.check_inputs(x, u), x, u, self.steps + 1)
        return self._flat(psi[-1]), (psi, u_t)

    def solve(self, x: Array, u: Array) -> Array:
        """Return the final state y (b, 2n) for start states x (b, 2n), controls u (b, steps)."""
        psi, _ = self._march(self.check_inputs(x, u), x, u, 2)
        return self._flat(psi[self.steps % 2])

    def trajectory(self, x: Array, u: Array) -> Array:
        """Return the states at all times, (b, steps + 1, 2n), start included."""
        psi, _ = self._march(self.check_inputs(x, u), x, u, self.steps + 1)
        return psi.reshape(self.steps + 1, self.state_size, -1).transpose(2, 0, 1)

    def tangent(self, x: Array, u: Array, du: Array) -> Array:
        """Return dy (b, 2n), the derivative of the final state along du (b, steps)."""
        xp = self.check_inputs(x, u)
        check_like("du", du, u.shape, u=u)
        return self.tangent_of_both(x, u, xp.zeros_like(x), du)

    def tangent_of_both(self, x: Array, u: Array, dx: Array, du: Array) -> Array:
        """Return dy (b, 2n) along dx (b, 2n) and du (b, steps)."""
        xp = module_of(x)
        psi, u_t = self._march(xp, x, u, self.steps + 1)
        dpsi, du_t = empty(xp, psi[0].shape, x.dtype), xp.ascontiguousarray(du.T)
        dpsi[:] = dx.T.reshape(dpsi.shape)
        physics = self._physics(xp, psi.dtype)
        TANGENT(len(x), *physics, u_t, du_t, psi, dpsi, scratch=self._tangent_scratch)
        return self._flat(dpsi)

    def backward(self, tape: tuple[Array, Array], y_bar: Array) -> Array:
        """Pull cotangents back to the control: y_bar (b, 2n) or (b, r, 2n) to u_bar alike."""
        self._check_tape(tape)
        check_cotangents("y_bar", y_bar, tape[1].shape[1], self.state_size, tape=tape[0])
        u_bar, _ = self._sweep(tape, several(y_bar))
        return u_bar[:, 0].reshape(*y_bar.shape[:-1], self.steps)

    def rows(self, tape: tuple[Array, Array]) -> Array:
        """Return S (b, 2n, steps), S[i] = dy_i/du_i, by one sweep over n complex cotangents."""
        self._check_tape(tape)
        psi, u_t = tape
        b, xp = u_t.shape[1], module_of(psi)
        identity = xp.eye(self.interior, self.state_size, dtype=psi.dtype)
        u_bar, _ = self._sweep(tape, xp.broadcast_to(identity, (b, *identity.shape)))
        return u_bar.reshape(b, self.state_size, self.steps)

    def stepper(self) -> StepOf:
        """Return the physics of one step, for a `Rollout` with the network inside the time loop."""
        return StepOf(replace(self, steps=1))

    def pull_both(self, x: Array, u: Array, y_bar: Array) -> tuple[Array, Array]:
        """Return x_bar (b, r, 2n) and u_bar (b, r, steps) of cotangents y_bar (b, r, 2n)."""
        u_bar, x_bar = self._sweep(self.forward(x, u)[1], y_bar)
        return x_bar, u_bar[:, 0]

    def _march(self, xp, x, u, slots):
        psi = empty(xp, (slots, 2, self.interior, len(x)), x.dtype)
        psi[0] = x.T.reshape(psi[0].shape)
        u_t = xp.ascontiguousarray(u.T)  # (steps, b): samples last, as the kernels want them
        SOLVE(len(x), *self._physics(xp, x.dtype), u_t, psi, scratch=self._scratch)
        return psi, u_t

    def _sweep(self, tape, cotangents):
        """(b, r, 2n) real cotangents to u_bar of them and of i times them, and x_bar of them.

        These are (b, 2, r, steps) and (b, r, 2n).
        """
        psi, u_t = tape
        xp = module_of(psi)
        b, r, _ = cotangents.shape
        omega = empty(xp, (2, self.interior, b * r), psi.dtype)
        omega[:] = cotangents.reshape(b * r, 2, -1).transpose(1, 2, 0)
        omega[1] *= -1  # the conjugate
        u_bar = empty(xp, (2, self.steps, b * r), psi.dtype)
        physics = self._physics(xp, psi.dtype)
        SWEEP(b, *physics, u_t, psi, omega, u_bar, scratch=self._sweep_scratch, cotangents=r)
        omega[1] *= -1
        x_bar = omega.reshape(self.state_size, b, r).transpose(1, 2, 0)
        return _samples_first(xp, u_bar.reshape(2, self.steps, b, r)), x_bar

    def _check_tape(self, tape):
        check_tape(tape, (self.steps + 1, 2, self.interior, "b"), (self.steps, "b"))

    def _physics(self, xp, dtype):
        scalar = np.dtype(dtype).type
        half = self.dt / 2
        kappa = half / self.spacing**2
        return scalar(half), scalar(kappa), xp.asarray(self.positions, dtype)

    def _scratch(self, width, _):
        """Control, two states, e and g of ``width`` samples."""
        state = (2, self.interior, width)
        return (1, width), state, state, state[1:], state

    def _tangent_scratch(self, width, _):
        state = (2, self.interior, width)
        return *self._scratch(width, _), (1, width), state, state

    def _sweep_scratch(self, width, r):
        state, lanes = (2, self.interior, width), (2, self.interior, width * r)
        return (1, width), state, state[1:], state, lanes, lanes, lanes, lanes, (2, width * r)

    def _flat(self, psi):
        """(2, n, b) to (b, 2n)."""
        return module_of(psi).ascontiguousarray(psi.reshape(self.state_size, -1).T)


def _samples_first(xp, u_bar):
    """(2, steps, b, r) to (b, 2, r, steps), some samples at a time: that much stays in cache."""
    steps, b, r = u_bar.shape[1:]
    out = xp.empty((b, 2, r, steps), u_bar.dtype)
    for lo in range(0, b, 64):
        out[lo : lo + 64] = u_bar[:, :, lo : lo + 64].transpose(2, 0, 3, 1)
    return out
