"""How points and queries travel to an engine: by the shortest way that its client allows.

A server gets vectors as the encoder made them, in float32: over REST as the shortest text that
means the same float32, written by orjson; over gRPC as bytes. Both go through public functions of
``qdrant_client``, so that keys, headers, middleware, time-outs and errors stay its own. A local
database gets points as ``qdrant_client`` has them, the embedded engine as they are here; and a
client whose methods are somebody's own gets what ``qdrant_client`` would send, because these must
see it.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, TypeVar, cast

import qdrant_client
from pydantic import BaseModel
from pydantic_core import to_jsonable_python
from qdrant_client import grpc, models
from qdrant_client.conversions.conversion import GrpcToRest, RestToGrpc
from qdrant_client.http import models as rest

from qdrant_embed.engines.embedded import embedded
from qdrant_embed.engines.points import Points
from qdrant_embed.engines.protobuf import (
    NotEncodableError,
    TooDeepError,
    is_vector,
    query_message,
    resolved,
    upsert_message,
)

orjson: Any
try:
    import orjson
except ImportError:  # points go as qdrant_client writes them
    orjson, _OPTIONS = None, 0
else:  # dates and the like as pydantic writes them
    _OPTIONS = (
        orjson.OPT_SERIALIZE_NUMPY
        | orjson.OPT_PASSTHROUGH_DATETIME
        | orjson.OPT_PASSTHROUGH_DATACLASS
        | orjson.OPT_PASSTHROUGH_SUBCLASS
    )

T = TypeVar("T")

# upserts in flight to a server: a third is still faster where one takes long, more are not
UPLOADS = 3
SERVER_BATCH, LOCAL_BATCH = 256, 32  # points of a request, unless the user says

_NO_QUERY = {"query": None}
_DEFAULT_TIMEOUT = 5  # seconds; qdrant_client's own, over gRPC


@dataclass(frozen=True)
class UpsertRequest:
    """A request that stores points, written once and sent as often as need be.

    Attributes:
        send: sends the request through the client; the asynchronous client returns an awaitable.
        size: bytes of the body; ``None`` if the client writes it itself.
    """

    send: Callable[[], Any]
    size: int | None = None


def is_own(client: object, *methods: str) -> bool:
    """Return whether a client's methods are those of ``qdrant_client``, and nobody else's."""
    kind: Any = type(client)  # whose hash mypy does not know
    return vars(client).keys().isdisjoint(methods) and _are_own(kind, methods)


@lru_cache
def _are_own(kind: Any, methods: tuple[str, ...]) -> bool:
    return all(
        getattr(kind, method, None)
        in (
            getattr(qdrant_client.QdrantClient, method),
            getattr(qdrant_client.AsyncQdrantClient, method),
        )
        for method in methods
    )


def uploads_in_flight(client: qdrant_client.QdrantClient) -> int:
    """Return the number of upserts that may be in flight: one where ``upsert`` is somebody's."""
    return UPLOADS if _takes_bodies(client) else 1


def default_batch_size(client: qdrant_client.QdrantClient) -> int:
    """Return the number of points in a request, unless the user says."""
    takes_rows = _takes_bodies(client) or _takes_rows(client)
    return SERVER_BATCH if takes_rows else LOCAL_BATCH


def _takes_rows(client: qdrant_client.QdrantClient) -> bool:
    return embedded(client) is not None and is_own(client, "upsert")


def _takes_bodies(client: qdrant_client.QdrantClient) -> bool:
    return _is_remote(client) and is_own(client, "upsert")


def upsert_request(
    client: qdrant_client.QdrantClient,
    collection_name: str,
    points: Sequence[models.PointStruct],
    *,
    wait: bool = True,
    shard_key_selector: models.ShardKeySelector | None = None,
) -> UpsertRequest:
    """Return the request that stores points.

    Args:
        client: sends it.
        collection_name: name of the collection.
        points: the points; `Points` are written without a Python number for each of theirs.
        wait: see ``upsert`` of ``qdrant_client``.
        shard_key_selector: see there.
    """
    if isinstance(points, Points) and _takes_bodies(client):
        written = _over_grpc if _prefers_grpc(client) else _over_rest
        request = written(client, collection_name, points, wait, shard_key_selector)
        if request is not None:
            return request
    if isinstance(points, Points) and _takes_rows(client):
        return UpsertRequest(partial(embedded(client).upsert, collection_name, points))
    send = partial(
        client.upsert,
        collection_name,
        points if isinstance(points, list) else list(points),
        wait=wait,
        shard_key_selector=shard_key_selector,
    )
    return UpsertRequest(send)


def _over_rest(
    client: qdrant_client.QdrantClient,
    collection_name: str,
    points: Points,
    wait: bool,
    shard_key_selector: models.ShardKeySelector | None,
) -> UpsertRequest | None:
    if orjson is None:
        return None
    body: dict[str, Any] = {"points": [_rest_point(points, index) for index in range(len(points))]}
    if shard_key_selector is not None:
        body["shard_key"] = shard_key_selector
    try:
        content = orjson.dumps(body, default=_plain, option=_OPTIONS)
    except TypeError:  # numbers beyond 64 bits, for instance, which qdrant_client sends
        return None
    send = partial(
        client.http.client.request,
        type_=cast("type[Any]", dict[str, Any]),
        method="PUT",
        url="/collections/{collection_name}/points",
        headers={"Content-Type": "application/json"},
        path_params={"collection_name": collection_name},
        params={"wait": str(wait).lower()},
        content=content,
    )
    return UpsertRequest(send, len(content))


def _rest_point(points: Points, index: int) -> dict[str, Any]:
    row, sparse = points.dense[index], points.sparse_of(index)
    vector: Any = {points.dense_name: row} if points.dense_name else row
    others: dict[str, Any] = {}
    if sparse is not None:
        others[points.sparse_name] = {"indices": sparse.indices, "values": sparse.values}
    if points.late is not None:
        others[points.late_name] = points.late[index]
    if others:
        vector = {points.dense_name: row, **others}
    return {"id": points.ids[index], "vector": vector, "payload": points.payloads[index]}


def _plain(value: object) -> Any:
    """Return what qdrant_client would write instead of a value that orjson leaves to us."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", exclude_none=True)
    return to_jsonable_python(value)


def _over_grpc(
    client: qdrant_client.QdrantClient,
    collection_name: str,
    points: Points,
    wait: bool,
    shard_key_selector: models.ShardKeySelector | None,
) -> UpsertRequest | None:
    options: dict[str, Any] = {"wait": wait}
    if shard_key_selector is not None:
        options["shard_key_selector"] = RestToGrpc.convert_shard_key_selector(shard_key_selector)
    try:
        message = upsert_message(collection_name, points, **options)
    except (NotEncodableError, UnicodeEncodeError, TooDeepError):
        return None  # qdrant_client may convert it, or say why not

    def send() -> Any:
        return client.grpc_points.Upsert(message, timeout=_timeout(client))

    return UpsertRequest(send, message.ByteSize())


def query_batch(
    client: qdrant_client.QdrantClient,
    collection_name: str,
    requests: Sequence[models.QueryRequest],
    consistency: models.ReadConsistency | None = None,
    timeout: int | None = None,
) -> list[rest.QueryResponse]:
    """Send queries in one request; like ``query_batch_points``, which copies each of them first.

    Their vectors must be numbers: nothing is embedded on the way.
    """
    if not is_own(client, "query_batch_points", "query_points"):
        return client.query_batch_points(collection_name, requests, consistency, timeout)
    if (database := embedded(client)) is not None:
        return cast(
            "list[rest.QueryResponse]", database.query_batch_points(collection_name, requests)
        )
    if not _is_remote(client):
        return _each_query(client, collection_name, requests, consistency, timeout)
    if _prefers_grpc(client):
        message = grpc.QueryBatchPoints(
            collection_name=collection_name,
            query_points=[query_message(collection_name, request) for request in requests],
            read_consistency=_grpc_consistency(consistency),
            timeout=timeout,
        )
        seconds = _timeout(client) if timeout is None else timeout
        return _then(_grpc_answers, client.grpc_points.QueryBatch(message, timeout=seconds))
    answer = client.http.search_api.query_batch_points(
        collection_name=collection_name,
        consistency=cast("Any", consistency),  # it may be None, whatever its type says
        timeout=cast("Any", timeout),  # likewise
        query_request_batch=_searches(requests),
    )
    return _then(_rest_answers, answer)


def _each_query(
    client: qdrant_client.QdrantClient,
    collection_name: str,
    requests: Sequence[models.QueryRequest],
    consistency: models.ReadConsistency | None,
    timeout: int | None,
) -> list[rest.QueryResponse]:
    """Ask a local database one query after the other, as it does with a batch itself."""
    calls = [
        partial(
            client.query_points,
            collection_name,
            query=request.query,
            using=request.using,
            prefetch=request.prefetch,
            query_filter=request.filter,
            search_params=request.params,
            limit=10 if request.limit is None else request.limit,
            offset=request.offset,
            with_payload=False if request.with_payload is None else request.with_payload,
            with_vectors=request.with_vector or False,
            score_threshold=request.score_threshold,
            lookup_from=request.lookup_from,
            consistency=consistency,
            shard_key_selector=request.shard_key,
            timeout=timeout,
        )
        for request in requests
    ]
    if not inspect.iscoroutinefunction(client.query_points):
        return [call() for call in calls]

    async def later() -> list[rest.QueryResponse]:
        return [await cast("Awaitable[rest.QueryResponse]", call()) for call in calls]

    return cast("list[rest.QueryResponse]", later())


def _searches(requests: Sequence[models.QueryRequest]) -> Any:
    """Return the body of a batch, or the model of it; qdrant_client sends either."""
    if orjson is None:
        return models.QueryRequestBatch(searches=[resolved(request) for request in requests])
    searches = []
    for request in requests:
        vector = request.query if is_vector(request.query) else None
        sent = resolved(request) if vector is None else request.model_copy(update=_NO_QUERY)
        search = sent.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude_none=True)
        searches.append(search if vector is None else {**search, "query": {"nearest": vector}})
    return orjson.dumps({"searches": searches})


def _rest_answers(response: Any) -> list[rest.QueryResponse]:
    return cast("list[rest.QueryResponse]", response.result)


def _grpc_answers(response: Any) -> list[rest.QueryResponse]:
    return [
        rest.QueryResponse(points=[scored_point(hit) for hit in found.result])
        for found in response.result
    ]


def scored_point(hit: grpc.ScoredPoint) -> rest.ScoredPoint:
    """Return a hit as ``qdrant_client`` does, which takes three times as long for the usual one."""
    if any(hit.HasField(field) for field in ("vectors", "shard_key", "order_value")):
        return GrpcToRest.convert_scored_point(hit)
    return rest.ScoredPoint(
        id=GrpcToRest.convert_point_id(hit.id),
        payload=GrpcToRest.convert_payload(hit.payload) if len(hit.payload) else None,
        score=hit.score,
        vector=None,
        version=hit.version,
        shard_key=None,
        order_value=None,
    )


def _grpc_consistency(consistency: models.ReadConsistency | None) -> Any:
    if consistency is None:
        return None
    if isinstance(consistency, str):
        consistency = models.ReadConsistencyType(consistency)
    return RestToGrpc.convert_read_consistency(consistency)


def _then(function: Callable[[Any], T], answer: Any) -> T:
    """Return what `function` makes of an answer; for the asynchronous client, once it is there."""
    if not isinstance(answer, Awaitable):
        return function(answer)

    async def later() -> T:
        return function(await answer)

    return cast("T", later())


def _is_remote(client: qdrant_client.QdrantClient) -> bool:
    try:
        return client.http is not None
    except NotImplementedError:  # a local database
        return False


def _prefers_grpc(client: qdrant_client.QdrantClient) -> bool:
    return bool(client.init_options.get("prefer_grpc"))


def _timeout(client: qdrant_client.QdrantClient) -> int:
    given = client.init_options.get("timeout")
    return _DEFAULT_TIMEOUT if given is None else math.ceil(given)
