"""Documents as users pass them: paired with their metadata and ids, and checked."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

from qdrant_embed.collection.payload import PayloadCodec, same_json
from qdrant_embed.errors import InputError, check_unicode
from qdrant_embed.ingest.ids import (
    ContentIds,
    GivenId,
    IdScheme,
    canonical_json,
    content_id,
    content_scheme,
    given_id,
)
from qdrant_embed.ingest.values import UnstorableError, as_column, describe, json_value, scalar

logger = logging.getLogger(__name__)

_ENDED = object()


@dataclass(frozen=True)
class Document:
    """A text with its metadata and id, which `add` accepts instead of a str.

    Attributes:
        text: the text to embed and store.
        metadata: JSON values to store with the text.
        id: a whole number, a UUID or any other str; ``None`` for an id that `add` generates.
    """

    text: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    id: int | str | uuid.UUID | None = None


@dataclass(frozen=True)
class InputDocument:
    """A checked document of an `add`, with its id.

    Attributes:
        point_id: id in Qdrant of its point, or of its first chunk's point.
        user_id: id as users see it.
        text: the text to embed and store.
        metadata: the metadata to store with the text.
        position: position in the input.
        repeats: whether an earlier document of the input has the same content and id.
        is_new: whether its id is random, so no collection can have it yet.
    """

    point_id: str | int
    user_id: str | int
    text: str
    metadata: Mapping[str, Any]
    position: int
    repeats: bool = False
    is_new: bool = False

    def payload(self, codec: PayloadCodec) -> dict[str, Any]:
        """Return the payload of the point, if the document is stored as one point."""
        user_id = None if self.user_id == self.point_id else self.user_id
        return codec.encode(self.text, self.metadata, user_id)

    def is_in(self, stored: Mapping[str, Any], codec: PayloadCodec) -> bool:
        """Return whether the payload `stored` contains everything this document would store."""
        payload = self.payload(codec)
        if not payload.keys() <= stored.keys():
            return False
        return same_json(payload, {key: stored[key] for key in payload})


def pair(
    documents: Iterable[str | Document],
    metadata: Iterable[Mapping[str, Any]] | None = None,
    ids: Iterable[int | str | uuid.UUID] | IdScheme | None = None,
    codec: PayloadCodec | None = None,
    *,
    random_ids: bool = True,
    place: Callable[[int], str] | None = None,
) -> Iterator[InputDocument]:
    """Yield each text with its metadata and id, in order.

    Sequences are checked completely before this function returns. Other iterables are read once,
    in lockstep, and each item is checked when it is read.

    Args:
        documents: see `add`.
        metadata: see `add`.
        ids: see `add`; by default, each document gets a random UUID.
        codec: has the keys that metadata cannot have; by default, those of a new client.
        random_ids: whether a document without an id gets a random one; otherwise it is refused.
        place: tells where a document that has just been read is from, as ``"a.parquet, row 7"``;
            ``""`` if that is not known.

    Raises:
        InputError: if lengths differ, or an item cannot be used.
    """
    codec = codec or PayloadCodec()
    scheme = content_scheme(ids)
    documents, metadata = as_column("documents", documents), as_column("metadata", metadata)
    ids = as_column("ids", None if scheme is not None else ids)
    _check_types(documents, metadata, ids)
    arguments: dict[str, Any] = {"documents": documents, "metadata": metadata, "ids": ids}
    columns: dict[str, Iterable[Any]] = {
        name: items for name, items in arguments.items() if items is not None
    }
    sequences = {name: items for name, items in columns.items() if is_sequence(items)}
    lengths = {name: len(items) for name, items in sequences.items()}  # type: ignore[arg-type]
    if len(set(lengths.values())) > 1:
        counts = ", ".join(f"{length} {name}" for name, length in lengths.items())
        raise InputError(
            f"{' and '.join(lengths)} differ in length: there are {counts}; pass one of each per "
            "document"
        )
    if len(sequences) == len(columns):
        for _ in _paired(columns, scheme, codec, random_ids=random_ids, is_check=True):
            pass
    return _paired(columns, scheme, codec, random_ids=random_ids, place=place)


def _paired(
    columns: Mapping[str, Iterable[object]],
    scheme: ContentIds | None,
    codec: PayloadCodec,
    *,
    random_ids: bool,
    place: Callable[[int], str] | None = None,
    is_check: bool = False,
) -> Iterator[InputDocument]:
    seen: set[str | int] = set()
    unmet = set(scheme.keys or ()) if scheme is not None and not is_check else set()
    metadata_of: dict[str | int, int] = {}  # hashes, until all keys of the ids have been met
    are_merged = False
    for index, values in enumerate(zip_longest(*columns.values(), fillvalue=_ENDED)):
        row = dict(zip(columns, values, strict=True))
        if _ENDED in values:
            ended = [name for name, value in row.items() if value is _ENDED]
            raise InputError(
                f"{' and '.join(ended)} ended after {index} items, but "
                f"{' and '.join(name for name in row if name not in ended)} continued; pass one of "
                "each per document"
            )
        try:
            document = _checked(row, scheme, codec, index, seen, random_ids=random_ids)
        except InputError as error:
            error.index = index
            if place is None or not (where := place(index)):
                raise
            raise InputError(f"{where}: {error}", index=index) from error
        if unmet:
            unmet -= document.metadata.keys()
            own = hash(canonical_json(document.metadata))
            are_merged |= metadata_of.setdefault(document.point_id, own) != own
        yield document
        if not document.is_new:
            seen.add(document.point_id)
    if unmet and are_merged:
        logger.warning(
            "documents with equal texts and different metadata became one: ids depend on %s "
            "(ContentIds), which no document has in its metadata",
            " and ".join(map(repr, sorted(unmet))),
        )


def _checked(
    row: dict[str, object],
    scheme: ContentIds | None,
    codec: PayloadCodec,
    index: int,
    seen: set[str | int],
    *,
    random_ids: bool,
) -> InputDocument:
    """Check one document; an id that the user passed must not be in `seen`."""
    document = row["documents"]
    if isinstance(document, Document):
        row = _with_fields(row, document, index, with_content_ids=scheme is not None)
    text = _checked_text(row["documents"], index)
    metadata = checked_metadata(row.get("metadata", {}), index, codec)
    if scheme is not None:
        point = content_id(scheme, text, metadata)
        return InputDocument(point, point, text, metadata, index, repeats=point in seen)
    if "ids" in row:
        checked = _checked_id(row["ids"], index, seen)
        return InputDocument(checked.point, checked.user, text, metadata, index)
    if not random_ids:
        raise InputError(
            f"documents[{index}] has no id, but on_existing='skip' and 'error' compare ids with "
            "stored ones; pass ids='content', ContentIds or your own ids"
        )
    random_id = str(uuid.uuid4())
    return InputDocument(random_id, random_id, text, metadata, index, is_new=True)


def _with_fields(
    row: Mapping[str, object], document: Document, index: int, *, with_content_ids: bool
) -> dict[str, object]:
    """Return the row with the text, metadata and id of a `Document`."""
    if "metadata" in row:
        raise InputError(
            f"documents[{index}] is a Document, which has its own metadata; omit metadata"
        )
    if document.id is not None and ("ids" in row or with_content_ids):
        raise InputError(f"documents[{index}] has its own id; omit ids")
    fields: dict[str, object] = {"documents": document.text, "metadata": document.metadata}
    if document.id is not None:
        fields["ids"] = document.id
    return {**row, **fields}


def _check_types(documents: object, metadata: object, ids: object) -> None:
    """Raise `InputError` for types that can be iterated but are certainly a mistake."""
    if isinstance(documents, str | bytes | Mapping) or not isinstance(documents, Iterable):
        raise InputError(f"documents must be a list of str, not {describe(documents)}")
    if isinstance(metadata, str | bytes | Mapping) or not isinstance(metadata, Iterable | None):
        raise InputError(
            f"metadata must be a list with one dict for each document, not {describe(metadata)}"
        )
    if isinstance(ids, str | bytes | Mapping) or not isinstance(ids, Iterable | None):
        raise InputError(
            "ids must be a list with one id for each document, 'content' or ContentIds, not "
            f"{describe(ids)}"
        )


def is_sequence(items: object) -> bool:
    """Return whether `items` has a length and can be read twice, like a list or an array."""
    return hasattr(items, "__len__") and hasattr(items, "__getitem__")


def _checked_text(text: object, index: int) -> str:
    text = scalar(text)
    if not isinstance(text, str):
        raise InputError(f"documents[{index}] must be a str, not {describe(text)}")
    if not text.isascii():
        check_unicode(f"documents[{index}]", text)
    return str.__str__(text)


def checked_metadata(metadata: object, index: int, codec: PayloadCodec) -> dict[str, Any]:
    """Return a copy of what will be stored, given what a user passed at a position.

    Raises:
        InputError: if it cannot be stored.
    """
    metadata = scalar(metadata)
    if not isinstance(metadata, Mapping):
        raise InputError(f"metadata[{index}] must be a dict, not {describe(metadata)}")
    for key in metadata:
        if not isinstance(key, str):
            raise InputError(f"metadata[{index}] has the key {describe(key)}, but keys must be str")
    try:
        values: dict[str, Any] = json_value(metadata)
    except UnstorableError as error:
        raise InputError(f"metadata[{index}]{error}") from None
    for reserved, what in codec.reserved_keys.items():
        if reserved in values:
            raise InputError(
                f"metadata[{index}] has the key {reserved!r}, under which {what} itself is stored; "
                "rename the key"
            )
    return values


def _checked_id(value: object, index: int, seen: set[str | int]) -> GivenId:
    """Check an id, which must not be in `seen`."""
    try:
        checked = given_id(value)
    except InputError as error:
        raise InputError(f"ids[{index}]: {error}") from error
    if checked.point in seen:
        raise InputError(
            f"ids[{index}] is {describe(value)}, which an earlier document already has"
        )
    return checked
