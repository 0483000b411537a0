"""What the Qdrant clients need from an encoder, and nothing more."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, Protocol, TypeAlias, cast, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from qdrant_embed.errors import InputError, check_str, check_whole

Vector: TypeAlias = NDArray[np.float32]
Pooling: TypeAlias = Literal["cls", "mean", "last_token"]
Task: TypeAlias = Literal["embed", "terms", "token_vectors", "score"]
Overflow: TypeAlias = Literal["truncate", "mean", "chunk", "error"]
Distance: TypeAlias = Literal["Cosine", "Dot", "Euclid", "Manhattan"]


def assert_never(value: NoReturn) -> NoReturn:
    """Fail where no case of a ``match`` was meant; the type checker sees to it that none is left.

    That of `typing` is there from Python 3.11 on.
    """
    raise NotImplementedError(f"{value!r} is not provided for")


@dataclass(frozen=True)
class EncoderDescription:
    """What decides an encoder's vectors; kept with a collection to recognise its encoder again.

    ``None`` means "not stated" and fits anything.

    Attributes:
        model: the model's name.
        dimension: numbers in one vector.
        distance: how Qdrant shall compare vectors, by its own name for it.
        revision: the commit on the hub; told, and not compared.
        weights_sha256: hex digest of the weights file; equal ones are the same model by any name.
        pooling: how token vectors become one; see `ModelSpec`.
        query_prefix: put before every query.
        document_prefix: put before every document.
        max_tokens: tokens read of one text, special tokens included.
        overflow: what becomes of longer texts; see `TextEmbedding`.
        overlap: with ``overflow="mean"`` and ``"chunk"``, tokens that a window repeats of the one
            before.
    """

    model: str
    dimension: int
    distance: Distance = "Cosine"
    revision: str | None = None
    weights_sha256: str | None = None
    pooling: Pooling | None = None
    query_prefix: str | None = None
    document_prefix: str | None = None
    max_tokens: int | None = None
    overflow: Overflow | None = None
    overlap: int | None = None


@dataclass(frozen=True)
class Chunk:
    """A part of a text, ``text[start:end]``, and its vector, float32 [dimension]."""

    start: int
    end: int
    vector: Vector


@runtime_checkable
class DenseEncoder(Protocol):
    """Any object that turns texts into one dense vector each.

    `TextEmbedding` is one. Your own class needs these four names; both methods give one vector
    of `dimension` numbers for each text, in order (a 2-D array will do), and may be called from
    several threads at once.
    """

    @property
    def model_name(self) -> str:
        """Name of the model; the vector's name in a collection is made from its last part."""

    @property
    def dimension(self) -> int:
        """Numbers in one vector."""

    def passage_embed(self, texts: Iterable[str], /) -> Iterable[Any]:
        """One vector for each document."""

    def query_embed(self, query: Iterable[str], /) -> Iterable[Any]:
        """One vector for each query."""


@runtime_checkable
class DescribedEncoder(DenseEncoder, Protocol):
    """An encoder that can state everything its vectors depend on."""

    def describe(self) -> EncoderDescription:
        """The facts a collection written by this encoder is stamped with."""


@dataclass(frozen=True)
class SparseVector:
    """The few numbers of one text that are not 0: int64 `indices`, float32 `values`, both [n]."""

    indices: NDArray[np.int64]
    values: NDArray[np.float32]


@dataclass(frozen=True)
class SparseDescription:
    """What decides a sparse encoder's vectors; the counterpart of `EncoderDescription`.

    Attributes:
        model: the model's name.
        idf: Qdrant shall weigh each index by how rare it is in the collection.
        revision: the commit on the hub; told, and not compared.
        weights_sha256: hex digest of the weights file; equal ones are the same model by any name.
        max_tokens: tokens that a network reads of one text, special tokens included.
        max_terms: terms that are kept of one text.
        language: of BM25's stop words and stemmer.
        k: BM25's saturation of a word's count.
        b: BM25's penalty for long texts.
        average_length: BM25's stems in an average document.
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


@runtime_checkable
class SparseEncoder(Protocol):
    """Any object that turns texts into sparse vectors, documents and queries each in its way.

    Both methods give for each text, in order, an object with ``indices`` (whole numbers) and
    ``values`` (numbers) of one length, and may be called from several threads at once.
    """

    @property
    def model_name(self) -> str:
        """Name of the model; the vector's name in a collection is made from its last part."""

    def describe(self) -> SparseDescription:
        """The facts a collection written by this encoder is stamped with."""

    def passage_embed(self, texts: Iterable[str], /) -> Iterable[SparseVector]:
        """One vector for each document."""

    def query_embed(self, query: Iterable[str], /) -> Iterable[SparseVector]:
        """One vector for each query."""


def describe(encoder: DenseEncoder) -> EncoderDescription:
    """The description of `encoder`: its own where it has one, else its name and dimension."""
    if isinstance(encoder, DescribedEncoder):
        return encoder.describe()
    return EncoderDescription(model=encoder.model_name, dimension=encoder.dimension)


def check_encoder(candidate: object) -> DenseEncoder:
    """`candidate` itself, once it is seen to have the names of `DenseEncoder`.

    Raises:
        InputError: a name is missing, or stands for something else.
    """
    _check_names("a model", candidate, ("model_name", "dimension", "passage_embed", "query_embed"))
    return cast("DenseEncoder", candidate)


def check_sparse_encoder(candidate: object) -> SparseEncoder:
    """`candidate` itself, once it is seen to have the names of `SparseEncoder`.

    Raises:
        InputError: a name is missing, or stands for something else.
    """
    _check_names(
        "a sparse model", candidate, ("model_name", "describe", "passage_embed", "query_embed")
    )
    return cast("SparseEncoder", candidate)


def _check_names(what: str, candidate: object, names: Sequence[str]) -> None:
    """Raises `InputError` unless `candidate` is an object with the names an encoder has."""
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
