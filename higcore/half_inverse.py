"""J^kappa applied to a vector: the definition, the choice of method, and what makes it safe."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np

from .backend import Array, is_host
from .device.memory import (
    SAFETY_MARGIN,
    DoesNotFitError,
    available_memory,
    largest_batch,
    needs,
    ran_out,
    release_memory,
    short_of_memory,
    within_memory,
)
from .device.threads import blas_limits
from .linearisation import DenseJacobian, Jacobian, StackedJacobian
from .spectral import band, eigen, qr, squared, svd, tridiagonal
from .spectral.spectrum import (
    SQUARED_RESOLUTION,
    DecompositionError,
    HalfInverseInfo,
    TruncatedPower,
    failures_of,
    require,
)
from .spectral.spectrum import TRUNCATIONS as TRUNCATIONS
from .spectral.units import in_reach, norm, root_of_trace, times_power_of_two, unit_vector
from .validation import check_arrays, check_choice, check_real

SQUARING = {module.NAME: module for module in (eigen, tridiagonal, band)}
METHODS = ("auto", svd.NAME, qr.NAME, *SQUARING)
NEXT_SAFER = {"band": "tridiagonal", "tridiagonal": "gram", "gram": "qr", "qr": "svd"}

AUTO_SQUARES_FROM = 3e-7  # relative tau at which eps / tau^2 reaches 2.5e-3
BAND_FROM = 3000  # rows of K from which "band" wins more if little is cut than it loses if much is
# The same on a GPU: up to here the host decomposes K in less time than cuSOLVER takes to begin.
BAND_FROM_ON_DEVICE = 1025
# As `WORKSPACE` of a method, for Levenberg-Marquardt: it solves with J J^T, (m, m), in any case.
CHOLESKY = 3.1, 4.1


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
    f = TruncatedPower(kappa, tau, truncation, beta)
    check_choice("method", method, METHODS)
    check_memory_limit(memory_limit)
    J, g = _check_arrays(J, g)
    return filtered(J, g, f, method, memory_limit)


def filtered(
    J: Jacobian,
    g: Array,
    f: TruncatedPower,
    method: str = "auto",
    memory_limit: float | None = None,
) -> tuple[Array, HalfInverseInfo]:
    """Return V f(S) U^T g, and what is to be said of it; arguments are not checked."""
    g, shift = unit_vector("g", g)
    if method == "auto":
        method = choose_method(method, *J.shape, relative_tau(f, J), J.xp is np)
    check_memory(J, method, memory_limit)
    with blas_limits(2 * J.samples * J.shape[1], min(J.shape)):
        step, info, exponent = within_memory(
            lambda: _by_safer_methods(method, J, g, f),
            lambda reason: _ran_out_of_memory(J, method, reason),
        )
    _warn_below_resolution(f, info)
    return times_power_of_two(step, shift + exponent).astype(J.dtype, copy=False), info


def choose_method(method: str, m: int, t: int, tau: float, on_host: bool) -> str:
    """The rule of ``method="auto"``, for tau relative to max(S); see `half_inverse`."""
    if method != "auto":
        return method
    if tau < AUTO_SQUARES_FROM:
        return "qr"
    return "tridiagonal" if min(m, t) < (BAND_FROM if on_host else BAND_FROM_ON_DEVICE) else "band"


def relative_tau(f: TruncatedPower, J: Jacobian) -> float:
    """Tau / max(S), where the Frobenius norm of J stands for max(S) if it has to."""
    if f.relative:
        return f.tau
    _, size, exponent = in_reach(J, norm, float)
    tau = f.scaled(exponent).tau
    return tau / size if size else tau


def _by_safer_methods(
    method: str, J: Jacobian, g: Array, f: TruncatedPower
) -> tuple[Array, HalfInverseInfo, float]:
    """`_by_method`, and by the next safer method where one fails."""
    try:
        with failures_of(J.xp):
            return _by_method(method, J, g, f)
    except (DecompositionError, np.linalg.LinAlgError) as error:
        if method not in NEXT_SAFER:
            raise
        failure = f"{method} failed ({error}), used {NEXT_SAFER[method]}"
    step, info, exponent = _by_safer_methods(NEXT_SAFER[method], J, g, f)
    reasons = "; ".join(filter(None, (failure, info.fallback)))
    return step, replace(info, fallback=reasons), exponent


def _by_method(
    method: str, J: Jacobian, g: Array, f: TruncatedPower
) -> tuple[Array, HalfInverseInfo, float]:
    """Return a vector, info, and e, with V f(S) U^T g = 2^e times the vector."""
    decomposed: Any  # each has `apply`
    if method == svd.NAME:
        J, dense, exponent = in_reach(J, _dense, lambda dense: float(J.xp.linalg.norm(dense)))
        decomposed = svd.decompose(dense, g)
    elif method == qr.NAME:
        J, _, exponent = in_reach(J, norm, float)
        decomposed = qr.decompose(J, g)
    else:
        J, K, exponent = in_reach(J, squared.gram, root_of_trace)
        decomposed = squared.decompose(SQUARING[method], J, K, g)
    step, info = decomposed.apply(f.scaled(exponent))
    require(J.xp.isfinite(step).all(), f"method {method!r} gave NaN or Inf")
    of_step = f.kappa * exponent + f.prefactor_exponent(info.sigma_max, exponent)
    info = info.scaled(exponent)
    if not f.relative:  # the cutoff may be beyond all numbers in the units of J'
        info = replace(info, cutoff=max(info.cutoff, f.tau))
    return step, info, of_step


def _dense(J):
    return J.dense().astype(np.float64, copy=False)


def _warn_below_resolution(f, info):
    unresolved = f.cutoff(info.sigma_max, 0.0) < SQUARED_RESOLUTION * info.sigma_max
    if info.method in SQUARING and unresolved:
        warnings.warn(
            f"tau = {f.tau:g} is below what method {info.method!r} resolves: singular values under "
            f"{SQUARED_RESOLUTION:.1e} max(S) are dropped; use method='qr' to keep them",
            stacklevel=4,
        )


def _check_arrays(J: Array | StackedJacobian, g: Array) -> tuple[Jacobian, Array]:
    if isinstance(J, StackedJacobian):
        per_sample = len(getattr(g, "shape", ())) == 2
        shape = (J.samples, J.outputs) if per_sample else (J.shape[0],)
        check_arrays(J=(J.S, J.S.shape), g=(g, shape), same_dtype=False)
        return J, g
    check_arrays(J=(J, ("m", "t")), g=(g, ("m",)), same_dtype=False)
    return DenseJacobian(J), g


def check_memory_limit(limit: object) -> None:
    """Raise unless ``limit`` is a number of bytes > 0, or None."""
    if limit is not None:
        check_real("memory_limit", limit, 0.0, open_low=True)


def workspace(method: str, m: int, t: int, on_host: bool) -> int:
    """Bytes that a method takes at its peak beside J's factors, K included; see `half_inverse`."""
    if method == svd.NAME:
        return 8 * svd.WORKSPACE * m * t
    if method == "cholesky":
        return int(8 * CHOLESKY[not on_host] * m**2)
    of_n2 = qr.WORKSPACE if method == qr.NAME else SQUARING[method].WORKSPACE
    return int(8 * of_n2[not on_host] * min(m, t) ** 2)


def check_memory(J: Jacobian, method: str, limit: float | None) -> None:
    """Raise `DoesNotFitError` if the workspace of a method is more than there is, or the limit."""
    needed = workspace(method, *J.shape, is_host(J.where))
    there = short_of_memory(needed, J.where, limit)
    if there is not None:
        raise _does_not_fit(J, method, needs(needed, there), there, J.samples)


def _ran_out_of_memory(J: Jacobian, method: str, reason: str) -> DoesNotFitError:
    release_memory(J.where)
    there = available_memory(J.where) / SAFETY_MARGIN
    return _does_not_fit(J, method, ran_out(reason), there, J.samples // 2, reason)


def _does_not_fit(
    J: Jacobian, method: str, problem: str, there: float, most: int, reason: str | None = None
) -> DoesNotFitError:
    (m, t), on_host = J.shape, is_host(J.where)
    best = largest_batch(lambda b: workspace(method, b * J.outputs, t, on_host) <= there, most)
    what = f"method {method!r} {problem} for {m} rows and {t} parameters"
    return DoesNotFitError(f"{what}; a batch of {best} fits", reason)
