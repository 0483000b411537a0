"""Selection of the encoders for a collection, and what a collection may decide about it.

Whoever can write to a collection can write its stamp, and so can whoever runs the server. So the
stamp of a collection chooses among models that this client would trust anyway:

1. A model of the catalog, as the hub's main branch or an installed package has it.
2. Any model that the cache folder holds, downloaded earlier because somebody on this machine asked
   for it, if it has the stamp's digests.
3. With ``trust_stamps=True``, or ``QDRANT_EMBED_TRUST_STAMPS=1``, any repository on the hub, and
   any commit of it: anybody can propose a commit to a repository, of known models too.

In all cases the digests are compared before anything is compiled, no token is sent, and what is
fetched is logged. A model that earlier releases ran from its own ONNX file has the stamp's digests
if that file has them; its weights are compiled then, and used if their vectors are equal. The name
is never that of a folder: not even a look at a path of a stamp's choosing is harmless, because
Windows sends the user's credentials to the server that one names.

A stamp's prefixes are believed. They are put before texts inside the encoder and go nowhere else;
they change what is found in this collection alone, which its writer decides anyway; and without
them, the collection of a user who chose other prefixes than the model's would be searched wrongly.
Their length is limited (`qdrant_embed.limits`).
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

from qdrant_embed.collection.encoders import (
    Encoder,
    ModelEncoder,
    ModelTerms,
    adapt,
    described_for,
)
from qdrant_embed.collection.stamp import SparseStamp, Stamp, describe_late, describe_sparse
from qdrant_embed.collection.stored import (
    StoredCollection,
    check_collection,
    check_has_sparse,
    check_late_collection,
    check_sparse_collection,
    late_field_name,
    sparse_field_name,
    vector_field_name,
)
from qdrant_embed.collection.vectors import (
    CollectionVectors,
    DenseVectors,
    LateVectors,
    SparseVectors,
)
from qdrant_embed.encoder.cross import TextCrossEncoder
from qdrant_embed.encoder.facts.catalog import (
    CATALOG,
    DEFAULT_MODEL,
    KINDS,
    is_repository_name,
    known_name,
)
from qdrant_embed.encoder.facts.sparse_catalog import BM25, SPARSE_CATALOG
from qdrant_embed.encoder.interfaces import (
    EncoderDescription,
    LateDescription,
    LateEncoder,
    NotAsRecordedError,
    NotInCacheError,
    OtherFormError,
    Overflow,
    Recorded,
    Reranker,
    SparseDescription,
    SparseEncoder,
    Task,
    check_reranker,
)
from qdrant_embed.encoder.late import LateInteractionTextEmbedding, late_of_record
from qdrant_embed.encoder.sparse import SparseTextEmbedding, sparse_for, sparse_of_record
from qdrant_embed.encoder.text import TextEmbedding, text_of_record, with_terms
from qdrant_embed.environment import TRUST_VARIABLE, is_on
from qdrant_embed.errors import CollectionMismatchError, InputError, UntrustedModelError
from qdrant_embed.forks import ForkLock

logger = logging.getLogger(__name__)

_LIFETIME = 60.0  # seconds; other clients can move an alias or add sparse vectors to a collection


class _Described(Protocol):
    def describe(self) -> EncoderDescription | SparseDescription | LateDescription: ...


E = TypeVar("E", bound=_Described)


@dataclass(frozen=True)
class ModelPolicy:
    """What a client's constructor says about models.

    Attributes:
        trust_stamps: whether any model that a collection names is fetched and run.
        offline: whether nothing is fetched.
    """

    trust_stamps: bool = False
    offline: bool = False

    @property
    def trusts(self) -> bool:
        """Whether any model that a collection names is fetched and run.

        Raises:
            InputError: if the variable in the environment is neither 1 nor 0.
        """
        return self.trust_stamps or is_on(TRUST_VARIABLE)


@dataclass(frozen=True)
class _Named:
    """A model as a collection's stamp names it.

    Attributes:
        collection: name of the collection.
        description: the stamp, of the dense or of other vectors.
        task: what the model is for.
    """

    collection: str
    description: EncoderDescription | SparseDescription | LateDescription
    task: Task = "embed"

    @property
    def setter(self) -> str:
        """The method that chooses a model in its place."""
        return KINDS[self.task].setter

    @property
    def model(self) -> str:
        """The model's name."""
        return self.description.model

    @property
    def is_known(self) -> bool:
        """Whether it is of the catalog."""
        return known_name(self.model, self.task) is not None

    def attempts(self, policy: ModelPolicy) -> Iterator[tuple[str | None, Recorded]]:
        """Yield the revisions at which the model may be found, each with what is demanded of it."""
        fetches = self.is_known or policy.trusts
        commit = self.description.revision
        if commit is not None:  # a look into the cache folder, before anything is fetched
            yield commit, self._recorded(fetched=False)
        yield None, self._recorded(fetched=fetches)
        if commit is not None and policy.trusts:
            yield commit, self._recorded(fetched=True)

    def _recorded(self, *, fetched: bool) -> Recorded:
        facts = self.description
        return Recorded(facts.weights_sha256, facts.tokenizer_sha256, may_be_fetched=fetched)


def _followed(named: _Named, policy: ModelPolicy, load: Callable[[str | None, Recorded], E]) -> E:
    """Return the encoder that a stamp names, if the rule above allows it.

    Args:
        named: the model.
        policy: the client's.
        load: returns its encoder at a revision, which is not loaded yet.

    Raises:
        UntrustedModelError: if the rule does not allow it.
        CollectionMismatchError: if the model has other digests, or the stamp's options do not fit
            the model.
        ModelError: if it cannot be fetched or read.
    """
    if not named.is_known and not is_repository_name(named.model):
        raise _untrusted(named, is_name=False)
    other: NotAsRecordedError | None = None
    form: OtherFormError | None = None
    for revision, recorded in named.attempts(policy):
        try:
            encoder = load(revision, recorded)
            encoder.describe()
        except NotInCacheError:
            continue
        except OtherFormError as error:
            other = form = error
            continue
        except NotAsRecordedError as error:
            other = error
            continue
        except InputError as error:
            raise CollectionMismatchError(
                f"the stamp of collection {named.collection!r} cannot be followed: {error}; if "
                f"its documents are yours, call {named.setter}({named.model!r:.200}) with the "
                "options they were added with",
                expected={},
                found={"model": named.model},
            ) from error
        return encoder
    if form is not None:
        raise _written_by_other_form(named.collection, named.description, form) from form
    if other is None:
        raise _untrusted(named)
    if policy.trusts or named.description.revision is None:
        raise CollectionMismatchError(
            f"collection {named.collection!r} was written by {named.model!r:.200} with other files "
            f"than it has today: {other}; to use today's, call migrate_model()",
            expected={"weights_sha256": named.description.weights_sha256},
            found={},
        ) from other
    raise _untrusted(named, other) from other


def _written_by_other_form(
    collection_name: str,
    stamp: EncoderDescription | SparseDescription | LateDescription | None,
    error: OtherFormError,
) -> CollectionMismatchError:
    return CollectionMismatchError(
        f"collection {collection_name!r} was written by the other form of its model: {error}. To "
        "encode its documents again with today's form, call migrate_model()",
        expected={"weights_sha256": error.weights_sha256},
        found={"weights_sha256": stamp.weights_sha256 if stamp else None},
    )


def _described(encoder: Encoder, collection: StoredCollection) -> EncoderDescription:
    """Return the description of `encoder`, to compare it with a collection's stamp.

    Raises:
        CollectionMismatchError: if another form of the model wrote the collection.
    """
    try:
        return described_for(encoder, collection.stamp)
    except OtherFormError as error:
        raise _written_by_other_form(collection.name, collection.stamp, error) from error


def _untrusted(
    named: _Named, other: NotAsRecordedError | None = None, *, is_name: bool = True
) -> UntrustedModelError:
    collection, model = named.collection, named.model
    begin = f"collection {collection!r} names {model!r:.200} as its model"
    if not is_name:
        message = (
            f"{begin}, which is a folder or not the name of a model; a collection never chooses "
            f"a folder. Call {named.setter}() with the folder of that model on this machine"
        )
    elif other is not None:
        revision = named.description.revision
        message = (
            f"{begin}, at commit {revision!r:.80}, and its main branch has other files: {other}. "
            f"If you trust that commit, call {named.setter}({model!r}, revision={revision!r:.80})"
            f"{_FOR_ALL}"
        )
    else:
        message = (
            f"{begin}, which is not in the catalog, and the cache folder has no model of that name "
            "with the digests that the collection records; a collection does not choose what is "
            f"downloaded and run. If you trust that model, call {named.setter}({model!r}){_FOR_ALL}"
        )
    return UntrustedModelError(message, name=model, collection_name=collection)


_FOR_ALL = (
    f". For all collections of a client: trust_stamps=True, or {TRUST_VARIABLE}=1 in the "
    "environment. For one command: --model, --sparse-model"
)


def _is_beside(stamp: Stamp) -> bool:
    """Return whether a collection's dense model computes its sparse vectors in the same pass."""
    sparse = stamp.sparse
    return sparse is not None and bool(sparse.beside_dense) and sparse.model == stamp.model


def _normalizes(collection: StoredCollection) -> bool:
    """Return whether BM25 normalises texts in a collection, unless the user has said so."""
    stamp = collection.stamp
    if stamp is not None and stamp.sparse is not None:
        return bool(stamp.sparse.normalize_text)
    return stamp is not None or collection.is_empty


@dataclass(frozen=True)
class _Followed:
    """The facts of a collection's own model, by which it is loaded."""

    model: str
    max_tokens: int | None = None
    query_prefix: str | None = None
    document_prefix: str | None = None
    revision: str | None = None
    dimensions: int | None = None
    overflow: Overflow = "truncate"
    overlap: int = 0
    recorded: Recorded | None = None
    terms: bool = False  # whether it weighs terms in the same pass
    adapter: str | None = None


@dataclass(frozen=True)
class _Recent:
    """A collection as it was read, its vectors, and until when they are believed."""

    stored: StoredCollection
    vectors: CollectionVectors
    expires: float


class RecentVectors:
    """A cache of collections' vectors by name or alias, which saves a request per query.

    An entry expires after a minute. Threads can share an object.
    """

    def __init__(self) -> None:
        self._entries: dict[str, _Recent] = {}

    def find(self, collection_name: str) -> CollectionVectors | None:
        """Return the vectors of a collection; ``None`` if it must be read from the server."""
        entry = self._entries.get(collection_name)
        return entry.vectors if entry is not None and time.monotonic() < entry.expires else None

    def last_read(self, collection_name: str) -> StoredCollection | None:
        """Return the collection as it was read last; ``None`` if it has not been read."""
        entry = self._entries.get(collection_name)
        return None if entry is None else entry.stored

    def remember(self, stored: StoredCollection, vectors: CollectionVectors) -> None:
        """Store a collection that was just read from the server, and its vectors."""
        self._entries[stored.name] = _Recent(stored, vectors, time.monotonic() + _LIFETIME)

    def forget(self, collection_name: str) -> None:
        """Remove an entry whose name now resolves to another collection."""
        self._entries.pop(collection_name, None)


@dataclass(frozen=True)
class _Chosen:
    """What `set_model` and its like have chosen, and the vectors found with it."""

    dense: Encoder | None = None
    dense_name: str | None = None
    sparse: SparseEncoder | None = None
    sparse_name: str | None = None
    follows_sparse: bool = True
    late: LateEncoder | None = None
    late_name: str | None = None
    follows_late: bool = True
    reranker: Reranker | None = None
    recent: RecentVectors = field(default_factory=RecentVectors)
    usual_dense: str | None = None  # names that other libraries give to vectors
    usual_sparse: str | None = None

    def dense_name_in(self, collection: StoredCollection) -> str | None:
        """Return the dense vector's name in a collection without a stamp; ``None`` if unknown."""
        has_usual = self.usual_dense in collection.vectors
        return self.usual_dense if self.dense_name is None and has_usual else self.dense_name

    def sparse_name_in(self, collection: StoredCollection, model_name: str) -> str | None:
        """Return the sparse vector's name in a collection that does not record it."""
        has_ours = sparse_field_name(model_name) in collection.sparse_vectors
        return self.usual_sparse if self.sparse_name is None and not has_ours else self.sparse_name


class EncoderSelection:
    """The encoders of one client: those that the user chose, and the collections' own.

    Threads can share an object. No model is loaded twice, and reading a model's name never waits
    for another model to load.

    Args:
        policy: what the client's constructor says about models.

    Attributes:
        policy: the argument.
        advised: collections and their fields of which was said that they lack an index.
    """

    def __init__(self, policy: ModelPolicy | None = None) -> None:
        self.policy = policy or ModelPolicy()
        self._lock = ForkLock()
        self._chosen = _Chosen()
        self._following: dict[_Followed, Encoder] = {}
        self._following_sparse: dict[tuple[SparseDescription, Recorded], SparseEncoder] = {}
        self._following_late: dict[tuple[LateDescription, Recorded], LateEncoder] = {}
        self._rerankers: dict[tuple[bool, str], TextCrossEncoder] = {}
        self._terms: dict[Encoder, ModelTerms] = {}
        self._warned: set[str] = set()
        self.advised: set[tuple[str, str]] = set()
        self._whole: dict[str, float] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Return the choice: what is chosen and loaded beyond it belongs to this process."""
        return {
            "chosen": replace(self._chosen, recent=RecentVectors()),
            "policy": self.policy,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["policy"])  # type: ignore[misc]
        self._chosen = state["chosen"]

    def with_names(self, dense: str, sparse: str) -> EncoderSelection:
        """Return a selection of the same models, for collections with other names of vectors.

        It does not follow later choices, but shares the models that are loaded for collections.

        Args:
            dense: name of dense vectors in new collections, and in those without a stamp that have
                it, unless the user chose one.
            sparse: name of sparse vectors, in the same way.
        """
        other = EncoderSelection(self.policy)
        other._lock, other._warned, other.advised = self._lock, self._warned, self.advised
        other._following, other._following_sparse = self._following, self._following_sparse
        other._following_late, other._terms = self._following_late, self._terms
        other._rerankers = self._rerankers
        other._chosen = replace(
            self._chosen, usual_dense=dense, usual_sparse=sparse, recent=RecentVectors()
        )
        return other

    @property
    def current(self) -> Encoder:
        """The chosen encoder, else the default model, which is not loaded yet."""
        return self._chosen.dense or self._follow(_Followed(DEFAULT_MODEL))

    @property
    def current_sparse(self) -> SparseEncoder | None:
        """The chosen sparse encoder, if any."""
        return self._chosen.sparse

    @property
    def current_late(self) -> LateEncoder | None:
        """The chosen late-interaction encoder, if any."""
        return self._chosen.late

    @property
    def follows_late(self) -> bool:
        """Whether collections are used with their own late-interaction models."""
        return self._chosen.follows_late

    @property
    def recent(self) -> RecentVectors:
        """Vectors found recently with the current choice."""
        return self._chosen.recent

    def vector_name(self) -> str:
        """Return the dense vector's name in a new collection."""
        chosen = self._chosen
        name = chosen.usual_dense if chosen.dense_name is None else chosen.dense_name
        return vector_field_name(self.current.name) if name is None else name

    @property
    def chosen_vector_name(self) -> str | None:
        """The dense vector's name that the user chose, if any."""
        return self._chosen.dense_name

    def sparse_name(self) -> str | None:
        """Return the sparse vector's name in a new collection; ``None`` without an encoder."""
        chosen = self._chosen
        if chosen.sparse is None:
            return None
        name = chosen.usual_sparse if chosen.sparse_name is None else chosen.sparse_name
        return sparse_field_name(chosen.sparse.model_name) if name is None else name

    def late_name(self) -> str | None:
        """Return the name of vectors of tokens in a new collection; ``None`` without a model."""
        late, chosen = self._chosen.late, self._chosen.late_name
        if late is None:
            return None
        return late_field_name(late.model_name) if chosen is None else chosen

    def choose(
        self, encoder: Encoder, vector_name: str | None = None, terms: ModelTerms | None = None
    ) -> None:
        """Choose the encoder for all collections; with `terms`, that of sparse vectors, too."""
        with self._lock:
            chosen = self._chosen
            if terms is not None or isinstance(chosen.sparse, ModelTerms):  # of the model before
                chosen = replace(
                    chosen, sparse=terms, sparse_name=None, follows_sparse=terms is None
                )
            self._chosen = replace(
                chosen, dense=encoder, dense_name=vector_name, recent=RecentVectors()
            )

    def choose_sparse(self, encoder: SparseEncoder | None, vector_name: str | None = None) -> None:
        """Choose the sparse encoder for all collections; ``None`` for no sparse vectors."""
        with self._lock:
            self._chosen = replace(
                self._chosen,
                sparse=encoder,
                sparse_name=vector_name,
                follows_sparse=False,
                recent=RecentVectors(),
            )

    def choose_late(self, encoder: LateEncoder | None, vector_name: str | None = None) -> None:
        """Choose the late-interaction encoder for all collections; ``None`` for none."""
        with self._lock:
            self._chosen = replace(
                self._chosen,
                late=encoder,
                late_name=vector_name,
                follows_late=False,
                recent=RecentVectors(),
            )

    def choose_reranker(self, reranker: Reranker | None) -> None:
        """Choose the reranker of all queries; ``None`` for none."""
        with self._lock:
            self._chosen = replace(self._chosen, reranker=reranker)

    def reranker(
        self, wanted: Reranker | str | os.PathLike[str] | None, *, has_text: bool = True
    ) -> Reranker | None:
        """Return the reranker that a query asks for, by name or as an object, else the chosen one.

        A model is not loaded yet. A query without a text gets none but that which it asks for.

        Raises:
            InputError: if `wanted` is neither a name nor an object with the method.
            UnknownModelError: if no cross-encoder has that name.
        """
        if wanted is None:
            return self._chosen.reranker if has_text else None
        if not isinstance(wanted, str | os.PathLike):
            check_reranker(wanted)
            return wanted
        key = isinstance(wanted, str), os.fspath(wanted)  # a path is never a model's name
        with self._lock:
            if key not in self._rerankers:
                self._rerankers[key] = TextCrossEncoder(
                    wanted, lazy_load=True, local_files_only=self.policy.offline
                )
            return self._rerankers[key]

    def is_known_to_be_whole(self, collection_name: str) -> bool:
        """Return whether the collection was found to be no unfinished copy within the last minute.

        `find` of `recent` tells the same, because vectors are selected in whole collections only.
        """
        is_known = time.monotonic() < self._whole.get(collection_name, -math.inf)
        return is_known or self.recent.find(collection_name) is not None

    def check_is_whole(self, collection: StoredCollection) -> None:
        """Raise `CollectionMismatchError` if a collection is a copy that is not complete."""
        collection.check_is_whole()
        self._whole[collection.name] = time.monotonic() + _LIFETIME

    def for_query(self, collection: StoredCollection) -> CollectionVectors:
        """Select the vectors to search in a collection, and remember them.

        A stamped collection is searched with its own models unless others were chosen. In one that
        the predecessor wrote, documents stay without a prefix.

        Raises:
            CollectionMismatchError: if the chosen encoders do not fit, or none can be found.
            UntrustedModelError: if the collection names a model that it may not choose.
            ModelError: if a model cannot be found, downloaded or read.
        """
        chosen = self._chosen
        vectors = self._select(collection, chosen).searched_as(collection)
        if vectors.sparse is not None:
            check_has_sparse(collection, vectors.sparse.vector_name)
        chosen.recent.remember(collection, vectors)
        return vectors

    def for_add(self, collection: StoredCollection | None) -> CollectionVectors:
        """Select the vectors of new documents in a collection; ``None`` for a new collection.

        Raises:
            CollectionMismatchError: see `for_query`; also if the documents would lack the sparse
                vectors that all others in the collection have.
            ModelError: if a model cannot be found, downloaded or read.
        """
        if collection is None:
            return self._of_new_collection()
        vectors = self._select(collection, self._chosen)
        stamp = collection.stamp
        if not vectors.chunked and vectors.dense.encoder.splits:
            raise CollectionMismatchError(
                f"collection {collection.name!r} was not written with overflow='chunk'; use "
                "another collection name and let add() create the collection, or call set_model() "
                "without overflow='chunk'",
                expected={"overflow": "chunk"},
                found={"overflow": None},
            )
        if vectors.sparse is None and stamp is not None and stamp.sparse is not None:
            raise CollectionMismatchError(
                f"collection {collection.name!r} has sparse vectors of {stamp.sparse.model}, which "
                "set_sparse_model(None) turned off; documents without them could not be found by "
                f"their words. Call set_sparse_model({stamp.sparse.model!r}), or use a client "
                "without set_sparse_model()",
                expected={"sparse model": None},
                found={"sparse model": stamp.sparse.model},
            )
        if vectors.late is None and (late := collection.late_stamp) is not None:
            raise CollectionMismatchError(
                f"collection {collection.name!r} has vectors of tokens by {late.model}, which "
                "set_late_model(None) turned off; documents without them would not be found by "
                f"late interaction. Call set_late_model({late.model!r}), or use a client without "
                "set_late_model()",
                expected={"late-interaction model": None},
                found={"late-interaction model": late.model},
            )
        return vectors

    def remember(self, collection: StoredCollection, vectors: CollectionVectors) -> None:
        """Remember the vectors of a collection that was just prepared for them.

        Raises:
            CollectionMismatchError: if another process has prepared it for another model first.
        """
        chosen, sparse = self._chosen, vectors.sparse
        dense = vectors.dense
        description = _described(dense.encoder, collection)
        check_collection(collection, description, dense.vector_name)
        if sparse is not None:
            described = describe_sparse(sparse.encoder)
            name = check_sparse_collection(collection, described, sparse.vector_name)
            check_has_sparse(collection, name)
        if vectors.late is not None:
            late = describe_late(vectors.late.encoder)
            check_late_collection(collection, late, vectors.late.vector_name)
        if self._is_of(vectors, chosen):
            chosen.recent.remember(collection, vectors.searched_as(collection))

    def _is_of(self, vectors: CollectionVectors, chosen: _Chosen) -> bool:
        """Return whether the vectors were selected with this choice."""
        sparse = None if vectors.sparse is None else vectors.sparse.encoder
        other = None if chosen.sparse is None else sparse_for(chosen.sparse, normalizes=False)
        late = None if vectors.late is None else vectors.late.encoder
        return (
            (chosen.dense is None or chosen.dense == vectors.dense.encoder)
            and (chosen.follows_sparse or sparse in (chosen.sparse, other))
            and (chosen.follows_late or chosen.late is late)
        )

    def _of_new_collection(self) -> CollectionVectors:
        dense = DenseVectors(self.current, self.vector_name())
        encoder, name = self._chosen.sparse, self.sparse_name()
        sparse = None if encoder is None or name is None else SparseVectors(encoder, name)
        late_encoder, late_name = self._chosen.late, self.late_name()
        late = None
        if late_encoder is not None and late_name is not None:
            late = LateVectors(late_encoder, late_name)
        vectors = CollectionVectors(dense, sparse, dense.encoder.splits, late)
        if len(set(vectors.names)) < len(vectors.names):
            raise InputError(
                f"two vectors of a new collection have the same name ({vectors.names}): pass "
                "another vector_name to set_model, set_sparse_model or set_late_model"
            )
        return vectors

    def _select(self, collection: StoredCollection, chosen: _Chosen) -> CollectionVectors:
        collection.check_is_whole()
        encoder = chosen.dense or self._encoder_of(collection)
        description = _described(encoder, collection)
        vector_name = check_collection(collection, description, chosen.dense_name_in(collection))
        chunked = collection.chunked
        if collection.stamp is None:
            if collection.is_empty:
                chunked = encoder.splits
            else:
                encoder = self._without_prefixes(encoder, collection.name)
        dense = DenseVectors(encoder, vector_name)
        vectors = CollectionVectors(dense, chunked=chunked)
        sparse = self.followed_sparse(collection) if chosen.follows_sparse else chosen.sparse
        if sparse is not None:
            sparse = sparse_for(sparse, normalizes=_normalizes(collection))
            wanted = chosen.sparse_name_in(collection, sparse.model_name)
            name = check_sparse_collection(collection, describe_sparse(sparse), wanted)
            vectors = replace(vectors, sparse=SparseVectors(sparse, name))
        late = self.followed_late(collection) if chosen.follows_late else chosen.late
        if late is not None:
            name = check_late_collection(collection, describe_late(late), chosen.late_name)
            vectors = replace(vectors, late=LateVectors(late, name))
        return vectors

    def _encoder_of(self, collection: StoredCollection) -> Encoder:
        """Return the encoder of a collection when the user chose none."""
        stamp = collection.stamp
        if stamp is None:
            for entry in CATALOG:
                if vector_field_name(entry.spec.name) in collection.vectors:
                    return self._follow(_Followed(entry.spec.name, recorded=Recorded()))
            if collection.is_empty:
                return self.current
            raise CollectionMismatchError(
                f"collection {collection.name!r} does not record which model wrote its vectors; "
                "pass that model to set_model() first",
                expected={"model": "chosen"},
                found={"model": None},
            )
        if stamp.weights_sha256 is None:
            raise CollectionMismatchError(
                f"collection {collection.name!r} was written with an encoder object named "
                f"{stamp.model!r}; pass that encoder to set_model() first",
                expected={"model": stamp.model},
                found={"model": None},
            )
        terms = _is_beside(stamp)
        followed = _Followed(
            stamp.model,
            stamp.max_tokens,
            stamp.query_prefix,
            stamp.document_prefix,
            dimensions=None if terms else stamp.dimension,
            overflow=stamp.overflow or "truncate",
            overlap=stamp.overlap or 0,
            terms=terms,
            adapter=stamp.adapter,
        )
        return _followed(
            _Named(collection.name, stamp),
            self.policy,
            lambda revision, recorded: self._follow(
                replace(followed, revision=revision, recorded=recorded)
            ),
        )

    def followed_sparse(self, collection: StoredCollection) -> SparseEncoder | None:
        """Return the encoder of a collection's own sparse vectors; ``None`` if it has none.

        Raises:
            CollectionMismatchError: if they were written with a custom encoder.
            UntrustedModelError: if the collection names a model that it may not choose.
            ModelError: if the model cannot be found, downloaded or read.
        """
        if collection.stamp is None:
            for name in (entry.name for entry in SPARSE_CATALOG):  # the predecessor's collections
                if sparse_field_name(name) in collection.sparse_vectors:
                    return self._follow_sparse(SparseDescription(name), Recorded())
            return None
        stamp = collection.stamp.sparse
        if stamp is None:
            return None
        if stamp.weights_sha256 is None and stamp.model != BM25:
            raise CollectionMismatchError(
                f"collection {collection.name!r} was written with a sparse encoder object named "
                f"{stamp.model!r}; pass that encoder to set_sparse_model() first",
                expected={"sparse model": stamp.model},
                found={"sparse model": None},
            )
        if stamp.beside_dense:
            return self._terms_of(collection, collection.stamp, stamp)
        followed = replace(stamp, vector_name="")
        return _followed(
            _Named(collection.name, stamp, "terms"),
            self.policy,
            lambda revision, recorded: self._follow_sparse(
                replace(followed, revision=revision), recorded
            ),
        )

    def _terms_of(
        self, collection: StoredCollection, stamp: Stamp, sparse: SparseStamp
    ) -> SparseEncoder:
        """Return the encoder of sparse vectors that a dense model computes, often the collection's.

        Its digests are compared with the stamp's before it is used, as those of all encoders are.
        """
        if _is_beside(stamp):
            encoder = self._encoder_of(collection)
        else:
            followed = _Followed(sparse.model, sparse.max_tokens, terms=True)
            encoder = _followed(
                _Named(collection.name, replace(sparse, weights_sha256=None)),
                self.policy,
                lambda revision, recorded: self._follow(
                    replace(followed, revision=revision, recorded=recorded)
                ),
            )
        if not isinstance(encoder, ModelEncoder):
            raise InputError(f"{encoder.name} does not weigh terms")
        with self._lock:
            return self._terms.setdefault(encoder, ModelTerms(encoder.embedding))

    def followed_late(self, collection: StoredCollection) -> LateEncoder | None:
        """Return the encoder of a collection's own vectors of tokens; ``None`` if it has none.

        Raises:
            CollectionMismatchError: if they were written with a custom encoder.
            UntrustedModelError: if the collection names a model that it may not choose.
            ModelError: if the model cannot be found, downloaded or read.
        """
        stamp = collection.late_stamp
        if stamp is None:
            return None
        if stamp.weights_sha256 is None:
            raise CollectionMismatchError(
                f"collection {collection.name!r} was written with a late-interaction encoder "
                f"object named {stamp.model!r}; pass that encoder to set_late_model() first",
                expected={"late-interaction model": stamp.model},
                found={"late-interaction model": None},
            )
        followed = replace(stamp, vector_name="")
        return _followed(
            _Named(collection.name, stamp, "token_vectors"),
            self.policy,
            lambda revision, recorded: self._follow_late(
                replace(followed, revision=revision), recorded
            ),
        )

    def _follow_late(self, followed: LateDescription, recorded: Recorded) -> LateEncoder:
        with self._lock:
            key = followed, recorded
            if key not in self._following_late:
                embedding = LateInteractionTextEmbedding(
                    followed.model,
                    max_tokens=followed.max_tokens,
                    revision=followed.revision,
                    local_files_only=self.policy.offline,
                    lazy_load=True,
                )
                self._following_late[key] = late_of_record(embedding, recorded)
            return self._following_late[key]

    def _follow(self, followed: _Followed) -> Encoder:
        with self._lock:
            if followed not in self._following:
                embedding = TextEmbedding(
                    followed.model,
                    max_tokens=followed.max_tokens,
                    query_prefix=followed.query_prefix,
                    document_prefix=followed.document_prefix,
                    revision=followed.revision,
                    dimensions=followed.dimensions,
                    overflow=followed.overflow,
                    overlap=followed.overlap,
                    local_files_only=self.policy.offline,
                    lazy_load=True,
                )
                if followed.terms:
                    embedding = with_terms(embedding)
                if followed.recorded is not None:
                    embedding = text_of_record(embedding, followed.recorded, followed.adapter)
                self._following[followed] = adapt(embedding)
            return self._following[followed]

    def _follow_sparse(self, followed: SparseDescription, recorded: Recorded) -> SparseEncoder:
        with self._lock:
            key, is_bm25 = (followed, recorded), known_name(followed.model, "terms") == BM25
            if key not in self._following_sparse:
                embedding = SparseTextEmbedding(
                    followed.model,
                    max_tokens=followed.max_tokens,
                    max_terms=followed.max_terms,
                    revision=followed.revision,
                    language=followed.language,
                    k=followed.k,
                    b=followed.b,
                    average_length=followed.average_length,
                    normalize_text=bool(followed.normalize_text) if is_bm25 else None,
                    tokenizer=followed.tokenizer,
                    local_files_only=self.policy.offline,
                    lazy_load=True,
                )
                self._following_sparse[key] = sparse_of_record(embedding, recorded)
            return self._following_sparse[key]

    def _without_prefixes(self, encoder: Encoder, collection_name: str) -> Encoder:
        """Return the encoder for a collection of the predecessor, which added no prefixes."""
        bare = encoder.without_prefixes()
        if bare is None:
            return encoder
        if collection_name not in self._warned:
            self._warned.add(collection_name)
            logger.warning(
                "collection %r was not written by qdrant-embed, so its documents are assumed to "
                "have been encoded without the prefix %r that %s was trained with, and queries and "
                "new documents get no prefix either; for better hits, add the documents to a new "
                "collection (logged once)",
                collection_name,
                encoder.describe().document_prefix,
                encoder.name,
            )
        return bare
