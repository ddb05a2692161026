"""The examination of a network."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from ..linearisation import StackedJacobian
from .diagnosis import Claim
from .shared import NOT_GIVEN, Differentiable, host

ROWS = 2  # of S, a sample
SHAKE = 0.1  # of theta, relative to its size: no bias stays 0, where ReLU may have its kink


def examine_network(exam, network, theta, x, outputs):
    """Add the rows of `check_network` to an `Examination`, at theta or what ``init`` gives."""
    with exam.part("init"):
        drawn = _init(exam, network)
        theta = drawn if theta is None else theta
    if theta is None:
        return
    examination = _NetworkExamination(exam, network, theta, x, outputs)
    if examination.forward():
        examination.derivatives()
        examination.again()
        if exam.dtype == np.float64:
            examination.single_precision()
    else:
        exam.skip("everything else", "it takes a forward that works")
    exam.unchanged()


def _init(exam, network):
    """Parameters from ``init``, which must follow its generator and the dtype asked for."""
    theta = network.init(np.random.default_rng(0), exam.dtype)
    found = exam.array("init", theta, (network.size,))
    again = host(network.init(np.random.default_rng(0), exam.dtype))
    claim = "init gives other parameters for a generator of the same seed"
    exam.compare("init, the same seed again", claim, again, found)
    scale = SHAKE * (np.sqrt((found * found).mean()) or 1.0)
    return exam.xp.asarray(theta) + exam.draw(network.size) * exam.dtype.type(scale)


class _NetworkExamination:
    def __init__(self, exam, network, theta, x, outputs):
        self.exam, self.network, self.theta, self.x = exam, network, theta, x
        self.u = self.tape = None
        self.f = Differentiable(
            function=lambda theta: exam.call("forward", network.forward, theta, x)[0],
            tangent=self.tangent if hasattr(network, "tangent") else None,
            adjoint=lambda u_bar: exam.call("backward", network.backward, theta, self.tape, u_bar),
            v=theta,
            shape=(len(x), outputs),
            contraction="ij,ijk->k",
            axes=("theta", "u"),
            adjoint_name="backward",
        )

    def tangent(self, dtheta):
        """Call tangent."""
        return self.exam.call("tangent", self.network.tangent, self.theta, self.tape, dtheta)

    def forward(self):
        """True if u is an array that the rest can be compared with."""
        exam, forward = self.exam, self.network.forward
        with exam.part("forward"):
            u, self.tape = exam.call("forward", forward, self.theta, self.x)
            u = exam.array("forward", u, self.f.shape)
            exam.alone("forward", u, lambda i: forward(self.theta, self.x[i].copy())[0])
            self.u = u
        return self.u is not None

    def derivatives(self):
        """Tangent, backward and the rows against differences and against each other."""
        exam = self.exam
        with exam.part("differences"):
            self.columns = exam.columns(self.f)
            with exam.part("tangent"):
                exam.tangent(self.f, self.columns)
            with exam.part("backward"):
                exam.adjoint(self.f, self.columns)
            self.stacked()
        with exam.part("dot test"):
            exam.dot(self.f)

    def stacked(self):
        """J = S du/dtheta as a `StackedJacobian`, with everything that is made of its factors."""
        exam, network = self.exam, self.network
        S = exam.cotangents(len(self.x), ROWS, self.f.shape[1])
        S = S * exam.xp.asarray(~self.columns.rough)
        J = StackedJacobian(network, self.theta, self.tape, S)
        with exam.part("rows"):
            exam.add("rows", "all of theta, in order", *_coverage(J.blocks, network.size))
            self.rows(J, host(S))
        with exam.part("products"):
            self.products(J, host(S), "")
        with exam.part("J J^T"):
            self.gram(J, host(S))
        with exam.part("factor_shapes"):
            self.shapes(J.blocks)
        if not hasattr(network, "part"):
            exam.skip("tiles", "no part(tape, samples): row factors are made for all samples")
            return
        with exam.part("tiles"):
            tiled = StackedJacobian(network, self.theta, self.tape, S, tile=1)
            self.products(tiled, host(S), " in tiles")
            claim = Claim("J J^T in tiles", "J J^T at once", "the rows")
            exam.compare("J J^T in tiles", claim, host(tiled.gram()), host(J.gram()))

    def rows(self, J, S):
        """The entries of J against differences."""
        value, uncertainty = self._by_differences(S)
        columns = self.columns
        self.exam.judge(
            f"J against differences{columns.share}",
            Claim("J, made of rows,", "S du/dtheta", "theta"), columns,
            host(J.dense())[:, columns.numbers], value, uncertainty, components=columns.numbers,
        )  # fmt: skip

    def _by_differences(self, S):
        """Columns of J (m, k) and their uncertainty."""
        parts = (S, self.columns.value), (abs(S), self.columns.uncertainty)
        return (np.einsum("iru,iuk->irk", *part).reshape(-1, part[1].shape[2]) for part in parts)

    def products(self, J, S, how):
        """J v and J^T w against tangent and backward."""
        exam = self.exam
        v, w = exam.draw(J.shape[1]), exam.draw(J.shape[0])
        if self.f.tangent:
            expected = np.einsum("iru,iu->ir", S, host(self.f.tangent(v)))
            claim = Claim(f"J v{how}", "S times tangent(v)", "the rows")
            exam.compare(f"J v{how} = S tangent", claim, host(J.matvec(v)), expected.ravel())
        else:
            exam.skip(f"J v{how} = S tangent", NOT_GIVEN.format("tangent"))
        u_bar = np.einsum("iru,ir->iu", S, host(w).reshape(S.shape[:2])).astype(exam.dtype)
        expected = host(self.f.adjoint(exam.xp.asarray(u_bar)))
        claim = Claim(f"J^T w{how}", "backward of S^T w", "theta")
        exam.compare(f"J^T w{how} = backward", claim, host(J.rmatvec(w)), expected)

    def gram(self, J, S):
        """J J^T against the product of differences, or of J where these are not all of it."""
        exam, claim = self.exam, Claim("J J^T", "the product of J with its transpose", "the rows")
        K = J.gram()
        if not self.columns.complete:
            D = host(J.dense())
            exam.compare("J J^T = product of J", claim, host(K), D @ D.T)
            return
        D, unsure = self._by_differences(S)
        slack = unsure @ abs(D).T
        exam.judge(
            "J J^T against differences", claim, self.columns, host(K), D @ D.T, slack + slack.T
        )

    def shapes(self, blocks):
        """``factor_shapes``, which estimates of memory believe."""
        if not hasattr(self.network, "factor_shapes"):
            self.exam.skip("factor_shapes", "not given: a step is taken to fit into memory")
            return
        seen = [tuple(shape) for shape in self.network.factor_shapes]
        expected = [(block.positions, block.n_in, block.n_out) for block in blocks]
        wrong = "" if seen == expected else f"factor_shapes is {seen} where rows has {expected}"
        self.exam.add("factor_shapes", "those of rows", "others" if wrong else "the same", wrong)

    def again(self):
        """The same once more: nothing may be random, or remembered."""
        exam = self.exam
        with exam.part("forward, again"):
            claim = "forward gives another u for the same theta and x the second time"
            exam.compare_values("forward, again", claim, self.f.value(self.theta), self.u)

    def single_precision(self):
        """float32 arrays in, float32 arrays out, unless forward refuses them."""
        exam, network = self.exam, self.network
        theta, x = self.theta.astype(np.float32), self.x.astype(np.float32)
        try:
            u, tape = network.forward(theta, x)
        except Exception as error:
            exam.skip("float32 in", f"forward raised {type(error).__name__}")
            return
        with exam.part("float32 in"):
            u_bar = exam.cotangents(*self.f.shape).astype(np.float32)
            S = exam.draw(len(x), ROWS, u.shape[1]).astype(np.float32)
            J = StackedJacobian(network, theta, tape, S)
            found = {
                "forward": (u, self.f.shape),
                "backward": (network.backward(theta, tape, u_bar), theta.shape),
                "J": (J.dense(), J.shape),
            }
            if self.f.tangent:
                found["tangent"] = network.tangent(theta, tape, theta), u.shape
            exam.float32(found, theta, u_bar)


def _coverage(blocks, size):
    """What the blocks cover, and what is wrong with it."""
    bounds = [0, *(n for block in blocks for n in (block.start, block.stop)), size]
    if all(stop == start for stop, start in list(pairwise(bounds))[::2]):
        return f"{len(blocks)} blocks", ""
    spans = ", ".join(f"{block.start} to {block.stop}" for block in blocks)
    return "gaps or overlaps", f"rows covers theta from {spans} of {size} parameters"
