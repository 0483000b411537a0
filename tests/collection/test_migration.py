"""`migrate_model`: the documents of a collection, encoded anew into another."""

from __future__ import annotations

from collections.abc import Iterable
from threading import Event
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from clients import SENTENCES, LetterEncoder, at, opened, stamp, stored, vectors
from hub_server import downloaded
from numpy.typing import NDArray
from qdrant_client import models
from rest_server import Fault, Server
from tiny import TinyModel

from qdrant_embed import (
    CollectionMismatchError,
    InputError,
    PermissionRefusal,
    QdrantClient,
    TextEmbedding,
)
from qdrant_embed.backoff import Backoff

TEXTS = [f"{sentence}, {number}" for number in range(6) for sentence in SENTENCES]
METADATA = [{"place": place, "tags": ["a", {"b": None}]} for place in range(30)]


class Counting(LetterEncoder):
    """Remembers what it was given."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def passage_embed(self, texts: Iterable[str], /) -> NDArray[np.float32]:
        given = list(texts)
        self.texts += given
        return np.asarray(super().passage_embed(given), np.float32)


def test_documents_keep_ids_and_payloads_and_get_new_vectors(
    everywhere: QdrantClient, tiny_e5: TinyModel
) -> None:
    ids = everywhere.add("old", TEXTS, METADATA)
    before = stored(everywhere, "old"), vectors(everywhere, ids[0], "old")
    encoder = TextEmbedding(tiny_e5.path)
    assert everywhere.migrate_model("old", tiny_e5.path, "new", batch_size=7, alias="docs") == 30
    assert stored(everywhere, "new") == before[0]
    assert (stored(everywhere, "old"), vectors(everywhere, ids[0], "old")) == before

    old, new = stamp(everywhere, "old"), stamp(everywhere, "new")
    assert new["weights_sha256"] == encoder.describe().weights_sha256 != old["weights_sha256"]
    assert new.get("sparse") == old.get("sparse")
    for place in (0, 17, 29):
        found = vectors(everywhere, ids[place], "new")
        (expected,) = encoder.passage_embed([TEXTS[place]])
        np.testing.assert_allclose(found[new["vector_name"]], expected, atol=1e-5)
        sparse = {name: vector for name, vector in before[1].items() if "sparse" in name}
        assert set(found) == {new["vector_name"], *sparse}

    everywhere.set_model(tiny_e5.path)
    assert {hit.id for hit in everywhere.query("docs", "a ship at sea", limit=30)} == set(ids)
    everywhere.migrate_model("old", tiny_e5.path, "newer", alias="docs")  # which it has already
    assert everywhere.count("docs").count == 30


def test_a_second_run_encodes_only_what_has_changed(client: QdrantClient) -> None:
    encoder = Counting()
    ids = client.add("old", TEXTS, METADATA, ids=range(30))
    assert client.migrate_model("old", encoder, "new", batch_size=8) == 30
    assert encoder.texts == TEXTS
    assert client.migrate_model("old", encoder, "new", batch_size=8) == 30
    assert encoder.texts == TEXTS
    client.add("old", ["another text"], ids=[ids[4]])
    client.add("old", ["one more"], ids=[30])
    assert client.migrate_model("old", encoder, "new", batch_size=8) == 31
    assert encoder.texts == [*TEXTS, "another text", "one more"]
    assert stored(client, "new") == stored(client, "old")


def test_it_goes_on_where_it_failed(
    kind: str, server: Server, tiny: TinyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qdrant_embed.flows.requests.BACKOFF", Backoff(0.01, 0.01))
    with opened(kind, **at(server)) as client:
        client.set_model(tiny.path)
        client.add("old", TEXTS, METADATA, ids=range(30))
        encoder = Counting()
        uploads = 0

        def at_third(request: str) -> Fault | None:
            nonlocal uploads
            is_upload = request == "PUT /collections/new/points"
            uploads += is_upload
            return Fault(403) if is_upload and uploads == 3 else None

        server.fault = at_third
        with pytest.raises(PermissionRefusal):
            client.migrate_model("old", encoder, "new", alias="docs", batch_size=10)
        assert client.count("new").count == 20
        assert not client.collection_exists("docs")
        server.fail_once("scroll", Fault(503))
        assert client.migrate_model("old", encoder, "new", alias="docs", batch_size=10) == 30
        assert encoder.texts == [*TEXTS, *TEXTS[20:]]
        assert stored(client, "docs") == stored(client, "old")


def test_nothing_leads_to_a_collection_with_other_points(client: QdrantClient) -> None:
    client.add("old", TEXTS)
    encoder = LetterEncoder()
    client.migrate_model("old", encoder, "new")
    client.set_model(encoder)
    client.add("new", ["from elsewhere"])
    with pytest.raises(CollectionMismatchError, match="has 31 points, but 'old' has 30"):
        client.migrate_model("old", encoder, "new", alias="docs")
    assert not client.collection_exists("docs")


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("old", LetterEncoder(), "old"), {}, "a new collection"),
        (("old", LetterEncoder(), "new"), {"alias": "old"}, "the name of a collection"),
        (("old", LetterEncoder(), "new"), {"alias": "new"}, "name of the new collection itself"),
        (("old", LetterEncoder(), "new"), {"alias": 7}, "alias must be a str"),
        (("old", LetterEncoder(), "new"), {"collection_options": 7}, "collection_options must be"),
        (("old", LetterEncoder(), "new"), {"progress": "yes"}, "progress must be"),
        (("old", LetterEncoder(), "new"), {"batch_size": 0}, "batch_size"),
        (("old", LetterEncoder(), "new"), {"max_retries": -1}, "max_retries"),
        (("old", object(), "new"), {}, "missing model_name"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_created(
    client: QdrantClient, arguments: Any, options: dict[str, Any], message: str
) -> None:
    client.add("old", SENTENCES)
    with pytest.raises(InputError, match=message):
        client.migrate_model(*arguments, **options)
    assert [found.name for found in client.get_collections().collections] == ["old"]


def test_queries_follow_the_alias(
    kind: str, server: Server, tiny: TinyModel, tiny_e5: TinyModel
) -> None:
    """Though the models are called nearly the same, and their vectors are."""
    first, second = downloaded("one/model", tiny.path), downloaded("two/model", tiny_e5.path)
    with opened(kind, **at(server)) as client:
        client.set_model(first)
        client.add("old", TEXTS)
    with opened(kind, **at(server)) as client, opened(kind, **at(server)) as other:
        client.migrate_model("old", first, "one", alias="docs")
        before = client.query("docs", TEXTS[3])
        client.migrate_model("docs", second, "two", alias="docs")
        after, expected = (asking.query("docs", TEXTS[3]) for asking in (client, other))
        scores = [hit.score for hit in after]
        assert scores == pytest.approx([hit.score for hit in expected], abs=1e-5)
        assert scores != pytest.approx([hit.score for hit in before], abs=1e-3)


def test_an_alias_that_another_client_moves_is_noticed_within_a_minute(
    kind: str, server: Server, tiny_name: str, tiny_e5_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(
        "qdrant_embed.collection.selection.time", SimpleNamespace(monotonic=lambda: now)
    )
    with opened(kind, **at(server)) as reader, opened(kind, **at(server)) as writer:
        for name, model in (("one", tiny_name), ("two", tiny_e5_name)):
            writer.set_model(model, vector_name="text")
            writer.add(name, TEXTS)
        for name in ("one", "two"):
            now += 61
            alias = models.CreateAlias(collection_name=name, alias_name="docs")
            writer.update_collection_aliases([models.CreateAliasOperation(create_alias=alias)])
            found, expected = (reader.query(asked, TEXTS[3]) for asked in ("docs", name))
            scores = [hit.score for hit in found]
            assert scores == pytest.approx([hit.score for hit in expected], abs=1e-5)
            if name == "one":
                writer.set_model(tiny_name, vector_name="text")
                writer.query("docs", TEXTS[3])
        with pytest.raises(CollectionMismatchError, match="tiny"):
            writer.query("docs", TEXTS[3])  # which has the first model for every collection
        now += 59
        reader.query("docs", TEXTS[3])
        assert server.requests.count("GET /collections/docs") == 4  # two of each client


def test_a_point_without_a_text_is_named(client: QdrantClient) -> None:
    client.add("old", SENTENCES, ids=range(5))
    client.overwrite_payload("old", {"body": "x"}, points=[3])
    with pytest.raises(
        InputError, match="point 3 of collection 'old' has no text under 'document'"
    ):
        client.migrate_model("old", LetterEncoder(), "new")


def test_a_collection_of_another_model_is_not_written_to(client: QdrantClient) -> None:
    client.add("old", SENTENCES)
    client.add("new", ["one"])
    with pytest.raises(CollectionMismatchError):
        client.migrate_model("old", LetterEncoder(), "new")
    assert client.count("new").count == 1


def test_a_page_is_encoded_while_others_are_read_and_stored(
    kind: str, server: Server, tiny: TinyModel
) -> None:
    """Each waits for the other: one after the other they would wait for ever."""
    read, encoding = Event(), Event()

    class Waiting(LetterEncoder):
        def passage_embed(self, texts: Iterable[str], /) -> Iterable[NDArray[np.float32]]:
            given = list(texts)
            if given == TEXTS[:10]:
                assert read.wait(60), "the second page was not read while the first was encoded"
            else:
                encoding.set()
            return super().passage_embed(given)

    pages = 0

    def watch(request: str) -> Fault | None:
        nonlocal pages
        if request == "POST /collections/old/points/scroll":
            pages += 1
            if pages == 2:
                read.set()
        # the first page is not stored until the second is being encoded
        if request == "PUT /collections/new/points" and not encoding.wait(60):
            return Fault(403)
        return None

    with opened(kind, **at(server)) as client:
        client.set_model(tiny.path)
        client.add("old", TEXTS, ids=range(30))
        server.fault = watch
        assert client.migrate_model("old", Waiting(), "new", batch_size=10) == 30
        assert stored(client, "new") == stored(client, "old")


def test_a_text_that_must_not_be_cut_is_named_by_its_point(
    client: QdrantClient, tiny: TinyModel
) -> None:
    client.add("old", ["cat"] * 20 + ["cat " * 100], ids=range(100, 121))
    with pytest.raises(InputError, match="point 120 of collection 'old' cannot be encoded again"):
        client.migrate_model("old", TextEmbedding(tiny.path, overflow="error"), "new", batch_size=8)
    assert client.count("old").count == 21
