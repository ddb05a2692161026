"""Rivals: one HIG step as a competent user of other software would write it, to be timed.

The rule: the same parameters, the same batch, the same step. A rival is called with theta and a
batch in float64 and returns V S^kappa U^T g, cut at s > tau max(S), as a NumPy array, computed in
full when the call returns. A label says library, precision and decomposition: ``svd`` is that of a
dense J, ``eigh`` that of K = J J^T (of J^T J, if smaller).

- ``numpy``: the paper's way, which forms the pseudo-inverse; it is given higcore's J.
- ``jax``: automatic differentiation, compiled as one function; the first call compiles. ``tuned``
  adds what an expert would: a hand-written tridiagonal solve with a rule for its derivative in the
  dipole, and the memory order that suits LAPACK.
- ``torch``: automatic differentiation by torch.func, time steps in a Python loop, tuned alike.
- ``cupy``: a dense J on a GPU; it is given higcore's J.

The networks, the physics and the losses of the latter two are in `formulas`, which takes sizes and
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
PIP = "pip install 'higcore[peers]'"


def installed(known=PEERS):
    """Labels of the rivals whose package can be imported."""
    return [label for label, (_, package) in known.items() if _found(package)]


def absent():
    """The other labels, each with what is missing and the line that installs it."""
    return {
        label: f"{package} is not installed ({PIP})"
        for label, (_, package) in PEERS.items()
        if not _found(package)
    }


def _found(package):
    return importlib.util.find_spec(package) is not None


def make_step(label, problem, *, tau, kappa=-0.5, device="cpu"):
    """Return the rival ``step(theta, batch) -> V S^kappa U^T g`` (t,) of a label.

    Parameters
    ----------
    label : str
        One of `PEERS`; its package is imported here.
    problem : higcore.Problem
        Network, solver and loss of one of the experiments.
    tau : float
        Modes with s > tau max(S) are kept.
    kappa : float
        Exponent of the singular values.
    device : {"cpu", "gpu"}
        Where JAX and PyTorch compute.
    """
    known = PEERS | GPU_PEERS
    if label not in known:
        raise ValueError(f"label must be one of {', '.join(known)}; got {label!r}")
    module = importlib.import_module(f".{known[label][0]}", __name__)
    library, dtype, decomposition, *tuned = label.split()
    options = {"tuned": True} if tuned else {}
    if library in ("jax", "torch"):
        options["device"] = device
    return module.make_step(problem, dtype, decomposition, tau=tau, kappa=kappa, **options)
