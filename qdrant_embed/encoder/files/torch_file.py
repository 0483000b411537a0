"""PyTorch files, read without torch and without running anything in them.

``torch.save`` writes a zip archive: ``data.pkl`` is a pickle that describes tensors, and each
``data/N`` holds numbers as they are in memory, uncompressed, so that they can be mapped. A pickle
is a program for a stack machine that may import and call whatever it names. It is not given to
`pickle` here, but to a machine that can do nothing else than describe tensors: it knows the
operations that the description of a state dict consists of, and a dozen names. Whatever else
a file holds is refused by its name.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, NoReturn
from zipfile import ZIP_STORED, BadZipFile, ZipFile, ZipInfo

import numpy as np
from numpy.typing import NDArray

from qdrant_embed.errors import ModelFileError
from qdrant_embed.limits import (
    TENSOR_AXES,
    TORCH_DIRECTORY,
    TORCH_PICKLE,
    TORCH_STACK,
    TORCH_TENSORS,
    shortened,
)

SUFFIXES = (".bin", ".pt", ".pth")
BFLOAT16 = "bfloat16"  # which numpy does not have: the upper half of a float32

_STORAGES: Mapping[str, str] = {
    "DoubleStorage": "f8",
    "FloatStorage": "f4",
    "HalfStorage": "f2",
    "BFloat16Storage": BFLOAT16,
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
_DICT = ("collections", "OrderedDict")
_TENSOR = ("torch._utils", "_rebuild_tensor_v2")
_PARAMETER = ("torch._utils", "_rebuild_parameter")
_NAMES = {_DICT, _TENSOR, _PARAMETER, *(("torch", name) for name in _STORAGES)}

_LARGEST = 1 << 40  # number in the description of a tensor
_LOCAL_HEADER = struct.Struct("<4sHHHHHIIIHH")
_ENCRYPTED = 1
# what zipfile raises of damaged archives
_NO_ZIP = (
    BadZipFile,
    OSError,
    ValueError,
    EOFError,
    KeyError,
    NotImplementedError,
    OverflowError,
    RuntimeError,
    struct.error,
)


@dataclass(frozen=True)
class StoredTensor:
    """A tensor as a file describes it; its numbers are read by `read`.

    Attributes:
        path: the file.
        dtype: numpy's code of the type without byte order, or `BFLOAT16`.
        shape: its sizes.
        start: position in the file of the storage that it is a view of.
        count: numbers in that storage.
        offset: of its first number in the storage, in numbers.
        strides: from each number to the next, by axis, in numbers.
        byte_order: numpy's, ``<`` or ``>``.
    """

    path: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    count: int
    offset: int
    strides: tuple[int, ...]
    byte_order: Literal["<", ">"]

    def read(self, rows: slice = slice(None)) -> NDArray[Any]:
        """Map the numbers, of a tensor with axes those of some `rows`.

        bfloat16 becomes float32, all other types stay as they are.

        Raises:
            ModelFileError: the file is shorter than it was.
        """
        stored = np.dtype(_stored(self.dtype)).newbyteorder(self.byte_order)
        if not math.prod(self.shape):
            found: NDArray[Any] = np.empty(self.shape, stored)
        else:
            try:
                storage = np.memmap(self.path, stored, "r", self.start, (self.count,))
            except (OSError, ValueError) as error:
                raise _unreadable(self.path, f"it has changed ({error})") from error
            size = stored.itemsize
            found = np.ndarray(
                self.shape,
                stored,
                storage,
                self.offset * size,
                tuple(stride * size for stride in self.strides),
            )
        if self.shape:
            found = found[rows]
        if self.dtype != BFLOAT16:
            return found
        halves = found.astype(np.uint32)
        halves <<= 16  # in place: a table of words is large
        return halves.view(np.float32)


def read_torch_file(path: Path) -> dict[str, StoredTensor]:
    """Read the description of the tensors in a file that ``torch.save`` wrote, by their names.

    Raises:
        ModelFileError: it holds anything else, is damaged, or beyond the limits of
            `qdrant_embed.limits`.
    """
    try:
        with path.open("rb") as file:
            archive = _read_archive(path, file)
            pickled = archive.content(file, "data.pkl", TORCH_PICKLE)
            order = (
                archive.content(file, "byteorder", 16) if archive.has("byteorder") else b"little"
            )
    except OSError as error:
        raise _unreadable(path, str(error)) from error
    if order not in (b"little", b"big"):
        raise _unreadable(path, f"its byte order is {order!r}")
    found = _Machine(path, pickled, archive, "<" if order == b"little" else ">").run()
    if not isinstance(found, dict):
        raise _unreadable(path, f"it holds {_kind(found)} instead of tensors by their names")
    tensors: dict[str, StoredTensor] = {}
    for name, value in found.items():
        if not isinstance(value, StoredTensor):
            raise _unreadable(path, f"its entry {name!r:.80} is {_kind(value)}, not a tensor")
        tensors[name] = value
    return tensors


def _unreadable(path: Path, reason: str) -> ModelFileError:
    return ModelFileError(f"{path} cannot be read as a PyTorch file: {reason}")


def _stored(dtype: str) -> str:
    return "u2" if dtype == BFLOAT16 else dtype


# the archive


@dataclass(frozen=True)
class _Archive:
    """Where the parts of an archive are: start and size, by name without the root folder."""

    path: Path
    parts: Mapping[str, tuple[int, int]]

    def has(self, name: str) -> bool:
        return name in self.parts

    def content(self, file: BinaryIO, name: str, largest: int) -> bytes:
        start, size = self.parts[name]
        if size > largest:
            raise _unreadable(
                self.path, f"{name} in it has {size:,} bytes: it can have {largest:,} at most"
            )
        file.seek(start)
        return file.read(size)


class _Bounded:
    """A file that `zipfile` reads no large part of, whatever the archive states."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        if size > TORCH_DIRECTORY:
            raise BadZipFile(
                f"its directory has {size:,} bytes: it can have {TORCH_DIRECTORY:,} at most"
            )
        return self._file.read(TORCH_DIRECTORY if size < 0 else size)


def _read_archive(path: Path, file: BinaryIO) -> _Archive:
    start = file.read(4)
    file.seek(0)
    if start[:1] == b"\x80":
        raise _unreadable(
            path,
            "it is one pickle and no zip archive, as torch wrote files before version 1.6; load "
            "it with torch and save it again, best as safetensors",
        )
    if start != b"PK\3\4":
        raise _unreadable(path, f"it begins with {start!r}, not as a zip archive does")
    try:
        with ZipFile(_Bounded(file)) as archive:
            infos, end = archive.infolist(), archive.start_dir
            return _Archive(path, dict(_parts(file, infos, end)))
    except ModelFileError:
        raise
    except _NO_ZIP as error:
        raise _unreadable(path, f"it is no sound zip archive ({error})") from error


def _parts(file: BinaryIO, infos: list[ZipInfo], end: int) -> Iterator[tuple[str, tuple[int, int]]]:
    """Yield name, start and size of each part.

    Raises:
        ValueError: something about the archive is not as torch writes it.
    """
    if len(infos) > TORCH_TENSORS:
        raise ValueError(f"it has {len(infos):,} parts: it can have {TORCH_TENSORS:,} at most")
    names = {info.orig_filename for info in infos}
    if len(names) < len(infos):
        raise ValueError("two of its parts have the same name")
    pickles = [name for name in names if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise ValueError("it has no part data.pkl in one folder, as files of torch.save do")
    root = pickles[0].removesuffix("data.pkl")
    last = 0
    for info in sorted(infos, key=lambda info: info.header_offset):
        name = info.orig_filename
        inside = name.removeprefix(root)
        if not name.startswith(root) or "\\" in name or ".." in name.split("/") or "\0" in name:
            raise ValueError(f"its part {name!r:.80} is not in the folder {root!r:.80}")
        if inside == "constants.pkl" or inside.startswith("code/"):
            raise ValueError("it is a TorchScript program, not tensors")
        stored = info.compress_type == ZIP_STORED and info.file_size == info.compress_size
        if not stored or info.flag_bits & _ENCRYPTED:
            raise ValueError(f"its part {name!r:.80} is compressed or encrypted")
        file.seek(info.header_offset)
        header = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
        own_name = file.read(header[9])
        if header[0] != b"PK\3\4" or own_name != name.encode():
            raise ValueError(f"the header of its part {name!r:.80} is that of another")
        start = info.header_offset + _LOCAL_HEADER.size + header[9] + header[10]
        if info.header_offset < last or start + info.file_size > end:
            raise ValueError(f"its part {name!r:.80} overlaps another")
        last = start + info.file_size
        yield inside, (start, info.file_size)


# the pickle


@dataclass(frozen=True)
class _Name:
    """What the pickle would have imported."""

    module: str
    name: str

    @property
    def key(self) -> tuple[str, str]:
        return self.module, self.name


@dataclass(frozen=True)
class _Storage:
    dtype: str
    start: int
    count: int


class _OrderedDict(dict[str, Any]):
    """What a state dict is; it alone may have attributes, which are left out."""


class _Machine:
    """Runs a pickle as far as that describes tensors.

    Nothing is imported and nothing called: a name is two strings, and "calling" one of the few
    that are known makes a value of this module.
    """

    def __init__(
        self, path: Path, pickled: bytes, archive: _Archive, byte_order: Literal["<", ">"]
    ) -> None:
        self._path, self._code, self._archive = path, pickled, archive
        self._byte_order = byte_order
        self._at, self._tensors = 0, 0
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def run(self) -> object:
        """Return the value that the pickle ends with."""
        operations = _OPERATIONS
        while True:
            code = self._read(1)
            if code == b".":
                if len(self._stack) != 1 or self._at != len(self._code):
                    self._refuse("its pickle does not end with one value")
                return self._stack[0]
            operation = operations.get(code)
            if operation is None:
                self._refuse(f"its pickle has the operation {_operation_name(code)}")
            operation(self)
            if len(self._stack) > TORCH_STACK or len(self._marks) > TORCH_STACK:
                self._refuse(f"its pickle is nested in more than {TORCH_STACK:,} levels")

    def _refuse(self, reason: str) -> NoReturn:
        raise _unreadable(
            self._path,
            f"{shortened(reason, 400)}, which is not part of a description of tensors; nothing in "
            "it was run",
        )

    # reading

    def _read(self, size: int) -> bytes:
        data = self._code[self._at : self._at + size]
        if len(data) != size:
            self._refuse("its pickle ends too early")
        self._at += size
        return data

    def _number(self, size: int, *, signed: bool = False) -> int:
        return int.from_bytes(self._read(size), "little", signed=signed)

    def _line(self) -> str:
        end = self._code.find(b"\n", self._at, self._at + 1000)
        if end < 0:
            self._refuse("its pickle has a name without end")
        line = self._text(end - self._at)
        self._at += 1
        return line

    def _text(self, size: int) -> str:
        try:
            return self._read(size).decode()
        except UnicodeDecodeError:
            self._refuse("its pickle has a text that is not UTF-8")

    # the stack

    def _pop(self) -> Any:
        if len(self._stack) <= (self._marks[-1] if self._marks else 0):
            self._refuse("its pickle takes a value that is not there")
        return self._stack.pop()

    def _pop_mark(self) -> list[Any]:
        if not self._marks:
            self._refuse("its pickle takes values that are not there")
        mark = self._marks.pop()
        values = self._stack[mark:]
        del self._stack[mark:]
        return values

    def _push(self, value: object) -> None:
        self._stack.append(value)

    # operations

    def _proto(self) -> None:
        self._read(1)

    def _mark(self) -> None:
        self._marks.append(len(self._stack))

    def _global(self) -> None:
        name = _Name(self._line(), self._line())
        if name.key not in _NAMES:
            self._refuse(f"its pickle imports {name.module:.80}.{name.name:.80}")
        self._push(name)

    def _put(self, size: int) -> None:
        value = self._pop()
        self._push(value)
        self._memo[self._number(size)] = value

    def _get(self, size: int) -> None:
        number = self._number(size)
        if number not in self._memo:
            self._refuse("its pickle refers to a value that is not there")
        self._push(self._memo[number])

    def _tuple(self, size: int) -> None:
        values = [self._pop() for _ in range(size)]
        self._push(tuple(values[::-1]))

    def _long(self) -> None:
        size = self._number(1)
        if size > 8:
            self._refuse(f"its pickle has a number of {size} bytes")
        self._push(self._number(size, signed=True))

    def _set_items(self, pairs: list[Any]) -> None:
        target = self._pop()
        self._push(target)
        if not isinstance(target, dict) or len(pairs) % 2:
            self._refuse(f"its pickle puts entries into {_kind(target)}")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            if not isinstance(key, str):
                self._refuse(f"its pickle has an entry whose name is {_kind(key)}")
            target[key] = value

    def _set_item(self) -> None:
        value, key = self._pop(), self._pop()
        self._set_items([key, value])

    def _build(self) -> None:
        state, target = self._pop(), self._pop()
        if not isinstance(target, _OrderedDict) or not isinstance(state, dict):
            self._refuse(f"its pickle gives attributes to {_kind(target)}")
        self._push(target)  # without the attributes, which say nothing of tensors

    def _persistent(self) -> None:
        """Find a storage, which a tuple names: the word, a type, a part, a device, a count."""
        found = self._pop()
        match found:
            case (
                "storage",
                _Name(module="torch", name=kind),
                str(key),
                str(),
                int(count),
            ) if kind in _STORAGES and count >= 0:
                pass
            case _:
                self._refuse(f"its pickle refers to {_kind(found)} outside")
        dtype = _STORAGES[kind]
        start, size = self._archive.parts.get(f"data/{key}", (0, -1))
        if size < 0:
            self._refuse(f"its pickle refers to the part data/{key:.80}, which is not there")
        if count * np.dtype(_stored(dtype)).itemsize > size:
            self._refuse(
                f"its part data/{key:.80} has {size:,} bytes, too few for {count:,} numbers"
            )
        self._push(_Storage(dtype, start, count))

    def _reduce(self) -> None:
        arguments, name = self._pop(), self._pop()
        if not isinstance(name, _Name) or not isinstance(arguments, tuple):
            self._refuse(f"its pickle calls {_kind(name)}")
        match (name.key, arguments):
            case (key, ()) if key == _DICT:
                self._push(_OrderedDict())
            case (key, (StoredTensor() as tensor, bool(), dict())) if key == _PARAMETER:
                self._push(tensor)
            case (
                key,
                (_Storage() as storage, int(offset), tuple(shape), tuple(strides), bool(), dict()),
            ) if key == _TENSOR:
                self._push(self._tensor(storage, offset, shape, strides))
            case _:
                self._refuse(f"its pickle calls {name.module}.{name.name} in an unknown way")

    def _tensor(
        self, storage: _Storage, offset: int, shape: tuple[Any, ...], strides: tuple[Any, ...]
    ) -> StoredTensor:
        self._tensors += 1
        if self._tensors > TORCH_TENSORS:
            self._refuse(f"its pickle describes more than {TORCH_TENSORS:,} tensors")
        numbers = (offset, *shape, *strides)
        if len(shape) != len(strides) or len(shape) > TENSOR_AXES:
            self._refuse(f"its pickle describes a tensor of {len(shape)} sizes")
        if not all(type(number) is int and 0 <= number <= _LARGEST for number in numbers):
            self._refuse("its pickle describes a tensor whose sizes are no sizes")
        last = offset + sum((size - 1) * step for size, step in zip(shape, strides, strict=True))
        # of a tensor without numbers, no other size is one either
        count = math.prod(size or 1 for size in shape)
        fits = count <= _LARGEST if 0 in shape else max(last + 1, count) <= storage.count
        if not fits:
            self._refuse(
                f"its pickle describes a tensor of {shape!r:.80} in {storage.count:,} numbers"
            )
        return StoredTensor(
            self._path,
            storage.dtype,
            shape,
            storage.start,
            storage.count,
            offset,
            strides,
            self._byte_order,
        )


# all that a description of tensors consists of; by its code
_OPERATIONS: Mapping[bytes, Callable[[_Machine], None]] = {
    b"\x80": _Machine._proto,
    b"(": _Machine._mark,
    b"c": _Machine._global,
    b"q": lambda m: m._put(1),
    b"r": lambda m: m._put(4),
    b"h": lambda m: m._get(1),
    b"j": lambda m: m._get(4),
    b")": lambda m: m._tuple(0),
    b"\x85": lambda m: m._tuple(1),
    b"\x86": lambda m: m._tuple(2),
    b"\x87": lambda m: m._tuple(3),
    b"t": lambda m: m._push(tuple(m._pop_mark())),
    b"}": lambda m: m._push({}),
    b"s": _Machine._set_item,
    b"u": lambda m: m._set_items(m._pop_mark()),
    b"X": lambda m: m._push(m._text(m._number(4))),
    b"K": lambda m: m._push(m._number(1)),
    b"M": lambda m: m._push(m._number(2)),
    b"J": lambda m: m._push(m._number(4, signed=True)),
    b"\x8a": _Machine._long,
    b"\x88": lambda m: m._push(True),
    b"\x89": lambda m: m._push(False),
    b"N": lambda m: m._push(None),
    b"Q": _Machine._persistent,
    b"R": _Machine._reduce,
    b"b": _Machine._build,
}


def _operation_name(code: bytes) -> str:
    from pickletools import opcodes

    names = (known.name for known in opcodes if known.code.encode("latin-1") == code)
    return next(names, f"{code!r}, which no pickle has")


def _kind(value: object) -> str:
    """Name what a value is, without showing it: it may be deep."""
    if isinstance(value, _Name):
        return f"the name {value.module}.{value.name}"
    kinds = {StoredTensor: "a tensor", _Storage: "a storage", _OrderedDict: "a dict"}
    kind = kinds.get(type(value))
    return kind or ("nothing" if value is None else f"a value of type {type(value).__name__}")
