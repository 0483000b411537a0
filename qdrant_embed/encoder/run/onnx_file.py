"""Runs a model's own ONNX file, for architectures that are not compiled."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qdrant_embed.encoder.facts.head import HeadModule
from qdrant_embed.encoder.facts.spec import ModelSpec
from qdrant_embed.encoder.interfaces import Vector
from qdrant_embed.encoder.run.backend import Inputs, l2_normalized
from qdrant_embed.encoder.run.pooling import NO_HEAD, pool_tokens, read_head
from qdrant_embed.encoder.run.session import Session
from qdrant_embed.errors import ModelError, ModelFileError

_KINDS = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}
_FED = ("input_ids", "attention_mask", "token_type_ids", "position_ids")
_POOLED = "sentence_embedding"
_OUTPUTS = (_POOLED, "token_embeddings", "last_hidden_state")


class OnnxFile:
    """Runs a graph as exporters write them, and pools and normalises its output.

    Texts that run together have one length, so the mask is all ones and nothing is padded: a
    vector does not depend on its neighbours. A quantised file determines its ranges in each
    run, so it runs one text at a time, and so does a file that was exported for a batch of one.

    Args:
        session: the file, loaded.
        path: the file, for messages.
        spec: pooling, normalisation and dimension.
        one_by_one: run one text at a time.
        pooled: the file itself must pool, because the weights of what follows are not there.
        head: what follows the pooling, where the file does not pool.
        trial: token ids of any text, to see that the file can be run.

    Raises:
        ModelFileError: it cannot, or its vectors have another dimension.
    """

    def __init__(
        self,
        session: Session,
        path: Path,
        spec: ModelSpec,
        *,
        one_by_one: bool,
        pooled: bool,
        trial: list[int],
        head: Sequence[HeadModule] = (),
    ) -> None:
        self._session, self._path, self._spec = session, path, spec
        self._inputs = session.inputs
        self._one_by_one = one_by_one or any(i.shape[:1] == [1] for i in self._inputs.values())
        self._check_inputs()
        names = session.output_names
        wanted = (name for name in _OUTPUTS if name in names)
        self._output = next(wanted, names[0])
        self._head = read_head(head) if self._output != _POOLED else NO_HEAD
        if pooled and self._output != _POOLED:
            raise ModelFileError(
                f"{path} returns no {_POOLED}, but the model's modules.json chains a Dense or "
                "LayerNorm module, whose weights are not there: it can be run only as part of the "
                "file"
            )
        try:
            self.run(Inputs(np.array([trial], np.int64)))
        except ModelFileError:
            raise
        except ModelError as error:
            raise ModelFileError(f"{path} cannot be run: {error.__cause__}") from error

    def run(self, inputs: Inputs) -> NDArray[np.float32]:
        """Return vectors, float32 [batch, dimension].

        Raises:
            ModelFileError: the file returns something else.
            ModelError: it failed.
        """
        ids, types = inputs.ids, inputs.token_types
        if types is None:
            types = np.zeros_like(ids)
        if self._one_by_one and len(ids) > 1:
            rows = [Inputs(ids[i : i + 1], types[i : i + 1]) for i in range(len(ids))]
            return np.concatenate([self.run(row) for row in rows])
        values = {
            "input_ids": ids,
            "attention_mask": np.ones_like(ids),
            "token_type_ids": types,
            "position_ids": np.broadcast_to(np.arange(ids.shape[1]), ids.shape),
        }
        fed = {
            name: values[name].astype(_KINDS[taken.kind], copy=False)
            for name, taken in self._inputs.items()
        }
        output = self._session.feed(fed, [self._output])[0]
        if not isinstance(output, np.ndarray) or output.dtype.kind not in "fiu":
            raise ModelFileError(f"{self._path} returns {self._output}, which is no numbers")
        with np.errstate(all="ignore"):  # of what is not finite, an error says more than warnings
            return self._finished(output.astype(np.float32), ids)

    def _finished(self, output: Vector, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Pool and normalise the file's output; raise `ModelFileError` if it has no vectors."""
        vectors = self._pooled(output)
        if vectors.ndim != 2 or len(vectors) != len(ids):
            raise ModelFileError(
                f"{self._path} returns {self._output} of shape {list(output.shape)} for "
                f"{len(ids)} texts of {ids.shape[1]} tokens, which is not a vector for each"
            )
        if vectors.shape[1] != self._spec.dimension:
            raise ModelFileError(
                f"{self._path} returns vectors of {vectors.shape[1]} numbers, but by its other "
                f"files {self._spec.name} has {self._spec.dimension}"
            )
        return l2_normalized(vectors) if self._spec.normalize else vectors

    def _pooled(self, output: Vector) -> Vector:
        if output.ndim != 3:
            if self._head.modules:
                raise ModelFileError(
                    f"{self._path} returns {self._output}, one vector for each text: whether the "
                    "modules after the pooling, which modules.json chains, are part of it is "
                    f"unknown; export it with an output named {_POOLED}"
                )
            return output
        if self._spec.pooling is None:
            raise ModelFileError(
                f"{self._path} returns a vector for each token, and {self._spec.name} does not say "
                "how to pool them"
            )
        return self._head.applied_to(pool_tokens(output, self._spec.pooling))

    def _check_inputs(self) -> None:
        for name, taken in self._inputs.items():
            if name not in _FED or taken.kind not in _KINDS:
                raise ModelFileError(
                    f"{self._path} reads {name} ({taken.kind}); only {', '.join(_FED)} can be "
                    "given, as whole numbers"
                )
            if any(isinstance(size, int) for size in taken.shape[1:]) or len(taken.shape) != 2:
                raise ModelFileError(
                    f"{self._path} reads {name} of shape {list(taken.shape)}: it was exported for "
                    "texts of one length; export it with a dynamic axis for the tokens"
                )
