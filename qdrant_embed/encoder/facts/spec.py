"""Facts about one model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, get_args

from qdrant_embed.encoder.interfaces import Pooling, Poolings, Task, TermWeighting
from qdrant_embed.errors import InputError, check_prefix, check_str, check_unicode, check_whole


@dataclass(frozen=True, kw_only=True)
class QueryExpansion:
    """Mask tokens after a short query, whose vectors count like those of its own tokens.

    Attributes:
        length: tokens of a query with its mask tokens.
        attends: whether the query's own tokens attend to mask tokens, and these to each other.
        is_fixed: whether longer queries are cut to `length`.
        token: the mask token.
    """

    length: int
    attends: bool = False
    is_fixed: bool = True
    token: str = "[MASK]"  # noqa: S105 - of a vocabulary


@dataclass(frozen=True, kw_only=True)
class LateFacts:
    """How a late-interaction model reads queries and documents, and which vectors it keeps.

    Attributes:
        query_marker: token after the first token of a query, if it has one of its own.
        document_marker: likewise of a document.
        query_length: most tokens of a query, special tokens included; ``None`` for as many as of a
            document.
        expansion: how short queries are filled up, if they are.
        skipped: tokens whose vectors are left out of documents.
        skips_in_queries: whether they are left out of queries, too.
    """

    query_marker: str = ""
    document_marker: str = ""
    query_length: int | None = None
    expansion: QueryExpansion | None = None
    skipped: tuple[str, ...] = ()
    skips_in_queries: bool = False

    @property
    def hides_expansion(self) -> bool:
        """Whether other tokens attend to none of a query's mask tokens."""
        return self.expansion is not None and not self.expansion.attends

    @property
    def longest_query(self) -> int:
        """Tokens of a query that the model must be able to read; 0 if no length is stated."""
        expanded = self.expansion.length if self.expansion else 0
        if self.expansion is not None and self.expansion.is_fixed:
            return expanded
        return max(expanded, self.query_length or 0)


@dataclass(frozen=True)
class ModelSpec:
    """What must be known about a model to turn text into its vectors.

    Attributes:
        name: the model's name, as the hub spells it.
        dimension: numbers in one vector.
        pooling: how token vectors become one: the first token's (``cls``), the last token's
            (``last_token``), their ``mean``, their sum divided by the square root of their number
            (``mean_sqrt_len_tokens``), their mean weighted by position (``weightedmean``), or the
            ``max`` of each number; a tuple of these for one behind the other; ``None`` for a task
            other than ``embed`` and ``score``.
        normalize: whether vectors are scaled to length 1.
        max_tokens: tokens read from one text, special tokens included.
        query_prefix: put before every query.
        document_prefix: put before every document.
        task: what the model makes from a text: one vector (``embed``), a weight for each term of
            its vocabulary (``terms``), a vector for each token (``token_vectors``), or, from two
            texts, a score (``score``).
        license: SPDX identifier, or the name of the terms.
        smallest_dimension: how far vectors may be cut (`TextEmbedding`'s ``dimensions=``), for
            models trained for it (Matryoshka); ``None`` for others.
        prompts: the model's own prompts by name, as its files state them.
        term_weighting: for the task ``terms``, how the largest logit x of a term becomes its
            weight: ``log``, log(1 + relu(x)); ``log_log``, the logarithm twice.
        late: how a late-interaction model reads its texts; for the task ``token_vectors`` alone.

    Raises:
        InputError: a fact is impossible, or does not fit another.
    """

    name: str
    dimension: int
    pooling: Poolings | None
    max_tokens: int
    normalize: bool = True
    query_prefix: str = ""
    document_prefix: str = ""
    license: str = ""
    smallest_dimension: int | None = None
    task: Task = "embed"
    prompts: Mapping[str, str] = field(default_factory=dict, hash=False)
    term_weighting: TermWeighting = "log"
    late: LateFacts | None = None

    def __post_init__(self) -> None:
        check_str("name", self.name)
        if not isinstance(self.prompts, Mapping):
            raise InputError(f"{self.name:.80}: prompts must be a dict, not {self.prompts!r:.80}")
        prefixes = {"query_prefix": self.query_prefix, "document_prefix": self.document_prefix}
        prefixes |= {f"prompt {name!r:.80}": prompt for name, prompt in self.prompts.items()}
        for option, prefix in prefixes.items():
            check_prefix(f"{self.name:.80}: {option}", prefix)
            check_unicode(f"{self.name:.80}: {option}", prefix)
        check_whole(f"{self.name}: dimension", self.dimension, 1)
        check_whole(f"{self.name}: max_tokens", self.max_tokens, 3)  # [CLS], one token, [SEP]
        if self.smallest_dimension is not None:
            check_whole(f"{self.name}: smallest_dimension", self.smallest_dimension, 1)
        if self.task not in get_args(Task):
            raise InputError(
                f"{self.name}: task must be one of {', '.join(get_args(Task))}, not {self.task!r}"
            )
        if self.term_weighting not in get_args(TermWeighting):
            raise InputError(
                f"{self.name}: term_weighting must be one of {', '.join(get_args(TermWeighting))}, "
                f"not {self.term_weighting!r:.80}"
            )
        if self.pooling is not None and self.task not in ("embed", "score"):
            raise InputError(
                f"{self.name}: pooling={self.pooling!r} is for task 'embed', not {self.task!r}"
            )
        if self.late is not None and self.task != "token_vectors":
            raise InputError(f"{self.name}: late= is for task 'token_vectors', not {self.task!r}")
        if isinstance(self.pooling, list | tuple):  # a list: from JSON
            several = tuple(self.pooling)
            object.__setattr__(self, "pooling", several[0] if len(several) == 1 else several)
        is_needed = self.task == "embed" or self.pooling is not None
        if is_needed and not _is_pooling(self.pooling):
            raise InputError(
                f"{self.name}: pooling must be one of {', '.join(get_args(Pooling))}, or a tuple "
                f"of them, not {self.pooling!r:.200}"
            )

    def with_prefixes(self, query: str | None, document: str | None) -> ModelSpec:
        """Return the same facts with `query` and `document` as prefixes; ``None`` keeps one."""
        return replace(
            self,
            query_prefix=self.query_prefix if query is None else query,
            document_prefix=self.document_prefix if document is None else document,
        )


def _is_pooling(value: object) -> bool:
    if isinstance(value, tuple):
        return len(value) > 1 and len(set(value)) == len(value) and all(map(_is_pooling, value))
    return isinstance(value, str) and value in get_args(Pooling)


_MOST_PROMPTS = 16  # of a model's own that it is calibrated with


def calibrated_prompts(spec: ModelSpec) -> tuple[str, ...]:
    """Return what is put before the queries that a model is calibrated with.

    These are the model's own prompts, so that one graph serves whichever of them, or whatever task,
    a user chooses; the prefix of a model that states none.
    """
    return tuple(sorted(set(spec.prompts.values()))[:_MOST_PROMPTS]) or (spec.query_prefix,)


def late_of_json(content: Mapping[str, Any]) -> LateFacts:
    """Return the facts that `dataclasses.asdict` wrote."""
    expansion = content["expansion"]
    return LateFacts(
        **{
            **content,
            "skipped": tuple(content["skipped"]),
            "expansion": None if expansion is None else QueryExpansion(**expansion),
        }
    )
