"""How a late-interaction model reads its texts. Without pydantic: a cached plan has it, too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


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
        """Whether a query's mask tokens are no keys of the attention."""
        return self.expansion is not None and not self.expansion.attends

    @property
    def longest_query(self) -> int:
        """Tokens of a query that the model must be able to read; 0 if no length is stated."""
        expanded = self.expansion.length if self.expansion else 0
        if self.expansion is not None and self.expansion.is_fixed:
            return expanded
        return max(expanded, self.query_length or 0)


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
