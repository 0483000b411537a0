"""What a model's files say of its score, in the words of transformers or sentence-transformers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, TypeAdapter

from qdrant_embed.encoder.facts.architectures import (
    DecoderConfig,
    ModernBertConfig,
    TransformerConfig,
)
from qdrant_embed.encoder.facts.jsonfile import JsonFile, checked, read_content, read_json
from qdrant_embed.encoder.facts.modules import ModuleChain
from qdrant_embed.encoder.facts.scoring import (
    LayerActivation,
    PairPrompt,
    ScoreActivation,
    ScoreLayer,
    Scoring,
)
from qdrant_embed.errors import ModelFileError
from qdrant_embed.limits import TOKENIZER_FILE

# by the names that sentence-transformers states in ``config.json``, or beside it
_ACTIVATIONS: Mapping[str, ScoreActivation | None] = {
    "torch.nn.modules.linear.Identity": None,
    "torch.nn.modules.activation.Sigmoid": "sigmoid",
}

# the model card of Qwen3-Reranker; its template of a chat, with the thinking left out
_QWEN3 = PairPrompt(
    before=(
        "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query "
        'and the Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n'
        "<|im_start|>user\n"
    ),
    middle=(
        "<Instruct>: Given a web search query, retrieve relevant passages that answer the query\n"
        "<Query>: {query}\n<Document>: {document}"
    ),
    after="<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
)
PROMPTED_TOKENS = 8192  # tokens of a pair that the model card has such models read


class _Activation(JsonFile):
    activation_fn: str | None = None


class _ScoreConfig(JsonFile):
    """The part of ``config.json`` that says how the head is built."""

    architectures: tuple[str, ...] | None = None
    id2label: Mapping[str, Any] | None = None
    num_labels: int | None = None
    sentence_transformers: _Activation | None = None
    sbert_ce_default_activation_function: str | None = None
    # of ModernBERT
    classifier_pooling: Literal["cls", "mean"] = "cls"
    classifier_activation: LayerActivation = "gelu"
    classifier_bias: bool = False

    @property
    def labels(self) -> int:
        """Number of scores, as transformers counts them."""
        return len(self.id2label) if self.id2label is not None else self.num_labels or 2


class _LogitScore(JsonFile):
    """``config.json`` of the module that compares the next token's logits."""

    true_token_id: NonNegativeInt
    false_token_id: NonNegativeInt


class _Vocabulary(JsonFile):
    vocab: Mapping[str, Annotated[int, Field(ge=0)]]


class _Tokenizer(JsonFile):
    model: _Vocabulary


def read_scoring(
    folder: Path,
    content: Mapping[str, Any],
    config: TransformerConfig,
    chain: ModuleChain | None,
    tokenizer: Path,
) -> Scoring:
    """Find out how a model scores two texts.

    Args:
        folder: the model's.
        content: the content of its ``config.json``.
        config: the same, checked.
        chain: the modules that the model's files chain, if they do.
        tokenizer: the file ``tokenizer.json``.

    Raises:
        ModelFileError: it is no cross-encoder, or none that can be run.
    """
    head = checked(folder / "config.json", content, TypeAdapter(_ScoreConfig))
    token_types = getattr(config, "type_vocab_size", 0) > 1
    if chain is not None and chain.is_scored:
        pooling = chain.pooling()
        if pooling is None or isinstance(pooling.pooling, tuple):
            raise ModelFileError(f"{chain.file} does not say how the tokens of a pair are pooled")
        return Scoring(
            pooling=pooling.pooling,
            activation=_activation(folder, head),
            token_types=token_types,
        )
    if chain is not None and chain.pooling_folder is not None:
        raise ModelFileError(f"{chain.file} is that of a dense model: TextEmbedding runs it")
    if config.model_type == "qwen3" and isinstance(config, DecoderConfig):
        return Scoring(
            pooling="last_token",
            activation=_activation(folder, head),
            layers=(_difference(folder, head, chain, tokenizer),),
            prompt=_QWEN3,
        )
    layers = _LAYERS.get(config.architecture)
    if layers is None or (chain is not None and chain.logit_score is not None):
        raise ModelFileError(
            f"{folder} is of architecture {config.architecture!r}, which cannot be run as a "
            f"cross-encoder: {', '.join(sorted({*_LAYERS, 'qwen3'}))} can"
        )
    if head.labels != 1:
        raise ModelFileError(
            f"{folder / 'config.json'} states {head.labels} labels: a cross-encoder that ranks has "
            "one score"
        )
    return Scoring(
        pooling=head.classifier_pooling if isinstance(config, ModernBertConfig) else "cls",
        activation=_activation(folder, head),
        layers=layers(config, head),
        token_types=token_types,
    )


def _activation(folder: Path, head: _ScoreConfig) -> ScoreActivation | None:
    """Find the function that follows the raw score, where sentence-transformers looks for it."""
    path = folder / "config_sentence_transformers.json"
    stated = read_json(path, TypeAdapter(_Activation)).activation_fn if path.is_file() else None
    if stated is None and head.sentence_transformers is not None:
        stated = head.sentence_transformers.activation_fn
    stated = stated or head.sbert_ce_default_activation_function
    if stated is None:
        return "sigmoid"  # as sentence-transformers has it for one score
    if stated not in _ACTIVATIONS:
        raise ModelFileError(
            f"{folder} asks for the activation {stated!r:.200}, which cannot be run: "
            f"{', '.join(_ACTIVATIONS)} can"
        )
    return _ACTIVATIONS[stated]


def _difference(
    folder: Path, head: _ScoreConfig, chain: ModuleChain | None, tokenizer: Path
) -> ScoreLayer:
    """Find the two tokens of which a language model predicts one."""
    if not any(name.endswith("ForCausalLM") for name in head.architectures or ()):
        raise ModelFileError(
            f"{folder / 'config.json'} states the architecture {head.architectures}: of qwen3, "
            "Qwen3ForCausalLM can be run as a cross-encoder, which answers 'yes' or 'no'"
        )
    if chain is not None and chain.logit_score is not None:
        stated = read_json(chain.logit_score / "config.json", TypeAdapter(_LogitScore))
        rows = (stated.true_token_id, stated.false_token_id)
    else:
        content = read_content(tokenizer, TOKENIZER_FILE)
        vocabulary = checked(tokenizer, content, TypeAdapter(_Tokenizer)).model.vocab
        if not {"yes", "no"} <= vocabulary.keys():
            raise ModelFileError(f"{tokenizer} has no tokens 'yes' and 'no', which are compared")
        rows = (vocabulary["yes"], vocabulary["no"])
    return ScoreLayer(name="lm_head", kind="difference", bias=False, rows=rows)


def _pooler(config: TransformerConfig, head: _ScoreConfig) -> tuple[ScoreLayer, ...]:
    del config, head
    return ScoreLayer(name="pooler.dense", activation="tanh"), ScoreLayer(name="classifier")


def _projected(config: TransformerConfig, head: _ScoreConfig) -> tuple[ScoreLayer, ...]:
    del config, head
    return (
        ScoreLayer(name="classifier.dense", activation="tanh"),
        ScoreLayer(name="classifier.out_proj"),
    )


def _pre_classified(config: TransformerConfig, head: _ScoreConfig) -> tuple[ScoreLayer, ...]:
    del config, head
    return ScoreLayer(name="pre_classifier", activation="relu"), ScoreLayer(name="classifier")


def _predicted(config: TransformerConfig, head: _ScoreConfig) -> tuple[ScoreLayer, ...]:
    biased = isinstance(config, ModernBertConfig) and config.norm_bias
    epsilon = config.norm_eps if isinstance(config, ModernBertConfig) else 1e-5
    return (
        ScoreLayer(
            name="head.dense", bias=head.classifier_bias, activation=head.classifier_activation
        ),
        ScoreLayer(name="head.norm", kind="layer_norm", bias=biased, epsilon=epsilon),
        ScoreLayer(name="classifier"),
    )


# the heads of transformers' classes for classification, by architecture
_LAYERS: Mapping[str, Callable[[TransformerConfig, _ScoreConfig], tuple[ScoreLayer, ...]]] = {
    "bert": _pooler,
    "distilbert": _pre_classified,
    "gte": _pooler,
    "modernbert": _predicted,
    "mpnet": _projected,
    "roberta": _projected,
    "xlm-roberta": _projected,
}
