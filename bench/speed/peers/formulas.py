"""What the JAX and the PyTorch rival write alike: one sample's network, physics and loss, the step.

Plain forward formulas; every derivative is the framework's. They are written over a `Library`,
whose ``xp`` is jax.numpy or torch, and for one sample: ``vmap`` makes the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from higcore.losses import Infidelity, SquaredError
from nets.activations import ACTIVATIONS
from nets.layers import Conv1d
from solvers import (
    AtTimes,
    OscillatorChain,
    Poisson2D,
    QuantumDipole,
    RungeKutta4,
    ScaledOutputs,
    Seen,
)


class Library(NamedTuple):
    """What differs between the frameworks.

    Parameters
    ----------
    xp : module
        jax.numpy or torch.
    vmap, jacrev, grad : callable
        The framework's function transformations.
    march : callable
        (step, state, controls) -> the state after ``state = step(state, u)`` for each control u.
    crank_nicolson : callable
        (diagonal, off, psi (n,), u (steps,)) -> the state after the steps psi = 2 A^(-1) psi - psi
        with tridiagonal A: ``diagonal(u_s)`` (n,), and the complex number ``off`` beside it.
    """

    xp: Any
    vmap: Callable
    jacrev: Callable
    grad: Callable
    march: Callable
    crank_nicolson: Callable


def linearised_step(lib, problem, solve, rule):
    """Return the function (theta, x, net_input, target) -> solve(xp, blocks of J, g, **rule) (t,).

    ``solve`` is one of `DECOMPOSITIONS` or the like; J is made sample by sample.
    """
    layers, output = layers_of(problem), sample_output(lib, problem)

    def with_output(*arguments):
        y = output(*arguments)
        return y, y

    def step(theta, x, net_input, target):
        rows = lib.vmap(lib.jacrev(with_output, has_aux=True), (None, 0, 0))
        blocks, y = rows(parameters(theta, layers), x, net_input)
        g = loss_gradient(lib, problem, y, target)
        m = g.shape[0] * g.shape[1]
        blocks = [block.reshape(m, -1) for pair in blocks for block in pair]
        return solve(lib.xp, blocks, g.reshape(m), **rule)

    return step


def layers_of(problem):
    """The layers of its network, which may be inside a loop."""
    return getattr(problem.network, "network", problem.network).layers


def sample_output(lib, problem):
    """Return the function (pairs of W and bias, x, net_input) -> y (|y|,) of one sample."""
    layers = layers_of(problem)

    def output(pairs, x, net_input):
        if problem.solver is None:
            return closed_loop(lib, problem.model, pairs, x)
        return simulate(lib, problem.solver, x, control(lib.xp, layers, pairs, net_input))

    return output


def loss_gradient(lib, problem, y, target):
    """g = dL/dy (b, |y|)."""
    g = lib.vmap(lib.grad(lambda y, target: loss(lib.xp, problem.loss, y, target)))(y, target)
    return g / len(g) if problem.batch_mean else g


def by_svd(xp, blocks, g, tau, kappa=-0.5):
    """V S^kappa U^T g from the SVD of J, factors applied to the vector; blocks (m, t_l) of J."""
    U, s, Vt = xp.linalg.svd(xp.concatenate(blocks, axis=1), full_matrices=False)
    return Vt.T @ (masked_power(xp, s, s > tau * s.max(), kappa) * (U.T @ g))


def by_transposed_svd(xp, blocks, g, tau, kappa=-0.5):
    """The same from the SVD of J^T, which lies in memory as LAPACK wants it: 0.6 times as long."""
    V, s, Ut = xp.linalg.svd(xp.concatenate(blocks, axis=1).T, full_matrices=False)
    return V @ (masked_power(xp, s, s > tau * s.max(), kappa) * (Ut @ g))


def by_eigh(xp, blocks, g, tau, kappa=-0.5):
    """J^T K^((kappa - 1)/2) g with K = J J^T, or the same from J^T J if J has more rows (m, t)."""
    if sum(block.shape[1] for block in blocks) < len(g):
        J = xp.concatenate(blocks, axis=1)
        return gram_power(xp, J.T @ J, J.T @ g, tau, kappa)
    # K needs no joined J, which would cost a copy of all of it.
    c = gram_power(xp, sum(block @ block.T for block in blocks), g, tau, kappa)
    return xp.concatenate([block.T @ c for block in blocks])


def by_pinv(xp, blocks, g, tau, kappa):
    """J^+ g with the pseudo-inverse that the library forms: kappa = -1."""
    assert kappa == -1
    return xp.linalg.pinv(xp.concatenate(blocks, axis=1), rtol=tau) @ g


DECOMPOSITIONS = {
    "svd": by_svd,
    "svd of J^T": by_transposed_svd,
    "eigh": by_eigh,
    "pinv": by_pinv,
}


def gram_power(xp, K, g, tau, kappa):
    """K^((kappa - 1)/2) g over the eigenvalues above tau^2 times the largest."""
    eigenvalues, V = xp.linalg.eigh(K)
    keep = eigenvalues > tau**2 * eigenvalues.max()
    return V @ (masked_power(xp, eigenvalues, keep, (kappa - 1) / 2) * (V.T @ g))


def masked_power(xp, values, keep, power):
    """values^power where kept, else 0; no dropped value meets the power."""
    return xp.where(keep, xp.where(keep, values, 1.0) ** power, 0.0)


def parameters(theta, layers):
    """theta (t,) as pairs of W (n_in, n_out) and bias (n_out,), one a layer."""
    pairs, start = [], 0
    for layer in layers:
        n_out = layer.features if isinstance(layer, Conv1d) else layer.n_out
        split, stop = start + layer.size - n_out, start + layer.size
        pairs.append((theta[start:split].reshape(-1, n_out), theta[split:stop]))
        start = stop
    return pairs


def control(xp, layers, pairs, a):
    """The network's output u (|u|,) for one input a (n_0,)."""
    for layer, (W, bias) in zip(layers, pairs, strict=True):
        if isinstance(layer, Conv1d):
            a = patches(xp, layer, a)
        z = (a @ W + bias).reshape(-1)
        a = activate(xp, layer, z)
    return a


def activate(xp, layer, z):
    """tanh, ReLU or nothing."""
    if layer.activation is ACTIVATIONS["tanh"]:
        return xp.tanh(z)
    if layer.activation is ACTIVATIONS["relu"]:
        return xp.where(z > 0, z, 0.0)
    assert layer.activation is ACTIVATIONS["linear"]
    return z


def patches(xp, layer, a):
    """The ``width`` neighbouring points that each position of a convolution sees, side by side."""
    if layer.channels_first:
        signal = a.reshape(layer.channels, layer.points).T
    else:
        signal = a.reshape(layer.points, layer.channels)
    return xp.concatenate([signal[k : k + layer.positions] for k in range(layer.width)], axis=1)


def loss(xp, kind, y, target):
    """A sample's loss, y and target (|y|,)."""
    if isinstance(kind, SquaredError):
        return kind.factor * ((y - target) ** 2).sum()
    assert isinstance(kind, Infidelity)
    (p, q), (a, b) = y.reshape(2, -1), target.reshape(2, -1)
    return 1 - (p @ a + q @ b) ** 2 - (p @ b - q @ a) ** 2


def simulate(lib, solver, x, u):
    """The solver's output y (|y|,) for one start state x and control u (|u|,)."""
    return SIMULATIONS[type(solver)](lib, solver, x, u)


def closed_loop(lib, loop, pairs, x):
    """The state at the end of a march in which a network sees state and time, x (|x|,)."""
    xp, stepper = lib.xp, loop.stepper
    assert isinstance(stepper, RungeKutta4)
    assert (loop.sees, loop.observe) == (Seen(time=True), AtTimes())
    h = stepper.dt

    def slope(x, u):  # of the one physics that is raced
        return xp.stack([x[1], -xp.sin(x[0]) - u[0]])

    def step(x, share):
        u = control(xp, loop.network.layers, pairs, xp.concatenate([x, share]))
        k1 = slope(x, u)
        k2 = slope(x + h / 2 * k1, u)
        k3 = slope(x + h / 2 * k2, u)
        k4 = slope(x + h * k3, u)
        return x + h / 6 * (k1 + 2 * (k2 + k3) + k4)

    shares = constant(xp, np.arange(loop.steps)[:, None] / loop.steps, x)
    return lib.march(step, x, shares)


def scaled_outputs(lib, solver, x, u):
    """(u_1, gamma u_2)."""
    return u * constant(lib.xp, [1.0, solver.gamma], u)


def poisson(lib, solver, x, u):
    """The five-point Laplacian of u on the grid, u = 0 around it."""
    xp = lib.xp
    field = u.reshape(solver.shape)
    y = second_difference(xp, field) / solver.spacings[0] ** 2
    y = y + second_difference(xp, field.T).T / solver.spacings[1] ** 2
    return y.reshape(-1)


def second_difference(xp, field):
    """f_(i-1) - 2 f_i + f_(i+1) along the first axis."""
    wall = xp.zeros_like(field[:1])
    wide = xp.concatenate([wall, field, wall])
    return wide[:-2] - 2 * field + wide[2:]


def oscillators(lib, solver, x, u):
    """Classical RK4 for the chain, positions and momenta (q, p)."""
    xp, h, n = lib.xp, solver.dt, solver.oscillators
    push = constant(xp, solver.control, x)

    def slope(q, p, u):
        d = q[:-1] - q[1:]
        force = (solver.cubic * d * d + solver.linear) * d
        wall = xp.zeros_like(q[:1])
        chain = xp.concatenate([wall, force, wall])
        return p, push * u - q - chain[1:] + chain[:-1]

    def step(state, u):
        q, p = state
        q1, p1 = slope(q, p, u)
        q2, p2 = slope(q + h / 2 * q1, p + h / 2 * p1, u)
        q3, p3 = slope(q + h / 2 * q2, p + h / 2 * p2, u)
        q4, p4 = slope(q + h * q3, p + h * p3, u)
        return q + h / 6 * (q1 + 2 * (q2 + q3) + q4), p + h / 6 * (p1 + 2 * (p2 + p3) + p4)

    return xp.concatenate(lib.march(step, (x[:n], x[n:]), u))


def dipole(lib, solver, x, u):
    """Crank-Nicolson: psi_next = A^(-1) (2 - A) psi = 2 A^(-1) psi - psi, A = 1 + i dt/2 H(u)."""
    half = solver.dt / 2
    kinetic = half / solver.spacing**2
    position = constant(lib.xp, half * solver.positions, x)

    def diagonal(u):
        return 1 + 1j * (2 * kinetic + u * position)

    real, imag = x.reshape(2, -1)
    psi = lib.crank_nicolson(diagonal, -1j * kinetic, real + 1j * imag, u)
    return lib.xp.concatenate([psi.real, psi.imag])


SIMULATIONS = {
    ScaledOutputs: scaled_outputs,
    Poisson2D: poisson,
    OscillatorChain: oscillators,
    QuantumDipole: dipole,
}


def constant(xp, values, like):
    """Numbers as an array of the framework, in the dtype of another."""
    return xp.asarray(np.asarray(values), dtype=like.dtype)
