"""Functions of the singular values, what is said of them, and how a decomposition is distrusted."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import numpy as np

from ..backend import Array, same_fields, to_host
from ..validation import check_arrays, check_choice, check_real_field

EPS = 2.0**-52  # float64; every decomposition here is done in float64
SQUARED_RESOLUTION = 4 * EPS**0.5  # s / max(S) that can be told from 0 once S was squared
TRUNCATIONS = ("relative", "absolute")


class DecompositionError(RuntimeError):
    """A decomposition raised, did not converge, or returned what fails its check."""


@dataclass(frozen=True, eq=False)
class HalfInverseInfo:
    """How a step was computed.

    Attributes
    ----------
    method : str
        What was used in the end, one of the methods of `half_inverse` but ``"auto"``.
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

    def scaled(self, exponent: int) -> HalfInverseInfo:
        """The same of 2^exponent J."""
        sizes = (self.sigma_max, self.sigma_min, self.cutoff)
        sigma_max, sigma_min, cutoff = (in_range(size, exponent) for size in sizes)
        return replace(self, sigma_max=sigma_max, sigma_min=sigma_min, cutoff=cutoff)


def in_range(number: float, exponent: int) -> float:
    """``number`` 2^exponent, Inf if that is too large."""
    with np.errstate(over="ignore"):
        return float(np.ldexp(number, exponent))


@dataclass(frozen=True)
class TruncatedPower:
    """f(s) = max(S)^beta s^kappa for modes that are kept, 0 for the others (paper, eq. 5-7 and 22).

    A mode is kept where s > tau max(S), or where s > tau if ``truncation`` is "absolute". The
    prefactor is left to `prefactor_exponent`: it may be beyond all numbers.
    """

    kappa: float = -0.5
    tau: float = 1e-6
    truncation: str = "relative"
    beta: float = 0.0

    def __post_init__(self) -> None:
        check_truncated_power(self)

    @property
    def relative(self) -> bool:
        """Whether tau is relative to max(S)."""
        return self.truncation == "relative"

    def scaled(self, exponent: int) -> TruncatedPower:
        """Return f' with f(2^exponent s) = 2^(kappa exponent) f'(s), but for the prefactor."""
        if self.relative:
            return self
        tau = min(in_range(self.tau, -exponent), 2.0**1000)  # which cuts all modes
        return replace(self, tau=tau)

    def prefactor_exponent(self, sigma_max: float, exponent: int) -> float:
        """e with max(S)^beta = 2^e for max(S) = 2^exponent sigma_max; 0 if S is 0."""
        return self.beta * (math.log2(sigma_max) + exponent) if self.beta and sigma_max else 0.0

    def cutoff(self, sigma_max: float, resolution: float) -> float:
        """The singular value up to which modes are dropped.

        ``resolution`` is the relative size under which a method cannot tell a singular value from
        zero; such modes are dropped as well, or rounding errors would be inverted.
        """
        tau = self.tau * sigma_max if self.relative else self.tau
        return max(tau, resolution * sigma_max)

    def over_sigma(self, xp: ModuleType, sigma: Array, resolution: float) -> Array:
        """f(s) / s: what is between U and U^T in c, step = J^T c."""
        keep = sigma > self.cutoff(float(sigma.max()), resolution)
        return xp.where(keep, xp.where(keep, sigma, 1.0) ** (self.kappa - 1), 0.0)

    def info(
        self, method: str, sigma: Array, resolution: float, detail: str | None = None
    ) -> HalfInverseInfo:
        """What is to be said of all singular values."""
        sigma = to_host(sigma)
        sigma_max = float(sigma.max())
        cutoff = self.cutoff(sigma_max, resolution)
        kept = sigma[sigma > cutoff]
        sigma_min = float(kept.min(initial=sigma_max)) if len(kept) else 0.0
        distance = gap(sigma, cutoff)
        return HalfInverseInfo(
            method, len(kept), sigma_max, sigma_min, cutoff, distance, detail=detail
        )


def check_truncated_power(part: object) -> None:
    """Raise unless the fields of a dataclass are those of a `TruncatedPower`."""
    check_real_field(part, "kappa", -1.0, 1.0)
    check_real_field(part, "tau", 0.0)
    check_real_field(part, "beta")
    check_choice("truncation", getattr(part, "truncation"), TRUNCATIONS)  # noqa: B009


def gap(sigma: Array, cutoff: float) -> float:
    """Relative distance of the nearest of the singular values to the cutoff."""
    return float(abs(sigma - cutoff).min() / cutoff) if cutoff > 0 else math.inf


def check_gram(K: Array, z: Array) -> None:
    """Raise unless K (n, n) and z (n,) are what compiled code takes them for, float64."""
    check_arrays(K=(K, (len(K), len(K))), z=(z, (len(K),)), same_dtype=False)
    for name, array in (("K", K), ("z", z)):
        if array.dtype != np.float64:
            raise TypeError(f"{name} must be a float64 array, got dtype {array.dtype}")


@contextmanager
def failures_of(xp: ModuleType) -> Iterator[None]:
    """A decomposition on a device that fails raises `DecompositionError` or LinAlgError.

    By default CuPy looks away from the flags that cuSOLVER sets, and raises errors of its own for
    what cuSOLVER refuses, such as too large a matrix.
    """
    if xp.__name__ == "numpy":
        yield
        return
    import cupyx

    try:
        with cupyx.errstate(linalg="raise"):
            yield
    except RuntimeError as error:
        if not type(error).__module__.startswith("cupy"):
            raise
        raise DecompositionError(f"{type(error).__name__}: {error}") from error


def unchecked(xp: ModuleType) -> AbstractContextManager[Any]:
    """Within it, decompositions on a device are not asked how they fared, which waits for them."""
    if xp.__name__ == "numpy":
        return nullcontext()
    import cupyx

    context: AbstractContextManager[Any] = cupyx.errstate(linalg="ignore")
    return context


def require(condition: Any, message: str) -> None:
    """Raise `DecompositionError` unless ``condition`` holds; NaN makes a comparison fail."""
    if not bool(condition):
        raise DecompositionError(message)
