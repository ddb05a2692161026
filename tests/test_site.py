"""The pages of the site and the README: complete, linked, and with the figures of bench/results."""

import importlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCS, README = ROOT / "docs", (ROOT / "README.md").read_text()
PAGES = {
    path.relative_to(DOCS).with_suffix("").as_posix(): path.read_text()
    for path in DOCS.rglob("*.md")
    if "_build" not in path.parts
}
REFERENCE = "\n".join(text for name, text in PAGES.items() if name.startswith("reference/"))
ROOMS = ("higcore", "nets", "solvers")
MODULES = ("losses", "backend", "kernels", "validation", "protocols")
PLACEHOLDER = re.compile(r"\{\{ (\w+) \}\}")


@pytest.fixture
def documents(monkeypatch):
    """Import a module of docs."""
    monkeypatch.syspath_prepend(DOCS)
    return importlib.import_module


def described(directive):
    return re.findall(rf"^\.\. auto{directive}:: (\S+)$", REFERENCE, re.MULTILINE)


def test_the_reference_has_every_public_name():
    public = {f"{room}.{n}" for room in ROOMS for n in importlib.import_module(room).__all__}
    named = [name for kind in ("class", "function", "exception") for name in described(kind)]
    assert len(named) == len(set(named))
    unnamed = {"higcore.rows.OuterProductRows", "higcore.spectral.ridge.Ridged"}
    assert set(named) - public == unnamed
    assert public <= set(named)


@pytest.mark.parametrize("name", MODULES)
def test_the_reference_has_every_public_module(name):
    """With all that is defined in it and has a docstring, as autodoc wants it."""
    assert described("module").count(f"higcore.{name}") == 1
    module = importlib.import_module(f"higcore.{name}")
    own = [v for v in vars(module).values() if getattr(v, "__module__", "") == module.__name__]
    assert all(v.__doc__ for v in own if not v.__name__.startswith("_"))


def toctree(name):
    """Pages that a page lists, with their folder."""
    entries = re.findall(r"^```\{toctree\}\n(.*?)^```$", PAGES[name], re.MULTILINE | re.DOTALL)
    lines = [line for block in entries for line in block.split() if not line.startswith(":")]
    return [(Path(name).parent / line).as_posix() for line in lines]


def test_every_page_is_in_one_toctree():
    listed = [page for name in PAGES for page in toctree(name)]
    assert sorted(set(PAGES) - set(listed)) == ["index"]
    assert len(listed) == len(set(listed))


def test_pages_use_every_figure_and_no_other(documents):
    tables, numbers = documents("figures"), documents("sentences")
    known = {*tables.substitutions(), *numbers.substitutions()}
    assert {name for text in PAGES.values() for name in PLACEHOLDER.findall(text)} == known


def test_links_of_the_readme_lead_to_files():
    for file in ("README.md", "CONTRIBUTING.md"):
        links = re.findall(r"\]\(([^)#]+)[^)]*\)", (ROOT / file).read_text())
        assert len(links) > 3
        assert not [link for link in links if not (ROOT / link).is_file()]


def test_the_readme_is_short_and_its_program_runs(tmp_path):
    assert README.count("\n") <= 165
    (program,) = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    assert program.count("seconds=10") == 1
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", program.replace("seconds=10", "seconds=1")],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("Stopped because the budget of 1 seconds was spent.")


def test_the_readme_has_the_figures_of_the_files(documents):
    readme = documents("readme")
    assert readme.rewritten(README) == README
    assert readme.table() in README


def spoil(path, keys):
    """Take the last of some nested keys out of a JSON file."""
    content = inner = json.loads(path.read_text())
    for key in keys[:-1]:
        inner = inner[key]
    del inner[keys[-1]]
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("file", "keys"),
    [
        ("dipole-180s", ("runs", "adam")),
        ("oscillators-300s", ("runs", "hig", "1", "curve")),
        ("speed-rivals", ("rivals", "dipole", "torch float64 eigh", "times_higcore")),
        ("speed-own", ("relative_error_of_step_dipole", "qr", "tau 1e-10")),
        ("speed-sweeps", ("slopes", "memory beside K against batch")),
        ("choices-dipole-10epochs", ("choices", "kappa")),
        ("contest-oscillators", ("peers", "adam", "seeds")),
        ("study-toy", None),
        ("linear-chain-4epochs", None),
        ("diagnostics/oscillators-gn-seed0", None),
    ],
)
def test_a_figure_that_is_not_there_ends_the_build(documents, monkeypatch, tmp_path, file, keys):
    measured, tables = documents("measured"), documents("figures")
    numbers, folder = documents("sentences"), tmp_path / "results"
    shutil.copytree(measured.RESULTS, folder, ignore=shutil.ignore_patterns("*.png"))
    monkeypatch.setattr(measured, "RESULTS", folder)
    assert tables.substitutions()
    path = folder / f"{file}.json"
    if keys:
        spoil(path, keys)
    else:
        path.unlink()
    with pytest.raises((KeyError, FileNotFoundError)):
        tables.substitutions() | numbers.substitutions()


def test_a_run_that_is_shorter_than_its_column_ends_the_build(documents, monkeypatch):
    measured = documents("measured")
    with pytest.raises(KeyError, match="shorter than 999 s"):
        measured.loss("oscillators-300s", "hig", after=999)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("y (b, |y|)", r"y (b, \|y\|)"),
        ("``a | b`` and |u|", r"``a | b`` and \|u\|"),
        (">>> a | b", ">>> a | b"),
    ],
)
def test_bars_of_a_docstring_are_no_substitutions(documents, line, expected):
    assert list(documents("docstrings").escaped([line])) == [expected]


def test_bars_of_a_formula_stay(documents):
    lines = [".. math::", "", "    |J d|", "", "with |u|"]
    expected = [*lines[:-1], r"with \|u\|"]
    assert list(documents("docstrings").escaped(lines)) == expected


def test_the_reference_knows_which_lessons_use_a_name(documents):
    users = documents("docstrings").users()
    assert "/lessons/lesson1_the_update_by_hand" in users["higcore.half_inverse"]
    assert users["nets.layers.Dense"] == {"/your-own-physics": "Your own physics"}
