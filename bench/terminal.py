"""What is printed by the commands."""

from __future__ import annotations

import os
import sys

import click


def say(text, err=False):
    """Print a line; that nobody reads it, as behind ``| head -1``, must not cost what follows."""
    try:
        click.echo(text, err=err)
    except (OSError, ValueError):  # the pipe is broken, or the stream closed
        nobody = open(os.devnull, "w")  # noqa: SIM115  for the rest of the program
        setattr(sys, "stderr" if err else "stdout", nobody)


def remark(text):
    """Print a line that is no part of what was asked for."""
    say(text, err=True)
