"""Token ids of a late-interaction model: markers, lengths, mask tokens, tokens without a vector."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from qdrant_embed.encoder.facts.spec import ModelSpec
from qdrant_embed.encoder.run.backend import Inputs
from qdrant_embed.encoder.run.tokenizer import TokenizedTexts, Tokenizer
from qdrant_embed.errors import ModelFileError

logger = logging.getLogger(__name__)


class LateTokens:
    """Makes a model's token ids of those that its tokenizer returns, for one kind of text.

    Args:
        tokenizer: the model's tokenizer.
        spec: the model's facts, with `ModelSpec.late`.
        query: whether the texts are queries; documents otherwise.

    Attributes:
        prefix: put before each text.

    Raises:
        ModelFileError: the tokenizer does not have the mask token.
    """

    def __init__(self, tokenizer: Tokenizer, spec: ModelSpec, *, query: bool) -> None:
        facts = spec.late
        if facts is None:
            raise ModelFileError(f"{spec.name} is not a late-interaction model")
        marker, prefix = facts.document_marker, spec.document_prefix
        self.longest = spec.max_tokens
        if query:
            marker, prefix = facts.query_marker, spec.query_prefix
            self.longest = facts.longest_query or spec.max_tokens
        self._marker = _marker_id(tokenizer, marker)
        # a marker that is no token is read like any other text
        self.prefix = prefix if self._marker is not None else marker + prefix
        self._expansion = facts.expansion if query else None
        self._mask = 0
        if self._expansion is not None:
            mask = tokenizer.token_id(self._expansion.token)
            if mask is None:
                raise ModelFileError(
                    f"queries of {spec.name} are filled up with {self._expansion.token!r}, which "
                    "its tokenizer does not have"
                )
            self._mask = mask
        found = [tokenizer.token_id(word) for word in facts.skipped]
        # all words outside of the vocabulary have the id of the unknown token
        skipped = {token for token in found if token is not None}
        skips = facts.skips_in_queries if query else True
        self._skipped = np.array(sorted(skipped if skips else ()), np.int64)
        _, after = tokenizer.special_tokens_around("a")
        self._after = len(after)

    def marked(self, tokens: TokenizedTexts) -> TokenizedTexts:
        """Return texts as the model reads them, without mask tokens."""
        marks = self._marker is not None
        cut = {*tokens.truncated}
        cut.update(place for place, ids in enumerate(tokens.ids) if len(ids) + marks > self.longest)
        return TokenizedTexts([self.of(ids) for ids in tokens.ids], sorted(cut))

    def of(self, ids: Sequence[int]) -> list[int]:
        """Return the token ids of one text with its marker, cut to the longest length."""
        most = self.longest - (self._marker is not None)
        if len(ids) > most:
            ids = [*ids[: most - self._after], *ids[len(ids) - self._after :]]
        return [*ids] if self._marker is None else [*ids[:1], self._marker, *ids[1:]]

    def inputs(self, ids: NDArray[np.int64]) -> Inputs:
        """Return what the model reads: texts of one length, and the mask tokens of queries."""
        count = ids.shape[1]
        missing = 0 if self._expansion is None else max(0, self._expansion.length - count)
        if self._expansion is None or not missing:
            return Inputs(ids)
        masks = np.full((len(ids), missing), self._mask, np.int64)
        seen = None if self._expansion.attends else count
        return Inputs(np.concatenate([ids, masks], axis=1), seen_tokens=seen)

    def kept(
        self, ids: NDArray[np.int64], vectors: NDArray[np.float32]
    ) -> list[NDArray[np.float32]]:
        """Choose the vectors of each text that count, float32 [tokens, dimension]."""
        keep = ~np.isin(ids, self._skipped)
        return [rows[chosen] for rows, chosen in zip(vectors, keep, strict=True)]


def _marker_id(tokenizer: Tokenizer, marker: str) -> int | None:
    """Find the token that a marker is, with white space around it or without."""
    for form in (marker, marker.strip()) if marker.strip() else ():
        if (token := tokenizer.token_id(form)) is not None:
            return token
    return None
