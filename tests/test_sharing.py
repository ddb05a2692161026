"""One run on several ranks of MPI: the bits of one process, and an end for all when one ends."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from higcore import load_checkpoint

SCRIPT = Path(__file__).with_name("shared_runs.py")
MPIEXEC = shutil.which("mpiexec", path=str(Path(sys.executable).parent)) or shutil.which("mpiexec")
ENVIRONMENT = os.environ | {"PYTHONPATH": str(SCRIPT.parent.parent)}
SOON = 10  # seconds in which all are to have ended
TRAIN = ["train", "oscillators", "--shared", "--batch", "32", "--out", "."]
SAY_WHO = """
import os
os.write(1, b"%d\\n" % os.getpid())  # at once, or lines of two ranks would mix
from bench.__main__ import main
main()
"""
LITTLE_ROOM = """
import resource
from mpi4py import MPI  # whose own files need more
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
from bench.__main__ import main
main()
"""

pytestmark = pytest.mark.skipif(MPIEXEC is None, reason="no mpiexec")


@pytest.fixture(autouse=True)
def ranks_can_meet():
    pytest.importorskip("mpi4py")


def started(folder, count, *arguments):
    """``python ARGUMENTS`` on so many ranks."""
    command = [MPIEXEC, "-n", str(count), sys.executable, *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=folder, env=ENVIRONMENT, **pipes)


def ended(process, within=120):
    """What a command has said; it is killed if it does not end."""
    try:
        out, err = process.communicate(timeout=within)
    finally:
        process.kill()
    return process.returncode, out, err


@pytest.mark.parametrize("count", [2, 3])
def test_ranks_find_what_one_process_finds(tmp_path, count):
    status, out, err = ended(started(tmp_path, count, "-m", "mpi4py", str(SCRIPT)))
    assert status == 0, out + err
    assert out.count(" s check_") == SCRIPT.read_text().count("\ndef check_")


def test_the_command_line(tmp_path):
    """One file each, one voice, and a checkpoint that one process goes on from."""
    status, out, err = ended(started(tmp_path, 2, "-m", "bench", *TRAIN, "--steps", "4", "--json"))
    assert status == 0, err
    assert out.count("oscillators: HIG(") == out.count('{"problem"') == 1
    assert len(list(tmp_path.glob("*.npz"))) == len(list(tmp_path.glob("*.json"))) == 1
    (path,) = tmp_path.glob("*.npz")
    assert load_checkpoint(path).steps == 4
    alone = [word for word in TRAIN if word != "--shared"]
    options = ["-m", "bench", *alone, "--resume", path.name, "--steps", "6"]
    assert ended(started(tmp_path, 1, *options))[0] == 0
    assert load_checkpoint(path).steps == 6


def test_bad_arguments_are_said_once(tmp_path):
    status, out, err = ended(started(tmp_path, 2, "-m", "bench", *TRAIN, "--lr", "-1"), SOON)
    assert status != 0
    assert err.count("Error: lr must be") == 1
    assert "Traceback" not in out + err


def test_a_full_disk_ends_all(tmp_path):
    """With a message; the last checkpoint is as it was."""
    assert ended(started(tmp_path, 2, "-m", "bench", *TRAIN, "--steps", "3"))[0] == 0
    (path,) = tmp_path.glob("*.npz")
    options = [*TRAIN, "--resume", path.name, "--steps", "5"]
    status, _, err = ended(started(tmp_path, 2, "-c", LITTLE_ROOM, *options), SOON)
    assert status != 0
    assert f"'{path.name}' could not be written" in err
    assert load_checkpoint(path).steps == 3


@pytest.mark.parametrize("which", [0, 1])
def test_a_rank_that_is_killed_ends_all(tmp_path, which):
    process = started(tmp_path, 2, "-c", SAY_WHO, *TRAIN, "--seconds", "60")
    ranks = [int(process.stdout.readline()) for _ in range(2)]
    assert process.stdout.readline().startswith("oscillators: HIG(")
    time.sleep(0.5)  # it trains
    os.kill(ranks[which], signal.SIGKILL)
    assert ended(process, SOON)[0] != 0
    assert not [rank for rank in ranks if Path(f"/proc/{rank}").exists()]
