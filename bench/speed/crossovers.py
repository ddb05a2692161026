"""Which way to apply K^(-3/4), J^(-1/2) or damping is the fastest, and from which size on."""

from __future__ import annotations

import time
from statistics import median

import numpy as np
import scipy.linalg

from higcore import half_inverse
from higcore.backend import synchronize, thread_policy
from higcore.half_inverse import SQUARING, choose_method, decompose
from higcore.optimizers.matrix_free import MatrixFreeJacobian
from higcore.spectral.filters import Damped, TruncatedPower

from ..experiments import EXPERIMENTS

SIZES = (64, 128, 256, 512, 1024, 1500, 2048, 4096)
TAU = 1e-5
# Singular values fall evenly in the logarithm from 1 to this; TAU then cuts nothing, or half.
CASES = {"nothing cut": 2e-4, "half cut": 1e-10}
DAMPED = ("poisson", "oscillators")  # 64 rows a sample and no march; 4 rows, and one
PRODUCTS = 60  # as many as a step of AdaptiveHIG may take
LARGEST_J = 1024  # rows up to which methods that decompose J itself are timed


def crossovers(report, keep, sizes=SIZES):
    """Return ``{case: {method: {n: seconds}}}``; ``keep`` it after every size."""
    damped = {name: f"damped step, {name}" for name in DAMPED}
    found = {case: {} for case in (*CASES, "from J, t = 4 m", *damped.values())}
    for n in sizes:
        for case, smallest in CASES.items():
            report(f"n = {n}, {case}")
            K, z = gram_matrix(n, smallest), np.random.default_rng(1).standard_normal(n)
            for method, seconds in time_squaring(K, z).items():
                found[case].setdefault(method, {})[n] = seconds
        if n <= LARGEST_J:
            for method, seconds in time_from_jacobian(n).items():
                found["from J, t = 4 m"].setdefault(method, {})[n] = seconds
        for name, case in damped.items():
            report(f"n = {n}, {case}")
            for method, seconds in time_damped(name, n).items():
                found[case].setdefault(method, {})[n] = seconds
        keep(found)
    return found


def auto_choices(sizes=SIZES, tau=TAU):
    """What ``method="auto"`` takes at every size; nothing is cut for a tau of Inf."""
    return {n: choose_method("auto", n, 4 * n, tau, True) for n in sizes}


def gram_matrix(n, smallest):
    """K (n, n) with singular values of J from 1 down to ``smallest``, random eigenvectors."""
    U = np.linalg.qr(np.random.default_rng(0).standard_normal((n, n)))[0]
    K = (U * np.logspace(0, 2 * np.log10(smallest), n)) @ U.T
    return (K + K.T) / 2


def time_squaring(K, z):
    """Median seconds of each method that works on K, and of SciPy's eigh as one would write it."""

    with thread_policy():
        return {method: timed(applied(method, K, z)) for method in SQUARING} | {
            "scipy.linalg.eigh": timed(lambda: by_eigh(K, z))
        }


def applied(method, K, z):
    """A call of a method on K and z, on their device; it waits for its result."""

    def call():
        found = SQUARING[method].decompose(K.copy(), z).apply(TruncatedPower(-0.5, TAU))
        synchronize(K)
        return found

    return call


def by_eigh(K, z):
    """K^(-3/4) z over the kept modes, by SciPy's default decomposition."""
    values, U = scipy.linalg.eigh(K)
    keep = values > TAU**2 * values[-1]
    return U[:, keep] @ (values[keep] ** -0.75 * (U[:, keep].T @ z))


def time_from_jacobian(m):
    """Median seconds of each method on a dense J (m, 4 m)."""
    rng = np.random.default_rng(0)
    J, g = rng.standard_normal((m, 4 * m)), rng.standard_normal(m)
    methods = ("svd", "qr", "auto")
    return {name: timed(lambda name=name: half_inverse(J, g, method=name)) for name in methods}


def time_damped(name, m):
    """Median seconds of a damped step of m rows, by K and by products with J alone."""
    problem = EXPERIMENTS[name].problem()
    theta = problem.network.init(np.random.default_rng(0))
    at = problem.linearise(theta, problem.batch(0, max(m // problem.output_size, 1)))
    g, size = at.loss_gradient.reshape(-1), MatrixFreeJacobian(at).norm_squared()
    f = Damped(1e-6 * size, 0.375, scale=size)
    by_matrix = choose_method("auto", m, problem.size, 1.0, True)

    def step(method):
        J = MatrixFreeJacobian(at) if method == "lanczos" else at.jacobian()
        return decompose(J, g, method, tolerance=0.0, products=PRODUCTS).apply(f)

    methods = {"K": by_matrix, "lanczos": "lanczos"}
    return {label: timed(lambda method=method: step(method)) for label, method in methods.items()}


def timed(call, budget=3.0, most=15):
    """Median seconds of some calls after one that is not counted."""
    call()
    seconds = []
    while not seconds or (len(seconds) < most and sum(seconds) < budget):
        begin = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - begin)
    return median(seconds)
