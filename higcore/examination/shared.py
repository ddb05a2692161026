"""What the examinations of a solver and of a network share."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..backend import to_host
from ..validation import check_count
from .columns import CANCELLING, Columns
from .diagnosis import CheckReport, Claim, Finding, diagnose, flaw
from .differences import central_slope, largest, remainder_order, step_scale

COLUMNS = 512  # columns of a Jacobian taken by differences; drawn, if there are more
HEAVIEST = 1e30  # cotangent, or it would overflow
PAIRS = 3  # of the dot test: one would not tell a factor from anything else
NOT_GIVEN = "no {} is given; it is optional"
REVERSED = "has the components of {} in reverse order"


class _Flawed(Exception):
    """Ends a part of an examination; its row is in the table already."""


@dataclass
class Differentiable:
    """v -> (b, n) with tangent and adjoint: a solver of its control, or a network of theta.

    ``contraction`` is how cotangents (b, n) meet the columns (b, n, |v|) of the Jacobian: sample
    by sample, or summed over samples. ``axes`` names v and what comes out. ``tangent`` is None if
    there is none; ``vacuous`` says why a dot test would prove nothing, "" if it does.
    """

    function: Callable
    tangent: Callable | None
    adjoint: Callable
    v: Any
    shape: tuple
    contraction: str
    axes: tuple
    tangent_name: str = "tangent"
    adjoint_name: str = "adjoint"
    vacuous: str = ""

    def value(self, v):
        """The function on the host."""
        return host(self.function(v))


class Examination:
    """A `CheckReport` in the making, on arrays of one dtype and one array module.

    ``units`` (n,) are what derivatives of the outputs are measured in, from `columns` on.
    """

    def __init__(self, title, xp, dtype, seed):
        self.report = CheckReport(title)
        self.xp, self.dtype, self.rng = xp, np.dtype(dtype), np.random.default_rng(seed)
        eps = float(np.finfo(dtype).eps)
        self.rounding, self.truncation = 1e5 * eps, 100 * eps ** (2 / 3)  # relative errors
        self.changed = set()
        self.units = np.ones(1)

    def draw(self, *shape):
        """Normal random numbers."""
        return self.xp.asarray(self.rng.standard_normal(shape).astype(self.dtype))

    def cotangents(self, *shape):
        """Normal random numbers (..., n), each in one over the units of its output.

        So every output counts alike in what is pulled back, in whatever units it is.
        """
        return self.draw(*shape) * self.xp.asarray(self.weights.astype(self.dtype))

    @property
    def weights(self):
        """1 for the outputs of the largest units, and more for the others."""
        return np.minimum(self.units.max() / self.units, HEAVIEST)

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
            if hasattr(original, "dtype") and not _same(original, copy):
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
        each = np.concatenate([host(function(slice(i, i + 1))) for i in range(len(together))])
        claim = f"{name} of a sample depends on what else is in the batch"
        self.compare_values(f"{name}, each sample alone", claim, each, together)

    def compare_values(self, what, claim, seen, expected):
        """`compare` what comes out (b, n), every output in its units.

        A small one may come of large numbers that cancel, so the largest of all counts a little.
        """
        scale = np.maximum(largest(expected), CANCELLING * abs(expected).max())
        self.compare(what, claim, seen, expected, np.where(scale > 0, scale, 1.0))

    def compare(self, what, claim, seen, expected, scale=None, unsure=None, components=None):
        """Add a row that says whether two arrays agree, up to rounding or as ``unsure`` allows.

        ``claim`` is a `Claim`, or the sentence to be shown if they do not. Errors are relative to
        ``scale``, by default the largest entry of all.
        """
        if seen.shape != expected.shape:
            wrong = f"{what}: shape {seen.shape} in place of {expected.shape}"
            self.add(what, f"{expected.shape}", f"{seen.shape}", wrong)
            return
        scale = (abs(expected).max() or 1.0) if scale is None else scale
        scale = np.broadcast_to(scale, expected.shape)
        rounding = self.rounding * scale
        allowed = rounding if unsure is None else unsure + self.truncation * scale
        error = abs(seen - expected)
        if isinstance(claim, str):
            wrong = "" if (error <= allowed).all() else claim
        else:
            wrong = diagnose(claim, seen, expected, allowed, scale, components)
        bound, worst = (allowed / scale).max(), (error / scale).max()
        self.add(what, f"error < {bound:.0e}", f"{worst:.0e}" if worst else "0", wrong)

    def judge(self, what, claim, columns, seen, value, unsure, scale=None, components=None):
        """`compare` with a derivative by differences, unless these say nothing of any output."""
        doubt = columns.doubt(columns.untold) if columns.untold.all() else ""
        if doubt and (columns.rough.all() or (abs(seen - value) <= unsure).all()):
            self.skip(what, doubt)
            return
        self.compare(what, claim, seen, value, scale, unsure, components)

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
        value, uncertainty, rounding = (
            np.stack(part, axis=-1) for part in zip(*slopes, strict=True)
        )
        if not np.isfinite(uncertainty).all():
            self.add("differences", "finite", "NaN or Inf", f"NaN or Inf close to this {f.axes[0]}")
            raise _Flawed
        columns = Columns(numbers, value, uncertainty, rounding.max(axis=-1), self.truncation, size)
        columns.spread_noise()
        self.units = columns.units
        self._name_untold(columns, f.axes[1])
        return columns

    def _name_untold(self, columns, axis):
        """Say which outputs differences cannot judge, if it is not all of them."""
        untold = columns.untold
        if untold.any() and not untold.all():
            which = untold.nonzero()[0]
            span = str(which[0]) if len(which) == 1 else f"{which[0]} to {which[-1]}"
            what = f"{len(which)} of {len(untold)} components of {axis}, {span}"
            self.skip(what, columns.doubt(untold))

    def tangent(self, f, columns):
        """Tangent against differences, and the order of its Taylor remainder."""
        name, d = f.tangent_name, self.draw(*f.v.shape)
        what = f"{name} against differences"
        if f.tangent is None:
            self.skip(what, NOT_GIVEN.format("tangent"))
            return
        seen = self.array(name, f.tangent(d), f.shape)
        mistakes: tuple[tuple[str, Any], ...] = ()
        if f.v.shape == f.shape and columns.complete:
            transposed = np.einsum("ij,ijk->ik", host(d), columns.value)
            mistakes = (("applies the transpose of S in place of S", transposed),)
        claim = Claim(name, "the derivative", f.axes[1], mistakes)
        slope, length = central_slope(f.value, f.v, d), float(abs(d).max())
        unsure = np.maximum(slope.uncertainty, length * columns.unsure)
        scale = np.maximum(largest(slope.value), length * columns.units)
        judged = np.where(columns.rough, slope.value, seen)
        self.judge(what, claim, columns, judged, slope.value, unsure, scale)
        self.taylor(f, columns, d, seen)

    def taylor(self, f, columns, d, slope):
        """The order of the Taylor remainder along d."""
        step = float(np.finfo(self.dtype).eps) ** (1 / 3) * step_scale(f.v, self.xp.ones_like(f.v))
        order = remainder_order(
            lambda v: f.value(v) / columns.units,
            f.v, d, slope / columns.units, step * columns.unsure / columns.units,
        )  # fmt: skip
        wrong = f"{f.tangent_name} is not the first-order change"
        seen = "no remainder" if order is None else f"{order:.2f}"
        self.add("Taylor order", "2", seen, "" if order is None or order > 1.9 else wrong)

    def adjoint(self, f, columns):
        """Adjoint against the transpose of the differences, every component by itself."""
        name = f.adjoint_name
        w = self.cotangents(*f.shape) * self.xp.asarray(~columns.rough)
        seen = self.array(name, f.adjoint(w), f.v.shape)[..., columns.numbers]
        expected = np.einsum(f.contraction, host(w), columns.value)
        unsure = np.einsum(f.contraction, abs(host(w)), columns.uncertainty)
        mistakes: tuple[tuple[str, Any], ...]
        mistakes = ((REVERSED.format(f.axes[0]), expected[..., ::-1]),)
        if f.v.shape == f.shape and columns.complete:
            applied = np.einsum("ik,ijk->ij", host(w), columns.value)
            mistakes += (("applies S in place of its transpose", applied),)
        claim = Claim(name, "the transpose of the derivative", f.axes[0], mistakes)
        what, numbers = f"{name} against differences{columns.share}", columns.numbers
        self.judge(what, claim, columns, seen, expected, unsure, components=numbers)

    def dot(self, f):
        """Adjoint against tangent: <w, A d> and <A^T w, d>."""
        what = f"dot test, {PAIRS} pairs"
        if f.tangent is None or f.vacuous:
            self.skip(what, f.vacuous or "it takes a tangent")
            return
        pairs = []
        for _ in range(PAIRS):
            d, w = self.draw(*f.v.shape), self.cotangents(*f.shape)
            pairs.append(self._products(d, f.tangent(d), w, f.adjoint(w)))
        expected, seen, size = np.array(pairs).T
        claim = Claim(f.adjoint_name, "the transpose of the tangent", "")
        self.compare(what, claim, seen, expected, np.where(size > 0, size, 1.0))

    def _products(self, d, along, w, back):
        """<w, A d> and <A^T w, d>, and the size of what is summed up in them."""
        d, along, w, back = map(host, (d, along, w, back))
        size = np.linalg.norm(w / self.weights) * np.linalg.norm(along * self.weights)
        return (w * along).sum(), (back * d).sum(), size

    def float32(self, found, d, w):
        """One row for the outputs of float32 inputs: method -> (array, shape).

        ``tangent`` along d and the adjoint, ``backward`` if there is no other, of w are put to a
        dot test.
        """
        flaws = {name: flaw(array, shape, np.float32) for name, (array, shape) in found.items()}
        wrong = "; ".join(f"{name} {text}" for name, text in flaws.items() if text)
        if not wrong and "tangent" in found:
            adjoint = "adjoint" if "adjoint" in found else "backward"
            along, back = found["tangent"][0], found[adjoint][0]
            forward, backward, size = self._products(d, along, w, back)
            close = abs(forward - backward) <= size * 1e5 * np.finfo(np.float32).eps
            wrong = "" if close else f"{adjoint} is not the transpose of tangent in float32"
        self.add("float32 in", "float32 out", "-" if wrong else "float32 out", wrong)

    def unchanged(self):
        """One row: no method may have written into its arguments."""
        methods = ", ".join(sorted(self.changed))
        wrong = f"{methods} changes the arrays it is given" if methods else ""
        self.add("arguments after the calls", "unchanged", methods or "unchanged", wrong)


def host(array):
    """A float64 copy on the host."""
    return np.array(to_host(array), dtype=np.float64)


def _same(array, other):
    """True if two arrays are equal, NaN and NaN too."""
    return bool(((array == other) | ((array != array) & (other != other))).all())
