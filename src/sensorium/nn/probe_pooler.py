"""A learnt vector that asks all vectors of a sequence for one (Lee et al., 2019, §3.2; Zhai et al., 2022, §2.3).

Shapes: T packed rows, N sequences, D hidden size, H heads, Dh head size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sensorium.config import StackConfig
from sensorium.nn.attention import packed_attention
from sensorium.nn.block import MLPS, NORMS
from sensorium.packed import Layout


class ProbePooler(nn.Module):
    """[T, D] → [N, D]: attention of the probe, then x + mlp(norm(x))."""

    def __init__(self, config: StackConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.num_heads, self.scale = config.num_heads, config.scale
        self.probe = nn.Parameter(torch.zeros(size))
        self.qkv = nn.Linear(size, 3 * size)
        self.output = nn.Linear(size, size)
        self.norm = NORMS[config.norm](size, eps=config.norm_eps)
        self.mlp = MLPS[config.mlp](config)

    def forward(self, hidden_states: Tensor, lengths: tuple[int, ...]) -> Tensor:
        """[T, D] of sequences of these lengths → [N, D]."""
        size, heads = len(self.probe), (self.num_heads, -1)
        asks, answers = self.qkv.weight.split([size, 2 * size])
        asks_bias, answers_bias = self.qkv.bias.split([size, 2 * size])
        q = nn.functional.linear(self.probe, asks, asks_bias).unflatten(-1, heads)  # [H, Dh]
        k, v = nn.functional.linear(hidden_states, answers, answers_bias).chunk(2, dim=-1)  # [T, D]
        layout = Layout((1,) * len(lengths), lengths)
        attended = packed_attention(
            q.expand(len(lengths), -1, -1), k.unflatten(-1, heads), v.unflatten(-1, heads), layout,
            causal=False, scale=self.scale,
        )  # [N, H, Dh]  # fmt: skip
        x = self.output(attended.flatten(1))
        output: Tensor = x + self.mlp(self.norm(x))
        return output
