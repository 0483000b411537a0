"""Rotary position embeddings (Su et al. 2021), and their ways to reach further."""

from __future__ import annotations

import math

import numpy as np

from qdrant_embed.encoder.compile.graph import MICROSOFT, Graph
from qdrant_embed.encoder.compile.layers.transformer import C, TransformerGraph
from qdrant_embed.encoder.compile.quantize import Array
from qdrant_embed.encoder.facts.architectures import RopeScaling

_BETA_FAST, _BETA_SLOW = 32, 1  # of YaRN, where a config states none


class Rotary:
    """Rotates the vectors of each head by angles that grow with the position.

    Args:
        graph: nodes are added to it.
        head_size: dimension of one head, an even number.
        positions: the most tokens that a text can have.
        theta: base of the wavelengths.
        stretch: factor of all wavelengths.
        scaling: how positions reach further than the model was first trained for.
    """

    def __init__(
        self,
        graph: Graph,
        head_size: int,
        positions: int,
        theta: float,
        stretch: float = 1.0,
        scaling: RopeScaling | None = None,
    ) -> None:
        # in float32, as transformers does: at thousands of positions the rounding shows
        exponents = np.arange(0, head_size, 2, dtype=np.float32) / np.float32(head_size)
        frequencies = np.float32(1) / np.float32(theta) ** exponents / np.float32(stretch)
        factor = np.float32(1)
        if scaling is not None:
            frequencies = _scaled(frequencies, head_size, theta, scaling)
            factor = np.float32(_attention_factor(scaling))
        angles = np.arange(positions, dtype=np.float32)[:, None] * frequencies
        self._graph = graph
        self._first = graph.integers(0)
        self._cosines = graph.constant(np.cos(angles) * factor)
        self._sines = graph.constant(np.sin(angles) * factor)

    def rotated(self, hidden: str) -> str:
        """Add `hidden` [batch, tokens, heads * head_size], rotated."""
        inputs = (hidden, self._first, self._cosines, self._sines)
        return self._graph.node("RotaryEmbedding", *inputs, domain=MICROSOFT)


class RotaryGraph(TransformerGraph[C]):
    """A transformer that rotates queries and keys by the same angles in all layers.

    Its `embeddings` set `rotary`.
    """

    rotary: Rotary

    def attend(self, query: str, key: str, value: str, number: int, *, first_row_only: bool) -> str:
        """Add the attention, with queries and keys rotated."""
        del number
        if not first_row_only:  # position 0 is not rotated
            query = self.rotary.rotated(query)
        return self.multi_head_attention(query, self.rotary.rotated(key), value)


def _scaled(frequencies: Array, head_size: int, theta: float, scaling: RopeScaling) -> Array:
    """Scale the `frequencies`; Peng et al. 2023 (YaRN), Grattafiori et al. 2024 (Llama 3)."""
    factor = np.float32(scaling.factor or 1)
    original = scaling.original or 1
    match scaling.kind:
        case "linear":
            return frequencies / factor
        case "yarn":
            first, last = (
                head_size * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(theta))
                for turns in (scaling.beta_fast or _BETA_FAST, scaling.beta_slow or _BETA_SLOW)
            )
            if scaling.truncate:
                first, last = math.floor(first), math.ceil(last)
            first, last = max(first, 0), min(last, head_size - 1)
            places = np.arange(head_size // 2, dtype=np.float32)
            slow = np.clip((places - first) / ((last - first) or 0.001), 0, 1).astype(np.float32)
            mixed: Array = frequencies / factor * slow + frequencies * (1 - slow)
            return mixed
        case "llama3":
            low, high = scaling.low_freq_factor, scaling.high_freq_factor
            turns_made = original * frequencies / np.float32(2 * math.pi)
            kept = np.clip((turns_made - low) / (high - low), 0, 1).astype(np.float32)
            smoothed: Array = frequencies / factor * (1 - kept) + frequencies * kept
            return smoothed
        case _:  # "dynamic" scales texts alone that are longer than any that is read
            return frequencies


def _attention_factor(scaling: RopeScaling) -> float:
    """Compute what YaRN multiplies queries and keys with."""
    if scaling.kind != "yarn" or scaling.attention_factor is not None:
        return scaling.attention_factor or 1.0 if scaling.kind == "yarn" else 1.0

    def of(scale: float) -> float:
        return 0.1 * scale * math.log(scaling.factor or 1) + 1

    if scaling.mscale and scaling.mscale_all_dim:
        return of(scaling.mscale) / of(scaling.mscale_all_dim)
    return of(1)
