"""Ids of points: given by the user, or derived from a string or a document's content."""

from __future__ import annotations

import hashlib
import json
import operator
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, SupportsIndex, TypeAlias

from qdrant_embed.errors import InputError, check_unicode
from qdrant_embed.ingest.values import as_column, json_value, scalar

# generated once; stored ids depend on them
_NAMES = uuid.UUID("0d1c4b52-5a1f-5a57-9a0e-6f7c1f6a2b11")
_CONTENTS = uuid.UUID("b5a7a3de-1a64-5f1b-8d3c-92c6a7e0d4f3")
_CHUNKS = uuid.UUID("6f1f8e0a-7f0b-5c52-a3d4-1e9b6c2d8a75")


@dataclass(frozen=True)
class ContentIds:
    """Ids derived from a document's content: its text, and its metadata under `keys`.

    ``ids=ContentIds(keys=("source",))`` distinguishes equal texts of two sources, and treats
    documents that only differ in other metadata as one. ``keys=None`` means all metadata, like
    ``ids="content"``; ``keys=()`` means the text alone.

    Attributes:
        keys: keys of the metadata that the id depends on; ``None`` for all.

    Raises:
        InputError: if `keys` is not a sequence of str.
    """

    keys: Sequence[str] | None = None

    def __post_init__(self) -> None:
        if self.keys is None:
            return
        if isinstance(self.keys, str | Iterator) or not all(
            isinstance(key, str) for key in self.keys
        ):
            raise InputError(f"keys must be a list of str, not {self.keys!r}")

    def id_of(self, text: str, metadata: Mapping[str, Any]) -> str:
        """Return the id of a document, a UUID of version 5.

        Args:
            text: the document's text.
            metadata: the document's metadata, with its keys in any order.

        Raises:
            ValueError: if the metadata is not JSON-serialisable.
        """
        return content_id(self, text, json_value(metadata))


IdScheme: TypeAlias = Literal["content"] | ContentIds


def content_scheme(ids: object) -> ContentIds | None:
    """Return the scheme if ``ids`` of `add` is one; ``None`` for ids, and for none of them."""
    if isinstance(ids, str) and ids == "content":
        return ContentIds()
    return ids if isinstance(ids, ContentIds) else None


@dataclass(frozen=True)
class GivenId:
    """An id that a user passed.

    Attributes:
        point: id of the point in Qdrant.
        user: id as users see it.
    """

    point: int | str
    user: int | str


def given_id(value: object) -> GivenId:
    """Return the id of the point, and the id that users see, for an id that a user passed.

    Raises:
        InputError: if it is not a whole number from 0 to 2**64-1, a UUID, or a non-empty str of
            valid Unicode.
    """
    value = scalar(value)
    if isinstance(value, uuid.UUID):
        return GivenId(str(value), str(value))
    if isinstance(value, str) and value:
        value = str.__str__(value)
        with suppress(ValueError):
            parsed = str(uuid.UUID(value))
            return GivenId(parsed, parsed)
        check_unicode(f"id {value!r:.60}", value)
        return GivenId(_uuid5(_NAMES, value.encode()), value)
    if isinstance(value, SupportsIndex) and not isinstance(value, bool):
        number = operator.index(value)
        if 0 <= number < 2**64:
            return GivenId(number, number)
    raise InputError(
        "an id must be a whole number from 0 to 2**64-1, a UUID or a str that is not empty, not "
        f"{value!r:.60} ({type(value).__name__})"
    )


def point_id(given: int | str | uuid.UUID) -> int | str:
    """Return the id in Qdrant of a point that was added under the id `given`.

    Whole numbers and UUIDs stay the same, but a UUID gets hyphens. Any other str becomes a UUID of
    version 5. Pass the result to methods of ``qdrant_client`` such as ``retrieve``.

    Args:
        given: the id that was passed to `add`.

    Raises:
        InputError: if it is not a whole number from 0 to 2**64-1, a UUID, or a non-empty str.
    """
    return given_id(given).point


def point_ids(given: Iterable[int | str | uuid.UUID]) -> list[int | str]:
    """Return the `point_id` of each id, without repeats.

    Raises:
        InputError: if an id is invalid, or `given` is not a list of ids, such as a single str.
    """
    return list(dict.fromkeys(point for _, point in points_by_id(given)))


def points_by_id(
    given: Iterable[int | str | uuid.UUID], option: str = "ids"
) -> list[tuple[int | str | uuid.UUID, int | str]]:
    """Return each id with its `point_id`.

    Args:
        given: the ids.
        option: what they are called where they were passed.

    Raises:
        InputError: if an id is invalid, or `given` is not a list of ids, such as a single str.
    """
    if isinstance(given, tuple) and not given:
        return []
    if not isinstance(given, set | frozenset):
        given = as_column(option, given)
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        raise InputError(
            f"{option} must be a list of ids, not {given!r:.60} ({type(given).__name__})"
        )
    return [(one, point_id(one)) for one in given]


def content_id(scheme: ContentIds, text: str, metadata: Mapping[str, Any]) -> str:
    """Like `ContentIds.id_of`, for metadata of JSON values alone."""
    if scheme.keys is not None:
        metadata = {key: metadata[key] for key in scheme.keys if key in metadata}
    return _uuid5(_CONTENTS, canonical_json([text, metadata]))


def chunk_id(document: int | str, position: int) -> int | str:
    """Return the id in Qdrant of a document's chunk; the first has the id of the document."""
    return document if position == 0 else _uuid5(_CHUNKS, f"{document}/{position}".encode())


def canonical_json(value: object) -> bytes:
    """Return JSON that is equal for equal values, regardless of the order of their keys.

    Raises:
        TypeError: if the value is not made of JSON values.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return text.encode("ascii")


def _uuid5(namespace: uuid.UUID, name: bytes) -> str:
    """Return ``uuid.uuid5(namespace, name)``, which accepts bytes only since Python 3.12."""
    digest = hashlib.sha1(namespace.bytes + name, usedforsecurity=False).digest()
    return str(uuid.UUID(bytes=digest[:16], version=5))
