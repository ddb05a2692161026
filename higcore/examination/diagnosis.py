"""What is wrong with an array that should be another one, in words; and the table of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ..backend import array_module


class Finding(NamedTuple):
    """A row of a `CheckReport`; ``passed`` is None for what could not be checked."""

    what: str
    expected: str
    seen: str
    verdict: str
    passed: bool | None


@dataclass
class CheckReport:
    """What `check_solver` and `check_network` found; ``print`` shows a table.

    True in a condition if nothing failed, so that ``assert check_solver(solver)`` is a test.

    Attributes
    ----------
    title : str
        What was checked.
    rows : list of Finding
        what, expected, seen, verdict, passed.
    """

    title: str
    rows: list[Finding] = field(default_factory=list)

    @property
    def failed(self) -> list[Finding]:
        """The rows that failed."""
        return [row for row in self.rows if row.passed is False]

    @property
    def ok(self) -> bool:
        """True if no row failed."""
        return not self.failed

    def __bool__(self) -> bool:
        return self.ok

    def raise_if_failed(self) -> None:
        """Raise an AssertionError that lists what failed."""
        if self.failed:
            lines = [f"{row.what}: {row.verdict}" for row in self.failed]
            raise AssertionError("\n  ".join([f"{self.title}: {len(lines)} failed", *lines]))

    def __str__(self) -> str:
        table = [Finding._fields[:4], *(row[:4] for row in self.rows)]
        widths = [max(len(line[k]) for line in table) for k in range(3)]
        lines = [
            "  ".join([*(f"{cell:{w}s}" for cell, w in zip(line, widths, strict=False)), line[3]])
            for line in table
        ]
        count = len(self.failed)
        skipped = sum(row.passed is None for row in self.rows)
        good = f"all right; {skipped} skipped" if skipped else "all right"
        summary = f"{count} of {len(self.rows)} checks failed" if count else good
        return "\n".join([self.title, *lines, summary])


def flaw(array, shape, dtype):
    """What keeps an array from having this shape and dtype and being finite; "" if nothing."""
    try:
        xp = array_module(it=array)
    except TypeError:
        return f"is no NumPy or CuPy array but of type {type(array).__name__}"
    if array.shape != shape:
        hint = "; is the sample axis summed away?" if array.shape == shape[1:] else ""
        return f"has shape {array.shape} in place of {shape}{hint}"
    if array.dtype != dtype:
        return f"has dtype {array.dtype} for inputs of {np.dtype(dtype)}"
    bad = int((~xp.isfinite(array)).sum())
    return f"holds {bad} NaN or Inf of {array.size} values" if bad else ""


class Claim(NamedTuple):
    """``subject`` should be ``reference``; their components are those of ``axis``, "" for none.

    ``mistakes`` pairs arrays that would come of known mistakes with their description.
    """

    subject: str
    reference: str
    axis: str
    mistakes: tuple[tuple[str, Any], ...] = ()


def diagnose(claim, seen, expected, allowed, scale, components=None):
    """Say in what way ``seen`` is not ``expected`` within ``allowed``; "" if it is.

    All are arrays (..., n), sample by sample if they have more than one axis; ``components`` are
    the n numbers of the components, by default 0 to n - 1. ``scale`` holds the units in which
    entries compare.
    """
    if (abs(seen - expected) <= allowed).all():
        return ""
    a, b = seen / scale, expected / scale
    factor = float((a * b).sum() / (b * b).sum()) if b.any() else 1
    if _explains(factor * expected, seen, expected, scale):
        return f"{claim.subject} is {_multiple(factor)} {claim.reference}{_sign(factor)}"
    for text, mistaken in claim.mistakes:
        if _explains(mistaken, seen, expected, scale):
            return f"{claim.subject} {text}"
    if not claim.axis:
        return f"{claim.subject} is not {claim.reference}"
    return f"{claim.subject} {_worst(claim.axis, seen, expected, allowed, scale, components)}"


def _explains(mistaken, seen, expected, scale):
    """True if ``mistaken`` leaves next to nothing of the error.

    Little beside what is allowed is not enough: a mistake in a small part would make a factor
    near 1.
    """
    if mistaken.shape != seen.shape:
        return False
    left, error = (np.linalg.norm((seen - other) / scale) for other in (mistaken, expected))
    return left <= 0.05 * error


def _multiple(factor):
    if abs(factor) < 1e-5:
        return "zero in place of"
    return "minus" if abs(factor + 1) < 1e-5 else f"{float(f'{factor:.6g}')} times"


def _sign(factor):
    return ": wrong sign" if factor < -1e-5 else ""


def _worst(axis, seen, expected, allowed, scale, components):
    """The component that is farthest off, which are off, where, and whether by their sign."""
    beyond = (abs(seen - expected) - allowed) / scale
    where = np.unravel_index(beyond.argmax(), beyond.shape)  # the first NaN, if there is one
    wrong, n = ~(beyond <= 0), seen.shape[-1]
    numbers = np.arange(n) if components is None else components
    off = numbers[wrong.reshape(-1, n).any(axis=0)]
    text = (
        f"is worst in component {numbers[where[-1]]} of {axis}, {seen[where]:.3g} where "
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
    numbers = wrong.nonzero()[0]
    if len(numbers) == len(wrong):
        return ""
    return f", only in {what} {', '.join(map(str, numbers))} of {len(wrong)}"
