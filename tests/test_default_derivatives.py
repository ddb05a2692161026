"""Solvers that give little: what `Solver` makes of it, against solvers that give everything."""

import numpy as np
import pytest

from higcore import HIG, Adam, Batch, Problem, check_solver, dot_test, fit
from higcore.losses import SquaredError
from nets import MLP
from solvers import OscillatorChain, Poisson2D, QuantumDipole, ScaledOutputs, Solver

SOLVERS = [
    OscillatorChain(steps=12),  # 4 outputs, 12 controls
    OscillatorChain(3, steps=2, dt=0.2, control=(1.0, -0.5, 2.0)),  # 6 outputs, 2 controls
    QuantumDipole(5, 9, 0.2),
    Poisson2D((3, 2)),
    ScaledOutputs(),
]


class Wrapped:
    """Another solver seen through few of its methods; goes before `Solver`."""

    def __init__(self, inner):
        self.inner, self.calls = inner, []
        self.state_size, self.control_size = inner.state_size, inner.control_size
        self.output_size = inner.output_size

    def solve(self, x, u):
        return self.inner.solve(x, u)


def wrapped(inner, *names):
    """A `Wrapped` that gives the named methods, each noting its calls."""

    def method(name):
        def call(self, *arguments):
            self.calls.append(name)
            return getattr(self.inner, name)(*arguments)

        return call

    return type("Few", (Wrapped, Solver), {name: method(name) for name in names})(inner)


def inputs(solver, rng, b=3, dtype=float, xp=np):
    x, u = (rng.standard_normal((b, n)) for n in (solver.state_size, solver.control_size))
    return xp.asarray(x.astype(dtype)), xp.asarray(u.astype(dtype))


@pytest.mark.parametrize(
    "given", [("adjoint",), ("tangent",), ("adjoint", "tangent"), ("jacobian",)]
)
@pytest.mark.parametrize("inner", SOLVERS, ids=repr)
def test_defaults_are_the_solvers_own(inner, given, rng, xp):
    solver = wrapped(inner, *given)
    x, u = inputs(inner, rng, xp=xp)
    y, S = inner.jacobian(x, u)
    du = xp.asarray(rng.standard_normal(u.shape))
    y_bars = xp.asarray(rng.standard_normal((3, 2, inner.output_size)))
    own_y, own_S = solver.jacobian(x, u)
    assert abs(own_y - y).max() < 1e-12
    assert abs(own_S - S).max() < 1e-12
    assert abs(solver.tangent(x, u, du) - inner.tangent(x, u, du)).max() < 1e-12
    u_bar = inner.adjoint(x, u, y_bars[:, 0].copy())
    assert abs(solver.adjoint(x, u, y_bars[:, 0].copy()) - u_bar).max() < 1e-12
    forward_y, tape = solver.forward(x, u)
    assert abs(forward_y - y).max() < 1e-12
    assert abs(solver.backward(tape, y_bars[:, 0].copy()) - u_bar).max() < 1e-12
    many = inner.backward(inner.forward(x, u)[1], y_bars)
    assert solver.backward(tape, y_bars).shape == many.shape
    assert abs(solver.backward(tape, y_bars) - many).max() < 1e-12


@pytest.mark.parametrize("given", ["adjoint", "tangent", "jacobian"])
def test_defaults_pass_the_checks(given):
    check_solver(wrapped(OscillatorChain(steps=6), given), show=False).raise_if_failed()


@pytest.mark.parametrize(
    ("inner", "given", "calls"),
    [
        (SOLVERS[0], ("adjoint", "tangent"), ["adjoint"] * 4),
        (SOLVERS[1], ("adjoint", "tangent"), ["tangent"] * 2),
        (SOLVERS[3], ("adjoint", "tangent"), ["adjoint"] * 6),  # as many: adjoints
        (SOLVERS[0], ("tangent",), ["tangent"] * 12),
        (SOLVERS[1], ("adjoint",), ["adjoint"] * 6),
    ],
)
def test_the_jacobian_takes_the_fewer_calls(inner, given, calls, rng):
    solver = wrapped(inner, *given)
    solver.jacobian(*inputs(inner, rng))
    assert solver.calls == calls


@pytest.mark.parametrize("others", [(), ("adjoint",), ("tangent",), ("adjoint", "tangent")])
def test_a_jacobian_of_ones_own_is_what_training_takes_the_rows_from(others, rng):
    solver = wrapped(SOLVERS[0], "jacobian", *others)
    x, u = inputs(solver, rng)
    rows = solver.rows(solver.forward(x, u)[1])
    assert solver.calls == ["jacobian"]
    assert abs(rows - SOLVERS[0].jacobian(x, u)[1]).max() < 1e-12


def test_a_jacobian_of_ones_own_may_call_the_default(rng):
    """As one that counts or times the calls does."""

    class Counted(Wrapped, Solver):
        def adjoint(self, x, u, y_bar):
            return self.inner.adjoint(x, u, y_bar)

        def jacobian(self, x, u):
            self.calls.append("jacobian")
            return super().jacobian(x, u)

    solver = Counted(SOLVERS[0])
    x, u = inputs(solver, rng)
    assert abs(solver.rows((x, u)) - SOLVERS[0].jacobian(x, u)[1]).max() < 1e-12
    assert solver.calls == ["jacobian"]


@pytest.mark.parametrize(
    "circle",
    [
        lambda self, x, u: Solver.jacobian(self, x, u),
        lambda self, x, u: (self.solve(x, u), self.rows((x, u))),
        lambda self, x, u: (self.solve(x, u), self.tangent(x, u, u)),
        lambda self, x, u: (self.solve(x, u), self.adjoint(x, u, self.solve(x, u))),
    ],
)
def test_a_jacobian_made_from_itself(circle, rng):
    solver = type("Circle", (Wrapped, Solver), {"jacobian": circle})(SOLVERS[0])
    with pytest.raises(RecursionError):
        solver.rows(inputs(solver, rng))


def test_one_adjoint_a_cotangent(rng):
    solver = wrapped(SOLVERS[0], "adjoint", "tangent")
    tape = inputs(solver, rng)
    solver.backward(tape, rng.standard_normal((3, 4)))
    assert solver.calls == ["adjoint"]
    solver.backward(tape, rng.standard_normal((3, 2, 4)))
    assert solver.calls == ["adjoint"] * 3


def test_backward_of_all_cotangents_is_enough(rng):
    inner = SOLVERS[0]

    class AllAtOnce(Wrapped, Solver):
        def backward(self, tape, y_bar):
            return self.inner.backward(self.inner.forward(*tape)[1], y_bar)

    x, u = inputs(inner, rng)
    for found, own in zip(AllAtOnce(inner).jacobian(x, u), inner.jacobian(x, u), strict=True):
        assert abs(found - own).max() < 1e-12
    check_solver(AllAtOnce(inner), show=False).raise_if_failed()


def test_rows_alone_are_enough():
    inner = SOLVERS[0]

    class Rows(Solver):
        state_size, control_size, output_size = 4, 12, 4

        def forward(self, x, u):
            return inner.forward(x, u)

        def rows(self, tape):
            return inner.rows(tape)

    check_solver(Rows(), show=False).raise_if_failed()


class OwnTape(Wrapped, Solver):
    """A tape of its own, of as many parts as the default one, and rows; no backward."""

    def forward(self, x, u):
        return self.inner.solve(x, u), (u, x)

    def rows(self, tape):
        u, x = tape
        return self.inner.jacobian(x, u)[1]

    def adjoint(self, x, u, y_bar):
        return self.inner.adjoint(x, u, y_bar)


class NoTape(OwnTape):
    """S does not depend on x and u, so nothing is kept."""

    def forward(self, x, u):
        return self.inner.solve(x, u), None

    def rows(self, tape):
        return self.inner.jacobian(np.ones((3, 1)), np.ones((3, 2)))[1]


@pytest.mark.parametrize("solver", [OwnTape(OscillatorChain(steps=4)), NoTape(ScaledOutputs())])
def test_backward_on_a_tape_of_ones_own_goes_by_its_rows(solver, rng):
    x, u = inputs(solver, rng)
    y, tape = solver.forward(x, u)
    for y_bar in (rng.standard_normal(y.shape), rng.standard_normal((3, 5, y.shape[1]))):
        expected = solver.inner.backward(solver.inner.forward(x, u)[1], y_bar)
        assert abs(solver.backward(tape, y_bar) - expected).max() < 1e-12
    check_solver(OwnTape(OscillatorChain(steps=4)), show=False).raise_if_failed()


def test_rows_of_ones_own_may_call_the_default(rng):
    class Same(OwnTape):
        def forward(self, x, u):
            return self.inner.solve(x, u), (x, u)

        def rows(self, tape):
            return Solver.rows(self, tape)

    x, u = inputs(SOLVERS[0], rng)
    assert abs(Same(SOLVERS[0]).rows((x, u)) - SOLVERS[0].jacobian(x, u)[1]).max() < 1e-12


@pytest.mark.parametrize("given", ["adjoint", "tangent", "jacobian"])
def test_float32_stays_float32(given, rng):
    solver = wrapped(SOLVERS[0], given)
    x, u = inputs(solver, rng, dtype=np.float32)
    y, S = solver.jacobian(x, u)
    assert y.dtype == S.dtype == solver.backward((x, u), y).dtype == np.float32
    assert solver.tangent(x, u, u).dtype == np.float32


def test_cotangents_may_be_written_to_and_handed_to_other_libraries(rng):
    """`broadcast_to` makes read-only arrays, which DLPack does not export."""
    seen = []

    class Owner(Wrapped, Solver):
        def adjoint(self, x, u, y_bar):
            seen.append(y_bar.flags.writeable and y_bar.flags.c_contiguous)
            return self.inner.adjoint(x, u, y_bar)

    for b in (1, 3):
        Owner(SOLVERS[0]).jacobian(*inputs(SOLVERS[0], rng, b))
    assert len(seen) == 8
    assert all(seen)


@pytest.mark.parametrize("given", ["adjoint", "tangent", "jacobian"])
def test_training_takes_the_same_steps(given, rng):
    inner = OscillatorChain(steps=8, dt=0.4)
    x = rng.random((16, 4))
    data = Batch(x, x.copy(), rng.random((16, 4)))
    for optimizer in (HIG(), Adam(lr=1e-2)):
        results = [
            fit(
                Problem(MLP((4, 6, 8)), solver, SquaredError(), data, data, name="chain"),
                optimizer, batch=8, steps=20,
            )
            for solver in (inner, wrapped(inner, given))
        ]  # fmt: skip
        losses = [result.test_loss for result in results]
        assert losses[0] < 0.9 * results[0].history[0].test_loss
        assert abs(losses[1] - losses[0]) < 1e-6 * losses[0]


def solve(self, x, u):
    return u


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, r"solver Mine must give solve\(x, u\) -> y"),
        ({"adjoint": solve}, r"solver Mine must give solve\(x, u\) -> y"),
        ({"solve": solve}, r"must give a derivative beside solve: adjoint\(x, u, y_bar\) -> u_bar"),
        ({"forward": solve}, r"must give a derivative beside solve"),
        (
            {"forward": solve, "adjoint": solve},
            r"a tape of its own in forward, so it must give rows\(tape\) -> S",
        ),
        ({"forward": solve, "backward": solve}, r"must give rows\(tape\)"),
    ],
)
def test_a_class_that_gives_too_little_is_refused_at_once(body, message):
    with pytest.raises(TypeError, match=message):
        type("Mine", (Solver,), body)


class Identity(Solver):
    state_size = control_size = output_size = 2

    def solve(self, x, u):
        return u

    def adjoint(self, x, u, y_bar):
        return y_bar


@pytest.mark.parametrize(
    ("method", "wrong", "message"),
    [
        ("solve", lambda x, u: u[0], r"y = solve\(x, u\) must have shape \(3, 2\), got \(2,\)"),
        (
            "adjoint",
            lambda x, u, w: w[0],
            r"u_bar = adjoint\(x, u, y_bar\) must have shape \(3, 2\)",
        ),
        ("tangent", lambda x, u, v: v[0], r"dy = tangent\(x, u, du\) must have shape \(3, 2\)"),
        (
            "jacobian",
            lambda x, u: (u, u),
            r"S of y, S = jacobian\(x, u\) must have shape \(3, 2, 2\), got \(3, 2\)",
        ),
        ("adjoint", lambda x, u, w: w.tolist(), "must be a NumPy or CuPy array, got list"),
    ],
)
def test_wrong_shapes_do_not_broadcast(method, wrong, message, rng):
    body = {method: lambda self, *arguments: wrong(*arguments)}
    if method == "tangent":
        body["adjoint"] = Solver.adjoint
    solver = type("Wrong", (Identity,), body)()
    with pytest.raises((TypeError, ValueError), match=message):
        solver.rows(solver.forward(*inputs(solver, rng))[1])


@pytest.mark.parametrize(
    ("x", "u", "message"),
    [
        (np.zeros((2, 3)), np.zeros((2, 2)), r"x must have shape \(b, 2\), got \(2, 3\)"),
        (np.zeros((2, 2)), np.zeros((3, 2)), r"u must have shape \(2, 2\), got \(3, 2\)"),
        (np.zeros((2, 2)), np.zeros((2, 2), np.float32), "x is float64, u is float32"),
    ],
)
def test_arguments_are_named(x, u, message):
    with pytest.raises((TypeError, ValueError), match=message):
        Identity().forward(x, u)


def test_wrong_directions_are_named(rng):
    x, u = inputs(Identity(), rng)
    with pytest.raises(ValueError, match=r"du must have shape \(3, 2\), got \(3, 1\)"):
        Identity().tangent(x, u, u[:, :1])
    with pytest.raises(ValueError, match=r"y_bar must have shape \(3, 2\), got \(3, 1\)"):
        wrapped(SOLVERS[4], "tangent").adjoint(x[:, :1], u, u[:, :1])


def test_default_tangent_and_adjoint_are_transposes(rng):
    for given in ("adjoint", "tangent"):
        solver = wrapped(SOLVERS[0], given)
        x, u = inputs(solver, rng)
        for _ in range(20):
            v, w = rng.standard_normal(u.shape), rng.standard_normal((3, 4))
            tangent, adjoint = (
                lambda v, solver=solver, x=x, u=u: solver.tangent(x, u, v),
                lambda w, solver=solver, x=x, u=u: solver.adjoint(x, u, w),
            )
            assert dot_test(tangent, adjoint, v, w) < 1e-12


@pytest.mark.parametrize(
    ("argument", "lacks"),
    [("network", "lacks rows, backward"), ("solver", "lacks forward, backward, rows")],
)
def test_a_problem_says_what_its_parts_lack(argument, lacks):
    class Bare:
        state_size = input_size = control_size = output_size = size = 2
        solve = init = None

    if argument == "network":
        Bare.forward = None
        lacks = "lacks backward, rows"
    data = Batch(*3 * [np.zeros((2, 2))])
    parts = {"network": MLP((2, 2)), "solver": Identity()} | {argument: Bare()}
    with pytest.raises(TypeError, match=f"{argument} must have .*; Bare {lacks}"):
        Problem(**parts, loss=SquaredError(), train=data, test=data)
