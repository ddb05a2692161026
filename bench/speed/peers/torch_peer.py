"""The PyTorch rival: torch.func through a Python loop over time steps."""

from __future__ import annotations

import torch
from torch.func import grad, jacrev, vmap

from . import formulas


def make_step(problem, dtype, decomposition, *, device="cpu", **rule):
    """Return step(theta, batch) -> V S^kappa U^T g (t,), a NumPy array of ``dtype``."""
    decomposition = "svd of J^T" if decomposition == "svd" else decomposition  # 0.6 of the time
    solve = formulas.DECOMPOSITIONS[decomposition]
    computed = formulas.linearised_step(LIBRARY, problem, solve, rule)
    place = torch.device("cuda" if device == "gpu" else "cpu")

    def tensor(array):
        return torch.as_tensor(array, dtype=getattr(torch, dtype), device=place)

    def step(theta, batch):
        with place:  # where tensors are made that are computed from none
            return computed(*map(tensor, (theta, *batch))).cpu().numpy()

    return step


def march(step, state, controls):
    """The time steps, one after the other."""
    for u in controls.unbind():
        state = step(state, u)
    return state


def crank_nicolson(diagonal, off, psi, controls):
    """All steps psi = 2 A^(-1) psi - psi, differentiated as solutions: A dphi = dpsi - dA phi.

    The inverses are computed at once, as numbers without derivative, so that a step is two small
    products. The Jacobian of the dipole at b = 16 takes 2.6 times as long with a
    `torch.linalg.solve` in every step, whose derivatives are also wrong in a caller's
    `torch.no_grad` (PyTorch 2.13).
    """
    ones = torch.ones_like(psi[1:])
    beside = off * (torch.diag(ones, 1) + torch.diag(ones, -1))
    diagonals = diagonal(controls[:, None])
    inverses = torch.linalg.inv(torch.diag_embed(diagonals) + beside).detach()
    changes = diagonals - diagonals.detach()  # zero, with the derivative of the diagonals
    for inverse, change in zip(inverses.unbind(), changes.unbind(), strict=True):
        phi = (inverse @ psi).detach()
        psi = 2 * (inverse @ (psi - change * phi)) - psi
    return psi


LIBRARY = formulas.Library(torch, vmap, jacrev, grad, march, crank_nicolson)
