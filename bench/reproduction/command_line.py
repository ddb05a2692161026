"""The commands ``figure``, ``table``, ``claims`` and ``report``; what they do is in `commands`."""

from __future__ import annotations

import functools
import sys
from pathlib import Path

import click

from ..terminal import say
from .executors import KINDS, place

FOLDER = click.Path(file_okay=False, path_type=Path)
EXISTING = click.Path(exists=True, file_okay=False, path_type=Path)


def runs_in(folder):
    """The option that names the folder of a command's runs."""
    return click.option(
        "--runs", "folder", type=FOLDER, default=folder,
        help="Folder of the runs: those that it holds are not made again.",
    )  # fmt: skip


RUNS = runs_in("runs/paper")
BUDGET = click.option(
    "--budget", type=click.Choice(["short", "paper"]), default="short", help="Of all runs."
)
SEEDS = click.option(
    "--seeds", type=click.IntRange(1), help="Seeds 0, 1, ... of every run.  [default: 3]"
)
SCHEDULER = click.option("--scheduler", help="Dask's: its address, or its scheduler file.")
WORKERS = click.option(
    "--workers", type=click.IntRange(1), help="Runs at a time.  [default: one a core]"
)
NO_RUNS = click.option(
    "--no-runs", is_flag=True, help="Make none; take those that are there, of earlier code, too."
)
OUT = click.option("--out", type=FOLDER, default="runs", help="Folder of what is drawn or written.")
FIGURES, TABLES = range(1, 14), range(1, 6)


def number_of(known, *others):
    """The argument of a command: the number of a figure or table, all of them, or another name."""

    def chosen(context, parameter, value):
        return list(known) if value == "all" else [value if value in others else int(value)]

    choice = click.Choice([*map(str, known), "all", *others])
    metavar = "|".join(("NUMBER", "all", *others))
    return click.argument("numbers", metavar=metavar, type=choice, callback=chosen)


def placed(where="processes"):
    """The options that say where a command's runs are made, which it gets as ``place``.

    None if no place is named and there is none by default.
    """
    executor = click.option(
        "--executor", type=click.Choice(KINDS), default=where,
        help="Runs side by side: here, on the ranks of mpiexec, or by Dask's workers.",
    )  # fmt: skip

    def decorated(command):
        @executor
        @SCHEDULER
        @WORKERS
        @functools.wraps(command)
        def with_place(executor, scheduler, workers, **options):
            return command(place=_place(executor, scheduler, workers), **options)

        return with_place

    return decorated


def _place(executor, scheduler, workers):
    if executor is None:
        if scheduler or workers:
            raise click.UsageError("--scheduler and --workers go with --executor; it is not given")
        return None
    try:
        return place(executor, scheduler, workers)
    except ValueError as error:
        raise click.UsageError(str(error)) from error


@click.command()
@number_of(FIGURES, "levels")
@BUDGET
@SEEDS
@placed()
@NO_RUNS
@RUNS
@OUT
def figure(numbers, budget, seeds, place, no_runs, folder, out):
    """Make the runs of figure NUMBER of the paper, 1 to 13, and draw it: PNG and PDF.

    Runs go side by side, one a core. After Ctrl-C, or worse, the same command goes on where it was.
    All figures take under two hours on two cores; --budget paper gives a run the paper's hours.
    levels are the losses at which runs with the paper's settings end: on the oscillators five
    minutes of Adam and Gauss-Newton and half an hour of HIG, on the dipole ten minutes of HIG.
    """
    from . import commands

    failed = commands.figures(numbers, budget, seeds, place, no_runs, folder, out, say)
    sys.exit(int(bool(failed)))


@click.command()
@number_of(TABLES)
@RUNS
@OUT
def table(numbers, folder, out):
    """Print table NUMBER of the paper, 1 to 5, with our figures beside the paper's.

    1: in which norm each method is steepest descent. 2: settings. 3 to 5: memory and times of the
    steps; leave the machine alone while they are measured.
    """
    from . import commands

    sys.exit(int(bool(commands.table(numbers, folder, out, say))))


@click.command()
@BUDGET
@SEEDS
@NO_RUNS
@RUNS
@OUT
def claims(budget, seeds, no_runs, folder, out):
    """Judge what the paper claims by the runs of its figures; saves REPRODUCTION.md.

    Nothing is trained: figure all and figure levels come first.
    """
    from . import commands

    commands.claims(budget, seeds, no_runs, folder, out, say)


@click.command()
@click.argument("results", type=EXISTING, default="bench/results")
@OUT
def report(results, out):
    """Build one HTML page of a folder of RESULTS; saves report.html, which needs no network.

    It has the claims, figures and tables that the other commands saved there, the race of a step,
    machine and versions.
    """
    from . import commands

    commands.report(results, out, say)


COMMANDS = (figure, table, claims, report)
