"""What the asynchronous client owes its event loop, and what a cancelled `add` tells."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clients import LetterEncoder, WordEncoder, run, same
from numpy.typing import NDArray
from tiny import TinyModel

from qdrant_embed import (
    AsyncQdrantClient,
    AsyncQdrantEmbedMixin,
    EncoderDescription,
    IngestError,
    InputError,
    SparseVector,
)


class Meeting:
    """Holds whoever computes until the event loop has gone round, which it must be free to do."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.met: list[str] = []

    def wait(self, who: str) -> None:
        assert threading.current_thread() is not threading.main_thread(), f"{who} is on the loop"
        gone_round = threading.Event()
        self.loop.call_soon_threadsafe(gone_round.set)
        assert gone_round.wait(30), f"{who} blocks the loop"
        self.met.append(who)


class MeetingEncoder(LetterEncoder):
    """Encodes once the loop has gone round."""

    def __init__(self, meeting: Meeting) -> None:
        self.meeting = meeting

    def describe(self) -> EncoderDescription:
        assert threading.current_thread() is not threading.main_thread()  # models are read here
        return EncoderDescription(model=self.model_name, dimension=self.dimension)

    def passage_embed(self, texts: Iterable[str], /) -> Iterable[NDArray[np.float32]]:
        self.meeting.wait("documents")
        return super().passage_embed(texts)

    def query_embed(self, query: Iterable[str], /) -> Iterable[NDArray[np.float32]]:
        self.meeting.wait("query")
        return super().passage_embed(query)


class MeetingWords(WordEncoder):
    """The same with sparse vectors."""

    def __init__(self, meeting: Meeting) -> None:
        super().__init__()
        self.meeting = meeting

    def passage_embed(self, texts: Iterable[str], /) -> list[SparseVector]:
        self.meeting.wait("sparse documents")
        return super().passage_embed(texts)

    def query_embed(self, query: Iterable[str], /) -> list[SparseVector]:
        self.meeting.wait("sparse query")
        return super().query_embed(query)


class MeetingReranker:
    """Scores once the loop has gone round."""

    def __init__(self, meeting: Meeting) -> None:
        self.meeting = meeting

    def rerank(self, query: str, documents: Sequence[str], /) -> list[float]:
        self.meeting.wait("reranker")
        return [1.0] * len(documents)


@pytest.mark.slow
def test_everything_that_computes_or_reads_does_it_off_the_loop(tmp_path: Path) -> None:
    async def program() -> None:
        meeting = Meeting()

        def texts() -> Iterator[str]:
            for n in range(1030):  # two windows
                if n % 1000 == 0:
                    meeting.wait("iterable")
                yield f"text {n}"

        client = AsyncQdrantClient(path=str(tmp_path))
        client.set_model(MeetingEncoder(meeting))
        client.set_sparse_model(MeetingWords(meeting))
        await client.add("demo", texts())
        await client.query("demo", "text", reranker=MeetingReranker(meeting))
        await client.close()
        assert sorted(meeting.met) == sorted(
            ["iterable", "documents", "sparse documents"] * 2
            + ["query", "sparse query", "reranker"]
        )

    run(program())


def test_the_loop_goes_on_while_a_local_database_writes(tiny: TinyModel, tmp_path: Path) -> None:
    """A task that runs whenever it may must get its turns between the requests of an `add`."""

    async def program() -> None:
        turns = 0

        class Counting(AsyncQdrantEmbedMixin):
            async def upsert(self, *args: Any, **kwargs: Any) -> Any:
                assert threading.current_thread() is not threading.main_thread()
                before = turns
                while turns == before:  # forever, were this on the loop
                    await asyncio.sleep(0.001)
                return await super().upsert(*args, **kwargs)

        async def turning() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        client = Counting(path=str(tmp_path), engine="local")
        client.set_model(tiny.path)
        task = asyncio.create_task(turning())
        await client.add("demo", [f"cat {n}" for n in range(70)])
        task.cancel()
        assert turns >= 3
        await client.close()

    run(program())


@pytest.mark.slow
def test_tasks_share_one_client_and_its_encoder(tiny: TinyModel) -> None:
    texts = [f"{word} {n}" for n in range(20) for word in ("cat", "dog", "ship")]

    async def program() -> None:
        client = AsyncQdrantClient(":memory:")
        client.set_model(tiny.path)
        client.set_sparse_model("Qdrant/bm25")
        await client.add("demo", texts)
        serial = {text: await client.query("demo", text, limit=3) for text in texts}
        asked = texts * 4
        tasks = [client.query("demo", text, limit=3) for text in asked]
        adding = [client.add("other", texts[:10]) for _ in range(4)]
        answers = await asyncio.gather(*tasks)
        stored = await asyncio.gather(*adding)
        for text, answer in zip(asked, answers, strict=True):
            assert same(answer, serial[text])
        assert len({i for ids in stored for i in ids}) == 40
        assert (await client.count("other")).count == 40
        await client.close()

    run(program())


@pytest.mark.parametrize("length", [0, 1, 1024, 2050])
def test_asynchronous_iterables_are_read_on_the_loop(tiny: TinyModel, length: int) -> None:
    async def program() -> None:
        async def numbers() -> AsyncIterator[int]:
            for n in range(length):
                assert threading.current_thread() is threading.main_thread()
                yield n

        async def texts() -> AsyncIterator[str]:
            async for n in numbers():
                yield f"text {n}"

        client = AsyncQdrantClient(":memory:")
        client.set_model(LetterEncoder())
        metadata = ({"n": n} for n in range(length))
        ids = await client.add("demo", texts(), metadata, numbers(), batch_size=500)
        assert ids == list(range(length))
        if length:
            points, _ = await client.scroll("demo", limit=3000)
            assert [point.payload for point in points] == [
                {"document": f"text {n}", "n": n} for n in range(length)
            ]
        with pytest.raises(InputError, match=f"documents ended after {length} items"):
            await client.add("other", texts(), ids=range(length + 1))
        assert not await client.collection_exists("other")
        await client.close()

    if length <= 1024:  # one window, which is stored when the next has been read
        run(program())
        return
    with pytest.raises(IngestError, match=f"documents ended after {length} items"):
        run(program())
