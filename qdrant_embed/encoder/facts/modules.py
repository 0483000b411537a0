"""The small files beside a model's weights, as sentence-transformers writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AliasChoices, Field, PositiveInt, TypeAdapter

from qdrant_embed.encoder.compile.architectures import SHORTEST
from qdrant_embed.encoder.facts.jsonfile import JsonFile, read_json
from qdrant_embed.encoder.interfaces import Pooling
from qdrant_embed.errors import ModelFileError

_POOLINGS: dict[str, Pooling] = {"cls": "cls", "mean": "mean", "lasttoken": "last_token"}
_LEGACY_POOLINGS = {  # in files of sentence-transformers before 5.2
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_CHAIN = ["Transformer", "Pooling", "Dense", "Normalize"]
_OTHER_CHAINS = {
    "StaticEmbedding": ["StaticEmbedding", "Normalize"],
    "MLMTransformer": ["MLMTransformer", "SpladePooling"],
}


class _Module(JsonFile):
    type: str
    path: str


class _PoolingConfig(JsonFile):
    embedding_dimension: PositiveInt | None = Field(
        None, validation_alias=AliasChoices("embedding_dimension", "word_embedding_dimension")
    )
    pooling_mode: str | tuple[str, ...] | None = None
    include_prompt: bool = True
    pooling_mode_cls_token: bool = False
    pooling_mode_mean_tokens: bool = False
    pooling_mode_max_tokens: bool = False
    pooling_mode_mean_sqrt_len_tokens: bool = False
    pooling_mode_weightedmean_tokens: bool = False
    pooling_mode_lasttoken: bool = False

    @property
    def modes(self) -> list[str]:
        """The poolings asked for."""
        if isinstance(self.pooling_mode, str):
            return [self.pooling_mode]
        if self.pooling_mode is not None:
            return list(self.pooling_mode)
        return [mode for key, mode in _LEGACY_POOLINGS.items() if getattr(self, key)]


class _SpladeConfig(JsonFile):
    pooling_strategy: Literal["max"] = "max"
    activation_function: Literal["relu"] = "relu"


class _DenseConfig(JsonFile):
    out_features: PositiveInt


class _Prompts(JsonFile):
    prompts: dict[str, str] = Field(default_factory=dict)


class SentenceConfig(JsonFile):
    """``sentence_bert_config.json``."""

    max_seq_length: Annotated[int, Field(ge=SHORTEST)] | None = None
    do_lower_case: bool = False


class Modules:
    """The chain in a folder's ``modules.json``, and what the modules after the first say.

    Args:
        folder: the model's folder, with or without a ``modules.json``.

    Raises:
        ModelFileError: the file is damaged, leaves the folder or chains what cannot be run.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = folder / "modules.json"
        self._modules = self._read() if self._file.is_file() else {}

    def __bool__(self) -> bool:
        return bool(self._modules)

    def __contains__(self, kind: str) -> bool:
        return kind in self._modules

    @property
    def first(self) -> Path:
        """The folder of the first module, which turns tokens into vectors."""
        return self._path(next(iter(self._modules))) if self._modules else self._folder

    def pooling(self) -> tuple[Pooling, int | None] | None:
        """How tokens are pooled, and the numbers of each; ``None`` if the chain does not say.

        Raises:
            ModelFileError: in a way that cannot be run.
        """
        if "Pooling" not in self:
            return None
        path = self._path("Pooling") / "config.json"
        config = read_json(path, TypeAdapter(_PoolingConfig))
        modes = config.modes
        if not config.include_prompt or len(modes) != 1 or modes[0] not in _POOLINGS:
            prompt = "" if config.include_prompt else " without the prompt"
            raise ModelFileError(
                f"{path} asks for a pooling that cannot be run: {', '.join(modes) or 'none'}"
                f"{prompt}; {', '.join(_POOLINGS)} can, one of them"
            )
        return _POOLINGS[modes[0]], config.embedding_dimension

    def check_splade(self) -> None:
        """Raises `ModelFileError` if the chain is no SPLADE, or one that cannot be run."""
        if self and "SpladePooling" not in self:
            raise ModelFileError(f"{self._file} is that of a dense model: TextEmbedding runs it")
        if self:
            path = self._path("SpladePooling") / "config.json"
            read_json(path, TypeAdapter(_SpladeConfig))

    def dense_dimension(self) -> int | None:
        """Numbers that the chain's ``Dense`` layers end with; ``None`` without such layers."""
        if "Dense" not in self:
            return None
        path = self._path("Dense") / "config.json"
        return read_json(path, TypeAdapter(_DenseConfig)).out_features

    def prompts(self) -> dict[str, str]:
        """The repo's prompts; sentence-transformers saves empty ones where none were set."""
        path = self._folder / "config_sentence_transformers.json"
        if not path.is_file():
            return {}
        prompts = read_json(path, TypeAdapter(_Prompts)).prompts
        return prompts if any(prompts.values()) else {}

    def sentence_config(self) -> SentenceConfig:
        """The first module's own settings."""
        path = self.first / "sentence_bert_config.json"
        return read_json(path, TypeAdapter(SentenceConfig)) if path.is_file() else SentenceConfig()

    def _read(self) -> dict[str, _Module]:
        modules = read_json(self._file, TypeAdapter(list[_Module]))
        kinds = [module.type.rpartition(".")[2] for module in modules]
        allowed = _OTHER_CHAINS.get(kinds[0], _CHAIN) if kinds else _CHAIN
        once = [kind for kind in kinds if kind != "Dense"]
        in_order = all(kind in allowed for kind in kinds) and kinds == sorted(
            kinds, key=allowed.index
        )
        if kinds[:1] != allowed[:1] or not in_order or len(set(once)) < len(once):
            raise ModelFileError(
                f"{self._file} chains {', '.join(kinds) or 'nothing'}: only Transformer, Pooling, "
                "Dense and Normalize, StaticEmbedding and Normalize, or MLMTransformer and "
                "SpladePooling, in this order, can be run"
            )
        # of several Dense layers the last one's width counts
        by_kind = dict(zip(kinds, modules, strict=True))
        for module in modules:
            self._check_inside(module.path)
        return by_kind

    def _check_inside(self, relative: str) -> None:
        root = self._folder.resolve()
        path = (root / relative).resolve()
        if not path.is_relative_to(root):
            raise ModelFileError(f"{self._file} points out of its folder: {path}")

    def _path(self, kind: str) -> Path:
        return self._folder / self._modules[kind].path
