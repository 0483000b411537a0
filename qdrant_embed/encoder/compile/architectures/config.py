"""What the transformer encoders' configurations have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import Field, PositiveInt, model_validator

from qdrant_embed.encoder.compile.architectures import SHORTEST
from qdrant_embed.encoder.compile.quantize import NOTHING_QUANTIZED, Array, QuantizationPlan
from qdrant_embed.encoder.facts.jsonfile import JsonFile
from qdrant_embed.encoder.facts.spec import ModelSpec

if TYPE_CHECKING:
    from qdrant_embed.encoder.compile.architectures.transformer import TransformerGraph

Weights: TypeAlias = Mapping[str, Array]
Activation: TypeAlias = Literal["gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu"]
Epsilon: TypeAlias = Annotated[float, Field(ge=0, lt=1)]


class TransformerConfig(JsonFile, ABC):
    """``config.json`` of an architecture that is compiled.

    Fields have transformers' names; a value that cannot be run is refused.
    """

    has_terms: ClassVar[bool] = False  # whether it can be the network of a SPLADE model

    vocab_size: PositiveInt
    hidden_size: PositiveInt
    num_hidden_layers: PositiveInt
    num_attention_heads: PositiveInt
    intermediate_size: PositiveInt
    max_position_embeddings: PositiveInt

    @property
    def positions(self) -> int:
        """Tokens that one text can have, special tokens included."""
        return self.max_position_embeddings

    @property
    def head_size(self) -> int:
        """Numbers of one attention head."""
        return self.hidden_size // self.num_attention_heads

    @model_validator(mode="after")
    def _check_sizes(self) -> TransformerConfig:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} cannot be shared by "
                f"{self.num_attention_heads} attention heads"
            )
        if self.positions < SHORTEST:
            raise ValueError(f"there are positions for {self.positions} tokens only")
        return self

    @abstractmethod
    def graph(
        self, weights: Weights, spec: ModelSpec, plan: QuantizationPlan = NOTHING_QUANTIZED
    ) -> TransformerGraph[Any]:
        """The model's graph; see `TransformerGraph`."""


@dataclass(frozen=True)
class LayerTensors:
    """Names of the modules of layer n, after ``{layers}.{n}.``.

    Attributes:
        layers: what the list of layers is called.
        qkv: query, key and value: three modules, or one with all of them in this order.
        o: the attention's output.
        attention_norm: the attention's layer norm.
        f1: the feed-forward block's first linear layer. Of a gated block the activated one, then
            the one it is multiplied with: two modules, or one with both in this order.
        f2: its second.
        output_norm: its layer norm.
    """

    layers: str
    qkv: tuple[str, ...]
    o: tuple[str, ...]
    attention_norm: str
    f1: tuple[str, ...]
    f2: tuple[str, ...]
    output_norm: str

    def linears(self, kind: str) -> tuple[str, ...]:
        """Modules of a group of linear layers."""
        return {"qkv": self.qkv, "o": self.o, "f1": self.f1, "f2": self.f2}[kind]
