"""Memory does not grow with the number of updates."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="resident memory is read from Linux's /proc"
)


def run_python(*arguments):
    """In a process of its own: in one that freed a lot before, new memory is not seen."""
    path = os.pathsep.join(map(str, [ROOT, ROOT / "tests"]))
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
    )


def test_a_run_does_not_grow():
    """A tenth of what ``python tests/memory_growth.py`` does."""
    done = run_python("tests/memory_growth.py", "--updates", "1000")
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(re.findall(r"1000 updates, (?:19|2\d) readings", done.stdout)) == 4


LEAK = """
import sys
import memory_growth
import numpy as np
from higcore import Adam

class Hoarding(Adam):
    kept = []

    def update(self, linearisation, state):
        self.kept.append(np.ones(5000))  # 40 kB
        return super().update(linearisation, state)

memory_growth.RUNS = {"hoarding": (memory_growth.CHAIN, Hoarding())}
sys.exit(memory_growth.main())
"""


def test_a_leak_is_seen():
    done = run_python("-c", LEAK, "--updates", "1000")
    assert done.returncode == 1, done.stdout + done.stderr
    assert float(re.search(r"grown by \+(\d+\.\d+)%", done.stdout)[1]) > 5
