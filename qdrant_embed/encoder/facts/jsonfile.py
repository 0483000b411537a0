"""Read the JSON files of a model, checked before they are trusted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from qdrant_embed.errors import ModelFileError

T = TypeVar("T")


class JsonFile(BaseModel):
    """A JSON file of a model; unknown keys are ignored."""

    # schemas are built when first used: most never are
    model_config = ConfigDict(
        extra="ignore", frozen=True, protected_namespaces=(), defer_build=True
    )


def read_json(path: Path, kind: TypeAdapter[T]) -> T:
    """Read a JSON file whose content `kind` describes.

    Raises:
        ModelFileError: it is missing, no JSON, or not of that kind.
    """
    if not path.is_file():
        raise ModelFileError(f"{path} is missing")
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{path} is not valid JSON: {error}") from error
    return checked(path, content, kind)


def checked(path: Path, content: object, kind: TypeAdapter[T]) -> T:
    """Check the `content` of a JSON file, which `kind` describes.

    Raises:
        ModelFileError: it is not of that kind; `path` is named.
    """
    try:
        return kind.validate_python(content)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'content'}: {e['msg']}" for e in error.errors()
        )
        raise ModelFileError(f"{path} cannot be used: {problems}") from error
