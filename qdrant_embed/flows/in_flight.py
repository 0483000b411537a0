"""Flows that run side by side, a few of them at a time, and are waited for in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from qdrant_embed.flows.io import Background, Flow, Io


class InFlight:
    """Flows in flight, up to `most` of them; a single one runs where it is begun.

    Args:
        io: runs them.
        most: number of flows that may be in flight.
    """

    def __init__(self, io: Io, most: int) -> None:
        self._io, self._most = io, most
        self._running: deque[Background[None]] = deque()

    def __len__(self) -> int:
        return len(self._running)

    async def begin(self, flow: Callable[[], Flow[None]], *, alone: bool) -> None:
        """Begin a flow as soon as there is room; raise what an earlier one ended with.

        Args:
            flow: the flow.
            alone: whether to wait for all others before, and for this one.
        """
        if alone or self._most == 1:
            while self._running:
                await self.wait()
            await flow()
            return
        if len(self._running) == self._most:
            await self.wait()
        self._running.append(self._io.begin(flow))

    async def wait(self) -> None:
        """Wait for the flow that was begun first, and raise what it ended with."""
        await self._running[0].result()  # which can be interrupted: it still counts as running
        self._running.popleft()

    async def abandon(self) -> None:
        """Have all flows end at their next pause, and wait for that."""
        for flow in self._running:
            flow.cancel()
        while self._running:
            await self._running[0].abandon()
            self._running.popleft()
