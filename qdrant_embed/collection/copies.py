"""Look-ups that ask every copy of a collection, as far as the copies are up."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from qdrant_client import models

from qdrant_embed.collection.collection import Collection
from qdrant_embed.collection.payload import same_json
from qdrant_embed.engines.server import Trouble, in_one_line, is_copy_down, is_transient, trouble_of
from qdrant_embed.errors import ServerUnavailableError
from qdrant_embed.flows.io import Flow
from qdrant_embed.flows.requests import CollectionRequests

logger = logging.getLogger(__name__)

T = TypeVar("T")

_NOBODY: tuple[Trouble | None, ...] = ("refused", "no host")  # whatever number of copies is asked


@dataclass(frozen=True)
class Changes:
    """The points of a page that another collection lacks or has with another payload.

    Attributes:
        changed: these points.
        existing: ids of those that are there.
    """

    changed: Sequence[models.Record]
    existing: frozenset[Any]


class LookUps:
    """Asks a collection what it has, so that what only some of its copies have counts as missing.

    A write that failed on some nodes has stayed on the others. Whoever then believes one copy
    takes the point to be stored, and the other nodes never get it. Where fewer copies are up, but
    enough for a write, as many are asked as are up.

    Args:
        collection: the collection.
    """

    def __init__(self, collection: Collection) -> None:
        self._collection = collection
        self._options: dict[str, Any] = {}
        if collection.io.engine.copies:
            self._options["consistency"] = models.ReadConsistencyType.ALL

    async def ask(self, look_up: Callable[..., Flow[T]], /, *args: Any, **kwargs: Any) -> T:
        """Call a method of `CollectionRequests` that reads, and return what all copies answer."""
        requests = copy.copy(self._collection.requests)
        requests.is_final = is_copy_down
        while True:
            options = {**kwargs, **self._options}
            try:
                return await look_up(requests, *args, **options)
            except ServerUnavailableError as error:
                raised = error.__cause__
                if raised is None or not is_transient(raised) or trouble_of(raised) in _NOBODY:
                    raise
                fewer = await self._fewer()
                if fewer is None and is_copy_down(raised):
                    break
                if fewer is None:
                    raise
                logger.warning(
                    "collection %r: not every copy is up, asking %d: %s",
                    self._collection.name,
                    fewer,
                    in_one_line(raised),
                )
                self._options["consistency"] = fewer
        # no write would succeed now, either: the copy may come back while this is tried again
        return await look_up(self._collection.requests, *args, **options)

    async def changes(
        self, records: Sequence[models.Record], shard_key_selector: models.ShardKey | None
    ) -> Changes:
        """Return which points the collection lacks or has with another payload.

        Args:
            records: points of another collection, with their payloads.
            shard_key_selector: the shard to look in.
        """
        ids = [record.id for record in records]
        there = await self.ask(
            CollectionRequests.retrieve, ids, shard_key_selector=shard_key_selector
        )
        payloads = {record.id: record.payload for record in there}
        changed = [
            record
            for record in records
            if record.id not in payloads or not same_json(payloads[record.id], record.payload)
        ]
        existing = frozenset(record.id for record in changed if record.id in payloads)
        return Changes(changed, existing)

    async def _fewer(self) -> int | None:
        """Return the next smaller number of copies to ask; ``None`` if a write needs more."""
        asked = self._options.get("consistency")
        if asked is None:
            return None
        stored = await self._collection.read()
        fewer = (asked if isinstance(asked, int) else stored.copies) - 1
        return fewer if fewer >= max(1, stored.copies_written) else None
