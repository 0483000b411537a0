"""What works after the main thread has ended, or in `atexit`, where no thread starts any more."""

from __future__ import annotations

from pathlib import Path

import pytest
from processes import run
from tiny import TinyModel

SCRIPT = """
import asyncio, atexit, sys, threading, time
from qdrant_embed import AsyncQdrantClient, QdrantClient, TextEmbedding

TEXTS = ["cat " * (number % 20) + "dog" for number in range(60)]

def add():
    client = QdrantClient(":memory:")
    client.set_model(sys.argv[1])
    client.set_sparse_model("Qdrant/bm25")
    assert len(client.add("a", TEXTS)) == 60
    assert client.query("a", "dog")[0].score > 0
    print("added")

async def add_asynchronously():
    client = AsyncQdrantClient(":memory:")
    client.set_model(sys.argv[1])
    assert len(await client.add("a", TEXTS)) == 60
    assert (await client.query("a", "dog"))[0].score > 0
    await client.close()
    print("added")

def embed():
    encoder = TextEmbedding(sys.argv[1], cache_dir=sys.argv[2], threads=2)  # and compile it
    assert len(list(encoder.embed(TEXTS, batch_size=25))) == 60
    print("added")

work = {"add": add, "async": lambda: asyncio.run(add_asynchronously()), "embed": embed}[sys.argv[3]]
"""
IN_ATEXIT = "atexit.register(work)"
IN_THREAD = """
def late():
    threading.main_thread().join()
    time.sleep(0.1)
    work()

threading.Thread(target=late).start()
"""
ACROSS = """
from qdrant_embed.encoder.run import batching

def slowly():
    encoder = TextEmbedding(sys.argv[1], threads=2)
    texts = (time.sleep(0.01) or text for text in TEXTS)
    assert len(list(encoder.embed(texts, batch_size=10))) == 60
    print("added")

threading.Thread(target=slowly).start()
"""


@pytest.mark.parametrize("when", [IN_ATEXIT, IN_THREAD], ids=["atexit", "thread"])
@pytest.mark.parametrize("what", ["add", "async", "embed"])
def test_the_end_of_the_main_thread_ends_no_add(
    tiny: TinyModel, tmp_path: Path, what: str, when: str
) -> None:
    assert run(SCRIPT + when, tiny.path, tmp_path / "cache", what) == "added\n"


def test_what_runs_while_the_main_thread_ends_goes_on(tiny: TinyModel, tmp_path: Path) -> None:
    assert run(SCRIPT + ACROSS, tiny.path, tmp_path, "embed") == "added\n"
