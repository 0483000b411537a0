"""All errors of the package, in one tree.

::

    QdrantEmbedError(Exception)
    ├─ InputError(ValueError)               .index; an argument cannot be used
    ├─ CollectionMismatchError(ValueError)  .expected .found
    ├─ IngestError                          .stored_ids .failed_index; __cause__ is the reason
    ├─ ModelError
    │  ├─ UnknownModelError(LookupError)    .name .close_matches
    │  ├─ ModelDownloadError(OSError)
    │  └─ ModelFileError(ValueError)
    └─ MissingDependencyError(ImportError)  .package .command

Each also inherits from the built-in that a caller would catch. Every message names the argument
or file at fault, what was found, and what to do. Errors of ``qdrant_client`` (a missing collection,
no connection, a closed client) pass through unwrapped, unless an `IngestError` has one as its
cause.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from numbers import Integral


class QdrantEmbedError(Exception):
    """Base class of all errors that this package defines."""


class InputError(QdrantEmbedError, ValueError):
    """An argument that cannot be used.

    Examples are lists of different lengths, a str instead of a list of str, an id that Qdrant
    would refuse, or metadata that is not JSON-serialisable (NaN, numpy scalars, custom objects).
    Fix the argument that the message names. If `add` has stored part of its input by then, it
    raises an `IngestError` instead, with the `InputError` as its cause.

    Attributes:
        index: position in the input of the text or document at fault; ``None`` if the error is not
            about a single one.
    """

    def __init__(self, message: str, *, index: int | None = None) -> None:
        super().__init__(message)
        self.index = index


class CollectionMismatchError(QdrantEmbedError, ValueError):
    """A collection that does not fit the encoder.

    It belongs to another model, or was created by hand with other parameters. Omit `set_model` to
    use the collection's own model, use another collection, or call `migrate_model`.

    Attributes:
        expected: the facts that the operation needs, by name.
        found: the collection's values of the same facts.
    """

    def __init__(
        self, message: str, *, expected: Mapping[str, object], found: Mapping[str, object]
    ) -> None:
        super().__init__(message)
        self.expected = dict(expected)
        self.found = dict(found)


class IngestError(QdrantEmbedError):
    """An `add` that failed after part of its input was stored; the reason is ``__cause__``.

    Run it again: with content-based ids (``ids="content"`` or `ContentIds`) nothing is stored
    twice. Interrupts and cancellations keep their own type; `behind` returns the `IngestError`
    that they carry.

    Attributes:
        stored_ids: ids known to be stored, in input order.
        failed_index: position in the input of the first document not known to be stored.
    """

    def __init__(self, message: str, *, stored_ids: Sequence[str | int], failed_index: int) -> None:
        super().__init__(message)
        self.stored_ids = list(stored_ids)
        self.failed_index = failed_index

    @staticmethod
    def behind(error: BaseException | None) -> IngestError | None:
        """Return the `IngestError` that `error` is or carries; ``None`` if nothing was stored.

        Use it with a ``CancelledError``, asyncio's ``TimeoutError`` or a ``KeyboardInterrupt`` that
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
    """A model that could not be downloaded because the hub is unreachable or needs a token.

    The message lists the ways out: a mirror, a folder, an installed package.
    """


class ModelFileError(ModelError, ValueError):
    """A model file that is missing, truncated, altered, or of an unsupported kind.

    Also raised if a folder cannot be written. Run ``qdrant-embed pull`` again, or set
    ``cache_dir=``.
    """


class MissingDependencyError(QdrantEmbedError, ImportError):
    """An optional dependency that is not installed; run `command` to install it.

    Attributes:
        package: name of the missing distribution.
        command: the exact command that installs it.
    """

    def __init__(self, package: str, purpose: str, *, extra: str = "fastembed") -> None:
        self.package = package
        self.command = f"pip install 'qdrant-embed[{extra}]'"
        super().__init__(f"{purpose} needs {package}, which is not installed; run {self.command}")


def check_whole(option: str, value: object, least: int) -> None:
    """Raise `InputError` unless `value` is a whole number, `least` or more."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise InputError(f"{option} must be a whole number of at least {least}, not {value!r}")


def check_str(option: str, value: object) -> None:
    """Raise `InputError` unless `value` is a str."""
    if not isinstance(value, str):
        raise InputError(f"{option} must be a str, not {value!r:.80} ({type(value).__name__})")


def check_path(option: str, value: object) -> None:
    """Raise `InputError` unless `value` is a path: a str, a `pathlib.Path` or similar."""
    if not isinstance(value, os.PathLike):
        check_str(option, value)


def check_unicode(what: str, value: str, *, index: int | None = None) -> None:
    """Raise `InputError` if `value` has lone surrogates, which can be neither sent nor encoded.

    Args:
        what: name of `value` in the message.
        value: the str.
        index: see `InputError`.
    """
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{what} is not valid Unicode ({error.reason} at character {error.start}): "
            "use text.encode('utf-8', 'replace').decode() to replace what is invalid",
            index=index,
        ) from error
