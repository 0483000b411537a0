"""Which encoders a client selects for a collection, and what it remembers of that."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from clients import LetterEncoder, WordEncoder
from hub_server import downloaded
from qdrant_client import models

from qdrant_embed import CollectionMismatchError
from qdrant_embed.collection.encoders import adapt
from qdrant_embed.collection.selection import EncoderSelection
from qdrant_embed.collection.stored import StoredCollection
from qdrant_embed.collection.vectors import CollectionVectors
from qdrant_embed.encoder.files.cache import CACHE_VARIABLE
from qdrant_embed.encoder.text import TextEmbedding

TINY = Path(__file__).parents[1] / "fixtures" / "before_rooms" / "models" / "tiny-bert"


def written_by(vectors: CollectionVectors) -> StoredCollection:
    """The collection "demo", as one that the vectors' encoders have written."""
    dense = {
        vectors.dense.vector_name: models.VectorParams(
            size=vectors.dense.encoder.dimension, distance=models.Distance.COSINE
        )
    }
    sparse = (
        {} if vectors.sparse is None else {vectors.sparse.vector_name: models.SparseVectorParams()}
    )
    return StoredCollection("demo", dense, sparse, vectors.stamp(), points=1)


@pytest.fixture
def selection() -> EncoderSelection:
    selection = EncoderSelection()
    selection.choose(adapt(LetterEncoder()))
    return selection


def test_a_query_finds_what_an_add_has_prepared(selection: EncoderSelection) -> None:
    vectors = selection.for_add(None)
    assert selection.recent.find("demo") is None
    selection.remember(written_by(vectors), vectors)
    assert selection.recent.find("demo") == vectors


def test_what_was_prepared_with_an_earlier_choice_is_not_remembered(
    selection: EncoderSelection,
) -> None:
    vectors = selection.for_add(None)
    selection.choose(adapt(LetterEncoder()))  # while the collection was prepared
    selection.remember(written_by(vectors), vectors)
    assert selection.recent.find("demo") is None
    vectors = selection.for_add(None)
    selection.choose_sparse(WordEncoder())
    selection.remember(written_by(vectors), vectors)
    assert selection.recent.find("demo") is None


def test_a_collection_that_another_process_has_left_without_sparse_vectors_is_refused(
    selection: EncoderSelection,
) -> None:
    selection.choose_sparse(WordEncoder())
    vectors = selection.for_add(None)
    collection = replace(written_by(vectors), sparse_vectors={})
    with pytest.raises(CollectionMismatchError, match="no sparse vector"):
        selection.remember(collection, vectors)


@pytest.mark.parametrize(
    "options",
    [
        {"max_tokens": 32},
        {"query_prefix": "q: ", "document_prefix": "d: "},
        {"dimensions": 8},
        {"overflow": "mean", "overlap": 3},
    ],
    ids=lambda options: next(iter(options)),
)
@pytest.mark.filterwarnings("ignore")
def test_a_collections_own_model_is_followed_with_all_its_options(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    writer = EncoderSelection()
    name = downloaded("someone/tiny-bert", TINY)
    writer.choose(adapt(TextEmbedding(name, lazy_load=True, **options)))
    vectors = writer.for_add(None)
    followed = EncoderSelection().for_query(written_by(vectors))
    assert followed.dense.encoder.describe() == vectors.dense.encoder.describe()
