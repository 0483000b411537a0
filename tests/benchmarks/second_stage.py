"""Rerankers: pairs a second and memory, against peers on the same weights in the same run.

    tox -e bench -- second_stage.py [--rounds N] [--pairs N] [--data FOLDER] [--model FOLDER]

Peers are sentence-transformers' CrossEncoder and fastembed's TextCrossEncoder 0.9.1, with their
defaults, where they are installed. All score the same pairs in turn, round after round; each ratio
is the median over the rounds. Memory is the peak of a process that scores them once.

Lengths of queries and documents are drawn from those of Cranfield's (225 queries, 1,400 abstracts);
the texts are the standard library's documentation. No package carries a real cross-encoder. With
``--data``, the folder of Cranfield's files (see `cranfield.py`), all-MiniLM-L6-v2 is trained to be
one on 180 of its queries, which takes some minutes once. Without it, a head is put on MiniLM whose
score is the direction in which pairs differ most. What is measured does not depend on what a score
means, but whether a model is int8 does: its gate decides, and the table says what it decided.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

sys.path.insert(0, str(Path(__file__).parent))
from corpora import docstrings
from memory import peak_mb
from peers import model_folder, write_plain_onnx

# tokens of Cranfield's texts, by MiniLM's tokenizer: least, deciles, most
_QUERY_TOKENS = (6, 11, 13, 16, 18, 20, 22, 25, 27, 34, 57)
_DOCUMENT_TOKENS = (1, 81, 107, 129, 151, 173, 202, 237, 275, 335, 794)
_TRAINED_QUERIES = 180  # of 225
_NAMES = ("sentence-transformers", "fastembed", "int8", "fp32")

Pairs = Sequence[tuple[str, str]]
Score = Callable[[Pairs], Any]


def main() -> None:
    """Prints one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pairs", type=int, default=200, help="pairs that are scored each time")
    parser.add_argument("--data", type=Path, help="folder of Cranfield's files, to train on")
    parser.add_argument("--model", type=Path, help="folder of a cross-encoder")
    parser.add_argument("--workspace", type=Path, default=Path(tempfile.gettempdir()) / "bench")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    name = "cross-encoder" if arguments.data is None else "cross-encoder-cranfield"
    folder = arguments.model or arguments.workspace / name
    if not folder.exists() and arguments.data is not None:
        train_model(folder, arguments.data)
    elif not folder.exists():
        make_model(folder)
    pairs = make_pairs(arguments.pairs)
    if arguments.worker:
        load(arguments.worker, folder)(pairs)
        print(peak_mb())
        return
    encoders = {name: load(name, folder) for name in _NAMES if is_available(name)}
    scores = {name: np.asarray(score(pairs[:16])) for name, score in encoders.items()}
    seconds: dict[str, list[float]] = {name: [] for name in encoders}
    cpu_seconds: dict[str, list[float]] = {name: [] for name in encoders}
    for _ in range(arguments.rounds):
        for name, score in encoders.items():
            started, cpu = time.perf_counter(), time.process_time()
            score(pairs)
            seconds[name].append(time.perf_counter() - started)
            cpu_seconds[name].append(time.process_time() - cpu)
            time.sleep(0.1)  # a peer's threads go on spinning for a while
    command = [sys.executable, __file__, "--pairs", str(arguments.pairs), "--model", str(folder)]
    print(f"{len(pairs)} pairs, {arguments.rounds} rounds, {folder.name}; {precisions(folder)}")
    print(f"{'':<22}{'pairs/s':>9}{'CPU ms':>8}{'peak MB':>9}{'furthest score':>16}", end="")
    peers = [name for name in _NAMES[:2] if name in encoders]
    print("".join(f"{'x ' + name:>24}" for name in peers))
    for name in encoders:
        worker = [*command, "--worker", name]
        done = subprocess.run(worker, capture_output=True, text=True, check=True)
        memory = float(done.stdout.split()[-1])
        rate = len(pairs) / statistics.median(seconds[name])
        furthest = max(abs(scores[name] - scores["fp32"]))
        cpu = 1000 * statistics.median(cpu_seconds[name]) / len(pairs)
        print(f"{name:<22}{rate:>9.1f}{cpu:>8.0f}{memory:>9.0f}{furthest:>16.4f}", end="")
        for peer in peers:
            ratios = [a / b for a, b in zip(seconds[peer], seconds[name], strict=True)]
            print(f"{statistics.median(ratios):>24.2f}", end="")
        print(flush=True)


def is_available(name: str) -> bool:
    """Return whether what is measured is installed."""
    if name in ("int8", "fp32"):
        return True
    try:
        __import__(name.replace("-", "_"))
    except ImportError:
        return False
    return True


def load(name: str, folder: Path) -> Score:
    """Return a function from pairs to raw scores."""
    if name == "sentence-transformers":
        from sentence_transformers import CrossEncoder
        from torch import nn

        torch_model = CrossEncoder(str(folder), device="cpu", activation_fn=nn.Identity())
        return lambda pairs: torch_model.predict(list(pairs))
    if name == "fastembed":
        return _fastembed(folder)
    from qdrant_embed import TextCrossEncoder
    from qdrant_embed.encoder.facts.precision import Precision

    precision: Precision = "int8" if name == "int8" else "fp32"
    ours = TextCrossEncoder(folder, precision=precision, activation=None)
    return lambda pairs: list(ours.rerank_pairs(pairs))


def precisions(folder: Path) -> str:
    """Say whether the gate lets the model be int8."""
    from qdrant_embed import TextCrossEncoder

    report = TextCrossEncoder(folder).report
    if report.ranking is None:
        return "int8 fell back to fp32"
    groups = len(getattr(report, "float32_groups", ()))
    return f"int8: Kendall's tau {report.ranking.tau}, {groups} groups of layers in float32"


def _fastembed(folder: Path) -> Score:
    from fastembed.common.model_description import ModelSource
    from fastembed.rerank.cross_encoder import TextCrossEncoder

    written = folder.with_name(f"{folder.name}-onnx")
    if not (written / "model.onnx").exists():
        _write_onnx(folder, written)
    name = f"benchmark/{folder.name}"
    TextCrossEncoder.add_custom_model(
        model=name, sources=ModelSource(hf=name), model_file="model.onnx"
    )
    model = TextCrossEncoder(name, specific_model_path=str(written))
    return lambda pairs: list(model.rerank_pairs(pairs))


def _write_onnx(folder: Path, written: Path) -> None:
    """Writes the plain ONNX file that fastembed runs."""
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(folder, attn_implementation="eager")
    write_plain_onnx(model, folder, written, "logits", by_token=False)
    # fastembed would cut pairs at the length that MiniLM was trained with, and do less than others
    settings = written / "tokenizer_config.json"
    content = json.loads(settings.read_text())
    settings.write_text(json.dumps({k: v for k, v in content.items() if k != "max_length"}))


def make_model(folder: Path) -> None:
    """Writes MiniLM with a head whose score is the direction in which pairs differ most."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_folder())
    model = AutoModelForSequenceClassification.from_pretrained(model_folder(), num_labels=1).eval()
    with torch.no_grad():
        pooled = torch.cat(
            [
                model.bert(**tokenizer(*pair, truncation=True, return_tensors="pt")).pooler_output
                for pair in make_pairs(200, seed=1)
            ]
        )
        centred = pooled - pooled.mean(dim=0)
        direction = torch.linalg.svd(centred, full_matrices=False).Vh[:1]
        scale = (centred @ direction.T).std()
        model.classifier.weight.copy_(direction / scale)
        model.classifier.bias.copy_(-(pooled.mean(dim=0) @ direction.T) / scale)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def train_model(folder: Path, data: Path) -> None:
    """Trains MiniLM on Cranfield's judgements: each relevant abstract against two by chance."""
    import torch
    from cranfield import read_documents, read_judgements, read_queries
    from torch.nn.functional import binary_cross_entropy_with_logits
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    documents = read_documents(data / "cran.all.1400.xml")
    queries = read_queries(data / "cran.qry.xml")
    relevant = read_judgements(data / "cranqrel.trec.txt")
    torch.manual_seed(0)
    chance = random.Random(0)
    tokenizer = AutoTokenizer.from_pretrained(model_folder())
    model = AutoModelForSequenceClassification.from_pretrained(model_folder(), num_labels=1)
    labelled: list[tuple[str, str, float]] = []
    for query, found in relevant.items():
        for number in sorted(found & documents.keys()) if query <= _TRAINED_QUERIES else ():
            others = [documents[chance.choice(list(documents))] for _ in range(2)]
            labelled.append((queries[query - 1], documents[number], 1.0))
            labelled += [(queries[query - 1], other, 0.0) for other in others]
    chance.shuffle(labelled)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5)
    model.train()
    for start in range(0, len(labelled), 16):
        batch = labelled[start : start + 16]
        given = tokenizer(
            [query for query, _, _ in batch],
            [document for _, document, _ in batch],
            truncation="longest_first",
            max_length=96,
            padding=True,
            return_tensors="pt",
        )
        wanted = torch.tensor([label for _, _, label in batch])
        loss = binary_cross_entropy_with_logits(model(**given).logits[:, 0], wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if start % 320 == 0:
            print(f"{start} of {len(labelled)}: {loss.item():.3f}", file=sys.stderr)
    model.eval()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def make_pairs(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Pairs of texts, 50 for each query, of lengths drawn from Cranfield's."""
    tokenizer = Tokenizer.from_file(str(model_folder() / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    chance = random.Random(seed)
    texts = docstrings()
    chance.shuffle(texts)

    def drawn(deciles: Sequence[int]) -> str:
        length = int(np.interp(chance.random() * 10, range(11), deciles))
        text = ""
        while True:
            text += texts[chance.randrange(len(texts))] + "\n"
            offsets = tokenizer.encode(text, add_special_tokens=False).offsets
            if len(offsets) >= length:
                return text[: offsets[max(1, length) - 1][1]]

    pairs: list[tuple[str, str]] = []
    while len(pairs) < count:
        query = drawn(_QUERY_TOKENS)
        pairs += [(query, drawn(_DOCUMENT_TOKENS)) for _ in range(min(50, count - len(pairs)))]
    return pairs


if __name__ == "__main__":
    main()
