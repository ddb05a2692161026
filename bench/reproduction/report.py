"""One HTML page of a folder of results: claims, figures, tables, speed, machine and versions."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
from markdown_it import MarkdownIt

from ..paper import tables
from .plans import PLANS

TEMPLATE = Path(__file__).with_name("report.html")
TABLES = {
    1: "In which norm each method's step is steepest descent",
    2: "Settings of figure 2b",
    3: "Oscillators: memory and times of a step",
    4: "Poisson: memory and times of a step",
    5: "Dipole: memory and times of a step",
}
SPEED = {
    "speed-rivals.png": "One HIG step, in units of ours; by eigh(J Jᵀ) and by the SVD of J",
    "speed-profile.png": "What a step is made of, above its arithmetic",
}


class Part(NamedTuple):
    """A heading of the page with what stands under it; ``image`` is a data URI."""

    anchor: str
    title: str
    html: str = ""
    image: str = ""


def page(folder: Path) -> str:
    """The page of what ``folder`` holds; what it does not hold is named there.

    Whoever opens it needs no network: pictures are in it, and there are no scripts.
    """
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    sections = {
        "Claims": list(_claims(folder)),
        "Figures": list(_figures(folder)),
        "Tables": list(_tables(folder)),
        "Speed": list(_speed(folder)),
    }
    template = environment.from_string(TEMPLATE.read_text())
    return template.render(sections=sections, made=list(_made(folder)))


def _claims(folder: Path) -> Iterator[Part]:
    yield Part("claims", "", _html(folder / "REPRODUCTION.md"))


def _figures(folder: Path) -> Iterator[Part]:
    for number, plan in PLANS.items():
        path, is_the_papers = folder / f"figure-{number}.png", isinstance(number, int)
        name = f"Figure {number}" if is_the_papers else str(number).capitalize()
        if is_the_papers or path.exists():
            yield _picture(path.stem, f"{name}. {(plan.__doc__ or '').splitlines()[0]}", path)


def _tables(folder: Path) -> Iterator[Part]:
    for number, title in TABLES.items():
        html = _html(folder / f"table-{number}.md")
        yield Part(f"table-{number}", f"Table {number}. {title}", html)


def _speed(folder: Path) -> Iterator[Part]:
    path = folder / "speed-rivals.json"
    races = json.loads(path.read_text())["rivals"] if path.exists() else {}
    for name, found in races.items():
        yield Part(f"speed-{name}", f"A step of HIG: {name}", _rendered(tables.race(found)))
    for file, title in SPEED.items():
        yield _picture(Path(file).stem, title, folder / file)


def _made(folder: Path) -> Iterator[tuple[str, ...]]:
    """Of the runs and of the race: files, machine, versions, dates."""
    for title, pattern in (("figures, tables", "paper/*.json"), ("speed", "speed-rivals.json")):
        records = [json.loads(path.read_text()) for path in sorted(folder.glob(pattern))]
        dates = sorted(record["date"] for record in records)
        ends = _each(dates[:1] + dates[-1:], " to ")
        yield (
            title,
            str(len(records)),
            _each(map(_machine, records)),
            _each(map(_versions, records)),
            ends,
        )


def _machine(record: dict[str, Any]) -> str:
    return f"{record['machine']['processor']}, {record['machine']['cores']} cores"


def _versions(record: dict[str, Any]) -> str:
    return ", ".join(f"{name} {number}" for name, number in record["versions"].items())


def _each(texts: Iterable[str], between: str = "; ") -> str:
    return between.join(dict.fromkeys(texts))


def _picture(anchor: str, title: str, path: Path) -> Part:
    if not path.exists():
        return Part(anchor, title, _missing(path))
    data = base64.b64encode(path.read_bytes()).decode()
    return Part(anchor, title, image=f"data:image/png;base64,{data}")


def _html(path: Path) -> str:
    """A file of Markdown, without the heading that it begins with."""
    if not path.exists():
        return _missing(path)
    lines = path.read_text().splitlines(keepends=True)
    return _rendered("".join(lines[1:] if lines[0].startswith("# ") else lines))


def _rendered(text: str) -> str:
    """Markdown as HTML; what is HTML in it is shown, and not obeyed. Wide tables scroll alone."""
    markdown = MarkdownIt("js-default")
    markdown.add_render_rule("table_open", lambda *_: '<div class="wide"><table>\n')
    markdown.add_render_rule("table_close", lambda *_: "</table></div>\n")
    return str(markdown.render(text))


def _missing(path: Path) -> str:
    return f"<p>There is no {path.name}.</p>"
