"""Random models as large as real ones, written as their vendors write them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from corpora import docstrings
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from qdrant_embed.encoder.compile.calibration import calibration_passages

_QUERY = (
    "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:"
)
_END = "<|endoftext|>"


@dataclass(frozen=True)
class Size:
    """A causal model of architecture ``qwen3``."""

    layers: int
    hidden: int
    inner: int
    heads: int
    key_heads: int
    vocabulary: int


SIZES = {
    "0.6b": Size(28, 1024, 3072, 16, 8, 151_669),
    "0.6b-2": Size(2, 1024, 3072, 16, 8, 151_669),  # two of its layers
    "60m": Size(8, 512, 1536, 8, 4, 40_000),
}
_HEAD_SIZE = 128


def make_model(folder: Path, size: Size) -> None:
    """Writes a random Qwen3 Embedding, bfloat16, with a tokenizer trained on texts."""
    (folder / "1_Pooling").mkdir(parents=True)
    write_tokenizer(folder / "tokenizer.json", size.vocabulary)
    _write_weights(folder / "model.safetensors", size)
    config = {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "vocab_size": size.vocabulary,
        "hidden_size": size.hidden,
        "intermediate_size": size.inner,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "num_key_value_heads": size.key_heads,
        "head_dim": _HEAD_SIZE,
        "hidden_act": "silu",
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1_000_000,
        "attention_bias": False,
        "use_sliding_window": False,
        "sliding_window": None,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
    }
    pooling = {"word_embedding_dimension": size.hidden, "pooling_mode_lasttoken": True}
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(
            [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
        )
    ]
    for name, content in (
        ("config.json", config),
        ("1_Pooling/config.json", pooling),
        ("modules.json", modules),
        ("config_sentence_transformers.json", {"prompts": {"query": _QUERY, "document": ""}}),
    ):
        (folder / name).write_text(json.dumps(content))


def _tensors(size: Size) -> Iterator[tuple[str, tuple[int, ...]]]:
    queries, keys = size.heads * _HEAD_SIZE, size.key_heads * _HEAD_SIZE
    yield "embed_tokens.weight", (size.vocabulary, size.hidden)
    for number in range(size.layers):
        layer = f"layers.{number}"
        yield f"{layer}.input_layernorm.weight", (size.hidden,)
        yield f"{layer}.post_attention_layernorm.weight", (size.hidden,)
        yield f"{layer}.self_attn.q_norm.weight", (_HEAD_SIZE,)
        yield f"{layer}.self_attn.k_norm.weight", (_HEAD_SIZE,)
        yield f"{layer}.self_attn.q_proj.weight", (queries, size.hidden)
        yield f"{layer}.self_attn.k_proj.weight", (keys, size.hidden)
        yield f"{layer}.self_attn.v_proj.weight", (keys, size.hidden)
        yield f"{layer}.self_attn.o_proj.weight", (size.hidden, queries)
        yield f"{layer}.mlp.gate_proj.weight", (size.inner, size.hidden)
        yield f"{layer}.mlp.up_proj.weight", (size.inner, size.hidden)
        yield f"{layer}.mlp.down_proj.weight", (size.hidden, size.inner)
    yield "norm.weight", (size.hidden,)


def _write_weights(path: Path, size: Size) -> None:
    header: dict[str, object] = {}
    start = 0
    for name, shape in _tensors(size):
        end = start + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}
        start = end
    written = json.dumps(header).encode()
    random = np.random.default_rng(0)
    with path.open("wb") as file:
        file.write(len(written).to_bytes(8, "little") + written)
        for name, shape in _tensors(size):
            rows = shape[0] if len(shape) > 1 else 1
            for _ in range(rows):  # a table of words is large
                width = shape[-1]
                values = random.standard_normal(width, np.float32)
                if len(shape) == 1:
                    values = 1 + 0.1 * values
                elif not name.startswith("embed_tokens"):
                    values /= np.float32(width**0.5)
                if name.endswith(("o_proj.weight", "down_proj.weight")):
                    # what a layer adds is small, as in GPT-2, so that 28 of them make no noise
                    values /= np.float32((2 * size.layers) ** 0.5)
                file.write((values.view(np.uint32) >> 16).astype("<u2").tobytes())


def write_tokenizer(path: Path, vocabulary: int) -> None:
    """Trains a byte-level BPE, whose rest of the vocabulary no text reaches."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=min(20_000, vocabulary // 2),
        special_tokens=[_END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(
        [*docstrings(), *(passage.text for passage in calibration_passages())], trainer
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {_END}", pair=f"$A {_END} $B {_END}", special_tokens=[(_END, 0)]
    )
    content = json.loads(tokenizer.to_str())
    known = content["model"]["vocab"]
    known |= {f"unused{i}": i for i in range(len(known), vocabulary)}
    path.write_text(json.dumps(content))
