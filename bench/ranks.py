"""The ranks that ``mpiexec`` started for one run: one of them speaks, and all end together."""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

HEAD_START = 1.0  # seconds in which the first rank may say what all of them have to say


@contextmanager
def all_together() -> Iterator[Any]:
    """Yield MPI's communicator of all ranks, of which those but the first are silent.

    An exception of one ends all, with its message: the others might wait for it for ever.
    """
    try:
        from mpi4py import MPI
    except ImportError:
        raise click.UsageError("--shared needs mpi4py: pip install 'higcore[mpi]'") from None
    comm, said = MPI.COMM_WORLD, sys.stderr
    if comm.rank:
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115  for the rest of the program
    try:
        yield comm
    except Exception as error:
        if comm.rank:
            time.sleep(HEAD_START)
        said.write(_sentence(error))
        said.flush()
        comm.Abort(getattr(error, "exit_code", 1))


def _sentence(error):
    if isinstance(error, (click.ClickException, OSError)):
        text = error.format_message() if isinstance(error, click.ClickException) else error
        return f"Error: {text}\n"
    return "".join(traceback.format_exception(error))
