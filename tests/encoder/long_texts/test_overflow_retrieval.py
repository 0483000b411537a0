"""Real weights: what stands at the end of a long text is found."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from qdrant_embed import QdrantClient, TextEmbedding
from qdrant_embed.encoder.facts.catalog import MINILM
from qdrant_embed.encoder.long_texts.overflow import OverflowOptions
from qdrant_embed.encoder.text import variant

_PLACES = """
Turin Bergen Kyoto Lima Cairo Quebec Perth Oslo Dakar Quito
"""
_TRADES = """
bakeries ferries orchards glassworks observatories printers vineyards tailors quarries theatres
libraries tramways breweries foundries stables markets hospitals shipyards gardens archives
"""
SHORT = [
    f"The {trade} of {place} were number {number} on the list of the committee: old books say "
    f"little of the {trade} in {place}."
    for number, (place, trade) in enumerate(itertools.product(_PLACES.split(), _TRADES.split()))
]
_MATTERS = """
railways volcanoes choirs cheese glaciers taxes chess violins bees cathedrals football diamonds
submarines carpets elections telescopes
"""
# about 5,000 tokens on many matters, as reports and minutes are
REPORT = "\n\n".join(
    " ".join(
        f"{matter.capitalize()} were number {number} on the list of the committee for {matter}. "
        f"Old books on {matter} say little of this, but people who know {matter} well agree."
        for number in range(1, 12)
    )
    for matter in _MATTERS.split()
)
FACTS = [
    (
        "The lighthouse keeper raises arctic foxes in the cellar below the lamp. She feeds them "
        "herring, and every spring she gives the cubs away to zoos.",
        "Which animals does the keeper of the lighthouse raise?",
    ),
    (
        "Penicillin was found because a dish of bacteria was left by an open window over the "
        "holidays, and mould had grown on it that killed them.",
        "How was the first antibiotic discovered?",
    ),
    (
        "For the soup, roast the pumpkin with garlic for forty minutes, then blend it with cream "
        "and a little nutmeg, and serve it with toasted seeds.",
        "recipe for a creamy pumpkin soup",
    ),
]


@pytest.fixture(scope="module")
def mean(minilm: TextEmbedding) -> TextEmbedding:
    return TextEmbedding(MINILM, overflow="mean")


@pytest.mark.slow
def test_a_fact_in_the_last_paragraph_ranks_higher_with_mean_than_cut_off(
    minilm: TextEmbedding, mean: TextEmbedding
) -> None:
    assert minilm._model.load().tokenizer.count(REPORT) > 5_000
    others = np.array(list(minilm.embed(SHORT)))
    for fact, question in FACTS:
        (query,) = minilm.query_embed(question)
        ranks = []
        for encoder in (minilm, mean):
            (vector,) = encoder.passage_embed(f"{REPORT}\n\n{fact}")
            ranks.append(1 + int((others @ query > vector @ query).sum()))
        cut, whole = ranks
        assert whole <= cut - 10


def test_a_fact_in_the_last_paragraph_is_the_first_hit_with_chunks_and_not_cut_off(
    minilm: TextEmbedding,
) -> None:
    client = QdrantClient(":memory:")
    ids = [f"report {number}" for number in range(len(FACTS))]
    texts = [f"{REPORT}\n\n{fact}" for fact, _ in FACTS]
    for overflow in ("truncate", "chunk"):
        client.set_model(variant(minilm, overflow=OverflowOptions(overflow)))
        client.add(overflow, [*SHORT, *texts], ids=[*range(len(SHORT)), *ids])
        answers = client.query_batch(overflow, [question for _, question in FACTS], limit=1)
        found = [hits[0].id for hits in answers]
        if overflow == "truncate":
            assert not set(found) & set(ids)
            continue
        assert found == ids
        for hits, text, (fact, _) in zip(answers, texts, FACTS, strict=True):
            span = hits[0].metadata["qdrant_embed_chunk"]
            assert hits[0].document == text[span["start"] : span["end"]]
            assert fact in hits[0].document
