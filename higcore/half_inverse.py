"""J^kappa applied to a vector: the public entry, the choice of method and its record."""

from __future__ import annotations

import functools
import math
import warnings
from dataclasses import dataclass

import numpy as np

from .backend import array_module, is_host
from .linearisation import DenseJacobian, StackedJacobian
from .spectral import gram, svd, tridiagonal
from .spectral.modes import DecompositionError, Truncation
from .validation import NonFiniteError, check_array, check_choice, check_finite, check_real

SQUARING = {"gram": gram, "tridiagonal": tridiagonal}
METHODS = ("auto", "svd", *SQUARING)
TRUNCATIONS = ("relative", "absolute")
AUTO_SQUARES_FROM = 3e-7  # relative tau at which eps / tau^2 reaches 2.5e-3
NEXT_SAFER = {"tridiagonal": "gram", "gram": "svd"}


@dataclass(frozen=True)
class HalfInverseInfo:
    """How a step was computed.

    Attributes
    ----------
    method : str
        ``"svd"``, ``"gram"`` or ``"tridiagonal"``: what was used in the end.
    rank : int
        Number of modes kept.
    sigma_max : float
        Largest singular value of J.
    cutoff : float
        Singular value up to which modes were dropped.
    gap_to_cutoff : float
        Relative distance of the nearest singular value to the cutoff, inf without a cutoff.
    fallback : str or None
        Why the method first chosen was given up.
    """

    method: str
    rank: int
    sigma_max: float
    cutoff: float
    gap_to_cutoff: float
    fallback: str | None = None


def half_inverse(
    J, g, *, kappa=-0.5, tau=1e-6, truncation="relative", beta=0.0, method="auto"
):  # fmt: skip
    r"""Return max(S)^beta V S^kappa U^T g for J = U S V^T, truncated (paper, eq. 5-7 and 22).

    kappa = 1 gives the gradient J^T g, kappa = -1 the Gauss-Newton step pinv(J) g and
    kappa = -1/2 the half-inverse gradient. Modes with a singular value up to the cutoff
    contribute 0 for every kappa.

    Parameters
    ----------
    J : array (m, t) or StackedJacobian
        Rows dy/dtheta of a batch, float32 or float64.
    g : array (m,), or (b, |y|) with a StackedJacobian
        Loss gradient dL/dy.
    kappa : float in [-1, 1]
        Exponent of the singular values.
    tau : float >= 0
        Truncation parameter.
    truncation : {"relative", "absolute"}
        Keep s > tau max(S) (the authors' code), or s > tau (the paper's text).
    beta : float
        Exponent of the prefactor max(S)^beta.
    method : {"auto", "svd", "gram", "tridiagonal"}
        ``"svd"`` decomposes J. ``"gram"`` and ``"tridiagonal"`` decompose K = J J^T (or J^T J if
        t < m) and use step = J^T K^((kappa - 1)/2) g; J is never formed, but squaring limits
        them to s / max(S) > 6e-8 and to an error of about eps / tau^2. ``"auto"`` takes
        ``"tridiagonal"`` (``"gram"`` on a GPU) when tau / max(S) >= 3e-7, else ``"svd"``;
        max(S) is bounded by the Frobenius norm of J for this.

    Returns
    -------
    step : array (t,)
        In the dtype of J; an update is theta - eta * step.
    info : HalfInverseInfo
        Method, rank, sigma_max, cutoff, gap_to_cutoff, fallback.

    Raises
    ------
    TypeError, ValueError
        For arguments of the wrong kind; the message names the argument.
    NonFiniteError
        If J or g holds NaN or Inf (a ValueError).

    Examples
    --------
    >>> J = np.diag([4.0, 1.0, 1e-9])
    >>> step, info = half_inverse(J, np.ones(3))
    >>> step
    array([0.5, 1. , 0. ])
    >>> info.rank
    2
    """
    rule = _check_parameters(kappa, tau, truncation, beta, method)
    J, g = _check_arrays(J, g)
    norm = _frobenius_norm(J)
    chosen = _choose(method, J, rule, norm)
    _warn_below_noise(chosen, rule, norm)
    step, sigma, chosen, fallback = _with_fallback(chosen, J, g, kappa, rule)
    info = _describe(chosen, J, sigma, rule, fallback)
    scale = np.float64(info.sigma_max) ** beta if info.rank else 0.0  # inf, not OverflowError
    return (scale * step).astype(J.dtype, copy=False), info


def _check_parameters(kappa, tau, truncation, beta, method):
    check_real("kappa", kappa, -1.0, 1.0)
    check_real("tau", tau, 0.0)
    check_real("beta", beta)
    check_choice("truncation", truncation, TRUNCATIONS)
    check_choice("method", method, METHODS)
    return Truncation(float(tau), truncation == "relative")


def _check_arrays(J, g):
    if not isinstance(J, StackedJacobian):
        check_array("J", J, ("m", "t"))
        J = DenseJacobian(J)
    array_module(J=J.sample, g=g)
    per_sample = isinstance(J, StackedJacobian) and len(g.shape) == 2
    check_array("g", g, (J.samples, J.outputs) if per_sample else (J.shape[0],))
    check_finite("g", g)
    return J, g.reshape(-1).astype(np.float64, copy=False)


def _frobenius_norm(J):
    norm = math.sqrt(J.norm_squared())
    if not math.isfinite(norm):
        raise NonFiniteError(
            "J holds NaN or Inf, or entries so large that their squares overflow; "
            "every entry must be finite"
        )
    return norm


def _choose(method, J, rule, norm):
    if method == "tridiagonal" and J.xp is not np:
        raise ValueError("method 'tridiagonal' needs NumPy arrays, got CuPy; use 'gram' or 'svd'")
    if method != "auto":
        return method
    if _relative_tau(rule, norm) < AUTO_SQUARES_FROM:
        return "svd"
    return "tridiagonal" if J.xp is np else "gram"


def _relative_tau(rule, norm):
    return rule.tau if rule.relative or norm == 0 else rule.tau / norm


def _warn_below_noise(method, rule, norm):
    if method in SQUARING and _relative_tau(rule, norm) < gram.NOISE:
        warnings.warn(
            f"tau = {rule.tau:g} is below what method {method!r} resolves: singular values under "
            f"{gram.NOISE:.1e} max(S) are dropped; use method='svd' to keep them",
            stacklevel=3,
        )


def _with_fallback(method, J, g, kappa, rule):
    fallback = None
    while True:
        try:
            step, sigma = _apply(method, J, g, kappa, rule)
            return step, sigma, method, fallback
        except (DecompositionError, np.linalg.LinAlgError) as error:
            if method not in NEXT_SAFER:
                raise
            reason = f"{method} failed ({error}), used {NEXT_SAFER[method]}"
            fallback = f"{fallback}; {reason}" if fallback else reason
            method = NEXT_SAFER[method]


def _apply(method, J, g, kappa, rule):
    """Return V S^kappa U^T g and the singular values."""
    if method == "svd":
        return svd.apply(J.xp, J.dense().astype(np.float64, copy=False), g, kappa, rule)
    apply = functools.partial(SQUARING[method].apply, J.xp, power=(kappa - 1) / 2, truncation=rule)
    m, t = J.shape
    if m <= t:
        weights, sigma = apply(J.gram(), g)
        return J.rmatvec(weights), sigma
    dense = J.dense().astype(np.float64, copy=False)
    return apply(dense.T @ dense, dense.T @ g)


def _describe(method, J, sigma, rule, fallback):
    noise = gram.NOISE if method in SQUARING else svd.noise(J.shape)
    sigma = sigma if is_host(sigma) else sigma.get()
    sigma_max = float(sigma.max())
    cutoff = rule.cutoff(sigma_max, noise)
    gap = float(np.abs(sigma - cutoff).min() / cutoff) if cutoff > 0 else math.inf
    return HalfInverseInfo(method, int((sigma > cutoff).sum()), sigma_max, cutoff, gap, fallback)
