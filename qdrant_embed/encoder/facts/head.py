"""What a module after a model's pooling does. Without pydantic: a cached plan has some, too."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

HeadKind: TypeAlias = Literal["dense", "layer_norm", "normalize"]
HeadActivation: TypeAlias = Literal["identity", "tanh", "gelu"]


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
