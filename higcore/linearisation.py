"""The Jacobian of network and solver over a batch, as an operator that never holds its entries.

Rows are ordered sample by sample: row i |y| + j is dy_ij/dtheta. Letters: b samples, r = |y| rows
a sample, m = b r rows, t parameters.
"""

from __future__ import annotations

import math

import numpy as np

from .backend import array_module, is_host
from .kernels import lazy_njit
from .validation import check_array


class OuterProductRows:
    """The rows of J that belong to one dense layer: row (i, j) is a_i (x) delta_ij, then delta_ij.

    The first part is the derivative with respect to the weights W (n_in, n_out), row-major, the
    second with respect to the bias (n_out,).

    Parameters
    ----------
    a : array (b, n_in)
        The layer's input.
    delta : array (b, r, n_out)
        Rows pulled back to the layer's pre-activation.
    start : int
        Where the layer's parameters begin in theta.
    """

    def __init__(self, a, delta, start):
        self.a, self.delta, self.start = a, delta, start
        self.n_in, self.n_out = a.shape[1], delta.shape[2]
        self.split = start + self.n_in * self.n_out
        self.stop = self.split + self.n_out

    def matvec(self, v):
        """(b, r): rows times v (t,)."""
        weights = v[self.start : self.split].reshape(self.n_in, self.n_out)
        along = self.a @ weights + v[self.split : self.stop]  # (b, n_out)
        return (self.delta @ along[:, :, None])[:, :, 0]

    def rmatvec(self, c, out):
        """Write the layer's part of J^T c into out (t,), c (b, r)."""
        weighted = (c[:, None, :] @ self.delta)[:, 0, :]  # (b, 1, r) x (b, r, n_out)
        out[self.start : self.split] = (self.a.T @ weighted).reshape(-1)
        out[self.split : self.stop] = weighted.sum(axis=0)

    def dense(self, out):
        """Write the rows into out (b, r, t)."""
        b, r, _ = self.delta.shape
        outer = self.a[:, None, :, None] * self.delta[:, :, None, :]  # (b, r, n_in, n_out)
        out[:, :, self.start : self.split] = outer.reshape(b, r, -1)
        out[:, :, self.split : self.stop] = self.delta

    def norm_squared(self):
        """Sum of the squares of all entries: sum_ij |delta_ij|^2 (|a_i|^2 + 1)."""
        scale = (self.a * self.a).sum(axis=1) + 1
        return float((self.delta * self.delta).sum(axis=(1, 2)) @ scale)


class StackedJacobian:
    """J = d(y_1 .. y_b)/dtheta, shape (m, t), held as layer factors (eq. 7 of the paper).

    With S_i = dy_i/du_i pulled back through the network once, a row of J restricted to layer l is
    the outer product a_l (x) delta_l, and all products with J are small matrix products.

    Parameters
    ----------
    network : object
        With ``size`` and ``rows(theta, tape, S)``, such as `nets.MLP`.
    theta : array (t,)
        Parameters.
    tape : object
        What ``network.forward(theta, x)`` returned beside u.
    S : array (b, |y|, |u|)
        Jacobian of the solver, sample by sample.

    Notes
    -----
    Has ``shape``, ``dtype``, ``matvec`` and ``rmatvec``, so SciPy takes it wherever it takes a
    `scipy.sparse.linalg.LinearOperator` (`aslinearoperator`, `lsmr`, `svds`, ...).
    Memory: m sum(n_l) + b sum(n_l) numbers instead of m t.
    """

    def __init__(self, network, theta, tape, S):
        self.xp = array_module(theta=theta, S=S)
        check_array("S", S, ("b", "|y|", "|u|"))
        self.blocks = network.rows(theta, tape, S)
        self.samples, self.outputs = S.shape[:2]
        self.shape = (self.samples * self.outputs, network.size)
        self.dtype = theta.dtype

    def matvec(self, v):
        """Return J v (m,), the tangent, for v (t,)."""
        check_array("v", v.reshape(-1), (self.shape[1],))
        return sum(block.matvec(v.reshape(-1)) for block in self.blocks).reshape(-1)

    def rmatvec(self, w):
        """Return J^T w (t,), one backward pass of the cotangents w (m,)."""
        check_array("w", w.reshape(-1), (self.shape[0],))
        out = self.xp.empty(self.shape[1], np.result_type(self.dtype, w.dtype))
        for block in self.blocks:
            block.rmatvec(w.reshape(self.samples, self.outputs), out)
        return out

    def dense(self):
        """Return J as an array (m, t); takes m t numbers of memory."""
        out = self.xp.empty((self.samples, self.outputs, self.shape[1]), self.dtype)
        for block in self.blocks:
            block.dense(out)
        return out.reshape(self.shape)

    def gram(self):
        """Return K = J J^T (m, m), always float64, in m^2 sum(n_l) operations.

        K = sum_l (delta_l delta_l^T) * (a_l a_l^T + 1), a Hadamard product with the sample
        matrix repeated over the |y| x |y| blocks.
        """
        assemble = _gram_triangle if is_host(self.blocks[0].a) else gram_definition
        return assemble(self.blocks)

    def norm_squared(self):
        """Return the squared Frobenius norm of J, an upper bound of max(S)^2."""
        return sum(block.norm_squared() for block in self.blocks)


def gram_definition(blocks):
    """K by the formula, in array code; the oracle of the fast path, and what a GPU runs."""
    xp = array_module(a=blocks[0].a)
    b, r, _ = blocks[0].delta.shape
    K = xp.zeros((b, r, b, r))
    for block in blocks:
        a = block.a.astype(xp.float64)
        delta = block.delta.astype(xp.float64).reshape(b * r, -1)
        samples = a @ a.T + 1  # (b, n_in) x (n_in, b)
        K += (delta @ delta.T).reshape(b, r, b, r) * samples[:, None, :, None]
    return K.reshape(b * r, b * r)


def _gram_triangle(blocks):
    """`gram_definition` with half the arithmetic: symmetric rank-k updates of one triangle."""
    from scipy.linalg import blas

    b, r, _ = blocks[0].delta.shape
    K = np.empty((b * r, b * r))
    product = np.empty_like(K, order="F")
    for k, block in enumerate(blocks):
        a = block.a.astype(np.float64, copy=False)
        delta = block.delta.reshape(b * r, -1).astype(np.float64, copy=False)
        # delta.T is Fortran-contiguous, so BLAS reads it in place; its lower triangle is the
        # upper triangle of the row-major transpose.
        product = blas.dsyrk(1.0, delta.T, trans=1, lower=1, c=product, overwrite_c=1)
        _add_hadamard(K, product.T, a @ a.T, r, k == 0)
    _mirror(K, 32)
    return K


@lazy_njit
def _add_hadamard(K, product, samples, r, overwrite):
    """K (+)= product * (samples + 1 repeated r x r), on the upper triangle."""
    for row in range(K.shape[0]):
        i = row // r
        for j in range(i, samples.shape[0]):
            scale = samples[i, j] + 1.0
            for col in range(j * r, j * r + r):
                if overwrite:
                    K[row, col] = product[row, col] * scale
                else:
                    K[row, col] += product[row, col] * scale


@lazy_njit
def _mirror(K, tile):
    """Copy the upper triangle to the lower one, tile by tile to stay in cache."""
    m = K.shape[0]
    for top in range(0, m, tile):
        for left in range(0, top + 1, tile):
            for row in range(top, min(top + tile, m)):
                for col in range(left, min(left + tile, row)):
                    K[row, col] = K[col, row]


class DenseJacobian:
    """An explicit J (m, t) with the methods of `StackedJacobian`."""

    def __init__(self, J):
        self.xp = array_module(J=J)
        self.J, self.shape, self.dtype = J, J.shape, J.dtype

    def matvec(self, v):
        """Return J v."""
        return self.J @ v

    def rmatvec(self, w):
        """Return J^T w."""
        return self.J.T @ w

    def dense(self):
        """Return J itself."""
        return self.J

    def gram(self):
        """Return J J^T in float64."""
        J = self.J.astype(self.xp.float64, copy=False)
        return J @ J.T

    def norm_squared(self):
        """Return the squared Frobenius norm."""
        return float((self.J.astype(self.xp.float64, copy=False) ** 2).sum())


class Linearisation:
    """Loss at theta on one batch; the gradient or J is computed only when an optimizer asks.

    Parameters
    ----------
    problem : Problem
        Network, solver and loss.
    theta : array (t,)
        Parameters.
    batch : Batch
        Start states x, network inputs and targets.

    Attributes
    ----------
    loss : float
        Mean over the batch of the loss of a sample.
    loss_gradient : array (b, |y|)
        g = dL/dy.
    """

    def __init__(self, problem, theta, batch):
        self.problem, self.theta = problem, theta
        control, self._net_tape = problem.network.forward(theta, batch.net_input)
        y, self._solver_tape = problem.solver.forward(batch.x, control)
        self.loss = float(problem.loss.value(y, batch.target).mean())
        scale = 1 / len(y) if problem.batch_mean else 1.0
        self.loss_gradient = problem.loss.gradient(y, batch.target) * scale

    @property
    def finite(self):
        """False if the loss or its gradient overflowed or became NaN."""
        total = float(abs(self.loss_gradient).sum())
        return math.isfinite(self.loss) and math.isfinite(total)

    def gradient(self):
        """Return dL/dtheta (t,): one backward pass through solver and network."""
        u_bar = self.problem.solver.backward(self._solver_tape, self.loss_gradient)
        return self.problem.network.backward(self.theta, self._net_tape, u_bar)

    def jacobian(self):
        """Return J as a `StackedJacobian` (m, t)."""
        S = self.problem.solver.rows(self._solver_tape)
        return StackedJacobian(self.problem.network, self.theta, self._net_tape, S)
