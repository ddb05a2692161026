"""The Python of the site's pages, and a process that runs it as a reader would."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def text_of(page):
    """The Markdown of a page."""
    return (ROOT / "docs" / f"{page}.md").read_text()


def blocks_of(page):
    """The Python of a page, block by block."""
    return re.findall(r"^```python\n(.*?)^```$", text_of(page), re.MULTILINE | re.DOTALL)


def run(blocks, folder):
    """Save the blocks that name a file, run the others in order; return what they print."""
    script = []
    for block in blocks:
        name = re.match(r"# (\w+\.py)\n", block)
        if name:
            (folder / name[1]).write_text(block)
        else:
            script.append(block)
    (folder / "page.py").write_text("\n".join(script))
    result = subprocess.run(
        [sys.executable, "-W", "error", "page.py"],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(folder)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout
