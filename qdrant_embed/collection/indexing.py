"""The index of a collection: built, or waited for, now."""

from __future__ import annotations

from qdrant_client import models

from qdrant_embed.backoff import Backoff
from qdrant_embed.collection.collection import Collection
from qdrant_embed.engines.embedded import embedded
from qdrant_embed.errors import InputError, ServerRefusal
from qdrant_embed.progress_bar import Progress

_LOOK = Backoff(first=0.1, longest=1.0)  # seconds between two looks at a server that indexes


async def optimize(collection: Collection, progress: bool | None) -> None:
    """Turn indexing on if loading left it off, then build the index, or wait until it is built.

    Raises:
        As `QdrantEmbedMixin.optimize` does.
    """
    if not isinstance(progress, bool | None):
        raise InputError(f"progress must be True, False or None, not {progress!r:.80}")
    requests = collection.requests
    with Progress(f"index of {collection.name}", shown=progress) as bar:
        requests.on_wait = bar.show_note
        await _turn_on(collection)
        if (database := embedded(requests.client)) is not None:
            await requests.send(database.optimize, collection.name, bar.step)
            return
        looks = 0
        while (status := await _status(collection)) != models.CollectionStatus.GREEN:
            if status == models.CollectionStatus.RED:
                raise ServerRefusal(
                    f"the index of collection {collection.name!r} cannot be built: the server says "
                    "that an optimisation has failed; see its log"
                )
            if status == models.CollectionStatus.GREY:  # it waits for a change of any kind
                nothing = models.OptimizersConfigDiff()
                update = requests.client.update_collection
                await requests.send(update, collection.name, optimizers_config=nothing)
            looks += 1
            bar.show_note("the server is indexing")
            await requests.io.sleep(_LOOK.seconds(looks))


async def _turn_on(collection: Collection) -> None:
    """Have vectors be indexed in a collection that was loaded without; see `CollectionOptions`."""
    collection.bulk = (await collection.read()).bulk
    await collection.index_now()


async def _status(collection: Collection) -> models.CollectionStatus:
    requests = collection.requests
    return (await requests.send(requests.client.get_collection, collection.name)).status
