"""J^kappa and other f(J) applied to a vector: the choice of method, and what makes it safe."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

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
from .spectral import band, cholesky, eigen, lanczos, qr, squared, svd, tridiagonal
from .spectral.filters import TRUNCATIONS as TRUNCATIONS
from .spectral.filters import Damped, Filter, TruncatedPower
from .spectral.ridge import OverRidge, Ridged
from .spectral.spectrum import (
    SQUARED_RESOLUTION,
    DecompositionError,
    HalfInverseInfo,
    failures_of,
    in_range,
    require,
)
from .spectral.units import in_reach, norm, root_of_trace, times_power_of_two, unit_vector
from .validation import all_finite, check_arrays, check_choice, check_real

SQUARING = {module.NAME: module for module in (eigen, tridiagonal, band)}
OF_GRAM = {**SQUARING, cholesky.NAME: cholesky}
METHODS = ("auto", svd.NAME, qr.NAME, *SQUARING)
OF_DAMPED = (*METHODS, lanczos.NAME)  # what a damped f can be applied by
NEXT_SAFER = {
    "lanczos": "tridiagonal",
    "cholesky": "tridiagonal",
    "band": "tridiagonal",
    "tridiagonal": "gram",
    "gram": "qr",
    "qr": "svd",
}

AUTO_SQUARES_FROM = 3e-7  # relative tau at which eps / tau^2 reaches 2.5e-3
BAND_FROM = 3000  # rows of K from which "band" wins more if little is cut than it loses if much is
# The same on a GPU: up to here the host decomposes K in less time than cuSOLVER takes to begin.
BAND_FROM_ON_DEVICE = 1025
LANCZOS_FROM = 4096  # rows of K whose cube is work after which products with J are sooner done

T = TypeVar("T")


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
        ``"svd"`` decomposes J, and ``"qr"`` a triangle of it, made from a part of J at a time, or
        K where products with J can correct what that loses.
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
    J: Jacobian | Ridged,
    g: Array,
    f: Filter,
    method: str = "auto",
    memory_limit: float | None = None,
) -> tuple[Array, HalfInverseInfo]:
    """Return V f(S) U^T g, and what is to be said of it; arguments are not checked."""
    if method == "auto":
        m, t = J.data.shape
        method = choose_method(method, m, t, relative_tau(f, J.data), J.xp is np)
    step, info = decompose(J, g, method, memory_limit).apply(f)
    _warn_below_resolution(f, J.root, info)
    return step, info


class Decomposition:
    """J decomposed for g, so that V f(S) U^T g costs little for one f or g after the other.

    A method that fails, be it only for a later f, gives way to the next safer one, which decomposes
    J anew; the steps that follow are its own. Made by `decompose`.

    Attributes
    ----------
    method : str
        The method in use.
    J, exponent
        J in units in which its squares are numbers, times 2^exponent: see `units`.
    size
        Frobenius norm of that J, or of its rows of samples.
    """

    def __init__(
        self, J: Jacobian | Ridged, g: Array, method: str, tolerance: float, products: int
    ) -> None:
        self._given, self.method = J, method
        self._until = tolerance, products
        self.g, self._shift = unit_vector("g", g)
        self._decomposed: Any = None  # has `apply`
        self._failures: list[str] = []
        self._safely(lambda: None)

    def of(self, g: Array) -> Decomposition:
        """Return that of the same J for another g, for which J is not decomposed again."""
        g, shift = unit_vector("g", g)
        decomposed = self._safely(lambda: self._decomposed.of(g))
        other = copy.copy(self)  # only now: a failure changes the method
        other.g, other._shift, other._decomposed = g, shift, decomposed
        other._failures = [*self._failures]
        return other

    def apply(self, f: Filter) -> tuple[Array, HalfInverseInfo]:
        """Return V f(S) U^T g (t,), in the dtype of J, and what is to be said of it."""
        d, info, exponent = self._safely(lambda: self._apply(f))
        return self._as_step(d, exponent), info

    def apply_and_predict(self, f: Damped) -> tuple[Array, HalfInverseInfo, float]:
        r"""Return also the decrease of the loss that its quadratic model predicts for theta - d.

        .. math:: (g - \tfrac h2 J d) \cdot J d

        The penalty is no part of it. At least half of the first term is left, because
        g.Jd = h |Jd|^2 + the penalty twice: nothing cancels.
        """
        d, info, exponent = self._safely(lambda: self._apply(f))
        Jd = self.J.matvec(d)
        decrease = float((self.g - f.curvature / 2 * Jd) @ Jd)  # |Jd|^2 alone may be no number
        return self._as_step(d, exponent), info, in_range(decrease, 2 * self._shift)

    def _as_step(self, d, exponent):
        step = times_power_of_two(d, self._shift + exponent)
        return step.astype(self._given.dtype, copy=False)

    def _safely(self, call: Callable[[], T]) -> T:
        """``call()`` once J is decomposed; after a failure again, by the next safer method."""
        J = self._given.data
        with blas_limits(2 * J.samples * J.shape[1], min(J.shape)):
            method = self.method
            return within_memory(
                lambda: self._by_safer_methods(call),
                lambda reason: _ran_out_of_memory(J, method, reason),
            )

    def _by_safer_methods(self, call: Callable[[], T]) -> T:
        while True:
            try:
                with failures_of(self._given.xp):
                    if self._decomposed is None:
                        self._decompose()
                    return call()
            except (DecompositionError, np.linalg.LinAlgError) as error:
                if self.method not in NEXT_SAFER:
                    raise
                safer = NEXT_SAFER[self.method]
                self._failures.append(f"{self.method} failed ({error}), used {safer}")
            if self.method == lanczos.NAME:
                self._given = self._given.with_rows()
            self.method, self._decomposed = safer, None

    def _decompose(self):
        """By the method, in units of 2^exponent."""
        given, a = self._given, self.g[: self._given.data.shape[0]]
        found = _decomposed(given.data, a, self.method, self._until)
        self.J, self._decomposed, self.size, self.exponent = found
        if isinstance(given, Ridged):
            root, p = in_range(given.root, -self.exponent), self.g[len(a) :]
            self.J = replace(given, data=self.J, root=root)
            self._decomposed = OverRidge(self.J, self._decomposed, a, p, self.method)

    def _apply(self, f):
        """Return a vector, info, and e, with V f(S) U^T g = 2^e times the vector."""
        step, info = self._decomposed.apply(f.scaled(self.exponent))
        require(all_finite(step), f"method {self.method!r} gave NaN or Inf")
        of_step = f.step_exponent(info.sigma_max, self.exponent)
        info = info.scaled(self.exponent)
        if not f.relative:  # the cutoff may be beyond all numbers in the units of J'
            info = replace(info, cutoff=max(info.cutoff, f.tau))
        if self._failures:
            info = replace(info, fallback="; ".join(self._failures))
        return step, info, of_step


def _decomposed(J, g, method, until):
    """J in units of 2^exponent, decomposed for g (m,), its Frobenius norm, and the exponent."""
    if method == svd.NAME:
        J, dense, *units = in_reach(J, _dense, lambda dense: float(J.xp.linalg.norm(dense)))
        return J, svd.decompose(dense, g), *units
    if method == qr.NAME:
        J, _, *units = in_reach(J, norm, float)
        return J, qr.decompose(J, g), *units
    if method == lanczos.NAME:
        J, _, *units = in_reach(J, norm, float)
        return J, lanczos.decompose(J, g, *until), *units
    J, K, *units = in_reach(J, squared.gram, root_of_trace)
    return J, squared.decompose(OF_GRAM[method], J, K, g), *units


def decompose(
    J: Jacobian | Ridged,
    g: Array,
    method: str,
    memory_limit: float | None = None,
    *,
    tolerance: float = lanczos.TOLERANCE,
    products: int = lanczos.MOST,
) -> Decomposition:
    """Return the `Decomposition` of J (m, t) for g (m,), or (m + t,) for a `Ridged`.

    Arguments are not checked.

    The methods are those of `half_inverse` but ``"auto"``, and two for some f alone:

    - ``"cholesky"``: one factorisation of h K + lambda I for every f, `Damped` with mu = 0;
    - ``"lanczos"``, which needs products with J alone, for `Damped` and `SmoothPower`: until the
      error of the step is at most ``tolerance`` of it, or so many ``products`` were made.

    Examples
    --------
    >>> decomposition = decompose(DenseJacobian(np.diag([4.0, 1.0])), np.ones(2), "tridiagonal")
    >>> for damping in (1.0, 4.0):
    ...     step, info, predicted = decomposition.apply_and_predict(Damped(damping))
    ...     print(step.round(3), round(predicted, 3))
    [0.235 0.5  ] 0.873
    [0.2 0.2] 0.66
    """
    check_memory(J.data, method, memory_limit, products)
    return Decomposition(J, g, method, tolerance, products)


def choose_method(method: str, m: int, t: int, tau: float, on_host: bool) -> str:
    """The rule of ``method="auto"``, for tau relative to max(S); see `half_inverse`.

    Where nothing is cut, as by damping, tau is Inf.
    """
    if method != "auto":
        return method
    if tau == math.inf and products_pay(m, t):
        return lanczos.NAME
    if tau < AUTO_SQUARES_FROM:
        return "qr"
    return "tridiagonal" if min(m, t) < (BAND_FROM if on_host else BAND_FROM_ON_DEVICE) else "band"


def products_pay(m: int, t: int) -> bool:
    """Whether K takes more work than some products with J: n^3 for n = m < t, else m t^2."""
    n = min(m, t)
    return n * n * (n if m < t else m) >= LANCZOS_FROM**3


def relative_tau(f: Filter, J: Jacobian) -> float:
    """Tau / max(S), where the Frobenius norm of J stands for max(S) if it has to."""
    if f.relative:
        return f.tau
    _, _, size, exponent = in_reach(J, norm, float)
    tau = f.scaled(exponent).tau
    return tau / size if size else tau


def _dense(J):
    return J.dense().astype(np.float64, copy=False)


def _warn_below_resolution(f, root, info):
    asked = max(f.cutoff(info.sigma_max, 0.0), root)  # no singular value is below the root
    if info.method in SQUARING and asked < SQUARED_RESOLUTION * info.sigma_max:
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


def workspace(method: str, m: int, t: int, on_host: bool, products: int = lanczos.MOST) -> int:
    """Bytes that a method takes at its peak beside J's factors, K included; see `half_inverse`."""
    if method == svd.NAME:
        return 8 * svd.WORKSPACE * m * t
    if method == lanczos.NAME:
        return 8 * products * min(m, t)
    of_n2 = qr.WORKSPACE if method == qr.NAME else OF_GRAM[method].WORKSPACE
    return int(8 * of_n2[not on_host] * min(m, t) ** 2)


def check_memory(
    J: Jacobian, method: str, limit: float | None, products: int = lanczos.MOST
) -> None:
    """Raise `DoesNotFitError` if the workspace of a method is more than there is, or the limit."""
    needed = workspace(method, *J.shape, is_host(J.where), products)
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
