"""The synchronous client: signatures only, which pass their arguments to flows."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any
from uuid import UUID

from qdrant_client import models
from qdrant_client.conversions import common_types as types

from qdrant_embed.collection.indexing import optimize
from qdrant_embed.collection.migration import MigrationOptions, migrate
from qdrant_embed.collection.options import CollectionOptions
from qdrant_embed.collection.settings import (
    ModelSettings,
    late_models,
    sparse_models,
    text_models,
)
from qdrant_embed.collection.transfer import CopyOptions, Database, copy_collections
from qdrant_embed.encoder.interfaces import DenseEncoder, Reranker
from qdrant_embed.engines.connection import OwnConnections
from qdrant_embed.engines.engine import run_blocking
from qdrant_embed.errors import InputError
from qdrant_embed.flows.io import BlockingIo
from qdrant_embed.flows.opened import OPENING, Opened, open_blocking
from qdrant_embed.flows.progress import ProgressOption
from qdrant_embed.flows.requests import MAX_RETRIES
from qdrant_embed.ingest.adding import (
    AddOptions,
    OnExisting,
    add_documents,
    add_frame,
    delete_documents,
)
from qdrant_embed.ingest.documents import Document
from qdrant_embed.ingest.frames import Frame
from qdrant_embed.ingest.ids import ContentIds, IdScheme, points_by_id
from qdrant_embed.ingest.whole_documents import (
    DocumentScroll,
    ScrollOptions,
    StoredDocument,
    get_documents,
    update_metadata,
)
from qdrant_embed.search.filters import combined
from qdrant_embed.search.groups import Grouping, GroupResponse, answer_groups
from qdrant_embed.search.search import Fusion, QueryResponse, Search, answer, checked_queries


class QdrantEmbedMixin(ModelSettings, OwnConnections):
    """A mixin that adds `add` and `query` to your own Qdrant client class.

    All methods of ``qdrant_client.QdrantClient`` stay. Threads can share a client: requests to a
    local database take turns, those of inherited methods, too. ``close()`` waits for requests that
    run in other threads; what comes later is a `ClientStateError`. In a process that was forked,
    `add`, `query` and the other methods of this package open connections of their own; a folder can
    only be read there, and only with local mode.
    """

    @property
    def _io(self) -> BlockingIo:
        opened: Opened[BlockingIo] | None = self.__dict__.get("_opened")
        if opened is None or not opened.is_here():
            with OPENING:
                opened = self.__dict__.get("_opened")
                if opened is None or not opened.is_here():
                    opened = open_blocking(opened, self._client, self.init_options)
                    self._client = opened.database
                    self.__dict__["_opened"] = opened
        return opened.io

    # documents in

    def add(
        self,
        collection_name: str,
        documents: Iterable[str | Document],
        metadata: Iterable[Mapping[str, Any]] | None = None,
        ids: Iterable[int | str | UUID] | IdScheme | None = None,
        batch_size: int | None = None,
        parallel: int | None = None,
        *,
        wait: bool = True,
        max_retries: int = MAX_RETRIES,
        on_existing: OnExisting = "overwrite",
        progress: ProgressOption = None,
        shard_key_selector: types.ShardKeySelector | None = None,
        collection_options: CollectionOptions | None = None,
    ) -> list[str | int]:
        """Embed and store documents; return their ids in input order.

        The collection is created with the first document if it does not exist. Texts are encoded
        while earlier ones are uploaded. Lists are checked completely before anything is stored;
        other iterables are read once and need not fit in memory.

        Args:
            collection_name: name of the collection.
            documents: the texts, or `Document` objects, each with its own metadata and id. Here and
                in `metadata` and `ids`, a Series, an Index, an array of one dimension or a column
                of Arrow or Polars does like a list; tables and sets are refused.
            metadata: one dict per text, copied when it is read, and stored with it. Values must be
                JSON-serialisable, at every depth; dates, times, UUIDs and paths are stored as
                strings, numpy scalars as numbers, arrays as lists, a `decimal.Decimal` as a whole
                number if it has no decimal places, else as a float. NaN, infinity, bytes, complex
                numbers, sets (which have no order), iterators, custom objects and a Decimal with
                more digits than a float are refused, with the document's position and the key.
                Whole numbers must be from -2**63 to 2**63-1, which is what every Qdrant returns
                unchanged.
            ids: one id per text: a whole number, a UUID (as `uuid.UUID` or str) or any other str,
                which is stored in the payload while the point gets the UUID that `point_id`
                derives from it. Or ``"content"`` for UUIDs derived from text and metadata: adding
                the same documents again changes nothing, and equal documents in one input become
                one point. Or `ContentIds` to choose the metadata that the id depends on; of
                documents with equal ids, the first one in the input is stored. Without ids, each
                text gets a random UUID, as a str with hyphens.
            batch_size: number of points per request; by default 256, on a server with three
                requests in flight, and 32 with local mode.
            parallel: number of threads that encode; 0 for one per usable core. By default, it is
                the ``threads`` of `set_model`. Omit it with a custom encoder.
            wait: whether to return only when the points can be found, rather than when the request
                is accepted. With ``wait=False``, add a chunked document again only once it can be
                found.
            max_retries: number of retries of a request after a transient failure, within five
                minutes; by default they take 40 seconds at least, so that a restart of the server
                is survived. After two seconds of waiting a warning is logged, and a bar shows the
                wait. The same ids are sent again, so nothing is stored twice. A request has 16 MB
                at most; one that the server refuses as too large, or that is above a cap of its
                strict mode, is sent in parts.
            on_existing: how to handle documents whose ids the collection already has.
                ``"overwrite"`` stores them again. What else their points have stays: vectors under
                other names, and keys of the payload that the new metadata lacks, regardless of who
                wrote them (delete a document first to drop these). Ids that you pass are looked up
                for this, 1024 at a time. ``"skip"`` stores documents like ``"overwrite"``, but only
                if their text or metadata has changed (floats by more than one part in 10**15,
                because a server may return the float next to the one it was given). The others are
                not even encoded, and nothing of them is touched. On a cluster, what some replicas
                lack is stored again. ``"error"`` refuses them, checking up to 1024 documents at a
                time before any of these is stored. ``"skip"`` does not add a newly introduced
                sparse vector to stored points; ``"overwrite"`` does.
            progress: ``True`` for a bar with documents, tokens per second and, if the number of
                documents is known, the time left; ``False`` for no bar; by default, a bar is shown
                if stderr is a terminal. Or a function that is called with an `IngestProgress` at
                the start and after each request; an exception that it raises ends the `add`.
                Truncated texts are counted: in one warning per `add`, and in
                `IngestProgress.truncated`.
            shard_key_selector: shards to write to, in a collection with custom sharding; those that
                do not exist are created.
            collection_options: options such as quantisation and shards for a collection that is
                created.

        Raises:
            InputError: if documents, metadata, ids or an option cannot be used.
            CollectionMismatchError: if the collection belongs to another model.
            ServerRefusal: if Qdrant refuses a request; `PermissionRefusal` if because of the key.
            ServerUnavailableError: if a request brings no answer, however often it was tried.
            IngestError: if it failed after a part was stored, or may be, because a disk is full or
                a server accepts documents without storing them; it names these parts and the
                reason. After a ``KeyboardInterrupt``, use `IngestError.behind`.
            ModelError: if the model cannot be found, downloaded or read, or an encoder does not
                return one valid vector per text. `UntrustedModelError` if the collection names
                a model that this client does not run for that alone.
            MissingDependencyError: if ``progress=True``, but tqdm is not installed, or a model by
                name is used, but the extra ``fastembed`` is not installed.
        """
        options = AddOptions(
            batch_size=batch_size,
            parallel=parallel,
            wait=wait,
            on_existing=on_existing,
            progress=progress,
            shard_key_selector=shard_key_selector,
            collection_options=collection_options,
        )
        collection = self._collection(collection_name, max_retries)
        flow = add_documents(collection, documents, metadata, ids, options)
        return run_blocking(flow)

    def add_frame(
        self,
        collection_name: str,
        frame: Frame,
        *,
        text: str = "text",
        id: str | ContentIds | None = None,
        metadata: Sequence[str] | None = None,
        batch_size: int | None = None,
        parallel: int | None = None,
        wait: bool = True,
        max_retries: int = MAX_RETRIES,
        on_existing: OnExisting = "overwrite",
        progress: ProgressOption = None,
        shard_key_selector: types.ShardKeySelector | None = None,
        collection_options: CollectionOptions | None = None,
    ) -> int:
        """Embed and store the rows of a frame; return the number of documents.

        Rows with equal ids, such as those of equal rows by default, are one document.

        A frame is a DataFrame of pandas or Polars, an Arrow table, record batch or reader, a
        dataset or Parquet file of pyarrow, a ``Dataset`` of Hugging Face `datasets` (streamed,
        too), a dict of columns, the path of a Parquet or Arrow file (extra ``arrow``) or of a
        folder of some, or an iterable of these. It is read batch by batch, and need not fit in
        memory: ``client.add_frame("pages", "pages.parquet", text="body", id="url")``. What is kept
        of each row is its id. A dataset of pyarrow holds a row group of each Parquet file at a
        time, which can have a million rows. Of a folder's files, ``year=2024`` in a subfolder's
        name is a column.

        Values are stored as `add` stores metadata: dates and times as strings in ISO 8601,
        decimals as numbers, nested columns as lists and dicts, categories as their values. A
        missing value (null, NaN, NaT) is stored as null. Bytes and infinity are refused.

        Args:
            collection_name: name of the collection.
            frame: the frame.
            text: name of the column that holds the texts.
            id: name of the column that holds the ids, of the kinds that `add` takes; or
                `ContentIds`. By default, ids are derived from text and metadata, so that the same
                frame added again changes nothing.
            metadata: names of the columns to store as metadata; all others by default.
            batch_size: see `add`.
            parallel: see `add`.
            wait: see `add`.
            max_retries: see `add`.
            on_existing: see `add`.
            progress: see `add`.
            shard_key_selector: see `add`.
            collection_options: see `add`; ``CollectionOptions.bulk()`` loads a large frame into a
                server faster.

        Raises:
            InputError: if it is no frame, a file cannot be read, a column is missing, or a value
                cannot be stored: it names the column and the row, and of files the path.
            CollectionMismatchError: see `add`.
            ServerRefusal: see `add`.
            ServerUnavailableError: see `add`.
            IngestError: if it failed after a part was stored; see `add`.
            ModelError: see `add`.
            MissingDependencyError: see `add`; or if the frame is a file, or of another library,
                with Arrow's stream interface, but pyarrow is not installed.
        """
        options = AddOptions(
            batch_size=batch_size,
            parallel=parallel,
            wait=wait,
            on_existing=on_existing,
            progress=progress,
            shard_key_selector=shard_key_selector,
            collection_options=collection_options,
        )
        collection = self._collection(collection_name, max_retries)
        return run_blocking(add_frame(collection, frame, text, id, metadata, options))

    # answers out

    def query(
        self,
        collection_name: str,
        query_text: str | None = None,
        query_filter: models.Filter | None = None,
        limit: int = 10,
        *,
        where: Mapping[str, Any] | None = None,
        with_vectors: bool = False,
        search_params: models.SearchParams | None = None,
        score_threshold: float | None = None,
        offset: int | None = None,
        fusion: Fusion = "rrf",
        prefetch_limit: int | None = None,
        reranker: Reranker | str | os.PathLike[str] | None = None,
        rerank_limit: int | None = None,
        chunks: bool = False,
        consistency: types.ReadConsistency | None = None,
        shard_key_selector: types.ShardKeySelector | None = None,
        timeout: int | None = None,
        diversity: float | None = None,
        like: Iterable[int | str | UUID] = (),
        unlike: Iterable[int | str | UUID] = (),
    ) -> list[QueryResponse]:
        """Return the stored documents nearest in meaning to `query_text`, best first.

        ``diversity=0.3`` keeps hits from repeating each other, and ``like=[ids]`` finds what
        resembles stored documents.

        A query is one request as a rule; the collection's configuration is read at most once a
        minute. In a collection with sparse vectors, the search is hybrid: Qdrant finds candidates
        with either vector and fuses them. In one with vectors of tokens (`set_late_model`), these
        rank the candidates. In a collection with ``overflow="chunk"``, the hits are
        documents, ranked by their best chunk. Equal scores are ordered by id. A page continues the
        one before, and a smaller `limit` returns the beginning of what a larger one returns; see
        `qdrant_embed.search.ranking`.

        Args:
            collection_name: name of the collection.
            query_text: the text to search for; it may be omitted with `like`.
            query_filter: Qdrant's filter that points must match.
            limit: maximum number of hits.
            where: a filter as a plain dict, ``{"source": "docs", "year": {"gte": 2020}}``; see
                `qdrant_embed.search.filters`. With `query_filter`, both must match.
            with_vectors: whether to return `QueryResponse.embedding` and ``sparse_embedding``.
            search_params: Qdrant's options for the search (exactness, rescoring ...). By default,
                a search in quantised vectors scores two to four times as many candidates again by
                the stored ones.
            score_threshold: minimum score of a hit: of the fused score in a hybrid search, of the
                sum over the query's tokens with late interaction, and of the score before reranking
                with a reranker. Scores are rounded: pass 0.999 instead
                of 1.0 to find identical texts. Those of a quantised collection are above 1 at
                times, unless it rescores them.
            offset: number of best hits to skip. A page that ends beyond the first 100 hits of a
                hybrid search needs a request for the ranking, without payloads, and one for the
                page. In a collection with ``overflow="chunk"``, so does an `offset` above `limit`.
                A hybrid search ranks 25,600 hits, or 6,400 documents stored in chunks.
            fusion: whether a hybrid search fuses by ranks (``"rrf"``) or by scores (``"dbsf"``).
            prefetch_limit: number of candidates per vector in a hybrid search, or with late
                interaction, and how far it reaches. By default 100 (400 chunks with
                ``overflow="chunk"``); hits beyond these come from 4 times as many candidates, and
                so on, as far as the page needs. Scores are comparable among hits of the same
                candidates.
            reranker: scores the found texts again, in chunked collections those of the best chunks:
                a cross-encoder's name or folder (see `TextCrossEncoder`), or an object (see
                `Reranker`); by default the one that `set_reranker` set, if any.
            rerank_limit: number of hits passed to the reranker; by default 3 times the number of
                hits, and at least 50. Pages continue each other if all have the same.
            chunks: in a collection with ``overflow="chunk"``, whether to return chunks instead of
                documents with the text and score of their best chunk.
            consistency: number of replicas that must agree, or ``"majority"``, ``"quorum"`` or
                ``"all"``.
            shard_key_selector: shards to search, in a collection with custom sharding.
            timeout: seconds that all requests of the query may take together, with retries and
                waits; the client's own timeout by default.
            diversity: how much hits shall differ from each other, from 0 (not at all: the nearest
                come first) to 1. Qdrant chooses them one after the other in the same request, by
                maximal marginal relevance: a score is still the similarity to the text, and goes
                up and down from hit to hit. They are chosen from the 100 nearest (400 chunks with
                ``overflow="chunk"``), from 4 or 16 times as many if the page needs them, or from
                as many as `prefetch_limit` says. In a hybrid search, the dense branch is put into
                that order before it is fused, by ranks; with late interaction, its ranking is
                fused with that order. With a reranker, this chooses which hits it scores.
            like: ids of documents that hits shall resemble, besides the text or in place of it. By
                their dense vectors: hits are nearest to the mean of these and that of the text. A
                document in chunks counts by its first one. The documents themselves are no hits.
                In a hybrid search, this is the dense branch; with late interaction, it chooses the
                candidates, which the text alone ranks.
            unlike: ids of documents that hits shall not resemble: the mean of their vectors is
                subtracted. It needs a text or `like`.

        Raises:
            InputError: if the text is empty, an option cannot be used, or a hybrid search does not
                reach the last hit.
            DocumentNotFoundError: if a document of `like` or `unlike` does not exist.
            CollectionMismatchError: if the collection belongs to another model.
            CollectionNotFoundError: if the collection does not exist.
            ServerRefusal: if Qdrant refuses the request, for instance because strict mode needs an
                index of a field in a filter; `PermissionRefusal` if because of the key.
            ServerUnavailableError: if a request brings no answer, however often it was tried.
            ModelError: if the model cannot be found, downloaded or read, or an encoder or reranker
                does not return one valid vector or score per text. `UntrustedModelError` if the
                collection names a model that this client does not run for that alone.
            MissingDependencyError: if a model by name is used, but the extra ``fastembed`` is not
                installed.
        """
        search = Search(
            query_filter=query_filter,
            limit=limit,
            where=where,
            with_vectors=with_vectors,
            search_params=search_params,
            score_threshold=score_threshold,
            offset=offset,
            fusion=fusion,
            prefetch_limit=prefetch_limit,
            reranker=self._selection.reranker(reranker, has_text=query_text is not None),
            rerank_limit=rerank_limit,
            chunks=chunks,
            consistency=consistency,
            shard_key_selector=shard_key_selector,
            timeout=timeout,
            diversity=diversity,
            like=points_by_id(like, "like"),
            unlike=points_by_id(unlike, "unlike"),
        )
        collection = self._collection(collection_name)
        (hits,) = run_blocking(answer(collection, search, search.texts(query_text)))
        return hits

    def query_batch(
        self,
        collection_name: str,
        query_texts: Sequence[str],
        query_filter: models.Filter | None = None,
        limit: int = 10,
        *,
        where: Mapping[str, Any] | None = None,
        with_vectors: bool = False,
        search_params: models.SearchParams | None = None,
        score_threshold: float | None = None,
        offset: int | None = None,
        fusion: Fusion = "rrf",
        prefetch_limit: int | None = None,
        reranker: Reranker | str | os.PathLike[str] | None = None,
        rerank_limit: int | None = None,
        chunks: bool = False,
        consistency: types.ReadConsistency | None = None,
        shard_key_selector: types.ShardKeySelector | None = None,
        timeout: int | None = None,
        diversity: float | None = None,
        like: Iterable[int | str | UUID] = (),
        unlike: Iterable[int | str | UUID] = (),
    ) -> list[list[QueryResponse]]:
        """Return the hits of each of `query_texts`, in order, with one request for all.

        If `query` needs further requests, each serves all texts. For an empty list, it returns an
        empty list.

        Args and Raises are those of `query`.
        """
        search = Search(
            query_filter=query_filter,
            limit=limit,
            where=where,
            with_vectors=with_vectors,
            search_params=search_params,
            score_threshold=score_threshold,
            offset=offset,
            fusion=fusion,
            prefetch_limit=prefetch_limit,
            reranker=self._selection.reranker(reranker),
            rerank_limit=rerank_limit,
            chunks=chunks,
            consistency=consistency,
            shard_key_selector=shard_key_selector,
            timeout=timeout,
            diversity=diversity,
            like=points_by_id(like, "like"),
            unlike=points_by_id(unlike, "unlike"),
        )
        collection = self._collection(collection_name)
        return run_blocking(answer(collection, search, checked_queries(query_texts)))

    def query_groups(
        self,
        collection_name: str,
        query_text: str | None = None,
        query_filter: models.Filter | None = None,
        limit: int = 10,
        *,
        group_by: str,
        group_size: int = 3,
        where: Mapping[str, Any] | None = None,
        with_vectors: bool = False,
        search_params: models.SearchParams | None = None,
        score_threshold: float | None = None,
        fusion: Fusion = "rrf",
        prefetch_limit: int | None = None,
        chunks: bool = False,
        consistency: types.ReadConsistency | None = None,
        shard_key_selector: types.ShardKeySelector | None = None,
        timeout: int | None = None,
        like: Iterable[int | str | UUID] = (),
        unlike: Iterable[int | str | UUID] = (),
    ) -> list[GroupResponse]:
        """Return the best groups of documents that share a value of their metadata, best first.

        ``group_by="url"`` returns the best pages, each with its best hits. A group is as good as
        its best hit. As a rule that is one request, or a second one that fills groups. Documents
        without the value are in no group, and those with a list are in a group for each value.

        In a hybrid search, a group has those of its hits that are among the fused ones: the first
        100 or more, as far as `limit` needs. No reranker scores them, not even that of
        `set_reranker`.

        Args:
            collection_name: name of the collection.
            query_text: the text to search for; it may be omitted with `like`.
            query_filter: Qdrant's filter that points must match.
            limit: maximum number of groups.
            group_by: key of the metadata, whose values are str or whole numbers; ``"page.url"``
                for a nested one.
            group_size: maximum number of hits of a group.
            where: see `query`.
            with_vectors: see `query`.
            search_params: see `query`.
            score_threshold: see `query`.
            fusion: see `query`.
            prefetch_limit: see `query`.
            chunks: see `query`.
            consistency: see `query`.
            shard_key_selector: see `query`.
            timeout: see `query`.
            like: see `query`.
            unlike: see `query`.

        Raises:
            InputError: if the text is empty, or an option cannot be used.
            DocumentNotFoundError: if a document of `like` or `unlike` does not exist.
            CollectionMismatchError: if the collection belongs to another model.
            CollectionNotFoundError: if the collection does not exist.
            ServerRefusal: if Qdrant refuses the request, for instance because strict mode needs an
                index of the field; `PermissionRefusal` if because of the key.
            ServerUnavailableError: if a request brings no answer, however often it was tried.
            ModelError: if the model cannot be found, downloaded or read, or an encoder does not
                return one valid vector per text. `UntrustedModelError` if the collection names a
                model that this client does not run for that alone.
            MissingDependencyError: if a model by name is used, but the extra ``fastembed`` is not
                installed.
        """
        search = Search(
            query_filter=query_filter,
            limit=limit,
            where=where,
            with_vectors=with_vectors,
            search_params=search_params,
            score_threshold=score_threshold,
            fusion=fusion,
            prefetch_limit=prefetch_limit,
            chunks=chunks,
            consistency=consistency,
            shard_key_selector=shard_key_selector,
            timeout=timeout,
            like=points_by_id(like, "like"),
            unlike=points_by_id(unlike, "unlike"),
        )
        grouping = Grouping(group_by=group_by, group_size=group_size)
        collection = self._collection(collection_name)
        return run_blocking(answer_groups(collection, search, grouping, query_text))

    # documents read back and changed

    def get_documents(
        self,
        collection_name: str,
        ids: Iterable[int | str | UUID],
        *,
        max_retries: int = MAX_RETRIES,
        shard_key_selector: types.ShardKeySelector | None = None,
    ) -> list[StoredDocument | None]:
        """Return the documents with these ids, in their order; ``None`` for one that is missing.

        Documents are whole, also those that are stored in chunks.

        Args:
            collection_name: name of the collection.
            ids: ids of the documents, as returned by `add`.
            max_retries: see `add`.
            shard_key_selector: shards to read, in a collection with custom sharding.

        Raises:
            InputError: if an id or an option is invalid, or `ids` is a single str.
            CollectionMismatchError: if the collection is an unfinished copy (see `copy_to`), or
                the record of its model cannot be read.
            CollectionNotFoundError: if the collection does not exist.
            ServerRefusal: if Qdrant refuses a request; `PermissionRefusal` if because of the key.
            ServerUnavailableError: if a request brings no answer, however often it was tried.
        """
        collection = self._collection(collection_name, max_retries)
        flow = get_documents(collection, ids, shard_key_selector=shard_key_selector)
        return run_blocking(flow)

    def scroll_documents(
        self,
        collection_name: str,
        *,
        where: Mapping[str, Any] | None = None,
        query_filter: models.Filter | None = None,
        after: int | str | UUID | None = None,
        batch_size: int = 256,
        max_retries: int = MAX_RETRIES,
        shard_key_selector: types.ShardKeySelector | None = None,
    ) -> Iterator[StoredDocument]:
        """Yield all documents of a collection, whole, in the order of their points' ids.

        They are requested page by page while they are read, and need not fit in memory. To go on
        later, or in another process, pass the id of the last one as `after`.

        Documents that are added meanwhile may be yielded or not, others are yielded once. One that
        lacks its first chunk, after an `add` that was killed, is not.

        Args:
            collection_name: name of the collection.
            where: a filter as a plain dict; see `qdrant_embed.search.filters`. It applies to the
                metadata; a condition on the text of a document in chunks, to its first chunk.
            query_filter: Qdrant's filter. With `where`, both must match.
            after: id of a document, which need not exist any more; those after it are yielded.
            batch_size: number of points per request, each with one document or one chunk.
            max_retries: see `add`.
            shard_key_selector: shards to read, in a collection with custom sharding.

        Raises:
            InputError: if an option is invalid.
            CollectionMismatchError: if the collection is an unfinished copy (see `copy_to`), or
                the record of its model cannot be read.
            CollectionNotFoundError: if the collection does not exist.
            ServerRefusal: if Qdrant refuses a request, for instance because strict mode needs an
                index of a field in a filter; `PermissionRefusal` if because of the key.
            ServerUnavailableError: if a request brings no answer, however often it was tried.
        """
        options = ScrollOptions(
            filter=combined(query_filter, where),
            after=after,
            batch_size=batch_size,
            shard_key_selector=shard_key_selector,
        )
        scroll = DocumentScroll(self._collection(collection_name, max_retries), options)
        return (document for page in iter(partial(_next_page, scroll), []) for document in page)

    def update_metadata(
        self,
        collection_name: str,
        ids: Iterable[int | str | UUID],
        metadata: Mapping[str, Any] | Iterable[Mapping[str, Any]],
        *,
        wait: bool = True,
        max_retries: int = MAX_RETRIES,
        shard_key_selector: types.ShardKeySelector | None = None,
    ) -> None:
        """Set metadata of documents, in all their chunks, without encoding them again.

        Other keys of the metadata stay. Nothing is changed if one of the documents does not exist.
        After a failure or an interrupt, part of the documents may have changed: call it again.
        Ids stay, also those that `add` derived from metadata (``ids="content"``).

        Args:
            collection_name: name of the collection.
            ids: ids of the documents, as returned by `add`.
            metadata: the keys to set, with their values: one dict for all documents, or one for
                each. Values are those that `add` accepts; None is stored as null.
            wait: whether to return only when the change can be seen, rather than when the request
                is accepted.
            max_retries: see `add`.
            shard_key_selector: shards to change, in a collection with custom sharding.

        Raises:
            InputError: if an id, a value or an option is invalid, or lengths differ.
            DocumentNotFoundError: if a document does not exist; it names all that do not.
            CollectionMismatchError: if the collection is an unfinished copy (see `copy_to`), or
                the record of its model cannot be read.
            CollectionNotFoundError: if the collection does not exist.
            ServerRefusal: if Qdrant refuses a request; `PermissionRefusal` if because of the key.
            ServerUnavailableError: if a request brings no answer, however often it was tried.
        """
        collection = self._collection(collection_name, max_retries)
        flow = update_metadata(
            collection, ids, metadata, wait=wait, shard_key_selector=shard_key_selector
        )
        run_blocking(flow)

    # documents moved and deleted

    def migrate_model(
        self,
        collection_name: str,
        new_model: str | os.PathLike[str] | DenseEncoder,
        new_collection_name: str,
        *,
        alias: str | None = None,
        batch_size: int = 256,
        max_retries: int = MAX_RETRIES,
        progress: ProgressOption = None,
        collection_options: CollectionOptions | None = None,
    ) -> int:
        """Encode a collection's documents with another model; return the number of points.

        They are written to another collection, and the old one is only read. Ids, payloads and
        shard keys stay the same, and so do the sparse and the late-interaction model, unless
        `set_sparse_model` or `set_late_model` chose another one.

        If interrupted, run it again: it resumes where it stopped, and also encodes documents that
        have changed since. Clients in other processes that query `alias` switch to the new model
        within a minute, unless they chose the old model with `set_model`: those are refused.

        Args:
            collection_name: name of the old collection.
            new_model: see `set_model`.
            new_collection_name: name of the new collection, which is created if it does not exist.
            alias: alias to point to the new collection once that is complete.
            batch_size: number of points per request.
            max_retries: see `add`.
            progress: see `add`; a function is called after each `batch_size` points.
            collection_options: see `add`.

        Raises:
            InputError: if an option cannot be used, or a point has no text.
            CollectionMismatchError: if the new collection belongs to another model, or has other
                points.
            CollectionNotFoundError: if the old collection does not exist.
            ServerRefusal: if Qdrant refuses a request; `PermissionRefusal` if because of the key.
            ServerUnavailableError: if a request brings no answer, however often it was tried.
            ModelError: if the model cannot be found, downloaded or read, or an encoder does not
                return one valid vector per text.
            MissingDependencyError: if ``progress=True``, but tqdm is not installed, or a model by
                name is used, but the extra ``fastembed`` is not installed.
        """
        options = MigrationOptions(
            new_model=new_model,
            new_collection_name=new_collection_name,
            alias=alias,
            batch_size=batch_size,
            progress=progress,
            collection_options=collection_options,
        )
        collection = self._collection(collection_name, max_retries)
        return run_blocking(migrate(collection, options))

    def delete_documents(
        self,
        collection_name: str,
        ids: Iterable[int | str | UUID],
        *,
        wait: bool = True,
        max_retries: int = MAX_RETRIES,
        shard_key_selector: types.ShardKeySelector | None = None,
    ) -> None:
        """Delete documents with all their chunks; ids that do not exist are ignored.

        Args:
            collection_name: name of the collection.
            ids: ids of the documents, as returned by `add`.
            wait: whether to return only when they are deleted, rather than when the request is
                accepted.
            max_retries: see `add`.
            shard_key_selector: shards to delete from, in a collection with custom sharding.

        Raises:
            InputError: if an id or an option is invalid, or `ids` is a single str.
            CollectionMismatchError: if the collection is an unfinished copy (see `copy_to`), or
                the record of its model cannot be read.
            CollectionNotFoundError: if the collection does not exist.
            ServerRefusal: if Qdrant refuses a request; `PermissionRefusal` if because of the key.
            ServerUnavailableError: if a request brings no answer, however often it was tried.
        """
        collection = self._collection(collection_name, max_retries)
        flow = delete_documents(collection, ids, wait=wait, shard_key_selector=shard_key_selector)
        run_blocking(flow)

    def optimize(self, collection_name: str, *, progress: bool | None = None) -> None:
        """Build the index of a collection in a folder now, and wait until it is in use.

        With the embedded engine, a search compares all vectors one by one until they are indexed;
        that is done in the background once it takes more than about 1 ms, during an `add` once it
        takes more than 5 ms. Queries and changes go on meanwhile: another process builds, on a
        copy, for which there must be space.
        On a server, which indexes by itself, this waits until it has. Local mode has no index.

        Args:
            collection_name: name of the collection.
            progress: whether to show a bar; by default if stderr is a terminal and tqdm is
                installed.

        Raises:
            InputError: if an option is invalid.
            CollectionNotFoundError: if the collection does not exist.
            FolderError: if there is no space, or the index cannot be built; the collection stays as
                it is.
            ServerRefusal: if a server cannot build it; `PermissionRefusal` if because of the key.
            ServerUnavailableError: if a request brings no answer, however often it was tried.
            MissingDependencyError: if ``progress=True``, but tqdm is not installed.
        """
        run_blocking(optimize(self._collection(collection_name), progress))

    def wait_until_indexed(self, collection_name: str, *, progress: bool | None = None) -> None:
        """Wait until the vectors of a collection are indexed.

        Indexing is turned on first, if loading left it off: call it once all is loaded with
        ``CollectionOptions.bulk(wait=True)``, by however many processes. It can take minutes, and
        is called again if it was interrupted, even by a kill. For a collection in a folder it is
        `optimize`. Local mode has no index.

        Args:
            collection_name: name of the collection.
            progress: see `optimize`.

        Raises:
            As `optimize` does.
        """
        run_blocking(optimize(self._collection(collection_name), progress))

    # collections copied to another database

    def copy_to(
        self,
        other: QdrantEmbedMixin,
        collections: Iterable[str] | None = None,
        *,
        batch_size: int = 256,
        max_retries: int = MAX_RETRIES,
        progress: ProgressOption = None,
    ) -> dict[str, int]:
        """Copy collections to another database; return the number of points of each.

        Both can be of any kind: in memory, in a folder, on a server. Points keep their ids,
        payloads and all their vectors, which are moved as they are: no model is loaded. A copy has
        the name, the vectors, the metadata with the record of the model, the aliases and, where
        both databases keep them, payload indexes, quantisation and the options of indexes; from
        server to server also shards, optimisers and strict mode.

        If it is interrupted, even by a kill, the same call continues. Until a copy is complete,
        `query` and `add` refuse it. Do not write to a collection while it is copied.

        Args:
            other: a client of the other database, of the same kind as this one.
            collections: names of the collections, or aliases of them; all by default.
            batch_size: number of points per request.
            max_retries: see `add`.
            progress: see `add`; documents are points here, of all collections together.

        Raises:
            InputError: if an option cannot be used, or `other` is no other database.
            CollectionMismatchError: if a collection exists there that is no unfinished copy of the
                same one, or an alias is taken (nothing is copied then), or if points are missing in
                a copy at the end, or it has too many.
            CollectionNotFoundError: if a collection does not exist.
            ServerRefusal: if Qdrant refuses a request; `PermissionRefusal` if because of the key.
            ServerUnavailableError: if a request brings no answer, however often it was tried.
            MissingDependencyError: if ``progress=True``, but tqdm is not installed.
        """
        if not isinstance(other, QdrantEmbedMixin):
            raise InputError(
                f"other must be a qdrant_embed.QdrantClient, not {type(other).__module__}."
                f"{type(other).__name__}"
            )
        options = CopyOptions(collections=collections, batch_size=batch_size, progress=progress)
        source, target = (
            Database(partial(client._collection, max_retries=max_retries))
            for client in (self, other)
        )
        return run_blocking(copy_collections(source, target, options))

    # known models

    @classmethod
    def list_text_models(cls) -> dict[str, tuple[int, models.Distance]]:
        """Return the vector size and distance of each known model by name, without network."""
        return text_models()

    @classmethod
    def list_sparse_models(cls) -> dict[str, dict[str, Any]]:
        """Return the facts of each known sparse model by name, without network."""
        return sparse_models()

    @classmethod
    def list_late_models(cls) -> dict[str, dict[str, Any]]:
        """Return the facts of each known late-interaction model by name, without network."""
        return late_models()


def _next_page(scroll: DocumentScroll) -> list[StoredDocument]:
    return run_blocking(scroll.next_page())


class QdrantClient(QdrantEmbedMixin):
    """``qdrant_client.QdrantClient`` with `add`, `query` and `query_batch`.

    The constructor is that of ``qdrant_client``: ``":memory:"``, ``path="folder"``,
    ``url="http://host:6333"`` and so on. A keyword that nothing knows, or a key that no header can
    carry, is an `InputError`; a gRPC channel connects again at once after its server was
    restarted, unless `grpc_options` say otherwise.

    A folder is opened by the engine that made it, and a new one by the embedded engine, if the
    extra ``edge`` is installed, else by the local mode of ``qdrant_client``. ``engine="edge"`` or
    ``"local"`` asks for one of them, and the attribute `engine` says which it is. The embedded
    engine builds indices in the background, unless ``optimize=False``; `optimize` builds one now.

    A collection chooses its model among the known ones, and those that the cache folder holds with
    the digests that the collection records. For any other, `UntrustedModelError` says what to call;
    ``trust_stamps=True`` (or ``QDRANT_EMBED_TRUST_STAMPS=1`` in the environment) lets collections
    name any model on the hub, whose own ONNX file may be run here. Without `set_model`, no folder
    is ever used, and no token sent. ``offline=True`` (or ``QDRANT_EMBED_OFFLINE=1``) fetches no
    model that this client names; encoder objects that you pass have ``local_files_only``.

    Local mode unpickles what is in a folder, which can run code: open only folders that you trust
    with it. The embedded engine unpickles nothing, and opens no folder of local mode.

    ``with QdrantClient(path="folder") as client:`` closes it at the end of the block.
    Threads can share a client, and one of them may close it: that waits for requests that are
    running, and those that come later are a `ClientStateError`. A forked process uses the models
    that its parent loaded, shares their memory, and opens connections of its own; a fork waits
    while another thread loads a model, or a local database runs a request. A GPU cannot be used in
    it: load the model there, or start processes by spawning. A folder
    (``path=``) belongs to the process that opened it: a forked one can at most read it, with local
    mode.

    A client of a server can be pickled and copied: it is opened again with its options, its API key
    included, and its models are loaded again when first used. A client of a folder or of memory
    cannot.
    `add` and `query` also work after the main thread has ended, and in `atexit`.
    """
