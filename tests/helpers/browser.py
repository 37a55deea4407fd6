"""A real browser without a screen, driven through a pipe in the DevTools protocol.

https://chromedevtools.github.io/devtools-protocol/: messages are JSON, each ended by a NUL; the
browser reads them from its descriptor 3 and writes to 4. So no port is open, and no library needed.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

PROGRAMS = ("chromium-headless-shell", "chromium", "google-chrome")
OPTIONS = (
    "--headless",
    "--remote-debugging-pipe",
    "--no-sandbox",  # root has none
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--hide-scrollbars",
)


def program() -> str | None:
    """The browser of this machine, if it has one."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


class Browser:
    """One window; ``open`` shows a page in it."""

    def __init__(self, to: BinaryIO, came_from: BinaryIO) -> None:
        self._to, self._from = to, came_from
        self._number = 0
        self._session: str | None = None
        self.requests: list[str] = []
        self.faults: list[str] = []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        attached = self.ask("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **params: Any) -> Any:
        """One command, and its answer."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        self._to.write(json.dumps(message).encode() + b"\0")
        while (said := self._next()).get("id") != self._number:
            self._note(said)
        assert "error" not in said, said
        return said["result"]

    def open(self, path: Path, width: int = 1000, height: int = 800, scripts: bool = True) -> None:
        """Show a page, in a window of this size, and wait until it stands."""
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip
        self.ask("Emulation.setScriptExecutionDisabled", value=not scripts)
        self.requests, self.faults = [], []
        self.ask("Page.navigate", url=path.as_uri())
        while (said := self._next()).get("method") != "Page.loadEventFired":
            self._note(said)

    def run(self, script: str) -> Any:
        """The value of an expression in the page."""
        answer = self.ask("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def picture(self, width: int, height: int) -> bytes:
        """A PNG of the top of the page."""
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        answer = self.ask("Page.captureScreenshot", format="png", clip=clip)
        return base64.b64decode(answer["data"])

    def read_aloud(self) -> list[tuple[str, str]]:
        """(role, name) of all that a screen reader is told."""
        nodes = self.ask("Accessibility.getFullAXTree")["nodes"]
        return [
            (node["role"]["value"], node.get("name", {}).get("value", ""))
            for node in nodes
            if not node["ignored"]
        ]

    def _next(self) -> Any:
        text = bytearray()
        while (byte := self._from.read(1)) != b"\0":
            assert byte, "the browser has ended"
            text += byte
        return json.loads(text)

    def _note(self, said: Any) -> None:
        """What happens by itself: each request, each complaint of the browser."""
        params = said.get("params", {})
        if said.get("method") == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif said.get("method") == "Log.entryAdded":
            self.faults.append(params["entry"]["text"])
        elif said.get("method") == "Runtime.exceptionThrown":
            self.faults.append(str(params["exceptionDetails"]))

    def close(self) -> None:
        self._session = None
        self.ask("Browser.close")


@contextmanager
def running(binary: str, home: Path) -> Iterator[Browser]:
    """A browser with nothing of this user's; ended in the end."""
    its_in, to_fd = os.pipe()
    from_fd, its_out = os.pipe()
    command = [binary, *OPTIONS, f"--user-data-dir={home}", "about:blank"]
    process = subprocess.Popen(
        ["bash", "-c", f'exec "$@" 3<&{its_in} 4>&{its_out}', "bash", *command],
        pass_fds=(its_in, its_out),
        env={"PATH": os.environ["PATH"], "HOME": str(home)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    os.close(its_in)
    os.close(its_out)
    try:
        with open(to_fd, "wb", 0) as to, open(from_fd, "rb") as came_from:
            browser = Browser(to, came_from)
            yield browser
            browser.close()
        process.wait(timeout=30)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, 9)
            process.wait()
