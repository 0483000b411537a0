"""Processes that are killed while they use an embedded database: it opens, and all is there."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from qdrant_client import models

from qdrant_embed import QdrantClient

pytest.importorskip("qdrant_edge")

TESTS = Path(__file__).parents[1]
SETUP = "import sys; sys.path.append('engines'); import test_edge_kills as t"
SIZE, POINTS = 16, 1500


def point(number: int, change: int) -> models.PointStruct:
    vector = [float((number * 7 + change * 3 + place) % 11 + 1) for place in range(SIZE)]
    return models.PointStruct(id=number, vector=vector, payload={"change": change})


def changed(client: QdrantClient, change: int) -> None:
    """Make one of a row of changes: some points are stored, or others are deleted."""
    first = change * 37 % POINTS
    if change % 3 == 2:
        client.delete("demo", [(first + each) % POINTS for each in range(0, 9, 2)])
    else:
        client.upsert("demo", [point((first + each) % POINTS, change) for each in range(7)])


def after(changes: int) -> dict[int, int]:
    """The points that are there after so many changes, and the one that each is from."""
    points = dict.fromkeys(range(POINTS), -1)
    for change in range(changes):
        first = change * 37 % POINTS
        if change % 3 == 2:
            for each in range(0, 9, 2):
                points.pop((first + each) % POINTS, None)
        else:
            points |= {(first + each) % POINTS: change for each in range(7)}
    return points


def made(path: str) -> None:
    client = QdrantClient(path=path, engine="edge", optimize=False)
    client.create_collection(
        "demo",
        models.VectorParams(size=SIZE, distance=models.Distance.EUCLID),
        optimizers_config=models.OptimizersConfigDiff(indexing_threshold=1),
    )
    client.create_payload_index("demo", "change", models.PayloadSchemaType.INTEGER)
    client.upsert("demo", [point(number, -1) for number in range(POINTS)])
    client.close()


def tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def storing(path: str, *, for_good: bool = True) -> None:
    client = QdrantClient(path=path, optimize=False)
    change = 0
    while for_good or change < 60:
        changed(client, change)
        change += 1
        tell("changed")
    tell("now")
    client.close()
    tell("end")


def closing(path: str) -> None:
    storing(path, for_good=False)


def indexing(path: str) -> None:
    client = QdrantClient(path=path, optimize=False)

    def change() -> None:
        for number in range(10**6):
            changed(client, number)
            tell("changed")
            time.sleep(0.005)

    threading.Thread(target=change, daemon=True).start()
    database: Any = client._client
    database.optimize("demo", tell)
    tell("end")
    time.sleep(60)


@contextmanager
def killed(scenario: str, path: Path, marker: str, wait: float) -> Iterator[list[str]]:
    """Kill a process some time after it has written a line; yield all its lines."""
    command = [sys.executable, "-c", f"{SETUP}; t.{scenario}(sys.argv[1])", str(path)]
    lines: list[str] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=TESTS) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line.strip())
            if lines[-1] == marker:
                break
        time.sleep(wait)
        process.kill()
        lines += [line.strip() for line in process.stdout]
    yield lines


def check(path: Path, lines: list[str]) -> int:
    """Check what a killed process left; return the number of vectors that are indexed."""
    done = lines.count("changed")
    client = QdrantClient(path=str(path), optimize=False)
    try:
        assert sorted(file.name for file in path.iterdir()) == [
            ".lock",
            "collections",
            "qdrant_embed.json",
        ]
        assert len(list((path / "collections").iterdir())) == 1
        records, _ = client.scroll("demo", limit=2 * POINTS, with_vectors=True)
        stored = {record.id: (record.payload or {})["change"] for record in records}
        assert len(records) == len(stored) == client.count("demo").count
        assert stored in (after(done), after(done + 1))
        for record in records:
            assert record.vector == point(int(record.id), stored[record.id]).vector
        wanted = records[len(records) // 2]
        vector: Any = wanted.vector
        nearest = client.query_points("demo", query=vector, limit=1, with_vectors=True).points[0]
        assert nearest.vector == wanted.vector
        change = models.FieldCondition(key="change", match=models.MatchValue(value=-1))
        found = client.count("demo", models.Filter(must=[change])).count
        assert found == sum(value == -1 for value in stored.values())
        return client.get_collection("demo").indexed_vectors_count or 0
    finally:
        client.close()


def builders(path: Path) -> list[int]:
    """Processes that build an index in a folder."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes()
        except OSError:  # it ended meanwhile
            continue
        if os.fsencode(path) in command and b"builder.py" in command:
            found.append(int(folder.name))
    return found


@pytest.fixture
def moments(request: pytest.FixtureRequest) -> Iterator[tuple[int, random.Random]]:
    chance = random.Random(19)
    return ((kill, chance) for kill in range(request.config.getoption("--kills")))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("doing", "said", "longest"), [("storing", "changed", 0.5), ("closing", "now", 0.15)]
)
def test_killed_while_points_are_stored_or_it_is_closed(
    tmp_path: Path,
    moments: Iterator[tuple[int, random.Random]],
    doing: str,
    said: str,
    longest: float,
) -> None:
    for kill, chance in moments:
        path = tmp_path / str(kill)
        made(str(path))
        with killed(doing, path, said, chance.uniform(0, longest)) as lines:
            assert check(path, lines) == 0


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="processes are listed by /proc")
@pytest.mark.parametrize(
    ("step", "longest"), [("copying", 0.1), ("indexing", 0.8), ("exchanging", 0.15)]
)
def test_killed_while_an_index_is_built(
    tmp_path: Path, moments: Iterator[tuple[int, random.Random]], step: str, longest: float
) -> None:
    for kill, chance in moments:
        path = tmp_path / str(kill)
        made(str(path))
        with killed("indexing", path, step, chance.uniform(0, longest)) as lines:
            deadline = time.monotonic() + 10
            while builders(path):  # they end with it
                assert time.monotonic() < deadline
                time.sleep(0.01)
            indexed = check(path, lines)
            # whole or absent; what has changed since is not in it
            assert indexed == 0 or indexed > POINTS // 2
            if "end" in lines:
                assert indexed
