# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     name: python3
# ---

# %% [markdown]
# # Lesson 5: a solver of your own
#
# The paper trains networks through a physics solver: a network looks at the state x and gives a
# control u, the solver marches, and the loss compares its end y with what was wanted (eq. 2). All
# that training asks of the solver is how y changes with u. In this lesson you write a solver in
# plain array code, derive its tangent and adjoint by hand, have them checked, and train through it
# with half-inverse gradients (eq. 5-7) and with Adam.
#
# Numbers of equations are the paper's; equations without a number are not in it. Run this file,
# `python -m bench.lessons.lesson5_your_own_solver [folder]`, or open it as a notebook.

# %%
import dataclasses

import numpy as np
from matplotlib.figure import Figure

from bench.lessons import show
from bench.style import STYLES
from higcore import HIG, Adam, Batch, Problem, check_solver, fit
from higcore.backend import array_module
from higcore.losses import SquaredError
from nets import MLP
from solvers import Solver

# %% [markdown]
# ## The physics
#
# The viscous Burgers equation for a velocity v(x, t) on a ring, 0 <= x < 2 pi,
#
#     v_t + (v^2 / 2)_x = nu v_xx + f(x, t),
#
# is fluid dynamics in one dimension: what is fast overtakes what is slow and steepens into a front,
# which viscosity smears. Eight jets around the ring push, f(x, t) = sum_k u_k(t) B_k(x), with bumps
# B_k, and each may change its strength four times. So u has 8 x 4 = 32 numbers.
#
# On n points, D v is the central first difference and L v the second one, two matrices. On a ring
# they have a property that is worth everything in a moment:
#
#     D^T = -D,    L^T = L.
#
# A step of the explicit Euler scheme, and what is measured at the end by eight sensors C:
#
#     v+ = v + h (nu L v - D (v v) / 2 + f),    y = C v(T)
#
# ## The tangent: differentiate every line
#
# Change u a little, and let dv be what happens to v. Every line of the solver, differentiated:
#
#     dv+ = dv + h (nu L dv - D (v dv) + df),    dv(0) = 0,    dy = C dv(T)
#
# ## The adjoint: transpose every line, last line first
#
# One step is a matrix, dv+ = A dv + h df with A = 1 + h (nu L - D diag(v)). Its transpose is
# A^T = 1 + h (nu L^T - diag(v) D^T), and with the property above
#
#     v_bar(T) = C^T y_bar,    f_bar = h v_bar+,    v_bar = v_bar+ + h (nu L v_bar+ + v D v_bar+)
#
# which is a solver too: it runs backwards in time and carries cotangents upstream along v. It needs
# the velocities of the forward march, so these are kept.

# %%


class Burgers(Solver):
    """Viscous Burgers equation on a ring, pushed by jets, seen by sensors."""

    def __init__(self, points=32, steps=48, dt=0.02, viscosity=0.1, jets=8, pulses=4, sensors=8):
        self.steps, self.dt, self.viscosity = steps, dt, viscosity
        self.jets, self.pulses = jets, pulses
        self.state_size, self.control_size, self.output_size = points, jets * pulses, sensors
        self.spacing = 2 * np.pi / points
        self.x = self.spacing * np.arange(points)
        self.every = points // sensors  # a sensor on every such point
        to_centre = self.x - 2 * np.pi * np.arange(jets)[:, None] / jets
        self.bumps = np.exp(-(((to_centre + np.pi) % (2 * np.pi) - np.pi) ** 2) / (2 * 0.4**2))

    def matrices(self, v):
        """D, L (n, n) and the bumps (jets, n), where v lives and in its dtype."""
        here = np.eye(self.state_size)
        after, before = np.roll(here, -1, axis=0), np.roll(here, 1, axis=0)  # v_(j+1), v_(j-1)
        D = (after - before) / (2 * self.spacing)
        L = (after - 2 * here + before) / self.spacing**2
        xp = array_module(v=v)
        return (xp.asarray(m, v.dtype) for m in (D, L, self.bumps))

    def pulse(self, step):
        """Which of its pulses a jet is in."""
        return step * self.pulses // self.steps

    def march(self, x, u):
        """All states, a list of steps + 1 arrays (b, n)."""
        self.check_inputs(x, u)
        D, L, bumps = self.matrices(x)
        f = u.reshape(len(u), self.pulses, self.jets) @ bumps  # (b, pulses, n)
        states = [x]
        for step in range(self.steps):
            v = states[-1]
            slope = self.viscosity * v @ L.T - (v * v / 2) @ D.T + f[:, self.pulse(step)]
            states.append(v + self.dt * slope)
        return states

    def solve(self, x, u):
        return self.march(x, u)[-1][:, :: self.every]

    def tangent(self, x, u, du):
        D, L, bumps = self.matrices(x)
        df = du.reshape(len(u), self.pulses, self.jets) @ bumps
        dv = array_module(x=x).zeros_like(x)
        for step, v in enumerate(self.march(x, u)[:-1]):
            slope = self.viscosity * dv @ L.T - (v * dv) @ D.T + df[:, self.pulse(step)]
            dv = dv + self.dt * slope
        return dv[:, :: self.every]

    def adjoint(self, x, u, y_bar):
        D, L, bumps = self.matrices(x)
        xp, states = array_module(x=x), self.march(x, u)
        f_bar = xp.zeros((len(x), self.pulses, self.state_size), x.dtype)
        v_bar = xp.zeros_like(x)
        v_bar[:, :: self.every] = y_bar
        for step in reversed(range(self.steps)):
            f_bar[:, self.pulse(step)] += self.dt * v_bar
            v_bar = v_bar + self.dt * self.transport(v_bar, states[step], D, L)
        return (f_bar @ bumps.T).reshape(u.shape)

    def transport(self, v_bar, v, D, L):
        """(nu L - D diag(v))^T v_bar."""
        return self.viscosity * v_bar @ L.T + v * (v_bar @ D.T)


# %% [markdown]
# That is all. What a method returns may be a view, as the values at the sensors are here: nobody
# writes into it. `Solver` makes the rest: the Jacobian S = dy/du of each sample comes from 8
# adjoints, one for each measured number, since these are fewer than the 32 tangents.
#
# ## Never trust a derivative that you have not checked
#
# `check_solver` compares tangent and adjoint with differences, with each other and with the
# Jacobian, and looks for everything else that training relies on.

# %%
burgers = Burgers()
assert check_solver(burgers)

# %% [markdown]
# What if you had forgotten that the first difference changes its sign when it is transposed? The
# loss might still fall for a while, and you would blame the optimizer. Here the mistake shows, with
# the worst component of u:

# %%


class Forgot(Burgers):
    def transport(self, v_bar, v, D, L):
        return self.viscosity * v_bar @ L.T - v * (v_bar @ D.T)


for row in check_solver(Forgot(), show=False).failed:
    print(f"{row.what}: {row.verdict}")

# %% [markdown]
# ## Train through it
#
# The task: turn one wave, a cos x + b sin x, into another one. The network sees both pairs of
# coefficients and has to give the 32 strengths of the jets. A batch of 32 waves has a Jacobian with
# 32 x 8 rows, stacked as in eq. 7. The half-inverse takes the paper's eta = 1; Adam, whose rate has
# to be found, gets four tries. Each training has six seconds.

# %%
rng = np.random.default_rng(0)


def draw(n):
    """n pairs of waves: x the one to start from, target the other at the sensors."""
    start, wanted = rng.uniform(-1, 1, (2, n, 2))
    waves = np.stack([np.cos(burgers.x), np.sin(burgers.x)])
    return Batch(start @ waves, np.hstack([start, wanted]), (wanted @ waves)[:, :: burgers.every])


network = MLP((4, 20, 20, 20, burgers.control_size))
problem = Problem(network, burgers, SquaredError(), draw(1024), draw(256), name="burgers")
optimizers = {"HIG": HIG(lr=1.0, tau=1e-6)}
optimizers |= {f"Adam, {lr:g}": Adam(lr=lr) for lr in (1e-3, 3e-3, 1e-2, 3e-2)}
results = {
    label: fit(problem, optimizer, batch=32, seconds=6) for label, optimizer in optimizers.items()
}
print("              steps  test loss")
for label, result in results.items():
    print(f"{label:12s}  {result.steps:5d}  {result.test_loss:.1e}")

assert results["HIG"].test_loss < min(results[label].test_loss for label in list(results)[1:])

# %% [markdown]
# Adam is slow at the smallest rate, jumps about at the largest, and does best between. A step of
# half-inverse gradients takes about seven times as long as one of Adam's here, since each of the
# eight adjoints marches forward once more; and still it pays. Why? Look at the singular values of
# the solver's Jacobian S for one sample, and of the Jacobian J of network and solver, stacked:

# %%
at = problem.linearise(results["HIG"].theta, problem.batch(0, 32))
_, S = burgers.jacobian(at.batch.x, at.control)
for label, matrix in {"S": S[0], "J": at.jacobian().dense()}.items():
    values = np.linalg.svd(matrix, compute_uv=False)
    print(f"{label}: {len(values)} singular values, {values[0]:.2g} to {values[-1]:.2g}")

# %% [markdown]
# The solver is tame; the stacked Jacobian is not. Adam's steps leave the weak directions for later.
# Gauss-Newton (eq. 3) would divide by the singular values; the exponent -1/2 of eq. 5 and 6 divides
# by their square roots, which moves the weak directions without throwing the network about.
#
# ## What a wrong derivative looks like in training
#
# A falling loss proves nothing. With the forgotten sign it falls too, at first:

# %%
wrong = dataclasses.replace(problem, solver=Forgot())
result = fit(wrong, HIG(lr=1.0, tau=1e-6), batch=32, epochs=4)
print(result.history, result.message, sep="\n")
assert result.history[1].test_loss < 0.6 * result.history[0].test_loss
assert result.status != "budget"

# %% [markdown]
# One would blame eta. The decrease of the loss tells better. With a step so short that everything
# is linear, eta = 0.01, it must be what the derivatives predict, to about three digits:

# %%
solvers = {"right": burgers, "sign forgotten": Forgot()}
ratios = {
    label: fit(
        dataclasses.replace(problem, solver=solver),
        HIG(lr=0.01, tau=1e-6), batch=32, steps=32, diagnostics=True,
    ).diagnostics
    for label, solver in solvers.items()
}  # fmt: skip
print(ratios["sign forgotten"])
off = {label: max(abs(row.ratio - 1) for row in rows) for label, rows in ratios.items()}
print(
    "actual / predicted is off 1 by up to", {label: f"{value:.1g}" for label, value in off.items()}
)
assert off["right"] < 2e-3 < 1e-2 < off["sign forgotten"]

figure = Figure(figsize=(5.6, 3.2), layout="constrained")
ax = figure.subplots()
for (label, rows), (color, dash) in zip(ratios.items(), STYLES, strict=False):
    ax.plot([row.step for row in rows], [row.ratio for row in rows], dash, color=color, label=label)
ax.set(xlabel="step", ylabel="actual / predicted decrease", title="HIG with eta = 0.01")
ax.legend(frameon=False)
show(figure, "lesson5-ratio.png")

# %% [markdown]
# ## Look at it

# %%
sample = problem.test[:1]
u, _ = problem.predict(results["HIG"].theta, sample)
runs = {
    "with the network's jets": np.array(burgers.march(sample.x, u))[:, 0],
    "left alone": np.array(burgers.march(sample.x, 0 * u))[:, 0],
}
times = burgers.dt * np.arange(burgers.steps + 1)

figure = Figure(figsize=(6.4, 4.4), layout="constrained")
top, (profile, loss) = figure.subplots(2, 2)
limit = np.ceil(10 * max(abs(states).max() for states in runs.values())) / 10
levels = np.linspace(-limit, limit, 13)
for ax, (title, states) in zip(top[::-1], runs.items(), strict=True):
    shades = ax.contourf(burgers.x, times, states, levels, cmap="RdBu_r")
    ax.set(title=title, xlabel="x")
    ax.grid(False)
top[0].set_ylabel("time t")
figure.colorbar(shades, ax=top, label="velocity v", ticks=(-limit, 0, limit))

for (title, states), (color, dash) in zip(runs.items(), STYLES, strict=False):
    profile.plot(burgers.x, states[-1], dash, color=color, label=title)
profile.plot(burgers.x, sample.x[0], ":", color="0.5", label="start")
profile.plot(burgers.x[:: burgers.every], sample.target[0], "ko", mfc="none", label="wanted")
profile.set(title="velocity at the end", xlabel="x", ylabel="v", ylim=(-1, 1.6))
profile.legend(
    frameon=False, fontsize=7, ncols=2, loc="upper center", handlelength=1.6, columnspacing=1.0
)
for (label, result), (color, dash) in zip(results.items(), STYLES, strict=False):
    seconds, losses = zip(*((row.seconds, row.test_loss) for row in result.history), strict=True)
    loss.plot(seconds, losses, dash, color=color, label=label)
loss.set(title="mean test loss", xlabel="training time [s]", yscale="log", ylim=(None, 1e3))
loss.legend(frameon=False, fontsize=7, ncols=2, loc="upper right")

show(figure, "lesson5-burgers.png")

# %% [markdown]
# ## Exercises
#
# 1. Keep the states on a tape: give `forward`, `backward` and `rows` in place of `solve`, march
#    once, and sweep all eight cotangents back together. How much faster is a step?
# 2. Put all jets on one half of the ring. What becomes of the singular values of S?
# 3. Replace explicit Euler by an implicit step for the viscosity, (1 - h nu L) v+ = v + h (...).
#    What is the adjoint of a linear solve?
