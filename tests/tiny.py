"""Small random models, written as sentence-transformers writes real ones."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

_WORDS = """
the a of to and in is cat dog sat mat paris france capital market stock fell rose player goal match
won lost ship sailed sea storm query passage : . , one two three four five six
"""
WORDS = _WORDS.split()
SPECIAL = "[CLS] $A [SEP]"


Weights = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class TinyModel:
    """A model's folder, and what was written into it."""

    path: Path
    weights: Weights
    config: Mapping[str, Any]
    pooling: str
    normalize: bool


def tiny_bert(
    path: Path,
    *,
    pooling: str = "mean",
    normalize: bool = True,
    prompts: Mapping[str, str] | None = None,
    layers: int = 2,
    hidden: int = 32,
    max_seq_length: int = 64,
    weight_prefix: str = "",
    special: str = SPECIAL,
    seed: int = 0,
    **config_changes: Any,
) -> TinyModel:
    """Writes a random BERT model to `path`; `special` is that of `tiny_tokenizer`."""
    tokenizer = tiny_tokenizer()
    config = {
        "model_type": "bert",
        "vocab_size": tokenizer.get_vocab_size(),
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "intermediate_size": hidden * 2,
        "max_position_embeddings": 96,
        "type_vocab_size": 2,
        "layer_norm_eps": 1e-12,
        "hidden_act": "gelu",
        **config_changes,
    }
    weights = _weights(config, seed)
    named = {weight_prefix + name: tensor for name, tensor in weights.items()}
    write_model(
        path,
        config,
        named,
        pooling=pooling,
        normalize=normalize,
        prompts=prompts,
        max_seq_length=max_seq_length,
        special=special,
    )
    return TinyModel(path, weights, config, pooling, normalize)


def write_model(
    path: Path,
    config: Mapping[str, Any],
    weights: Mapping[str, NDArray[Any]] | None,
    *,
    pooling: str = "mean",
    normalize: bool = True,
    prompts: Mapping[str, str] | None = None,
    max_seq_length: int | None = None,
    special: str = SPECIAL,
) -> None:
    """Writes a transformer's files to `path`, without weights if there are none."""
    (path / "1_Pooling").mkdir(parents=True)
    if weights is not None:
        save_file(dict(weights), path / "model.safetensors")
    tokenizer = tiny_tokenizer(special)
    # as packaged files often are: leftovers of training that must not count
    tokenizer.enable_truncation(7)
    tokenizer.enable_padding(length=7)
    tokenizer.save(str(path / "tokenizer.json"))
    _write(path / "config.json", config)
    write_modules(path, ["Transformer", "Pooling", *(["Normalize"] if normalize else [])])
    _write(
        path / "1_Pooling/config.json",
        {
            "word_embedding_dimension": config.get("hidden_size"),
            "pooling_mode_cls_token": pooling == "cls",
            "pooling_mode_mean_tokens": pooling == "mean",
            "pooling_mode_lasttoken": pooling == "last_token",
        },
    )
    _write(path / "sentence_bert_config.json", {"max_seq_length": max_seq_length})
    _write(path / "config_sentence_transformers.json", {"prompts": dict(prompts or {})})


def write_modules(path: Path, kinds: Sequence[str]) -> None:
    """Writes a `modules.json` that chains `kinds`; the first lies in the folder itself."""
    _write(
        path / "modules.json",
        [
            {
                "idx": i,
                "name": str(i),
                "path": f"{i}_{kind}" if i else "",
                "type": f"sentence_transformers.models.{kind}",
            }
            for i, kind in enumerate(kinds)
        ],
    )


def _weights(config: Mapping[str, Any], seed: int) -> Weights:
    random = np.random.default_rng(seed)
    width, inner = config["hidden_size"], config["intermediate_size"]
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (config["vocab_size"], width),
        "embeddings.position_embeddings.weight": (config["max_position_embeddings"], width),
        "embeddings.token_type_embeddings.weight": (config["type_vocab_size"], width),
    }
    norms = ["embeddings.LayerNorm"]
    for layer in range(config["num_hidden_layers"]):
        name = f"encoder.layer.{layer}"
        norms += [f"{name}.attention.output.LayerNorm", f"{name}.output.LayerNorm"]
        for part in ("self.query", "self.key", "self.value", "output.dense"):
            shapes[f"{name}.attention.{part}.weight"] = (width, width)
            shapes[f"{name}.attention.{part}.bias"] = (width,)
        shapes[f"{name}.intermediate.dense.weight"] = (inner, width)
        shapes[f"{name}.intermediate.dense.bias"] = (inner,)
        shapes[f"{name}.output.dense.weight"] = (width, inner)
        shapes[f"{name}.output.dense.bias"] = (width,)
    weights = {
        name: random.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()
    }
    for norm in norms:
        weights[f"{norm}.weight"] = random.normal(1, 0.1, width).astype(np.float32)
        weights[f"{norm}.bias"] = random.normal(0, 0.1, width).astype(np.float32)
    return weights


def tiny_tokenizer(special: str = SPECIAL) -> Tokenizer:
    """A WordPiece tokenizer of `WORDS` and letters, with the special tokens of a text, `$A`."""
    marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    pieces = [*marks, *dict.fromkeys([*WORDS, *letters]), *(f"##{letter}" for letter in letters)]
    tokenizer = Tokenizer(
        models.WordPiece(vocab={piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]")
    )
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=special, special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


def _write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content))
