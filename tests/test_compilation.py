"""Compiled code is of the source and the values that there are now, wherever it can be kept."""

import enum
import importlib
import logging
import os
import subprocess
import sys
import types
from collections import namedtuple
from pathlib import Path

import numba
import numpy as np
import pytest

from higcore.compilation import store
from higcore.compilation.readings import Sources, content
from higcore.kernels import RangeKernel, uncompiled

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = """
import numpy as np
from higcore.kernels import RangeKernel
{imports}

def body(lo, hi, x, y):
    for i in range(lo, hi):
        y[i] = x[i] * {value}

y = np.zeros(1)
RangeKernel(body)(1, np.ones(1), y)
print(y[0])
"""
PLACES = {  # how a body reads a constant that stands in planet.py as GRAVITY = {}
    "a name": ("from planet import GRAVITY", "GRAVITY", "GRAVITY = {}"),
    "an attribute": ("import planet", "planet.GRAVITY", "GRAVITY = {}"),
    "a tuple": ("from planet import G", "G[1]", "G = (0.0, {})"),
    "an array": ("from planet import G", "G[1]", "import numpy as np\nG = np.array([0.0, {}])"),
    "a named tuple": (
        "from planet import G", "G.g",
        "from collections import namedtuple\nG = namedtuple('Planet', 'g')({})",
    ),
    "a helper's name": (
        "from planet import helper", "helper()",
        "from numba.extending import register_jitable\nfrom constants import G\n"
        "@register_jitable\ndef helper():\n    return G\n",
    ),
    "a default": (
        "from planet import helper", "helper()",
        "from numba.extending import register_jitable\nimport constants\n"
        "@register_jitable\ndef helper(g=constants.G):\n    return g\n",
    ),
    "a closure": (
        "from planet import helper", "helper()",
        "from numba.extending import register_jitable\nimport constants\n"
        "def make(g):\n    @register_jitable\n    def helper():\n        return g\n"
        "    return helper\nhelper = make(constants.G)\n",
    ),
    "what njit made": (
        "from planet import helper", "helper()",
        "import numba, constants\n@numba.njit\ndef helper():\n    return constants.G\n",
    ),
}  # fmt: skip


def run(program, folder, **environment):
    """What a program prints, run from a file in a folder."""
    (folder / "program.py").write_text(program)
    return run_python(["program.py"], folder, **environment)


def run_python(arguments, folder, given=None, **environment):
    environment = {
        "PYTHONPATH": f"{ROOT}{os.pathsep}{folder}", "PATH": os.environ["PATH"],
        "HOME": str(folder), "NUMBA_CACHE_DIR": str(folder / "cache"), **environment,
    }  # fmt: skip
    result = subprocess.run(
        [sys.executable, "-B", *arguments], input=given, cwd=folder, env=environment,
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return result.stdout + result.stderr


def edit(folder, planet, g):
    """Write the files in which the constant stands."""
    (folder / "constants.py").write_text(f"G = {g}\n")
    (folder / "planet.py").write_text(planet.format(g))


@pytest.mark.parametrize("place", ["a name", "a helper's name"])
def test_a_constant_that_is_edited_elsewhere(place, tmp_path):
    imports, value, planet = PLACES[place]
    program = PROGRAM.format(imports=imports, value=value)
    for g in (9.81, 1.62, 9.81):
        edit(tmp_path, planet, g)
        assert run(program, tmp_path) == f"{g}\n"
    kept = [p.name for p in (tmp_path / "cache").rglob("body-*")]
    assert len(kept) == 2  # the third run found the first one's


@pytest.mark.parametrize("place", PLACES)
def test_wherever_a_constant_stands(place, tmp_path, monkeypatch):
    imports, value, planet = PLACES[place]
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    fingerprints = []
    for g in (9.81, 1.62, 9.81):
        edit(tmp_path, planet, g)
        importlib.invalidate_caches()
        for name in ("planet", "constants"):
            sys.modules.pop(name, None)
        exec(PROGRAM.format(imports=imports, value=value), scope := {})
        assert scope["y"][0] == g
        fingerprints.append(Sources(scope["body"]).fingerprint())
    assert fingerprints[0] == fingerprints[2] != fingerprints[1]
    for name in ("planet", "constants"):
        sys.modules.pop(name, None)


def kernel_of(**scope):
    """A kernel y = x * value, the globals of whose body are ``scope``."""

    def body(lo, hi, x, y):
        for i in range(lo, hi):
            y[i] = x[i] * value  # noqa: F821

    return RangeKernel(types.FunctionType(body.__code__, scope, "body"))


def times(kernel):
    """By how much a kernel multiplies."""
    y = np.zeros(1)
    kernel(1, np.ones(1), y)
    return y[0]


@pytest.mark.parametrize(("before", "after"), [(2.0, 3.0), (True, False), (2.0, 2)])
def test_a_constant_that_changes_after_compilation(before, after):
    kernel = kernel_of(value=before)
    assert times(kernel) == before
    kernel.body.__globals__["value"] = after
    with pytest.raises(ValueError, match=rf"value was {before} when body was compiled and is"):
        times(kernel)
    kernel.body.__globals__["value"] = before
    assert times(kernel) == before


def test_a_container_that_changes_after_compilation():
    table = np.array([2.0, 3.0])

    def body(lo, hi, x, y):
        for i in range(lo, hi):
            y[i] = x[i] * table[1]

    kernel = RangeKernel(body)
    assert times(kernel) == 3.0
    table[1] = 4.0
    with pytest.raises(ValueError, match="table was"):
        times(kernel)


HELD = 2.0


@numba.extending.register_jitable
def held():
    return HELD


def test_a_helper_that_was_compiled_with_another_value(monkeypatch):
    """Numba compiles it once, also for the kernels that are made later."""

    def first(lo, hi, x, y):
        for i in range(lo, hi):
            y[i] = x[i] * held()

    def second(lo, hi, x, y):
        for i in range(lo, hi):
            y[i] = x[i] * held() + 0.0

    assert times(RangeKernel(first)) == 2.0
    monkeypatch.setattr(sys.modules[__name__], "HELD", 5.0)
    with pytest.raises(ValueError, match=r"HELD was 2.0 when held was compiled and is 5.0 now"):
        times(RangeKernel(second))


@pytest.mark.parametrize("how", ["standard input", "a cell"])
def test_a_kernel_without_a_file(how, tmp_path):
    program = PROGRAM.format(imports="", value="3.0")
    if how == "a cell":  # as IPython does it
        program = f"exec(compile({program!r}, '<ipython-input-1>', 'exec'), {{}})"
    for _ in range(2):
        assert run_python(["-"], tmp_path, given=program) == "3.0\n"
    assert len(list((tmp_path / "cache").rglob("body-*"))) == 1


SUMS = """
import numpy as np
from higcore.kernels import lazy_njit

@lazy_njit(sums_in_any_order=True)
def total(x):
    s = 0.0
    for i in range(len(x)):
        s += x[i]
    return s

print(total(np.ones(5)))
"""


def test_every_process_finds_what_another_one_kept(tmp_path):
    """Also where a set of options is listed in another order, as it is with these two seeds."""
    for seed in ("1", "2"):
        assert run(SUMS, tmp_path, PYTHONHASHSEED=seed) == "5.0\n"
    assert len(list((tmp_path / "cache").rglob("total-*"))) == 1


Planet = namedtuple("Planet", "g")


class Kind(enum.Enum):
    A = 1.0
    B = 2.0


@pytest.mark.parametrize(
    ("value", "other"),
    [
        (1, 1.0), (1, True), (0.0, -0.0), (float("nan"), None), ("a", b"a"), ((1, 2), (2, 1)),
        ((1, (2, 3)), (1, 2, 3)), ([1], (1,)), ({"a": 1}, {"a": 2}), ({1, 2}, {1, 3}),
        (Planet(1), (1,)), (Kind.A, Kind.B), (np.float32(1), np.float64(1)),
        (np.zeros(2), np.zeros(2, np.float32)), (np.zeros((2, 2)), np.zeros(4)),
        (np.ones((2, 2)), np.ones((2, 2), order="F")), (np.sin, np.cos), (float, int),
        (np.dtype("f4"), np.dtype("f8")), (3j, 3.0),
    ],
)  # fmt: skip
def test_content_tells_values_apart(value, other):
    assert content(value) != content(other)
    assert content(value) is not None


def test_what_has_no_content_is_compiled_in_every_process(caplog):
    def body(lo, hi, x, y):
        for i in range(lo, hi):
            y[i] = x[i]
        if False:
            thing  # noqa: B018, F821

    known = types.FunctionType(body.__code__, {"thing": 1}, "body")
    unknown = types.FunctionType(body.__code__, {"thing": object()}, "body")
    assert Sources(known).fingerprint() is not None
    assert content((1, object())) is None
    assert Sources(unknown).fingerprint() is None
    with caplog.at_level(logging.INFO, "higcore"):
        dispatcher = store.compile_kept(unknown, Sources(unknown), "body")
    assert dispatcher.stats.cache_path is None
    assert caplog.messages == ["body is compiled anew in every process"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A place of its own for compiled code."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(store, "_told", set())
    return tmp_path


def test_nowhere_to_write(folder, monkeypatch, caplog):
    """A read-only installation without a home: it compiles, and says once what that costs."""

    def read_only(*args, **options):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("numba.core.caching.tempfile.TemporaryFile", read_only)
    with caplog.at_level(logging.WARNING, "higcore"):
        assert [times(kernel_of(value=v)) for v in (2.0, 3.0)] == [2.0, 3.0]
    assert len(caplog.messages) == 1
    assert "Set NUMBA_CACHE_DIR" in caplog.messages[0]


def test_a_disk_that_is_full(folder, monkeypatch, caplog):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with caplog.at_level(logging.WARNING, "higcore"):
        assert [times(kernel_of(value=v)) for v in (2.0, 3.0)] == [2.0, 3.0]
    assert len(caplog.messages) == 1


def damaged(data):
    """Ways in which a file may be wrong."""
    yield b""
    yield data[: len(data) // 2]
    yield data[:-1]
    yield data[:100] + b"\0" + data[101:]
    yield data.partition(b"\n")[2]
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 1
    yield bytes(flipped)


def test_a_damaged_file_is_compiled_anew(folder):
    assert times(kernel_of(value=2.0)) == 2.0
    (path,) = folder.rglob("body-*")
    whole = path.read_bytes()
    for data in damaged(whole):
        path.write_bytes(data)
        assert times(kernel_of(value=2.0)) == 2.0
        seal, _, code = path.read_bytes().partition(b"\n")
        assert store.hashlib.sha256(code).hexdigest().encode() == seal  # mended


def test_code_of_another_kind_is_not_run(folder):
    """A file that is whole and holds something else, such as one of another version."""
    assert times(kernel_of(value=2.0)) == 2.0
    (path,) = folder.rglob("body-*")
    code = store.pickle.dumps(("what", "is", "this"))
    path.write_bytes(store.hashlib.sha256(code).hexdigest().encode() + b"\n" + code)
    assert times(kernel_of(value=2.0)) == 2.0


def test_old_files_go(folder, monkeypatch):
    monkeypatch.setattr(store, "KEPT", 3)
    for value in range(6):
        assert times(kernel_of(value=float(value))) == value
    assert len(list(folder.rglob("body-*"))) == 3


def test_kernels_run_as_the_python_that_defines_them():
    kernel = kernel_of(value=2.0)
    with uncompiled() as met:
        assert times(kernel) == 2.0
    assert met == {"body"}
    assert kernel._compiled is None


FORKS = """
import os, signal, sys, threading, time
import numpy as np
from higcore.kernels import RangeKernel

TEXT = '''
def body(lo, hi, x, y):
    for i in range(lo, hi):
        y[i] = x[i] * {}
'''

def compile_one(value):
    scope = {}
    exec(TEXT.format(value), scope)
    y = np.zeros(20)
    RangeKernel(scope["body"])(20, np.ones(20), y)
    assert y[3] == value

compile_one(1.0)
ended = threading.Event()

def compile_many():
    value = 2.0
    while not ended.is_set():
        compile_one(value)
        value += 1.0

thread = threading.Thread(target=compile_many)
thread.start()
children = []
for k in range(8):
    time.sleep(0.05)
    if (child := os.fork()) == 0:
        signal.alarm(60)
        compile_one(-1.0 - k)
        os._exit(0)
    children.append(child)
statuses = [os.waitpid(child, 0)[1] for child in children]
ended.set()
thread.join()
print(statuses)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_fork_while_another_thread_compiles(tmp_path):
    assert run(FORKS, tmp_path).splitlines()[0] == str([0] * 8)


def test_no_lock_is_shared_by_all_objects_of_a_class():
    """`functools.cached_property` has one up to Python 3.11: a child would wait for it."""
    for package in ("higcore", "nets", "solvers"):
        for path in (ROOT / package).rglob("*.py"):
            assert "@functools.cached_property" not in path.read_text(), path
