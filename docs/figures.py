"""Tables of the pages, made of the files in bench/results, a function a table.

The site asks for all of them when it is built, and a file or a key that is missing ends the build.
"""

import math
from statistics import median

from measured import CHOICES, at_epoch, chosen, load, loss, losses, runs, seconds, short

from bench.paper.tables import loss_after, markdown
from bench.research.contest import LEVELS, lowest, time_to
from bench.research.pictures import losses as losses_of
from bench.research.variants import AXES

METHODS = ("gram", "tridiagonal", "band", "qr", "svd float32", "gap at the cutoff")


def reached():
    """What was reached in training, and what the paper reports."""
    (chain,), both = runs("linear-chain-4epochs", "hig"), ("hig", "gn", "adam")
    chain_losses = " / ".join(short(at_epoch(chain, epoch)) for epoch in (1, 2, 3, 4))
    poisson = " / ".join(loss("poisson-60s", name) for name in ("hig", "adam"))
    cnn = " / ".join(loss("dipole-cnn-180s", name) for name in ("hig", "adam"))
    start = short(at_epoch(runs("poisson-60s", "adam")[0], 0))

    def toy(epochs):
        return " / ".join(loss(f"toy-{epochs}epochs", name) for name in both)

    rows = [
        ("oscillators", "HIG, b 128, after 20 / 60 / 300 s, 3 seeds",
         losses("oscillators-300s", "hig", (20, 60, 300)), "1e-7 after about an hour"),
        ("oscillators", "Adam, b 512, after 20 / 60 / 300 s",
         losses("oscillators-300s", "adam", (20, 60, 300)), "1e-4"),
        ("dipole", "HIG, b 16, after 20 / 60 / 180 s, 3 seeds",
         losses("dipole-180s", "hig", (20, 60, 180)), "about 1e-6"),
        ("dipole", "Adam, b 256, after 20 / 60 / 180 s",
         losses("dipole-180s", "adam", (20, 60, 180)), "above HIG"),
        ("dipole, convolutional", "HIG, b 16 / Adam, b 256, after 180 s", cnn, "HIG below Adam"),
        ("toy, $\\gamma = 0.01$", "HIG / GN / Adam, 1000 epochs, 5 seeds", toy(1000),
         "HIG below both"),
        ("toy, $\\gamma = 0.01$", "HIG / GN / Adam, 100 epochs, 5 seeds", toy(100), ""),
        ("toy, $\\gamma = 0.01$", "HIG with $\\eta = 6$, 100 epochs, 5 seeds",
         loss("toy-large-step-100epochs", "hig"), ""),
        ("linear chain", "HIG, b 32, after epochs 1 / 2 / 3 / 4", chain_losses,
         "5.4e-5 / 1.1e-5 / 3.2e-6 / 1.2e-6 (book)"),
        ("Poisson", "HIG / Adam, b 64, 60 s", f"{poisson} (from {start})",
         "both fall by up to 1000; Adam ahead per second"),
    ]  # fmt: skip
    return markdown(("experiment", "run here", "reached", "the paper reports"), rows)


def steps():
    """One step here and on the paper's GPU; the first step, and memory."""
    own, races = load("speed-own"), load("speed-rivals")["rivals"]
    times = {name: seconds(row["median"]) for name, row in own["step_seconds"].items()}
    first = own["first_step_seconds"]
    first = [seconds(first[f"{kind} cache"]["process start to first step"])
             for kind in ("cold", "warm")]  # fmt: skip
    peak = [
        f"{own['peak_memory_mb'][name]['peak MB']:.0f} MB" for name in ("hig b 128", "hig b 1024")
    ]
    rows = [
        ("oscillators, b 128 (m = 512)", times["hig b 128"], "146 ms"),
        ("oscillators, b 32", times["hig b 32"], "87 ms"),
        ("Adam on the oscillators, b 512", times["adam b 512"], "81 ms"),
        ("dipole, b 16 (m = 448)", seconds(races["dipole"]["higcore"]["median"]), "600 ms"),
        ("dipole, convolutional, b 16", seconds(races["dipole-cnn"]["higcore"]["median"]), ""),
        ("Poisson, b 64, 41408 parameters (m = 4096)",
         seconds(races["poisson-paper"]["higcore"]["median"]), "13.8 s"),
        ("start of a process to the end of its first step: cold / warm compilation cache",
         " / ".join(first), ""),
        ("peak memory of a whole run, oscillators b 128 / b 1024", " / ".join(peak),
         "2640 MB / -"),
    ]  # fmt: skip
    return markdown(("one HIG step", "here", "paper's GPU"), rows)


def survey():
    """Every optimizer on every problem for a short time."""
    files = {
        **{
            f"{name}-12s": name
            for name in ("toy", "oscillators", "linear-chain", "dipole", "dipole-cnn")
        },
        "poisson-60s": "poisson, 60 s",
        "poisson-20s": "poisson, 20 s",
    }
    names = list(load("toy-12s")["runs"])
    rows = []
    for file, label in files.items():
        known = load(file)["runs"]
        cells = [loss(file, name) if name in known else "-" for name in names]
        rows.append((label, *("diverged" if cell == "failed" else cell for cell in cells)))
    return markdown(("test loss after 12 s", *names), rows)


def adaptive():
    """AdaptiveHIG with its defaults: median and worst of the seeds."""
    files = {
        "oscillators-12s": (5, 12), "oscillators-120s": (20, 120), "dipole-12s": (5, 12),
        "dipole-120s": (20, 120), "dipole-cnn-12s": (5, 12), "dipole-cnn-120s": (20, 120),
        "linear-chain-12s": (2, 12), "toy-12s": (5, 12),
        "toy-well-conditioned-12s": (5, 12), "poisson-60s": (20, 60), "poisson-paper-60s": (20, 60),
    }  # fmt: skip
    rows = []
    for file, times in files.items():
        found = runs(file, "adaptive")
        after = [[loss_after(run["curve"], time) for run in found] for time in times]
        cells = (f"{short(median(each))} / {short(max(each))}" for each in after)
        step = seconds(median(run["seconds_per_step"] for run in found))
        name = file.rpartition("-")[0]
        rows.append((name, str(found[0]["batch"]), step, " / ".join(map(str, times)), *cells))
    header = ("problem", "b", "a step", "seconds", "earlier: median / worst", "later")
    return markdown(header, rows)


ORDER = list(AXES)
CONTESTS = ("oscillators", "dipole")
PROBLEMS = ("toy", "oscillators", "linear-chain", "dipole", "poisson")


def study(kind):
    """What each change of AdaptiveHIG did: median / worst test loss, problem by problem."""
    studies = {name: load(f"study-{name}")["study"] for name in PROBLEMS}
    labels = {(axis, value): None for known in studies.values() for axis in known
              for value in known[axis]}  # fmt: skip
    rows = []
    for axis, value in labels:
        cells = []
        for known in studies.values():
            found = losses_of(known.get(axis, {}).get(value, {}), kind)
            worst = f"{short(median(found))} / {short(max(found))}" if found else "-"
            cells.append(worst.replace("inf", "failed"))
        rows.append((axis, value, *cells))
    budgets = [load(f"study-{name}")["budget"][kind] for name in PROBLEMS]
    unit = "s" if kind == "seconds" else "steps"
    header = [f"{name}, {budget:g} {unit}" for name, budget in zip(PROBLEMS, budgets, strict=True)]
    return markdown(("changed", "to", *header), sorted(rows, key=lambda row: ORDER.index(row[0])))


def study_seconds():
    """The study at equal training time."""
    return study("seconds")


def study_steps():
    """The study at equal steps."""
    return study("steps")


def contests():
    """Seconds until a test loss, and the lowest one: AdaptiveHIG and its peers."""
    rows = []
    for name in CONTESTS:
        saved = load(f"contest-{name}")
        for label, peer in saved["peers"].items():
            runs_of = list(peer["seeds"].values())
            times = [median(time_to(run, level) for run in runs_of) for level in LEVELS]
            cells = ["-" if math.isinf(time) else seconds(time) for time in times]
            setting = ", ".join(f"{key} {value:g}" for key, value in peer["setting"].items())
            reached = median(map(lowest, runs_of))
            rows.append(
                (name, label, setting, *cells, "failed" if math.isinf(reached) else short(reached))
            )
    levels = [f"to {level:g}" for level in LEVELS]
    return markdown(("problem", "", "setting chosen", *levels, "lowest"), rows)


def loops():
    """Test losses of the problems with the network in the time loop, medians / worst."""
    rows = []
    for name in ("friction", "feedback", "burgers", "kuramoto-sivashinsky"):
        saved = load(f"loop-{name}")
        found = list(saved["seeds"].values())
        for label in found[0]["curves"]:
            ends = [run["curves"][label]["test_loss"][-1] for run in found]
            last = f"{short(median(ends))} / {short(max(ends))}"
            rows.append((f"{name}, {saved['seconds']:g} s, {len(found)} seeds", label, last))
    return markdown(("problem", "", "test loss, median / worst"), rows)


PAPER = {"oscillators": ("128", "1", "1e-06", "-0.5"), "dipole": ("16", "0.5", "1e-05", "-0.5")}


def choices():
    """What b, eta, tau and kappa do, one of them changed at a time."""
    rows = []
    for k, (parameter, letter) in enumerate(
        {"batch": "$b$", "lr": "$\\eta$", "tau": "$\\tau$", "kappa": "$\\kappa$"}.items()
    ):
        for problem, file in CHOICES.items():
            values = load(file)["choices"][parameter]
            cells = [
                f"**{shown}**" if value == PAPER[problem][k] else shown
                for value in values
                for shown in [f"{float(value):g}: {short(chosen(problem, parameter, value))}"]
            ]
            rows.append([f"{letter}, {problem}", *cells])
    width = max(map(len, rows))
    padded = [row + [""] * (width - len(row)) for row in rows]
    return markdown(("median test loss of 3 seeds", *[""] * (width - 1)), padded)


RIVALS = {
    "JAX, SVD": "jax float64 svd",
    "JAX, eigh": "jax float64 eigh",
    "JAX, eigh, tuned": "jax float64 eigh tuned",
    "PyTorch, SVD": "torch float64 svd",
    "PyTorch, eigh": "torch float64 eigh",
    "paper's way, float32": "numpy float32 svd",
}
BATCHES = {"toy": 256, "oscillators": 128, "linear-chain": 32, "dipole": 16, "dipole-cnn": 16,
           "poisson-paper": 64}  # fmt: skip


def times_ours(problem, label):
    """A contestant's median in units of higcore's."""
    return f"{load('speed-rivals')['rivals'][problem][label]['times_higcore']:.3g}×"


def rivals():
    """The race of a step, the others in units of ours."""
    found = load("speed-rivals")["rivals"]
    rows = [
        (
            f"{problem}, b {batch}",
            seconds(found[problem]["higcore"]["median"]),
            *(times_ours(problem, label) for label in RIVALS.values()),
        )
        for problem, batch in BATCHES.items()
    ]
    return markdown(("one HIG step", "higcore", *RIVALS), rows)


OTHERS = {
    "damped": {
        "higcore, `LevenbergMarquardt`": "higcore",
        "nlls-gram": "nlls-gram float64 cholesky",
        "NetKet's SRT, JAX": "jax float64 srt tuned",
    },
    "inverse": {
        "higcore, `kappa=-1`": "higcore",
        "Sven, PyTorch": "torch float64 svd",
        "SvenGram, PyTorch": "torch float64 eigh",
        "`torch.linalg.pinv`": "torch float64 pinv",
        "Sven, JAX": "jax float64 svd tuned",
        "SvenGram, JAX": "jax float64 eigh tuned",
        "`jnp.linalg.pinv`": "jax float64 pinv tuned",
    },
}


def others():
    """The race to steps that others wrote."""
    found, rows = load("speed-rivals"), []
    for kind, labels in OTHERS.items():
        for problem, records in found[kind]["rivals"].items():
            for name, label in labels.items():
                record = records[label]
                rows.append((
                    f"{kind}, {problem}, b {BATCHES[problem]}", name, seconds(record["median"]),
                    f"{record['times_higcore']:.3g}×", seconds(record["first_step_seconds"]),
                    f"{record['peak_memory_mb']:.0f} MB", short(record["error"]),
                ))  # fmt: skip
    header = ("step", "", "median", "in units of ours", "first step", "peak memory", "error")
    return markdown(header, rows)


def profile():
    """Milliseconds of every stage, and in parentheses the arithmetic floor."""
    stages = load("speed-profile")["stages"]

    def cell(names, problem):
        rows = [stages[problem][name] for name in names]
        spent, floor = (1e3 * sum(row[key] for row in rows) for key in ("seconds", "floor_seconds"))
        return f"{spent:.3g} ({floor:.2g})"

    names = list(stages["toy"])
    rows = [(name, *(cell([name], problem) for problem in stages)) for name in names]
    rows.append(("together", *(cell(names, problem) for problem in stages)))
    return markdown(("ms (arithmetic floor)", *stages), rows)


def crossovers():
    """Seconds of every method that works on K, by the number of rows."""
    sizes, found = ("128", "512", "1024", "2048", "4096"), load("speed-crossovers")["seconds"]
    rows = [
        (f"{case}: `{method}`", *(seconds(found[case][method][n]) for n in sizes))
        for case in ("nothing cut", "half cut")
        for method in ("tridiagonal", "band", "gram", "scipy.linalg.eigh")
    ]
    return markdown(("$K^{-3/4} g$, rows", *sizes), rows)


def widths():
    """Cost and memory against the number of parameters."""
    rows = []
    for parameters, row in load("speed-sweeps")["width"].items():
        rest = (row["hig_seconds"] - row["decomposition_seconds"]) / row["adam_seconds"]
        rows.append((
            short(float(parameters)), seconds(row["hig_seconds"]),
            seconds(row["decomposition_seconds"]), seconds(row["adam_seconds"]), f"{rest:.2f}",
            f"{row['hig_extra_mb']:.0f} MB", f"{row['dense_jacobian_mb']:.0f} MB",
        ))  # fmt: skip
    header = ("parameters", "HIG step", "decomposition in it", "Adam step",
              "HIG less decomposition, over Adam", "extra peak memory",
              "dense J would take")  # fmt: skip
    return markdown(header, rows)


def batches():
    """Cost and memory of the Poisson network against the number of rows."""
    found = load("speed-sweeps")["batch"]
    rows = [
        ("a step", *(seconds(row["seconds"]) for row in found.values())),
        ("extra peak memory, MB", *(f"{row['extra_mb']:.0f}" for row in found.values())),
        ("estimated, MB", *(f"{row['estimated_mb']:.0f}" for row in found.values())),
    ]
    return markdown(("Poisson, rows m", *found), rows)


def accuracy():
    """Relative errors of the step by method and tau."""
    taus = {"1e-4": "tau 0.0001", "1e-5": "tau 1e-05", "1e-6": "tau 1e-06", "1e-10": "tau 1e-10"}
    bound = ["-" if tau == "1e-10" else short(2**-52 / float(tau) ** 2, 1) for tau in taus]
    rows = [("$\\mathrm{eps} / \\tau^2$", *bound)]
    for problem in ("oscillators", "dipole"):
        errors = load("speed-own")[f"relative_error_of_step_{problem}"]
        for method in METHODS:
            cells = [errors[method][key] for key in taus.values()]
            cells = ["-" if cell is None else short(cell) for cell in cells]
            rows.append((f"{problem}: {method}", *cells))
    return markdown(("against the SVD of J in float64", *(f"$\\tau$ {tau}" for tau in taus)), rows)


def fields():
    """Steps of AdaptiveHIG on fields, with K and without."""
    rows = [
        (
            name,
            seconds(row["seconds"]),
            *(f"{row[key]:.0f}" for key in ("extra MB", "peak MB of the process")),
        )
        for name, row in load("speed-fields")["steps"].items()
    ]
    return markdown(
        ("a step of AdaptiveHIG", "", "MB beside what was there", "MB of the process"), rows
    )


def ranks():
    """Stages of a step on one core, and on two ranks with one core each."""
    rows = []
    for name, found in load("speed-ranks")["seconds"].items():
        for count in ("1", "2"):
            rows.append((f"{name}, {count}", *map(seconds, found[count].values())))
        rows.append(
            (f"{name}, times faster", *(f"{x:.2f}" for x in found["times faster"].values()))
        )
    return markdown(("ranks", *found["1"]), rows)


def cores():
    """Stages of a step on one core and on all, and what is serial of each."""
    rows = []
    for name, found in load("speed-cores")["seconds"].items():
        *of_counts, (share, serial) = found.items()
        rows += [
            (f"{name}, {count}", *map(_seconds_or_none, row.values())) for count, row in of_counts
        ]
        rows.append(
            (f"{name}, {share}", *("-" if x is None else f"{x:.0f}" for x in serial.values()))
        )
    return markdown(("cores", *serial), rows)


def _seconds_or_none(value):
    return seconds(value) if value else "-"


MIXED = (reached, steps)  # numbers and sentences
NUMBERS = (
    survey,
    adaptive,
    study_seconds,
    study_steps,
    contests,
    loops,
    choices,
    rivals,
    others,
    profile,
    crossovers,
    widths,
    batches,
    fields,
    ranks,
    cores,
    accuracy,
)
NOT_BROKEN = "```{rst-class} numbers\n```\n\n"  # a class for the style sheet


def substitutions():
    """The tables by name, as the pages ask for them."""
    numbers = {table.__name__: NOT_BROKEN + table() for table in NUMBERS}
    return numbers | {table.__name__: table() for table in MIXED}
