"""A stepper as a function of state and control side by side, and what only a stepper has."""

from __future__ import annotations

import numpy as np

from ..validation import check_has
from .diagnosis import Claim
from .differentiable import Differentiable
from .examination import host

AT_ONCE = 2  # cotangents a sample


class JointStep(Differentiable):
    """(x, u) -> x_next of a stepper; v holds x and u of every sample in one row."""

    name, arguments, axes, contraction = "step", "x and u", ("(x, u)", "x_next"), "ij,ijk->ik"
    pullback = adjoint_name = "adjoint"

    def __init__(self, what, stepper, seed, **points):
        super().__init__(what, stepper, seed, **points)
        wanted = ("step", "tangent", "adjoint", "jacobian", "pull")
        check_has("stepper", stepper, wanted, "a subclass of solvers.Stepper has them all")
        if all(_made_of_jacobian(name, stepper) for name in ("tangent", "adjoint")):
            self.vacuous = "both are made from jacobian"

    @property
    def width(self):
        return int(self.given.state_size)

    def split(self, v):
        """X and u of rows that hold both."""
        return v[:, : self.width], v[:, self.width :]

    def function(self, v, samples=slice(None)):
        return self.call("step", *self.split(v[samples]))

    def tangent(self, dv):
        return self.call("tangent", *self.split(self.v), *self.split(dv))

    def adjoint(self, next_bar):
        bars = self.call("adjoint", *self.split(self.v), next_bar)
        return self.xp.concatenate(self.pair("adjoint", bars, next_bar), axis=1)

    def pair(self, method, found, next_bar):
        """What an adjoint returned, if it is x_bar and u_bar."""
        if not isinstance(found, tuple) or len(found) != 2:
            raise TypeError(f"{method} must return (x_bar, u_bar), got {type(found).__name__}")
        shapes = [(*next_bar.shape[:-1], part.shape[1]) for part in self.split(self.v)]
        for name, array, shape in zip(("x_bar", "u_bar"), found, shapes, strict=True):
            if array.shape != shape:
                raise ValueError(f"{name} of {method} has shape {array.shape} in place of {shape}")
        return found

    def check_jacobian(self):
        """A and B of jacobian against differences."""
        self.run("jacobian", self.check_own_jacobian)

    def check_own_jacobian(self):
        x, u = self.split(self.v)
        A, B = self.call("jacobian", x, u)
        n = x.shape[1]
        A = self.array("A of jacobian", A, (len(x), n, n))
        B = self.array("B of jacobian", B, (len(x), n, u.shape[1]))
        joint, J = np.concatenate([A, B], axis=2), self.jacobian
        claim = Claim("(A, B) of jacobian", "the derivative", "(x, u)")
        self.compare_columns("(A, B)", claim, joint, J.columns, J.units[:, None])

    def check_backward(self):
        """What a rollout calls: several cotangents at once, against one after the other."""
        b, n = self.shape
        next_bars = self.draw_cotangents(b, AT_ONCE, n)
        bars = self.call("pull", *self.split(self.v), next_bars)
        many = np.concatenate([host(part) for part in self.pair("pull", bars, next_bars)], axis=2)
        one_by_one = [host(self.adjoint(next_bars[:, r].copy())) for r in range(AT_ONCE)]
        claim = Claim("pull of r cotangents", "adjoint of one after the other", "(x, u)")
        self.compare("r cotangents = one by one", claim, many, np.stack(one_by_one, axis=1))


def _made_of_jacobian(name, stepper):
    return getattr(getattr(stepper, name), "__qualname__", "") == f"Stepper.{name}"
