"""The Poisson equation in two dimensions, as the residual that a network must meet (3.2, B.3)."""

from __future__ import annotations

import numbers
from dataclasses import dataclass

import numpy as np

from higcore.backend import Array, array_module, module_of
from higcore.validation import check_array, check_cotangents, check_count, check_like, check_real

from .base import TapedSolver


@dataclass(frozen=True)
class Poisson2D(TapedSolver):
    r"""y = Laplacian(u) by the five-point stencil, u = 0 outside the grid (zero Dirichlet).

    .. math::
        y_{ij} = \frac{u_{i-1,j} - 2 u_{ij} + u_{i+1,j}}{h_1^2}
               + \frac{u_{i,j-1} - 2 u_{ij} + u_{i,j+1}}{h_2^2}

    The network maps a source rho to a potential u = phi, and y is compared with rho (eq. 9).

    Parameters
    ----------
    points : int or (int, int)
        Grid points n_1 x n_2; one number for a square grid.
    spacing : float or (float, float)
        Grid spacings h_1, h_2; one number for both.

    Notes
    -----
    ``u`` and ``y`` are flat (b, n_1 n_2), row-major. ``x`` (b, n_1 n_2) carries the source for the
    network; the solver does not use it. Linear and symmetric: tangent and adjoint are the stencil,
    in n_1 n_2 numbers a sample. Only ``rows`` make the matrix, (n_1 n_2)^2 numbers, once for all
    samples: 134 MB in float64 for 64 x 64 points.
    """

    points: int | tuple[int, int] = 8
    spacing: float | tuple[float, float] = 1.0

    def __post_init__(self) -> None:
        for name, value in {"points": self.points, "spacing": self.spacing}.items():
            if not (isinstance(value, numbers.Real) or (type(value) is tuple and len(value) == 2)):
                raise TypeError(f"{name} must be one number or a tuple of two, got {value!r}")
        for n in self.shape:
            check_count("points", n)
        for h in self.spacings:
            check_real("spacing", h, 0.0, open_low=True)

    @property
    def shape(self) -> tuple[int, int]:
        """(n_1, n_2)."""
        return self.points if isinstance(self.points, tuple) else (self.points, self.points)

    @property
    def spacings(self) -> tuple[float, float]:
        """(h_1, h_2)."""
        return self.spacing if isinstance(self.spacing, tuple) else (self.spacing, self.spacing)

    @property
    def state_size(self) -> int:
        """Number of grid points."""
        return self.shape[0] * self.shape[1]

    control_size = output_size = state_size

    def laplacian(self, u: Array) -> Array:
        """Apply the stencil to u (..., n_1 n_2)."""
        leading = ("b",) * (getattr(u, "ndim", 1) - 1)
        check_array("u", u, (*leading, self.control_size))
        return self._stencil(u)

    def potential(self, y: Array) -> Array:
        r"""Return the exact u (..., n_1 n_2) for which y is the Laplacian.

        Sine waves are its eigenvectors: with the orthogonal matrices S_1 and S_2 of them, and
        eigenvalues :math:`\lambda_{kl}`, u is S_1 ((S_1 y S_2) / lambda) S_2, in
        4 n_1 n_2 (n_1 + n_2) operations a sample.
        """
        leading = ("b",) * (getattr(y, "ndim", 1) - 1)
        check_array("y", y, (*leading, self.output_size))
        (first, values), (second, others) = (self._waves(y, axis) for axis in (0, 1))
        waves = first @ y.reshape(-1, *self.shape) @ second  # (n_1, n_1) x (b, n_1, n_2) x ..
        waves /= values[:, None] + others
        return (first @ waves @ second).reshape(y.shape)

    def _waves(self, like, axis):
        """Sine waves of an axis, an orthogonal and symmetric matrix, and their eigenvalues."""
        n, h, xp = self.shape[axis], self.spacings[axis], module_of(like)
        k = xp.arange(1, n + 1, dtype=np.float64)
        waves = np.sqrt(2 / (n + 1)) * xp.sin(np.pi / (n + 1) * (k[:, None] * k))
        values = -4 / h**2 * xp.sin(np.pi / (2 * n + 2) * k) ** 2
        return waves.astype(like.dtype), values.astype(like.dtype)

    def _stencil(self, u):
        xp = module_of(u)
        field = u.reshape(-1, *self.shape)
        h1, h2 = (xp.asarray(1 / h**2, u.dtype) for h in self.spacings)
        y = -2 * (h1 + h2) * field
        y[:, 1:, :] += h1 * field[:, :-1, :]
        y[:, :-1, :] += h1 * field[:, 1:, :]
        y[:, :, 1:] += h2 * field[:, :, :-1]
        y[:, :, :-1] += h2 * field[:, :, 1:]
        return y.reshape(u.shape)

    def forward(self, x: Array, u: Array) -> tuple[Array, Array]:
        """Return y (b, n) and the tape, which only remembers u's batch size and kind."""
        self.check_inputs(x, u)
        return self._stencil(u), u

    def tangent(self, x: Array, u: Array, du: Array) -> Array:
        """Return dy (b, n) along du (b, n)."""
        self.check_inputs(x, u)
        check_like("du", du, u.shape, u=u)
        return self._stencil(du)

    def backward(self, tape: Array, y_bar: Array) -> Array:
        """Pull cotangents back: y_bar (..., n) to u_bar alike. The Laplacian is symmetric."""
        check_cotangents("y_bar", y_bar, len(tape), self.output_size, tape=tape)
        return self._stencil(y_bar)

    def rows(self, tape: Array) -> Array:
        """Return S (b, n, n): the matrix of the stencil, the same for every sample."""
        xp = array_module(u=tape)
        matrix = self._stencil(xp.eye(self.control_size, dtype=tape.dtype))
        return xp.broadcast_to(matrix, (len(tape), *matrix.shape))
