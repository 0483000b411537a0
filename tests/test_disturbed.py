"""What is stored in the end when processes are killed and servers fail: all, right, and once."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import qdrant_client
from clients import KINDS, LetterEncoder, at, opened
from hypothesis import given, settings
from hypothesis import strategies as st
from rest_server import Fault, serving

from qdrant_embed import QdrantClient, retries

TEXTS = [f"cat {n} {'abcdefgh'[n % 8] * n}" for n in range(150)]
METADATA = [{"n": n} for n in range(150)]


class Telling(QdrantClient):
    """Writes a line before every batch."""

    def upsert(self, *args: Any, **kwargs: Any) -> Any:
        sys.stdout.write("batch\n")
        sys.stdout.flush()
        return super().upsert(*args, **kwargs)


def ingest(path: str) -> None:
    """An `add` of 19 batches, run in a process of its own, too."""
    client = Telling(path=path)
    client.set_model(LetterEncoder())
    client.add("demo", TEXTS, METADATA, "content", batch_size=8, on_existing="skip")
    client.close()


def state(client: qdrant_client.QdrantClient) -> dict[Any, Any]:
    """Payloads and vectors by id."""
    points, _ = client.scroll("demo", limit=1000, with_vectors=True)
    return {point.id: (point.payload, point.vector) for point in points}


def test_a_killed_process_leaves_what_a_re_run_completes(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    ingest(str(tmp_path / "undisturbed"))
    client = QdrantClient(path=str(tmp_path / "undisturbed"))
    expected = state(client)
    client.close()
    assert len(expected) == 150
    moments = random.Random(6)
    for kill in range(request.config.getoption("--kills")):
        folder = str(tmp_path / f"killed-{kill}")
        command = [sys.executable, "-c", "import sys, test_disturbed as t; t.ingest(sys.argv[1])"]
        with subprocess.Popen(
            [*command, folder], stdout=subprocess.PIPE, cwd=Path(__file__).parent
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
        ingest(folder)
        client = QdrantClient(path=folder)
        assert state(client) == expected
        client.close()


faults = st.none() | st.builds(
    Fault, st.sampled_from([0, 408, 429, 500, 502, 503, 504]), after_commit=st.booleans()
)


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
        patch.setattr(retries, "_LONGEST_WAIT", 0.002)
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
