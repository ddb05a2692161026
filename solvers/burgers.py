"""Burgers' equation on a coarse periodic grid, one step, with a flux that may be corrected."""

from __future__ import annotations

from dataclasses import dataclass

from higcore.backend import Array, module_of
from higcore.validation import check_count, check_real

from .stepper import Stepper


@dataclass(frozen=True)
class BurgersStepper(Stepper):
    r"""One explicit step of u_t + (u^2 / 2)_x = nu u_xx in cell means, periodic.

    .. math::

        x_i^+ = x_i - \tfrac{\Delta t}{\Delta x} (F_{i+1/2} - F_{i-1/2}), \qquad
        F_{i+1/2} = \tfrac14 (x_i^2 + x_{i+1}^2)
        - \bigl(\tfrac\alpha2 + \tfrac\nu{\Delta x}\bigr) (x_{i+1} - x_i) + u_i

    the flux of Lax and Friedrichs, which smears a shock over many cells of a coarse grid, and a
    correction u_i of it. What one cell loses the next one gains, whatever the correction is.

    It is stable where dt (alpha / dx + 2 nu / dx^2) <= 1, and the correction does not change that
    much.

    Parameters
    ----------
    cells : int
        n = |x| = |u|.
    dt : float
        Time step.
    length : float
        Of the domain.
    viscosity : float
        nu.
    speed : float
        alpha, not less than the largest abs(x).
    """

    cells: int = 32
    dt: float = 0.05
    length: float = 6.283185307179586
    viscosity: float = 0.01
    speed: float = 2.0

    def __post_init__(self) -> None:
        check_count("cells", self.cells, 3)
        check_real("dt", self.dt, 0.0, open_low=True)
        check_real("length", self.length, 0.0, open_low=True)
        check_real("viscosity", self.viscosity, 0.0)
        check_real("speed", self.speed, 0.0)

    @property
    def state_size(self) -> int:
        """|x|: one mean a cell."""
        return self.cells

    control_size = state_size

    @property
    def spacing(self) -> float:
        """Width of a cell."""
        return self.length / self.cells

    def step(self, x: Array, u: Array) -> Array:
        """Return x_next (b, n) for x (b, n) and the correction of the fluxes u (b, n)."""
        right = _rolled(x, -1)
        flux = (x * x + right * right) / 4 - self._smearing * (right - x) + u
        return self._divided(x, flux)

    def tangent(self, x: Array, u: Array, dx: Array, du: Array) -> Array:
        """Return dx_next (b, n)."""
        right, dright = _rolled(x, -1), _rolled(dx, -1)
        flux = (x * dx + right * dright) / 2 - self._smearing * (dright - dx) + du
        return self._divided(dx, flux)

    def adjoint(self, x: Array, u: Array, next_bar: Array) -> tuple[Array, Array]:
        """Return x_bar (b, n) and u_bar (b, n)."""
        u_bar = self.dt / self.spacing * (_rolled(next_bar, -1) - next_bar)  # of the fluxes
        from_left = _rolled(u_bar, 1)  # of the flux into a cell
        x_bar = next_bar + (u_bar + from_left) * x / 2 + self._smearing * (u_bar - from_left)
        return x_bar, u_bar

    @property
    def _smearing(self):
        return self.speed / 2 + self.viscosity / self.spacing

    def _divided(self, x, flux):
        return x - self.dt / self.spacing * (flux - _rolled(flux, 1))


def _rolled(x, by):
    """Every cell's neighbour, -1 the right one."""
    return module_of(x).roll(x, by, axis=1)
