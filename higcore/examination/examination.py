"""Rows of a `CheckReport`: what is compared, how far it may be off, what else may be wrong."""

from __future__ import annotations

from itertools import chain
from typing import Any

import numpy as np

from ..backend import array_module, to_host
from ..validation import check_array, check_count, check_same_dtype
from .diagnosis import advice, diagnose, disordered, flaw
from .differences import CANCELLING, Estimate, max_norms
from .report import CheckReport, Finding

COLUMNS = 512  # of a Jacobian taken by differences; drawn, if there are more
HEAVIEST = 1e30  # cotangent, or it would overflow


class EndOfPart(Exception):
    """Ends a part of an examination; its row is in the table already."""


class Examination:
    """A `CheckReport` in the making, in the dtype and array module of the points that are given.

    ``given`` is the solver or network, and ``changing`` the names of its methods that write into
    their arguments. ``jacobian`` is the `NumericalJacobian`, once there is one, and ``units`` (n,)
    are what derivatives of the outputs are measured in.
    """

    def __init__(self, what, given, seed, **points):
        if isinstance(given, type):
            name = given.__name__
            raise TypeError(f"{what} must be an instance, {name}(), not the class {name}")
        check_count("seed", seed, 0)
        arrays = {name: array for name, array in points.items() if array is not None}
        self.xp = array_module(**arrays)
        for name, array in arrays.items():
            check_array(name, array, ("any",) * max(1, array.ndim))
        check_same_dtype(**arrays)
        self.dtype = next((array.dtype for array in arrays.values()), np.dtype(np.float64))
        self.report = CheckReport(f"check_{what}: {type(given).__name__}")
        self.given, self.changing, self.rng = given, set(), np.random.default_rng(seed)
        self.has_tangent = hasattr(given, "tangent")
        eps = float(np.finfo(self.dtype).eps)
        self.rounding, self.truncation = 1e5 * eps, 100 * eps ** (2 / 3)  # relative errors
        self.jacobian: Any = None
        self.units = np.ones(1)

    def sizes(self, *names):
        found = [getattr(self.given, name) for name in names]
        for name, size in zip(names, found, strict=True):
            check_count(name, size)
        self.add("sizes", "counts", ", ".join(map("{} {}".format, names, found)))
        return found

    def points(self, name, array, shape):
        if array is None:
            return self.draw(*shape)
        if array.ndim == 1:
            hint = f"; one sample is {name}[None]" if len(array) == shape[1] else ""
            raise ValueError(f"{name} must have shape (b, {shape[1]}), got {array.shape}{hint}")
        check_array(name, array, shape)
        return array

    def run(self, what, check, *arguments):
        """Return check(*arguments); where it raises an exception, None, and a row that failed."""
        try:
            with np.errstate(all="ignore"):  # what is not finite is met by `array`
                return check(*arguments)
        except EndOfPart:
            pass
        except Exception as error:
            name, text = type(error).__name__, " ".join(str(error).split())
            self.add(what, "no exception", name, f"raised {name}: {text}")
        return None

    def call(self, name, *arguments):
        """Call the method of this name with copies, and see whether it leaves them alone."""
        copies = [a.copy() if hasattr(a, "dtype") else a for a in arguments]
        result = getattr(self.given, name)(*copies)
        if any(map(_differ, arguments, copies)):
            self.changing.add(name)
        return result

    def draw(self, *shape):
        return self.xp.asarray(self.rng.standard_normal(shape).astype(self.dtype))

    def draw_cotangents(self, *shape):
        """Normal random numbers (..., n), each in one over the units of its output.

        So every output counts alike in what is pulled back, in whatever units it is.
        """
        weights = np.minimum(self.units.max() / self.units, HEAVIEST)
        return self.draw(*shape) * self.xp.asarray(weights.astype(self.dtype))

    def per_output(self, derivatives, length=1.0):
        """The scale of derivatives (b, n, ...) of the outputs, along a ``length`` of v."""
        scale = np.maximum(max_norms(derivatives), length * self.units)
        return scale if derivatives.ndim == 2 else scale[:, None]

    def add(self, what, expected, seen, wrong=""):
        """Add a row; a sentence in ``wrong`` makes it one that failed."""
        self.report.rows.append(Finding(what, expected, seen, wrong or "ok", not wrong))

    def skip(self, what, why):
        """Add a row for what cannot be checked."""
        self.report.rows.append(Finding(what, "-", "-", f"skipped: {why}", None))

    def skip_unresolved(self, letter, numbers):
        """Add a row for the outputs that differences cannot judge, unless they are all or none."""
        J = self.jacobian
        which = numbers[J.unresolved]
        if 0 < len(which) < len(numbers):
            span = f"{which[0]} to {which[-1]}" if len(which) > 1 else which[0]
            what = f"{len(which)} of {len(numbers)} components of {letter}, {span}"
            self.skip(what, J.why_unresolved())

    def check_arguments(self):
        """Whether some method wrote into what it was given."""
        methods = ", ".join(sorted(self.changing))
        wrong = f"{methods} changes the arrays it is given" if methods else ""
        self.add("arguments after the calls", "unchanged", methods or "unchanged", wrong)

    def flaws(self, found, dtype):
        """What `flaw` says of arrays by name, each with the shape that is expected."""
        flaws = {name: flaw(array, shape, dtype) for name, (array, shape) in found.items()}
        return "; ".join(f"{name} {text}" for name, text in flaws.items() if text)

    def lacks(self, method, what, why="no {} is given; it is optional"):
        """True if there is no such method, and a row says so."""
        if hasattr(self.given, method):
            return False
        self.skip(what, why.format(method))
        return True

    def array(self, what, array, shape):
        """A float64 copy of the user's array on the host; without a flaw, or the part ends."""
        wrong = flaw(array, shape, self.dtype)
        seen = f"{array.shape} {array.dtype}" if hasattr(array, "dtype") else type(array).__name__
        if wrong:
            wrong = f"{what} {wrong}{advice(array, self.dtype)}"
        self.add(what, f"{shape} {self.dtype}", seen, wrong)
        if wrong:
            raise EndOfPart
        return host(array)

    def compare(self, what, claim, seen, expected, scale=None):
        """Add a row that says whether two arrays agree.

        Up to rounding; or, if an `Estimate` is expected, as far as differences say anything of any
        output. ``claim`` is a `Claim`, or the sentence to be shown if they do not. Errors are
        relative to ``scale``, by default the largest entry of all.
        """
        relative, uncertainty, J = self.rounding, np.zeros(1), None
        if isinstance(expected, Estimate):
            relative, J, (expected, uncertainty) = self.truncation, self.jacobian, expected
        if seen.shape != expected.shape:
            wrong = f"{what}: shape {seen.shape} in place of {expected.shape}"
            self.add(what, f"{expected.shape}", f"{seen.shape}", wrong)
            return
        error = abs(seen - expected)
        if J and J.unresolved.all() and (J.noisy.all() or (error <= uncertainty).all()):
            self.skip(what, J.why_unresolved())
            return
        scale = (abs(expected).max() or 1.0) if scale is None else scale
        scale = np.broadcast_to(scale, expected.shape)
        allowed = uncertainty + relative * scale
        wrong = diagnose(claim, seen, expected, allowed, scale)
        bound, worst = (allowed / scale).max(), (error / scale).max()
        self.add(what, f"error < {bound:.0e}", f"{worst:.0e}" if worst else "0", wrong)

    def compare_values(self, what, claim, seen, expected):
        """`compare` what comes out (b, n), every output in its units.

        A small one may come of large numbers that cancel, so the largest of all counts a little.
        """
        scale = np.maximum(max_norms(expected), CANCELLING * abs(expected).max())
        self.compare(what, claim, seen, expected, np.where(scale > 0, scale, 1.0))

    def compare_columns(self, name, claim, seen, expected, scale=None):
        """`compare` what has an entry for every column of the Jacobian with differences."""
        J = self.jacobian
        order = disordered(expected.value, claim.axis) if J.complete else ()
        claim = claim._replace(mistakes=chain(order, claim.mistakes), numbers=J.numbers)
        what = f"{name} against differences{J.share}"
        self.compare(what, claim, seen[..., J.numbers], expected, scale)


def host(array):
    """A float64 copy on the host."""
    return np.array(to_host(array), dtype=np.float64)


def _differ(argument, copy):
    """True if an array was written into; NaN is as good as NaN."""
    return argument is not copy and to_host(argument).tobytes() != to_host(copy).tobytes()
