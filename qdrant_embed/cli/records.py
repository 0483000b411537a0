"""Files of documents: JSON lines, CSV or plain text, read once, line by line."""

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

_LONGEST_CELL = 2**31 - 1  # the csv module's limit is 131,072 characters, and texts can be longer


@dataclass(frozen=True)
class Fields:
    """The names of the fields of JSON lines and CSV; plain text has none.

    Attributes:
        text: field that holds the text.
        id: field that holds the id, if there is one.
        metadata: fields that are stored as metadata; all others by default.
    """

    text: str = "text"
    id: str | None = None
    metadata: Sequence[str] | None = None


class RecordFile:
    """The documents of one file in UTF-8; lines without any text are skipped.

    Args:
        stream: the file.
        file_format: the file's format.
        fields: names of its fields.

    Attributes:
        line: number of the last line that was read, counted from 1; 0 before the first.
        bytes_read: number of bytes read so far.
    """

    def __init__(self, stream: BinaryIO, file_format: Format, fields: Fields) -> None:
        self._stream = stream
        self._format = file_format
        self._fields = fields
        self.line = 0
        self.bytes_read = 0

    def __iter__(self) -> Iterator[Document]:
        """Yield the documents in order.

        Raises:
            InputError: if a line cannot be used; `line` is its number, and the error's `index` is
                the number of documents before it.
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
        if self._format == "txt":
            for line in self._lines():
                if text := line.strip():
                    yield Document(text)
        elif self._format == "jsonl":
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
                raise InputError(f"the line is not UTF-8: {error}") from error

    def _rows(self) -> Iterator[dict[str, str]]:
        csv.field_size_limit(_LONGEST_CELL)
        rows = csv.reader(self._lines(), strict=True)
        try:
            names = next(rows, [])
            if len(set(names)) != len(names):
                raise InputError(f"the header has a field twice: {', '.join(names)}")
            if len(names) == 1 and self._fields.text not in names and ";" in names[0]:
                raise InputError(f"fields must be separated by commas, not as in {names[0]!r:.60}")
            for row in rows:
                if not row:
                    continue
                if len(row) != len(names):
                    raise InputError(
                        f"the line has {len(row)} fields, but the header has {len(names)}"
                    )
                yield dict(zip(names, row, strict=True))
        except csv.Error as error:
            raise InputError(f"the line is not CSV: {error}") from error

    def _record(self, row: Mapping[str, Any]) -> Document:
        fields = self._fields
        text = _value(row, fields.text, "--text-field")
        if not isinstance(text, str):
            raise InputError(f"field {fields.text!r} must be a string, not {text!r:.60}")
        if fields.metadata is None:
            metadata = {key: row[key] for key in row if key not in (fields.text, fields.id)}
        else:
            metadata = {key: _value(row, key, "--metadata-field") for key in fields.metadata}
        return Document(text, metadata, None if fields.id is None else self._id(row, fields.id))

    def _id(self, row: Mapping[str, Any], field: str) -> str | int:
        value = _value(row, field, "--id-field")
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise InputError(
                f"field {field!r} must be a string or a whole number, not {value!r:.60}"
            )
        is_number = self._format == "csv" and value.isascii() and value.isdecimal()  # type: ignore[union-attr] # CSV has only str
        return int(value) if is_number else value


def _object(line: str) -> dict[str, Any]:
    try:
        value = json.loads(line, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise InputError(f"the line is not JSON: {error.msg} at column {error.colno}") from error
    if not isinstance(value, dict):
        raise InputError(
            f'the line must be a JSON object, like {{"text": "..."}}, not {value!r:.60}'
        )
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise InputError(f"{name} is not valid in JSON and cannot be stored")


def _value(row: Mapping[str, Any], field: str, option: str) -> Any:
    if field not in row:
        raise InputError(f"field {field!r} ({option}) is missing; the fields are {', '.join(row)}")
    return row[field]
