"""Read the tensors of safetensors files; the only importer of ``safetensors``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
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
from qdrant_embed.errors import MissingDependencyError, ModelFileError

_LEGACY = {"gamma": "weight", "beta": "bias"}  # in layer norms


class _Index(JsonFile):
    weight_map: dict[str, str]


class _Tensors(Mapping[str, NDArray[Any]]):
    """Tensors that are read when they are requested, and kept while they are in use."""

    def __init__(self, places: Mapping[str, tuple[Path, str]]) -> None:
        self._places = places
        self._in_use: WeakValueDictionary[str, NDArray[Any]] = WeakValueDictionary()

    def __getitem__(self, name: str) -> NDArray[Any]:
        path, own_name = self._places[name]
        tensor = self._in_use.get(name)
        if tensor is None:
            with _explained(path), _library().safe_open(path, "numpy") as file:
                tensor = _finite(path, name, file.get_tensor(own_name))
            self._in_use[name] = tensor
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def read_tensors(files: Sequence[Path]) -> Mapping[str, NDArray[Any]]:
    """Open the tensors of a model: float32, or int64 where the file has integers.

    They are read when they are requested, so that memory need not hold them all.

    Args:
        files: one safetensors file; or an index, then its shards; or an ``.npz`` file.

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
    places: dict[str, tuple[Path, str]] = {}
    decoded: dict[str, NDArray[Any]] = {}
    for shard in shards:
        with _explained(shard), _library().safe_open(shard, "numpy") as file:
            names = list(file.keys())
            is_half = any(file.get_slice(name).get_dtype() == "BF16" for name in names)
        if is_half:
            decoded |= {_modern(name): tensor for name, tensor in _decoded_file(shard)}
        else:
            places |= {_modern(name): (shard, name) for name in names}
    tensors = _Tensors(places)
    return {**tensors, **decoded} if decoded else tensors


def tensor_shapes(files: Sequence[Path]) -> dict[str, tuple[int, ...]]:
    """Read the shapes of a model's tensors; arguments and errors as in `read_tensors`."""
    shapes: dict[str, tuple[int, ...]] = {}
    for path in files:
        with _explained(path), _library().safe_open(path, "numpy") as file:
            names = file.keys()
            shapes |= {name: tuple(file.get_slice(name).get_shape()) for name in names}
    return shapes


def _modern(name: str) -> str:
    """Translate a tensor's name: files converted from TensorFlow have other ones."""
    module, _, last = name.rpartition(".")
    return f"{module}.{_LEGACY[last]}" if last in _LEGACY else name


def _decoded_file(path: Path) -> Iterator[tuple[str, NDArray[Any]]]:
    with _explained(path):
        for name, tensor in _library().deserialize(path.read_bytes()):
            yield name, _decoded(path, name, tensor)


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
    if not np.isfinite(converted).all():
        raise ModelFileError(f"{path}: tensor {name!r:.200} has values that are no finite numbers")
    return converted


_KINDS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I8": "i1"}


def _decoded(path: Path, name: str, tensor: Mapping[str, Any]) -> NDArray[Any]:
    """Decode a tensor's bytes; numpy has no bfloat16, which is the upper half of a float32."""
    if tensor["dtype"] == "BF16":
        halves = np.frombuffer(tensor["data"], "<u2").astype(np.uint32)
        return _finite(path, name, (halves << 16).view(np.float32).reshape(tensor["shape"]))
    kind = _KINDS.get(tensor["dtype"])
    if kind is None:
        raise ModelFileError(f"{path}: tensor {name!r} has the unknown type {tensor['dtype']}")
    return _finite(path, name, np.frombuffer(tensor["data"], kind).reshape(tensor["shape"]))
