"""An engine behind a client, described by what it needs."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from qdrant_embed.errors import QdrantEmbedError

T = TypeVar("T")


@dataclass(frozen=True)
class Engine:
    """The needs of an engine that affect how requests are sent to it.

    Attributes:
        name: name of the engine.
        off_loop: whether coroutines of its asynchronous client compute without ever awaiting, and
            must run in a thread to keep the event loop free.
        payload_index: whether an index of a payload field makes filters on that field faster.
        refusals: errors of ours which say that it has read a request and refused it.
        explain: returns that error, given what a request raised and the collection's name; ``None``
            if nothing was refused.
        copies: whether it can have several copies of a collection, on nodes that do not always
            know the same.
        refuses_missing: whether it refuses to change a point that does not exist. Local databases
            of some versions change what is deleted, and say nothing.
        flushes: whether it must be told when the disk shall keep what was stored, also if the
            machine fails.
        running: runs a block as a call, for requests that go around the database's methods, or run
            in a thread; see `qdrant_embed.engines.guard`.
        fails_in_passing: whether what fails may succeed a moment later: it is another process, or
            shares its files with one.
        keeps_settings: whether a collection has the options of indexes, quantisation and storage
            that it was created with, and tells them. What local databases tell is made up.
        indexes: whether it builds indexes while points come, unless a collection's settings turn
            that off.
    """

    name: str
    off_loop: bool
    payload_index: bool
    refusals: tuple[type[QdrantEmbedError], ...]
    explain: Callable[[Exception, str], QdrantEmbedError | None]
    copies: bool = False
    refuses_missing: bool = True
    flushes: bool = False
    running: Callable[[], AbstractContextManager[object]] = nullcontext
    fails_in_passing: bool = True
    keeps_settings: bool = False
    indexes: bool = False


async def in_thread(function: Callable[[], T]) -> T:
    """Like `asyncio.to_thread`; in this thread where the interpreter starts no more of them."""
    context = contextvars.copy_context()

    def in_context() -> T:
        return context.run(function)

    try:
        future = asyncio.get_running_loop().run_in_executor(None, in_context)
    except RuntimeError:
        return in_context()
    return await future


def run_blocking(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never suspends, in a single step, and return its result."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return cast("T", done.value)
    finally:
        coroutine.close()
    raise RuntimeError("the coroutine waits for something, and cannot be run without a loop")
