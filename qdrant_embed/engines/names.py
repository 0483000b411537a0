"""Names of collections, vectors and payload fields, by the rules of a server, on every engine.

A server makes folders of these names, and refuses what some file system could not have. Local
databases refuse the same, but at different times; checked here, a bad name is one error everywhere,
before a model is loaded or anything is stored.
"""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache

from qdrant_embed.errors import InputError, check_str, check_unicode

_CONTROL = "".join(map(chr, (*range(32), 127)))  # which some versions of httpx put into no URL
_NOWHERE = f'<>:"/\\|?*{_CONTROL}'  # in no new name
_NEVER = f"/{_CONTROL}"  # not even in names from before Qdrant 1.5
_FOLDERS = (".", "..")  # which every file system has
_LONGEST = 255  # characters of a collection's name
_LONGEST_VECTOR = 200  # bytes of a vector's
_PART = r'(?:"[^"]+"|[\w-]+)(?:\[\d*\])*'
_FIELD = re.compile(rf"{_PART}(?:\.{_PART})*")
HOW_FIELDS_ARE_NAMED = (
    "use letters, digits, _ and -, or put the name in double quotes ('\"page number\"'); separate "
    "nested names with dots, and append [] to a name for any item of its list"
)


def check_collection_name(name: str, option: str = "collection_name") -> None:
    """Raise `InputError` unless a collection can have this name, or have had it since long ago.

    Qdrant before 1.5 accepted more characters in names, and collections from then stay usable.
    """
    check_str(option, name)
    _check_name(name, option, _NEVER)


def check_new_collection_name(name: str, option: str = "collection_name") -> None:
    """Raise `InputError` unless a new collection can have this name."""
    check_str(option, name)
    _check_name(name, option, _NOWHERE)


def check_vector_name(name: str, option: str = "vector_name") -> None:
    """Raise `InputError` unless a new vector can have this name; ``""`` is the unnamed one."""
    check_str(option, name)
    check_unicode(f"{option} {name!r:.80}", name)
    _check_characters(name, option, _NOWHERE)
    if len(name.encode()) > _LONGEST_VECTOR:
        raise InputError(
            f"{option} {name!r:.80} has {len(name.encode())} bytes: a vector's name has "
            f"{_LONGEST_VECTOR} at most"
        )


def is_field(name: str) -> bool:
    """Return whether `name` is a path of payload fields as Qdrant reads it."""
    return _FIELD.fullmatch(name) is not None


def as_vector_name(name: str) -> str:
    """Return `name` with what a vector's name cannot have replaced.

    Each character that Qdrant refuses becomes ``-``, and so do the dots of a name that is nothing
    but one or two of them. A name of more than 200 bytes is cut, and ends in ``-`` and the first 8
    digits of the SHA-256 of the complete name.
    """
    encoded = name.encode("utf-8", "replace")
    allowed = encoded.decode().translate(dict.fromkeys(map(ord, _NOWHERE), "-"))
    if allowed in _FOLDERS:
        return "-" * len(allowed)
    if len(encoded) <= _LONGEST_VECTOR:
        return allowed
    end = f"-{hashlib.sha256(encoded).hexdigest()[:8]}"
    return allowed.encode()[: _LONGEST_VECTOR - len(end)].decode("utf-8", "ignore") + end


@lru_cache  # it is asked before each query
def _check_name(name: str, option: str, refused: str) -> None:
    if not name:
        raise InputError(f"{option} is empty: name a collection")
    check_unicode(f"{option} {name!r:.80}", name)
    _check_characters(name, option, refused)
    if len(name) > _LONGEST:
        raise InputError(
            f"{option} {name!r:.80} has {len(name)} characters: a name has {_LONGEST} at most"
        )


def _check_characters(name: str, option: str, refused: str) -> None:
    if name in _FOLDERS:
        raise InputError(f"{option} cannot be {name!r}, which names a folder")
    found = next((character for character in name if character in refused), None)
    if found is not None:
        raise InputError(f"{option} {name!r:.80} cannot contain {found!r}: Qdrant refuses it")
