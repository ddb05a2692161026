"""Numerical proofs of a single derivative: is it the transpose, is it the derivative?"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np

from ..backend import Array
from ..validation import check_array, check_callable, check_count, check_like, check_real


def dot_test(
    tangent: Callable[[Array], Array], adjoint: Callable[[Array], Array], v: Array, w: Array
) -> float:
    r"""Return the relative mismatch of <w, A v> and <A^T w, v>.

    .. math:: |\langle w, A v\rangle - \langle A^T w, v\rangle| \,/\, (\|w\| \|A v\|)

    Zero up to rounding (1e-12 in float64) if and only if, for random v and w, ``adjoint`` is the
    transpose of ``tangent``.

    Parameters
    ----------
    tangent, adjoint : callable
        v -> A v and w -> A^T w, on arrays.
    v, w : array
        Of the shapes that ``tangent`` and ``adjoint`` take.

    Examples
    --------
    >>> A = np.array([[1.0, 2.0], [3.0, 4.0]])
    >>> v, w = np.array([1.0, -2.0]), np.array([0.5, 3.0])
    >>> dot_test(lambda v: A @ v, lambda w: A.T @ w, v, w) < 1e-15
    True
    >>> dot_test(lambda v: A @ v, lambda w: A @ w, v, w) > 1e-15
    True
    """
    _check_arguments({"tangent": tangent, "adjoint": adjoint}, v=v, w=w)
    Av, Aw = tangent(v), adjoint(w)
    check_array("tangent(v)", Av, w.shape)
    check_array("adjoint(w)", Aw, v.shape)
    forward, backward = float((w * Av).sum()), float((Aw * v).sum())
    scale = math.sqrt(float((w * w).sum()) * float((Av * Av).sum()))
    return abs(backward) if scale == 0 else abs(forward - backward) / scale  # NaN stays NaN


def taylor_test(
    function: Callable[[Array], Array],
    tangent: Callable[[Array, Array], Array],
    v: Array,
    direction: Array,
    *,
    step: float = 1e-2,
    halvings: int = 4,
) -> list[float]:
    r"""Return the observed orders of the Taylor remainder, one for each halving of the step.

    .. math:: \|f(v + h d) - f(v) - h\, f'(v) d\| = O(h^2)

    Orders near 2 prove that ``tangent`` is the derivative of ``function``; near 1, that it is not.

    Parameters
    ----------
    function : callable
        v -> f(v).
    tangent : callable
        (v, d) -> f'(v) d.
    v, direction : array
        The point and the direction d.
    step : float
        The first h.
    halvings : int
        How often h is halved.

    Returns
    -------
    list of float
        log2 of the ratio of successive remainders; meaningless, possibly NaN, for a linear f.

    Examples
    --------
    >>> orders = taylor_test(np.sin, lambda v, d: np.cos(v) * d, np.ones(3), np.ones(3))
    >>> [round(order, 1) for order in orders]
    [2.0, 2.0, 2.0, 2.0]
    """
    _check_arguments({"function": function, "tangent": tangent}, v=v)
    check_like("direction", direction, v.shape, v=v)
    check_real("step", step, 0.0, open_low=True)
    check_count("halvings", halvings)
    value, slope = function(v), tangent(v, direction)
    remainders = []
    for k in range(halvings + 1):
        h = step / 2**k
        error = function(v + h * direction) - value - h * slope
        remainders.append(math.sqrt(float((error * error).sum())))
    with np.errstate(divide="ignore", invalid="ignore"):
        return [float(np.log2(np.divide(a, b))) for a, b in pairwise(remainders)]


def _check_arguments(functions, **arrays):
    for name, function in functions.items():
        check_callable(name, function)
    for name, array in arrays.items():
        check_array(name, array, ("any",) * len(getattr(array, "shape", ())))
