"""A headless Chromium, driven by its DevTools protocol over a pipe: no package, and no port."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import struct
import subprocess
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

BINARY = next(
    filter(None, map(shutil.which, ("chromium", "google-chrome", "chromium-browser"))), None
)
# what stands for keys that print nothing
_CODES = {
    "Enter": 13,
    "Escape": 27,
    "Tab": 9,
    " ": 32,
    "ArrowLeft": 37,
    "ArrowUp": 38,
    "ArrowRight": 39,
    "ArrowDown": 40,
}
_SECONDS = 30.0
_OPTIONS = (
    "--headless=new",
    "--remote-debugging-pipe",
    "--no-sandbox",  # which root, as in a container, cannot have
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--disable-lcd-text",  # pictures of grey text are smaller
    "--force-device-scale-factor=1",
    "--lang=en-US",
)
# the pixels of a picture, four bytes each
_PIXELS = """(async () => {
  const image = new Image();
  image.src = %s;
  await image.decode();
  const canvas = new OffscreenCanvas(image.width, image.height).getContext("2d");
  canvas.drawImage(image, 0, 0);
  const bytes = canvas.getImageData(0, 0, image.width, image.height).data;
  let data = "";
  for (let at = 0; at < bytes.length; at += 3072)
    data += btoa(String.fromCharCode(...bytes.subarray(at, at + 3072)));
  return {data, width: image.width, height: image.height};
})()"""


@dataclass
class Page:
    """A tab: what is done with it, and what it complained of.

    Attributes:
        complaints: errors of scripts, and what the page's policy refused.
        requested: addresses that it asked for.
    """

    _reading: int
    _writing: int
    _session: str = ""
    complaints: list[str] = field(default_factory=list)
    requested: list[str] = field(default_factory=list)
    _number: int = 0
    _unread: bytes = b""

    def send(self, method: str, **params: Any) -> Any:
        """Send a command and return its result."""
        self._number += 1
        command: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self._session:
            command["sessionId"] = self._session
        os.write(self._writing, json.dumps(command).encode() + b"\0")
        while True:
            message = self._next()
            if message.get("id") == self._number:
                assert "error" not in message, message
                return message["result"]
            self._note(message.get("method"), message.get("params", {}))

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._unread:
            ready, _, _ = select.select([self._reading], [], [], _SECONDS)
            assert ready, "Chromium does not answer"
            read = os.read(self._reading, 1 << 20)
            assert read, "Chromium has ended"
            self._unread += read
        line, _, self._unread = self._unread.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        return message

    def _note(self, method: str | None, params: dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(params["exceptionDetails"])[:500])
        elif method == "Log.entryAdded" and params["entry"]["source"] in ("security", "javascript"):
            self.complaints.append(params["entry"]["text"])
        elif method == "Page.javascriptDialogOpening":
            self.complaints.append(f"dialog: {params['message']}")
        elif method == "Network.requestWillBeSent":
            self.requested.append(params["request"]["url"])

    def attach(self) -> None:
        """Open a tab, and listen to it."""
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        found = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self._session = found["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "DOM"):
            self.send(f"{domain}.enable")

    def open(self, url: str) -> None:
        """Go to an address; what is there need not be loaded yet."""
        self.send("Page.navigate", url="about:blank")
        self.send("Page.navigate", url=url)

    def look(self, expression: str) -> Any:
        """Return the value of an expression in the page."""
        found = self.send(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, expression: str) -> Any:
        """Return the value of an expression once it is true."""
        until = time.monotonic() + _SECONDS
        while not (value := self.look(expression)):
            text = "document.body && document.body.innerText.slice(0, 2000)"
            assert time.monotonic() < until, f"{expression}\n{self.look(text)}"
            time.sleep(0.02)
        return value

    def click(self, selector: str) -> None:
        """Click in the middle of an element, with the mouse."""
        quoted = json.dumps(selector)
        self.look(f"document.querySelector({quoted}).scrollIntoView({{block: 'center'}})")
        box = self.look(f"document.querySelector({quoted}).getBoundingClientRect().toJSON()")
        place = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **place)

    def press(self, *keys: str) -> None:
        """Press keys one after the other."""
        for key in keys:
            code = _CODES.get(key, ord(key[0].upper()))
            text = "\r" if key == "Enter" else key if len(key) == 1 else ""
            down = {"text": text} if text else {}
            for kind, more in (("keyDown", down), ("keyUp", {})):
                self.send(
                    "Input.dispatchKeyEvent",
                    type=kind, key=key, code=key, windowsVirtualKeyCode=code, **more,
                )  # fmt: skip

    def type(self, text: str) -> None:
        """Type text into what has the focus."""
        self.send("Input.insertText", text=text)

    def fill(self, selector: str, text: str) -> None:
        """Replace what an input has, as a user does."""
        quoted = json.dumps(selector)
        self.look(
            f"document.querySelector({quoted}).focus(), document.querySelector({quoted}).select()"
        )
        self.type(text)

    def choose(self, selector: str, value: str) -> None:
        """Choose an option of a select."""
        self.look(
            f"(() => {{ const one = document.querySelector({json.dumps(selector)});"
            f"one.value = {json.dumps(value)};"
            "one.dispatchEvent(new Event('change', {bubbles: true})); })()"
        )

    def give_file(self, selector: str, path: Path) -> None:
        """Choose a file in an input."""
        root = self.send("DOM.getDocument")["root"]["nodeId"]
        node = self.send("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.send("DOM.setFileInputFiles", nodeId=node, files=[str(path)])

    def show(self, *, width: int, height: int, dark: bool) -> None:
        """Set the size of the window, and the theme."""
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip
        features = [
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]
        self.send("Emulation.setEmulatedMedia", features=features)

    def picture(self) -> bytes:
        """Return what the window shows as PNG of 256 colours, which is a third of another's size.

        The page is left: its policy would not let its pixels be read.
        """
        shown = self.send("Page.captureScreenshot", format="png")["data"]
        self.open("about:blank")
        self.wait("location.href === 'about:blank'")
        pixels = self.look(_PIXELS % json.dumps(f"data:image/png;base64,{shown}"))
        rgb = np.frombuffer(base64.b64decode(pixels["data"]), np.uint8).reshape(-1, 4)[:, :3]
        colors, places, counts = np.unique(rgb, axis=0, return_inverse=True, return_counts=True)
        palette = colors[np.argsort(-counts)[:256]]
        far = colors[:, None, :].astype(np.int32) - palette[None]
        nearest = (far**2).sum(axis=2).argmin(axis=1).astype(np.uint8)
        rows = nearest[places.reshape(-1)].reshape(pixels["height"], pixels["width"])
        size = struct.pack(">IIBBBBB", pixels["width"], pixels["height"], 8, 3, 0, 0, 0)
        lines = b"".join(b"\0" + row.tobytes() for row in rows)
        chunks = (
            (b"IHDR", size),
            (b"PLTE", palette.tobytes()),
            (b"IDAT", zlib.compress(lines, 9)),
            (b"IEND", b""),
        )
        return b"\x89PNG\r\n\x1a\n" + b"".join(
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
            for kind, data in chunks
        )


@contextmanager
def chromium(folder: Path) -> Iterator[Page]:
    """Run the block with a tab of a browser whose profile is in a folder."""
    assert BINARY is not None
    reading, to_us = os.pipe()
    from_us, writing = os.pipe()
    # the browser reads from 3 and writes to 4
    command = f'exec "$@" 3<&{from_us} 4>&{to_us}'
    arguments = [BINARY, *_OPTIONS, f"--user-data-dir={folder}", "about:blank"]
    process = subprocess.Popen(
        ["bash", "-c", command, "bash", *arguments],
        pass_fds=(from_us, to_us),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "HOME": str(folder)},
    )
    os.close(from_us)
    os.close(to_us)
    page = Page(reading, writing)
    try:
        page.attach()
        yield page
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        os.close(reading)
        os.close(writing)
