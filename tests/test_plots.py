"""`Result.plot`: what is drawn, what is saved, and what is said without matplotlib."""

import dataclasses
import math
import sys

import numpy as np
import pytest

from bench.experiments import Oscillators
from higcore import HIG, Adam, fit
from higcore.training import plots
from higcore.training.result import Epoch, History
from solvers import OscillatorChain

SMALL = Oscillators(OscillatorChain(steps=6, dt=0.5), (5,), "tanh", 24, 8, "chain")


@pytest.fixture(scope="module")
def run():
    return fit(SMALL.problem(), HIG(), batch=8, epochs=3, diagnostics=True)


def drawn(ax):
    return {line.get_label(): line for line in ax.lines}


def test_losses_against_seconds_and_steps(run):
    figure = dataclasses.replace(run, diagnostics=type(run.diagnostics)()).plot()
    seconds, steps = figure.axes
    columns = run.history.to_dict()
    for ax, key in ((seconds, "seconds"), (steps, "step")):
        lines = drawn(ax)
        assert set(lines) == {"train loss", "test loss"}
        assert list(lines["test loss"].get_xdata()) == columns[key]
        assert (lines["test loss"].get_ydata() == columns["test_loss"]).all()
        assert np.isnan(lines["train loss"].get_ydata()[0])
        assert ax.get_yscale() == "log"
    assert figure.get_suptitle() == "chain, HIG, batch 8"


def test_diagnostics_are_drawn_below(run):
    figure = run.plot()
    assert len(figure.axes) == 2 + len(plots.PANELS)
    rows = run.diagnostics.to_dict()
    panels = dict(zip(plots.PANELS, figure.axes[2:], strict=True))
    assert (panels["step_norm"].lines[0].get_ydata() == rows["step_norm"]).all()
    expected = np.clip([row.ratio for row in run.diagnostics], -1, 3)
    assert panels["ratio"].lines[0].get_ydata() == pytest.approx(expected)


def test_a_loss_of_other_data_is_drawn_too():
    columns = {"seconds": [0.0, 1.0], "step": [0, 4], "train_loss": [None, 2.0]}
    columns |= {"test_loss": [3.0, 1.0], "validation_loss": [3.0, None]}
    figure = plots.new_figure(4, 3)
    plots.draw_losses(figure, columns)
    assert set(drawn(figure.axes[0])) == {"train loss", "test loss", "validation loss"}
    assert len({line.get_linestyle() for line in figure.axes[0].lines}) == 3


@pytest.mark.parametrize(
    ("losses", "scale"),
    [((-1.0, -2.0), "linear"), ((2.0, 0.0), "linear"), ((2.0, math.nan), "log")],
)
def test_losses_that_have_no_logarithm(run, losses, scale):
    rows = [Epoch(float(k), k, float(k), None, loss) for k, loss in enumerate(losses)]
    figure = dataclasses.replace(run, history=History(rows)).plot()
    assert figure.axes[0].get_yscale() == scale


def test_a_run_without_a_row_or_a_name(run, tmp_path):
    empty = dataclasses.replace(run, history=History(), identity={})
    empty.plot(tmp_path / "empty.png")
    assert empty.plot().get_suptitle() == "a run, batch 8"


@pytest.mark.parametrize("name", ["run.png", "new/run.PDF", "run.svg"])
def test_the_picture_is_saved_where_it_is_asked_for(run, name, tmp_path):
    run.plot(tmp_path / name)
    assert (tmp_path / name).stat().st_size > 1000
    assert [file.name for file in (tmp_path / name).parent.glob("*un*")] == [(tmp_path / name).name]


@pytest.mark.parametrize("name", ["run", "run.xyz", "run.npz"])
def test_a_kind_that_is_none(run, name, tmp_path):
    with pytest.raises(ValueError, match=r"path must end in a kind of picture, such as \.png"):
        run.plot(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_without_matplotlib_it_says_what_to_install(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"plot needs matplotlib: pip install 'higcore\[plot\]'"):
        run.plot()


def test_figures_that_an_optimizer_has_not_are_left_out():
    run = fit(SMALL.problem(), Adam(), batch=8, steps=4, diagnostics=True)
    condition = run.plot().axes[4]
    assert np.isnan(condition.lines[0].get_ydata()).all()
