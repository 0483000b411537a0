"""What is stored in the end when processes are killed and servers fail: all, right, and once."""

from __future__ import annotations

import logging
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import qdrant_client
from clients import KINDS, LetterEncoder, at, opened, stored
from hypothesis import given, settings
from hypothesis import strategies as st
from rest_server import Fault, serving
from tiny import TinyModel

from qdrant_embed import QdrantClient
from qdrant_embed.backoff import Backoff
from qdrant_embed.flows import requests

TESTS = Path(__file__).parents[1]
SETUP = "import sys; sys.path.append('engines'); import test_disturbed as t"
TEXTS = [f"cat {n} {'abcdefgh'[n % 8] * n}" for n in range(150)]
METADATA = [{"n": n} for n in range(150)]


class Telling(QdrantClient):
    """Writes a line before every batch."""

    def upsert(self, *args: Any, **kwargs: Any) -> Any:
        sys.stdout.write("batch\n")
        sys.stdout.flush()
        return super().upsert(*args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> Any:
        sys.stdout.write("batch\n")
        sys.stdout.flush()
        return super().delete(*args, **kwargs)


def ingest(path: str, engine: str) -> None:
    """An `add` of 19 batches, run in a process of its own, too."""
    client = Telling(path=path, engine=engine)
    client.set_model(LetterEncoder())
    client.add("demo", TEXTS, METADATA, "content", batch_size=8, on_existing="skip")
    client.close()


def replace(path: str, engine: str, model: str, sentences: str) -> None:
    """Six long documents stored in chunks, over what is there of them."""
    client = Telling(path=path, engine=engine)
    client.set_model(model, overflow="chunk")
    texts = ["the cat sat on the ship. " * int(sentences) + f"{n}" for n in range(6)]
    client.add("demo", texts, ids=range(6), batch_size=4, on_existing="skip")
    client.close()


def state(client: qdrant_client.QdrantClient) -> dict[Any, Any]:
    """Payloads and vectors by id."""
    points, _ = client.scroll("demo", limit=1000, with_vectors=True)
    return {point.id: (point.payload, point.vector) for point in points}


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["local", "edge"])
def test_a_killed_process_leaves_what_a_re_run_completes(
    tmp_path: Path, request: pytest.FixtureRequest, engine: str
) -> None:
    ingest(str(tmp_path / "undisturbed"), engine)
    client = QdrantClient(path=str(tmp_path / "undisturbed"))
    expected = state(client)
    client.close()
    assert len(expected) == 150
    moments = random.Random(6)
    for kill in range(request.config.getoption("--kills")):
        folder = str(tmp_path / f"killed-{kill}")
        command = [
            sys.executable,
            "-c",
            f"{SETUP}; t.ingest(*sys.argv[1:])",
        ]
        with subprocess.Popen(
            [*command, folder, engine], stdout=subprocess.PIPE, cwd=TESTS
        ) as process:
            assert process.stdout is not None
            for _ in range(moments.randint(1, 19)):
                assert process.stdout.readline() == b"batch\n"
            time.sleep(moments.uniform(0, 0.02))
            process.kill()
        client = QdrantClient(path=folder)  # it opens
        left = state(client) if client.collection_exists("demo") else {}
        client.close()
        assert all(expected[point] == stored for point, stored in left.items())
        ingest(folder, engine)
        client = QdrantClient(path=folder)
        assert state(client) == expected
        client.close()


@pytest.mark.parametrize("engine", ["local", "edge"])
def test_killed_while_documents_became_shorter_nothing_is_lost_and_nothing_stays(
    tmp_path: Path, tiny: TinyModel, request: pytest.FixtureRequest, engine: str
) -> None:
    replace(str(tmp_path / "undisturbed"), engine, str(tiny.path), "9")
    expected = payloads(tmp_path / "undisturbed")
    replace(str(tmp_path / "before"), engine, str(tiny.path), "60")
    before = payloads(tmp_path / "before")
    assert len(before) > len(expected)
    moments = random.Random(7)
    for kill in range(request.config.getoption("--kills")):
        folder = tmp_path / f"killed-{kill}"
        shutil.copytree(tmp_path / "before", folder)
        call = f"{SETUP}; t.replace(*sys.argv[1:])"
        with subprocess.Popen(
            [sys.executable, "-c", call, str(folder), engine, str(tiny.path), "9"],
            stdout=subprocess.PIPE,
            cwd=TESTS,
        ) as process:
            assert process.stdout is not None
            for _ in range(moments.randint(1, 5)):
                assert process.stdout.readline() == b"batch\n"
            time.sleep(moments.uniform(0, 0.02))
            process.kill()
        left = payloads(folder)
        assert {payload["qdrant_embed_id"] for payload in left.values()} == set(range(6))
        assert all(left[point] in (before.get(point), expected.get(point)) for point in left)
        replace(str(folder), engine, str(tiny.path), "9")
        assert payloads(folder) == expected


def payloads(folder: Path) -> dict[Any, dict[str, Any]]:
    client = QdrantClient(path=str(folder))
    try:
        return stored(client)
    finally:
        client.close()


faults = st.none() | st.builds(
    Fault, st.sampled_from([0, 408, 429, 500, 502, 503, 504]), after_commit=st.booleans()
)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=10, deadline=None)
@given(
    schedule=st.lists(faults, max_size=30),
    largest=st.none() | st.integers(3_000, 20_000),
    batch_size=st.integers(1, 50),
)
def test_whatever_the_server_does_all_is_stored_once(
    kind: str, schedule: list[Fault | None], largest: int | None, batch_size: int
) -> None:
    with (
        serving() as server,
        opened(kind, **at(server)) as client,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(requests, "BACKOFF", Backoff(0.002, 0.002))
        client.set_model(LetterEncoder())
        coming = iter(schedule)
        server.fault = lambda _: next(coming, None)
        server.largest = largest
        ids = client.add(
            "demo", TEXTS[:60], METADATA[:60], batch_size=batch_size, max_retries=len(schedule)
        )
        points, _ = server.database.scroll("demo", limit=1000, with_vectors=True)
        assert len(points) == len(set(ids)) == 60
        found = {point.id: point.payload for point in points}
        for i, text, metadata in zip(ids, TEXTS[:60], METADATA[:60], strict=True):
            assert found[i] == {"document": text, **metadata}


UPSERT = "PUT /collections/demo/points"
TIMEOUT = 1  # second, of the client
EVERY_KIND = [
    Fault(0),
    Fault(0, after_commit=True),
    Fault(429, headers=(("Retry-After", "0"),)),
    Fault(500),
    Fault(503, after_commit=True),
    Fault(0, pause=1.5 * TIMEOUT),
    Fault(0, pause=1.5 * TIMEOUT, after_commit=True),  # stored when nobody waits any more
    Fault(200, after_commit=True, drip=0.05 * TIMEOUT),
    Fault(413),
]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_fault_at_5_percent_each(
    kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = request.config.getoption("--documents")
    texts = [f"text {n} {'abcdefgh'[n % 8] * (n % 50)}" for n in range(count)]
    encoder, chance = LetterEncoder(), random.Random(5)
    done = Counter[Fault]()

    def fault(asked: str) -> Fault | None:
        kinds = chance.choices([*EVERY_KIND, None], [5] * len(EVERY_KIND) + [55])
        if kinds == [Fault(413)] and asked != UPSERT:  # nothing else is large
            return None
        done.update(fault for fault in kinds if fault is not None)
        return kinds[0]

    monkeypatch.setattr(requests, "BACKOFF", Backoff(0.002, 0.002))
    with serving() as server, opened(kind, **at(server) | {"timeout": TIMEOUT}) as client:
        client.set_model(encoder)
        server.fault = fault
        # more than the faults need: a busy machine lets requests time out by itself
        ids = client.add("demo", iter(texts), max_retries=300)
        points, _ = server.database.scroll("demo", limit=2 * count, with_vectors=True)
    assert len(done) == len(EVERY_KIND) or count < 2000
    logging.info("%d requests, of which failed %s", len(server.requests), list(done.values()))
    assert len(points) == len(ids) == len(set(ids)) == count
    expected = np.asarray(encoder.passage_embed(texts))
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    found: dict[Any, tuple[Any, Any]] = {
        point.id: (point.payload, point.vector) for point in points
    }
    for i, text, vector in zip(ids, texts, expected, strict=True):
        payload, vectors = found[i]
        assert payload == {"document": text}
        np.testing.assert_allclose(vectors["fast-letters"], vector, atol=1e-5)
