"""Bodies of requests and answers, as they are described and checked."""

from __future__ import annotations

import base64
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    ValidationError,
    field_validator,
)
from pydantic_core import PydanticCustomError
from qdrant_client import models

from qdrant_embed.encoder.facts.catalog import DEFAULT_RERANKER
from qdrant_embed.ingest.adding import OnExisting
from qdrant_embed.limits import (
    SERVICE_FILTER,
    SERVICE_HITS,
    SERVICE_QUERY,
    SERVICE_REACH,
    SERVICE_TEXT,
    SERVICE_TEXTS,
)
from qdrant_embed.search.comparison import Way
from qdrant_embed.search.search import Fusion
from qdrant_embed.serve.models import InputType
from qdrant_embed.serve.page.fields import FieldKind

LONGEST_NAME = 255

Text = Annotated[str, StringConstraints(max_length=SERVICE_TEXT)]
QueryText = Annotated[str, StringConstraints(max_length=SERVICE_QUERY)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_NAME)]
Id = (
    Annotated[str, StringConstraints(min_length=1, max_length=4_096)]
    | Annotated[int, Field(strict=True, ge=0, lt=2**64)]
)
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Limit = Annotated[int, Field(strict=True, ge=1, le=SERVICE_HITS)]


def _check_is_short(where: dict[str, Any] | None) -> dict[str, Any] | None:
    found, pending = 0, [where]
    while pending and found <= SERVICE_FILTER:
        part: Any = pending.pop()
        inner = part.values() if isinstance(part, dict) else part
        if isinstance(part, dict | list):
            found += len(part)
            pending.extend(inner)
    if found > SERVICE_FILTER:
        raise PydanticCustomError("long_filter", f"a filter has {SERVICE_FILTER:,} values at most")
    return where


def _check_is_filter(condition: dict[str, Any] | None) -> dict[str, Any] | None:
    if condition is not None:
        try:
            models.Filter.model_validate(condition)
        except ValidationError as error:
            wrong = error.errors(include_url=False, include_context=False, include_input=False)[0]
            parts = [str(part) for part in wrong["loc"]]
            place = ".".join(part for part in parts if not part.startswith("list["))
            raise PydanticCustomError(
                "no_filter",
                "it is no filter of Qdrant's: {said}",
                {"said": f"{place}: {wrong['msg']}"},
            ) from error
    return condition


Where = Annotated[dict[str, Any] | None, AfterValidator(_check_is_short)]
Condition = Annotated[
    dict[str, Any] | None, AfterValidator(_check_is_short), AfterValidator(_check_is_filter)
]


class Asked(BaseModel):
    """A body of a request; a field that it does not have is refused, and no value is converted."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)


class Answered(BaseModel):
    """A body of an answer."""

    model_config = ConfigDict(extra="forbid")


class EmbeddingsRequest(Asked):
    """Texts to encode, as OpenAI's API has them.

    Attributes:
        input: a text, or several.
        model: a served model; the default one without it.
        encoding_format: ``float`` for lists of numbers, ``base64`` for float32 in base64.
        dimensions: length of the vectors, for models that are trained for being cut.
        input_type: whether the model's prefix for queries or for documents is put before each text;
            none by default.
        user: accepted, and not used.
    """

    input: Annotated[
        Annotated[Text, Tag("text")]
        | Annotated[list[Text], Field(min_length=1, max_length=SERVICE_TEXTS), Tag("texts")],
        Discriminator(lambda value: "texts" if isinstance(value, list) else "text"),
    ]
    model: Name | None = None
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Field(ge=1, le=65_536)] | None = None
    input_type: InputType | None = None
    user: str | None = None

    @field_validator("input", mode="before")
    @classmethod
    def _check_is_text(cls, value: object) -> object:
        if isinstance(value, list):
            if not value:
                raise PydanticCustomError("empty", "it is empty: send a text, or a list of texts")
            value_of = value[0]
        else:
            value_of = value
        if isinstance(value_of, int | list):
            raise PydanticCustomError(
                "token_ids",
                "ids of tokens belong to another model's tokenizer: send texts (LangChain does "
                "with check_embedding_ctx_length=False)",
            )
        return value


class Embedding(Answered):
    """One vector: a list of numbers, or float32 in base64."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class Usage(Answered):
    """The tokens that were read, prefixes and special tokens included."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsAnswer(Answered):
    """A vector for each text, in order."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: Usage


class ServedModel(Answered):
    """A model that is served, as OpenAI's API lists it.

    Attributes:
        id: its name.
        object: always ``model``.
        created: always 0.
        owned_by: the first part of its name.
        task: ``embed`` or ``rerank``.
    """

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str
    task: Literal["embed", "rerank"]


class ModelsAnswer(Answered):
    """The models that are served; of each task, the first is the default."""

    object: Literal["list"] = "list"
    data: list[ServedModel]


class RerankedText(Asked):
    """A document as an object, as Cohere's and Jina's APIs also have it."""

    text: Text


class RerankRequest(Asked):
    """Documents to compare with a query.

    Attributes:
        query: the text that they are compared with.
        documents: the documents: texts, or objects with a ``text``.
        model: a served reranker; the default one without it.
        top_n: number of results; all without it.
        return_documents: whether results have their documents.
    """

    query: QueryText
    documents: Annotated[
        list[
            Annotated[
                Annotated[Text, Tag("text")] | Annotated[RerankedText, Tag("object")],
                Discriminator(lambda value: "object" if isinstance(value, dict) else "text"),
            ]
        ],
        Field(min_length=1, max_length=SERVICE_TEXTS),
    ]
    model: Annotated[Name | None, Field(examples=[DEFAULT_RERANKER])] = None
    top_n: Annotated[int, Field(ge=1)] | None = None
    return_documents: bool = False


class RankedText(Answered):
    """A document of a result."""

    text: str


class RerankResult(Answered):
    """A document's place in the request, and how well it answers the query, from 0 to 1."""

    index: int
    relevance_score: float
    document: RankedText | None = None


class RerankUsage(Answered):
    """The tokens that were read."""

    total_tokens: int


class RerankAnswer(Answered):
    """Results, best first."""

    model: str
    results: list[RerankResult]
    usage: RerankUsage


class CollectionFacts(Answered):
    """A collection.

    Attributes:
        name: its name.
        points: number of its points, about; null if the database does not say.
        stamp: what wrote it, as it records it; null for a collection without a stamp.
        vectors: names of its dense vectors; the unnamed one is empty.
        sparse_vectors: names of its sparse vectors.
        problem: why it cannot be used, if it cannot.
    """

    name: str
    points: int | None
    stamp: dict[str, Any] | None
    vectors: list[str]
    sparse_vectors: list[str]
    problem: str | None


class CollectionsAnswer(Answered):
    """All collections, by name."""

    collections: list[CollectionFacts]


class QueryRequest(Asked):
    """A text to search a collection for.

    Attributes:
        query: the text; without it, `like` has examples.
        limit: number of hits at most.
        offset: number of best hits to leave out.
        where: a filter on metadata, like ``{"year": {"gte": 2020}}``.
        filter: a filter on payloads as Qdrant's API has it, like
            ``{"must": [{"key": "year", "range": {"gte": 2020}}]}``; hits are what both let through.
        score_threshold: score of a hit at least.
        fusion: how the rankings of a hybrid search become one.
        prefetch_limit: number of hits of each ranking.
        reranker: a served reranker that scores the hits again.
        rerank_limit: number of hits that it scores.
        chunks: whether each chunk is a hit, and not a document's best one.
        diversity: how much hits shall differ from each other, from 0 to 1.
        like: ids of documents that hits shall be near to.
        unlike: ids of documents that hits shall be far from.
    """

    query: QueryText | None = None
    limit: Limit = 10
    offset: Annotated[int, Field(ge=0, le=SERVICE_REACH)] | None = None
    where: Where = None
    filter: Condition = None
    score_threshold: Annotated[float, Field(allow_inf_nan=False)] | None = None
    fusion: Fusion = "rrf"
    prefetch_limit: Annotated[int, Field(ge=1, le=SERVICE_REACH)] | None = None
    reranker: Name | None = None
    rerank_limit: Annotated[int, Field(ge=1, le=SERVICE_HITS)] | None = None
    chunks: bool = False
    diversity: Share | None = None
    like: Annotated[list[Id], Field(max_length=100)] = []
    unlike: Annotated[list[Id], Field(max_length=100)] = []


class Hit(Answered):
    """A document that was found, or a chunk of one.

    Attributes:
        id: its id.
        score: higher is better.
        document: its text; of a chunk its own.
        metadata: its metadata.
        chunk: which part of the document it is, if it is a part.
        retrieval_score: with a reranker, the score that it was found with.
    """

    id: str | int
    score: float
    document: str
    metadata: dict[str, Any]
    chunk: dict[str, Any] | None = None
    retrieval_score: float | None = None


class QueryAnswer(Answered):
    """Hits, best first.

    Attributes:
        hits: the hits.
        seconds: how long the search took.
    """

    hits: list[Hit]
    seconds: float


class CompareRequest(Asked):
    """A text to search a collection for in several ways, to compare them.

    Attributes:
        query: the text.
        ways: what to search by: one kind of vectors, or all of them and a reranker; all that the
            collection and the service have, without it.
        limit: number of hits of each way at most.
        where: a filter on metadata, like ``{"year": {"gte": 2020}}``.
        reranker: a served reranker; the default one without it.
    """

    query: QueryText
    ways: Annotated[list[Way], Field(max_length=5)] = []
    limit: Annotated[int, Field(strict=True, ge=1, le=100)] = 10
    where: Where = None
    reranker: Name | None = None


class FoundBy(Answered):
    """What one way of searching has found.

    Attributes:
        way: the way.
        hits: the hits, best first.
        encoding: seconds until the text's vectors were computed.
        searching: seconds until the collection had answered.
        reranking: seconds until the reranker had scored, if there is one.
    """

    way: Way
    hits: list[Hit]
    encoding: float
    searching: float
    reranking: float | None


class CompareAnswer(Answered):
    """What each way has found, in the order of the request."""

    found: list[FoundBy]


class FieldFacts(Answered):
    """A field of metadata, as some documents have it.

    Attributes:
        path: its name in filters.
        kind: what its values are: ``choice`` stands for a few texts that occur again and again.
        values: the values of a choice that were seen.
    """

    path: str
    kind: FieldKind
    values: list[str]


class CollectionDescription(Answered):
    """How a collection can be searched.

    Attributes:
        name: its name.
        ways: the ways to search it, with the default reranker if there is one.
        fields: the fields of its documents, as far as some of them show.
    """

    name: str
    ways: list[Way]
    fields: list[FieldFacts]


class AddFileRequest(Asked):
    """A file of documents to encode and store: JSON lines, CSV, or a text on each line.

    Attributes:
        name: its name, which ends in ``.jsonl``, ``.csv`` or ``.txt``.
        content: its bytes in base64.
        text_field: field that holds the text, in JSON lines and CSV.
        id_field: field that holds the id, if one does.
    """

    name: Name
    content: Annotated[str, Field(json_schema_extra={"contentEncoding": "base64"})]
    text_field: Name = "text"
    id_field: Name | None = None

    @field_validator("content")
    @classmethod
    def _check_is_base64(cls, content: str) -> str:
        try:
            base64.b64decode(content, validate=True)
        except ValueError as error:  # also one that is not ASCII
            raise PydanticCustomError("base64", "must be base64") from error
        return content

    @property
    def data(self) -> bytes:
        """The file's bytes."""
        return base64.b64decode(self.content)


class AddFileAnswer(Answered):
    """How many different documents of the file are stored."""

    stored: int


class AddedDocument(Asked):
    """A document to store.

    Attributes:
        text: its text.
        metadata: JSON values by name.
        id: its id; derived from text and metadata, if no document has one.
    """

    text: Text
    metadata: dict[str, Any] = {}
    id: Id | None = None


class AddRequest(Asked):
    """Documents to encode and store; a collection that does not exist is created.

    Attributes:
        documents: the documents; all have an id, or none has.
        on_existing: what is done about documents that are stored already.
    """

    documents: Annotated[list[AddedDocument], Field(min_length=1, max_length=SERVICE_TEXTS)]
    on_existing: OnExisting = "overwrite"


class AddAnswer(Answered):
    """The documents' ids, in order."""

    ids: list[str | int]


class IdsRequest(Asked):
    """Documents by id."""

    ids: Annotated[list[Id], Field(min_length=1, max_length=SERVICE_TEXTS)]


class DeleteAnswer(Answered):
    """How many ids were deleted; those that did not exist are counted, too."""

    deleted: int


class WholeDocument(Answered):
    """A document as it is stored, whole.

    Attributes:
        id: its id.
        text: its text.
        metadata: its metadata.
        complete: whether all its chunks are stored.
    """

    id: str | int
    text: str
    metadata: dict[str, Any]
    complete: bool


class DocumentsAnswer(Answered):
    """Documents in the order of their ids; null for one that is missing."""

    documents: list[WholeDocument | None]


class StateAnswer(Answered):
    """Whether the service runs, or is ready.

    Attributes:
        status: ``ok``, or what it waits for.
    """

    status: str
