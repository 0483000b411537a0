"""Turns text into token ids; the only importer of ``tokenizers``."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qdrant_embed.encoder.facts.head import PairPrompt
from qdrant_embed.encoder.facts.spec import ModelSpec
from qdrant_embed.encoder.run.backend import Inputs
from qdrant_embed.encoder.run.batching import runs
from qdrant_embed.errors import InputError, MissingDependencyError, ModelFileError

try:
    import tokenizers
except ImportError as error:
    raise MissingDependencyError("tokenizers", "encoding text") from error

_FOREIGN = "\U00012000"  # a cuneiform sign; to find the unknown token by

# what is cut off is tokenised too, and takes about 150 bytes a token until its run is done
_CHARACTERS_TOGETHER = 500_000


@dataclass(frozen=True)
class TokenizedTexts:
    """Token ids of each text, special tokens included, and the positions of texts that were cut."""

    ids: list[list[int]]
    truncated: list[int]


@dataclass(frozen=True)
class PairTokens:
    """Token ids of two texts that are read together.

    Attributes:
        ids: of both, special tokens included.
        first: how many of them belong to the first text.
    """

    ids: list[int]
    first: int

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class TokenizedPairs:
    """Token ids of pairs of texts, and the positions of pairs that were truncated."""

    pairs: list[PairTokens]
    truncated: list[int]


class _TokenizerError(Exception):
    """What went wrong inside of ``tokenizers``."""


class _Caught(AbstractContextManager[None]):
    """Turns whatever ``tokenizers`` raises in a block into `_TokenizerError`.

    It raises bare Exceptions, and panics, which are no Exceptions.
    """

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception) or type(error).__module__ == "pyo3_runtime":
            raise _TokenizerError(str(error)) from error


_caught = _Caught()


class _Marks(dict[int, bool]):
    """Whether each token is a mark: special or unknown, white space or punctuation."""

    def __init__(self, special: Iterable[int], text_of: Callable[[int], str | None]) -> None:
        super().__init__(dict.fromkeys(special, True))
        self._text_of = text_of

    def __missing__(self, token: int) -> bool:
        text = (self._text_of(token) or "").strip("\u2581\u0120")  # how white space is written
        is_mark = self[token] = all(unicodedata.category(c)[0] in "PZC" for c in text)
        return is_mark


def _pair_length(pair: tuple[str, str]) -> int:
    return len(pair[0]) + len(pair[1])


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
        ModelFileError: the file cannot be read as a tokenizer, or not every text can be tokenised.
    """

    def __init__(
        self,
        path: Path,
        max_tokens: int,
        *,
        special_tokens: bool = True,
        lower_case: bool = False,
    ) -> None:
        self._path, self._special_tokens, self._lower_case = path, special_tokens, lower_case
        try:
            with _caught:
                self._tokenizer = tokenizers.Tokenizer.from_file(str(path))
                self._tokenizer.no_padding()
                self._tokenizer.enable_truncation(max_tokens)
                self._tokenizer.encode(_FOREIGN)  # where the unknown token is missing, this fails
                self._unknown = self._find_unknown()
                special = self._tokenizer.get_added_tokens_decoder()
                self._special = {token for token, added in special.items() if added.special}
                around = self._tokenizer.encode("").ids if special_tokens else []
        except _TokenizerError as error:
            raise ModelFileError(f"{path} cannot be read as a tokenizer: {error}") from error
        self._largest = max([*special, *around], default=0)
        self._special.update(around)  # some files add tokens that they do not call special
        unknown = [] if self._unknown is None else [self._unknown]
        self._marks = _Marks([*self._special, *unknown], self._tokenizer.id_to_token)
        self._prefix_lengths: dict[str, int] = {}
        self._max_tokens = max_tokens

    @property
    def vocabulary_size(self) -> int:
        """Number of tokens, added ones included; more if an added one has a larger id."""
        return max(self._largest + 1, self._tokenizer.get_vocab_size(with_added_tokens=True))

    @property
    def unknown_id(self) -> int | None:
        """The token for anything outside the vocabulary, if there is one."""
        model = json.loads(self._tokenizer.to_str())["model"]
        if "unk_id" in model:  # Unigram
            return None if model["unk_id"] is None else int(model["unk_id"])
        token = model.get("unk_token")
        return None if token is None else self._tokenizer.token_to_id(token)

    def _find_unknown(self) -> int | None:
        """Return the unknown token, without reading the whole vocabulary."""
        try:
            with _caught:
                found = self._tokenizer.model.tokenize(_FOREIGN)
        except _TokenizerError:  # there is none
            return None
        if len(found) != 1 or self._tokenizer.id_to_token(found[0].id) == _FOREIGN:
            return None
        return int(found[0].id)

    def unknown_texts(self, ids: Iterable[Sequence[int]], prefix: str = "") -> int:
        """Count the texts of which no word is in the vocabulary.

        Such a text has unknown tokens and nothing else but marks: special tokens, white space and
        punctuation. Its vector says no more than how many there are.

        Args:
            ids: token ids of each text, prefix included.
            prefix: the prefix of every text.
        """
        unknown = self._unknown
        if unknown is None:
            return 0
        first, count = self._length(prefix), 0
        for text in ids:
            for token in islice(text, first, None):
                if not self._marks[token]:  # of an ordinary text, one token or two are looked at
                    break
            else:
                count += unknown in text[first:]
        return count

    def _length(self, prefix: str) -> int:
        """Return with how many tokens a text begins that has `prefix`."""
        if not prefix:
            return 0
        if prefix not in self._prefix_lengths:
            ids = self.tokenize([prefix.rstrip()]).ids[0]
            while ids and ids[-1] in self._special:
                ids.pop()
            self._prefix_lengths[prefix] = len(ids)
        return self._prefix_lengths[prefix]

    @property
    def special_ids(self) -> frozenset[int]:
        """Ids of the special tokens, and of the unknown one."""
        unknown = set() if self._unknown is None else {self._unknown}
        return frozenset(self._special | unknown)

    def id_of(self, token: str) -> int | None:
        """Return the id of a token of the vocabulary, if there is such a token."""
        found: int | None = self._tokenizer.token_to_id(token)
        return found

    def ordinary_ids(self) -> list[int]:
        """List the ids of tokens that texts consist of: neither special nor unused ones."""
        special = set(self._tokenizer.get_added_tokens_decoder())
        return sorted(
            number
            for token, number in self._tokenizer.get_vocab(with_added_tokens=False).items()
            if number not in special and not token.startswith("[unused")
        )

    def token_id(self, token: str) -> int | None:
        """Return the id of a token as the vocabulary spells it; ``None`` if it is none."""
        found: int | None = self._tokenizer.token_to_id(token)
        return found

    def special_tokens_around(self, text: str) -> tuple[list[int], list[int]]:
        """Return the special tokens that are put before and after `text`.

        Raises:
            InputError: the text cannot be tokenised.
        """
        encoding = self._encoded(text, special_tokens=self._special_tokens)
        ids, mask = encoding.ids, encoding.special_tokens_mask
        if 0 not in mask:
            return ids, []
        start, end = mask.index(0), len(mask) - mask[::-1].index(0)
        return ids[:start], ids[end:]

    def tokenize(self, texts: Sequence[str], first: int = 0) -> TokenizedTexts:
        """Tokenise each of `texts`, in order.

        Args:
            texts: the texts.
            first: position of the first in the input, for errors.

        Raises:
            InputError: one cannot be tokenised; its position is the error's.
        """
        if self._lower_case:
            texts = [text.lower() for text in texts]
        found = TokenizedTexts([], [])
        for run in [texts] if len(texts) == 1 else runs(texts, len, _CHARACTERS_TOGETHER):
            try:
                with _caught:
                    encodings = self._tokenizer.encode_batch_fast(
                        run, add_special_tokens=self._special_tokens
                    )
            except _TokenizerError as error:
                for position, text in enumerate(run, first + len(found.ids)):
                    self._encoded(text, special_tokens=self._special_tokens, position=position)
                raise ModelFileError(f"{self._path} cannot tokenise texts: {error}") from error
            for encoding in encodings:
                if encoding.overflowing:
                    found.truncated.append(len(found.ids))
                found.ids.append(encoding.ids)
        return found

    def tokenize_pairs(
        self, pairs: Sequence[tuple[str, str]], prompt: PairPrompt | None = None, first: int = 0
    ) -> TokenizedPairs:
        """Tokenise pairs of texts as a cross-encoder reads them, in order.

        Of a pair that is too long, tokens are taken from the end of the longer text, until both
        have the same length, and then from both. With a prompt, they are taken from the end of
        what it surrounds.

        Args:
            pairs: the first and the second text of each.
            prompt: what a language model is told around the two texts.
            first: position of the first pair in the input, for errors.

        Raises:
            InputError: one cannot be tokenised; its position is the error's.
        """
        if self._lower_case:
            pairs = [(one.lower(), other.lower()) for one, other in pairs]
        if prompt is not None:
            return self._prompted(pairs, prompt, first)
        found = TokenizedPairs([], [])
        for run in runs(pairs, _pair_length, _CHARACTERS_TOGETHER):
            try:
                with _caught:
                    encodings = self._tokenizer.encode_batch_fast(list(run))
            except _TokenizerError as error:
                for position, pair in enumerate(run, first + len(found.pairs)):
                    for text in pair:
                        self._encoded(text, special_tokens=True, position=position)
                raise ModelFileError(f"{self._path} cannot tokenise pairs: {error}") from error
            for encoding in encodings:
                if encoding.overflowing:
                    found.truncated.append(len(found.pairs))
                types = encoding.type_ids
                own = types.index(1) if 1 in types else len(types)
                found.pairs.append(PairTokens(encoding.ids, own))
        return found

    def _prompted(
        self, pairs: Sequence[tuple[str, str]], prompt: PairPrompt, first: int
    ) -> TokenizedPairs:
        before, after = (
            self._encoded(text, special_tokens=False).ids for text in (prompt.before, prompt.after)
        )
        room = max(0, self._max_tokens - len(before) - len(after))
        found = TokenizedPairs([], [])
        for position, (query, document) in enumerate(pairs, first):
            text = prompt.middle.format(query=query, document=document)
            encoding = self._encoded(text, special_tokens=False, position=position)
            if len(encoding.ids) > room or encoding.overflowing:
                found.truncated.append(position - first)
            ids = [*before, *encoding.ids[:room], *after]
            found.pairs.append(PairTokens(ids, len(ids)))
        return found

    def is_special(self, token: int) -> bool:
        """Return whether a token stands for no text, not even for an unknown word."""
        return token in self._special and token != self._unknown

    def _encoded(
        self, text: str, *, special_tokens: bool, position: int | None = None
    ) -> tokenizers.Encoding:
        """Tokenise one text; Raises `InputError`, which states its `position`."""
        try:
            with _caught:
                return self._tokenizer.encode(text, add_special_tokens=special_tokens)
        except _TokenizerError as error:
            which = "a text" if position is None else f"text number {position}"
            raise InputError(
                f"{which} cannot be tokenised with {self._path} ({error}): {text!r:.80}",
                index=position,
            ) from error

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Find where each token of the whole `text` starts and ends, without special tokens.

        Raises:
            InputError: the text cannot be tokenised.
        """
        read = text.lower() if self._lower_case else text
        whole = self._encoded(read, special_tokens=False)
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


class LateTokens:
    """Makes a model's token ids of those that its tokenizer returns, for one kind of text.

    Args:
        tokenizer: the model's tokenizer.
        spec: the model's facts, with `ModelSpec.late`.
        query: whether the texts are queries; documents otherwise.

    Attributes:
        prefix: put before each text.

    Raises:
        ModelFileError: the tokenizer does not have the mask token.
    """

    def __init__(self, tokenizer: Tokenizer, spec: ModelSpec, *, query: bool) -> None:
        facts = spec.late
        if facts is None:
            raise ModelFileError(f"{spec.name} is not a late-interaction model")
        marker, prefix = facts.document_marker, spec.document_prefix
        self.longest = spec.max_tokens
        if query:
            marker, prefix = facts.query_marker, spec.query_prefix
            self.longest = facts.longest_query or spec.max_tokens
        self._marker = _marker_id(tokenizer, marker)
        # a marker that is no token is read like any other text
        self.prefix = prefix if self._marker is not None else marker + prefix
        self._expansion = facts.expansion if query else None
        self._mask = 0
        if self._expansion is not None:
            mask = tokenizer.token_id(self._expansion.token)
            if mask is None:
                raise ModelFileError(
                    f"queries of {spec.name} are filled up with {self._expansion.token!r}, which "
                    "its tokenizer does not have"
                )
            self._mask = mask
        found = [tokenizer.token_id(word) for word in facts.skipped]
        # all words outside of the vocabulary have the id of the unknown token
        skipped = {token for token in found if token is not None}
        skips = facts.skips_in_queries if query else True
        self._skipped = np.array(sorted(skipped if skips else ()), np.int64)
        _, after = tokenizer.special_tokens_around("a")
        self._after = len(after)

    def marked(self, tokens: TokenizedTexts) -> TokenizedTexts:
        """Return texts as the model reads them, without mask tokens."""
        marks = self._marker is not None
        cut = {*tokens.truncated}
        cut.update(place for place, ids in enumerate(tokens.ids) if len(ids) + marks > self.longest)
        return TokenizedTexts([self.of(ids) for ids in tokens.ids], sorted(cut))

    def of(self, ids: Sequence[int]) -> list[int]:
        """Return the token ids of one text with its marker, cut to the longest length."""
        most = self.longest - (self._marker is not None)
        if len(ids) > most:
            ids = [*ids[: most - self._after], *ids[len(ids) - self._after :]]
        return [*ids] if self._marker is None else [*ids[:1], self._marker, *ids[1:]]

    def inputs(self, ids: NDArray[np.int64]) -> Inputs:
        """Return what the model reads: texts of one length, and the mask tokens of queries."""
        count = ids.shape[1]
        missing = 0 if self._expansion is None else max(0, self._expansion.length - count)
        if self._expansion is None or not missing:
            return Inputs(ids)
        masks = np.full((len(ids), missing), self._mask, np.int64)
        seen = None if self._expansion.attends else count
        return Inputs(np.concatenate([ids, masks], axis=1), seen_tokens=seen)

    def kept(
        self, ids: NDArray[np.int64], vectors: NDArray[np.float32]
    ) -> list[NDArray[np.float32]]:
        """Choose the vectors of each text that count, float32 [tokens, dimension]."""
        keep = ~np.isin(ids, self._skipped)
        return [rows[chosen] for rows, chosen in zip(vectors, keep, strict=True)]


def _marker_id(tokenizer: Tokenizer, marker: str) -> int | None:
    """Find the token that a marker is, with white space around it or without."""
    for form in (marker, marker.strip()) if marker.strip() else ():
        if (token := tokenizer.token_id(form)) is not None:
            return token
    return None
