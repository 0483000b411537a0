"""Every error of the package, in one tree.

::

    QdrantEmbedError(Exception)
    ├─ InputError(ValueError)               .index, what was passed in cannot be used
    ├─ CollectionMismatchError(ValueError)  .expected .found
    ├─ IngestError                          .stored_ids .failed_index, the reason is __cause__
    ├─ ModelError
    │  ├─ UnknownModelError(LookupError)    .name .close_matches
    │  ├─ ModelDownloadError(OSError)
    │  └─ ModelFileError(ValueError)
    └─ MissingDependencyError(ImportError)  .package .command

Each also inherits the builtin a caller would catch. Errors of ``qdrant_client`` pass through
unwrapped, except where `IngestError` carries one as its cause.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from numbers import Integral


class QdrantEmbedError(Exception):
    """Anything this package raises by itself."""


class InputError(QdrantEmbedError, ValueError):
    """An argument that cannot be used: nothing was stored because of it.

    Attributes:
        index: position in the input of the text or document it is about; ``None`` where it is
            about none of them.
    """

    def __init__(self, message: str, *, index: int | None = None) -> None:
        super().__init__(message)
        self.index = index


class CollectionMismatchError(QdrantEmbedError, ValueError):
    """A collection that does not fit the encoder.

    Attributes:
        expected: the facts the operation needed, by name.
        found: the same facts as the collection has them.
    """

    def __init__(
        self, message: str, *, expected: Mapping[str, object], found: Mapping[str, object]
    ) -> None:
        super().__init__(message)
        self.expected = dict(expected)
        self.found = dict(found)


class IngestError(QdrantEmbedError):
    """An `add` that ended after part of its input was stored; the reason is ``__cause__``.

    An interrupt or a cancellation stays what it is; `behind` finds the `IngestError` it carries.

    Attributes:
        stored_ids: ids known to be stored, in the order of the input.
        failed_index: position in the input of the first document not known to be stored.
    """

    def __init__(self, message: str, *, stored_ids: Sequence[str | int], failed_index: int) -> None:
        super().__init__(message)
        self.stored_ids = list(stored_ids)
        self.failed_index = failed_index

    @staticmethod
    def behind(error: BaseException | None) -> IngestError | None:
        """The `IngestError` that `error` is or carries; ``None`` where nothing was stored.

        For a ``CancelledError``, a ``TimeoutError`` of asyncio or a ``KeyboardInterrupt`` that
        ended an `add`.
        """
        while error is not None and not isinstance(error, IngestError):
            error = error.__cause__ or error.__context__
        return error


class ModelError(QdrantEmbedError):
    """A model that cannot be found, loaded or used."""


class UnknownModelError(ModelError, LookupError):
    """A model name that leads nowhere.

    Attributes:
        name: the name asked for.
        close_matches: known names that look like it, best first; may be empty.
    """

    def __init__(self, message: str, *, name: str, close_matches: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.name = name
        self.close_matches = list(close_matches)


class ModelDownloadError(ModelError, OSError):
    """A model that could not be fetched; the message names the ways that need no network."""


class ModelFileError(ModelError, ValueError):
    """A model file that is missing, truncated, altered, or not what its config says."""


class MissingDependencyError(QdrantEmbedError, ImportError):
    """A part of the package that needs an extra which is not installed.

    Attributes:
        package: the distribution that is missing.
        command: the exact command that installs it.
    """

    def __init__(self, package: str, purpose: str, *, extra: str = "fastembed") -> None:
        self.package = package
        self.command = f"pip install 'qdrant-embed[{extra}]'"
        super().__init__(f"{purpose} needs {package}, which is not installed: {self.command}")


def check_whole(option: str, value: object, least: int) -> None:
    """Raises `InputError` unless `value` is a whole number, `least` or more."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise InputError(f"{option} must be a whole number from {least} up, not {value!r}")


def check_str(option: str, value: object) -> None:
    """Raises `InputError` unless `value` is a str."""
    if not isinstance(value, str):
        raise InputError(f"{option} must be a str, not {value!r:.80} ({type(value).__name__})")


def check_path(option: str, value: object) -> None:
    """Raises `InputError` unless `value` can be a path: a str, or a `pathlib.Path` or its like."""
    if not isinstance(value, os.PathLike):
        check_str(option, value)


def check_unicode(what: str, value: str, *, index: int | None = None) -> None:
    """Raises `InputError` where `value` has lone surrogates, which can be neither sent nor read.

    Args:
        what: names `value` in the message.
        value: the str.
        index: as of `InputError`.
    """
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{what} is no valid Unicode ({error.reason} at character {error.start}): "
            "str.encode('utf-8', 'replace').decode() gives a text without it",
            index=index,
        ) from error
