"""What a solver and a network have in common, and how it is examined: one course for both."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np

from ..backend import to_host
from ..kernels import uncompiled
from .diagnosis import Claim, advice
from .differences import (
    Estimate,
    NumericalJacobian,
    central_difference,
    difference_columns,
    remainder_order,
    step_scale,
)
from .examination import COLUMNS, EndOfPart, Examination, host

PAIRS = 3  # of the dot test: one would not tell a factor from anything else


class Differentiable(Examination):
    """v -> (b, n), with tangent and adjoint: a solver of its control, or a network of theta.

    Examined at ``v``, and at ``x`` for all else that it depends on. ``name`` and ``pullback``
    are the methods behind ``function`` and ``adjoint``, ``axes`` the letters of v and of what comes
    out. ``contraction`` is how cotangents (b, n) meet the columns (b, n, |v|) of the Jacobian:
    sample by sample, or summed over samples. ``vacuous`` says why a dot test would prove nothing,
    "" if it does. ``y`` is the value at v, once it is known.
    """

    function: Callable
    tangent: Callable
    adjoint: Callable
    check_jacobian: Callable
    axes: tuple[str, str]
    name = arguments = contraction = ""
    pullback = adjoint_name = "backward"
    tangent_name, vacuous = "tangent", ""
    x: Any
    v: Any
    shape: tuple[int, int]
    y: Any = None

    @property
    def width(self):
        """Number of outputs."""
        return int(self.given.output_size)

    def at(self, x, v):
        """This examination, with the same table, at other arrays."""
        other = copy.copy(self)
        other.x, other.v, other.shape = x, v, (len(x), self.width)
        vars(other).pop("tape", None)  # of a network, made here
        return other

    def value(self, v):
        return host(self.function(v))

    def results(self, w):
        """What the methods return for cotangents and along v itself, with the shapes expected."""
        found = {self.name: (self.function(self.v), self.shape)}
        if self.has_tangent:
            found["tangent"] = self.tangent(self.v), self.shape
        return found | {self.pullback: (self.adjoint(w), self.v.shape)}

    def examine(self):
        """Add all rows to the table."""
        again = f"{self.name}, again"
        self.y = self.run(self.name, self.check_value)
        if self.y is None:
            self.skip("everything else", f"it takes a {self.name} that works")
        else:
            self.run("differences", self.check_derivatives)
            self.run("dot test", self.check_dot_products)
            self.run("forward and backward", self.check_backward)
            self.run(again, self.check_repetition, again)
            self.check_kernels()
            if self.dtype == np.float64:
                self.check_single_precision()
        self.check_arguments()

    def check_value(self):
        name, one = self.name, [slice(i, i + 1) for i in range(len(self.x))]
        y = self.array(name, self.function(self.v), self.shape)
        each = np.concatenate([host(self.function(self.v, i)) for i in one])
        claim = f"{name} of a sample depends on what else is in the batch"
        self.compare_values(f"{name}, each sample alone", claim, each, y)
        return y

    def check_derivatives(self):
        self.take_differences()
        self.run("tangent", self.check_tangent)
        self.run(self.pullback, self.check_adjoint)
        self.check_jacobian()

    def take_differences(self):
        """The Jacobian by differences; which outputs it cannot judge, if it is not all of them."""
        total, (v_letter, y_letter) = self.v.shape[-1], self.axes
        numbers = np.arange(total)
        if total > COLUMNS:
            numbers = np.sort(self.rng.choice(total, COLUMNS, replace=False))
        columns, rounding = difference_columns(self.value, self.v, numbers)
        if not np.isfinite(columns.uncertainty).all():
            wrong = f"NaN or Inf close to this {v_letter}"
            self.add("differences", "finite", "NaN or Inf", wrong)
            raise EndOfPart
        J = NumericalJacobian(numbers, total, columns, rounding, self.truncation)
        self.jacobian, self.units = J, J.units
        self.skip_unresolved(y_letter, np.arange(self.shape[1]))

    def swapped(self, text, subscripts, *weights):
        """The mistake of taking S for its transpose, or this for S, where it can be made."""
        columns = self.jacobian.columns.value
        square = self.v.shape == self.shape and self.jacobian.complete
        return [(text, np.einsum(subscripts, *weights, columns))] if square else []

    def check_tangent(self):
        """Tangent against differences, and the order of its Taylor remainder."""
        name, d, J = self.tangent_name, self.draw(*self.v.shape), self.jacobian
        what = f"{name} against differences"
        if self.lacks("tangent", what):
            return
        seen = self.array(name, self.tangent(d), self.shape)
        slope, _ = central_difference(self.value, self.v, d)
        length = float(abs(d).max())
        mistakes = self.swapped("applies the transpose of S in place of S", "ij,ijk->ik", host(d))
        claim = Claim(name, "the derivative", self.axes[1], mistakes)
        expected = Estimate(slope.value, np.maximum(slope.uncertainty, length * J.noise))
        expected, scale = expected.where(~J.noisy), self.per_output(slope.value, length)
        self.compare(what, claim, seen * ~J.noisy, expected, scale)
        self.check_taylor_order(d, seen)

    def check_taylor_order(self, d, slope):
        """The order of the Taylor remainder along d."""
        J, step = self.jacobian, float(np.finfo(self.dtype).eps) ** (1 / 3)
        noise = step * step_scale(self.v, self.xp.ones_like(self.v)) * J.noise / J.units
        order = remainder_order(
            lambda v: self.value(v) / J.units, self.v, d, slope / J.units, noise
        )
        wrong = "" if order is None or order > 1.9 else "is not the first-order change"
        seen = "no remainder" if order is None else f"{order:.2f}"
        self.add("Taylor order", "2", seen, wrong and f"{self.tangent_name} {wrong}")

    def check_adjoint(self):
        """Adjoint against the transpose of the differences, every component by itself."""
        name, J = self.adjoint_name, self.jacobian
        w = self.draw_cotangents(*self.shape) * self.xp.asarray(~J.noisy)
        seen = self.array(name, self.adjoint(w), self.v.shape)
        mistakes = self.swapped("applies S in place of its transpose", "ik,ijk->ij", host(w))
        claim = Claim(name, "the transpose of the derivative", self.axes[0], mistakes)
        self.compare_columns(name, claim, seen, J.columns.einsum(self.contraction, host(w)))

    def check_dot_products(self):
        """Adjoint against tangent: <w, A d> and <A^T w, d>."""
        what = f"dot test, {PAIRS} pairs"
        if self.vacuous or not self.has_tangent:
            self.skip(what, self.vacuous or "it takes a tangent")
            return
        pairs = []
        for _ in range(PAIRS):
            d, w = self.draw(*self.v.shape), self.draw_cotangents(*self.shape)
            pairs.append(_dot_products(d, self.tangent(d), w, self.adjoint(w)))
        expected, seen, size = np.array(pairs).T
        claim = Claim(self.adjoint_name, "the transpose of the tangent")
        self.compare(what, claim, seen, expected, np.where(size > 0, size, 1.0))

    def check_backward(self):
        """What goes back on a tape against what goes without, if there is any of it."""

    def check_repetition(self, what):
        """The same once more: nothing may be random, or remembered."""
        y = self.axes[1]
        claim = f"{self.name} gives another {y} for the same {self.arguments} the second time"
        self.compare_values(what, claim, self.value(self.v), self.y)

    def check_kernels(self):
        """Compiled kernels against the plain Python that defines them, on the first sample."""
        x, v, w = map(to_host, (self.x, self.v, self.draw_cotangents(1, self.shape[1])))
        one, what = self.at(x[:1], v[:1] if v.ndim == 2 else v), "compiled kernels"
        self.run(what, one.compare_with_plain_python, what, w)

    def compare_with_plain_python(self, what, w):
        compiled, limit = self.results(w), self.rounding
        try:
            with uncompiled() as met:
                plain = self.results(w)
        except Exception as error:
            self.skip(what, f"as plain Python, they raised {type(error).__name__}")
            return
        if met:
            errors = {name: _largest_error(compiled[name][0], plain[name][0]) for name in plain}
            off = ", ".join(name for name, error in errors.items() if not error <= limit)
            wrong = "of compiled kernels differ from their source run as plain Python"
            seen = f"{np.max(list(errors.values())):.0e}"  # NaN, if there is one
            self.add(what, f"error < {limit:.0e}", seen, off and f"{off} {wrong}")

    def check_single_precision(self):
        """float32 arrays in, float32 arrays out, unless the function refuses them."""
        what = "float32 in"
        try:
            x, v = self.x.astype(np.float32), self.v.astype(np.float32)
            single = self.at(x, v)
            single.function(v)
        except Exception as error:
            self.skip(what, f"{self.name} raised {type(error).__name__}")
            return
        w = self.draw_cotangents(*self.shape).astype(np.float32)
        self.run(what, single.check_results_in_float32, what, w)

    def check_results_in_float32(self, what, w):
        """The dtypes of what the methods return, and whether they are transposes of each other."""
        found = self.results(w)
        wrong = self.flaws(found, np.float32)
        wrong += max(advice(array, np.float32) for array, _ in found.values())  # once, if any
        if self.has_tangent and not wrong:
            along, back = found["tangent"][0], found[self.pullback][0]
            forward, backward, size = _dot_products(self.v, along, w, back)
            if abs(forward - backward) > size * 1e5 * np.finfo(np.float32).eps:
                wrong = f"{self.pullback} is not the transpose of tangent in float32"
        self.add(what, "float32 out", "-" if wrong else "float32 out", wrong)


def _dot_products(d, along, w, back):
    """<w, A d> and <A^T w, d>, and the size of what is summed up in them."""
    d, along, w, back = map(host, (d, along, w, back))
    return (w * along).sum(), (back * d).sum(), abs(w * along).sum()


def _largest_error(seen, expected):
    """Relative to the largest entry."""
    expected = host(expected)
    error = np.max(abs(host(seen) - expected), initial=0.0)
    return error / (np.max(abs(expected), initial=0.0) or 1.0)
