"""One model: its files, its facts and, on demand, the parts that run."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qdrant_embed.encoder.cache import cache_folder
from qdrant_embed.encoder.catalog import find, sparse_name
from qdrant_embed.encoder.configs import ModelDirectory
from qdrant_embed.encoder.fidelity import Precision
from qdrant_embed.encoder.sources import ModelSource, find_model
from qdrant_embed.encoder.spec import ModelSpec
from qdrant_embed.encoder.weights import weights_digest
from qdrant_embed.errors import InputError

if TYPE_CHECKING:
    from qdrant_embed.encoder.runtime import ModelRuntime
    from qdrant_embed.encoder.session import Provider


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

    def __post_init__(self) -> None:
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
    """What is known of a model once its files are found."""

    source: ModelSource
    directory: ModelDirectory
    spec: ModelSpec
    weights: list[Path]
    weights_sha256: str


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
        requested = os.fspath(self._options.model_name)
        if self._facts is None and not Path(requested).is_dir():
            entry = find(requested)
            known = entry.spec.name if entry else sparse_name(requested)
            if known is not None:
                return known
        return self.facts.source.name

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

    def _find(self) -> ModelFacts:
        options = self._options
        cache = cache_folder(options.cache_dir)
        source = find_model(
            options.model_name,
            cache=cache,
            revision=options.revision,
            precision=options.precision,
            local_files_only=options.local_files_only,
        )
        directory = ModelDirectory(source.folder, source.entry.spec if source.entry else None)
        weights = directory.weights(options.possible_precision)
        return ModelFacts(
            source=source,
            directory=directory,
            spec=directory.spec(source.name, max_tokens=options.max_tokens, splade=options.splade),
            weights=weights,
            weights_sha256=weights_digest(weights, cache),
        )

    def _load(self) -> ModelRuntime:
        # here, so that no library is loaded before a model is
        from qdrant_embed.encoder.runtime import RuntimeLoader

        facts, options = self.facts, self._options
        return RuntimeLoader(
            facts.directory,
            facts.spec,
            facts.weights,
            facts.weights_sha256,
            options.possible_precision,
            options.execution_providers,
            cache_folder(options.cache_dir),
        ).load()
