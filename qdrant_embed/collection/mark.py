"""The mark of a collection that is a copy in progress, in its metadata."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from qdrant_embed.errors import CollectionMismatchError

MARK_KEY = "qdrant_embed_copy"


@dataclass(frozen=True)
class CopyMark:
    """The record that a collection is being copied from another database.

    A collection has it from its creation until all collections of the same call are complete.

    Attributes:
        source: where the other database is.
        collection: name of the collection there.
        together: names of all collections of the call.
        complete: whether this one is complete.
    """

    source: str
    collection: str
    together: tuple[str, ...]
    complete: bool = False

    @property
    def origin(self) -> str:
        """The collection it is copied from, for messages."""
        return f"{self.collection!r} of {self.source}"

    def metadata(self) -> dict[str, Any]:
        """Return the collection metadata that holds this mark."""
        return {MARK_KEY: _MARKS.dump_python(self, mode="json")}

    def is_of(self, other: CopyMark) -> bool:
        """Return whether both are marks of copies of one collection."""
        return (self.source, self.collection) == (other.source, other.collection)

    def is_with(self, other: CopyMark) -> bool:
        """Return whether both are marks of the same call."""
        return (self.source, self.together) == (other.source, other.together)


_MARKS = TypeAdapter(CopyMark)  # which also checks what is read


def read_mark(name: str, metadata: Mapping[str, Any] | None) -> CopyMark | None:
    """Return the mark in the metadata of the collection `name`, if there is one.

    Raises:
        CollectionMismatchError: if the mark is invalid.
    """
    # some local databases keep the null that removes it
    if (stored := (metadata or {}).get(MARK_KEY)) is None:
        return None
    try:
        return _MARKS.validate_python(stored)
    except ValidationError as error:
        raise CollectionMismatchError(
            f"the metadata {MARK_KEY!r} of collection {name!r}, which marks an unfinished copy, "
            f"cannot be read ({error.error_count()} invalid fields); delete the collection and "
            "copy it again",
            expected={},
            found={MARK_KEY: stored},
        ) from error
