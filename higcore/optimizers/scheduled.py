"""Learning rates that change from step to step, for every optimizer that has one."""

from __future__ import annotations

import copy
import dataclasses
import numbers
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..backend import Array
from ..protocols import Optimizer, OptimizerState
from ..validation import check_callable, check_optimizer, check_real

UPDATES = "scheduled_updates"  # made so far, in the state


@dataclass(frozen=True)
class Scheduled:
    r"""An optimizer whose learning rate is :math:`\eta_n` = ``lr(n)`` in update n = 0, 1, 2, ...

    Parameters
    ----------
    optimizer : object
        One with a number ``lr``, in whose place the rate of each update is put. Of your own, it may
        be a dataclass, or any object that can be copied. Those that set the length of their steps
        themselves, `AdaptiveHIG` and `LevenbergMarquardt`, have no ``lr``.
    lr : callable
        Step number -> rate, a positive number. It should depend on nothing else: then a run that is
        resumed is the uninterrupted one, for the step number is in the optimizer's state.

    Raises
    ------
    TypeError
        If there is no ``lr`` to be scheduled, or the schedule is not callable.
    ValueError
        If a rate is not positive and finite, that of step 0 at once.

    Notes
    -----
    A run that is resumed must have the same schedule. Of a function its name, its defaults and the
    values that it closes over are compared, as far as they are numbers, text, lists or tuples of
    them, arrays, optimizers or functions; of a `functools.partial` its arguments as well; of a
    dataclass its repr. Two functions of one name that differ in their code alone are not told
    apart, so write ``functools.partial(decay, half=100)`` rather than a new lambda.

    All else, such as ``batch_for`` and what estimates of memory read, is the optimizer's.

    Examples
    --------
    >>> import higcore
    >>> halving = Scheduled(higcore.HIG(), lambda step: 0.5 ** (step / 1000))
    >>> halving.at(1000).lr
    0.5
    """

    optimizer: Optimizer
    lr: Callable[[int], float]

    def __post_init__(self) -> None:
        check_optimizer("optimizer", self.optimizer)
        rate = getattr(self.optimizer, "lr", None)
        if isinstance(rate, bool) or not isinstance(rate, numbers.Real):
            raise TypeError(
                "optimizer must have a learning rate, a number lr, to be scheduled; "
                f"{type(self.optimizer).__name__} has none"
            )
        check_callable("lr", self.lr)
        self.rate(0)

    def __getattr__(self, name: str) -> Any:
        """What is asked of the optimizer beside its updates."""
        if name == "optimizer" or name.startswith("__"):  # of one that pickle has not filled yet
            raise AttributeError(name)
        return getattr(self.optimizer, name)

    def rate(self, step: int) -> float:
        """The rate of a step."""
        rate = self.lr(step)
        check_real(f"lr({step})", rate, 0.0, open_low=True)
        return float(rate)

    def at(self, step: int) -> Optimizer:
        """The optimizer with the rate of a step."""
        rate = self.rate(step)
        if dataclasses.is_dataclass(self.optimizer):
            return dataclasses.replace(self.optimizer, lr=rate)
        optimizer = copy.copy(self.optimizer)
        optimizer.lr = rate  # type: ignore[attr-defined]
        return optimizer

    def init(self, theta: Array) -> OptimizerState:
        """Return the state of the optimizer, and the number of updates."""
        return self.optimizer.init(theta) | {UPDATES: 0}

    def update(
        self, linearisation: Any, state: OptimizerState
    ) -> tuple[Array, OptimizerState, Any]:
        """Return (step, state, info) as the optimizer does."""
        step_number = state[UPDATES]
        own = {name: value for name, value in state.items() if name != UPDATES}
        step, own, info = self.at(step_number).update(linearisation, own)
        return step, own | {UPDATES: step_number + 1}, info
