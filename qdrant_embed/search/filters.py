"""Filters as people write them: ``{"source": "docs", "year": {"gte": 2020}}``.

Every key must fit. A key with dots leads into nested metadata, as Qdrant has it: ``"author.name"``,
or ``"parts[].name"`` for any item of a list. A name with other characters than letters, digits,
``_`` and ``-`` stands in double quotes: ``'"page number"'``.

=========================  =====================================================================
``"docs"``, ``7``, ``True``  is that value; a list in the metadata fits if one item does
``2.5``, a ``datetime``      is that number, that moment
``["docs", "wiki"]``       is any of these str, or of these whole numbers
``None``                   is stored as null
``{"gte": 2020}``          ``gt``, ``gte``, ``lt``, ``lte``, together at will: of numbers, or of
                           ``datetime`` and ``date`` (stored as ISO 8601)
``{"not": ...}``           is none of what stands there; also true where the key is missing
``{"exists": True}``       is there and neither null nor an empty list; ``False``: the contrary
=========================  =====================================================================
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
_NAME = r'(?:"[^"]+"|[\w-]+)(?:\[\d*\])*'  # as Qdrant reads the path to a value
_PATH = re.compile(rf"{_NAME}(?:\.{_NAME})*")


def combined(
    query_filter: models.Filter | None, where: Mapping[str, Any] | None
) -> models.Filter | None:
    """The filter that lets through what both let through; ``None`` for everything.

    Raises:
        InputError: `where` says something that has no meaning here, or `query_filter` is none.
    """
    if not isinstance(query_filter, models.Filter | None):
        raise InputError(
            f"query_filter must be a qdrant_client.models.Filter, not {query_filter!r:.80}; "
            "where= takes plain dicts"
        )
    if where is None:
        return query_filter
    own = to_filter(where)
    return own if query_filter is None else models.Filter(must=[query_filter, own])


def to_filter(where: Mapping[str, Any]) -> models.Filter:
    """The Qdrant filter for `where`; see the module's own text for what it may hold.

    Raises:
        InputError: an operator or a value that is not in the table.
    """
    if not isinstance(where, Mapping):
        raise InputError(f"where must be a dict, not {type(where).__name__}")
    conditions: list[models.Condition] = []
    for key, wanted in where.items():
        if not isinstance(key, str) or not key:
            raise InputError(f"where has the key {key!r}: keys are names of metadata")
        if not _PATH.fullmatch(key):
            raise InputError(
                f"where has the key {key!r:.80}, which is no name as Qdrant reads it: a name is "
                "letters, digits, _ and -, or anything in double quotes ('\"page number\"'); dots "
                "lead into nested metadata, and [] behind a name means any item of its list"
            )
        conditions.extend(_conditions(key, wanted))
    return models.Filter(must=conditions)


def _conditions(key: str, wanted: object) -> list[models.Condition]:
    if not isinstance(wanted, Mapping):
        return [_is(key, wanted)]
    if not wanted:
        raise InputError(f"where[{key!r}] is empty: give a value, or one of {_listed()}")
    conditions: list[models.Condition] = []
    for operator, operand in wanted.items():
        if operator not in _OPERATORS:
            undollared = str(operator).removeprefix("$")
            hint = (
                f"write it {undollared!r}"
                if undollared in _OPERATORS
                else f"there are {_listed()}. A key inside nested metadata is written with a dot: "
                f"'{key}.{operator}'"
            )
            raise InputError(f"where[{key!r}] has the operator {operator!r}; {hint}")
        if operator == "not":
            conditions.append(models.Filter(must_not=_conditions(key, operand)))
        elif operator == "exists":
            conditions.append(_exists(key, operand))
    bounds = {name: wanted[name] for name in _BOUNDS if name in wanted}
    if bounds:
        conditions.append(_range(key, bounds))
    return conditions


def _is(key: str, value: object) -> models.Condition:
    if value is None:
        return models.IsNullCondition(is_null=models.PayloadField(key=key))
    if isinstance(value, list | tuple | set | frozenset):
        return models.FieldCondition(key=key, match=_any_of(key, list(value)))
    if isinstance(value, str | bool | int):
        return models.FieldCondition(key=key, match=models.MatchValue(value=value))
    return _range(key, {"gte": value, "lte": value})


def _any_of(key: str, values: list[Any]) -> models.MatchAny:
    if not values:
        raise InputError(f"where[{key!r}] is an empty list: nothing could fit")
    of_texts = all(isinstance(value, str) for value in values)
    of_numbers = all(isinstance(value, int) and not isinstance(value, bool) for value in values)
    if not (of_texts or of_numbers):
        raise InputError(
            f"where[{key!r}] must be a list of str, or of whole numbers, not {values!r:.80}"
        )
    return models.MatchAny(any=values)


def _exists(key: str, wanted: object) -> models.Condition:
    if not isinstance(wanted, bool):
        raise InputError(f"where[{key!r}]: exists is True or False, not {wanted!r:.80}")
    empty = models.IsEmptyCondition(is_empty=models.PayloadField(key=key))
    return models.Filter(must_not=[empty]) if wanted else empty


def _range(key: str, bounds: Mapping[str, Any]) -> models.FieldCondition:
    values = bounds.values()
    if all(_is_number(value) for value in values):
        return models.FieldCondition(key=key, range=models.Range(**bounds))
    if all(isinstance(value, date) for value in values):  # every datetime is a date, too
        moments = {name: _moment(value) for name, value in bounds.items()}
        return models.FieldCondition(key=key, range=models.DatetimeRange(**moments))
    raise InputError(
        f"where[{key!r}] is {dict(bounds)!r:.80}: there are str, whole numbers, bool, None, "
        "lists of str or of whole numbers, finite numbers, datetime and date, and the operators "
        f"{_listed()}"
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _moment(value: date) -> datetime:
    return value if isinstance(value, datetime) else datetime(value.year, value.month, value.day)


def _listed() -> str:
    return ", ".join(_OPERATORS)
