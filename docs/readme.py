"""What the README has of results: ``python docs/readme.py`` writes it anew between its marks.

A test compares it with the files in bench/results.
"""

import re

from figures import RIVALS, times_ours
from measured import ROOT, load, loss, seconds, verdicts

from bench.paper.tables import markdown

BETWEEN_MARKS = r"(?<=<!-- {} -->\n).*?(?=<!-- end -->)"
ROWS = {
    "two coupled oscillators": ("oscillators-300s", "300 s", "oscillators", "oscillators-12s"),
    "quantum dipole": ("dipole-180s", "180 s", "dipole", "dipole-12s"),
    "the same, convolutional": ("dipole-cnn-180s", "180 s", "dipole-cnn", "dipole-cnn-12s"),
    "the paper's toy": ("toy-1000epochs", "1000 epochs", "toy", "toy-12s"),
    "Poisson": ("poisson-60s", "60 s", "poisson-paper", "poisson-60s"),
}


def table():
    """The README's table: the losses of HIG, Adam and AdaptiveHIG, and the race of a step."""
    rows = []
    for problem, (file, trained, race, short) in ROWS.items():
        step = seconds(load("speed-rivals")["rivals"][race]["higcore"]["median"])
        reached = (loss(file, name) for name in ("hig", "adam"))
        others = (times_ours(race, RIVALS[label]) for label in ("JAX, eigh", "PyTorch, eigh"))
        own = f"{loss(short, 'adaptive')} ({short.rpartition('-')[2][:-1]} s)"
        rows.append((problem, trained, *reached, own, step, *others))
    header = ("", "trained", "HIG", "Adam", "AdaptiveHIG", "a HIG step", "in JAX", "in PyTorch")
    return markdown(header, rows)


def rewritten(text):
    """The README's text with its table and the count of verdicts made anew."""
    for name, made in {"figures": table, "verdicts": verdicts}.items():
        text = re.sub(BETWEEN_MARKS.format(name), f"{made()}\n", text, flags=re.DOTALL)
    return text


if __name__ == "__main__":
    path = ROOT / "README.md"
    path.write_text(rewritten(path.read_text()))
