"""The Jacobian of network and solver over a batch, as an operator that never holds its entries.

Rows are ordered sample by sample: row i |y| + j is dy_ij/dtheta. Letters: b samples, r = |y| rows
a sample, m = b r rows, t parameters.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np

from .backend import Array, is_array, module_of
from .device.memory import keep_what_is_freed
from .device.threads import computed_once
from .losses import curvature_of, ridge_loss
from .protocols import Network, Objective, Samples, Solver
from .rows import OuterProductRows, add_gram, gram_block, symmetric
from .sharing.ranks import ALONE
from .spectral.ridge import Ridged
from .spectral.units import exponents_of, largest_exponent
from .validation import check_array, check_arrays, check_count, check_real, check_same_dtype

PART_NUMBERS = 2**17  # of J at a time, where J^T J is smaller


def rows_of_part(t: int) -> int:
    """Rows that make a part of J as large as J^T J, or so large that it pays."""
    return max(t, PART_NUMBERS // t)


def weighted(rows: Array, roots: Array | None) -> Array:
    """Return rows (b, |y|, ...) times roots (b, |y|), as they are for None."""
    if roots is None:
        return rows
    return rows * roots.reshape(*roots.shape, *(1,) * (rows.ndim - 2))


class Products:
    """What all kinds of J have: ``where`` is an array that lives where J lives."""

    where: Array
    root: float = 0.0  # of the rows below, which only a `Ridged` has

    @property
    def data(self: Any) -> Any:
        """The rows of samples: all of them."""
        return self

    def with_rows(self: Any) -> Any:
        """The same J for methods that need its rows."""
        return self

    def column(self, a: Array, share: float = 1.0) -> Array:
        """Return a (m,), which may be (b, |y|): what J^T is applied to. See `Ridged.column`."""
        return a.reshape(-1)

    @property
    def xp(self) -> ModuleType:
        """The array module; no attribute, because pickle takes no modules."""
        return module_of(self.where)


class _Jacobian(Products):
    """What J has whose rows can be made."""

    shape: tuple[int, int]
    part_samples: Any
    row_parts: Any

    def gram_of_parameters(self) -> Array:
        """Return J^T J (t, t), always float64, from the rows of some samples at a time."""
        total = self.xp.zeros((self.shape[1], self.shape[1]), order="F")
        for part in self.row_parts(self.part_samples):
            total = add_gram(total, part.astype(np.float64, copy=False).T)
        return symmetric(total)


class StackedJacobian(_Jacobian):
    """J = d(y_1 .. y_b)/dtheta, shape (m, t), held as layer factors (eq. 7 of the paper).

    With S_i = dy_i/du_i pulled back through the network once, a row of J restricted to layer l is
    the outer product a_l (x) delta_l, and all products with J are small matrix products.

    Parameters
    ----------
    network : object
        With ``size``, ``rows``, ``tangent`` and ``backward``, such as `nets.MLP`.
    theta : array (t,)
        Parameters.
    tape : object
        What ``network.forward(theta, x)`` returned beside u.
    S : array (b, |y|, |u|)
        Jacobian of the solver, sample by sample.
    tile : int, optional
        Number of samples whose row factors may exist at a time. By default those of all samples
        are made once and kept; with a tile they are made again where K needs them, and J v and
        J^T w go through the network's tangent and backward pass. `narrow_parts` needs them all.

    Notes
    -----
    Has ``shape``, ``dtype``, ``matvec`` and ``rmatvec``, so SciPy takes it wherever it takes a
    `scipy.sparse.linalg.LinearOperator` (`aslinearoperator`, `lsmr`, `svds`, ...).
    Memory: m sum(n_l) + b sum(n_l) numbers instead of m t, or tile / b of it.
    """

    ranks: Any = ALONE  # who multiplies what K is made of

    def __init__(
        self, network: Network, theta: Array, tape: Any, S: Array, tile: int | None = None
    ) -> None:
        if not hasattr(network, "rows"):
            raise TypeError(f"network must have rows, such as nets.MLP has; got {network!r}")
        width = getattr(network, "output_size", "|u|")
        check_arrays(theta=(theta, (network.size,)), S=(S, ("b", "|y|", width)), same_dtype=False)
        if S.dtype != theta.dtype:  # the advice is dear to spell out in every step
            check_same_dtype(theta=theta, S=S, advice=cast("S", S, theta))
        self.network, self.theta, self.tape, self.S = network, theta, tape, S
        self.where = S
        self.samples: int = S.shape[0]
        self.outputs: int = S.shape[1]
        self.shape = self.samples * self.outputs, network.size
        self.dtype = theta.dtype
        if tile is not None:
            check_count("tile", tile)
        self.tile: int = self.samples if tile is None else min(int(tile), self.samples)
        self.balanced = False

    def in_tiles(self, tile: int | None) -> StackedJacobian:
        """Return the same J with the row factors of ``tile`` samples at a time, None for all."""
        found = StackedJacobian(self.network, self.theta, self.tape, self.S, tile)
        return self if found.tile == self.tile else found

    @property
    def sample(self) -> Array:
        """The name that ``where`` had; deprecated."""
        message = "StackedJacobian.sample is now StackedJacobian.where"
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        return self.where

    @property
    def whole(self) -> bool:
        """True if the row factors of all samples are kept."""
        return self.tile == self.samples

    @computed_once
    def blocks(self) -> list[OuterProductRows]:
        """The row factors of all samples, `OuterProductRows` layer by layer."""
        return self._pulled_back(self.tape, self.S)

    def _pulled_back(self, tape: Any, S: Array) -> list[OuterProductRows]:
        """S pulled back by the network; of other sizes, compiled code would read beyond its end."""
        blocks = self.network.rows(self.theta, tape, S)
        for block in blocks:
            if block.delta.shape[:2] != S.shape[:2]:
                raise ValueError(
                    f"rows of the network must have (samples, rows) {S.shape[:2]}, those of S, in "
                    f"every layer, got {block.delta.shape[:2]}"
                )
        return [block.balanced() for block in blocks] if self.balanced else blocks

    def _factors(self, samples: slice) -> list[OuterProductRows]:
        """The row factors of a slice of the samples."""
        if self.whole:
            return [block.part(samples) for block in self.blocks]
        network: Any = self.network  # `part` is optional in a `Network`
        return self._pulled_back(network.part(self.tape, samples), self.S[samples])

    def _tiles(self):
        return [slice(lo, lo + self.tile) for lo in range(0, self.samples, self.tile)]

    def _all_factors(self) -> Iterator[OuterProductRows]:
        return (block for part in self._tiles() for block in self._factors(part))

    def matvec(self, v: Array) -> Array:
        """Return J v (m,), the tangent, for v (t,)."""
        self._check_vector("v", v, self.shape[1])
        if self.small is not None:
            product: Array = self.small @ v.reshape(-1)
            return product
        if self.whole:
            return sum(block.matvec(v.reshape(-1)) for block in self.blocks).reshape(-1)
        network: Any = self.network  # `tangent` is optional in a `Network`
        du = network.tangent(self.theta, self.tape, v.reshape(-1))
        check_array("du = tangent(theta, tape, dtheta)", du, (self.samples, self.S.shape[2]))
        return (self.S @ du[:, :, None]).reshape(-1)  # (b, r, |u|) x (b, |u|, 1)

    def rmatvec(self, w: Array) -> Array:
        """Return J^T w (t,), one backward pass of the cotangents w (m,)."""
        # Factors that are there take 0.6 (oscillators, 4 rows a sample) to 2.3 (Poisson, 64) of the
        # time of the network's backward pass and give what w's dtype holds, where the network may
        # round to that of theta; to make them again, as tiles would have to, takes up to 34 passes.
        self._check_vector("w", w, self.shape[0])
        if self.small is not None:
            product: Array = self.small.T @ w.reshape(-1)
            return product
        w = w.reshape(self.samples, self.outputs)
        dtype = np.result_type(self.dtype, w.dtype)
        if not self.whole:
            u_bar = (w[:, None, :] @ self.S)[:, 0]  # (b, 1, r) x (b, r, |u|)
            found = self.network.backward(self.theta, self.tape, u_bar)
            check_array("theta_bar = backward(theta, tape, u_bar)", found, self.theta.shape)
            return found.astype(dtype, copy=False)  # as without tiles, not as the network likes
        out = self.xp.empty(self.shape[1], dtype)
        for block in self.blocks:
            block.rmatvec(w, out)
        return out

    def gram_product(self, x: Array) -> Array:
        """Return J (J^T x) for x (m, k), float64: K x without what is lost where K is made.

        Needs the row factors of all samples, and some m^2 numbers beside them and x.
        """
        m, k = x.shape
        x = x.reshape(self.samples, self.outputs, k)
        out = self.xp.zeros_like(x)
        for block in self.blocks:
            some = max(1, m * m // (self.samples * block.positions * block.n_out))
            for lo in range(0, k, some):
                out[:, :, lo : lo + some] += block.gram_product(x[:, :, lo : lo + some])
        return out.reshape(m, k)

    def _check_vector(self, name, vector, size):
        """SciPy also hands over columns (n, 1)."""
        shape = (size, 1) if len(getattr(vector, "shape", ())) == 2 else (size,)
        given: dict[str, Any] = {"theta": (self.theta, self.theta.shape), name: (vector, shape)}
        check_arrays(**given, same_dtype=False)

    def dense(self) -> Array:
        """Return J as an array (m, t); takes m t numbers of memory."""
        return self.xp.concatenate(list(self.row_parts(self.samples)))

    @property
    def part_samples(self) -> int:
        """Samples whose rows make a part of J; see ``rows_of_part``."""
        return max(1, min(rows_of_part(self.shape[1]) // self.outputs, self.samples))

    def row_parts(self, samples: int) -> Iterator[Array]:
        """Yield J as arrays (k, t), the rows of some samples at a time, not to be written to."""
        if samples >= self.samples and self.small is not None:
            yield self.small
            return
        for lo in range(0, self.samples, samples):
            yield self._explicit(self._factors(slice(lo, lo + samples)))

    def _explicit(self, blocks: list[OuterProductRows]) -> Array:
        """The rows (k, t) of some samples, by their factors."""
        rows = self.xp.empty((*blocks[0].delta.shape[:2], self.shape[1]), self.dtype)
        for block in blocks:
            rows[:, :, block.start : block.stop] = block.explicit()
        return rows.reshape(-1, self.shape[1])

    @computed_once
    def small(self) -> Array | None:
        """J itself, where it has fewer columns than rows and is no larger than a part of it.

        It is what J^T J is made of, and a product with it is one call, not some for each layer.
        """
        m, t = self.shape
        is_small = self.whole and t < m and m * t <= PART_NUMBERS
        return self._explicit(self.blocks) if is_small else None

    def narrow_parts(self, columns: int) -> Iterator[tuple[int, Array]]:
        """Yield (first, J' (m - first, k)), some columns at a time, of a J' with J' J'^T = J J^T.

        At least those of one input unit. Rows before the first are zeros: see `narrowed`.
        """
        m = self.shape[0]
        for block in self.blocks:
            dense = block.positions == 1 and not block.is_entries
            narrow = block.narrowed() if dense else block
            units = max(1, columns // block.n_out)
            for lo in range(0, narrow.units, units):
                sample = lo if dense else 0
                part = narrow.part(slice(sample, None)).explicit(lo, min(lo + units, narrow.units))
                first = sample * self.outputs
                yield first, part.reshape(m - first, -1)

    def gram(self, mirrored: bool = True) -> Array:
        """Return K = J J^T (m, m), always float64, in m^2 sum(n_l) operations.

        K = sum_l (delta_l delta_l^T) * (a_l a_l^T + 1) for dense layers, a Hadamard product with
        the sample matrix repeated over the |y| x |y| blocks; see `rows.gram_terms`. Unless
        ``mirrored``, only what is on and above the diagonal is defined: enough to decompose K.
        """
        K = self.xp.empty((self.shape[0], self.shape[0]))
        tiles, r = self._tiles(), self.outputs
        for k, part in enumerate(tiles):
            left = self._factors(part)
            for other in tiles[k:]:
                right = left if other is part else self._factors(other)  # the same list: symmetric
                rows, columns = (slice(s.start * r, s.stop * r) for s in (part, other))
                gram_block(left, right, K[rows, columns], mirrored, self.ranks)
                if mirrored and other is not part:
                    K[columns, rows] = K[rows, columns].T
        return K

    def norm_squared(self) -> float:
        """Return the squared Frobenius norm of J, an upper bound of max(S)^2."""
        return float(self.row_norms_squared().sum())

    def row_norms_squared(self) -> Array:
        """Return the diagonal of J J^T (m,), float64."""
        parts = map(self._factors, self._tiles())
        sums = [sum(block.norms_squared() for block in part).reshape(-1) for part in parts]
        return self.xp.concatenate(sums)

    def exponent(self) -> int:
        """Return e with all entries below 2^e, the largest not far; see ``units``. 0 if J is 0."""
        return largest_exponent(block.exponent() for block in self._all_factors())

    def scaled(self, exponent: int) -> StackedJacobian:
        """Return 2^-exponent J, in factors whose products of two do not overflow."""
        S = self.xp.ldexp(self.S, -exponent)
        scaled = StackedJacobian(self.network, self.theta, self.tape, S, self.tile)
        scaled.balanced = True
        return scaled

    def weighted(self, roots: Array | None) -> StackedJacobian:
        """Return diag(roots) J for roots (b, |y|), J itself for None."""
        if roots is None:
            return self
        S = weighted(self.S, roots)
        return StackedJacobian(self.network, self.theta, self.tape, S, self.tile)


class DenseJacobian(_Jacobian):
    """An explicit J (m, t) with the methods of `StackedJacobian`, a row in place of a sample."""

    def __init__(self, J: Array) -> None:
        self.J = self.where = J
        self.shape, self.dtype = J.shape, J.dtype
        self.samples = self.part_samples = len(J)
        self.outputs = 1

    def matvec(self, v: Array) -> Array:
        return self.J @ v

    def rmatvec(self, w: Array) -> Array:
        return self.J.T @ w

    def gram_product(self, x: Array) -> Array:
        """Return J (J^T x) for x (m, k), float64."""
        product: Array = self.J @ (self.J.T @ x)
        return product

    def dense(self) -> Array:
        return self.J

    def row_parts(self, samples: int) -> Iterator[Array]:
        return (self.J[lo : lo + samples] for lo in range(0, self.shape[0], samples))

    def narrow_parts(self, columns: int) -> Iterator[tuple[int, Array]]:
        return ((0, self.J[:, lo : lo + columns]) for lo in range(0, self.shape[1], columns))

    def gram(self, mirrored: bool = True) -> Array:
        """Return J J^T in float64, whole in any case."""
        J = self.J.astype(np.float64, copy=False)
        return symmetric(add_gram(self.xp.zeros((len(J), len(J)), order="F"), J))

    def norm_squared(self) -> float:
        return float(self.row_norms_squared().sum())

    def row_norms_squared(self) -> Array:
        parts = self.row_parts(max(1, PART_NUMBERS // self.shape[1]))
        sums = [(part.astype(np.float64, copy=False) ** 2).sum(axis=1) for part in parts]
        return self.xp.concatenate(sums)

    def exponent(self) -> int:
        return largest_exponent([int(exponents_of(np.array(float(abs(self.J).max()))))])

    def scaled(self, exponent: int) -> DenseJacobian:
        return DenseJacobian(self.xp.ldexp(self.J, -exponent))


Jacobian: TypeAlias = StackedJacobian | DenseJacobian


def check_output(method: str, y: Array, u: Array, solver: Solver) -> None:
    """Raise unless what a method of the solver returned is (b, |y|), in the dtype of u (b, |u|)."""
    size = solver.output_size
    shape = getattr(y, "shape", None)
    if type(y) is type(u) and (shape, y.dtype) == ((len(u), size), u.dtype):  # mostly so
        return
    what = f"y = {method}(x, u) of the solver, whose output_size is {size},"
    check_array(what, y, (len(u), size))
    check_same_dtype(u=u, y=y, advice=cast("y", y, u))


def cast(name: str, found: Array, given: Array) -> str:
    """What to do about an array of the solver's that is not of the dtype of what it was given."""
    return (
        f"; the solver returned {found.dtype} for inputs of {given.dtype}: let it return "
        f"{name}.astype(u.dtype), or draw the data in {found.dtype}"
    )


class Linearisation:
    r"""Loss at theta on one batch; the gradient or J is computed only when an optimizer asks.

    Parameters
    ----------
    problem : Problem
        Model and loss.
    theta : array (t,)
        Parameters.
    batch : Batch
        Start states x, network inputs and targets.

    Attributes
    ----------
    mean_loss : array ()
        L over what it is a mean or a sum of: the mean over the batch of the loss of a sample, and
        the share of the penalty on theta; on a device, not waited for.
    loss_of_samples : array ()
        The mean loss of a sample alone.
    loss : float
        The same as a number.
    loss_gradient : array (b, |y|)
        g = dL/dy.
    output : array (b, |y|)
        The model's y.
    model : object
        What gives y: the network and then the solver, or a `Model` of another kind.
    scale : float
        dL/dl_i: 1/b if L is a mean over the batch, 1 if it is a sum.
    ridge : float
        w of the penalty on theta, see `Problem.regularised`. g, h and J are of the samples alone;
        `gradient` and `with_ridge` know it.

    Notes
    -----
    Where the curvature of L in y is no plain number but h (b, |y|), ``unit_jacobian`` and
    ``unit_gradient`` are :math:`\sqrt h J` and :math:`g / \sqrt h`, with 0 for g where h is 0. To
    them L has the curvature ``unit_curvature`` = 1, so

    .. math:: L - g \cdot J d + \tfrac12 \textstyle\sum h\,(J d)^2

    is a model with a number for h again. For a plain number they are J, g and h as they are.
    """

    def __init__(self, problem: Objective, theta: Array, batch: Samples) -> None:
        if not hasattr(problem, "check_batch"):
            raise TypeError(f"problem must be a Problem, got {problem!r}")
        problem.check_batch("batch", batch)
        keep_what_is_freed()
        self.problem, self.theta, self.batch = problem, theta, batch
        self.model = problem.model
        y, self._tape = self.model.forward(theta, batch)
        self.output = y
        self.mean_loss = self.loss_of_samples = problem.loss.value(y, batch.target).mean()
        self.scale = 1 / len(y) if problem.batch_mean else 1.0
        self.ridge: float = getattr(problem, "ridge", 0.0)  # optional in an `Objective`
        if self.ridge:
            share = ridge_loss(self.ridge, theta, len(y), problem.batch_mean)
            self.mean_loss = self.mean_loss + share
        g = problem.loss.gradient(y, batch.target)
        check_array("g = gradient(y, target) of the loss", g, y.shape)
        self.loss_gradient = g * self.scale

    @property
    def loss(self) -> float:
        """Mean loss of a sample, a float; waits for a device."""
        return float(self.mean_loss)

    @computed_once
    def curvature(self) -> float | Array:
        """h, that of L in y, a number or (b, |y|); TypeError if the loss says none."""
        loss = self.problem.loss
        curvature = curvature_of(loss, self.output, self.batch.target)
        if curvature is None:
            needing = "the penalty on theta" if self.ridge else "this optimizer"
            raise TypeError(f"loss must have a curvature for {needing}, which {loss!r} has not")
        return curvature * self.scale

    @computed_once
    def roots(self) -> Array | None:
        """Square roots (b, |y|) of the curvature, None where it is a number."""
        h: Any = self.curvature
        return module_of(h).sqrt(h) if is_array(h) and h.ndim else None

    @property
    def unit_curvature(self) -> float:
        """That of L to ``unit_jacobian``: 1, or the curvature where it is a number."""
        h: Any = self.curvature
        return h if self.roots is None else 1.0

    @property
    def unit_gradient(self) -> Array:
        """What goes with ``unit_jacobian`` in place of g (b, |y|)."""
        return self.over_roots(self.loss_gradient)

    def over_roots(self, change: Array) -> Array:
        """Return a change (b, |y|) of g, or J d from ``unit_jacobian``, over the roots; or 0."""
        if self.roots is None:
            return change
        return change * (self.roots > 0) / (self.roots + (self.roots == 0))

    @property
    def finite(self) -> bool:
        """False if the loss or its gradient overflowed or became NaN."""
        total = float(abs(self.loss_gradient).sum())
        return math.isfinite(self.loss) and math.isfinite(total)

    def gradient(self) -> Array:
        """Return dL/dtheta (t,): one backward pass through the model."""
        of_samples = self.pulled_back(self.loss_gradient)
        return of_samples + self.ridge * self.theta if self.ridge else of_samples

    def tangent(self, dtheta: Array) -> Array:
        """Return J dtheta (b, |y|), the derivative of the output along dtheta (t,)."""
        return self.model.tangent(self.theta, self._tape, dtheta)

    def pulled_back(self, y_bar: Array) -> Array:
        """Return J^T y_bar (t,), summed over samples, of cotangents y_bar (b, |y|)."""
        return self.model.backward(self.theta, self._tape, y_bar)

    @property
    def control(self) -> Array:
        """The network's output u (b, |u|), where a solver follows it."""
        return self._of_two().control(self._tape)

    def network_gradient(self, u_bar: Array) -> Array:
        """Return (du/dtheta)^T u_bar (t,) for cotangents u_bar (b, |u|) of the control."""
        return self._of_two().network_gradient(self.theta, self._tape, u_bar)

    def solver_rows(self) -> Array:
        """Return S (b, |y|, |u|), S[i] = dy_i/du_i."""
        return self._of_two().solver_rows(self._tape)

    def _of_two(self):
        """The model, where it is a network and then a solver."""
        if self.problem.solver is None:
            raise TypeError(
                "this takes a problem whose network comes before its solver; "
                f"{type(self.problem.network).__name__} has its network inside"
            )
        return self.model

    def jacobian(self, tile: int | None = None) -> StackedJacobian:
        """Return J as a `StackedJacobian` (m, t); with ``tile``, row factors of few samples."""
        J: StackedJacobian = self.model.jacobian(self.theta, self._tape, self.output, tile)
        return J

    def unit_rows(self) -> Array:
        """Return S (b, |y|, |u|) with its rows times the roots."""
        return weighted(self.solver_rows(), self.roots)

    def unit_jacobian(self, tile: int | None = None) -> StackedJacobian:
        """Return J with its rows times the roots."""
        return self.jacobian(tile).weighted(self.roots)

    def with_ridge(self, J: Any, unit: bool) -> Any:
        r"""Return J, or the ``unit_jacobian``, over rows for the penalty on theta if there is one.

        Rows of J as they are, without the roots of an h (b, |y|), are those of an optimizer that
        leaves h out. It is then the mean of h that gives rows of theta their size beside them:
        :math:`J_c^\top g_c = \nabla L` for any.
        """
        if not self.ridge:
            return J
        h: Any = self.unit_curvature if unit or self.roots is None else float(self.curvature.mean())
        check_real("the curvature of a loss", h, 0.0, open_low=True)
        pull = (self.ridge * h) ** 0.5 * self.theta.astype(np.float64, copy=False)
        return Ridged(J, (self.ridge / h) ** 0.5, pull)

    def at(self, theta: Array) -> Linearisation:
        """Return the `Linearisation` on the same batch at other parameters."""
        return Linearisation(self.problem, theta, self.batch)
