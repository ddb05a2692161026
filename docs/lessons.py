"""The lessons of bench/lessons as pages of the site, run when it is built.

A lesson is a script with `# %%` cells, which Jupytext reads as the notebook that it is.
"""

import shutil
from pathlib import Path

import jupytext
import nbformat

HERE = Path(__file__).parent
SOURCE, PAGES = HERE.parent / "bench" / "lessons", HERE / "lessons"

# A first cell that is not shown: where `bench` is found, and the folder that pictures are left in.
BEFORE = """import sys
sys.path.insert(0, {root!r})
sys.argv[1:] = [{pictures!r}]"""


def setup(app):
    """Put the lessons where Sphinx looks for pages; a file that has not changed stays."""
    PAGES.mkdir(exist_ok=True)
    for path in SOURCE.glob("lesson*.py"):
        page = PAGES / path.name
        if not page.exists() or page.read_bytes() != path.read_bytes():
            shutil.copyfile(path, page)
    app.connect("source-read", link_here)


def read(text):
    """The notebook of a lesson."""
    notebook = jupytext.reads(text, "py:percent")
    before = BEFORE.format(root=str(HERE.parent), pictures=str(HERE / "_build" / "lessons"))
    cell = nbformat.v4.new_code_cell(before, metadata={"tags": ["remove-cell"]})
    notebook.cells.insert(1, cell)
    return notebook


def link_here(app, page, source):
    """A link to a lesson's script, as a code host needs it, leads to its page on the site."""
    source[0] = source[0].replace("](../bench/lessons/lesson", "](/lessons/lesson")
