"""One Transformer block: attention, MLP, and where the norms stand.

Shapes: T packed tokens, D hidden size, H heads, Dh head size, F MLP size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sensorium.config import StackConfig
from sensorium.errors import UsageError
from sensorium.nn.attention import AttentionKernel, DistanceBias, packed_attention
from sensorium.nn.dropout import Dropout
from sensorium.nn.memory import Memory
from sensorium.nn.positions import Rotation, rotate
from sensorium.packed import Layout


def _gelu_quick(x: Tensor) -> Tensor:
    """x · σ(1.702 x), which is near GELU (Hendrycks & Gimpel, 2016, §2)."""
    return x * torch.sigmoid(1.702 * x)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "gelu_quick": _gelu_quick,
    "relu": F.relu,
    "silu": F.silu,
    "tanh": torch.tanh,
}


class Cache(Protocol):
    """The keys and values of earlier tokens, kept so that decoding need not compute them again."""

    def layout(self, lengths: tuple[int, ...]) -> Layout:
        """Begin a step that brings ``lengths`` new tokens: who attends to whom, cached keys included."""
        ...

    def update(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Keep this step's keys and values [T, H, Dh]; give back all there are, [S, H, Dh]."""
        ...


@dataclass(frozen=True)
class Context:
    """What the tokens of a stack attend to, and where they stand: the same for all of its blocks."""

    layout: Layout
    cache: Cache | None = None
    rotation: Rotation | None = None
    memory: Memory | None = None
    bias: DistanceBias | None = None


class Attention(nn.Module):
    """Multi-head attention of packed tokens to themselves, and to what the cache holds."""

    def __init__(self, config: StackConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.sizes = config.qkv_sizes
        self.head_size = config.head_size
        self.shared_by = config.num_heads // config.kv_heads
        self.causal = config.mask == "causal"
        self.window = config.window
        self.scale = config.scale
        self.dropout = config.attention_dropout
        self.kernel: AttentionKernel = packed_attention
        self.qkv = nn.Linear(config.hidden_size, sum(self.sizes), bias="qkv" in config.biases)
        self.query_norm = nn.RMSNorm(self.head_size, config.norm_eps) if config.qk_norm else None
        self.key_norm = nn.RMSNorm(self.head_size, config.norm_eps) if config.qk_norm else None
        self.output = nn.Linear(self.sizes[0], config.hidden_size, bias="output" in config.biases)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        """[T, D] → [T, D]."""
        # [T, H, Dh]; keys and values may have fewer heads
        q, k, v = (part.unflatten(-1, (-1, self.head_size)) for part in self.qkv(x).split(self.sizes, dim=-1))
        if self.query_norm is not None and self.key_norm is not None:
            q, k = self.query_norm(q), self.key_norm(k)
        if context.rotation is not None:
            q, k = rotate(q, context.rotation), rotate(k, context.rotation)
        if context.cache is not None:
            k, v = context.cache.update(self.layer, k, v)  # [S, H, Dh]
        if self.shared_by > 1:
            k, v = k.repeat_interleave(self.shared_by, dim=1), v.repeat_interleave(self.shared_by, dim=1)
        dropout = self.dropout if self.training else 0.0
        attended = self.kernel(
            q, k, v, context.layout, causal=self.causal, scale=self.scale, dropout=dropout, window=self.window,
            bias=context.bias,
        )  # [T, H, Dh]  # fmt: skip
        output: Tensor = self.output(attended.flatten(1))
        return output


class MemoryAttention(nn.Module):
    """Multi-head attention of packed tokens to what another stack made of a source."""

    def __init__(self, config: StackConfig, memory_size: int, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.num_heads, self.head_size = config.num_heads, config.head_size
        width = self.num_heads * self.head_size
        self.scale, self.dropout = config.scale, config.attention_dropout
        self.kernel: AttentionKernel = packed_attention
        self.query = nn.Linear(config.hidden_size, width, bias="qkv" in config.biases)
        self.key_value = nn.Linear(memory_size, 2 * width, bias="qkv" in config.biases)
        self.output = nn.Linear(width, config.hidden_size, bias="output" in config.biases)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        """[T, D] → [T, D]. Raises ``UsageError`` where there is nothing to attend to."""
        if context.memory is None:
            raise UsageError("this decoder attends to an encoder's vectors, and none were given")
        q = self.query(x).unflatten(-1, (self.num_heads, -1))  # [T, H, Dh]
        k, v = context.memory.keys_and_values(self.layer, self.keys_and_values)  # [S, H, Dh]
        layout = context.memory.layout(context.layout.query_lengths)
        dropout = self.dropout if self.training else 0.0
        attended = self.kernel(q, k, v, layout, causal=False, scale=self.scale, dropout=dropout)  # [T, H, Dh]
        output: Tensor = self.output(attended.flatten(1))
        return output

    def keys_and_values(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """[S, D] → [S, H, Dh] twice."""
        keys, values = self.key_value(states).unflatten(-1, (2, self.num_heads, -1)).unbind(1)
        return keys, values


class MLP(nn.Module):
    """Two linear maps with an activation between them."""

    def __init__(self, config: StackConfig) -> None:
        super().__init__()
        bias = "mlp" in config.biases
        self.up = nn.Linear(config.hidden_size, config.mlp_size, bias)
        self.down = nn.Linear(config.mlp_size, config.hidden_size, bias)
        self.activation = ACTIVATIONS[config.activation]

    def forward(self, x: Tensor) -> Tensor:
        """[T, D] → [T, F] → [T, D]."""
        output: Tensor = self.down(self.activation(self.up(x)))
        return output


class GatedMLP(nn.Module):
    """An MLP whose middle is multiplied by an activated map of the same input (Shazeer, 2020)."""

    def __init__(self, config: StackConfig) -> None:
        super().__init__()
        bias = "mlp" in config.biases
        self.gate = nn.Linear(config.hidden_size, config.mlp_size, bias)
        self.up = nn.Linear(config.hidden_size, config.mlp_size, bias)
        self.down = nn.Linear(config.mlp_size, config.hidden_size, bias)
        self.activation = ACTIVATIONS[config.activation]

    def forward(self, x: Tensor) -> Tensor:
        """[T, D] → [T, F] → [T, D]."""
        output: Tensor = self.down(self.activation(self.gate(x)) * self.up(x))
        return output


MLPS: dict[str, type[MLP] | type[GatedMLP]] = {"plain": MLP, "gated": GatedMLP}
NORMS: dict[str, type[nn.LayerNorm] | type[nn.RMSNorm]] = {"layer": nn.LayerNorm, "rms": nn.RMSNorm}


class Block(nn.Module):
    """The parts of a block; its two subclasses say where the norms stand."""

    def __init__(self, config: StackConfig, layer: int) -> None:
        super().__init__()
        norm = NORMS[config.norm]
        self.attention = Attention(config, layer)
        self.attention_norm = norm(config.hidden_size, eps=config.norm_eps)
        size = config.memory_size
        self.memory_attention = None if size is None else MemoryAttention(config, size, layer)
        self.memory_norm = None if size is None else norm(config.hidden_size, eps=config.norm_eps)
        self.mlp = MLPS[config.mlp](config)
        self.mlp_norm = norm(config.hidden_size, eps=config.norm_eps)
        self.dropout = Dropout(config.dropout)


class PostNormBlock(Block):
    """x → norm(x + attention(x)) → norm(x + mlp(x)), as in the 2017 Transformer and BERT.

    Between them, where there is a memory: x → norm(x + memory_attention(x)).
    """

    def forward(self, x: Tensor, context: Context) -> Tensor:
        """[T, D] → [T, D]."""
        x = self.attention_norm(x + self.dropout(self.attention(x, context)))
        if self.memory_attention is not None and self.memory_norm is not None:
            x = self.memory_norm(x + self.dropout(self.memory_attention(x, context)))
        x = self.mlp_norm(x + self.dropout(self.mlp(x)))
        return x


class PreNormBlock(Block):
    """x → x + attention(norm(x)) → x + mlp(norm(x)), as in GPT-2 (Xiong et al., 2020, on why it trains more calmly).

    Between them, where there is a memory: x → x + memory_attention(norm(x)).
    """

    def forward(self, x: Tensor, context: Context) -> Tensor:
        """[T, D] → [T, D]."""
        x = x + self.dropout(self.attention(self.attention_norm(x), context))
        if self.memory_attention is not None and self.memory_norm is not None:
            x = x + self.dropout(self.memory_attention(self.memory_norm(x), context))
        x = x + self.dropout(self.mlp(self.mlp_norm(x)))
        return x
