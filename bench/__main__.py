"""Command line: ``python -m bench --help``."""

from __future__ import annotations

import dataclasses
import json
import sys
from contextlib import nullcontext
from pathlib import Path

import click
import numpy as np

from higcore import GaussNewton, load_checkpoint, memory_estimate, profile
from higcore.backend import to_device
from higcore.device.gpu import DEVICES, choose_device
from higcore.half_inverse import METHODS, TRUNCATIONS
from higcore.optimizers.memory import fitting_tile

from . import ranks, records
from .experiments import EXPERIMENTS, FIELDS, LOOPS, OPTIMIZERS, VARIANTS, Setting, choose
from .experiments.setting import compile_step
from .reproduction import command_line
from .terminal import remark, say

INTERRUPTED = 130  # what a shell reports for a program that Ctrl-C ended


class Commands(click.Group):
    """Commands that end with one sentence where a file cannot be read or written, or at Ctrl-C."""

    def invoke(self, ctx):
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # where no run catches it; what was complete is saved
            remark("Interrupted.")
            ctx.exit(INTERRUPTED)
        except OSError as error:
            raise click.ClickException(str(error)) from error


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True},
)
def main():
    """Train networks through physics solvers; draw and tabulate what came out."""


class Shareable(click.Command):
    """A command that with --shared is one run of all ranks; ``ctx.obj`` is their communicator."""

    def invoke(self, ctx):
        with ranks.all_together() if ctx.params["shared"] else nullcontext() as ctx.obj:
            return super().invoke(ctx)


RUN_FILE = click.Path(exists=True, dir_okay=False)


def choice(known):
    """An option type that lists the known names when it refuses one."""
    return click.Choice(list(known))


class ProblemName(click.Choice):
    """The name of an experiment, or MODULE:NAME of a problem of one's own."""

    def convert(self, value, param, ctx):
        return value if ":" in value else super().convert(value, param, ctx)

    def get_metavar(self, *arguments, **options):
        return super().get_metavar(*arguments, **options)[:-1] + "|MODULE:NAME}"


PROBLEM = ProblemName([*EXPERIMENTS, *LOOPS, *FIELDS])


def describe_variants():
    """One line for the help: problem: variants."""
    return "; ".join(f"{problem}: {', '.join(known)}" for problem, known in VARIANTS.items())


@main.command(cls=Shareable)
@click.argument("problem", type=PROBLEM)
@click.option("--optimizer", type=choice(OPTIMIZERS), default="hig")
@click.option("--variant", help="Named alternative of the problem: " + describe_variants())
@click.option("--batch", type=click.IntRange(1), help="Samples a step.  [default: the paper's]")
@click.option("--lr", type=float, help="Learning rate eta.  [default: the paper's]")
@click.option("--tau", type=float, help="Truncation (hig, gn).  [default: the paper's]")
@click.option("--kappa", type=float, help="Exponent of the singular values (hig).")
@click.option("--beta", type=float, help="Exponent of max(S) in front (hig, gn).")
@click.option("--truncation", type=choice(TRUNCATIONS), help="(hig, gn)")
@click.option("--method", type=choice(METHODS), help="Half-inverse (hig, gn).")
@click.option("--memory-limit", type=float, help="GB a step may take (hig, gn, lm).")
@click.option("--seconds", type=float, help="Budget of training seconds.  [default: 60]")
@click.option("--steps", type=click.IntRange(1), help="Budget of steps.")
@click.option("--epochs", type=float, help="Budget of epochs.")
@click.option("--patience", type=click.IntRange(1), help="Evaluations without improvement.")
@click.option(
    "--diagnostics", is_flag=True, help="Rank, condition, ... of the steps, in JSON and picture."
)
@click.option("--seed", type=click.IntRange(0), default=0, help="Seed of data and parameters.")
@click.option("--dtype", type=choice(["float64", "float32"]), help="[default: float64]")
@click.option("--device", type=choice(DEVICES), default="auto")
@click.option("--out", type=click.Path(file_okay=False), default="runs", help="Folder for files.")
@click.option("--resume", type=RUN_FILE, help="Go on from a checkpoint (.npz).")
@click.option("--start-from", type=RUN_FILE, help="Begin with the network of a checkpoint.")
@click.option("--shared", is_flag=True, help="Share the samples among the ranks of mpiexec.")
@click.option("--json", "as_json", is_flag=True, help="End with one JSON object on a line.")
@click.pass_obj
def train(
    comm, problem, optimizer, variant, seconds, steps, epochs, patience, diagnostics, seed, dtype,
    device, out, resume, start_from, shared, as_json, **options,
):  # fmt: skip
    """Train PROBLEM and leave checkpoint, JSON and pictures in the --out folder.

    PROBLEM may be your own: MODULE:NAME is what has this name in a Python file of the current
    directory, a higcore.Problem or a function (seed, dtype) -> Problem. The settings are then the
    library's defaults, the batch is 64, and the dtype that of the data.
    """
    from .paper import runs  # matplotlib: not for --help

    with usage_errors():
        experiment = choose(problem, variant)
        setting = configure(setting_of(experiment, optimizer), options)
        device, reason = choose_device(device)
        task = experiment.problem(seed, **({"dtype": np.dtype(dtype)} if dtype else {})).on(device)
        task.steps_per_epoch(setting.batch)
        if resume and start_from:
            raise ValueError("--resume and --start-from exclude each other")
        run = load_checkpoint(resume).on(device) if resume else None
        theta = to_device(load_checkpoint(start_from).theta, device) if start_from else None
        if seconds is None and steps is None and epochs is None:
            seconds = 60.0
    say(f"{problem}: {setting.optimizer}, batch {setting.batch}, on the {device} ({reason})")
    stem = f"{experiment.name}-{optimizer}{'-continued' if start_from else ''}-seed{seed}"
    with usage_errors():
        result, record = runs.train(
            experiment,
            task,
            setting,
            seed=seed,
            device=device,
            out=out,
            stem=stem,
            seconds=seconds,
            steps=steps,
            epochs=epochs,
            patience=patience,
            diagnostics=diagnostics,
            resume=run,
            checkpoint=resume,
            theta=theta,
            comm=comm,
            progress=True,
        )
    say(str(result))
    if shared and comm.rank:
        sys.exit(exit_status([result.status]))  # the first rank leaves the files
    if missing := runs.leave_files(Path(out), stem, experiment, task, result, record):
        remark(missing)
    say(f"Files: {Path(out) / stem}.*")
    if as_json:
        shown = {k: v for k, v in record.items() if k not in ("curve", "recorded", "diagnostics")}
        say(json.dumps(records.finite(shown)))
    if result.error:
        remark(result.error)
    sys.exit(exit_status([result.status]))


def exit_status(statuses):
    """What a shell is told: it is no fault of the program if a run did not go well."""
    return INTERRUPTED if "interrupted" in statuses else int("raised" in statuses)


def setting_of(experiment, optimizer):
    """An experiment's setting of an optimizer that it has one of."""
    known = experiment.settings
    if optimizer not in known:
        raise ValueError(
            f"--optimizer of {experiment.name} must be one of {list(known)}, got {optimizer!r}"
        )
    return known[optimizer]


def configure(setting, options):
    """The experiment's setting with the options that were given in place of its own."""
    given = {name: value for name, value in options.items() if value is not None}
    if "memory_limit" in given:
        given["memory_limit"] *= 1e9  # GB to bytes
    batch = given.pop("batch", setting.batch)
    known = {f.name for f in dataclasses.fields(setting.optimizer)}
    if unknown := sorted(set(given) - known):
        raise ValueError(
            f"--{unknown[0]} does not apply to {type(setting.optimizer).__name__}, "
            f"which takes {', '.join(sorted(known))}"
        )
    return Setting(batch, dataclasses.replace(setting.optimizer, **given))


class usage_errors:
    """Context manager: show bad arguments as one sentence and exit with status 2."""

    def __enter__(self):
        return self

    def __exit__(self, kind, error, _):
        if kind and issubclass(kind, (ValueError, TypeError, RuntimeError, MemoryError)):
            raise click.UsageError(str(error)) from error


PAPER = EXPERIMENTS["oscillators"].settings
DEMO = {
    "HIG": PAPER["hig"],
    "GN": PAPER["gn"],
    "GN, tau 1e-4": Setting(128, GaussNewton(tau=1e-4, paper=True)),
    "Adam": PAPER["adam"],
    "adaptive": PAPER["adaptive"],
}


@main.command()
@click.option("--seconds", type=click.FloatRange(1), default=20.0, help="Training time of each.")
@click.option("--seed", type=click.IntRange(0), default=0)
@click.option("--out", type=click.Path(file_okay=False), default="runs", help="Folder for files.")
def demo(seconds, seed, out):
    """Oscillators: HIG, Gauss-Newton, Adam and AdaptiveHIG; a table and two pictures.

    The first three with the paper's settings (table 2). Gauss-Newton runs a second time with a
    larger tau, because the paper's is unstable in float64. AdaptiveHIG is not the paper's, and has
    no settings.
    """
    from . import style
    from .paper import figures, runs, tables

    experiment, out = EXPERIMENTS["oscillators"], Path(out)
    problem = experiment.problem(seed)
    results, found = {}, {}
    say("Compiling (once; kept for later runs) ...")
    for setting in DEMO.values():
        compile_step(problem, setting, seed)
    for label, setting in DEMO.items():
        say(f"{label}: {setting.optimizer}, batch {setting.batch}")
        results[label], found[label] = runs.train(
            experiment, problem, setting, seed=seed, device="cpu", seconds=seconds, progress=True
        )
        if results[label].status == "interrupted":
            break
    curves = {label: record["curve"] for label, record in found.items()}
    title = "two coupled oscillators, paper's settings; adaptive: without any"
    style.save(figures.loss_curves(curves, title), out / "demo.png")
    style.save(experiment.picture(problem, results["HIG"].theta), out / "demo-trajectory.png")
    records.write_json(out / "demo.json", {"runs": found} | records.environment())
    say("\n" + tables.runs_table(found))
    say(f"\nPictures and curves: {out / 'demo.png'}, demo-trajectory.png, demo.json")
    sys.exit(exit_status([result.status for result in results.values()]))


@main.command()
@click.argument("problem", type=PROBLEM)
@click.option("--optimizers", help="Names with commas between.  [default: all there are]")
@click.option("--variant", help="As for train.")
@click.option("--seconds", type=float, help="Budget of training seconds of a run.")
@click.option("--epochs", type=float, help="Budget of epochs of a run.")
@click.option("--seeds", type=click.IntRange(1), default=1, help="Seeds 0, 1, ... of every run.")
@click.option("--evaluate-every", type=click.IntRange(1), default=1, help="Epochs.")
@command_line.placed(None)
@command_line.runs_in("runs/survey")
@click.option("--out", type=click.Path(file_okay=False), default="runs", help="Folder for files.")
def survey(
    problem, optimizers, variant, seconds, epochs, seeds, evaluate_every, place, folder, out
):
    """Train PROBLEM with many optimizers and seeds; one JSON file, one picture, one table.

    One run after the other has the whole machine; with --executor they are made side by side, each
    on one core, and those that are in the --runs folder are not made again.
    """
    from .paper import runs, tables
    from .reproduction.commands import name_failed

    with usage_errors():
        experiment = choose(problem, variant)
        known = list(experiment.settings)
        names = optimizers.split(",") if optimizers else known
        if unknown := sorted(set(names) - set(known)):
            raise ValueError(f"--optimizers must be among {known}, got {unknown}")
        if (seconds is None) == (epochs is None):
            raise ValueError("give one of --seconds and --epochs as the budget of a run")
        label = f"{epochs:g}epochs" if seconds is None else f"{seconds:g}s"
        path = Path(out) / f"{experiment.name}-{label}.json"
        budget = {"seconds": seconds, "epochs": epochs, "evaluate_every": evaluate_every}
        failed = {}
        if place is None:
            made = list(runs.survey(experiment, names, range(seeds), path, **budget))
        else:
            planned = runs.surveyed(problem, variant, names, range(seeds), budget)
            made, failed = runs.survey_at(place, planned, folder, path)
    name_failed(failed, say)
    found = {f"{name} seed {record['seed']}": record for name, record in made}
    say(tables.runs_table(found))
    sys.exit(bool(failed) or exit_status([record["status"] for record in found.values()]))


@main.command()
@click.option("--profile", "part", flag_value="profile", help="Stages of a step and their floor.")
@click.option("--crossovers", "part", flag_value="crossovers", help="Methods against size.")
@click.option(
    "--sweeps", "part", flag_value="sweeps", help="Against width and batch; half an hour."
)
@click.option("--own", "part", flag_value="own", help="Table 3, latency, memory, accuracy.")
@click.option("--ranks", "part", flag_value="ranks", help="Two ranks of mpiexec against one.")
@click.option("--cores", "part", flag_value="cores", help="Stages on 1, 2, 4, ... cores.")
@click.option(
    "--fields", "part", flag_value="fields", help="AdaptiveHIG with 16384 and 262144 rows."
)
@click.option("--experiments", help="Race on these only, names with commas between; keep others.")
@click.option("--kinds", help="Race these steps only: half, damped, inverse; keep others.")
@click.option("--out", type=click.Path(file_okay=False), default="runs", help="Folder for files.")
def speed(part, experiments, kinds, out):
    """Seconds of a HIG step beside what one would write in NumPy, JAX or PyTorch.

    All rivals that are installed (extra `peers`) on all experiments, in turn, each in a process of
    its own; about half an hour. Beside `half`, the half-inverse, two kinds of steps are raced that
    others wrote: `damped`, nlls-gram's and NetKet's, and `inverse`, kappa = -1, Sven's. The options
    time something else instead. Prints tables and saves speed-PART.json and .png; what is known so
    far is saved after each experiment. Leave the machine alone meanwhile: a busy core elsewhere
    makes the times of all libraries useless.
    """
    from . import style
    from .speed import parts, peers

    path = Path(out) / f"speed-{part or 'rivals'}.json"
    names = experiments.split(",") if experiments else []
    with usage_errors():
        given = kinds.split(",") if kinds else list(peers.KINDS)
        if unknown := sorted(set(given) - set(peers.KINDS)):
            raise ValueError(f"--kinds must be among {list(peers.KINDS)}, got {unknown}")
        known = {name: None for kind in given for name in parts.raced(kind)}
        if unknown := sorted(set(names) - set(known)):
            raise ValueError(f"--experiments must be among {list(known)}, got {unknown}")
        if part and (experiments or kinds):
            option = "--experiments" if experiments else "--kinds"
            raise ValueError(f"{option} goes with the race of rivals, not with --{part}")

    def keep(found):
        records.write_json(path, found | records.environment())

    if part:
        found, text, picture = parts.PARTS[part](remark, keep)
    else:
        earlier = json.loads(path.read_text()) if path.exists() else {}
        found, text, picture = parts.rivals(remark, keep, earlier, names, given)
    keep(found)
    say(text)
    if picture is not None:
        style.save(picture, path.with_suffix(".png"))
    say(f"Saved {path}")


@main.command()
@click.option("--bandwidth", type=click.FloatRange(0, min_open=True), default=1.0, help="GB/s.")
@click.option("--latency", type=click.FloatRange(0), default=2.0, help="Microseconds of a message.")
@click.option("--ranks", type=click.IntRange(1), default=4, help="The most that are measured here.")
@click.option("--out", type=click.Path(file_okay=False), default="runs", help="Folder for files.")
def scale(bandwidth, latency, ranks, out):
    """What a step costs on many ranks: a model of it, checked on a few here; saves scale.json.

    Its stages are measured on one core; what is shared is divided among the ranks, and what they
    exchange goes into each of them with so many GB/s. Then it is read for 64 and 1024 ranks and
    batches of 1e5 and 1e6 rows, by K and by products with J alone.
    """
    from . import style
    from .speed import scale as model

    path = Path(out) / "scale.json"

    def keep(found):
        records.write_json(path, found | records.environment("mpi4py"))

    with usage_errors():
        link = model.Link(1e9 * bandwidth, 1e-6 * latency)
        found = model.scale(remark, keep, link, range(1, ranks + 1))
    say(model.table(found))
    style.save(model.picture(found), path.with_suffix(".png"))
    say(f"Saved {path}")


@main.command()
@click.argument("problem", type=choice(EXPERIMENTS))
@click.option("--optimizer", type=choice(["hig", "adaptive"]), default="hig")
@click.option("--epochs", type=click.FloatRange(0, min_open=True), default=10.0)
@click.option("--seeds", type=click.IntRange(1), default=1, help="Seeds 0, 1, ... of every run.")
@click.option("--out", type=click.Path(file_okay=False), default="runs", help="Folder for files.")
def choices(problem, optimizer, epochs, seeds, out):
    """HIG on PROBLEM with other b, eta, tau or kappa than the paper's; a table and a picture.

    Or AdaptiveHIG with other values than its own. One parameter is changed at a time, and eta with
    b; some 25 runs of so many epochs for each seed. Runs that the file holds are not made again.
    """
    from . import style
    from .paper import choices, figures, tables

    adaptive = "-adaptive" if optimizer == "adaptive" else ""
    path = Path(out) / f"choices{adaptive}-{problem}-{epochs:g}epochs.json"
    about = {"experiment": problem, "epochs": epochs}

    with usage_errors():
        found = records.earlier(path, "choices", about)

    def keep(found):
        records.write_json(path, about | {"choices": found} | records.environment())

    choices.choices(EXPERIMENTS[problem], optimizer, epochs, range(seeds), remark, keep, found)
    say(tables.choices(found))
    used = EXPERIMENTS[problem].settings[optimizer]
    title = (
        f"{problem}: {type(used.optimizer).__name__} after {epochs:g} epochs, one parameter changed"
    )
    style.save(figures.choices(found, used, title), path.with_suffix(".png"))
    say(f"Saved {path}")


@main.command()
@click.argument("problem", type=choice(EXPERIMENTS))
@click.option("--axes", help="Names with commas between.  [default: all]")
@click.option("--seeds", type=click.IntRange(1), default=5, help="Number of seeds of every run.")
@click.option("--first-seed", type=click.IntRange(0), default=10, help="The first of them.")
@click.option("--seconds", type=click.FloatRange(0, min_open=True), help="Of a run, on one core.")
@click.option("--steps", type=click.IntRange(3), help="Of a run.")
@command_line.placed()
@command_line.runs_in("runs/study")
@click.option("--out", type=click.Path(file_okay=False), default="runs", help="Folder for files.")
def study(problem, axes, seeds, first_seed, seconds, steps, place, folder, out):
    """Change the parts of AdaptiveHIG on PROBLEM one at a time, and several together.

    Every variant and seed goes on to the end of its training seconds and of its steps, on one core,
    as many at a time as there are cores. Runs that study-PROBLEM.json in the --out folder holds
    are not made again. The pictures show all problems found there.
    """
    from . import style
    from .reproduction.commands import name_failed
    from .research import pictures, study

    path = Path(out) / f"study-{problem}.json"
    with usage_errors():
        known, names = study.variants(problem), axes.split(",") if axes else None
        if unknown := sorted(set(names or ()) - set(known)):
            raise ValueError(f"--axes must be among {list(known)}, got {unknown}")
        own = study.BUDGETS[problem]
        budget = study.Budget(seconds or own.seconds, steps or own.steps)
        about = {"experiment": problem, "budget": budget._asdict()}
        found = records.earlier(path, "study", about)
    chosen = {axis: known[axis] for axis in names or known}

    seeds = range(first_seed, first_seed + seeds)
    try:
        failed = study.study(problem, chosen, seeds, budget, found, folder, place)
    finally:
        records.write_json(path, about | {"study": found} | records.environment())
    name_failed(failed, say)
    say(pictures.table(found))
    for kind in budget._fields:
        style.save(pictures.changes(Path(out), kind), Path(out) / f"study-{kind}.png")
    say(f"Saved {path} and study-seconds.png, study-steps.png")
    sys.exit(int(bool(failed)))


@main.command()
@click.argument("problem", type=click.Choice([*EXPERIMENTS, "poisson-paper"]))
@click.option("--peers", help="Names with commas between.  [default: those installed]")
@click.option("--seconds", type=click.FloatRange(0, min_open=True), default=60.0)
@click.option("--seeds", type=click.IntRange(1), default=3, help="Seeds 0, 1, ... of every run.")
@click.option("--tuning-seed", type=click.IntRange(0), default=10)
@click.option("--tuning-seconds", type=click.FloatRange(0, min_open=True), default=15.0)
@click.option("--out", type=click.Path(file_okay=False), default="runs", help="Folder for files.")
def contest(problem, peers, seconds, seeds, tuning_seed, tuning_seconds, out):
    """Seconds to a test loss on PROBLEM: AdaptiveHIG and what people would train with instead.

    Each peer (extra `peers`) trains in a process of its own, one after the other, with the best
    setting of a small grid. Runs that contest-PROBLEM.json holds are not made again.
    """
    from . import style
    from .research import contest
    from .research.peers import PEERS

    path = Path(out) / f"contest-{problem}.json"
    with usage_errors():
        names = peers.split(",") if peers else [k for k, peer in PEERS.items() if peer.installed]
        if unknown := sorted(set(names) - set(PEERS)):
            raise ValueError(f"--peers must be among {list(PEERS)}, got {unknown}")
        about = {"experiment": problem, "seconds": seconds, "tuning_seconds": tuning_seconds}
        found = records.earlier(path, "peers", about)
    packages = ("jax", "nlls-gram", "optimistix", "optax", "torch", "torch-levenberg-marquardt")
    versions = {"peer_versions": records.versions(*packages)}

    def keep():
        records.write_json(path, about | versions | {"peers": found} | records.environment())

    tuning = tuning_seed, tuning_seconds
    contest.contest(problem, names, range(seeds), seconds, tuning, found, keep, remark)
    say(contest.table(found))
    title = f"{problem}: test loss against training time, a line a seed"
    style.save(contest.picture(found, title), path.with_suffix(".png"))
    say(f"Saved {path}")


@main.command()
@click.argument("problem", type=choice(LOOPS))
@click.option("--seconds", type=click.FloatRange(0, min_open=True), default=20.0)
@click.option("--seeds", type=click.IntRange(1), default=5, help="Seeds 0, 1, ... of every run.")
@click.option("--out", type=click.Path(file_okay=False), default="runs", help="Folder for files.")
def loop(problem, seconds, seeds, out):
    """Train PROBLEM, whose network is in the time loop, with several optimizers for so long.

    Beside them: friction, SciPy's least squares; feedback, a network that sees the start alone;
    burgers, the errors over four times the span; kuramoto-sivashinsky, the loss where nobody acts,
    and after twice the span. Runs that loop-PROBLEM.json holds are kept.
    """
    from . import style
    from .research import loops

    path = Path(out) / f"loop-{problem}.json"
    with usage_errors():
        about = {"experiment": problem, "seconds": seconds}
        found = records.earlier(path, "seeds", about)
    for seed in map(str, range(seeds)):
        if seed in found:
            continue
        found[seed], result = loops.compare(problem, int(seed), seconds)
        records.write_json(path, about | {"seeds": found} | records.environment())
        if seed == "0":
            task = LOOPS[problem].problem(0)
            learned = LOOPS[problem].picture(task, result.theta)
            style.save(learned, path.with_name(f"loop-{problem}-learned.png"))
    say(loops.table(found))
    title = f"{problem}: test loss against training time, a line a seed"
    style.save(loops.picture(found, title), path.with_suffix(".png"))
    say(f"Saved {path}")


@main.command()
@click.option("--parts", help="Names with commas between.  [default: all]")
@click.option("--out", type=click.Path(file_okay=False), default="runs", help="Folder for files.")
def gpu(parts, out):
    """Step times on a GPU, stage by stage, beside rivals there and the CPU; saves gpu.json.

    Parts: ceilings, steps, agreement, rivals, crossovers, sweep, batches. JAX and PyTorch take part
    if they are installed for CUDA. What is known so far is saved after each part.
    """
    from .speed import gpu

    names = parts.split(",") if parts else list(gpu.PARTS)
    path = Path(out) / "gpu.json"
    with usage_errors():
        if unknown := sorted(set(names) - set(gpu.PARTS)):
            raise ValueError(f"--parts must be among {list(gpu.PARTS)}, got {unknown}")
        choose_device("gpu")

    def keep(found):
        records.write_json(path, found | records.environment())

    found = gpu.measure(remark, keep, names)
    say(gpu.table(found))
    say(f"Saved {path}")


@main.command()
@click.argument("problem", type=PROBLEM)
@click.option("--variant", help="As for train.")
@click.option("--batch", type=click.IntRange(1), help="Samples a step.  [default: the paper's]")
@click.option("--method", type=choice(METHODS), default="auto", help="Half-inverse.")
@click.option("--memory-limit", type=click.FloatRange(0, min_open=True), help="GB a step may take.")
def memory(problem, variant, batch, method, memory_limit):
    """Estimate the memory of one HIG step on PROBLEM, part by part, before any is taken."""
    with usage_errors():
        experiment = choose(problem, variant)
        setting, task = experiment.settings["hig"], experiment.problem()
        size, tau = batch or setting.batch, setting.optimizer.tau
        limit = None if memory_limit is None else 1e9 * memory_limit
        tile = fitting_tile(task, size, method=method, tau=tau, memory_limit=limit)
        estimate = memory_estimate(task, size, method=method, tau=tau, tile=tile)
    say(str(estimate))
    if tile is not None:
        say(f"Row factors are made for {tile} samples at a time to stay under the limit.")


@main.command("profile")
@click.argument("problem", type=PROBLEM)
@click.option("--optimizer", type=choice(OPTIMIZERS), default="hig")
@click.option("--variant", help="As for train.")
@click.option("--batch", type=click.IntRange(1), help="Samples a step.  [default: the paper's]")
@click.option("--steps", type=click.IntRange(1), default=20, help="How many are timed.")
@click.option("--device", type=choice(DEVICES), default="auto")
def profile_step(problem, optimizer, variant, batch, steps, device):
    """Milliseconds of each part of a training step on PROBLEM, medians over some steps."""
    with usage_errors():
        experiment = choose(problem, variant)
        setting = configure(setting_of(experiment, optimizer), {"batch": batch})
        task = experiment.problem().on(choose_device(device)[0])
        found = profile(task, setting.optimizer, batch=setting.batch, steps=steps)
    say(f"{problem}: a step of {setting.optimizer}, batch {setting.batch}\n{found}")


@main.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False), default="bench/results")
def tabulate(folder):
    """Tabulate the runs in FOLDER: medians over seeds of the test loss after some times."""
    from .paper import tables

    say(tables.report(Path(folder)))


for of_the_paper in command_line.COMMANDS:
    main.add_command(of_the_paper)


if __name__ == "__main__":
    main(prog_name="python -m bench")
