"""What all methods share: which modes are kept, and how a decomposition is distrusted."""

from __future__ import annotations

from dataclasses import dataclass

EPS = 2.0**-52  # float64; every decomposition here is done in float64


class DecompositionError(RuntimeError):
    """A decomposition raised, did not converge, or returned what fails its check."""


@dataclass(frozen=True)
class Truncation:
    """A mode is kept where s > tau, or s > tau max(S) if ``relative`` (paper, section 2.2)."""

    tau: float
    relative: bool

    def cutoff(self, sigma_max, noise):
        """The singular value up to which modes are dropped.

        ``noise`` is the relative size under which the method cannot tell a singular value from
        zero; such modes are dropped as well, or rounding errors would be inverted.
        """
        tau = self.tau * sigma_max if self.relative else self.tau
        return max(tau, noise * sigma_max)

    def power(self, xp, sigma, exponent, noise):
        """Sigma**exponent where sigma is kept, 0 elsewhere."""
        keep = sigma > self.cutoff(float(sigma.max()), noise)
        return xp.where(keep, xp.where(keep, sigma, 1.0) ** exponent, 0.0)


def require(condition, message):
    """Raise `DecompositionError` unless ``condition`` holds; NaN makes a comparison fail."""
    if not bool(condition):
        raise DecompositionError(message)
