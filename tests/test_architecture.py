"""Arrows between modules point down, there is no circle, and the top of the library is short."""

import ast
import graphlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {"higcore": set(), "nets": {"higcore"}, "solvers": {"higcore"}}
PACKAGES["bench"] = {"higcore", "nets", "solvers"}
# Rooms of higcore from the ground up; a module imports from its own room and those before it.
ROOMS = [
    ("version", "validation"),
    ("device.threads", "device.gpu", "device.memory"),
    ("backend", "compilation"),
    ("kernels", "device.cuda_kernels", "sharing.ranks"),
    ("spectral", "losses"),
    ("rows",),
    ("protocols",),
    ("linearisation",),
    ("model", "sharing.model"),
    ("half_inverse", "problem", "examination"),
    ("optimizers",),
    ("training",),
]
MOST_AT_THE_TOP = 12


def modules():
    """``{name: path}`` of all modules of the four packages."""
    found = {}
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = path
    return found


def imports(name, path, known):
    """The modules that a module imports: anywhere in it, in functions and for types, too."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) + 1 - node.level]
            base = ".".join([*(above if node.level else []), *filter(None, [node.module])])
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield from {inner if inner in known else base} & known.keys()


MODULES = modules()
GRAPH = {name: set(imports(name, path, MODULES)) for name, path in MODULES.items()}


def test_the_graph_is_seen():
    assert "higcore.validation" in GRAPH["higcore.backend"]
    assert "higcore.device.gpu" in GRAPH["higcore.backend"]  # in a function
    assert "bench.experiments.pictures" in GRAPH["bench.experiments.toy"]
    assert len(MODULES) > 80


def test_there_is_no_circle():
    graphlib.TopologicalSorter(GRAPH).prepare()


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_what_is_below_them(package):
    own = {name: used for name, used in GRAPH.items() if name.partition(".")[0] == package}
    used = {name.partition(".")[0] for names in own.values() for name in names}
    assert used - {package} <= PACKAGES[package]


def rank(name):
    """The number of the room that a module of higcore is in."""
    inner = name.removeprefix("higcore.")
    for number, room in enumerate(ROOMS):
        if any(inner == place or inner.startswith(f"{place}.") for place in room):
            return number
    raise AssertionError(f"{name} is in no room")


def test_rooms_import_what_is_below_them():
    library = {name: used for name, used in GRAPH.items() if name.startswith("higcore.")}
    up = [
        f"{name} -> {other}"
        for name, used in library.items()
        for other in used - {"higcore", "higcore.device"}
        if name != "higcore.device" and rank(other) > rank(name)
    ]
    assert up == []


def test_the_top_of_the_library_is_short():
    assert len(list((ROOT / "higcore").glob("*.py"))) <= MOST_AT_THE_TOP
