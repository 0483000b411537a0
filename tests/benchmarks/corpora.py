"""Texts to measure with: the standard library's own documentation, cut to known token counts."""

from __future__ import annotations

import importlib
import inspect
import json
import random
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from tokenizers import Tokenizer

_NAMES = """
argparse asyncio collections concurrent.futures datetime decimal difflib email.message fractions
functools http.client inspect itertools json logging multiprocessing os pathlib random re shutil
socket sqlite3 statistics string subprocess tempfile textwrap threading typing unittest
urllib.request uuid xml.dom.minidom zipfile
"""
_MODULES = _NAMES.split()

# token counts: 15 to 30; 10 to 512 with a median near 80, unsorted; 400 to 512. As in an ingestion,
# each has more texts than one batch of fastembed's default, 256
SIZES = {"short": 1024, "mixed": 512, "long": 272}


@dataclass(frozen=True)
class Corpus:
    """Texts, their token counts, and how much a batch of 256 pads them."""

    name: str
    texts: list[str]
    tokens: list[int]

    @property
    def padding_factor(self) -> float:
        """Tokens computed by who pads each batch of 256 to its longest, over real ones."""
        batches = [self.tokens[start : start + 256] for start in range(0, len(self.tokens), 256)]
        return sum(max(batch) * len(batch) for batch in batches) / sum(self.tokens)


def docstrings() -> list[str]:
    """Documentation of the standard library's public callables, in a fixed random order.

    A new interpreter collects it: transformers and torch add to what they import of it, and each
    peer would have other texts, in another order.
    """
    texts: list[str] = json.loads(_collected())
    random.Random(0).shuffle(texts)
    return texts


@cache
def _collected() -> bytes:
    command = [sys.executable, __file__]
    return subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout


def _documented() -> list[str]:
    found: set[str] = set()
    for name in _MODULES:
        module = importlib.import_module(name)
        for _, member in inspect.getmembers(module, callable):
            owners = [member, *vars(member).values()] if inspect.isclass(member) else [member]
            found.update(
                text
                for owner in owners
                if callable(owner) and (text := inspect.getdoc(owner)) and len(text) > 40
            )
    return sorted(found)


def corpora(tokenizer: Tokenizer) -> list[Corpus]:
    """The three corpora."""
    chance = random.Random(1)
    words = " ".join(docstrings()).split()
    lengths = {
        "short": [chance.randint(15, 30) for _ in range(SIZES["short"])],
        "mixed": [
            int(min(512, max(10, chance.lognormvariate(4.38, 0.95)))) for _ in range(SIZES["mixed"])
        ],
        "long": [chance.randint(400, 512) for _ in range(SIZES["long"])],
    }
    return [
        _corpus(name, _cut(words, wanted, tokenizer), tokenizer) for name, wanted in lengths.items()
    ]


def queries(count: int) -> list[str]:
    """Short questions."""
    titles = [text.split("\n")[0].rstrip(".").lower() for text in docstrings()]
    fitting = [title for title in titles if 4 <= len(title.split()) <= 12]
    return [f"how to {title}?" for title in fitting[:count]]


def _cut(words: Sequence[str], lengths: Sequence[int], tokenizer: Tokenizer) -> list[str]:
    """Runs of words, one after the other, each of about as many tokens as asked for."""
    texts, start = [], 0
    for wanted in lengths:
        start = start % (len(words) - 600)
        encoding = tokenizer.encode(" ".join(words[start : start + 600]), add_special_tokens=False)
        end = encoding.offsets[wanted - 3][1]
        texts.append(" ".join(words[start : start + 600])[:end])
        start += len(texts[-1].split())
    return texts


def _corpus(name: str, texts: list[str], tokenizer: Tokenizer) -> Corpus:
    return Corpus(name, texts, [len(tokenizer.encode(text).ids) for text in texts])


if __name__ == "__main__":
    json.dump(_documented(), sys.stdout)
