"""The code of the guides runs as it stands, each page in one namespace, and no wish takes long."""

import pytest
from pages import blocks_of

PAGES = ["fitting"]
MOST_LINES = 3


@pytest.mark.parametrize("page", PAGES)
def test_the_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": page}
    for number, block in enumerate(blocks_of(page)):
        exec(compile(block, f"{page}.md, block {number}", "exec"), names)


@pytest.mark.parametrize("page", PAGES)
def test_wishes_are_short(page):
    """But for the first block, which makes what all others use."""
    _, *wishes = blocks_of(page)
    assert wishes
    lengths = {wish: len(list(filter(str.strip, wish.splitlines()))) for wish in wishes}
    assert [wish for wish, length in lengths.items() if length > MOST_LINES] == []
