"""The Stack on torch's own operators: where the compiled kernels can't run, and on a GPU.

Shapes: T packed tokens, D hidden size, H heads, Dh head size; N outputs and K inputs of a linear map.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from sensorium.nn.attention import DistanceBias, grouped_attention
from sensorium.nn.block import Cache
from sensorium.nn.memory import Memory
from sensorium.nn.stack import Stack
from sensorium.packed import Layout

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class TorchStack(nn.Module):
    """As ``nn.Stack``, for inference.

    On a processor the weights are prepacked for oneDNN, which does the products; on a GPU, attention runs without
    padding in torch's flash kernel for sequences of any length (which takes no float32).
    """

    def __init__(self, stack: Stack, dtype: str) -> None:
        super().__init__()
        self.config, self.dtype = stack.config, DTYPES[dtype]
        self.stack = copy.deepcopy(stack).to(self.dtype).requires_grad_(False)
        on_gpu = next(stack.parameters()).is_cuda
        blocks: list[Any] = list(self.stack.layers)
        for block in blocks:
            if on_gpu and dtype == "bf16":
                block.attention.kernel = varlen_attention
            if not on_gpu and torch.backends.mkldnn.is_available():
                for part in filter(None, (block.attention, block.memory_attention, block.mlp)):
                    for name, linear in list(part.named_children()):
                        if isinstance(linear, nn.Linear):
                            setattr(part, name, PrepackedLinear(linear))

    def forward(self, x: Tensor, layout: Layout, cache: Cache | None = None, memory: Memory | None = None) -> Tensor:
        """[T, D] → [T, D] float32."""
        if memory is not None:
            memory.states = memory.states.to(self.dtype)
        output: Tensor = self.stack(x.to(self.dtype), layout, cache, memory).float()
        return output


class PrepackedLinear(nn.Module):
    """A linear map whose weights lie as oneDNN reads them: on some processors several times as fast as torch's own."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach())
        self.bias = None if linear.bias is None else linear.bias.detach()

    def forward(self, x: Tensor) -> Tensor:
        """[T, K] → [T, N]."""
        output: Tensor = torch.ops.mkldnn._linear_pointwise(x.contiguous(), self.packed, self.bias, "none", [], "")
        return output


def varlen_attention(
    q: Tensor, k: Tensor, v: Tensor, layout: Layout, *, causal: bool, scale: float, dropout: float = 0.0,
    window: int | None = None, bias: DistanceBias | None = None,
) -> Tensor:  # fmt: skip
    """An attention kernel (``nn.attention``) over ``torch.nn.attention.varlen``: q [T, H, Dh], k and v [S, H, Dh].

    That kernel puts the last query at the last key, as ours do. It takes no dropout and no bias: where there is one,
    the grouped kernel runs.
    """
    if dropout or bias is not None:
        return grouped_attention(q, k, v, layout, causal=causal, scale=scale, dropout=dropout, window=window, bias=bias)
    from torch.nn.attention.varlen import varlen_attn

    def offsets(lengths: tuple[int, ...]) -> Tensor:
        return torch.tensor([0, *lengths], device=q.device).cumsum(0).to(torch.int32)

    before = -1 if window is None else window - 1  # keys before a query's own
    options: dict[str, Any] = {"scale": scale, "window_size": (before, 0 if causal else -1)}
    output: Any = varlen_attn(
        q, k, v, offsets(layout.query_lengths), offsets(layout.key_lengths), max(layout.query_lengths),
        max(layout.key_lengths), **options,
    )  # fmt: skip
    attended: Tensor = output  # [T, H, Dh]; a tuple only where more is asked for
    return attended
