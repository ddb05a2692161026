"""What the examinations of a solver and of a network share."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..backend import to_host
from ..validation import check_count
from .diagnosis import CheckReport, Claim, Finding, diagnose, flaw
from .differences import central_slope, remainder_order, step_scale

COLUMNS = 512  # columns of a Jacobian taken by differences; drawn, if there are more
ROUGH = 0.05  # relative uncertainty from which differences are no judge
PAIRS = 3  # of the dot test: one would not tell a factor from anything else
REVERSED = "has the components of {} in reverse order"


class _Flawed(Exception):
    """Ends a part of an examination; its row is in the table already."""


@dataclass
class Differentiable:
    """v -> (b, n) with tangent and adjoint: a solver of its control, or a network of theta.

    ``contraction`` is how cotangents (b, n) meet the columns (b, n, |v|) of the Jacobian: sample
    by sample, or summed over samples. ``axes`` names v and what comes out.
    """

    function: Callable
    tangent: Callable
    adjoint: Callable
    v: Any
    shape: tuple
    contraction: str
    axes: tuple
    adjoint_name: str = "adjoint"

    def value(self, v):
        """The function on the host."""
        return host(self.function(v))


@dataclass
class Columns:
    """Columns (b, n, k) of the Jacobian of a `Differentiable`, by differences."""

    numbers: np.ndarray
    value: np.ndarray
    uncertainty: np.ndarray
    of: int

    @property
    def complete(self):
        """True if these are all columns."""
        return len(self.numbers) == self.of

    @property
    def share(self):
        """How many these are, to be said in a table."""
        return "" if self.complete else f", {len(self.numbers)} of {self.of} columns"


class Examination:
    """A `CheckReport` in the making, on arrays of one dtype and one array module."""

    def __init__(self, title, xp, dtype, seed):
        self.report = CheckReport(title)
        self.xp, self.dtype, self.rng = xp, np.dtype(dtype), np.random.default_rng(seed)
        eps = float(np.finfo(dtype).eps)
        self.rounding, self.truncation = 1e5 * eps, 100 * eps ** (2 / 3)  # relative errors
        self.changed = set()

    def draw(self, *shape):
        """Normal random numbers."""
        return self.xp.asarray(self.rng.standard_normal(shape).astype(self.dtype))

    def add(self, what, expected, seen, wrong=""):
        """Add a row; a sentence in ``wrong`` makes it one that failed."""
        self.report.rows.append(Finding(what, expected, seen, wrong or "ok", not wrong))

    def skip(self, what, why):
        """Add a row for what cannot be checked."""
        self.report.rows.append(Finding(what, "-", "-", f"skipped: {why}", None))

    @contextmanager
    def part(self, what):
        """Let an exception of the user's code fail a row, and end this part alone."""
        try:
            with np.errstate(all="ignore"):  # what is not finite is met by `array`
                yield
        except _Flawed:
            pass
        except Exception as error:
            name, text = type(error).__name__, " ".join(str(error).split())
            self.add(what, "no exception", name, f"raised {name}: {text}")

    def sizes(self, thing, names):
        """Return the sizes that a solver or network must have, or None if one is amiss."""
        found = []
        with self.part("sizes"):
            for name in names:
                check_count(name, getattr(thing, name))
                found.append(int(getattr(thing, name)))
            listing = ", ".join(f"{k} {n}" for k, n in zip(names, found, strict=True))
            self.add("sizes", "counts", listing)
        return found if len(found) == len(names) else None

    def call(self, name, function, *arguments):
        """Call the user's function with copies, and see whether it leaves them alone."""
        copies = [a.copy() if hasattr(a, "dtype") else a for a in arguments]
        result = function(*copies)
        for original, copy in zip(arguments, copies, strict=True):
            if hasattr(original, "dtype") and not bool((original == copy).all()):
                self.changed.add(name)
        return result

    def array(self, what, array, shape):
        """Return an array of the user's on the host, if shape and dtype are right and it is finite.

        Else the part that asks for it ends here.
        """
        wrong = flaw(array, shape, self.dtype)
        kind = type(array).__name__
        seen = f"{array.shape} {array.dtype}" if hasattr(array, "dtype") else kind
        self.add(what, f"{shape} {self.dtype}", seen, wrong and f"{what} {wrong}")
        if wrong:
            raise _Flawed
        return host(array)

    def alone(self, name, together, function):
        """Compare the outputs of all samples with those of each by itself, function(slice)."""
        each = [host(function(slice(i, i + 1))) for i in range(len(together))]
        claim = f"{name} of a sample depends on what else is in the batch"
        self.compare(f"{name}, each sample alone", claim, np.concatenate(each), together)

    def compare(self, what, claim, seen, expected, allowed=None, components=None):
        """Add a row that says whether two arrays agree, by default up to rounding.

        ``claim`` is a `Claim`, or the sentence to be shown if they do not.
        """
        if seen.shape != expected.shape:
            wrong = f"{what}: shape {seen.shape} in place of {expected.shape}"
            self.add(what, f"{expected.shape}", f"{seen.shape}", wrong)
            return
        scale = abs(expected).max() or 1.0
        allowed = np.full(expected.shape, self.rounding * scale) if allowed is None else allowed
        error = abs(seen - expected)
        if isinstance(claim, str):
            wrong = "" if (error <= allowed).all() else claim
        else:
            wrong = diagnose(claim, seen, expected, allowed, components)
        bound, worst = allowed.max() / scale, error.max() / scale
        self.add(what, f"error < {bound:.0e}", f"{worst:.0e}" if worst else "0", wrong)

    def compare_with_slope(self, what, claim, seen, value, uncertainty, components=None):
        """`compare` with a derivative by differences, unless these say nothing."""
        unsure, size = float(np.median(uncertainty)), float(abs(value).max())
        if unsure > max(ROUGH * size, 1e-6 * self.level):
            self.skip(what, f"{size:.1g} +- {unsure:.1g} by differences: too rough or too noisy")
            return
        allowed = uncertainty + self.truncation * abs(value).max()
        self.compare(what, claim, seen, value, allowed, components)

    def columns(self, f):
        """The `Columns` of the Jacobian of f; ends the part if it is not finite around v."""
        size = f.v.shape[-1]
        numbers = np.arange(size)
        if size > COLUMNS:
            numbers = np.sort(self.rng.choice(size, COLUMNS, replace=False))
        slopes = []
        for k in numbers:
            direction = self.xp.zeros_like(f.v)
            direction[..., k] = 1
            slopes.append(central_slope(f.value, f.v, direction))
        value, uncertainty = (np.stack(part, axis=-1) for part in zip(*slopes, strict=True))
        self.level = abs(f.value(f.v)).max() / step_scale(f.v, self.xp.ones_like(f.v))
        if not np.isfinite(uncertainty).all():
            self.add("differences", "finite", "NaN or Inf", f"NaN or Inf close to this {f.axes[0]}")
            raise _Flawed
        return Columns(numbers, value, uncertainty, size)

    def tangent(self, f, columns):
        """Tangent against differences, and the order of its Taylor remainder."""
        d = self.draw(*f.v.shape)
        seen = self.array("tangent", f.tangent(d), f.shape)
        mistakes: tuple[tuple[str, Any], ...] = ()
        if f.v.shape == f.shape and columns.complete:
            transposed = np.einsum("ij,ijk->ik", host(d), columns.value)
            mistakes = (("applies the transpose of S in place of S", transposed),)
        claim = Claim("tangent", "the derivative", f.axes[1], mistakes)
        slope = central_slope(f.value, f.v, d)
        self.compare_with_slope("tangent against differences", claim, seen, *slope)
        order = remainder_order(f.value, f.v, d, seen)
        wrong = "" if order is None or order > 1.9 else "tangent is not the first-order change"
        self.add("Taylor order", "2", "no remainder" if order is None else f"{order:.2f}", wrong)

    def adjoint(self, f, columns):
        """Adjoint against the transpose of the differences, every component by itself."""
        name, w = f.adjoint_name, self.draw(*f.shape)
        seen = self.array(name, f.adjoint(w), f.v.shape)[..., columns.numbers]
        expected = np.einsum(f.contraction, host(w), columns.value)
        unsure = np.einsum(f.contraction, abs(host(w)), columns.uncertainty)
        mistakes: tuple[tuple[str, Any], ...]
        mistakes = ((REVERSED.format(f.axes[0]), expected[..., ::-1]),)
        if f.v.shape == f.shape and columns.complete:
            applied = np.einsum("ik,ijk->ij", host(w), columns.value)
            mistakes += (("applies S in place of its transpose", applied),)
        claim = Claim(name, "the transpose of the derivative", f.axes[0], mistakes)
        what = f"{name} against differences{columns.share}"
        self.compare_with_slope(what, claim, seen, expected, unsure, columns.numbers)

    def dot(self, f):
        """Adjoint against tangent: <w, A d> and <A^T w, d>."""
        pairs = []
        for _ in range(PAIRS):
            d, w = self.draw(*f.v.shape), self.draw(*f.shape)
            pairs.append(_products(d, f.tangent(d), w, f.adjoint(w)))
        expected, seen, scale = np.array(pairs).T
        claim = Claim(f.adjoint_name, "the transpose of the tangent", "")
        self.compare(f"dot test, {PAIRS} pairs", claim, seen, expected, self.rounding * scale)

    def float32(self, found, d, w):
        """One row for the outputs of float32 inputs: method -> (array, shape).

        The second is the tangent along d, the third the adjoint of w; they are put to a dot test.
        """
        flaws = {name: flaw(array, shape, np.float32) for name, (array, shape) in found.items()}
        wrong = "; ".join(f"{name} {text}" for name, text in flaws.items() if text)
        if not wrong:
            (tangent, (along, _)), (adjoint, (back, _)) = list(found.items())[1:3]
            forward, backward, scale = _products(d, along, w, back)
            close = abs(forward - backward) <= scale * 1e5 * np.finfo(np.float32).eps
            wrong = "" if close else f"{adjoint} is not the transpose of {tangent} in float32"
        self.add("float32 in", "float32 out", "-" if wrong else "float32 out", wrong)

    def unchanged(self):
        """One row: no method may have written into its arguments."""
        methods = ", ".join(sorted(self.changed))
        wrong = f"{methods} changes the arrays it is given" if methods else ""
        self.add("arguments after the calls", "unchanged", methods or "unchanged", wrong)


def host(array):
    """A float64 copy on the host."""
    return np.array(to_host(array), dtype=np.float64)


def _products(d, along, w, back):
    """<w, A d> and <A^T w, d>, and the size of what is summed up in them."""
    d, along, w, back = map(host, (d, along, w, back))
    return (w * along).sum(), (back * d).sum(), np.linalg.norm(w) * np.linalg.norm(along)
