"""Are the derivatives of a solver or a network right? By numbers, for our tests and for users."""

from .checks import check_network, check_solver
from .derivative_tests import dot_test, taylor_test
from .report import CheckReport

__all__ = ["CheckReport", "check_network", "check_solver", "dot_test", "taylor_test"]
