"""The docstrings of every public name, held against signatures and code.

ruff asks for a docstring (D1), for whole ``Args`` sections (D417), and for no parameter too many
(DOC102). It knows neither parameters that are explained in a sentence or by the method that another
one is like, nor what a constructor takes, nor what a check raises: that is read here.
"""

from __future__ import annotations

import ast
import builtins
import dataclasses
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import qdrant_embed
from qdrant_embed import errors

CHECKS = {"check_str", "check_whole", "check_path"}  # which raise InputError


def own_classes(kind: type) -> list[type]:
    """The class and those it inherits from that are ours; qdrant_client documents its own."""
    return [base for base in kind.__mro__ if base.__module__.startswith("qdrant_embed")]


def public() -> Iterator[tuple[str, Any]]:
    """Every public name and public method, by the name that users write."""
    for name in qdrant_embed.__all__:
        value = getattr(qdrant_embed, name)
        yield name, value
        for base in own_classes(value) if inspect.isclass(value) else []:
            for member, method in vars(base).items():
                function = getattr(method, "__func__", getattr(method, "fget", method))
                if not member.startswith("_") and inspect.isfunction(function):
                    yield f"{name}.{member}", function


PUBLIC = dict(public())
CLASSES = [name for name, value in PUBLIC.items() if inspect.isclass(value)]


def parameters(value: Any) -> set[str]:
    """Those that a caller may name; of an exception none, as only this package makes one."""
    own = value if inspect.isfunction(value) else vars(value).get("__init__")
    if getattr(own, "__wrapped__", None) is not None:  # a constructor of ``qdrant_client``
        return set()
    if own is None or issubclass(value if inspect.isclass(value) else object, BaseException):
        return set()
    named = {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY}
    found = inspect.signature(own).parameters.values()
    return {found.name for found in found if found.kind in named} - {"self", "cls"}


def documentation(name: str) -> str:
    """Its docstring, with those that it says it is like."""
    value = PUBLIC[name]
    text = inspect.cleandoc(value.__doc__ or "")
    if dataclasses.is_dataclass(value) and isinstance(value, type):
        text += "".join(inspect.getdoc(base) or "" for base in own_classes(value)[1:])
    for other in re.findall(r"(?:those of|[Ll]ike|The same as|As|`) `([\w.]+)`", text):
        beside = f"{name.rpartition('.')[0]}.{other}"
        if beside != name and (beside in PUBLIC or other in PUBLIC):
            text += documentation(beside if beside in PUBLIC else other)
    return text


def section(title: str, text: str) -> list[str]:
    """The names that a section of a docstring explains."""
    found = re.search(rf"^{title}:\n((?:    .*\n?|\n)+)", text, re.MULTILINE)
    return re.findall(r"^    (\w+):", found[1], re.MULTILINE) if found else []


def raises(function: Callable[..., Any]) -> set[str]:
    """Our errors that its own code raises, as far as can be read from it."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    called = {
        node.func.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    ours = {name for name in called if inspect.isclass(getattr(errors, name, None))}
    return ours | ({"InputError"} if called & CHECKS else set())


@pytest.mark.parametrize("name", PUBLIC)
def test_every_parameter_is_explained(name: str) -> None:
    text = documentation(name)
    missing = {found for found in parameters(PUBLIC[name]) if not re.search(rf"\b{found}\b", text)}
    assert not missing, f"says nothing of {missing}"


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_explains_no_parameter_that_its_constructor_lacks(name: str) -> None:
    value = PUBLIC[name]
    assert set(section("Args", inspect.cleandoc(value.__doc__))) <= parameters(value)


@pytest.mark.parametrize("name", PUBLIC)
def test_errors_that_a_docstring_names_exist(name: str) -> None:
    for error in section("Raises", inspect.cleandoc(PUBLIC[name].__doc__)):
        assert hasattr(errors, error) or hasattr(builtins, error)


@pytest.mark.parametrize("name", PUBLIC)
def test_what_a_docstring_says_is_raised(name: str) -> None:
    value = PUBLIC[name]
    making = "__post_init__" if dataclasses.is_dataclass(value) else "__init__"
    function = value if inspect.isfunction(value) else vars(value).get(making)
    if function is not None:
        assert raises(function) <= set(section("Raises", documentation(name)))


@pytest.mark.parametrize("name", CLASSES)
def test_attributes_that_a_docstring_lists_exist(name: str) -> None:
    kind = PUBLIC[name]
    source = "".join(inspect.getsource(base) for base in own_classes(kind))
    for attribute in section("Attributes", inspect.cleandoc(kind.__doc__)):
        assert re.search(rf"^ +(self\.)?{attribute}\b *[:=]", source, re.MULTILINE), attribute
