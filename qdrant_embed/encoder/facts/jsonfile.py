"""Read the JSON files of a model, checked before they are trusted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from qdrant_embed.errors import ModelFileError
from qdrant_embed.limits import JSON_DEPTH, JSON_FILE, shortened

T = TypeVar("T")

_PROBLEMS = 10  # that an error states


class JsonFile(BaseModel):
    """A JSON file of a model; unknown keys are ignored."""

    # schemas are built when first used: most never are
    model_config = ConfigDict(
        extra="ignore", frozen=True, protected_namespaces=(), defer_build=True
    )


def read_json(path: Path, kind: TypeAdapter[T]) -> T:
    """Read a JSON file whose content `kind` describes.

    Raises:
        ModelFileError: it is missing, too large, no JSON, too deep, or not of that kind.
    """
    return checked(path, read_content(path), kind)


def read_content(path: Path, largest: int = JSON_FILE) -> Any:
    """Read the content of a JSON file.

    Args:
        path: the file.
        largest: bytes that it may have.

    Raises:
        ModelFileError: it is missing, too large, no JSON, or too deep.
    """
    try:
        size = path.stat().st_size if path.is_file() else None
        content = path.read_bytes() if size is not None and size <= largest else b""
    except (OSError, ValueError) as error:  # of names that no file can have
        raise ModelFileError(f"{path} cannot be read: {error}") from error
    if size is None:
        raise ModelFileError(f"{path} is missing")
    if size > largest:
        raise ModelFileError(f"{path} has {size:,} bytes: it can have {largest:,} at most")
    try:
        return parsed(content)
    except ValueError as error:
        raise ModelFileError(f"{path} is not valid JSON: {error}") from error


def parsed(content: bytes) -> Any:
    """Parse JSON from outside.

    Raises:
        ValueError: it is not valid, or too deep.
    """
    try:
        found = json.loads(content)
    except RecursionError as error:
        raise ValueError(f"it is nested in more than {JSON_DEPTH} levels") from error
    inner, depth = [found], 0
    while inner := [
        value
        for outer in inner
        if isinstance(outer, dict | list)
        for value in (outer.values() if isinstance(outer, dict) else outer)
        if isinstance(value, dict | list)
    ]:
        depth += 1
        if depth >= JSON_DEPTH:
            raise ValueError(f"it is nested in more than {JSON_DEPTH} levels")
    return found


def checked(path: Path, content: object, kind: TypeAdapter[T]) -> T:
    """Check the `content` of a JSON file, which `kind` describes.

    Raises:
        ModelFileError: it is not of that kind; `path` is named.
    """
    try:
        return kind.validate_python(content)
    except ValidationError as error:
        problems = "; ".join(
            f"{shortened('.'.join(map(str, e['loc'])), 200) or 'content'}: {e['msg']}"
            for e in error.errors(include_input=False)[:_PROBLEMS]
        )
        raise ModelFileError(f"{path} cannot be used: {problems}") from error
