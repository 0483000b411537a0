"""What the service does for each request: bodies in, bodies out, errors as they are."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import TypeAlias

from qdrant_client import models

from qdrant_embed.collection.payload import PayloadCodec
from qdrant_embed.encoder.interfaces import Vector
from qdrant_embed.encoder.text import cut
from qdrant_embed.errors import InputError, QdrantEmbedError
from qdrant_embed.ingest.documents import Document
from qdrant_embed.ingest.whole_documents import StoredDocument
from qdrant_embed.limits import SERVICE_FILE, SERVICE_REACH
from qdrant_embed.search.comparison import Way
from qdrant_embed.search.search import QueryResponse, Search
from qdrant_embed.serve import bodies
from qdrant_embed.serve.admission import Admission
from qdrant_embed.serve.database import Collections, chunk_of
from qdrant_embed.serve.failures import Refusal
from qdrant_embed.serve.metrics import Metrics
from qdrant_embed.serve.models import Embedded, ServedModels
from qdrant_embed.serve.page.fields import fields_of

# the documents of a file, from its name, its bytes, the field of the text and that of the id
FileReader: TypeAlias = Callable[[str, bytes, str, str | None], Iterable[Document]]

_SAMPLE = 200  # documents by which the fields of a collection are known


@dataclass
class Service:
    """The models, the database, and what bounds and counts their use.

    Attributes:
        models: the served models.
        collections: the database's; ``None`` if there is none.
        admission: the bound of what waits.
        metrics: what is counted.
        is_ready: whether the models are loaded.
        read_file: reads the files that are added; ``None`` if none can be.
    """

    models: ServedModels
    collections: Collections | None = None
    admission: Admission = field(default_factory=Admission)
    metrics: Metrics = field(default_factory=Metrics)
    is_ready: bool = False
    read_file: FileReader | None = None

    def database(self) -> Collections:
        """Return the collections.

        Raises:
            Refusal: if there is no database.
        """
        if self.collections is None:
            raise Refusal(
                404,
                "this service has no database: it was started without --path and --url",
                "no_database",
            )
        return self.collections

    # models

    async def embeddings(self, asked: bodies.EmbeddingsRequest) -> bodies.EmbeddingsAnswer:
        """Return the vector of each text."""
        model = self.models.embedder(asked.model)
        texts = [asked.input] if isinstance(asked.input, str) else asked.input
        with self.admission.hold(len(texts), sum(map(len, texts))):
            found = await model.embed(texts, asked.input_type)
        tokens = sum(embedded.tokens for embedded in found)
        self.metrics.tokens.labels(model.name).inc(tokens)
        show = _in_base64 if asked.encoding_format == "base64" else _as_numbers
        return bodies.EmbeddingsAnswer(
            data=_shown(found, asked.dimensions, show),
            model=model.name,
            usage=bodies.Usage(prompt_tokens=tokens, total_tokens=tokens),
        )

    async def rerank(self, asked: bodies.RerankRequest) -> bodies.RerankAnswer:
        """Return the documents' places, best first."""
        model = self.models.scorer(asked.model)
        texts = [text if isinstance(text, str) else text.text for text in asked.documents]
        size = sum(map(len, texts)) + len(texts) * len(asked.query)
        with self.admission.hold(len(texts), size):
            scored = await model.score(asked.query, texts)
        tokens = sum(pair.tokens for pair in scored)
        self.metrics.tokens.labels(model.name).inc(tokens)
        best = sorted(range(len(texts)), key=lambda index: -scored[index].score)[: asked.top_n]
        results = [
            bodies.RerankResult(
                index=index,
                relevance_score=scored[index].score,
                document=bodies.RankedText(text=texts[index]) if asked.return_documents else None,
            )
            for index in best
        ]
        usage = bodies.RerankUsage(total_tokens=tokens)
        return bodies.RerankAnswer(model=model.name, results=results, usage=usage)

    async def list_models(self) -> bodies.ModelsAnswer:
        """Return the served models."""
        embedders = [_listed(model.name, "embed") for model in self.models.embedders]
        scorers = [_listed(model.name, "rerank") for model in self.models.scorers]
        return bodies.ModelsAnswer(data=embedders + scorers)

    # collections

    async def list_collections(self) -> bodies.CollectionsAnswer:
        """Return all collections with their stamps."""
        found = await self.database().all()
        return bodies.CollectionsAnswer(
            collections=[bodies.CollectionFacts(**asdict(collection)) for collection in found]
        )

    async def query(self, name: str, asked: bodies.QueryRequest) -> bodies.QueryAnswer:
        """Return the documents nearest in meaning to a text."""
        collections = self.database()
        if (asked.offset or 0) + asked.limit > SERVICE_REACH:
            raise InputError(f"offset and limit together are more than {SERVICE_REACH:,}")
        options = asked.model_dump(exclude={"query", "reranker", "filter"})
        if asked.filter is not None:
            options["query_filter"] = models.Filter.model_validate(asked.filter)
        if asked.reranker is not None:
            options["reranker"] = self.models.scorer(asked.reranker).encoder
        started = time.perf_counter()
        with self.admission.hold(1, len(asked.query or "")):
            hits = await collections.query(name, asked.query, **options)
        seconds = time.perf_counter() - started
        shown = [_hit(hit, collections.codec) for hit in hits]
        return bodies.QueryAnswer(hits=shown, seconds=seconds)

    async def describe(self, name: str) -> bodies.CollectionDescription:
        """Return how a collection can be searched."""
        collections = self.database()
        ways = await collections.ways(name)
        if self.models.scorers:
            ways.append("reranked")
        payloads = await collections.sample(name, _SAMPLE)
        found = fields_of([collections.codec.metadata(payload) for payload in payloads])
        fields = [
            bodies.FieldFacts(path=field.path, kind=field.kind, values=[*field.values])
            for field in found
        ]
        return bodies.CollectionDescription(name=name, ways=ways, fields=fields)

    async def compare(self, name: str, asked: bodies.CompareRequest) -> bodies.CompareAnswer:
        """Return what each way of searching finds, one after the other."""
        collections = self.database()
        ways: list[Way] = asked.ways
        if not ways:
            ways = await collections.ways(name)
            ways += ["reranked"] if self.models.scorers else []
        scorer = self.models.scorer(asked.reranker) if "reranked" in ways else None
        search = Search(
            limit=asked.limit,
            where=asked.where,
            reranker=None if scorer is None else scorer.encoder,
        )
        answer = bodies.CompareAnswer(found=[])
        with self.admission.hold(len(ways), len(ways) * len(asked.query)):
            for way in ways:
                found = await collections.find_by(name, search, asked.query, way)
                if found is None:
                    raise InputError(f"collection {name!r} has no vectors for {way} search")
                hits = [_hit(hit, collections.codec) for hit in found.hits]
                shown = {**vars(found), "hits": hits}
                answer.found.append(bodies.FoundBy(**shown))
        return answer

    async def add_file(self, name: str, asked: bodies.AddFileRequest) -> bodies.AddFileAnswer:
        """Store the documents of a file; those that are stored already are skipped."""
        collections, read = self.database(), self.read_file
        if read is None:
            raise Refusal(501, "this service reads no files", "not_installed")
        text, key = asked.text_field, asked.id_field
        documents = await asyncio.to_thread(
            lambda: list(islice(read(asked.name, asked.data, text, key), SERVICE_FILE + 1))
        )
        if len(documents) > SERVICE_FILE:
            raise InputError(
                f"the file has more than {SERVICE_FILE:,} documents: use 'qdrant-embed add'"
            )
        if not documents:
            return bodies.AddFileAnswer(stored=0)
        with self.admission.hold(len(documents), sum(len(added.text) for added in documents)):
            ids = await collections.add(
                name, documents, on_existing="skip", ids=None if key else "content"
            )
        return bodies.AddFileAnswer(stored=len(set(ids)))

    async def add(self, name: str, asked: bodies.AddRequest) -> bodies.AddAnswer:
        """Store documents, and return their ids."""
        collections = self.database()
        documents = [
            Document(text=added.text, metadata=added.metadata, id=added.id)
            for added in asked.documents
        ]
        without = sum(document.id is None for document in documents)
        if 0 < without < len(documents):
            raise InputError(
                f"documents: {without} of {len(documents)} have no id; give all of them one, or "
                "none"
            )
        with self.admission.hold(len(documents), sum(len(added.text) for added in documents)):
            ids = await collections.add(
                name,
                documents,
                on_existing=asked.on_existing,
                ids="content" if without else None,
            )
        return bodies.AddAnswer(ids=ids)

    async def get(self, name: str, asked: bodies.IdsRequest) -> bodies.DocumentsAnswer:
        """Return documents, whole."""
        found = await self.database().get(name, asked.ids)
        return bodies.DocumentsAnswer(documents=[_whole(document) for document in found])

    async def delete(self, name: str, asked: bodies.IdsRequest) -> bodies.DeleteAnswer:
        """Delete documents."""
        await self.database().delete(name, asked.ids)
        return bodies.DeleteAnswer(deleted=len(asked.ids))

    # state

    async def health(self) -> bodies.StateAnswer:
        """Return that the service runs."""
        return bodies.StateAnswer(status="ok")

    async def readiness(self) -> bodies.StateAnswer:
        """Return that models are loaded and the database answers.

        Raises:
            Refusal: if one of these is not so.
        """
        if not self.is_ready:
            raise Refusal(503, "models are being loaded", "loading", retry_after=1)
        if self.collections is not None:
            try:
                await self.collections.check()
            except QdrantEmbedError as error:
                raise Refusal(
                    503, "the database does not answer", "database_unavailable", retry_after=5
                ) from error
        return bodies.StateAnswer(status="ok")

    async def close(self) -> None:
        """Close the database, and end the threads."""
        self.is_ready = False
        if self.collections is not None:
            await self.collections.close()
        self.models.close()


def _shown(
    found: Sequence[Embedded],
    dimensions: int | None,
    show: Callable[[Vector], list[float] | str],
) -> list[bodies.Embedding]:
    vectors = (cut(embedded.vector, dimensions) for embedded in found)
    return [
        bodies.Embedding.model_construct(object="embedding", index=index, embedding=show(vector))
        for index, vector in enumerate(vectors)
    ]


def _in_base64(vector: Vector) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()


def _as_numbers(vector: Vector) -> list[float]:
    numbers: list[float] = vector.tolist()
    return numbers


def _listed(name: str, task: str) -> bodies.ServedModel:
    owner = name.partition("/")[0] if "/" in name else "local"
    return bodies.ServedModel.model_validate({"id": name, "owned_by": owner, "task": task})


def _hit(hit: QueryResponse, codec: PayloadCodec) -> bodies.Hit:
    chunk = chunk_of(hit)
    return bodies.Hit(
        id=hit.id,
        score=hit.score,
        document=hit.document,
        metadata=codec.metadata(hit.metadata),
        chunk=None if chunk is None else dict(chunk),
        retrieval_score=hit.retrieval_score,
    )


def _whole(document: StoredDocument | None) -> bodies.WholeDocument | None:
    if document is None:
        return None
    return bodies.WholeDocument(
        id=document.id,
        text=document.text,
        metadata=document.metadata,
        complete=document.complete,
    )
