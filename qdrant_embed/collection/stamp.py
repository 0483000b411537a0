"""The stamp: a collection's record of the encoders that wrote it.

What they say of themselves is checked before it is stored: a user's own may say anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from enum import Enum
from functools import cache
from numbers import Integral
from typing import Any, TypeVar, get_type_hints

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, create_model

from qdrant_embed.encoder.interfaces import (
    CUSTOM,
    DenseEncoder,
    DescribedEncoder,
    EncoderDescription,
    LateDescription,
    LateEncoder,
    SparseDescription,
    SparseEncoder,
)
from qdrant_embed.errors import (
    CollectionMismatchError,
    InputError,
    check_unicode,
    check_whole,
)
from qdrant_embed.forks import VALIDATING
from qdrant_embed.limits import PREFIX, STAMP_TEXT

Description = TypeVar(
    "Description", bound="EncoderDescription | SparseDescription | LateDescription"
)

STAMP_KEY = "qdrant_embed"
MARK_KEY = "qdrant_embed_copy"
BULK_KEY = "qdrant_embed_bulk"
INDEXING_THRESHOLD = 10_000  # kB of vectors in a segment from which Qdrant builds an index

_DENSE_FACTS = ("dimension", "distance", "pooling", "query_prefix", "document_prefix")
_TEXT_FACTS = ("max_tokens", "overflow", "overlap", "adapter")
_SPARSE_FACTS = ("idf", "max_tokens", "max_terms", "language", "k", "b", "average_length")
_LATE_FACTS = ("dimension", "distance", "max_tokens")
_LEAST = {"dimension": 1, "max_tokens": 1, "max_terms": 1, "overlap": 0}
# of one name, but of other weights
_OTHER_FORM = (
    "It was written by another revision of the model, or by the model's own ONNX file, which "
    "earlier releases ran where they could not compile its weights, and which is not here to be "
    "compared. "
)


@dataclass(frozen=True, kw_only=True)
class SparseStamp(SparseDescription):
    """The record of the encoder that wrote a collection's sparse vectors, and of their name."""

    vector_name: str


@dataclass(frozen=True, kw_only=True)
class LateStamp(LateDescription):
    """The record of the encoder that wrote the vectors of tokens, and of their name."""

    vector_name: str


@dataclass(frozen=True, kw_only=True)
class Stamp(EncoderDescription):
    """The record of the encoders that wrote a collection.

    It is stored in the collection's metadata in Qdrant, under ``qdrant_embed``. ``weights_sha256``
    is ``None`` if the encoder was a custom one.

    Attributes:
        vector_name: name of the dense vector; ``""`` for the unnamed one.
        version: version of the stamp's format.
        sparse: the stamp of the sparse encoder, if there is one.
        late: the stamp of the late-interaction encoder, if there is one.
    """

    vector_name: str
    version: int = 1
    sparse: SparseStamp | None = None
    late: LateStamp | None = None

    def metadata(self) -> dict[str, Any]:
        """Return the collection metadata that holds this stamp."""
        with VALIDATING:
            return {STAMP_KEY: _STAMPS.dump_python(self, mode="json", exclude_none=True)}


_STAMPS = TypeAdapter(Stamp)  # which also checks what is read


def describe(encoder: DenseEncoder) -> EncoderDescription:
    """Return the description of `encoder`: its own, or else its name and dimension.

    Raises:
        InputError: if what it returns is no description, or one whose facts a stamp cannot hold.
    """
    if isinstance(encoder, DescribedEncoder):
        return _described(encoder, EncoderDescription)
    named = EncoderDescription(model=encoder.model_name, dimension=encoder.dimension)
    return _checked(type(encoder).__name__, named, EncoderDescription)


def describe_sparse(encoder: SparseEncoder) -> SparseDescription:
    """Return the description of `encoder`; Raises as `describe` does."""
    return _described(encoder, SparseDescription)


def describe_late(encoder: LateEncoder) -> LateDescription:
    """Return the description of `encoder`; Raises as `describe` does."""
    return _described(encoder, LateDescription)


def _described(
    encoder: DescribedEncoder | SparseEncoder | LateEncoder, kind: type[Description]
) -> Description:
    found: object = encoder.describe()
    what = f"describe() of {type(encoder).__name__}"
    if not isinstance(found, kind):
        raise InputError(
            f"{what} must return an object of {kind.__name__}, not of {type(found).__name__}: "
            f"{found!r:.80}"
        )
    return _checked(what, found, kind)


def _checked(what: str, found: Description, kind: type[Description]) -> Description:
    """Return a description with Python's own types, and without what a subclass adds."""
    given = {field.name: getattr(found, field.name) for field in fields(kind)}
    try:
        with VALIDATING:
            facts = _facts_of(kind)  # type: ignore[arg-type] # mypy takes it for an instance
            checked = vars(facts(**{fact: _plain(value) for fact, value in given.items()}))
    except ValidationError as error:
        wrong = error.errors(include_url=False)[0]
        value = given[str(wrong["loc"][0])]
        raise InputError(
            f"{what} says {wrong['loc'][0]}={value!r:.80} ({type(value).__name__}), which "
            f"{kind.__name__} does not allow: {wrong['msg']}"
        ) from error
    for fact, value in checked.items():
        named = f"{fact} of {what}"
        if value is not None and fact in _LEAST:
            check_whole(named, value, _LEAST[fact])
        elif isinstance(value, str):
            check_unicode(named, value)
            if len(value) > (longest := _longest(fact)):
                raise InputError(
                    f"{named} has {len(value):,} characters: a stamp holds {longest:,} at most"
                )
    return kind(**checked)


def _plain(value: Any) -> Any:
    """Return a fact in Python's own type: a whole number, an enumeration's value, or a tuple."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, list):
        return tuple(value)
    if isinstance(value, bool) or not isinstance(value, Integral):
        return value
    return int(value)


def _longest(fact: str) -> int:
    """Return the number of characters that a stamp holds of a fact that is a text."""
    return PREFIX if fact.endswith("_prefix") else STAMP_TEXT


@cache
def _facts_of(kind: type[Any]) -> type[BaseModel]:
    """Return what checks the facts of a kind of description, and converts none."""
    facts: dict[str, Any] = {fact: (of, ...) for fact, of in get_type_hints(kind).items()}
    config = ConfigDict(strict=True, allow_inf_nan=False)
    return create_model(kind.__name__, __config__=config, **facts)


def stamp_of(
    encoder: EncoderDescription,
    vector_name: str,
    sparse: SparseStamp | None = None,
    late: LateStamp | None = None,
) -> Stamp:
    """Return the stamp of a collection that `encoder` writes."""
    return Stamp(vector_name=vector_name, sparse=sparse, late=late, **asdict(encoder))


def sparse_stamp_of(encoder: SparseDescription, vector_name: str) -> SparseStamp:
    """Return the stamp of sparse vectors that `encoder` writes."""
    return SparseStamp(vector_name=vector_name, **asdict(encoder))


def late_stamp_of(encoder: LateDescription, vector_name: str) -> LateStamp:
    """Return the stamp of vectors of tokens that `encoder` writes."""
    return LateStamp(vector_name=vector_name, **asdict(encoder))


def read_stamp(name: str, metadata: Mapping[str, Any] | None) -> Stamp | None:
    """Return the stamp in the metadata of the collection `name`, if there is one.

    Raises:
        CollectionMismatchError: if the stamp is invalid, too large, or of a newer version.
    """
    stored = (metadata or {}).get(STAMP_KEY)
    if stored is None:
        return None
    try:
        with VALIDATING:
            stamp = _STAMPS.validate_python(stored)
    except ValidationError as error:
        raise CollectionMismatchError(
            f"the stamp of collection {name!r} cannot be read ({error.error_count()} invalid "
            f"fields), because another program has changed its metadata {STAMP_KEY!r}; restore "
            "that metadata, or add the documents to a new collection",
            expected={"version": 1},
            found={STAMP_KEY: stored},
        ) from error
    for part in (stamp, stamp.sparse, stamp.late):
        for fact, value in ({} if part is None else vars(part)).items():
            if isinstance(value, str) and len(value) > (longest := _longest(fact)):
                raise CollectionMismatchError(
                    f"the stamp of collection {name!r} cannot be used: its {fact} has "
                    f"{len(value):,} characters, and {longest:,} at most are allowed; restore its "
                    f"metadata {STAMP_KEY!r}, or add the documents to a new collection",
                    expected={"characters": longest},
                    found={"characters": len(value)},
                )
    if stamp.version != 1:
        raise CollectionMismatchError(
            f"collection {name!r} was written by a newer qdrant-embed (stamp version "
            f"{stamp.version}); upgrade qdrant-embed",
            expected={"version": 1},
            found={"version": stamp.version},
        )
    return stamp


def check_stamp(name: str, stamp: Stamp, encoder: EncoderDescription) -> None:
    """Raise `CollectionMismatchError` if `encoder` returns other vectors than the stamp's."""
    written, current = asdict(stamp), asdict(encoder)
    for facts in (written, current):
        if facts["overflow"] == "error":  # the texts it accepts have the vectors of "truncate"
            facts["overflow"] = "truncate"
    _compare(name, written, current, (*_DENSE_FACTS, *_TEXT_FACTS), "set_model()")


def check_sparse_stamp(name: str, stamp: SparseStamp, encoder: SparseDescription) -> None:
    """Like `check_stamp`, for a sparse encoder."""
    written, current = asdict(stamp), asdict(encoder)
    for facts in (written, current):  # earlier releases had neither option, and stated neither
        facts["normalize_text"] = bool(facts["normalize_text"])
        facts["tokenizer"] = facts["tokenizer"] or "words"
    compared = (*_SPARSE_FACTS, "normalize_text", "tokenizer")
    _compare(name, written, current, compared, "set_sparse_model()")


def check_late_stamp(name: str, stamp: LateStamp, encoder: LateDescription) -> None:
    """Like `check_stamp`, for a late-interaction encoder."""
    _compare(name, asdict(stamp), asdict(encoder), _LATE_FACTS, "set_late_model()")


def _compare(
    name: str,
    written: Mapping[str, Any],
    current: Mapping[str, Any],
    facts: Sequence[str],
    setter: str,
) -> None:
    compared = [*facts, "tokenizer_sha256"]
    if written["weights_sha256"] and current["weights_sha256"]:
        compared.append("weights_sha256")  # equal weights are the same model under any name
    elif written["model"].lower() != current["model"].lower():
        compared.append("model")
    differing = [
        key
        for key in compared
        if written[key] is not None and current[key] is not None and written[key] != current[key]
    ]
    if not differing:
        return
    hint = ""
    if "weights_sha256" in differing and set(differing) <= {"weights_sha256", "tokenizer_sha256"}:
        same = written["model"].lower() == current["model"].lower()
        hint = _OTHER_FORM if same else ""
    own = f"Omit {setter} to use the collection's own model"
    if str(written.get("tokenizer")).startswith(CUSTOM):  # which no collection can bring
        own = f"Pass the tokenizer that the collection was written with to {setter}"
    sides = "; ".join(f"{key} {written[key]!r}, not {current[key]!r}" for key in differing)
    raise CollectionMismatchError(
        f"collection {name!r} was written by {written['model']}, which differs from this client's "
        f"{current['model']}: {sides}. {hint}{own}; to "
        "change the model of a collection, call migrate_model()",
        expected={key: current[key] for key in differing},
        found={key: written[key] for key in differing},
    )


@dataclass(frozen=True)
class CopyMark:
    """The record that a collection is being copied from another database.

    A collection has it from its creation until all collections of the same call are complete.

    Attributes:
        source: where the other database is.
        collection: name of the collection there.
        together: names of all collections of the call.
        complete: whether this one is complete.
    """

    source: str
    collection: str
    together: tuple[str, ...]
    complete: bool = False

    @property
    def origin(self) -> str:
        """The collection it is copied from, for messages."""
        return f"{self.collection!r} of {self.source}"

    def metadata(self) -> dict[str, Any]:
        """Return the collection metadata that holds this mark."""
        with VALIDATING:
            return {MARK_KEY: _MARKS.dump_python(self, mode="json")}

    def is_of(self, other: CopyMark) -> bool:
        """Return whether both are marks of copies of one collection."""
        return (self.source, self.collection) == (other.source, other.collection)

    def is_with(self, other: CopyMark) -> bool:
        """Return whether both are marks of the same call."""
        return (self.source, self.together) == (other.source, other.together)


_MARKS = TypeAdapter(CopyMark)  # which also checks what is read


def read_mark(name: str, metadata: Mapping[str, Any] | None) -> CopyMark | None:
    """Return the mark in the metadata of the collection `name`, if there is one.

    Raises:
        CollectionMismatchError: if the mark is invalid.
    """
    # some local databases keep the null that removes it
    if (stored := (metadata or {}).get(MARK_KEY)) is None:
        return None
    try:
        with VALIDATING:
            return _MARKS.validate_python(stored)
    except ValidationError as error:
        raise CollectionMismatchError(
            f"the metadata {MARK_KEY!r} of collection {name!r}, which marks an unfinished copy, "
            f"cannot be read ({error.error_count()} invalid fields); delete the collection and "
            "copy it again",
            expected={},
            found={MARK_KEY: stored},
        ) from error


@dataclass(frozen=True)
class BulkMark:
    """The record of a collection that is loaded without an index: what must be set afterwards.

    Attributes:
        indexing_threshold: the setting of the optimiser that builds the index again, in kB.
    """

    indexing_threshold: int

    def metadata(self) -> dict[str, Any]:
        """Return the metadata to store."""
        return {BULK_KEY: asdict(self)}


def read_bulk(metadata: Mapping[str, Any] | None) -> BulkMark | None:
    """Return the mark of a collection that is loaded without an index, if there is one.

    One that cannot be read has the default of Qdrant: the index must be built in any case.
    """
    if (stored := (metadata or {}).get(BULK_KEY)) is None:
        return None
    threshold = stored.get("indexing_threshold") if isinstance(stored, Mapping) else None
    return BulkMark(threshold if type(threshold) is int and threshold > 0 else INDEXING_THRESHOLD)
