"""Widths and dtypes that disagree: the sentence names the one that is wrong."""

import numpy as np
import pytest

from bench.experiments import Oscillators
from higcore import HIG, SGD, Adam, AdaptiveHIG, Batch, FreshData, Problem, fit
from higcore.losses import SquaredError
from nets import MLP
from solvers import OscillatorChain, Solver

X = np.random.default_rng(0).random((6, 2))


class Three(Solver):
    """y = (u, 2 u, 3 u) of one control; what it says, returns and computes in can be spoiled."""

    state_size, control_size, output_size = 2, 1, 3
    factors = np.array([1.0, 2.0, 3.0])

    def solve(self, x, u):
        return u * self.factors.astype(u.dtype)

    def adjoint(self, x, u, y_bar):
        return (y_bar * self.factors.astype(u.dtype)).sum(axis=1, keepdims=True)


def problem(solver, width=3, dtype=np.float64, train=None):
    x = X.astype(dtype)
    data = Batch(x, x, np.ones((6, width), dtype))
    return Problem(MLP((2, 3, 1)), solver, SquaredError(), train or data, data)


def test_all_is_right():
    assert fit(problem(Three()), HIG(), batch=6, steps=2).steps == 2


def test_a_target_of_another_width_than_the_solver_says_and_returns():
    with pytest.raises(ValueError, match=r"train.target must have shape \(6, 3\), got \(6, 2\)$"):
        problem(Three(), 2)


def test_an_output_size_that_is_not_what_solve_returns():
    class Wrong(Three):
        output_size = 2

    message = r"output_size of the solver must be 3, as many numbers as its solve returns of a "
    with pytest.raises(ValueError, match=rf"{message}sample, got 2; train.target has shape \(6, 3"):
        problem(Wrong(), 3)
    with pytest.raises(ValueError, match=rf"{message}sample, got 2; train.target has shape \(6, 5"):
        problem(Wrong(), 5)


def test_an_output_size_that_the_targets_share():
    """As long as nothing is computed, nobody can know."""

    class Wrong(Three):
        output_size = 2

    wrong = problem(Wrong(), 2)
    message = (
        r"y = solve\(x, u\) of the solver, whose output_size is 2, must have shape \(6, 2\), g"
    )
    with pytest.raises(ValueError, match=message):
        wrong.evaluate(wrong.network.init(np.random.default_rng(0)))


@pytest.mark.parametrize("spoiled", ["raising", "x"])
def test_a_solver_that_cannot_be_asked_leaves_the_target_to_blame(spoiled):
    class Raising(Three):
        def solve(self, x, u):
            raise ArithmeticError("not at u = 0")

    x = X if spoiled == "raising" else X.tolist()
    data = Batch(x, X, np.ones((6, 2)))
    with pytest.raises((ValueError, TypeError), match=r"target must have shape|train.x must be a"):
        Problem(MLP((2, 3, 1)), Raising(), SquaredError(), data, data)


def test_data_drawn_later_of_another_width():
    late = FreshData(lambda rng, n: Batch(X[:n], X[:n], np.ones((n, 3 if n == 1 else 2))))
    wrong = problem(Three(), train=late)
    with pytest.raises(ValueError, match=r"batch.target must have shape \(4, 3\), got \(4, 2\)"):
        wrong.linearise(wrong.network.init(np.random.default_rng(0)), wrong.batch(0, 4))


class Double(Three):
    """With constants in float64 alone."""

    def solve(self, x, u):
        return u * self.factors


class DoubleAdjoint(Three):
    def adjoint(self, x, u, y_bar):
        return (y_bar * self.factors).sum(axis=1, keepdims=True)

    def rows(self, tape):
        _, u = tape
        return np.broadcast_to(self.factors[:, None], (len(u), 3, 1)).copy()


ADVICE = "; the solver returned float64 for inputs of float32: let it return "


def test_a_solver_that_returns_float64_is_told_what_to_do():
    wrong = problem(Double(), dtype=np.float32)
    message = f"u is float32, y is float64{ADVICE}y.astype(u.dtype), or draw the data in float64"
    theta = wrong.network.init(np.random.default_rng(0), np.float32)
    for call in (
        lambda: wrong.evaluate(theta),
        lambda: wrong.linearise(theta, wrong.train),
        lambda: fit(wrong, Adam(), batch=6, steps=1),
    ):
        with pytest.raises(TypeError) as refused:
            call()
        assert str(refused.value) == f"arrays must share one dtype, but {message}"


def test_rows_in_float64_are_told_what_to_do():
    wrong = problem(DoubleAdjoint(), dtype=np.float32)
    theta = wrong.network.init(np.random.default_rng(0), np.float32)
    message = (
        f"theta is float32, S is float64{ADVICE}S.astype(u.dtype), or draw the data in float64"
    )
    with pytest.raises(TypeError) as refused:
        wrong.linearise(theta, wrong.train).jacobian()
    assert str(refused.value) == f"arrays must share one dtype, but {message}"


class Later(OscillatorChain):
    """A solver whose output loses a number after some calls."""

    calls: list = []  # noqa: RUF012
    last = 6

    def forward(self, x, u):
        y, tape = super().forward(x, u)
        self.calls.append(1)
        return (y[:, :3] if len(self.calls) > self.last else y), tape


class TwiceSGD(SGD):
    """Linearises once more."""

    def update(self, linearisation, state):
        return super().update(linearisation.at(linearisation.theta), state)


@pytest.mark.parametrize("last", range(6, 10))  # a call of fit's, or of the optimizer's
@pytest.mark.parametrize("optimizer", [Adam(), AdaptiveHIG(), TwiceSGD()])
def test_a_width_that_changes_is_no_fault_of_loss_or_optimizer(optimizer, last, monkeypatch):
    monkeypatch.setattr(Later, "calls", [])
    monkeypatch.setattr(Later, "last", last)
    small = Oscillators(Later(steps=6, dt=0.5), (5,), "tanh", 24, 8, "chain")
    result = fit(small.problem(), optimizer, batch=8, steps=30)
    assert result.status == "raised"
    assert "because ValueError was raised after " in result.message
    size = "of the solver, whose output_size is 4, must have shape (8, 4), got (8, 3)"
    assert f"(x, u) {size}" in result.message
