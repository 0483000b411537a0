"""What computes a model's outputs: token ids in, one output for each text out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from qdrant_embed.encoder.interfaces import SparseVector, Vector

WEIGHED = "token_weights"  # an output of graphs that weigh each token, too
SEEN_TOKENS = "seen_tokens"  # an input of graphs whose last tokens may be hidden
_LEAST_NORM = 1e-12  # shorter vectors are divided by this: one of zeros stays as it is

Floats = TypeVar("Floats", np.float32, np.float64)


@dataclass(frozen=True)
class Inputs:
    """Texts as a model reads them: with the same number of tokens, or padded to it.

    Attributes:
        ids: token ids, int64 [batch, tokens].
        token_types: for pairs of texts, the text that each token belongs to (0 or 1), int64
            [batch, tokens]; ``None`` for single texts.
        seen_tokens: number of tokens, from the first on, that are attended to; ``None`` for all.
        lengths: of padded texts, the number of tokens of each, int64 [batch]; ``None`` for texts
            of one length.
    """

    ids: NDArray[np.int64]
    token_types: NDArray[np.int64] | None = None
    seen_tokens: int | None = None
    lengths: NDArray[np.int64] | None = None


class Backend(Protocol):
    """Computes a model's outputs; any number of threads may call it at once."""

    def run(self, inputs: Inputs, /) -> NDArray[np.float32]:
        """Return one output for each text, float32 [batch, ...]; the model's task says which.

        Vectors are [batch, dimension], and so are weights of terms; vectors of tokens are [batch,
        tokens, dimension].
        """


def l2_normalized(vectors: NDArray[Floats]) -> NDArray[Floats]:
    """Scale each vector along the last axis to length 1; one of zeros stays as it is."""
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    lengths = np.maximum(norms, _LEAST_NORM, dtype=vectors.dtype)
    normalized: NDArray[Floats] = (vectors / lengths).astype(vectors.dtype, copy=False)
    return normalized


class ShortenedVectors:
    """A backend that cuts another one's vectors to `dimension` numbers, scaled to length 1 again.

    For models that are trained so that the first numbers say most (Matryoshka).
    """

    def __init__(self, backend: Backend, dimension: int) -> None:
        self._backend, self._dimension = backend, dimension

    def run(self, inputs: Inputs) -> NDArray[np.float32]:
        """Return vectors, float32 [batch, dimension]."""
        vectors = self._backend.run(inputs)[:, : self._dimension]
        with np.errstate(all="ignore"):  # of what is not finite, an error says more than warnings
            return l2_normalized(vectors)


class Graph(Protocol):
    """A loaded graph with several outputs."""

    def feed(self, inputs: Mapping[str, NDArray[Any]], names: Sequence[str]) -> list[Vector]:
        """Return the named outputs of the graph for all of its inputs."""


class WeighedTokens:
    """Runs a graph with the output `WEIGHED`.

    One row holds all that is known of a text: its vector, the weights of its tokens, and their ids,
    each of which float32 can hold.
    """

    def __init__(self, graph: Graph) -> None:
        self._graph = graph

    def run(self, inputs: Inputs) -> NDArray[np.float32]:
        """Return rows, float32 [batch, dimension + 2 tokens]."""
        vectors, weights = self._graph.feed({"input_ids": inputs.ids}, ("embedding", WEIGHED))
        return np.concatenate([vectors, weights, inputs.ids.astype(np.float32)], axis=1)


def dense_parts(rows: NDArray[np.float32], dimension: int) -> NDArray[np.float32]:
    """Return the vectors in the rows of `WeighedTokens`."""
    return rows[:, :dimension]


def both_parts(
    rows: NDArray[np.float32], dimension: int, without: frozenset[int]
) -> Iterator[tuple[Vector, SparseVector]]:
    """Yield the vector and the weights of terms of each text in the rows of `WeighedTokens`.

    The weight of a term is the largest of those of its tokens. Terms that weigh nothing are left
    out, and so are those of `without`.
    """
    tokens = (rows.shape[1] - dimension) // 2
    for row in rows:
        weights, ids = row[dimension : dimension + tokens], row[dimension + tokens :]
        largest: dict[int, float] = {}
        for token, weight in zip(ids.astype(np.int64).tolist(), weights.tolist(), strict=True):
            if weight > largest.get(token, 0.0) and token not in without:
                largest[token] = weight
        indices = np.array(sorted(largest), np.int64)
        values = np.array([largest[token] for token in indices.tolist()], np.float32)
        yield row[:dimension], SparseVector(indices, values)
