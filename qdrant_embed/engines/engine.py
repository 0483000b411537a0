"""An engine behind a client, described by what it needs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Engine:
    """The needs of an engine that affect how requests are sent to it.

    Attributes:
        name: name of the engine.
        serialize: whether requests must be sent one at a time, because threads would corrupt each
            other's work.
        off_loop: whether coroutines of its asynchronous client compute without ever awaiting, and
            must run in a thread to keep the event loop free.
        payload_index: whether an index of a payload field makes filters on that field faster.
        refusals: exceptions raised when it refuses a request that it has read.
    """

    name: str
    serialize: bool
    off_loop: bool
    payload_index: bool
    refusals: tuple[type[Exception], ...]
