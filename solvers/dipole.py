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

from dataclasses import dataclass

import numpy as np
from numba.extending import register_jitable

from higcore.backend import array_module, empty
from higcore.kernels import RangeKernel
from higcore.validation import check_array, check_count, check_real

from . import tridiagonal
from .base import Solver


@register_jitable
def factor(lo, hi, physics, u, e, g):
    """Inverse pivots g of A for the control u (b,); e is scratch (n, b)."""
    half, kappa, position = physics
    for j in range(e.shape[0]):
        for i in range(lo, hi):
            e[j, i] = 2.0 * kappa + half * position[j] * u[i]
    tridiagonal.invert_pivots(lo, hi, kappa, e, g)


@register_jitable
def reflect(lo, hi, kappa, g, phi, psi, psi_next):
    """psi_next = 2 A^(-1) psi - psi; phi = A^(-1) psi is left for the caller."""
    tridiagonal.solve(lo, hi, kappa, g, psi, phi)
    for c in range(2):
        for j in range(psi.shape[1]):
            for i in range(lo, hi):
                psi_next[c, j, i] = 2.0 * phi[c, j, i] - psi[c, j, i]


def _solve(lo, hi, half, kappa, position, u, psi, e, g, phi):
    """March psi[0] through u (steps, b); psi (slots, 2, n, b) may hold fewer slots than steps."""
    physics = half, kappa, position
    slots = psi.shape[0]
    for s in range(u.shape[0]):
        factor(lo, hi, physics, u[s], e, g)
        reflect(lo, hi, kappa, g, phi, psi[s % slots], psi[(s + 1) % slots])


def _tangent(lo, hi, half, kappa, position, u, du, psi, e, g, source, phi, dpsi):
    """dpsi (2, n, b), zero at the start, along du (steps, b)."""
    physics = half, kappa, position
    for s in range(u.shape[0]):
        factor(lo, hi, physics, u[s], e, g)
        for j in range(position.shape[0]):
            for i in range(lo, hi):
                push = half * du[s, i] * position[j] / 2.0
                real = push * (psi[s, 1, j, i] + psi[s + 1, 1, j, i])
                imag = -push * (psi[s, 0, j, i] + psi[s + 1, 0, j, i])
                source[0, j, i] = dpsi[0, j, i] + real
                source[1, j, i] = dpsi[1, j, i] + imag
        tridiagonal.solve(lo, hi, kappa, g, source, phi)
        for c in range(2):
            for j in range(position.shape[0]):
                for i in range(lo, hi):
                    dpsi[c, j, i] = 2.0 * phi[c, j, i] - dpsi[c, j, i]


def _sweep(lo, hi, half, kappa, position, u, psi, e, g, wide, pull, phi, omega, u_bar):
    """Pull r complex cotangents a sample back: omega (2, n, b r) to u_bar (2, steps, b r).

    Lane i r + k is cotangent k of sample i, which makes the inner loops long. u_bar[0] belongs to
    the cotangents themselves, u_bar[1] to i times them. ``wide`` and ``pull`` (2, n, b r) hold, for
    every lane, its sample's inverse pivots and x_j (dt/2) 2 phi_s.
    """
    physics = half, kappa, position
    r = np.uint64(omega.shape[2] // u.shape[1])  # unsigned like lo and hi
    for s in range(u.shape[0] - 1, -1, -1):
        factor(lo, hi, physics, u[s], e, g)
        for j in range(position.shape[0]):
            scale = half * position[j]  # 2 A^(-1) omega = 2 phi cancels the 1/2 of phi_s
            for i in range(lo, hi):
                real = scale * (psi[s, 0, j, i] + psi[s + 1, 0, j, i])
                imag = scale * (psi[s, 1, j, i] + psi[s + 1, 1, j, i])
                for lane in range(i * r, i * r + r):
                    wide[0, j, lane] = g[0, j, i]
                    wide[1, j, lane] = g[1, j, i]
                for lane in range(i * r, i * r + r):
                    pull[0, j, lane] = real
                    pull[1, j, lane] = imag
        reflect(lo * r, hi * r, kappa, wide, phi, omega, omega)
        for lane in range(lo * r, hi * r):
            u_bar[0, s, lane] = 0.0
            u_bar[1, s, lane] = 0.0
        for j in range(position.shape[0]):
            for lane in range(lo * r, hi * r):
                real, imag = pull[0, j, lane], pull[1, j, lane]
                u_bar[0, s, lane] += phi[0, j, lane] * imag + phi[1, j, lane] * real
            for lane in range(lo * r, hi * r):
                real, imag = pull[0, j, lane], pull[1, j, lane]
                u_bar[1, s, lane] -= phi[0, j, lane] * real - phi[1, j, lane] * imag


SPARE = 8  # lanes
SOLVE, TANGENT, SWEEP = RangeKernel(_solve), RangeKernel(_tangent), RangeKernel(_sweep, together=2)


@dataclass(frozen=True)
class QuantumDipole(Solver):
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

    def __post_init__(self):
        check_count("points", self.points, 3)
        check_count("steps", self.steps)
        check_real("dt", self.dt, 0.0, open_low=True)
        check_real("length", self.length, 0.0, open_low=True)

    @property
    def interior(self):
        """Number n of points that carry the wave function."""
        return self.points - 2

    @property
    def spacing(self):
        """Grid spacing dx."""
        return self.length / (self.points - 1)

    @property
    def positions(self):
        """x_j = j dx of the interior points, (n,)."""
        return self.spacing * np.arange(1, self.points - 1)

    @property
    def state_size(self):
        """|x| = |y| = 2n."""
        return 2 * self.interior

    output_size = state_size

    @property
    def control_size(self):
        """|u|: one control value a step."""
        return self.steps

    def eigenstate(self, k):
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
    def tape_size(self):
        """Numbers a sample on the tape: all states, and the control."""
        return (self.steps + 1) * self.state_size + self.steps

    def forward(self, x, u):
        """Return the final state y (b, 2n) and the tape that `backward` and `rows` need."""
        psi, u_t = self._march(x, u, self.steps + 1)
        return self._flat(psi[-1]), (psi, u_t)

    def solve(self, x, u):
        """Return the final state y (b, 2n) for start states x (b, 2n), controls u (b, steps)."""
        psi, _ = self._march(x, u, 2)
        return self._flat(psi[self.steps % 2])

    def trajectory(self, x, u):
        """Return the states at all times, (b, steps + 1, 2n), start included."""
        psi, _ = self._march(x, u, self.steps + 1)
        return psi.reshape(self.steps + 1, self.state_size, -1).transpose(2, 0, 1)

    def tangent(self, x, u, du):
        """Return dy (b, 2n), the derivative of the final state along du (b, steps)."""
        check_array("du", du, (len(x), self.steps))
        psi, u_t = self._march(x, u, self.steps + 1)
        xp = array_module(psi=psi, du=du)
        dpsi = xp.zeros_like(psi[0])
        e, g = self._scratch(xp, psi)
        source, phi = xp.empty_like(dpsi), xp.empty_like(dpsi)
        du_t = xp.ascontiguousarray(du.T)
        physics = self._physics(xp, psi.dtype)
        TANGENT(len(x), *physics, u_t, du_t, psi, e, g, source, phi, dpsi)
        return self._flat(dpsi)

    def backward(self, tape, y_bar):
        """Pull cotangents back to the control: y_bar (b, 2n) or (b, r, 2n) to u_bar alike."""
        rows = y_bar if y_bar.ndim == 3 else y_bar[:, None, :]
        return self._sweep(tape, rows)[:, 0].reshape(*y_bar.shape[:-1], self.steps)

    def rows(self, tape):
        """Return S (b, 2n, steps), S[i] = dy_i/du_i, by one sweep over n complex cotangents."""
        xp = array_module(psi=tape[0])
        identity = xp.eye(self.interior, self.state_size, dtype=tape[0].dtype)
        rows = xp.broadcast_to(identity, (tape[1].shape[1], *identity.shape))
        return self._sweep(tape, rows).reshape(len(rows), self.state_size, self.steps)

    def _march(self, x, u, slots):
        xp = self.check_inputs(x, u)
        psi = empty(xp, (slots, 2, self.interior, len(x)), x.dtype)
        psi[0] = x.T.reshape(psi[0].shape)
        u_t = xp.ascontiguousarray(u.T)  # (steps, b): samples last, as the kernels want them
        e, g = self._scratch(xp, psi)
        physics = self._physics(xp, x.dtype)
        SOLVE(len(x), *physics, u_t, psi, e, g, empty(xp, psi.shape[1:], psi.dtype))
        return psi, u_t

    def _sweep(self, tape, rows):
        """(b, r, 2n) real cotangents to u_bar of them and of i times them, (b, 2, r, steps)."""
        psi, u_t = tape
        xp = array_module(psi=psi, rows=rows)
        b, r, _ = rows.shape
        shape = (2, self.interior, _row_length(b * r) if b > SPARE else b * r)
        omega, wide, pull, phi = (empty(xp, shape, psi.dtype) for _ in range(4))
        omega[:, :, : b * r] = rows.reshape(b * r, 2, -1).transpose(1, 2, 0)
        omega[1] *= -1  # the conjugate
        u_bar = empty(xp, (2, self.steps, b * r), psi.dtype)
        e, g = self._scratch(xp, psi)
        SWEEP(b, *self._physics(xp, psi.dtype), u_t, psi, e, g, wide, pull, phi, omega, u_bar)
        return _samples_first(xp, u_bar.reshape(2, self.steps, b, r))

    def _physics(self, xp, dtype):
        scalar = np.dtype(dtype).type
        half = self.dt / 2
        kappa = half / self.spacing**2
        return scalar(half), scalar(kappa), xp.asarray(self.positions, dtype)

    def _scratch(self, xp, psi):
        n, b = psi.shape[2:]
        return tuple(empty(xp, (*rows, _row_length(b)), psi.dtype) for rows in ((n,), (2, n)))

    def _flat(self, psi):
        """(2, n, b) to (b, 2n)."""
        xp = array_module(psi=psi)
        return xp.ascontiguousarray(psi.reshape(self.state_size, -1).T)


def _row_length(lanes):
    """``lanes``, or some more: rows a multiple of 4096 bytes apart share few lines of a cache."""
    return lanes + SPARE if lanes % 512 == 0 else lanes


def _samples_first(xp, u_bar):
    """(2, steps, b, r) to (b, 2, r, steps), some samples at a time: that much stays in cache."""
    steps, b, r = u_bar.shape[1:]
    out = xp.empty((b, 2, r, steps), u_bar.dtype)
    for lo in range(0, b, 64):
        out[lo : lo + 64] = u_bar[:, :, lo : lo + 64].transpose(2, 0, 3, 1)
    return out
