"""Turns onnxruntime's telemetry off, which is on by default from its version 1.29 on.

It tells the vendor of models and machines over the network, from its import on. qdrant_client
imports onnxruntime when fastembed is installed, so this has to be imported before qdrant_client.
"""

from __future__ import annotations

import os

# who wants telemetry sets the variable to 0
IS_OFF = os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1") != "0"
