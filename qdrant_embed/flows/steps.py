"""How the clients carry out the steps of a flow."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from qdrant_embed.engines.local import database_of
from qdrant_embed.flows.flow import Flow, Pause, Request, Step, Together, Wait, Work

T = TypeVar("T")

_AT_ONCE = 16  # requests


class Steps:
    """Steps one after the other; mixed into the synchronous client."""

    def _carry_out(self, flow: Flow[T]) -> T:
        try:
            step = next(flow)
            while True:
                try:
                    result = self._do(step)
                except Exception as error:  # noqa: BLE001 - the flow decides what it means
                    step = flow.throw(error)
                else:
                    step = flow.send(result)
        except StopIteration as done:
            value: T = done.value
            return value
        finally:
            flow.close()

    def _do(self, step: Step) -> object:
        if isinstance(step, Pause):
            time.sleep(step.seconds)
            return None
        if isinstance(step, Work):
            return step.call()
        if isinstance(step, Wait):
            return step.future.result()
        if isinstance(step, Together):
            return [self._carry_out(flow) for flow in step.flows]
        result = database_of(self).run(step.call)
        if step.on_success is not None:
            step.on_success()
        return result


class AsyncSteps:
    """The same for the asynchronous client: awaited, with work in threads."""

    async def _carry_out(self, flow: Flow[T]) -> T:
        try:
            step = next(flow)
            while True:
                try:
                    result = await self._do(step)
                except Exception as error:  # noqa: BLE001 - the flow decides what it means
                    step = flow.throw(error)
                else:
                    step = flow.send(result)
        except StopIteration as done:
            value: T = done.value
            return value
        finally:
            flow.close()

    async def _do(self, step: Step) -> object:
        if isinstance(step, Pause):
            await asyncio.sleep(step.seconds)
            return None
        if isinstance(step, Work):
            return await asyncio.to_thread(step.call)
        if isinstance(step, Wait):
            return await asyncio.wrap_future(step.future)
        if isinstance(step, Together):
            return await self._together(step.flows)
        if step.on_success is None:
            return await database_of(self).run_async(step.call)
        return await _to_its_end(self._request(step))

    async def _together(self, flows: Sequence[Flow[Any]]) -> list[Any]:
        slots = asyncio.Semaphore(_AT_ONCE)

        async def carried_out(flow: Flow[Any]) -> Any:
            async with slots:
                return await self._carry_out(flow)

        tasks = [asyncio.create_task(carried_out(flow)) for flow in flows]
        try:
            return await asyncio.gather(*tasks)
        except BaseException:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise

    async def _request(self, step: Request) -> object:
        result = await database_of(self).run_async(step.call)
        if step.on_success is not None:
            step.on_success()
        return result


async def _to_its_end(request: Coroutine[Any, Any, T]) -> T:
    """What `request` gives; cancelled, it still waits for it, once."""
    task = asyncio.create_task(request)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.gather(task, return_exceptions=True)
        raise
