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
# # Lesson 6: three inversions on one problem
#
# A network gives a control, a solver turns it into physics, a loss compares. On the way back from
# the loss to the parameters something may be inverted, and the question is what: the physics alone,
# which is scale-invariant physics (SIP); network and physics together, which is Gauss-Newton or,
# with damping, Levenberg-Marquardt (LM); or both by half, which is HIG. The authors of the paper go
# this way in their book, physicsbaseddeeplearning.org. Here all of them meet the same problems.
#
# Components are superscripts, as in eq. 4, and samples are subscripts.

# %%
import numpy as np
from matplotlib.figure import Figure

from bench.experiments import LinearChain, Toy
from bench.lessons import show
from bench.style import STYLES
from higcore import HIG, Adam, GaussNewton, LevenbergMarquardt, ScaleInvariantPhysics, fit
from higcore.backend import thread_policy
from solvers import ScaledOutputs

NAMES = ("gradient descent", "HIG", "Gauss-Newton", "SIP", "LM")
STYLE = dict(zip(NAMES, STYLES, strict=False))
STYLE["Adam"] = STYLE["gradient descent"]


def decompose(J):
    """U, s and V^T with J = U diag(s) V^T."""
    with thread_policy():  # keeps BLAS threads from waiting for each other on a busy machine
        return np.linalg.svd(J, full_matrices=False)


# %% [markdown]
# ## Three spaces
#
# theta lives in the space of the network's parameters, u in that of the controls, y in that of the
# physics. Between them each sample has two Jacobians, the network's and the solver's, and eq. 7
# stacks their products:
#
# $$N_i = \partial u_i / \partial \theta, \qquad S_i = \partial y_i / \partial u_i, \qquad
# J = \begin{pmatrix} S_1 N_1 \\ \vdots \\ S_b N_b \end{pmatrix} = U\, \mathrm{diag}(s)\, V^\top$$
#
# A step brings $g = \partial L / \partial y$ from the space of the physics to that of theta. With h
# the curvature of L in y (1 for half a square):
#
# - gradient descent transposes twice, $\sum_i N_i^\top S_i^\top g_i$ (eq. 1);
# - SIP inverts the solver, sample by sample, and lets the network follow the inverted control as it
#   would follow a gradient, $\sum_i N_i^\top S_i^{-1} g_i / h$, by way of Adam;
# - Gauss-Newton inverts the stack, $J^{-1} g = V s^{-1} U^\top g$ (eq. 3);
# - HIG inverts the stack by half, $J^{-1/2} g = V s^{-1/2} U^\top g$ (eq. 5 to 7);
# - LM inverts the stack where s is large and follows the gradient where s is small,
#   $J^\top (h J J^\top + \lambda)^{-1} g = V s\, (h s^2 + \lambda)^{-1} U^\top g$.

# %%
SPACES = {1: (r"$\theta$", "network\nparameters"), 2: ("$u$", "control"), 3: ("$y$", "physics")}
KINDS = {
    "followed as a gradient": {"color": STYLE["gradient descent"][0], "ls": ":"},
    "inverted wholly": {"color": STYLE["Gauss-Newton"][0], "ls": "-"},
    "inverted by half": {"color": STYLE["HIG"][0], "ls": "--"},
}
gradient, whole, half = KINDS
BACK = {  # (from, to, kind, what maps), for each method
    "gradient descent": [(3, 2, gradient, r"$S_i^\top$"), (2, 1, gradient, r"$N_i^\top$")],
    "SIP": [(3, 2, whole, "$S_i^{-1} / h$"), (2, 1, gradient, r"$N_i^\top$")],
    "Gauss-Newton": [(3, 1, whole, "$J^{-1}$")],
    "HIG": [(3, 1, half, "$J^{-1/2}$")],
    "LM, modes of large s": [(3, 1, whole, "$J^{-1} / h$")],
    "LM, modes of small s": [(3, 1, gradient, r"$J^\top\! / \lambda$")],
}


def arrow(ax, begin, end, y, text, **style):
    """A horizontal arrow with a text over its first half."""
    line = {"arrowstyle": "-|>,head_width=0.25", "lw": 2.2, "shrinkA": 0, "shrinkB": 0} | style
    ax.annotate("", (end, y), (begin, y), arrowprops=line)
    ax.text(np.ceil(begin) - 0.5, y + 0.09, text, ha="center", va="bottom", fontsize=11)


figure = Figure(figsize=(9.6, 6), layout="constrained")
ax = figure.subplots()
ax.set(xlim=(0.1, 3.6), ylim=(-5.7, 0.9))
ax.axis("off")
for x, (letter, name) in SPACES.items():
    ax.plot([x, x], [-5, 0.4], color="#dddddd", lw=14, zorder=0, solid_capstyle="round")
    round_it = {"boxstyle": "circle,pad=0.35", "fc": "white", "ec": "k"}
    ax.text(x, 0.4, letter, ha="center", va="center", fontsize=20, bbox=round_it)
    ax.text(x, -5.2, name, ha="center", va="top")
ax.text(3.55, 0.4, "$L$", ha="center", va="center", fontsize=16)
for begin, end, text in ((1.17, 1.83, "network"), (2.17, 2.83, "solver"), (3.17, 3.5, "loss")):
    ax.annotate("", (end, 0.4), (begin, 0.4), arrowprops={"arrowstyle": "-|>", "color": "k"})
    ax.text((begin + end) / 2, 0.5, text, ha="center", va="bottom")
for row, (name, arrows) in enumerate(BACK.items()):
    y = -0.75 * (row + 1)
    ax.text(0.9, y, name, ha="right", va="center")
    ax.text(3.07, y, "$g$", va="center", fontsize=12)
    for begin, end, kind, text in arrows:
        arrow(ax, begin - 0.03, end + 0.03, y, text, **KINDS[kind])
for kind, style in KINDS.items():
    ax.plot([], [], lw=2.2, label=kind, **style)
figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
show(figure, "lesson6-spaces.png")

# %% [markdown]
# ## What an inversion makes of a scale
#
# The toy's solver scales its second output, $y = (u^1, \gamma u^2)$ (eq. 4). Gamma is the unit in
# which $y^2$ is measured. As it falls, half of the singular values of J fall like gamma, so with g
# held fixed these powers of gamma are to be expected:
#
# - SIP and Gauss-Newton, $s^{-1}$: the step grows like $\gamma^{-1}$, and what it does to $y^2$
#   goes like $\gamma\,\gamma^{-1} = \gamma^0$;
# - HIG, $s^{-1/2}$: $\gamma^{-1/2}$, and $\gamma\,\gamma^{-1/2} = \gamma^{1/2}$;
# - gradient descent: $\gamma^0$, since the gradient of $y^1$ is all that remains, and $\gamma^1$,
#   since this gradient moves the neurons that $y^2$ has in common with $y^1$.
#
# To see them, write out N of the toy's network, u = tanh(x w + c) W + bias, for three samples.

# %%
rng = np.random.default_rng(3)
b = 3
w, c, W = rng.standard_normal((1, 7)), 0.1 * rng.standard_normal(7), rng.standard_normal((7, 2))
x = rng.uniform(-1, 1, (b, 1))
g = rng.standard_normal((b, 2))  # dL/dy, the same for every gamma

a = np.tanh(x * w + c)  # (b, 7)
by_c = (1 - a**2)[:, None, :] * W.T  # (b, 2, 7), du/dc
by_w = x[:, :, None] * by_c
by_W = a[:, None, :, None] * np.eye(2)[:, None, :]  # (b, 2, 7, 2)
by_bias = np.broadcast_to(np.eye(2), (b, 2, 2))
N = np.concatenate([by_w, by_c, by_W.reshape(b, 2, 14), by_bias], axis=2)  # (b, 2, 30)


def four_steps(gamma):
    """J (2 b, 30) and the step (30,) of every method."""
    S = np.diag([1, gamma])
    J = (S @ N).reshape(2 * b, -1)
    U, s, Vt = decompose(J)
    z = U.T @ g.ravel()
    du = g @ np.linalg.inv(S).T  # (b, 2), S^-1 g_i for every sample
    return J, {
        "gradient descent": J.T @ g.ravel(),
        "HIG": Vt.T @ (z / np.sqrt(s)),
        "Gauss-Newton": Vt.T @ (z / s),
        "SIP": np.tensordot(du, N, 2),  # sum of N_i^T du_i
    }


gammas = np.geomspace(1, 1e-4, 9)
lengths, effects = {}, {}
for gamma in gammas:
    J, steps = four_steps(gamma)
    for name, step in steps.items():
        dy = (J @ step).reshape(b, 2)
        lengths.setdefault(name, []).append(np.linalg.norm(step))
        effects.setdefault(name, []).append(np.linalg.norm(dy[:, 1]))
    assert np.allclose(J @ steps["Gauss-Newton"], g.ravel())


def power(values):
    """p in gamma^p, between the two smallest gammas."""
    return np.log(values[-1] / values[-2]) / np.log(gammas[-1] / gammas[-2])


EXPECTED = {"gradient descent": (0, 1), "HIG": (-0.5, 0.5), "Gauss-Newton": (-1, 0), "SIP": (-1, 0)}
print("powers of gamma    step   what it does to y^2")
for name, expected in EXPECTED.items():
    found = power(lengths[name]), power(effects[name])
    print(f"{name:16s}  {found[0]:5.2f}  {found[1]:5.2f}")
    assert np.allclose(found, expected, atol=0.05)

# %%
figure = Figure(figsize=(10, 3.6), layout="constrained")
left, right = figure.subplots(1, 2)
for ax, values, title in (
    (left, lengths, "length of the step in theta"),
    (right, effects, "length of what it does to $y^2$"),
):
    for name, (color, dash) in STYLE.items():
        if name in values:
            ax.loglog(gammas, values[name], dash, color=color, label=name)
    ax.set(title=title, xlabel=r"$\gamma$")
    ax.invert_xaxis()
left.legend(frameon=False)
show(figure, "lesson6-scale.png")

# %% [markdown]
# The powers are the expected ones. Gradient descent forgets $y^2$ as gamma falls. SIP and
# Gauss-Newton do the same to $y^2$ in any unit, which is what "scale-invariant" means, and pay with
# steps in theta that grow without limit. HIG pays the root of that in either space. Gauss-Newton
# even moves y exactly along -g (eq. 13). SIP does not: its control would, but the network follows
# that by $N_i^\top$ and not by an inverse.
#
# ## The toy, well and ill conditioned
#
# Trainings as in figure 1 of the paper: y is to become (sin 6x, cos 9x), with 7 neurons, and with
# gamma = 1 or 0.01. Batch and data are a quarter of the paper's; rates and cutoffs are those of
# B.1, and LM is as the library has it. Of Gauss-Newton, B.1 says that it has no rate, or eta = 1.
# If L is the sum of eq. 2, that is the full step, which takes the linearised error away at once.
# Here L is the mean over the batch, h = 1 / b, and eta = 1 goes the b-th part of it. Both run:
# eta = 1 and, last, eta = b. (Without `paper=True`, `GaussNewton` divides by h, and eta = 1 is the
# full step.)

# %%
BATCH, EPOCHS, SEEDS = 64, 150, range(5)
OPTIMIZERS = {
    "Adam": Adam(lr=0.3),
    "Gauss-Newton": GaussNewton(lr=1.0, tau=1e-4, paper=True),
    "HIG": HIG(lr=1.0, tau=1e-6),
    "LM": LevenbergMarquardt(),
    "Gauss-Newton in full": GaussNewton(lr=BATCH, tau=1e-4, paper=True),
}


def train_toy(gamma, optimizer, seed):
    """The problem, the `Result`, and what `ToyRecorder` saw."""
    toy = Toy(ScaledOutputs(gamma), samples=256)
    problem = toy.problem(seed)
    recorder = toy.recorder(problem)
    result = fit(problem, optimizer, batch=BATCH, epochs=EPOCHS, seed=seed, on_epoch=[recorder])
    return problem, result, recorder.data


def summary(problem, result, data):
    """The part of y^2 in the test loss, one sample's widest error of y^1, lost neurons."""
    _, y = problem.predict(result.theta, problem.test)
    second = ((y - problem.test.target)[:, 1] ** 2).mean() / 2
    widest = np.abs(np.array(data["output_path"])[:, 0]).max()
    lost = (np.array(data["neuron_std"][-1]) < 0.02).sum()  # they say the same to every x
    return second, widest, lost


runs, curves, lost = {}, {}, {}
print("medians of 5 seeds         test loss  of y^2   widest   lost of 35")
for gamma in (1.0, 0.01):
    for name, optimizer in OPTIMIZERS.items():
        key = gamma, name
        runs[key] = [train_toy(gamma, optimizer, seed) for seed in SEEDS]
        curves[key] = np.array([[row.test_loss for row in run[1].history] for run in runs[key]])
        second, widest, _ = np.median([summary(*run) for run in runs[key]], axis=0)
        lost[key] = sum(summary(*run)[2] for run in runs[key])
        end = np.median(curves[key][:, -1])
        print(f"{gamma:4g} {name:20s} {end:10.1e} {second:8.1e} {widest:6.1f} {lost[key]:6d}")

# %% [markdown]
# With gamma = 0.01, Gauss-Newton ends far above its loss of gamma = 1. Its tau may be why: how much
# of $U^\top g$, which is all that J can teach, do the modes above tau hold at the end?


# %%
def kept_share(problem, result, _):
    """The share of |U^T g| in modes above tau = 1e-4."""
    at = problem.linearise(result.theta, problem.batch(0, BATCH))
    U, s, _ = decompose(at.jacobian().dense())
    z = U.T @ at.loss_gradient.ravel()
    return np.linalg.norm(z[s > 1e-4 * s[0]]) / np.linalg.norm(z)


held = [kept_share(*run) for run in runs[0.01, "Gauss-Newton"]]
print("Gauss-Newton's share, gamma = 0.01, by seed:", *(f"{share:.0%}" for share in held))

middle = {key: np.median(losses, axis=0) for key, losses in curves.items()}
for gamma in (1.0, 0.01):
    full = gamma, "Gauss-Newton in full"
    assert 3 * middle[gamma, "LM"][-1] < middle[gamma, "HIG"][-1] < middle[gamma, "Adam"][-1] / 2
    assert middle[full][-1] > 0.2
    assert lost[full] > 2 * lost[gamma, "Gauss-Newton"] + 5
    assert lost[gamma, "LM"] == 0
assert middle[0.01, "HIG"][-1] < 0.7 * middle[0.01, "HIG"][100]
assert middle[0.01, "Gauss-Newton"][-1] > 0.9 * middle[0.01, "Gauss-Newton"][100]
assert np.median(held) < 0.6


# %%
def draw_toy(figure, gamma, seed):
    """The losses of all seeds and their medians; a neuron and a sample's path of one seed."""
    figure.suptitle(f"gamma = {gamma:g}", fontsize=11)
    shown = "Adam", "Gauss-Newton", "HIG", "LM"
    neurons = [shown[:2], shown[2:]]
    parts = figure.subplot_mosaic([["loss", neurons, "path"]], width_ratios=(1, 1.25, 1))
    loss, path = parts["loss"], parts["path"]
    for name in shown:
        color, dash = STYLE[name]
        loss.semilogy(curves[gamma, name].T, color=color, lw=0.4, alpha=0.5)
        loss.semilogy(middle[gamma, name], dash, color=color, label=name)
        data = runs[gamma, name][seed][2]
        draw_neuron(parts[name], name, data)
        error = np.array(data["output_path"])
        path.plot(*error.T, dash, color=color, lw=1)
        path.plot(*error[-1], "o", color=color, ms=4)
    path.plot(*error[0], "ko", mfc="none", ms=7)
    path.plot(0, 0, "k*", ms=10)
    loss.set(xlabel="epochs", ylim=(1e-6, 3e2))
    path.set(xlabel="error of $y^1$", ylabel="error of $y^2$")
    for ax, title in ((loss, "test loss"), (path, "one sample's path")):
        ax.set_title(title, fontsize=9)
    loss.legend(frameon=False, fontsize=8)


def draw_neuron(ax, name, data):
    """Mean and standard deviation of the neuron that varies least at the end."""
    epochs, mean, std = (np.array(data[k]) for k in ("epoch", "neuron_mean", "neuron_std"))
    k = std[-1].argmin()
    color, dash = STYLE[name]
    ax.plot(epochs, mean[:, k], dash, color=color)
    low, high = mean[:, k] - std[:, k], mean[:, k] + std[:, k]
    ax.fill_between(epochs, low, high, color=color, alpha=0.25, lw=0)
    ax.set(ylim=(-1.5, 1.5), yticks=(-1, 0, 1), xlabel="epochs")
    ax.set_title(f"neuron, {name}", fontsize=9)
    ax.label_outer()


figure = Figure(figsize=(12, 7.2), layout="constrained")
for part, gamma in zip(figure.subfigures(2, 1, hspace=0.03), (1.0, 0.01), strict=True):
    draw_toy(part, gamma, seed=1)
show(figure, "lesson6-toy.png")

# %% [markdown]
# *Loss* (thin: each seed, thick: their median). With gamma = 1, HIG and Gauss-Newton end together,
# Adam above them and LM below. With gamma = 0.01 all end higher, and, but for LM, most of what is
# left is of $y^2$. Adam is slow. Gauss-Newton has stopped: with four of the five seeds, most of
# what could still be learned lies in modes that tau = 1e-4 cuts; the next section shows what a
# smaller tau does. HIG goes on falling. LM ends lowest, after having waited for it.
#
# Five seeds are few. If one takes twenty, Gauss-Newton's losses range over a factor of more than a
# hundred, and LM is still waiting in seven. Their medians, in the order of the table and without
# the full step, are 1.8e-2, 9.0e-4, 6.2e-4, 8.3e-5 and 8.1e-2, 5.2e-2, 1.9e-2, 2.4e-3. (Long steps
# carry rounding errors far, so another processor may print other digits here and below.)
#
# *A neuron*, the one that varies least at the end: mean and standard deviation over the data. With
# gamma = 0.01, Gauss-Newton has driven one of this seed's to 1, where it says the same to every x
# and learns no more. HIG brings its own back from there, if only a little. But with eta = 1 few are
# lost, and HIG loses no fewer than Gauss-Newton. The full step loses about half of all neurons and
# gets hardly anywhere, with gamma = 1 as with 0.01: it is the length of a step that saturates, and
# small singular values are one way to it.
#
# *A path*, from the circle to the star. With gamma = 0.01, both inversions throw $y^1$ far off,
# Gauss-Newton farther than HIG (the table has medians). LM, which tries a step before it takes it,
# is thrown least.
#
# ## Cut, clamp or damp
#
# A full inversion has to do something about small s, and there are three ways. Let x = s / max(s)
# and tau be relative, as in lesson 4. With the same tau all three bend at the same place:
#
# - a cut, 1 / x for x > tau and else 0: `GaussNewton`;
# - a clamp, 1 / max(x, tau);
# - damping, x / (x^2 + tau^2): one step of LM with lambda = h tau^2 max(s)^2.
#
# Beside them stands HIG's x^(-1/2), cut at 1e-6. f(1) = 1 for all four: the first mode fares alike.
# With the error y - target = g / h, the step is $\eta V f(x) U^\top (y - \mathrm{target})$ over
# max(s), and multiplies the error along $u_k$ by $1 - \eta\, x f(x)$, as in lesson 1.

# %%
FILTERS = {
    "cut": lambda x, tau: np.where(x > tau, 1 / x, 0),
    "clamp": lambda x, tau: 1 / np.maximum(x, tau),
    "damp": lambda x, tau: x / (x**2 + tau**2),
    "HIG": lambda x, _: np.where(x > 1e-6, x**-0.5, 0),
}
FILTER_STYLE = {
    "cut": STYLE["Gauss-Newton"],
    "clamp": STYLES[7],
    "damp": STYLE["LM"],
    "HIG": STYLE["HIG"],
}
x = np.array([1e-1, 1e-3, 1e-4, 1e-5])
print("x f(x) with tau = 0.01, x =", *(f"{value:7g}" for value in x))
for name, f in FILTERS.items():
    print(f"{name:27s}", *(f"{value:7.1g}" for value in x * f(x, 0.01)))

# %% [markdown]
# Below tau the cut removes nothing of an error, the clamp x / tau of it, damping $(x / \tau)^2$ as
# a gradient does, and HIG $x^{1/2}$: more than damping below x = 0.002, and more than the clamp
# below x = 1e-4. Now take steps, on the ill-conditioned toy with 64 samples that are all in every
# step, with eta = 1/4.

# %%
ETA, STEPS, TAUS = 0.25, 200, (1e-2, 1e-4, 1e-6)


def linearised(problem, theta):
    """The loss, U, s, V^T, and y - target: L is a mean over 64 samples, h = 1 / 64."""
    at = problem.linearise(theta, problem.train)
    return at.loss, *decompose(at.jacobian().dense()), 64 * at.loss_gradient.ravel()


def descend(f, seed):
    """The loss before every step and at the end, and |theta - start|."""
    problem = Toy(samples=64).problem(seed)
    start = theta = problem.network.init(np.random.default_rng([seed, 1]))
    losses = []
    for _ in range(STEPS):
        loss, U, s, Vt, error = linearised(problem, theta)
        theta = theta - ETA * Vt.T @ (f(s / s[0]) / s[0] * (U.T @ error))
        losses.append(loss)
    return [*losses, problem.evaluate(theta, problem.train)], np.linalg.norm(theta - start)


descents = {}
for name, f in FILTERS.items():
    for tau in TAUS if name != "HIG" else (1e-6,):
        descents[name, tau] = [descend(lambda x, f=f, tau=tau: f(x, tau), seed) for seed in SEEDS]
descents["HIG, clamped", 1e-6] = [descend(lambda x: np.maximum(x, 1e-6) ** -0.5, k) for k in SEEDS]
end, worst = {}, {}
print("medians              loss at the end   at the worst   |theta - start|")
for key, found in descents.items():
    rows = [(losses[-1], max(losses), way) for losses, way in found]
    end[key], worst[key], way = np.median(rows, axis=0)
    print(f"{key[0]:12s} tau {key[1]:.0e} {end[key]:10.1e} {worst[key]:16.1e} {way:14.1e}")

assert end["clamp", 1e-2] < end["damp", 1e-2] / 3 < end["cut", 1e-2]
assert end["clamp", 1e-2] < end["HIG", 1e-6]
for name in ("cut", "clamp", "damp"):
    assert worst[name, 1e-2] < worst[name, 1e-4] / 100 < worst[name, 1e-6] / 1e4
assert worst["clamp", 1e-6] > 100 * max(worst[name, 1e-6] for name in ("cut", "damp"))
assert min(end["cut", 1e-6], end["damp", 1e-6]) > 3 * end["HIG", 1e-6]
assert worst["HIG, clamped", 1e-6] > 3 * worst["HIG", 1e-6]

# %%
figure = Figure(figsize=(10.5, 5.8), layout="constrained")
(inverse, removed, steps), trainings = figure.subplots(2, 3)
problem = Toy(samples=64).problem(0)
_, U, s, _, error = linearised(problem, problem.network.init(np.random.default_rng([0, 1])))
modes = s[s > 1e-10 * s[0]] / s[0]
z = np.abs(U.T @ error)[: len(modes)]
x = np.geomspace(1, 1e-5, 200)
for (name, f), marker in zip(FILTERS.items(), "osD^", strict=True):
    color, dash = FILTER_STYLE[name]
    for ax, values in ((inverse, f(x, 0.01)), (removed, x * f(x, 0.01))):
        ax.loglog(x, np.maximum(values, 1e-9), dash, color=color, label=name)
    length = np.maximum(f(modes, 0.01) / s[0] * z, 1e-20)
    steps.loglog(modes, length, marker, ms=5, mfc="none", color=color)
inverse.set(title="f(x), tau = 0.01", ylim=(0.5, 1e3))
removed.set(title="x f(x), tau = 0.01", ylim=(1e-6, 2))
steps.set(title="first step along $v_k$, tau = 0.01", ylim=(1e-8, 1e3))
for ax in (inverse, removed, steps):
    ax.set_xlabel("x = s / max(s)")
    ax.invert_xaxis()
inverse.legend(frameon=False)
for ax, tau, top in zip(trainings, TAUS, (1e2, 1e6, 1e10), strict=True):
    for name, (color, dash) in FILTER_STYLE.items():
        losses = np.array([loss for loss, _ in descents[name, tau if name != "HIG" else 1e-6]])
        ax.semilogy(np.median(losses, axis=0), dash, color=color)
        ax.semilogy(np.full(len(SEEDS), STEPS), losses[:, -1], "o", ms=4, mfc="none", color=color)
    ax.set(title=f"loss, tau = {tau:.0e}", xlabel="step", ylim=(4e-4, top))
show(figure, "lesson6-filters.png")

# %% [markdown]
# The losses are medians, and each circle is where a seed ends.
#
# - tau = 1e-2: the cut learns $y^1$ and then nothing, damping creeps, and the clamp ends lowest,
#   below HIG too.
# - tau = 1e-4: the worst loss on the way is hundreds and more, and for the clamp tens of thousands.
# - tau = 1e-6: all three are thrown beyond 1e5. Cut and damping come back to a loss that is hardly
#   better than at the start; the clamp, with most seeds, does not come back.
#
# The book advises to cut and not to clamp: the singular vectors of tiny s are the least reliable,
# and a clamp moves theta along all of them by $z_k / \tau$. With HIG's tau = 1e-6 that is borne
# out, for the full inversion, and for HIG itself in the last line. But at tau = 1e-2 the clamp was
# the best of the three, for it serves small modes much as HIG does.
#
# So a full inversion stands or falls with where it bends, which is why LM looks for its lambda anew
# in every step. HIG does not bend before 1e-6, and hardly minds where (lesson 4).
#
# ## A race on the linear chain
#
# The book trains a network to control a chain of two linear oscillators, 24 steps long, and prints
# the loss of all 4096 training samples after each of four epochs: 5.4e-5, 1.1e-5, 3.2e-6 and 1.2e-6
# for HIG with batches of 32 and eta = 1. Here are SIP, HIG and LM with the same batches, from three
# starts, and Adam and Gauss-Newton for comparison. SIP and Adam have to be told a rate, so first
# three tries each, of one epoch.

# %%
chain = LinearChain()


def train_chain(optimizer, seed, epochs=4):
    """The loss of all training samples, before training and after each epoch."""
    result = fit(chain.problem(seed), optimizer, batch=32, epochs=epochs, seed=seed)
    return [row.test_loss for row in result.history]


for kind in (Adam, ScaleInvariantPhysics):
    tries = {lr: train_chain(kind(lr=lr), seed=0, epochs=1)[-1] for lr in (1e-3, 1e-2, 1e-1)}
    print(f"{kind.__name__}:", ", ".join(f"{end:.1e} with {lr:g}" for lr, end in tries.items()))
    assert min(tries, key=tries.get) == 1e-2

# %%
RACERS = {
    "Adam": Adam(lr=1e-2),
    "SIP": ScaleInvariantPhysics(lr=1e-2),
    "HIG": HIG(lr=1.0, tau=1e-6),
    "HIG, eta = 2": HIG(lr=2.0, tau=1e-6),
    "Gauss-Newton": GaussNewton(lr=1.0, tau=1e-6, paper=True),
    "LM": LevenbergMarquardt(),
}
race = {
    name: np.array([train_chain(optimizer, seed) for seed in range(3)])
    for name, optimizer in RACERS.items()
}
print("medians after     1       2       3       4 epochs")
for name, losses in race.items():
    print(f"{name:13s}", *(f"{value:.1e}" for value in np.median(losses, axis=0)[1:]))

ends = {name: np.median(losses[:, -1]) for name, losses in race.items()}
assert 0.5 < ends["SIP"] / ends["Adam"] < 2
assert ends["HIG"] < ends["SIP"] / 100
assert ends["HIG, eta = 2"] < ends["HIG"] / 3
assert ends["LM"] < ends["Gauss-Newton"] / 2 < ends["HIG"] / 8

# %% [markdown]
# HIG repeats the book's figures within a quarter, and ends ten times lower with twice its eta.
# Gauss-Newton is lower still, LM a hundred times lower than the book's HIG. And SIP, which inverts
# the physics, ends where Adam does, which inverts nothing. Look at what there is to invert:

# %%
problem = chain.problem(0)
theta = problem.network.init(np.random.default_rng([0, 1]))
at = problem.linearise(theta, problem.batch(0, 32))
S = at.solver_rows()  # (32, 4, 24)
assert np.allclose(S, S[0])  # the solver is linear
spectra = {"S": decompose(S[0])[1], "J": decompose(at.jacobian().dense())[1]}
for name, s in spectra.items():
    print(f"{name}: {len(s)} singular values, the largest over the smallest {s[0] / s[-1]:.2g}")

# %%
figure = Figure(figsize=(10, 3.8), layout="constrained")
left, right = figure.subplots(1, 2)
STYLE["HIG, eta = 2"] = STYLES[6]
for name, losses in race.items():
    color, dash = STYLE[name]
    left.semilogy(np.median(losses, axis=0), dash, color=color, marker="o", ms=4, label=name)
    span = losses.min(axis=0), losses.max(axis=0)
    left.fill_between(range(5), *span, color=color, alpha=0.15, lw=0)
left.set(title="loss of all training samples", xlabel="epochs", xticks=range(5))
left.legend(frameon=False, fontsize=8)
for name, label, size in (("S", "S of the solver", 9), ("J", "J of 32 samples", 2)):
    s = spectra[name]
    modes = np.arange(1, len(s) + 1)
    right.semilogy(modes, s / s[0], "ko", mfc="none", ms=size, label=label)
right.set(title="singular values over the largest", xlabel="mode")
right.legend(frameon=False)
show(figure, "lesson6-race.png")

# %% [markdown]
# The four singular values of the solver are within a factor of four, so that inverting it changes
# little. Those of the stack, 32 samples seen through the network, fall through four decades. What
# is ill conditioned here is the network and the likeness of its samples (A.3), and only methods
# that invert the stack get at that. SIP is for solvers that are the difficult part, and that have
# an inverse.
#
# LM ends lowest in all of this lesson's trainings. It has to know h and to try its steps, and it
# may wait. HIG needs neither, hardly minds its tau, and falls steadily, if more slowly.
#
# ## Exercises
#
# 1. Give SIP the toy. With gamma = 0.01 it asks for controls of the order of 1 / gamma. Which rate
#    lets Adam take the network there?
# 2. Measure the chain's momenta in hundredths, solver and targets times (1, 1, 0.01, 0.01), train,
#    and evaluate in the old units. Whose curve stays the same?
# 3. Race LM and HIG on `Oscillators()` with a few seeds. Every step of LM lowers the loss of its
#    own batch. Does it lower the loss of all the others?
