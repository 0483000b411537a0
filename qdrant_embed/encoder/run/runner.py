"""What runs a model."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from qdrant_embed.encoder.interfaces import Vector


class Runner(Protocol):
    """Token ids to vectors; any number of threads may call it at once."""

    def run(self, token_ids: NDArray[np.int64], /) -> Vector:
        """Vectors, float32 [batch, dimension], for int64 [batch, tokens] of one length."""
