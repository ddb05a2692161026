"""Derivatives by differences, with what they can be trusted for: the judge of hand-written ones.

A function is smooth at most points and may have kinks (ReLU, abs, limiters) at some. Halving the
step h divides the second difference f(v + h d) - 2 f(v) + f(v - h d) by four where f is smooth, and
by two at a kink; entry by entry, that tells which differences mean a derivative.

Functions give (b, n). Each of the n outputs may be in units of its own: what is said of rounding
and noise is said output by output.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.linalg import norm

from ..backend import module_of

SMOOTH = 0.27  # largest ratio of second differences, 1/4 but for higher orders; order 1.9
ROUNDING = 10  # rounding error of values, in units of eps times the largest of an output
REMAINDERS = 1e-3, 5  # first step, in units of v, and how often it is halved
UNRESOLVED = 0.05  # relative uncertainty from which differences are no judge
CANCELLING = 1e-3  # of the largest output or unit: what small numbers made of large ones count


class Estimate(NamedTuple):
    """An array known by differences, and how far off each of its entries may be."""

    value: np.ndarray
    uncertainty: np.ndarray

    def einsum(self, subscripts, weights):
        """The Einstein sum of weights with this array."""
        parts = (weights, self.value), (abs(weights), self.uncertainty)
        return Estimate(*(np.einsum(subscripts, *part) for part in parts))

    def where(self, mask):
        """This array, and 0 outside of a mask."""
        return Estimate(self.value * mask, self.uncertainty * mask)


def central_difference(function, v, direction):
    """Return an `Estimate` (b, n) of the directional derivative, and the rounding (n,) in it.

    Central differences with steps h and h/2: their difference bounds the truncation error, and
    noise, such as of an inner iteration, where it is not small by chance. At a kink every value
    between the one-sided slopes is allowed.
    """
    eps = float(np.finfo(v.dtype).eps)
    h = eps ** (1 / 3) * step_scale(v, direction)
    middle = function(v)
    coarse, bend = _both_sides(function, v, direction, h, middle)
    fine, half_bend = _both_sides(function, v, direction, h / 2, middle)
    rounding = ROUNDING * eps * np.maximum(max_norms(middle), h * max_norms(fine))
    kinked = abs(half_bend) > SMOOTH * abs(bend) + rounding
    uncertainty = 2 * abs(fine - coarse) + 2 * rounding / h
    uncertainty += np.where(kinked, abs(half_bend) / (h / 2), 0)
    return Estimate(fine, uncertainty), 2 * rounding / h


def difference_columns(function, v, numbers):
    """Columns of the Jacobian, an `Estimate` (b, n, k), and the rounding (n,) in them."""
    columns, rounding = [], 0.0
    for k in numbers:
        direction = module_of(v).zeros_like(v)
        direction[..., k] = 1
        column, noise = central_difference(function, v, direction)
        columns.append(column)
        rounding = np.maximum(rounding, noise)
    return Estimate(*(np.stack(part, axis=-1) for part in zip(*columns, strict=True))), rounding


def max_norms(values):
    """Maximum norm of each output (n,), over samples and what comes after the outputs."""
    return abs(values).max(axis=(0, *range(2, values.ndim)))


def step_scale(v, direction):
    """Length of a step of one unit of v along the direction."""
    size = math.sqrt(float((v * v).mean())) or 1.0
    return size / (float(abs(direction).max()) or 1.0)


def remainder_order(function, v, direction, slope, noise):
    """Return the order with which f(v + h d) - f(v) - h slope vanishes, or None.

    2 or more if ``slope`` is the derivative along d, 1 if it is not. None if no remainder stands
    out from rounding, as for a linear function, or if f has kinks everywhere. Of the halvings, the
    last counts at which the remainder is well above the second difference at the smallest step.
    Each output has at least this ``noise``, and all of them should be in like units.
    """
    step, halvings = REMAINDERS
    middle, first = function(v), step * step_scale(v, direction)
    remainders, bends = [], []
    for k in range(halvings + 1):
        h = first / 2**k
        central, bend = _both_sides(function, v, direction, h, middle)
        remainders.append(h * (central - slope) + bend / 2)
        bends.append(abs(bend))
    size = np.maximum(max_norms(middle), first * max_norms(slope))
    noise = np.maximum(noise, ROUNDING * float(np.finfo(v.dtype).eps) * size)
    smooth = np.all([half <= SMOOTH * whole + noise for whole, half in pairwise(bends)], axis=0)
    floor = 3 * norm(bends[-1][smooth]) + math.sqrt(len(middle)) * norm(noise)
    sizes = [norm(remainder[smooth]) for remainder in remainders]
    orders = [math.log2(whole / half) for whole, half in pairwise(sizes) if half > floor]
    return orders[-1] if orders else None


def _both_sides(function, v, direction, h, middle):
    """Central and second difference."""
    plus, minus = function(v + h * direction), function(v - h * direction)
    return (plus - minus) / (2 * h), (plus - middle) + (minus - middle)


class NumericalJacobian:
    """Columns (b, n, k) of a Jacobian by differences, and what they are good for, output by output.

    ``numbers`` are those of the columns among ``total``, ``rounding`` (n,) is what rounding alone
    adds to their uncertainty, ``truncation`` the relative error that is always allowed.

    Attributes
    ----------
    columns : Estimate
        None is surer than is typical of its output: noise may be small by chance.
    noise : array (n,)
        How uncertain a derivative of each output is, by the median of those that are not zero.
    unresolved, noisy : array of bool (n,)
        Outputs of whose derivatives the differences do not tell enough, and those of them that it
        is not rounding that hides: their differences mean nothing, and are 0 here.
    units : array (n,)
        A derivative of each output that counts as one: the largest, or as far as known. An output
        counts as little as differences know of it, and so never hides another one. One without a
        derivative to be seen may still have the rounding of what cancels.
    """

    def __init__(self, numbers, total, differences, rounding, truncation):
        value, uncertainty = differences
        self.numbers, self.complete = numbers, len(numbers) == total
        self.share = "" if self.complete else f", {len(numbers)} of {total} columns"
        active = (value != 0) | (uncertainty > rounding[:, None])
        active |= ~active.any(axis=(0, 2), keepdims=True)
        self.noise = np.nanmedian(np.where(active, uncertainty, np.nan), axis=(0, 2))
        self.peak = max_norms(value)
        self.unresolved = self.noise > UNRESOLVED * self.peak
        self.noisy = self.unresolved & (self.noise > 2 * rounding)
        columns = Estimate(value, np.maximum(uncertainty, self.noise[:, None]))
        self.columns = columns.where(~self.noisy[:, None])
        units = np.maximum(self.peak, self.noise / truncation)
        unseen, least = self.unresolved | (self.peak == 0), CANCELLING * (units.max() or 1.0)
        self.units = np.where(unseen, np.maximum(units, least), units)

    def why_unresolved(self):
        """Why outputs cannot be judged: what the first of them is like."""
        j = self.unresolved.argmax()
        why = "too rough or too noisy" if self.noisy[j] else "hidden by the rounding of its values"
        return f"{self.peak[j]:.1g} +- {self.noise[j]:.1g} by differences: {why}"
