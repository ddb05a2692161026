"""The model of what a step costs on many ranks."""

import json

import pytest
from click.testing import CliRunner

from bench.__main__ import main
from bench.speed import scale
from bench.speed.scale import Costs, Link

STAGES = {"network": 1.0, "sweep": 4.0, "Gram": 2.0, "decomposition": 3.0, "update": 0.5}
COSTS = Costs(
    samples=12, outputs=4, parameters=1000, factors=50, stages=STAGES, product=0.1, rate=1e9
)
INSTANT = Link(float("inf"), 0.0)


def test_on_one_rank_a_step_takes_what_was_measured():
    found = scale.by_matrix(COSTS, 12, 1, Link(), 1)
    assert found == STAGES | {"exchange": 0.0}


def test_what_is_shared_is_divided_and_the_rest_is_not():
    found = scale.by_matrix(COSTS, 12, 3, INSTANT, 3)
    shared = {"network": 1 / 3, "sweep": 4 / 3, "Gram": 2 / 3}
    assert found == pytest.approx(STAGES | shared | {"exchange": 0.0})


def test_the_rank_with_the_most_samples_is_waited_for():
    """Of 12 samples five ranks have 2 or 3."""
    assert scale.by_matrix(COSTS, 12, 5, INSTANT, 5)["sweep"] == pytest.approx(4 * 3 / 12)


def test_ranks_beside_one_another_on_a_core_take_turns():
    found = scale.by_matrix(COSTS, 12, 4, INSTANT, 2)
    assert found["sweep"] == pytest.approx(4 / 2)
    assert found["decomposition"] == pytest.approx(3 * 2)


def test_larger_batches():
    """K grows as the square, its decomposition as the cube, at the rate of a large one."""
    found = scale.by_matrix(COSTS, 24, 1, INSTANT, 1)
    assert found["sweep"] == 8
    assert found["Gram"] == 8
    assert found["decomposition"] == pytest.approx(4 / 3 * 96**3 / 1e9)


def test_what_is_exchanged():
    link = Link(bandwidth=8e3, latency=0.0)  # a thousand numbers a second
    m, factors = 48, 12 * 50
    expected = (m + m * m / 2 + factors) / 1e3 / 2  # each of two has a half of it
    assert scale.by_matrix(COSTS, 12, 2, link, 2)["exchange"] == pytest.approx(expected)
    each = (m + 2 * 1000) / 1e3 / 2
    assert scale.by_products(COSTS, 12, 2, link, 2, 7)["exchange"] == pytest.approx(7 * each)
    assert Link(1.0, 0.5).gathered(0, 8) == 1.5


def test_products_share_all_but_the_basis():
    found = scale.by_products(COSTS, 24, 4, INSTANT, 4, 10)
    assert found["products"] == pytest.approx(10 * 0.1 * 2 / 4)
    assert found["basis"] == pytest.approx(4 * 96 * 100 / 1e9)
    memory = scale.gigabytes(COSTS, 24, 10)
    assert memory == pytest.approx({"K": 8e-9 * (96**2 + 1200), "products": 8e-9 * 960})


def test_command(tmp_path, monkeypatch):
    monkeypatch.setattr(scale, "measured_costs", lambda name, batch: COSTS)
    monkeypatch.setattr(scale, "step_on_ranks", lambda name, batch, ranks: 10.0 / ranks)
    run = CliRunner().invoke(main, ["scale", "--ranks", "2", "--out", str(tmp_path)])
    assert run.exit_code == 0, run.output
    found = json.loads((tmp_path / "scale.json").read_text())
    assert found["link"] == {"bandwidth": 1e9, "latency": 2e-6}
    assert found["checked"]["dipole"]["2"]["measured"] == 5.0
    assert set(found["read"]["oscillators"]["1000000"]["K"]) == {
        "1",
        "4",
        "16",
        "64",
        "256",
        "1024",
    }
    assert "decomposition, 100 %" in run.output
    assert (tmp_path / "scale.png").stat().st_size > 10000


def test_no_mpiexec(monkeypatch):
    monkeypatch.setattr(scale.sys, "executable", "/nowhere/python")
    monkeypatch.setattr(scale.shutil, "which", lambda name: None)
    with pytest.raises(ValueError, match="there is no mpiexec; pip install mpich"):
        scale.step_on_ranks("toy", 8, 2)


def test_a_step_on_ranks():
    pytest.importorskip("mpi4py")
    try:
        seconds = scale.step_on_ranks("toy", 64, 2, steps=3)
    except ValueError:
        pytest.skip("no mpiexec")
    assert 0 < seconds < 10
