"""The classical Runge-Kutta step of x' = f(x, u), of a rate in array code or for one sample."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from higcore.backend import Array
from higcore.validation import check_callable, check_count, check_real

from .march import StepFunctions
from .scalar import OneSample, Scalar, check_scalar, is_scalar
from .stepper import Stepper

SHARES = (0.0, 0.5, 0.5, 1.0)  # of the step, at which a stage takes the slope before it
WEIGHTS = (1.0 / 6.0, 1.0 / 3.0, 1.0 / 3.0, 1.0 / 6.0)  # of the slopes, in the step


@functools.lru_cache(maxsize=64)
def runge_kutta(rate: Scalar, rate_tangent: Scalar, n: int) -> tuple[Scalar, Scalar]:
    """A step of the classical Runge-Kutta scheme and its tangent, of rates for one sample.

    ``own`` (6, n) keeps the states of the stages, on which the tangent goes on, and has two more.
    The size n is a constant to the compiler, which writes out the loops over so few numbers.
    """

    def step(numbers, x, u, out, own):
        h, slope = numbers[0], own[4]
        for j in range(n):
            out[j], slope[j] = x[j], 0.0
        for stage in range(4):
            at = own[stage]
            for j in range(n):
                at[j] = x[j] + SHARES[stage] * h * slope[j]
            rate(at, u, slope)
            for j in range(n):
                out[j] += h * WEIGHTS[stage] * slope[j]

    def tangent(numbers, x, u, dx, du, out, own):
        h, dslope, dat = numbers[0], own[4], own[5]
        for j in range(n):
            out[j], dslope[j] = dx[j], 0.0
        for stage in range(4):
            for j in range(n):
                dat[j] = dx[j] + SHARES[stage] * h * dslope[j]
            rate_tangent(own[stage], u, dat, du, dslope)
            for j in range(n):
                out[j] += h * WEIGHTS[stage] * dslope[j]

    return step, tangent


@dataclass(frozen=True)
class RungeKutta4(Stepper):
    r"""The classical Runge-Kutta step of x' = f(x, u), u constant over the step.

    .. math::
        k_1 = f(x, u), \quad k_2 = f(x + \tfrac h2 k_1, u), \quad k_3 = f(x + \tfrac h2 k_2, u),
        \quad k_4 = f(x + h k_3, u), \qquad
        x^+ = x + \tfrac h6 (k_1 + 2 k_2 + 2 k_3 + k_4)

    Parameters
    ----------
    rate : callable
        (x, u) -> f (b, |x|), array code; or (x, u, out), which writes f of one sample to
        out (|x|,) and is compiled, see `ScalarStepper`.
    rate_tangent : callable
        (x, u, dx, du) -> df (b, |x|), the derivative of f along dx and du; or with out.
    state_size, control_size : int
        |x| and |u|.
    dt : float
        The step h.
    """

    rate: Callable[..., Any]
    rate_tangent: Callable[..., Any]
    state_size: int
    control_size: int
    dt: float

    def __post_init__(self) -> None:
        check_callable("rate", self.rate)
        check_callable("rate_tangent", self.rate_tangent)
        check_count("state_size", self.state_size)
        check_count("control_size", self.control_size)
        check_real("dt", self.dt, 0.0, open_low=True)
        if is_scalar(self.rate) != is_scalar(self.rate_tangent):
            raise TypeError("rate and rate_tangent must both have an argument out, or none of them")
        if is_scalar(self.rate):
            n, k = self.state_size, self.control_size
            check_scalar("rate", self.rate, n, k, n)
            check_scalar("rate_tangent", self.rate_tangent, n, k, n, k, n)

    @property
    def scalar(self) -> StepFunctions | None:
        """What the compiled march of a `Rollout` calls; None for array code or a subclass."""
        return self._one.functions() if is_scalar(self.rate) and type(self) is RungeKutta4 else None

    @property
    def _one(self):
        functions = runge_kutta(self.rate, self.rate_tangent, self.state_size)
        return OneSample(*functions, self.state_size, self.control_size, (self.dt,), 6)

    def step(self, x: Array, u: Array) -> Array:
        """Return x_next (b, |x|)."""
        if is_scalar(self.rate):
            return self._one.advanced(x, u)
        return x + self._weighted([k for _, k in self._stages(x, u)])

    def tangent(self, x: Array, u: Array, dx: Array, du: Array) -> Array:
        """Return dx_next (b, |x|), stage by stage."""
        if is_scalar(self.rate):
            return self._one.along(x, u, dx, du)
        dk, slopes = 0 * dx, []
        for (at, _), share in zip(self._stages(x, u), SHARES, strict=True):
            dk = self.rate_tangent(at, u, dx + share * self.dt * dk, du)
            slopes.append(dk)
        return dx + self._weighted(slopes)

    def _stages(self, x, u):
        """(state, slope) of the four stages."""
        k: Array = 0.0
        found: list[tuple[Array, Array]] = []
        for share in SHARES:
            at = x + share * self.dt * k if share else x
            k = self.rate(at, u)
            if (shape := getattr(k, "shape", type(k).__name__)) != x.shape:
                # NumPy would repeat the smaller one.
                raise ValueError(f"rate(x, u) must be an array of shape {x.shape}, got {shape}")
            found.append((at, k))
        return found

    def _weighted(self, slopes):
        k1, k2, k3, k4 = slopes
        return self.dt / 6 * (k1 + 2 * (k2 + k3) + k4)
