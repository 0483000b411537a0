"""What users pass as columns and metadata, as the lists and JSON values that can be stored.

There is one rule for values, at every depth. A value is copied when it is read, and what it becomes
depends on the value alone: not on the order of a set, a time zone, a locale or a version.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import math
from collections.abc import Callable, Iterator, Mapping, Reversible, Sequence, Set
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any, NoReturn
from uuid import UUID

import numpy as np

from qdrant_embed.collection.payload import WHOLE_NUMBERS
from qdrant_embed.errors import InputError
from qdrant_embed.limits import PAYLOAD_DEPTH

_WRITTEN_AS_TEXT = (
    UUID,
    PurePath,
    ipaddress.IPv4Address,
    ipaddress.IPv4Interface,
    ipaddress.IPv4Network,
    ipaddress.IPv6Address,
    ipaddress.IPv6Interface,
    ipaddress.IPv6Network,
)
_OTHER = (
    "is not JSON-serialisable, so Qdrant cannot store it; omit it, or convert it to a finite "
    "number, str, list or dict"
)
_TOO_LARGE = (
    "no payload can hold: Qdrant holds whole numbers from -2**63 to 2**63-1, and changes larger "
    "ones; make it a str or a float"
)


class UnstorableError(ValueError):
    """A value that cannot be stored.

    Attributes:
        value: the value.
        reason: what is wrong with it, and the way out.
        path: where it is in the metadata, such as ``['a'][0]``.
    """

    def __init__(self, value: object, reason: str) -> None:
        super().__init__(value, reason)
        self.value, self.reason, self.path = value, reason, ""

    def __str__(self) -> str:
        return f"{self.path} is {describe(self.value)}, which {self.reason}"


def json_value(value: object) -> Any:
    """Return a copy of `value` of None, bool, int, float, str, list and dict alone.

    ====================================== =====================================================
    bool, int, float, str, None            as they are
    dict (with str keys), list, tuple      dict, list
    dates, times, timedelta                str in ISO 8601
    UUID, Path, IP address                 str
    Decimal                                int without decimal places, else float
    Enum, dataclass, pydantic model        its value, a dict of its fields
    numpy scalar, array, Series and alike  the number, str or list in it
    ====================================== =====================================================

    Raises:
        UnstorableError: if it is anything else, NaN, infinity, a whole number that no payload can
            hold, a Decimal that is no float, or a value with lone surrogates. Iterators could be
            read once only, and sets have no order.
    """
    return _json_value(value, 0)


def _json_value(value: Any, depth: int) -> Any:
    kind = type(value)
    if kind is str:
        return value if value.isascii() else _valid_unicode(value)
    if kind is int:
        return value if value in WHOLE_NUMBERS else _refuse(value, _TOO_LARGE)
    if kind is float:
        return value if math.isfinite(value) else _refuse(value, _OTHER)
    if value is None or kind is bool:
        return value
    return _copied(value, kind, depth)


def _copied(value: Any, kind: type, depth: int) -> Any:
    if depth > PAYLOAD_DEPTH:
        raise UnstorableError(value, f"is nested more than {PAYLOAD_DEPTH} deep; flatten it")
    if kind is dict:
        return _json_dict(value, depth)
    if kind is list or kind is tuple:
        return _json_list(value, depth)
    return _converted(value, depth)


def _json_dict(value: Mapping[Any, Any], depth: int) -> dict[str, Any]:
    copy = {}
    for key, item in value.items():
        if not isinstance(key, str):
            raise UnstorableError(
                value, f"is not JSON-serialisable: keys must be str, not {describe(key)}"
            )
        try:
            name = key if type(key) is str and key.isascii() else _json_value(key, depth)
            copy[name] = _json_value(item, depth + 1)
        except UnstorableError as error:
            error.path = f"[{key!r}]{error.path}"
            raise
    return copy


def _json_list(value: Sequence[Any], depth: int) -> list[Any]:
    copy = []
    for index, item in enumerate(value):
        try:
            copy.append(_json_value(item, depth + 1))
        except UnstorableError as error:
            error.path = f"[{index}]{error.path}"
            raise
    return copy


def _converted(value: Any, depth: int) -> Any:
    """Return the copy of a value whose type is not one of JSON's."""
    for kind, plain in _SCALARS.items():
        if isinstance(value, kind):
            return _json_value(plain(value), depth + 1)
    for is_refused, reason in _REFUSED:
        if is_refused(value):
            _refuse(value, reason)
    return _json_value(_container(value), depth + 1)


def _container(value: Any) -> Any:
    """Return the dict, list or scalar in a value of a type that holds others."""
    if isinstance(value, Mapping):
        return dict(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
    if callable(dump := getattr(type(value), "model_dump", None)):  # a model of pydantic
        return dump(value, by_alias=True)
    if (plain := _read_array(value)) is not value:
        return plain
    if isinstance(value, Sequence):
        return [*value]
    _refuse(value, _OTHER)


def _refuse(value: object, reason: str) -> NoReturn:
    raise UnstorableError(value, reason)


def _valid_unicode(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        _refuse(value, "is not valid Unicode, so it is not JSON-serialisable; omit what is invalid")
    return value


def _decimal(value: Decimal) -> int | float:
    """Return the number that is written like a Decimal.

    It is a whole number if the Decimal has no decimal places, as ``Decimal("10")``, but not
    ``Decimal("10.0")``.
    """
    if value.is_finite():
        exponent = value.as_tuple().exponent
        if isinstance(exponent, int) and exponent >= 0 and value.adjusted() < 20:
            whole = int(value)
            if whole in WHOLE_NUMBERS:
                return whole
        number = float(value)
        if math.isfinite(number) and Decimal(repr(number)) == value:
            return number
    _refuse(value, "is no number that Qdrant can hold exactly; make it a str or a float")


def _date(value: date) -> str:
    if value != value:  # as the "no date" of pandas, which is a datetime  # noqa: PLR0124
        _refuse(value, _OTHER)
    return value.isoformat()


def _moment(value: datetime | time) -> str:
    if value != value:  # noqa: PLR0124
        _refuse(value, _OTHER)
    text = value.isoformat()
    return text[:-6] + "Z" if text.endswith("+00:00") and value.tzinfo is not None else text


def _duration(value: timedelta) -> str:
    if value != value:  # noqa: PLR0124
        _refuse(value, _OTHER)
    sign, value = ("-", -value) if value < timedelta(0) else ("", value)
    years, days = divmod(value.days, 365)
    hours, seconds = divmod(value.seconds, 3600)
    minutes, seconds = divmod(seconds, 60)
    # of pandas alone; without them, different durations would be one
    fraction = 1000 * value.microseconds + getattr(value, "nanoseconds", 0)
    digits = f".{fraction:09}".rstrip("0") if fraction else ""
    parts = {"Y": years, "D": days}
    day = "".join(f"{number}{unit}" for unit, number in parts.items() if number)
    parts = {"H": hours, "M": minutes}
    clock = "".join(f"{number}{unit}" for unit, number in parts.items() if number)
    if seconds or digits or not (day or clock):
        clock += f"{seconds}{digits}S"
    return f"{sign}P{day}" + (f"T{clock}" if clock else "")


def has_no_order(value: object) -> bool:
    """Return whether `value` is a set: the keys of a dict, or an ordered set, have an order."""
    return isinstance(value, Set) and not isinstance(value, Reversible)


def is_table(value: object) -> bool:
    """Return whether `value` is a table of any library, such as a DataFrame."""
    if isinstance(value, Mapping | Sequence | Iterator):
        return False
    if hasattr(value, "columns"):
        return True
    return not callable(getattr(value, "schema", callable))  # a method of pydantic's models


def _read_array(value: Any) -> Any:
    """Return the list or scalar in an array, a column or a scalar of any library, else `value`."""
    kind = getattr(getattr(value, "dtype", None), "kind", "")
    if kind in ("c", "V"):
        return value
    if kind in ("m", "M") and type(value).__module__ == "numpy":  # which hold integers inside
        return _read_times(value)
    if loses_nanoseconds(value):
        return value
    for name in ("to_pylist", "to_list", "tolist", "as_py"):
        if callable(read := getattr(value, name, None)):
            plain = read()
            return value if type(plain) is type(value) else plain
    return value


def _read_times(value: Any) -> Any:
    """Return Python's times for those of numpy, or `value` if it has one that Python cannot hold.

    That is one without a unit, beyond the year 9999, with nanoseconds, or a duration in months.
    """
    kind, (unit, _) = value.dtype.kind, np.datetime_data(value.dtype)
    if unit == "generic" or (kind == "m" and unit in ("Y", "M")):
        return value
    try:
        exact = value.astype(f"{kind}8[us]")
    except OverflowError:  # earlier versions of numpy wrap around, which is found next
        return value
    if not (exact.astype(value.dtype) == value).all():
        return value
    if kind == "M" and not ((exact >= _FIRST_MOMENT) & (exact <= _LAST_MOMENT)).all():
        return value
    return exact.tolist()


def loses_nanoseconds(value: Any) -> bool:
    """Return whether a column or scalar of Polars or Arrow has nanoseconds that it would cut.

    Different values would become one. Arrow's moments and durations are not cut: they become those
    of pandas, or an error without it.
    """
    library, name = type(value).__module__.partition(".")[0], type(value).__name__
    if library == "polars":
        return name == "Series" and _polars_has_nanoseconds(value)
    if library != "pyarrow" or not hasattr(value, "type"):
        return False
    if name == "Time64Scalar":
        return bool(value.type.unit == "ns" and value.is_valid and value.value % 1000)
    # an extension's name does not tell what is inside
    may_be = "time64[ns]" in str(value.type) or "extension" in str(value.type)
    return may_be and hasattr(value, "to_pylist") and _arrow_has_nanoseconds(value)


def _polars_has_nanoseconds(column: Any) -> bool:
    kind = column.dtype
    if kind.is_nested():
        if hasattr(kind, "fields"):
            parts = (column.struct.field(each.name) for each in kind.fields)
            return any(map(_polars_has_nanoseconds, parts))
        return _polars_has_nanoseconds(column.explode())
    if str(kind) != "Time" and getattr(kind, "time_unit", None) != "ns":
        return False
    return bool((column.to_physical() % 1000 != 0).any())


def _arrow_has_nanoseconds(column: Any) -> bool:
    """Return whether an Arrow array has times of the day that microseconds do not tell."""
    if str(column.type) == "time64[ns]" and not hasattr(column, "chunks"):
        return any(number % 1000 for number in column.cast("int64").drop_null().to_pylist())
    return any(map(_arrow_has_nanoseconds, _inside(column)))


def _inside(column: Any) -> Sequence[Any]:
    """Return the arrays inside one of Arrow, as far as possible without what no value has."""
    ways: dict[str, Callable[[], Sequence[Any]]] = {  # by what only some arrays have
        "chunks": lambda: column.chunks,
        "storage": lambda: [column.storage],  # of an extension type
        "dictionary_decode": lambda: [column.dictionary_decode()],
        "run_ends": lambda: [column.values],
        "items": lambda: [column.keys, column.items],  # of a map
    }
    for name, read in ways.items():
        if hasattr(column, name):
            return read()
    if not column.type.num_fields or not hasattr(column, "flatten"):
        return ()
    parts = column.flatten()  # without what is under a null, or left out of a slice
    return parts if isinstance(parts, list) else [parts]


_FIRST_MOMENT, _LAST_MOMENT = (np.datetime64(end, "us") for end in (datetime.min, datetime.max))

_SCALARS: dict[type, Callable[[Any], Any]] = {  # in this order: some of these are others, too
    Enum: lambda value: value.value,
    str: str.__str__,
    int: int.__int__,
    float: float.__float__,
    Decimal: _decimal,
    datetime: _moment,
    date: _date,
    time: _moment,
    timedelta: _duration,
    **dict.fromkeys(_WRITTEN_AS_TEXT, str),
}
_REFUSED: list[tuple[Callable[[object], bool], str]] = [
    (
        lambda value: isinstance(value, bytes | bytearray | memoryview),
        "is not JSON-serialisable; decode it to a str",
    ),
    (lambda value: isinstance(value, Iterator), "can be read only once; convert it to a list"),
    (has_no_order, "has no order, so it would differ from run to run; use sorted(...)"),
    (is_table, "is a table; convert it to a list of dicts"),
]


def as_column(name: str, items: Any) -> Any:
    """Return a Series, Index, ndarray or another column as a list; other iterables as they are.

    Args:
        name: name of the argument.
        items: its value.

    Raises:
        InputError: if it is a table, or has no order.
    """
    if isinstance(items, list | tuple | str | None):
        return items
    if has_no_order(items):
        raise InputError(
            f"{name} must be a list, not {describe(items)}, which has no order; use sorted(...)"
        )
    dimensions = getattr(items, "ndim", 1)
    if is_table(items) or (isinstance(dimensions, int) and dimensions > 1):
        way = (
            "convert it to a list of dicts, such as table.to_dict('records') or table.to_pylist()"
            if name == "metadata"
            else "pass one of its columns"
        )
        raise InputError(
            f"{name} must be a list, not a table or matrix ({type(items).__name__}); {way}"
        )
    if dimensions == 0:
        raise InputError(f"{name} must be a list, not {describe(items)}; put it in a list")
    if isinstance(items, Mapping | Iterator):
        return items
    plain = _read_array(items)
    return plain if isinstance(plain, list) else items


def scalar(value: object) -> object:
    """Return the Python value in a scalar of numpy or Arrow; other values as they are."""
    if isinstance(value, str | int | UUID | None):
        return value
    if hasattr(value, "as_py") or getattr(value, "ndim", None) == 0:
        return _read_array(value)
    return value


def describe(value: object) -> str:
    """Return a value with its type, cut, for an error message."""
    if value is None:
        return "None"
    try:
        shown = f"{value!r:.60}"
    except Exception:  # noqa: BLE001 - a user's own class, or a time that numpy cannot show
        shown = "a value that cannot be shown"
    return f"{shown} ({type(value).__name__})"
