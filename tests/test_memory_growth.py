"""Memory does not grow with the number of updates."""

import os
import re
import subprocess
import sys
from pathlib import Path

import memory_growth
import numpy as np
import pytest

from higcore import Adam

ROOT = Path(__file__).resolve().parent.parent

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="resident memory is read from Linux's /proc"
)


def test_a_run_does_not_grow():
    """A tenth of what ``python tests/memory_growth.py`` does."""
    command = [sys.executable, "tests/memory_growth.py", "--updates", "1000"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(re.findall(r"1000 updates, (?:19|2\d) readings", done.stdout)) == 4


class Hoarding(Adam):
    """Adam that keeps something of every update."""

    kept = []  # noqa: RUF012

    def update(self, linearisation, state):
        self.kept.append(np.ones(5000))  # 40 kB
        return super().update(linearisation, state)


def test_a_leak_is_seen():
    try:
        sizes = memory_growth.readings(memory_growth.CHAIN, Hoarding(), 1000)
        assert memory_growth.growth(sizes) > 2 * memory_growth.BOUND
    finally:
        Hoarding.kept.clear()
