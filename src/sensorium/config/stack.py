"""The stem of tokens and the stack: what every model is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sensorium.config._checked import Checked
from sensorium.config.heads import Activation
from sensorium.config.positions import LearnedPositions, RelativePositions, RotaryPositions, SinusoidalPositions
from sensorium.errors import UsageError

Mask = Literal["bidirectional", "causal"]
NormPlace = Literal["pre", "post"]
Norm = Literal["layer", "rms"]
MLPKind = Literal["plain", "gated"]
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
