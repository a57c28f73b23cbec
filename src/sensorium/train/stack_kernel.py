"""The Stack on the compiled kernels, forwards and backwards.

The products run in the dtype of the weights; the residual stream, norms and sums are float32. Weights are packed again
only when they have changed. Dropout keeps no masks: what stays follows from a seed drawn from torch's generator, so a
run that is resumed drops the same.

Shapes: T packed tokens, D hidden size, F MLP size, L layers; N outputs and K inputs of a linear map.
"""

from __future__ import annotations

import ctypes
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sensorium import native
from sensorium.native.activations import activation, slope
from sensorium.nn.lora import adapted_maps
from sensorium.nn.stack import Stack
from sensorium.packed import Layout

LINEAR = ("qkv", "output", "up", "down")


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

    def __call__(self, stack: Stack, x: Tensor, layout: Layout) -> Tensor:
        """[T, D] → [T, D], in the dtype of x; the weights' gradients come in the dtype of the weights."""
        self._follow(stack)
        parameters = [parameter for layer in self.layers for parameter in layer.parameters]
        output: Tensor = _Run.apply(x, self, stack, layout, *parameters)  # type: ignore[no-untyped-call]
        return output

    def _follow(self, stack: Stack) -> None:
        """Pack the weights that have changed."""
        dtype = next(stack.layers.parameters()).dtype
        if dtype != self.dtype:
            self.dtype = dtype
            self.layers = [_Layer(block, dtype) for block in stack.layers]
        for layer, forward, backward in zip(self.layers, self.forward_layers, self.backward_layers, strict=True):
            layer.follow(self.library, forward, backward)

    def struct(self, stack: Stack, kept: dict[str, Tensor], seed: int) -> native.Training:
        """What the kernels take."""
        config = stack.config
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
            self.backward_layers, *(native.pointer(tensor) for tensor in kept.values()), len(kept["attended"][0]),
        )  # fmt: skip


class _Layer:
    """The parameters of one block and their packed forms."""

    def __init__(self, block: Any, dtype: torch.dtype) -> None:
        linear = [block.attention.qkv, block.attention.output, block.mlp.up, block.mlp.down]
        norms = [block.attention_norm, block.mlp_norm]
        self.parameters: list[Tensor] = [p for module in (*linear, *norms) for p in (module.weight, module.bias)]
        self.versions: list[tuple[int, int]] = []
        shapes = [module.weight.shape for module in linear]
        self.packed = [(_panels(n, k, dtype), _panels(k, n, dtype)) for n, k in shapes]
        """Of each linear map: panels of its weights, and of their transpose."""
        self.vectors: list[Tensor] = []

    def follow(self, library: Any, forward: native.Layer, backward: native.LayerBackward) -> None:
        """Pack what has changed since the last time, and tell the structs."""
        versions = [(parameter.data_ptr(), parameter._version) for parameter in self.parameters]
        if versions == self.versions:
            return
        self.versions = versions
        # [N] biases and [D] norms, padded to whole vectors, in float32
        self.vectors = [
            nn.functional.pad(p.detach().float(), (0, native.PANEL)) for p in self.parameters if p.dim() == 1
        ]
        for number, (name, (panels, transposed)) in enumerate(zip(LINEAR, self.packed, strict=True)):
            weight = self.parameters[2 * number].detach()
            outputs, inputs = weight.shape
            library.sensorium_pack(
                native.TRAINED[weight.dtype], native.pointer(weight), outputs, inputs, native.pointer(panels),
                native.pointer(transposed), torch.get_num_threads(),
            )  # fmt: skip
            bias = native.pointer(self.vectors[number])
            setattr(forward, name, native.Linear(native.pointer(panels), bias, None, None, None, inputs, outputs))
            setattr(backward, name, native.Linear(native.pointer(transposed), None, None, None, None, outputs, inputs))
        attention, mlp = self.vectors[4:6], self.vectors[6:8]
        forward.attention_norm = native.Norm(*map(native.pointer, attention))
        forward.mlp_norm = native.Norm(*map(native.pointer, mlp))


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
        ctx: Any, x: Tensor, kernel: CompiledStack, stack: Stack, layout: Layout, *parameters: Tensor
    ) -> Tensor:
        assert kernel.dtype is not None
        output = x.detach().to(torch.float32, copy=True).contiguous()  # [T, D]
        (tokens, size), layers, mlp = x.shape, stack.config.num_layers, stack.config.mlp_size
        shapes = {
            "input": (tokens, size), "normals": (layers, 2, tokens, size), "inverses": (layers, 2, tokens),
            "qkv": (layers, tokens, 3 * size), "attended": (layers, tokens, size), "up": (layers, tokens, mlp),
        }  # fmt: skip
        dtypes = {"inverses": torch.float32}
        ctx.kept = {name: _room(shape, dtypes.get(name, kernel.dtype)) for name, shape in shapes.items()}
        ctx.kernel, ctx.stack, ctx.dtype = kernel, stack, x.dtype
        ctx.offsets = torch.tensor([0, *np.cumsum(layout.query_lengths)])  # [sequences + 1]
        seed = int(torch.randint(2**62, ())) if stack.training else 0
        ctx.struct = kernel.struct(stack, ctx.kept, seed)
        ctx.code = native.on_matrix_unit(native.TRAINED[kernel.dtype], size, mlp)
        kernel.library.sensorium_forward(
            ctx.code, ctypes.byref(ctx.struct), native.pointer(ctx.offsets), len(ctx.offsets) - 1,
            native.pointer(output), torch.get_num_threads(),
        )  # fmt: skip
        return output.to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        x = gradients[0].to(torch.float32, copy=True).contiguous()  # [T, D]
        kernel: CompiledStack = ctx.kernel
        config, struct, needed = ctx.stack.config, ctx.struct, ctx.needs_input_grad
        per_layer = len(kernel.layers[0].parameters)
        learning = [any(needed[4 + n * per_layer : 4 + (n + 1) * per_layer]) for n in range(config.num_layers)]
        struct.lowest = 0 if needed[0] else learning.index(True)
        weights, vectors = _gradients(kernel, needed[4:], config.num_layers, 9 * config.hidden_size + config.mlp_size)
        tiles, tokens = ctypes.c_int64(), ctypes.c_int64()
        offsets, sequences = native.pointer(ctx.offsets), len(ctx.offsets) - 1
        kernel.library.sensorium_tiles(ctx.code, offsets, sequences, ctypes.byref(tiles), ctypes.byref(tokens))
        columns = sum(  # of all operands of the products over rows
            -(-side // native.PANEL) * native.PANEL
            for parameter in kernel.layers[0].parameters[:8:2]
            for side in parameter.shape
        )
        zipped = torch.empty(columns * tokens.value, dtype=kernel.dtype)
        sums = torch.empty(tiles.value, vectors.shape[1])
        struct.zipped, struct.sums = native.pointer(zipped), native.pointer(sums)
        kernel.library.sensorium_backward(
            ctx.code, ctypes.byref(struct), offsets, sequences, native.pointer(x), torch.get_num_threads()
        )
        ctx.kept = None
        return (
            x.to(ctx.dtype) if needed[0] else None, None, None, None,
            *_by_parameter(kernel, weights, vectors, needed[4:], struct.lowest),
        )  # fmt: skip


def _gradients(
    kernel: CompiledStack, needed: tuple[bool, ...], num_layers: int, vector_size: int
) -> tuple[list[Tensor | None], Tensor]:
    """Room for the gradients of all weights [N, K] that are needed, and of all vectors; the structs are told."""
    vectors = torch.empty(num_layers, vector_size)
    weights: list[Tensor | None] = []
    for n, layer in enumerate(kernel.layers):
        kernel.backward_layers[n].vectors = native.pointer(vectors[n])
        for i, parameter in enumerate(layer.parameters[:8:2]):
            wanted = needed[n * len(layer.parameters) + 2 * i]
            weights.append(torch.empty(parameter.shape) if wanted else None)
            kernel.backward_layers[n].weights[i] = native.pointer(weights[-1])
    return weights, vectors


def _by_parameter(
    kernel: CompiledStack, weights: list[Tensor | None], vectors: Tensor, needed: tuple[bool, ...], lowest: int
) -> list[Tensor | None]:
    """Gradients in the order of the parameters, in their dtype."""
    found: list[Tensor | None] = []
    for n, layer in enumerate(kernel.layers):
        qkv, output, up, down = (weights[4 * n + i] for i in range(4))
        size = len(layer.parameters[3])
        # As `Vectors` in training.cpp.
        attention, attention_bias, mlp, mlp_bias, b_qkv, b_output, b_down, b_up = vectors[n].split(
            [size] * 4 + [3 * size, size, size, vectors.shape[1] - 9 * size]
        )
        found += [qkv, b_qkv, output, b_output, up, b_up, down, b_down, attention, attention_bias, mlp, mlp_bias]
    per_layer = len(found) // len(kernel.layers)
    return [
        gradient.to(kernel.dtype) if gradient is not None and wanted and i // per_layer >= lowest else None
        for i, (gradient, wanted) in enumerate(zip(found, needed, strict=True))
    ]


def unsupported(stack: Stack) -> str | None:
    """Why the kernels can't train this stack; ``None``: they can."""
    config = stack.config
    if config.newer_parts:
        return f"the kernels have no {config.newer_parts[0]} yet"
    if config.hidden_size % 4 or config.mlp_size % 4 or config.head_size % 2:
        return "hidden_size and mlp_size must be multiples of 4, and the head size even"
    blocks: list[Any] = list(stack.layers)
    if adapted_maps(stack):
        return "the kernels have no adapters"
    if len({block.dropout.p for block in blocks}) > 1 or len({block.attention.dropout for block in blocks}) > 1:
        return "the layers have different dropouts"
    if {parameter.dtype for parameter in stack.layers.parameters()} - set(native.TRAINED):
        return "the weights are neither float32 nor bfloat16"
    return "the model is on a GPU" if next(stack.parameters()).is_cuda else None
