"""Measured figures that stand in sentences of the pages; those in tables are in figures.py."""

import math
import sys
from statistics import median

from measured import CHOICES, ROOT, at_epoch, chosen, load, runs, short, verdicts

sys.path.insert(0, str(ROOT / "tests"))

import bad_input
import mutations

from bench.research.contest import time_to


def measured():
    """When, where and with which versions steps were raced."""
    found = load("speed-rivals")["raced"]["oscillators"]
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
    """Memory of the race in GB, how many of Adam's steps others take, and what both reach."""
    race = load("speed-rivals")["rivals"]["poisson-paper"]
    others = [row["peak_memory_mb"] / 1e3 for label, row in race.items() if "float64" in label]
    hig, adam = (runs("poisson-60s", name)[0] for name in ("hig", "adam"))
    longer = {
        name: short(runs("poisson-300s", name)[0]["test_loss"]) for name in ("adaptive", "adam")
    }
    field, adam_on_it = (runs("poisson-64-1200s", name)[0] for name in ("adaptive", "adam"))
    larger, cheaper = (runs("poisson-paper-60s", name)[0] for name in ("adaptive", "adam"))
    ratio = larger["seconds_per_step"] / cheaper["seconds_per_step"]
    return {
        "field_adaptive": f"{field['test_loss']:.0f}",
        "field_steps": str(field["steps"]),
        "field_adam": f"{adam_on_it['test_loss']:.0f}",
        "field_adam_best": f"{adam_on_it['best_test_loss']:.0f}",
        "poisson_paper_adam": short(cheaper["test_loss"]),
        "poisson_300_adam": longer["adam"],
        "poisson_300_adaptive": longer["adaptive"],
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
    oscillators = load(CHOICES["oscillators"])["choices"]
    by_batch = oscillators["batch"]

    def at_equal_steps(axis):
        runs_of = [oscillators[axis][b].values() for b in ("32", "128", "512")]
        curves = [[run["curve"] for run in batch] for batch in runs_of]
        equal = [median(c["test_loss"][c["step"].index(128)] for c in batch) for batch in curves]
        return ", ".join(map(short, equal))

    def worse(problem, parameter, value, paper):
        return chosen(problem, parameter, value) / chosen(problem, parameter, paper)

    return {
        "equal_steps": at_equal_steps("batch"),
        "equal_steps_scaled": at_equal_steps("batch, lr with it"),
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


def loops():
    """What came of the problems with the network in the time loop."""
    found = {name: load(f"loop-{name}") for name in ("friction", "feedback", "burgers")}

    def of(problem, figure):
        runs_of = found[problem]["seeds"].values()
        return [run["figures"][figure] for run in runs_of]

    def middle(problem, figure):
        return median(of(problem, figure))

    law, off = of("friction", "law_error"), middle("feedback", "open_loop")
    feedback = of("feedback", "feedback")
    coarse, corrected = (
        middle("burgers", f"{name}_four_spans") for name in ("coarse", "corrected")
    )
    step = load("speed-rivals")["rivals"]["pendulum-loop"]
    ours = 1e3 * step["higcore"]["median"]
    jax = 1e3 * min(step[f"jax float64 eigh{how}"]["median"] for how in ("", " tuned"))
    curves = [run["curves"] for run in found["friction"]["seeds"].values()]
    ends, hig = ([run[label]["test_loss"][-1] for run in curves] for label in ("SciPy", "hig"))
    below = [time_to({"curve": run["hig"]}, end) for run, end in zip(curves, ends, strict=True)]
    if math.inf in below:
        raise ValueError(
            "a run of HIG does not come to where SciPy's is: say so in another sentence"
        )
    return {
        "friction": f"After {found['friction']['seconds']:g} s, with errors of 0.01 in what was "
        f"observed, the law is right to {short(median(law))} where velocities were met (worst of "
        f"five seeds {short(max(law))}). Trained for as long, SciPy's `least_squares`, with all "
        f"data and this library's J, ends at a test loss of {short(median(ends))}; HIG is there "
        f"after {min(below):.1f} to {max(below):.1f} s, and ends at {short(median(hig))}.",
        "feedback": f"After {found['feedback']['seconds']:g} s of training, and from starts that "
        f"are disturbed by 0.1, it leaves a loss of {short(median(feedback))} (worst of five seeds "
        f"{short(max(feedback))}); a network that knows the undisturbed start alone, and says all "
        f"pushes in advance, {short(off)} (at best {short(min(of('feedback', 'open_loop')))}), and "
        f"{short(middle('feedback', 'open_loop_undisturbed'))} where nothing is disturbed: in so "
        "short a time, most seeds do not learn it.",
        "burgers": "Over four times the span that was trained, its relative error is "
        f"{short(corrected)}, that of the coarse solver {short(coarse)}.",
        "loop_step": "A HIG step of a 3-16-16-1 network in 40 steps of a pendulum, b 64, takes "
        f"{ours:.1f} ms. A compiled scan in JAX, with `eigh` of $J J^\\top$, takes {jax:.1f}.",
    }


def chaos():
    """What came of bringing chaos to rest."""
    found = load("loop-kuramoto-sivashinsky")
    runs_of = found["seeds"].values()

    def lowered(label):
        """By how much the loss is below that where nobody acts: least and most of the seeds."""
        folds = [
            run["figures"]["unforced"] / run["curves"][label]["test_loss"][-1] for run in runs_of
        ]
        return f"{short(min(folds))} to {short(max(folds))} fold"

    figures = {name: [run["figures"][name] for run in runs_of] for name in ("unforced", "exponent")}
    later = max(run["figures"]["twice_the_span"] for run in runs_of)
    return {
        "chaos": "Left alone, neighbours part by a factor e in "
        f"{1 / median(figures['exponent']):.0f} units, and the loss is "
        f"{short(median(figures['unforced']))}. Training for {found['seconds']:g} "
        f"{found.get('clock', 's')} lowers it "
        f"{lowered('adaptive')} with AdaptiveHIG ({len(runs_of)} seeds), {lowered('hig')} with "
        f"HIG, and {lowered('adam')} with Adam. AdaptiveHIG's network keeps the field there: after "
        f"twice the span the loss is {short(later)} at most.",
    }


def of_the_paper():
    """How many of the paper's claims are held."""
    return {"verdicts": f"Of its claims are {verdicts()}"}


SENTENCES = (
    measured,
    of_the_paper,
    growth,
    floors,
    poisson,
    marquardt,
    first_steps,
    choosing,
    errors,
    counts,
    limit,
    loops,
    chaos,
)


def substitutions():
    """All of them by name, as the pages ask for them."""
    return {name: text for of in SENTENCES for name, text in of().items()}
