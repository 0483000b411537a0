"""Answers of a hostile hub: to a request about a repository, and for its files."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from hub_server import Fault

API, FILES = "/api/models/", "/resolve/"
DIGITS = "9" * 5000


def answered(change: Callable[[dict[str, Any]], object]) -> Fault:
    """Change the hub's description of the repository."""

    def body(content: bytes) -> bytes:
        found = json.loads(content)
        change(found)
        return json.dumps(found).encode()

    return Fault(API, body=body)


def said(content: bytes) -> Fault:
    """Say something else."""
    return Fault(API, body=lambda _: content)


def with_headers(where: str, status: int | None = None, **headers: str) -> Fault:
    """Add headers."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Fault(where, status=status, headers=dict(named))


def _siblings(**values: object) -> Fault:
    return answered(lambda found: [file.update(values) for file in found["siblings"]])


def _path(path: str) -> Fault:
    return answered(lambda found: found["siblings"].append({"rfilename": path, "size": 3}))


def _renamed(path: str) -> Fault:
    """Call the weights by another path, so that they are fetched from there."""
    return answered(
        lambda found: [
            file.update(rfilename=path + "model.safetensors")
            for file in found["siblings"]
            if file["rfilename"] == "model.safetensors"
        ]
    )


def faults() -> Mapping[str, Fault]:
    """Return every fault by name."""
    waits = {
        "a superscript": "\u00b2",
        "year 10^14": "Fri, 01 Jan 100000000000000 00:00:00 GMT",
        "400 digits": "9" * 400,
        "negative": "-1",
        "a fraction": "1e400",
        "words": "soon",
        "nan": "nan",
        "a date of no month": "Fri, 31 Foo 2026 25:61:61 +9999",
        "a zone without end": "Fri, 01 Jan 2027 00:00:00 +99999999999",
    }
    return {
        "answer: deep": said(b"[" * 100_000),
        "answer: deep objects": said(b'{"siblings":' * 100_000),
        "answer: digits": said(b'{"sha": ' + DIGITS.encode() + b"}"),
        "answer: not UTF-8": said(b'{"sha": "\xff"}'),
        "answer: control characters": said(b"\x1b[31m\x07 login"),
        "answer: endless": said(b'{"a": "' + b"x" * (40 << 20)),
        "answer: null": said(b"null"),
        "answer: empty": said(b""),
        "answer: sha is a path": answered(lambda found: found.update(sha="../../../../tmp/x")),
        "answer: sha with a line": answered(lambda found: found.update(sha="0" * 40 + "\n")),
        "answer: no files": answered(lambda found: found.update(siblings=[])),
        "size: negative": _siblings(size=-1, lfs=None),
        "size: huge": _siblings(size=10**18, lfs=None),
        "size: 400 digits": _siblings(size=10**400, lfs=None),
        "size: none": _siblings(size=None, lfs=None, blobId=None),
        "digest: words": _siblings(blobId="not a digest", lfs=None),
        "digest: 64 letters": _siblings(blobId="z" * 64, lfs=None),
        "path: NUL": _path("a\0b"),
        "path: stars": _path("**"),
        "path: up": _path("../../../outside"),
        "path: nothing": _path(""),
        "path: a point": _path("."),
        "path: a surrogate": _path("\ud800"),
        "path: 10,000 characters": _path("x" * 10_000),
        "weights: in stars": _renamed("**/"),
        "weights: in a NUL": _renamed("a\0b/"),
        "weights: in 300 characters": _renamed("x" * 300 + "/"),
        "weights: in a surrogate": _renamed("\ud800/"),
        "weights: in control characters": _renamed("\x1b[31m/"),
        "weights: in points": _renamed("./././"),
        "weights: twice": answered(lambda found: found["siblings"].extend(found["siblings"])),
        "length: a superscript": with_headers(FILES, Content_Length="\u00b2"),
        "length: 5,000 digits": with_headers(FILES, Content_Length=DIGITS),
        "length: negative": with_headers(FILES, Content_Length="-5"),
        "length: none": with_headers(FILES, Content_Length="0"),
        "etag: odd": with_headers(FILES, ETag='W/"\u00b2'),
        "redirect: to itself": with_headers(
            API, 302, Location="/api/models/owner/tiny/revision/main"
        ),
        "redirect: to nowhere": with_headers(API, 302, Location="http://[::1"),
        "redirect: to a file": with_headers(API, 302, Location="file:///etc/passwd"),
        "redirect: to a port of 400 digits": with_headers(
            API, 302, Location=f"http://a:{'9' * 400}/"
        ),
        "status 200 with an error": with_headers(API, X_Error_Code="RepoNotFound"),
        "error message: control characters": with_headers(
            API, 404, X_Error_Code="\x1b[31m", X_Error_Message="\x1b]0;title"
        ),
        **{
            f"retry after: {name}": with_headers(API, 429, Retry_After=value)
            for name, value in waits.items()
        },
    }
