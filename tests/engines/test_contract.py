"""The fake servers answer as a real Qdrant 1.18.3 does: what was recorded of it is replayed."""

from __future__ import annotations

import http.client
import json
import math
from collections.abc import Callable, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import grpc
import pytest
import qdrant_client
from clients import at
from qdrant_client import models
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from rest_server import Server

RECORDED = Path(__file__).parent.parent / "fixtures" / "server"
REST = [json.loads(line) for line in (RECORDED / "rest.jsonl").read_text().splitlines()]

# what depends on time, or on how a server cuts its points into segments
IGNORED = {"time", "operation_id", "version", "commit", "indexed_vectors_count", "segments_count"}


def asked(server: Server, record: Mapping[str, Any]) -> tuple[int, Any, dict[str, str]]:
    """Send a recorded request, as it was sent; return status, answer and headers."""
    body = record["raw"] if "raw" in record else json.dumps(record.get("body", ""))
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=60)
    try:
        connection.request(
            record["method"], record["path"], body if "body" in record or "raw" in record else None
        )
        answer = connection.getresponse()
        text = answer.read().decode()
    finally:
        connection.close()
    headers = {key.lower(): value for key, value in answer.getheaders()}
    is_json = headers["content-type"] == "application/json"
    return answer.status, json.loads(text) if is_json else text, headers


def compared(value: Any) -> Any:
    """Return an answer without what is ignored, and with numbers that are equal nearly."""
    if isinstance(value, Mapping):
        return {key: compared(entry) for key, entry in value.items() if key not in IGNORED}
    if isinstance(value, list):
        return [compared(entry) for entry in value]
    return pytest.approx(value, rel=1e-6, abs=1e-6) if isinstance(value, float) else value


def ranked(points: list[dict[str, Any]], limit: int) -> list[Any]:
    """Return points by score: those of one score in no order, and of a last score that was cut
    off only their number.
    """
    tied = [
        (score, sorted(same, key=lambda point: str(point["id"])))
        for score, same in groupby(points, lambda point: round(point["score"], 6))
    ]
    cut = len(points) == limit
    return [
        (pytest.approx(score, abs=2e-6), compared(without_scores(same)))
        if not cut or place < len(tied) - 1 or (len(same) == 1 and score > 0)
        else (pytest.approx(score, abs=2e-6), len(same))
        for place, (score, same) in enumerate(tied)
    ]


def without_scores(points: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: point[key] for key in point if key != "score"} for point in points]


def test_rest_answers_as_recorded(server: Server) -> None:
    server.stall = 0
    for record in REST:
        status, answer, headers = asked(server, record)
        note, expected = record["note"], record["answer"]
        assert status == record["status"], (note, answer)
        for header, value in record.get("headers", {}).items():
            assert headers[header] == value, note
        body = record.get("body") or {}
        if "points" in str(record["path"]) and isinstance(expected, dict) and status == 200:
            found, recorded = answer["result"], expected["result"]
            if "rrf" in note and "groups" not in note:
                assert possible(server, record, recorded["points"]), note
                assert possible(server, record, found["points"]), note
                continue
            if "groups" in recorded:
                assert groups(found) == groups(recorded), note
                continue
            if "points" in recorded and recorded["points"] and "score" in recorded["points"][0]:
                limit = body.get("limit", 10)
                assert ranked(found["points"], limit) == ranked(recorded["points"], limit), note
                continue
        assert compared(answer) == compared(expected), note


def groups(result: dict[str, Any]) -> Any:
    """Return which groups there are, and the first: the rest of the recorded ones are tied."""
    found = result["groups"]
    return {group["id"] for group in found}, [group["id"] for group in found[:1]]


def possible(server: Server, record: Mapping[str, Any], points: list[dict[str, Any]]) -> bool:
    """Return whether a fusion by ranks can give these scores, in whichever order ties come."""
    body = record["body"]
    rrf = body["query"].get("rrf", {})
    k, weights = rrf.get("k", 2), rrf.get("weights", [1.0] * len(body["prefetch"]))
    lowest: dict[int, float] = {}
    highest: dict[int, float] = {}
    for prefetch, weight in zip(body["prefetch"], weights, strict=True):
        search = {"method": "POST", "path": "/collections/demo/points/query", "body": prefetch}
        found = asked(server, search)[1]["result"]["points"]
        start = 0
        for _, same in groupby(found, lambda point: round(point["score"], 6)):
            ids = [point["id"] for point in same]
            for point in ids:
                first, last = start, start + len(ids) - 1
                highest[point] = highest.get(point, 0) + 1 / ((first + 1) / weight + k - 1)
                lowest[point] = lowest.get(point, 0) + 1 / ((last + 1) / weight + k - 1)
            start += len(ids)
    scores = [point["score"] for point in points]
    return scores == sorted(scores, reverse=True) and all(
        lowest[point["id"]] - 1e-6 <= point["score"] <= highest[point["id"]] + 1e-6
        for point in points
    )


GRPC = [json.loads(line) for line in (RECORDED / "grpc.jsonl").read_text().splitlines()]


def point(number: int = 1, vector: Any = None, **payload: Any) -> models.PointStruct:
    vectors = {"text": [1.0, 0, 0, 0]} if vector is None else vector
    return models.PointStruct(id=number, vector=vectors, payload=payload)


# what was set before an answer was recorded
STRICT: dict[str, dict[str, Any]] = {
    "strict: filter without index": {"unindexed_filtering_retrieve": False},
    "strict: limit": {"max_query_limit": 5, "max_timeout": 3, "upsert_max_batchsize": 2},
    "strict: write 0": {"write_rate_limit": 2, "upsert_max_batchsize": 10},
}


def calls(client: qdrant_client.QdrantClient) -> dict[str, Callable[[], object]]:
    """Return what was asked when the answers of gRPC were recorded."""
    config = {"text": models.VectorParams(size=4, distance=models.Distance.COSINE)}
    alias = models.CreateAlias(collection_name="nowhere", alias_name="x")
    on_n = models.Filter(must=[models.FieldCondition(key="n", range=models.Range(gte=1))])

    def query(**options: Any) -> object:
        vector = options.pop("query", [1.0, 0, 0, 0])
        return client.query_points("demo", vector, using="text", **options)

    def upsert(*points: models.PointStruct) -> object:
        return client.upsert("demo", list(points))

    return {
        "query, missing collection": query,
        "info, missing collection": lambda: client.get_collection("demo"),
        "upsert, missing collection": lambda: upsert(point()),
        "delete, missing collection": lambda: client.delete_collection("demo"),
        "create": lambda: client.create_collection("demo", config),
        "create again": lambda: client.create_collection("demo", config),
        "name a:b": lambda: client.create_collection("a:b", config),
        "upsert 8": lambda: upsert(*(point(number, n=number) for number in range(1, 9))),
        "wrong size": lambda: upsert(point(vector={"text": [1.0, 0]})),
        "no such vector": lambda: upsert(point(vector={"x": [1.0, 0, 0, 0]})),
        "unnamed": lambda: upsert(point(vector=[1.0, 0, 0, 0])),
        "int 2**63": lambda: upsert(point(n=2**63)),
        "surrogate": lambda: upsert(point(s="\ud800")),
        "NaN in payload": lambda: upsert(point(n=math.nan)),
        "NaN in vector": lambda: upsert(point(60, {"text": [math.nan, 0, 0, 0]})),
        "query with NaN": lambda: query(query=[math.nan, 0, 0, 0]),
        "34 MB payload": lambda: upsert(point(61, s="x" * 34_000_000)),
        "limit 0": lambda: query(limit=0),
        "metadata update": lambda: client.update_collection("demo", metadata={"more": 1}),
        "alias to nothing": lambda: client.update_collection_aliases(
            [models.CreateAliasOperation(create_alias=alias)]
        ),
        "strict: filter without index": lambda: query(query_filter=on_n),
        "strict: limit": lambda: query(limit=6),
        "strict: batch": lambda: upsert(point(1), point(2), point(3)),
        "strict: timeout": lambda: query(timeout=10),
        "strict: write 0": lambda: upsert(point()),
        "strict: write 1": lambda: upsert(point()),
        "strict: write 2": lambda: upsert(point()),
        "strict: write of 4": lambda: upsert(*(point(number) for number in range(1, 5))),
    }


def test_grpc_answers_as_recorded(grpc_server: Server) -> None:
    options: dict[str, Any] = at(grpc_server, grpc=True)
    client = qdrant_client.QdrantClient(**options)
    asking = calls(client)
    assert list(asking) == [record["note"] for record in GRPC]
    try:
        for record in GRPC:
            if (limits := STRICT.get(record["note"])) is not None:
                config = models.StrictModeConfig(enabled=True, **limits)
                client.update_collection("demo", strict_mode_config=config)
            try:
                asking[record["note"]]()
                answer = {"code": "OK"}
            except grpc.RpcError as error:
                answer = {"code": error.code().name, "details": error.details()}
            except (ValueError, ResourceExhaustedResponse) as error:
                answer = {"client": type(error).__name__, "message": str(error)}
            assert answer == {key: record[key] for key in record if key != "note"}, record
    finally:
        client.close()
