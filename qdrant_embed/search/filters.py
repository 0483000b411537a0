"""Filters as plain dicts: ``{"source": "docs", "year": {"gte": 2020}}``.

The conditions of all keys must match. A key with dots refers to nested metadata, as in Qdrant:
``"author.name"``, or ``"parts[].name"`` for any item of a list. Put a name with other characters
than letters, digits, ``_`` and ``-`` in double quotes: ``'"page number"'``.

===========================  ===================================================================
``"docs"``, ``True``         equals the value; a list in the metadata matches if one item does
``7``, ``2.5``               equals the number; 7 and 7.0 are equal, and so are a float and its two
                             neighbours, because a server rounds what it stores
``datetime``, ``date``       equals the moment (stored as ISO 8601)
``["docs", "wiki"]``         equals one of these str, or one of these numbers, as
                             ``{"any": ["docs", "wiki"]}`` does
``None``                     is stored as null
``{"gte": 2020}``            ``gt``, ``gte``, ``lt``, ``lte``, alone or combined, with numbers, or
                             with ``datetime``, ``date`` and ISO 8601 text (``"2024-02-01"``,
                             ``"2024-02-01T12:30:00+01:00"``); a day is its first moment, and UTC
                             is assumed where no offset is set
``{"all": ["a", "b"]}``      a list in the metadata contains all these values
``{"text": "bees dance"}``   text contains all these words, in any order and case; a text index on a
                             server decides by its own tokenizer what a word is
``{"not": ...}``             does not match the inner condition, or the key is missing
``{"exists": True}``         exists and is neither null nor an empty list; ``False``: the opposite
``"or": [{...}, {...}]``     in place of a key: at least one of these filters matches
``"and": [{...}, {...}]``    in place of a key: all these filters match
``"not": {...}``             in place of a key: the filter does not match
===========================  ===================================================================

Put metadata named ``or``, ``and`` or ``not`` in double quotes: ``'"or"'``.

On a server, an index makes a filter fast, and strict mode, as in Qdrant Cloud, refuses filters on a
field without an index: ``client.create_payload_index("notes", "year", "integer")``. Numbers are
compared as ranges, which an integer index and a float index both serve. Only a whole number above
2**53 needs an integer index, and it equals whole numbers only. Use a float index for fractions: an
integer index does not contain them, so that no filter on the field finds them. A list that contains
a null ``is stored as null`` in local databases and in an indexed field, but not in a field without
an index.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Mapping
from datetime import date, datetime, timezone
from numbers import Integral, Real
from typing import Any

import numpy as np
from qdrant_client import models

from qdrant_embed.errors import InputError

_BOUNDS = ("gt", "gte", "lt", "lte")
_OPERATORS = (*_BOUNDS, "not", "exists", "any", "all", "text")
_GROUPS = ("or", "and", "not")
_OPERATOR_LIST = ", ".join(_OPERATORS)
_HINTS = {  # operators of other databases
    "in": "pass a list, or {'any': [...]}",
    "nin": "write {'not': [...]}",
    "eq": "pass the value alone",
    "ne": "write {'not': value}",
    "contains": "pass the value alone for an item of a list, or {'text': 'words'} for words",
    "like": "write {'text': 'words'}",
    "or": "write {'or': [{...}, {...}]} in place of a key",
    "and": "write {'and': [{...}, {...}]} in place of a key",
}
_EXACT = 2**53  # up to here, every whole number is a float
_END = 2**63  # Qdrant's whole numbers are below
_NAME = r'(?:"[^"]+"|[\w-]+)(?:\[\d*\])*'  # in the syntax of Qdrant's paths
_PATH = re.compile(rf"{_NAME}(?:\.{_NAME})*")
_ISO = re.compile(
    r"(\d{4}-\d\d-\d\d)"
    r"(?:[T ](\d\d:\d\d)(:\d\d)?(?:\.(\d{1,9}))? ?(?:([Zz])|([+-]\d\d):?(\d\d)?)?)?",
    re.ASCII,
)


def combined(
    query_filter: models.Filter | None, where: Mapping[str, Any] | None
) -> models.Filter | None:
    """Return the filter that matches what both filters match; ``None`` for no filter.

    Raises:
        InputError: if `where` has an invalid key or value, or `query_filter` is not a filter.
    """
    if not isinstance(query_filter, models.Filter | None):
        raise InputError(
            f"query_filter must be a qdrant_client.models.Filter, not {query_filter!r:.80}; "
            "pass a plain dict as where"
        )
    if where is None:
        return query_filter
    converted = to_filter(where)
    return converted if query_filter is None else models.Filter(must=[query_filter, converted])


def to_filter(where: Mapping[str, Any]) -> models.Filter:
    """Return the Qdrant filter for `where`, whose syntax the module's docstring describes.

    Raises:
        InputError: if a key, an operator or a value is invalid.
    """
    if not isinstance(where, Mapping):
        raise InputError(f"where must be a dict, not {type(where).__name__}")
    conditions: list[models.Condition] = []
    for key, condition in where.items():
        if isinstance(key, str) and key in _GROUPS:
            conditions.append(_group(key, condition))
            continue
        if isinstance(key, str) and key.removeprefix("$") in _GROUPS:
            raise InputError(f"where has the key {key!r}; write it {key[1:]!r}")
        if not isinstance(key, str) or not key:
            raise InputError(f"where has the key {key!r}, but keys must be names of metadata")
        if not _PATH.fullmatch(key):
            raise InputError(
                f"where has the key {key!r:.80}, which is not a valid name in Qdrant; use letters, "
                "digits, _ and -, or put the name in double quotes ('\"page number\"'); separate "
                "nested names with dots, and append [] to a name for any item of its list"
            )
        conditions.extend(_conditions(key, condition))
    return models.Filter(must=conditions)


def _group(name: str, operand: object) -> models.Filter:
    """Return the filter of an ``or``, an ``and`` or a ``not``; empty ones differ between stores."""
    parts = [operand] if name == "not" else operand
    if not isinstance(parts, list | tuple) or not parts or not all(map(_is_filter, parts)):
        what = "a dict" if name == "not" else "a list of dicts"
        raise InputError(
            f"where[{name!r}] must be {what} with conditions, not {operand!r:.80}; put metadata of "
            f"this name in double quotes: '\"{name}\"'"
        )
    filters: list[models.Condition] = [to_filter(part) for part in parts]
    if name == "or":
        return models.Filter(should=filters)
    return models.Filter(must=filters) if name == "and" else models.Filter(must_not=filters)


def _is_filter(part: object) -> bool:
    return isinstance(part, Mapping) and bool(part)


def _conditions(key: str, condition: object) -> list[models.Condition]:
    if not isinstance(condition, Mapping):
        return [_equals(key, condition)]
    if not condition:
        raise InputError(f"where[{key!r}] is empty; pass a value, or one of {_OPERATOR_LIST}")
    conditions: list[models.Condition] = []
    for operator, operand in condition.items():
        if operator not in _OPERATORS:
            without_dollar = str(operator).removeprefix("$")
            hint = (
                f"write it {without_dollar!r}"
                if without_dollar in _OPERATORS
                else _HINTS.get(without_dollar)
                or f"use one of {_OPERATOR_LIST}, or write a key of nested metadata with a dot: "
                f"'{key}.{operator}'"
            )
            raise InputError(f"where[{key!r}] has the unknown operator {operator!r}; {hint}")
        if operator == "not":
            inner = _conditions(key, operand)  # must_not is fulfilled if none of its items matches
            one = inner[0] if len(inner) == 1 else models.Filter(must=inner)
            conditions.append(models.Filter(must_not=[one]))
        elif operator == "exists":
            conditions.append(_exists(key, operand))
        elif operator == "text":
            conditions.append(_text(key, operand))
        elif operator in ("any", "all"):
            if not isinstance(operand, list | tuple | set | frozenset):
                raise InputError(f"where[{key!r}]: {operator} must be a list, not {operand!r:.80}")
            each = _any_of(key, list(operand))  # which checks the values, too
            conditions.extend([each] if operator == "any" else [_equals(key, v) for v in operand])
    bounds = {name: condition[name] for name in _BOUNDS if name in condition}
    if bounds:
        conditions.append(_range(key, bounds))
    return conditions


def _equals(key: str, value: object) -> models.Condition:
    if value is None:
        return models.IsNullCondition(is_null=models.PayloadField(key=key))
    if isinstance(value, list | tuple | set | frozenset):
        return _any_of(key, list(value))
    if isinstance(value, str | bool | np.bool_):
        plain = value if isinstance(value, str) else bool(value)
        return models.FieldCondition(key=key, match=models.MatchValue(value=plain))
    number = _number(value)
    return (
        _range(key, {"gte": value, "lte": value}) if number is None else _equals_number(key, number)
    )


def _equals_number(key: str, number: int | float) -> models.FieldCondition:
    """Return the condition that a number equals another, for integer and float indexes."""
    if isinstance(number, int) and _EXACT < abs(number) < _END:  # a range would be of floats
        return models.FieldCondition(key=key, match=models.MatchValue(value=number))
    return _range(key, {"gte": number, "lte": number})


def _any_of(key: str, values: list[Any]) -> models.Condition:
    if not values:
        raise InputError(f"where[{key!r}] is an empty list, which matches nothing; pass a value")
    if all(isinstance(value, str) for value in values):
        return models.FieldCondition(key=key, match=models.MatchAny(any=values))
    numbers = [number for value in values if (number := _number(value)) is not None]
    if len(numbers) < len(values):
        raise InputError(f"where[{key!r}] must be a list of str, or of numbers, not {values!r:.80}")
    return models.Filter(should=[_equals_number(key, number) for number in numbers])


def _exists(key: str, operand: object) -> models.Condition:
    if not isinstance(operand, bool):
        raise InputError(f"where[{key!r}]: exists must be True or False, not {operand!r:.80}")
    empty = models.IsEmptyCondition(is_empty=models.PayloadField(key=key))
    return models.Filter(must_not=[empty]) if operand else empty


def _text(key: str, operand: object) -> models.FieldCondition:
    if not isinstance(operand, str) or not re.search(r"[^\W_]", operand):
        raise InputError(f"where[{key!r}]: text must be a str with words, not {operand!r:.80}")
    return models.FieldCondition(key=key, match=models.MatchText(text=operand))


def _range(key: str, bounds: Mapping[str, Any]) -> models.FieldCondition:
    numbers = {name: _number(value) for name, value in bounds.items()}
    exact = {name: number for name, number in numbers.items() if number is not None}
    if len(exact) == len(bounds):
        edges = {name: _edge(name, number) for name, number in exact.items()}
        return models.FieldCondition(key=key, range=models.Range(**edges))
    moments = {name: _moment(value) for name, value in bounds.items()}
    if None not in moments.values():
        return models.FieldCondition(key=key, range=models.DatetimeRange(**moments))
    raise InputError(
        f"where[{key!r}] is {dict(bounds)!r:.80}, which is not supported; use a str, a bool, a "
        "finite number, a datetime or date, None, a list of str or of numbers, or one of the "
        f"operators {_OPERATOR_LIST}; bounds are all numbers, or all dates (ISO 8601 as text)"
    )


def _edge(bound: str, number: int | float) -> float:
    """Return a bound that treats a float and its neighbours as equal.

    A server reads a float from JSON up to one unit in the last place off, and one sent over gRPC as
    it is. Whole numbers are read exactly up to 2**53.
    """
    edge = float(number)
    if edge.is_integer() and abs(edge) <= _EXACT:
        return edge
    neighbour = math.nextafter(edge, -math.inf if bound in ("gte", "lt") else math.inf)
    return neighbour if math.isfinite(neighbour) else edge


def _number(value: object) -> int | float | None:
    """Return a finite number, numpy's too, as Python has it; ``None`` for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, Integral):
        whole = int(value)
        return whole if abs(whole) <= sys.float_info.max else None
    if isinstance(value, Real):
        number = float(value)
        return number if math.isfinite(number) else None
    return None


def _moment(value: object) -> datetime | None:
    """Return a date, or ISO 8601 text, as a moment in UTC; ``None`` for anything else."""
    try:
        if isinstance(value, str):
            value = _parsed(value)
        elif isinstance(value, date) and not isinstance(value, datetime):
            value = datetime(value.year, value.month, value.day)
        if not isinstance(value, datetime):
            return None
        if value.tzinfo is None:
            return value.replace(tzinfo=timezone.utc)
        return value.astimezone(timezone.utc)
    except (ValueError, OverflowError):  # no such day, or beyond the years 1 to 9999 in UTC
        return None


def _parsed(text: str) -> datetime | None:
    """Return the moment that ISO 8601 text is, in all forms Qdrant reads, on every Python."""
    found = _ISO.fullmatch(text)
    if found is None:
        return None
    day, minute, second, fraction, utc, hours, minutes = found.groups()
    if fraction and not second:
        return None
    offset = "+00:00" if utc else f"{hours}:{minutes or '00'}" if hours else ""
    micro = f".{fraction[:6]:0<6}" if fraction else ""
    return datetime.fromisoformat(f"{day}T{minute or '00:00'}{second or ':00'}{micro}{offset}")
