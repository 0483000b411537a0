"""The commands about models. None of them imports qdrant_client."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeAlias, get_args

from qdrant_embed.cli.command import Answer, Commands, add_command, table, with_json
from qdrant_embed.encoder.cross import TextCrossEncoder
from qdrant_embed.encoder.facts.catalog import (
    CatalogEntry,
    Purpose,
    find,
    known_name,
    known_task,
    model_facts,
)
from qdrant_embed.encoder.facts.modules import read_chain, read_prompts
from qdrant_embed.encoder.facts.precision import (
    FLOAT32_GRAPH_VERSION,
    GRAPH_VERSION,
    PRECISIONS,
    RUNTIMES,
    CompileReport,
    ModelReport,
    Precision,
)
from qdrant_embed.encoder.facts.sparse_catalog import BM25
from qdrant_embed.encoder.facts.weights import is_quantized
from qdrant_embed.encoder.files import inventory
from qdrant_embed.encoder.files.cache import cache_folder
from qdrant_embed.encoder.files.compiled import compiled_folders, read_compiled
from qdrant_embed.encoder.files.model_files import ModelFiles, find_here, find_model
from qdrant_embed.encoder.interfaces import Task, assert_never
from qdrant_embed.encoder.late import LateInteractionTextEmbedding
from qdrant_embed.encoder.model import ModelFacts
from qdrant_embed.encoder.sparse import SparseTextEmbedding
from qdrant_embed.encoder.text import TextEmbedding, found
from qdrant_embed.errors import InputError, ModelFileError, UnknownModelError

# what is said of facts that the model's own files may refute
_DOUBTS = {"vendor": " (by its vendor's page alone)", "unconfirmed": " (unconfirmed)"}
_Encoder: TypeAlias = (
    TextEmbedding | SparseTextEmbedding | LateInteractionTextEmbedding | TextCrossEncoder
)
_ENCODERS: Mapping[Task, type[_Encoder]] = {
    "embed": TextEmbedding,
    "terms": SparseTextEmbedding,
    "token_vectors": LateInteractionTextEmbedding,
    "score": TextCrossEncoder,
}
_KINDS: Mapping[str, Task] = {
    "dense": "embed",
    "sparse": "terms",
    "late": "token_vectors",
    "reranker": "score",
}
_NAMED = 4  # languages of a model; of more, the table says how many


def add_to(commands: Commands) -> None:
    """Add the commands to the parser's."""
    json_option = with_json()
    cache = argparse.ArgumentParser(add_help=False, parents=[json_option])
    cache.add_argument(
        "--cache-dir",
        metavar="DIR",
        help="folder of downloads and compiled models; QDRANT_EMBED_CACHE by default",
    )
    precision = argparse.ArgumentParser(add_help=False, parents=[cache])
    precision.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="int8",
        help="int8, the default; fp32 for exact vectors; or bf16 or fp16, which take half the "
        "memory of fp32",
    )
    kind = argparse.ArgumentParser(add_help=False)
    kind.add_argument(
        "--kind",
        choices=tuple(_KINDS),
        help="what the model is for; by default what a known model is for, dense for others",
    )
    hub = argparse.ArgumentParser(add_help=False, parents=[precision])
    hub.add_argument("--revision", help="branch, tag or commit on the hub; main by default")
    name = "name of a model"

    listing = add_command(commands, "models", models, hub)
    listing.add_argument(
        "name",
        nargs="?",
        help="show all facts of one model, by name or folder; all models if left out",
    )
    listing.add_argument(
        "--language", metavar="CODE", help="only models for this language, such as de (ISO 639-1)"
    )
    listing.add_argument(
        "--max-mb",
        metavar="MB",
        type=float,
        help="only models that take at most this on disk, in int8",
    )
    listing.add_argument(
        "--task",
        choices=get_args(Purpose),
        help="only models trained to find passages, or to find texts of equal meaning",
    )
    pulling = add_command(commands, "pull", pull, hub, kind)
    pulling.add_argument("name", help=name)
    pulling.add_argument(
        "--runtime",
        choices=RUNTIMES,
        default="onnxruntime",
        help="what is to run documents of a dense model: auto measures now whether that is "
        "onnxruntime, the default, or openvino",
    )
    compiling = add_command(commands, "compile", compile_folder, precision, kind)
    compiling.add_argument("dir", help="folder of a model, as sentence-transformers saves it")
    compiling.add_argument("--out", metavar="DIR", required=True, help="folder to create")
    exporting = add_command(commands, "export", export, hub, kind)
    exporting.add_argument("name", help=name)
    exporting.add_argument("out", metavar="dir", help="folder to create")
    verifying = add_command(commands, "verify", verify, cache)
    verifying.add_argument(
        "what", nargs="?", help="name of a model, or an exported folder; the cache by default"
    )
    caches = commands.add_parser(
        "cache", help="List or clear cached files.", description="List or clear cached files."
    ).add_subparsers(required=True, metavar="COMMAND")
    for subcommand, run in (("list", cache_list), ("clear", cache_clear)):
        chosen = add_command(caches, subcommand, run, cache)
        chosen.add_argument("name", nargs="?", help=f"{name}; all models by default")


def models(options: argparse.Namespace) -> Answer:
    """Show the known models, or all facts about one of them."""
    if options.name is not None:
        if any((options.language, options.max_mb is not None, options.task)):
            raise InputError("--language, --max-mb and --task choose among all models: omit NAME")
        return _one_model(options)
    known = [
        model
        for model in TextEmbedding.list_supported_models()
        if (options.language is None or options.language.lower() in model["languages"])
        and (options.max_mb is None or model["megabytes"] <= options.max_mb)
        and options.task in (None, model["purpose"])
    ]
    columns = {
        "model": "model",
        "MB": "megabytes",
        "languages": "languages",
        "dim": "dim",
        "smallest": "smallest_dimension",
        "tokens": "max_tokens",
        "pooling": "pooling",
        "license": "license",
        "query prefix": "query_prefix",
        "document prefix": "document_prefix",
    }
    rows = [{head: _cell(model[key]) for head, key in columns.items()} for model in known]
    return Answer(known, table(rows) or ["no known model matches"])


def _one_model(options: argparse.Namespace) -> Answer:
    """Show all facts about one model, without network, and compile nothing."""
    name = options.name
    task = known_task(name) or "embed"
    if task != "embed":
        listed = {model["model"]: model for model in _ENCODERS[task].list_supported_models()}
        (kind,) = (kind for kind, is_for in _KINDS.items() if is_for == task)
        facts = {**listed[known_name(name, task) or name], "kind": kind}
        return Answer(facts, [f"{key:16} {_cell(value)}" for key, value in facts.items()])
    cache, precision = cache_folder(options.cache_dir), options.precision
    here = find_here(name, cache=cache, revision=options.revision, precision=precision)
    if isinstance(here, ModelFiles):
        return _model_here(here, options, cache)
    facts = model_facts(here.spec, here) | {
        "megabytes": _megabytes(here, precision),
        "runs": _outlook(here, precision),
    }
    return Answer(facts | {"fidelity": None, "folder": None}, _lines(facts))


def _model_here(files: ModelFiles, options: argparse.Namespace, cache: Path) -> Answer:
    """Show all facts about a model whose files are on this machine."""
    encoder = TextEmbedding(
        options.name,
        cache_dir=options.cache_dir,
        revision=options.revision,
        local_files_only=True,
        precision=options.precision,
        lazy_load=True,
    )
    model = found(encoder)
    entry = find(model.spec.name)
    facts = model_facts(model.spec, entry)
    facts["sources"] = (dict(entry.sources) if entry else {}) | dict.fromkeys(
        _stated(files), "files"
    )
    report = _report(model, options.precision, cache)
    facts |= {
        "runs": _runs(model, report, options.precision),
        "fidelity": asdict(report.fidelity) if report and report.fidelity else None,
        "folder": str(files.folder),
        "revision": files.revision,
        "weights_sha256": model.weights_sha256,
    }
    if isinstance(report, CompileReport):
        facts["megabytes"] = round((report.graph_bytes + report.weights_bytes) / 1e6)
    elif entry is not None:
        facts["megabytes"] = _megabytes(entry, options.precision)
    return Answer(facts, _lines(facts))


def _megabytes(entry: CatalogEntry, precision: Precision) -> int:
    """Return about how many MB a model takes on disk as it is run."""
    published = entry.published
    if precision == "int8":
        return published.megabytes
    return round((4 if precision == "fp32" else 2) * published.parameters)


def _stated(files: ModelFiles) -> set[str]:
    """Name the facts that a model's own files state, as far as they decide."""
    stated = {"dimension", "max_tokens"}
    if files.plan is not None:
        return stated | {"pooling", "normalize", "query_prefix", "document_prefix", "license"}
    if read_chain(files.folder) is not None:
        stated |= {"pooling", "normalize"}
    prompts = read_prompts(files.folder)
    if prompts.stated("query") is not None:
        stated.add("query_prefix")
    if prompts.stated("document", "passage", "corpus") is not None:
        stated.add("document_prefix")
    return stated


def _report(model: ModelFacts, precision: Precision, cache: Path) -> ModelReport | None:
    """Return the report of a model that is compiled; ``None`` if that has not happened yet."""
    if model.files.plan is not None:
        return model.files.plan.report
    version = GRAPH_VERSION if precision == "int8" else FLOAT32_GRAPH_VERSION
    compiled = [read_compiled(folder) for folder in compiled_folders(cache)]
    reports = [
        made.report
        for made in sorted(filter(None, compiled), key=lambda made: made.graph.stat().st_mtime)
        if made.report.weights_sha256 == model.weights_sha256
        and made.report.graph_version >= version
        and f"-{precision}-" in made.graph.parent.name
    ]
    return reports[-1] if reports and model.kind == "graph" else None


def _outlook(entry: CatalogEntry, precision: Precision) -> str:
    """Say what will be run of a model whose files are not here."""
    if entry.published.architecture == "static":
        return "a table of vectors, in numpy"
    return f"a graph compiled from its weights, in {precision}"


def _runs(model: ModelFacts, report: ModelReport | None, precision: Precision) -> str:
    """Say what is run of a model, and whether it is compiled already."""
    match model.kind:
        case "static":
            return f"a table of vectors from {model.file}, in numpy"
        case "onnx":
            kind = "int8" if is_quantized(model.file) else "fp32"
            return f"its own file {model.file}, in {kind}"
        case "graph":
            graph = f"a graph compiled from {model.file}"
            if report is None:
                return f"{graph}, in {precision}; not compiled yet"
            if report.precision != precision:
                return f"{graph}, in {report.precision}: {precision} would be too inexact"
            return f"{graph}, in {report.precision}"
        case _:
            assert_never(model.kind)


def _lines(facts: Mapping[str, Any]) -> list[str]:
    """Return the facts about one model as people read them, each with a doubtful source."""
    sources: Mapping[str, str] = facts.get("sources", {})

    def line(label: str, value: object, fact: str = "") -> str:
        text = ", ".join(value) if isinstance(value, tuple) else _cell(value)
        return f"  {label:16} {text or 'none'}{_DOUBTS.get(sources.get(fact, ''), '')}"

    smallest = facts["smallest_dimension"]
    length = "scaled to length 1" if facts["normalize"] else "as they are"
    lines = [
        facts["model"],
        line("dimensions", facts["dim"], "dimension"),
        line("tokens", facts["max_tokens"], "max_tokens"),
        line("pooling", facts["pooling"], "pooling"),
        line("vectors", length, "normalize"),
        line("query prefix", facts["query_prefix"], "query_prefix"),
        line("document prefix", facts["document_prefix"], "document_prefix"),
    ]
    if smallest is not None:
        lines.insert(2, line("can be cut to", smallest, "smallest_dimension"))
    lines += [line(f"prompt {name}", prompt) for name, prompt in facts["prompts"].items()]
    lines.append(line("license", facts["license"] or "not stated", "license"))
    if "parameters" in facts:
        lines += [
            line("trained for", facts["purpose"]),
            line("languages", facts["languages"], "languages"),
            line("parameters", f"{facts['parameters']} million", "parameters"),
            line("architecture", facts["architecture"]),
        ]
    if "megabytes" in facts:
        lines.append(line("size", f"about {facts['megabytes']} MB on disk as it runs"))
    lines.append(line("runs", facts["runs"]))
    if facts.get("fidelity"):
        lines.append(line("fidelity", _fidelity_summary(facts["fidelity"]).strip(" ()")))
    if "folder" in facts:
        commit = f", commit {facts['revision'][:12]}" if facts["revision"] else ""
        lines.append(line("files", f"in {facts['folder']}{commit}"))
        lines.append(line("weights sha256", facts["weights_sha256"]))
    else:
        lines.append(line("files", f"not here: 'qdrant-embed pull {facts['model']}' fetches them"))
    if facts.get("note"):
        lines.append(line("note", facts["note"]))
    return lines


def pull(options: argparse.Namespace) -> Answer:
    """Download a model's current version, verify and compile it."""
    encoder = _encoder(options.name, options)
    if known_name(options.name, "terms") != BM25:  # which has no files
        find_model(
            options.name,
            cache=cache_folder(options.cache_dir),
            revision=options.revision,
            precision=options.precision,
            update=True,
        )
    facts = _facts(encoder)
    return Answer(facts, [f"{facts['model']} is ready ({_summary(facts)})"])


def compile_folder(options: argparse.Namespace) -> Answer:
    """Compile the model in a folder into a new folder that runs without downloads."""
    if not Path(options.dir).is_dir():
        raise UnknownModelError(f"folder {options.dir} does not exist", name=options.dir)
    return _exported(str(Path(options.dir).resolve()), options)


def export(options: argparse.Namespace) -> Answer:
    """Write a model to a new folder that runs without downloads."""
    return _exported(options.name, options)


def verify(options: argparse.Namespace) -> Answer:
    """Hash files again and compare the digests with those recorded."""
    what, cache = options.what, cache_folder(options.cache_dir)
    if what is not None and Path(what).is_dir():
        checked = [inventory.check_folder(Path(what))]
    else:
        checked = inventory.check_cache(cache, _full_name(what))
    if what is not None and not checked:
        raise UnknownModelError(f"{what} is neither a folder nor a model in {cache}", name=what)
    if damaged := [
        f"{model.folder / path} ({model.name})" for model in checked for path in model.damaged
    ]:
        raise ModelFileError(
            f"files are missing or differ from what was recorded: {', '.join(damaged)}. Run "
            "'qdrant-embed pull' to repair a download, 'qdrant-embed cache clear' to compile a "
            "model again, and 'qdrant-embed export' to replace an exported folder"
        )
    lines = [f"{m.name}: {m.files} files in {m.folder} are as recorded" for m in checked]
    found = [asdict(model) for model in checked]
    return Answer(found, lines or [f"nothing to verify in {cache}"])


def cache_list(options: argparse.Namespace) -> Answer:
    """List what is in the cache."""
    cache = cache_folder(options.cache_dir)
    entries = inventory.cache_entries(cache, _full_name(options.name))
    rows = [
        {
            "model": entry.name,
            "kind": entry.kind,
            "version": entry.version[:12],
            "MB": f"{entry.size / 1e6:.1f}",
            "folder": str(entry.folder),
        }
        for entry in entries
    ]
    found = [asdict(entry) for entry in entries]
    return Answer(found, table(rows) or [f"nothing in {cache}"])


def cache_clear(options: argparse.Namespace) -> Answer:
    """Remove what is in the cache."""
    cache = cache_folder(options.cache_dir)
    freed = inventory.clear(cache, _full_name(options.name))
    found = {"folder": cache, "bytes": freed}
    what = "" if options.name is None else f" of {options.name}"
    line = f"{freed / 1e6:.1f} MB freed in {cache}" if freed else f"nothing{what} in {cache}"
    return Answer(found, [line])


def _exported(name: str, options: argparse.Namespace) -> Answer:
    out = Path(options.out)
    encoder = _encoder(name, options)
    encoder.export(out)
    facts = _facts(encoder) | {"folder": str(out)}
    return Answer(facts, [f"{facts['model']} is in {out} ({_summary(facts)})"])


def _encoder(name: str, options: argparse.Namespace) -> _Encoder:
    task = _KINDS[options.kind] if options.kind else known_task(name) or "embed"
    asked: dict[str, Any] = {
        "cache_dir": options.cache_dir,
        "revision": getattr(options, "revision", None),
        "precision": options.precision,
        "lazy_load": True,
    }
    runtime = getattr(options, "runtime", "onnxruntime")
    if runtime != "onnxruntime":
        if task != "embed":
            raise InputError(f"--runtime {runtime} is for dense models, which {name} is not")
        asked["runtime"] = runtime
    return _ENCODERS[task](name, **asked)


def _facts(encoder: _Encoder) -> dict[str, Any]:
    # a cross-encoder describes no vectors
    description = None if isinstance(encoder, TextCrossEncoder) else encoder.describe()
    report = encoder.report
    digest = description.weights_sha256 if description else getattr(report, "weights_sha256", None)
    return {
        "model": description.model if description else encoder.model_name,
        "revision": description.revision if description else None,
        "weights_sha256": digest,
        "dimension": getattr(description, "dimension", None),  # of terms there are many
        "precision": report.precision if report else None,
        "runtime": report.runtime if report else None,
        "fidelity": asdict(report.fidelity) if report and report.fidelity else None,
        "ranking": asdict(report.ranking) if report and report.ranking else None,
    }


def _summary(facts: Mapping[str, Any]) -> str:
    said = [f"commit {facts['revision'][:12]}"] if facts["revision"] else []
    if facts["dimension"] is not None:
        said.append(f"{facts['dimension']} dimensions")
    if facts["precision"] is not None:
        said.append(f"{facts['precision']}{_fidelity_summary(facts['fidelity'])}")
    if facts["runtime"] == "openvino":
        said.append("documents on OpenVINO")
    if facts["ranking"] is not None:
        said.append(f"Kendall's tau to float32 {facts['ranking']['tau']:.3f}")
    if facts["weights_sha256"] is not None:
        said.append(f"weights sha256 {facts['weights_sha256'][:12]}")
    return ", ".join(said) or "nothing to fetch"


def _fidelity_summary(fidelity: Mapping[str, Any] | None) -> str:
    """Say how near int8 vectors are to float32 ones, by the facts of a `Fidelity`, if any."""
    if fidelity is None:
        return ""
    said = f" (cosine to float32 {fidelity['mean']:.4f}"
    if fidelity["overlap"] is not None:
        groups = ", ".join(f"{group} {share:.0%}" for group, share in fidelity["overlaps"].items())
        said += f"; {fidelity['overlap']:.0%} of the ten nearest texts stay: {groups}"
    return f"{said})"


def _full_name(name: str | None) -> str | None:
    """Return a model's name as the catalog spells it, or unchanged if it is unknown."""
    return (known_name(name) if name else None) or name


def _cell(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(value) if len(value) <= _NAMED else f"{len(value)} languages"
    text = "" if value is None else str(value)
    return text if text == " ".join(text.split()) else repr(text)  # shows significant spaces
