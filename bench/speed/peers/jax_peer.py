"""The JAX rival: one jitted function from theta and a batch to the step."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.linalg import cho_factor, cho_solve

from . import formulas


def make_step(problem, dtype, decomposition, *, tuned=False, device="cpu", **rule):
    """Return step(theta, batch) -> V S^kappa U^T g (t,), a NumPy array of ``dtype``.

    If ``tuned``, with what an expert adds: the SVD of J^T, and `solve` for Crank-Nicolson steps.
    """
    decomposition = "svd of J^T" if tuned and decomposition == "svd" else decomposition
    solve = srt if decomposition == "srt" else formulas.DECOMPOSITIONS[decomposition]
    library = TUNED if tuned else LIBRARY
    return on_arrays(formulas.linearised_step(library, problem, solve, rule), dtype, device)


def on_arrays(function, dtype, device):
    """Return step(theta, batch) of a function (theta, x, net_input, target), compiled."""
    jitted, place = jax.jit(function), jax.devices(device)[0]

    def step(theta, batch):
        # Within this block only: the caller's own JAX code keeps its precision and its device.
        with jax.enable_x64(dtype == "float64"), jax.default_device(place):
            arrays = (np.asarray(array, dtype) for array in (theta, *batch))
            return np.asarray(jitted(*arrays))  # waits until it is computed

    return step


def srt(xp, blocks, g, damping, curvature):
    """J^T (h J J^T + lambda)^(-1) g by Cholesky's factors.

    The step of NetKet's VMC_SR without momentum where it uses the kernel, also known as minSR
    (`_compute_srt_update` in netket/_src/ngd/srt.py, `cholesky` in netket/optimizer/solver). K is
    spared the joined J that NetKet makes.
    """
    K = curvature * sum(block @ block.T for block in blocks)  # (m, m)
    c = cho_solve(cho_factor(K + damping * xp.eye(len(g))), g)
    return xp.concatenate([c @ block for block in blocks])  # block.T @ c takes 5 times as long


def march(step, state, controls):
    """One compiled loop over the time steps."""
    return lax.scan(lambda state, u: (step(state, u), None), state, controls)[0]


def crank_nicolson(diagonal, off, psi, controls):
    """All steps psi = 2 A^(-1) psi - psi, with a dense A."""
    ones = jnp.ones(len(psi) - 1)
    beside = off * (jnp.diag(ones, 1) + jnp.diag(ones, -1))

    def step(psi, u):
        return 2 * jnp.linalg.solve(jnp.diag(diagonal(u)) + beside, psi) - psi

    return march(step, psi, controls)


def tuned_crank_nicolson(diagonal, off, psi, controls):
    """The same with a tridiagonal A."""
    return march(lambda psi, u: 2 * solve(off, diagonal(u), psi) - psi, psi, controls)


def solve(off, diagonal, psi):
    """A^(-1) psi, A = tridiag(off, diagonal, off), differentiated as a solution, not as a loop.

    A solution's derivative needs one more solve and no record of the elimination. The Jacobian of
    the dipole at b = 16 takes 5 to 6 times as long with `jnp.linalg.solve` on a dense A, twice as
    long with `lax.linalg.tridiagonal_solve`, and about 1.5 times with the bare loops of `thomas`.
    """

    def matvec(phi):
        zero = jnp.zeros_like(phi[:1])
        left, right = jnp.concatenate([zero, phi[:-1]]), jnp.concatenate([phi[1:], zero])
        return diagonal * phi + off * (left + right)

    return lax.custom_linear_solve(
        matvec, psi, lambda _, psi: thomas(off, diagonal, psi), symmetric=True
    )


def thomas(off, diagonal, psi):
    """Eliminate down the diagonal, with the inverse pivots r, and substitute up again."""

    def eliminate(above, row):
        (r, y), (d, z) = above, row
        here = 1 / (d - off * off * r), z - off * r * y
        return here, here

    def substitute(below, row):
        r, y = row
        phi = (y - off * below) * r
        return phi, phi

    zero = jnp.zeros_like(psi[0])
    _, rows = lax.scan(eliminate, (zero, zero), (diagonal, psi))
    return lax.scan(substitute, zero, rows, reverse=True)[1]


LIBRARY = formulas.Library(jnp, jax.vmap, jax.jacrev, jax.grad, march, crank_nicolson)
TUNED = LIBRARY._replace(crank_nicolson=tuned_crank_nicolson)
