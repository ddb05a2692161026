"""What one would write first on a GPU: a dense J, and `cupy.linalg` to decompose it or J J^T.

CuPy differentiates nothing, so this rival is given higcore's own J, as NumPy's is.
"""

from __future__ import annotations

from higcore.backend import array_module

from . import formulas


def make_step(problem, dtype, decomposition, **rule):
    """Return step(theta, batch) -> V S^kappa U^T g (t,), on the device of theta."""

    def step(theta, batch):
        at = problem.linearise(theta, batch)
        xp, g = array_module(theta=theta), at.loss_gradient.reshape(-1)
        blocks = [at.jacobian().dense()]
        return formulas.DECOMPOSITIONS[decomposition](xp, blocks, g, **rule)

    return step
