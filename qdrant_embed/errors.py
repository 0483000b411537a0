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

Each also inherits the built-in that a caller would catch. Every message names the argument or
file at fault, what was found, and what to do. Errors of ``qdrant_client`` (no such collection, no
connection, a closed client) pass through unwrapped, unless `IngestError` carries one as its cause.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping, Sequence
from numbers import Integral


class QdrantEmbedError(Exception):
    """Base class of every error that this package defines."""


class InputError(QdrantEmbedError, ValueError):
    """An argument that cannot be used; nothing was stored because of it.

    For instance lists of different lengths, a str instead of a list of str, an id that Qdrant
    would refuse, or metadata that is not JSON-serialisable (NaN, numpy scalars, custom objects).
    Fix the argument that the message names.

    Attributes:
        index: position in the input of the text or document at fault; ``None`` if no single one
            is.
    """

    def __init__(self, message: str, *, index: int | None = None) -> None:
        super().__init__(message)
        self.index = index


class CollectionMismatchError(QdrantEmbedError, ValueError):
    """A collection that does not fit the encoder.

    It belongs to another model, or was created by hand with other parameters. Omit `set_model` to
    use the collection's own model, use another collection, or call `migrate_model`.

    Attributes:
        expected: the facts the operation needed, by name.
        found: the collection's values of the same facts.
    """

    def __init__(
        self, message: str, *, expected: Mapping[str, object], found: Mapping[str, object]
    ) -> None:
        super().__init__(message)
        self.expected = dict(expected)
        self.found = dict(found)


class IngestError(QdrantEmbedError):
    """An `add` that ended after part of its input was stored; the reason is ``__cause__``.

    Run it again: with content-based ids (``ids="content"`` or `ContentIds`) nothing is stored
    twice. Interrupts and cancellations keep their own type; `behind` returns the `IngestError`
    that they carry.

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
    """No model has this name, or a sparse model was named where a dense one is needed.

    Attributes:
        name: the requested name.
        close_matches: similar known names, best first; may be empty.
    """

    def __init__(self, message: str, *, name: str, close_matches: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.name = name
        self.close_matches = list(close_matches)


class ModelDownloadError(ModelError, OSError):
    """A model that could not be downloaded: the hub is unreachable, or needs a token.

    The message lists the ways out: a mirror, a folder, an installed package.
    """


class ModelFileError(ModelError, ValueError):
    """A model file that is missing, truncated, altered, or of a kind that cannot be run.

    Also raised if a folder cannot be written. Run ``qdrant-embed pull`` again, or set
    ``cache_dir=``.
    """


class MissingDependencyError(QdrantEmbedError, ImportError):
    """An optional dependency that is not installed; run `command` to install it.

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
    """Raises `InputError` unless `value` can be a path: a str that is not blank, or a path."""
    if not isinstance(value, os.PathLike):
        check_str(option, value)
        if str(value).isspace():
            raise InputError(f"{option} is blank: {value!r}")


def check_picklable(option: str, value: object) -> None:
    """Raises `InputError` unless `value` can be pickled, so that it can go to another process."""
    try:
        pickle.dumps(value)
    except Exception as error:  # pickle and the value's own methods raise anything
        raise InputError(
            f"{option}={value!r:.80} cannot be pickled: {error}. Another process gets functions by "
            "their names: define it at the top of a module"
        ) from error


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
