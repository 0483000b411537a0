"""What it takes to start a model, everything being decided and compiled."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from qdrant_embed.encoder.facts.precision import ModelReport
from qdrant_embed.encoder.facts.spec import ModelSpec
from qdrant_embed.errors import ModelFileError

if TYPE_CHECKING:
    from qdrant_embed.encoder.run.tokenizer import Tokenizer

MANIFEST = "qdrant-embed.json"  # in a folder that holds a model as it can be started


@dataclass(frozen=True)
class Runnable:
    """A model with everything decided and compiled: what it takes to start it.

    Attributes:
        kind: a ``graph`` of ours, the model's own ``onnx`` file, or a ``static`` table.
        spec: the model's facts.
        report: of how it was made.
        tokenizer: its ``tokenizer.json``.
        files: what is run, then what that file reads from beside itself.
        lower_case: lower-case texts before they are tokenised.
        skips_unknown: leave unknown tokens out of a static model's mean.
        pooled: only the file itself can pool, as with Dense layers after the pooling.
        vocabulary: tokens that the model has vectors for, where it says so.
    """

    kind: Literal["graph", "onnx", "static"]
    spec: ModelSpec
    report: ModelReport
    tokenizer: Path
    files: tuple[Path, ...]
    lower_case: bool = False
    skips_unknown: bool = False
    pooled: bool = False
    vocabulary: int | None = None

    def load_tokenizer(self) -> Tokenizer:
        """The model's tokenizer.

        Raises:
            ModelFileError: it cannot be read, or has more tokens than the model.
        """
        from qdrant_embed.encoder.run.tokenizer import Tokenizer

        tokenizer = Tokenizer(
            self.tokenizer,
            self.spec.max_tokens,
            special_tokens=self.kind != "static",
            lower_case=self.lower_case,
        )
        if tokenizer.vocabulary_size > (self.vocabulary or math.inf):
            raise ModelFileError(
                f"{self.tokenizer} has {tokenizer.vocabulary_size} tokens, but the model has "
                f"vectors for {self.vocabulary}: they do not belong together"
            )
        return tokenizer
