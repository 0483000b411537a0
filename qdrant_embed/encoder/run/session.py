"""Runs a compiled graph; the only importer of ``onnxruntime``."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from qdrant_embed.encoder.interfaces import Vector
from qdrant_embed.encoder.run.backend import Inputs
from qdrant_embed.errors import MissingDependencyError, ModelError, ModelFileError

# from 1.29 on, onnxruntime tells its vendor of models and machines over the network, from its
# import on, unless this is set; set the variable to 0 to allow it
_QUIET = os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1") != "0"

try:
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors
except ImportError as error:
    raise MissingDependencyError("onnxruntime", "encoding text") from error

if _QUIET:
    onnxruntime.disable_telemetry_events()  # where something else has imported it before

Provider: TypeAlias = "str | tuple[str, Mapping[str, object]]"

_ERRORS = (
    ort_errors.EPFail,
    ort_errors.EngineError,
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.NoSuchFile,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
)
CPU: tuple[Provider, ...] = ("CPUExecutionProvider",)
_OUTPUT = ["embedding"]


@dataclass(frozen=True)
class TensorType:
    """What one input of a graph takes: onnxruntime's name of a type; a size or name by axis."""

    kind: str
    shape: Sequence[int | str | None]


def check_providers(providers: Sequence[Provider]) -> list[str]:
    """Check that this onnxruntime has all of the execution providers; return their names.

    Raises:
        MissingDependencyError: one is missing.
    """
    names = [provider if isinstance(provider, str) else provider[0] for provider in providers]
    available = onnxruntime.get_available_providers()
    for name in names:
        if name not in available:
            raise MissingDependencyError(
                f"{name} (this onnxruntime has {', '.join(available)})",
                f"providers={names}",
                extra="gpu",
            )
    return names


class Session:
    """Runs one copy of a model's graph; any number of threads may use it at once.

    By default each `run` uses the calling thread alone: for many texts, threads that each run a
    batch of their own are faster than threads inside one run.

    Args:
        path: the compiled graph.
        providers: execution providers in order of preference, all of which must be there.
        threads: used by one run, the calling one included.

    Raises:
        MissingDependencyError: a provider is not in this build of onnxruntime.
        ModelError: a provider is in the build but could not be started.
        ModelFileError: the file is not a graph that can be run.
    """

    def __init__(
        self,
        path: Path,
        providers: Sequence[Provider] = CPU,
        *,
        threads: int = 1,
    ) -> None:
        self._path = path
        names = check_providers(providers)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # between two texts the helpers go on waiting awake, for about as long as a text takes
        options.add_session_config_entry("session.intra_op.spin_duration_us", "2000")
        options.log_severity_level = 3  # errors only
        options.enable_mem_pattern = False  # a plan for each new shape is memory that only grows
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, list(providers))
        except _ERRORS as error:
            raise ModelFileError(f"{path} cannot be run: {error}") from error
        started = self._session.get_providers()
        if missing := [name for name in names if name not in started]:
            raise ModelError(
                f"{', '.join(missing)} is in this onnxruntime but could not be started (its "
                f"libraries or device are missing); running on {', '.join(started)} instead was "
                "not asked for"
            )
        self._session.disable_fallback()  # a device that fails later is an error, too

    @property
    def inputs(self) -> dict[str, TensorType]:
        """What the graph reads."""
        return {node.name: TensorType(node.type, node.shape) for node in self._session.get_inputs()}

    @property
    def output_names(self) -> list[str]:
        """Names of the graph's outputs."""
        return [node.name for node in self._session.get_outputs()]

    def run(self, inputs: Inputs) -> NDArray[np.float32]:
        """Return the graph's output for each text, float32 [batch, ...].

        Raises:
            ModelError: it failed in the middle: the device is gone, or memory is short.
        """
        fed = {"input_ids": inputs.ids}
        if inputs.token_types is not None:
            fed["token_type_ids"] = inputs.token_types
        return self._run(_OUTPUT, fed)[0]

    def feed(self, inputs: Mapping[str, NDArray[Any]], names: Sequence[str]) -> list[Vector]:
        """Return the named outputs of the graph for all of its inputs; Raises as `run` does."""
        return self._run(list(names), dict(inputs))

    def _run(self, names: list[str], inputs: Mapping[str, NDArray[Any]]) -> list[Vector]:
        try:
            found: list[Vector] = self._session.run(names, inputs)
        except _ERRORS as error:
            raise ModelError(f"{self._path} was loaded, but failed when run: {error}") from error
        return found
