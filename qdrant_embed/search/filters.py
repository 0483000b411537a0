"""Filters as plain dicts: ``{"source": "docs", "year": {"gte": 2020}}``.

The conditions of all keys must match. A key with dots refers to nested metadata, as in Qdrant:
``"author.name"``, or ``"parts[].name"`` for any item of a list. Put a name with other characters
than letters, digits, ``_`` and ``-`` in double quotes: ``'"page number"'``. A list in the metadata
matches a condition if one of its items does.

===========================  ===================================================================
``"docs"``, ``True``         equals the value
``7``, ``2.5``               equals the number; 7 and 7.0 are equal, and so are a float and its two
                             neighbours, because a server rounds what it stores
``datetime``, ``date``       equals the moment (stored as ISO 8601); numpy's too
``["docs", "wiki"]``         equals one of these str, of these numbers or of these dates
``None``                     is stored as null
``{"gte": 2020}``            ``gt``, ``gte``, ``lt``, ``lte``, alone or combined, with numbers, or
                             with dates: ``datetime``, ``date``, or ISO text like ``"2024-02-01"``
                             or ``"2024-02-01T09:30:00+01:00"``
``{"any": ["a", "b"]}``      the same as the list alone
``{"all": ["a", "b"]}``      equals each of them: a list in the metadata contains them all
``{"text": "cat"}``          is text that contains the words, see below
``{"not": ...}``             does not match the inner condition, or the key is missing
``{"exists": True}``         exists and is neither null nor an empty list; ``False``: the opposite
``"or": [{...}, {...}]``     instead of a key: one of these filters matches
``"and": [{...}, {...}]``    instead of a key: all of these filters match
``"not": {...}``             instead of a key: this filter does not match
===========================  ===================================================================

For metadata that is called ``or``, ``and`` or ``not``, put the name in double quotes: ``'"or"'``.

A day without a time means its first moment, and a time without an offset is UTC, in filters and in
metadata. Only ranges understand dates in text: ``{"day": "2024-02-01"}`` compares text.

``text`` depends on the store. With a text index on the field, a server compares words as the index
is configured. Without it, Qdrant 1.18 finds the text anywhere, case-sensitively, also within words,
as local mode of qdrant-client 1.19 does; that of 1.20 finds all its words, in any order and case,
and so does the embedded engine.

On a server and in the embedded engine, an index makes a filter fast, and strict mode, as in Qdrant
Cloud, refuses filters on a field without an index. Make one by ``client.create_payload_index(
"notes", "year", "integer")``, or ``CollectionOptions(indexed={"year": "integer"})`` for a new
collection. Numbers are compared as ranges, which an integer index and a float index both serve.
Only a whole number above 2**53 needs an integer index, and equals whole numbers alone. A list of
numbers takes a condition for each, which strict mode can limit. Use a float index for fractions: an
integer index does not contain them, so that no filter on the field finds them. A list that contains
a null ``is stored as null`` in memory, in folders, and in a server's indexed field, but not in one
without an index.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Mapping
from datetime import date, datetime, timezone
from numbers import Integral, Real
from typing import Any, TypeGuard

import numpy as np
from qdrant_client import models

from qdrant_embed.engines.names import HOW_FIELDS_ARE_NAMED, is_field
from qdrant_embed.errors import InputError, check_unicode

_BOUNDS = ("gt", "gte", "lt", "lte")
OPERATORS = (*_BOUNDS, "any", "all", "text", "not", "exists")
_OPERATOR_LIST = ", ".join(OPERATORS)
GROUPS = ("or", "and", "not")
_ELSEWHERE = {  # operators and groups of other databases, without "$" and in lower case
    **dict.fromkeys(("eq", "=", "==", "is"), "write the value itself"),
    **dict.fromkeys(("ne", "!=", "neq", "is_not"), "write {'not': value}"),
    **dict.fromkeys(("in", "match_any"), "write {'any': [...]}, or the list itself"),
    **dict.fromkeys(("nin", "not_in", "notin", "except"), "write {'not': [...]}"),
    **dict.fromkeys(
        ("contains", "has", "includes"),
        "write the value itself to find it in a list, or {'text': ...} to find words",
    ),
    **dict.fromkeys(("contains_all", "contains_any"), "write {'all': [...]} or {'any': [...]}"),
    **dict.fromkeys(
        ("like", "ilike", "regex", "match", "search", "startswith"),
        "write {'text': ...} to find words",
    ),
    **dict.fromkeys((">", "after"), "write it 'gt'"),
    **dict.fromkeys((">=", "from", "since", "min"), "write it 'gte'"),
    **dict.fromkeys(("<", "before"), "write it 'lt'"),
    **dict.fromkeys(("<=", "until", "to", "max"), "write it 'lte'"),
    **dict.fromkeys(("between", "range"), "write {'gte': ..., 'lte': ...}"),
    **dict.fromkeys(("null", "is_null", "isnull"), "write None instead of the dict"),
    **dict.fromkeys(("or", "should"), "write {'or': [{...}, {...}]} instead of a key"),
    **dict.fromkeys(("and", "must"), "write {'and': [{...}, {...}]} instead of a key"),
    **dict.fromkeys(("nor", "must_not"), "write {'not': {'or': [{...}, {...}]}} instead of a key"),
}
_EXACT = 2**53  # up to here, every whole number is a float
_END = 2**63  # Qdrant's whole numbers are below
_DEPTH = 12  # levels of dicts and lists; servers read 100 levels of messages, of which one takes 4
_ISO = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:[T ](\d\d)(?:(:\d\d)(?:(:\d\d)(\.\d+)?)?)?"
    r"(?: ?(?:([Zz])|([+-]\d\d):?(\d\d)?))?)?",
    re.ASCII,
)


def fields_of(condition: models.Filter | None) -> dict[str, str]:
    """Return the fields that a filter compares, and the kind of index that seems right for each."""
    found: dict[str, str] = {}
    pending: list[tuple[str, object]] = [("", condition)]
    while pending:
        path, part = pending.pop()
        if isinstance(part, models.Filter):
            least = None if part.min_should is None else part.min_should.conditions
            for several in (part.must, part.should, part.must_not, least):
                conditions = several if isinstance(several, list) else [several]
                pending += ((path, inner) for inner in conditions)
        elif isinstance(part, models.NestedCondition):
            pending.append((f"{path}{part.nested.key.removesuffix('[]')}[].", part.nested.filter))
        elif isinstance(part, models.FieldCondition):
            found[path + part.key] = _kind_of_index(part)
    return found


def _kind_of_index(condition: models.FieldCondition) -> str:
    if isinstance(condition.range, models.DatetimeRange):
        return "datetime"
    if condition.geo_bounding_box or condition.geo_polygon or condition.geo_radius:
        return "geo"
    match = condition.match
    if isinstance(match, models.MatchText | models.MatchTextAny | models.MatchPhrase):
        return "text"
    values: list[Any] = []
    if condition.range is not None:
        bounds = (getattr(condition.range, bound) for bound in _BOUNDS)
        values = [bound for bound in bounds if bound is not None]
    elif isinstance(match, models.MatchValue):
        values = [match.value]
    elif isinstance(match, models.MatchAny):
        values = [*match.any]
    elif isinstance(match, models.MatchExcept):
        values = [*match.except_]
    if not all(isinstance(value, int | float) for value in values):
        return "keyword"
    if any(isinstance(value, bool) for value in values):
        return "bool"
    return "integer" if all(float(value).is_integer() for value in values) else "float"


def below(where: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Return a plain filter on keys below `prefix`; what is invalid stays so, to be refused."""

    def moved(part: object) -> object:
        return below(part, prefix) if isinstance(part, Mapping) else part

    found: dict[str, Any] = {}
    for key, value in where.items():
        if key not in GROUPS:
            found[f"{prefix}.{key}"] = value
        else:
            found[key] = [*map(moved, value)] if isinstance(value, list | tuple) else moved(value)
    return found


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
    _check_depth(where, _DEPTH)
    return _filter("where", where)


def _filter(name: str, where: object) -> models.Filter:
    """Return the Qdrant filter for `where`, or for the part of it that has the name."""
    if not isinstance(where, Mapping):
        raise InputError(f"{name} must be a dict, not {type(where).__name__}")
    conditions: list[models.Condition] = []
    for key, condition in where.items():
        if not isinstance(key, str) or not key:
            raise InputError(f"where has the key {key!r}, but keys must be names of metadata")
        check_unicode(f"the key {key!r:.80} in where", key)
        if key in GROUPS:
            conditions.append(_group(key, condition))
        elif is_field(key):
            conditions.extend(_conditions(key, condition))
        else:
            hint = _hint(key) or HOW_FIELDS_ARE_NAMED
            raise InputError(
                f"where has the key {key!r:.80}, which is not a valid name in Qdrant; {hint}"
            )
    return models.Filter(must=conditions)


def _check_depth(value: object, left: int) -> None:
    """Raise `InputError` if dicts and lists are nested in more than `left` levels."""
    if not isinstance(value, Mapping | list | tuple):
        return
    if not left:
        raise InputError(f"where is nested in more than {_DEPTH} levels of dicts and lists")
    for inner in value.values() if isinstance(value, Mapping) else value:
        _check_depth(inner, left - 1)


def _group(name: str, operand: object) -> models.Filter:
    """Return the filter for a group, which has the name of an operator in the place of a key."""
    quoted = f"for metadata called {name!r}, write the key '\"{name}\"'"
    if name == "not":
        if not isinstance(operand, Mapping) or not operand:
            raise InputError(f"where['not'] must be a dict with a filter; {quoted}")
        return models.Filter(must_not=[_filter("where['not']", operand)])
    if not isinstance(operand, list | tuple) or not operand:
        raise InputError(f"where[{name!r}] must be a list of dicts, one or more; {quoted}")
    parts: list[models.Condition] = [
        _filter(f"where[{name!r}][{index}]", part) for index, part in enumerate(operand)
    ]
    return models.Filter(should=parts) if name == "or" else models.Filter(must=parts)


def _hint(operator: object) -> str | None:
    """Return how to write an operator or a group of another database."""
    name = str(operator).lstrip("$").lower()
    if name in OPERATORS:
        return f"write it {name!r}"
    return _ELSEWHERE.get(name)


def _conditions(key: str, condition: object) -> list[models.Condition]:
    if not isinstance(condition, Mapping):
        return [_equals(key, condition)]
    if not condition:
        raise InputError(f"where[{key!r}] is empty; pass a value, or one of {_OPERATOR_LIST}")
    conditions: list[models.Condition] = []
    for operator, operand in condition.items():
        if operator in _BOUNDS:
            continue
        if operator == "not":
            conditions.append(_none_of(_conditions(key, operand)))
        elif operator == "exists":
            conditions.append(_exists(key, operand))
        elif operator == "text":
            conditions.append(_text(key, operand))
        elif operator in ("any", "all"):
            conditions.append(_items(key, operator, operand))
        else:
            hint = _hint(operator) or (
                f"use one of {_OPERATOR_LIST}, or write a key of nested metadata with a dot: "
                f"'{key}.{operator}'"
            )
            raise InputError(f"where[{key!r}] has the unknown operator {operator!r}; {hint}")
    bounds = {name: condition[name] for name in _BOUNDS if name in condition}
    if bounds:
        conditions.append(_range(key, bounds))
    return conditions


def _none_of(conditions: list[models.Condition]) -> models.Filter:
    """Return the filter that does not match what all the conditions match."""
    both = len(conditions) > 1
    return models.Filter(must_not=[models.Filter(must=conditions)] if both else conditions)


def _equals(key: str, value: object) -> models.Condition:
    value = _without_numpy(value)
    if value is None:
        return models.IsNullCondition(is_null=models.PayloadField(key=key))
    if isinstance(value, list | tuple | set | frozenset) or _is_array(value):
        return _any_of(key, list(value))
    if isinstance(value, str):
        return models.FieldCondition(key=key, match=models.MatchValue(value=_plain(key, value)))
    if isinstance(value, bool | np.bool_):
        return models.FieldCondition(key=key, match=models.MatchValue(value=bool(value)))
    if isinstance(value, date):
        return _range(key, {"gte": value, "lte": value})
    number = _number(value)
    if number is None:
        raise _unsupported(key, value)
    return _equals_number(key, number)


def _is_array(value: object) -> TypeGuard[np.ndarray[Any, Any]]:
    return isinstance(value, np.ndarray) and value.ndim == 1


def _plain(key: str, text: str) -> str:
    """Return a str, of an enumeration too, as a plain one.

    Raises:
        InputError: if it has lone surrogates.
    """
    check_unicode(f"where[{key!r}]", text)
    return str.__str__(text)


def _text(key: str, operand: object) -> models.FieldCondition:
    if not isinstance(operand, str) or not any(character.isalnum() for character in operand):
        raise InputError(
            f"where[{key!r}]: text must be a str with a letter or a digit, not {operand!r:.80}"
        )
    return models.FieldCondition(key=key, match=models.MatchText(text=_plain(key, operand)))


def _items(key: str, operator: str, operand: object) -> models.Condition:
    if not (isinstance(operand, list | tuple | set | frozenset) or _is_array(operand)):
        raise InputError(f"where[{key!r}]: {operator} must be a list, not {operand!r:.80}")
    alternatives = _equals(key, operand)  # which refuses what cannot be in the list
    if operator == "any":
        return alternatives
    return models.Filter(must=[_equals(key, value) for value in operand])


def _equals_number(key: str, number: int | float) -> models.FieldCondition:
    """Return the condition that a number equals another, for integer and float indexes."""
    if isinstance(number, int) and _EXACT < abs(number) < _END:  # a range would be of floats
        return models.FieldCondition(key=key, match=models.MatchValue(value=number))
    return _range(key, {"gte": number, "lte": number})


def _any_of(key: str, values: list[Any]) -> models.Condition:
    values = [_without_numpy(value) for value in values]
    if not values:
        raise InputError(f"where[{key!r}] is an empty list, which matches nothing; pass a value")
    if all(isinstance(value, str) for value in values):
        texts = [_plain(key, value) for value in values]
        return models.FieldCondition(key=key, match=models.MatchAny(any=texts))
    if all(isinstance(value, date) for value in values):
        return models.Filter(should=[_equals(key, value) for value in values])
    numbers = [number for value in values if (number := _number(value)) is not None]
    if len(numbers) < len(values):
        hint = "write alternatives of another kind as {'or': [{...}, {...}]}"
        if any(isinstance(value, Mapping) for value in values):
            hint = _hint(key) or hint
        raise InputError(
            f"where[{key!r}] must be a list of str, of numbers or of dates, not {values!r:.80}; "
            f"{hint}"
        )
    return models.Filter(should=[_equals_number(key, number) for number in numbers])


def _exists(key: str, operand: object) -> models.Condition:
    if not isinstance(operand, bool):
        raise InputError(f"where[{key!r}]: exists must be True or False, not {operand!r:.80}")
    empty = models.IsEmptyCondition(is_empty=models.PayloadField(key=key))
    return models.Filter(must_not=[empty]) if operand else empty


def _range(key: str, bounds: Mapping[str, Any]) -> models.FieldCondition:
    bounds = {name: _without_numpy(value) for name, value in bounds.items()}
    numbers = {name: _number(value) for name, value in bounds.items()}
    exact = {name: number for name, number in numbers.items() if number is not None}
    if len(exact) == len(bounds):
        edges = {name: _edge(name, number) for name, number in exact.items()}
        return models.FieldCondition(key=key, range=models.Range(**edges))
    if all(isinstance(value, date | str) for value in bounds.values()):  # a datetime is a date, too
        moments = {name: _moment(key, value) for name, value in bounds.items()}
        return models.FieldCondition(key=key, range=models.DatetimeRange(**moments))
    raise _unsupported(key, dict(bounds))


def _unsupported(key: str, value: object) -> InputError:
    return InputError(
        f"where[{key!r}] is {value!r:.80}, which is not supported; use a str, a bool, a finite "
        "number, a datetime or date, None, a list of str, of numbers or of dates, or one of the "
        f"operators {_OPERATOR_LIST}; the bounds of a range must be all numbers or all dates"
    )


def _edge(bound: str, number: int | float) -> float:
    """Return a bound that treats a float and its neighbours as equal.

    A server reads a float from JSON up to one unit in the last place off, and one sent over gRPC as
    it is. Whole numbers are read exactly up to 2**53.
    """
    edge = float(number)
    if edge == number and edge.is_integer() and abs(edge) <= _EXACT:
        return edge
    neighbour = math.nextafter(edge, -math.inf if bound in ("gte", "lt") else math.inf)
    return neighbour if math.isfinite(neighbour) else edge


def _without_numpy(value: object) -> object:
    """Return numpy's moment as a datetime, if it is one to the microsecond; others as they are."""
    if not isinstance(value, np.datetime64):
        return value
    exact = value.astype("M8[us]")
    return exact.item() if exact == value and isinstance(exact.item(), date) else value


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


def _moment(key: str, value: date | str) -> datetime:
    """Return the moment of a date or of ISO text, in UTC.

    Raises:
        InputError: if the text is not a date, or the moment is not between the years 1 and 9999.
    """
    moment = _parsed(key, value) if isinstance(value, str) else value
    if not isinstance(moment, datetime):
        moment = datetime(moment.year, moment.month, moment.day)
    if str(moment) == "NaT":  # of pandas, a datetime that is none
        raise _unsupported(key, value)
    if moment.tzinfo is None:
        return moment.replace(tzinfo=timezone.utc)
    try:
        return moment.astimezone(timezone.utc)
    except OverflowError as error:
        raise InputError(f"where[{key!r}]: {value!r} is not in the years 1 to 9999") from error


def _parsed(key: str, text: str) -> date:
    check_unicode(f"where[{key!r}]", text)
    try:
        return iso_date(text)
    except ValueError as error:
        raise _not_a_date(key, text) from error


def iso_date(text: str) -> date:
    """Return the day that ISO text names, or the moment, which is a ``datetime``.

    Raises:
        ValueError: if the text is not a date.
    """
    found = _ISO.fullmatch(text.strip())
    if found is None:
        raise ValueError(text)
    day, hour, minute, second, fraction, zulu, hours, minutes = found.groups()
    if hour is None:
        return date.fromisoformat(day)
    time = f"{hour}{minute or ':00'}{second or ':00'}"
    offset = "+00:00" if zulu else f"{hours}:{minutes or '00'}" if hours else ""
    micro = f"{fraction or '.':0<7.7}"  # Python 3.10 reads six digits only
    return datetime.fromisoformat(f"{day}T{time}{micro}{offset}")


def _not_a_date(key: str, text: str) -> InputError:
    try:
        number = _number(float(text))
    except ValueError:
        number = None
    hint = "" if number is None else f"; to compare numbers, write {text.strip()} without quotes"
    return InputError(
        f"where[{key!r}] compares with the text {text!r:.80}, which is not a date; use numbers, or "
        f"dates like '2024-02-01' and '2024-02-01T09:30:00+01:00'{hint}"
    )
