"""A hostile Qdrant server: each operation ends in a right answer or an error of ours."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from clients import KINDS, at, opened
from rest_server import Server, serving

from hostile import payloads, servers
from hostile.models import sound
from qdrant_embed.backoff import Backoff
from qdrant_embed.cli.main import main
from qdrant_embed.flows import requests


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for nothing."""
    monkeypatch.setattr(requests, "SOON", Backoff(first=0.0001, longest=0.001))
    monkeypatch.setattr(requests, "SETTLING", 0.02)


@pytest.fixture(scope="module", params=KINDS)
def server(request: pytest.FixtureRequest) -> Iterator[servers.Server]:
    with servers.hostile(request.param) as running:
        yield running


@pytest.mark.parametrize("collection", servers.COLLECTIONS)
@pytest.mark.parametrize("operation", servers.OPERATIONS)
def test_a_sound_server(server: servers.Server, operation: str, collection: str) -> None:
    server.change = lambda name, answer: answer
    assert servers.operate(server, operation, collection) == ""


_OK = {"status": "ok", "time": 0.0}
_RESULTS: list[Any] = [
    None,
    [],
    {},
    True,
    "x",
    -1,
    math.nan,
    [None],
    [[]],
    payloads.nested(900),
]
BODIES: dict[str, bytes] = {
    "empty": b"",
    "null": b"null",
    "a list": b"[]",
    "an object": b"{}",
    "not UTF-8": b"\xff\xfe",
    "deep": b"[" * 100_000,
    "deep objects": b'{"result":' * 100_000,
    "digits": b"9" * 5000,
    **{f"result {value!r:.20}": servers.dumped({"result": value, **_OK}) for value in _RESULTS},
}


def _of(fragment: str, change: Callable[[Any], Any]) -> servers.Change:
    """Change the results of requests whose names have this in them."""

    def changed(name: str, answer: Any) -> Any:
        if fragment in name:
            found = change(answer["result"])
            answer["result"] = answer["result"] if found is None else found
        return answer

    return changed


def _points(fragment: str, change: Callable[[Any], object]) -> servers.Change:
    """Change each point that requests with this in their names find."""

    def each(result: Any) -> None:
        for one in result if isinstance(result, list) else [result]:
            for point in one["points"] if isinstance(one, dict) and "points" in one else [one]:
                change(point)

    return _of(fragment, each)


def _set(**values: Any) -> Callable[[Any], None]:
    return lambda found: found.update(values)


def _config(change: Callable[[Any], object]) -> servers.Change:
    """Change what is said of a collection."""

    def changed(name: str, answer: Any) -> Any:
        if name.startswith("GET /collections/") and name.count("/") == 2:
            change(answer["result"])
        return answer

    return changed


def _vectors(**values: Any) -> Callable[[Any], None]:
    def change(info: Any) -> None:
        for params in info["config"]["params"]["vectors"].values():
            params.update(values)

    return change


def _with_metadata(metadata: dict[str, Any], info: Any) -> None:
    info["config"].update(metadata=metadata)


def _named(vector: Any) -> servers.Change:
    """Have another vector under the names of ours."""
    names = ("fast-letters", "fast-model", "fast-sparse-words")
    return _points(POINTS, _set(vector=dict.fromkeys(names, vector)))


QUERY, SCROLL, POINTS = "/points/query/batch", "/points/scroll", "/points"
CHANGES: dict[str, servers.Change] = {
    "fewer results": _of(QUERY, lambda found: found[:-1]),
    "more results": _of(QUERY, lambda found: found + found),
    "hits twice": _of(QUERY, lambda found: [{"points": one["points"] * 2} for one in found]),
    "hits without end": _of(
        QUERY, lambda found: [{"points": one["points"] * 200} for one in found]
    ),
    "no hits": _of(QUERY, lambda found: [{"points": []} for _ in found]),
    "scores None": _points(QUERY, _set(score=None)),
    "scores NaN": _points(QUERY, _set(score=math.nan)),
    "scores infinite": _points(QUERY, _set(score=math.inf)),
    "scores as text": _points(QUERY, _set(score="1")),
    "hits without payload": _points(QUERY, lambda point: point.pop("payload", None)),
    "payload null": _points(QUERY, _set(payload=None)),
    "payload a list": _points(QUERY, _set(payload=[1])),
    "payload deep": _points(
        "", lambda point: point.get("payload", {}).update(a=payloads.nested(300))
    ),
    "payload of surrogates": _points(
        "", lambda point: point.get("payload", {}).update(document="\ud800", a="\ud800")
    ),
    "ids of bool": _points(POINTS, _set(id=True)),
    "ids negative": _points(POINTS, _set(id=-1)),
    "ids of fractions": _points(POINTS, _set(id=1.5)),
    "ids huge": _points(POINTS, _set(id=2**70)),
    "ids of digits": _points(POINTS, _set(id="9" * 5000)),
    "ids null": _points(POINTS, _set(id=None)),
    "ids lists": _points(POINTS, _set(id=[1])),
    "ids alike": _points(POINTS, _set(id=7)),
    "other ids": _points(POINTS, lambda point: point.update(id=random.randrange(10**6, 10**7))),
    "vectors of text": _named(["x"]),
    "vectors nested": _named([[1.0], [2.0]]),
    "vectors of another size": _named([1.0]),
    "vectors of nothing": _named([None] * 26),
    "vectors sparse": _named({"indices": [1], "values": [1.0]}),
    "vectors unnamed": _points(POINTS, _set(vector=["x"])),
    "vectors under other names": _points(POINTS, _set(vector={"x": [1.0]})),
    "vectors null": _points(POINTS, _set(vector={"fast-letters": None})),
    "vectors of NaN": _points(POINTS, _set(vector=[math.nan] * 26)),
    "the same page": _of(SCROLL, _set(next_page_offset=1)),
    "a page before": _of(SCROLL, _set(next_page_offset=0)),
    "no points, and more": _of(SCROLL, _set(points=[], next_page_offset=10**6)),
    "offset a list": _of(SCROLL, _set(next_page_offset=[1])),
    "offset negative": _of(SCROLL, _set(next_page_offset=-5)),
    "pages without end": _of(SCROLL, lambda found: found.update(points=found["points"] * 1000)),
    "count negative": _of("/count", _set(count=-1)),
    "count null": _of("/count", _set(count=None)),
    "count huge": _of("/count", _set(count=10**30)),
    "points negative": _config(_set(points_count=-1)),
    "points null": _config(_set(points_count=None)),
    "config null": _config(_set(config=None)),
    "no config": _config(lambda info: info.pop("config")),
    "vectors null ": _config(lambda info: info["config"]["params"].update(vectors=None)),
    "vectors empty": _config(lambda info: info["config"]["params"].update(vectors={})),
    "sizes 0": _config(_vectors(size=0)),
    "sizes 10**9": _config(_vectors(size=10**9)),
    "sizes 2**70": _config(_vectors(size=2**70)),
    "distance odd": _config(_vectors(distance="Odd")),
    "several vectors a point": _config(_vectors(multivector_config={"comparator": "max_sim"})),
    "indexes odd": _config(_set(payload_schema={"a": None, "b": {"data_type": "x"}})),
    "custom sharding": _config(
        lambda info: info["config"]["params"].update(sharding_method="custom")
    ),
    "copies negative": _config(
        lambda info: info["config"]["params"].update(
            replication_factor=-3, write_consistency_factor=-9
        )
    ),
    "aliases that loop": _of(
        "/aliases",
        lambda found: (
            {
                "aliases": [
                    {"alias_name": "plain", "collection_name": "alias"},
                    {"alias_name": "alias", "collection_name": "plain"},
                ]
            }
            if isinstance(found, dict)
            else None
        ),
    ),
    "collections with odd names": lambda name, answer: (
        {**answer, "result": {"collections": [{"name": "../x"}, {"name": ""}, {"name": "plain"}]}}
        if name == "GET /collections"
        else answer
    ),
}
_STAMPS: dict[str, Any] = {
    "null": None,
    "a list": [],
    "text": "x",
    "empty": {},
    "deep": payloads.nested(300),
    "of a newer version": {"version": 2, "model": "m", "dimension": 26, "vector_name": "x"},
    "of numbers": dict.fromkeys(("model", "vector_name", "query_prefix", "overflow"), 1),
    "of another model": {"model": "../../x", "dimension": -1, "vector_name": "", "overlap": -5},
    "of sparse numbers": {"model": "m", "dimension": 26, "vector_name": "x", "sparse": [1]},
}
CHANGES |= {
    f"{key} {name}": _config(partial(_with_metadata, {key: stamp}))
    for key in ("qdrant_embed", "qdrant_embed_copy")
    for name, stamp in _STAMPS.items()
}


def _late(body: bytes, first: int) -> servers.Change:
    """Answer so from a request on."""
    count = -1

    def change(name: str, answer: Any) -> Any:
        nonlocal count
        count += 1
        return answer if count < first else body

    return change


def _where_it_fits(change: servers.Change) -> servers.Change:
    def changed(name: str, answer: Any) -> Any:
        try:
            return change(name, answer)
        except (KeyError, TypeError, AttributeError, ValueError):
            return answer  # of another form

    return changed


ATTACKS: dict[str, Callable[[], servers.Change]] = {
    **{
        f"{what}, from {first} on": partial(_late, body, first)
        for what, body in BODIES.items()
        for first in (0, 1, 3)
    },
    **{what: partial(_where_it_fits, change) for what, change in CHANGES.items()},
}


def attack(server: servers.Server, collection: str, every: int) -> None:
    """Try each attack on each operation, or on every so many of them."""
    number = 0
    for what, change in ATTACKS.items():
        for operation in servers.OPERATIONS:
            number += 1
            if number % every:
                continue
            server.change = change()
            try:
                servers.operate(server, operation, collection)
            except Exception as error:
                raise AssertionError(f"{operation}, {what}") from error


@pytest.mark.parametrize("collection", servers.COLLECTIONS)
def test_some_attacks(server: servers.Server, collection: str) -> None:
    attack(server, collection, 67)


@pytest.mark.slow
@pytest.mark.parametrize("collection", servers.COLLECTIONS)
def test_every_attack(server: servers.Server, collection: str) -> None:
    attack(server, collection, 1)


@pytest.mark.parametrize(
    ("what", "operation", "said"),
    [
        ("fewer results", "batch", "asked for 2 queries, and the answer has 1 results"),
        ("hits without end", "query", "points at most, and the answer has"),
        ("scores NaN", "query", "the score nan for point"),
        ("vectors of text", "query", "embedding.* cannot be used|is not Qdrant"),
        ("the same page", "scroll", "and that the next ones begin at 1"),
        ("no points, and more", "migrate", "the next ones begin at 1000000"),
        ("other ids", "get", "4 points by their ids, and the answer has another one"),
        ("count negative", "migrate", "asked for the number of points, and the answer has -1"),
        ("payload deep", "get", "has more than 200 levels"),
        ("count null", "copy", "is not Qdrant, or of a version"),
    ],
)
def test_what_is_said(server: servers.Server, what: str, operation: str, said: str) -> None:
    server.change = CHANGES[what]
    found = servers.operate(server, operation, "plain")
    assert found.startswith("ServerRefusal: ")
    assert re.search(said, found), found


@pytest.mark.parametrize("kind", KINDS)
def test_messages_over_grpc(kind: str) -> None:
    """Fields of every message on its way are emptied, doubled, or set to odd values."""
    chosen = random.Random(7)
    with servers.hostile(kind, grpc=True) as server:
        server.change = lambda name, message: servers.spoil(message, chosen)
        for operation in servers.OPERATIONS:
            for collection in servers.COLLECTIONS:
                servers.operate(server, operation, collection)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("score", math.nan, "the score nan for point"),
        ("id", None, "is not Qdrant, or of a version that this qdrant-client cannot read"),
    ],
)
def test_what_is_said_over_grpc(field: str, value: Any, said: str) -> None:
    def change(name: str, message: Any) -> Any:
        if name == "Points/QueryBatch":
            for result in message.result:
                for hit in result.result:
                    hit.ClearField(field) if value is None else setattr(hit, field, value)
        return message

    with servers.hostile(grpc=True) as server:
        server.change = change
        assert re.search(f"ServerRefusal: .*{said}", servers.operate(server, "query", "plain"))


@pytest.fixture
def rest_server() -> Iterator[Server]:
    with serving() as running:
        yield running


@pytest.mark.slow
def test_the_command(
    tmp_path: Path, rest_server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever comes instead of an answer, the command ends with a line about it."""
    folder = str(sound("static", tmp_path / "model"))
    with opened("sync", **at(rest_server)) as client:
        client.set_model(folder)
        client.add("demo", servers.DOCUMENTS, servers.METADATA)
    file = tmp_path / "a.txt"
    file.write_text("one\ntwo\n")
    place = ["--url", rest_server.url, "--collection", "demo"]
    other = ["--to-path", str(tmp_path / "copy")]
    commands = [
        ["query", *place, "--model", folder, "cat", "--where", '{"n": "2"}', "--json"],
        ["add", *place, "--model", folder, str(file), "--quiet"],
        ["migrate", *place, "--model", folder, "--to", "new", "--quiet"],
        ["copy", "--url", rest_server.url, *other, "--quiet"],
    ]
    number = 0
    for what, body in BODIES.items():
        for command in commands:
            for first in (0, 1, 2):
                number += 1
                if number % 5:  # the flows behind it were tried with all of them
                    continue
                rest_server.change = _late(body, first)
                try:
                    code = main(command)
                except Exception as error:
                    raise AssertionError(f"{command[0]}, {what}, from {first} on") from error
                said = capsys.readouterr().err
                assert code in (0, 1)
                assert "Traceback" not in said
                assert code == 0 or "qdrant-embed: " in said
