"""The figures of the paper: which runs are made, when they are made again, how they are drawn."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from bench.__main__ import main
from bench.experiments import Toy
from bench.reproduction import commands, found, sources, tables
from bench.reproduction.budgets import BUDGETS, SHORT
from bench.reproduction.claims import claims
from bench.reproduction.claims.claim import Claim, report, verdict
from bench.reproduction.claims.evidence import Evidence, Missing
from bench.reproduction.drawing import draw
from bench.reproduction.make import make
from bench.reproduction.measurements import GROWTHS, SWEEPS, Measurement
from bench.reproduction.plans import PLANS, runs_of
from bench.reproduction.runs import Training, file_of, record_of
from bench.reproduction.stopping import processes
from higcore import Adam, load_checkpoint

ALL = [number for number in PLANS if number != "levels"]
SMALL = Toy(samples=64)


def toy(**changed):
    return replace(Training(SMALL, Adam(lr=0.01), 32, 60.0, steps=4), **changed)


@dataclass(frozen=True)
class Fake:
    """A run that notes its computations in a file, and fails so many times."""

    name: str
    failures: int = 0
    start: "Fake | None" = None
    seconds: float = 1.0
    seed: int = 0
    code_now: str = "a"
    dies: bool = False

    def needs(self):
        return [self.start] if self.start else []

    def described(self):
        return {"name": self.name}

    def stem(self):
        return self.name

    def code(self):
        return self.code_now

    def compute(self, folder):
        with open(folder / "computed", "a") as log:
            log.write(f"{self.name}\n")
        count = (folder / "computed").read_text().split().count(self.name)
        if count <= self.failures and self.dies:
            os._exit(9)
        if count <= self.failures:
            raise ZeroDivisionError(f"attempt {count}")
        (folder / f"{self.name}.npz").touch()
        return {"test_loss": 1.0}


def computed(folder):
    return sorted((folder / "computed").read_text().split())


def made(runs, folder, **options):
    return make(runs, folder, **({"executor": ThreadPoolExecutor, "workers": 2} | options))


def test_what_is_there_is_not_made_again(tmp_path):
    runs = [Fake("one"), Fake("two")]
    assert made(runs, tmp_path) == {}
    assert made([*runs, Fake("three")], tmp_path) == {}
    assert computed(tmp_path) == ["one", "three", "two"]
    record = json.loads((tmp_path / "one.json").read_text())
    assert record["configuration"] == {"name": "one"}
    assert record["code"] == "a"


def test_what_other_code_computed_is_made_again(tmp_path):
    made([Fake("one"), Fake("two")], tmp_path)
    made([Fake("one", code_now="b"), Fake("two")], tmp_path)
    assert computed(tmp_path) == ["one", "one", "two"]
    assert record_of(Fake("one"), tmp_path) is None
    assert record_of(Fake("one"), tmp_path, any_code=True)["code"] == "b"
    assert record_of(Fake("two", code_now="b"), tmp_path, any_code=True)
    assert record_of(Fake("three"), tmp_path, any_code=True) is None


def test_a_damaged_file_is_made_again(tmp_path):
    made([Fake("one")], tmp_path)
    (tmp_path / "one.json").write_text("{")
    made([Fake("one")], tmp_path)
    assert computed(tmp_path) == ["one", "one"]


def test_a_failing_run_is_tried_twice_and_does_not_stop_the_others(tmp_path):
    lost, once = Fake("lost", failures=9), Fake("once", failures=1)
    after = Fake("after", start=lost)
    failed = made([lost, once, after, Fake("other")], tmp_path)
    assert failed == {
        lost: "ZeroDivisionError: attempt 2",
        after: "lost, from which it starts, failed",
    }
    assert computed(tmp_path) == ["lost", "lost", "once", "once", "other"]


def test_a_run_that_kills_its_process_does_not_take_the_others_along(tmp_path):
    lost = Fake("lost", failures=9, dies=True)
    failed = made([lost, *(Fake(str(k)) for k in range(3))], tmp_path, executor=processes)
    assert list(failed) == [lost]
    assert failed[lost].startswith("BrokenProcessPool")
    assert {path.stem for path in tmp_path.glob("*.json")} == {"0", "1", "2"}


def test_what_a_run_starts_from_is_made_first_and_only_if_it_is_needed(tmp_path):
    first = Fake("first", seconds=0.1)
    then = Fake("then", start=first, seconds=9.0)
    made([then], tmp_path)
    assert (tmp_path / "computed").read_text().split() == ["first", "then"]
    (tmp_path / "first.npz").unlink()
    made([then], tmp_path)  # it is there, so nobody needs the network
    made([replace(then, name="another")], tmp_path)
    assert computed(tmp_path) == ["another", "first", "first", "then"]


def test_a_training_run_leaves_its_record_and_network(tmp_path):
    run = toy(recorded=True)
    for left in (f"{run.stem()}-othercode.npz", f".{run.stem()}.5.partial.npz"):  # of processes
        (tmp_path / left).touch()  # that are no more
    assert made([run], tmp_path) == {}
    record = record_of(run, tmp_path)
    assert (record["steps"], record["status"], record["seed"]) == (4, "budget", 0)
    assert record["configuration"]["optimizer"] == repr(run.optimizer)
    assert len(record["recorded"]["epoch"]) == len(record["curve"]["epoch"])
    assert load_checkpoint(file_of(run, tmp_path).with_suffix(".npz")).steps == 4
    assert len(list(tmp_path.iterdir())) == 2
    assert record_of(toy(recorded=True, batch=16), tmp_path) is None


def test_a_run_starts_from_the_best_network_of_another(tmp_path):
    first = toy()
    then = toy(start=first, steps=1, optimizer=Adam(lr=1e-9))
    made([then], tmp_path)
    best = load_checkpoint(file_of(first, tmp_path).with_suffix(".npz")).best
    theta = load_checkpoint(file_of(then, tmp_path).with_suffix(".npz")).theta
    np.testing.assert_allclose(theta, best.theta, atol=1e-8)
    assert then.with_seed(3).start.seed == 3
    assert toy(start=first).stem() != toy(start=toy(batch=16)).stem()


def test_a_run_that_raises_fails_with_its_traceback(tmp_path, monkeypatch):
    def broken(self, u_bar, tape):
        raise ZeroDivisionError("no derivative")

    monkeypatch.setattr(type(SMALL.solver), "backward", broken)
    (reason,) = made([toy()], tmp_path).values()
    assert "no derivative" in reason


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Some modules of a package that `sources` reads."""
    folder = tmp_path / "sample"
    folder.mkdir()
    texts = {
        "__init__": "from .one import f\nfrom .other import h\n",
        "one": '"""D."""\nfrom .two import g\n\n\ndef f():\n    """Says."""\n    g()  # yes\n',
        "two": "def g():\n    from . import pictures\n    return '# no comment'\n",
        "other": "def h():\n    return 2\n",
        "pictures": "def draw():\n    pass\n",
        "user": "from sample import f\n",
    }
    for name, text in texts.items():
        (folder / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sources, "PACKAGES", ("sample",))
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == "sample"]:
        del sys.modules[name]
    forget()


def forget():
    for kept in vars(sources).values():
        if hasattr(kept, "cache_clear"):
            kept.cache_clear()


USER = frozenset({"sample.user"})


def test_imports_are_followed_by_name(package):
    assert sources.reached(USER) == {"sample.user", "sample.one", "sample.two"}


@pytest.mark.parametrize(
    ("name", "old", "new", "counts"),
    [
        ("one", "    g()", "    g(1)", True),
        ("two", "# no comment", "# a comment", True),  # within a string
        ("one", "# yes", "# no", False),
        ("one", "Says.", "Tells.", False),
        ("one", "\n\n\ndef", "\n\ndef", False),
        ("other", "return 2", "return 3", False),
        ("pictures", "pass", "return 1", False),
    ],
)
def test_a_fingerprint_is_of_code_that_computes(package, name, old, new, counts):
    before, path = sources.fingerprint(USER), package / f"{name}.py"
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))
    forget()
    assert (sources.fingerprint(USER) != before) == counts


def test_code_of_a_run():
    modules = sources.reached(frozenset(toy()._modules()))
    assert {"solvers.toy", "nets.mlp", "higcore.optimizers.first_order"} <= modules
    assert {"higcore.training.fit", "higcore.spectral.tridiagonal"} <= modules
    unused = {"solvers.dipole", "bench.reproduction.drawing", "higcore.examination"}
    assert not unused & modules
    assert toy().code() == toy(seed=3).code()


LONG = {"steps": 6000, "seconds": 600.0, "evaluations": 12000, "recorded": True}
SCRIPT = """
import sys
from pathlib import Path
from bench.reproduction import training
from bench.reproduction.make import make
from bench.reproduction.runs import Training
from test_reproduction import LONG, toy

class Run(Training):
    def compute(self, folder):
        training.SAVED_EVERY = 0.05
        return super().compute(folder)

if __name__ == "__main__":
    runs = [Run(**vars(run)) for run in (toy(seconds=700.0), toy(**LONG))]
    make(runs, Path(sys.argv[1]), workers=1)
"""


def started(folder):
    """A process that makes a short run and a long one, of which it has saved a part."""
    script = folder / "script.py"
    script.write_text(SCRIPT)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), "."])}
    process = subprocess.Popen(
        [sys.executable, str(script), str(folder / "runs")],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    long = toy(**LONG)
    saved = folder / "runs" / f"{long.stem()}-{long.code()}.npz"
    while not saved.exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    return process, saved


@pytest.mark.parametrize("name", ["SIGKILL", "SIGINT"])
def test_what_was_ended_goes_on_from_where_it_was(name, tmp_path):
    """Only the long run is made, from what was saved of it; no process of the first stays."""
    process, saved = started(tmp_path)
    process.send_signal(getattr(signal, name))
    _, errors = process.communicate(timeout=60)  # which waits for all that hold the pipe
    assert process.returncode
    assert "SpawnProcess" not in errors
    short, long = toy(seconds=700.0), toy(**LONG)
    before = file_of(short, saved.parent).stat().st_mtime_ns
    assert record_of(long, saved.parent) is None
    rows = load_checkpoint(saved).history.to_dict()["seconds"]
    assert len(rows) > 1
    assert made([short, long], saved.parent) == {}
    assert file_of(short, saved.parent).stat().st_mtime_ns == before
    record = record_of(long, saved.parent)
    assert record["steps"] == 6000
    assert record["curve"]["seconds"][1] == float(f"{rows[1]:.5g}")  # of the first process
    assert record["recorded"]["epoch"] == pytest.approx(record["curve"]["epoch"], rel=1e-4)
    assert not saved.exists()


def test_no_budget_of_hours_and_all_figures_in_short():
    runs = runs_of(ALL, SHORT)
    assert len(set(runs)) == len(runs)
    assert {run.seed for run in runs} == {0, 1, 2}
    assert sum(run.seconds for run in runs) / 2 < 100 * 60
    assert sum(run.seconds for run in runs_of(ALL, BUDGETS["paper"])) > 100 * sum(
        run.seconds for run in runs
    )


def test_figures_share_their_runs():
    one = replace(SHORT, seeds=1)
    count = {numbers: len(runs_of(list(numbers), one)) for numbers in ((2,), (2, 13), (13,))}
    assert count[2, 13] == count[2,] + count[13,] - 3  # HIG and Gauss-Newton, in both precisions
    assert set(runs_of([3], one)) < set(runs_of([7], one))


def test_settings_are_the_papers():
    second = {type(run.optimizer).__name__: run for run in PLANS[2](SHORT)["b)"]}
    assert second["HIG"].optimizer.tau == second["GaussNewton"].optimizer.tau == 1e-6
    assert second["GaussNewton"].optimizer.paper
    assert (second["Adam"].batch, second["Adam"].optimizer.lr) == (512, 3e-4)
    adam, hig = PLANS[3](SHORT)["c)"]
    assert (adam.optimizer.lr, hig.optimizer.lr, hig.start) == (1e-4, 0.02, adam)
    assert PLANS[7](SHORT)["b)"][2].start == hig
    assert [run.optimizer.tau for run in PLANS[13](SHORT)["GN"]][::5] == [1e-5, 1e-10]
    assert {run.recorded for run in PLANS[4](SHORT)["c)"]} == {True}


TINY = replace(SHORT, steps=2, seeds=2)


def record(run, lost=False):
    """What the file of a run could hold."""
    epochs = np.linspace(0, 4, 9)
    losses = 0.5 * 10 ** -(epochs * (1 + 0.1 * run.seed) / run.seconds)
    curve = {"step": list(range(9))} | {
        "epoch": epochs.tolist(),
        "seconds": (epochs * run.seconds / 4).tolist(),
    }
    seen = {
        "epoch": epochs.tolist(),
        "low_energy_loss": losses.tolist(),
        "high_energy_loss": losses.tolist(),
        "neuron_mean": [[0.1, 0.2]] * 9,
        "neuron_std": [[0.3, 0.1]] * 9,
        "output_path": [[float(v), 1.0] for v in losses],
        "component_error": [[float(v), 1.0] for v in losses],
    }
    losses = [None if lost and k > 4 else float(loss) for k, loss in enumerate(losses)]
    return {
        "configuration": run.described(),
        "code": run.code(),
        "status": "diverged" if lost else "budget",
        "test_loss": losses[-1],
        "curve": curve | {"test_loss": losses},
        "recorded": seen,
        "seconds_per_step": 0.01,
    }


def written(run, folder, lost=False):
    file_of(run, folder).write_text(json.dumps(record(run, lost)))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Files of all runs but for one seed of Gauss-Newton and all of RMSprop in figure 2b."""
    folder = tmp_path_factory.mktemp("runs")
    absent = {"GaussNewton": (1,), "RMSprop": (0, 1)}
    for run in runs_of(list(PLANS), TINY):
        first = run.with_seed(0) in PLANS[2](TINY)["b)"]
        if not (first and run.seed in absent.get(type(run.optimizer).__name__, ())):
            written(run, folder)
    return folder


@pytest.mark.parametrize("number", [n for n in PLANS if n != 2])
def test_every_figure_draws_all_of_its_runs(number, files):
    panels = PLANS[number](TINY)
    figure = draw(number, found.Found(panels, TINY.seeds, files))
    axes = [ax for ax in figure.axes if ax.get_xlabel().startswith(("training time", "epochs"))]
    curves = sum(len(ax.lines) for ax in axes if "loss" in ax.get_ylabel() or ax.get_title("left"))
    assert curves >= sum(
        len(runs) for panel, runs in panels.items() if panel != "a)" or number == 7
    )
    assert all(ax.get_yscale() == "log" for ax in axes if ax.get_title("left"))
    if number == 3:
        assert "log" in {ax.get_xscale() for ax in axes}


def test_a_figure_says_what_is_missing(files, tmp_path, monkeypatch):
    monkeypatch.setattr("bench.reproduction.found.Found.network", lambda self, run: None)
    lines = list(commands.drawn(2, TINY, files, tmp_path))
    assert lines[1:] == [
        "  missing: oscillators: GN, b 128, τ 1e-06, κ -1, β 0: 1 of 2 seeds",
        "  missing: oscillators: RMSprop, b 512, η 0.0001: 0 of 2 seeds",
    ]
    for end in ("png", "pdf"):
        assert (tmp_path / f"figure-2.{end}").stat().st_size > 10000
    figure = draw(2, found.Found(PLANS[2](TINY), 2, files))
    (legend,) = figure.subfigs[1].legends
    labels = [text.get_text() for text in legend.get_texts()]
    assert "RMSprop, b 512, η 0.0001 (missing)" in labels
    assert "GN, b 128, τ 1e-06 (1 of 2 seeds)" in labels
    assert "AdaptiveHIG, b 128\n(not the paper's)" in labels
    assert (
        "the network of\noscillators: HIG, b 128, η 1, τ 1e-06"
        in figure.axes[0].texts[0].get_text()
    )


def test_labels_name_what_differs(files):
    seen = found.Found(PLANS[12](TINY), 1, files)
    common, labels = seen.labels("a)")
    assert common == "HIG, b 128, η 1, τ 1e-06"
    assert list(labels.values())[1] == "β -0.25"
    assert list(seen.labels("b)")[1].values())[-1] == "GN"


def test_median_and_spread_over_seeds():
    run = toy(seconds=1.0)
    ended = [record(run.with_seed(seed)) for seed in range(3)]
    x, median, low, high = found.over_seeds(ended, "seconds")
    assert (x[0], x[-1]) == (0.0, 1.0)
    losses = [entry["curve"]["test_loss"][-1] for entry in ended]
    np.testing.assert_allclose([low[-1], median[-1], high[-1]], sorted(losses))
    shorter = record(toy(seconds=0.5))
    assert found.over_seeds([*ended, shorter], "seconds").x[-1] == 0.5
    lost = found.over_seeds([*ended[:2], record(run, lost=True)], "seconds")
    assert np.isinf(lost.high[-1])
    assert np.isfinite(lost.median).all()
    early = record(toy(seconds=0.5)) | {"status": "non-finite"}  # which ended with a finite loss
    assert np.isinf(found.over_seeds([*ended[:2], early], "seconds").high[-1])
    np.testing.assert_allclose(found.over_seeds([ended[0]], "epoch", log=True).x[[0, -1]], [0.5, 4])


def test_figure_command(tmp_path, monkeypatch):
    """The second time nothing is trained."""
    monkeypatch.setitem(BUDGETS, "short", TINY)
    monkeypatch.setattr("bench.reproduction.executors.processes", ThreadPoolExecutor)
    arguments = ["figure", "1", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path)]
    run = CliRunner().invoke(main, [*arguments, "--seeds", "1", "--workers", "1"])
    assert run.exit_code == 0, run.output
    assert (tmp_path / "figure-1.pdf").exists()
    assert "missing" not in run.output
    monkeypatch.setattr(Training, "compute", None)
    again = CliRunner().invoke(main, [*arguments, "--seeds", "1"])
    assert again.exit_code == 0
    assert "runs |" not in again.output
    monkeypatch.setattr(Training, "code", lambda run: "other")
    for options, words in (((), "Failed twice"), (("--no-runs",), "Figure 1")):
        later = CliRunner().invoke(main, [*arguments, "--seeds", "1", *options])
        assert words in later.output
        assert ("missing: toy" in later.output) is not bool(options)
    monkeypatch.undo()
    monkeypatch.setitem(BUDGETS, "short", TINY)
    monkeypatch.setattr("bench.reproduction.executors.processes", ThreadPoolExecutor)
    monkeypatch.setattr(Training, "compute", None)
    more = CliRunner().invoke(main, [*arguments, "--seeds", "2"])
    assert more.exit_code == 1
    assert "Failed twice: toy-adam-seed1-" in more.output
    assert "missing: toy: HIG, b 256, η 1, τ 1e-06, κ -0.5, β 0: 1 of 2 seeds" in more.output


def test_each_method_is_steepest_in_its_own_norm_alone():
    for name, shares in tables.steepest(200).items():
        for norm in tables.NORMS:
            if norm == tables.OWN[name]:
                assert shares[norm] == pytest.approx(1, abs=1e-6)
            else:
                assert shares[norm] < 0.95
        assert shares["random"] < 1


def test_tables(tmp_path, monkeypatch):
    ours = {"median": 0.5, "peak_memory_mb": 30.0, "memory_before_mb": 20.0}

    def raced(name, batch, labels, *_, **options):
        return {label: ours | ({"failed": "no memory"} if batch == 16 else {}) for label in labels}

    monkeypatch.setattr("bench.reproduction.measurements.race.run", raced)
    monkeypatch.setattr(Measurement, "_jacobian_seconds", lambda self: 0.25)
    monkeypatch.setattr(Measurement, "_dense_seconds", lambda self: 0.125)
    monkeypatch.setitem(SWEEPS, "rows", (lambda *_: {1: {"s": 1.0}, 10: {"s": 100.0}}, (), "s"))
    monkeypatch.setitem(SWEEPS, "parameters", (None, (), "s"))  # fails
    monkeypatch.setattr(commands, "processes", ThreadPoolExecutor)
    arguments = ["--runs", str(tmp_path), "--out", str(tmp_path)]
    run = CliRunner().invoke(main, ["table", "all", *arguments])
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in run.output.splitlines()]
    assert ["b", "512", "512", "512", "128", "128", "512", "512"] in rows
    assert [
        "hig",
        "64",
        "3560",
        "10",
        "10",
        "13.8",
        "0.5",
        "0.5",
        "0.0035",
        "0.25",
        "0.125",
    ] in rows
    assert ["adam", "64", "1.3", "10", "-", "0.011", "0.5", "-", "0.01", "0.25", "-"] in rows
    (failed,) = (row for row in rows if row[:3] == ["hig", "16", "5039"])
    assert failed[3:5] == ["missing", "missing"]
    assert "Failed twice: step-dipole-hig-b16" in run.output
    assert run.exit_code == 1
    grown = "Seconds of a step of ours grow as rows^2.00 (1: 1 s, 10: 100 s)."
    assert (tmp_path / "table-3.md").read_text().endswith(f"\n\n{grown}\n")
    assert "Growth" not in (tmp_path / "table-4.md").read_text()
    evidence = Evidence(TINY, tmp_path)
    np.testing.assert_allclose(evidence.exponent(GROWTHS["rows"]), [2])
    with pytest.raises(Missing, match="growth-parameters-"):
        evidence.exponent(GROWTHS["parameters"])


def test_one_page_of_what_is_there(tmp_path):
    """It holds its pictures, obeys no HTML of the files, and names what is missing."""
    (tmp_path / "REPRODUCTION.md").write_text("# Claims\n\n1 held.\n\n| <i>a</i> |\n|--|\n| 2 |\n")
    (tmp_path / "table-1.md").write_text("| c |\n|---|\n| 1e-6 |\n")
    (tmp_path / "figure-3.png").write_bytes(b"picture")
    (tmp_path / "paper").mkdir()
    about = {"machine": {"processor": "P", "cores": 2}, "versions": {"numpy": "2"}}
    for k, date in enumerate(("2026-01-02", "2026-01-01")):
        (tmp_path / "paper" / f"{k}.json").write_text(json.dumps(about | {"date": date}))
    run = CliRunner().invoke(main, ["report", str(tmp_path), "--out", str(tmp_path / "out")])
    assert run.exit_code == 0, run.output
    text = (tmp_path / "out" / "report.html").read_text()
    assert "<p>1 held.</p>" in text
    assert "&lt;i&gt;a&lt;/i&gt;" in text
    assert '<div class="wide"><table>\n<thead>\n<tr>\n<th>c</th>' in text
    assert "data:image/png;base64,cGljdHVyZQ==" in text
    assert text.count("There is no figure-") == 12
    assert text.count("There is no table-") == 4
    assert "<td>2</td><td>P, 2 cores</td><td>numpy 2</td><td>2026-01-01 to 2026-01-02</td>" in text
    for asks in ("<script", "http://", "https://", 'src="/'):
        assert asks not in text
    anchors = re.findall(r'<(?:h2|h3) id="([^"]+)"', text)
    assert len(set(anchors)) == len(anchors)
    assert set(re.findall(r'href="#([^"]+)"', text)) == set(anchors)


def test_every_claim_is_judged_by_runs_of_the_figures(files, tmp_path, monkeypatch):
    planned, seen = set(runs_of([*PLANS], replace(TINY, seeds=1))), set()
    honest = Evidence.records

    def noted(self, run):
        seen.add(run)
        return honest(self, run)

    monkeypatch.setattr(Evidence, "records", noted)
    monkeypatch.setitem(BUDGETS, "short", TINY)
    run = CliRunner().invoke(main, ["claims", "--runs", str(files), "--out", str(tmp_path)])
    assert run.exit_code == 0, run.output
    assert seen <= planned
    assert len({type(each.experiment).__name__ for each in seen}) == 4
    text = (tmp_path / "REPRODUCTION.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ")][1:]
    assert len(rows) == len(claims(TINY)) >= 22
    assert sum("no runs: oscillators-" in row for row in rows) >= 5  # those of Gauss-Newton


def test_verdicts():
    """Held with every seed, under a condition, or not; never without a run."""

    def found(values, otherwise=None):
        measures = [
            None if v is None else (lambda e, v=v: np.array(v)) for v in (values, otherwise)
        ]
        claim = Claim("1", "a", "b", "c", measures[0], 1.0, "if so", measures[1])
        return verdict(claim, None)[0]

    assert found([0.5, 1.0, 0.1]) == "held"
    assert found([0.5, 9.0, 0.1]) == "held under a condition: with 2 of 3 seeds"
    assert found([2.0, 2.0, 0.1]) == "not held"
    assert found([2.0, 2.0, 0.1], [0.1, 1.0, 0.1]) == "held under a condition: if so"
    assert found([2.0, 2.0, 0.1], [0.1, 1.0, 1.1]) == "not held"
    assert found([np.nan, np.nan, np.nan]) == "not held"
    assert found([np.inf, np.inf]) == "not held"


def test_numbers_of_the_evidence(tmp_path):
    """Against a run whose loss halves in every second, and of which one seed failed."""
    run = toy()
    for seed in (0, 1):
        one = run.with_seed(seed)
        curve = {
            "epoch": [0.0, 2.0, 4.0],
            "step": [0, 10, 20],
            "seconds": [0.0, 1.0, 2.0],
            "test_loss": [0.8, 0.4, None if seed else 0.2],
        }
        seen = {
            "neuron_std": [[0.5, 0.6], [0.3, 0.2]],
            "component_error": [[1.0, 2.0], [0.5, 0.5]],
            "low_energy_loss": [0.5, 0.1, 0.4],
            "high_energy_loss": [0.5, 0.4, 0.1],
        }
        written(one, tmp_path)
        saved = json.loads(file_of(one, tmp_path).read_text())
        saved |= {"curve": curve, "recorded": seen, "test_loss": curve["test_loss"][-1]}
        saved |= {"status": "diverged" if seed else "budget", "seconds_per_step": 0.1}
        file_of(one, tmp_path).write_text(json.dumps(saved))
    evidence = Evidence(replace(TINY, seeds=2), tmp_path)
    expected = {
        "first": [0.8, 0.8],
        "last": [0.2, np.inf],
        "lowest": [0.2, 0.4],
        "reduced": [0.25, np.inf],
        "unstable": [0, 1],
        "smallest_deviation": [0.2, 0.2],
        "rise_of_low_energy": [0.25, 0.25],
        "imbalance": [4.0, 4.0],
        "step_seconds": [0.1, 0.1],
    }
    for name, values in expected.items():
        np.testing.assert_allclose(getattr(evidence, name)(run), values, err_msg=name)
    np.testing.assert_allclose(evidence.component_error(run, 1), [0.25, 0.25])
    np.testing.assert_allclose(evidence.after_steps(run, 10), [0.4, 0.4])
    np.testing.assert_allclose(evidence.after_equal_steps([run, run]), [[0.2, np.inf]] * 2)
    np.testing.assert_allclose(evidence.share_of_time_to(run, [0.4, 0.1]), [0.5, np.inf])
    np.testing.assert_allclose(evidence.share_between(run, 0.3, 0.5), [0.5, 0.5])
    np.testing.assert_allclose(evidence.share_between(run, 0.5, 0.9), [0, 0])
    np.testing.assert_allclose(evidence.early(run, 0.25), [0.8 / 2**0.5] * 2)
    np.testing.assert_allclose(evidence.at_step_of(run, run), [0.2, np.inf])
    np.testing.assert_allclose(evidence.best([run, run]), [0.2, np.inf])
    np.testing.assert_allclose(evidence.kept_slope(run)[0], 3)  # straight in time, not in its log
    text = report(TINY, evidence, [Claim("1", "a", "b", "c", lambda e: e.last(run), 0.3)])
    assert "1 not held." in text
    assert "| inf (0.2 to inf) |" in text
