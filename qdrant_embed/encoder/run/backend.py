"""What computes a model's outputs: token ids in, one output for each text out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

SEEN_TOKENS = "seen_tokens"  # an input of graphs whose last tokens may be hidden
_LEAST_NORM = 1e-12  # shorter vectors are divided by this: one of zeros stays as it is

Floats = TypeVar("Floats", np.float32, np.float64)


@dataclass(frozen=True)
class Inputs:
    """Texts with the same number of tokens, as a model reads them.

    Attributes:
        ids: token ids, int64 [batch, tokens].
        token_types: for pairs of texts, the text that each token belongs to (0 or 1), int64
            [batch, tokens]; ``None`` for single texts.
        seen_tokens: number of tokens, from the first on, that are attended to; ``None`` for all.
    """

    ids: NDArray[np.int64]
    token_types: NDArray[np.int64] | None = None
    seen_tokens: int | None = None


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
    normalized: NDArray[Floats] = vectors / np.maximum(norms, _LEAST_NORM, dtype=vectors.dtype)
    return normalized


class ShortenedVectors:
    """A backend that cuts another one's vectors to `dimension` numbers, scaled to length 1 again.

    For models that are trained so that the first numbers say most (Matryoshka).
    """

    def __init__(self, backend: Backend, dimension: int) -> None:
        self._backend, self._dimension = backend, dimension

    def run(self, inputs: Inputs) -> NDArray[np.float32]:
        """Return vectors, float32 [batch, dimension]."""
        return l2_normalized(self._backend.run(inputs)[:, : self._dimension])
