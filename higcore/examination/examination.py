"""Rows of a `CheckReport`: what is compared, how far it may be off, what else may be wrong."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any

import numpy as np

from ..backend import to_host
from ..validation import check_count
from .diagnosis import diagnose, flaw
from .differences import CANCELLING, Estimate, max_norms
from .report import CheckReport, Finding

HEAVIEST = 1e30  # cotangent, or it would overflow


class _EndOfPart(Exception):
    """Ends a part of an examination; its row is in the table already."""


class Examination:
    """A `CheckReport` in the making, on arrays of one dtype and one array module.

    ``given`` is the solver or network, and ``changing`` the names of its methods that write into
    their arguments. ``jacobian`` is the `NumericalJacobian`, once there is one, and ``units`` (n,)
    are what derivatives of the outputs are measured in.
    """

    def __init__(self, what, given, xp, dtype, seed):
        self.report = CheckReport(f"check_{what}: {type(given).__name__}")
        self.given, self.changing = given, set()
        self.xp, self.dtype, self.rng = xp, np.dtype(dtype), np.random.default_rng(seed)
        eps = float(np.finfo(dtype).eps)
        self.rounding, self.truncation = 1e5 * eps, 100 * eps ** (2 / 3)  # relative errors
        self.jacobian: Any = None
        self.units = np.ones(1)

    def call(self, name, *arguments):
        """Call the method of this name with copies, and see whether it leaves them alone."""
        copies = [a.copy() if hasattr(a, "dtype") else a for a in arguments]
        result = getattr(self.given, name)(*copies)
        if any(map(_differ, arguments, copies)):
            self.changing.add(name)
        return result

    def draw(self, *shape):
        """Normal random numbers."""
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

    def require(self, what, expected, seen, wrong=""):
        """Add a row; if it fails, the part that asks for it ends here."""
        self.add(what, expected, seen, wrong)
        if wrong:
            raise _EndOfPart

    def skip(self, what, why):
        """Add a row for what cannot be checked."""
        self.report.rows.append(Finding(what, "-", "-", f"skipped: {why}", None))

    def lacks(self, method, what, why="no {} is given; it is optional"):
        """True if there is no such method, and a row says so."""
        missing = not hasattr(self.given, method)
        if missing:
            self.skip(what, why.format(method))
        return missing

    @contextmanager
    def part(self, what):
        """Let an exception of the user's code fail a row, and end this part alone."""
        try:
            with np.errstate(all="ignore"):  # what is not finite is met by `array`
                yield
        except _EndOfPart:
            pass
        except Exception as error:
            name, text = type(error).__name__, " ".join(str(error).split())
            self.add(what, "no exception", name, f"raised {name}: {text}")

    def sizes(self, *names):
        """Return the sizes that a solver or network must have, or None if one is amiss."""
        with self.part("sizes"):
            found = [getattr(self.given, name) for name in names]
            for name, size in zip(names, found, strict=True):
                check_count(name, size)
            self.add("sizes", "counts", ", ".join(map("{} {}".format, names, found)))
            return found
        return None

    def array(self, what, array, shape):
        """Return an array of the user's on the host; require shape, dtype and that it is finite."""
        wrong = flaw(array, shape, self.dtype)
        seen = f"{array.shape} {array.dtype}" if hasattr(array, "dtype") else type(array).__name__
        self.require(what, f"{shape} {self.dtype}", seen, wrong and f"{what} {wrong}")
        return host(array)

    def compare(self, what, claim, seen, expected, scale=None):
        """Add a row that says whether two arrays agree up to rounding.

        ``claim`` is a `Claim`, or the sentence to be shown if they do not. Errors are relative to
        ``scale``, by default the largest entry of all.
        """
        self._compare(what, claim, seen, Estimate(expected, np.zeros(1)), self.rounding, scale)

    def compare_values(self, what, claim, seen, expected):
        """`compare` what comes out (b, n), every output in its units.

        A small one may come of large numbers that cancel, so the largest of all counts a little.
        """
        scale = np.maximum(max_norms(expected), CANCELLING * abs(expected).max())
        self.compare(what, claim, seen, expected, np.where(scale > 0, scale, 1.0))

    def compare_results(self, what, compiled, plain):
        """Add a row that says whether compiled methods return what they do as plain Python."""
        errors = {}
        for name, (array, _) in plain.items():
            expected = host(array)
            error = np.max(abs(host(compiled[name][0]) - expected), initial=0.0)
            errors[name] = error / (np.max(abs(expected), initial=0.0) or 1.0)
        off = [name for name, error in errors.items() if not error <= self.rounding]
        worst = max(errors.values(), key=lambda error: np.nan_to_num(error, nan=np.inf))
        wrong = f"{', '.join(off)} of compiled kernels differ from their source run as plain Python"
        self.add(what, f"error < {self.rounding:.0e}", f"{worst:.0e}", off and wrong)

    def compare_with_differences(self, what, claim, seen, expected, scale=None):
        """`compare` with an `Estimate`, unless differences say nothing of any output."""
        J, error = self.jacobian, abs(seen - expected.value)
        if J.unresolved.all() and (J.noisy.all() or (error <= expected.uncertainty).all()):
            self.skip(what, J.why_unresolved())
        else:
            self._compare(what, claim, seen, expected, self.truncation, scale)

    def compare_columns(self, name, claim, seen, expected, scale=None):
        """`compare_with_differences` what has an entry for every column of the Jacobian."""
        J, text = self.jacobian, f"has the components of {claim.axis} in reverse order"
        mistakes = [(text, expected.value[..., ::-1]), *claim.mistakes]
        claim = claim._replace(mistakes=mistakes, numbers=J.numbers)
        what = f"{name} against differences{J.share}"
        self.compare_with_differences(what, claim, seen[..., J.numbers], expected, scale)

    def _compare(self, what, claim, seen, estimate, relative, scale):
        expected, uncertainty = estimate
        if seen.shape != expected.shape:
            wrong = f"{what}: shape {seen.shape} in place of {expected.shape}"
            self.add(what, f"{expected.shape}", f"{seen.shape}", wrong)
            return
        scale = (abs(expected).max() or 1.0) if scale is None else scale
        scale = np.broadcast_to(scale, expected.shape)
        allowed = uncertainty + relative * scale
        wrong = diagnose(claim, seen, expected, allowed, scale)
        bound, worst = (allowed / scale).max(), (abs(seen - expected) / scale).max()
        self.add(what, f"error < {bound:.0e}", f"{worst:.0e}" if worst else "0", wrong)


def host(array):
    """A float64 copy on the host."""
    return np.array(to_host(array), dtype=np.float64)


def _differ(argument, copy):
    """True if an array was written into; NaN is as good as NaN."""
    return argument is not copy and to_host(argument).tobytes() != to_host(copy).tobytes()
