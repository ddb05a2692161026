"""The paper's way on NumPy: single precision, SVD of a dense J, a pseudo-inverse formed.

NumPy differentiates nothing, so this rival is given higcore's own J. That is generous: it pays
for the entries of J, not for the automatic differentiation that the paper's code gets them from.
"""

from __future__ import annotations

import numpy as np

from higcore import Batch


def make_step(problem, dtype, decomposition, *, tau, kappa=-0.5):
    """Return step(theta, batch) -> V S^kappa U^T g (t,), a NumPy array of ``dtype``."""
    if decomposition != "svd":
        raise ValueError(f"decomposition must be 'svd', the paper's, got {decomposition!r}")

    def step(theta, batch):
        batch = Batch(*(np.asarray(array, dtype) for array in batch))
        at = problem.linearise(np.asarray(theta, dtype), batch)
        J_kappa = power_of_jacobian(at.jacobian().dense(), tau, kappa)
        return J_kappa @ at.loss_gradient.reshape(-1)

    return step


def power_of_jacobian(J, tau, kappa):
    """J^kappa = V S^kappa U^T, a matrix (t, m), of J (m, t)."""
    U, s, Vt = np.linalg.svd(J, full_matrices=False)
    keep = s > tau * s[0]
    s_kappa = np.where(keep, np.where(keep, s, 1) ** kappa, 0).astype(J.dtype)
    return (Vt.T * s_kappa) @ U.T  # (t, k) x (k, m)
