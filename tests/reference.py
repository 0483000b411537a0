"""A BERT forward pass in plain numpy, one text at a time: slow, and written from the paper.

It shares no code and no graph with the encoder under test.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def forward(
    weights: Mapping[str, NDArray[np.floating[Any]]],
    config: Mapping[str, Any],
    token_ids: Sequence[int],
    *,
    pooling: str,
    normalize: bool,
) -> Array:
    """The vector of one tokenised text, float64 [hidden_size]."""
    w = {name: tensor.astype(np.float64, copy=False) for name, tensor in weights.items()}
    length = len(token_ids)
    x = (
        w["embeddings.word_embeddings.weight"][list(token_ids)]
        + w["embeddings.position_embeddings.weight"][:length]
        + w["embeddings.token_type_embeddings.weight"][0]
    )
    x = _layer_norm(x, w, "embeddings.LayerNorm", config)
    for layer in range(config["num_hidden_layers"]):
        x = _layer(x, w, f"encoder.layer.{layer}", config)
    pooled: Array = x[0] if pooling == "cls" else x.mean(axis=0)
    return pooled / np.linalg.norm(pooled) if normalize else pooled


def _layer(x: Array, w: Mapping[str, Array], name: str, config: Mapping[str, Any]) -> Array:
    heads = config["num_attention_heads"]
    size = x.shape[1] // heads
    query, key, value = (
        _linear(x, w, f"{name}.attention.self.{part}") for part in ("query", "key", "value")
    )
    context = np.empty_like(x)
    for head in range(heads):
        columns = slice(head * size, (head + 1) * size)
        scores = query[:, columns] @ key[:, columns].T / np.sqrt(size)
        scores = np.exp(scores - scores.max(axis=1, keepdims=True))
        context[:, columns] = scores / scores.sum(axis=1, keepdims=True) @ value[:, columns]
    attended = _linear(context, w, f"{name}.attention.output.dense")
    x = _layer_norm(x + attended, w, f"{name}.attention.output.LayerNorm", config)
    inner = _activation(_linear(x, w, f"{name}.intermediate.dense"), config["hidden_act"])
    return _layer_norm(
        x + _linear(inner, w, f"{name}.output.dense"), w, f"{name}.output.LayerNorm", config
    )


def _linear(x: Array, w: Mapping[str, Array], name: str) -> Array:
    result: Array = x @ w[f"{name}.weight"].T + w[f"{name}.bias"]
    return result


def _layer_norm(x: Array, w: Mapping[str, Array], name: str, config: Mapping[str, Any]) -> Array:
    centred = x - x.mean(axis=1, keepdims=True)
    variance = (centred**2).mean(axis=1, keepdims=True)
    scaled: Array = centred / np.sqrt(variance + config["layer_norm_eps"])
    return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]


def _activation(x: Array, name: str) -> Array:
    if name == "relu":
        return np.maximum(x, 0)
    if name == "gelu":
        share = 1 + _erf(x / np.sqrt(2))
    else:
        share = 1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))
    return x * 0.5 * share


def _erf(x: Array) -> Array:
    """Abramowitz and Stegun 7.1.26, to 1.5e-7."""
    t = 1 / (1 + 0.3275911 * np.abs(x))
    factors = (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429)
    series = sum(factor * t**power for power, factor in enumerate(factors, start=1))
    result: Array = np.sign(x) * (1 - series * np.exp(-(x**2)))
    return result
