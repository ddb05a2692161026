"""What is wrong with an array that should be another one, in words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from ..backend import array_module


def flaw(array, shape, dtype):
    """What keeps an array from having this shape and dtype and being finite; "" if nothing."""
    summed = getattr(array, "shape", None) == shape[1:]
    hint = "; is the sample axis summed away?" if summed else ""
    try:
        xp = array_module(it=array)
    except TypeError:
        return f"is no NumPy or CuPy array but of type {type(array).__name__}{hint}"
    if array.shape != shape:
        return f"has shape {array.shape} in place of {shape}{hint}"
    if array.dtype != dtype:
        return f"has dtype {array.dtype} for inputs of {np.dtype(dtype)}"
    bad = int((~xp.isfinite(array)).sum())
    return f"holds {bad} NaN or Inf of {array.size} values" if bad else ""


def advice(array, dtype):
    """What to do about an array that came out in float64 alone; "" of any other."""
    if (getattr(array, "dtype", None), np.dtype(dtype)) != (np.float64, np.float32):
        return ""
    return (
        ": it computes in float64, as by float64 constants of NumPy, or by SciPy; let it return "
        "astype(x.dtype) of what it finds, or train in float64"
    )


class Claim(NamedTuple):
    """``subject`` is ``reference``; their last axis is ``axis``, "" if it needs no mention.

    ``mistakes`` are descriptions of known ones, each with the array that would come of it;
    ``numbers`` are those of the components along the axis, by default 0, 1, ...
    """

    subject: str
    reference: str
    axis: str = ""
    mistakes: Iterable[tuple[str, Any]] = ()
    numbers: Any = None


def disordered(expected: np.ndarray, axis: str) -> Iterator[tuple[str, Any]]:
    """Mistakes in the order of the last axis, which may be an array (k, n) to those who made it."""
    *others, total = expected.shape
    yield f"has the components of {axis} in reverse order", expected[..., ::-1]
    for k in (k for k in range(2, total) if total % k == 0):
        n = total // k
        array = expected.reshape(*others, k, n)
        transposed = f"has {axis} transposed, as an array ({n}, {k}) in place of ({k}, {n})"
        yield transposed, array.swapaxes(-1, -2).reshape(expected.shape)
        turned = {"first": array[..., ::-1, :], "last": array[..., ::-1]}
        for which, mistaken in turned.items():
            text = f"has {axis}, as an array ({k}, {n}), in reverse order along its {which} axis"
            yield text, mistaken.reshape(expected.shape)


def diagnose(claim, seen, expected, allowed, scale):
    """Say in what way ``seen`` is not ``expected`` within ``allowed``; "" if it is.

    All are arrays (..., n), sample by sample if they have more than one axis. ``scale`` holds the
    units in which entries compare. ``claim`` is a `Claim`, or all that there is to say.
    """
    if (abs(seen - expected) <= allowed).all():
        return ""
    if isinstance(claim, str):
        return claim
    a, b = seen / scale, expected / scale
    factor = float((a * b).sum() / (b * b).sum()) if b.any() else 1
    multiple = f"is {_multiple(factor, claim.reference)}", factor * expected
    for text, mistaken in (multiple, *claim.mistakes):
        # A mistake leaves next to nothing of the error. Little beside what is allowed is not
        # enough: a mistake in a small part would make a factor near 1.
        if np.linalg.norm((seen - mistaken) / scale) <= 0.05 * np.linalg.norm(a - b):
            return f"{claim.subject} {text}"
    if not claim.axis:
        return f"{claim.subject} is not {claim.reference}"
    return f"{claim.subject} {_worst(claim, seen, expected, allowed, scale)}"


def _multiple(factor, reference):
    """The reference times a factor, in words."""
    if abs(factor) < 1e-5:
        return f"zero in place of {reference}"
    times = "minus" if abs(factor + 1) < 1e-5 else f"{float(f'{factor:.6g}')} times"
    return f"{times} {reference}" + (": wrong sign" if factor < 0 else "")


def _worst(claim, seen, expected, allowed, scale):
    """The component that is farthest off, which are off, where, and whether by their sign."""
    beyond = (abs(seen - expected) - allowed) / scale
    where = np.unravel_index(beyond.argmax(), beyond.shape)  # the first NaN, if there is one
    wrong, n = ~(beyond <= 0), seen.shape[-1]
    numbers = np.arange(n) if claim.numbers is None else claim.numbers
    off = numbers[wrong.reshape(-1, n).any(axis=0)]
    text = (
        f"is worst in component {numbers[where[-1]]} of {claim.axis}, {seen[where]:.3g} where "
        f"{expected[where]:.3g} is right; {len(off)} of {n} components are off, "
        f"from {off[0]} to {off[-1]}"
    )
    if seen.ndim == 3:
        text += _only("outputs", wrong.any(axis=(0, 2)))
    if seen.ndim > 1:
        text += _only("samples", wrong.reshape(len(wrong), -1).any(axis=1))
    minus = abs(seen + expected) <= allowed + 0.05 * abs(expected)
    return text + (": wrong sign there" if minus[wrong].all() else "")


def _only(what, wrong):
    """Which of several are wrong, unless all are."""
    numbers = ", ".join(map(str, wrong.nonzero()[0]))
    return "" if wrong.all() else f", only in {what} {numbers} of {len(wrong)}"
