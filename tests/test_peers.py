"""The rivals compute higcore's step, each in its own way; those not installed are skipped."""

import dataclasses
import functools
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from bench.experiments import EXPERIMENTS, Dipole, Poisson
from bench.speed import contestants, peers, race
from higcore import Batch, Problem, half_inverse
from solvers import OscillatorChain, Poisson2D, QuantumDipole

CHAIN = OscillatorChain(3, steps=7, dt=0.25, cubic=1.5, linear=0.2, control=(0.5, 0.0, 3.0))
SMALL = {
    "toy": EXPERIMENTS["toy"],
    "oscillators": dataclasses.replace(EXPERIMENTS["oscillators"], solver=CHAIN),
    "linear-chain": dataclasses.replace(
        EXPERIMENTS["linear-chain"],
        solver=dataclasses.replace(EXPERIMENTS["linear-chain"].solver, steps=6),
    ),
    "poisson": Poisson(Poisson2D((3, 4), (1.0, 0.5))),
    "dipole": Dipole(QuantumDipole(steps=5), complex_targets=True),
    "dipole-cnn": Dipole(QuantumDipole(steps=5), complex_targets=True, convolutional=True),
}
# eigh squares: it errs by about eps / tau^2
SMALLEST_TAU = {"float64": 1e-4, "float32": 1e-2}
TOLERANCE = {"float64": 1e-6, "float32": 5e-2}


class Case(NamedTuple):
    """A place where the rivals are asked for a step."""

    problem: Problem
    theta: np.ndarray
    batch: Batch
    J: np.ndarray
    g: np.ndarray

    def reference(self, **options):
        return half_inverse(self.J, self.g, method="svd", **options)[0]

    def clear_tau(self, at_least):
        """The middle of the widest gap between singular values: rounding cannot move a mode."""
        s = np.linalg.svd(self.J, compute_uv=False)
        ratios = s[s > at_least * s[0]] / s[0]
        widest = np.argmax(ratios[:-1] / ratios[1:])
        return float(np.sqrt(ratios[widest] * ratios[widest + 1]))


@functools.cache
def case(name):
    problem = SMALL[name].problem(0)
    rng = np.random.default_rng(5)
    theta = problem.network.init(rng) + 0.1 * rng.standard_normal(problem.network.size)
    batch = problem.batch(0, 24 if name == "toy" else 3)  # the toy has more rows than parameters
    at = problem.linearise(theta, batch)
    return Case(problem, theta, batch, at.jacobian().dense(), at.loss_gradient.reshape(-1))


@pytest.fixture(autouse=True)
def one_thread():
    """The spinning thread pools of three libraries would fight over the cores."""
    with threadpool_limits(1):
        yield


def needs(label):
    if label in peers.absent():
        pytest.skip(f"not installed: {peers.absent()[label]}")


def difference(step, reference):
    return np.linalg.norm(step - reference) / np.linalg.norm(reference)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("label", peers.PEERS)
def test_step_is_that_of_higcore(label, name):
    needs(label)
    at, precision = case(name), label.split()[1]
    tau = at.clear_tau(SMALLEST_TAU[precision])
    step = peers.make_step(label, at.problem, tau=tau)(at.theta, at.batch)
    assert step.dtype == precision
    assert step.shape == at.theta.shape
    assert difference(step, at.reference(tau=tau)) < TOLERANCE[precision]


@pytest.mark.parametrize("label", peers.PEERS)
def test_other_exponents(label):
    needs(label)
    at, precision = case("toy"), label.split()[1]
    tau = at.clear_tau(SMALLEST_TAU[precision])
    step = peers.make_step(label, at.problem, tau=tau, kappa=-1.0)(at.theta, at.batch)
    assert difference(step, at.reference(tau=tau, kappa=-1.0)) < TOLERANCE[precision]


OF_CONTESTS = [(kind, label) for kind in ("damped", "inverse") for label in peers.KINDS[kind]]


@pytest.mark.parametrize("name", ["oscillators", "dipole"])
@pytest.mark.parametrize(
    ("kind", "label"), [("damped", "higcore"), ("inverse", "higcore"), *OF_CONTESTS]
)
def test_steps_of_contests_are_the_same(kind, label, name):
    needs(label)
    at = case(name)
    linear = at.problem.linearise(at.theta, at.batch)
    rule = race.rule_of(kind, linear, tau=None)
    if kind == "damped":
        K = rule["curvature"] * at.J @ at.J.T
        assert rule["damping"] == pytest.approx(0.1 * K.diagonal().max())
        expected = at.J.T @ np.linalg.solve(K + rule["damping"] * np.eye(len(K)), at.g)
    else:
        expected = np.linalg.pinv(at.J, rtol=1e-3) @ at.g
    assert difference(race.reference(linear, rule), expected) < 1e-10
    step = contestants.make_step(label, at.problem, rule)(at.theta, at.batch)
    assert difference(step, expected) < race.SAME_STEP


def test_jax_keeps_the_precision_of_its_user():
    jax = pytest.importorskip("jax", reason="JAX is not installed")
    at = case("toy")
    before = jax.config.jax_enable_x64
    for label in ("jax float64 eigh", "jax float32 eigh"):
        peers.make_step(label, at.problem, tau=1e-2)(at.theta, at.batch)
        assert jax.config.jax_enable_x64 == before


def test_torch_differentiates_where_its_user_does_not():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    at = case("dipole")
    tau = at.clear_tau(1e-4)
    with torch.no_grad():
        step = peers.make_step("torch float64 svd", at.problem, tau=tau)(at.theta, at.batch)
    assert difference(step, at.reference(tau=tau)) < 1e-6


def test_unknown_label_is_named():
    with pytest.raises(ValueError, match="'fortran'"):
        peers.make_step("fortran", case("toy").problem, tau=1e-2)


def test_absent_names_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "jax" else name)
    lines = peers.absent()
    assert set(lines) == {label for label in peers.EVERY_PEER if label.startswith("jax")}
    assert all("pip install" in line and "jax" in line for line in lines.values())
    assert set(peers.installed()) == set(peers.PEERS) - set(lines)


def test_listing_the_rivals_imports_none_of_them():
    code = "import sys; from bench.speed import peers; peers.installed(); print(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    assert not {"jax", "torch"} & set(run.stdout.split())
