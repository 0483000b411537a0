"""A model hub on loopback: the endpoints that are asked, serving a folder, with faults on order."""

from __future__ import annotations

import hashlib
import json
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from huggingface_hub import constants

from qdrant_embed.encoder.facts.precision import Precision
from qdrant_embed.encoder.files.cache import cache_folder
from qdrant_embed.encoder.files.model_files import find_model

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Fault:
    """What goes wrong with requests whose path contains `where`, the first `times` of them.

    Attributes:
        where: part of the path.
        times: how often.
        status: answered instead of 200.
        headers: added; `None` removes one.
        body: what becomes of the body, before its length is stated.
        reset_after: bytes of the body after which the connection is reset.
        close_after: bytes of the body after which it is closed.
        pause: seconds before each ten bytes of the body.
    """

    where: str
    times: int = 1_000_000
    status: int | None = None
    headers: dict[str, str | None] = field(default_factory=dict)
    body: Callable[[bytes], bytes] | None = None
    reset_after: int | None = None
    close_after: int | None = None
    pause: float = 0.0


@dataclass
class Hub:
    """One repository, what goes wrong with it, and a record of what was asked."""

    name: str
    folder: Path
    url: str = ""
    commit: str = COMMIT
    token: str | None = None
    redirects: bool = False
    faults: list[Fault] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    ranges: list[str] = field(default_factory=list)
    tokens: set[str | None] = field(default_factory=set)

    def asked(self, what: str) -> int:
        """How many requests had `what` in their path."""
        return sum(what in request for request in self.requests)


def corrupted(body: bytes) -> bytes:
    """The same length, one bit different."""
    return body[:-1] + bytes([body[-1] ^ 1])


@contextmanager
def serving(name: str, folder: Path) -> Iterator[Hub]:
    """Serves `folder` as repository `name` while the block runs."""
    hub = Hub(name, folder)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            hub.requests.append(f"{self.command} {self.path}")
            if name in self.path:  # huggingface_hub has a question of its own
                hub.tokens.add(self.headers.get("Authorization"))
            path = self.path.partition("?")[0]
            if hub.token and self.headers.get("Authorization") != f"Bearer {hub.token}":
                self.answer(401, b"{}", {"X-Error-Code": "RepoNotFound"})
            elif path.startswith(f"/api/models/{name}/revision/"):
                if path.rpartition("/")[2] in ("main", hub.commit):
                    self.answer(200, json.dumps(self.model()).encode(), {})
                else:
                    self.answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            elif path.startswith(f"/{name}/resolve/") and hub.redirects:
                self.answer(302, b"", {"Location": f"/cdn/{path.split('/', 5)[5]}"})
            elif path.startswith((f"/{name}/resolve/", "/cdn/")):
                parts = path.split("/", 2 if path.startswith("/cdn/") else 5)
                file = folder / parts[-1]
                if file.is_file():
                    self.file(file)
                else:
                    self.answer(404, b"{}", {"X-Error-Code": "EntryNotFound"})
            else:
                self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})

        do_HEAD = do_GET  # huggingface_hub's own downloads ask so

        def model(self) -> dict[str, object]:
            files = sorted(file for file in folder.rglob("*") if file.is_file())
            siblings = []
            for file in files:
                content = file.read_bytes()
                sibling: dict[str, object] = {
                    "rfilename": file.relative_to(folder).as_posix(),
                    "size": len(content),
                    "blobId": hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest(),
                }
                if file.suffix in (".safetensors", ".onnx", ".bin", ".pt"):
                    digest = hashlib.sha256(content).hexdigest()
                    sibling["lfs"] = {"sha256": digest, "size": len(content), "pointerSize": 134}
                siblings.append(sibling)
            return {"id": name, "sha": hub.commit, "siblings": siblings}

        def file(self, file: Path) -> None:
            content = file.read_bytes()
            headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"'}
            asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
            if not asked:
                self.answer(200, content, headers)
                return
            hub.ranges.append(asked[0])
            start = int(asked[1])
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self.answer(206, content[start:], headers)

        def answer(self, status: int, body: bytes, extra: dict[str, str]) -> None:
            fault = next((f for f in hub.faults if f.where in self.path and f.times), Fault(""))
            fault.times -= 1
            if fault.status is not None:
                status = fault.status
            if fault.body is not None:
                body = fault.body(body)
            headers: dict[str, str | None] = {
                "Content-Length": str(len(body)),
                "X-Repo-Commit": hub.commit,
                **extra,
                **fault.headers,
            }
            self.send_response(status)
            for header, value in headers.items():
                if value is not None:
                    self.send_header(header, value)
            self.end_headers()
            if self.command == "HEAD":
                return
            try:
                self.send(body, fault)
            except OSError:
                self.close_connection = True  # whoever asked is gone

        def send(self, body: bytes, fault: Fault) -> None:
            if fault.pause:
                for start in range(0, len(body), 10):
                    time.sleep(fault.pause)
                    self.wfile.write(body[start : start + 10])
                return
            cut = fault.reset_after if fault.reset_after is not None else fault.close_after
            self.wfile.write(body[:cut])
            if cut is not None:
                self.wfile.flush()
                time.sleep(0.1)  # for what was sent to be read
                self.close_connection = True
            if fault.reset_after is not None:
                linger = struct.pack("ii", 1, 0)
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                self.connection.close()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda request, client_address: None  # type: ignore[method-assign] # resets are ordered
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def asked(hub: Hub) -> Iterator[Hub]:
    """Have models be fetched from `hub` while the block runs."""
    before, constants.ENDPOINT = constants.ENDPOINT, hub.url
    try:
        yield hub
    finally:
        constants.ENDPOINT = before


def downloaded(name: str, folder: Path, precision: Precision = "int8") -> str:
    """Download `folder` as repository `name` into the cache folder in use; return the name.

    A client that has no model follows a collection of such a model, and of no folder.
    """
    with serving(name, folder) as hub, asked(hub):
        find_model(name, cache=cache_folder(), precision=precision)
    return name
