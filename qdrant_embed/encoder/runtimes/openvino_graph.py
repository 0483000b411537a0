"""Runs a compiled graph on OpenVINO, many texts at a time; the only importer of ``openvino``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qdrant_embed import forks, telemetry
from qdrant_embed.encoder.run.backend import Inputs
from qdrant_embed.encoder.run.cores import usable_cores
from qdrant_embed.errors import MissingDependencyError, ModelError

try:
    with telemetry.not_of_openvino():
        import openvino
except ImportError as error:
    raise MissingDependencyError("openvino", "runtime='openvino'", extra="openvino") from error

VERSION: str = openvino.__version__

# Two threads that infer for the first time in a process wait for each other for ever now and then
# (one holds the interpreter's lock, the other that of a constant which is made then; seen in 3 of
# 15 processes with 2026.4), so the first inference of all is made by one thread.
_STARTING = forks.ForkLock(awaited=True)

_HIDDEN = np.float32(-30000)  # added to the scores of padding; bfloat16 holds it, too


@dataclass(frozen=True, eq=False)
class _Slot:
    """A request of OpenVINO's for one thread at a time.

    Attributes:
        request: the request.
        lock: held while it runs, for which a fork waits: a child whose parent was in the middle of
            it would find OpenVINO's own locks held, and wait for ever (seen once in 150 forks).
    """

    request: Any
    lock: forks.ForkLock = field(default_factory=lambda: forks.ForkLock(awaited=True))


class OpenVinoGraph:
    """Runs a graph of standard operators, in bfloat16 where the processor computes in it.

    Any number of threads may use it; as many texts are run at once as there are cores. A forked
    child starts it again when it is next used.

    Args:
        graph: returns the graph as an ONNX file, whose inputs are ``input_ids``, ``mask`` and
            ``shares``.
        name: of the model, for errors.

    Raises:
        ModelError: the graph cannot be run.
    """

    def __init__(self, graph: Callable[[], bytes], name: str) -> None:
        self._graph, self._name = graph, name
        self._idle: list[_Slot] = []  # of which each thread takes one while it computes
        self._read: set[str] = set()  # inputs; a mean that is not computed needs no shares
        self._compiled: Any = None
        self._running()
        forks.on_fork(self)

    def after_fork(self) -> None:
        """Give up what a forked child cannot use: OpenVINO's threads."""
        forks.keep_forever((self._compiled, self._idle))
        self._compiled, self._idle = None, []

    def run(self, inputs: Inputs) -> NDArray[np.float32]:
        """Return the vector of each text, float32 [batch, dimension].

        Raises:
            ModelError: the graph cannot be run.
        """
        tokens = inputs.ids.shape[1]
        lengths = np.full(len(inputs.ids), tokens) if inputs.lengths is None else inputs.lengths
        idle = self._idle  # a forked child has others
        try:
            slot = idle.pop()
        except IndexError:
            with _STARTING:
                slot = _Slot(self._running().create_infer_request())
        with slot.lock:
            found = self._inferred(slot.request, inputs.ids, lengths)
        idle.append(slot)
        return found

    def _inferred(
        self, request: Any, ids: NDArray[np.int64], lengths: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        seen = np.arange(ids.shape[1]) < lengths[:, None]
        fed = {
            "input_ids": ids,
            "mask": np.where(seen, np.float32(0), _HIDDEN),
            "shares": (seen / lengths[:, None]).astype(np.float32),
        }
        try:
            request.infer({name: value for name, value in fed.items() if name in self._read})
        except RuntimeError as error:
            raise ModelError(f"{self._name} failed on OpenVINO: {error}") from error
        return np.array(request.get_output_tensor(0).data)

    def _running(self) -> Any:
        with _STARTING:
            if self._compiled is None:
                compiled = self._started()
                self._read = {name for port in compiled.inputs for name in port.names}
                request = compiled.create_infer_request()
                self._inferred(request, np.zeros((1, 1), np.int64), np.ones(1, np.int64))
                self._compiled = compiled
            return self._compiled

    def _started(self) -> Any:
        core, cores = openvino.Core(), str(usable_cores())
        bf16 = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        options = {
            "INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32",
            "NUM_STREAMS": cores,
            "INFERENCE_NUM_THREADS": cores,
        }
        try:
            return core.compile_model(core.read_model(self._graph()), "CPU", options)
        except RuntimeError as error:
            raise ModelError(f"{self._name} cannot be run on OpenVINO: {error}") from error
