"""RoBERTa (Liu et al. 2019) and XLM-RoBERTa: BERT whose positions begin after the padding's."""

from __future__ import annotations

from typing import Literal

from pydantic import NonNegativeInt

from qdrant_embed.encoder.compile.architectures.bert import BertFamilyConfig, BertGraph
from qdrant_embed.encoder.compile.architectures.config import Weights
from qdrant_embed.encoder.compile.quantize import NOTHING_QUANTIZED, QuantizationPlan
from qdrant_embed.encoder.facts.spec import ModelSpec


class RobertaConfig(BertFamilyConfig):
    """``config.json`` of architectures ``roberta`` and ``xlm-roberta``."""

    model_type: Literal["roberta", "xlm-roberta"]
    pad_token_id: NonNegativeInt = 1
    position_embedding_type: Literal["absolute"] = "absolute"

    @property
    def first_position(self) -> int:
        """Row of the position table that belongs to a text's first token."""
        return self.pad_token_id + 1

    def graph(
        self, weights: Weights, spec: ModelSpec, plan: QuantizationPlan = NOTHING_QUANTIZED
    ) -> BertGraph:
        """The model's graph."""
        return BertGraph(weights, self, spec, plan)
