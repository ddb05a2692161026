"""The public checks must accept right derivatives, reject wrong ones, and say what is wrong."""

import types

import numpy as np
import pytest

from higcore import check_network, check_solver, dot_test, taylor_test
from nets import MLP, ConvNet1d, Network
from nets.layers import Conv1d, Dense
from solvers import OscillatorChain, Poisson2D, QuantumDipole, ScaledOutputs, Solver

SOLVERS = [
    OscillatorChain(steps=12),
    OscillatorChain(3, steps=7, dt=0.2, cubic=0.7, linear=0.3, control=(1.0, -0.5, 2.0)),
    OscillatorChain(1, steps=5, control=(2.0,)),
    QuantumDipole(6, 20, 0.2),
    Poisson2D((3, 4)),
    ScaledOutputs(),
]
NETWORKS = [
    MLP((4, 20, 20, 6), "relu"),
    MLP((1, 7, 2), "tanh"),
    MLP((3, 5), "linear"),
    MLP((2, 1, 1, 3), "relu"),
    ConvNet1d(8, 2, (4, 3), 3, 6, "relu"),
    ConvNet1d(8, 2, (4,), 3, 6),
]


def test_dot_test_accepts_a_transpose_and_rejects_the_rest(rng):
    A = rng.standard_normal((5, 3))
    v, w = rng.standard_normal(3), rng.standard_normal(5)
    assert dot_test(lambda v: A @ v, lambda w: A.T @ w, v, w) < 1e-14
    assert dot_test(lambda v: A @ v, lambda w: -A.T @ w, v, w) > 1e-3
    assert dot_test(lambda v: A @ v, lambda w: (A + 1e-6).T @ w, v, w) > 1e-9


def test_dot_test_of_the_zero_operator():
    zero = np.zeros(2)
    assert dot_test(lambda v: 0 * v, lambda w: 0 * w, np.ones(2), np.ones(2)) == 0
    assert dot_test(lambda v: 0 * v, lambda w: w, np.ones(2), np.ones(2)) > 0
    assert dot_test(lambda v: v, lambda w: w, zero, zero) == 0
    assert np.isnan(dot_test(lambda v: v * np.nan, lambda w: 0 * w, np.ones(2), np.ones(2)))


def test_dot_test_names_a_wrong_shape():
    with pytest.raises(ValueError, match=r"adjoint\(w\) must have shape \(3,\)"):
        dot_test(lambda v: v[:2], lambda w: w, np.ones(3), np.ones(2))


def test_taylor_test_sees_a_wrong_derivative(rng):
    v, d = rng.standard_normal(4), rng.standard_normal(4)
    right = taylor_test(np.exp, lambda v, d: np.exp(v) * d, v, d)
    wrong = taylor_test(np.exp, lambda v, d: 1.01 * np.exp(v) * d, v, d)
    assert len(right) == 4
    assert all(abs(order - 2) < 0.05 for order in right)
    assert wrong[-1] < 1.5


def test_taylor_test_needs_a_halving():
    with pytest.raises(ValueError, match="halvings must be at least 1"):
        taylor_test(np.exp, lambda v, d: d, np.ones(1), np.ones(1), halvings=0)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
def test_honest_solvers_pass(solver, seed):
    report = check_solver(solver, seed=seed, show=False)
    report.raise_if_failed()
    assert all(row.passed for row in report.rows)  # nothing had to be skipped either


@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
def test_honest_solvers_pass_in_float32(solver, rng):
    x = rng.standard_normal((2, solver.state_size)).astype(np.float32)
    check_solver(solver, x, show=False).raise_if_failed()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("network", NETWORKS, ids=lambda n: f"{type(n).__name__}-{n.size}")
def test_honest_networks_pass(network, seed, rng):
    check_network(network, seed=seed, show=False).raise_if_failed()
    # Zero biases behind a dead layer put ReLU right on its kink.
    theta = network.init(np.random.default_rng(seed))
    check_network(network, theta, show=False).raise_if_failed()
    x = rng.standard_normal((4, network.input_size)).astype(np.float32)
    check_network(network, x=x, seed=seed, show=False).raise_if_failed()


def test_checks_on_every_backend(xp, rng):
    x = xp.asarray(rng.standard_normal((2, 4)))
    check_solver(OscillatorChain(steps=6), x, show=False).raise_if_failed()
    check_network(MLP((4, 3, 2)), x=x, show=False).raise_if_failed()


class Waves(Solver):
    """y = x_1 sin(u A) + |x_2| u B; honest, and linear in u if x_1 = 0."""

    def __init__(self, controls=4, outputs=3):
        rng = np.random.default_rng(5)
        self.A, self.B = rng.standard_normal((2, controls, outputs))
        self.state_size, self.control_size, self.output_size = 2, controls, outputs

    def parts(self, x, u):
        A, B = self.A.astype(u.dtype), self.B.astype(u.dtype)
        return A, B, x[:, :1] * np.cos(u @ A), abs(x[:, 1:])

    def solve(self, x, u):
        A, B, _, scale = self.parts(x, u)
        return x[:, :1] * np.sin(u @ A) + scale * (u @ B)

    def tangent(self, x, u, du):
        A, B, slope, scale = self.parts(x, u)
        return slope * (du @ A) + scale * (du @ B)

    def adjoint(self, x, u, y_bar):
        A, B, slope, scale = self.parts(x, u)
        return (slope * y_bar) @ A.T + (scale * y_bar) @ B.T


class Kinked(Waves):
    """With a limiter, a ReLU and a kink right at u_1 = 0, where everything is checked."""

    def solve(self, x, u):
        return np.maximum(super().solve(x, u), 0) + abs(u[:, :1])

    def tangent(self, x, u, du):
        on = super().solve(x, u) > 0
        return on * super().tangent(x, u, du) + np.sign(u[:, :1]) * du[:, :1]

    def adjoint(self, x, u, y_bar):
        u_bar = super().adjoint(x, u, (super().solve(x, u) > 0) * y_bar)
        u_bar[:, 0] += np.sign(u[:, 0]) * y_bar.sum(axis=1)
        return u_bar


@pytest.mark.parametrize("seed", range(20))
def test_kinks_are_no_false_alarm(seed):
    u = np.random.default_rng(seed).standard_normal((3, 4))
    u[1, 0] = 0
    check_solver(Kinked(), u=u, seed=seed, show=False).raise_if_failed()


def test_linear_functions_have_no_taylor_order():
    solver = Waves()
    for x in (np.array([[0.0, 1.0]]), np.zeros((2, 2))):
        report = check_solver(solver, x, show=False)
        report.raise_if_failed()
        assert row(report, "Taylor order").seen == "no remainder"


def row(report, what):
    return next(row for row in report.rows if row.what.startswith(what))


def broken(base=Waves, size=(4, 3), **methods):
    """An instance of ``base`` some of whose methods are wrong: name -> (right, *arguments)."""

    def wrong(name, method):
        right = getattr(base, name)
        return lambda self, *arguments: method(lambda *a: right(self, *a), *arguments)

    body = {name: wrong(name, method) for name, method in methods.items()}
    return type("Broken", (base,), body)(*size)


def without_component(right, x, u, y_bar):
    u_bar = right(x, u, y_bar)
    u_bar[:, 2] -= 1e-5 * u_bar[:, 2]
    return u_bar


def only_first_sample(right, x, u, y_bar):
    u_bar = right(x, u, y_bar)
    u_bar[1:] = right(x[1:], 0 * u[1:], y_bar[1:])
    return u_bar


def one_nan(right, x, u, y_bar):
    u_bar = right(x, u, y_bar)
    u_bar[0, 1] = np.nan
    return u_bar


def raising(right, x, u, y_bar):
    raise KeyError("no such grid")


def scribbling(right, x, u, y_bar):
    y_bar *= 2
    return right(x, u, y_bar / 2)


ADJOINTS = {
    "sign": (
        lambda right, *a: -right(*a),
        {
            "adjoint against": "adjoint is minus the transpose of the derivative: wrong sign",
            "dot test": "adjoint is minus the transpose of the tangent: wrong sign",
        },
    ),
    "factor": (
        lambda right, *a: 2 * right(*a),
        {
            "adjoint against": "adjoint is 2.0 times the transpose of the derivative",
            "dot test": "adjoint is 2.0 times the transpose of the tangent",
        },
    ),
    "sign and factor": (
        lambda right, *a: right(*a) / -8,
        {"dot test": "adjoint is -0.125 times the transpose of the tangent: wrong sign"},
    ),
    "zero": (
        lambda right, *a: 0 * right(*a),
        {"adjoint against": "adjoint is zero in place of the transpose of the derivative"},
    ),
    "component": (
        without_component,
        {
            "adjoint against": "is worst in component 2 of u",
            "dot test": "adjoint is not the transpose of the tangent",
        },
    ),
    "samples": (
        only_first_sample,
        {"adjoint against": "4 of 4 components are off, from 0 to 3, only in samples 1, 2 of 3"},
    ),
    "reversed": (
        lambda right, *a: right(*a)[:, ::-1],
        {"adjoint against": "adjoint has the components of u in reverse order"},
    ),
    "NaN": (one_nan, {"adjoint": "adjoint holds 1 NaN or Inf of 12 values"}),
    "summed": (
        lambda right, *a: right(*a).sum(axis=0),
        {"adjoint": r"has shape (4,) in place of (3, 4); is the sample axis summed away?"},
    ),
    "shape": (
        lambda right, *a: right(*a)[:, :3],
        {"adjoint": r"adjoint has shape (3, 3) in place of (3, 4)"},
    ),
    "dtype": (
        lambda right, *a: right(*a).astype(np.float32),
        {"adjoint": "adjoint has dtype float32 for inputs of float64"},
    ),
    "list": (
        lambda right, *a: right(*a).tolist(),
        {"adjoint": "adjoint is no NumPy or CuPy array but of type list"},
    ),
    "raising": (
        raising,
        {
            "adjoint": "raised KeyError: 'no such grid'",
            "dot test": "raised KeyError: 'no such grid'",
        },
    ),
    "scribbling": (scribbling, {"arguments": "adjoint changes the arrays it is given"}),
}


@pytest.mark.parametrize("mistake", ADJOINTS)
@pytest.mark.parametrize("seed", range(3))
def test_wrong_adjoints_are_named(mistake, seed):
    method, verdicts = ADJOINTS[mistake]
    report = check_solver(broken(adjoint=method), seed=seed, show=False)
    assert not report
    for what, verdict in verdicts.items():
        assert verdict in row(report, what).verdict
        assert row(report, what).passed is False
    # The tangent is right, and said to be.
    assert row(report, "tangent against").passed
    assert row(report, "Taylor order").passed
    assert row(report, "solve, again").passed


def test_a_transposed_s_is_named():
    honest = Waves(3, 3)
    swapped = broken(size=(3, 3), adjoint=lambda right, x, u, w: honest.tangent(x, u, w))
    report = check_solver(swapped, show=False)
    assert "adjoint applies S in place of its transpose" in row(report, "adjoint against").verdict
    assert row(report, "S against").verdict == "S is transposed"
    swapped = broken(size=(3, 3), tangent=lambda right, x, u, v: honest.adjoint(x, u, v))
    report = check_solver(swapped, show=False)
    assert "applies the transpose of S" in row(report, "tangent against").verdict


TANGENTS = {
    "sign": (lambda right, *a: -right(*a), "tangent is minus the derivative: wrong sign"),
    "factor": (lambda right, *a: 0.125 * right(*a), "tangent is 0.125 times the derivative"),
    "one part in 10^5": (lambda right, *a: 1.00001 * right(*a), "tangent is 1.00001 times"),
    "component": (
        lambda right, *a: right(*a) * [1, 1, 1.001],
        "tangent is worst in component 2 of y",
    ),
}


@pytest.mark.parametrize("mistake", TANGENTS)
def test_wrong_tangents_are_named(mistake):
    method, verdict = TANGENTS[mistake]
    report = check_solver(broken(tangent=method), show=False)
    assert verdict in row(report, "tangent against").verdict
    assert row(report, "adjoint against").passed
    if mistake != "one part in 10^5":
        assert "not the first-order change" in row(report, "Taylor order").verdict
    assert row(report, "dot test").passed is False


def forgetful_backward(right, tape, y_bar):
    u_bar = right(tape, y_bar)
    tape[1][:] = 0
    return u_bar


RANDOM = np.random.default_rng(1)


def random_solve(right, x, u):
    return right(x, u) + 1e-3 * RANDOM.standard_normal((len(u), 3))


OTHERS = [
    ("solve", lambda right, x, u: right(x, u) - right(x, u).mean(axis=0), "solve, each sample"),
    ("solve", random_solve, "solve, again"),
    ("solve", lambda right, x, u: right(x, u).astype(float), "float32 in"),
    ("solve", lambda right, x, u: np.where(u[:, :1] == U0, 1, np.nan) + right(x, u), "differences"),
    ("jacobian", lambda right, x, u: (2 * right(x, u)[0], right(x, u)[1]), "y of jacobian"),
    ("rows", lambda right, tape: -right(tape), "S against"),
    ("rows", lambda right, tape: right(tape)[:, :, ::-1], "S against"),
    ("rows", lambda right, tape: right(tape)[:1], "S of jacobian"),
    ("forward", lambda right, x, u: (right(x, u)[0] + 1, right(x, u)[1]), "y of forward"),
    ("forward", lambda right, x, u: (right(x, u)[0][:, 0], right(x, u)[1]), "y of forward"),
    ("backward", lambda right, tape, w: right(tape, w) * (w.ndim - 1), "r cotangents"),
    ("backward", lambda right, tape, w: -right(tape, w), "backward = adjoint"),
    ("backward", forgetful_backward, "backward, the same tape"),
]
U0 = np.array([[0.25], [0.5], [0.75]])


@pytest.mark.parametrize(("method", "wrong", "what"), OTHERS)
def test_everything_else_that_is_wrong_is_caught(method, wrong, what):
    u = np.concatenate([U0, np.random.default_rng(3).standard_normal((3, 3))], axis=1)
    needed = {"rows": lambda right, tape: right(tape)} if method == "forward" else {}
    solver = broken(**{method: wrong}, **needed)
    report = check_solver(solver, u=u, show=False)
    assert row(report, what).passed is False, str(report)


def test_a_solve_that_fails_is_a_row_and_the_rest_is_skipped():
    def failing(right, x, u):
        raise RuntimeError("diverged\nat step 3")

    report = check_solver(broken(solve=failing), show=False)
    assert row(report, "solve").verdict == "raised RuntimeError: diverged at step 3"
    assert row(report, "everything else").passed is None
    assert len(report.failed) == 1
    nan = broken(solve=lambda right, x, u: right(x, u) * np.nan)
    assert "solve holds 9 NaN or Inf" in row(check_solver(nan, show=False), "solve").verdict


def test_a_solver_may_refuse_float32():
    def refusing(right, x, u):
        if u.dtype != float:
            raise TypeError("float64 only")
        return right(x, u)

    report = check_solver(broken(solve=refusing), show=False)
    assert report
    assert row(report, "float32 in").verdict == "skipped: solve raised TypeError"


class Inexact(Waves):
    """With noise as from an inner iteration that stops early, less of it in the last output."""

    def __init__(self, amplitude, shares=(1.0, 1.0, 0.01)):
        super().__init__()
        self.noise = amplitude * np.array(shares)

    def solve(self, x, u):
        if u.dtype != float:
            raise TypeError("float64 only")
        each = [super(Inexact, self).solve(x[i : i + 1], u[i : i + 1]) for i in range(len(u))]
        y = np.concatenate(each)
        return y + self.noise * np.sin(1e13 * y)


@pytest.mark.parametrize("amplitude", [1e-12, 1e-9, 1e-7])
def test_noise_is_not_taken_for_a_wrong_derivative(amplitude):
    for seed in range(20):
        report = check_solver(Inexact(amplitude), seed=seed, show=False)
        report.raise_if_failed()
        assert row(report, "adjoint against").passed


def test_too_much_noise_ends_the_comparison():
    report = check_solver(Inexact(1e-3), show=False)
    report.raise_if_failed()
    assert "too rough or too noisy" in row(report, "adjoint against").verdict
    report = check_solver(Inexact(1e-3, shares=(0, 1, 0)), show=False)
    report.raise_if_failed()
    assert row(report, "adjoint against").passed  # of the others
    assert "too rough or too noisy" in row(report, "1 of 3 components of y, 1").verdict
    assert str(report).endswith("all right; 2 skipped")


class Units(Solver):
    """y_j = scale_j (sin(x_j u_j) + u_j) + level_j, with a sign that the adjoint may have wrong."""

    state_size = control_size = output_size = 2

    def __init__(self, scale=(1.0, 1.0), level=0.0, sign=1.0):
        self.scale, self.level, self.sign = map(np.array, (scale, (0.0, level), (1.0, sign)))

    def solve(self, x, u):
        scale, level = self.scale.astype(u.dtype), self.level.astype(u.dtype)
        return scale * (np.sin(x * u) + u) + level

    def tangent(self, x, u, du):
        return self.scale.astype(u.dtype) * (x * np.cos(x * u) + 1) * du

    def adjoint(self, x, u, y_bar):
        return self.tangent(x, u, self.sign.astype(u.dtype) * y_bar)


SCALES = [(1, 1), (1, 1e-2), (1, 1e-3), (1e5, 1e-6), (1, 1e-9), (1e-12, 1), (1e-9, 1e-9)]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("scale", SCALES, ids=str)
def test_every_output_counts_in_its_own_units(scale, dtype, seed):
    x = np.random.default_rng(seed).standard_normal((3, 2)).astype(dtype)
    report = check_solver(Units(scale), x, seed=seed, show=False)
    report.raise_if_failed()
    assert all(row.passed for row in report.rows)
    report = check_solver(Units(scale, sign=-1.0), x, seed=seed, show=False)
    for what in ("adjoint against", "S against", "S du"):
        assert "is worst in component 1 of" in row(report, what).verdict
        assert row(report, what).verdict.endswith("wrong sign there")
    assert row(report, "dot test").passed is False
    assert "only in outputs 1 of 2" in row(report, "S against").verdict
    assert "times" not in str(report)  # no factor near 1 is made of it


@pytest.mark.parametrize("tiny", [1e-60, 1e-250])
def test_cotangents_of_a_tiny_output_do_not_overflow(tiny):
    check_solver(Units((1.0, tiny)), show=False).raise_if_failed()
    report = check_solver(Units((1.0, tiny), sign=-1.0), show=False)
    assert row(report, "S against").verdict.endswith("wrong sign there")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("level", [1e2, 1e4, 1e6, 1e8, 1e12])
@pytest.mark.parametrize("scale", [1.0, 1e-3])
def test_what_rounding_hides_is_said_to_be_skipped(scale, level, dtype):
    x = np.random.default_rng(0).standard_normal((3, 2)).astype(dtype)
    check_solver(Units((1.0, scale), level), x, show=False).raise_if_failed()
    report = check_solver(Units((1.0, scale), level, -1.0), x, show=False)
    skipped = [row for row in report.rows if row.what == "1 of 2 components of y, 1"]
    assert report.failed or "hidden by the rounding of its values" in skipped[0].verdict


def test_rounding_that_hides_everything_skips_everything():
    class High(Units):
        def solve(self, x, u):
            return super().solve(x, u) + 1e12

    report = check_solver(High(sign=-1.0), show=False)
    for what in ("tangent against", "adjoint against", "S against"):
        assert "hidden by the rounding of its values" in row(report, what).verdict


def test_an_output_that_does_not_depend_on_u_has_no_derivative():
    class Constant(Units):
        """y_1 = x_1, and its derivative is said to be ``slope``."""

        slope = 0.0

        def solve(self, x, u):
            y = super().solve(x, u)
            y[:, 1] = x[:, 1]
            return y

        def adjoint(self, x, u, y_bar):
            u_bar = super().adjoint(x, u, y_bar)
            u_bar[:, 1] = self.slope * y_bar[:, 1]
            return u_bar

        def tangent(self, x, u, du):
            dy = super().tangent(x, u, du)
            dy[:, 1] = self.slope * du[:, 1]
            return dy

    right, wrong = Constant(), Constant()
    wrong.slope = 1.0
    check_solver(right, show=False).raise_if_failed()
    report = check_solver(wrong, show=False)
    for what in ("tangent against", "adjoint against", "S against"):
        assert row(report, what).passed is False


def test_sizes_must_be_there():
    solver = Waves()
    del solver.control_size
    report = check_solver(solver, show=False)
    assert [r.what for r in report.failed] == ["sizes"]
    assert "no attribute 'control_size'" in report.failed[0].verdict
    solver.control_size = 0
    assert "control_size must be at least 1" in check_solver(solver, show=False).failed[0].verdict


def test_many_columns_are_drawn():
    report = check_solver(Waves(600, 2), show=False)
    report.raise_if_failed()
    assert row(report, "S against").what == "S against differences, 512 of 600 columns"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": np.zeros((2, 3))}, r"x must have shape \(2, 2\), got \(2, 3\)"),
        ({"u": np.zeros((2, 3))}, r"u must have shape \(2, 4\), got \(2, 3\)"),
        ({"x": np.zeros((2, 2)), "u": np.zeros((3, 4))}, r"u must have shape \(2, 4\)"),
        ({"x": np.zeros((2, 2), int)}, "x must be a float32 or float64 array"),
        ({"x": [[0.0, 1.0]]}, "x must be a NumPy or CuPy array, got list"),
        (
            {"x": np.zeros((2, 2), np.float32), "u": np.zeros((2, 4))},
            "x is float32, u is float64",
        ),
        ({"seed": -1}, "seed must be at least 0, got -1"),
    ],
)
def test_arguments_are_checked_first(arguments, message):
    with pytest.raises((TypeError, ValueError), match=message):
        check_solver(Waves(), **arguments)


def test_the_table_is_printed_and_returned(capsys):
    report = check_solver(broken(adjoint=lambda right, *a: -right(*a)))
    assert capsys.readouterr().out == f"{report}\n"
    assert str(report).startswith("check_solver: Broken\nwhat ")
    assert "adjoint is minus the transpose of the tangent: wrong sign" in str(report)
    assert str(report).endswith("5 of 24 checks failed")
    with pytest.raises(AssertionError, match=r"check_solver: Broken: 5 failed\n  adjoint against"):
        report.raise_if_failed()
    assert check_solver(Waves(), show=False)
    assert capsys.readouterr().out == ""


def test_checks_repeat_with_their_seed():
    tables = [str(check_solver(Waves(), seed=seed, show=False)) for seed in (0, 0, 1)]
    assert tables[0] == tables[1] != tables[2]


def network(layer=Dense, **methods):
    """A small network whose second layer of three has wrong methods: name -> (right, *args)."""

    def wrong(name, method):
        right = getattr(layer, name)
        return lambda self, *arguments: method(lambda *a: right(self, *a), *arguments)

    kind = type("Broken", (layer,), {name: wrong(name, m) for name, m in methods.items()})
    first = Dense(3, 8, "tanh", 0)
    if layer is Dense:
        second = kind(8, 6, "tanh", first.size)
    else:
        second = kind(4, 2, 3, 3, "tanh", first.size)  # (4 points, 2 channels) to (2, 3)
    return Network([first, second, Dense(6, 2, "linear", first.size + second.size)])


def test_a_network_of_layers_passes():
    check_network(network(), show=False).raise_if_failed()
    check_network(network(Conv1d), show=False).raise_if_failed()


def half_of_theta_bar(right, theta, theta_bar, *rest):
    a_bar = right(theta, theta_bar, *rest)
    theta_bar[40] *= 0.5
    return a_bar


def negative_theta_bar(right, theta, theta_bar, *rest):
    a_bar = right(theta, theta_bar, *rest)
    theta_bar[:] *= -1
    return a_bar


def scribbling_forward(right, theta, a):
    a_out = right(theta, a)
    theta *= 2
    return a_out


def moved(right, *arguments):
    block = right(*arguments)
    block.start += 1
    return block


LAYERS = {
    "sign": (
        {"forward": lambda right, theta, a: -right(theta, a)},
        {"tangent against": "of u", "backward against": "components are off, from 0 to 85"},
    ),
    "no da": (
        {
            "tangent": lambda right, theta, dtheta, a, a_out, da: right(
                theta, dtheta, a, a_out, 0 * da
            )
        },
        {"tangent against": "of u", "Taylor": "not the first-order change", "dot test": "is not"},
    ),
    "one parameter": (
        {"backward": half_of_theta_bar},
        {
            "backward against": "is worst in component 40 of theta",
            "J^T w = backward": "component 40",
        },
    ),
    "all parameters": (
        {"backward": negative_theta_bar},
        {
            "dot test": "backward is not the transpose of the tangent",
            "backward against": "of theta",
        },
    ),
    "a_bar": (
        {"backward": lambda right, *a: 2 * right(*a)},
        {"backward against": "is worst in component"},
    ),
    "pull_rows": (
        {"pull_rows": lambda right, *a: 2 * right(*a)},
        {"J against": "32 of 100 components are off, from 0 to 31", "J J^T against": "of the rows"},
    ),
    "rows": (
        {"rows": lambda right, theta, a, a_out, rows: right(theta, a, 0 * a_out, rows)},
        {"J against": "is worst in component", "J v": "of the rows", "J^T w": "of theta"},
    ),
    "rows raise": ({"rows": lambda right, *a: 1 / 0}, {"rows": "raised ZeroDivisionError"}),
    "start": ({"rows": moved}, {"rows": "rows covers theta from 0 to 32, 33 to 86, 86 to 100 of"}),
    "batch": (
        {"forward": lambda right, theta, a: right(theta, a - a.mean(axis=0))},
        {"forward, each sample": "depends on what else is in the batch"},
    ),
    "random": (
        {"init": lambda right, rng, theta: right(RANDOM, theta)},
        {"init, the same seed": "init gives other parameters for a generator of the same seed"},
    ),
    "dtype": (
        {"forward": lambda right, theta, a: right(theta.astype(float), a)},
        {"float32 in": "forward has dtype float64 for inputs of float32"},
    ),
    "scribbling": (
        {"forward": scribbling_forward},
        {"arguments": "forward changes the arrays it is given"},
    ),
}


@pytest.mark.parametrize("layer", [Dense, Conv1d])
@pytest.mark.parametrize("mistake", LAYERS)
def test_wrong_layers_are_named(mistake, layer):
    methods, verdicts = LAYERS[mistake]
    report = check_network(network(layer, **methods), show=False)
    for what, verdict in verdicts.items():
        assert row(report, what).passed is False, str(report)
        if layer is Dense:
            assert verdict in row(report, what).verdict


def test_wrong_factor_shapes_are_named():
    net = network()
    net.layers[1].factor_shape = (2, 8, 6)
    assert "factor_shapes is" in row(check_network(net, show=False), "factor_shapes").verdict


def test_a_network_may_lack_what_only_saves_memory():
    net = MLP((3, 4, 2))
    names = ("size", "input_size", "output_size", "init", "forward", "tangent", "backward", "rows")
    bare = types.SimpleNamespace(**{name: getattr(net, name) for name in names})
    report = check_network(bare, show=False)
    report.raise_if_failed()
    assert {r.what for r in report.rows if r.passed is None} == {"tiles", "factor_shapes"}


def test_a_network_of_which_init_fails_can_be_checked_at_theta(rng):
    net = MLP((3, 4, 2))
    theta = net.init(rng)
    net.init = lambda rng, dtype: 1 / 0
    report = check_network(net, theta, show=False)
    assert [r.what for r in report.failed] == ["init"]
    assert row(report, "J against").passed
    assert [r.what for r in check_network(net, show=False).rows] == ["sizes", "init"]


def test_network_arguments_are_checked_first():
    with pytest.raises(ValueError, match=r"theta must have shape \(26,\), got \(3,\)"):
        check_network(MLP((3, 4, 2)), np.zeros(3))
    with pytest.raises(TypeError, match="theta is float64, x is float32"):
        check_network(MLP((3, 4, 2)), np.zeros(26), np.zeros((2, 3), np.float32))


@pytest.mark.parametrize(("what", "check"), [("solver", check_solver), ("network", check_network)])
def test_a_class_is_no_instance(what, check):
    message = rf"{what} must be an instance, Waves\(\), not the class Waves"
    with pytest.raises(TypeError, match=message):
        check(Waves)


def test_one_sample_needs_a_sample_axis():
    message = r"x must have shape \(b, 2\), got \(2,\); one sample is x\[None\]"
    with pytest.raises(ValueError, match=message):
        check_solver(Waves(), np.zeros(2), np.zeros(4))
    with pytest.raises(
        ValueError, match=r"u must have shape \(b, 4\), got \(4,\); one sample is u"
    ):
        check_solver(Waves(), u=np.zeros(4))
    with pytest.raises(ValueError, match=r"x must have shape \(b, 3\), got \(4,\)$"):
        check_network(MLP((3, 4, 2)), x=np.zeros(4))


def bare(thing, *names):
    """An object with the sizes and the named methods of another one, and no others."""
    sizes = [name for name in dir(thing) if name == "size" or name.endswith("_size")]
    return types.SimpleNamespace(**{name: getattr(thing, name) for name in (*sizes, *names)})


PROTOCOL = ("solve", "forward", "backward", "rows")


def test_what_the_protocol_calls_optional_is_skipped():
    report = check_solver(bare(Waves(), *PROTOCOL), show=False)
    report.raise_if_failed()
    skipped = {row.what for row in report.rows if row.passed is None}
    assert skipped == {"tangent against differences", "jacobian", "dot test, 3 pairs"}
    assert row(report, "backward against").passed
    assert row(report, "S against").passed
    assert row(report, "S^T y_bar = backward").passed
    report = check_network(bare(network(), "init", "forward", "backward", "rows"), show=False)
    report.raise_if_failed()
    skipped = {row.what for row in report.rows if row.passed is None}
    assert {"tangent against differences", "dot test, 3 pairs", "J v = S tangent"} < skipped


def test_backward_and_rows_alone_are_compared_with_differences():
    wrong = bare(broken(rows=lambda right, tape: -right(tape)), *PROTOCOL)
    report = check_solver(wrong, show=False)
    assert "wrong sign" in row(report, "S against").verdict
    wrong = bare(broken(backward=lambda right, tape, y_bar: -right(tape, y_bar)), *PROTOCOL)
    report = check_solver(wrong, show=False)
    assert "wrong sign" in row(report, "backward against").verdict


def test_rows_are_checked_beside_a_jacobian_of_its_own():
    honest = Waves()
    solver = broken(
        rows=lambda right, tape: -right(tape),
        jacobian=lambda right, x, u: honest.jacobian(x, u),
    )
    report = check_solver(solver, show=False)
    assert "wrong sign" in row(report, "S against").verdict
    assert row(report, "S of jacobian = rows").passed is False


def test_nan_in_the_arguments_is_no_change_of_them():
    x = np.array([[1.0, np.nan], [1.0, 2.0]])
    ignoring = broken(solve=lambda right, x, u: right(np.nan_to_num(x), u))
    report = check_solver(ignoring, x, show=False)
    assert row(report, "arguments").passed

    def writing(right, x, u):
        x[:] = np.nan_to_num(x)
        return right(x, u)

    report = check_solver(broken(solve=writing), x, show=False)
    assert "solve changes the arrays it is given" in row(report, "arguments").verdict


def flipped(k):
    """Turn the sign of component k of what a method returns."""

    def method(right, *arguments):
        result = right(*arguments)
        result[:, k] *= -1
        return result

    return method


def test_a_wrong_sign_in_one_component_is_named():
    report = check_solver(broken(adjoint=flipped(2)), show=False)
    verdict = row(report, "adjoint against").verdict
    assert verdict.startswith("adjoint is worst in component 2 of u")
    assert verdict.endswith("1 of 4 components are off, from 2 to 2: wrong sign there")
    report = check_solver(broken(tangent=flipped(1)), show=False)
    verdict = row(report, "tangent against").verdict
    assert verdict.startswith("tangent is worst in component 1 of y")
    assert verdict.endswith("wrong sign there")
    report = check_solver(broken(adjoint=without_component), show=False)
    assert "wrong sign" not in row(report, "adjoint against").verdict


def few(**methods):
    """`Waves` that give solve and these methods, and leave the rest to `Solver`."""
    body = {name: vars(Waves)[name] for name in ("__init__", "parts", "solve")}
    return type("Few", (Solver,), body | methods)()


def minus(method):
    """The method with a wrong sign."""
    return lambda *arguments: -method(*arguments)


@pytest.mark.parametrize(("given", "made"), [("adjoint", "tangent"), ("tangent", "adjoint")])
def test_what_is_made_from_another_derivative_says_so(given, made):
    method = getattr(Waves, given)
    check_solver(few(**{given: method}), show=False).raise_if_failed()
    report = check_solver(few(**{given: minus(method)}), show=False)
    label = f"{made} (made from {given})"
    assert row(report, f"{label} against").verdict.startswith(f"{label} is minus")
    assert row(report, f"{given} against").verdict.startswith(f"{given} is minus")
    assert row(report, "dot test").verdict == f"skipped: both are made from {given}"


def test_a_dot_test_of_rows_and_backward_is_none_of_one_with_itself():
    honest = Waves()
    own = {
        "rows": lambda self, tape: -honest.rows(tape),
        "backward": lambda self, tape, y_bar: honest.backward(tape, y_bar),
    }
    report = check_solver(few(**own), show=False)
    assert row(report, "tangent (made from rows) against").passed is False
    assert row(report, "adjoint (made from backward) against").passed
    assert row(report, "dot test").passed is False
    report = check_solver(few(rows=own["rows"]), show=False)
    assert row(report, "adjoint (made from rows) against").passed is False
    assert row(report, "dot test").verdict == "skipped: both are made from rows"


def test_a_quantity_that_is_conserved_is_no_false_alarm():
    """Its derivative is nothing but the rounding of what cancels."""

    class Conserving(Waves):
        def solve(self, x, u):
            y = super().solve(x, u)
            y[:, 2] = (y[:, 0] + np.sin(u[:, 1])) - np.sin(u[:, 1]) - y[:, 0]
            return y

        def tangent(self, x, u, du):
            dy, d = super().tangent(x, u, du), np.cos(u[:, 1]) * du[:, 1]
            dy[:, 2] = (dy[:, 0] + d) - d - dy[:, 0]
            return dy

        def adjoint(self, x, u, y_bar):
            others = np.where(np.arange(3) < 2, y_bar, 0).astype(u.dtype)
            u_bar = super().adjoint(x, u, others)
            d = np.cos(u[:, 1]) * y_bar[:, 2]
            u_bar[:, 1] += (d + 3 * y_bar[:, 2]) - 3 * y_bar[:, 2] - d
            return u_bar

    for seed in range(20):
        check_solver(Conserving(), seed=seed, show=False).raise_if_failed()


class Marching(Waves):
    """Twelve controls, an array (4, 3) to those who made it, in the last axis."""

    def __init__(self):
        super().__init__(12, 3)


def turned(change):
    """Reorder the last axis of what a method returns as an array (4, 3)."""

    def method(right, *arguments):
        result = right(*arguments)
        return change(result.reshape(-1, 4, 3)).reshape(result.shape)

    return method


ORDERS = {
    "all of it": (lambda a: a[:, ::-1, ::-1], "has the components of u in reverse order"),
    "time": (
        lambda a: a[:, ::-1],
        "has u, as an array (4, 3), in reverse order along its first axis",
    ),
    "the last axis": (
        lambda a: a[:, :, ::-1],
        "has u, as an array (4, 3), in reverse order along its last axis",
    ),
    "transposed": (
        lambda a: a.swapaxes(1, 2),
        "has u transposed, as an array (3, 4) in place of (4, 3)",
    ),
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("mistake", ORDERS)
def test_controls_in_another_order_are_named(mistake, seed):
    change, verdict = ORDERS[mistake]
    wrong = broken(Marching, (), adjoint=turned(change))
    report = check_solver(wrong, seed=seed, show=False)
    assert row(report, "adjoint against").verdict == f"adjoint {verdict}"
    assert row(report, "S against").verdict == f"S {verdict}"
    assert row(report, "tangent against").passed


def test_an_order_is_not_looked_for_in_columns_that_are_drawn():
    wrong = broken(size=(600, 2), adjoint=lambda right, *a: right(*a)[:, ::-1])
    report = check_solver(wrong, show=False)
    assert "is worst in component" in row(report, "adjoint against").verdict


def test_a_solver_that_computes_in_float64_is_told_so():
    class Double(Waves):
        """With constants of NumPy's that are float64."""

        def parts(self, x, u):
            _, _, slope, scale = super().parts(x, u)
            return self.A, self.B, slope, scale

    advice = (
        ": it computes in float64, as by float64 constants of NumPy, or by SciPy; let it return "
        "astype(x.dtype) of what it finds, or train in float64"
    )
    verdict = row(check_solver(Double(), show=False), "float32 in").verdict
    assert verdict.startswith("solve has dtype float64 for inputs of float32; tangent has dtype ")
    assert verdict.count(advice) == 1
    assert verdict.endswith(advice)
    single = np.zeros((2, 2), np.float32)
    verdict = row(check_solver(Double(), single, show=False), "solve").verdict
    assert verdict == f"solve has dtype float64 for inputs of float32{advice}"
    halved = broken(solve=lambda right, x, u: right(x, u).astype(np.float32))
    assert "computes in" not in str(check_solver(halved, show=False))


class Slow(Waves):
    """Many outputs and controls, and a tangent and an adjoint of each."""

    def __init__(self):
        super().__init__(6, 5)


def made_of(solver):
    """What the remark on the cost of S begins with, "" if there is none."""
    report = check_solver(solver, show=False)
    report.raise_if_failed()
    assert len(report.remarks) <= 1
    return report.remarks[0].partition(",")[0] if report.remarks else ""


def test_what_many_products_cost_is_said():
    assert made_of(Slow()) == "S is made of 5 adjoints"
    text = str(check_solver(Slow(), show=False))
    assert " ms for these 3 samples, where solve takes " in text
    assert text.splitlines()[-2].endswith("or backward of (b, r, |y|) in one sweep.")
    assert text.endswith("all right")
    assert made_of(few(tangent=Waves.tangent)) == "S is made of 4 tangents"
    narrow = Waves(4, 6)
    assert made_of(narrow) == "S is made of 4 tangents"
    assert "backward" not in check_solver(narrow, show=False).remarks[0]


@pytest.mark.parametrize("solver", [*SOLVERS, Waves()], ids=lambda s: type(s).__name__)
def test_what_is_made_at_once_or_of_few_is_no_remark(solver):
    assert made_of(solver) == ""


def test_ones_own_rows_jacobian_or_backward_is_no_remark():
    honest = Slow()
    own = {
        "rows": lambda self, tape: honest.rows(tape),
        "jacobian": lambda self, x, u: honest.jacobian(x, u),
        "backward": lambda self, tape, y_bar: honest.backward(tape, y_bar),
    }
    for name, method in own.items():
        assert made_of(type("Own", (Slow,), {name: method})()) == ""
