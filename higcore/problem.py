"""What is trained: a network, a solver, a loss and data."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, SupportsIndex, overload

import numpy as np

from .backend import Array, array_module, same_fields, to_device
from .device.threads import computed_once
from .linearisation import Linearisation
from .protocols import Loss, Network, Solver
from .validation import (
    check_arrays,
    check_callable,
    check_choice,
    check_count,
    check_finite,
    check_flag,
    check_like,
)

NETWORK = ("size", "input_size", "output_size", "init", "forward", "backward", "rows")
SOLVER = ("state_size", "control_size", "output_size", "solve", "forward", "backward", "rows")
EVALUATION_CHUNK = 4096  # samples evaluated at once: bounds the memory of a large test set


@dataclass(frozen=True, eq=False)
class Batch:
    """Samples: solver inputs x (b, |x|), network inputs (b, n_0) and targets (b, |y|).

    ``==`` compares dtypes and values, NaN equal to NaN; a Batch has no hash, as arrays have none.
    """

    x: Array
    net_input: Array
    target: Array

    __eq__ = same_fields

    def __iter__(self) -> Iterator[Array]:
        """The three arrays."""
        return iter((self.x, self.net_input, self.target))

    @overload
    def __getitem__(self, index: slice) -> Batch: ...
    @overload
    def __getitem__(self, index: SupportsIndex) -> Array: ...
    def __getitem__(self, index: slice | SupportsIndex) -> Batch | Array:
        """Field by number, or the samples of a slice as a new Batch."""
        if isinstance(index, slice):
            return Batch(*(array[index] for array in self))
        return tuple(self)[index]

    @property
    def count(self) -> int:
        """Number of samples."""
        return len(self.x)

    def take(self, step: int, size: int) -> Batch:
        """The batch of a step: consecutive samples, the same order in every epoch."""
        first = step % math.ceil(self.count / size) * size
        return self[first : first + size]

    def beside(self, steps: range, size: int, count: int) -> Batch | None:
        """Up to ``count`` samples, spread evenly over those that no batch of some steps holds.

        None if these hold all.
        """
        free = self.count - len(steps) * size
        if free <= 0:
            return None
        last = steps[-1] % math.ceil(self.count / size)
        count, xp = min(count, free), array_module(x=self.x)
        index = ((last + 1) * size + xp.arange(count) * free // count) % self.count
        return Batch(*(array[index] for array in self))

    def on(self, device: str) -> Batch:
        """The same samples on ``device``, ``"cpu"`` or ``"gpu"``."""
        for name, array in vars(self).items():
            array_module(**{name: array})  # which names what is no array
        return Batch(*(to_device(array, device) for array in self))


@dataclass(frozen=True, eq=False)
class FreshData:
    """New samples in every step, a function of (seed, step) alone.

    Equal to another if seed, count and device are, and ``draw`` is the same function, or a
    `functools.partial` or method of equal parts.

    Parameters
    ----------
    draw : callable
        (rng, size) -> Batch of NumPy arrays. If the problem is to go to another process, a function
        or class of a module: pickle takes neither a lambda nor a function within another.
    seed : int
        Together with the step it seeds the generator.
    count : int
        How many samples are called an epoch.
    device : {"cpu", "gpu"}
        Where the batches are put.
    """

    draw: Callable[[np.random.Generator, int], Batch]
    seed: int = 0
    count: int = 4096
    device: str = "cpu"

    __eq__ = same_fields

    def __hash__(self) -> int:
        return hash((self.seed, self.count, self.device))

    def __post_init__(self) -> None:
        check_count("seed", self.seed, 0)
        check_count("count", self.count)
        check_choice("device", self.device, ("cpu", "gpu"))

    def take(self, step: int, size: int) -> Batch:
        """The batch of a step."""
        check_callable("draw", self.draw)
        batch = self.draw(np.random.default_rng([self.seed, 2, step]), size)
        if not isinstance(batch, Batch):
            raise TypeError(f"draw must return a Batch, got {type(batch).__name__}")
        batch = batch.on(self.device)
        if batch.count != size:
            raise ValueError(f"draw must return {size} samples, got {batch.count}")
        return batch

    def beside(self, steps: range, size: int, count: int) -> Batch:
        """About ``count`` samples, those of the next steps, of ``size`` samples each."""
        batches = [self.take(steps[-1] + 1 + k, size) for k in range(max(1, count // size))]
        xp = array_module(x=batches[0].x)
        return Batch(*(xp.concatenate(arrays) for arrays in zip(*batches, strict=True)))

    def on(self, device: str) -> FreshData:
        """The same samples on ``device``."""
        return replace(self, device=device)


@dataclass(frozen=True, eq=False)
class Problem:
    r"""Minimise the mean over samples of l(solver(x_i, network(theta, input_i)), target_i).

    Parameters
    ----------
    network : object
        ``size``, ``input_size``, ``output_size``, ``init``, ``forward``, ``backward``, ``rows``;
        see `nets.MLP`.
    solver : object
        ``state_size``, ``control_size``, ``output_size``, ``solve``, ``forward``, ``backward``,
        ``rows``; `solvers.Solver` makes them from ``solve`` and one derivative.
    loss : object
        ``value`` and ``gradient`` of one sample; see `higcore.losses`.
    train : Batch or FreshData
        Data, float32 or float64, NumPy or CuPy; everything is computed where and as they are.
    test : Batch
        Data for the test loss.
    batch_mean : bool
        Whether g = dL/dy is divided by the batch size (L a mean), or not (L a sum).

    Notes
    -----
    Two problems are equal if all their parts are: by the part's own ``==`` or, if its class has
    none, if class and attributes are the same. A Problem has no hash, as its data have none.
    """

    network: Network
    solver: Solver
    loss: Loss
    train: Batch | FreshData
    test: Batch
    batch_mean: bool = True
    name: str = "problem"

    __eq__ = same_fields

    def __post_init__(self) -> None:
        _check_has("network", self.network, NETWORK, "layers in a nets.Network have them all")
        _check_has("solver", self.solver, SOLVER, "a subclass of solvers.Solver has them all")
        check_flag("batch_mean", self.batch_mean)
        if self.network.output_size != self.solver.control_size:
            raise ValueError(
                f"network has {self.network.output_size} outputs but solver takes "
                f"{self.solver.control_size} control values; they must agree"
            )
        if not (hasattr(self.loss, "value") and hasattr(self.loss, "gradient")):
            raise TypeError(f"loss must have value and gradient, got {self.loss!r}")
        if not isinstance(self.train, (Batch, FreshData)):
            raise TypeError(f"train must be a Batch or FreshData, got {type(self.train).__name__}")
        for name, batch in {"train": self.sample, "test": self.test}.items():
            self.check_batch(name, batch)
            for field in fields(batch):
                check_finite(f"{name}.{field.name}", getattr(batch, field.name))
        self.check_like_train("test.x", self.test.x)

    @computed_once
    def sample(self) -> Batch:
        """Training data to look at: all of a Batch, the first sample of FreshData."""
        return self.train if isinstance(self.train, Batch) else self.train.take(0, 1)

    def check_batch(self, label: str, batch: Batch) -> None:
        """Raise unless ``batch`` is a Batch that fits network and solver; its values may be any."""
        if not isinstance(batch, Batch):
            raise TypeError(f"{label} must be a Batch, got {type(batch).__name__}")
        given: dict[str, Any] = {
            f"{label}.x": (batch.x, ("samples", self.solver.state_size)),
            f"{label}.net_input": (batch.net_input, ("samples", self.network.input_size)),
            f"{label}.target": (batch.target, ("samples", self.solver.output_size)),
        }
        check_arrays(**given)

    def check_like_train(self, name: str, array: Array) -> None:
        """Raise unless ``array`` lives where the training data live, in their dtype."""
        check_like(name, array, array.shape, **{"train.x": self.sample.x})

    def steps_per_epoch(self, batch: int) -> int:
        """Number of batches of ``batch`` samples that cover the training data once."""
        check_count("batch", batch)
        if batch > self.train.count:
            raise ValueError(
                f"batch must be at most the number of training samples, {self.train.count}; "
                f"got {batch}"
            )
        return math.ceil(self.train.count / batch)

    def batch(self, step: int, batch: int) -> Batch:
        """Return the samples of a step, ``batch`` of them but for the last step of an epoch."""
        check_count("step", step, 0)
        self.steps_per_epoch(batch)
        return self.train.take(step, batch)

    def linearise(self, theta: Array, batch: Batch) -> Linearisation:
        """Return the `Linearisation` at theta (t,) on a batch."""
        return Linearisation(self, theta, batch)

    def predict(self, theta: Array, batch: Batch) -> tuple[Array, Array]:
        """Return the control u (b, |u|) and the solver's output y (b, |y|)."""
        self.check_batch("batch", batch)
        return self._outputs(theta, batch)

    def _outputs(self, theta: Array, batch: Batch) -> tuple[Array, Array]:
        u, _ = self.network.forward(theta, batch.net_input)
        return u, self.solver.solve(batch.x, u)

    def evaluate(self, theta: Array, batch: Batch | None = None, loss: Loss | None = None) -> float:
        """Return the mean of a sample's loss over ``batch``, by default test loss on test data."""
        batch, loss = self.test if batch is None else batch, loss or self.loss
        self.check_batch("batch", batch)
        total = 0.0
        for first in range(0, len(batch.x), EVALUATION_CHUNK):
            part = batch[first : first + EVALUATION_CHUNK]
            total += float(loss.value(self._outputs(theta, part)[1], part.target).sum())
        return total / len(batch.x)

    def on(self, device: str) -> Problem:
        """Return the same problem with its data on ``device``, ``"cpu"`` or ``"gpu"``."""
        return replace(self, train=self.train.on(device), test=self.test.on(device))


def _check_has(name, thing, wanted, advice):
    missing = [attribute for attribute in wanted if not hasattr(thing, attribute)]
    if missing:
        raise TypeError(
            f"{name} must have {', '.join(wanted)}; {type(thing).__name__} lacks "
            f"{', '.join(missing)} ({advice})"
        )
