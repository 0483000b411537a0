"""All errors of the package, in one tree.

::

    QdrantEmbedError(Exception)
    ├─ InputError(ValueError)               .index; an argument cannot be used
    ├─ CollectionMismatchError(ValueError)  .expected .found
    ├─ CollectionNotFoundError(LookupError) .collection_name, the same on every store
    ├─ DocumentNotFoundError(LookupError)   .missing_ids
    ├─ ServerRefusal(ValueError)            Qdrant refused a request; its own error is __cause__
    │  └─ PermissionRefusal(PermissionError) the key is missing or wrong, or lacks a right
    ├─ ServerUnavailableError(ConnectionError) .address .found, after all tries
    ├─ FolderError(OSError)                 .path; of an embedded database: in use, damaged, full
    ├─ ClientStateError(RuntimeError)       a client that cannot be used here, or any more
    ├─ IngestError                          .stored_ids .failed_index, the reason is __cause__
    ├─ ModelError
    │  ├─ UnknownModelError(LookupError)    .name .close_matches
    │  ├─ UntrustedModelError(PermissionError) .name .collection_name
    │  ├─ ModelDownloadError(OSError)
    │  └─ ModelFileError(ValueError)
    └─ MissingDependencyError(ImportError)  .package .command

Each also inherits the built-in that a caller would catch. Every message names the argument or
file at fault, what was found, and what to do. A request of `add`, `query` and the other methods of
this package that Qdrant refuses is the same error on every store and transport, in one line, and
the error of ``qdrant_client`` is its cause. So is a request that brought no answer, or an overload
instead of one, after all tries. Methods of ``qdrant_client`` that you call yourself raise its own
errors; but any call on a client that was closed is a `ClientStateError`, on every store.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any

from qdrant_embed.limits import PREFIX, shortened
from qdrant_embed.terminals import without_credentials


class QdrantEmbedError(Exception):
    """Base class of all errors that this package defines.

    URLs in messages have no user and password. Of a very long message the middle is left out
    (``ERROR_MESSAGE`` in `qdrant_embed.limits`).
    """

    def __init__(self, *args: object) -> None:
        shown = (
            shortened(without_credentials(arg)) if isinstance(arg, str) else arg for arg in args
        )
        super().__init__(*shown)

    def __reduce__(self) -> tuple[object, ...]:
        """Return what another process needs to raise the same error there, without its cause."""
        return _received, (type(self), self.args, self.__dict__)


def _received(
    kind: type[QdrantEmbedError], args: tuple[object, ...], attributes: Mapping[str, object]
) -> QdrantEmbedError:
    """Return an error from another process; constructors need more than the message."""
    built_in: Any = kind
    while built_in.__module__ != "builtins":
        built_in = built_in.__base__  # of several, the one whose memory an error of ours has
    error: QdrantEmbedError = built_in.__new__(kind)
    error.args = args
    error.__dict__.update(attributes)
    return error


class InputError(QdrantEmbedError, ValueError):
    """An argument that cannot be used.

    Examples are lists of different lengths, a str instead of a list of str, an id that Qdrant
    would refuse, or metadata that is not JSON-serialisable (NaN, sets, bytes, custom objects).
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
    """A collection that does not fit the encoder, or what is to be done with it.

    It belongs to another model, or was created by hand with other parameters. Omit `set_model` to
    use the collection's own model, use another collection, or call `migrate_model`. Or it is an
    unfinished copy, or already there when `copy_to` is to make one.

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


class CollectionNotFoundError(QdrantEmbedError, LookupError):
    """A collection that does not exist, where one is needed.

    Local databases, REST and gRPC each say this in their own way; what they said is ``__cause__``.

    Attributes:
        collection_name: the requested name.
    """

    def __init__(self, message: str, *, collection_name: str) -> None:
        super().__init__(message)
        self.collection_name = collection_name


class DocumentNotFoundError(QdrantEmbedError, LookupError):
    """A collection has no documents with these ids.

    Attributes:
        missing_ids: the ids, as they were passed.
    """

    def __init__(self, message: str, *, missing_ids: Sequence[object]) -> None:
        super().__init__(message)
        self.missing_ids = list(missing_ids)


class ServerRefusal(QdrantEmbedError, ValueError):  # noqa: N818 - what it is, in a word
    """A request that Qdrant has read and refused; trying it again does not help.

    For instance a filter on a field without an index in a collection with strict mode, a number
    above one of its caps, or a document larger than the server accepts. Also one whose answer
    cannot be used: it is not Qdrant's, or not what was asked for. The message says what to
    do, in one line, and what ``qdrant_client`` raised is ``__cause__``.
    """


class PermissionRefusal(ServerRefusal, PermissionError):  # noqa: N818 - what it is, in a word
    """A request that Qdrant refused because of the key: it is missing, wrong, or lacks a right."""


class ServerUnavailableError(QdrantEmbedError, ConnectionError):
    """A server that brought no result, however often it was asked.

    It is down, frozen, overloaded or out of reach, or its certificate is not trusted. The message
    says in one line what was found, how often the server was asked, and what to do; what
    ``qdrant_client`` raised last is ``__cause__``. If an `add` fails so after a part is stored, it
    is the cause of the `IngestError`.

    A query whose time ran out (``timeout=1``) is this error, too, and no ``TimeoutError``: its
    server is frozen, refuses connections, or asks to wait longer, and callers treat these alike.

    Attributes:
        address: the URL that was asked, without user and password.
        found: what was found there, such as "the connection was refused".
    """

    def __init__(self, message: str, *, address: str = "", found: str = "") -> None:
        super().__init__(message)
        self.address, self.found = address, found


class FolderError(QdrantEmbedError, OSError):
    """A database's folder that cannot be opened, read or written.

    Another process has it open, another engine or a newer version made it, it is damaged, full,
    not writable, or gone. Nothing else in it has been touched.

    Attributes:
        path: the folder.
        is_partial: whether part of what a request was to store may be stored nevertheless.
    """

    def __init__(self, message: str, *, path: str, is_partial: bool = False) -> None:
        super().__init__(message)
        self.path, self.is_partial = path, is_partial


class ClientStateError(QdrantEmbedError, RuntimeError):
    """A client that cannot be used here: it is closed, in a forked process, or in a second loop.

    A request that runs while the client is closed in another thread or task is completed, and an
    `add` then ends with this error, or with an `IngestError` that says what is stored.
    """


class IngestError(QdrantEmbedError):
    """An `add` that failed after part of its input was stored; the reason is ``__cause__``.

    Or nothing is known to be stored, but some of it may be: a disk is full, or a server accepted
    documents without storing them while `add` asked for that.

    Run it again: with content-based ids (``ids="content"`` or `ContentIds`) nothing is stored
    twice. Interrupts and cancellations keep their own type; `behind` returns the `IngestError`
    that they carry.

    Attributes:
        stored_ids: ids known to be stored, in input order.
        failed_index: position in the input of the first document not known to be stored.
        unconfirmed_ids: ids of documents that were sent and may be stored, but are not known to be,
            in input order.
    """

    def __init__(
        self,
        message: str,
        *,
        stored_ids: Sequence[str | int],
        failed_index: int,
        unconfirmed_ids: Sequence[str | int] = (),
    ) -> None:
        super().__init__(message)
        self.stored_ids = list(stored_ids)
        self.failed_index = failed_index
        self.unconfirmed_ids = list(unconfirmed_ids)

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


class UntrustedModelError(ModelError, PermissionError):
    """A collection names a model that this client does not fetch or run for that alone.

    Whoever writes to a collection can write what it says of its model. Models of the catalog are
    followed, and those that the cache folder holds with the same digests. For any other, call
    `set_model` or `set_sparse_model` with its name, or make the client with ``trust_stamps=True``.

    Attributes:
        name: name of the model.
        collection_name: name of the collection.
    """

    def __init__(self, message: str, *, name: str, collection_name: str) -> None:
        super().__init__(message)
        self.name, self.collection_name = name, collection_name


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
    if type(value) is int and value >= least:
        return  # as a rule, and much faster than what follows
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise InputError(f"{option} must be a whole number of at least {least}, not {value!r}")


def check_str(option: str, value: object) -> None:
    """Raise `InputError` unless `value` is a str."""
    if not isinstance(value, str):
        raise InputError(f"{option} must be a str, not {value!r:.80} ({type(value).__name__})")


def check_prefix(option: str, value: object) -> None:
    """Raise `InputError` unless `value` can be put before every text: a str, and not too long."""
    check_str(option, value)
    if len(str(value)) > PREFIX:
        raise InputError(
            f"{option} has {len(str(value)):,} characters: a prefix has {PREFIX:,} at most"
        )


def check_path(option: str, value: object) -> None:
    """Raise `InputError` unless `value` is a path: a str that is not blank, or a path object."""
    if not isinstance(value, os.PathLike):
        check_str(option, value)
        if str(value).isspace():
            raise InputError(f"{option} is blank: {value!r}")


def check_picklable(option: str, value: object) -> None:
    """Raise `InputError` unless `value` can be pickled and sent to another process."""
    try:
        pickle.dumps(value)
    except Exception as error:  # pickle and the value's own methods raise anything
        raise InputError(
            f"{option}={value!r:.80} cannot be pickled: {error}. Another process gets functions by "
            "their names: define it at the top of a module"
        ) from error


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
