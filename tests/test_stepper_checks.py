"""check_stepper passes steppers that are right, and says what is wrong with others."""

import numpy as np
import pytest
from test_rollout import ByAdjoint, ByJacobian, ByTangent, pendulum, pendulum_tangent

from higcore import check_stepper
from solvers import OscillatorChain, QuantumDipole, RungeKutta4

RIGHT = [
    ByTangent(),
    ByJacobian(),
    ByAdjoint(),
    RungeKutta4(pendulum, pendulum_tangent, 2, 1, 0.1),
    OscillatorChain().stepper(),
    QuantumDipole(points=6).stepper(),
]


@pytest.mark.parametrize("stepper", RIGHT, ids=lambda s: type(s).__name__)
def test_steppers_that_are_right_pass(stepper):
    report = check_stepper(stepper, show=False)
    assert report, str(report)


class WrongSign(ByAdjoint):
    def adjoint(self, x, u, next_bar):
        x_bar, u_bar = super().adjoint(x, u, next_bar)
        return -x_bar, -u_bar


class ControlForgotten(ByTangent):
    def tangent(self, x, u, dx, du):
        return super().tangent(x, u, dx, 0 * du)


class Transposed(ByJacobian):
    def jacobian(self, x, u):
        A, B = super().jacobian(x, u)
        return A.swapaxes(1, 2), B


class OneArray(ByAdjoint):
    def adjoint(self, x, u, next_bar):
        return super().adjoint(x, u, next_bar)[0]


class Summed(ByAdjoint):
    def adjoint(self, x, u, next_bar):
        x_bar, u_bar = super().adjoint(x, u, next_bar)
        return x_bar, u_bar.sum(axis=1)


class Mixed(ByTangent):
    def step(self, x, u):
        return super().step(x, u) + 0.1 * x.mean(axis=0)


MISTAKES = {
    WrongSign: "adjoint is minus the transpose of the derivative: wrong sign",
    ControlForgotten: "from 3 to 4",
    Transposed: "(A, B) of jacobian is worst in component",
    OneArray: "adjoint must return (x_bar, u_bar), got ndarray",
    Summed: "u_bar of adjoint has shape (3,) in place of (3, 2)",
    Mixed: "step of a sample depends on what else is in the batch",
}


@pytest.mark.parametrize("kind", MISTAKES, ids=lambda kind: kind.__name__)
def test_mistakes_are_named(kind):
    report = check_stepper(kind(), show=False)
    assert not report
    assert MISTAKES[kind] in str(report), str(report)


def test_what_is_no_stepper_is_told_what_it_lacks():
    with pytest.raises(TypeError, match="OscillatorChain lacks step, pull"):
        check_stepper(OscillatorChain())


def test_bad_points_are_refused():
    with pytest.raises(ValueError, match=r"x must have shape \('?3, 3|\(3, 3\)|b, 3"):
        check_stepper(ByTangent(), np.ones(3))
    with pytest.raises(TypeError, match="must be an instance"):
        check_stepper(ByTangent)
