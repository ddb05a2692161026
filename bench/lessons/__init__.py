"""The mathematics of half-inverse gradients line by line: scripts that open as notebooks.

``python -m bench.lessons.lesson1_the_update_by_hand [folder]`` runs a lesson and leaves its
pictures in the folder, by default ``bench/results/lessons``. Jupytext opens the file as a notebook.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

from PIL import Image  # matplotlib brings it

from ..records import replacing

RESULTS = Path(__file__).parents[1] / "results" / "lessons"
COLORS = 256  # of the palette of a picture, which halves the file


class Picture:
    """A saved PNG, which a notebook shows where it is the last expression of a cell."""

    def __init__(self, path):
        self.path = path

    def _repr_png_(self):
        return self.path.read_bytes()


def folder(arguments):
    """Where pictures go, for the arguments of a command line; a notebook's begin with an option."""
    named = bool(arguments) and not arguments[0].startswith("-")
    return Path(arguments[0]) if named else RESULTS


def show(figure, name):
    """Save a matplotlib Figure under ``name`` in `folder` and return its `Picture`."""
    path, buffer = folder(sys.argv[1:]) / name, io.BytesIO()
    figure.savefig(buffer, dpi=120)
    with replacing(path) as partial:
        Image.open(buffer).convert("RGB").quantize(COLORS).save(partial, optimize=True)
    return Picture(path)
