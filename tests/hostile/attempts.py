"""What is tried with hostile input, in a child process; see `room.py`."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

TEXTS = [
    "cat",
    "dog",
    "a" * 3000,
    "the cat sat on the mat",
    "paris \U00012000 zz",
    "",
    "mat " * 200,
]


def load(
    folder: str, cache: str, precision: str = "fp32", trial: float = 3.0, **options: Any
) -> Any:
    """Load a folder as a model and encode texts: every vector is finite, one for each text.

    `trial`: seconds that a first trial of a graph may take.
    """
    import numpy as np

    from qdrant_embed import TextEmbedding
    from qdrant_embed.encoder.run import loaded_model

    setattr(loaded_model, "TRIAL_SECONDS", trial)  # noqa: B010 - a constant, but for this test

    encoder = TextEmbedding(folder, cache_dir=cache, precision=precision, **options)  # type: ignore[arg-type]
    for texts in (TEXTS, *([text] for text in TEXTS)):
        vectors = list(encoder.embed(texts))
        assert len(vectors) == len(texts)
        for vector in vectors:
            assert vector.shape == (encoder.dimension,)
            assert np.isfinite(vector).all(), "not finite"
    # no vector depends on its neighbours
    alone = [next(encoder.embed(text)) for text in TEXTS]
    assert np.abs(np.stack(list(encoder.embed(TEXTS))) - np.stack(alone)).max() < 1e-2
    encoder.describe()
    encoder.report  # noqa: B018 - it may fail
    return None


def export(folder: str, cache: str, out: str) -> Any:
    """Export a model and load it from there."""
    from qdrant_embed import TextEmbedding

    TextEmbedding(folder, cache_dir=cache, precision="fp32").export(out)
    return load(out, cache)


def tensors(file: str) -> Any:
    """Read every tensor of a file; return how many there are."""
    from qdrant_embed.encoder.files.tensors import read_tensors, tensor_shapes

    path = Path(file)
    found = read_tensors([path])
    shapes = {name: tensor.shape for name, tensor in found.items()}
    assert shapes == tensor_shapes([path])
    return len(shapes)


def sparse(folder: str, cache: str) -> Any:
    """Load a folder as a SPLADE model."""
    from qdrant_embed import SparseTextEmbedding

    encoder = SparseTextEmbedding(folder, cache_dir=cache, precision="fp32")
    assert len(list(encoder.passage_embed(TEXTS))) == len(TEXTS)


def named(name: str, cache: str, endpoint: str | None = None, **options: Any) -> Any:
    """Load a model by its name; fetch it from `endpoint`, waiting for nothing."""
    import numpy as np
    from huggingface_hub import constants

    from qdrant_embed import TextEmbedding
    from qdrant_embed.backoff import Backoff
    from qdrant_embed.encoder.files import repository

    repository.BACKOFF = Backoff(first=0.001, longest=0.01)
    if endpoint is not None:
        constants.ENDPOINT = endpoint
    encoder = TextEmbedding(name, cache_dir=cache, precision="fp32", **options)
    assert all(np.isfinite(vector).all() for vector in encoder.embed(TEXTS))


def follow(
    stamp: dict[str, Any], cache: str, endpoint: str, directory: str, size: int, trust: bool
) -> Any:
    """Query a collection with a stamp; return the names of the folders in the cache.

    Args:
        stamp: of the collection.
        cache: the cache folder.
        endpoint: of the hub.
        directory: the working directory and home.
        size: of the collection's dense vector.
        trust: whether the client trusts stamps.
    """
    from huggingface_hub import constants
    from qdrant_client import models

    from qdrant_embed import QdrantClient

    constants.ENDPOINT = endpoint
    os.environ["QDRANT_EMBED_CACHE"], os.environ["HOME"] = cache, directory
    os.chdir(directory)
    client = QdrantClient(":memory:", trust_stamps=trust)
    client.create_collection(
        "c",
        {"v": models.VectorParams(size=size, distance=models.Distance.COSINE)},
        sparse_vectors_config={"s": models.SparseVectorParams()},
        metadata={"qdrant_embed": stamp},
    )
    client.upsert("c", [models.PointStruct(id=1, vector={"v": [1.0] * size})])
    hits = client.query("c", "cat")
    return [hit.id for hit in hits]


def command(arguments: list[str]) -> Any:
    """Run the command in this process; its exit code and output."""
    import contextlib
    import io

    from qdrant_embed.cli.main import main

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code: Any = main(arguments)
        except SystemExit as error:
            code = error.code
    return [code, out.getvalue(), err.getvalue()]


ATTEMPTS: dict[str, Callable[..., Any]] = {
    attempt.__name__: attempt for attempt in (load, export, tensors, sparse, named, follow, command)
}


def tried(case: dict[str, Any]) -> dict[str, Any]:
    """Run one case, whatever it raises."""
    from qdrant_embed import QdrantEmbedError

    started, found = time.monotonic(), None
    kind, error, message = "answer", "", ""
    try:
        found = ATTEMPTS[case["attempt"]](**case["arguments"])
    except QdrantEmbedError as typed:
        kind, error, message = "typed", type(typed).__name__, str(typed)
    except BaseException as escaped:
        import traceback

        kind, error = "escaped", type(escaped).__name__
        message = "".join(traceback.format_exception(escaped))[-1500:]
    return {
        "name": case["name"],
        "kind": kind,
        "error": error,
        "message": message,
        "seconds": time.monotonic() - started,
        "found": found,
    }


def main() -> None:
    job = json.loads(sys.stdin.buffer.read())
    if sys.platform == "linux":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (job["memory"], job["memory"]))
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no answer
    for case in job["cases"]:
        answers.write(json.dumps(tried(case)).encode() + b"\n")
        answers.flush()


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    main()
