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

SMOOTH = 0.27  # largest ratio of second differences, 1/4 but for higher orders; order 1.9
ROUNDING = 10  # rounding error of values, in units of eps times the largest of an output


class Slope(NamedTuple):
    """A directional derivative, how far off each of its entries may be, and by rounding alone."""

    value: np.ndarray
    uncertainty: np.ndarray
    rounding: np.ndarray


def central_slope(function, v, direction):
    """Return the `Slope` of ``function`` at v along a direction.

    Central differences with steps h and h/2: their difference bounds the truncation error, and
    noise, such as of an inner iteration, where it is not small by chance. At a kink every value
    between the one-sided slopes is allowed.
    """
    eps = float(np.finfo(v.dtype).eps)
    h = eps ** (1 / 3) * step_scale(v, direction)
    middle = function(v)
    coarse, bend = _both_sides(function, v, direction, h, middle)
    fine, half_bend = _both_sides(function, v, direction, h / 2, middle)
    rounding = ROUNDING * eps * np.maximum(largest(middle), h * largest(fine))
    change = abs(fine - coarse)
    uncertainty = 2 * change + 2 * rounding / h
    kinked = abs(half_bend) > SMOOTH * abs(bend) + rounding
    uncertainty += np.where(kinked, abs(half_bend) / (h / 2), 0)
    return Slope(fine, uncertainty, 2 * rounding / h)


def largest(values):
    """The largest of each output (n,) over samples, and over what comes after the outputs."""
    return abs(values).max(axis=(0, *range(2, values.ndim)))


def step_scale(v, direction):
    """Length of a step of one unit of v along the direction."""
    size = math.sqrt(float((v * v).mean())) or 1.0
    return size / (float(abs(direction).max()) or 1.0)


def remainder_order(function, v, direction, slope, noise=0.0, step=1e-3, halvings=5):
    """Return the order with which f(v + h d) - f(v) - h slope vanishes, or None.

    2 or more if ``slope`` is the derivative along d, 1 if it is not. None if no remainder stands
    out from rounding, as for a linear function, or if f has kinks everywhere. Of the halvings, the
    last counts at which the remainder is well above the second difference at the smallest step.
    Each output has at least this ``noise``, and all of them should be in like units.
    """
    middle, first = function(v), step * step_scale(v, direction)
    remainders, bends = [], []
    for k in range(halvings + 1):
        h = first / 2**k
        central, bend = _both_sides(function, v, direction, h, middle)
        remainders.append(h * (central - slope) + bend / 2)
        bends.append(abs(bend))
    size = np.maximum(largest(middle), first * largest(slope))
    noise = np.maximum(noise, ROUNDING * float(np.finfo(v.dtype).eps) * size)
    smooth = np.all([half <= SMOOTH * whole + noise for whole, half in pairwise(bends)], axis=0)
    floor = 3 * _norm(bends[-1][smooth]) + _norm(np.broadcast_to(noise, middle.shape))
    sizes = [_norm(remainder[smooth]) for remainder in remainders]
    orders = [math.log2(whole / half) for whole, half in pairwise(sizes) if half > floor]
    return orders[-1] if orders else None


def _both_sides(function, v, direction, h, middle):
    """Central and second difference."""
    plus, minus = function(v + h * direction), function(v - h * direction)
    return (plus - minus) / (2 * h), (plus - middle) + (minus - middle)


def _norm(array):
    return math.sqrt(float((array * array).sum()))
