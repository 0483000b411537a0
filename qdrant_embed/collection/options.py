"""Options for creating a collection, in addition to the vectors' size and distance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeAlias, get_args

from pydantic import TypeAdapter, ValidationError
from qdrant_client import models

from qdrant_embed.encoder.interfaces import (
    EncoderDescription,
    LateDescription,
    SparseDescription,
)
from qdrant_embed.engines.names import HOW_FIELDS_ARE_NAMED, is_field
from qdrant_embed.errors import InputError, check_unicode, check_whole

Indexing: TypeAlias = Literal["on", "after add", "after wait"]

_INDEXES: TypeAdapter[models.PayloadFieldSchema] = TypeAdapter(models.PayloadFieldSchema)


@dataclass(frozen=True)
class CollectionOptions:
    """Options for a collection that `add` creates; they do not change an existing collection.

    The server, or the embedded engine of a folder, decides on options that are ``None``. Local mode
    stores everything exactly, in memory, and ignores these options; the embedded engine ignores
    those of shards and replicas.

    Quantisation trades recall for memory. Most of the recall is regained by `query`, which scores
    two to four times as many candidates as hits again by the stored vectors, unless
    ``search_params`` is passed:

    - Scalar takes a quarter of the memory at almost no cost in recall.
    - Turbo with 4 bits takes an eighth, within one or two points of scalar.
    - Binary, and turbo with 1 bit, take a thirty-second. Use them with rescoring, and binary with
      models of 1,024 dimensions and more.
    - Product takes as little as a sixty-fourth, at the highest cost in recall, and is slower.

    These are Qdrant's own figures (its pages on quantisation and TurboQuant); measure on your own
    texts. Turbo needs Qdrant 1.18.

    For instance::

        int8 = models.ScalarQuantization(
            scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8, always_ram=True)
        )
        options = CollectionOptions(
            shard_number=6, replication_factor=2, quantization_config=int8, on_disk=True
        )
        client.add("notes", texts, collection_options=options)

    Attributes:
        on_disk: whether to store dense vectors on disk instead of in memory; slower without fast
            disks.
        quantization_config: `models.ScalarQuantization`, `BinaryQuantization`,
            `ProductQuantization` or `TurboQuantization`.
        hnsw_config: options of the index; a higher ``m`` or ``ef_construct`` finds more and takes
            longer.
        sparse_on_disk: whether to store the index of sparse vectors on disk.
        on_disk_payload: whether to store texts and metadata on disk.
        shard_number: number of shards; with custom sharding, for each shard key.
        sharding_method: custom sharding needs a cluster and a ``shard_key_selector``, whose shards
            `add` creates.
        replication_factor: number of copies of each shard.
        write_consistency_factor: number of copies that must confirm a write.
        indexed: fields of the metadata to index, which makes filters on them fast, and the kind of
            each: ``{"year": "integer", "author.name": "keyword"}``. Names are those of `where`; a
            kind is ``"keyword"``, ``"integer"``, ``"float"``, ``"bool"``, ``"geo"``,
            ``"datetime"``, ``"text"`` or ``"uuid"``, or an object with more options, such as
            `models.TextIndexParams`. They are created before the first document is stored, also in
            a collection that exists and is empty.
        late_on_disk: whether to store the vectors of tokens on disk; see `set_late_model`.
        late_quantization_config: quantisation of the vectors of tokens, which are many.
        indexing: when the index of a new or empty collection is built: while documents come,
            or, as `bulk` sets it, ``"after add"`` or ``"after wait"``. Local mode ignores it.

    Raises:
        InputError: if an option is invalid.
    """

    on_disk: bool | None = None
    quantization_config: models.QuantizationConfig | None = None
    hnsw_config: models.HnswConfigDiff | None = None
    sparse_on_disk: bool | None = None
    on_disk_payload: bool | None = None
    shard_number: int | None = None
    sharding_method: models.ShardingMethod | None = None
    replication_factor: int | None = None
    write_consistency_factor: int | None = None
    indexed: Mapping[str, models.PayloadFieldSchema | str] | None = None
    late_on_disk: bool | None = None
    late_quantization_config: models.QuantizationConfig | None = None
    indexing: Indexing = "on"

    def __post_init__(self) -> None:
        if self.indexed is not None:
            object.__setattr__(self, "indexed", _checked_indexes(self.indexed))
        for option in ("shard_number", "replication_factor", "write_consistency_factor"):
            if getattr(self, option) is not None:
                check_whole(option, getattr(self, option), 1)
        if self.indexing not in get_args(Indexing):
            raise InputError(
                f"indexing must be 'on', 'after add' or 'after wait', not {self.indexing!r:.80}"
            )
        if not isinstance(self.sharding_method, models.ShardingMethod | None):
            raise InputError(
                "sharding_method must be a qdrant_client.models.ShardingMethod, not "
                f"{self.sharding_method!r:.80}"
            )
        try:
            self.vector_params(1, "Cosine")
            self.late_vector_params(LateDescription("", 1))
            models.SparseIndexParams(on_disk=self.sparse_on_disk)
        except ValidationError as error:
            wrong = error.errors()[0]
            raise InputError(
                f"CollectionOptions: {wrong['loc'][0]} cannot be {wrong['input']!r:.80}; see "
                f"qdrant_client.models.{error.title}"
            ) from error

    @classmethod
    def bulk(cls, *, wait: bool = False, **options: Any) -> CollectionOptions:
        """Return options whose index is built after loading, which is faster in total.

        No index is built while documents are added to a new or empty collection. Building starts
        when that `add` ends or, if it fails or its process dies, when the next one ends or
        `wait_until_indexed` is called. Until it is built, searches compare all vectors. Local mode
        has no index.

        Args:
            wait: whether the index stays off until `wait_until_indexed` is called, or an `add` ends
                that has other options. Pass ``True`` for several calls of `add`, or several
                processes, that load one collection.
            options: the attributes.

        Raises:
            InputError: if an option is invalid.
        """
        if not isinstance(wait, bool):
            raise InputError(f"wait must be True or False, not {wait!r:.80}")
        unknown = sorted(set(options) - {option.name for option in fields(cls)})
        if unknown:
            raise InputError(f"CollectionOptions has no option {unknown[0]!r:.80}")
        return cls(**{"indexing": "after wait" if wait else "after add", **options})

    @property
    def indexes(self) -> Mapping[str, models.PayloadFieldSchema]:
        """The kind of each index to create, by the name of its field."""
        return self.indexed or {}  # type: ignore[return-value] # checked above

    def vector_params(self, dimension: int, distance: str) -> models.VectorParams:
        """Return the parameters of a dense vector.

        Args:
            dimension: number of dimensions.
            distance: Qdrant's name of the distance.
        """
        return models.VectorParams(
            size=dimension,
            distance=models.Distance(distance),
            on_disk=self.on_disk,
            quantization_config=self.quantization_config,
            hnsw_config=self.hnsw_config,
        )

    def late_vector_params(self, late: LateDescription) -> models.VectorParams:
        """Return the parameters of the vectors of tokens, which need no index.

        They are compared with those of candidates alone, which other vectors have found.

        Args:
            late: description of the late-interaction encoder.
        """
        return models.VectorParams(
            size=late.dimension,
            distance=models.Distance(late.distance),
            multivector_config=models.MultiVectorConfig(
                comparator=models.MultiVectorComparator.MAX_SIM
            ),
            hnsw_config=models.HnswConfigDiff(m=0),
            on_disk=self.late_on_disk,
            quantization_config=self.late_quantization_config,
        )

    def creation(
        self,
        dense: EncoderDescription,
        vector_name: str,
        sparse: SparseDescription | None = None,
        sparse_name: str = "",
        late: LateDescription | None = None,
        late_name: str = "",
    ) -> dict[str, Any]:
        """Return the arguments of ``create_collection`` except the name and the metadata.

        Args:
            dense: description of the dense encoder.
            vector_name: name of the dense vector; ``""`` for the unnamed one.
            sparse: description of the sparse encoder, if there is one.
            sparse_name: name of the sparse vector.
            late: description of the late-interaction encoder, if there is one.
            late_name: name of the vectors of tokens.

        Raises:
            InputError: if there are vectors of tokens, and the dense vector has no name.
        """
        params = self.vector_params(dense.dimension, dense.distance)
        sparse_params = (
            sparse_vector_params(sparse, on_disk=self.sparse_on_disk) if sparse else None
        )
        vectors: Any = {vector_name: params} if vector_name else params
        if late is not None:
            if not vector_name:
                raise InputError(
                    "with set_late_model(), the dense vector needs a name: call set_model() "
                    "without vector_name=''"
                )
            vectors |= {late_name: self.late_vector_params(late)}
        return {
            "vectors_config": vectors,
            "sparse_vectors_config": {sparse_name: sparse_params} if sparse_params else None,
            "on_disk_payload": self.on_disk_payload,
            "shard_number": self.shard_number,
            "sharding_method": self.sharding_method,
            "replication_factor": self.replication_factor,
            "write_consistency_factor": self.write_consistency_factor,
        }

    def shard_keys(self, selector: models.ShardKeySelector | None) -> list[models.ShardKey]:
        """Return the keys of the shards that `add` must create.

        Args:
            selector: the ``shard_key_selector`` of the `add`.
        """
        if selector is None or self.sharding_method != models.ShardingMethod.CUSTOM:
            return []
        if isinstance(selector, models.ShardKeyWithFallback):
            return [selector.target, selector.fallback]
        return list(selector) if isinstance(selector, list) else [selector]


def check_shard_keys(
    options: CollectionOptions | None, selector: models.ShardKeySelector | None
) -> None:
    """Raise `InputError` if a collection with these options would have no shards."""
    custom = options is not None and options.sharding_method == models.ShardingMethod.CUSTOM
    if custom and selector in (None, []):
        raise InputError(
            "sharding_method=CUSTOM stores nothing without a shard key; pass shard_key_selector="
        )


def _checked_indexes(indexed: object) -> dict[str, models.PayloadFieldSchema]:
    """Return the kinds of indexes as Qdrant has them.

    Raises:
        InputError: if a name or a kind is invalid.
    """
    if not isinstance(indexed, Mapping):
        raise InputError(f'indexed must be a dict like {{"year": "integer"}}, not {indexed!r:.80}')
    checked: dict[str, models.PayloadFieldSchema] = {}
    for field, kind in indexed.items():
        if not isinstance(field, str) or not is_field(field):
            raise InputError(
                f"indexed has the key {field!r:.80}, which is not a valid name in Qdrant; "
                f"{HOW_FIELDS_ARE_NAMED}"
            )
        check_unicode(f"the key {field!r:.80} in indexed", field)
        try:
            checked[field] = _INDEXES.validate_python(kind)
        except ValidationError as error:
            kinds = ", ".join(repr(known.value) for known in models.PayloadSchemaType)
            raise InputError(
                f"indexed[{field!r}] must be one of {kinds}, or an object like "
                f"qdrant_client.models.TextIndexParams(...), not {kind!r:.80}"
            ) from error
    return checked


def checked_options(options: CollectionOptions | None) -> CollectionOptions:
    """Return the options themselves, or the defaults for ``None``.

    Raises:
        InputError: if `options` is something else.
    """
    if not isinstance(options, CollectionOptions | None):
        raise InputError(f"collection_options must be CollectionOptions(...), not {options!r:.80}")
    return options or CollectionOptions()


def sparse_vector_params(
    encoder: SparseDescription,
    *,
    on_disk: bool | None = None,
    modifier: models.Modifier | None = None,
) -> models.SparseVectorParams:
    """Return the parameters of a sparse vector; `modifier` is IDF by default if needed."""
    if modifier is None and encoder.idf:
        modifier = models.Modifier.IDF
    index = models.SparseIndexParams(on_disk=on_disk)
    return models.SparseVectorParams(index=index, modifier=modifier)
