"""The command line as a user meets it."""

import errno
import json
import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner

from bench import records
from bench.__main__ import main
from bench.experiments import EXPERIMENTS, Oscillators
from bench.paper import choices, figures
from higcore import load_checkpoint

TINY = Oscillators(samples=32, test_samples=16)
KEYS = {
    "problem", "optimizer", "batch", "parameters", "steps", "epochs", "seconds", "test_loss",
    "best_test_loss", "status", "seconds_per_step", "device", "seed",
}  # fmt: skip


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setitem(EXPERIMENTS, "oscillators", TINY)


def invoke(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


def test_train_leaves_files_and_json(tiny, tmp_path):
    arguments = ("train", "oscillators", "--batch", 8, "--json", "--out", tmp_path)
    arguments += ("--lr", 0.5, "--tau", 1e-5)
    run = invoke(*arguments, "--steps", 6)
    assert run.exit_code == 0, run.output
    record = json.loads(run.stdout.splitlines()[-1])
    assert set(record) >= KEYS
    assert record["settings"]["lr"] == 0.5
    assert (record["steps"], record["parameters"], record["batch"]) == (6, 2956, 8)
    stem = tmp_path / "oscillators-hig-seed0"
    for suffix in (".npz", "-loss.png", "-picture.png"):
        assert stem.with_name(stem.name + suffix).stat().st_size > 1000
    saved = json.loads(stem.with_suffix(".json").read_text())
    assert len(saved["curve"]["test_loss"]) == 3
    assert str(tmp_path.parent) not in json.dumps(saved)
    resumed = invoke(*arguments, "--steps", 9, "--resume", stem.with_suffix(".npz"))
    assert json.loads(resumed.stdout.splitlines()[-1])["steps"] == 9


def test_a_run_that_an_exception_ended_says_so(tiny, tmp_path, monkeypatch):
    """Its files are left all the same, and the shell is told."""
    honest, calls = type(TINY.solver).backward, []

    def backward(self, tape, y_bar):
        calls.append(1)
        if len(calls) > 3:
            raise ZeroDivisionError("division by zero")
        return honest(self, tape, y_bar)

    monkeypatch.setattr(type(TINY.solver), "backward", backward)
    arguments = ("--optimizer", "adam", "--batch", 8, "--steps", 9, "--json", "--out", tmp_path)
    run = invoke("train", "oscillators", *arguments)
    assert run.exit_code == 1
    assert "the solver raised ZeroDivisionError after 3 steps: division by zero" in run.stdout
    assert "Traceback (most recent call last):" in run.stderr
    assert json.loads(run.stdout.splitlines()[-1])["steps"] == 3
    assert load_checkpoint(tmp_path / "oscillators-adam-seed0.npz").status == "raised"


def recorded(folder):
    return json.loads((folder / "toy-adam-seed0.json").read_text())["recorded"]


@pytest.mark.parametrize("moved", [False, True])
def test_a_resumed_run_keeps_what_was_recorded_before(tmp_path, moved):
    """Also if it leaves its files elsewhere, as beside those of another run."""
    start = ("train", "toy", "--optimizer", "adam", "--lr", 0.01)
    folders = [tmp_path / name for name in ("whole", "first", "other" if moved else "first")]
    whole, first, second = folders
    for folder, epochs in ((whole, 9), (first, 6)):
        assert invoke(*start, "--epochs", epochs, "--out", folder).exit_code == 0
    if moved:
        invoke(*start[:-1], 0.5, "--epochs", 8, "--out", second)
    resume = ("--resume", first / "toy-adam-seed0.npz", "--epochs", 9, "--out", second)
    assert invoke(*start, *resume).exit_code == 0
    assert recorded(second) == recorded(whole)
    assert recorded(whole)["epoch"] == list(range(10))


@pytest.mark.parametrize("other", [None, "no JSON", "[1]", "7", "{}", '{"curve": 1}'])
def test_what_another_run_recorded_is_not_taken(tmp_path, other):
    """Its JSON file stays when a later run is killed and leaves a checkpoint only."""
    start, saved = ("train", "toy", "--optimizer", "adam"), tmp_path / "toy-adam-seed0"
    invoke(*start, "--lr", 0.5, "--epochs", 8, "--out", tmp_path)
    other = other or saved.with_suffix(".json").read_text()
    invoke(*start, "--epochs", 3, "--out", tmp_path)
    saved.with_suffix(".json").write_text(other)
    resume = ("--resume", saved.with_suffix(".npz"), "--epochs", 5, "--out", tmp_path)
    assert invoke(*start, *resume).exit_code == 0
    assert recorded(tmp_path)["epoch"] == [4, 5]


def test_curves_are_thinned_evenly_in_the_logarithm():
    epochs = list(range(2000))
    kept = records.thin({"epoch": epochs, "loss": [2 * k for k in epochs]})
    assert kept["loss"] == [2 * k for k in kept["epoch"]]
    assert kept["epoch"][:20] == epochs[:20]
    assert kept["epoch"][-1] == 1999
    assert len(kept["epoch"]) <= records.CURVE_POINTS + 1
    assert records.thin({"epoch": epochs[:150]}) == {"epoch": epochs[:150]}


def test_a_full_disk_at_the_last_save(tiny, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    arguments = ("train", "oscillators", "--batch", 8, "--steps", 2, "--out", tmp_path)
    run = invoke(*arguments)
    assert (run.exit_code, run.exception.__class__) == (1, SystemExit)
    assert "test loss" in run.output  # how it ended is told all the same
    assert re.search(r"Error: .*could not be written \(No space left on device\)", run.output)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("optimizer", list(TINY.settings))
def test_every_optimizer_of_table_2(tiny, optimizer, tmp_path):
    options = ("--optimizer", optimizer, "--batch", 16, "--steps", 2, "--out", tmp_path)
    run = invoke("train", "oscillators", *options)
    assert run.exit_code == 0, run.output
    assert "Stopped because the budget of 2 steps was spent." in run.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "pendulum"), "'pendulum' is not one of 'toy', 'oscillators'"),
        (("train", "oscillators", "--optimizer", "lbfgs"), "'lbfgs' is not one of 'hig', 'gn'"),
        (("train", "oscillators", "--batch", "0"), "0 is not in the range x>=1"),
        (("train", "oscillators", "--batch", "33"), "batch must be at most the number of training"),
        (("train", "oscillators", "--tau", "-1"), "tau must be a finite number in [0, inf]"),
        (("train", "oscillators", "--optimizer", "adam", "--tau", "1"), "--tau does not apply to"),
        (
            ("train", "oscillators", "--batch", "8", "--seconds", "-3"),
            "seconds must be a finite number",
        ),
        (("train", "oscillators", "--resume", "nowhere.npz"), "'nowhere.npz' does not exist"),
    ],
)
def test_bad_usage_exits_with_2_and_a_sentence(tiny, arguments, message, tmp_path):
    run = invoke(*arguments, *(() if "pendulum" in arguments else ("--out", tmp_path)))
    assert run.exit_code == 2
    assert message in " ".join(run.output.split())
    assert not list(tmp_path.iterdir())


def test_demo(tiny, tmp_path, monkeypatch):
    from bench import __main__ as cli

    small = {k: s._replace(batch=8) for k, s in cli.DEMO.items()}
    monkeypatch.setattr(cli, "DEMO", small)
    run = invoke("demo", "--seconds", 1, "--out", tmp_path)
    assert run.exit_code == 0, run.output
    assert "| run" in run.output
    names = {"demo.png", "demo-trajectory.png", "demo.json"}
    assert {f.name for f in tmp_path.iterdir()} == names
    runs = json.loads((tmp_path / "demo.json").read_text())["runs"]
    assert set(runs) == set(cli.DEMO)
    assert all(len(r["curve"]["seconds"]) == len(r["curve"]["test_loss"]) for r in runs.values())


def test_ctrl_c_keeps_everything_and_exits_with_130(tmp_path):
    arguments = ["train", "oscillators", "--seconds", "600", "--out", str(tmp_path), "--json"]
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "bench", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Shells start what is in the background deaf to Ctrl-C, and children take that over.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    line = process.stdout.readline()
    assert line.startswith("oscillators: HIG")
    while not process.stderr.readline().startswith("HIG "):  # a progress line: it is training
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    record = json.loads(output.splitlines()[-1])
    assert record["status"] == "interrupted"
    assert record["steps"] > 0
    names = {f.name for f in tmp_path.iterdir()}
    stem = "oscillators-hig-seed0"
    assert names == {f"{stem}{end}" for end in (".npz", ".json", "-loss.png", "-picture.png")}


@pytest.mark.parametrize("problem", ["toy", "linear-chain", "dipole"])
def test_other_problems_and_start_from(problem, tmp_path):
    options = ("--steps", 2, "--batch", 4, "--out", tmp_path)
    run = invoke("train", problem, "--optimizer", "adam", *options)
    assert run.exit_code == 0, run.output
    start = tmp_path / f"{problem}-adam-seed0.npz"
    run = invoke("train", problem, "--start-from", start, *options)
    assert run.exit_code == 0, run.output
    assert (tmp_path / f"{problem}-hig-continued-seed0-picture.png").exists()


def test_diagnostics_and_patience(tiny, tmp_path):
    options = ("--diagnostics", "--batch", 8, "--steps", 5, "--patience", 9, "--out", tmp_path)
    run = invoke("train", "oscillators", *options)
    assert run.exit_code == 0, run.output
    saved = json.loads((tmp_path / "oscillators-hig-seed0.json").read_text())
    assert saved["diagnostics"]["step"] == [1, 2, 3, 4, 5]
    assert min(saved["diagnostics"]["condition"]) >= 1
    assert (tmp_path / "oscillators-hig-seed0-diagnostics.png").stat().st_size > 1000
    run = invoke("train", "oscillators", "--optimizer", "adam", *options)  # has no condition
    assert run.exit_code == 0, run.output
    assert (tmp_path / "oscillators-adam-seed0-diagnostics.png").stat().st_size > 1000


def test_unknown_variant_lists_the_known(tmp_path):
    run = invoke("train", "poisson", "--variant", "book", "--out", tmp_path)
    assert run.exit_code == 2
    assert "--variant of poisson must be one of ['paper'], got 'book'" in run.output


def test_survey_and_report(tiny, tmp_path):
    options = ("--epochs", 1, "--out", tmp_path)
    run = invoke("survey", "toy", "--optimizers", "hig,adam", "--seeds", 2, *options)
    assert run.exit_code == 0, run.output
    saved = json.loads((tmp_path / "toy-1epochs.json").read_text())
    assert {name: sorted(by) for name, by in saved["runs"].items()} == {
        "hig": ["0", "1"],
        "adam": ["0", "1"],
    }
    assert (tmp_path / "toy-1epochs.png").exists()
    run = invoke("survey", "toy", "--optimizers", "sgd", *options)
    saved = json.loads((tmp_path / "toy-1epochs.json").read_text())
    assert set(saved["runs"]) == {"hig", "adam", "sgd"}
    beside = (*options, "--seeds", 2, "--executor", "processes", "--runs", tmp_path / "runs")
    for _ in range(2):  # the second time nothing is made
        run = invoke("survey", "toy", "--optimizers", "sgd,adam", *beside)
        assert run.exit_code == 0, run.output
    runs = [path.stat().st_mtime_ns for path in (tmp_path / "runs").glob("survey-toy-*.json")]
    assert len(runs) == 4
    assert max(runs) < (tmp_path / "toy-1epochs.json").stat().st_mtime_ns
    known = json.loads((tmp_path / "toy-1epochs.json").read_text())["runs"]
    assert {name: len(by_seed) for name, by_seed in known.items()} == {
        "hig": 2,
        "adam": 2,
        "sgd": 2,
    }
    run = invoke("tabulate", tmp_path)
    assert "toy-1epochs" in run.output
    run = invoke("survey", "toy", "--optimizers", "lbfgs", *options)
    assert run.exit_code == 2


@pytest.mark.parametrize(
    "command", ["demo", "survey oscillators --epochs 1", "choices oscillators"]
)
def test_ctrl_c_where_no_run_is_kept(command, tmp_path, monkeypatch):
    """It ends the command, and does not just skip one of many runs."""
    calls = []

    def interrupted(*_, **options):
        calls.append(options)
        raise KeyboardInterrupt

    monkeypatch.setattr("higcore.training.updates.Updates.advance", interrupted)
    run = invoke(*command.split(), "--out", tmp_path)
    assert run.exit_code == 130, run.output
    assert "Interrupted." in run.output
    assert len(calls) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_picture_of_steps_that_did_nothing():
    names = ("step", "loss", "step_norm", "condition", "predicted_decrease", "actual_decrease")
    rows = {name: [1.0, 1.0] for name in names} | {"predicted_decrease": [0.0, None]}
    (line, _) = figures.diagnostics(rows, "").axes[-1].lines
    assert line.get_ydata()[0] == 3
    assert np.isnan(line.get_ydata()[1])


def test_choices(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(choices, "BATCH_FACTORS", (0.5, 1))
    monkeypatch.setattr(choices, "LR_FACTORS", (1, 1e30))
    run = invoke("choices", "toy", "--epochs", 1, "--seeds", 2, "--out", tmp_path)
    assert run.exit_code == 0, run.output
    saved = json.loads((tmp_path / "choices-toy-1epochs.json").read_text())
    found = saved["choices"]
    assert list(found) == ["batch", "lr", "tau", "kappa", "batch, lr with it"]
    assert found["batch, lr with it"]["256"] == found["batch"]["256"]
    assert found["batch, lr with it"]["128"] != found["batch"]["128"]
    assert list(found["lr"]) == ["1", "1e+30"]
    assert list(found["kappa"]) == ["0", "-0.25", "-0.5", "-0.75", "-1"]
    assert found["tau"]["0.01"]["1"]["rank"] < found["tau"]["1e-06"]["1"]["rank"]
    assert found["lr"]["1"] == found["tau"]["1e-06"]  # the paper's setting, trained once
    assert "| lr | 1e+30 | inf |" in " ".join(run.output.split())  # it failed
    assert "| kappa | -0.5 |" in " ".join(run.output.split())
    assert (tmp_path / "choices-toy-1epochs.png").stat().st_size > 1000
    run = invoke("choices", "toy", "--optimizer", "adaptive", "--epochs", 1, "--out", tmp_path)
    assert run.exit_code == 0, run.output
    found = json.loads((tmp_path / "choices-adaptive-toy-1epochs.json").read_text())["choices"]
    assert list(found) == ["batch", "mu", "momentum", "reach", "others"]
    assert list(found["batch"]) == ["512", "1024"]  # of 1024 samples
    assert found["mu"]["0.375"] == found["momentum"]["0.98"]
