"""The fields of documents' metadata, and what their values are, judging by some documents."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from qdrant_embed.engines.names import is_field
from qdrant_embed.search.filters import GROUPS, iso_date

FieldKind: TypeAlias = Literal["bool", "number", "date", "choice", "text"]

_MOST_FIELDS = 40
_MOST_VALUES = 30  # of a choice
_LONGEST_VALUE = 80  # characters
_DEEPEST = 4  # levels of metadata
_PLAIN = re.compile(r"[\w-]+", re.ASCII)


@dataclass(frozen=True)
class PayloadField:
    """A field that documents can be filtered by.

    Attributes:
        path: its name in a filter.
        kind: what its values are.
        values: the values of a choice that were seen.
    """

    path: str
    kind: FieldKind
    values: Sequence[str] = ()


def fields_of(documents: Sequence[Mapping[str, Any]]) -> list[PayloadField]:
    """Return the fields of some documents' metadata in the order in which they are met.

    A field with values of different kinds is left out, and so is one whose name no filter can have.
    """
    seen: dict[str, list[Any]] = {}
    for metadata in documents:
        for path, value in _values(metadata, "", _DEEPEST):
            if path in seen or len(seen) < _MOST_FIELDS:
                seen.setdefault(path, []).append(value)
    found = (_field(path, values) for path, values in seen.items())
    return [field for field in found if field is not None]


def _values(metadata: Mapping[str, Any], before: str, left: int) -> Iterator[tuple[str, Any]]:
    for name, value in metadata.items():
        is_plain = _PLAIN.fullmatch(name) and name not in GROUPS
        path = f"{before}{name}" if is_plain else f'{before}"{name}"'
        if not is_field(path):
            continue
        if isinstance(value, Mapping):
            if left > 1:
                yield from _values(value, f"{path}.", left - 1)
            continue
        items: Iterable[Any] = value if isinstance(value, list) else [value]
        for item in items:
            if isinstance(item, str | int | float):
                yield path, item


def _field(path: str, values: Sequence[Any]) -> PayloadField | None:
    if all(isinstance(value, bool) for value in values):
        return PayloadField(path, "bool")
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return PayloadField(path, "number")
    if not all(isinstance(value, str) for value in values):
        return None
    if all(map(_is_date, values)):
        return PayloadField(path, "date")
    distinct = sorted(set(values))
    # a few texts, of which at least one occurs again
    recurs = len(distinct) < len(values) or len(distinct) == 1
    if recurs and len(distinct) <= _MOST_VALUES and max(map(len, distinct)) <= _LONGEST_VALUE:
        return PayloadField(path, "choice", distinct)
    return PayloadField(path, "text")


def _is_date(text: str) -> bool:
    try:
        iso_date(text)
    except ValueError:
        return False
    return True
