"""The last block of a stack where one row of each sequence is all that is read: a class token, say.

Of that block only the keys and values of all other rows are needed, a sixth of its products.

Shapes: T packed tokens, N sequences, D hidden size, H heads, Dh head size.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from sensorium.config import StackConfig
from sensorium.nn.block import PreNormBlock
from sensorium.packed import Layout


def can_read_rows(config: StackConfig, block: Any) -> bool:
    """Whether a stack's last block can be computed for single rows: one whose tokens look both ways, as they are."""
    plain = config.mask == "bidirectional" and config.rotary is None and config.relative is None
    whole = not config.qk_norm and config.memory_size is None and config.kv_heads == config.num_heads
    return plain and whole and type(block.attention.qkv) is nn.Linear  # an adapter stands around it otherwise


def block_at(block: Any, x: Tensor, layout: Layout, rows: Tensor) -> Tensor:
    """[T, D] → [N, D]: what the block makes of one row of each sequence; ``rows`` [N] says which."""
    is_pre = isinstance(block, PreNormBlock)
    attention = block.attention
    seen = block.attention_norm(x) if is_pre else x  # [T, D]
    size = attention.sizes[0]
    weight, bias = attention.qkv.weight, attention.qkv.bias
    query_bias, other_bias = (None, None) if bias is None else (bias[:size], bias[size:])
    q = F.linear(seen[rows], weight[:size], query_bias).unflatten(-1, (-1, attention.head_size))  # [N, H, Dh]
    k, v = F.linear(seen, weight[size:], other_bias).unflatten(-1, (2, -1, attention.head_size)).unbind(1)  # [T, H, Dh]
    attended = attention.kernel(
        q, k, v, Layout((1,) * len(rows), layout.key_lengths), causal=False, scale=attention.scale,
        dropout=attention.dropout if block.training else 0.0,
    )  # [N, H, Dh]  # fmt: skip
    y = x[rows] + block.dropout(attention.output(attended.flatten(1)))  # [N, D]
    if is_pre:
        output: Tensor = y + block.dropout(block.mlp(block.mlp_norm(y)))
        return output
    y = block.attention_norm(y)
    output = block.mlp_norm(y + block.dropout(block.mlp(y)))
    return output
