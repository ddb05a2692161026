"""Array modules, devices and the light import."""

import math
import subprocess
import sys
import types

import numpy as np
import pytest
import threadpoolctl

from higcore import backend


def test_numpy_arrays_are_numpys():
    assert backend.array_module(a=np.zeros(2), b=np.zeros(3)) is np
    array = np.zeros(2)
    assert backend.to_device(array, "cpu") is array


def test_a_list_is_refused_by_name():
    with pytest.raises(TypeError, match="theta must be a NumPy or CuPy array, got list"):
        backend.array_module(theta=[1.0])


def test_a_mixture_is_refused_by_both_names(monkeypatch):
    fake = type("ndarray", (), {"__module__": "cupy", "shape": (2,)})
    monkeypatch.setitem(sys.modules, "cupy", types.ModuleType("cupy"))
    with pytest.raises(TypeError, match="theta is a numpy array but x is a cupy array"):
        backend.array_module(theta=np.zeros(2), x=fake())


def test_the_policy_gives_numpys_blas_one_thread_and_puts_it_back():
    def threads():
        return {
            c["filepath"]: c["num_threads"]
            for c in threadpoolctl.threadpool_info()
            if "numpy.libs" in c["filepath"]
        }

    before = threads()
    with backend.thread_policy():
        assert set(threads().values()) <= {1}
    assert threads() == before


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({"/proc/meminfo": "MemTotal: 9 kB\nMemAvailable:  5 kB\n"}, 5 * 1024),
        ({"/proc/meminfo": "MemTotal: 9 kB\n"}, math.inf),  # an old kernel
        ({}, math.inf),  # another system
        ({"/sys/fs/cgroup/memory.max": "700", "/sys/fs/cgroup/memory.current": "300"}, 400),
        ({"/sys/fs/cgroup/memory.max": "max", "/sys/fs/cgroup/memory.current": "3"}, math.inf),
    ],
)
def test_free_memory_is_that_of_machine_and_container(files, free, monkeypatch):
    class FakePath:
        def __init__(self, name):
            self.name = name

        def read_text(self):
            if self.name not in files:
                raise FileNotFoundError(self.name)
            return files[self.name]

    monkeypatch.setattr("higcore.device.memory.Path", FakePath)
    assert backend.available_memory(np.zeros(1)) == free


def test_import_is_light():
    script = (
        "import sys, higcore; heavy = {'numba', 'cupy', 'matplotlib', 'tqdm', 'click'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
