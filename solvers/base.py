"""What every solver offers on top of its own ``forward``, ``backward`` and ``rows``."""

from __future__ import annotations

from higcore.backend import array_module
from higcore.validation import check_array, check_same_dtype


class Solver:
    """y = solver(x, u), sample by sample: states x (b, |x|), controls u (b, |u|), y (b, |y|).

    A subclass has ``state_size``, ``control_size``, ``output_size`` and

    - ``forward(x, u) -> (y, tape)``,
    - ``tangent(x, u, du) -> dy``,
    - ``backward(tape, y_bar) -> u_bar`` for cotangents (b, |y|) or (b, r, |y|),
    - ``rows(tape) -> S`` (b, |y|, |u|), S[i] = dy_i/du_i.

    ``tape_size`` says how many numbers a sample ``forward`` keeps on the tape, for estimates of
    memory.
    """

    tape_size = 0

    def solve(self, x, u):
        """Return y (b, |y|)."""
        return self.forward(x, u)[0]

    def adjoint(self, x, u, y_bar):
        """Return u_bar (b, |u|) = S^T y_bar for cotangents y_bar (b, |y|)."""
        check_array("y_bar", y_bar, (len(x), self.output_size))
        return self.backward(self.forward(x, u)[1], y_bar)

    def jacobian(self, x, u):
        """Return y (b, |y|) and S (b, |y|, |u|), S[i] = dy_i/du_i."""
        y, tape = self.forward(x, u)
        return y, self.rows(tape)

    def check_inputs(self, x, u):
        """Return the array module of x and u, or raise naming what is wrong with them."""
        xp = array_module(x=x, u=u)
        check_array("x", x, ("b", self.state_size))
        check_array("u", u, (len(x), self.control_size))
        check_same_dtype(x=x, u=u)
        return xp
