"""Filters as plain dicts: ``{"source": "docs", "year": {"gte": 2020}}``.

The conditions of all keys must match. A key with dots refers to nested metadata, as in Qdrant:
``"author.name"``, or ``"parts[].name"`` for any item of a list. Put a name with other characters
than letters, digits, ``_`` and ``-`` in double quotes: ``'"page number"'``.

===========================  ===================================================================
``"docs"``, ``7``, ``True``  equals the value; a list in the metadata matches if one item does
``2.5``, a ``datetime``      equals the number or the moment
``["docs", "wiki"]``         equals one of these str, or one of these whole numbers
``None``                     is stored as null
``{"gte": 2020}``            ``gt``, ``gte``, ``lt``, ``lte``, alone or combined, with numbers, or
                             with ``datetime`` and ``date`` (stored as ISO 8601)
``{"not": ...}``             does not match the inner condition, or the key is missing
``{"exists": True}``         exists and is neither null nor an empty list; ``False``: the opposite
===========================  ===================================================================
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import date, datetime
from typing import Any

from qdrant_client import models

from qdrant_embed.errors import InputError

_BOUNDS = ("gt", "gte", "lt", "lte")
_OPERATORS = (*_BOUNDS, "not", "exists")
_OPERATOR_LIST = ", ".join(_OPERATORS)
_NAME = r'(?:"[^"]+"|[\w-]+)(?:\[\d*\])*'  # in the syntax of Qdrant's paths
_PATH = re.compile(rf"{_NAME}(?:\.{_NAME})*")


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
                else f"use one of {_OPERATOR_LIST}, or write a key of nested metadata with a dot: "
                f"'{key}.{operator}'"
            )
            raise InputError(f"where[{key!r}] has the unknown operator {operator!r}; {hint}")
        if operator == "not":
            conditions.append(models.Filter(must_not=_conditions(key, operand)))
        elif operator == "exists":
            conditions.append(_exists(key, operand))
    bounds = {name: condition[name] for name in _BOUNDS if name in condition}
    if bounds:
        conditions.append(_range(key, bounds))
    return conditions


def _equals(key: str, value: object) -> models.Condition:
    if value is None:
        return models.IsNullCondition(is_null=models.PayloadField(key=key))
    if isinstance(value, list | tuple | set | frozenset):
        return models.FieldCondition(key=key, match=_any_of(key, list(value)))
    if isinstance(value, str | bool | int):
        return models.FieldCondition(key=key, match=models.MatchValue(value=value))
    return _range(key, {"gte": value, "lte": value})


def _any_of(key: str, values: list[Any]) -> models.MatchAny:
    if not values:
        raise InputError(f"where[{key!r}] is an empty list, which matches nothing; pass a value")
    all_str = all(isinstance(value, str) for value in values)
    all_int = all(isinstance(value, int) and not isinstance(value, bool) for value in values)
    if not (all_str or all_int):
        raise InputError(
            f"where[{key!r}] must be a list of str, or of whole numbers, not {values!r:.80}"
        )
    return models.MatchAny(any=values)


def _exists(key: str, operand: object) -> models.Condition:
    if not isinstance(operand, bool):
        raise InputError(f"where[{key!r}]: exists must be True or False, not {operand!r:.80}")
    empty = models.IsEmptyCondition(is_empty=models.PayloadField(key=key))
    return models.Filter(must_not=[empty]) if operand else empty


def _range(key: str, bounds: Mapping[str, Any]) -> models.FieldCondition:
    values = bounds.values()
    if all(_is_number(value) for value in values):
        return models.FieldCondition(key=key, range=models.Range(**bounds))
    if all(isinstance(value, date) for value in values):  # every datetime is a date, too
        moments = {name: _moment(value) for name, value in bounds.items()}
        return models.FieldCondition(key=key, range=models.DatetimeRange(**moments))
    raise InputError(
        f"where[{key!r}] is {dict(bounds)!r:.80}, which is not supported; use a str, a bool, a "
        "finite number, a datetime or date, None, a list of str or of whole numbers, or one of the "
        f"operators {_OPERATOR_LIST}"
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _moment(value: date) -> datetime:
    return value if isinstance(value, datetime) else datetime(value.year, value.month, value.day)
