"""A compiled graph as short texts alone need it, without what it has for long ones.

A graph may compute attention in two ways, of which the length of the texts chooses one, in every
layer (``If``). To choose is a few per cent of the time of a single short text. The choices are
taken out of the file's bytes, which Protocol Buffers lays out
(https://protobuf.dev/programming-guides/encoding/; numbers of fields from onnx.proto): the package
``onnx``, which is there to compile models, takes longer to import than a model to load.
"""

from __future__ import annotations

from collections.abc import Iterator

# of ModelProto, GraphProto, NodeProto, AttributeProto, ValueInfoProto and TensorProto
_GRAPH = 7
_NODE, _CONSTANT, _OUTPUTS = 1, 5, 12
_READS, _WRITES, _OPERATOR, _ATTRIBUTE = 1, 2, 4, 5
_NAME, _BRANCH = 1, 6
_TENSOR_NAME, _RAW_DATA = 8, 9

_FIXED = {1: 8, 5: 4}  # bytes of what is written with these types
_VARINT, _BYTES = 0, 2

# the attributes start=1 and end=2 of the number of tokens, as AttributeProto has whole numbers
_SECOND_AXIS = {b"\n\x05start\x18\x01\xa0\x01\x02", b"\n\x03end\x18\x02\xa0\x01\x02"}


class _OtherFormError(Exception):
    """The graph does not choose by length as compiled graphs do."""


def short_graph(model: bytes, long_text: int) -> bytes | None:
    """Return a compiled graph that always takes what it has for short texts.

    Args:
        model: the graph, as an ONNX file.
        long_text: tokens from which the graph takes what it has for long ones.

    Returns:
        The changed file, which reads the same constants from beside itself; ``None`` if the graph
        does not choose, chooses in another way, or is none that can be read.
    """
    try:
        parts = [
            _written(_GRAPH, _without_choices(content, long_text)) if number == _GRAPH else field
            for number, field, content in _fields(model)
        ]
    except (IndexError, KeyError, ValueError, _OtherFormError):
        return None
    changed = b"".join(parts)
    return None if changed == model else changed


def _without_choices(graph: bytes, long_text: int) -> bytes:
    """Put the second branch of each ``If`` in its place, and leave out what it was decided by.

    Raises:
        _OtherFormError: one is decided by something else than a text's length, or is not plain.
    """
    fields = [*_fields(graph)]
    nodes = [node for number, _, node in fields if number == _NODE]
    decided = {_only(node, _READS) for node in nodes if _first(node, _OPERATOR) == b"If"}
    _check_decisions(fields, nodes, decided, long_text)
    parts: list[bytes] = []
    for number, field, node in fields:
        if number == _NODE and _first(node, _OPERATOR) == b"If":
            branch = _else_branch(node)
            if _all(branch, _CONSTANT):
                raise _OtherFormError
            parts += [part for number, part, _ in _fields(branch) if number == _NODE]
            result = _first(_only(branch, _OUTPUTS), _NAME)
            renamed = (_READS, result), (_WRITES, _only(node, _WRITES)), (_OPERATOR, b"Identity")
            parts.append(_written(_NODE, b"".join(_written(*part) for part in renamed)))
        elif number != _NODE or _first(node, _WRITES) not in decided:
            parts.append(field)
    return b"".join(parts)


def _check_decisions(
    fields: list[tuple[int, bytes, bytes]], nodes: list[bytes], decided: set[bytes], long_text: int
) -> None:
    """Raise `_OtherFormError` unless the names in `decided` only say whether texts are long."""
    made_by = {_first(node, _WRITES): node for node in nodes}
    number = long_text.to_bytes(8, "little")
    limits = {
        _first(tensor, _TENSOR_NAME)
        for kind, _, tensor in fields
        if kind == _CONSTANT and _all(tensor, _RAW_DATA) == [number]
    }
    for name in decided:
        test = made_by[name]
        tokens, limit = _all(test, _READS)
        length = made_by[tokens]
        if (
            _first(test, _OPERATOR) != b"GreaterOrEqual"
            or limit not in limits
            or _first(length, _OPERATOR) != b"Shape"
            or _all(length, _READS) != [b"input_ids"]
            or {*_all(length, _ATTRIBUTE)} != _SECOND_AXIS
        ):
            raise _OtherFormError
    read = [name for node in nodes for name in _all(node, _READS)]
    choices = [node for node in nodes if _first(node, _OPERATOR) == b"If"]
    inside = b"".join(content for node in choices for content in _all(node, _ATTRIBUTE))
    outputs = [_first(output, _NAME) for kind, _, output in fields if kind == _OUTPUTS]
    if sum(name in decided for name in read) != len(choices) or decided & {*outputs}:
        raise _OtherFormError
    if any(name in inside for name in decided):
        raise _OtherFormError


def _else_branch(node: bytes) -> bytes:
    """Return the graph that a node runs where its condition is false: the texts are not long."""
    for attribute in _all(node, _ATTRIBUTE):
        if _first(attribute, _NAME) == b"else_branch":
            return _first(attribute, _BRANCH)
    raise _OtherFormError


def _all(message: bytes, wanted: int) -> list[bytes]:
    """Return the content of the fields with that number."""
    return [content for number, _, content in _fields(message) if number == wanted]


def _only(message: bytes, wanted: int) -> bytes:
    """Return the content of the only field with that number.

    Raises:
        ValueError: there are others, or there is none.
    """
    [content] = _all(message, wanted)
    return content


def _first(message: bytes, wanted: int) -> bytes:
    """Return the content of the first field with that number.

    Raises:
        KeyError: there is none.
    """
    for number, _, content in _fields(message):
        if number == wanted:
            return content
    raise KeyError(wanted)


def _fields(message: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Yield the number of each field, the whole field, and the bytes in it, if it has some."""
    end = 0
    while (start := end) < len(message):
        key, end = _varint(message, start)
        number, kind, content = key >> 3, key & 7, b""
        if kind == _VARINT:
            _, end = _varint(message, end)
        elif kind == _BYTES:
            size, begin = _varint(message, end)
            end = begin + size
            content = message[begin:end]
        else:
            end += _FIXED[kind]
        if end > len(message):
            raise ValueError("a field goes on after the end")
        yield number, message[start:end], content


def _varint(message: bytes, position: int) -> tuple[int, int]:
    """Return the number that begins at a position, seven bits a byte, and where it has ended."""
    value = 0
    for shift in range(0, 64, 7):
        byte = message[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
    raise ValueError("a number of more than 64 bits")


def _written(number: int, content: bytes) -> bytes:
    """Return a field with bytes in it."""
    size, length = len(content), bytearray()
    while size > 127:
        length.append(size & 127 | 128)
        size >>= 7
    return bytes([number << 3 | _BYTES, *length, size]) + content
