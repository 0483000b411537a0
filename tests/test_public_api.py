"""The public names and their parameters are those that users rely on, in both clients alike.

``python tests/test_public_api.py`` writes the listing anew, for a change on purpose.
"""

from __future__ import annotations

import ast
import builtins
import dataclasses
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pydantic
import pytest
import qdrant_client

import qdrant_embed
from qdrant_embed import AsyncQdrantEmbedMixin, QdrantEmbedMixin

LISTING = Path(__file__).parent / "fixtures/public_api.txt"
PUBLIC = {name: getattr(qdrant_embed, name) for name in qdrant_embed.__all__}
KINDS = {classmethod: "classmethod ", staticmethod: "staticmethod "}


def own_classes(kind: type) -> list[type]:
    """Return the class and those it inherits from that are ours."""
    return [base for base in kind.__mro__ if base.__module__.startswith("qdrant_embed")]


def members(kind: type) -> dict[str, Any]:
    """Return the public members that a class has from us; of a mere annotation, its text."""
    found: dict[str, Any] = {}
    for base in reversed(own_classes(kind)):
        found |= vars(base).get("__annotations__", {}) | dict(vars(base))
    of_pydantic = "model_" if issubclass(kind, pydantic.BaseModel) else "_"
    return {name: found[name] for name in sorted(found) if not name.startswith(("_", of_pydantic))}


def function(member: Any) -> Callable[..., Any] | None:
    """Return what a method calls, be it a class's or an instance's."""
    called = getattr(member, "__func__", member)
    return called if inspect.isfunction(called) else None


def parameters(value: Callable[..., Any]) -> str:
    """Write the parameters without their types, which mypy checks where names are used."""
    named = inspect.signature(value).parameters.values()
    bare = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in named
        if parameter.name not in ("self", "cls")
    ]
    return str(inspect.Signature(bare))


def is_made_by_users(kind: type) -> bool:
    """Errors are made by us alone, protocols by nobody, clients as qdrant_client says."""
    if issubclass(kind, BaseException):
        return False
    return (
        dataclasses.is_dataclass(kind)
        or issubclass(kind, pydantic.BaseModel)
        or kind.__init__.__module__.startswith("qdrant_embed")
    )


def bases(kind: type) -> list[type]:
    """Return the classes it inherits from that users know."""
    return [
        base
        for base in kind.__mro__[1:]
        if base not in (BaseException, object)
        and (
            getattr(builtins, base.__name__, None) is base
            or base in vars(qdrant_client).values()
            or base in PUBLIC.values()
        )
    ]


def written(name: str, value: Any) -> Iterator[str]:
    """Write one public name, and below it what it adds to those it inherits from."""
    if not inspect.isclass(value):
        yield f"def {name}{parameters(value)}"
        return
    inherited: dict[str, Any] = {}
    for base in bases(value):
        inherited |= members(base)
    yield f"class {name}({', '.join(base.__name__ for base in bases(value))})"
    if is_made_by_users(value):
        yield f"    def __init__{parameters(value)}"
    for member, found in members(value).items():
        if member in inherited and inherited[member] is found:
            continue
        if called := function(found):
            kind = KINDS.get(type(found), "")
            kind += "async " if inspect.iscoroutinefunction(called) else ""
            yield f"    {kind}def {member}{parameters(called)}"
        else:
            yield f"    {member}"


def listing() -> str:
    """Write every public name."""
    lines: list[str] = []
    for name, value in PUBLIC.items():
        lines += written(name, value)
    return "\n".join([*lines, ""])


def test_public_names_and_their_parameters_are_those_that_users_rely_on() -> None:
    assert listing() == LISTING.read_text("utf-8")


def kinds(annotation: str) -> list[str]:
    """Split a type into those of its union."""
    pending, found = [ast.parse(annotation, mode="eval").body], []
    while pending:
        node = pending.pop()
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
            pending += [node.right, node.left]
        else:
            found.append(ast.unparse(node))
    return found


def without_async(annotation: str) -> list[str]:
    """Split a type, and leave out each ``AsyncIterable[X]`` that stands beside ``Iterable[X]``."""
    found = kinds(annotation)
    return [kind for kind in found if kind not in [f"Async{other}" for other in found]]


BLOCKING, AWAITING = members(QdrantEmbedMixin), members(AsyncQdrantEmbedMixin)


@pytest.mark.parametrize("name", sorted(BLOCKING.keys() | AWAITING.keys()))
def test_the_clients_differ_by_await_alone(name: str) -> None:
    assert name in BLOCKING
    assert name in AWAITING
    blocking, awaiting = function(BLOCKING[name]), function(AWAITING[name])
    assert type(BLOCKING[name]) is type(AWAITING[name])
    if blocking is None or awaiting is None:
        assert BLOCKING[name] == AWAITING[name]
        return
    ours, theirs = inspect.signature(blocking), inspect.signature(awaiting)
    assert not inspect.iscoroutinefunction(blocking)
    if ours.return_annotation.startswith("Iterator["):  # read with ``async for`` instead
        assert not inspect.iscoroutinefunction(awaiting)
        assert theirs.return_annotation == f"Async{ours.return_annotation}"
    else:
        assert inspect.iscoroutinefunction(awaiting) == (awaiting is not blocking)
        assert ours.return_annotation == theirs.return_annotation
    for one, other in zip(ours.parameters.values(), theirs.parameters.values(), strict=True):
        assert (one.name, one.kind, one.default) == (other.name, other.kind, other.default)
        if one.name != "self" and one.name != "cls":
            # another client is of the same kind
            their = other.annotation.replace("AsyncQdrantEmbedMixin", "QdrantEmbedMixin")
            assert kinds(one.annotation) == without_async(their)


if __name__ == "__main__":
    LISTING.write_text(listing(), "utf-8")
