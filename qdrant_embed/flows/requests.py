"""Requests about one collection: retried while that can help, cut to what a server accepts."""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, ParamSpec, TypeVar
from uuid import UUID

import qdrant_client
from qdrant_client import models

from qdrant_embed.backoff import Backoff
from qdrant_embed.engines.answers import Answers
from qdrant_embed.engines.bodies import LARGE, MOST, query_size
from qdrant_embed.engines.connection import TIME_LEFT, address_of
from qdrant_embed.engines.embedded import embedded
from qdrant_embed.engines.local import DISK_ERRORS, STUMBLES
from qdrant_embed.engines.names import check_collection_name
from qdrant_embed.engines.points import Kept, Points, StoredPoints, update_operations
from qdrant_embed.engines.server import (
    NO_ANSWERS,
    REQUEST_ERRORS,
    UNWRITABLE,
    CapName,
    Tries,
    above_limit,
    check_applied,
    exceeded_cap,
    found_instead,
    in_one_line,
    is_cut_off,
    is_over_budget,
    is_timeout,
    is_too_large,
    is_transient,
    may_come,
    missing_right,
    requested_wait,
    unavailable,
    unwritable,
)
from qdrant_embed.engines.wire import query_batch, upsert_request
from qdrant_embed.errors import (
    ClientStateError,
    CollectionNotFoundError,
    QdrantEmbedError,
    ServerRefusal,
    ServerUnavailableError,
    check_whole,
)
from qdrant_embed.flows.io import Flow, Io
from qdrant_embed.forks import ForkLock
from qdrant_embed.stalls import announced

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R")
PointsT = TypeVar("PointsT", Points, StoredPoints)

BACKOFF = Backoff(first=0.25, longest=8.0)  # seconds
LONGEST_RETRYING = 300.0  # seconds after a request's first attempt
MAX_RETRIES = 14  # whose waits are 40 seconds at least: a server is restarted in 30
QUIET = 2.0  # seconds of waiting that nobody needs to know of
DEFINING_TIMEOUT = 60  # seconds, of what defines something: an index of many points takes long
SOON = Backoff(first=0.05, longest=0.4)  # seconds
SETTLING = 2.0  # seconds until every node of a cluster knows what one was told

# what a request may raise
_FAILURES = (*REQUEST_ERRORS, *NO_ANSWERS, *UNWRITABLE, *DISK_ERRORS, *STUMBLES, ValueError)
# definitions for which the right to write to a collection is enough
_WRITES = ("create_payload_index", "create_vector_name")
_OWN_TIMEOUT = 5  # seconds, of a qdrant_client that was given none
_CUT_OFFS = 2  # broken connections that a large body is forgiven, if it cannot be halved


class CollectionRequests:
    """A sender of requests about one collection.

    What a server refuses becomes an error of ours, with the server's own as its cause, and so does
    what it does not answer. Caps that a server names when it refuses a request are remembered for
    the client and the collection.

    Args:
        io: calls the client's methods.
        client: the client; the asynchronous client's methods have the same arguments, and `io`
            awaits their results.
        collection_name: name of the collection.
        max_retries: number of retries of a request after a transient failure.

    Raises:
        InputError: if no collection can have this name, or `max_retries` is not a whole number.

    Attributes:
        io: calls the client's methods.
        client: the client.
        name: the collection's name.
        max_retries: number of retries of a request.
        on_wait: called with a short note when a wait for the server has become long.
        is_final: tells of an error that would pass, but is not to be waited for.
    """

    def __init__(
        self,
        io: Io,
        client: qdrant_client.QdrantClient,
        collection_name: str,
        max_retries: int = MAX_RETRIES,
    ) -> None:
        check_collection_name(collection_name)
        check_whole("max_retries", max_retries, 0)
        self.io, self.client = io, client
        self.name, self.max_retries = collection_name, max_retries
        self._answers = Answers(collection_name)
        self._waits = _Waits()
        self._is_known_to_be_slow = False  # and to announce each request would say nothing new
        self.on_wait: Callable[[str], None] = lambda _: None
        self.is_final: Callable[[Exception], bool] = lambda _: False
        self._time: _TimeLimit | None = None
        self._settled = 0.0

    def expect(self) -> None:
        """Note that something was just defined, which other nodes may not know for a moment.

        Until then, a request that finds it missing is repeated, and does not count as failed.
        """
        if self.io.engine.copies:
            self._settled = time.monotonic() + SETTLING

    @property
    def is_settling(self) -> bool:
        """Whether what was just defined may still be missing on some node."""
        return time.monotonic() < self._settled

    def limit_time(self, seconds: float | None) -> None:
        """Let all further requests together take `seconds`, with their retries and waits.

        By default as long as the client lets one request take. Only the time of requests counts:
        loading a model does not.
        """
        if self.io.engine.fails_in_passing:
            self._time = _TimeLimit(self._own_timeout if seconds is None else seconds)

    @property
    def defining_timeout(self) -> int:
        """Seconds that a request which defines something may take."""
        return max(DEFINING_TIMEOUT, math.ceil(self._own_timeout))

    @property
    def _own_timeout(self) -> float:
        return self.client.init_options.get("timeout") or _OWN_TIMEOUT

    def cap(self, name: CapName) -> int | None:
        """Return the cap of strict mode that the server has named before; ``None`` without one."""
        return self.io.caps.get((self.name, name))

    async def send(self, method: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a method of the client, and return what it answers.

        Raises:
            CollectionNotFoundError: if the collection does not exist.
            ServerRefusal: if the server refuses the request.
            ServerUnavailableError: if it brings no answer.
        """
        return await self._timely(lambda options: self.io.request(method, *args, **options), kwargs)

    async def _timely(
        self,
        attempt: Callable[[Any], Flow[T]],
        options: Mapping[str, Any],
        *,
        cut_offs: Callable[[], float] = lambda: math.inf,
        writes: bool = False,
    ) -> T:
        """Make an attempt with options, as `retried` does, with no larger timeout than allowed."""
        while True:
            try:
                return await self.retried(
                    lambda: attempt(self._options(options)), cut_offs=cut_offs, writes=writes
                )
            except ServerRefusal as error:
                timeout = self._options(options).get("timeout")
                if timeout is None or not self._learns(error, "timeout", timeout):
                    raise

    def _options(self, options: Mapping[str, Any]) -> Any:
        """Return the options as the client sends them right, and no longer than there is time."""
        sent = dict(options)
        if isinstance(consistency := sent.get("consistency"), str):  # which gRPC does not convert
            sent["consistency"] = models.ReadConsistencyType(consistency)
        if "timeout" in sent:
            timeout, most = sent["timeout"], self.cap("timeout")
            if self._time is not None:
                left = max(1, math.ceil(self._time.left))
                if left < (self._own_timeout if timeout is None else timeout):
                    timeout = left
            if timeout is not None and most is not None:
                timeout = min(timeout, most)
            sent["timeout"] = timeout
        return sent

    def _learns(self, error: ServerRefusal, name: CapName, asked: int) -> bool:
        """Return whether the server named a cap below what it was asked for; remember the cap."""
        cap = exceeded_cap(error.__cause__) if error.__cause__ is not None else None
        if cap is None or cap.most < 1:
            return False
        self.io.caps[self.name, cap.name] = cap.most
        return cap.name == name and cap.most < asked

    async def retried(
        self,
        attempt: Callable[[], Flow[T]],
        *,
        cut_offs: Callable[[], float] = lambda: math.inf,
        writes: bool = False,
    ) -> T:
        """Make an attempt, again and again while that may help, and return what it returns.

        A failed attempt is repeated where its error is a passing one, `max_retries` times at most.
        None begins later than five minutes after the first, however long a server asks to wait, or
        when the time of `limit_time` is over.

        Args:
            attempt: sends one request.
            cut_offs: returns how many connections may break before that is no passing failure.
            writes: whether it needs the right to write to the collection, and no more.

        Raises:
            CollectionNotFoundError: if the collection does not exist.
            ServerRefusal: if the server refuses the request.
            ServerUnavailableError: if it brings no answer.
        """
        if not self.io.engine.fails_in_passing:
            return await self._tried(attempt, writes=writes)
        with self._time or _TimeLimit(math.inf) as limit:
            start, tries, broken, early = time.monotonic(), 0, 0, 0
            while True:
                began = time.monotonic()
                waiting = announced(
                    f"a request about collection {self.name!r}", unless=self._is_known_to_be_slow
                )
                try:
                    with waiting:
                        return await self._attempt(attempt)
                except _FAILURES as error:
                    if self.is_settling and may_come(error):
                        early += 1
                        await self.io.sleep(SOON.seconds(early))
                        continue
                    tries += 1
                    broken += is_cut_off(error)
                    wait = None
                    if (
                        tries <= self.max_retries
                        and is_transient(error)
                        and not self.is_final(error)
                        and not (broken and broken > cut_offs())
                    ):
                        wait = requested_wait(error)
                        wait = BACKOFF.seconds(tries) if wait is None else wait
                    now = time.monotonic()
                    asked = Tries(tries, now - start, now - began)
                    is_late = wait is not None and (
                        asked.seconds + wait > LONGEST_RETRYING or wait >= limit.left
                    )
                    if wait is None or is_late:
                        explained = self._explained(error, asked, writes=writes)
                        if explained is None:
                            raise
                        raise explained from error
                    self._tell(error, asked, wait)
                finally:
                    self._is_known_to_be_slow |= waiting.was_said
                await self.io.sleep(wait)

    async def _tried(self, attempt: Callable[[], Flow[T]], *, writes: bool = False) -> T:
        """Make an attempt, once, and return what it returns; raise as `retried` does."""
        start = time.monotonic()
        try:
            with announced(f"a request about collection {self.name!r}"):
                return await attempt()
        except _FAILURES as error:
            seconds = time.monotonic() - start
            explained = self._explained(error, Tries(1, seconds, seconds), writes=writes)
            if explained is None:
                raise
            raise explained from error

    def _explained(
        self, error: Exception, tries: Tries, *, writes: bool
    ) -> QdrantEmbedError | None:
        """Return the error that says what came of a request; ``None`` if `error` says it."""
        return (
            missing_right(error, self.name, writes=writes)
            or unwritable(error, self.name)
            or self.io.engine.explain(error, self.name)
            or unavailable(error, self.name, tries, lambda grpc: address_of(self.client, grpc=grpc))
        )

    async def _attempt(self, attempt: Callable[[], Flow[T]]) -> T:
        if self._time is None:
            return await attempt()
        limit = self._time
        token = TIME_LEFT.set(lambda: limit.left)
        try:
            return await attempt()
        finally:
            TIME_LEFT.reset(token)

    def _tell(self, error: Exception, tries: Tries, wait: float) -> None:
        """Log that a request is tried again, and tell the user once the wait has become long.

        Several uploads in flight wait for the same server: the user is told of one of them.
        """
        is_long = tries.seconds + wait > QUIET and self._waits.is_first(wait)
        logger.log(
            logging.WARNING if is_long else logging.INFO,
            "collection %r: trying again in %.1f s (retry %d of %d, %.0f s after the first try): "
            "%s",
            self.name,
            wait,
            tries.count,
            self.max_retries,
            tries.seconds,
            found_instead(error, tries.last),
        )
        if is_long:
            self.on_wait(f"waiting for Qdrant, retry {tries.count} of {self.max_retries}")

    async def define(
        self,
        method: Callable[P, object],
        is_done: Callable[[], Flow[bool]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> None:
        """Call a method that defines something, with the time that this takes.

        After a failure `is_done` looks whether it happened nevertheless: an answer was lost or came
        too late, or another process was faster.
        """
        self._check_may_write()

        async def attempt(options: Any) -> None:
            start = time.monotonic()
            try:
                await self.io.request(method, *args, **options)
            except (*REQUEST_ERRORS, ValueError) as error:
                if "already exists" in str(error):  # if on another node
                    self.expect()
                # over gRPC, and before 1.20 over REST, the client gives some of them no more than
                # its own time
                gave_up = is_timeout(error) and time.monotonic() - start > 0.9 * self._own_timeout
                tries = 1
                while not await is_done():
                    if not gave_up or time.monotonic() - start > options.get("timeout", 0):
                        raise
                    await self.io.sleep(BACKOFF.seconds(tries))
                    tries += 1

        await self._timely(attempt, kwargs, writes=getattr(method, "__name__", "") in _WRITES)
        self.expect()

    async def in_parts(
        self,
        items: Sequence[T],
        ask: Callable[[Any], Flow[R]],
        *,
        cap: CapName | None = None,
        sizes: Callable[[Any], Sequence[int]] | None = None,
    ) -> list[R]:
        """Ask about items in as few requests as the server accepts; return each one's answer.

        Args:
            items: what is asked about.
            ask: sends a request about some of them.
            cap: what strict mode limits of these.
            sizes: returns the bytes that each of some items takes.

        Raises:
            ServerRefusal: if the server refuses a request that cannot be made smaller.
            ServerUnavailableError: if it brings no answer, whatever the size.
        """
        answers: list[R] = []
        parts = deque(self._parts(items, cap, sizes))
        while parts:
            part = parts.popleft()
            try:
                answers.append(await ask(part))
            except (ServerRefusal, ServerUnavailableError) as error:
                smaller = self._smaller(part, error, cap, sizes)
                if not smaller:
                    raise
                parts.extendleft(reversed(smaller))
        return answers

    def _parts(
        self,
        items: Sequence[T],
        cap: CapName | None,
        sizes: Callable[[Any], Sequence[int]] | None,
    ) -> Iterator[Sequence[T]]:
        if len(items) == 1:
            yield items
            return
        most = (cap and self.cap(cap)) or len(items)
        start = total = 0
        for end, of_item in enumerate([0] * len(items) if sizes is None else sizes(items)):
            total += of_item
            if end > start and (end - start == most or total > MOST):
                yield items[start:end]
                start, total = end, of_item
        if start < len(items):
            yield items[start:] if start else items

    def _smaller(
        self,
        part: Sequence[T],
        error: ServerRefusal | ServerUnavailableError,
        cap: CapName | None,
        sizes: Callable[[Any], Sequence[int]] | None,
    ) -> list[Sequence[T]]:
        """Return the parts of a part that the server did not accept; none if it cannot be cut.

        Raises:
            ServerRefusal: if a single item is too large.
        """
        if isinstance(error, ServerRefusal) and cap and self._learns(error, cap, len(part)):
            return [*self._parts(part, cap, sizes)]
        raised = error.__cause__
        total = 0 if sizes is None else sum(sizes(part))
        if raised is None or not (
            is_too_large(raised)
            or is_over_budget(raised)
            or (is_cut_off(raised) and total >= LARGE)
        ):
            return []
        if len(part) > 1:
            middle = len(part) // 2
            return [part[:middle], part[middle:]]
        if is_over_budget(raised) or not total:
            return []
        raise ServerRefusal(
            f"{_named(part[0])} takes about {total / 1e6:.1f} MB, and collection {self.name!r} is "
            "on a server that does not accept that in one request (32 MB, unless its "
            "service.max_request_size_mb or a proxy says otherwise): store less text or metadata "
            f"with it ({in_one_line(raised)})"
        ) from raised

    def _check_may_write(self) -> None:
        if self.io.read_only:
            raise ClientStateError(self.io.read_only)

    async def flush(self) -> None:
        """Have the disk keep what was stored, also if the machine fails, where that is asked for.

        A server and local mode do this by themselves.
        """
        if self.io.engine.flushes:
            await self.send(embedded(self.client).flush, self.name)

    async def info(self) -> models.CollectionInfo | None:
        """Return what the server says of the collection; ``None`` if it does not exist.

        This is one request, which every token may send that may read or write the collection.
        """
        try:
            return await self.send(self.client.get_collection, self.name)
        except CollectionNotFoundError:
            return None

    async def exists(self) -> bool:
        """Return whether the collection exists."""
        return await self.info() is not None

    async def count(self, **options: Any) -> int:
        """Return the number of points; `options` are those of the client's ``count``."""
        return self._answers.count(
            await self.send(self.client.count, self.name, exact=True, **options)
        )

    async def retrieve(
        self, ids: Sequence[str | int | UUID], **options: Any
    ) -> list[models.Record]:
        """Return the points with these ids; `options` are those of the client's ``retrieve``."""

        async def ask(some: Sequence[str | int | UUID]) -> list[models.Record]:
            found = await self.send(self.client.retrieve, self.name, some, **options)
            return self._answers.records(some, found)

        return [record for found in await self.in_parts(ids, ask) for record in found]

    async def points(
        self, ids: Sequence[Any], params: models.CollectionParams, **options: Any
    ) -> list[models.Record]:
        """Return the points with these ids, each with its payload and all its vectors.

        Args:
            ids: the ids.
            params: what the collection says of its vectors.
            options: those of the client's ``retrieve``.
        """
        records = await self.retrieve(ids, with_payload=True, with_vectors=True, **options)
        self._answers.check_vectors(params, records)
        return records

    async def page(self, limit: int, **options: Any) -> tuple[list[models.Record], Any]:
        """Scroll: return some points, at most `limit`, and the offset of the next ones.

        `options` are those of the client's ``scroll``.
        """
        while True:
            asked = min(limit, self.cap("limit") or limit)
            try:
                found = await self.send(self.client.scroll, self.name, limit=asked, **options)
                return self._answers.page(asked, options.get("offset"), found)
            except ServerRefusal as error:
                if not self._learns(error, "limit", asked):
                    raise

    async def query(
        self, requests: Sequence[models.QueryRequest], needed: int, **options: Any
    ) -> list[models.QueryResponse]:
        """Send queries, in one request unless the server wants several; return their answers.

        Args:
            requests: the queries.
            needed: number of points that each must find; a cap below it is refused for this number.
            options: those of the client's ``query_batch_points``.
        """
        if not self.io.engine.fails_in_passing:  # nor is anything too large for it
            return await self._tried(partial(self._query, requests, options))

        def sizes(some: Sequence[models.QueryRequest]) -> list[int]:
            return list(map(query_size, some))

        def cut_offs(some: Sequence[models.QueryRequest]) -> float:
            return _cut_offs(sizes(some))

        async def ask(some: Sequence[models.QueryRequest]) -> list[models.QueryResponse]:
            while True:
                sent = [self._with_small_conditions(request) for request in some]
                try:
                    return await self._timely(
                        partial(self._query, sent),
                        options,
                        cut_offs=partial(cut_offs, sent),
                    )
                except ServerRefusal as error:
                    self._learns(error, "limit", 0)
                    if [self._with_small_conditions(request) for request in some] != sent:
                        continue
                    raise above_limit(error, self.name, needed) or error from error.__cause__

        parts = await self.in_parts(requests, ask, cap="search batch size", sizes=sizes)
        return [answer for part in parts for answer in part]

    async def _query(
        self, requests: Sequence[models.QueryRequest], options: Any
    ) -> list[models.QueryResponse]:
        found = await self.io.request(query_batch, self.client, self.name, requests, **options)
        return self._answers.hits(requests, found)

    def _with_small_conditions(self, request: models.QueryRequest) -> models.QueryRequest:
        """Return the query with its conditions cut to a cap that was named before."""
        size = self.cap("condition")
        if size is None or not isinstance(request.filter, models.Filter):
            return request
        return request.model_copy(update={"filter": _cut_exclusions(request.filter, size)})

    async def upsert(
        self,
        points: PointsT,
        on_stored: Callable[[PointsT], None],
        *,
        wait: bool = True,
        shard_key_selector: models.ShardKeySelector | None = None,
    ) -> None:
        """Store points in one request, or in several if the server accepts no larger ones.

        `on_stored` is called after each request with the points that it stored. A request in
        flight is completed even after a cancellation, so it is known whether its points are stored.
        What a server has accepted, but not stored while the request was waited for, is sent again.
        """
        self._check_may_write()

        async def store(part: PointsT) -> None:
            request = await self.io.compute(
                upsert_request,
                self.client,
                self.name,
                part,
                wait=wait,
                shard_key_selector=shard_key_selector,
            )

            async def attempt() -> None:
                check_applied(await self.io.request(request.send))
                on_stored(part)

            await self.retried(
                lambda: self.io.finish(attempt()),
                cut_offs=partial(_cut_offs, part.sizes()),
                writes=True,
            )

        await self.in_parts(points, store, cap="upsert limit", sizes=type(points).sizes)

    async def merge(
        self,
        points: Points,
        kept: Mapping[str | int, Kept],
        on_stored: Callable[[Points], None],
        *,
        wait: bool = True,
        shard_key_selector: models.ShardKeySelector | None = None,
    ) -> None:
        """Store points that exist; like `upsert`, but what else they have stays.

        Points that are gone by now are stored as new ones. To see that, each request is waited for.

        Args:
            points: the points.
            kept: what each of them has that stays.
            on_stored: see `upsert`.
            wait: see there; for points that are gone.
            shard_key_selector: see there.
        """
        options: dict[str, Any] = {"shard_key_selector": shard_key_selector}

        async def change(part: Points) -> None:
            operations = await self.io.compute(update_operations, part, kept, **options)
            await self.update(operations, part.sizes(), lambda: on_stored(part))

        async def store(part: Points) -> None:
            refusal: ServerRefusal | None = None
            if self.io.engine.refuses_missing:
                try:
                    return await change(part)
                except ServerRefusal as error:
                    refusal = error
            found = await self.retrieve(part.ids, with_payload=False, **options)
            there = {record.id for record in found}
            gone = part.where(lambda point: point not in there)
            if refusal is not None and not len(gone):
                raise refusal
            if len(gone):
                await self.upsert(gone, on_stored, wait=wait, **options)
            rest = part.where(lambda point: point in there)
            if len(rest):
                await (change(rest) if refusal is None else store(rest))

        if len(points):
            await self.in_parts(points, store, cap="upsert limit", sizes=Points.sizes)

    async def update(
        self,
        operations: Sequence[models.UpdateOperation],
        sizes: Sequence[int],
        on_updated: Callable[[], None] | None = None,
        *,
        wait: bool = True,
    ) -> None:
        """Change points, then call `on_updated`; a request in flight is always completed.

        `sizes` are the bytes that each document or point takes in the request.
        """
        self._check_may_write()

        async def attempt() -> None:
            check_applied(
                await self.io.request(
                    self.client.batch_update_points, self.name, operations, wait=wait
                )
            )
            if on_updated is not None:
                on_updated()

        await self.retried(
            lambda: self.io.finish(attempt()), cut_offs=partial(_cut_offs, sizes), writes=True
        )

    async def delete(
        self,
        selector: models.PointsSelector,
        on_deleted: Callable[[], None] | None = None,
        *,
        wait: bool = True,
        shard_key_selector: models.ShardKeySelector | None = None,
    ) -> None:
        """Delete points, then call `on_deleted`; a request in flight is always completed."""
        self._check_may_write()

        async def attempt() -> None:
            answer = await self.io.request(
                self.client.delete,
                self.name,
                selector,
                wait=wait,
                shard_key_selector=shard_key_selector,
            )
            check_applied(answer)
            if on_deleted is not None:
                on_deleted()

        await self.retried(lambda: self.io.finish(attempt()), writes=True)


_TELLING = ForkLock()


class _Waits:
    """Waits that users are told of, of requests side by side, also in threads and copies."""

    def __init__(self) -> None:
        self._until = 0.0

    def is_first(self, seconds: float) -> bool:
        """Return whether no other wait that was told of lasts while one of `seconds` begins."""
        with _TELLING:
            now = time.monotonic()
            if now < self._until:
                return False
            self._until = now + seconds
            return True


class _TimeLimit:
    """The time that requests may take together; concurrent ones count once."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._running, self._since = seconds, 0, 0.0

    def __enter__(self) -> _TimeLimit:
        if not self._running:
            self._since = time.monotonic()
        self._running += 1
        return self

    def __exit__(self, *raised: object) -> None:
        self._running -= 1
        if not self._running:
            self._seconds -= time.monotonic() - self._since

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return self._seconds - (time.monotonic() - self._since if self._running else 0.0)


def _cut_offs(sizes: Sequence[int]) -> float:
    """Return how many connections may break while items of these sizes are sent."""
    if sum(sizes) < LARGE:
        return math.inf
    return _CUT_OFFS if len(sizes) == 1 else 0


def _cut_exclusions(condition: models.Filter, most: int) -> models.Filter:
    """Return an equal filter that excludes at most `most` values or ids in each condition."""
    if not isinstance(condition.must_not, list):
        return condition
    cut: list[models.Condition] = []
    for each in condition.must_not:
        if isinstance(each, models.HasIdCondition):
            ids = each.has_id
            cut += (
                models.HasIdCondition(has_id=ids[start : start + most])
                for start in range(0, len(ids), most)
            )
        elif isinstance(each, models.FieldCondition) and isinstance(each.match, models.MatchAny):
            values: Any = each.match.any
            cut += (
                each.model_copy(update={"match": models.MatchAny(any=values[start : start + most])})
                for start in range(0, len(values), most)
            )
        else:
            cut.append(each)
    return condition.model_copy(update={"must_not": cut})


def _named(item: object) -> str:
    if isinstance(item, models.PointStruct):
        return f"the document of point {item.id!r}"
    return "a query" if isinstance(item, models.QueryRequest) else str(item)
