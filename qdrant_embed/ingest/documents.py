"""Documents as they are given, each with its metadata and its id; checked on the way."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

from qdrant_embed.errors import InputError, check_unicode
from qdrant_embed.ingest.ids import (
    CHUNK_KEY,
    ID_KEY,
    ContentIds,
    GivenId,
    IdScheme,
    canonical_json,
    given_id,
    is_json,
)

DOCUMENT_KEY = "document"
_ENDED = object()


@dataclass(frozen=True)
class Document:
    """A text with what belongs to it, for `add` to take in place of a str.

    Attributes:
        text: what is embedded and stored.
        metadata: JSON values stored beside it.
        id: a whole number, a UUID or any other str; ``None`` for one that `add` makes.
    """

    text: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    id: int | str | uuid.UUID | None = None


@dataclass(frozen=True)
class PendingPoint:
    """One text on its way into a collection.

    Attributes:
        id: of the point, as Qdrant has it.
        shown_id: of the point, as users see it.
        text: what is embedded.
        metadata: what is stored beside it, without the id.
        position: in the input.
        repeats: an earlier document of the same content has the same id.
        is_new: its id was drawn at random, so that no collection has it.
    """

    id: str | int
    shown_id: str | int
    text: str
    metadata: Mapping[str, Any]
    position: int
    repeats: bool = False
    is_new: bool = False

    def payload(self, document_key: str) -> dict[str, Any]:
        """What is stored besides the vectors."""
        payload = {document_key: self.text, **self.metadata}
        return payload if self.shown_id == self.id else payload | {ID_KEY: self.shown_id}

    def is_in(self, stored: Mapping[str, Any], document_key: str) -> bool:
        """Whether the payload `stored` holds all that would be stored; it may hold more."""
        own = self.payload(document_key)
        if not own.keys() <= stored.keys():
            return False
        return canonical_json(own) == canonical_json({key: stored[key] for key in own})


def pair(
    documents: Iterable[str | Document],
    metadata: Iterable[Mapping[str, Any]] | None = None,
    ids: Iterable[int | str | uuid.UUID] | IdScheme | None = None,
    document_key: str = DOCUMENT_KEY,
    *,
    draws_ids: bool = True,
) -> Iterator[PendingPoint]:
    """Each text with its metadata and its id, in order; a random UUID where none is given.

    Without `draws_ids` a document without an id is refused.

    Sequences are checked whole, at once; other iterables are read once, in lockstep, each item
    being checked when its turn comes.

    Raises:
        InputError: lengths differ, or an item cannot be used.
    """
    scheme: ContentIds | None = None
    if isinstance(ids, ContentIds) or ids == "content":
        scheme = ids if isinstance(ids, ContentIds) else ContentIds()
        ids = None
    _check_kinds(documents, metadata, ids)
    given = {"documents": documents, "metadata": metadata, "ids": ids}
    columns: dict[str, Iterable[object]] = {
        name: items for name, items in given.items() if items is not None
    }
    sequences = {name: items for name, items in columns.items() if is_sequence(items)}
    lengths = {name: len(items) for name, items in sequences.items()}  # type: ignore[arg-type]
    if len(set(lengths.values())) > 1:
        counts = ", ".join(f"{length} {name}" for name, length in lengths.items())
        raise InputError(f"one of each is needed for every document, but there are {counts}")
    if len(sequences) == len(columns):
        for _ in _paired(columns, scheme, document_key, draws_ids=draws_ids):
            pass
    return _paired(columns, scheme, document_key, draws_ids=draws_ids)


def _paired(
    columns: Mapping[str, Iterable[object]],
    scheme: ContentIds | None,
    document_key: str,
    *,
    draws_ids: bool,
) -> Iterator[PendingPoint]:
    seen: set[str | int] = set()
    for index, values in enumerate(zip_longest(*columns.values(), fillvalue=_ENDED)):
        row = dict(zip(columns, values, strict=True))
        if _ENDED in values:
            ended = [name for name, value in row.items() if value is _ENDED]
            raise InputError(
                f"{' and '.join(ended)} ended after {index} items, but "
                f"{' and '.join(name for name in row if name not in ended)} went on: one of each "
                "is needed for every document"
            )
        try:
            document = _checked(row, scheme, document_key, index, seen, draws_ids=draws_ids)
        except InputError as error:
            error.index = index
            raise
        yield document
        if not document.is_new:
            seen.add(document.id)


def _checked(
    row: dict[str, object],
    scheme: ContentIds | None,
    document_key: str,
    index: int,
    seen: set[str | int],
    *,
    draws_ids: bool,
) -> PendingPoint:
    """One document; an id that is given must not be among those `seen` before it."""
    document = row["documents"]
    if isinstance(document, Document):
        row = _opened(document, row, index, with_content_ids=scheme is not None)
    text = _checked_text(row["documents"], index)
    metadata = _checked_metadata(row.get("metadata", {}), index, document_key)
    if scheme is not None:
        point = scheme.id_of(text, metadata)
        return PendingPoint(point, point, text, metadata, index, repeats=point in seen)
    if "ids" in row:
        checked = _checked_id(row["ids"], index, seen)
        return PendingPoint(checked.point, checked.shown, text, metadata, index)
    if not draws_ids:
        raise InputError(
            f"documents[{index}] has no id, and one drawn at random is never in a collection "
            "already: on_existing= needs ids='content' or ids of your own"
        )
    drawn = str(uuid.uuid4())
    return PendingPoint(drawn, drawn, text, metadata, index, is_new=True)


def _opened(
    document: Document, row: Mapping[str, object], index: int, *, with_content_ids: bool
) -> dict[str, object]:
    """The row with the document's own columns."""
    if "metadata" in row:
        raise InputError(
            f"documents[{index}] is a Document, which has metadata of its own: leave out metadata="
        )
    if document.id is not None and ("ids" in row or with_content_ids):
        raise InputError(f"documents[{index}] has an id of its own: leave out ids=")
    own: dict[str, object] = {"documents": document.text, "metadata": document.metadata}
    if document.id is not None:
        own["ids"] = document.id
    return {**row, **own}


def _check_kinds(documents: object, metadata: object, ids: object) -> None:
    """Refuses what could be iterated, but surely was not meant to be."""
    if isinstance(documents, str | bytes | Mapping) or not isinstance(documents, Iterable):
        raise InputError(f"documents must be a list of str, not {_shown(documents)}")
    if isinstance(metadata, str | bytes | Mapping) or not isinstance(metadata, Iterable | None):
        raise InputError(
            f"metadata must be a list with one dict for each document, not {_shown(metadata)}"
        )
    if isinstance(ids, str | bytes | Mapping) or not isinstance(ids, Iterable | None):
        raise InputError(
            "ids must be a list with one id for each document, 'content' or ContentIds, not "
            f"{_shown(ids)}"
        )


def is_sequence(items: object) -> bool:
    """Has a length and can be read twice: a list, an array, a column of a table."""
    return hasattr(items, "__len__") and hasattr(items, "__getitem__")


def _checked_text(text: object, index: int) -> str:
    if not isinstance(text, str):
        raise InputError(f"documents[{index}] must be a str, not {_shown(text)}")
    check_unicode(f"documents[{index}]", text)
    return text


def _checked_metadata(metadata: object, index: int, document_key: str) -> Mapping[str, Any]:
    if not isinstance(metadata, Mapping):
        raise InputError(f"metadata[{index}] must be a dict, not {_shown(metadata)}")
    reserved_keys = ((document_key, "the text"), (ID_KEY, "the id"), (CHUNK_KEY, "the chunk"))
    for reserved, what in reserved_keys:
        if reserved in metadata:
            raise InputError(
                f"metadata[{index}] has the key {reserved!r}, where {what} itself is stored: "
                "give it another name"
            )
    for key in metadata:
        if not isinstance(key, str):
            raise InputError(f"metadata[{index}] has the key {_shown(key)}: keys must be str")
    if not is_json({**metadata}):
        for key, value in metadata.items():
            if not is_json({key: value}):
                raise InputError(
                    f"metadata[{index}][{key!r}] is {_shown(value)}, which JSON cannot say and "
                    "Qdrant cannot store: leave it out, or make it a number, str, list or dict"
                )
    return metadata


def _checked_id(given: object, index: int, seen: set[str | int]) -> GivenId:
    """The id, not among those `seen` before it."""
    try:
        checked = given_id(given)
    except InputError as error:
        raise InputError(f"ids[{index}]: {error}") from error
    if checked.point in seen:
        raise InputError(f"ids[{index}] is {_shown(given)}, which an earlier document has already")
    return checked


def _shown(value: object) -> str:
    return f"{value!r:.60} ({type(value).__name__})" if value is not None else "None"
