"""The Stack: one Transformer, and the window to look inside it."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from sensorium.config import StackConfig
from sensorium.errors import UsageError
from sensorium.nn.attention import DistanceBias, attention_weights, reference_attention
from sensorium.nn.block import (
    NORMS,
    Attention,
    Block,
    Cache,
    Context,
    MemoryAttention,
    PostNormBlock,
    PreNormBlock,
)
from sensorium.nn.last_rows import block_at, can_read_rows
from sensorium.nn.memory import Memory
from sensorium.nn.positions import Rotation, distance_buckets, rotation
from sensorium.packed import Layout

BLOCKS: dict[str, type[PreNormBlock] | type[PostNormBlock]] = {"pre": PreNormBlock, "post": PostNormBlock}


class StackKernel(Protocol):
    """Runs the blocks of a stack, differentiably, without its final norm."""

    def __call__(self, stack: Stack, x: Tensor, layout: Layout, memory: Memory | None, blocks: int) -> Tensor:
        """[T, D] → [T, D], of the first so many ``blocks``."""
        ...


class Stack(nn.Module):
    """A tower of blocks over packed tokens: ``Stack(config)(x, layout, cache=None, memory=None) -> x``, x: [T, D]."""

    def __init__(self, config: StackConfig) -> None:
        super().__init__()
        self.config = config
        self.kernel: StackKernel | None = None
        """What runs all blocks at once; ``None``: one block after another."""
        block = BLOCKS[config.norm_place]
        self.layers = nn.ModuleList(block(config, layer) for layer in range(config.num_layers))
        relative = config.relative
        self.relative = None if relative is None else nn.Embedding(relative.buckets, config.num_heads)
        norm = NORMS[config.norm]
        self.final_norm = norm(config.hidden_size, eps=config.norm_eps) if config.final_norm else nn.Identity()

    def forward(
        self, x: Tensor, layout: Layout, cache: Cache | None = None, memory: Memory | None = None,
        blocks: int | None = None,
    ) -> Tensor:  # fmt: skip
        """[T, D] → [T, D]; of only the first so many ``blocks``, without the final norm."""
        if self.kernel is not None and cache is None:
            x = self.kernel(self, x, layout, memory, len(self.layers) if blocks is None else blocks)
        else:
            context = Context(layout, cache, self._rotation(x, layout), memory, self._bias(layout))
            for layer in self.layers[:blocks]:
                x = layer(x, context)
        output: Tensor = x if blocks is not None else self.final_norm(x)
        return output

    def at(self, x: Tensor, layout: Layout, rows: Tensor) -> Tensor:
        """[T, D] → [N, D]: ``self(x, layout)[rows]``, a row of each sequence; the last block computes no others."""
        last = self.layers[-1]
        if not can_read_rows(self.config, last):
            whole: Tensor = self(x, layout)
            return whole[rows]
        below = self(x, layout, blocks=len(self.layers) - 1)
        output: Tensor = self.final_norm(block_at(last, below, layout, rows))
        return output

    def _rotation(self, x: Tensor, layout: Layout) -> Rotation | None:
        rotary = self.config.rotary
        if rotary is None:
            return None
        return rotation(rotary, self.config.head_size, layout.query_positions.to(x.device), x.dtype)

    def _bias(self, layout: Layout) -> DistanceBias | None:
        """What the distances of this batch add to scores."""
        if self.relative is None or self.config.relative is None:
            return None
        longest = max(layout.key_lengths)
        distances = torch.arange(1 - longest, longest, device=self.relative.weight.device)
        buckets = distance_buckets(distances, self.config.relative, both_ways=self.config.mask == "bidirectional")
        return DistanceBias(self.relative(buckets).t())  # [H, 2R - 1]


What = Literal["attention", "hidden"]


@dataclass
class Captured:
    """What ``capture`` saw, by layer."""

    attention: dict[int, list[Tensor]] = field(default_factory=dict)
    """Attention weights of each sequence, [H, Lq, Lk]."""
    memory_attention: dict[int, list[Tensor]] = field(default_factory=dict)
    """Those to the source that each sequence of a decoder reads, [H, Lq, Ls], where it reads one."""
    hidden: dict[int, Tensor] = field(default_factory=dict)
    """Output of the block, [T, D]."""


@contextmanager
def capture(
    model: nn.Module, layers: Collection[int] | None = None, what: Collection[What] = ("attention", "hidden")
) -> Iterator[Captured]:
    """Look inside a model while it runs: attention weights and hidden states of its blocks.

    Attention weights exist only in the reference kernel, so the captured layers run on it meanwhile. Of an
    encoder–decoder give one side: both count their layers from 0.

        with capture(model, layers=[0, 5]) as seen:
            model(batch)
        seen.attention[5][0]  # [H, L, L], of the first sequence

    Raises ``UsageError`` for a layer the model does not have.
    """
    blocks = {block.attention.layer: block for block in model.modules() if isinstance(block, Block)}
    chosen = sorted(blocks) if layers is None else sorted(layers)
    unknown = [layer for layer in chosen if layer not in blocks]
    if unknown:
        raise UsageError(f"there is no layer {unknown[0]}; the model has layers 0 to {len(blocks) - 1}")
    seen = Captured()
    looking: list[tuple[Attention | MemoryAttention, dict[int, list[Tensor]]]] = []
    for layer in chosen:
        looking.append((blocks[layer].attention, seen.attention))
        memory_attention = blocks[layer].memory_attention
        if memory_attention is not None:
            looking.append((memory_attention, seen.memory_attention))
    kernels = [part.kernel for part, _ in looking]
    stacks = {module: module.kernel for module in model.modules() if isinstance(module, Stack)}
    hooks = []
    try:
        for stack in stacks:
            stack.kernel = None
        for part, found in looking if "attention" in what else ():
            part.kernel = _recording_kernel(found, part.layer)
        if "hidden" in what:
            hooks = [blocks[layer].register_forward_hook(_recording_hook(seen, layer)) for layer in chosen]
        yield seen
    finally:
        for (part, _), kernel in zip(looking, kernels, strict=True):
            part.kernel = kernel
        for stack, whole in stacks.items():
            stack.kernel = whole
        for hook in hooks:
            hook.remove()


def _recording_kernel(seen: dict[int, list[Tensor]], layer: int) -> Any:
    def kernel(
        q: Tensor, k: Tensor, v: Tensor, layout: Layout, *, causal: bool, scale: float, dropout: float = 0.0,
        window: int | None = None, bias: DistanceBias | None = None,
    ) -> Tensor:  # fmt: skip
        mask: dict[str, Any] = {"causal": causal, "scale": scale, "window": window, "bias": bias}
        seen[layer] = attention_weights(q, k, layout, **mask)
        return reference_attention(q, k, v, layout, dropout=dropout, **mask)

    return kernel


def _recording_hook(seen: Captured, layer: int) -> Any:
    def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
        seen.hidden[layer] = output

    return hook
