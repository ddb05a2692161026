"""The examination of a user's solver, network or loss: what is asked for."""

from __future__ import annotations

from ..backend import Array
from ..losses import check_is_loss, target_size
from ..model import Model
from ..protocols import Loss, Network, Solver, Stepper
from ..validation import check_array, check_arrays
from .loss import SampleLoss
from .network import ParametrisedNetwork
from .report import CheckReport
from .solver import ControlledSolver
from .stepper import JointStep

SAMPLES = 3


def check_solver(
    solver: Solver,
    x: Array | None = None,
    u: Array | None = None,
    *,
    seed: int = 0,
    show: bool = True,
) -> CheckReport:
    r"""Check everything about a solver that can be checked by numbers; print and return a table.

    - Shapes, dtypes and finiteness of every output; float32 too, if the solver takes it.
    - Each sample stands alone, a second call gives the same, no argument is written to.
    - ``tangent`` against central differences, and the order of its Taylor remainder.
    - ``adjoint`` against the transpose of the differences, component by component of u (up to 512),
      and against ``tangent`` by `dot_test`.
    - ``forward``, ``backward``, ``rows`` and ``jacobian`` against all of these.

    A wrong sign, a factor, S in place of its transpose or an order turned around are named if they
    are those of the whole, else the worst component, and whether its sign is wrong. Every component
    of y is judged in its own units. Differences at a kink (ReLU, abs, a limiter) tell the one-sided
    slopes, and a derivative between them passes. What cannot be judged, such as a derivative that
    the rounding of a large value hides, and what the solver does not give, is a row that says so.

    Parameters
    ----------
    solver : object
        Derived from `solvers.Solver`, or as `protocols.Solver` says; ``tangent``, ``adjoint`` and
        ``jacobian`` are checked if they are there.
    x, u : array (b, |x|), (b, |u|), optional
        Where to check, float64 or float32, NumPy or CuPy; by default normal random numbers, 3
        samples. Give your own where a solver needs others, say positive ones.
    seed : int
        Of all random numbers.
    show : bool
        Whether to print the table.

    Returns
    -------
    CheckReport
        True if all passed.

    Raises
    ------
    TypeError, ValueError
        For a class, and for x and u that the solver's sizes do not allow. What the solver raises
        is in the table.
    """
    exam = ControlledSolver("solver", solver, seed, x=x, u=u)
    sizes = exam.run("sizes", exam.sizes, "state_size", "control_size", "output_size")
    if sizes:
        x, u = _points(exam, x, u, sizes)
        exam.at(x, u).examine()
    if show:
        print(exam.report)
    return exam.report


def check_stepper(
    stepper: Stepper,
    x: Array | None = None,
    u: Array | None = None,
    *,
    seed: int = 0,
    show: bool = True,
) -> CheckReport:
    """Check everything about a time step that can be checked by numbers; print and return a table.

    As `check_solver`, with the derivative of ``step`` with respect to x and u side by side:
    ``tangent``, ``adjoint`` and ``jacobian`` against differences and each other, and ``pull`` of
    several cotangents, which is what a rollout calls.

    Parameters
    ----------
    stepper : object
        A `solvers.Stepper`, or an object with ``state_size``, ``control_size``, ``step``,
        ``tangent``, ``adjoint``, ``jacobian`` and ``pull``.
    x, u : arrays (b, |x|) and (b, |u|), optional
        Where to check; by default normal random numbers, 3 samples.
    seed, show
        As for `check_solver`.

    Returns
    -------
    CheckReport
        True if all passed.
    """
    exam = JointStep("stepper", stepper, seed, x=x, u=u)
    sizes = exam.run("sizes", exam.sizes, "state_size", "control_size")
    if sizes:
        x, u = _points(exam, x, u, sizes)
        exam.at(x, exam.xp.concatenate([x, u], axis=1)).examine()
    if show:
        print(exam.report)
    return exam.report


def check_network(
    network: Network,
    theta: Array | None = None,
    x: Array | None = None,
    *,
    seed: int = 0,
    show: bool = True,
) -> CheckReport:
    """Check everything about a network that can be checked by numbers; print and return a table.

    As `check_solver`, with theta in place of u and ``backward`` in place of ``adjoint``; then
    ``init``, and the rows: J v, J^T w, J and J J^T of a `StackedJacobian` with random S against
    ``tangent``, ``backward`` and differences, J J^T also in tiles if the network has ``part``.

    Parameters
    ----------
    network : object
        `nets.Network` of layers of your own, or an object as `protocols.Network` says.
    theta : array (t,), optional
        Where to check; by default what ``init`` gives, shaken a little so that no bias is 0.
    x : array (b, input_size), optional
        Inputs; by default normal random numbers, 3 samples.
    seed, show
        As for `check_solver`.

    Returns
    -------
    CheckReport
        True if all passed.

    Raises
    ------
    TypeError, ValueError
        For a class, and for theta and x that the network's sizes do not allow.
    """
    if isinstance(network, Model):
        raise TypeError(
            f"network must take arrays, and a {type(network).__name__} takes a Batch: check its "
            "network by check_network and its stepper by check_stepper"
        )
    exam = ParametrisedNetwork("network", network, seed, theta=theta, x=x)
    sizes = exam.run("sizes", exam.sizes, "size", "input_size", "output_size")
    if sizes:
        if theta is not None:
            check_array("theta", theta, (sizes[0],))
        x = exam.points("x", x, (SAMPLES if x is None else len(x), sizes[1]))
        drawn = exam.run("init", exam.initial_parameters)
        theta = drawn if theta is None else theta
        if theta is not None:
            exam.at(x, theta).examine()
    if show:
        print(exam.report)
    return exam.report


def check_loss(
    loss: Loss, y: Array, target: Array, *, seed: int = 0, show: bool = True
) -> CheckReport:
    """Check everything about a loss that can be checked by numbers; print and return a table.

    - Shapes, dtypes and finiteness of ``value`` and ``gradient``; float32 too, if it is taken.
    - Each sample stands alone, and nothing is divided by the number of samples, which `Problem`
      does; a second call gives the same, no argument is written to.
    - ``gradient`` against central differences of ``value``, every component of y in its own units.
    - The curvature against differences of ``gradient``: ``curvatures`` must nowhere be less than
      they are, ``curvature`` nowhere by more than a factor of 1.5, nor may it be larger by more
      than that everywhere, or in one of its components.

    A wrong sign and a factor are named, and else the worst component. Give points that are as those
    of a training, with errors on both sides of every kink or switch in the loss.

    Parameters
    ----------
    loss : object
        Such as those of `higcore.losses`, or as `protocols.Loss` says.
    y : array (b, |y|)
        Outputs of a solver, float64 or float32, NumPy or CuPy; of two samples or more.
    target : array (b, |y|)
        Their targets, or as wide as ``target_size`` of the loss says.
    seed : int
        Draws the components that are checked, if there are more than 512.
    show : bool
        Whether to print the table.

    Returns
    -------
    CheckReport
        True if all passed.

    Raises
    ------
    TypeError, ValueError
        For a class, what is no loss, and arrays of other shapes. What the loss raises is in the
        table.
    """
    exam = SampleLoss("loss", loss, seed, y=y, target=target)
    check_is_loss("loss", loss)
    check_arrays(y=(y, ("b", "|y|")))
    check_arrays(y=(y, ("b", "|y|")), target=(target, ("b", target_size(loss, y.shape[1]))))
    exam.at(y, target).examine()
    if show:
        print(exam.report)
    return exam.report


def _points(exam, x, u, sizes):
    """States and controls to check at, drawn where they are not given."""
    samples = next((len(array) for array in (x, u) if array is not None), SAMPLES)
    x = exam.points("x", x, (samples, sizes[0]))
    return x, exam.points("u", u, (samples, sizes[1]))
