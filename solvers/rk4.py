r"""Classical Runge-Kutta for q'' = a(q, u) with a control u held constant over each step.

With x = (q, p), p = q', step h and a_k the acceleration seen by stage k,

    q_k = q + c_k h p + d_k h^2 a_(k-2)      c = (0, 1/2, 1/2, 1),  d = (0, 0, 1/4, 1/2)
    q+  = q + h p + h^2/6 (a_0 + a_1 + a_2)
    p+  = p + h/6 (a_0 + 2 a_1 + 2 a_2 + a_3)

which is the usual four-stage scheme after the slopes of q, all known from q' = p, are eliminated.

Scratch arrays end in an axis of the samples that are worked on together, ``width`` of them:
x (2n, width) a state, u (width,) its control, a (4, n, width) accelerations of the stages and
q (4, n, width) their positions. The march of all b samples is X (steps + 1, 2n, b), its controls
U (steps, b). ``physics`` is handed on to the three functions that describe the system:

    acceleration(width, physics, q, u, a)                          a     = a(q, u)
    acceleration_tangent(width, physics, q, dq, du, da)            da    = a_q dq + a_u du
    acceleration_adjoint(width, physics, q, a_bar, q_bar, u_bar)   q_bar = a_q^T a_bar,
                                                                   u_bar += a_u^T a_bar
"""

from .samples import load, store

NODE = (0.0, 0.5, 0.5, 1.0)
COUPLING = (0.0, 0.0, 0.25, 0.5)


def stage_position(width, k, h, x, a, q):
    """q[k] = x_q + c_k h x_p + d_k h^2 a[k-2]."""
    n = q.shape[1]
    for j in range(n):
        for i in range(width):
            q[k, j, i] = x[j, i] + NODE[k] * h * x[n + j, i]
        if k >= 2:
            for i in range(width):
                q[k, j, i] += COUPLING[k] * h * h * a[k - 2, j, i]


def stage_position_adjoint(width, k, h, q_bar, x_bar, a_bar):
    """Transpose of `stage_position`, added to x_bar and a_bar."""
    n = q_bar.shape[0]
    for j in range(n):
        for i in range(width):
            x_bar[j, i] += q_bar[j, i]
            x_bar[n + j, i] += NODE[k] * h * q_bar[j, i]
        if k >= 2:
            for i in range(width):
                a_bar[k - 2, j, i] += COUPLING[k] * h * h * q_bar[j, i]


def advance(width, h, x, a):
    """x <- (q+, p+), by the accelerations of the stages."""
    n = a.shape[1]
    for j in range(n):
        for i in range(width):
            outer = a[1, j, i] + a[2, j, i]
            q_sum = a[0, j, i] + outer
            p_sum = q_sum + outer + a[3, j, i]
            x[j, i] += h * x[n + j, i] + h * h / 6.0 * q_sum
            x[n + j, i] += h / 6.0 * p_sum


def advance_adjoint(width, h, x_bar, a_bar):
    """Transpose of `advance`: sets a_bar and turns x_bar, of (q+, p+), into that of x."""
    n = a_bar.shape[1]
    for j in range(n):
        for i in range(width):
            from_q = h * h / 6.0 * x_bar[j, i]
            from_p = h / 6.0 * x_bar[n + j, i]
            a_bar[0, j, i] = from_q + from_p
            a_bar[1, j, i] = from_q + 2.0 * from_p
            a_bar[2, j, i] = from_q + 2.0 * from_p
            a_bar[3, j, i] = from_p
            x_bar[n + j, i] += h * x_bar[j, i]


def stages(width, acceleration, physics, h, x, u, q, a):
    """Positions and accelerations of the four stages of the step that starts at x."""
    for k in range(4):
        stage_position(width, k, h, x, a, q)
        acceleration(width, physics, q[k], u, a[k])


def pull_step(width, acceleration_adjoint, physics, h, q, x_bar, u_bar, a_bar, q_bar):
    """Turn x_bar, of the end of a step, into that of its start; u_bar that of its control.

    q are the positions of the stages; a_bar (4, n, width) and q_bar (n, width) are scratch.
    """
    for i in range(width):
        u_bar[i] = 0.0
    advance_adjoint(width, h, x_bar, a_bar)
    for stage in range(3, -1, -1):
        acceleration_adjoint(width, physics, q[stage], a_bar[stage], q_bar, u_bar)
        stage_position_adjoint(width, stage, h, q_bar, x_bar, a_bar)


def solve(lo, hi, acceleration, physics, h, U, X, x, u, q, a):
    """March X[0] through all steps."""
    width = hi - lo
    load(lo, width, X[0], x)
    for s in range(U.shape[0]):
        load(lo, width, U[s : s + 1], u)
        stages(width, acceleration, physics, h, x, u[0], q, a)
        advance(width, h, x, a)
        store(lo, width, x, X[s + 1])


def tangent(
    lo, hi, acceleration, acceleration_tangent, physics, h, U, dU, X, dX, x, u, q, a, dx, du, dq, da
):
    """Turn dX (2n, b) of the start state into that of the final one, along dU (steps, b)."""
    width = hi - lo
    load(lo, width, dX, dx)
    for s in range(U.shape[0]):
        load(lo, width, X[s], x)
        load(lo, width, U[s : s + 1], u)
        load(lo, width, dU[s : s + 1], du)
        stages(width, acceleration, physics, h, x, u[0], q, a)
        for k in range(4):
            stage_position(width, k, h, dx, da, dq)
            acceleration_tangent(width, physics, q[k], dq[k], du[0], da[k])
        advance(width, h, dx, da)
    store(lo, width, dx, dX)


def sweep(
    lo, hi, first, last, acceleration, acceleration_adjoint, physics, h, U, X, X_bar, U_bar,
    x, u, q, a, x_bar, u_bar, a_bar, q_bar,
):  # fmt: skip
    """Pull cotangents of the final state, X_bar (r, 2n, b), back to U_bar (r, steps, b).

    X_bar becomes that of the start state.
    One backward march for the cotangents first <= k < last: the stages of a step are recomputed
    once, from the stored X, and used for each. x_bar (last - first, 2n, width) is scratch.
    """
    width = hi - lo
    for k in range(first, last):
        load(lo, width, X_bar[k], x_bar[k - first])
    for s in range(U.shape[0] - 1, -1, -1):
        load(lo, width, X[s], x)
        load(lo, width, U[s : s + 1], u)
        stages(width, acceleration, physics, h, x, u[0], q, a)
        for k in range(first, last):
            own = x_bar[k - first]
            pull_step(width, acceleration_adjoint, physics, h, q, own, u_bar[0], a_bar, q_bar)
            store(lo, width, u_bar, U_bar[k, s : s + 1])
    for k in range(first, last):
        store(lo, width, x_bar[k - first], X_bar[k])
