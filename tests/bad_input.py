# ruff: noqa: E501  one case a line
# fmt: off
"""Bad input, all over the public interface, and what must be said of it; see test_bad_input.py.

A case is a call that works but for the arguments that it changes. Some arrays are huge without
taking memory (every entry is the same number): whoever works before looking runs out of it.
"""

import fractions
from dataclasses import replace
from typing import Any, NamedTuple

import click
import numpy as np
import strict_cupy
from click.testing import CliRunner

from bench.__main__ import main
from higcore import (
    HIG,
    SGD,
    Adadelta,
    Adagrad,
    Adam,
    AdaptiveHIG,
    Batch,
    Checkpoints,
    FreshData,
    GaussNewton,
    History,
    LevenbergMarquardt,
    Linearisation,
    NonFiniteError,
    Problem,
    Result,
    RMSprop,
    ScaleInvariantPhysics,
    Scheduled,
    StackedJacobian,
    dot_test,
    fit,
    half_inverse,
    load_checkpoint,
    memory_estimate,
    profile,
    save_checkpoint,
    taylor_test,
)
from higcore.backend import thread_policy, to_device, to_host
from higcore.device.gpu import choose_device
from higcore.losses import ComponentError, Huber, Infidelity, SquaredError, WeightedSamples
from higcore.optimizers.memory import fitting_tile
from higcore.problem import Shuffled
from higcore.training.result import Epoch, State
from nets import MLP, ConvNet1d, ConvNet2d, export_numpy
from solvers import DifferencedSolver, OscillatorChain, Poisson2D, QuantumDipole, ScaledOutputs

NAN, INF = float("nan"), float("inf")
SINGLE, HALF = np.float32, np.float16


class Case(NamedTuple):
    """A call with the arguments ``good | changes``, and what it must raise."""

    name: str
    function: Any
    good: dict
    changes: dict
    error: type
    message: str


CASES, GOOD = [], []


def bad(function, good, *table, name=None):
    """Add cases of a function: rows of the table are (changes, error, part of its message)."""
    name = name or function.__qualname__
    GOOD.append((name, function, good))
    CASES.extend(Case(name, function, good, *row) for row in table)


def on_device(array):
    """The array as one of CuPy's, or rather of its stand-in."""
    return strict_cupy.ndarray(np.array(array))


def spoiled(array, value=NAN):
    """A copy with one entry replaced."""
    array = array.copy()
    array.reshape(-1)[1] = value
    return array


def huge(*shape):
    """Terabytes of ones that take no memory."""
    return np.broadcast_to(np.float64(1), shape)


X = np.random.default_rng(0).random((3, 4))
U = np.zeros((3, 12))
DATA = Batch(X, X, X)
NET, CHAIN = MLP((4, 6, 12)), OscillatorChain(steps=12)
THETA = NET.init(np.random.default_rng(0))
_, TAPE = NET.forward(THETA, X)
S = np.ones((3, 4, 12))
J = StackedJacobian(NET, THETA, TAPE, S)
PROBLEM = Problem(NET, CHAIN, SquaredError(), DATA, DATA)
FRESH = replace(PROBLEM, train=FreshData(lambda rng, size: DATA[:size]))
TRILLION = 10**12

# half_inverse

bad(
    half_inverse,
    {"J": np.ones((2, 3)), "g": np.ones(2), "memory_limit": 1e9},
    ({"J": [[1.0]]}, TypeError, "J must be a NumPy or CuPy array, got list"),
    ({"J": None}, TypeError, "J must be a NumPy or CuPy array, got NoneType"),
    ({"J": np.float64(1)}, TypeError, "J must be a NumPy or CuPy array, got float64"),
    ({"J": np.ones(3)}, ValueError, "J must have shape (m, t), got (3,)"),
    ({"J": np.ones((2, 3, 1))}, ValueError, "J must have shape (m, t), got (2, 3, 1)"),
    ({"J": np.ones((0, 3)), "g": np.ones(0)}, ValueError, "J is empty: shape (0, 3)"),
    ({"J": np.ones((2, 0))}, ValueError, "J is empty: shape (2, 0)"),
    ({"J": np.ones((2, 3), int)}, TypeError, "J must be a float32 or float64 array, got dtype int64"),
    ({"J": np.ones((2, 3), bool)}, TypeError, "J must be a float32 or float64 array, got dtype bool"),
    ({"J": np.ones((2, 3), complex)}, TypeError, "J must be a float32 or float64 array, got dtype complex128"),
    ({"J": np.ones((2, 3), HALF)}, TypeError, "J must be a float32 or float64 array, got dtype float16"),
    ({"J": np.ones((2, 3), object)}, TypeError, "J must be a float32 or float64 array, got dtype object"),
    ({"J": spoiled(np.ones((2, 3)))}, NonFiniteError, "J holds NaN or Inf"),
    ({"J": spoiled(np.ones((2, 3)), INF), "method": "svd"}, NonFiniteError, "J holds NaN or Inf"),
    ({"J": on_device(np.ones((2, 3)))}, TypeError, "J is a cupy array but g is a numpy array; move one"),
    ({"J": huge(TRILLION, 3)}, ValueError, "g must have shape (1000000000000,), got (2,)"),
    ({"J": huge(TRILLION, 3), "g": huge(TRILLION), "method": "lu"}, ValueError, "method must be one of 'auto', 'svd'"),
    ({"g": [1.0, 1.0]}, TypeError, "g must be a NumPy or CuPy array, got list"),
    ({"g": 1.0}, TypeError, "g must be a NumPy or CuPy array, got float"),
    ({"g": np.ones(3)}, ValueError, "g must have shape (2,), got (3,)"),
    ({"g": np.ones((2, 1))}, ValueError, "g must have shape (2,), got (2, 1)"),
    ({"g": np.ones(2, int)}, TypeError, "g must be a float32 or float64 array, got dtype int64"),
    ({"g": spoiled(np.ones(2))}, NonFiniteError, "g holds 1 non-finite value(s) (NaN or Inf) of 2"),
    ({"g": on_device(np.ones(2))}, TypeError, "J is a numpy array but g is a cupy array; move one"),
    ({"J": J, "g": np.ones((4, 3))}, ValueError, "g must have shape (3, 4), got (4, 3)"),
    ({"J": J, "g": np.ones(3)}, ValueError, "g must have shape (12,), got (3,)"),
    ({"tau": -1e-6}, ValueError, "tau must be a finite number in [0, inf], got -1e-06"),
    ({"tau": NAN}, ValueError, "tau must be a finite number in [0, inf], got nan"),
    ({"tau": "small"}, TypeError, "tau must be a real number, got 'small'"),
    ({"tau": np.array([1e-6])}, TypeError, "tau must be a real number, got array([1.e-06])"),
    ({"kappa": 1.5}, ValueError, "kappa must be a finite number in [-1, 1], got 1.5"),
    ({"kappa": True}, TypeError, "kappa must be a real number, got True"),
    ({"kappa": 0.5j}, TypeError, "kappa must be a real number, got 0.5j"),
    ({"beta": INF}, ValueError, "beta must be a finite number in [-inf, inf], got inf"),
    ({"beta": None}, TypeError, "beta must be a real number, got None"),
    ({"truncation": "both"}, ValueError, "truncation must be one of 'relative', 'absolute'; got 'both'"),
    ({"truncation": None}, ValueError, "truncation must be one of 'relative', 'absolute'; got None"),
    ({"method": "lu"}, ValueError, "method must be one of 'auto', 'svd', 'qr', 'gram', 'tridiagonal', 'band'; got 'lu'"),
    ({"method": ["svd"]}, ValueError, "method must be one of 'auto', 'svd'"),
    ({"memory_limit": "2 GB"}, TypeError, "memory_limit must be a real number, got '2 GB'"),
    ({"memory_limit": -1}, ValueError, "memory_limit must be a finite number in (0, inf], got -1"),
    ({"memory_limit": NAN}, ValueError, "memory_limit must be a finite number in (0, inf], got nan"),
)

# StackedJacobian, Linearisation

bad(
    StackedJacobian,
    {"network": NET, "theta": THETA, "tape": TAPE, "S": S, "tile": 2},
    ({"network": None}, TypeError, "network must have rows, such as nets.MLP has; got None"),
    ({"theta": THETA.tolist()}, TypeError, "theta must be a NumPy or CuPy array, got list"),
    ({"theta": THETA[:5]}, ValueError, "theta must have shape (114,), got (5,)"),
    ({"theta": THETA.astype(complex)}, TypeError, "theta must be a float32 or float64 array"),
    ({"S": S.tolist()}, TypeError, "S must be a NumPy or CuPy array, got list"),
    ({"S": S[0]}, ValueError, "S must have shape (b, |y|, 12), got (4, 12)"),
    ({"S": S[:, :, :5]}, ValueError, "S must have shape (b, |y|, 12), got (3, 4, 5)"),
    ({"S": S.astype(SINGLE)}, TypeError, "arrays must share one dtype, but theta is float64, S is float32"),
    ({"S": on_device(S)}, TypeError, "theta is a numpy array but S is a cupy array"),
    ({"S": huge(TRILLION, 4, 11)}, ValueError, "S must have shape (b, |y|, 12), got (1000000000000, 4, 11)"),
    ({"tile": 0}, ValueError, "tile must be at least 1, got 0"),
    ({"tile": 1.5}, TypeError, "tile must be an integer, got 1.5"),
    ({"tile": True}, TypeError, "tile must be an integer, got True"),
)
bad(
    lambda S, tape=TAPE: StackedJacobian(NET, THETA, tape, S).gram(),
    {"S": S},
    ({"S": S[:2]}, ValueError, "S must have shape (3, |y|, 12), got (2, 4, 12)"),
    ({"tape": None}, TypeError, "tape must be what forward returned beside u"),
    name="StackedJacobian.gram",
)
bad(
    J.matvec,
    {"v": THETA},
    ({"v": THETA.tolist()}, TypeError, "v must be a NumPy or CuPy array, got list"),
    ({"v": THETA[:3]}, ValueError, "v must have shape (114,), got (3,)"),
    ({"v": THETA[None]}, ValueError, "v must have shape (114, 1), got (1, 114)"),
    ({"v": THETA.astype(int)}, TypeError, "v must be a float32 or float64 array, got dtype int64"),
    ({"v": on_device(THETA)}, TypeError, "theta is a numpy array but v is a cupy array"),
)
bad(
    J.rmatvec,
    {"w": np.ones(12)},
    ({"w": [1.0] * 12}, TypeError, "w must be a NumPy or CuPy array, got list"),
    ({"w": np.ones(11)}, ValueError, "w must have shape (12,), got (11,)"),
    ({"w": np.ones((12, 2))}, ValueError, "w must have shape (12, 1), got (12, 2)"),
    ({"w": np.ones(12, complex)}, TypeError, "w must be a float32 or float64 array, got dtype complex128"),
)
bad(
    Linearisation,
    {"problem": PROBLEM, "theta": THETA, "batch": DATA},
    ({"problem": "toy"}, TypeError, "problem must be a Problem, got 'toy'"),
    ({"theta": THETA.tolist()}, TypeError, "theta must be a NumPy or CuPy array, got list"),
    ({"theta": THETA[:9]}, ValueError, "theta must have shape (114,), got (9,)"),
    ({"theta": THETA.astype(SINGLE)}, TypeError, "theta is float32, x is float64"),
    ({"theta": on_device(THETA)}, TypeError, "theta is a cupy array but x is a numpy array"),
    ({"batch": (X, X, X)}, TypeError, "batch must be a Batch, got tuple"),
    ({"batch": None}, TypeError, "batch must be a Batch, got NoneType"),
    ({"batch": Batch(X, X[:2], X)}, ValueError, "batch.net_input must have shape (3, 4), got (2, 4)"),
    ({"batch": Batch(X, X, X[:1])}, ValueError, "batch.target must have shape (3, 4), got (1, 4)"),
    ({"batch": Batch(X, X, X[:, :1])}, ValueError, "batch.target must have shape (3, 4), got (3, 1)"),
    ({"batch": Batch(X, X.tolist(), X)}, TypeError, "batch.net_input must be a NumPy or CuPy array, got list"),
    ({"batch": Batch(X, X, X.astype(SINGLE))}, TypeError, "batch.x is float64, batch.net_input is float64, batch.target is float32"),
    ({"batch": DATA[:0]}, ValueError, "batch.x is empty: shape (0, 4)"),
    ({"batch": Batch(*[huge(TRILLION, 4)] * 2, huge(TRILLION, 3))}, ValueError, "batch.target must have shape (1000000000000, 4)"),
)

# Problem, Batch, FreshData

bad(
    Problem,
    {"network": NET, "solver": CHAIN, "loss": SquaredError(), "train": DATA, "test": DATA},
    ({"solver": OscillatorChain(steps=5)}, ValueError, "network has 12 outputs but solver takes 5 control values"),
    ({"loss": None}, TypeError, "loss must have value and gradient, got None"),
    ({"loss": "squared"}, TypeError, "loss must have value and gradient, got 'squared'"),
    ({"train": (X, X, X)}, TypeError, "train must be a Batch or FreshData, got tuple"),
    ({"train": replace(DATA, x=X[:, :3])}, ValueError, "train.x must have shape (samples, 4), got (3, 3)"),
    ({"train": replace(DATA, x=spoiled(X))}, NonFiniteError, "train.x holds 1 non-finite value"),
    ({"train": replace(DATA, target=spoiled(X, -INF))}, NonFiniteError, "train.target holds 1 non-finite value"),
    ({"train": replace(DATA, net_input=on_device(X))}, TypeError, "train.x is a numpy array but train.net_input is a cupy array"),
    ({"train": replace(DATA, target=X.astype(object))}, TypeError, "train.target must be a float32 or float64 array, got dtype object"),
    ({"train": Batch(*[on_device(X)] * 3)}, TypeError, "train.x is a cupy array but test.x is a numpy array"),
    ({"train": FreshData(None)}, TypeError, "draw must be callable, got None"),
    ({"train": FreshData(lambda rng, size: (X, X, X))}, TypeError, "draw must return a Batch, got tuple"),
    ({"train": FreshData(lambda rng, size: DATA)}, ValueError, "draw must return 1 samples, got 3"),
    ({"test": X}, TypeError, "test must be a Batch, got ndarray"),
    ({"test": replace(DATA, target=X[:2])}, ValueError, "test.target must have shape (3, 4), got (2, 4)"),
    ({"test": Batch(*[X.astype(SINGLE)] * 3)}, TypeError, "train.x is float64, test.x is float32"),
    ({"batch_mean": "no"}, TypeError, "batch_mean must be True or False, got 'no'"),
    ({"batch_mean": 1}, TypeError, "batch_mean must be True or False, got 1"),
)
bad(
    PROBLEM.batch,
    {"step": 0, "batch": 2},
    ({"step": "first"}, TypeError, "step must be an integer, got 'first'"),
    ({"step": -1}, ValueError, "step must be at least 0, got -1"),
    ({"batch": 0}, ValueError, "batch must be at least 1, got 0"),
    ({"batch": 2.0}, TypeError, "batch must be an integer, got 2.0"),
    ({"batch": 4}, ValueError, "batch must be at most the number of training samples, 3; got 4"),
)
bad(
    PROBLEM.predict,
    {"theta": THETA, "batch": DATA},
    ({"batch": X}, TypeError, "batch must be a Batch, got ndarray"),
    ({"batch": Batch(X[:2], X, X)}, ValueError, "batch.net_input must have shape (2, 4), got (3, 4)"),
    ({"batch": Batch(X[:2], X, None)}, ValueError, "net_input must have shape (2, 4), got (3, 4)"),
    ({"batch": None}, TypeError, "predict takes either a batch or arrays x and net_input, got neither"),
    ({"x": X}, TypeError, "predict takes either a batch or arrays x and net_input, got both"),
    ({"theta": THETA[1:]}, ValueError, "theta must have shape (114,), got (113,)"),
)
bad(
    PROBLEM.predict,
    {"theta": THETA, "x": X, "net_input": X},
    ({"x": None}, TypeError, "x must be a NumPy or CuPy array, got NoneType"),
    ({"net_input": None}, TypeError, "net_input must be a NumPy or CuPy array, got NoneType"),
    ({"x": X[:, 1:]}, ValueError, "x must have shape (samples, 4), got (3, 3)"),
    ({"net_input": X[:2]}, ValueError, "net_input must have shape (3, 4), got (2, 4)"),
    ({"net_input": X.astype(SINGLE)}, TypeError, "arrays must share one dtype, but x is float64, net_input is float32"),
    ({"x": on_device(X)}, TypeError, "x is a cupy array but net_input is a numpy array"),
    ({"theta": on_device(THETA)}, TypeError, "theta is a cupy array but x is a numpy array"),
)
bad(
    PROBLEM.evaluate,
    {"theta": THETA},
    ({"batch": "test"}, TypeError, "batch must be a Batch, got str"),
    ({"batch": ()}, TypeError, "batch must be a Batch, got tuple"),
    ({"batch": replace(DATA, target=X[:1])}, ValueError, "batch.target must have shape (3, 4), got (1, 4)"),
)
bad(PROBLEM.on, {"device": "cpu"}, ({"device": "tpu"}, ValueError, "device must be one of 'cpu', 'gpu'; got 'tpu'"))
bad(
    lambda index: DATA[index],
    {"index": np.array([0, -1])},
    ({"index": np.array([0, 3])}, ValueError, "index must be in [-3, 2], got 3"),
    ({"index": np.array([0.5])}, TypeError, "index must hold integers, or True and False, got dtype float64"),
    ({"index": np.array([True])}, ValueError, "index must be one True or False for each of 3, got 1"),
    ({"index": np.eye(3, dtype=bool)}, ValueError, "index must have one axis, got shape (3, 3)"),
    ({"index": on_device(np.array([0]))}, TypeError, "index is a cupy array but x is a numpy array"),
    name="Batch[]",
)
bad(DATA.on, {"device": "gpu"}, ({"device": 0}, ValueError, "device must be one of 'cpu', 'gpu'; got 0"))
bad(
    FreshData,
    {"draw": lambda rng, size: DATA[:size]},
    ({"source": (X, X, X)}, TypeError, "source must be a Batch, got tuple"),
    ({"seed": -1}, ValueError, "seed must be at least 0, got -1"),
    ({"seed": 0.5}, TypeError, "seed must be an integer, got 0.5"),
    ({"count": 0}, ValueError, "count must be at least 1, got 0"),
    ({"count": True}, TypeError, "count must be an integer, got True"),
    ({"device": "tpu"}, ValueError, "device must be one of 'cpu', 'gpu'; got 'tpu'"),
)

bad(
    Shuffled,
    {"x": X, "net_input": X, "target": X},
    ({"seed": -1}, ValueError, "seed must be at least 0, got -1"),
    ({"seed": 0.5}, TypeError, "seed must be an integer, got 0.5"),
)

# Sizes that a solver says and does not keep


class Narrow(OscillatorChain):
    output_size = 3


bad(
    Problem,
    {"network": NET, "solver": CHAIN, "loss": SquaredError(), "train": DATA, "test": DATA},
    ({"solver": Narrow(steps=12)}, ValueError, "output_size of the solver must be 4, as many numbers as its solve returns of a sample, got 3"),
    name="Problem of a solver",
)

# profile; what fit refuses it refuses, too

bad(
    profile,
    {"problem": PROBLEM, "optimizer": SGD(), "batch": 3, "steps": 1, "after": 0},
    ({"problem": "toy"}, TypeError, "problem must be a Problem, got str"),
    ({"optimizer": SGD}, TypeError, "optimizer must have init and update, got "),
    ({"batch": 4}, ValueError, "batch must be at most the number of training samples, 3; got 4"),
    ({"batch": None}, TypeError, "batch must be given for SGD"),
    ({"steps": 0}, ValueError, "steps must be at least 1, got 0"),
    ({"steps": 2.5}, TypeError, "steps must be an integer, got 2.5"),
    ({"after": -1}, ValueError, "after must be at least 0, got -1"),
    ({"seed": -1}, ValueError, "seed must be at least 0, got -1"),
)
# fit; more cases of it are in test_training.py

bad(
    fit,
    {"problem": PROBLEM, "optimizer": Adam(), "batch": 2, "steps": 1},
    ({"problem": "oscillators"}, TypeError, "problem must be a Problem, got str"),
    ({"optimizer": Adam}, TypeError, "optimizer must have init and update, got <class"),
    ({"optimizer": None}, TypeError, "optimizer must have init and update, got None"),
    ({"batch": "2"}, TypeError, "batch must be an integer, got '2'"),
    ({"batch": True}, TypeError, "batch must be an integer, got True"),
    ({"steps": "many"}, TypeError, "steps must be an integer, got 'many'"),
    ({"seconds": "1"}, TypeError, "seconds must be a real number, got '1'"),
    ({"epochs": True}, TypeError, "epochs must be a real number, got True"),
    ({"epochs": INF}, ValueError, "epochs must be a finite number in (0, inf], got inf"),
    ({"seed": 1.0}, TypeError, "seed must be an integer, got 1.0"),
    ({"seed": np.random.default_rng(0)}, TypeError, "seed must be an integer"),
    ({"evaluate_every": "daily"}, TypeError, "evaluate_every must be a real number, got 'daily'"),
    ({"evaluate_every": 0}, ValueError, "evaluate_every must be a finite number in (0, inf], got 0"),
    ({"evaluate_every": (0.5, "steps")}, TypeError, "evaluate_every must be an integer, got 0.5"),
    ({"evaluate_every": (1, "hours")}, ValueError, "the unit in evaluate_every must be one of 'steps', 'epochs', 'seconds'; got 'hours'"),
    ({"validation": X}, TypeError, "validation must be a Batch, got ndarray"),
    ({"validation": Batch(X, X, X * NAN)}, NonFiniteError, "validation.target holds 12 non-finite value(s)"),
    ({"validation": Batch(*[on_device(X)] * 3)}, TypeError, "train.x is a numpy array but validation.x is a cupy array"),
    ({"shuffle": "yes"}, TypeError, "shuffle must be True or False, got 'yes'"),
    ({"problem": FRESH, "shuffle": True}, ValueError, "shuffle=True has no use with FreshData, whose samples are new in every step"),
    ({"other_data": 1}, TypeError, "other_data must be True or False, got 1"),
    ({"other_data": True}, ValueError, "other_data=True says how to resume; it needs resume="),
    ({"on_epoch": [print, 3]}, TypeError, "on_epoch must be a list of callables"),
    ({"theta": on_device(THETA)}, TypeError, "train.x is a numpy array but theta is a cupy array"),
)

# Optimizers

bad(
    SGD,
    {"lr": 0.1},
    ({"lr": 0}, ValueError, "lr must be a finite number in (0, inf], got 0"),
    ({"lr": "0.1"}, TypeError, "lr must be a real number, got '0.1'"),
    ({"lr": True}, TypeError, "lr must be a real number, got True"),
    ({"lr": [0.1]}, TypeError, "lr must be a real number, got [0.1]"),
    ({"lr": None}, TypeError, "lr must be a real number, got None"),
    ({"lr": 0.1j}, TypeError, "lr must be a real number, got 0.1j"),
    ({"lr": np.array(0.1)}, TypeError, "lr must be a real number, got array(0.1)"),
    ({"lr": np.float32(NAN)}, ValueError, "lr must be a finite number in (0, inf], got"),
)
bad(
    Adagrad,
    {"lr": 1},
    ({"lr": -1}, ValueError, "lr must be a finite number in (0, inf], got -1"),
    ({"initial_accumulator": -0.1}, ValueError, "initial_accumulator must be a finite number in [0, inf], got -0.1"),
    ({"epsilon": 0}, ValueError, "epsilon must be a finite number in (0, inf], got 0"),
)
bad(
    Adadelta,
    {"rho": fractions.Fraction(9, 10)},
    ({"lr": INF}, ValueError, "lr must be a finite number in (0, inf], got inf"),
    ({"rho": "0.9"}, TypeError, "rho must be a real number, got '0.9'"),
    ({"epsilon": -1e-7}, ValueError, "epsilon must be a finite number in (0, inf], got -1e-07"),
)
bad(
    RMSprop,
    {"lr": np.float64(0.1)},
    ({"lr": NAN}, ValueError, "lr must be a finite number in (0, inf], got nan"),
    ({"rho": 1.5}, ValueError, "rho must be a finite number in [0, 1], got 1.5"),
    ({"epsilon": None}, TypeError, "epsilon must be a real number, got None"),
)
bad(
    Adam,
    {"beta_1": 0.0},
    ({"lr": -1.0}, ValueError, "lr must be a finite number in (0, inf], got -1.0"),
    ({"beta_1": 1.0}, ValueError, "beta_1 must be a finite number in [0, 1], got 1.0"),
    ({"beta_2": -0.1}, ValueError, "beta_2 must be a finite number in [0, 1], got -0.1"),
    ({"beta_2": np.ones(1)}, TypeError, "beta_2 must be a real number, got array([1.])"),
    ({"epsilon": 0.0}, ValueError, "epsilon must be a finite number in (0, inf], got 0.0"),
    ({"epsilon": "x"}, TypeError, "epsilon must be a real number, got 'x'"),
)
bad(
    Adam().init,
    {"theta": THETA},
    ({"theta": [1.0]}, TypeError, "theta must be a NumPy or CuPy array, got list"),
    ({"theta": np.ones(3, int)}, TypeError, "theta must be a float32 or float64 array, got dtype int64"),
    ({"theta": np.ones((2, 2))}, ValueError, "theta must have shape (t,), got (2, 2)"),
)
bad(
    HIG,
    {"memory_limit": 1e9},
    ({"lr": NAN}, ValueError, "lr must be a finite number in (0, inf], got nan"),
    ({"lr": "1"}, TypeError, "lr must be a real number, got '1'"),
    ({"tau": -1}, ValueError, "tau must be a finite number in [0, inf], got -1"),
    ({"tau": np.array(1e-6)}, TypeError, "tau must be a real number, got array(1.e-06)"),
    ({"kappa": -2}, ValueError, "kappa must be a finite number in [-1, 1], got -2"),
    ({"beta": "0"}, TypeError, "beta must be a real number, got '0'"),
    ({"truncation": True}, ValueError, "truncation must be one of 'relative', 'absolute'; got True"),
    ({"method": "fast"}, ValueError, "method must be one of 'auto', 'svd'"),
    ({"memory_limit": 0.0}, ValueError, "memory_limit must be a finite number in (0, inf], got 0.0"),
    ({"memory_limit": "2 GB"}, TypeError, "memory_limit must be a real number, got '2 GB'"),
)
bad(
    GaussNewton,
    {"tau": 1e-4},
    ({"lr": 0}, ValueError, "lr must be a finite number in (0, inf], got 0"),
    ({"paper": 1}, TypeError, "paper must be True or False, got 1"),
    ({"truncation": "none"}, ValueError, "truncation must be one of 'relative', 'absolute'; got 'none'"),
)
bad(
    AdaptiveHIG,
    {"others": 8},
    ({"mu": 1.5}, ValueError, "mu must be a finite number in [0, 1], got 1.5"),
    ({"momentum": 1}, ValueError, "momentum must be a finite number in [0, 0.999], got 1"),
    ({"momentum": "0.9"}, TypeError, "momentum must be a real number, got '0.9'"),
    ({"damping": 0}, ValueError, "damping must be a finite number in (0, inf], got 0"),
    ({"reach": -1}, ValueError, "reach must be a finite number in (0, inf], got -1"),
    ({"others": 0}, ValueError, "others must be at least 1, got 0"),
    ({"average": 2.0}, TypeError, "average must be an integer, got 2.0"),
    ({"method": "fast"}, ValueError, "method must be one of 'auto', 'svd'"),
    ({"memory_limit": 0}, ValueError, "memory_limit must be a finite number in (0, inf], got 0"),
)
bad(
    LevenbergMarquardt,
    {"tries": 3},
    ({"damping": 0}, ValueError, "damping must be a finite number in (0, inf], got 0"),
    ({"damping": "1e-3"}, TypeError, "damping must be a real number, got '1e-3'"),
    ({"memory_limit": 0}, ValueError, "memory_limit must be a finite number in (0, inf], got 0"),
    ({"memory_limit": "2 GB"}, TypeError, "memory_limit must be a real number, got '2 GB'"),
    ({"tries": 0}, ValueError, "tries must be at least 1, got 0"),
    ({"tries": 2.0}, TypeError, "tries must be an integer, got 2.0"),
)
bad(
    ScaleInvariantPhysics,
    {"lr": 0.1},
    ({"lr": 0}, ValueError, "lr must be a finite number in (0, inf], got 0"),
    ({"rcond": -1}, ValueError, "rcond must be a finite number in [0, 1], got -1"),
    ({"rcond": None}, TypeError, "rcond must be a real number, got None"),
)


class WithoutCurvature:
    """A loss of a user's own."""

    def value(self, y, target):
        return (y - target).sum(axis=1)

    def gradient(self, y, target):
        return np.ones_like(y)

    def __repr__(self):
        return "WithoutCurvature"


def second_order_step(optimizer, loss):
    problem = Problem(NET, CHAIN, loss, DATA, DATA)
    return optimizer.update(problem.linearise(THETA, DATA), optimizer.init(THETA))


bad(
    Scheduled,
    {"optimizer": SGD(), "lr": lambda step: 0.1},
    ({"optimizer": SGD}, TypeError, "optimizer must have init and update, got <class"),
    ({"optimizer": AdaptiveHIG()}, TypeError, "optimizer must have a learning rate, a number lr, to be scheduled; AdaptiveHIG has none"),
    ({"lr": 0.1}, TypeError, "lr must be callable, got 0.1"),
    ({"lr": lambda step: step}, ValueError, "lr(0) must be a finite number in (0, inf], got 0"),
    ({"lr": lambda step: "0.1"}, TypeError, "lr(0) must be a real number, got '0.1'"),
)
for optimizer in (AdaptiveHIG(), GaussNewton(), LevenbergMarquardt(), ScaleInvariantPhysics()):
    bad(
        second_order_step,
        {"optimizer": optimizer, "loss": SquaredError()},
        ({"loss": WithoutCurvature()}, TypeError, "loss must have a curvature for this optimizer, which WithoutCurvature has not"),
        name=type(optimizer).__name__,
    )

# Losses

bad(
    SquaredError,
    {"factor": np.float32(0.5)},
    ({"factor": 0.0}, ValueError, "factor must be a finite number in (0, inf], got 0.0"),
    ({"factor": "1"}, TypeError, "factor must be a real number, got '1'"),
    ({"factor": NAN}, ValueError, "factor must be a finite number in (0, inf], got nan"),
    ({"weights": 2.0}, TypeError, "weights must be a list, a tuple or an array of numbers, got 2.0"),
    ({"weights": []}, TypeError, "weights must be a list, a tuple or an array of numbers, got []"),
    ({"weights": "1"}, TypeError, "weights must be a list, a tuple or an array of numbers, got '1'"),
    ({"weights": [1.0, -2.0]}, ValueError, "weights[1] must be a finite number in [0, inf], got -2.0"),
    ({"weights": [1.0, NAN]}, ValueError, "weights[1] must be a finite number in [0, inf], got nan"),
    ({"weights": np.ones((2, 2))}, TypeError, "weights[0] must be a real number, got [1.0, 1.0]"),
)
bad(
    Huber,
    {"width": np.float32(0.5)},
    ({"width": 0.0}, ValueError, "width must be a finite number in (0, inf], got 0.0"),
    ({"width": "1"}, TypeError, "width must be a real number, got '1'"),
    ({"factor": -1}, ValueError, "factor must be a finite number in (0, inf], got -1"),
)
bad(
    WeightedSamples,
    {"loss": SquaredError()},
    ({"loss": None}, TypeError, "loss must have value and gradient, got None"),
    ({"loss": "squared"}, TypeError, "loss must have value and gradient, got 'squared'"),
)
bad(
    ComponentError,
    {"mode": np.ones(4)},
    ({"mode": [1.0, 0.0]}, TypeError, "mode must be a NumPy or CuPy array, got list"),
    ({"mode": np.ones(3)}, ValueError, "mode must have an even width, real parts beside imaginary ones, got (3,)"),
    ({"mode": np.ones((1, 4))}, ValueError, "mode must have shape (2n,), got (1, 4)"),
    ({"mode": np.ones(4, complex)}, TypeError, "mode must be a float32 or float64 array, got dtype complex128"),
    ({"mode": spoiled(np.ones(4))}, NonFiniteError, "mode holds 1 non-finite value"),
)
for loss in (SquaredError(), Huber(), Infidelity(), ComponentError(np.ones(4))):
    for method in (loss.value, loss.gradient):
        bad(
            method,
            {"y": X, "target": X},
            ({"y": X[0], "target": X[0]}, ValueError, "y must have shape (b, "),
            ({"y": X.tolist()}, TypeError, "y must be a NumPy or CuPy array, got list"),
            ({"target": X[:1]}, ValueError, "target must have shape (3, 4), got (1, 4)"),
            ({"target": X[:, :1]}, ValueError, "target must have shape (3, 4), got (3, 1)"),
            ({"target": X.astype(SINGLE)}, TypeError, "arrays must share one dtype, but y is float64, target is float32"),
            ({"target": on_device(X)}, TypeError, "y is a numpy array but target is a cupy array"),
        )
bad(
    SquaredError(weights=[1.0, 2.0]).value,
    {"y": X[:, :2], "target": X[:, :2]},
    ({"y": X, "target": X}, ValueError, "weights must be 4 numbers, one for each output of the solver, got 2"),
)
for method in (WeightedSamples(SquaredError()).value, WeightedSamples(SquaredError()).gradient):
    bad(
        method,
        {"y": X[:, :3], "target": abs(X)},
        ({"y": X[:, 0]}, ValueError, "y must have shape (b, |y|), got (3,)"),
        ({"target": X[:, :3]}, ValueError, "target must have shape (3, 4), got (3, 3)"),
        ({"target": -1 - abs(X)}, ValueError, "the last column of target holds the weights of samples, which must be >= 0"),
    )
bad(
    Problem,
    {"network": NET, "solver": CHAIN, "loss": SquaredError(), "train": DATA, "test": DATA},
    ({"loss": WeightedSamples(SquaredError())}, ValueError, "train.target must have shape (3, 5), got (3, 4)"),
)
bad(
    Infidelity().gradient,
    {"y": X, "target": X},
    ({"y": X[:, 1:], "target": X[:, 1:]}, ValueError, "y must have an even width"),
)
bad(
    ComponentError(np.ones(4)).value,
    {"y": X, "target": X},
    ({"y": X[:, 2:], "target": X[:, 2:]}, ValueError, "y must have shape (b, 4), got (3, 2)"),
)

# Networks

bad(
    MLP,
    {"sizes": np.array([4, 5])},
    ({"sizes": (3,)}, ValueError, "sizes must list at least input and output width, got (3,)"),
    ({"sizes": ()}, ValueError, "sizes must list at least input and output width, got ()"),
    ({"sizes": 5}, TypeError, "sizes must be a list or tuple of integers, got 5"),
    ({"sizes": "444"}, TypeError, "sizes must be a list or tuple of integers, got '444'"),
    ({"sizes": None}, TypeError, "sizes must be a list or tuple of integers, got None"),
    ({"sizes": (3, 0, 2)}, ValueError, "sizes must be at least 1, got 0"),
    ({"sizes": (3, 2.5)}, TypeError, "sizes must be an integer, got 2.5"),
    ({"sizes": (3, "2")}, TypeError, "sizes must be an integer, got '2'"),
    ({"sizes": (3, True)}, TypeError, "sizes must be an integer, got True"),
    ({"activation": "sigmoid"}, ValueError, "activation must be one of 'tanh', 'relu', 'linear'; got 'sigmoid'"),
    ({"activation": ["tanh"]}, ValueError, "activation must be one of 'tanh', 'relu', 'linear'; got ['tanh']"),
    ({"activation": None}, ValueError, "activation must be one of 'tanh', 'relu', 'linear'; got None"),
    ({"activation": np.tanh}, ValueError, "activation must be one of 'tanh', 'relu', 'linear'; got <ufunc"),
    ({"bounds": 1.0}, TypeError, "bounds must be a tuple (low, high), got 1.0"),
    ({"bounds": (0, 1, 2)}, TypeError, "bounds must be a tuple (low, high), got (0, 1, 2)"),
    ({"bounds": "01"}, TypeError, "bounds must be a tuple (low, high), got '01'"),
    ({"bounds": (0, None)}, TypeError, "high of bounds must be a real number, got None"),
    ({"bounds": ("0", 1)}, TypeError, "low of bounds must be a real number, got '0'"),
    ({"bounds": (0, INF)}, ValueError, "high of bounds must be a finite number"),
    ({"bounds": (0, [1, 1, 1, 1, NAN])}, ValueError, "high of bounds must be a finite number"),
    ({"bounds": ([0, 0], 1)}, ValueError, "low of bounds must be one number or 5 of them, got 2"),
    ({"bounds": (0, np.ones((5, 1)))}, TypeError, "high of bounds must be a real number, got array"),
    ({"bounds": (1, 1)}, ValueError, "bounds must have low < high for every output, got 1.0 and 1.0"),
    ({"bounds": (0, [1, 1, -1, 1, 1])}, ValueError, "bounds must have low < high for every output, got 0.0 and (1.0,"),
)
bad(
    ConvNet1d,
    {"points": 7, "channels": 2, "features": [3, 4], "width": 3, "outputs": 5},
    ({"points": 4}, ValueError, "points must exceed 4 for 2 valid convolutions of width 3, got 4"),
    ({"points": "7"}, TypeError, "points must be an integer, got '7'"),
    ({"channels": 0}, ValueError, "channels must be at least 1, got 0"),
    ({"features": 3}, TypeError, "features must be a list or tuple of integers, got 3"),
    ({"features": "34"}, TypeError, "features must be a list or tuple of integers, got '34'"),
    ({"features": {3, 4}}, TypeError, "features must be a list or tuple of integers, got {3, 4}"),
    ({"features": [3, 0]}, ValueError, "features must be at least 1, got 0"),
    ({"features": [3.0]}, TypeError, "features must be an integer, got 3.0"),
    ({"width": 2.5}, TypeError, "width must be an integer, got 2.5"),
    ({"outputs": -1}, ValueError, "outputs must be at least 1, got -1"),
    ({"activation": "gelu"}, ValueError, "activation must be one of 'tanh', 'relu', 'linear'; got 'gelu'"),
    ({"bounds": (0, [1, 2])}, ValueError, "high of bounds must be one number or 5 of them, got 2"),
)
bad(
    ConvNet2d,
    {"points": 6, "channels": 1, "features": [2, 2], "width": 3},
    ({"points": (4, 4, 4)}, ValueError, "points must be one number or two, got (4, 4, 4)"),
    ({"points": 0}, ValueError, "points must be at least 1, got 0"),
    ({"points": "66"}, TypeError, "points must be an integer, got '66'"),
    ({"points": (6, 2.5)}, TypeError, "points must be an integer, got 2.5"),
    ({"channels": 1.5}, TypeError, "channels must be an integer, got 1.5"),
    ({"features": [2, 0]}, ValueError, "features must be at least 1, got 0"),
    ({"width": 0}, ValueError, "width must be at least 1, got 0"),
    ({"outputs": 0}, ValueError, "outputs must be at least 1, got 0"),
    ({"activation": "sine"}, ValueError, "activation must be one of 'tanh', 'relu', 'linear'; got 'sine'"),
    ({"padded": "same"}, TypeError, "padded must be True or False, got 'same'"),
    ({"steps": 2}, TypeError, "steps must be a list or tuple of integers, got 2"),
    ({"steps": (1,)}, ValueError, "steps must be 2 numbers, one for each of features, got (1,)"),
    ({"padded": False}, ValueError, "points must exceed 6, which these valid convolutions take of each axis, got (6, 6)"),
    ({"padded": False, "steps": (2, 1), "outputs": 3}, ValueError, "points must exceed 6"),
    ({"points": (7, 6), "padded": False}, ValueError, "points must exceed 6"),
    ({"bounds": (1, 0)}, ValueError, "bounds must have low < high"),
    ({"bounds": ([0, 0], 1)}, ValueError, "low of bounds must be one number or 1 of them, got 2"),
)
bad(
    NET.init,
    {"rng": np.random.default_rng(0)},
    ({"rng": 0}, TypeError, "rng must be a numpy.random.Generator, got 0"),
    ({"rng": None}, TypeError, "rng must be a numpy.random.Generator, got None"),
    ({"dtype": int}, TypeError, "dtype must be float32 or float64, got <class 'int'>"),
    ({"dtype": HALF}, TypeError, "dtype must be float32 or float64, got <class 'numpy.float16'>"),
    ({"dtype": complex}, TypeError, "dtype must be float32 or float64, got <class 'complex'>"),
    ({"dtype": "double-double"}, TypeError, "dtype must be float32 or float64, got 'double-double'"),
    ({"dtype": None}, TypeError, "dtype must be float32 or float64, got None"),
)
bad(
    NET.forward,
    {"theta": THETA, "x": X},
    ({"theta": THETA.tolist()}, TypeError, "theta must be a NumPy or CuPy array, got list"),
    ({"theta": THETA[:10]}, ValueError, "theta must have shape (114,), got (10,)"),
    ({"theta": THETA[None]}, ValueError, "theta must have shape (114,), got (1, 114)"),
    ({"theta": THETA.astype(int)}, TypeError, "theta must be a float32 or float64 array, got dtype int64"),
    ({"x": X[0]}, ValueError, "x must have shape (b, 4), got (4,)"),
    ({"x": X[:, :3]}, ValueError, "x must have shape (b, 4), got (3, 3)"),
    ({"x": X[:0]}, ValueError, "x is empty: shape (0, 4)"),
    ({"x": X.astype(complex)}, TypeError, "x must be a float32 or float64 array, got dtype complex128"),
    ({"x": X.astype(SINGLE)}, TypeError, "arrays must share one dtype, but theta is float64, x is float32"),
    ({"x": on_device(X)}, TypeError, "theta is a numpy array but x is a cupy array"),
    ({"x": huge(TRILLION, 4), "theta": THETA[:3]}, ValueError, "theta must have shape (114,), got (3,)"),
)
bad(
    NET.parameters,
    {"theta": THETA},
    ({"theta": THETA.tolist()}, TypeError, "theta must be a NumPy or CuPy array, got list"),
    ({"theta": THETA[:10]}, ValueError, "theta must have shape (114,), got (10,)"),
    ({"theta": THETA.astype(int)}, TypeError, "theta must be a float32 or float64 array, got dtype int64"),
)
NAMED = NET.parameters(THETA)
bad(
    NET.flat,
    {"parameters": NAMED},
    ({"parameters": THETA}, TypeError, "parameters must be a dict of arrays by name, got ndarray"),
    ({"parameters": {}}, ValueError, "parameters must be named weights_1, bias_1, weights_2, bias_2; missing: weights_1, bias_1"),
    ({"parameters": NAMED | {"bias_3": THETA}}, ValueError, "missing: none, unknown: bias_3"),
    ({"parameters": NAMED | {"bias_1": np.ones(5)}}, ValueError, "bias_1 must have shape (6,), got (5,)"),
    ({"parameters": NAMED | {"weights_1": np.ones((6, 4))}}, ValueError, "weights_1 must have shape (4, 6), got (6, 4)"),
    ({"parameters": NAMED | {"bias_2": np.ones(12, SINGLE)}}, TypeError, "weights_2 is float64, bias_2 is float32"),
    ({"parameters": NAMED | {"bias_2": on_device(np.ones(12))}}, TypeError, "weights_1 is a numpy array but bias_2 is a cupy array"),
    ({"parameters": NAMED | {"bias_2": [0.0] * 12}}, TypeError, "bias_2 must be a NumPy or CuPy array, got list"),
)
bad(
    export_numpy,
    {"path": "learned.py", "network": NET, "theta": THETA},
    ({"path": 3}, TypeError, "path must be a str or Path that names a file, got 3"),
    ({"path": "."}, IsADirectoryError, "path '.' is a folder, not a file"),
    ({"network": THETA}, TypeError, "network must be a nets.Network, got ndarray"),
    ({"theta": THETA[1:]}, ValueError, "theta must have shape (114,), got (113,)"),
    ({"theta": spoiled(THETA)}, NonFiniteError, "theta holds 1 non-finite value"),
)
bad(
    NET.tangent,
    {"theta": THETA, "tape": TAPE, "dtheta": THETA},
    ({"theta": THETA[:3]}, ValueError, "theta must have shape (114,), got (3,)"),
    ({"tape": None}, TypeError, "tape must be what forward returned beside u"),
    ({"dtheta": THETA[:3]}, ValueError, "dtheta must have shape (114,), got (3,)"),
    ({"dtheta": THETA.tolist()}, TypeError, "dtheta must be a NumPy or CuPy array, got list"),
    ({"dtheta": on_device(THETA)}, TypeError, "theta is a numpy array but dtheta is a cupy array"),
)
bad(
    NET.backward,
    {"theta": THETA, "tape": TAPE, "u_bar": U},
    ({"theta": THETA[:3]}, ValueError, "theta must have shape (114,), got (3,)"),
    ({"tape": TAPE[:2]}, TypeError, "tape must be what forward returned beside u"),
    ({"u_bar": U[:2]}, ValueError, "u_bar must have shape (3, 12), got (2, 12)"),
    ({"u_bar": U.astype(int)}, TypeError, "u_bar must be a float32 or float64 array, got dtype int64"),
    ({"u_bar": on_device(U)}, TypeError, "theta is a numpy array but u_bar is a cupy array"),
)
bad(
    NET.rows,
    {"theta": THETA, "tape": TAPE, "S": S},
    ({"theta": on_device(THETA)}, TypeError, "theta is a cupy array but tape is a numpy array"),
    ({"tape": []}, TypeError, "tape must be what forward returned beside u"),
    ({"S": S[:2]}, ValueError, "S must have shape (3, |y|, 12), got (2, 4, 12)"),
    ({"S": S[:, 0]}, ValueError, "S must have shape (3, |y|, 12), got (3, 12)"),
)

# Solvers

bad(
    OscillatorChain,
    {"control": (0.0, 1.0)},
    ({"oscillators": 0}, ValueError, "oscillators must be at least 1, got 0"),
    ({"oscillators": "2"}, TypeError, "oscillators must be an integer, got '2'"),
    ({"steps": 1.5}, TypeError, "steps must be an integer, got 1.5"),
    ({"steps": True}, TypeError, "steps must be an integer, got True"),
    ({"dt": 0.0}, ValueError, "dt must be a finite number in (0, inf], got 0.0"),
    ({"cubic": NAN}, ValueError, "cubic must be a finite number"),
    ({"linear": "1"}, TypeError, "linear must be a real number, got '1'"),
    ({"control": 3.0}, TypeError, "control must be a tuple of numbers, got 3.0"),
    ({"control": [0.0, 3.0]}, TypeError, "control must be a tuple of numbers, got [0.0, 3.0]"),
    ({"control": (0.0, "3")}, TypeError, "control must be a real number, got '3'"),
    ({"control": (1.0,)}, ValueError, "control must have one entry for each of the 2 oscillators, got 1"),
)
bad(
    QuantumDipole,
    {"points": 8},
    ({"points": 2}, ValueError, "points must be at least 3, got 2"),
    ({"points": 8.0}, TypeError, "points must be an integer, got 8.0"),
    ({"steps": 0}, ValueError, "steps must be at least 1, got 0"),
    ({"dt": -0.1}, ValueError, "dt must be a finite number in (0, inf], got -0.1"),
    ({"length": INF}, ValueError, "length must be a finite number in (0, inf], got inf"),
    ({"length": None}, TypeError, "length must be a real number, got None"),
)
bad(
    QuantumDipole().eigenstate,
    {"k": 14},
    ({"k": 15}, ValueError, "k must be at most 14, the number of states; got 15"),
    ({"k": 0}, ValueError, "k must be at least 1, got 0"),
    ({"k": "1"}, TypeError, "k must be an integer, got '1'"),
)
bad(
    Poisson2D,
    {"points": (3, 4), "spacing": 2},
    ({"points": 0}, ValueError, "points must be at least 1, got 0"),
    ({"points": (3, 2.5)}, TypeError, "points must be an integer, got 2.5"),
    ({"points": (3, 3, 3)}, TypeError, "points must be one number or a tuple of two, got (3, 3, 3)"),
    ({"points": [3, 3]}, TypeError, "points must be one number or a tuple of two, got [3, 3]"),
    ({"spacing": 0.0}, ValueError, "spacing must be a finite number in (0, inf], got 0.0"),
    ({"spacing": (1.0, -1.0)}, ValueError, "spacing must be a finite number in (0, inf], got -1.0"),
    ({"spacing": "1"}, TypeError, "spacing must be one number or a tuple of two, got '1'"),
)
bad(
    Poisson2D(2).laplacian,
    {"u": np.ones((3, 4))},
    ({"u": [1.0] * 4}, TypeError, "u must be a NumPy or CuPy array, got list"),
    ({"u": np.ones((4, 3))}, ValueError, "u must have shape (b, 4), got (4, 3)"),
    ({"u": np.ones((3, 4), int)}, TypeError, "u must be a float32 or float64 array, got dtype int64"),
)
bad(
    ScaledOutputs,
    {"gamma": 0},
    ({"gamma": NAN}, ValueError, "gamma must be a finite number"),
    ({"gamma": "0.01"}, TypeError, "gamma must be a real number, got '0.01'"),
    ({"gamma": 1j}, TypeError, "gamma must be a real number, got 1j"),
)


bad(
    DifferencedSolver,
    {"solve": CHAIN.solve, "state_size": 4, "control_size": 12, "output_size": 4},
    ({"solve": None}, TypeError, "solve must be callable, got None"),
    ({"state_size": 0}, ValueError, "state_size must be at least 1, got 0"),
    ({"control_size": 12.0}, TypeError, "control_size must be an integer, got 12.0"),
    ({"output_size": "4"}, TypeError, "output_size must be an integer, got '4'"),
    ({"method": "forward"}, ValueError, "method must be one of 'central', 'complex'; got 'forward'"),
    ({"step": 0}, ValueError, "step must be a finite number in (0, inf], got 0"),
    ({"step": [1e-3, 1e-3]}, ValueError, "step must be one number or 12 of them, got 2"),
    ({"step": "small"}, TypeError, "step must be a real number, got 'small'"),
    ({"step": [1e-3] * 11 + [NAN]}, ValueError, "step must be a finite number in (0, inf], got nan"),
)
DIFFERENCED = DifferencedSolver(CHAIN.solve, 4, 12, 4)
for method in (DIFFERENCED.solve, DIFFERENCED.forward, DIFFERENCED.jacobian, DIFFERENCED.error_estimate):
    bad(
        method,
        {"x": X, "u": U},
        ({"x": X[:, 1:]}, ValueError, "x must have shape (b, 4), got (3, 3)"),
        ({"u": U[:2]}, ValueError, "u must have shape (3, 12), got (2, 12)"),
        ({"u": U.astype(SINGLE)}, TypeError, "arrays must share one dtype, but x is float64, u is float32"),
        ({"u": on_device(U)}, TypeError, "x is a numpy array but u is a cupy array"),
    )


def arrays_of(solver, b=3):
    """x, u and y of ones."""
    sizes = solver.state_size, solver.control_size, solver.output_size
    return [np.ones((b, size)) for size in sizes]


def pull_back(solver, y_bar):
    x, u, _ = arrays_of(solver)
    return solver.backward(solver.forward(x, u)[1], y_bar)


for solver in (CHAIN, QuantumDipole(6, 7), Poisson2D((2, 3)), ScaledOutputs()):
    x, u, y = arrays_of(solver)
    inputs = {"x": x, "u": u}
    refused = (
        ({"x": x[:, 1:]}, ValueError, f"x must have shape (b, {x.shape[1]}), got {x[:, 1:].shape}"),
        ({"x": x.tolist()}, TypeError, "x must be a NumPy or CuPy array, got list"),
        ({"x": x.astype(int)}, TypeError, "x must be a float32 or float64 array, got dtype int64"),
        ({"x": x[:0], "u": u[:0]}, ValueError, "x is empty: shape"),
        ({"u": u[:2]}, ValueError, f"u must have shape {u.shape}, got {u[:2].shape}"),
        ({"u": u[:, 1:]}, ValueError, f"u must have shape {u.shape}, got {u[:, 1:].shape}"),
        ({"u": None}, TypeError, "u must be a NumPy or CuPy array, got NoneType"),
        ({"u": u.astype(SINGLE)}, TypeError, "arrays must share one dtype, but x is float64, u is float32"),
        ({"u": on_device(u)}, TypeError, "x is a numpy array but u is a cupy array"),
        ({"x": huge(TRILLION, x.shape[1])}, ValueError, f"u must have shape (1000000000000, {u.shape[1]})"),
    )
    bad(solver.solve, inputs, *refused)
    bad(solver.jacobian, inputs, *refused[4:7])
    bad(
        solver.tangent,
        inputs | {"du": u},
        *refused[1:5],
        ({"du": u[:2]}, ValueError, f"du must have shape {u.shape}, got {u[:2].shape}"),
        ({"du": u[:, 1:]}, ValueError, f"du must have shape {u.shape}, got {u[:, 1:].shape}"),
        ({"du": u.tolist()}, TypeError, "du must be a NumPy or CuPy array, got list"),
        ({"du": u.astype(SINGLE)}, TypeError, "arrays must share one dtype, but u is float64, du is float32"),
        ({"du": on_device(u)}, TypeError, "u is a numpy array but du is a cupy array"),
    )
    cotangents = (
        ({"y_bar": y[:2]}, ValueError, f"y_bar must have shape {y.shape}, got {y[:2].shape}"),
        ({"y_bar": y[0]}, ValueError, f"y_bar must have shape {y.shape}, got {y[0].shape}"),
        ({"y_bar": y[:, 1:]}, ValueError, f"y_bar must have shape {y.shape}, got {y[:, 1:].shape}"),
        ({"y_bar": y.tolist()}, TypeError, "y_bar must be a NumPy or CuPy array, got list"),
        ({"y_bar": y.astype(int)}, TypeError, "y_bar must be a float32 or float64 array, got dtype int64"),
        ({"y_bar": y.astype(SINGLE)}, TypeError, "arrays must share one dtype, but tape is float64, y_bar is float32"),
        ({"y_bar": on_device(y)}, TypeError, "tape is a numpy array but y_bar is a cupy array"),
    )
    bad(solver.adjoint, inputs | {"y_bar": y}, *refused[4:7], *cotangents)
    size = solver.output_size
    bad(
        pull_back,
        {"solver": solver, "y_bar": y},
        *cotangents,
        ({"y_bar": np.ones((3, 5, size + 1))}, ValueError, f"y_bar must have shape (3, r, {size})"),
        ({"y_bar": np.ones((50, 2, size))}, ValueError, f"y_bar must have shape (3, r, {size})"),
        ({"y_bar": np.ones((3, 0, size))}, ValueError, "y_bar is empty: shape"),
        name=f"{type(solver).__name__}.backward",
    )
bad(
    CHAIN.trajectory,
    {"x": X, "u": U},
    ({"u": U[:2]}, ValueError, "u must have shape (3, 12), got (2, 12)"),
)

# Memory, files, checks, devices, threads

bad(
    memory_estimate,
    {"problem": PROBLEM, "batch": 8, "tile": 2},
    ({"problem": "toy"}, TypeError, "problem must be a Problem, got str"),
    ({"batch": 0}, ValueError, "batch must be at least 1, got 0"),
    ({"batch": 8.0}, TypeError, "batch must be an integer, got 8.0"),
    ({"method": "lu"}, ValueError, "method must be one of 'auto', 'svd'"),
    ({"tau": -1.0}, ValueError, "tau must be a finite number in [0, inf], got -1.0"),
    ({"tile": 0}, ValueError, "tile must be at least 1, got 0"),
    ({"tile": "4"}, TypeError, "tile must be an integer, got '4'"),
)
bad(
    fitting_tile,
    {"problem": PROBLEM, "batch": 8},
    ({"memory_limit": "1 GB"}, TypeError, "memory_limit must be a real number, got '1 GB'"),
    ({"memory_limit": 0}, ValueError, "memory_limit must be a finite number in (0, inf], got 0"),
)


PATHS = (
    ({"path": None}, TypeError, "path must be a str or Path that names a file, got None"),
    ({"path": 3}, TypeError, "path must be a str or Path that names a file, got 3"),
    ({"path": b"run.npz"}, TypeError, "path must be a str or Path that names a file, got b'run.npz'"),
    ({"path": ""}, TypeError, "path must be a str or Path that names a file, got ''"),
    ({"path": "a\0b"}, TypeError, r"path must be a str or Path that names a file, got 'a\x00b'"),
    ({"path": "."}, IsADirectoryError, "path '.' is a folder, not a file such as 'run.npz'"),
)
RUN = Result(State(THETA, {}), [Epoch(0.0, 0, 0.0, None, 1.0)], batch=2)
bad(
    replace(RUN, history=History(RUN.history)).plot,
    {"path": "run.png"},
    ({"path": "run"}, ValueError, "path must end in a kind of picture, such as .png, got 'run'"),
    ({"path": "run.npz"}, ValueError, "such as .png, got 'run.npz'"),
    ({"path": 7}, TypeError, "path must be a str or Path that names a file, got 7"),
)
bad(
    save_checkpoint,
    {"path": "run.npz", "result": RUN},
    *PATHS,
    ({"result": None}, TypeError, "result must be a Result, such as fit returns, got None"),
    ({"result": RUN.state}, TypeError, "result must be a Result, such as fit returns, got State"),
)
bad(load_checkpoint, {"path": "run.npz"}, *PATHS)
bad(
    Checkpoints,
    {"path": "run.npz"},
    *PATHS,
    ({"every": "1"}, TypeError, "every must be a real number, got '1'"),
    ({"every": -1}, ValueError, "every must be a finite number in [0, inf], got -1"),
    ({"every": True}, TypeError, "every must be a real number, got True"),
    ({"keep": "all"}, ValueError, "keep must be one of 'last', 'best'; got 'all'"),
    ({"keep": None}, ValueError, "keep must be one of 'last', 'best'; got None"),
)


def same(v):
    return v


bad(
    dot_test,
    {"tangent": same, "adjoint": same, "v": np.ones(2), "w": np.ones(2)},
    ({"tangent": None}, TypeError, "tangent must be callable, got None"),
    ({"adjoint": np.eye(2)}, TypeError, "adjoint must be callable, got array("),
    ({"v": [1.0, 1.0]}, TypeError, "v must be a NumPy or CuPy array, got list"),
    ({"w": np.ones(2, int)}, TypeError, "w must be a float32 or float64 array, got dtype int64"),
    ({"w": np.ones(3)}, ValueError, "tangent(v) must have shape (3,), got (2,)"),
    ({"adjoint": list}, TypeError, "adjoint(w) must be a NumPy or CuPy array, got list"),
)
bad(
    taylor_test,
    {"function": same, "tangent": lambda v, d: d, "v": np.ones(2), "direction": np.ones(2)},
    ({"function": 1}, TypeError, "function must be callable, got 1"),
    ({"tangent": "f"}, TypeError, "tangent must be callable, got 'f'"),
    ({"v": [1.0, 1.0]}, TypeError, "v must be a NumPy or CuPy array, got list"),
    ({"direction": np.ones(1)}, ValueError, "direction must have shape (2,), got (1,)"),
    ({"direction": on_device(np.ones(2))}, TypeError, "v is a numpy array but direction is a cupy array"),
    ({"step": 0}, ValueError, "step must be a finite number in (0, inf], got 0"),
    ({"step": "1e-2"}, TypeError, "step must be a real number, got '1e-2'"),
    ({"halvings": 0}, ValueError, "halvings must be at least 1, got 0"),
    ({"halvings": True}, TypeError, "halvings must be an integer, got True"),
)
bad(
    choose_device,
    {"device": "cpu"},
    ({"device": "tpu"}, ValueError, "device must be one of 'auto', 'cpu', 'gpu'; got 'tpu'"),
    ({"device": None}, ValueError, "device must be one of 'auto', 'cpu', 'gpu'; got None"),
)
bad(
    to_device,
    {"array": X, "device": "gpu"},
    ({"array": [1.0]}, TypeError, "array must be a NumPy or CuPy array, got list"),
    ({"device": "cuda:0"}, ValueError, "device must be one of 'cpu', 'gpu'; got 'cuda:0'"),
)
bad(
    to_host,
    {"array": on_device(X)},
    ({"array": None}, TypeError, "array must be a NumPy or CuPy array, got NoneType"),
)


def within_policy(**options):
    with thread_policy(**options):
        pass


bad(
    within_policy,
    {"operations": 1e9, "rows": 100},
    ({"operations": "many"}, TypeError, "operations must be a real number, got 'many'"),
    ({"operations": NAN}, ValueError, "operations must be a finite number in [0, inf], got nan"),
    ({"rows": "all"}, TypeError, "rows must be an integer, got 'all'"),
    ({"rows": -1}, ValueError, "rows must be at least 0, got -1"),
    name="thread_policy",
)

# Command line


def command_line(command, **options):
    """Run it with options, ``_`` for what has no name."""
    bare = [options.pop("_")] if "_" in options else []
    named = [f"--{name}={value}" for name, value in options.items()]
    run = CliRunner().invoke(main, [command, *bare, *named])
    assert run.exit_code in (0, 2), run.output
    if run.exit_code:
        raise click.UsageError(" ".join(run.output.split()))


bad(
    command_line,
    {"command": "memory", "_": "toy"},
    ({"_": "pendulum"}, click.UsageError, "'pendulum' is not one of 'toy', 'oscillators'"),
    ({"batch": 0}, click.UsageError, "Invalid value for '--batch': 0 is not in the range x>=1"),
    ({"method": "lu"}, click.UsageError, "Invalid value for '--method': 'lu' is not one of 'auto'"),
    ({"memory-limit": 0}, click.UsageError, "Invalid value for '--memory-limit': 0.0 is not in the range x>0"),
    ({"variant": "paper"}, click.UsageError, "--variant of toy must be one of ['large-step', 'well-conditioned'], got 'paper'"),
    ({"_": "pendulum:problem"}, click.UsageError, "there is no module pendulum in "),
    ({"_": "json:loads"}, click.UsageError, "json:loads must take (seed, dtype) or less, got one of s"),
    ({"_": "json:codecs"}, click.UsageError, "json:codecs must be a higcore.Problem"),
    ({"_": "json.py:tool"}, click.UsageError, "PROBLEM must be MODULE:NAME, such as swing:problem"),
    ({"command": "train", "lr": "fast"}, click.UsageError, "Invalid value for '--lr': 'fast' is not a valid float"),
    ({"command": "train", "kappa": 2}, click.UsageError, "kappa must be a finite number in [-1, 1], got 2.0"),
    ({"command": "train", "beta": "inf"}, click.UsageError, "beta must be a finite number"),
    ({"command": "train", "epochs": "nan"}, click.UsageError, "epochs must be a finite number in (0, inf], got nan"),
    ({"command": "train", "steps": 0}, click.UsageError, "Invalid value for '--steps': 0 is not in the range x>=1"),
    ({"command": "train", "batch": 5000}, click.UsageError, "batch must be at most the number of training samples, 1024; got 5000"),
    ({"command": "train", "memory-limit": -1}, click.UsageError, "memory_limit must be a finite number in (0, inf], got -1000000000.0"),
    ({"command": "train", "dtype": "float16"}, click.UsageError, "Invalid value for '--dtype': 'float16' is not one of"),
    ({"command": "train", "resume": __file__}, click.UsageError, "is no usable checkpoint: it is no npz file"),
    ({"command": "train", "_": "friction", "optimizer": "sip"}, click.UsageError, "--optimizer of friction must be one of ['hig', 'gn'"),
    ({"command": "survey", "optimizers": "hig,lbfgs"}, click.UsageError, "--optimizers must be among"),
    ({"command": "survey"}, click.UsageError, "give one of --seconds and --epochs as the budget of a run"),
    ({"command": "tabulate", "_": "nowhere"}, click.UsageError, "Directory 'nowhere' does not exist"),
    ({"command": "report", "_": "nowhere"}, click.UsageError, "Directory 'nowhere' does not exist"),
    ({"command": "figure", "_": "1", "executor": "dask"}, click.UsageError, "--executor dask needs --scheduler, such as tcp://10.0.0.1:8786"),
    ({"command": "figure", "_": "1", "scheduler": "tcp://h:1"}, click.UsageError, "--scheduler goes with --executor dask, got --executor processes"),
    ({"command": "survey", "workers": 2}, click.UsageError, "--scheduler and --workers go with --executor; it is not given"),
    ({"command": "figure", "_": "14"}, click.UsageError, "'14' is not one of '1', '2', '3'"),
    ({"command": "table", "_": "0"}, click.UsageError, "'0' is not one of '1', '2', '3'"),
    name="python -m bench",
)
