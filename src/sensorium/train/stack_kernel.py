"""The Stack on the compiled kernels, forwards and backwards.

The products run in the dtype of the weights; the residual stream, norms and sums are float32. Weights are packed again
only when they have changed. Dropout keeps no masks: what stays follows from a seed drawn from torch's generator, so a
run that is resumed drops the same.

Shapes: T packed tokens, D hidden size, F MLP size, L layers; N outputs and K inputs of a linear map; S tokens of
sources, M the size of their vectors.
"""

from __future__ import annotations

import ctypes
import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sensorium import native
from sensorium.errors import UsageError
from sensorium.native.activations import activation, slope
from sensorium.nn.lora import adapted_maps
from sensorium.nn.memory import Memory
from sensorium.nn.stack import Stack
from sensorium.packed import Layout


def compile_stacks(model: nn.Module) -> None:
    """Train a model's stacks on the compiled kernels, where they can; one stays as it is elsewhere."""
    for module in model.modules():
        if isinstance(module, Stack):
            try:
                module.kernel = CompiledStack(module)
            except OSError:
                module.kernel = None


def leave_kernels(model: nn.Module) -> None:
    """Give a model's stacks back to torch."""
    for module in model.modules():
        if isinstance(module, Stack):
            module.kernel = None


class CompiledStack:
    """A ``StackKernel``: ``stack.kernel = CompiledStack(stack)``. One for each stack."""

    def __init__(self, stack: Stack) -> None:
        """Raises ``OSError`` where the kernels can't run, or can't run this stack."""
        self.library = native.library()
        if reason := unsupported(stack):
            raise OSError(reason)
        self.layers: list[_Layer] = []
        self.dtype: torch.dtype | None = None
        self.forward_layers = (native.Layer * stack.config.num_layers)()
        self.backward_layers = (native.LayerBackward * stack.config.num_layers)()

    def __call__(
        self, stack: Stack, x: Tensor, layout: Layout, memory: Memory | None = None, blocks: int | None = None
    ) -> Tensor:  # fmt: skip
        """[T, D] → [T, D], in the dtype of x; the weights' gradients come in the dtype of the weights.

        Of the first so many ``blocks``; ``None``: of all. Raises ``UsageError`` where the stack attends to a memory and
        none is given.
        """
        states, source_lengths = _sources(stack, layout, memory)
        count = len(stack.layers) if blocks is None else blocks
        if count == 0:
            return x
        self._follow(stack, count)
        parameters = [parameter for layer in self.layers[:count] for parameter in layer.parameters]
        output: Tensor = _Run.apply(x, states, self, stack, layout, source_lengths, count, *parameters)  # type: ignore[no-untyped-call]
        return output

    def _follow(self, stack: Stack, count: int) -> None:
        """Pack the weights of the first blocks that have changed."""
        dtype = next(stack.layers.parameters()).dtype
        if dtype != self.dtype:
            self.dtype = dtype
            self.layers = [_Layer(block, dtype) for block in stack.layers]
        structs = zip(self.layers[:count], self.forward_layers, self.backward_layers, strict=False)
        for layer, forward, backward in structs:
            layer.follow(self.library, forward, backward)

    def struct(
        self, stack: Stack, count: int, kept: dict[str, Tensor], seed: int, sources: Tensor | None,
        memory: Tensor | None,
    ) -> native.Training:  # fmt: skip
        """What the kernels take: ``sources`` [sequences + 1] offsets of the rows of ``memory`` [S, M]."""
        config = replace(stack.config, num_layers=count)
        block: Any = stack.layers[0]
        attention_dropout = block.attention.dropout if stack.training else 0.0
        dropout = block.dropout.p if stack.training else 0.0
        exact = self.dtype == torch.float32
        return native.Training(
            native.Stack(
                *native.stack_sizes(config), config.scale, config.norm_eps, activation(config.activation, exact=exact),
                self.forward_layers, native.Norm(None, None),
            ),
            slope(config.activation), native.Dropout.of(dropout, seed), native.Dropout.of(attention_dropout, seed),
            self.backward_layers, *(native.pointer(kept.get(name)) for name in native.KEPT), len(kept["attended"][0]),
            0 if memory is None else len(memory), sources=native.pointer(sources), memory=native.pointer(memory),
        )  # fmt: skip


def _sources(stack: Stack, layout: Layout, memory: Memory | None) -> tuple[Tensor | None, tuple[int, ...]]:
    """Vectors [S, M] of a source for each sequence, and the tokens of each; ``None``: the stack has no memory."""
    if stack.config.memory_size is None:
        return None, ()
    if memory is None:
        raise UsageError("this decoder attends to an encoder's vectors, and none were given")
    memory.layout(layout.query_lengths)  # refuses another number of sequences
    if memory.owners == list(range(len(memory.lengths))):
        return memory.states, memory.lengths
    each = memory.states.split(list(memory.lengths))
    return torch.cat([each[owner] for owner in memory.owners]), tuple(memory.lengths[owner] for owner in memory.owners)


class _Layer:
    """The parameters of one block and their packed forms."""

    def __init__(self, block: Any, dtype: torch.dtype) -> None:
        # In the order of native.LEARNING and native.NORMS.
        linear = [block.attention.qkv, block.attention.output, block.mlp.up, block.mlp.down]
        norms = [block.attention_norm, block.mlp_norm]
        if block.memory_attention is not None:
            linear += [block.memory_attention.query, block.memory_attention.output, block.memory_attention.key_value]
            norms.append(block.memory_norm)
        self.weights: list[Tensor] = [module.weight for module in linear]
        # As `Vectors` in training.h.
        self.vectors: list[Tensor] = [p for norm in norms for p in (norm.weight, norm.bias)] + [m.bias for m in linear]
        self.parameters = [*self.weights, *self.vectors]
        self.versions: list[tuple[int, int]] = []
        shapes = [weight.shape for weight in self.weights]
        self.packed = [(_panels(n, k, dtype), _panels(k, n, dtype)) for n, k in shapes]
        """Of each linear map: panels of its weights, and of their transpose."""
        self.padded: list[Tensor] = []
        """The vectors, padded to whole vector registers, in float32."""

    @property
    def vector_size(self) -> int:
        """Numbers of all vectors."""
        return sum(len(vector) for vector in self.vectors)

    def follow(self, library: Any, forward: native.Layer, backward: native.LayerBackward) -> None:
        """Pack what has changed since the last time, and tell the structs."""
        versions = [(parameter.data_ptr(), parameter._version) for parameter in self.parameters]
        if versions == self.versions:
            return
        self.versions = versions
        self.padded = [nn.functional.pad(vector.detach().float(), (0, native.PANEL)) for vector in self.vectors]
        vectors = [native.pointer(vector) for vector in self.padded]
        biases = vectors[-len(self.weights) :]
        # Not every block has all of native.LEARNING and native.NORMS.
        maps = zip(native.LEARNING, self.weights, self.packed, biases, strict=False)
        for number, (name, weight, (panels, transposed), bias) in enumerate(maps):
            outputs, inputs = weight.shape
            library.sensorium_pack(
                native.TRAINED[weight.dtype], native.pointer(weight.detach()), outputs, inputs, native.pointer(panels),
                native.pointer(transposed), torch.get_num_threads(),
            )  # fmt: skip
            setattr(forward, name, native.Linear(native.pointer(panels), bias, None, None, None, inputs, outputs))
            backward.linear[number] = native.Linear(native.pointer(transposed), None, None, None, None, outputs, inputs)
        norms = vectors[: -len(self.weights)]
        for name, *norm in zip(native.NORMS, norms[::2], norms[1::2], strict=False):
            setattr(forward, name, native.Norm(*norm))


def _panels(outputs: int, inputs: int, dtype: torch.dtype) -> Tensor:
    """Room for packed weights, [N / 64, K / per unit, 64] 32-bit units."""
    return torch.zeros(-(-outputs // native.PANEL), inputs * dtype.itemsize // 4, native.PANEL, dtype=torch.int32)


def _room(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A tensor with memory for ``SPARE`` more rows behind it."""
    count = math.prod(shape)
    return torch.empty(count + native.SPARE * shape[-1], dtype=dtype)[:count].view(shape)


class _Run(torch.autograd.Function):
    """All blocks as one node of the graph."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, states: Tensor | None, kernel: CompiledStack, stack: Stack, layout: Layout,
        source_lengths: tuple[int, ...], layers: int, *parameters: Tensor,
    ) -> Tensor:  # fmt: skip
        assert kernel.dtype is not None
        output = x.detach().to(torch.float32, copy=True).contiguous()  # [T, D]
        (tokens, size), mlp = x.shape, stack.config.mlp_size
        places = len(native.NORMS) - (states is None)
        shapes = {
            "input": (tokens, size), "normals": (layers, places, tokens, size), "inverses": (layers, places, tokens),
            "qkv": (layers, tokens, 3 * size), "attended": (layers, tokens, size), "up": (layers, tokens, mlp),
        }  # fmt: skip
        sizes = [size, mlp]
        ctx.memory = ctx.sources = None
        if states is not None:
            shapes |= {
                "query": (layers, tokens, size), "memory_attended": (layers, tokens, size),
                "key_value": (layers, len(states), 2 * size),
            }  # fmt: skip
            sizes.append(states.shape[1])
            ctx.memory = _room(tuple(states.shape), kernel.dtype).copy_(states.detach())  # [S, M]
            ctx.sources = _offsets(source_lengths)
        dtypes = {"inverses": torch.float32}
        ctx.kept = {name: _room(shape, dtypes.get(name, kernel.dtype)) for name, shape in shapes.items()}
        ctx.kernel, ctx.stack, ctx.layers = kernel, stack, layers
        ctx.dtypes = x.dtype, None if states is None else states.dtype
        ctx.offsets = _offsets(layout.query_lengths)
        seed = int(torch.randint(2**62, ())) if stack.training else 0
        ctx.struct = kernel.struct(stack, layers, ctx.kept, seed, ctx.sources, ctx.memory)
        ctx.code = native.on_matrix_unit(native.TRAINED[kernel.dtype], *sizes)
        kernel.library.sensorium_forward(
            ctx.code, ctypes.byref(ctx.struct), native.pointer(ctx.offsets), len(ctx.offsets) - 1,
            native.pointer(output), torch.get_num_threads(),
        )  # fmt: skip
        return output.to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        x = gradients[0].to(torch.float32, copy=True).contiguous()  # [T, D]
        kernel: CompiledStack = ctx.kernel
        layers = kernel.layers[: ctx.layers]
        struct, (x_needed, memory_needed), needed = ctx.struct, ctx.needs_input_grad[:2], ctx.needs_input_grad[7:]
        per_layer = len(layers[0].parameters)
        learning = [any(needed[n * per_layer : (n + 1) * per_layer]) for n in range(len(layers))]
        struct.lowest = 0 if x_needed or memory_needed else learning.index(True)
        weights, vectors = _gradients(kernel, layers, needed)
        memory_gradient = torch.zeros(ctx.memory.shape) if memory_needed else None  # [S, M]
        struct.memory_gradient = native.pointer(memory_gradient)
        offsets, sequences = native.pointer(ctx.offsets), len(ctx.offsets) - 1
        tiles, *tokens = (ctypes.c_int64() for _ in range(3))
        kernel.library.sensorium_tiles(
            ctx.code, offsets, native.pointer(ctx.sources), sequences, *map(ctypes.byref, (tiles, *tokens))
        )
        zipped = torch.empty(_zipped_size(layers[0], *(number.value for number in tokens)), dtype=kernel.dtype)
        sums = torch.empty(tiles.value, vectors.shape[1])
        struct.zipped, struct.sums = native.pointer(zipped), native.pointer(sums)
        kernel.library.sensorium_backward(
            ctx.code, ctypes.byref(struct), offsets, sequences, native.pointer(x), torch.get_num_threads()
        )
        ctx.kept = ctx.memory = None
        x_dtype, memory_dtype = ctx.dtypes
        return (
            x.to(x_dtype) if x_needed else None,
            None if memory_gradient is None else memory_gradient.to(memory_dtype), None, None, None, None, None,
            *_by_parameter(kernel, layers, weights, vectors, needed, struct.lowest),
        )  # fmt: skip


def _offsets(lengths: tuple[int, ...]) -> Tensor:
    """[sequences + 1] where each sequence begins."""
    return torch.tensor([0, *np.cumsum(lengths)])


def _zipped_size(layer: _Layer, tokens: int, source_tokens: int) -> int:
    """Numbers of all operands of a layer's products over rows: padded to panels, tokens to whole steps."""
    rows = {"key_value": source_tokens}
    return sum(
        -(-side // native.PANEL) * native.PANEL * rows.get(name, tokens)
        for name, weight in zip(native.LEARNING, layer.weights, strict=False)
        for side in weight.shape
    )


def _gradients(
    kernel: CompiledStack, layers: list[_Layer], needed: tuple[bool, ...]
) -> tuple[list[list[Tensor | None]], Tensor]:
    """Room for the gradients of all weights [N, K] that are needed, and of all vectors; the structs are told."""
    vectors = torch.empty(len(layers), layers[0].vector_size)
    weights: list[list[Tensor | None]] = []
    for n, (layer, backward) in enumerate(zip(layers, kernel.backward_layers, strict=False)):
        backward.vectors = native.pointer(vectors[n])
        wanted = needed[n * len(layer.parameters) :][: len(layer.weights)]
        weights.append([torch.empty(w.shape) if want else None for w, want in zip(layer.weights, wanted, strict=True)])
        for i, weight in enumerate(weights[-1]):
            backward.weights[i] = native.pointer(weight)
    return weights, vectors


def _by_parameter(
    kernel: CompiledStack, layers: list[_Layer], weights: list[list[Tensor | None]], vectors: Tensor,
    needed: tuple[bool, ...], lowest: int,
) -> list[Tensor | None]:  # fmt: skip
    """Gradients in the order of the parameters, in their dtype."""
    found: list[Tensor | None] = []
    for n, layer in enumerate(layers):
        found += [*weights[n], *vectors[n].split([len(vector) for vector in layer.vectors])]
    per_layer = len(found) // len(layers)
    return [
        gradient.to(kernel.dtype) if gradient is not None and wanted and i // per_layer >= lowest else None
        for i, (gradient, wanted) in enumerate(zip(found, needed, strict=True))
    ]


def unsupported(stack: Stack) -> str | None:
    """Why the kernels can't train this stack; ``None``: they can."""
    config = stack.config
    if lacking := [part for part in config.newer_parts if part != "attention to another stack"]:
        return f"the kernels have no {lacking[0]} yet"
    if config.hidden_size % 4 or config.mlp_size % 4 or (config.memory_size or 0) % 4 or config.head_size % 2:
        return "hidden_size, mlp_size and memory_size must be multiples of 4, and the head size even"
    blocks: list[Any] = list(stack.layers)
    if adapted_maps(stack):
        return "the kernels have no adapters"
    attentions = [a for block in blocks for a in (block.attention, block.memory_attention) if a is not None]
    if len({block.dropout.p for block in blocks}) > 1 or len({attention.dropout for attention in attentions}) > 1:
        return "the layers have different dropouts"
    if {parameter.dtype for parameter in stack.layers.parameters()} - set(native.TRAINED):
        return "the weights are neither float32 nor bfloat16"
    return "the model is on a GPU" if next(stack.parameters()).is_cuda else None
