"""What a server refuses, with the words of Qdrant 1.18, and how it reads numbers.

Functions raise `RefusedError` and change nothing; both transports and `node.py` use them.
"""

from __future__ import annotations

import math
import re
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from qdrant_client import models

DEFAULT_VECTOR = ""
Access = str | Mapping[str, str]  # "manage", "read", or by collection "r" or "rw"


class Kind(Enum):
    """A kind of refusal: HTTP status, gRPC code, and how its message begins."""

    INPUT = (400, "INVALID_ARGUMENT", "Wrong input: ")
    REQUEST = (400, "INVALID_ARGUMENT", "Bad request: ")
    FORMAT = (400, "INVALID_ARGUMENT", "Format error in JSON body: ")
    PLAIN = (400, "INVALID_ARGUMENT", "")
    VALIDATION = (422, "INVALID_ARGUMENT", "Validation error in ")
    NOT_FOUND = (404, "NOT_FOUND", "Not found: ")
    EXISTS = (409, "ALREADY_EXISTS", "Wrong input: ")
    SERVICE = (500, "INTERNAL", "Service internal error: ")
    UNAUTHORIZED = (401, "UNAUTHENTICATED", "")
    FORBIDDEN = (403, "PERMISSION_DENIED", "Forbidden: ")
    RATE = (429, "RESOURCE_EXHAUSTED", "Rate limiting exceeded: ")
    PANIC = (0, "UNKNOWN", "")  # no answer comes

    @property
    def status(self) -> int:
        return self.value[0]

    @property
    def code(self) -> str:
        return self.value[1]


class RefusedError(Exception):
    """A request that the server refuses.

    Args:
        kind: of the refusal.
        message: what is wrong.
        place: where in an HTTP request a value is not valid.
        retry_after: seconds after which the same request may pass.
    """

    def __init__(
        self,
        kind: Kind,
        message: str,
        *,
        place: str = "JSON body",
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.kind, self.message = kind, message
        self.place, self.retry_after = place, retry_after

    @property
    def rest(self) -> str:
        """The error as REST shows it."""
        if self.kind is Kind.VALIDATION:
            return f"Validation error in {self.place}: [{self.message}]"
        return f"{self.kind.value[2]}{self.message}"

    @property
    def grpc(self) -> str:
        """The details of gRPC's status."""
        if self.kind is Kind.VALIDATION:
            return f"Validation error in body: [{self.message.removeprefix('internal.')}]"
        return f"{self.kind.value[2]}{self.message}"


def no_collection(name: str) -> RefusedError:
    """Return the refusal of a request about a collection that does not exist."""
    return RefusedError(Kind.NOT_FOUND, f"Collection `{name}` doesn't exist!")


# names and ids


def check_new_name(name: str) -> None:
    """Raise `RefusedError` unless a new collection may have this name."""
    path = "path parameters"
    for char in '<>:"/\\|?*\0\x1f':
        if char in name:
            message = f'collection_name: collection name cannot contain "{char}" char'
            raise RefusedError(Kind.VALIDATION, message, place=path)
    if not 1 <= len(name) <= 255:
        message = f'collection_name: value "{name}" invalid, must be from 1 to 255 characters'
        raise RefusedError(Kind.VALIDATION, message, place=path)
    if name in (".", ".."):
        raise RefusedError(
            Kind.SERVICE, f"Invalid path to delete: /qdrant/storage/collections/{name}"
        )


def check_name(name: str) -> None:
    """Raise `RefusedError` if no collection can have this name, not even an old one."""
    for char in "/\0":
        if char in name:
            message = f'collection_name: collection name cannot contain "{char}" char'
            raise RefusedError(Kind.VALIDATION, message, place="path parameters")


def check_vector_name(name: str) -> None:
    """Raise `RefusedError` unless a new vector may have this name."""
    if len(name.encode()) > 200:
        raise RefusedError(Kind.VALIDATION, "vectors: vector name must be at most 200 bytes long")
    for char in '<>:"/\\|?*\0\x1f':
        if char in name:
            raise RefusedError(
                Kind.VALIDATION, f'vectors: vector name cannot contain "{char}" char'
            )


def point_id(given: Any) -> int | str:
    """Return an id as the server shows it."""
    if isinstance(given, int) and not isinstance(given, bool) and 0 <= given < 2**64:
        return given
    if isinstance(given, str):
        try:
            return str(uuid.UUID(given))
        except ValueError:
            pass
    if isinstance(given, float):
        given = shown(given)
    message = (
        f"value {given} is not a valid point ID, valid values are either an unsigned integer "
        "or a UUID"
    )
    raise RefusedError(Kind.FORMAT, message)


def shown(number: float) -> str:
    """Return the digits that Rust writes of a large whole number: the shortest, then zeros."""
    mantissa, _, exponent = f"{number!r}".partition("e+")
    digits = mantissa.replace(".", "")
    return digits.ljust(int(exponent) + 1, "0") if exponent else mantissa.removesuffix(".0")


# numbers


_NUMBER = re.compile(r"(-?)(\d+)(?:\.(\d+))?(?:[eE]([+-]?\d+))?")
_LARGEST = 2**64 - 1
_FITTING = 19  # digits, whatever they are
_POWERS = [float(f"1e{power}") for power in range(309)]


def read_float(text: str) -> float:
    """Read a number as the server does: not always the nearest one, but one unit beside it.

    This is what serde_json does without its feature "float_roundtrip": the digits as a u64, those
    that do not fit dropped, times or by a power of ten.
    """
    mantissa, _, exponent = text.partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole.removeprefix("-") + fraction).lstrip("0") or "0"
    if len(digits) <= _FITTING and digits.isdecimal():
        power = int(exponent or 0) - len(fraction)
        if abs(power) < len(_POWERS):
            number = float(int(digits))
            number = number * _POWERS[power] if power >= 0 else number / _POWERS[-power]
            return -number if whole.startswith("-") else number
    return _read_slowly(text)


def _read_slowly(text: str) -> float:
    """Read a number of any length, digit by digit."""
    matched = _NUMBER.fullmatch(text)
    if matched is None:
        return float(text)
    sign, whole, fraction, exponent = matched.groups()
    significand, power = 0, int(exponent or 0)
    for place, digit in enumerate(whole):
        if significand * 10 + int(digit) > _LARGEST:
            power += len(whole) - place
            break
        significand = significand * 10 + int(digit)
    for digit in fraction or "":
        if significand * 10 + int(digit) > _LARGEST:
            break
        significand, power = significand * 10 + int(digit), power - 1
    number = float(significand)
    while power < -308:
        number, power = number / 1e308, power + 308
    number = number * float(f"1e{power}") if power >= 0 else number / float(f"1e{-power}")
    return -number if sign else number


def read_int(text: str) -> int | float:
    """Read a whole number as the server does: one that no 64 bits hold becomes a float."""
    number = int(text)
    return number if -(2**63) <= number <= _LARGEST else read_float(text)


def as_stored(value: Any) -> Any:
    """Return a payload as it comes back: it is stored as JSON and read again."""
    if isinstance(value, float):
        if not math.isfinite(value):
            raise RefusedError(Kind.PLAIN, "cannot convert to json number")
        return read_float(repr(value))
    if isinstance(value, Mapping):
        return {key: as_stored(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [as_stored(entry) for entry in value]
    return value


# vectors


def named(vector: Any) -> dict[str, Any]:
    """Return the vectors of a point by their names."""
    if vector is None:
        return {}
    return dict(vector) if isinstance(vector, Mapping) else {DEFAULT_VECTOR: vector}


def check_sparse(points: Sequence[Any]) -> None:
    """Raise `RefusedError` if a sparse vector has an index twice, or lengths differ."""
    for place, point in enumerate(points):
        for vector in named(point.vector).values():
            if isinstance(vector, models.SparseVector):
                where = f"points[{place}].vector.?"
                if len(vector.indices) != len(vector.values):
                    what = "values: Validation error: must be the same length as indices [{}]"
                    raise RefusedError(Kind.VALIDATION, f"{where}.{what}")
                if len(set(vector.indices)) != len(vector.indices):
                    what = "indices: Validation error: must be unique [{}]"
                    raise RefusedError(Kind.VALIDATION, f"{where}.{what}")


def check_vectors(sizes: Mapping[str, int | None], points: Iterable[Any]) -> None:
    """Raise `RefusedError` unless points fit; `sizes` are None for sparse vectors."""
    for point in points:
        for name, vector in named(point.vector).items():
            check_vector(sizes, name, vector, f" for vector '{name}'" if name else "")


def check_vector(sizes: Mapping[str, int | None], name: str, vector: Any, suffix: str) -> None:
    """Raise `RefusedError` unless there is a vector of this name and of this size."""
    if name not in sizes:
        raise RefusedError(Kind.INPUT, f"Not existing vector name error: {name}")
    size = sizes[name]
    if size is None or isinstance(vector, models.SparseVector):
        return
    for row in vector if vector and isinstance(vector[0], list) else [vector]:
        if len(row) != size:
            message = f"Vector dimension error: expected dim: {size}, got {len(row)}{suffix}"
            raise RefusedError(Kind.INPUT, message)


def searched_vector(query: Any) -> Any:
    """Return the vector that a query searches for, None if it does not name one."""
    if isinstance(query, models.NearestQuery):
        query = query.nearest
    return query if isinstance(query, list | models.SparseVector) else None


def check_query(sizes: Mapping[str, int | None], request: Any) -> None:
    """Raise `RefusedError` unless a query, and each prefetch of it, fits the collection."""
    limit = request.limit
    if limit is not None and limit < 1:
        message = f"internal.limit: value {limit} invalid, must be 1 or larger"
        raise RefusedError(Kind.VALIDATION, message)
    vector = searched_vector(request.query)
    if vector is not None:
        check_vector(sizes, request.using or DEFAULT_VECTOR, vector, "")
    for prefetch in listed(request.prefetch):
        check_query(sizes, prefetch)


# filters


def listed(value: Any) -> list[Any]:
    """Return what may be one, many or nothing as a list."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def conditions(filter_: Any) -> Iterator[Any]:
    """Yield the conditions of a filter, in the server's order."""
    yield from listed(filter_.must)
    yield from listed(filter_.must_not)
    yield from listed(filter_.should)
    yield from filter_.min_should.conditions if filter_.min_should else ()


def count_conditions(filter_: Any) -> int:
    """Count conditions, those of inner filters too."""
    if filter_ is None:
        return 0
    return sum(
        count_conditions(inner) if (inner := _inner(condition)) is not None else 1
        for condition in conditions(filter_)
    )


def largest_condition(filter_: Any) -> int:
    """Return how many values the longest list of ids or values has."""
    return max((_size(condition) for condition in conditions(filter_)), default=0)


def _inner(condition: Any) -> models.Filter | None:
    if isinstance(condition, models.Filter):
        return condition
    return condition.nested.filter if isinstance(condition, models.NestedCondition) else None


def _size(condition: Any) -> int:
    if (inner := _inner(condition)) is not None:
        return largest_condition(inner)
    if isinstance(condition, models.HasIdCondition):
        return len(condition.has_id)
    match = getattr(condition, "match", None)
    if isinstance(match, models.MatchAny):
        return len(match.any)
    return len(match.except_) if isinstance(match, models.MatchExcept) else 0


_ANY_INDEX = frozenset(
    {
        "integer match",
        "integer range",
        "keyword match",
        "float range",
        "text match",
        "bool match",
        "uuid match",
        "datetime range",
        "geo match",
    }
)
_CAPABILITIES = {
    kind: {use for use in _ANY_INDEX if use.split()[0] == kind}
    for kind in (use.split()[0] for use in _ANY_INDEX)
}


def kind_of_index(schema: Any) -> str:
    """Return the type of an index: "integer", "keyword"."""
    kind = getattr(schema, "type", schema)
    return str(getattr(kind, "value", kind))


def _match_needs(values: Sequence[Any]) -> set[str]:
    if not values:
        return set()
    if isinstance(values[0], bool):
        return {"bool match"}
    if isinstance(values[0], int):
        return {"integer match"}
    needs = {"keyword match"}
    try:
        for value in values:
            uuid.UUID(value)
    except ValueError:
        return needs
    return needs | {"uuid match"}


def _needs(condition: Any) -> tuple[str, set[str]] | None:
    """Return the key of a condition and the indexes of which one must be there."""
    if isinstance(condition, models.IsEmptyCondition):
        return condition.is_empty.key, set(_ANY_INDEX)
    if isinstance(condition, models.IsNullCondition):
        return condition.is_null.key, set(_ANY_INDEX)
    if not isinstance(condition, models.FieldCondition):
        return None
    match, needs = condition.match, set[str]()
    if isinstance(match, models.MatchValue):
        needs |= _match_needs([match.value])
    elif isinstance(match, models.MatchAny):
        needs |= _match_needs(match.any)
    elif isinstance(match, models.MatchExcept):
        needs |= _match_needs(match.except_)
    elif match is not None:
        needs |= {"text match"}
    if isinstance(condition.range, models.DatetimeRange):
        needs |= {"datetime range"}
    elif condition.range is not None:
        needs |= {"float range", "integer range"}
    if condition.geo_bounding_box or condition.geo_radius or condition.geo_polygon:
        needs |= {"geo match"}
    if condition.values_count is not None:
        needs |= _ANY_INDEX
    return condition.key, needs


def unindexed(
    filter_: models.Filter, indexes: Mapping[str, Any], prefix: str = ""
) -> tuple[str, list[str]] | None:
    """Return a key that lacks an index, and the types of which one would do."""
    for condition in conditions(filter_):
        if (inner := _inner(condition)) is not None:
            deeper = prefix
            if isinstance(condition, models.NestedCondition):
                deeper = f"{prefix}{condition.nested.key.removesuffix('[]')}[]."
            if (found := unindexed(inner, indexes, deeper)) is not None:
                return found
            continue
        if (needed := _needs(condition)) is None or not needed[1]:
            continue
        key, uses = prefix + needed[0], needed[1]
        has = _CAPABILITIES[kind_of_index(indexes[key])] if key in indexes else set()
        if not uses & has:
            return key, sorted({use.split()[0] for use in uses})
    return None


# strict mode


def _strict(message: str, way_out: str) -> RefusedError:
    return RefusedError(Kind.REQUEST, f"{message}. Help: {way_out}")


class Strict:
    """The strict mode of a collection.

    Args:
        config: as `strict_mode_config` has it.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config if config.get("enabled") else {}

    def _limit(self, value: int | None, option: str, name: str) -> None:
        limit = self.config.get(option)
        if limit is not None and value is not None and value > limit:
            raise _strict(
                f'Limit exceeded {value} > {limit} for "{name}"',
                f'Reduce the "{name}" parameter to or below {limit}.',
            )

    def check_timeout(self, seconds: int | None) -> None:
        """Raise `RefusedError` if the request asks for more time than it may."""
        self._limit(seconds, "max_timeout", "timeout")

    def check_upsert(self, points: int) -> None:
        """Raise `RefusedError` if there are too many points."""
        self._limit(points, "upsert_max_batchsize", "upsert limit")

    def check_searches(self, searches: int) -> None:
        """Raise `RefusedError` if there are too many searches in one request."""
        self._limit(searches, "search_max_batchsize", "search batch size")

    def check_limit(self, limit: int | None) -> None:
        """Raise `RefusedError` if too many points are asked for."""
        self._limit(limit, "max_query_limit", "limit")

    def check_filter(
        self, filter_: models.Filter | None, indexes: Mapping[str, Any], *, write: bool = False
    ) -> None:
        """Raise `RefusedError` if a filter has no index, or too many conditions or values."""
        if filter_ is None:
            return
        option = "unindexed_filtering_update" if write else "unindexed_filtering_retrieve"
        if self.config.get(option) is False and (found := unindexed(filter_, indexes)):
            key, kinds = found
            raise _strict(
                f'Index required but not found for "{key}" of one of the following types: '
                f"[{', '.join(kinds)}]",
                "Create an index for this key or use a different filter.",
            )
        count, most = count_conditions(filter_), self.config.get("filter_max_conditions")
        if most is not None and count > most:
            raise _strict(
                f"Filter condition limit reached ({count} > {most})",
                "Reduce the amount of conditions of your filter.",
            )
        size, largest = largest_condition(filter_), self.config.get("condition_max_size")
        if largest is not None and size > largest:
            raise _strict(
                f"Condition size limit reached ({size} > {largest})",
                "Reduce the size of your condition.",
            )

    def check_query(self, request: Any, indexes: Mapping[str, Any]) -> None:
        """Raise `RefusedError` unless a query, and each prefetch of it, keeps to the limits."""
        for prefetch in listed(request.prefetch):
            self.check_query(prefetch, indexes)
        self.check_limit(request.limit if request.limit is not None else 10)
        self.check_filter(request.filter, indexes)
        self._check_params(request.params)

    def check_groups(self, request: models.QueryGroupsRequest, indexes: Mapping[str, Any]) -> None:
        """Raise `RefusedError` unless a group search keeps to the limits; prefetches are free."""
        group_by = request.group_by
        if self.config.get("unindexed_filtering_retrieve") is False and group_by not in indexes:
            raise _strict(
                f'Index required but not found for "{group_by}"',
                "Create an index supporting `match` for this key.",
            )
        self.check_limit((request.limit or 10) * (request.group_size or 3))
        self.check_filter(request.filter, indexes)
        self._check_params(request.params)

    def _check_params(self, params: models.SearchParams | None) -> None:
        if params is None:
            return
        if params.exact and self.config.get("search_allow_exact") is False:
            raise _strict("Exact search disabled!", "Set exact=false.")
        self._limit(params.hnsw_ef, "search_max_hnsw_ef", "hnsw_ef")


class RateLimiter:
    """A bucket of tokens, filled over a minute.

    Args:
        name: "Read" or "Write".
        capacity: tokens a minute.
    """

    def __init__(self, name: str, capacity: int) -> None:
        self.name, self.capacity, self.tokens = name, capacity, float(capacity)
        self.last = time.monotonic()

    def take(self, cost: int) -> None:
        """Take tokens; raise `RefusedError` if there are too few, or can never be enough."""
        if cost > self.capacity:
            message = (
                f"{self.name} rate limit exceeded, request larger than rate limiter capacity, "
                "please try to split your request"
            )
            raise RefusedError(Kind.RATE, message)
        now = time.monotonic()
        refilled = self.tokens + (now - self.last) * self.capacity / 60
        self.tokens, self.last = min(refilled, float(self.capacity)), now
        if self.tokens >= cost:
            self.tokens -= cost
            return
        wait = math.ceil((cost - self.tokens) / self.capacity * 60)
        message = (
            f"{self.name} rate limit exceeded: Operation requires {cost} tokens but only "
            f"{self.tokens:.1f} were available. Retry after {wait}s"
        )
        raise RefusedError(Kind.RATE, message, retry_after=wait)


# rights


@dataclass(frozen=True)
class Right:
    """What an operation needs: to write, to manage, or only to read a collection."""

    write: bool = False
    manage: bool = False


def access_of(tokens: Mapping[str, Access] | None, key: str | None) -> Access:
    """Return what a key may do; raise `RefusedError` if it may nothing."""
    if tokens is None:
        return "manage"
    if not key:
        message = "Must provide an API key or an Authorization bearer token"
        raise RefusedError(Kind.UNAUTHORIZED, message)
    if key not in tokens:
        raise RefusedError(Kind.UNAUTHORIZED, "Invalid API key or JWT")
    return tokens[key]


def check_right(access: Access, right: Right, collection: str | None) -> None:
    """Raise `RefusedError` unless the operation is allowed."""
    if access == "manage":
        return
    if isinstance(access, str):
        if right.write or right.manage:
            raise RefusedError(Kind.FORBIDDEN, "Global manage access is required")
        return
    if right.manage:
        raise RefusedError(Kind.FORBIDDEN, "Global access is required")
    if collection is None:
        return
    if collection not in access:
        raise RefusedError(Kind.FORBIDDEN, f"Access to collection {collection} is required")
    if right.write and access[collection] == "r":
        raise RefusedError(Kind.FORBIDDEN, f"Write access to collection {collection} is required")
