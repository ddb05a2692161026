"""Losses of one sample: value and gradient side by side.

A loss object has ``value(y, target) -> (b,)`` and ``gradient(y, target) -> (b, |y|)``, the
derivative of each sample's value with respect to its own y. Batch averages are `Problem`'s.
The size of the second derivative, which Gauss-Newton and the damped optimizers need, is
``curvature``, a number or one for each output, or ``curvatures(y, target) -> (b, |y|)``.

Complex states are real arrays (Re psi_1..psi_n, Im psi_1..psi_n).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from numbers import Real
from typing import Any

import numpy as np

from .backend import Array, is_array, module_of, same_fields, to_host
from .validation import (
    check_array,
    check_arrays,
    check_count,
    check_finite,
    check_real,
    check_real_field,
)


@dataclass(frozen=True)
class SquaredError:
    """l(y, t) = factor * sum_j w_j (y_j - t_j)^2; factor 1 for the oscillators, 1/2 in eq. 4.

    Parameters
    ----------
    factor : float
        A number > 0.
    weights : list, tuple or array (|y|,), optional
        w, numbers >= 0, by default all 1. Kept as a tuple.

    Examples
    --------
    >>> loss = SquaredError(weights=[1.0, 100.0])
    >>> loss.value(np.array([[3.0, 0.5]]), np.array([[1.0, 0.3]]))
    array([8.])
    """

    factor: float = 1.0
    weights: Array | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        check_real_field(self, "factor", 0.0, open_low=True)
        if self.weights is not None:
            object.__setattr__(self, "weights", _as_tuple("weights", self.weights))

    def __repr__(self) -> str:
        weights = "" if self.weights is None else f", weights={self.weights}"
        return f"{type(self).__name__}(factor={self.factor}{weights})"

    @property
    def curvature(self) -> float | Array:
        """d^2l/dy^2: 2 factor or, with weights, 2 factor w (|y|,), a NumPy array."""
        if self.weights is None:
            return 2 * self.factor
        return 2 * self.factor * np.array(self.weights)

    def value(self, y: Array, target: Array) -> Array:
        """Return l of each sample, (b,), for y and target (b, |y|)."""
        _check_pair(y, target)
        return self.factor * self._weighted((y - target) ** 2).sum(axis=1)

    def gradient(self, y: Array, target: Array) -> Array:
        """Return dl/dy of each sample, (b, |y|)."""
        _check_pair(y, target)
        return self._weighted(2 * self.factor * (y - target))

    def _weighted(self, array):
        """An array (b, |y|) times the weights, which go where it lives."""
        if self.weights is None:
            return array
        if len(self.weights) != array.shape[1]:
            raise ValueError(
                f"weights must be {array.shape[1]} numbers, one for each output of the solver, "
                f"got {len(self.weights)}"
            )
        return array * module_of(array).asarray(self.weights, array.dtype)


@dataclass(frozen=True)
class Huber:
    r"""As `SquaredError` up to an error of ``width``, linear beyond: outliers pull no harder.

    .. math::

        l(y, t) = c \sum_j \rho(|y_j - t_j|), \qquad
        \rho(e) = e^2 \text{ for } e \le w, \text{ else } w\,(2 e - w).

    Parameters
    ----------
    width : float
        w > 0, in the units of y.
    factor : float
        c > 0.

    Examples
    --------
    >>> y, target = np.array([[0.5, 11.0]]), np.array([[0.0, 1.0]])
    >>> Huber().value(y, target), Huber().gradient(y, target)
    (array([19.25]), array([[1., 2.]]))
    """

    width: float = 1.0
    factor: float = 1.0

    def __post_init__(self) -> None:
        for name in ("width", "factor"):
            check_real_field(self, name, 0.0, open_low=True)

    def value(self, y: Array, target: Array) -> Array:
        """Return l of each sample, (b,), for y and target (b, |y|)."""
        _check_pair(y, target)
        error = abs(y - target)
        within = module_of(y).minimum(error, self._width(y))
        return self.factor * (within * (2 * error - within)).sum(axis=1)

    def gradient(self, y: Array, target: Array) -> Array:
        """Return dl/dy of each sample, (b, |y|)."""
        _check_pair(y, target)
        xp, width = module_of(y), self._width(y)
        return 2 * self.factor * xp.maximum(xp.minimum(y - target, width), -width)

    def curvatures(self, y: Array, target: Array) -> Array:
        r"""Return :math:`2 c \min(1, w / |y_j - t_j|)` (b, |y|).

        That of the parabola that touches l at y and is nowhere below it, so that a Gauss-Newton
        step is one of iteratively reweighted least squares.
        """
        _check_pair(y, target)
        width = self._width(y)
        return 2 * self.factor * (width / module_of(y).maximum(abs(y - target), width))

    def _width(self, y):
        """The width, or the largest number that there is for y."""
        return min(self.width, float(np.finfo(y.dtype).max))


@dataclass(frozen=True)
class WeightedSamples:
    """w_i l(y_i, t_i): another loss, with a weight >= 0 for each sample.

    The target is one column wider than that of the other loss, and the last one holds the weights,
    so that they go with their samples: ``target=np.hstack([wanted, weights[:, None]])``. L is the
    mean, or the sum, of w_i l_i; it is not divided by the weights.

    Parameters
    ----------
    loss : object
        The other loss, such as `SquaredError`.

    Examples
    --------
    >>> target = np.array([[1.0, 0.3, 2.0]])
    >>> WeightedSamples(SquaredError()).value(np.array([[3.0, 0.3]]), target)
    array([8.])
    """

    loss: Any

    def __post_init__(self) -> None:
        check_is_loss("loss", self.loss)

    def target_size(self, output_size: int) -> int:
        """One more than that of the other loss."""
        return target_size(self.loss, output_size) + 1

    def value(self, y: Array, target: Array) -> Array:
        """Return w l of each sample, (b,), for y (b, |y|) and target with its weights."""
        target, weights = self._parts(y, target)
        return weights[:, 0] * self.loss.value(y, target)

    def gradient(self, y: Array, target: Array) -> Array:
        """Return w dl/dy of each sample, (b, |y|)."""
        target, weights = self._parts(y, target)
        return weights * self.loss.gradient(y, target)

    def curvatures(self, y: Array, target: Array) -> Array | None:
        """Return w times the curvature of the other loss (b, |y|), None if that says none."""
        target, weights = self._parts(y, target)
        curvature = curvature_of(self.loss, y, target)
        if curvature is None:
            return None
        return module_of(y).broadcast_to(weights * curvature, y.shape)

    def _parts(self, y, target):
        """The target of the other loss, and the weights (b, 1)."""
        check_arrays(y=(y, ("b", "|y|")))
        width = self.target_size(y.shape[1])
        check_arrays(y=(y, ("b", "|y|")), target=(target, ("b", width)))
        weights = target[:, -1:]
        if not bool((weights >= 0).all()):
            raise ValueError(
                "the last column of target holds the weights of samples, which must be >= 0; "
                f"the least is {float(weights.min())}"
            )
        return target[:, :-1], weights


@dataclass(frozen=True)
class Penalised:
    r"""Another loss, and a price of the control, where y is followed by u: (y, u).

    .. math:: l\bigl((y, u), t\bigr) = l(y, t) + c\,|u|^2

    `Problem.penalised` makes such a y, and this loss.

    Parameters
    ----------
    loss : object
        The other loss.
    weight : float
        c >= 0.
    size : int
        \|u\|, how many of the last components are the control.
    """

    loss: Any
    weight: float
    size: int

    def __post_init__(self) -> None:
        check_is_loss("loss", self.loss)
        check_real_field(self, "weight", 0.0)
        check_count("size", self.size)

    def target_size(self, output_size: int) -> int:
        """That of the other loss, which does not see u."""
        return target_size(self.loss, output_size - self.size)

    def value(self, y: Array, target: Array) -> Array:
        """Return l of each sample, (b,), for y with u (b, |y| + |u|)."""
        y, u = self._parts(y)
        return self.loss.value(y, target) + self.weight * (u * u).sum(axis=1)

    def gradient(self, y: Array, target: Array) -> Array:
        """Return dl/d(y, u) of each sample, (b, |y| + |u|)."""
        y, u = self._parts(y)
        gradient = self.loss.gradient(y, target)
        return module_of(y).concatenate([gradient, 2 * self.weight * u], axis=1)

    def curvatures(self, y: Array, target: Array) -> Array | None:
        """Return the curvature of the other loss, followed by 2 c (b, |y| + |u|); None if none."""
        y, u = self._parts(y)
        curvature, xp = curvature_of(self.loss, y, target), module_of(y)
        if curvature is None:
            return None
        of_u = xp.full(u.shape, 2 * self.weight, u.dtype)
        return xp.concatenate([xp.zeros_like(y) + curvature, of_u], axis=1)

    def _parts(self, y):
        """y and u."""
        check_arrays(y=(y, ("b", "|y| + |u|")))
        return y[:, : -self.size], y[:, -self.size :]


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


def ridge_loss(weight: float, theta: Array, samples: int, batch_mean: bool) -> Array:
    r"""Return w/2 |theta|^2, or 1/b of it where L is a sum over b samples: beside a mean loss."""
    return weight / (2 if batch_mean else 2 * samples) * (theta @ theta)


def check_is_loss(name: str, loss: object) -> None:
    """Raise unless ``loss`` has what every loss has."""
    if isinstance(loss, type):
        kind = loss.__name__
        raise TypeError(f"{name} must be an instance, {kind}(), not the class {kind}")
    if not (hasattr(loss, "value") and hasattr(loss, "gradient")):
        raise TypeError(f"{name} must have value and gradient, got {loss!r}")


def target_size(loss: Any, output_size: int) -> int:
    """Return the width of a target: |y|, unless the loss has a ``target_size`` that says more."""
    size: int = loss.target_size(output_size) if hasattr(loss, "target_size") else output_size
    return size


def curvature_of(loss: Any, y: Array, target: Array) -> float | Array | None:
    """Return what a loss says of its curvature in y: a number, an array (b, |y|), None if nothing.

    Raises
    ------
    ValueError
        If it has another shape, or is not finite and >= 0.
    """
    said = loss.curvatures(y, target) if hasattr(loss, "curvatures") else None
    said = getattr(loss, "curvature", None) if said is None else said
    if said is None:
        return None
    if isinstance(said, Real):
        check_real("the curvature of a loss", said, 0.0)
        return float(said)
    xp = module_of(y)
    array = xp.asarray(said, y.dtype)
    if array.shape not in ((), y.shape[1:], y.shape):
        raise ValueError(
            "the curvature of a loss must be a number, or have shape (|y|,) or (b, |y|), here "
            f"{y.shape[1:]} or {y.shape}; got {array.shape} by {loss!r}"
        )
    if not bool(((array >= 0) & xp.isfinite(array)).all()):
        raise ValueError(f"the curvature of a loss must be finite and >= 0, got {said} by {loss!r}")
    return xp.broadcast_to(array, y.shape)


def _as_tuple(name, numbers):
    """A list, a tuple or an array of numbers >= 0 as a tuple of floats."""
    given = to_host(numbers).tolist() if is_array(numbers) else numbers
    if not isinstance(given, (list, tuple)) or not given:
        raise TypeError(f"{name} must be a list, a tuple or an array of numbers, got {numbers!r}")
    for j, number in enumerate(given):
        check_real(f"{name}[{j}]", number, 0.0)
    return tuple(map(float, given))


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
