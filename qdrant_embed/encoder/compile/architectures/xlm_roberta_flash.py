"""Jina's XLM-RoBERTa (Sturua et al. 2024): rotary positions, and weights that a task changes.

A repository has one model and, for each task, low-rank changes of all its matrices (LoRA, Hu et
al. 2022). Those of one task are added when the model is compiled, so they cost nothing at run time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from qdrant_embed.encoder.compile.large_tensors import row_blocks, shape_of, storage_of
from qdrant_embed.encoder.compile.layers.rotary import Rotary, RotaryGraph
from qdrant_embed.encoder.compile.layers.transformer import LayerTensors
from qdrant_embed.encoder.compile.quantize import Array
from qdrant_embed.encoder.facts.architectures import Activation, XlmRobertaFlashConfig
from qdrant_embed.encoder.facts.precision import Storage
from qdrant_embed.encoder.facts.spec import ModelSpec
from qdrant_embed.errors import ModelFileError

_CHANGED = ".parametrizations.weight"
_ORIGINAL, _A, _B = f"{_CHANGED}.original", f"{_CHANGED}.0.lora_A", f"{_CHANGED}.0.lora_B"
_ROWS = 4096  # of a table of words that are changed together


class XlmRobertaFlashGraph(RotaryGraph[XlmRobertaFlashConfig]):
    """The graph of a model of architecture ``xlm-roberta-flash``; see `TransformerGraph`."""

    tensors = LayerTensors(
        layers="encoder.layers",
        qkv=("mixer.Wqkv",),
        o=("mixer.out_proj",),
        attention_norm="norm1",
        f1=("mlp.fc1",),
        f2=("mlp.fc2",),
        output_norm="norm2",
    )

    def __init__(
        self,
        weights: Mapping[str, Array],
        config: XlmRobertaFlashConfig,
        spec: ModelSpec,
        *arguments: Any,
    ) -> None:
        if any(name.endswith(_ORIGINAL) for name in weights):
            if config.adapter is None:
                raise ModelFileError(
                    f"{spec.name}: the weights have changes for tasks (LoRA), but config.json has "
                    "no lora_adaptations that name them"
                )
            weights = TaskWeights(weights, config.adapter, config.lora_alpha)
        super().__init__(weights, config, spec, *arguments)

    @property
    def epsilon(self) -> float:
        """What layer norms add to the variance."""
        return self.config.layer_norm_eps

    @property
    def activation_name(self) -> Activation:
        """The feed-forward block's activation."""
        return self.config.hidden_act

    def embeddings(self) -> str:
        """Add words and the first token type, normed."""
        config = self.config
        self.rotary = Rotary(
            self.graph, config.head_size, self.spec.max_tokens, config.rotary_emb_base
        )
        hidden = self.word_vectors()
        hidden = self.with_types(hidden, config.type_vocab_size)
        return self.layer_norm(hidden, "emb_ln")


class TaskWeights(Mapping[str, Array]):
    """Weights with the changes for one task, under the names that they have without any.

    Args:
        weights: those of the file; a changed matrix has three tensors, its `_ORIGINAL` and two
            with a part for each task, `_A` and `_B`.
        task: number of the task.
        alpha: the changes are multiplied with it and divided by their rank.
    """

    def __init__(self, weights: Mapping[str, Array], task: int, alpha: float) -> None:
        self._weights, self._task, self._alpha = weights, task, alpha
        self._changed = {
            f"{name.removesuffix(_ORIGINAL)}.weight": name.removesuffix(_ORIGINAL)
            for name in weights
            if name.endswith(_ORIGINAL)
        }

    def __getitem__(self, name: str) -> Array:
        module = self._changed.get(name)
        if module is None:
            return self._weights[name]
        changed = np.empty(self.shape(name), np.float32)
        start = 0
        for rows in self.blocks(name, _ROWS):
            changed[start : start + len(rows)] = rows
            start += len(rows)
        return changed

    def blocks(self, name: str, rows: int) -> Iterator[Array]:
        """Yield a tensor in blocks of so many rows."""
        module = self._changed.get(name)
        if module is None:
            yield from row_blocks(self._weights, name, rows)
            return
        try:
            a, b = (self._weights[module + part][self._task] for part in (_A, _B))
            # of tables of embeddings A · B, of linear layers B · A
            left, right = (a, b) if len(a) == self.shape(name)[0] else (b, a)
            scale, start = np.float32(self._alpha / right.shape[0]), 0
            for block in row_blocks(self._weights, module + _ORIGINAL, rows):
                yield block + (left[start : start + rows] @ right) * scale
                start += rows
        except (KeyError, IndexError, ValueError) as error:
            raise ModelFileError(
                f"the weights' changes of {module!r} for task {self._task} do not fit it: {error}"
            ) from error

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape."""
        module = self._changed.get(name)
        return shape_of(self._weights, name if module is None else module + _ORIGINAL)

    def storage(self, name: str) -> Storage:
        """Return how a tensor is stored; what is changed has the digits of float32."""
        return "fp32" if name in self._changed else storage_of(self._weights, name)

    def __contains__(self, name: object) -> bool:
        return name in self._changed or name in self._weights

    def __iter__(self) -> Iterator[str]:
        yield from (name for name in self._weights if _CHANGED not in name)
        yield from self._changed

    def __len__(self) -> int:
        return sum(1 for _ in self)
