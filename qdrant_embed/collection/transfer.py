"""Copies of collections in another database: points with all their vectors, settings, aliases.

Vectors are moved as they are, so no encoder is needed. A copy is made in these steps, each of which
can be repeated after a crash:

1. The collection is created, with a mark in its metadata that says what it is a copy of.
2. Indexes of its payload fields and missing shards are created.
3. Points are copied batch by batch. In a collection that an earlier call left unfinished, those
   that are there with the same payload are not written again.
4. The points are counted on both sides.
5. The aliases are set, and the mark says that the copy is complete.
6. Once that is true of all collections of the call, the marks are removed.

Until step 5, `query` and `add` refuse the collection.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import qdrant_client
from pydantic import BaseModel
from qdrant_client import models

from qdrant_embed.collection.collection import Collection, Place
from qdrant_embed.collection.copies import LookUps
from qdrant_embed.collection.stamp import MARK_KEY, CopyMark
from qdrant_embed.collection.stored import StoredCollection, read_collection
from qdrant_embed.engines.connection import address_of
from qdrant_embed.engines.names import check_collection_name, check_new_collection_name
from qdrant_embed.engines.points import StoredPoints
from qdrant_embed.engines.wire import uploads_in_flight
from qdrant_embed.errors import (
    CollectionMismatchError,
    CollectionNotFoundError,
    InputError,
    check_whole,
)
from qdrant_embed.flows.in_flight import InFlight
from qdrant_embed.flows.progress import ProgressOption, Reporter
from qdrant_embed.flows.requests import CollectionRequests

M = TypeVar("M", bound=BaseModel)

_IDS = 10_000  # of a page
_NAMED = 5  # missing points that an error names
_EVERY = "*"  # stands for the collection in requests that are about none


@dataclass(frozen=True)
class CopyOptions:
    """The options of one `copy_to`, which describes them."""

    collections: Iterable[str] | None
    batch_size: int
    progress: ProgressOption

    def __post_init__(self) -> None:
        check_whole("batch_size", self.batch_size, 1)
        if self.collections is None:
            return
        if isinstance(self.collections, str | bytes) or not isinstance(self.collections, Iterable):
            raise InputError(
                f"collections must be a list of names, not {self.collections!r:.80}; omit it to "
                "copy all"
            )
        object.__setattr__(self, "collections", list(self.collections))
        for name in self.collections:
            check_collection_name(name, "a name in collections")


@dataclass(frozen=True)
class Database:
    """One of the two databases of a copy.

    Attributes:
        collection: returns a collection of it by name.
    """

    collection: Callable[[str], Collection]

    @property
    def client(self) -> qdrant_client.QdrantClient:
        """Its client."""
        return self.collection(_EVERY).requests.client

    @property
    def place(self) -> str:
        """Where it is: a folder, an address, or this process."""
        options, client = self.client.init_options, self.client
        if path := options.get("path"):
            return str(Path(path).resolve())
        if options.get("location") == ":memory:":
            return f":memory: of process {os.getpid()}, {id(client._client)}"
        return address_of(client, grpc=False)

    async def names(self) -> list[str]:
        """Return the names of its collections."""
        found = await self.collection(_EVERY).requests.send(self.client.get_collections)
        return sorted(collection.name for collection in found.collections)

    async def aliases(self) -> Mapping[str, str]:
        """Return the name of the collection that each alias points to."""
        known = await self.collection(_EVERY).requests.send(self.client.get_aliases)
        return {found.alias_name: found.collection_name for found in known.aliases}


async def copy_collections(
    source: Database, target: Database, options: CopyOptions
) -> dict[str, int]:
    """Copy collections and return the number of points of each.

    Raises:
        As `copy_to` does.
    """
    if source.client._client is target.client._client:
        raise InputError("copy_to() needs another database, but other is this client's own")
    return await _Copying(source, target, options).run()


@dataclass(frozen=True)
class _Plan:
    """One collection to copy.

    Attributes:
        source: the collection.
        target: its copy.
        config: its settings.
        indexes: the kind of each payload field's index.
        aliases: names that point to it.
        shard_keys: the keys of its shards; ``[None]`` without any.
        points: number of its points.
        found: what is known of the copy; ``None`` if it does not exist yet.
    """

    source: Collection
    target: Collection
    config: models.CollectionConfig
    indexes: Mapping[str, models.PayloadFieldSchema]
    aliases: Sequence[str]
    shard_keys: Sequence[models.ShardKey | None]
    points: int
    found: StoredCollection | None

    @property
    def name(self) -> str:
        """Name of the collection on both sides."""
        return self.source.name

    @property
    def is_open(self) -> bool:
        """Whether there is something left to copy."""
        return self.found is None or (self.found.mark is not None and not self.found.mark.complete)

    @property
    def target_keys(self) -> Sequence[models.ShardKey | None]:
        """Keys of the shards of the copy: of an engine without shards none."""
        return self.shard_keys if self.target.io.engine.copies else [None]

    @property
    def named_keys(self) -> list[models.ShardKey]:
        """Keys of the shards that the copy must have."""
        return [key for key in self.target_keys if key is not None]

    def creation(self) -> dict[str, Any]:
        """Return the arguments of ``create_collection`` except the name and the metadata."""
        params, config = self.config.params, self.config
        arguments: dict[str, Any] = {
            "vectors_config": params.vectors,
            "sparse_vectors_config": params.sparse_vectors,
        }
        if not self.source.io.engine.keeps_settings:
            return arguments
        arguments |= {
            "on_disk_payload": params.on_disk_payload,
            "hnsw_config": _as(models.HnswConfigDiff, config.hnsw_config),
            "quantization_config": config.quantization_config,
        }
        for option in ("payload", "id_tracker"):  # of newer versions alone
            if (value := getattr(params, option, None)) is not None:
                arguments[option] = value
        if not self.source.io.engine.copies:
            return arguments
        return arguments | {
            "shard_number": params.shard_number,
            "sharding_method": params.sharding_method,
            "replication_factor": params.replication_factor,
            "write_consistency_factor": params.write_consistency_factor,
            "optimizers_config": _as(models.OptimizersConfigDiff, config.optimizer_config),
            "wal_config": config.wal_config and _as(models.WalConfigDiff, config.wal_config),
        }

    def final_changes(self) -> dict[str, Any]:
        """Return the settings that apply once all points are there.

        Strict mode limits what a minute or a request may write.
        """
        strict = self.config.strict_mode_config
        if strict is None or not self.target.io.engine.copies:
            return {}
        return {"strict_mode_config": _as(models.StrictModeConfig, strict)}


class _Copying:
    def __init__(self, source: Database, target: Database, options: CopyOptions) -> None:
        self._source, self._target, self._options = source, target, options
        self._names: Sequence[str] = ()
        self._done: deque[_Part] = deque()  # not reported yet
        self._copied = self._unchanged = 0

    async def run(self) -> dict[str, int]:
        self._names = await self._found_names()
        plans = [await self._plan(name) for name in self._names]
        self._check(plans)
        await self._check_aliases(plans)
        total = sum(plan.points for plan in plans)
        title = self._names[0] if len(plans) == 1 else f"{len(plans)} collections"
        counts: dict[str, int] = {}
        with Reporter(self._options.progress, title, total, unit=" points") as reporter:
            reporter.report(0)
            for plan in plans:
                plan.source.requests.on_wait = plan.target.requests.on_wait = reporter.show_note
                counts[plan.name] = await self._copy(plan, reporter)
        for plan in plans:
            await self._mark(plan, None)
        return counts

    # what to copy

    async def _found_names(self) -> list[str]:
        """Return the names of the collections to copy; an alias stands for its collection."""
        known = await self._source.names()
        if self._options.collections is None:
            return known
        names = list(self._options.collections)
        if set(names) - set(known):
            aliases = await self._source.aliases()
            names = [aliases.get(name, name) for name in names]
        for name in names:
            if name not in known:
                raise CollectionNotFoundError(
                    f"collection {name!r} was not found in {self._source.place}; existing "
                    f"collections: {', '.join(known) or 'none'}",
                    collection_name=name,
                )
        return list(dict.fromkeys(names))

    async def _plan(self, name: str) -> _Plan:
        source, target = self._source.collection(name), self._target.collection(name)
        info = await source.requests.send(source.requests.client.get_collection, name)
        stored = read_collection(name, info)
        stored.check_is_whole()
        shard_keys: Sequence[models.ShardKey | None] = [None]
        if stored.has_custom_sharding:
            shard_keys = await source.shard_keys()
        found = await target.find()
        if found is None:
            check_new_collection_name(name)
        indexes: dict[str, models.PayloadFieldSchema] = {
            key: index.data_type if index.params is None else index.params
            for key, index in (info.payload_schema or {}).items()
        }
        return _Plan(
            source=source,
            target=target,
            config=info.config,
            indexes=indexes,
            aliases=await source.aliases(),
            shard_keys=shard_keys,
            points=await source.count(shard_keys),
            found=found,
        )

    def _own_mark(self, name: str) -> CopyMark:
        return CopyMark(self._source.place, name, tuple(self._names))

    def _check(self, plans: Sequence[_Plan]) -> None:
        """Refuse collections that exist and are no copies of this call."""
        found = [plan.found for plan in plans if plan.found is not None]
        points = {plan.name: plan.points for plan in plans}
        # marks are removed one after the other once all copies of a call are complete
        is_ending = not any(plan.is_open for plan in plans) and any(
            there.mark is not None and there.mark.is_with(self._own_mark(there.name))
            for there in found
        )
        for there in found:
            own, mark = self._own_mark(there.name), there.mark
            if is_ending if mark is None else mark.is_of(own):
                continue
            origin = None if mark is None else mark.origin
            raise CollectionMismatchError(
                f"collection {there.name!r} already exists in {self._target.place}, with "
                f"{there.points} points where the one in {self._source.place} has "
                f"{points[there.name]}, and is "
                f"{'no unfinished copy' if origin is None else f'a copy of {origin}'}: nothing was "
                "copied. Delete it there, or name the collections to copy without it",
                expected={"copy of": own.origin},
                found={"copy of": origin},
            )

    async def _check_aliases(self, plans: Sequence[_Plan]) -> None:
        """Refuse aliases that are names of something else in the other database."""
        wanted = {alias: plan.name for plan in plans for alias in plan.aliases}
        if not wanted:
            return
        there = {name: name for name in await self._target.names()}
        there |= await self._target.aliases()
        for alias, name in wanted.items():
            if there.get(alias, name) != name:
                raise CollectionMismatchError(
                    f"{alias!r} is an alias of collection {name!r} in {self._source.place}, but "
                    f"a name of {there[alias]!r} in {self._target.place}, so nothing was copied. "
                    "Delete one of them",
                    expected={alias: name},
                    found={alias: there[alias]},
                )

    # one collection

    async def _copy(self, plan: _Plan, reporter: Reporter) -> int:
        if not plan.is_open:
            self._done.append(_Part(plan.points, plan.points))
            self._report(reporter)
            return await self._checked_count(plan)
        stored = await self._created(plan) if plan.found is None else plan.found
        await plan.target.create_missing_shards(stored, plan.named_keys)
        await plan.target.index(stored, plan.indexes)
        await plan.target.index_parents(stored)
        await self._move(plan, reporter)
        await plan.target.requests.flush()
        count = await self._checked_count(plan)
        for alias in plan.aliases:
            await plan.target.set_alias(alias)
        complete = replace(self._own_mark(plan.name), complete=True)
        await self._mark(plan, complete, **plan.final_changes())
        return count

    async def _created(self, plan: _Plan) -> StoredCollection:
        target, mark = plan.target, self._own_mark(plan.name)
        for name in (plan.name, *plan.aliases):  # which may have had other vectors
            target.selection.recent.forget(name)
        metadata = {**(plan.config.metadata or {}), **mark.metadata()}
        arguments = plan.creation() | {"metadata": metadata}
        await target.io.finish(target.create(arguments, plan.named_keys))
        stored = await target.read_until(lambda found: found.mark is not None)
        if stored.mark != mark:
            raise CollectionMismatchError(
                f"the server in {self._target.place} did not store in the metadata of collection "
                f"{plan.name!r} that it is an unfinished copy; upgrade to Qdrant 1.16 or newer, "
                "delete the collection, and copy it again",
                expected=mark.metadata(),
                found={MARK_KEY: None if stored.mark is None else stored.mark.origin},
            )
        return stored

    async def _mark(self, plan: _Plan, mark: CopyMark | None, **changes: Any) -> None:
        """Set or remove the mark of a copy, and change its settings."""

        async def is_done() -> bool:
            return (await plan.target.read()).mark == mark

        await plan.target.requests.define(
            plan.target.requests.client.update_collection,
            is_done,
            plan.name,
            metadata={MARK_KEY: None} if mark is None else mark.metadata(),
            timeout=plan.target.requests.defining_timeout,
            **changes,
        )

    # points

    async def _move(self, plan: _Plan, reporter: Reporter) -> None:
        """Copy the points, several batches in flight where the engine takes them.

        The very first batch goes alone: what is wrong with all is found out with one request.
        """
        target, size = plan.target, self._options.batch_size
        look_ups = None if plan.found is None else LookUps(target)
        in_flight = InFlight(target.io, uploads_in_flight(target.requests.client))
        place = Place() if plan.shard_keys else None
        is_first = True
        try:
            while place is not None:
                page = await plan.source.page(
                    place, plan.shard_keys, _IDS, with_payload=False, with_vectors=False
                )
                ids = [record.id for record in page.records]
                for start in range(0, len(ids), size):
                    part = ids[start : start + size]
                    flow = partial(self._copy_part, plan, part, page.shard_key, look_ups)
                    await in_flight.begin(flow, alone=is_first)
                    is_first = False
                    self._report(reporter)
                place = page.following
            while len(in_flight):
                await in_flight.wait()
                self._report(reporter)
        except BaseException:
            await in_flight.abandon()
            raise

    async def _copy_part(
        self,
        plan: _Plan,
        ids: Sequence[Any],
        shard_key: models.ShardKey | None,
        look_ups: LookUps | None,
    ) -> None:
        """Copy some points; it can run in another thread than `_report`, and only hands over."""
        records = await plan.source.requests.points(
            ids, plan.config.params, shard_key_selector=shard_key
        )
        target_key = shard_key if plan.target.io.engine.copies else None
        changed: Sequence[models.Record] = records
        if look_ups is not None:
            changed = (await look_ups.changes(records, target_key)).changed
        if changed:
            await plan.target.requests.upsert(
                StoredPoints(changed), lambda _: None, shard_key_selector=target_key
            )
        self._done.append(_Part(len(ids), len(records) - len(changed)))

    def _report(self, reporter: Reporter) -> None:
        while self._done:
            part = self._done.popleft()
            self._copied += part.points
            self._unchanged += part.unchanged
            reporter.report(self._copied, self._unchanged)

    async def _checked_count(self, plan: _Plan) -> int:
        """Return the number of points of a copy; refuse one that has too few or too many."""
        there = await plan.source.count(plan.shard_keys)
        copied = await plan.target.count(plan.target_keys)
        if there == copied:
            return copied
        missing = await self._missing(plan) if copied < there else []
        named = f" (such as {', '.join(map(repr, missing))})" if missing else ""
        raise CollectionMismatchError(
            f"collection {plan.name!r} has {there} points in {self._source.place}, but {copied} in "
            f"{self._target.place}: "
            + (
                f"{there - copied} missing{named}, because points were added while they were "
                "copied; call copy_to() again, which copies them"
                if copied < there
                else f"{copied - there} too many, because points were deleted since they were "
                "copied, or somebody else stores some; delete the copy, and call copy_to() again"
            ),
            expected={"points": there},
            found={"points": copied},
        )

    async def _missing(self, plan: _Plan) -> list[Any]:
        """Return the ids of some points that the copy lacks."""
        missing: list[Any] = []
        look_ups = LookUps(plan.target)
        place = Place() if plan.shard_keys else None
        while place is not None and len(missing) < _NAMED:
            page = await plan.source.page(
                place, plan.shard_keys, _IDS, with_payload=False, with_vectors=False
            )
            key = page.shard_key if plan.target.io.engine.copies else None
            found = await look_ups.ask(
                CollectionRequests.retrieve,
                [record.id for record in page.records],
                with_payload=False,
                shard_key_selector=key,
            )
            there = {record.id for record in found}
            missing += [record.id for record in page.records if record.id not in there]
            place = page.following
        return missing[:_NAMED]


@dataclass(frozen=True)
class _Part:
    """Points that are there now, and how many of them were before."""

    points: int
    unchanged: int


def _as(kind: type[M], config: BaseModel) -> M:
    """Return settings as a request has them; an answer has more."""
    given = config.model_dump(exclude_none=True)
    return kind(**{name: value for name, value in given.items() if name in kind.model_fields})
