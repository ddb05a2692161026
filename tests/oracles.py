"""References that share no code with what they check: NumPy's SVD, differences, plain formulas."""

import numpy as np


def half_inverse_by_svd(J, g, kappa, tau, relative=True, beta=0.0):
    """max(S)^beta V S^kappa U^T g over the modes above the cutoff, by NumPy's SVD."""
    U, s, Vt = np.linalg.svd(np.asarray(J, float), full_matrices=False)
    keep = s > (tau * s[0] if relative else tau)
    if not keep.any():
        return np.zeros(J.shape[1])
    return s[0] ** beta * Vt[keep].T @ (s[keep] ** kappa * (U[:, keep].T @ g))


def mlp(theta, x, sizes, activation):
    """A dense network written out for real or complex theta."""
    a, start = x, 0
    for k in range(len(sizes) - 1):
        n_in, n_out = sizes[k], sizes[k + 1]
        W = theta[start : start + n_in * n_out].reshape(n_in, n_out)
        start += n_in * n_out
        z = a @ W + theta[start : start + n_out]
        start += n_out
        last = k == len(sizes) - 2
        a = z if last or activation == "linear" else ACTIVATIONS[activation](z)
    return a


ACTIVATIONS = {"tanh": np.tanh, "relu": lambda z: z * (z.real > 0)}


def oscillator_force(q, u, chain):
    """Acceleration of a chain, one spring at a time, for real or complex q (n,)."""
    force = np.array(chain.control) * u - q
    for i in range(len(q)):
        for j in (i - 1, i + 1):
            if 0 <= j < len(q):
                d = q[i] - q[j]
                force[i] = force[i] - chain.cubic * d**3 - chain.linear * d
    return force


def oscillators(x, u, chain):
    """Textbook RK4 on the first-order system, one sample, real or complex: x (2n,), u (steps,)."""
    n, h = chain.oscillators, chain.dt

    def slope(state, control):
        return np.concatenate([state[n:], oscillator_force(state[:n], control, chain)])

    state = x + 0 * u[0]
    for control in u:
        k1 = slope(state, control)
        k2 = slope(state + h / 2 * k1, control)
        k3 = slope(state + h / 2 * k2, control)
        k4 = slope(state + h * k3, control)
        state = state + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return state


def complex_step_jacobian(function, v, h=1e-30):
    """df/dv (outputs, inputs) by the complex step: exact to rounding, no subtraction."""
    columns = []
    for k in range(len(v)):
        shifted = v.astype(complex)
        shifted[k] += 1j * h
        columns.append(np.asarray(function(shifted)).imag.ravel() / h)
    return np.stack(columns, axis=1)


def central_difference_jacobian(function, v, h=1e-5):
    """df/dv (outputs, inputs) by central differences."""
    columns = []
    for k in range(len(v)):
        e = np.zeros_like(v)
        e[k] = h
        columns.append((function(v + e) - function(v - e)).ravel() / (2 * h))
    return np.stack(columns, axis=1)
