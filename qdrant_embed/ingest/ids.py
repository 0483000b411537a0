"""The ids of points: given, made of any string, or of what a document says."""

from __future__ import annotations

import hashlib
import json
import operator
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, SupportsIndex, TypeAlias

from pydantic_core import PydanticSerializationError, to_json, to_jsonable_python

from qdrant_embed.errors import InputError, check_unicode

ID_KEY = "qdrant_embed_id"  # where a payload keeps an id that Qdrant cannot have
CHUNK_KEY = "qdrant_embed_chunk"  # where it keeps which part of which document it is

_NAMES = uuid.UUID("0d1c4b52-5a1f-5a57-9a0e-6f7c1f6a2b11")  # drawn once; ids depend on them
_CONTENTS = uuid.UUID("b5a7a3de-1a64-5f1b-8d3c-92c6a7e0d4f3")
_CHUNKS = uuid.UUID("6f1f8e0a-7f0b-5c52-a3d4-1e9b6c2d8a75")


@dataclass(frozen=True)
class ContentIds:
    """Ids made of what a document says: its text, and its metadata under `keys`.

    ``ids=ContentIds(keys=("source",))`` keeps the same text of two sources apart, and takes
    documents that differ in other metadata alone for one; ``keys=None`` means all metadata, which
    is also what ``ids="content"`` says, and ``keys=()`` the text alone.

    Raises:
        InputError: `keys` is no sequence of str.
    """

    keys: Sequence[str] | None = None

    def __post_init__(self) -> None:
        if self.keys is None:
            return
        if isinstance(self.keys, str) or not all(isinstance(key, str) for key in self.keys):
            raise InputError(f"keys must be a list of str, not {self.keys!r}")

    def id_of(self, text: str, metadata: Mapping[str, Any]) -> str:
        """The id of a document with this `text`, a UUID of version 5.

        Args:
            text: the document's.
            metadata: likewise; the order of its keys makes no difference.

        Raises:
            TypeError: metadata that is no JSON.
            ValueError: likewise.
        """
        if self.keys is not None:
            metadata = {key: metadata[key] for key in self.keys if key in metadata}
        return _uuid5(_CONTENTS, canonical_json([text, dict(metadata)]))


IdScheme: TypeAlias = Literal["content"] | ContentIds


@dataclass(frozen=True)
class GivenId:
    """An id as Qdrant has it, and as users see it."""

    point: int | str
    shown: int | str


def given_id(given: object) -> GivenId:
    """What becomes of an id that a user gives.

    Raises:
        InputError: no whole number from 0 to 2**64-1, UUID or str, or an empty one or no valid
            Unicode.
    """
    if isinstance(given, uuid.UUID):
        return GivenId(str(given), str(given))
    if isinstance(given, str) and given:
        with suppress(ValueError):
            parsed = str(uuid.UUID(given))
            return GivenId(parsed, parsed)
        check_unicode(f"id {given!r:.60}", given)
        return GivenId(_uuid5(_NAMES, given.encode()), given)
    if isinstance(given, SupportsIndex) and not isinstance(given, bool):
        number = operator.index(given)
        if 0 <= number < 2**64:
            return GivenId(number, number)
    raise InputError(
        f"{given!r:.60} ({type(given).__name__}) is no id: whole numbers from 0 to 2**64-1, UUIDs "
        "and strings are"
    )


def point_id(given: int | str | uuid.UUID) -> int | str:
    """The id in Qdrant of a point that was added under the id `given`.

    Whole numbers and UUIDs stay what they are, a UUID written with hyphens; any other str becomes
    a UUID of version 5. Use it with methods of ``qdrant_client`` such as ``retrieve``.

    Raises:
        InputError: no whole number from 0 to 2**64-1, UUID or str, or an empty one.
    """
    return given_id(given).point


def point_ids(given: Iterable[int | str | uuid.UUID]) -> list[int | str]:
    """What `point_id` makes of each, once each.

    Raises:
        InputError: as of `point_id`; or it is a single str.
    """
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        raise InputError(f"ids must be a list of ids, not {given!r:.60} ({type(given).__name__})")
    return list(dict.fromkeys(map(point_id, given)))


def chunk_id(document: int | str, position: int) -> int | str:
    """The id in Qdrant of a document's chunk: the first has the document's own id."""
    return document if position == 0 else _uuid5(_CHUNKS, f"{document}/{position}".encode())


def canonical_json(value: object) -> bytes:
    """The one JSON that equal values have, whatever the order of their keys.

    Raises:
        TypeError: a value that is no JSON.
        ValueError: likewise.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=_plain)
    return text.encode("ascii")


def is_json(value: Mapping[str, Any]) -> bool:
    """Whether qdrant_client can send `value`, and a server has all of it afterwards.

    Dates, UUIDs, enums and the like become str or numbers; NaN and infinity would become null.
    What can be read but once would be empty when it is sent, and keys are str.
    """
    if any(isinstance(item, Iterator) for item in value.values()):
        return False
    try:
        if _has_other_keys(value):
            return False
        sent = to_json(value)
    except (PydanticSerializationError, ValueError, RecursionError):
        return False
    if b"NaN" not in sent and b"Infinity" not in sent:
        return True
    try:  # such a number, or a str that reads so
        json.dumps(to_jsonable_python(value), allow_nan=False)
    except ValueError:
        return False
    return True


def _has_other_keys(value: object) -> bool:
    """Whether a dict in `value` has a key that is no str."""
    if isinstance(value, Mapping):
        return any(not isinstance(key, str) or _has_other_keys(value[key]) for key in value)
    return isinstance(value, list | tuple) and any(map(_has_other_keys, value))


def _plain(value: object) -> object:
    """A date, a UUID and the like as qdrant_client sends them."""
    try:
        return to_jsonable_python(value)
    except PydanticSerializationError as error:
        raise TypeError(str(error)) from error


def _uuid5(namespace: uuid.UUID, name: bytes) -> str:
    """What ``uuid.uuid5`` gives, which takes bytes since Python 3.12 only."""
    digest = hashlib.sha1(namespace.bytes + name, usedforsecurity=False).digest()
    return str(uuid.UUID(bytes=digest[:16], version=5))
