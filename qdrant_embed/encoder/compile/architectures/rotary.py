"""Rotary position embeddings (Su et al. 2021)."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import numpy as np
from pydantic import Field, model_validator

from qdrant_embed.encoder.compile.architectures.config import TransformerConfig
from qdrant_embed.encoder.compile.graph import MICROSOFT, Graph
from qdrant_embed.encoder.facts.jsonfile import JsonFile

# no table in the weights bounds them, so this must: it is read before memory is taken
Positions: TypeAlias = Annotated[int, Field(gt=0, le=1 << 17)]
Theta: TypeAlias = Annotated[float, Field(ge=1, le=1e12)]


class RopeParameters(JsonFile):
    """``rope_parameters`` as transformers 5 writes them; only the plain kind can be run."""

    rope_theta: Theta
    rope_type: Literal["default"] = "default"


class RotaryConfig(TransformerConfig):
    """``config.json`` of an architecture with rotary positions."""

    max_position_embeddings: Positions

    @model_validator(mode="after")
    def _check_head_size(self) -> RotaryConfig:
        if self.head_size % 2:
            raise ValueError(f"heads of {self.head_size} numbers cannot be turned in pairs")
        return self


class Rotary:
    """Turns the vectors of each head by angles that grow with the position.

    Args:
        graph: nodes are added to it.
        head_size: numbers of one head, an even one.
        positions: how many tokens a text can have.
        theta: base of the angles' wave lengths.
    """

    def __init__(self, graph: Graph, head_size: int, positions: int, theta: float) -> None:
        # in float32, as transformers does: at thousands of positions the rounding shows
        exponents = np.arange(0, head_size, 2, dtype=np.float32) / np.float32(head_size)
        frequencies = np.float32(1) / np.float32(theta) ** exponents
        angles = np.arange(positions, dtype=np.float32)[:, None] * frequencies
        self._graph = graph
        self._first = graph.integers(0)
        self._cosines = graph.constant(np.cos(angles))
        self._sines = graph.constant(np.sin(angles))

    def turned(self, hidden: str) -> str:
        """Adds `hidden` [batch, tokens, hidden_size], turned."""
        inputs = (hidden, self._first, self._cosines, self._sines)
        return self._graph.node("RotaryEmbedding", *inputs, domain=MICROSOFT)
