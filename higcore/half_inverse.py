"""J^kappa applied to a vector: the public entry, the choice of method and its record."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from .backend import (
    Array,
    available_memory,
    is_host,
    release_memory,
    short_of_memory,
)
from .equality import same_fields
from .linearisation import DenseJacobian, Jacobian, StackedJacobian
from .spectral import band, gram, qr, svd, tridiagonal
from .spectral.modes import DecompositionError, Modes, Truncation, failures_of, require
from .threads import blas_limits
from .units import in_reach, norm, times_power_of_two, unit_vector
from .validation import check_arrays, check_choice, check_real

SQUARING = {"gram": gram, "tridiagonal": tridiagonal, "band": band}
METHODS = ("auto", "svd", "qr", *SQUARING)
TRUNCATIONS = ("relative", "absolute")
NEXT_SAFER = {"band": "tridiagonal", "tridiagonal": "gram", "gram": "qr", "qr": "svd"}

AUTO_SQUARES_FROM = 3e-7  # relative tau at which eps / tau^2 reaches 2.5e-3
BAND_FROM = 3000  # rows of K from which "band" wins more if little is cut than it loses if much is
# The same on a GPU: up to here the host decomposes K in less time than cuSOLVER takes to begin.
BAND_FROM_ON_DEVICE = 1025

MISJUDGED = 1.5  # how much more than estimated a step is taken to need once it ran out of memory

# Numbers that a method holds at its peak, over n^2 with n = min(m, t), K included: on the host,
# and on a device, where K is made of whole products, and the host does all but reduce it.
# That of "cholesky", Levenberg-Marquardt's, is over m^2: it solves with K = J J^T in any case.
WORKSPACE = {"gram": (3.1, 5.1), "tridiagonal": (3.1, 2.1), "band": (3.8, 3.6), "qr": (9.0, 9.0)}
WORKSPACE["cholesky"] = (3.1, 4.1)


T = TypeVar("T")


class DoesNotFitError(MemoryError):
    """A step needs more memory than there is; the message names a batch that fits.

    ``reason`` is why an allocation failed, None if that was foreseen and nothing allocated.
    """

    def __init__(self, message: str, reason: str | None = None) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, eq=False)
class HalfInverseInfo:
    """How a step was computed.

    Attributes
    ----------
    method : str
        What was used in the end, one of `METHODS` but ``"auto"``.
    rank : int
        Number of modes kept.
    sigma_max, sigma_min : float
        Largest singular value of J, and the smallest that was kept (0 if none was).
    cutoff : float
        Singular value up to which modes were dropped.
    gap_to_cutoff : float
        Relative distance of the nearest singular value to the cutoff, inf without a cutoff.
    fallback : str or None
        Why the method first chosen was given up.
    detail : str or None
        What a method that has a choice did, such as the number of poles of ``"band"``.
    """

    method: str
    rank: int
    sigma_max: float
    sigma_min: float
    cutoff: float
    gap_to_cutoff: float
    fallback: str | None = None
    detail: str | None = None

    __eq__ = same_fields  # NaN equal to NaN

    def __hash__(self) -> int:
        return hash((self.method, self.rank))

    @property
    def condition(self) -> float:
        """sigma_max over sigma_min, inf if no mode was kept."""
        return self.sigma_max / self.sigma_min if self.sigma_min else math.inf


def half_inverse(
    J: Array | StackedJacobian,
    g: Array,
    *,
    kappa: float = -0.5,
    tau: float = 1e-6,
    truncation: str = "relative",
    beta: float = 0.0,
    method: str = "auto",
    memory_limit: float | None = None,
) -> tuple[Array, HalfInverseInfo]:
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
    method : {"auto", "svd", "qr", "gram", "tridiagonal", "band"}
        ``"svd"`` decomposes J, and ``"qr"`` a triangle of it, made from a part of J at a time.
        The others decompose K = J J^T (or J^T J if t < m) and use step = J^T K^((kappa - 1)/2) g;
        J is never formed, but squaring limits them to s / max(S) > 6e-8 and to an error of about
        eps / tau^2: ``"gram"`` by all eigenvectors, ``"tridiagonal"`` by none, ``"band"`` without
        most eigenvalues. ``"auto"`` takes

        - ``"qr"`` if tau / max(S) < 3e-7, where squaring costs too many digits (max(S) is bounded
          by the Frobenius norm of J for absolute truncation);
        - else ``"tridiagonal"`` if min(m, t) < 3000, and ``"band"`` from there on, which takes
          half the time where few modes are cut, and a fifth more where many are (measured by
          ``python -m bench speed --crossovers``);
        - on a GPU the same with 1025 in place of 3000 (``python -m bench gpu`` measures it):
          ``"tridiagonal"`` copies K to the host, ``"band"`` the band that K was reduced to.

        The rule holds for float32 and float64 factors and for every kappa alike: K and its
        decomposition are float64, and a kappa only changes the weights of the modes. A method that
        is named is used; there is a warning if it cannot resolve tau.
    memory_limit : float, optional
        Bytes that the decomposition may take beside J; by default what the machine has free.

    Returns
    -------
    step : array (t,)
        In the dtype of J; an update is theta - eta * step.
    info : HalfInverseInfo
        Method, rank, sigma_max, sigma_min, cutoff, gap_to_cutoff, fallback, detail; condition.

    Raises
    ------
    TypeError, ValueError
        For arguments of the wrong kind; the message names the argument.
    NonFiniteError
        If J or g holds NaN or Inf (a ValueError).
    DoesNotFitError
        If the decomposition would not fit, before anything is allocated, or ran out of memory
        all the same (a MemoryError).

    Examples
    --------
    >>> J = np.diag([4.0, 1.0, 1e-9])
    >>> step, info = half_inverse(J, np.ones(3))
    >>> step
    array([0.5, 1. , 0. ])
    >>> info.rank
    2
    """
    rule = _check_parameters(kappa, tau, truncation, beta, method, memory_limit)
    J, g, shift = _check_arrays(J, g)
    m, t = J.shape
    chosen = method
    if method == "auto":
        chosen = choose_method(method, m, t, relative_tau(rule, J), J.xp is np)
    check_memory(J, chosen, memory_limit)
    with blas_limits(2 * J.samples * t, min(m, t)):
        step, modes, exponent, chosen, fallback = within_memory(
            lambda: _with_fallback(chosen, J, g, kappa, rule),
            lambda reason: _ran_out_of_memory(J, chosen, reason),
        )
    shift += kappa * exponent
    if beta and modes.rank:
        shift += beta * (math.log2(modes.sigma_max) + exponent)
    modes = modes.scaled(exponent)
    _warn_below_noise(chosen, rule, modes)
    if not rule.relative:  # which may be beyond all numbers in the units of J'
        modes = modes._replace(cutoff=max(modes.cutoff, rule.tau))
    info = HalfInverseInfo(chosen, *modes[:5], fallback, modes.detail)
    return times_power_of_two(step, shift).astype(J.dtype, copy=False), info


def choose_method(method: str, m: int, t: int, tau: float, on_host: bool) -> str:
    """The rule of ``method="auto"``, for tau relative to max(S); see `half_inverse`."""
    if method != "auto":
        return method
    if tau < AUTO_SQUARES_FROM:
        return "qr"
    return "tridiagonal" if min(m, t) < (BAND_FROM if on_host else BAND_FROM_ON_DEVICE) else "band"


def workspace(method: str, m: int, t: int, on_host: bool) -> int:
    """Bytes that a method takes at its peak beside J's factors, K included; see `half_inverse`."""
    if method == "svd":
        return 8 * 5 * m * t  # J, its singular vectors, and LAPACK's copies
    n = m if method == "cholesky" else min(m, t)
    return int(8 * WORKSPACE[method][not on_host] * n**2)


def _check_parameters(
    kappa: float,
    tau: float,
    truncation: str,
    beta: float,
    method: str,
    memory_limit: float | None,
) -> Truncation:
    check_real("kappa", kappa, -1.0, 1.0)
    check_real("tau", tau, 0.0)
    check_real("beta", beta)
    check_choice("truncation", truncation, TRUNCATIONS)
    check_choice("method", method, METHODS)
    check_memory_limit(memory_limit)
    return Truncation(float(tau), truncation == "relative")


def check_memory_limit(limit: object) -> None:
    """Raise unless ``limit`` is a number of bytes > 0, or None."""
    if limit is not None:
        check_real("memory_limit", limit, 0.0, open_low=True)


def _check_arrays(J: Array | StackedJacobian, g: Array) -> tuple[Jacobian, Array, float]:
    """J and g / 2^shift, of ordinary size, and the shift."""
    if isinstance(J, StackedJacobian):
        per_sample = len(getattr(g, "shape", ())) == 2
        shape = (J.samples, J.outputs) if per_sample else (J.shape[0],)
        check_arrays(J=(J.S, J.S.shape), g=(g, shape), same_dtype=False)
    else:
        check_arrays(J=(J, ("m", "t")), g=(g, ("m",)), same_dtype=False)
        J = DenseJacobian(J)
    return J, *unit_vector("g", g)


def relative_tau(rule: Truncation, J: Jacobian) -> float:
    """Tau / max(S), where the Frobenius norm of J stands for max(S) if it has to."""
    if rule.relative:
        return rule.tau
    _, size, exponent = in_reach(J, norm, float)
    tau = rule.scaled(-exponent).tau
    return tau / size if size else tau


def check_memory(J: Jacobian, method: str, limit: float | None) -> None:
    """Raise `DoesNotFitError` if the workspace of a method is more than there is, or the limit."""
    needed = workspace(method, *J.shape, is_host(J.sample))
    there = short_of_memory(needed, J.sample, limit)
    if there is not None:
        problem = f"needs {needed / 1e9:.3g} GB and {there / 1e9:.3g} GB are there"
        raise _does_not_fit(J, method, problem, there, J.samples)


def _ran_out_of_memory(J: Jacobian, method: str, reason: str) -> DoesNotFitError:
    release_memory(J.sample)
    there = available_memory(J.sample) / MISJUDGED
    problem = f"ran out of memory ({reason})"
    return _does_not_fit(J, method, problem, there, J.samples // 2, reason)


def _does_not_fit(
    J: Jacobian, method: str, problem: str, there: float, most: int, reason: str | None = None
) -> DoesNotFitError:
    m, t = J.shape
    on_host = is_host(J.sample)
    best = largest(lambda b: workspace(method, b * J.outputs, t, on_host) <= there, most)
    return DoesNotFitError(
        f"method {method!r} {problem} for {m} rows and {t} parameters; a batch of {best} fits",
        reason,
    )


def within_memory(call: Callable[[], T], explain: Callable[[str], Exception]) -> T:
    """Return ``call()``, or raise ``explain(reason)`` if an allocation in it fails.

    That is raised after the failure was left behind: nothing then holds the arrays of the frames
    that it went through.
    """
    try:
        return call()
    except MemoryError as error:
        foreseen = isinstance(error, DoesNotFitError) and error.reason is None
        if foreseen:
            raise
        reason = getattr(error, "reason", str(error).strip()) or "an allocation failed"
    raise explain(reason)


def largest(holds: Callable[[int], bool], top: int) -> int:
    """The largest n in [0, top] for which ``holds(n)``, taking holds(0) and a falling ``holds``."""
    low = 0
    while low < top:
        middle = (low + top + 1) // 2
        low, top = (middle, top) if holds(middle) else (low, middle - 1)
    return low


def _warn_below_noise(method, rule, modes):
    if method in SQUARING and rule.cutoff(modes.sigma_max, 0.0) < gram.NOISE * modes.sigma_max:
        warnings.warn(
            f"tau = {rule.tau:g} is below what method {method!r} resolves: singular values under "
            f"{gram.NOISE:.1e} max(S) are dropped; use method='qr' to keep them",
            stacklevel=3,
        )


def _with_fallback(
    method: str, J: Jacobian, g: Array, kappa: float, rule: Truncation
) -> tuple[Array, Modes, int, str, str | None]:
    fallback: str | None = None
    while True:
        try:
            with failures_of(J.xp):
                return *_apply(method, J, g, kappa, rule), method, fallback
        except (DecompositionError, np.linalg.LinAlgError) as error:
            if method not in NEXT_SAFER:
                raise
            reason = f"{method} failed ({error}), used {NEXT_SAFER[method]}"
            fallback = f"{fallback}; {reason}" if fallback else reason
            method = NEXT_SAFER[method]


def _apply(
    method: str, J: Jacobian, g: Array, kappa: float, rule: Truncation
) -> tuple[Array, Modes, int]:
    """Return V S^kappa U^T g and the `Modes`, both of J', and e, J = 2^e J'."""
    J, made, exponent = in_reach(J, *_first_of(method, J))
    rule, (m, t) = rule.scaled(-exponent), J.shape
    if method == "svd":
        return *svd.apply(J.xp, made, g, kappa, rule, svd.noise(J.shape)), exponent
    if method == "qr":
        return *qr.apply(J, g, kappa, rule), exponent
    if _root_of_trace(made) == 0:  # and so K = 0, of which cuSOLVER's eigenvalues are NaN
        return J.xp.zeros(t), rule.modes(np.zeros(1), gram.NOISE), exponent
    z = g if m <= t else J.rmatvec(g)
    weights, modes = SQUARING[method].apply(J.xp, made, z, (kappa - 1) / 2, rule)
    require(J.xp.isfinite(weights).all(), f"method {method!r} gave NaN or Inf")
    return (J.rmatvec(weights) if m <= t else weights), modes, exponent


def _first_of(method, J):
    """What a method makes of J first of all, and how |J| is read off it; as two functions."""
    if method == "svd":
        return _dense, lambda dense: float(J.xp.linalg.norm(dense))
    if method == "qr":
        return norm, float
    m, t = J.shape
    return (_gram if m <= t else _gram_of_parameters), _root_of_trace


def _dense(J):
    return J.dense().astype(np.float64, copy=False)


def _gram(J):
    return J.gram(mirrored=False)


def _gram_of_parameters(J):
    return J.gram_of_parameters()


def _root_of_trace(K):
    return math.sqrt(float(K.trace()))  # |K_ij| is at most the mean of K_ii and K_jj
