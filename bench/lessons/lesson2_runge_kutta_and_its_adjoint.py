# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Lesson 2: Runge-Kutta, its tangent and its adjoint
#
# Training through a solver needs S = dy/du, the derivative of the final state with respect to the
# control. Two programs give it without any framework: the *tangent*, v -> S v, which
# differentiates the march line by line, and the *adjoint*, w -> S^T w, which runs the transposed
# lines backwards. Here both are written for the paper's oscillators, then tested, then broken on
# purpose.

# %%
import numpy as np
from matplotlib.figure import Figure

from bench.lessons import show
from bench.style import STYLES
from higcore import dot_test, taylor_test
from solvers import OscillatorChain

rng = np.random.default_rng(2)

# %% [markdown]
# ## The system
#
# Two oscillators, coupled by a cubic spring and pushed by one control u(t). The Hamiltonian of
# eq. 8 gives x' = f(x, u) for x = (q_1, q_2, p_1, p_2):
#
# $$q_i' = p_i, \qquad p_i' = -q_i + \mathrm{pull}_i\,(q_1 - q_2)^3 + c_i u$$
#
# The spring pulls the two oscillators in opposite directions: pull = (-1, +1). It is an argument,
# so that it can be given a wrong sign later.
#
# Two numbers are not the paper's but those of the authors' code, as everywhere in this library. The
# derivative of $\alpha (q_1 - q_2)^4$ puts $4 \alpha$ before the cube, which is 4 for the
# $\alpha = 1$ of B.2; the code has 1 there, so $\alpha = 1/4$. And eq. 8 pushes with $-c_i u$, the
# code with $+c_i u$, which only turns the sign of the control.

# %%
PULL = np.array([-1.0, 1.0])
CONTROL = np.array([0.0, 3.0])  # c: the control acts on the second oscillator
STEPS, H = 96, 0.125


def slope(x, u, pull=PULL):
    """f(x, u)."""
    q, p = x[:2], x[2:]
    return np.concatenate([p, -q + pull * (q[0] - q[1]) ** 3 + CONTROL * u])


# %% [markdown]
# ## One step, and the march
#
# The classical Runge-Kutta scheme. The control is constant during a step. The march keeps the state
# before every step: the derivatives will need them.


# %%
def stages(x, u, pull, h=H):
    """The four states at which the scheme asks for a slope, and these slopes."""
    x_1 = x
    k_1 = slope(x_1, u, pull)
    x_2 = x + h / 2 * k_1
    k_2 = slope(x_2, u, pull)
    x_3 = x + h / 2 * k_2
    k_3 = slope(x_3, u, pull)
    x_4 = x + h * k_3
    k_4 = slope(x_4, u, pull)
    return (x_1, x_2, x_3, x_4), (k_1, k_2, k_3, k_4)


def step(x, u, pull=PULL, h=H):
    """The state one step later."""
    _, (k_1, k_2, k_3, k_4) = stages(x, u, pull, h)
    return x + h / 6 * (k_1 + 2 * k_2 + 2 * k_3 + k_4)


def march(x, u, pull=PULL, h=H):
    """All states (steps + 1, 4) from the start x (4,) under the control u (steps,)."""
    states = [x]
    for control in u:
        states.append(step(states[-1], control, pull, h))
    return np.array(states)


x_0 = rng.random(4)
u = 0.3 * np.sin(np.linspace(0, 7, STEPS))

# %% [markdown]
# Is this the scheme it claims to be? Halving the step of a fourth-order scheme divides the error by
# 16. (Every control value is held for two, four, ... of the shorter steps.)

# %%
ends = [march(x_0, np.repeat(u, 2**k), h=H / 2**k)[-1] for k in range(5)]
differences = np.linalg.norm(np.diff(ends, axis=0), axis=1)
orders = np.log2(differences[:-1] / differences[1:])
print("observed orders:", orders.round(2))
assert abs(orders[-1] - 4) < 0.3

# %% [markdown]
# It is. Now the derivatives.
#
# ## The tangent
#
# Differentiate every line in the direction (dx, du). The lines stay in their order, and each slope
# k becomes $dk = f_x\,dx + f_u\,du$ at the stage where it was taken.


# %%
def slope_tangent(x, dx, du, pull=PULL):
    """f_x dx + f_u du."""
    q, dq, dp = x[:2], dx[:2], dx[2:]
    stiffness = 3 * (q[0] - q[1]) ** 2
    return np.concatenate([dp, -dq + pull * stiffness * (dq[0] - dq[1]) + CONTROL * du])


def step_tangent(x, u, dx, du, pull=PULL, tangent_pull=PULL):
    """The derivative of `step` in the direction (dx, du)."""
    (x_1, x_2, x_3, x_4), _ = stages(x, u, pull)
    dk_1 = slope_tangent(x_1, dx, du, tangent_pull)
    dk_2 = slope_tangent(x_2, dx + H / 2 * dk_1, du, tangent_pull)
    dk_3 = slope_tangent(x_3, dx + H / 2 * dk_2, du, tangent_pull)
    dk_4 = slope_tangent(x_4, dx + H * dk_3, du, tangent_pull)
    return dx + H / 6 * (dk_1 + 2 * dk_2 + 2 * dk_3 + dk_4)


def march_tangent(x, u, du, pull=PULL, tangent_pull=PULL):
    """S du (4,), the derivative of the final state along du (steps,)."""
    dx = np.zeros(4)
    for state, control, dcontrol in zip(march(x, u, pull)[:-1], u, du, strict=True):
        dx = step_tangent(state, control, dx, dcontrol, pull, tangent_pull)
    return dx


# %% [markdown]
# ## The adjoint
#
# A line `b = A a` turns into `a_bar += A^T b_bar`, and the lines run from last to first. So k_4,
# made last, is pulled back first, and what it finds is handed on to k_3 by the line
# `x_4 = x + h k_3`. The cotangent of x collects from every line in which x stands.


# %%
def slope_adjoint(x, k_bar, pull=PULL):
    """(f_x^T k_bar, f_u^T k_bar)."""
    q, q_bar, p_bar = x[:2], k_bar[:2], k_bar[2:]
    spring_bar = 3 * (q[0] - q[1]) ** 2 * (pull @ p_bar)
    x_bar = np.concatenate([-p_bar + np.array([spring_bar, -spring_bar]), q_bar])
    return x_bar, CONTROL @ p_bar


def step_adjoint(x, u, next_bar, pull=PULL, adjoint_pull=PULL):
    """(x_bar, u_bar) of a step whose result has the cotangent next_bar."""
    (x_1, x_2, x_3, x_4), _ = stages(x, u, pull)
    x_4_bar, u_4_bar = slope_adjoint(x_4, H / 6 * next_bar, adjoint_pull)
    x_3_bar, u_3_bar = slope_adjoint(x_3, H / 3 * next_bar + H * x_4_bar, adjoint_pull)
    x_2_bar, u_2_bar = slope_adjoint(x_2, H / 3 * next_bar + H / 2 * x_3_bar, adjoint_pull)
    x_1_bar, u_1_bar = slope_adjoint(x_1, H / 6 * next_bar + H / 2 * x_2_bar, adjoint_pull)
    x_bar = next_bar + x_1_bar + x_2_bar + x_3_bar + x_4_bar
    return x_bar, u_1_bar + u_2_bar + u_3_bar + u_4_bar


def march_adjoint(x, u, y_bar, pull=PULL, adjoint_pull=PULL):
    """S^T y_bar (steps,) for a cotangent y_bar (4,) of the final state."""
    x_bar, u_bar = y_bar, np.zeros(len(u))
    states = march(x, u, pull)
    for n in reversed(range(len(u))):
        x_bar, u_bar[n] = step_adjoint(states[n], u[n], x_bar, pull, adjoint_pull)
    return u_bar


# %% [markdown]
# ## Three tests
#
# - *Dot test*: $\langle w, S v\rangle = \langle S^\top w, v\rangle$ to rounding, for random v and
#   w, says that the two programs are each other's transpose.
# - *Taylor test*: $|y(u + h d) - y(u) - h S d|$ falls like $h^2$ only if the tangent is the
#   derivative of the march. `taylor_test` returns the observed orders.
# - *Differences*: the rows that four adjoint sweeps give, against two marches a control value.

# %%
v, w = rng.standard_normal(STEPS), rng.standard_normal(4)
mismatch = dot_test(lambda v: march_tangent(x_0, u, v), lambda w: march_adjoint(x_0, u, w), v, w)
orders = taylor_test(lambda u: march(x_0, u)[-1], lambda u, d: march_tangent(x_0, u, d), u, v)
print(f"dot test {mismatch:.1e}, Taylor orders {np.round(orders, 3)}")
assert mismatch < 1e-12
assert abs(orders[-1] - 2) < 0.1

# %%
S = np.array([march_adjoint(x_0, u, row) for row in np.eye(4)])  # four sweeps
columns = [
    (march(x_0, u + 1e-5 * e)[-1] - march(x_0, u - 1e-5 * e)[-1]) / 2e-5 for e in np.eye(STEPS)
]
differences = np.array(columns).T  # 192 marches
error = np.abs(S - differences).max() / np.abs(S).max()
print(f"S {S.shape} by 4 sweeps, against {2 * STEPS} marches: relative difference {error:.1e}")
assert 1e-13 < error < 1e-7

# %% [markdown]
# All three hold. The adjoint gives exact rows for the price of |y| = 4 sweeps, where differences
# take two marches for each of the 96 control values and end far above rounding.
#
# ## What a wrong sign looks like
#
# Turn one sign, pull = (-1, -1), in some of the three programs. This is no invented mistake: it is
# how eq. 20 of the paper prints the force. Beside the first two tests, watch a law of physics: with
# the control off, the energy of eq. 8 must not change, but for the small error of the scheme. (The
# march begins at twice x_0, where the spring pulls harder.)

# %%
PRINTED = np.array([-1.0, -1.0])
CASES = {
    "all signs right": (PULL, PULL, PULL),
    "wrong in the adjoint": (PULL, PULL, PRINTED),
    "wrong in the tangent": (PULL, PRINTED, PULL),
    "wrong in tangent and adjoint": (PULL, PRINTED, PRINTED),
    "wrong in all three": (PRINTED, PRINTED, PRINTED),
}


def energy(states):
    """H of eq. 8 without control, with alpha = 1/4."""
    q, p = states[:, :2], states[:, 2:]
    return 0.5 * (q**2 + p**2).sum(axis=1) + 0.25 * (q[:, 0] - q[:, 1]) ** 4


def remainders(sizes, Sv, pull=PULL):
    """|y(u + h v) - y(u) - h Sv| for every h in ``sizes``."""
    y = march(x_0, u, pull)[-1]
    return [np.linalg.norm(march(x_0, u + h * v, pull)[-1] - y - h * Sv) for h in sizes]


found = {}
for name, (pull, tangent_pull, adjoint_pull) in CASES.items():
    mismatch = dot_test(
        lambda v, p=pull, t=tangent_pull: march_tangent(x_0, u, v, p, t),
        lambda w, p=pull, a=adjoint_pull: march_adjoint(x_0, u, w, p, a),
        v,
        w,
    )
    Sv = march_tangent(x_0, u, v, pull, tangent_pull)
    order = np.log2(np.divide(*remainders([1e-3, 5e-4], Sv, pull)))
    free = energy(march(2 * x_0, 0 * u, pull))
    drift = np.ptp(free) / free[0]
    found[name] = mismatch, order, drift
    print(f"{name:28s}: dot test {mismatch:7.0e}, Taylor order {order:.2f}, energy {drift:.0e}")

# %% [markdown]
# - A wrong adjoint fails the dot test, and the Taylor test cannot see it: it never calls it.
# - A wrong tangent fails both.
# - The same mistake in tangent and adjoint passes the dot test: they are each other's transpose, of
#   the wrong matrix. Only the Taylor test finds it.
# - The same mistake in all three passes both tests: right derivatives of the wrong physics. Only a
#   law of physics finds it; here the energy. So a solver needs all three kinds of test.

# %%
passed = {
    name: (mismatch < 1e-12, abs(order - 2) < 0.1, drift < 1e-3)
    for name, (mismatch, order, drift) in found.items()
}
assert passed == {
    "all signs right": (True, True, True),
    "wrong in the adjoint": (False, True, True),
    "wrong in the tangent": (False, False, True),
    "wrong in tangent and adjoint": (True, False, True),
    "wrong in all three": (True, True, False),
}

# %%
figure = Figure(figsize=(13, 4), layout="constrained")
path, taylor, law = figure.subplots(1, 3)
times = H * np.arange(STEPS + 1)
for k, label in enumerate(("$q_1$", "$q_2$", "$p_1$", "$p_2$")):
    path.plot(
        times, march(x_0, u)[:, k], "-" if k < 2 else "--", color=STYLES[k % 2][0], label=label
    )
path.fill_between(times[:-1], u, step="post", color="#9ec3e6", alpha=0.6, label="u")
path.set(title="the march", xlabel="time t", ylabel="positions q, momenta p, control u")
path.legend(frameon=False, ncols=3)

sizes = 2.0 ** -np.arange(4, 30)
curves = {
    "no tangent: slope 1": np.zeros(4),
    "wrong sign: slope 1": march_tangent(x_0, u, v, tangent_pull=PRINTED),
    "right: slope 2": march_tangent(x_0, u, v),
}
for (label, Sv), (color, _), marker in zip(curves.items(), STYLES[::-1], "osD", strict=False):
    taylor.loglog(sizes, remainders(sizes, Sv), marker, ms=4, mfc="none", color=color, label=label)
for order, scale, label in ((1, 60.0, "guides: h and $h^2$"), (2, 15.0, None)):
    taylor.loglog(sizes, scale * sizes**order, color="#999999", lw=0.8, label=label)
taylor.set(title="$|y(u + h v) - y(u) - h S v|$", xlabel="h", ylim=(1e-17, 300))
taylor.legend(frameon=False)

for label, pull, (color, dash) in (
    ("eq. 8", PULL, STYLES[0]),
    ("eq. 20 as printed", PRINTED, STYLES[1]),
):
    law.plot(times, energy(march(2 * x_0, 0 * u, pull)), dash, color=color, label=label)
law.set(title="energy without control", xlabel="time t", ylim=(0, None))
law.legend(frameon=False)
show(figure, "lesson2-tests.png")

# %% [markdown]
# The remainder of the right tangent falls with slope 2 until rounding stops it; that of the wrong
# one falls like that of no tangent at all.
#
# ## The same in the library
#
# `solvers.OscillatorChain` eliminates the slopes of q, since q' = p, and marches a whole batch in
# compiled code; its adjoint pulls back all four rows in one sweep.

# %%
chain = OscillatorChain(oscillators=2, steps=STEPS, dt=H, control=tuple(CONTROL))
x, controls = x_0[None], u[None]  # a batch of one
end, rows = chain.jacobian(x, controls)
assert np.allclose(end[0], march(x_0, u)[-1], rtol=0, atol=1e-12)
assert np.allclose(chain.tangent(x, controls, v[None])[0], march_tangent(x_0, u, v), atol=1e-11)
assert np.allclose(chain.adjoint(x, controls, w[None])[0], march_adjoint(x_0, u, w), atol=1e-11)
assert np.allclose(rows[0], S, atol=1e-11)
print("largest difference in S:", np.abs(rows[0] - S).max())

# %% [markdown]
# March, tangent, adjoint and rows agree to rounding.
