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
# # Lesson 1: the update by hand
#
# Gradient descent, Gauss-Newton and half-inverse gradients are one formula with three exponents
# (eq. 5 and 6 of the paper):
#
# $$\theta \leftarrow \theta - \eta\, J^\kappa g, \qquad J^\kappa = V S^\kappa U^\top,
# \qquad J = U S V^\top, \qquad g = \partial L / \partial y$$
#
# with $\kappa = 1$, $-1$ and $-1/2$. Here J is 2 x 2, so that every number can be checked with a
# pencil and every step can be drawn.
#
# Read this file as it is, run it with `python -m bench.lessons.lesson1_the_update_by_hand`, or open
# it as a notebook with Jupytext.

# %%
import numpy as np
from matplotlib.figure import Figure

from bench.lessons import show
from bench.style import STYLES
from higcore import half_inverse

np.set_printoptions(precision=4, suppress=True)

KAPPAS = {1.0: "gradient descent", -0.5: "half-inverse", -1.0: "Gauss-Newton"}
COLORS = {kappa: STYLES[k][0] for k, kappa in enumerate(KAPPAS)}

# %% [markdown]
# ## A network and a solver with two numbers each
#
# The network gives w = W theta. The solver is the one of eq. 4: it passes w_1 on and scales w_2 by
# gamma. Together they are y = J theta with J = dy/dtheta. With the loss L = |y - target|^2 / 2 of
# eq. 2 the loss gradient is g = dL/dy = y - target.

# %%
gamma = 0.2
W = np.array([[1.2, 0.9], [0.5, 2.0]])
J = np.diag([1.0, gamma]) @ W
target = np.array([1.0, 0.0])
start = np.array([-3.0, 3.0])
g = J @ start - target
print("J =", J.tolist(), "  g =", g)

# %% [markdown]
# ## The singular values with a pencil
#
# $J^\top J = V S^2 V^\top$, so the squares of the singular values are the roots of
# $\lambda^2 - \mathrm{tr}\,\lambda + \det = 0$, trace and determinant those of $J^\top J$. The
# columns $v_i$ of V solve $(J^\top J - s_i^2)\, v_i = 0$, and $u_i = J v_i / s_i$ are those of U.

# %%
A = J.T @ J
half_trace, determinant = np.trace(A) / 2, np.linalg.det(A)
root = np.sqrt(half_trace**2 - determinant)
s = np.sqrt([half_trace + root, half_trace - root])

V = np.stack([[A[0, 1], value - A[0, 0]] for value in s**2], axis=1)
V /= np.linalg.norm(V, axis=0)
U = J @ V / s
print(f"S = {s}, s_1 / s_2 = {s[0] / s[1]:.2f}; of W alone {np.linalg.cond(W):.2f}")

assert np.allclose(U * s @ V.T, J)  # J = U S V^T
assert np.allclose(U.T @ U, np.eye(2))
assert np.allclose(s, np.linalg.svd(J, compute_uv=False))
assert s[0] / s[1] > 1.9 * np.linalg.cond(W)

# %% [markdown]
# NumPy's SVD agrees. The ratio of the singular values, the condition number, is 3 for the network
# alone; the solver doubles it.
#
# ## What J does to a circle
#
# V says which directions of theta do not mix, S how far each reaches, U where they end in y: the
# unit circle becomes an ellipse, and $v_i$ becomes its half-axis $s_i u_i$.

# %%
turn = np.linspace(0, 2 * np.pi, 200)
circle = np.stack([np.cos(turn), np.sin(turn)])

ARROW = {"arrowstyle": "->", "lw": 2, "shrinkA": 0, "shrinkB": 0}  # from point to point

figure = Figure(figsize=(9.5, 3.3), layout="constrained")
left, right = figure.subplots(1, 2)
names = (("$v_1$", "$v_2$"), ("$s_1 u_1$", "$s_2 u_2$"))
for ax, curve, arrows, labels in zip(
    (left, right), (circle, J @ circle), (V, U * s), names, strict=True
):
    ax.plot(*curve, color="#777777")
    for arrow, label, color in zip(arrows.T, labels, ("#0b3c8c", "#c1440e"), strict=True):
        ax.annotate("", arrow, (0, 0), arrowprops=ARROW | {"color": color})
        beyond = 22 * arrow / np.linalg.norm(arrow)
        style = {"color": color, "fontsize": 13, "ha": "center", "va": "center"}
        ax.annotate(label, arrow, xytext=beyond, textcoords="offset points", **style)
    ax.set(aspect="equal", xlim=(-2.2, 2.2), ylim=(-1.4, 1.4))
left.set(title="parameters: the unit circle", xlabel=r"$\theta_1$", ylabel=r"$\theta_2$")
right.set(title="physics: its image under J", xlabel="$y_1$", ylabel="$y_2$")
show(figure, "lesson1-circle.png")

# %% [markdown]
# ## Three exponents
#
# $J^\kappa$ is a matrix from y-space back to parameters: U^T reads off how much of g lies along
# each $u_i$, $S^\kappa$ weighs it, V puts it along $v_i$. For $\kappa = 1$ that is $J^\top$, and
# $J^\top g$ is the gradient of eq. 1; for $\kappa = -1$ it is the inverse, eq. 3.


# %%
def power(kappa):
    """J^kappa of eq. 6."""
    return V * s**kappa @ U.T


steps = {kappa: power(kappa) @ g for kappa in KAPPAS}
for kappa, step in steps.items():
    print(f"kappa {kappa:4}: step {step}, length {np.linalg.norm(step):.3f}")

assert np.allclose(power(1.0), J.T)
assert np.allclose(power(-1.0), np.linalg.inv(J))
for kappa, step in steps.items():
    assert np.allclose(step, half_inverse(J, g, kappa=kappa)[0])

# %% [markdown]
# `higcore.half_inverse` gives the same three steps. Halfway is meant in the exponents of s:
# gradient descent has $s^1$, Gauss-Newton $s^{-1}$, and the step's effect on y, J step, carries
# $s^2$, $s^{1/2}$ and $s^0$. The last one is eq. 13: Gauss-Newton moves y along -g, whatever J is.

# %%
for kappa, step in steps.items():
    print(f"kappa {kappa:4}: J step, along u_1 and u_2, over g there: {U.T @ J @ step / (U.T @ g)}")
    assert np.allclose(U.T @ J @ step, s ** (1 + kappa) * (U.T @ g))

assert np.allclose(J @ steps[-1.0], g)

# %% [markdown]
# ## How many steps that takes
#
# So a step with rate eta multiplies what is left of g along u_i by $1 - \eta s_i^{1+\kappa}$, each
# direction for itself. Take the largest eta that does not overshoot along u_1, and count steps
# until the loss is down to a millionth.


# %%
def count_steps(kappa, goal=1e-6):
    """Steps of eq. 5 until the loss has fallen by ``goal``."""
    eta, theta, count = s[0] ** -(1 + kappa), start, 0
    loss = first = 0.5 * g @ g
    while loss > goal * first:
        theta, count = theta - eta * power(kappa) @ (J @ theta - target), count + 1
        loss = 0.5 * np.sum((J @ theta - target) ** 2)
    return count


counts = {kappa: count_steps(kappa) for kappa in KAPPAS}
for kappa, count in counts.items():
    print(f"{KAPPAS[kappa]}: {count} steps")
assert counts[1.0] > 10 * counts[-0.5]
assert counts[-0.5] > counts[-1.0] == 1

# %% [markdown]
# The number of steps grows like the ratio $(s_1 / s_2)^{1+\kappa}$: gradient descent pays the
# square of the condition number, the half-inverse its root, and Gauss-Newton nothing, as long as
# y is linear in theta.
#
# ## The paths
#
# Let $z = U^\top g$ at the start. With tiny steps the iterates follow the curve on which g along
# u_i is $z_i e^{-s_i^{1+\kappa} t}$. The left two panels draw it in parameters and in physics, over
# the contours of the loss; at the k-th dot the error along u_1 has shrunk by $e^{-k}$ on every
# path.
#
# The right one looks at the start alone: -step is the steepest descent of the linearised loss
# g . J d, whose contours are straight lines, if the length of d is measured by $|d|$,
# $|J^{3/4} d|$ or $|J d|$ (eq. 14 to 17 and table 1). Each ellipse holds all d that are as long
# as the step; the arrow ends where the ellipse touches the lowest line that it reaches, dotted.


# %%
def path(kappa, t):
    """theta (len(t), 2) at times t / s_1^(1 + kappa) of the flow d theta / dt = -J^kappa g."""
    left_over = np.exp(-((s / s[0]) ** (1 + kappa)) * t[:, None]) * (U.T @ g)
    return (target + left_over @ U.T) @ np.linalg.inv(J).T


def ball(kappa):
    """All d with |S^p V^T d| = |S^p V^T step|, p = (1 - kappa) / 2: 0, 3/4 and 1."""
    p = (1 - kappa) / 2
    radius = np.linalg.norm(s**p * (V.T @ steps[kappa]))
    return radius * V @ (s[:, None] ** -p * circle)


for kappa, step in steps.items():
    descent = g @ J @ ball(kappa)
    assert np.isclose(descent.min(), -g @ J @ step, rtol=1e-3)  # no d does better than -step

# %% [markdown]
# The check has just tried 200 directions for each of the three norms: none decreases the linearised
# loss further than the step does. Now the picture.

# %%
figure = Figure(figsize=(12, 4.4), layout="constrained")
parameters, physics, balls = figure.subplots(1, 3)
theta_grid = np.stack(np.meshgrid(np.linspace(-4, 2.5, 100), np.linspace(-1.9, 4.6, 100)))
y_grid = np.stack(np.meshgrid(np.linspace(-1.4, 1.6, 100), np.linspace(-1.3, 1.7, 100)))
d_grid = np.stack(np.meshgrid(np.linspace(-7, 7, 30), np.linspace(-7, 7, 30)))
thin = {"colors": "#bbbbbb", "linewidths": 0.8, "linestyles": "solid"}
for ax, grid, y in (
    (parameters, theta_grid, np.tensordot(J, theta_grid, 1)),
    (physics, y_grid, y_grid),
):
    loss = 0.5 * ((y - target[:, None, None]) ** 2).sum(axis=0)
    ax.contour(*grid, loss, levels=np.geomspace(0.01, 8, 12), **thin)
decrease = np.tensordot(g @ J, d_grid, 1)  # g . J d
balls.contour(*d_grid, decrease, levels=16, **thin)

time, dots = np.concatenate([[0], np.geomspace(1e-2, 300, 400)]), np.arange(1, 9)
for kappa, name in KAPPAS.items():
    color = COLORS[kappa]
    for ax, into in ((parameters, np.eye(2)), (physics, J)):
        ax.plot(*into @ path(kappa, time).T, color=color, label=name)
        ax.plot(*into @ path(kappa, dots).T, ".", color=color, ms=7)
    balls.plot(*ball(kappa), color=color)
    balls.annotate("", -steps[kappa], (0, 0), arrowprops=ARROW | {"color": color})
    lowest = [-g @ J @ steps[kappa]]
    balls.contour(*d_grid, decrease, levels=lowest, colors=color, linewidths=0.8, linestyles=":")
for ax, into in ((parameters, np.eye(2)), (physics, J)):
    ax.plot(*into @ start, "ko", label="start")
    ax.plot(*into @ np.linalg.solve(J, target), "k*", ms=11, label="target")
parameters.set(title="parameters", xlabel=r"$\theta_1$", ylabel=r"$\theta_2$", aspect="equal")
physics.set(title="physics", xlabel="$y_1$", ylabel="$y_2$", aspect="equal")
balls.set(title="balls of three norms", xlabel="$d_1$", ylabel="$d_2$", aspect="equal")
balls.set(xlim=(-7, 7), ylim=(-7, 7))
figure.legend(
    *parameters.get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False
)
show(figure, "lesson1-paths.png")

# %% [markdown]
# Gradient descent first removes the error along u_1 and then creeps along the valley.
# Gauss-Newton goes straight, in physics as the theory says and in parameters because J is constant
# here. The half-inverse lies between the two.
#
# ## Why not all the way to -1
#
# Because y is not linear in theta. Put one neuron in front of each output,
# $y = (\tanh\theta_1, \gamma\tanh\theta_2)$, and begin with the second neuron on the wrong side.
# J is diagonal and changes from step to step.


# %%
def outputs(theta):
    """y and the diagonal of J."""
    scale = np.array([1.0, gamma])
    return scale * np.tanh(theta), scale * (1 - np.tanh(theta) ** 2)


wanted = outputs(np.array([0.5, 1.2]))[0]


def iterate(kappa, count=40):
    """theta (count + 1, 2) from eq. 5 with eta = 1, and the ranks of the steps."""
    thetas, ranks = [np.array([0.0, -1.6])], []
    for _ in range(count):
        y, diagonal = outputs(thetas[-1])
        step, info = half_inverse(np.diag(diagonal), y - wanted, kappa=kappa, tau=1e-6)
        thetas.append(thetas[-1] - step)
        ranks.append(info.rank)
    return np.array(thetas), ranks


runs = {kappa: iterate(kappa) for kappa in KAPPAS}
for kappa, (thetas, ranks) in runs.items():
    print(
        f"{KAPPAS[kappa]:16s}: theta_2 {thetas[:4, 1]} ... {thetas[-1, 1]:.3f}, ranks {ranks[:3]}"
    )

first_jump = {kappa: thetas[1, 1] - thetas[0, 1] for kappa, (thetas, _) in runs.items()}
assert first_jump[1.0] < 0.05 < first_jump[-0.5] < 3 < first_jump[-1.0]
assert runs[-1.0][1][1:] == [1] * 39  # the second neuron is lost after one step
assert abs(runs[-0.5][0][-1, 1] - 1.2) < 0.01
assert runs[1.0][0][-1, 1] < -0.5

# %%
figure = Figure(figsize=(10, 4), layout="constrained")
left, right = figure.subplots(1, 2)
neuron = np.linspace(-3, 13, 300)
left.plot(neuron, gamma * np.tanh(neuron), color="#777777", lw=1)
left.axhline(wanted[1], color="k", ls=":", lw=1)
left.text(12.8, wanted[1] - 0.006, "wanted", ha="right", va="top")
for (kappa, (thetas, _)), marker in zip(runs.items(), "osD", strict=True):
    lift = gamma * np.tanh(thetas[:, 1])
    left.plot(thetas[:, 1], lift, marker, color=COLORS[kappa], ms=5, mfc="none")
    error = np.array([np.abs(outputs(theta)[0] - wanted)[1] for theta in thetas])
    right.plot(error, marker=marker, ms=4, mfc="none", color=COLORS[kappa], label=KAPPAS[kappa])
left.set(title="40 steps of the second neuron", xlabel=r"$\theta_2$", ylabel="$y_2$")
right.set(title="what is left of its error", xlabel="step", ylabel="$|y_2 - $ wanted$|$")
right.set_yscale("log")
right.legend(frameon=False)
show(figure, "lesson1-saturation.png")

# %% [markdown]
# The neuron's slope is small where it starts, so full inversion throws theta_2 far onto the
# plateau of the tanh. There the slope is so small that the truncation of lesson 4 drops the mode
# (rank 1 of 2): the neuron is saturated and learns no more. This is what the paper's figure 1 shows
# for Gauss-Newton. Half the exponent makes a long step of a short one, but not that long, and
# arrives; gradient descent is still on its way.
