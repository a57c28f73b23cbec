"""One Transformer block: attention, MLP, and where the norms stand.

Shapes: T packed tokens, D hidden size, H heads, Dh head size, F MLP size.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sensorium.config import StackConfig
from sensorium.nn.attention import AttentionKernel, grouped_attention
from sensorium.nn.dropout import Dropout
from sensorium.packed import Layout

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
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


class Attention(nn.Module):
    """Multi-head attention of packed tokens to themselves, and to what the cache holds."""

    def __init__(self, config: StackConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.num_heads = config.num_heads
        self.causal = config.mask == "causal"
        self.scale = config.scale
        self.dropout = config.attention_dropout
        self.kernel: AttentionKernel = grouped_attention
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.output = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, x: Tensor, layout: Layout, cache: Cache | None = None) -> Tensor:
        """[T, D] → [T, D]."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).unbind(1)  # [T, H, Dh]
        if cache is not None:
            k, v = cache.update(self.layer, k, v)  # [S, H, Dh]
        dropout = self.dropout if self.training else 0.0
        attended = self.kernel(q, k, v, layout, causal=self.causal, scale=self.scale, dropout=dropout)  # [T, H, Dh]
        output: Tensor = self.output(attended.flatten(1))
        return output


class MLP(nn.Module):
    """Two linear maps with an activation between them."""

    def __init__(self, config: StackConfig) -> None:
        super().__init__()
        self.up = nn.Linear(config.hidden_size, config.mlp_size)
        self.down = nn.Linear(config.mlp_size, config.hidden_size)
        self.activation = ACTIVATIONS[config.activation]

    def forward(self, x: Tensor) -> Tensor:
        """[T, D] → [T, F] → [T, D]."""
        output: Tensor = self.down(self.activation(self.up(x)))
        return output


class Block(nn.Module):
    """The parts of a block; its two subclasses say where the norms stand."""

    def __init__(self, config: StackConfig, layer: int) -> None:
        super().__init__()
        self.attention = Attention(config, layer)
        self.attention_norm = nn.LayerNorm(config.hidden_size, eps=config.norm_eps)
        self.mlp = MLP(config)
        self.mlp_norm = nn.LayerNorm(config.hidden_size, eps=config.norm_eps)
        self.dropout = Dropout(config.dropout)


class PostNormBlock(Block):
    """x → norm(x + attention(x)) → norm(x + mlp(x)), as in the 2017 Transformer and BERT."""

    def forward(self, x: Tensor, layout: Layout, cache: Cache | None = None) -> Tensor:
        """[T, D] → [T, D]."""
        x = self.attention_norm(x + self.dropout(self.attention(x, layout, cache)))
        x = self.mlp_norm(x + self.dropout(self.mlp(x)))
        return x


class PreNormBlock(Block):
    """x → x + attention(norm(x)) → x + mlp(norm(x)), as in GPT-2 (Xiong et al., 2020, on why it trains more calmly)."""

    def forward(self, x: Tensor, layout: Layout, cache: Cache | None = None) -> Tensor:
        """[T, D] → [T, D]."""
        x = x + self.dropout(self.attention(self.attention_norm(x), layout, cache))
        x = x + self.dropout(self.mlp(self.mlp_norm(x)))
        return x
