"""One model, from its name to what runs: files, facts, run plan, loaded model; each on demand."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import TYPE_CHECKING

from qdrant_embed.encoder.facts.catalog import KINDS, find, known_name
from qdrant_embed.encoder.facts.precision import (
    PRECISIONS,
    RUNTIMES,
    ModelReport,
    Precision,
    Runtime,
)
from qdrant_embed.encoder.facts.sparse_catalog import IDF_FILE, TERMS_FILE
from qdrant_embed.encoder.facts.spec import ModelSpec
from qdrant_embed.encoder.files.cache import cache_folder, warn_of_others
from qdrant_embed.encoder.files.model_files import (
    ModelFiles,
    find_model,
    names_folder,
    with_own_file,
)
from qdrant_embed.encoder.files.plan import (
    QUERIES,
    PlanCache,
    RunKind,
    RunPlan,
    check_new,
    export_plan,
)
from qdrant_embed.encoder.interfaces import (
    NotAsRecordedError,
    OtherFormError,
    Recorded,
    Route,
    Task,
)
from qdrant_embed.errors import (
    InputError,
    ModelError,
    ModelFileError,
    check_path,
    check_str,
    check_whole,
)
from qdrant_embed.forks import ForkLock
from qdrant_embed.stalls import announced

if TYPE_CHECKING:
    from qdrant_embed.encoder.facts.directory import ModelDirectory
    from qdrant_embed.encoder.lexical.query_terms import QueryTerms
    from qdrant_embed.encoder.run.loaded_model import LoadedModel
    from qdrant_embed.encoder.run.session import Provider

logger = logging.getLogger(__name__)

_LONGEST_REVISION = 200  # characters
_EQUAL = 1e-4  # largest difference of a number in two vectors of one model


@dataclass(frozen=True)
class ModelOptions:
    """How to find and run a model; see `TextEmbedding`, and `ModelSpec` for `task`.

    `recorded` is the record of the collection that names the model, if one does. `route` says which
    texts are encoded, where queries have modules of their own, and `adapter` names the task whose
    weights are run, of a model that has some for each task. With `terms`, the model also weighs
    each token; its outputs are those of `WeighedTokens`. `runtime` is what runs documents.
    """

    model_name: str | os.PathLike[str]
    cache_dir: str | os.PathLike[str] | None = None
    providers: Sequence[Provider] | None = None
    cuda: bool = False
    device_ids: Sequence[int] | None = None
    max_tokens: int | None = None
    revision: str | None = None
    local_files_only: bool = False
    precision: Precision = "int8"
    task: Task = "embed"
    dimensions: int | None = None
    spec: ModelSpec | None = None
    recorded: Recorded | None = None
    route: Route = "document"
    adapter: str | None = None
    terms: bool = False
    runtime: Runtime = "onnxruntime"

    def __post_init__(self) -> None:
        check_path("the name of a model", self.model_name)
        if self.cache_dir is not None:
            check_path("cache_dir", self.cache_dir)
        if self.max_tokens is not None:
            check_whole("max_tokens", self.max_tokens, 3)  # [CLS], one token, [SEP]
        if self.revision is not None:
            check_str("revision", self.revision)
            _check_revision(self.revision)
        _check_spec(self.spec, self.task)
        for option in ("providers", "device_ids"):
            value = getattr(self, option)
            if value is not None and not isinstance(value, list | tuple):
                raise InputError(f"{option} must be a list, not {value!r:.80}")
        if self.dimensions is not None:
            check_whole("dimensions", self.dimensions, 1)
        if self.terms and self.dimensions is not None:
            raise InputError("dimensions= cannot be combined with sparse=True")
        if self.precision not in PRECISIONS:
            raise InputError(
                f"precision must be one of {', '.join(map(repr, PRECISIONS))}, not "
                f"{self.precision!r:.80}"
            )
        self._check_runtime()
        if self.cuda and self.providers is not None:
            raise InputError("pass either cuda=True or providers=, not both")
        if self.device_ids is not None and not self.cuda:
            raise InputError("device_ids= names CUDA devices: it needs cuda=True")
        if self.device_ids is not None and len(self.device_ids) != 1:
            raise InputError(
                f"device_ids={list(self.device_ids)}: an encoder runs on one device; make one "
                "encoder for each"
            )

    def _check_runtime(self) -> None:
        if self.runtime not in RUNTIMES:
            raise InputError(
                f"runtime must be one of {', '.join(map(repr, RUNTIMES))}, not {self.runtime!r:.80}"
            )
        if self.runtime != "openvino":
            return
        if self.cuda or self.providers is not None:
            raise InputError("runtime='openvino' runs on the CPU: omit cuda= and providers=")
        if self.precision != "int8":
            raise InputError(
                f"runtime='openvino' computes in int8, not in {self.precision}: omit precision="
            )
        if self.terms:
            raise InputError("runtime='openvino' cannot be combined with sparse=True")

    def anywhere(self) -> ModelOptions:
        """Return the options as another process needs them, whatever folder it works in."""
        folder, cache = self.model_name, self.cache_dir
        return replace(
            self,
            model_name=os.path.abspath(folder) if self.is_folder else folder,
            cache_dir=None if cache is None else cache_folder(cache).absolute(),
        )

    @property
    def is_folder(self) -> bool:
        """Whether the model's name is that of a folder."""
        return self.recorded is None and names_folder(self.model_name)

    @property
    def execution_providers(self) -> Sequence[Provider] | None:
        """Execution providers for onnxruntime; ``None`` for the CPU."""
        if not self.cuda:
            return self.providers
        device = self.device_ids[0] if self.device_ids else 0
        return [("CUDAExecutionProvider", {"device_id": device})]

    @property
    def files_beside(self) -> tuple[str, ...]:
        """Names of files beside the weights that are needed, too, if there are such files."""
        if self.terms:
            return (TERMS_FILE,)
        return (IDF_FILE,) if self.task == "terms" else ()

    @property
    def runs_on_onnxruntime(self) -> bool:
        """Whether nothing else can be meant to run documents."""
        on_cpu = self.providers is None and not self.cuda
        possible = on_cpu and self.precision == "int8" and self.task == "embed" and not self.terms
        return self.runtime == "onnxruntime" or self.route == "query" or not possible

    @property
    def possible_precision(self) -> Precision:
        """`precision` on the CPU, else ``fp32``: there are int8 kernels for the CPU only."""
        on_cpu = all(p == "CPUExecutionProvider" for p in self.execution_providers or ())
        return self.precision if on_cpu else "fp32"


def _check_revision(revision: str) -> None:
    if not revision:
        raise InputError("revision is empty: name a branch, tag or commit, or leave it out")
    is_name = revision.isprintable() and len(revision) <= _LONGEST_REVISION
    if not is_name or any(part in (".", "..") for part in revision.split("/")):
        raise InputError(
            f"revision={revision!r:.80} cannot be the name of a branch or tag, or a commit"
        )


def _check_spec(spec: object, task: Task) -> None:
    if spec is None:
        return
    if not isinstance(spec, ModelSpec):
        raise InputError(f"spec must be a ModelSpec, not {type(spec).__name__}")
    if spec.task != task:
        raise InputError(f"spec= is of task {spec.task!r}; it has to be {task!r}")


@dataclass(frozen=True)
class ModelFacts:
    """What is known about a model once its files are found.

    Attributes:
        files: the model's files.
        spec: its facts, with the dimension that is asked for.
        weights_sha256: digest of its weights.
        tokenizer_sha256: see `RunPlan`.
        kind: see `RunPlan`.
        file: the file with its weights, as a path in the folder of `files`.
        plan: returns the plan to run it; compiles the model if necessary.
        tokenizer: its ``tokenizer.json``.
        adapter: the task whose weights are asked for, of a model that has some for each task.
        is_routed: whether queries go through other modules, or other weights, than documents.
        queries: the model that encodes them then.
        lower_case: whether texts are lower-cased before they are tokenised.
        query_weights: see `RunPlan`.
        terms_sha256: see `RunPlan`.
    """

    files: ModelFiles
    spec: ModelSpec
    weights_sha256: str
    tokenizer_sha256: str | None
    kind: RunKind
    file: str
    plan: Callable[[], RunPlan]
    tokenizer: Path
    adapter: str | None = None
    is_routed: bool = False
    queries: Model | None = None
    lower_case: bool = False
    query_weights: Path | None = None
    terms_sha256: str | None = None


class Model:
    """A model that is found, read, compiled and loaded when first needed, once, in any thread."""

    def __init__(self, options: ModelOptions) -> None:
        self._options = options
        self._lock = ForkLock(awaited=True)
        self._facts: ModelFacts | None = None
        self._loaded: LoadedModel | None = None
        self._query_terms: QueryTerms | None = None
        self._others: dict[tuple[str, str | None], bool | OtherFormError] = {}

    def __reduce__(self) -> tuple[type[Model], tuple[ModelOptions]]:
        return Model, (self._options.anywhere(),)

    def __deepcopy__(self, memo: object) -> Model:
        return self  # it never changes, and threads share it

    @property
    def options(self) -> ModelOptions:
        """How the model is found and run."""
        return self._options

    @property
    def name(self) -> str:
        """The model's name; a catalogued one needs no files to be known."""
        if (known := self._known) is not None:
            return known.name
        options = self._options
        name = None
        if self._facts is None and not options.is_folder:
            name = known_name(os.fspath(options.model_name), options.task)
        return self.facts.spec.name if name is None else name

    @property
    def dimension(self) -> int:
        """Dimension of a vector; a catalogued model needs no files for it to be known."""
        known = self._known
        if known is not None:
            return self._options.dimensions or known.dimension
        return self.facts.spec.dimension

    @property
    def _known(self) -> ModelSpec | None:
        """What is known before the files are found; ``None`` afterwards."""
        if self._facts is not None:
            return None
        if self._options.spec is not None:
            return self._options.spec
        is_folder = self._options.is_folder
        entry = None if is_folder else find(os.fspath(self._options.model_name))
        return entry.spec if entry is not None else None

    @property
    def facts(self) -> ModelFacts:
        """What the files say; finds them, and downloads them where needed."""
        if self._facts is None:
            with self._lock:
                if self._facts is None:
                    self._facts = self._find()
        return self._facts

    @property
    def queries(self) -> Model:
        """The model that encodes queries: this one, as a rule."""
        return self.facts.queries or self

    def load(self) -> LoadedModel:
        """Return the loaded model; find, compile and load it where that has not happened yet."""
        if self._loaded is None:
            with self._lock:
                if self._loaded is None:
                    self._loaded = self._load()
        return self._loaded

    @property
    def runtime(self) -> Runtime:
        """What runs documents: ``auto`` until the model is loaded, if that is to find out."""
        if self._loaded is not None:
            return self._loaded.report.runtime
        return "onnxruntime" if self._options.runs_on_onnxruntime else self._options.runtime

    def query_terms(self) -> QueryTerms | None:
        """Return what weighs the tokens of queries without a network, if the model has that.

        The network is not loaded for it, nor compiled.
        """
        facts = self.facts
        if self._query_terms is None and facts.query_weights is not None:
            from qdrant_embed.encoder.lexical.query_terms import QueryTerms
            from qdrant_embed.encoder.run.tokenizer import Tokenizer

            with self._lock:
                tokenizer = Tokenizer(
                    facts.tokenizer,
                    facts.spec.max_tokens,
                    special_tokens=False,
                    lower_case=facts.lower_case,
                )
                self._query_terms = QueryTerms(tokenizer, facts.query_weights, facts.spec.dimension)
        return self._query_terms

    def export(
        self, folder: str | os.PathLike[str], spec: Callable[[], ModelSpec] | None = None
    ) -> None:
        """Write the model to a new folder that needs nothing else.

        Args:
            folder: the folder.
            spec: returns facts with other prefixes than the model's own.

        Raises:
            InputError: there is something in the folder already.
            ModelFileError: the folder cannot be written.
        """
        check_path("folder", folder)
        folder = Path(folder)
        check_new(folder)  # before anything is fetched or compiled
        plan = self.facts.plan()
        chosen = self.facts.spec if spec is None else spec()
        own = plan.spec.with_prefixes(chosen.query_prefix, chosen.document_prefix)
        plan = replace(plan, spec=own, revision=self.facts.files.revision)
        other = self.facts.queries
        queries = None
        if other is not None:
            queries = replace(other.facts.plan(), revision=plan.revision, is_routed=False)
        export_plan(plan, folder, cache_folder(self._options.cache_dir), queries)

    def is_also(self, weights_sha256: str, tokenizer_sha256: str | None) -> bool:
        """Return whether the model's own ONNX file has these digests.

        Releases that could not compile the model's weights ran that file. Its vectors are those of
        the weights, both in float32; how near int8 comes to them is measured elsewhere.

        Raises:
            OtherFormError: if the file has these digests, but returns other vectors.
        """
        return self._is_also(self.facts, weights_sha256, tokenizer_sha256)

    def _is_also(
        self, facts: ModelFacts, weights_sha256: str, tokenizer_sha256: str | None
    ) -> bool:
        key = (weights_sha256, tokenizer_sha256)
        if key not in self._others:
            try:
                with announced(f"comparing {facts.spec.name} with its own ONNX file"):
                    self._others[key] = self._compared(facts, *key)
            except OtherFormError as error:
                self._others[key] = error
        verdict = self._others[key]
        if isinstance(verdict, OtherFormError):
            raise verdict
        return verdict

    def _compared(
        self, facts: ModelFacts, weights_sha256: str, tokenizer_sha256: str | None
    ) -> bool:
        """See `is_also`."""
        from qdrant_embed.encoder.facts.directory import ModelDirectory
        from qdrant_embed.encoder.facts.tokenizer_file import read_tokenizer_file
        from qdrant_embed.encoder.files.cache import once, weights_digest
        from qdrant_embed.encoder.files.tensors import tensor_shapes

        cache = cache_folder(self._options.cache_dir)
        precisions: tuple[Precision, ...] = ("int8", "fp32")
        for precision in precisions if facts.files.plan is None and facts.queries is None else ():
            try:
                files = with_own_file(
                    facts.files,
                    weights_sha256,
                    cache=cache,
                    precision=precision,
                    local_files_only=self._options.local_files_only,
                    recorded=self._options.recorded,
                )
                directory = ModelDirectory(
                    files.folder,
                    files.entry.spec if files.entry else None,
                    tensor_shapes=tensor_shapes,
                    as_before=True,
                )
                weights = directory.weights(precision)
                if weights[0].suffix != ".onnx" or weights_digest(weights, cache) != weights_sha256:
                    continue
                compiled = self._in_float32(facts)
                spec = compiled.facts.plan().spec
                settings = directory.settings(spec, read_tokenizer_file(directory.tokenizer))
                if tokenizer_sha256 not in (None, settings):
                    continue
                plan = _make_plan(
                    directory, spec, weights, weights_sha256, settings, precision, cache
                )
                both = (weights_sha256, settings, compiled.facts.plan().report, spec.pooling)
                digest = sha256(repr(both).encode()).hexdigest()
                once(cache, "equal", digest, partial(_check_equal, plan, compiled))
            except OtherFormError:
                raise
            except ModelError as error:
                logger.info("%s has no ONNX file to compare with: %s", facts.spec.name, error)
                continue
            return True
        return False

    def _in_float32(self, facts: ModelFacts) -> Model:
        """Return the same model in float32 on the CPU, whole, and as it is on this machine."""
        recorded = self._options.recorded and Recorded(may_be_fetched=False)
        return Model(
            replace(
                self._options,
                revision=facts.files.revision,
                local_files_only=True,
                recorded=recorded,
                precision="fp32",
                dimensions=None,
                providers=None,
                cuda=False,
                device_ids=None,
                terms=False,
                runtime="onnxruntime",
            )
        )

    def _find(self) -> ModelFacts:
        facts, recorded = self._found(), self._options.recorded
        if recorded is None:
            return facts
        name, own = facts.spec.name, facts.tokenizer_sha256
        try:  # before anything is compiled
            recorded.check(name, facts.weights_sha256, own)
        except NotAsRecordedError:
            weights_sha256 = recorded.weights_sha256
            if weights_sha256 in (None, facts.weights_sha256) or not self._is_also(
                facts, weights_sha256, recorded.tokenizer_sha256
            ):
                raise
        return facts

    def _found(self) -> ModelFacts:
        facts, options = self._found_alone(), self._options
        if not facts.is_routed or options.route == "query" or options.task != "embed":
            return facts
        files, recorded = facts.files, options.recorded
        queries = Model(
            replace(
                options,
                # an exported model has that of queries beside it
                model_name=files.folder / QUERIES if files.plan else options.model_name,
                revision=files.revision or options.revision,
                recorded=None
                if recorded is None or files.plan
                else replace(recorded, weights_sha256=None, tokenizer_sha256=None),
                route="query",
            )
        )
        other = queries.facts
        if other.spec.dimension != facts.spec.dimension:
            raise ModelFileError(
                f"{facts.spec.name} encodes documents with {facts.spec.dimension} dimensions, but "
                f"queries with {other.spec.dimension}: they cannot be compared"
            )
        settings = (facts.tokenizer_sha256, other.tokenizer_sha256)
        return replace(
            facts,
            queries=queries,
            weights_sha256=_of_both(facts.weights_sha256, other.weights_sha256),
            tokenizer_sha256=None if None in settings else _of_both(*map(str, settings)),
        )

    def _found_alone(self) -> ModelFacts:
        """Find the files, and what they say of the modules for `route` alone."""
        options = self._options
        cache = cache_folder(options.cache_dir)
        warn_of_others(cache)
        files = find_model(
            options.model_name,
            cache=cache,
            revision=options.revision,
            precision=options.possible_precision,
            local_files_only=options.local_files_only,
            recorded=options.recorded,
            beside=options.files_beside,
        )
        if files.plan is not None:
            return self._exported(files, files.plan)
        asked: tuple[object, ...] = (
            files,
            options.max_tokens,
            options.task,
            options.spec,
            options.possible_precision,
        )
        if options.route == "query" or options.adapter is not None:  # as before without them
            asked += (options.route, options.adapter)
        if options.terms:
            asked += ("terms",)
        plans = PlanCache(files.folder, asked, cache)
        plan = plans.read()
        if plan is not None:
            return self._of_plan(files, plan)
        return self._read(files, plans, cache)

    def _read(self, files: ModelFiles, plans: PlanCache, cache: Path) -> ModelFacts:
        """Read the files of a model that has no plan yet."""
        # here, because a model that has a plan needs none of it
        from qdrant_embed.encoder.facts.directory import ModelDirectory
        from qdrant_embed.encoder.facts.tokenizer_file import read_tokenizer_file
        from qdrant_embed.encoder.files.cache import weights_digest
        from qdrant_embed.encoder.files.tensors import tensor_shapes

        options = self._options
        directory = ModelDirectory(
            files.folder,
            files.entry.spec if files.entry else None,
            tensor_shapes=tensor_shapes,
            route=options.route,
            adapter=options.adapter,
        )
        weights = directory.weights(options.possible_precision)
        if options.spec is None:
            spec = directory.spec(files.name, task=options.task, max_tokens=options.max_tokens)
        else:
            spec = directory.accept(options.spec, max_tokens=options.max_tokens)
        parts: list[Path] = []
        if not _runs_head(weights[0]):
            modules = directory.head_for(spec.task)
            parts = [module.weights for module in modules if module.weights is not None]
        query_weights = directory.query_weights if spec.task == "terms" else None
        if query_weights is not None:
            parts = [query_weights]
        digest = weights_digest([*weights, *parts], cache)
        head = directory.token_head if options.terms else None
        terms = None if head is None else weights_digest([*weights, *parts, head], cache)
        tokenizer = read_tokenizer_file(directory.tokenizer)
        vocabulary = directory.vocabulary
        if vocabulary is not None and tokenizer.largest_id >= vocabulary:
            raise ModelFileError(
                f"{directory.tokenizer} has token id {tokenizer.largest_id}, but the model has "
                f"vectors for {vocabulary} tokens: they do not belong together"
            )
        settings = directory.settings(spec, tokenizer)

        def plan() -> RunPlan:
            made = _make_plan(
                directory,
                spec,
                weights,
                digest,
                settings,
                options.possible_precision,
                cache,
                terms,
            )
            plans.write(made)
            return made

        kind, file = _kind(directory, weights[0]), weights[0].relative_to(directory.path).as_posix()
        return ModelFacts(
            files,
            self._shortened(spec),
            digest,
            settings,
            kind,
            file,
            plan,
            directory.tokenizer,
            directory.adapter,
            directory.is_routed,
            lower_case=directory.lower_case,
            query_weights=query_weights,
            terms_sha256=terms,
        )

    def _exported(self, files: ModelFiles, plan: RunPlan) -> ModelFacts:
        """Take an exported model as it was exported, once its tokenizer and graph are checked."""
        from qdrant_embed.encoder.facts.tokenizer_file import read_tokenizer_file
        from qdrant_embed.encoder.files.cache import once
        from qdrant_embed.encoder.files.cache import sha256 as file_digest

        cache = cache_folder(self._options.cache_dir)
        digest = file_digest(plan.tokenizer, cache)
        once(cache, "tokenizer", digest, partial(read_tokenizer_file, plan.tokenizer))
        if plan.kind != "static":  # whoever made the folder, its graph may be anything
            _try_once(replace(plan, terms_sha256=None), cache)
        options, spec, folder = self._options, plan.spec, files.folder
        if options.task != spec.task:
            raise ModelFileError(
                f"{folder} is an exported {KINDS[spec.task].noun}, not a {KINDS[options.task].noun}"
            )
        if options.spec is not None:
            raise InputError(
                f"spec= cannot change {folder}: it is exported; export the model again with it"
            )
        precision = options.possible_precision
        if plan.report.precision == "int8" and precision != "int8":
            raise InputError(f"{folder} was exported in int8: for {precision}, export it again")
        if plan.adapter is not None and options.adapter not in (None, plan.adapter):
            raise InputError(
                f"task={options.adapter!r:.80}, but {folder} was exported with the weights for the "
                f"task {plan.adapter!r}"
            )
        if options.max_tokens is not None:
            if options.max_tokens > spec.max_tokens:
                raise InputError(
                    f"max_tokens={options.max_tokens}, but {folder} was exported for "
                    f"{spec.max_tokens} tokens at most"
                )
            spec = replace(spec, max_tokens=options.max_tokens)
            plan = replace(plan, spec=spec)
        return self._of_plan(files, plan)

    def _of_plan(self, files: ModelFiles, plan: RunPlan) -> ModelFacts:
        if not self._options.terms:
            plan = replace(plan, terms_sha256=None)
        elif plan.terms_sha256 is None:
            raise ModelFileError(
                f"{files.folder} was exported without the head that weighs tokens: export the "
                "model again with it"
            )
        spec = self._shortened(plan.spec)
        return ModelFacts(
            files,
            spec,
            plan.weights_sha256,
            plan.tokenizer_sha256,
            plan.kind,
            plan.report.file,
            lambda: plan,
            plan.tokenizer,
            plan.adapter,
            plan.is_routed,
            lower_case=plan.lower_case,
            query_weights=plan.query_weights,
            terms_sha256=plan.terms_sha256,
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

    def _load(self) -> LoadedModel:
        # here, so that no library is loaded before a model is
        from qdrant_embed.encoder.run.loaded_model import load_model

        facts, providers = self.facts, self._options.execution_providers
        if providers is not None:
            from qdrant_embed.encoder.run.session import check_providers

            check_providers(providers)  # before anything long
        if self._options.runtime == "openvino":
            from qdrant_embed.encoder.runtimes.choice import check_installed

            check_installed(self._options.runtime)
        plan = facts.plan()
        try:
            with announced(f"loading {facts.spec.name}"):
                model = load_model(plan, facts.spec, providers)
        except ModelFileError:
            if plan.kind != "graph" or facts.files.plan is not None:
                raise
            from qdrant_embed.encoder.files.compiled import discard

            discard(plan.run[0])  # damaged in the cache: compile it once more
            self._facts = self._find()
            plan = self._facts.plan()
            model = load_model(plan, self._facts.spec, providers)
        if self._options.runs_on_onnxruntime:
            return model
        from qdrant_embed.encoder.runtimes.choice import with_runtime

        cache = cache_folder(self._options.cache_dir)
        return with_runtime(model, plan, self._options.runtime, cache)


def _check_equal(plan: RunPlan, compiled: Model) -> None:
    """Raise `OtherFormError` unless the ONNX file of `plan` returns the vectors of `compiled`."""
    from qdrant_embed.encoder.run.loaded_model import largest_difference, load_model

    difference = largest_difference(load_model(plan, plan.spec, None), compiled.load())
    if difference > _EQUAL:
        raise OtherFormError(
            f"{plan.spec.name} ran from its own file {plan.report.file} in earlier releases, and "
            "is compiled from its weights now: a value of their vectors differs by up to "
            f"{difference:.2g}",
            compiled.facts.weights_sha256,
        )


def _of_both(documents: str, queries: str) -> str:
    """Return the digest of a model by those of its parts for documents and for queries."""
    return sha256(f"{documents}\n{queries}".encode()).hexdigest()


def _runs_head(weights: Path) -> bool:
    """Return whether a model's file itself runs what follows the pooling, by the name of an output.

    The digest of such a file covers it all, as it did before modules were run behind a file.
    """
    if weights.suffix != ".onnx" or not weights.stat().st_size:
        return False
    with weights.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:
        return content.find(b"sentence_embedding") >= 0


def _try_once(plan: RunPlan, cache: Path) -> None:
    """Run a graph that was not compiled here in a child process, unless such files have been run.

    Raises:
        ModelFileError: it cannot be run within the limits.
    """
    from qdrant_embed.encoder.files.cache import once, weights_digest
    from qdrant_embed.encoder.run.loaded_model import try_plan

    digest = weights_digest([*plan.run, plan.tokenizer], cache)
    once(cache, plan.kind, digest, partial(try_plan, plan))


def _kind(directory: ModelDirectory, weights: Path) -> RunKind:
    """Decide how the first file of a model's weights is run."""
    from qdrant_embed.encoder.facts.architectures import StaticConfig

    if weights.suffix == ".onnx":
        return "onnx"
    return "static" if isinstance(directory.config, StaticConfig) else "graph"


def _make_plan(
    directory: ModelDirectory,
    spec: ModelSpec,
    weights: Sequence[Path],
    weights_sha256: str,
    tokenizer_sha256: str,
    precision: Precision,
    cache: Path,
    terms_sha256: str | None = None,
) -> RunPlan:
    """Decide how a model's files are run; compile them, if they must be and `cache` has no graph.

    Args:
        directory: the model's files.
        spec: its facts.
        weights: those of its files that are run.
        weights_sha256: their digest.
        tokenizer_sha256: see `RunPlan`.
        precision: asked for.
        cache: the cache folder.
        terms_sha256: see `RunPlan`.

    Raises:
        ModelFileError: the files cannot be run, or do not belong together.
        MissingDependencyError: a library is missing.
    """
    from qdrant_embed.encoder.facts.architectures import StaticConfig, TransformerConfig
    from qdrant_embed.encoder.facts.weights import is_quantized

    config = directory.config
    own_file = weights[0].suffix == ".onnx"
    plan = RunPlan(
        kind=_kind(directory, weights[0]),
        spec=spec,
        report=ModelReport(
            model=spec.name,
            weights_sha256=weights_sha256,
            file=weights[0].relative_to(directory.path).as_posix(),
            precision="int8" if own_file and is_quantized(weights[0].name) else "fp32",
        ),
        weights_sha256=weights_sha256,
        run=tuple(weights),
        tokenizer=directory.tokenizer,
        lower_case=directory.lower_case,
        skips_unknown=isinstance(config, StaticConfig) and config.skips_unknown,
        vocabulary=directory.vocabulary,
        tokenizer_sha256=tokenizer_sha256,
        is_routed=directory.is_routed,
        adapter=directory.adapter,
        query_weights=directory.query_weights if spec.task == "terms" else None,
        terms_sha256=terms_sha256,
    )
    if plan.kind == "static":
        return plan
    head = directory.head_for(spec.task)
    plan = replace(plan, scoring=directory.scoring if spec.task == "score" else None)
    if not isinstance(config, TransformerConfig):
        plan = replace(plan, pooled=directory.leaves_head_to_file, head=head)
        logger.info(
            "%s is run from its own file %s (%s)", spec.name, weights[0], plan.report.precision
        )
        _try_once(plan, cache)
        return plan
    from qdrant_embed.encoder.compile.compiler import compiled_model
    from qdrant_embed.encoder.run.loaded_model import load_tokenizer

    compiled = compiled_model(
        weights,
        weights_sha256,
        tokenizer_sha256,
        config,
        spec,
        partial(load_tokenizer, plan),
        precision,
        cache,
        head,
        () if plan.query_weights is None else (plan.query_weights,),
        None if terms_sha256 is None else directory.token_head,
        plan.scoring,
    )
    return replace(plan, report=compiled.report, run=compiled.files)
