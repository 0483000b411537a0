"""What is printed for people: nothing in it steers their terminal, and no password is shown."""

from __future__ import annotations

import re

# characters that move the cursor, colour, ring, set a title, end a line or turn the direction of
# writing: C0, DEL, C1, separators of lines and paragraphs, bidirectional controls, tags, and halves
# of characters, which no terminal has. Joiners stay, because letters and emoji are made with them
_STEERING = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff"
    "\U000e0000-\U000e007f]"
)
_CREDENTIALS = re.compile(r"\b([a-zA-Z][a-zA-Z0-9+.-]*://)[^\s/?#]*@")


def escaped(text: str, *, lines: bool = False) -> str:
    r"""Return `text` with escapes like ``\x1b`` in place of what would steer a terminal.

    Args:
        text: anything, from anywhere.
        lines: keep line ends.
    """
    return _STEERING.sub(
        lambda found: (
            "\n" if lines and found[0] == "\n" else found[0].encode("unicode_escape").decode()
        ),
        text,
    )


def without_credentials(text: str) -> str:
    """Return `text` with no user and password in any URL."""
    return _CREDENTIALS.sub(r"\1", text) if "@" in text else text


def message(text: str) -> str:
    """Return a message of one or more lines as it is printed."""
    return escaped(without_credentials(text), lines=True)
