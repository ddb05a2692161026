"""The README's one table of figures: ``python docs/readme.py`` writes it anew between its marks.

A test compares it with the files in bench/results.
"""

import re

from figures import RIVALS, times_ours
from measured import ROOT, load, loss, seconds

from bench.paper.tables import markdown

BETWEEN_MARKS = re.compile(r"(?<=<!-- figures -->\n).*?(?=<!-- end -->)", re.DOTALL)
ROWS = {
    "two coupled oscillators": ("oscillators-300s", "300 s", "oscillators"),
    "quantum dipole": ("dipole-180s", "180 s", "dipole"),
    "the same, convolutional": ("dipole-cnn-180s", "180 s", "dipole-cnn"),
    "the paper's toy": ("toy-1000epochs", "1000 epochs", "toy"),
    "Poisson": ("poisson-60s", "60 s", "poisson-paper"),
}


def table():
    """The README's table: the losses of HIG and Adam, and the race of a step."""
    rows = []
    for problem, (file, trained, race) in ROWS.items():
        step = seconds(load("speed-rivals")["rivals"][race]["higcore"]["median"])
        reached = (loss(file, name) for name in ("hig", "adam"))
        others = (times_ours(race, RIVALS[label]) for label in ("JAX, eigh", "PyTorch, eigh"))
        rows.append((problem, trained, *reached, step, *others))
    header = ("", "trained", "HIG", "Adam", "a HIG step", "in JAX", "in PyTorch")
    return markdown(header, rows)


def rewritten(text):
    """The README's text with its table made anew."""
    return BETWEEN_MARKS.sub(lambda _: table() + "\n", text)


if __name__ == "__main__":
    path = ROOT / "README.md"
    path.write_text(rewritten(path.read_text()))
