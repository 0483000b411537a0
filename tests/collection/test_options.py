"""Collections are created as asked, and their options reach the server."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clients import LetterEncoder, at, opened
from qdrant_client import models
from rest_server import Fault, Server
from tiny import TinyModel

from qdrant_embed import CollectionOptions, InputError, PermissionRefusal, QdrantClient
from qdrant_embed.backoff import Backoff
from qdrant_embed.engines.connection import engine_of
from qdrant_embed.flows import requests

CREATE = "PUT /collections/demo"


@pytest.fixture
def remote(kind: str, server: Server, tiny: TinyModel) -> Iterator[QdrantClient]:
    """A client of the server, which belongs to a cluster."""
    server.node.distributed = True
    with opened(kind, **at(server)) as client:
        client.set_model(tiny.path)
        yield client


def created(server: Server) -> dict[str, Any]:
    """The body of the request that created the collection, without what was not set."""
    (body,) = [body for request, body in server.bodies if request == CREATE]
    found: dict[str, Any] = json.loads(body)
    return found


@pytest.mark.parametrize(
    "quantization",
    [
        models.ScalarQuantization(
            scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8, quantile=0.99)
        ),
        models.BinaryQuantization(binary=models.BinaryQuantizationConfig(always_ram=True)),
        models.ProductQuantization(
            product=models.ProductQuantizationConfig(compression=models.CompressionRatio.X16)
        ),
        models.TurboQuantization(
            turbo=models.TurboQuantQuantizationConfig(bits=models.TurboQuantBitSize.BITS4)
        ),
    ],
    ids=lambda config: type(config).__name__,
)
def test_every_quantisation_reaches_the_server(
    remote: QdrantClient, server: Server, quantization: Any
) -> None:
    options = CollectionOptions(quantization_config=quantization)
    remote.add("demo", ["cat"], collection_options=options)
    vector = created(server)["vectors"]["fast-tiny-bert"]
    assert vector["quantization_config"] == quantization.model_dump(mode="json", exclude_none=True)
    params = remote.get_fastembed_vector_params(quantization_config=quantization)
    assert params["fast-tiny-bert"].quantization_config == quantization


def test_all_other_options_reach_the_server(remote: QdrantClient, server: Server) -> None:
    remote.set_sparse_model("Qdrant/bm25")
    options = CollectionOptions(
        on_disk=True,
        hnsw_config=models.HnswConfigDiff(m=32),
        sparse_on_disk=True,
        on_disk_payload=True,
        shard_number=3,
        sharding_method=models.ShardingMethod.CUSTOM,
        replication_factor=2,
        write_consistency_factor=1,
    )
    remote.add("demo", ["cat"], collection_options=options, shard_key_selector=["a", "b"])
    body = created(server)
    vector = body["vectors"]["fast-tiny-bert"]
    assert (vector["on_disk"], vector["hnsw_config"]) == (True, {"m": 32})
    assert body["sparse_vectors"]["fast-sparse-bm25"] == {
        "index": {"on_disk": True},
        "modifier": "idf",
    }
    assert body["on_disk_payload"] is True
    assert (body["shard_number"], body["sharding_method"]) == (3, "custom")
    assert (body["replication_factor"], body["write_consistency_factor"]) == (2, 1)
    shards = [json.loads(body) for request, body in server.bodies if request == f"{CREATE}/shards"]
    assert [shard["shard_key"] for shard in shards] == ["a", "b"]
    (upsert,) = [json.loads(body) for request, body in server.bodies if "points" in request]
    assert upsert["shard_key"] == ["a", "b"]


def test_what_is_not_set_is_left_to_the_server(remote: QdrantClient, server: Server) -> None:
    remote.add("demo", ["cat"])
    body = created(server)
    assert body["vectors"] == {"fast-tiny-bert": {"size": 32, "distance": "Cosine"}}
    assert set(body) == {"vectors", "metadata"}
    remote.add("demo", ["dog"], collection_options=CollectionOptions(on_disk=True))
    assert len([request for request, _ in server.bodies if request == CREATE]) == 1


@pytest.mark.parametrize(
    ("selector", "keys"),
    [
        (None, []),
        ("a", ["a"]),
        (7, [7]),
        (["a", 7], ["a", 7]),
        (models.ShardKeyWithFallback(target="a", fallback="b"), ["a", "b"]),
    ],
)
def test_shard_keys_are_those_of_the_selector(selector: Any, keys: list[str | int]) -> None:
    custom = CollectionOptions(sharding_method=models.ShardingMethod.CUSTOM)
    assert custom.shard_keys(selector) == keys
    assert CollectionOptions().shard_keys(selector) == []


@pytest.mark.parametrize("lost", ["", "/shards"])
def test_shards_are_created_though_an_answer_is_lost(
    remote: QdrantClient, server: Server, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    monkeypatch.setattr(requests, "BACKOFF", Backoff(0.001, 0.01))
    options = CollectionOptions(sharding_method=models.ShardingMethod.CUSTOM)
    server.fail_once(CREATE + lost, Fault(0, after_commit=True))
    remote.add("demo", ["cat"], collection_options=options, shard_key_selector=["a", "b"])
    assert server.shards == ["a", "b"]
    assert remote.count("demo").count == 1


def test_shards_that_cannot_be_created_are_the_servers_error(
    remote: QdrantClient, server: Server
) -> None:
    options = CollectionOptions(sharding_method=models.ShardingMethod.CUSTOM)
    server.fail_once(f"{CREATE}/shards", Fault(403))
    with pytest.raises(PermissionRefusal, match="403"):
        remote.add("demo", ["cat"], collection_options=options, shard_key_selector="a")


@pytest.mark.filterwarnings("ignore:Local mode")
@pytest.mark.parametrize("overflow", ["truncate", "chunk"])
def test_all_that_an_add_asks_and_does_is_in_its_own_shard(
    remote: QdrantClient, server: Server, tiny: TinyModel, overflow: Any
) -> None:
    """Else it would compare its documents with, or delete, those of other shards."""
    remote.set_model(tiny.path, overflow=overflow)
    long, short = "the cat sat on the mat. " * 30, "the cat"
    custom = CollectionOptions(sharding_method=models.ShardingMethod.CUSTOM)
    remote.add("demo", [long], ids=[1], collection_options=custom, shard_key_selector="a")
    server.bodies.clear()
    remote.add("demo", [short], ids=[1], on_existing="skip", shard_key_selector="a")
    remote.delete_documents("demo", [1], shard_key_selector="a")
    about_points = [json.loads(body) for request, body in server.bodies if "/points" in request]
    assert len(about_points) == (5 if overflow == "chunk" else 3)
    assert [body["shard_key"] for body in about_points] == ["a"] * len(about_points)


KINDS = ["keyword", "integer", "float", "geo", "text", "bool", "datetime", "uuid"]


def test_fields_are_indexed_before_the_first_document(
    kind: str, where: dict[str, Any], server: Server
) -> None:
    text = models.TextIndexParams(type=models.TextIndexType.TEXT, lowercase=True)
    indexed: dict[str, Any] = {f"of.{name}": name for name in KINDS} | {
        "document": text,
        '"page number"': models.PayloadSchemaType.INTEGER,
        "parts[].name": "keyword",
    }
    options = CollectionOptions(indexed=indexed)
    indexed.clear()  # they are copied
    with opened(kind, **where) as client:
        client.set_model(LetterEncoder())
        client.add("demo", ["cat"], [{"of": {"integer": 7}}], collection_options=options)
        schema = client.get_collection("demo").payload_schema
        kinds = {field: index.data_type.value for field, index in schema.items()}
        expected = {f"of.{name}": name for name in KINDS} | {
            "document": "text",
            '"page number"': "integer",
            "parts[].name": "keyword",
        }
        assert kinds == expected
        assert schema["document"].params.lowercase is True  # type: ignore[union-attr]
        assert client.query("demo", "cat", where={"of.integer": 7})
    order = [name.split("/")[-1] for name in server.requests]
    last_index = max(order.index(name) for name in order if name in ("index", "CreateFieldIndex"))
    assert last_index < min(order.index(name) for name in order if name in ("points", "Upsert"))


def test_indexes_that_are_useless_in_a_store_are_left_out(anywhere: QdrantClient) -> None:
    """Without the warning that qdrant_client has of them."""
    options = CollectionOptions(indexed={"n": "integer"})
    anywhere.add("demo", ["cat", "dog"], [{"n": 1}, {"n": 2}], collection_options=options)
    (hit,) = anywhere.query("demo", "a pet", where={"n": 2})
    assert hit.document == "dog"
    has_any = engine_of(anywhere._client).payload_index
    assert [*anywhere.get_collection("demo").payload_schema] == ["n"] * has_any


def test_an_add_that_was_killed_before_its_indexes_makes_them_later(
    kind: str, where: dict[str, Any], server: Server
) -> None:
    options = CollectionOptions(indexed={"n": "integer", "tag": "keyword"})
    index = "CreateFieldIndex" if "prefer_grpc" in where else "/index"
    with opened(kind, **where) as client:
        client.set_model(LetterEncoder())
        server.fail_once(index, Fault(403))
        with pytest.raises(PermissionRefusal):
            client.add("demo", ["cat"], collection_options=options)
        assert server.database.count("demo").count == 0
        client.add("demo", ["cat"], collection_options=options)
        assert {*client.get_collection("demo").payload_schema} == {"n", "tag"}
        more = CollectionOptions(indexed={"other": "keyword"})
        client.add("demo", ["dog"], collection_options=more)  # it is there, and has documents
        assert {*client.get_collection("demo").payload_schema} == {"n", "tag"}


def test_a_migration_makes_indexes(remote: QdrantClient) -> None:
    remote.add("old", ["cat"])
    options = CollectionOptions(indexed={"n": "integer"})
    remote.migrate_model("old", LetterEncoder(), "new", collection_options=options)
    assert [*remote.get_collection("new").payload_schema] == ["n"]


@pytest.mark.parametrize(
    ("indexed", "message"),
    [
        ({"year": "int"}, r"indexed\['year'\] must be one of 'keyword', 'integer', .* not 'int'"),
        ({"year": 7}, "must be one of 'keyword'"),
        ({"year": None}, "must be one of 'keyword'"),
        ({"page number": "integer"}, "'page number', which is not a valid name .* double quotes"),
        ({"": "integer"}, "the key ''"),
        ({7: "integer"}, "the key 7"),
        (["year"], "must be a dict like"),
    ],
)
def test_indexes_that_cannot_be_are_refused(indexed: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        CollectionOptions(indexed=indexed)


# advice


@pytest.fixture
def asking(
    kind: str, where: dict[str, Any], server: Server, monkeypatch: pytest.MonkeyPatch
) -> Iterator[QdrantClient]:
    """A client of a collection that is large enough for advice."""
    monkeypatch.setattr("qdrant_embed.search.search._WITHOUT_INDEX", 3)
    with opened(kind, **where) as client:
        client.set_model(LetterEncoder())
        client.add("demo", ["cat", "dog", "ship", "goal"], [{"n": 1, "tag": "a"}] * 4)
    with opened(kind, **where) as client:
        client.set_model(LetterEncoder())
        yield client


def advice(caplog: pytest.LogCaptureFixture) -> list[str]:
    found = [message for message in caplog.messages if "no index" in message]
    caplog.clear()
    return found


def test_a_field_without_an_index_is_named_once(
    asking: QdrantClient, caplog: pytest.LogCaptureFixture, server: Server
) -> None:
    caplog.set_level(logging.WARNING)
    asking.query("demo", "a")
    assert advice(caplog) == []
    asking.query("demo", "a", where={"n": 1})
    assert advice(caplog) == [
        "collection 'demo' has 4 points and no index of 'n', so a filter on it is slow: "
        'client.create_payload_index("demo", "n", "integer") makes it fast; "float" if it has '
        "fractions (logged once)"
    ]
    server.requests.clear()
    for _ in range(3):
        asking.query("demo", "a", where={"n": {"lt": 3}})
        asking.query_batch("demo", ["a", "b"], where={"not": {"n": 7}})
    assert advice(caplog) == []
    assert len(server.requests) == 6  # none but the queries
    asking.create_payload_index("demo", "tag", models.PayloadSchemaType.KEYWORD)
    asking.query("demo", "a", where={"tag": "a"})  # the index was made after it was read
    assert advice(caplog) == []
    asking.query("demo", "a", where={"or": [{"day": {"gte": "2024-02-01"}}, {"n": 2}]})
    assert [message.partition("client")[2] for message in advice(caplog)] == [
        '.create_payload_index("demo", "day", "datetime") makes it fast (logged once)'
    ]


def test_an_embedded_database_gets_the_same_advice(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qdrant_embed.search.search._WITHOUT_INDEX", 1)
    with opened(kind, path=str(tmp_path), engine="edge") as client:
        client.set_model(LetterEncoder())
        options = CollectionOptions(indexed={"n": "integer"})
        facts = [{"n": 1, "tag": "a"}] * 2
        client.add("demo", ["cat", "dog"], facts, collection_options=options)
    with opened(kind, path=str(tmp_path)) as client:
        client.set_model(LetterEncoder())
        assert len(client.query("demo", "a", where={"n": 1, "tag": "a"})) == 2
    (said,) = advice(caplog)
    assert 'client.create_payload_index("demo", "tag", "keyword") makes it fast' in said


def test_nothing_is_said_of_few_points_or_where_an_index_is_no_use(
    anywhere: QdrantClient, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    anywhere.add("demo", ["cat", "dog"], [{"n": 1}] * 2)
    anywhere.query("demo", "a", where={"n": 1})
    if engine_of(anywhere._client).name == "local":
        monkeypatch.setattr("qdrant_embed.search.search._WITHOUT_INDEX", 0)
        anywhere.query("demo", "a", where={"n": 1})
    assert advice(caplog) == []
