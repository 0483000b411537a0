"""What points have from somebody else stays when their documents are stored again."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import date, datetime
from typing import Any

import numpy as np
import pytest
from clients import LetterEncoder, WordEncoder, at, cosine, opened, stored, vectors
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from qdrant_client import models
from rest_server import Fault, Server
from tiny import WORDS, TinyModel

from qdrant_embed import QdrantClient, ServerRefusal, TextEmbedding, point_id

IMAGE = [0.0, 0.6, 0.8]
LETTERS = "fast-letters"
TEXTS = ["cat", "dog", "ship"]
HOW = pytest.mark.parametrize("on_existing", ["overwrite", "skip"])


class Hooked(LetterEncoder):
    """Calls a function before it encodes documents."""

    hook: Callable[[], object] = staticmethod(lambda: None)

    def passage_embed(self, texts: Iterable[str], /) -> Iterable[NDArray[np.float32]]:
        type(self).hook()
        return super().passage_embed(texts)


def with_images(client: QdrantClient, ids: Iterable[Any], payload: dict[str, Any]) -> None:
    """Make a collection as another tool does, with points that have images and no text yet."""
    client.set_model(LetterEncoder())
    client.create_collection("demo", {**client.get_fastembed_vector_params(), "image": cosine(3)})
    points = [
        models.PointStruct(id=point_id(one), vector={"image": IMAGE}, payload=payload)
        for one in ids
    ]
    client.upsert("demo", points)


def expected(text: str) -> list[float]:
    row = np.array(list(LetterEncoder().passage_embed([text])))[0]
    return [float(number) for number in row / np.linalg.norm(row)]


@HOW
def test_vectors_and_keys_of_others_stay(anywhere: QdrantClient, on_existing: Any) -> None:
    with_images(anywhere, [1, "two"], {"price": 3, "tags": ["a", None], "none": None})
    metadata = [{"n": n, "empty": None} for n in range(3)]
    ids = anywhere.add("demo", TEXTS, metadata, [1, "two", 3], on_existing=on_existing)
    assert ids == [1, "two", 3]
    points = stored(anywhere)
    others = {"price": 3, "tags": ["a", None], "none": None}
    own = {"qdrant_embed_id": "two"}
    assert points[1] == {"document": "cat", "n": 0, "empty": None, **others}
    assert points[point_id("two")] == {"document": "dog", "n": 1, "empty": None, **others, **own}
    assert points[3] == {"document": "ship", "n": 2, "empty": None}
    for point, text in zip((1, point_id("two"), 3), TEXTS, strict=True):
        named = vectors(anywhere, point)
        assert named[LETTERS] == pytest.approx(expected(text), abs=1e-6)
        assert named.get("image") == (pytest.approx(IMAGE) if point != 3 else None)


@pytest.mark.parametrize("ids", [[1, "two"], "content"])
def test_a_text_that_another_tool_stored_gets_its_vector(anywhere: QdrantClient, ids: Any) -> None:
    """Though ``"skip"`` finds the same text there."""
    with_images(anywhere, [1], {"document": "cat"})
    assert vectors(anywhere, 1).keys() == {"image"}
    for _ in range(2):
        shown = anywhere.add("demo", TEXTS[:2], ids=ids, on_existing="skip")
        for one, text in zip(map(point_id, shown), TEXTS[:2], strict=True):
            assert vectors(anywhere, one)[LETTERS] == pytest.approx(expected(text), abs=1e-6)
    assert vectors(anywhere, 1)["image"] == pytest.approx(IMAGE)


@HOW
def test_a_note_stays_where_there_is_no_other_vector(
    anywhere: QdrantClient, on_existing: Any
) -> None:
    anywhere.add("demo", TEXTS, [{"n": n} for n in range(3)], [1, 2, 3])
    anywhere.set_payload("demo", {"seen": {"by": "me"}}, points=[2])
    anywhere.add("demo", ["bird"] * 3, [{"n": None}] * 3, [1, 2, 3], on_existing=on_existing)
    points = stored(anywhere)
    assert points[1] == points[3] == {"document": "bird", "n": None}
    assert points[2] == {"document": "bird", "n": None, "seen": {"by": "me"}}
    (bird,) = TextEmbedding(anywhere.embedding_model_name).passage_embed(["bird"])
    assert vectors(anywhere, 2)["fast-tiny-bert"] == pytest.approx(bird, abs=1e-5)


def test_values_are_stored_as_those_of_new_documents(anywhere: QdrantClient) -> None:
    metadata = {
        "date": date(2024, 1, 2),
        "moment": datetime(2024, 1, 2, 3, 4, 5, 6),
        "pair": (1, (2.5, None)),
        "number": np.float64(0.1),
        "nested": {"day": [date(2024, 1, 2)], "none": None},
        "large": 2**63 - 1,
    }
    anywhere.add("demo", TEXTS[:2], ids=[1, 2])
    anywhere.set_payload("demo", {"seen": True}, points=[2])
    for entry in (metadata, {**metadata, "none": None}):
        anywhere.add("demo", TEXTS[:2], [entry, entry], [1, 2])
        points = stored(anywhere)
        assert points[2] == points[1] | {"document": "dog", "seen": True}
        before = points
        anywhere.add("demo", TEXTS[:2], [entry, entry], [1, 2], on_existing="skip")
        anywhere.update_metadata("demo", [1, 2], entry)
        assert stored(anywhere) == before


def test_an_id_that_is_our_own_key_does_not_stay(anywhere: QdrantClient) -> None:
    """A str id and the UUID that it becomes are one point, which has the last name it was given."""
    anywhere.add("demo", ["cat"], ids=["a"])
    anywhere.set_payload("demo", {"seen": True}, points=[point_id("a")])
    anywhere.add("demo", ["dog"], ids=[point_id("a")])
    assert stored(anywhere) == {point_id("a"): {"document": "dog", "seen": True}}


@HOW
def test_words_of_a_text_that_is_gone_do_not_stay(anywhere: QdrantClient, on_existing: Any) -> None:
    with_images(anywhere, [1, 2], {})
    anywhere.set_sparse_model(WordEncoder())
    anywhere.add("demo", ["cat", "a ship"], ids=[1, 2])
    assert vectors(anywhere, 1)["fast-sparse-words"].indices == [3]
    anywhere.add("demo", [" ", "ship"], ids=[1, 2], on_existing=on_existing)
    assert vectors(anywhere, 1).keys() == {LETTERS, "image"}
    assert vectors(anywhere, 2)["fast-sparse-words"].indices == [4]
    assert vectors(anywhere, 2)["image"] == pytest.approx(IMAGE)


TRANSPORTS = pytest.mark.parametrize("grpc", [False, True], ids=["rest", "grpc"])
WRITES = ("PUT", "Points/Upsert", "batch", "Batch", "Points/Update")


@TRANSPORTS
def test_what_is_skipped_is_not_touched(kind: str, grpc: bool, grpc_server: Server) -> None:
    with opened(kind, **at(grpc_server, grpc=grpc)) as client:
        with_images(client, [1, 2], {"price": 3})
        client.add("demo", TEXTS[:2], ids=[1, 2], on_existing="skip")
        before = stored(client), vectors(client, 1), vectors(client, 2)
        grpc_server.requests.clear()
        client.add("demo", TEXTS[:2], ids=[1, 2], on_existing="skip")
        assert not [name for name in grpc_server.requests if name.startswith(WRITES)]
        assert (stored(client), vectors(client, 1), vectors(client, 2)) == before


@TRANSPORTS
def test_fresh_documents_cost_no_request_of_their_own(
    kind: str, grpc: bool, grpc_server: Server
) -> None:
    """None in a collection that `add` makes, none for random ids; else a look-up for 1024."""
    look_up = "Points/Get" if grpc else "POST /collections/demo/points"
    upsert = "Points/Upsert" if grpc else "PUT /collections/demo/points"
    with opened(kind, **at(grpc_server, grpc=grpc)) as client:
        client.set_model(LetterEncoder())
        texts = [f"cat {n}" for n in range(600)]
        client.add("demo", texts, ids=range(600))
        assert look_up not in grpc_server.requests
        assert grpc_server.requests.count(upsert) == 3
        client.delete_collection("demo")
        with_images(client, range(3), {"price": 3})
        grpc_server.requests.clear()
        client.add("demo", texts)
        assert look_up not in grpc_server.requests
        client.add("demo", texts, ids=range(1000, 1600))
        assert grpc_server.requests.count(look_up) == 1
        assert grpc_server.requests.count(upsert) == 6
        assert not [name for name in grpc_server.requests if "atch" in name]


@TRANSPORTS
def test_a_point_that_is_deleted_meanwhile_is_stored(
    kind: str, grpc: bool, grpc_server: Server
) -> None:
    with opened(kind, **at(grpc_server, grpc=grpc)) as client:
        with_images(client, [1, 2], {"price": 3})
        client.set_model(Hooked())
        Hooked.hook = staticmethod(lambda: grpc_server.database.delete("demo", [1]))
        try:
            assert client.add("demo", TEXTS, ids=[1, 2, 3]) == [1, 2, 3]
        finally:
            Hooked.hook = staticmethod(lambda: None)
        assert stored(client) == {
            1: {"document": "cat"},
            2: {"document": "dog", "price": 3},
            3: {"document": "ship"},
        }
        assert vectors(client, 1).keys() == {"fast-letters"}


def test_a_point_that_is_deleted_meanwhile_is_stored_in_a_local_database(tiny: TinyModel) -> None:
    client = QdrantClient(":memory:")
    with_images(client, [1, 2], {"price": 3})
    client.set_model(Hooked())
    Hooked.hook = staticmethod(lambda: client.delete("demo", [1]))
    try:
        client.add("demo", TEXTS, ids=[1, 2, 3])
    finally:
        Hooked.hook = staticmethod(lambda: None)
    assert stored(client)[1] == {"document": "cat"}
    assert stored(client)[2] == {"document": "dog", "price": 3}


@TRANSPORTS
@HOW
def test_a_run_that_fails_between_two_requests_is_completed(
    kind: str, grpc: bool, on_existing: Any, grpc_server: Server
) -> None:
    with opened(kind, **at(grpc_server, grpc=grpc)) as client:
        with_images(client, range(4), {"price": 3})
        grpc_server.fail_once("pdateBatch" if grpc else "points/batch", Fault(400))
        texts = [f"cat {n}" for n in range(8)]
        with pytest.raises(ServerRefusal):
            client.add("demo", texts, ids=range(8), on_existing=on_existing)
        assert {n: stored(client)[n]["price"] for n in range(4)} == dict.fromkeys(range(4), 3)
        client.add("demo", texts, ids=range(8), on_existing=on_existing)
        for n in range(8):
            others = {"price": 3} if n < 4 else {}
            assert stored(client)[n] == {"document": texts[n], **others}
            assert vectors(client, n).keys() == {LETTERS, *(["image"] if n < 4 else [])}


@TRANSPORTS
def test_points_are_changed_in_the_shard_they_are_in(
    kind: str, grpc: bool, grpc_server: Server
) -> None:
    grpc_server.node.distributed = True
    with opened(kind, **at(grpc_server, grpc=grpc)) as client:
        client.set_model(LetterEncoder())
        client.create_collection(
            "demo",
            {**client.get_fastembed_vector_params(), "image": cosine(3)},
            sharding_method=models.ShardingMethod.CUSTOM,
        )
        client.create_shard_key("demo", "here")
        point = models.PointStruct(id=1, vector={"image": IMAGE}, payload={"price": 3})
        client.upsert("demo", [point], shard_key_selector="here")
        client.add("demo", ["cat"], ids=[1], shard_key_selector="here")
        assert stored(client) == {1: {"document": "cat", "price": 3}}
        assert vectors(client, 1)["image"] == pytest.approx(IMAGE)


def text(sentences: int, seed: int = 0) -> str:
    return " ".join(f"{WORDS[(i + seed) % 31]} {WORDS[(i * 5) % 29]}." for i in range(sentences))


@pytest.fixture(scope="module")
def splitting(tiny: TinyModel) -> TextEmbedding:
    return TextEmbedding(tiny.path, overflow="chunk")


@HOW
def test_chunks_keep_what_they_have_from_others(
    anywhere: QdrantClient, splitting: TextEmbedding, on_existing: Any
) -> None:
    """And new chunks of the same document get it, too."""
    anywhere.set_model(splitting)
    anywhere.add("demo", [text(40), text(60)], [{"n": 1}, {"n": 2}], ["a", "b"])
    anywhere.create_vector_name(
        "demo",
        "image",
        models.DenseVectorNameConfig(
            dense=models.DenseVectorConfig(size=3, distance=models.Distance.COSINE)
        ),
    )
    first = point_id("a")
    of_a = models.Filter(
        must=[
            models.FieldCondition(
                key="qdrant_embed_chunk.parent", match=models.MatchValue(value=str(first))
            )
        ]
    )
    anywhere.set_payload("demo", {"seen": True, "none": 0}, points=of_a)
    anywhere.update_vectors("demo", [models.PointVectors(id=first, vector={"image": IMAGE})])
    texts = [text(120, 1), text(60)]
    anywhere.add("demo", texts, [{"n": None}, {"n": 2}], ["a", "b"], on_existing=on_existing)
    chunks = list(splitting.chunks(texts))
    found = stored(anywhere).values()
    assert len(found) == sum(map(len, chunks))
    for payload in found:
        if payload["qdrant_embed_id"] == "a":
            assert (payload["seen"], payload["none"], payload["n"]) == (True, 0, None)
            part = payload["qdrant_embed_chunk"]
            assert payload["document"] == texts[0][part["start"] : part["end"]]
            assert part["count"] == len(chunks[0])
        else:
            assert payload.keys() == {"document", "n", "qdrant_embed_id", "qdrant_embed_chunk"}
    assert vectors(anywhere, first)["image"] == pytest.approx(IMAGE)
    assert vectors(anywhere, first)["fast-tiny-bert"] == pytest.approx(
        chunks[0][0].vector, abs=1e-5
    )
    before = stored(anywhere)
    anywhere.add("demo", texts, [{"n": None}, {"n": 2}], ["a", "b"], on_existing="skip")
    assert stored(anywhere) == before


values = st.none() | st.booleans() | st.integers(-9, 9) | st.lists(st.none() | st.text(max_size=3))
payloads = st.dictionaries(st.sampled_from("abcdef"), values, max_size=4)


@settings(max_examples=40, deadline=None)
@given(
    before=st.dictionaries(st.integers(0, 5), st.tuples(payloads, st.booleans()), max_size=6),
    runs=st.lists(
        st.tuples(
            st.sampled_from(["overwrite", "skip"]),
            st.dictionaries(st.integers(0, 7), st.tuples(st.sampled_from(TEXTS), payloads)),
        ),
        max_size=3,
    ),
    batch_size=st.integers(1, 3),
)
def test_others_keep_all_that_is_theirs(before: Any, runs: Any, batch_size: int) -> None:
    """Of every key the last who wrote it wins, and nobody else's vector changes."""
    client = QdrantClient(":memory:")
    with_images(client, [99], {})
    points = [
        models.PointStruct(id=one, vector={"image": IMAGE} if has else {}, payload=payload)
        for one, (payload, has) in before.items()
    ]
    if points:
        client.upsert("demo", points)
    expected = {one: dict(payload) for one, (payload, _) in before.items()}
    for on_existing, documents in runs:
        texts, metadata = [d[0] for d in documents.values()], [d[1] for d in documents.values()]
        ids = list(documents)
        client.add("demo", texts, metadata, ids, on_existing=on_existing, batch_size=batch_size)
        for one, text, entry in zip(ids, texts, metadata, strict=True):
            expected.setdefault(one, {}).update({"document": text, **entry})
            assert vectors(client, one).keys() >= {LETTERS}
    found = stored(client)
    assert {one: found[one] for one in expected} == expected
    for one, (_, has) in before.items():
        assert ("image" in vectors(client, one)) == has


def test_a_migration_keeps_other_vectors(anywhere: QdrantClient, tiny: TinyModel) -> None:
    anywhere.add("old", TEXTS, [{"n": n} for n in range(3)], [1, 2, 3])
    with_images(anywhere, [2], {"price": 3})
    anywhere.migrate_model("old", LetterEncoder(), "demo")
    anywhere.update_vectors("demo", [models.PointVectors(id=3, vector={"image": IMAGE})])
    anywhere.set_model(tiny.path)
    anywhere.add("old", ["bird"], [{"m": None}], [3])
    assert anywhere.migrate_model("old", LetterEncoder(), "demo") == 3
    assert stored(anywhere) == stored(anywhere, "old")
    for point, word in ((2, "dog"), (3, "bird")):
        assert vectors(anywhere, point)["image"] == pytest.approx(IMAGE)
        assert vectors(anywhere, point)[LETTERS] == pytest.approx(expected(word), abs=1e-6)
