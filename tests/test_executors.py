"""Runs on ranks of MPI and by workers of Dask, each started as a user would."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.reproduction.executors import place

SCRIPT = Path(__file__).with_name("side_by_side.py")
MPIEXEC = shutil.which("mpiexec", path=str(Path(sys.executable).parent)) or shutil.which("mpiexec")
ROOT = str(SCRIPT.parent.parent)
ENVIRONMENT = os.environ | {"PYTHONPATH": ROOT}


def made(folder, command):
    """What a command says of the runs that it made, and the records of these."""
    done = subprocess.run(
        command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    records = {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}
    return json.loads(done.stdout.splitlines()[-1]), records


def check(said, records, count):
    assert said["failed"] == {"raises": "ZeroDivisionError: as it should"}
    assert said["workers"] == 2
    assert len(records) == count
    assert said["here"] not in {record["process"] for record in records.values()}


@pytest.mark.skipif(MPIEXEC is None, reason="no mpiexec")
def test_ranks_of_mpi(tmp_path):
    pytest.importorskip("mpi4py")
    command = [MPIEXEC, "-n", "3", sys.executable, "-m", "mpi4py.futures", str(SCRIPT), "."]
    check(*made(tmp_path, [*command, "mpi"]), 6)


@contextlib.contextmanager
def a_cluster(folder):
    """A scheduler and two workers of one thread each, as on two machines; yields its file."""
    file = folder / "scheduler.json"
    options = {"cwd": folder, "env": ENVIRONMENT, "stderr": subprocess.DEVNULL}
    scheduler = [sys.executable, "-m", "dask", "scheduler", "--port", "0", "--no-dashboard"]
    worker = [sys.executable, "-m", "dask", "worker", "--nthreads", "1", "--no-dashboard"]
    processes = [subprocess.Popen([*scheduler, "--scheduler-file", str(file)], **options)]
    try:
        while not file.exists():
            time.sleep(0.1)
        for _ in range(2):
            processes.append(subprocess.Popen([*worker, "--scheduler-file", str(file)], **options))
        yield str(file)
    finally:
        for process in processes[::-1]:
            process.terminate()
            process.wait(30)


def test_workers_of_dask(tmp_path):
    """A worker that dies loses its run only, which another one makes."""
    distributed = pytest.importorskip("distributed")
    (tmp_path / "runs").mkdir()
    with a_cluster(tmp_path) as scheduler:
        with distributed.Client(scheduler_file=scheduler) as client:
            client.wait_for_workers(2, timeout=60)
        command = [sys.executable, str(SCRIPT), ".", "dask", scheduler]
        check(*made(tmp_path / "runs", command), 7)
    assert (tmp_path / "runs" / "died").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("dask",), "--executor dask needs --scheduler, such as tcp://"),
        (("processes", "tcp://h:1"), "--scheduler goes with --executor dask, got --executor proc"),
        (("mpi",), "no rank to compute on; start it by mpiexec -n|needs mpi4py"),
    ],
)
def test_what_is_missing_is_said(arguments, message):
    with pytest.raises(ValueError, match=message):
        place(*arguments)
