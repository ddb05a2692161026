"""Right and wrong uses of the library, for mypy: test_typing.py says what becomes of this file.

Nothing here is run. A line that mypy must refuse ends in the code of its error; all others are
right, in what they hand over and in what they do with what comes back.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from higcore import (
    HIG,
    SGD,
    Adam,
    AdaptiveHIG,
    Batch,
    GaussNewton,
    LevenbergMarquardt,
    Problem,
    Result,
    ScaleInvariantPhysics,
    Scheduled,
    fit,
    half_inverse,
    load_checkpoint,
    memory_estimate,
)
from higcore.backend import Array, array_module, thread_policy, to_device
from higcore.device.gpu import choose_device
from higcore.kernels import RangeKernel
from higcore.losses import ComponentError, Infidelity, SquaredError
from higcore.protocols import Loss, Network, Optimizer, OptimizerState, Solver
from nets import MLP, ConvNet1d, export_numpy
from solvers import DifferencedSolver, OscillatorChain, Poisson2D, QuantumDipole, ScaledOutputs

NETWORKS: list[Network] = [MLP((4, 8, 96)), ConvNet1d(14, 2, [20, 20], 3, 384)]
SOLVERS: list[Solver] = [OscillatorChain(), QuantumDipole(), Poisson2D(), ScaledOutputs()]
SOLVERS += [DifferencedSolver(np.multiply, 2, 2, 2, step=[0.1, 1])]
BOUNDED = MLP((4, 8), bounds=(0, [1.0] * 8))
LOSSES: list[Loss] = [SquaredError(), Infidelity(), ComponentError(np.ones(28))]
OPTIMIZERS: list[Optimizer] = [HIG(), GaussNewton(), LevenbergMarquardt(), SGD(), Adam()]
OPTIMIZERS += [ScaleInvariantPhysics(), AdaptiveHIG(), Scheduled(HIG(), lambda step: 0.5**step)]


class SignDescent:
    """An optimizer of one's own; its arguments have names of their own."""

    def init(self, theta: Array) -> OptimizerState:
        return {"updates": 0}

    def update(self, at: Any, state: OptimizerState) -> tuple[Array, OptimizerState, None]:
        return np.sign(at.gradient()), {"updates": state["updates"] + 1}, None


class WithoutUpdate:
    def init(self, theta: Array) -> OptimizerState:
        return {}


class WithoutRows:
    """Less than a solver."""

    state_size = control_size = output_size = 2

    def solve(self, x: Array, u: Array) -> Array:
        return u

    def forward(self, x: Array, u: Array) -> tuple[Array, None]:
        return u, None

    def backward(self, tape: None, y_bar: Array) -> Array:
        return y_bar


def stop_early(result: Result) -> bool:
    return result.test_loss < 1e-6


def stop_without_looking() -> bool:
    return True


def right(problem: Problem, x: Array) -> float:
    result = fit(problem, HIG(tau=1e-5), batch=8, seconds=2.5, on_step=[stop_early])
    again = fit(problem, SignDescent(), batch=8, epochs=0.5, resume=result, on_epoch=(print,))
    some: Batch = problem.test[:8]
    step, info = half_inverse(x, x[:, 0], kappa=-1, method="qr")
    u, y = problem.predict(again.theta - step, some)
    u, y = problem.predict(again.theta, x=some.x, net_input=some.net_input)
    export_numpy("learned.py", BOUNDED, BOUNDED.flat(BOUNDED.parameters(again.theta)))
    fallback: str | None = info.fallback
    with thread_policy(rows=512):
        total: int = memory_estimate(problem, 128).total
    device, reason = choose_device("auto")
    columns = array_module(x=x).zeros(3), to_device(x, device), u, y, fallback, reason
    return problem.evaluate(result.theta, some) + total / 1e6 + len(columns)


def wrong_calls(problem: Problem, J: Array, g: Array) -> None:
    half_inverse(J, g, tau="small")  # arg-type
    half_inverse(J)  # call-arg
    half_inverse(J, g, rcond=1e-6)  # call-arg
    fit(problem, HIG(), batch=8, steps=10, evaluate_every=(5, "steps"), validation=problem.test)
    fit(problem)  # call-arg
    fit(problem, HIG(), batch=8, steps=10, evaluate_every="daily")  # arg-type
    fit(problem, HIG(), batch=8, steps=10, validation=(J, J, J))  # arg-type
    Scheduled(HIG(), 0.5)  # arg-type
    fit(problem, HIG(), batch=12.5, steps=10)  # arg-type
    fit(problem, HIG, batch=8, steps=10)  # arg-type
    fit(problem, WithoutUpdate(), batch=8, steps=10)  # arg-type
    fit(problem, HIG(), batch=8, steps=10, on_step=stop_early)  # arg-type
    fit(problem, HIG(), batch=8, steps=10, on_step=[stop_without_looking])  # list-item
    fit(problem, HIG(), batch=8, steps=10, resume="run.npz")  # arg-type
    MLP("4")  # arg-type
    MLP((4, 8.5, 2))  # arg-type
    MLP((4, 2), bounds=1.0)  # arg-type
    DifferencedSolver(None, 2, 2, 2)  # arg-type
    export_numpy("learned.py", J, g, 3)  # call-arg
    HIG(learning_rate=1.0)  # call-arg
    OscillatorChain(control=3.0)  # arg-type
    RangeKernel("body")  # arg-type
    load_checkpoint(7)  # arg-type


def wrong_parts(data: Batch) -> None:
    network, solver, loss = MLP((2, 2)), ScaledOutputs(), SquaredError()
    Problem(network, solver, loss, data, [data])  # arg-type
    Problem(solver, solver, loss, data, data)  # arg-type
    Problem(network, WithoutRows(), loss, data, data)  # arg-type
    Problem(network, solver, SquaredError.value, data, data)  # arg-type


def wrong_answers(problem: Problem, result: Result) -> None:
    print(*result.test_loss)  # misc
    print(result.losses)  # attr-defined
    print(result.history[0].loss)  # attr-defined
    print(half_inverse(result.theta, result.theta)[2])  # misc
    print(2 * result.train_loss)  # operator
    print(problem.test.y)  # attr-defined
    problem.test.x = result.theta  # misc
