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
# # Lesson 4: what truncation does
#
# Eq. 6 divides by powers of the singular values, and some are as good as zero. The paper therefore
# gives the modes up to a cutoff tau no weight at all (section 2.2). What does that keep, what does
# it cost, and how small may tau be before rounding errors are inverted? Here is J of a real
# training to look at: the paper's oscillators, with a smaller network of tanh neurons, whose
# singular values fall particularly far.

# %%
import numpy as np
from matplotlib.figure import Figure

from bench.experiments import Oscillators
from bench.lessons import show
from bench.style import STYLES
from higcore import HIG, GaussNewton, fit, half_inverse
from higcore.backend import thread_policy

experiment = Oscillators(hidden=(10, 10), activation="tanh", samples=1024, test_samples=256)
problem = experiment.problem(seed=2)


def decompose(J):
    """U, S and V^T, in the precision of J."""
    with thread_policy():  # keeps BLAS threads from waiting for each other on a busy machine
        return np.linalg.svd(J, full_matrices=False)


# %% [markdown]
# ## The singular values of a training
#
# Linearise on a batch of 96 samples, before the first step and after 64 HIG steps. J has
# m = 96 x 4 = 384 rows.

# %%
fresh = problem.network.init(np.random.default_rng(2))
trained = fit(problem, HIG(), batch=96, steps=64, theta=fresh).theta
spectra = {}
for name, theta in (("at the start", fresh), ("after 64 steps", trained)):
    at = problem.linearise(theta, problem.batch(0, 96))
    J, g = at.jacobian().dense(), at.loss_gradient.ravel()
    U, s, Vt = decompose(J)
    spectra[name] = s
    kept = {tau: int((s > tau * s[0]).sum()) for tau in (1e-1, 1e-2, 1e-4, 1e-6, 1e-8)}
    print(f"{name}: loss {at.loss:.1e}, max(S) {s[0]:.1f}, modes kept by tau: {kept}")
    assert kept[1e-1] < 30
    assert kept[1e-2] < 60 < kept[1e-4] < 280 < kept[1e-6]
    assert (s < 1e-14 * s[0]).sum() >= 1

# %% [markdown]
# The values fall through two decades within the first 40 modes, through four more in the next 280
# and through the last two in 50. No gap says where to cut: tau = 1e-2 keeps a tenth of the modes
# and 1e-6 most of them. The last few are zero to rounding, for the 384 rows are not independent
# (appendix A.3 says why rows of a batch tend to be alike). From here on, J is the one after 64
# steps.
#
# ## What a mode contributes
#
# Along its v_i the step is $s_i^\kappa z_i$ with $z = U^\top g$. So the length of a step truncated
# at tau is the root of the sum of $(s_i^\kappa z_i)^2$ over the kept modes. `half_inverse` with
# the same tau must give it.

# %%
z = U.T @ g
real = s > 1e-14 * s[0]  # the others are rounding errors
lengths = {
    kappa: np.sqrt(np.cumsum((s[real] ** kappa * z[real]) ** 2)) for kappa in (1.0, -0.5, -1.0)
}
held = np.sqrt(np.cumsum(z[real] ** 2) / (g @ g))
growth = {}
for tau in (1e-1, 1e-2, 1e-4, 1e-6):
    rank = int((s > tau * s[0]).sum())
    growth[tau] = {kappa: length[rank - 1] / length[0] for kappa, length in lengths.items()}
    print(f"tau {tau:.0e}: {rank:3d} modes hold {held[rank - 1]:.2%} of |g|; step over that of the")
    print("  first mode,", ", ".join(f"kappa {k}: {v:.3g}" for k, v in growth[tau].items()))
    for kappa in (-0.5, -1.0):
        step, info = half_inverse(J, g, kappa=kappa, tau=tau)
        assert info.rank == rank
        assert np.isclose(np.linalg.norm(step), lengths[kappa][rank - 1], rtol=1e-2)

assert held[(s > 1e-4 * s[0]).sum() - 1] > 0.99
assert growth[1e-6][1.0] < 1.1 * growth[1e-2][1.0]
assert growth[1e-6][-0.5] < 2 * growth[1e-4][-0.5]
assert growth[1e-6][-1.0] > 3 * growth[1e-4][-1.0]

# %%
figure = Figure(figsize=(10, 3.9), layout="constrained")
left, right = figure.subplots(1, 2)
for (name, values), (color, dash) in zip(spectra.items(), STYLES, strict=False):
    left.semilogy(np.maximum(values / values[0], 1e-16), dash, color=color, label=name)
for tau in (1e-2, 1e-4, 1e-6):
    left.axhline(tau, color="k", lw=0.8, ls=":")
    left.text(1.25 * len(s), tau * 1.3, f"tau = {tau:.0e}", ha="right", fontsize=8)
left.set(title="singular values over the largest", xlabel="mode", xlim=(None, 1.25 * len(s)))
left.legend(frameon=False, loc="lower left")

cut = s[real] / s[0]
for (kappa, length), (color, dash) in zip(lengths.items(), STYLES, strict=False):
    right.loglog(cut, length / length[0], dash, color=color, label=f"step, kappa = {kappa:g}")
right.loglog(cut, held, ":", color="k", label="share of |g| that is held")
right.set(title="length of the step, first mode alone = 1", xlabel="tau", ylim=(0.03, 3e8))
right.invert_xaxis()
right.legend(frameon=False)
show(figure, "lesson4-modes.png")

# %% [markdown]
# At tau = 1e-4 the kept modes hold more than 99 % of g. What smaller taus add is hardly any
# residual, but much step if small singular values are fully inverted: the Gauss-Newton step goes on
# growing, the half-inverse step levels off, and gradient descent never noticed.
#
# ## Relative or absolute
#
# The paper's text cuts at s > tau, the authors' code at s > tau max(S), which is the default here.
# Measure y in another unit, say thousandths, and J and g are multiplied by 1000.

# %%
ranks = {}
for truncation in ("relative", "absolute"):
    for unit in (1.0, 1000.0):
        _, info = half_inverse(unit * J, unit * g, tau=1e-3, truncation=truncation)
        ranks[truncation, unit] = info.rank
        print(f"{truncation}, y times {unit:4g}: {info.rank} modes, cutoff {info.cutoff:.2g}")

assert ranks["relative", 1.0] == ranks["relative", 1000.0]
assert ranks["absolute", 1.0] < ranks["absolute", 1000.0] - 50

# %% [markdown]
# The relative cutoff keeps the same modes, the absolute one does not.
#
# ## How far a squared matrix can see
#
# Lesson 3 takes the step from K = J J^T, whose eigenvalues are s^2. Rounding moves them by up to
# about eps max(S)^2, eps = 2.2e-16, so s is in doubt below sqrt(eps) max(S) = 1.5e-8 max(S). In
# single precision, eps = 1.2e-7, the same limit is 3.5e-4 max(S). J itself, not squared, is good
# to about eps max(S).

# %%
J_32 = J.astype(np.float32)


def decompose_gram(J):
    """U and S from the eigenvectors and eigenvalues of J J^T, in the precision of J."""
    with thread_policy():
        squares, U = np.linalg.eigh(J @ J.T)
    return U[:, ::-1], np.sqrt(np.maximum(squares[::-1], 0))


svd_32, gram_32 = decompose(J_32), decompose_gram(J_32)
seen = {
    "J, float64": s,
    "K, float64": decompose_gram(J)[1],
    "J, float32": svd_32[1],
    "K, float32": gram_32[1],
}
true = s[real] / s[0]
reach = {}
for name in ("K, float64", "J, float32", "K, float32"):
    wrong = np.abs(seen[name][real] / s[0] - true) > 0.1 * true
    reach[name] = true[wrong].max() if wrong.any() else true[-1]
    print(f"{name}: singular values right to 10 % down to {reach[name]:.0e} max(S)")

assert 1e-5 < reach["K, float32"] < 1e-3
assert reach["K, float64"] < 5e-8
assert reach["J, float32"] < 5e-7

# %% [markdown]
# All three see at least as far as predicted, for the limits are bounds. What comes out further down
# is noise, or zero where an eigenvalue came out negative.
#
# ## What that does to the step
#
# A relative error of eps / tau^2 in the smallest kept eigenvalues becomes one of the step; without
# squaring it is eps / tau. Compare with the definition, eq. 6, in float64. The cutoff is moved into
# the widest gap near each tau, so that all ways keep the same modes as far as they see them.


# %%
def by_definition(U, s, Vt, tau):
    """V S^(-1/2) U^T g over the modes above tau max(S)."""
    kept = s > tau * s[0]
    return Vt[kept].T @ (s[kept] ** -0.5 * (U[:, kept].T @ g.astype(s.dtype)))


def by_gram(J, U, s, tau):
    """J^T K^(-3/4) g over the modes above tau max(S)."""
    kept = s > tau * s[0]
    return J.T @ (U[:, kept] @ (s[kept] ** -1.5 * (U[:, kept].T @ g.astype(s.dtype))))


def into_gap(tau):
    """The middle of the widest gap between singular values near tau."""
    near = np.flatnonzero((true[:-1] < 1.7 * tau) & (true[1:] > tau / 1.7))
    k = near[np.argmax(true[near] / true[near + 1])]
    return np.sqrt(true[k] * true[k + 1])


taus = np.array([into_gap(tau) for tau in np.geomspace(1e-2, 1e-6, 9)])
errors = {"K, float32": [], "J, float32": [], "K, float64": [], "J, float64 (qr)": []}
for tau in taus:
    exact = by_definition(U, s, Vt, tau)
    steps = (
        by_gram(J_32, *gram_32, tau),
        by_definition(*svd_32, tau),
        half_inverse(J, g, tau=tau, method="gram")[0],
        half_inverse(J, g, tau=tau, method="qr")[0],
    )
    for column, step in zip(errors.values(), steps, strict=True):
        column.append(np.linalg.norm(step - exact) / np.linalg.norm(exact))

print("tau      ", *(f"{tau:9.1e}" for tau in taus[::2]))
for name, column in errors.items():
    print(f"{name:16s}", *(f"{error:.1e}  " for error in column[::2]))

# %%
figure = Figure(figsize=(10, 3.9), layout="constrained")
left, right = figure.subplots(1, 2)
for (name, values), (color, dash) in zip(seen.items(), STYLES, strict=False):
    left.semilogy(np.maximum(values / s[0], 1e-12), dash, color=color, label=name)
left.set(title="singular values, four ways", xlabel="mode", ylim=(1e-11, 2))
left.legend(frameon=False, loc="lower left")

for (name, column), (color, _), marker in zip(errors.items(), STYLES[3::-1], "osD^", strict=True):
    right.loglog(taus, column, marker, ms=5, mfc="none", color=color, label=name)
right.invert_xaxis()
for eps, power, label in (
    (2**-52, 2, "eps / tau$^2$"),
    (2**-52, 1, "eps / tau"),
    (2**-23, 2, "eps / tau$^2$, float32"),
    (2**-23, 1, "eps / tau, float32"),
):
    bound = np.minimum(eps / taus**power, 1)  # beyond 1 nothing is right
    right.loglog(taus, bound, color="#999999", lw=0.8)
    right.text(taus[-1] / 1.3, bound[-1], label, fontsize=8, va="center")
right.set(title="relative error of the half-inverse step", xlabel="tau", ylim=(1e-16, 1e3))
right.set_xlim(right=2e-8)
right.legend(frameon=False, fontsize=8, ncols=2)
show(figure, "lesson4-noise.png")

# %%
assert (np.array(errors["K, float64"]) < 10 * 2**-52 / taus**2).all()
assert (np.array(errors["K, float32"]) < np.minimum(10 * 2**-23 / taus**2, 1)).all()
assert (np.array(errors["J, float64 (qr)"]) < 1e-8).all()
assert errors["K, float64"][-1] > 100 * errors["J, float64 (qr)"][-1]
assert errors["K, float32"][-1] > 0.1 > 1e-2 > errors["J, float32"][-1]

# %% [markdown]
# The error of the square is bounded by the order of eps / tau^2. In float64 it has lost far more
# digits at tau = 1e-6 than the way that does not square; in single precision the bound promises
# nothing below tau = 3.5e-4, and soon the step is wrong in its first digit. So the library makes
# and decomposes K in float64 even if all else is float32, and `method="auto"` does not square below
# tau = 3e-7.
#
# ## Short trainings
#
# Ten epochs of batches of 64 with the half-inverse and with Gauss-Newton, eta = 1, four cutoffs
# each, from the same start; one of the half-inverse with data and parameters in float32; and two
# more of Gauss-Newton with the smallest tau, with other data and another start.


# %%
def train(optimizer, seed=2, dtype=np.float64):
    """The test loss before each epoch and at the end."""
    problem = experiment.problem(seed, dtype)
    theta = problem.network.init(np.random.default_rng(seed), dtype)
    history = fit(problem, optimizer, batch=64, epochs=10, theta=theta).history
    return [row.test_loss for row in history]


taus = (1e-1, 1e-2, 1e-4, 1e-6)
hig = {tau: train(HIG(tau=tau)) for tau in taus}
gauss_newton = {tau: train(GaussNewton(tau=tau, paper=True)) for tau in taus}
single = train(HIG(tau=1e-6), dtype=np.float32)
others = [train(GaussNewton(tau=1e-6, paper=True), seed) for seed in (1, 3)]

for tau in taus:
    print(
        f"tau {tau:.0e}: half-inverse {hig[tau][-1]:.1e}, Gauss-Newton {gauss_newton[tau][-1]:.1e}"
    )
print(f"half-inverse with tau 1e-06 in float32: {single[-1]:.1e}")
print("Gauss-Newton with tau 1e-06 from other starts:", *(f"{run[-1]:.1e}" for run in others))

assert hig[1e-1][-1] > 10 * hig[1e-4][-1]
assert gauss_newton[1e-1][-1] > 10 * gauss_newton[1e-4][-1]
assert 0.5 < hig[1e-6][-1] / hig[1e-4][-1] < 2
assert 0.8 < single[-1] / hig[1e-6][-1] < 1.25
assert gauss_newton[1e-4][-1] < min(run[-1] for run in hig.values())
assert others[0][-1] < 1e-2
for run in (gauss_newton[1e-6], others[1]):
    assert not run[-1] < 1  # inf or NaN, perhaps

# %%
figure = Figure(figsize=(10, 3.9), layout="constrained")
left, right = figure.subplots(1, 2, sharey=True)
for ax, title, runs in ((left, "half-inverse", hig), (right, "Gauss-Newton", gauss_newton)):
    for (tau, losses), (color, dash) in zip(runs.items(), STYLES, strict=False):
        ax.semilogy(losses, dash, color=color, label=f"tau {tau:.0e}")
    ax.set(title=title, xlabel="epochs", ylim=(3e-5, 1e3))
left.plot(single, "o", ms=5, mfc="none", color="k", label="tau 1e-06, float32")
for k, losses in enumerate(others):
    label = None if k else "tau 1e-06, other starts"
    right.plot(losses, "--", color="#777777", lw=0.8, label=label)
left.set_ylabel("mean test loss")
for ax in (left, right):
    ax.legend(frameon=False, loc="upper right", fontsize=8)
show(figure, "lesson4-trainings.png")

# %% [markdown]
# A large tau cuts off what is to be learned, and both optimizers stall. Between 1e-4 and 1e-6 the
# half-inverse hardly notices tau, and float32 makes no difference that one could see; the paper
# finds tau "not overly critical" on its quantum dipole (B.4). Gauss-Newton has to be told where to
# stop: with tau = 1e-4 it ends lowest of all here; with 1e-6 the long steps of the first picture
# carry it away, from two of the three starts.
