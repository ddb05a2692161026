"""The examination of a solver."""

from __future__ import annotations

from typing import Any

import numpy as np

from .diagnosis import Claim
from .shared import REVERSED, Differentiable, host

AT_ONCE = 2  # cotangents a sample


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
        self.y = None
        self.f = Differentiable(
            function=lambda u: exam.call("solve", solver.solve, x, u),
            tangent=lambda du: exam.call("tangent", solver.tangent, x, u, du),
            adjoint=lambda y_bar: exam.call("adjoint", solver.adjoint, x, u, y_bar),
            v=u,
            shape=self.shape,
            contraction="ij,ijk->ik",
            axes=("u", "y"),
        )

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
            with exam.part("adjoint"):
                exam.adjoint(self.f, columns)
            with exam.part("jacobian"):
                self.rows(columns)
        with exam.part("dot test"):
            exam.dot(self.f)

    def rows(self, columns):
        """S against differences, tangent and adjoint."""
        exam, solver = self.exam, self.solver
        y, S = exam.call("jacobian", solver.jacobian, self.x, self.u)
        exam.compare("y of jacobian", Claim("y of jacobian", "solve's", "y"), host(y), self.y)
        S = exam.array("S of jacobian", S, (*self.shape, self.u.shape[1]))
        mistakes: tuple[tuple[str, Any], ...]
        mistakes = ((REVERSED.format("u"), columns.value[..., ::-1]),)
        if self.u.shape == self.shape and columns.complete:
            mistakes += (("is transposed", columns.value.swapaxes(1, 2)),)
        exam.compare_with_slope(
            f"S against differences{columns.share}",
            Claim("S", "the derivative", "u", mistakes),
            S[..., columns.numbers], columns.value, columns.uncertainty, columns.numbers,
        )  # fmt: skip
        du, y_bar = exam.draw(*self.u.shape), exam.draw(*self.shape)
        along, back = host(self.f.tangent(du)), host(self.f.adjoint(y_bar))
        claim = Claim("S du", "tangent(x, u, du)", "y")
        exam.compare("S du = tangent", claim, np.einsum("ijk,ik->ij", S, host(du)), along)
        claim = Claim("S^T y_bar", "adjoint(x, u, y_bar)", "u")
        exam.compare("S^T y_bar = adjoint", claim, np.einsum("ijk,ij->ik", S, host(y_bar)), back)

    def tape(self):
        """What training calls: forward, and backward and rows on its tape, again and again."""
        exam, solver = self.exam, self.solver
        with exam.part("forward and backward"):
            y, tape = exam.call("forward", solver.forward, self.x, self.u)
            exam.compare("y of forward", Claim("y of forward", "solve's", "y"), host(y), self.y)
            y_bars = exam.draw(self.shape[0], AT_ONCE, self.shape[1])
            single = [self.backward(tape, y_bars[:, k].copy()) for k in range(AT_ONCE)]
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

    def backward(self, tape, y_bar):
        """Call backward."""
        return self.exam.call("backward", self.solver.backward, tape, y_bar)

    def again(self):
        """The same once more: nothing may be random, or remembered."""
        exam = self.exam
        with exam.part("solve, again"):
            claim = "solve gives another y for the same x and u the second time"
            exam.compare("solve, again", claim, self.f.value(self.u), self.y)

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
            du, y_bar = u.copy(), exam.draw(*self.shape).astype(np.float32)
            found = {
                "solve": (y, self.shape),
                "tangent": (solver.tangent(x, u, du), self.shape),
                "adjoint": (solver.adjoint(x, u, y_bar), u.shape),
                "jacobian": (solver.jacobian(x, u)[1], (*self.shape, u.shape[1])),
            }
            exam.float32(found, du, y_bar)
