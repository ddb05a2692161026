"""Runs that a pool on other processes makes: ``python side_by_side.py FOLDER KIND [SCHEDULER]``.

Prints what failed, as JSON. Of the runs one raises, and one ends its process the first time.
"""

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from bench.reproduction.executors import place
from bench.reproduction.make import make


@dataclass(frozen=True)
class Sleepless:
    """A run that writes which process it ran in."""

    name: str
    raises: bool = False
    dies: bool = False
    seconds: float = 1.0
    seed: int = 0

    def needs(self):
        return []

    def described(self):
        return {"name": self.name}

    def stem(self):
        return self.name

    def code(self):
        return "a"

    def compute(self, folder):
        if self.raises:
            raise ZeroDivisionError("as it should")
        if self.dies and not (folder / "died").exists():
            (folder / "died").touch()
            os._exit(9)
        return {"process": os.getpid()}


def main(folder, kind, scheduler=None):
    runs = [Sleepless(f"run-{k}") for k in range(6)]
    runs.append(Sleepless("raises", raises=True))
    if kind != "mpi":  # where a rank's death is that of all
        runs.append(Sleepless("dies", dies=True))
    found = place(kind, scheduler)
    failed = make(runs, Path(folder), *found)
    here = os.getpid()
    print(json.dumps({"failed": {run.name: why for run, why in failed.items()}, "here": here,
                      "workers": found.workers}))  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:])
