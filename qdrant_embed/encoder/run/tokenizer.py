"""Turns text into token ids; the only importer of ``tokenizers``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from qdrant_embed.encoder.run.batching import runs
from qdrant_embed.errors import MissingDependencyError, ModelFileError

try:
    import tokenizers
except ImportError as error:
    raise MissingDependencyError("tokenizers", "encoding text") from error

# what is cut off is tokenised too, and takes about 150 bytes a token until its run is done
_CHARACTERS_TOGETHER = 500_000


@dataclass(frozen=True)
class TokenizedTexts:
    """Token ids of each text, special tokens included, and the positions of texts that were cut."""

    ids: list[list[int]]
    truncated: list[int]


class Tokenizer:
    """Reads a ``tokenizer.json``, and truncates at `max_tokens` without padding.

    What the file itself says about truncation and padding is ignored: packaged files carry
    leftovers from training (all-MiniLM-L6-v2: cut and padded to 128).

    Args:
        path: the file.
        max_tokens: read from one text, special tokens included.
        special_tokens: whether to add the tokens that mark a text's beginning and end.
        lower_case: lower-case texts first, whatever the file does.

    Raises:
        ModelFileError: the file cannot be read as a tokenizer.
    """

    def __init__(
        self,
        path: Path,
        max_tokens: int,
        *,
        special_tokens: bool = True,
        lower_case: bool = False,
    ) -> None:
        self._special_tokens, self._lower_case = special_tokens, lower_case
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # tokenizers raises nothing narrower
            raise ModelFileError(f"{path} cannot be read as a tokenizer: {error}") from error
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_tokens)

    @property
    def vocabulary_size(self) -> int:
        """Token ids are below this, added tokens included."""
        return int(self._tokenizer.get_vocab_size(with_added_tokens=True))

    @property
    def unknown_id(self) -> int | None:
        """The token for anything outside the vocabulary, if there is one."""
        model = json.loads(self._tokenizer.to_str())["model"]
        if "unk_id" in model:  # Unigram
            return None if model["unk_id"] is None else int(model["unk_id"])
        token = model.get("unk_token")
        return None if token is None else self._tokenizer.token_to_id(token)

    def ordinary_ids(self) -> list[int]:
        """List the ids of tokens that texts consist of: neither special nor unused ones."""
        special = set(self._tokenizer.get_added_tokens_decoder())
        return sorted(
            number
            for token, number in self._tokenizer.get_vocab(with_added_tokens=False).items()
            if number not in special and not token.startswith("[unused")
        )

    def special_tokens_around(self, text: str) -> tuple[list[int], list[int]]:
        """Return the special tokens that are put before and after `text`."""
        encoding = self._tokenizer.encode(text, add_special_tokens=self._special_tokens)
        ids, mask = encoding.ids, encoding.special_tokens_mask
        if 0 not in mask:
            return ids, []
        start, end = mask.index(0), len(mask) - mask[::-1].index(0)
        return ids[:start], ids[end:]

    def tokenize(self, texts: Sequence[str]) -> TokenizedTexts:
        """Tokenise each of `texts`, in order."""
        if self._lower_case:
            texts = [text.lower() for text in texts]
        found = TokenizedTexts([], [])
        for run in [texts] if len(texts) == 1 else runs(texts, len, _CHARACTERS_TOGETHER):
            for encoding in self._tokenizer.encode_batch_fast(
                run, add_special_tokens=self._special_tokens
            ):
                if encoding.overflowing:
                    found.truncated.append(len(found.ids))
                found.ids.append(encoding.ids)
        return found

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Find where each token of the whole `text` starts and ends, without special tokens."""
        read = text.lower() if self._lower_case else text
        whole = self._tokenizer.encode(read, add_special_tokens=False)
        spans = [span for part in (whole, *whole.overflowing) for span in part.offsets]
        if len(read) == len(text):
            return spans
        origin = [i for i, character in enumerate(text) for _ in character.lower()] + [len(text)]
        return [
            (origin[start], origin[max(start, end - 1)] + (end > start)) for start, end in spans
        ]

    def count(self, text: str) -> int:
        """Count the tokens of the whole `text`, special tokens included."""
        marks = self._tokenizer.num_special_tokens_to_add(is_pair=False)
        return len(self.spans(text)) + (marks if self._special_tokens else 0)
