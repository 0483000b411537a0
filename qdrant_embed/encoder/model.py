"""One model: its files, its facts and, on demand, the parts that run."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from qdrant_embed.encoder.facts.catalog import find, sparse_name
from qdrant_embed.encoder.facts.precision import GRAPH_VERSION, Precision
from qdrant_embed.encoder.facts.spec import ModelSpec
from qdrant_embed.encoder.files.cache import cache_folder
from qdrant_embed.encoder.files.recall import Recalled, Recollection
from qdrant_embed.encoder.files.sources import ModelSource, find_model
from qdrant_embed.errors import InputError, ModelFileError, check_path, check_str, check_whole

if TYPE_CHECKING:
    from qdrant_embed.encoder.files.exported import ExportedModel
    from qdrant_embed.encoder.files.runnable import Runnable
    from qdrant_embed.encoder.run.runtime import ModelRuntime
    from qdrant_embed.encoder.run.session import Provider

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelOptions:
    """How to find and run a model; the names are those of `TextEmbedding`."""

    model_name: str | os.PathLike[str]
    cache_dir: str | os.PathLike[str] | None = None
    providers: Sequence[Provider] | None = None
    cuda: bool = False
    device_ids: Sequence[int] | None = None
    max_tokens: int | None = None
    revision: str | None = None
    local_files_only: bool = False
    precision: Precision = "int8"
    splade: bool = False
    dimensions: int | None = None
    spec: ModelSpec | None = None

    def __post_init__(self) -> None:
        check_path("the name of a model", self.model_name)
        if self.cache_dir is not None:
            check_path("cache_dir", self.cache_dir)
        if self.max_tokens is not None:
            check_whole("max_tokens", self.max_tokens, 3)  # [CLS], one token, [SEP]
        if self.revision is not None:
            check_str("revision", self.revision)
        if self.revision == "":
            raise InputError("revision is empty: name a branch, tag or commit, or leave it out")
        if self.spec is not None and not isinstance(self.spec, ModelSpec):
            raise InputError(f"spec must be a ModelSpec, not {type(self.spec).__name__}")
        for option in ("providers", "device_ids"):
            value = getattr(self, option)
            if value is not None and not isinstance(value, list | tuple):
                raise InputError(f"{option} must be a list, not {value!r:.80}")
        if self.dimensions is not None:
            check_whole("dimensions", self.dimensions, 1)
        if self.precision not in ("int8", "fp32"):
            raise InputError(f"precision must be 'int8' or 'fp32', not {self.precision!r}")
        if self.cuda and self.providers is not None:
            raise InputError("pass either cuda=True or providers=, not both")
        if self.device_ids is not None and not self.cuda:
            raise InputError("device_ids= names CUDA devices: it needs cuda=True")
        if self.device_ids is not None and len(self.device_ids) != 1:
            raise InputError(
                f"device_ids={list(self.device_ids)}: an encoder runs on one device; make one "
                "encoder for each"
            )

    @property
    def execution_providers(self) -> Sequence[Provider] | None:
        """The providers for onnxruntime; ``None`` for the CPU."""
        if not self.cuda:
            return self.providers
        device = self.device_ids[0] if self.device_ids else 0
        return [("CUDAExecutionProvider", {"device_id": device})]

    @property
    def possible_precision(self) -> Precision:
        """`precision`, or ``fp32`` where it must be: int8 kernels are the CPU's."""
        on_cpu = all(p == "CPUExecutionProvider" for p in self.execution_providers or ())
        return self.precision if on_cpu else "fp32"


@dataclass(frozen=True)
class ModelFacts:
    """What is known of a model once its files are found.

    Attributes:
        source: where they are.
        spec: its facts, with the dimension that is asked for.
        weights_sha256: digest of its weights.
        runnable: makes it ready to run; compiles it where it must be.
    """

    source: ModelSource
    spec: ModelSpec
    weights_sha256: str
    runnable: Callable[[], Runnable]


class Model:
    """A model that is found, read and compiled when first needed, once, by whichever thread."""

    def __init__(self, options: ModelOptions) -> None:
        self._options = options
        self._lock = threading.RLock()
        self._facts: ModelFacts | None = None
        self._runtime: ModelRuntime | None = None

    @property
    def name(self) -> str:
        """The model's name; a catalogued one needs no files to be known."""
        if (known := self._known) is not None:
            return known.name
        sparse = sparse_name(os.fspath(self._options.model_name))
        return self.facts.spec.name if self._facts or sparse is None else sparse

    @property
    def dimension(self) -> int:
        """Numbers in one vector; a catalogued model needs no files for it to be known."""
        known = self._known
        if known is not None:
            return self._options.dimensions or known.dimension
        return self.facts.spec.dimension

    @property
    def _known(self) -> ModelSpec | None:
        """What is known before the files are found; ``None`` once they are."""
        if self._facts is not None:
            return None
        if self._options.spec is not None:
            return self._options.spec
        requested = os.fspath(self._options.model_name)
        entry = None if os.path.isdir(requested) else find(requested)
        return entry.spec if entry is not None else None

    @property
    def facts(self) -> ModelFacts:
        """What the files say; finds, and where needed downloads, them."""
        if self._facts is None:
            with self._lock:
                if self._facts is None:
                    self._facts = self._find()
        return self._facts

    @property
    def runtime(self) -> ModelRuntime:
        """Tokenizer and session; compiles the graph where the cache has none."""
        if self._runtime is None:
            with self._lock:
                if self._runtime is None:
                    self._runtime = self._load()
        return self._runtime

    def export(self, folder: Path, spec: ModelSpec) -> None:
        """Writes the model, with the prefixes of `spec`, to a folder that needs nothing else."""
        from qdrant_embed.encoder.files.exported import export

        facts, runnable = self.facts, self.facts.runnable()
        spec = replace(
            runnable.spec, query_prefix=spec.query_prefix, document_prefix=spec.document_prefix
        )
        export(
            replace(runnable, spec=spec),
            folder,
            revision=facts.source.revision,
            weights_sha256=facts.weights_sha256,
            cache=cache_folder(self._options.cache_dir),
        )

    def _find(self) -> ModelFacts:
        options = self._options
        cache = cache_folder(options.cache_dir)
        source = find_model(
            options.model_name,
            cache=cache,
            revision=options.revision,
            precision=options.possible_precision,
            local_files_only=options.local_files_only,
        )
        if source.exported is not None:
            return self._exported(source, source.exported)
        asked = (GRAPH_VERSION, source, options.max_tokens, options.splade, options.spec)
        recollection = Recollection(source.folder, (*asked, options.possible_precision), cache)
        known = recollection.read()
        if known is not None:
            runnable = known.runnable
            return ModelFacts(
                source, self._shortened(known.spec), known.weights_sha256, lambda: runnable
            )
        return self._read(source, recollection, cache)

    def _read(self, source: ModelSource, recollection: Recollection, cache: Path) -> ModelFacts:
        """What the files of a model say that is not known yet."""
        # here, for a model that is known needs none of it
        from qdrant_embed.encoder.compile.preparation import prepare
        from qdrant_embed.encoder.facts.directory import ModelDirectory
        from qdrant_embed.encoder.files.cache import weights_digest
        from qdrant_embed.encoder.files.tensors import tensor_shapes

        options = self._options
        directory = ModelDirectory(
            source.folder,
            source.entry.spec if source.entry else None,
            tensor_shapes=tensor_shapes,
        )
        weights = directory.weights(options.possible_precision)
        if options.spec is None:
            spec = directory.spec(
                source.name,
                task="terms" if options.splade else "embed",
                max_tokens=options.max_tokens,
            )
        else:
            spec = directory.accept(options.spec, max_tokens=options.max_tokens)
        digest = weights_digest(weights, cache)

        def runnable() -> Runnable:
            found = prepare(directory, spec, weights, digest, options.possible_precision, cache)
            recollection.write(Recalled(spec, digest, found))
            return found

        return ModelFacts(source, self._shortened(spec), digest, runnable)

    def _exported(self, source: ModelSource, exported: ExportedModel) -> ModelFacts:
        """An exported model is run as it was exported."""
        options, spec, folder = self._options, exported.spec, source.folder
        if options.splade:
            raise ModelFileError(f"{folder} is an exported dense model, not a SPLADE model")
        if options.spec is not None:
            raise InputError(f"spec= cannot change {folder}: it is exported; export it anew")
        if exported.report.precision == "int8" and options.possible_precision == "fp32":
            raise InputError(f"{folder} was exported in int8: for fp32, export it in fp32")
        if options.max_tokens is not None:
            if options.max_tokens > spec.max_tokens:
                raise InputError(
                    f"max_tokens={options.max_tokens}, but {folder} was exported for "
                    f"{spec.max_tokens} tokens at most"
                )
            spec = replace(spec, max_tokens=options.max_tokens)
        return ModelFacts(
            source,
            self._shortened(spec),
            exported.weights_sha256,
            lambda: replace(exported.runnable(folder), spec=spec),
        )

    def _shortened(self, spec: ModelSpec) -> ModelSpec:
        dimensions = self._options.dimensions
        if dimensions in (None, spec.dimension):
            return spec
        if dimensions > spec.dimension:
            raise InputError(
                f"dimensions={dimensions}, but vectors of {spec.name} have {spec.dimension}"
            )
        if spec.smallest_dimension is None or dimensions < spec.smallest_dimension:
            trained = (
                "it is not known to be trained for being cut"
                if spec.smallest_dimension is None
                else f"it is trained for {spec.smallest_dimension} or more"
            )
            logger.warning(
                "vectors of %s are cut from %d to %d numbers, but %s: expect worse hits",
                spec.name,
                spec.dimension,
                dimensions,
                trained,
            )
        return replace(spec, dimension=dimensions, normalize=True)

    def _load(self) -> ModelRuntime:
        # here, so that no library is loaded before a model is
        from qdrant_embed.encoder.run.runtime import start

        facts, providers = self.facts, self._options.execution_providers
        if providers is not None:
            from qdrant_embed.encoder.run.session import check_providers

            check_providers(providers)  # before anything long
        runnable = facts.runnable()
        try:
            return start(runnable, providers, facts.spec.dimension)
        except ModelFileError:
            if runnable.kind != "graph" or facts.source.exported is not None:
                raise
            from qdrant_embed.encoder.files.compiled import discard

            discard(runnable.files[0])  # damaged in the cache: make it once more
            self._facts = self._find()
            return start(self._facts.runnable(), providers, facts.spec.dimension)
