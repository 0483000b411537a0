"""Filters as people write them: ``{"source": "docs", "year": {"gte": 2020}}``.

Every key must fit. A key with dots leads into nested metadata, as Qdrant has it: ``"author.name"``,
or ``"parts[].name"`` for any item of a list. A name with other characters than letters, digits,
``_`` and ``-`` stands in double quotes: ``'"page number"'``.

=========================  =====================================================================
``"docs"``, ``True``         is that value; a list in the metadata fits if one item does
``7``, ``2.5``               is that number: 7 and 7.0 are equal, and so are a float and its two
                           neighbours, because a server rounds what it stores
``datetime``, ``date``       is that moment (stored as ISO 8601)
``["docs", "wiki"]``       is any of these str, or of these numbers; a list of whole numbers alone
                           finds those stored as such, ``[7.0]`` finds 7 and 7.0
``None``                   is stored as null
``{"gte": 2020}``          ``gt``, ``gte``, ``lt``, ``lte``, together at will: of numbers, or of
                           ``datetime`` and ``date``
``{"not": ...}``           is none of what stands there; also true where the key is missing
``{"exists": True}``       is there and neither null nor an empty list; ``False``: the contrary
=========================  =====================================================================

On a server, indexes make filters fast, and strict mode (as in Qdrant Cloud) refuses those without:
``client.create_payload_index("notes", "year", "integer")``. Numbers are compared as ranges, so that
an integer index and a float index both serve; only a list of whole numbers needs an integer index.
Give a key with fractions a float index: an integer index leaves fractions out, so that no filter on
its key finds them. Whether a list with a null in it ``is stored as null`` depends on the store: it
is in local databases and with an index of its key.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Mapping
from datetime import date, datetime
from numbers import Integral, Real
from typing import Any

import numpy as np
from qdrant_client import models

from qdrant_embed.errors import InputError

_BOUNDS = ("gt", "gte", "lt", "lte")
_OPERATORS = (*_BOUNDS, "not", "exists")
_EXACT = 2**53  # the largest whole number up to which floats have every one
_END = 2**63  # whole numbers that Qdrant has are below
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
        return _any_of(key, list(value))
    if isinstance(value, str | bool | np.bool_):
        plain = value if isinstance(value, str) else bool(value)
        return models.FieldCondition(key=key, match=models.MatchValue(value=plain))
    number = _number(value)
    return _range(key, {"gte": value, "lte": value}) if number is None else _equals(key, number)


def _equals(key: str, number: int | float) -> models.FieldCondition:
    """Return the condition that a number is equal, as integer and float indexes both serve it."""
    if isinstance(number, int) and _EXACT < abs(number) < _END:  # a range would be of floats
        return models.FieldCondition(key=key, match=models.MatchValue(value=number))
    return _range(key, {"gte": number, "lte": number})


def _any_of(key: str, values: list[Any]) -> models.Condition:
    if not values:
        raise InputError(f"where[{key!r}] is an empty list: nothing could fit")
    if all(isinstance(value, str) for value in values):
        return models.FieldCondition(key=key, match=models.MatchAny(any=values))
    numbers = [number for value in values if (number := _number(value)) is not None]
    if len(numbers) < len(values):
        raise InputError(f"where[{key!r}] must be a list of str, or of numbers, not {values!r:.80}")
    whole = [number for number in numbers if isinstance(number, int) and abs(number) < _END]
    if len(whole) == len(numbers):
        return models.FieldCondition(key=key, match=models.MatchAny(any=whole))
    return models.Filter(should=[_equals(key, number) for number in numbers])


def _exists(key: str, wanted: object) -> models.Condition:
    if not isinstance(wanted, bool):
        raise InputError(f"where[{key!r}]: exists is True or False, not {wanted!r:.80}")
    empty = models.IsEmptyCondition(is_empty=models.PayloadField(key=key))
    return models.Filter(must_not=[empty]) if wanted else empty


def _range(key: str, bounds: Mapping[str, Any]) -> models.FieldCondition:
    numbers = {name: _number(value) for name, value in bounds.items()}
    exact = {name: number for name, number in numbers.items() if number is not None}
    if len(exact) == len(bounds):
        edges = {name: _edge(name, number) for name, number in exact.items()}
        return models.FieldCondition(key=key, range=models.Range(**edges))
    if all(isinstance(value, date) for value in bounds.values()):  # every datetime is a date, too
        moments = {name: _moment(value) for name, value in bounds.items()}
        return models.FieldCondition(key=key, range=models.DatetimeRange(**moments))
    raise InputError(
        f"where[{key!r}] is {dict(bounds)!r:.80}: there are str, whole numbers, bool, None, "
        "lists of str or of numbers, finite numbers, datetime and date, and the operators "
        f"{_listed()}"
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


def _moment(value: date) -> datetime:
    return value if isinstance(value, datetime) else datetime(value.year, value.month, value.day)


def _listed() -> str:
    return ", ".join(_OPERATORS)
