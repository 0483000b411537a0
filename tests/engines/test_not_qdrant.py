"""What answers with status 200 and is not Qdrant: one readable error, whatever it sends."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from clients import LetterEncoder, opened

from qdrant_embed import ServerRefusal

ANSWERS = [b"<html>hi</html>", b"", b"{}", b"[]", b'"x"', b'{"result": null}', b'{"result": 5}']


@pytest.fixture(params=ANSWERS, ids=repr)
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """Address of a server that answers everything alike."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(request.param)))
            self.end_headers()
            self.wfile.write(request.param)

        do_POST = do_PUT = do_PATCH = do_GET  # noqa: N815 - their names

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def test_it_is_one_error(kind: str, url: str) -> None:
    with opened(kind, url=url, check_compatibility=False) as client:
        client.set_model(LetterEncoder())
        for ask in (
            lambda: client.query("demo", "cat"),
            lambda: client.add("demo", ["cat"]),
            lambda: client.delete_documents("demo", [1]),
            lambda: client.get_documents("demo", [1]),
            lambda: client.migrate_model("demo", LetterEncoder(), "new"),
        ):
            with pytest.raises(ServerRefusal, match="about collection 'demo' is not Qdrant"):
                ask()
