"""Reads what a model's directory says about its own model."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import AliasChoices, Field, PositiveInt, TypeAdapter

from qdrant_embed.encoder.compile.architectures import ARCHITECTURES, SHORTEST, STATIC, config_class
from qdrant_embed.encoder.compile.architectures.config import TransformerConfig
from qdrant_embed.encoder.compile.architectures.static import StaticConfig, table_shape
from qdrant_embed.encoder.facts.jsonfile import JsonFile, checked, read_json
from qdrant_embed.encoder.facts.modules import Modules
from qdrant_embed.encoder.facts.precision import Precision
from qdrant_embed.encoder.facts.spec import ModelSpec
from qdrant_embed.encoder.files.tensors import tensor_shapes
from qdrant_embed.encoder.files.weights import weight_files
from qdrant_embed.encoder.interfaces import Pooling, Task
from qdrant_embed.errors import InputError, ModelFileError

logger = logging.getLogger(__name__)

_NO_LIMIT = 1 << 17  # tokens of a text, where a model's files state none


class OtherConfig(JsonFile):
    """``config.json`` of an architecture that is not compiled, which the model's ONNX file runs."""

    vocab_size: PositiveInt | None = None
    hidden_size: PositiveInt | None = Field(
        None, validation_alias=AliasChoices("hidden_size", "dim", "d_model", "n_embd")
    )
    max_position_embeddings: int | None = Field(
        None,
        ge=SHORTEST,
        validation_alias=AliasChoices("n_positions", "max_position_embeddings"),
    )


class _TokenizerConfig(JsonFile):
    model_max_length: float | None = None  # transformers writes 1e30 for "no limit"


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
        self._known = known
        self._modules = Modules(path)
        self._content = self._read_content()
        files = (file.relative_to(path) for file in path.rglob("*") if file.is_file())
        self._names = [file.as_posix() for file in files]
        self.config = self._config()

    @property
    def tokenizer(self) -> Path:
        """The ``tokenizer.json`` file."""
        for folder in (self._modules.first, self.path):
            if (folder / "tokenizer.json").is_file():
                return folder / "tokenizer.json"
        raise ModelFileError(
            f"{self.path} has no tokenizer.json: save the model again with a fast tokenizer"
        )

    @property
    def lower_case(self) -> bool:
        """Whether texts are lower-cased before they are tokenised."""
        return self._modules.sentence_config().do_lower_case

    @property
    def has_dense(self) -> bool:
        """Whether linear layers follow the pooling."""
        return "Dense" in self._modules

    def weights(self, precision: Precision) -> list[Path]:
        """The files with the weights to run, as `weight_files` chooses them."""
        files = [self.path / name for name in self._weight_files(precision)]
        if not files and self._weight_files("int8"):
            raise ModelFileError(
                f"{self.path} has quantised weights only: they are run with precision='int8'"
            )
        if not files:
            raise ModelFileError(
                f"{self.path} has no model.safetensors (and no ONNX file): other weight formats "
                "are not read (pickled ones can run code); save the model again with "
                "safe_serialization=True"
            )
        return files

    def spec(
        self,
        name: str,
        *,
        task: Task = "embed",
        max_tokens: int | None = None,
        query_prefix: str | None = None,
        document_prefix: str | None = None,
    ) -> ModelSpec:
        """Facts about the model: the caller's first, then the files', then the catalog's.

        With the task ``terms`` its vectors have a number for each term of the vocabulary.

        Raises:
            ModelFileError: the model cannot be run that way.
            InputError: `max_tokens` is more than the model has positions for.
        """
        limit = self._limit()
        if max_tokens is not None and max_tokens > limit:
            raise InputError(
                f"max_tokens={max_tokens} (max_length of set_model), but {name} has positions for "
                f"{limit} tokens at most"
            )
        known, prompts = self._known, self._modules.prompts()
        weighs_terms = task == "terms"
        return ModelSpec(
            name=name,
            dimension=self._terms() if weighs_terms else self._dimension(),
            pooling=None if weighs_terms else self._pooling(name),
            normalize=not weighs_terms and self._is_normalized(),
            max_tokens=max_tokens or min(self._max_tokens(limit), limit),
            query_prefix=_first(
                query_prefix, prompts.get("query"), known.query_prefix if known else None
            ),
            document_prefix=_first(
                document_prefix,
                prompts.get("document", prompts.get("passage")),
                known.document_prefix if known else None,
            ),
            license=known.license if known else "",
            smallest_dimension=known.smallest_dimension if known else None,
            task=task,
        )

    def accept(self, spec: ModelSpec, max_tokens: int | None = None) -> ModelSpec:
        """The caller's own `spec`, which wins over all the files say, but must fit them.

        Raises:
            InputError: it does not, in dimension or length.
        """
        if max_tokens is not None:
            spec = replace(spec, max_tokens=max_tokens)
        dimension, limit = self._dimension(), self._limit()
        if spec.dimension != dimension or spec.max_tokens > limit:
            raise InputError(
                f"spec= has {spec.dimension} dimensions and {spec.max_tokens} tokens, but the "
                f"model in {self.path} has {dimension} and at most {limit}"
            )
        return spec

    def _read_content(self) -> dict[str, Any]:
        path = self._modules.first / "config.json"
        if "StaticEmbedding" in self._modules and not path.is_file():
            return {}
        return read_json(path, TypeAdapter(dict[str, Any]))

    def _config(self) -> TransformerConfig | StaticConfig | OtherConfig:
        path, content = self._modules.first / "config.json", self._content
        model_type = content.get("model_type")
        if "StaticEmbedding" in self._modules or model_type == STATIC:
            return checked(path, content, TypeAdapter(StaticConfig))
        files = self._weight_files("int8")
        if files and files[0].endswith(".onnx"):
            return checked(path, content, TypeAdapter(OtherConfig))
        kind = config_class(model_type)
        if kind is None:
            raise ModelFileError(
                f"{path} is of architecture {model_type!r}, and there is no ONNX file to run: "
                f"{', '.join(sorted(ARCHITECTURES))} can do without one"
            )
        if self.has_dense:
            raise ModelFileError(
                f"{self.path / 'modules.json'} chains a Dense layer, which cannot be compiled"
            )
        return checked(path, content, TypeAdapter(kind))

    def _weight_files(self, precision: Precision) -> list[str]:
        content = {} if "StaticEmbedding" in self._modules else self._content
        return weight_files(self._names, content, precision)

    def _dimension(self) -> int:
        config, path = self.config, self.path
        if isinstance(config, StaticConfig):
            return table_shape(tensor_shapes(self.weights("fp32")))[1]
        if isinstance(config, TransformerConfig):
            return config.hidden_size
        pooled = (self._modules.pooling() or ("mean", None))[1]
        for stated in (self._modules.dense_dimension(), pooled, config.hidden_size):
            if stated is not None:
                return stated
        if self._known is not None:
            return self._known.dimension
        raise ModelFileError(f"{path} does not say how many numbers its vectors have")

    def _terms(self) -> int:
        if not isinstance(self.config, TransformerConfig) or not self.config.has_terms:
            raise ModelFileError(
                f"{self.path} cannot be run as a SPLADE model: that needs a model.safetensors of "
                "architecture 'bert' with the head that guesses masked words (BertForMaskedLM)"
            )
        self._modules.check_splade()
        return self.config.vocab_size

    def _pooling(self, name: str) -> Pooling:
        if isinstance(self.config, StaticConfig):
            return "mean"
        if "SpladePooling" in self._modules:
            raise ModelFileError(f"{self.path} is a sparse model: SparseTextEmbedding runs it")
        stated = self._modules.pooling()
        if stated is None:
            if self._known is not None and self._known.pooling is not None:
                return self._known.pooling
            logger.warning(
                "%s does not say how to pool its tokens; taking their mean, as "
                "sentence-transformers does",
                name,
            )
            return "mean"
        pooling, dimension = stated
        if dimension not in (None, self.config.hidden_size or dimension):
            raise ModelFileError(
                f"{self.path}: the Pooling module pools {dimension} numbers, but the model's "
                f"hidden_size is {self.config.hidden_size}"
            )
        return pooling

    def _is_normalized(self) -> bool:
        if self._modules:
            return "Normalize" in self._modules
        if isinstance(self.config, StaticConfig):
            return self.config.normalize
        return self._known.normalize if self._known else True

    def _limit(self) -> int:
        """Tokens that a text can have at most."""
        if isinstance(self.config, TransformerConfig):
            return self.config.positions
        if isinstance(self.config, OtherConfig):
            return self.config.max_position_embeddings or _NO_LIMIT
        return _NO_LIMIT

    def _max_tokens(self, limit: int) -> int:
        stated = self._modules.sentence_config().max_seq_length
        if stated is not None:
            return stated
        if self._known is not None:
            return self._known.max_tokens
        if isinstance(self.config, StaticConfig):
            return self.config.longest or limit
        path = self._modules.first / "tokenizer_config.json"
        if path.is_file():
            length = read_json(path, TypeAdapter(_TokenizerConfig)).model_max_length
            if length is not None and SHORTEST <= length < _NO_LIMIT:
                return int(length)
        return limit


def _first(*candidates: str | None) -> str:
    return next((text for text in candidates if text is not None), "")
