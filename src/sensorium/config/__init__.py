"""Every dataclass that describes a model. Frozen, torch-free, checked at construction.

A model is a stem (what turns tokens into vectors), a stack (the Transformer) and heads (what turns vectors into
logits). An optional part is an optional sub-config; a choice is a ``Literal``. Derived values are properties.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from sensorium.config._checked import Checked
from sensorium.config.heads import (
    Activation,
    LanguageModelHeadConfig,
    MaskedTokenHeadConfig,
    NextSentenceHeadConfig,
    PoolerConfig,
    SequenceHeadConfig,
    SpanHeadConfig,
    TokenHeadConfig,
)
from sensorium.config.image import PatchStemConfig
from sensorium.config.positions import (
    LearnedPositions,
    LinearScaling,
    Llama3Scaling,
    RelativePositions,
    RotaryPositions,
    SinusoidalPositions,
    YarnScaling,
)
from sensorium.errors import UsageError

__all__ = [
    "BIASES",
    "ENCODER_HEADS",
    "Activation",
    "DecoderConfig",
    "DualEncoderConfig",
    "EncoderConfig",
    "EncoderDecoderConfig",
    "ImageEncoderConfig",
    "LanguageConfig",
    "LanguageModelHeadConfig",
    "LearnedPositions",
    "LinearScaling",
    "Llama3Scaling",
    "MLPKind",
    "Mask",
    "MaskedTokenHeadConfig",
    "ModelConfig",
    "NewerPart",
    "NextSentenceHeadConfig",
    "Norm",
    "NormPlace",
    "PatchStemConfig",
    "PoolerConfig",
    "RelativePositions",
    "RotaryPositions",
    "SequenceHeadConfig",
    "SinusoidalPositions",
    "SpanHeadConfig",
    "StackConfig",
    "TextVector",
    "TokenHeadConfig",
    "TokenStemConfig",
    "YarnScaling",
    "learned_positions",
    "num_layers",
]

Mask = Literal["bidirectional", "causal"]
NormPlace = Literal["pre", "post"]
Norm = Literal["layer", "rms"]
MLPKind = Literal["plain", "gated"]
TextVector = Literal["end", "first", "mean"]
"""Which vector stands for a text: that of its end token, of its first token, or the mean of all."""
NewerPart = Literal[
    "RMSNorm",
    "gated MLP",
    "linear maps without bias",
    "fewer heads of keys than of queries",
    "heads of a size of their own",
    "norms of queries and keys",
    "rotary positions",
    "relative positions",
    "window",
    "attention to another stack",
]
"""What a stack may have that BERT's and GPT-2's have not, in the words of "the kernels have no … yet"."""
BIASES = frozenset({"qkv", "output", "mlp"})
"""The linear maps of a block that may have a bias."""


@dataclass(frozen=True)
class TokenStemConfig(Checked):
    """Token ids → vectors: token table, positions, optional segments, optional norm."""

    vocabulary_size: int
    hidden_size: int
    positions: LearnedPositions | SinusoidalPositions | None
    """``None``: the stack places tokens (rotary, relative)."""
    num_segments: int = 0
    """Rows of the segment (token type) table; 0: there is none."""
    norm_eps: float | None = None
    """Epsilon of the LayerNorm after the sum; ``None``: no norm."""
    dropout: float = 0.0
    pad_token_id: int | None = None
    scaled: bool = False
    """Token vectors times √hidden_size, before positions are added."""


@dataclass(frozen=True)
class StackConfig(Checked):
    """The Transformer: a tower of identical blocks."""

    hidden_size: int
    num_layers: int
    num_heads: int
    mlp_size: int
    mask: Mask = "bidirectional"
    norm_place: NormPlace = "post"
    norm_eps: float = 1e-12
    final_norm: bool = False
    """A LayerNorm after the last block (pre-norm stacks have one)."""
    activation: Activation = "gelu"
    attention_scale: float | None = None
    """Factor on QKᵀ; ``None``: 1/√head_size."""
    dropout: float = 0.0
    """On the output of attention and MLP."""
    attention_dropout: float = 0.0
    """On the attention weights."""
    norm: Norm = "layer"
    """LayerNorm, or RMSNorm (Zhang & Sennrich, 2019)."""
    mlp: MLPKind = "plain"
    """down(activation(up(x))), or down(activation(gate(x)) · up(x)) (Shazeer, 2020)."""
    biases: frozenset[str] = BIASES
    """Which linear maps have a bias: any of ``qkv``, ``output`` (of attention), ``mlp``."""
    num_kv_heads: int | None = None
    """Heads of keys and values, each shared by as many queries (Ainslie et al., 2023); ``None``: ``num_heads``."""
    own_head_size: int | None = None
    """Width of one head; ``None``: hidden_size / num_heads."""
    qk_norm: bool = False
    """An RMSNorm over each head of queries and keys, before they are turned."""
    rotary: RotaryPositions | None = None
    relative: RelativePositions | None = None
    """Of a query to its own keys; there is none to those of another stack."""
    window: int | None = None
    """A causal query sees this many keys at most, its own among them; ``None``: all before it."""
    memory_size: int | None = None
    """Width of the vectors of another stack that this one attends to as well; ``None``: there are none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_heads == 0 or (self.own_head_size is None and self.hidden_size % self.num_heads):
            raise UsageError(
                f"StackConfig.hidden_size is {self.hidden_size}, which is not a multiple of num_heads {self.num_heads}"
            )
        if self.kv_heads == 0 or self.num_heads % self.kv_heads:
            raise UsageError(
                f"StackConfig.num_heads is {self.num_heads}, which is not a multiple of num_kv_heads {self.kv_heads}"
            )
        if unknown := self.biases - BIASES:
            raise UsageError(f"StackConfig.biases has {sorted(unknown)[0]!r}; known are {', '.join(sorted(BIASES))}")
        if self.rotary is not None and self.head_size % 2:
            raise UsageError(f"rotary positions turn pairs of channels; a head of {self.head_size} is odd")
        if self.window is not None and (self.window < 1 or self.mask != "causal"):
            raise UsageError(
                f"StackConfig.window is {self.window} with a {self.mask} mask; it is for causal ones, 1 up"
            )

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_heads if self.own_head_size is None else self.own_head_size

    @property
    def kv_heads(self) -> int:
        """Heads of keys, and of values."""
        return self.num_heads if self.num_kv_heads is None else self.num_kv_heads

    @property
    def qkv_sizes(self) -> tuple[int, int, int]:
        """Widths of queries, keys and values, all heads together."""
        return self.num_heads * self.head_size, self.kv_heads * self.head_size, self.kv_heads * self.head_size

    @property
    def newer_parts(self) -> tuple[NewerPart, ...]:
        """What this stack has that BERT's and GPT-2's have not."""
        parts: dict[NewerPart, bool] = {
            "RMSNorm": self.norm == "rms",
            "gated MLP": self.mlp == "gated",
            "linear maps without bias": self.biases != BIASES,
            "fewer heads of keys than of queries": self.kv_heads != self.num_heads,
            "heads of a size of their own": self.num_heads * self.head_size != self.hidden_size,
            "norms of queries and keys": self.qk_norm,
            "rotary positions": self.rotary is not None,
            "relative positions": self.relative is not None,
            "window": self.window is not None,
            "attention to another stack": self.memory_size is not None,
        }
        return tuple(name for name, there in parts.items() if there)

    @property
    def scale(self) -> float:
        """Factor on QKᵀ."""
        return self.head_size**-0.5 if self.attention_scale is None else self.attention_scale


@dataclass(frozen=True)
class EncoderConfig(Checked):
    """A BERT-shaped model: every token sees every token of its sequence."""

    stem: TokenStemConfig
    stack: StackConfig
    pooler: PoolerConfig | None = None
    masked_token: MaskedTokenHeadConfig | None = None
    next_sentence: NextSentenceHeadConfig | None = None
    sequence: SequenceHeadConfig | None = None
    token: TokenHeadConfig | None = None
    span: SpanHeadConfig | None = None

    @property
    def max_length(self) -> int:
        """Tokens in the longest sequence this model can read."""
        return _max_length(self.stem, self.stack)

    @property
    def head_names(self) -> tuple[str, ...]:
        """The heads this model has, in the order of ``ENCODER_HEADS``."""
        return tuple(name for name in ENCODER_HEADS if getattr(self, name) is not None)

    def with_heads(self, **heads: Any) -> EncoderConfig:
        """A copy with these heads set; a head that reads the pooled vector brings the pooler with it."""
        config = replace(self, **heads)
        pools = config.next_sentence is not None or (config.sequence is not None and config.sequence.dense is None)
        return replace(config, pooler=PoolerConfig()) if pools and config.pooler is None else config


@dataclass(frozen=True)
class DecoderConfig(Checked):
    """A GPT-shaped model: every token sees itself and the tokens before it."""

    stem: TokenStemConfig
    stack: StackConfig
    language_model: LanguageModelHeadConfig | None = None

    @property
    def max_length(self) -> int:
        """Tokens in the longest sequence this model can read."""
        return _max_length(self.stem, self.stack)

    @property
    def head_names(self) -> tuple[str, ...]:
        """The heads this model has."""
        return () if self.language_model is None else ("language_model",)


@dataclass(frozen=True)
class EncoderDecoderConfig(Checked):
    """A model that reads one text and writes another: a causal stack that attends to an encoder's vectors."""

    encoder_stem: TokenStemConfig
    encoder_stack: StackConfig
    decoder_stem: TokenStemConfig
    decoder_stack: StackConfig
    start_token_id: int
    """What the decoder begins with."""
    language_model: LanguageModelHeadConfig | None = None
    shared_tokens: bool = True
    """Both stems have one token table; else each has its own, and the vocabularies may differ."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shared_tokens and self.encoder_stem.vocabulary_size != self.decoder_stem.vocabulary_size:
            raise UsageError(
                f"the encoder reads {self.encoder_stem.vocabulary_size} tokens, the decoder "
                f"{self.decoder_stem.vocabulary_size}; they can't share a table"
            )
        if self.decoder_stack.memory_size != self.encoder_stack.hidden_size:
            raise UsageError(
                f"the decoder attends to vectors of {self.decoder_stack.memory_size}, the encoder gives "
                f"{self.encoder_stack.hidden_size}"
            )

    @property
    def stem(self) -> TokenStemConfig:
        """What reads."""
        return self.encoder_stem

    @property
    def stack(self) -> StackConfig:
        """What writes."""
        return self.decoder_stack

    @property
    def max_length(self) -> int:
        """Tokens in the longest text this model can read."""
        return _max_length(self.encoder_stem, self.encoder_stack)

    @property
    def max_written(self) -> int:
        """Tokens in the longest text this model can write, its first one among them."""
        return _max_length(self.decoder_stem, self.decoder_stack)

    @property
    def head_names(self) -> tuple[str, ...]:
        """The heads this model has."""
        return () if self.language_model is None else ("language_model",)


@dataclass(frozen=True)
class ImageEncoderConfig(Checked):
    """A model that looks at images: patches in, vectors out (Dosovitskiy et al., 2021)."""

    stem: PatchStemConfig
    stack: StackConfig
    pooler: PoolerConfig | None = None
    sequence: SequenceHeadConfig | None = None
    """One label for the image, of its first vector."""

    @property
    def head_names(self) -> tuple[str, ...]:
        """The heads this model has."""
        return () if self.sequence is None else ("sequence",)


@dataclass(frozen=True)
class DualEncoderConfig(Checked):
    """A tower for images and a tower for texts, whose vectors are compared (Radford et al., 2021)."""

    image: ImageEncoderConfig
    text: EncoderConfig | DecoderConfig
    projection_size: int
    """Width of the space in which both meet."""
    text_vector: TextVector = "end"
    end_token_id: int | None = None
    """The first one ends a text; ``None``: the token with the largest number does."""

    @property
    def stem(self) -> TokenStemConfig:
        """What reads texts."""
        return self.text.stem

    @property
    def stack(self) -> StackConfig:
        """The tower of texts."""
        return self.text.stack

    @property
    def max_length(self) -> int:
        """Tokens in the longest text this model can read."""
        return self.text.max_length

    @property
    def head_names(self) -> tuple[str, ...]:
        """The heads this model has: none."""
        return ()


def num_layers(config: ModelConfig) -> dict[str, int]:
    """How many blocks the stacks of a model have, by the prefix of their parameters."""
    if isinstance(config, EncoderDecoderConfig):
        return {"encoder.": config.encoder_stack.num_layers, "decoder.": config.decoder_stack.num_layers}
    if isinstance(config, DualEncoderConfig):
        return {"image.": config.image.stack.num_layers, "text.": config.text.stack.num_layers}
    return {"": config.stack.num_layers}


def learned_positions(stem: TokenStemConfig) -> LearnedPositions:
    """The position table of a family that has one. Raises ``UsageError`` where there is none."""
    if not isinstance(stem.positions, LearnedPositions):
        raise UsageError("this model has no table of positions; it can't be saved as a family that needs one")
    return stem.positions


def _max_length(stem: TokenStemConfig, stack: StackConfig) -> int:
    positions = stem.positions or stack.rotary or stack.relative
    if positions is None:
        raise UsageError("neither the stem nor the stack places tokens; a model needs positions")
    return positions.max_length


ENCODER_HEADS = ("masked_token", "next_sentence", "sequence", "token", "span")
LanguageConfig = EncoderConfig | DecoderConfig | EncoderDecoderConfig
"""What reads tokens, and nothing else."""
ModelConfig = LanguageConfig | ImageEncoderConfig | DualEncoderConfig
