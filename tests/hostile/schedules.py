"""Random schedules: what threads, tasks, a close, forks and a kill do to one client.

Run as a program, which imports once and forks a process for each schedule, with limits of time and
memory; another process then looks at what is stored. A line of JSON for each says what was wrong:

    python schedules.py STORE PLACE FIRST COUNT FOLDER

STORE is ``memory``, ``local``, ``edge`` or ``rest``; PLACE is a folder, or a server's URL; FIRST is
a seed; FOLDER is where accounts are written.
"""

from __future__ import annotations

import asyncio
import faulthandler
import json
import os
import random
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

assert sys.platform != "win32"  # there is no fork

MEMORY = 4 << 30  # bytes of address space
SECONDS = 60.0  # of a schedule
SIZE = 26  # numbers of a vector
OWN = 100_000  # ids of inherited calls begin here
FORKED = 900_000


@dataclass(frozen=True)
class Schedule:
    """What happens to a client, drawn from a seed.

    Attributes:
        adders: for each `add`: number of documents, size of a batch.
        others: number of threads or tasks that call inherited methods.
        is_async: whether the client is the asynchronous one.
        exists: whether the collection exists before.
        close: when the client is closed, in bytes of the account; ``None`` for after all else.
        fork: when the process forks, likewise, if it does.
        kill: when it is killed, likewise, if it is.
        late: seconds that the last two come later than that.
    """

    seed: int
    adders: tuple[tuple[int, int], ...]
    others: int
    is_async: bool
    exists: bool
    close: int | None
    fork: int | None
    kill: int | None
    late: float

    @classmethod
    def of(cls, seed: int, store: str) -> Schedule:
        chance = random.Random(seed)
        adders = tuple(
            (chance.randint(1, 80), chance.choice([1, 3, 8, 32]))
            for _ in range(chance.randint(1, 3))
        )
        others, is_async = chance.randint(0, 3), chance.random() < 0.4
        exists = chance.random() < 0.5
        close = chance.randint(0, 2500) if chance.random() < 0.6 else None
        fork = chance.randint(0, 1500) if chance.random() < 0.3 and not is_async else None
        kill = chance.randint(0, 3000) if chance.random() < 0.25 and store != "memory" else None
        late = chance.choice([0.0, chance.uniform(0, 0.02)])
        return cls(seed, adders, others, is_async, exists, close, fork, kill, late)

    def text(self, adder: int, number: int) -> str:
        return f"{'abcdefghij'[adder]} {number} " + "xyz"[number % 3] * (number % 50)

    def ids(self, adder: int) -> list[int]:
        return [1000 * (adder + 1) + number for number in range(self.adders[adder][0])]


class Account:
    """What is known to be stored, written down at once, because the process may be killed."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)

    def note(self, **line: Any) -> None:
        self._file.write(json.dumps(line).encode() + b"\n")

    def has(self, size: int) -> bool:
        """Return whether so many bytes are written."""
        return os.fstat(self._file.fileno()).st_size >= size

    @staticmethod
    def read(path: Path) -> Iterator[dict[str, Any]]:
        if path.exists():
            yield from map(json.loads, path.read_bytes().splitlines())


@dataclass
class Stored:
    """What must be stored by an account: documents of each `add`, and points of other calls.

    Attributes:
        counts: number of documents of each `add` that are stored.
        points: points of others by id, and whether they are there; ``None`` if nobody knows.
        wrong: what went wrong.
        has_begun: whether anything was done.
    """

    counts: dict[int, int] = field(default_factory=dict)
    points: dict[int, bool | None] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, path: Path) -> Stored:
        found = cls()
        for line in Account.read(path):
            if "stored" in line:
                adder = line["adder"]
                found.counts[adder] = max(found.counts.get(adder, 0), line["stored"])
            elif "points" in line:
                found.points.update(dict.fromkeys(line["points"], line["there"]))
            elif "wrong" in line:
                found.wrong.append(line["wrong"])
        return found


def options(store: str, place: str, seed: int) -> dict[str, Any]:
    """Arguments of a client."""
    if store == "memory":
        return {"location": ":memory:"}
    if store == "rest":
        return {"url": place, "check_compatibility": False, "timeout": 60}
    return {"path": str(Path(place) / f"db-{seed}"), "engine": store}


def name(store: str, seed: int) -> str:
    return f"demo-{seed}" if store == "rest" else "demo"


# the schedule


class Run:
    """A schedule in this process.

    Args:
        schedule: what happens.
        store: where.
        place: the folder or URL.
        account: where to write what is stored.
    """

    def __init__(self, schedule: Schedule, store: str, place: str, account: Account) -> None:
        self.schedule, self.store, self.account = schedule, store, account
        self.name = name(store, schedule.seed)
        self.options = options(store, place, schedule.seed)
        self.client: Any = None

    def guard(self, work: Callable[[], None]) -> None:
        """Do something that may end with errors of ours."""
        from qdrant_embed import QdrantEmbedError

        try:
            work()
        except QdrantEmbedError:
            pass
        except BaseException as error:
            self.wrong(error)

    def wrong(self, error: BaseException) -> None:
        self.account.note(wrong="".join(traceback.format_exception(error))[-2500:])

    def added(self, adder: int) -> tuple[dict[str, Any], Callable[[BaseException | None], None]]:
        """Return the arguments of an `add`, and what notes its end."""
        from qdrant_embed import IngestError, QdrantEmbedError

        count, batch = self.schedule.adders[adder]

        def progress(now: Any) -> None:
            self.account.note(adder=adder, stored=now.documents)

        def end(error: BaseException | None) -> None:
            if error is None:
                self.account.note(adder=adder, stored=count)
            elif isinstance(error, IngestError):
                self.account.note(adder=adder, stored=len(error.stored_ids))
            elif not isinstance(error, QdrantEmbedError):
                self.wrong(error)

        arguments = {
            "collection_name": self.name,
            "documents": [self.schedule.text(adder, number) for number in range(count)],
            "ids": self.schedule.ids(adder),
            "batch_size": batch,
            "progress": progress,
        }
        return arguments, end

    def calls(self, other: int) -> Iterator[tuple[Callable[[], Any], list[int], bool | None]]:
        """Yield inherited calls, the points that each changes, and whether they are there then."""
        from qdrant_client import models

        chance = random.Random(f"{self.schedule.seed} {other}")
        client, own, live = self.client, f"own-{self.schedule.seed}-{other}", set[int]()
        size = models.VectorParams(size=SIZE, distance=models.Distance.COSINE)
        yield partial(client.create_collection, own, size), [], True
        fresh = iter(range(OWN * (other + 1), OWN * (other + 2)))
        for _ in range(40):
            some = sorted(chance.sample(sorted(live), min(len(live), 3)))
            new = [next(fresh) for _ in range(chance.randint(1, 4))]
            points = [
                models.PointStruct(id=point, vector=[0.1] * SIZE, payload={"n": point})
                for point in new
            ]
            kind = chance.choice(
                ["upsert", "upload", "delete", "payload", "read", "query", "list", "ours"]
            )
            if kind == "upsert":
                live |= {*new}
                yield partial(client.upsert, own, points), new, True
            elif kind == "upload":
                live |= {*new}
                yield partial(client.upload_points, own, iter(points), wait=True), new, True
            elif kind == "delete" and some:
                live -= {*some}
                yield partial(client.delete, own, some), some, False
            elif kind == "payload" and some:
                yield partial(client.set_payload, own, {"m": 1}, some), [], True
            elif kind == "read":
                yield partial(client.scroll, own, limit=10), [], True
            elif kind == "query":
                yield partial(client.query_points, own, [0.1] * SIZE), [], True
            elif kind == "list":
                yield client.get_collections, [], True
            elif kind == "ours" and self.schedule.exists:
                yield partial(client.query, self.name, "a 1", limit=2), [], True

    # in threads

    def in_threads(self) -> None:
        from clients import LetterEncoder

        from qdrant_embed import QdrantClient

        client = self.client = QdrantClient(**self.options)
        client.set_model(LetterEncoder())
        if self.schedule.exists:
            client.add(self.name, ["first"], ids=[1])
        works: list[Callable[[], None]] = []
        works += [partial(self.add, adder) for adder in range(len(self.schedule.adders))]
        works += [partial(self.call, other) for other in range(self.schedule.others)]
        threads = [threading.Thread(target=self.guard, args=(work,)) for work in works]
        for thread in threads:
            thread.start()
        acts = ((self.schedule.fork, self.fork), (self.schedule.close, client.close))
        moments = [(moment, act) for moment, act in acts if moment is not None]
        for moment, act in sorted(moments, key=itemgetter(0)):
            while any(map(threading.Thread.is_alive, threads)) and not self.account.has(moment):
                time.sleep(0.001)
            time.sleep(self.schedule.late)
            self.guard(act)
        for thread in threads:
            thread.join()
        client.close()

    def add(self, adder: int) -> None:
        arguments, end = self.added(adder)
        try:
            self.client.add(**arguments)
        except BaseException as error:
            end(error)
        else:
            end(None)

    def call(self, other: int) -> None:
        for call, points, there in self.calls(other):
            self.account.note(points=points, there=None)
            call()
            self.account.note(points=points, there=there)

    def fork(self) -> None:
        """Read in a forked process, and write where that is allowed."""
        child = os.fork()
        if not child:
            faulthandler.dump_traceback_later(SECONDS / 4)
            self.guard(self.in_child)
            os._exit(0)
        deadline = time.monotonic() + SECONDS / 2
        while True:
            found, status = os.waitpid(child, os.WNOHANG)
            if found:
                break
            if time.monotonic() > deadline:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                self.account.note(wrong="a forked process hangs")
                return
            time.sleep(0.01)
        if status:
            self.account.note(wrong=f"a forked process ended with {status}")

    def in_child(self) -> None:
        from qdrant_embed import QdrantEmbedError

        client = self.client
        for act in (
            lambda: client.query(self.name, "a 1", limit=3),
            lambda: client.collection_exists(self.name),
            lambda: client.add(self.name, ["forked"], ids=[FORKED]),
            client.close,
        ):
            try:
                act()
            except QdrantEmbedError:
                continue

    # in tasks

    async def in_tasks(self) -> None:
        from clients import LetterEncoder

        from qdrant_embed import AsyncQdrantClient

        client = self.client = AsyncQdrantClient(**self.options)
        client.set_model(LetterEncoder())
        if self.schedule.exists:
            await client.add(self.name, ["first"], ids=[1])
        tasks = [asyncio.create_task(self.add_later(n)) for n in range(len(self.schedule.adders))]
        tasks += [asyncio.create_task(self.call_later(n)) for n in range(self.schedule.others)]
        if (moment := self.schedule.close) is not None:
            while not all(map(asyncio.Task.done, tasks)) and not self.account.has(moment):
                await asyncio.sleep(0.001)
            await client.close()
        await asyncio.gather(*tasks)
        await client.close()

    async def add_later(self, adder: int) -> None:
        arguments, end = self.added(adder)
        try:
            await self.client.add(**arguments)
        except BaseException as error:
            end(error)
        else:
            end(None)

    async def call_later(self, other: int) -> None:
        from qdrant_embed import QdrantEmbedError

        try:
            for call, points, there in self.calls(other):
                self.account.note(points=points, there=None)
                result = call()
                if result is not None:
                    await result
                self.account.note(points=points, there=there)
                await asyncio.sleep(0)
        except QdrantEmbedError:
            pass
        except BaseException as error:
            self.wrong(error)


def run(schedule: Schedule, store: str, place: str, path: Path) -> None:
    """Run a schedule to its end; in memory, look at what is stored."""
    account = Account(path)
    running = Run(schedule, store, place, account)
    try:
        if schedule.is_async:
            asyncio.run(running.in_tasks())
        else:
            running.in_threads()
    except BaseException as error:
        running.wrong(error)
    if store == "memory":
        database = running.client._client
        database._guard.is_closed = database._closed = False  # to look once more

        def every(collection: str) -> Any:
            if collection not in database.collections:
                return []
            found = database.scroll(collection, limit=10**6)
            return (asyncio.run(found) if schedule.is_async else found)[0]

        check(schedule, store, path, every)


def look(schedule: Schedule, store: str, place: str, path: Path) -> None:
    """Look at what a process left that has ended, or was killed."""
    from qdrant_embed import QdrantClient

    client = QdrantClient(**options(store, place, schedule.seed))

    def every(collection: str) -> Any:
        if not client.collection_exists(collection):
            return []
        return client.scroll(collection, limit=10**6)[0]

    check(schedule, store, path, every)
    client.close()


def check(schedule: Schedule, store: str, path: Path, every: Callable[[str], list[Any]]) -> None:
    """Note what is lost, or there though nobody stored it."""
    account, told = Account(path), Stored.of(path)
    found = {point.id: point.payload["document"] for point in every(name(store, schedule.seed))}
    expected = {1: "first", FORKED: "forked"}
    for adder in range(len(schedule.adders)):
        ids = schedule.ids(adder)
        expected |= {point: schedule.text(adder, number) for number, point in enumerate(ids)}
        lost = [point for point in ids[: told.counts.get(adder, 0)] if point not in found]
        if lost:
            account.note(wrong=f"lost of add {adder}: {lost}")
    foreign = {point: text for point, text in found.items() if expected.get(point) != text}
    if foreign:
        account.note(wrong=f"nobody stored {foreign}")
    for other in range(schedule.others):
        there = {point.id for point in every(f"own-{schedule.seed}-{other}")}
        block = range(OWN * (other + 1), OWN * (other + 2))
        known = {point: state for point, state in told.points.items() if point in block}
        wrong = [p for p, state in known.items() if state is not None and (p in there) != state]
        if wrong or there - {*known}:
            account.note(wrong=f"points of {other}: {wrong}, {sorted(there - {*known})[:5]}")


# processes


def in_process(work: Callable[[], None], kill: Callable[[], bool] | None = None) -> str:
    """Run something in a process of its own; return what became of that, if nothing good.

    `kill` tells when the process is killed.
    """
    child = os.fork()
    if not child:
        code = 1
        try:
            if sys.platform == "linux":
                import resource

                resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    deadline = time.monotonic() + SECONDS
    while True:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return f"status {status}" if status else ""
        is_late = time.monotonic() > deadline
        if is_late or (kill is not None and kill()):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return f"hung for {SECONDS} s" if is_late else ""
        time.sleep(0.001)


def tried(schedule: Schedule, store: str, place: str, path: Path) -> list[str]:
    """Run a schedule, look at what it left, and return what went wrong with the processes."""

    def is_due() -> bool:
        if schedule.kill is None or not path.exists() or path.stat().st_size < schedule.kill:
            return False
        time.sleep(schedule.late)
        return True

    wrong = [in_process(lambda: run(schedule, store, place, path), is_due)]
    if store != "memory":
        wrong.append(in_process(lambda: look(schedule, store, place, path)))
    return [one for one in wrong if one]


def main() -> None:
    import clients  # noqa: F401 - imported once for all

    import qdrant_embed  # noqa: F401 - likewise

    faulthandler.enable()
    store, place, first, count, folder = sys.argv[1:]
    for seed in range(int(first), int(first) + int(count)):
        schedule, path = Schedule.of(seed, store), Path(folder) / f"account-{seed}"
        wrong = tried(schedule, store, place, path)
        told = Stored.of(path)
        line = {"seed": seed, "schedule": repr(schedule), "stored": sum(told.counts.values())}
        line["wrong"] = wrong + told.wrong
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    main()
