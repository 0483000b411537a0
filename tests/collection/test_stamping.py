"""When a collection gets a stamp: only when it is ours, and only when all of it can be done."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from clients import LetterEncoder, WordEncoder, cosine, opened, stamp
from fake_server.node import Node
from qdrant_client import models
from rest_server import Server
from tiny import TinyModel

from qdrant_embed import (
    CollectionMismatchError,
    CollectionNotFoundError,
    InputError,
    PermissionRefusal,
    QdrantClient,
)

# keys are no secrets on loopback
pytestmark = pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection")

INFO = ("GET /collections/demo", "Collections/Get")


@pytest.fixture
def remote(kind: str, where: dict[str, Any], server: Server) -> Iterator[QdrantClient]:
    """A client of the server."""
    with opened(kind, **where) as client:
        client.set_model(LetterEncoder(), vector_name="text")
        yield client


def foreign(client: QdrantClient, server: Server, count: int = 5) -> None:
    """Make a collection of somebody else's whose points still wait in the server's queue."""
    server.node.queueing = True
    client.create_collection("demo", {"text": cosine(26)})
    points = [
        models.PointStruct(id=n, vector={"text": [1.0] * 26}, payload={"theirs": n})
        for n in range(count)
    ]
    client.upsert("demo", points, wait=False)
    assert client.count("demo").count == 0


def test_a_collection_whose_points_wait_gets_no_stamp(remote: QdrantClient, server: Server) -> None:
    foreign(remote, server)
    remote.add("demo", ["cat"])
    assert "qdrant_embed" not in (remote.get_collection("demo").config.metadata or {})
    assert remote.count("demo").count == 6


def test_its_model_is_not_guessed(kind: str, where: dict[str, Any], server: Server) -> None:
    with opened(kind, **where) as client:
        foreign(client, server)
        with pytest.raises(CollectionMismatchError, match="model wrote its vectors"):
            client.add("demo", ["cat"])


def test_points_that_come_while_texts_are_encoded_are_noticed(
    remote: QdrantClient, server: Server
) -> None:
    class Slow(LetterEncoder):
        def passage_embed(self, texts: Any, /) -> Any:
            point = models.PointStruct(id=1, vector={"text": [1.0] * 26})
            server.database.upsert("demo", [point])
            return super().passage_embed(texts)

    remote.create_collection("demo", {"text": cosine(26)})
    remote.set_model(Slow(), vector_name="text")
    with pytest.raises(CollectionMismatchError, match="something else stores points"):
        remote.add("demo", ["cat"])
    assert not remote.get_collection("demo").config.metadata
    assert remote.count("demo").count == 1


def test_an_empty_collection_is_stamped_on_every_store(anywhere: QdrantClient) -> None:
    anywhere.set_model(LetterEncoder(), vector_name="text")
    anywhere.create_collection("demo", {"text": cosine(26)})
    anywhere.add("demo", ["cat"])
    assert stamp(anywhere)["model"] == "mine/Letters"


@pytest.mark.parametrize("method", ["add", "skip"])
def test_a_collection_of_ours_costs_no_empty_write(
    remote: QdrantClient, server: Server, method: str
) -> None:
    for _ in range(2):
        remote.add("demo", ["cat"], ids=[1], on_existing="skip" if method == "skip" else "error")
        if method == "add":
            break
    assert not [request for request in server.requests if request.lower().endswith("/delete")]


# rights


def test_a_sparse_vector_is_not_added_where_the_stamp_would_be_refused(
    kind: str, where: dict[str, Any], server: Server
) -> None:
    server.tokens = {"all": "manage", "some": {"demo": "rw"}}
    with opened(kind, **where, api_key="all") as client:
        client.set_model(LetterEncoder())
        client.add("demo", ["cat"])
        before = client.get_collection("demo").config
    with opened(kind, **where, api_key="some") as client:
        client.set_model(LetterEncoder())
        client.add("demo", ["dog"])
        client.set_sparse_model(WordEncoder())
        with pytest.raises(PermissionRefusal, match="manage"):
            client.add("demo", ["ship"])
    with opened(kind, **where, api_key="all") as client:
        assert client.get_collection("demo").config == before
        assert client.count("demo").count == 2
        client.set_model(LetterEncoder())
        client.set_sparse_model(WordEncoder())
        client.add("demo", ["ship"])
        assert stamp(client)["sparse"]["model"] == "mine/Words"


def test_an_alias_that_may_not_be_set_is_noticed_before_the_first_text(
    kind: str, where: dict[str, Any], server: Server
) -> None:
    class Untouched(LetterEncoder):
        model_name = "mine/Other"

        def passage_embed(self, texts: Any, /) -> Any:
            raise AssertionError("encoded before the right was checked")

    server.tokens = {"all": "manage", "some": {"old": "r", "new": "rw"}}
    with opened(kind, **where, api_key="all") as client:
        for name, encoder in (("old", LetterEncoder()), ("new", Untouched())):
            client.set_model(encoder)
            if name == "new":
                client.create_collection("new", client.get_fastembed_vector_params())
            else:
                client.add("old", ["cat"])
    with opened(kind, **where, api_key="some") as client:
        with pytest.raises(PermissionRefusal, match="manage"):
            client.migrate_model("old", Untouched(), "new", alias="docs")
        assert client.count("new").count == 0


def test_existence_is_asked_by_what_every_token_may(
    kind: str, where: dict[str, Any], server: Server
) -> None:
    server.tokens = {"all": "manage", "some": {"demo": "rw"}}
    with opened(kind, **where, api_key="all") as client:
        client.set_model(LetterEncoder())
        client.add("demo", ["cat"])
    server.requests.clear()
    with opened(kind, **where, api_key="some") as client:
        client.set_model(LetterEncoder())
        client.add("demo", ["dog"], ids="content", on_existing="skip")
        client.query("demo", "dog")
        client.delete_documents("demo", [1])
    assert not [request for request in server.requests if request.lower().endswith("exists")]


# names of one collection


@pytest.mark.parametrize(("old", "new"), [("real", "live"), ("live", "real"), ("live", "other")])
def test_a_migration_into_an_alias_of_the_old_collection_is_refused(
    anywhere: QdrantClient, old: str, new: str
) -> None:
    anywhere.add("real", ["cat"])
    for name in ("live", "other"):
        alias = models.CreateAlias(collection_name="real", alias_name=name)
        anywhere.update_collection_aliases([models.CreateAliasOperation(create_alias=alias)])
    with pytest.raises(InputError, match=r"are names of one collection, '.*real'"):
        anywhere.migrate_model(old, LetterEncoder(), new)


# the index of parents


def test_the_index_of_parents_is_made_before_chunks_are_looked_up(
    kind: str, where: dict[str, Any], server: Server, tiny: TinyModel
) -> None:
    """Its maker was killed before, and strict mode refuses look-ups without it."""
    with opened(kind, **where) as client:
        client.set_model(tiny.path, overflow="chunk")
        client.add("demo", ["cat"], ids=[1])
        client.delete_payload_index("demo", "qdrant_embed_chunk.parent")
        server.restrict(
            "demo", unindexed_filtering_retrieve=False, unindexed_filtering_update=False
        )
        assert client.add("demo", ["dog"], ids=[1], on_existing="skip") == [1]
        client.delete_payload_index("demo", "qdrant_embed_chunk.parent")
        client.delete_documents("demo", [1])
        assert client.count("demo").count == 0


# behind a balancer


class Balanced(Node):
    """Nodes that know of a definition a moment after the one that was told.

    Args:
        node: the node that was there so far.
        late: number of reads after each definition that are answered from before.
    """

    def __init__(self, node: Node, late: int) -> None:
        super().__init__(node.database)
        self.late, self.left = late, 0
        self.before: dict[str, Any] = {}

    def run(self, operation: str, name: str = "", *args: Any, **options: Any) -> Any:
        if operation in ("create", "update_collection", "create_vector"):
            try:
                self.before[name] = super().run("info", name)
            except Exception as error:
                self.before[name] = error
            self.left = self.late
        elif self.left and (operation == "info" or isinstance(self.before[name], Exception)):
            self.left -= 1
            if isinstance(self.before[name], Exception):
                raise self.before[name]
            return self.before[name]
        return super().run(operation, name, *args, **options)


@pytest.mark.parametrize("late", [1, 3])
def test_what_was_just_written_is_read_again(
    kind: str, where: dict[str, Any], server: Server, late: int
) -> None:
    server.node = Balanced(server.node, late)
    with opened(kind, **where) as client:
        client.set_model(LetterEncoder(), vector_name="text")
        client.add("ours", ["cat"])
        client.create_collection("theirs", {"text": cosine(26)})
        server.node.left = 0
        client.add("theirs", ["cat"])
        client.set_sparse_model(WordEncoder())
        client.add("ours", ["a ship"])
        for name, count in (("ours", 2), ("theirs", 1)):
            assert stamp(client, name)["vector_name"] == "text"
            assert client.count(name).count == count
        assert stamp(client, "ours")["sparse"]["model"] == "mine/Words"


def test_a_server_that_keeps_no_stamp_is_said_to_be_old(
    kind: str, where: dict[str, Any], server: Server
) -> None:
    class Old(Node):
        def info(self, name: str) -> dict[str, Any]:
            info: dict[str, Any] = super().info(name)
            info["config"].pop("metadata", None)
            return info

    server.node = Old(server.database)
    with opened(kind, **where) as client:
        client.set_model(LetterEncoder())
        with pytest.raises(CollectionMismatchError, match=r"Qdrant 1\.16"):
            client.add("demo", ["cat"])


def test_a_collection_that_is_gone_is_not_waited_for(
    kind: str, where: dict[str, Any], server: Server
) -> None:
    with opened(kind, **where) as client:
        client.set_model(LetterEncoder())
        with pytest.raises(CollectionNotFoundError, match="demo"):
            client.query("demo", "cat")
    assert sum(request in INFO for request in server.requests) == 1
