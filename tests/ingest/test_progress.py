"""What is told of an `add` and a migration on their way, and of texts that are cut."""

from __future__ import annotations

import dataclasses
import io
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from clients import LetterEncoder
from tiny import TinyModel

from qdrant_embed import IngestError, IngestProgress, InputError, QdrantClient, TextEmbedding

TEXTS = [f"cat {n}" for n in range(1100)]
LONG = "cat " * 100  # the tiny model reads 64 tokens


class Terminal(io.StringIO):
    """A stderr that people look at."""

    def isatty(self) -> bool:
        return True


@contextmanager
def terminal() -> Iterator[Terminal]:
    """Stderr is one while the block runs."""
    with pytest.MonkeyPatch.context() as patch:
        looked_at = Terminal()
        patch.setattr(sys, "stderr", looked_at)
        yield looked_at


def token_count(tiny: TinyModel, texts: list[str]) -> int:
    tokenizer = TextEmbedding(tiny.path)._model.load().tokenizer
    return sum(map(len, tokenizer.tokenize(texts).ids))


def test_a_function_is_told_from_the_start_to_the_end(
    client: QdrantClient, tiny: TinyModel
) -> None:
    told: list[IngestProgress] = []
    texts = [*TEXTS, LONG, LONG]
    client.add("demo", texts, ids="content", batch_size=500, progress=told.append)
    assert [report.documents for report in told] == [0, 500, 1000, 1024, 1024, 1102, 1102]
    assert {report.total for report in told} == {1102}
    last = told[-1]
    assert (last.unchanged, last.truncated) == (0, 1)
    assert last.tokens == token_count(tiny, texts) - token_count(tiny, [LONG])  # it is stored once
    assert [report.seconds for report in told] == sorted(report.seconds for report in told)
    assert last.tokens_per_second == pytest.approx(last.tokens / last.seconds)
    assert last.seconds_left == 0
    assert told[0].seconds_left is None
    half = dataclasses.replace(last, documents=551, seconds=10.0)
    assert half.seconds_left == pytest.approx(10)

    told.clear()
    client.add("demo", iter(texts), ids="content", on_existing="skip", progress=told.append)
    last = told[-1]
    assert (last.documents, last.total, last.unchanged) == (1102, None, 1101)
    assert (last.tokens, last.truncated, last.seconds_left) == (0, 0, None)


@pytest.mark.parametrize("overflow", ["mean", "error"])
def test_texts_that_are_not_cut_are_counted_too(
    client: QdrantClient, tiny: TinyModel, overflow: Any, caplog: pytest.LogCaptureFixture
) -> None:
    client.set_model(tiny.path, overflow=overflow)
    told: list[IngestProgress] = []
    client.add("demo", [LONG if overflow == "mean" else "cat"] * 2, progress=told.append)
    assert told[-1].truncated == 0
    # 100 tokens in windows of 64, each with two special tokens
    assert told[-1].tokens == (2 * (100 + 2 * 2) if overflow == "mean" else 2 * 3)
    assert not caplog.records


def test_documents_are_counted_not_their_chunks(client: QdrantClient, tiny: TinyModel) -> None:
    client.set_model(tiny.path, overflow="chunk")
    told: list[IngestProgress] = []
    texts = ["cat", LONG, "dog", f"{LONG} dog"]  # 1, 2, 1 and 2 points
    client.add("demo", texts, ids="content", batch_size=1, progress=told.append)
    assert [report.documents for report in told] == [0, 1, 1, 2, 3, 3, 4, 4]
    assert (told[-1].total, told[-1].unchanged, told[-1].truncated) == (4, 0, 0)
    texts[3] = f"{LONG} ship"
    client.add("demo", texts, ids="content", on_existing="skip", progress=told.append)
    assert (told[-1].documents, told[-1].unchanged) == (4, 3)
    assert told[-1].tokens == 101 + 2 * 2


def test_an_encoder_of_ones_own_has_no_tokens(client: QdrantClient) -> None:
    client.set_model(LetterEncoder())
    told: list[IngestProgress] = []
    client.add("demo", ["cat"], progress=told.append)
    last = told[-1]
    assert (last.documents, last.tokens, last.truncated) == (1, None, None)
    assert last.tokens_per_second is None


def test_adds_at_once_do_not_mix_their_counts(
    tiny: TinyModel, caplog: pytest.LogCaptureFixture
) -> None:
    client = QdrantClient(":memory:")
    client.set_model(tiny.path)

    def add(number: int) -> IngestProgress:
        told: list[IngestProgress] = []
        texts = ["cat"] * 300 + [LONG] * number
        client.add(f"demo{number}", texts, progress=told.append)
        return told[-1]

    with ThreadPoolExecutor(4) as pool:
        last = list(pool.map(add, range(4)))
    assert [report.truncated for report in last] == [0, 1, 2, 3]
    assert [report.tokens for report in last] == [900 + 64 * number for number in range(4)]
    # one warning for each `add` that cut anything
    warned = sorted(record.message for record in caplog.records)
    assert len(warned) == 3
    for number, message in enumerate(warned, 1):
        assert f"{number} of those added to 'demo{number}'" in message


def test_every_add_warns_of_its_own_texts(
    client: QdrantClient, caplog: pytest.LogCaptureFixture
) -> None:
    for count in (2, 1):
        caplog.clear()
        client.add("demo", [LONG] * count)
        (record,) = caplog.records
        assert f"{count} of those added to 'demo'" in record.message


def test_what_a_function_raises_ends_the_add(client: QdrantClient) -> None:
    def full(progress: IngestProgress) -> None:
        if progress.documents == 64:
            raise LookupError("enough")

    with pytest.raises(IngestError, match=r"64 documents are stored .*enough") as caught:
        client.add("demo", TEXTS, progress=full)
    assert isinstance(caught.value.__cause__, LookupError)
    assert client.count("demo").count == 64


async def _coroutine(progress: IngestProgress) -> None: ...


@pytest.mark.parametrize("wrong", ["yes", 1, _coroutine])
def test_what_is_no_function_is_refused(client: QdrantClient, wrong: Any) -> None:
    with pytest.raises(InputError, match="progress must be True, False or a function"):
        client.add("demo", ["cat"], progress=wrong)
    assert not client.collection_exists("demo")


def test_a_bar_is_shown_to_people(client: QdrantClient) -> None:
    with terminal() as shown:
        client.add("demo", [*TEXTS, LONG])
    assert "into demo:   0%|" in shown.getvalue()
    assert "0/1101" in shown.getvalue()
    with terminal() as shown:
        client.add("demo", ["cat"], progress=False)
        client.add("demo", ["cat"], progress=lambda _: None)
    assert not shown.getvalue()


def test_without_a_terminal_only_who_asks_is_shown_a_bar(
    client: QdrantClient, capsys: pytest.CaptureFixture[str]
) -> None:
    client.add("demo", ["cat", LONG])
    assert capsys.readouterr().err == ""
    client.add("demo", ["cat", LONG], progress=True)
    last = capsys.readouterr().err.splitlines()[-1]  # it stays there
    assert "2/2" in last
    assert "tokens/s, 1 texts truncated]" in last
    client.add("demo", iter(["cat"]), progress=True)  # nobody knows how many
    assert "1 documents [" in capsys.readouterr().err.splitlines()[-1]


def test_a_migration_tells_as_well(
    client: QdrantClient, tiny_e5: TinyModel, caplog: pytest.LogCaptureFixture
) -> None:
    client.add("old", [*TEXTS[:29], LONG], ids=range(30), progress=False)
    caplog.clear()
    told: list[IngestProgress] = []
    client.migrate_model("old", tiny_e5.path, "new", batch_size=20, progress=told.append)
    assert [(report.documents, report.total) for report in told] == [(0, 30), (20, 30), (30, 30)]
    assert told[-1].truncated == 1
    assert told[-1].tokens is not None
    assert told[-1].tokens > 30
    (record,) = caplog.records
    assert "1 of those added to 'new'" in record.message
    client.add("old", ["dog"], ids=[3], progress=False)
    client.migrate_model("old", tiny_e5.path, "new", batch_size=20, progress=told.append)
    assert told[-1].unchanged == 29
