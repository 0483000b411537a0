"""Which graph an architecture has; its file is loaded when a model needs it."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from qdrant_embed.encoder.compile.quantize import NOTHING_QUANTIZED, Array, QuantizationPlan
from qdrant_embed.encoder.facts.architectures import TransformerConfig
from qdrant_embed.encoder.facts.spec import ModelSpec
from qdrant_embed.encoder.run.pooling import NO_HEAD, Head

if TYPE_CHECKING:
    from qdrant_embed.encoder.compile.layers.token_weights import TokenHead
    from qdrant_embed.encoder.compile.layers.transformer import TransformerGraph

# name of the architecture, as in `facts.architectures`: file and class of the graph
GRAPHS = {
    "bert": ("bert", "BertGraph"),
    "distilbert": ("distilbert", "DistilBertGraph"),
    "eurobert": ("eurobert", "EuroBertGraph"),
    "gemma3_text": ("gemma3", "Gemma3Graph"),
    "gte": ("gte", "GteGraph"),
    "jina_bert": ("jina_bert", "JinaBertGraph"),
    "modernbert": ("modernbert", "ModernBertGraph"),
    "mpnet": ("mpnet", "MPNetGraph"),
    "nomic_bert": ("nomic_bert", "NomicBertGraph"),
    "nomic_bert_moe": ("nomic_bert_moe", "NomicMoeGraph"),
    "qwen2": ("qwen2", "Qwen2Graph"),
    "qwen3": ("qwen3", "Qwen3Graph"),
    "roberta": ("bert", "BertGraph"),
    "t5": ("t5", "T5Graph"),
    "xlm-roberta": ("bert", "BertGraph"),
    "xlm-roberta-flash": ("xlm_roberta_flash", "XlmRobertaFlashGraph"),
}


def model_graph(
    weights: Mapping[str, Array],
    config: TransformerConfig,
    spec: ModelSpec,
    plan: QuantizationPlan = NOTHING_QUANTIZED,
    head: Head = NO_HEAD,
    token_head: TokenHead | None = None,
) -> TransformerGraph[Any]:
    """Build the graph of a model; see `TransformerGraph` for the arguments and errors."""
    module, name = GRAPHS[config.architecture]
    kind: type[TransformerGraph[Any]] = getattr(import_module(f"{__package__}.{module}"), name)
    return kind(weights, config, spec, plan, head, token_head)
