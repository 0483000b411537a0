"""Shard keys: created before they are needed, kept by a migration, refused without a cluster."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from clients import LetterEncoder, opened, stored
from qdrant_client import models
from rest_server import Fault, Server
from tiny import TinyModel

from qdrant_embed import (
    CollectionOptions,
    InputError,
    PermissionRefusal,
    QdrantClient,
    ServerUnavailableError,
)
from qdrant_embed.backoff import Backoff
from qdrant_embed.collection.stored import read_collection
from qdrant_embed.engines.server import REQUEST_ERRORS
from qdrant_embed.flows import requests

CUSTOM = CollectionOptions(sharding_method=models.ShardingMethod.CUSTOM)
PLAIN = CollectionOptions(sharding_method=models.ShardingMethod.AUTO)


@pytest.fixture
def remote(
    kind: str, where: dict[str, Any], server: Server, tiny: TinyModel
) -> Iterator[QdrantClient]:
    """A client of a cluster."""
    server.node.distributed = True
    with opened(kind, **where) as client:
        client.set_model(tiny.path)
        yield client


class Untouched(LetterEncoder):
    """An encoder that must not be asked."""

    def passage_embed(self, texts: Iterable[str], /) -> Any:
        raise AssertionError("encoded before the sharding was checked")


def creates_shard(request: str) -> bool:
    """Return whether a request creates a shard key."""
    return request in ("PUT /collections/demo/shards", "Collections/CreateShardKey")


def in_shard(client: QdrantClient, key: models.ShardKey, name: str = "demo") -> dict[Any, Any]:
    """Return the texts of one shard, by id."""
    points, _ = client.scroll(name, limit=1000, shard_key_selector=key)
    return {point.id: (point.payload or {})["document"] for point in points}


def test_missing_keys_are_created_before_the_first_look_up(
    remote: QdrantClient, server: Server
) -> None:
    first: dict[str, Any] = {"collection_options": CUSTOM, "shard_key_selector": "a"}
    remote.add("demo", ["cat"], ids=[1], **first)
    for on_existing in ("overwrite", "skip", "error"):
        key = f"for {on_existing}"
        remote.add(
            "demo", ["dog"], ids=[on_existing], on_existing=on_existing, shard_key_selector=key
        )
        assert list(in_shard(remote, key).values()) == ["dog"]
    assert server.shards == ["a", "for overwrite", "for skip", "for error"]
    assert in_shard(remote, "a") == {1: "cat"}


def test_keys_that_exist_are_not_created_again(remote: QdrantClient, server: Server) -> None:
    for text in ("cat", "dog"):
        remote.add("demo", [text], collection_options=CUSTOM, shard_key_selector=["a", 7])
    assert len([request for request in server.requests if creates_shard(request)]) == 2


def test_only_the_fallback_of_a_key_must_exist(remote: QdrantClient) -> None:
    """Qdrant stores there what has no shard of its own."""
    remote.add("demo", ["cat"], collection_options=CUSTOM, shard_key_selector="shared")
    stored = read_collection("demo", remote.get_collection("demo"))
    selector = models.ShardKeyWithFallback(target="large", fallback="shared")
    assert stored.shard_keys(selector) == ["shared"]
    assert stored.shard_keys(["a", 7]) == ["a", 7]


def test_custom_sharding_without_a_key_is_refused_first(anywhere: QdrantClient) -> None:
    anywhere.set_model(Untouched())
    selectors: list[list[models.ShardKey] | None] = [None, []]
    for selector in selectors:
        with pytest.raises(InputError, match="shard_key_selector="):
            anywhere.add("demo", ["cat"], collection_options=CUSTOM, shard_key_selector=selector)
    assert not anywhere.collection_exists("demo")


def test_local_databases_ignore_it(client: QdrantClient) -> None:
    client.add("demo", ["cat"], collection_options=CUSTOM, shard_key_selector="a")
    client.add("demo", ["dog"], shard_key_selector="b")
    assert len(client.query("demo", "cat", shard_key_selector="a")) == 2


def test_a_collection_that_has_it_wants_a_key_too(remote: QdrantClient) -> None:
    remote.add("demo", ["cat"], collection_options=CUSTOM, shard_key_selector="a")
    with pytest.raises(InputError, match="'demo' has custom sharding: pass shard_key_selector="):
        remote.add("demo", ["cat"])


def test_on_a_single_node_nothing_stays_behind(remote: QdrantClient, server: Server) -> None:
    server.node.distributed = False
    with pytest.raises(InputError, match="single node") as caught:
        remote.add("demo", ["cat"], collection_options=CUSTOM, shard_key_selector="a")
    assert isinstance(caught.value.__cause__, REQUEST_ERRORS)
    assert not remote.collection_exists("demo")


def test_what_others_made_is_not_removed(remote: QdrantClient, server: Server) -> None:
    config = remote.get_fastembed_vector_params()
    remote.create_collection("demo", config, sharding_method=models.ShardingMethod.CUSTOM)
    server.node.distributed = False
    with pytest.raises(InputError, match="single node"):
        remote.add("demo", ["cat"], shard_key_selector="a")
    assert remote.collection_exists("demo")


@pytest.mark.parametrize("status", [0, 403, 503])
def test_a_collection_without_its_shards_is_removed(
    remote: QdrantClient, server: Server, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setattr(requests, "BACKOFF", Backoff(0.001, 0.01))
    server.fault = lambda request: Fault(status) if creates_shard(request) else None
    with pytest.raises(PermissionRefusal if status == 403 else ServerUnavailableError):
        remote.add("demo", ["cat"], collection_options=CUSTOM, shard_key_selector="a")
    assert not remote.collection_exists("demo")


def test_a_migration_keeps_the_shard_keys(remote: QdrantClient, server: Server) -> None:
    texts = [f"cat {n}" for n in range(25)]
    for key, some in (("a", texts[:12]), (7, texts[12:])):
        first = 0 if key == "a" else 12
        remote.add(
            "old",
            some,
            ids=range(first, first + len(some)),
            collection_options=CUSTOM,
            shard_key_selector=key,
        )
    assert remote.migrate_model("old", LetterEncoder(), "new", batch_size=5, alias="docs") == 25
    for key in ("a", 7):
        assert in_shard(remote, key, "new") == in_shard(remote, key, "old") != {}
    assert stored(remote, "new") == stored(remote, "old")
    remote.add("old", ["dog"], ids=[3], shard_key_selector="a")
    assert remote.migrate_model("old", LetterEncoder(), "new", batch_size=5) == 25
    assert in_shard(remote, "a", "new")[3] == "dog"


def test_a_migration_that_cannot_keep_them_says_so_first(
    remote: QdrantClient, server: Server
) -> None:
    remote.add("old", ["cat"], collection_options=CUSTOM, shard_key_selector="a")
    remote.add("plain", ["cat"])
    for options in (
        {"new_collection_name": "new", "collection_options": PLAIN},
        {"new_collection_name": "plain"},
    ):
        with pytest.raises(InputError, match=r"'old' has custom sharding, and '(new|plain)' has"):
            remote.migrate_model("old", Untouched(), **options)
    with pytest.raises(InputError, match="'new' has custom sharding, and 'plain' has not"):
        remote.migrate_model("plain", Untouched(), "new", collection_options=CUSTOM)
    assert {found.name for found in remote.get_collections().collections} == {"old", "plain"}
