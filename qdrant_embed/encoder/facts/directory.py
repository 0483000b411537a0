"""What the files in a model's folder say about the model."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

from pydantic import TypeAdapter

from qdrant_embed.encoder.facts.architectures import (
    ARCHITECTURES,
    SHORTEST,
    STATIC,
    DecoderConfig,
    OtherConfig,
    StaticConfig,
    TransformerConfig,
    XlmRobertaFlashConfig,
    architecture_name,
    config_class,
    table_shape,
)
from qdrant_embed.encoder.facts.colbert import PROJECTION, LateFiles, is_late, read_late
from qdrant_embed.encoder.facts.head import HeadModule, Scoring
from qdrant_embed.encoder.facts.jsonfile import JsonFile, checked, read_json
from qdrant_embed.encoder.facts.modules import (
    PROMPTED_TOKENS,
    Prompts,
    read_chain,
    read_prompts,
    read_scoring,
    read_sentence_config,
)
from qdrant_embed.encoder.facts.precision import Precision
from qdrant_embed.encoder.facts.prompts import DEFAULT_ADAPTER, RETRIEVAL
from qdrant_embed.encoder.facts.sparse_catalog import IDF_FILE, TERMS_FILE, find_sparse
from qdrant_embed.encoder.facts.spec import ModelSpec
from qdrant_embed.encoder.facts.tokenizer_file import TokenizerFile
from qdrant_embed.encoder.facts.weights import weight_files
from qdrant_embed.encoder.interfaces import Poolings, Route, Task, TermWeighting, assert_never
from qdrant_embed.errors import InputError, ModelFileError

logger = logging.getLogger(__name__)

# gives the shapes of the tensors in files
TensorShapes: TypeAlias = Callable[[Sequence[Path]], Mapping[str, tuple[int, ...]]]

_DOCUMENT_PROMPTS = ("document", "passage", "corpus")  # as sentence-transformers looks for them
_NO_LIMIT = 1 << 17  # tokens of a text, where a model's files state none


class _TokenizerConfig(JsonFile):
    model_max_length: float | None = None  # transformers writes 1e30 for "no limit"


class ModelDirectory:
    """A model's files in one folder, as sentence-transformers saves them.

    Args:
        path: the folder, with ``modules.json`` or at least ``config.json`` in it.
        known: what is already known about the model; the files win over all of it but the name.
        tensor_shapes: how to read the shapes of tensors, the only place where the files of a
            static model state its dimension.
        as_before: choose the weights as the first releases did; see `weight_files`. More models are
            then run from their own ONNX files.
        route: the texts whose modules are meant, where queries have others than documents.
        adapter: the task whose weights are run, of a model that has some for each; other models
            have none.

    Raises:
        InputError: the model has weights for tasks, but not for `adapter`.
        ModelFileError: a file is missing, unreadable, or says something this encoder cannot do.
    """

    def __init__(
        self,
        path: Path,
        known: ModelSpec | None = None,
        *,
        tensor_shapes: TensorShapes,
        as_before: bool = False,
        route: Route = "document",
        adapter: str | None = None,
    ) -> None:
        self.path = path
        self._route, self._adapter = route, adapter
        self._known = known
        self._tensor_shapes = tensor_shapes
        self._chain = read_chain(path, route)
        self._first = self._chain.first if self._chain else path
        self._content = self._read_content()
        files = (file.relative_to(path) for file in path.rglob("*") if file.is_file())
        self._names = [file.as_posix() for file in files]
        self._as_before = as_before
        self.config = self._adapted(self._config())

    @property
    def tokenizer(self) -> Path:
        """The ``tokenizer.json`` file."""
        for folder in (self._first, self.path):
            if (folder / "tokenizer.json").is_file():
                return folder / "tokenizer.json"
        raise ModelFileError(
            f"{self.path} has no tokenizer.json: save the model again with a fast tokenizer"
        )

    @property
    def lower_case(self) -> bool:
        """Whether texts are lower-cased before they are tokenised."""
        return read_sentence_config(self._first).do_lower_case

    @property
    def is_routed(self) -> bool:
        """Whether queries go through other modules, or other weights, than documents."""
        return (self._chain is not None and self._chain.is_routed) or self.adapter == RETRIEVAL

    @property
    def adapter(self) -> str | None:
        """The task whose weights are asked for, if the model has some for each task."""
        config = self.config
        has_tasks = isinstance(config, XlmRobertaFlashConfig) and config.adapter is not None
        return self._adapter if has_tasks else None

    @property
    def has_dense(self) -> bool:
        """Whether linear layers follow the pooling."""
        return self._chain is not None and self._chain.has_dense

    @cached_property
    def scoring(self) -> Scoring:
        """How the model scores two texts.

        Raises:
            ModelFileError: it is no cross-encoder, or none that can be run.
        """
        config = self.config
        if not isinstance(config, TransformerConfig) or "score" not in config.tasks:
            able = (name for name, kind in ARCHITECTURES.items() if "score" in kind.tasks)
            raise ModelFileError(
                f"{self.path} cannot be run as a cross-encoder: that needs a model.safetensors of "
                f"architecture {', '.join(map(repr, able))}, with a head that scores"
            )
        return read_scoring(self._first, self._content, config, self._chain, self.tokenizer)

    def head_for(self, task: Task) -> tuple[HeadModule, ...]:
        """Return the modules that follow the transformer when it is run for `task`.

        Raises:
            ModelFileError: one cannot be run.
        """
        match task:
            case "embed":
                return self.head
            case "token_vectors":
                return self.late_head
            case "score":
                chain = None if self.scoring.layers else self._chain
                return () if chain is None else chain.head(task)
            case "terms":
                return ()
            case _:
                assert_never(task)

    @property
    def head(self) -> tuple[HeadModule, ...]:
        """The modules after the pooling, but for a last ``Normalize``.

        None, where only the model's own ONNX file can run them; see `leaves_head_to_file`.

        Raises:
            ModelFileError: of a compiled model: one cannot be run, or has no weights.
        """
        if self._chain is None or self._is_static:
            return ()
        compiled = isinstance(self.config, TransformerConfig)
        try:
            modules = self._chain.head()
        except ModelFileError:
            if compiled:
                raise
            return ()
        if all(m.weights is not None or m.kind == "normalize" for m in modules):
            return modules
        if not compiled:
            return ()
        raise ModelFileError(
            f"{self.path} has no model.safetensors or pytorch_model.bin for a module after the "
            "pooling, which modules.json chains"
        )

    @property
    def late_head(self) -> tuple[HeadModule, ...]:
        """The modules that change the vectors of tokens, in a late-interaction model.

        Raises:
            ModelFileError: one cannot be run, or has no weights.
        """
        modules = self._chain.head("token_vectors") if self._chain is not None else ()
        for module in modules:
            if module.weights is None and module.kind != "normalize":
                raise ModelFileError(
                    f"{self.path} has no model.safetensors or pytorch_model.bin for a module that "
                    "changes the vectors of tokens, which modules.json chains"
                )
        return modules

    @property
    def leaves_head_to_file(self) -> bool:
        """Whether modules follow the pooling that only the model's own ONNX file can run."""
        modules = self._chain.head_modules if self._chain and not self._is_static else ()
        return any(kind != "Normalize" for kind, _ in modules) and not self.head

    @property
    def vocabulary(self) -> int | None:
        """Number of token ids that the model has vectors for, if its files state it."""
        if not isinstance(self.config, StaticConfig):
            return self.config.vocab_size
        shapes = self._tensor_shapes(self.weights("fp32"))
        mapped = shapes.get("mapping", ())
        return mapped[0] if mapped else table_shape(shapes)[0]

    def settings(self, spec: ModelSpec, tokenizer: TokenizerFile) -> str:
        """Return a hex digest of all but the weights that the vectors of `spec` depend on.

        Of values that are left out, and of those that other programs read, it says nothing.
        """
        decisive = {
            "tokenizer": tokenizer.digest,
            "lower_case": self.lower_case,
            "has_dense": self.has_dense,
            "normalize": spec.normalize,
            "config": self.config.model_dump(mode="json", exclude_defaults=True),
        }
        if spec.task == "score":
            decisive["scoring"] = asdict(self.scoring)
            decisive["head"] = [module.facts for module in self.head_for("score")]
        # a model that its own ONNX file runs was known without them before
        if isinstance(self.config, TransformerConfig) and spec.task == "embed" and self.head:
            decisive["head"] = [module.facts for module in self.head]
        if spec.late is not None:
            decisive["head"] = [module.facts for module in self.late_head]
            decisive["late"] = asdict(spec.late)
        if spec.term_weighting != "log":
            decisive["term_weighting"] = spec.term_weighting
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()

    def weights(self, precision: Precision) -> list[Path]:
        """Find the files with the weights to run, as `weight_files` chooses them.

        Raises:
            ModelFileError: there are none.
        """
        files = [self.path / name for name in self._weight_files(precision)]
        if not files and self._weight_files("int8"):
            raise ModelFileError(
                f"{self.path} has quantised weights only: they are run with precision='int8'"
            )
        if not files:
            raise ModelFileError(
                f"{self.path} has no model.safetensors or pytorch_model.bin (and no ONNX file): "
                "other weight formats are not read; save the model again with "
                "sentence-transformers or transformers"
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
        """Collect the facts about the model: the caller's first, then the files', then `known`.

        Raises:
            ModelFileError: the model cannot be run, or not for `task`.
            InputError: `max_tokens` is more than the model has positions for.
        """
        limit = self._limit()
        if max_tokens is not None and max_tokens > limit:
            raise InputError(
                f"max_tokens={max_tokens} (max_length of set_model), but {name} has positions for "
                f"{limit} tokens at most"
            )
        pooling: Poolings | None = None
        late: LateFiles | None = None
        weighting: TermWeighting = "log"
        match task:
            case "embed":
                pooling, normalize = self._pooling(name), self._is_normalized()
                dimension = self._dimension(pooling)
            case "terms":
                dimension, normalize = self._terms(), False
                weighting = self._term_weighting(name)
            case "token_vectors":
                late, normalize = self._late(), True
                dimension = self._token_dimension()
            case "score":
                pooling, dimension, normalize = self.scoring.pooling, 1, False
            case _:
                assert_never(task)
        if task == "score":
            return self._pair_spec(name, pooling, max_tokens, limit)
        known, prompts = self._known, read_prompts(self.path)
        length = max_tokens or min(self._max_tokens(limit), limit)
        stated = prompts.stated("query"), prompts.stated(*_DOCUMENT_PROMPTS)
        if late is not None:
            length = self._document_length(late, max_tokens, length, limit)
            stated = late.without_markers(*stated)
        query, document = self._instructions(prompts)
        return ModelSpec(
            name=name,
            task=task,
            dimension=dimension,
            pooling=pooling,
            normalize=normalize,
            max_tokens=length,
            query_prefix=_first(
                query_prefix, query, stated[0], known.query_prefix if known else None
            ),
            document_prefix=_first(
                document_prefix, document, stated[1], known.document_prefix if known else None
            ),
            license=known.license if known else "",
            smallest_dimension=known.smallest_dimension if known else None,
            prompts=prompts.prompts or (known.prompts if known else {}),
            late=late.facts if late is not None else None,
            term_weighting=weighting,
        )

    def _pair_spec(
        self, name: str, pooling: Poolings | None, max_tokens: int | None, limit: int
    ) -> ModelSpec:
        """Return the facts of a cross-encoder, whose pairs have no prefixes."""
        config, modules = self.config, self.head_for("score")
        width = config.dimension if isinstance(config, TransformerConfig) else None
        if modules and self._head_dimension(width or 0, modules) != 1:
            raise ModelFileError(
                f"{self.path} has several scores: a cross-encoder that ranks has one"
            )
        longest = min(self._max_tokens(limit), limit)
        if self.scoring.prompt is not None:
            longest = min(longest, PROMPTED_TOKENS)
        return ModelSpec(name, 1, pooling, max_tokens or longest, normalize=False, task="score")

    def accept(self, spec: ModelSpec, max_tokens: int | None = None) -> ModelSpec:
        """Check the caller's own `spec`, which wins over the files, and give it back.

        Raises:
            InputError: it does not fit the files, in dimension or length.
        """
        if max_tokens is not None:
            spec = replace(spec, max_tokens=max_tokens)
        dimension, limit = self._dimension(spec.pooling), self._limit()
        if spec.dimension != dimension or spec.max_tokens > limit:
            raise InputError(
                f"spec= has {spec.dimension} dimensions and {spec.max_tokens} tokens, but the "
                f"model in {self.path} has {dimension} and at most {limit}"
            )
        return spec

    @property
    def _is_static(self) -> bool:
        return self._chain is not None and self._chain.kind == "static"

    def _read_content(self) -> dict[str, Any]:
        path = self._first / "config.json"
        if self._is_static and not path.is_file():
            return {}
        return read_json(path, TypeAdapter(dict[str, Any]))

    def _config(self) -> TransformerConfig | StaticConfig | OtherConfig:
        path, content = self._first / "config.json", self._content
        if self._is_static or content.get("model_type") == STATIC:
            return checked(path, content, TypeAdapter(StaticConfig))
        files = self._weight_files("int8")
        if files and files[0].endswith(".onnx"):
            return checked(path, content, TypeAdapter(OtherConfig))
        name = architecture_name(content)
        kind = config_class(name)
        if kind is None:
            raise ModelFileError(
                f"{path} is of architecture {name!r}, and there is no ONNX file to run: "
                f"{', '.join(sorted(ARCHITECTURES))} can do without one"
            )
        return checked(path, content, TypeAdapter(kind))

    def _adapted(
        self, config: TransformerConfig | StaticConfig | OtherConfig
    ) -> TransformerConfig | StaticConfig | OtherConfig:
        """Return `config` with the weights of the task that is asked for, if it has such."""
        if not isinstance(config, XlmRobertaFlashConfig) or self._adapter is None:
            return config
        return config.adapted(self._adapter, self._route)

    def _instructions(self, prompts: Prompts) -> tuple[str | None, str | None]:
        """Return what the model's files put before queries and documents of the chosen task."""
        config, adapter = self.config, self.adapter
        if not isinstance(config, XlmRobertaFlashConfig) or adapter in (None, DEFAULT_ADAPTER):
            return None, None
        stated = {**prompts.prompts, **config.task_instructions}
        if adapter == RETRIEVAL:
            return stated.get("retrieval.query"), stated.get("retrieval.passage")
        instruction = stated.get(str(adapter), "")
        return instruction, instruction

    def _weight_files(self, precision: Precision) -> list[str]:
        names = self._chain.own_files(self._names) if self._chain else self._names
        content = {} if self._is_static else self._content
        return weight_files(names, content, precision, as_before=self._as_before)

    def _dimension(self, pooling: Poolings | None) -> int:
        config, chain = self.config, self._chain
        if isinstance(config, StaticConfig):
            return table_shape(self._tensor_shapes(self.weights("fp32")))[1]
        times = len(pooling) if isinstance(pooling, tuple) else 1
        if isinstance(config, TransformerConfig):
            return self._head_dimension(config.dimension * times, self.head)
        dense = chain.dense_dimension() if chain else None
        stated = chain.pooling() if chain else None
        widths = (stated.dimension if stated else None, config.hidden_size)
        for dimension in (dense, *(width and width * times for width in widths)):
            if dimension is not None:
                return dimension
        if self._known is not None:
            return self._known.dimension
        raise ModelFileError(f"{self.path} does not state the dimension of its vectors")

    def _head_dimension(self, dimension: int, modules: Sequence[HeadModule]) -> int:
        """Follow a vector of the pooling's `dimension` through the modules after it."""
        for module in modules:
            if module.inputs not in (None, dimension):
                raise ModelFileError(
                    f"{self.path / 'modules.json'} chains a module that reads vectors of "
                    f"{module.inputs} numbers, but those before it return {dimension}"
                )
            dimension = module.outputs or dimension
        return dimension

    def _terms(self) -> int:
        if not isinstance(self.config, TransformerConfig) or "terms" not in self.config.tasks:
            able = (name for name, kind in ARCHITECTURES.items() if "terms" in kind.tasks)
            raise ModelFileError(
                f"{self.path} cannot be run as a SPLADE model: that needs a model.safetensors or "
                f"pytorch_model.bin of architecture {', '.join(map(repr, able))} with the head "
                "that guesses masked words (such as BertForMaskedLM)"
            )
        return self.config.vocab_size

    def _late(self) -> LateFiles:
        if not isinstance(self.config, TransformerConfig) or (
            "token_vectors" not in self.config.tasks
        ):
            able = (name for name, kind in ARCHITECTURES.items() if "token_vectors" in kind.tasks)
            raise ModelFileError(
                f"{self.path} cannot be run as a late-interaction model: that needs a "
                f"model.safetensors of architecture {', '.join(map(repr, able))}"
            )
        return read_late(self.path, self._first, self._chain.mask if self._chain else None)

    def _token_dimension(self) -> int:
        """Return the dimension of a token's vector after the projection."""
        config = self.config
        if self._chain is None:
            shape = self._tensor_shapes(self.weights("fp32")).get(PROJECTION, ())
            if len(shape) != 2:
                raise ModelFileError(
                    f"the weights in {self.path} have no projection {PROJECTION!r}, which a "
                    "late-interaction model without modules.json needs"
                )
            return shape[0]
        width = config.dimension if isinstance(config, TransformerConfig) else 0
        return self._head_dimension(width, self.late_head)

    def _document_length(self, late: LateFiles, wanted: int | None, stated: int, limit: int) -> int:
        """Return the most tokens of a document; a query must not need more."""
        length = wanted or min(late.document_length or stated, limit)
        least = late.facts.longest_query
        if least > limit:
            raise ModelFileError(
                f"queries of {self.path} have {least} tokens, but there are positions for {limit}"
            )
        if wanted is not None and wanted < least:
            raise InputError(
                f"max_tokens={wanted}, but queries of {self.path} have up to {least} tokens: pass "
                f"at least {least}"
            )
        return max(length, least)

    def _term_weighting(self, name: str) -> TermWeighting:
        if self._chain is not None:
            return self._chain.term_weighting()
        entry = find_sparse(name)
        return entry.term_weighting if entry else "log"

    @property
    def token_head(self) -> Path:
        """The file of the head that weighs each token, beside the dense vector.

        Raises:
            ModelFileError: the model has none, or is not compiled.
        """
        path = self._first / TERMS_FILE
        if not path.is_file() or not isinstance(self.config, TransformerConfig):
            raise ModelFileError(
                f"{self.path} has no {TERMS_FILE} beside weights that can be compiled: sparse=True "
                "is for models with such a head, as BAAI/bge-m3; set_sparse_model() sets another "
                "model for sparse vectors"
            )
        return path

    @property
    def query_weights(self) -> Path | None:
        """The file with the weights of a query's tokens, if a sparse model has one.

        Its queries are then not run through the network.

        Raises:
            ModelFileError: it is missing.
        """
        if self._chain is not None:
            return self._chain.query_weights()
        path = self.path / IDF_FILE
        return path if path.is_file() else None

    def _pooling(self, name: str) -> Poolings:
        if isinstance(self.config, StaticConfig):
            return "mean"
        stated = self._chain.pooling() if self._chain else None
        if stated is None:
            if self._known is not None and self._known.pooling is not None:
                return self._known.pooling
            if is_late(self.path, self._first):
                raise ModelFileError(
                    f"{self.path} is a late-interaction model: LateInteractionTextEmbedding runs "
                    "it, and set_late_model() sets it"
                )
            if isinstance(self.config, DecoderConfig) and not self.config.is_bidirectional:
                logger.warning(
                    "%s does not say how to pool its tokens; taking the last one, the only one "
                    "that attends to all others",
                    name,
                )
                return "last_token"
            logger.warning(
                "%s does not say how to pool its tokens; taking their mean, as "
                "sentence-transformers does",
                name,
            )
            return "mean"
        width = self.config.hidden_size
        if isinstance(self.config, TransformerConfig):
            width = self.config.dimension
        if stated.dimension not in (None, width or stated.dimension):
            raise ModelFileError(
                f"{self.path}: the Pooling module pools {stated.dimension} numbers, but the "
                f"model's hidden_size is {width}"
            )
        return stated.pooling

    def _is_normalized(self) -> bool:
        if self._chain is not None:
            return self._chain.normalize
        if isinstance(self.config, StaticConfig):
            return self.config.normalize
        return self._known.normalize if self._known else True

    def _limit(self) -> int:
        """Return the maximum number of tokens per text."""
        if isinstance(self.config, TransformerConfig):
            return self.config.positions
        if isinstance(self.config, OtherConfig):
            return self.config.max_position_embeddings or _NO_LIMIT
        return _NO_LIMIT

    def _max_tokens(self, limit: int) -> int:
        stated = read_sentence_config(self._first).max_seq_length
        if stated is not None:
            return stated
        if self._known is not None:
            return self._known.max_tokens
        if isinstance(self.config, StaticConfig):
            return self.config.longest or limit
        path = self._first / "tokenizer_config.json"
        if path.is_file():
            length = read_json(path, TypeAdapter(_TokenizerConfig)).model_max_length
            if length is not None and SHORTEST <= length < _NO_LIMIT:
                return int(length)
        return limit


def _first(*candidates: str | None) -> str:
    return next((text for text in candidates if text is not None), "")
