"""Every public function says its types, and mypy refuses what they forbid."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_compiled_march import LOOPS

from higcore.compilation.readings import Sources
from higcore.kernels import RangeKernel
from solvers import dipole, oscillators

ROOT = Path(__file__).parent.parent
PACKAGES = ("higcore", "nets", "solvers")
# What is behind `check_solver` and `check_network`, of which only `CheckReport` is handed out.
BEHIND = (
    "diagnosis", "differences", "differentiable", "examination", "loss", "network", "solver",
    "stepper",
)  # fmt: skip
INTERNAL = {f"higcore/examination/{name}.py" for name in BEHIND}
FILES = sorted(str(p.relative_to(ROOT)) for name in PACKAGES for p in (ROOT / name).rglob("*.py"))
KERNELS = [k for m in (oscillators, dipole) for k in vars(m).values() if isinstance(k, RangeKernel)]
KERNELS += [k for loop in LOOPS.values() for k in (loop.compiled.march, loop.compiled.sweep)]
# What Numba compiles: its arguments have Numba's types.
COMPILED = {function.__name__ for kernel in KERNELS for function in Sources(kernel.body).functions}
MISUSES = Path("tests/misuses.py")


def gaps(source: str) -> list[str]:
    """Names, with a dot, of the parameters and returns of public functions without a type."""
    return [gap for function in _public(ast.parse(source)) for gap in _gaps(*function)]


def _public(scope, path: str = "") -> Iterator[tuple[str, ast.FunctionDef]]:
    """Path and definition of functions at the top level and of methods of public classes."""
    for node in scope.body:
        name = getattr(node, "name", "_")
        if name.startswith("_") and not re.fullmatch("__.*__", name):
            continue
        if isinstance(node, ast.ClassDef):
            yield from _public(node, f"{path}{name}.")
        elif node.name not in COMPILED or path:
            yield f"{path}{name}", node


def _gaps(path: str, function: ast.FunctionDef) -> Iterator[str]:
    given = function.args
    every = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
    first = (
        1 if "." in path and "staticmethod" not in map(ast.unparse, function.decorator_list) else 0
    )
    for argument in every[first:]:
        if argument is not None and argument.annotation is None:
            yield f"{path}.{argument.arg}"
    if function.returns is None:
        yield f"{path}.return"


@pytest.mark.parametrize("file", [file for file in FILES if file not in INTERNAL])
def test_public_functions_say_their_types(file):
    assert gaps((ROOT / file).read_text()) == []


def test_internal_files_are_there():
    assert set(FILES) >= INTERNAL


def test_gaps_are_found():
    source = """
def half(a, b: int, *c, d=1, **e) -> int: ...
def whole(a: int) -> None: ...
def _private(a): ...
def acceleration(width, physics, q, u, a): ...
class Public:
    x: int
    def __init__(self, a): ...
    @property
    def value(self): ...
    @staticmethod
    def make(a) -> int: ...
    def _private(self, a): ...
class _Private:
    def method(self, a): ...
"""
    assert gaps(source) == [
        "half.a", "half.d", "half.c", "half.e",
        "Public.__init__.a", "Public.__init__.return", "Public.value.return", "Public.make.a",
    ]  # fmt: skip


def test_mypy_refuses_wrong_uses_and_no_others():
    pytest.importorskip("mypy")
    lines = (ROOT / MISUSES).read_text().splitlines()
    marks = {k: re.search(r"  # ([a-z-]+)$", line) for k, line in enumerate(lines, start=1)}
    expected = Counter((k, mark[1]) for k, mark in marks.items() if mark)
    run = subprocess.run(
        [sys.executable, "-m", "mypy", str(MISUSES)], cwd=ROOT, capture_output=True, text=True
    )
    found = re.findall(r"^(.+):(\d+): error: .* \[(.+)\]$", run.stdout, re.MULTILINE)
    assert {file for file, _, _ in found} == {str(MISUSES)}, run.stdout + run.stderr
    assert Counter((int(line), code) for _, line, code in found) == expected, run.stdout
