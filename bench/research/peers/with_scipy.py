"""SciPy's least squares, on data that are the same in every step, with JAX's J."""

from __future__ import annotations

from contextlib import suppress

import jax
import numpy as np
from scipy.optimize import least_squares

from . import with_jax


class TimeIsUp(Exception):
    """`least_squares` asks nobody when to end."""


def scipy(problem, batch, seed, clock, samples):
    """The trust region method, its default."""
    residual, jacobian = map(jax.jit, with_jax.residuals(problem))
    data = with_jax.whole(problem, samples)
    residual(clock.theta, data), jacobian(clock.theta, data)  # compile
    clock.start(clock.theta)

    def fun(theta):
        return np.asarray(residual(theta, data))

    def at_new_point(theta):
        if clock.tick(theta):
            raise TimeIsUp
        return np.asarray(jacobian(theta, data))

    ends = {"ftol": None, "xtol": 1e-15, "gtol": 1e-15}
    with suppress(TimeIsUp):
        least_squares(fun, clock.theta, at_new_point, **ends)
