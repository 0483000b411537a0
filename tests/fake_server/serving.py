"""Servers while a test runs: what they were asked, and what they are told to do.

`serving()` starts one over REST, `serving(grpc=True)` one over REST and gRPC, on the same node.
"""

from __future__ import annotations

import gzip
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import qdrant_client
from qdrant_client import models

from fake_server import rest, rules
from fake_server.faults import Fault
from fake_server.node import Node
from fake_server.rules import Access, RefusedError

MEGABYTE = 1 << 20
COMPRESSED_FROM = 1500  # bytes of an answer


@dataclass
class Server:
    """The running server: its address, its database, what was asked, what to break.

    Requests are named "PUT /collections/demo/points" over REST and "Points/Upsert" over gRPC.

    Attributes:
        node: what answers; `node.distributed` and `node.queueing` are for tests to set.
        url: of REST.
        connections: those of REST that are open.
        grpc_port: of gRPC, None without it.
        requests: names of the requests so far, in order.
        bodies: names and bodies; over gRPC the messages as they are serialised.
        parameters: what follows the "?" in each REST request's path.
        keys: the API key of each request, or None.
        headers: those of each REST request, with lower-case names.
        fault: chooses what to do to a request by its name; see `fail_once`.
        largest: bytes of a request's body that something in front of the server lets through.
        too_large: what that something does to larger ones.
        body_limit: bytes of a REST request's body that the server itself takes: larger ones are
            answered with 400 before they are read, and the connection is reset.
        tokens: what each API key may do: "manage", "read" (read-only), or for each collection
            "r" or "rw". None lets everybody do everything.
        change: changes an answer, given the request's name: bytes, and over gRPC the message.
        stall: seconds between the two writes of an answer of more than 1.5 kB, if the client
            takes compressed ones and its connection has served a request before.
    """

    node: Node
    url: str = ""
    grpc_port: int | None = None
    requests: list[str] = field(default_factory=list)
    bodies: list[tuple[str, bytes]] = field(default_factory=list)
    parameters: list[str] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    fault: Callable[[str], Fault | None] = lambda _: None
    largest: int | None = None
    too_large: Fault = field(default_factory=lambda: Fault(413))
    body_limit: int = 32 * MEGABYTE
    tokens: Mapping[str, Access] | None = None
    change: Callable[[str, Any], Any] = lambda _, message: message
    stall: float = 0.04
    with_grpc: bool = False
    connections: set[socket.socket] = field(default_factory=set)
    _open: ExitStack = field(default_factory=ExitStack)
    _stopped: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        """Listen, on the ports that it had before it was stopped."""
        self._stopped.clear()
        self._open.enter_context(_listening(self))
        if self.with_grpc:
            from fake_server.grpc import listening

            self._open.enter_context(listening(self))

    def stop(self) -> None:
        """Close all connections and listen no more; what is stored stays. `start` goes on."""
        self._stopped.set()
        self._open.close()

    def wait(self, seconds: float) -> None:
        """Return after so many seconds, or as soon as the server is stopped."""
        self._stopped.wait(seconds)

    @property
    def database(self) -> qdrant_client.QdrantClient:
        """The local database behind it."""
        return self.node.database

    @property
    def shards(self) -> list[models.ShardKey]:
        """The shard keys of all collections, in the order they were made."""
        return [key for settings in self.node.settings.values() for key in settings.shard_keys]

    def fail_once(self, fragment: str, fault: Fault, *, times: int = 1) -> None:
        """Break the next `times` requests whose name contains `fragment`."""
        left = times

        def choose(request: str) -> Fault | None:
            nonlocal left
            if fragment in request and left:
                left -= 1
                return fault
            return None

        self.fault = choose

    def fault_of(self, request: str, size: int) -> Fault | None:
        """Return what to do to a request with a body of this size."""
        fault = self.fault(request)
        return self.too_large if self.largest is not None and size > self.largest else fault

    def restrict(self, collection: str, **limits: Any) -> None:
        """Put a collection under strict mode, as a PATCH of its config would."""
        config = models.StrictModeConfig(enabled=True, **limits)
        self.node.run(
            "update_collection", collection, models.UpdateCollection(strict_mode_config=config)
        )


@contextmanager
def serving(*, grpc: bool = False) -> Iterator[Server]:
    """Serve an empty node while the block runs, over REST, and over gRPC if that is asked for."""
    running = Server(Node(qdrant_client.QdrantClient(":memory:")), with_grpc=grpc)
    running.start()
    try:
        yield running
    finally:
        running.stop()


@contextmanager
def _listening(running: Server) -> Iterator[None]:
    """Serve the node over REST while the block runs; `running.url` is set."""
    port = int(running.url.rpartition(":")[2] or 0)
    server = _QuietServer(("127.0.0.1", port), _handler(running))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    running.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        for connection in list(running.connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _QuietServer(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


def _handler(running: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1  # an answer goes out in as many writes as it is flushed
        served = 0

        def setup(self) -> None:
            super().setup()
            running.connections.add(self.connection)

        def finish(self) -> None:
            running.connections.discard(self.connection)
            super().finish()

        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            if length > running.body_limit:
                self.refuse_unread(length)
                return
            body = self.rfile.read(length)
            path, _, parameters = self.path.partition("?")
            request = f"{self.command} {path}"
            running.requests.append(request)
            running.bodies.append((request, body))
            running.parameters.append(parameters)
            running.headers.append({key.lower(): value for key, value in self.headers.items()})
            key = self.headers.get("api-key")
            running.keys.append(key)
            fault = running.fault_of(request, len(body))
            if fault is not None:
                running.wait(fault.pause)
            answer = rest.Answer(200, None)
            if fault is None or fault.is_run:
                try:
                    access = rules.access_of(running.tokens, key)
                    answer = rest.answer(running.node, self.command, self.path, body, access)
                except RefusedError as refusal:
                    answer = rest.refused(refusal)
            if fault is not None:
                running.wait(fault.late)
                answer = rest.unfinished(path) if fault.unfinished else answer
                if fault.status not in (0, 200):
                    error = {"status": {"error": fault.message}}
                    answer = rest.Answer(fault.status, error, fault.headers)
            if answer.status == 0 or (fault is not None and fault.status == 0):
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
            else:
                self.reply(answer, fault or Fault(200))
            self.served += 1

        do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815

        def refuse_unread(self, length: int) -> None:
            """Answer that a body is too large, and reset the connection on which it comes."""
            request = f"{self.command} {self.path.partition('?')[0]}"
            running.requests.append(request)
            message = (
                f"JSON payload ({length} bytes) is larger than allowed "
                f"(limit: {running.body_limit} bytes)."
            )
            self.close_connection = True
            self.reply(rest.Answer(400, {"status": {"error": message}, "time": 0.0}), Fault(200))
            self.reset()

        def reset(self) -> None:
            linger = struct.pack("ii", 1, 0)  # closing sends a reset
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.close_connection = True
            self.connection.close()

        def reply(self, answer: rest.Answer, fault: Fault) -> None:
            name = f"{self.command} {self.path.partition('?')[0]}"
            payload = running.change(name, answer.body)
            accepted = self.headers.get("Accept-Encoding", "")
            compressed = "gzip" in accepted and len(payload) > COMPRESSED_FROM
            if compressed:
                payload = gzip.compress(payload, 1)
            kind = "text/plain; charset=utf-8" if answer.text else "application/json"
            self.send_response(answer.status)
            self.send_header("Content-Type", kind)
            if compressed:
                self.send_header("Content-Encoding", "gzip")
                self.send_header("Transfer-Encoding", "chunked")
            else:
                self.send_header("Content-Length", str(len(payload)))
            for header, value in answer.headers:
                self.send_header(header, value)
            self.end_headers()
            if fault.reset_after is not None:
                self.wfile.write(payload[: fault.reset_after])
                self.wfile.flush()
                self.reset()
            elif compressed:
                self.write_chunks(payload)
            elif fault.drip:
                part = len(payload) // 10 + 1
                for start in range(0, len(payload), part):
                    self.wfile.flush()
                    time.sleep(fault.drip)
                    self.wfile.write(payload[start : start + part])
            else:
                self.wfile.write(payload)

        def write_chunks(self, payload: bytes) -> None:
            """Write in two parts; on a connection that is kept, the second waits."""
            middle = len(payload) // 2
            self.wfile.write(b"%x\r\n%b\r\n" % (middle, payload[:middle]))
            self.wfile.flush()
            if self.served:
                time.sleep(running.stall)
            rest_of_it = payload[middle:]
            self.wfile.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(rest_of_it), rest_of_it))

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler
