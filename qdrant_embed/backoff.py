"""How long to wait before a failed request is tried again, of a model hub and of Qdrant alike.

Exponential backoff with jitter, and the wait that an answer's ``Retry-After`` header asks for.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime

_DELTA_SECONDS = re.compile(r"[0-9]{1,10}")  # ten digits are 300 years
_LONGEST_DATE = 64  # characters; the longest form of RFC 9110 has 33


@dataclass(frozen=True)
class Backoff:
    """Waits that double from `first` to `longest` seconds.

    Attributes:
        first: the longest wait after the first try.
        longest: the longest wait after any try.
    """

    first: float
    longest: float

    def seconds(self, tries: int) -> float:
        """Choose the wait after `tries` tries, from half of its limit up to the limit.

        The wait is random, so that processes that failed together do not come back together.
        """
        limit = min(self.longest, self.first * 2.0 ** min(tries - 1, 64))
        return random.uniform(limit / 2, limit)  # noqa: S311 - spreads requests, protects nothing


def retry_after_seconds(value: str | None, now: datetime | None = None) -> float | None:
    """Parse a ``Retry-After`` header: seconds, or a date (RFC 9110, section 10.2.3).

    Args:
        value: the header's value; ``None`` if the answer has none.
        now: what a date is compared with; the current time by default.

    Returns:
        The seconds to wait, 0 for a date in the past; ``None`` without a value, and for one that
        is in neither form.
    """
    text = (value or "").strip(" \t")
    if _DELTA_SECONDS.fullmatch(text):
        return float(text)
    if not text or len(text) > _LONGEST_DATE:
        return None
    try:
        date = parsedate_to_datetime(text)
        if date.tzinfo is None:  # asctime's form states no zone, and means UTC
            date = date.replace(tzinfo=timezone.utc)
        return max(0.0, (date - (now or datetime.now(timezone.utc))).total_seconds())
    # what a server sends may be anything; the parser raises all of these
    except (ValueError, OverflowError, TypeError, IndexError):
        return None
