"""Filters that compare numbers with text, which never match: ``2020`` and ``"2020"``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from qdrant_embed.cli.records import looks_like_number

_NAME = re.compile(r'"([^"]+)"|([\w-]+)(?=[\[.]|$)')


def mismatches(where: Mapping[str, Any], payloads: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a sentence for each key that is compared with a number but is text, or vice versa.

    Args:
        where: the filter.
        payloads: some of the payloads that it is about.
    """
    found: dict[str, str] = {}
    for key, value in _comparisons(where, ""):
        stored = (value for payload in payloads for value in _values(payload, _names(key)))
        other = next((one for one in stored if _is_mismatch(value, one)), None)
        if other is None:
            continue
        compared, kind = ("number", "text") if isinstance(other, str) else ("text", "a number")
        example = "int" if isinstance(other, int) or "." not in str(other) else "float"
        way_out = (
            f"or store it as a number, with --metadata-field {key}:{example}"
            if isinstance(other, str)
            else "which has no quotes in JSON"
        )
        found[key] = (
            f"--where compares {key!r} with the {compared} {value!r}, but {other!r} is stored as "
            f"{kind}, which never matches: compare it with {kind}, {way_out}"
        )
    return list(found.values())


def _comparisons(where: object, key: str) -> Iterator[tuple[str, Any]]:
    """Yield each key with each value that it is compared with."""
    from qdrant_embed.search.filters import GROUPS, OPERATORS

    if isinstance(where, Mapping):
        for name, inner in where.items():
            names_metadata = name not in OPERATORS and name not in GROUPS
            yield from _comparisons(inner, name if names_metadata else key)
    elif isinstance(where, list):
        for inner in where:
            yield from _comparisons(inner, key)
    elif key:
        yield key, where


def _names(key: str) -> list[str]:
    """Return the names in a path like ``parts[].name``."""
    return [quoted or plain for quoted, plain in _NAME.findall(key)]


def _values(payload: object, names: Sequence[str]) -> Iterator[Any]:
    """Yield the values at a path, of lists those of all items."""
    if isinstance(payload, list):
        for item in payload:
            yield from _values(item, names)
    elif not names:
        yield payload
    elif isinstance(payload, Mapping) and names[0] in payload:
        yield from _values(payload[names[0]], names[1:])


def _is_mismatch(compared: object, stored: object) -> bool:
    """Return whether one is a number, and the other is text that looks like one."""
    for number, text in ((compared, stored), (stored, compared)):
        if isinstance(number, int | float) and not isinstance(number, bool):
            return isinstance(text, str) and looks_like_number(text)
    return False
