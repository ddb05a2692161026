"""The limits on cores, and BLAS threads that are put back whatever overlaps."""

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import numpy as np
import pytest
import scipy.linalg
import threadpoolctl

from higcore import Adam, Problem, fit
from higcore.device import threads
from higcore.device.threads import blas_limits, cores, run_threaded, thread_policy
from higcore.losses import SquaredError
from higcore.problem import Batch
from nets import MLP
from solvers import OscillatorChain, ScaledOutputs

assert scipy.linalg  # its BLAS is loaded


def blas_threads():
    """Of every copy of BLAS in the process."""
    return {c["filepath"]: c["num_threads"] for c in threadpoolctl.threadpool_info()}


@pytest.fixture
def two_threads():
    """BLAS with two threads, however the tests are run, so that a limit can be seen."""
    with threadpoolctl.threadpool_limits(2):
        yield


def test_blocks_that_overlap_leave_nothing_behind(two_threads):
    """As two runs in threads do: the first to begin is the first to end."""
    before = blas_threads()
    first, second = ExitStack(), ExitStack()
    first.enter_context(thread_policy(rows=10))
    second.enter_context(thread_policy(rows=10))
    first.close()
    assert set(blas_threads().values()) == {1}  # the second still needs it
    second.close()
    assert blas_threads() == before


def test_a_block_inside_another_one(two_threads):
    before = blas_threads()
    with thread_policy(rows=10):
        with thread_policy(rows=10), pytest.raises(ZeroDivisionError), thread_policy(rows=10):
            1 / 0  # noqa: B018
        assert set(blas_threads().values()) == {1}
    assert blas_threads() == before


def test_a_step_does_not_ask_again_for_what_its_run_has(two_threads):
    numpy = threads._limit("numpy")
    with blas_limits():
        assert len(numpy.users) == 1
        with blas_limits(rows=10):
            assert len(numpy.users) == 1
            assert len(threads._limit("scipy").users) == 1
        others = []
        thread = threading.Thread(target=lambda: others.append(numpy.is_held_here()))
        thread.start()
        thread.join()
        assert others == [False]
    assert not numpy.users


def test_the_thread_that_entered_first_leaves_first_and_lives_on(two_threads):
    """The limit is taken back by another thread than the one that set it."""
    before, inner, outer = blas_threads(), threading.Event(), threading.Event()
    stays = threading.Event()

    def first():
        with thread_policy(rows=10):
            inner.set()
            outer.wait(60)
        stays.wait(60)

    thread = threading.Thread(target=first)
    thread.start()
    inner.wait(60)
    assert set(blas_threads().values()) == {1}
    with thread_policy(rows=10):
        outer.set()
        while len(threads._limits["numpy"].users) > 1:
            pass
        assert set(blas_threads().values()) == {1}
    assert blas_threads() == before
    stays.set()
    thread.join()


def test_runs_that_overlap_in_threads(two_threads, rng):
    before, gate = blas_threads(), threading.Barrier(3)
    data = Batch(rng.random((8, 1)), rng.random((8, 1)), rng.random((8, 2)))
    problem = Problem(MLP((1, 3, 2)), ScaledOutputs(1.0), SquaredError(), data, data)

    def train(steps):
        def meet(result):
            if result.steps == 1:
                gate.wait(timeout=60)  # all of them are within their runs

        return fit(problem, Adam(), batch=8, steps=steps, on_step=[meet]).status

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(train, (1, 20, 5))) == ["budget"] * 3
    assert blas_threads() == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_child_is_not_bound_by_the_threads_of_its_parent(two_threads):
    """Another thread holds the limit at the fork; it does not go on in the child."""
    entered, leave = threading.Event(), threading.Event()

    def hold():
        with thread_policy(rows=10):
            entered.set()
            leave.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    entered.wait(60)
    if (child := os.fork()) == 0:
        os._exit(set(blas_threads().values()) != {2})
    leave.set()
    thread.join()
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_child_keeps_the_block_that_it_was_made_in(two_threads):
    with thread_policy(rows=10):
        if (child := os.fork()) == 0:
            os._exit(set(blas_threads().values()) != {1})
    assert os.waitpid(child, 0)[1] == 0


TRAINING = """
import os, signal, threading
import numpy as np
from higcore import HIG, Batch, Problem, fit
from higcore.losses import SquaredError
from nets import MLP
from solvers import OscillatorChain

x = np.random.default_rng(0).random((16, 4))
data = Batch(x, x, x)
problem = Problem(MLP((4, 6, 6)), OscillatorChain(steps=6), SquaredError(), data, data)

def train(steps):
    return fit(problem, HIG(), batch=8, steps=steps).theta

expected = train(4)
ended = threading.Event()

def train_on():
    while not ended.is_set():
        train(4)

thread = threading.Thread(target=train_on)
thread.start()
right = []
for _ in range(40):
    if (child := os.fork()) == 0:
        signal.alarm(60)
        os._exit(not np.array_equal(train(4), expected))
    right.append(os.waitpid(child, 0)[1] == 0)
ended.set()
thread.join()
print(sum(right))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_fork_while_another_thread_trains():
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-W", "ignore", "-c", TRAINING]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert run.stdout.strip() == "40", run.stderr


def test_limits_of_threadpoolctl_bear_on_our_own_threads(monkeypatch):
    monkeypatch.setattr(threads, "_affinity", lambda: 8)
    monkeypatch.setattr(threads, "_quota", lambda: 8)
    monkeypatch.setattr(threads, "_asked_for", lambda: 8)
    for limit in (1, 2):
        with threadpoolctl.threadpool_limits(limit):
            assert cores() == limit
            with thread_policy(rows=10):  # our own limit on BLAS is none on us
                assert cores() == limit
    seen = set()
    with threadpoolctl.threadpool_limits(1):
        run_threaded(lambda _: seen.add(threading.get_ident()), range(50))
    assert seen == {threading.get_ident()}


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"NUMBA_NUM_THREADS": "1"}, 1),
        ({"OMP_NUM_THREADS": "1"}, 1),
        ({"OMP_NUM_THREADS": "1,4"}, 1),
        ({"OPENBLAS_NUM_THREADS": "1"}, 1),
        ({"NUMBA_NUM_THREADS": "", "OMP_NUM_THREADS": "many"}, None),
        ({"NUMBA_NUM_THREADS": "0"}, None),
        ({"NUMBA_NUM_THREADS": "999"}, None),
    ],
)
def test_limits_in_the_environment(variables, expected):
    script = "import numpy, scipy.linalg; from higcore.device.threads import cores; print(cores())"
    names = ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    environment = {k: v for k, v in os.environ.items() if k not in names}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    command = [sys.executable, "-c", script]
    run = subprocess.run(
        command, env=environment | variables, capture_output=True, text=True, check=True
    )
    free = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert int(run.stdout) == (expected or int(free.stdout))


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="there is no affinity here")
def test_an_affinity_that_is_set_later(monkeypatch):
    for other in ("_quota", "_asked_for", "_blas_threads"):
        monkeypatch.setattr(threads, other, lambda: 8)
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu.max": "max 100000"}, None),
        ({"cpu.max": "200000 100000"}, 2),
        ({"cpu.max": "150000 100000"}, 2),  # the threads get three quarters each, not a half
        ({"cpu.max": "50000 100000"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ({"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}, 1),
        ({"cpu.max": "nonsense"}, None),
        ({}, None),
    ],
)
def test_the_quota_of_a_container(files, expected, tmp_path):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    assert threads._quota(tmp_path) == (expected or os.cpu_count())


def test_one_core_starts_no_thread(monkeypatch, rng):
    """Kernels and chunks of products run where they are called."""
    monkeypatch.setattr(threads, "cores", lambda: 1)
    monkeypatch.setattr(threads, "_pool", None)  # which would be called
    chain = OscillatorChain(steps=4)
    chain.solve(rng.random((50, 4)), rng.random((50, 4)))
    run_threaded(lambda item: None, range(9))


def test_threads_get_every_item_once(monkeypatch):
    for count in (1, 3):
        monkeypatch.setattr(threads, "cores", lambda n=count: n)
        seen = []
        run_threaded(seen.append, range(20))
        assert sorted(seen) == list(range(20))
        with pytest.raises(ZeroDivisionError):
            run_threaded(lambda n: 1 / n, range(3))


def test_thread_policy_is_where_scripts_have_it_from():
    from higcore.backend import thread_policy as imported

    assert imported is thread_policy
    with imported():
        assert np.ones((3, 3)).sum() == 9
