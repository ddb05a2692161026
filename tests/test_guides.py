"""The code of the guides runs as it stands, each page in one namespace, and no wish takes long."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGES = ["fitting"]
MOST_LINES = 3


def blocks(page):
    """The Python of a page, block by block."""
    text = (DOCS / f"{page}.md").read_text()
    return re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES)
def test_the_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": page}
    for number, block in enumerate(blocks(page)):
        exec(compile(block, f"{page}.md, block {number}", "exec"), names)


@pytest.mark.parametrize("page", PAGES)
def test_wishes_are_short(page):
    """But for the first block, which makes what all others use."""
    _, *wishes = blocks(page)
    assert wishes
    lengths = {wish: len(list(filter(str.strip, wish.splitlines()))) for wish in wishes}
    assert [wish for wish, length in lengths.items() if length > MOST_LINES] == []
