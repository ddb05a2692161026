"""A run goes on when nobody listens any more: progress, the logger, and the command line."""

import gc
import io
import json
import logging
import os
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from bench.experiments import Oscillators
from higcore import HIG, Checkpoints, fit, load_checkpoint
from higcore.training.progress import tell
from solvers import OscillatorChain

ROOT = Path(__file__).resolve().parent.parent
CHAIN = Oscillators(OscillatorChain(steps=12, dt=0.5), (6,), "tanh", 40, 24)
PROBLEM = CHAIN.problem(seed=5)
QUIET = fit(PROBLEM, HIG(), batch=8, steps=7)


class Größe(HIG):
    """An optimizer whose name is not ASCII."""


class Leaving(io.StringIO):
    """A stream whose reader leaves after some writes."""

    def __init__(self, error, writes=0, terminal=False):
        super().__init__()
        self.error, self.left, self.terminal = error, writes, terminal

    def isatty(self):
        return self.terminal

    def write(self, text):
        self.left -= 1
        if self.left < 0:
            raise self.error
        return super().write(text)

    flush = lambda self: self.write("")  # noqa: E731


def closed():
    stream = io.StringIO()
    stream.close()
    return stream


def ascii_only():
    return io.TextIOWrapper(io.BytesIO(), "ascii", write_through=True)


STREAMS = {
    "broken pipe": lambda: Leaving(BrokenPipeError(32, "Broken pipe")),
    "broken later": lambda: Leaving(BrokenPipeError(32, "Broken pipe"), 3),
    "terminal gone": lambda: Leaving(OSError(5, "Input/output error"), 0, True),
    "terminal gone later": lambda: Leaving(BrokenPipeError(32, "Broken pipe"), 9, True),
    "closed": closed,
    "none": lambda: None,
    "ascii": ascii_only,
    "odd": object,
    "detached": lambda: Leaving(ValueError("underlying buffer has been detached"), 4),
}


@pytest.fixture(autouse=True)
def at_every_step(monkeypatch):
    monkeypatch.setattr("higcore.training.progress.PLAIN_INTERVAL", -1.0)
    monkeypatch.setattr("higcore.training.progress.BAR_INTERVAL", -1.0)


def assert_same(result):
    assert result.status == "budget"
    assert np.array_equal(result.theta, QUIET.theta)


@pytest.mark.parametrize("name", STREAMS)
def test_a_standard_error_that_takes_nothing(name, monkeypatch, caplog):
    monkeypatch.setattr(sys, "stderr", STREAMS[name]())
    result = fit(PROBLEM, Größe(), batch=8, steps=7, progress=True)
    said = [r.getMessage() for r in caplog.records]
    monkeypatch.undo()
    assert_same(result)
    assert len([line for line in said if line.startswith("Progress is no longer shown: ")]) == 1
    gc.collect()  # a bar that was never closed would complain now


class Bar:
    """Stands in for tqdm."""

    def __init__(self, fails):
        self.fails, self.done = fails, []

    def __call__(self, **options):
        return self.does("open") or self

    def does(self, name):
        self.done.append(name)
        if name == self.fails:
            raise RuntimeError(f"cannot {name}")

    def set_postfix_str(self, text, refresh):
        self.does("postfix")

    def refresh(self):
        self.does("refresh")

    def close(self):
        self.does("close")


@pytest.mark.parametrize("fails", ["open", "postfix", "refresh", "close", "nothing"])
def test_a_bar_that_fails(fails, monkeypatch, caplog):
    bar = Bar(fails)
    monkeypatch.setitem(sys.modules, "tqdm", types.SimpleNamespace(tqdm=bar))
    monkeypatch.setattr(sys, "stderr", Leaving(None, 99, True))
    result = fit(PROBLEM, HIG(), batch=8, steps=7, progress=True)
    monkeypatch.undo()
    assert_same(result)
    said = [r.getMessage() for r in caplog.records if "Progress" in r.getMessage()]
    failed = fails != "nothing"
    assert said == [f"Progress is no longer shown: RuntimeError('cannot {fails}')"] * failed
    assert bar.done.count("refresh") == {"open": 0, "postfix": 0, "refresh": 1}.get(fails, 7)
    assert bar.done.count("close") == (fails != "open")


def test_ctrl_c_is_no_failure_of_a_bar(monkeypatch):
    bar = Bar(None)
    bar.refresh = lambda: (_ for _ in ()).throw(KeyboardInterrupt)
    monkeypatch.setitem(sys.modules, "tqdm", types.SimpleNamespace(tqdm=bar))
    monkeypatch.setattr(sys, "stderr", Leaving(None, 99, True))
    result = fit(PROBLEM, HIG(), batch=8, steps=7, progress=True)
    monkeypatch.undo()
    assert (result.status, result.steps) == ("interrupted", 1)


def test_a_terminal_without_tqdm_is_refused_before_any_work(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setattr(sys, "stderr", Leaving(None, 99, True))
    with pytest.raises(ImportError, match="progress=True needs tqdm on a terminal"):
        fit(PROBLEM, HIG(), batch=8, steps=7, progress=True)


class Unpronounceable:
    """A rank of somebody's own."""

    def __format__(self, form):
        raise TypeError("no words")


class Own:
    def init(self, theta):
        return {}

    def update(self, at, state):
        step, _, _ = HIG().update(at, state)
        return step, state, types.SimpleNamespace(rank=Unpronounceable())


def test_what_an_optimizer_says_of_itself_may_be_odd():
    assert_same(fit(PROBLEM, Own(), batch=8, steps=7, progress=True))


class Refusing(logging.Handler):
    def emit(self, record):
        raise ValueError("I/O operation on closed file")


@pytest.fixture(params=["refusing", "closed"])
def deaf(request, monkeypatch):
    """A handler of the logger that raises; that of a closed stream does when it complains of it."""
    handler = Refusing() if request.param == "refusing" else logging.StreamHandler(closed())
    logger = logging.getLogger("higcore")
    logger.addHandler(handler)
    monkeypatch.setattr(logger, "level", logging.INFO)
    yield
    logger.removeHandler(handler)


def test_a_logger_that_fails(deaf, monkeypatch, tmp_path):
    save = Checkpoints(tmp_path / "folder" / "run.npz", every=0)
    monkeypatch.setattr(save, "path", tmp_path)  # a folder, so that every save fails, and says so
    monkeypatch.setattr(sys, "stderr", closed())
    result = fit(PROBLEM, HIG(), batch=8, steps=7, on_step=[save])
    bad = fit(PROBLEM, HIG(lr=1e-30), batch=8, epochs=9, patience=2)
    monkeypatch.undo()
    assert_same(result)
    assert bad.status == "stagnated"


def test_the_logger_knows_who_said_it(caplog):
    with caplog.at_level(logging.INFO, "higcore"):
        tell(logging.INFO, "50 %% of %s", "it")
    (record,) = caplog.records
    assert (record.getMessage(), record.filename) == ("50 % of it", "test_progress.py")


LOUD = """
import sys
from test_progress import HIG, PROBLEM, fit
from higcore import save_checkpoint
from higcore.training import progress
progress.PLAIN_INTERVAL = -1.0
save_checkpoint(sys.argv[1], fit(PROBLEM, HIG(), batch=8, steps=7, progress=True))
fit(PROBLEM, HIG(lr=1e-30), batch=8, epochs=9, patience=2)  # of which the logger is told
print("done")
"""


def unread(command, **streams):
    """Run a command with some of its streams going where nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, [ROOT, ROOT / "tests"]))}
    pipes = dict.fromkeys(streams, writing)
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | pipes
    done = subprocess.run(command, cwd=ROOT, env=environment, text=True, **options)
    os.close(writing)
    return done


def test_a_program_whose_standard_error_is_a_broken_pipe(tmp_path):
    path = tmp_path / "run.npz"
    done = unread([sys.executable, "-c", LOUD, str(path)], stderr=True)
    assert done.stdout == "done\n"
    assert done.returncode in (0, 120)  # 120: Python itself could not write the line at its exit
    assert_same(load_checkpoint(path))


COMMANDS = {
    "toy-adam-seed0": "train toy --optimizer adam --steps 3 --json",
    "toy-1epochs": "survey toy --optimizers adam --epochs 1",
}


@pytest.mark.parametrize("stem", COMMANDS)
@pytest.mark.parametrize("streams", [("stdout",), ("stdout", "stderr")], ids="+".join)
def test_commands_leave_their_files_if_nobody_reads(stem, streams, tmp_path):
    """As behind ``| head -1``, which is gone before the second line."""
    command = [sys.executable, "-m", "bench", *COMMANDS[stem].split(), "--out", str(tmp_path)]
    done = unread(command, **dict.fromkeys(streams, True))
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / f"{stem}.json").read_text())
    assert list(tmp_path.glob(f"{stem}*.png"))
    if "stderr" not in streams:
        assert "Traceback" not in done.stderr
        assert "Exception ignored" not in done.stderr
