"""The Stack on torch's own operators: where the compiled kernels can't run, and on a GPU.

Shapes: T packed tokens, D hidden size; N outputs and K inputs of a linear map.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from sensorium.nn.block import Cache
from sensorium.nn.memory import Memory
from sensorium.nn.stack import Stack
from sensorium.packed import Layout

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class TorchStack(nn.Module):
    """As ``nn.Stack``, for inference.

    On a processor the weights are prepacked for oneDNN, which does the products.
    """

    def __init__(self, stack: Stack, dtype: str) -> None:
        super().__init__()
        self.config, self.dtype = stack.config, DTYPES[dtype]
        self.stack = copy.deepcopy(stack).to(self.dtype).requires_grad_(False)
        if next(stack.parameters()).is_cuda or not torch.backends.mkldnn.is_available():
            return
        blocks: list[Any] = list(self.stack.layers)
        for block in blocks:
            for part in filter(None, (block.attention, block.memory_attention, block.mlp)):
                for name, linear in list(part.named_children()):
                    if isinstance(linear, nn.Linear):
                        setattr(part, name, PrepackedLinear(linear))

    def forward(
        self, x: Tensor, layout: Layout, cache: Cache | None = None, memory: Memory | None = None,
        blocks: int | None = None,
    ) -> Tensor:  # fmt: skip
        """[T, D] → [T, D] float32."""
        if memory is not None:
            memory.states = memory.states.to(self.dtype)
        output: Tensor = self.stack(x.to(self.dtype), layout, cache, memory, blocks).float()
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
