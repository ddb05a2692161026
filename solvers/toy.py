"""The ill-conditioned toy of section 2.1: the second output is scaled by gamma."""

from __future__ import annotations

from dataclasses import dataclass

from higcore.backend import Array, array_module
from higcore.validation import check_cotangents, check_like, check_real

from .base import TapedSolver


@dataclass(frozen=True)
class ScaledOutputs(TapedSolver):
    """y = (u_1, gamma u_2), so that the loss is eq. 4 of the paper.

    Parameters
    ----------
    gamma : float
        Scale of the second output; 1 is well-conditioned, 0.01 is not.

    Notes
    -----
    ``x`` (b, 1) is the abscissa; it is handed to the network and not used here.
    """

    gamma: float = 0.01

    def __post_init__(self) -> None:
        check_real("gamma", self.gamma)

    state_size = 1
    control_size = 2
    output_size = 2

    def forward(self, x: Array, u: Array) -> tuple[Array, tuple[Array, int]]:
        """Return y (b, 2) and the tape, the scales (2,) and the batch size."""
        xp = self.check_inputs(x, u)
        scales = xp.asarray([1.0, self.gamma], u.dtype)
        return u * scales, (scales, len(u))

    def tangent(self, x: Array, u: Array, du: Array) -> Array:
        """Return dy (b, 2) along du (b, 2)."""
        scales, _ = self.forward(x, u)[1]
        check_like("du", du, u.shape, u=u)
        return du * scales

    def backward(self, tape: tuple[Array, int], y_bar: Array) -> Array:
        """Pull cotangents back: y_bar (..., 2) to u_bar alike."""
        scales, b = tape
        check_cotangents("y_bar", y_bar, b, self.output_size, tape=scales)
        return y_bar * scales

    def rows(self, tape: tuple[Array, int]) -> Array:
        """Return S (b, 2, 2), the same diagonal matrix for every sample."""
        scales, b = tape
        xp = array_module(scales=scales)
        return xp.broadcast_to(xp.diag(scales), (b, 2, 2))
