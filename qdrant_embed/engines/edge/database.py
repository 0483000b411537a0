"""The embedded engine as a ``qdrant_client`` client sees it: every method of local mode, on shards.

What the engine lacks is composed here: collections with metadata and aliases, groups, recommending
by the average, points of other collections as examples, facets and orders of fields without an
index. Answers are repeatable: equal scores are ordered by id.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import logging
import os
import shutil
import threading
import time
import uuid
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby, islice, repeat
from typing import Any, TypeVar

import numpy as np
from pydantic import BaseModel
from pydantic_core import to_jsonable_python
from qdrant_client import models
from qdrant_client.client_base import QdrantBase
from qdrant_client.http import models as rest
from qdrant_client.local.local_collection import ignore_mentioned_ids_filter
from qdrant_client.local.order_by import to_order_value
from qdrant_client.local.payload_value_extractor import parse_uuid, value_by_key
from qdrant_client.local.qdrant_local import QdrantLocal

from qdrant_embed.engines.edge import conversion
from qdrant_embed.engines.edge.conversion import UNNAMED, edge
from qdrant_embed.engines.edge.folder import Collection, Folder
from qdrant_embed.engines.edge.shard import PART, PART_BYTES, Shard, parts
from qdrant_embed.engines.engine import in_thread
from qdrant_embed.engines.names import check_new_collection_name, check_vector_name
from qdrant_embed.engines.points import Points
from qdrant_embed.errors import ClientStateError, QdrantEmbedError
from qdrant_embed.forks import ForkLock, on_fork

logger = logging.getLogger(__name__)

T = TypeVar("T")

FLUSH_EVERY = 1.0  # seconds, while points are stored
# Numbers that a search compares one by one in about 5 ms (40,000 points of 384 numbers).
FLAT = 15_000_000
# The same in about 1 ms: what is at rest may well be asked next.
FLAT_AT_REST = 3_000_000

_IDLE = 5  # rounds without a change, after which the thread that flushes ends
_PAGE = 10_000  # points that are read at a time
_FACETS = ("keyword", "integer", "bool", "uuid")  # indices of fields whose values can be counted
_ORDERS = ("integer", "float", "datetime")  # and of those whose values can be compared
_COUNTED = (bool, int, str)  # values that can be counted
_MOST_MMR = 16_384
_DONE = models.UpdateResult(operation_id=0, status=models.UpdateStatus.COMPLETED)


class EdgeDatabase(QdrantBase):
    """An embedded database in a folder.

    Threads may share it. It belongs to the process that opened it.

    Args:
        path: the folder; it is created if it does not exist.
        optimize: whether indices are built in the background.

    Raises:
        FolderError: if the folder is open elsewhere, or cannot be read or written.
    """

    def __init__(self, path: str | os.PathLike[str], *, optimize: bool = True) -> None:
        super().__init__()
        self.location = os.fspath(path)
        self._optimizes = optimize
        self._folder = Folder(path)
        self._shards: dict[str, Shard] = {}
        self._lock = ForkLock()  # of collections, aliases, and the two above
        self._keeper: threading.Thread | None = None
        self._is_closed = False
        on_fork(self)

    @property
    def closed(self) -> bool:
        """Whether it is closed."""
        return self._is_closed

    @property
    def is_inherited(self) -> bool:
        """Whether it belongs to the process that forked this one."""
        return self._folder.is_inherited

    def __del__(self) -> None:
        if hasattr(self, "_keeper"):  # it was opened
            with contextlib.suppress(QdrantEmbedError):  # nobody would hear of it
                self.close()

    def after_fork(self) -> None:
        """Leave the engine alone in a child."""
        self._folder.after_fork()
        for shard in list(self._shards.values()):
            shard.after_fork()

    def close(self, **kwargs: Any) -> None:
        """Have the disk keep everything, and let other processes open the folder."""
        if self.is_inherited:
            return
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            try:
                with contextlib.ExitStack() as closing:
                    for shard in self._shards.values():
                        closing.callback(shard.close)
            finally:
                self._folder.release()

    # kept on disk

    def flush(self, collection_name: str) -> None:
        """Have the disk keep what a collection has, also if the machine fails."""
        self._shard(collection_name).flush()

    def optimize(self, collection_name: str, on_step: Any = lambda _: None) -> bool:
        """Build the index of a collection now; see `Shard.optimize`."""
        return self._shard(collection_name).optimize(on_step)

    def is_index_due(self, collection_name: str) -> bool:
        """Return whether a search is slow enough for an index to pay."""
        exists = self.collection_exists(collection_name)  # no document, no collection
        return exists and self._shard(collection_name).unindexed() >= FLAT

    def _note_change(self) -> None:
        if self._keeper is not None:
            return
        with self._lock:
            if self._keeper is None:
                self._keeper = threading.Thread(
                    target=_keep, args=(weakref.ref(self),), name="qdrant-embed-flush", daemon=True
                )
                self._keeper.start()

    def retire(self) -> bool:
        """Have the thread that flushes end, unless something has changed; return whether it may."""
        with self._lock:
            if any(shard.is_dirty for shard in self._shards.values()):
                return False
            self._keeper = None
            return True

    def keep(self) -> bool:
        """Flush what has changed, and begin indices that pay; return whether anything changed."""
        with self._lock:
            shards = list(self._shards.values())
        dirty = [shard for shard in shards if shard.is_dirty]
        for shard in shards:
            try:
                shard.flush()
                least = FLAT if shard in dirty else FLAT_AT_REST
                if self._optimizes and not shard.is_indexing and shard.unindexed() >= least:
                    shard.index_in_background()
            except (ClientStateError, ValueError):  # closed meanwhile, or deleted
                pass
            except QdrantEmbedError as error:
                logger.warning("collection %r: %s", shard.name, error)
        return bool(dirty)

    # collections

    def _check_open(self) -> None:
        if self._is_closed or self.is_inherited:
            raise self._folder.closed_error()

    def _named(self, collection_name: str) -> str:
        """Return the name of a collection, given that or an alias."""
        self._check_open()
        manifest = self._folder.manifest
        if collection_name in manifest.collections:
            return collection_name
        if collection_name in manifest.aliases:
            return manifest.aliases[collection_name]
        raise ValueError(f"Collection {collection_name} not found")

    def _shard(self, collection_name: str) -> Shard:
        shard = self._shards.get(collection_name)
        if shard is not None and not self._is_closed and not self.is_inherited:
            return shard
        self._check_open()
        with self._lock:
            name = self._named(collection_name)
            if name not in self._shards:
                self._shards[name] = Shard(self._folder, name)
                if self._optimizes:
                    self._note_change()  # another process may have left much to be indexed
            return self._shards[name]

    def get_collections(self, **kwargs: Any) -> models.CollectionsResponse:
        self._check_open()
        names = list(self._folder.manifest.collections)
        return models.CollectionsResponse(
            collections=[models.CollectionDescription(name=name) for name in names]
        )

    def collection_exists(self, collection_name: str, **kwargs: Any) -> bool:
        try:
            self._named(collection_name)
        except ValueError:
            return False
        return True

    def get_collection(self, collection_name: str, **kwargs: Any) -> models.CollectionInfo:
        shard = self._shard(collection_name)
        collection, found = shard.collection.model_copy(deep=True), shard.info()
        config = collection.config
        hnsw = config.hnsw_config or models.HnswConfigDiff()
        tuned = config.optimizers_config or models.OptimizersConfigDiff()
        return models.CollectionInfo(
            status=models.CollectionStatus.GREEN,
            optimizer_status=models.OptimizersStatusOneOf.OK,
            indexed_vectors_count=found.indexed_vectors_count,
            points_count=found.points_count,
            segments_count=found.segments_count,
            payload_schema={
                field: _index_info(schema, found.payload_schema.get(field))
                for field, schema in collection.indices.items()
            },
            config=models.CollectionConfig(
                params=models.CollectionParams(
                    vectors=config.vectors,
                    sparse_vectors=config.sparse_vectors,
                    on_disk_payload=config.on_disk_payload,
                ),
                hnsw_config=models.HnswConfig(
                    **{**conversion.HNSW, **conversion.given(hnsw)},
                ),
                optimizer_config=models.OptimizersConfig(
                    deleted_threshold=tuned.deleted_threshold or 0.2,
                    vacuum_min_vector_number=tuned.vacuum_min_vector_number or 1000,
                    default_segment_number=tuned.default_segment_number or 0,
                    indexing_threshold=conversion.LEAST_INDEXED
                    if tuned.indexing_threshold is None
                    else tuned.indexing_threshold,
                    flush_interval_sec=1,
                    max_optimization_threads=1,
                ),
                wal_config=None,
                quantization_config=config.quantization_config,
                metadata=config.metadata,
            ),
        )

    def create_collection(
        self,
        collection_name: str,
        vectors_config: models.VectorParams | Mapping[str, models.VectorParams] | None = None,
        sparse_vectors_config: Mapping[str, models.SparseVectorParams] | None = None,
        metadata: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> bool:
        self._check_open()
        check_new_collection_name(collection_name)
        options = ("hnsw_config", "quantization_config", "optimizers_config", "on_disk_payload")
        kept = {name: kwargs.get(name) for name in (*options, "payload", "id_tracker")}
        config = models.CreateCollection.model_validate(
            {
                "vectors": vectors_config or {},
                "sparse_vectors": sparse_vectors_config,
                "metadata": None if metadata is None else to_jsonable_python(metadata),
                **{name: value for name, value in kept.items() if value is not None},
            }
        )
        for name, params in conversion.dense_of(config).items():
            check_vector_name(name)
            _check_size(params.size)
        for name in config.sparse_vectors or {}:
            check_vector_name(name)
            if not name:
                raise ValueError("Sparse vector name cannot be empty")
        with self._lock:
            if collection_name in self._folder.manifest.collections:
                raise ValueError(f"Collection {collection_name} already exists")
            if collection_name in self._folder.manifest.aliases:
                raise ValueError(f"Alias {collection_name} already exists")
            self._shards[collection_name] = Shard.create(self._folder, collection_name, config)
        return True

    def delete_collection(self, collection_name: str, **kwargs: Any) -> bool:
        self._check_open()
        with self._lock:
            self._check_open()
            collection = self._folder.manifest.collections.get(collection_name)
            if collection is None:
                return False
            if (shard := self._shards.pop(collection_name, None)) is not None:
                shard.close(is_gone=True)
                collection = shard.collection  # its index may have been exchanged
            with self._folder.change() as manifest:
                del manifest.collections[collection_name]
                manifest.aliases = {
                    alias: name
                    for alias, name in manifest.aliases.items()
                    if name != collection_name
                }
            shutil.rmtree(self._folder.shard(collection), ignore_errors=True)
        return True

    def recreate_collection(
        self, collection_name: str, vectors_config: Any = None, **kwargs: Any
    ) -> bool:
        check_new_collection_name(collection_name)
        self.delete_collection(collection_name)
        return self.create_collection(collection_name, vectors_config, **kwargs)

    def update_collection(
        self,
        collection_name: str,
        sparse_vectors_config: Mapping[str, models.SparseVectorParams] | None = None,
        metadata: Mapping[str, Any] | None = None,
        vectors_config: Mapping[str, models.VectorParamsDiff] | None = None,
        **kwargs: Any,
    ) -> bool:
        shard = self._shard(collection_name)
        shape = _Shape.of(shard.collection)
        for name in vectors_config or {}:
            if name not in shape.sizes:
                raise ValueError(f"Wrong input: Not existing vector name error: {name}")
        for name in sparse_vectors_config or {}:
            if name not in shape.sparse:
                raise ValueError(f"Vector {name} does not exist in the collection")
        added = None if metadata is None else to_jsonable_python(metadata)
        options = ("hnsw_config", "quantization_config", "optimizers_config")
        changed = {name: kwargs[name] for name in options if kwargs.get(name) is not None}

        def record(collection: Collection) -> None:
            config = collection.config
            if added is not None:
                merged = {**(config.metadata or {}), **added}
                # a null removes its key, as on a server
                config.metadata = {key: one for key, one in merged.items() if one is not None}
            for name, params in (sparse_vectors_config or {}).items():
                assert config.sparse_vectors is not None  # noqa: S101 - it has this name
                config.sparse_vectors[name] = params
            for name, diff in (vectors_config or {}).items():
                params_of = conversion.dense_of(config)[name]
                for option, value in conversion.given(diff).items():
                    setattr(params_of, option, _merged(getattr(params_of, option), value))
            for option, value in changed.items():
                setattr(config, option, _merged(getattr(config, option), value))

        if sparse_vectors_config or vectors_config or changed:
            shard.configure(record)
        elif added is not None:
            shard.describe(record)
        return bool(added is not None or sparse_vectors_config or vectors_config or changed)

    def update_collection_aliases(
        self, change_aliases_operations: Sequence[models.AliasOperations], **kwargs: Any
    ) -> bool:
        self._check_open()
        with self._lock:
            self._check_open()
            with self._folder.change() as manifest:
                for operation in change_aliases_operations:
                    _change_aliases(manifest.aliases, operation, manifest.collections)
        return True

    def get_collection_aliases(
        self, collection_name: str, **kwargs: Any
    ) -> models.CollectionsAliasesResponse:
        found = self.get_aliases().aliases
        return models.CollectionsAliasesResponse(
            aliases=[alias for alias in found if alias.collection_name == collection_name]
        )

    def get_aliases(self, **kwargs: Any) -> models.CollectionsAliasesResponse:
        self._check_open()
        return models.CollectionsAliasesResponse(
            aliases=[
                models.AliasDescription(alias_name=alias, collection_name=name)
                for alias, name in list(self._folder.manifest.aliases.items())
            ]
        )

    def create_vector_name(
        self, collection_name: str, vector_name: str, vector_name_config: Any, **kwargs: Any
    ) -> models.UpdateResult:
        shard = self._shard(collection_name)
        is_dense = isinstance(vector_name_config, models.DenseVectorNameConfig)
        check_vector_name(vector_name)
        if is_dense:
            _check_size(vector_name_config.dense.size)
        operation = conversion.new_vector(vector_name, vector_name_config)
        shape = _Shape.of(shard.collection)
        if vector_name in shape.sizes or vector_name in shape.sparse:
            return _DONE

        def record(collection: Collection) -> None:
            config = collection.config
            if not is_dense:
                sparse = models.SparseVectorParams(modifier=vector_name_config.sparse.modifier)
                config.sparse_vectors = {**(config.sparse_vectors or {}), vector_name: sparse}
                return
            dense = vector_name_config.dense
            params = models.VectorParams(
                size=dense.size,
                distance=dense.distance,
                multivector_config=dense.multivector_config,
                datatype=dense.datatype and models.Datatype(dense.datatype.value),
            )
            config.vectors = {**conversion.dense_of(config), vector_name: params}

        shard.reshape(operation, first=True, record=record)
        return _DONE

    def delete_vector_name(
        self, collection_name: str, vector_name: str, **kwargs: Any
    ) -> models.UpdateResult:
        shard = self._shard(collection_name)
        shape = _Shape.of(shard.collection)
        if vector_name not in shape.sizes and vector_name not in shape.sparse:
            raise ValueError(f"Wrong input: Not existing vector name error: {vector_name}")

        def record(collection: Collection) -> None:
            config = collection.config
            dense, sparse = conversion.dense_of(config), {**(config.sparse_vectors or {})}
            if sparse.pop(vector_name, None) is None:
                del dense[vector_name]
                config.vectors = dense
            else:
                config.sparse_vectors = sparse

        operation = edge.UpdateOperation.delete_vector_name(vector_name)
        shard.reshape(operation, first=False, record=record)
        return _DONE

    def create_payload_index(
        self,
        collection_name: str,
        field_name: str,
        field_schema: Any = None,
        field_type: Any = None,
        **kwargs: Any,
    ) -> models.UpdateResult:
        shard = self._shard(collection_name)
        schema = field_type if field_schema is None else field_schema
        operation = conversion.made(
            edge.UpdateOperation.create_field_index, field_name, conversion.edge_index(schema)
        )

        def record(collection: Collection) -> None:
            kind: Any = schema
            if not isinstance(schema, BaseModel):
                kind = models.PayloadSchemaType(conversion.index_kind(schema))
            collection.indices = {**collection.indices, field_name: kind}

        shard.reshape(operation, first=True, record=record)
        return _DONE

    def delete_payload_index(
        self, collection_name: str, field_name: str, **kwargs: Any
    ) -> models.UpdateResult:
        shard = self._shard(collection_name)
        if field_name in shard.collection.indices:

            def record(collection: Collection) -> None:
                collection.indices = {
                    field: schema
                    for field, schema in collection.indices.items()
                    if field != field_name
                }

            operation = edge.UpdateOperation.delete_field_index(field_name)
            shard.reshape(operation, first=False, record=record)
        return _DONE

    # points in

    def upsert(
        self,
        collection_name: str,
        points: Any,
        update_filter: models.Filter | None = None,
        update_mode: models.UpdateMode | None = None,
        **kwargs: Any,
    ) -> models.UpdateResult:
        shard = self._shard(collection_name)
        if not len(points.ids if isinstance(points, models.Batch) else points):
            raise ValueError("Empty update request")
        shape = _Shape.of(shard.collection)
        made = _edge_points(points, shape)
        condition = conversion.edge_filter(update_filter)
        mode = update_mode and conversion.named(edge.UpdateMode, update_mode.value)
        with shard.change() as update:
            if (now := _Shape.of(shard.collection)) != shape:  # another thread has changed it
                made = _edge_points(points, now)
            for some, size in _short(made):
                part = [each.item for each in some]
                operation = edge.UpdateOperation.upsert_points(part, condition, mode)
                update([point.id for point in part], operation, size)
        self._note_change()
        return _DONE

    def upload_points(
        self,
        collection_name: str,
        points: Iterable[Any],
        batch_size: int = PART,
        update_filter: models.Filter | None = None,
        update_mode: models.UpdateMode | None = None,
        **kwargs: Any,
    ) -> None:
        for part in parts(points, batch_size):
            self.upsert(collection_name, part, update_filter, update_mode)

    def upload_collection(
        self,
        collection_name: str,
        vectors: Any,
        payload: Iterable[Mapping[str, Any]] | None = None,
        ids: Iterable[Any] | None = None,
        batch_size: int = PART,
        update_filter: models.Filter | None = None,
        update_mode: models.UpdateMode | None = None,
        **kwargs: Any,
    ) -> None:
        if isinstance(vectors, Mapping):
            if len({len(rows) for rows in vectors.values()}) > 1:
                raise ValueError("Each named vector should have the same number of vectors")
            columns = list(vectors.values())
            rows: Iterable[Any] = (
                dict(zip(vectors, row, strict=True)) for row in zip(*columns, strict=True)
            )
        else:
            rows = vectors
        points = (
            models.PointStruct.model_construct(id=point, vector=row, payload=dict(found or {}))
            for point, row, found in zip(  # the shortest ends it, as in local mode
                (str(uuid.uuid4()) for _ in repeat(None)) if ids is None else ids,
                rows,
                repeat({}) if payload is None else payload,
                strict=False,
            )
        )
        self.upload_points(collection_name, points, batch_size, update_filter, update_mode)

    def update_vectors(
        self,
        collection_name: str,
        points: Sequence[models.PointVectors],
        update_filter: models.Filter | None = None,
        **kwargs: Any,
    ) -> models.UpdateResult:
        shard = self._shard(collection_name)
        if not points:
            raise ValueError("must specify points to update")
        condition = conversion.edge_filter(update_filter)
        changed: dict[Any, dict[str, Any]] = {}
        with shard.change():  # nobody changes what points can have before this is done
            shape = _Shape.of(shard.collection)
            for point in points:
                vectors = shape.vectors(point.vector)
                changed.setdefault(conversion.edge_id(point.id), {}).update(vectors)
            made = {
                point: conversion.made(edge.PointVectors, point, vectors)
                for point, vectors in changed.items()
            }
            self._change(
                shard,
                list(made),
                lambda some: edge.UpdateOperation.update_vectors(
                    [made[point] for point in some], condition
                ),
                max(_bytes(vectors, None) for vectors in changed.values()),
            )
        return _DONE

    def delete_vectors(
        self, collection_name: str, vectors: Sequence[str], points: Any, **kwargs: Any
    ) -> models.UpdateResult:
        shard = self._shard(collection_name)
        if not vectors:
            raise ValueError("must specify vector names to delete")
        ids = self._selected(shard, points)
        names = list(vectors)
        with shard.change():
            _Shape.of(shard.collection).check_names(names)
            self._change(shard, ids, lambda some: edge.UpdateOperation.delete_vectors(some, names))
        return _DONE

    def delete(
        self, collection_name: str, points_selector: Any, **kwargs: Any
    ) -> models.UpdateResult:
        shard = self._shard(collection_name)
        ids = self._selected(shard, points_selector)
        with shard.change() as update:
            for part in parts(ids):
                update(part, edge.UpdateOperation.delete_points(part), grows=False)
        self._note_change()
        return _DONE

    def set_payload(
        self,
        collection_name: str,
        payload: Mapping[str, Any],
        points: Any,
        key: str | None = None,
        **kwargs: Any,
    ) -> models.UpdateResult:
        plain, operation = conversion.edge_payload(payload), edge.UpdateOperation.set_payload
        return self._change_payload(
            collection_name,
            points,
            lambda some: conversion.made(operation, some, plain, key),
            _bytes({}, plain),
        )

    def overwrite_payload(
        self, collection_name: str, payload: Mapping[str, Any], points: Any, **kwargs: Any
    ) -> models.UpdateResult:
        plain, operation = conversion.edge_payload(payload), edge.UpdateOperation.overwrite_payload
        return self._change_payload(
            collection_name,
            points,
            lambda some: conversion.made(operation, some, plain),
            _bytes({}, plain),
        )

    def delete_payload(
        self, collection_name: str, keys: Sequence[str], points: Any, **kwargs: Any
    ) -> models.UpdateResult:
        names, operation = list(keys), edge.UpdateOperation.delete_payload
        return self._change_payload(
            collection_name, points, lambda some: conversion.made(operation, some, names)
        )

    def clear_payload(
        self, collection_name: str, points_selector: Any, **kwargs: Any
    ) -> models.UpdateResult:
        operation = edge.UpdateOperation.clear_payload
        return self._change_payload(collection_name, points_selector, operation)

    def _change_payload(
        self, collection_name: str, selector: Any, operation: Any, size: int = 0
    ) -> models.UpdateResult:
        shard = self._shard(collection_name)
        self._change(shard, self._selected(shard, selector), operation, size)
        return _DONE

    def batch_update_points(
        self, collection_name: str, update_operations: Sequence[Any], **kwargs: Any
    ) -> list[models.UpdateResult]:
        shard = self._shard(collection_name)
        shape = _Shape.of(shard.collection)
        for operation in update_operations:
            _check_operation(operation, shape)
        return [self._run(collection_name, operation) for operation in update_operations]

    def _run(  # noqa: PLR0911 - one for each kind
        self, name: str, operation: Any
    ) -> models.UpdateResult:
        if isinstance(operation, models.UpsertOperation):
            points = operation.upsert
            given = points.batch if isinstance(points, models.PointsBatch) else points.points
            return self.upsert(name, given, points.update_filter, points.update_mode)
        if isinstance(operation, models.DeleteOperation):
            return self.delete(name, operation.delete)
        if isinstance(operation, models.SetPayloadOperation):
            change = operation.set_payload
            return self.set_payload(name, change.payload, _selector(change), change.key)
        if isinstance(operation, models.OverwritePayloadOperation):
            change = operation.overwrite_payload
            return self.overwrite_payload(name, change.payload, _selector(change))
        if isinstance(operation, models.DeletePayloadOperation):
            removed = operation.delete_payload
            return self.delete_payload(name, removed.keys, _selector(removed))
        if isinstance(operation, models.ClearPayloadOperation):
            return self.clear_payload(name, operation.clear_payload)
        if isinstance(operation, models.UpdateVectorsOperation):
            vectors = operation.update_vectors
            return self.update_vectors(name, vectors.points, vectors.update_filter)
        deleted = operation.delete_vectors
        return self.delete_vectors(name, deleted.vector, _selector(deleted))

    def _selected(self, shard: Shard, selector: Any) -> list[int | uuid.UUID]:
        """Return the ids that a selector of points means."""
        if isinstance(selector, models.PointIdsList):
            selector = selector.points
        if isinstance(selector, list | tuple):
            if not selector:
                raise ValueError("Empty update request")
            # seen in 0.9.0: where one in an index is named twice, others are left as they were
            return list(dict.fromkeys(conversion.ids_of(selector)))
        if isinstance(selector, models.FilterSelector):
            selector = selector.filter
        if isinstance(selector, models.Filter):
            return shard.all_ids(conversion.edge_filter(selector))
        raise ValueError(f"Unsupported selector type: {type(selector)}")

    def _change(self, shard: Shard, ids: Sequence[Any], operation: Any, size: int = 0) -> None:
        """Change points; one that does not exist is named once the others have changed.

        Args:
            shard: the shard that has them.
            ids: of the points.
            operation: called with some of the ids, returns an operation of the engine's.
            size: number of bytes that are stored of each point.
        """
        missing: list[Any] = []
        with shard.change() as update:
            for some, total in _short([_Sized(point, size) for point in ids]):
                part = [each.item for each in some]
                found = {point.id for point in shard.ask("retrieve", part, False, False)}
                missing += (point for point in part if point not in found)
                there = [point for point in part if point in found]
                if there:
                    update(there, operation(there), total)
        self._note_change()
        if missing:
            raise ValueError(f"No point with id {missing[0]} in collection {shard.name!r}")

    # points out

    def retrieve(
        self,
        collection_name: str,
        ids: Sequence[Any],
        with_payload: Any = True,
        with_vectors: Any = False,
        **kwargs: Any,
    ) -> list[models.Record]:
        shard = self._shard(collection_name)
        wanted = conversion.ids_of(ids)
        selected = conversion.with_payload(with_payload), conversion.with_vectors(with_vectors)
        found = {
            point.id: point
            for part in parts(wanted, _PAGE)
            for point in shard.ask("retrieve", part, *selected)
        }
        # each as often as it was asked for, as local mode does
        return [conversion.record(found[point]) for point in wanted if point in found]

    def scroll(
        self,
        collection_name: str,
        scroll_filter: Any = None,
        limit: int = 10,
        order_by: Any = None,
        offset: Any = None,
        with_payload: Any = True,
        with_vectors: Any = False,
        **kwargs: Any,
    ) -> tuple[list[models.Record], Any]:
        shard = self._shard(collection_name)
        _check_least("limit", limit, 1)
        if order_by is not None:
            if offset is not None:
                raise ValueError(
                    "Offset is not supported in conjunction with `order_by` scroll parameter"
                )
            found = self._by_value(shard, order_by, scroll_filter, limit)
            return self._completed(shard, found, with_payload, with_vectors), None
        found, following = shard.ask(
            "scroll",
            edge.ScrollRequest(
                offset=None if offset is None else conversion.edge_id(offset),
                limit=limit,
                filter=conversion.edge_filter(scroll_filter),
                with_payload=conversion.with_payload(with_payload),
                with_vector=conversion.with_vectors(with_vectors),
            ),
        )
        following = None if following is None else conversion.client_id(following)
        return [conversion.record(point) for point in found], following

    def _by_value(
        self, shard: Shard, order_by: Any, condition: Any, limit: int
    ) -> list[models.Record]:
        """Return points without their payload, ordered by the value of a field."""
        order = conversion.client_order(order_by)
        made = conversion.edge_filter(condition)
        if _kind(shard, order.key) in _ORDERS:
            request = edge.ScrollRequest(
                limit=limit,
                filter=made,
                with_payload=False,
                with_vector=False,
                order_by=conversion.edge_order(order),
            )
            found, _ = shard.ask("scroll", request)
            return [conversion.record(point) for point in found]
        start = to_order_value(order.start_from)
        is_down = order.direction == models.Direction.DESC
        values: dict[tuple[Any, int | str], None] = {}
        for point in self._every(shard, made, order.key):
            for value in value_by_key(point.payload or {}, order.key) or ():
                number = to_order_value(value)
                if number is None:
                    continue
                if start is None or (number <= start if is_down else number >= start):
                    values[number, conversion.client_id(point.id)] = None
        ordered = sorted(values, key=lambda found: conversion.in_order(found[1]))
        ordered.sort(key=lambda found: found[0], reverse=is_down)
        return [
            models.Record.model_construct(
                id=point, payload=None, vector=None, shard_key=None, order_value=value
            )
            for value, point in ordered[:limit]
        ]

    def _completed(
        self, shard: Shard, found: list[Any], with_payload: Any, with_vectors: Any
    ) -> list[Any]:
        """Return points with their payloads and vectors, as they are wanted."""
        if found and (with_payload or with_vectors):
            whole = {
                point.id: point
                for point in self.retrieve(
                    shard.name, [each.id for each in found], with_payload, with_vectors
                )
            }
            found = [each for each in found if each.id in whole]
            for point in found:
                point.payload, point.vector = whole[point.id].payload, whole[point.id].vector
        return found

    def _every(self, shard: Shard, condition: Any, key: str) -> Iterator[Any]:
        """Yield all points that match a filter of the engine's, with one key of their payloads."""
        offset, selected = None, [key]
        while True:
            request = edge.ScrollRequest(
                offset=offset,
                limit=_PAGE,
                filter=condition,
                with_payload=selected,
                with_vector=False,
            )
            found, offset = shard.ask("scroll", request)
            yield from found
            if offset is None:
                return

    def count(
        self,
        collection_name: str,
        count_filter: Any = None,
        exact: bool = True,
        **kwargs: Any,
    ) -> models.CountResult:
        request = edge.CountRequest(exact=True, filter=conversion.edge_filter(count_filter))
        return models.CountResult(count=self._shard(collection_name).ask("count", request))

    def facet(
        self,
        collection_name: str,
        key: str,
        facet_filter: Any = None,
        limit: int = 10,
        exact: bool = False,
        **kwargs: Any,
    ) -> models.FacetResponse:
        _check_least("limit", limit, 1)
        shard, condition = self._shard(collection_name), conversion.edge_filter(facet_filter)
        counts: dict[tuple[str, Any], int] = {}
        if _kind(shard, key) in _FACETS:
            request = conversion.made(edge.FacetRequest, key, limit, True, condition)
            for hit in shard.ask("facet", request):
                value = str(hit.value) if isinstance(hit.value, uuid.UUID) else hit.value
                if hit.count:  # none, for a value that no point has any more
                    counts[type(value).__name__, value] = hit.count
        else:
            for point in self._every(shard, condition, key):
                values = value_by_key(point.payload or {}, key) or ()
                for found in {_facet_value(value) for value in values if type(value) in _COUNTED}:
                    counts[found] = counts.get(found, 0) + 1
        ordered = sorted(counts.items(), key=lambda found: (-found[1], found[0]))
        return models.FacetResponse(
            hits=[
                models.FacetValueHit(value=value, count=count)
                for (_, value), count in ordered[:limit]
            ]
        )

    # queries

    def query_points(
        self,
        collection_name: str,
        query: Any = None,
        using: str | None = None,
        prefetch: Any = None,
        query_filter: Any = None,
        search_params: Any = None,
        limit: int = 10,
        offset: int | None = None,
        with_payload: Any = True,
        with_vectors: Any = False,
        score_threshold: float | None = None,
        lookup_from: models.LookupLocation | None = None,
        **kwargs: Any,
    ) -> rest.QueryResponse:
        shard = self._shard(collection_name)
        asked = models.QueryRequest.model_construct(
            query=query,
            using=using,
            prefetch=prefetch,
            filter=query_filter,
            params=search_params,
            limit=limit,
            offset=offset,
            with_payload=with_payload,
            with_vector=with_vectors,
            score_threshold=score_threshold,
            lookup_from=lookup_from,
        )
        return self._answer(shard, asked)

    def query_batch_points(
        self, collection_name: str, requests: Sequence[models.QueryRequest], **kwargs: Any
    ) -> list[rest.QueryResponse]:
        shard = self._shard(collection_name)
        return [self._answer(shard, request) for request in requests]

    def _answer(self, shard: Shard, asked: models.QueryRequest) -> rest.QueryResponse:
        points = self._ranked(shard, asked)
        return rest.QueryResponse.model_construct(points=points)

    def _ranked(self, shard: Shard, asked: models.QueryRequest) -> list[models.ScoredPoint]:
        limit = 10 if asked.limit is None else asked.limit
        offset = asked.offset or 0
        _check_least("limit", limit, 1)
        _check_least("offset", offset, 0)
        _check_query(asked.query, asked.using, asked.prefetch, asked.score_threshold)
        query, mentioned = self._resolved(shard, asked.query, asked.using, asked.lookup_from)
        condition = asked.filter
        if mentioned:
            condition = ignore_mentioned_ids_filter(condition, mentioned)
        prefetches = self._prefetches(shard, asked.prefetch) if asked.prefetch else []
        kind = type(query).__name__
        if kind == "OrderByQuery" and not prefetches:
            key = conversion.client_order(query.order_by).key
            if _kind(shard, key) not in _ORDERS:
                found = self._by_value(shard, query.order_by, condition, limit + offset)
                found = self._completed(
                    shard, found[offset:], asked.with_payload, asked.with_vector
                )
                return [_as_scored(point) for point in found]
        # Points with equal ranks have equal scores when rankings are fused, and come in another
        # order each time: those at the end are cut off once they are in order.
        more = len(prefetches) if kind in ("FusionQuery", "RrfQuery") else 0
        found = shard.ask(
            "query",
            conversion.made(
                edge.QueryRequest,
                limit + (offset + more if more else 0),
                offset=0 if more else offset,
                query=conversion.edge_query(query, asked.using, limit + offset),
                prefetches=prefetches,
                with_vector=conversion.with_vectors(asked.with_vector),
                with_payload=conversion.with_payload(asked.with_payload),
                filter=conversion.edge_filter(condition),
                score_threshold=asked.score_threshold,
                params=conversion.search_params(asked.params),
            ),
        )
        points = conversion.scored_points(found, have_vectors=bool(asked.with_vector))
        if kind != "SampleQuery":
            points = _with_ties_in_order(points)
        return points[offset : offset + limit] if more else points

    def _prefetches(self, shard: Shard, prefetch: Any) -> list[Any]:
        made = []
        for asked in _listed(prefetch):
            limit = 10 if asked.limit is None else asked.limit
            _check_least("prefetch limit", limit, 1)
            _check_query(asked.query, asked.using, asked.prefetch, asked.score_threshold)
            query, mentioned = self._resolved(shard, asked.query, asked.using, asked.lookup_from)
            made.append(
                conversion.made(
                    edge.Prefetch,
                    limit,
                    query=conversion.edge_query(query, asked.using, limit),
                    prefetches=self._prefetches(shard, asked.prefetch),
                    params=conversion.search_params(asked.params),
                    filter=conversion.edge_filter(
                        ignore_mentioned_ids_filter(asked.filter, mentioned)
                    ),
                    score_threshold=asked.score_threshold,
                )
            )
        return made

    def _resolved(
        self, shard: Shard, query: Any, using: str | None, lookup: models.LookupLocation | None
    ) -> tuple[Any, list[Any]]:
        """Return a query with vectors in place of ids, and the ids that it must not find."""
        mentioned: list[Any] = []
        if type(query) is list:
            return query, mentioned
        source = shard if lookup is None else self._shard(lookup.collection)
        name = using or UNNAMED
        if lookup is not None and lookup.vector is not None:
            name = lookup.vector

        def vector(given: Any) -> Any:
            if isinstance(given, np.integer):
                given = int(given)
            if not isinstance(given, int | str | uuid.UUID):
                return given
            if source is shard:
                mentioned.append(str(given) if isinstance(given, uuid.UUID) else given)
            return self._vector_of(source, given, name)

        return _with_vectors(query, vector), mentioned

    def _vector_of(self, shard: Shard, point: Any, name: str) -> Any:
        found = shard.ask("retrieve", [conversion.edge_id(point)], False, True)
        if not found:
            raise ValueError(f"Point {point} is not found in the collection")
        _Shape.of(shard.collection).check_names([name])
        vectors = found[0].vector
        vectors = vectors if isinstance(vectors, Mapping) else {UNNAMED: vectors}
        if vectors.get(name) is None:
            raise ValueError(f"Vector with name {name} for point {point} not found")
        return conversion.client_vector(vectors[name])

    def query_points_groups(
        self,
        collection_name: str,
        group_by: str,
        query: Any = None,
        using: str | None = None,
        prefetch: Any = None,
        query_filter: Any = None,
        search_params: Any = None,
        limit: int = 10,
        group_size: int = 3,
        with_payload: Any = True,
        with_vectors: Any = False,
        score_threshold: float | None = None,
        with_lookup: Any = None,
        lookup_from: models.LookupLocation | None = None,
        **kwargs: Any,
    ) -> models.GroupsResult:
        shard = self._shard(collection_name)
        _check_least("limit", limit, 1)
        _check_least("group_size", group_size, 1)
        if isinstance(with_lookup, str):
            with_lookup = models.WithLookup(collection=with_lookup)
        if with_lookup is not None:
            self._named(with_lookup.collection)
        total = max(1, shard.info().points_count)
        asked = models.QueryRequest.model_construct(
            query=query,
            using=using,
            # as many candidates as there are, as in local mode
            prefetch=[_unlimited(each, total) for each in _listed(prefetch)] or None,
            filter=query_filter,
            params=search_params,
            limit=min(total, 8 * limit * group_size),
            with_payload=[group_by],
            score_threshold=score_threshold,
            lookup_from=lookup_from,
        )
        while True:
            found = self._ranked(shard, asked)
            groups = _grouped(found, group_by, group_size)
            full = sum(len(hits) == group_size for hits in list(groups.values())[:limit])
            if full == limit or len(found) < (asked.limit or 0) or asked.limit == total:
                break
            asked.limit = min(total, 4 * (asked.limit or 1))
        chosen = dict(islice(groups.items(), limit))
        hits = {hit.id: hit for hits in chosen.values() for hit in hits}
        self._completed(shard, list(hits.values()), with_payload, with_vectors)
        if not with_payload:
            for hit in hits.values():
                hit.payload = None
        return models.GroupsResult(
            groups=[
                models.PointGroup.model_construct(
                    id=value, hits=found, lookup=self._lookup(with_lookup, value)
                )
                for value, found in chosen.items()
            ]
        )

    def _lookup(self, wanted: models.WithLookup | None, value: Any) -> models.Record | None:
        if wanted is None:
            return None
        try:
            conversion.edge_id(value)
        except ValueError:
            return None
        with_payload = True if wanted.with_payload is None else wanted.with_payload
        found = self.retrieve(
            wanted.collection, [value], with_payload, wanted.with_vectors or False
        )
        return found[0] if found else None

    def search_matrix_pairs(
        self,
        collection_name: str,
        query_filter: Any = None,
        limit: int = 3,
        sample: int = 10,
        using: str | None = None,
        **kwargs: Any,
    ) -> models.SearchMatrixPairsResponse:
        ids, scores = self._matrix(collection_name, query_filter, limit, sample, using)
        pairs = [
            models.SearchMatrixPair(a=point, b=hit.id, score=hit.score)
            for point, hits in zip(ids, scores, strict=True)
            for hit in hits
        ]
        return models.SearchMatrixPairsResponse(pairs=pairs)

    def search_matrix_offsets(
        self,
        collection_name: str,
        query_filter: Any = None,
        limit: int = 3,
        sample: int = 10,
        using: str | None = None,
        **kwargs: Any,
    ) -> models.SearchMatrixOffsetsResponse:
        ids, scores = self._matrix(collection_name, query_filter, limit, sample, using)
        place = {point: index for index, point in enumerate(ids)}
        found = [(row, hit) for row, hits in enumerate(scores) for hit in hits]
        return models.SearchMatrixOffsetsResponse(
            offsets_row=[row for row, _ in found],
            offsets_col=[place[hit.id] for _, hit in found],
            scores=[hit.score for _, hit in found],
            ids=ids,
        )

    def _matrix(
        self, collection_name: str, query_filter: Any, limit: int, sample: int, using: str | None
    ) -> tuple[list[Any], list[list[models.ScoredPoint]]]:
        _check_least("limit", limit, 1)
        _check_least("sample", sample, 2)
        shard, name = self._shard(collection_name), using or UNNAMED
        _Shape.of(shard.collection).check_names([name])
        has_vector = models.Filter(must=[models.HasVectorCondition(has_vector=name)])
        sampled = self._ranked(
            shard,
            models.QueryRequest.model_construct(
                query=models.SampleQuery(sample=models.Sample.RANDOM),
                filter=has_vector
                if query_filter is None
                else models.Filter(must=[query_filter, has_vector]),
                limit=sample,
                with_payload=False,
                with_vector=[name],
            ),
        )
        if len(sampled) < 2:
            return [], []
        sampled.sort(key=lambda point: conversion.in_order(point.id))
        ids = [point.id for point in sampled]
        scores = []
        for point in sampled:
            vectors: Any = point.vector
            others = models.HasIdCondition(has_id=[each for each in ids if each != point.id])
            asked = models.QueryRequest.model_construct(
                query=vectors[name] if isinstance(vectors, Mapping) else vectors,
                using=using,
                filter=models.Filter(must=[others]),
                limit=limit,
                with_payload=False,
            )
            scores.append(self._ranked(shard, asked))
        return ids, scores

    # what an embedded database has not, and says as local mode does

    def info(self) -> models.VersionInfo:
        version = importlib.metadata.version("qdrant-edge-py")
        return models.VersionInfo(title="qdrant-edge", version=version, commit=None)

    list_snapshots = QdrantLocal.list_snapshots
    create_snapshot = QdrantLocal.create_snapshot
    delete_snapshot = QdrantLocal.delete_snapshot
    list_full_snapshots = QdrantLocal.list_full_snapshots
    create_full_snapshot = QdrantLocal.create_full_snapshot
    delete_full_snapshot = QdrantLocal.delete_full_snapshot
    recover_snapshot = QdrantLocal.recover_snapshot
    list_shard_snapshots = QdrantLocal.list_shard_snapshots
    create_shard_snapshot = QdrantLocal.create_shard_snapshot
    delete_shard_snapshot = QdrantLocal.delete_shard_snapshot
    recover_shard_snapshot = QdrantLocal.recover_shard_snapshot
    create_shard_key = QdrantLocal.create_shard_key
    delete_shard_key = QdrantLocal.delete_shard_key
    list_shard_keys = QdrantLocal.list_shard_keys
    cluster_collection_update = QdrantLocal.cluster_collection_update
    collection_cluster_info = QdrantLocal.collection_cluster_info
    cluster_status = QdrantLocal.cluster_status
    recover_current_peer = QdrantLocal.recover_current_peer
    remove_peer = QdrantLocal.remove_peer
    get_optimizations = QdrantLocal.get_optimizations
    cluster_telemetry = QdrantLocal.cluster_telemetry


class AsyncEdgeDatabase:
    """An `EdgeDatabase` whose methods are awaited, each in a thread.

    Args:
        database: the database.
    """

    def __init__(self, database: EdgeDatabase) -> None:
        self.database = database

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.database, name)
        if name.startswith("_") or not callable(method):
            return method

        async def call(*args: Any, **kwargs: Any) -> Any:
            return await in_thread(partial(method, *args, **kwargs))

        return call


def _keep(reference: weakref.ref[EdgeDatabase]) -> None:
    """Flush a database about once a second while it changes, and for as long as it lives."""
    idle = 0
    while True:
        time.sleep(FLUSH_EVERY)
        database = reference()
        if database is None or database.closed or database.is_inherited:
            return
        idle = 0 if database.keep() else idle + 1
        if idle >= _IDLE and database.retire():
            return
        del database


@dataclass(frozen=True)
class _Shape:
    """The vectors that points of a collection can have.

    Attributes:
        sizes: number of dimensions of each dense vector, by name.
        multi: names of those that are lists of vectors.
        sparse: names of the sparse ones.
    """

    sizes: Mapping[str, int]
    multi: frozenset[str]
    sparse: frozenset[str]

    @classmethod
    def of(cls, collection: Collection) -> _Shape:
        dense = conversion.dense_of(collection.config)
        return cls(
            {name: params.size for name, params in dense.items()},
            frozenset(name for name, params in dense.items() if params.multivector_config),
            frozenset(collection.config.sparse_vectors or {}),
        )

    def check_names(self, names: Iterable[str]) -> None:
        """Raise ``ValueError`` if points can have no vector of one of these names."""
        for name in names:
            if name not in self.sizes and name not in self.sparse:
                raise ValueError(f"Wrong input: Not existing vector name error: {name}")

    def vectors(self, vectors: Any) -> dict[str, Any]:
        """Return the vectors of a point as the engine has them.

        Raises:
            ValueError: if a point of this collection cannot have them.
        """
        named = vectors if isinstance(vectors, Mapping) else {UNNAMED: vectors}
        self.check_names(named)
        made: dict[str, Any] = conversion.edge_vectors(named)
        for name, vector in made.items():
            if isinstance(vector, edge.SparseVector) != (name in self.sparse):
                kind = "sparse" if name in self.sparse else "dense"
                raise ValueError(f"Wrong input: vector '{name}' of this collection is {kind}")
            if name in self.sparse:
                continue
            is_multi = isinstance(vector[0], list)
            if is_multi and name not in self.multi:
                raise ValueError(
                    f"Wrong input: Dense vector must be one-dimensional for vector '{name}'"
                )
            if not is_multi and name in self.multi:
                made[name] = [vector]
            size = len(vector[0] if is_multi else vector)
            if size != self.sizes[name]:
                raise ValueError(
                    "Wrong input: Vector dimension error: expected dim: "
                    f"{self.sizes[name]}, got {size} for vector '{name}'"
                )
        return made


@dataclass(frozen=True)
class _Sized:
    """A point, or an id, of which about so much is stored.

    Attributes:
        item: what it is.
        size: number of bytes.
    """

    item: Any
    size: int


def _bytes(vectors: Mapping[str, Any], payload: Any) -> int:
    """Return about how many bytes the vectors and the payload of a point have."""
    numbers = 0
    for vector in vectors.values():
        if isinstance(vector, edge.SparseVector):
            numbers += 2 * len(vector.indices)
        elif isinstance(vector[0], float):
            numbers += len(vector)
        else:
            numbers += len(vector) * len(vector[0])
    return 4 * numbers + len(repr(payload))


def _edge_points(points: Any, shape: _Shape) -> list[_Sized]:
    """Return points as the engine has them.

    Raises:
        ValueError: if one of them cannot be stored in a collection of this shape.
    """
    if isinstance(points, Points):
        return _columns(points, shape)
    if isinstance(points, models.Batch):
        points = _rows(points)
    return [
        _sized(
            conversion.edge_id(point.id),
            shape.vectors(point.vector),
            conversion.edge_payload(point.payload),
        )
        for point in points
    ]


def _sized(point_id: Any, vectors: dict[str, Any], payload: dict[str, Any]) -> _Sized:
    return _Sized(
        conversion.made_point(point_id, vectors, payload),
        _bytes(vectors, payload),
    )


def _columns(points: Points, shape: _Shape) -> list[_Sized]:
    """Return points of `add`, whose ids and payloads it has checked."""
    names = {points.dense_name} | ({points.sparse_name} if points.sparse is not None else set())
    shape.check_names(names | ({points.late_name} if points.late is not None else set()))
    for tokens in points.late or ():
        conversion.check_finite(tokens, points.late_name)
        if tokens.shape[1] != shape.sizes.get(points.late_name):
            raise ValueError(
                "Wrong input: Vector dimension error: expected dim: "
                f"{shape.sizes.get(points.late_name)}, got {tokens.shape[1]} for vector "
                f"'{points.late_name}'"
            )
    if points.dense.shape[1] != shape.sizes.get(points.dense_name):
        raise ValueError(
            "Wrong input: Vector dimension error: expected dim: "
            f"{shape.sizes.get(points.dense_name)}, got {points.dense.shape[1]} for vector "
            f"'{points.dense_name}'"
        )
    conversion.check_finite(points.dense, points.dense_name)
    made = []
    columns = zip(points.ids, points.payloads, _views(points.dense), strict=True)
    for index, (point, payload, row) in enumerate(columns):
        vectors: dict[str, Any] = {points.dense_name: row}
        if (sparse := points.sparse_of(index)) is not None:
            vectors[points.sparse_name] = conversion.edge_vector(sparse, points.sparse_name)
        if points.late is not None:
            vectors[points.late_name] = [*_views(points.late[index])]
        made.append(_sized(conversion.edge_id(point), vectors, conversion.edge_payload(payload)))
    return made


def _views(rows: Any) -> Iterator[memoryview]:
    """Yield rows of numbers in a form that the engine reads without a list of all of them.

    Such a list would be made only to be freed. A view of numbers that are not aligned in memory,
    as in a packed record, cannot be read: these are copied first.
    """
    return map(memoryview, np.require(rows, np.float32, ["ALIGNED"]))


def _rows(batch: models.Batch) -> list[models.PointStruct]:
    vectors: Any = batch.vectors
    named = vectors if isinstance(vectors, Mapping) else {UNNAMED: vectors}
    columns = [*named.values(), *([] if batch.payloads is None else [batch.payloads])]
    if any(len(column) != len(batch.ids) for column in columns):
        raise ValueError("a batch must have as many vectors and payloads as ids")
    return [
        models.PointStruct.model_construct(
            id=point,
            vector={name: column[index] for name, column in named.items()},
            payload=None if batch.payloads is None else batch.payloads[index],
        )
        for index, point in enumerate(batch.ids)
    ]


def _check_operation(operation: Any, shape: _Shape) -> None:
    """Raise ``ValueError`` for an operation that a server refuses before it begins with any."""
    if isinstance(operation, models.UpsertOperation):
        points = operation.upsert
        _edge_points(
            points.batch if isinstance(points, models.PointsBatch) else points.points, shape
        )
    elif isinstance(operation, models.UpdateVectorsOperation):
        if not operation.update_vectors.points:
            raise ValueError("must specify points to update")
        for point in operation.update_vectors.points:
            shape.vectors(point.vector)
    elif isinstance(operation, models.SetPayloadOperation):
        _selector(operation.set_payload)
    elif isinstance(operation, models.OverwritePayloadOperation):
        _selector(operation.overwrite_payload)
    elif isinstance(operation, models.DeletePayloadOperation):
        _selector(operation.delete_payload)
    elif isinstance(operation, models.DeleteVectorsOperation):
        if not operation.delete_vectors.vector:
            raise ValueError("must specify vector names to delete")
    elif not isinstance(operation, models.DeleteOperation | models.ClearPayloadOperation):
        raise ValueError(  # noqa: TRY004 - as local mode raises
            f"Unsupported update operation: {type(operation)}"
        )


def _selector(change: Any) -> Any:
    """Return the points that a change of several means: by ids, even if there are none, or all."""
    if change.points is not None:
        return change.points
    if change.filter is None:
        raise ValueError("No filter or points provided")
    return change.filter


def _with_vectors(query: Any, vector: Any) -> Any:  # noqa: PLR0911 - one for each kind
    """Return a query in which `vector` was called on every example, and leave the given one."""
    if isinstance(query, list | np.ndarray | models.SparseVector) or query is None:
        return query
    if isinstance(query, models.NearestQuery):
        if isinstance(query.nearest, list):
            return query
        return query.model_copy(update={"nearest": vector(query.nearest)})
    if isinstance(query, models.RecommendQuery):
        examples = query.recommend
        changed = {
            "positive": [vector(each) for each in examples.positive or []],
            "negative": [vector(each) for each in examples.negative or []],
        }
        return query.model_copy(update={"recommend": examples.model_copy(update=changed)})
    if isinstance(query, models.DiscoverQuery):
        changed = {
            "target": None if query.discover.target is None else vector(query.discover.target),
            "context": [_pair(pair, vector) for pair in _listed(query.discover.context)],
        }
        return query.model_copy(update={"discover": query.discover.model_copy(update=changed)})
    if isinstance(query, models.ContextQuery):
        pairs = [_pair(pair, vector) for pair in _listed(query.context)]
        return query.model_copy(update={"context": pairs})
    if type(query).__name__ == "RelevanceFeedbackQuery":
        feedback = query.relevance_feedback
        changed = {
            "target": vector(feedback.target),
            "feedback": [
                item.model_copy(update={"example": vector(item.example)})
                for item in feedback.feedback
            ],
        }
        return query.model_copy(update={"relevance_feedback": feedback.model_copy(update=changed)})
    return vector(query)  # an id alone, or another kind of query


def _pair(pair: models.ContextPair, vector: Any) -> models.ContextPair:
    changed = {"positive": vector(pair.positive), "negative": vector(pair.negative)}
    return pair.model_copy(update=changed)


def _check_query(  # noqa: PLR0912 - one for each thing that is refused
    query: Any, using: str | None, prefetch: Any, threshold: float | None
) -> None:
    """Raise ``ValueError`` for what a server refuses before it searches, as local mode does."""
    if prefetch and query is None:
        raise ValueError("A query is needed to merge the prefetches.")
    if threshold is not None:
        if query is None:
            raise ValueError("A query is needed to use the score_threshold.")
        if isinstance(query, models.OrderByQuery):
            raise ValueError("Can't use score_threshold with an order_by query.")
    if isinstance(query, models.FusionQuery | models.RrfQuery):
        if using:
            raise ValueError("Fusion queries cannot be combined with the 'using' field.")
        if not prefetch:
            raise ValueError("Cannot perform fusion without prefetches")
        if isinstance(query, models.RrfQuery) and query.rrf.k is not None:
            _check_least("rrf k", query.rrf.k, 1)
    elif isinstance(query, models.FormulaQuery):
        if not prefetch:
            raise ValueError("Cannot perform formula without prefetches")
    elif isinstance(query, models.NearestQuery):
        most = None if query.mmr is None else query.mmr.candidates_limit
        if most is not None:
            _check_least("mmr candidates_limit", most, 0)
            if most > _MOST_MMR:
                raise ValueError(
                    f"mmr candidates_limit value {most} is invalid. Must be {_MOST_MMR} or smaller."
                )
    elif type(query).__name__ == "RelevanceFeedbackQuery":
        _check_least("naive feedback b", query.relevance_feedback.strategy.naive.b, 0)


def _check_least(name: str, value: float, least: int) -> None:
    if value < least:
        raise ValueError(f"{name} value {value} is invalid. Must be {least} or larger.")


def _check_size(size: int) -> None:
    if not 1 <= size <= 65536:
        raise ValueError(f"Vector size {size} is invalid. Must be from 1 to 65536.")


def _change_aliases(aliases: dict[str, str], operation: Any, collections: Any) -> None:
    if isinstance(operation, models.CreateAliasOperation):
        created = operation.create_alias
        if created.collection_name not in collections:
            raise ValueError(f"Collection {created.collection_name} not found")
        if created.alias_name in collections:
            raise ValueError(f"Collection {created.alias_name} already exists")
        aliases[created.alias_name] = created.collection_name
    elif isinstance(operation, models.DeleteAliasOperation):
        aliases.pop(operation.delete_alias.alias_name, None)
    elif isinstance(operation, models.RenameAliasOperation):
        old, new = operation.rename_alias.old_alias_name, operation.rename_alias.new_alias_name
        if new in collections:
            raise ValueError(f"Collection {new} already exists")
        if old not in aliases:
            raise ValueError(f"Alias {old} does not exist")
        aliases[new] = aliases.pop(old)
    else:
        raise ValueError(f"Unknown operation: {operation}")  # noqa: TRY004 - as local mode raises


def _kind(shard: Shard, field: str) -> str | None:
    """Return the kind of the index of a field; ``None`` if it has none."""
    schema = shard.collection.indices.get(field)
    return None if schema is None else conversion.index_kind(schema)


def _index_info(schema: Any, found: Any) -> models.PayloadIndexInfo:
    params: Any = schema if isinstance(schema, BaseModel) else None
    return models.PayloadIndexInfo(
        data_type=models.PayloadSchemaType(conversion.index_kind(schema)),
        params=params,
        points=0 if found is None else found.points,
    )


def _facet_value(value: Any) -> tuple[str, Any]:
    if (as_uuid := parse_uuid(value)) is not None:
        value = str(as_uuid)
    return type(value).__name__, value


def _grouped(points: Sequence[Any], group_by: str, size: int) -> dict[Any, list[Any]]:
    groups: dict[Any, list[Any]] = {}
    for point in points:
        values = value_by_key(point.payload or {}, group_by) or []
        if any(type(value) not in (int, str) for value in values):
            continue  # a server drops such a point as a whole
        for value in dict.fromkeys(values):
            hits = groups.setdefault(value, [])
            if len(hits) < size:
                hits.append(point)
    return groups


def _unlimited(prefetch: models.Prefetch, limit: int) -> models.Prefetch:
    inner = [_unlimited(each, limit) for each in _listed(prefetch.prefetch)]
    return prefetch.model_copy(update={"limit": limit, "prefetch": inner or None})


def _as_scored(found: models.Record) -> models.ScoredPoint:
    return models.ScoredPoint.model_construct(
        id=found.id,
        version=0,
        score=1.0,
        payload=found.payload,
        vector=found.vector,
        shard_key=None,
        order_value=found.order_value,
    )


def _with_ties_in_order(points: list[models.ScoredPoint]) -> list[models.ScoredPoint]:
    """Return points with those of equal score, which follow one another, ordered by id."""
    if len({point.score for point in points}) == len(points):
        return points
    ordered: list[models.ScoredPoint] = []
    for _, tied in groupby(points, key=lambda point: (point.score, point.order_value)):
        ordered += sorted(tied, key=lambda point: conversion.in_order(point.id))
    return ordered


def _merged(before: Any, after: Any) -> Any:
    """Return options with those that are given in place of what they were."""
    if type(after).__name__ == "Disabled":
        return None
    if before is None or type(before) is not type(after):
        return after
    return before.model_copy(update=conversion.given(after))


def _listed(given: Any) -> list[Any]:
    if given is None:
        return []
    return [each for each in given if each is not None] if isinstance(given, list) else [given]


def _short(items: Sequence[_Sized]) -> Iterator[tuple[list[_Sized], int]]:
    """Yield items in parts that the engine takes a few milliseconds for, and the size of each."""
    part: list[_Sized] = []
    total = 0
    for item in items:
        if part and (len(part) == PART or total + item.size > PART_BYTES):
            yield part, total
            part, total = [], 0
        part.append(item)
        total += item.size
    if part:
        yield part, total
