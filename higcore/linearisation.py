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
    """The rows of J that belong to one layer: row (i, j) is sum_p a_ip (x) delta_ijp.

    p runs over the positions at which the layer's weights W (n_in, n_out) are used: one for a
    dense layer, many for a convolution. The outer product is the derivative with respect to W,
    row-major; sum_p delta_ijp that with respect to the bias (n_out,), which follows in theta.

    Parameters
    ----------
    a : array (b, P, n_in)
        What W multiplies at each position.
    delta : array (b, r, P, n_out)
        Rows pulled back to the layer's pre-activation.
    start : int
        Where the layer's parameters begin in theta.
    """

    def __init__(self, a, delta, start):
        self.a, self.delta, self.start = a, delta, start
        self.positions, self.n_in, self.n_out = a.shape[1], a.shape[2], delta.shape[3]
        self.split = start + self.n_in * self.n_out
        self.stop = self.split + self.n_out

    def matvec(self, v):
        """(b, r): rows times v (t,)."""
        weights = v[self.start : self.split].reshape(self.n_in, self.n_out)
        along = self.a @ weights + v[self.split : self.stop]  # (b, P, n_out)
        b, r = self.delta.shape[:2]
        return (self.delta.reshape(b, r, -1) @ along.reshape(b, -1, 1))[:, :, 0]

    def rmatvec(self, c, out):
        """Write the layer's part of J^T c into out (t,), c (b, r)."""
        b, r = c.shape
        weighted = c[:, None, :] @ self.delta.reshape(b, r, -1)  # (b, 1, r) x (b, r, P n_out)
        weighted = weighted.reshape(-1, self.n_out)
        weights_bar = self.a.reshape(-1, self.n_in).T @ weighted  # (n_in, b P) x (b P, n_out)
        out[self.start : self.split] = weights_bar.reshape(-1)
        out[self.split : self.stop] = weighted.sum(axis=0)

    def explicit(self):
        """The rows themselves, (b, r, (n_in + 1) n_out)."""
        xp = array_module(a=self.a)
        b, r = self.delta.shape[:2]
        a = self.a.transpose(0, 2, 1)[:, None]  # (b, 1, n_in, P) x (b, r, P, n_out)
        outer = (a @ self.delta).reshape(b, r, -1)
        return xp.concatenate([outer, self.delta.sum(axis=2)], axis=2)

    def norm_squared(self):
        """Sum of all squared entries: sum_ij sum_pq (a_ip.a_iq + 1) (delta_ijp.delta_ijq)."""
        inputs = self.a @ self.a.swapaxes(1, 2) + 1  # (b, P, P)
        rows = self.delta @ self.delta.swapaxes(2, 3)  # (b, r, P, P)
        return float((inputs[:, None] * rows).sum())

    def gram_terms(self):
        """Yield (left, right, samples), float64, whose (left right^T) * samples sum up to K.

        left and right are (m, n); samples (b, b) is repeated over the r x r blocks of the product.
        Contracting over pairs of positions costs 2 P^2 n_out operations an entry of K, the
        explicit rows (n_in + 1) n_out, half of it saved by symmetry; the cheaper is taken.
        """
        xp = array_module(a=self.a)
        b, r = self.delta.shape[:2]
        if self.positions > 1 and 2 * self.positions**2 > self.n_in + 1:
            rows = self.explicit().astype(xp.float64, copy=False).reshape(b * r, -1)
            yield rows, rows, xp.ones((b, b))
            return
        a = self.a.astype(xp.float64, copy=False)
        delta = self.delta.astype(xp.float64, copy=False)
        at = [
            xp.ascontiguousarray(delta[:, :, p]).reshape(b * r, -1) for p in range(self.positions)
        ]
        for p in range(self.positions):
            for q in range(self.positions):
                yield at[p], at[q], a[:, p] @ a[:, q].T + 1


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

    @property
    def sample(self):
        """An array that lives where J lives."""
        return self.blocks[0].delta

    def matvec(self, v):
        """Return J v (m,), the tangent, for v (t,)."""
        self._check_vector("v", v, self.shape[1])
        return sum(block.matvec(v.reshape(-1)) for block in self.blocks).reshape(-1)

    def rmatvec(self, w):
        """Return J^T w (t,), one backward pass of the cotangents w (m,)."""
        self._check_vector("w", w, self.shape[0])
        out = self.xp.empty(self.shape[1], np.result_type(self.dtype, w.dtype))
        for block in self.blocks:
            block.rmatvec(w.reshape(self.samples, self.outputs), out)
        return out

    def _check_vector(self, name, vector, size):
        """SciPy also hands over columns (n, 1)."""
        array_module(**{name: vector})
        check_array(name, vector, (size, 1) if len(vector.shape) == 2 else (size,))

    def dense(self):
        """Return J as an array (m, t); takes m t numbers of memory."""
        out = self.xp.empty((self.samples, self.outputs, self.shape[1]), self.dtype)
        for block in self.blocks:
            out[:, :, block.start : block.stop] = block.explicit()
        return out.reshape(self.shape)

    def gram(self):
        """Return K = J J^T (m, m), always float64, in m^2 sum(n_l) operations.

        K = sum_l (delta_l delta_l^T) * (a_l a_l^T + 1) for dense layers, a Hadamard product with
        the sample matrix repeated over the |y| x |y| blocks; see `OuterProductRows.gram_terms`.
        """
        assemble = _gram_triangle if is_host(self.blocks[0].a) else gram_definition
        return assemble(self.blocks)

    def norm_squared(self):
        """Return the squared Frobenius norm of J, an upper bound of max(S)^2."""
        return sum(block.norm_squared() for block in self.blocks)


def gram_definition(blocks):
    """K by the formula, in array code; the oracle of the fast path, and what a GPU runs."""
    xp = array_module(a=blocks[0].a)
    b, r = blocks[0].delta.shape[:2]
    K = xp.zeros((b, r, b, r))
    for block in blocks:
        for left, right, samples in block.gram_terms():
            K += (left @ right.T).reshape(b, r, b, r) * samples[:, None, :, None]
    return K.reshape(b * r, b * r)


def _gram_triangle(blocks):
    """`gram_definition` with half the arithmetic: symmetric rank-k updates of one triangle."""
    from scipy.linalg import blas

    b, r = blocks[0].delta.shape[:2]
    K = np.zeros((b * r, b * r))
    product = np.empty_like(K, order="F")
    for block in blocks:
        for left, right, samples in block.gram_terms():
            # Row-major left is Fortran-contiguous left.T, which BLAS reads in place; what it
            # writes below the diagonal lies above it in the row-major transpose.
            if left is right:
                product = blas.dsyrk(1.0, left.T, trans=1, lower=1, c=product, overwrite_c=1)
            else:
                product = blas.dgemm(1.0, right.T, left.T, trans_a=1, c=product, overwrite_c=1)
            _add_hadamard(K, product.T, samples, r)
    _mirror(K, 32)
    return K


@lazy_njit
def _add_hadamard(K, product, samples, r):
    """K += product * (samples repeated r x r), on the upper triangle and the diagonal blocks."""
    for row in range(K.shape[0]):
        i = row // r
        for j in range(i, samples.shape[0]):
            scale = samples[i, j]
            for col in range(j * r, j * r + r):
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

    @property
    def sample(self):
        """An array that lives where J lives."""
        return self.J

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
    control : array (b, |u|)
        The network's output u.
    scale : float
        dL/dl_i: 1/b if L is a mean over the batch, 1 if it is a sum.
    """

    def __init__(self, problem, theta, batch):
        self.problem, self.theta, self.batch = problem, theta, batch
        self.control, self._net_tape = problem.network.forward(theta, batch.net_input)
        y, self._solver_tape = problem.solver.forward(batch.x, self.control)
        self.loss = float(problem.loss.value(y, batch.target).mean())
        self.scale = 1 / len(y) if problem.batch_mean else 1.0
        self.loss_gradient = problem.loss.gradient(y, batch.target) * self.scale

    @property
    def finite(self):
        """False if the loss or its gradient overflowed or became NaN."""
        total = float(abs(self.loss_gradient).sum())
        return math.isfinite(self.loss) and math.isfinite(total)

    def gradient(self):
        """Return dL/dtheta (t,): one backward pass through solver and network."""
        u_bar = self.problem.solver.backward(self._solver_tape, self.loss_gradient)
        return self.network_gradient(u_bar)

    def network_gradient(self, u_bar):
        """Return (du/dtheta)^T u_bar (t,) for cotangents u_bar (b, |u|) of the control."""
        return self.problem.network.backward(self.theta, self._net_tape, u_bar)

    def solver_rows(self):
        """Return S (b, |y|, |u|), S[i] = dy_i/du_i."""
        return self.problem.solver.rows(self._solver_tape)

    def jacobian(self):
        """Return J as a `StackedJacobian` (m, t)."""
        return StackedJacobian(self.problem.network, self.theta, self._net_tape, self.solver_rows())

    def at(self, theta):
        """Return the `Linearisation` on the same batch at other parameters."""
        return Linearisation(self.problem, theta, self.batch)
