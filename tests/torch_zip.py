"""Files as `torch.save` writes them, made without torch, whole or with anything else in them."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

STORAGES = {"f4": "Float", "f2": "Half", "f8": "Double", "i8": "Long", "i4": "Int"}
PROTO, STOP = b"\x80\x02", b"."


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def number(value: int) -> bytes:
    if 0 <= value < 256:
        return b"K" + bytes([value])
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    data = value.to_bytes((value.bit_length() + 8) // 8, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def tuple_of(*parts: bytes) -> bytes:
    return b"(" + b"".join(parts) + b"t"


def name_of(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def storage(kind: str, key: str, count: int) -> bytes:
    parts = (text("storage"), name_of("torch", f"{kind}Storage"), text(key), text("cpu"))
    return tuple_of(*parts, number(count)) + b"Q"


EMPTY = name_of("collections", "OrderedDict") + b")R"


def tensor(stored: bytes, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> bytes:
    sizes = (tuple_of(*map(number, values)) for values in (shape, strides))
    arguments = tuple_of(stored, number(offset), *sizes, b"\x89", EMPTY)
    return name_of("torch._utils", "_rebuild_tensor_v2") + arguments + b"R"


def entries(pairs: Mapping[str, bytes]) -> bytes:
    """The pickle of a state dict whose values are pickled already."""
    items = b"".join(text(name) + value for name, value in pairs.items())
    return PROTO + EMPTY + b"(" + items + b"u" + STOP


def described(tensors: Mapping[str, NDArray[Any]]) -> dict[str, bytes]:
    """The description of each tensor, contiguous, in a storage of its own."""
    found = {}
    for key, (name, array) in enumerate(tensors.items()):
        strides = tuple(size // array.itemsize for size in np.ascontiguousarray(array).strides)
        kind = STORAGES[array.dtype.str[1:]]
        stored = storage(kind, str(key), array.size)
        found[name] = tensor(stored, 0, array.shape, strides)
    return found


def parts_of(tensors: Mapping[str, NDArray[Any]]) -> dict[str, bytes]:
    """The parts of an archive with these tensors."""
    data = {f"data/{key}": array.tobytes() for key, array in enumerate(tensors.values())}
    pickled = entries(described(tensors))
    return {"data.pkl": pickled, "byteorder": b"little", **data, "version": b"3\n"}


def zipped(parts: Mapping[str, bytes], root: str = "archive/", **options: Any) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", **options) as archive:
        for name, content in parts.items():
            archive.writestr(zipfile.ZipInfo(root + name), content, archive.compression)
    return stream.getvalue()


def save_torch(tensors: Mapping[str, NDArray[Any]], path: Path) -> None:
    """Write tensors as `torch.save` writes a state dict."""
    path.write_bytes(zipped(parts_of(tensors)))
