"""What is trained: a network, a solver, a loss and data."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from typing import Any, SupportsIndex, overload

import numpy as np

from .backend import Array, array_module, same_fields, to_device
from .device.threads import computed_once
from .linearisation import Linearisation
from .losses import Penalised, check_is_loss, ridge_loss, target_size
from .model import Model, NetworkThenSolver, WithControl
from .protocols import Loss, Network, Solver
from .sharing.model import SharedModel
from .sharing.ranks import ALONE, Alone, Ranks
from .validation import (
    check_arrays,
    check_callable,
    check_choice,
    check_count,
    check_finite,
    check_flag,
    check_has,
    check_index,
    check_like,
    check_real,
    check_real_field,
)

NETWORK = ("size", "input_size", "output_size", "init", "forward", "backward", "rows")
SOLVER = ("state_size", "control_size", "output_size", "solve", "forward", "backward", "rows")
MODEL = (*NETWORK, "state_size", "predict", "jacobian")
EVALUATION_CHUNK = 4096  # samples evaluated at once: bounds the memory of a large test set


@dataclass(frozen=True, eq=False)
class Batch:
    """Samples: solver inputs x (b, |x|), network inputs (b, n_0) and targets (b, |y|).

    A loss may ask for wider targets, as `losses.WeightedSamples` does.

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
    def __getitem__(self, index: slice | np.ndarray) -> Batch: ...
    @overload
    def __getitem__(self, index: SupportsIndex) -> Array: ...
    def __getitem__(self, index: slice | Array | SupportsIndex) -> Batch | Array:
        """Field by number, or samples as a new Batch: of a slice, or an array of indices or a mask.

        Indices (k,) are integers, those below 0 counted from the end, and may come again; a mask
        (b,) is True where a sample is wanted. Arrays live where the samples live.
        """
        if getattr(index, "ndim", 0):
            check_index("index", index, x=self.x)
        elif not isinstance(index, slice):
            return tuple(self)[index]
        return Batch(*(array[index] for array in self))

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
class Shuffled(Batch):
    """Samples in another order in every epoch, a function of (seed, epoch) alone.

    `fit` makes it of a Batch with ``shuffle=True`` and its own seed.
    """

    seed: int = 0

    def __post_init__(self) -> None:
        check_count("seed", self.seed, 0)

    def take(self, step: int, size: int) -> Batch:
        """The batch of a step: the next samples in the order of its epoch."""
        return self._at(self._held(step, size))

    def beside(self, steps: range, size: int, count: int) -> Batch | None:
        """Up to ``count`` samples, spread evenly over those that no batch of some steps holds.

        None if these hold all. The steps may be of two epochs.
        """
        is_free = np.ones(self.count, bool)
        for step in steps:
            is_free[self._held(step, size)] = False
        free = np.flatnonzero(is_free)
        if not len(free):
            return None
        count = min(count, len(free))
        return self._at(free[np.arange(count) * len(free) // count])

    def on(self, device: str) -> Shuffled:
        """The same samples on ``device``, in the same orders."""
        x, net_input, target = self[:].on(device)
        return Shuffled(x, net_input, target, self.seed)

    def _held(self, step: int, size: int) -> np.ndarray:
        """Numbers of the samples in the batch of a step, on the host."""
        epoch, k = divmod(step, math.ceil(self.count / size))
        return _order(self.count, self.seed, epoch)[k * size : (k + 1) * size]

    def _at(self, index: np.ndarray) -> Batch:
        index = array_module(x=self.x).asarray(index)
        return Batch(*(array[index] for array in self))


@lru_cache(maxsize=4)  # every step asks for that of its epoch
def _order(count: int, seed: int, epoch: int) -> np.ndarray:
    order = np.random.default_rng([seed, 3, epoch]).permutation(count)
    order.setflags(write=False)
    return order


@dataclass(frozen=True, eq=False)
class FreshData:
    """New samples in every step, a function of (seed, step) alone.

    Equal to another if seed, count and device are, and ``draw`` is the same function, or a
    `functools.partial` or method of equal parts.

    Parameters
    ----------
    draw : callable
        (rng, size) -> Batch of NumPy arrays; with a ``source``, -> indices (size,) of its samples.
        If the problem is to go to another process, a function or class of a module: pickle takes
        neither a lambda nor a function within another.
    seed : int
        Together with the step it seeds the generator.
    count : int
        How many samples are called an epoch.
    device : {"cpu", "gpu"}
        Where the batches are put.
    source : Batch, optional
        NumPy arrays, of which ``draw`` chooses samples, with replacement or by their importance.

    Examples
    --------
    >>> known = Batch(*np.arange(30.0).reshape(3, 10, 1))
    >>> data = FreshData(lambda rng, size: rng.integers(0, 10, size), count=10, source=known)
    >>> data.take(step=0, size=4).x.shape
    (4, 1)
    """

    draw: Callable[[np.random.Generator, int], Any]
    seed: int = 0
    count: int = 4096
    device: str = "cpu"
    source: Batch | None = None

    __eq__ = same_fields

    def __hash__(self) -> int:
        return hash((self.seed, self.count, self.device))

    def __post_init__(self) -> None:
        check_count("seed", self.seed, 0)
        check_count("count", self.count)
        check_choice("device", self.device, ("cpu", "gpu"))
        if not (self.source is None or isinstance(self.source, Batch)):
            raise TypeError(f"source must be a Batch, got {type(self.source).__name__}")

    def take(self, step: int, size: int) -> Batch:
        """The batch of a step."""
        check_callable("draw", self.draw)
        batch = self._chosen(self.draw(np.random.default_rng([self.seed, 2, step]), size))
        if not isinstance(batch, Batch):
            raise TypeError(f"draw must return a Batch, got {type(batch).__name__}")
        batch = batch.on(self.device)
        if batch.count != size:
            raise ValueError(f"draw must return {size} samples, got {batch.count}")
        return batch

    def _chosen(self, drawn: Any) -> Any:
        """What was drawn, or the samples of the source whose indices were."""
        if self.source is None:
            return drawn
        if not getattr(drawn, "ndim", 0):
            raise TypeError(
                "draw must return an array of indices, as there is a source to choose from, got "
                f"{type(drawn).__name__}"
            )
        return self.source[drawn]

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
        see `nets.MLP`. Without a solver, a `higcore.Model`, such as `solvers.Rollout`, which
        has its network and its physics inside.
    solver : object or None
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
    ridge : float
        w >= 0 of a penalty w/2 |theta|^2 in L; see `regularised`.
    ranks : object
        The processes that share the samples; see `shared`.

    Notes
    -----
    Two problems are equal if all their parts are: by the part's own ``==`` or, if its class has
    none, if class and attributes are the same. A Problem has no hash, as its data have none.
    """

    network: Network | Model
    solver: Solver | None
    loss: Loss
    train: Batch | FreshData
    test: Batch
    batch_mean: bool = True
    name: str = "problem"
    ridge: float = 0.0
    ranks: Alone | Ranks = field(default=ALONE, repr=False, compare=False)

    __eq__ = same_fields

    def __post_init__(self) -> None:
        self._check_model()
        check_flag("batch_mean", self.batch_mean)
        check_real_field(self, "ridge", 0.0)
        check_is_loss("loss", self.loss)
        if not isinstance(self.train, (Batch, FreshData)):
            raise TypeError(f"train must be a Batch or FreshData, got {type(self.train).__name__}")
        for name, batch in {"train": self.sample, "test": self.test}.items():
            self.check_batch(name, batch)
            for part in fields(batch):
                check_finite(f"{name}.{part.name}", getattr(batch, part.name))
        self.check_like_train("test.x", self.test.x)

    def _check_model(self) -> None:
        """Raise unless there is a network with a solver that fits it, or a model of both."""
        network: Any = self.network
        if self.solver is None:
            advice = "derive a model from higcore.Model; or give a solver, which was None"
            check_has("network", network, MODEL, advice)
            return
        if isinstance(network, Model):
            name = type(network).__name__
            raise TypeError(f"network is a {name}, which has its physics inside: give solver=None")
        check_has("network", network, NETWORK, "layers in a nets.Network have them all")
        check_has("solver", self.solver, SOLVER, "a subclass of solvers.Solver has them all")
        if network.output_size != self.solver.control_size:
            raise ValueError(
                f"network has {network.output_size} outputs but solver takes "
                f"{self.solver.control_size} control values; they must agree"
            )

    @computed_once
    def model(self) -> Any:
        """What gives y: the network and then the solver, or what stands in their place."""
        network: Any = self.network
        model = network if self.solver is None else NetworkThenSolver(network, self.solver)
        return SharedModel(model, self.ranks) if isinstance(self.ranks, Ranks) else model

    @property
    def size(self) -> int:
        """Number t of parameters."""
        size: int = self.network.size
        return size

    @property
    def output_size(self) -> int:
        """|y|."""
        size: int = self.model.output_size
        return size

    @computed_once
    def estimates(self) -> dict[tuple, Any]:
        """What `memory_estimate` said of its steps."""
        return {}

    @computed_once
    def sample(self) -> Batch:
        """Training data to look at: all of a Batch, the first sample of FreshData."""
        return self.train if isinstance(self.train, Batch) else self.train.take(0, 1)

    def check_batch(self, label: str, batch: Batch) -> None:
        """Raise unless ``batch`` is a Batch that fits the model; its values may be any."""
        if not isinstance(batch, Batch):
            raise TypeError(f"{label} must be a Batch, got {type(batch).__name__}")
        width = target_size(self.loss, self.output_size)
        given: dict[str, Any] = {
            f"{label}.x": (batch.x, ("samples", self.model.state_size)),
            f"{label}.net_input": (batch.net_input, ("samples", self.model.input_size)),
            f"{label}.target": (batch.target, ("samples", width)),
        }
        if self.solver is not None and getattr(batch.target, "shape", ())[1:] not in ((), (width,)):
            self._check_output_size(label, batch, self.solver)
        check_arrays(**given)

    def _check_output_size(self, label: str, batch: Batch, solver: Solver) -> None:
        """Raise if it is not the target that is wrong, but what the solver says of its output."""
        said = width = solver.output_size
        with suppress(Exception):  # of x that is wrong too, or a solver that does not take this u
            x = batch.x[:1]
            zeros = array_module(x=x).zeros((1, solver.control_size), x.dtype)
            width = solver.solve(x, zeros).shape[1]
        if width != said:
            raise ValueError(
                f"output_size of the solver must be {width}, as many numbers as its solve returns "
                f"of a sample, got {said}; {label}.target has shape {batch.target.shape}"
            )

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

    def predict(
        self,
        theta: Array,
        batch: Batch | None = None,
        *,
        x: Array | None = None,
        net_input: Array | None = None,
    ) -> tuple[Array, Array]:
        """Return the control u (b, |u|) and the output y (b, |y|).

        Of a batch, whose target may be None, or of arrays x (b, |x|) and net_input (b, n_0). The
        control of a `solvers.Rollout` has one more axis, (b, steps, |u|); another `Model` may have
        None.
        """
        apart = x is not None or net_input is not None
        if apart is (batch is not None):
            raise TypeError(
                "predict takes either a batch or arrays x and net_input, got "
                f"{'both' if apart else 'neither'}"
            )
        if isinstance(batch, Batch) and batch.target is None:
            return self.predict(theta, x=batch.x, net_input=batch.net_input)
        if batch is None:
            sizes = self.model.state_size, self.model.input_size
            check_arrays(x=(x, ("samples", sizes[0])), net_input=(net_input, ("samples", sizes[1])))
            batch = Batch(x, net_input, None)
        else:
            self.check_batch("batch", batch)
        u, y = self.model.predict(theta, batch)
        return u, y

    def evaluate(self, theta: Array, batch: Batch | None = None, loss: Loss | None = None) -> float:
        """Return the mean of a sample's loss over ``batch``, by default test loss on test data.

        A penalty on theta is in it, as it is in L, unless a ``loss`` is named.
        """
        batch, of_sample = self.test if batch is None else batch, loss or self.loss
        self.check_batch("batch", batch)
        total = 0.0
        for first in range(0, len(batch.x), EVALUATION_CHUNK):
            part = batch[first : first + EVALUATION_CHUNK]
            total += float(of_sample.value(self.model.predict(theta, part)[1], part.target).sum())
        mean = total / len(batch.x)
        if loss is not None or not self.ridge:
            return mean
        return mean + float(ridge_loss(self.ridge, theta, len(batch.x), self.batch_mean))

    def penalised(self, weight: float) -> Problem:
        r"""Return the same problem with a price of the control, :math:`c\,|u|^2` of each sample.

        Its y is followed by the control, (y, u), also in `predict`, with rows and a curvature of
        its own; data and targets stay as they are. The loss without the price is what
        ``self.evaluate`` says. Without a solver it takes a model with ``with_controls``, as a
        `solvers.Rollout` has.

        Parameters
        ----------
        weight : float
            c >= 0.
        """
        check_real("weight", weight, 0.0)
        network: Any = self.network
        if self.solver is not None:
            solver = WithControl(self.solver)
            loss = Penalised(self.loss, weight, self.solver.control_size)
            return replace(self, solver=solver, loss=loss)
        if not hasattr(network, "with_controls"):
            raise TypeError(
                f"penalised takes a model with with_controls, as a solvers.Rollout has; "
                f"{type(network).__name__} has none"
            )
        longer = network.with_controls()
        size = longer.output_size - network.output_size
        if size == 0:
            raise ValueError("the controls are in y already, with a price or a loss of their own")
        return replace(self, network=longer, loss=Penalised(self.loss, weight, size))

    def regularised(self, weight: float) -> Problem:
        r"""Return the same problem with a penalty on the parameters, a ridge, in its loss:

        .. math:: L(\theta) + \tfrac w2 |\theta|^2,

        with L the mean or the sum that it is. Every optimizer but `ScaleInvariantPhysics` minimises
        it, and gradients, training, test and validation losses hold it; what it is without,
        ``evaluate(theta, loss=problem.loss)`` says. It adds to a penalty that is there. Of a sum
        over b samples a loss that is reported is L / b.

        Those that take steps with J take it as t more rows of J, of which K need not know: a step
        costs the same decomposition, applied once more, and a product with J; see
        `spectral.ridge.Ridged`. `HIG` and ``GaussNewton(paper=True)`` then need a curvature of the
        loss as well.

        Parameters
        ----------
        weight : float
            w > 0, in units of L.
        """
        check_real("weight", weight, 0.0, open_low=True)
        return replace(self, ridge=self.ridge + float(weight))

    def on(self, device: str) -> Problem:
        """Return the same problem with its data on ``device``, ``"cpu"`` or ``"gpu"``."""
        return replace(self, train=self.train.on(device), test=self.test.on(device))

    def shared(self, comm: Any, *, cuda_aware: bool = False) -> Problem:
        """Return the same problem with the samples of every batch shared among the ranks of MPI.

        All ranks run the same program: the same `fit`, or ``linearise`` and `half_inverse`, with
        the same seed, data, theta and optimizer. Each marches, sweeps and pulls back consecutive
        samples of a batch, and multiplies its share of K = J J^T. Outputs, row factors and K are
        gathered by all, and the rest is done by each of them as by a process alone: loss,
        decomposition, J^T c, the optimizer's state. First-order optimizers and ``"lanczos"`` gather
        no rows; of J^T w, a sum over samples, they take one over ranks. What is estimated, saved
        and resumed is that of the problem itself.

        In `fit` the first rank tells time and Ctrl-C to the others, and alone warns, shows progress
        and calls the callbacks, which are to take the problem that is not shared, as nobody answers
        them. Every rank returns the `Result`. What one rank raises, all raise. Cores are shared out
        among the ranks of a machine.

        Parameters
        ----------
        comm : mpi4py.MPI.Comm
            Such as ``MPI.COMM_WORLD``. Needs the extra ``mpi``.
        cuda_aware : bool
            Whether this MPI takes arrays on a GPU; by default they go through the host.
        """
        return replace(self, ranks=Ranks(comm, cuda_aware))
