"""Queries of sparse models without a network: a table has the weight of each token.

That is how OpenSearch's ``doc`` models are trained (Geng et al. 2024).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydantic import TypeAdapter

from qdrant_embed.encoder.facts.jsonfile import read_json
from qdrant_embed.encoder.files.tensors import read_tensors
from qdrant_embed.encoder.interfaces import SparseVector, Vector
from qdrant_embed.encoder.run.tokenizer import Tokenizer
from qdrant_embed.errors import ModelFileError


class QueryTerms:
    """Turns queries into the weights of their tokens.

    Args:
        tokenizer: the model's tokenizer, without special tokens.
        path: the file with the weights: ``idf.json``, from tokens to numbers, or the tensor
            ``weight`` as sentence-transformers saves it.
        terms: size of the vocabulary, which is that of the documents' vectors.

    Raises:
        ModelFileError: the file is damaged, or not that of this vocabulary.
    """

    def __init__(self, tokenizer: Tokenizer, path: Path, terms: int) -> None:
        self._tokenizer = tokenizer
        self._weights = (
            _from_json(tokenizer, path, terms) if path.suffix == ".json" else _read(path)
        )
        if self._weights.shape != (terms,) or not np.isfinite(self._weights).all():
            raise ModelFileError(
                f"{path} must have one finite weight for each of {terms} tokens; its shape is "
                f"{self._weights.shape}"
            )

    def vector(self, text: str) -> SparseVector:
        """Return the weights above 0 of a query's tokens, each counted once."""
        tokens = sorted(set(self._tokenizer.tokenize([text]).ids[0]))
        indices = np.array(tokens, np.int64)
        weights = self._weights[indices]
        kept = weights > 0
        if kept.all():
            return SparseVector(indices, weights)
        return SparseVector(indices[kept], weights[kept])


def _from_json(tokenizer: Tokenizer, path: Path, terms: int) -> Vector:
    weights = np.zeros(terms, np.float32)
    for token, weight in read_json(path, TypeAdapter(dict[str, float])).items():
        number = tokenizer.id_of(token)
        if number is not None and number < terms:
            weights[number] = weight
    return weights


def _read(path: Path) -> Vector:
    tensors = read_tensors([path])
    if "weight" not in tensors:
        raise ModelFileError(f"{path} has no tensor 'weight', which weighs the tokens of queries")
    return np.array(tensors["weight"], np.float32)
