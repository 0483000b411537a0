"""Waits between tries: doubling, spread, bounded, and what a server asks for, if it makes sense."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qdrant_embed.backoff import Backoff, retry_after_seconds

NOW = datetime(1994, 11, 6, 8, 49, 0, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("tries", "limit"), [(1, 0.25), (2, 0.5), (3, 1), (4, 2), (6, 8), (7, 8), (5000, 8)]
)
def test_waits_double_up_to_the_longest_and_are_spread(tries: int, limit: float) -> None:
    waits = {Backoff(first=0.25, longest=8.0).seconds(tries) for _ in range(200)}
    assert limit / 2 <= min(waits) <= max(waits) <= limit
    assert max(waits) - min(waits) > limit / 4


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0),
        ("17", 17),
        (" 120\t", 120),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 37),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 37),
        ("Sun Nov  6 08:49:37 1994", 37),
        ("Sun, 06 Nov 1994 09:49:37 +0100", 37),
        ("Sun, 06 Nov 1994 08:49:37 -0000", 37),
        ("Sun, 06 Nov 1994 08:48:00 GMT", 0),
    ],
)
def test_seconds_and_dates_are_understood(value: str, seconds: float) -> None:
    assert retry_after_seconds(value, NOW) == seconds


def test_a_date_is_compared_with_the_current_time() -> None:
    date = datetime.now(timezone.utc) + timedelta(seconds=90)
    seconds = retry_after_seconds(date.strftime("%a, %d %b %Y %H:%M:%S GMT"))
    assert seconds is not None
    assert 80 < seconds <= 90


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        " ",
        "soon",
        "-1",
        "+5",
        "1.5",
        "1e3",
        "0x10",
        "²",
        "\u0663",  # a digit to str.isdecimal and to int
        "9" * 400,
        "9" * 5000,
        "nan",
        "inf",
        "Sun, 06 Nov 100000000000000 08:49:37 GMT",
        "Sun, 06 Nov 99999 08:49:37 GMT",
        "Sun, 06 Nov 1994 08:49:37 +9999999999",
        "Sun, 99 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 08:49:37 GMT" + " " * 10_000 + "x",
    ],
)
def test_what_is_neither_is_ignored(value: str | None) -> None:
    assert retry_after_seconds(value, NOW) is None


@given(st.one_of(st.text(), st.from_regex(r"\w{3}, \d+ \w{3} \d+ \d+:\d+:\d+ \S+", fullmatch=True)))
def test_nothing_that_a_server_may_send_raises(value: str) -> None:
    seconds = retry_after_seconds(value, NOW)
    assert seconds is None or 0 <= seconds < 1e12
