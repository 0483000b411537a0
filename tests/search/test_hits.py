"""Hits show themselves as tables, and are lists in every other respect."""

from __future__ import annotations

import copy
import json
import pickle
import re
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from qdrant_embed import QdrantClient, QueryResponse
from qdrant_embed.search.groups import GroupResponse
from qdrant_embed.search.hits import Groups, Hits

HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "' onmouseover='alert(1)",
    "</td></tr></table><h1>",
    "&lt;b&gt;",
    "javascript:alert(1)",
    "\x1b]0;title\x07\x1b[31m",
    "\u202eevil\u2066",
    "a\ud800b",
    "\x00",
    "```\n# heading",
]


def hit(
    text: str, score: float = 0.5, metadata: dict[str, Any] | None = None, id: str | int = 1
) -> QueryResponse:
    return QueryResponse(
        id=id, document=text, score=score, metadata={"document": text, **(metadata or {})}
    )


class Seen(HTMLParser):
    """The tags, attributes and text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def check_page(hits: Hits[QueryResponse]) -> Seen:
    page = hits._repr_html_()
    page.encode()
    seen = Seen(page)
    assert set(seen.tags) <= {
        *("table", "thead", "tbody", "tr", "th", "td", "div", "span", "br", "p"),
    }
    assert seen.tags.count("tr") == (1 + min(len(hits), 100) if hits else 0)
    assert seen.attributes <= {"style"}
    assert not seen.open
    assert not re.search("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", page)
    return seen


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_payload_is_shown_as_text(text: str) -> None:
    hits = Hits([hit(text, metadata={text: text, "list": [text], "dict": {text: text}}, id=text)])
    seen = check_page(hits)
    if text.isprintable():
        assert seen.text.count(text) >= 2
    printed = str(hits)
    assert "\n" not in printed
    assert "\x1b" not in printed
    assert "\u202e" not in printed
    printed.encode()


@example([hit("", 1.0), hit("", -0.0)])
@example([hit("", 1.7e308), hit("", -1.7e308)])
@example([hit("", 5e-324), hit("", -5e-324)])
@given(
    st.lists(
        st.builds(
            hit,
            st.text(),
            st.floats(),
            st.dictionaries(st.text(), st.recursive(st.none() | st.floats() | st.text(), st.lists)),
            st.text() | st.integers(0),
        )
    )
)
def test_any_hits_are_a_table_without_anything_else(found: list[QueryResponse]) -> None:
    hits = Hits(found)
    check_page(hits)
    assert len(str(hits).splitlines()) == max(1, len(hits))
    shares = re.findall(r"width:(\d+)%", hits._repr_html_())
    assert len(shares) == min(len(hits), 100)
    assert all(0 <= int(share) <= 100 for share in shares)


def test_a_line_has_a_bar_a_score_an_id_and_as_much_text_as_fits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "48")
    hits = Hits(
        [
            hit("Bees tell\nother bees where to find flowers", 0.8, id="bees"),
            hit("蜜蜂通过跳舞告诉其他蜜蜂哪里有花朵和花蜜可以采集", 0.4, id=7),
            hit("", 0),
        ]
    )
    assert str(hits).splitlines() == [
        "########## 0.800  bees  Bees tell other bees...",
        "#####..... 0.400  7     蜜蜂通过跳舞告诉其他...",
        ".......... 0.000  1",
    ]


def test_bars_of_logits_begin_at_the_lowest_score() -> None:
    printed = str(Hits([hit("a", 6.0), hit("b", 0.0), hit("c", -6.0), hit("d", float("nan"))]))
    assert [line.partition(" ")[0].count("#") for line in printed.splitlines()] == [10, 5, 0, 0]


def test_many_hits_and_long_values_are_shortened() -> None:
    metadata = {f"key{number}": "x" * 10_000 for number in range(40)}
    hits = Hits([hit("word " * 10_000, metadata=metadata) for _ in range(150)])
    assert len(hits._repr_html_()) < 1_000_000
    assert "28 more keys" in hits._repr_html_()
    assert hits._repr_html_().endswith("<p>... and 50 more</p>")
    assert str(hits).endswith("\n... and 50 more")


def test_no_hits_are_said_to_be_none() -> None:
    assert str(Hits()) == "no hits"
    assert Hits()._repr_html_() == "<p>no hits</p>"
    assert repr(Hits()) == "[]"


def test_hits_are_a_list() -> None:
    plain = [hit("a", 0.9), hit("b", 0.3)]
    hits = Hits(plain)
    assert hits == plain
    assert plain == hits
    assert repr(hits) == repr(plain)
    assert [*hits] == plain
    assert hits[-1] is plain[1]
    assert json.dumps([one.document for one in hits]) == '["a", "b"]'
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        again = pickle.loads(pickle.dumps(hits, protocol))
        assert again == plain
        assert type(again) is Hits
    assert type(copy.deepcopy(hits)) is Hits
    assert type(hits[:1]) is Hits
    assert hits[:1] == plain[:1]


def test_ipython_prints_the_same_as_a_terminal() -> None:
    class Printer:
        text = ""

        def __init__(self) -> None:
            self.printed: list[str] = []
            self.text = self.printed.append  # type: ignore[assignment]

    printer, hits = Printer(), Hits([hit("a")])
    hits._repr_pretty_(printer, False)
    assert printer.printed == [str(hits)]


@pytest.mark.parametrize("reranked", [False, True])
def test_a_query_and_each_query_of_a_batch_return_hits(
    client: QdrantClient, reranked: bool
) -> None:
    class Longest:
        def rerank(self, query: str, documents: Any) -> list[int]:
            return [len(document) for document in documents]

    reranker = Longest() if reranked else None
    client.add("demo", ["a ship", "a ship at sea", "bread"], ids=[1, 2, 3])
    hits = client.query("demo", "a ship", limit=2, reranker=reranker)
    batch = client.query_batch("demo", ["a ship", "bread"], limit=2, reranker=reranker)
    assert [type(found) for found in (hits, *batch)] == [Hits] * 3
    assert str(hits).count("\n") == 1
    assert "a ship at sea" in str(hits)
    assert [one.id for one in hits] == [one.id for one in batch[0]]
    assert all(type(one) is QueryResponse for one in hits)


@pytest.mark.parametrize("text", HOSTILE)
def test_groups_show_their_hits_under_their_values(text: str) -> None:
    hits = [hit(text, 0.9, id=text), hit("b", 0.3)]
    plain = [GroupResponse(value=text, hits=hits), GroupResponse(value=7, hits=hits[1:])]
    groups = Groups(plain)
    assert groups == plain
    assert repr(groups) == repr(plain)
    assert type(groups[:1]) is type(copy.deepcopy(groups)) is Groups
    assert pickle.loads(pickle.dumps(groups)) == plain
    assert type(pickle.loads(pickle.dumps(groups))[0].hits) is Hits
    assert groups[1].model_dump() == {"value": 7, "hits": [hits[1].model_dump()]}
    seen = Seen(groups._repr_html_())
    assert seen.tags.count("table") == 2
    assert set(seen.tags) <= {"table", "thead", "tbody", "tr", "th", "td", "div", "span", "br", "p"}
    assert seen.attributes <= {"style"}
    assert not seen.open
    if text.isprintable():
        assert text in seen.text
    printed = str(groups)
    assert printed.count("\n") == 4
    assert "\x1b" not in printed
    assert "\u202e" not in printed
    for no in (Groups[GroupResponse](), groups[:0]):
        assert (str(no), no._repr_html_()) == ("no groups", "<p>no groups</p>")
    assert str(Groups(plain * 60)).endswith("... and 20 more groups")


def test_query_groups_returns_groups_of_hits(client: QdrantClient) -> None:
    metadata = [{"kind": kind} for kind in ("ship", "ship", "bread")]
    client.add("demo", ["a ship", "a ship at sea", "bread"], metadata=metadata, ids=[1, 2, 3])
    groups = client.query_groups("demo", "a ship", group_by="kind")
    assert type(groups) is Groups
    assert [type(group.hits) for group in groups] == [Hits, Hits]
    assert str(groups).startswith("ship\n####")
