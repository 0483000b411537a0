"""Static models: a text's vector is the mean of its tokens' vectors. No graph, numpy alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveInt

from qdrant_embed.encoder.facts.jsonfile import JsonFile
from qdrant_embed.encoder.run.backend import Inputs, l2_normalized
from qdrant_embed.errors import ModelFileError

_TABLES = ("embeddings", "embedding.weight")  # as model2vec and sentence-transformers name it


class StaticConfig(JsonFile):
    """``config.json`` of a model2vec model; sentence-transformers writes none.

    model2vec leaves unknown tokens out, and reads 512 of a text unless told otherwise.
    """

    model_type: Literal["model2vec"] | None = None
    normalize: bool = False
    max_length: PositiveInt | None = 512

    @property
    def skips_unknown(self) -> bool:
        """Whether tokens outside the vocabulary do not count."""
        return self.model_type is not None

    @property
    def longest(self) -> int | None:
        """Tokens read of a text; ``None`` for all."""
        return self.max_length if self.model_type else None


def table_shape(shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, int]:
    """Rows and columns of the table of vectors.

    Raises:
        ModelFileError: there is none.
    """
    shape = next((shapes[name] for name in _TABLES if name in shapes), ())
    if len(shape) != 2 or 0 in shape:
        raise ModelFileError(
            f"a static model has a table of vectors named {' or '.join(_TABLES)}; the weights have "
            f"{', '.join(f'{name} {shape}' for name, shape in shapes.items()) or 'nothing'}"
        )
    return shape[0], shape[1]


class StaticModel:
    """Token ids to vectors, by a table.

    Args:
        tensors: ``embeddings``, and where tokens share rows ``mapping`` [tokens], their row, and
            ``weights`` [tokens], what it is multiplied with.
        vocabulary_size: token ids are below this.
        unknown: the token that does not count; ``None`` if all do.
        normalize: scale vectors to length 1; that of a text without tokens stays 0.

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
        self._table = next(tensors[name] for name in _TABLES if name in tensors).astype(
            np.float32, copy=False
        )
        self._rows = tensors.get("mapping", np.arange(rows))
        self._weights = tensors.get("weights", np.ones(len(self._rows), np.float32)).astype(
            np.float32
        )
        self._counted = np.ones_like(self._weights)
        if (
            self._rows.shape != self._weights.shape
            or self._rows.ndim != 1
            or len(self._rows) < vocabulary_size
            or self._rows.dtype.kind != "i"
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
        """Return vectors, float32 [batch, dimension]."""
        token_ids = inputs.ids
        weights = self._weights[token_ids][:, None]
        counts = self._counted[token_ids].sum(axis=1, keepdims=True)
        sums = np.matmul(weights, self._table[self._rows[token_ids]])[:, 0]
        vectors: NDArray[np.float32] = sums / np.maximum(counts, 1)
        return l2_normalized(vectors) if self._normalize else vectors
