"""`bench speed` on small inputs: what it times is what it says, and it leaves table and picture."""

import json
import os
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner

from bench.__main__ import main
from bench.experiments import EXPERIMENTS, Dipole, Oscillators
from bench.speed import contestants, cores, crossovers, fields, parts, peers, profile, race, sweeps
from bench.speed.contestants import experiment
from solvers import OscillatorChain, QuantumDipole


def invoke(*options):
    return CliRunner().invoke(main, ["speed", *map(str, options)])


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(parts, "RACES", {"toy": 1})
    monkeypatch.setattr(parts, "LOOP_RACES", {})
    monkeypatch.setattr(parts, "CONTESTS", ())
    monkeypatch.setattr(race, "ROUNDS", 2)
    monkeypatch.setattr(race, "STEPS_A_TURN", 3)


def test_race_of_rivals(small, tmp_path, monkeypatch):
    labels = ["numpy float32 svd", "fortran float64 svd"]
    monkeypatch.setattr(peers, "installed", lambda known: labels)
    monkeypatch.setattr(peers, "absent", lambda: {"torch float64 svd": "torch is not installed"})
    run = invoke("--out", tmp_path)
    assert run.exit_code == 0, run.output
    assert "absent: torch float64 svd: torch is not installed" in run.output
    saved = json.loads((tmp_path / "speed-rivals.json").read_text())
    found = saved["rivals"]["toy"]
    assert found["higcore"]["times_higcore"] == 1
    assert found["higcore"]["error"] < 1e-3
    # The first turn is one step; how many the second takes depends on the first one's time.
    assert 2 <= found["numpy float32 svd"]["steps"] <= 4
    assert found["numpy float32 svd"]["min"] <= found["numpy float32 svd"]["median"]
    assert "label must be one of" in found["fortran float64 svd"]["failed"]
    assert saved["absent"] == {"torch float64 svd": "torch is not installed"}
    assert (tmp_path / "speed-rivals.png").stat().st_size > 1000
    monkeypatch.setattr(peers, "installed", lambda known: [])
    monkeypatch.setattr(parts, "RACES", {"toy": 1, "oscillators": 1})
    run = invoke("--experiments", "oscillators", "--out", tmp_path)
    again = json.loads((tmp_path / "speed-rivals.json").read_text())
    assert list(again["rivals"]) == ["toy", "oscillators"]
    assert again["rivals"]["toy"] == found
    assert again["raced"]["toy"] == saved["raced"]["toy"]  # where and when it was
    assert set(again["raced"]) == {"toy", "oscillators"}


def test_races_to_steps_that_others_wrote(small, tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "CONTESTS", ("toy",))
    run = invoke("--kinds", "damped", "--out", tmp_path)
    assert run.exit_code == 0, run.output
    saved = json.loads((tmp_path / "speed-rivals.json").read_text())
    assert saved["rivals"] == {}  # of half
    found = saved["damped"]["rivals"]["toy"]
    assert set(found) == {"higcore", *peers.installed(peers.DAMPED_PEERS)}
    assert all(record["error"] < 1e-6 for record in found.values()), found
    assert found["higcore"]["times_higcore"] == 1
    assert set(saved["damped"]["raced"]) == {"toy"}
    assert "toy, damped step" in run.output


def test_who_takes_another_step_is_not_raced(small, tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "CONTESTS", ("toy",))
    monkeypatch.setattr(peers, "installed", lambda known: ["numpy float32 svd"])
    run = invoke("--kinds", "inverse", "--out", tmp_path)
    assert run.exit_code == 0, run.output
    found = json.loads((tmp_path / "speed-rivals.json").read_text())["inverse"]["rivals"]["toy"]
    assert "numpy float32 svd takes another step, by " in found["numpy float32 svd"]["failed"]
    assert found["higcore"]["error"] < 1e-6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--experiments", "toy,pendulum"), "got ['pendulum']"),
        (("--experiments", "toy", "--profile"), "goes with the race of rivals, not with --profile"),
        (("--kinds", "half", "--own"), "--kinds goes with the race of rivals, not with --own"),
        (("--kinds", "half,full"), "got ['full']"),
        (("--kinds", "damped", "--experiments", "toy"), "got ['toy']"),
    ],
)
def test_bad_usage(options, message, tmp_path):
    run = invoke(*options, "--out", tmp_path)
    assert run.exit_code == 2
    assert message in " ".join(run.output.split())


def test_a_slow_contestant_gets_no_more_turns(monkeypatch):
    monkeypatch.setattr(race, "PATIENCE", 0.0)
    monkeypatch.setattr(race, "ROUNDS", 3)
    said = []
    found = race.run("toy", 8, ["higcore adam"], said.append, train_steps=0, with_reference=False)
    assert found["higcore adam"]["steps"] == 1
    assert found["higcore adam"]["median"] == found["higcore adam"]["first_step_seconds"]
    assert found["higcore adam"]["error"] is None
    assert "toy: round 3 of 3, higcore adam" in said


def test_profile(small, tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "RACES", {"toy": 1, "linear-chain": 1})
    run = invoke("--profile", "--out", tmp_path)
    assert run.exit_code == 0, run.output
    stages = json.loads((tmp_path / "speed-profile.json").read_text())["stages"]
    assert list(stages["toy"]) == list(profile.STAGES)
    assert all(row["seconds"] >= 0 for rows in stages.values() for row in rows.values())
    assert stages["linear-chain"]["Gram"]["operations"] == 0  # its tau is too small to square
    assert (tmp_path / "speed-profile.png").exists()


def test_operations_are_counted_in_the_source():
    """Linear in the steps; and by hand for one step of one uncoupled oscillator."""
    counts = {}
    for steps in (1, 2, 6):
        chain = OscillatorChain(1, steps=steps, control=(1.0,))
        problem = Oscillators(solver=chain, samples=4, test_samples=4).problem()
        counts[steps] = np.array(profile.solver_operations(problem))
    assert (counts[2] - counts[1] == (counts[6] - counts[2]) / 4).all()
    # solvers.rk4: positions 4 x 2 and 2 x 2 more, accelerations 4 x 2, advance 10.
    assert counts[1][0] == 4 * 2 + 2 * 2 + 4 * 2 + 10
    dipole = Dipole(QuantumDipole(steps=3), samples=4, test_samples=4).problem()
    assert min(profile.solver_operations(dipole)) > 3 * 14 * 20


def test_operations_of_the_stages():
    problem = EXPERIMENTS["toy"].problem()  # t = 30 parameters, 2 outputs
    found = profile.stage_operations(problem, 256, True)
    assert found["Gram"] == 512 * 30**2
    assert found["network"] == 2 * 256 * (7 + 14)
    assert found["decomposition"] == pytest.approx(4 / 3 * 30**3)
    wide = profile.stage_operations(problem, 4, True)  # m = 8 rows
    assert wide["Gram"] == 8 * 8 * (7 + 2)
    assert wide["row pull-back"] == 2 * 8 * 14
    assert wide["pull-down"] == 2 * 4 * (7 * (1 + 2) + 2 * (7 + 2))


def test_crossovers(tmp_path, monkeypatch):
    monkeypatch.setattr(crossovers.crossovers, "__defaults__", ((8, 16),))
    monkeypatch.setattr(crossovers.auto_choices, "__defaults__", ((8, 16), crossovers.TAU))
    monkeypatch.setattr(crossovers.timed, "__defaults__", (0.01, 2))
    run = invoke("--crossovers", "--out", tmp_path)
    assert run.exit_code == 0, run.output
    saved = json.loads((tmp_path / "speed-crossovers.json").read_text())
    assert set(saved["seconds"]["nothing cut"]) == {*crossovers.SQUARING, "scipy.linalg.eigh"}
    assert set(saved["seconds"]["from J, t = 4 m"]) == {"svd", "qr", "auto"}
    assert saved["auto"] == {"8": "tridiagonal", "16": "tridiagonal"}
    assert "auto takes" in run.output
    for name in crossovers.DAMPED:
        assert set(saved["seconds"][f"damped step, {name}"]) == {"K", "lanczos"}


def test_the_crossovers_compare_equal_results():
    for smallest in crossovers.CASES.values():
        K, z = crossovers.gram_matrix(40, smallest), np.random.default_rng(1).standard_normal(40)
        rule = crossovers.TruncatedPower(-0.5, crossovers.TAU)
        expected = crossovers.by_eigh(K, z)
        for method in crossovers.SQUARING.values():
            found, _ = method.decompose(K.copy(), z).apply(rule)
            assert np.linalg.norm(found - expected) < 1e-4 * np.linalg.norm(expected)


def test_sweeps(tmp_path, monkeypatch):
    monkeypatch.setattr(race, "ROUNDS", 1)
    small = {
        sweeps.width_sweep: ((20, 120, 160), 16),
        sweeps.batch_sweep: ((1, 2), "poisson-paper"),
        sweeps.solver_sweep: (("oscillators",), (8, 16)),
        sweeps.memory_beside_gram: ((8, 16),),
        crossovers.timed: (0.01, 2),
    }
    for function, defaults in small.items():
        monkeypatch.setattr(function, "__defaults__", defaults)
    run = invoke("--sweeps", "--out", tmp_path)
    assert run.exit_code == 0, run.output
    saved = json.loads((tmp_path / "speed-sweeps.json").read_text())
    assert list(saved["width"]) == ["2956", "41256", "67776"]
    assert list(saved["batch"]) == ["64", "128"]
    assert 0 < saved["slopes"]["memory beside K against batch"] < 1.1
    assert (tmp_path / "speed-sweeps.png").exists()


def test_fields(tmp_path, monkeypatch):
    """The step of products and that of K, each in a process of its own."""
    monkeypatch.setattr(race, "ROUNDS", 1)
    monkeypatch.setattr(race, "STEPS_A_TURN", 1)
    monkeypatch.setattr(fields, "STEPS", {"poisson": (16, ("lanczos", "tridiagonal"))})
    run = invoke("--fields", "--out", tmp_path)
    assert run.exit_code == 0, run.output
    saved = json.loads((tmp_path / "speed-fields.json").read_text())["steps"]
    assert list(saved) == ["poisson, b 16, lanczos", "poisson, b 16, tridiagonal"]
    for row in saved.values():
        assert 0 < row["extra MB"] < row["peak MB of the process"]
    assert not (tmp_path / "speed-fields.png").exists()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores cannot be chosen here")
def test_cores(tmp_path, monkeypatch):
    """Each number of cores in a process of its own, which sees no others; then all are back."""
    before, seen = os.sched_getaffinity(0), []

    def run(*args, **options):
        seen.append(len(os.sched_getaffinity(0)))
        stages = {"sweep": 4.0 / seen[-1], "rest": 1.0, "none": 0.0}
        return SimpleNamespace(stdout=f"noise\n{json.dumps({'toy, hig': stages})}\n")

    monkeypatch.setattr(cores, "STEPS_OF", (("toy", "hig"),))
    monkeypatch.setattr(cores.subprocess, "run", run)
    found = invoke("--cores", "--out", tmp_path)
    assert found.exit_code == 0, found.output
    assert os.sched_getaffinity(0) == before
    counts = [n for n in cores.COUNTS if n <= len(before)]
    assert seen == cores.ROUNDS * counts
    rows = json.loads((tmp_path / "speed-cores.json").read_text())["seconds"]["toy, hig"]
    assert list(rows) == [*map(str, counts), "serial, %"]
    if len(counts) > 1:
        assert rows["serial, %"]["sweep"] == pytest.approx(0)
        assert rows["serial, %"]["rest"] == pytest.approx(100)
    assert cores.serial_share(0.25 + 0.75 / 8, 8) == pytest.approx(0.25)


def test_what_a_process_with_some_cores_says(monkeypatch, capsys):
    monkeypatch.setattr(cores, "STEPS_OF", (("toy", "hig"), ("toy", "adam")))
    monkeypatch.setattr(cores, "STEPS", 2)
    cores.main()
    found = json.loads(capsys.readouterr().out)
    assert list(found) == ["toy, hig", "toy, adam"]
    for stages in found.values():
        assert stages.pop("together") == pytest.approx(sum(stages.values()))
        assert set(stages) == set(profile.STAGES)


def test_the_steps_of_a_method(rng):
    problem = Oscillators(samples=64, test_samples=4).problem()
    theta = problem.network.init(rng)
    pair = [
        contestants.make_step(f"higcore {method}", problem, {})(theta, problem.batch(0, 8))
        for method in ("tridiagonal", "gram")
    ]
    assert np.allclose(*pair, rtol=1e-6, atol=1e-9)
    assert np.abs(pair[0]).max() > 0


def test_the_widest_gap_near_tau():
    ratios = np.array([1.0, 1.9e-3, 1.2e-3, 1.1e-3, 0.6e-3, 1e-5])
    middle, gap = parts.widest_gap(ratios, 1e-3)
    assert middle == pytest.approx((1.1e-3 * 0.6e-3) ** 0.5)
    assert gap == pytest.approx(1 - 0.6e-3 / middle)
    assert parts.widest_gap(ratios, 1e-8) == (1e-8, np.inf)


def test_accuracy_on_small_jacobians(monkeypatch):
    rows = parts.accuracy(Oscillators(samples=128, test_samples=4), at=(0, 2), taus=(1e-4, 1e-10))
    assert set(rows) == {*parts.ROUTES, "gap at the cutoff"}
    for method in ("gram", "tridiagonal", "band"):
        assert rows[method]["tau 0.0001"] < 2.0**-52 / 1e-8
        assert np.isnan(rows[method]["tau 1e-10"])
    assert rows["qr"]["tau 1e-10"] < 1e-8
    assert rows["svd float32"]["tau 0.0001"] > 5 * rows["gram"]["tau 0.0001"]


def test_slope():
    assert sweeps.slope({10: 3.0, 100: 300.0, 1000: 30000.0}) == pytest.approx(2)


def test_names_of_experiments():
    assert experiment("wide-30").problem().network.size == 4 * 30 + 30 + 2 * 31 * 30 + 31 * 96
    assert experiment("poisson-paper").hidden == (64, 256, 64)
    with pytest.raises(KeyError, match="pendulum"):
        experiment("pendulum")
