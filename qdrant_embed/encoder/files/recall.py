"""What was found out about a model's files, kept for the next process.

Reading and checking a model's own description of itself takes longer than loading the model. It
is done once; as long as no file of the model, nor of this package, has changed, what was found
out then still holds. A note that is missing, outdated or unreadable is no error: all is found out
again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from qdrant_embed.encoder.facts.precision import CompileReport, Fidelity, ModelReport
from qdrant_embed.encoder.facts.spec import ModelSpec
from qdrant_embed.encoder.files.cache import note_down
from qdrant_embed.encoder.files.runnable import Runnable
from qdrant_embed.errors import InputError

_MOST_FILES = 100  # in a model's folder; with more it is some other folder, too


@dataclass(frozen=True)
class Recalled:
    """What is known of a model: its facts, its weights' digest, and what it takes to start it."""

    spec: ModelSpec
    weights_sha256: str
    runnable: Runnable


class Recollection:
    """The note of one model, as it was asked for.

    Args:
        folder: the model's.
        asked: all options and facts that what is found out depends on.
        cache: the cache folder.
    """

    def __init__(self, folder: Path, asked: Iterable[object], cache: Path) -> None:
        self._folder = folder
        key = "\n".join(map(repr, (folder.resolve(), _newest_module(), *asked)))
        self._note = cache / "recall" / f"{hashlib.sha256(key.encode()).hexdigest()}.json"

    def read(self) -> Recalled | None:
        """What was found out, if every file is still as it was then."""
        try:
            note = json.loads(self._note.read_bytes())
            runnable = _runnable(note["runnable"])
            if note["files"] != self._states(runnable):
                return None
            return Recalled(_spec(note["spec"]), note["weights_sha256"], runnable)
        except (OSError, ValueError, KeyError, TypeError, InputError):
            return None

    def write(self, found: Recalled) -> None:
        """Keeps what was found out."""
        states = self._states(found.runnable)
        if states is not None:
            note = asdict(found) | {"files": states}
            note_down(self._note, json.dumps(note, default=str))

    def _states(self, runnable: Runnable) -> dict[str, list[int]] | None:
        """Size and time of each file of the model; ``None`` where the folder holds too many."""
        own = list(islice(self._folder.rglob("*"), _MOST_FILES))
        if len(own) == _MOST_FILES:
            return None
        states = {str(path): path.stat() for path in {*own, *runnable.files, runnable.tokenizer}}
        return {name: [state.st_size, state.st_mtime_ns] for name, state in states.items()}


def _newest_module() -> int:
    """Changes with every version of this package."""
    return max(path.stat().st_mtime_ns for path in Path(__file__).parent.rglob("*.py"))


def _runnable(note: dict[str, Any]) -> Runnable:
    fields = dict(note)
    report = dict(fields.pop("report"))
    if report["fidelity"] is not None:
        report["fidelity"] = Fidelity(**report["fidelity"])
    kind = CompileReport if "graph_version" in report else ModelReport
    if "float32_groups" in report:
        report["float32_groups"] = tuple(report["float32_groups"])
    return Runnable(
        **fields
        | {
            "spec": _spec(fields["spec"]),
            "report": kind(**report),
            "tokenizer": Path(fields["tokenizer"]),
            "files": tuple(map(Path, fields["files"])),
        }
    )


def _spec(note: dict[str, Any]) -> ModelSpec:
    return ModelSpec(**note)
