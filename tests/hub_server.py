"""A model hub on loopback: the few endpoints huggingface_hub asks, serving a folder."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """One repository, and a record of what was asked."""

    name: str
    folder: Path
    url: str = ""
    requests: list[str] = field(default_factory=list)


@contextmanager
def serving(name: str, folder: Path) -> Iterator[Hub]:
    """Serves `folder` as repository `name` while the block runs."""
    hub = Hub(name, folder)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            hub.requests.append(f"{self.command} {self.path}")
            path = self.path.partition("?")[0]
            files = sorted(file for file in folder.rglob("*") if file.is_file())
            if path == f"/api/models/{name}/revision/main":
                siblings = [{"rfilename": file.relative_to(folder).as_posix()} for file in files]
                self.answer(200, json.dumps({"id": name, "sha": COMMIT, "siblings": siblings}))
            elif path.startswith(f"/api/models/{name}/tree/"):
                self.answer(
                    200,
                    json.dumps(
                        [
                            {
                                "type": "file",
                                "path": file.relative_to(folder).as_posix(),
                                "size": file.stat().st_size,
                                "oid": hashlib.sha1(file.read_bytes()).hexdigest(),
                            }
                            for file in files
                        ]
                    ),
                )
            elif path.startswith(f"/{name}/resolve/"):
                file = folder / path.split("/", 5)[5]
                if file.is_file():
                    etag = hashlib.sha256(file.read_bytes()).hexdigest()
                    self.answer(200, file.read_bytes(), ETag=f'"{etag}"')
                else:
                    self.answer(404, "{}", **{"X-Error-Code": "EntryNotFound"})
            else:
                self.answer(404, "{}", **{"X-Error-Code": "RepoNotFound"})

        do_HEAD = do_GET

        def answer(self, status: int, body: str | bytes, **headers: str) -> None:
            content = body.encode() if isinstance(body, str) else body
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("X-Repo-Commit", COMMIT)
            for header, value in headers.items():
                self.send_header(header, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
