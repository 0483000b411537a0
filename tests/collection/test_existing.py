"""What becomes of documents whose ids a collection has already."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pytest
from clients import LetterEncoder, WordEncoder, opened, stored
from numpy.typing import NDArray
from rest_server import Server

from qdrant_embed import ContentIds, Document, IngestError, InputError, QdrantClient


class Counting(LetterEncoder):
    """Keeps the texts it has encoded."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def passage_embed(self, texts: Iterable[str], /) -> Iterable[NDArray[np.float32]]:
        listed = list(texts)
        self.texts += listed
        return super().passage_embed(listed)


@pytest.fixture
def encoder(anywhere: QdrantClient) -> Counting:
    """The encoder of the client of the test."""
    encoder = Counting()
    anywhere.set_model(encoder)
    return encoder


TEXTS = [f"cat {n}" for n in range(40)]
TWO_WINDOWS = [f"cat {n}" for n in range(1100)]


@pytest.mark.parametrize("ids", ["content", ContentIds(keys=()), [f"name {n}" for n in range(40)]])
def test_what_is_stored_is_not_encoded_again(
    anywhere: QdrantClient, encoder: Counting, ids: Any
) -> None:
    metadata = [{"n": n, "f": n / 7, "list": [n, None]} for n in range(40)]
    first = anywhere.add("demo", TEXTS, metadata, ids, on_existing="skip", batch_size=15)
    before = stored(anywhere)
    assert len(before) == 40
    assert encoder.texts == TEXTS
    encoder.texts.clear()
    again = anywhere.add("demo", iter(TEXTS), iter(metadata), ids, on_existing="skip")
    assert again == first
    assert encoder.texts == []
    assert stored(anywhere) == before


def test_one_changed_text_is_encoded_alone(anywhere: QdrantClient, encoder: Counting) -> None:
    documents = [Document(text, {"n": n}, n) for n, text in enumerate(TEXTS)]
    anywhere.add("demo", documents)
    encoder.texts.clear()
    documents[35] = Document("dog", {"n": 35}, 35)
    documents[3] = Document(TEXTS[3], {"n": -3}, 3)
    anywhere.set_payload("demo", {"seen": True}, points=[5])  # a user's own note
    assert anywhere.add("demo", documents, on_existing="skip") == list(range(40))
    assert encoder.texts == [TEXTS[3], "dog"]
    payloads = stored(anywhere)
    assert payloads[35] == {"document": "dog", "n": 35}
    assert payloads[3]["n"] == -3
    assert payloads[5] == {"document": TEXTS[5], "n": 5, "seen": True}


def test_a_run_that_ended_early_is_completed(client: QdrantClient) -> None:
    texts = [f"cat {n}" for n in range(3100)]  # four windows, the first of which is stored in time
    encoder = Counting()
    client.set_model(encoder)

    def ends_early() -> Iterator[str]:
        yield from texts
        raise OSError("the disk is gone")

    with pytest.raises(IngestError, match="the disk is gone") as caught:
        client.add("demo", ends_early(), ids="content", batch_size=500)
    assert isinstance(caught.value.__cause__, OSError)
    have = caught.value.stored_ids
    assert set(stored(client)) == set(have)
    encoder.texts.clear()
    ids = client.add("demo", texts, ids="content", on_existing="skip", batch_size=500)
    assert ids[: len(have)] == list(have)
    assert encoder.texts == texts[len(have) :]
    assert set(stored(client)) == set(ids)
    assert len(ids) == 3100


def test_error_refuses_before_anything_is_stored(anywhere: QdrantClient) -> None:
    assert anywhere.add("demo", ["cat"], ids=["x"], on_existing="error") == ["x"]
    with pytest.raises(
        InputError, match=r"demo' already has the ids of 1 of the next 2 documents \('x'\)"
    ):
        anywhere.add("demo", ["dog", "ship"], ids=["y", "x"], on_existing="error")
    assert len(stored(anywhere)) == 1
    assert anywhere.add("demo", ["dog"], ids=["y"], on_existing="error") == ["y"]


def test_a_rerun_costs_only_the_look_ups(kind: str, server: Server) -> None:
    with opened(kind, url=server.url, check_compatibility=False) as client:
        client.set_model(Counting())
        client.add("demo", TWO_WINDOWS, ids="content", on_existing="skip", batch_size=500)
        look_up = "POST /collections/demo/points"
        assert look_up not in server.requests
        server.requests.clear()
        client.add("demo", TWO_WINDOWS, ids="content", on_existing="skip")
        assert server.requests.count(look_up) == 2
        assert not [request for request in server.requests if request.startswith("PUT")]


def test_options_that_make_no_sense_are_refused(client: QdrantClient) -> None:
    for on_existing in ("skip", "error"):
        with pytest.raises(InputError, match=r"documents\[0\] has no id"):
            client.add("demo", ["cat"], on_existing=on_existing)
    with pytest.raises(InputError, match="'overwrite', 'skip' or 'error'"):
        client.add("demo", ["cat"], ids=[1], on_existing="keep")  # type: ignore[arg-type]
    assert not client.collection_exists("demo")


@pytest.mark.slow
def test_a_new_sparse_vector_is_there_before_it_is_needed(
    anywhere: QdrantClient, encoder: Counting
) -> None:
    """Though the first window is stored already, as it is, and needs none."""
    anywhere.add("demo", TWO_WINDOWS[:1024], ids="content", batch_size=500)
    anywhere.set_sparse_model(WordEncoder())
    anywhere.add("demo", TWO_WINDOWS[:1030], ids="content", on_existing="skip", batch_size=500)
    assert anywhere.count("demo").count == 1030
    assert encoder.texts == TWO_WINDOWS[:1030]
