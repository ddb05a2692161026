# ruff: noqa: E501  one case a line
"""Problems of one's own on the command line: what is taken, what is said, and the page's lines."""

import json
import re
import sys
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner

from bench.__main__ import main
from bench.experiments import OPTIMIZERS, own, pictures
from higcore import Batch, Problem
from higcore.losses import SquaredError
from nets import MLP
from solvers import ScaledOutputs

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "command-line.md").read_text()
(FILE,) = re.findall(r"^```python\n(# wave\.py\n.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = re.findall(r"^python -m bench (.*wave:problem.*)$", PAGE, re.MULTILINE)
HEAD = FILE.partition("x = ")[0]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty current directory, whose modules are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    known = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - known:
        if str(tmp_path) in (getattr(sys.modules[name], "__file__", None) or ""):
            del sys.modules[name]


def write(text, name="wave.py"):
    Path(name).parent.mkdir(exist_ok=True)
    Path(name).write_text(text)


def invoke(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


def small(dtype=np.float64, samples=30):
    x = np.linspace(-1, 1, samples, dtype=dtype)[:, None]
    data = Batch(x=x, net_input=x, target=np.hstack([np.sin(6 * x), np.cos(9 * x)]))
    return Problem(MLP((1, 7, 2)), ScaledOutputs(), SquaredError(), data, data, name="small")


def test_the_commands_of_the_page_run():
    write(FILE)
    assert {command.split()[0] for command in COMMANDS} >= {"train", "survey", "memory", "profile"}
    for command in COMMANDS:
        run = invoke(*command.split())
        assert run.exit_code == 0, run.output
    assert {file.suffix for file in Path("runs").iterdir()} == {".npz", ".json", ".png"}


def test_a_run_leaves_what_a_run_of_the_paper_leaves_and_goes_on():
    write(FILE)
    start = ("train", "wave:problem", "--optimizer", "adam", "--lr", 0.01, "--json", "--out", "a")
    run = invoke(*start, "--steps", 6, "--diagnostics")
    assert run.exit_code == 0, run.output
    record = json.loads(run.stdout.splitlines()[-1])
    assert (record["steps"], record["batch"], record["problem"]) == (6, 64, "problem")
    stem, ends = "wave-problem-adam-seed0", (".npz", ".json", "-loss.png", "-picture.png")
    names = {f"{stem}{end}" for end in (*ends, "-diagnostics.png")}
    assert {file.name for file in Path("a").iterdir()} == names
    run = invoke(*start, "--steps", 9, "--resume", f"a/{stem}.npz")
    assert json.loads(run.stdout.splitlines()[-1])["steps"] == 9
    run = invoke(*start, "--steps", 9, "--seed", 1, "--resume", f"a/{stem}.npz")
    assert "resume was made for seed 0, this run has 1" in " ".join(run.output.split())


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_has_a_setting(optimizer):
    write(FILE)
    run = invoke("train", "wave:problem", "--optimizer", optimizer, "--steps", 2)
    assert run.exit_code == 0, run.output


def test_batches_are_no_larger_than_the_data():
    experiment = own.Own(small, "a:b")
    found = {name: setting.batch for name, setting in experiment.settings.items()}
    assert set(found) == set(OPTIMIZERS)
    assert set(found.values()) == {30}
    assert own.Own(lambda: small(samples=65), "a:b").settings["hig"].batch == 64


def test_seed_and_dtype_are_handed_over_where_they_are_asked_for():
    taken = []

    def of_both(dtype, seed=5, size=30):
        taken.append((seed, dtype))
        return small(dtype, size)

    experiment = own.Own(of_both, "a:b")
    assert experiment.problem(3, np.dtype("float32")).sample.x.dtype == np.float32
    assert experiment.problem().sample.x.dtype == np.float64
    assert taken == [(3, np.float32), (0, np.float64)]
    assert own.Own(lambda seed: small(samples=seed), "a:b").problem(7).train.count == 7
    single = own.Own(lambda: small(np.float32), "a:b")
    assert single.problem().sample.x.dtype == np.float32
    with pytest.raises(ValueError, match="dtype is float64, but the data of a:b are float32"):
        single.problem(dtype=np.float64)


def test_a_problem_is_made_once_for_a_seed():
    write(f"{FILE}\ncalls = []\ndef make(seed):\n    calls.append(seed)\n    return problem\n")
    experiment = own.load("wave:make")
    assert experiment.problem() is experiment.problem()
    assert experiment.settings["gn"].batch == 64
    assert sys.modules["wave"].calls == [0]


def test_an_object_may_have_settings_and_a_picture():
    write(
        f"{FILE}\n"
        "from types import SimpleNamespace\n"
        "from bench.experiments import Setting\n"
        "from higcore import HIG\n"
        "def picture(problem, theta):\n"
        "    raise RuntimeError('no ink')\n"
        "mine = SimpleNamespace(problem=problem, picture=picture)\n"
        "mine.settings = {'hig': Setting(32, HIG(lr=0.5))}\n"
    )
    run = invoke("train", "wave:mine", "--steps", 2, "--json")
    assert run.exit_code == 0, run.output
    assert json.loads(run.stdout.splitlines()[-1])["settings"]["lr"] == 0.5
    assert "There is no picture: to draw it raised RuntimeError: no ink" in run.stderr
    assert not Path("runs/wave-mine-hig-seed0-picture.png").exists()
    assert own.load("wave:mine").settings["adam"].batch == 64


def test_a_solver_that_raises_leaves_its_run():
    write(
        f"{FILE}\ncalls = []\nclass Failing(ScaledOutputs):\n    def solve(self, x, u):\n"
        "        calls.append(1)\n        if len(calls) > 5:\n            raise ArithmeticError('no')\n"
        "        return super().solve(x, u)\n"
        "problem = Problem(problem.network, Failing(), problem.loss, data, data)\n"
    )
    run = invoke("train", "wave:problem", "--optimizer", "adam", "--epochs", 9, "--json")
    assert run.exit_code == 1, run.output
    record = json.loads(run.stdout.splitlines()[-1])
    assert record["status"] == "raised"
    assert record["test_samples"] == {"median": None, "largest": None}
    assert "There is no picture: to draw it raised ArithmeticError: no" in run.stderr


WRONG = {
    "no module": ("", "tide:problem", "there is no module tide in"),
    "no package": ("", "wave.inner:problem", "there is no module wave.inner in"),
    "no name": (FILE, "wave:swing", "wave (wave.py) has no 'swing'; it has problem"),
    "nothing there": ("", "wave:swing", "Error: wave (wave.py) has no 'swing'"),
    "no name given": (FILE, "wave:", "PROBLEM must be MODULE:NAME, such as swing:problem"),
    "a file": (FILE, "wave.py:problem", "PROBLEM must be MODULE:NAME"),
    "a path": (FILE, "./wave:problem", "PROBLEM must be MODULE:NAME"),
    "no problem": (FILE, "wave:x", "wave:x must be a higcore.Problem, a function"),
    "kind": (FILE, "wave:x", "got ndarray"),
    "a class": ("class A:\n    problem = None\n", "wave:A", "got a class"),
    "a number": ("def make():\n    return 7\n", "wave:make", "wave:make must return a higcore.Problem, got int"),
    "arguments": ("def make(n, seed): ...\n", "wave:make", "wave:make must take (seed, dtype) or less, got one of n, seed"),
    "raises": ("def make():\n    a = 1\n    return a / 0\n", "wave:make", "wave:make raised ZeroDivisionError: division by zero (wave.py, line 3)"),
    "deep": ("import numpy\nnumpy.zeros(2).reshape(3)\n", "wave:a", "importing wave raised ValueError: cannot reshape array of size 2 into shape (3,) (wave.py, line 2)"),
    "deeper": ("import json\n\njson.loads('{')\n", "wave:a", "importing wave raised JSONDecodeError"),
    "line": ("import json\n\njson.loads('{')\n", "wave:a", "(wave.py, line 3)"),
    "syntax": ("x = 1\ny = = 2\n", "wave:a", "importing wave raised SyntaxError: invalid syntax (wave.py, line 2)"),
    "a library": ("\nimport tide\n", "wave:a", "importing wave raised ModuleNotFoundError: No module named 'tide' (wave.py, line 2)"),
    "refused": (FILE.replace("train=data", "train=x"), "wave:problem", "train must be a Batch or FreshData, got ndarray (wave.py, line"),
}  # fmt: skip


@pytest.mark.parametrize("command", ["train", "memory"])
@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_one_sentence(case, command):
    text, name, message = WRONG[case]
    write(text)
    run = invoke(command, name)
    assert run.exit_code == 2, run.output
    assert message in " ".join(run.output.split())
    assert "Traceback" not in run.output
    assert not Path("runs").exists()


def test_other_bad_usage():
    write(FILE)
    run = invoke("train", "wave:problem", "--variant", "paper")
    assert "--variant of wave:problem must be one of [], got 'paper'" in run.output
    run = invoke("train", "wave:problem", "--dtype", "float32")
    assert "dtype is float32, but the data of wave:problem are float64" in run.output
    for command in ("train", "survey", "memory", "profile"):
        assert "|MODULE:NAME}" in "".join(invoke(command, "--help").output.split())


def test_modules_in_a_package():
    write("", "physics/__init__.py")
    write(FILE, "physics/wave.py")
    assert own.load("physics.wave:problem").name == "wave-problem"


def test_the_picture_shows_outputs_against_targets():
    problem = small()
    theta = problem.network.init(np.random.default_rng(0))
    figure = own.Own(lambda: problem, "a:b").picture(problem, theta)
    _, y = problem.predict(theta, problem.test)
    assert len(figure.axes) == 2
    for j, ax in enumerate(figure.axes):
        line, points = ax.lines
        assert (points.get_xdata() == problem.test.target[:, j]).all()
        assert (points.get_ydata() == y[:, j]).all()
        assert (line.get_xdata() == line.get_ydata()).all()
    many = np.random.default_rng(0).random((5, 28))
    figure = pictures.predictions(many, many, "")
    assert len(figure.axes) == pictures.PANELS
    assert (figure.axes[-1].lines[1].get_xdata() == many[:, 27]).all()


def test_a_name_that_begins_as_that_of_the_toy_is_none():
    write(FILE, "toy_waves.py")
    run = invoke("survey", "toy_waves:problem", "--optimizers", "adam", "--epochs", 1)
    assert run.exit_code == 0, run.output


def test_names_are_converted_by_choice_alone():
    with pytest.raises(click.BadParameter, match="'pendulum' is not one of"):
        main.commands["train"].params[0].type.convert("pendulum", None, None)
