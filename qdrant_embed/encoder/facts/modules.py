"""The small files beside a model's weights: of sentence-transformers, and of cross-encoders."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, TypeAlias, get_args

from pydantic import AliasChoices, Field, NonNegativeInt, PositiveInt, TypeAdapter

from qdrant_embed.encoder.facts.architectures import (
    SHORTEST,
    DecoderConfig,
    ModernBertConfig,
    TransformerConfig,
)
from qdrant_embed.encoder.facts.head import (
    HeadActivation,
    HeadModule,
    LayerActivation,
    PairPrompt,
    ScoreActivation,
    ScoreLayer,
    Scoring,
)
from qdrant_embed.encoder.facts.jsonfile import JsonFile, checked, read_content, read_json
from qdrant_embed.encoder.interfaces import Pooling, Poolings, Route, Task, TermWeighting
from qdrant_embed.errors import ModelFileError
from qdrant_embed.limits import MODULES, PREFIX, TOKENIZER_FILE, shortened

MODULES_FILE = "modules.json"
_ROUTERS = ("Router", "Asym")  # the latter before sentence-transformers 5
_ROUTER_FILES = ("router_config.json", "config.json")  # the latter before sentence-transformers 5

# what a chain's first module does: run a transformer, look up a table, run a masked language model
ChainKind: TypeAlias = Literal["transformer", "static", "masked_language_model"]

# by the names of sentence-transformers' modules; what `Dropout` does ends with training
HEAD_MODULES = ("Dense", "LayerNorm", "Normalize", "Dropout")
MASK = "MultiVectorMask"  # chooses among the vectors of tokens
_ACTIVATIONS: dict[str, HeadActivation] = {
    "torch.nn.modules.linear.Identity": "identity",
    "torch.nn.modules.activation.Tanh": "tanh",
    "torch.nn.modules.activation.GELU": "gelu",
}
# which they read and write: a text's vector, or those of its tokens
_VECTOR, _TOKENS = "sentence_embedding", "token_embeddings"
_SCORES = "scores"  # which the last one of a cross-encoder writes
_LOGIT_SCORE = "LogitScore"  # compares the logits of two tokens

_CHAINS: dict[ChainKind, list[str]] = {
    "transformer": ["Transformer", _LOGIT_SCORE, "Pooling", *HEAD_MODULES],
    "static": ["StaticEmbedding", "Normalize"],
    "masked_language_model": ["MLMTransformer", "SpladePooling"],
}
# sentence-transformers' names are ours but for one
_POOLINGS: dict[str, Pooling] = {
    {"last_token": "lasttoken"}.get(name, name): name for name in get_args(Pooling)
}
# in files of sentence-transformers before 5.2, and in the order in which several are joined
_LEGACY_POOLINGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


# what patterns of file names mean something else by, and what no folder of a model has in its name
_NEVER = frozenset('*?[]<>|"\\:' + "".join(map(chr, range(32))))


class _Module(JsonFile):
    type: str
    path: str


class _RouterParameters(JsonFile):
    route_mappings: dict[str, str] | None = None


class _RouterConfig(JsonFile):
    types: dict[str, str]
    structure: dict[str, list[str]]
    parameters: _RouterParameters = _RouterParameters()

    def chosen(self, route: Route) -> list[str] | None:
        """Name the modules that texts go through, found as sentence-transformers finds them."""
        asked = ((route, "text"), (route, None), (None, "text"), (None, None))
        mappings = self.parameters.route_mappings or {}
        mapped = (mappings[str(key)] for key in asked if str(key) in mappings)
        name = next(mapped, route if route in self.structure else "text")
        return self.structure.get(name)


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
    activation_function: Literal["relu", "log1p_relu"] = "relu"


class _StaticQueryConfig(JsonFile):
    path: str | None = None


class _DenseEnd(JsonFile):
    out_features: PositiveInt


class _DenseConfig(_DenseEnd):
    in_features: PositiveInt | None = None
    bias: bool = True
    activation_function: str = "torch.nn.modules.activation.Tanh"
    use_residual: bool = False


class _LayerNormConfig(JsonFile):
    dimension: PositiveInt


class _Names(JsonFile):
    module_input_name: str | None = None
    module_output_name: str | None = None


class Prompts(JsonFile):
    """``config_sentence_transformers.json``: what is put before texts, by name."""

    prompts: dict[str, str] = Field(default_factory=dict)
    default_prompt_name: str | None = None

    def stated(self, *names: str) -> str | None:
        """Return the first of these prompts that there is, else the default; ``None`` if none."""
        for name in (*names, self.default_prompt_name):
            if name is not None and name in self.prompts:
                return self.prompts[name]
        return None


class SentenceConfig(JsonFile):
    """``sentence_bert_config.json``."""

    max_seq_length: Annotated[int, Field(ge=SHORTEST)] | None = None
    do_lower_case: bool = False


@dataclass(frozen=True)
class StatedPooling:
    """How a ``Pooling`` module pools tokens, and the dimension of each, if stated."""

    pooling: Poolings
    dimension: int | None


@dataclass(frozen=True)
class ModuleChain:
    """The modules that ``modules.json`` chains.

    Each module has a folder with its own config, which the methods read.

    Attributes:
        file: ``modules.json`` itself.
        kind: what the first module does.
        folders: of all modules, in order; relative, ``"."`` for the model's own.
        first: the folder of the first module, which turns tokens into vectors.
        pooling_folder: the folder of ``Pooling`` or ``SpladePooling``, if there is one.
        head_modules: kind and folder of the modules after the pooling, in order.
        mask: the folder of the module that chooses vectors of tokens, if there is one.
        normalize: whether the chain ends with ``Normalize``.
        logit_score: the folder of ``LogitScore``, which a language model's score comes from.
        elsewhere: folders of the modules that texts of this route do not go through.
        is_routed: whether documents and queries go through different modules.
        query_folder: the folder with the weights of a query's tokens, of a sparse model whose
            queries need no network.
    """

    file: Path
    kind: ChainKind
    folders: tuple[PurePosixPath, ...]
    first: Path
    pooling_folder: Path | None = None
    head_modules: tuple[tuple[str, Path], ...] = ()
    normalize: bool = False
    mask: Path | None = None
    logit_score: Path | None = None
    elsewhere: tuple[PurePosixPath, ...] = ()
    is_routed: bool = False
    query_folder: Path | None = None

    def pooling(self) -> StatedPooling | None:
        """Read how tokens are pooled; ``None`` if the chain does not say.

        Raises:
            ModelFileError: in a way that cannot be run, or as those of a sparse model are.
        """
        if self.kind == "masked_language_model":
            raise ModelFileError(
                f"{self.file.parent} is a sparse model: SparseTextEmbedding runs it"
            )
        if self.mask is not None:
            raise ModelFileError(
                f"{self.file.parent} is a late-interaction model: LateInteractionTextEmbedding "
                "runs it"
            )
        if self.pooling_folder is None:
            return None
        path = self.pooling_folder / "config.json"
        config = read_json(path, TypeAdapter(_PoolingConfig))
        modes = config.modes
        known = len(set(modes)) == len(modes) > 0 and all(mode in _POOLINGS for mode in modes)
        if not config.include_prompt or not known:
            prompt = "" if config.include_prompt else " without the prompt"
            raise ModelFileError(
                f"{path} asks for a pooling that cannot be run: {', '.join(modes) or 'none'}"
                f"{prompt}; {', '.join(_POOLINGS)} can, one or several of them"
            )
        poolings = tuple(_POOLINGS[mode] for mode in modes)
        pooling = poolings[0] if len(poolings) == 1 else poolings
        return StatedPooling(pooling, config.embedding_dimension)

    def term_weighting(self) -> TermWeighting:
        """Read how weights of terms are pooled.

        Raises:
            ModelFileError: in a way that cannot be run, or the model is a dense one.
        """
        if self.kind != "masked_language_model" or self.pooling_folder is None:
            raise ModelFileError(f"{self.file} is that of a dense model: TextEmbedding runs it")
        if self.is_routed and self.query_folder is None:
            raise ModelFileError(
                f"{self.file} chains a Router that sends queries through other modules than "
                "SparseStaticEmbedding: of sparse models, only that one can be run"
            )
        read = read_json(self.pooling_folder / "config.json", TypeAdapter(_SpladeConfig))
        return "log" if read.activation_function == "relu" else "log_log"

    def query_weights(self) -> Path | None:
        """Find the file with the weights of a query's tokens; ``None`` if queries need a network.

        Raises:
            ModelFileError: there is none where there should be one.
        """
        if self.query_folder is None:
            return None
        config = read_json(self.query_folder / "config.json", TypeAdapter(_StaticQueryConfig))
        if config.path is None:
            found = _weights(self.query_folder)
        else:  # the file beside it, wherever the path leads to
            found = self.query_folder / PurePosixPath(config.path).name
            found = found if found.is_file() else self.file.with_name(found.name)
        if found is None or not found.is_file():
            raise ModelFileError(f"{self.query_folder} has no weights for the tokens of queries")
        return found

    @property
    def has_dense(self) -> bool:
        """Whether linear layers follow the pooling."""
        return any(kind == "Dense" for kind, _ in self.head_modules)

    @property
    def is_scored(self) -> bool:
        """Whether the last module gives a score, as in the chain of a cross-encoder."""
        path = self.head_modules[-1][1] / "config.json" if self.head_modules else None
        if path is None or not path.is_file():
            return False
        return read_json(path, TypeAdapter(_Names)).module_output_name == _SCORES

    def head(self, task: Task = "embed") -> tuple[HeadModule, ...]:
        """Read the modules after the pooling, but for a last ``Normalize``.

        Args:
            task: what the model is run for; for ``token_vectors``, modules change the vectors of
                tokens, which nothing pools.

        Raises:
            ModelFileError: one cannot be run, or they are those of a model for another task.
        """
        if self.logit_score is not None or (task != "score" and self.is_scored):
            raise ModelFileError(
                f"{self.file} is that of a cross-encoder: TextCrossEncoder runs it"
            )
        reads = _TOKENS if task == "token_vectors" else _VECTOR
        last = len(self.head_modules) - 1 if task == "score" else None
        modules = tuple(
            _read_head_module(kind, folder, reads, _SCORES if number == last else reads)
            for number, (kind, folder) in enumerate(self.head_modules)
        )
        return modules[:-1] if self.normalize else modules

    def dense_dimension(self) -> int | None:
        """Read the dimension that the ``Dense`` layers end with; ``None`` without such layers."""
        folders = [folder for kind, folder in self.head_modules if kind == "Dense"]
        if not folders:
            return None
        return read_json(folders[-1] / "config.json", TypeAdapter(_DenseEnd)).out_features

    def own_files(self, names: Iterable[str]) -> list[str]:
        """Choose those of `names` that are not in the folder of a module but the first."""
        folders = (*self.folders[1:], *self.elsewhere)
        others = tuple(f"{at}/" for at in folders if at != PurePosixPath())
        return [name for name in names if not name.startswith(others)]


def read_chain(folder: Path, route: Route = "document") -> ModuleChain | None:
    """Read the chain in a model's folder; ``None`` if it has no ``modules.json``.

    Args:
        folder: the model's.
        route: the texts whose modules are read, where a ``Router`` has others for queries.

    Raises:
        ModelFileError: the file is damaged, points out of the folder or chains modules that
            cannot be run.
    """
    file = folder / MODULES_FILE
    if not file.is_file():
        return None
    listed = _listed(folder)
    routes = {
        name: _routed(folder, listed, name)
        for name in (("document", "query") if _routers(listed) else (route,))
    }
    modules = routes[route]
    if len(modules) > MODULES:
        raise ModelFileError(f"{file} chains {len(modules):,} modules: it can {MODULES} at most")
    names = [_kind(module) for module in modules]
    if names == ["Transformer", "SpladePooling"]:  # since sentence-transformers 5.4
        names = _CHAINS["masked_language_model"]
    kind = next((kind for kind, chain in _CHAINS.items() if names[:1] == chain[:1]), None)
    if kind is None or not _can_run(names, _CHAINS[kind]):
        chained = shortened(", ".join(names), 200) or "nothing"
        texts = {"document": "documents", "query": "queries"}[route]
        of_route = f" for {texts}" if len(routes) > 1 else ""
        raise ModelFileError(
            f"{file} chains {chained}{of_route}: only Transformer and Pooling, then any of "
            f"{', '.join(HEAD_MODULES)}; Transformer, Dense, {MASK} and Normalize; StaticEmbedding "
            "and Normalize; or MLMTransformer and SpladePooling, in this order, can be run"
        )
    folders = {name: folder / module.path for name, module in zip(names, modules, strict=True)}
    head = [
        (name, folder / module.path)
        for name, module in zip(names, modules, strict=True)
        if name in HEAD_MODULES and name != "Dropout"
    ]
    paths = tuple(PurePosixPath(module.path) for module in modules)
    queries = routes.get("query", modules)
    by_table = [_kind(module) for module in queries] == ["SparseStaticEmbedding"]
    others = [PurePosixPath(module.path) for some in routes.values() for module in some]
    return ModuleChain(
        file=file,
        kind=kind,
        folders=paths,
        first=folder / modules[0].path,
        pooling_folder=folders.get("Pooling", folders.get("SpladePooling")),
        head_modules=tuple(head),
        mask=folders.get(MASK),
        normalize=bool(head) and head[-1][0] == "Normalize",
        elsewhere=tuple(path for path in dict.fromkeys(others) if path not in paths),
        is_routed=any(some != modules for some in routes.values()),
        query_folder=folder / queries[0].path if by_table else None,
        logit_score=folders.get(_LOGIT_SCORE),
    )


def router_files(folder: Path) -> list[list[str]]:
    """List for each ``Router`` in a model's chain the files that can say what it does.

    They are needed to read the chain, of which the folder may have nothing else yet.

    Raises:
        ModelFileError: ``modules.json`` is damaged or points out of the folder.
    """
    places = [PurePosixPath(module.path) for module in _routers(_listed(folder))]
    return [[str(place / name) for name in _ROUTER_FILES] for place in places]


def _listed(folder: Path) -> list[_Module]:
    """Read the modules of ``modules.json``, none of which is out of the folder."""
    file = folder / MODULES_FILE
    modules = read_json(file, TypeAdapter(list[_Module]))
    if len(modules) > MODULES:
        raise ModelFileError(f"{file} chains {len(modules):,} modules: it can {MODULES} at most")
    _check_inside(folder, file, modules)
    return modules


def _check_inside(folder: Path, file: Path, modules: Iterable[_Module]) -> None:
    root = folder.resolve()
    for module in modules:
        try:
            stays = (root / module.path).resolve().is_relative_to(root)
        except (OSError, ValueError):  # no file system has such names
            stays = False
        if not stays or set(module.path) & _NEVER:
            raise ModelFileError(f"{file} points out of its folder: {module.path!r:.200}")


def _kind(module: _Module) -> str:
    return module.type.rpartition(".")[2]


def _routers(modules: Iterable[_Module]) -> list[_Module]:
    return [module for module in modules if _kind(module) in _ROUTERS]


def _routed(folder: Path, modules: Iterable[_Module], route: Route) -> list[_Module]:
    """Return the modules that texts of a route go through, in place of each ``Router``."""
    found: list[_Module] = []
    for module in modules:
        if _kind(module) not in _ROUTERS:
            found.append(module)
            continue
        files = [folder / module.path / name for name in _ROUTER_FILES]
        file = next((file for file in files if file.is_file()), files[0])
        config = read_json(file, TypeAdapter(_RouterConfig))
        chosen = config.chosen(route)
        if chosen is None:
            raise ModelFileError(
                f"{file} has no modules for the route {route!r}: it has some for "
                f"{shortened(', '.join(config.structure), 200) or 'none'}"
            )
        if missing := [name for name in chosen if name not in config.types]:
            raise ModelFileError(f"{file} does not say what {missing[0]!r:.200} is")
        parts = [
            _Module(type=config.types[name], path=str(PurePosixPath(module.path) / name))
            for name in chosen
        ]
        _check_inside(folder, file, parts)
        found += parts
    return found


def _read_head_module(kind: str, folder: Path, reads: str, writes: str) -> HeadModule:
    """Read the config of a module of `HEAD_MODULES` that reads and writes this, but ``Dropout``.

    Raises:
        ModelFileError: the config is missing or damaged, or asks for what cannot be run.
    """
    path = folder / "config.json"
    if kind == "Normalize":
        if path.is_file():  # since sentence-transformers 6
            _check_names(path, reads, writes)
        return HeadModule(kind="normalize")
    _check_names(path, reads, writes)
    if kind == "LayerNorm":
        dimension = read_json(path, TypeAdapter(_LayerNormConfig)).dimension
        return HeadModule(kind="layer_norm", weights=_weights(folder), inputs=dimension)
    config = read_json(path, TypeAdapter(_DenseConfig))
    activation = _ACTIVATIONS.get(config.activation_function)
    if activation is None:
        raise ModelFileError(
            f"{path} asks for the activation {config.activation_function!r:.200}, which cannot be "
            f"run: {', '.join(_ACTIVATIONS)} can"
        )
    return HeadModule(
        kind="dense",
        weights=_weights(folder),
        inputs=config.in_features,
        outputs=config.out_features,
        activation=activation,
        bias=config.bias,
        residual=config.use_residual,
    )


def head_weights(files: list[str]) -> str | None:
    """Choose the file with a module's weights among the names in its folder."""
    return next(
        (name for name in ("model.safetensors", "pytorch_model.bin") if name in files), None
    )


def _weights(folder: Path) -> Path | None:
    name = head_weights([path.name for path in folder.iterdir() if path.is_file()])
    return folder / name if name else None


def _check_names(path: Path, reads: str, writes: str) -> None:
    names = read_json(path, TypeAdapter(_Names))
    # PyLate, which has no other vectors than those of tokens, names none
    read = names.module_input_name or reads
    output = names.module_output_name or read
    if (read, output) != (reads, writes):
        raise ModelFileError(
            f"{path} reads {read!r:.80} and writes {output!r:.80}: only modules that change "
            f"{reads} can be run after the {'pooling' if reads == _VECTOR else 'transformer'}"
        )


def read_prompts(folder: Path) -> Prompts:
    """Read a model's prompts; sentence-transformers saves empty ones where none were set.

    Raises:
        ModelFileError: the file is damaged, or a prompt cannot be used.
    """
    path = folder / "config_sentence_transformers.json"
    if not path.is_file():
        return Prompts()
    read = read_json(path, TypeAdapter(Prompts))
    for name, prompt in read.prompts.items():
        if len(prompt) > PREFIX:
            raise ModelFileError(
                f"{path}: the prompt {name!r:.80} has {len(prompt):,} characters: a prompt has "
                f"{PREFIX:,} at most"
            )
        try:
            (name + prompt).encode()
        except UnicodeEncodeError as error:
            raise ModelFileError(f"{path}: prompt {name!r:.80} is not Unicode: {error}") from error
    return read if any(read.prompts.values()) else Prompts()


def read_sentence_config(folder: Path) -> SentenceConfig:
    """Read the settings of a chain's first module in `folder`; the defaults without a file."""
    path = folder / "sentence_bert_config.json"
    return read_json(path, TypeAdapter(SentenceConfig)) if path.is_file() else SentenceConfig()


def _can_run(names: list[str], allowed: list[str]) -> bool:
    """Whether `names` are among `allowed`, in that order; those of a head in any, and repeated."""
    if names.count(MASK) == 1 and names[0] == "Transformer" and "Pooling" not in names:
        names = [name for name in names if name != MASK]
    body = [name for name in names if name not in HEAD_MODULES]
    return (
        all(name in allowed for name in names)
        and body == sorted(set(body), key=allowed.index)
        and names[: len(body)] == body
        and names != ["MLMTransformer"]  # its output is not a text's vector
    )


# cross-encoders

# by the names that sentence-transformers states in ``config.json``, or beside it
_SCORE_ACTIVATIONS: Mapping[str, ScoreActivation | None] = {
    "torch.nn.modules.linear.Identity": None,
    "torch.nn.modules.activation.Sigmoid": "sigmoid",
}

# the model card of Qwen3-Reranker; its template of a chat, with the thinking left out
_QWEN3 = PairPrompt(
    before=(
        "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query "
        'and the Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n'
        "<|im_start|>user\n"
    ),
    middle=(
        "<Instruct>: Given a web search query, retrieve relevant passages that answer the query\n"
        "<Query>: {query}\n<Document>: {document}"
    ),
    after="<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
)
PROMPTED_TOKENS = 8192  # tokens of a pair that the model card has such models read


class _Activation(JsonFile):
    activation_fn: str | None = None


class _ScoreConfig(JsonFile):
    """The part of ``config.json`` that says how the head is built."""

    architectures: tuple[str, ...] | None = None
    id2label: Mapping[str, Any] | None = None
    num_labels: int | None = None
    sentence_transformers: _Activation | None = None
    sbert_ce_default_activation_function: str | None = None
    # of ModernBERT
    classifier_pooling: Literal["cls", "mean"] = "cls"
    classifier_activation: LayerActivation = "gelu"
    classifier_bias: bool = False

    @property
    def labels(self) -> int:
        """Number of scores, as transformers counts them."""
        return len(self.id2label) if self.id2label is not None else self.num_labels or 2


class _LogitScore(JsonFile):
    """``config.json`` of the module that compares the next token's logits."""

    true_token_id: NonNegativeInt
    false_token_id: NonNegativeInt


class _Vocabulary(JsonFile):
    vocab: Mapping[str, Annotated[int, Field(ge=0)]]


class _Tokenizer(JsonFile):
    model: _Vocabulary


def read_scoring(
    folder: Path,
    content: Mapping[str, Any],
    config: TransformerConfig,
    chain: ModuleChain | None,
    tokenizer: Path,
) -> Scoring:
    """Find out how a model scores two texts.

    Args:
        folder: the model's.
        content: the content of its ``config.json``.
        config: the same, checked.
        chain: the modules that the model's files chain, if they do.
        tokenizer: the file ``tokenizer.json``.

    Raises:
        ModelFileError: it is no cross-encoder, or none that can be run.
    """
    head = checked(folder / "config.json", content, TypeAdapter(_ScoreConfig))
    token_types = getattr(config, "type_vocab_size", 0) > 1
    if chain is not None and chain.is_scored:
        pooling = chain.pooling()
        if pooling is None or isinstance(pooling.pooling, tuple):
            raise ModelFileError(f"{chain.file} does not say how the tokens of a pair are pooled")
        return Scoring(
            pooling=pooling.pooling,
            activation=_activation(folder, head),
            token_types=token_types,
        )
    if chain is not None and chain.pooling_folder is not None:
        raise ModelFileError(f"{chain.file} is that of a dense model: TextEmbedding runs it")
    if config.model_type == "qwen3" and isinstance(config, DecoderConfig):
        return Scoring(
            pooling="last_token",
            activation=_activation(folder, head),
            layers=(_difference(folder, head, chain, tokenizer),),
            prompt=_QWEN3,
        )
    layers = _LAYERS.get(config.architecture)
    if layers is None or (chain is not None and chain.logit_score is not None):
        raise ModelFileError(
            f"{folder} is of architecture {config.architecture!r}, which cannot be run as a "
            f"cross-encoder: {', '.join(sorted({*_LAYERS, 'qwen3'}))} can"
        )
    if head.labels != 1:
        raise ModelFileError(
            f"{folder / 'config.json'} states {head.labels} labels: a cross-encoder that ranks has "
            "one score"
        )
    return Scoring(
        pooling=head.classifier_pooling if isinstance(config, ModernBertConfig) else "cls",
        activation=_activation(folder, head),
        layers=layers(config, head),
        token_types=token_types,
    )


def _activation(folder: Path, head: _ScoreConfig) -> ScoreActivation | None:
    """Find the function that follows the raw score, where sentence-transformers looks for it."""
    path = folder / "config_sentence_transformers.json"
    stated = read_json(path, TypeAdapter(_Activation)).activation_fn if path.is_file() else None
    if stated is None and head.sentence_transformers is not None:
        stated = head.sentence_transformers.activation_fn
    stated = stated or head.sbert_ce_default_activation_function
    if stated is None:
        return "sigmoid"  # as sentence-transformers has it for one score
    if stated not in _SCORE_ACTIVATIONS:
        raise ModelFileError(
            f"{folder} asks for the activation {stated!r:.200}, which cannot be run: "
            f"{', '.join(_SCORE_ACTIVATIONS)} can"
        )
    return _SCORE_ACTIVATIONS[stated]


def _difference(
    folder: Path, head: _ScoreConfig, chain: ModuleChain | None, tokenizer: Path
) -> ScoreLayer:
    """Find the two tokens of which a language model predicts one."""
    if not any(name.endswith("ForCausalLM") for name in head.architectures or ()):
        raise ModelFileError(
            f"{folder / 'config.json'} states the architecture {head.architectures}: of qwen3, "
            "Qwen3ForCausalLM can be run as a cross-encoder, which answers 'yes' or 'no'"
        )
    if chain is not None and chain.logit_score is not None:
        stated = read_json(chain.logit_score / "config.json", TypeAdapter(_LogitScore))
        rows = (stated.true_token_id, stated.false_token_id)
    else:
        content = read_content(tokenizer, TOKENIZER_FILE)
        vocabulary = checked(tokenizer, content, TypeAdapter(_Tokenizer)).model.vocab
        if not {"yes", "no"} <= vocabulary.keys():
            raise ModelFileError(f"{tokenizer} has no tokens 'yes' and 'no', which are compared")
        rows = (vocabulary["yes"], vocabulary["no"])
    return ScoreLayer(name="lm_head", kind="difference", bias=False, rows=rows)


def _pooler(config: TransformerConfig, head: _ScoreConfig) -> tuple[ScoreLayer, ...]:
    del config, head
    return ScoreLayer(name="pooler.dense", activation="tanh"), ScoreLayer(name="classifier")


def _projected(config: TransformerConfig, head: _ScoreConfig) -> tuple[ScoreLayer, ...]:
    del config, head
    return (
        ScoreLayer(name="classifier.dense", activation="tanh"),
        ScoreLayer(name="classifier.out_proj"),
    )


def _pre_classified(config: TransformerConfig, head: _ScoreConfig) -> tuple[ScoreLayer, ...]:
    del config, head
    return ScoreLayer(name="pre_classifier", activation="relu"), ScoreLayer(name="classifier")


def _predicted(config: TransformerConfig, head: _ScoreConfig) -> tuple[ScoreLayer, ...]:
    biased = isinstance(config, ModernBertConfig) and config.norm_bias
    epsilon = config.norm_eps if isinstance(config, ModernBertConfig) else 1e-5
    return (
        ScoreLayer(
            name="head.dense", bias=head.classifier_bias, activation=head.classifier_activation
        ),
        ScoreLayer(name="head.norm", kind="layer_norm", bias=biased, epsilon=epsilon),
        ScoreLayer(name="classifier"),
    )


# the heads of transformers' classes for classification, by architecture
_LAYERS: Mapping[str, Callable[[TransformerConfig, _ScoreConfig], tuple[ScoreLayer, ...]]] = {
    "bert": _pooler,
    "distilbert": _pre_classified,
    "gte": _pooler,
    "modernbert": _predicted,
    "mpnet": _projected,
    "roberta": _projected,
    "xlm-roberta": _projected,
}
