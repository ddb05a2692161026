"""`bench gpu` on the stand-in for CuPy and small sizes: every part runs and finds its figures."""

import json
from pathlib import Path

import numpy as np
import pytest
import strict_cupy
from click.testing import CliRunner

import bench.__main__ as command_line
from bench.__main__ import main
from bench.experiments import EXPERIMENTS
from bench.speed import gpu, peers, profile, race
from higcore.device.gpu import choose_device


@pytest.fixture
def small(monkeypatch):
    """Small sizes on the stand-in, whose peers run on the host."""
    monkeypatch.setattr(gpu, "BATCHES", {"toy": (16,), "oscillators": (8,)})
    monkeypatch.setattr(gpu.steps, "__defaults__", (gpu.BATCHES, 2))
    monkeypatch.setattr(gpu.ceilings, "__defaults__", (64,))
    monkeypatch.setattr(gpu.agreement, "__defaults__", (("toy", "oscillators"), 1e-2))
    monkeypatch.setattr(gpu.rivals, "__defaults__", (("toy",),))
    monkeypatch.setattr(gpu.crossovers, "__defaults__", ((16, 32),))
    monkeypatch.setattr(gpu.sweep, "__defaults__", (16,))
    monkeypatch.setattr(gpu.batches, "__defaults__", ((1, 2),))
    monkeypatch.setattr(gpu, "device_name", lambda: "stand-in")
    monkeypatch.setattr(gpu, "driver_version", lambda: (13, 0))
    monkeypatch.setattr(command_line, "choose_device", lambda device: ("gpu", "stand-in"))
    with strict_cupy.installed(monkeypatch) as cupy:
        yield cupy


def test_all_parts(small, tmp_path, monkeypatch):
    raced = []

    def on_the_host(name, batch, labels, say, device):
        """A race in processes of their own, which know no stand-in."""
        raced.append((name, batch, labels, device))
        labels = ["higcore", "higcore cpu", "numpy float32 svd"]
        return honest(name, batch, labels, say, train_steps=0, device="cpu")

    honest = race.run
    monkeypatch.setattr(race, "run", on_the_host)
    monkeypatch.setattr(race, "ROUNDS", 1)
    with strict_cupy.memory():
        run = CliRunner().invoke(main, ["gpu", "--out", str(tmp_path)])
    assert run.exit_code == 0, run.output
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert set(gpu.PARTS) < set(found)
    assert not any("failed" in found[part] for part in gpu.PARTS), found
    assert list(found["steps"]) == ["toy b 16", "oscillators b 8"]
    row = found["steps"]["oscillators b 8"]
    stages = [row[stage] for stage in profile.STAGES]
    assert min(stages) > 0
    assert row["step"] < 5 * sum(stages)
    assert row["peak MB"] > 0
    assert row["of product rate"] > 0
    assert max(e for rows in found["agreement"].values() for e in rows.values()) < 1e-10
    assert raced[0][:2] == ("toy", 16)
    assert raced[0][2][:2] == ["higcore", "higcore cpu"]
    assert raced[0][3] == "gpu"
    assert found["rivals"]["toy"]["higcore cpu"]["times_higcore"] > 0
    assert list(found["crossovers"]["half cut"]) == ["gram", "tridiagonal", "band"]
    assert found["sweep"]["sweep"]["bytes"] == 8 * 16 * (97 * 4 + 96 + 4 * 96)
    assert list(found["batches"]) == ["64", "128"]
    for part in gpu.PARTS:
        assert part in run.output
    assert "stand-in" in run.output


def test_a_part_that_fails_does_not_lose_the_others(small, tmp_path, monkeypatch):
    def broken(say):
        raise RuntimeError("CUDA error 719")

    monkeypatch.setitem(gpu.PARTS, "sweep", broken)
    run = CliRunner().invoke(main, ["gpu", "--parts", "sweep,agreement", "--out", str(tmp_path)])
    assert run.exit_code == 0, run.output
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert found["sweep"] == {"failed": "RuntimeError: CUDA error 719"}
    assert "toy" in found["agreement"]
    assert "sweep: failed, RuntimeError: CUDA error 719" in run.output


def test_rivals_on_a_gpu():
    labels = list(peers.GPU_PEERS)
    assert labels[:2] == ["cupy float64 svd", "cupy float64 eigh"]
    assert "jax float64 eigh" in labels
    assert "torch float64 svd" in labels
    assert not any("float32" in label for label in labels)


@pytest.mark.parametrize("how", ["svd", "eigh"])
def test_the_dense_rival_takes_the_same_step(how, monkeypatch):
    from bench.experiments import Toy
    from bench.speed.contestants import make_step, relative_error

    with strict_cupy.installed(monkeypatch) as cupy:
        problem = Toy(samples=32).problem().on("gpu")
        theta = cupy.asarray(problem.network.init(np.random.default_rng(0)))
        batch = problem.batch(0, 32)
        ours, theirs = (
            make_step(label, problem, {"tau": 1e-4}, "gpu")(theta, batch)
            for label in ("higcore", f"cupy float64 {how}")
        )
        assert float(abs(ours - theirs).max()) < 1e-8 * float(abs(ours).max())
    assert relative_error(None, Path("nowhere")) is None


def test_without_a_gpu_it_says_why(tmp_path):
    if choose_device("auto")[0] == "gpu":
        pytest.skip("there is one")
    run = CliRunner().invoke(main, ["gpu", "--out", str(tmp_path)])
    assert run.exit_code == 2
    assert "device 'gpu' cannot be used: no NVIDIA driver was found" in run.output
    assert not (tmp_path / "gpu.json").exists()
    run = CliRunner().invoke(main, ["gpu", "--parts", "steps,weather"])
    assert "--parts must be among" in run.output


@pytest.mark.parametrize("problem", [*EXPERIMENTS])
def test_train_on_a_device_leaves_the_files_of_a_run(problem, tmp_path, monkeypatch):
    """Start, resume from the checkpoint, pictures: all of it with arrays on the device."""
    monkeypatch.setattr(command_line, "choose_device", lambda device: ("gpu", "stand-in"))
    command = ["train", problem, "--optimizer", "adam", "--out", str(tmp_path), "--json"]
    with strict_cupy.installed(monkeypatch):
        first = CliRunner().invoke(main, [*command, "--steps", "2"])
        assert first.exit_code == 0, first.output
        saved = str(tmp_path / f"{problem}-adam-seed0.npz")
        second = CliRunner().invoke(main, [*command, "--steps", "3", "--resume", saved])
        assert second.exit_code == 0, second.output
    record = json.loads(second.output.splitlines()[-1])
    assert record["steps"] == 3
    assert record["device"] == "gpu"
    assert "on the gpu (stand-in)" in first.output
    found = {path.suffix for path in tmp_path.iterdir()}
    assert found == {".npz", ".json", ".png"}
