"""What ``config.json`` of each architecture says.

One class for each architecture that is compiled, with a line in `ARCHITECTURES`; one for static
models, and one for all others, which their own ONNX file runs. Fields have transformers' names.
A value that cannot be run is refused.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import (
    AliasChoices,
    BeforeValidator,
    Field,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
    model_validator,
)

from qdrant_embed.encoder.facts.jsonfile import JsonFile
from qdrant_embed.encoder.facts.prompts import DEFAULT_ADAPTER, RETRIEVAL
from qdrant_embed.encoder.interfaces import Route, Task
from qdrant_embed.errors import InputError, ModelFileError
from qdrant_embed.limits import shortened

# tasks with weights for documents and for queries
_RETRIEVALS: Mapping[Route, str] = {"document": DEFAULT_ADAPTER, "query": "retrieval.query"}
STATIC = "model2vec"  # `model_type` of static models
# tokens of a text whose attention, the scores of all their pairs in all heads, is held at once
_SCORED_TOGETHER = 1024
SHORTEST = 3  # tokens that a model must be able to read: [CLS], one of a text, [SEP]
TABLES = ("embeddings", "embedding.weight")  # as model2vec and sentence-transformers name it

Activation: TypeAlias = Literal["gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu"]
Epsilon: TypeAlias = Annotated[float, Field(ge=0, lt=1)]
# of rotary positions: no table in the weights limits them, so this must, as the file is read
# before memory is taken
Positions: TypeAlias = Annotated[int, Field(gt=0, le=1 << 17)]
# also written as 1.0, which some versions of pydantic do not take for the literal
One: TypeAlias = Annotated[Literal[1], BeforeValidator(lambda stated: 1 if stated == 1 else stated)]
Theta: TypeAlias = Annotated[float, Field(ge=1, le=1e12)]


class TransformerConfig(JsonFile):
    """``config.json`` of an architecture that is compiled."""

    tasks: ClassVar[frozenset[Task]] = frozenset({"embed"})  # what models of it can be run for

    model_type: str
    vocab_size: PositiveInt
    hidden_size: PositiveInt
    num_hidden_layers: PositiveInt
    num_attention_heads: PositiveInt
    intermediate_size: PositiveInt
    max_position_embeddings: PositiveInt

    @property
    def architecture(self) -> str:
        """The name among `ARCHITECTURES`."""
        return self.model_type

    @property
    def positions(self) -> int:
        """The most tokens that one text can have, special tokens included."""
        return self.max_position_embeddings

    @property
    def head_size(self) -> int:
        """Dimension of one attention head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def caution(self) -> str:
        """What a user should know of how the model is run; empty for most."""
        return ""

    @property
    def has_shared_heads(self) -> bool:
        """Whether the heads share `hidden_size`, instead of having a size of their own."""
        return True

    @property
    def dimension(self) -> int:
        """Dimension of a token's vector after the last layer."""
        return self.hidden_size

    @model_validator(mode="after")
    def _check_sizes(self) -> TransformerConfig:
        if self.has_shared_heads and self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} cannot be shared by "
                f"{self.num_attention_heads} attention heads"
            )
        if self.positions < SHORTEST:
            raise ValueError(f"there are positions for {self.positions} tokens only")
        return self


class BertFamilyConfig(TransformerConfig):
    """What BERT and its nearest relatives have in common: a table of position embeddings."""

    type_vocab_size: NonNegativeInt = 2
    layer_norm_eps: Epsilon = 1e-12
    hidden_act: Activation = "gelu"
    is_decoder: Literal[False] = False

    @property
    def first_position(self) -> int:
        """Row of the position table that belongs to a text's first token."""
        return 0

    @property
    def positions(self) -> int:
        """The most tokens that one text can have, special tokens included."""
        return self.max_position_embeddings - self.first_position

    @staticmethod
    def attends_in_parts(tokens: int) -> bool:
        """Return whether a model for texts of so many tokens must not hold all scores at once."""
        return tokens > _SCORED_TOGETHER


class BertConfig(BertFamilyConfig):
    """``config.json`` of architecture ``bert``."""

    tasks: ClassVar[frozenset[Task]] = frozenset({"embed", "terms", "token_vectors", "score"})

    model_type: Literal["bert"]
    position_embedding_type: Literal["absolute"] = "absolute"


class JinaBertConfig(BertFamilyConfig):
    """``config.json`` of Jina's BERT, which calls itself ``bert`` in most repositories."""

    model_type: Literal["bert", "jina_bert"]
    max_position_embeddings: Positions
    position_embedding_type: Literal["alibi"]
    feed_forward_type: Literal["geglu", "reglu"] = "geglu"

    @property
    def architecture(self) -> str:
        """The name among `ARCHITECTURES`."""
        return "jina_bert"


class RobertaConfig(BertFamilyConfig):
    """``config.json`` of architectures ``roberta`` and ``xlm-roberta``."""

    tasks: ClassVar[frozenset[Task]] = frozenset({"embed", "terms", "token_vectors", "score"})

    model_type: Literal["roberta", "xlm-roberta"]
    pad_token_id: NonNegativeInt = 1
    position_embedding_type: Literal["absolute"] = "absolute"

    @property
    def first_position(self) -> int:
        """Row of the position table that belongs to a text's first token."""
        return self.pad_token_id + 1


class DistilBertConfig(BertFamilyConfig):
    """``config.json`` of architecture ``distilbert``."""

    tasks: ClassVar[frozenset[Task]] = frozenset({"embed", "terms", "token_vectors", "score"})

    model_type: Literal["distilbert"]
    hidden_size: PositiveInt = Field(validation_alias="dim")
    num_hidden_layers: PositiveInt = Field(validation_alias="n_layers")
    num_attention_heads: PositiveInt = Field(validation_alias="n_heads")
    intermediate_size: PositiveInt = Field(validation_alias="hidden_dim")
    hidden_act: Activation = Field("gelu", validation_alias="activation")
    type_vocab_size: Literal[0] = 0


class MPNetConfig(BertFamilyConfig):
    """``config.json`` of architecture ``mpnet``."""

    tasks: ClassVar[frozenset[Task]] = frozenset({"embed", "score"})

    model_type: Literal["mpnet"]
    pad_token_id: NonNegativeInt = 1
    type_vocab_size: Literal[0] = 0
    relative_attention_num_buckets: Literal[32] = 32

    @property
    def first_position(self) -> int:
        """Row of the position table that belongs to a text's first token."""
        return self.pad_token_id + 1


class RopeParameters(JsonFile):
    """``rope_parameters`` as transformers 5 writes them; only the plain kind can be run."""

    rope_theta: Theta
    rope_type: Literal["default"] = "default"


class RotaryConfig(TransformerConfig):
    """What architectures with rotary position embeddings have in common."""

    max_position_embeddings: Positions

    @model_validator(mode="after")
    def _check_head_size(self) -> RotaryConfig:
        if self.head_size % 2:
            raise ValueError(f"heads of {self.head_size} numbers cannot be turned in pairs")
        return self


class _RopeByLayer(JsonFile):
    full_attention: RopeParameters
    sliding_attention: RopeParameters


class ModernBertConfig(RotaryConfig):
    """``config.json`` of architecture ``modernbert``, as transformers 4 or 5 writes it."""

    tasks: ClassVar[frozenset[Task]] = frozenset({"embed", "terms", "token_vectors", "score"})

    model_type: Literal["modernbert"]
    hidden_activation: Activation = "gelu"
    norm_eps: Epsilon = 1e-5
    norm_bias: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    # of heads alone; dense models do not depend on them
    classifier_activation: Any = Field("gelu", exclude=True)
    classifier_bias: Any = Field(False, exclude=True)
    local_attention: Annotated[int, Field(gt=0, le=1 << 17)] = 128
    global_attn_every_n_layers: PositiveInt = 3
    layer_types: tuple[Literal["full_attention", "sliding_attention"], ...] | None = None
    global_rope_theta: Theta = 160_000.0
    local_rope_theta: Theta | None = 10_000.0
    rope_parameters: _RopeByLayer | None = None

    def is_global(self, layer: int) -> bool:
        """Whether a layer attends to the whole text."""
        if self.layer_types is not None and layer < len(self.layer_types):
            return self.layer_types[layer] == "full_attention"
        return layer % self.global_attn_every_n_layers == 0

    def theta(self, *, is_global: bool) -> float:
        """Return the base of the wavelengths in global or in local layers."""
        if (parameters := self.rope_parameters) is not None:
            kind = parameters.full_attention if is_global else parameters.sliding_attention
            return kind.rope_theta
        if is_global or self.local_rope_theta is None:
            return self.global_rope_theta
        return self.local_rope_theta


class RopeScaling(JsonFile):
    """How rotary positions reach further than a model was first trained for.

    It is ``rope_scaling`` as transformers 4 writes it, or ``rope_parameters`` as 5 does.

    Attributes:
        kind: ``dynamic`` changes nothing up to ``max_position_embeddings``, and longer texts are
            cut there.
        factor: how much further.
        original: positions that the model was first trained for.
        rope_theta: base of the wavelengths; `transformers` 4 writes it elsewhere.
    """

    kind: Literal["default", "linear", "dynamic", "yarn", "llama3"] = Field(
        "default", validation_alias=AliasChoices("rope_type", "type")
    )
    rope_theta: Theta | None = None
    factor: Annotated[float, Field(ge=1, le=1e6)] | None = None
    original: PositiveInt | None = Field(None, validation_alias="original_max_position_embeddings")
    partial_rotary_factor: One = 1
    # of YaRN
    attention_factor: Annotated[float, Field(gt=0, le=1e3)] | None = None
    mscale: Annotated[float, Field(gt=0, le=1e3)] | None = None
    mscale_all_dim: Annotated[float, Field(gt=0, le=1e3)] | None = None
    beta_fast: Annotated[float, Field(gt=0, le=1e6)] | None = None
    beta_slow: Annotated[float, Field(gt=0, le=1e6)] | None = None
    truncate: bool = True
    # of Llama 3
    low_freq_factor: Annotated[float, Field(gt=0, le=1e6)] = 1.0
    high_freq_factor: Annotated[float, Field(gt=0, le=1e6)] = 4.0

    @model_validator(mode="after")
    def _check_kind(self) -> RopeScaling:
        if self.kind in ("linear", "yarn", "llama3") and self.factor is None:
            raise ValueError(f"rope_type {self.kind!r} needs a factor")
        if self.kind in ("yarn", "llama3") and self.original is None:
            raise ValueError(f"rope_type {self.kind!r} needs original_max_position_embeddings")
        if self.low_freq_factor >= self.high_freq_factor:
            raise ValueError("low_freq_factor must be below high_freq_factor")
        return self


LayerType: TypeAlias = Literal["full_attention", "sliding_attention"]


class DecoderConfig(RotaryConfig):
    """What language models and encoders built like them have in common.

    Whether their tokens attend to later ones is not always stated: vendors with code of their own
    (``auto_map``) may change it there. Such a model is refused unless its config says it.

    Attributes:
        is_bidirectional: whether tokens attend to those after them.
        num_labels: dimension of a projection after the last norm, if the weights have one.
    """

    num_key_value_heads: PositiveInt | None = None
    head_dim: PositiveInt | None = None
    rms_norm_eps: Epsilon = 1e-6
    hidden_act: Activation = "silu"
    attention_bias: bool = False
    mlp_bias: Literal[False] = False
    num_labels: PositiveInt | None = None
    is_causal: bool | None = None
    use_bidirectional_attention: bool | None = None
    auto_map: Mapping[str, Any] | None = Field(None, exclude=True)
    rope_theta: Theta = 10_000.0
    rope_scaling: RopeScaling | None = None
    rope_parameters: RopeScaling | None = None
    use_sliding_window: bool = False
    sliding_window: Annotated[int, Field(gt=0, le=1 << 17)] | None = None
    max_window_layers: NonNegativeInt | None = None
    layer_types: tuple[LayerType, ...] | None = None

    @property
    def has_shared_heads(self) -> bool:
        """Whether the heads share `hidden_size`, instead of having a size of their own."""
        return self.head_dim is None

    @property
    def head_size(self) -> int:
        """Dimension of one attention head."""
        return self.head_dim or self.hidden_size // self.num_attention_heads

    @property
    def key_heads(self) -> int:
        """Heads of keys and values, each of which several heads of queries share."""
        return self.num_key_value_heads or self.num_attention_heads

    @property
    def dimension(self) -> int:
        """Dimension of a token's vector after the last layer."""
        return self.num_labels or self.hidden_size

    @property
    def is_bidirectional(self) -> bool:
        """Whether tokens attend to those after them."""
        return self.use_bidirectional_attention is True or self.is_causal is False

    def rope(self, kind: LayerType = "full_attention") -> tuple[float, RopeScaling | None]:
        """Return the base of the wavelengths, and how positions are scaled, in layers of a kind."""
        del kind
        scaling = self.rope_parameters or self.rope_scaling
        return (scaling and scaling.rope_theta) or self.rope_theta, scaling

    def layer_type(self, layer: int) -> LayerType:
        """Return whether a layer attends to the whole text, or within a window."""
        if self.sliding_window is None or not self.use_sliding_window:
            return "full_attention"
        if self.layer_types is not None and layer < len(self.layer_types):
            return self.layer_types[layer]
        first = self.num_hidden_layers if self.max_window_layers is None else self.max_window_layers
        return "sliding_attention" if layer >= first else "full_attention"

    @property
    def window(self) -> int:
        """Tokens that a token attends to in layers with a window: itself and those before it."""
        return self.sliding_window or self.positions

    @model_validator(mode="after")
    def _check_attention(self) -> DecoderConfig:
        if self.num_attention_heads % self.key_heads:
            raise ValueError(
                f"{self.num_attention_heads} attention heads cannot share {self.key_heads} of keys"
            )
        if self.auto_map and self.is_causal is None and self.use_bidirectional_attention is None:
            raise ValueError(
                "the model has code of its own (auto_map), which may change how its tokens attend "
                "to each other: set is_causal to true or false"
            )
        if self.is_bidirectional and self.use_sliding_window and self.sliding_window:
            raise ValueError("windows in both directions cannot be run")
        return self


class Qwen2Config(DecoderConfig):
    """``config.json`` of architecture ``qwen2``, in one direction or, as KaLM has it, in both."""

    model_type: Literal["qwen2"]


class Qwen3Config(DecoderConfig):
    """``config.json`` of architecture ``qwen3``."""

    tasks: ClassVar[frozenset[Task]] = frozenset({"embed", "score"})

    model_type: Literal["qwen3"]
    head_dim: PositiveInt | None = 128


class EuroBertConfig(DecoderConfig):
    """``config.json`` of architecture ``eurobert``: built like Llama, but in both directions."""

    model_type: Literal["eurobert"]
    rms_norm_eps: Epsilon = 1e-5
    auto_map: None = Field(None, exclude=True)
    sliding_window: None = None

    @model_validator(mode="before")
    @classmethod
    def _without_code(cls, content: Any) -> Any:
        # the vendor's code was there before transformers', and does the same
        if isinstance(content, Mapping):
            return {key: content[key] for key in content if key != "auto_map"}
        return content

    @property
    def is_bidirectional(self) -> bool:
        """Whether tokens attend to those after them."""
        return self.is_causal is not True


class _GemmaRopeByLayer(JsonFile):
    full_attention: RopeScaling | None = None
    sliding_attention: RopeScaling | None = None


class Gemma3Config(DecoderConfig):
    """``config.json`` of architecture ``gemma3_text``, in one direction or in both.

    Attributes:
        sliding_window: tokens within a window. In both directions it is the whole window, of which
            half is on each side. (transformers 4 saved the half instead; such a file is read as
            transformers and all others read it, which is as half of the half.)
    """

    model_type: Literal["gemma3_text"]
    head_dim: PositiveInt = 256
    hidden_act: Activation = Field("gelu_pytorch_tanh", validation_alias="hidden_activation")
    query_pre_attn_scalar: Annotated[float, Field(gt=0, le=1e6)] = 256.0
    rope_theta: Theta = 1_000_000.0
    rope_local_base_freq: Theta = 10_000.0
    rope_parameters: _GemmaRopeByLayer | None = None  # type: ignore[assignment] # one for each kind of layer
    sliding_window: Annotated[int, Field(gt=0, le=1 << 17)] | None = 4096
    sliding_window_pattern: PositiveInt = Field(
        6, validation_alias=AliasChoices("sliding_window_pattern", "_sliding_window_pattern")
    )
    final_logit_softcapping: Any = Field(None, exclude=True)  # of the next token's logits
    attn_logit_softcapping: None = None

    def rope(self, kind: LayerType = "full_attention") -> tuple[float, RopeScaling | None]:
        """Return the base of the wavelengths, and how positions are scaled, in layers of a kind."""
        local = kind == "sliding_attention"
        theta = self.rope_local_base_freq if local else self.rope_theta
        scaling = None if local else self.rope_scaling
        if self.rope_parameters is not None:
            by_layer = self.rope_parameters
            scaling = by_layer.sliding_attention if local else by_layer.full_attention
            theta = (scaling and scaling.rope_theta) or theta
        return theta, scaling

    def layer_type(self, layer: int) -> LayerType:
        """Return whether a layer attends to the whole text, or within a window."""
        if self.sliding_window is None:
            return "full_attention"
        if self.layer_types is not None and layer < len(self.layer_types):
            return self.layer_types[layer]
        is_local = (layer + 1) % self.sliding_window_pattern
        return "sliding_attention" if is_local else "full_attention"

    @property
    def window(self) -> int:
        """Tokens that a token attends to on one side in layers with a window, itself included."""
        whole = self.sliding_window or 2 * self.positions
        return whole // 2 + 1 if self.is_bidirectional else whole


class NomicFamilyConfig(RotaryConfig):
    """``config.json`` of Nomic's models, in the vendor's words or transformers'.

    The vendor's come first: repositories have both, and state the length in theirs alone.
    """

    model_type: Literal["nomic_bert"]
    hidden_size: PositiveInt = Field(validation_alias=AliasChoices("n_embd", "hidden_size"))
    num_hidden_layers: PositiveInt = Field(
        validation_alias=AliasChoices("n_layer", "num_hidden_layers")
    )
    num_attention_heads: PositiveInt = Field(
        validation_alias=AliasChoices("n_head", "num_attention_heads")
    )
    intermediate_size: PositiveInt = Field(
        validation_alias=AliasChoices("n_inner", "intermediate_size")
    )
    max_position_embeddings: Positions = Field(
        validation_alias=AliasChoices("n_positions", "max_position_embeddings")
    )
    layer_norm_eps: Epsilon = Field(
        1e-12, validation_alias=AliasChoices("layer_norm_epsilon", "layer_norm_eps")
    )
    type_vocab_size: NonNegativeInt = 2
    qkv_proj_bias: bool = False
    mlp_fc1_bias: bool = False
    mlp_fc2_bias: bool = False
    rotary_emb_base: Theta = 1000.0
    rope_parameters: RopeParameters | None = None
    # beyond the trained length the angles would depend on each text's own length
    rotary_scaling_factor: float | None = None
    max_trained_positions: PositiveInt = 2048
    rotary_emb_fraction: One = 1
    rotary_emb_interleaved: Literal[False] = False
    rotary_emb_scale_base: None = None
    prenorm: Literal[False] = False
    causal: Literal[False] = False
    use_rms_norm: Literal[False] = False

    @property
    def positions(self) -> int:
        """The most tokens that one text can have, special tokens included."""
        if self.rotary_scaling_factor:
            return min(self.max_position_embeddings, self.max_trained_positions)
        return self.max_position_embeddings

    @property
    def theta(self) -> float:
        """Base of the wavelengths."""
        if self.rope_parameters is not None:
            return self.rope_parameters.rope_theta
        return self.rotary_emb_base


class NomicBertConfig(NomicFamilyConfig):
    """``config.json`` of architecture ``nomic_bert``."""

    activation: Literal["swiglu", "silu"] = Field(
        "swiglu", validation_alias=AliasChoices("activation_function", "hidden_act")
    )
    num_experts: Literal[0] | None = None


class NomicMoeConfig(NomicFamilyConfig):
    """``config.json`` of architecture ``nomic_bert`` with experts in some layers."""

    activation: Activation = Field(
        "gelu", validation_alias=AliasChoices("activation_function", "hidden_act")
    )
    num_experts: Annotated[int, Field(ge=2, le=256)]
    moe_top_k: Annotated[int, Field(ge=1, le=256)] = 2
    moe_every_n_layers: Annotated[int, Field(ge=2)] = 2
    moe_normalize_expert_weights: Literal[False] = False
    num_shared_experts: Literal[0] = 0
    expert_choice_router: Literal[False] = False
    ffn_div: Literal[1] = 1

    @property
    def architecture(self) -> str:
        """The name among `ARCHITECTURES`."""
        return "nomic_bert_moe"

    def has_experts(self, layer: int) -> bool:
        """Return whether the feed-forward block of a layer is one of experts."""
        return layer % self.moe_every_n_layers == 1

    @model_validator(mode="after")
    def _check_experts(self) -> NomicMoeConfig:
        if self.moe_top_k > self.num_experts:
            raise ValueError(f"{self.moe_top_k} of {self.num_experts} experts cannot be chosen")
        return self


class _NtkScaling(JsonFile):
    type: Literal["ntk"] = Field(validation_alias=AliasChoices("type", "rope_type"))
    factor: Annotated[float, Field(ge=1, le=1e6)]
    mixed_b: None = None


class GteConfig(RotaryConfig):
    """``config.json`` of architecture ``gte``, which its own repositories call ``new``.

    The vendor's code scales positions alike for texts of every length.
    """

    tasks: ClassVar[frozenset[Task]] = frozenset({"embed", "terms", "token_vectors", "score"})

    model_type: Literal["gte", "new"]
    type_vocab_size: NonNegativeInt = 1
    layer_norm_eps: Epsilon = 1e-12
    layer_norm_type: Literal["layer_norm"] = "layer_norm"
    hidden_act: Activation = "gelu"
    position_embedding_type: Literal["rope"] = "rope"
    rope_theta: Theta = 160_000.0
    rope_scaling: _NtkScaling | None = None
    rope_parameters: RopeScaling | None = None
    logn_attention_scale: Literal[False] = False
    logn_attention_clip1: Literal[False] = False
    pack_qkv: Literal[True] = True

    @property
    def architecture(self) -> str:
        """The name among `ARCHITECTURES`."""
        return "gte"

    @property
    def theta(self) -> float:
        """Base of the wavelengths."""
        if self.rope_parameters is not None:
            return self.rope_parameters.rope_theta or self.rope_theta
        return self.rope_theta * (self.rope_scaling.factor if self.rope_scaling else 1)

    @property
    def stretch(self) -> float:
        """How much longer all wavelengths are than by `theta` alone."""
        if self.rope_scaling is None:
            return 1.0
        return float(self.rope_scaling.factor ** (2 / self.head_size))


class T5Config(TransformerConfig):
    """``config.json`` of architecture ``t5``, whose encoder is run."""

    model_type: Literal["t5"]
    hidden_size: PositiveInt = Field(validation_alias="d_model")
    num_hidden_layers: PositiveInt = Field(validation_alias="num_layers")
    num_attention_heads: PositiveInt = Field(validation_alias="num_heads")
    intermediate_size: PositiveInt = Field(validation_alias="d_ff")
    # no weights depend on it
    max_position_embeddings: Positions = Field(512, validation_alias="n_positions")
    d_kv: PositiveInt = 64
    layer_norm_epsilon: Epsilon = 1e-6
    feed_forward_proj: Literal["relu", "gated-gelu"] = "relu"
    relative_attention_num_buckets: Literal[32] = 32
    relative_attention_max_distance: Literal[128] = 128

    @model_validator(mode="after")
    def _check_heads(self) -> T5Config:
        if self.d_kv * self.num_attention_heads != self.hidden_size:
            raise ValueError(
                f"{self.num_attention_heads} heads of {self.d_kv} numbers are not as wide as "
                f"d_model, {self.hidden_size}"
            )
        return self


class XlmRobertaFlashConfig(BertFamilyConfig, RotaryConfig):
    """``config.json`` of Jina's XLM-RoBERTa, which calls itself ``xlm-roberta``.

    Attributes:
        lora_adaptations: the tasks that the weights have changes for, if any.
        lora_task: the task whose changes are compiled in, for documents and queries alike. The
            vendor's own code takes ``retrieval.query`` for queries; because that takes a second
            model in memory, the default is what documents need.
        task_instructions: what the vendor's own code puts before the texts of each task.
    """

    tasks: ClassVar[frozenset[Task]] = frozenset({"embed", "token_vectors"})

    model_type: Literal["xlm-roberta"]
    max_position_embeddings: Positions
    position_embedding_type: Literal["rotary"]
    pad_token_id: NonNegativeInt = 1
    rotary_emb_base: Theta = 10_000.0
    lora_adaptations: tuple[str, ...] | None = None
    lora_alpha: Annotated[float, Field(gt=0, le=1e6)] = 1.0
    lora_task: str = DEFAULT_ADAPTER
    task_instructions: Mapping[str, str] = Field(default_factory=dict, exclude=True)

    @property
    def architecture(self) -> str:
        """The name among `ARCHITECTURES`."""
        return "xlm-roberta-flash"

    @property
    def positions(self) -> int:
        """The most tokens that one text can have, special tokens included."""
        return self.max_position_embeddings - self.pad_token_id - 1

    @property
    def caution(self) -> str:
        """What a user should know of how the model is run; empty for most."""
        if self.adapter is None or self.lora_task != DEFAULT_ADAPTER:
            return ""
        return (
            f"its weights for the task {self.lora_task!r} are compiled, for queries and documents "
            f"alike; the vendor's own code has other weights for queries: task={RETRIEVAL!r} runs "
            "both, in twice the memory"
        )

    @property
    def adapter(self) -> int | None:
        """The number of the task whose changes are compiled in."""
        tasks = self.lora_adaptations
        return tasks.index(self.lora_task) if tasks else None

    def adapted(self, task: str, route: Route) -> XlmRobertaFlashConfig:
        """Return the config of the model that is run for a task; it may have no such changes.

        Args:
            task: one of `lora_adaptations`, or `RETRIEVAL` for those of queries and documents.
            route: the texts that it is run for.

        Raises:
            InputError: there are changes for tasks, but none for this one.
        """
        tasks = self.lora_adaptations
        if not tasks:
            return self
        known = (*([RETRIEVAL] if set(_RETRIEVALS.values()) <= set(tasks) else ()), *tasks)
        if task not in known:
            near = difflib.get_close_matches(task, known, n=1)
            raise InputError(
                f"task={task!r:.80}, but the model has weights for the tasks "
                f"{shortened(', '.join(known), 500)}"
                + (f"; did you mean {near[0]!r}?" if near else "")
            )
        chosen = _RETRIEVALS[route] if task == RETRIEVAL else task
        return self.model_copy(update={"lora_task": chosen})

    @model_validator(mode="after")
    def _check_task(self) -> XlmRobertaFlashConfig:
        tasks = self.lora_adaptations
        if tasks and self.lora_task not in tasks:
            raise ValueError(
                f"there are changes for the tasks {', '.join(tasks)}, but none for "
                f"{self.lora_task!r}"
            )
        return self


class StaticConfig(JsonFile):
    """``config.json`` of a model2vec model; sentence-transformers writes none.

    model2vec leaves unknown tokens out, and reads 512 tokens of a text unless told otherwise.
    """

    model_type: Literal["model2vec"] | None = None
    normalize: bool = False
    max_length: PositiveInt | None = 512

    @property
    def skips_unknown(self) -> bool:
        """Whether tokens outside the vocabulary are left out."""
        return self.model_type is not None

    @property
    def longest(self) -> int | None:
        """Tokens read of a text; ``None`` for all."""
        return self.max_length if self.model_type else None


class OtherConfig(JsonFile):
    """``config.json`` of an architecture that is not compiled: the model's own ONNX file is run."""

    vocab_size: PositiveInt | None = None
    hidden_size: PositiveInt | None = Field(
        None, validation_alias=AliasChoices("hidden_size", "dim", "d_model", "n_embd")
    )
    max_position_embeddings: int | None = Field(
        None,
        ge=SHORTEST,
        validation_alias=AliasChoices("n_positions", "max_position_embeddings"),
    )


# the architectures that are compiled, by `architecture_name`
ARCHITECTURES: Mapping[str, type[TransformerConfig]] = {
    "bert": BertConfig,
    "distilbert": DistilBertConfig,
    "eurobert": EuroBertConfig,
    "gemma3_text": Gemma3Config,
    "gte": GteConfig,
    "jina_bert": JinaBertConfig,
    "modernbert": ModernBertConfig,
    "mpnet": MPNetConfig,
    "nomic_bert": NomicBertConfig,
    "nomic_bert_moe": NomicMoeConfig,
    "qwen2": Qwen2Config,
    "qwen3": Qwen3Config,
    "roberta": RobertaConfig,
    "t5": T5Config,
    "xlm-roberta": RobertaConfig,
    "xlm-roberta-flash": XlmRobertaFlashConfig,
}


# those that all releases compile; others were run from the model's own ONNX file
_FIRST = frozenset(
    {"bert", "distilbert", "modernbert", "mpnet", "nomic_bert", "roberta", "xlm-roberta"}
)


def architecture_name(config: Mapping[str, Any]) -> str | None:
    """Name the architecture that the content of a ``config.json`` describes.

    It is the ``model_type``, but for variants that call themselves by their relative's.
    """
    match config:
        case {"model_type": "bert", "position_embedding_type": "alibi"}:
            return "jina_bert"
        case {"model_type": "new"}:
            return "gte"
        case {"model_type": "xlm-roberta", "position_embedding_type": "rotary"}:
            return "xlm-roberta-flash"
        case {"model_type": "nomic_bert", "num_experts": experts} if experts:
            return "nomic_bert_moe"
        case {"model_type": str(name)}:
            return name
        case _:
            return None


def config_class(name: str | None) -> type[TransformerConfig] | None:
    """Find the class for an architecture; ``None`` for those that are not compiled."""
    return ARCHITECTURES.get(name) if name is not None else None


def can_compile(config: Mapping[str, Any], *, as_before: bool = False) -> bool:
    """Return whether a model with this content of ``config.json`` (empty: without one) is compiled.

    Models that call themselves ``bert`` may be variants: all values are checked. With `as_before`
    the answer is that of the first releases.
    """
    if not config or config.get("model_type") == STATIC:
        return True
    name = architecture_name(config)
    kind = config_class(name)
    if kind is None or (as_before and name not in _FIRST):
        return False
    try:
        kind.model_validate(config)
    except ValidationError:
        return False
    return True


def table_shape(shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, int]:
    """Find rows and columns of a static model's table among the shapes of its tensors.

    Raises:
        ModelFileError: there is no such table.
    """
    shape = next((shapes[name] for name in TABLES if name in shapes), ())
    if len(shape) != 2 or 0 in shape:
        raise ModelFileError(
            f"a static model has a table of vectors named {' or '.join(TABLES)}; the weights have "
            f"{', '.join(f'{name} {shape}' for name, shape in shapes.items()) or 'nothing'}"
        )
    return shape[0], shape[1]
