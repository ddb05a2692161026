"""A network as a function of its parameters, and what only a network has: init and row factors."""

from __future__ import annotations

import numpy as np

from ..backend import module_of
from ..device.threads import computed_once
from ..linearisation import StackedJacobian
from .diagnosis import Claim
from .differences import Estimate
from .differentiable import Differentiable
from .examination import host

ROWS = 2  # of S, a sample
SHAKE = 0.1  # of theta, relative to its size: no bias stays 0, where ReLU may have its kink
NO_SHAPES = "not given: a step is taken to fit into memory"  # for estimates believe them
NO_PART = "no part(tape, samples): row factors are made for all samples"


class ParametrisedNetwork(Differentiable):
    """theta -> u of a network, at inputs x."""

    name, arguments, axes, contraction = "forward", "theta and x", ("theta", "u"), "ij,ijk->k"

    def initial_parameters(self):
        """Parameters from ``init``, which must follow its generator and dtype; shaken a little."""
        theta, again = (self.given.init(np.random.default_rng(0), self.dtype) for _ in range(2))
        found = self.array("init", theta, (self.given.size,))
        claim = "init gives other parameters for a generator of the same seed"
        self.compare("init, the same seed again", claim, host(again), found)
        scale = SHAKE * (np.sqrt((found * found).mean()) or 1.0)
        return self.xp.asarray(theta) + self.draw(len(found)) * self.dtype.type(scale)

    @computed_once
    def tape(self):
        return self.call("forward", self.v, self.x)[1]

    def function(self, theta, samples=slice(None)):
        return self.call("forward", theta, self.x[samples])[0]

    def tangent(self, dtheta):
        return self.call("tangent", self.v, self.tape, dtheta)

    def adjoint(self, u_bar):
        return self.call("backward", self.v, self.tape, u_bar)

    def stacked(self, S, tile=None):
        return StackedJacobian(self.given, self.v, self.tape, S, tile)

    def results(self, u_bar):
        J = self.stacked(module_of(u_bar).stack([u_bar] * ROWS, axis=1))
        return super().results(u_bar) | {"J": (J.dense(), J.shape)}

    def check_jacobian(self):
        """J = S du/dtheta as a `StackedJacobian`, with everything that is made of its factors."""
        S = self.draw_cotangents(len(self.x), ROWS, self.shape[1])
        J = self.stacked(S * self.xp.asarray(~self.jacobian.noisy))
        columns = self.jacobian.columns.einsum("iru,iuk->irk", host(J.S))
        columns = Estimate(*(part.reshape(J.shape[0], -1) for part in columns))
        self.run("rows", self.check_rows, J, columns)
        self.run("products", self.check_products, J)
        self.run("J J^T", self.check_gram, J, columns)
        self.run("factor_shapes", self.check_factor_shapes, J)
        self.run("tiles", self.check_tiles, J)

    def check_rows(self, J, columns):
        """J against differences; the blocks of rows must cover theta."""
        self.add("rows", "all of theta, in order", *_coverage(J.blocks, J.shape[1]))
        claim = Claim("J, made of rows,", "S du/dtheta", "theta")
        self.compare_columns("J", claim, host(J.dense()), columns)

    def check_products(self, J):
        v, w, S = self.draw(J.shape[1]), self.draw(J.shape[0]), host(J.S)
        if not self.lacks("tangent", "J v = S tangent"):
            S_du = np.einsum("iru,iu->ir", S, host(self.tangent(v))).ravel()
            claim = Claim("J v", "S times tangent(v)", "the rows")
            self.compare("J v = S tangent", claim, host(J.matvec(v)), S_du)
        u_bar = np.einsum("iru,ir->iu", S, host(w).reshape(S.shape[:2])).astype(self.dtype)
        theta_bar = host(self.adjoint(self.xp.asarray(u_bar)))
        claim = Claim("J^T w", "backward of S^T w", "theta")
        self.compare("J^T w = backward", claim, host(J.rmatvec(w)), theta_bar)

    def check_gram(self, J, columns):
        """J J^T against the product of differences, or of J where these are not all of it."""
        claim = Claim("J J^T", "the product of J with its transpose", "the rows")
        K = host(J.gram())
        if self.jacobian.complete:
            D, uncertainty = columns
            slack = uncertainty @ abs(D).T
            product = Estimate(D @ D.T, slack + slack.T)
            self.compare("J J^T against differences", claim, K, product)
        else:
            D = host(J.dense())
            self.compare("J J^T = product of J", claim, K, D @ D.T)

    def check_factor_shapes(self, J):
        if self.lacks("factor_shapes", "factor_shapes", NO_SHAPES):
            return
        seen = [tuple(shape) for shape in self.given.factor_shapes]
        expected = [(block.positions, block.n_in, block.n_out) for block in J.blocks]
        wrong = "" if seen == expected else f"factor_shapes is {seen} where rows has {expected}"
        self.add("factor_shapes", "those of rows", "others" if wrong else "the same", wrong)

    def check_tiles(self, J):
        if not self.lacks("part", "tiles", NO_PART):
            claim = Claim("J J^T in tiles", "J J^T at once", "the rows")
            in_tiles, at_once = self.stacked(J.S, tile=1).gram(), J.gram()
            self.compare("J J^T in tiles", claim, host(in_tiles), host(at_once))


def _coverage(blocks, size):
    """What the blocks cover, and what is wrong with it."""
    starts = [*(block.start for block in blocks), size]
    stops = [0, *(block.stop for block in blocks)]
    if starts == stops:
        return f"{len(blocks)} blocks", ""
    spans = ", ".join(f"{block.start} to {block.stop}" for block in blocks)
    return "gaps or overlaps", f"rows covers theta from {spans} of {size} parameters"
