"""A loss as a function of y: its value, the gradient against it, the curvature against that."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from ..losses import curvature_of
from .diagnosis import Claim
from .differences import Estimate, NumericalJacobian, difference_columns, max_norms
from .examination import COLUMNS, EndOfPart, Examination, host

OFF = 1.5  # factor that a curvature may be off: a forgotten 2 is more
FLAT = 1e-12  # of the largest curvature: what counts for none


class SampleLoss(Examination):
    """l(y, target) of every sample, at points y (b, |y|) and target.

    Differences are along every component of y in its ``own`` units, the largest of its values.
    """

    y: Any
    target: Any
    own: Any

    def at(self, y, target):
        self.y, self.target = y, target
        largest = max_norms(host(y))
        self.own = np.where(largest > 0, largest, 1.0)
        self.numbers = np.arange(y.shape[1])
        if len(self.numbers) > COLUMNS:
            self.numbers = np.sort(self.rng.choice(y.shape[1], COLUMNS, replace=False))
        drawn = len(self.numbers) < y.shape[1]
        self.share = f", {COLUMNS} of {y.shape[1]} components" if drawn else ""
        return self

    def examine(self):
        """Add all rows to the table."""
        value = self.run("value", self.check_each, "value", (len(self.y),))
        gradient = self.run("gradient", self.check_each, "gradient", self.y.shape)
        if value is not None and gradient is not None:
            self.run("differences", self.check_gradient, gradient)
        if gradient is not None:
            self.run("curvature", self.check_curvature)
        if self.dtype == np.float64:
            self.check_single_precision()
        self.check_arguments()

    def of(self, name, y, samples=slice(None)):
        return self.call(name, y[samples], self.target[samples])

    def check_each(self, name, shape):
        """What a method returns; of a sample alone, and once more, it must be the same."""
        found = self.array(name, self.of(name, self.y), shape)
        b = len(found)
        table = found.reshape(b, -1)
        again = host(self.of(name, self.y)).reshape(b, -1)
        claim = f"{name} is something else for the same y and target the second time"
        self.compare_values(f"{name}, again", claim, again, table)
        what = f"{name}, each sample alone"
        if b == 1:
            self.skip(what, "it takes two samples")
            return found
        each = [host(self.of(name, self.y, slice(i, i + 1))) for i in range(b)]
        alone = np.concatenate(each).reshape(b, -1)
        self.compare_values(what, self._mixing(name, table, alone), alone, table)
        return found

    def _mixing(self, name, together, alone):
        """What is wrong if samples in a batch are not what they are alone."""
        b, limit = len(together), self.rounding * abs(alone).max()
        if (abs(b * together - alone) <= limit).all():
            return f"{name} is divided by the {b} samples of the batch, which Problem does itself"
        return f"{name} of a sample depends on what else is in the batch"

    def columns(self, name):
        """Differences of a method of y, an `Estimate` (b, n, k), and their rounding (n,)."""
        own = self.xp.asarray(self.own.astype(self.dtype))

        def function(y):
            return host(self.of(name, y * own)).reshape(len(y), -1)

        columns, rounding = difference_columns(function, self.y / own, self.numbers)
        if not np.isfinite(columns.uncertainty).all():
            self.add("differences", "finite", "NaN or Inf", "NaN or Inf close to this y")
            raise EndOfPart
        return columns, rounding

    def check_gradient(self, gradient):
        """Gradient against differences of value, every component of y in units of its own."""
        columns, rounding = self.columns("value")  # (b, 1, k)
        columns = Estimate(*(part.swapaxes(1, 2) for part in columns))
        J = NumericalJacobian([0], 1, columns, rounding.repeat(len(self.numbers)), self.truncation)
        self.jacobian, own = J, self.own[self.numbers]
        self.skip_unresolved("y", self.numbers)
        expected = Estimate(*(part[:, :, 0] / own for part in J.columns))
        claim = Claim("gradient", "the derivative of value", "y", numbers=self.numbers)
        seen = gradient[:, self.numbers] * ~J.noisy
        what = f"gradient against differences of value{self.share}"
        self.compare(what, claim, seen, expected, J.units / own)

    def check_curvature(self):
        """Curvature against differences of gradient, which are taken in units of it."""
        said = curvature_of(self.given, self.y.copy(), self.target.copy())
        if said is None:
            self.skip("curvature", "no curvature is given; it is optional")
            return
        (H, uncertainty), _ = self.columns("gradient")
        h = np.broadcast_to(host(self.xp.asarray(said)), self.y.shape)[:, self.numbers]
        units = h * (self.own * self.own)[self.numbers]
        roots = np.sqrt(np.maximum(units, FLAT * units.max() or FLAT))
        own = self.own[self.numbers]
        over = own[:, None] / roots[:, :, None] / roots[:, None, :]
        H, uncertainty = (part[:, self.numbers] * over for part in (H, uncertainty))
        self._judge(h, (H + H.swapaxes(1, 2)) / 2, np.linalg.norm(uncertainty, axis=(1, 2)))

    def _judge(self, h, H, slack):
        """Say whether H (b, k, k) over the curvature h (b, k) is about 1, or no more than it."""
        largest = np.linalg.eigvalsh(H)[:, -1] - slack
        bound = hasattr(self.given, "curvatures")
        name, limit = ("curvatures", 1 + self.rounding) if bound else ("curvature", OFF)
        # Sums of rows are no less than an eigenvalue, so what they call too large is.
        sizes = (abs(H).sum(axis=2) + slack[:, None]).max(axis=0)
        wrong = ""
        if largest.max() > limit:
            wrong = self._too_small(largest.max(), H[largest.argmax()].diagonal())
        elif not bound:
            wrong = self._too_large(h, sizes)
        seen, expected = f"{largest.max():.3g} of it", "a bound" if bound else "its size"
        what = f"{name} against differences of gradient{self.share}"
        self.add(what, expected, seen, wrong and f"{name} is {wrong}")

    def _too_small(self, ratio, sizes):
        """By how much, and in which component if they are not alike."""
        worst = f", worst in component {self.numbers[sizes.argmax()]} of y"
        alike = np.ptp(sizes) < sizes.max() / 2
        return f"{ratio:.3g} times too small for the derivative of gradient{'' if alike else worst}"

    def _too_large(self, h, sizes):
        """Which curvature is larger than it need be; one number is if all components say so."""
        sizes = np.where(h.max(axis=0) > 0, sizes, 1.0)
        number = np.ndim(getattr(self.given, "curvature", 0.0)) == 0
        worst = sizes.max() if number else sizes.min()
        if not worst < 1 / OFF:
            return ""
        times = f"{1 / worst:.3g} times " if worst > FLAT else ""
        where = "" if number else f" in component {self.numbers[sizes.argmin()]} of y"
        return f"{times}too large for the derivative of gradient{where}"

    def check_single_precision(self):
        """float32 arrays in, float32 arrays out, unless the loss refuses them."""
        what, b = "float32 in", len(self.y)
        single = self.at(*(array.astype(np.float32) for array in (self.y, self.target)))
        call = partial(single.of, y=single.y)
        try:
            found = {"value": (call("value"), (b,)), "gradient": (call("gradient"), self.y.shape)}
        except Exception as error:
            self.skip(what, f"it raised {type(error).__name__}")
            return
        wrong = self.flaws(found, np.float32)
        self.add(what, "float32 out", "-" if wrong else "float32 out", wrong)
