"""A compiled graph as short texts alone need it, without what it has for long ones.

A graph may compute attention in two ways, of which the length of the texts chooses one, in every
layer (``If``). To choose is a few per cent of the time of a single short text. The choices are
taken out of the file's bytes, which Protocol Buffers lays out
(https://protobuf.dev/programming-guides/encoding/; numbers of fields from onnx.proto): the package
``onnx``, which is there to compile models, takes longer to import than a model to load.
"""

from __future__ import annotations

from collections.abc import Iterator

# of ModelProto, GraphProto, NodeProto, AttributeProto and ValueInfoProto
_GRAPH = 7
_NODE, _OUTPUTS = 1, 12
_READS, _WRITES, _OPERATOR, _ATTRIBUTE = 1, 2, 4, 5
_NAME, _BRANCH = 1, 6

_FIXED = {1: 8, 5: 4}  # bytes of what is written with these types
_VARINT, _BYTES = 0, 2


def short_graph(model: bytes) -> bytes | None:
    """Return a compiled graph that always takes what it has for short texts.

    Args:
        model: the graph, as an ONNX file.

    Returns:
        The changed file, which reads the same constants from beside itself; ``None`` if the graph
        does not choose, or is none that can be read.
    """
    try:
        parts = [
            _written(_GRAPH, _without_choices(content)) if number == _GRAPH else field
            for number, field, content in _fields(model)
        ]
    except (IndexError, KeyError, ValueError):
        return None
    changed = b"".join(parts)
    return None if changed == model else changed


def _without_choices(graph: bytes) -> bytes:
    """Put the second branch of each ``If`` in its place, and leave out what it was decided by."""
    nodes = [node for number, _, node in _fields(graph) if number == _NODE]
    decided = {_first(node, _READS) for node in nodes if _first(node, _OPERATOR) == b"If"}
    parts: list[bytes] = []
    for number, field, node in _fields(graph):
        if number == _NODE and _first(node, _OPERATOR) == b"If":
            branch = _else_branch(node)
            parts += [part for number, part, _ in _fields(branch) if number == _NODE]
            result = _first(_first(branch, _OUTPUTS), _NAME)
            renamed = (_READS, result), (_WRITES, _first(node, _WRITES)), (_OPERATOR, b"Identity")
            parts.append(_written(_NODE, b"".join(_written(*part) for part in renamed)))
        elif number != _NODE or _first(node, _WRITES) not in decided:
            parts.append(field)
    return b"".join(parts)


def _else_branch(node: bytes) -> bytes:
    """Return the graph that a node runs where its condition is false: the texts are not long."""
    for number, _, attribute in _fields(node):
        if number == _ATTRIBUTE and _first(attribute, _NAME) == b"else_branch":
            return _first(attribute, _BRANCH)
    raise ValueError("a choice without a second branch")


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
