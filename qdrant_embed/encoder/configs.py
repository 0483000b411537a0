"""Reads what a sentence-transformers directory says about its own model."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, PositiveInt, TypeAdapter, ValidationError

from qdrant_embed.encoder.interfaces import Pooling
from qdrant_embed.encoder.spec import ModelSpec
from qdrant_embed.errors import InputError, ModelFileError

logger = logging.getLogger(__name__)

T = TypeVar("T")


class _File(BaseModel):
    """A JSON file of a model: unknown keys are somebody else's business."""

    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=())


class BertConfig(_File):
    """``config.json`` of a model of architecture ``bert``, in the words of transformers."""

    model_type: Literal["bert"]
    vocab_size: PositiveInt
    hidden_size: PositiveInt
    num_hidden_layers: PositiveInt
    num_attention_heads: PositiveInt
    intermediate_size: PositiveInt
    max_position_embeddings: PositiveInt
    type_vocab_size: PositiveInt = 2
    layer_norm_eps: float = 1e-12
    hidden_act: Literal["gelu", "gelu_new", "gelu_pytorch_tanh", "relu"] = "gelu"
    position_embedding_type: Literal["absolute"] = "absolute"
    is_decoder: Literal[False] = False


class _Module(_File):
    type: str
    path: str


class _PoolingConfig(_File):
    word_embedding_dimension: PositiveInt | None = None
    pooling_mode_cls_token: bool = False
    pooling_mode_mean_tokens: bool = False
    pooling_mode_max_tokens: bool = False
    pooling_mode_mean_sqrt_len_tokens: bool = False
    pooling_mode_weightedmean_tokens: bool = False
    pooling_mode_lasttoken: bool = False
    include_prompt: bool = True


class _SentenceConfig(_File):
    max_seq_length: PositiveInt | None = None


class _TokenizerConfig(_File):
    model_max_length: float | None = None  # transformers writes 1e30 for "no limit"


class _Prompts(_File):
    prompts: dict[str, str] = {}


class _Architecture(_File):
    model_type: str


class ModelDirectory:
    """A model's files in one folder, as sentence-transformers saves them.

    Args:
        path: the folder, with ``modules.json`` or at least ``config.json`` in it.
        known: what is already known of the model; the files win over all of it but the name.

    Raises:
        ModelFileError: a file is missing, unreadable, or says something this encoder cannot do.
    """

    def __init__(self, path: Path, known: ModelSpec | None = None) -> None:
        self.path = path
        modules = self._modules()
        self.transformer = self._inside(modules.get("Transformer", _Module(type="", path="")).path)
        self.config = self._config()
        self._check_heads()
        self._pooling_module = modules.get("Pooling")
        self._normalize = "Normalize" in modules if modules else None
        self._known = known

    @property
    def weights(self) -> Path:
        """The safetensors file."""
        path = self.transformer / "model.safetensors"
        if not path.is_file():
            raise ModelFileError(
                f"{self.path} has no model.safetensors: other weight formats are not read "
                "(pickled ones can run code); save the model again with safe_serialization=True"
            )
        return path

    @property
    def tokenizer(self) -> Path:
        """The ``tokenizer.json`` file."""
        for folder in (self.transformer, self.path):
            if (folder / "tokenizer.json").is_file():
                return folder / "tokenizer.json"
        raise ModelFileError(
            f"{self.path} has no tokenizer.json: save the model again with a fast tokenizer"
        )

    def spec(
        self,
        name: str,
        *,
        max_tokens: int | None = None,
        query_prefix: str | None = None,
        document_prefix: str | None = None,
    ) -> ModelSpec:
        """Facts about the model: the caller's first, then the files', then the catalog's.

        Raises:
            InputError: `max_tokens` is more than the model has positions for.
        """
        limit = self.config.max_position_embeddings
        if max_tokens is not None and max_tokens > limit:
            raise InputError(
                f"max_tokens={max_tokens}, but {name} has positions for {limit} tokens at most"
            )
        known, prompts = self._known, self._prompts()
        return ModelSpec(
            name=name,
            dimension=self.config.hidden_size,
            pooling=self._pooling(name),
            normalize=self._is_normalized(),
            max_tokens=max_tokens or min(self._max_tokens(), limit),
            query_prefix=_first(
                query_prefix, prompts.get("query"), known.query_prefix if known else None
            ),
            document_prefix=_first(
                document_prefix,
                prompts.get("document", prompts.get("passage")),
                known.document_prefix if known else None,
            ),
            license=known.license if known else "",
        )

    def _modules(self) -> dict[str, _Module]:
        if not (self.path / "modules.json").is_file():
            return {}
        modules = _read(self.path / "modules.json", TypeAdapter(list[_Module]))
        by_kind = {module.type.rpartition(".")[2]: module for module in modules}
        unknown = sorted(by_kind.keys() - {"Transformer", "Pooling", "Normalize"})
        if unknown or "Transformer" not in by_kind or len(by_kind) < len(modules):
            kinds = ", ".join(module.type for module in modules)
            raise ModelFileError(
                f"{self.path / 'modules.json'} chains {kinds or 'nothing'}: only Transformer, "
                "Pooling and Normalize, once each, can be run"
            )
        return by_kind

    def _config(self) -> BertConfig:
        path = self.transformer / "config.json"
        architecture = _read(path, TypeAdapter(_Architecture)).model_type
        if architecture != "bert":
            raise ModelFileError(
                f"{path} is of architecture {architecture!r}: only 'bert' can be run so far"
            )
        return _read(path, TypeAdapter(BertConfig))

    def _check_heads(self) -> None:
        config = self.config
        if config.hidden_size % config.num_attention_heads:
            raise ModelFileError(
                f"{self.path}: hidden_size {config.hidden_size} cannot be shared by "
                f"{config.num_attention_heads} attention heads"
            )

    def _pooling(self, name: str) -> Pooling:
        if self._pooling_module is None:
            if self._known is not None:
                return self._known.pooling
            logger.warning(
                "%s does not say how to pool its tokens; taking their mean, as "
                "sentence-transformers does",
                name,
            )
            return "mean"
        path = self._inside(self._pooling_module.path) / "config.json"
        config = _read(path, TypeAdapter(_PoolingConfig))
        if config.word_embedding_dimension not in (None, self.config.hidden_size):
            raise ModelFileError(
                f"{path} pools {config.word_embedding_dimension} numbers, but the model's "
                f"hidden_size is {self.config.hidden_size}"
            )
        modes = {key for key, on in config if key.startswith("pooling_mode_") and on}
        if not config.include_prompt or len(modes) != 1:
            raise ModelFileError(f"{path} asks for a pooling that cannot be run: {config!r}")
        if modes == {"pooling_mode_cls_token"}:
            return "cls"
        if modes == {"pooling_mode_mean_tokens"}:
            return "mean"
        raise ModelFileError(f"{path} asks for {modes.pop()}: only cls and mean can be run")

    def _is_normalized(self) -> bool:
        if self._normalize is not None:
            return self._normalize
        return self._known.normalize if self._known else True

    def _max_tokens(self) -> int:
        path = self.transformer / "sentence_bert_config.json"
        if path.is_file():
            stated = _read(path, TypeAdapter(_SentenceConfig)).max_seq_length
            if stated is not None:
                return stated
        if self._known is not None:
            return self._known.max_tokens
        path = self.transformer / "tokenizer_config.json"
        if path.is_file():
            length = _read(path, TypeAdapter(_TokenizerConfig)).model_max_length
            if length is not None and length < 1e9:
                return int(length)
        return self.config.max_position_embeddings

    def _prompts(self) -> dict[str, str]:
        """The repo's prompts; sentence-transformers saves empty ones where none were set."""
        path = self.path / "config_sentence_transformers.json"
        if not path.is_file():
            return {}
        prompts = _read(path, TypeAdapter(_Prompts)).prompts
        return prompts if any(prompts.values()) else {}

    def _inside(self, relative: str) -> Path:
        root = self.path.resolve()
        path = (root / relative).resolve()
        if not path.is_relative_to(root):
            raise ModelFileError(f"{self.path / 'modules.json'} points out of its folder: {path}")
        return self.path / relative


def _first(*candidates: str | None) -> str:
    return next((text for text in candidates if text is not None), "")


def _read(path: Path, kind: TypeAdapter[T]) -> T:
    if not path.is_file():
        raise ModelFileError(f"{path} is missing")
    try:
        return kind.validate_python(json.loads(path.read_bytes()))
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'content'}: {e['msg']}" for e in error.errors()
        )
        raise ModelFileError(f"{path} cannot be used: {problems}") from error
    except ValueError as error:
        raise ModelFileError(f"{path} is not valid JSON: {error}") from error
