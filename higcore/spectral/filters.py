r"""Functions f of the singular values, to be applied as V f(S) U^T g. One small class a function.

What stands between U and U^T in c, step = J^T c, is f(s) / s, and on the side of the parameters,
step = V f(s) / s V^T J^T g, the same. So each says that, ``over_sigma``, and beside it

    name                            what messages call it
    relative, tau                   how small a singular value it asks for, for the choice of method
    cutoff(max(S), resolution)      up to where modes are dropped, or not told apart
    scaled(e), step_exponent(...)   f of 2^e S by an f' of S, for units of J
    fractions(least, largest, ...)  f(s) / s as partial fractions in s^2, for `band` and `lanczos`

``resolution`` is the relative size under which a method cannot tell a singular value from 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from types import ModuleType
from typing import ClassVar, TypeAlias

import numpy as np

from ..backend import Array
from ..validation import check_choice, check_real_field
from .rational import PartialFractions, fractions_of, power_fractions
from .spectrum import SQUARED_RESOLUTION, in_range, require

TRUNCATIONS = ("relative", "absolute")
FRACTIONS = 1e-12  # relative error of partial fractions
LARGEST = 2.0**1000  # in place of what is beyond all numbers


@dataclass(frozen=True)
class TruncatedPower:
    """f(s) = max(S)^beta s^kappa for modes that are kept, 0 for the others (paper, eq. 5-7 and 22).

    A mode is kept where s > tau max(S), or where s > tau if ``truncation`` is "absolute". The
    prefactor is left to `step_exponent`: it may be beyond all numbers.

    Accuracy: an error of about eps / tau where J is decomposed, eps / tau^2 where it is squared.
    """

    kappa: float = -0.5
    tau: float = 1e-6
    truncation: str = "relative"
    beta: float = 0.0
    name: ClassVar[str] = "truncated power"

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
        tau = min(in_range(self.tau, -exponent), LARGEST)  # which cuts all modes
        return replace(self, tau=tau)

    def step_exponent(self, sigma_max: float, exponent: int) -> float:
        """e with f(2^exponent s) = 2^e f'(s) for the f' of `scaled`, the prefactor in it."""
        return self.kappa * exponent + self._prefactor_exponent(sigma_max, exponent)

    def _prefactor_exponent(self, sigma_max: float, exponent: int) -> float:
        """e with max(S)^beta = 2^e for max(S) = 2^exponent sigma_max; 0 if S is 0."""
        return self.beta * (math.log2(sigma_max) + exponent) if self.beta and sigma_max else 0.0

    def cutoff(self, sigma_max: float, resolution: float) -> float:
        """The singular value up to which modes are dropped.

        Those that a method cannot tell from zero are, too, or rounding errors would be inverted.
        """
        tau = self.tau * sigma_max if self.relative else self.tau
        return max(tau, resolution * sigma_max)

    def over_sigma(self, xp: ModuleType, sigma: Array, resolution: float) -> Array:
        """f(s) / s: what is between U and U^T in c, step = J^T c."""
        keep = sigma > self.cutoff(float(sigma.max()), resolution)
        return xp.where(keep, xp.where(keep, sigma, 1.0) ** (self.kappa - 1), 0.0)

    def fractions(
        self, least: float, largest: float, tolerance: float = FRACTIONS
    ) -> PartialFractions:
        """f(s) / s for s^2 from ``least`` to ``largest``, all of them kept."""
        return power_fractions((1 - self.kappa) / 2, least, largest, tolerance)


def check_truncated_power(part: object) -> None:
    """Raise unless the fields of a dataclass are those of a `TruncatedPower`."""
    check_real_field(part, "kappa", -1.0, 1.0)
    check_real_field(part, "tau", 0.0)
    check_real_field(part, "beta")
    check_choice("truncation", getattr(part, "truncation"), TRUNCATIONS)  # noqa: B009


@dataclass(frozen=True)
class Damped:
    r"""f(s) = s / (h s^2 + lambda (s^2 / scale)^mu), the least of a quadratic model with a penalty.

    .. math:: \min_d \; L - g \cdot J d + \tfrac h2 |J d|^2
              + \tfrac \lambda2 \sum_k (s_k^2 / \mathrm{scale})^\mu (v_k \cdot d)^2

    with d subtracted from the parameters. mu = 0 is Levenberg-Marquardt; a large lambda makes it
    the gradient over lambda, and with mu = 3/4 the half-inverse gradient over lambda, of a scale of
    1; a small one makes all of them Gauss-Newton.

    Nothing is dropped: for mu = 0 a mode with s = 0 has f(s) / s = 1 / lambda. For mu > 0, where
    that has no end, modes below `SQUARED_RESOLUTION` max(S), which a method that squares cannot
    tell from 0, count as AT it: with every method, because those that do not square would return
    what they resolve as noise, and a fall-back another step. Ranks and cutoffs that are told of a
    step are those of the method's resolution.

    Accuracy: where a method squares, about eps h max(S)^2 / lambda for mu = 0, and for mu > 0
    mu eps (max(S) / s)^2 in a mode of size s as long as its penalty is the larger term.

    Parameters
    ----------
    damping : float
        lambda.
    mu : float in [0, 1]
        Power of s^2 in the penalty.
    curvature : float
        h, that of L in y.
    scale : float
        A squared singular value, at which the penalty is the same for every mu.
    exponent : int
        ``damping`` and ``scale`` are in units of 2^exponent, as h J J^T may be beyond all numbers.
    """

    damping: float
    mu: float = 0.0
    curvature: float = 1.0
    scale: float = 1.0
    exponent: int = 0
    name: ClassVar[str] = "damped"
    relative: ClassVar[bool] = True
    tau: ClassVar[float] = math.inf  # it asks for no small singular value

    def __post_init__(self) -> None:
        for name in ("damping", "curvature", "scale"):
            check_real_field(self, name, 0.0, open_low=True)
        check_real_field(self, "mu", 0.0, 1.0)

    def scaled(self, exponent: int) -> Damped:
        """Return f' with f(2^exponent s) = 2^-exponent f'(s), in units of 1."""
        shift = self.exponent - 2 * exponent
        if shift == 0:
            return replace(self, exponent=0) if self.exponent else self
        damping, scale = (
            min(max(in_range(size, shift), 1 / LARGEST), LARGEST)
            for size in (self.damping, self.scale)
        )
        return replace(self, damping=damping, scale=scale, exponent=0)

    def step_exponent(self, sigma_max: float, exponent: int) -> float:
        """e with f(2^exponent s) = 2^e f'(s) for the f' of `scaled`."""
        return -exponent

    def cutoff(self, sigma_max: float, resolution: float) -> float:
        """Up to where modes are not told apart."""
        return resolution * sigma_max

    def over_sigma(self, xp: ModuleType, sigma: Array, resolution: float) -> Array:
        """f(s) / s = 1 / (h s^2 + lambda (s^2 / scale)^mu)."""
        if self.mu:
            floor = max(resolution, SQUARED_RESOLUTION) * float(sigma.max())
            sigma = xp.maximum(sigma, floor or 1.0)
        return self._over_sigma(sigma * sigma)

    def _over_sigma(self, x):
        """f(s) / s for x = s^2."""
        penalty = min(self.damping * self.scale**-self.mu, LARGEST)
        with np.errstate(over="ignore"):
            return 1.0 / (self.curvature * x + penalty * x**self.mu)

    def fractions(
        self, least: float, largest: float, tolerance: float = FRACTIONS
    ) -> PartialFractions:
        """f(s) / s for s^2 from ``least`` to ``largest``; for mu = 0 one pole, exactly."""
        if self.mu:
            what = f"damping with mu = {self.mu:g}"
            return fractions_of(self._over_sigma, least, largest, what, tolerance)
        h = self.curvature
        return PartialFractions(0.0, np.array([self.damping / h]), np.array([1 / h]), 0.0)


@dataclass(frozen=True)
class SmoothPower:
    """f(s) = s^kappa s^2 / (s^2 + c^2), c = tau max(S): a power that is cut smoothly (Tikhonov).

    Accuracy: as `TruncatedPower`, without its jump: an error of about eps / tau^2 where a method
    squares. Nothing is dropped; ranks and cutoffs that are told of a step are those of the
    resolution.
    """

    kappa: float = -0.5
    tau: float = 1e-6
    name: ClassVar[str] = "smooth power"
    relative: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_real_field(self, "kappa", -1.0, 1.0)
        check_real_field(self, "tau", 0.0, open_low=True)

    def scaled(self, exponent: int) -> SmoothPower:
        """Itself: f(2^exponent s) = 2^(kappa exponent) f(s)."""
        return self

    def step_exponent(self, sigma_max: float, exponent: int) -> float:
        """e with f(2^exponent s) = 2^e f(s)."""
        return self.kappa * exponent

    def cutoff(self, sigma_max: float, resolution: float) -> float:
        """Up to where modes are not told apart."""
        return resolution * sigma_max

    def over_sigma(self, xp: ModuleType, sigma: Array, resolution: float) -> Array:
        """f(s) / s = s^(kappa + 1) / (s^2 + c^2)."""
        c = self.tau * float(sigma.max()) or 1.0
        return sigma ** (self.kappa + 1) / (sigma * sigma + c * c)

    def fractions(
        self, least: float, largest: float, tolerance: float = FRACTIONS
    ) -> PartialFractions:
        """f(s) / s for s^2 from ``least`` to ``largest``, which is max(S)^2."""
        power, c2 = (self.kappa + 1) / 2, self.tau**2 * largest
        what = f"a smooth cut at {self.tau:g}"
        return fractions_of(lambda x: x**power / (x + c2), least, largest, what, tolerance)


@dataclass(frozen=True)
class Shifted:
    r"""F(x) = f(r) / r at r = sqrt(x + c), x = s^2: an f of [J; sqrt(c) I] by the s of J alone.

    Singular values of the two together are sqrt(s^2 + c), and sqrt(c) where J has a null space.
    These are what f is told, and cuts. `ridge` applies it, in units that are f's already.

    Accuracy: that of f at r, or better: an error of x is one of r^2, which is c at least.
    """

    f: Filter
    ridge: float  # c

    @property
    def name(self) -> str:
        """That of f."""
        return self.f.name

    def cutoff(self, sigma_max: float, resolution: float) -> float:
        """The s up to which modes are dropped, or not told apart."""
        r = self.f.cutoff(self._together(sigma_max), resolution)
        return max(math.sqrt(max(r * r - self.ridge, 0.0)), resolution * sigma_max)

    def at_zero(self, sigma_max: float, resolution: float) -> float:
        """F(0), for what J does not see."""
        r = np.array([self.ridge**0.5, self._together(sigma_max)])
        return float(self.f.over_sigma(np, r, resolution)[0])

    def over_sigma(self, xp: ModuleType, sigma: Array, resolution: float) -> Array:
        """F(s^2)."""
        return self.f.over_sigma(xp, xp.sqrt(sigma * sigma + self.ridge), resolution)

    def fractions(
        self, least: float, largest: float, tolerance: float = FRACTIONS
    ) -> PartialFractions:
        """F for x from ``least`` to ``largest``: f's of x + c, whose poles are further out by c."""
        of_f = self.f.fractions(least + self.ridge, largest + self.ridge, tolerance)
        return of_f._replace(poles=of_f.poles + self.ridge)

    def _together(self, sigma: float) -> float:
        """The singular value of [J; sqrt(c) I] for one of J."""
        return math.hypot(sigma, math.sqrt(self.ridge))


class ShiftedSlope(Shifted):
    """G(x) = (F(x) - F(0)) / x for the F of `Shifted`.

    G is multiplied by x again, in J^T G(K) J, and so is the rounding error of the difference,
    eps F(0) / x. Only an x that is noise, far below the true one, would enlarge it. Where a method
    resolves c, G is flat below what it resolves of x, and is taken at that; where it does not, F
    is.
    """

    def over_sigma(self, xp: ModuleType, sigma: Array, resolution: float) -> Array:
        """G(s^2)."""
        sigma = xp.maximum(sigma, resolution * float(sigma.max()) or 1.0)
        F = super().over_sigma(xp, xp.concatenate([sigma, xp.zeros(1)]), resolution)
        return (F[:-1] - F[-1:]) / (sigma * sigma)

    def fractions(
        self, least: float, largest: float, tolerance: float = FRACTIONS
    ) -> PartialFractions:
        """G by the poles of F: a / (x + p) - a / p = -x (a / p) / (x + p).

        Raises `DecompositionError` where F(0) is not what they say, for f cuts it.
        """
        cutoff = self.f.cutoff(self._together(largest**0.5), SQUARED_RESOLUTION)
        require(self.ridge > cutoff * cutoff, "the null space of J is cut")
        _, poles, residues, error = super().fractions(0.0, largest, tolerance)
        return PartialFractions(0.0, poles, -residues / poles, error)


Filter: TypeAlias = TruncatedPower | Damped | SmoothPower
