"""What a ``tokenizer.json`` says, checked before the library reads it.

The library believes what it reads: a step that lengthens each text a thousand times, or a table
whose stated size is invented, takes all memory and ends the process.
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qdrant_embed.encoder.facts.jsonfile import read_content
from qdrant_embed.errors import ModelFileError
from qdrant_embed.limits import (
    ADDED_TOKEN,
    ADDED_TOKENS,
    SPECIAL_TOKENS,
    TOKEN_IDS,
    TOKENIZER_FILE,
    TOKENIZER_GROWTH,
    TOKENIZER_PATTERN,
    TOKENIZER_PREPENDED,
    TOKENIZER_STEPS,
)

# settings of training, which are not used
_IGNORED = ("truncation", "padding", "version")
_LONGEST_MAPPED = 512  # bytes that a precompiled map may make of one character


@dataclass(frozen=True)
class TokenizerFile:
    """A ``tokenizer.json`` that can be loaded.

    Attributes:
        digest: hex sha256 of all in it that token ids depend on.
        largest_id: the largest token id that it states.
    """

    digest: str
    largest_id: int


def read_tokenizer_file(path: Path) -> TokenizerFile:
    """Read and check a ``tokenizer.json``.

    Raises:
        ModelFileError: it is missing, too large, no JSON, or asks for more than `limits` allows.
    """
    content = read_content(path, TOKENIZER_FILE)
    try:
        largest = _largest_id(content)
    # also what it raises where something has another type
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise ModelFileError(f"{path} cannot be read as a tokenizer: {error}") from error
    decisive = {key: value for key, value in content.items() if key not in _IGNORED}
    canonical = json.dumps(decisive, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    return TokenizerFile(digest, largest)


def _largest_id(content: Any) -> int:
    """Check a tokenizer and return its largest token id."""
    ids = [*_vocabulary(content.get("model")), *_added(content.get("added_tokens"))]
    ids += _template(content.get("post_processor"))
    _check_normalizer(content.get("normalizer"))
    _check_steps(content.get("pre_tokenizer"), "pre_tokenizer")
    _check_steps(content.get("post_processor"), "post_processor")
    for number in ids:
        if isinstance(number, bool) or not isinstance(number, int):
            raise TypeError(f"a token id is {number!r:.80}")
        if not 0 <= number < TOKEN_IDS:
            raise ValueError(f"it has token id {number!r:.80}: ids are below {TOKEN_IDS:,}")
    return max(ids, default=0)


def _vocabulary(model: Any) -> Iterable[Any]:
    """Return the ids of a model's vocabulary: of a list, the positions."""
    vocabulary = model.get("vocab") if isinstance(model, Mapping) else None
    if isinstance(vocabulary, Mapping):
        return list(vocabulary.values())
    if isinstance(vocabulary, list):
        unknown = model.get("unk_id")
        return [*([] if unknown is None else [unknown]), max(0, len(vocabulary) - 1)]
    raise ValueError("it has no vocabulary")


def _added(tokens: Any) -> list[Any]:
    tokens = tokens or []
    if len(tokens) > ADDED_TOKENS:
        raise ValueError(f"it adds {len(tokens):,} tokens: {ADDED_TOKENS:,} are allowed")
    for token in tokens:
        if len(token["content"]) > ADDED_TOKEN:
            raise ValueError(
                f"it adds a token of {len(token['content']):,} characters: {ADDED_TOKEN:,} are "
                "allowed"
            )
    return [token["id"] for token in tokens]


def _parts(step: Any, inner: str) -> Iterator[Mapping[str, Any]]:
    """Yield a step, or those of the sequence that it is, however deep."""
    waiting = [step]
    while waiting:
        current = waiting.pop(0)
        if current is None:
            continue
        if not isinstance(current, Mapping):
            raise TypeError(f"a step is {current!r:.80}")
        if current.get("type") == "Sequence":
            waiting[:0] = current.get(inner) or ()
        else:
            yield current


def _check_steps(step: Any, kind: str) -> None:
    inner = {"pre_tokenizer": "pretokenizers", "post_processor": "processors"}[kind]
    parts = list(_parts(step, inner))
    if len(parts) > TOKENIZER_STEPS:
        raise ValueError(f"its {kind} has {len(parts)} steps: {TOKENIZER_STEPS} are allowed")
    for part in parts:
        _pattern(part)


def _pattern(part: Mapping[str, Any]) -> str:
    """Return the text that a step looks for; empty where it may find nothing at all."""
    pattern = part.get("pattern") or {}
    text = pattern if isinstance(pattern, str) else next(iter(pattern.values()), "")
    if len(text) > TOKENIZER_PATTERN:
        raise ValueError(
            f"it looks for a pattern of {len(text):,} characters: {TOKENIZER_PATTERN:,} are allowed"
        )
    return "" if isinstance(pattern, Mapping) and "Regex" in pattern else str(text)


def _check_normalizer(normalizer: Any) -> None:
    growth, prepended, count = 1.0, 0, 0
    for part in _parts(normalizer, "normalizers"):
        count += 1
        match part.get("type"):
            case "Replace":
                found, content = _pattern(part), part["content"]
                growth *= max(1.0, len(content) / len(found) if found else 1 + len(content))
            case "Prepend":
                prepended += len(part["prepend"])
            case "Precompiled":
                _check_map(part["precompiled_charsmap"])
    if count > TOKENIZER_STEPS:
        raise ValueError(f"its normalizer has {count} steps: {TOKENIZER_STEPS} are allowed")
    if growth > TOKENIZER_GROWTH:
        raise ValueError(
            f"its normalizer makes texts {growth:,.0f} times as long: {TOKENIZER_GROWTH} are "
            "allowed"
        )
    if prepended > TOKENIZER_PREPENDED:
        raise ValueError(
            f"its normalizer puts {prepended:,} characters before each text: "
            f"{TOKENIZER_PREPENDED:,} are allowed"
        )


def _check_map(encoded: Any) -> None:
    """Check the map of a ``Precompiled`` step: a stated size, a trie of that size, and texts."""
    if encoded is None or encoded == "":
        return
    try:
        content = base64.b64decode(encoded, validate=True)
    except (ValueError, TypeError) as error:
        raise ValueError(f"its precompiled_charsmap is not base64: {error}") from error
    size = struct.unpack_from("<I", content)[0] if len(content) >= 4 else -1
    if size < 0 or size % 4 or 4 + size > len(content):
        raise ValueError("its precompiled_charsmap states a size that it does not have")
    if max(map(len, content[4 + size :].split(b"\0"))) > _LONGEST_MAPPED:
        raise ValueError("its precompiled_charsmap makes long texts of single characters")


def _template(processor: Any) -> list[Any]:
    """Return the ids of the special tokens around a text."""
    ids: list[Any] = []
    for part in _parts(processor, "processors"):
        if part.get("type") == "TemplateProcessing":
            special = part.get("special_tokens") or {}
            ids += [number for token in special.values() for number in token["ids"]]
            for kind in ("single", "pair"):
                around = [
                    special[piece["SpecialToken"]["id"]]["ids"]
                    for piece in part.get(kind) or ()
                    if "SpecialToken" in piece
                ]
                count = sum(map(len, around))
                pieces = len(part.get(kind) or ())
                if max(count, pieces) > SPECIAL_TOKENS:
                    raise ValueError(
                        f"it puts {max(count, pieces):,} special tokens around a text: "
                        f"{SPECIAL_TOKENS} are allowed"
                    )
        else:
            ids += [token[1] for token in (part.get("cls"), part.get("sep")) if token]
    return ids
