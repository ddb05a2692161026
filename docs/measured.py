"""The files in bench/results, and how numbers in them are written."""

import json
import sys
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
sys.path.insert(0, str(ROOT))

from bench.paper.tables import loss_after  # noqa: E402

CHOICES = {"oscillators": "choices-oscillators-16epochs", "dipole": "choices-dipole-10epochs"}


def load(name):
    """The content of bench/results/NAME.json."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def verdicts():
    """How many of the paper's claims are held: the second paragraph of REPRODUCTION.md."""
    return (RESULTS / "REPRODUCTION.md").read_text().split("\n\n")[2]


def short(number, digits=2):
    """A number as the tables show it, 3.1e-5, 2.7 or 4.4e1; None as failed."""
    if number is None:
        return "failed"
    mantissa, exponent = f"{number:.{digits - 1}e}".split("e")
    return mantissa if int(exponent) == 0 else f"{mantissa}e{int(exponent)}"


def seconds(number):
    """Seconds to three digits, or milliseconds."""
    return f"{number:.3g} s" if number >= 1 else f"{1e3 * number:.3g} ms"


def runs(name, optimizer):
    """The runs of an optimizer, one a seed."""
    return list(load(name)["runs"][optimizer].values())


def loss(name, optimizer, *, after=None):
    """Median over seeds of the test loss at the end, or after some training seconds."""
    found = [
        run["test_loss"] if after is None else loss_after(run["curve"], after)
        for run in runs(name, optimizer)
    ]
    if after is not None and None in found:
        raise KeyError(f"{name}: a run of {optimizer} is shorter than {after} s")
    return short(None if None in found else median(found))


def losses(name, optimizer, times):
    """`loss` after each of some times, 1 / 2 / 3."""
    return " / ".join(loss(name, optimizer, after=time) for time in times)


def at_epoch(run, epoch):
    """The test loss of a run at an epoch of its curve."""
    return run["curve"]["test_loss"][run["curve"]["epoch"].index(epoch)]


def chosen(problem, parameter, value):
    """Median test loss over the seeds of a setting; None where most of them failed."""
    by_seed = load(CHOICES[problem])["choices"][parameter][value].values()
    ended = [run["test_loss"] if run["status"] == "budget" else float("inf") for run in by_seed]
    return None if median(ended) == float("inf") else median(ended)
