"""Documents to points, and found points to results."""

from __future__ import annotations

import operator
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, SupportsIndex

from qdrant_client import models

from qdrant_embed.errors import InputError

DOCUMENT_KEY = "document"
_ENDED = object()


@dataclass(frozen=True)
class Document:
    """One text on its way into a collection, with the id its point will have."""

    id: str | int
    text: str
    metadata: Mapping[str, Any]


def pair(
    documents: Iterable[str],
    metadata: Iterable[Mapping[str, Any]] | None = None,
    ids: Iterable[int | str | uuid.UUID] | None = None,
    document_key: str = DOCUMENT_KEY,
) -> Iterator[Document]:
    """Each text with its metadata and its id, in order; a random UUID where `ids` is ``None``.

    Sequences are checked whole, at once; other iterables are read once, in lockstep, each item
    being checked when its turn comes.

    Raises:
        InputError: lengths differ, or an item cannot be used.
    """
    _check_kinds(documents, metadata, ids)
    given = {"documents": documents, "metadata": metadata, "ids": ids}
    sequences = {name: items for name, items in given.items() if _is_sequence(items)}
    lengths = {name: len(items) for name, items in sequences.items()}  # type: ignore[arg-type]
    if len(set(lengths.values())) > 1:
        counts = ", ".join(f"{length} {name}" for name, length in lengths.items())
        raise InputError(f"one of each is needed for every document, but there are {counts}")
    if len(sequences) == sum(items is not None for items in given.values()):
        for _ in _paired(documents, metadata, ids, document_key):
            pass
    return _paired(documents, metadata, ids, document_key)


def to_points(
    documents: Sequence[Document],
    vectors: Sequence[Mapping[str, Any]],
    document_key: str = DOCUMENT_KEY,
) -> list[models.PointStruct]:
    """Points, one for each document, with the vectors of the same place, by their names."""
    return [
        models.PointStruct(
            id=document.id,
            # a vector without a name goes without a dict, unless a sparse one stands beside it
            vector=named[""] if set(named) == {""} else dict(named),
            payload={document_key: document.text, **document.metadata},
        )
        for document, named in zip(documents, vectors, strict=True)
    ]


def id_of(point: models.PointStruct | models.ScoredPoint) -> str | int:
    """The point's id as users see it: a whole number, or a UUID written with hyphens."""
    return point.id if isinstance(point.id, int) else str(point.id)


def _paired(
    documents: Iterable[str],
    metadata: Iterable[Mapping[str, Any]] | None,
    ids: Iterable[int | str | uuid.UUID] | None,
    document_key: str,
) -> Iterator[Document]:
    seen: set[str | int] = set()
    columns: dict[str, Iterable[object]] = {"documents": documents}
    if metadata is not None:
        columns["metadata"] = metadata
    if ids is not None:
        columns["ids"] = ids
    for index, values in enumerate(zip_longest(*columns.values(), fillvalue=_ENDED)):
        row = dict(zip(columns, values, strict=True))
        if _ENDED in values:
            ended = [name for name, value in row.items() if value is _ENDED]
            raise InputError(
                f"{' and '.join(ended)} ended after {index} items, but "
                f"{' and '.join(name for name in row if name not in ended)} went on: one of each "
                "is needed for every document"
            )
        yield Document(
            id=_checked_id(row["ids"], index, seen) if "ids" in row else str(uuid.uuid4()),
            text=_checked_text(row["documents"], index),
            metadata=_checked_metadata(row.get("metadata", {}), index, document_key),
        )


def _check_kinds(documents: object, metadata: object, ids: object) -> None:
    """Refuses what could be iterated, but surely was not meant to be."""
    if isinstance(documents, str | bytes | Mapping) or not isinstance(documents, Iterable):
        raise InputError(f"documents must be a list of str, not {_shown(documents)}")
    if isinstance(metadata, str | bytes | Mapping) or not isinstance(metadata, Iterable | None):
        raise InputError(
            f"metadata must be a list with one dict for each document, not {_shown(metadata)}"
        )
    if isinstance(ids, str | bytes | Mapping) or not isinstance(ids, Iterable | None):
        raise InputError(f"ids must be a list with one id for each document, not {_shown(ids)}")


def _is_sequence(items: object) -> bool:
    """Has a length and can be read twice: a list, an array, a column of a table."""
    return hasattr(items, "__len__") and hasattr(items, "__getitem__")


def _checked_text(text: object, index: int) -> str:
    if not isinstance(text, str):
        raise InputError(f"documents[{index}] must be a str, not {_shown(text)}")
    return text


def _checked_metadata(metadata: object, index: int, document_key: str) -> Mapping[str, Any]:
    if not isinstance(metadata, Mapping):
        raise InputError(f"metadata[{index}] must be a dict, not {_shown(metadata)}")
    if document_key in metadata:
        raise InputError(
            f"metadata[{index}] has the key {document_key!r}, where the text itself is stored: "
            "give it another name"
        )
    for key in metadata:
        if not isinstance(key, str):
            raise InputError(f"metadata[{index}] has the key {_shown(key)}: keys must be str")
    return metadata


def _checked_id(given: object, index: int, seen: set[str | int]) -> str | int:
    """The id as Qdrant writes it; `seen` holds those before it."""
    checked = _parsed_id(given, index)
    if checked in seen:
        raise InputError(f"ids[{index}] is {_shown(given)}, which an earlier document has already")
    seen.add(checked)
    return checked


def _parsed_id(given: object, index: int) -> str | int:
    if isinstance(given, uuid.UUID):
        return str(given)
    if isinstance(given, str):
        with suppress(ValueError):
            return str(uuid.UUID(given))
    elif isinstance(given, SupportsIndex) and not isinstance(given, bool):
        number = operator.index(given)
        if 0 <= number < 2**64:
            return number
    raise InputError(
        f"ids[{index}] is {_shown(given)}: Qdrant takes whole numbers from 0 to 2**64-1 and UUIDs; "
        "uuid.uuid5() makes a UUID of any other name"
    )


def _shown(value: object) -> str:
    return f"{value!r:.60} ({type(value).__name__})" if value is not None else "None"
