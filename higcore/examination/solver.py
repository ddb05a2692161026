"""A solver as a function of its control, and what only a solver has: S, and several cotangents."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import numpy as np

from ..backend import synchronize
from .diagnosis import Claim
from .differentiable import Differentiable
from .examination import host

AT_ONCE = 2  # cotangents a sample
MANY, TIMED = 4, 3  # products that are worth a remark, and how often they are timed
MAKERS = {  # what `solvers.Solver` makes a derivative of that is not given, first choice first
    "tangent": ("jacobian", "rows", "adjoint", "backward"),
    "adjoint": ("backward", "rows", "tangent"),
}


class ControlledSolver(Differentiable):
    """u -> y of a solver, at states x."""

    name, arguments, axes, contraction = "solve", "x and u", ("u", "y"), "ij,ijk->ik"
    S: Any = None  # of rows, once it is known

    def __init__(self, what, solver, seed, **points):
        super().__init__(what, solver, seed, **points)
        self.tangent_name, tangent = _made("tangent", solver)
        adjoint_name, adjoint = _made("adjoint", solver)
        self.vacuous = f"both are made from {adjoint}" if tangent == adjoint else ""
        if hasattr(solver, "adjoint"):
            self.pullback, self.adjoint_name = "adjoint", adjoint_name

    @property
    def S_shape(self):
        return (*self.shape, self.v.shape[1])

    def function(self, u, samples=slice(None)):
        return self.call("solve", self.x[samples], u[samples])

    def tangent(self, du):
        return self.call("tangent", self.x, self.v, du)

    def adjoint(self, y_bar):
        if self.pullback == "adjoint":
            return self.call("adjoint", self.x, self.v, y_bar)
        return self.call("backward", self.forward()[1], y_bar)

    def forward(self):
        return self.call("forward", self.x, self.v)

    def results(self, y_bar):
        y, tape = self.forward()
        return super().results(y_bar) | {
            "forward": (y, self.shape),
            "backward": (self.call("backward", tape, y_bar), self.v.shape),
            "rows": (self.call("rows", tape), self.S_shape),
        }

    def check_jacobian(self):
        """S of rows against differences, tangent and adjoint, and S of jacobian against it."""
        self.run("rows", self.check_rows)
        self.run("jacobian", self.check_own_jacobian)
        if self.S is not None and (products := _products(self.given)):
            self.report.remarks.append(self.cost(*products))

    def check_rows(self):
        """S against differences, then S du and S^T y_bar against tangent and adjoint."""
        J, S = self.jacobian, self.call("rows", self.forward()[1])
        S = self.array("S of rows", S, self.S_shape)
        claim = Claim("S", "the derivative", "u", self.swapped("is transposed", "ijk->ikj"))
        seen = S * ~J.noisy[:, None]
        self.compare_columns("S", claim, seen, J.columns, J.units[:, None])
        self.S = S
        self.check_products()

    def check_products(self):
        if self.has_tangent:
            du = self.draw(*self.v.shape)
            dy, S_du = host(self.tangent(du)), np.einsum("ijk,ik->ij", self.S, host(du))
            claim = Claim("S du", "tangent(x, u, du)", "y")
            self.compare("S du = tangent", claim, S_du, dy, self.per_output(dy))
        y_bar, pullback = self.draw_cotangents(*self.shape), self.pullback
        u_bar, S_y_bar = host(self.adjoint(y_bar)), np.einsum("ijk,ij->ik", self.S, host(y_bar))
        claim = Claim("S^T y_bar", f"{pullback}(x, u, y_bar)", "u")
        self.compare(f"S^T y_bar = {pullback}", claim, S_y_bar, u_bar)

    def check_own_jacobian(self):
        """The y and S of jacobian against those of solve and rows."""
        if self.lacks("jacobian", "jacobian"):
            return
        y, S = self.call("jacobian", self.x, self.v)
        self.check_y("jacobian", y)
        S = self.array("S of jacobian", S, self.S_shape)
        if self.S is not None:
            claim, scale = Claim("S of jacobian", "that of rows", "u"), self.per_output(self.S)
            self.compare("S of jacobian = rows", claim, S, self.S, scale)

    def cost(self, count, product):
        """What S takes of products one after the other, measured here, and what would save it."""
        x, u = self.x.copy(), self.v.copy()
        _, tape = self.given.forward(x, u)
        solve = _seconds(lambda: self.given.solve(x, u), u)
        rows = _seconds(lambda: self.given.rows(tape), u)
        sweep = ", or backward of (b, r, |y|) in one sweep" if product == "adjoints" else ""
        return (
            f"S is made of {count} {product}, one after the other: {1e3 * rows:.3g} ms for these "
            f"{len(u)} samples, where solve takes {1e3 * solve:.3g} ms. If that is too long, give "
            f"jacobian(x, u) -> (y, S){sweep}."
        )

    def check_y(self, method, y):
        what = f"y of {method}"
        self.compare_values(what, Claim(what, "solve's", "y"), host(y), self.y)

    def check_backward(self):
        """What training calls: backward of several cotangents, one by one, and on the same tape."""
        y, tape = self.forward()
        self.check_y("forward", y)
        b, n, k = self.S_shape
        y_bars, backward = self.draw_cotangents(b, AT_ONCE, n), partial(self.call, "backward")
        one_by_one = [host(backward(tape, y_bars[:, r])) for r in range(AT_ONCE)]
        if self.pullback == "adjoint":
            claim = Claim("backward", "adjoint of the same cotangent", "u")
            u_bar = host(self.adjoint(y_bars[:, 0]))
            self.compare("backward = adjoint", claim, one_by_one[0], u_bar)
        many = self.array("backward of (b, r, |y|)", backward(tape, y_bars), (b, AT_ONCE, k))
        claim = Claim("backward of r cotangents", "that of one after the other", "u")
        self.compare("r cotangents = one by one", claim, many, np.stack(one_by_one, axis=1))
        forgets = "backward on the same tape gives something else the second time"
        again = host(backward(tape, y_bars[:, 0]))
        self.compare("backward, the same tape again", forgets, again, one_by_one[0])


def _products(solver):
    """How many adjoints or tangents `solvers.Solver` makes S of, if they are many; else None."""
    own = {name: _own(solver, name) for name in ("adjoint", "tangent", *MAKERS["adjoint"])}
    if own["rows"] or _own(solver, "jacobian"):
        return None
    by_adjoints = own["adjoint"] or own["backward"]
    y, u = int(solver.output_size), int(solver.control_size)
    if own["tangent"] and (u < y or not by_adjoints):
        return (u, "tangents") if u >= MANY else None
    return (y, "adjoints") if y >= MANY and not own["backward"] else None


def _own(solver, name):
    """True if there is such a method, and it is not the default of `solvers.Solver`."""
    method = getattr(solver, name, None)
    return method is not None and getattr(method, "__module__", "") != "solvers.base"


def _seconds(call, array):
    """Seconds of a call, the fewest of some; a device is waited for."""
    seconds = []
    for _ in range(TIMED):
        synchronize(array)
        begin = time.perf_counter()
        call()
        synchronize(array)
        seconds.append(time.perf_counter() - begin)
    return min(seconds)


def _made(name, solver):
    """What to call a derivative, and the method that it is or that `solvers.Solver` makes it of."""
    for method in (name, *MAKERS[name]):
        if _own(solver, method):
            return (name if method == name else f"{name} (made from {method})"), method
    return name, name
