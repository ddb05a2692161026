"""Every lesson runs from its first to its last line, draws, and opens as a notebook."""

import ast
import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from bench import lessons
from higcore import HIG, Adam, Batch, Problem, check_solver, fit
from higcore.losses import SquaredError
from nets import Network
from nets.layers import Dense
from solvers import Solver

LESSONS = sorted(Path(lessons.__file__).parent.glob("lesson*.py"))
MARK = re.compile(r"^# %%.*$", re.MULTILINE)  # begins a cell

each_lesson = pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)


@each_lesson
def test_lesson_runs_and_draws(path, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [str(path), str(tmp_path)])
    runpy.run_path(str(path), run_name="__main__")
    assert capsys.readouterr().out
    drawn = list(tmp_path.iterdir())
    assert drawn
    for picture in drawn:
        pixels = imread(picture)[..., :3]
        assert min(pixels.shape[:2]) >= 300
        ink = np.mean(pixels.min(axis=2) < 0.9)
        assert 0.01 < ink < 0.99
        assert picture.stat().st_size < 100_000
        assert (lessons.RESULTS / picture.name).exists()


@each_lesson
def test_lesson_opens_as_a_notebook(path):
    header, *found = MARK.split(path.read_text())
    lines = header.split("\n")
    assert lines[0] == "# ---"
    assert lines[-3:] == ["# ---", "", ""]  # one empty line more would be a cell
    assert all(line.startswith("#") for line in lines[:-2])
    assert "#       format_name: percent" in lines
    is_text = ["[markdown]" in mark for mark in MARK.findall(path.read_text())]
    assert is_text[0]
    assert found[0].strip().startswith("# # ")  # a title
    assert not all(is_text)
    for text, cell in zip(is_text, found, strict=True):
        assert cell.strip()
        if text:
            assert all(line.startswith("#") for line in cell.strip().split("\n"))
        else:
            assert ast.parse(cell).body


def test_pictures_go_where_they_are_sent(tmp_path, monkeypatch):
    assert lessons.folder([str(tmp_path)]) == tmp_path
    for arguments in ([], ["-f", "kernel.json"], ["--f=kernel.json"]):
        assert lessons.folder(arguments) == lessons.RESULTS
    monkeypatch.setattr(sys, "argv", ["lesson", str(tmp_path / "new")])
    picture = lessons.show(Figure(figsize=(2, 1)), "empty.png")
    assert picture.path == tmp_path / "new" / "empty.png"
    assert picture._repr_png_().startswith(b"\x89PNG")


class EverySecond(Solver):
    """y is every second number of u, returned as a view or as a copy."""

    state_size, control_size, output_size = 1, 6, 3

    def __init__(self, view):
        self.view = view

    def solve(self, x, u):
        return u[:, ::2] if self.view else u[:, ::2].copy()

    def adjoint(self, x, u, y_bar):
        u_bar = np.zeros_like(u)
        u_bar[:, ::2] = y_bar
        return u_bar


@pytest.mark.parametrize("optimizer", [HIG(), Adam()])
def test_what_a_solver_returns_may_be_a_view_of_the_control(optimizer, rng):
    network = Network([Dense(2, 6, "tanh", start=0)])  # its derivative reads u again
    data = Batch(*(rng.random((32, n)) for n in (1, 2, 3)))
    thetas = []
    for view in (True, False):
        solver = EverySecond(view)
        assert check_solver(solver, show=False)
        problem = Problem(network, solver, SquaredError(), data, data)
        thetas.append(fit(problem, optimizer, batch=8, epochs=3).theta)
    assert np.array_equal(*thetas)
