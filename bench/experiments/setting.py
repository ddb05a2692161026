"""An optimizer with the batch size that goes with it, and the defaults of all of them."""

from __future__ import annotations

from typing import NamedTuple

from higcore import (
    SGD,
    Adadelta,
    Adagrad,
    AdaptiveHIG,
    GaussNewton,
    LevenbergMarquardt,
    RMSprop,
    ScaleInvariantPhysics,
    fit,
)

OPTIMIZERS = (
    "hig", "gn", "lm", "sip", "adam", "adadelta", "adagrad", "rmsprop", "sgd", "adaptive",
)  # fmt: skip


class Setting(NamedTuple):
    """An optimizer with its parameters, and the batch size that goes with it."""

    batch: int
    optimizer: object


def settings(hig, gn, adam, adaptive):
    """All optimizers of table 2 and beside it, around those an experiment names.

    ``adaptive`` is the batch that `AdaptiveHIG.batch_for` chooses.
    """
    return {
        "hig": hig,
        "gn": gn,
        "lm": Setting(hig.batch, LevenbergMarquardt()),
        "sip": Setting(adam.batch, ScaleInvariantPhysics(lr=adam.optimizer.lr)),
        "adam": adam,
        "adadelta": Setting(adam.batch, Adadelta(lr=0.1)),
        "adagrad": Setting(adam.batch, Adagrad(lr=0.1)),
        "rmsprop": Setting(adam.batch, RMSprop(lr=1e-4)),
        "sgd": Setting(adam.batch, SGD(lr=0.1)),
        "adaptive": Setting(adaptive, AdaptiveHIG()),
    }


def compile_step(problem, setting, seed):
    """Make a step and forget it, or the first of several runs would pay for all."""
    run = fit(problem, setting.optimizer, batch=setting.batch, steps=1, seed=seed)
    if run.status == "interrupted":
        raise KeyboardInterrupt


def of_loops(hig, adam):
    """Settings of all optimizers but ``sip``, which needs a solver behind the network."""
    gn = Setting(hig.batch, GaussNewton(tau=1e-4))
    found = settings(hig, gn, adam, adaptive=hig.batch)
    del found["sip"]
    return found
