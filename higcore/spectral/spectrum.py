"""What is said of singular values, and how a decomposition is distrusted."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import numpy as np

from ..backend import Array, same_fields, to_host
from ..validation import check_arrays

EPS = 2.0**-52  # float64; every decomposition here is done in float64
SQUARED_RESOLUTION = 4 * EPS**0.5  # s / max(S) that can be told from 0 once S was squared


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
        Singular value up to which modes were dropped. With a penalty on theta all three are of J
        over the rows of theta, and ``rank`` counts modes of J.
    gap_to_cutoff : float
        Relative distance of the nearest singular value to the cutoff, inf without a cutoff.
    fallback : str or None
        Why the method first chosen was given up.
    detail : str or None
        What a method that has a choice did, such as the number of poles of ``"band"``.
    error : float or None
        Of ``"lanczos"``: a bound of the error of the step, relative to it; ``rank`` is the number
        of its products.
    damping, gain, held_out : float or None
        Of `AdaptiveHIG`: lambda, the decrease of the loss on the batch over the predicted one, and
        the loss of samples that the batch does not hold after the step over that before it.
    """

    method: str
    rank: int
    sigma_max: float
    sigma_min: float
    cutoff: float
    gap_to_cutoff: float
    fallback: str | None = None
    detail: str | None = None
    error: float | None = None
    damping: float | None = None
    gain: float | None = None
    held_out: float | None = None

    __eq__ = same_fields  # NaN equal to NaN

    def __hash__(self) -> int:
        return hash((self.method, self.rank))

    @property
    def condition(self) -> float:
        """sigma_max over sigma_min, inf if no mode was kept."""
        return self.sigma_max / self.sigma_min if self.sigma_min else math.inf

    def scaled(self, exponent: int) -> HalfInverseInfo:
        """The same of 2^exponent J."""
        if exponent == 0:
            return self
        sizes = (self.sigma_max, self.sigma_min, self.cutoff)
        sigma_max, sigma_min, cutoff = (in_range(size, exponent) for size in sizes)
        return replace(self, sigma_max=sigma_max, sigma_min=sigma_min, cutoff=cutoff)


def in_range(number: float, exponent: int) -> float:
    """``number`` 2^exponent, Inf if that is too large."""
    try:
        return math.ldexp(number, exponent)
    except OverflowError:
        return math.copysign(math.inf, number)


def info_of(method: str, sigma: Array, cutoff: float, detail: str | None = None) -> HalfInverseInfo:
    """What is to be said of all singular values, of which those up to the cutoff are dropped."""
    sigma = to_host(sigma)
    sigma_max = float(sigma.max())
    kept = sigma[sigma > cutoff]
    sigma_min = float(kept.min(initial=sigma_max)) if len(kept) else 0.0
    distance = gap(sigma, cutoff)
    return HalfInverseInfo(method, len(kept), sigma_max, sigma_min, cutoff, distance, detail=detail)


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
