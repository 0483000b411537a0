"""Long texts in windows: nothing is lost, nothing is too long, nothing is torn."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tiny import tiny_tokenizer
from tokenizers import decoders, models, pre_tokenizers

from qdrant_embed.encoder.long_texts.splitting import Span, split
from qdrant_embed.encoder.run.tokenizer import Tokenizer

FAMILY = "👨‍👩‍👧"
MANY = (
    "héllo wörld. 日本語のテキスト。 สวัสดีครับทำ e\u0301 한국어 ᄒ\u1161ᆫ 🇫🇷🇩🇪 👍🏽 İstanbul\r\n\n"
    + FAMILY
)
TEXTS = st.lists(
    st.one_of(
        st.sampled_from([*MANY, *MANY.split(), " ", "\n\n", ". ", "cat", FAMILY, "\0", "\u0301"]),
        st.text(max_size=8),
    ),
    max_size=120,
).map("".join)


def byte_level() -> tokenizers.Tokenizer:
    """Every byte a token, as byte-level BPE has them for scripts it hardly knows."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = tokenizers.Tokenizer(
        models.BPE(vocab={letter: i for i, letter in enumerate(alphabet)}, merges=[])
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return tokenizer


def pieces() -> tokenizers.Tokenizer:
    """SentencePiece's way: white space is a part of the tokens."""
    vocabulary = [("<unk>", 0.0), ("▁", -2.0), ("▁cat", -1.0), ("日本", -1.0)]
    vocabulary += [(letter, -3.0) for letter in sorted(set(MANY) - set("▁ \r\n"))]
    tokenizer = tokenizers.Tokenizer(models.Unigram(vocabulary, unk_id=0, byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer


KINDS: dict[str, tuple[Callable[[], tokenizers.Tokenizer], bool]] = {
    "WordPiece": (tiny_tokenizer, False),
    "WordPiece, lower-cased": (tiny_tokenizer, True),
    "bytes": (byte_level, False),
    "Unigram": (pieces, False),
}
RECORDED = Path(__file__).parents[2] / "fixtures" / "splitting.json"
MADE: dict[str, Tokenizer] = {}
MAX_TOKENS = 64  # a family of emoji is 18 bytes


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Tokenizer:
    make, lower_case = KINDS[request.param]
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    make().save(str(path))
    made = MADE[request.param] = Tokenizer(path, MAX_TOKENS, lower_case=lower_case)
    return made


def windows(tokenizer: Tokenizer, text: str, prefix: str = "", overlap: int = 0) -> list[Span]:
    room = MAX_TOKENS - tokenizer.count(prefix)

    def fits(part: str) -> bool:
        return tokenizer.count(prefix + part) <= MAX_TOKENS

    return list(split(text, tokenizer.spans(text), room, fits, overlap))


def check(tokenizer: Tokenizer, text: str, prefix: str, overlap: int) -> list[Span]:
    """The windows of `text`, after everything is checked that must hold for any."""
    found = windows(tokenizer, text, prefix, overlap)
    reached = 0
    for span in found:
        part = text[span.start : span.end]
        assert part == part.strip() != ""
        assert not text[reached : span.start].strip()  # nothing but white space in between
        assert span.end > reached  # and always on
        assert overlap or span.start >= reached
        assert tokenizer.count(prefix + part) <= MAX_TOKENS
        assert not tokenizer.tokenize([prefix + part]).truncated
        reached = span.end
    assert not text[reached:].strip()
    return found


@settings(max_examples=40, deadline=None)
@given(text=TEXTS, prefix=st.sampled_from(["", "passage: ", "日本"]), overlap=st.integers(0, 20))
@example(MANY * 30, "", 0)
@example(MANY * 30, "passage: ", 12)
@example("e" + "\u0301" * 300, "", 4)
@example("İ" * 200 + " cat", "", 3)
@example(" \n" * 500, "", 0)
@example("x" * 400, "", 0)
def test_windows_hold_the_whole_text_and_fit(
    tokenizer: Tokenizer, text: str, prefix: str, overlap: int
) -> None:
    check(tokenizer, text, prefix, overlap)


@pytest.mark.parametrize(
    "character", [FAMILY, "🇫🇷", "👍🏽", "e\u0301", "ᄒ\u1161ᆫ", "한", "日", "ทำ", "❤\ufe0f"]
)
def test_what_is_seen_as_one_character_is_never_torn(tokenizer: Tokenizer, character: str) -> None:
    text = character * 150
    for span in check(tokenizer, text, "", 0):
        assert span.start % len(character) == 0
        assert span.end % len(character) == 0


def test_sentences_stay_whole_where_they_end_near() -> None:
    text = "one two three. " * 8
    tokens = [(i, i + 1) for i in range(len(text))]  # every letter a token: room for 3.3 sentences
    parts = [text[s.start : s.end] for s in split(text, tokens, 50, lambda part: len(part) <= 50)]
    assert parts == ["one two three. one two three. one two three."] * 2 + [
        "one two three. one two three."
    ]


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("aaa bbb ccc ddd eee", "aaa bbb"),  # words
        ("aa. bbb ccc ddd eee", "aa. bbb"),  # a sentence's end that is too far back
        ("aaa b.) cc ddd eee", "aaa b.)"),  # brackets and quotes belong to their sentence
        ("aaaa bb\n\nc d eeeee", "aaaa bb"),  # paragraphs
        ("aaaa b。ccccccccc", "aaaa b。"),  # no space after a sentence
        ("aaaaaaaaaaaaaaaaaa", "aaaaaaaaa"),  # nowhere to stop
        ("version 1.5 is it", "version"),  # a point inside a number ends nothing
    ],
)
def test_where_a_window_ends(text: str, first: str) -> None:
    tokens = [(i, i + 1) for i in range(len(text))]
    span = next(split(text, tokens, 9, lambda part: len(part) <= 9))
    assert text[span.start : span.end] == first


def test_windows_overlap_by_whole_words() -> None:
    text = "aa bb cc dd ee ff gg hh ii"
    tokens = [(i, i + 1) for i in range(len(text))]
    parts = [
        text[s.start : s.end] for s in split(text, tokens, 12, lambda part: len(part) <= 12, 5)
    ]
    assert parts == ["aa bb cc dd", "dd ee ff gg", "ff gg hh ii"]


def test_ordinary_texts_are_split_where_they_always_were(tokenizer: Tokenizer) -> None:
    recorded = json.loads(RECORDED.read_text())
    kind = next(kind for kind, made in MADE.items() if made is tokenizer)
    for text, expected in zip(recorded["texts"], recorded["windows"][kind], strict=True):
        for overlap, spans in zip((0, 12), expected, strict=True):
            found = [[span.start, span.end] for span in windows(tokenizer, text, "", overlap)]
            assert found == spans, (text, overlap)


class CountingText(str):
    """A text that counts the characters that are read of it."""

    read: int

    def __new__(cls, content: str) -> CountingText:
        self = super().__new__(cls, content)
        self.read = 0
        return self

    def __getitem__(self, at: Any) -> str:
        found = super().__getitem__(at)
        self.read += len(found)
        return found

    def count(self, *arguments: Any) -> int:
        _, start, end = arguments
        self.read += end - start
        return super().count(*arguments)


ALIKE = {
    "quotes": '"',
    "brackets": ")]",
    "dots": ".",
    "ideographic full stops": "。",
    "spaces": " ",
    "empty lines": "\n",
    "Windows lines": "\r\n",
    "letters": "a",
    "flags": "🇫",
    "accents": "\u0301",
    "joiners": "\u200d",
    "colours of skin": "🏽",
    "Korean vowels": "\u1161",
    "Thai vowel signs": "\u0e33",
    "words": "a ",
    "closed sentences": '." ',
    "families": FAMILY,
}


def long_texts(size: int) -> Iterator[tuple[str, str]]:
    """A long run of each of `ALIKE`, several runs in a row, and any of them mixed."""
    choose = random.Random(0)
    for name, unit in ALIKE.items():
        yield name, ("a." + unit * size)[:size]
    units = list(ALIKE.values())
    runs = "".join(choose.choice(units) * choose.randint(1, size // 8) for _ in range(30))
    yield "runs", runs[:size]
    yield "mixture", "".join(choose.choices(units, k=size))[:size]


@pytest.mark.parametrize("overlap", [0, 16])
@pytest.mark.parametrize("name", [name for name, _ in long_texts(100)])
def test_the_work_grows_with_the_length_and_not_with_its_square(name: str, overlap: int) -> None:
    work = []
    for size in (2_000, 16_000):
        text = CountingText(dict(long_texts(size))[name])
        tokenized = 0

        def fits(part: str) -> bool:
            nonlocal tokenized
            tokenized += len(part)
            return len(part) <= 50

        tokens = [(i, i + 1) for i in range(size)]
        spans = list(split(text, tokens, 50, fits, overlap))
        assert all(span.end - span.start <= 50 for span in spans)
        work.append((text.read + tokenized) / size)
    assert work[1] <= 2 * work[0] + 10
    assert work[1] < 60


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, _ in long_texts(100)])
def test_a_real_tokenizer_needs_a_few_times_what_reading_the_text_takes(
    tokenizer: Tokenizer, name: str
) -> None:
    text = dict(long_texts(100_000))[name]
    started = time.perf_counter()
    for _ in range(3):
        tokenizer.spans(text)
    reading = time.perf_counter() - started
    windows(tokenizer, text)
    assert time.perf_counter() - started < 30 * reading + 1
