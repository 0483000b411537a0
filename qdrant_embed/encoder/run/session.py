"""Runs a compiled graph; the only importer of ``onnxruntime``."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from qdrant_embed import forks, telemetry  # before onnxruntime
from qdrant_embed.encoder.files.short_graph import short_graph
from qdrant_embed.encoder.interfaces import Vector
from qdrant_embed.encoder.run.backend import SEEN_TOKENS, Inputs
from qdrant_embed.encoder.run.batching import LONG_TEXT
from qdrant_embed.errors import MissingDependencyError, ModelError, ModelFileError

try:
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors
except ImportError as error:
    raise MissingDependencyError("onnxruntime", "encoding text") from error

if telemetry.IS_OFF:
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
# where a graph that comes in bytes reads its constants; onnxruntime 1.20 does not know of it
_CONSTANTS = "session.model_external_initializers_file_folder_path"
_FINDS_CONSTANTS = [*map(int, onnxruntime.__version__.split(".")[:2])] > [1, 20]


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
        graph: of `short_graph`; it is run instead of the file, and reads constants from beside it.

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
        graph: bytes | None = None,
    ) -> None:
        self._path, self._providers, self._threads = path, providers, threads
        self._graph = graph
        self._lock = forks.ForkLock()
        self._running: set[int] = set()  # threads
        self._session = self._started()
        forks.on_fork(self)

    def _started(self) -> Any:
        path, providers = self._path, self._providers
        names = check_providers(providers)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        # between two texts the helpers go on waiting awake, for about as long as a text takes
        options.add_session_config_entry("session.intra_op.spin_duration_us", "2000")
        options.log_severity_level = 3  # errors only
        # a plan for each new shape is faster, but memory that only grows; short texts have few
        options.enable_mem_pattern = self._graph is not None
        try:
            if self._graph is not None:
                options.add_session_config_entry(_CONSTANTS, str(path.parent))
            graph = str(path) if self._graph is None else self._graph
            session = onnxruntime.InferenceSession(graph, options, list(providers))
        except _ERRORS as error:
            raise ModelFileError(f"{path} cannot be run: {error}") from error
        started = session.get_providers()
        if missing := [name for name in names if name not in started]:
            raise ModelError(
                f"{', '.join(missing)} is in this onnxruntime but could not be started (its "
                f"libraries or device are missing); running on {', '.join(started)} instead was "
                "not asked for"
            )
        session.disable_fallback()  # a device that fails later is an error, too
        return session

    def after_fork(self) -> None:
        """Give up what a forked child cannot use: helping threads, and locks others may hold.

        The session is started again when next used. It is not destroyed, because its end would
        wait for its threads.
        """
        others = self._running - {threading.get_ident()}
        self._running.clear()
        if self._session is not None and (others or self._threads > 1 or not self._on_cpu):
            forks.keep_forever(self._session)
            self._session = None

    @property
    def _on_cpu(self) -> bool:
        return all(provider in CPU for provider in self._providers)

    def _restarted(self) -> Any:
        """Start the session again in a forked child.

        Raises:
            ModelError: it runs on a device, which only the parent can use.
        """
        if not self._on_cpu:
            raise ModelError(
                f"{self._path} was loaded on {self._providers} before this process was forked: "
                "its child cannot use the device. Load the model after the fork, or start "
                "processes by 'spawn'"
            )
        with self._lock:
            if self._session is None:
                self._session = self._started()
            return self._session

    @property
    def inputs(self) -> dict[str, TensorType]:
        """What the graph reads."""
        nodes = (self._session or self._restarted()).get_inputs()
        return {node.name: TensorType(node.type, node.shape) for node in nodes}

    @property
    def output_names(self) -> list[str]:
        """Names of the graph's outputs."""
        return [node.name for node in (self._session or self._restarted()).get_outputs()]

    def run(self, inputs: Inputs) -> NDArray[np.float32]:
        """Return the graph's output for each text, float32 [batch, ...].

        Raises:
            ModelError: it failed in the middle: the device is gone, or memory is short.
        """
        fed = {"input_ids": inputs.ids}
        if inputs.token_types is not None:
            fed["token_type_ids"] = inputs.token_types
        if inputs.seen_tokens is not None:
            fed[SEEN_TOKENS] = np.array([inputs.seen_tokens], np.int64)
        return self._run(_OUTPUT, fed)[0]

    def feed(self, inputs: Mapping[str, NDArray[Any]], names: Sequence[str]) -> list[Vector]:
        """Return the named outputs, each in memory of its own; Raises as `run` does."""
        return self._run(list(names), dict(inputs))

    def _run(self, names: list[str], inputs: Mapping[str, NDArray[Any]]) -> list[Vector]:
        session, thread = self._session or self._restarted(), threading.get_ident()
        self._running.add(thread)
        try:
            # copied, as onnxruntime frees its own under a lock, which another thread may hold when
            # a child is forked: one that frees a vector of its parent's would wait for ever
            found = [np.array(output) for output in session.run(names, inputs)]
        except _ERRORS as error:
            raise ModelError(f"{self._path} was loaded, but failed when run: {error}") from error
        finally:
            self._running.discard(thread)
        return found


class SpreadSession:
    """Runs one text at a time with several threads, short texts on a graph of their own.

    A graph that computes attention in one way for short texts and in another for long ones takes a
    while to choose, in each layer. Short texts, which most queries are, run on one that does not
    choose. The whole graph is loaded for the first long text.

    Args:
        path: as for `Session`.
        providers: as for `Session`.
        threads: as for `Session`.

    Raises:
        The same errors as `Session`.
    """

    def __init__(self, path: Path, providers: Sequence[Provider] = CPU, *, threads: int) -> None:
        self._start = partial(Session, path, providers, threads=threads)
        try:
            graph = short_graph(path.read_bytes(), LONG_TEXT) if _FINDS_CONSTANTS else None
        except OSError as error:
            raise ModelFileError(f"{path} cannot be read: {error}") from error
        self._short = self._start(graph=graph)
        self._whole = self._short if graph is None else None
        self._lock = forks.ForkLock()

    def run(self, inputs: Inputs) -> NDArray[np.float32]:
        """Return the graph's output for each text; see `Session.run`."""
        return self._for(inputs.ids).run(inputs)

    def feed(self, inputs: Mapping[str, NDArray[Any]], names: Sequence[str]) -> list[Vector]:
        """Return the named outputs; see `Session.feed`."""
        return self._for(inputs["input_ids"]).feed(inputs, names)

    def _for(self, ids: NDArray[Any]) -> Session:
        if ids.shape[1] < LONG_TEXT:
            return self._short
        if self._whole is None:
            with self._lock:
                if self._whole is None:
                    self._whole = self._start()
        return self._whole
