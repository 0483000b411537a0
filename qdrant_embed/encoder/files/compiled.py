"""Compiled graphs in the cache folder: a folder each, with the report of how it was made."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from qdrant_embed.encoder.facts.precision import CompileReport
from qdrant_embed.encoder.files.cache import file_sha256

GRAPH, CONSTANTS, REPORT = "model.onnx", "model.onnx.weights", "compiled.json"


@dataclass(frozen=True)
class CompiledModel:
    """A graph that can be run, and the report of how it was made."""

    graph: Path
    report: CompileReport

    @property
    def files(self) -> tuple[Path, ...]:
        """The graph, and the constants that it reads from beside itself."""
        return self.graph, self.graph.with_name(CONSTANTS)

    def damaged_files(self) -> list[str]:
        """Hash the files again and list those that have changed."""
        written = (self.report.graph_sha256, self.report.constants_sha256)
        return [
            file.name
            for file, digest in zip(self.files, written, strict=True)
            if file_sha256(file) != digest
        ]


def compiled_folder(cache: Path, key: str) -> Path:
    """Return where the graph with that key is kept in `cache`."""
    return cache / "compiled" / key


def find_compiled(folder: Path) -> CompiledModel | None:
    """Return the compiled model in `folder`, if its files have the sizes that were written."""
    try:
        report = TypeAdapter(CompileReport).validate_json((folder / REPORT).read_bytes())
        sizes = ((folder / GRAPH).stat().st_size, (folder / CONSTANTS).stat().st_size)
    except (OSError, ValidationError):
        return None
    if sizes != (report.graph_bytes, report.weights_bytes):
        return None
    return CompiledModel(folder / GRAPH, report)


def compiled_models(cache: Path) -> Iterator[CompiledModel]:
    """Yield every compiled model in `cache` that is whole."""
    for folder in sorted((cache / "compiled").glob("*")):
        if (model := find_compiled(folder)) is not None:
            yield model


def discard(graph: Path) -> None:
    """Remove a compiled graph, so that it is made again when next asked for."""
    shutil.rmtree(graph.parent, ignore_errors=True)
