"""Items of many requests computed together, each answered with its own."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qdrant_embed.serve.batching import MOST_CHARACTERS, MOST_ITEMS, Lane

Sizes = st.lists(st.lists(st.integers(0, 2 * MOST_CHARACTERS), max_size=40), max_size=20)


@given(Sizes)
def test_every_item_has_its_own_result(requests: list[list[int]]) -> None:
    batches: list[int] = []
    with ThreadPoolExecutor(2) as pool:
        lane: Lane[tuple[int, int], tuple[int, int]] = Lane(
            list, lambda item: item[1], pool, batches.append
        )

        async def run() -> list[list[tuple[int, int]]]:
            return await asyncio.gather(
                *(
                    lane.results([(number, size) for size in sizes])
                    for number, sizes in enumerate(requests)
                )
            )

        found = asyncio.run(run())
    assert found == [[(number, size) for size in sizes] for number, sizes in enumerate(requests)]
    assert sum(batches) == sum(map(len, requests))
    assert max(batches, default=0) <= MOST_ITEMS


def test_what_arrives_meanwhile_is_computed_together() -> None:
    batches: list[int] = []

    def slowly(items: list[int]) -> list[int]:
        time.sleep(0.01)
        return items

    with ThreadPoolExecutor(1) as pool:
        lane = Lane(slowly, lambda _: 1, pool, batches.append)

        async def run() -> None:
            await asyncio.gather(*(lane.results([number]) for number in range(100)))

        asyncio.run(run())
    assert len(batches) <= 2


def test_a_large_request_delays_a_small_one_by_a_batch() -> None:
    ended: list[str] = []
    with ThreadPoolExecutor(1) as pool:
        lane: Lane[int, int] = Lane(list, lambda _: 1, pool)

        async def run() -> None:
            async def ask(name: str, count: int) -> None:
                await lane.results([0] * count)
                ended.append(name)

            await asyncio.gather(ask("large", 50 * MOST_ITEMS), ask("small", 1))

        asyncio.run(run())
    assert ended == ["small", "large"]


def test_an_error_is_that_of_its_request_alone() -> None:
    def strict(items: list[int]) -> list[int]:
        if -1 in items:
            raise ValueError("no")
        return items

    with ThreadPoolExecutor(1) as pool:
        lane = Lane(strict, lambda _: 1, pool)

        async def run() -> list[list[int] | BaseException]:
            requests = [[1], [2, -1], [3] * 2 * MOST_ITEMS]
            return await asyncio.gather(*map(lane.results, requests), return_exceptions=True)

        first, second, third = asyncio.run(run())
    assert first == [1]
    assert third == [3] * 2 * MOST_ITEMS
    assert isinstance(second, ValueError)


def test_a_caller_that_is_gone_disturbs_nobody() -> None:
    begun, goes_on = threading.Event(), threading.Event()

    def waiting(items: list[int]) -> list[int]:
        begun.set()
        goes_on.wait(5)
        return items

    with ThreadPoolExecutor(1) as pool:
        lane = Lane(waiting, lambda _: 1, pool)

        async def run() -> None:
            gone = asyncio.create_task(lane.results([1]))
            await asyncio.to_thread(begun.wait, 5)
            stays = asyncio.create_task(lane.results([2]))
            gone.cancel()
            with pytest.raises(asyncio.CancelledError):
                await gone
            goes_on.set()
            assert await stays == [2]

        asyncio.run(run())
