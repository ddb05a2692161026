"""nlls-gram's Levenberg-Marquardt, which is given residuals in JAX and makes J itself."""

from __future__ import annotations

from nlls_gram import LevenbergMarquardt

from higcore.losses import SquaredError

from . import formulas
from .jax_peer import TUNED, jax, on_arrays


def make_step(problem, dtype, decomposition, *, damping, curvature, device="cpu"):
    """Return step(theta, batch) -> J^T (h J J^T + lambda)^(-1) g (t,), a NumPy array of ``dtype``.

    That is what its `update` moves theta by, without its geodesic acceleration, which makes another
    step. It tries the step on the batch, and does not move at all where the loss would not fall.
    """
    if decomposition != "cholesky":
        raise ValueError(f"decomposition must be 'cholesky', its default, got {decomposition!r}")
    output = jax.vmap(formulas.sample_output(TUNED, problem), (None, 0, 0))
    layers = formulas.layers_of(problem)

    def residual(theta, batch):
        x, net_input, goal = batch
        y = output(formulas.parameters(theta, layers), x, net_input)
        return curvature**0.5 * (y - goal).reshape(-1)

    solver = LevenbergMarquardt(residual, init_damping=damping, geodesic_acceleration=False)

    def goal_of(theta, x, net_input, target):
        """Where the quadratic model of the loss in y is least, y - g / h: what r is 0 at."""
        if isinstance(problem.loss, SquaredError):
            return target
        y = output(formulas.parameters(theta, layers), x, net_input)
        return y - formulas.loss_gradient(TUNED, problem, y, target) / curvature

    def step(theta, x, net_input, target):
        batch = x, net_input, goal_of(theta, x, net_input, target)
        return theta - solver.update(theta, solver.init(theta, batch), batch)[0]

    return on_arrays(step, dtype, device)
