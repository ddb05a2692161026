"""Rows of J as layer factors, and the Gram matrix of such rows.

Letters: b samples, r = |y| rows a sample, m = b r rows, P positions at which a layer's weights are
used (one for a dense layer), n_in and n_out its widths.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeAlias

import numpy as np
from scipy.linalg.blas import dsyrk

from .backend import Array, array_module, is_host, module_of, to_host
from .device.threads import blas_limits, run_threaded
from .kernels import lazy_njit
from .sharing.ranks import ALONE
from .spectral.units import exponents_of

OF_A_BLOCK = 4000  # multiplications that the calls for one of r x r rows take as long as
CHUNK_BYTES = 2**19  # of a product before it is added to K: it must stay in a core's cache


class OuterProductRows:
    """The rows of J that belong to one layer: row (i, j) is sum_p a_ip (x) delta_ijp.

    p runs over the positions at which the layer's weights W (n_in, n_out) are used: one for a
    dense layer, many for a convolution. The outer product is the derivative with respect to W,
    row-major; sum_p delta_ijp that with respect to the bias (n_out,), which follows in theta.
    Rows that are no outer product, of n_out parameters of any kind, are those of a bias: delta
    itself, with n_in = 0.

    Parameters
    ----------
    a : array (b, P, n_in)
        What W multiplies at each position.
    delta : array (b, r, P, n_out)
        Rows pulled back to the layer's pre-activation.
    start : int
        Where the layer's parameters begin in theta.
    bias : int
        The input of the bias, 1; or 0 if it is one of those in ``a``, see `balanced`.
    """

    def __init__(self, a: Array, delta: Array, start: int, bias: int = 1) -> None:
        if not type(a) is type(delta) is np.ndarray:  # which those of most layers are
            array_module(a=a, delta=delta)
        fits = len(a.shape) == 3 and len(delta.shape) == 4
        if not fits or a.shape[:2] != (delta.shape[0], delta.shape[2]):
            raise ValueError(
                "a must have shape (b, P, n_in) and delta (b, r, P, n_out), of the same b and P; "
                f"got {a.shape} and {delta.shape}"
            )
        self.a, self.delta, self.start, self.bias = a, delta, start, bias
        self.positions: int = a.shape[1]
        self.n_in: int = a.shape[2]
        self.n_out: int = delta.shape[3]
        self.units = self.n_in + bias  # inputs, the bias's among them
        self.split = start + self.n_in * self.n_out
        self.stop = self.split + self.n_out * bias

    def part(self, samples: slice) -> OuterProductRows:
        """The rows of a slice of the samples; no copy."""
        return OuterProductRows(self.a[samples], self.delta[samples], self.start, self.bias)

    def matvec(self, v: Array) -> Array:
        """(b, r): rows times v (t,)."""
        weights = v[self.start : self.split].reshape(self.n_in, self.n_out)
        along = self.a @ weights  # (b, P, n_out)
        if self.bias:
            along += v[self.split : self.stop]
        b, r = self.delta.shape[:2]
        return (self.delta.reshape(b, r, -1) @ along.reshape(b, -1, 1))[:, :, 0]

    def rmatvec(self, c: Array, out: Array) -> None:
        """Write the layer's part of J^T c into out (t,), c (b, r)."""
        b, r = c.shape
        weighted = c[:, None, :] @ self.delta.reshape(b, r, -1)  # (b, 1, r) x (b, r, P n_out)
        weighted = weighted.reshape(-1, self.n_out)
        weights_bar = out[self.start : self.split].reshape(self.n_in, self.n_out)
        xp = module_of(self.a)
        # (n_in, b P) x (b P, n_out), written where it belongs: there may be 10^8 numbers
        xp.matmul(self.a.reshape(len(weighted), self.n_in).T, weighted, out=weights_bar)
        if self.bias:
            out[self.split : self.stop] = weighted.sum(axis=0)

    def gram_product(self, x: Array) -> Array:
        """(b, r, k): J J^T x for x (b, r, k), rows times the parameters J^T x, column by column."""
        b, r, k = x.shape
        delta = self.delta.reshape(b, r, -1)
        weighted = (delta.swapaxes(1, 2) @ x).reshape(b * self.positions, self.n_out * k)
        a = self.a.reshape(len(weighted), self.n_in)
        along = a @ (a.T @ weighted)  # (b P, n_in) x (n_in, n_out k)
        if self.bias:
            along += weighted.sum(axis=0)
        return delta @ along.reshape(b, -1, k)

    def narrowed(self) -> OuterProductRows:
        """Rows of a dense layer with the same J J^T, and no more inputs than samples.

        The inputs of all samples are L Q, L (b, k) a lower triangle and Q a rotation of theta: L
        takes their place, in float64, of which sample i has those up to number i alone.
        """
        xp = module_of(self.a)
        ones = xp.ones((len(self.a), self.bias))
        L = xp.linalg.qr(xp.concatenate([self.a[:, 0], ones], axis=1).T, mode="r").T
        return OuterProductRows(L[:, None], self.delta, self.start, bias=0)

    def explicit(self, first: int = 0, stop: int | None = None) -> Array:
        """The rows of input units ``first`` to ``stop``, (b, r, (stop - first) n_out).

        Unit n_in stands for the bias; by default all units, that is all columns of the layer.
        """
        if self.is_entries:
            return self.delta[:, :, 0]
        xp = module_of(self.a)
        b, r = self.delta.shape[:2]
        stop = self.units if stop is None else stop
        a = self.a[:, :, first:stop].swapaxes(1, 2)[:, None]  # (b, 1, units, P)
        outer = (a @ self.delta).reshape(b, r, -1)  # x (b, r, P, n_out)
        if stop <= self.n_in:
            return outer
        return xp.concatenate([outer, self.delta.sum(axis=2)], axis=2)

    def norms_squared(self) -> Array:
        """(b, r): squared lengths of the rows, sum_pq (a_ip.a_iq + 1) (delta_ijp.delta_ijq)."""
        if self.through_entries:  # pairs of positions would take (b, r, P, P) numbers
            entries = self.explicit().astype(np.float64, copy=False)
            return (entries * entries).sum(axis=2)
        a, delta = (array.astype(np.float64, copy=False) for array in (self.a, self.delta))
        inputs = a @ a.swapaxes(1, 2) + self.bias  # (b, P, P)
        deltas = delta @ delta.swapaxes(2, 3)  # (b, r, P, P)
        return (inputs[:, None] * deltas).sum(axis=(2, 3))

    def exponents(self) -> tuple[np.ndarray, np.ndarray]:
        """Those of the largest input and of the largest delta of every sample, (b,) on the host."""
        inputs = to_host(abs(self.a).max(axis=(1, 2))) if self.n_in else np.zeros(len(self.a))
        deltas = to_host(abs(self.delta).max(axis=(1, 2, 3)))
        return exponents_of(np.maximum(inputs, self.bias)), exponents_of(deltas)

    def exponent(self) -> int:
        """That of the largest entry for P = 1, and of a bound for P > 1; see `exponents_of`."""
        inputs, deltas = self.exponents()
        return int((inputs + deltas).max())

    def balanced(self) -> OuterProductRows:
        """The same rows with no input beyond 1, so that no product of two of them overflows."""
        xp = module_of(self.a)
        ones = xp.ones((*self.a.shape[:2], self.bias), self.a.dtype)
        shift = xp.asarray(self.exponents()[0])
        a = xp.ldexp(xp.concatenate([self.a, ones], axis=2), -shift[:, None, None])
        delta = xp.ldexp(self.delta, shift[:, None, None, None])
        return OuterProductRows(a, delta, self.start, bias=0)

    @property
    def through_entries(self) -> bool:
        """True where explicit rows make a cheaper Gram matrix than pairs of positions.

        Contracting over pairs of positions costs 2 P^2 n_out operations an entry of K, the
        explicit rows (n_in + 1) n_out, half of it saved by symmetry.
        """
        return self.is_entries or (self.positions > 1 and 2 * self.positions**2 > self.units)

    @property
    def by_samples(self) -> bool:
        """True where a Gram matrix is made block by block of r x r rows, on a host.

        An entry then takes P n_out multiplications, and P^2 n_out / r before that, where explicit
        rows take (n_in + 1) n_out: see ``gram_by_samples``.
        """
        r = self.delta.shape[1]
        block = self.positions * (self.positions + r) * r * self.n_out + OF_A_BLOCK
        return self.positions > 1 and block < r * r * self.units * self.n_out

    @property
    def is_entries(self) -> bool:
        """True where delta are the entries of the rows, of no input and one position."""
        return self.n_in == 0 and self.positions == 1

    def entries(self) -> Array:
        """The explicit rows in float64, (m, (n_in + 1) n_out)."""
        rows = self.explicit().astype(np.float64, copy=False)
        return rows.reshape(-1, rows.shape[2])

    def at_positions(self) -> list[tuple[Array, Array]]:
        """Inputs (b, n_in) and deltas (m, n_out) of every position, float64 and contiguous."""
        xp = module_of(self.a)
        a, delta = (array.astype(xp.float64, copy=False) for array in (self.a, self.delta))
        return [
            (a[:, p], xp.ascontiguousarray(delta[:, :, p]).reshape(-1, self.n_out))
            for p in range(self.positions)
        ]


Layers: TypeAlias = list[OuterProductRows]


def as_entries(layers: Layers) -> Layers:
    """The same rows as one block of their entries (b, r, t), if these are fewer than the factors.

    Of layers that are used at so many positions that a Gram matrix takes the entries in any case.
    The layers follow one another in theta.
    """
    b, r = layers[0].delta.shape[:2]
    t = layers[-1].stop
    if not all(block.through_entries for block in layers):
        return layers
    if b * r * t > sum(block.a.size + block.delta.size for block in layers):
        return layers
    xp = module_of(layers[0].delta)
    entries = xp.empty((b, r, 1, t), layers[0].delta.dtype)
    for block in layers:
        entries[:, :, 0, block.start : block.stop] = block.explicit()
    return [OuterProductRows(xp.empty((b, 1, 0), entries.dtype), entries, 0)]


def gram_terms(
    left: OuterProductRows, right: OuterProductRows
) -> Iterator[tuple[Array, Array, Array | None]]:
    """Yield (delta, delta', inputs) whose sum of (delta delta'^T) * inputs is left right^T.

    ``left`` and ``right`` are the `OuterProductRows` of one layer for some samples each; inputs
    (b, b') are repeated over the r x r blocks of the product. For a dense layer this is the
    Hadamard product (delta delta'^T) * (a a'^T + 1). Explicit rows stand for delta where inputs
    are None.
    """
    if left.through_entries:
        entries = left.entries()
        yield entries, (entries if right is left else right.entries()), None
        return
    first = left.at_positions()
    for a, delta in first:
        for a_other, delta_other in first if right is left else right.at_positions():
            yield delta, delta_other, a @ a_other.T + left.bias


def gram_definition(left: Layers, right: Layers, out: Array) -> None:
    """Write left right^T to out (m, m'), by the formula; the oracle, and what a GPU runs.

    ``left`` and ``right`` list the `OuterProductRows` of all layers. Holds one product of the size
    of out at a time.
    """
    b, r = left[0].delta.shape[:2]
    terms = (term for pair in zip(left, right, strict=True) for term in gram_terms(*pair))
    for k, (delta, other, inputs) in enumerate(terms):
        product = delta @ other.T
        if inputs is not None:
            blocks = product.reshape(b, r, -1, r)
            blocks *= inputs[:, None, :, None]
        _add(out, product, k == 0)


# Adds to a chunk of K, or writes the first term to it: (chunk, its samples, those of its columns,
# room for a product, whether it is the first).
Term: TypeAlias = Callable[[Array, slice, slice, Array, bool], None]


def gram_in_chunks(
    left: Layers, right: Layers, out: Array, mirrored: bool, ranks: Any = ALONE
) -> None:
    """`gram_definition` chunk by chunk of rows, each finished while it is in cache.

    Chunks go to threads, each of which multiplies with NumPy's BLAS on one thread. If right is
    left, only the upper triangle is computed, and then copied below the diagonal if ``mirrored``.
    Of several ``ranks`` each computes some of the chunks.
    """
    r, symmetric = left[0].delta.shape[1], right is left
    terms = [term for pair in zip(left, right, strict=True) for term in _terms(*pair)]
    rows = r * max(1, CHUNK_BYTES // (8 * r * out.shape[1]))

    def chunk_of(lo):
        return out[lo : lo + rows, lo if symmetric else 0 :]

    def finish(lo):
        hi, chunk = min(lo + rows, len(out)), chunk_of(lo)
        samples, others = slice(lo // r, hi // r), slice(lo // r if symmetric else 0, None)
        product = np.empty(chunk.shape)
        for k, add in enumerate(terms):
            add(chunk, samples, others, product, k == 0)
        if symmetric and mirrored:
            _mirror(out, lo, hi, 32)

    starts = range(0, len(out), rows)
    with blas_limits():
        ranks.together(lambda: run_threaded(finish, ranks.dealt(starts)))
    if ranks.exchange(chunk_of, starts) and symmetric and mirrored:
        _mirror(out, 0, len(out), 32)


def _terms(left: OuterProductRows, right: OuterProductRows) -> Iterator[Term]:
    """What a layer adds to K."""
    if left.by_samples:
        yield gram_by_samples(left, right)
        return
    r = left.delta.shape[1]
    for delta, other, inputs in gram_terms(left, right):
        yield partial(_add_product, delta, other, inputs, r)


def _add_product(delta, other, inputs, r, chunk, samples, others, product, first):
    """A ``Term``: one of ``gram_terms``."""
    rows = slice(r * samples.start, r * samples.stop)
    np.matmul(delta[rows], other[r * others.start :].T, out=product)
    if inputs is None:
        _add(chunk, product, first)
    else:
        _add_hadamard(chunk, product, inputs[samples, others], r, first)


def gram_by_samples(left: OuterProductRows, right: OuterProductRows) -> Term:
    r"""Return the ``Term`` of a layer with several positions, for each pair of samples by itself.

    Of samples i and k it is the sum over positions p of delta_ip times what samples see of one
    another,

    .. math:: \sum_p \delta_{ip} M_p^\top, \qquad
        M_p = \sum_q (a_{ip} \cdot a_{kq} + 1) \, \delta_{kq},

    in which no product is over the inputs but a a'^T, and each is over positions once: explicit
    rows would take an entry of K units / P times as many multiplications, pairs of positions P.
    """
    inputs = _flat_inputs(left) @ _flat_inputs(right).T + left.bias
    counts = (len(left.a), left.positions), (len(right.a), right.positions)
    inputs = inputs.reshape(*counts[0], *counts[1]).swapaxes(1, 2)  # (b, b', P, P)
    b, r = left.delta.shape[:2]
    delta = left.delta.astype(np.float64, copy=False).reshape(b, r, -1)  # (b, r, P n_out)
    other = right.delta.astype(np.float64, copy=False).transpose(0, 2, 3, 1)
    other = np.ascontiguousarray(other).reshape(*counts[1], -1)  # (b', P, n_out r)
    return partial(_add_by_samples, inputs, delta, other)


def _flat_inputs(block):
    """(b P, n_in), float64."""
    return block.a.astype(np.float64, copy=False).reshape(-1, block.n_in)


def _add_by_samples(inputs, delta, other, chunk, samples, others, product, first):
    """A ``Term``: that of ``gram_by_samples``."""
    if first:
        chunk[:] = 0
    r = delta.shape[1]
    for k, i in enumerate(range(samples.start, samples.stop)):
        M = inputs[i, others] @ other[others]  # (b', P, P) x (b', P, n_out r)
        blocks = delta[i] @ M.reshape(len(M), -1, r)  # (r, P n_out) x (b', P n_out, r)
        of_sample = chunk[k * r : (k + 1) * r].reshape(r, -1, r)
        of_sample += blocks.swapaxes(0, 1)


def _add(chunk, product, first):
    if first:
        chunk[:] = product
    else:
        chunk += product


@lazy_njit
def _add_hadamard(chunk, product, inputs, r, first):
    """Chunk (+)= product * (inputs repeated r x r)."""
    for row in range(chunk.shape[0]):
        i = row // r
        for j in range(inputs.shape[1]):
            scale = inputs[i, j]
            for col in range(j * r, j * r + r):
                value = product[row, col] * scale
                chunk[row, col] = value if first else chunk[row, col] + value


@lazy_njit
def _mirror(K, lo, hi, tile):
    """Copy rows lo to hi, right of the diagonal, to the columns below it; by tiles, for cache."""
    m = K.shape[0]
    for top in range(lo, hi, tile):
        for left in range(top, m, tile):
            for col in range(left, min(left + tile, m)):
                for row in range(top, min(top + tile, hi, col)):
                    K[col, row] = K[row, col]


def add_gram(total: Array, A: Array) -> Array:
    """Return total + A A^T on the lower triangle of total (n, n), Fortran-ordered; A (n, k)."""
    if not is_host(A):
        return total + A @ A.T
    A, transposed = (A.T, 1) if A.flags.c_contiguous else (A, 0)  # as BLAS reads it, no copy
    return dsyrk(1.0, A, beta=1.0, c=total, trans=transposed, lower=1, overwrite_c=1)


def symmetric(lower: Array) -> Array:
    """The whole of a symmetric matrix, row-major, from its Fortran-ordered lower triangle."""
    if is_host(lower):
        _mirror(lower.T, 0, len(lower), 32)
    return lower.T


def gram_block(
    left: Layers, right: Layers, out: Array, mirrored: bool = True, ranks: Any = ALONE
) -> None:
    """Write left right^T to out, by the fastest way there is where the factors live.

    Where right is left and not ``mirrored``, what is below the diagonal may be left undefined. On a
    device, each of several ``ranks`` computes all of it.
    """
    if is_host(out):
        gram_in_chunks(left, right, out, mirrored, ranks)
    else:
        gram_definition(left, right, out)
