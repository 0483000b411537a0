"""What `runtime=` takes, with or without OpenVINO."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
from tiny import TinyModel

from qdrant_embed import InputError, MissingDependencyError, QdrantClient, TextEmbedding
from qdrant_embed.encoder.runtimes import choice


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"runtime": "torch"}, "runtime must be one of 'auto', 'onnxruntime', 'openvino'"),
        ({"runtime": None}, "runtime must be one of"),
        ({"runtime": "openvino", "cuda": True}, "omit cuda= and providers="),
        (
            {"runtime": "openvino", "providers": ["CPUExecutionProvider"]},
            "omit cuda= and providers=",
        ),
        ({"runtime": "openvino", "precision": "bf16"}, "int8, not in bf16: omit precision="),
    ],
)
def test_what_cannot_be_met_is_refused_before_a_model_is_found(
    options: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        TextEmbedding("no/model", **options)
    client = QdrantClient(":memory:")
    with pytest.raises(InputError, match=said):
        client.set_model("no/model", **options)


def test_without_openvino(tiny: TinyModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def found(name: str) -> object:
        return None if name == "openvino" else importlib.util.find_spec(name)

    monkeypatch.setattr(choice, "find_spec", found)
    with pytest.raises(MissingDependencyError, match=r"qdrant-embed\[openvino\]"):
        TextEmbedding(tiny.path, runtime="openvino")
    encoder = TextEmbedding(tiny.path, runtime="auto")
    assert encoder.runtime == "onnxruntime"
    assert repr(encoder).endswith("precision='int8', runtime='onnxruntime')")


def test_terms_of_the_same_pass_run_on_onnxruntime() -> None:
    client = QdrantClient(":memory:")
    with pytest.raises(InputError, match="cannot be combined with sparse=True"):
        client.set_model("BAAI/bge-m3", sparse=True, runtime="openvino")


def test_an_encoder_object_takes_no_runtime(tiny: TinyModel) -> None:
    client = QdrantClient(":memory:")
    with pytest.raises(InputError, match="runtime: only models by name"):
        client.set_model(TextEmbedding(tiny.path, lazy_load=True), runtime="auto")
