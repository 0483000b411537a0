"""Points and queries as bytes of protobuf messages, without an object for each of their parts.

``qdrant_client`` builds a message of messages for a point: one for each value of its payload, and
a Python number for each of its vector. The bytes are simple enough to be written as they are: a
field's number and type, a length, the content. protobuf itself then reads them into one message.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from numpy.typing import NDArray
from qdrant_client import grpc, models
from qdrant_client.conversions.conversion import RestToGrpc

from qdrant_embed.engines.points import Points

TooDeepError = DecodeError  # of a payload whose messages are nested further than protobuf reads
_VARINT, _FIXED64, _BYTES = 0, 1, 2  # types of a field


class NotEncodableError(TypeError):
    """A payload has a value that these messages do not hold as it is."""


def _varint(number: int) -> bytes:
    if number < 0x80:
        return _ONE_BYTE[number]
    encoded = bytearray()
    while number >= 0x80:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


_ONE_BYTE = [bytes([number]) for number in range(0x80)]


def _tag(message: Any, field: str, kind: int = _BYTES) -> bytes:
    return _varint(message.DESCRIPTOR.fields_by_name[field].number << 3 | kind)


def _sized(tag: bytes, content: bytes) -> bytes:
    return tag + _varint(len(content)) + content


_POINTS = _tag(grpc.UpsertPoints, "points")
_ID, _PAYLOAD, _VECTORS = (_tag(grpc.PointStruct, field) for field in ("id", "payload", "vectors"))
_NUMBER, _UUID = _tag(grpc.PointId, "num", _VARINT), _tag(grpc.PointId, "uuid")
_UNNAMED, _NAMED = _tag(grpc.Vectors, "vector"), _tag(grpc.Vectors, "vectors")
_NAMED_ENTRY = _tag(grpc.NamedVectors, "vectors")
_DENSE, _SPARSE = _tag(grpc.Vector, "dense"), _tag(grpc.Vector, "sparse")
_MULTI, _ROW = _tag(grpc.Vector, "multi_dense"), _tag(grpc.MultiDenseVector, "vectors")
_DATA = _tag(grpc.DenseVector, "data")  # packed: all floats in one piece
_KEY, _VALUE = _varint(1 << 3 | _BYTES), _varint(2 << 3 | _BYTES)  # of every entry of a map

_Value = grpc.PointStruct.DESCRIPTOR.fields_by_name["payload"].message_type.fields_by_name["value"]
_KINDS = _Value.message_type.fields_by_name


def _kind(field: str, kind: int) -> bytes:
    return _varint(_KINDS[field].number << 3 | kind)


_NULL = _kind("null_value", _VARINT) + _varint(0)
_FALSE, _TRUE = (_kind("bool_value", _VARINT) + _varint(value) for value in (0, 1))
_INTEGER, _DOUBLE = _kind("integer_value", _VARINT), _kind("double_value", _FIXED64)
_STRING, _STRUCT = _kind("string_value", _BYTES), _kind("struct_value", _BYTES)
_LIST = _kind("list_value", _BYTES)
_FIELDS = _varint(_KINDS["struct_value"].message_type.fields_by_name["fields"].number << 3 | _BYTES)
_VALUES = _varint(_KINDS["list_value"].message_type.fields_by_name["values"].number << 3 | _BYTES)


def upsert_message(collection_name: str, points: Points, **options: Any) -> grpc.UpsertPoints:
    """Return the message that stores points; equal to the one ``qdrant_client`` builds of them.

    Args:
        collection_name: name of the collection.
        points: the points.
        options: other fields of the message.

    Raises:
        NotEncodableError: if a payload holds what only ``qdrant_client`` itself can convert or
            refuse.
    """
    rows = points.dense.astype("<f4", copy=False)
    size = rows.shape[1] * 4
    data = memoryview(rows.tobytes())
    head = _DATA + _varint(size)
    head = _DENSE + _varint(len(head) + size) + head
    name = _sized(_KEY, points.dense_name.encode())
    keys: dict[str, bytes] = {}
    parts: list[bytes | memoryview] = []
    for index, (point_id, payload) in enumerate(zip(points.ids, points.payloads, strict=True)):
        sparse = points.sparse_of(index)
        vector = head + data[index * size : (index + 1) * size]
        if points.dense_name or sparse is not None or points.late is not None:
            vector = _sized(_NAMED_ENTRY, name + _sized(_VALUE, vector))
            if sparse is not None:
                vector += _sized(_NAMED_ENTRY, _named_sparse(points.sparse_name, sparse))
            if points.late is not None:
                tokens = _named_tokens(points.late_name, points.late[index])
                vector += _sized(_NAMED_ENTRY, tokens)
            vectors = _sized(_NAMED, vector)
        else:
            vectors = _sized(_UNNAMED, vector)
        point = _sized(_ID, _id(point_id)) + _map(payload, _PAYLOAD, keys)
        parts.append(_sized(_POINTS, point + _sized(_VECTORS, vectors)))
    message: grpc.UpsertPoints = grpc.UpsertPoints.FromString(b"".join(parts))
    # fields in the same message, set the usual way
    message.MergeFrom(grpc.UpsertPoints(collection_name=collection_name, **options))
    return message


def query_message(collection_name: str, request: models.QueryRequest) -> grpc.QueryPoints:
    """Return the message of a query; equal to the one ``qdrant_client`` builds of it."""
    if not is_vector(request.query):
        return RestToGrpc.convert_query_request(resolved(request), collection_name)
    vector = cast("list[float]", request.query)
    rest = request.model_copy(update={"query": None})
    message = RestToGrpc.convert_query_request(rest, collection_name)
    try:
        data = struct.pack(f"<{len(vector)}f", *vector)
    except OverflowError:  # beyond float32
        return RestToGrpc.convert_query_request(resolved(request), collection_name)
    dense = grpc.DenseVector.FromString(_sized(_DATA, data))
    message.query.CopyFrom(grpc.Query(nearest=grpc.VectorInput(dense=dense)))
    return message


def is_vector(query: object) -> bool:
    """Return whether a query is a single dense vector."""
    return isinstance(query, list) and bool(query) and isinstance(query[0], float)


def resolved(request: models.QueryRequest) -> models.QueryRequest:
    """Return a request whose vector is a query; the request itself stays as it is."""
    if not isinstance(request.query, list | models.SparseVector):
        return request
    query = models.NearestQuery(nearest=request.query)
    return request.model_copy(update={"query": query})


def _id(point_id: str | int) -> bytes:
    if isinstance(point_id, int):
        return _NUMBER + _varint(point_id)
    return _sized(_UUID, str(point_id).encode())


def _named_sparse(name: str, vector: models.SparseVector) -> bytes:
    sparse = grpc.SparseVector(values=vector.values, indices=vector.indices).SerializeToString()
    return _sized(_KEY, name.encode()) + _sized(_VALUE, _sized(_SPARSE, sparse))


def _named_tokens(name: str, rows: NDArray[np.float32]) -> bytes:
    content = _tokens(rows)
    return _sized(_KEY, name.encode()) + _sized(_VALUE, _sized(_MULTI, content))


def _tokens(rows: NDArray[np.float32]) -> bytes:
    """Encode vectors, float32 [tokens, dimension], as a `MultiDenseVector`."""
    size = rows.shape[1] * 4
    data, head = rows.astype("<f4", copy=False).tobytes(), _DATA + _varint(size)
    head = _ROW + _varint(len(head) + size) + head
    return b"".join(head + data[start : start + size] for start in range(0, len(data), size))


def _map(values: Mapping[str, Any], tag: bytes, keys: dict[str, bytes]) -> bytes:
    encoded = b""
    for key, value in values.items():
        start = keys.get(key)
        if start is None:
            if type(key) is not str:
                raise NotEncodableError(f"key {key!r} is a {type(key).__name__}")
            start = keys[key] = _sized(_KEY, key.encode())
        encoded += _sized(tag, start + _sized(_VALUE, _value(value, keys)))
    return encoded


def _value(value: Any, keys: dict[str, bytes]) -> bytes:
    kind = type(value)
    if kind is str:
        encoded = _sized(_STRING, value.encode())
    elif kind is int and -(2**63) <= value < 2**63:
        encoded = _INTEGER + _varint(value & (2**64 - 1))
    elif kind is float:
        encoded = _DOUBLE + struct.pack("<d", value)
    elif kind is bool:
        encoded = _TRUE if value else _FALSE
    elif value is None:
        encoded = _NULL
    elif kind is dict:
        encoded = _sized(_STRUCT, _map(value, _FIELDS, keys))
    elif kind is list or kind is tuple:
        encoded = _sized(_LIST, b"".join(_sized(_VALUES, _value(item, keys)) for item in value))
    else:
        raise NotEncodableError(f"{value!r:.80} is a {kind.__name__}")
    return encoded
