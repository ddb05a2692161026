"""Bad input is refused at once, by a sentence that names the argument."""

import sys

import pytest
import strict_cupy
from bad_input import CASES, GOOD, PROBLEM, RUN, Case, X

from higcore import save_checkpoint
from higcore.backend import to_device


@pytest.fixture
def everything(monkeypatch, tmp_path):
    """A device, and a folder of its own that holds a checkpoint."""
    monkeypatch.chdir(tmp_path)
    save_checkpoint("run.npz", RUN)
    with strict_cupy.installed(monkeypatch):
        yield


def label(value):
    return f"{value.name} {sorted(value.changes)}" if isinstance(value, Case) else None


@pytest.mark.parametrize("case", CASES, ids=label)
def test_bad_input_is_refused_with_a_sentence(case, everything):
    with pytest.raises(case.error) as refused:
        case.function(**case.good | case.changes)
    assert type(refused.value) is case.error
    assert case.message in str(refused.value)


@pytest.mark.parametrize(("name", "function", "good"), GOOD, ids=[name for name, *_ in GOOD])
def test_the_same_calls_work_with_good_input(name, function, good, everything):
    function(**good)


def test_a_gpu_that_is_not_there(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(RuntimeError, match="device 'gpu' cannot be used: "):
        to_device(X, "gpu")
    with pytest.raises(RuntimeError, match="device 'gpu' cannot be used: "):
        PROBLEM.on("gpu")


def test_there_are_enough_cases():
    assert len(CASES) >= 100
    assert len({label(case) + case.message for case in CASES}) > 0.9 * len(CASES)
