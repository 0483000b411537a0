"""DistilBERT (Sanh et al. 2019): BERT without token types, and with other names."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, PositiveInt

from qdrant_embed.encoder.compile.architectures.bert import BertFamilyConfig, BertGraph
from qdrant_embed.encoder.compile.architectures.config import Activation, LayerTensors, Weights
from qdrant_embed.encoder.compile.quantize import NOTHING_QUANTIZED, QuantizationPlan
from qdrant_embed.encoder.facts.spec import ModelSpec


class DistilBertConfig(BertFamilyConfig):
    """``config.json`` of architecture ``distilbert``."""

    model_type: Literal["distilbert"]
    hidden_size: PositiveInt = Field(validation_alias="dim")
    num_hidden_layers: PositiveInt = Field(validation_alias="n_layers")
    num_attention_heads: PositiveInt = Field(validation_alias="n_heads")
    intermediate_size: PositiveInt = Field(validation_alias="hidden_dim")
    hidden_act: Activation = Field("gelu", validation_alias="activation")
    type_vocab_size: Literal[0] = 0

    def graph(
        self, weights: Weights, spec: ModelSpec, plan: QuantizationPlan = NOTHING_QUANTIZED
    ) -> DistilBertGraph:
        """The model's graph."""
        return DistilBertGraph(weights, self, spec, plan)


class DistilBertGraph(BertGraph):
    """The graph of a model of architecture ``distilbert``; see `TransformerGraph`."""

    tensors: ClassVar[LayerTensors] = LayerTensors(
        layers="transformer.layer",
        qkv=("attention.q_lin", "attention.k_lin", "attention.v_lin"),
        o=("attention.out_lin",),
        attention_norm="sa_layer_norm",
        f1=("ffn.lin1",),
        f2=("ffn.lin2",),
        output_norm="output_layer_norm",
    )
