"""Frames as documents: columns of pandas, Polars, Arrow, `datasets` or numpy, read batch by batch.

A frame is read lazily, a thousand rows at a time, and never copied as a whole. None of these
libraries is imported here: an object of one comes from somebody who has it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, NoReturn, TypeAlias
from uuid import UUID

import numpy as np

from qdrant_embed.errors import InputError, check_str
from qdrant_embed.ingest.documents import Document
from qdrant_embed.ingest.tables import JSON, MARK, VECTOR, TableFile, open_tables, pyarrow
from qdrant_embed.ingest.values import (
    UnstorableError,
    describe,
    json_value,
    loses_nanoseconds,
    scalar,
)
from qdrant_embed.limits import PAYLOAD_DEPTH

Frame: TypeAlias = Any  # see `FrameRows`

Batch: TypeAlias = Mapping[str, Sequence[Any]]  # Python values, by the name of their column

ROWS = 1024  # converted to Python values together

_NO_VALUES = ("NAType", "NaTType")  # of pandas
_TIMES = "mM"


@dataclass(frozen=True)
class Columns:
    """The columns of a frame that documents are made of.

    Attributes:
        text: name of the column that holds the texts.
        id: name of the column that holds the ids, if there is one.
        metadata: names of the columns to store as metadata; all others by default.
        keys: names of the metadata's columns that ids depend on, if they depend on some.

    Raises:
        InputError: if a name is not a str, or is there twice, or the metadata lacks one of `keys`.
    """

    text: str = "text"
    id: str | None = None
    metadata: Sequence[str] | None = None
    keys: Sequence[str] = ()

    def __post_init__(self) -> None:
        check_str("text", self.text)
        if self.id is not None:
            check_str("id", self.id)
        if self.text in self.keys:
            raise InputError(
                f"ContentIds names the column {self.text!r}, which holds the texts, on which ids "
                "depend anyway; omit it"
            )
        if self.metadata is None:
            return
        if isinstance(self.metadata, str | bytes) or not isinstance(self.metadata, Iterable):
            raise InputError(
                f"metadata must be a list of columns' names, not {describe(self.metadata)}"
            )
        object.__setattr__(self, "metadata", tuple(self.metadata))
        for name in self.metadata:
            check_str("a column in metadata", name)
        if len(set(self.metadata)) < len(self.metadata):
            raise InputError(f"metadata has a column twice: {', '.join(self.metadata)}")
        for key in self.keys:
            if key not in self.metadata:
                raise InputError(
                    f"ContentIds names the column {key!r}, which is not in metadata; add it there"
                )

    def of(self, own: Sequence[object]) -> list[str]:
        """Return the names of all columns to read of a frame that has these.

        Raises:
            InputError: if one is missing, is there twice, or has a name that is not a str.
        """
        own = [*own]
        asked: Iterable[object] = own if self.metadata is None else self.metadata
        needed = [self.text] if self.id is None else [self.text, self.id]
        names: list[str] = []
        for name in dict.fromkeys((*needed, *self.keys, *asked)):
            if not isinstance(name, str):
                raise InputError(
                    f"the frame has the column {describe(name)}, but names of columns must be str; "
                    "rename it, or pass metadata= with the columns to store"
                )
            if name not in own:
                raise InputError(
                    f"the frame has no column {name!r}; its columns are "
                    f"{', '.join(map(repr, own)):.400}"
                )
            if own.count(name) > 1:
                raise InputError(f"the frame has the column {name!r} twice; rename one")
            names.append(name)
        return names


class FrameRows(Iterable[Document]):
    """The rows of a frame as documents, read lazily, a thousand at a time.

    A frame is a dict of columns (lists, numpy arrays), a DataFrame of pandas or Polars, a table,
    record batch, reader, dataset or Parquet file of pyarrow, a ``Dataset`` of Hugging Face
    `datasets` (streamed, too), any object with ``__arrow_c_stream__``, the path of a Parquet or
    Arrow file or of a folder of some, or an iterable of frames.

    What `json_value` takes is stored as it says; a missing value (null, NaN, NaT, NA) becomes
    ``None``, also inside lists and dicts.

    Args:
        frame: the frame.
        columns: the columns to read.

    Raises:
        InputError: if it is no frame, or a file that cannot be read.
        MissingDependencyError: if it is a file, and pyarrow is not installed.

    Attributes:
        total: number of rows; ``None`` if that is not known before they are read.
    """

    def __init__(self, frame: Frame, columns: Columns) -> None:
        if isinstance(frame, str | os.PathLike):
            frame = _opened(frame)
        elif isinstance(frame, list | tuple) and _is_iterable_of_frames(frame):
            frame = [one for each in frame for one in _opened(each)]
            for one in frame:  # before the first is stored
                _reader(one)
        self._frame, self._columns = frame, columns
        if not _is_iterable_of_frames(frame):
            _reader(frame)
        self.total = _length(frame)
        self._file: Path | None = None
        self._first = 0

    def place(self, index: int) -> str:
        """Return the file and the row in it of a row that has just been read; ``""`` of no file."""
        return "" if self._file is None else f"{self._file}, row {index - self._first}"

    def __iter__(self) -> Iterator[Document]:
        """Yield the documents in order.

        Raises:
            InputError: if a column is missing, or a value cannot be stored; it names the column,
                and of files the path and the row in it. `index` is the number of the row in all,
                counted from 0.
        """
        index = 0
        for frame in self._frames():
            file = self._file = frame.path if isinstance(frame, TableFile) else None
            first = self._first = 0 if file is None else index
            try:
                for batch in _reader(frame)(frame, self._columns):
                    yield from self._documents(batch, index - first)
                    index += len(batch[self._columns.text])
            except InputError as error:
                if file is None or str(error).startswith(str(file)):
                    raise
                place = None if error.index is None else error.index + first
                raise InputError(f"{file}: {error}", index=place) from error

    def _frames(self) -> Iterator[Frame]:
        """Yield the frames of an iterable, or the only one."""
        if not _is_iterable_of_frames(self._frame):
            yield self._frame
            return
        for frame in self._frame:
            yield from _opened(frame)

    def _documents(self, batch: Batch, start: int) -> Iterator[Document]:
        columns = self._columns
        names = columns.metadata
        if names is None:
            names = [name for name in batch if name not in (columns.text, columns.id)]
        values = [batch[name] for name in names]
        ids = None if columns.id is None else batch[columns.id]
        for row, text in enumerate(batch[columns.text]):
            index = start + row
            metadata = {
                name: _value(column[row], name, index)
                for name, column in zip(names, values, strict=True)
            }
            document_id = None if ids is None else _id(ids[row], str(columns.id), index)
            yield Document(_text(text, columns.text, index), metadata, document_id)


_Reader: TypeAlias = Callable[[Any, Columns], Iterator[Batch]]


def is_frame(value: object) -> bool:
    """Return whether `value` is one frame, as opposed to an iterable of some."""
    return isinstance(value, Mapping) or any(named(value) for named, _ in _READERS)


def _reader(frame: object) -> _Reader:
    """Return the function that reads a frame.

    Raises:
        InputError: if it is no frame.
    """
    for named, read in _READERS:
        if named(frame):
            return read
    if isinstance(frame, Mapping) and not _is_dataset_dict(frame):
        return _of_columns
    if hasattr(frame, "__arrow_c_stream__"):
        return _of_stream
    _refuse(frame)


def _is_iterable_of_frames(value: object) -> bool:
    is_one = is_frame(value) or hasattr(value, "__arrow_c_stream__")
    is_other = isinstance(value, bytes | np.ndarray)
    return isinstance(value, Iterable) and not is_one and not is_other


def _refuse(frame: object, found: object = None) -> NoReturn:
    """Raise an `InputError` for what is no frame; `found` is what reading it has said."""
    if _is_dataset_dict(frame):
        splits = ", ".join(map(repr, frame))  # type: ignore[call-overload] # it is a dict
        raise InputError(f"frame is a DatasetDict; pass one of its splits ({splits})")
    if _is("polars", "LazyFrame")(frame):
        raise InputError("frame is a LazyFrame; pass frame.collect(), or an iterator of batches")
    way = "" if found is None else f" ({found})"
    raise InputError(
        "frame must be a dict of columns, a DataFrame of pandas or Polars, an Arrow table or "
        "reader, a Dataset, the path of a Parquet or Arrow file, or an iterable of these, not "
        f"{describe(frame)}{way}"
    )


def _opened(frame: Frame) -> list[Frame]:
    """Return the files that a path names, or the frame.

    Raises:
        InputError: if there is no such file, or it is of another kind.
        MissingDependencyError: if it is one, and pyarrow is not installed.
    """
    if not isinstance(frame, str | os.PathLike):
        return [frame]
    path = os.fspath(frame)
    if not isinstance(path, str) or not path:
        _refuse(frame)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", path):
        raise InputError(
            f"{path!r:.200} is a URL; pass pyarrow.dataset.dataset(url), or a DataFrame that "
            "pandas or Polars has read from it"
        )
    return [*open_tables(Path(path))]


def _is(package: str, *names: str) -> Callable[[object], bool]:
    """Return a test of whether an object's class, or one above it, is one of these."""

    def test(value: object) -> bool:
        return any(
            kind.__name__ in names and kind.__module__.split(".")[0] == package
            for kind in type(value).__mro__
        )

    return test


_is_dataset_dict = _is("datasets", "DatasetDict", "IterableDatasetDict")

# what libraries raise for a column that they cannot make Python's values of
_UNREADABLE = (
    ValueError,
    ImportError,
    ArithmeticError,
    TypeError,
    RecursionError,
    NotImplementedError,
)
_PANIC = "PanicException"  # of libraries in Rust, which is no Exception


def _of_columns(frame: Mapping[str, Any], chosen: Columns) -> Iterator[Batch]:
    columns = {name: frame[name] for name in chosen.of([*frame])}
    for name, column in columns.items():
        is_column = isinstance(column, Sequence) or callable(getattr(column, "__array__", None))
        if isinstance(column, str | bytes) or not is_column or getattr(column, "ndim", 1) == 0:
            raise InputError(
                f"column {name!r} must be a list or an array, not {describe(column)}; pass a dict "
                "of columns, not of one row"
            )
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{length} in {name!r}" for name, length in lengths.items())
        raise InputError(f"columns differ in length: there are {found}")
    for start in range(0, lengths[chosen.text], ROWS):
        yield {
            name: _values(column[start : start + ROWS], name) for name, column in columns.items()
        }


def _values(column: Any, name: str) -> Sequence[Any]:
    """Return the Python values of a part of a column."""
    if isinstance(column, np.ndarray):
        # those of times would be numbers of nanoseconds
        return [*column] if column.dtype.kind in _TIMES else column.tolist()
    if "time64[ns]" in str(getattr(getattr(column, "dtype", None), "pyarrow_dtype", "")):
        column = pyarrow("a frame of Arrow").array(column)  # pandas would cut them
    with _readable(name):
        if loses_nanoseconds(column):
            return _with_nanoseconds(column, name)
        for method in ("to_pylist", "to_list", "tolist"):
            if callable(read := getattr(column, method, None)):
                return read()  # type: ignore[no-any-return]
    return column  # type: ignore[no-any-return]


def _with_nanoseconds(column: Any, name: str) -> Sequence[Any]:
    """Return the moments of a column of Polars, in ISO 8601 those that Python cannot hold.

    Raises:
        InputError: if it has other times: there is no form for their nanoseconds.
    """
    kind = getattr(column, "dtype", None)
    if type(kind).__name__ != "Datetime":
        raise InputError(
            f"column {name!r} ({kind or column.type}) has nanoseconds, which would be lost; make "
            "them str, or round them to microseconds"
        )
    moments, nanoseconds = column.to_list(), column.to_physical().to_list()
    return [
        _in_full(moment, number % 1000) if moment is not None and number % 1000 else moment
        for moment, number in zip(moments, nanoseconds, strict=True)
    ]


def _in_full(moment: datetime, nanoseconds: int) -> str:
    """Return a time in ISO 8601, as pandas and `json_value` write one with nanoseconds."""
    text = moment.isoformat(timespec="microseconds")
    clock, zone = text[:26], text[26:]
    return f"{clock}{nanoseconds:03}{'Z' if zone == '+00:00' else zone}"


@contextmanager
def _readable(name: str) -> Iterator[None]:
    """Raise `InputError` where a library cannot make values of a column Python's."""
    try:
        yield
    except BaseException as error:
        is_told = isinstance(error, _UNREADABLE) or type(error).__name__ == _PANIC
        if isinstance(error, InputError) or not is_told:
            raise
        raise InputError(f"column {name!r} cannot be read: {error}") from error


def _of_pandas(frame: Any, chosen: Columns) -> Iterator[Batch]:
    wanted = chosen.of([*frame.columns])
    for start in range(0, len(frame), ROWS):
        part = frame.iloc[start : start + ROWS]
        yield {name: _values(part[name], name) for name in wanted}


def _of_polars(frame: Any, chosen: Columns) -> Iterator[Batch]:
    wanted = chosen.of(frame.columns)
    for start in range(0, len(frame), ROWS):
        part = frame.slice(start, ROWS)
        yield {name: _values(part[name], name) for name in wanted}


def _of_record_batch(frame: Any, chosen: Columns) -> Iterator[Batch]:
    wanted = _names(frame.schema, chosen)
    for start in range(0, frame.num_rows, ROWS):
        part = frame.slice(start, ROWS)
        yield {name: _field_values(part, name) for name in wanted}


def _names(schema: Any, chosen: Columns, constants: Iterable[str] = ()) -> list[str]:
    """Return the names of the columns to read; vectors of exported points only if one asks."""
    names = schema.names
    if chosen.metadata is None:
        names = [each.name for each in schema if _mark(each) != VECTOR]
    return chosen.of([*names, *constants])


def _mark(field: Any) -> str:
    """Return what a file of ours says of a column; ``""`` for others."""
    return (field.metadata or {}).get(MARK, b"").decode(errors="replace")  # type: ignore[no-any-return]


def _field_values(part: Any, name: str) -> Sequence[Any]:
    """Return the Python values of a record batch's column."""
    values = _values(part.column(name), name)
    if _mark(part.schema.field(name)) == JSON:
        with _readable(name):
            values = [None if value is None else json.loads(value) for value in values]
    return values


def _of_arrow(frame: Any, chosen: Columns) -> Iterator[Batch]:
    """Read a table, whose batches share its memory."""
    wanted = _names(frame.schema, chosen)
    for batch in frame.select(wanted).to_batches(max_chunksize=ROWS):
        yield from _of_record_batch(batch, chosen)


def _of_arrow_reader(frame: Any, chosen: Columns) -> Iterator[Batch]:
    _names(frame.schema, chosen)
    for batch in _each(frame):
        yield from _of_record_batch(batch, chosen)


def _of_arrow_dataset(frame: Any, chosen: Columns) -> Iterator[Batch]:
    wanted = _names(frame.schema, chosen)
    # a few batches are read ahead, each of them a row group at most
    batches = frame.to_batches(
        columns=wanted, batch_size=ROWS, batch_readahead=1, fragment_readahead=1
    )
    for batch in _each(batches):
        yield from _of_record_batch(batch, chosen)


def _of_arrow_scanner(frame: Any, chosen: Columns) -> Iterator[Batch]:
    for batch in _each(frame.to_batches()):
        yield from _of_record_batch(batch, chosen)


def _of_parquet(frame: Any, chosen: Columns) -> Iterator[Batch]:
    wanted = _names(frame.schema_arrow, chosen)
    for batch in _each(frame.iter_batches(batch_size=ROWS, columns=wanted)):
        yield from _of_record_batch(batch, chosen)


def _of_file(file: TableFile, chosen: Columns) -> Iterator[Batch]:
    with file.opened(ROWS) as (schema, read):
        wanted = _names(
            schema, chosen, [name for name in file.constants if name not in schema.names]
        )
        for name in wanted:
            if name in file.constants and name in schema.names:
                raise InputError(
                    f"the file has a column {name!r}, and so has the name of its folder; rename one"
                )
        for batch in read([name for name in wanted if name not in file.constants]):
            for start in range(0, batch.num_rows, ROWS):
                part = batch.slice(start, ROWS)
                columns = {
                    name: [file.constants[name]] * part.num_rows
                    if name in file.constants
                    else _field_values(part, name)
                    for name in wanted
                }
                yield columns


def _each(batches: Iterable[Any]) -> Iterator[Any]:
    """Yield batches of Arrow; raise `InputError` if a file or stream is damaged."""
    unread = iter(batches)
    while True:
        try:
            batch = next(unread)
        except StopIteration:
            return
        except (ValueError, OSError, NotImplementedError) as error:
            reason = " ".join(str(error).split())
            raise InputError(f"the frame cannot be read to its end: {reason}") from error
        yield batch


def _of_stream(frame: Any, chosen: Columns) -> Iterator[Batch]:
    arrow = pyarrow("a frame of another library")
    try:
        reader = arrow.RecordBatchReader.from_stream(frame)
    except Exception as error:  # noqa: BLE001 - it is the other library's: a column, say
        _refuse(frame, " ".join(str(error).split()))
    yield from _of_arrow_reader(reader, chosen)


def _of_hugging_face(frame: Any, chosen: Columns) -> Iterator[Batch]:
    if frame.column_names is not None:  # of a stream, they may not be known
        # what is not read is not decoded: images, sound
        frame = frame.select_columns(chosen.of(frame.column_names)).with_format(None)
    for batch in frame.iter(batch_size=ROWS):
        yield {name: _values(batch[name], name) for name in chosen.of([*batch])}


_READERS: list[tuple[Callable[[object], bool], _Reader]] = [
    (lambda value: isinstance(value, TableFile), _of_file),
    (_is("pandas", "DataFrame"), _of_pandas),
    (_is("polars", "DataFrame"), _of_polars),
    (_is("pyarrow", "RecordBatch"), _of_record_batch),
    (_is("pyarrow", "Table"), _of_arrow),
    (_is("pyarrow", "RecordBatchReader"), _of_arrow_reader),
    (_is("pyarrow", "Dataset"), _of_arrow_dataset),
    (_is("pyarrow", "Scanner"), _of_arrow_scanner),
    (_is("pyarrow", "ParquetFile"), _of_parquet),
    (_is("datasets", "Dataset", "IterableDataset"), _of_hugging_face),
]


def _length(frame: Any) -> int | None:
    """Return the number of rows, if that is known before they are read."""
    if isinstance(frame, list) and len(frame) == 1:
        return _length(frame[0])
    if isinstance(frame, TableFile):
        return frame.rows
    if _is("pyarrow", "ParquetFile")(frame):
        return int(frame.metadata.num_rows)
    if isinstance(frame, Mapping):
        return next((len(c) for c in frame.values() if hasattr(c, "__len__")), 0)
    if is_frame(frame) and hasattr(frame, "__len__"):
        return len(frame)
    return None


def _value(value: object, name: str, index: int) -> Any:
    """Return the value of a payload; ``None`` for a missing one."""
    try:
        return json_value(value)
    except UnstorableError:
        pass  # a missing value may be inside
    try:
        return json_value(_without_missing(value))
    except UnstorableError as error:
        raise InputError(f"row {index}, column {name!r}{error}", index=index) from None


def _is_missing(value: object) -> bool:
    if value is None or type(value).__name__ in _NO_VALUES:
        return True
    if isinstance(value, np.datetime64 | np.timedelta64):
        return bool(np.isnat(value))
    if isinstance(value, Decimal):
        return value.is_nan()
    try:  # NaN, of any kind of float, is the only scalar that differs from itself
        return np.ndim(value) == 0 and bool(value != value)  # type: ignore[arg-type]  # noqa: PLR0124
    except Exception:  # noqa: BLE001 - a user's own class; it is refused later
        return False


def _without_missing(value: Any, depth: int = 0) -> Any:
    """Return a copy with ``None`` for each missing value, at every depth that can be stored."""
    if depth > PAYLOAD_DEPTH:
        return value
    if isinstance(value, Mapping):
        return {key: _without_missing(item, depth + 1) for key, item in value.items()}
    if isinstance(value, np.ndarray) and value.ndim:
        return [_without_missing(item, depth + 1) for item in value]
    if isinstance(value, list | tuple):
        return [_without_missing(item, depth + 1) for item in value]
    return None if _is_missing(value) else value


def _text(value: object, name: str, index: int) -> str:
    text = scalar(value)
    if not isinstance(text, str):
        way = "; drop the rows without one" if _is_missing(text) else ""
        raise InputError(
            f"row {index}, column {name!r} (text=): a text must be a str, not {describe(text)}"
            f"{way}",
            index=index,
        )
    return text


def _id(value: object, name: str, index: int) -> int | str | UUID:
    found = scalar(value)
    if isinstance(found, bool) or not isinstance(found, int | str | UUID):
        raise InputError(
            f"row {index}, column {name!r} (id=): an id must be a whole number, a UUID or a str, "
            f"not {describe(found)}",
            index=index,
        )
    return found
