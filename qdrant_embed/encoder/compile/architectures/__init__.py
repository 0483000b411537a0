"""The architectures that are compiled, one file each, loaded when a model needs it."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

if TYPE_CHECKING:
    from qdrant_embed.encoder.compile.architectures.config import TransformerConfig

STATIC = "model2vec"
SHORTEST = 3  # tokens that a model must be able to read: [CLS], one of a text, [SEP]

# `model_type` in config.json: module and class of its configuration
ARCHITECTURES = {
    "bert": ("bert", "BertConfig"),
    "distilbert": ("distilbert", "DistilBertConfig"),
    "modernbert": ("modernbert", "ModernBertConfig"),
    "mpnet": ("mpnet", "MPNetConfig"),
    "nomic_bert": ("nomic_bert", "NomicBertConfig"),
    "roberta": ("roberta", "RobertaConfig"),
    "xlm-roberta": ("roberta", "RobertaConfig"),
}


def config_class(model_type: object) -> type[TransformerConfig] | None:
    """The configuration of an architecture that is compiled, if it is one."""
    found = ARCHITECTURES.get(model_type) if isinstance(model_type, str) else None
    if found is None:
        return None
    module, name = found
    kind: type[TransformerConfig] = getattr(import_module(f"{__name__}.{module}"), name)
    return kind


def can_compile(config: Mapping[str, Any]) -> bool:
    """Whether the content of a ``config.json`` (none: empty) is of a kind that is compiled.

    Models that call themselves ``bert`` may have changed it: their values are looked at too.
    """
    model_type = config.get("model_type")
    if not config or model_type == STATIC:
        return True
    kind = config_class(model_type)
    if kind is None:
        return False
    try:
        kind.model_validate(config)
    except ValidationError:
        return False
    return True
