"""What a march leaves behind for a pass back, and its rows of J, sample by sample or summed."""

from __future__ import annotations

from higcore.backend import Array, module_of
from higcore.device.threads import computed_once
from higcore.rows import OuterProductRows


class March:
    """The tape of a `Rollout`: states X (steps + 1, b, n), controls U (steps, b, k), and input."""

    def __init__(self, X: Array, U: Array, given: Array) -> None:
        self.X, self.U, self.given = X, U, given

    def part(self, samples: slice) -> March:
        """The march of some of the samples."""
        return March(self.X[:, samples], self.U[:, samples], self.given[samples])

    @property
    def steps(self) -> int:
        """How many there are."""
        return len(self.U)

    @computed_once
    def starts(self) -> tuple[Array, Array]:
        """x and u at the beginning of every step, each step's b samples after those before."""
        n, k = self.X.shape[2], self.U.shape[2]
        return self.X[:-1].reshape(-1, n), self.U.reshape(-1, k)


def summed(blocks: list[OuterProductRows]) -> Array:
    """Sum (t,) of the rows of all layers, in order, over all samples and cotangents."""
    xp, delta = module_of(blocks[0].a), blocks[0].delta
    found = xp.empty(blocks[-1].stop, delta.dtype)
    for block in blocks:
        block.rmatvec(xp.ones(delta.shape[:2], delta.dtype), found)
    return found


def over_steps(block: OuterProductRows, steps: int) -> OuterProductRows:
    """Rows at samples of every step (steps b, r, P, n) as those of b samples at steps P places."""
    a, delta = block.a, block.delta
    positions, r = block.positions, delta.shape[1]
    a = a.reshape(steps, -1, positions, block.n_in).swapaxes(0, 1)
    delta = delta.reshape(steps, -1, r, positions, block.n_out).transpose(1, 2, 0, 3, 4)
    b, places = len(a), steps * positions
    return OuterProductRows(
        a.reshape(b, places, block.n_in), delta.reshape(b, r, places, block.n_out), block.start
    )
