"""A model in one folder that runs as it is: no network, nothing to compile, nothing else needed."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from qdrant_embed.encoder.facts.precision import CompileReport, ModelReport
from qdrant_embed.encoder.facts.spec import ModelSpec
from qdrant_embed.encoder.files.cache import explained, new_folder, sha256
from qdrant_embed.encoder.files.runnable import MANIFEST, Runnable
from qdrant_embed.encoder.files.snapshots import KeptFile
from qdrant_embed.encoder.files.tensors import read_tensors
from qdrant_embed.errors import InputError, ModelFileError

_TOKENIZER, _TABLE = "tokenizer.json", "static.npz"


class ExportedModel(BaseModel):
    """What an exported folder holds; its ``qdrant-embed.json``.

    Attributes:
        version: of this format.
        revision: the commit on the hub that the model came from.
        weights_sha256: of the weights it was made from.
        kind, spec, report, lower_case, skips_unknown, pooled: as in `Runnable`.
        run: names of the files that are run, as in `Runnable`.
        files: every file of the folder.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    revision: str | None
    weights_sha256: str
    kind: Literal["graph", "onnx", "static"]
    spec: ModelSpec
    report: CompileReport | ModelReport
    lower_case: bool
    skips_unknown: bool
    pooled: bool
    run: tuple[str, ...]
    files: Mapping[str, KeptFile]

    def runnable(self, folder: Path) -> Runnable:
        """The model, to be started."""
        return Runnable(
            kind=self.kind,
            spec=self.spec,
            report=self.report,
            tokenizer=folder / _TOKENIZER,
            files=tuple(folder / name for name in self.run),
            lower_case=self.lower_case,
            skips_unknown=self.skips_unknown,
            pooled=self.pooled,
        )


def export(
    runnable: Runnable, folder: Path, *, revision: str | None, weights_sha256: str, cache: Path
) -> ExportedModel:
    """Writes a model to a new `folder`, whole or not at all.

    Raises:
        InputError: there is something in the folder.
        ModelFileError: it cannot be written.
    """
    check_new(folder)
    with new_folder(folder, in_cache=False) as temporary:
        shutil.copyfile(runnable.tokenizer, temporary / _TOKENIZER)
        if runnable.kind == "static":
            np.savez(temporary / _TABLE, **read_tensors(runnable.files))  # type: ignore[arg-type] # numpy's stub takes the arrays' names for its own option
            run: tuple[str, ...] = (_TABLE,)
        else:
            run = tuple(file.name for file in runnable.files)
            for file in runnable.files:
                shutil.copyfile(file, temporary / file.name)
        exported = ExportedModel(
            revision=revision,
            weights_sha256=weights_sha256,
            kind=runnable.kind,
            spec=runnable.spec,
            report=runnable.report,
            lower_case=runnable.lower_case,
            skips_unknown=runnable.skips_unknown,
            pooled=runnable.pooled,
            run=run,
            files={
                file.name: KeptFile(size=file.stat().st_size, sha256=sha256(file, cache))
                for file in sorted(temporary.iterdir())
            },
        )
        (temporary / MANIFEST).write_text(exported.model_dump_json(indent=2), "utf-8")
    return exported


def check_new(folder: Path) -> None:
    """Says that `folder` cannot be exported to, before the long part of it.

    Raises:
        InputError: there is something in the folder.
        ModelFileError: it cannot be written.
    """
    with explained(folder, in_cache=False):
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError(f"{folder} is there already: export to a new folder")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{folder.name[:50]}-", dir=folder.parent):
            pass


def read_export(folder: Path) -> ExportedModel:
    """What an exported folder holds, by its own account.

    Raises:
        ModelFileError: the account cannot be read.
    """
    path = folder / MANIFEST
    try:
        exported = ExportedModel.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise ModelFileError(
            f"{path} cannot be used: it is damaged, or of a newer qdrant-embed; export the model "
            "again"
        ) from error
    if any(Path(name).name != name for name in (*exported.run, *exported.files)):
        raise ModelFileError(f"{path} names files outside of its folder")
    return exported


def damaged_files(folder: Path, exported: ExportedModel, cache: Path | None) -> list[str]:
    """Names of files that are missing or not as exported; digests noted in `cache` will do."""
    return [name for name, file in exported.files.items() if not file.is_at(folder / name, cache)]


def check_export(folder: Path, exported: ExportedModel, cache: Path) -> None:
    """Raises `ModelFileError` unless every file is as it was exported."""
    if damaged := damaged_files(folder, exported, cache):
        raise ModelFileError(
            f"the exported model in {folder} is damaged: {', '.join(damaged)} missing or not as "
            "written; export the model again"
        )
