"""The files of late-interaction models: Stanford's ColBERT, PyLate, sentence-transformers 6.

What they leave out has the defaults of these programs.
"""

from __future__ import annotations

import string
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from qdrant_embed.encoder.facts.architectures import SHORTEST
from qdrant_embed.encoder.facts.jsonfile import JsonFile, read_json
from qdrant_embed.encoder.facts.spec import LateFacts, QueryExpansion
from qdrant_embed.errors import ModelFileError
from qdrant_embed.limits import PREFIX

STANFORD_FILE = "artifact.metadata"
STANFORD = "HF_ColBERT"  # by this name of a class, config.json says that it is Stanford's
_PYLATE_FILE = "config_sentence_transformers.json"
PROJECTION = "linear.weight"  # among the weights of Stanford's layout

_QUERY_LENGTH, _PYLATE_DOCUMENT_LENGTH = 32, 180
_MASK = "[MASK]"
# no query needs more, and memory grows with the square of its length
_Length = Annotated[int, Field(ge=SHORTEST, le=4096)]
_Marker = Annotated[str, Field(max_length=PREFIX)]
_Words = Annotated[tuple[_Marker, ...], Field(max_length=10_000)]


@dataclass(frozen=True)
class LateFiles:
    """What a late-interaction model's files state.

    Attributes:
        facts: how it reads queries and documents.
        document_length: most tokens of a document, special tokens included, if that is stated.
    """

    facts: LateFacts
    document_length: int | None = None

    def without_markers(
        self, query: str | None, document: str | None
    ) -> tuple[str | None, str | None]:
        """Return prompts without the markers that PyLate's may begin with."""
        return (
            query and query.removeprefix(self.facts.query_marker),
            document and document.removeprefix(self.facts.document_marker),
        )


class _Architectures(JsonFile):
    architectures: tuple[str, ...] | None = None


class _Stanford(JsonFile):
    query_token_id: _Marker = "[unused0]"  # noqa: S105 - a token of a vocabulary
    doc_token_id: _Marker = "[unused1]"  # noqa: S105 - likewise
    query_maxlen: _Length = _QUERY_LENGTH
    doc_maxlen: _Length | None = None
    mask_punctuation: bool = True
    attend_to_mask_tokens: bool = False


class _PyLate(JsonFile):
    """``config_sentence_transformers.json`` of PyLate; sentence-transformers 6 writes its type."""

    model_type: str | None = None
    query_prefix: _Marker | None = None
    document_prefix: _Marker | None = None
    query_length: _Length | None = None
    document_length: Annotated[int, Field(ge=SHORTEST)] | None = None
    attend_to_expansion_tokens: bool | None = None
    skiplist_words: _Words | None = None
    do_query_expansion: bool | None = None

    @property
    def is_of_pylate(self) -> bool:
        """Whether PyLate wrote it, or a program that writes the same."""
        return self.model_type == "ColBERT" or any(
            value is not None for key, value in vars(self).items() if key != "model_type"
        )


class _Expansion(JsonFile):
    strategy: Literal["fixed", "min"]
    attend: bool = False
    token: _Marker | None = None
    length: _Length


class _Backbone(JsonFile):
    """``sentence_bert_config.json`` of sentence-transformers 6."""

    query_length: _Length | None = None
    document_length: Annotated[int, Field(ge=SHORTEST)] | None = None
    query_expansion: _Expansion | None = None


class _Mask(JsonFile):
    skiplist_words: _Words = ()
    skiplist_tasks: tuple[Literal["query", "document"], ...] = ("document",)
    keep_only_token_ids: None = None


class _Tokenizer(JsonFile):
    mask_token: Any = None


def is_stanfords(folder: Path) -> bool:
    """Return whether ``config.json`` in `folder` is of Stanford's layout."""
    path = folder / "config.json"
    if not path.is_file():
        return False
    return STANFORD in (read_json(path, TypeAdapter(_Architectures)).architectures or ())


def is_late(folder: Path, first: Path) -> bool:
    """Return whether a model is of Stanford's layout or PyLate's.

    Args:
        folder: the model's.
        first: folder of the transformer.

    Raises:
        ModelFileError: a file is damaged.
    """
    return is_stanfords(first) or _pylate(folder).is_of_pylate


def read_late(folder: Path, first: Path, mask: Path | None) -> LateFiles:
    """Read how a late-interaction model reads its texts.

    Args:
        folder: the model's.
        first: folder of the transformer.
        mask: folder of the module that chooses vectors (``MultiVectorMask``), if it has one.

    Raises:
        ModelFileError: a file is damaged, or the model is of no such kind.
    """
    mask_token = _mask_token(first)
    if is_stanfords(first):
        return _stanfords(folder, mask_token)
    pylate = _pylate(folder)
    if mask is not None:
        return _native(first, mask, mask_token)
    if not pylate.is_of_pylate:
        raise ModelFileError(
            f"{folder} is not a late-interaction model: it has neither a MultiVectorMask in "
            f"modules.json, nor PyLate's settings in {_PYLATE_FILE}, nor {STANFORD} in config.json"
        )
    return _pylates(pylate, mask_token)


def _pylate(folder: Path) -> _PyLate:
    path = folder / _PYLATE_FILE
    return read_json(path, TypeAdapter(_PyLate)) if path.is_file() else _PyLate()


def _stanfords(folder: Path, mask_token: str) -> LateFiles:
    path = folder / STANFORD_FILE
    stated = read_json(path, TypeAdapter(_Stanford)) if path.is_file() else _Stanford()
    facts = LateFacts(
        query_marker=stated.query_token_id,
        document_marker=stated.doc_token_id,
        expansion=QueryExpansion(
            length=stated.query_maxlen, attends=stated.attend_to_mask_tokens, token=mask_token
        ),
        skipped=tuple(string.punctuation) if stated.mask_punctuation else (),
    )
    return LateFiles(facts, stated.doc_maxlen)


def _pylates(stated: _PyLate, mask_token: str) -> LateFiles:
    length, expansion = stated.query_length or _QUERY_LENGTH, None
    if stated.do_query_expansion is not False:
        attends = stated.attend_to_expansion_tokens is True
        expansion = QueryExpansion(length=length, attends=attends, token=mask_token)
    words = stated.skiplist_words
    facts = LateFacts(
        query_marker="[Q] " if stated.query_prefix is None else stated.query_prefix,
        document_marker="[D] " if stated.document_prefix is None else stated.document_prefix,
        query_length=length,
        expansion=expansion,
        skipped=tuple(string.punctuation) if words is None else words,
    )
    return LateFiles(facts, stated.document_length or _PYLATE_DOCUMENT_LENGTH)


def _native(first: Path, mask: Path, mask_token: str) -> LateFiles:
    path = first / "sentence_bert_config.json"
    stated = read_json(path, TypeAdapter(_Backbone)) if path.is_file() else _Backbone()
    chosen = read_json(mask / "config.json", TypeAdapter(_Mask))
    expansion, wanted = None, stated.query_expansion
    if wanted is not None:
        expansion = QueryExpansion(
            length=wanted.length,
            attends=wanted.attend,
            is_fixed=wanted.strategy == "fixed",
            token=wanted.token or mask_token,
        )
    skips = {"query", "document"} & {*chosen.skiplist_tasks}
    if chosen.skiplist_words and "document" not in skips:
        raise ModelFileError(
            f"{mask} leaves out tokens of queries alone (skiplist_tasks), which cannot be run"
        )
    facts = LateFacts(
        query_length=stated.query_length,
        expansion=expansion,
        skipped=chosen.skiplist_words,
        skips_in_queries="query" in skips,
    )
    return LateFiles(facts, stated.document_length)


def _mask_token(folder: Path) -> str:
    """Return the tokenizer's mask token; ``[MASK]`` where its config states none."""
    path = folder / "tokenizer_config.json"
    stated = read_json(path, TypeAdapter(_Tokenizer)).mask_token if path.is_file() else None
    if isinstance(stated, dict):  # as transformers 4 writes it
        stated = stated.get("content")
    return stated if isinstance(stated, str) and stated else _MASK
