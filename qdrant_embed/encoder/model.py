"""One model: its files, its facts and, on demand, the parts that run."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from qdrant_embed.encoder.cache import cache_folder, sha256
from qdrant_embed.encoder.catalog import find
from qdrant_embed.encoder.compiler import CompiledModel, CompileReport, compiled_model, discard
from qdrant_embed.encoder.configs import ModelDirectory
from qdrant_embed.encoder.cores import usable_cores
from qdrant_embed.encoder.fidelity import Precision
from qdrant_embed.encoder.sources import ModelSource, find_model
from qdrant_embed.encoder.spec import ModelSpec
from qdrant_embed.errors import InputError, ModelFileError

if TYPE_CHECKING:
    from qdrant_embed.encoder.query import QueryRunner
    from qdrant_embed.encoder.session import Provider, Session
    from qdrant_embed.encoder.tokenizer import Tokenizer


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


@dataclass(frozen=True)
class ModelFacts:
    """What is known of a model once its files are found."""

    source: ModelSource
    directory: ModelDirectory
    spec: ModelSpec
    weights_sha256: str


@dataclass(frozen=True)
class ModelRuntime:
    """The parts that run."""

    tokenizer: Tokenizer
    session: Session
    queries: QueryRunner
    report: CompileReport


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
            if entry is not None:
                return entry.spec.name
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
            hub_cache=cache / "hub" if options.cache_dir is not None else None,
            revision=options.revision,
            local_files_only=options.local_files_only,
        )
        directory = ModelDirectory(source.folder, source.entry.spec if source.entry else None)
        return ModelFacts(
            source=source,
            directory=directory,
            spec=directory.spec(source.name, max_tokens=options.max_tokens),
            weights_sha256=sha256(directory.weights, cache),
        )

    def _load(self) -> ModelRuntime:
        # here, so that neither library is loaded before a model is
        from qdrant_embed.encoder.tokenizer import Tokenizer

        facts = self.facts
        tokenizer = Tokenizer(facts.directory.tokenizer, facts.spec.max_tokens)
        if tokenizer.vocabulary_size > facts.directory.config.vocab_size:
            raise ModelFileError(
                f"{facts.directory.tokenizer} has {tokenizer.vocabulary_size} tokens, but the "
                f"model has vectors for {facts.directory.config.vocab_size}: they do not belong "
                "together"
            )
        from qdrant_embed.encoder.query import QueryRunner
        from qdrant_embed.encoder.session import CPU, Session, check_providers

        providers = self._options.execution_providers or CPU
        check_providers(providers)  # before anything long
        on_cpu = all(provider in CPU for provider in providers)
        precision = self._options.precision if on_cpu else "fp32"  # int8 kernels are the CPU's
        compiled = self._compiled(tokenizer, precision)
        try:
            session = Session(compiled.graph, providers)
        except ModelFileError:  # damaged in the cache: make it once more
            discard(compiled.graph)
            compiled = self._compiled(tokenizer, precision)
            session = Session(compiled.graph, providers)
        spread = None
        if on_cpu and usable_cores() > 1:
            spread = partial(Session, compiled.graph, providers, threads=2)
        return ModelRuntime(tokenizer, session, QueryRunner(session, spread), compiled.report)

    def _compiled(self, tokenizer: Tokenizer, precision: Precision) -> CompiledModel:
        facts = self.facts
        return compiled_model(
            facts.directory.weights,
            facts.weights_sha256,
            facts.directory.config,
            facts.spec,
            tokenizer,
            precision,
            cache_folder(self._options.cache_dir),
        )
