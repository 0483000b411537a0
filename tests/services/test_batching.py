"""Items of many requests computed together, each answered with its own."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qdrant_embed.encoder.run.batching import TOKENS_PER_BATCH
from qdrant_embed.serve.batching import MOST_CHARACTERS, MOST_ITEMS, Lane

Sizes = st.lists(st.lists(st.integers(0, 2 * MOST_CHARACTERS), max_size=40), max_size=20)


def _one_length(items: list[int]) -> list[range]:
    return [range(1)] * len(items)


@contextmanager
def lane_of(
    compute: Callable[[list[range]], list[range]] = list,
    prepare: Callable[[list[int]], list[range]] = lambda items: [*map(range, items)],
    workers: int = 1,
    on_batch: Callable[[int], None] = lambda _: None,
) -> Iterator[Lane[int, range, range]]:
    """Run the block with a lane, in which an item is its size."""
    with ThreadPoolExecutor(workers) as pool:
        yield Lane(prepare, compute, int, pool, workers, on_batch)


@given(Sizes, st.integers(1, 3))
def test_every_item_has_its_own_result(requests: list[list[int]], workers: int) -> None:
    batches: list[list[range]] = []

    def compute(items: list[range]) -> list[range]:
        batches.append(items)
        return items

    async def run(lane: Lane[int, range, range]) -> list[list[range]]:
        return await asyncio.gather(*map(lane.results, requests))

    with lane_of(compute, workers=workers) as lane:
        found = asyncio.run(run(lane))
    assert found == [[*map(range, sizes)] for sizes in requests]
    assert sum(map(len, batches)) == sum(map(len, requests))
    for batch in batches:
        (length,) = {len(item) for item in batch}
        assert len(batch) == 1 or length * len(batch) <= TOKENS_PER_BATCH


def test_what_arrives_meanwhile_is_computed_together() -> None:
    batches: list[int] = []

    def slowly(items: list[range]) -> list[range]:
        time.sleep(0.01)
        return items

    async def run(lane: Lane[int, range, range]) -> None:
        await asyncio.gather(*(lane.results([1]) for _ in range(100)))

    with lane_of(slowly, _one_length, on_batch=batches.append) as lane:
        asyncio.run(run(lane))
    assert sum(batches) == 100
    assert len(batches) <= 3


@pytest.mark.parametrize("count", [1, 3])
def test_one_request_is_computed_by_all_workers(count: int) -> None:
    together = threading.Barrier(count)

    def meet(items: list[range]) -> list[range]:
        together.wait(5)
        return items

    async def run(lane: Lane[int, range, range]) -> list[range]:
        return await lane.results([1, 2, 3, 3, 2, 1][: 2 * count])

    with lane_of(meet, workers=count) as lane:
        assert len(asyncio.run(run(lane))) == 2 * count


def test_no_batch_waits_for_another() -> None:
    goes_on = threading.Event()

    def compute(items: list[range]) -> list[range]:
        if len(items[0]) == 9:
            goes_on.wait(5)
        return items

    async def run(lane: Lane[int, range, range]) -> None:
        slow = asyncio.create_task(lane.results([9]))
        for _ in range(5):
            assert await lane.results([1, 2]) == [range(1), range(2)]
        assert not slow.done()
        goes_on.set()
        assert await slow == [range(9)]

    with lane_of(compute, workers=2) as lane:
        asyncio.run(run(lane))


def test_a_large_request_delays_a_small_one_by_a_window() -> None:
    ended: list[str] = []

    async def run(lane: Lane[int, range, range]) -> None:
        async def ask(name: str, count: int) -> None:
            await lane.results([1] * count)
            ended.append(name)

        await asyncio.gather(ask("large", 50 * MOST_ITEMS), ask("small", 1))

    with lane_of() as lane:
        asyncio.run(run(lane))
    assert ended == ["small", "large"]


def test_lanes_take_turns() -> None:
    turns: list[int] = []
    goes_on = threading.Event()

    def waiting(items: list[range]) -> list[range]:
        goes_on.wait(5)
        return items

    def note(number: int, _: int) -> None:
        turns.append(number)

    async def run(lanes: list[Lane[int, range, range]]) -> None:
        large = [lane.results([1] * 8 * MOST_ITEMS) for lane in lanes]
        asked = asyncio.gather(*large)
        await asyncio.sleep(0.01)
        goes_on.set()
        await asked

    with ThreadPoolExecutor(1) as pool:
        lanes = [
            Lane(_one_length, waiting, int, pool, 1, partial(note, number)) for number in range(2)
        ]
        asyncio.run(run(lanes))
    assert turns.index(1) == 1


@pytest.mark.parametrize("where", ["preparing", "computing"])
def test_an_error_is_that_of_its_request_alone(where: str) -> None:
    def prepare(items: list[int]) -> list[range]:
        if where == "preparing" and 2 in items:
            raise ValueError("no")
        return _one_length(items) if where == "preparing" else [*map(range, items)]

    def compute(items: list[range]) -> list[range]:
        if where == "computing" and range(2) in items:
            raise ValueError("no")
        return items

    async def run(lane: Lane[int, range, range]) -> list[list[range] | BaseException]:
        requests = [[1], [1, 2], [1] * 2 * MOST_ITEMS]
        found = await asyncio.gather(*map(lane.results, requests), return_exceptions=True)
        assert await lane.results([1]) == [range(1)]  # it goes on
        return found

    with lane_of(compute, prepare) as lane:
        first, second, third = asyncio.run(run(lane))
    assert first == [range(1)]
    assert third == [range(1)] * 2 * MOST_ITEMS
    assert isinstance(second, ValueError)


def test_an_error_in_a_batch_is_that_of_one_request() -> None:
    def compute(items: list[range]) -> list[range]:
        if range(2, 3) in items:
            raise ValueError("no")
        return items

    async def run(lane: Lane[int, range, range]) -> list[list[range] | BaseException]:
        requests = [[1], [2], [1, 3]]
        return await asyncio.gather(*map(lane.results, requests), return_exceptions=True)

    batches: list[int] = []
    with lane_of(
        compute, lambda items: [range(item, item + 1) for item in items], on_batch=batches.append
    ) as lane:
        first, second, third = asyncio.run(run(lane))
    assert max(batches) > 1
    assert first == [range(1, 2)]
    assert isinstance(second, ValueError)
    assert third == [range(1, 2), range(3, 4)]


def test_a_caller_that_is_gone_disturbs_nobody_and_is_not_computed() -> None:
    begun, goes_on = threading.Event(), threading.Event()
    batches: list[int] = []

    def waiting(items: list[range]) -> list[range]:
        begun.set()
        goes_on.wait(5)
        return items

    async def run(lane: Lane[int, range, range]) -> None:
        gone = asyncio.create_task(lane.results([1, 2, 3]))
        await asyncio.to_thread(begun.wait, 5)
        stays = asyncio.create_task(lane.results([4]))
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        goes_on.set()
        assert await stays == [range(4)]

    with lane_of(waiting, on_batch=batches.append) as lane:
        asyncio.run(run(lane))
    assert batches == [1, 1]
