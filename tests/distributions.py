"""Does what users install work: ``python tests/distributions.py [pythons | lowest]``; minutes.

``pythons`` builds sdist and wheel (the wheel from the sdist), and for every Python of `PYTHONS`
that is found makes an environment, installs the wheel there, and trains for a few steps outside of
the tree; for one that is not found it asks whether wheels of all dependencies exist for it.
``lowest`` runs the tests with the oldest versions that pyproject.toml allows. Not part of the test
run: needs the network.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
SMOKE = """
import numpy as np
from higcore import HIG, Batch, Problem, fit
from higcore.losses import SquaredError
from nets import MLP
from solvers import OscillatorChain, Poisson2D, QuantumDipole
x = np.random.default_rng(0).random((32, 4))
problem = Problem(
    MLP((4, 8, 12)), OscillatorChain(steps=12), SquaredError(), Batch(x, x, x), Batch(x, x, x)
)
result = fit(problem, HIG(), batch=8, steps=20)
assert result.test_loss < 0.5 * result.history[0].test_loss, result
QuantumDipole().jacobian(QuantumDipole().eigenstate(1)[None], np.zeros((1, 384)))
print(result)
"""


def run(*command, cwd=ROOT):
    """Run a command; its output only if it fails."""
    done = subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout


def environment(folder, python=sys.executable):
    """A new environment; its interpreter."""
    run(python, "-m", "venv", folder)
    return folder / "bin" / "python"


def interpreter(version):
    """A Python of a version on this machine, or None."""
    candidates = [shutil.which(f"python{version}")]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates += sorted(pyenv.glob(f"{version}*/bin/python"))
    for path in filter(None, candidates):
        asked = subprocess.run([path, "--version"], capture_output=True, text=True)
        if asked.stdout.startswith(f"Python {version}."):
            return path
    return None


def pythons(folder):
    """Build, and try the wheel on every Python."""
    builder = environment(folder / "builder")
    run(builder, "-m", "pip", "install", "-q", "build")
    run(builder, "-m", "build", "--outdir", folder, ROOT)  # the wheel from the sdist
    (wheel,) = folder.glob("*.whl")
    (sdist,) = folder.glob("*.tar.gz")
    print(f"built {sdist.name} and {wheel.name}", flush=True)
    for version in PYTHONS:
        found = interpreter(version)
        print(f"Python {version}:", try_out(version, found, wheel, folder), flush=True)


def try_out(version, found, wheel, folder):
    """What became of a wheel on one Python."""
    if found is None:
        wanted = ("--python-version", version, "--only-binary", ":all:", "--dry-run", "--target")
        run(sys.executable, "-m", "pip", "install", "-q", *wanted, folder / "none", wheel)
        return "not on this machine; wheels of all dependencies exist for it"
    python = environment(folder / version, found)
    run(python, "-m", "pip", "install", "-q", wheel)
    return run(python, "-c", SMOKE, cwd=folder).strip()


def lower_bounds():
    """``name==version`` of every dependency of the base install and the extras bench and test."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["bench"], *extras["test"]]
    pairs = [re.fullmatch(r"([\w-]+)>=([\d.]+)", line) for line in wanted]
    return [f"{name}=={version}" for name, version in (p.groups() for p in pairs if p)]


def lowest(folder):
    """The tests with the oldest supported versions."""
    python = environment(folder / "lowest", interpreter(PYTHONS[0]))
    print(" ".join(lower_bounds()), flush=True)
    run(python, "-m", "pip", "install", "-q", *lower_bounds())
    run(python, "-m", "pip", "install", "-q", "--no-deps", "-e", ROOT)
    # Old versions of one package use what newer versions of another call deprecated.
    quiet = ("-W", "ignore::DeprecationWarning")
    print(run(python, "-m", "pytest", "-q", "-n", "2", *quiet).strip().splitlines()[-1])


if __name__ == "__main__":
    parts = {"pythons": pythons, "lowest": lowest}
    for name in sys.argv[1:] or parts:
        with tempfile.TemporaryDirectory() as temporary:
            parts[name](Path(temporary))
