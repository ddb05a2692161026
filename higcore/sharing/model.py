"""A model whose samples are shared: every rank computes its own, and all have what comes out.

What is done by the samples, forward pass, tangent, backward pass, rows of the solver, their way
through the network, and K in parts, is shared; the rest each rank does as a process alone would.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ..backend import Array
from ..device.threads import computed_once
from ..linearisation import StackedJacobian
from ..protocols import Samples
from ..rows import OuterProductRows
from .ranks import Ranks, Share, digest


class SharedTape(NamedTuple):
    """The tape of this rank's samples, and whose samples are whose."""

    own: Any
    share: Share


class SharedModel:
    """A model, such as `NetworkThenSolver`, with the samples of a batch shared among ranks.

    Takes and returns whole batches, and theta and its cotangents whole, the same bits on all ranks.
    """

    def __init__(self, model: Any, ranks: Ranks) -> None:
        self.model, self.ranks = model, ranks

    def __getattr__(self, name: str) -> Any:
        """Sizes, and what else a model has that is not of a batch."""
        if name == "model":  # of what is only being made, as by `copy`
            raise AttributeError(name)
        return getattr(self.model, name)

    def forward(self, theta: Array, batch: Samples) -> tuple[Array, SharedTape]:
        """Return y (b, |y|) and the tape."""
        (y, tape), share = self._of_batch(self.model.forward, theta, batch)
        return self.ranks.gathered(y, share), SharedTape(tape, share)

    def predict(self, theta: Array, batch: Samples) -> tuple[Any, Array]:
        """Return what controls there are, and y (b, |y|)."""
        (u, y), share = self._of_batch(self.model.predict, theta, batch)
        return None if u is None else self.ranks.gathered(u, share), self.ranks.gathered(y, share)

    def _of_batch(self, call, theta, batch):
        """``call`` of this rank's samples, once it is seen that all ranks have the same batch."""
        given: Any = batch
        share, seen = self.ranks.share(len(batch.x)), digest(theta, batch.x, batch.net_input)
        arrays = (None if array is None else array[share.own] for array in given)
        own = type(given)(*arrays)
        return self.ranks.together(lambda: call(theta, own), seen), share

    def tangent(self, theta: Array, tape: SharedTape, dtheta: Array) -> Array:
        """Return dy (b, |y|)."""
        return self._gathered(tape, lambda: self.model.tangent(theta, tape.own, dtheta))

    def backward(self, theta: Array, tape: SharedTape, y_bar: Array) -> Array:
        """Return theta_bar (t,)."""
        own = self.ranks.own(y_bar, tape.share)
        return self._summed(lambda: self.model.backward(theta, tape.own, own))

    def network_gradient(self, theta: Array, tape: SharedTape, u_bar: Array) -> Array:
        """Return (du/dtheta)^T u_bar (t,), where a network comes before a solver."""
        own = self.ranks.own(u_bar, tape.share)
        return self._summed(lambda: self.model.network_gradient(theta, tape.own, own))

    def control(self, tape: SharedTape) -> Array:
        """Return u (b, |u|), where a network comes before a solver."""
        return self._gathered(tape, lambda: self.model.control(tape.own))

    def solver_rows(self, tape: SharedTape) -> Array:
        """Return S (b, |y|, |u|), where a network comes before a solver."""
        return self._gathered(tape, lambda: self.model.solver_rows(tape.own))

    def jacobian(
        self, theta: Array, tape: SharedTape, y: Array, tile: int | None = None
    ) -> SharedJacobian:
        """Return J, of which every rank pulls its own rows back."""
        own, share = y[tape.share.own], tape.share
        J = self.ranks.together(lambda: self.model.jacobian(theta, tape.own, own))
        return SharedJacobian(J, self.ranks, share, tile)

    def _gathered(self, tape, work):
        return self.ranks.gathered(self.ranks.together(work), tape.share)

    def _summed(self, work):
        return self.ranks.summed(self.ranks.together(work))


class SharedJacobian(StackedJacobian):
    """J of a batch whose rows ranks pull back each for its own samples; see `StackedJacobian`.

    The row factors, which are small, are gathered: what is made of them has the bits that a process
    alone would find. K is multiplied in parts, by the same products, and the parts are exchanged.
    In tiles, a tile is gathered at a time, and products with J are sums over ranks.

    Parameters
    ----------
    own : StackedJacobian
        That of this rank's samples.
    ranks, share
        Whose samples are whose.
    tile : int, optional
        As for a `StackedJacobian`.
    """

    def __init__(
        self, own: StackedJacobian, ranks: Ranks, share: Share, tile: int | None = None
    ) -> None:
        self._own, self.ranks, self._share = own.in_tiles(tile), ranks, share
        self.theta, self.where, self.dtype = own.theta, own.where, own.dtype
        self.samples, self.outputs = sum(share.counts), own.outputs
        self.shape = self.samples * self.outputs, own.shape[1]
        self.tile = self.samples if tile is None else min(int(tile), self.samples)

    def in_tiles(self, tile: int | None) -> SharedJacobian:
        """Return the same J with the row factors of ``tile`` samples at a time, None for all."""
        found = self._of(self._own, tile)
        return self if found.tile == self.tile else found

    def _of(self, own: StackedJacobian, tile: int | None) -> SharedJacobian:
        return SharedJacobian(own, self.ranks, self._share, tile)

    @computed_once
    def S(self) -> Array:
        """Jacobian of the solver (b, |y|, |u|), which no product with J needs."""
        return self.ranks.gathered(self._own.S, self._share)

    @computed_once
    def blocks(self) -> list[OuterProductRows]:
        """The row factors of all samples."""
        own = self.ranks.together(lambda: self._own.blocks)
        return self._gathered(own, self._share)

    def _factors(self, samples: slice) -> list[OuterProductRows]:
        """The row factors of a slice of the samples."""
        if self.whole:
            return super()._factors(samples)
        share = self.ranks.share_of(self._share, samples)
        own = self.ranks.together(lambda: self._own._factors(share.own))
        return self._gathered(own, share)

    def _gathered(self, blocks: list[OuterProductRows], share: Share) -> list[OuterProductRows]:
        def whole(array):
            return self.ranks.gathered(array, share)

        return [OuterProductRows(whole(b.a), whole(b.delta), b.start, b.bias) for b in blocks]

    def matvec(self, v: Array) -> Array:
        """Return J v (m,) for v (t,)."""
        if self.whole:
            return super().matvec(v)
        own = self.ranks.together(lambda: self._own.matvec(v))
        return self.ranks.gathered(own.reshape(-1, self.outputs), self._share).reshape(-1)

    def rmatvec(self, w: Array) -> Array:
        """Return J^T w (t,) for w (m,)."""
        if self.whole:
            return super().rmatvec(w)
        own = self.ranks.own(w.reshape(self.samples, self.outputs), self._share)
        return self.ranks.summed(self.ranks.together(lambda: self._own.rmatvec(own.reshape(-1))))

    def scaled(self, exponent: int) -> SharedJacobian:
        """Return 2^-exponent J, in factors whose products of two do not overflow."""
        return self._of(self._own.scaled(exponent), self.tile)

    def weighted(self, roots: Array | None) -> SharedJacobian:
        """Return diag(roots) J for roots (b, |y|), J itself for None."""
        if roots is None:
            return self
        own = self._own.weighted(roots[self._share.own])
        return self._of(own, self.tile)
