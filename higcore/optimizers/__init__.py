"""Optimizers: what each asks of a `Linearisation` is what it is. And the memory of a step."""

from .adaptive import AdaptiveHIG
from .damped import LevenbergMarquardt
from .first_order import SGD, Adadelta, Adagrad, Adam, RMSprop
from .scheduled import Scheduled
from .second_order import HIG, GaussNewton
from .sip import ScaleInvariantPhysics

__all__ = [
    "HIG",
    "SGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdaptiveHIG",
    "GaussNewton",
    "LevenbergMarquardt",
    "RMSprop",
    "ScaleInvariantPhysics",
    "Scheduled",
]
