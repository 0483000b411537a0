"""Qdrant's gRPC interface: messages of qdrant-client's own protocol to operations of the node."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import grpc
from qdrant_client import grpc as messages
from qdrant_client import models
from qdrant_client.conversions.conversion import GrpcToRest, RestToGrpc

from fake_server import rules
from fake_server.faults import Fault
from fake_server.node import selected
from fake_server.rest import VERSION
from fake_server.rules import Kind, RefusedError

if TYPE_CHECKING:
    from fake_server.serving import Server

Run = Callable[..., Any]


@contextmanager
def listening(running: Server) -> Iterator[None]:
    """Serve the node over gRPC while the block runs; `running.grpc_port` is set."""
    threads = ThreadPoolExecutor(16)
    server = grpc.server(
        threads,
        options=[("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)],
    )
    for service, (base, add) in _SERVICES.items():
        methods = {
            method: _servicer_method(running, f"{service}/{method}", handler)
            for (of_service, method), handler in _METHODS.items()
            if of_service == service
        }
        add(type(service, (base,), methods)(), server)
    running.grpc_port = server.add_insecure_port(f"127.0.0.1:{running.grpc_port or 0}")
    server.start()
    try:
        yield
    finally:
        server.stop(None).wait()
        threads.shutdown(wait=False)


def _servicer_method(
    running: Server, name: str, handler: Callable[[Run, Any], Any]
) -> Callable[[Any, Any, Any], Any]:
    """Return a method of a servicer: what is written down, refused, spoilt, and answered."""

    def method(servicer: Any, request: Any, context: Any) -> Any:
        del servicer
        key = dict(context.invocation_metadata()).get("api-key")
        running.requests.append(name)
        running.bodies.append((name, request.SerializeToString()))
        running.keys.append(key)
        fault = _fault(running, name, request.ByteSize())
        if fault is not None:
            running.wait(fault.pause)
        response = None
        if fault is None or fault.is_run:
            try:
                response = _answer(running, handler, request, key)
            except RefusedError as refusal:
                after = refusal.retry_after
                if after is not None:
                    context.set_trailing_metadata((("retry-after", str(after)),))
                context.abort(grpc.StatusCode[refusal.kind.code], refusal.grpc)
        if fault is not None:
            running.wait(fault.late)
            if fault.unfinished:
                return _unfinished(name)
            if fault.grpc_code != "OK":
                context.set_trailing_metadata(
                    tuple((header.lower(), value) for header, value in fault.headers)
                )
                context.abort(grpc.StatusCode[fault.grpc_code], fault.message)
        return running.change(name, response)

    return method


def _fault(running: Server, name: str, size: int) -> Fault | None:
    """Return what to do to a request; a message too large is refused as gRPC refuses it."""
    if running.largest is None or size <= running.largest:
        return running.fault(name)
    message = (
        f"Error, decoded message length too large: found {size} bytes, "
        f"the limit is: {running.largest} bytes"
    )
    return Fault(code="OUT_OF_RANGE", message=message)


def _answer(running: Server, handler: Callable[[Run, Any], Any], request: Any, key: Any) -> Any:
    access = rules.access_of(running.tokens, key)
    name = getattr(request, "collection_name", "")
    timeout = request.timeout if _has(request, "timeout") else None

    def run(operation: str, *args: Any) -> Any:
        return running.node.run(operation, name, *args, access=access, timeout=timeout)

    return handler(run, request)


def _has(request: Any, field: str) -> bool:
    return field in request.DESCRIPTOR.fields_by_name and request.HasField(field)


def _read(request: Any, field: str, convert: Callable[[Any], Any]) -> Any:
    """Return a field of a message as REST's model has it, None where it is not set."""
    return convert(getattr(request, field)) if _has(request, field) else None


def _plain(value: Any) -> Any:
    return value


def _shard_key(request: Any) -> Any:
    return _read(request, "shard_key_selector", GrpcToRest.convert_shard_key_selector)


# collections


def _create(run: Run, request: Any) -> Any:
    create = models.CreateCollection(
        vectors=_read(request, "vectors_config", GrpcToRest.convert_vectors_config),
        sparse_vectors=_read(
            request, "sparse_vectors_config", GrpcToRest.convert_sparse_vector_config
        ),
        shard_number=_read(request, "shard_number", _plain),
        sharding_method=_read(request, "sharding_method", GrpcToRest.convert_sharding_method),
        replication_factor=_read(request, "replication_factor", _plain),
        write_consistency_factor=_read(request, "write_consistency_factor", _plain),
        on_disk_payload=_read(request, "on_disk_payload", _plain),
        hnsw_config=_read(request, "hnsw_config", GrpcToRest.convert_hnsw_config_diff),
        wal_config=_read(request, "wal_config", GrpcToRest.convert_wal_config_diff),
        optimizers_config=_read(
            request, "optimizers_config", GrpcToRest.convert_optimizers_config_diff
        ),
        quantization_config=_read(
            request, "quantization_config", GrpcToRest.convert_quantization_config
        ),
        strict_mode_config=_read(
            request, "strict_mode_config", GrpcToRest.convert_strict_mode_config
        ),
        metadata=GrpcToRest.convert_payload(request.metadata) if request.metadata else None,
    )
    return messages.CollectionOperationResponse(result=run("create", create))


def _update_collection(run: Run, request: Any) -> Any:
    update = GrpcToRest.convert_update_collection(request)
    return messages.CollectionOperationResponse(result=run("update_collection", update))


def _info(run: Run, request: Any) -> Any:
    del request
    info = models.CollectionInfo.model_validate(run("info"))
    return messages.GetCollectionInfoResponse(result=RestToGrpc.convert_collection_info(info))


def _collections(run: Run, request: Any) -> Any:
    del request
    found = [messages.CollectionDescription(name=name) for name in run("collections")]
    return messages.ListCollectionsResponse(collections=found)


def _exists(run: Run, request: Any) -> Any:
    del request
    exists = messages.CollectionExists(exists=run("exists"))
    return messages.CollectionExistsResponse(result=exists)


def _delete_collection(run: Run, request: Any) -> Any:
    del request
    return messages.CollectionOperationResponse(result=run("delete_collection"))


def _change_aliases(run: Run, request: Any) -> Any:
    actions = [GrpcToRest.convert_alias_operations(action) for action in request.actions]
    return messages.CollectionOperationResponse(result=run("change_aliases", actions))


def _aliases(run: Run, request: Any) -> Any:
    del request
    pairs = [
        messages.AliasDescription(alias_name=alias, collection_name=name)
        for alias, name in run("aliases")
    ]
    return messages.ListAliasesResponse(aliases=pairs)


def _cluster(run: Run, request: Any) -> Any:
    del request
    info = models.CollectionClusterInfo.model_validate(run("cluster"))
    return RestToGrpc.convert_collection_cluster_info(info)


def _create_shard_key(run: Run, request: Any) -> Any:
    key = GrpcToRest.convert_shard_key(request.request.shard_key)
    return messages.CreateShardKeyResponse(result=run("create_shard_key", key))


def _delete_shard_key(run: Run, request: Any) -> Any:
    key = GrpcToRest.convert_shard_key(request.request.shard_key)
    return messages.DeleteShardKeyResponse(result=run("delete_shard_key", key))


# writes


def _done(request: Any, operation: int, *, wait: bool | None = None) -> Any:
    waited = request.wait if wait is None else wait
    status = messages.UpdateStatus.Completed if waited else messages.UpdateStatus.Acknowledged
    result = messages.UpdateResult(operation_id=operation, status=status)
    return messages.PointsOperationResponse(result=result)


def _unfinished(method: str) -> Any:
    """Return the answer to a change that was accepted, but not carried out in time."""
    result = messages.UpdateResult(operation_id=0, status=messages.UpdateStatus.WaitTimeout)
    if method.endswith("Batch"):
        return messages.UpdateBatchResponse(result=[result])
    return messages.PointsOperationResponse(result=result)


def _upsert(run: Run, request: Any) -> Any:
    for point in request.points:
        check_numbers(point.payload.values())
    points = [GrpcToRest.convert_point_struct(point) for point in request.points]
    operation = run(
        "upsert",
        points,
        request.wait,
        _shard_key(request),
        _read(request, "update_filter", GrpcToRest.convert_filter),
        _read(request, "update_mode", GrpcToRest.convert_update_mode),
    )
    return _done(request, operation)


def check_numbers(values: Iterable[Any]) -> None:
    """Raise `RefusedError` if a payload holds a number that JSON does not have.

    qdrant-client's conversion would make a str of it.
    """
    for value in values:
        check_numbers(value.list_value.values)
        check_numbers(value.struct_value.fields.values())
        if not math.isfinite(value.double_value):
            raise RefusedError(Kind.PLAIN, "cannot convert to json number")


def _delete(run: Run, request: Any) -> Any:
    chosen = selected(GrpcToRest.convert_points_selector(request.points))
    return _done(request, run("delete", chosen, request.wait, _shard_key(request)))


def _payload(change: str) -> Callable[[Run, Any], Any]:
    """Return what reads and runs a change of payloads."""

    def run_change(run: Run, request: Any) -> Any:
        selector = request.points if change == "clear" else request.points_selector
        payload: Any = None
        if change in ("set", "overwrite"):
            payload = GrpcToRest.convert_payload(request.payload)
        elif change == "delete":
            payload = list(request.keys)
        chosen = selected(GrpcToRest.convert_points_selector(selector))
        key = _read(request, "key", _plain)
        args = (change, chosen, request.wait, payload, key, _shard_key(request))
        return _done(request, run("payload", *args))

    return run_change


def _update_vectors(run: Run, request: Any) -> Any:
    points = [GrpcToRest.convert_point_vectors(point) for point in request.points]
    return _done(request, run("update_vectors", points, request.wait, _shard_key(request)))


def _update_batch(run: Run, request: Any) -> Any:
    operations = [_operation(operation) for operation in request.operations]
    numbers = run("operations", operations, request.wait)
    return messages.UpdateBatchResponse(
        result=[_done(request, number).result for number in numbers]
    )


def _operation(message: Any) -> Any:
    """Return an operation with its shard key, which the conversion cannot read."""
    asked = getattr(message, message.WhichOneof("operation"))
    key = _shard_key(asked)
    if key is not None:
        asked.ClearField("shard_key_selector")
    operation = GrpcToRest.convert_points_update_operation(message)
    (change,) = dict(operation).values()
    return operation.model_copy(
        update={next(iter(dict(operation))): change.model_copy(update={"shard_key": key})}
    )


def _create_index(run: Run, request: Any) -> Any:
    kind = messages.FieldType.Name(request.field_type).removeprefix("FieldType").lower()
    schema: Any = models.PayloadSchemaType(kind)
    if request.HasField("field_index_params"):
        schema = GrpcToRest.convert_payload_schema_params(request.field_index_params)
    return _done(request, run("create_index", request.field_name, schema))


def _delete_index(run: Run, request: Any) -> Any:
    return _done(request, run("delete_index", request.field_name))


def _create_vector(run: Run, request: Any) -> Any:
    config: Any
    if _has(request, "dense_config"):
        dense = request.dense_config
        params: dict[str, Any] = {
            "size": dense.size,
            "distance": GrpcToRest.convert_distance(dense.distance),
            "multivector_config": _read(
                dense, "multivector_config", GrpcToRest.convert_multivector_config
            ),
        }
        config = models.DenseVectorNameConfig.model_validate({"dense": params})
    else:
        modifier = _read(request.sparse_config, "modifier", GrpcToRest.convert_modifier)
        config = models.SparseVectorNameConfig.model_validate({"sparse": {"modifier": modifier}})
    return _done(request, run("create_vector", request.vector_name, config), wait=False)


def _delete_vector(run: Run, request: Any) -> Any:
    return _done(request, run("delete_vector", request.vector_name))


# reads


def _record(record: models.Record) -> Any:
    """Return a message; the conversion wants a payload."""
    return RestToGrpc.convert_record(record.model_copy(update={"payload": record.payload or {}}))


def _hit(point: models.ScoredPoint) -> Any:
    return RestToGrpc.convert_scored_point(
        point.model_copy(update={"payload": point.payload or {}})
    )


def _group(group: models.PointGroup) -> Any:
    key = group.id
    group_id = {"string_value": key} if isinstance(key, str) else {"integer_value": key}
    return messages.PointGroup(
        id=messages.GroupId(**group_id), hits=[_hit(hit) for hit in group.hits]
    )


def _retrieve(run: Run, request: Any) -> Any:
    records = run(
        "retrieve",
        [GrpcToRest.convert_point_id(point) for point in request.ids],
        GrpcToRest.convert_with_payload_interface(request.with_payload),
        _read(request, "with_vectors", GrpcToRest.convert_with_vectors_selector) or False,
        _shard_key(request),
    )
    return messages.GetResponse(result=[_record(record) for record in records])


def _scroll(run: Run, request: Any) -> Any:
    scroll = models.ScrollRequest(
        shard_key=_shard_key(request),
        offset=_read(request, "offset", GrpcToRest.convert_point_id),
        limit=_read(request, "limit", _plain),
        filter=_read(request, "filter", GrpcToRest.convert_filter),
        with_payload=_read(request, "with_payload", GrpcToRest.convert_with_payload_interface),
        with_vector=_read(request, "with_vectors", GrpcToRest.convert_with_vectors_selector),
        order_by=_read(request, "order_by", GrpcToRest.convert_order_by),
    )
    points, following = run("scroll", scroll)
    return messages.ScrollResponse(
        result=[_record(point) for point in points],
        next_page_offset=None
        if following is None
        else RestToGrpc.convert_extended_point_id(following),
    )


def _count(run: Run, request: Any) -> Any:
    count = models.CountRequest(
        shard_key=_shard_key(request),
        filter=_read(request, "filter", GrpcToRest.convert_filter),
        exact=_read(request, "exact", _plain),
    )
    return messages.CountResponse(result=messages.CountResult(count=run("count", count)))


def _facet(run: Run, request: Any) -> Any:
    facet = models.FacetRequest(
        key=request.key,
        limit=_read(request, "limit", _plain),
        filter=_read(request, "filter", GrpcToRest.convert_filter),
    )
    hits = [RestToGrpc.convert_facet_value_hit(hit) for hit in run("facet", facet)]
    return messages.FacetResponse(hits=hits)


def _query(run: Run, request: Any) -> Any:
    points = run("query", GrpcToRest.convert_query_points(request))
    return messages.QueryResponse(result=[_hit(hit) for hit in points])


def _query_batch(run: Run, request: Any) -> Any:
    searches = [GrpcToRest.convert_query_points(search) for search in request.query_points]
    return messages.QueryBatchResponse(
        result=[
            messages.BatchResult(result=[_hit(hit) for hit in points])
            for points in run("query_batch", searches)
        ]
    )


def _query_groups(run: Run, request: Any) -> Any:
    prefetch = [GrpcToRest.convert_prefetch_query(inner) for inner in request.prefetch]
    asked = models.QueryGroupsRequest(
        shard_key=_shard_key(request),
        prefetch=prefetch or None,
        query=_read(request, "query", GrpcToRest.convert_query),
        using=_read(request, "using", _plain),
        filter=_read(request, "filter", GrpcToRest.convert_filter),
        params=_read(request, "params", GrpcToRest.convert_search_params),
        score_threshold=_read(request, "score_threshold", _plain),
        with_vector=_read(request, "with_vectors", GrpcToRest.convert_with_vectors_selector),
        with_payload=_read(request, "with_payload", GrpcToRest.convert_with_payload_interface),
        group_by=request.group_by,
        group_size=_read(request, "group_size", _plain),
        limit=_read(request, "limit", _plain),
    )
    groups = [_group(group) for group in run("query_groups", asked)]
    return messages.QueryGroupsResponse(result=messages.GroupsResult(groups=groups))


def _health(run: Run, request: Any) -> Any:
    del run, request
    return messages.HealthCheckReply(**VERSION)


_SERVICES: dict[str, tuple[type, Callable[[Any, Any], None]]] = {
    "Qdrant": (messages.QdrantServicer, messages.add_QdrantServicer_to_server),
    "Collections": (messages.CollectionsServicer, messages.add_CollectionsServicer_to_server),
    "Points": (messages.PointsServicer, messages.add_PointsServicer_to_server),
}

_METHODS: dict[tuple[str, str], Callable[[Run, Any], Any]] = {
    ("Qdrant", "HealthCheck"): _health,
    ("Collections", "Get"): _info,
    ("Collections", "List"): _collections,
    ("Collections", "Create"): _create,
    ("Collections", "Update"): _update_collection,
    ("Collections", "Delete"): _delete_collection,
    ("Collections", "UpdateAliases"): _change_aliases,
    ("Collections", "ListCollectionAliases"): _aliases,
    ("Collections", "ListAliases"): _aliases,
    ("Collections", "CollectionClusterInfo"): _cluster,
    ("Collections", "CollectionExists"): _exists,
    ("Collections", "CreateShardKey"): _create_shard_key,
    ("Collections", "DeleteShardKey"): _delete_shard_key,
    ("Points", "Upsert"): _upsert,
    ("Points", "Delete"): _delete,
    ("Points", "Get"): _retrieve,
    ("Points", "UpdateVectors"): _update_vectors,
    ("Points", "SetPayload"): _payload("set"),
    ("Points", "OverwritePayload"): _payload("overwrite"),
    ("Points", "DeletePayload"): _payload("delete"),
    ("Points", "ClearPayload"): _payload("clear"),
    ("Points", "CreateFieldIndex"): _create_index,
    ("Points", "DeleteFieldIndex"): _delete_index,
    ("Points", "CreateVectorName"): _create_vector,
    ("Points", "DeleteVectorName"): _delete_vector,
    ("Points", "Scroll"): _scroll,
    ("Points", "Count"): _count,
    ("Points", "UpdateBatch"): _update_batch,
    ("Points", "Query"): _query,
    ("Points", "QueryBatch"): _query_batch,
    ("Points", "QueryGroups"): _query_groups,
    ("Points", "Facet"): _facet,
}
