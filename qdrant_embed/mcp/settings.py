"""Settings of the memory, from the environment variables of mcp-server-qdrant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from qdrant_embed.errors import InputError

NEW_MODEL = "sentence-transformers/all-MiniLM-L6-v2"  # as there, so that both read what is new
MOST_HITS = 100
_HITS = 10
_STORE = (
    "Keep a text for later, such as a fact, a decision or a piece of code that may be needed again."
)
_FIND = "Find stored texts by their meaning. Use it before you say that something is not known."
_ON, _OFF = ("1", "true", "yes", "on"), ("", "0", "false", "no", "off")


@dataclass(frozen=True)
class Settings:
    """What the memory is, and what agents may do with it.

    Attributes:
        url: URL of a Qdrant server, if it is there.
        path: folder of a database, if it is there.
        collection: the one collection that agents use; ``None`` if they name collections.
        model: model of collections that are created.
        limit: number of texts found at most, if an agent asks for no number.
        read_only: whether nothing can be stored.
        store_description: what agents are told of storing.
        find_description: what agents are told of finding.
    """

    url: str | None = None
    path: str | None = None
    collection: str | None = None
    model: str = NEW_MODEL
    limit: int = _HITS
    read_only: bool = False
    store_description: str = _STORE
    find_description: str = _FIND


def read_settings(environment: Mapping[str, str]) -> Settings:
    """Return the settings in environment variables; an empty one is as good as none.

    Raises:
        InputError: if one cannot be used, or two contradict each other.
    """
    found = {name: value.strip() for name, value in environment.items() if value.strip()}
    url, path = found.get("QDRANT_URL"), found.get("QDRANT_LOCAL_PATH")
    if url is not None and path is not None:
        raise InputError("QDRANT_URL and QDRANT_LOCAL_PATH are both set; set the one that is meant")
    provider = found.get("EMBEDDING_PROVIDER", "fastembed")
    if provider != "fastembed":
        raise InputError(f"EMBEDDING_PROVIDER must be fastembed, not {provider!r:.80}")
    return Settings(
        url=url,
        path=path,
        collection=found.get("COLLECTION_NAME"),
        model=found.get("EMBEDDING_MODEL", NEW_MODEL),
        limit=_number(found, "QDRANT_SEARCH_LIMIT", _HITS),
        read_only=_is_on(found, "QDRANT_READ_ONLY"),
        store_description=found.get("TOOL_STORE_DESCRIPTION", _STORE),
        find_description=found.get("TOOL_FIND_DESCRIPTION", _FIND),
    )


def _number(found: Mapping[str, str], name: str, default: int) -> int:
    value = found.get(name)
    if value is None:
        return default
    if not value.isascii() or not value.isdecimal() or not 1 <= int(value[:9]) <= MOST_HITS:
        raise InputError(f"{name} must be a number from 1 to {MOST_HITS}, not {value!r:.80}")
    return int(value)


def _is_on(found: Mapping[str, str], name: str) -> bool:
    value = found.get(name, "").lower()
    if value not in (*_ON, *_OFF):
        raise InputError(f"{name} must be true or false, not {value!r:.80}")
    return value in _ON
