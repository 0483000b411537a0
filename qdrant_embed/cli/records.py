"""Files of documents: JSON lines, CSV, plain text; read once, a line at a time."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal, NoReturn, TypeAlias

from qdrant_embed.errors import InputError
from qdrant_embed.ingest.documents import Document

Format: TypeAlias = Literal["jsonl", "csv", "txt"]
FORMATS: tuple[Format, ...] = ("jsonl", "csv", "txt")

_LONGEST_CELL = 2**31 - 1  # csv's own limit of 131,072 characters is less than many a text has


@dataclass(frozen=True)
class Fields:
    """Which fields of JSON lines and CSV mean what; plain text has none.

    Attributes:
        text: holds the text.
        id: holds the id, if any does.
        metadata: are stored beside the text; all others by default.
    """

    text: str = "text"
    id: str | None = None
    metadata: Sequence[str] | None = None


class RecordFile:
    """The documents of one file, in UTF-8; lines without any text are left out.

    Attributes:
        line: number of the line that was read last, from 1 on; 0 before the first.
        bytes_read: how much of the file has been read.
    """

    def __init__(self, stream: BinaryIO, form: Format, fields: Fields) -> None:
        self._stream = stream
        self._form = form
        self._fields = fields
        self.line = 0
        self.bytes_read = 0

    def __iter__(self) -> Iterator[Document]:
        """The documents in order.

        Raises:
            InputError: a line that cannot be used; `line` says which, and the error's `index` how
                many documents came before it.
        """
        count = 0
        try:
            for record in self._documents():
                yield record
                count += 1
        except InputError as error:
            error.index = count
            raise

    def _documents(self) -> Iterator[Document]:
        if self._form == "txt":
            for line in self._lines():
                if text := line.strip():
                    yield Document(text)
        elif self._form == "jsonl":
            for line in self._lines():
                if line.strip():
                    yield self._record(_object(line))
        else:
            for row in self._rows():
                yield self._record(row)

    def _lines(self) -> Iterator[str]:
        for raw in self._stream:
            self.line += 1
            self.bytes_read += len(raw)
            try:
                yield raw.decode("utf-8-sig" if self.line == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise InputError(f"this is not UTF-8: {error}") from error

    def _rows(self) -> Iterator[dict[str, str]]:
        csv.field_size_limit(_LONGEST_CELL)
        rows = csv.reader(self._lines(), strict=True)
        try:
            names = next(rows, [])
            if len(set(names)) != len(names):
                raise InputError(f"the header names a field twice: {', '.join(names)}")
            if len(names) == 1 and self._fields.text not in names and ";" in names[0]:
                raise InputError(f"fields are separated by commas, not as in {names[0]!r:.60}")
            for row in rows:
                if not row:
                    continue
                if len(row) != len(names):
                    raise InputError(f"there are {len(row)} fields, but {len(names)} in the header")
                yield dict(zip(names, row, strict=True))
        except csv.Error as error:
            raise InputError(f"this is not CSV: {error}") from error

    def _record(self, row: Mapping[str, Any]) -> Document:
        fields = self._fields
        text = _value(row, fields.text, "--text-field")
        if not isinstance(text, str):
            raise InputError(f"field {fields.text!r} must be a text, not {text!r:.60}")
        if fields.metadata is None:
            metadata = {key: row[key] for key in row if key not in (fields.text, fields.id)}
        else:
            metadata = {key: _value(row, key, "--metadata-field") for key in fields.metadata}
        return Document(text, metadata, None if fields.id is None else self._id(row, fields.id))

    def _id(self, row: Mapping[str, Any], field: str) -> str | int:
        given = _value(row, field, "--id-field")
        if isinstance(given, bool) or not isinstance(given, str | int):
            raise InputError(f"field {field!r} must be an id, not {given!r:.60}")
        is_number = self._form == "csv" and given.isascii() and given.isdecimal()  # type: ignore[union-attr] # CSV has only str
        return int(given) if is_number else given


def _object(line: str) -> dict[str, Any]:
    try:
        value = json.loads(line, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise InputError(f"this is not JSON: {error.msg} at column {error.colno}") from error
    if not isinstance(value, dict):
        raise InputError(f'one object is needed, like {{"text": "..."}}, not {value!r:.60}')
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise InputError(f"{name} is no number of JSON, and cannot be stored")


def _value(row: Mapping[str, Any], field: str, option: str) -> Any:
    if field not in row:
        raise InputError(f"there is no field {field!r} ({option}); there are {', '.join(row)}")
    return row[field]
