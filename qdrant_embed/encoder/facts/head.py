"""What follows a model's pooling: modules, and the head of a cross-encoder.

Without pydantic, because a cached plan has some, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from qdrant_embed.encoder.interfaces import Pooling

HeadKind: TypeAlias = Literal["dense", "layer_norm", "normalize"]
HeadActivation: TypeAlias = Literal["identity", "tanh", "gelu"]
ScoreActivation: TypeAlias = Literal["sigmoid"]
LayerActivation: TypeAlias = Literal["identity", "tanh", "relu", "gelu", "gelu_new", "silu"]


@dataclass(frozen=True, kw_only=True)
class HeadModule:
    """One module that changes a text's vector after the pooling.

    Attributes:
        kind: a linear layer (``dense``), a ``layer_norm``, or the scaling to length 1.
        weights: the file with its weights; ``None`` for ``normalize``.
        inputs: dimension of the vectors that it reads, if that is stated.
        outputs: dimension of the vectors that it returns; ``None`` if it is that of its input.
        activation: what follows a linear layer.
        bias: whether a linear layer adds a bias.
        residual: whether a linear layer's input, projected if the dimensions differ, is added.
    """

    kind: HeadKind
    weights: Path | None = None
    inputs: int | None = None
    outputs: int | None = None
    activation: HeadActivation = "identity"
    bias: bool = True
    residual: bool = False

    @property
    def facts(self) -> dict[str, Any]:
        """All but the file: what a vector depends on besides the weights."""
        return {key: value for key, value in vars(self).items() if key != "weights"}


@dataclass(frozen=True, kw_only=True)
class ScoreLayer:
    """One layer of a head whose tensors are among the model's own weights.

    Attributes:
        name: name of the module; of a difference, of the table of words.
        kind: a linear layer (``dense``), a ``layer_norm``, or the difference of two rows of the
            table that predicts the next token.
        bias: whether the layer adds a bias.
        activation: what follows a linear layer.
        epsilon: what a layer norm adds to the variance.
        rows: the tokens whose rows are subtracted: that of "yes", and that of "no".
    """

    name: str
    kind: Literal["dense", "layer_norm", "difference"] = "dense"
    bias: bool = True
    activation: LayerActivation = "identity"
    epsilon: float = 1e-5
    rows: tuple[int, int] | None = None


@dataclass(frozen=True, kw_only=True)
class PairPrompt:
    """What a language model is told around two texts, so that it answers "yes" or "no".

    Attributes:
        before: begins each pair; it is never truncated.
        middle: has the query at ``{query}`` and the document at ``{document}``; it is truncated
            at its end.
        after: ends each pair; it is never truncated.
    """

    before: str
    middle: str
    after: str


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """Everything that turns two texts into a score, besides the transformer.

    Attributes:
        pooling: how token vectors become one.
        activation: the function that the model's files apply to its raw score, if any.
        layers: the head, from the pooled vector to the raw score; none if the modules of the
            model's chain are the head.
        token_types: whether the model reads to which of the two texts each token belongs.
        prompt: for language models, what surrounds the two texts.
    """

    pooling: Pooling
    activation: ScoreActivation | None
    layers: tuple[ScoreLayer, ...] = ()
    token_types: bool = False
    prompt: PairPrompt | None = None


def scoring_of_json(content: Mapping[str, Any]) -> Scoring:
    """Build the object whose fields JSON states."""
    prompt = content["prompt"]
    layers = [
        ScoreLayer(**{**layer, "rows": None if layer["rows"] is None else tuple(layer["rows"])})
        for layer in content["layers"]
    ]
    changed = {"layers": tuple(layers), "prompt": None if prompt is None else PairPrompt(**prompt)}
    return Scoring(**{**content, **changed})
