"""What stands behind a client, described by what it needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from qdrant_embed.errors import QdrantEmbedError


@dataclass(frozen=True)
class Engine:
    """What an engine needs of those who send it requests.

    Attributes:
        name: for messages and logs.
        serialize: send one request at a time; threads would corrupt each other's work.
        off_loop: coroutines of its asynchronous client compute without ever waiting, so that they
            run in a thread of their own.
        payload_index: filters on a payload field are faster with an index of that field.
        refusals: errors of ours that say that it has read a request and refused it.
        explain: returns that error, given what a request raised and the collection's name;
            ``None`` where nothing was refused.
        copies: it may keep several copies of a collection, on nodes that do not know the same at
            the same time.
    """

    name: str
    serialize: bool
    off_loop: bool
    payload_index: bool
    refusals: tuple[type[QdrantEmbedError], ...]
    explain: Callable[[Exception, str], QdrantEmbedError | None]
    copies: bool = False
