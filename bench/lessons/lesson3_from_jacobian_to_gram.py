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
# # Lesson 3: from J to the Gram matrix, or why nothing is formed
#
# The half-inverse step needs the singular values of J, which has a row for every output of every
# sample (eq. 7) and a column for every parameter. Here J is written out once, to see that it is a
# product of small factors, and that the step needs the factors only:
#
# $$K = J J^\top = \sum_l (\delta_l \delta_l^\top) \circ (a_l a_l^\top + 1), \qquad
# \mathrm{step} = J^\top K^{-3/4} g = V S^{-1/2} U^\top g$$

# %%
import numpy as np
from matplotlib.figure import Figure

from bench.lessons import show
from bench.style import STYLES
from higcore import StackedJacobian, half_inverse
from nets import MLP
from solvers import OscillatorChain

rng = np.random.default_rng(3)

# %% [markdown]
# ## A network of two layers, by hand
#
# u = tanh(x W_1 + bias_1) W_2 + bias_2 controls two oscillators for eight steps. Three samples,
# b = 3; four outputs a sample, r = 4; so J has m = b r = 12 rows.

# %%
sizes = (4, 5, 8)
b, r = 3, 4
W_1, bias_1 = 0.5 * rng.standard_normal((4, 5)), 0.1 * rng.standard_normal(5)
W_2, bias_2 = 0.5 * rng.standard_normal((5, 8)), 0.1 * rng.standard_normal(8)
theta = np.concatenate([part.ravel() for part in (W_1, bias_1, W_2, bias_2)])
x = rng.random((b, 4))
solver = OscillatorChain(steps=8, dt=0.5)

a_1 = x  # (b, 4), what W_1 multiplies
a_2 = np.tanh(a_1 @ W_1 + bias_1)  # (b, 5), what W_2 multiplies
u = a_2 @ W_2 + bias_2  # (b, 8)
y, S = solver.jacobian(x, u)  # (b, r), and dy/du (b, r, 8) of every sample: lesson 2

# %% [markdown]
# ## Rows are outer products
#
# Pull the rows of S back through the network, as one pulls back a gradient, but r rows a sample
# instead of one: delta_l holds them where layer l adds its bias. The chain rule then says that
# output j of sample i has the derivative $a_i \otimes \delta_{ij}$ with respect to W_l, and
# $\delta_{ij}$ with respect to its bias.

# %%
delta_2 = S  # (b, r, 8)
delta_1 = (delta_2 @ W_2.T) * (1 - a_2**2)[:, None, :]  # (b, r, 5)


def block(a, delta):
    """The columns of J that belong to one layer, (m, (n_in + 1) n_out)."""
    outer = a[:, None, :, None] * delta[:, :, None, :]  # (b, r, n_in, n_out)
    return np.concatenate([outer.reshape(b, r, -1), delta], axis=2).reshape(b * r, -1)


J = np.concatenate([block(a_1, delta_1), block(a_2, delta_2)], axis=1)
print("J is", J.shape, "and made of", a_1.size + a_2.size + delta_1.size + delta_2.size, "numbers")

# %% [markdown]
# Is that J? Differences of the whole chain, network and solver, know nothing of factors.


# %%
def physics(theta):
    """y (m,) as a function of all parameters."""
    W_1, bias_1, W_2, bias_2 = np.split(theta, np.cumsum([20, 5, 40]))
    u = np.tanh(x @ W_1.reshape(4, 5) + bias_1) @ W_2.reshape(5, 8) + bias_2
    return solver.solve(x, u).ravel()


differences = [
    (physics(theta + 1e-5 * e) - physics(theta - 1e-5 * e)) / 2e-5 for e in np.eye(len(theta))
]
error = np.abs(J - np.transpose(differences)).max() / np.abs(J).max()
print(f"relative difference {error:.1e}")
assert error < 1e-7

# %% [markdown]
# It is, to the accuracy of differences.
#
# ## K is a sum of Hadamard products
#
# The product of two rows is a sum over layers, and within a layer
# $(a_i \otimes \delta_{ij}) \cdot (a_k \otimes \delta_{kn}) = (a_i \cdot a_k)(\delta_{ij} \cdot
# \delta_{kn})$; the bias adds the same with 1 in place of $a_i \cdot a_k$. So each layer
# contributes two small Gram matrices multiplied entry by entry, the one of the samples repeated
# over the r x r blocks of outputs.


# %%
def layer_gram(a, delta):
    """(delta delta^T) * (a a^T + 1), (m, m)."""
    rows = delta.reshape(b * r, -1)
    return (rows @ rows.T) * repeated(a @ a.T + 1)


def repeated(samples):
    """A matrix (b, b) with every entry repeated r x r."""
    return np.kron(samples, np.ones((r, r)))


K = layer_gram(a_1, delta_1) + layer_gram(a_2, delta_2)
print("largest difference to J J^T:", np.abs(K - J @ J.T).max())
assert np.allclose(K, J @ J.T)

# %%
figure = Figure(figsize=(12, 2.9), layout="constrained")
rows = delta_2.reshape(b * r, -1)
pictures = {
    r"$\delta\,\delta^\top$": rows @ rows.T,
    r"$a\,a^\top + 1$, repeated": repeated(a_2 @ a_2.T + 1),
    "their Hadamard product": layer_gram(a_2, delta_2),
    "K, the sum over both layers": K,
}
for ax, (name, matrix) in zip(figure.subplots(1, 4), pictures.items(), strict=True):
    limit = np.abs(matrix).max()
    image = ax.imshow(matrix, cmap="RdBu_r", vmin=-limit, vmax=limit)
    figure.colorbar(image, ax=ax, shrink=0.7)
    ax.set_title(name, fontsize=10)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_ticks(np.arange(r, b * r, r) - 0.5, [])
    ax.grid(color="k", lw=0.8, alpha=1)
    ax.tick_params(length=0)
show(figure, "lesson3-gram.png")

# %% [markdown]
# The picture shows the second layer; the lines part the samples.
#
# ## J^T c is a backward pass
#
# The other half of a step is J^T c. Transposing the outer products gives
# $\sum_i a_i \otimes (\sum_j c_{ij} \delta_{ij})$: weigh the r rows of each sample, then do what a
# backward pass does. In other words, it is the ordinary backward pass for the cotangent c of y.


# %%
def backward_pass(c):
    """J^T c (t,) for c (b, r), from the factors."""
    parts = []
    for a, delta in ((a_1, delta_1), (a_2, delta_2)):
        weighted = (c[:, :, None] * delta).sum(axis=1)  # (b, n_out)
        parts += [(a.T @ weighted).ravel(), weighted.sum(axis=0)]  # for W, for its bias
    return np.concatenate(parts)


c = rng.standard_normal((b, r))
assert np.allclose(backward_pass(c), J.T @ c.ravel())

network = MLP(sizes)
control, tape = network.forward(theta, x)
u_bar = (c[:, None, :] @ S)[:, 0]  # (b, 8), c pulled back through the solver
assert np.allclose(network.backward(theta, tape, u_bar), J.T @ c.ravel())

# %% [markdown]
# Both asserts hold: the backward pass of `nets.MLP`, which never meets J, gives the same vector.
#
# ## The step from K
#
# $K = J J^\top = U S^2 U^\top$, so $J^\top K^p g = V S\,S^{2p}\,U^\top g$. With
# $p = (\kappa - 1)/2$ that is eq. 5: p = 0 for gradient descent, -3/4 for the half-inverse and -1
# for Gauss-Newton. K is 12 x 12, whatever the number of parameters.


# %%
def step_from_factors(g, kappa):
    """J^T K^((kappa - 1) / 2) g; nothing larger than K is made."""
    squares, U = np.linalg.eigh(K)
    c = (U * squares ** ((kappa - 1) / 2) @ (U.T @ g)).reshape(b, r)
    return backward_pass(c)


g = 2 * (y - x).ravel() / b  # the oscillators are to come back to where they began
U, s, Vt = np.linalg.svd(J, full_matrices=False)
print("singular values from", s[0].round(3), "to", s[-1].round(6))
stacked = StackedJacobian(network, theta, tape, S)
for kappa in (1.0, -0.5, -1.0):
    definition = Vt.T @ (s**kappa * (U.T @ g))  # eq. 6
    library, info = half_inverse(stacked, g, kappa=kappa)
    print(f"kappa {kappa:4}: |step| {np.linalg.norm(definition):.3e}, rank {info.rank}")
    for step in (step_from_factors(g, kappa), library):
        error = np.linalg.norm(step - definition) / np.linalg.norm(definition)
        assert error < 1e-4

# %% [markdown]
# The step from factors, the definition and the library agree. What the square in K costs in digits
# is the subject of lesson 4.
#
# ## When there are fewer parameters than rows
#
# Then the other product is the smaller one: $J^\top J = V S^2 V^\top$ is t x t, and
# $\mathrm{step} = (J^\top J)^{(\kappa-1)/2} J^\top g$. Here is a network of 47 parameters with 128
# rows.

# %%
small, many = MLP((4, 3, 8)), rng.random((32, 4))
few = small.init(rng)
control, tape = small.forward(few, many)
end, S_many = solver.jacobian(many, control)
tall = StackedJacobian(small, few, tape, S_many)
g_many = rng.standard_normal(tall.shape[0])

squares, V = np.linalg.eigh(tall.gram_of_parameters())
kept = squares > 1e-6**2 * squares[-1]  # tau = 1e-6
z = V[:, kept].T @ tall.rmatvec(g_many)
by_parameters = V[:, kept] @ (squares[kept] ** -0.75 * z)
step, info = half_inverse(tall, g_many, method="svd")
error = np.linalg.norm(by_parameters - step) / np.linalg.norm(step)
print(f"J {tall.shape}, rank {info.rank}: relative difference {error:.1e}")
assert error < 1e-4

# %% [markdown]
# ## What it saves
#
# Count numbers from shapes: a dense J has m t, the factors have $b \sum_l (n_{l-1} + r\,n_l)$, and
# K has m^2. First check the count against arrays that exist, then let the network of the paper's
# oscillators (three hidden layers, batch of 128) grow in width.


# %%
def dense_numbers(sizes, b, r):
    """Entries of J."""
    return b * r * MLP(sizes).size


def factor_numbers(sizes, b, r):
    """Entries of all a_l and delta_l."""
    return b * (sum(sizes[:-1]) + r * sum(sizes[1:]))


def held(sizes, b):
    """Entries of a dense J and of the factors that the library really holds."""
    network, solver = MLP(sizes), OscillatorChain(steps=sizes[-1])
    theta, x = network.init(rng), rng.random((b, 4))
    u, tape = network.forward(theta, x)
    J = StackedJacobian(network, theta, tape, solver.jacobian(x, u)[1])
    return J.dense().size, sum(rows.a.size + rows.delta.size for rows in J.blocks)


for width in (5, 20, 60):
    wide = (4, width, width, width, 96)
    assert held(wide, 6) == (dense_numbers(wide, 6, 4), factor_numbers(wide, 6, 4))

paper = (4, 20, 20, 20, 96)
print(f"paper's oscillators: dense J {8 * dense_numbers(paper, 128, 4) / 1e6:.1f} MB, ", end="")
print(f"factors {8 * factor_numbers(paper, 128, 4) / 1e6:.2f} MB, K {8 * 512**2 / 1e6:.1f} MB")

# %% [markdown]
# Operations follow the same pattern: K costs $m^2 t$ multiplications from a dense J, and
# $m^2 \sum_l n_l$ for the delta products plus $b^2 \sum_l n_{l-1}$ for those of the samples, plus
# $2 m^2$ a layer for the Hadamard products and their sum, from the factors.

# %%
b, r = 128, 4
m = b * r
widths = 2 ** np.arange(4, 14)
grown = [(4, n, n, n, 96) for n in widths]
gigabytes = {
    "dense J": [8e-9 * dense_numbers(n, b, r) for n in grown],
    "row factors": [8e-9 * factor_numbers(n, b, r) for n in grown],
    "K": [8e-9 * m**2 for _ in grown],
}
operations = {
    "K from a dense J": [m * dense_numbers(n, b, r) for n in grown],
    "K from factors": [m**2 * (sum(n[1:]) + 2 * (len(n) - 1)) + b**2 * sum(n[:-1]) for n in grown],
}
figure = Figure(figsize=(10, 3.8), layout="constrained")
for ax, curves, title in zip(
    figure.subplots(1, 2), (gigabytes, operations), ("gigabytes", "multiplications"), strict=True
):
    for (label, values), (color, dash) in zip(curves.items(), STYLES, strict=False):
        ax.loglog(widths, values, dash, color=color, label=label)
    ax.set(title=title, xlabel="width of the three hidden layers")
    ax.legend(frameon=False)
show(figure, "lesson3-growth.png")

# %%
slopes = {
    label: np.log2(values[-1] / values[-2]) for label, values in (gigabytes | operations).items()
}
for label, slope in slopes.items():
    print(f"{label}: slope {slope:.2f} at the right end")
ratio = gigabytes["dense J"][-1] / gigabytes["row factors"][-1]
print(f"at width {widths[-1]} a dense J is {ratio:.0f} times as large as the factors")
assert slopes["dense J"] > 1.9
assert slopes["K from a dense J"] > 1.9
assert slopes["row factors"] < 1.1
assert slopes["K from factors"] < 1.1

# %% [markdown]
# A dense J grows with the square of the width, like the network itself; the factors and the work
# for K grow with the width, like the activations. That is why nothing is formed.
