r"""Classical Runge-Kutta for q'' = a(q, u) with a control u held constant over each step.

With x = (q, p), p = q', step h and a_k the acceleration seen by stage k,

    q_k = q + c_k h p + d_k h^2 a_(k-2)      c = (0, 1/2, 1/2, 1),  d = (0, 0, 1/4, 1/2)
    q+  = q + h p + h^2/6 (a_0 + a_1 + a_2)
    p+  = p + h/6 (a_0 + 2 a_1 + 2 a_2 + a_3)

which is the usual four-stage scheme after the slopes of q, all known from q' = p, are eliminated.

All functions work on the samples lo <= i < hi, the last axis of every array:
x (2n, b) a state, a (4, n, b) accelerations of the stages, q (4, n, b) their positions.
``physics`` is handed on to the three functions that describe the system:

    acceleration(lo, hi, physics, q, u, a)                          a     = a(q, u)
    acceleration_tangent(lo, hi, physics, q, dq, du, da)            da    = a_q dq + a_u du
    acceleration_adjoint(lo, hi, physics, q, a_bar, q_bar, u_bar)   q_bar = a_q^T a_bar,
                                                                    u_bar += a_u^T a_bar
"""

from numba.extending import register_jitable

NODE = (0.0, 0.5, 0.5, 1.0)
COUPLING = (0.0, 0.0, 0.25, 0.5)


@register_jitable
def stage_position(lo, hi, k, h, x, a, q):
    """q[k] = x_q + c_k h x_p + d_k h^2 a[k-2]."""
    n = q.shape[1]
    for j in range(n):
        for i in range(lo, hi):
            q[k, j, i] = x[j, i] + NODE[k] * h * x[n + j, i]
        if k >= 2:
            for i in range(lo, hi):
                q[k, j, i] += COUPLING[k] * h * h * a[k - 2, j, i]


@register_jitable
def stage_position_adjoint(lo, hi, k, h, q_bar, x_bar, a_bar):
    """Transpose of `stage_position`, added to x_bar and a_bar."""
    n = q_bar.shape[0]
    for j in range(n):
        for i in range(lo, hi):
            x_bar[j, i] += q_bar[j, i]
            x_bar[n + j, i] += NODE[k] * h * q_bar[j, i]
        if k >= 2:
            for i in range(lo, hi):
                a_bar[k - 2, j, i] += COUPLING[k] * h * h * q_bar[j, i]


@register_jitable
def advance(lo, hi, h, x, a, x_next):
    """x_next = (q+, p+) from x and the accelerations of the stages; may work in place."""
    n = a.shape[1]
    for j in range(n):
        for i in range(lo, hi):
            outer = a[1, j, i] + a[2, j, i]
            q_sum = a[0, j, i] + outer
            p_sum = q_sum + outer + a[3, j, i]
            x_next[j, i] = x[j, i] + h * x[n + j, i] + h * h / 6.0 * q_sum
            x_next[n + j, i] = x[n + j, i] + h / 6.0 * p_sum


@register_jitable
def advance_adjoint(lo, hi, h, x_bar, a_bar):
    """Transpose of `advance`: sets a_bar and turns x_bar, of x_next, into that of x."""
    n = a_bar.shape[1]
    for j in range(n):
        for i in range(lo, hi):
            from_q = h * h / 6.0 * x_bar[j, i]
            from_p = h / 6.0 * x_bar[n + j, i]
            a_bar[0, j, i] = from_q + from_p
            a_bar[1, j, i] = from_q + 2.0 * from_p
            a_bar[2, j, i] = from_q + 2.0 * from_p
            a_bar[3, j, i] = from_p
            x_bar[n + j, i] += h * x_bar[j, i]


@register_jitable
def stages(lo, hi, acceleration, physics, h, x, u, q, a):
    """Positions and accelerations of the four stages of the step that starts at x."""
    for k in range(4):
        stage_position(lo, hi, k, h, x, a, q)
        acceleration(lo, hi, physics, q[k], u, a[k])


@register_jitable
def solve(lo, hi, acceleration, physics, h, u, x, q, a):
    """March x[0] through all steps: u (steps, b), x (steps + 1, 2n, b)."""
    for s in range(u.shape[0]):
        stages(lo, hi, acceleration, physics, h, x[s], u[s], q, a)
        advance(lo, hi, h, x[s], a, x[s + 1])


@register_jitable
def tangent(lo, hi, acceleration, acceleration_tangent, physics, h, u, du, x, q, a, dx, dq, da):
    """Derivative of the final state along du (steps, b); dx (2n, b) goes from start to end."""
    for s in range(u.shape[0]):
        stages(lo, hi, acceleration, physics, h, x[s], u[s], q, a)
        for k in range(4):
            stage_position(lo, hi, k, h, dx, da, dq)
            acceleration_tangent(lo, hi, physics, q[k], dq[k], du[s], da[k])
        advance(lo, hi, h, dx, da, dx)


@register_jitable
def sweep(
    lo, hi, acceleration, acceleration_adjoint, physics, h, u, x, q, a, x_bar, a_bar, q_bar, u_bar
):
    """Pull r cotangents of the final state, x_bar (r, 2n, b), back to u_bar (r, steps, b).

    One backward march for all of them: the stages of a step are recomputed once, from the
    stored x (steps + 1, 2n, b), and used r times. x_bar ends as the cotangent of x[0].
    """
    for s in range(u.shape[0] - 1, -1, -1):
        stages(lo, hi, acceleration, physics, h, x[s], u[s], q, a)
        for r in range(x_bar.shape[0]):
            for i in range(lo, hi):
                u_bar[r, s, i] = 0.0
            advance_adjoint(lo, hi, h, x_bar[r], a_bar)
            for k in range(3, -1, -1):
                acceleration_adjoint(lo, hi, physics, q[k], a_bar[k], q_bar, u_bar[r, s])
                stage_position_adjoint(lo, hi, k, h, q_bar, x_bar[r], a_bar)
