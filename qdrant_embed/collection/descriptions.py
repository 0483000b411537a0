"""What encoders say of themselves, checked: users' own may say anything."""

from __future__ import annotations

from dataclasses import fields
from enum import Enum
from functools import cache
from numbers import Integral
from typing import Any, TypeVar, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from qdrant_embed.encoder.interfaces import (
    DenseEncoder,
    DescribedEncoder,
    EncoderDescription,
    LateDescription,
    LateEncoder,
    SparseDescription,
    SparseEncoder,
)
from qdrant_embed.errors import InputError, check_prefix, check_unicode, check_whole
from qdrant_embed.forks import VALIDATING
from qdrant_embed.limits import STAMP_TEXT

Description = TypeVar(
    "Description", bound="EncoderDescription | SparseDescription | LateDescription"
)
_LEAST = {"dimension": 1, "max_tokens": 1, "max_terms": 1, "overlap": 0}


def describe(encoder: DenseEncoder) -> EncoderDescription:
    """Return the description of `encoder`: its own, or else its name and dimension.

    Raises:
        InputError: if what it returns is no description, or one whose facts a stamp cannot hold.
    """
    if isinstance(encoder, DescribedEncoder):
        return _described(encoder, EncoderDescription)
    named = EncoderDescription(model=encoder.model_name, dimension=encoder.dimension)
    return _checked(type(encoder).__name__, named, EncoderDescription)


def describe_sparse(encoder: SparseEncoder) -> SparseDescription:
    """Return the description of `encoder`; Raises as `describe` does."""
    return _described(encoder, SparseDescription)


def describe_late(encoder: LateEncoder) -> LateDescription:
    """Return the description of `encoder`; Raises as `describe` does."""
    return _described(encoder, LateDescription)


def _described(
    encoder: DescribedEncoder | SparseEncoder | LateEncoder, kind: type[Description]
) -> Description:
    found: object = encoder.describe()
    what = f"describe() of {type(encoder).__name__}"
    if not isinstance(found, kind):
        raise InputError(
            f"{what} must return an object of {kind.__name__}, not of {type(found).__name__}: "
            f"{found!r:.80}"
        )
    return _checked(what, found, kind)


def _checked(what: str, found: Description, kind: type[Description]) -> Description:
    """Return a description with Python's own types, and without what a subclass adds."""
    given = {field.name: getattr(found, field.name) for field in fields(kind)}
    try:
        with VALIDATING:
            facts = _facts_of(kind)  # type: ignore[arg-type] # mypy takes it for an object of it
            checked = vars(facts(**{fact: _plain(value) for fact, value in given.items()}))
    except ValidationError as error:
        wrong = error.errors(include_url=False)[0]
        value = given[str(wrong["loc"][0])]
        raise InputError(
            f"{what} says {wrong['loc'][0]}={value!r:.80} ({type(value).__name__}), which "
            f"{kind.__name__} does not allow: {wrong['msg']}"
        ) from error
    for fact, value in checked.items():
        named = f"{fact} of {what}"
        if value is not None and fact in _LEAST:
            check_whole(named, value, _LEAST[fact])
        elif isinstance(value, str):
            check_unicode(named, value)
            if fact.endswith("_prefix"):
                check_prefix(named, value)
            elif len(value) > STAMP_TEXT:
                raise InputError(
                    f"{named} has {len(value):,} characters: a stamp has {STAMP_TEXT:,} at most"
                )
    return kind(**checked)


def _plain(value: Any) -> Any:
    """Return a fact as Python's own type: of numbers of numpy, members of enumerations, lists."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, list):
        return tuple(value)
    if isinstance(value, bool) or not isinstance(value, Integral):
        return value
    return int(value)


@cache
def _facts_of(kind: type[Any]) -> type[BaseModel]:
    """Return what checks the facts of a kind of description, and converts none."""
    facts: dict[str, Any] = {fact: (of, ...) for fact, of in get_type_hints(kind).items()}
    config = ConfigDict(strict=True, allow_inf_nan=False)
    return create_model(kind.__name__, __config__=config, **facts)
