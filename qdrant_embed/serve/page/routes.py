"""The page at ``/``: three files, which show what the service's other routes answer.

What is shown was written by others. The page puts it into text nodes alone, and its policy forbids
scripts, styles and connections of any other origin, and scripts within the page.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

PAGE_PATHS = ("/", "/page/")  # which need no key: there is nothing secret in them

_FOLDER = Path(__file__).parent / "files"
_FILES = {
    "/": ("page.html", "text/html"),
    "/page/page.css": ("page.css", "text/css"),
    "/page/page.js": ("page.js", "text/javascript"),
    "/page/icon.svg": ("icon.svg", "image/svg+xml"),
}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


def page_routes() -> list[BaseRoute]:
    """Return the routes of the page's files."""
    return [
        Route(path, partial(_file, content=(_FOLDER / name).read_bytes(), kind=kind))
        for path, (name, kind) in _FILES.items()
    ]


async def _file(_: Request, *, content: bytes, kind: str) -> Response:
    return Response(content, headers=_HEADERS, media_type=kind)
