"""The page in a real browser: what a user does with it, and what hostile documents do not."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from services.chromium import BINARY, Page, chromium
from services.test_processes import KEY, Running, running

from qdrant_embed import Document, QdrantClient
from qdrant_embed.encoder.facts.catalog import MINILM

pytestmark = pytest.mark.skipif(
    BINARY is None, reason="there is no Chromium: apt-get install chromium"
)

LATE = Path(__file__).parents[1] / "fixtures" / "late" / "stanford"
PICTURES = Path(__file__).parents[1] / "benchmarks" / "charts"  # --pictures makes them anew
MOST_BYTES = 100_000

HANDBOOK = [
    ("Holiday requests go to your lead two weeks ahead, in writing.", "people", 2024, "2024-03-01"),
    (
        "New laptops are ordered through the help desk and arrive within ten days.",
        "it",
        2023,
        "2023-06-12",
    ),
    ("The office is closed between Christmas and New Year.", "office", 2022, "2022-11-30"),
    ("Receipts of business trips are paid back with the next salary.", "money", 2025, "2025-01-15"),
    (
        "A forgotten password is reset by the help desk, by telephone only.",
        "it",
        2025,
        "2025-02-03",
    ),
    (
        "Parental leave can be split in parts and is announced seven weeks ahead.",
        "people",
        2021,
        "2021-09-09",
    ),
    (
        "The server room may be entered by two people together, never by one alone.",
        "it",
        2020,
        "2020-05-20",
    ),
    (
        "Trains are preferred to planes for trips shorter than six hours.",
        "money",
        2024,
        "2024-08-08",
    ),
]
NEEDLE = "Whoever finds water in the server room calls the caretaker at once and cuts the power."
LONG = "\N{GRINNING FACE} " + " ".join(  # a character that JavaScript counts as two
    [
        f"Rule {number}: doors stay closed, and guests sign the book in hall {number}."
        for number in range(20)
    ]
    + [NEEDLE]
    + [
        f"Rule {number}: lights are off at night, and windows are shut on floor {number}."
        for number in range(20)
    ]
)
HOSTILE = (
    "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
    "</textarea></mark><svg onload=document.title='owned'>&lt;b&gt; javascript:alert(1) \u202e"
)


@pytest.fixture(scope="module")
def site(
    minilm: object, reranker: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    """What `qdrant-embed browse` serves: a handbook in chunks, and hostile notes."""
    folder = tmp_path_factory.mktemp("site") / "notes"
    with QdrantClient(path=str(folder)) as client:
        client.set_model(MINILM, overflow="chunk")
        client.set_sparse_model("Qdrant/bm25")
        documents = [
            Document(text, {"topic": topic, "year": year, "published": day, "draft": year > 2024})
            for text, topic, year, day in HANDBOOK
        ]
        client.add(
            "handbook", [*documents, Document(LONG, {"topic": "office", "year": 2019}, "rules")]
        )
        payload: dict[str, Any] = {
            HOSTILE: HOSTILE,
            "__proto__": HOSTILE,
            "constructor": "x",
            "a.b": [1, {"c": HOSTILE}],
        }
        client.add(
            "hostile",
            [HOSTILE, "<b>" * 20_000],
            metadata=[payload, {"topic": HOSTILE}],
            ids=[HOSTILE, 2**63 + 1],
        )
    options = ("--path", folder, "--no-open", "--model", MINILM, "--sparse-model", "Qdrant/bm25")
    models = ("--late-model", LATE, "--reranker", reranker)
    with running("browse", *options, *models) as found:
        for _ in range(600):
            if httpx.get(f"{found.url}/readyz").status_code == 200:
                break
            time.sleep(0.05)
        yield found


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A browser."""
    with chromium(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture
def page(browser: Page, site: Running) -> Iterator[Page]:
    """The handbook's page, which complains of nothing and asks for nothing elsewhere."""
    browser.complaints.clear()
    browser.requested.clear()
    browser.show(width=1200, height=900, dark=False)
    browser.open(f"{site.url}/#collection=handbook")
    browser.wait("document.querySelectorAll('#ways input').length >= 3")
    yield browser
    browser.look("1")  # what it has to say by now is read
    assert browser.complaints == []
    own = (f"{site.url}/", "about:", "data:")  # of the browser's own inputs
    assert [url for url in browser.requested if not url.startswith(own)] == []
    assert browser.look("document.title") == "qdrant-embed"


def search(page: Page, text: str) -> None:
    """Search by keyboard, and wait for the hits."""
    page.look("document.querySelector('#columns').replaceChildren()")
    page.fill("#query", text)
    page.press("Enter")
    page.wait(
        "document.querySelector('.column')"
        " && document.querySelector('#status').innerText.includes('hit')"
    )


def ways(page: Page) -> list[str]:
    found: list[str] = page.look(
        "[...document.querySelectorAll('.column')].map(one => one.dataset.way)"
    )
    return found


def hits(page: Page, way: str = "dense") -> list[str]:
    found: list[str] = page.look(
        f"[...document.querySelectorAll('[data-way={way}] .snippet')].map(one => one.textContent)"
    )
    return found


def test_hits_stand_side_by_side_with_scores_and_times(page: Page) -> None:
    search(page, "I cannot log in any more")
    assert ways(page) == ["dense", "sparse", "hybrid", "reranked"]
    assert "password" in hits(page)[0]
    times = page.look("document.querySelector('[data-way=reranked] .times').textContent")
    assert [part.split()[0] for part in times.split(" · ")] == ["encoded", "searched", "reranked"]
    widths = page.look(
        "[...document.querySelectorAll('[data-way=dense] .bar > span')].map(one => one.offsetWidth)"
    )
    assert widths == sorted(widths, reverse=True)
    assert widths[0] > widths[1] > 0
    assert page.look("location.hash") == "#collection=handbook&query=I+cannot+log+in+any+more"


def test_ways_are_switched_by_keyboard(page: Page) -> None:
    search(page, "laptops")
    for way in ("dense", "hybrid", "reranked"):
        page.look(f"document.querySelector('#ways input[value={way}]').focus()")
        page.press(" ")
    page.wait("document.querySelectorAll('.column').length === 1")
    assert ways(page) == ["sparse"]
    assert len(hits(page, "sparse")) == 1  # the only one with the word
    page.press("/")
    assert page.look("document.activeElement.id") == "query"
    page.press("ArrowDown", "Enter")
    page.wait("document.querySelector('#document').open")
    page.press("Escape")
    page.wait("!document.querySelector('#document').open")
    assert page.look("document.activeElement.className") == "hit"


def test_filters_are_those_of_the_payload(page: Page) -> None:
    names = "[...document.querySelectorAll('#fields .name')].map(one => one.textContent)"
    assert page.look(names) == ["topic", "year", "published", "draft"]
    search(page, "help")
    page.click("#filters summary")
    page.choose("#fields [role=group]:nth-child(1) select", "=it")
    page.wait("document.querySelectorAll('[data-way=dense] .hit').length === 3")
    page.choose("#fields [role=group]:nth-child(2) [data-bound=gte]", "2022")
    page.wait("document.querySelectorAll('[data-way=dense] .hit').length === 2")
    page.choose("#fields [role=group]:nth-child(3) [data-bound=lte]", "2023-06-12")
    page.wait("document.querySelectorAll('[data-way=dense] .hit').length === 1")
    assert "laptops" in hits(page)[0]
    assert page.look("document.querySelector('#filter-count').textContent") == "(3)"
    page.choose("#fields [role=group]:nth-child(4) select", "=true")
    page.wait(
        "document.querySelector('[data-way=dense]').textContent.includes('Nothing was found')"
    )
    page.click("#clear")
    page.wait("document.querySelectorAll('[data-way=dense] .hit').length > 3")


def test_the_chunk_that_matched_is_marked_in_its_document(page: Page) -> None:
    search(page, "water in the server room")
    found = hits(page)
    place = next(rank for rank, text in enumerate(found) if "water" in text)
    page.click(f"[data-way=dense] li:nth-child({place + 1}) .hit")
    page.wait("document.querySelector('#document').open")
    text = page.look("document.querySelector('#document-text').textContent")
    marked = page.look("document.querySelector('mark').textContent")
    assert text == LONG
    assert NEEDLE in marked
    assert marked in text
    assert marked[:500] == found[place][:500]
    assert len(marked) < len(LONG)
    assert "matched" in page.look("document.querySelector('#document-note').textContent")
    assert page.look(
        "(() => { const mark = document.querySelector('mark').getBoundingClientRect();"
        "const box = document.querySelector('#document-text').getBoundingClientRect();"
        "return mark.bottom > box.top && mark.top < box.bottom; })()"
    )
    page.press("Escape")


def test_a_text_is_added_and_found(page: Page) -> None:
    page.click("#open-add")
    page.fill("#add-collection", "new")
    page.fill("#text", "Penguins sleep standing up.")
    page.fill("#metadata", '{"animal": "penguin", "large": 9007199254740993}')
    page.click("#add-text button")
    page.wait("document.querySelector('#added').textContent.startsWith('Added')")
    page.press("Escape")
    assert page.look("document.querySelector('#collection').value") == "new"
    search(page, "birds at night")
    assert ways(page) == ["dense", "sparse", "hybrid", "late", "reranked"]
    assert hits(page) == hits(page, "late") == ["Penguins sleep standing up."]
    facts = page.look("document.querySelector('.facts').textContent")
    assert facts.endswith("animal: penguin · large: 9007199254740993")
    card = page.look("document.querySelector('#collection-list').textContent")
    assert MINILM in card
    assert "Qdrant/bm25" in card


def test_files_are_added_and_what_is_wrong_with_them_is_told(page: Page, tmp_path: Path) -> None:
    good, bad = tmp_path / "birds.csv", tmp_path / "bad.jsonl"
    good.write_text("body,legs\nAn owl hunts by night.,2\nA duck swims.,2\n")
    bad.write_text('{"text": "fine"}\n{"text": ')
    page.click("#open-add")
    page.fill("#add-collection", "birds")
    page.fill("#text-field", "body")
    page.give_file("#file", good)
    page.click("#add-file button")
    page.wait(
        "document.querySelector('#added').textContent === '2 documents of birds.csv are stored.'"
    )
    page.give_file("#file", bad)
    page.fill("#text-field", "text")
    page.click("#add-file button")
    said = page.wait("document.querySelector('#not-added').textContent")
    assert "bad.jsonl, line 2" in said
    page.press("Escape")
    search(page, "an owl")
    assert hits(page)[0] == "An owl hunts by night."


def test_nothing_of_a_document_is_executed(page: Page, site: Running) -> None:
    page.choose("#collection", "hostile")
    page.wait("[...document.querySelectorAll('#fields .name')].length > 0")
    search(page, "b")
    assert HOSTILE in [text for way in ways(page) for text in hits(page, way)]
    place = hits(page).index(HOSTILE)
    page.click(f"[data-way=dense] li:nth-child({place + 1}) .hit")
    page.wait("document.querySelector('#document').open")
    assert page.look("document.querySelector('#document-text').textContent") == HOSTILE
    assert page.look("document.querySelector('#document-title').textContent") in (
        HOSTILE,
        HOSTILE[:200] + "…",
    )
    page.press("Escape")
    for selector in (
        "img",
        "svg",
        "b",
        "script:not([src])",
        "style",
        "iframe",
        "[onerror]",
        "[onload]",
    ):
        assert page.look(f"document.querySelectorAll({json.dumps(selector)}).length") == 0, selector
    assert page.look("({}).polluted === undefined && !Object.hasOwn(Object.prototype, '0')")
    (large,) = page.look(
        "[...document.querySelectorAll('[data-way=dense] .facts')].map(one => one.textContent)"
        ".filter(text => text.startsWith('9223372036854775809'))"
    )
    assert large
    names = page.look("[...document.querySelectorAll('#fields .name')].map(one => one.textContent)")
    page.click("#filters summary")
    place = names.index("__proto__") + 1  # a filter on it is a filter, and no prototype
    page.look(
        f"document.querySelector('#fields [role=group]:nth-child({place}) :is(select, input)')"
        ".id = 'proto'"
    )
    page.choose("#proto", page.look("document.querySelector('#proto').options?.[1].value ?? 'x'"))
    page.wait("document.querySelector('#filter-count').textContent === '(1)'")
    page.wait("document.querySelectorAll('[data-way=dense] .hit').length === 1")


def test_the_policy_stops_what_the_page_does_not_do(browser: Page, site: Running) -> None:
    browser.open(f"{site.url}/")
    browser.wait("!!document.querySelector('#query')")
    browser.look(
        "(() => { try { document.body.innerHTML = '<img src=x onerror=document.title=1>' }"
        "catch (error) { document.body.dataset.caught = error.name } })()"
    )
    assert browser.look("document.body.dataset.caught") == "TypeError"
    browser.look(
        "(() => { const made = document.createElement('style');"
        "made.textContent = 'body{display:none}'; document.head.append(made) })()"
    )
    assert browser.look("getComputedStyle(document.body).display") == "block"
    assert (
        browser.look("fetch('https://example.org/').then(() => 'sent', () => 'stopped')")
        == "stopped"
    )


def test_a_service_with_a_key_asks_for_it(browser: Page, tiny_name: str) -> None:
    with running("serve", "--model", tiny_name, env={"QDRANT_EMBED_API_KEY": KEY}) as found:
        browser.open(f"{found.url}/")
        browser.wait("document.querySelector('#key-needed')?.open")
        browser.fill("#key", "wrong")
        browser.press("Enter")
        browser.wait(
            "document.querySelector('#key-needed').open && !document.querySelector('#key').value"
        )
        browser.fill("#key", KEY)
        browser.press("Enter")
        browser.wait("!document.querySelector('#key-needed').open")
        said = browser.wait("document.querySelector('#problem').textContent")
        assert "no database" in said
        assert KEY not in browser.look("location.href + document.cookie + document.body.innerHTML")


ACCESSIBLE = Path(__file__).with_name("accessible.js").read_text("utf-8")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1200, 360])
def test_everybody_can_read_and_use_it(page: Page, dark: bool, width: int) -> None:
    page.show(width=width, height=800, dark=dark)
    search(page, "water in the server room")
    page.click("#filters summary")
    assert page.look(ACCESSIBLE) == []
    page.click("#open-add")
    assert page.look(ACCESSIBLE) == []
    page.press("Escape")
    page.click("[data-way=dense] .hit")
    page.wait("document.querySelector('#document').open")
    assert page.look(ACCESSIBLE) == []
    page.press("Escape")


@pytest.mark.parametrize(
    ("name", "dark", "size"),
    [
        ("page-light", False, (1000, 700)),
        ("page-dark", True, (1000, 700)),
        ("page-phone", True, (390, 844)),
    ],
)
def test_pictures_for_readers(
    page: Page,
    site: Running,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    name: str,
    dark: bool,
    size: tuple[int, int],
) -> None:
    page.show(width=size[0], height=size[1], dark=dark)
    page.look("document.querySelector('#ways input[value=reranked]').click()")  # a random one
    search(page, "water in the server room")
    if name == "page-dark":
        page.click("[data-way=hybrid] .hit")
        page.wait("document.querySelector('#document').open")
    page.look("document.activeElement.blur()")
    folder = PICTURES if request.config.getoption("pictures") else tmp_path
    folder.mkdir(exist_ok=True)
    picture = page.picture()
    (folder / f"{name}.png").write_bytes(picture)
    assert len(picture) < MOST_BYTES
    page.open(f"{site.url}/")
    page.wait("document.title === 'qdrant-embed'")
