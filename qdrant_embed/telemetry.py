"""Turns telemetry of runtimes off, which tells vendors of machines and models over the network.

onnxruntime has it from its version 1.29 on, from its import on. qdrant_client imports onnxruntime
when fastembed is installed, so this has to be imported before qdrant_client. OpenVINO has it in
a package of its own, which its import uses, and which forks.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# who wants telemetry sets the variable to 0
IS_OFF = os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1") != "0"

_OF_OPENVINO = "openvino_telemetry"


@contextmanager
def not_of_openvino() -> Iterator[None]:
    """Import OpenVINO in the block: it does without its telemetry where it does not find it."""
    if _OF_OPENVINO in sys.modules or not IS_OFF:
        yield
        return
    sys.modules[_OF_OPENVINO] = None  # type: ignore[assignment] # which cannot be imported then
    try:
        yield
    finally:
        del sys.modules[_OF_OPENVINO]
