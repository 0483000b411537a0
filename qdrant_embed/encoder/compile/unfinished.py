"""What a compilation has done so far, kept in the cache folder so that it can be resumed."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qdrant_embed.encoder.compile.quantize import (
    Array,
    Kind,
    LinearGroup,
    QuantizedGroup,
    QuantizedLinear,
)
from qdrant_embed.encoder.files.cache import (
    file_sha256,
    make_folder,
    open_private,
    sealed,
    unsealed,
    write_whole,
)
from qdrant_embed.errors import ModelFileError

_RECORD = "unfinished.json"
_STATES_EVERY = 15.0  # seconds of work that are worth writing hidden states
_LATEST = 2  # groups kept in memory: a graph reads those of one layer by turns

# what reading a file of arrays may raise, and what a record that somebody edited leads to
_DAMAGED = (OSError, ValueError, KeyError, TypeError, AttributeError, ModelFileError)


class Unfinished:
    """The int8 groups of all layers that are done, and the hidden states after the last of them.

    Groups are read when they are requested, so that memory need not hold them all. Everything is
    recorded with its sha256 and with what it was made from; what does not fit is not used.

    Args:
        folder: where it is kept.
        made_from: hex digest of all that the graph depends on: weights, config, options, tokenizer
            and the version of the compiler.
    """

    def __init__(self, folder: Path, made_from: str) -> None:
        self._folder, self._made_from = folder, made_from
        self._digests: dict[str, str] = {}
        self._states_written = time.monotonic()
        make_folder(folder)
        with suppress(*_DAMAGED):
            record = unsealed((folder / _RECORD).read_bytes())
            if record["made_from"] == made_from:
                self._digests = {
                    str(name): digest
                    for name, digest in record["files"].items()
                    if file_sha256(folder / Path(name).name) == digest
                }

    @property
    def groups(self) -> Mapping[LinearGroup, QuantizedGroup]:
        """All groups of layers that are done."""
        return _Groups(
            {
                group: (self._folder / name, position)
                for name in sorted(self._digests)
                if name.startswith("layer-")
                for position, group in enumerate(_groups_in(self._folder / name))
            }
        )

    def resumed(self) -> tuple[int, list[Array]]:
        """Return the number of layers that are done, and the states after them; 0 and none if not.

        Layers after the last whose states were written are done again.
        """
        for name in self._digests:
            if name.startswith("states-"):
                number = int(name.removeprefix("states-").removesuffix(".npz"))
                layers = [_layer(done) for done in range(number)]
                if set(layers) <= self._digests.keys():
                    with suppress(*_DAMAGED):
                        with np.load(self._folder / name, allow_pickle=False) as archive:
                            states = [archive[f"{i}"] for i in range(len(archive.files))]
                        self._digests = {kept: self._digests[kept] for kept in (*layers, name)}
                        return number, states
        self._digests = {}
        return 0, []

    def add(
        self,
        number: int,
        groups: Mapping[LinearGroup, QuantizedGroup],
        states: Sequence[Array | None],
        *,
        last: bool,
    ) -> None:
        """Keep the groups of layer `number`, and now and then the states after it."""
        self._write(_layer(number), _packed(groups))
        now = time.monotonic()
        if last or now - self._states_written > _STATES_EVERY:
            self._states_written = now
            old = [name for name in self._digests if name.startswith("states-")]
            arrays = {str(i): state for i, state in enumerate(states) if state is not None}
            self._write(f"states-{number + 1}.npz", arrays)
            for name in old:
                del self._digests[name]
                (self._folder / name).unlink(missing_ok=True)
        record = {"made_from": self._made_from, "files": self._digests}
        write_whole(self._folder / _RECORD, sealed(record))

    def _write(self, name: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        path = self._folder / name
        partial = path.with_suffix(".partial")
        with open_private(partial) as file:
            np.savez(file, **arrays)  # type: ignore[arg-type] # numpy's stub takes the arrays' names for its own option
        digest = file_sha256(partial)
        partial.replace(path)
        self._digests[name] = digest


class _Groups(Mapping[LinearGroup, QuantizedGroup]):
    def __init__(self, places: Mapping[LinearGroup, tuple[Path, int]]) -> None:
        self._places = places
        self._latest: dict[LinearGroup, QuantizedGroup] = {}  # those that are asked for in a row

    def __getitem__(self, group: LinearGroup) -> QuantizedGroup:
        if group not in self._latest:
            path, position = self._places[group]
            if len(self._latest) == _LATEST:
                del self._latest[next(iter(self._latest))]
            with np.load(path, allow_pickle=False) as archive:
                self._latest[group] = _unpacked(archive, position)
        return self._latest[group]

    def __contains__(self, group: object) -> bool:
        return group in self._places  # without reading it

    def __iter__(self) -> Iterator[LinearGroup]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def _layer(number: int) -> str:
    return f"layer-{number}.npz"


def _packed(groups: Mapping[LinearGroup, QuantizedGroup]) -> dict[str, NDArray[Any]]:
    names = [[group.layer, group.kind, group.expert] for group in groups]
    arrays: dict[str, NDArray[Any]] = {"groups": np.array(json.dumps(names))}
    for position, group in enumerate(groups.values()):
        if group.smoothing is not None:
            arrays[f"{position}.smoothing"] = group.smoothing
        arrays[f"{position}.input_scale"] = np.array(group.input_scale, np.float32)
        arrays[f"{position}.input_zero_point"] = np.array(group.input_zero_point)
        arrays[f"{position}.linears"] = np.array(len(group.linears))
        for number, linear in enumerate(group.linears):
            arrays[f"{position}.{number}.weight"] = linear.weight
            arrays[f"{position}.{number}.scale"] = linear.scale
            arrays[f"{position}.{number}.bias"] = linear.bias
    return arrays


def _groups_in(path: Path) -> list[LinearGroup]:
    with np.load(path, allow_pickle=False) as archive:
        names: list[tuple[int, Kind, int | None]] = json.loads(str(archive["groups"]))
    return [LinearGroup(layer, kind, expert) for layer, kind, expert in names]


def _unpacked(archive: Mapping[str, NDArray[Any]], position: int) -> QuantizedGroup:
    smoothing = f"{position}.smoothing"
    return QuantizedGroup(
        smoothing=archive.get(smoothing),
        input_scale=np.float32(archive[f"{position}.input_scale"]),
        input_zero_point=int(archive[f"{position}.input_zero_point"]),
        linears=tuple(
            QuantizedLinear(
                *(archive[f"{position}.{number}.{part}"] for part in ("weight", "scale", "bias"))
            )
            for number in range(int(archive[f"{position}.linears"]))
        ),
    )
