"""Look-ups where a cluster keeps several copies, some of which lack a point or are down."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import pytest
import qdrant_client
from clients import LetterEncoder, opened
from fake_server.node import Node
from qdrant_client import grpc, models
from rest_server import Fault, Server
from tiny import TinyModel

from qdrant_embed import CollectionOptions, QdrantClient
from qdrant_embed.backoff import Backoff
from qdrant_embed.flows import requests

TEXTS = ["cat", "dog", "ship", "sea"]
ENDS = ("/points", "/points/scroll")
LOOK_UPS: dict[str, Any] = {"Points/Get": grpc.GetPoints, "Points/Scroll": grpc.ScrollPoints}


class Counting(LetterEncoder):
    """Keeps the texts it has encoded."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def passage_embed(self, texts: Iterable[str], /) -> Any:
        listed = list(texts)
        self.texts += listed
        return super().passage_embed(listed)


class Cluster:
    """A cluster behind the server: some of its copies lack points, some are down.

    Args:
        server: its one copy that has all points; the others have those of `common`.
        copies: of each shard.
        written: copies that a write needs.

    Attributes:
        down: number of copies that are down.
        common: points that every copy has: what a look-up of all copies finds.
    """

    def __init__(self, server: Server, copies: int = 3, written: int = 1) -> None:
        self.server, self.copies, self.written, self.down = server, copies, written, 0
        self.whole = server.node
        self.common: Node | None = None
        self.asked: list[str] = []
        server.fault = self.choose

    def options(self) -> CollectionOptions:
        """Options of a collection that is kept so."""
        return CollectionOptions(
            replication_factor=self.copies, write_consistency_factor=self.written
        )

    def lose(self, name: str, ids: list[Any]) -> None:
        """Let the points be missing on some copies."""
        self.common = Node(qdrant_client.QdrantClient(":memory:"))
        found = self.whole.database.get_collection(name).config
        params = found.params
        self.common.database.create_collection(
            name, params.vectors, params.sparse_vectors, metadata=found.metadata
        )
        points, _ = self.whole.database.scroll(name, limit=1000, with_vectors=True)
        kept = [
            models.PointStruct(id=point.id, vector=point.vector, payload=point.payload)  # type: ignore[arg-type]
            for point in points
            if point.id not in ids
        ]
        self.common.database.upsert(name, kept)

    def consistency(self, request: str) -> str:
        """Return the consistency that a request asks for; empty if it does not say."""
        if request not in LOOK_UPS:
            asked = self.server.parameters[-1] if self.server.parameters else ""
            found = re.search(r"consistency=(\w+)", asked)
            return found.group(1) if found and " " in request else ""
        asked = LOOK_UPS[request].FromString(self.server.bodies[-1][1])
        if not asked.HasField("read_consistency"):
            return ""
        if asked.read_consistency.HasField("factor"):
            return str(asked.read_consistency.factor)
        return "all" if asked.read_consistency.type == grpc.ReadConsistencyType.All else "other"

    def choose(self, request: str) -> Fault | None:
        """Decide who answers a request, or that nobody can."""
        self.server.node = self.whole
        consistency = self.consistency(request)
        if request in LOOK_UPS or (request.startswith("POST") and request.endswith(ENDS)):
            self.asked.append(consistency)
        if not consistency:
            return None
        wanted = self.copies if consistency == "all" else int(consistency)
        if wanted > self.copies - self.down:
            return Fault(
                500,
                message="Service internal error: The replica set for shard 0 on peer 1 does not "
                "have enough active replicas",
            )
        if wanted > 1 and self.common is not None:
            self.server.node = self.common
        return None


@pytest.mark.parametrize("copies", [1, 3])
def test_look_ups_ask_every_copy(
    kind: str, where: dict[str, Any], server: Server, tiny: TinyModel, copies: int
) -> None:
    cluster = Cluster(server, copies)
    with opened(kind, **where) as client:
        client.set_model(Counting())
        for _ in range(2):
            client.add(
                "demo",
                TEXTS,
                ids=range(4),
                on_existing="skip",
                collection_options=cluster.options(),
            )
        assert cluster.asked == ["all"]
        client.migrate_model("demo", LetterEncoder(), "new")
        assert cluster.asked == ["all", "", "all"]
        client.set_model(tiny.path, overflow="chunk")
        cluster.asked.clear()
        for _ in range(2):
            client.add("chunks", TEXTS, ids=range(4))
        assert cluster.asked == ["all", "all"]  # for chunks, and for what these have from others


def test_what_only_some_copies_have_is_stored_again(
    kind: str, where: dict[str, Any], server: Server
) -> None:
    cluster, encoder = Cluster(server, written=3), Counting()
    with opened(kind, **where) as client:
        client.set_model(encoder)
        for lost in ([], [1, 2]):
            client.add(
                "demo",
                TEXTS,
                ids=range(4),
                on_existing="skip",
                collection_options=cluster.options(),
            )
            cluster.lose("demo", [1, 2])
            assert encoder.texts == [TEXTS[n] for n in lost] or not lost
            encoder.texts.clear()


def test_a_migration_heals_the_new_collection(
    kind: str, where: dict[str, Any], server: Server
) -> None:
    cluster, encoder = Cluster(server), Counting()
    with opened(kind, **where) as client:
        client.set_model(LetterEncoder())
        client.add("old", TEXTS, ids=range(4))
        client.migrate_model("old", encoder, "new")
        cluster.lose("new", [3])
        encoder.texts.clear()
        client.migrate_model("old", encoder, "new")
        assert encoder.texts == ["sea"]


@pytest.mark.parametrize(
    ("copies", "written", "down", "asked"),
    [
        (2, 1, 1, ["all", "1"]),
        (3, 1, 2, ["all", "2", "1"]),
        (3, 2, 1, ["all", "2"]),
    ],
)
def test_a_copy_that_is_down_ends_nothing_that_could_be_written(
    kind: str,
    where: dict[str, Any],
    server: Server,
    copies: int,
    written: int,
    down: int,
    asked: list[str],
) -> None:
    cluster, encoder = Cluster(server, copies, written), Counting()
    with opened(kind, **where) as client:
        client.set_model(encoder)
        options = cluster.options()
        client.add("demo", TEXTS, ids=range(4), collection_options=options)
        cluster.down = down
        encoder.texts.clear()
        for _ in range(2):
            client.add("demo", [*TEXTS, "new"], ids=range(5), on_existing="skip")
        assert encoder.texts == ["new"]
        assert cluster.asked == asked * 2


def test_a_copy_that_a_write_needs_is_waited_for(
    kind: str, where: dict[str, Any], server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "BACKOFF", Backoff(0.001, 0.01))
    cluster = Cluster(server, copies=3, written=3)
    with opened(kind, **where) as client:
        client.set_model(Counting())
        options = cluster.options()
        client.add("demo", TEXTS, ids=range(4), collection_options=options)
        cluster.down = 1
        with pytest.raises(Exception, match="not have enough active replicas"):
            client.add("demo", TEXTS, ids=range(4), on_existing="skip")
        assert set(cluster.asked) == {"all"}
        assert len(cluster.asked) > 3
        cluster.asked.clear()
        choose = cluster.choose

        def comes_back(request: str) -> Fault | None:
            cluster.down = int(len(cluster.asked) < 2)
            return choose(request)

        server.fault = comes_back
        client.add("demo", TEXTS, ids=range(4), on_existing="skip")


def test_a_local_database_has_one_copy(client: QdrantClient) -> None:
    client.add("demo", TEXTS, ids=range(4))
    assert client.add("demo", TEXTS, ids=range(4), on_existing="skip") == [0, 1, 2, 3]
