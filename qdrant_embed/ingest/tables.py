"""Parquet and Arrow files, read with pyarrow, an optional library; its only importer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias
from urllib.parse import unquote

from qdrant_embed.errors import InputError, MissingDependencyError

Format: TypeAlias = Literal["parquet", "arrow"]

_FORMATS: Mapping[str, Format] = {".parquet": "parquet", ".arrow": "arrow", ".feather": "arrow"}
_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
_BUFFER = 1 << 16  # bytes; else a whole column of a row group is read


def pyarrow(purpose: str) -> Any:
    """Return the module.

    Args:
        purpose: what needs it, for the error.

    Raises:
        MissingDependencyError: if it is not installed.
    """
    try:
        import pyarrow as module
    except ImportError as error:
        raise MissingDependencyError("pyarrow", purpose, extra="arrow") from error
    return module


def table_format(path: Path) -> Format | None:
    """Return the format that a file's name says it has; ``None`` if that is another one."""
    return _FORMATS.get(path.suffix.lower())


class Reading(Protocol):
    """Reads the record batches of an open file."""

    def __call__(self, columns: Sequence[str]) -> Iterator[Any]:
        """Yield record batches with these columns."""


@dataclass(frozen=True)
class TableFile:
    """A Parquet or Arrow file.

    Attributes:
        path: where it is.
        constants: columns that its folders' names tell, as ``year=2024``, with their value.
        rows: number of its rows; ``None`` if that has not been read.
    """

    path: Path
    constants: Mapping[str, str | int | None] = field(default_factory=dict)
    rows: int | None = None

    @contextmanager
    def opened(self, size: int) -> Iterator[tuple[list[str], Reading]]:
        """Open the file, and give the names of its columns, and what reads them.

        Args:
            size: number of rows in a batch at most, where the file is not already in batches.

        Raises:
            InputError: if it cannot be read.
        """
        arrow = pyarrow(f"reading {self.path}")
        with _explained(self.path):
            if table_format(self.path) == "parquet":
                from pyarrow import parquet

                found = parquet.ParquetFile(self.path, buffer_size=_BUFFER, pre_buffer=False)
                reading = partial(_read_parquet, found, size)
                names = found.schema_arrow.names
            else:
                found = arrow.memory_map(str(self.path))
                batches = _arrow_batches(arrow, found)
                names, reading = batches.schema.names, partial(_read_arrow, batches)
        try:
            yield names, lambda columns: self._each(reading(columns))
        finally:
            found.close()

    def _each(self, batches: Iterator[Any]) -> Iterator[Any]:
        while True:
            with _explained(self.path):
                batch = next(batches, None)
            if batch is None:
                return
            yield batch


def open_tables(path: Path) -> list[TableFile]:
    """Return a file, or those of a folder and its subfolders, in the order of their names.

    What pyarrow frees it gives back to the system from now on, in the whole process: this is for
    the command.

    Raises:
        InputError: if there is none, the folder has others, too, or a file cannot be read.
        MissingDependencyError: if pyarrow is not installed.
    """
    arrow = pyarrow(f"reading {path}")
    arrow.set_memory_pool(arrow.system_memory_pool())
    if not path.is_dir():
        with _explained(path), path.open("rb"):
            pass
        if table_format(path) != "parquet":
            return [TableFile(path)]
        from pyarrow import parquet

        with _explained(path):
            return [TableFile(path, rows=parquet.read_metadata(path).num_rows)]
    files = sorted(
        each
        for each in path.rglob("*")
        if each.is_file() and not each.name.startswith((".", "_"))  # marks that writers leave
    )
    if others := [each for each in files if table_format(each) is None]:
        raise InputError(f"folder {path} has {others[0].name}: only .parquet and .arrow are read")
    if not files:
        raise InputError(f"folder {path} has no .parquet or .arrow files")
    return [TableFile(each, _constants(each.relative_to(path))) for each in files]


def _constants(path: Path) -> dict[str, str | int | None]:
    named = [part.partition("=") for part in path.parent.parts]
    return {unquote(name): _constant(unquote(value)) for name, equal, value in named if equal}


def _constant(text: str) -> str | int | None:
    if text == _NO_VALUE:
        return None
    is_whole = text.isascii() and text.isdecimal() and text == str(int(text))
    return int(text) if is_whole else text


def _read_parquet(file: Any, size: int, columns: Sequence[str]) -> Iterator[Any]:
    yield from file.iter_batches(batch_size=size, columns=[*columns], use_threads=False)


def _arrow_batches(arrow: Any, file: Any) -> Any:
    """Return the record batches of a file in either of the formats that Arrow has."""
    try:
        return arrow.ipc.open_file(file)
    except arrow.ArrowInvalid:
        file.seek(0)
        return arrow.ipc.open_stream(file)


def _read_arrow(batches: Any, columns: Sequence[str]) -> Iterator[Any]:
    if not hasattr(batches, "num_record_batches"):
        yield from (batch.select([*columns]) for batch in batches)
        return
    for index in range(batches.num_record_batches):
        yield batches.get_batch(index).select([*columns])


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except (ValueError, OSError, NotImplementedError) as error:
        if isinstance(error, InputError):
            raise
        reason = " ".join(str(error).split())
        raise InputError(f"{path} cannot be read: {reason}") from error
