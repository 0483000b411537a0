"""Static models: a text's vector is the mean of its tokens' vectors. No graph, numpy alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qdrant_embed.encoder.facts.architectures import TABLES, table_shape
from qdrant_embed.encoder.run.backend import Inputs, l2_normalized
from qdrant_embed.errors import ModelError, ModelFileError


class StaticModel:
    """Looks token ids up in a table and averages the rows.

    Args:
        tensors: ``embeddings``; where tokens share rows also ``mapping`` [tokens], the row of
            each token, and ``weights`` [tokens], the factor of each token.
        vocabulary_size: token ids are below this.
        unknown: the token that is left out; ``None`` if all count.
        normalize: scale vectors to length 1; the vector of a text without tokens stays 0.

    Raises:
        ModelFileError: the tensors do not fit each other or the vocabulary.
    """

    def __init__(
        self,
        tensors: Mapping[str, NDArray[Any]],
        vocabulary_size: int,
        unknown: int | None,
        *,
        normalize: bool,
    ) -> None:
        shapes = {name: tensor.shape for name, tensor in tensors.items()}
        rows, _ = table_shape(shapes)
        self._table = next(tensors[name] for name in TABLES if name in tensors).astype(
            np.float32, copy=False
        )
        self._rows = tensors.get("mapping", np.arange(rows))
        self._weights = tensors.get("weights", np.ones(self._rows.shape)).astype(np.float32)
        self._counted = np.ones_like(self._weights)
        if (
            self._rows.ndim != 1
            or self._rows.shape != self._weights.shape
            or len(self._rows) < vocabulary_size
            or not len(self._rows)
            or self._rows.dtype.kind != "i"
            or not (unknown or 0) < len(self._rows)
            or not 0 <= self._rows.min() <= self._rows.max() < rows
        ):
            raise ModelFileError(
                f"the tokenizer has {vocabulary_size} tokens, which does not fit the weights: "
                f"{', '.join(f'{name} {shape}' for name, shape in shapes.items())}"
            )
        if unknown is not None:
            self._weights[unknown] = self._counted[unknown] = 0
        self._normalize = normalize

    def run(self, inputs: Inputs) -> NDArray[np.float32]:
        """Compute the vectors of texts, float32 [batch, dimension]."""
        token_ids = inputs.ids
        if token_ids.max(initial=0) >= len(self._rows):
            raise ModelError(
                f"token {token_ids.max()} has no vector in a table of {len(self._rows)}"
            )
        weights = self._weights[token_ids][:, None]
        counts = self._counted[token_ids].sum(axis=1, keepdims=True)
        with np.errstate(all="ignore"):  # of what is not finite, an error says more than warnings
            sums = np.matmul(weights, self._table[self._rows[token_ids]])[:, 0]
            vectors: NDArray[np.float32] = sums / np.maximum(counts, 1)
            return l2_normalized(vectors) if self._normalize else vectors
