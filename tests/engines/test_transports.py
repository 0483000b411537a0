"""Servers over REST and gRPC: one error for one thing, numbers obeyed, bodies, time, patience."""

from __future__ import annotations

import itertools
import logging
import math
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import urlparse

import httpx
import numpy as np
import pytest
from clients import LetterEncoder, WordEncoder, at, opened
from fake_server.serving import MEGABYTE
from qdrant_client import models
from qdrant_client.http.exceptions import ResponseHandlingException
from rest_server import Fault, Server
from tiny import TinyModel

from qdrant_embed import (
    AsyncQdrantClient,
    IngestError,
    InputError,
    PermissionRefusal,
    QdrantClient,
    ServerRefusal,
    ServerUnavailableError,
    stalls,
)
from qdrant_embed.backoff import Backoff
from qdrant_embed.engines import bodies
from qdrant_embed.engines.server import is_transient
from qdrant_embed.flows import requests
from qdrant_embed.progress_bar import Progress

UPSERT = {"rest": "PUT /collections/demo/points", "grpc": "Points/Upsert"}
QUERY = {"rest": "POST /collections/demo/points/query/batch", "grpc": "Points/QueryBatch"}
CREATE = {"rest": "PUT /collections/demo", "grpc": "Collections/Create"}
TEXTS = [f"text {n} {'abcdefgh'[n % 8] * n}" for n in range(20)]


@pytest.fixture(params=["rest", "grpc"])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def remote(
    kind: str, grpc_server: Server, transport: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[QdrantClient]:
    """A client of either kind over either transport, that waits no time between tries."""
    monkeypatch.setattr(requests, "BACKOFF", Backoff(0.001, 0.01))
    with opened(kind, **at(grpc_server, grpc=transport == "grpc")) as client:
        client.set_model(LetterEncoder())
        yield client


def count(server: Server) -> int:
    return server.database.count("demo").count


def times(server: Server, asked: str) -> int:
    return sum(request == asked for request in server.requests)


# one error for one thing


def test_a_refusal_is_one_readable_line(
    remote: QdrantClient, grpc_server: Server, transport: str
) -> None:
    remote.add("demo", TEXTS)
    grpc_server.fail_once(QUERY[transport], Fault(400, message="Wrong input:\n  what"))
    with pytest.raises(ServerRefusal) as caught:
        remote.query("demo", "cat")
    said = "Qdrant refused a request about collection 'demo': Wrong input: what"
    assert str(caught.value) == said
    assert isinstance(caught.value, ValueError)
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize(
    ("tokens", "key", "said"),
    [
        ({"k": "manage"}, None, r"needs a valid key .*401.*Must provide an API key.*pass api_key="),
        ({"k": "manage"}, "wrong", r"needs a valid key .*401, Invalid API key or JWT.*api_key="),
        ({"k": "read"}, "k", r"403, Global .*access is required.*key with global manage access"),
        ({"k": {"other": "rw"}}, "k", r"403.*global manage access|403, Access to collection demo"),
    ],
)
def test_a_missing_right_is_named(
    grpc_server: Server, kind: str, transport: str, tokens: Any, key: str | None, said: str
) -> None:
    grpc_server.tokens = tokens
    options = at(grpc_server, grpc=transport == "grpc")
    keys = {"headers": {"api-key": key}} if key else {}  # without the warning about http
    with opened(kind, **options, **keys) as client:
        client.set_model(LetterEncoder())
        with pytest.raises(PermissionRefusal, match=said) as caught:
            client.add("demo", TEXTS)
        assert isinstance(caught.value, PermissionError)
        assert "\n" not in str(caught.value)
        assert caught.value.__cause__ is not None


@pytest.mark.parametrize("right", ["read", {"demo": "r"}, {"other": "rw"}])
def test_the_smallest_right_that_would_do_is_named(
    grpc_server: Server, kind: str, transport: str, right: Any
) -> None:
    grpc = transport == "grpc"
    with opened(kind, **at(grpc_server, grpc=grpc), headers={"api-key": "k"}) as client:
        client.set_model(LetterEncoder())
        client.add("demo", TEXTS, ids=range(20))
        to_write = "use a key (that may write|with access) to collection 'demo'$"
        to_all = "needs a key with global manage access$|use a key with access to collection"
        for call, needed in (
            (lambda: client.add("demo", TEXTS, ids=range(20)), to_write),
            (lambda: client.update_metadata("demo", [1], {"a": 1}), to_write),
            (lambda: client.delete_documents("demo", [1]), to_write),
            (lambda: client.add("new", TEXTS), to_all),
            (lambda: client.migrate_model("demo", Wide(), "new", alias="a"), to_all),
        ):
            grpc_server.tokens = {"k": right}
            with pytest.raises(PermissionRefusal, match=needed):
                call()
            grpc_server.tokens = {"k": {"demo": "rw"}}
            if needed == to_write:
                call()


@pytest.mark.parametrize("key", ["secret\n", "secr\x00et", "schlüssel", " secret", "secret "])
def test_a_key_that_no_header_can_carry_is_an_input_error(transport: str, key: str) -> None:
    options: dict[str, Any] = {"prefer_grpc": transport == "grpc", "check_compatibility": False}
    for wrong in ({"api_key": key}, {"headers": {"x-tenant": key}}):
        for client in (QdrantClient, AsyncQdrantClient):
            with pytest.raises(InputError, match="which no HTTP header can carry") as caught:
                client(url="http://127.0.0.1:9", **options, **wrong)
            assert "sec" not in str(caught.value)


# strict mode


def test_a_missing_index_is_named_with_the_line_that_makes_it(
    remote: QdrantClient, grpc_server: Server
) -> None:
    remote.add("demo", TEXTS, [{"year": 2000 + n, "f": n / 2} for n in range(20)])
    grpc_server.restrict("demo", unindexed_filtering_retrieve=False)
    line = 'client.create_payload_index("demo", "year", "integer")'
    with pytest.raises(ServerRefusal, match=re.escape(line)) as caught:
        remote.query("demo", "cat", where={"year": 2003})
    assert "\n" not in str(caught.value)
    with pytest.raises(ServerRefusal, match=r'"integer"\), or "float" if'):
        remote.query("demo", "cat", where={"f": {"gte": 1}})
    remote.create_payload_index("demo", "year", models.PayloadSchemaType.INTEGER)
    assert len(remote.query("demo", "cat", where={"year": 2003})) == 1


def test_uploads_are_cut_to_the_cap_that_the_server_names(
    remote: QdrantClient, grpc_server: Server, transport: str
) -> None:
    remote.add("demo", ["cat"])
    grpc_server.restrict("demo", upsert_max_batchsize=6)
    grpc_server.requests.clear()
    assert remote.add("demo", TEXTS, ids=range(20)) == list(range(20))
    assert times(grpc_server, UPSERT[transport]) == 1 + 4
    assert remote.add("demo", TEXTS, ids=range(20)) == list(range(20))
    assert times(grpc_server, UPSERT[transport]) == 1 + 4 + 4  # it is remembered
    assert count(grpc_server) == 21


def test_batches_of_queries_and_prefetches_are_cut_to_the_cap(
    remote: QdrantClient, grpc_server: Server, transport: str
) -> None:
    remote.set_sparse_model(WordEncoder())
    remote.add("demo", TEXTS)
    expected = remote.query_batch("demo", TEXTS[:5], limit=3, prefetch_limit=5)
    grpc_server.restrict("demo", search_max_batchsize=2, max_query_limit=5)
    grpc_server.requests.clear()
    found = remote.query_batch("demo", TEXTS[:5], limit=3)
    assert [[hit.id for hit in hits] for hits in found] == [
        [hit.id for hit in hits] for hits in expected
    ]
    assert times(grpc_server, QUERY[transport]) == 1 + 1 + 3
    with pytest.raises(ServerRefusal, match=r"allows 5 at most for 'limit' .*, not 6: ask for le"):
        remote.query("demo", "cat", limit=6)


@pytest.mark.parametrize("way", ["dense", "hybrid", "chunks"])
def test_pages_are_whole_under_a_cap(
    remote: QdrantClient, grpc_server: Server, transport: str, tiny: TinyModel, way: str
) -> None:
    """Hits on either side of a page give way, and only the user's own number is refused."""
    if way == "hybrid":
        remote.set_sparse_model(WordEncoder())
    texts = [f"{'abcdefgh'[n % 8] * n} {'x' * (n % 7)} cat" for n in range(40)]
    if way == "chunks":
        remote.set_model(tiny.path, overflow="chunk")
    remote.add("demo", texts, ids=range(40))
    ranking = [hit.id for hit in remote.query("demo", "abc cat", limit=40)]
    grpc_server.restrict("demo", max_query_limit=10)
    if way == "hybrid":  # the cap is that of its candidates, too
        pages = [remote.query("demo", "abc cat", offset=offset) for offset in (0, 10)]
        ranking = [hit.id for hits in pages for hit in hits]
        assert 15 < len(set(ranking)) == len(ranking) <= 20
    for limit, offset in ((10, 0), (10, 3), (9, 3), (10, 10), (4, 11), (1, 0)):
        hits = remote.query("demo", "abc cat", limit=limit, offset=offset)
        assert [hit.id for hit in hits] == ranking[offset : offset + limit], (limit, offset)
    grpc_server.requests.clear()
    remote.query("demo", "abc cat", limit=10)
    assert way == "chunks" or grpc_server.requests == [QUERY[transport]]
    for limit, offset in ((11, 0), (12, 5)):
        with pytest.raises(ServerRefusal, match=f"allows 10 at most for 'limit' .*not {limit}: "):
            remote.query("demo", "abc cat", limit=limit, offset=offset)
    grpc_server.restrict("demo", max_query_limit=11)  # a cap that was named is not the last word
    assert len(remote.query("demo", "abc cat", limit=11)) == 11


@pytest.mark.slow
def test_a_deep_page_above_a_minutes_budget_is_split(
    remote: QdrantClient, grpc_server: Server, transport: str
) -> None:
    remote.set_sparse_model(WordEncoder())
    remote.add("demo", [f"{'abcdefgh'[n % 8] * n} cat" for n in range(720)], ids=range(720))
    options: dict[str, Any] = {"limit": 605, "offset": 100}
    expected = [hit.id for hit in remote.query("demo", "abc cat", **options)]
    grpc_server.restrict("demo", read_rate_limit=600)
    grpc_server.requests.clear()
    assert [hit.id for hit in remote.query("demo", "abc cat", **options)] == expected
    retrieve = "Points/Get" if transport == "grpc" else "POST /collections/demo/points"
    assert times(grpc_server, retrieve) >= 1 + 2


def test_look_ups_and_conditions_are_cut_to_the_cap(
    remote: QdrantClient, grpc_server: Server, transport: str, tiny: TinyModel
) -> None:
    remote.set_model(tiny.path, overflow="chunk")
    texts = [f"{n} " + "the cat sat on the ship. " * 30 for n in range(20)]
    remote.add("demo", texts, ids=range(20))
    assert count(grpc_server) > 40
    remote.delete_payload_index("demo", "qdrant_embed_chunk.parent")  # its maker was killed, say
    grpc_server.restrict(
        "demo",
        max_query_limit=7,
        condition_max_size=3,
        unindexed_filtering_retrieve=False,
        unindexed_filtering_update=False,
    )
    grpc_server.requests.clear()
    remote.add("demo", texts, ids=range(20), on_existing="skip")
    assert not times(grpc_server, UPSERT[transport])
    asked = len(grpc_server.requests)
    grpc_server.requests.clear()
    remote.add("demo", texts, ids=range(20), on_existing="skip")
    assert len(grpc_server.requests) < asked  # caps are remembered
    texts[3] = "the cat sat"
    remote.add("demo", texts, ids=range(20), on_existing="skip")
    assert times(grpc_server, UPSERT[transport]) == 1
    remote.delete_documents("demo", range(20))
    assert count(grpc_server) == 0


def test_what_is_excluded_is_cut_to_the_cap_of_conditions(
    remote: QdrantClient, grpc_server: Server
) -> None:
    remote.add("demo", TEXTS, [{"n": n} for n in range(20)], range(20))
    grpc_server.restrict("demo", condition_max_size=3)
    numbers = models.FieldCondition(key="n", match=models.MatchAny(any=list(range(5, 12))))
    excluded: list[models.Condition] = [
        models.HasIdCondition(has_id=list(range(5))),
        numbers,
    ]
    found = remote.query("demo", "cat", models.Filter(must_not=excluded), limit=20)
    assert sorted(hit.id for hit in found if isinstance(hit.id, int)) == list(range(12, 20))


def test_a_migration_reads_pages_as_large_as_the_cap(
    remote: QdrantClient, grpc_server: Server
) -> None:
    remote.add("demo", TEXTS, ids=range(20))
    grpc_server.restrict("demo", max_query_limit=7)
    assert remote.migrate_model("demo", Wide(), "new") == 20


def test_a_time_out_above_the_cap_is_cut(remote: QdrantClient, grpc_server: Server) -> None:
    remote.add("demo", TEXTS)
    grpc_server.restrict("demo", max_timeout=3)
    assert len(remote.query("demo", "cat", timeout=10)) == 10


def test_a_request_above_a_minutes_budget_is_split(
    remote: QdrantClient, grpc_server: Server, transport: str
) -> None:
    remote.add("demo", ["cat"])
    grpc_server.restrict("demo", write_rate_limit=1000)
    grpc_server.requests.clear()
    texts = [f"cat {n}" for n in range(1020)]
    ids = remote.add("demo", texts, batch_size=1020, ids=range(1, 1021))
    assert ids == list(range(1, 1021))
    assert count(grpc_server) == 1021
    # The second half waits for Retry-After, unless the budget grew enough on a slow machine.
    assert times(grpc_server, UPSERT[transport]) in (1 + 2, 1 + 2 + 1)
    grpc_server.restrict("demo", write_rate_limit=10_000, read_rate_limit=1000)
    grpc_server.requests.clear()
    remote.add("demo", texts, batch_size=1020, ids=range(1, 1021), on_existing="skip")
    assert UPSERT[transport] not in grpc_server.requests


# bodies


def test_no_body_is_larger_than_reckoned(
    remote: QdrantClient, grpc_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "MOST", 30_000)
    texts = [f"{n} {'ä' * 2_000}" for n in range(30)]
    remote.add("demo", texts, ids=range(30), batch_size=30)
    assert count(grpc_server) == 30
    remote.migrate_model("demo", Wide(), "new", batch_size=30)
    remote.set_model(Wide())
    remote.query_batch("new", texts)
    sizes = [len(body) for _, body in grpc_server.bodies]
    assert 10_000 < max(sizes) <= 30_000
    assert len(remote.query_batch("new", texts[:3])) == 3


class Wide(LetterEncoder):
    model_name = "mine/Wide"
    dimension = 1000

    def passage_embed(self, texts: Any, /) -> Any:
        vectors = np.zeros((len(texts), 1000), np.float32)
        vectors[:, :26] = np.asarray(super().passage_embed(texts))
        return vectors + 0.123

    query_embed = passage_embed


def test_sizes_are_never_below_what_is_sent(remote: QdrantClient, grpc_server: Server) -> None:
    remote.set_sparse_model(WordEncoder())
    metadata = {"a": [1.5, "ü" * 100, {"b": None}], "n": 2**60, "t": True}
    remote.add("demo", ["cat dog"], [metadata], ids=[1])
    body = max((body for _, body in grpc_server.bodies if b"cat dog" in body), key=len)
    sparse = models.SparseVector(indices=[3], values=[2.0])
    point = models.PointStruct(
        id=1,
        vector={"fast-letters": [0.1] * 26, "fast-sparse-words": sparse},
        payload={"document": "cat dog", **metadata},
    )
    assert len(body) <= bodies.point_size(point) + 20 <= 10 * len(body)


def test_a_document_that_does_not_fit_is_named_with_its_size(
    kind: str, grpc_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The synchronous client reads the refusal, the asynchronous one sees a broken connection."""
    monkeypatch.setattr(requests, "BACKOFF", Backoff(0.001, 0.01))
    grpc_server.body_limit = 2 * MEGABYTE
    texts = ["cat", "dog " * 600_000, "ship"]
    with opened(kind, **at(grpc_server)) as client:
        client.set_model(LetterEncoder())
        with pytest.raises(IngestError, match="1 document is stored") as caught:
            client.add("demo", texts, ids=range(3), batch_size=3)
        assert caught.value.failed_index == 1
        refusal = caught.value.__cause__
        assert isinstance(refusal, ServerRefusal)
        assert "the document of point 1 takes about 2.4 MB" in str(refusal)
        assert "32 MB" in str(refusal)
        large = ["a" * 100_000] * 40  # 4 MB, in halves
        assert len(client.add("large", large, batch_size=40)) == 40
        with pytest.raises(ServerRefusal, match="of point 7 takes about 2"):
            client.add("demo", [texts[1]], ids=[7])


def test_a_time_out_of_writing_a_large_body_is_no_passing_failure() -> None:
    for error in (httpx.WriteTimeout(""), httpx.ReadError(""), httpx.RemoteProtocolError("")):
        broken = ResponseHandlingException(error)
        assert is_transient(broken)  # of a small one it is


# gRPC is a first-class transport


@pytest.mark.parametrize("code", ["UNAVAILABLE", "INTERNAL", "DEADLINE_EXCEEDED"])
def test_passing_failures_are_tried_again(
    remote: QdrantClient, grpc_server: Server, transport: str, code: str
) -> None:
    status = {"UNAVAILABLE": 503, "INTERNAL": 500, "DEADLINE_EXCEEDED": 408}[code]
    grpc_server.fail_once(UPSERT[transport], Fault(status, code=code), times=3)
    assert len(remote.add("demo", TEXTS)) == 20
    grpc_server.fail_once(QUERY[transport], Fault(status, code=code), times=3)
    assert len(remote.query("demo", "cat")) == 10


def test_messages_that_are_too_large_are_halved(remote: QdrantClient, grpc_server: Server) -> None:
    grpc_server.largest = 4_000
    assert len(remote.add("demo", [f"{n} {'a' * 300}" for n in range(40)], batch_size=40)) == 40
    assert count(grpc_server) == 40


@pytest.mark.parametrize("consistency", ["all", "quorum", models.ReadConsistencyType.ALL, 1, None])
def test_every_form_of_consistency(
    remote: QdrantClient, consistency: models.ReadConsistency | None
) -> None:
    remote.add("demo", TEXTS)
    assert len(remote.query("demo", "cat", consistency=consistency)) == 10


# time and patience


@pytest.mark.parametrize("fault", ["frozen", "busy", "down"])
def test_a_query_has_a_total_time(
    remote: QdrantClient, grpc_server: Server, transport: str, fault: str
) -> None:
    remote.add("demo", TEXTS)
    remote.query("demo", "cat")
    faults = {
        "frozen": Fault(503, pause=60),
        "busy": Fault(429, headers=(("Retry-After", "60"),)),
        "down": Fault(503),
    }
    grpc_server.fail_once(QUERY[transport], faults[fault], times=99)
    start = time.monotonic()
    found = {"frozen": "no answer within", "busy": "asks to wait 60 s", "down": "it answered"}
    with pytest.raises(ServerUnavailableError, match=found[fault]):
        remote.query("demo", "cat", timeout=1)
    assert time.monotonic() - start < 20
    grpc_server.fault = lambda _: None
    assert len(remote.query("demo", "cat", timeout=5)) == 10


def test_the_first_query_of_a_client_has_a_total_time_too(
    kind: str, grpc_server: Server, transport: str
) -> None:
    """Its first request has no timeout of its own."""
    options = at(grpc_server, grpc=transport == "grpc")
    with opened(kind, **options) as client:
        client.set_model(LetterEncoder())
        client.add("demo", TEXTS)
    with opened(kind, **options) as client:
        client.set_model(LetterEncoder())
        asked = "Collections/Get" if transport == "grpc" else "GET /collections/demo"
        grpc_server.fail_once(asked, Fault(200, pause=60), times=99)
        start = time.monotonic()
        with pytest.raises(ServerUnavailableError, match="no answer within"):
            client.query("demo", "cat", timeout=1)
        assert time.monotonic() - start < 20
        grpc_server.fault = lambda _: None
        assert len(client.query("demo", "cat")) == 10


@pytest.mark.usefixtures("patience")
def test_a_restart_of_thirty_seconds_is_survived(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if every wait is as short as it can be."""
    monkeypatch.setattr("qdrant_embed.backoff.random.uniform", lambda least, most: least)
    waits = [requests.BACKOFF.seconds(tries) for tries in range(1, requests.MAX_RETRIES + 1)]
    assert 39 < sum(waits) < requests.LONGEST_RETRYING
    assert max(waits) <= 4


class Gate:
    """What stands between a client and a server, and can be down for a while."""

    def __init__(self, port: int) -> None:
        self._target = ("127.0.0.1", port)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._open: list[socket.socket] = []
        self._listen()

    def _listen(self) -> None:
        threading.Thread(target=self._accept, args=(self._socket,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                server = socket.create_connection(self._target)
                self._open += [client, server]
                for pair in ((client, server), (server, client)):
                    threading.Thread(target=self._copy, args=pair, daemon=True).start()

    @staticmethod
    def _copy(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while part := source.recv(65536):
                target.sendall(part)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def down(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for end in self._open:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self._open.clear()

    def up(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", self.port))
        self._listen()


@pytest.mark.usefixtures("patience")
def test_an_add_survives_a_restart_and_says_so(
    kind: str, grpc_server: Server, transport: str, caplog: pytest.LogCaptureFixture
) -> None:
    port = grpc_server.grpc_port if transport == "grpc" else urlparse(grpc_server.url).port
    assert port is not None
    gate = Gate(port)
    options = at(grpc_server, grpc=transport == "grpc")
    options |= (
        {"grpc_port": gate.port}
        if transport == "grpc"
        else {"url": f"http://127.0.0.1:{gate.port}"}
    )
    caplog.set_level(logging.INFO)
    with opened(kind, **options) as client:
        client.set_model(LetterEncoder())
        client.add("demo", TEXTS, ids=range(20))
        gate.down()
        threading.Timer(3.0, gate.up).start()
        start = time.monotonic()
        client.add("demo", TEXTS, ids=range(20))
        assert 3 <= time.monotonic() - start < 20
        said = [record for record in caplog.records if "trying again" in record.message]
        assert said[0].levelno == logging.INFO
        assert said[-1].levelno == logging.WARNING
        assert "\n" not in said[-1].message
        gate.down()
        gate.up()  # a channel connects again at once
        start = time.monotonic()
        assert len(client.query("demo", "cat")) == 10
        assert time.monotonic() - start < 1.5
    gate.down()


def test_uploads_in_flight_tell_of_one_wait_at_a_time(
    remote: QdrantClient,
    grpc_server: Server,
    transport: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(requests, "QUIET", 0.0)
    monkeypatch.setattr(requests, "BACKOFF", Backoff(0.1, 0.1))
    shown: list[str] = []
    monkeypatch.setattr(Progress, "show_note", lambda self, note: shown.append(note))
    uploads, ends = 0, math.inf

    def restarts(request: str) -> Fault | None:
        nonlocal uploads, ends
        if request == UPSERT[transport]:
            uploads += 1
            if uploads == 2:
                ends = time.monotonic() + 0.5
            return Fault(503) if uploads > 1 and time.monotonic() < ends else None
        return None

    grpc_server.fault = restarts
    assert len(remote.add("demo", TEXTS, ids=range(20), batch_size=2)) == 20
    said = [record for record in caplog.records if "trying again" in record.message]
    warnings = [record for record in said if record.levelno == logging.WARNING]
    assert 3 <= len(warnings) == len(shown) < len(said)
    for one, following in itertools.pairwise(warnings):
        assert isinstance(one.args, tuple)
        wait = one.args[1]
        assert isinstance(wait, float)
        assert following.created - one.created > 0.95 * wait


def test_a_bar_shows_the_wait(
    remote: QdrantClient, grpc_server: Server, transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "QUIET", 0.0)
    shown: list[str] = []
    monkeypatch.setattr(Progress, "show_note", lambda self, note: shown.append(note))
    grpc_server.fail_once(UPSERT[transport], Fault(503), times=2)
    remote.add("demo", TEXTS, ids=range(20))
    notes = [f"waiting for Qdrant, retry {n} of {requests.MAX_RETRIES}" for n in (1, 2)]
    assert shown == notes
    grpc_server.fail_once("/Scroll" if transport == "grpc" else "/scroll", Fault(503))
    remote.migrate_model("demo", Wide(), "new")
    assert shown == [*notes, notes[0]]


@pytest.mark.usefixtures("patience")
def test_a_definition_that_is_answered_too_late_is_looked_at(
    kind: str, grpc_server: Server, transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "DEFINING_TIMEOUT", 1)
    options = at(grpc_server, grpc=transport == "grpc") | {"timeout": 1}
    with opened(kind, **options) as client:
        client.set_model(LetterEncoder())
        grpc_server.fail_once(CREATE[transport], Fault(200, after_commit=True, late=2.5))
        assert len(client.add("demo", TEXTS)) == 20
    assert times(grpc_server, CREATE[transport]) == 1


@pytest.mark.usefixtures("patience")
def test_a_definition_gets_the_time_it_needs(
    kind: str, grpc_server: Server, transport: str
) -> None:
    with opened(kind, **at(grpc_server, grpc=transport == "grpc") | {"timeout": 2}) as client:
        client.set_model(LetterEncoder())
        grpc_server.fail_once(CREATE[transport], Fault(200, pause=2.5))
        assert len(client.add("demo", TEXTS)) == 20
    assert times(grpc_server, CREATE[transport]) == 1


def test_what_fails_for_ever_is_not_tried_again() -> None:
    for error in (
        httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed"),
        httpx.ConnectError("[SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:1006)"),
        httpx.ConnectError("[SSL] record layer failure (_ssl.c:1006)"),
        httpx.ConnectError("[SSL: PACKET_LENGTH_TOO_LONG] packet length too long (_ssl.c:1006)"),
        httpx.RemoteProtocolError("illegal status line: bytearray(b'\\x00')"),
        httpx.UnsupportedProtocol("no http"),
        httpx.LocalProtocolError("Illegal header value"),
        httpx.ProxyError("407 Proxy Authentication Required"),
    ):
        assert not is_transient(ResponseHandlingException(error)), error
    assert is_transient(ResponseHandlingException(httpx.ProxyError("503 Service Unavailable")))


def test_a_slow_server_is_announced_once(
    remote: QdrantClient,
    grpc_server: Server,
    transport: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(stalls, "NOTICE", 0.2)
    remote.add("demo", TEXTS)
    caplog.clear()
    grpc_server.fail_once(UPSERT[transport], Fault(200, pause=0.6), times=9)
    remote.add("demo", TEXTS, batch_size=4)
    assert 1 <= caplog.text.count("a request about collection 'demo' takes more than") <= 3
    caplog.clear()
    grpc_server.fail_once(QUERY[transport], Fault(200, pause=0.6))
    remote.query("demo", "cat")
    assert "a request about collection 'demo' has ended after 0." in caplog.text
