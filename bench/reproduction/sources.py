"""Which source files decide what a run computes, and a fingerprint of what is in them.

Imports are followed name by name, also through what an ``__init__`` hands on, so that another
solver or a page of examinations can change without a run being made again. Comments and docstrings
do not count. The versions of NumPy and its like stand in a run's file, and do not count either.
"""

from __future__ import annotations

import ast
import hashlib
import io
import tokenize
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec, resolve_name
from pathlib import Path

PACKAGES = ("higcore", "nets", "solvers", "bench")
DRAWING = ("pictures", "plots", "style")  # modules that compute nothing


@cache
def fingerprint(modules: frozenset[str]) -> str:
    """SHA-256 of the code of some modules and of all that they import from `PACKAGES`."""
    parts = (f"{name}\n{_code(_file(name))}" for name in sorted(reached(modules)))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


@cache
def reached(modules: frozenset[str]) -> frozenset[str]:
    """Names of the modules, and of those that they import, one after the other."""
    found, left = set(), list(modules)
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            left += _imported(name)
    return frozenset(found)


@cache
def _imported(module: str) -> list[str]:
    nodes = ast.walk(_tree(module))
    names = [name for node in nodes for name in _modules_of(node, _package(module))]
    return [name for name in names if name.rpartition(".")[2] not in DRAWING]


def _modules_of(node: ast.AST, package: str) -> Iterator[str]:
    """The modules that an import statement in a package takes its names from."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if _ours(alias.name))
    if isinstance(node, ast.ImportFrom):
        source = resolve_name("." * node.level + (node.module or ""), package)
        if _ours(source):
            yield from (_origin(source, alias.name) for alias in node.names)


def _ours(module: str) -> bool:
    return module.partition(".")[0] in PACKAGES


def _origin(source: str, name: str) -> str:
    """The module that ``from source import name`` takes a name from in the end."""
    if _is_package(source):
        if find_spec(f"{source}.{name}"):
            return f"{source}.{name}"
        for node in _tree(source).body:
            if isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    if (alias.asname or alias.name) == name:
                        where = resolve_name("." * node.level + (node.module or ""), source)
                        return _origin(where, alias.name) if _ours(where) else source
    return source


def _is_package(module: str) -> bool:
    return _file(module).name == "__init__.py"


def _package(module: str) -> str:
    return module if _is_package(module) else module.rpartition(".")[0]


@cache
def _file(module: str) -> Path:
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise ValueError(f"there is no source of the module {module}")
    return Path(spec.origin)


@cache
def _tree(module: str) -> ast.Module:
    return ast.parse(_file(module).read_bytes())


@cache
def _code(path: Path) -> str:
    """The lines of a file without comments, docstrings and what is empty then."""
    text = path.read_text()
    lines = text.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    for first, last in _docstrings(ast.parse(text)):
        lines[first - 1 : last] = [""] * (last - first + 1)
    return "\n".join(line.rstrip() for line in lines if line.strip())


def _docstrings(tree: ast.Module) -> Iterator[tuple[int, int]]:
    """First and last line of each docstring; whatever else stands on them goes, too."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and node.body:
            first = node.body[0]
            value = getattr(first, "value", None) if isinstance(first, ast.Expr) else None
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                yield first.lineno, first.end_lineno or first.lineno
