"""One Qdrant node: a local database that behaves as a server does."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import qdrant_client
from qdrant_client import models
from qdrant_client.local.payload_value_extractor import value_by_key

from fake_server import rules
from fake_server.rules import Access, Kind, RateLimiter, RefusedError, Right, Strict, listed

WRITE, MANAGE, READ = Right(write=True), Right(manage=True), Right()

# each operation, and the right it needs
OPERATIONS = {
    "aliases": READ,
    "change_aliases": MANAGE,
    "cluster": READ,
    "collections": READ,
    "count": READ,
    "create": MANAGE,
    "create_index": WRITE,
    "create_shard_key": MANAGE,
    "create_vector": WRITE,
    "delete": WRITE,
    "delete_collection": MANAGE,
    "delete_index": WRITE,
    "delete_shard_key": MANAGE,
    "delete_vector": WRITE,
    "exists": READ,
    "facet": READ,
    "info": READ,
    "operations": WRITE,
    "payload": WRITE,
    "query": READ,
    "query_batch": READ,
    "query_groups": READ,
    "retrieve": READ,
    "scroll": READ,
    "update_collection": MANAGE,
    "update_vectors": WRITE,
    "upsert": WRITE,
}
_GLOBAL = {"aliases", "change_aliases", "collections", "create", "exists"}

_INFO: dict[str, Any] = {
    "hnsw_config": {
        "m": 16,
        "ef_construct": 100,
        "full_scan_threshold": 10000,
        "max_indexing_threads": 0,
        "on_disk": False,
    },
    "optimizer_config": {
        "deleted_threshold": 0.2,
        "vacuum_min_vector_number": 1000,
        "default_segment_number": 0,
        "max_segment_size": None,
        "memmap_threshold": None,
        "indexing_threshold": 10000,
        "flush_interval_sec": 5,
        "max_optimization_threads": None,
        "prevent_unoptimized": None,
    },
    "wal_config": {"wal_capacity_mb": 32, "wal_segments_ahead": 0, "wal_retain_closed": 1},
}

_GROUP_ROUNDS = 5


@dataclass
class Settings:
    """What a server keeps of a collection, and a local database does not."""

    created: dict[str, Any] = field(default_factory=dict)
    indexes: dict[str, Any] = field(default_factory=dict)
    strict: dict[str, Any] = field(default_factory=dict)
    shard_keys: list[models.ShardKey] = field(default_factory=list)
    placed: dict[Any, models.ShardKey] = field(default_factory=dict)
    reads: RateLimiter | None = None
    writes: RateLimiter | None = None
    queue: list[Callable[[], object]] = field(default_factory=list)
    operation: int = 0

    @property
    def custom_sharding(self) -> bool:
        return self.created.get("sharding_method") == "custom"


class Node:
    """A node of Qdrant.

    Args:
        database: a local one.

    Attributes:
        database: the local one, which tests may look into.
        distributed: whether it belongs to a cluster, which shard keys need.
        queueing: whether writes with ``wait=False`` stay in a queue, unseen, until one with
            ``wait=True`` comes; without it they are carried out before they are answered.
    """

    def __init__(self, database: qdrant_client.QdrantClient) -> None:
        self.database = database
        self.distributed = False
        self.queueing = False
        self.settings: dict[str, Settings] = {}
        self._lock = threading.Lock()

    def run(
        self,
        operation: str,
        name: str = "",
        *args: Any,
        access: Access = "manage",
        timeout: int | None = None,
    ) -> Any:
        """Carry out an operation, one of `OPERATIONS`, and return its result.

        Args:
            operation: a method's name.
            name: of the collection, or an alias of it.
            args: of the method.
            access: of the key that came with the request.
            timeout: in seconds, as the request has it.
        """
        with self._lock:
            if name:
                rules.check_name(name)
            rules.check_right(access, OPERATIONS[operation], name or None)
            if operation == "collections":
                return self.collections(access)
            if operation not in _GLOBAL and operation != "delete_collection":
                name = self._resolved(name)
                Strict(self.of(name).strict).check_timeout(timeout)
            try:
                with np.errstate(all="ignore"):  # of numbers that no float32 holds
                    return getattr(self, operation)(*([name] if name else []), *args)
            except KeyError as error:  # as the local database has no such point
                message = f"No point with id {error.args[0]} found"
                raise RefusedError(Kind.NOT_FOUND, message) from error
            except ValueError as error:  # as the local database refuses
                raise RefusedError(Kind.INPUT, str(error)) from error

    def of(self, name: str) -> Settings:
        """Return the settings of a collection, also of one that a test made in the database."""
        return self.settings.setdefault(name, Settings())

    def _targets(self) -> dict[str, str]:
        aliases = self.database.get_aliases().aliases
        return {alias.alias_name: alias.collection_name for alias in aliases}

    def _names(self) -> list[str]:
        return [found.name for found in self.database.get_collections().collections]

    def _resolved(self, name: str) -> str:
        target = self._targets().get(name, name)
        if target not in self._names():
            raise rules.no_collection(name)
        return target

    # collections

    def collections(self, access: Access = "manage") -> list[str]:
        return [name for name in self._names() if not isinstance(access, Mapping) or name in access]

    def exists(self, name: str) -> bool:
        return self._targets().get(name, name) in self._names()

    def create(self, name: str, create: models.CreateCollection) -> bool:
        rules.check_new_name(name)
        if isinstance(create.vectors, Mapping):
            for vector in create.vectors:
                rules.check_vector_name(vector)
        for vector in create.sparse_vectors or {}:
            rules.check_vector_name(vector)
        if name in self._names():
            raise RefusedError(Kind.EXISTS, f"Collection `{name}` already exists!")
        if name in self._targets():
            raise RefusedError(
                Kind.INPUT,
                f"Can't create collection with name {name}. Alias with the same name already "
                "exists",
            )
        self.database.create_collection(
            name, create.vectors, create.sparse_vectors, metadata=create.metadata
        )
        settings = self.settings[name] = Settings(
            created=create.model_dump(mode="json", exclude_none=True)
        )
        self._be_strict(settings, create.strict_mode_config)
        return True

    def update_collection(self, name: str, update: models.UpdateCollection) -> bool:
        settings = self.of(name)
        self.database.update_collection(
            name, sparse_vectors_config=update.sparse_vectors, metadata=update.metadata
        )
        for option in ("hnsw_config", "optimizers_config", "params", "quantization_config"):
            if (diff := getattr(update, option)) is not None:
                changed = diff.model_dump(mode="json", exclude_none=True)
                settings.created[option] = settings.created.get(option, {}) | changed
        self._be_strict(settings, update.strict_mode_config)
        return True

    def _be_strict(self, settings: Settings, config: models.StrictModeConfig | None) -> None:
        """Add to the limits; buckets of tokens are full again."""
        if config is None:
            return
        settings.strict |= config.model_dump(exclude_none=True)
        limits = Strict(settings.strict).config
        reads, writes = limits.get("read_rate_limit"), limits.get("write_rate_limit")
        settings.reads = RateLimiter("Read", reads) if reads else None
        settings.writes = RateLimiter("Write", writes) if writes else None

    def delete_collection(self, name: str) -> bool:
        self.settings.pop(name, None)
        return bool(self.database.delete_collection(name)) if name in self._names() else False

    def info(self, name: str) -> dict[str, Any]:
        """Return what the server says of a collection, as JSON has it."""
        settings, found = self.of(name), self.database.get_collection(name)
        created, config = settings.created, found.config
        params = config.params.model_dump(mode="json", exclude_none=True)
        params = {
            "vectors": params.get("vectors") or {},
            "shard_number": created.get("shard_number", 1),
            "replication_factor": created.get("replication_factor", 1),
            "write_consistency_factor": created.get("write_consistency_factor", 1),
            "on_disk_payload": created.get("on_disk_payload", True),
            **{key: created[key] for key in ("sharding_method",) if key in created},
            **created.get("params", {}),
            **({"sparse_vectors": params["sparse_vectors"]} if "sparse_vectors" in params else {}),
        }
        optimizers = _INFO["optimizer_config"] | created.get("optimizers_config", {})
        shown = {
            "params": params,
            "hnsw_config": _INFO["hnsw_config"] | created.get("hnsw_config", {}),
            "optimizer_config": optimizers,
            "wal_config": _INFO["wal_config"] | created.get("wal_config", {}),
            "quantization_config": created.get("quantization_config"),
        }
        if settings.strict:
            shown["strict_mode_config"] = settings.strict
        if config.metadata is not None:
            shown["metadata"] = config.metadata
        points = self.database.count(name).count
        return {
            "status": "green",
            "optimizer_status": "ok",
            "indexed_vectors_count": 0,
            "points_count": points,
            "segments_count": 2,
            "config": shown,
            "payload_schema": {
                key: self._index_info(name, key, schema) for key, schema in settings.indexes.items()
            },
            "update_queue": {"length": 0},
        }

    def _index_info(self, name: str, key: str, schema: Any) -> dict[str, Any]:
        kind = rules.kind_of_index(schema)
        points, _ = self.database.scroll(name, limit=1_000_000, with_payload=[key])
        matching = [
            point
            for point in points
            if any(
                _indexed(kind, value)
                for found in value_by_key(point.payload or {}, key) or []
                for value in listed(found)
            )
        ]
        shown: dict[str, Any] = {"data_type": kind}
        if hasattr(schema, "model_dump"):
            shown["params"] = schema.model_dump(mode="json", exclude_none=True)
        return shown | {"points": len(matching)}

    def create_vector(self, name: str, vector: str, config: models.VectorNameConfig) -> int:
        rules.check_vector_name(vector)
        params = self.database.get_collection(name).config.params
        dense = params.vectors if isinstance(params.vectors, Mapping) else {"": params.vectors}
        wanted = getattr(config, "dense", None) or getattr(config, "sparse", None)
        there = dense.get(vector) or (params.sparse_vectors or {}).get(vector)
        if there is None:
            self.database.create_vector_name(name, vector, config)
        elif _plain(there) != _plain(wanted):
            raise RefusedError(
                Kind.INPUT, f"Vector `{vector}` already exists with a different configuration"
            )
        return self._operation(name)

    def delete_vector(self, name: str, vector: str) -> int:
        self.database.delete_vector_name(name, vector)
        return self._operation(name)

    def aliases(self, name: str = "") -> list[tuple[str, str]]:
        """Return pairs of an alias and its collection."""
        return [pair for pair in self._targets().items() if not name or pair[1] == name]

    def change_aliases(self, actions: Sequence[models.AliasOperations]) -> bool:
        for action in actions:
            if isinstance(action, models.CreateAliasOperation):
                target = action.create_alias.collection_name
                if target not in self._names():
                    raise rules.no_collection(target)
                if (alias := action.create_alias.alias_name) in self._names():
                    raise RefusedError(
                        Kind.INPUT,
                        f"Can't create alias with name {alias}. Collection with the same name "
                        "already exists",
                    )
        return bool(self.database.update_collection_aliases(list(actions)))

    # shards

    def create_shard_key(self, name: str, key: models.ShardKey) -> bool:
        if not self.distributed:
            raise RefusedError(Kind.REQUEST, "Distributed mode disabled")
        keys = self.of(name).shard_keys
        if key in keys:
            raise RefusedError(
                Kind.REQUEST, f"Sharding key {key} already exists for collection {name}"
            )
        keys.append(key)
        return True

    def delete_shard_key(self, name: str, key: models.ShardKey) -> bool:
        if not self.distributed:
            raise RefusedError(Kind.REQUEST, "Distributed mode disabled")
        settings = self.of(name)
        settings.shard_keys.remove(key)
        gone: list[Any] = [point for point, placed in settings.placed.items() if placed == key]
        if gone:
            self.database.delete(name, gone)
        return True

    def cluster(self, name: str) -> dict[str, Any]:
        """Return how the collection is spread, as JSON has it."""
        settings = self.of(name)
        keys = settings.shard_keys if settings.custom_sharding or settings.shard_keys else [None]
        return {
            "peer_id": 1,
            "shard_count": len(keys),
            "local_shards": [
                {"shard_id": place, "points_count": 0, "state": "Active"}
                | ({} if key is None else {"shard_key": key})
                for place, key in enumerate(keys)
            ],
            "remote_shards": [],
            "shard_transfers": [],
        }

    def _check_shard(self, name: str, selector: Any) -> None:
        """Raise `RefusedError` unless what is written has a shard to go to."""
        settings = self.of(name)
        if not settings.custom_sharding:
            return
        if selector is None:
            raise RefusedError(Kind.INPUT, "Shard key not specified")
        for key in _keys(selector):
            if key not in settings.shard_keys:
                raise RefusedError(Kind.INPUT, f"Shard key {key} not found")

    def _on_shards(self, name: str, selector: Any) -> list[models.Filter]:
        """Return what keeps a search to the shards of a selector."""
        settings = self.of(name)
        if not settings.custom_sharding:
            return []
        if not settings.shard_keys:  # a collection without a shard makes the server panic
            raise RefusedError(Kind.PANIC, "task panicked")
        if selector is None:
            return []
        keys = _keys(selector)
        for key in keys:
            if key not in settings.shard_keys:
                raise RefusedError(Kind.REQUEST, f"Shard key {key} not found")
        ids: list[Any] = [point for point, placed in settings.placed.items() if placed in keys]
        return [models.Filter(must=[models.HasIdCondition(has_id=ids)])]

    # writes

    def _operation(self, name: str) -> int:
        settings = self.of(name)
        settings.operation += 1
        return settings.operation

    def _write(self, name: str, wait: bool, change: Callable[[], object]) -> int:
        """Carry a change out, or put it into the queue; return the operation's number."""
        settings = self.of(name)
        if self.queueing and not wait:
            settings.queue.append(change)
            return self._operation(name)
        while settings.queue:
            settings.queue.pop(0)()
        change()
        return self._operation(name)

    def _sizes(self, name: str) -> dict[str, int | None]:
        """Return the size of each vector, None of a sparse one."""
        params = self.database.get_collection(name).config.params
        dense = params.vectors
        sizes: dict[str, int | None] = dict.fromkeys(params.sparse_vectors or {})
        if isinstance(dense, Mapping):
            return sizes | {vector: config.size for vector, config in dense.items()}
        return sizes | ({"": dense.size} if dense is not None else {})

    def _pay_write(self, name: str, filter_: models.Filter | None, points: int) -> None:
        if (limiter := self.of(name).writes) is not None:
            if filter_ is not None:
                points = self.database.count(name, count_filter=filter_).count
            limiter.take(max(1, points))

    def upsert(
        self,
        name: str,
        points: Sequence[models.PointStruct],
        wait: bool,
        shard_key: Any = None,
        update_filter: models.Filter | None = None,
        update_mode: models.UpdateMode | None = None,
    ) -> int:
        rules.check_sparse(points)
        settings = self.of(name)
        Strict(settings.strict).check_upsert(len(points))
        self._check_shard(name, shard_key)
        self._pay_write(name, None, len(points))
        rules.check_vectors(self._sizes(name), points)
        kept = [
            models.PointStruct.model_construct(
                id=rules.point_id(point.id),
                vector=_storable(point.vector),
                payload=rules.as_stored(point.payload or {}),
            )
            for point in points
        ]
        options: dict[str, Any] = {"update_filter": update_filter, "update_mode": update_mode}
        options = {key: value for key, value in options.items() if value is not None}

        def change() -> None:
            if kept:
                self.database.upsert(name, kept, **options)
            if shard_key is not None:
                settings.placed |= {point.id: _keys(shard_key)[0] for point in kept}

        return self._write(name, wait, change)

    def delete(self, name: str, selector: Any, wait: bool, shard_key: Any = None) -> int:
        chosen = self._chosen(name, selector, shard_key)
        return self._write(name, wait, lambda: self.database.delete(name, chosen))

    def _chosen(self, name: str, selector: Any, shard_key: Any) -> Any:
        """Return the points that a write means, once it is allowed."""
        settings = self.of(name)
        if isinstance(selector, models.Filter):
            Strict(settings.strict).check_filter(selector, settings.indexes, write=True)
        else:
            selector = [rules.point_id(point) for point in selector]
        self._check_shard(name, shard_key)
        is_filter = isinstance(selector, models.Filter)
        self._pay_write(name, selector if is_filter else None, 1 if is_filter else len(selector))
        if shard_key is None:
            return _joined(selector) if is_filter else selector
        if is_filter:
            return _joined(selector, must=self._on_shards(name, shard_key))
        keys = _keys(shard_key)
        return [point for point in selector if settings.placed.get(point) in keys]

    def payload(
        self,
        name: str,
        change: str,
        selector: Any,
        wait: bool,
        payload: Any = None,
        key: str | None = None,
        shard_key: Any = None,
    ) -> int:
        """Change payloads: "set", "overwrite", "delete" (keys) or "clear"."""
        chosen = self._chosen(name, selector, shard_key)
        if change == "delete":
            return self._write(
                name, wait, lambda: self.database.delete_payload(name, payload, chosen)
            )
        if change == "clear":
            return self._write(name, wait, lambda: self.database.clear_payload(name, chosen))
        stored = rules.as_stored(payload)
        if change == "set":
            return self._write(
                name, wait, lambda: self.database.set_payload(name, stored, chosen, key=key)
            )
        return self._write(
            name, wait, lambda: self.database.overwrite_payload(name, stored, chosen)
        )

    def update_vectors(
        self, name: str, points: Sequence[models.PointVectors], wait: bool, shard_key: Any = None
    ) -> int:
        rules.check_sparse(points)
        self._check_shard(name, shard_key)
        self._pay_write(name, None, len(points))
        rules.check_vectors(self._sizes(name), points)
        ids = [rules.point_id(point.id) for point in points]
        there = {record.id for record in self.database.retrieve(name, ids, with_payload=False)}
        for point in ids:
            if point not in there:
                raise RefusedError(Kind.NOT_FOUND, f"No point with id {point} found")
        return self._write(name, wait, lambda: self.database.update_vectors(name, list(points)))

    def operations(
        self, name: str, operations: Sequence[models.UpdateOperation], wait: bool
    ) -> list[int]:
        """Carry out several writes; return their numbers."""
        done = []
        for operation in operations:
            (change,) = dict(operation).values()
            key = change.shard_key if hasattr(change, "shard_key") else None
            if isinstance(operation, models.UpsertOperation):
                done.append(self.upsert(name, points_of(change), wait, key))
            elif isinstance(operation, models.DeleteOperation):
                done.append(self.delete(name, selected(change), wait, key))
            elif isinstance(
                operation, models.SetPayloadOperation | models.OverwritePayloadOperation
            ):
                kind = "set" if isinstance(operation, models.SetPayloadOperation) else "overwrite"
                args = (wait, change.payload, change.key, key)
                done.append(self.payload(name, kind, selected(change), *args))
            elif isinstance(operation, models.UpdateVectorsOperation):
                done.append(self.update_vectors(name, change.points, wait, key))
            elif isinstance(operation, models.DeleteVectorsOperation):
                done.append(self.delete_vectors(name, change.vector, selected(change), wait, key))
            else:
                raise RefusedError(Kind.REQUEST, f"the fake server knows no {type(operation)}")
        return done

    def delete_vectors(
        self, name: str, vectors: Sequence[str], selector: Any, wait: bool, shard_key: Any = None
    ) -> int:
        chosen = self._chosen(name, selector, shard_key)
        return self._write(name, wait, lambda: self.database.delete_vectors(name, vectors, chosen))

    def create_index(self, name: str, key: str, schema: Any) -> int:
        self.of(name).indexes[key] = schema
        return self._operation(name)

    def delete_index(self, name: str, key: str) -> int:
        self.of(name).indexes.pop(key, None)
        return self._operation(name)

    # reads

    def _pay_read(self, name: str, cost: int) -> None:
        if (limiter := self.of(name).reads) is not None:
            limiter.take(cost)

    def retrieve(
        self,
        name: str,
        ids: Sequence[Any],
        with_payload: Any = True,
        with_vector: Any = False,
        shard_key: Any = None,
    ) -> list[models.Record]:
        ids = [rules.point_id(point) for point in ids]
        self._pay_read(name, len(ids))
        if self._on_shards(name, shard_key):
            keys = _keys(shard_key)
            ids = [point for point in ids if self.of(name).placed.get(point) in keys]
        return self.database.retrieve(
            name, ids, with_payload=with_payload, with_vectors=with_vector
        )

    def scroll(
        self, name: str, request: models.ScrollRequest
    ) -> tuple[list[models.Record], int | str | None]:
        settings, limit = self.of(name), request.limit if request.limit is not None else 10
        if limit < 1:
            message = f"internal.limit: value {limit} invalid, must be 1 or larger"
            raise RefusedError(Kind.VALIDATION, message)
        strict = Strict(settings.strict)
        strict.check_limit(limit)
        strict.check_filter(request.filter, settings.indexes)
        order_by: Any = request.order_by
        if isinstance(order_by, str):
            order_by = models.OrderBy(key=order_by)
        if order_by is not None:
            self._check_order(name, order_by.key)
        self._pay_read(name, 1 + rules.count_conditions(request.filter))
        points, following = self.database.scroll(
            name,
            _joined(request.filter, must=self._on_shards(name, request.shard_key)),
            limit=limit,
            order_by=order_by,
            offset=None if request.offset is None else rules.point_id(request.offset),
            with_payload=True if request.with_payload is None else request.with_payload,
            with_vectors=request.with_vector or False,
        )
        return points, following  # type: ignore[return-value]

    def _check_order(self, name: str, key: str) -> None:
        ranges = ("integer", "float", "datetime")
        if rules.kind_of_index(self.of(name).indexes.get(key)) not in ranges:
            raise RefusedError(
                Kind.INPUT,
                f"No range index for `order_by` key: `{key}`. Please create one to use "
                "`order_by`. Check https://qdrant.tech/documentation/concepts/indexing/"
                "#payload-index to see which payload schemas support Range conditions",
            )

    def count(self, name: str, request: models.CountRequest) -> int:
        settings = self.of(name)
        Strict(settings.strict).check_filter(request.filter, settings.indexes)
        self._pay_read(name, 1 + rules.count_conditions(request.filter))
        shards = self._on_shards(name, request.shard_key)
        return self.database.count(name, _joined(request.filter, must=shards)).count

    def facet(self, name: str, request: models.FacetRequest) -> list[models.FacetValueHit]:
        settings = self.of(name)
        Strict(settings.strict).check_filter(request.filter, settings.indexes)
        if request.key not in settings.indexes:
            message = f"No facet index for `{request.key}`"
            raise RefusedError(Kind.INPUT, message)
        return self.database.facet(
            name, request.key, facet_filter=request.filter, limit=request.limit or 10
        ).hits

    def query(self, name: str, request: models.QueryRequest) -> list[models.ScoredPoint]:
        settings = self.of(name)
        rules.check_query({}, _limits_only(request))
        Strict(settings.strict).check_query(request, settings.indexes)
        rules.check_query(self._sizes(name), request)
        self._pay_read(name, _cost(request))
        return self._found(name, request, self._on_shards(name, request.shard_key))

    def query_batch(
        self, name: str, requests: Sequence[models.QueryRequest]
    ) -> list[list[models.ScoredPoint]]:
        Strict(self.of(name).strict).check_searches(len(requests))
        return [self.query(name, request) for request in requests]

    def _found(
        self, name: str, request: Any, must: Sequence[Any] = (), must_not: Sequence[Any] = ()
    ) -> list[models.ScoredPoint]:
        filter_ = _joined(request.filter, must=must, must_not=must_not)
        return self.database.query_points(
            name,
            _storable(request.query),
            using=request.using,
            prefetch=_inside(request.prefetch, filter_),
            query_filter=filter_,
            search_params=_kept_params(request.params),
            limit=request.limit if request.limit is not None else 10,
            offset=getattr(request, "offset", None),
            with_payload=request.with_payload or False,
            with_vectors=request.with_vector or False,
            score_threshold=request.score_threshold,
            lookup_from=request.lookup_from,
        ).points

    def query_groups(
        self, name: str, request: models.QueryGroupsRequest
    ) -> list[models.PointGroup]:
        """Search groups as the server does, with its mistakes.

        It asks five times at most for points of groups it does not have yet, and five times for
        more points of those it has, and takes scores of different rounds for comparable.
        """
        settings = self.of(name)
        rules.check_query({}, _limits_only(request))
        Strict(settings.strict).check_groups(request, settings.indexes)
        rules.check_query(self._sizes(name), request)
        shards = self._on_shards(name, request.shard_key)
        limit, size = request.limit or 10, request.group_size or 3
        key = request.group_by
        groups: dict[int | str, dict[int | str, models.ScoredPoint]] = {}

        def best() -> list[int | str]:
            scores = {
                group: max((point.score for point in points.values()), key=rising)
                for group, points in groups.items()
            }
            return sorted(scores, key=lambda group: rising(scores[group]), reverse=True)[:limit]

        def full() -> list[int | str]:
            return [group for group, points in groups.items() if len(points) >= size]

        def ask(must: Sequence[Any]) -> bool:
            """Add what one more search finds; return whether that goes on."""
            self._pay_read(name, _cost(request))
            ids: list[Any] = [point for points in groups.values() for point in points]
            seen = [models.HasIdCondition(has_id=ids)] if ids else []
            empty = models.IsEmptyCondition(is_empty=models.PayloadField(key=key))
            asked = request.model_copy(
                update={
                    "limit": limit * size,
                    "prefetch": _larger(request.prefetch, size),
                    "filter": _joined(request.filter, must=must, must_not=[*seen, empty]),
                    "with_payload": [key.removesuffix("[]")],
                    "with_vector": False,
                }
            )
            found = self._found(name, asked, shards)
            for point in found:
                for group in _group_keys(point, key):
                    groups.setdefault(group, {})[point.id] = point  # type: ignore[index]
            return bool(found) and len(set(best()) & set(full())) < limit

        rising = _rising(self.database.get_collection(name).config.params, request)
        for _ in range(_GROUP_ROUNDS):
            if not ask(_matches(key, full(), models.MatchExcept, "except")):
                break
        if len(set(best()) & set(full())) < limit:
            for _ in range(_GROUP_ROUNDS):
                unfilled = [group for group in best() if group not in full()]
                if not ask(_matches(key, unfilled, models.MatchAny, "any")):
                    break
        return [
            models.PointGroup(
                hits=self._complete(name, request, groups[group], size, rising), id=group
            )
            for group in best()
        ]

    def _complete(
        self,
        name: str,
        request: models.QueryGroupsRequest,
        points: Mapping[int | str, models.ScoredPoint],
        size: int,
        rising: Callable[[float], float],
    ) -> list[models.ScoredPoint]:
        """Return the best points of a group, with payload and vectors as they are asked for."""
        hits = sorted(points.values(), key=lambda point: rising(point.score), reverse=True)[:size]
        records = self.database.retrieve(
            name,
            [point.id for point in hits],
            with_payload=request.with_payload or False,
            with_vectors=request.with_vector or False,
        )
        by_id = {record.id: record for record in records}
        return [
            point.model_copy(
                update={"payload": by_id[point.id].payload, "vector": by_id[point.id].vector}
            )
            for point in hits
        ]


def _plain(params: Any) -> Any:
    return params.model_dump(mode="json", exclude_none=True) if params is not None else None


def _storable(vector: Any) -> Any:
    """Return vectors as a local database takes them: zeros for NaN, which it refuses."""
    if isinstance(vector, Mapping):
        return {name: _storable(inner) for name, inner in vector.items()}
    if isinstance(vector, models.NearestQuery):
        return vector.model_copy(update={"nearest": _storable(vector.nearest)})
    if isinstance(vector, list) and any(number != number for number in vector):
        return [0.0] * len(vector)
    return vector


def _keys(selector: Any) -> list[models.ShardKey]:
    """Return the keys that a selector names."""
    if isinstance(selector, models.ShardKeyWithFallback):
        return [selector.target, selector.fallback]
    return listed(selector)


def points_of(operation: Any) -> list[models.PointStruct]:
    """Return the points of an upsert, whichever way they are written."""
    if isinstance(operation, models.PointsList):
        return operation.points
    batch = operation.batch
    rows: Any = batch.vectors
    if isinstance(rows, Mapping):
        rows = [dict(zip(rows, row, strict=True)) for row in zip(*rows.values(), strict=True)] or [
            {} for _ in batch.ids
        ]
    payloads = batch.payloads or [None] * len(batch.ids)
    return [
        models.PointStruct.model_construct(id=point, vector=vector, payload=payload)
        for point, vector, payload in zip(batch.ids, rows, payloads, strict=True)
    ]


def selected(selector: Any) -> Any:
    """Return a filter or a list of ids."""
    if isinstance(selector, models.FilterSelector):
        return selector.filter
    if isinstance(selector, models.PointIdsList):
        return selector.points
    return selector.filter if selector.filter is not None else selector.points or []


def _indexed(kind: str, value: Any) -> bool:
    if kind == "integer":
        return isinstance(value, int) and not isinstance(value, bool)
    if kind == "float":
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind == "bool":
        return isinstance(value, bool)
    if kind == "geo":
        return isinstance(value, Mapping)
    return isinstance(value, str)


def _joined(
    filter_: models.Filter | None, must: Sequence[Any] = (), must_not: Sequence[Any] = ()
) -> models.Filter | None:
    """Return a filter with more conditions."""
    filter_ = _without_empty(filter_)
    if not must and not must_not:
        return filter_
    return models.Filter.model_construct(
        must=[*([filter_] if filter_ is not None else []), *must],
        must_not=list(must_not),
        should=None,
        min_should=None,
    )


def _without_empty(filter_: models.Filter | None) -> models.Filter | None:
    """Return a filter without empty lists, which qdrant-client 1.19 reads from gRPC.

    A server takes an empty `should` for none, a local database of that version for no match.
    """
    if filter_ is None:
        return None
    parts = {
        name: [
            _without_empty(part) if isinstance(part, models.Filter) else part
            for part in listed(getattr(filter_, name))
        ]
        or None
        for name in ("must", "should", "must_not")
    }
    return filter_.model_copy(update=parts)


def _inside(prefetch: Any, filter_: models.Filter | None) -> Any:
    """Return prefetches with the filter of the search above them."""
    return [
        inner.model_copy(
            update={
                "filter": (whole := _joined(inner.filter, must=[filter_] if filter_ else [])),
                "prefetch": _inside(inner.prefetch, whole),
            }
        )
        for inner in listed(prefetch)
    ] or None


def _larger(prefetch: Any, size: int) -> Any:
    """Return prefetches with limits large enough for groups of this size."""
    return [
        inner.model_copy(
            update={
                "limit": (inner.limit or 10) * size,
                "prefetch": _larger(inner.prefetch, size),
            }
        )
        for inner in listed(prefetch)
    ] or None


def _kept_params(params: models.SearchParams | None) -> models.SearchParams | None:
    """Return what a local database heeds of the parameters."""
    idf = getattr(params, "idf", None)
    return None if idf is None else models.SearchParams(idf=idf)


def _limits_only(request: Any) -> Any:
    """Return a request whose vectors are not looked at: limits are checked before all else."""
    return request.model_copy(
        update={
            "query": None,
            "prefetch": [_limits_only(inner) for inner in listed(request.prefetch)],
        }
    )


def _cost(request: Any) -> int:
    """Return the tokens that a search takes: one for each vector searched and each condition."""
    inner = listed(request.prefetch)
    own = 0 if inner and rules.searched_vector(request.query) is None else 1
    return own + rules.count_conditions(request.filter) + sum(_cost(part) for part in inner)


def _group_keys(point: models.ScoredPoint, key: str) -> list[int | str]:
    values = [
        value for found in value_by_key(point.payload or {}, key) or [] for value in listed(found)
    ]
    if any(isinstance(value, bool) or not isinstance(value, int | str) for value in values):
        return []
    return list(dict.fromkeys(values))


def _matches(key: str, groups: Sequence[int | str], match: Any, option: str) -> list[Any]:
    """Return a condition for each type of key, as `any` or `except`."""
    of_types = ([group for group in groups if isinstance(group, kind)] for kind in (str, int))
    return [
        models.FieldCondition(key=key, match=match(**{option: values}))
        for values in of_types
        if values
    ]


def _rising(params: models.CollectionParams, request: Any) -> Callable[[float], float]:
    """Return what makes of a score a number that is larger for the better."""
    vectors = params.vectors if isinstance(params.vectors, Mapping) else {"": params.vectors}
    config = vectors.get(request.using or "")
    distances = (models.Distance.EUCLID, models.Distance.MANHATTAN)
    if (
        config is not None
        and config.distance in distances
        and not isinstance(request.query, models.FusionQuery | models.RrfQuery)
    ):
        return lambda score: -score
    return lambda score: score
