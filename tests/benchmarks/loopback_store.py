"""A store on loopback that accepts everything at once and answers the same ten hits, always.

    python tests/benchmarks/loopback_store.py [--upsert-seconds 0.05] [--query-seconds 0.004]

It prints its REST port and its gRPC port, and serves until its standard input is closed. Nothing is
stored: what is measured is the client. As a real server does, it compresses an answer for who asks
for it, and sends it in two writes; on a connection that is kept alive, the second one waits 40 ms
for the client's kernel to acknowledge the first, which a pause stands for here.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import sys
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from qdrant_client import grpc as messages

STALL = 0.04  # seconds; Linux acknowledges a lone segment that late
NOT_FOUND = "Not found: Collection `demo` doesn't exist!"
_LEAST_COMPRESSED = 1500  # bytes of an answer
HNSW: dict[str, Any] = {"m": 16, "ef_construct": 100, "full_scan_threshold": 10_000}
OPTIMIZER: dict[str, Any] = {
    "deleted_threshold": 0.2,
    "vacuum_min_vector_number": 1000,
    "default_segment_number": 0,
    "flush_interval_sec": 5,
}
HITS: list[dict[str, Any]] = [
    {
        "id": str(uuid.UUID(int=number)),
        "version": 1,
        "score": 0.9 - number / 100,
        "payload": {"document": f"hit {number}: " + "words of a short text " * 4, "n": number},
    }
    for number in range(10)
]


class Store:
    """What is known of collections: what they were created with.

    Attributes:
        upsert_seconds: how long each upsert takes.
        query_seconds: how long each query takes.
    """

    def __init__(self, upsert_seconds: float, query_seconds: float) -> None:
        self.upsert_seconds, self.query_seconds = upsert_seconds, query_seconds
        self._created: dict[str, dict[str, Any]] = {}

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any, float]:
        """Status and result of a request, and the seconds it takes."""
        parts = path.strip("/").split("/")
        name, rest = (parts[1], "/".join(parts[2:])) if len(parts) > 1 else ("", "")
        if rest.startswith("points/query"):
            count = body.count(b'"limit"') if rest.endswith("batch") else 0
            one = {"points": HITS}
            return 200, [one] * count if count else one, self.query_seconds
        if (method, rest) == ("PUT", "points"):
            return 200, {"operation_id": 1, "status": "completed"}, self.upsert_seconds
        if rest == "exists":
            return 200, {"exists": name in self._created}, 0
        if (method, rest) == ("PUT", ""):
            self._created[name] = json.loads(body)
            return 200, True, 0
        if (method, rest) == ("DELETE", ""):
            return 200, self._created.pop(name, None) is not None, 0
        if (method, rest) == ("GET", "") and name in self._created:
            return 200, self._described(name), 0
        if (method, rest) in {("POST", "points"), ("POST", "points/scroll")}:
            return 200, [] if rest == "points" else {"points": [], "next_page_offset": None}, 0
        if (method, rest) == ("POST", "points/count"):
            return 200, {"count": 0}, 0
        known = method in {"PATCH", "PUT"} or rest == "points/delete"
        return 200 if known else 404, known or None, 0

    def _described(self, name: str) -> dict[str, Any]:
        created = self._created[name]
        params = {key: created[key] for key in ("vectors", "sparse_vectors") if created.get(key)}
        return {
            "status": "green",
            "optimizer_status": "ok",
            "indexed_vectors_count": 0,
            "points_count": 0,
            "segments_count": 1,
            "config": {
                "params": params,
                "hnsw_config": HNSW,
                "optimizer_config": OPTIMIZER,
                "metadata": created.get("metadata"),
            },
            "payload_schema": {},
        }


class Rest(asyncio.Protocol):
    """One connection; requests come one after the other."""

    def __init__(self, store: Store) -> None:
        self._store, self._read, self._requests = store, bytearray(), 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remembers where to write."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def close(self) -> None:
        """Closes the connection."""
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        """Answers once a request is complete."""
        self._read += data
        end = self._read.find(b"\r\n\r\n")
        if end < 0:
            return
        first, *lines = self._read[:end].decode("latin-1").split("\r\n")
        headers = {key.lower(): value for key, _, value in (line.partition(": ") for line in lines)}
        length = int(headers.get("content-length", 0))
        if len(self._read) < end + 4 + length:
            return
        body = bytes(self._read[end + 4 : end + 4 + length])
        del self._read[: end + 4 + length]
        self._requests += 1
        method, target, _ = first.split(" ")
        status, result, seconds = self._store.answer(method, target.partition("?")[0], body)
        told: Any = {"result": result, "status": "ok", "time": 0.0}
        if status == 404:
            told = {"status": {"error": NOT_FOUND}, "time": 0.0}
        content = json.dumps(told).encode()
        asked = "gzip" in headers.get("accept-encoding", "")
        compressed = asked and len(content) > _LEAST_COMPRESSED
        if compressed:
            content = gzip.compress(content, 1)
        head = f"HTTP/1.1 {status} OK\r\ncontent-type: application/json\r\n".encode()
        head += b"content-encoding: gzip\r\n" if compressed else b""
        head += f"content-length: {len(content)}\r\n\r\n".encode()
        half = len(content) // 2 if compressed and self._requests > 1 else len(content)
        self._later(seconds, head + content[:half])
        if half < len(content):
            self._later(seconds + STALL, content[half:])

    def _later(self, seconds: float, part: bytes) -> None:
        if seconds:
            asyncio.get_running_loop().call_later(seconds, self._transport.write, part)
        else:
            self._transport.write(part)


def grpc_server(store: Store) -> tuple[grpc.Server, int]:
    """The same over gRPC: answers are bytes made beforehand, requests stay unread bytes."""
    done = messages.UpdateResult(operation_id=1, status=messages.UpdateStatus.Completed)
    hits = [
        messages.ScoredPoint(
            id=messages.PointId(uuid=str(hit["id"])),
            score=hit["score"],
            version=1,
            payload={
                "document": {"string_value": hit["payload"]["document"]},
                "n": {"integer_value": hit["payload"]["n"]},
            },
        )
        for hit in HITS
    ]
    batch = messages.BatchResult(result=hits)
    upserted = messages.PointsOperationResponse(result=done).SerializeToString()
    found = messages.QueryResponse(result=hits).SerializeToString()
    batch_found = messages.QueryBatchResponse(result=[batch]).SerializeToString()

    def handler(content: bytes, seconds: Callable[[], float]) -> grpc.RpcMethodHandler:
        def answer(_: bytes, __: object) -> bytes:
            if seconds():
                time.sleep(seconds())
            return content

        return grpc.unary_unary_rpc_method_handler(answer)

    points = {
        "Upsert": handler(upserted, lambda: store.upsert_seconds),
        "Query": handler(found, lambda: store.query_seconds),
        "QueryBatch": handler(batch_found, lambda: store.query_seconds),
    }
    created: dict[str, messages.CreateCollection] = {}

    def create(request: Any, _: object) -> messages.CollectionOperationResponse:
        created[request.collection_name] = request
        return messages.CollectionOperationResponse(result=True)

    def exists(request: Any, _: object) -> messages.CollectionExistsResponse:
        known = messages.CollectionExists(exists=request.collection_name in created)
        return messages.CollectionExistsResponse(result=known)

    def delete(request: Any, _: object) -> messages.CollectionOperationResponse:
        known = created.pop(request.collection_name, None) is not None
        return messages.CollectionOperationResponse(result=known)

    def get(request: Any, context: grpc.ServicerContext) -> messages.GetCollectionInfoResponse:
        if request.collection_name not in created:
            context.abort(grpc.StatusCode.NOT_FOUND, NOT_FOUND)
        made = created[request.collection_name]
        params = messages.CollectionParams(vectors_config=made.vectors_config)
        config = messages.CollectionConfig(
            params=params,
            hnsw_config=messages.HnswConfigDiff(**HNSW),
            optimizer_config=messages.OptimizersConfigDiff(**OPTIMIZER),
            wal_config=messages.WalConfigDiff(wal_capacity_mb=32, wal_segments_ahead=0),
            metadata=made.metadata,
        )
        info = messages.CollectionInfo(
            status=messages.CollectionStatus.Green,
            optimizer_status=messages.OptimizerStatus(ok=True),
            segments_count=1,
            config=config,
        )
        return messages.GetCollectionInfoResponse(result=info)

    def parsed(function: Callable[..., Any], kind: Any) -> grpc.RpcMethodHandler:
        return grpc.unary_unary_rpc_method_handler(
            function, kind.FromString, lambda message: message.SerializeToString()
        )

    collections = {
        "Create": parsed(create, messages.CreateCollection),
        "Delete": parsed(delete, messages.DeleteCollection),
        "CollectionExists": parsed(exists, messages.CollectionExistsRequest),
        "Get": parsed(get, messages.GetCollectionInfoRequest),
    }
    unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    server = grpc.server(ThreadPoolExecutor(40), options=unlimited)
    server.add_generic_rpc_handlers(
        [
            grpc.method_handlers_generic_handler("qdrant.Points", points),
            grpc.method_handlers_generic_handler("qdrant.Collections", collections),
        ]
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, port


async def serve(store: Store) -> None:
    """Serves until standard input is closed."""
    loop = asyncio.get_running_loop()
    rest = await loop.create_server(lambda: Rest(store), "127.0.0.1", 0)
    server, grpc_port = grpc_server(store)
    print(rest.sockets[0].getsockname()[1], grpc_port, flush=True)
    closed = asyncio.Event()

    def read() -> None:
        sys.stdin.read()
        loop.call_soon_threadsafe(closed.set)

    threading.Thread(target=read, daemon=True).start()
    await closed.wait()
    rest.close()
    server.stop(0)


def main() -> None:
    """Serves."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--upsert-seconds", type=float, default=0.0)
    parser.add_argument("--query-seconds", type=float, default=0.0)
    arguments = parser.parse_args()
    asyncio.run(serve(Store(arguments.upsert_seconds, arguments.query_seconds)))


if __name__ == "__main__":
    main()
