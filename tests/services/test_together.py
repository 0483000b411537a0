"""Requests that are alike, asked together."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from itertools import chain
from typing import Any

import pytest

from qdrant_embed import AsyncQdrantClient, InputError, TextEmbedding
from qdrant_embed.serve.batching import MOST_TOGETHER, Together
from qdrant_embed.serve.database import Collections, NewCollections

Ask = Callable[[list[int]], Awaitable[list[int]]]


class Doubling:
    """Doubles numbers, all of one call at a time, and remembers the calls."""

    def __init__(self, wrong: int | None = None, error: type[Exception] = InputError) -> None:
        self.calls: list[list[int]] = []
        self._wrong, self._error = wrong, error

    async def __call__(self, numbers: list[int]) -> list[int]:
        self.calls.append(numbers)
        await asyncio.sleep(0.001)
        if self._wrong in numbers:
            raise self._error("no")
        return [2 * number for number in numbers]


def ask_all(ask: Ask, count: int, asked: int = 1, key: Callable[[int], int] = lambda _: 0) -> Any:
    """Ask for numbers up to `count` at the same time; return the results, errors among them."""

    async def run() -> list[int | BaseException]:
        together = Together[int, int]()
        found = await asyncio.gather(
            *(together.result(key(number), number, ask, asked) for number in range(count)),
            return_exceptions=True,
        )
        assert not together._alike  # nothing is kept
        return found

    return asyncio.run(run())


@pytest.mark.parametrize("asked", [1, 3])
@pytest.mark.parametrize("count", [0, 1, 5, 5 * MOST_TOGETHER])
def test_each_has_its_own_result(count: int, asked: int) -> None:
    ask = Doubling()
    assert ask_all(ask, count, asked) == [2 * number for number in range(count)]
    assert sorted(chain.from_iterable(ask.calls)) == list(range(count))
    assert all(len(call) <= MOST_TOGETHER for call in ask.calls)
    assert len(ask.calls) <= count // MOST_TOGETHER + asked + 1


def test_what_is_not_alike_is_asked_apart() -> None:
    ask = Doubling()
    ask_all(ask, 20, key=lambda number: number % 2)
    assert all(len({number % 2 for number in call}) == 1 for call in ask.calls)


def test_what_cannot_be_used_is_refused_alone() -> None:
    found = ask_all(Doubling(wrong=7), 20)
    assert isinstance(found.pop(7), InputError)
    assert found == [2 * number for number in range(20) if number != 7]


def test_another_error_is_that_of_all_that_were_asked_together() -> None:
    ask = Doubling(wrong=7, error=OSError)
    found = ask_all(ask, 20)
    (failed,) = [call for call in ask.calls if 7 in call]
    assert [isinstance(result, OSError) for result in found] == [n in failed for n in range(20)]


def test_who_is_gone_is_not_asked_for() -> None:
    ask = Doubling()

    async def run() -> None:
        together = Together[int, int]()
        tasks = [asyncio.create_task(together.result(0, number, ask)) for number in range(4)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        tasks[2].cancel()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert found[1::2] == [2, 6]

    asyncio.run(run())
    assert ask.calls == [[1, 3]]


class Counting(AsyncQdrantClient):
    """A client that counts its requests."""

    requests = 0

    async def query_batch_points(self, *arguments: Any, **options: Any) -> Any:
        Counting.requests += 1
        return await super().query_batch_points(*arguments, **options)


def test_searches_of_one_moment_find_what_each_alone_does(embedding: TextEmbedding) -> None:
    texts = [f"the {'cat ' * (number % 7)}sat {number}" for number in range(40)]

    async def run() -> None:
        client = Counting(":memory:")
        collections = Collections(client, NewCollections(embedding))
        client.set_model(embedding)
        await client.add("notes", texts, ids=range(40))
        expected = [await client.query("notes", text, limit=3) for text in texts]
        Counting.requests = 0
        asked = [collections.query("notes", text, limit=3) for text in texts]
        empty = collections.query("notes", " ", limit=3)
        more = collections.query("notes", texts[0], limit=2)
        *found, refused, fewer = await asyncio.gather(*asked, empty, more, return_exceptions=True)
        for hits, alone in zip(found, expected, strict=True):
            assert isinstance(hits, list)
            assert [hit.id for hit in hits] == [hit.id for hit in alone]
            assert [hit.score for hit in hits] == pytest.approx([hit.score for hit in alone])
        assert Counting.requests < 10
        assert isinstance(refused, InputError)
        assert isinstance(fewer, list)
        assert len(fewer) == 2

    asyncio.run(run())
