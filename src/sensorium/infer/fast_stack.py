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
from sensorium.infer.cache import AnyCache, KeyValueCache, PagedCache
from sensorium.infer.packing import CODES, Dtype, PackedLinear
from sensorium.infer.paged_memory import PagedMemory
from sensorium.native.activations import activation
from sensorium.nn.block import GatedMLP
from sensorium.nn.memory import Memory
from sensorium.nn.positions import distance_buckets, rotation
from sensorium.nn.stack import Stack
from sensorium.packed import Layout

MOST_HIDDEN = 1 << 14
"""As in ``tile.h``, which keeps a copy of one row on its stack."""
DISTANCES = 256
"""Relative positions are worked out for so many more places at once."""


class FastStack(nn.Module):
    """As ``nn.Stack``, for inference: ``stack(x, layout, cache=None, memory=None) -> x``, x: [T, D] float32.

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

        config, exact = stack.config, dtype == "fp32"
        layers = (native.Layer * config.num_layers)()
        blocks: list[Any] = list(stack.layers)
        for number, block in enumerate(blocks):
            for name, module in linear_maps(block).items():
                setattr(layers[number], name, linear(f"{number}.{name}", module))
            for name, norm in _norms(block).items():
                setattr(layers[number], name, self._norm(norm))
        sizes = native.stack_sizes(config)
        self.struct = native.Stack(
            *sizes, config.scale, config.norm_eps, activation(config.activation, exact=exact), layers,
            self._norm(stack.final_norm),
        )  # fmt: skip
        self._kept.append(layers)
        self._relative = None if stack.relative is None else stack.relative.weight.detach().float()  # [buckets, H]
        self._distances = torch.empty(config.num_heads, 0)
        memory = [] if config.memory_size is None else [config.memory_size]
        self.code = native.on_matrix_unit(
            CODES[dtype], config.hidden_size, config.mlp_size, config.qkv_sizes[0], *memory
        )

    @property
    def panels(self) -> list[Tensor]:
        """The packed weights of all layers."""
        return [kept.panels for kept in self._kept if isinstance(kept, PackedLinear)]

    def _norm(self, norm: Any) -> native.Norm:
        if not isinstance(norm, nn.LayerNorm | nn.RMSNorm):
            return native.Norm(None, None)
        bias = getattr(norm, "bias", None)
        vectors = [None if vector is None else vector.detach().float().contiguous() for vector in (norm.weight, bias)]
        self._kept += vectors
        return native.Norm(*map(native.pointer, vectors))

    def read(self, memory: Memory) -> PagedMemory:
        """What another stack made of its sources, as this one attends to it; once for all that is decoded."""
        if isinstance(memory, PagedMemory):
            return memory
        return PagedMemory(memory, self.config, self.struct, self.code, self.cache_dtype)

    def forward(
        self, x: Tensor, layout: Layout, cache: PagedCache | None = None, memory: Memory | None = None,
        blocks: int | None = None,
    ) -> Tensor:  # fmt: skip
        """[T, D] → [T, D] float32. Raises ``UsageError`` where there should be a memory and is none."""
        if (memory is None) != (self.config.memory_size is None):
            raise UsageError("this decoder attends to an encoder's vectors, and none were given")
        x = x.detach().to(torch.float32, copy=True).contiguous()
        offsets = torch.tensor([0, *np.cumsum(layout.query_lengths)])  # [sequences + 1]
        pages = None if cache is None else ctypes.pointer(cache.struct())
        rotary, angles = self.config.rotary, []
        if rotary is not None:
            angles = [*rotation(rotary, self.config.head_size, layout.query_positions, torch.float32)]  # [T, 1, Dh / 2]
        read = None if memory is None else self.read(memory)
        batch = native.Batch(
            native.pointer(x), native.pointer(offsets), pages, *(map(native.pointer, angles or (None, None))),
            *((None, None, 0) if read is None else read.attended_by(layout.query_lengths)),
            *self._added_by_distance(max(layout.key_lengths)),
        )  # fmt: skip
        struct = self.struct
        if blocks is not None:
            struct = native.Stack.from_buffer_copy(struct)
            struct.layers, struct.final_norm = blocks, native.Norm(None, None)
        self.library.sensorium_stack(
            self.code, ctypes.byref(struct), ctypes.byref(batch), len(layout.query_lengths),
            torch.get_num_threads(),
        )  # fmt: skip
        return x

    def _added_by_distance(self, longest: int) -> tuple[int | None, int]:
        """For ``native.Batch``: what distances add to scores, and how far they reach: beyond ``longest`` keys."""
        relative = self.config.relative
        if relative is None or self._relative is None:
            return None, 0
        reach = (self._distances.shape[1] + 1) // 2
        if reach < longest:
            reach = -(-longest // DISTANCES) * DISTANCES
            before = torch.arange(reach - 1, -reach, -1)  # [2R - 1] places that a key stands before its query
            buckets = distance_buckets(before, relative, both_ways=self.config.mask == "bidirectional")
            self._distances = (self._relative[buckets].t() / self.config.scale).contiguous()  # [H, 2R - 1]
        return native.pointer(self._distances), reach


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


def cache_for(stack: Any, num_sequences: int, capacity: int, *, num_pages: int | None = None) -> AnyCache:
    """A cache of the kind that a stack reads, for N sequences of ``capacity`` tokens.

    ``num_pages`` is for sequences that share pages (``cache.pages_needed``); ``None``: they share none.
    """
    if isinstance(stack, FastStack):
        return PagedCache(stack.config, num_sequences, capacity, stack.cache_dtype, num_pages=num_pages)
    dtype = getattr(stack, "dtype", None) or next(stack.parameters()).dtype
    return KeyValueCache(stack.config, num_sequences, capacity, dtype)


def linear_maps(block: Any) -> dict[str, nn.Linear]:
    """Those of a block, by the names that the kernels have for them."""
    attention, mlp, memory = block.attention, block.mlp, block.memory_attention
    maps = {"qkv": attention.qkv, "output": attention.output, "up": mlp.up, "down": mlp.down}
    if isinstance(mlp, GatedMLP):
        maps["gate"] = mlp.gate
    if memory is not None:
        maps |= {"query": memory.query, "key_value": memory.key_value, "memory_output": memory.output}
    return maps


def _norms(block: Any) -> dict[str, nn.Module | None]:
    attention = block.attention
    return {
        "attention_norm": block.attention_norm, "mlp_norm": block.mlp_norm, "memory_norm": block.memory_norm,
        "query_norm": attention.query_norm, "key_norm": attention.key_norm,
    }  # fmt: skip


def unsupported(config: StackConfig) -> str | None:
    """Why the kernels can't run a stack of this shape; ``None``: they can."""
    if config.hidden_size > MOST_HIDDEN:
        return f"hidden_size is {config.hidden_size:,}, and the kernels go up to {MOST_HIDDEN:,}"
    if (config.memory_size or 0) % 4 or config.hidden_size % 4 or config.mlp_size % 4 or config.head_size % 2:
        return "the sizes of vectors and of the MLP must be multiples of 4, and the head size even"
    return None
