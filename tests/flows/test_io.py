"""What flows can await, as each client runs it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Coroutine
from contextlib import nullcontext
from functools import partial
from typing import Any

import pytest

from qdrant_embed.engines.engine import Engine, run_blocking
from qdrant_embed.flows.io import AsyncIo, BlockingIo


def engine(*, takes_turns: bool = False, off_loop: bool = False) -> Engine:
    lock = threading.Lock()
    return Engine(
        "test",
        off_loop,
        payload_index=False,
        refusals=(),
        explain=lambda *_: None,
        running=lambda: lock if takes_turns else nullcontext(),
    )


def within_a_minute(program: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(program, 60))


class Crowd:
    """Counts how many are inside at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = self.most = 0

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            self.most = max(self.most, self._inside)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1


def test_gathered_flows_run_together_but_not_too_many() -> None:
    crowd = Crowd()

    async def flow(number: int) -> int:
        with crowd:
            await asyncio.sleep(0.01)
        return number

    async def program() -> None:
        flows = [partial(flow, number) for number in range(50)]
        assert await AsyncIo(engine()).gather(flows) == list(range(50))

    within_a_minute(program())
    assert crowd.most == 16


def test_when_a_gathered_flow_fails_none_of_the_others_goes_on() -> None:
    ended = []

    async def waits() -> None:
        try:
            await asyncio.sleep(600)
        finally:
            await asyncio.sleep(0.01)  # cleaning up takes a while
            ended.append("cancelled")

    async def fails() -> None:
        await asyncio.sleep(0.01)
        raise ValueError("refused")

    async def program() -> None:
        with pytest.raises(ValueError, match="refused"):
            await AsyncIo(engine()).gather([waits, fails, waits])
        assert ended == ["cancelled", "cancelled"]

    within_a_minute(program())


@pytest.mark.parametrize("takes_turns", [True, False])
def test_a_database_that_needs_it_has_one_request_at_a_time(takes_turns: bool) -> None:
    crowd = Crowd()
    io = AsyncIo(engine(takes_turns=takes_turns, off_loop=True))
    other = threading.Barrier(2)

    async def method() -> None:
        with crowd:
            if takes_turns:
                time.sleep(0.01)
            else:
                other.wait(30)  # both are inside

    async def program() -> None:
        request: Any = io.request  # whose type is that of the synchronous client's method
        await asyncio.gather(request(method), request(method))

    within_a_minute(program())
    assert crowd.most == (1 if takes_turns else 2)


def test_a_blocking_flow_leaves_no_thread_behind() -> None:
    ended = threading.Event()

    def compute() -> None:
        time.sleep(0.1)
        ended.set()
        raise ValueError("nobody asks")

    async def flow() -> None:
        await BlockingIo(engine()).start(compute).abandon()
        assert ended.is_set()

    run_blocking(flow())


def test_an_abandoned_task_is_over_at_once() -> None:
    """Its thread may still compute: the encoder has its own way to be cancelled."""
    go_on = threading.Event()

    async def program() -> None:
        background = AsyncIo(engine()).start(lambda: go_on.wait(30))
        await asyncio.sleep(0)
        await background.abandon()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        go_on.set()

    asyncio.run(program())


def test_a_flow_that_waits_for_something_else_is_refused() -> None:
    with pytest.raises(RuntimeError, match="waits for something"):
        run_blocking(asyncio.sleep(0))
