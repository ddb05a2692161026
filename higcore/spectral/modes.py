"""What all methods share: which modes are kept, and how a decomposition is distrusted."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from ..backend import Array, to_host
from ..validation import check_arrays

EPS = 2.0**-52  # float64; every decomposition here is done in float64


class DecompositionError(RuntimeError):
    """A decomposition raised, did not converge, or returned what fails its check."""


class Modes(NamedTuple):
    """What a method says of the spectrum it met.

    ``sigma_min`` is the smallest singular value that was kept, 0 if none was; ``gap`` the relative
    distance of the nearest one to the cutoff, inf without a cutoff; ``detail`` says how the method
    went about it, where it had a choice.
    """

    rank: int
    sigma_max: float
    sigma_min: float
    cutoff: float
    gap: float
    detail: str | None = None

    def scaled(self, exponent: int) -> Modes:
        """Those of 2^exponent J."""
        return self._replace(
            sigma_max=in_range(self.sigma_max, exponent),
            sigma_min=in_range(self.sigma_min, exponent),
            cutoff=in_range(self.cutoff, exponent),
        )


def in_range(number: float, exponent: int) -> float:
    """``number`` 2^exponent, Inf if that is too large."""
    with np.errstate(over="ignore"):
        return float(np.ldexp(number, exponent))


@dataclass(frozen=True)
class Truncation:
    """A mode is kept where s > tau, or s > tau max(S) if ``relative`` (paper, section 2.2)."""

    tau: float
    relative: bool

    def scaled(self, exponent: int) -> Truncation:
        """The same rule for 2^exponent J."""
        if self.relative:
            return self
        return replace(self, tau=min(in_range(self.tau, exponent), 2.0**1000))  # cuts all modes

    def cutoff(self, sigma_max: float, noise: float) -> float:
        """The singular value up to which modes are dropped.

        ``noise`` is the relative size under which the method cannot tell a singular value from
        zero; such modes are dropped as well, or rounding errors would be inverted.
        """
        tau = self.tau * sigma_max if self.relative else self.tau
        return max(tau, noise * sigma_max)

    def power(self, xp: ModuleType, sigma: Array, exponent: float, noise: float) -> Array:
        """Sigma**exponent where sigma is kept, 0 elsewhere."""
        keep = sigma > self.cutoff(float(sigma.max()), noise)
        return xp.where(keep, xp.where(keep, sigma, 1.0) ** exponent, 0.0)

    def modes(self, sigma: Array, noise: float, detail: str | None = None) -> Modes:
        """The `Modes` of all singular values."""
        sigma = to_host(sigma)
        sigma_max = float(sigma.max())
        cutoff = self.cutoff(sigma_max, noise)
        kept = sigma[sigma > cutoff]
        sigma_min = float(kept.min(initial=sigma_max)) if len(kept) else 0.0
        return Modes(len(kept), sigma_max, sigma_min, cutoff, gap(sigma, cutoff), detail)


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


def gap(sigma: Array, cutoff: float) -> float:
    """Relative distance of the nearest of the singular values to the cutoff."""
    return float(abs(sigma - cutoff).min() / cutoff) if cutoff > 0 else math.inf


def require(condition: Any, message: str) -> None:
    """Raise `DecompositionError` unless ``condition`` holds; NaN makes a comparison fail."""
    if not bool(condition):
        raise DecompositionError(message)
