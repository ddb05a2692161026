"""Everything public goes to another process and back, as do the errors of runs there."""

import copy
import os
import pickle
import re
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import strict_cupy

import higcore
import nets
import solvers
from bench.experiments import EXPERIMENTS, Dipole, LinearChain, Oscillators, Poisson, Toy
from higcore import HIG, Adam, Batch, Checkpoints, FreshData, Scheduled, TrainingError, fit, losses
from higcore.backend import same
from higcore.kernels import RangeKernel
from higcore.linearisation import DenseJacobian
from higcore.problem import Shuffled
from higcore.rows import OuterProductRows
from higcore.spectral.spectrum import DecompositionError
from higcore.training.result import Diagnostics, State
from nets.layers import Dense
from solvers.oscillators import SWEEP

ROOT = Path(__file__).resolve().parent.parent
SMALL = {
    "toy": Toy(samples=16),
    "oscillators": Oscillators(solvers.OscillatorChain(steps=4), (3,), samples=8, test_samples=4),
    "linear-chain": LinearChain(hidden=(3,), samples=8, test_samples=4),
    "poisson": Poisson(hidden=(3,), samples=8, test_samples=4),
    "dipole": Dipole(solvers.QuantumDipole(6, steps=4), samples=8, test_samples=4),
    "dipole-cnn": Dipole(
        solvers.QuantumDipole(16, steps=4), convolutional=True, samples=8, test_samples=4
    ),
}
assert set(SMALL) == set(EXPERIMENTS)

PROBLEM = SMALL["oscillators"].problem()
RESULT = fit(PROBLEM, HIG(), batch=4, steps=3, diagnostics=True)  # which uses the parts as well
AT = PROBLEM.linearise(RESULT.theta, PROBLEM.batch(0, 4))
JACOBIAN = AT.jacobian()
JACOBIAN.gram()


def halving(step):
    return 0.5**step


class Doubled(solvers.Solver):
    """A solver of one's own, with a kernel among its attributes."""

    state_size = control_size = output_size = 2

    def __init__(self):
        self.kernel = SWEEP

    def solve(self, x, u):
        return 2 * u

    def adjoint(self, x, u, y_bar):
        return 2 * y_bar


def one_sum(x, u, out):
    out[0] = x[0] + u[0]


def one_sum_of_four(x, u, dx, du, out):
    out[0] = dx[0] + du[0]


def sum_of_four(*arrays):
    return sum(arrays)


def interrupt():
    error = KeyboardInterrupt("Interrupted")
    error.result = RESULT
    return error


def noted():
    error = TrainingError(RESULT)
    error.add_note("seed 3")
    return error


EXAMPLES = {
    higcore.Batch: [PROBLEM.train],
    higcore.Best: [RESULT.best],
    Checkpoints: [Checkpoints("run.npz", every=5), Checkpoints("best.npz", keep="best")],
    higcore.DoesNotFitError: [higcore.DoesNotFitError("too large", "no memory")],
    higcore.Epoch: [RESULT.history[-1]],
    FreshData: [SMALL["poisson"].problem().train],
    higcore.HalfInverseInfo: [RESULT.state.info],
    higcore.History: [RESULT.history],
    higcore.Linearisation: [AT],
    higcore.MemoryEstimate: [higcore.memory_estimate(PROBLEM, 4)],
    higcore.Profile: [higcore.Profile({"network": 0.1}, 4)],
    higcore.NonFiniteError: [higcore.NonFiniteError("theta holds NaN")],
    higcore.Problem: [PROBLEM, *(experiment.problem() for experiment in SMALL.values())],
    higcore.Result: [RESULT, fit(PROBLEM, Adam(), batch=4, steps=2)],
    Scheduled: [Scheduled(HIG(), halving)],
    higcore.StackedJacobian: [JACOBIAN, AT.jacobian(tile=2)],
    higcore.StepDiagnostics: [RESULT.diagnostics[0]],
    TrainingError: [TrainingError(RESULT), noted()],
    nets.Network: [nets.Network([Dense(2, 3, "tanh", 0)])],
    nets.MLP: [PROBLEM.network],
    nets.ConvNet2d: [nets.ConvNet2d((3, 4), 1, [2], 3, steps=[2])],
    nets.ConvNet1d: [SMALL["dipole-cnn"].problem().network],
    solvers.Solver: [Doubled()],
    solvers.Stepper: [solvers.OscillatorChain().stepper()],
    solvers.RungeKutta4: [solvers.RungeKutta4(np.add, sum_of_four, 1, 1, 0.1)],
    solvers.ScalarStepper: [solvers.ScalarStepper(one_sum, one_sum_of_four, 1, 1)],
    solvers.Rollout: [solvers.Rollout(nets.MLP((4, 1)), solvers.QuantumDipole(4).stepper(), 2)],
    solvers.DifferencedSolver: [solvers.DifferencedSolver(np.multiply, 2, 2, 2, step=(1, 2))],
    losses.ComponentError: [losses.ComponentError(np.ones(4))],
}
BEHIND = [  # what public functions hand out or raise without being named in an __all__
    RESULT.diagnostics,
    RESULT.state,
    Shuffled(*PROBLEM.train, seed=2),
    JACOBIAN.blocks[0],
    DenseJacobian(np.eye(2)),
    higcore.check_solver(PROBLEM.solver, show=False),
    higcore.check_network(PROBLEM.network, show=False),
    DecompositionError("no convergence"),
    interrupt(),
    SWEEP,
    *EXPERIMENTS.values(),
]
NAMES = [
    (module.__name__, name)
    for module in (higcore, nets, solvers)
    for name in sorted({*module.__all__})
] + [("higcore.losses", name) for name in ("SquaredError", "Infidelity", "ComponentError")]
WAYS = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
} | {
    f"pickle {protocol}": lambda thing, protocol=protocol: pickle.loads(
        pickle.dumps(thing, protocol)
    )
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1)
}  # fmt: skip


def examples(thing):
    """What is tried for a public name: a function itself, examples of a class.

    A class needs no example if it can be made without arguments.
    """
    if isinstance(thing, types.FunctionType):
        return [thing]
    return EXAMPLES[thing] if thing in EXAMPLES else [thing()]


def assert_came_back(there, thing):
    assert type(there) is type(thing)
    if isinstance(thing, BaseException):
        assert str(there) == str(thing)
        assert there.args == thing.args
        assert same(vars(there), vars(thing))
    else:
        assert same(there, thing)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("module", "name"), NAMES)
def test_every_public_name(module, name, way):
    """A new one fails here until it goes through, or there is an example of it."""
    for thing in examples(getattr(sys.modules[module], name)):
        assert_came_back(WAYS[way](thing), thing)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("thing", BEHIND, ids=lambda thing: type(thing).__name__)
def test_what_is_handed_out_beside(thing, way):
    assert_came_back(WAYS[way](thing), thing)


def test_the_lists_are_of_what_they_say():
    assert {type(thing) for thing in BEHIND} >= {Diagnostics, State, OuterProductRows, RangeKernel}
    for kind, things in EXAMPLES.items():
        assert all(isinstance(thing, kind) for thing in things)


@pytest.mark.parametrize("name", SMALL)
def test_what_came_back_works_as_before(name):
    problem = SMALL[name].problem()
    optimizer = SMALL[name].settings["hig"].optimizer
    expected = fit(problem, optimizer, batch=4, steps=3)
    for way in ("deepcopy", "pickle 5"):
        there = WAYS[way]((problem, optimizer))
        assert np.array_equal(fit(*there, batch=4, steps=3).theta, expected.theta)
    J = problem.linearise(expected.theta, problem.batch(0, 4)).jacobian()
    assert np.array_equal(WAYS["pickle 5"](J).gram(), J.gram())


def test_a_network_that_came_back_copies_no_rows():
    """Its last layer is linear and hands them on; it knows that by its activation's functions."""
    network = pickle.loads(pickle.dumps(PROBLEM.network))
    S = AT.solver_rows()
    assert np.shares_memory(network.rows(AT.theta, JACOBIAN.tape, S)[-1].delta, S)


def test_on_a_device(monkeypatch):
    with strict_cupy.installed(monkeypatch):
        problem = PROBLEM.on("gpu")
        J = problem.linearise(RESULT.on("gpu").theta, problem.batch(0, 4)).jacobian()
        assert same(copy.deepcopy(J).gram(), J.gram())


def test_a_draw_that_pickle_does_not_take_is_named():
    data = FreshData(lambda rng, size: Batch(*[rng.random((size, 4))] * 3))
    with pytest.raises((pickle.PicklingError, AttributeError), match=r"Can't pickle .*<lambda>"):
        pickle.dumps(data)
    assert copy.deepcopy(data) == copy.copy(data) == data


def test_a_callback_from_a_machine_whose_clock_is_ahead_saves(tmp_path):
    save = Checkpoints(tmp_path / "run.npz", every=3600)
    save._last_try += 1e6
    WAYS["pickle 5"](save)(RESULT)
    assert (tmp_path / "run.npz").exists()


def test_runs_in_worker_processes():
    """A few of what ``python tests/parallel_runs.py`` makes 400 times."""
    command = [sys.executable, "tests/parallel_runs.py", "--runs", "12", "--every", "2"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.findall(r"12 runs, 6 of them failed: (\d) hung, (\d) lost", done.stdout)
    assert found == [("0", "0"), ("0", "0")]
