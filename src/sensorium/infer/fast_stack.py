"""The Stack and its vocabulary head on the compiled kernels: weights packed once, whole layers in one call.

Shapes: T packed tokens, M chosen rows, D hidden size, V vocabulary.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sensorium import native
from sensorium.config import StackConfig
from sensorium.errors import UsageError
from sensorium.infer.cache import PagedCache
from sensorium.infer.packing import CODES, Dtype, PackedLinear
from sensorium.native.activations import activation
from sensorium.nn.stack import Stack
from sensorium.packed import Layout

MOST_HIDDEN = 1 << 14
"""As in ``stack.cpp``, which keeps a copy of one row on its stack."""


class FastStack(nn.Module):
    """As ``nn.Stack``, for inference: ``stack(x, layout, cache=None) -> x``, x: [T, D] float32.

    A sequence's result is the same bit for bit whatever its neighbours in the batch and the number of threads.
    """

    def __init__(self, stack: Stack, dtype: Dtype, smooth: dict[str, Tensor] | None = None) -> None:
        """Raises ``OSError`` where the kernels can't run, ``UsageError`` where they can't run this model."""
        super().__init__()
        self.library = native.library()
        self.config, self.dtype = stack.config, dtype
        self.cache_dtype = torch.float32 if dtype == "fp32" else torch.bfloat16
        if reason := unsupported(stack.config):
            raise UsageError(reason)
        self._kept: list[object] = []  # what the structs point at
        smooth = smooth or {}

        def linear(name: str, module: nn.Linear) -> native.Linear:
            packed = PackedLinear(module.weight, module.bias, dtype, smooth=smooth.get(name))
            self._kept.append(packed)
            return packed.struct

        layers = (native.Layer * stack.config.num_layers)()
        blocks: list[Any] = list(stack.layers)
        for number, block in enumerate(blocks):
            parts = {"qkv": block.attention.qkv, "output": block.attention.output, "up": block.mlp.up,
                     "down": block.mlp.down}  # fmt: skip
            for name, module in parts.items():
                setattr(layers[number], name, linear(f"{number}.{name}", module))
            layers[number].attention_norm = self._norm(block.attention_norm)
            layers[number].mlp_norm = self._norm(block.mlp_norm)
        config, exact = stack.config, dtype == "fp32"
        self.struct = native.Stack(
            config.hidden_size, config.num_heads, config.mlp_size, config.num_layers, config.norm_place == "pre",
            config.mask == "causal", config.scale, config.norm_eps, activation(config.activation, exact=exact),
            layers, self._norm(stack.final_norm),
        )  # fmt: skip
        self._kept.append(layers)
        self.code = native.on_matrix_unit(CODES[dtype], config.hidden_size, config.mlp_size)

    @property
    def panels(self) -> list[Tensor]:
        """The packed weights of all layers."""
        return [kept.panels for kept in self._kept if isinstance(kept, PackedLinear)]

    def _norm(self, norm: Any) -> native.Norm:
        if not isinstance(norm, nn.LayerNorm):
            return native.Norm(None, None)
        weight, bias = norm.weight.detach().float().contiguous(), norm.bias.detach().float().contiguous()
        self._kept += [weight, bias]
        return native.Norm(native.pointer(weight), native.pointer(bias))

    def forward(self, x: Tensor, layout: Layout, cache: PagedCache | None = None) -> Tensor:
        """[T, D] → [T, D] float32."""
        x = x.detach().to(torch.float32, copy=True).contiguous()
        offsets = torch.tensor([0, *np.cumsum(layout.query_lengths)])  # [sequences + 1]
        pages = None if cache is None else ctypes.pointer(cache.struct())
        batch = native.Batch(native.pointer(x), native.pointer(offsets), pages)
        self.library.sensorium_stack(
            self.code, ctypes.byref(self.struct), ctypes.byref(batch), len(layout.query_lengths),
            torch.get_num_threads(),
        )  # fmt: skip
        return x


class FastVocabulary(nn.Module):
    """Vectors [M, D] → logits [M, V], as a bias and a product with the vocabulary matrix."""

    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: Dtype) -> None:
        """Raises ``OSError`` where the kernels can't run."""
        super().__init__()
        self.library, self.dtype = native.library(), dtype
        self.packed = PackedLinear(weight, bias, dtype)
        self.code = native.on_matrix_unit(CODES[dtype], weight.shape[1])

    def forward(self, hidden_states: Tensor) -> Tensor:
        """[M, D] → [M, V] float32."""
        x = hidden_states.detach().float().contiguous()
        logits = x.new_empty(len(x), self.packed.struct.outputs)
        self.library.sensorium_linear(
            self.code, ctypes.byref(self.packed.struct), native.pointer(x), len(x), native.pointer(logits),
            torch.get_num_threads(),
        )  # fmt: skip
        return logits


def unsupported(config: StackConfig) -> str | None:
    """Why the kernels can't run a stack of this shape; ``None``: they can."""
    if config.hidden_size > MOST_HIDDEN:
        return f"hidden_size is {config.hidden_size:,}, and the kernels go up to {MOST_HIDDEN:,}"
    if config.newer_parts:
        return f"the kernels have no {config.newer_parts[0]} yet"
    if config.hidden_size % 4 or config.mlp_size % 4 or config.head_size % 2:
        return "hidden_size and mlp_size must be multiples of 4, and the head size even"
    return None
