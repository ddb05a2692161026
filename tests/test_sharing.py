"""One run on several ranks of MPI: the bits of one process, and an end for all when one ends."""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from bench.__main__ import main
from bench.experiments.oscillators import Oscillators
from bench.speed import shared
from bench.speed.rounds import medians
from higcore import load_checkpoint, rows
from higcore.backend import module_of, to_host
from higcore.device.memory import DoesNotFitError
from higcore.optimizers import memory
from higcore.sharing.ranks import Ranks
from solvers import OscillatorChain

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
BENCHMARK = """
from bench.speed import shared
shared.BATCHES, shared.REPEATS = {"oscillators": 8}, 2
shared.main()
"""
LITTLE_ROOM = """
import resource
from mpi4py import MPI  # whose own files need more
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
from bench.__main__ import main
main()
"""

needs_mpi = pytest.mark.skipif(
    MPIEXEC is None or importlib.util.find_spec("mpi4py") is None, reason="no mpiexec, or no mpi4py"
)


class Thread:
    """A communicator whose ranks are threads, with what is asked of one of mpi4py's."""

    def __init__(self, rank, said, barrier):
        self.rank, self.said, self.barrier = rank, said, barrier

    def Get_rank(self):
        return self.rank

    def Get_size(self):
        return len(self.said)

    def allgather(self, value):
        self.said[self.rank] = value
        self.barrier.wait(30)
        found = [*self.said]
        self.barrier.wait(30)
        return found

    def bcast(self, value):
        return self.allgather(value)[0]

    def Allreduce(self, own, total):
        total[:] = sum(self.allgather(own))

    def Allgather(self, own, found):
        self.fill(found, self.allgather(to_host(own)))

    def Allgatherv(self, own, found):
        array, counts = found
        if own is None:  # it is in its place
            own = np.split(array, np.cumsum(counts)[:-1])[self.rank].copy()
        parts = self.allgather(to_host(own))
        assert [part.size for part in parts] == counts
        self.fill(array, parts)

    def Alltoall(self, own, found):
        parts = self.allgather(to_host(own))
        self.fill(found, [part.reshape(len(self.said), -1)[self.rank] for part in parts])

    def fill(self, array, parts):
        whole = np.concatenate([part.reshape(-1) for part in parts]).reshape(array.shape)
        array[:] = module_of(array).asarray(whole)

    def Abort(self, status):
        self.barrier.abort()


def on_threads(count, work):
    """What ``work(comm)`` returns on every rank."""
    said, barrier = [None] * count, threading.Barrier(count)
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(work, [Thread(rank, said, barrier) for rank in range(count)]))


@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
def test_samples_are_shared_evenly_and_in_pairs(ranks):
    def shares(comm):
        ours = Ranks(comm)
        found = [ours.share(count) for count in range(1, 40)]
        parts = [ours.share_of(found[20], slice(lo, lo + 4)) for lo in range(0, 21, 4)]
        return found, parts

    for count, of_ranks in zip(
        range(1, 40), zip(*(f for f, _ in on_threads(ranks, shares)), strict=True), strict=True
    ):
        counts = of_ranks[0].counts
        assert sum(counts) == count
        assert max(counts) - min(counts) <= 3
        if count >= 2 * ranks:
            assert all(n % 2 == 0 for n in counts[:-1])
            assert 1 not in counts
        held = [np.arange(count)[share.own] for share in of_ranks]
        kept = [some[:n] for some, n in zip(held, counts, strict=True)]
        assert np.concatenate(kept).tolist() == list(range(count))
        assert all(map(len, held))  # a rank without samples computes one that is dropped


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize(("samples", "cuda_aware"), [(1, False), (2, True), (7, False), (7, True)])
def test_every_backend(ranks, samples, cuda_aware, xp, monkeypatch):
    """K, products with J and the gradient, of ranks and alone; sums are not magnified here."""
    monkeypatch.setattr(rows, "CHUNK_BYTES", 2**10)  # K in as many parts as there are samples
    device = "cpu" if xp is np else "gpu"
    problem = Oscillators(OscillatorChain(steps=6), samples=8, test_samples=2).problem().on(device)
    theta = xp.asarray(problem.network.init(np.random.default_rng(0), np.float64))

    def found(comm):
        ours = problem if comm is None else problem.shared(comm, cuda_aware=cuda_aware)
        at = ours.linearise(theta, ours.batch(0, samples))
        J, g = at.jacobian(), at.loss_gradient.reshape(-1)
        u, y = ours.predict(theta, ours.test)
        arrays = [at.gradient(), J.gram(), J.rmatvec(g), J.matvec(theta), at.tangent(theta), u, y]
        arrays += [at.control, at.solver_rows(), at.network_gradient(at.control)]
        return [to_host(array) for array in arrays]

    alone = found(None)
    for of_rank in on_threads(ranks, found):
        for one, other in zip(alone, of_rank, strict=True):
            assert np.allclose(one, other, 0, 1e-13 * abs(one).max())


def test_parts_of_K_are_dealt_evenly():
    """Those of a triangle, of falling size, each to one rank."""
    dealt = on_threads(3, lambda comm: Ranks(comm).dealt(range(30)))
    assert sorted(k for items in dealt for k in items) == list(range(30))
    sizes = [sum(30 - k for k in items) for items in dealt]
    assert max(sizes) - min(sizes) <= 3


def test_an_exchange_that_fails_ends_all():
    """Within it ranks cannot meet: the others would wait for ever."""
    ended = []

    def work(comm):
        ours = Ranks(comm)
        comm.Abort = lambda status: (ended.append(comm.rank), comm.barrier.abort())
        share = ours.share(4)
        with pytest.raises((TypeError, threading.BrokenBarrierError)):
            ours.gathered(np.ones(2) if comm.rank else [1.0, 1.0], share)

    on_threads(2, work)
    assert sorted(ended) == [0, 1]


def test_ranks_of_one_machine_share_its_memory(monkeypatch):
    """What each can have is in the message."""
    problem = Oscillators(OscillatorChain(steps=24), samples=24, test_samples=10).problem()
    there = 3e5  # bytes: enough for one whole step, not for two

    def short(needed, array, limit):
        return there if needed > there else None

    monkeypatch.setattr(memory, "short_of_memory", short)
    assert memory.fitting_tile(problem, 12) is None

    def of_rank(comm):
        return memory.fitting_tile(problem.shared(comm), 12)

    assert set(on_threads(1, of_rank)) == {None}
    (tile,) = set(on_threads(2, of_rank))
    assert 1 <= tile < 12
    with pytest.raises(DoesNotFitError, match=r"and 0\.0001 GB are there"):
        on_threads(3, of_rank)


def test_a_communicator_is_asked_for():
    problem = Oscillators(samples=8, test_samples=2).problem()
    with pytest.raises(TypeError, match="comm must have Get_rank"):
        problem.shared(4)
    with pytest.raises(TypeError, match="cuda_aware must be"):
        on_threads(1, lambda comm: problem.shared(comm, cuda_aware="yes"))


def test_mpi4py_is_asked_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    said = CliRunner().invoke(main, TRAIN)
    assert said.exit_code == 2
    assert "--shared needs mpi4py: pip install" in said.output


def started(folder, count, *arguments):
    """``python ARGUMENTS`` on so many ranks."""
    command = [MPIEXEC, "-n", str(count), sys.executable, *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=folder, env=ENVIRONMENT, **pipes)


def ended(process, within=300):
    """What a command has said; it is killed if it does not end."""
    try:
        out, err = process.communicate(timeout=within)
    finally:
        process.kill()
    return process.returncode, out, err


@needs_mpi
@pytest.mark.parametrize("count", [2, 3])
def test_ranks_find_what_one_process_finds(tmp_path, count):
    status, out, err = ended(started(tmp_path, count, "-m", "mpi4py", str(SCRIPT)))
    assert status == 0, out + err
    assert out.count(" s check_") == SCRIPT.read_text().count("\ndef check_")


@needs_mpi
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


@needs_mpi
def test_bad_arguments_are_said_once(tmp_path):
    status, out, err = ended(started(tmp_path, 2, "-m", "bench", *TRAIN, "--lr", "-1"), SOON)
    assert status != 0
    assert err.count("Error: lr must be") == 1
    assert "Traceback" not in out + err


@needs_mpi
def test_a_full_disk_ends_all(tmp_path):
    """With a message; the last checkpoint is as it was."""
    assert ended(started(tmp_path, 2, "-m", "bench", *TRAIN, "--steps", "3"))[0] == 0
    (path,) = tmp_path.glob("*.npz")
    options = [*TRAIN, "--resume", path.name, "--steps", "5"]
    status, _, err = ended(started(tmp_path, 2, "-c", LITTLE_ROOM, *options), SOON)
    assert status != 0
    assert f"'{path.name}' could not be written" in err
    assert load_checkpoint(path).steps == 3


@needs_mpi
@pytest.mark.parametrize("which", [0, 1])
def test_a_rank_that_is_killed_ends_all(tmp_path, which):
    process = started(tmp_path, 2, "-c", SAY_WHO, *TRAIN, "--seconds", "60")
    ranks = [int(process.stdout.readline()) for _ in range(2)]
    assert process.stdout.readline().startswith("oscillators: HIG(")
    time.sleep(0.5)  # it trains
    os.kill(ranks[which], signal.SIGKILL)
    assert ended(process, SOON)[0] != 0
    assert not [rank for rank in ranks if Path(f"/proc/{rank}").exists()]


@needs_mpi
def test_the_benchmark(tmp_path):
    """Every stage is timed on every number of ranks, and compared."""
    found = {}
    for ranks in shared.RANKS:
        status, out, err = ended(started(tmp_path, ranks, "-c", BENCHMARK))
        assert status == 0, err
        found[ranks] = [json.loads(out)["oscillators"]]
        assert set(found[ranks][0]) == set(shared.STAGES)
        assert min(found[ranks][0].values()) > 0


def test_the_benchmark_compares_medians():
    def run(march, sweep, rows, K):
        return {"march": march, "sweep": sweep, "rows": rows, "K": K}

    runs = {
        "1": [run(2.0, 6.0, 1.0, 3.0)] * 2 + [run(9.0, 9.0, 9.0, 9.0)],
        "2": [run(1.0, 3.0, 1.0, 1.0)],
    }
    found = shared._table(medians(runs))
    assert found["1"]["J and K"] == 10.0
    assert found["times faster"] == run(2.0, 2.0, 1.0, 3.0) | {"J and K": 2.0}
