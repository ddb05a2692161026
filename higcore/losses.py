"""Losses of one sample: value and gradient side by side.

A loss object has ``value(y, target) -> (b,)`` and ``gradient(y, target) -> (b, |y|)``, the
derivative of each sample's value with respect to its own y. Batch averages are `Problem`'s.
``curvature`` is the size of its second derivative, which Levenberg-Marquardt needs.

Complex states are real arrays (Re psi_1..psi_n, Im psi_1..psi_n).
"""

from __future__ import annotations

from dataclasses import dataclass

from .backend import Array, module_of, same_fields
from .validation import check_array, check_arrays, check_finite, check_real_field


@dataclass(frozen=True)
class SquaredError:
    """l(y, t) = factor * sum_j (y_j - t_j)^2; factor 1 for the oscillators, 1/2 in eq. 4."""

    factor: float = 1.0

    def __post_init__(self) -> None:
        check_real_field(self, "factor", 0.0, open_low=True)

    @property
    def curvature(self) -> float:
        """d^2l/dy^2 = 2 factor."""
        return 2 * self.factor

    def value(self, y: Array, target: Array) -> Array:
        """Return l of each sample, (b,), for y and target (b, |y|)."""
        _check_pair(y, target)
        return self.factor * ((y - target) ** 2).sum(axis=1)

    def gradient(self, y: Array, target: Array) -> Array:
        """Return dl/dy of each sample, (b, |y|)."""
        _check_pair(y, target)
        return 2 * self.factor * (y - target)


@dataclass(frozen=True)
class Infidelity:
    """l(psi, target) = 1 - |<psi, target>|^2 for normalised states (paper, 3.3 and B.4).

    With <psi, target> = c + i d: c = p.a + q.b, d = p.b - q.a for psi = (p, q), target = (a, b).
    """

    curvature = 2.0  # that of |psi - target|^2, which l resembles near the target

    def value(self, y: Array, target: Array) -> Array:
        """Return l of each sample, (b,), for states y and target (b, 2n)."""
        _check_pair(y, target)
        _check_complex("y", y)
        c, d = _inner_product(y, target)
        return 1 - c * c - d * d

    def gradient(self, y: Array, target: Array) -> Array:
        """Return dl/dy of each sample, (b, 2n): -2 (c a + d b) for p, -2 (c b - d a) for q."""
        _check_pair(y, target)
        _check_complex("y", y)
        c, d = _inner_product(y, target)
        return -2 * (c[:, None] * target - d[:, None] * _times_i(target))


@dataclass(frozen=True, eq=False)
class ComponentError:
    """l = (|<psi, mode>| - |<mode, target>|)^2: how well one component is matched (B.4).

    With the first excited state as ``mode`` this is the paper's low-energy loss, with the second
    its high-energy loss.

    Parameters
    ----------
    mode : array (2n,)
        A normalised state.
    """

    mode: Array
    curvature = 2.0

    __eq__ = same_fields

    def __post_init__(self) -> None:
        check_array("mode", self.mode, ("2n",))
        _check_complex("mode", self.mode)
        check_finite("mode", self.mode)

    def value(self, y: Array, target: Array) -> Array:
        """Return l of each sample, (b,), for states y and target (b, 2n)."""
        self._check_pair(y, target)
        return (self._amplitude(y)[0] - self._amplitude(target)[0]) ** 2

    def gradient(self, y: Array, target: Array) -> Array:
        """Return dl/dy of each sample, (b, 2n); 0 where psi has no such component."""
        self._check_pair(y, target)
        size, c, d = self._amplitude(y)
        wanted = self._amplitude(target)[0]
        safe = size + (size == 0)
        scale = 2 * (size - wanted) / safe
        return (scale * c)[:, None] * self.mode - (scale * d)[:, None] * _times_i(self.mode)

    def _check_pair(self, y, target):
        check_arrays(mode=(self.mode, ("2n",)), y=(y, ("b", "2n")))
        _check_pair(y, target)

    def _amplitude(self, y):
        """|<psi, mode>| and its real and imaginary part, each (b,)."""
        c, d = _inner_product(y, self.mode[None])
        return (c * c + d * d) ** 0.5, c, d


def _check_pair(y, target):
    """Raise unless y (b, |y|) and target are alike: NumPy would repeat the smaller one."""
    check_arrays(y=(y, ("b", "|y|")), target=(target, ("b", "|y|")))


def _check_complex(name, array):
    if array.shape[-1] % 2:
        raise ValueError(
            f"{name} must have an even width, real parts beside imaginary ones, got {array.shape}"
        )


def _inner_product(y, target):
    """Real and imaginary part of <y, target> = sum conj(y) target, (b,)."""
    return (y * target).sum(axis=1), (y * _times_i(target)).sum(axis=1) * -1


def _times_i(y):
    """i y: (a, b) -> (-b, a)."""
    n = y.shape[-1] // 2
    return module_of(y).concatenate([-y[..., n:], y[..., :n]], axis=-1)
