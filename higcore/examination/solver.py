"""The examination of a solver."""

from __future__ import annotations

from typing import Any

import numpy as np

from .diagnosis import Claim
from .differences import largest
from .shared import NOT_GIVEN, REVERSED, Differentiable, host

AT_ONCE = 2  # cotangents a sample
MAKERS = {  # what `solvers.Solver` makes a derivative of that is not given, first choice first
    "tangent": ("jacobian", "rows", "adjoint", "backward"),
    "adjoint": ("backward", "rows", "tangent"),
}


def examine_solver(exam, solver, x, u, outputs):
    """Add the rows of `check_solver` to an `Examination`, for states x and controls u."""
    examination = _SolverExamination(exam, solver, x, u, outputs)
    if examination.solve():
        examination.derivatives()
        examination.tape()
        examination.again()
        if exam.dtype == np.float64:
            examination.single_precision()
    else:
        exam.skip("everything else", "it takes a solve that works")
    exam.unchanged()


class _SolverExamination:
    def __init__(self, exam, solver, x, u, outputs):
        self.exam, self.solver, self.x, self.u = exam, solver, x, u
        self.shape = (len(x), outputs)
        self.y = self.S = None
        tangent, adjoint = _maker(solver, "tangent"), _maker(solver, "adjoint")
        self.pull = "adjoint" if hasattr(solver, "adjoint") else "backward"
        self.f = Differentiable(
            function=lambda u: exam.call("solve", solver.solve, x, u),
            tangent=self.tangent if hasattr(solver, "tangent") else None,
            adjoint=self.adjoint if self.pull == "adjoint" else self.backward_of,
            v=u,
            shape=self.shape,
            contraction="ij,ijk->ik",
            axes=("u", "y"),
            tangent_name=_label("tangent", tangent),
            adjoint_name=_label("adjoint", adjoint) if self.pull == "adjoint" else "backward",
            vacuous=f"both are made from {adjoint}" if tangent == adjoint else "",
        )

    def tangent(self, du):
        """Call tangent."""
        return self.exam.call("tangent", self.solver.tangent, self.x, self.u, du)

    def adjoint(self, y_bar):
        """Call adjoint."""
        return self.exam.call("adjoint", self.solver.adjoint, self.x, self.u, y_bar)

    def backward_of(self, y_bar):
        """Backward on a tape of its own, for a solver without adjoint."""
        return self.backward(self.forward()[1], y_bar)

    def forward(self):
        """Call forward."""
        return self.exam.call("forward", self.solver.forward, self.x, self.u)

    def backward(self, tape, y_bar):
        """Call backward."""
        return self.exam.call("backward", self.solver.backward, tape, y_bar)

    def solve(self):
        """True if y is an array that the rest can be compared with."""
        exam, solve = self.exam, self.solver.solve
        with exam.part("solve"):
            y = exam.array("solve", self.f.function(self.u), self.shape)
            exam.alone("solve", y, lambda i: solve(self.x[i].copy(), self.u[i].copy()))
            self.y = y
        return self.y is not None

    def derivatives(self):
        """Tangent, adjoint and S against differences and against each other."""
        exam = self.exam
        with exam.part("differences"):
            columns = exam.columns(self.f)
            with exam.part("tangent"):
                exam.tangent(self.f, columns)
            with exam.part(self.pull):
                exam.adjoint(self.f, columns)
            with exam.part("rows"):
                self.rows(columns)
            with exam.part("jacobian"):
                self.jacobian()
        with exam.part("dot test"):
            exam.dot(self.f)

    def rows(self, columns):
        """S against differences, tangent and adjoint."""
        exam = self.exam
        S = exam.call("rows", self.solver.rows, self.forward()[1])
        S = exam.array("S of rows", S, (*self.shape, self.u.shape[1]))
        mistakes: tuple[tuple[str, Any], ...]
        mistakes = ((REVERSED.format("u"), columns.value[..., ::-1]),)
        if self.u.shape == self.shape and columns.complete:
            mistakes += (("is transposed", columns.value.swapaxes(1, 2)),)
        exam.judge(
            f"S against differences{columns.share}",
            Claim("S", "the derivative", "u", mistakes), columns,
            np.where(columns.rough[:, None], columns.value, S[..., columns.numbers]),
            columns.value, columns.uncertainty, columns.units[:, None], columns.numbers,
        )  # fmt: skip
        self.S = S
        self.products(S)

    def products(self, S):
        """S du and S^T y_bar against tangent and adjoint."""
        exam, f = self.exam, self.f
        if f.tangent:
            du = exam.draw(*self.u.shape)
            along = host(f.tangent(du))
            claim = Claim("S du", "tangent(x, u, du)", "y")
            S_du, scale = np.einsum("ijk,ik->ij", S, host(du)), self.units(along)
            exam.compare("S du = tangent", claim, S_du, along, scale)
        y_bar = exam.cotangents(*self.shape)
        claim = Claim("S^T y_bar", f"{self.pull}(x, u, y_bar)", "u")
        S_y_bar = np.einsum("ijk,ij->ik", S, host(y_bar))
        exam.compare(f"S^T y_bar = {self.pull}", claim, S_y_bar, host(f.adjoint(y_bar)))

    def jacobian(self):
        """The y and S of jacobian against those of solve and rows."""
        exam, solver = self.exam, self.solver
        if not hasattr(solver, "jacobian"):
            exam.skip("jacobian", NOT_GIVEN.format("jacobian"))
            return
        y, S = exam.call("jacobian", solver.jacobian, self.x, self.u)
        exam.compare_values(
            "y of jacobian", Claim("y of jacobian", "solve's", "y"), host(y), self.y
        )
        S = exam.array("S of jacobian", S, (*self.shape, self.u.shape[1]))
        if self.S is not None:
            claim = Claim("S of jacobian", "that of rows", "u")
            exam.compare("S of jacobian = rows", claim, S, self.S, self.units(self.S)[:, None])

    def units(self, derivatives):
        """The scale (n,) of derivatives (b, n, ...) of y."""
        return np.maximum(largest(derivatives), self.exam.units)

    def tape(self):
        """What training calls: forward, and backward and rows on its tape, again and again."""
        exam = self.exam
        with exam.part("forward and backward"):
            y, tape = self.forward()
            exam.compare_values(
                "y of forward", Claim("y of forward", "solve's", "y"), host(y), self.y
            )
            y_bars = exam.cotangents(self.shape[0], AT_ONCE, self.shape[1])
            single = [self.backward(tape, y_bars[:, k].copy()) for k in range(AT_ONCE)]
            if self.pull == "adjoint":
                adjoint = host(self.f.adjoint(y_bars[:, 0].copy()))
                claim = Claim("backward", "adjoint of the same cotangent", "u")
                exam.compare("backward = adjoint", claim, host(single[0]), adjoint)
            shape = (self.shape[0], AT_ONCE, self.u.shape[1])
            many = exam.array("backward of (b, r, |y|)", self.backward(tape, y_bars), shape)
            claim = Claim("backward of r cotangents", "that of one after the other", "u")
            one_by_one = np.stack([host(u_bar) for u_bar in single], axis=1)
            exam.compare("r cotangents = one by one", claim, many, one_by_one)
            again = host(self.backward(tape, y_bars[:, 0].copy()))
            forgets = "backward on the same tape gives something else the second time"
            exam.compare("backward, the same tape again", forgets, again, host(single[0]))

    def again(self):
        """The same once more: nothing may be random, or remembered."""
        exam = self.exam
        with exam.part("solve, again"):
            claim = "solve gives another y for the same x and u the second time"
            exam.compare_values("solve, again", claim, self.f.value(self.u), self.y)

    def single_precision(self):
        """float32 arrays in, float32 arrays out, unless solve refuses them."""
        exam, solver = self.exam, self.solver
        x, u = self.x.astype(np.float32), self.u.astype(np.float32)
        try:
            y = solver.solve(x, u)
        except Exception as error:
            exam.skip("float32 in", f"solve raised {type(error).__name__}")
            return
        with exam.part("float32 in"):
            du, y_bar = u.copy(), exam.cotangents(*self.shape).astype(np.float32)
            found: dict[str, tuple[Any, tuple]] = {"solve": (y, self.shape)}
            if self.f.tangent:
                found["tangent"] = solver.tangent(x, u, du), self.shape
            if self.pull == "adjoint":
                found["adjoint"] = solver.adjoint(x, u, y_bar), u.shape
            y, tape = solver.forward(x, u)
            found["forward"] = y, self.shape
            found["backward"] = solver.backward(tape, y_bar), u.shape
            found["rows"] = solver.rows(tape), (*self.shape, u.shape[1])
            exam.float32(found, du, y_bar)


def _maker(solver, name):
    """The method that ``name`` is made of by `solvers.Solver`; itself, if the solver gives it."""
    for method in (name, *MAKERS[name]):
        given = getattr(solver, method, None)
        if given is not None and getattr(given, "__module__", "") != "solvers.base":
            return method
    return name


def _label(name, maker):
    return name if maker == name else f"{name} (made from {maker})"
