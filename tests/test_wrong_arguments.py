"""Options of a wrong kind are refused by name, before a model is looked for or Qdrant is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
from clients import LetterEncoder
from numpy.typing import NDArray
from qdrant_client import models
from tiny import TinyModel

from qdrant_embed import (
    CollectionMismatchError,
    CollectionOptions,
    InputError,
    ModelError,
    ModelSpec,
    QdrantClient,
    SparseTextEmbedding,
    TextEmbedding,
    UnknownModelError,
)

NAME = "nobody/nothing"  # which is never looked for


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_tokens": "5"}, "max_tokens must be a whole number of at least 3, not '5'"),
        ({"cache_dir": 5}, "cache_dir must be a str"),
        ({"providers": "CPUExecutionProvider"}, "providers must be a list"),
        ({"cuda": True, "device_ids": 0}, "device_ids must be a list"),
        ({"query_prefix": 5}, "query_prefix must be a str"),
        ({"document_prefix": b"x"}, "document_prefix must be a str"),
        ({"revision": 5}, "revision must be a str"),
        ({"revision": ""}, "revision is empty"),
        ({"spec": {"dimension": 3}}, "spec must be a ModelSpec, not dict"),
    ],
)
def test_options_of_a_model(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        TextEmbedding(NAME, lazy_load=True, **options)


@pytest.mark.parametrize("length", ["5", 2, 2.5])
def test_the_length_is_named_as_the_clients_have_it(client: QdrantClient, length: Any) -> None:
    with pytest.raises(InputError, match="max_length must be a whole number of at least 3"):
        client.set_model(NAME, max_length=length, lazy_load=True)


@pytest.mark.parametrize("name", [None, 5, b"x"])
@pytest.mark.parametrize("kind", [TextEmbedding, SparseTextEmbedding])
def test_names_of_models(kind: Callable[[Any], object], name: object) -> None:
    with pytest.raises(InputError, match="model must be a str, not"):
        kind(name)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        (("x", "384", "mean", 256), "dimension must be a whole number"),
        (("x", 384, "mean", "256"), "max_tokens must be a whole number"),
        (("x", 384, "middle", 256), "pooling must be one of cls, mean"),
        ((5, 384, "mean", 256), "name must be a str"),
        (("x", 384, "mean", 256, True, 5), "query_prefix must be a str"),
    ],
)
def test_facts_of_a_model(facts: tuple[Any, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ModelSpec(*facts)


def test_sparse_and_dense_models_are_told_apart() -> None:
    client = QdrantClient(":memory:")
    with pytest.raises(UnknownModelError, match=r"set_sparse_model\(\) sets it"):
        client.set_model("bm25")
    with pytest.raises(UnknownModelError, match=r"set_model\(\) sets it"):
        client.set_sparse_model("BAAI/bge-small-en-v1.5")
    with pytest.raises(UnknownModelError, match="no sparse model named ''"):
        client.set_sparse_model("")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"model_name": 5}, "model_name of LetterEncoder must be a str"),
        ({"dimension": "5"}, "dimension of LetterEncoder must be a whole number"),
        ({"query_embed": 5}, "query_embed of LetterEncoder must be a method"),
    ],
)
def test_an_encoder_object(names: dict[str, Any], message: str) -> None:
    encoder = LetterEncoder()
    for name, value in names.items():
        setattr(encoder, name, value)
    with pytest.raises(InputError, match=message):
        QdrantClient(":memory:").set_model(encoder)


def test_an_encoder_is_an_object() -> None:
    client = QdrantClient(":memory:")
    with pytest.raises(InputError, match="LetterEncoder is a class"):
        client.set_model(LetterEncoder)  # type: ignore[arg-type] # the mistake
    with pytest.raises(InputError, match="a model is a name, a folder, or an object"):
        client.set_model(None)  # type: ignore[arg-type] # the mistake
    with pytest.raises(InputError, match="vector_name must be a str"):
        client.set_model(LetterEncoder(), vector_name=5)  # type: ignore[arg-type] # the mistake
    with pytest.raises(InputError, match="vector_name must be a str"):
        client.set_sparse_model("Qdrant/bm25", vector_name=5)  # type: ignore[arg-type] # the mistake


def test_an_encoder_that_gives_nothing(client: QdrantClient) -> None:
    encoder = LetterEncoder()
    encoder.passage_embed = lambda texts: None  # type: ignore[assignment,method-assign,return-value] # the mistake
    client.set_model(encoder)
    with pytest.raises(ModelError, match="returned a NoneType, not a list"):
        client.add("demo", ["a"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"query_filter": {"a": 1}}, "query_filter must be a qdrant_client.models.Filter"),
        ({"search_params": "exact"}, "search_params cannot be 'exact'"),
        ({"score_threshold": "high"}, "score_threshold cannot be 'high'"),
        ({"shard_key_selector": object()}, "shard_key_selector cannot be"),
        ({"reranker": LetterEncoder}, "LetterEncoder is a class"),
    ],
)
def test_options_of_a_query(client: QdrantClient, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        client.query("demo", "cat", **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quantization_config": "int8"}, "quantization_config cannot be 'int8'"),
        ({"on_disk": "never"}, "on_disk cannot be 'never'"),
        ({"sparse_on_disk": "never"}, "on_disk cannot be 'never'"),
        ({"shard_number": "two"}, "shard_number must be a whole number"),
        ({"sharding_method": "mine"}, "sharding_method must be"),
    ],
)
def test_options_of_a_collection(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        CollectionOptions(**options)


class TooEarly(LetterEncoder):
    """Is never asked for vectors."""

    def passage_embed(self, texts: Iterable[str], /) -> Iterable[NDArray[np.float32]]:
        pytest.fail("documents were encoded before the options were looked at")


def test_collection_options_are_of_their_class(client: QdrantClient) -> None:
    client.set_model(TooEarly())
    with pytest.raises(InputError, match="collection_options must be CollectionOptions"):
        client.add("demo", ["a"], collection_options={"on_disk": True})  # type: ignore[arg-type] # the mistake
    assert not client.collection_exists("demo")


@pytest.mark.parametrize("name", [None, 5, b"x", ""])
def test_names_of_collections(client: QdrantClient, name: Any) -> None:
    with pytest.raises(InputError, match="collection_name"):
        client.add(name, ["a"])
    with pytest.raises(InputError, match="collection_name"):
        client.query(name, "a")


def test_the_document_key_is_a_str(client: QdrantClient) -> None:
    client.document_key = None  # type: ignore[assignment] # the mistake
    with pytest.raises(InputError, match="document_key must be a str"):
        client.query("demo", "cat")


def test_a_vector_of_many_vectors(client: QdrantClient) -> None:
    many = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
    params = models.VectorParams(size=5, distance=models.Distance.COSINE, multivector_config=many)
    client.create_collection("late", vectors_config={"late": params})
    client.set_model(LetterEncoder(), vector_name="late")
    with pytest.raises(CollectionMismatchError, match="several vectors"):
        client.add("late", ["a"])


def test_no_valid_unicode(tiny: TinyModel) -> None:
    with pytest.raises(InputError, match="text number 1 is not valid Unicode"):
        list(TextEmbedding(tiny.path).embed(["a", "\ud800"]))
