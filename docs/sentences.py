"""Measured figures that stand in sentences of the pages; those in tables are in figures.py."""

import sys
from statistics import median

from measured import CHOICES, ROOT, at_epoch, chosen, load, runs, short

sys.path.insert(0, str(ROOT / "tests"))

import bad_input
import mutations


def measured():
    """When, where and with which versions steps were raced."""
    found = load("speed-rivals")
    known = {name: number for name, number in found["versions"].items() if name != "higcore"}
    names = ", ".join(f"{name} {number}" for name, number in known.items())
    cores, processor = found["machine"]["cores"], found["machine"]["processor"]
    return {"measured": f"{found['date']}, {cores} cores of an {processor}, {names}"}


def growth():
    """Slopes in log-log."""
    slopes = load("speed-sweeps")["slopes"]
    names = {
        "slope_step": "step against parameters",
        "slope_oscillators": "solver sweep of oscillators against batch",
        "slope_dipole": "solver sweep of dipole against batch",
        "slope_memory": "memory beside K against batch",
    }
    return {name: f"{slopes[key]:.2f}" for name, key in names.items()}


def floors():
    """How often its arithmetic a step takes."""
    stages = load("speed-profile")["stages"]

    def over_floor(problem):
        rows = stages[problem].values()
        return sum(row["seconds"] for row in rows) / sum(row["floor_seconds"] for row in rows)

    names = ("poisson-paper", "oscillators", "dipole")
    return {f"floor_{name.partition('-')[0]}": f"{over_floor(name):.1f}" for name in names}


def poisson():
    """Memory of the race in GB, and how many of Adam's steps one of HIG's takes."""
    race = load("speed-rivals")["rivals"]["poisson-paper"]
    others = [row["peak_memory_mb"] / 1e3 for label, row in race.items() if "float64" in label]
    (hig,), (adam,) = (runs("poisson-60s", name) for name in ("hig", "adam"))
    larger, cheaper = (runs("poisson-paper-60s", name)[0] for name in ("adaptive", "adam"))
    ratio = larger["seconds_per_step"] / cheaper["seconds_per_step"]
    return {
        "poisson_paper_adam": short(cheaper["test_loss"]),
        "poisson_paper_steps": f"{ratio:.0f}",
        "poisson_memory": f"{race['higcore']['peak_memory_mb'] / 1e3:.2f}",
        "poisson_memory_least": f"{min(others):.1f}",
        "poisson_memory_most": f"{max(others):.1f}",
        "poisson_adam_steps": f"{hig['seconds_per_step'] / adam['seconds_per_step']:.0f}",
    }


def limit():
    """How a few samples make up the test loss of the oscillators."""
    found = [run["test_samples"] | {"mean": run["test_loss"]}
             for run in runs("oscillators-120s", "adaptive")]  # fmt: skip
    middle = {key: short(median(row[key] for row in found)) for key in ("median", "largest")}
    share = median(row["largest"] / 4096 / row["mean"] for row in found)
    text = (
        f"After 120 s, of 4096 test samples the median has a loss of {middle['median']} (medians "
        f"over seeds), the largest {middle['largest']}: this one sample makes {share:.0%} of the "
        "mean."
    )
    return {"limit": text}


def marquardt():
    """First epochs of Levenberg-Marquardt on the oscillators: two seeds fall, one climbs first."""
    climbing, *falling = runs("oscillators-12s", "lm")
    hig = [at_epoch(run, 1) for run in runs("oscillators-12s", "hig")]
    return {
        "lm_start": short(at_epoch(climbing, 0)),
        "lm_highest": short(max(climbing["curve"]["test_loss"])),
        "lm_first_epoch": " and ".join(short(at_epoch(run, 1)) for run in falling),
        "hig_first_epoch": short(median(hig)),
    }


def first_steps():
    """Lengths of the first steps with Gauss-Newton and HIG on the oscillators."""
    gn, hig = (
        load(f"diagnostics/oscillators-{name}-seed0")["diagnostics"] for name in ("gn", "hig")
    )
    return {
        "gn_first_step": f"{gn['step_norm'][0]:.0f}",
        "hig_first_step": f"{hig['step_norm'][0]:.1f}",
    }


def choosing():
    """What the sweeps over b, tau and kappa say."""
    by_batch = load(CHOICES["oscillators"])["choices"]["batch"]
    curves = [[run["curve"] for run in by_batch[b].values()] for b in ("32", "128", "512")]
    equal = [median(c["test_loss"][c["step"].index(128)] for c in batch) for batch in curves]

    def worse(problem, parameter, value, paper):
        return chosen(problem, parameter, value) / chosen(problem, parameter, paper)

    return {
        "equal_steps": ", ".join(map(short, equal)),
        "full_batch_rank": f"{median(run['rank'] for run in by_batch['512'].values()):.0f}",
        "tau_dipole": f"{worse('dipole', 'tau', '0.0001', '1e-05'):.0f}",
        "tau_oscillators": f"{worse('oscillators', 'tau', '0.01', '1e-06'):.0f}",
        "kappa_dipole": f"{worse('dipole', 'kappa', '-0.25', '-0.5'):.0f}",
    }


def errors():
    """What the methods lose, and what those that do not square take longer."""
    own, seconds = load("speed-own"), load("speed-crossovers")["seconds"]["from J, t = 4 m"]
    dipole, chain = (own[f"relative_error_of_step_{name}"] for name in ("dipole", "oscillators"))
    gram = dipole["gram"]["tau 1e-06"]
    return {
        "qr_times_auto": f"{seconds['qr']['512'] / seconds['auto']['512']:.0f}",
        "gram_over_bound": f"{gram / (2**-52 / 1e-12):.0f}",
        "float32_over_gram": f"{dipole['svd float32']['tau 1e-06'] / gram:.0f}",
        "qr_oscillators": short(chain["qr"]["tau 1e-10"], 1),
        "qr_dipole": short(dipole["qr"]["tau 1e-10"], 1),
    }


def counts():
    """How many cases the tests have that are lists."""
    return {
        "bad_inputs": str(len(bad_input.CASES)),
        "mutations": str(len(mutations.MUTATIONS)),
    }


SENTENCES = (
    measured,
    growth,
    floors,
    poisson,
    marquardt,
    first_steps,
    choosing,
    errors,
    counts,
    limit,
)


def substitutions():
    """All of them by name, as the pages ask for them."""
    return {name: text for of in SENTENCES for name, text in of().items()}
