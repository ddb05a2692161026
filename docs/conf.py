"""Sphinx's settings for the site; README.md says how it is built."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import docstrings  # noqa: E402
import figures  # noqa: E402
import lessons  # noqa: E402
import measured  # noqa: E402
import sentences  # noqa: E402

import higcore  # noqa: E402
from bench.reproduction import report  # noqa: E402

project, author = "higcore", "the higcore authors"
version = release = higcore.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "numpydoc",
    "sphinx.ext.mathjax",
    "sphinx-mathjax-offline",  # MathJax is copied into the site, which so needs no network
]
exclude_patterns = ["_build", "*.py"]
nitpicky = True  # a name in a docstring that leads nowhere is a warning, and so an error
nitpick_ignore_regex = [("py:.*", name) for name in docstrings.ELSEWHERE]

myst_enable_extensions = ["dollarmath", "substitution"]
myst_heading_anchors = 3
myst_substitutions = figures.substitutions() | sentences.substitutions()

nb_custom_formats = {".py": "lessons.read"}
nb_execution_mode = "force"
nb_execution_timeout = 300
nb_execution_raise_on_error = True

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings say shapes, which annotations cannot
autodoc_default_options = {"members": True}
numpydoc_show_class_members = False
default_role = "py:obj"  # `half_inverse` in a docstring is a link

html_theme = "furo"
html_title = "higcore"
html_static_path = ["_static"]
html_css_files = ["higcore.css"]
html_copy_source = False
html_show_copyright = False


def setup(app):
    """Bring the lessons in; link them and the reference to one another; add the report."""
    lessons.setup(app)
    docstrings.setup(app)
    app.connect("build-finished", add_report)


def add_report(app, error):
    """Put the page of figures and claims beside the others."""
    if app.builder.format == "html" and not error:
        (Path(app.outdir) / "report.html").write_text(report.page(measured.RESULTS))
