"""What the positions of a convolution see of a field: shifts of it, side by side or one by one.

A field is (b, n_1, .., n_d, channels), d axes of points; a kernel has ``width`` taps along every
axis, ``step`` points apart. Letters: P positions, c channels, f features.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from higcore.backend import Array, module_of


def padded(field: Array, before: int, after: int) -> Array:
    """The field with so many zeros before and after it along every axis of points."""
    if not (before or after):
        return field
    b, *grid, channels = field.shape
    shape = (b, *(before + n + after for n in grid), channels)
    out = module_of(field).zeros(shape, field.dtype)
    out[(slice(None), *(slice(before, before + n) for n in grid))] = field
    return out


def beside(field: Array, width: int, step: int) -> Array:
    """(b, .., n_d, c) -> (b, .., P_d, width c): taps of the last axis side by side.

    Of an axis with 64 points and taps of width 3 that is three copies of the field, where all taps
    of a kernel in two dimensions would be nine.
    """
    positions = field.shape[-2] - (width - 1) * step
    shifts = [field[..., k * step : k * step + positions, :] for k in range(width)]
    return module_of(field).concatenate(shifts, axis=-1)


def shifts(grid: tuple[int, ...], width: int, step: int) -> Iterator[tuple[slice, ...]]:
    """Where the positions of a kernel's taps lie on the axes ``grid``, tap by tap."""
    for taps in product(range(width), repeat=len(grid)):
        pairs = zip(taps, grid, strict=True)
        yield tuple(slice(k * step, k * step + n - (width - 1) * step) for k, n in pairs)


def windows(wide: Array, width: int, step: int) -> Iterator[Array]:
    """Views (b, P, width c) of `beside`, one for each tap of all axes but the last."""
    for window in shifts(wide.shape[1:-2], width, step):
        seen = wide[(slice(None), *window)]
        yield seen.reshape(len(seen), -1, seen.shape[-1])


def correlate(field: Array, weights: Array, width: int, step: int) -> Array:
    """(b, P, f) = sum_k field[p + k step] W_k, for weights (width^d c, f)."""
    views = list(windows(beside(field, width, step), width, step))
    parts = weights.reshape(len(views), -1, weights.shape[1])
    z = views[0] @ parts[0]  # (b, P, width c) x (width c, f)
    for view, part in zip(views[1:], parts[1:], strict=True):
        z += view @ part
    return z


def turned(weights: Array, width: int, axes: int) -> Array:
    """W_k (width^d c, f) as the kernel of the transpose: W_-k^T (width^d f, c)."""
    taps = weights.reshape(width**axes, -1, weights.shape[1])[::-1]
    return taps.swapaxes(1, 2).reshape(-1, taps.shape[1])
