"""Writers and encoders for Ray, Spark, Dask and pools of processes: `Writer` and `Encoder`.

Both are picklable callables. They take a batch, which is a dict of columns (lists or numpy arrays),
a pandas or Polars frame, or a table or record batch of Arrow, and return one of the same kind; an
iterator of batches they turn into an iterator of results. So they fit as they are::

    ray_dataset.map_batches(Writer, fn_constructor_kwargs={"url": url, ...}, concurrency=8)
    spark_frame.mapInPandas(writer, Writer.SCHEMA)       # or mapInArrow
    dask_frame.map_partitions(writer)
    with ProcessPoolExecutor() as pool: pool.map(writer, batches)

None of these libraries is imported here.
"""

from __future__ import annotations

import logging
import os
import pickle
import random
import sys
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeVar

import numpy as np

from qdrant_embed.client import QdrantClient
from qdrant_embed.collection.encoders import adapt
from qdrant_embed.collection.options import CollectionOptions, checked_options
from qdrant_embed.encoder.facts.catalog import DEFAULT_MODEL
from qdrant_embed.encoder.interfaces import (
    DenseEncoder,
    LateEncoder,
    SparseEncoder,
    check_encoder,
    check_late_encoder,
    check_sparse_encoder,
)
from qdrant_embed.encoder.late import LateInteractionTextEmbedding
from qdrant_embed.encoder.run.cores import usable_cores
from qdrant_embed.encoder.sparse import SparseTextEmbedding
from qdrant_embed.encoder.text import TextEmbedding
from qdrant_embed.engines.server import requested_wait
from qdrant_embed.errors import (
    IngestError,
    InputError,
    ServerUnavailableError,
    check_str,
    check_whole,
)
from qdrant_embed.flows.progress import IngestProgress
from qdrant_embed.flows.requests import LONGEST_RETRYING
from qdrant_embed.forks import ForkLock
from qdrant_embed.ingest.adding import AddOptions, OnExisting
from qdrant_embed.ingest.documents import Document
from qdrant_embed.ingest.frames import Columns, FrameRows, is_frame
from qdrant_embed.ingest.tables import pyarrow
from qdrant_embed.ingest.values import describe

logger = logging.getLogger(__name__)

T = TypeVar("T")

_PATIENCE = 1000  # retries of a request: they end after five minutes, and a queue may be as long
_TIMEOUT = 60  # seconds, of one request to a server that is kept busy

_MOST_HELD = 4  # clients and encoders that a process keeps
_held: OrderedDict[Hashable, Any] = OrderedDict()
_lock = ForkLock()


class Encoder:
    """A callable that adds a column of vectors to a batch.

    It is picklable. Each process that calls it loads the model when it does so for the first time,
    once for all encoders with the same model and options, and any number of threads may call it.

    Args:
        model: a known model's name, a folder, ``owner/name`` on the hub, or a custom encoder that
            can be pickled: a `TextEmbedding` made with ``lazy_load=True``, or an object with the
            methods of `DenseEncoder`. A folder written by ``qdrant-embed export`` needs neither a
            network nor compiling; it must be there on every machine.
        text: name of the column with the texts.
        vector: name of the column to add, of float32 values.
        threads: number of texts that one process encodes concurrently; by default, its share of the
            machine: ``OMP_NUM_THREADS``, which Ray and Spark set to the CPUs of a task and Dask's
            workers to 1 per thread, and without it the usable cores.
        cache_dir: folder of downloads and compiled models, which processes and machines can share:
            the first one makes what it lacks while the others wait. See `TextEmbedding`.

    Raises:
        InputError: if an option is invalid.
        UnknownModelError: if the model is known, but has no dense vectors.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | DenseEncoder = DEFAULT_MODEL,
        *,
        text: str = "text",
        vector: str = "vector",
        threads: int | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        check_str("vector", vector)
        if vector == text:
            raise InputError(
                f"text and vector are both {text!r}, so vectors would replace the texts; name "
                "another column for one of them"
            )
        self._columns, self._vector = Columns(text, metadata=()), vector
        self._models = _Models(model, None, None, threads, cache_dir)
        self._key = _key(self._models)

    def __call__(self, batch: Any) -> Any:
        """Return the batch with the column of vectors; for an iterator, an iterator of these.

        Args:
            batch: a batch, or an iterator of batches.

        Raises:
            InputError: if the batch is of another kind, lacks the column, or a text is not a str.
            ModelError: if the model cannot be found, downloaded or read.
        """
        if isinstance(batch, Iterator):
            return map(self._encode, batch)
        return self._encode(batch)

    def _encode(self, batch: Any) -> Any:
        if _is_rehearsal():
            return _with_column(batch, self._vector, np.zeros((len(batch), 1), np.float32))
        texts = [document.text for document in _documents(batch, self._columns)]
        encoder = adapt(_shared(self._key, self._models.dense))
        return _with_column(batch, self._vector, encoder.documents(texts))


class Writer:
    """A callable that stores a batch of documents in a collection and returns counts.

    Every document is stored once, whatever is killed, tried again, or run twice by a scheduler: ids
    are derived from content or taken from a column, and what is stored already is not encoded
    again. The collection is created by the first writer that has a document for it; any number of
    writers can start at the same time. A writer is picklable, its API key included. Each process
    that calls it opens a client and loads the model when it does so for the first time, once for
    all writers to the server with the same models and options, and any number of threads may call
    it.

    Many writers can ask more of a server than it accepts. As long as it answers that they shall
    come back in so many seconds, as a rate limit does, they do. Any other failure is one after
    five minutes, as it is of `QdrantClient.add`.

    Args:
        url: address of the Qdrant server, ``http://host:6333``.
        collection: name of the collection.
        model: see `Encoder`. Writers of one collection need the same model.
        text: name of the column with the texts.
        id: name of the column with ids as `QdrantClient.add` takes them; by default, ids are
            derived from text and metadata, as with ``ids="content"``.
        metadata: names of the columns to store with the text; by default, all others.
        threads: see `Encoder`.
        cache_dir: see `Encoder`.
        sparse_model: name of a sparse model, or an encoder that can be pickled, which makes
            searches hybrid.
        late_model: likewise, a late-interaction model that ranks candidates.
        on_existing: see `QdrantClient.add`. With ``"error"``, a batch that is tried again fails if
            a part of it was stored.
        batch_size: number of points per request; see `QdrantClient.add`.
        max_retries: number of retries of a request after a transient failure, within five minutes.
        collection_options: options for a collection that is created; see `QdrantClient.add`. With
            `CollectionOptions.bulk`, the index stays off until `QdrantClient.wait_until_indexed` is
            called, once all writers have ended.
        client_options: further arguments of `QdrantClient`, such as ``api_key`` and
            ``prefer_grpc``; ``timeout`` is 60 by default.

    Raises:
        InputError: if an option is invalid.
        UnknownModelError: if a model is known, but of another kind.

    Attributes:
        COUNTS: the columns of the result and their types: ``documents``, the rows of the batch;
            ``stored``, the documents that this call has stored; ``unchanged``, those that the
            collection had, also from an attempt that the server had ended with a wait. The rest are
            equal to other rows of the batch.
        SCHEMA: the same as Spark writes it.
    """

    COUNTS: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("documents", "stored", "unchanged"), "int64"
    )
    SCHEMA: ClassVar[str] = ", ".join(f"{name} long" for name in COUNTS)

    def __init__(
        self,
        url: str,
        collection: str,
        model: str | os.PathLike[str] | DenseEncoder = DEFAULT_MODEL,
        *,
        text: str = "text",
        id: str | None = None,
        metadata: Sequence[str] | None = None,
        threads: int | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        sparse_model: str | SparseEncoder | None = None,
        late_model: str | os.PathLike[str] | LateEncoder | None = None,
        on_existing: OnExisting = "skip",
        batch_size: int | None = None,
        max_retries: int = _PATIENCE,
        collection_options: CollectionOptions | None = None,
        client_options: Mapping[str, Any] | None = None,
    ) -> None:
        check_str("url", url)
        check_str("collection", collection)
        self._collection = collection
        self._columns = Columns(text, id, metadata)
        self._models = _Models(model, sparse_model, late_model, threads, cache_dir)
        for option in ("url", "location", "host", "path", "engine"):
            if option in (client_options or {}):
                raise InputError(
                    f"client_options has {option!r}, but a writer stores on the server at url "
                    f"({url}); omit it"
                )
        self._connection = {"timeout": _TIMEOUT, **(client_options or {}), "url": url}
        created = checked_options(collection_options)
        if created.indexing == "after add":  # but a batch is not all
            created = replace(created, indexing="after wait")
        self._options = AddOptions(
            batch_size=batch_size, on_existing=on_existing, collection_options=created
        )
        check_whole("max_retries", max_retries, 0)
        self._max_retries = max_retries
        self._key = _key((self._connection, self._models))

    def __call__(self, batch: Any) -> Any:
        """Store the documents of a batch and return one row of counts; see `COUNTS`.

        Args:
            batch: a batch, or an iterator of batches, which becomes an iterator of counts.

        Raises:
            The errors of `QdrantClient.add`.
        """
        if isinstance(batch, Iterator):
            return map(self._store, batch)
        return self._store(batch)

    def _store(self, batch: Any) -> Any:
        documents = [] if _is_rehearsal() else _documents(batch, self._columns)
        stored = unchanged = 0
        if documents:
            stored, unchanged = self._add(documents)
        counts = dict(zip(self.COUNTS, (len(documents), stored, unchanged), strict=True))
        return _like(batch, {name: np.array([count]) for name, count in counts.items()})

    def _add(self, documents: list[Document]) -> tuple[int, int]:
        """Store documents; return how many this call stored, and how many there were."""
        client, options = _shared(self._key, self._client), self._options
        while True:
            reports: list[IngestProgress] = []
            try:
                ids = client.add(
                    self._collection,
                    documents,
                    ids="content" if self._columns.id is None else None,
                    batch_size=options.batch_size,
                    max_retries=self._max_retries,
                    on_existing=options.on_existing,
                    progress=reports.append,
                    collection_options=options.collection_options,
                )
            except (IngestError, ServerUnavailableError) as error:
                wait = _requested_wait(error)
                if wait is None:
                    raise
                logger.warning(
                    "collection %r: the server accepts no more for now, trying again in %.0f s",
                    self._collection,
                    wait,
                )
                time.sleep(wait)
            else:
                unchanged = reports[-1].unchanged
                return len({*ids}) - unchanged, unchanged

    def _client(self) -> QdrantClient:
        client = QdrantClient(**self._connection)
        models = self._models
        client.set_model(models.dense())
        if models.sparse_model is not None:
            client.set_sparse_model(models.sparse())
        if models.late_model is not None:
            client.set_late_model(models.late())
        return client


@dataclass(frozen=True)
class _Models:
    """The models of a writer or an encoder, made in the process that uses them, and lazily."""

    model: str | os.PathLike[str] | DenseEncoder
    sparse_model: str | os.PathLike[str] | SparseEncoder | None
    late_model: str | os.PathLike[str] | LateEncoder | None
    threads: int | None
    cache_dir: str | os.PathLike[str] | None

    def __post_init__(self) -> None:
        if self.threads is not None:
            check_whole("threads", self.threads, 1)
        # what no process could load
        self.dense()
        self.sparse()
        self.late()

    @property
    def _options(self) -> dict[str, Any]:
        threads = share_of_cores() if self.threads is None else self.threads
        return {"threads": threads, "cache_dir": self.cache_dir, "lazy_load": True}

    def dense(self) -> DenseEncoder:
        model, options = self.model, self._options
        if isinstance(model, str | os.PathLike):
            return TextEmbedding(model, **options)
        if isinstance(model, TextEmbedding):
            return model.variant(threads=options["threads"])
        return check_encoder(model)

    def sparse(self) -> SparseEncoder | None:
        model = self.sparse_model
        if isinstance(model, str | os.PathLike):
            return SparseTextEmbedding(model, **self._options)
        return None if model is None else check_sparse_encoder(model)

    def late(self) -> LateEncoder | None:
        model = self.late_model
        if isinstance(model, str | os.PathLike):
            return LateInteractionTextEmbedding(model, **self._options)
        return None if model is None else check_late_encoder(model)


def _requested_wait(error: BaseException) -> float | None:
    """Return how long to wait if a server asked for that because it is asked too much.

    ``None`` if it is another failure, or the server asks for longer than a rate limit would.
    """
    cause: BaseException | None = error
    while cause is not None:
        wait = requested_wait(cause)
        if wait is not None and wait <= LONGEST_RETRYING:
            return wait * random.uniform(1, 1.25)  # noqa: S311 - writers shall not meet again
        cause = cause.__cause__
    return None


def share_of_cores() -> int:
    """Return the cores that are this process's share of the machine, at least 1.

    ``OMP_NUM_THREADS`` says so where several tasks share a machine: Ray sets it to the CPUs of a
    task or actor, Spark to ``spark.task.cpus``, joblib to its share, and Dask's workers to 1, each
    of whose threads runs a task. Without it, these are the usable cores.
    """
    share = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    cores = usable_cores()
    return min(int(share), cores) if share.isdecimal() and int(share) else cores


def _key(settings: object) -> Hashable:
    """Return what equal settings have in common, in all processes: they share a model."""
    try:
        return pickle.dumps(settings)
    except Exception:  # noqa: BLE001 - what is a function of a script, say, goes by cloudpickle
        return uuid.uuid4().bytes


def _shared(key: Hashable, make: Callable[[], T]) -> T:
    """Return what this process has made for the key; make it if it has not."""
    with _lock:
        if key not in _held:
            _held[key] = make()  # quickly: models are loaded when they are first used
        _held.move_to_end(key)
        while len(_held) > _MOST_HELD:
            _held.popitem(last=False)  # whoever uses it goes on
        found: T = _held[key]
        return found


def _is_rehearsal() -> bool:
    """Return whether Dask only wants to know what the result looks like.

    It calls functions with a partition that it has made up, which must not be stored.
    """
    frame = sys._getframe() if "dask" in sys.modules else None
    while frame is not None:
        if frame.f_code.co_name == "emulate" and frame.f_globals["__name__"].startswith("dask."):
            return True
        frame = frame.f_back
    return False


def _documents(batch: Any, columns: Columns) -> list[Document]:
    """Return the rows of a batch as documents.

    Raises:
        InputError: if it is no batch, or a column is missing or cannot be used.
    """
    if not is_frame(batch):
        raise InputError(
            "a batch must be a dict of columns, a DataFrame of pandas or Polars, or a table or "
            f"record batch of Arrow, or the argument an iterator of these, not {describe(batch)}"
        )
    return [*FrameRows(batch, columns)]


def _like(batch: Any, columns: Mapping[str, Any]) -> Any:
    """Return columns as a batch of the same kind."""
    if isinstance(batch, Mapping):
        return dict(columns)
    make = getattr(type(batch), "from_pydict", type(batch))  # of Arrow; else a DataFrame
    return make(columns)


def _with_column(batch: Any, name: str, rows: Any) -> Any:
    """Return a batch with a column of vectors, float32 [rows, dimension], instead of any other.

    The type of the column is the same if there are no rows.
    """
    if isinstance(batch, Mapping):
        return {**batch, name: rows}
    if hasattr(batch, "assign"):  # pandas
        objects = np.empty(len(rows), object)
        for index, row in enumerate(rows):
            objects[index] = row
        return batch.assign(**{name: objects})
    if hasattr(batch, "with_columns"):  # Polars
        return batch.with_columns(_like(batch, {name: rows})[name])
    arrow = pyarrow("a batch of Arrow")
    if rows.size >= 2**31:
        raise InputError(
            f"a batch of {len(rows):,} texts has more numbers than a column of Arrow; pass smaller "
            "ones"
        )
    starts = np.arange(len(rows) + 1, dtype=np.int32) * np.int32(rows.shape[1])
    column = arrow.ListArray.from_arrays(starts, np.ascontiguousarray(rows).reshape(-1))
    names = batch.schema.names
    place = names.index(name) if name in names else len(names)
    rest = batch.select([at for at, own in enumerate(names) if own != name])
    fields, columns = [*rest.schema], [*rest.columns]
    fields.insert(place, arrow.field(name, column.type))
    columns.insert(place, column)
    told = batch.schema.metadata
    if told and place < len(names):  # these describe the column that was there
        told = {key: said for key, said in told.items() if key not in (b"pandas", b"huggingface")}
    return type(batch).from_arrays(columns, schema=arrow.schema(fields, metadata=told))
