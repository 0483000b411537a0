"""Ids of points: given by the user, or derived from a string or a document's content."""

from __future__ import annotations

import hashlib
import json
import operator
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, SupportsIndex, TypeAlias

from pydantic_core import PydanticSerializationError, to_json, to_jsonable_python

from qdrant_embed.collection.payload import WHOLE_NUMBERS
from qdrant_embed.errors import InputError, check_unicode

_MANY_DIGITS = re.compile(rb"[0-9]{19}")  # as 2**63 has
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
        if isinstance(self.keys, str) or not all(isinstance(key, str) for key in self.keys):
            raise InputError(f"keys must be a list of str, not {self.keys!r}")

    def id_of(self, text: str, metadata: Mapping[str, Any]) -> str:
        """Return the id of a document, a UUID of version 5.

        Args:
            text: the document's text.
            metadata: the document's metadata, with its keys in any order.

        Raises:
            TypeError: if the metadata is not JSON-serialisable.
            ValueError: if the metadata is not JSON-serialisable.
        """
        if self.keys is not None:
            metadata = {key: metadata[key] for key in self.keys if key in metadata}
        return _uuid5(_CONTENTS, canonical_json([text, dict(metadata)]))


IdScheme: TypeAlias = Literal["content"] | ContentIds


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
    if isinstance(value, uuid.UUID):
        return GivenId(str(value), str(value))
    if isinstance(value, str) and value:
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
    given: Iterable[int | str | uuid.UUID],
) -> list[tuple[int | str | uuid.UUID, int | str]]:
    """Return each id with its `point_id`.

    Raises:
        InputError: if an id is invalid, or `given` is not a list of ids, such as a single str.
    """
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        raise InputError(f"ids must be a list of ids, not {given!r:.60} ({type(given).__name__})")
    return [(one, point_id(one)) for one in given]


def chunk_id(document: int | str, position: int) -> int | str:
    """Return the id in Qdrant of a document's chunk; the first has the id of the document."""
    return document if position == 0 else _uuid5(_CHUNKS, f"{document}/{position}".encode())


def canonical_json(value: object) -> bytes:
    """Return JSON that is equal for equal values, regardless of the order of their keys.

    Raises:
        TypeError: if the value is not JSON-serialisable.
        ValueError: if the value is not JSON-serialisable.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=_plain)
    return text.encode("ascii")


def sent_json(value: Mapping[str, Any]) -> bytes | None:
    """Return `value` as qdrant_client sends it; ``None`` if some of it would be lost.

    Dates, UUIDs, enums and similar become str or numbers. NaN and infinity would become null, an
    iterator would be empty by the time it is sent, and keys must be str.
    """
    if any(isinstance(item, Iterator) for item in value.values()):
        return None
    try:
        if _has_other_keys(value):
            return None
        sent = to_json(value)
    except (PydanticSerializationError, ValueError, RecursionError):
        return None
    if b"NaN" not in sent and b"Infinity" not in sent:
        return sent
    try:  # a number, or a str that contains these words
        json.dumps(to_jsonable_python(value), allow_nan=False)
    except ValueError:
        return None
    return sent


def too_large_number(value: Mapping[str, Any], sent: bytes) -> tuple[str, int] | None:
    """Return where a whole number is that no payload can hold, and the number.

    Over REST a server makes a float of it, and over gRPC it cannot be sent.

    Args:
        value: JSON values.
        sent: the same, as `sent_json` returns it.
    """
    if _MANY_DIGITS.search(sent) is None:
        return None
    return _too_large(plain_json(value), "")


def _too_large(value: object, path: str) -> tuple[str, int] | None:
    items: Iterable[tuple[object, object]] = ()
    if isinstance(value, int):
        return None if value in WHOLE_NUMBERS else (path, value)
    if isinstance(value, Mapping):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    found = (_too_large(item, f"{path}[{key!r}]") for key, item in items)
    return next((large for large in found if large is not None), None)


def plain_json(value: object) -> Any:
    """Return `value` as it comes back from JSON: dates, UUIDs, tuples and the like as str or lists.

    Raises:
        ValueError: if the value is not JSON-serialisable.
    """
    return to_jsonable_python(value)


def _has_other_keys(value: object) -> bool:
    """Return whether a dict in `value` has a key that is not a str."""
    if isinstance(value, Mapping):
        return any(not isinstance(key, str) or _has_other_keys(value[key]) for key in value)
    return isinstance(value, list | tuple) and any(map(_has_other_keys, value))


def _plain(value: object) -> object:
    """Convert dates, UUIDs and similar to the values that qdrant_client sends."""
    try:
        return to_jsonable_python(value)
    except PydanticSerializationError as error:
        raise TypeError(str(error)) from error


def _uuid5(namespace: uuid.UUID, name: bytes) -> str:
    """Return ``uuid.uuid5(namespace, name)``, which accepts bytes only since Python 3.12."""
    digest = hashlib.sha1(namespace.bytes + name, usedforsecurity=False).digest()
    return str(uuid.UUID(bytes=digest[:16], version=5))
