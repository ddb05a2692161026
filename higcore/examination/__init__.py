"""Are the derivatives of a solver, network or loss right? By numbers, for tests and for users."""

from .checks import check_loss, check_network, check_solver, check_stepper
from .derivative_tests import dot_test, taylor_test
from .report import CheckReport

__all__ = [
    "CheckReport",
    "check_loss",
    "check_network",
    "check_solver",
    "check_stepper",
    "dot_test",
    "taylor_test",
]
