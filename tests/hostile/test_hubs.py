"""A hostile hub: each answer leads to the model, or to an error of ours."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from hub_server import serving

from hostile import hubs, models, room

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="limits and pipes of Unix")

NAME = "owner/tiny"
# what is odd is not used
ANSWERS = {
    "etag: odd",
    "path: 10,000 characters",
    "path: NUL",
    "path: a point",
    "path: nothing",
    "path: stars",
    "path: up",
    "size: none",
    "status 200 with an error",
    "weights: in points",
    "weights: twice",
}
REVISIONS = [
    ".",
    "..",
    "../main",
    "a/../../b",
    "",
    "a\0b",
    "\ud800",
    "x" * 300,
    "\x1b[31m",
    "main\n",
]
OTHER_REVISIONS = ["*", " ", "a?b#c", "%2e%2e", "CON", "a:b", "refs/pr/1"]
NAMES = [
    *("..", "../..", "owner/..", "a\0b", "\ud800/x", "x" * 300, "x/" + "y" * 300, "~", "~root/x"),
    *("\x1b[31m/b", "**/*", "CON/x", "a//b", "owner/tiny?x", "owner/ti ny", "https://a:b@c/d"),
    *("//server/share", "\\\\server\\share"),
]


# those that are tried again, by some versions of the hub's library after a time-out
SLOW = {name for name in hubs.faults() if name.startswith(("redirect", "length"))}


@pytest.mark.parametrize(
    "names", [hubs.faults().keys() - SLOW, pytest.param(SLOW, marks=pytest.mark.slow)]
)
def test_an_answer_leads_to_the_model_or_an_error(names: set[str], tmp_path: Path) -> None:
    folder = models.sound("bert", tmp_path / "sound")
    cases = []
    with ExitStack() as stack:
        for number, name in enumerate(sorted(names)):
            hub = stack.enter_context(serving(NAME, folder))
            hub.faults.append(hubs.faults()[name])
            cache = tmp_path / "cache" / str(number)
            options = {"name": NAME, "cache": str(cache), "endpoint": hub.url}
            cases.append(room.Case(name, "named", options))
        found = room.checked(cases, tmp_path)
    assert {name for name, one in found.items() if one.kind == "answer"} == ANSWERS & names
    outside = {path.name for path in (tmp_path / "cache").iterdir()}
    assert outside == {str(number) for number in range(len(cases))}


def test_a_name_or_revision_is_one_or_is_refused(tmp_path: Path) -> None:
    folder = models.sound("bert", tmp_path / "sound")
    with serving(NAME, folder) as hub:
        options = {"cache": str(tmp_path / "cache"), "endpoint": hub.url}
        cases = [
            *(
                room.Case(
                    f"revision {revision!r}",
                    "named",
                    options | {"name": NAME, "revision": revision},
                )
                for revision in REVISIONS + OTHER_REVISIONS
            ),
            *(room.Case(f"name {name!r}", "named", options | {"name": name}) for name in NAMES),
        ]
        found = room.checked(cases, tmp_path)
        asked = hub.asked("/api/models/")
    assert {one.kind for one in found.values()} == {"typed"}
    for revision in REVISIONS:
        assert found[f"revision {revision!r}"].error == "InputError"
    for revision in OTHER_REVISIONS:
        assert found[f"revision {revision!r}"].error == "UnknownModelError"
    assert asked == len(OTHER_REVISIONS) + 1  # and CON/x
