"""Compiled graphs in the cache folder: a folder each, with the report of how it was made."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from qdrant_embed.encoder.facts.precision import CompileReport
from qdrant_embed.encoder.files.cache import (
    explained,
    is_as_written,
    locked,
    make_folder,
    remove,
    unsealed,
)

logger = logging.getLogger(__name__)

_UNFINISHED = ".unfinished"
_FORGOTTEN = 7 * 86400.0  # seconds

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

    def damaged_files(self, cache: Path | None = None) -> list[str]:
        """List the files that are missing or not as written; hash them again.

        With `cache`, a digest that is noted there will do, if the file's size and time are those of
        then.
        """
        report = self.report
        written = (
            (report.graph_bytes, report.graph_sha256),
            (report.weights_bytes, report.constants_sha256),
        )
        return [
            file.name
            for file, (size, digest) in zip(self.files, written, strict=True)
            if not is_as_written(file, size, digest, cache)
        ]


def compiled_folder(cache: Path, key: str) -> Path:
    """Return where the graph with that key is kept in `cache`."""
    return cache / "compiled" / key


def compiled_folders(cache: Path) -> list[Path]:
    """List the folders of compiled models in `cache`, whole or not."""
    folders = sorted((cache / "compiled").glob("*"))
    return [folder for folder in folders if folder.is_dir() and not folder.name.startswith(".")]


def read_compiled(folder: Path) -> CompiledModel | None:
    """Return the compiled model in `folder`, if its report can be read."""
    try:
        content = unsealed((folder / REPORT).read_bytes())
        report = TypeAdapter(CompileReport).validate_python(content)
    except (OSError, ValueError):
        return None
    return CompiledModel(folder / GRAPH, report)


def find_compiled(
    folder: Path, cache: Path, *, weights_sha256: str, made_from: str | None
) -> CompiledModel | None:
    """Return the compiled model in `folder`, if it was made from that and its files are whole.

    Args:
        folder: where it may be.
        cache: the cache folder; keeps digests of files.
        weights_sha256: the weights that it must have been made from.
        made_from: what else it must have been made from, as `CompileReport` has it.
    """
    found = read_compiled(folder)
    if found is None or found.report.weights_sha256 != weights_sha256:
        return None
    if found.report.made_from != made_from or found.damaged_files(cache):
        return None
    return found


@contextmanager
def compiling_alone(folder: Path) -> Iterator[Path]:
    """Wait until no other process compiles to `folder`; return where to keep what is unfinished.

    It stays there if the block fails or the process is killed. What others left is removed after a
    week in which nothing was added to it.

    Raises:
        ModelFileError: the cache folder cannot be written.
    """
    compiled = folder.parent
    lock = compiled / f".{folder.name}.lock"
    with explained(folder):
        make_folder(compiled)
        for old in compiled.glob(f".*{_UNFINISHED}"):
            with suppress(OSError):
                changed = max(file.stat().st_mtime for file in (old, *old.iterdir()))
                if time.time() - changed > _FORGOTTEN:
                    logger.info("removing %s, which was not resumed for a week", old)
                    remove(old)
        with locked(lock):
            try:
                unfinished = compiled / f".{folder.name}{_UNFINISHED}"
                yield unfinished
                remove(unfinished)
            finally:
                with suppress(OSError):  # who waits for it finds the compiled model, as a rule
                    lock.unlink()


def unfinished_folders(cache: Path) -> list[Path]:
    """List what interrupted compilations left in `cache`, to be resumed."""
    return sorted((cache / "compiled").glob(f".*{_UNFINISHED}"))


def discard(graph: Path) -> None:
    """Remove a compiled graph, so that it is made again when next asked for."""
    shutil.rmtree(graph.parent, ignore_errors=True)
