"""Look at the built site with headless Chromium: ``python docs/look.py [folder for pictures]``.

Every page is opened on a wide screen and on a phone, light and dark. Said are pages that scroll
sideways, pictures that do not load, formulas that stay source, and what asks for a network.
"""

import asyncio
import base64
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.request import urlopen

from tornado.websocket import websocket_connect  # Jupyter, which runs the lessons, brings it

SITE = Path(__file__).parent / "_build" / "html"
QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--hide-scrollbars",
    "--remote-debugging-port=0",
)  # fmt: skip
WIDTHS, SCHEMES = (1280, 390), ("light", "dark")

FAULTS = """(async () => {
    if (window.MathJax && MathJax.startup) await MathJax.startup.promise;
    const found = [], article = document.querySelector("article").cloneNode(true);
    article.querySelectorAll("pre, mjx-container").forEach(part => part.remove());
    if (document.documentElement.scrollWidth > innerWidth) found.push("scrolls sideways");
    for (const image of document.images)
        if (image.loading !== "lazy" && !image.naturalWidth) found.push("no picture " + image.src);
    for (const formula of document.querySelectorAll(".math"))
        if (!formula.querySelector("mjx-container")) found.push("source " + formula.textContent);
    for (const error of document.querySelectorAll("mjx-merror"))
        found.push("not TeX: " + error.textContent);
    if (/\\{\\{|\\\\[(\\[]|\\$/.test(article.textContent))
        found.push("source in the text");
    for (const {name} of performance.getEntriesByType("resource"))
        if (!/^(file|data|blob):/.test(name)) found.push("asks for " + name);
    return found;
})()"""


class Page:
    """A tab of a Chromium, spoken to by the DevTools protocol."""

    def __init__(self, socket):
        self.socket, self.number, self.events = socket, 0, []

    async def call(self, method, **parameters):
        """Return the answer to a command; events that come meanwhile are kept."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        await self.socket.write_message(json.dumps(message))
        while (answer := json.loads(await self.socket.read_message())).get("id") != self.number:
            self.events.append(answer.get("method"))
        return answer["result"]

    async def open(self, address, width, scheme):
        """Load a page as a screen of some width shows it."""
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        await self.call("Emulation.setDeviceMetricsOverride", **size)
        feature = {"name": "prefers-color-scheme", "value": scheme}
        await self.call("Emulation.setEmulatedMedia", features=[feature])
        self.events.clear()
        await self.call("Page.navigate", url=address)
        while "Page.loadEventFired" not in self.events:
            self.events.append(json.loads(await self.socket.read_message()).get("method"))

    async def faults(self):
        """What is wrong with the page, one sentence each."""
        options = {"awaitPromise": True, "returnByValue": True}
        answer = await self.call("Runtime.evaluate", expression=FAULTS, **options)
        return answer["result"].get("value", [f"no answer: {answer}"])

    async def picture(self, path):
        """Save the page from its top to its bottom."""
        answer = await self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(answer["data"]))


async def look(folder, port):
    """Look at all pages; return the faults."""
    with urlopen(f"http://127.0.0.1:{port}/json") as answer:
        target = next(t for t in json.load(answer) if t["type"] == "page")
    socket = await websocket_connect(target["webSocketDebuggerUrl"], max_message_size=2**28)
    page, found = Page(socket), []
    await page.call("Page.enable")
    for path in sorted(SITE.rglob("*.html")):
        name = "-".join(path.relative_to(SITE).with_suffix("").parts)
        for width in WIDTHS:
            for scheme in SCHEMES:
                await page.open(path.as_uri(), width, scheme)
                found += [f"{name}, {width}, {scheme}: {fault}" for fault in await page.faults()]
                await page.picture(folder / f"{name}-{width}-{scheme}.png")
    return found


def main(folder):
    """Start Chromium, look, end it."""
    program = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
    if program is None:
        sys.exit("There is no Chromium to look with.")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as profile:
        command = [program, *QUIET, f"--user-data-dir={profile}", "about:blank"]
        browser = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        line = next(line for line in browser.stderr if "DevTools listening" in line)
        port = line.split("127.0.0.1:")[1].split("/")[0]
        try:
            faults = asyncio.run(look(folder, port))
        finally:
            browser.terminate()
            browser.communicate()
    print("\n".join(faults) or "Nothing wrong was seen.")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if sys.argv[1:] else SITE.parent / "pictures")))
