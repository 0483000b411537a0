"""One collection's shard: asked, changed, kept on disk, and given an index while it is used."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

from qdrant_client import models

from qdrant_embed.engines.edge import builder, conversion
from qdrant_embed.engines.edge.conversion import NOTHING, edge
from qdrant_embed.engines.edge.folder import Collection, Folder, explained, sync_folder
from qdrant_embed.errors import ClientStateError, FolderError
from qdrant_embed.forks import ForkLock, keep_forever

logger = logging.getLogger(__name__)

T = TypeVar("T")

# Points that are changed at a time, and bytes: the engine lets no other thread run meanwhile.
PART = 256
PART_BYTES = 2**20
# Free bytes of the disk, below which nothing more is stored. The engine writes through memory: a
# disk that is full ends the process with SIGBUS.
LEAST_SPACE = 64 * 2**20

_POLL = 0.05  # seconds between two looks at a process that builds
# Changed points after which the engine itself flushes, which lets no other thread run for 50 ms and
# more. Until then its log is kept on the disk, from which 20,000 are read in about a second.
_LOGGED = 20_000
_TIMES_WRITTEN = 3  # of what is stored: in the log, in a segment, in indices
_SMALL_SPACE = 4 * 2**20  # free bytes that deletions need
_OPENING_SPACE = 40 * 2**20  # and opening, which begins another part of the log, of 32 MB
_FEW = 512  # changed points that are brought over while others wait
_LOG = "wal"  # folder of what has been changed, in a shard's
_CLOSED = "Shard is not initialized"
_MISSING = re.compile(r"No point with id (\S+)")
_BROKEN = re.compile(
    r"os error|No space left|Service (runtime|internal) error|I/O error|Can't (init|write)|WAL|mmap"
)
_FIXED = "config is incompatible with existing segments"
_HELD = "WouldBlock"  # a lock
_FULL = re.compile(r"No space left|os error 28\b|Disk quota")


class Shard:
    """A shard that is open.

    Threads may share it: what it is asked is answered at once, and changes take turns.

    Args:
        folder: the folder of its database.
        name: name of its collection, which the folder's manifest has.

    Raises:
        FolderError: if it cannot be opened.
    """

    def __init__(self, folder: Folder, name: str) -> None:
        self._folder, self.name = folder, name
        self._changing = ForkLock()
        self._open = self._loaded(self.collection)
        self._is_closed, self._is_dirty = False, False
        self._has_begun = False  # to change something, since a change was begun
        self._flushing = ForkLock()
        self._logged = 0  # points changed since the engine flushed
        self._restored = 0  # points changed since the index was built: a change takes them out
        self._is_gone = False  # closed because its collection was deleted
        self._meanwhile: _Changes | None = None  # while an index is built
        self._indexing, self._gave_up = threading.Lock(), False
        self._stop = threading.Event()

    @classmethod
    def create(cls, folder: Folder, name: str, config: models.CreateCollection) -> Shard:
        """Create a collection's shard, then have the folder's manifest say so.

        Raises:
            FolderError: if it cannot be written.
            ValueError: if the engine cannot store such a collection.
        """
        collection = Collection(key=folder.new_key(), config=config)
        path = folder.shard(collection)
        _check_space(folder.path, LEAST_SPACE)
        try:
            with _told(folder.path, name):
                path.mkdir()
                shard = edge.EdgeShard.create(str(path), conversion.edge_config(config))
                shard.flush()
                shard.close()
            with folder.change() as manifest:
                manifest.collections[name] = collection
        except BaseException:
            folder.discard(collection.key)
            raise
        return cls(folder, name)

    @property
    def collection(self) -> Collection:
        """What the folder's manifest says of the collection; another object once that changes.

        Raises:
            ValueError: if it has been deleted.
        """
        try:
            return self._folder.manifest.collections[self.name]
        except KeyError:
            raise ValueError(f"Collection {self.name} not found") from None

    def _say(self, record: Callable[[Collection], None]) -> None:
        """Have the folder's manifest say something else of the collection."""
        changed = self.collection.model_copy(deep=True)
        record(changed)
        with self._folder.change() as manifest:
            manifest.collections[self.name] = changed

    # asking

    def ask(self, method: str, *requests: Any, **options: Any) -> Any:
        """Ask the engine, and return what it answers.

        Args:
            method: name of a method of ``EdgeShard`` that changes nothing.
            requests: its arguments.
            options: its keyword arguments.

        Raises:
            ValueError: if the engine refuses the request.
            FolderError: if it cannot read the folder.
            ClientStateError: if the shard is closed, or belongs to another process.
        """
        while True:
            self._check()
            shard = self._open
            try:
                return getattr(shard, method)(*requests, **options)
            except Exception as error:
                if _CLOSED in str(error) and self._is_opened_again(shard):
                    continue
                raise self._explained(error) from error
            except BaseException as error:
                raise _panic(error, self._folder.path, self.name) from error

    def _is_opened_again(self, closed: Any) -> bool:
        """Return whether another one is open in place of a shard of the engine's."""
        with self._changing:  # it may be about to be
            self._check()
            return self._open is not closed

    def info(self) -> Any:
        """Return what the engine says of the shard: numbers of points, indices of fields."""
        return self.ask("info")

    def all_ids(self, condition: Any) -> list[int | UUID]:
        """Return the ids of all points that match a filter of the engine's."""
        ids: list[int | UUID] = []
        offset = None
        while True:
            found, offset = self.ask(
                "scroll",
                edge.ScrollRequest(
                    offset=offset,
                    limit=10_000,
                    filter=condition,
                    with_payload=False,
                    with_vector=False,
                ),
            )
            ids += (point.id for point in found)
            if offset is None:
                return ids

    # changing

    @contextlib.contextmanager
    def change(self) -> Iterator[Callable[..., None]]:
        """Let one thread change the shard; yield `_update`, which does.

        Raises:
            ValueError: if the engine refuses an operation.
            FolderError: if it cannot write the folder.
            ClientStateError: if the shard is closed, or belongs to another process.
        """
        with self._changing:
            self._check()
            self._has_begun = False
            try:
                yield self._update
            except FolderError as error:
                error.is_partial |= self._has_begun
                raise

    def _update(
        self, ids: Sequence[int | UUID], operation: Any, size: int = 0, *, grows: bool = True
    ) -> None:
        """Have the engine do something.

        Args:
            ids: of the points that change.
            operation: what it does.
            size: number of bytes that it stores, about.
            grows: whether more is stored afterwards.
        """
        needed = LEAST_SPACE + _TIMES_WRITTEN * size if grows else _SMALL_SPACE
        _check_space(self._folder.path, needed)
        if self._meanwhile is not None:
            self._meanwhile.points.update(ids)
        self._has_begun = self._is_dirty = True
        self._logged += len(ids)
        if grows:
            self._restored += len(ids)
        try:
            self._open.update(operation)
        except Exception as error:
            raise self._explained(error) from error
        except BaseException as error:
            raise _panic(error, self._folder.path, self.name) from error

    def reshape(self, operation: Any, *, first: bool, record: Callable[[Collection], None]) -> None:
        """Change what points can have: a named vector, an index of a field.

        What is written in the manifest counts: a process that dies in between leaves what was.

        Args:
            operation: what the engine shall do.
            first: whether that comes before `record`: something is added, not removed.
            record: changes what the manifest says of the collection.
        """
        with self.change() as update:
            if first:
                update([], operation)
            self._say(record)
            if not first:
                update([], operation)
            if self._meanwhile is not None:
                self._meanwhile.shape.append(operation)
            self._settle()

    def configure(self, record: Callable[[Collection], None]) -> None:
        """Change the collection's configuration, and open the shard with it."""
        with self.change():
            before = self.collection
            try:
                self._say(record)
                self._open = self._with_config(self._open, self.collection)
            except BaseException:
                with self._folder.change() as manifest:
                    manifest.collections[self.name] = before
                with contextlib.suppress(Exception):
                    self._open.close()
                self._open = self._loaded(before)
                raise

    def _with_config(self, shard: Any, collection: Collection) -> Any:
        """Return a shard of the engine's opened again, as its collection is configured now."""
        with _told(self._folder.path, self.name):
            config = conversion.edge_config(collection.config)
            shard.flush()
            shard.close()
            return edge.EdgeShard.load(str(self._folder.shard(collection)), config)

    def describe(self, record: Callable[[Collection], None]) -> None:
        """Change what the manifest says of the collection, where the engine need not know."""
        with self._changing:
            self._check()
            self._say(record)

    def flush(self) -> None:
        """Have the disk keep all changes, also if the machine fails.

        Raises:
            FolderError: if they cannot be written.
            ClientStateError: if the shard is closed, or belongs to another process.
        """
        with self._flushing:
            with self._changing:
                self._check()
                if not self._is_dirty:
                    return
                if self._logged >= _LOGGED or os.name == "nt":
                    self._settle()
                    return
                self._is_dirty = False
                collection = self.collection
            try:
                _sync_files(self._folder.shard(collection) / _LOG)
            except OSError as error:
                now = self._folder.manifest.collections.get(self.name)
                if now is not None and now.key == collection.key:
                    self._is_dirty = True
                    raise explained(error, self._folder.path) from error
                # it is deleted, or another folder has been put in its place, and flushed

    def _settle(self) -> None:
        """Have the engine write its segments, so that its log is not needed any more."""
        with _told(self._folder.path, self.name):
            self._open.flush()
        self._is_dirty, self._logged = False, 0

    @property
    def is_dirty(self) -> bool:
        """Whether there are changes that a failure of the machine could take away."""
        return self._is_dirty and not self._is_closed

    # its index

    def unindexed(self) -> int:
        """Return how many numbers an index would spare a search to compare; 0 if none is wanted."""
        tuned = self.collection.config.optimizers_config
        if tuned is not None and tuned.indexing_threshold == 0:
            return 0
        dense = conversion.dense_of(self.collection.config)
        size = max((params.size for params in dense.values()), default=0)
        # what the engine counts as indexed are vectors of all kinds, and those that were replaced
        points: int = self.info().points_count
        return max(points - self.collection.indexed, min(points, self._restored)) * size

    @property
    def is_indexing(self) -> bool:
        """Whether an index is being built, or could not be."""
        return self._indexing.locked() or self._gave_up

    def index_in_background(self) -> None:
        """Begin `optimize` in a thread, and log what becomes of it."""
        points = self.info().points_count
        logger.info(
            "collection %r: building an index of %d points in the background", self.name, points
        )

        def index() -> None:
            started = time.monotonic()
            try:
                self.optimize()
            except ClientStateError:  # closed meanwhile
                pass
            except (FolderError, ValueError) as error:
                self._gave_up = True
                logger.warning("collection %r goes on without an index: %s", self.name, error)
            else:
                logger.info(
                    "collection %r: the index is in use after %.0f s",
                    self.name,
                    time.monotonic() - started,
                )

        threading.Thread(target=index, name="qdrant-embed-index", daemon=True).start()

    def optimize(self, on_step: Callable[[str], None] = lambda _: None) -> bool:
        """Build the index of what has none, while the shard is used; return whether there is one.

        It is built in another process, on a copy. What changes meanwhile is brought over, and the
        copy takes the place of the shard. A process that dies on the way leaves the shard as it is.

        Args:
            on_step: called with each step that begins.

        Raises:
            FolderError: if there is no space for a copy, or it cannot be built.
            ClientStateError: if the shard is closed.
        """
        self._check()
        with self._indexing:
            key = self._folder.new_key()
            path = self._folder.shard_of(key)
            try:
                on_step("copying")
                copied = self._copy(path)
                on_step("indexing")
                self._built(path)
                on_step("exchanging")
                self._exchange(copied, key)
            except BaseException:
                self._folder.discard(key)
                raise
            finally:
                with self._changing:
                    self._meanwhile = None
        return True

    def _copy(self, path: Path) -> Collection:
        """Copy the shard; return what its collection was then."""
        with self._changing:
            self._check()
            self._settle()
            collection = self.collection
            here = self._folder.shard(collection)
            needed = sum(_size(file) for file in here.rglob("*"))
            _check_space(self._folder.path, 2 * needed + LEAST_SPACE)
            self._meanwhile = _Changes(set(), [], self._restored)
            try:
                shutil.copytree(here, path, copy_function=_copy_file)
            except (OSError, shutil.Error) as error:
                raise explained(error, self._folder.path) from error
            return collection

    def _built(self, path: Path) -> None:
        with builder.start(path) as process:
            try:
                while process.poll() is None:
                    if self._stop.wait(_POLL):
                        raise ClientStateError(
                            f"collection {self.name!r} was closed while its index was built"
                        )
                _, said = process.communicate()
            finally:
                if process.poll() is None:
                    builder.end(process)
        if process.returncode:
            last = said.decode(errors="replace").strip().splitlines()[-1:]
            raise FolderError(
                f"the index of collection {self.name!r} could not be built (exit code "
                f"{process.returncode}): {''.join(last):.300}",
                path=str(self._folder.path),
            )

    def _exchange(self, copied: Collection, key: str) -> None:
        """Have a copy with an index take the shard's place.

        Args:
            copied: what the collection was when it was copied.
            key: key of the copy.
        """
        fresh = self._loaded(copied.model_copy(update={"key": key}))
        indexed: int = fresh.info().points_count
        try:
            while self._meanwhile is not None and len(self._meanwhile.points) > _FEW:
                for part in parts(self._changed_meanwhile()):
                    with self._changing:
                        self._bring_over(fresh, part)
            with self._changing:
                self._check()
                before = self.collection
                for part in [[], *parts(self._changed_meanwhile())]:
                    self._bring_over(fresh, part)
                if _options(before) != _options(copied):
                    fresh = self._with_config(fresh, before.model_copy(update={"key": key}))
                with _told(self._folder.path, self.name):
                    fresh.flush()
                with self._folder.change() as manifest:
                    manifest.collections[self.name] = before.model_copy(
                        update={"key": key, "indexed": indexed}
                    )
                old, self._open = self._open, fresh
                self._is_dirty, self._logged = False, 0
                if self._meanwhile is not None:
                    self._restored -= self._meanwhile.restored
        except BaseException:
            with self._changing:
                if self._open is not fresh:
                    if not self._is_gone and self.collection.key == key:
                        with self._folder.change() as manifest:
                            manifest.collections[self.name] = before
                    with contextlib.suppress(Exception):  # it may be closed
                        fresh.close()
            raise
        with _told(self._folder.path, self.name):
            old.close()
        shutil.rmtree(self._folder.shard(before), ignore_errors=True)

    def _changed_meanwhile(self) -> set[int | UUID]:
        """Return the points that have changed since this was asked last."""
        with self._changing:
            if self._meanwhile is None:
                return set()
            points, self._meanwhile.points = self._meanwhile.points, set()
            return points

    def _bring_over(self, fresh: Any, ids: list[int | UUID]) -> None:
        """Have a copy know of these points, and of what points can have, what this shard does."""
        self._check()
        _check_space(self._folder.path, LEAST_SPACE)
        with _told(self._folder.path, self.name):
            if self._meanwhile is not None:
                while self._meanwhile.shape:
                    fresh.update(self._meanwhile.shape.pop(0))
            found = self._open.retrieve(ids, True, True)
            there = {point.id for point in found}
            gone = [point for point in ids if point not in there]
            if gone:
                fresh.update(edge.UpdateOperation.delete_points(gone))
            if found:
                points = [edge.Point(each.id, each.vector, each.payload) for each in found]
                fresh.update(edge.UpdateOperation.upsert_points(points))

    # opening and closing

    def _loaded(self, collection: Collection) -> Any:
        path = self._folder.shard(collection)
        if not path.is_dir():
            raise FolderError(
                f"collection {self.name!r} in {str(self._folder.path)!r} has lost its folder "
                f"{path.name}: restore it, or call client.delete_collection({self.name!r})",
                path=str(self._folder.path),
            )
        _check_space(self._folder.path, _OPENING_SPACE)
        with _told(self._folder.path, self.name):
            shard = edge.EdgeShard.load(str(path))
        try:
            self._reconcile(shard, collection)
        except BaseException:
            shard.close()
            raise
        return shard

    def _reconcile(self, shard: Any, collection: Collection) -> None:
        """Have a shard be what the manifest says: a process may have died between the two."""
        with _told(self._folder.path, self.name):
            found = {
                field: str(info.data_type).rpartition(".")[2].lower()
                for field, info in shard.info().payload_schema.items()
            }
            wanted = {
                field: conversion.index_kind(schema) for field, schema in collection.indices.items()
            }
            for field, kind in found.items():
                if wanted.get(field) != kind:
                    shard.update(edge.UpdateOperation.delete_field_index(field))
            for field, kind in wanted.items():
                if found.get(field) != kind:
                    schema = conversion.edge_index(collection.indices[field])
                    shard.update(edge.UpdateOperation.create_field_index(field, schema))
            stored, named = _vector_names(self._folder.shard(collection)), _names(collection)
            for name in stored - set(named) - {NOTHING}:
                shard.update(edge.UpdateOperation.delete_vector_name(name))
            for name in set(named) - stored:
                shard.update(conversion.new_vector(name, named[name]))

    def close(self, *, is_gone: bool = False) -> None:
        """Have the disk keep all changes, and close the shard; what is being built is given up.

        Args:
            is_gone: whether the collection is deleted: nothing need be kept.
        """
        self._stop.set()
        if self._folder.is_inherited:
            return
        with self._indexing, self._changing:
            if self._is_closed:
                return
            self._is_closed, self._is_gone = True, is_gone
            try:
                with _told(self._folder.path, self.name):
                    try:
                        if self._logged and not is_gone:
                            self._open.flush()
                    finally:
                        self._open.close()
            except FolderError:
                if not is_gone:
                    raise

    def after_fork(self) -> None:
        """Leave the engine alone in a child: its threads are the parent's."""
        keep_forever(self._open)

    def _check(self) -> None:
        if self._is_closed or self._folder.is_inherited:
            if self._is_gone and not self._folder.is_inherited:
                raise ValueError(f"Collection {self.name} not found")
            raise self._folder.closed_error()

    def _explained(self, error: Exception) -> Exception:
        return _explained(error, self._folder.path, self.name)


def _check_space(path: Path, needed: int) -> None:
    """Raise `FolderError` if the disk of a folder has less space than is needed."""
    try:
        free = shutil.disk_usage(path).free
    except OSError as error:
        raise explained(error, path) from error
    if free < needed:
        raise FolderError(
            f"the disk of {str(path)!r} has {free / 1e6:.0f} MB left, and {needed / 1e6:.0f} are "
            "needed to go on safely: make space",
            path=str(path),
        )


@contextlib.contextmanager
def _told(path: Path, collection: str) -> Iterator[None]:
    """Raise what the engine raises as an error that says what to do."""
    try:
        yield
    except (FolderError, ClientStateError):
        raise
    except Exception as error:  # the engine's own are of no narrower type
        raise _explained(error, path, collection) from error
    except BaseException as error:
        raise _panic(error, path, collection) from error


def _explained(  # noqa: PLR0911 - one for each kind
    error: Exception, path: Path, collection: str
) -> Exception:
    if isinstance(error, OSError):
        return explained(error, path)
    message = " ".join(str(error).split())
    if missing := _MISSING.search(message):
        return ValueError(f"No point with id {missing[1]} in collection {collection!r}")
    if _FULL.search(message):
        return FolderError(f"folder {str(path)!r} has no space left ({message})", path=str(path))
    if _FIXED in message:
        return ValueError(f"Wrong input: this cannot be changed afterwards: {message:.300}")
    if _HELD in message:
        return FolderError(
            f"collection {collection!r} in {str(path)!r} is open in another process, which may be "
            "a fork of this one: let that end first",
            path=str(path),
        )
    if _BROKEN.search(message):
        return FolderError(
            f"collection {collection!r} in {str(path)!r} cannot be read or written: it is damaged, "
            f"or its folder was removed ({message:.300})",
            path=str(path),
        )
    return ValueError(f"Wrong input: {message:.500}")


def _panic(error: BaseException, path: Path, collection: str) -> BaseException:
    """Return the error for a failure of the engine itself, which is no ``Exception``."""
    if type(error).__name__ != "PanicException":
        return error
    return FolderError(
        f"collection {collection!r} in {str(path)!r} cannot be used: it is damaged "
        f"({' '.join(str(error).split()):.300})",
        path=str(path),
    )


def _size(file: Path) -> int:
    try:
        status = file.stat()
    except FileNotFoundError:
        return 0
    # a log is reserved as a whole, and mostly empty
    blocks: int | None = getattr(status, "st_blocks", None)  # not on Windows
    return status.st_size if blocks is None else blocks * 512


def _copy_file(source: str, target: str) -> str:
    """Copy a file without making its holes real."""
    data_at: int | None = getattr(os, "SEEK_DATA", None)  # not on Windows
    hole_at: int | None = getattr(os, "SEEK_HOLE", None)
    with open(source, "rb") as read, open(target, "wb") as written:
        size = os.fstat(read.fileno()).st_size
        if data_at is None or hole_at is None:
            shutil.copyfileobj(read, written, 2**20)
            return target
        position = 0
        while position < size:
            try:
                start = os.lseek(read.fileno(), position, data_at)
            except OSError:  # a hole up to the end
                break
            end = os.lseek(read.fileno(), start, hole_at)
            read.seek(start)
            written.seek(start)
            while start < end:
                data = read.read(min(2**20, end - start))
                written.write(data)
                start += len(data)
            position = end
        written.truncate(size)
    return target


def _sync_files(folder: Path) -> None:
    """Have the disk keep the files of a folder; other threads run meanwhile, and rename some."""
    while True:
        with contextlib.ExitStack() as opened:
            try:
                files = [opened.enter_context(file.open("rb")) for file in folder.iterdir()]
            except FileNotFoundError:
                if not folder.is_dir():
                    raise
                continue
            for file in files:
                os.fsync(file.fileno())
            break
    sync_folder(folder)


def _vector_names(path: Path) -> set[str]:
    config = json.loads((path / "edge_config.json").read_text(encoding="utf-8"))
    return {*(config.get("vectors") or {}), *(config.get("sparse_vectors") or {})}


def _names(collection: Collection) -> dict[str, Any]:
    """Return the configuration of each vector that points can have, by name."""
    named: dict[str, Any] = {
        name: models.DenseVectorNameConfig(
            dense=models.DenseVectorConfig(
                size=params.size,
                distance=params.distance,
                multivector_config=params.multivector_config,
                datatype=models.VectorStorageDatatype(params.datatype.value)
                if params.datatype
                else None,
            )
        )
        for name, params in conversion.dense_of(collection.config).items()
    }
    for name, sparse in (collection.config.sparse_vectors or {}).items():
        named[name] = models.SparseVectorNameConfig(
            sparse=models.SparseVectorConfig(modifier=sparse.modifier)
        )
    return named


@dataclass
class _Changes:
    """What changes while an index is built of a copy.

    Attributes:
        points: ids of the points that have.
        shape: operations that change what points can have, in order.
        restored: how many had changed before.
    """

    points: set[int | UUID]
    shape: list[Any]
    restored: int


def _options(collection: Collection) -> Any:
    """Return what the engine is told of a collection when its shard is opened."""
    return collection.config.model_copy(update={"metadata": None})


def parts(items: Iterable[T], size: int = PART) -> Iterator[list[T]]:
    """Yield items in lists of `size`; the last one can be shorter."""
    left = iter(items)
    return iter(lambda: list(islice(left, size)), [])
