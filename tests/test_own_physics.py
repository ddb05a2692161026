"""The code of docs/your-own-physics.md runs as it stands, and what it says of layers is so."""

import importlib.util
import re

import numpy as np
import pytest
from oracles import half_inverse_by_svd
from pages import blocks_of, run, text_of

from higcore import StackedJacobian, check_network, check_solver, half_inverse
from higcore.half_inverse import METHODS
from higcore.rows import OuterProductRows
from nets import Network
from nets.layers import Dense
from solvers import Solver

PAGE = text_of("your-own-physics")
BLOCKS = blocks_of("your-own-physics")
LIBRARIES = ("torch", "jax")


def library(block):
    """What a block needs beside NumPy: one of the libraries, or "" for none."""
    found = re.search(rf"^(?:import|from) ({'|'.join(LIBRARIES)})", block, re.MULTILINE)
    return found[1] if found else ""


@pytest.mark.parametrize("needs", ["", *LIBRARIES])
def test_the_page_runs(needs, tmp_path):
    if needs and importlib.util.find_spec(needs) is None:
        pytest.skip(f"{needs} is not installed")
    blocks = [block for block in BLOCKS if library(block) == needs]
    assert len(blocks) > 1
    printed = run(blocks, tmp_path)
    assert "all right" in printed
    if not needs:
        (shown,) = re.findall(r"^```text\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
        assert shown in printed


def test_a_wrong_term_is_located_and_goes_with_its_coefficient(tmp_path, monkeypatch):
    """What the page says of mistakes in one term, of one step, and of what is made from adjoint."""
    (tmp_path / "damped.py").write_text(next(b for b in BLOCKS if b.startswith("# pendulum.py")))
    monkeypatch.syspath_prepend(tmp_path)
    Pendulum = importlib.import_module("damped").Pendulum

    class Undamped(Pendulum):
        tangent = Solver.tangent

        def adjoint(self, x, u, y_bar):
            q, _ = self.march(x, u)
            return Pendulum(self.steps, self.dt, damping=0.0).sweep(q, y_bar)

    def verdicts(**options):
        return {r.what: r.verdict for r in check_solver(Undamped(**options), show=False).rows}

    whole = verdicts()
    assert "is worst in component" in whole["adjoint against differences"]
    assert "is worst in" in whole["tangent (made from adjoint) against differences"]
    assert whole["dot test, 3 pairs"] == "skipped: both are made from adjoint"
    assert "is worst in component" in verdicts(steps=2)["adjoint against differences"]
    assert check_solver(Undamped(damping=0.0), show=False)


class Scale:
    """a_out = s * a with s (n,): parameters that form no matrix."""

    def __init__(self, n, start):
        self.n_in = self.n_out = self.size = n
        self.own = slice(start, start + n)
        self.factor_shape = (1, 0, n)

    def init(self, rng, theta):
        theta[self.own] = rng.uniform(0.5, 1.5, self.size)

    def forward(self, theta, a):
        return theta[self.own] * a

    def tangent(self, theta, dtheta, a, a_out, da):
        return dtheta[self.own] * a + theta[self.own] * da

    def backward(self, theta, theta_bar, a, a_out, a_out_bar):
        theta_bar[self.own] = (a_out_bar * a).sum(axis=0)
        return a_out_bar * theta[self.own]

    def rows(self, theta, a, a_out, rows):
        return OuterProductRows(a[:, None, :0], (rows * a[:, None])[:, :, None], self.own.start)

    def pull_rows(self, theta, a, a_out, rows, delta):
        return rows * theta[self.own]


class Residual:
    """a_out = a + inner(a)."""

    def __init__(self, inner):
        self.inner, self.size, self.init = inner, inner.size, inner.init
        self.n_in, self.n_out, self.factor_shape = inner.n_in, inner.n_out, inner.factor_shape

    def forward(self, theta, a):
        return a + self.inner.forward(theta, a)

    def tangent(self, theta, dtheta, a, a_out, da):
        return da + self.inner.tangent(theta, dtheta, a, a_out - a, da)

    def backward(self, theta, theta_bar, a, a_out, a_out_bar):
        return a_out_bar + self.inner.backward(theta, theta_bar, a, a_out - a, a_out_bar)

    def rows(self, theta, a, a_out, rows):
        return self.inner.rows(theta, a, a_out - a, rows)

    def pull_rows(self, theta, a, a_out, rows, delta):
        return rows + self.inner.pull_rows(theta, a, a_out - a, rows, delta)


@pytest.fixture
def network():
    layers = [Dense(3, 5, "tanh", 0), Scale(5, 20), Residual(Dense(5, 5, "tanh", 25))]
    return Network([*layers, Dense(5, 2, "linear", 55)])


@pytest.mark.parametrize("seed", range(3))
def test_layers_of_any_kind_pass_the_checks(network, seed, xp):
    x = xp.asarray(np.random.default_rng(seed).standard_normal((3, 3)))
    report = check_network(network, x=x, seed=seed, show=False)
    report.raise_if_failed()
    assert all(row.passed for row in report.rows)


@pytest.mark.parametrize("b", [6, 30])  # fewer and more rows than parameters
@pytest.mark.parametrize("tile", [None, 4])
@pytest.mark.parametrize("method", METHODS)
def test_layers_of_any_kind_take_every_method(network, b, tile, method, rng):
    if tile and method == "qr":
        pytest.skip("takes the factors of all samples")
    theta, S = network.init(rng), rng.standard_normal((b, 4, 2))
    _, tape = network.forward(theta, rng.standard_normal((b, 3)))
    J, g = StackedJacobian(network, theta, tape, S, tile), rng.standard_normal(4 * b)
    step, _ = half_inverse(J, g, tau=1e-5, method=method)
    expected = half_inverse_by_svd(J.dense(), g, -0.5, 1e-5)
    assert np.abs(step - expected).max() < 1e-7 * np.abs(expected).max()
