"""Names of collections and vectors, by the server's rules on every store."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from clients import LetterEncoder, WordEncoder, cosine, stamp
from numpy.typing import NDArray

from qdrant_embed import InputError, QdrantClient
from qdrant_embed.collection.stored import sparse_field_name, vector_field_name
from qdrant_embed.engines.names import as_vector_name, check_vector_name

NEVER = ["", ".", "..", "a/b", "a\0b", "x" * 256, "a\ud800", "a\x1fb", "a\n", "\x7f"]
NOT_NOW = ["a:b", "a?b", "a\\b", "a*b", 'a"b', "a<b", "a>b", "a|b"]


class Untouched(LetterEncoder):
    """An encoder that must not be asked."""

    def passage_embed(self, texts: Iterable[str], /) -> Iterable[NDArray[np.float32]]:
        raise AssertionError("encoded before the name was checked")


@pytest.mark.parametrize("name", [*NEVER, *NOT_NOW])
def test_a_bad_name_is_refused_before_a_text_is_encoded(anywhere: QdrantClient, name: str) -> None:
    anywhere.set_model(Untouched())
    with pytest.raises(InputError, match=r"^collection_name"):
        anywhere.add(name, ["cat"])
    assert anywhere.get_collections().collections == []


@pytest.mark.parametrize("name", NEVER)
def test_a_name_that_never_was_is_refused_by_all(anywhere: QdrantClient, name: str) -> None:
    with pytest.raises(InputError, match=r"^collection_name"):
        anywhere.query(name, "cat")
    with pytest.raises(InputError, match=r"^collection_name"):
        anywhere.delete_documents(name, [1])
    anywhere.add("old", ["cat"])
    with pytest.raises(InputError, match=r"^new_collection_name"):
        anywhere.migrate_model("old", Untouched(), name)
    with pytest.raises(InputError, match=r"^alias"):
        anywhere.migrate_model("old", Untouched(), "new", alias=name)


@pytest.mark.parametrize("name", NOT_NOW)
def test_a_migration_into_a_bad_name_is_refused_first(anywhere: QdrantClient, name: str) -> None:
    anywhere.add("old", ["cat"])
    with pytest.raises(InputError, match=r"^new_collection_name"):
        anywhere.migrate_model("old", Untouched(), name)
    assert len(anywhere.get_collections().collections) == 1


@pytest.mark.parametrize("name", ["a b", " ", "é", "x" * 255, "a.b", "...", "a%2Fb", "a#b&c=d+"])
def test_other_names_are_fine(client: QdrantClient, name: str) -> None:
    client.add(name, ["cat"])
    assert client.query(name, "cat")[0].document == "cat"


@pytest.mark.parametrize("name", ["a/b", "a:b", ".", "..", "x" * 201, "é" * 101, 7])
def test_a_bad_name_of_a_vector_is_refused_when_it_is_set(client: QdrantClient, name: Any) -> None:
    with pytest.raises(InputError, match="vector_name"):
        client.set_model(LetterEncoder(), vector_name=name)
    with pytest.raises(InputError, match="vector_name"):
        client.set_sparse_model(WordEncoder(), vector_name=name)
    check_vector_name("")
    check_vector_name("é" * 100)


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("o/model:v2", "fast-model-v2"),
        ("o/a?b*c|d", "fast-a-b-c-d"),
        ("C:\\models\\Mine", "fast-c--models-mine"),
        ("o/" + "m" * 195, "fast-" + "m" * 195),
    ],
)
def test_what_a_vector_cannot_be_called_is_replaced(model: str, name: str) -> None:
    assert vector_field_name(model) == name
    check_vector_name(name)


def test_a_long_name_is_cut_and_stays_distinct() -> None:
    names = [vector_field_name("o/" + "é" * 120 + end) for end in ("a", "b")]
    assert names[0] != names[1]
    for name in names:
        check_vector_name(name)
        assert name.startswith("fast-éé")
        assert len(name.encode()) > 190
    check_vector_name(sparse_field_name("o/" + "m" * 400))
    assert as_vector_name("plain") == "plain"
    assert [as_vector_name(name) for name in (".", "..", "...")] == ["-", "--", "..."]


class Versioned(LetterEncoder):
    """An encoder named as many model servers name them."""

    model_name = "mine/letters:v2"


class VersionedWords(WordEncoder):
    """Its sparse companion."""

    model_name = "mine/" + "words" * 60


def test_a_model_with_such_a_name_is_stored_and_found(anywhere: QdrantClient) -> None:
    anywhere.set_model(Versioned())
    anywhere.set_sparse_model(VersionedWords())
    anywhere.add("demo", ["cat", "horse"])
    assert stamp(anywhere)["vector_name"] == "fast-letters-v2"
    assert anywhere.query("demo", "cat")[0].document == "cat"


def test_a_stamped_name_stays(anywhere: QdrantClient) -> None:
    """A collection from before, whose vector has another name than the model would get now."""
    anywhere.set_model(Versioned(), vector_name="as-it-was")
    anywhere.add("demo", ["cat"])
    anywhere.set_model(Versioned())
    anywhere.add("demo", ["dog"])
    assert len(anywhere.query("demo", "dog")) == 2
    assert stamp(anywhere)["vector_name"] == "as-it-was"


def test_a_collection_by_hand_is_found_by_the_replaced_name(anywhere: QdrantClient) -> None:
    anywhere.create_collection("demo", {"fast-letters-v2": cosine(26)})
    anywhere.set_model(Versioned())
    anywhere.add("demo", ["cat"])
    assert stamp(anywhere)["vector_name"] == "fast-letters-v2"
