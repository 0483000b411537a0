"""Haystack: embedders, and a document store and a retriever over a client of this package.

The embedders work with any document store. This store embeds texts itself, so that a pipeline needs
no embedder before its writer, and the retriever takes the text of a query::

    from haystack import Document, Pipeline
    from qdrant_embed import QdrantClient
    from qdrant_embed.haystack import QdrantDocumentStore, QdrantRetriever

    store = QdrantDocumentStore(QdrantClient(path="notes"), "notes")
    store.write_documents([Document(content="Bees dance.", meta={"year": 2019})])
    pipeline = Pipeline()
    pipeline.add_component("retriever", QdrantRetriever(store, top_k=3))
    pipeline.run({"retriever": {"query": "insects"}})

Payloads and ids of points are those of ``qdrant-haystack``. To load a saved pipeline, Haystack 3
needs ``allowed_modules=["qdrant_embed.haystack"]``.

It needs ``haystack-ai`` 2.20 or newer: ``pip install 'qdrant-embed[haystack]'``.
"""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from qdrant_client import models

from qdrant_embed.async_client import AsyncQdrantClient
from qdrant_embed.client import QdrantClient
from qdrant_embed.collection.payload import DOCUMENT_KEY, PayloadCodec
from qdrant_embed.encoder.facts.catalog import DEFAULT_MODEL
from qdrant_embed.encoder.interfaces import DenseEncoder, SparseEncoder, SparseVector
from qdrant_embed.encoder.sparse import SparseTextEmbedding
from qdrant_embed.encoder.text import TextEmbedding
from qdrant_embed.errors import CollectionNotFoundError, InputError, MissingDependencyError
from qdrant_embed.frameworks import Client, FrameworkCollection
from qdrant_embed.ingest.documents import Document as OwnDocument
from qdrant_embed.search.filters import combined

try:
    from haystack import Document, component, default_from_dict, default_to_dict
    from haystack.dataclasses import SparseEmbedding
    from haystack.document_stores.errors import DuplicateDocumentError
    from haystack.document_stores.types import DuplicatePolicy
    from haystack.errors import FilterError
except ImportError as error:
    raise MissingDependencyError(
        "haystack-ai", "qdrant_embed.haystack", extra="haystack"
    ) from error

_CONTENT, _META, _ID = "content", "meta", "id"
_POINTS = uuid.UUID("3896d314-1e95-4a3a-b45a-945f9f0b541d")  # that qdrant-haystack derives ids from
_KEY = "QDRANT_API_KEY"
_RANGES = {">": "gt", ">=": "gte", "<": "lt", "<=": "lte"}
_GROUPS = {"AND": "and", "OR": "or"}


# embedders


@component
class QdrantTextEmbedder:
    """A component that embeds a query by a model of this package.

    Args:
        model: the name or folder of a model, or an encoder. A pipeline with an encoder object
            cannot be serialised.
    """

    def __init__(self, model: str | os.PathLike[str] | DenseEncoder = DEFAULT_MODEL) -> None:
        self._model, self._encoder = model, _LazyDense(model)

    def warm_up(self) -> None:
        """Load the model."""
        self._encoder.load()

    @component.output_types(embedding=list[float])
    def run(self, text: str) -> dict[str, Any]:
        """Return ``{"embedding": [...]}``.

        Args:
            text: the query.

        Raises:
            InputError: if `text` is not a str.
        """
        _check_text(text)
        (row,) = self._encoder.load().query_embed([text])
        return {"embedding": [float(value) for value in row]}

    @component.output_types(embedding=list[float])
    async def run_async(self, text: str) -> dict[str, Any]:
        """Return the same as `run`; the event loop stays free.

        Args:
            text: the query.
        """
        return await asyncio.to_thread(self.run, text)

    def to_dict(self) -> dict[str, Any]:
        """Return the component as a dict."""
        found: dict[str, Any] = default_to_dict(self, model=_serialised(self._model))
        return found


@component
class QdrantDocumentEmbedder:
    """A component that embeds documents by a model of this package.

    Args:
        model: see `QdrantTextEmbedder`.
        meta_fields_to_embed: keys of metadata that are embedded with the text.
        embedding_separator: stands between these and the text.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | DenseEncoder = DEFAULT_MODEL,
        meta_fields_to_embed: list[str] | None = None,
        embedding_separator: str = "\n",
    ) -> None:
        self._model, self._encoder = model, _LazyDense(model)
        self._fields, self._separator = meta_fields_to_embed or [], embedding_separator

    def warm_up(self) -> None:
        """Load the model."""
        self._encoder.load()

    @component.output_types(documents=list[Document])
    def run(self, documents: list[Document]) -> dict[str, Any]:
        """Return ``{"documents": [...]}``, copies that have their vectors.

        Args:
            documents: the documents.
        """
        texts = _texts(documents, self._fields, self._separator)
        rows = self._encoder.load().passage_embed(texts)
        return {
            "documents": [
                replace(document, embedding=[float(value) for value in row])
                for document, row in zip(documents, rows, strict=True)
            ]
        }

    @component.output_types(documents=list[Document])
    async def run_async(self, documents: list[Document]) -> dict[str, Any]:
        """Return the same as `run`; the event loop stays free.

        Args:
            documents: the documents.
        """
        return await asyncio.to_thread(self.run, documents)

    def to_dict(self) -> dict[str, Any]:
        """Return the component as a dict."""
        found: dict[str, Any] = default_to_dict(
            self,
            model=_serialised(self._model),
            meta_fields_to_embed=self._fields,
            embedding_separator=self._separator,
        )
        return found


@component
class QdrantSparseTextEmbedder:
    """A component that embeds a query by a sparse model of this package.

    Args:
        model: the name or folder of a sparse model, or a `SparseEncoder`.
    """

    def __init__(self, model: str | os.PathLike[str] | SparseEncoder = "Qdrant/bm25") -> None:
        self._model, self._encoder = model, _LazySparse(model)

    def warm_up(self) -> None:
        """Load the model."""
        self._encoder.load()

    @component.output_types(sparse_embedding=SparseEmbedding)
    def run(self, text: str) -> dict[str, Any]:
        """Return ``{"sparse_embedding": ...}``.

        Args:
            text: the query.

        Raises:
            InputError: if `text` is not a str.
        """
        _check_text(text)
        (row,) = self._encoder.load().query_embed([text])
        return {"sparse_embedding": _sparse(row)}

    def to_dict(self) -> dict[str, Any]:
        """Return the component as a dict."""
        found: dict[str, Any] = default_to_dict(self, model=_serialised(self._model))
        return found


@component
class QdrantSparseDocumentEmbedder:
    """A component that embeds documents by a sparse model of this package.

    Args:
        model: see `QdrantSparseTextEmbedder`.
        meta_fields_to_embed: see `QdrantDocumentEmbedder`.
        embedding_separator: see `QdrantDocumentEmbedder`.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | SparseEncoder = "Qdrant/bm25",
        meta_fields_to_embed: list[str] | None = None,
        embedding_separator: str = "\n",
    ) -> None:
        self._model, self._encoder = model, _LazySparse(model)
        self._fields, self._separator = meta_fields_to_embed or [], embedding_separator

    def warm_up(self) -> None:
        """Load the model."""
        self._encoder.load()

    @component.output_types(documents=list[Document])
    def run(self, documents: list[Document]) -> dict[str, Any]:
        """Return ``{"documents": [...]}``, copies that have their sparse vectors.

        Args:
            documents: the documents.
        """
        texts = _texts(documents, self._fields, self._separator)
        rows = self._encoder.load().passage_embed(texts)
        return {
            "documents": [
                replace(document, sparse_embedding=_sparse(row))
                for document, row in zip(documents, rows, strict=True)
            ]
        }

    def to_dict(self) -> dict[str, Any]:
        """Return the component as a dict."""
        found: dict[str, Any] = default_to_dict(
            self,
            model=_serialised(self._model),
            meta_fields_to_embed=self._fields,
            embedding_separator=self._separator,
        )
        return found


class _LazyDense:
    """A dense encoder, loaded when a pipeline is warmed up or first run."""

    def __init__(self, model: str | os.PathLike[str] | DenseEncoder) -> None:
        self._model = model

    def load(self) -> DenseEncoder:
        """Return the encoder."""
        if isinstance(self._model, str | os.PathLike):
            self._model = TextEmbedding(self._model)
        return self._model


class _LazySparse:
    """A sparse encoder, loaded when a pipeline is warmed up or first run."""

    def __init__(self, model: str | os.PathLike[str] | SparseEncoder) -> None:
        self._model = model

    def load(self) -> SparseEncoder:
        """Return the encoder."""
        if isinstance(self._model, str | os.PathLike):
            self._model = SparseTextEmbedding(self._model)
        return self._model


def _serialised(model: object) -> str:
    if isinstance(model, str | os.PathLike):
        return os.fspath(model)
    raise InputError(
        "a component with an encoder object cannot be serialised: pass the name or folder of a "
        "model"
    )


def _check_text(text: object) -> None:
    if not isinstance(text, str):
        raise InputError(
            f"text must be a str, not {type(text).__name__}; documents have another embedder"
        )


def _texts(documents: Sequence[Document], fields: Sequence[str], separator: str) -> list[str]:
    if not isinstance(documents, list) or not all(isinstance(one, Document) for one in documents):
        raise InputError("documents must be a list of Document; texts have another embedder")
    return [
        separator.join(
            [
                *(str(one.meta[name]) for name in fields if one.meta.get(name) is not None),
                one.content or "",
            ]
        )
        for one in documents
    ]


def _sparse(row: SparseVector) -> SparseEmbedding:
    return SparseEmbedding(indices=[*map(int, row.indices)], values=[*map(float, row.values)])


# documents


class QdrantDocumentStore:
    """Haystack's document store over a collection of a client of this package.

    The client's models embed texts; vectors that documents already have are ignored, and documents
    come back without vectors. The collection is created with the first document, and until then is
    empty.

    With a `QdrantClient`, asynchronous methods run in threads. With an `AsyncQdrantClient`, they
    run on the event loop, and the store has no others.

    Args:
        client: a client of this package, of either kind.
        collection_name: name of the collection.
        vector_name: name of the dense vector in a new collection, and in one that others wrote,
            unless `set_model` has named it; by default ``""``, as in ``qdrant-haystack``, which
            names it ``"text-dense"`` where it stores sparse vectors.
        sparse_vector_name: name of the sparse vector, in the same way.

    Raises:
        InputError: if the client is of another package.
    """

    def __init__(
        self,
        client: Client,
        collection_name: str,
        *,
        vector_name: str = "",
        sparse_vector_name: str = "text-sparse",
    ) -> None:
        self._names = {"vector_name": vector_name, "sparse_vector_name": sparse_vector_name}
        self._own = FrameworkCollection(
            client,
            collection_name,
            PayloadCodec(_CONTENT),
            dense_name=vector_name,
            sparse_name=sparse_vector_name,
        )

    @property
    def client(self) -> Client:
        """The client."""
        return self._own.client

    def to_dict(self) -> dict[str, Any]:
        """Return the store as a dict, without the API key and the client's models.

        `from_dict` reads the key from ``QDRANT_API_KEY``, and follows the collection's own model.
        """
        given = {
            name: value
            for name, value in self.client.init_options.items()
            if name != "api_key" and isinstance(value, str | int | float | bool)
        }
        options = {
            "client": {"asynchronous": self._own.is_async, "options": given},
            "collection_name": self._own.name,
            **self._names,
        }
        found: dict[str, Any] = default_to_dict(self, **options)
        return found

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> QdrantDocumentStore:
        """Return the store of a dict that `to_dict` returned.

        Args:
            data: the dict.
        """
        parameters = dict(data["init_parameters"])
        described = parameters["client"]
        kind = AsyncQdrantClient if described["asynchronous"] else QdrantClient
        options = dict(described["options"])
        if "path" not in options and options.get("location") != ":memory:":
            options["api_key"] = os.environ.get(_KEY)
        parameters["client"] = kind(**options)
        found: QdrantDocumentStore = default_from_dict(cls, {**data, "init_parameters": parameters})
        return found

    def count_documents(self) -> int:
        """Return the number of documents; of chunks, if documents are stored in chunks."""
        return self._own.run(self._own.count)

    async def count_documents_async(self) -> int:
        """Return the number of documents; see `count_documents`."""
        return await self._own.arun(self._own.count)

    def filter_documents(self, filters: dict[str, Any] | None = None) -> list[Document]:
        """Return the documents that match Haystack's filters.

        Args:
            filters: the filters; ``None`` for all documents.
        """
        return self._own.run(lambda: self._filtered(filters))

    async def filter_documents_async(self, filters: dict[str, Any] | None = None) -> list[Document]:
        """Return the documents that match Haystack's filters; see `filter_documents`."""
        return await self._own.arun(lambda: self._filtered(filters))

    async def _filtered(self, filters: Mapping[str, Any] | None) -> list[Document]:
        found = await self._own.scroll(as_filter(filters))
        return [_document(one.id, one.text, one.metadata) for one in found]

    def write_documents(
        self, documents: list[Document], policy: DuplicatePolicy = DuplicatePolicy.NONE
    ) -> int:
        """Embed and store documents; return how many were stored.

        Args:
            documents: the documents, with text.
            policy: what is done with documents whose ids the collection has already; by default,
                they are refused, with all that are passed with them.

        Raises:
            DuplicateDocumentError: if a document is there already, and they are refused.
            InputError: if a document has no text, or metadata that cannot be stored.
        """
        return self._own.run(lambda: self._write(documents, policy))

    async def write_documents_async(
        self, documents: list[Document], policy: DuplicatePolicy = DuplicatePolicy.NONE
    ) -> int:
        """Embed and store documents; see `write_documents`."""
        return await self._own.arun(lambda: self._write(documents, policy))

    async def _write(self, documents: list[Document], policy: DuplicatePolicy) -> int:
        if not isinstance(documents, list) or not all(
            isinstance(one, Document) for one in documents
        ):
            raise InputError("documents must be a list of Document")
        chosen = {one.id: one for one in documents}
        if policy == DuplicatePolicy.SKIP:
            chosen = {one.id: one for one in reversed(documents)}  # the first of equals
        if policy != DuplicatePolicy.OVERWRITE and chosen:
            there = await self._there([*chosen])
            if policy != DuplicatePolicy.SKIP and (there or len(chosen) < len(documents)):
                raise DuplicateDocumentError(
                    f"{len(there) or len(documents) - len(chosen)} documents are in collection "
                    f"{self._own.name!r} already, or twice in the input: pass DuplicatePolicy.SKIP "
                    "or OVERWRITE"
                )
            chosen = {name: one for name, one in chosen.items() if name not in there}
        order = dict.fromkeys(one.id for one in documents if one.id in chosen)
        stored = [
            OwnDocument(_text(chosen[name]), {_ID: name, _META: chosen[name].meta}, id=_point(name))
            for name in order
        ]
        if stored:
            await self._own.add(stored)
        return len(documents) if policy == DuplicatePolicy.OVERWRITE else len(stored)

    async def _there(self, ids: Sequence[str]) -> set[str]:
        """Return the ids that the collection has."""
        try:
            found = await self._own.get([_point(name) for name in ids])
        except CollectionNotFoundError:
            return set()
        return {name for name, one in zip(ids, found, strict=True) if one is not None}

    def delete_documents(self, document_ids: list[str]) -> None:
        """Delete documents; ids that do not exist are ignored.

        Args:
            document_ids: the ids.
        """
        self._own.run(lambda: self._delete(document_ids))

    async def delete_documents_async(self, document_ids: list[str]) -> None:
        """Delete documents; see `delete_documents`."""
        await self._own.arun(lambda: self._delete(document_ids))

    async def _delete(self, ids: Iterable[str]) -> None:
        try:
            await self._own.delete([_point(name) for name in ids])
        except CollectionNotFoundError:
            return

    def _search(
        self, query: str, filters: Mapping[str, Any] | None, top_k: int, options: Mapping[str, Any]
    ) -> list[Document]:
        return self._own.run(lambda: self._found(query, filters, top_k, options))

    async def _search_async(
        self, query: str, filters: Mapping[str, Any] | None, top_k: int, options: Mapping[str, Any]
    ) -> list[Document]:
        return await self._own.arun(lambda: self._found(query, filters, top_k, options))

    async def _found(
        self, query: str, filters: Mapping[str, Any] | None, top_k: int, options: Mapping[str, Any]
    ) -> list[Document]:
        condition = as_filter(filters)
        hits = await self._own.search(query, limit=top_k, query_filter=condition, **options)
        return [_document(hit.id, hit.document, hit.metadata, hit.score) for hit in hits]


@component
class QdrantRetriever:
    """A component that finds documents by the text of a query.

    Args:
        document_store: a `QdrantDocumentStore`.
        filters: Haystack's filters; those of a run take their place.
        top_k: maximum number of documents.
        options: those of `QdrantClient.query`, such as ``{"diversity": 0.3}``.
    """

    def __init__(
        self,
        document_store: QdrantDocumentStore,
        filters: dict[str, Any] | None = None,
        top_k: int = 10,
        options: dict[str, Any] | None = None,
    ) -> None:
        if not isinstance(document_store, QdrantDocumentStore):
            raise InputError(
                "document_store must be a QdrantDocumentStore of qdrant_embed.haystack, not "
                f"{type(document_store).__name__}"
            )
        self._store, self._filters, self._top_k = document_store, filters, top_k
        self._options = options or {}

    @component.output_types(documents=list[Document])
    def run(
        self, query: str, filters: dict[str, Any] | None = None, top_k: int | None = None
    ) -> dict[str, Any]:
        """Return ``{"documents": [...]}``, best first, with their scores.

        Args:
            query: the text to search for.
            filters: see `QdrantRetriever`.
            top_k: see `QdrantRetriever`.
        """
        arguments = query, filters or self._filters, top_k or self._top_k, self._options
        return {"documents": self._store._search(*arguments)}

    @component.output_types(documents=list[Document])
    async def run_async(
        self, query: str, filters: dict[str, Any] | None = None, top_k: int | None = None
    ) -> dict[str, Any]:
        """Return the same as `run`.

        Args:
            query: the text to search for.
            filters: see `QdrantRetriever`.
            top_k: see `QdrantRetriever`.
        """
        arguments = query, filters or self._filters, top_k or self._top_k, self._options
        return {"documents": await self._store._search_async(*arguments)}

    def to_dict(self) -> dict[str, Any]:
        """Return the component as a dict."""
        found: dict[str, Any] = default_to_dict(
            self,
            document_store=self._store.to_dict(),
            filters=self._filters,
            top_k=self._top_k,
            options=self._options,
        )
        return found

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> QdrantRetriever:
        """Return the component of a dict that `to_dict` returned.

        Args:
            data: the dict.
        """
        parameters = dict(data["init_parameters"])
        parameters["document_store"] = QdrantDocumentStore.from_dict(parameters["document_store"])
        found: QdrantRetriever = default_from_dict(cls, {**data, "init_parameters": parameters})
        return found


def _point(document_id: str) -> str:
    """Return the id of a document's point."""
    return str(uuid.uuid5(_POINTS, document_id))


def _text(document: Document) -> str:
    if document.content is None:
        raise InputError(f"document {document.id!r:.80} has no content: only texts are stored")
    return str(document.content)


def _document(
    point: str | int, text: str, payload: Mapping[str, Any], score: float | None = None
) -> Document:
    """Return a document of a payload, also of one that ``client.add`` wrote."""
    meta = payload.get(_META)
    identity = payload.get(_ID)
    if not isinstance(meta, Mapping):
        own = (_CONTENT, DOCUMENT_KEY, _ID)
        meta = {key: value for key, value in payload.items() if key not in own}
        text = text or str(payload.get(DOCUMENT_KEY, ""))
    return Document(
        id=identity if isinstance(identity, str) else str(point),
        content=text,
        meta=dict(meta),
        score=score,
    )


# filters


def as_filter(filters: Mapping[str, Any] | None) -> models.Filter | None:
    """Return Haystack's filters as Qdrant's; ``None`` for no filter.

    Args:
        filters: comparisons and groups of them.

    Raises:
        FilterError: if a key is missing, or an operator or a value cannot be used.
    """
    if not filters:
        return None
    try:
        return combined(None, _where(filters))
    except InputError as error:
        raise FilterError(str(error)) from error


def _where(filters: object) -> dict[str, Any]:
    """Return filters as a plain dict; see `qdrant_embed.search.filters`."""
    if not isinstance(filters, Mapping):
        raise FilterError(f"a filter must be a dict, not {filters!r:.80}")
    if "operator" not in filters:
        raise FilterError(f"'operator' is missing in {filters!r:.200}")
    if "field" in filters:
        if "value" not in filters:
            raise FilterError(f"'value' is missing in {filters!r:.200}")
        return _comparison(str(filters["field"]), str(filters["operator"]), filters["value"])
    if "conditions" not in filters:
        raise FilterError(f"'conditions' or 'field' is missing in {filters!r:.200}")
    parts = [_where(one) for one in filters["conditions"]]
    operator = str(filters["operator"]).upper()
    if operator == "NOT":
        return {"not": {"and": parts}}
    if operator not in _GROUPS:
        raise FilterError(f"operator {operator!r} must be 'AND', 'OR' or 'NOT'")
    return {_GROUPS[operator]: parts}


def _comparison(field: str, operator: str, value: Any) -> dict[str, Any]:
    if operator in ("==", "!=") and value is None:
        return {field: {"exists": operator == "!="}}
    if operator == "==":
        return {field: {"all": value} if isinstance(value, list) else value}
    if operator == "!=":
        return {field: {"not": {"all": value} if isinstance(value, list) else value}}
    if operator in ("in", "not in"):
        if not isinstance(value, list):
            raise FilterError(f"operator {operator!r} needs a list, not {value!r:.80}")
        return {field: {"any": value} if operator == "in" else {"not": {"any": value}}}
    if operator not in _RANGES:
        raise FilterError(f"operator {operator!r} on {field!r} is not supported")
    if value is None:  # nothing is above or below it
        return {"and": [{field: {"exists": True}}, {field: {"exists": False}}]}
    return {field: {_RANGES[operator]: value}}
