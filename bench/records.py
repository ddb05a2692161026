"""What a run leaves behind: plain JSON, written aside and renamed."""

from __future__ import annotations

import dataclasses
import datetime
import json
import math
import platform
import resource
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from higcore.device.threads import cores
from higcore.training.files import replacing
from higcore.training.table import spread

CURVE_POINTS = 150  # a curve in a file is thinned to about this many rows


def write_json(path, record):
    """Write ``record`` to ``path``: complete or not at all."""
    text = json.dumps(finite(record), allow_nan=False) + "\n"
    with replacing(path, len(text)) as partial:
        partial.write_text(text)


def earlier(path, name, about):
    """Return what a file holds under a name, {} if there is no file.

    Its runs go on only with runs of the same kind: all that ``about`` says of them is in the file.
    """
    if not path.exists():
        return {}
    saved = json.loads(path.read_text())
    for key, value in about.items():
        if saved[key] != value:
            raise ValueError(
                f"{path} holds runs with {key} {saved[key]}, these have {value}; choose another "
                "--out, or remove it"
            )
    return saved[name]


def finite(value):
    """``value`` with None in place of NaN and infinities, which JSON does not know."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def environment(*packages):
    """Machine, versions, those of ``packages`` too, date and the command, without any path."""
    return {
        "command": " ".join(["python -m bench", *map(_without_folder, sys.argv[1:])]),
        "machine": {"processor": _processor(), "cores": cores()},
        "versions": {"python": platform.python_version()}
        | versions("higcore", "numpy", "scipy", "numba", "threadpoolctl", *packages),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
    }


def versions(*packages):
    """The installed versions of packages, as far as they are."""
    found = {package: _version(package) for package in packages}
    return {package: number for package, number in found.items() if number}


def _without_folder(argument):
    """A path outside the working directory is nobody's business: keep its last part."""
    return Path(argument).name if Path(argument).is_absolute() else argument


def _version(package):
    try:
        return version(package)
    except PackageNotFoundError:
        return "source tree" if package == "higcore" else None


def _processor():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.partition(":")[2].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        name = platform.processor()
    return f"{name} ({platform.machine()})"


def peak_memory_mb():
    """Largest resident memory of this process so far, in MB (1e6 bytes)."""
    try:  # getrusage would count the process that started this one, too
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1.024e-3 * next(float(line.split()[1]) for line in lines if "VmHWM" in line)
    except (OSError, StopIteration):
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def summary(problem, setting, result, seed, device):
    """The figures of a run, as ``--json`` prints them."""
    optimizer = setting.optimizer
    return {
        "problem": problem.name,
        "optimizer": type(optimizer).__name__,
        "settings": dataclasses.asdict(optimizer),
        "batch": setting.batch,
        "parameters": problem.network.size,
        "steps": result.steps,
        "epochs": result.epochs,
        "seconds": result.seconds,
        "test_loss": result.test_loss,
        "best_test_loss": result.best_test_loss,
        "status": result.status,
        "message": result.message,
        "seconds_per_step": result.seconds_per_step,
        "first_step_seconds": result.first_step_seconds,
        "peak_memory_mb": round(peak_memory_mb(), 1),
        "device": device,
        "seed": seed,
    }


def curve(result):
    """Columns of the history, thinned evenly in log(epoch) and always with both ends."""
    names = ("epoch", "step", "seconds", "train_loss", "test_loss")
    return thin({n: [short(getattr(row, n)) for row in result.history] for n in names})


def thin(columns):
    """Keep about `CURVE_POINTS` rows of columns of equal length, evenly in the log of the row."""
    keep = spread(range(len(next(iter(columns.values())))), CURVE_POINTS)
    return {name: [column[k] for k in keep] for name, column in columns.items()}


def short(value):
    """A float to five digits, None if it is not finite; anything else as it is."""
    return finite(float(f"{value:.5g}")) if isinstance(value, float) else value
