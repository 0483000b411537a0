"""Qdrant's REST interface: bytes to an operation of the node, and its result to JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, unquote

from pydantic import TypeAdapter, ValidationError
from qdrant_client import models

from fake_server import rules
from fake_server.node import Node, points_of, selected
from fake_server.rules import Access, Kind, RefusedError

VERSION = {
    "title": "qdrant - vector search engine",
    "version": "1.18.3",
    "commit": "db8fa43fcb6aedec1e739487e17a99731b74590a",
}


@dataclass(frozen=True)
class Answer:
    """What comes back: a status, JSON or text, headers."""

    status: int
    content: Any
    headers: tuple[tuple[str, str], ...] = ()
    text: bool = False

    @property
    def body(self) -> bytes:
        """The bytes that are sent."""
        if self.text:
            return str(self.content).encode()
        return json.dumps(self.content, separators=(",", ":"), ensure_ascii=False).encode()


@dataclass(frozen=True)
class Request:
    """A request once its path and parameters are taken apart.

    Attributes:
        name: of the collection.
        rest: what follows it in the path.
        body: JSON, as the server reads it.
        wait: whether a write is answered once it is done.
    """

    name: str
    rest: tuple[str, ...]
    text: str
    body: Any
    wait: bool

    def read(self, model: Any) -> Any:
        """Read the body as a model; raise `RefusedError` where it does not fit."""
        try:
            return TypeAdapter(model).validate_python(self.body)
        except ValidationError as error:
            raise RefusedError(Kind.FORMAT, misfit(model, self.body, self.text, error)) from error


def answer(node: Node, method: str, target: str, body: bytes, access: Access = "manage") -> Answer:
    """Carry a request out and return the answer."""
    path, _, query = target.partition("?")
    parameters = {key: values[-1] for key, values in parse_qs(query).items()}
    if (method, path) == ("GET", "/"):
        return Answer(200, VERSION)
    if (method, path) in (("GET", "/readyz"), ("GET", "/healthz"), ("GET", "/livez")):
        return Answer(200, "all shards are ready", text=True)
    parts = [unquote(part) for part in path.strip("/").split("/")]
    found = _route(method, parts)
    if found is None:
        return Answer(404, "", text=True)
    operation, name, rest = found
    timeout = int(parameters["timeout"]) if "timeout" in parameters else None
    try:
        text, content = read_json(body)
        wait = parameters.get("wait", "false") == "true"
        request = Request(name, rest, text, content, wait)
        result = _OPERATIONS[operation](
            lambda run, *args: node.run(run, name, *args, access=access, timeout=timeout), request
        )
    except RefusedError as refusal:
        return refused(refusal)
    return Answer(200, {"result": result, "status": "ok", "time": 0.0})


def unfinished(path: str) -> Answer:
    """Return the answer to a change that was accepted, but not carried out in time."""
    result = {"operation_id": 0, "status": "wait_timeout"}
    found = [result] if path.endswith("/batch") else result
    return Answer(200, {"result": found, "status": "ok", "time": 0.0})


def refused(refusal: RefusedError) -> Answer:
    """Return the answer that refuses a request; its status is 0 where no answer comes."""
    if refusal.kind is Kind.UNAUTHORIZED:
        return Answer(401, refusal.rest, text=True)
    after = refusal.retry_after
    headers = (("Retry-After", str(after)),) if after is not None else ()
    content = {"status": {"error": refusal.rest}, "time": 0.0}
    return Answer(refusal.kind.status, content, headers)


# routes


_COLLECTION = {
    ("GET", ""): "info",
    ("PUT", ""): "create",
    ("PATCH", ""): "update_collection",
    ("DELETE", ""): "delete_collection",
    ("GET", "exists"): "exists",
    ("GET", "aliases"): "aliases",
    ("GET", "cluster"): "cluster",
    ("PUT", "shards"): "create_shard_key",
    ("POST", "shards/delete"): "delete_shard_key",
    ("PUT", "vectors/*"): "create_vector",
    ("DELETE", "vectors/*"): "delete_vector",
    ("PUT", "index"): "create_index",
    ("DELETE", "index/*"): "delete_index",
    ("POST", "facet"): "facet",
    ("POST", "points"): "retrieve",
    ("GET", "points/*"): "point",
    ("PUT", "points"): "upsert",
    ("PUT", "points/vectors"): "update_vectors",
    ("POST", "points/delete"): "delete",
    ("POST", "points/payload"): "set_payload",
    ("PUT", "points/payload"): "overwrite_payload",
    ("POST", "points/payload/delete"): "delete_payload",
    ("POST", "points/payload/clear"): "clear_payload",
    ("POST", "points/batch"): "operations",
    ("POST", "points/scroll"): "scroll",
    ("POST", "points/count"): "count",
    ("POST", "points/query"): "query",
    ("POST", "points/query/batch"): "query_batch",
    ("POST", "points/query/groups"): "query_groups",
}


def _route(method: str, parts: Sequence[str]) -> tuple[str, str, tuple[str, ...]] | None:
    """Return an operation, the collection's name, and the rest of the path."""
    if (method, *parts) == ("GET", "collections"):
        return "collections", "", ()
    if (method, *parts) == ("GET", "aliases"):
        return "aliases", "", ()
    if (method, *parts) == ("POST", "collections", "aliases"):
        return "change_aliases", "", ()
    if len(parts) < 2 or parts[0] != "collections":
        return None
    name, rest = parts[1], tuple(parts[2:])
    operation = _COLLECTION.get((method, "/".join(rest)))
    if operation is None and len(rest) > 1:
        operation = _COLLECTION.get((method, "/".join((*rest[:-1], "*"))))
    return None if operation is None else (operation, name, rest)


# operations


Run = Callable[..., Any]


def _change(model: Any, change: str) -> Callable[[Run, Request], Any]:
    """Return what reads and runs a change of payloads."""

    def run_change(run: Run, request: Request) -> Any:
        asked = request.read(model)
        if change == "clear":
            chosen, payload, key = selected(asked), None, None
        else:
            chosen = selected(asked)
            payload = asked.keys if change == "delete" else asked.payload
            key = getattr(asked, "key", None)
        args = (change, chosen, request.wait, payload, key, asked.shard_key)
        return _done(run("payload", *args), request.wait)

    return run_change


def _done(operation: int, wait: bool = True) -> dict[str, Any]:
    return {"operation_id": operation, "status": "completed" if wait else "acknowledged"}


def _upsert(run: Run, request: Request) -> Any:
    asked = request.read(models.PointInsertOperations)
    points = points_of(asked)
    filters = (getattr(asked, name, None) for name in ("shard_key", "update_filter", "update_mode"))
    return _done(run("upsert", points, request.wait, *filters), request.wait)


def _delete(run: Run, request: Request) -> Any:
    asked = request.read(models.PointsSelector)
    return _done(run("delete", selected(asked), request.wait, asked.shard_key), request.wait)


def _update_vectors(run: Run, request: Request) -> Any:
    asked = request.read(models.UpdateVectors)
    return _done(run("update_vectors", asked.points, request.wait, asked.shard_key), request.wait)


def _operations(run: Run, request: Request) -> Any:
    operations = request.read(models.UpdateOperations).operations
    return [_done(number) for number in run("operations", operations, request.wait)]


def _retrieve(run: Run, request: Request) -> Any:
    asked = request.read(models.PointRequest)
    payload = True if asked.with_payload is None else asked.with_payload
    records = run("retrieve", asked.ids, payload, asked.with_vector or False, asked.shard_key)
    return [point_json(record) for record in records]


def _point(run: Run, request: Request) -> Any:
    given = request.rest[-1]
    found = run("retrieve", [int(given) if given.isdecimal() else given], True, True)
    if not found:
        raise RefusedError(Kind.NOT_FOUND, f"Point with id {given} does not exists!")
    return point_json(found[0])


def _scroll(run: Run, request: Request) -> Any:
    points, following = run("scroll", request.read(models.ScrollRequest))
    return {"points": [point_json(point) for point in points], "next_page_offset": following}


def _query(run: Run, request: Request) -> Any:
    return _found(run("query", request.read(models.QueryRequest)))


def _query_batch(run: Run, request: Request) -> Any:
    searches = request.read(models.QueryRequestBatch).searches
    return [_found(points) for points in run("query_batch", searches)]


def _query_groups(run: Run, request: Request) -> Any:
    groups = run("query_groups", request.read(models.QueryGroupsRequest))
    shown = [{"hits": [point_json(hit) for hit in group.hits], "id": group.id} for group in groups]
    return {"groups": shown}


def _found(points: Sequence[models.ScoredPoint]) -> dict[str, Any]:
    return {"points": [point_json(point) for point in points]}


def _aliases(run: Run, request: Request) -> Any:
    del request
    pairs = run("aliases")
    return {"aliases": [{"alias_name": alias, "collection_name": name} for alias, name in pairs]}


def _create_index(run: Run, request: Request) -> Any:
    asked = request.read(models.CreateFieldIndex)
    return _done(run("create_index", asked.field_name, asked.field_schema))


_OPERATIONS: dict[str, Callable[[Run, Request], Any]] = {
    "aliases": _aliases,
    "change_aliases": lambda run, request: run(
        "change_aliases", request.read(models.ChangeAliasesOperation).actions
    ),
    "clear_payload": _change(models.PointsSelector, "clear"),
    "cluster": lambda run, _: run("cluster"),
    "collections": lambda run, _: {"collections": [{"name": name} for name in run("collections")]},
    "count": lambda run, request: {"count": run("count", request.read(models.CountRequest))},
    "create": lambda run, request: run("create", request.read(models.CreateCollection)),
    "create_index": _create_index,
    "create_shard_key": lambda run, request: run(
        "create_shard_key", request.read(models.CreateShardingKey).shard_key
    ),
    "create_vector": lambda run, request: _done(
        run("create_vector", request.rest[-1], request.read(models.VectorNameConfig)), wait=False
    ),
    "delete": _delete,
    "delete_collection": lambda run, _: run("delete_collection"),
    "delete_index": lambda run, request: _done(run("delete_index", request.rest[-1])),
    "delete_payload": _change(models.DeletePayload, "delete"),
    "delete_shard_key": lambda run, request: run(
        "delete_shard_key", request.read(models.DropShardingKey).shard_key
    ),
    "delete_vector": lambda run, request: _done(run("delete_vector", request.rest[-1])),
    "exists": lambda run, _: {"exists": run("exists")},
    "facet": lambda run, request: {
        "hits": [
            {"value": hit.value, "count": hit.count}
            for hit in run("facet", request.read(models.FacetRequest))
        ]
    },
    "info": lambda run, _: run("info"),
    "operations": _operations,
    "overwrite_payload": _change(models.SetPayload, "overwrite"),
    "point": _point,
    "query": _query,
    "query_batch": _query_batch,
    "query_groups": _query_groups,
    "retrieve": _retrieve,
    "scroll": _scroll,
    "set_payload": _change(models.SetPayload, "set"),
    "update_collection": lambda run, request: run(
        "update_collection", request.read(models.UpdateCollection)
    ),
    "update_vectors": _update_vectors,
    "upsert": _upsert,
}


# JSON


_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_NO_NUMBER = re.compile(r"-?(?:NaN|Infinity)")
_LONE = re.compile(r"(?i)\\ud[89ab][0-9a-f]{2}(?!\\ud[c-f])")


def read_json(body: bytes) -> tuple[str, Any]:
    """Return a body's text and its JSON, numbers read as the server reads them."""
    if not body:
        return "", {}
    text = body.decode("utf-8", "surrogatepass")
    if (lone := _LONE.search(text)) is not None:
        place = f"line 1 column {lone.end() + 1}"
        raise RefusedError(Kind.FORMAT, f"unexpected end of hex escape at {place}")
    if "NaN" in text or "Infinity" in text:
        blank = _STRING.sub(lambda found: " " * len(found.group()), text)
        if (wrong := _NO_NUMBER.search(blank)) is not None:
            place = f"line 1 column {wrong.start() + 1}"
            raise RefusedError(Kind.FORMAT, f"expected value at {place}")
    try:
        return text, json.loads(text, parse_float=rules.read_float, parse_int=rules.read_int)
    except json.JSONDecodeError as error:
        if error.pos >= len(text):
            message = f"EOF while parsing a value at line 1 column {len(text)}"
        else:
            message = f"expected value at line 1 column {error.pos + 1}"
        raise RefusedError(Kind.FORMAT, message) from error


def misfit(model: Any, body: Any, text: str, error: ValidationError) -> str:
    """Return what the server says of JSON that is not of this shape."""
    if model is models.PointInsertOperations:
        points = body.get("points") if isinstance(body, Mapping) else None
        if not isinstance(points, list):
            return "Invalid PointInsertOperations format"
        for point in points:
            rules.point_id(point.get("id"))
            if not isinstance(point.get("payload") or {}, Mapping):
                return "invalid type: sequence, expected a map"
    if re.search(r'"match":\s*\{"value":\s*-?\d+\.\d+\}', text) is not None:
        return (
            "data did not match any variant of untagged enum MatchInterface "
            f"at line 1 column {len(text)}"
        )
    first = error.errors()[0]
    return f"{first['msg']} ({'.'.join(map(str, first['loc']))})"


def point_json(point: Any) -> dict[str, Any]:
    """Return a point as the server writes it: what is not asked for is not there."""
    shown = json.loads(point.model_dump_json())
    return {key: value for key, value in shown.items() if value is not None}
