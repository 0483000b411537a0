"""Read the tensors of a model's files; the only importer of ``safetensors``."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from struct import error as StructError  # noqa: N812 - it is one
from tokenize import TokenError
from types import ModuleType
from typing import Any, BinaryIO
from weakref import WeakValueDictionary
from zipfile import ZIP_STORED, BadZipFile, ZipFile

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from qdrant_embed.encoder.facts.jsonfile import JsonFile, read_json
from qdrant_embed.encoder.facts.precision import Storage
from qdrant_embed.encoder.files.torch_file import (
    BFLOAT16,
    SUFFIXES,
    StoredTensor,
    read_torch_file,
)
from qdrant_embed.errors import MissingDependencyError, ModelFileError

_HALVES: Mapping[str, Storage] = {BFLOAT16: "bf16", "f2": "fp16", "F16": "fp16"}
_LEGACY = {"gamma": "weight", "beta": "bias"}  # in layer norms


class _Index(JsonFile):
    weight_map: dict[str, str]


@dataclass(frozen=True)
class _SafeTensor:
    """A tensor of a safetensors file; its numbers are read by `read`."""

    path: Path
    name: str
    shape: tuple[int, ...]
    dtype: str

    def read(self, rows: slice = slice(None)) -> NDArray[Any]:
        """Read the numbers, of a tensor with axes those of some `rows`."""
        with _explained(self.path), _library().safe_open(self.path, "numpy") as file:
            if rows == slice(None):
                return np.asarray(file.get_tensor(self.name))
            return np.asarray(file.get_slice(self.name)[rows])


class Tensors(Mapping[str, NDArray[Any]]):
    """Tensors that are read when they are requested, and kept while they are in use."""

    def __init__(self, stored: Mapping[str, tuple[str, StoredTensor | _SafeTensor]]) -> None:
        self._stored = stored  # each with the name in its file
        self._in_use: WeakValueDictionary[str, NDArray[Any]] = WeakValueDictionary()

    def __getitem__(self, name: str) -> NDArray[Any]:
        own, stored = self._stored[name]
        tensor = self._in_use.get(name)
        if tensor is None:
            tensor = self._in_use[name] = _finite(stored.path, own, stored.read())
        return tensor

    def __contains__(self, name: object) -> bool:
        return name in self._stored  # without reading it

    def blocks(self, name: str, rows: int) -> Iterator[NDArray[Any]]:
        """Yield the tensor in blocks of so many rows; it may be too large to be held."""
        own, stored = self._stored[name]
        count = stored.shape[0]
        for start in range(0, count, rows):
            block = slice(start, min(start + rows, count))
            yield _finite(stored.path, own, stored.read(block))

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the tensor's shape, as its file states it."""
        return self._stored[name][1].shape

    def storage(self, name: str) -> Storage:
        """Return the type that the tensor is stored in; ``fp32`` for those of more bits, too."""
        return _HALVES.get(self._stored[name][1].dtype, "fp32")

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def __len__(self) -> int:
        return len(self._stored)


def read_tensors(files: Sequence[Path]) -> Mapping[str, NDArray[Any]]:
    """Open the tensors of a model: float32, or int64 where the file has integers.

    They are read when they are requested, so that memory need not hold them all.

    Args:
        files: one safetensors or PyTorch file; or an index, then its shards; or an ``.npz`` file.

    Raises:
        ModelFileError: a file is missing or of another format, or has an unknown data type.
        MissingDependencyError: ``safetensors`` is not installed.
    """
    index, shards = files[0], files
    if index.suffix == ".npz":
        return _archived(index)
    if index.suffix == ".json":
        shards = files[1:]
        named = set(read_json(index, TypeAdapter(_Index)).weight_map.values())
        if missing := sorted(named - {shard.name for shard in shards}):
            raise ModelFileError(f"{index} names files that are missing: {', '.join(missing)}")
    stored: dict[str, tuple[str, StoredTensor | _SafeTensor]] = {}
    for shard in shards:
        if shard.suffix in SUFFIXES:
            own: Mapping[str, StoredTensor | _SafeTensor] = read_torch_file(shard)
        else:
            own = _safe_tensors(shard)
        stored |= {_modern(name): (name, tensor) for name, tensor in own.items()}
    return Tensors(stored)


def tensor_shapes(files: Sequence[Path]) -> dict[str, tuple[int, ...]]:
    """Read the shapes of a model's tensors; arguments and errors as in `read_tensors`."""
    shapes: dict[str, tuple[int, ...]] = {}
    for path in files:
        if path.suffix in SUFFIXES:
            shapes |= {name: tensor.shape for name, tensor in read_torch_file(path).items()}
            continue
        with _explained(path), _library().safe_open(path, "numpy") as file:
            names = file.keys()
            shapes |= {name: tuple(file.get_slice(name).get_shape()) for name in names}
    return shapes


def _safe_tensors(path: Path) -> dict[str, StoredTensor | _SafeTensor]:
    """Find the tensors of a safetensors file."""
    found: dict[str, StoredTensor | _SafeTensor] = {}
    with _explained(path), _library().safe_open(path, "numpy") as file:
        for name in file.keys():  # noqa: SIM118 - it is no dict
            part = file.get_slice(name)
            shape = tuple(part.get_shape())
            found[name] = _SafeTensor(path, name, shape, part.get_dtype())
    halves = [name for name, tensor in found.items() if tensor.dtype == "BF16"]
    return found | _bfloats(path, halves)


def _modern(name: str) -> str:
    """Translate a tensor's name: files converted from TensorFlow have other ones."""
    module, _, last = name.rpartition(".")
    return f"{module}.{_LEGACY[last]}" if last in _LEGACY else name


def _bfloats(path: Path, names: Sequence[str]) -> dict[str, StoredTensor]:
    """Find the tensors of type bfloat16, which the library cannot hand to numpy."""
    if not names:
        return {}
    with _explained(path), path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")  # the library has checked all of it
        header = json.loads(file.read(size))
        found: dict[str, StoredTensor] = {}
        for name in names:
            shape = tuple(header[name]["shape"])
            start = 8 + size + header[name]["data_offsets"][0]
            count = math.prod(shape)
            strides = tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
            found[name] = StoredTensor(path, BFLOAT16, shape, start, count, 0, strides, "<")
        return found


def _archived(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with path.open("rb") as file:
            _check_archive(file, path.stat().st_size)
            with np.load(file, allow_pickle=False) as archive:
                return {name: _finite(path, name, archive[name]) for name in archive.files}
    except ModelFileError:
        raise
    except _NO_ARCHIVE as error:
        raise ModelFileError(f"{path} cannot be read as an archive of arrays: {error}") from error


# what zipfile and numpy raise of damaged archives, whose arrays may state any size and type
_NO_ARCHIVE = (
    OSError,
    ValueError,
    BadZipFile,
    EOFError,
    KeyError,
    OverflowError,
    MemoryError,
    NotImplementedError,
    RuntimeError,  # also a RecursionError
    TypeError,
    AttributeError,
    SyntaxError,
    TokenError,
    StructError,
)


def _check_archive(file: BinaryIO, size: int) -> None:
    """Raise `ValueError` unless an archive's parts are stored as they are, as numpy writes them."""
    with ZipFile(file) as archive:
        for part in archive.infolist():
            if part.compress_type != ZIP_STORED or part.flag_bits & 1 or part.file_size > size:
                raise ValueError(f"{part.filename!r:.80} is compressed or encrypted")
    file.seek(0)


def _library() -> ModuleType:
    try:
        import safetensors
    except ImportError as error:
        raise MissingDependencyError("safetensors", "reading a model's weights") from error
    return safetensors


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except ModelFileError:
        raise
    # AttributeError: of numpy, which does not have all types
    except (
        _library().SafetensorError,
        OSError,
        KeyError,
        TypeError,
        ValueError,
        OverflowError,
        AttributeError,
    ) as error:
        raise ModelFileError(f"{path} cannot be read as safetensors: {error}") from error


def _finite(path: Path, name: str, tensor: NDArray[Any]) -> NDArray[Any]:
    """Convert a tensor to float32 or int64.

    Raises:
        ModelFileError: it has values that are not finite.
    """
    if tensor.dtype.kind in "iub":
        return np.asarray(tensor, np.int64)
    with np.errstate(all="ignore"):
        converted = np.asarray(tensor, np.float32)
    # a value that is none makes these none, and no array of truths is needed
    if converted.size and not np.isfinite([converted.min(), converted.max()]).all():
        raise ModelFileError(f"{path}: tensor {name!r:.200} has values that are no finite numbers")
    return converted
