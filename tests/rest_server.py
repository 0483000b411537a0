"""Qdrant's REST interface on loopback, as far as the clients use it, with faults on request.

Behind it is a real local Qdrant; requests are read by qdrant-client's own models.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import qdrant_client
from pydantic import BaseModel, TypeAdapter
from qdrant_client import models


@dataclass(frozen=True)
class Fault:
    """What to do to one request instead of answering it.

    Attributes:
        status: answer with this status; 0 to cut the connection, 200 to answer after all.
        after_commit: carry the request out first, then fail.
        headers: sent with the status.
        message: of the error.
        pause: seconds before anything is done.
        drip: seconds between the parts of an answer that comes a few bytes at a time.
    """

    status: int
    after_commit: bool = False
    headers: tuple[tuple[str, str], ...] = ()
    message: str = "injected"
    pause: float = 0.0
    drip: float = 0.0


@dataclass
class Server:
    """The running server: its address, its database, what was asked, what to break."""

    database: qdrant_client.QdrantClient
    url: str = ""
    requests: list[str] = field(default_factory=list)
    bodies: list[tuple[str, bytes]] = field(default_factory=list)
    parameters: list[str] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    shards: list[models.ShardKey] = field(
        default_factory=list
    )  # which local databases have none of
    fault: Callable[[str], Fault | None] = lambda _: None
    largest: int | None = None  # bytes of a request's body, as of Qdrant's max_request_size_mb

    too_large: Fault = Fault(413)

    def fail_once(self, fragment: str, fault: Fault, *, times: int = 1) -> None:
        """Breaks the next `times` requests whose "METHOD path" contains `fragment`."""
        left = times

        def choose(request: str) -> Fault | None:
            nonlocal left
            if fragment in request and left:
                left -= 1
                return fault
            return None

        self.fault = choose


@contextmanager
def serving() -> Iterator[Server]:
    """Serves an empty database while the block runs."""
    running = Server(qdrant_client.QdrantClient(":memory:"))
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            path, _, parameters = self.path.partition("?")
            request = f"{self.command} {path}"
            running.requests.append(request)
            running.bodies.append((request, body))
            running.parameters.append(parameters)
            running.keys.append(self.headers.get("api-key"))
            fault = running.fault(request)
            if running.largest is not None and len(body) > running.largest:
                fault = running.too_large
            if fault is not None:
                time.sleep(fault.pause)
            if fault is None or fault.after_commit:
                with lock:
                    status, result = answer(
                        running.database, self.command, path, body, running.shards
                    )
            if fault is None or fault.status == 200:
                content = {"result": result, "status": "ok", "time": 0.0}
                self.reply(status, content, drip=fault.drip if fault else 0.0)
            elif fault.status:
                self.reply(fault.status, {"status": {"error": fault.message}}, *fault.headers)
            else:
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)

        do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

        def reply(
            self, status: int, content: object, *headers: tuple[str, str], drip: float = 0.0
        ) -> None:
            payload = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(payload)))
            for header, value in headers:
                self.send_header(header, value)
            self.end_headers()
            part = len(payload) // 10 + 1 if drip else len(payload)
            for start in range(0, len(payload), part):
                time.sleep(drip)
                self.wfile.write(payload[start : start + part])

        def log_message(self, format: str, *args: object) -> None:
            pass

    class QuietServer(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

        def handle_error(self, request: Any, client_address: Any) -> None:
            pass

    server = QuietServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    running.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield running
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def answer(
    database: qdrant_client.QdrantClient,
    method: str,
    path: str,
    body: bytes,
    shards: list[models.ShardKey],
) -> tuple[int, Any]:
    """Status and result, as Qdrant would give them; `shards` are the keys of what is sharded."""
    parts = path.strip("/").split("/")
    if parts == [""]:
        return 200, None
    if (method, parts) == ("GET", ["collections"]):
        return 200, plain(database.get_collections())
    if (method, parts) == ("POST", ["collections", "aliases"]):
        actions = models.ChangeAliasesOperation.model_validate_json(body).actions
        return 200, database.update_collection_aliases(actions)
    name, rest = parts[1], "/".join(parts[2:])
    if (method, rest) == ("GET", "exists"):
        return 200, {"exists": database.collection_exists(name)}
    if (method, rest) == ("PUT", ""):
        if database.collection_exists(name):
            return 409, None
        create = models.CreateCollection.model_validate_json(body)
        vectors, sparse = create.vectors, create.sparse_vectors
        return 200, database.create_collection(name, vectors, sparse, metadata=create.metadata)
    if not database.collection_exists(name):
        return 404, None
    if (method, rest) == ("GET", ""):
        return 200, plain(database.get_collection(name))
    if (method, rest) == ("DELETE", ""):
        return 200, database.delete_collection(name)
    if (method, rest) == ("PATCH", ""):
        update = models.UpdateCollection.model_validate_json(body)
        return 200, database.update_collection(name, metadata=update.metadata)
    if (method, parts[2]) == ("PUT", "vectors"):
        config: Any = TypeAdapter(models.VectorNameConfig).validate_json(body)
        return 200, plain(database.create_vector_name(name, parts[3], config))
    if (method, rest) == ("PUT", "shards"):
        key = models.CreateShardingKey.model_validate_json(body).shard_key
        if key in shards:
            return 400, None
        shards.append(key)
        return 200, True
    if (method, rest) == ("GET", "cluster"):
        local = [
            {"shard_id": n, "shard_key": key, "points_count": 0, "state": "Active"}
            for n, key in enumerate(shards)
        ]
        return 200, {
            "peer_id": 1,
            "shard_count": len(local),
            "local_shards": local,
            "remote_shards": [],
            "shard_transfers": [],
        }
    if (method, rest) == ("POST", "points"):
        wanted = models.PointRequest.model_validate_json(body)
        records = database.retrieve(name, wanted.ids, with_vectors=wanted.with_vector or False)
        return 200, [plain(record) for record in records]
    if (method, rest) == ("POST", "points/count"):
        return 200, plain(database.count(name))
    if (method, rest) == ("POST", "points/scroll"):
        scroll = models.ScrollRequest.model_validate_json(body)
        offset = scroll.offset if isinstance(scroll.offset, int | None) else str(scroll.offset)
        records, following = database.scroll(
            name,
            scroll.filter,
            limit=scroll.limit or 10,
            offset=offset,
            with_payload=True if scroll.with_payload is None else scroll.with_payload,
        )
        page = models.ScrollResult(points=[], next_page_offset=following)
        return 200, plain(page) | {"points": [plain(point) for point in records]}
    if (method, rest) == ("PUT", "points"):
        points = models.PointsList.model_validate_json(body).points
        return 200, plain(database.upsert(name, points))
    if (method, rest) == ("POST", "points/delete"):
        selector: Any = TypeAdapter(models.PointsSelector).validate_json(body)
        return 200, plain(database.delete(name, selector))
    if (method, rest) == ("PUT", "index"):  # which a local database has none of
        models.CreateFieldIndex.model_validate_json(body)
        return 200, {"operation_id": 0, "status": "completed"}
    if (method, rest) == ("POST", "points/payload"):
        change = models.SetPayload.model_validate_json(body)
        return 200, plain(database.set_payload(name, change.payload, change.points or []))
    if (method, rest) == ("POST", "points/query/batch"):
        searches = models.QueryRequestBatch.model_validate_json(body).searches
        return 200, [plain(found) for found in database.query_batch_points(name, searches)]
    if (method, rest) == ("POST", "points/query/groups"):
        asked = models.QueryGroupsRequest.model_validate_json(body)
        found = database.query_points_groups(
            name,
            asked.group_by,
            asked.query,
            asked.using,
            asked.prefetch,
            asked.filter,
            asked.params,
            asked.limit or 10,
            asked.group_size or 3,
            asked.with_payload or False,
            asked.with_vector or False,
            asked.score_threshold,
        )
        return 200, plain(found)
    return 501, None


def plain(result: BaseModel) -> Any:
    """JSON values of a model."""
    return json.loads(result.model_dump_json())
