"""The protocols between the encoder and the Qdrant clients."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, Protocol, TypeAlias, cast, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from qdrant_embed.errors import (
    InputError,
    ModelDownloadError,
    ModelFileError,
    check_str,
    check_whole,
)

Vector: TypeAlias = NDArray[np.float32]
Pooling: TypeAlias = Literal[
    "cls", "mean", "last_token", "max", "mean_sqrt_len_tokens", "weightedmean"
]
Poolings: TypeAlias = Pooling | tuple[Pooling, ...]  # several: one behind the other
Task: TypeAlias = Literal["embed", "terms", "token_vectors", "score"]
# of a term's largest logit x: log(1 + relu(x)), or the same logarithm of that again
TermWeighting: TypeAlias = Literal["log", "log_log"]
Route: TypeAlias = Literal["document", "query"]  # what a text is; some models treat them apart
Overflow: TypeAlias = Literal["truncate", "mean", "chunk", "error"]
# returns the words of a text; they are lower-cased afterwards
WordTokenizer: TypeAlias = Callable[[str], Iterable[str]]
CUSTOM = "custom: "  # what the name of a user's own `WordTokenizer` begins with in a stamp
Distance: TypeAlias = Literal["Cosine", "Dot", "Euclid", "Manhattan"]


def assert_never(value: NoReturn) -> NoReturn:
    """Fail where no case of a ``match`` was meant; the type checker sees to it that none is left.

    That of `typing` is there from Python 3.11 on.
    """
    raise NotImplementedError(f"{value!r} is not provided for")


@dataclass(frozen=True)
class EncoderDescription:
    """Everything that an encoder's vectors depend on.

    It is stored with a collection to recognise the collection's encoder. ``None`` means "not
    stated", and fits anything.

    Attributes:
        model: the model's name.
        dimension: dimension of a vector.
        distance: how Qdrant compares vectors, by its own name for it.
        revision: commit on the hub; recorded, but not compared.
        weights_sha256: hex digest of the weights file; if it is equal, it is the same model under
            any name.
        pooling: how token vectors become one; see `ModelSpec`.
        query_prefix: prefix of every query.
        document_prefix: prefix of every document.
        max_tokens: maximum number of tokens per text, special tokens included.
        overflow: how longer texts are handled; see `TextEmbedding`.
        overlap: with ``overflow="mean"`` and ``"chunk"``, tokens that two neighbouring windows
            share.
        tokenizer_sha256: hex digest of the tokenizer, and of the settings in the model's files
            that vectors depend on.
        adapter: the task whose weights are run, of a model that has some for each task (LoRA);
            ``None`` for the default one, and for all other models.
    """

    model: str
    dimension: int
    distance: Distance = "Cosine"
    revision: str | None = None
    weights_sha256: str | None = None
    pooling: Poolings | None = None
    query_prefix: str | None = None
    document_prefix: str | None = None
    max_tokens: int | None = None
    overflow: Overflow | None = None
    overlap: int | None = None
    tokenizer_sha256: str | None = None
    adapter: str | None = None


@dataclass(frozen=True)
class Recorded:
    """The record by which a collection names its model, which somebody else may have written.

    A model that is named so is never a folder. It is fetched without a token, and it is not
    compiled, loaded or run unless it has these digests, or its own ONNX file has them (see
    `OtherFormError`).

    Attributes:
        weights_sha256: see `EncoderDescription`; ``None`` fits any.
        tokenizer_sha256: see `EncoderDescription`; ``None`` fits any.
        may_be_fetched: whether it can come from the hub or a package; if not, only what the cache
            folder already holds is used.
    """

    weights_sha256: str | None = None
    tokenizer_sha256: str | None = None
    may_be_fetched: bool = True

    def check(self, name: str, weights_sha256: str, tokenizer_sha256: str | None) -> None:
        """Raise `NotAsRecordedError` unless model `name`, which has these digests, is the one."""
        found = {"weights_sha256": weights_sha256, "tokenizer_sha256": tokenizer_sha256}
        for fact, digest in found.items():
            recorded = getattr(self, fact)
            if recorded is not None and digest is not None and recorded != digest:
                raise NotAsRecordedError(
                    f"{name} is not the model that the collection records: {fact} {digest}, not "
                    f"{recorded!r:.80}"
                )


class NotAsRecordedError(ModelFileError):
    """Raised when a model is found that has other digests than a collection records."""


class OtherFormError(NotAsRecordedError):
    """Raised when a collection records a model's own ONNX file, which returns other vectors.

    Earlier releases ran that file, because they could not compile the model's weights.

    Attributes:
        weights_sha256: digest of the weights as they are compiled now.
    """

    def __init__(self, message: str, weights_sha256: str) -> None:
        super().__init__(message)
        self.weights_sha256 = weights_sha256


class NotInCacheError(ModelDownloadError):
    """Raised when a model that must not be fetched is not in the cache folder."""


@dataclass(frozen=True)
class Chunk:
    """A part of a text, ``text[start:end]``, with its vector, float32 [dimension]."""

    start: int
    end: int
    vector: Vector


@runtime_checkable
class DenseEncoder(Protocol):
    """Any object that turns texts into one dense vector each.

    `TextEmbedding` is one. Your own class needs these four names. Both methods return one vector
    of `dimension` per text, in input order (a 2-D array is fine), and can be called from several
    threads concurrently.
    """

    @property
    def model_name(self) -> str:
        """Name of the model; its last part becomes the vector's name in a collection."""

    @property
    def dimension(self) -> int:
        """Dimension of a vector."""

    def passage_embed(self, texts: Iterable[str], /) -> Iterable[Any]:
        """Return one vector per document."""

    def query_embed(self, query: Iterable[str], /) -> Iterable[Any]:
        """Return one vector per query."""


@runtime_checkable
class DescribedEncoder(DenseEncoder, Protocol):
    """An encoder that can report everything its vectors depend on."""

    def describe(self) -> EncoderDescription:
        """Return the facts that a collection written by this encoder is stamped with."""


@dataclass(frozen=True)
class SparseVector:
    """The non-zero values of a text's vector: int64 `indices` and float32 `values`, both [n]."""

    indices: NDArray[np.int64]
    values: NDArray[np.float32]


@dataclass(frozen=True)
class SparseDescription:
    """Everything that a sparse encoder's vectors depend on; see `EncoderDescription`.

    Attributes:
        model: the model's name.
        idf: whether Qdrant weights each index by its rarity in the collection.
        revision: commit on the hub; recorded, but not compared.
        weights_sha256: hex digest of the weights file; if it is equal, it is the same model under
            any name.
        max_tokens: maximum number of tokens per text, special tokens included.
        max_terms: maximum number of terms per text.
        language: language of BM25's stop words and stemmer.
        k: BM25's saturation of a word's count.
        b: BM25's penalty for long texts.
        average_length: number of stems in an average document, for BM25.
        tokenizer_sha256: see `EncoderDescription`.
        normalize_text: whether BM25 normalises texts before it splits them; ``None``: it does not.
        beside_dense: whether the collection's dense model computes them in the same pass.
        tokenizer: name of what BM25 splits texts with; ``None`` for words as fastembed finds them.
    """

    model: str
    idf: bool = False
    revision: str | None = None
    weights_sha256: str | None = None
    max_tokens: int | None = None
    max_terms: int | None = None
    language: str | None = None
    k: float | None = None
    b: float | None = None
    average_length: float | None = None
    tokenizer_sha256: str | None = None
    normalize_text: bool | None = None
    tokenizer: str | None = None
    beside_dense: bool | None = None


@runtime_checkable
class SparseEncoder(Protocol):
    """Any object that turns texts into sparse vectors, documents and queries each in their way.

    Both methods return one object per text, in input order, with ``indices`` (whole numbers) and
    ``values`` (numbers) of the same length. They can be called from several threads concurrently.
    """

    @property
    def model_name(self) -> str:
        """Name of the model; its last part becomes the vector's name in a collection."""

    def describe(self) -> SparseDescription:
        """Return the facts that a collection written by this encoder is stamped with."""

    def passage_embed(self, texts: Iterable[str], /) -> Iterable[SparseVector]:
        """Return one vector per document."""

    def query_embed(self, query: Iterable[str], /) -> Iterable[SparseVector]:
        """Return one vector per query."""


@dataclass(frozen=True)
class LateDescription:
    """Everything that the vectors of a late-interaction encoder depend on.

    See `EncoderDescription`.

    Attributes:
        model: the model's name.
        dimension: dimension of the vector of a token.
        distance: how Qdrant compares the vectors of tokens, by its own name for it.
        revision: commit on the hub; recorded, but not compared.
        weights_sha256: hex digest of the weights file; if it is equal, it is the same model under
            any name.
        max_tokens: maximum number of tokens per document, special tokens included.
        tokenizer_sha256: see `EncoderDescription`.
    """

    model: str
    dimension: int
    distance: Distance = "Cosine"
    revision: str | None = None
    weights_sha256: str | None = None
    max_tokens: int | None = None
    tokenizer_sha256: str | None = None


@runtime_checkable
class LateEncoder(Protocol):
    """Any object that turns texts into one vector for each token.

    Both methods return one array per text, in input order: float32 [tokens, dimension], with at
    least one row. They can be called from several threads concurrently.
    """

    @property
    def model_name(self) -> str:
        """Name of the model; its last part becomes the vector's name in a collection."""

    @property
    def dimension(self) -> int:
        """Dimension of the vector of a token."""

    def describe(self) -> LateDescription:
        """Return the facts that a collection written by this encoder is stamped with."""

    def passage_embed(self, texts: Iterable[str], /) -> Iterable[Any]:
        """Return the vectors of each document."""

    def query_embed(self, query: Iterable[str], /) -> Iterable[Any]:
        """Return the vectors of each query."""


@runtime_checkable
class Reranker(Protocol):
    """Any object that scores texts against a query, such as a cross-encoder.

    `TextCrossEncoder` is one; fastembed's can be passed as is. `rerank` can be called from several
    threads concurrently, and is never called on the event loop.
    """

    def rerank(self, query: str, documents: Sequence[str], /) -> Iterable[Any]:
        """Return one score per document, in order; higher is better."""


def check_reranker(candidate: object) -> None:
    """Raise `InputError` unless `candidate` is a `Reranker` or ``None``."""
    if isinstance(candidate, type):
        raise InputError(
            f"reranker must be an object, but {candidate.__name__} is a class; pass an instance"
        )
    if candidate is not None and not isinstance(candidate, Reranker):
        raise InputError(
            "reranker must be a cross-encoder's name, or have the method rerank(query, documents), "
            f"which {type(candidate).__name__} lacks"
        )


def check_encoder(candidate: object) -> DenseEncoder:
    """Return `candidate` if it has the names of `DenseEncoder`.

    Raises:
        InputError: if a name is missing, or is something else.
    """
    _check_names("a model", candidate, ("model_name", "dimension", "passage_embed", "query_embed"))
    return cast("DenseEncoder", candidate)


def check_sparse_encoder(candidate: object) -> SparseEncoder:
    """Return `candidate` if it has the names of `SparseEncoder`.

    Raises:
        InputError: if a name is missing, or is something else.
    """
    _check_names(
        "a sparse model", candidate, ("model_name", "describe", "passage_embed", "query_embed")
    )
    return cast("SparseEncoder", candidate)


def check_late_encoder(candidate: object) -> LateEncoder:
    """Return `candidate` if it has the names of `LateEncoder`.

    Raises:
        InputError: if a name is missing, or is something else.
    """
    names = ("model_name", "dimension", "describe", "passage_embed", "query_embed")
    _check_names("a late-interaction model", candidate, names)
    return cast("LateEncoder", candidate)


def _check_names(what: str, candidate: object, names: Sequence[str]) -> None:
    """Raise `InputError` unless `candidate` is an object with the names of an encoder."""
    if isinstance(candidate, type):
        raise InputError(f"{candidate.__name__} is a class: pass an object of it")
    kind = type(candidate).__name__
    missing = [name for name in names if getattr(candidate, name, None) is None]
    if missing:
        raise InputError(
            f"{what} is a name, a folder, or an object with {', '.join(names)}; "
            f"{candidate!r:.80} ({kind}) is missing {', '.join(missing)}"
        )
    for name in names:
        value = getattr(candidate, name)
        if name == "model_name":
            check_str(f"model_name of {kind}", value)
        elif name == "dimension":
            check_whole(f"dimension of {kind}", value, 1)
        elif not callable(value):
            raise InputError(f"{name} of {kind} must be a method")
