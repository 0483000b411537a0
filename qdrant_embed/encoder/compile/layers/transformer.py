"""What the graphs of all transformer encoders have in common: layers, their parts, the heads."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from qdrant_embed.encoder.compile.graph import FLOAT, INTEGER, MICROSOFT, Graph
from qdrant_embed.encoder.compile.halves import BFLOAT16, stored
from qdrant_embed.encoder.compile.large_tensors import row_blocks, shape_of, storage_of
from qdrant_embed.encoder.compile.layers.term_head import (
    TermHead,
    add_term_weights,
    term_linears,
)
from qdrant_embed.encoder.compile.layers.token_vectors import SeenTokens, add_token_vectors
from qdrant_embed.encoder.compile.layers.token_weights import TokenHead, add_token_weights
from qdrant_embed.encoder.compile.quantize import (
    NOTHING_QUANTIZED,
    Array,
    Kind,
    Linear,
    LinearGroup,
    QuantizationPlan,
    QuantizedGroup,
    quantize_rows,
    row_scales,
)
from qdrant_embed.encoder.facts.architectures import Activation, TransformerConfig
from qdrant_embed.encoder.facts.colbert import PROJECTION
from qdrant_embed.encoder.facts.precision import Storage
from qdrant_embed.encoder.facts.spec import ModelSpec
from qdrant_embed.encoder.interfaces import assert_never
from qdrant_embed.encoder.run.backend import WEIGHED
from qdrant_embed.encoder.run.pooling import (
    NO_HEAD,
    Head,
    add_pooling,
    needs_first_token_only,
)
from qdrant_embed.errors import ModelFileError

C = TypeVar("C", bound=TransformerConfig)

HIDDEN = "hidden"  # an input of the graph of a stage
TYPES = "token_type_ids"  # an input of the graph of a cross-encoder
_ROWS = 4096  # of a table that are in memory at once
_TYPES: Mapping[Storage, np.dtype[Any]] = {
    "fp32": np.dtype(np.float32),
    "bf16": BFLOAT16,
    "fp16": np.dtype(np.float16),
}
_GELU = {"gelu": "none", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh"}


@dataclass(frozen=True)
class LayerTensors:
    """Names of the modules of layer n, after ``{layers}.{n}.``.

    Attributes:
        layers: what the list of layers is called.
        qkv: query, key and value: three modules, or one with all of them in this order.
        o: the attention's output.
        attention_norm: the attention's layer norm.
        f1: the feed-forward block's first linear layer. Of a gated block the activated one, then
            the one it is multiplied with: two modules, or one with both in this order, unless
            `gate_last`.
        f2: its second.
        output_norm: its layer norm.
        gate_last: whether `f1`, one module with both, has the activated one last.
    """

    layers: str
    qkv: tuple[str, ...]
    o: tuple[str, ...]
    attention_norm: str
    f1: tuple[str, ...]
    f2: tuple[str, ...]
    output_norm: str
    gate_last: bool = False

    def linears(self, kind: Kind) -> tuple[str, ...]:
        """Name the modules of a group of linear layers."""
        return {"qkv": self.qkv, "o": self.o, "f1": self.f1, "f2": self.f2}.get(kind, ())


class Parameters(NamedTuple):
    """A linear layer: weight [inputs, outputs], bias [outputs], and if int8 scale [outputs]."""

    weight: Array | NDArray[np.int8]
    bias: Array
    scale: Array | None

    @property
    def floats(self) -> Array:
        """The weight of a layer that is not int8."""
        return self.weight.astype(np.float32, copy=False)


class TransformerGraph(ABC, Generic[C]):
    """The graph of a model: ``input_ids`` to ``embedding``, float32 [batch, dimension].

    A subclass says what its tensors are called and adds `embeddings`; its layers are those of
    BERT (the norm after each block) unless it has a `layer` of its own. Linear layers are float32
    or int8 as the plan says; those that read the same input form a `LinearGroup`.

    Methods that add to the graph return the name of what they added.

    Args:
        weights: float32 tensors by their names in transformers, with any one prefix.
        config: the model's ``config.json``.
        spec: task, pooling, normalisation and the number of positions to keep.
        plan: which groups are int8, and with what numbers; none by default.
        head: what follows the pooling; nothing by default.
        token_head: what weighs each token beside the pooling; nothing by default.

    Raises:
        ModelFileError: a tensor is missing or does not have the shape that the config states, or
            models of this architecture cannot be run for the task.
    """

    words: ClassVar[str] = "embeddings.word_embeddings.weight"
    tensors: LayerTensors
    gated: bool = False
    # kinds of groups whose input is divided where it is computed
    folded: ClassVar[frozenset[Kind]] = frozenset({"o"})

    def __init__(
        self,
        weights: Mapping[str, Array],
        config: C,
        spec: ModelSpec,
        plan: QuantizationPlan = NOTHING_QUANTIZED,
        head: Head = NO_HEAD,
        token_head: TokenHead | None = None,
    ) -> None:
        self.weights, self.config, self.spec, self.plan = weights, config, spec, plan
        self.head, self.token_head = head, token_head
        self.graph = Graph()
        self.group_inputs: dict[LinearGroup, str] = {}
        self._latest: tuple[LinearGroup, list[Linear]] | None = None
        self._is_part = False
        named = sorted((name for name in weights if name.endswith(self.words)), key=len)
        self._prefix = named[0].removesuffix(self.words) if named else ""
        self.output = "embedding"
        self._numbers = range(config.num_hidden_layers)
        self.seen: SeenTokens | None = None
        self.vectors()
        self.graph.rename_last(self.output)

    def stage(self, number: int) -> TransformerGraph[C]:
        """Build layer `number` as a graph of its own, so that a model can be run in little memory.

        It reads `HIDDEN` states and gives `output`, both float32 [batch, tokens, hidden_size]; but
        the first embeds, and the last gives the vectors.
        """
        part = copy.copy(self)
        part.graph, part.group_inputs, part._numbers = Graph(), {}, range(number, number + 1)
        part._latest, part._is_part = None, True
        if number == self.config.num_hidden_layers - 1:
            part.vectors()
        else:
            part.output = "next_hidden"
            part._layers(first_row_only=False)
        part.graph.rename_last(part.output)
        return part

    def save(self, path: Path, *, taps: bool = False) -> None:
        """Write the model to `path`; with `taps` the inputs of all groups are outputs too."""
        outputs: dict[str, list[Any] | None] = {self.output: None}
        if self.output == "embedding":
            tokens = ["tokens"] if self.spec.task == "token_vectors" else []
            outputs = {self.output: ["batch", *tokens, self.spec.dimension]}
            if self.token_head is not None:
                outputs[WEIGHED] = ["batch", "tokens"]
        if taps:
            outputs |= dict.fromkeys(set(self.group_inputs.values()) - {HIDDEN})
        self.graph.save(path, outputs)

    # what an architecture says of itself

    @property
    @abstractmethod
    def epsilon(self) -> float:
        """What layer norms add to the variance."""

    @property
    @abstractmethod
    def activation_name(self) -> Activation:
        """The feed-forward block's activation."""

    @property
    def term_head(self) -> TermHead | None:
        """Names of the head's tensors, of architectures whose models can be run for terms."""
        return None

    def has_bias(self, kind: Kind) -> bool:
        """Return whether the linear layers of a kind of group have a bias."""
        del kind
        return True

    @abstractmethod
    def embeddings(self) -> str:
        """Add what the first layer reads, [batch, tokens, hidden_size]."""

    # the whole, from the top

    def vectors(self) -> str:
        """Add the whole graph; its last node, the head that the task wants, gives the vectors."""
        task = self.spec.task
        if task not in self.config.tasks:
            raise self._no_head()
        match task:
            case "embed" | "score":
                first = needs_first_token_only(self.spec.pooling)
                if self.token_head is None:
                    return self.pool(self.hidden_states(first_row_only=first))
                hidden = self.hidden_states()
                add_token_weights(self.graph, hidden, self.token_head)
                return self.pool(self.first_row(hidden) if first else hidden)
            case "terms":
                return add_term_weights(self, self.hidden_states())
            case "token_vectors":
                return self.token_vectors(self.hidden_states())
            case _:
                assert_never(task)

    def hidden_states(self, *, first_row_only: bool = False) -> str:
        """Add the embeddings and all layers: [batch, tokens, hidden_size].

        With `first_row_only` the last layer is computed for the first token alone.
        """
        return self._layers(first_row_only=first_row_only)

    def _layers(self, *, first_row_only: bool) -> str:
        hides = self.spec.late is not None and self.spec.late.hides_expansion
        self.seen = SeenTokens(self.graph) if hides else None
        hidden = self.embeddings()  # also adds what later layers share
        if self._numbers.start:
            # with a shape, onnxruntime would fuse sums and norms to operators that are slower
            hidden = self.graph.input(HIDDEN, None)
        for number in self._numbers:
            last = number == self.config.num_hidden_layers - 1
            hidden = self.layer(hidden, number, first_row_only=last and first_row_only)
        return hidden

    # heads: what follows the last layer

    def pool(self, hidden: str) -> str:
        """Add pooling, head and normalisation of `hidden`, all tokens or only the first."""
        if self.spec.pooling is None:
            raise self._no_head()
        pooled = add_pooling(self.graph, hidden, self.spec.pooling)
        pooled = self.head.added_to(self.graph, pooled)
        if not self.spec.normalize:
            return pooled
        return self.graph.node("LpNormalization", pooled, axis=-1, p=2)

    def token_vectors(self, hidden: str) -> str:
        """Add the projection of each token's vector: [batch, tokens, dimension]."""
        projection = None
        if PROJECTION in self.weights:
            projection = self.tensor(PROJECTION, self.spec.dimension, self.config.dimension)
        return add_token_vectors(self.graph, hidden, self.head, projection)

    def _no_head(self) -> ModelFileError:
        return ModelFileError(
            f"{self.spec.name}: models of architecture {self.config.architecture!r} cannot be run "
            f"for the task {self.spec.task!r}"
        )

    # layers

    def layer(self, hidden: str, number: int, *, first_row_only: bool) -> str:
        """Add one layer; with `first_row_only` for the first token alone."""
        name = f"{self.tensors.layers}.{number}"
        shared = self.group_input(hidden, LinearGroup(number, "qkv"))
        rows = self.first_row(shared) if first_row_only else shared
        residual = self.first_row(hidden) if first_row_only else hidden
        attended = self.attention(rows, shared, number, first_row_only=first_row_only)
        hidden = self.after_attention(attended, residual, name)
        expanded = self.feed_forward(hidden, number)
        return self.layer_norm(
            self.graph.node("Add", expanded, hidden), f"{name}.{self.tensors.output_norm}"
        )

    def pre_norm_layer(
        self, hidden: str, number: int, *, first_row_only: bool, is_normed: bool = False
    ) -> str:
        """Add one layer whose norms come before its blocks; `is_normed` says that its input is."""
        name = f"{self.tensors.layers}.{number}"
        normed = hidden if is_normed else self.norm(hidden, f"{name}.{self.tensors.attention_norm}")
        shared = self.group_input(normed, LinearGroup(number, "qkv"))
        rows = self.first_row(shared) if first_row_only else shared
        residual = self.first_row(hidden) if first_row_only else hidden
        attended = self.attention(rows, shared, number, first_row_only=first_row_only)
        hidden = self.graph.node("Add", attended, residual)
        normed = self.norm(hidden, f"{name}.{self.tensors.output_norm}")
        return self.graph.node("Add", self.feed_forward(normed, number), hidden)

    def after_attention(self, attended: str, residual: str, name: str) -> str:
        """Add what the attention of the layer called `name` gave to its input, normed."""
        return self.layer_norm(
            self.graph.node("Add", attended, residual), f"{name}.{self.tensors.attention_norm}"
        )

    def attention(self, rows: str, shared: str, number: int, *, first_row_only: bool) -> str:
        """Add a layer's attention from `rows` to `shared`, and its output projection."""
        group = LinearGroup(number, "qkv")
        shared = self.seen_rows(shared)
        attended = self.attend(
            self.linear(rows, group, 0),
            self.linear(shared, group, 1),
            self.linear(shared, group, 2),
            number,
            first_row_only=first_row_only,
        )
        return self.attention_output(attended, number)

    def seen_rows(self, shared: str) -> str:
        """Add the part of what keys and values are computed from that is attended to."""
        return shared if self.seen is None else self.seen.of(shared)

    def attend(self, query: str, key: str, value: str, number: int, *, first_row_only: bool) -> str:
        """Add the attention itself; with `first_row_only` the query is that of one token."""
        del number, first_row_only
        return self.multi_head_attention(query, key, value)

    def multi_head_attention(self, query: str, key: str, value: str, bias: str = "") -> str:
        """Add softmax(query · key / √size + bias) · value for each head."""
        inputs = [query, key, value, "", "", bias] if bias else [query, key, value]
        return self.graph.node(
            "MultiHeadAttention",
            *inputs,
            domain=MICROSOFT,
            num_heads=self.config.num_attention_heads,
        )

    def attention_output(self, attended: str, number: int) -> str:
        """Add a layer's output projection of the attention."""
        group = LinearGroup(number, "o")
        return self.linear(self.group_input(attended, group), group)

    def feed_forward(self, hidden: str, number: int) -> str:
        """Add a layer's feed-forward block."""
        first, second = LinearGroup(number, "f1"), LinearGroup(number, "f2")
        shared = self.group_input(hidden, first)
        inner = self.activation(self.linear(shared, first))
        if self.gated:
            inner = self.graph.node("Mul", inner, self.linear(shared, first, 1))
        return self.linear(self.group_input(inner, second), second)

    def activation(self, hidden: str) -> str:
        """Add the feed-forward block's activation."""
        name = self.activation_name
        if name == "relu":
            return self.graph.node("Relu", hidden)
        if name == "silu":
            return self.graph.node("Mul", hidden, self.graph.node("Sigmoid", hidden))
        return self.graph.node("Gelu", hidden, approximate=_GELU[name])

    # parts of layers

    def word_vectors(self) -> str:
        """Add the word embeddings, [batch, tokens, hidden_size].

        A stage that does not embed has none, and does not read the table.
        """
        if self._numbers.start:
            return ""
        graph = self.graph
        shape = self.config.vocab_size, self.config.hidden_size

        def table(change: Callable[[Array], NDArray[Any]], width: int, kind: np.dtype[Any]) -> str:
            def blocks() -> Iterator[NDArray[Any]]:
                return map(change, self.table(self.words, *shape))

            return graph.table((shape[0], width), kind, blocks)

        if self.plan.words:
            integers = table(quantize_rows, shape[1], np.dtype(np.int8))
            scales = table(row_scales, 1, np.dtype(np.float32))
            return graph.node(
                "Mul",
                graph.node("Cast", graph.node("Gather", integers, "input_ids"), to=FLOAT),
                graph.node("Gather", scales, "input_ids"),
            )
        # a part of a model has them as they are in their file, which takes the least time
        storage = self.storage if self._is_part else self.plan.storage
        words = table(partial(stored, storage=storage), shape[1], _TYPES[storage])
        vectors = graph.node("Gather", words, "input_ids")
        return vectors if storage == "fp32" else graph.node("Cast", vectors, to=FLOAT)

    def with_types(self, hidden: str, types: int) -> str:
        """Add to `hidden` which text each token belongs to: the first, but in pairs of texts."""
        if not types:
            return hidden
        width = self.config.hidden_size
        table = self.tensor("embeddings.token_type_embeddings.weight", types, width)
        if self.spec.task != "score" or types < 2:
            return self.graph.node("Add", hidden, self.graph.constant(table[0]))
        ids = self.graph.input(TYPES, ["batch", "tokens"], INTEGER)
        vectors = self.graph.node("Gather", self.graph.constant(table), ids)
        return self.graph.node("Add", hidden, vectors)

    def group_input(self, hidden: str, group: LinearGroup) -> str:
        """Add what the linear layers of a group read: `hidden` itself, or its int8 form."""
        self.group_inputs[group] = hidden
        quantized = self.plan.groups.get(group)
        if quantized is None:
            return hidden
        graph = self.graph
        if quantized.smoothing is not None and group.kind not in self.folded:
            hidden = graph.node("Mul", hidden, graph.constant(1 / quantized.smoothing))
        return graph.node(
            "QuantizeLinear",
            hidden,
            graph.scalar(quantized.input_scale, np.float32),
            graph.scalar(quantized.input_zero_point, np.uint8),
        )

    def linear(self, shared: str, group: LinearGroup, position: int = 0) -> str:
        """Add one linear layer of a group, which reads what `group_input` gave."""
        graph, quantized = self.graph, self.plan.groups.get(group)

        def part(name: str) -> str:
            return graph.deferred(lambda: getattr(self.parameters(group, position), name))

        if quantized is not None:
            return self.int8_product(shared, quantized, part("weight"), part("scale"), part("bias"))
        storage = self.plan.storage
        if storage == "fp32":
            weight = part("weight")
        else:
            halves = graph.deferred(
                lambda: stored(self.parameters(group, position).floats, storage)
            )
            weight = graph.widened(halves, shared)
        product = graph.node("MatMul", shared, weight)
        if not self.has_bias(group.kind):
            return product
        return graph.node("Add", product, part("bias"))

    def int8_product(
        self, shared: str, quantized: QuantizedGroup, weight: str, scale: str, bias: str
    ) -> str:
        """Add a linear layer of a group in int8, in float32."""
        graph = self.graph
        return graph.node(
            "MatMulIntegerToFloat",
            shared,
            weight,
            graph.scalar(quantized.input_scale, np.float32),
            scale,
            graph.scalar(quantized.input_zero_point, np.uint8),
            "",
            bias,
            domain=MICROSOFT,
        )

    def norm(self, hidden: str, name: str) -> str:
        """Add the norm of this architecture; a layer norm, unless it has another."""
        return self.layer_norm(hidden, name)

    def layer_norm(self, hidden: str, name: str, *, has_bias: bool = True) -> str:
        """Add a layer norm."""
        width = self.config.hidden_size
        parts = ["weight", "bias"] if has_bias else ["weight"]
        return self.graph.node(
            "LayerNormalization",
            hidden,
            *(self.graph.constant(self.tensor(f"{name}.{part}", width)) for part in parts),
            axis=-1,
            epsilon=self.epsilon,
        )

    def rms_norm(self, hidden: str, weight: Array) -> str:
        """Add a norm that neither subtracts the mean nor adds a bias (Zhang and Sennrich 2019)."""
        return self.graph.node(
            "SimplifiedLayerNormalization",
            *(hidden, self.graph.constant(weight)),
            axis=-1,
            epsilon=self.epsilon,
            stash_type=1,
        )

    def first_row(self, hidden: str) -> str:
        """Add the part that belongs to the first token, [batch, 1, ...]."""
        constants = [self.graph.integers(number) for number in (0, 1, 1)]
        return self.graph.node("Slice", hidden, *constants)

    # weights

    @property
    def last(self) -> int:
        """Number of the last layer."""
        return self.config.num_hidden_layers - 1

    def has_tensor(self, name: str) -> bool:
        """Return whether the weights have a tensor of this name, with or without their prefix."""
        return self._prefix + name in self.weights or name in self.weights

    @property
    def storage(self) -> Storage:
        """How the file stores all matrices; ``fp32`` for those of several types."""
        matrices = [name for name in self.weights if len(shape_of(self.weights, name)) > 1]
        kinds = {storage_of(self.weights, name) for name in matrices}
        return kinds.pop() if len(kinds) == 1 else "fp32"

    def linears(self, group: LinearGroup) -> list[Linear]:
        """Read weight [inputs, outputs] and bias [outputs] of each linear layer of a group."""
        if group.kind == "terms":
            return term_linears(self)
        kind, modules = group.kind, self.tensors.linears(group.kind)
        inputs, outputs = self.widths(kind)
        fused = len(outputs) // len(modules)
        linears: list[Linear] = []
        for number, module in enumerate(modules):
            name = f"{self.tensors.layers}.{group.layer}.{module}"
            ends = np.cumsum(outputs[number * fused : (number + 1) * fused])
            weight = self.tensor(f"{name}.weight", int(ends[-1]), inputs).T
            if self.has_bias(kind):
                bias = self.tensor(f"{name}.bias", int(ends[-1]))
            else:
                bias = np.zeros(ends[-1], np.float32)
            parts = np.split(weight, ends[:-1], axis=1)
            linears += zip(parts, np.split(bias, ends[:-1]), strict=True)
        return linears[::-1] if kind == "f1" and self.tensors.gate_last else linears

    def _linears_once(self, group: LinearGroup) -> list[Linear]:
        """Read the linear layers of a group as `linears` does, unless they were read last."""
        if self._latest is None or self._latest[0] != group:
            self._latest = None  # its memory is free before more is needed
            self._latest = group, self.linears(group)
        return self._latest[1]

    def widths(self, kind: Kind) -> tuple[int, tuple[int, ...]]:
        """Return the inputs of a kind of group, and the outputs of each of its linear layers."""
        width, inner = self.config.hidden_size, self.config.intermediate_size
        if kind == "f1":
            return width, (inner,) * (1 + self.gated)
        return inner if kind == "f2" else width, (width,) * (3 if kind == "qkv" else 1)

    def sharing(self, kind: Kind) -> tuple[int, int, int] | None:
        """Return the shape of a group's inputs whose middle axis must have one divisor, if any."""
        del kind
        return None

    def folded_divisor(self, group: LinearGroup, position: int) -> Array | None:
        """Return what the outputs of a linear layer are divided by, for the group that reads them.

        Attention's output is smoothed by dividing the values it is computed from.
        """
        is_value = (group.kind, position) == ("qkv", 2)
        reader = self.plan.groups.get(LinearGroup(group.layer, "o")) if is_value else None
        return reader.smoothing if reader else None

    def parameters(self, group: LinearGroup, position: int) -> Parameters:
        """Find what one linear layer of a group multiplies with and adds, as the plan says."""
        divisor = self.folded_divisor(group, position)
        quantized = self.plan.groups.get(group)
        if quantized is None:
            weight, bias = self._linears_once(group)[position]
            return Parameters(_divided(weight, divisor), _divided(bias, divisor), None)
        linear = quantized.linears[position]
        return Parameters(
            linear.weight, _divided(linear.bias, divisor), _divided(linear.scale, divisor)
        )

    def tensor(self, name: str, *shape: int) -> Array:
        """Read a tensor of the weights, with or without their prefix.

        Raises:
            ModelFileError: it is missing or has another shape.
        """
        tensor = self.weights[self._name(name)]
        self._check(name, tensor.shape, shape)
        return tensor

    def table(self, name: str, *shape: int) -> Iterator[Array]:
        """Read a tensor as `tensor` does, in blocks of rows."""
        known = self._name(name)
        self._check(name, shape_of(self.weights, known), shape)
        yield from row_blocks(self.weights, known, _ROWS)

    def _name(self, name: str) -> str:
        """Return what a tensor is called in the weights."""
        for known in (self._prefix + name, name):
            if known in self.weights:
                return known
        raise ModelFileError(f"{self.spec.name}: the weights have no tensor {name!r}")

    def _check(self, name: str, found: tuple[int, ...], shape: tuple[int, ...]) -> None:
        if found != shape:
            raise ModelFileError(
                f"{self.spec.name}: tensor {name!r} should have shape {shape} by config.json, "
                f"but has {found}"
            )


def _divided(value: NDArray[np.float32], divisor: Array | None) -> Array:
    return value if divisor is None else value / divisor  # no copy of weights left as they are
