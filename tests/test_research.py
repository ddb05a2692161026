"""The study of AdaptiveHIG's parts, and the contest with what people would train with instead."""

import dataclasses
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner
from test_adaptive import at_start, oscillators
from test_peers import SMALL, case

from bench import __main__ as command_line
from bench.research import contest, pictures, study, variants
from bench.research.contestant import Clock
from bench.research.peers import PEERS
from bench.research.variants import AXES, FAR, Variant, scaled
from higcore import AdaptiveHIG, Problem, fit

CHANGED = {
    f"{axis}: {value}": variant.optimizer
    for axis, known in AXES.items()
    for value, variant in known.items()
    if isinstance(variant.optimizer, AdaptiveHIG) and variant.optimizer != AdaptiveHIG()
}


@pytest.mark.parametrize("name", CHANGED)
def test_a_variant_trains_and_is_another(name):
    """One that changes a rule does something else within 30 steps, but for what is rare."""
    problem = oscillators(256)
    own, changed = (
        fit(problem, optimizer, batch=16, steps=30, evaluate_every=99)
        for optimizer in (AdaptiveHIG(), CHANGED[name])
    )
    assert changed.status == "budget"
    if type(CHANGED[name]) is not AdaptiveHIG and "refused" not in name:
        assert not np.array_equal(own.theta, changed.theta)


@pytest.mark.parametrize(
    "optimizer", [variants.Ramped(), variants.Rule(), variants.Limited(part=1e9)]
)
def test_a_variant_that_changes_nothing(optimizer):
    problem = oscillators()
    own, same = (fit(problem, known, batch=16, steps=20) for known in (AdaptiveHIG(), optimizer))
    assert np.array_equal(own.theta, same.theta)


def test_outputs_over_their_errors():
    problem = oscillators()
    at = at_start(problem)
    other = scaled(problem, at.theta)
    J, _ = other.linearise(at.theta, other.batch(0, 16)).jacobian().dense(), None
    ratios = (J / at.jacobian().dense()).reshape(16, 4, -1)
    weights = other.solver.weights
    assert np.allclose(ratios, weights[:, None])
    _, y = other.predict(at.theta, other.train)
    assert np.allclose(((y - other.train.target) ** 2).mean(axis=0), 1)


def test_half_a_step_that_is_better_is_a_step_too_long():
    problem = oscillators(64)
    at = at_start(problem)
    optimizer = variants.Greedy()
    state = optimizer.init(at.theta) | {"damping": 1e3, "reach": FAR}
    trial, others = optimizer._trial(optimizer._model(at, state), state), problem.train[16:]
    judged = optimizer._judged(trial, at, others, state)
    wanted = [problem.evaluate(at.theta - part * trial.step, others) for part in (0.5, 1.0)]
    assert (judged.before, judged.after) == tuple(wanted)


def test_strict_takes_no_step_that_others_refuse():
    at = at_start(oscillators(64))
    optimizer = variants.Strict()
    state = optimizer.init(at.theta) | {"damping": 1e3, "reach": FAR}
    trial = optimizer._trial(optimizer._model(at, state), state)
    target = at.problem.predict(at.theta, at.problem.train[16:])[1]  # nothing can be better
    others = dataclasses.replace(at.problem.train[16:], target=target)
    assert not optimizer._judged(trial, at, others, state).good
    assert AdaptiveHIG()._judged(trial, at, others, state).good


def test_what_applies_to_a_problem():
    toy, dipole = study.variants("toy"), study.variants("dipole")
    assert "products" in study.variants("poisson")
    assert "products" not in dipole
    assert "x 2" not in toy["batch"]  # it takes all data as it is
    assert "outputs scaled" in toy["step"]
    assert "outputs scaled" not in dipole["step"]
    assert "grows" in dipole["batch"]


@pytest.mark.parametrize(
    "variant", [Variant(), Variant(growth=True), Variant(scaled=True), Variant(first="adam")]
)
def test_a_run_reaches_both_ends(variant, monkeypatch):
    monkeypatch.setitem(study.EXPERIMENTS, "oscillators", SMALL["oscillators"])
    found = study.train("oscillators", variant, "3", study.Budget(0.3, 6))
    assert found["seconds"]["status"] == "budget"
    assert math.isfinite(found["seconds"]["test_loss"])
    if not variant.first:
        assert found["steps"]["steps"] == (2 if variant.growth else 6)


def test_nothing_is_kept_of_an_interrupted_run():
    with pytest.raises(KeyboardInterrupt):
        study.of_run(SimpleNamespace(status="interrupted"), None)


def invoke(*arguments):
    return CliRunner().invoke(command_line.main, [str(a) for a in arguments])


def test_study(tmp_path, monkeypatch):
    options = ["--axes", "refused,beside", "--seeds", 1, "--steps", 4, "--out", tmp_path]
    options += ["--runs", tmp_path / "runs"]
    run = invoke("study", "toy", "--seconds", 0.1, *options)
    assert run.exit_code == 0, run.output
    path = tmp_path / "study-toy.json"
    saved = json.loads(path.read_text())["study"]
    assert saved["refused"]["x 4"] == saved["beside"]["adaptive"]  # trained once
    assert {*saved["beside"]} == {"adaptive", "LM", "HIG", "Adam"}
    assert saved["refused"]["x 2"]["10"]["steps"]["steps"] == 4
    assert (tmp_path / "study-steps.png").stat().st_size > 1000
    run = invoke("study", "toy", "--seconds", 0.1, *options)
    assert json.loads(path.read_text())["study"] == saved  # not made again
    monkeypatch.setattr(study.Trial, "compute", None)
    path.unlink()
    assert invoke("study", "toy", "--seconds", 0.1, *options).exit_code == 0
    assert json.loads(path.read_text())["study"] == saved  # of the files of the runs
    run = invoke("study", "toy", "--seconds", 0.2, *options)
    assert run.exit_code == 2
    assert "remove it" in run.output
    assert invoke("study", "toy", "--axes", "speed", "--out", tmp_path).exit_code == 2


def record(loss, steps=5):
    return {"test_loss": loss, "steps": steps, "status": "budget" if loss else "diverged"}


def test_a_table_of_the_study():
    runs = {str(k): {kind: record(loss) for kind in pictures.KINDS} for k, loss in
            enumerate((1e-3, None, 1e-5))}  # fmt: skip
    assert pictures.losses(runs, "steps") == [1e-3, math.inf, 1e-5]
    assert "| mu | 0 | 1.0e-03 | inf | 1.0e-03 | inf | 5" in " ".join(
        pictures.table({"mu": {"0": runs}}).split()
    )


# The contest


def made_up(*losses):
    return {"curve": {"seconds": [1.0, 2.0, 4.0], "step": [1, 2, 3], "test_loss": [*losses]}}


def test_time_to_a_loss():
    assert contest.time_to(made_up(1e-1, 1e-4, 1e-2), 1e-3) == 2.0
    assert contest.time_to(made_up(1e-1, None, 1e-3), 1e-3) == 4.0
    assert contest.time_to({"failed": "no memory"}, 1e-3) == math.inf


def test_the_best_setting_is_chosen_on_its_own_seed(monkeypatch, tmp_path):
    asked = []

    def run(label, name, seed, seconds, setting):
        asked.append((label, seed, seconds, setting.get("lr")))
        return made_up(1.0, 1e-2, abs(setting["lr"] - 1e-3) + 1e-9) if setting else {"failed": "x"}

    monkeypatch.setattr(contest, "run", run)
    options = ("--seeds", 2, "--seconds", 9, "--tuning-seconds", 3, "--out", tmp_path)
    command = invoke("contest", "toy", "--peers", "adaptive,adam", *options)
    assert command.exit_code == 0, command.output
    tried = [("adam", 10, 3.0, lr) for lr in (1e-4, 1e-3, 1e-2)]
    rest = [(*peer[:1], seed, 9.0, peer[1]) for seed in "01"
            for peer in (("adaptive", None), ("adam", 1e-3))]  # fmt: skip
    assert asked == tried + rest
    assert "adam | lr 0.001 | 4" in " ".join(command.output.split())
    assert (tmp_path / "contest-toy.png").stat().st_size > 1000
    invoke("contest", "toy", "--peers", "adaptive,adam", *options)
    assert len(asked) == 7  # none again
    other = invoke("contest", "toy", "--peers", "adam", *options, "--seconds", 8)
    assert other.exit_code == 2
    assert "holds runs with seconds 9.0, these have 8.0" in other.output
    assert invoke("contest", "toy", "--peers", "lbfgs").exit_code == 2


def test_a_peer_none_of_whose_settings_works_is_not_run(monkeypatch):
    monkeypatch.setattr(contest, "run", lambda *_: {"failed": "no memory"})
    found = {}
    contest.contest("toy", ["adam"], [0], 9, (10, 3), found, lambda: None, lambda _: None)
    assert found["adam"]["seeds"]["0"] == {"failed": "no setting of the grid did"}
    assert "| adam | lr 0.0001 | - | - | - | inf | no setting" in " ".join(
        contest.table(found).split()
    )


def test_a_contestant_in_its_process():
    found = contest.run("adaptive", "toy", 0, 0.3, {})
    curve = found["curve"]
    assert curve["test_loss"][-1] < 0.9 * curve["test_loss"][0]
    assert 0.3 <= curve["seconds"][-1] < 1
    assert found["compiling_seconds"] > 0
    assert "Budget" not in contest.run("adaptive", "toy", 0, 0.3, {"lr": 1}).get("curve", {})
    assert "unexpected keyword" in contest.run("adaptive", "toy", 0, 0.3, {"lr": 1})["failed"]


def test_a_clock_does_not_count_evaluations(monkeypatch):
    problem = oscillators()
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])

    def slow(*_):
        now[0] += 100.0
        return 0.5

    monkeypatch.setattr(Problem, "evaluate", slow)
    clock = Clock(problem, np.zeros(problem.network.size), 1.0)
    clock.start(clock.theta)
    ends = []
    for _ in range(4):
        now[0] += 0.3
        ends.append(clock.tick(clock.theta))
    assert ends == [False, False, False, True]
    assert clock.curve["seconds"] == pytest.approx([0.0, 0.3, 0.6, 0.9, 1.2])
    assert clock.curve["step"] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("name", SMALL)
def test_the_residuals_of_the_peers_are_those_of_the_problem(name):
    pytest.importorskip("jax", reason="JAX is not installed")
    from bench.research.peers import with_jax

    at = case(name)
    value, jacobian = with_jax.residuals(at.problem)
    arrays = tuple(map(np.asarray, at.batch))
    r, J = value(at.theta, arrays), jacobian(at.theta, arrays)
    loss = at.problem.evaluate(at.theta, at.batch)
    assert (r**2).sum() / at.batch.count == pytest.approx(loss, rel=1e-9)
    gradient = 2 * J.T @ r / (at.batch.count if at.problem.batch_mean else 1)
    assert np.allclose(gradient, at.J.T @ at.g, rtol=0, atol=1e-9 * abs(gradient).max())


PEER_SETTINGS = [(label, setting) for label, peer in PEERS.items() for setting in peer.grid[:1]]


@pytest.mark.parametrize(("label", "setting"), PEER_SETTINGS)
def test_every_peer_trains_the_toy(label, setting):
    if not PEERS[label].installed:
        pytest.skip(f"{PEERS[label].package} is not installed (pip install 'higcore[peers]')")
    problem = SMALL["toy"].problem(0)
    theta = problem.network.init(np.random.default_rng([0, 1]))
    clock = Clock(problem, theta, 0.5)
    PEERS[label].function(label)(problem, 64, 0, clock, **setting)
    assert clock.curve["seconds"][-1] >= 0.5
    assert contest.lowest({"curve": clock.curve}) < clock.curve["test_loss"][0]
