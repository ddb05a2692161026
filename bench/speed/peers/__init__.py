"""Rivals: one step as a competent user of other software would write it, to be timed.

The rule: the same parameters, the same batch, the same step. A rival is called with theta and a
batch in float64 and returns the step as a NumPy array, computed in full when the call returns:
V S^kappa U^T g, cut at s > tau max(S), or, damped, J^T (h J J^T + lambda)^(-1) g. A label says
library, precision and decomposition: ``svd`` is that of a dense J, ``eigh`` that of K = J J^T (of
J^T J, if smaller).

- ``numpy``: the paper's way, which forms the pseudo-inverse; it is given higcore's J.
- ``jax``: automatic differentiation, compiled as one function; the first call compiles. ``tuned``
  adds what an expert would: a hand-written tridiagonal solve with a rule for its derivative in the
  dipole, and the memory order that suits LAPACK.
- ``torch``: automatic differentiation by torch.func, time steps in a Python loop, tuned alike.
- ``cupy``: a dense J on a GPU; it is given higcore's J.

Three kinds of steps are raced: ``half``, the half-inverse, and two that others wrote.

- ``damped``: nlls-gram's Levenberg-Marquardt, and NetKet's SRT, whose formula JAX is given.
- ``inverse``, kappa = -1: Sven (github.com/sambt/sven) takes its pseudo-inverse from the SVD of a
  dense J or, as ``SvenGram``, from J J^T, a layer after the other: ``svd`` and ``eigh``. ``pinv``
  is that of the libraries.

The networks, the physics and the losses of JAX and PyTorch are in `formulas`, which takes sizes and
constants from higcore's objects and nothing else. Single precision squared resolves only
s > 3e-4 max(S): below that, ``float32 eigh`` is another step.
"""

from __future__ import annotations

import importlib
import importlib.util

_DECOMPOSITIONS = ("float64 svd", "float64 eigh", "float32 svd", "float32 eigh")

# label -> (module of this package, package it needs)
PEERS = {
    "numpy float32 svd": ("numpy_paper", "numpy"),
    **{f"jax {how}": ("jax_peer", "jax") for how in _DECOMPOSITIONS},
    "jax float64 svd tuned": ("jax_peer", "jax"),
    "jax float64 eigh tuned": ("jax_peer", "jax"),
    **{f"torch {how}": ("torch_peer", "torch") for how in _DECOMPOSITIONS},
}
# On a GPU, all in float64; JAX and PyTorch take part if they find the device.
GPU_PEERS = {
    **{f"cupy float64 {how}": ("cupy_dense", "cupy") for how in ("svd", "eigh")},
    **{label: PEERS[label] for label in PEERS if "float64" in label},
}
DAMPED_PEERS = {
    "nlls-gram float64 cholesky": ("nlls_gram_peer", "nlls_gram"),
    "jax float64 srt tuned": ("jax_peer", "jax"),
}
INVERSE_PEERS = {
    "torch float64 svd": PEERS["torch float64 svd"],
    "torch float64 eigh": PEERS["torch float64 eigh"],
    "torch float64 pinv": ("torch_peer", "torch"),
    "jax float64 svd tuned": PEERS["jax float64 svd tuned"],
    "jax float64 eigh tuned": PEERS["jax float64 eigh tuned"],
    "jax float64 pinv tuned": ("jax_peer", "jax"),
}
KINDS = {"half": PEERS, "damped": DAMPED_PEERS, "inverse": INVERSE_PEERS}
EVERY_PEER = PEERS | DAMPED_PEERS | INVERSE_PEERS
PIP = "pip install 'higcore[peers]'"


def installed(known=PEERS):
    """Labels of the rivals whose package can be imported."""
    return [label for label, (_, package) in known.items() if _found(package)]


def absent():
    """The other labels, each with what is missing and the line that installs it."""
    return {
        label: f"{package} is not installed ({PIP})"
        for label, (_, package) in EVERY_PEER.items()
        if not _found(package)
    }


def _found(package):
    return importlib.util.find_spec(package) is not None


def make_step(label, problem, *, device="cpu", **rule):
    """Return the rival ``step(theta, batch)`` (t,) of a label.

    Parameters
    ----------
    label : str
        One of `EVERY_PEER` or `GPU_PEERS`; its package is imported here.
    problem : higcore.Problem
        Network, solver and loss of one of the experiments.
    device : {"cpu", "gpu"}
        Where JAX and PyTorch compute.
    **rule
        ``tau`` and ``kappa`` (-0.5), for V S^kappa U^T g with the modes s > tau max(S); for
        `DAMPED_PEERS` ``damping`` and ``curvature``, lambda and h of J^T (h J J^T + lambda)^(-1) g.
    """
    known = EVERY_PEER | GPU_PEERS
    if label not in known:
        raise ValueError(f"label must be one of {', '.join(known)}; got {label!r}")
    module = importlib.import_module(f".{known[label][0]}", __name__)
    library, dtype, decomposition, *tuned = label.split()
    options = {"tuned": True} if tuned else {}
    if library not in ("numpy", "cupy"):
        options["device"] = device
    return module.make_step(problem, dtype, decomposition, **rule, **options)
