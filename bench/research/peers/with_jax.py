"""Peers that take JAX's derivatives: nlls-gram, optimistix, NetKet's formula, Optax."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp

from higcore.losses import Infidelity

from ...speed.peers import formulas
from ...speed.peers.jax_peer import TUNED

jax.config.update("jax_enable_x64", True)


def residuals(problem):
    """The functions (theta, batch) -> r (m,), whose |r|^2 is the sum of the losses, and J (m, t).

    J sample by sample: `jax.jacrev` of all rows at once would go back through the whole batch for
    each.
    """
    layers = problem.network.layers

    def of_sample(theta, x, net_input, target):
        u = formulas.control(jnp, layers, formulas.parameters(theta, layers), net_input)
        return error(jnp, problem.loss, formulas.simulate(TUNED, problem.solver, x, u), target)

    def residual(theta, batch):
        return jax.vmap(of_sample, (None, 0, 0, 0))(theta, *batch).reshape(-1)

    def jacobian(theta, batch):
        J = jax.vmap(jax.jacrev(of_sample), (None, 0, 0, 0))(theta, *batch)
        return J.reshape(-1, len(theta))

    return residual, jacobian


def error(xp, loss, y, target):
    """What a sample's loss is the square of, y and target (|y|,)."""
    if not isinstance(loss, Infidelity):
        return loss.factor**0.5 * (y - target)
    (p, q), (a, b) = y.reshape(2, -1), target.reshape(2, -1)
    real, imaginary = a @ p + b @ q, a @ q - b @ p  # of <target, y>
    along = xp.concatenate([a * real - b * imaginary, a * imaginary + b * real])
    return y - along


def batches(problem, size):
    """The batches of all steps, as JAX arrays."""
    for step in itertools.count():
        yield tuple(map(jnp.asarray, problem.batch(step, size)))


def whole(problem, samples):
    """So many samples of the data, for methods that want all at once."""
    return tuple(map(jnp.asarray, problem.train.take(0, min(samples, problem.train.count))))


def loop(problem, size, clock, step, state):
    """theta, state = step(theta, state, batch) until the clock says so."""
    theta = jnp.asarray(clock.theta)
    step = jax.jit(step)
    jax.block_until_ready(step(theta, state, next(batches(problem, size))))  # compiles
    clock.start(theta)
    for batch in batches(problem, size):
        theta, state = step(theta, state, batch)
        if clock.tick(theta.block_until_ready()):
            return


def nlls_gram(problem, batch, seed, clock, init_damping):
    """Levenberg-Marquardt on the rows of a batch, by Cholesky."""
    from nlls_gram import LevenbergMarquardt

    solver = LevenbergMarquardt(residuals(problem)[0], init_damping=init_damping)
    theta = jnp.asarray(clock.theta)
    state = solver.init(theta, next(batches(problem, batch)))

    def step(theta, state, batch):
        return solver.update(theta, state, batch)[:2]

    loop(problem, batch, clock, step, state)


def optimistix(problem, batch, seed, clock, samples):
    """Levenberg-Marquardt on data that are the same in every step."""
    import equinox
    import optimistix

    (residual, _), data = residuals(problem), whole(problem, samples)

    def function(theta, data):
        return residual(theta, data), None

    solver = optimistix.LevenbergMarquardt(rtol=1e-12, atol=1e-12)
    theta = jnp.asarray(clock.theta)
    shape = jax.eval_shape(function, theta, data)
    arguments = {"args": data, "options": {}, "tags": frozenset()}
    state = solver.init(function, theta, f_struct=shape[0], aux_struct=None, **arguments)
    step = equinox.filter_jit(equinox.Partial(solver.step, function, **arguments))
    jax.block_until_ready(step(y=theta, state=state)[0])
    clock.start(theta)
    while True:
        theta, state, _ = step(y=theta, state=state)
        if clock.tick(theta.block_until_ready()):
            return


def srt(problem, batch, seed, clock, diag_shift, momentum, lr=1.0):
    """NetKet's step on the smaller side with momentum (SPRING), for residuals."""
    residual, jacobian = residuals(problem)

    def step(theta, last, batch):
        scale = len(batch[0]) ** -0.5
        r = scale * residual(theta, batch)
        J = scale * jacobian(theta, batch)
        K = J @ J.T + diag_shift * jnp.eye(len(r))
        seen = jax.scipy.linalg.solve(K, r - momentum * (J @ last), assume_a="pos")
        d = seen @ J + momentum * last  # J.T @ seen and (momentum * J) @ last take 5 times as long
        return theta - lr * d, d

    loop(problem, batch, clock, step, jnp.zeros_like(jnp.asarray(clock.theta)))


def adam(problem, batch, seed, clock, lr):
    """Adam."""
    import optax

    first_order(problem, batch, clock, optax.adam(lr), lambda theta: theta, lambda tree: tree)


def muon(problem, batch, seed, clock, lr):
    """Muon on the matrices of weights, Adam on the rest."""
    import optax

    layers = problem.network.layers

    def split(theta):
        return [list(pair) for pair in formulas.parameters(theta, layers)]

    def join(pairs):
        return jnp.concatenate([part.reshape(-1) for pair in pairs for part in pair])

    first_order(problem, batch, clock, optax.contrib.muon(lr), split, join)


def first_order(problem, batch, clock, optimizer, split, join):
    """Steps of an Optax optimizer on parameters as it wants them."""
    residual, _ = residuals(problem)

    def loss(parameters, batch):
        return (residual(join(parameters), batch) ** 2).sum() / len(batch[0])

    def step(theta, state, batch):
        parameters = split(theta)
        gradient = jax.grad(loss)(parameters, batch)
        change, state = optimizer.update(gradient, state, parameters)
        return theta + join(change), state

    loop(problem, batch, clock, step, optimizer.init(split(jnp.asarray(clock.theta))))
