"""What people would train with instead, each set up as its documentation says.

All train the same network from the same parameters on the same batches, in float64. JAX and PyTorch
take the physics from `bench.speed.peers.formulas`, with the tridiagonal solve and the compiled time
loop of an expert, and differentiate it themselves. Losses are sums of squares to all that want
residuals; an infidelity is the square of what a state has beside its target.

A peer is a function (problem, batch, seed, clock, **setting) that calls ``clock.start(theta)`` when
all is compiled, and ``clock.tick(theta)`` after every step until that is true. Its grid holds the
settings that are tried before, on another seed, for less time.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import NamedTuple


class Peer(NamedTuple):
    """Where a peer is, the package that it needs, whose batch it takes, and its settings."""

    module: str
    package: str
    batch: str  # an optimizer of the experiment
    grid: tuple[dict, ...] = ({},)

    @property
    def installed(self):
        """Whether its package can be imported."""
        return importlib.util.find_spec(self.package) is not None

    def function(self, name):
        """The function of its module."""
        return getattr(importlib.import_module(f".{self.module}", __name__), name)


PEERS = {
    "adaptive": Peer("own", "higcore", "adaptive"),
    "lm": Peer("own", "higcore", "hig"),
    "nlls_gram": Peer(
        "with_jax", "nlls_gram", "hig",
        tuple({"init_damping": value} for value in (1e-3, 0.1, 10.0, 1e3)),
    ),
    "optimistix": Peer("with_jax", "optimistix", "hig", ({"samples": 32}, {"samples": 128})),
    "srt": Peer(
        "with_jax", "jax", "hig",
        (
            {"diag_shift": 1.0, "momentum": 0.8}, {"diag_shift": 0.1, "momentum": 0.8},
            {"diag_shift": 0.01, "momentum": 0.8}, {"diag_shift": 1e-3, "momentum": 0.8},
            {"diag_shift": 0.01, "momentum": 0.8, "lr": 0.3},
        ),
    ),
    "adam": Peer("with_jax", "optax", "adam", ({"lr": 1e-4}, {"lr": 1e-3}, {"lr": 1e-2})),
    "muon": Peer("with_jax", "optax", "adam", ({"lr": 1e-4}, {"lr": 1e-3}, {"lr": 1e-2})),
    "torch_lm": Peer(
        "with_torch", "torch_levenberg_marquardt", "hig",
        ({"starting_value": 1e-3}, {"starting_value": 1.0}),
    ),
    "scipy": Peer("with_scipy", "jax", "hig", ({"samples": 64}, {"samples": 256})),
}  # fmt: skip
